"""HalfPrecisionScreen: evaluates all candidates in half precision, and the best ones again in full precision."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from captum_moxi.search.screens.base import Screen, SearchStep

# Number of candidates that a step evaluates in full precision first, to measure the error of half precision.
FIRST_CANDIDATES = 8


@runtime_checkable
class HasApproximation(Protocol):
    """A game that computes rewards in a lower precision."""

    def approximate(self, coalitions: Tensor, examples: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the rewards ``(M,)``. See :meth:`captum_moxi.CoalitionGame.approximate`."""
        ...


class HalfPrecisionScreen(Screen):
    r"""
    Evaluate all candidates in half precision, and those that may be the best again in full precision.

    The first step evaluates all players in both precisions to measure the error of half precision. In each later step,
    a candidate is evaluated in full precision if its estimate plus twice the largest error so far reaches the best
    gain. Unless an error exceeds that bound, the selection equals that of the exact search, except for ties. The screen
    is designed for GPUs. On a CPU, half precision is rarely faster, so the screen only adds time.

    Args:
        dtype (torch.dtype, optional): Precision of ``torch.autocast``. Candidates that overflow in float16 are
            evaluated in full precision.
            Default: torch.bfloat16

    Raises:
        TypeError: If ``dtype`` is not a dtype.
        ValueError: If ``dtype`` is neither torch.bfloat16 nor torch.float16.
    """

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__(FIRST_CANDIDATES)
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype is {dtype!r}; pass torch.bfloat16 or torch.float16")
        if dtype not in (torch.bfloat16, torch.float16):
            raise ValueError(f"dtype is {dtype}; pass torch.bfloat16 or torch.float16")
        self.dtype = dtype

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        game = step.game
        if not isinstance(game, HasApproximation):
            raise ValueError(
                f"HalfPrecisionScreen needs a game with the method approximate, but game is a {type(game).__name__}; "
                "pass a CoalitionGame"
            )
        starts, positions, coalitions, examples = step.candidate_coalitions()
        rewards = game.approximate(coalitions, examples, self.dtype).double()
        change = rewards - step.rewards[starts]
        estimates = torch.full(step.candidates.shape, torch.nan, dtype=torch.float64)
        estimates[starts, positions] = change if step.mode == "insertion" else -change
        estimates = estimates.masked_fill(estimates.isinf(), torch.nan)
        return estimates, estimates

    def next_candidates(self, step: SearchStep, priorities: Tensor, gains: Tensor) -> Tensor:
        remaining = step.candidates & gains.isnan()
        if step.number == 1:
            return remaining
        if bool(gains.isnan().all()):
            return self._highest(priorities, step)
        unknown = gains.isnan() | priorities.isinf()
        error_of_step = (gains - priorities).masked_fill(unknown, 0).abs().amax(1)
        best = gains.masked_fill(gains.isnan(), -torch.inf).amax(1)
        bound = 2 * torch.maximum(step.error, error_of_step)
        return remaining & (priorities + bound[:, None] >= best[:, None])

    def __repr__(self) -> str:
        return f"HalfPrecisionScreen({self.dtype})"
