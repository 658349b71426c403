"""How much a screened step may have missed: a bound on the gains of the candidates that it skipped."""

import math
from functools import lru_cache

import torch
from torch import Tensor

# Confidence with which the gains of all skipped candidates of a step lie below the bound.
CONFIDENCE = 0.95


def largest_missed_gain(priorities: Tensor, gains: Tensor, *, audited: Tensor, skipped: Tensor) -> Tensor:
    r"""
    Bound the largest gain of the skipped candidates, given the gains of random ones among them that were evaluated.

    The error of candidate i is its gain minus its priority :math:`e_i`, the gain that the screen expected. The errors
    of k audited candidates lie between :math:`r_{\min}` and :math:`r_{\max}`, and m candidates remain skipped. The
    bound is

    .. math::
        \max_i e_i + r_{\max} + d \, (r_{\max} - r_{\min})
        \quad \text{where} \quad
        \frac{k}{k + 1} \prod_{j=1}^{k-1} \frac{j}{j + 1 + d} = \frac{0.05}{m}

    or :math:`d = 0` if the left side is smaller. The left side is the probability that one more error exceeds the last
    two terms, if errors are exponentially distributed. It is an upper bound of this probability for every continuous
    distribution whose hazard rate does not decrease, such as a normal one: the cumulative hazard of the errors is then
    convex, and beyond the largest error it grows at least as fast as between the smallest and the largest. By the union
    bound, no candidate exceeds the bound with a confidence of at least 95 %.

    The audited candidates are drawn at random, so their errors are exchangeable with those of the skipped ones. The
    errors of the candidates that the screen selected are not used, because the screen selects candidates whose gains it
    overestimates. Without any assumption on the distribution, no such bound exists: the candidate with the largest
    error is among the audited ones with a probability of only k / (k + m).

    Args:
        priorities (Tensor): Gain that the screen expected of each candidate. Shape ``(S, n)``, float64.
        gains (Tensor): Gain of each evaluated candidate. Shape ``(S, n)``, float64.
        audited (Tensor): Which candidates were drawn at random and evaluated. Shape ``(S, n)``, bool.
        skipped (Tensor): Which candidates were not evaluated. Shape ``(S, n)``, bool.

    Returns:
        Tensor: Shape ``(S,)``, float64. NaN if no candidate was skipped, if fewer than two were audited, or if a value
        is not finite.
    """
    bounds = torch.full((len(priorities),), torch.nan, dtype=torch.float64)
    for row in (skipped.any(1) & (audited.sum(1) >= 2)).nonzero().flatten().tolist():
        errors = (gains - priorities)[row, audited[row]]
        lowest, highest = errors.aminmax()
        factor = extrapolation((1 - CONFIDENCE) / int(skipped[row].sum()), len(errors))
        bounds[row] = priorities[row, skipped[row]].max() + highest + factor * (highest - lowest)
    return bounds.masked_fill(bounds.isinf(), torch.nan)


@lru_cache(maxsize=1024)
def extrapolation(tail: float, count: int) -> float:
    """Return how many ranges above the largest of several exponential draws another draw lies with a given probability.

    Args:
        tail (float): Probability that the other draw is higher, greater than 0 and less than 1.
        count (int): Number of draws, at least 2.

    Returns:
        float: At least 0.
    """
    low, high = 0.0, 1.0
    while _log_tail(high, count) > math.log(tail):
        high *= 2
    # Halve the interval until it is as small as a rounding error.
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _log_tail(middle, count) > math.log(tail) else (low, middle)
    return low


def _log_tail(factor: float, count: int) -> float:
    """Return the logarithm of the probability that a draw lies more than this many ranges above the largest."""
    return math.log(count / (count + 1)) + sum(math.log(j / (j + 1 + factor)) for j in range(1, count))
