"""The number of players that flip a prediction."""

import math
from collections.abc import Sequence
from statistics import median_high, median_low

import torch
from torch import Tensor

from captum_moxi.metrics.base import Cell, Metric
from captum_moxi.metrics.curves import Curve


def flip_count() -> Metric:
    """Return the metric of the number of players that flip the prediction when inserted or deleted in order."""
    return Metric(
        "players to flip",
        count_players_to_flip,
        better={"insertion": "lower", "deletion": "lower"},
        is_count=True,
        summary=_summary,
        legend="inserted until the target is predicted, or deleted until it is lost; fewer is better; ≤ if the curve "
        "skips smaller numbers, > if it ends before the flip",
    )


def count_players_to_flip(curve: Curve) -> Tensor:
    """Count the players that flip the prediction of each example, among the counts of the curve.

    Args:
        curve (Curve): Curve of B examples.

    Returns:
        Tensor: Shape ``(B,)``, float64. NaN for examples whose prediction never flips.
    """
    point = (curve.fractions == curve.flip_fraction[:, None]).long().argmax(1, keepdim=True)
    counts = curve.counts.gather(1, point)[:, 0].double()
    return counts.masked_fill(curve.flip_fraction.isnan(), torch.nan)


def skips_counts(curve: Curve) -> Tensor:
    """Return whether fewer players may flip the prediction, because the curve skips the counts below the flip.

    Args:
        curve (Curve): Curve of B examples.

    Returns:
        Tensor: Shape ``(B,)``, bool. False for examples whose prediction never flips.
    """
    counts = count_players_to_flip(curve)[:, None]
    before = torch.where(curve.counts < counts, curve.counts, -1).amax(1, keepdim=True)
    return (counts - before > 1)[:, 0]


def median_flip(counts: Sequence[float], max_count: int, *, are_bounds: Sequence[bool] = ()) -> str:
    """Format the median number of players that flip a prediction, for tables.

    Args:
        counts (Sequence[float]): Number of players for each example. Infinity if ``max_count`` players do not flip the
            prediction.
        max_count (int): Largest number of players that was evaluated.
        are_bounds (Sequence[bool], optional): Whether fewer players may flip the prediction of an example, as in
            :func:`skips_counts`.
            Default: ``()``, all counts are exact

    Returns:
        str: Median. ``"≤ N"`` if the median may be less than N. ``"> N"`` with N = ``max_count`` if too few predictions
        flip for a median.
    """
    low, high = median_low(counts), median_high(counts)
    if math.isinf(high):
        return f"> {max_count}"
    # A smaller number of players in an example below the median would not change the median.
    is_bound = any(bound and count >= low for count, bound in zip(counts, are_bounds, strict=False))
    return f"{'≤ ' if is_bound else ''}{(low + high) / 2:g}"


def _summary(curve: Curve) -> dict[str, Cell]:
    counts = count_players_to_flip(curve).nan_to_num(nan=math.inf)
    return {
        "players to flip, median": median_flip(
            counts.tolist(), int(curve.counts[0, -1]), are_bounds=skips_counts(curve).tolist()
        ),
        "examples flipped": int(counts.isfinite().sum()),
    }
