"""The number of players that flip a prediction."""

import math
from collections.abc import Sequence
from statistics import median_high, median_low

import torch
from torch import Tensor

from captum_moxi.metrics.base import Cell, Metric
from captum_moxi.metrics.curves import Curve


def flip_count() -> Metric:
    """The number of players, inserted or deleted in order, that flip the prediction."""
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
        curve (Curve): The curve of B examples.

    Returns:
        Tensor: ``(B,)`` float64; NaN for examples that never flip.
    """
    point = (curve.fractions == curve.flip_fraction[:, None]).long().argmax(1, keepdim=True)
    counts = curve.counts.gather(1, point)[:, 0].double()
    return counts.masked_fill(curve.flip_fraction.isnan(), torch.nan)


def median_flip(counts: Sequence[float], max_count: int) -> str:
    """Format the median number of players that flip a prediction, for tables.

    Args:
        counts (Sequence[float]): The number of players for each example; infinity if up to ``max_count`` players do
            not flip it.
        max_count (int): The largest number of players that was evaluated.

    Returns:
        str: The median, or ``"> N"`` if it lies beyond what was evaluated and is known to exceed N.
    """
    low, high = median_low(counts), median_high(counts)
    if math.isinf(high):
        return f"> {max_count if math.isinf(low) else (low + max_count) / 2:g}"
    return f"{(low + high) / 2:g}"


def _summary(curve: Curve) -> dict[str, Cell]:
    counts = count_players_to_flip(curve).nan_to_num(nan=math.inf)
    return {
        "players to flip, median": median_flip(counts.tolist(), int(curve.counts[0, -1])),
        "examples flipped": int(counts.isfinite().sum()),
    }
