"""The game: rows of coalitions -> logits -> rewards, in chunks."""

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_moxi import models
from captum_moxi.arguments import check_baselines, check_inputs, check_positive_int, read_target
from captum_moxi.players import Players, make_players, scalar_mask
from captum_moxi.removal import ForwardCall, Removal, check_removal, default_removal
from captum_moxi.rewards import REWARDS, Reward, get_reward, predicted, probability

MAX_PLAYERS = 600
# a row that keeps its activations for a backward pass takes the memory of some ten that do not
BACKWARD_ROWS = 8
NO_GRADIENT = "pass a screen that needs no gradient, such as LastGainsScreen"


@dataclass(frozen=True)
class Outcome:
    """What the model says of coalitions.

    Args:
        rewards (Tensor): ``(M,)``, in the reward's dtype.
        confidences (Tensor): ``(M,)`` floating: P(target), NaN where there is no target.
        predictions (Tensor): ``(M,)`` int64: the predicted class; of a single logit, 0 where positive, else -1.
    """

    rewards: Tensor
    confidences: Tensor
    predictions: Tensor


class CoalitionGame:
    r"""
    A cooperative game: players are features, the value of a coalition is the reward of the model's output when only
    these are present.

    The game of one input is a function of coalitions alone, so that it is itself a ``forward_func`` for every Captum
    perturbation method and a value function for other game-theory libraries, under exactly the removal and reward
    that MoXI uses::

        >>> game = CoalitionGame(model, x, target=y)
        >>> ShapleyValueSampling(game).attribute(torch.ones(1, game.n_players))

    Args:
        forward_func (Callable): The model, a transformers model as it is, or any function of it that returns logits.
        inputs (Tensor or tuple[Tensor, ...]): As in ``captum.attr.FeatureAblation``.
        target (int, tuple, Tensor or list, optional): As in ``captum.attr.FeatureAblation``. For outputs of more
            than two dimensions, classes are the second.
            Default: None
        baselines (scalar, Tensor or tuple, optional): As in ``captum.attr.FeatureAblation``. Choosing any
            chooses baseline fill, if ``removal`` is None.
            Default: None
        additional_forward_args (Any, optional): As in ``captum.attr.FeatureAblation``.
            Default: None
        feature_mask (Tensor or tuple[Tensor, ...], optional): As in ``captum.attr.FeatureAblation``. By default
            the patches of a transformers image model, else every value is a player.
            Default: None
        removal (Removal, optional): How absent players are taken away. By default token removal where
            the model has patch tokens, else baseline fill.
            Default: None
        reward (str or Callable, optional): ``log_odds``, ``log_probability``, ``probability``, ``logit``,
            ``output``, ``contrast(a, b)``, or a function ``(logits, target) -> (rows,)``.
            Default: ``"log_odds"``
        perturbations_per_eval (int, optional): At most this many coalitions times the batch size in one forward pass.
            Under baseline fill a pass then holds whole copies of the batch, as in Captum, for functions to which a
            row's place in the batch matters; an example that needs fewer coalitions is repeated as it is. By default
            rows of any examples, as many as the memory there is allows.
            Default: None

    Attributes:
        n_players (int): n, the number of players.
        ids (Tensor): ``(n,)`` int64: the players' ids in the feature mask, ascending; the columns of a coalition.
        exists (Tensor): ``(B, n)`` bool: which players each example has.
        targets (Tensor or None): ``(B,)`` int64: the class of each example that confidences are of; None where the
            reward goes without.
        full (Outcome): What the model says of each example with all its players, ``(B,)``.
        n_games (int): B, the examples; 1 for a ``forward_func`` that returns one value for the whole batch.
        call (ForwardCall): The inputs, baselines and arguments as they are passed on, and the players.
        output_dtype (torch.dtype): What the model returns.
        rounds_relatively (bool): Whether the reward's rounding error is in proportion to the reward.
        n_rows (int): How many rows went through the model so far, the first forward of the inputs included.
        n_forwards (int): In how many forward passes.
        n_backward_rows (int): How many of the rows went back through the model, for ``effects``.

    Raises:
        ValueError: shapes, values or options that do not fit; see the message. Also in a call, where
            the model returns logits that are not finite, with the coalition named.
        TypeError: an argument of the wrong type.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        baselines: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Tensor | tuple[Tensor, ...] | None = None,
        removal: Removal | None = None,
        reward: str | Reward = "log_odds",
        perturbations_per_eval: int | None = None,
    ) -> None:
        if perturbations_per_eval is not None:
            check_positive_int("perturbations_per_eval", perturbations_per_eval)
        tensors = check_inputs(inputs)
        batch = len(tensors[0])
        self._reward = get_reward(reward)
        self._reward_is_named = isinstance(reward, str)
        # a probability's rounding error is in proportion to it; the others' is to the logits behind them
        self.rounds_relatively = self._reward is probability
        self._targets = read_target(target, batch)
        self._check_known_classes(forward_func)
        check_removal(removal)
        self.removal = removal or default_removal(forward_func, tensors, has_baselines=baselines is not None)
        masks = self.removal.default_mask(forward_func, tensors) if feature_mask is None else feature_mask
        players = make_players(scalar_mask(tensors) if masks is None else masks, tensors)
        if feature_mask is None:
            _check_player_count(players, tensors, self.removal.patch_size(forward_func))
        args = additional_forward_args
        self.call = call = ForwardCall(
            forward_func=forward_func,
            inputs=tensors,
            baselines=check_baselines(baselines, tensors),
            additional_forward_args=() if args is None else args if isinstance(args, tuple) else (args,),
            players=players,
        )
        self._model = self.removal.bind(call)
        self._per_eval = perturbations_per_eval
        # how many times fewer rows a pass takes than was wanted, by what a row takes
        self._shrink: dict[int, int] = {}
        self._one_value_a_batch = False
        self.ids = players.ids
        self.n_players = len(self.ids)
        self.n_games = call.batch
        self.n_rows = self.n_forwards = self.n_backward_rows = 0
        self.targets: Tensor | None = None
        self.output_dtype = torch.get_default_dtype()
        with torch.no_grad():
            self.full = self._look(call)

    def __call__(self, coalitions: Any) -> Any:
        """The value of coalitions of the one input.

        Args:
            coalitions (Tensor or ndarray): ``(M, n)``, or ``(n,)`` for one: bool, or numbers that are 0 or 1.

        Returns:
            Tensor or ndarray: ``(M,)``, what came in kind and on its device.
        """
        if self.n_games > 1:
            raise ValueError(
                f"this game is of {self.n_games} inputs; make one game an input, or call outcome(coalitions, examples)"
            )
        rows = torch.as_tensor(coalitions)
        rewards = self.outcome(rows[None] if rows.dim() == 1 else rows).rewards
        return rewards.numpy() if isinstance(coalitions, np.ndarray) else rewards.to(rows.device)

    def outcome(self, coalitions: Tensor, examples: Tensor | None = None) -> Outcome:
        """Reward, confidence and prediction of coalitions.

        Args:
            coalitions (Tensor): ``(M, n)``, bool or numbers that are 0 or 1.
            examples (Tensor, optional): ``(M,)`` int64: which example of the batch each row is of.
                Default: all of the first

        Returns:
            Outcome: on the CPU.
        """
        coalitions, examples = self._rows_of(coalitions, examples)
        with torch.no_grad():
            values = self._in_chunks(coalitions, examples, self._evaluate, self._model.sizes(coalitions, examples))
        if values is None:
            empty = torch.empty(0)
            return Outcome(empty, empty, empty.long())
        reward, confidence, prediction, broken = values
        self._check_finite(broken, coalitions, examples)
        return Outcome(reward, confidence, prediction)

    def class_probabilities(self, coalitions: Tensor, examples: Tensor | None = None) -> Tensor:
        """P of every class for each coalition.

        Args:
            coalitions (Tensor): ``(M, n)``, bool or numbers that are 0 or 1.
            examples (Tensor, optional): ``(M,)`` int64: which example of the batch each row is of.
                Default: all of the first

        Returns:
            Tensor: ``(M, classes)`` floating, on the CPU; of a single logit ``(M, 1)``, the sigmoid.
        """
        coalitions, examples = self._rows_of(coalitions, examples)
        run = functools.partial(self._evaluate, value=self._probabilities)
        with torch.no_grad():
            values = self._in_chunks(coalitions, examples, run, self._model.sizes(coalitions, examples))
        return torch.empty(0, 0) if values is None else values[0]

    def approximate(self, coalitions: Tensor, examples: Tensor, dtype: torch.dtype) -> Tensor:
        """Rewards of coalitions as ``torch.autocast`` computes them in that dtype, ``(M,)``, where it fails not finite.

        Args:
            coalitions (Tensor): ``(M, n)``, bool or numbers that are 0 or 1.
            examples (Tensor): ``(M,)`` int64: which example of the batch each row is of.
            dtype (torch.dtype): torch.bfloat16 or torch.float16.

        Returns:
            Tensor: on the CPU.
        """
        coalitions = self._check_coalitions(coalitions)
        sizes = self._model.sizes(coalitions, examples)
        with torch.no_grad(), torch.autocast(self.call.inputs[0].device.type, dtype):
            values = self._in_chunks(coalitions, examples, self._evaluate, sizes)
        return torch.empty(0) if values is None else values[0]

    def effects(self, coalitions: Tensor, examples: Tensor | None = None) -> Tensor:
        r"""First-order estimates of what every player is worth to a coalition, from one backward pass a row.

        The model is relaxed to players that are there in part, by a gate from 0 (absent) to 1 (present) at each stage
        of the model where players come in. The derivative of the reward in a player's gates, summed over stages, stands
        for :math:`f(A \cup b) - f(A \setminus b)`. Under baseline fill the one stage is the input, ``baseline + gate *
        (input - baseline)``, so that the estimate is gradient times (input - baseline), summed over the player. Where
        tokens are taken out, every attention is a stage, and the gate weighs what the token's keys get of it.

        Args:
            coalitions (Tensor): ``(M, n)``, bool or numbers that are 0 or 1.
            examples (Tensor, optional): ``(M,)`` int64: which example of the batch each row is of.
                Default: all of the first

        Returns:
            Tensor: ``(M, stages, n)`` floating, on the CPU: the derivative at each stage.

        Raises:
            ValueError: a forward function or removal without such a derivative; the message says which.
        """
        coalitions, examples = self._rows_of(coalitions, examples)
        # gradients are wanted, also of a caller that has turned them off
        with torch.inference_mode(False), torch.enable_grad():
            # absent players go through the model, too
            sizes = self._model.sizes(self.exists[examples], examples)
            values = self._in_chunks(coalitions, examples, self._differentiate, sizes, rows_are=BACKWARD_ROWS)
        return torch.empty(0, 1, self.n_players) if values is None else values[0]

    def _rows_of(self, coalitions: Tensor, examples: Tensor | None) -> tuple[Tensor, Tensor]:
        """Coalitions, checked, and the example of each, all the first by default; on the CPU."""
        coalitions = self._check_coalitions(coalitions)
        return coalitions, torch.zeros(len(coalitions), dtype=torch.long) if examples is None else examples.cpu()

    def _in_chunks(
        self,
        coalitions: Tensor,
        examples: Tensor,
        run: Callable[[Tensor, Tensor], tuple[Tensor, ...] | None],
        sizes: Tensor,
        rows_are: int = 1,
    ) -> tuple[Tensor, ...] | None:
        """What ``run`` returns of every row, on the CPU; None of no rows. A row of it takes the memory of several."""
        values: list[tuple[Tensor, ...]] = []
        done: list[Tensor] = []
        for size in sizes.unique().tolist():
            todo = self._slots((sizes == size).nonzero().flatten(), examples)
            wanted = self._limit(size)
            while len(todo):
                # passes of even length, rather than a short one at the end
                limit = max(1, wanted // self._shrink.get(rows_are, rows_are))
                slots = todo[: math.ceil(len(todo) / math.ceil(len(todo) / limit))]
                rows = slots.flatten()
                try:
                    part = run(*self._padded(rows, slots.shape[1], coalitions, examples))
                except torch.OutOfMemoryError:
                    if len(slots) == 1:
                        raise
                    # half as many from now on, at every size in proportion
                    self._shrink[rows_are] = math.ceil(wanted / (len(slots) // 2))
                    continue
                if part is None:
                    wanted = self._limit(size)
                    continue
                if self._copies_batch:
                    given = rows >= 0
                    part, rows = tuple(column[given.to(column.device)] for column in part), rows[given]
                values.append(part)
                done.append(rows)
                todo = todo[len(slots) :]
        if not done:
            return None
        place = torch.cat(done).argsort()
        return tuple(torch.cat(parts).cpu()[place] for parts in zip(*values, strict=True))

    def _padded(self, rows: Tensor, width: int, coalitions: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """The coalitions of rows and their examples; a place without a coalition shows its example whole."""
        if not self._copies_batch:
            return coalitions[rows], examples[rows]
        given = rows >= 0
        owners = torch.where(given, examples[rows], torch.arange(width).repeat(len(rows) // width))
        return torch.where(given[:, None], coalitions[rows], self.exists[owners]), owners

    def _slots(self, rows: Tensor, examples: Tensor) -> Tensor:
        """Rows as they go through the model together: ``(slots, 1)`` one by one, or ``(slots, B)`` copies of the batch.

        A copy of the batch has -1 where an example has no more rows.
        """
        if not self._copies_batch:
            return rows[:, None]
        owners = examples[rows]
        turn = (owners[:, None] == torch.arange(self.n_games)).long().cumsum(0).gather(1, owners[:, None])[:, 0] - 1
        slots = torch.full((int(turn.max()) + 1, self.n_games), -1)
        slots[turn, owners] = rows
        return slots

    @property
    def captum_target(self) -> list[Any] | None:
        """The target of every example, as Captum's own classes take it for logits ``(B, classes)`` and wider."""
        if self._targets is not None:
            return [target[0] if len(target) == 1 else target for target in self._targets]
        return None if self.targets is None else self.targets.tolist()

    @property
    def _copies_batch(self) -> bool:
        return self._per_eval is not None and self._model.copies_batch

    def _limit(self, size: int) -> int:
        """How many slots of that size go into one forward pass."""
        if self._one_value_a_batch:
            return 1
        if self._per_eval is None:
            return self._model.rows_at_once(size)
        return self._per_eval if self._copies_batch else self._per_eval * self.n_games

    def _evaluate(
        self,
        coalitions: Tensor,
        examples: Tensor,
        value: Callable[[Tensor, Tensor], tuple[Tensor, ...]] | None = None,
    ) -> tuple[Tensor, ...] | None:
        """What ``value`` makes of the output of rows that share a forward pass, or None; by default what they pay."""
        if self._one_value_a_batch:
            output = _as_tensor(self._model.whole_batch(coalitions[0]))
        else:
            output = _as_tensor(self._model(coalitions, examples))
            if self._per_eval is None and output.numel() == 1 < len(coalitions):
                # with one example the first pass does not tell a value for the row from one for the batch; this does
                self._take_one_value_a_batch(output)
                return None
            _check_rows(output, len(coalitions))
        self.n_rows += len(coalitions)
        self.n_forwards += 1
        return (value or self._value)(output, examples)

    def _differentiate(self, coalitions: Tensor, examples: Tensor) -> tuple[Tensor]:
        """The derivative of the reward in every player's gate, of rows that share a forward and a backward pass."""
        if self._one_value_a_batch:
            raise ValueError(f"forward_func returned one value for the whole batch; {NO_GRADIENT}")
        try:
            relaxed, gates = self._model.relaxed(coalitions, examples)
        except RuntimeError as error:
            # what torch says of numpy() and the like
            if "requires grad" in str(error):
                raise ValueError(f"forward_func cannot be differentiated ({error}); {NO_GRADIENT}") from error
            raise
        output = _as_tensor(relaxed)
        _check_rows(output, len(coalitions))
        rewards = self._value(output, examples)[0]
        if not rewards.requires_grad:
            raise ValueError(f"forward_func and reward have no gradient in the inputs; {NO_GRADIENT}")
        effects = torch.autograd.grad(rewards.sum(), gates, allow_unused=True)
        self.n_rows += len(coalitions)
        self.n_backward_rows += len(coalitions)
        self.n_forwards += 1
        if all(effect is None for effect in effects):
            raise ValueError(f"forward_func and reward have no gradient in the inputs; {NO_GRADIENT}")
        none = torch.zeros_like(gates[0])
        return (torch.stack([none if effect is None else effect for effect in effects], 1),)

    def _value(self, output: Tensor, examples: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Reward, confidence, prediction and what is not finite, of every row, on the model's device."""
        logits, target = self._select(output, examples)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        rewards = self._rewards(logits, target, examples)
        if not isinstance(rewards, Tensor) or rewards.shape != (len(logits),):
            got = tuple(rewards.shape) if isinstance(rewards, Tensor) else type(rewards).__name__
            raise ValueError(f"reward returned {got} for logits {tuple(logits.shape)}; return one value a row")
        if target is None:
            confidences = torch.full((len(logits),), torch.nan, device=logits.device)
        else:
            confidences = probability(logits, target)
        # 0: finite, 1: the logits are not, 2: the reward of finite logits is not
        broken = torch.where(logits.isfinite().all(1), torch.where(rewards.isfinite(), 0, 2), 1)
        return rewards, confidences, predicted(logits), broken

    def _probabilities(self, output: Tensor, examples: Tensor) -> tuple[Tensor]:
        logits = self._select(output, examples)[0].float()
        return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1),)

    def _rewards(self, logits: Tensor, target: Any, examples: Tensor) -> Any:
        """The reward of every row; a game whose reward differs by example overrides this."""
        return self._reward(logits, target)

    def _select(self, output: Tensor, examples: Tensor) -> tuple[Tensor, Any]:
        """Logits ``(rows, classes)`` and the target of each row."""
        if self._one_value_a_batch:
            return output.reshape(1, 1), torch.zeros(1, dtype=torch.long, device=output.device)
        if output.dim() == 1:
            output = output[:, None]
        if self._targets is None:
            if output.dim() == 2 and output.shape[1] == 1:
                return output, torch.zeros(len(output), dtype=torch.long, device=output.device)
            return output.flatten(1), None
        target = torch.tensor([self._targets[i][0] for i in examples.tolist()], device=output.device)
        if output.dim() > 2:
            rest = torch.tensor([self._targets[i][1:] for i in examples.tolist()], device=output.device)
            output = output.movedim(1, -1)[(torch.arange(len(output), device=output.device), *rest.unbind(1))]
        return output, target

    def _look(self, call: ForwardCall) -> Outcome:
        """Run the inputs as they are, once: is it one row an example, and does the target fit?"""
        output = _as_tensor(models.call_model(call.forward_func, *call.inputs, *call.additional_forward_args))
        self.n_rows += call.batch
        self.n_forwards += 1
        self.output_dtype = output.dtype
        if output.dim() == 0 or (call.batch > 1 and output.numel() == 1):
            self._take_one_value_a_batch(output)
        elif len(output) != call.batch:
            raise ValueError(
                f"forward_func returned shape {tuple(output.shape)} for a batch of {call.batch}; return one row an "
                "example, or one value for the whole batch"
            )
        elif any(len(x) != call.batch for x in call.inputs):
            raise ValueError(
                f"inputs have first dimensions {[len(x) for x in call.inputs]}; give every tensor the same batch"
            )
        else:
            self._check_target(output)
        self.exists = self.call.players.exists.expand(self.n_games, -1)
        examples = torch.arange(self.n_games)
        if self._reward_is_named and self._reward is not REWARDS["output"]:
            _warn_if_probabilities(output)
        target = self._select(output, examples)[1]
        self.targets = None if target is None else target.cpu()
        rewards, confidences, predictions, broken = (part.cpu() for part in self._value(output, examples))
        self._check_finite(broken, self.exists, examples)
        return Outcome(rewards, confidences, predictions)

    def _take_one_value_a_batch(self, output: Tensor) -> None:
        """The forward function aggregates the batch: from here on the batch is one game."""
        reason = f"forward_func returned one value for the whole batch, shape {tuple(output.shape)}"
        if self._per_eval not in (None, 1):
            raise ValueError(f"{reason}; perturbations_per_eval must then be 1, not {self._per_eval}")
        if not self.call.players.shared:
            raise ValueError(f"{reason}; the first dimension of feature_mask must then be 1")
        if self._targets is not None:
            raise ValueError(f"{reason}; target must then be None")
        self._one_value_a_batch = True
        self.n_games = 1

    def _check_known_classes(self, forward_func: Callable[..., Any]) -> None:
        """Whether the target fits a transformers model, whose config tells before anything runs."""
        classes = models.num_classes(forward_func)
        if classes is not None:
            self._check_classes(classes)

    def _check_target(self, output: Tensor) -> None:
        if output.dim() <= 2:
            self._check_classes(1 if output.dim() == 1 else output.shape[1])
        elif self._targets is not None or self._reward_is_named:
            shape = tuple(output.shape[1:])
            for target in self._targets or [()]:
                if len(target) != len(shape) or any(i >= size for i, size in zip(target, shape, strict=True)):
                    raise ValueError(
                        f"target is {target or None} where the model returns {shape} for each example; pass a tuple of "
                        f"{len(shape)} indices, the class first"
                    )

    def _check_classes(self, classes: int) -> None:
        if self._targets is None:
            if classes > 1 and self._reward_is_named:
                raise ValueError(
                    f"target is None, and the model returns {classes} classes; pass target, which the reward needs"
                )
            return
        for target in self._targets:
            if len(target) > 1:
                raise ValueError(f"target is {target} where the model returns classes only; pass one index an example")
            if target[0] >= classes:
                single = (
                    "; a single logit's is 0, and the other is explained by negating the logit" if classes == 1 else ""
                )
                raise ValueError(
                    f"target is {target[0]}, and the model has classes 0 to {classes - 1}; pass one of them{single}"
                )

    def _check_coalitions(self, coalitions: Tensor) -> Tensor:
        if coalitions.dim() != 2 or coalitions.shape[1] != self.n_players:
            raise ValueError(
                f"coalitions have shape {tuple(coalitions.shape)}; pass (M, {self.n_players}), one column a player"
            )
        if coalitions.dtype is torch.bool:
            return coalitions.cpu()
        if not bool(((coalitions == 0) | (coalitions == 1)).all()):
            raise ValueError("coalitions hold values other than 0 and 1; pass 1 where a player is present")
        return coalitions.bool().cpu()

    def _check_finite(self, broken: Tensor, coalitions: Tensor, examples: Tensor) -> None:
        if not bool(broken.any()):
            return
        row = int(broken.nonzero()[0])
        what = "forward_func returned logits that are" if int(broken[row]) == 1 else "reward returned a value that is"
        present = self.ids[coalitions[row]].tolist()
        listed = ", ".join(map(str, present[:20])) + (", ..." if len(present) > 20 else "")
        raise ValueError(
            f"{what} not finite for example {int(examples[row])} with "
            f"{len(present)} of {self.n_players} players present: {{{listed}}}"
        )


