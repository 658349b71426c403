"""The state of a search: the groups of players that it keeps, and the rules by which they grow."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import torch
from torch import Tensor

from captum_moxi.arguments import (
    MODES,
    SEARCH_MODES,
    Mode,
    SearchMode,
    Stop,
    check_min_confidence,
    check_positive_int,
    paths_of,
)
from captum_moxi.search.game import BatchGame
from captum_moxi.search.outcomes import Outcomes, join_paths, split_paths
from captum_moxi.search.screens.base import SearchStep
from captum_moxi.search.selection import WITH_START, Selection, has_flipped

# Receives the number of rows that were evaluated.
Progress: TypeAlias = Callable[[int], object]


def no_progress(rows: int) -> None:
    """Ignore the progress of a search."""


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of players that a search keeps: S groups, each of one example.

    There is one group per example, or several in a beam. The groups of an example are adjacent, and the group of greedy
    search comes first. Each tensor has one entry per group along dimension 0. K is the number of steps so far. P is the
    number of paths: 2 in a symmetric search, insertion first, and otherwise 1.

    Args:
        examples (Tensor): Example of each group. Shape ``(S,)``, int64.
        limit (Tensor): Maximum number of steps. Shape ``(S,)``, int64.
        chosen (Tensor): Players chosen so far. Shape ``(S, n)``, bool.
        gains (Tensor): Gain of each player when it was last evaluated. Shape ``(S, n)``, float64. NaN if never.
        sizes (Tensor): Size of the rewards from which that gain was computed, see :meth:`Rules.sizes`. Shape
            ``(S, n)``, float64. 0 if never.
        estimates (Tensor): Estimate of that gain by each stage of the screen. Shape ``(S, stages, n)``, float64. NaN if
            there is none.
        n_steps (Tensor): Steps taken. Shape ``(S,)``, int64.
        flipped (Tensor): Whether the prediction has flipped. Shape ``(S,)``, bool.
        positions (Tensor): Position of the player chosen at each step. Shape ``(S, K)``, int64. -1 after the last step.
        rewards, confidences, predictions (Tensor): Outcome before the first step and after each step, on each path.
            Shape ``(S, K + 1, P)``.
        n_evaluated (Tensor): Candidates that each step evaluated. Shape ``(S, K)``, int64.
        skipped (Tensor): Highest priority among the candidates that each step skipped. Shape ``(S, K)``, float64.
        missed (Tensor): Bound on the gains of the candidates that each step skipped. Shape ``(S, K)``, float64.
    """

    examples: Tensor
    limit: Tensor
    chosen: Tensor
    gains: Tensor
    sizes: Tensor
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
        mode (str): ``"insertion"``, ``"deletion"`` or ``"symmetric"``.
        n_steps (int or None): Maximum number of steps. None means all players.
        stop (str or None): ``"flip"`` stops an example when its prediction flips.
        min_confidence (float): Confidence that insertion and symmetric search must exceed to flip, at least 0 and less
            than 1.
        flip (str, optional): Mode that defines the flip. Only for a search with one path.
            Default: None, ``mode``
        candidates (Tensor, optional): Players that the search may choose. Shape ``(B, n)``, bool.
            Default: None, all players

    Raises:
        ValueError: If ``mode``, ``flip`` or ``stop`` is unknown, ``flip`` does not fit ``mode``, ``n_steps`` is less
            than 1, or ``min_confidence`` is out of range.
        TypeError: If ``n_steps`` is not an int, or ``min_confidence`` is not a number.
    """

    game: BatchGame
    mode: SearchMode
    n_steps: int | None
    stop: Stop
    min_confidence: float
    flip: Mode | None = None
    candidates: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mode not in SEARCH_MODES:
            raise ValueError(f"mode is {self.mode!r}; pass {' or '.join(map(repr, SEARCH_MODES))}")
        if self.flip is not None and self.flip not in MODES:
            raise ValueError(f"flip is {self.flip!r}; pass {' or '.join(map(repr, MODES))}, or None")
        if self.flip is not None and self.mode == "symmetric":
            raise ValueError(f"flip is {self.flip!r}, but mode is 'symmetric'; pass flip=None")
        if self.stop not in (None, "flip"):
            raise ValueError(f"stop is {self.stop!r}; pass 'flip' or None")
        if self.n_steps is not None:
            check_positive_int("n_steps", self.n_steps)
        check_min_confidence(self.min_confidence)

    @property
    def paths(self) -> tuple[Mode, ...]:
        """The P paths that the search optimizes."""
        return paths_of(self.mode)

    @property
    def rounds_relatively(self) -> bool:
        """Whether the rounding error of a value is proportional to it. A difference of two rewards loses this."""
        return self.game.rounds_relatively and len(self.paths) == 1

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
        outcomes = join_paths(
            [game.outcome(no_players, examples) if path == "insertion" else game.full for path in self.paths]
        )
        n_players = self.choosable.sum(1)
        return Groups(
            examples=examples,
            # n_steps may be larger than any integer of a tensor.
            limit=n_players.clamp(max=min(int(self.n_steps or game.n_players), game.n_players)),
            chosen=no_players,
            gains=unknown,
            sizes=torch.zeros_like(unknown),
            estimates=unknown[:, None].repeat(1, n_stages, 1),
            n_steps=torch.zeros(batch, dtype=torch.long),
            flipped=self.flips(outcomes, examples),
            positions=torch.empty(batch, 0, dtype=torch.long),
            rewards=outcomes.rewards[:, None],
            confidences=outcomes.confidences[:, None],
            predictions=outcomes.predictions[:, None],
            n_evaluated=torch.empty(batch, 0, dtype=torch.long),
            skipped=torch.empty(batch, 0, dtype=torch.float64),
            missed=torch.empty(batch, 0, dtype=torch.float64),
        )

    def active(self, groups: Groups) -> Tensor:
        """Return which groups take another step: ``(S,)``, bool."""
        return (groups.n_steps < groups.limit) & ~(groups.flipped & (self.stop == "flip"))

    def flips(self, outcomes: Outcomes, examples: Tensor) -> Tensor:
        """Return which groups flip the prediction on every path: ``(M,)``, bool. Without a target, none does."""
        if self.game.targets is None:
            return torch.zeros(len(examples), dtype=torch.bool)
        flips = [
            has_flipped(
                self.flip or path,
                outcomes.predictions[:, number],
                outcomes.confidences[:, number],
                target=self.game.targets[examples],
                min_confidence=self.min_confidence,
            )
            for number, path in enumerate(self.paths)
        ]
        return torch.stack(flips).all(0)

    def coalitions(self, examples: Tensor, chosen: Tensor) -> Tensor:
        """Return the coalitions of the first path: the chosen players, or in deletion all other players."""
        return self.game.exists[examples] & ~chosen if self.mode == "deletion" else chosen

    def outcomes(self, coalitions: Tensor, examples: Tensor) -> Outcomes:
        """Evaluate coalitions of the first path, and in a symmetric search also those of all other players.

        Args:
            coalitions (Tensor): Shape ``(M, n)``, bool.
            examples (Tensor): Shape ``(M,)``, int64.

        Returns:
            Outcomes: Outcomes of M groups, from M * P rows.
        """
        n_paths = len(self.paths)
        if n_paths > 1:
            coalitions = torch.cat([coalitions, self.game.exists[examples] & ~coalitions])
        return split_paths(self.game.outcome(coalitions, examples.repeat(n_paths)), n_paths)

    def values(self, rewards: Tensor) -> Tensor:
        """Return the value that the search maximizes.

        It is the reward in insertion, its negative in deletion, and in a symmetric search the reward of the chosen
        players minus the reward of all others.

        Args:
            rewards (Tensor): Rewards on each path. Shape ``(..., P)``, floating.

        Returns:
            Tensor: Shape ``(...)``, float64.
        """
        signs = torch.tensor([1.0 if path == "insertion" else -1.0 for path in self.paths], dtype=torch.float64)
        return (rewards.double() * signs).sum(-1)

    def sizes(self, rewards: Tensor) -> Tensor:
        """Return the sum of the absolute rewards of each value: ``(..., P)`` to ``(...)``, float64."""
        return rewards.double().abs().sum(-1)

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
            rewards=groups.rewards[:, -1, 0].double(),
            rewards_without=groups.rewards[:, -1, 1].double() if self.mode == "symmetric" else None,
            gains=groups.gains,
            sizes=groups.sizes,
            estimates=torch.full_like(groups.gains, torch.nan),
        )

    def choose(
        self,
        groups: Groups,
        positions: Tensor,
        *,
        outcomes: Outcomes,
        n_evaluated: Tensor,
        skipped: Tensor,
        missed: Tensor,
    ) -> Groups:
        """Choose a player in each active group.

        Args:
            groups (Groups): Groups before the step.
            positions (Tensor): Position of the player that each group chooses. Shape ``(S,)``, int64.
            outcomes (Outcomes): Outcomes of the S new groups.
            n_evaluated (Tensor): Number of candidates that the step evaluated. Shape ``(S,)``, int64.
            skipped (Tensor): Highest priority among the candidates that the step skipped. Shape ``(S,)``, float64.
            missed (Tensor): Bound on the gains of these candidates. Shape ``(S,)``, float64.

        Returns:
            Groups: Groups after the step.
        """
        active = self.active(groups)
        chosen = groups.chosen.clone()
        chosen[active, positions[active]] = True
        flips = self.flips(outcomes, groups.examples)
        return replace(
            groups,
            chosen=chosen,
            n_steps=groups.n_steps + active,
            flipped=groups.flipped | active & flips,
            positions=_append(groups.positions, active, positions, -1),
            rewards=_append(groups.rewards, active, outcomes.rewards, torch.nan),
            confidences=_append(groups.confidences, active, outcomes.confidences, torch.nan),
            predictions=_append(groups.predictions, active, outcomes.predictions, -1),
            n_evaluated=_append(groups.n_evaluated, active, n_evaluated, 0),
            skipped=_append(groups.skipped, active, skipped, torch.nan),
            missed=_append(groups.missed, active, missed, torch.nan),
        )

    def selection(self, groups: Groups, own_gains: Tensor) -> Selection:
        """Return the selections of the groups, one per example.

        Args:
            groups (Groups): One group per example.
            own_gains (Tensor): Gain of each player at the first step: its Shapley value in self-context (insertion) or
                full-context (deletion), or the sum of both (symmetric). Shape ``(B, n)``, float64. NaN if it was not
                evaluated.
        """
        took_step = groups.positions >= 0
        columns = groups.positions.clamp(min=0)
        shapley = torch.where(took_step, own_gains.gather(1, columns), torch.nan)
        gains = self.values(groups.rewards).diff(dim=1)
        dtype = groups.rewards.dtype
        without: dict[str, Tensor] = {}
        if self.mode == "symmetric":
            without = {f"{name}_without": getattr(groups, name)[:, :, 1] for name in WITH_START}
        return Selection(
            mode=self.mode,
            order=torch.where(took_step, self.game.ids[columns], -1),
            rewards=groups.rewards[:, :, 0],
            confidences=groups.confidences[:, :, 0],
            predictions=groups.predictions[:, :, 0],
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
            **without,
        )


def _append(columns: Tensor, active: Tensor, values: Tensor, otherwise: float) -> Tensor:
    """Append a column: the values in active groups, and ``otherwise`` in the others."""
    is_active = active.reshape(-1, *[1] * (values.dim() - 1))
    column = torch.where(is_active, values, otherwise).to(columns.dtype)
    return torch.cat([columns, column[:, None]], 1)
