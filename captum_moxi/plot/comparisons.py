"""Galleries of a comparison: the patches that flip the prediction, for each image and method."""

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.arguments import Mode
from captum_moxi.comparison import Comparison
from captum_moxi.plot.patches import highlight_patches
from captum_moxi.plot.style import AxesArray, figure_of


def show_comparison(
    images: Tensor, masks: Tensor, comparison: Comparison, *, mode: Mode = "insertion", axes: AxesArray | None = None
) -> tuple[Figure, AxesArray]:
    """Draw the patches that flip the prediction, one row per image and one column per method.

    The layout is that of Figure 4 of the MoXI paper. The caption below each image is the number of patches. If the
    prediction does not flip, all patches of the curve are drawn, and their number is marked with ``>``.

    Args:
        images (Tensor): Images ``(B, H, W, 3)`` in [0, 1].
        masks (Tensor): Feature masks ``(B or 1, H, W)`` int64, which contain the player id of each pixel.
        comparison (Comparison): Result of :func:`captum_moxi.compare` on these images.
        mode (str, optional): ``"insertion"`` shows the patches in color over a faded image. ``"deletion"`` fills them
            with gray.
            Default: ``"insertion"``
        axes (ndarray of Axes, optional): Axes ``(B, 1 + methods)`` to draw into. The first column shows the images.
            Default: None, a new figure

    Returns:
        tuple[Figure, ndarray of Axes]: The figure, and axes ``(B, 1 + methods)``.

    Raises:
        ValueError: If ``axes`` has a different shape.

    Examples::

        >>> comparison = compare(model, x, target=y, methods=["moxi", "random"])
        >>> show_comparison(classifier.to_images(x), patch_mask(224, 16)[0], comparison, mode="deletion")
    """
    methods = comparison.methods
    figure, grid = _grid(axes, shape=(len(images), 1 + len(methods)))
    for example, image in enumerate(images):
        mask = masks[example if len(masks) > 1 else 0]
        grid[example, 0].imshow(image.numpy())
        for ax, method in zip(grid[example, 1:], methods, strict=True):
            players, caption = _flip_group(comparison, method, mode, example=example)
            _show_group(ax, highlight_patches(image, mask, players, mode=mode), caption)
    for ax, title in zip(grid[0], ["image", *methods], strict=True):
        ax.set_title(title, fontsize=9)
    for ax in grid.ravel():
        ax.axis("off")
    return figure, grid


def _grid(axes: AxesArray | None, *, shape: tuple[int, int]) -> tuple[Figure, AxesArray]:
    if axes is None:
        size = (1.45 * shape[1], 1.75 * shape[0] + 0.2)
        return plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    grid = np.asarray(axes, dtype=object)
    if grid.shape != shape:
        raise ValueError(f"axes has shape {grid.shape}; pass axes of shape {shape}, one row per image")
    return figure_of(grid[0, 0]), grid


def _flip_group(comparison: Comparison, method: str, mode: Mode, *, example: int) -> tuple[list[int], str]:
    """Return the players that flip the prediction, or all players of the curve, and a caption with their number."""
    result = comparison.of(method, mode)
    to_flip = comparison.players_to_flip(method, mode)[example]
    flips = not torch.isnan(to_flip)
    count = int(to_flip) if flips else int(result.curve.counts[example, -1])
    return result.order[example, :count].tolist(), str(count) if flips else f"> {count}"


def _show_group(ax: Axes, image: Tensor, caption: str) -> None:
    ax.imshow(image.numpy(), interpolation="nearest")
    ax.text(0.5, -0.03, caption, transform=ax.transAxes, ha="center", va="top", fontsize=9)
