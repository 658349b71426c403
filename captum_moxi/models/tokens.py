"""Tokens of vision transformers: patch size, prefix tokens, where the sequence is, and the map from tokens to pixels.

To support another family of models, add an entry to ``FAMILIES``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from captum_moxi.arguments import ForwardFunc
from captum_moxi.models.huggingface import LogitsModel
from captum_moxi.models.unwrap import module_of, on_one_device, transformer

# No known model has more prefix tokens. A sequence with more tokens beyond the patches is not a sequence of patches.
MAX_PREFIX = 16


@dataclass(frozen=True)
class TokenFamily:
    """A family of models that accept a sequence without the tokens of absent patches.

    The sequence consists of prefix tokens followed by patch tokens, and the layers accept a sequence of any length.

    Args:
        n_prefix (Callable): Maps the model to the number of tokens before the patch tokens.
        first_norm (str): Name of the first norm in each layer of the encoder.
        first_token_classifiers (tuple[str, ...], optional): Names of the model classes whose classifier reads only the
            first token of the last layer.
            Default: ()
    """

    n_prefix: Callable[[PreTrainedModel], int]
    first_norm: str
    first_token_classifiers: tuple[str, ...] = ()


def _class_token(model: PreTrainedModel) -> int:
    return 1


def _class_and_distillation_token(model: PreTrainedModel) -> int:
    return 2


def _class_and_register_tokens(model: PreTrainedModel) -> int:
    return 1 + int(model.config.num_register_tokens)


# Families by ``config.model_type``. Other models (Swin, BEiT, DINOv3, convolutional networks) need the whole grid.
FAMILIES: dict[str, TokenFamily] = {
    "vit": TokenFamily(_class_token, "layernorm_before", ("ViTForImageClassification",)),
    "deit": TokenFamily(_class_and_distillation_token, "layernorm_before", ("DeiTForImageClassification",)),
    "vit_msn": TokenFamily(_class_token, "layernorm_before", ("ViTMSNForImageClassification",)),
    "dinov2": TokenFamily(_class_token, "norm1"),
    "dinov2_with_registers": TokenFamily(_class_and_register_tokens, "norm1"),
}


@dataclass(frozen=True)
class PatchGrid:
    """The whole patches of an image. Pixels beyond the last whole patch belong to no token.

    Args:
        rows (int): Number of rows of patches.
        columns (int): Number of columns of patches.
        height (int): Height of a patch in pixels.
        width (int): Width of a patch in pixels.
    """

    rows: int
    columns: int
    height: int
    width: int

    @classmethod
    def of(cls, images: Tensor, patch_size: tuple[int, int]) -> "PatchGrid":
        """Create the grid of images ``(B, C, H, W)``, given height and width of a patch in pixels."""
        height, width = patch_size
        return cls(images.shape[2] // height, images.shape[3] // width, height, width)

    @property
    def n_patches(self) -> int:
        """Number of patches."""
        return self.rows * self.columns

    def tokens_to_map(self, tokens: Tensor) -> Tensor:
        """Arrange patch tokens as an image: ``(B, tokens, channels)`` to ``(B, channels, rows, columns)``.

        Prefix tokens are left out.
        """
        patch_tokens = tokens[:, -self.n_patches :]
        return patch_tokens.mT.reshape(len(tokens), -1, self.rows, self.columns)

    def map_to_pixels(self, patch_map: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Repeat the value of each patch over its pixels: ``(B, 1, rows, columns)`` to ``(B, 1, H, W)``.

        Pixels beyond the last whole patch get 0.
        """
        pixels = patch_map.repeat_interleave(self.height, 2).repeat_interleave(self.width, 3)
        right, bottom = image_size[1] - pixels.shape[3], image_size[0] - pixels.shape[2]
        return torch.nn.functional.pad(pixels, (0, right, 0, bottom))

    def pixels_to_patches(self, pixels: Tensor) -> Tensor:
        """Group pixels by patch: ``(B, C, H, W)`` to ``(B, rows, columns, C * height * width)``."""
        whole = pixels[:, :, : self.rows * self.height, : self.columns * self.width]
        blocks = whole.reshape(*whole.shape[:2], self.rows, self.height, self.columns, self.width)
        return blocks.permute(0, 2, 4, 1, 3, 5).flatten(3)


