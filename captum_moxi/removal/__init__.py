"""Removals: how absent players are removed.

To add a removal, write a subclass of :class:`Removal` in a file of this folder and register it below.
"""

from torch import Tensor

from captum_moxi import models
from captum_moxi.arguments import ForwardFunc
from captum_moxi.registry import Registry, parse_natural
from captum_moxi.removal.attention import AttentionRemoval
from captum_moxi.removal.base import DEFAULT_GRID, MAX_PLAYERS, ForwardCall, MaskedModel, Removal, ToImages
from captum_moxi.removal.baseline import BaselineRemoval
from captum_moxi.removal.tokens import TokenRemoval

__all__ = [
    "DEFAULT_GRID",
    "MAX_PLAYERS",
    "REMOVALS",
    "AttentionRemoval",
    "BaselineRemoval",
    "ForwardCall",
    "MaskedModel",
    "Removal",
    "ToImages",
    "TokenRemoval",
    "default_removal",
    "get_removal",
]

REMOVALS: Registry[Removal] = Registry("removal")
REMOVALS.register("token", TokenRemoval, help="remove the tokens of absent patches")
REMOVALS.register(
    "attention", AttentionRemoval, argument="LAYER", parse=parse_natural, help="mask attention from LAYER on"
)
REMOVALS.register("zero", BaselineRemoval, help="fill with zeros")
REMOVALS.register("mean", lambda: BaselineRemoval("mean"), help="fill with the mean of the image")
REMOVALS.register("blur", lambda: BaselineRemoval("blur"), help="fill with the blurred image")


def get_removal(removal: object) -> Removal | None:
    """Convert the name of a removal to the removal. A removal or None is returned unchanged.

    Args:
        removal (Removal, str or None): Removal, or its name in ``REMOVALS``.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If ``removal`` is neither a removal, a name nor None.
    """
    if isinstance(removal, str):
        return REMOVALS.create(removal)
    if removal is None or isinstance(removal, Removal):
        return removal
    raise TypeError(
        f"removal is {removal!r}; pass an instance of Removal, such as TokenRemoval(), one of the names "
        f"{REMOVALS.describe()}, or None"
    )


def default_removal(forward_func: ForwardFunc, inputs: tuple[Tensor, ...], *, has_baselines: bool) -> Removal:
    """Return the removal that is used if the user passes none.

    It is token removal if the model is an image classifier with patch tokens, the input is one batch of images, and no
    baselines were passed. Otherwise it is baseline fill.

    Args:
        forward_func (Callable): Model.
        inputs (tuple[Tensor, ...]): Inputs, with the examples along dimension 0.
        has_baselines (bool): Whether the user passed baselines.
    """
    layout = models.token_layout(forward_func)
    is_image_batch = len(inputs) == 1 and inputs[0].dim() == 4
    if layout is not None and layout.is_classifier and is_image_batch and not has_baselines:
        return TokenRemoval()
    return BaselineRemoval()
