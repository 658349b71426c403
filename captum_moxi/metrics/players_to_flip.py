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


def median_flip(counts: Sequence[float], max_count: int) -> str:
    """Format the median number of players that flip a prediction, for tables.

    Args:
        counts (Sequence[float]): Number of players for each example. Infinity if ``max_count`` players do not flip the
            prediction.
        max_count (int): Largest number of players that was evaluated.

    Returns:
        str: Median, or ``"> N"`` with N = ``max_count`` if too few predictions flip for a median.
    """
    low, high = median_low(counts), median_high(counts)
    return f"> {max_count}" if math.isinf(high) else f"{(low + high) / 2:g}"


def _summary(curve: Curve) -> dict[str, Cell]:
    counts = count_players_to_flip(curve).nan_to_num(nan=math.inf)
    return {
        "players to flip, median": median_flip(counts.tolist(), int(curve.counts[0, -1])),
        "examples flipped": int(counts.isfinite().sum()),
    }
