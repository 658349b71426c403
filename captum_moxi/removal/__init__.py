"""Removals: how absent players are taken away."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from captum_moxi import models
from captum_moxi.removal.attention import AttentionRemoval
from captum_moxi.removal.base import ForwardCall, MaskedModel, Removal
from captum_moxi.removal.baseline import BaselineRemoval
from captum_moxi.removal.tokens import TokenRemoval

__all__ = [
    "AttentionRemoval",
    "BaselineRemoval",
    "ForwardCall",
    "MaskedModel",
    "Removal",
    "TokenRemoval",
    "check_removal",
    "default_removal",
]


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
