"""MoXIInsertion and MoXIDeletion: MoXI's greedy search as attribution methods, and what all searches share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal, NoReturn, TypeAlias, TypedDict, TypeVar, overload

import torch
from captum.attr import PerturbationAttribution
from torch import Tensor

from captum_moxi.arguments import (
    Baselines,
    ForwardArgs,
    ForwardFunc,
    Model,
    SearchMode,
    Stop,
    Target,
    TensorOrTuple,
    check_min_confidence,
    check_positive_int,
    input_devices,
    paths_of,
    warn_user,
)
from captum_moxi.attr.progress import plan_search, search_advice, search_progress
from captum_moxi.attr.scores import SCORES, Score, score_players
from captum_moxi.attr.usage import Inputs, log_usage, match_inputs
from captum_moxi.game import CoalitionGame
from captum_moxi.models import as_forward_func, find_random_layer, preserved_state
from captum_moxi.players import scores_to_inputs, scores_to_players
from captum_moxi.removal import Removal, get_removal
from captum_moxi.rewards import Reward, get_reward
from captum_moxi.search import (
    Progress,
    SearchAmong,
    Selection,
    disjoint_selections,
    greedy,
    minimal_selection,
    rank_independently,
)
from captum_moxi.search.screens import AnyScreen, get_screen

R = TypeVar("R")

# ``attribute`` returns the attributions, followed by the results that the caller requested in addition.
Results: TypeAlias = Inputs | tuple[Inputs | Selection | Tensor, ...]


class MoXIAttribution(PerturbationAttribution):
    """
    Base class of :class:`MoXIInsertion`, :class:`MoXIDeletion` and :class:`MoXISymmetric`.

    They differ only in what the search maximizes. A subclass sets ``mode``.
    """

    mode: ClassVar[SearchMode]

    def __init__(
        self,
        forward_func: Model,
        *,
        reward: str | Reward = "log_odds",
        removal: Removal | str | None = None,
        interactions: bool = True,
        screen: AnyScreen | str | None = None,
        beam_width: int = 1,
    ) -> None:
        r"""
        Args:
            forward_func (Callable): The model or any function of it. It returns logits, not probabilities, in one of
                        these forms:

                        - a tensor of shape ``(B, classes)``, or with more dimensions after the classes

                        - a single logit for each example, of shape ``(B,)`` or ``(B, 1)``, as sigmoid classifiers do

                        - one value for the whole batch, as a tensor with one element, an int or a float

                        - a transformers output object with ``logits``

                        A transformers image classifier can be passed unchanged, even if it is compiled or wrapped in
                        DataParallel. The object that :func:`captum_moxi.load` returns, and a transformers pipeline, are
                        replaced by their model.
            reward (str or Callable, optional): The quantity :math:`f` that insertion increases and deletion decreases.
                        Either a callable ``(logits, target) -> rewards`` with shapes ``(rows, classes)``, ``(rows,)``
                        and ``(rows,)``, for example :func:`captum_moxi.rewards.contrast`, or one of these names, where
                        P is the confidence of the target:

                        - ``"log_odds"``: log P / (1 - P), as in the paper (Section 3)

                        - ``"log_probability"``: log P

                        - ``"probability"``: P

                        - ``"logit"`` or ``"output"``: the model's output at the target, which Captum's own perturbation
                          methods attribute

                        - ``"contrast:CLASS"``: the target's logit minus the logit of another class, given by index

                        The registry ``captum_moxi.rewards.REWARDS`` lists all names.
                        Default: ``"log_odds"``
            removal (Removal or str, optional): How absent players are removed from the input:
                        :class:`captum_moxi.TokenRemoval`, :class:`captum_moxi.AttentionRemoval` or
                        :class:`captum_moxi.BaselineRemoval`, or a name from the registry
                        ``captum_moxi.removal.REMOVALS``, for example ``"blur"``. If None, token removal is used if the
                        model has patch tokens and no baselines are passed, and baseline fill in all other cases.
                        Default: None
            interactions (bool, optional): Whether each step adds the interaction with the players chosen so far to the
                        Shapley value of a player. False ranks players by their Shapley values alone. The paper calls
                        this variant MoXI(-).
                        Default: True
            screen (Screen or str, optional): Decides which candidates each step evaluates, and so reduces the cost:

                        - :class:`captum_moxi.GradientScreen` selects candidates from one backward pass. It is best for
                          deletion.

                        - :class:`captum_moxi.LastGainsScreen` selects candidates by their last known gain. It works
                          with any forward function, but finds groups that are about 50 % larger.

                        - :class:`captum_moxi.RandomScreen` draws candidates at random.

                        - :class:`captum_moxi.BothEndsScreen` moves the worst candidate of each step to the end of the
                          ranking. It is best for a full ranking by symmetric search.

                        - :class:`captum_moxi.HalfPrecisionScreen` evaluates all candidates in half precision first, for
                          GPUs.

                        A name from the registry ``captum_moxi.search.screens.SCREENS`` is also accepted, for example
                        ``"gradient:8"``. The fields ``n_evaluated`` and ``skipped`` of the selection report what each
                        step evaluated and skipped. With :class:`captum_moxi.AuditedScreen`, the field ``missed`` bounds
                        the gains of the skipped candidates. None evaluates all candidates: the exact greedy search of
                        the paper.
                        Default: None
            beam_width (int, optional): Number of groups of players that the search keeps after each step: the group of
                        greedy search and the best other groups. The cost grows in proportion. The result is the group
                        with the best reward after the last step. Its reward is never worse than that of
                        ``beam_width=1`` after the same number of steps. With ``stop="flip"``, the search never needs
                        more steps. At earlier steps, the reward can be worse.
                        Default: 1

        Raises:
            ValueError: If ``reward``, or the name of a removal or screen, is unknown, if ``beam_width`` is less than 1,
                        or if a screen or a beam is combined with ``interactions=False``.
            TypeError: If ``forward_func``, ``removal``, ``screen`` or ``beam_width`` has the wrong type.
        """
        super().__init__(as_forward_func(forward_func))
        get_reward(reward)
        self.reward = reward
        self.removal = get_removal(removal)
        self.interactions = interactions
        self.screen = get_screen(screen)
        _check_search(interactions, self.screen, beam_width)
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
        stop: Stop = None,
        min_confidence: float = 0.0,
        minimal: bool = False,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        score: Score = "rank",
        return_selection: Literal[False] = False,
        return_convergence_delta: Literal[False] = False,
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
        stop: Stop = None,
        min_confidence: float = 0.0,
        minimal: bool = False,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        score: Score = "rank",
        return_selection: Literal[True],
        return_convergence_delta: Literal[False] = False,
    ) -> tuple[Inputs, Selection]: ...

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
        stop: Stop = None,
        min_confidence: float = 0.0,
        minimal: bool = False,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        score: Score = "rank",
        return_selection: Literal[False] = False,
        return_convergence_delta: Literal[True],
    ) -> tuple[Inputs, Tensor]: ...

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
        stop: Stop = None,
        min_confidence: float = 0.0,
        minimal: bool = False,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        score: Score = "rank",
        return_selection: Literal[True],
        return_convergence_delta: Literal[True],
    ) -> tuple[Inputs, Selection, Tensor]: ...

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
        stop: Stop = None,
        min_confidence: float = 0.0,
        minimal: bool = False,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        score: Score = "rank",
        return_selection: bool = False,
        return_convergence_delta: bool = False,
    ) -> Results[Inputs]: ...

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
        stop: Stop = None,
        min_confidence: float = 0.0,
        minimal: bool = False,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        score: Score = "rank",
        return_selection: bool = False,
        return_convergence_delta: bool = False,
    ) -> Results[Inputs]:
        r"""
        Choose players one after another, and score each player by its rank or by its change in reward.

        A search through all n players evaluates n (n + 1) / 2 coalitions for each example, or twice as many in
        symmetric search. ``stop`` and ``n_steps`` limit the search.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): Examples to explain, of shape ``(B, ...)``, in any dtype that the
                        model accepts. Dimension 0 is the number of examples B. If ``forward_func`` takes a single
                        tensor, pass a tensor. If it takes several tensors, pass a tuple of tensors whose examples are
                        in the same order.
            baselines (scalar, Tensor, tuple of scalar or Tensor, optional): Values that replace those of absent players
                        under baseline fill. They can be provided as:

                        - a single scalar, if ``inputs`` is a single tensor. It replaces every value of the input

                        - a single tensor, if ``inputs`` is a single tensor, with the shape of the input or
                          broadcastable to it

                        - a tuple of scalars and such tensors, one for each tensor of the ``inputs`` tuple

                        If ``removal`` is None, passing baselines selects baseline fill. Token removal and attention
                        masking need no baselines and reject them. If None, baseline fill uses 0.
                        Default: None
            target (int, tuple, Tensor or list, optional): Class to explain. For outputs of shape ``(B, classes)``, it
                        can be provided as:

                        - a single int or a tensor with one element, which applies to all examples

                        - a list of B ints or a tensor of shape ``(B,)``, with the class of each example

                        For outputs with more than two dimensions, where dimension 1 is the class, it can be provided
                        as:

                        - a single tuple with one index for each dimension after the batch, the class first, which
                          applies to all examples

                        - a list of B such tuples

                        No target is needed if the model returns a single value for each example or for the batch, or
                        if a callable ``reward`` does not need one. A single logit belongs to the positive class, whose
                        index is 0.
                        Default: None
            additional_forward_args (Any, optional): Additional arguments of ``forward_func`` that are not explained:
                        one argument that is not a tuple, or a tuple of arguments. They follow the inputs in the call.
                        A tensor whose dimension 0 has size B is indexed by example. All other arguments are passed
                        unchanged in every forward pass.
                        Default: None
            feature_mask (Tensor or tuple[Tensor, ...], optional): Assigns each input value to a player. One tensor for
                        each input tensor, with the shape of the input or broadcastable to it. It contains integers of
                        at least 0, the ids of the players. Values with the same id belong to the same player, even in
                        different tensors. Ids may have gaps. If dimension 0 has size B, each example has its own
                        players.
                        :func:`captum_moxi.patch_mask` creates masks of rectangular patches.
                        If None, the players of a transformers image model are its own patches if it has patch tokens
                        (ViT, DeiT, ViT-MSN, DINOv2). Other transformers image models, such as ResNet, get a grid of 6 x
                        6 players, for which a full ranking takes about a minute on two cores. The paper's 14 x 14 grid
                        is ``patch_mask(224, 16)``. In all other cases, each scalar of an example is a player, up to 600
                        players.
                        Default: None
            n_steps (int, optional): Maximum number of players to choose for each example. None chooses all players.
                        Default: None
            stop (str, optional): ``"flip"`` stops each example as soon as the prediction flips, which can be before the
                        first step. In insertion, the prediction flips when the target becomes the predicted class with
                        a confidence above ``min_confidence``. In deletion, it flips when the target is no longer the
                        predicted class. Symmetric search requires both after the same step: the players chosen so far
                        suffice, and without them the prediction fails.
                        Default: None
            min_confidence (float, optional): Confidence that the target must exceed for a flip in insertion and
                        symmetric search, at least 0 and less than 1. This is the threshold :math:`\tau` of the paper
                        (Appendix E). Deletion ignores it.
                        Default: 0.0
            minimal (bool, optional): Whether to leave out, after the flip, the players that it does not need. Greedy
                        search finds a group that flips the prediction, but some of its players may not be necessary.
                        These players are left out, the least important first, as long as the prediction stays flipped.
                        The same search then orders the remaining players, and the attributions and the selection
                        describe this smaller group. The field ``minimal`` of the selection shows for which examples no
                        player of the group can be left out, and ``left_out`` lists the players that were left out.
                        It requires ``stop="flip"``.
                        Default: False
            perturbations_per_eval (int, optional): Maximum number of coalitions of each example in one forward pass. A
                        pass has at most perturbations_per_eval * B rows. Under baseline fill, each pass contains whole
                        copies of the batch, as in Captum. The result does not depend on this argument, unless rows of a
                        batch influence each other in the model. It must be 1 if ``forward_func`` returns one value for
                        the whole batch. If None, the available memory determines the size of a pass.
                        Default: None
            show_progress (bool, optional): Whether to show a progress bar that counts the evaluated rows, with an
                        estimate of the remaining time if the number of rows is known in advance. If False, a search
                        that takes more than half a minute logs one warning, to the logger ``captum_moxi``, with the
                        number of rows, the expected time and the arguments that shorten it.
                        Default: False
            score (str, optional): How players are scored:

                        - ``"rank"``: the player chosen at step k of the K steps of its example gets (K - k + 1) / K.
                          The first player gets 1. Players that were never chosen get 0.

                        - ``"gain"``: each player gets the rise (insertion) or fall (deletion) of the reward at the step
                          that chose it, or the sum of both (symmetric search). Players that were never chosen get 0.
                          After a search through all players, the scores of the players sum to
                          :math:`f(N) - f(\emptyset)`, or to twice this value in symmetric search.

                        Default: ``"rank"``
            return_selection (bool, optional): Whether to also return the :class:`captum_moxi.Selection`, with the order
                        of the players and the reward, confidence, prediction, Shapley value and interaction at each
                        step.
                        Default: False
            return_convergence_delta (bool, optional): Whether to also return the convergence delta (see
                        :meth:`compute_convergence_delta`). It requires ``score="gain"``.
                        Default: False

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, or a tuple of **attributions** and the requested
            **selection** and **delta**, in this order:

            - **attributions** (*Tensor* or *tuple[Tensor, ...]*): The score of each value's player, in the shape and on
              the device of the inputs. If ``forward_func`` returns one value for the whole batch, dimension 0 has size
              1. A tuple if ``inputs`` is a tuple. Ranks are float32, or float64 if the model returns float64. Gains
              have the dtype of the model's output if it is floating point, and otherwise that of the reward.
            - **selection** (*Selection*): The selection, on the CPU. Returned if ``return_selection`` is True.
            - **delta** (*Tensor*): Convergence delta. Shape ``(B,)``, floating. Returned if
              ``return_convergence_delta`` is True.

        Raises:
            ValueError: Before the first forward pass:

                        - ``stop``, ``score`` or ``min_confidence`` has a value that is not listed above

                        - ``minimal`` is True and ``stop`` is not ``"flip"``

                        - ``n_steps`` or ``perturbations_per_eval`` is less than 1

                        - ``inputs`` is an empty batch, contains non-finite values, or does not fit a transformers image
                          model: one image without a batch dimension, or a number of channels or a size that it does not
                          accept

                        - a target, feature mask or baseline has the wrong shape or is out of range

                        - the feature mask cuts through a patch under token removal or attention masking

                        - ``feature_mask`` is None and there would be more than 600 players

                        - ``return_convergence_delta`` is True and ``score`` is not ``"gain"``

                        After the first forward pass, if only the output of the model shows the number of classes: a
                        target is missing or too large. During the search: logits or rewards are non-finite. The message
                        names the coalition.
            TypeError: If an argument has the wrong type.
            torch.OutOfMemoryError: If a single row does not fit into memory, on a GPU or a CPU.
        """
        _check_options(n_steps, stop, min_confidence, minimal, score, return_convergence_delta)
        game, selection = self._with_search(
            inputs,
            baselines=baselines,
            target=target,
            additional_forward_args=additional_forward_args,
            feature_mask=feature_mask,
            n_steps=n_steps,
            stop=stop,
            min_confidence=min_confidence,
            minimal=minimal,
            perturbations_per_eval=perturbations_per_eval,
            show_progress=show_progress,
            work=lambda game, search: (game, search(None)),
        )
        if self.mode == "deletion" and stop == "flip":
            _warn_if_nothing_to_delete(selection)
        attributions = scores_to_inputs(
            score_players(selection, game, score=score), game.call.players, game.call.inputs
        )
        extras: tuple[Selection | Tensor, ...] = (selection,) if return_selection else ()
        if return_convergence_delta:
            with preserved_state(self.forward_func, input_devices(inputs)):
                extras += (_convergence_delta(attributions, game, self.mode),)
        results = match_inputs(attributions, inputs)
        return (results, *extras) if extras else results

    def alternatives(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: ForwardArgs = None,
        feature_mask: TensorOrTuple | None = None,
        *,
        at_most: int = 5,
        known: Sequence[Selection] = (),
        n_steps: int | None = None,
        min_confidence: float = 0.0,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> list[Selection]:
        r"""
        Find disjoint groups of players, each of which flips the prediction by itself and is minimal.

        Models often have more than one reason for a prediction (Shitole et al., 'One Explanation is Not Enough:
        Structured Attention Graphs for Image Classification', NeurIPS 2021). The first group is that of
        ``attribute(..., stop="flip", minimal=True)``. Each other group is found in the same way, without the players of
        the groups before it. In insertion, these players stay absent, so each group suffices by itself. In deletion,
        they stay present, so the prediction fails without any one of the groups. In symmetric search, both hold for
        each group.

        The search for a group that does not exist is the longest one, because it chooses all remaining players.
        ``n_steps`` limits it, and ``at_most`` avoids it if there are enough groups. The search is greedy, so it may
        miss groups.

        Args:
            inputs, baselines, target, additional_forward_args, feature_mask: As in :meth:`attribute`. The target is
                        required.
            min_confidence, perturbations_per_eval, show_progress: As in :meth:`attribute`.
            at_most (int, optional): Maximum number of groups, at least 1.
                        Default: 5
            known (Sequence[Selection], optional): The first groups, if they are known: an earlier result of this
                        method, or a list with the selection of ``attribute(..., stop="flip", minimal=True)``, for the
                        same arguments. The search continues after them.
                        Default: ``()``
            n_steps (int, optional): Maximum number of players that the search of a group chooses.
                        Default: None, all remaining players

        Returns:
            list[Selection]: The groups in the order in which they were found, the known ones included. Each selection
            contains one group of every example. An example that has fewer groups has no steps in the others, and its
            ``flipped`` is False there. The list is empty if no prediction flips. If a prediction is flipped without any
            player, its only group has no steps, and its ``flipped`` is True.

        Raises:
            ValueError: If the target is missing, if ``at_most`` is less than 1, if a known group belongs to another
                        mode, batch or feature mask, and in the cases of :meth:`attribute`.
            TypeError: If an argument has the wrong type.

        Examples::

            >>> groups = MoXIInsertion(model).alternatives(x, target=y, at_most=3)
            >>> [group.order[0].tolist() for group in groups]  # the patches of each group
        """
        check_positive_int("at_most", at_most)
        _check_options(n_steps, "flip", min_confidence, minimal=True, score="rank", return_convergence_delta=False)
        _check_known(known, self.mode)

        def search_groups(game: CoalitionGame, search: SearchAmong) -> list[Selection]:
            _check_known_players(known, game)
            return disjoint_selections(search, game, at_most=at_most, known=known)

        return self._with_search(
            inputs,
            baselines=baselines,
            target=target,
            additional_forward_args=additional_forward_args,
            feature_mask=feature_mask,
            n_steps=n_steps,
            stop="flip",
            min_confidence=min_confidence,
            minimal=True,
            perturbations_per_eval=perturbations_per_eval,
            show_progress=show_progress,
            work=search_groups,
        )

    def attribute_future(self, *args: object, **kwargs: object) -> NoReturn:
        """Not supported: each step of the search depends on the previous one. Use :meth:`attribute`."""
        raise NotImplementedError(
            f"{self.get_name()} does not support attribute_future, because each step of the search depends on the "
            "previous one; call attribute"
        )

    def has_convergence_delta(self) -> bool:
        """Return True: see :meth:`compute_convergence_delta`."""
        return True

    def compute_convergence_delta(
        self,
        attributions: TensorOrTuple,
        inputs: TensorOrTuple,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: ForwardArgs = None,
        feature_mask: TensorOrTuple | None = None,
        *,
        perturbations_per_eval: int | None = None,
    ) -> Tensor:
        r"""
        Compute the difference between the sum of the players' gains and :math:`f(N) - f(\emptyset)`.

        After a search through all players, it is zero up to rounding. Otherwise, it is the negative of the rise
        (insertion) or fall (deletion) of the reward that the remaining players would cause. In symmetric search, the
        difference is twice as large, because each player has a gain on both paths.

        Args:
            attributions (Tensor or tuple[Tensor, ...]): The result of ``attribute(..., score="gain")``.
            inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval: The arguments of
                        that call of :meth:`attribute`.

        Returns:
            Tensor: Sum of the scores, with each player counted once, minus f(N) - f(empty set), or minus twice this
            value in symmetric search. Shape ``(B,)``, floating, on the device of the attributions.

        Raises:
            ValueError: If the attributions do not have the shape of the inputs, and in the cases of :meth:`attribute`.
        """
        with preserved_state(self.forward_func, input_devices(inputs)):
            game = self._game(
                inputs,
                baselines=baselines,
                target=target,
                additional_forward_args=additional_forward_args,
                feature_mask=feature_mask,
                perturbations_per_eval=perturbations_per_eval,
            )
            scores = attributions if isinstance(attributions, tuple) else (attributions,)
            return _convergence_delta(scores, game, self.mode)

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the class. Captum would insert a space before each capital letter."""
        return cls.__name__

    def _game(
        self,
        inputs: TensorOrTuple,
        *,
        baselines: Baselines,
        target: Target,
        additional_forward_args: ForwardArgs,
        feature_mask: TensorOrTuple | None,
        perturbations_per_eval: int | None,
    ) -> CoalitionGame:
        return CoalitionGame(
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

    def _with_search(
        self,
        inputs: TensorOrTuple,
        *,
        baselines: Baselines,
        target: Target,
        additional_forward_args: ForwardArgs,
        feature_mask: TensorOrTuple | None,
        n_steps: int | None,
        stop: Stop,
        min_confidence: float,
        minimal: bool,
        perturbations_per_eval: int | None,
        show_progress: bool,
        work: Callable[[CoalitionGame, SearchAmong], R],
    ) -> R:
        """Call ``work`` with the game and a function that searches it, without gradients and with a progress bar."""
        _warn_if_random(self.forward_func)
        # Screens may compute gradients, which tensors created in inference mode do not support.
        with preserved_state(self.forward_func, input_devices(inputs)), torch.inference_mode(False), torch.no_grad():
            game = self._game(
                inputs,
                baselines=baselines,
                target=target,
                additional_forward_args=additional_forward_args,
                feature_mask=feature_mask,
                perturbations_per_eval=perturbations_per_eval,
            )
            _check_flip_target(stop, game)
            with self._progress(game, n_steps=n_steps, stop=stop, show=show_progress) as progress:
                search = self._searcher(
                    game,
                    n_steps=n_steps,
                    stop=stop,
                    min_confidence=min_confidence,
                    minimal=minimal,
                    progress=progress,
                )
                return work(game, search)

    @contextmanager
    def _progress(self, game: CoalitionGame, *, n_steps: int | None, stop: Stop, show: bool) -> Iterator[Progress]:
        """Show the progress of searches until exit."""
        # The number of rows is unknown in advance if examples may stop early or candidates may be skipped.
        is_exhaustive = stop is None and self.screen is None and self.beam_width == 1
        plan = plan_search(
            self.get_name(),
            game,
            self.mode,
            n_steps=n_steps,
            is_exact=is_exhaustive,
            interactions=self.interactions,
            beam_width=self.beam_width,
            may_skip=self.screen is not None,
            advice=search_advice(
                game,
                self.mode,
                n_steps=n_steps,
                can_stop=stop is None and game.targets is not None,
                has_screen=self.screen is not None or not self.interactions,
                beam_width=self.beam_width,
            ),
        )
        with search_progress(plan, show=show) as progress:
            yield progress

    def _searcher(
        self,
        game: CoalitionGame,
        *,
        n_steps: int | None,
        stop: Stop,
        min_confidence: float,
        minimal: bool,
        progress: Progress,
    ) -> SearchAmong:
        """Return a function that searches a group among some of the players, or among all of them."""

        def search(candidates: Tensor | None) -> Selection:
            options = SearchOptions(
                n_steps=n_steps, stop=stop, min_confidence=min_confidence, candidates=candidates, progress=progress
            )
            if not self.interactions:
                return rank_independently(game, self.mode, **options)
            return greedy(game, self.mode, screen=self.screen, beam_width=self.beam_width, **options)

        def search_minimal(candidates: Tensor | None) -> Selection:
            return minimal_selection(
                search, game, self.mode, min_confidence=min_confidence, candidates=candidates, progress=progress
            )

        return search_minimal if minimal else search


class MoXIInsertion(MoXIAttribution):
    r"""
    The group of players that makes a model confident in the target, found by greedy insertion.

    MoXI was introduced by Sumiyasu, Kawamoto and Kera, 'Identifying Important Group of Pixels using Interactions', CVPR
    2024, https://arxiv.org/abs/2401.03785. Insertion starts from the empty set. Each step adds the player :math:`b`
    whose addition to the players :math:`A` chosen so far increases the reward :math:`f` the most. That is the player
    with the largest sum of its Shapley value and its interaction with :math:`A`, both in self-context (Eqs. 4 to 7 and
    Algorithm 1):

    .. math::
        \phi_{self}(b) + I_{self}(A, b) = f(A \cup b) - f(A)

    Methods that score each player independently give a high rank to all players that carry the same information. In
    MoXI, a player that repeats what the chosen players show has a negative interaction with them, and is chosen later.

    A full ranking of n players evaluates n (n + 1) / 2 coalitions. With ``stop="flip"``, the search needs only a few
    steps on most photographs.

    Examples::

        >>> # a classifier with patch tokens: the 196 patches of a 224 x 224 image are the players
        >>> model = AutoModelForImageClassification.from_pretrained("google/vit-base-patch16-224")
        >>> insertion = MoXIInsertion(model)
        >>> # heat map of the patches that suffice for the prediction, of shape (1, 3, 224, 224); the first patch
        >>> # chosen has score 1, later ones have lower scores, and patches that were never chosen have 0
        >>> attr = insertion.attribute(x, target=y, stop="flip")
        >>> # the first ten patches in order, and the model's confidence after each of them
        >>> attr, selection = insertion.attribute(x, target=y, n_steps=10, return_selection=True)
        >>> selection.order, selection.confidences
        >>> # any function that returns logits: here every scalar is a player, as in FeatureAblation
        >>> attr = MoXIInsertion(net, reward="output").attribute(features, target=1, score="gain")
    """

    mode = "insertion"


class MoXIDeletion(MoXIAttribution):
    r"""
    The group of players without which a model no longer predicts the target, found by greedy deletion.

    MoXI was introduced by Sumiyasu, Kawamoto and Kera, 'Identifying Important Group of Pixels using Interactions', CVPR
    2024, https://arxiv.org/abs/2401.03785. Deletion starts from the whole input. Each step removes the player :math:`b`
    whose absence, in addition to that of the players :math:`A` removed so far, decreases the reward :math:`f` the most.
    That is the player with the largest sum of its Shapley value and its interaction with :math:`A`, both in
    full-context (Eqs. 8 to 13 and Algorithm 2):

    .. math::
        \phi_{full}(b) + I_{full}(A, b) = f(N \setminus A) - f(N \setminus (A \cup b))

    The paper writes the same choice as a sum of three terms (Eq. 13), because its interaction has the opposite sign
    (Eq. 11).

    A full ranking of n players evaluates n (n + 1) / 2 coalitions. The coalitions of the first steps contain almost the
    whole input. Under token removal, a few steps of deletion therefore take several times as long as the same steps of
    insertion. :class:`captum_moxi.GradientScreen` reduces this cost.

    Examples::

        >>> # heat map of the players without which the prediction changes: 7 x 7 patches, removed by blurring
        >>> deletion = MoXIDeletion(model, removal=BaselineRemoval("blur"))
        >>> attr = deletion.attribute(x, target=y, stop="flip", feature_mask=patch_mask(224, grid=7))
        >>> # evaluate only the 8 most promising candidates at each step
        >>> attr = MoXIDeletion(model, screen=GradientScreen(8)).attribute(x, target=y, stop="flip")
    """

    mode = "deletion"


def _check_search(interactions: bool, screen: AnyScreen | None, beam_width: int) -> None:
    check_positive_int("beam_width", beam_width)
    if not interactions and (screen is not None or beam_width > 1):
        raise ValueError(
            f"interactions is False, but screen is {screen!r} and beam_width is {beam_width}, which apply only to a "
            "search with interactions; pass screen=None and beam_width=1"
        )


class SearchOptions(TypedDict):
    """Arguments that all searches have. See :func:`captum_moxi.search.greedy`."""

    n_steps: int | None
    stop: Stop
    min_confidence: float
    candidates: Tensor | None
    progress: Progress


def _check_options(
    n_steps: int | None,
    stop: Stop,
    min_confidence: float,
    minimal: bool,
    score: Score,
    return_convergence_delta: bool,
) -> None:
    if n_steps is not None:
        check_positive_int("n_steps", n_steps)
    if stop not in (None, "flip"):
        raise ValueError(f"stop is {stop!r}; pass 'flip' or None")
    if minimal and stop != "flip":
        raise ValueError(
            "minimal is True, but stop is None, and minimal groups are defined by a flip; pass stop='flip'"
        )
    if score not in SCORES:
        raise ValueError(f"score is {score!r}; pass 'rank' or 'gain'")
    if return_convergence_delta and score != "gain":
        raise ValueError("return_convergence_delta is True, but ranks have no convergence delta; pass score='gain'")
    check_min_confidence(min_confidence)


def _check_flip_target(stop: Stop, game: CoalitionGame) -> None:
    if stop == "flip" and not game.head.has_classes:
        raise ValueError(
            "stop is 'flip', but the model is a regression (config.problem_type), which predicts no class; pass "
            "stop=None"
        )
    if stop == "flip" and game.targets is None:
        raise ValueError("stop is 'flip' and target is None; pass the target whose prediction flips")


def _check_known(known: Sequence[Selection], mode: SearchMode) -> None:
    for selection in known:
        if not isinstance(selection, Selection):
            raise TypeError(f"known contains a {type(selection).__name__}; pass selections")
        if selection.mode != mode:
            raise ValueError(f"known contains a selection of {selection.mode}; pass selections of {mode}")


def _check_known_players(known: Sequence[Selection], game: CoalitionGame) -> None:
    for selection in known:
        if len(selection.n_steps) != game.n_examples:
            raise ValueError(
                f"known contains a selection of {len(selection.n_steps)} examples; pass selections of the "
                f"{game.n_examples} examples of inputs"
            )
        game.positions_of(selection.order[selection.order >= 0])


def _warn_if_random(forward_func: ForwardFunc) -> None:
    layer = find_random_layer(forward_func)
    if layer is not None:
        warn_user(
            f"forward_func is in training mode, and its {layer} makes forward passes differ; call model.eval() for a "
            "reproducible selection"
        )


def _warn_if_nothing_to_delete(selection: Selection) -> None:
    examples = (selection.n_steps == 0).nonzero().flatten().tolist()
    if examples:
        warn_user(
            f"the target is not the predicted class of example {', '.join(map(str, examples))}, so deletion with "
            "stop='flip' removes no player; pass the predicted class (for a single logit that is negative, negate the "
            "logit), or locate the target with MoXILocalization"
        )


def _convergence_delta(attributions: tuple[Tensor, ...], game: CoalitionGame, mode: SearchMode) -> Tensor:
    """Return the sum of the players' scores minus f(N) - f(empty set) on each path of the search, ``(B,)``."""
    shapes = [tuple(values.shape) for values in attributions]
    expected = [(game.n_examples, *x.shape[1:]) for x in game.call.inputs]
    if shapes != expected:
        raise ValueError(f"attributions has shapes {shapes}; pass the result of attribute, of shapes {expected}")
    empty_coalitions = torch.zeros(game.n_examples, game.n_players, dtype=torch.bool)
    empty = game.outcome(empty_coalitions, torch.arange(game.n_examples))
    total = scores_to_players(attributions, game.call.players, game.call.inputs).sum(1)
    delta = total - len(paths_of(mode)) * (game.full.rewards.double() - empty.rewards.double())
    return delta.to(attributions[0].device, torch.promote_types(game.output_dtype, torch.float32))
