"""The state of a search: the groups of players that it keeps, and the rules by which they grow."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import torch
from torch import Tensor

from captum_moxi.arguments import MODES, Mode, Stop, check_min_confidence, check_positive_int
from captum_moxi.search.game import BatchGame
from captum_moxi.search.screens.base import SearchStep
from captum_moxi.search.selection import Selection, has_flipped

# Receives the number of rows that were evaluated.
Progress: TypeAlias = Callable[[int], object]


def no_progress(rows: int) -> None:
    """Ignore the progress of a search."""


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of players that a search keeps: S groups, each of one example.

    There is one group per example, or several in a beam. The groups of an example are adjacent, and the group of greedy
    search comes first. Each tensor has one entry per group along dimension 0. K is the number of steps so far.

    Args:
        examples (Tensor): Example of each group. Shape ``(S,)``, int64.
        limit (Tensor): Maximum number of steps. Shape ``(S,)``, int64.
        chosen (Tensor): Players chosen so far. Shape ``(S, n)``, bool.
        gains (Tensor): Gain of each player when it was last evaluated. Shape ``(S, n)``, float64. NaN if never.
        estimates (Tensor): Estimate of that gain by each stage of the screen. Shape ``(S, stages, n)``, float64. NaN if
            there is none.
        n_steps (Tensor): Steps taken. Shape ``(S,)``, int64.
        flipped (Tensor): Whether the prediction has flipped. Shape ``(S,)``, bool.
        positions (Tensor): Position of the player chosen at each step. Shape ``(S, K)``, int64. -1 after the last step.
        rewards, confidences, predictions (Tensor): Outcome before the first step and after each step. Shape
            ``(S, K + 1)``.
        n_evaluated (Tensor): Candidates that each step evaluated. Shape ``(S, K)``, int64.
        skipped (Tensor): Highest priority among the candidates that each step skipped. Shape ``(S, K)``, float64.
        missed (Tensor): Bound on the gains of the candidates that each step skipped. Shape ``(S, K)``, float64.
    """

    examples: Tensor
    limit: Tensor
    chosen: Tensor
    gains: Tensor
    estimates: Tensor
    n_steps: Tensor
    flipped: Tensor
    positions: Tensor
    rewards: Tensor
    confidences: Tensor
    predictions: Tensor
    n_evaluated: Tensor
    skipped: Tensor
    missed: Tensor

    def take(self, groups: Tensor) -> "Groups":
        """Return the groups with these indices. An index may occur several times or not at all."""
        return Groups(**{field.name: getattr(self, field.name)[groups] for field in fields(self)})


