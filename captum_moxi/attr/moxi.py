"""MoXIInsertion and MoXIDeletion: the search as Captum attributions."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Tensor
from tqdm.auto import tqdm

from captum_moxi import models
from captum_moxi.arguments import check_positive_int, devices
from captum_moxi.game import CoalitionGame
from captum_moxi.players import collect_scores, spread_scores
from captum_moxi.removal import Removal, check_removal
from captum_moxi.rewards import Reward, get_reward
from captum_moxi.screens import Screen
from captum_moxi.search import Mode, Selection, greedy, rank

TensorOrTensors = Tensor | tuple[Tensor, ...]

SCORES = ("rank", "gain")
STOPS = (None, "flip")


class _MoXI(PerturbationAttribution):
    """What insertion and deletion share: everything but the direction of the search."""

    mode: Mode

    def __init__(
        self,
        forward_func: Callable[..., Any],
        reward: str | Reward = "log_odds",
        removal: Removal | None = None,
        interactions: bool = True,
        candidates: Screen | None = None,
        beam_width: int = 1,
    ) -> None:
        r"""
        Args:
            forward_func (Callable): The model: a transformers image classifier as it is (also in DataParallel or
                        compiled), or any function or module that returns logits ``(B, classes)``, one logit
                        ``(B,)`` or ``(B, 1)``, or one value for the whole batch, as a tensor or a number.
            reward (str or Callable, optional): What the search raises or lowers: ``"log_odds"`` (the paper, Eq. 3),
                        ``"log_probability"``, ``"probability"``, ``"logit"``, ``"output"`` (what Captum's own classes
                        attribute), ``captum_moxi.rewards.contrast(a, b)``, or a function
                        ``(logits, target) -> rewards`` of shapes ``(rows, classes)``, ``(rows,)`` and ``(rows,)``.
                        Default: ``"log_odds"``
            removal (Removal, optional): How absent players are taken away: ``TokenRemoval()``,
                        ``AttentionRemoval(from_layer)`` or ``BaselineRemoval()``.
                        By default token removal where the model has patch tokens and no baselines are given, else
                        baseline fill.
                        Default: None
            interactions (bool, optional): False ranks the players by their Shapley value alone: MoXI(-).
                        Default: True
            candidates (Screen, optional): Which candidates a step evaluates: :class:`captum_moxi.GradientScreen`
                        (best for deletion), :class:`captum_moxi.LastGainsScreen` or :class:`captum_moxi.RandomScreen`
                        (any forward function), each the m most promising; :class:`captum_moxi.HalfPrecisionScreen`, on
                        a GPU. What each step evaluated and skipped is in the selection's ``n_evaluated`` and
                        ``skipped``.
                        Default: None, all of them: the exact search
            beam_width (int, optional): How many groups of players the search keeps at every step: greedy search's own
                        and the best beside it, at that many times the forward rows. The selection is the best group's
                        of the last step, whose reward is never worse than that of ``beam_width=1`` after as many steps;
                        with ``stop="flip"`` it never takes more steps. Earlier steps of it may be worse than greedy's.
                        Default: 1

        Raises:
            ValueError: an unknown reward; a beam_width below 1; candidates or a beam with ``interactions=False``.
            TypeError: a removal or candidates that are none; a beam_width that is no int.
        """
        super().__init__(forward_func)
        # what is unknown is told here, not at the first use
        get_reward(reward)
        check_removal(removal)
        _check_search(interactions, candidates, beam_width)
        self.reward = reward
        self.removal = removal
        self.interactions = interactions
        self.candidates = candidates
        self.beam_width = beam_width

    @log_usage()
    def attribute(
        self,
        inputs: TensorOrTensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: TensorOrTensors | None = None,
        n_steps: int | None = None,
        stop: Literal["flip"] | None = None,
        min_confidence: float = 0.0,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        score: Literal["rank", "gain"] = "rank",
        return_selection: bool = False,
        return_convergence_delta: bool = False,
    ) -> Any:
        r"""
        Choose players one after another and score each by when, or by how much, it was chosen.

        A search through all n players takes n (n + 1) / 2 forward rows an example; ``stop`` and ``n_steps`` bound it.
        forward_func must return logits: probabilities would be taken for logits.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): The examples to explain, dimension 0 being the batch ``(B, ...)``;
                        a tuple if forward_func takes several tensors. Any dtype that the model takes.
            baselines (scalar, Tensor, tuple of scalar or Tensor, optional): What an absent player's values are
                        replaced by, under baseline fill: a number or tensor for every input tensor, of its shape or
                        broadcastable to it. Passing any chooses baseline fill where ``removal`` is None; token
                        removal and attention masking use none and refuse them.
                        Default: None, which fills with 0 where a fill is needed
            target (int, tuple, Tensor or list, optional): The class to explain: an int or a tensor with one entry for
                        all examples; a list of ints or a tensor ``(B,)`` for each; a tuple, or a list of tuples, for
                        outputs of more than two dimensions, the class first. None where the model returns one value
                        an example, a sigmoid classifier's logit for the positive class, or where the reward needs none.
                        Default: None
            additional_forward_args (Any, optional): What follows the inputs in the call of forward_func, an argument
                        or a tuple of them. A tensor whose first dimension is B follows its example; anything else is
                        passed as it is.
                        Default: None
            feature_mask (Tensor or tuple[Tensor, ...], optional): The players: whole numbers from 0 of the shape
                        of each input tensor or broadcastable to it; values with the same number, also across tensors,
                        are one player. Ids may have gaps. A first dimension of B gives each example players of its
                        own. See :func:`captum_moxi.patch_mask`.
                        By default the patches of a transformers image model (ViT, DeiT, DINOv2: its own; others:
                        16 x 16 pixels), else every value is a player, up to 600 of them.
                        Default: None
            n_steps (int, optional): The most players to choose.
                        Default: None, all of them
            stop (str, optional): ``"flip"`` stops each example at the first step, or before it, at which the
                        prediction flips: insertion where the target becomes the predicted class with a confidence
                        above ``min_confidence``, deletion where the target is no longer predicted.
                        Default: None
            min_confidence (float, optional): The confidence, from 0 to 1, that the target must exceed for insertion
                        to flip: the paper's tau. Deletion does not look at it.
                        Default: 0.0
            perturbations_per_eval (int, optional): One forward pass has at most perturbations_per_eval * B rows; under
                        baseline fill, whole copies of the batch, as in Captum. The result does not depend on it, if
                        a row's does not on the rows beside it. It must be 1 where forward_func returns one value
                        for the whole batch.
                        Default: None, what the memory there is allows
            show_progress (bool, optional): Show a progress bar over forward rows, with the time left.
                        Default: False
            score (str, optional): ``"rank"``: the player chosen at step k of an example's K gets (K - k + 1) / K,
                        players never chosen 0. ``"gain"``: the rise (insertion) or fall (deletion) of the reward at its
                        step, in the model's output dtype where that is floating; over a run through all players
                        the scores, each player's counted once, sum to :math:`f(N) - f(\emptyset)`.
                        Default: ``"rank"``
            return_selection (bool, optional): Return the :class:`Selection` as well: the order, and reward,
                        confidence, prediction, Shapley value and interaction at every step.
                        Default: False
            return_convergence_delta (bool, optional): Return last what :meth:`compute_convergence_delta` says of
                        these attributions, which must then be of ``score="gain"``.
                        Default: False

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, or a tuple of **attributions** and what was asked
            for of **selection** and **delta**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*): The score of every value's player, in the shape
              and on the device of the inputs; first dimension 1 where forward_func returns one value for the whole
              batch. Floating; ``"gain"`` has the dtype of the model's output.
            - **selection** (*Selection*): On the CPU, if ``return_selection`` is True.
            - **delta** (*Tensor*): ``(B,)``, if ``return_convergence_delta`` is True.

        Raises:
            ValueError: Before any forward pass: an unknown stop or score, n_steps or perturbations_per_eval below 1,
                        an empty batch, inputs that are not finite, a target out of range or of the wrong length, a
                        mask or baseline that does not fit, a mask that cuts a patch under token removal, too many
                        players. After the first, where only it tells: a missing target, or one beyond the model's
                        classes (of a transformers model its config tells before). During the search: logits that are
                        not finite, with the coalition named.
            TypeError: An argument of the wrong type.
        """
        _check_options(n_steps, stop, min_confidence, score, return_convergence_delta)
        layer = models.random_layer(self.forward_func)
        if layer is not None:
            warnings.warn(
                f"the model is in training mode and its {layer} makes one forward pass differ from the next; "
                "call model.eval() for a selection that can be repeated",
                stacklevel=3,  # past Captum's log_usage, to the line that called attribute
            )
        # tensors made in inference mode could not be differentiated with, which some screens do
        with models.unchanged(self.forward_func, devices(inputs)), torch.inference_mode(False), torch.no_grad():
            game = self._game(inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval)
            if stop == "flip" and game.targets is None:
                raise ValueError("stop is 'flip' and target is None; pass the target whose prediction flips")
            search: Callable[..., Selection] = rank
            if self.interactions:
                search = functools.partial(greedy, screen=self.candidates, beam_width=self.beam_width)
            # where it may stop early or skip some, nobody knows the time left
            knows = stop is None and self.candidates is None and self.beam_width == 1
            most = _most_rows(game, n_steps, self.interactions) if knows else None
            with tqdm(total=most, desc=self.get_name(), unit=" forwards", leave=None, disable=not show_progress) as bar:
                selection = search(game, self.mode, n_steps, stop, min_confidence, bar.update)
        lost = (selection.n_steps == 0).nonzero().flatten().tolist()
        if self.mode == "deletion" and stop == "flip" and lost:
            warnings.warn(
                f"the target is not the predicted class of example {', '.join(map(str, lost))}: there is nothing to "
                "delete to the flip; pass the predicted class (of a single logit below 0, negate it), or see where the "
                "target is by MoXILocalization",
                stacklevel=3,
            )
        if score == "gain":
            kept = game.output_dtype.is_floating_point
            dtype = game.output_dtype if kept else game.full.rewards.dtype
            scores = _by_player(selection.gains, selection, game.ids).to(dtype)
        else:
            # half precision does not hold some hundred ranks apart
            dtype = torch.promote_types(torch.float32, game.output_dtype)
            scores = rank_scores(selection, game.ids).to(dtype)
        attributions = spread_scores(scores, game.call.players, game.call.inputs)
        results: list[Any] = [attributions if isinstance(inputs, tuple) else attributions[0]]
        if return_selection:
            results.append(selection)
        if return_convergence_delta:
            with models.unchanged(self.forward_func, devices(inputs)):
                results.append(_convergence_delta(attributions, game))
        return results[0] if len(results) == 1 else tuple(results)

    def attribute_future(self, *args: Any, **kwargs: Any) -> Any:
        """Not there: each step of the search needs the values of the one before."""
        raise NotImplementedError(
            f"{self.get_name()} has no attribute_future, since each step of its search waits for the one before; "
            "call attribute"
        )

    def has_convergence_delta(self) -> bool:
        """True: see :meth:`compute_convergence_delta`."""
        return True

    def compute_convergence_delta(
        self,
        attributions: TensorOrTensors,
        inputs: TensorOrTensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: TensorOrTensors | None = None,
        perturbations_per_eval: int | None = None,
    ) -> Tensor:
        r"""
        By how much attributions of ``score="gain"`` miss :math:`f(N) - f(\emptyset)`, summed over players.

        Zero, but for rounding, for a search that went through all players; otherwise what its steps left over.

        Args:
            attributions (Tensor or tuple[Tensor, ...]): What ``attribute(..., score="gain")`` returned.
            inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval: What it was
                        called with.

        Returns:
            Tensor: ``(B,)`` of deltas, the sum of the players' scores less f(N) - f(empty).

        Raises:
            ValueError: attributions that do not have the inputs' shape.
        """
        with models.unchanged(self.forward_func, devices(inputs)):
            game = self._game(inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval)
            return _convergence_delta(attributions if isinstance(attributions, tuple) else (attributions,), game)

    @classmethod
    def get_name(cls) -> str:
        """The class's name; Captum would put a space before each of its capitals."""
        return cls.__name__

    def _game(
        self, inputs: Any, baselines: Any, target: Any, args: Any, mask: Any, per_eval: int | None
    ) -> CoalitionGame:
        return CoalitionGame(
            self.forward_func, inputs, target, baselines, args, mask, self.removal, self.reward, per_eval
        )


