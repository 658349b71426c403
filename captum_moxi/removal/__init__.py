"""Removals: how absent players are taken away."""

from collections.abc import Callable
from typing import Any

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
    "choose_removal",
]


def choose_removal(removal: Removal | None, forward_func: Callable[..., Any], has_baselines: bool) -> Removal:
    """The removal that was passed; else token removal where it can be and no baseline was given; else baseline fill."""
    if removal is not None:
        if not isinstance(removal, Removal):
            raise TypeError(
                f"removal is {removal!r}; pass TokenRemoval(), AttentionRemoval(from_layer) or BaselineRemoval()"
            )
        return removal
    if not has_baselines and models.has_patch_tokens(models.transformer(forward_func)):
        return TokenRemoval()
    return BaselineRemoval()
