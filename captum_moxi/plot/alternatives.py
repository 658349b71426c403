"""The figure of alternative groups: disjoint groups, each of which flips the prediction by itself."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.arguments import SearchMode
from captum_moxi.plot.selections import minimal_note, show_steps
from captum_moxi.plot.style import AxesArray, count_patches, describe, wrap_text
from captum_moxi.search import Selection

# Groups in one row of panels.
COLUMNS = 5
# Width and height of a panel in inches, and height of a sentence instead of panels.
_PANEL = (2.5, 2.9)
_SENTENCE_HEIGHT = 0.6

_READINGS: dict[SearchMode, str] = {
    "insertion": "Insertion: each group alone makes the model predict the target.",
    "deletion": "Deletion: without any one of the groups, the model no longer predicts the target.",
    "symmetric": "Symmetric: each group alone makes the model predict the target, and without any one of the groups, "
    "the model no longer predicts it.",
}


def alternatives_figure(
    image: Tensor,
    mask: Tensor,
    groups: Mapping[SearchMode, Sequence[Selection]],
    *,
    outcomes: Mapping[SearchMode, Sequence[str]] | None = None,
    reasons: Mapping[SearchMode, str] | None = None,
    title: str = "Which groups of patches decide, each by itself?",
    image_title: str = "image",
) -> tuple[Figure, AxesArray]:
    """Draw the image and one panel for each group, with the patches of the group in color.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        groups (Mapping[str, Sequence[Selection]]): The groups of each mode, of one example, as returned by
            :meth:`captum_moxi.MoXIInsertion.alternatives`.
        outcomes (Mapping[str, Sequence[str]], optional): What the model predicts with (insertion) or without (deletion)
            each group, for example ``"tabby 0.41"``.
            Default: None, not shown
        reasons (Mapping[str, str], optional): For each mode without groups, a sentence that says why there are none.
            Default: None, no group flips the prediction
        title (str, optional): Title of the figure.
            Default: ``"Which groups of patches decide, each by itself?"``
        image_title (str, optional): Title of the image, for example its class.
            Default: ``"image"``

    Returns:
        tuple[Figure, ndarray of Axes]: The figure, which is not registered with pyplot, and its axes: one for the
        image, then one for each group, and one for each mode without groups.
    """
    rows = [(mode, first) for mode in groups for first in range(0, max(1, len(groups[mode])), COLUMNS)]
    heights = [_PANEL[1] if groups[mode] else _SENTENCE_HEIGHT for mode, _ in rows]
    # A sentence needs the width of two panels.
    n_columns = max(2, min(COLUMNS, max(map(len, groups.values()))))
    figure = Figure(figsize=((1 + n_columns) * _PANEL[0], 1 + max(_PANEL[1], sum(heights))), layout="constrained")
    grid = figure.add_gridspec(len(rows), 1 + n_columns, height_ratios=heights)
    axes = [figure.add_subplot(grid[:, 0])]
    axes[0].imshow(image.numpy())
    axes[0].set_title(_wrap(image_title), fontsize=10)
    for row, (mode, first) in enumerate(rows):
        if not groups[mode]:
            axes.append(figure.add_subplot(grid[row, 1:]))
            sentence = f"{mode}: {(reasons or {}).get(mode, 'no group flips the prediction')}"
            axes[-1].text(0.5, 0.5, wrap_text(sentence, width=1.9 * _PANEL[0], fontsize=11), ha="center", va="center")
        for column, selection in enumerate(groups[mode][first : first + COLUMNS]):
            axes.append(figure.add_subplot(grid[row, 1 + column]))
            show_steps(image, mask, selection, ax=axes[-1])
            number = first + column
            lines = [f"{mode} {number + 1}: {count_patches(int(selection.n_steps[0]))}"]
            lines += [outcomes[mode][number]] if outcomes else []
            axes[-1].set_title(_wrap("\n".join(lines)), fontsize=10)
    for ax in axes:
        ax.axis("off")
    readings = [_READINGS[mode] for mode in groups if groups[mode]]
    selections = [selection for mode in groups for selection in groups[mode]]
    reading = " ".join([*readings, "The groups of a mode share no patch. Numbers: the order of the search."])
    describe(figure, title=title, reading=reading + minimal_note(selections))
    return figure, np.array(axes)


def _wrap(title: str) -> str:
    """Break a title into lines that are not wider than a panel."""
    return wrap_text(title, width=0.94 * _PANEL[0], fontsize=10)