class MoXIInsertion(_MoXI):
    r"""
    The group of players that makes a model sure of the target, found by greedy insertion.

    From nothing, every step adds the player with the largest self-context Shapley value plus interaction with the
    players chosen before, which is the player b that raises the reward of the chosen A most
    (Sumiyasu, Kawamoto and Kera, 'Identifying Important Group of Pixels using Interactions', CVPR 2024, Eqs. 4-7 and
    Algorithm 1):

    .. math::
        \phi_{self}(b) + I_{self}(A, b) = f(A \cup b) - f(A)

    Methods that score players one by one rank players that say the same thing all high; here the second of them comes
    when it adds something to the first. A full ranking of n players takes n (n + 1) / 2 forward rows; to the flip
    (``stop="flip"``), a handful of steps on most photographs.

    Examples::

        >>> model = AutoModelForImageClassification.from_pretrained("google/vit-base-patch16-224")
        >>> moxi = MoXIInsertion(model)
        >>> # heat map of the patches that suffice, (1, 3, 224, 224); the first chosen is 1, the others less
        >>> attr = moxi.attribute(x, target=y, stop="flip")
        >>> # the patches themselves, in order, and how sure the model was after each
        >>> attr, selection = moxi.attribute(x, target=y, n_steps=10, return_selection=True)
        >>> selection.order, selection.confidences
    """

    mode: Mode = "insertion"


