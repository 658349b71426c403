"""MoXILocalization: where a class is in an image, even if the model predicts another class."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, overload

import torch
from captum.attr import PerturbationAttribution
from torch import Tensor

from captum_moxi.arguments import (
    Baselines,
    ForwardArgs,
    Mode,
    Model,
    Target,
    TensorOrTuple,
    check_positive_int,
    input_devices,
)
from captum_moxi.attr.progress import plan_search, search_advice, search_progress
from captum_moxi.attr.scores import score_players
from captum_moxi.attr.usage import Inputs, log_usage, match_inputs
from captum_moxi.game import CoalitionGame
from captum_moxi.models import as_forward_func, preserved_state
from captum_moxi.players import scores_to_inputs
from captum_moxi.removal import Removal, get_removal
from captum_moxi.rewards import ExampleReward, Reward, get_reward
from captum_moxi.search import Progress, Selection, greedy, minimal_selection
from captum_moxi.search.screens import AnyScreen, get_screen

# The selections of the first and of the second deletion.
Selections: TypeAlias = tuple[Selection, Selection]


class MoXILocalization(PerturbationAttribution):
    r"""
    The location of a class in an image, even if the model predicts another class.

    The method consists of two greedy deletions (Sumiyasu, Kawamoto and Kera, 'Identifying Important Group of Pixels
    using Interactions', CVPR 2024, Appendix F and Figure 5). The first deletion removes the players that support the
    predicted class :math:`p` and oppose the target :math:`t`, until the target is predicted. It decreases

    .. math::
        \log \frac{P(p)}{1 - P(p)} - \log \frac{P(t)}{1 - P(t)}

    The second deletion starts from the remaining players. It removes the players that support the target, by decreasing
    the target's log-odds until the target is no longer predicted. The attributions show the second deletion. The
    appendix omits the logarithm of the second term. Here, both terms are log-odds.

    If the target is the predicted class, the first deletion removes no player, and the result is that of
    :class:`captum_moxi.MoXIDeletion` with ``stop="flip"``.

    Examples::

        >>> localization = MoXILocalization(model, screen=GradientScreen(8))
        >>> # where is the cat in an image that the model calls a dog?
        >>> attr = localization.attribute(x, target=cat)
        >>> attr, (first, second) = localization.attribute(x, target=cat, return_selection=True)
        >>> first.flipped  # whether the first deletion made the model predict a cat
    """

    def __init__(
        self,
        forward_func: Model,
        *,
        reward: str | Reward = "log_odds",
        removal: Removal | str | None = None,
        screen: AnyScreen | str | None = None,
        beam_width: int = 1,
    ) -> None:
        r"""
        Args:
            forward_func (Callable): As in :class:`captum_moxi.MoXIDeletion`. The model must have at least two classes.
            reward (str or Callable, optional): The quantity :math:`f` in which the classes are compared. The first
                        deletion decreases :math:`f(p) - f(t)`, the second :math:`f(t)`. It must depend on the target.
                        The values are those of :class:`captum_moxi.MoXIDeletion`.
                        Default: ``"log_odds"``
            removal (Removal or str, optional): As in :class:`captum_moxi.MoXIDeletion`.
                        Default: None
            screen (Screen or str, optional): As in :class:`captum_moxi.MoXIDeletion`. It is used in both deletions.
                        Default: None
            beam_width (int, optional): As in :class:`captum_moxi.MoXIDeletion`. It is used in both deletions.
                        Default: 1

        Raises:
            ValueError: If ``reward``, or the name of a removal or screen, is unknown, or if ``beam_width`` is less than
                        1.
            TypeError: If ``forward_func``, ``removal``, ``screen`` or ``beam_width`` has the wrong type.
        """
        super().__init__(as_forward_func(forward_func))
        get_reward(reward)
        check_positive_int("beam_width", beam_width)
        self.reward = reward
        self.removal = get_removal(removal)
        self.screen = get_screen(screen)
        self.beam_width = beam_width

    @overload
    def attribute(
        self,
        inputs: Inputs,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: ForwardArgs = None,
        feature_mask: TensorOrTuple | None = None,
        *,
        n_steps: int | None = None,
        minimal: bool = False,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        return_selection: Literal[False] = False,
    ) -> Inputs: ...

    @overload
    def attribute(
        self,
        inputs: Inputs,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: ForwardArgs = None,
        feature_mask: TensorOrTuple | None = None,
        *,
        n_steps: int | None = None,
        minimal: bool = False,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        return_selection: Literal[True],
    ) -> tuple[Inputs, Selections]: ...

    @overload
    def attribute(
        self,
        inputs: Inputs,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: ForwardArgs = None,
        feature_mask: TensorOrTuple | None = None,
        *,
        n_steps: int | None = None,
        minimal: bool = False,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        return_selection: bool = False,
    ) -> Inputs | tuple[Inputs, Selections]: ...

    @log_usage()
    def attribute(
        self,
        inputs: Inputs,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: ForwardArgs = None,
        feature_mask: TensorOrTuple | None = None,
        *,
        n_steps: int | None = None,
        minimal: bool = False,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        return_selection: bool = False,
    ) -> Inputs | tuple[Inputs, Selections]:
        r"""
        Args:
            inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval, show_progress: As
                        in :meth:`captum_moxi.MoXIDeletion.attribute`. The target is required.
            n_steps (int, optional): Maximum number of players that each of the two deletions removes. None removes as
                        many as needed.
                        Default: None
            minimal (bool, optional): Whether each of the two deletions, after its flip, leaves out the players whose
                        deletion the flip does not need, as in :meth:`captum_moxi.MoXIDeletion.attribute`.
                        Default: False
            return_selection (bool, optional): Whether to also return the selections of both deletions.
                        Default: False

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, or a tuple of **attributions** and **selections**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*): The score of each value's player, in the shape and on
              the device of the inputs. The player that the second deletion removed at step k of K gets (K - k + 1) / K.
              All other players get 0. All scores of an example are 0 if the first deletion did not make the model
              predict the target. float32, or float64 if the model returns float64. A tuple if ``inputs`` is a tuple.
            - **selections** (*tuple[Selection, Selection]*): The selections of the first and of the second deletion.
              The rewards of the first selection are the difference above. Its field ``flipped`` shows whether the
              target became the predicted class. Returned if ``return_selection`` is True.

        Raises:
            ValueError: If the target is missing, if the model returns a single logit, and in the cases of
                        :meth:`captum_moxi.MoXIDeletion.attribute`.
            TypeError: If an argument has the wrong type.
        """
        if n_steps is not None:
            check_positive_int("n_steps", n_steps)
        if target is None:
            raise ValueError("target is None; pass the class to locate")
        # Screens may compute gradients, which tensors created in inference mode do not support.
        with preserved_state(self.forward_func, input_devices(inputs)), torch.inference_mode(False), torch.no_grad():
            game = CoalitionGame(
                self.forward_func,
                inputs,
                baselines=baselines,
                target=target,
                additional_forward_args=additional_forward_args,
                feature_mask=feature_mask,
                removal=self.removal,
                reward=self.reward,
                perturbations_per_eval=perturbations_per_eval,
            )
            _check_classes(game)
            selections = self._search(game, n_steps=n_steps, minimal=minimal, show_progress=show_progress)
        scores = score_players(selections[1], game, score="rank")
        attributions = match_inputs(scores_to_inputs(scores, game.call.players, game.call.inputs), inputs)
        return (attributions, selections) if return_selection else attributions

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the class. Captum would insert a space before each capital letter."""
        return cls.__name__

    def _search(self, game: CoalitionGame, *, n_steps: int | None, minimal: bool, show_progress: bool) -> Selections:
        """Run both deletions."""
        reward = PredictedOverTarget(game.head.reward(get_reward(self.reward)), game.full.predictions)
        # The second deletion starts where the first ended, so both together delete each player at most once.
        plan = plan_search(
            self.get_name(),
            game,
            "deletion",
            n_steps=None if n_steps is None else 2 * n_steps,
            is_exact=False,
            beam_width=self.beam_width,
            may_skip=self.screen is not None,
            advice=search_advice(
                game,
                "deletion",
                n_steps=n_steps,
                can_stop=False,
                has_screen=self.screen is not None,
                beam_width=self.beam_width,
            ),
        )
        with search_progress(plan, show=show_progress) as progress:
            delete = partial(self._delete, n_steps=n_steps, minimal=minimal, progress=progress)
            first = delete(game.with_reward(reward), flip="insertion")
            second = delete(game.restrict(_remaining_players(game, first)), flip="deletion")
        return first, second

    def _delete(
        self, game: CoalitionGame, *, flip: Mode, n_steps: int | None, minimal: bool, progress: Progress
    ) -> Selection:
        """Delete players until the prediction flips."""

        def search(candidates: Tensor | None) -> Selection:
            return greedy(
                game,
                "deletion",
                n_steps=n_steps,
                stop="flip",
                flip=flip,
                screen=self.screen,
                beam_width=self.beam_width,
                candidates=candidates,
                progress=progress,
            )

        if not minimal:
            return search(None)
        return minimal_selection(search, game, "deletion", flip=flip, progress=progress)


