"""Insertion and deletion curves: the model's output as players are inserted or deleted in a given order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_moxi.arguments import Baselines, ForwardArgs, ForwardFunc, Mode, Target, TensorOrTuple, input_devices
from captum_moxi.game import CoalitionGame, Outcome
from captum_moxi.metrics.ordering import Attributions, parse_fractions, rank_positions
from captum_moxi.models import preserved_state
from captum_moxi.removal import Removal
from captum_moxi.rewards import Reward
from captum_moxi.search import has_flipped

Quantity: TypeAlias = Literal["confidences", "rewards", "correct"]

# Rows between two updates of the progress bar.
BLOCK_ROWS = 256


@dataclass(frozen=True, eq=False)
class Curve:
    """The model's output at P fractions of the players inserted or deleted, for B examples.

    Args:
        mode (str): ``"insertion"`` or ``"deletion"``.
        fractions (Tensor): ``(P,)`` float64, ascending: the fraction of its players that each example has inserted or
            deleted.
        counts (Tensor): ``(B, P)`` int64: the number of players at each fraction, rounded to the nearest integer.
        rewards (Tensor): ``(B, P)``, in the dtype of the reward.
        confidences (Tensor): ``(B, P)`` floating: P(target), or NaN without a target.
        predictions (Tensor): ``(B, P)`` int64: the predicted class. For a single logit, 0 if positive and -1
            otherwise.
        correct (Tensor): ``(B, P)`` bool: whether the target is the predicted class; False without a target.
        flip_fraction (Tensor): ``(B,)`` float64: the first fraction at which the prediction flips, to the target
            (insertion) or away from it (deletion). NaN if it never flips.
    """

    mode: Mode
    fractions: Tensor
    counts: Tensor
    rewards: Tensor
    confidences: Tensor
    predictions: Tensor
    correct: Tensor
    flip_fraction: Tensor

    @property
    def accuracy(self) -> Tensor:
        """``(P,)`` float64: the share of examples with a correct prediction at each fraction."""
        return self.correct.double().mean(0)

    def area(self, quantity: Quantity = "confidences") -> Tensor:
        """Compute the area under the curve of each example with the trapezoidal rule.

        The area is divided by the width of the fractions, so it is the mean height of the curve. For confidences and
        correctness it lies between 0 and 1. A larger area is better for insertion, a smaller one for deletion.

        Args:
            quantity (str, optional): ``"confidences"``, ``"rewards"`` or ``"correct"``.
                Default: ``"confidences"``

        Returns:
            Tensor: ``(B,)`` float64.

        Raises:
            ValueError: If ``quantity`` is not one of these names.
        """
        heights = {"confidences": self.confidences, "rewards": self.rewards, "correct": self.correct}
        if quantity not in heights:
            raise ValueError(f"quantity is {quantity!r}; pass one of {', '.join(map(repr, heights))}")
        values = heights[quantity].double()
        width = float(self.fractions[-1] - self.fractions[0])
        return torch.trapezoid(values, self.fractions, dim=1) / width if width else values[:, 0]

    @staticmethod
    def concatenate(curves: Sequence["Curve"]) -> "Curve":
        """Join curves of the same mode and fractions along the examples.

        Args:
            curves (Sequence[Curve]): One or more curves.
        """
        return replace(
            curves[0],
            counts=torch.cat([curve.counts for curve in curves]),
            rewards=torch.cat([curve.rewards for curve in curves]),
            confidences=torch.cat([curve.confidences for curve in curves]),
            predictions=torch.cat([curve.predictions for curve in curves]),
            correct=torch.cat([curve.correct for curve in curves]),
            flip_fraction=torch.cat([curve.flip_fraction for curve in curves]),
        )


def insertion_curve(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    *,
    attributions: Attributions,
    target: Target = None,
    baselines: Baselines = None,
    additional_forward_args: ForwardArgs = None,
    feature_mask: TensorOrTuple | None = None,
    removal: Removal | str | None = None,
    reward: str | Reward = "log_odds",
    fractions: Sequence[float] | Tensor | None = None,
    perturbations_per_eval: int | None = None,
    show_progress: bool = False,
) -> Curve:
    r"""
    Insert the players from none to all, highest attribution first, and record the model's output.

    This is the insertion game of Petsiuk et al. (RISE, BMVC 2018). Figure 3 of the MoXI paper shows its accuracy.

    The attribution of a player is the mean over its values. Players with equal attributions are ordered by id,
    whatever the method.

    Args:
        forward_func (Callable): The model, as in :class:`captum_moxi.MoXIInsertion`.
        inputs (Tensor or tuple[Tensor, ...]): The B examples.
        attributions (Tensor, tuple[Tensor, ...] or Selection): The order of the players of each example, in one of
            these forms:

            - A map with the shape of the inputs, or broadcastable to it. For images, a map of another height and
              width, for example a layer's ``(B, 1, 14, 14)``, is interpolated to the image (nearest).
            - Floating-point scores of players ``(B, n)`` in ascending order of their ids. A tensor with the shape of
              the inputs is always a map.
            - A ranking ``(B, K)`` of integers: ids of players, the first player first. Shorter rows end in -1.
            - A :class:`captum_moxi.Selection` of either mode.

            Players that a ranking or a selection does not name come last, in the order of their ids.
        target (int, tuple, Tensor or list, optional): As in ``captum.attr.FeatureAblation``.
            Default: None
        baselines (scalar, Tensor or tuple, optional): As in ``captum.attr.FeatureAblation``.
            Default: None
        additional_forward_args (Any, optional): As in ``captum.attr.FeatureAblation``.
            Default: None
        feature_mask (Tensor or tuple[Tensor, ...], optional): As in ``captum.attr.FeatureAblation``.
            Default: None, the model's patches, as in :class:`captum_moxi.MoXIInsertion`
        removal (Removal, optional): How absent players are removed.
            Default: None, token removal if the model has patch tokens, otherwise baseline fill
        reward (str or Callable, optional): As in :class:`captum_moxi.MoXIInsertion`.
            Default: ``"log_odds"``
        fractions (Sequence[float] or Tensor, optional): The fractions of the players to evaluate, ascending, from 0
            to 1. Each is rounded to the nearest number of players: 0.04 of 196 players is 8.
            Default: None, every number of players
        perturbations_per_eval (int, optional): As in :class:`captum_moxi.MoXIInsertion`.
            Default: None
        show_progress (bool, optional): Whether to show a progress bar over the rows.
            Default: False

    Returns:
        Curve: The curve, on the CPU.

    Raises:
        ValueError: If ``attributions`` do not fit the inputs, contain non-finite values, or name a player that an
            example does not have or that was already named; if ``fractions`` are out of range or order; or for the
            reasons listed in :class:`captum_moxi.MoXIInsertion`.
        TypeError: If ``attributions`` or another argument has the wrong type.

    Examples::

        >>> attr = MoXIInsertion(model).attribute(x, target=y)
        >>> curve = insertion_curve(model, x, attributions=attr, target=y)
        >>> curve.area(), curve.flip_fraction
        >>> attr = GradCam(model).attribute(x, target=y)
        >>> grad_cam = insertion_curve(model, x, attributions=attr, target=y)
    """
    with preserved_state(forward_func, input_devices(inputs)):
        game = CoalitionGame(
            forward_func,
            inputs,
            baselines=baselines,
            target=target,
            additional_forward_args=additional_forward_args,
            feature_mask=feature_mask,
            removal=removal,
            reward=reward,
            perturbations_per_eval=perturbations_per_eval,
        )
        return play_curve(game, attributions, "insertion", fractions=fractions, show_progress=show_progress)


def deletion_curve(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    *,
    attributions: Attributions,
    target: Target = None,
    baselines: Baselines = None,
    additional_forward_args: ForwardArgs = None,
    feature_mask: TensorOrTuple | None = None,
    removal: Removal | str | None = None,
    reward: str | Reward = "log_odds",
    fractions: Sequence[float] | Tensor | None = None,
    perturbations_per_eval: int | None = None,
    show_progress: bool = False,
) -> Curve:
    r"""
    Delete the players from all to none, highest attribution first, and record the model's output.

    This is the deletion game of Petsiuk et al. (RISE, BMVC 2018). Arguments, return value and errors are those of
    :func:`insertion_curve`.

    Examples::

        >>> attr, selection = MoXIDeletion(model).attribute(x, target=y, n_steps=20, return_selection=True)
        >>> deletion_curve(model, x, attributions=selection, target=y, fractions=[0, 0.05, 0.1]).accuracy
    """
    with preserved_state(forward_func, input_devices(inputs)):
        game = CoalitionGame(
            forward_func,
            inputs,
            baselines=baselines,
            target=target,
            additional_forward_args=additional_forward_args,
            feature_mask=feature_mask,
            removal=removal,
            reward=reward,
            perturbations_per_eval=perturbations_per_eval,
        )
        return play_curve(game, attributions, "deletion", fractions=fractions, show_progress=show_progress)


def play_curve(
    game: CoalitionGame,
    attributions: Attributions,
    mode: Mode,
    *,
    fractions: Sequence[float] | Tensor | None = None,
    show_progress: bool = False,
) -> Curve:
    """Compute the curve of an attribution on an existing game.

    Args:
        game (CoalitionGame): The game.
        attributions (Tensor, tuple[Tensor, ...] or Selection): As in :func:`insertion_curve`.
        mode (str): ``"insertion"`` or ``"deletion"``.
        fractions (Sequence[float] or Tensor, optional): As in :func:`insertion_curve`.
            Default: None, every number of players
        show_progress (bool, optional): Whether to show a progress bar over the rows.
            Default: False

    Returns:
        Curve: The curve, on the CPU.
    """
    if fractions is None:
        points = torch.arange(game.n_players + 1).double() / game.n_players
    else:
        points = parse_fractions(fractions)
    positions = rank_positions(game, attributions)
    counts = (points * game.exists.sum(1, keepdim=True) + 0.5).floor().long()
    outcome = _evaluate_counts(game, positions, counts, mode, show_progress=show_progress)
    correct = torch.zeros_like(outcome.predictions, dtype=torch.bool)
    flipped = correct
    if game.targets is not None:
        target = game.targets[:, None]
        correct = outcome.predictions == target
        flipped = has_flipped(mode, outcome.predictions, outcome.confidences, target=target, min_confidence=0.0)
    return Curve(
        mode=mode,
        fractions=points,
        counts=counts,
        rewards=outcome.rewards,
        confidences=outcome.confidences,
        predictions=outcome.predictions,
        correct=correct,
        flip_fraction=points[flipped.long().argmax(1)].masked_fill(~flipped.any(1), torch.nan),
    )


def _evaluate_counts(
    game: CoalitionGame, positions: Tensor, counts: Tensor, mode: Mode, *, show_progress: bool
) -> Outcome:
    """Evaluate each example with its first players inserted or deleted: ``(B, P)`` counts to ``(B, P)`` values."""
    steps = _steps(game, positions)
    examples = torch.arange(game.n_examples)[:, None].expand_as(counts)
    # Fractions that round to the same number of players share a row.
    rows, row_of_point = torch.stack([examples, counts], 2).flatten(0, 1).unique(dim=0, return_inverse=True)
    # Rows with equally many players stand together, because they can share a pass.
    by_count = rows[:, 1].argsort(stable=True)
    outcomes: list[Outcome] = []
    with tqdm(total=len(rows), desc=f"{mode} curve", unit=" rows", leave=None, disable=not show_progress) as bar:
        for block in by_count.split(BLOCK_ROWS):
            owners, n_moved = rows[block].unbind(1)
            moved = steps[owners] < n_moved[:, None]
            coalitions = moved if mode == "insertion" else game.exists[owners] & ~moved
            outcomes.append(game.outcome(coalitions, owners))
            bar.update(len(block))
    places = by_count.argsort()[row_of_point].reshape(counts.shape)
    return Outcome(
        rewards=torch.cat([outcome.rewards for outcome in outcomes])[places],
        confidences=torch.cat([outcome.confidences for outcome in outcomes])[places],
        predictions=torch.cat([outcome.predictions for outcome in outcomes])[places],
    )


def _steps(game: CoalitionGame, positions: Tensor) -> Tensor:
    """Return the step at which each player moves, ``(B, n)`` int64; n for players that an example does not have."""
    steps = torch.full(game.exists.shape, game.n_players)
    examples, step = (positions >= 0).nonzero(as_tuple=True)
    steps[examples, positions[examples, step]] = step
    return steps