class MoXIDeletion(_MoXI):
    r"""
    The group of players without which a model loses the target, found by greedy deletion.

    From the whole input, every step takes away the player with the largest full-context Shapley value plus
    interaction with the players taken before, which is the player b whose absence lowers the reward most
    (Sumiyasu, Kawamoto and Kera, 'Identifying Important Group of Pixels using Interactions', CVPR 2024, Eqs. 8-13 and
    Algorithm 2):

    .. math::
        \phi_{full}(b) + I_{full}(A, b) = f(N \setminus A) - f(N \setminus (A \cup b))

    A full ranking of n players takes n (n + 1) / 2 forward rows, and those of the first steps hold almost the whole
    input: expect it to take several times what insertion does.

    Examples::

        >>> moxi = MoXIDeletion(model, removal=BaselineRemoval("blur"))
        >>> attr = moxi.attribute(x, target=y, stop="flip", feature_mask=patch_mask(224, grid=7))
    """

    mode: Mode = "deletion"


def _check_options(n_steps: int | None, stop: str | None, min_confidence: float, score: str, delta: bool) -> None:
    if n_steps is not None:
        check_positive_int("n_steps", n_steps)
    if stop not in STOPS:
        raise ValueError(f"stop is {stop!r}; pass 'flip' or None")
    if score not in SCORES:
        raise ValueError(f"score is {score!r}; pass 'rank' or 'gain'")
    if delta and score != "gain":
        raise ValueError("return_convergence_delta is True, and ranks have none; pass score='gain' with it")
    if not isinstance(min_confidence, int | float):
        raise TypeError(f"min_confidence is {min_confidence!r}; pass a number from 0 to 1")
    if not 0 <= min_confidence < 1:
        raise ValueError(f"min_confidence is {min_confidence}; pass a confidence of at least 0 and less than 1")


