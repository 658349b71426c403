"""Finds the model in what users pass as the model.

DataParallel, torch.compile, bound methods, transformers pipelines and the object that ``load`` returns are unwrapped.
"""

from torch import nn
from torch._dynamo import OptimizedModule
from transformers import Pipeline, PreTrainedModel

from captum_moxi.arguments import ForwardFunc, Model


def as_forward_func(model: Model) -> ForwardFunc:
    """Return the function to call for what a user passed as the model.

    Args:
        model (Callable or object with a model): Model, any function, the object that :func:`captum_moxi.load` returns,
            or a transformers pipeline.

    Returns:
        Callable: The model inside the last two. Models and functions are returned unchanged.

    Raises:
        TypeError: If several models were passed, or an object that can neither be called nor contains a model.
    """
    if isinstance(model, list | tuple) or type(model) is nn.ModuleList:
        raise TypeError(
            f"forward_func is a {type(model).__name__} of {len(model)} models; pass a function that averages their "
            "logits, for example lambda x: torch.stack([model(x).logits for model in models]).mean(0), and a "
            "feature_mask such as patch_mask(224, 16)"
        )
    if isinstance(model, str):
        raise TypeError(f"forward_func is the name {model!r}; pass the model, load({model!r})")
    inner = _held_model(model)
    forward_func = model if inner is None else inner
    if not callable(forward_func):
        raise TypeError(
            f"forward_func is a {type(model).__name__}; pass a model, or a function that maps inputs to logits"
        )
    return forward_func


def on_one_device(model: Model) -> ForwardFunc:
    """Return the model inside DataParallel, torch.compile, and objects that hold a model.

    Hooks on the model must see the whole batch, which DataParallel would split over several devices.
    """
    inner: object = model
    while True:
        if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = inner.module
        elif isinstance(inner, OptimizedModule):
            inner = inner._orig_mod
        elif (held := _held_model(inner)) is not None:
            inner = held
        else:
            return inner  # type: ignore[return-value]  # whatever the user passed, without its wrappers


def _held_model(holder: object) -> nn.Module | None:
    """Return the model of a pipeline, or of an object that contains a model and cannot be called itself."""
    if isinstance(holder, Pipeline) or not callable(holder):
        model = getattr(holder, "model", None)
        return model if isinstance(model, nn.Module) else None
    return None


def module_of(model: Model) -> nn.Module | None:
    """Return the module that a forward function runs, or None for a plain function."""
    inner = on_one_device(model)
    module = getattr(inner, "__self__", inner)
    return module if isinstance(module, nn.Module) else None


def transformer(model: Model) -> PreTrainedModel | None:
    """Return the transformers image model that a forward function is or contains.

    Returns:
        PreTrainedModel or None: None if there is no such model, or more than one.
    """
    module = module_of(model)
    if module is None:
        return None
    models = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    nested = {id(part) for model in models for part in model.modules() if part is not model}
    outermost = [model for model in models if id(model) not in nested]
    return outermost[0] if len(outermost) == 1 and takes_images(outermost[0]) else None


def takes_images(model: PreTrainedModel) -> bool:
    """Return whether the first input of a transformers model is a batch of images."""
    names = ("pixel_values", "inputs") if "ForImageClassification" in type(model).__name__ else ("pixel_values",)
    return model.main_input_name in names
