"""The figure of one explanation: a heat map, the group of patches and the path of each search."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.plot.patches import patches_alone, show_heat_map
from captum_moxi.plot.selections import flip_step, plot_path
from captum_moxi.plot.style import AxesArray
from captum_moxi.search import Selection


def explanation_figure(
    image: Tensor,
    mask: Tensor,
    results: Sequence[tuple[Tensor, Selection]],
    *,
    target: int,
    title: str = "",
    min_confidence: float = 0.0,
) -> tuple[Figure, AxesArray]:
    """Draw the image, and for each search the heat map, the group of patches that it found, and the path.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        results (Sequence[tuple[Tensor, Selection]]): For each search, the heat map ``(H, W)`` with nonnegative scores,
            and the selection of one example.
        target (int): Index of the target class.
        title (str, optional): Title of the figure.
            Default: no title
        min_confidence (float, optional): Confidence that the target must exceed for insertion to flip.
            Default: 0

    Returns:
        tuple[Figure, ndarray of Axes]: The figure, which is not registered with pyplot, and its axes: one for the
        image, then three per search.
    """
    figure = Figure(figsize=(13, 0.4 + 3.1 * len(results)), layout="constrained")
    grid = figure.add_gridspec(len(results), 4, width_ratios=[1, 1, 1, 1.5])
    axes = [figure.add_subplot(grid[:, 0])]
    axes[0].imshow(image.numpy())
    axes[0].set_title("image", fontsize=10)
    axes[0].axis("off")
    for row, (attribution, selection) in enumerate(results):
        heat, group, path = (figure.add_subplot(grid[row, column]) for column in (1, 2, 3))
        flip = flip_step(selection, target, min_confidence=min_confidence)
        show_heat_map(image, attribution, ax=heat)
        heat.set_title(f"{selection.mode}, brightest first", fontsize=10)
        _show_group(group, image, mask, selection, flip=flip)
        plot_path(selection, flip=flip, ax=path)
        axes += [heat, group, path]
    figure.suptitle(title, fontsize=11)
    return figure, np.array(axes)


def _show_group(ax: Axes, image: Tensor, mask: Tensor, selection: Selection, *, flip: int | None) -> None:
    """Draw the players up to the flip, or all selected players if the prediction does not flip."""
    n_steps = int(selection.n_steps[0]) if flip is None else flip
    players = selection.order[0, :n_steps].tolist()
    inserts = selection.mode == "insertion"
    ax.imshow(patches_alone(image, mask, players, keep=inserts).numpy())
    ax.axis("off")
    outcome = "not flipped" if flip is None else "target predicted" if inserts else "target lost"
    ax.set_title(
        f"{n_steps} of {len(mask.unique())} {'alone' if inserts else 'deleted'}: {outcome}",
        fontsize=10,
    )
