"""Players: the features of a feature mask, which a coalition holds or lacks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from captum.attr import LayerAttribution
from torch import Tensor

from captum_moxi.arguments import broadcasts


@dataclass(frozen=True)
class Players:
    """The players that a feature mask makes of the inputs.

    Args:
        ids (Tensor): ``(n,)`` int64, ascending: the players' ids, as they stand in the feature mask. A coalition is a
            row of n booleans in this order, whatever gaps the ids have.
        columns (tuple[Tensor, ...]): For every input tensor the position in ``ids`` of the player that owns each
            value: int64, broadcastable to the tensor, first dimension 1 (shared by the batch) or the batch size.
        exists (Tensor): ``(b, n)`` bool with b 1 or the batch size: whether the player is in the example's mask.
    """

    ids: Tensor
    columns: tuple[Tensor, ...]
    exists: Tensor

    @property
    def shared(self) -> bool:
        """Whether all examples have the same mask."""
        return len(self.exists) == 1

    def spread(self, values: Tensor, index: int, examples: Tensor) -> Tensor:
        """Give every value of an input tensor what its player has.

        Args:
            values (Tensor): ``(rows, n)``, any dtype: one value a player.
            index (int): Which input tensor.
            examples (Tensor): ``(rows,)`` int64: the example whose mask each row follows.

        Returns:
            Tensor: ``(rows, ...)``, broadcastable to the rows of the input tensor.
        """
        columns = self.columns[index]
        values = values.to(columns.device)
        if columns.shape[0] == 1:
            return values[:, columns.flatten()].reshape(len(values), *columns.shape[1:])
        columns = columns[examples.to(columns.device)]
        return values.gather(1, columns.reshape(len(columns), -1)).reshape(columns.shape)


def patch_mask(
    image_size: int | Sequence[int],
    patch_size: int | Sequence[int] | None = None,
    *,
    grid: int | Sequence[int] | None = None,
) -> Tensor:
    r"""
    A feature mask that cuts an image into rectangular patches, numbered in reading order.

    Args:
        image_size (int or tuple[int, int]): Height and width of the image in pixels; an int for a square.
        patch_size (int or tuple[int, int], optional): Height and width of a patch in pixels. Where it does not divide
            the image, the last row and column of patches are smaller.
            Default: 16, if ``grid`` is not given
        grid (int or tuple[int, int], optional): Rows and columns of patches, in place of their size: ``grid=7`` makes
            7 x 7 = 49 players of an image of any size.

    Returns:
        Tensor: ``(1, 1, height, width)`` int64, the ``feature_mask`` for images ``(B, C, height, width)``.

    Raises:
        ValueError: a size below 1, a grid finer than the image, or both ``patch_size`` and ``grid``.
        TypeError: a size that is no int or pair of ints.

    Examples::

        >>> patch_mask(224, 16).unique().numel()
        196
        >>> patch_mask((240, 320), grid=(3, 4)).max()
        tensor(11)
    """
    height, width = _pair("image_size", image_size)
    if grid is not None:
        if patch_size is not None:
            raise ValueError("patch_size and grid were both given; pass one of them")
        rows, columns = _pair("grid", grid)
        if rows > height or columns > width:
            raise ValueError(f"grid is {rows} x {columns}, finer than the image of {height} x {width} pixels")
        row = torch.arange(height) * rows // height
        column = torch.arange(width) * columns // width
    else:
        patch_height, patch_width = _pair("patch_size", 16 if patch_size is None else patch_size)
        row = torch.arange(height) // patch_height
        column = torch.arange(width) // patch_width
        columns = -(-width // patch_width)
    return (row[:, None] * columns + column[None, :])[None, None]


def scalar_mask(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Captum's default players: every value of an example is one, numbered through all the tensors."""
    masks, start = [], 0
    for tensor in inputs:
        count = tensor[:1].numel()
        masks.append(torch.arange(start, start + count).reshape(tensor[:1].shape))
        start += count
    return tuple(masks)


