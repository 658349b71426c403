"""Finds the last feature map of a network, for methods that read the activations of a layer."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from captum_moxi.models.huggingface import call_model, image_size, num_channels
from captum_moxi.models.tokens import PatchGrid, token_layout
from captum_moxi.models.unwrap import transformer
from captum_moxi.models.view import private_view

# Height and width of the image that finds the layer, if the configuration of the model has none.
DEFAULT_SIZE = (224, 224)


def feature_map_layer(forward_func: Any) -> nn.Module | None:
    """Find the layer whose activations represent the image just before the classifier.

    In a vision transformer with known tokens, it is the first norm of the last layer of the encoder, which normalizes
    the tokens for the last attention. After that attention, many classifiers read only the class token. In another
    image classifier of transformers, it is the last module that returns a feature map ``(B, C, h, w)`` or a sequence of
    tokens on which the logits depend at more than one position. A random image goes through the model to find it.

    Args:
        forward_func (Callable): Model.

    Returns:
        nn.Module or None: None if the model is neither, or if it has no feature maps.
    """
    layout = token_layout(forward_func)
    norm = None if layout is None else layout.last_first_norm
    if norm is not None:
        return norm
    model = transformer(forward_func)
    if model is None or hasattr(model.config, "num_latents"):
        # The latents of a Perceiver do not correspond to positions of the image.
        return None
    return _last_map(model)


def _last_map(model: PreTrainedModel) -> nn.Module | None:
    height, width = image_size(model) or DEFAULT_SIZE
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, num_channels(model) or 3, height, width, generator=rng).to(model.device, model.dtype)
    view = private_view(model)
    maps: list[tuple[nn.Module, Tensor]] = []
    handles = []
    for module, copy in view.copies.items():

        def record(_copy: nn.Module, _args: Any, output: Any, module: nn.Module = module) -> None:
            # Attention weights go through dropout.
            is_own = isinstance(output, Tensor) and output.requires_grad and not isinstance(module, nn.Dropout)
            if is_own and _is_map(output, image):
                maps.append((module, output))

        handles.append(copy.register_forward_hook(record))
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logits: Tensor = call_model(view.forward_func, image.requires_grad_())
            outputs = [output for _, output in maps]
            gradients = torch.autograd.grad(logits.sum(), outputs, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    for (module, _), gradient in zip(reversed(maps), reversed(gradients), strict=True):
        if gradient is not None and int(_by_position(gradient).any(0).sum()) > 1:
            return module
    return None


def _is_map(values: Tensor, image: Tensor) -> bool:
    """Return whether values are a map ``(1, C, h, w)`` or a sequence ``(1, tokens, C)`` of several positions."""
    if values.dim() == 4:
        return values.shape[2] * values.shape[3] > 1
    is_sequence = values.dim() == 3 and min(values.shape[1:]) > 1
    return is_sequence and PatchGrid.of_cells(image, values.shape[1]) is not None


def _by_position(values: Tensor) -> Tensor:
    """Arrange a map ``(1, C, h, w)`` or a sequence ``(1, tokens, C)`` as ``(C, positions)``."""
    return values[0].flatten(1) if values.dim() == 4 else values[0].mT
