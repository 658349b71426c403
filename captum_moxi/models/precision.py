"""Models with weights in another precision, for estimates that take less time."""

from typing import Any

import torch
from torch import Tensor, nn

from captum_moxi.arguments import ForwardFunc
from captum_moxi.models.view import private_view


def in_precision(forward_func: ForwardFunc, dtype: torch.dtype) -> nn.Module | None:
    """Return a copy of a model whose floating-point weights and inputs are converted to another dtype.

    The weights are converted once, whereas ``torch.autocast`` converts them in every forward pass. The model itself is
    unchanged.

    Args:
        forward_func (Callable): Model, or any function.
        dtype (torch.dtype): Floating-point dtype.

    Returns:
        Module or None: The converted model. None if ``forward_func`` is not a module, or if it cannot be copied.
    """
    view = private_view(forward_func)
    model = view.forward_func
    # The view of a model that cannot be copied is the model itself.
    if not isinstance(model, nn.Module) or model in view.copies:
        return None
    converted: dict[int, Any] = {}
    for module in set(view.copies.values()):
        _convert_weights(module, dtype, converted)

    def convert_inputs(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(_convert(arg, dtype) for arg in args), {name: _convert(arg, dtype) for name, arg in kwargs.items()}

    model.register_forward_pre_hook(convert_inputs, with_kwargs=True)
    return model


def _convert_weights(module: nn.Module, dtype: torch.dtype, converted: dict[int, Any]) -> None:
    """Replace the parameters and buffers of a private view. Weights that modules share stay shared."""
    for name in ("_parameters", "_buffers"):
        weights = module.__dict__[name]
        for weight in weights.values():
            if weight is not None and id(weight) not in converted:
                new = weight.detach().to(dtype) if weight.is_floating_point() else weight.detach()
                converted[id(weight)] = nn.Parameter(new, requires_grad=False) if name == "_parameters" else new
        module.__dict__[name] = {key: None if old is None else converted[id(old)] for key, old in weights.items()}
    # Caches of tensors, such as the position biases of LeViT, would otherwise be shared with the model.
    for name, value in module.__dict__.items():
        if type(value) is dict and not name.startswith("_"):
            module.__dict__[name] = {key: _convert(item, dtype) for key, item in value.items()}


def _convert(value: object, dtype: torch.dtype) -> object:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
