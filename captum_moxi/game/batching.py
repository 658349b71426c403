"""Groups rows into passes that fit into memory, runs them, and counts what they cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from captum_moxi import models
from captum_moxi.game.outputs import as_tensor, check_row_count
from captum_moxi.kernels import KernelMemory, fast_kernels
from captum_moxi.memory import is_out_of_memory, too_large
from captum_moxi.removal import MaskedModel

# A row that keeps its activations for a backward pass needs the memory of about this many forward rows.
ROWS_PER_BACKWARD_ROW = 8
NO_GRADIENT = "pass a screen that needs no gradient, such as LastGainsScreen"
# What to do about errors of PyTorch, by a part of their message.
NOT_DIFFERENTIABLE = {
    # numpy() and similar methods
    "requires grad": NO_GRADIENT,
    "nference tensor": f"create the model and its arguments outside torch.inference_mode(), or {NO_GRADIENT}",
    "inplace operation": f"do not change intermediate results in place, or {NO_GRADIENT}",
}

# Tensors that are read from the output of a pass, each with one entry per row.
Columns: TypeAlias = tuple[Tensor, ...]
ReadOutput: TypeAlias = Callable[[Tensor, Tensor], Columns]
RunPass: TypeAlias = Callable[[Tensor, Tensor], Columns | None]


@dataclass(frozen=True)
class Cost:
    """What a game has cost so far.

    Args:
        rows (int, optional): Rows that the model evaluated, including those of the unchanged inputs.
            Default: 0
        passes (int, optional): Forward passes.
            Default: 0
        backward_rows (int, optional): Rows that also went backward through the model.
            Default: 0
        uncounted (int, optional): Calls of functions that may have evaluated rows which could not be counted.
            Default: 0
    """

    rows: int = 0
    passes: int = 0
    backward_rows: int = 0
    uncounted: int = 0

    @property
    def weighted_rows(self) -> int:
        """Rows, where a row that also goes backward counts as three."""
        return self.rows + 2 * self.backward_rows

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            rows=self.rows + other.rows,
            passes=self.passes + other.passes,
            backward_rows=self.backward_rows + other.backward_rows,
            uncounted=self.uncounted + other.uncounted,
        )

    def __sub__(self, earlier: "Cost") -> "Cost":
        return Cost(
            rows=self.rows - earlier.rows,
            passes=self.passes - earlier.passes,
            backward_rows=self.backward_rows - earlier.backward_rows,
            uncounted=self.uncounted - earlier.uncounted,
        )


class BatchedModel:
    """A masked model that evaluates any number of rows, in passes that fit into memory.

    While it runs, it finds out how many rows fit into memory, and whether the model returns one value for the whole
    batch instead of one value for each row.

    Args:
        masked (MaskedModel): Model with players removed.
        perturbations_per_eval (int or None): Captum's limit on the number of copies of the batch in one pass. None
            means as many rows as the memory allows.
        has_target (bool): Whether the user passed a target.

    Attributes:
        aggregates (bool): Whether the model returns one value for the whole batch.
        cost (Cost): Rows and passes so far.
        on_rows (Callable or None): Receives the number of rows of each pass.
    """

    def __init__(self, masked: MaskedModel, *, perturbations_per_eval: int | None, has_target: bool) -> None:
        self.masked = masked
        self.call = masked.call
        self.cost = Cost()
        self.aggregates = False
        self.on_rows: Callable[[int], object] | None = None
        self._per_eval = perturbations_per_eval
        self._has_target = has_target
        # After memory ran out: the divisor of the number of rows per pass, by the memory that a row needs.
        self._divisors: dict[int, int] = {}
        self._kernel_memory = KernelMemory()
        self._counts_into: BatchedModel | None = None

    def with_masked(self, masked: MaskedModel) -> "BatchedModel":
        """Return another model that is called in the same way. What it costs is added to this model as well."""
        model = BatchedModel(masked, perturbations_per_eval=self._per_eval, has_target=self._has_target)
        model.aggregates = self.aggregates
        model._counts_into = self
        return model

    @property
    def n_examples(self) -> int:
        """Number of examples, or 1 if the model returns one value for the whole batch."""
        return 1 if self.aggregates else self.call.batch

    def run_inputs(self) -> Tensor:
        """Run the unchanged inputs once, and find out whether the model returns one value for the whole batch.

        Returns:
            Tensor: Output of the model.

        Raises:
            ValueError: If the output has neither one row for each example nor one value for the whole batch, or if the
                inputs have different batch sizes.
        """
        call = self.call
        has_one_batch_size = all(len(x) == call.batch for x in call.inputs)
        output = self._run_whole_batch(can_split=call.batch > 1 and has_one_batch_size)
        if output is None:
            examples = torch.arange(call.batch)
            everyone = call.players.exists.expand(call.batch, -1)
            columns = self.evaluate(everyone, examples, lambda output, _: (torch.atleast_1d(output),))
            assert columns is not None  # there are examples
            return columns[0][: self.n_examples].to(call.inputs[0].device)
        if output.dim() == 0 or (call.batch > 1 and output.numel() == 1):
            self._set_aggregates(output)
        elif len(output) != call.batch:
            raise ValueError(
                f"forward_func returned shape {tuple(output.shape)} for a batch of {call.batch}; return one row for "
                "each example, or one value for the whole batch"
            )
        elif not has_one_batch_size:
            raise ValueError(
                f"inputs has batch sizes {[len(x) for x in call.inputs]}; pass tensors with the same first dimension"
            )
        return output

    def _run_whole_batch(self, *, can_split: bool) -> Tensor | None:
        """Return the output for the unchanged inputs, or None if memory ran out and the batch can be split."""
        call = self.call
        try:
            # The model may change what it receives, and may overwrite its output in the next pass.
            output = models.call_model(call.forward_func, *call.copied_inputs(), *call.arguments())
            output = as_tensor(output).clone()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if not can_split:
                raise self._too_large(error, call.batch) from error
            return None
        self.count(Cost(rows=call.batch, passes=1))
        return output

    def evaluate(self, coalitions: Tensor, examples: Tensor, read: ReadOutput) -> Columns | None:
        """Run the model on coalitions.

        Args:
            coalitions (Tensor): Shape ``(M, n)``, bool, on the CPU.
            examples (Tensor): Example of each row. Shape ``(M,)``, int64, on the CPU.
            read (Callable): Maps the output of a pass and the examples of its rows to one or more tensors with one
                entry for each row.

        Returns:
            tuple[Tensor, ...] or None: What ``read`` returns for all rows, on the CPU. None if there are no rows.
        """

        def run_pass(coalitions: Tensor, examples: Tensor) -> Columns | None:
            output = self._forward(coalitions, examples)
            return None if output is None else read(output, examples)

        return self._run_in_passes(coalitions, examples, self.masked.sizes(coalitions, examples), run_pass)

    def differentiate(
        self, coalitions: Tensor, examples: Tensor, read_rewards: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor | None:
        """Compute the derivative of the reward with respect to each player's gates.

        Args:
            coalitions (Tensor): Shape ``(M, n)``, bool, on the CPU.
            examples (Tensor): Example of each row. Shape ``(M,)``, int64, on the CPU.
            read_rewards (Callable): Maps the output of a pass and the examples of its rows to rewards ``(rows,)``.

        Returns:
            Tensor or None: Shape ``(M, stages, n)``, floating, on the CPU. None if there are no rows.

        Raises:
            ValueError: If the model or the reward cannot be differentiated.
        """
        if self.aggregates:
            raise ValueError(f"forward_func returned one value for the whole batch; {NO_GRADIENT}")

        def run_pass(coalitions: Tensor, examples: Tensor) -> Columns:
            return (self._backward(coalitions, examples, read_rewards),)

        # A relaxed model also processes absent players, so rows have the size of the full coalition.
        full_coalitions = self.call.players.exists.expand(self.n_examples, -1)[examples]
        sizes = self.masked.sizes(full_coalitions, examples)
        columns = self._run_in_passes(coalitions, examples, sizes, run_pass, rows_per_row=ROWS_PER_BACKWARD_ROW)
        return None if columns is None else columns[0]

    def _forward(self, coalitions: Tensor, examples: Tensor) -> Tensor | None:
        """Return the output of one forward pass, or None if it must be repeated row by row."""
        if self.aggregates:
            output = as_tensor(self.masked.whole_batch(coalitions[0])).clone()
        else:
            # The model may overwrite its output in the next pass.
            with fast_kernels(self._kernel_memory):
                output = as_tensor(self.masked(coalitions, examples)).clone()
            if output.dim() == 0 or (self._per_eval is None and output.numel() == 1 < len(coalitions)):
                # For a single example, only a pass with several rows shows whether there is one value per row or one
                # per batch. The same holds if the whole batch did not fit into memory.
                self._set_aggregates(output)
                return None
            check_row_count(output, len(coalitions))
        self.count(Cost(rows=len(coalitions), passes=1))
        return output

    def _backward(
        self, coalitions: Tensor, examples: Tensor, read_rewards: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Return the derivatives ``(rows, stages, n)`` of one forward and backward pass."""
        try:
            relaxed, gates = self.masked.relaxed(coalitions, examples)
            output = as_tensor(relaxed)
            check_row_count(output, len(coalitions))
            rewards = read_rewards(output, examples)
            if not rewards.requires_grad:
                raise ValueError(f"forward_func and reward have no gradient with respect to the inputs; {NO_GRADIENT}")
            derivatives = torch.autograd.grad(rewards.sum(), gates, allow_unused=True)
        except RuntimeError as error:
            for reason, advice in NOT_DIFFERENTIABLE.items():
                if reason in str(error):
                    first_sentence = str(error).partition(". ")[0]
                    message = f"forward_func or reward cannot be differentiated ({first_sentence}); {advice}"
                    raise ValueError(message) from error
            raise
        self.count(Cost(rows=len(coalitions), passes=1, backward_rows=len(coalitions)))
        if all(derivative is None for derivative in derivatives):
            raise ValueError(f"forward_func and reward have no gradient with respect to the inputs; {NO_GRADIENT}")
        zeros = torch.zeros_like(gates[0])
        return torch.stack([zeros if derivative is None else derivative for derivative in derivatives], 1)

    def count(self, cost: Cost) -> None:
        """Add the cost of rows."""
        self.cost += cost
        if self.on_rows is not None:
            self.on_rows(cost.rows)
        if self._counts_into is not None:
            self._counts_into.count(cost)

    def _run_in_passes(
        self, coalitions: Tensor, examples: Tensor, sizes: Tensor, run_pass: RunPass, rows_per_row: int = 1
    ) -> Columns | None:
        """Run all rows, grouped by size, and return their columns in the order of the rows.

        A row needs the memory of ``rows_per_row`` forward rows.
        """
        columns: list[Columns] = []
        finished: list[Tensor] = []
        for size in sizes.unique().tolist():
            pending = self._slots((sizes == size).nonzero().flatten(), examples)
            slots_per_pass = self._slots_per_pass(size)
            while len(pending):
                limit = max(1, slots_per_pass // self._divisors.get(rows_per_row, rows_per_row))
                # Passes of equal length avoid a short and inefficient pass at the end.
                n_passes = ceil_divide(len(pending), limit)
                slots = pending[: ceil_divide(len(pending), n_passes)]
                rows = slots.flatten()
                try:
                    pass_columns = run_pass(*self._rows_of_pass(rows, slots.shape[1], coalitions, examples))
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    if len(slots) == 1:
                        raise self._too_large(error, len(rows)) from error
                    # Later passes have half as many rows, at every size.
                    self._divisors[rows_per_row] = ceil_divide(slots_per_pass, len(slots) // 2)
                    continue
                if pass_columns is None:
                    slots_per_pass = self._slots_per_pass(size)
                    continue
                if self._copies_batch:
                    is_row = rows >= 0
                    pass_columns = tuple(column[is_row.to(column.device)] for column in pass_columns)
                    rows = rows[is_row]
                columns.append(pass_columns)
                finished.append(rows)
                pending = pending[len(slots) :]
        if not finished:
            return None
        original_order = torch.cat(finished).argsort()
        return tuple(torch.cat(parts).cpu()[original_order] for parts in zip(*columns, strict=True))

    def _too_large(self, error: Exception, rows: int) -> torch.OutOfMemoryError:
        """Return an error about a pass that cannot be made smaller."""
        if rows == 1 and (self.call.batch == 1 or not self.aggregates):
            advice = "pass smaller inputs, or a smaller model or dtype, or use a device with more memory"
            return too_large("a single row", error, advice=advice)
        what = f"a pass of the whole batch of {self.call.batch} examples"
        return too_large(what, error, advice="pass fewer examples at once, or use a device with more memory")

    def _slots(self, rows: Tensor, examples: Tensor) -> Tensor:
        """Arrange rows in slots. The rows of a slot go through the model in the same pass.

        Returns:
            Tensor: Shape ``(slots, 1)`` if rows are independent. Otherwise ``(slots, B)``: each slot is a copy of the
            batch, with -1 for examples that have no more rows.
        """
        if not self._copies_batch:
            return rows[:, None]
        row_examples = examples[rows]
        is_of_example = row_examples[:, None] == torch.arange(self.n_examples)
        slot_of_row = is_of_example.long().cumsum(0).gather(1, row_examples[:, None])[:, 0] - 1
        slots = torch.full((int(slot_of_row.max()) + 1, self.n_examples), -1)
        slots[slot_of_row, row_examples] = rows
        return slots

    def _rows_of_pass(self, rows: Tensor, width: int, coalitions: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coalitions and examples of a pass. Places without a row get the full coalition."""
        if not self._copies_batch:
            return coalitions[rows], examples[rows]
        is_row = rows >= 0
        row_examples = torch.where(is_row, examples[rows], torch.arange(width).repeat(len(rows) // width))
        full_coalitions = self.call.players.exists.expand(self.n_examples, -1)[row_examples]
        return torch.where(is_row[:, None], coalitions[rows], full_coalitions), row_examples

    def _slots_per_pass(self, size: int) -> int:
        """Return how many slots with rows of this size one forward pass processes."""
        if self.aggregates:
            return 1
        if self._per_eval is None:
            return self.masked.rows_per_pass(size)
        return self._per_eval if self._copies_batch else self._per_eval * self.n_examples

    @property
    def _copies_batch(self) -> bool:
        return self._per_eval is not None and self.masked.copies_batch

    def _set_aggregates(self, output: Tensor) -> None:
        """Treat the batch as one example from now on."""
        reason = f"forward_func returned one value for the whole batch, with shape {tuple(output.shape)}"
        if self._per_eval not in (None, 1):
            raise ValueError(f"{reason}, but perturbations_per_eval is {self._per_eval}; pass 1")
        if not self.call.players.shared:
            raise ValueError(f"{reason}, but feature_mask has one mask for each example; pass one mask for all")
        if self._has_target:
            raise ValueError(f"{reason}, but target was passed; pass target=None")
        self.aggregates = True


def ceil_divide(dividend: int, divisor: int) -> int:
    """Return the quotient rounded up, which is exact for ints of any size."""
    return -(-dividend // divisor)
