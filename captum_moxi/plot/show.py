"""One line to a picture: :func:`show` chooses the plot by the type of the result."""

from functools import singledispatch
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from captum_moxi.arguments import Mode
from captum_moxi.comparison import Comparison
from captum_moxi.metrics.curves import Curve, Quantity
from captum_moxi.plot.comparisons import show_comparison
from captum_moxi.plot.curves import plot_curve, plot_curves
from captum_moxi.plot.patches import show_heat_map
from captum_moxi.plot.selections import show_steps
from captum_moxi.plot.style import HEAT_COLORS, AxesArray
from captum_moxi.search import Selection


@singledispatch
def show(result: object, image: Tensor | None = None, **options: Any) -> tuple[Figure, Axes | AxesArray]:
    """Draw a result in one line. The type of the result decides what is drawn.

    ``image`` is an image ``(H, W, 3)`` or images ``(B, H, W, 3)`` in [0, 1], or pixel values ``(B, C, H, W)``. Pixel
    values are scaled so that they fill the range from 0 to 1. Pass ``classifier.to_images(x)`` for the original colors.

    Args:
        result (Selection, Tensor, Curve or Comparison): What to draw.

            - :class:`captum_moxi.Selection`: :func:`captum_moxi.plot.show_steps`. Requires ``image`` and ``mask``, the
              feature mask of any shape ``(..., H, W)``.
            - Tensor ``(H, W)``, ``(C, H, W)`` or ``(B, C, H, W)``, the attributions of an image:
              :func:`captum_moxi.plot.show_heat_map` of their mean over the channels. Attributions of a layer, such as
              those of Grad-CAM, are interpolated to the size of the image. Requires ``image``.
            - :class:`captum_moxi.Curve`: :func:`captum_moxi.plot.plot_curve`.
            - :class:`captum_moxi.Comparison`: :func:`captum_moxi.plot.show_comparison` if ``image`` and ``mask`` are
              passed, and :func:`captum_moxi.plot.plot_curves` if neither is.

        image (Tensor, optional): Image to draw on.
            Default: None
        **options: ``example`` (index in the batch), ``cmap``, ``alpha`` and ``colorbar`` for selections and
            attributions, ``quantity`` for curves, ``mode`` for a comparison on images, and ``ax``. A comparison draws
            into several axes: pass an array of the shape that the function above returns.

    Returns:
        tuple[Figure, Axes]: The figure and its axes.

    Raises:
        TypeError: If the result has another type. To add a type, register a function with ``show.register``.
        ValueError: If ``image`` or ``mask`` is missing or has a wrong shape, or if ``ax`` has a wrong shape.

    Examples::

        >>> attr, selection = MoXIInsertion(model).attribute(x, target=y, stop="flip", return_selection=True)
        >>> show(selection, x, mask=patch_mask(224, 16))
        >>> show(attr, x, cmap="viridis", alpha=0.5, colorbar=True)
        >>> show(compare(model, x, target=y, methods=["moxi", "random"]))
    """
    raise TypeError(f"result is a {type(result).__name__}; pass a Selection, a tensor, a Curve or a Comparison")


@show.register
def _(
    result: Selection,
    image: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    example: int = 0,
    cmap: str | Colormap = HEAT_COLORS,
    alpha: float | None = None,
    colorbar: bool | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    images = _to_images(image)
    masks = _to_masks(mask, images)
    return show_steps(
        images[example if len(images) > 1 else 0],
        masks[example if len(masks) > 1 else 0],
        result,
        example=example,
        cmap=cmap,
        alpha=alpha,
        colorbar=colorbar,
        ax=ax,
    )


@show.register
def _(
    result: Tensor,
    image: Tensor | None = None,
    *,
    example: int = 0,
    cmap: str | Colormap = HEAT_COLORS,
    alpha: float = 0.6,
    colorbar: bool = False,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    images = _to_images(image)
    picture = images[example if len(images) > 1 else 0]
    scores = result[example] if result.dim() == 4 else result
    # Players that cover all channels have the same score in each. The mean is that score.
    scores = scores.mean(0) if scores.dim() == 3 else scores
    if scores.shape != picture.shape[:2]:
        scores = interpolate(scores[None, None].float(), picture.shape[:2], mode="bilinear")[0, 0]
    return show_heat_map(picture, scores, cmap=cmap, alpha=alpha, colorbar=colorbar, ax=ax)


@show.register
def _(
    result: Curve, image: None = None, *, quantity: Quantity = "confidences", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    return plot_curve(result, quantity=quantity, ax=ax)


@show.register
def _(
    result: Comparison,
    image: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    mode: Mode = "insertion",
    quantity: Quantity = "confidences",
    ax: Axes | AxesArray | None = None,
) -> tuple[Figure, AxesArray]:
    axes = None if ax is None else np.atleast_1d(np.asarray(ax, dtype=object))
    if image is None and mask is None:
        return plot_curves(result, quantity=quantity, axes=axes)
    images = _to_images(image)
    return show_comparison(images, _to_masks(mask, images), result, mode=mode, axes=axes)


def _to_images(image: Tensor | None) -> Tensor:
    """Convert an image, images or pixel values to images ``(B, H, W, 3)`` in [0, 1], on the CPU."""
    if image is None:
        raise ValueError("image is missing; pass the image to draw on, for example show(result, x)")
    if not isinstance(image, Tensor):
        raise TypeError(f"image is a {type(image).__name__}; pass a tensor, for example classifier.to_images(x)")
    image = image.detach().float().cpu()
    if image.dim() in (3, 4) and image.shape[-1] == 3:
        return image.reshape(-1, *image.shape[-3:])
    if image.dim() != 4 or image.shape[1] not in (1, 3):
        raise ValueError(
            f"image has shape {tuple(image.shape)}; pass an image (H, W, 3), images (B, H, W, 3) or pixel values "
            "(B, C, H, W) with 1 or 3 channels"
        )
    low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    scaled = (image - low) / (high - low).clamp(min=torch.finfo(image.dtype).tiny)
    return scaled.permute(0, 2, 3, 1).expand(-1, -1, -1, 3)


def _to_masks(mask: Tensor | None, images: Tensor) -> Tensor:
    """Return the feature masks ``(B or 1, H, W)``, on the CPU."""
    if mask is None:
        raise ValueError(
            "mask is missing; pass the feature mask, for example mask=patch_mask(224, 16) for a model with patches of "
            "16 x 16 pixels"
        )
    size = images.shape[1:3]
    if mask.shape[-2:] != size:
        raise ValueError(f"mask has shape {tuple(mask.shape)} for an image of {tuple(size)} pixels; pass (..., H, W)")
    return mask.reshape(-1, *size).cpu()
