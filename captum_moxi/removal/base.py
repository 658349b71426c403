"""What a removal is: how a coalition becomes an input of the model."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_moxi import models
from captum_moxi.arguments import Baseline, ForwardFunc, ModelOutput
from captum_moxi.players import Players, patch_mask

# gray level of absent players in pictures of coalitions that have no pixels of their own
GRAY = 0.5
# share of the free memory that one forward pass may use
MEMORY_SHARE = 4

ToImages = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ForwardCall:
    """One call of a model for a batch, in Captum's terms, with its players.

    Args:
        forward_func (Callable): Model.
        inputs (tuple[Tensor, ...]): Inputs, with the examples along dimension 0.
        baselines (tuple or None): One number or tensor per input tensor, or None if the user passed none.
        additional_forward_args (tuple): Arguments that follow the inputs.
        players (Players): Players of the inputs.
    """

    forward_func: ForwardFunc
    inputs: tuple[Tensor, ...]
    baselines: tuple[Baseline, ...] | None
    additional_forward_args: tuple[Any, ...]
    players: Players

    @property
    def batch(self) -> int:
        """Batch size."""
        return self.inputs[0].shape[0]

    def arguments(self, examples: Tensor) -> tuple[Any, ...]:
        """Return the additional arguments for rows of these examples. Tensors with a batch dimension are indexed."""
        return tuple(
            arg[examples.to(arg.device)] if self.has_batch(arg) else arg for arg in self.additional_forward_args
        )

    def has_batch(self, argument: object) -> bool:
        """Return whether an additional argument is a tensor whose first dimension is the batch."""
        return isinstance(argument, Tensor) and argument.dim() > 0 and argument.shape[0] == self.batch


class MaskedModel(ABC):
    """A model with players removed: maps coalitions of the batch's examples to model output."""

    # Whether a pass can hold whole copies of the batch, with the rows in the batch's order, as in Captum's own classes
    copies_batch: ClassVar[bool] = False

    def __init__(self, call: ForwardCall) -> None:
        self.call = call

    @abstractmethod
    def __call__(self, coalitions: Tensor, examples: Tensor) -> ModelOutput:
        """Run the model once.

        Args:
            coalitions (Tensor): Coalitions of equal size in the sense of :meth:`sizes`. Shape ``(rows, n)``, bool, on
                the CPU.
            examples (Tensor): Example of the batch that each row belongs to. Shape ``(rows,)``, int64, on the CPU.

        Returns:
            Output of the model, one row per coalition.
        """

    @abstractmethod
    def rows_per_pass(self, size: int) -> int:
        """Return the number of rows of this size that one forward pass should process, given the available memory."""

    def sizes(self, coalitions: Tensor, examples: Tensor) -> Tensor:
        """Return the property that rows of one pass must share, for example their number of tokens.

        Returns:
            Tensor: Shape ``(rows,)``, int64.
        """
        return torch.zeros(len(coalitions), dtype=torch.long)

    def relaxed(self, coalitions: Tensor, examples: Tensor) -> tuple[ModelOutput, list[Tensor]]:
        """Run the model so that it can be differentiated with respect to the presence of each player.

        Args:
            coalitions (Tensor): Shape ``(rows, n)``, bool, on the CPU.
            examples (Tensor): Shape ``(rows,)``, int64, on the CPU.

        Returns:
            Output of the model, and gates of shape ``(rows, n)``, one tensor for each stage of the model at which
            players enter. A gate is 1 for a present player and 0 for an absent one.
        """
        raise ValueError(
            f"{type(self).__name__} has no gradient; pass a screen that needs none, such as LastGainsScreen"
        )

    def whole_batch(self, coalition: Tensor) -> ModelOutput:
        """Run the model once on the unchanged batch, with the same coalition ``(n,)`` for each example."""
        raise ValueError("forward_func returned one value for the whole batch; pass removal=BaselineRemoval()")

    def pictures(self, coalitions: Tensor, examples: Tensor, to_images: ToImages) -> Tensor:
        """Draw the input that the model receives for each coalition.

        By default, absent players are gray.

        Args:
            coalitions (Tensor): Shape ``(rows, n)``, bool, on the CPU.
            examples (Tensor): Shape ``(rows,)``, int64, on the CPU.
            to_images (Callable): Converts pixel values ``(rows, C, H, W)`` to images ``(rows, H, W, 3)`` in [0, 1].

        Returns:
            Tensor: Images of shape ``(rows, H, W, 3)``.
        """
        present = self.call.players.spread(coalitions, 0, examples)[:, 0].cpu()
        distinct, image_of_row = examples.unique(return_inverse=True)
        images = to_images(self.call.inputs[0][distinct.to(self.call.inputs[0].device)])[image_of_row]
        return torch.where(present[..., None], images, torch.tensor(GRAY))


class Removal(ABC):
    """A way to remove players (Covert, Lundberg and Lee, 'Explaining by Removing', JMLR 2021).

    To add a removal, subclass this class, implement :meth:`bind`, and register the subclass in
    ``captum_moxi.removal.REMOVALS``.
    """

    @abstractmethod
    def bind(self, call: ForwardCall) -> MaskedModel:
        """Return the model of this call with players removed.

        ``bind`` checks what the user passed. It does not run the model.
        """

    def patch_size(self, forward_func: ForwardFunc) -> tuple[int, int] | None:
        """Return height and width in pixels of the default players, or None if each value is a player."""
        model = models.transformer(forward_func)
        if model is None:
            return None
        return models.patch_size(model) if models.has_patch_tokens(model) else (16, 16)

    def default_mask(self, forward_func: ForwardFunc, inputs: tuple[Tensor, ...]) -> Tensor | None:
        """Return the feature mask if the user passes none, or None if each value is a player."""
        if len(inputs) != 1 or inputs[0].dim() != 4:
            return None
        size = self.patch_size(forward_func)
        return None if size is None else patch_mask(tuple(inputs[0].shape[2:]), size)

    def grid_mask(self, forward_func: ForwardFunc, inputs: Tensor, grid: int | None) -> Tensor:
        """Return the feature mask of ``grid`` x ``grid`` players for images ``(B, C, H, W)``.

        Args:
            forward_func (Callable): Model.
            inputs (Tensor): Images of shape ``(B, C, H, W)``.
            grid (int or None): Number of rows and columns. None means the default patches.

        Raises:
            ValueError: If the grid does not fit the removal or the image.
        """
        image_size = (inputs.shape[2], inputs.shape[3])
        if grid is None:
            return patch_mask(image_size, self.patch_size(forward_func))
        return patch_mask(image_size, grid=grid)


def memory_per_pass(device: torch.device) -> int:
    """Return the number of bytes that a forward pass may use on a device: a quarter of the free memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // MEMORY_SHARE
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEMORY_SHARE
    except (AttributeError, ValueError, OSError):
        return 2**30


def new_gates(coalitions: Tensor, like: Tensor) -> Tensor:
    """Return gates to differentiate with respect to, on the tensor's device and at least in single precision."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return coalitions.to(like.device, dtype).requires_grad_()
