"""Private views of models. A view shares the weights of the model, but has its own hooks and configuration.

Changes of the hooks or the configuration of a model affect every thread that calls it. On a private view, they affect
only calls of the view.
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
    """A forward function whose modules can be hooked and configured without effect on the user's model.

    Args:
        forward_func (Callable): Forward function that runs the view. It is the user's own function if that is not a
            module or a method of one.
        copies (dict): View of each module of the model.
    """

    forward_func: ForwardFunc
    copies: dict[nn.Module, nn.Module]

    def module(self, module: nn.Module) -> nn.Module:
        """Return the view of a module, with hooks of its own. A module outside the model is returned unchanged."""
        view = self.copies.get(module)
        if view is None or view is module:
            return module
        for name, hooks in view.__dict__.items():
            if "hooks" in name and isinstance(hooks, dict):
                view.__dict__[name] = copy.copy(hooks)
        return view


def private_view(forward_func: ForwardFunc) -> PrivateView:
    """Create a private view of a model.

    The view shares parameters, buffers and the user's hooks with the model. Compiled modules are replaced by the
    modules that they were compiled from, because compiled code ignores hooks that are added later.

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
    """Copy a module and all modules inside it, but not their parameters and buffers. Return the copy of each module.

    Some copies would run the original modules, so these models are used unchanged: models that contain a ``forward``
    assigned to an instance (as libraries that patch models do), and TorchScript models.
    """
    modules = list(root.modules())
    originals = [_original(module) for module in modules]
    if any("forward" in module.__dict__ or isinstance(module, torch.jit.ScriptModule) for module in originals):
        return {module: module for module in modules}
    copies: dict[nn.Module, nn.Module] = {}
    configs: dict[int, PreTrainedConfig] = {}
    for module in modules:
        original = _original(module)
        # A compiled module and its original share one copy.
        if original not in copies:
            copies[original] = _shallow_copy(original, configs)
        copies[module] = copies[original]
    for view in set(copies.values()):
        for name, child in view._modules.items():
            view._modules[name] = None if child is None else copies[child]
    return copies


def _shallow_copy(module: nn.Module, configs: dict[int, PreTrainedConfig]) -> nn.Module:
    """Copy a module, but share everything that it contains, except for its list of children and its configuration."""
    view = module.__new__(type(module))
    view.__dict__ = {**module.__dict__, "_modules": copy.copy(module._modules), "_compiled_call_impl": None}
    config = module.__dict__.get("config")
    if isinstance(config, PreTrainedConfig):
        view.__dict__["config"] = configs.setdefault(id(config), copy.copy(config))
    return view


def _original(module: nn.Module) -> nn.Module:
    return module._orig_mod if isinstance(module, OptimizedModule) else module
