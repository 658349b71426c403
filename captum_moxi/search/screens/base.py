"""The interface of a screen, which decides which candidates a step evaluates."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from operator import index
from typing import ClassVar

import torch
from torch import Tensor

from captum_moxi.arguments import SEARCH_MODES, SearchMode, check_positive_int
from captum_moxi.search.game import BatchGame


@dataclass(frozen=True, eq=False)
class SearchStep:
    r"""
    A step of a search, before its candidates are evaluated: S coalitions, and the players that may join or leave them.

    Args:
        game (BatchGame): Game.
        mode (str): ``"insertion"``, ``"deletion"`` or ``"symmetric"``.
        number (int): Number of the step, counted from 1.
        examples (Tensor): Example of the batch that each coalition belongs to. Shape ``(S,)``, int64.
        present (Tensor): Coalitions. In a symmetric search, those of the chosen players. Shape ``(S, n)``, bool.
        candidates (Tensor): Players that may be chosen. Shape ``(S, n)``, bool.
        rewards (Tensor): Rewards of the coalitions. Shape ``(S,)``, float64.
        gains (Tensor): Gain of each player when it was last evaluated: the rise in reward in insertion, the fall in
            deletion, and their sum in a symmetric search. Shape ``(S, n)``, float64. NaN for players that were never
            evaluated.
        sizes (Tensor): Sum of the absolute rewards from which that gain was computed, which is the scale of its
            rounding error. Shape ``(S, n)``, float64. 0 for players that were never evaluated.
        estimates (Tensor): Estimate of that gain by the same screen. Shape ``(S, n)``, float64. NaN if there is none.
        rewards_without (Tensor, optional): In a symmetric search, the rewards of the coalitions of all other players.
            Shape ``(S,)``, float64.
            Default: None, no symmetric search
    """

    game: BatchGame
    mode: SearchMode
    number: int
    examples: Tensor
    present: Tensor
    candidates: Tensor
    rewards: Tensor
    gains: Tensor
    sizes: Tensor
    estimates: Tensor
    rewards_without: Tensor | None = None

    @property
    def parts(self) -> "tuple[SearchStep, ...]":
        """The steps whose gains sum to those of this step.

        These are an insertion and a deletion of the same candidates in a symmetric search, and otherwise only this
        step.
        """
        if self.rewards_without is None:
            return (self,)
        others = self.game.exists[self.examples] & ~self.present
        return (
            replace(self, mode="insertion", rewards_without=None),
            replace(self, mode="deletion", present=others, rewards=self.rewards_without, rewards_without=None),
        )

    def candidate_coalitions(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the coalition that each of M candidates leads to. In a symmetric search, see :attr:`parts`.

        Returns:
            tuple[Tensor, Tensor, Tensor, Tensor]: For each candidate, the index of the coalition that it joins or
            leaves ``(M,)`` int64, its position ``(M,)`` int64, the new coalition ``(M, n)`` bool, and the example
            ``(M,)`` int64.
        """
        starts, positions = self.candidates.nonzero(as_tuple=True)
        coalitions = self.present[starts]
        coalitions[torch.arange(len(starts)), positions] = self.mode != "deletion"
        return starts, positions, coalitions, self.examples[starts]


class AnyScreen(ABC):
    """Base class of :class:`Screen`, :class:`Cascade` and :class:`AuditedScreen`."""

    # Whether the screen implements audit.
    is_audited: ClassVar[bool] = False

    @property
    @abstractmethod
    def stages(self) -> "tuple[Screen, ...]":
        """The screens that narrow the candidates of a step, one after the other."""

    @property
    def used_in(self) -> tuple[SearchMode, ...]:
        """Modes in which a screen for all modes is used. See :func:`captum_moxi.search.screens.screen_for_mode`."""
        return tuple(mode for mode in SEARCH_MODES if all(mode in stage.modes for stage in self.stages))

    def audit(self, step: SearchStep, skipped: Tensor) -> Tensor:
        """Draw candidates that the step evaluates only to find out what the screen may have missed.

        Args:
            step (SearchStep): Step of the search, with all its candidates.
            skipped (Tensor): Candidates that the screen did not select. Shape ``(S, n)``, bool.

        Returns:
            Tensor: Random candidates among them. Shape ``(S, n)``, bool. None by default.
        """
        return torch.zeros_like(skipped)

    def __or__(self, other: object) -> "Cascade":
        if not isinstance(other, AnyScreen):
            return NotImplemented
        if self.is_audited or other.is_audited:
            raise TypeError(f"{self!r} | {other!r} has an audit inside a cascade; pass AuditedScreen(first | second)")
        return Cascade(*self.stages, *other.stages)


