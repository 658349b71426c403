"""The interface of a removal, which turns coalitions into inputs of the model."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_moxi import models
from captum_moxi.arguments import Baseline, ForwardFunc, ModelOutput, copy_argument
from captum_moxi.players import Players, patch_mask

# Gray level, from 0 to 1, of absent players in pictures of coalitions, if the removal gives them no pixels.
GRAY = 0.5
# Number of rows and columns of the default players of images without patch tokens. A full ranking of the 36 players
# needs 666 rows, which take ResNet-50 about 50 seconds on two cores. (The paper's 14 x 14 players need 19,306 rows.)
DEFAULT_GRID = 6
# Each value of an input is a player only up to this number of players, because the cost grows with its square.
MAX_PLAYERS = 600
# One forward pass may use 1 / MEMORY_SHARE of the free memory.
MEMORY_SHARE = 4

ToImages = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ForwardCall:
    """The arguments of a call of the model, in Captum's terms, and the players of its inputs.

    Args:
        forward_func (Callable): Model.
        inputs (tuple[Tensor, ...]): Inputs, with the examples along dimension 0.
        baselines (tuple[Tensor or float, ...] or None): One baseline per input tensor, or None if the user passed none.
        additional_forward_args (tuple[Any, ...]): Arguments that follow the inputs.
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

    def copied_inputs(self) -> tuple[Tensor, ...]:
        """Return a copy of the inputs, because the model may change what it receives."""
        return tuple(x.clone() for x in self.inputs)

    def arguments(self, examples: Tensor | None = None) -> tuple[Any, ...]:
        """Return a copy of the additional arguments, because the model may change what it receives.

        Args:
            examples (Tensor, optional): Example of each row. Tensors with a batch dimension are indexed. Shape
                ``(rows,)``, int64.
                Default: None, the arguments of the whole batch
        """
        return tuple(
            arg.detach()[examples.to(arg.device)]
            if examples is not None and self.has_batch(arg)
            else copy_argument(arg)
            for arg in self.additional_forward_args
        )

    def has_batch(self, argument: object) -> bool:
        """Return whether an additional argument is a tensor whose first dimension is the batch."""
        return isinstance(argument, Tensor) and argument.dim() > 0 and argument.shape[0] == self.batch


