"""Removals: how absent players are taken away."""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from captum_moxi import models
from captum_moxi.players import patch_mask
from captum_moxi.removal.attention import AttentionRemoval
from captum_moxi.removal.base import ForwardCall, MaskedModel, Removal
from captum_moxi.removal.baseline import BaselineRemoval
from captum_moxi.removal.tokens import SequenceRemoval, TokenRemoval

__all__ = [
    "AttentionRemoval",
    "BaselineRemoval",
    "ForwardCall",
    "MaskedModel",
    "Removal",
    "TokenRemoval",
    "check_removal",
    "default_removal",
    "get_removal",
    "grid_mask",
]

# how removals are named on the command line and in what it writes
REMOVALS = "token, attention:LAYER (by default 0), zero, mean or blur"


def check_removal(removal: Any) -> None:
    if removal is not None and not isinstance(removal, Removal):
        raise TypeError(
            f"removal is {removal!r}; pass TokenRemoval(), AttentionRemoval(from_layer), BaselineRemoval() or None"
        )


def default_removal(forward_func: Callable[..., Any], inputs: tuple[Tensor, ...], has_baselines: bool) -> Removal:
    """Token removal for images of a classifier with patch tokens, if no baseline was given; else baseline fill."""
    model = models.transformer(forward_func)
    classifies = model is not None and "ForImageClassification" in type(model).__name__
    images = len(inputs) == 1 and inputs[0].dim() == 4
    if classifies and images and not has_baselines and models.has_patch_tokens(model):
        return TokenRemoval()
    return BaselineRemoval()


def get_removal(name: str) -> Removal:
    """The removal of a name, of those that ``REMOVALS`` lists.

    Raises:
        ValueError: another name.
    """
    if name == "token":
        return TokenRemoval()
    if name == "zero":
        return BaselineRemoval()
    if name in ("mean", "blur"):
        return BaselineRemoval(name)
    if match := re.fullmatch(r"attention(?::(\d+))?", name):
        return AttentionRemoval(int(match[1] or 0))
    raise ValueError(f"{name!r} is not a removal; pass {REMOVALS}")


def grid_mask(model: Any, x: Tensor, removal: Removal, grid: int | None) -> Tensor:
    """The feature mask of grid x grid players for images ``(B, C, H, W)``; of the model's own patches for None.

    Raises:
        ValueError: players that would cut the patches whose tokens are taken out.
    """
    size = (x.shape[2], x.shape[3])
    if grid is None:
        return patch_mask(size, removal.patch_size(model))
    if isinstance(removal, SequenceRemoval):
        patch = removal.patch_size(model)
        sides = [extent // side for extent, side in zip(size, patch, strict=True)]
        if any(side % grid for side in sides):
            fit = [str(n) for n in range(1, min(sides) + 1) if not any(side % n for side in sides)]
            raise ValueError(
                f"a grid of {grid} cuts patches, of which the model has {sides[0]} x {sides[1]}; "
                f"pass a grid of {', '.join(fit)}, or the removal zero"
            )
    return patch_mask(size, grid=grid)
