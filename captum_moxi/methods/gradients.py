"""Methods that use the gradients of the model: Grad-CAM, Grad-CAM++ and integrated gradients."""

from collections.abc import Mapping
from typing import Any

from captum.attr import IntegratedGradients

from captum_moxi.attr import GradCam, GradCamPlusPlus
from captum_moxi.game import CoalitionGame
from captum_moxi.methods.base import Method, on_model
from captum_moxi.removal import ForwardCall

# Minimum number of rows that Captum evaluates at once. Smaller passes would be slow.
MIN_BATCH = 16


def grad_cam() -> Method:
    """Return Grad-CAM without its ReLU, which would give equal scores to all players with negative values."""
    return on_model("Grad-CAM", GradCam)


def grad_cam_plus_plus() -> Method:
    """Return Grad-CAM++ without its ReLU, for the same reason as :func:`grad_cam`."""
    return on_model("Grad-CAM++", GradCamPlusPlus)


def integrated_gradients(n_steps: int = 50) -> Method:
    """Return Captum's IntegratedGradients, from the baselines of the game (or zeros) to the inputs.

    Args:
        n_steps (int, optional): Number of steps from the baselines to the inputs.
            Default: 50
    """

    def options(call: ForwardCall) -> Mapping[str, Any]:
        # Captum needs at least one row for each example in a pass.
        batch = max(MIN_BATCH, call.batch)
        return {"baselines": call.baselines, "n_steps": n_steps, "internal_batch_size": batch}

    title = f"Integrated gradients, {n_steps}"
    return on_model(title, IntegratedGradients, check=_check_floating_point, options=options)


def _check_floating_point(game: CoalitionGame) -> None:
    dtypes = [x.dtype for x in game.call.inputs]
    if not all(dtype.is_floating_point for dtype in dtypes):
        listed = ", ".join(map(str, dtypes))
        raise ValueError(
            f"inputs has dtype {listed}, but integrated gradients need floating-point inputs; "
            "leave out the method integrated-gradients"
        )
