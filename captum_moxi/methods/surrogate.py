"""Captum's linear surrogate models, LIME and KernelSHAP, on the game. Both require scikit-learn."""

from importlib.util import find_spec

from captum._utils.models.linear_model import SkLearnLasso
from captum.attr import KernelShap, Lime

from captum_moxi.arguments import ForwardFunc
from captum_moxi.methods.base import COALITIONS_PER_CALL, Method, on_game


def kernel_shap(n_samples: int = 1000) -> Method:
    """Return Captum's KernelShap.

    Args:
        n_samples (int, optional): Number of sampled coalitions.
            Default: 1000

    Raises:
        ValueError: If scikit-learn is not installed.
    """
    _check_scikit_learn("kernel-shap")
    return on_game(
        f"KernelShap, {n_samples}",
        KernelShap,
        n_samples=n_samples,
        perturbations_per_eval=COALITIONS_PER_CALL,
    )


def lime(n_samples: int = 1000) -> Method:
    """Return Captum's Lime.

    Args:
        n_samples (int, optional): Number of sampled coalitions.
            Default: 1000

    Raises:
        ValueError: If scikit-learn is not installed.
    """
    _check_scikit_learn("lime")
    return on_game(
        f"LIME, {n_samples}",
        _lime,
        n_samples=n_samples,
        perturbations_per_eval=COALITIONS_PER_CALL,
    )


def _lime(forward_func: ForwardFunc) -> Lime:
    # Captum's default model. Without a random state, it would draw from NumPy's global generator.
    return Lime(forward_func, interpretable_model=SkLearnLasso(alpha=0.01, random_state=0))


def _check_scikit_learn(name: str) -> None:
    if find_spec("sklearn") is None:
        raise ValueError(f"{name} requires scikit-learn; run pip install 'captum-moxi[surrogates]'")
