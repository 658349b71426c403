"""Models: loading, calling and unwrapping, where their tokens are, and how their state is preserved."""

from captum_moxi.models.huggingface import ImageClassifier, LogitsModel, call_model, load, num_classes
from captum_moxi.models.images import check_images, warn_about_images
from captum_moxi.models.state import find_random_layer, preserved_state, sdpa_attention
from captum_moxi.models.tokens import (
    PatchGrid,
    embedding_module,
    encoder_layers,
    find_patch_size,
    first_token_module,
    fits_prefix,
    has_patch_tokens,
    last_first_norm,
    needs_grid,
    patch_size,
    prefix_tokens,
)
from captum_moxi.models.unwrap import as_forward_func, module_of, on_one_device, transformer
from captum_moxi.models.view import PrivateView, private_view

__all__ = [
    "ImageClassifier",
    "LogitsModel",
    "PatchGrid",
    "PrivateView",
    "as_forward_func",
    "call_model",
    "check_images",
    "embedding_module",
    "encoder_layers",
    "find_patch_size",
    "find_random_layer",
    "first_token_module",
    "fits_prefix",
    "has_patch_tokens",
    "last_first_norm",
    "load",
    "module_of",
    "needs_grid",
    "num_classes",
    "on_one_device",
    "patch_size",
    "prefix_tokens",
    "preserved_state",
    "private_view",
    "sdpa_attention",
    "transformer",
    "warn_about_images",
]