class MaskedModel(ABC):
    """A model with players removed: maps coalitions of the batch's examples to model output.

    Args:
        call (ForwardCall): Call of the model, with its players.
    """

    # Whether a pass can contain whole copies of the batch, with the rows in the order of the batch, as in Captum.
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
            Tensor, int, float or an output object with ``logits``: Output of the model, one row per coalition.
        """

    @abstractmethod
    def rows_per_pass(self, size: int) -> int:
        """Return the number of rows that one forward pass should process, given the available memory.

        Args:
            size (int): What the rows share, in the sense of :meth:`sizes`.
        """

    def sizes(self, coalitions: Tensor, examples: Tensor) -> Tensor:
        """Return the property that rows of one pass must share, for example their number of tokens.

        Args:
            coalitions (Tensor): Shape ``(rows, n)``, bool, on the CPU.
            examples (Tensor): Shape ``(rows,)``, int64, on the CPU.

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
            tuple: Output of the model, and a list of gates of shape ``(rows, n)``, floating, one tensor for each stage
            of the model at which players enter. A gate is 1 for a present player and 0 for an absent one.

        Raises:
            ValueError: If the removal does not implement this method, or the model cannot be differentiated.
        """
        raise ValueError(
            f"the removal cannot be differentiated, because {type(self).__name__} does not implement relaxed; "
            "pass a screen that needs no gradient, such as LastGainsScreen"
        )

    def whole_batch(self, coalition: Tensor) -> ModelOutput:
        """Run the model once on the whole batch, with the same coalition for each example.

        This is for models that return one value for the whole batch.

        Args:
            coalition (Tensor): Shape ``(n,)``, bool, on the CPU.

        Raises:
            ValueError: If the removal does not implement this method.
        """
        raise ValueError(
            "forward_func returned one value for the whole batch, which this removal does not support; "
            "pass removal=BaselineRemoval()"
        )

    def pictures(self, coalitions: Tensor, examples: Tensor, to_images: ToImages) -> Tensor:
        """Draw the input that the model receives for each coalition.

        By default, absent players are gray.

        Args:
            coalitions (Tensor): Shape ``(rows, n)``, bool, on the CPU.
            examples (Tensor): Shape ``(rows,)``, int64, on the CPU.
            to_images (Callable): Converts pixel values ``(rows, C, H, W)`` to images ``(rows, H, W, 3)`` in [0, 1].

        Returns:
            Tensor: Images of shape ``(rows, H, W, 3)``, floating, on the CPU.
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

    @property
    def picture_note(self) -> str:
        """How :meth:`MaskedModel.pictures` shows absent players, in a few words."""
        return "gray patches are absent"

    @property
    def empty_note(self) -> str:
        """What the model receives if no player is present, in a few words that follow "with"."""
        return "nothing kept"

    @abstractmethod
    def bind(self, call: ForwardCall) -> MaskedModel:
        """Check what the user passed, and return the model with players removed. The model does not run.

        Args:
            call (ForwardCall): Call of the model, with its players.

        Raises:
            ValueError: If the removal does not support the model, the inputs, the baselines or the feature mask.
        """

    def patch_size(self, forward_func: ForwardFunc) -> tuple[int, int] | None:
        """Return height and width in pixels of the model's patches, or None if it has no known patch tokens."""
        layout = models.token_layout(forward_func)
        return None if layout is None else layout.patch_size

    def default_mask(self, forward_func: ForwardFunc, inputs: tuple[Tensor, ...]) -> Tensor | None:
        """Return the feature mask that is used if the user passes none.

        The players of a vision transformer with known tokens are its patches, or squares of 2 x 2, 3 x 3, ... patches
        if there are more than :data:`MAX_PLAYERS` patches. The players of another transformers image
        model, and of a convolutional network whose inputs have more than :data:`MAX_PLAYERS` values, are
        :data:`DEFAULT_GRID` x :data:`DEFAULT_GRID` rectangles.

        Args:
            forward_func (Callable): Model.
            inputs (tuple[Tensor, ...]): Inputs, with the examples along dimension 0.

        Returns:
            Tensor or None: Shape ``(1, 1, H, W)``, int64. None if each value is a player.
        """
        if len(inputs) != 1 or inputs[0].dim() != 4:
            return None
        image_size, patch_size = tuple(inputs[0].shape[2:]), self.patch_size(forward_func)
        if patch_size is not None:
            return patch_mask(image_size, _player_size(image_size, patch_size))
        is_large = inputs[0][:1].numel() > MAX_PLAYERS
        has_grid = models.needs_grid(forward_func) or (is_large and models.is_convolutional(forward_func, inputs[0]))
        return coarse_mask(image_size) if has_grid else None

    def grid_mask(self, forward_func: ForwardFunc, inputs: Tensor, grid: int | None) -> Tensor:
        """Return the feature mask of ``grid`` x ``grid`` players for images ``(B, C, H, W)``.

        Args:
            forward_func (Callable): Model.
            inputs (Tensor): Images of shape ``(B, C, H, W)``.
            grid (int or None): Number of rows and columns. None means the model's own patches, or
                :data:`DEFAULT_GRID` if it has none.

        Returns:
            Tensor: Shape ``(1, 1, H, W)``, int64.

        Raises:
            ValueError: If the grid is finer than the image, or if it cuts through patches that the removal removes as a
                whole.
        """
        image_size = (inputs.shape[2], inputs.shape[3])
        if grid is not None:
            return patch_mask(image_size, grid=grid)
        mask = self.default_mask(forward_func, (inputs,))
        return coarse_mask(image_size) if mask is None else mask


def _player_size(image_size: Sequence[int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of players that consist of as few whole patches as possible."""
    for multiple in count(1):
        player_size = (multiple * patch_size[0], multiple * patch_size[1])
        cells = [-(-side // player_side) for side, player_side in zip(image_size, player_size, strict=True)]
        if math.prod(cells) <= MAX_PLAYERS:
            break
    return player_size


def coarse_mask(image_size: Sequence[int]) -> Tensor:
    """Return the default players of images without patch tokens. Smaller images than the grid have a player per pixel.

    Args:
        image_size (Sequence[int]): Height and width in pixels.

    Returns:
        Tensor: Shape ``(1, 1, H, W)``, int64.
    """
    return patch_mask(image_size, grid=[min(DEFAULT_GRID, side) for side in image_size])


def memory_per_pass(device: torch.device) -> int:
    """Return the number of bytes that one forward pass may use on a device: a quarter of the free memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // MEMORY_SHARE
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEMORY_SHARE
    except (AttributeError, ValueError, OSError):
        return 2**30


def new_gates(coalitions: Tensor, like: Tensor) -> Tensor:
    """Return coalitions as gates that require gradients, on the device of ``like``, in float32 or its higher dtype."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return coalitions.to(like.device, dtype).requires_grad_()
