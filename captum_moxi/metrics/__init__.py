"""Insertion and deletion curves, and the metrics computed from them.

``METRICS`` lists the metrics by name. To add one, write a function that returns a :class:`Metric` in a file of its own,
and register it below.
"""

from collections.abc import Sequence

from captum_moxi.metrics.area import confidence_area, reward_area
from captum_moxi.metrics.base import Cell, Metric
from captum_moxi.metrics.curves import TOLERANCE, Curve, Quantity, deletion_curve, insertion_curve, play_curve
from captum_moxi.metrics.ordering import Attributions, parse_fractions, rank_positions
from captum_moxi.metrics.paired import PairedDifference, paired_difference
from captum_moxi.metrics.players_to_flip import count_players_to_flip, flip_count, median_flip, skips_counts
from captum_moxi.metrics.replays import (
    DEFAULT_REMOVALS,
    REPLAYS_LEGEND,
    Replay,
    check_fit,
    check_removals,
    gain_title,
    join_replays,
    order_title,
    play_replays,
    replay_records,
    replay_rows,
)
from captum_moxi.metrics.srg import SRG_LEGEND, covers_all_players, symmetric_relevance_gain
from captum_moxi.registry import Registry

__all__ = [
    "DEFAULT_REMOVALS",
    "METRICS",
    "REPLAYS_LEGEND",
    "SRG_LEGEND",
    "TOLERANCE",
    "Attributions",
    "Cell",
    "Curve",
    "Metric",
    "PairedDifference",
    "Quantity",
    "Replay",
    "check_fit",
    "check_removals",
    "confidence_area",
    "count_players_to_flip",
    "covers_all_players",
    "deletion_curve",
    "flip_count",
    "gain_title",
    "get_metrics",
    "insertion_curve",
    "join_replays",
    "median_flip",
    "order_title",
    "paired_difference",
    "parse_fractions",
    "play_curve",
    "play_replays",
    "rank_positions",
    "replay_records",
    "replay_rows",
    "reward_area",
    "skips_counts",
    "symmetric_relevance_gain",
]

METRICS: Registry[Metric] = Registry("metric")
METRICS.register("players-to-flip", flip_count, help="number of players that flip the prediction")
METRICS.register("area", confidence_area, help="area under the confidences")
METRICS.register("reward-area", reward_area, help="area under the rewards")


def get_metrics(metrics: str | Metric | Sequence[str | Metric] | None = None) -> list[Metric]:
    """Create metrics from names of ``METRICS``.

    Args:
        metrics (str, Metric or Sequence[str or Metric], optional): Names, or your own metrics.
            Default: None, all registered metrics that need no argument

    Returns:
        list[Metric]: Metrics with different titles.

    Raises:
        ValueError: If a name is unknown, or if two metrics share a title.
        TypeError: If an entry is neither a name nor a metric.
    """
    if metrics is None:
        metrics = [entry.name for entry in METRICS.entries if not entry.required]
    created: list[Metric] = []
    for metric in [metrics] if isinstance(metrics, str | Metric) else metrics:
        if not isinstance(metric, str | Metric):
            raise TypeError(f"metrics contains {metric!r}; pass names or Metric objects")
        created.append(METRICS.create(metric) if isinstance(metric, str) else metric)
    titles = [metric.title for metric in created]
    if len(set(titles)) < len(titles):
        raise ValueError(f"metrics have the titles {titles}; pass metrics with different titles")
    return created
