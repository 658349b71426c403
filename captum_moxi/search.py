"""The search: which players a game is won with (insertion) or lost without (deletion), in order.

The search knows coalitions and rewards alone. All examples of a game go in lockstep, a step of every one being one
set of rows, and each stops by itself.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from captum_moxi.screens import Look, Screen

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
        n_evaluated (Tensor): ``(B, K)`` int64: how many candidates the step evaluated in full precision, in all the
            groups that a beam kept; 0 after an example stopped.
        skipped (Tensor): ``(B, K)`` floating: the largest gain that the screen promised of a candidate that the step
            did not evaluate; NaN where none was skipped, or where the screen does not speak of gains. It is no bound:
            beside ``gains``, it says where a step may have passed a better player by.
        n_steps (Tensor): ``(B,)`` int64: the steps that each example took.
        flipped (Tensor): ``(B,)`` bool: whether the prediction flipped by its last step: to the target with more than
            the least confidence asked for (insertion), away from the target (deletion).
        flip (str, optional): Which of the two flips counts where it is not that of the mode, as in the first deletion
            of :class:`captum_moxi.MoXILocalization`, which ends when the target is predicted.
    """

    mode: Mode
    order: Tensor
    rewards: Tensor
    confidences: Tensor
    predictions: Tensor
    shapley: Tensor
    interactions: Tensor
    n_evaluated: Tensor
    skipped: Tensor
    n_steps: Tensor
    flipped: Tensor
    flip: Mode | None = None

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
        if missing := names - values.keys() - {"flip"}:
            raise ValueError(f"this is no selection: it lacks {', '.join(sorted(missing))}")
        if values["mode"] not in ("insertion", "deletion"):
            raise ValueError(f"mode is {values['mode']!r}; a selection's is insertion or deletion")
        if values.get("flip") not in (None, "insertion", "deletion"):
            raise ValueError(f"flip is {values['flip']!r}; a selection's is insertion, deletion or None")
        kinds = dict.fromkeys(("order", "predictions", "n_evaluated", "n_steps"), torch.long) | {"flipped": torch.bool}
        tensors = {
            name: torch.tensor(_nan_for_none(values[name]), dtype=kinds.get(name, torch.float64))
            for name in names - {"mode", "flip"}
        }
        batch, steps = len(tensors["order"]), tensors["order"].shape[-1]
        for name, tensor in tensors.items():
            wide = {"rewards": 1, "confidences": 1, "predictions": 1}.get(name, 0)
            wanted = (batch,) if name in ("n_steps", "flipped") else (batch, steps + wide)
            if tensor.shape != wanted:
                raise ValueError(f"this is no selection: {name} has shape {tuple(tensor.shape)}, not {wanted}")
        return cls(mode=values["mode"], flip=values.get("flip"), **tensors)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the selection as JSON."""
        Path(path).write_text(json.dumps(self.to_dict()) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Selection":
        """Read a selection that ``save`` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text()))


class BatchGame(Protocol):
    """What the search asks of a game; :class:`captum_moxi.CoalitionGame` has it.

    Screens may ask for more: GradientScreen for ``effects``, HalfPrecisionScreen for ``approximate``.
    """

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
    screen: Screen | None = None,
    beam_width: int = 1,
    flip: Mode | None = None,
) -> Selection:
    r"""
    Choose at every step the player that changes the reward most (the paper's Algorithms 1 and 2).

    That is the player whose Shapley value plus interaction with those chosen is largest: insertion maximises
    :math:`f(A \cup b)`, deletion minimises :math:`f(N \setminus (A \cup b))`. Step k evaluates the n - k + 1 players
    that are left, or those that a screen names. Rewards within rounding of the best tie, and the lowest id wins.

    Args:
        game (BatchGame): The game.
        mode (str): ``"insertion"`` or ``"deletion"``.
        n_steps (int, optional): The most steps. Default: every player
        stop (str, optional): ``"flip"`` to stop an example as soon as its prediction flips. Default: None
        min_confidence (float, optional): The confidence that insertion must exceed to flip. Default: 0
        progress (Callable, optional): Called with the rows evaluated by each step.
        screen (Screen, optional): Which candidates a step evaluates. Default: None, all
        beam_width (int, optional): How many groups of players are kept at every step: greedy search's own and the
            best others. The selection is the best group's of the last step. Default: 1
        flip (str, optional): Which flip counts: ``"insertion"``, to the target, or ``"deletion"``, away from it.
            Default: that of the mode

    Returns:
        Selection: on the CPU.
    """
    path = _Path(game, mode, n_steps, stop, min_confidence, flip)
    while path.active.any():
        trial = _try(path, screen, progress)
        parents, choice = _widen(path, trial, beam_width)
        path.branch(parents)
        path.step(choice, trial, parents)
        path.branch(path.survivors())
    path.evaluate_own(progress)
    return path.selection()


