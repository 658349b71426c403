"""CoalitionGame: coalitions of players in, rewards out."""

import functools
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from captum_moxi import models
from captum_moxi.arguments import (
    Baselines,
    ForwardArgs,
    ForwardFunc,
    Model,
    Target,
    TensorOrTuple,
    check_baselines,
    check_half_precision,
    check_inputs,
    check_positive_int,
    forward_arguments,
    parse_target,
)
from captum_moxi.game.batching import BatchedModel, Columns, Cost
from captum_moxi.game.outputs import (
    LOGITS_NOT_FINITE,
    Outcome,
    read_outcome,
    read_probabilities,
    warn_if_probabilities,
)
from captum_moxi.game.targets import Targets
from captum_moxi.heads import head_of
from captum_moxi.memory import is_out_of_memory
from captum_moxi.players import Players, players_from_mask, scalar_mask
from captum_moxi.removal import MAX_PLAYERS, REMOVALS, ForwardCall, Removal, ToImages, default_removal, get_removal
from captum_moxi.rewards import ExampleReward, Reward, get_reward, traits_of

Coalitions = TypeVar("Coalitions", Tensor, np.ndarray)


class CoalitionGame:
    r"""
    A cooperative game whose players are features of the model's inputs.

    The value of a coalition is the reward of the model's output when only the players of the coalition are present. The
    game of one input is a function of coalitions. It can therefore serve as a ``forward_func`` for every perturbation
    method of Captum, and as a value function for other game-theory libraries, with the removal and the reward that MoXI
    uses.

    A game is immutable. :meth:`restrict`, :meth:`with_reward` and :meth:`with_removal` return new games, which share
    the model and its ``cost``. Removals that hook the model run a private view of it, which has the hooks that the
    model had at the first coalition.

    Args:
        forward_func (Callable): Model. A transformers image classifier, the object that :func:`captum_moxi.load`
            returns, or any function or module that returns logits.
        inputs (Tensor or tuple[Tensor, ...]): As in ``captum.attr.FeatureAblation``.
        baselines (scalar, Tensor or tuple, optional): As in ``captum.attr.FeatureAblation``. If ``removal`` is None,
            passing baselines selects baseline fill.
            Default: None
        target (int, tuple, Tensor or list, optional): As in ``captum.attr.FeatureAblation``. In outputs with more than
            two dimensions, dimension 1 is the class.
            Default: None
        additional_forward_args (Any, optional): As in ``captum.attr.FeatureAblation``.
            Default: None
        feature_mask (Tensor or tuple[Tensor, ...], optional): As in ``captum.attr.FeatureAblation``.
            Default: None, the patches of a transformers image model, or 6 x 6 rectangles if it has no patch tokens. For
            other models, each value is a player.
        removal (Removal or str, optional): How absent players are removed: a removal or its name, for example
            ``"blur"``.
            Default: None, token removal if the model has patch tokens, otherwise baseline fill
        reward (str or Callable, optional): Name of a registered reward, or a function ``(logits, target) -> (rows,)``.
            Default: ``"log_odds"``
        perturbations_per_eval (int, optional): Maximum number of coalitions of each example in one forward pass. Under
            baseline fill, each pass then contains whole copies of the batch, as in Captum. This is for functions in
            which the position of a row in the batch matters. An example that needs fewer coalitions is repeated
            unchanged.
            Default: None, rows of any examples, as many as the memory allows

    Attributes:
        n_players (int): Number of players n.
        n_examples (int): Number of examples B, or 1 if ``forward_func`` returns one value for the whole batch.
        ids (Tensor): Ids of the players in the feature mask, in ascending order: the columns of a coalition. Shape
            ``(n,)``, int64.
        exists (Tensor): Whether each example has each player. Shape ``(B, n)``, bool.
        head (Head): How logits become probabilities and predictions, from ``config.problem_type`` of the model.
        targets (Tensor or None): Target class of each example. Shape ``(B,)``, int64. None if there is no target, or if
            the model is a regression, which has no classes.
        full (Outcome): Outcome of each example with all its players. Shape ``(B,)``.
        call (ForwardCall): Inputs, baselines and arguments of the model, and the players.
        removal (Removal): How absent players are removed.
        output_dtype (torch.dtype): Dtype of the model's output.
        rounds_relatively (bool): Whether the rounding error of the reward is proportional to the reward.
        cost (Cost): Snapshot of the rows and passes so far.

    Raises:
        ValueError: If an argument has the wrong shape or value. When coalitions are evaluated: if the model returns
            non-finite logits, or the reward is not finite. The message names the coalition.
        TypeError: If an argument has the wrong type.
        torch.OutOfMemoryError: If a single row does not fit into memory, on a GPU or a CPU.

    Examples::

        >>> game = CoalitionGame(model, x, target=y)
        >>> ShapleyValueSampling(game).attribute(torch.ones(1, game.n_players))
    """

    def __init__(
        self,
        forward_func: Model,
        inputs: TensorOrTuple,
        *,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: ForwardArgs = None,
        feature_mask: TensorOrTuple | None = None,
        removal: Removal | str | None = None,
        reward: str | Reward = "log_odds",
        perturbations_per_eval: int | None = None,
    ) -> None:
        # Screens may compute gradients, which tensors created in inference mode do not support.
        with torch.inference_mode(False), torch.no_grad():
            model, targets, removal, reward_function = _prepare(
                models.as_forward_func(forward_func),
                inputs,
                baselines=baselines,
                target=target,
                additional_forward_args=additional_forward_args,
                feature_mask=feature_mask,
                removal=removal,
                reward=reward,
                perturbations_per_eval=perturbations_per_eval,
            )
            output = model.run_inputs()
            if not model.aggregates:
                targets.check_output(output, required=traits_of(reward_function).needs_target)
            if not traits_of(reward_function).accepts_probabilities:
                warn_if_probabilities(output)
            exists = model.call.players.exists.expand(model.n_examples, -1)
            self._assign(model, targets, removal, reward_function, exists, output)

    def _assign(
        self,
        model: BatchedModel,
        targets: Targets,
        removal: Removal,
        reward: Reward | ExampleReward,
        exists: Tensor,
        full_output: Tensor,
    ) -> None:
        """Set all attributes. Called once for each game, without gradients."""
        self._model = model
        self._converted: dict[torch.dtype, BatchedModel] = {}
        self._targets = targets
        self._reward = reward
        self._full_output = full_output
        self.removal = removal
        self.head = head_of(model.call.forward_func)
        self.exists = exists
        self.call: ForwardCall = model.call
        self.ids: Tensor = model.call.players.ids
        self.n_players = len(self.ids)
        self.n_examples = model.n_examples
        self.output_dtype = full_output.dtype
        self.rounds_relatively = traits_of(reward).rounds_relatively
        examples = torch.arange(self.n_examples)
        target = self._select(full_output, examples)[1]
        self.targets = None if target is None or not self.head.has_classes else target.cpu()
        columns = self._read_outcome(full_output, examples)
        self.full = self._checked_outcome(tuple(column.cpu() for column in columns), exists, examples)

    def restrict(self, exists: Tensor) -> "CoalitionGame":
        """Return the game among fewer players. The others are absent from every coalition.

        The columns of coalitions stay the same.

        Args:
            exists (Tensor): Whether each example keeps each player. Shape ``(B, n)``, bool.

        Returns:
            CoalitionGame: New game.

        Raises:
            TypeError: If ``exists`` is not a tensor.
            ValueError: If ``exists`` has another shape or dtype, or contains a player that an example does not have.
        """
        exists = _check_tensor("exists", exists).cpu()
        if exists.shape != self.exists.shape or exists.dtype is not torch.bool:
            raise ValueError(
                f"exists has shape {tuple(exists.shape)} and dtype {exists.dtype}; "
                f"pass a bool tensor of shape {tuple(self.exists.shape)}"
            )
        if bool((exists & ~self.exists).any()):
            raise ValueError("exists contains players that an example of this game does not have; pass a subset")
        with torch.no_grad():
            columns = self._model.evaluate(exists, torch.arange(self.n_examples), self._keep_output)
        if columns is None:
            raise ValueError("exists has no rows; pass one for each example")
        return self._derived(self._reward, exists, columns[0])

    def __repr__(self) -> str:
        return (
            f"CoalitionGame({self.n_players} players, {self.n_examples} examples, removal={self.removal!r}, "
            f"reward={getattr(self._reward, '__name__', self._reward)})"
        )

    def with_reward(self, reward: str | Reward | ExampleReward) -> "CoalitionGame":
        """Return the game with another reward.

        Args:
            reward (str or Callable): Name of a registered reward, a function ``(logits, target) -> (rows,)``, or a
                :class:`captum_moxi.rewards.ExampleReward`.

        Returns:
            CoalitionGame: New game. No row is evaluated.

        Raises:
            ValueError: If the reward is unknown or needs a target that the game does not have.
        """
        function = reward if isinstance(reward, ExampleReward) else self.head.reward(get_reward(reward))
        if not self._model.aggregates:
            self._targets.check_output(self._full_output, required=traits_of(function).needs_target)
        return self._derived(function, self.exists, self._full_output)

    def with_removal(self, removal: Removal | str) -> "CoalitionGame":
        """Return the game of the same players under another removal. Its rows also count as rows of this game.

        The new game has no ``baselines``, because those of this game belong to its removal.

        Args:
            removal (Removal or str): A removal or its name, for example ``"blur"``.

        Returns:
            CoalitionGame: New game.

        Raises:
            ValueError: If the removal is unknown, or does not fit the model, the inputs or the players. The model does
                not run before.
            TypeError: If ``removal`` is neither a removal nor a name.
        """
        other = get_removal(removal)
        if other is None:
            raise TypeError(f"removal is None; pass an instance of Removal, or one of {', '.join(REMOVALS)}")
        with torch.inference_mode(False), torch.no_grad():
            model = self._model.with_masked(other.bind(replace(self.call, baselines=None)))
            output = self._full_output
            if not torch.equal(self.exists, self.call.players.exists.expand_as(self.exists)):
                # Players of this game are absent, so the output depends on the removal.
                columns = model.evaluate(self.exists, torch.arange(self.n_examples), self._keep_output)
                assert columns is not None  # there are examples
                output = columns[0]
            game = object.__new__(type(self))
            game._assign(model, self._targets, other, self._reward, self.exists, output)
        return game

    def _derived(self, reward: Reward | ExampleReward, exists: Tensor, full_output: Tensor) -> "CoalitionGame":
        game = object.__new__(type(self))
        with torch.no_grad():
            game._assign(self._model, self._targets, self.removal, reward, exists, full_output)
        return game

    def __call__(self, coalitions: Coalitions) -> Coalitions:
        """Return the values of coalitions, in a game of one example.

        Args:
            coalitions (Tensor or ndarray): Shape ``(M, n)``, or ``(n,)`` for one coalition. bool, or numbers that are 0
                or 1.

        Returns:
            Tensor or ndarray: Shape ``(M,)``, in the dtype of the reward. The same type as ``coalitions``, on the same
            device.

        Raises:
            TypeError: If ``coalitions`` is neither a tensor nor an array of numbers.
            ValueError: If the game has more than one example, or if ``coalitions`` has the wrong shape or values.
        """
        if self.n_examples > 1:
            raise ValueError(
                f"the game has {self.n_examples} examples, but only a game of one example can be called; create one "
                "game for each example, or call outcome(coalitions, examples)"
            )
        if isinstance(coalitions, np.ndarray) and coalitions.dtype.kind not in "biuf":
            raise TypeError(f"coalitions has dtype {coalitions.dtype}; pass bool, or numbers that are 0 or 1")
        rows = torch.as_tensor(coalitions) if isinstance(coalitions, np.ndarray) else coalitions
        rows = _check_tensor("coalitions", rows)
        rewards = self.outcome(rows[None] if rows.dim() == 1 else rows).rewards
        return rewards.numpy() if isinstance(coalitions, np.ndarray) else rewards.to(rows.device)

    def outcome(self, coalitions: Tensor, examples: Tensor | None = None) -> Outcome:
        """Return reward, confidence and prediction of coalitions.

        Args:
            coalitions (Tensor): Shape ``(M, n)``. bool, or numbers that are 0 or 1.
            examples (Tensor, optional): Example of the batch that each row belongs to. Shape ``(M,)``, int64.
                Default: None, the only example

        Returns:
            Outcome: Rewards, confidences and predictions of shape ``(M,)``, on the CPU.

        Raises:
            TypeError: If ``coalitions`` or ``examples`` is not a tensor of real numbers.
            ValueError: If ``coalitions`` or ``examples`` has the wrong shape or values, or if the model returns
                non-finite logits.
            torch.OutOfMemoryError: If a single row does not fit into memory.
        """
        coalitions, examples = self._check_rows(coalitions, examples)
        with torch.no_grad():
            columns = self._model.evaluate(coalitions, examples, self._read_outcome)
        if columns is None:
            return Outcome(torch.empty(0), torch.empty(0), torch.empty(0, dtype=torch.long))
        return self._checked_outcome(columns, coalitions, examples)

    def class_probabilities(self, coalitions: Tensor, examples: Tensor | None = None) -> Tensor:
        """Return the probabilities of all classes for each coalition.

        Args:
            coalitions (Tensor): Shape ``(M, n)``. bool, or numbers that are 0 or 1.
            examples (Tensor, optional): Example of the batch that each row belongs to. Shape ``(M,)``, int64.
                Default: None, the only example

        Returns:
            Tensor: Shape ``(M, classes)``, floating, on the CPU. ``(M, 1)`` for a single logit.

        Raises:
            TypeError, ValueError, torch.OutOfMemoryError: As in :meth:`outcome`.
        """
        coalitions, examples = self._check_rows(coalitions, examples)
        with torch.no_grad():
            columns = self._model.evaluate(coalitions, examples, self._read_probabilities)
        if columns is None:
            return torch.empty(0, 0)
        probabilities, status = columns
        self._check_status(status, coalitions, examples)
        return probabilities

    def approximate(self, coalitions: Tensor, examples: Tensor, dtype: torch.dtype) -> Tensor:
        """Return rewards of coalitions, computed in a lower precision.

        The weights of the model are converted once for each game. The model itself is unchanged. A function whose
        modules are not known runs under ``torch.autocast``.

        Args:
            coalitions (Tensor): Shape ``(M, n)``. bool, or numbers that are 0 or 1.
            examples (Tensor): Example of the batch that each row belongs to. Shape ``(M,)``, int64.
            dtype (torch.dtype): torch.bfloat16 or torch.float16.

        Returns:
            Tensor: Shape ``(M,)``, floating, on the CPU. Non-finite on overflow.

        Raises:
            TypeError, ValueError, torch.OutOfMemoryError: As in :meth:`outcome`, except for non-finite logits, and if
                ``dtype`` is not one of the two.
        """
        check_half_precision(dtype)
        coalitions, examples = self._check_rows(coalitions, examples)
        model = self._model_in_precision(dtype)
        device = self.call.inputs[0].device.type
        with torch.no_grad(), torch.autocast(device, dtype) if model is self._model else nullcontext():
            columns = model.evaluate(coalitions, examples, self._read_outcome)
        return torch.empty(0) if columns is None else columns[0]

    def effects(self, coalitions: Tensor, examples: Tensor | None = None) -> Tensor:
        r"""
        Estimate the contribution of each player to a coalition by derivatives of the reward.

        The model is relaxed: a gate between 0 (absent) and 1 (present) controls how much each player contributes at
        each stage of the model where players enter. The derivative of the reward with respect to a player's gates,
        summed over the stages, is a first-order approximation of :math:`f(A \cup b) - f(A \setminus b)`. Under baseline
        fill, the only stage is the input, ``baseline + gate * (input - baseline)``. The estimate is then the gradient
        times (input - baseline), summed over the values of the player. Under token removal and attention masking, each
        attention is a stage, and the gate weights the keys of the player's tokens. Each row goes through the model
        forward and backward once.

        Args:
            coalitions (Tensor): Shape ``(M, n)``. bool, or numbers that are 0 or 1.
            examples (Tensor, optional): Example of the batch that each row belongs to. Shape ``(M,)``, int64.
                Default: None, the only example

        Returns:
            Tensor: Derivative at each stage. Shape ``(M, stages, n)``, floating, on the CPU.

        Raises:
            TypeError, ValueError, torch.OutOfMemoryError: As in :meth:`outcome`, except for non-finite logits, and if
                the forward function, the reward or the removal cannot be differentiated.
        """
        coalitions, examples = self._check_rows(coalitions, examples)
        # The derivatives are needed even if the caller has disabled gradients.
        with torch.inference_mode(False), torch.enable_grad():
            derivatives = self._model.differentiate(
                coalitions, examples, lambda output, rows: self._read_outcome(output, rows)[0]
            )
        return torch.empty(0, 1, self.n_players) if derivatives is None else derivatives

    def positions_of(self, ids: Tensor) -> Tensor:
        """Return the positions of players, given by their ids: the columns of a coalition.

        Args:
            ids (Tensor): Ids of players, of any shape, int64. -1 means no player and stays -1.

        Returns:
            Tensor: The shape of ``ids``, int64, on the CPU.

        Raises:
            TypeError: If ``ids`` is not a tensor of integers.
            ValueError: If no player has one of the ids.
        """
        return self.call.players.positions_of(ids)

    def pictures(self, coalitions: Tensor, examples: Tensor | None, to_images: ToImages) -> Tensor:
        """Draw the input that the model receives for each coalition.

        Args:
            coalitions (Tensor): Shape ``(M, n)``. bool, or numbers that are 0 or 1.
            examples (Tensor or None): Example of the batch that each row belongs to. Shape ``(M,)``, int64. None means
                the only example.
            to_images (Callable): Converts pixel values ``(M, C, H, W)`` to images ``(M, H, W, 3)`` in [0, 1].

        Returns:
            Tensor: Images of shape ``(M, H, W, 3)``, floating. Patches whose tokens are removed are gray.

        Raises:
            TypeError: If ``coalitions`` or ``examples`` is not a tensor of real numbers, or ``to_images`` is not
                callable.
            ValueError: If the inputs of the game are not one batch of images, if ``coalitions`` or ``examples`` has the
                wrong shape or values, or if ``to_images`` does not return images.
        """
        if len(self.call.inputs) != 1 or self.call.inputs[0].dim() != 4:
            shapes = [tuple(x.shape) for x in self.call.inputs]
            raise ValueError(
                f"pictures need one input of images (B, C, H, W), but the game has inputs of shapes {shapes}; create "
                "the game with one batch of images"
            )
        if not callable(to_images):
            raise TypeError(f"to_images is {to_images!r}; pass a function that converts pixel values to images")
        coalitions, examples = self._check_rows(coalitions, examples)
        with torch.no_grad():
            images = self._model.masked.pictures(coalitions, examples, lambda pixels: _as_images(to_images, pixels))
        return images

    def row_costs(self, coalitions: Tensor, examples: Tensor | None = None) -> Tensor:
        """Estimate the cost of rows without evaluating them: the number of their tokens, if the removal removes tokens.

        Args:
            coalitions (Tensor): Shape ``(M, n)``. bool, or numbers that are 0 or 1.
            examples (Tensor, optional): Example of the batch that each row belongs to. Shape ``(M,)``, int64.
                Default: None, the only example

        Returns:
            Tensor: Relative cost of each row, at least 1. Shape ``(M,)``, int64. 1 if all rows cost the same.

        Raises:
            TypeError: If ``coalitions`` or ``examples`` is not a tensor of real numbers.
            ValueError: If ``coalitions`` or ``examples`` has the wrong shape or values.
        """
        return 1 + self._model.masked.sizes(*self._check_rows(coalitions, examples))

    @contextmanager
    def report_rows(self, progress: Callable[[int], object]) -> Iterator[None]:
        """Call a function with the number of rows of each pass, including those of :meth:`add_cost`, until exit.

        Args:
            progress (Callable): Function of the number of rows, for example the ``update`` of a progress bar.
        """
        self._model.on_rows = progress
        try:
            yield
        finally:
            self._model.on_rows = None

    @property
    def cost(self) -> Cost:
        """Snapshot of the rows and passes so far."""
        return self._model.cost

    def add_cost(self, cost: Cost) -> None:
        """Add the cost of rows that a method evaluated without the game.

        Args:
            cost (Cost): Rows and passes.
        """
        self._model.count(cost)

    @functools.cached_property
    def captum_target(self) -> list[int | tuple[int, ...]] | None:
        """Target of each example, in the form that Captum's own classes accept."""
        if self._model.aggregates:
            return None
        if self._targets.indices is not None:
            return [index[0] if len(index) == 1 else index for index in self._targets.indices]
        return None if self.targets is None else self.targets.tolist()

    def _model_in_precision(self, dtype: torch.dtype) -> BatchedModel:
        """Return the model with converted weights, or the model itself if it does not run with them."""
        if dtype not in self._converted:
            self._converted[dtype] = self._convert(dtype) or self._model
        return self._converted[dtype]

    def _convert(self, dtype: torch.dtype) -> BatchedModel | None:
        forward_func = models.in_precision(self.call.forward_func, dtype)
        if forward_func is None or self._model.aggregates:
            return None
        try:
            # A removal that was created with a module of the original model does not fit the converted one.
            model = self._model.with_masked(self.removal.bind(replace(self.call, forward_func=forward_func)))
            with torch.no_grad():
                model.evaluate(self.exists[:1], torch.zeros(1, dtype=torch.long), self._read_outcome)
        except (ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            # The model combines its weights with tensors of another dtype.
            return None
        return model

    def _select(self, output: Tensor, examples: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits ``(rows, classes)`` and the target of each row."""
        if self._model.aggregates:
            return output.reshape(1, 1), torch.zeros(1, dtype=torch.long, device=output.device)
        return self._targets.select(output, examples)

    def _read_outcome(self, output: Tensor, examples: Tensor) -> Columns:
        logits, target = self._select(output, examples)
        return read_outcome(logits, target, examples, self._reward, self.head)

    def _read_probabilities(self, output: Tensor, examples: Tensor) -> Columns:
        return read_probabilities(self._select(output, examples)[0], self.head)

    def _keep_output(self, output: Tensor, examples: Tensor) -> Columns:
        return (output.reshape(1, 1) if self._model.aggregates else output,)

    def _check_rows(self, coalitions: Tensor, examples: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the coalitions as bool, without players that an example lacks, and the examples, on the CPU."""
        coalitions = _check_tensor("coalitions", coalitions)
        if coalitions.dim() != 2 or coalitions.shape[1] != self.n_players:
            raise ValueError(
                f"coalitions has shape {tuple(coalitions.shape)}; pass (M, {self.n_players}), one column per player"
            )
        if coalitions.dtype is not torch.bool and not bool(((coalitions == 0) | (coalitions == 1)).all()):
            raise ValueError("coalitions contains values other than 0 and 1; pass 1 for present players")
        examples = self._check_examples(examples, len(coalitions))
        return coalitions.bool().cpu() & self.exists[examples], examples

    def _check_examples(self, examples: Tensor | None, rows: int) -> Tensor:
        if examples is None:
            if self.n_examples > 1:
                raise ValueError(
                    f"examples is None, but the game has {self.n_examples} examples; pass one index per row"
                )
            return torch.zeros(rows, dtype=torch.long)
        examples = _check_tensor("examples", examples).cpu()
        if examples.shape != (rows,) or examples.is_floating_point() or examples.dtype is torch.bool:
            raise ValueError(
                f"examples has shape {tuple(examples.shape)} and dtype {examples.dtype}; pass one integer index "
                f"per row, shape ({rows},)"
            )
        if rows and not 0 <= int(examples.min()) <= int(examples.max()) < self.n_examples:
            raise ValueError(f"examples has indices outside 0 to {self.n_examples - 1}; pass indices of examples")
        return examples.long()

    def _checked_outcome(self, columns: Columns, coalitions: Tensor, examples: Tensor) -> Outcome:
        rewards, confidences, predictions, status = columns
        self._check_status(status, coalitions, examples)
        return Outcome(rewards, confidences, predictions)

    def _check_status(self, status: Tensor, coalitions: Tensor, examples: Tensor) -> None:
        """Raise a ValueError that names the first coalition whose outcome is not finite, if there is one."""
        if not bool(status.any()):
            return
        row = int(status.nonzero()[0])
        is_logits = int(status[row]) == LOGITS_NOT_FINITE
        source = "forward_func returned non-finite logits" if is_logits else "reward returned a non-finite value"
        present = self.ids[coalitions[row]].tolist()
        listed = ", ".join(map(str, present[:20])) + (", ..." if len(present) > 20 else "")
        raise ValueError(
            f"{source} for example {int(examples[row])} with {len(present)} of {self.n_players} players present: "
            f"{{{listed}}}"
        )


def _check_tensor(name: str, value: object) -> Tensor:
    """Return a tensor of real numbers without its gradients, or raise a TypeError that names the argument."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; pass a tensor")
    if value.is_complex() or value.layout is not torch.strided:
        raise TypeError(
            f"{name} has dtype {value.dtype} and layout {value.layout}; pass a dense tensor of real numbers"
        )
    return value.detach()


def _as_images(to_images: ToImages, pixel_values: Tensor) -> Tensor:
    """Convert pixel values ``(M, C, H, W)`` to images ``(M, H, W, 3)``, and check the result."""
    images = to_images(pixel_values)
    rows, _, height, width = pixel_values.shape
    if not isinstance(images, Tensor) or images.shape != (rows, height, width, 3):
        returned = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"to_images returned {returned}; return a tensor of shape {(rows, height, width, 3)}")
    return images


def _prepare(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    *,
    baselines: Baselines,
    target: Target,
    additional_forward_args: ForwardArgs,
    feature_mask: TensorOrTuple | None,
    removal: Removal | str | None,
    reward: str | Reward,
    perturbations_per_eval: int | None,
) -> tuple[BatchedModel, Targets, Removal, Reward]:
    """Check the arguments of a game, and bind the model to them. The model does not run."""
    if perturbations_per_eval is not None:
        check_positive_int("perturbations_per_eval", perturbations_per_eval)
        perturbations_per_eval = operator.index(perturbations_per_eval)
    tensors = tuple(x.detach() for x in check_inputs(inputs))
    models.check_images(forward_func, tensors)
    reward_function = head_of(forward_func).reward(get_reward(reward))
    targets = Targets(parse_target(target, len(tensors[0])))
    n_classes = models.num_classes(forward_func)
    if n_classes is not None:
        targets.check_classes(n_classes, required=traits_of(reward_function).needs_target)
    removal = get_removal(removal) or default_removal(forward_func, tensors, has_baselines=baselines is not None)
    call = ForwardCall(
        forward_func=forward_func,
        inputs=tensors,
        baselines=check_baselines(baselines, tensors),
        additional_forward_args=forward_arguments(additional_forward_args),
        players=_make_players(forward_func, tensors, feature_mask, removal),
    )
    models.warn_about_images(forward_func, tensors)
    model = BatchedModel(
        removal.bind(call), perturbations_per_eval=perturbations_per_eval, has_target=targets.indices is not None
    )
    return model, targets, removal, reward_function


def _make_players(
    forward_func: ForwardFunc, inputs: tuple[Tensor, ...], feature_mask: TensorOrTuple | None, removal: Removal
) -> Players:
    """Create the players from the user's mask or from the removal's default."""
    if feature_mask is not None:
        return players_from_mask(feature_mask, inputs)
    mask = removal.default_mask(forward_func, inputs)
    players = players_from_mask(scalar_mask(inputs) if mask is None else mask, inputs)
    if len(players.ids) > MAX_PLAYERS:
        raise ValueError(_too_many_players(forward_func, len(players.ids), inputs, removal.patch_size(forward_func)))
    return players


def _too_many_players(
    forward_func: ForwardFunc, n: int, inputs: tuple[Tensor, ...], patch_size: tuple[int, int] | None
) -> str:
    """Return an error message that suggests a coarser mask, or another model or input if one was probably meant."""
    suggestion = "a feature_mask that groups values into players"
    if len(inputs) == 1 and inputs[0].dim() == 4:
        height, width = inputs[0].shape[2:]
        # Patches of other large images are probably 16 x 16 pixels, as in the paper.
        patch_height, patch_width = patch_size or ((16, 16) if min(height, width) >= 96 else (1, 1))
        # The suggested players consist of whole patches. Their number is well below the limit, because the cost grows
        # with its square.
        multiple = 1
        while -(-height // (multiple * patch_height)) * -(-width // (multiple * patch_width)) > MAX_PLAYERS // 2:
            multiple += 1
        player_size = (multiple * patch_height, multiple * patch_width)
        suggestion = f"feature_mask=patch_mask({(height, width)}, {player_size})"
        if models.module_of(forward_func) is None:
            suggestion += (
                ". If forward_func is a function around a transformers model, pass the model itself, whose patches are "
                "then the players"
            )
    elif len(inputs) == 1 and inputs[0].dim() == 3 and len(inputs[0]) in (1, 3):
        suggestion += f". If inputs is one image (C, H, W) = {tuple(inputs[0].shape)}, pass x[None]"
    return (
        f"feature_mask is None, which makes {n:,} players, and a full ranking needs {n * (n + 1) // 2:,} rows for each "
        f"example; pass {suggestion}"
    )