class Screen(AnyScreen):
    """Decides which candidates a step evaluates: those with the m highest estimates.

    A screen keeps no state, because :class:`SearchStep` contains everything that the search knows. One screen can
    therefore serve several searches at once. To add a screen, subclass this class, implement :meth:`estimate`, and
    register the subclass in ``captum_moxi.search.screens.SCREENS``.

    Args:
        m (int): Number of candidates that a step evaluates.

    Raises:
        TypeError: If ``m`` is not an int.
        ValueError: If ``m`` is less than 1.
    """

    # Modes that the screen is meant for.
    modes: ClassVar[tuple[SearchMode, ...]] = SEARCH_MODES
    # Whether the estimates are gains. If not, the field ``skipped`` of the selection is NaN.
    estimates_gains: ClassVar[bool] = True
    # Whether the screen evaluates candidates to decide about others, and so must be the last one of a cascade.
    must_be_last: ClassVar[bool] = False
    # Whether the screen must see all candidates, and so cannot be part of a cascade.
    must_be_alone: ClassVar[bool] = False

    def __init__(self, m: int) -> None:
        check_positive_int("m", m)
        self.m = index(m)

    @property
    def stages(self) -> "tuple[Screen, ...]":
        return (self,)

    @abstractmethod
    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        """Estimate the gain of each candidate.

        Args:
            step (SearchStep): Step of the search.

        Returns:
            tuple[Tensor, Tensor]: Estimates, which later steps read from ``step.estimates``, and priorities, by which
            the search sorts the candidates. Shape ``(S, n)`` each, floating. A priority of inf or NaN means that the
            gain is unknown. These candidates are always evaluated.
        """

    def next_candidates(self, step: SearchStep, priorities: Tensor, gains: Tensor) -> Tensor:
        """Return the candidates to evaluate next. The search calls this method until it returns none.

        Args:
            step (SearchStep): Step of the search.
            priorities (Tensor): Shape ``(S, n)``, float64. -inf for players that are not candidates.
            gains (Tensor): Gains that this step has computed so far. Shape ``(S, n)``, float64. NaN for players that
                are not evaluated.

        Returns:
            Tensor: Whether each player is evaluated next. Shape ``(S, n)``, bool.
        """
        if not bool(gains.isnan().all()):
            return torch.zeros_like(step.candidates)
        return self._highest(priorities, step)

    def _highest(self, priorities: Tensor, step: SearchStep) -> Tensor:
        """Return the m candidates with the highest priorities, and all candidates whose gain is unknown."""
        top = priorities.argsort(dim=1, descending=True, stable=True)[:, : self.m]
        chosen = torch.zeros_like(step.candidates).scatter(1, top, True)
        return (chosen | priorities.isposinf()) & step.candidates

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.m})"


class Cascade(AnyScreen):
    """
    Apply screens one after the other. Each estimates the gains of the candidates that the screen before it selects.

    The last screen decides which of them are evaluated. A screen that would select all of its candidates is left out.

    Args:
        *stages (Screen): Two or more screens. ``first | second`` is the same as ``Cascade(first, second)``.

    Raises:
        TypeError: If an argument is not a screen.
        ValueError: If there are fewer than two screens, if a screen that must be the last one is not, or if a
            screen cannot be part of a cascade.

    Examples::

        >>> screen = GradientScreen(32) | HalfPrecisionScreen()
        >>> attr = MoXIDeletion(model, screen=screen).attribute(x, target=y, stop="flip")
    """

    def __init__(self, *stages: Screen) -> None:
        if any(not isinstance(stage, Screen) for stage in stages):
            raise TypeError(
                f"stages is {stages!r}; pass screens, for example GradientScreen(32), HalfPrecisionScreen()"
            )
        if len(stages) < 2:
            raise ValueError(f"stages has {len(stages)} screens; pass at least two, or use the screen itself")
        for stage in stages:
            if stage.must_be_alone:
                raise ValueError(f"stages is {stages!r}; pass {stage!r} alone, because it cannot be part of a cascade")
        for stage in stages[:-1]:
            if stage.must_be_last:
                raise ValueError(f"stages is {stages!r}; pass {stage!r} as the last one")
        self._stages = stages

    @property
    def stages(self) -> tuple[Screen, ...]:
        return self._stages

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.stages))