@dataclass(frozen=True)
class _Trial:
    """What a step found out, by state and player.

    Args:
        examples (Tensor): ``(S,)`` int64: the example of each state.
        base (Tensor): ``(S,)`` float64: the reward that each state starts from.
        rewards, confidences, predictions (Tensor): ``(M,)``: what the model said of some rows.
        rows (Tensor): ``(S, n)`` int64: the row of each candidate evaluated, else -1.
        groups (Tensor): ``(S, n)`` int64: a number for the group that each candidate makes of its state.
        values (Tensor): ``(S, n)`` float64: what the search maximises, -inf where not evaluated.
        estimates (Tensor): ``(S, n)`` float64: what the screen had estimated; NaN without one.
        n_evaluated (Tensor): ``(S,)`` int64.
        skipped (Tensor): ``(S,)`` float64: the most that the screen expected of a candidate not evaluated, or NaN.
    """

    examples: Tensor
    base: Tensor
    rewards: Tensor
    confidences: Tensor
    predictions: Tensor
    rows: Tensor
    groups: Tensor
    values: Tensor
    estimates: Tensor
    n_evaluated: Tensor
    skipped: Tensor


def _try(path: "_Path", screen: Screen | None, progress: Callable[[int], Any]) -> _Trial:
    """Evaluate the candidates of a step, or those that the screen names."""
    look = path.look()
    rows = torch.full(look.candidates.shape, -1)
    values = torch.full(look.candidates.shape, -torch.inf, dtype=torch.float64)
    estimates = torch.full_like(values, torch.nan)
    promise = estimates
    todo = look.candidates
    if screen is not None and bool((todo.sum(1) <= screen.m).all()):
        screen = None  # no candidate would be skipped
    if screen is not None:
        said = screen.estimate(look)
        if not isinstance(said, tuple) or len(said) != 2:
            raise TypeError(f"{screen!r} returned a {type(said).__name__} from estimate; return estimates and promise")
        estimates, promise = (part.double() for part in said)
        if not estimates.shape == promise.shape == look.candidates.shape:
            raise ValueError(
                f"{screen!r} estimated {tuple(estimates.shape)} and promised {tuple(promise.shape)}, not one number a "
                f"coalition and player, {tuple(look.candidates.shape)}"
            )
        # what the screen cannot tell is evaluated
        promise = promise.nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(~look.candidates, -torch.inf)
        gains = torch.full_like(values, torch.nan)
        todo = screen.more(look, promise, gains) & look.candidates
    groups, coalitions, examples = _groups(look)
    row_of = torch.full((len(coalitions),), -1)
    outcomes: list[Any] = []
    done = 0
    while todo.any() or not outcomes:
        # groups that states meet in are evaluated once
        wanted = groups[todo].unique()
        outcomes.append(path.game.outcome(coalitions[wanted], examples[wanted]))
        row_of[wanted] = done + torch.arange(len(wanted))
        rows[todo] = row_of[groups[todo]]
        done += len(wanted)
        progress(len(wanted))
        values[todo] = path.sign * torch.cat([part.rewards for part in outcomes])[rows[todo]].double()
        if screen is None:
            break
        gains = (values - path.sign * look.rewards[:, None]).masked_fill(rows < 0, torch.nan)
        todo = screen.more(look, promise, gains) & look.candidates
    if screen is not None and bool((path.active & (rows < 0).all(1)).any()):
        raise ValueError(f"{screen!r} named no candidate at step {look.step}; each step needs one at least")
    left = look.candidates & (rows < 0)
    skipped = promise.masked_fill(~left, -torch.inf).amax(1)
    if screen is None or not screen.estimates_gains:
        skipped = torch.full_like(skipped, torch.nan)
    return _Trial(
        examples=look.examples,
        base=look.rewards,
        rewards=torch.cat([outcome.rewards for outcome in outcomes]),
        confidences=torch.cat([outcome.confidences for outcome in outcomes]),
        predictions=torch.cat([outcome.predictions for outcome in outcomes]),
        rows=rows,
        groups=groups,
        values=values,
        estimates=estimates,
        n_evaluated=(rows >= 0).sum(1),
        skipped=skipped.masked_fill(skipped.isinf(), torch.nan),
    )


