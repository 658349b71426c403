"""Removals: how absent players are removed.

To add a removal, write a subclass of :class:`Removal` in a file of this folder and register it below.
"""

from torch import Tensor

from captum_moxi import models
from captum_moxi.arguments import ForwardFunc
from captum_moxi.registry import Registry, parse_natural
from captum_moxi.removal.attention import AttentionRemoval
from captum_moxi.removal.base import ForwardCall, MaskedModel, Removal, ToImages
from captum_moxi.removal.baseline import BaselineRemoval
from captum_moxi.removal.tokens import TokenRemoval

__all__ = [
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
    """Return the removal of that name, or the removal itself; None for None.

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
    """Return the removal that fits the model.

    It is token removal for images of a classifier with patch tokens if no baselines were passed. Otherwise it is
    baseline fill.
    """
    model = models.transformer(forward_func)
    is_classifier = model is not None and "ForImageClassification" in type(model).__name__
    is_image_batch = len(inputs) == 1 and inputs[0].dim() == 4
    if is_classifier and is_image_batch and not has_baselines and models.has_patch_tokens(model):
        return TokenRemoval()
    return BaselineRemoval()
