"""Players: the features that a feature mask defines, and the mapping between players and input values."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from captum.attr import LayerAttribution
from torch import Tensor

from captum_moxi.arguments import TensorOrTuple, broadcasts

# Largest height or width of an image in pixels.
MAX_SIZE = 2**20


@dataclass(frozen=True, eq=False)
class Players:
    """The players that a feature mask defines.

    Args:
        ids (Tensor): Ids of the players, as in the feature mask, in ascending order. Shape ``(n,)``, int64. The ids may
            have gaps. Column i of a coalition belongs to the player ``ids[i]``.
        positions (tuple[Tensor, ...]): For each input tensor, the position in ``ids`` of the player that owns each
            value. int64, broadcastable to the tensor. Dimension 0 has size 1 (shared by the batch) or the batch size.
        exists (Tensor): Whether each example has each player. Shape ``(1, n)`` or ``(B, n)``, bool.
    """

    ids: Tensor
    positions: tuple[Tensor, ...]
    exists: Tensor

    @property
    def shared(self) -> bool:
        """Whether all examples share one mask."""
        return len(self.exists) == 1

    def positions_of(self, ids: Tensor) -> Tensor:
        """Return the positions in ``ids`` of players, given by their ids.

        Args:
            ids (Tensor): Ids of players, of any shape, int64. -1 means no player and stays -1.

        Returns:
            Tensor: The shape of ``ids``, int64, on the CPU.

        Raises:
            TypeError: If ``ids`` is not a tensor of integers.
            ValueError: If no player has one of the ids.
        """
        if not isinstance(ids, Tensor):
            raise TypeError(f"ids is a {type(ids).__name__}; pass a tensor of integers, the ids of players")
        if ids.is_floating_point() or ids.is_complex() or ids.dtype is torch.bool:
            raise TypeError(f"ids has dtype {ids.dtype}; pass a tensor of integers, the ids of players")
        ids = ids.cpu().long()
        positions = torch.searchsorted(self.ids, ids).clamp(max=len(self.ids) - 1)
        unknown = ids[(self.ids[positions] != ids) & (ids != -1)]
        if len(unknown):
            raise ValueError(f"player {int(unknown[0])} does not exist; pass ids of the feature mask")
        return torch.where(ids == -1, -1, positions)

    def spread(self, values: Tensor, index: int, examples: Tensor) -> Tensor:
        """Map one value per player to the values of an input tensor.

        Args:
            values (Tensor): One value per player, of any dtype. Shape ``(rows, n)``.
            index (int): Index of the input tensor.
            examples (Tensor): The example whose mask each row follows. Shape ``(rows,)``, int64.

        Returns:
            Tensor: Shape ``(rows, ...)``, broadcastable to rows of the input tensor. In the dtype of ``values``, on the
            device of the input tensor.
        """
        positions = self.positions[index]
        values = values.to(positions.device)
        if positions.shape[0] == 1:
            return values[:, positions.flatten()].reshape(len(values), *positions.shape[1:])
        positions = positions[examples.to(positions.device)]
        return values.gather(1, positions.reshape(len(positions), -1)).reshape(positions.shape)


def size_pair(name: str, value: object) -> tuple[int, int]:
    """Check a size in pixels or patches, and return height and width.

    Args:
        name (str): Name of the argument, for the message.
        value (object): An int, or a sequence of two ints.

    Raises:
        TypeError: If ``value`` has another type or length.
        ValueError: If a size is less than 1, or larger than any image.
    """
    sizes = tuple(value) if isinstance(value, Sequence) else (value, value)
    try:
        pair = tuple(operator.index(size) for size in sizes if not isinstance(size, bool))
    except TypeError:
        pair = ()
    if len(sizes) != 2 or len(pair) != 2:
        raise TypeError(f"{name} is {value!r}; pass an int or a pair of ints")
    if min(pair) < 1 or max(pair) > MAX_SIZE:
        raise ValueError(f"{name} is {value!r}; pass sizes of at least 1 and at most {MAX_SIZE:,}")
    return pair[0], pair[1]


def patch_mask(
    image_size: int | Sequence[int],
    patch_size: int | Sequence[int] | None = None,
    *,
    grid: int | Sequence[int] | None = None,
) -> Tensor:
    r"""
    Create a feature mask that divides an image into rectangular patches, numbered in reading order.

    Args:
        image_size (int or tuple[int, int]): Height and width of the image in pixels. An int means a square image.
        patch_size (int or tuple[int, int], optional): Height and width of a patch in pixels. If they do not divide the
            image size, the patches in the last row and column are smaller.
            Default: 16 if ``grid`` is not passed
        grid (int or tuple[int, int], optional): Number of rows and columns of patches, instead of their size.
            ``grid=7`` creates 7 x 7 = 49 players for an image of any size.
            Default: None

    Returns:
        Tensor: Feature mask for images ``(B, C, height, width)``. Shape ``(1, 1, height, width)``, int64.

    Raises:
        ValueError: If a size is less than 1 or larger than any image, the grid is finer than the image, or both
            ``patch_size`` and ``grid`` are passed.
        TypeError: If a size is not an int or a pair of ints.

    Examples::

        >>> patch_mask(224, 16).unique().numel()
        196
        >>> patch_mask((240, 320), grid=(3, 4)).max()
        tensor(11)
    """
    height, width = size_pair("image_size", image_size)
    if grid is not None:
        if patch_size is not None:
            raise ValueError("patch_size and grid were both passed; pass only one of them")
        rows, columns = size_pair("grid", grid)
        if rows > height or columns > width:
            raise ValueError(
                f"grid is {rows} x {columns}, but the image has only {height} x {width} pixels; pass a coarser grid"
            )
        row = torch.arange(height) * rows // height
        column = torch.arange(width) * columns // width
    else:
        patch_height, patch_width = size_pair("patch_size", 16 if patch_size is None else patch_size)
        row = torch.arange(height) // patch_height
        column = torch.arange(width) // patch_width
        columns = -(-width // patch_width)
    return (row[:, None] * columns + column[None, :])[None, None]


def scalar_mask(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Create Captum's default mask: each value of an example is a player, numbered across all input tensors.

    Args:
        inputs (tuple[Tensor, ...]): Inputs, with the examples along dimension 0.

    Returns:
        tuple[Tensor, ...]: One mask of shape ``(1, ...)``, int64, for each input tensor.
    """
    masks, start = [], 0
    for tensor in inputs:
        count = tensor[:1].numel()
        masks.append(torch.arange(start, start + count).reshape(tensor[:1].shape))
        start += count
    return tuple(masks)