def _groups(look: Look) -> tuple[Tensor, Tensor, Tensor]:
    """The groups that candidates make: ``(S, n)`` their numbers, -1 where none, and of each coalition and example."""
    states, players, coalitions, examples = look.coalitions()
    numbers = torch.arange(len(states))
    if len(look.examples) > look.game.n_games:
        # several states an example may come to the same group
        both = torch.cat([examples[:, None], coalitions.long()], 1)
        both, numbers = both.unique(dim=0, return_inverse=True)
        examples, coalitions = both[:, 0], both[:, 1:].bool()
    groups = torch.full(look.candidates.shape, -1)
    groups[states, players] = numbers
    return groups, coalitions, examples


def _widen(path: "_Path", trial: _Trial, width: int) -> tuple[Tensor, Tensor]:
    """The states to go on from and the player that each takes: ``(S',)`` positions of states, ``(S',)`` of players.

    The first of every example is greedy search's own; the others are the best groups beside it.
    """
    dtype = trial.rewards.dtype
    own = path.best(trial.values, dtype)
    if width == 1:
        return torch.arange(len(own)), own
    n = path.game.n_players
    parents: list[int] = []
    choice: list[int] = []
    for example in range(path.game.n_games):
        states = (path.examples == example).nonzero().flatten()
        parents.append(int(states[0]))
        choice.append(int(own[states[0]]))
        if not path.active[states[0]]:
            continue
        values, reached = trial.values[states].flatten(), trial.groups[states].flatten()
        for _ in range(width - 1):
            # the group just taken is out, by whichever way it is reached
            values = values.masked_fill(reached == trial.groups[parents[-1], choice[-1]], -torch.inf)
            if bool(values.isinf().all()):
                break
            best = int(path.best(values[None], dtype))
            parents.append(int(states[best // n]))
            choice.append(best % n)
    return torch.tensor(parents), torch.tensor(choice)


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
    if not path.active.any():
        return path.selection()
    first = _try(path, None, progress)
    order: list[Tensor] = []
    left = first.values.clone()
    for _ in range(int(path.limit.max())):
        order.append(path.best(left, first.rewards.dtype))
        left[path.examples, order[-1]] = -torch.inf
    return _walk(path, order, first, progress)


def follow(
    game: BatchGame,
    mode: Mode,
    order: Tensor,
    n_steps: int | None = None,
    stop: str | None = None,
    min_confidence: float = 0.0,
    progress: Callable[[int], Any] = lambda rows: None,
) -> Selection:
    r"""
    Take the players in an order that is given: the selection of any method that orders players.

    A step evaluates one row. No player is evaluated by itself, so that Shapley values and interactions are NaN.

    Args:
        game (BatchGame): The game.
        mode (str): ``"insertion"`` or ``"deletion"``.
        order (Tensor): ``(B, any)`` int64: every example's players, each once, by their positions in ``game.ids``; -1
            after the last.
        n_steps, stop, min_confidence, progress: As in :func:`greedy`.

    Returns:
        Selection: on the CPU.
    """
    path = _Path(game, mode, n_steps, stop, min_confidence)
    path.limit = path.limit.clamp(max=(order >= 0).sum(1))
    nothing = torch.full_like(path.own, torch.nan)
    first = _Trial(
        examples=path.examples,
        base=path.rewards[:, 0].double(),
        rewards=path.rewards[:0, 0],
        confidences=path.confidences[:0, 0],
        predictions=path.predictions[:0, 0],
        rows=torch.full(nothing.shape, -1),
        groups=torch.full(nothing.shape, -1),
        values=torch.full_like(nothing, -torch.inf),
        estimates=nothing,
        n_evaluated=torch.ones(game.n_games, dtype=torch.long),
        skipped=nothing[:, 0],
    )
    return _walk(path, list(order[:, : int(path.limit.max())].T), first, progress)


def _walk(path: "_Path", order: list[Tensor], first: _Trial, progress: Callable[[int], Any]) -> Selection:
    """Take the players in that order, ``(B,)`` a step, from a first look at them."""
    block = PATH_BLOCK if path.stops else len(order)
    for start in range(0, len(order), max(1, block)):
        if not path.active.any():
            break
        block_steps = range(start, min(start + block, len(order)))
        held = path.chosen.clone()
        coalitions: list[Tensor] = []
        owners: list[Tensor] = []
        rows = torch.full((len(block_steps), *first.rows.shape), -1)
        for step in block_steps:
            on = (path.active & (path.limit > step)).nonzero().flatten()
            rows[step - start, on, order[step][on]] = sum(map(len, owners)) + torch.arange(len(on))
            coalitions.append(path.coalitions(on, held[on], order[step][on, None]))
            owners.append(on)
            held[on, order[step][on]] = True
        outcome = path.game.outcome(torch.cat(coalitions), torch.cat(owners))
        progress(len(outcome.rewards))
        for step in block_steps:
            if path.active.any():
                # whoever was evaluated was at the first step, and from then on the path alone is
                evaluated = first.n_evaluated if step == 0 else torch.ones_like(first.n_evaluated)
                trial = replace(
                    first,
                    rewards=outcome.rewards,
                    confidences=outcome.confidences,
                    predictions=outcome.predictions,
                    rows=rows[step - start],
                    n_evaluated=evaluated,
                )
                path.step(order[step], trial, path.examples)
    return path.selection()


class _Path:
    """Selections in the making: what is chosen so far in each of S states, and which go on.

    A state is one group of players of one example: one an example, or several in a beam. The states of an example stand
    together, greedy search's own first.
    """

    # what every state has of its own, by its first dimension
    BY_STATE = (
        *("examples", "limit", "chosen", "gains", "estimates", "error", "n_steps", "flipped"),
        *("order", "rewards", "confidences", "predictions", "n_evaluated", "skipped"),
    )

    def __init__(
        self,
        game: BatchGame,
        mode: Mode,
        n_steps: int | None,
        stop: str | None,
        min_confidence: float,
        flip: Mode | None = None,
    ) -> None:
        self.game = game
        self.mode = mode
        self.flip = flip or mode
        self.min_confidence = min_confidence
        self.stops = stop == "flip"
        # what the search maximises is the reward in insertion and its negative in deletion
        self.sign = 1 if mode == "insertion" else -1
        # what a player changes by itself, by example; NaN where that was not evaluated
        self.own = torch.full((game.n_games, game.n_players), torch.nan, dtype=torch.float64)

        self.examples = torch.arange(game.n_games)
        players = game.exists.sum(1)
        self.limit = players if n_steps is None else players.clamp(max=int(n_steps))
        self.chosen = torch.zeros_like(game.exists)
        # what each player changed when last evaluated on the way here, and what the screen had estimated
        self.gains = self.own.clone()
        self.estimates = self.own.clone()
        self.error = torch.zeros(game.n_games, dtype=torch.float64)
        start = game.outcome(self.chosen, self.examples) if mode == "insertion" else game.full
        self.n_steps = torch.zeros(game.n_games, dtype=torch.long)
        self.flipped = self._flips(start.predictions, start.confidences)
        self.order = torch.empty(game.n_games, 0, dtype=torch.long)
        self.rewards = _floating(start.rewards)[:, None]
        self.confidences = start.confidences[:, None]
        self.predictions = start.predictions[:, None]
        self.n_evaluated = torch.empty(game.n_games, 0, dtype=torch.long)
        self.skipped = torch.empty(game.n_games, 0, dtype=torch.float64)

    @property
    def active(self) -> Tensor:
        """``(S,)`` bool: which states take another step."""
        return (self.n_steps < self.limit) & ~(self.flipped & self.stops)

    def look(self) -> Look:
        """Where the search stands."""
        nobody = torch.zeros(len(self.examples), 0, dtype=torch.long)
        return Look(
            game=self.game,
            mode=self.mode,
            step=self.order.shape[1] + 1,
            examples=self.examples,
            present=self.coalitions(self.examples, self.chosen, nobody),
            candidates=self.game.exists[self.examples] & ~self.chosen & self.active[:, None],
            rewards=self.rewards[:, -1].double(),
            gains=self.gains,
            estimates=self.estimates,
            error=self.error,
        )

    def coalitions(self, examples: Tensor, chosen: Tensor, players: Tensor) -> Tensor:
        """``(M, n)`` bool: who is present once players ``(M, any)`` join those chosen, or leave with them."""
        held = chosen.scatter(1, players, True)
        return held if self.mode == "insertion" else self.game.exists[examples] & ~held

    def branch(self, parents: Tensor) -> None:
        """Go on from these states, any of them several times or not at all."""
        for name in self.BY_STATE:
            setattr(self, name, getattr(self, name)[parents])

    def step(self, choice: Tensor, trial: "_Trial", parents: Tensor) -> None:
        """Take a step in every active state.

        Args:
            choice (Tensor): ``(S,)`` int64: the position of the player that each takes.
            trial (_Trial): What the step found out, of the states before they branched.
            parents (Tensor): ``(S,)`` int64: which of those each state was.
        """
        on = self.active
        rows = torch.where(on, trial.rows[parents, choice], 0)
        gains = (trial.values - self.sign * trial.base[:, None]).masked_fill(trial.values.isinf(), torch.nan)
        if not self.order.shape[1]:
            self.own = gains
        known = trial.values[parents].isfinite()
        self.gains = torch.where(known, gains[parents], self.gains)
        self.estimates = torch.where(known, trial.estimates[parents], self.estimates)
        off = (gains - trial.estimates).abs()[parents].nan_to_num(nan=0, posinf=0)
        self.error = torch.maximum(self.error, off.amax(1))
        self.chosen[on, choice[on]] = True
        self.n_steps = self.n_steps + on
        self.flipped = self.flipped | on & self._flips(trial.predictions[rows], trial.confidences[rows])
        self.order = _with(self.order, on, self.game.ids[choice], -1)
        self.rewards = _with(self.rewards, on, _floating(trial.rewards[rows]), torch.nan)
        self.confidences = _with(self.confidences, on, trial.confidences[rows], torch.nan)
        self.predictions = _with(self.predictions, on, trial.predictions[rows], -1)
        evaluated = torch.zeros(self.game.n_games, dtype=torch.long)
        evaluated.index_add_(0, trial.examples, trial.n_evaluated)
        self.n_evaluated = _with(self.n_evaluated, on, evaluated[self.examples], 0)
        self.skipped = _with(self.skipped, on, trial.skipped[parents], torch.nan)

    def survivors(self) -> Tensor:
        """Positions of the states that go on, and of examples that do not, of the best."""
        if len(self.examples) == self.game.n_games:
            return torch.arange(self.game.n_games)
        kept: list[int] = []
        for example in range(self.game.n_games):
            states = (self.examples == example).nonzero().flatten()
            done = states[~self.active[states]]
            if len(done) and len(states) > 1:
                # by the last reward, then by the rewards on the way, which a full ranking differs in alone
                last = self.sign * self.rewards[done].double()
                done = done[self._tied(last[None, :, -1], self.rewards.dtype)[0]]
                way = self.sign * self.rewards[done].double().sum(1)
                states = done[way.argmax()][None]
            kept += states.tolist()
        return torch.tensor(kept)

    def best(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """``(S,)``: the first position of each row whose value is the largest, but for rounding in that dtype."""
        return (~self._tied(values, dtype)).long().cumprod(1).sum(1).clamp(max=values.shape[1] - 1)

    def _tied(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        best = values.amax(1, keepdim=True)
        scale = best.abs()
        if not self.game.rounds_relatively:
            scale = values.masked_fill(values.isinf(), 0).abs().amax(1, keepdim=True)
        slack = TIE_EPS * torch.finfo(dtype).eps * scale if dtype.is_floating_point else torch.zeros_like(best)
        return values >= best - slack

    def _flips(self, predictions: Tensor, confidences: Tensor) -> Tensor:
        if self.game.targets is None:
            return torch.zeros_like(predictions, dtype=torch.bool)
        return flips(self.flip, predictions, confidences, self.game.targets[self.examples], self.min_confidence)

    def evaluate_own(self, progress: Callable[[int], Any]) -> None:
        """Evaluate the Shapley values of players taken that a screen left out."""
        columns, examples = self._taken()
        unknown = (self.order >= 0) & self.own[examples, columns].isnan()
        if unknown.any():
            of, players = examples[unknown], columns[unknown]
            outcome = self.game.outcome(self.coalitions(of, torch.zeros_like(self.chosen)[of], players[:, None]), of)
            progress(len(of))
            self.own[of, players] = self.sign * (outcome.rewards.double() - self.rewards[of, 0].double())

    def selection(self) -> Selection:
        """The selections, one an example."""
        columns, examples = self._taken()
        shapley = torch.where(self.order >= 0, self.own[examples, columns], torch.nan)
        gains = self.sign * self.rewards.double().diff(dim=1)
        dtype = self.rewards.dtype
        return Selection(
            mode=self.mode,
            order=self.order,
            rewards=self.rewards,
            confidences=self.confidences,
            predictions=self.predictions,
            shapley=shapley.to(dtype),
            interactions=(gains - shapley).to(dtype),
            n_evaluated=self.n_evaluated,
            skipped=self.skipped.to(dtype),
            n_steps=self.n_steps,
            flipped=self.flipped,
            flip=None if self.flip == self.mode else self.flip,
        )

    def _taken(self) -> tuple[Tensor, Tensor]:
        """``(B, K)``: the players taken, by position, and their examples; the first player where none was."""
        columns = torch.searchsorted(self.game.ids, self.order.clamp(min=self.game.ids[0]))
        return columns, self.examples[:, None].expand_as(columns)


def flips(mode: Mode, predictions: Tensor, confidences: Tensor, target: Tensor | int, min_confidence: float) -> Tensor:
    """Where the prediction is flipped: to the target and sure enough (insertion), or away from it (deletion)."""
    hit = predictions == target
    return hit & (confidences > min_confidence) if mode == "insertion" else ~hit


def _with(columns: Tensor, on: Tensor, values: Tensor, otherwise: float) -> Tensor:
    """The columns and one more: these values where on."""
    return torch.cat([columns, torch.where(on, values, otherwise).to(columns.dtype)[:, None]], 1)


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