def make_players(feature_mask: Tensor | tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> Players:
    r"""
    Read a feature mask in any of the forms that Captum documents.

    Args:
        feature_mask (Tensor or tuple[Tensor, ...]): One mask an input tensor: whole numbers from 0, equal for the
            values of one player, also across tensors; broadcastable to its tensor. A first dimension of the batch
            size gives every example players of its own.
        inputs (tuple[Tensor, ...]): The inputs, the first dimension being the batch.

    Raises:
        ValueError: other than one mask a tensor, a shape that does not broadcast, fractions, negative ids, no player.
        TypeError: a mask that is no tensor, or of a boolean or complex dtype.
    """
    masks = feature_mask if isinstance(feature_mask, tuple) else (feature_mask,)
    if len(masks) != len(inputs):
        raise ValueError(
            f"feature_mask has {len(masks)} tensors where inputs has {len(inputs)}; pass one mask an input tensor"
        )
    masks = tuple(
        _whole_numbers(_name("feature_mask", i, masks), mask, tensor)
        for i, (mask, tensor) in enumerate(zip(masks, inputs, strict=True))
    )
    held = [mask.flatten().cpu() for mask, tensor in zip(masks, inputs, strict=True) if tensor.numel()]
    ids = torch.cat(held).unique() if held else torch.empty(0, dtype=torch.long)
    if not len(ids):
        raise ValueError("inputs hold no value, so there is no player; pass at least one")
    batch = max(mask.shape[0] for mask, tensor in zip(masks, inputs, strict=True) if tensor.numel())
    exists = torch.zeros(batch, len(ids), dtype=torch.bool)
    columns = []
    for mask, tensor in zip(masks, inputs, strict=True):
        column = torch.searchsorted(ids.to(mask.device), mask.contiguous())
        columns.append(column)
        if tensor.numel():
            here = column.cpu().reshape(len(column), -1)
            exists |= torch.zeros(len(here), len(ids), dtype=torch.bool).scatter_(1, here, True)
    return Players(ids, tuple(columns), exists)


def spread_scores(scores: Tensor, players: Players, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Give every input value its player's score: ``(b, n)`` -> one ``(b, *input.shape[1:])`` an input tensor."""
    examples = torch.arange(len(scores))
    return tuple(
        players.spread(scores, i, examples).expand(len(scores), *x.shape[1:]).clone()
        if x.numel()
        else torch.zeros(len(scores), *x.shape[1:], dtype=scores.dtype, device=x.device)
        for i, x in enumerate(inputs)
    )


def collect_scores(attributions: tuple[Tensor, ...], players: Players, inputs: tuple[Tensor, ...]) -> Tensor:
    r"""
    The mean attribution of each player's values: the opposite of ``spread_scores``, exactly.

    Args:
        attributions (tuple[Tensor, ...]): One an input tensor: of its shape, or broadcastable to it; of images, maps of
            any height and width too, such as a layer's ``(b, 1, 7, 7)``, are stretched over the image by
            ``captum.attr.LayerAttribution.interpolate`` (nearest).
        players (Players): The players of the inputs.
        inputs (tuple[Tensor, ...]): The inputs.

    Returns:
        Tensor: ``(b, n)`` float64 on the CPU; 0 for a player that an example does not have.

    Raises:
        ValueError: attributions that do not fit the inputs.
    """
    if len(attributions) != len(inputs):
        raise ValueError(f"attributions are {len(attributions)} where inputs are {len(inputs)}; pass one an input")
    batch = len(attributions[0])
    total = torch.zeros(batch, len(players.ids), dtype=torch.float64)
    count = torch.zeros_like(total)
    least, most = torch.full_like(total, torch.inf), torch.full_like(total, -torch.inf)
    for i, (given, columns, x) in enumerate(zip(attributions, players.columns, inputs, strict=True)):
        values = given.detach().cpu().double()
        if values.dim() == x.dim() == 4 and values.shape[2:] != x.shape[2:]:
            values = LayerAttribution.interpolate(values, tuple(x.shape[2:]))
        fits = values.dim() == x.dim() and len(values) == batch and batch in (1, len(x)) and len(columns) in (1, batch)
        if not fits or not broadcasts(values[:1], x[:1]):
            raise ValueError(
                f"{_name('attributions', i, attributions)} has shape {tuple(given.shape)}, which does not fit the "
                f"input's {tuple(x.shape)}; pass one value for each of the input's"
            )
        owner = columns.expand(batch, *x.shape[1:]).reshape(batch, -1).cpu()
        flat = values.expand(batch, *x.shape[1:]).reshape(batch, -1)
        total.scatter_add_(1, owner, flat)
        count.scatter_add_(1, owner, torch.ones_like(flat))
        least.scatter_reduce_(1, owner, flat, "amin")
        most.scatter_reduce_(1, owner, flat, "amax")
    # a mean of equal values is one of them, which the sum may miss by rounding
    return torch.where(least == most, least, total / count.clamp(min=1))


def _whole_numbers(name: str, mask: Tensor, tensor: Tensor) -> Tensor:
    """The mask as int64 on the tensor's device, with the tensor's number of dimensions."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name} is a {type(mask).__name__}; pass a tensor of whole numbers")
    if mask.dtype is torch.bool or mask.is_complex():
        raise TypeError(f"{name} has dtype {mask.dtype}; pass whole numbers, one a player (mask.long())")
    if mask.is_floating_point() and not bool((mask.isfinite() & (mask == mask.round())).all()):
        raise ValueError(f"{name} has fractions or values that are not finite; pass whole numbers, one a player")
    mask = mask.to(tensor.device, torch.long)
    if mask.numel() and int(mask.min()) < 0:
        raise ValueError(f"{name} has the negative id {int(mask.min())}; number the players from 0")
    if not broadcasts(mask, tensor):
        raise ValueError(
            f"{name} has shape {tuple(mask.shape)}, which does not broadcast to the input's {tuple(tensor.shape)}"
        )
    return mask.reshape((1,) * (tensor.dim() - mask.dim()) + tuple(mask.shape))


def _name(argument: str, index: int, of: tuple[object, ...]) -> str:
    return argument if len(of) == 1 else f"{argument}[{index}]"


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(size, int) for size in pair):
        raise TypeError(f"{name} is {value!r}; pass an int or a pair of ints")
    if min(pair) < 1:
        raise ValueError(f"{name} is {value!r}; pass sizes of at least 1")
    return pair