def check_candidates(candidates: Any) -> None:
    if candidates is not None and not isinstance(candidates, Screen):
        raise TypeError(
            f"candidates is {candidates!r}; pass GradientScreen(m), LastGainsScreen(m), RandomScreen(m), "
            "HalfPrecisionScreen() or None for all"
        )


def _check_search(interactions: bool, candidates: Any, beam_width: int) -> None:
    check_positive_int("beam_width", beam_width)
    check_candidates(candidates)
    if not interactions and (candidates is not None or beam_width > 1):
        raise ValueError(
            "interactions is False, which ranks all players at once: there are no candidates to screen and no beam; "
            "pass candidates=None and beam_width=1 with it"
        )


def _most_rows(game: CoalitionGame, n_steps: int | None, interactions: bool) -> int:
    """Forward rows of a search that does not stop early."""
    total = 0
    for players in game.exists.sum(1).tolist():
        steps = players if n_steps is None else min(n_steps, players)
        total += steps * players - steps * (steps - 1) // 2 if interactions else players + steps
    return total


def rank_scores(selection: Selection, ids: Tensor) -> Tensor:
    """``(B, n)`` float64: (K - k + 1) / K for the player of step k of an example's K steps, 0 where never chosen."""
    steps = selection.n_steps[:, None].double()
    return _by_player((steps - torch.arange(selection.order.shape[1])) / steps, selection, ids)


def _by_player(values: Tensor, selection: Selection, ids: Tensor) -> Tensor:
    """Values of steps ``(B, K)`` as scores of players ``(B, n)``, 0 where never chosen."""
    chosen = selection.order >= 0
    scores = torch.zeros(len(values), len(ids), dtype=torch.float64)
    examples, steps = chosen.nonzero(as_tuple=True)
    scores[examples, torch.searchsorted(ids, selection.order[examples, steps])] = values[examples, steps].double()
    return scores


def _convergence_delta(attributions: tuple[Tensor, ...], game: CoalitionGame) -> Tensor:
    """``(B,)``: the sum of the players' scores less f(N) - f(empty)."""
    shapes = [tuple(values.shape) for values in attributions]
    wanted = [(game.n_games, *x.shape[1:]) for x in game.call.inputs]
    if shapes != wanted:
        raise ValueError(f"attributions have shapes {shapes}; pass what attribute returned, {wanted}")
    nobody = torch.zeros(game.n_games, game.n_players, dtype=torch.bool)
    empty = game.outcome(nobody, torch.arange(game.n_games))
    total = collect_scores(attributions, game.call.players, game.call.inputs).sum(1)
    delta = total - (game.full.rewards.double() - empty.rewards.double())
    return delta.to(attributions[0].device, torch.promote_types(game.output_dtype, torch.float32))
