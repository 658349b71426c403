"""Private views of models. A view shares the weights of the model, but has its own hooks and configuration.

Changes of the hooks or the configuration of a model affect every thread that calls it. On a private view, they affect
only calls of the view.
"""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from types import MethodType

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from transformers import PreTrainedConfig

from captum_moxi.arguments import ForwardFunc
from captum_moxi.models.unwrap import on_one_device


@dataclass(frozen=True, eq=False)
class PrivateView:
    """A forward function whose modules can be hooked and configured without effect on the user's model.

    Args:
        forward_func (Callable): Forward function that runs the view. It is the user's own function if that is not a
            module or a method of one.
        copies (dict): View of each module of the model.
    """

    forward_func: ForwardFunc
    copies: dict[nn.Module, nn.Module]

    def module(self, module: nn.Module) -> nn.Module:
        """Return the view of a module. A module outside the model is returned unchanged."""
        return self.copies.get(module, module)


def private_view(forward_func: ForwardFunc) -> PrivateView:
    """Create a private view of a model.

    The view shares parameters and buffers with the model, and starts with the user's hooks. Compiled modules are
    replaced by the modules that they were compiled from, because compiled code ignores hooks that are added later.

    Args:
        forward_func (Callable): Model, a method of a model, or any function.

    Returns:
        PrivateView: View of the model. The forward function of other functions is unchanged, because their modules are
        not known.
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
    originals = [_original(module) for module in modules]
    if any("forward" in module.__dict__ or isinstance(module, torch.jit.ScriptModule) for module in originals):
        return {module: module for module in modules}
    copies: dict[nn.Module, nn.Module] = {}
    for module in modules:
        original = _original(module)
        # a compiled module and its original share one copy
        if original not in copies:
            copies[original] = _shallow_copy(original)
        copies[module] = copies[original]
    # remembers the copies of configurations, which modules share and nest
    memo: dict[int, object] = {}
    for view in set(copies.values()):
        for name, value in view.__dict__.items():
            if "hooks" not in name:
                view.__dict__[name] = _refer_to_copies(value, copies, memo)
    return copies


def _shallow_copy(module: nn.Module) -> nn.Module:
    """Copy a module with its lists of children and hooks, but share everything else that it contains."""
    view: nn.Module = object.__new__(type(module))
    view.__dict__ = {
        name: copy.copy(value) if isinstance(value, dict) and (name == "_modules" or "hooks" in name) else value
        for name, value in module.__dict__.items()
    }
    view.__dict__["_compiled_call_impl"] = None
    return view


def _refer_to_copies(value: object, copies: dict[nn.Module, nn.Module], memo: dict[int, object]) -> object:
    """Replace modules, methods of modules and configurations by their copies, also inside lists, tuples and dicts.

    Containers without any of these are returned unchanged, so that the view shares parameters and buffers.
    """
    if isinstance(value, nn.Module):
        return copies.get(value, value)
    if isinstance(value, PreTrainedConfig):
        return copy.deepcopy(value, memo)
    if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
        return MethodType(value.__func__, copies.get(value.__self__, value.__self__))
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        items = [_refer_to_copies(item, copies, memo) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        entries = {name: _refer_to_copies(item, copies, memo) for name, item in value.items()}
        if all(entries[name] is item for name, item in value.items()):
            return value
        return OrderedDict(entries) if isinstance(value, OrderedDict) else entries
    return value


def _original(module: nn.Module) -> nn.Module:
    return module._orig_mod if isinstance(module, OptimizedModule) else module