def players_from_mask(feature_mask: TensorOrTuple, inputs: tuple[Tensor, ...]) -> Players:
    r"""
    Read a feature mask in any of the forms that Captum documents.

    Args:
        feature_mask (Tensor or tuple[Tensor, ...]): One mask per input tensor, broadcastable to it. A mask contains
            integers of at least 0, the ids of the players. Values with the same id belong to the same player, even in
            different tensors. If dimension 0 has the batch size, each example has its own players.
        inputs (tuple[Tensor, ...]): Inputs, with the examples along dimension 0.

    Returns:
        Players: Players of the inputs.

    Raises:
        ValueError: If the number of masks is not the number of input tensors, a mask does not broadcast to its tensor,
            an id is fractional or negative, or there is no player.
        TypeError: If a mask is not a tensor, or has a boolean or complex dtype.
    """
    masks = feature_mask if isinstance(feature_mask, tuple) else (feature_mask,)
    if len(masks) != len(inputs):
        raise ValueError(
            f"feature_mask has {len(masks)} tensors, but inputs has {len(inputs)}; pass one mask for each input tensor"
        )
    masks = tuple(
        _as_whole_numbers(_element_name("feature_mask", i, len(masks)), mask, tensor)
        for i, (mask, tensor) in enumerate(zip(masks, inputs, strict=True))
    )
    used_masks = [mask for mask, tensor in zip(masks, inputs, strict=True) if tensor.numel()]
    if not used_masks:
        raise ValueError("inputs contains no values, so there are no players; pass at least one value for each example")
    ids = torch.cat([mask.flatten().cpu() for mask in used_masks]).unique()
    exists = torch.zeros(max(mask.shape[0] for mask in used_masks), len(ids), dtype=torch.bool)
    positions = tuple(torch.searchsorted(ids.to(mask.device), mask.contiguous()) for mask in masks)
    for mask_positions, tensor in zip(positions, inputs, strict=True):
        if tensor.numel():
            rows = mask_positions.cpu().reshape(len(mask_positions), -1)
            exists |= torch.zeros(len(rows), len(ids), dtype=torch.bool).scatter_(1, rows, True)
    return Players(ids, positions, exists)


