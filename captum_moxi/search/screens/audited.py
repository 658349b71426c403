"""AuditedScreen: evaluates random skipped candidates, to bound what a screen may have missed."""

from dataclasses import replace
from operator import index

import torch
from torch import Tensor

from captum_moxi.arguments import check_positive_int
from captum_moxi.search.screens.base import AnyScreen, Screen, SearchStep
from captum_moxi.search.screens.random import RandomScreen


class AuditedScreen(AnyScreen):
    r"""
    Evaluate n random candidates of those that a screen skips, and bound the largest gain that is still missed.

    The candidates that a screen selects say little about the others, because it selects those whose gains it
    overestimates. The errors of random candidates do. From them, the field ``missed`` of the selection bounds the gains
    of all candidates that the step did not evaluate, with a confidence of 95 %. This assumes that the hazard rate of
    the errors does not decrease, see :func:`captum_moxi.search.missed.largest_missed_gain`. The idea comes from AtP*
    (Kramár et al., arXiv 2403.00745), which bounds what gradients miss in language models. The random candidates may
    also be chosen, like all others that a step evaluates. K steps evaluate up to K n candidates more than with the
    screen alone.

    Args:
        screen (Screen or Cascade): Screen to audit. Its estimates must be gains, unlike those of
            :class:`RandomScreen` and :class:`BothEndsScreen`.
        n (int, optional): Number of random candidates. With more of them, the bound is lower.
            Default: 16
        seed (int, optional): Seed of the draws, as in :class:`RandomScreen`.
            Default: 0

    Raises:
        TypeError: If ``screen`` is not a screen, or ``n`` or ``seed`` is not an int.
        ValueError: If ``screen`` does not estimate gains, ``n`` is less than 2, or ``seed`` is negative.

    Examples::

        >>> moxi = MoXIDeletion(model, screen=AuditedScreen(GradientScreen(8), 16))
        >>> attr, selection = moxi.attribute(x, target=y, stop="flip", return_selection=True)
        >>> selection.missed > selection.gains  # steps that may have missed a better player
    """

    is_audited = True

    def __init__(self, screen: AnyScreen, n: int = 16, seed: int = 0) -> None:
        if not isinstance(screen, AnyScreen) or screen.is_audited:
            raise TypeError(f"screen is {screen!r}; pass a screen without an audit, for example GradientScreen(8)")
        if not all(stage.estimates_gains for stage in screen.stages):
            raise ValueError(f"screen is {screen!r}, which does not estimate gains; pass for example GradientScreen(8)")
        check_positive_int("n", n)
        if index(n) < 2:
            raise ValueError(f"n is {n!r}; pass at least 2, because one error has no range")
        self.screen = screen
        self._draws = RandomScreen(n, seed)

    @property
    def stages(self) -> tuple[Screen, ...]:
        return self.screen.stages

    def audit(self, step: SearchStep, skipped: Tensor) -> Tensor:
        step = replace(step, candidates=skipped)
        draws, priorities = self._draws.estimate(step)
        return self._draws.next_candidates(
            step, priorities.masked_fill(~skipped, -torch.inf), torch.full_like(draws, torch.nan)
        )

    def __repr__(self) -> str:
        return f"AuditedScreen({self.screen!r}, {self._draws.m}, seed={self._draws.seed})"
