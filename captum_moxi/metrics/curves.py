"""Insertion and deletion curves: the model's output as players are inserted or deleted in a given order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_moxi.arguments import Baselines, ForwardArgs, Mode, Model, Target, TensorOrTuple, input_devices
from captum_moxi.game import CoalitionGame, Outcome
from captum_moxi.metrics.ordering import Attributions, parse_fractions, rank_positions
from captum_moxi.models import preserved_state
from captum_moxi.removal import Removal
from captum_moxi.rewards import Reward
from captum_moxi.search import has_flipped
from captum_moxi.tables import html_table

# Fractions of the players are equal if they differ by at most this value.
TOLERANCE = 1e-9

Quantity: TypeAlias = Literal["confidences", "rewards", "correct"]

# Number of rows between two updates of the progress bar.
BLOCK_ROWS = 256


@dataclass(frozen=True, eq=False)
class Curve:
    """The model's output after P fractions of the players were inserted or deleted, for B examples.

    All tensors are on the CPU.

    Args:
        mode (str): ``"insertion"`` or ``"deletion"``.
        fractions (Tensor): Fractions of the players that were inserted or deleted, ascending. Shape ``(P,)``, float64.
        counts (Tensor): Number of inserted or deleted players, rounded to the nearest integer. Shape ``(B, P)``, int64.
        rewards (Tensor): Rewards. Shape ``(B, P)``, in the dtype of the reward.
        confidences (Tensor): P(target). Shape ``(B, P)``, floating. NaN if there is no target.
        predictions (Tensor): Predicted class. Shape ``(B, P)``, int64. For a single logit, 0 if it is positive and -1
            otherwise.
        correct (Tensor): Whether the target is the predicted class. Shape ``(B, P)``, bool. False if there is no
            target.
        flip_fraction (Tensor): First fraction at which the prediction is flipped: the target is the predicted class
            (insertion), or is not (deletion). Shape ``(B,)``, float64. NaN if there is no such fraction.
    """

    mode: Mode
    fractions: Tensor
    counts: Tensor
    rewards: Tensor
    confidences: Tensor
    predictions: Tensor
    correct: Tensor
    flip_fraction: Tensor

    def __repr__(self) -> str:
        n_examples, n_points = self.rewards.shape
        area = float(self.area().mean())
        return (
            f"Curve({self.mode}, {n_examples} example{'' if n_examples == 1 else 's'} at {n_points} fractions; "
            f"mean area {area:.3f})"
        )

    def _repr_html_(self) -> str:
        """Return a table of means over the examples, at up to 11 fractions, which a notebook shows."""
        means = (self.accuracy, self.confidences.double().mean(0), self.rewards.double().mean(0))
        points = torch.linspace(0, len(self.fractions) - 1, min(11, len(self.fractions))).round().long().tolist()
        rows = [[f"{100 * float(self.fractions[i]):.3g} %", *(float(mean[i]) for mean in means)] for i in points]
        return html_table(repr(self), [f"{self.mode} of players", "accuracy", "confidence", "reward"], rows)

    @property
    def accuracy(self) -> Tensor:
        """Share of examples with a correct prediction at each fraction. Shape ``(P,)``, float64."""
        return self.correct.double().mean(0)

    def area(self, quantity: Quantity = "confidences") -> Tensor:
        """Compute the area under the curve of each example with the trapezoidal rule.

        The area is divided by the range of the fractions, so it is the mean of the curve. It is from 0 to 1 for
        ``"confidences"`` and ``"correct"``. A larger area is better for insertion, and a smaller area for deletion.

        Args:
            quantity (str, optional): ``"confidences"``, ``"rewards"`` or ``"correct"``.
                Default: ``"confidences"``

        Returns:
            Tensor: Area of each example. Shape ``(B,)``, float64.

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
        """Concatenate curves of the same mode and fractions along the examples.

        Args:
            curves (Sequence[Curve]): One or more curves.

        Returns:
            Curve: Curve of all examples.
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
    forward_func: Model,
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

    The attribution of a player is the mean over its values. Players with equal attributions are ordered by id.

    Args:
        forward_func (Callable): Model, as in :class:`captum_moxi.MoXIInsertion`.
        inputs (Tensor or tuple[Tensor, ...]): Inputs of B examples, with the examples along dimension 0.
        attributions (Tensor, tuple[Tensor, ...] or Selection): The order of the players of each example, in one of
            these forms:

            - A map with the shape of the inputs, or broadcastable to it. For images, the map may have another height
              and width, for example ``(B, 1, 14, 14)`` for a layer. It is resized to the image by
              ``captum.attr.LayerAttribution.interpolate`` in mode ``"nearest"``.
            - Floating-point scores ``(B, n)``, one for each player, in ascending order of the player ids. A tensor with
              the shape of the inputs is always a map.
            - A ranking ``(B, K)`` of player ids, in an integer dtype, first to last. Shorter rows end with -1.
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
        removal (Removal or str, optional): How absent players are removed: a removal or its name, for example
            ``"blur"``.
            Default: None, token removal if the model has patch tokens, otherwise baseline fill
        reward (str or Callable, optional): As in :class:`captum_moxi.MoXIInsertion`.
            Default: ``"log_odds"``
        fractions (Sequence[float] or Tensor, optional): Fractions of the players at which the model is evaluated, from
            0 to 1, ascending. Each fraction is rounded to the nearest number of players: 0.04 of 196 players is 8.
            Default: None, every number of players
        perturbations_per_eval (int, optional): As in :class:`captum_moxi.MoXIInsertion`.
            Default: None
        show_progress (bool, optional): Whether to show a progress bar that counts the evaluated rows.
            Default: False

    Returns:
        Curve: Curve of the B examples.

    Raises:
        ValueError: If ``attributions`` has the wrong shape, contains non-finite values, or names a player twice or one
            that the example does not have; if ``fractions`` is out of range or not ascending; and in the cases of
            :meth:`captum_moxi.MoXIInsertion.attribute`.
        TypeError: If an argument has the wrong type.

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
    forward_func: Model,
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

    This is the deletion game of Petsiuk et al. (RISE, BMVC 2018). The arguments, the return value and the errors are
    those of :func:`insertion_curve`.

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
        game (CoalitionGame): Game.
        attributions (Tensor, tuple[Tensor, ...] or Selection): As in :func:`insertion_curve`.
        mode (str): ``"insertion"`` or ``"deletion"``.
        fractions (Sequence[float] or Tensor, optional): As in :func:`insertion_curve`.
            Default: None, every number of players
        show_progress (bool, optional): Whether to show a progress bar that counts the evaluated rows.
            Default: False

    Returns:
        Curve: Curve of the examples of the game.

    Raises:
        ValueError: As in :func:`insertion_curve`, for ``attributions`` and ``fractions``.
        TypeError: If ``attributions`` or ``fractions`` has the wrong type.
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
    """Evaluate each example after its first ``counts`` players were inserted or deleted.

    Returns:
        Outcome: Tensors of shape ``(B, P)``, that of ``counts``.
    """
    steps = _steps(game, positions)
    examples = torch.arange(game.n_examples)[:, None].expand_as(counts)
    # Fractions that round to the same number of players share a row.
    rows, row_of_point = torch.stack([examples, counts], 2).flatten(0, 1).unique(dim=0, return_inverse=True)
    # Rows are sorted by their number of players, because rows of equal size can share a pass.
    by_count = rows[:, 1].argsort(stable=True)
    outcomes: list[Outcome] = []
    with tqdm(total=len(rows), desc=f"{mode} curve", unit=" rows", leave=None, disable=not show_progress) as bar:
        for block in by_count.split(BLOCK_ROWS):
            row_examples, n_moved = rows[block].unbind(1)
            moved = steps[row_examples] < n_moved[:, None]
            coalitions = moved if mode == "insertion" else game.exists[row_examples] & ~moved
            outcomes.append(game.outcome(coalitions, row_examples))
            bar.update(len(block))
    outcome_of_point = by_count.argsort()[row_of_point].reshape(counts.shape)
    return Outcome(
        rewards=torch.cat([outcome.rewards for outcome in outcomes])[outcome_of_point],
        confidences=torch.cat([outcome.confidences for outcome in outcomes])[outcome_of_point],
        predictions=torch.cat([outcome.predictions for outcome in outcomes])[outcome_of_point],
    )


def _steps(game: CoalitionGame, positions: Tensor) -> Tensor:
    """Return the step, from 0, at which each player is inserted or deleted, ``(B, n)`` int64.

    It is n for players that an example does not have.
    """
    steps = torch.full(game.exists.shape, game.n_players)
    examples, step = (positions >= 0).nonzero(as_tuple=True)
    steps[examples, positions[examples, step]] = step
    return steps
