"""Attributions of a layer of the model, as attributions of the inputs."""

from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn, no_grad

from captum_moxi import models
from captum_moxi.arguments import ForwardFunc
from captum_moxi.attr import GradCam
from captum_moxi.game import CoalitionGame
from captum_moxi.metrics import Attributions
from captum_moxi.removal import ForwardCall

ADVICE = "pass a layer whose output is a feature map (B, C, H, W) or has one token for each patch"


def attributes_layer(attribution: object) -> bool:
    """Return whether the attributions of an object have the shape of a layer.

    This is False for ``GradCam``, which maps them to the image.
    """
    inner = _innermost(attribution)
    return isinstance(inner, LayerAttribution) and not isinstance(inner, GradCam)


def check_layer(attribution: object, game: CoalitionGame, *, of_input: bool) -> None:
    """Check that the attributions of a layer can be mapped to the inputs.

    The model runs once to determine the shape of the layer's values.

    Args:
        attribution (Attribution): Object for which :func:`attributes_layer` is true, on a private view of its model.
        game (CoalitionGame): Game.
        of_input (bool): Whether the input of the layer is attributed instead of its output.

    Raises:
        ValueError: If there are several layers, if the layer is not called, or if its values cannot be mapped.
    """
    inner = _innermost(attribution)
    name, layer = type(inner).__name__, inner.layer  # type: ignore[attr-defined]  # a LayerAttribution
    if not isinstance(layer, nn.Module):
        raise ValueError(f"{name} has {len(layer)} layers; pass an object with one layer")
    values = _layer_values(inner.forward_func, layer, game.call, of_input=of_input)  # type: ignore[attr-defined]
    where = f"the layer {type(layer).__name__} of {name}"
    if values is None:
        raise ValueError(
            f"{where} is not called in the forward pass of the model; pass a layer of this model, and create {name} "
            "from the model instead of a function that calls it"
        )
    tensors = values if isinstance(values, tuple) else (values,)
    if len(tensors) != 1 or not isinstance(tensors[0], Tensor):
        types = ", ".join(type(value).__name__ for value in tensors)
        raise ValueError(f"{where} returns {types}; pass a layer that returns one tensor")
    shape = tuple(tensors[0].shape)
    if isinstance(inner, LayerGradCam) and len(shape) != 4:
        raise ValueError(
            f"{where} has shape {shape}, but {name} needs a feature map (B, C, H, W); pass the method gradcam, or "
            "captum_moxi.GradCam(model, layer), which arrange tokens as an image"
        )
    if _to_input(tensors[0], game.call) is None:
        inputs = ", ".join(str(tuple(x.shape)) for x in game.call.inputs)
        raise ValueError(f"{where} has shape {shape}, which does not correspond to inputs of shape {inputs}; {ADVICE}")


def layer_to_inputs(attributions: Attributions, call: ForwardCall) -> Attributions:
    """Map attributions of a layer to the inputs, by summing over the channels of each position.

    Args:
        attributions (Tensor or tuple[Tensor]): Attributions of the values of a layer, in one of these shapes:

            - ``(B, C, h, w)`` or ``(B, tokens, C)`` for inputs of images ``(B, 3, H, W)``. The tokens consist of prefix
              tokens, which are left out, and one token for each patch.
            - The shape of the inputs, or that shape with further dimensions, for example ``(B, T, C)`` for an embedding
              of the inputs ``(B, T)``.
        call (ForwardCall): Inputs and model.

    Returns:
        Tensor: Attributions in the shape of the inputs, or a map ``(B, 1, h, w)``.

    Raises:
        ValueError: If the attributions have another shape.
    """
    tensors = attributions if isinstance(attributions, tuple) else (attributions,)
    mapped = _to_input(tensors[0], call) if len(tensors) == 1 and isinstance(tensors[0], Tensor) else None
    if mapped is None:
        raise ValueError(f"the attributions of the layer do not correspond to the inputs; {ADVICE}")
    return mapped


def _to_input(values: Tensor, call: ForwardCall) -> Tensor | None:
    """Sum over the channels of a layer at each position of the inputs. Return None if the positions do not match."""
    if len(call.inputs) != 1:
        return None
    x = call.inputs[0]
    if values.shape[: x.dim()] == x.shape:
        return values.reshape(*x.shape, -1).sum(-1)
    if x.dim() != 4:
        return None
    if values.dim() == 4:
        return values.sum(1, keepdim=True)
    size = None if models.needs_grid(call.forward_func) else models.find_patch_size(call.forward_func)
    if values.dim() == 3 and size is not None:
        grid = models.PatchGrid.of(x, size)
        if models.fits_prefix(values.shape[1], grid.n_patches):
            return grid.tokens_to_map(values).sum(1, keepdim=True)
    return None


def _layer_values(forward_func: ForwardFunc, layer: nn.Module, call: ForwardCall, *, of_input: bool) -> object:
    """Return what a layer receives or returns in a forward pass, or None if it is not called."""
    seen: list[object] = []
    if of_input:
        handle = layer.register_forward_pre_hook(lambda module, args: seen.append(args))
    else:
        handle = layer.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        with no_grad():
            models.call_model(forward_func, *call.copied_inputs(), *call.arguments())
    finally:
        handle.remove()
    return seen[-1] if seen else None


def _innermost(attribution: object) -> object:
    """Return the object inside NoiseTunnel."""
    inner = getattr(attribution, "attribution_method", None)
    return attribution if inner is None else _innermost(inner)
