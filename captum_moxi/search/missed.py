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

    The error of candidate i is its gain minus its priority :math:`e_i`, the gain that the screen expected. With k
    audited candidates, whose errors have the mean :math:`\bar{r}` and the standard deviation s, and m candidates that
    remain skipped, the bound is

    .. math::
        \max_i e_i + \bar{r} + s \sqrt{1 + 1/k} \; t_{k - 1}(1 - 0.05 / m)

    where :math:`t_{k - 1}` is the quantile of Student's t distribution. It is the upper prediction bound for all of m
    further draws from a normal distribution, by the union bound (Meeker, Hahn and Escobar, 'Statistical Intervals',
    2017). The audited candidates are drawn at random, so their errors are exchangeable with those of the others. The
    errors of the candidates that the screen selected are not used, because selection makes them too low.

    The confidence of 95% assumes that the errors are normally distributed. Without such an assumption, no bound exists:
    the candidate with the largest error is among the k audited of k + m with a probability of only k / (k + m).

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
        expected = priorities[row, skipped[row]].max()
        k, m = len(errors), int(skipped[row].sum())
        quantile = student_t_quantile((1 - CONFIDENCE) / m, k - 1)
        bounds[row] = expected + errors.mean() + errors.std() * math.sqrt(1 + 1 / k) * quantile
    return bounds.masked_fill(bounds.isinf(), torch.nan)


@lru_cache(maxsize=1024)
def student_t_quantile(tail: float, degrees: int) -> float:
    """Return the number that Student's t distribution exceeds with a given probability.

    Args:
        tail (float): Probability, greater than 0 and at most 0.5.
        degrees (int): Degrees of freedom, at least 1.
    """
    # The angle atan(t / sqrt(degrees)) is between 0 and pi / 2. Halve this interval until it is as small as a rounding
    # error.
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _student_t_tail(middle, degrees) > tail:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _student_t_tail(angle: float, degrees: int) -> float:
    """Return the probability that Student's t exceeds sqrt(degrees) tan(angle).

    For integer degrees of freedom, it is a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2
    term = cosine if is_odd else 1.0
    total = 0.0
    for i in range(2 + is_odd, degrees + 1, 2):
        total += term
        term *= cosine**2 * (i - 1) / i
    inside = 2 / math.pi * (angle + sine * total) if is_odd else sine * total
    return (1 - inside) / 2
