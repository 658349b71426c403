"""HalfPrecisionScreen: evaluates all candidates in half precision, and the best ones again in full precision."""

import torch
from torch import Tensor

from captum_moxi.arguments import check_half_precision
from captum_moxi.search.screens.base import Screen, SearchStep

# Number of candidates that each step evaluates in full precision first: those with the highest estimates.
HIGHEST = 8
# Number of further candidates, from all ranks of the estimates, that the first step uses to measure the error.
SPREAD = 8


class HalfPrecisionScreen(Screen):
    r"""
    Evaluate all candidates in half precision, and those that may be the best again in full precision.

    The error of an estimate is the gain in full precision minus the estimate. Each step evaluates the 8 candidates with
    the highest estimates in full precision, and the first step evaluates 8 others from all ranks. Then it evaluates
    each candidate that would be the best if its error was the largest error of the step plus the range of all errors so
    far. Errors that all candidates share, for example of the reward before the step, do not widen this bound.

    The selection equals that of the exact search, except for ties, unless the error of a candidate exceeds the bound.
    The screen cannot exclude this, because it knows the errors of the evaluated candidates only. It saves time in
    deletion on processors that compute in half precision (AVX512-BF16). Its speed on a GPU was not measured. On other
    processors, it only adds time.

    Args:
        dtype (torch.dtype, optional): Precision of the weights and activations. Candidates that overflow in float16 are
            evaluated in full precision.
            Default: torch.bfloat16

    Raises:
        TypeError: If ``dtype`` is not a dtype.
        ValueError: If ``dtype`` is neither torch.bfloat16 nor torch.float16.
    """

    must_be_last = True

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__(HIGHEST)
        check_half_precision(dtype)
        self.dtype = dtype

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        game = step.game
        # The method may come from __getattr__, for example in a wrapper of a game.
        if not hasattr(game, "approximate"):
            raise ValueError(
                f"HalfPrecisionScreen needs a game with the method approximate, but game is a {type(game).__name__}; "
                "pass a CoalitionGame"
            )
        estimates = torch.zeros(step.candidates.shape, dtype=torch.float64)
        for part in step.parts:
            starts, positions, coalitions, examples = part.candidate_coalitions()
            rewards: Tensor = game.approximate(coalitions, examples, self.dtype).double()
            change = rewards - part.rewards[starts]
            estimates[starts, positions] += change if part.mode == "insertion" else -change
        estimates = estimates.masked_fill(estimates.isinf() | ~step.candidates, torch.nan)
        return estimates, estimates

    def next_candidates(self, step: SearchStep, priorities: Tensor, gains: Tensor) -> Tensor:
        if bool(gains.isnan().all()):
            chosen = self._highest(priorities, step)
            return chosen | _spread(priorities, step.candidates) if step.number == 1 else chosen
        known = priorities.isfinite() & ~gains.isnan()
        errors = (gains - priorities).masked_fill(~known, torch.nan)
        _, highest_error = _range(errors)
        lowest, highest = _range(torch.cat([errors, step.gains - step.estimates], 1))
        bound = highest_error + (highest - lowest)
        best = gains.nan_to_num(nan=-torch.inf).amax(1)
        return step.candidates & gains.isnan() & (priorities + bound[:, None] >= best[:, None])

    def __repr__(self) -> str:
        return f"HalfPrecisionScreen({self.dtype})"


def _spread(priorities: Tensor, candidates: Tensor) -> Tensor:
    """Return candidates at equal distances in the order of their priorities, from the highest to the lowest."""
    ranking = priorities.argsort(dim=1, descending=True, stable=True)
    last = (candidates.sum(1, keepdim=True) - 1).clamp(min=0)
    ranks = (last * torch.linspace(0, 1, SPREAD)).round().long()
    return torch.zeros_like(candidates).scatter(1, ranking.gather(1, ranks), True) & candidates


def _range(errors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest error of each row. Both are 0 if there is none."""
    unknown = errors.isnan()
    lowest = errors.masked_fill(unknown, torch.inf).amin(1)
    highest = errors.masked_fill(unknown, -torch.inf).amax(1)
    none_known = unknown.all(1)
    return lowest.masked_fill(none_known, 0), highest.masked_fill(none_known, 0)
