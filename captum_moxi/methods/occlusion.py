"""Captum's occlusion on the model."""

from collections.abc import Mapping
from typing import Any

from captum.attr import Occlusion

from captum_moxi.game import CoalitionGame
from captum_moxi.methods.base import Method, on_model
from captum_moxi.removal import ForwardCall


def occlusion(window: int = 16) -> Method:
    """Return Captum's Occlusion of images, with square windows that overlap by half.

    The windows are filled with the baselines of the game, or with zeros.

    Args:
        window (int, optional): Height and width of a window in pixels.
            Default: 16
    """

    def options(call: ForwardCall) -> Mapping[str, Any]:
        channels, stride = call.inputs[0].shape[1], max(1, window // 2)
        return {
            "sliding_window_shapes": ((channels, window, window),),
            "strides": ((channels, stride, stride),),
            "baselines": call.baselines,
            "perturbations_per_eval": 8,
        }

    def check(game: CoalitionGame) -> None:
        shapes = [tuple(x.shape) for x in game.call.inputs]
        if len(shapes) != 1 or len(shapes[0]) != 4 or min(shapes[0][2:]) < window:
            raise ValueError(
                f"inputs has shape {', '.join(map(str, shapes))}, but occlusion with windows of {window} x {window} "
                "pixels takes one input of images (B, C, H, W) that are at least as large; pass a smaller window, for "
                "example occlusion:4, or leave out the method"
            )

    return on_model(f"Occlusion, {window}", Occlusion, check=check, options=options)