def has_patch_tokens(model: PreTrainedModel | None) -> bool:
    """Return whether tokens can be removed from the model's sequence."""
    return model is not None and model.config.model_type in FAMILIES


def needs_grid(forward_func: ForwardFunc) -> bool:
    """Return whether a forward function is a transformers image model that needs the whole grid of patches."""
    model = transformer(forward_func)
    return model is not None and not has_patch_tokens(model)


def patch_size(model: PreTrainedModel) -> tuple[int, int]:
    """Return height and width in pixels of the patches that the model's tokens represent."""
    size = model.config.patch_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def find_patch_size(forward_func: ForwardFunc) -> tuple[int, int] | None:
    """Return height and width in pixels of the patches that the tokens of a forward function represent.

    In models that are not from transformers, the first convolution whose stride equals its kernel size is assumed to be
    the patch projection.

    Returns:
        tuple[int, int] or None: None if there is no such convolution.
    """
    model = transformer(forward_func)
    if model is not None and has_patch_tokens(model):
        return patch_size(model)
    module = module_of(forward_func)
    for part in module.modules() if module is not None else ():
        if isinstance(part, nn.Conv2d) and part.stride == part.kernel_size != (1, 1):
            return part.kernel_size[0], part.kernel_size[1]
    return None


def fits_prefix(n_tokens: int, n_patches: int) -> bool:
    """Return whether a sequence of ``n_tokens`` can consist of prefix tokens and ``n_patches`` patch tokens.

    There can be at most ``MAX_PREFIX`` prefix tokens, and fewer than patch tokens.
    """
    return 0 <= n_tokens - n_patches < min(MAX_PREFIX + 1, n_patches)


def prefix_tokens(model: PreTrainedModel) -> int:
    """Return the number of tokens before the patch tokens: class, distillation and register tokens."""
    return FAMILIES[model.config.model_type].n_prefix(model)


def embedding_module(model: PreTrainedModel) -> nn.Module:
    """Return the module that creates the sequence of tokens."""
    return model.base_model.get_submodule("embeddings")


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the layers of the encoder, first to last."""
    count = model.config.num_hidden_layers
    lists = (module for module in model.base_model.modules() if isinstance(module, nn.ModuleList))
    return next(layers for layers in lists if len(layers) == count)


def last_first_norm(model: PreTrainedModel) -> nn.Module:
    """Return the first norm of the last layer of the encoder, which normalizes the tokens for the last attention."""
    return encoder_layers(model)[-1].get_submodule(FAMILIES[model.config.model_type].first_norm)


def first_token_module(forward_func: ForwardFunc) -> nn.Module | None:
    """Return the module of the last layer from which on only the first token is needed.

    After the last attention, tokens no longer interact. If the classifier reads only the first token, the modules after
    this attention need only that token.

    Returns:
        nn.Module or None: None if the classifier reads other tokens, if the last layer has hooks, or if the forward
        function is neither the model nor its ``forward`` method.
    """
    inner: object = on_one_device(forward_func)
    if getattr(inner, "__name__", None) in ("forward", "__call__"):
        inner = getattr(inner, "__self__", None)
    if isinstance(inner, LogitsModel):
        inner = on_one_device(inner.model)
    if not isinstance(inner, PreTrainedModel):
        return None
    family = FAMILIES.get(inner.config.model_type)
    if family is None or type(inner).__name__ not in family.first_token_classifiers:
        return None
    last = encoder_layers(inner)[-1]
    if any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in last.modules()):
        return None
    return getattr(last, "layernorm_after", None)
