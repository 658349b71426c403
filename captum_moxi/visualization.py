"""Pictures of a selection, on captum.attr.visualization and matplotlib."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from captum.attr import visualization as captum_visualization
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from captum_moxi.search import Selection, flips

GREY = 0.5
# Okabe and Ito's blue, orange and green, told apart by the colour-blind and in grey
LINE, POSITIVE, NEGATIVE = "#0072B2", "#009E73", "#E69F00"


def flip_step(selection: Selection, target: int, min_confidence: float = 0.0, example: int = 0) -> int | None:
    """The first step after which the prediction is flipped, 0 for before any; None if it never is."""
    steps = int(selection.n_steps[example]) + 1
    path = selection.predictions[example, :steps], selection.confidences[example, :steps]
    flipped = flips(selection.mode, *path, target, min_confidence)
    return int(flipped.nonzero()[0]) if flipped.any() else None


def patches_alone(image: Tensor, mask: Tensor, players: Sequence[int], keep: bool = True) -> Tensor:
    """An image with these players alone (or, with ``keep=False``, without them), the rest grey.

    Args:
        image (Tensor): ``(H, W, 3)`` in [0, 1].
        mask (Tensor): ``(H, W)`` int64: the player of every pixel.
        players (Sequence[int]): Ids of players.
        keep (bool, optional): Whether these are kept or taken away. Default: True

    Returns:
        Tensor: ``(H, W, 3)``.
    """
    chosen = torch.isin(mask, torch.tensor(list(players), dtype=mask.dtype))
    return torch.where((chosen if keep else ~chosen)[:, :, None], image, torch.tensor(GREY))


def show_heat_map(image: Tensor, attribution: Tensor, ax: Axes) -> Axes:
    """A heat map blended over the image, by ``captum.attr.visualization``.

    Args:
        image (Tensor): ``(H, W, 3)`` in [0, 1].
        attribution (Tensor): ``(H, W)`` of scores, none negative; brighter is higher.
        ax (Axes): Where to draw.
    """
    if not attribution.any():
        ax.imshow(image.numpy())
        ax.axis("off")
        return ax
    captum_visualization.visualize_image_attr(
        attribution[:, :, None].numpy(),
        image.numpy(),
        method="blended_heat_map",
        sign="positive",
        cmap="viridis",
        alpha_overlay=0.6,
        outlier_perc=0,
        plt_fig_axis=(ax.figure, ax),
        use_pyplot=False,
    )
    return ax


def plot_path(selection: Selection, ax: Axes, example: int = 0, flip: int | None = None) -> Axes:
    """Confidence before the first step and after each, with the interaction of each chosen player as bars.

    Args:
        selection (Selection): What a search chose.
        ax (Axes): Where to draw.
        example (int, optional): Which example. Default: 0
        flip (int, optional): A step to mark as the flip. Default: None
    """
    steps = int(selection.n_steps[example])
    confidences = selection.confidences[example, : steps + 1].double().numpy()
    together = selection.interactions[example, :steps].double().numpy()
    bars = ax.twinx()
    colours = np.where(together >= 0, POSITIVE, NEGATIVE)
    bars.bar(np.arange(1, steps + 1), together, width=0.6, color=colours, alpha=0.6, label="interaction")
    reach = float(np.abs(together).max(initial=0))
    if reach > 1e-3:
        bars.set_ylim(-1.6 * reach, 1.6 * reach)
        bars.axhline(0, color="0.6", linewidth=0.6)
        bars.set_ylabel("interaction with those chosen before\n(units of the reward)", fontsize=8)
        bars.tick_params(labelsize=8)
        keys = [Patch(color=POSITIVE, alpha=0.6), Patch(color=NEGATIVE, alpha=0.6)]
        bars.legend(keys, ["positive", "negative"], fontsize=7, loc="upper left", framealpha=0.6)
    else:  # fewer than two steps, or players that have nothing to do with one another
        bars.set_yticks([])
    ax.set_zorder(bars.get_zorder() + 1)
    ax.patch.set_visible(False)
    ax.plot(np.arange(steps + 1), confidences, color=LINE, marker="o" if steps <= 40 else None, markersize=4)
    if flip is not None:
        ax.axvline(flip, color="0.3", linestyle=":", linewidth=1.2)
        ax.annotate("flip", (flip, 1.02), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    ax.set_ylim(0, 1.02)
    ax.set_xlim(-0.5, max(1, steps) + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("patches inserted" if selection.mode == "insertion" else "patches deleted", fontsize=9)
    ax.set_ylabel("confidence in the target", color=LINE, fontsize=9)
    ax.tick_params(labelsize=8)
    return ax


def explanation_figure(
    image: Tensor,
    mask: Tensor,
    results: Sequence[tuple[Tensor, Selection]],
    target: int,
    title: str = "",
    min_confidence: float = 0.0,
) -> tuple[Figure, Any]:
    """The image, and for each search its heat map, the group that it found and the path of the confidence.

    Args:
        image (Tensor): ``(H, W, 3)`` in [0, 1].
        mask (Tensor): ``(H, W)`` int64: the player of every pixel.
        results (Sequence[tuple[Tensor, Selection]]): For each search the heat map ``(H, W)`` and the selection of one
            example.
        target (int): The class explained.
        title (str, optional): Above all. Default: none
        min_confidence (float, optional): What insertion must exceed to flip. Default: 0

    Returns:
        tuple[Figure, ndarray of Axes]: the figure, not shown, and its axes: the image's, then three a search.
    """
    rows = len(results)
    figure = Figure(figsize=(13, 0.4 + 3.1 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 4, width_ratios=[1, 1, 1, 1.5])
    whole = figure.add_subplot(grid[:, 0])
    whole.imshow(image.numpy())
    whole.set_title("image", fontsize=10)
    whole.axis("off")
    axes = [whole]
    for row, (attribution, selection) in enumerate(results):
        inserts = selection.mode == "insertion"
        flip = flip_step(selection, target, min_confidence)
        steps = int(selection.n_steps[0]) if flip is None else flip
        group = selection.order[0, :steps].tolist()
        heat, picture, path = (figure.add_subplot(grid[row, column]) for column in (1, 2, 3))
        show_heat_map(image, attribution, heat)
        heat.set_title(f"{selection.mode}, brightest first", fontsize=10)
        picture.imshow(patches_alone(image, mask, group, keep=inserts).numpy())
        picture.axis("off")
        flips = "not flipped" if flip is None else "target predicted" if inserts else "target lost"
        kept = "alone" if inserts else "deleted"
        picture.set_title(f"{steps} of {len(mask.unique())} {kept}: {flips}", fontsize=10)
        plot_path(selection, path, flip=flip)
        axes += [heat, picture, path]
    figure.suptitle(title, fontsize=11)
    return figure, np.array(axes)