def scores_to_inputs(scores: Tensor, players: Players, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Give each input value the score of its player.

    Args:
        scores (Tensor): One score per player, of any dtype. Shape ``(b, n)``.
        players (Players): Players of the inputs.
        inputs (tuple[Tensor, ...]): Inputs.

    Returns:
        tuple[Tensor, ...]: One tensor of shape ``(b, *input.shape[1:])`` per input tensor, in the dtype of ``scores``
        and on the device of the input tensor.
    """
    examples = torch.arange(len(scores))
    return tuple(
        players.spread(scores, i, examples).expand(len(scores), *x.shape[1:]).clone()
        if x.numel()
        else torch.zeros(len(scores), *x.shape[1:], dtype=scores.dtype, device=x.device)
        for i, x in enumerate(inputs)
    )


def scores_to_players(attributions: tuple[Tensor, ...], players: Players, inputs: tuple[Tensor, ...]) -> Tensor:
    r"""
    Average the attributions of each player's values.

    Scores that :func:`scores_to_inputs` assigned to the values of the inputs are recovered exactly.

    Args:
        attributions (tuple[Tensor, ...]): One tensor per input tensor, with its shape or broadcastable to it. Maps of
            images may have any height and width, for example ``(b, 1, 7, 7)``. They are resized to the image by
            ``captum.attr.LayerAttribution.interpolate`` in mode ``"nearest"``.
        players (Players): Players of the inputs.
        inputs (tuple[Tensor, ...]): Inputs.

    Returns:
        Tensor: Shape ``(b, n)``, float64, on the CPU. 0 for players that an example does not have.

    Raises:
        TypeError: If an attribution is not a tensor.
        ValueError: If the attributions do not fit the inputs.
    """
    for i, attribution in enumerate(attributions):
        if not isinstance(attribution, Tensor):
            name = _element_name("attributions", i, len(attributions))
            raise TypeError(f"{name} is a {type(attribution).__name__}; pass a tensor")
    if len(attributions) != len(inputs):
        raise ValueError(
            f"attributions has {len(attributions)} tensors, but inputs has {len(inputs)}; pass one attribution for "
            "each input tensor"
        )
    batch = len(attributions[0])
    total = torch.zeros(batch, len(players.ids), dtype=torch.float64)
    count = torch.zeros_like(total)
    lowest, highest = torch.full_like(total, torch.inf), torch.full_like(total, -torch.inf)
    for i, (attribution, positions, x) in enumerate(zip(attributions, players.positions, inputs, strict=True)):
        name = _element_name("attributions", i, len(attributions))
        values = _expand_to_input(name, attribution, x, batch, len(positions))
        owners = positions.expand(batch, *x.shape[1:]).reshape(batch, -1).cpu()
        total.scatter_add_(1, owners, values)
        count.scatter_add_(1, owners, torch.ones_like(values))
        lowest.scatter_reduce_(1, owners, values, "amin")
        highest.scatter_reduce_(1, owners, values, "amax")
    # The mean of equal values is that value. Computing it as a sum divided by a count could round.
    return torch.where(lowest == highest, lowest, total / count.clamp(min=1))


def _expand_to_input(name: str, attribution: Tensor, x: Tensor, batch: int, n_masks: int) -> Tensor:
    """Return the attributions as float64 ``(batch, values of an example)`` on the CPU."""
    values = attribution.detach().cpu().double()
    if values.dim() == x.dim() == 4 and values.shape[2:] != x.shape[2:]:
        values = LayerAttribution.interpolate(values, tuple(x.shape[2:]))
    batch_fits = len(values) == batch and batch in (1, len(x)) and n_masks in (1, batch)
    if values.dim() != x.dim() or not batch_fits or not broadcasts(values[:1], x[:1]):
        raise ValueError(
            f"{name} has shape {tuple(attribution.shape)}, which does not fit the input's shape {tuple(x.shape)}; "
            "pass one attribution for each value of the input"
        )
    return values.expand(batch, *x.shape[1:]).reshape(batch, -1)


def _as_whole_numbers(name: str, mask: object, tensor: Tensor) -> Tensor:
    """Return the mask as int64 on the tensor's device, with the tensor's number of dimensions."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name} is a {type(mask).__name__}; pass a tensor of integers, the ids of the players")
    if mask.dtype is torch.bool or mask.is_complex():
        raise TypeError(f"{name} has dtype {mask.dtype}; pass integers, the ids of the players, such as mask.long()")
    if mask.is_floating_point() and not bool((mask.isfinite() & (mask == mask.round())).all()):
        raise ValueError(f"{name} contains fractions or non-finite values; pass integers, the ids of the players")
    mask = mask.to(tensor.device, torch.long)
    if mask.numel() and int(mask.min()) < 0:
        raise ValueError(f"{name} contains the negative id {int(mask.min())}; number the players from 0")
    if not broadcasts(mask, tensor):
        raise ValueError(
            f"{name} has shape {tuple(mask.shape)}, which does not broadcast to the input's shape "
            f"{tuple(tensor.shape)}; pass a mask of the input's shape"
        )
    return mask.reshape((1,) * (tensor.dim() - mask.dim()) + tuple(mask.shape))


def _element_name(argument: str, index: int, count: int) -> str:
    return argument if count == 1 else f"{argument}[{index}]"
