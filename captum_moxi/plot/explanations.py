"""The figure of one explanation: the chosen patches, what the model sees, and the path of each search."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.plot.patches import DrawPlayers, show_patches
from captum_moxi.plot.selections import flip_step, plot_path, show_steps
from captum_moxi.plot.style import GRAY_NOTE, AxesArray, count_patches, describe
from captum_moxi.search import Selection

_READING = (
    "Column 2: the chosen patches in color, numbered in the order of the search. Column 3: the input of the model; "
    "{note}. Plots: the confidence in the target, and what each patch adds (insertion) or takes away (deletion). The "
    "two bars of a patch sum to its change in reward (by default, the log-odds of the target)."
)


def explanation_figure(
    image: Tensor,
    mask: Tensor,
    selections: Sequence[Selection],
    *,
    target: int,
    title: str = "What the prediction depends on",
    image_title: str = "image",
    outcomes: Sequence[str] | None = None,
    min_confidence: float = 0.0,
    draw: DrawPlayers | None = None,
    note: str = GRAY_NOTE,
) -> tuple[Figure, AxesArray]:
    """Draw the image, and for each search the chosen patches, what the model sees at the flip, and the path.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        selections (Sequence[Selection]): The selection of each search, of one example.
        target (int): Index of the target class.
        title (str, optional): Title of the figure.
            Default: ``"What the prediction depends on"``
        image_title (str, optional): Title of the image, for example its class.
            Default: ``"image"``
        outcomes (Sequence[str], optional): For each search, what the model predicts at the flip, for example
            ``"tabby 0.41 → lynx 0.38"``.
            Default: None, whether the target is predicted
        min_confidence (float, optional): Confidence that the target must exceed for insertion to flip.
            Default: 0
        draw (Callable, optional): Draws what the model sees, for example the result of
            :func:`captum_moxi.plot.draw_from_game`.
            Default: None, absent players are gray
        note (str, optional): How ``draw`` shows absent players.
            Default: ``"gray patches are left out"``

    Returns:
        tuple[Figure, ndarray of Axes]: The figure, which is not registered with pyplot, and its axes: one for the
        image, then four per search.
    """
    figure = Figure(figsize=(13, 1.1 + 3.1 * len(selections)), layout="constrained")
    grid = figure.add_gridspec(len(selections), 4, width_ratios=[1, 1, 1, 1.4])
    axes = [figure.add_subplot(grid[:, 0])]
    axes[0].imshow(image.numpy())
    axes[0].set_title(image_title, fontsize=10)
    axes[0].axis("off")
    for row, selection in enumerate(selections):
        flip = flip_step(selection, target, min_confidence=min_confidence)
        steps, group = (figure.add_subplot(grid[row, column]) for column in (1, 2))
        path = grid[row, 3].subgridspec(2, 1)
        confidence, gains = (figure.add_subplot(path[index, 0]) for index in range(2))
        show_steps(image, mask, selection, ax=steps)
        steps.set_title(f"{selection.mode}: {_count(selection, mask)}", fontsize=10)
        outcome = outcomes[row] if outcomes else _outcome(selection, flip)
        _show_group(group, image, mask, selection, flip=flip, outcome=outcome, draw=draw)
        plot_path(selection, flip=flip, axes=(confidence, gains))
        axes += [steps, group, confidence, gains]
    describe(figure, title=title, reading=_READING.format(note=note), fontsize=12)
    return figure, np.array(axes)


def _show_group(
    ax: Axes,
    image: Tensor,
    mask: Tensor,
    selection: Selection,
    *,
    flip: int | None,
    outcome: str,
    draw: DrawPlayers | None,
) -> None:
    """Draw what the model sees at the flip, or after all steps if the prediction does not flip."""
    n_steps = int(selection.n_steps[0]) if flip is None else flip
    inserts = selection.mode == "insertion"
    show_patches(image, mask, selection.order[0, :n_steps].tolist(), keep=inserts, draw=draw, ax=ax)
    group = f"{count_patches(n_steps)} alone" if inserts else f"without {count_patches(n_steps)}"
    ax.set_title(f"{group}:\n{outcome}", fontsize=10)


def _count(selection: Selection, mask: Tensor) -> str:
    return f"{int(selection.n_steps[0])} of {count_patches(len(mask.unique()))}"


def _outcome(selection: Selection, flip: int | None) -> str:
    if flip is None:
        return "not flipped"
    return "target predicted" if selection.mode == "insertion" else "target lost"
