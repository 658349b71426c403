"""Methods by name. Each method orders the players of a game: MoXI, methods of Captum, and others.

Perturbation methods run on the :class:`captum_moxi.CoalitionGame`, with its removal and its reward. Gradient and
attention methods attribute the model's output at the target to the inputs.

``METHODS`` lists the methods by name. To add one, write a function that returns a :class:`Method` in a file of its own,
and register it below. Objects and classes of Captum, and functions, are methods without registration.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from captum_moxi.methods.ablation import feature_ablation
from captum_moxi.methods.attributions import (
    AnyAttribution,
    AttributionFunction,
    from_attribution,
    from_function,
    is_attribution,
)
from captum_moxi.methods.base import Method, on_game, on_model
from captum_moxi.methods.gradients import grad_cam, grad_cam_plus_plus, integrated_gradients
from captum_moxi.methods.moxi import moxi, moxi_minus, moxi_symmetric
from captum_moxi.methods.occlusion import occlusion
from captum_moxi.methods.partition import shap_partition
from captum_moxi.methods.random import random_order
from captum_moxi.methods.rollout import attention_rollout
from captum_moxi.methods.shapley import shapley_sampling, shapley_values
from captum_moxi.methods.surrogate import kernel_shap, lime
from captum_moxi.registry import Registry
from captum_moxi.search.screens import AnyScreen

__all__ = [
    "DEFAULT_METHODS",
    "METHODS",
    "AnyMethod",
    "Method",
    "attention_rollout",
    "feature_ablation",
    "from_attribution",
    "from_function",
    "get_methods",
    "grad_cam",
    "grad_cam_plus_plus",
    "integrated_gradients",
    "kernel_shap",
    "lime",
    "moxi",
    "moxi_minus",
    "moxi_symmetric",
    "occlusion",
    "on_game",
    "on_model",
    "random_order",
    "shap_partition",
    "shapley_sampling",
    "shapley_values",
]

# A name of ``METHODS``, a method, an object or a class of Captum, or a function ``(inputs, target) -> attributions``.
AnyMethod: TypeAlias = str | Method | AnyAttribution | AttributionFunction

METHODS: Registry[Method] = Registry("method")
METHODS.register("moxi", moxi, help="MoXI")
METHODS.register("moxi-minus", moxi_minus, help="MoXI without interactions")
METHODS.register("moxi-symmetric", moxi_symmetric, help="MoXI with one order for insertion and deletion")
METHODS.register("shapley", shapley_sampling, argument="SAMPLES", help="Captum's ShapleyValueSampling")
METHODS.register("shapley-exact", shapley_values, help="Captum's ShapleyValues, for few players")
METHODS.register("kernel-shap", kernel_shap, argument="SAMPLES", help="Captum's KernelShap")
METHODS.register("shap-partition", shap_partition, argument="EVALUATIONS", help="shap's PartitionExplainer")
METHODS.register("lime", lime, argument="SAMPLES", help="Captum's Lime")
METHODS.register("ablation", feature_ablation, help="Captum's FeatureAblation")
METHODS.register("gradcam", grad_cam, help="Grad-CAM")
METHODS.register("gradcam++", grad_cam_plus_plus, help="Grad-CAM++")
METHODS.register("rollout", attention_rollout, help="attention rollout")
METHODS.register("integrated-gradients", integrated_gradients, argument="STEPS", help="Captum's IntegratedGradients")
METHODS.register("occlusion", occlusion, argument="PIXELS", help="Captum's Occlusion")
METHODS.register("random", random_order, help="a random order")

# By default, shapley draws 25 samples: 901 rows for 36 players. A convolutional network needs minutes for them.
DEFAULT_METHODS = ("moxi", "moxi-minus", "shapley:5", "gradcam", "gradcam++", "rollout", "random")


def get_methods(
    methods: AnyMethod | Sequence[AnyMethod] | None = None, screen: AnyScreen | None = None
) -> list[Method]:
    """Create methods from names of ``METHODS``, objects and classes of Captum, and functions.

    Args:
        methods (str, Method, Attribution, type, Callable, or Sequence of these, optional): One or more methods:

            - A name, for example ``"moxi"`` or ``"shapley:200"``.
            - An object or a class of ``captum.attr.Attribution``, as in :func:`from_attribution`.
            - A function ``(inputs, target) -> attributions``, as in :func:`from_function`.
            - A :class:`Method`.

            Default: None, ``DEFAULT_METHODS``, which are optional: comparisons leave out those that do not support the
            model
        screen (Screen, optional): Screen that named methods use, if they search, in the modes that it is meant for.
            Your own methods keep their screens.
            Default: None, all candidates are evaluated

    Returns:
        list[Method]: Methods with different titles.

    Raises:
        ValueError: If there are no methods, if a name is unknown, if a class needs more than a model, if a package is
            missing, or if two methods share a title.
        TypeError: If an entry is none of these.
    """
    if methods is None:
        return [replace(_create(name, screen), is_optional=True) for name in DEFAULT_METHODS]
    entries = methods if isinstance(methods, Sequence) and not isinstance(methods, str) else [methods]
    created = [_create(entry, screen) for entry in entries]
    titles = [method.title for method in created]
    if not titles or len(set(titles)) < len(titles):
        # Only objects and functions can be given another title.
        named = all(isinstance(entry, str) for entry in entries)
        example = "" if named else ", for example from_attribution(attribution, title=...)"
        raise ValueError(f"methods have the titles {titles}; pass one or more methods with different titles{example}")
    return created


def _create(method: AnyMethod, screen: AnyScreen | None) -> Method:
    if isinstance(method, str):
        return METHODS.create(method).with_screen(screen)
    if isinstance(method, Method):
        return method
    if is_attribution(method):
        return from_attribution(method)
    if callable(method) and not isinstance(method, type):
        return from_function(method)
    raise TypeError(
        f"methods contains {method!r}; pass names, objects or classes of captum.attr.Attribution, functions (inputs, "
        "target) -> attributions, or Method objects"
    )
