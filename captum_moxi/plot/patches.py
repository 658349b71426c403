"""Plots of an image and its patches."""

from collections.abc import Sequence

import torch
from captum.attr import visualization
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.arguments import Mode
from captum_moxi.plot.style import canvas
from captum_moxi.removal.base import GRAY


def patches_alone(image: Tensor, mask: Tensor, players: Sequence[int], *, keep: bool = True) -> Tensor:
    """Show only the given players, or all others, and fill the rest of the image with gray.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        players (Sequence[int]): Ids of the players.
        keep (bool, optional): Whether to keep the players (True) or to remove them (False).
            Default: True

    Returns:
        Tensor: Image ``(H, W, 3)``.
    """
    covered = _covered(mask, players)
    return torch.where(covered if keep else ~covered, image, torch.tensor(GRAY))


def highlight_patches(image: Tensor, mask: Tensor, players: Sequence[int], *, mode: Mode) -> Tensor:
    """Highlight a group of players in an image.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        players (Sequence[int]): Ids of the players.
        mode (str): ``"insertion"`` shows the players in color over a faded image. ``"deletion"`` fills them with gray.

    Returns:
        Tensor: Image ``(H, W, 3)``.
    """
    if mode == "deletion":
        return patches_alone(image, mask, players, keep=False)
    faded = 0.75 + 0.15 * image.mean(2, keepdim=True)
    return torch.where(_covered(mask, players), image, faded)


def show_patches(
    image: Tensor, mask: Tensor, players: Sequence[int], *, keep: bool = True, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw the image with only the given players, or with all others. The rest is gray.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        players (Sequence[int]): Ids of the players.
        keep (bool, optional): Whether to keep the players (True) or to remove them (False).
            Default: True
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.

    Examples::

        >>> attr, selection = MoXIInsertion(model).attribute(x, target=y, stop="flip", return_selection=True)
        >>> show_patches(classifier.to_images(x)[0], patch_mask(224, 16)[0, 0], selection.order[0].tolist())
    """
    figure, ax = canvas(ax)
    ax.imshow(patches_alone(image, mask, players, keep=keep).numpy(), interpolation="nearest")
    ax.axis("off")
    return figure, ax


def show_heat_map(image: Tensor, attribution: Tensor, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Blend a heat map over the image, using :func:`captum.attr.visualization.visualize_image_attr`.

    If all scores are 0, only the image is drawn.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        attribution (Tensor): Nonnegative scores ``(H, W)``. Higher scores are brighter.
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.
    """
    figure, ax = canvas(ax)
    if not attribution.any():
        ax.imshow(image.numpy())
        ax.axis("off")
        return figure, ax
    visualization.visualize_image_attr(
        attribution[:, :, None].numpy(),
        image.numpy(),
        method="blended_heat_map",
        sign="positive",
        cmap="viridis",
        alpha_overlay=0.6,
        outlier_perc=0,
        plt_fig_axis=(figure, ax),
        use_pyplot=False,
    )
    return figure, ax


def _covered(mask: Tensor, players: Sequence[int]) -> Tensor:
    """Return whether each pixel belongs to one of the players. Shape ``(H, W, 1)``, bool."""
    return torch.isin(mask, torch.tensor(list(players), dtype=mask.dtype))[:, :, None]
