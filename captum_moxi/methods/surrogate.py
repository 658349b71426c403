"""Captum's linear surrogate models, LIME and KernelSHAP, on the game. Both need scikit-learn."""

from importlib.util import find_spec

from captum.attr import KernelShap, Lime

from captum_moxi.game import CoalitionGame
from captum_moxi.methods.base import COALITIONS_PER_CALL, Method, on_game


def kernel_shap(n_samples: int = 1000) -> Method:
    """Return Captum's KernelShap.

    Args:
        n_samples (int, optional): Number of sampled coalitions.
            Default: 1000
    """
    return on_game(
        f"KernelShap, {n_samples}",
        KernelShap,
        check=_check_scikit_learn,
        n_samples=n_samples,
        perturbations_per_eval=COALITIONS_PER_CALL,
    )


def lime(n_samples: int = 1000) -> Method:
    """Return Captum's Lime.

    Args:
        n_samples (int, optional): Number of sampled coalitions.
            Default: 1000
    """
    return on_game(
        f"LIME, {n_samples}",
        Lime,
        check=_check_scikit_learn,
        n_samples=n_samples,
        perturbations_per_eval=COALITIONS_PER_CALL,
    )


def _check_scikit_learn(game: CoalitionGame) -> None:
    if find_spec("sklearn") is None:
        raise ValueError("Captum's Lime and KernelShap need scikit-learn; run `pip install scikit-learn`")
