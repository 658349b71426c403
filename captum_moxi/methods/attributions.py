"""Methods from any attribution object of Captum, and from any function."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeGuard

import torch
from captum.attr import LRP, Attribution, DeepLiftShap, LayerLRP
from torch import Tensor, nn

from captum_moxi.arguments import Mode, Stop, TensorOrTuple
from captum_moxi.game import CoalitionGame, Cost
from captum_moxi.methods.base import Method, attribute_inputs, copy_inputs
from captum_moxi.methods.counting import ParameterUses, Record, counted_view
from captum_moxi.methods.layers import attributes_layer, check_layer, layer_to_inputs
from captum_moxi.methods.seeded import SeededRandom
from captum_moxi.metrics import Attributions
from captum_moxi.models import module_of, private_view

# A tensor ``(B,)``, int64, on the device of the inputs. A list of tuples for outputs with more than two dimensions, and
# None if there is no target.
FunctionTarget: TypeAlias = Tensor | list[int | tuple[int, ...]] | None
AttributionFunction: TypeAlias = Callable[[TensorOrTuple, FunctionTarget], Attributions]
AnyAttribution: TypeAlias = Attribution | type[Attribution]

# Names of the first argument of Captum's classes that take a model, and of those that need a module.
MODEL_ARGUMENTS = ("forward_func", "model")
# Arguments of ``attribute`` that a game provides.
GAME_ARGUMENTS = ("inputs", "target", "additional_forward_args", "baselines", "feature_mask")


def from_attribution(attribution: AnyAttribution, *, title: str | None = None, **options: Any) -> Method:
    """Build a method from an object or a class of Captum, which runs on the model as it does in Captum.

    The object runs on a private view of its model, so any number of threads may use it. A transformers model is
    accepted as it is: the attributions are those of its logits. ``attribute`` receives the inputs, the target, the
    additional arguments, the baselines (if the game has any) and the players as feature mask, as far as it accepts
    them. Random numbers start from seed 0. Other threads notice nothing, with one exception: while GradientShap or
    Lime runs, NumPy's global generator is seeded.

    Attributions of a layer are summed over its channels and resized to the image. The layer is a feature map
    ``(B, C, h, w)`` or has one token for each patch.

    Perturbation classes of Captum fill removed values with the baselines and attribute a logit. To use the removal and
    the reward of the game instead, use a method by name, or :func:`captum_moxi.methods.on_game`.

    Args:
        attribution (Attribution or type): Object that you created from your model, or a class that can be created from
            the model alone, for example ``captum.attr.Saliency``.
        title (str, optional): Name of the method in tables and figures.
            Default: None, the name of the class
        **options (Any): Further keyword arguments of ``attribute``.

    Returns:
        Method: Method whose order is the same in both modes.

    Raises:
        ValueError: If the class needs more than a model, if ``attribute`` needs more arguments, or for LRP, which
            changes the weights of the model while it runs. When the method is checked: if the model, the baselines or
            the layer do not fit.
        TypeError: If ``attribution`` is neither an object nor a class of Captum.

    Examples::

        >>> from_attribution(Saliency)
        >>> from_attribution(NoiseTunnel(Saliency(model)), title="SmoothGrad", nt_samples=10)
    """
    if not is_attribution(attribution) or not hasattr(attribution, "attribute"):
        raise TypeError(f"attribution is {attribution!r}; pass an object or a class of captum.attr.Attribution")
    name = _name(attribution)
    accepted = _parameters(attribution)
    _check_class(attribution, name)
    missing = [key for key in _required(accepted) if key not in (*GAME_ARGUMENTS, *options)]
    if missing:
        raise ValueError(
            f"{name}.attribute requires {' and '.join(missing)}; pass from_attribution({name}, {missing[0]}=...), or a "
            "function (inputs, target) -> attributions"
        )

    def create(game: CoalitionGame) -> Attribution:
        return attribution(game.call.forward_func) if isinstance(attribution, type) else attribution

    def arguments(game: CoalitionGame) -> Mapping[str, Any]:
        call = game.call
        provided = {
            "target": game.captum_target,
            "additional_forward_args": call.arguments() or None,
            "feature_mask": call.players.positions,
        }
        if call.baselines is not None:
            provided["baselines"] = call.baselines
        return {key: value for key, value in provided.items() if key in accepted} | options

    def check(game: CoalitionGame) -> None:
        if isinstance(attribution, type) and _takes_module(attribution) and module_of(game.call.forward_func) is None:
            raise ValueError(f"{name} needs a module, but forward_func is a function; pass the model itself")
        if "baselines" in _required(accepted):
            _check_distribution(name, attribution, arguments(game).get("baselines"))
        created = create(game)
        if attributes_layer(created):
            of_input = bool(options.get("attribute_to_layer_input", False))
            check_layer(_private_copy(created, _ignore_cost), game, of_input=of_input)

    def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Attributions:
        private = _private_copy(create(game), game.add_cost)
        attributions = attribute_inputs(private, game, **arguments(game))
        return layer_to_inputs(attributions, game.call) if attributes_layer(private) else attributions

    return Method(title or name, attribute, check=check)


def from_function(function: AttributionFunction, *, title: str | None = None) -> Method:
    """Build a method from a function that computes attributions in any way.

    The cost is measured by observing the operations of this thread that use parameters of the model. The rows are NaN
    (unknown) if there are no such operations: if the function does not run the model, or runs a copy of it, calls it
    with ``torch.func.functional_call``, compiles it, or uses another thread.

    Args:
        function (Callable): Function ``(inputs, target) -> attributions``. The inputs are a copy of those of the game,
            as a tensor, or as a tuple if there are several. The target is a tensor ``(B,)``, int64, with the class of
            each example, or None. The attributions have any form that :func:`captum_moxi.insertion_curve` accepts.
            PyTorch's random numbers start from seed 0. Those of NumPy and of dropout do not: use a NumPy generator of
            your own, or pass GradientShap itself instead of a function around it.
        title (str, optional): Name of the method in tables and figures.
            Default: None, the name of the function

    Returns:
        Method: Method whose order is the same in both modes.

    Examples::

        >>> def smooth_grad(inputs, target):
        ...     return NoiseTunnel(Saliency(net)).attribute(inputs, target=target, nt_samples=10)
        >>> compare(model, x, target=y, methods=["moxi", smooth_grad])
    """

    def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Attributions:
        with torch.enable_grad(), SeededRandom(0), ParameterUses(game.call.forward_func) as uses:
            attributions = function(copy_inputs(game.call), _function_target(game))
        game.add_cost(uses.cost)
        return attributions

    return Method(title or str(getattr(function, "__name__", type(function).__name__)), attribute)


def is_attribution(value: object) -> TypeGuard[AnyAttribution]:
    """Return whether a value is an object or a class of ``captum.attr.Attribution``."""
    return isinstance(value, Attribution) or (isinstance(value, type) and issubclass(value, Attribution))


def _function_target(game: CoalitionGame) -> FunctionTarget:
    target = game.captum_target
    if target is None or isinstance(target[0], tuple):
        return target
    return torch.tensor(target, device=game.call.inputs[0].device)


def _private_copy(attribution: Attribution, record: Record) -> Attribution:
    """Copy an attribution object so that it runs on a private view of its model, which records its cost."""
    view = counted_view(attribution.forward_func, record)
    replacements: dict[int, Any] = {id(module): private for module, private in view.copies.items()}
    replacements[id(attribution.forward_func)] = view.forward_func

    def replace(value: Any) -> Any:
        if id(value) in replacements:
            return replacements[id(value)]
        if isinstance(value, Attribution):
            copied = copy.copy(value)
            copied.__dict__ = {name: replace(attribute) for name, attribute in vars(value).items()}
            return copied
        if isinstance(value, nn.Module):
            return private_view(value).forward_func
        # For example the handles of hooks.
        return copy.copy(value) if isinstance(value, list | dict) else value

    private: Attribution = replace(attribution)
    return private


def _name(attribution: AnyAttribution) -> str:
    if isinstance(attribution, type):
        return attribution.__name__
    inner = getattr(attribution, "attribution_method", None)
    name = type(attribution).__name__
    return name if inner is None else f"{name}({_name(inner)})"


def _parameters(attribution: AnyAttribution) -> dict[str, inspect.Parameter]:
    """Return the parameters of ``attribute``, including those that NoiseTunnel passes on."""
    parameters = dict(inspect.signature(attribution.attribute).parameters)
    parameters.pop("self", None)
    inner = getattr(attribution, "attribution_method", None)
    return parameters if inner is None else {**_parameters(inner), **parameters}


def _required(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, p in parameters.items() if p.default is p.empty and p.kind not in variadic]


def _takes_module(cls: type[Attribution]) -> bool:
    return "model" in inspect.signature(cls).parameters


def _ignore_cost(cost: Cost) -> None:
    """Record nothing, for checks."""


def _check_distribution(name: str, attribution: AnyAttribution, baselines: object) -> None:
    """Check the baselines of classes that average over several, for example GradientShap."""
    tensors = baselines if isinstance(baselines, tuple) else (baselines,)
    advice = f"pass from_attribution({name}, baselines=...), with a tensor of N baselines (N, ...) or a function"
    if not callable(baselines) and not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise ValueError(f"{name} requires a distribution of baselines, but baselines is {baselines!r}; {advice}")
    if issubclass(_class(attribution), DeepLiftShap) and any(isinstance(x, Tensor) and len(x) < 2 for x in tensors):
        raise ValueError(f"{name} requires at least two baselines, but baselines has one; {advice}")


def _class(attribution: AnyAttribution) -> type[Attribution]:
    """Return the class of an attribution, or of the one inside NoiseTunnel."""
    inner = getattr(attribution, "attribution_method", attribution)
    return inner if isinstance(inner, type) else type(inner)


def _check_class(attribution: AnyAttribution, name: str) -> None:
    if issubclass(_class(attribution), LRP | LayerLRP):
        raise ValueError(
            f"{name} changes the weights of the model while it runs; pass a function (inputs, target) -> attributions "
            "that runs it on a copy of the model"
        )
    if isinstance(attribution, type):
        needed = [key for key in _required(inspect.signature(attribution).parameters) if key not in MODEL_ARGUMENTS]
        if needed:
            raise ValueError(
                f"the class {name} requires {' and '.join(needed)}; pass an object that you create from your model"
            )
