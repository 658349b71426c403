"""Private views of models: they share the weights, but their hooks and configuration are their own.

Hooks and configuration changes on a model affect every thread that calls it. On a private view, they affect only the
calls of the view.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from transformers import PreTrainedConfig

from captum_moxi.arguments import ForwardFunc
from captum_moxi.models.unwrap import on_one_device


@dataclass(frozen=True, eq=False)
class PrivateView:
    """A forward function whose modules can be changed without effect on the user's model.

    Args:
        forward_func (Callable): Forward function that runs the view. It is the user's own function if that is not a
            module or a method of one.
        copies (dict): View of each module of the model.
    """

    forward_func: ForwardFunc
    copies: dict[nn.Module, nn.Module]

    def module(self, module: nn.Module) -> nn.Module:
        """Return the view of a module, or the module itself if it does not belong to the model."""
        return self.copies.get(module, module)


def private_view(forward_func: ForwardFunc) -> PrivateView:
    """Create a private view of a model.

    The view shares parameters and buffers with the model, and keeps the user's hooks. Compiled modules are replaced by
    the modules that they were compiled from, because compiled code ignores hooks that are added later.

    Args:
        forward_func (Callable): Model, a method of a model, or any function.

    Returns:
        PrivateView: View of the model. A function is returned unchanged, because its modules are not known.
    """
    inner = on_one_device(forward_func)
    if isinstance(inner, nn.Module):
        copies = _copy_modules(inner)
        return PrivateView(copies[inner], copies)
    owner = getattr(inner, "__self__", None)
    name = getattr(inner, "__name__", None)
    if isinstance(owner, nn.Module) and name is not None and getattr(owner, name, None) == inner:
        copies = _copy_modules(owner)
        return PrivateView(getattr(copies[owner], name), copies)
    return PrivateView(inner, {})


def _copy_modules(root: nn.Module) -> dict[nn.Module, nn.Module]:
    """Copy a module and all modules inside it, but neither parameters nor buffers. Return the copy of each module.

    The model itself is used if a copy would run the original modules: if an instance has a ``forward`` of its own, as
    libraries that patch models assign it, or if the model is a script.
    """
    modules = list(root.modules())
    if any("forward" in module.__dict__ or isinstance(module, torch.jit.ScriptModule) for module in modules):
        return {module: module for module in modules}
    copies: dict[nn.Module, nn.Module] = {}
    configs: dict[int, PreTrainedConfig] = {}
    for module in modules:
        original = _original(module)
        # a compiled module and its original share one copy
        if original not in copies:
            copies[original] = _shallow_copy(original, configs)
        copies[module] = copies[original]
    for view in set(copies.values()):
        for name, child in view._modules.items():
            view._modules[name] = None if child is None else copies[child]
    return copies


def _shallow_copy(module: nn.Module, configs: dict[int, PreTrainedConfig]) -> nn.Module:
    """Copy a module with its dictionaries of parameters, buffers, children and hooks, but not what they contain."""
    view = module.__new__(type(module))
    view.__dict__ = {
        name: copy.copy(value) if name.startswith("_") and isinstance(value, dict) else value
        for name, value in module.__dict__.items()
    }
    view.__dict__["_compiled_call_impl"] = None
    config = module.__dict__.get("config")
    if isinstance(config, PreTrainedConfig):
        view.__dict__["config"] = configs.setdefault(id(config), copy.copy(config))
    return view


def _original(module: nn.Module) -> nn.Module:
    return module._orig_mod if isinstance(module, OptimizedModule) else module