def _check_player_count(players: Players, inputs: tuple[Tensor, ...], patch: tuple[int, int] | None) -> None:
    n = len(players.ids)
    if n <= MAX_PLAYERS:
        return
    x = inputs[0]
    cure = "a feature_mask that groups values into players"
    if len(inputs) == 1 and x.dim() == 4:
        # whole patches to a player, as many as bring the players under the limit
        size, (height, width) = tuple(x.shape[2:]), patch or (1, 1)
        times = 1
        while -(-size[0] // (times * height)) * -(-size[1] // (times * width)) > MAX_PLAYERS // 2:
            times += 1
        cure = f"feature_mask=patch_mask({size}, {(times * height, times * width)})"
    raise ValueError(
        f"feature_mask is None, which makes {n:,} players here, and a full ranking takes {n * (n + 1) // 2:,} forward "
        f"rows an example; pass {cure}"
    )


def _warn_if_probabilities(output: Tensor) -> None:
    """Say so where a model's output looks like a softmax's, whose confidences would be taken of probabilities."""
    if output.dim() != 2 or output.shape[1] < 2 or not output.is_floating_point():
        return
    sums = output.float().sum(1)
    if bool((output >= 0).all()) and bool((sums - 1).abs().max() < 1e-3):
        warnings.warn(
            "forward_func seems to return probabilities: they are not negative and sum to 1. Rewards, confidences and "
            "predictions take them for logits; pass the model without its softmax, or one that returns their logarithm",
            stacklevel=2,
        )


def _check_rows(output: Tensor, rows: int) -> None:
    if output.shape[:1] != (rows,):
        raise ValueError(
            f"forward_func returned shape {tuple(output.shape)} for {rows} rows; return one row an example, or pass "
            "perturbations_per_eval=1 for one value a batch"
        )


def _as_tensor(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, int | float):
        # as Captum does: int64 and float64, Python's own precision
        return torch.tensor(output, dtype=torch.int64 if isinstance(output, int) else torch.float64)
    raise TypeError(f"forward_func returned a {type(output).__name__}; return a tensor of logits, or a number")
