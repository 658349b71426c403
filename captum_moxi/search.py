"""The search: which players a game is won with (insertion) or lost without (deletion), in order.

The search knows coalitions and rewards alone. All examples of a game go in lockstep, a step of every one being one
set of rows, and each stops by itself.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Mode = Literal["insertion", "deletion"]

# Rewards this near to the best tie, in machine epsilons of the rewards' scale: the largest candidate of the step, whose
# size is that of the logits that were subtracted. Between forward passes of 1, 2 and 64 rows most float32 log-odds of
# ViT-T, DeiT-T and ResNet-50 were equal and 99 % within 32 eps of 1, at rewards of up to 13.
TIE_EPS = 8
# steps of a ranking evaluated at once where it may stop early
PATH_BLOCK = 8


@dataclass(frozen=True, eq=False)
class Selection:
    r"""
    The players that a search chose, in order, and what the model said at every step.

    B examples, K steps: the most that any example took. Entries after an example stopped are -1 (ids and classes) or
    NaN.

    Args:
        mode (str): ``"insertion"`` or ``"deletion"``.
        order (Tensor): ``(B, K)`` int64: the id of the player chosen at each step.
        rewards (Tensor): ``(B, K + 1)`` floating: the reward before the first step and after each.
        confidences (Tensor): ``(B, K + 1)`` floating: P(target), likewise; NaN where there is no target.
        predictions (Tensor): ``(B, K + 1)`` int64: the predicted class, likewise; of a single logit 0 where
            positive, else -1.
        shapley (Tensor): ``(B, K)`` floating: the chosen player's Shapley value, self-context in insertion,
            :math:`f(b) - f(\emptyset)` (the paper, Eq. 5), full-context in deletion,
            :math:`f(N) - f(N \setminus b)` (Eq. 11).
        interactions (Tensor): ``(B, K)`` floating: its interaction with the players chosen before it (Eqs. 6
            and 12). The two sum to the change in reward of the step (Eqs. 7 and 13): the gain in insertion, the loss
            in deletion.
        n_steps (Tensor): ``(B,)`` int64: the steps that each example took.
        flipped (Tensor): ``(B,)`` bool: whether the prediction flipped by its last step: to the target with more than
            the least confidence asked for (insertion), away from the target (deletion).
    """

    mode: Mode
    order: Tensor
    rewards: Tensor
    confidences: Tensor
    predictions: Tensor
    shapley: Tensor
    interactions: Tensor
    n_steps: Tensor
    flipped: Tensor

    @property
    def gains(self) -> Tensor:
        """``(B, K)``: what each step won: the rise in reward in insertion, the fall in deletion."""
        change = self.rewards.diff(dim=1)
        return change if self.mode == "insertion" else -change

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, NaN as None, for JSON."""
        return {
            field.name: _plain(value.tolist()) if isinstance(value := getattr(self, field.name), Tensor) else value
            for field in fields(self)
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Selection":
        """What ``to_dict`` wrote; floating-point numbers come back as float64.

        Raises:
            ValueError: names or shapes that are not those of a selection.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict):
            raise ValueError(f"this is no selection but a {type(values).__name__}")
        if missing := names - values.keys():
            raise ValueError(f"this is no selection: it lacks {', '.join(sorted(missing))}")
        if values["mode"] not in ("insertion", "deletion"):
            raise ValueError(f"mode is {values['mode']!r}; a selection's is insertion or deletion")
        kinds = {"order": torch.long, "predictions": torch.long, "n_steps": torch.long, "flipped": torch.bool}
        tensors = {
            name: torch.tensor(_nan_for_none(values[name]), dtype=kinds.get(name, torch.float64))
            for name in names - {"mode"}
        }
        batch, steps = len(tensors["order"]), tensors["order"].shape[-1]
        for name, tensor in tensors.items():
            wide = {"rewards": 1, "confidences": 1, "predictions": 1}.get(name, 0)
            wanted = (batch,) if name in ("n_steps", "flipped") else (batch, steps + wide)
            if tensor.shape != wanted:
                raise ValueError(f"this is no selection: {name} has shape {tuple(tensor.shape)}, not {wanted}")
        return cls(mode=values["mode"], **tensors)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the selection as JSON."""
        Path(path).write_text(json.dumps(self.to_dict()) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Selection":
        """Read a selection that ``save`` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text()))


class BatchGame(Protocol):
    """What the search asks of a game; :class:`captum_moxi.CoalitionGame` has it."""

    n_games: int
    n_players: int
    ids: Tensor
    exists: Tensor
    targets: Tensor | None
    rounds_relatively: bool

    @property
    def full(self) -> Any: ...

    def outcome(self, coalitions: Tensor, examples: Tensor) -> Any: ...


def greedy(
    game: BatchGame,
    mode: Mode,
    n_steps: int | None = None,
    stop: str | None = None,
    min_confidence: float = 0.0,
    progress: Callable[[int], Any] = lambda rows: None,
) -> Selection:
    r"""
    Choose at every step the player that changes the reward most (the paper's Algorithms 1 and 2).

    That is the player whose Shapley value plus interaction with those chosen is largest: insertion maximises
    :math:`f(A \cup b)`, deletion minimises :math:`f(N \setminus (A \cup b))`. Step k evaluates the n - k + 1 players
    that are left. Rewards within rounding of the best tie, and the lowest id wins.

    Args:
        game (BatchGame): The game.
        mode (str): ``"insertion"`` or ``"deletion"``.
        n_steps (int, optional): The most steps. Default: every player
        stop (str, optional): ``"flip"`` to stop an example as soon as its prediction flips. Default: None
        min_confidence (float, optional): The confidence that insertion must exceed to flip. Default: 0
        progress (Callable, optional): Called with the rows evaluated by each step.

    Returns:
        Selection: on the CPU.
    """
    path = _Path(game, mode, n_steps, stop, min_confidence)
    while path.active.any():
        examples, players = (game.exists & ~path.chosen & path.active[:, None]).nonzero(as_tuple=True)
        outcome = game.outcome(path.coalitions(examples, path.chosen[examples], players), examples)
        progress(len(examples))
        values = path.table(examples, players, path.sign * outcome.rewards)
        rows = path.table(examples, players, torch.arange(len(examples)))
        choice = path.best(values, outcome.rewards.dtype)
        path.step(choice, values, outcome, rows[path.every, choice].long())
    return path.selection()


def rank(
    game: BatchGame,
    mode: Mode,
    n_steps: int | None = None,
    stop: str | None = None,
    min_confidence: float = 0.0,
    progress: Callable[[int], Any] = lambda rows: None,
) -> Selection:
    r"""
    Order the players by their own Shapley value, interactions left out: MoXI(-) of the paper.

    The value is the self-context one in insertion and the full-context one in deletion. n rows rank the players,
    and one row a step tells the reward along the path.

    Args and Returns: as :func:`greedy`.
    """
    path = _Path(game, mode, n_steps, stop, min_confidence)
    examples, players = (game.exists & path.active[:, None]).nonzero(as_tuple=True)
    outcome = game.outcome(path.coalitions(examples, path.chosen[examples], players), examples)
    progress(len(examples))
    values = path.table(examples, players, path.sign * outcome.rewards)
    order: list[Tensor] = []
    left = values.clone()
    for _ in range(int(path.limit.max())):
        order.append(path.best(left, outcome.rewards.dtype))
        left[path.every, order[-1]] = -torch.inf
    block = PATH_BLOCK if stop else len(order)
    for start in range(0, len(order), max(1, block)):
        if not path.active.any():
            break
        block_steps = range(start, min(start + block, len(order)))
        held = path.chosen.clone()
        coalitions: list[Tensor] = []
        owners: list[Tensor] = []
        rows = torch.zeros(game.n_games, len(block_steps), dtype=torch.long)
        for step in block_steps:
            on = (path.active & (path.limit > step)).nonzero().flatten()
            rows[on, step - start] = sum(map(len, owners)) + torch.arange(len(on))
            coalitions.append(path.coalitions(on, held[on], order[step][on]))
            owners.append(on)
            held[on, order[step][on]] = True
        outcome = game.outcome(torch.cat(coalitions), torch.cat(owners))
        progress(len(outcome.rewards))
        for step in block_steps:
            if path.active.any():
                path.step(order[step], values, outcome, rows[:, step - start])
    return path.selection()


class _Path:
    """A selection in the making: what is chosen so far in every example, and who still goes on."""

    def __init__(
        self, game: BatchGame, mode: Mode, n_steps: int | None, stop: str | None, min_confidence: float
    ) -> None:
        self.game = game
        self.mode = mode
        self.min_confidence = min_confidence
        self.stops = stop == "flip"
        # what the search maximises is the reward in insertion and its negative in deletion
        self.sign = 1 if mode == "insertion" else -1
        self.every = torch.arange(game.n_games)
        self.chosen = torch.zeros(game.n_games, game.n_players, dtype=torch.bool)
        players = game.exists.sum(1)
        self.limit = players if n_steps is None else players.clamp(max=int(n_steps))
        start = game.outcome(self.chosen, self.every) if mode == "insertion" else game.full
        self.order: list[Tensor] = []
        self.shapley: list[Tensor] = []
        self.rewards = [_floating(start.rewards)]
        self.confidences = [start.confidences]
        self.predictions = [start.predictions]
        self.own: Tensor | None = None
        self.n_steps = torch.zeros(game.n_games, dtype=torch.long)
        self.flipped = self._flips(start.predictions, start.confidences)

    @property
    def active(self) -> Tensor:
        """``(B,)`` bool: which examples take another step."""
        return (self.n_steps < self.limit) & ~(self.flipped & self.stops)

    def coalitions(self, examples: Tensor, chosen: Tensor, players: Tensor) -> Tensor:
        """``(M, n)`` bool: who is present once a player joins those chosen, or leaves with them."""
        held = chosen.clone()
        held[torch.arange(len(players)), players] = True
        return held if self.mode == "insertion" else self.game.exists[examples] & ~held

    def table(self, examples: Tensor, players: Tensor, values: Tensor) -> Tensor:
        """``(B, n)`` float64 of values by example and player, -inf where there is none."""
        table = torch.full((self.game.n_games, self.game.n_players), -torch.inf, dtype=torch.float64)
        table[examples, players] = values.double()
        return table

    def step(self, choice: Tensor, values: Tensor, outcome: Any, rows: Tensor) -> None:
        """Take a step in every active example.

        Args:
            choice (Tensor): ``(B,)`` int64: the position of the player that each chooses.
            values (Tensor): ``(B, n)``: what the search maximises, by player; at the first step, of each by itself.
            outcome (Outcome): What the model said, some rows of it of the players chosen.
            rows (Tensor): ``(B,)`` int64: which.
        """
        on = self.active
        rows = torch.where(on, rows, 0)
        if self.own is None:
            self.own = values - self.sign * self.rewards[0].double()[:, None]
        self.chosen[on, choice[on]] = True
        self.n_steps += on
        self.order.append(torch.where(on, self.game.ids[choice], -1))
        self.shapley.append(torch.where(on, self.own[self.every, choice], torch.nan))
        self.rewards.append(torch.where(on, _floating(outcome.rewards[rows]), torch.nan))
        self.confidences.append(torch.where(on, outcome.confidences[rows], torch.nan))
        self.predictions.append(torch.where(on, outcome.predictions[rows], -1))
        self.flipped |= on & self._flips(outcome.predictions[rows], outcome.confidences[rows])

    def best(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """``(B,)``: the first position of each row whose value is the largest, but for rounding in that dtype."""
        best = values.amax(1, keepdim=True)
        scale = best.abs()
        if not self.game.rounds_relatively:
            scale = values.masked_fill(values.isinf(), 0).abs().amax(1, keepdim=True)
        slack = TIE_EPS * torch.finfo(dtype).eps * scale if dtype.is_floating_point else torch.zeros_like(best)
        tied = values >= best - slack
        return (~tied).long().cumprod(1).sum(1).clamp(max=values.shape[1] - 1)

    def _flips(self, predictions: Tensor, confidences: Tensor) -> Tensor:
        if self.game.targets is None:
            return torch.zeros_like(predictions, dtype=torch.bool)
        return flips(self.mode, predictions, confidences, self.game.targets, self.min_confidence)

    def selection(self) -> Selection:
        rewards = torch.stack(self.rewards, 1)
        none = torch.empty(self.game.n_games, 0)
        order = torch.stack(self.order, 1) if self.order else none.long()
        shapley = torch.stack(self.shapley, 1) if self.shapley else none.double()
        gains = self.sign * rewards.double().diff(dim=1)
        return Selection(
            mode=self.mode,
            order=order,
            rewards=rewards,
            confidences=torch.stack(self.confidences, 1),
            predictions=torch.stack(self.predictions, 1),
            shapley=shapley.to(rewards.dtype),
            interactions=(gains - shapley).to(rewards.dtype),
            n_steps=self.n_steps,
            flipped=self.flipped,
        )


def flips(mode: Mode, predictions: Tensor, confidences: Tensor, target: Tensor | int, min_confidence: float) -> Tensor:
    """Where the prediction is flipped: to the target and sure enough (insertion), or away from it (deletion)."""
    hit = predictions == target
    return hit & (confidences > min_confidence) if mode == "insertion" else ~hit


def _floating(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values.double()


def _plain(values: Any) -> Any:
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values


def _nan_for_none(values: Any) -> Any:
    if isinstance(values, list):
        return [_nan_for_none(value) for value in values]
    return math.nan if values is None else values
