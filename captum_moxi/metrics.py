"""Insertion and deletion curves: what a model says as players come, or go, in the order that an attribution gives."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_high, median_low
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_moxi import models
from captum_moxi.arguments import devices
from captum_moxi.game import CoalitionGame
from captum_moxi.players import collect_scores
from captum_moxi.removal import Removal
from captum_moxi.rewards import Reward
from captum_moxi.search import Mode, Selection, flips

# rows between two moves of the progress bar
BLOCK = 256


@dataclass(frozen=True, eq=False)
class Curve:
    """What a model says at each fraction of the players inserted or deleted: B examples, P fractions.

    Args:
        mode (str): ``"insertion"`` or ``"deletion"``.
        fractions (Tensor): ``(P,)`` float64, ascending: the fraction of its players that every example has inserted
            or deleted.
        players (Tensor): ``(B, P)`` int64: how many players that is, the nearest whole number.
        rewards (Tensor): ``(B, P)``, in the reward's dtype.
        confidences (Tensor): ``(B, P)`` floating: P(target); NaN where there is no target.
        predictions (Tensor): ``(B, P)`` int64: the predicted class; of a single logit 0 where positive, else -1.
        correct (Tensor): ``(B, P)`` bool: whether the target is predicted; False where there is none.
        flipped (Tensor): ``(B,)`` float64: the first of the fractions at which the prediction is flipped, to the target
            (insertion) or away from it (deletion); NaN where it never is.
    """

    mode: Mode
    fractions: Tensor
    players: Tensor
    rewards: Tensor
    confidences: Tensor
    predictions: Tensor
    correct: Tensor
    flipped: Tensor

    @property
    def accuracy(self) -> Tensor:
        """``(P,)`` float64: the share of examples whose target is predicted at each fraction."""
        return self.correct.double().mean(0)

    def area(self, of: Literal["confidences", "rewards", "correct"] = "confidences") -> Tensor:
        """The area under each example's curve by the trapezoidal rule, over the width of its fractions.

        The width being divided out, it is the curve's mean height: of confidences and of correctness, from 0 to 1. More
        is better in insertion, less in deletion.

        Args:
            of (str, optional): ``"confidences"``, ``"rewards"`` or ``"correct"``.
                Default: ``"confidences"``

        Returns:
            Tensor: ``(B,)`` float64.

        Raises:
            ValueError: another name.
        """
        if of not in ("confidences", "rewards", "correct"):
            raise ValueError(f"of is {of!r}; pass 'confidences', 'rewards' or 'correct'")
        values = getattr(self, of).double()
        width = float(self.fractions[-1] - self.fractions[0])
        return torch.trapezoid(values, self.fractions, dim=1) / width if width else values[:, 0]


def insertion_curve(
    forward_func: Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    attributions: Any,
    target: Any = None,
    baselines: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensor | tuple[Tensor, ...] | None = None,
    removal: Removal | None = None,
    reward: str | Reward = "log_odds",
    fractions: Sequence[float] | Tensor | None = None,
    perturbations_per_eval: int | None = None,
    show_progress: bool = False,
) -> Curve:
    r"""
    What the model says as players are inserted, from none of them to all, highest attribution first.

    Petsiuk et al. ('RISE', BMVC 2018) call it the insertion game; the MoXI paper's Figure 3 shows its accuracy.

    Players with equal attributions come in the order of their ids, whatever method they are from. The attribution of
    a player is the mean of its values'.

    Args:
        forward_func (Callable): The model, as in :class:`captum_moxi.MoXIInsertion`.
        inputs (Tensor or tuple[Tensor, ...]): The examples.
        attributions (Tensor, tuple[Tensor, ...] or Selection): How to order the players of each example, one of

            - a map of the inputs' shape or broadcastable to it, or a layer's map of images, such as
              ``(B, 1, 14, 14)``, which is stretched over the image (nearest);
            - scores of players ``(B, n)``, floating, in ascending order of their ids, where that is not the inputs'
              shape;
            - a ranking ``(B, K)`` of whole numbers: ids of players, the first first, -1 after an example's last;
            - a :class:`captum_moxi.Selection`, of either mode.

            Players that a ranking or selection does not name come last, in the order of their ids.
        target, baselines, additional_forward_args, feature_mask: As in ``captum.attr.FeatureAblation``; feature_mask
            None makes the model's patches players, as in :class:`captum_moxi.MoXIInsertion`.
        removal (Removal, optional): How absent players are taken away.
            Default: None, token removal where the model has patch tokens, else baseline fill
        reward (str or Callable, optional): As in :class:`captum_moxi.MoXIInsertion`.
            Default: ``"log_odds"``
        fractions (Sequence[float] or Tensor, optional): Which fractions of the players to look at, ascending, from 0 to
            1; of 196 players 0.04 is 8, the nearest whole number.
            Default: None, every number of players
        perturbations_per_eval (int, optional): As in :class:`captum_moxi.MoXIInsertion`.
            Default: None
        show_progress (bool, optional): Show a progress bar over forward rows.
            Default: False

    Returns:
        Curve: on the CPU.

    Raises:
        ValueError: attributions that do not fit, are not finite, or name players that are not there or twice;
            fractions out of order or range; and as :class:`captum_moxi.MoXIInsertion`.
        TypeError: attributions of another type; and likewise.

    Examples::

        >>> attr = MoXIInsertion(model).attribute(x, target=y)
        >>> curve = insertion_curve(model, x, attr, target=y)
        >>> curve.area(), curve.flipped
        >>> grad_cam = insertion_curve(model, x, GradCam(model).attribute(x, target=y), target=y)
    """
    call = (inputs, target, baselines, additional_forward_args, feature_mask, removal, reward, perturbations_per_eval)
    with models.unchanged(forward_func, devices(inputs)):
        return play_curve(CoalitionGame(forward_func, *call), attributions, "insertion", fractions, show_progress)


def deletion_curve(
    forward_func: Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    attributions: Any,
    target: Any = None,
    baselines: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensor | tuple[Tensor, ...] | None = None,
    removal: Removal | None = None,
    reward: str | Reward = "log_odds",
    fractions: Sequence[float] | Tensor | None = None,
    perturbations_per_eval: int | None = None,
    show_progress: bool = False,
) -> Curve:
    r"""
    What the model says as players are deleted, from all of them to none, highest attribution first.

    Arguments, results and errors as in :func:`insertion_curve`.

    Examples::

        >>> attr, selection = MoXIDeletion(model).attribute(x, target=y, n_steps=20, return_selection=True)
        >>> deletion_curve(model, x, selection, target=y, fractions=[0, 0.05, 0.1]).accuracy
    """
    call = (inputs, target, baselines, additional_forward_args, feature_mask, removal, reward, perturbations_per_eval)
    with models.unchanged(forward_func, devices(inputs)):
        return play_curve(CoalitionGame(forward_func, *call), attributions, "deletion", fractions, show_progress)


def play_curve(
    game: CoalitionGame,
    attributions: Any,
    mode: Mode,
    fractions: Sequence[float] | Tensor | None = None,
    show_progress: bool = False,
) -> Curve:
    """The curve on a game that is there already; see :func:`insertion_curve`."""
    points = (
        torch.arange(game.n_players + 1).double() / game.n_players if fractions is None else read_fractions(fractions)
    )
    order = order_players(game, attributions)
    # at which place of its example's order each player stands; players that it does not have never come
    place = torch.full(game.exists.shape, game.n_players)
    examples, places = (order >= 0).nonzero(as_tuple=True)
    place[examples, order[examples, places]] = places
    players = (points * game.exists.sum(1, keepdim=True) + 0.5).floor().long()
    # fractions that come to the same number of players are played once
    todo = torch.stack([torch.arange(game.n_games)[:, None].expand_as(players), players], 2).flatten(0, 1)
    rows, of_row = todo.unique(dim=0, return_inverse=True)
    # rows of one length, which can share a pass, stand together
    by_length = rows[:, 1].argsort(stable=True)
    outcomes = []
    with tqdm(total=len(rows), desc=f"{mode} curve", unit=" forwards", leave=None, disable=not show_progress) as bar:
        for block in by_length.split(BLOCK):
            owners, count = rows[block].unbind(1)
            moved = place[owners] < count[:, None]
            outcomes.append(game.outcome(moved if mode == "insertion" else game.exists[owners] & ~moved, owners))
            bar.update(len(block))
    found = by_length.argsort()[of_row].reshape(players.shape)
    rewards, confidences, predictions = (
        torch.cat([getattr(outcome, name) for outcome in outcomes])[found]
        for name in ("rewards", "confidences", "predictions")
    )
    correct = torch.zeros_like(predictions, dtype=torch.bool)
    flipped = correct.clone()
    if game.targets is not None:
        correct = predictions == game.targets[:, None]
        flipped = flips(mode, predictions, confidences, game.targets[:, None], 0.0)
    first = points[flipped.long().argmax(1)].masked_fill(~flipped.any(1), torch.nan)
    return Curve(mode, points, players, rewards, confidences, predictions, correct, first)


def order_players(game: CoalitionGame, attributions: Any) -> Tensor:
    """Every example's players, highest attribution first: ``(B, n)`` int64 positions in ``game.ids``, -1 at the end.

    Attributions are as :func:`insertion_curve` takes them.
    """
    if isinstance(attributions, Selection):
        attributions = attributions.order
    parts = attributions if isinstance(attributions, tuple) else (attributions,)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise TypeError(f"attributions is {kinds}; pass a tensor, a tuple of tensors or a Selection")
    whole = not (parts[0].is_floating_point() or parts[0].is_complex() or parts[0].dtype is torch.bool)
    if len(parts) == 1 and whole and parts[0].dim() == 2:
        scores = _scores_of_ranking(game, parts[0].cpu().long())
    else:
        scores = _scores(game, parts)
    scores = scores.masked_fill(~game.exists, -torch.inf)
    order = scores.argsort(dim=1, descending=True, stable=True)
    return order.masked_fill(torch.arange(game.n_players) >= game.exists.sum(1, keepdim=True), -1)


def _scores(game: CoalitionGame, attributions: tuple[Tensor, ...]) -> Tensor:
    given = attributions[0]
    of_players = (game.n_games, game.n_players)
    if len(attributions) == 1 and tuple(given.shape) == of_players != tuple(game.call.inputs[0].shape):
        scores = given.detach().cpu().double()
    else:
        scores = collect_scores(attributions, game.call.players, game.call.inputs)
    if len(scores) != game.n_games:
        raise ValueError(f"attributions are of {len(scores)} examples where inputs are of {game.n_games}; pass as many")
    if not bool(scores.isfinite().all()):
        raise ValueError("attributions hold values that are not finite; pass finite ones")
    return scores


def _scores_of_ranking(game: CoalitionGame, ranking: Tensor) -> Tensor:
    """``(B, n)``: K for the first of K, falling; 0 for players that are not named."""
    scores = torch.zeros(game.n_games, game.n_players, dtype=torch.float64)
    if len(ranking) != game.n_games:
        raise ValueError(f"attributions rank players of {len(ranking)} examples, not of {game.n_games}; pass as many")
    for example, row in enumerate(ranking.tolist()):
        named = row[: row.index(-1)] if -1 in row else row
        there = set(game.ids[game.exists[example]].tolist())
        if unknown := [player for player in row[len(named) :] if player != -1] + [
            player for player in named if player not in there
        ]:
            raise ValueError(
                f"attributions rank player {unknown[0]} of example {example}, which has none of that id, or has it "
                "after a -1; pass ids of the feature mask"
            )
        if len(set(named)) < len(named):
            twice = next(player for player in named if named.count(player) > 1)
            raise ValueError(f"attributions rank player {twice} of example {example} twice; pass every player once")
        columns = torch.searchsorted(game.ids, torch.tensor(named, dtype=torch.long))
        scores[example, columns] = torch.arange(len(named), 0, -1, dtype=torch.float64)
    return scores


def median_flip(flips: Sequence[float], most: int) -> str:
    """The median of how many players flip a prediction, as tables have it.

    Args:
        flips (Sequence[float]): How many each example took; infinity where as many as ``most`` flip none.
        most (int): How many were looked at.

    Returns:
        str: the median; where it lies beyond what was looked at, the number that it is more than.
    """
    low, high = median_low(flips), median_high(flips)
    if math.isinf(high):
        return f"> {most if math.isinf(low) else (low + most) / 2:g}"
    return f"{(low + high) / 2:g}"


def read_fractions(fractions: Sequence[float] | Tensor) -> Tensor:
    """Fractions of players as ``(P,)`` float64, checked."""
    try:
        points = torch.as_tensor(fractions, dtype=torch.float64).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"fractions is {fractions!r}; pass numbers from 0 to 1") from None
    if points.dim() != 1 or not len(points):
        raise ValueError(f"fractions has shape {tuple(points.shape)}; pass one number or more, from 0 to 1")
    if not bool(((points >= 0) & (points <= 1)).all()) or bool((points.diff() < 0).any()):
        raise ValueError(f"fractions is {points.tolist()}; pass numbers from 0 to 1 in ascending order")
    return points
