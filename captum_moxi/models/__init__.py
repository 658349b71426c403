"""Models: loading, calling and unwrapping, where their tokens are, and how their state is preserved."""

from captum_moxi.models.feature_maps import feature_map_layer
from captum_moxi.models.huggingface import (
    ImageClassifier,
    LogitsModel,
    call_model,
    check_device,
    load,
    load_config,
    num_classes,
    problem_type,
)
from captum_moxi.models.images import check_images, warn_about_images
from captum_moxi.models.precision import in_precision
from captum_moxi.models.state import find_random_layer, preserved_state, sdpa_attention
from captum_moxi.models.tokens import (
    PatchGrid,
    Positions,
    Select,
    TokenLayout,
    find_patch_size,
    first_token_module,
    fits_prefix,
    is_convolutional,
    needs_grid,
    select_pairs,
    token_layout,
)
from captum_moxi.models.unwrap import as_forward_func, module_of, on_one_device, transformer
from captum_moxi.models.view import PrivateView, private_view

__all__ = [
    "ImageClassifier",
    "LogitsModel",
    "PatchGrid",
    "Positions",
    "PrivateView",
    "Select",
    "TokenLayout",
    "as_forward_func",
    "call_model",
    "check_device",
    "check_images",
    "feature_map_layer",
    "find_patch_size",
    "find_random_layer",
    "first_token_module",
    "fits_prefix",
    "in_precision",
    "is_convolutional",
    "load",
    "load_config",
    "module_of",
    "needs_grid",
    "num_classes",
    "on_one_device",
    "preserved_state",
    "private_view",
    "problem_type",
    "sdpa_attention",
    "select_pairs",
    "token_layout",
    "transformer",
    "warn_about_images",
]
