"""Ties: values that differ only by float rounding are ties, and ties go to the first of them."""

import torch
from torch import Tensor

# Rewards within this many machine epsilons of the best reward are ties. The epsilon is multiplied by the scale of the
# rewards: the largest absolute reward of the step, which approximates the size of the logits that were subtracted.
# Measured for ViT-T, DeiT-T and ResNet-50 at rewards of up to 13: most float32 log-odds are equal in passes of 1, 2 and
# 64 rows, and 99% differ by at most 32 epsilons (without the scale).
TIE_EPS = 8


def is_best(values: Tensor, dtype: torch.dtype, *, relative: bool, sizes: Tensor | None = None) -> Tensor:
    """Return which values equal the largest value of their row, up to rounding.

    Args:
        values (Tensor): Shape ``(S, n)``, float64. -inf for values that do not take part.
        dtype (torch.dtype): Floating-point dtype in which the values were computed.
        relative (bool): Whether the rounding error is relative to the best value. Otherwise it is relative to the
            largest size of the row.
        sizes (Tensor, optional): Size of the numbers from which each value was computed. Shape ``(S, n)``, float64.
            Default: None, the absolute values

    Returns:
        Tensor: Shape ``(S, n)``, bool.
    """
    best = values.amax(1, keepdim=True)
    sizes = values.abs() if sizes is None else sizes
    scale = best.abs() if relative else sizes.masked_fill(values.isinf(), 0).amax(1, keepdim=True)
    return values >= best - TIE_EPS * torch.finfo(dtype).eps * scale


def first_best(values: Tensor, dtype: torch.dtype, *, relative: bool, sizes: Tensor | None = None) -> Tensor:
    """Return the first position of each row whose value is the largest, up to rounding: ``(S, n)`` to ``(S,)``."""
    before_best = (~is_best(values, dtype, relative=relative, sizes=sizes)).long().cumprod(1)
    return before_best.sum(1).clamp(max=values.shape[1] - 1)


def best_to_worst(
    values: Tensor, count: int, dtype: torch.dtype, *, relative: bool, sizes: Tensor | None = None
) -> Tensor:
    """Return the positions of the largest values of each row, largest first. Ties go to the first position.

    Args:
        values (Tensor): Shape ``(S, n)``, float64. -inf for values that do not take part.
        count (int): Number of positions.
        dtype, relative, sizes: As in :func:`is_best`.

    Returns:
        Tensor: Shape ``(S, count)``, int64. After the values that take part, positions are arbitrary.
    """
    remaining = values.clone()
    positions = torch.empty(len(values), count, dtype=torch.long)
    for place in range(count):
        positions[:, place] = first_best(remaining, dtype, relative=relative, sizes=sizes)
        remaining.scatter_(1, positions[:, place : place + 1], -torch.inf)
    return positions
