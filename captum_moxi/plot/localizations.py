"""The figure of a localization: for each class, what opposes it and what it then depends on."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.plot.patches import DrawPlayers, show_patches
from captum_moxi.plot.selections import minimal_note, outline_left_out, show_steps
from captum_moxi.plot.style import GRAY_NOTE, AxesArray, count_patches, describe, figure_of, wrap_text
from captum_moxi.search import Selection

# Name of the class, heat map (H, W), and the selections that MoXILocalization returns: the first deletes players until
# the class is predicted, the second until the class is lost again.
LocalizedClass = tuple[str, Tensor, tuple[Selection, Selection]]


def localization_figure(
    image: Tensor,
    mask: Tensor,
    results: Sequence[LocalizedClass],
    *,
    title: str = "What each class depends on",
    image_title: str = "image",
    draw: DrawPlayers | None = None,
    note: str = GRAY_NOTE,
) -> tuple[Figure, AxesArray]:
    """Draw the image. For each class, draw what the model sees without what opposes it, and what it depends on.

    The layout is that of Figure 5 of the MoXI paper.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        results (Sequence[tuple[str, Tensor, tuple[Selection, Selection]]]): For each class, its name, its heat map
            ``(H, W)`` with nonnegative scores, and the two selections of one example that
            :class:`captum_moxi.MoXILocalization` returns. The figure shows the order of the second selection instead of
            the heat map.
        title (str, optional): Title of the figure.
            Default: ``"What each class depends on"``
        image_title (str, optional): Title of the image, for example its class.
            Default: ``"image"``
        draw (Callable, optional): Draws what the model sees, for example the result of
            :func:`captum_moxi.plot.draw_from_game`.
            Default: None, absent players are gray
        note (str, optional): How ``draw`` shows absent players.
            Default: ``"gray patches are absent"``

    Returns:
        tuple[Figure, ndarray of Axes]: The figure, which is not registered with pyplot, and its axes: one for the
        image, then two per class.
    """
    figure = Figure(figsize=(9, 1.2 + 3.2 * len(results)), layout="constrained")
    grid = figure.add_gridspec(len(results), 3)
    axes = [figure.add_subplot(grid[0, 0])]
    axes[0].imshow(image.numpy())
    _set_title(axes[0], image_title)
    for row, (name, _, (until_predicted, until_lost)) in enumerate(results):
        remainder, location = (figure.add_subplot(grid[row, column]) for column in (1, 2))
        _show_remainder(remainder, image, mask, until_predicted, name=name, draw=draw)
        show_steps(image, mask, until_lost, ax=location)
        _set_title(location, f"{name}:\n{_outcome(until_predicted, until_lost)}")
        axes += [remainder, location]
    for ax in axes:
        ax.axis("off")
    reading = (
        f"Middle: the input of the model in which the class is predicted; {note}. What opposes the class is deleted. "
        "Right: the patches in color, with a black outline, are deleted next, in the order of the numbers, until the "
        "class is lost. The prediction of the class depends on these patches. They need not cover its object."
    )
    reading += minimal_note([selection for _, _, selections in results for selection in selections])
    describe(figure, title=title, reading=reading)
    return figure, np.array(axes)


def _show_remainder(
    ax: Axes, image: Tensor, mask: Tensor, until_predicted: Selection, *, name: str, draw: DrawPlayers | None
) -> None:
    """Draw the input of the model without the players that were deleted until the class was predicted."""
    deleted = _players(until_predicted)
    show_patches(image, mask, deleted, keep=False, draw=draw, ax=ax)
    outline_left_out(ax, mask, until_predicted)
    _set_title(ax, _remainder_title(deleted, name=name, predicted=bool(until_predicted.flipped[0])))


def _set_title(ax: Axes, title: str) -> None:
    """Set a title that is not wider than a third of the figure, so that it does not overlap its neighbors."""
    ax.set_title(wrap_text(title, width=0.94 * figure_of(ax).get_figwidth() / 3, fontsize=10), fontsize=10)


def _remainder_title(deleted: Sequence[int], *, name: str, predicted: bool) -> str:
    if not deleted:
        return f"{name} is predicted\non the whole image"
    without = f"without {count_patches(len(deleted))}"
    return f"{name} is predicted\n{without}" if predicted else f"{name} is not predicted\n{without}"


def _outcome(until_predicted: Selection, until_lost: Selection) -> str:
    if not until_predicted.flipped[0]:
        return "not located"
    count = len(_players(until_lost))
    group = "this patch" if count == 1 else f"these {count_patches(count)}"
    return f"lost without {group}" if until_lost.flipped[0] else f"not lost without {group}"


def _players(selection: Selection) -> list[int]:
    players: list[int] = selection.order[0, : int(selection.n_steps[0])].tolist()
    return players
