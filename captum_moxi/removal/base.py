"""What a removal is: how a coalition becomes an input of the model."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_moxi import models
from captum_moxi.players import Players, patch_mask


@dataclass(frozen=True)
class ForwardCall:
    """One call of a model for a batch, as Captum describes it, and its players.

    Args:
        forward_func (Callable): The model.
        inputs (tuple[Tensor, ...]): The inputs, the first dimension being the batch.
        baselines (tuple or None): A number or tensor for every input, or None if the user gave none.
        additional_forward_args (tuple): What follows the inputs in the call.
        players (Players): The players of the inputs.
    """

    forward_func: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    baselines: tuple[Any, ...] | None
    additional_forward_args: tuple[Any, ...]
    players: Players

    @property
    def batch(self) -> int:
        return self.inputs[0].shape[0]

    def arguments(self, examples: Tensor) -> tuple[Any, ...]:
        """The additional arguments for rows of these examples: tensors that have the batch are indexed by it."""
        return tuple(
            arg[examples.to(arg.device)] if self.has_batch(arg) else arg for arg in self.additional_forward_args
        )

    def has_batch(self, argument: Any) -> bool:
        return isinstance(argument, Tensor) and argument.dim() > 0 and argument.shape[0] == self.batch


class MaskedModel(ABC):
    """The model with players taken away: coalitions of the batch's examples -> output."""

    @abstractmethod
    def __call__(self, coalitions: Tensor, examples: Tensor) -> Any:
        """Run the model once.

        Args:
            coalitions (Tensor): ``(rows, n)`` bool on the CPU, all of one size as ``sizes`` counts it.
            examples (Tensor): ``(rows,)`` int64 on the CPU: which example of the batch each row is of.

        Returns:
            What the model returns, one row a coalition.
        """

    def relaxed(self, coalitions: Tensor, examples: Tensor) -> tuple[Any, list[Tensor]]:
        """Run the model differentiably in how far each player is there.

        Args:
            coalitions (Tensor): ``(rows, n)`` bool on the CPU.
            examples (Tensor): ``(rows,)`` int64 on the CPU.

        Returns:
            What the model returns, and gates ``(rows, n)`` that it can be differentiated in: 1 where present and 0
            where absent, one tensor for each stage of the model at which players come in.
        """
        raise ValueError(f"{type(self).__name__} has no gradient; pass a screen that needs none")

    def whole_batch(self, coalition: Tensor) -> Any:
        """Run the model on the batch as it is, every example with the same coalition ``(n,)``."""
        raise ValueError("forward_func returned one value for the whole batch; pass removal=BaselineRemoval()")

    # Whether a pass can hold whole copies of the batch, its rows in the batch's order, as Captum's own classes' do
    copies_batch: ClassVar[bool] = False

    def sizes(self, coalitions: Tensor, examples: Tensor) -> Tensor:
        """``(rows,)`` int64: what rows must have in common to share a forward pass, such as their tokens."""
        return torch.zeros(len(coalitions), dtype=torch.long)

    @abstractmethod
    def rows_at_once(self, size: int) -> int:
        """How many rows of that size one forward pass should take, given the memory there is."""


class Removal(ABC):
    """A way to take players away (Covert, Lundberg and Lee, 'Explaining by Removing', 2021).

    A subclass says in ``bind`` how a model runs on coalitions; ``bind`` checks what the user passed and runs nothing.
    """

    @abstractmethod
    def bind(self, call: ForwardCall) -> MaskedModel:
        """The model of this call with players taken away."""

    def patch_size(self, forward_func: Callable[..., Any]) -> tuple[int, int] | None:
        """Height and width of the patches that are players where the user gives no mask; None for one a value."""
        model = models.transformer(forward_func)
        if model is None:
            return None
        return models.patch_size(model) if models.has_patch_tokens(model) else (16, 16)

    def default_mask(self, forward_func: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Tensor | None:
        """The feature mask where the user gives none; None for one player a value."""
        if len(inputs) != 1 or inputs[0].dim() != 4:
            return None
        size = self.patch_size(forward_func)
        return None if size is None else patch_mask(tuple(inputs[0].shape[2:]), size)


def free_memory(device: torch.device) -> int:
    """Bytes that a forward pass may take on the device: a quarter of what is free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, ValueError, OSError):
        return 2**30


def new_gates(coalitions: Tensor, like: Tensor) -> Tensor:
    """Gates of coalitions to differentiate in, on the device of a tensor and in its precision, but not in half."""
    return coalitions.to(like.device, torch.promote_types(like.dtype, torch.float32)).requires_grad_()
