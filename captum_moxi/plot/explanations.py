"""The figure of one explanation: the chosen patches, what the model sees, and the path of each search."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.arguments import Mode, paths_of
from captum_moxi.plot.patches import DrawPlayers, show_patches
from captum_moxi.plot.selections import flip_step, minimal_label, minimal_note, missed_note, plot_path, show_steps
from captum_moxi.plot.style import GRAY_NOTE, AxesArray, count_patches, describe, figure_of, wrap_text
from captum_moxi.search import Selection

_READING = (
    "Column 2: the chosen patches, in color with a black outline, numbered in the order of the search. They are the "
    "evidence that the model uses, which may be in the background. Column 3: the input of the model; {note}. Plots: "
    "the confidence in the target, and what each patch adds (insertion) or takes away (deletion). The two bars of a "
    "patch sum to its change in reward (by default, the {reward} of the target)."
)
_FLIP = " Flip: the target becomes the predicted class (insertion), or is no longer predicted (deletion)."
_LOG_ODDS = " Near a confidence of 0 or 1, a large change in log-odds is a small change in confidence."
_NEGATIVE_GAINS = (
    " Where the bars sum to less than 0, no patch that the step evaluated had the intended effect, and the search "
    "chose the one that did least harm."
)

_SYMMETRIC = (
    " A symmetric search has two pictures in column 3: only the chosen patches, and the image without them. Each bar "
    "is the sum of what the patch adds to the first and takes away from the second. At the flip, the target "
    "is predicted in the first picture, and not in the second."
)

_WIDTH_RATIOS = (1, 1, 1, 1.4)
# Height of a sentence instead of the pictures of a search, which have height 1.
_SENTENCE_HEIGHT = 0.3


def explanation_figure(
    image: Tensor,
    mask: Tensor,
    selections: Sequence[Selection],
    *,
    target: int,
    title: str = "What the prediction depends on",
    image_title: str = "image",
    target_name: str = "the target",
    outcomes: Sequence[str | Sequence[str]] | None = None,
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
        target_name (str, optional): Name of the target class.
            Default: ``"the target"``
        outcomes (Sequence[str or Sequence[str]], optional): For each search, what the model predicts at the flip, for
            example ``"tabby 0.41 → lynx 0.38"``. For a symmetric search, two texts: what it predicts with only the
            chosen patches, and without them. For a search without steps, a sentence that says why there are none.
            Default: None, whether the target is predicted
        min_confidence (float, optional): Confidence that the target must exceed for insertion and symmetric
            search to flip.
            Default: 0
        draw (Callable, optional): Draws what the model sees, for example the result of
            :func:`captum_moxi.plot.draw_from_game`.
            Default: None, absent players are gray
        note (str, optional): How ``draw`` shows absent players.
            Default: ``"gray patches are absent"``

    Returns:
        tuple[Figure, ndarray of Axes]: The figure, which is not registered with pyplot, and its axes: one for the
        image, then four for each search with steps, five if it is symmetric, and one for each search without steps.
    """
    # A search without steps has no pictures, only a sentence. A symmetric search has two pictures below each other.
    heights = [
        float(len(paths_of(selection.mode))) if int(selection.n_steps[0]) else _SENTENCE_HEIGHT
        for selection in selections
    ]
    figure = Figure(figsize=(13, 1.1 + 3.1 * max(1, sum(heights))), layout="constrained")
    grid = figure.add_gridspec(len(selections), 4, width_ratios=_WIDTH_RATIOS, height_ratios=heights)
    axes = [figure.add_subplot(grid[:, 0])]
    axes[0].imshow(image.numpy())
    _set_title(axes[0], image_title)
    axes[0].axis("off")
    for row, selection in enumerate(selections):
        flip = flip_step(selection, target, min_confidence=min_confidence)
        outcome = outcomes[row] if outcomes else [_outcome(path, flip) for path in paths_of(selection.mode)]
        results = [outcome] if isinstance(outcome, str) else outcome
        if not int(selection.n_steps[0]):
            axes.append(figure.add_subplot(grid[row, 1:]))
            _write_sentence(axes[-1], f"{selection.mode}: {results[0]}")
            continue
        steps = figure.add_subplot(grid[row, 1])
        pictures = grid[row, 2].subgridspec(len(results), 1)
        groups = [figure.add_subplot(pictures[index, 0]) for index in range(len(results))]
        column = grid[row, 3].subgridspec(2, 1)
        path = [figure.add_subplot(column[index, 0]) for index in range(2)]
        show_steps(image, mask, selection, ax=steps)
        _set_title(steps, f"{selection.mode}: {_count(selection, mask)}")
        players = selection.order[0, : int(selection.n_steps[0]) if flip is None else flip].tolist()
        for group, shown, result in zip(groups, paths_of(selection.mode), results, strict=True):
            _show_group(group, image, mask, players, path=shown, outcome=result, draw=draw, note=note)
        plot_path(selection, flip=flip, target_name=target_name, axes=path)
        axes += [steps, *groups, *path]
    has_negative_gain = any(bool((selection.gains < 0).any()) for selection in selections)
    is_symmetric = any(selection.mode == "symmetric" for selection in selections)
    needs_minimum = min_confidence > 0 and any(selection.mode != "deletion" for selection in selections)
    reading = (
        _READING.format(note=note, reward="probability" if is_symmetric else "log-odds")
        + (_SYMMETRIC if is_symmetric else _LOG_ODDS + _FLIP)
        + (
            f" At the flip, the chosen patches alone give the target a confidence above {min_confidence:g}."
            if needs_minimum
            else ""
        )
        + minimal_note(selections)
        + missed_note(selections)
        + (_NEGATIVE_GAINS if has_negative_gain else "")
    )
    describe(figure, title=title, reading=reading, fontsize=12)
    return figure, np.array(axes)


def _set_title(ax: Axes, title: str) -> None:
    """Set a title that is not wider than the column of a picture, so that it does not overlap its neighbors."""
    column_width = figure_of(ax).get_figwidth() * _WIDTH_RATIOS[0] / sum(_WIDTH_RATIOS)
    ax.set_title(wrap_text(title, width=0.94 * column_width, fontsize=10), fontsize=10)


def _write_sentence(ax: Axes, sentence: str) -> None:
    """Write a sentence instead of the pictures of a search."""
    ax.axis("off")
    ax.text(0.5, 0.5, wrap_text(sentence, width=6, fontsize=11), ha="center", va="center", fontsize=11)


def _show_group(
    ax: Axes,
    image: Tensor,
    mask: Tensor,
    players: Sequence[int],
    *,
    path: Mode,
    outcome: str,
    draw: DrawPlayers | None,
    note: str,
) -> None:
    """Draw what the model sees after the given players were inserted or deleted."""
    inserts = path == "insertion"
    show_patches(image, mask, players, keep=inserts, draw=draw, ax=ax)
    count = count_patches(len(players))
    group = f"{count} ({note})" if inserts else f"without {count}"
    _set_title(ax, f"{group}:\n{outcome}" if players else f"before the first step:\n{outcome}")


def _count(selection: Selection, mask: Tensor) -> str:
    count = f"{int(selection.n_steps[0])} of {count_patches(len(mask.unique()))}"
    return "\n".join(filter(None, (count, minimal_label(selection))))


def _outcome(path: Mode, flip: int | None) -> str:
    if flip is None:
        return "not flipped"
    if flip == 0:
        return "the prediction is flipped before the first step"
    return "target predicted" if path == "insertion" else "target lost"