@dataclass(frozen=True, eq=False)
class Rules:
    """What a search maximizes, and when it stops.

    Args:
        game (BatchGame): Game.
        mode (str): ``"insertion"`` or ``"deletion"``.
        n_steps (int or None): Maximum number of steps. None means all players.
        stop (str or None): ``"flip"`` stops an example when its prediction flips.
        min_confidence (float): Confidence that insertion must exceed to flip, at least 0 and less than 1.
        flip (str, optional): Mode that defines the flip.
            Default: None, ``mode``
        candidates (Tensor, optional): Players that the search may choose. Shape ``(B, n)``, bool.
            Default: None, all players

    Raises:
        ValueError: If ``mode``, ``flip`` or ``stop`` is unknown, ``n_steps`` is less than 1, or ``min_confidence`` is
            out of range.
        TypeError: If ``n_steps`` is not an int, or ``min_confidence`` is not a number.
    """

    game: BatchGame
    mode: Mode
    n_steps: int | None
    stop: Stop
    min_confidence: float
    flip: Mode | None = None
    candidates: Tensor | None = None

    def __post_init__(self) -> None:
        for name, value in (("mode", self.mode), ("flip", self.flip or self.mode)):
            if value not in MODES:
                raise ValueError(f"{name} is {value!r}; pass {' or '.join(map(repr, MODES))}")
        if self.stop not in (None, "flip"):
            raise ValueError(f"stop is {self.stop!r}; pass 'flip' or None")
        if self.n_steps is not None:
            check_positive_int("n_steps", self.n_steps)
        check_min_confidence(self.min_confidence)

    @property
    def sign(self) -> int:
        """1 in insertion, which maximizes the reward, and -1 in deletion, which minimizes it."""
        return 1 if self.mode == "insertion" else -1

    @property
    def choosable(self) -> Tensor:
        """Which players of each example the search may choose: ``(B, n)``, bool."""
        return self.game.exists if self.candidates is None else self.game.exists & self.candidates

    def start(self, n_stages: int = 0) -> Groups:
        """Return one empty group for each example.

        Args:
            n_stages (int, optional): Number of stages of the screen.
                Default: 0, no screen
        """
        game = self.game
        batch = game.n_examples
        examples = torch.arange(batch)
        no_players = torch.zeros_like(game.exists)
        unknown = torch.full((batch, game.n_players), torch.nan, dtype=torch.float64)
        outcome = game.outcome(no_players, examples) if self.mode == "insertion" else game.full
        n_players = self.choosable.sum(1)
        return Groups(
            examples=examples,
            # n_steps may be larger than any integer of a tensor.
            limit=n_players.clamp(max=min(int(self.n_steps or game.n_players), game.n_players)),
            chosen=no_players,
            gains=unknown,
            estimates=unknown[:, None].repeat(1, n_stages, 1),
            n_steps=torch.zeros(batch, dtype=torch.long),
            flipped=self.flips(outcome.predictions, outcome.confidences, examples),
            positions=torch.empty(batch, 0, dtype=torch.long),
            rewards=as_floating(outcome.rewards)[:, None],
            confidences=outcome.confidences[:, None],
            predictions=outcome.predictions[:, None],
            n_evaluated=torch.empty(batch, 0, dtype=torch.long),
            skipped=torch.empty(batch, 0, dtype=torch.float64),
            missed=torch.empty(batch, 0, dtype=torch.float64),
        )

    def active(self, groups: Groups) -> Tensor:
        """Return which groups take another step: ``(S,)``, bool."""
        return (groups.n_steps < groups.limit) & ~(groups.flipped & (self.stop == "flip"))

    def flips(self, predictions: Tensor, confidences: Tensor, examples: Tensor) -> Tensor:
        """Return which predictions are flipped. Without a target, none is."""
        if self.game.targets is None:
            return torch.zeros_like(predictions, dtype=torch.bool)
        return has_flipped(
            self.flip or self.mode,
            predictions,
            confidences,
            target=self.game.targets[examples],
            min_confidence=self.min_confidence,
        )

    def coalitions(self, examples: Tensor, chosen: Tensor) -> Tensor:
        """Return the coalitions that remain: the chosen players (insertion), or all other players (deletion)."""
        return chosen if self.mode == "insertion" else self.game.exists[examples] & ~chosen

    def step(self, groups: Groups) -> SearchStep:
        """Return the next step, before its candidates are evaluated."""
        active = self.active(groups)
        return SearchStep(
            game=self.game,
            mode=self.mode,
            number=groups.positions.shape[1] + 1,
            examples=groups.examples,
            present=self.coalitions(groups.examples, groups.chosen),
            candidates=self.choosable[groups.examples] & ~groups.chosen & active[:, None],
            rewards=groups.rewards[:, -1].double(),
            gains=groups.gains,
            estimates=torch.full_like(groups.gains, torch.nan),
        )

    def choose(
        self,
        groups: Groups,
        positions: Tensor,
        *,
        rewards: Tensor,
        confidences: Tensor,
        predictions: Tensor,
        n_evaluated: Tensor,
        skipped: Tensor,
        missed: Tensor,
    ) -> Groups:
        """Choose a player in each active group.

        Args:
            groups (Groups): Groups before the step.
            positions (Tensor): Position of the player that each group chooses. Shape ``(S,)``, int64.
            rewards, confidences, predictions (Tensor): Outcome of the new groups. Shape ``(S,)``.
            n_evaluated (Tensor): Number of candidates that the step evaluated. Shape ``(S,)``, int64.
            skipped (Tensor): Highest priority among the candidates that the step skipped. Shape ``(S,)``, float64.
            missed (Tensor): Bound on the gains of these candidates. Shape ``(S,)``, float64.

        Returns:
            Groups: Groups after the step.
        """
        active = self.active(groups)
        chosen = groups.chosen.clone()
        chosen[active, positions[active]] = True
        flips = self.flips(predictions, confidences, groups.examples)
        return replace(
            groups,
            chosen=chosen,
            n_steps=groups.n_steps + active,
            flipped=groups.flipped | active & flips,
            positions=_append(groups.positions, active, positions, -1),
            rewards=_append(groups.rewards, active, as_floating(rewards), torch.nan),
            confidences=_append(groups.confidences, active, confidences, torch.nan),
            predictions=_append(groups.predictions, active, predictions, -1),
            n_evaluated=_append(groups.n_evaluated, active, n_evaluated, 0),
            skipped=_append(groups.skipped, active, skipped, torch.nan),
            missed=_append(groups.missed, active, missed, torch.nan),
        )

    def selection(self, groups: Groups, own_gains: Tensor) -> Selection:
        """Return the selections of the groups, one per example.

        Args:
            groups (Groups): One group per example.
            own_gains (Tensor): Gain of each player at the first step: its Shapley value in self-context (insertion) or
                full-context (deletion). Shape ``(B, n)``, float64. NaN if it was not evaluated.
        """
        took_step = groups.positions >= 0
        columns = groups.positions.clamp(min=0)
        shapley = torch.where(took_step, own_gains.gather(1, columns), torch.nan)
        gains = self.sign * groups.rewards.double().diff(dim=1)
        dtype = groups.rewards.dtype
        return Selection(
            mode=self.mode,
            order=torch.where(took_step, self.game.ids[columns], -1),
            rewards=groups.rewards,
            confidences=groups.confidences,
            predictions=groups.predictions,
            shapley=shapley.to(dtype),
            interactions=(gains - shapley).to(dtype),
            n_evaluated=groups.n_evaluated,
            skipped=groups.skipped.to(dtype),
            missed=groups.missed.to(dtype),
            n_steps=groups.n_steps,
            flipped=groups.flipped,
            minimal=torch.zeros_like(groups.flipped),
            left_out=torch.empty(len(groups.flipped), 0, dtype=torch.long),
            flip=None if self.flip == self.mode else self.flip,
        )


def as_floating(values: Tensor) -> Tensor:
    """Return floating-point values unchanged, and other values in float64."""
    return values if values.is_floating_point() else values.double()


def _append(columns: Tensor, active: Tensor, values: Tensor, otherwise: float) -> Tensor:
    """Append a column: the values in active groups, and ``otherwise`` in the others."""
    column = torch.where(active, values, otherwise).to(columns.dtype)
    return torch.cat([columns, column[:, None]], 1)
