"""Methods by name. Each method orders the players of a game: MoXI, methods of Captum, and others.

Perturbation methods run on the :class:`captum_moxi.CoalitionGame`, with its removal and its reward. Gradient and
attention methods attribute the model's output at the target to the inputs.

``METHODS`` lists the methods by name. To add one, write a function that returns a :class:`Method` in a file of its own,
and register it below.
"""

from collections.abc import Sequence

from captum_moxi.methods.ablation import feature_ablation
from captum_moxi.methods.base import Method, on_game, on_model
from captum_moxi.methods.gradients import grad_cam, grad_cam_plus_plus, integrated_gradients
from captum_moxi.methods.moxi import moxi, moxi_minus
from captum_moxi.methods.occlusion import occlusion
from captum_moxi.methods.random import random_order
from captum_moxi.methods.rollout import attention_rollout
from captum_moxi.methods.shapley import shapley_sampling, shapley_values
from captum_moxi.methods.surrogate import kernel_shap, lime
from captum_moxi.registry import Registry
from captum_moxi.search.screens import Screen

__all__ = [
    "METHODS",
    "Method",
    "attention_rollout",
    "feature_ablation",
    "get_methods",
    "grad_cam",
    "grad_cam_plus_plus",
    "integrated_gradients",
    "kernel_shap",
    "lime",
    "moxi",
    "moxi_minus",
    "occlusion",
    "on_game",
    "on_model",
    "random_order",
    "shapley_sampling",
    "shapley_values",
]

METHODS: Registry[Method] = Registry("method")
METHODS.register("moxi", moxi, help="MoXI")
METHODS.register("moxi-minus", moxi_minus, help="MoXI without interactions")
METHODS.register("shapley", shapley_sampling, argument="SAMPLES", help="Captum's ShapleyValueSampling")
METHODS.register("shapley-exact", shapley_values, help="Captum's ShapleyValues, for few players")
METHODS.register("kernel-shap", kernel_shap, argument="SAMPLES", help="Captum's KernelShap")
METHODS.register("lime", lime, argument="SAMPLES", help="Captum's Lime")
METHODS.register("ablation", feature_ablation, help="Captum's FeatureAblation")
METHODS.register("gradcam", grad_cam, help="Grad-CAM")
METHODS.register("gradcam++", grad_cam_plus_plus, help="Grad-CAM++")
METHODS.register("rollout", attention_rollout, help="attention rollout")
METHODS.register("integrated-gradients", integrated_gradients, argument="STEPS", help="Captum's IntegratedGradients")
METHODS.register("occlusion", occlusion, argument="PIXELS", help="Captum's Occlusion")
METHODS.register("random", random_order, help="a random order")


def get_methods(methods: str | Method | Sequence[str | Method], screen: Screen | None = None) -> list[Method]:
    """Create methods from names of ``METHODS``.

    Args:
        methods (str, Method or Sequence[str or Method]): Names, for example ``"moxi"`` or ``"shapley:200"``, or your
            own methods.
        screen (Screen, optional): Screen that named methods use for deletion, if they search. Your own methods keep
            their screens.
            Default: None, all candidates are evaluated

    Returns:
        list[Method]: Methods with different titles.

    Raises:
        ValueError: If there are no methods, if a name is unknown, or if two methods share a title.
        TypeError: If an entry is neither a name nor a method.
    """
    created: list[Method] = []
    for method in [methods] if isinstance(methods, str | Method) else methods:
        if not isinstance(method, str | Method):
            raise TypeError(f"methods contains {method!r}; pass names or Method objects")
        created.append(METHODS.create(method).with_screen(screen) if isinstance(method, str) else method)
    titles = [method.title for method in created]
    if not titles or len(set(titles)) < len(titles):
        raise ValueError(f"methods have the titles {titles}; pass one or more methods with different titles")
    return created