@dataclass(frozen=True)
class PredictedOverTarget(ExampleReward):
    """The reward of the class that the model predicts for the whole input, minus the reward of the target.

    If no class is predicted instead of the target, because each class has a sigmoid of its own, the reward of the
    predicted class is 0.

    Args:
        reward (Callable): Reward of one class.
        predictions (Tensor): Predicted class of each example, or -1. Shape ``(B,)``, int64, on the CPU.
    """

    reward: Reward
    predictions: Tensor

    def __call__(self, logits: Tensor, target: Tensor, examples: Tensor) -> Tensor:
        """Return the difference for each row. See :class:`captum_moxi.rewards.ExampleReward`."""
        predictions = self.predictions[examples].to(logits.device)
        predicted = self.reward(logits, predictions.clamp(min=0)).masked_fill(predictions < 0, 0)
        return predicted - self.reward(logits, target)


def _check_classes(game: CoalitionGame) -> None:
    if game.targets is None or (bool((game.full.predictions < 0).any()) and not game.head.is_independent):
        raise ValueError("forward_func returns a single logit; pass a model with one logit for each class")


def _remaining_players(game: CoalitionGame, selection: Selection) -> Tensor:
    """Return which players of each example were not chosen, ``(B, n)`` bool."""
    examples, steps = (selection.order >= 0).nonzero(as_tuple=True)
    remaining = game.exists.clone()
    remaining[examples, game.positions_of(selection.order[examples, steps])] = False
    return remaining
