"""Finds the module inside a forward function: DataParallel, torch.compile and bound methods are unwrapped."""

from torch import nn
from torch._dynamo import OptimizedModule
from transformers import PreTrainedModel

from captum_moxi.arguments import ForwardFunc


def on_one_device(forward_func: ForwardFunc) -> ForwardFunc:
    """Return the model inside DataParallel and torch.compile.

    Hooks on the model must see the whole batch, which DataParallel would split over several devices.
    """
    while True:
        if isinstance(forward_func, nn.DataParallel | nn.parallel.DistributedDataParallel):
            forward_func = forward_func.module
        elif isinstance(forward_func, OptimizedModule):
            forward_func = forward_func._orig_mod
        else:
            return forward_func


def module_of(forward_func: ForwardFunc) -> nn.Module | None:
    """Return the module that a forward function runs, or None for a plain function."""
    inner = on_one_device(forward_func)
    module = getattr(inner, "__self__", inner)
    return module if isinstance(module, nn.Module) else None


def transformer(forward_func: ForwardFunc) -> PreTrainedModel | None:
    """Return the transformers image model that a forward function is or contains.

    Returns:
        PreTrainedModel or None: None if there is no such model, or more than one.
    """
    module = module_of(forward_func)
    if module is None:
        return None
    models = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    nested = {id(part) for model in models for part in model.modules() if part is not model}
    outermost = [model for model in models if id(model) not in nested]
    return outermost[0] if len(outermost) == 1 and outermost[0].main_input_name == "pixel_values" else None
