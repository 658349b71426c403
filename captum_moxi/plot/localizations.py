"""The figure of a localization: for each class, what hides it and what it depends on."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.plot.patches import patches_alone, show_heat_map
from captum_moxi.plot.style import AxesArray
from captum_moxi.search import Selection

# Name of the class, heat map (H, W), and the selections that MoXILocalization returns: the first deletes players until
# the class is predicted, the second until the class is lost again.
LocalizedClass = tuple[str, Tensor, tuple[Selection, Selection]]


def localization_figure(
    image: Tensor, mask: Tensor, results: Sequence[LocalizedClass], *, title: str = ""
) -> tuple[Figure, AxesArray]:
    """Draw the image. For each class, draw the image without the patches that hide the class, and its heat map.

    The layout is that of Figure 5 of the MoXI paper.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        results (Sequence[tuple[str, Tensor, tuple[Selection, Selection]]]): For each class, its name, its heat map
            ``(H, W)`` with nonnegative scores, and the two selections of one example that
            :class:`captum_moxi.MoXILocalization` returns.
        title (str, optional): Title of the figure.
            Default: no title

    Returns:
        tuple[Figure, ndarray of Axes]: The figure, which is not registered with pyplot, and its axes: one for the
        image, then two per class.
    """
    figure = Figure(figsize=(8.4, 0.4 + 2.9 * len(results)), layout="constrained")
    grid = figure.add_gridspec(len(results), 3)
    axes = [figure.add_subplot(grid[0, 0])]
    axes[0].imshow(image.numpy())
    axes[0].set_title("image", fontsize=10)
    for row, (name, attribution, (until_predicted, until_lost)) in enumerate(results):
        remainder, heat = (figure.add_subplot(grid[row, column]) for column in (1, 2))
        _show_remainder(remainder, image, mask, until_predicted, name=name)
        show_heat_map(image, attribution, ax=heat)
        heat.set_title(f"{name}: {_outcome(until_predicted, until_lost)}", fontsize=10)
        axes += [remainder, heat]
    for ax in axes:
        ax.axis("off")
    figure.suptitle(title, fontsize=11)
    return figure, np.array(axes)


def _show_remainder(ax: Axes, image: Tensor, mask: Tensor, until_predicted: Selection, *, name: str) -> None:
    """Draw the image without the players that had to be deleted before the class was predicted."""
    deleted = _players(until_predicted)
    ax.imshow(patches_alone(image, mask, deleted, keep=False).numpy())
    ax.set_title(_remainder_title(deleted, name=name, predicted=bool(until_predicted.flipped[0])), fontsize=10)


def _remainder_title(deleted: Sequence[int], *, name: str, predicted: bool) -> str:
    if not deleted:
        return "the image as it is"
    title = f"without {_count(deleted)}"
    if not predicted:
        # All players were deleted, including those that support the class.
        return title
    return f"{title}\nthat oppose{'s' if len(deleted) == 1 else ''} {name}"


def _outcome(until_predicted: Selection, until_lost: Selection) -> str:
    if not until_predicted.flipped[0]:
        return "never predicted"
    return f"{_count(_players(until_lost))}{'' if until_lost.flipped[0] else ', not lost'}"


def _players(selection: Selection) -> list[int]:
    players: list[int] = selection.order[0, : int(selection.n_steps[0])].tolist()
    return players


def _count(players: Sequence[int]) -> str:
    return f"{len(players)} patch{'' if len(players) == 1 else 'es'}"
