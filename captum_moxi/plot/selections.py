"""Plots of a selection: its steps, the image along its path, and the model's output at each step."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from captum_moxi.arguments import SearchMode
from captum_moxi.plot.patches import DrawPlayers, corner_of, draw_group, highlight_patches, outline_players
from captum_moxi.plot.style import (
    BLUE,
    HEAT_COLORS,
    ORANGE,
    SKY,
    AxesArray,
    add_colorbar,
    canvas,
    count_patches,
    describe,
    figure_of,
    patches_label,
    show_dollar_signs,
    wrap_text,
)
from captum_moxi.search import Selection
from captum_moxi.search.missed import CONFIDENCE

# Steps that show_path draws by default. Fibonacci numbers are dense at the beginning, where a path changes most.
DEFAULT_STEPS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)

# Paths with more steps are drawn without markers, hatches and bar edges, which would overlap.
MAX_DETAILED_STEPS = 40

MAX_COLORBAR_TICKS = 8

# Longest line of the label of the confidence, in inches. The plot is about as high.
LABEL_WIDTH = 1.2

_VERBS: dict[SearchMode, str] = {
    "insertion": "adds to",
    "deletion": "takes from",
    "symmetric": "adds to, and takes from,",
}
_SHAPLEY_LABELS: dict[SearchMode, str] = {
    "insertion": "self-context Shapley value",
    "deletion": "full-context Shapley value",
    "symmetric": "Shapley value, both contexts",
}


def flip_step(selection: Selection, target: int, *, min_confidence: float = 0.0, example: int = 0) -> int | None:
    """Return the first step after which the prediction is flipped.

    Args:
        selection (Selection): A selection.
        target (int): Index of the target class.
        min_confidence (float, optional): Confidence that the target must exceed for insertion and symmetric
            search to flip.
            Default: 0
        example (int, optional): Index of the example in the selection.
            Default: 0

    Returns:
        int or None: Number of the step, counted from 1. 0 if the prediction is flipped before the first step, and None
        if it never flips.
    """
    flipped = selection.flips(target, min_confidence=min_confidence)[example]
    return int(flipped.nonzero()[0]) if flipped.any() else None


def left_out_players(selection: Selection, *, example: int = 0) -> list[int]:
    """Return the ids of the players of an example that were chosen and then left out."""
    players: list[int] = selection.left_out[example].tolist()
    return [player for player in players if player >= 0]


def outline_left_out(ax: Axes, mask: Tensor, selection: Selection, *, example: int = 0) -> None:
    """Draw a dashed line around each player that was chosen and then left out."""
    outline_players(ax, mask, left_out_players(selection, example=example), dashed=True)


def minimal_note(selections: Sequence[Selection]) -> str:
    """Return how to read what :func:`show_steps` and :func:`minimal_label` show of minimal groups.

    Returns:
        str: Sentences that start with a space, or an empty string if no group is minimal.
    """
    if not any(bool(selection.minimal.any()) for selection in selections):
        return ""
    note = " Minimal: without any one of these patches, there is no flip."
    if any(bool((selection.left_out >= 0).any()) for selection in selections):
        note += " Dashed outline: patches that were chosen, and then left out, because the flip does not need them."
    return note


def minimal_label(selection: Selection, *, example: int = 0) -> str:
    """Return whether a group is minimal, and how many players were left out.

    Returns:
        str: For example ``"minimal (2 left out)"``, or an empty string if the group is not minimal.
    """
    if not selection.minimal[example]:
        return ""
    n_left_out = len(left_out_players(selection, example=example))
    return f"minimal ({n_left_out} left out)" if n_left_out else "minimal (no patch can be left out)"


def missed_note(selections: Sequence[Selection]) -> str:
    """Return how to read the lines that :func:`plot_path` draws for audited screens.

    Returns:
        str: A sentence that starts with a space, or an empty string if no screen was audited.
    """
    if not any(bool(selection.missed.isfinite().any()) for selection in selections):
        return ""
    confidence = f"{100 * CONFIDENCE:.0f} %"
    return f" Black lines: no patch that the step skipped would have had a larger gain (confidence {confidence})."


def show_steps(
    image: Tensor,
    mask: Tensor,
    selection: Selection,
    *,
    example: int = 0,
    cmap: str | Colormap = HEAT_COLORS,
    alpha: float | None = None,
    colorbar: bool | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw the selected players in color over a pale image, with the step at which each was selected.

    The numbers are omitted if there are more than 40 steps. Players that were chosen and then left out, because the
    flip does not need them, have a dashed outline.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        selection (Selection): A selection.
        example (int, optional): Index of the example in the selection.
            Default: 0
        cmap (str or Colormap, optional): Colormap of the steps. Its last color marks the first step.
            Default: :data:`captum_moxi.plot.HEAT_COLORS`
        alpha (float, optional): Opacity of the colors, from 0 to 1.
            Default: None, 0, or 0.7 if there are no numbers
        colorbar (bool, optional): Whether to draw a colorbar.
            Default: None, only if there are no numbers
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.
    """
    figure, new_ax = canvas(ax, size=(4.6, 4))
    players = _selected(selection, example)
    numbered = len(players) <= MAX_DETAILED_STEPS
    new_ax.axis("off")
    if not players:
        new_ax.imshow(image.numpy())
        return figure, new_ax
    new_ax.imshow(highlight_patches(image, mask, players, mode="insertion").numpy())
    steps = _step_map(mask, players).numpy()
    # One color for each step. The first step gets the last color of the colormap, which is the brightest.
    colors = ListedColormap(plt.get_cmap(cmap)(np.linspace(1, 0, len(players))))
    norm = Normalize(0.5, len(players) + 0.5)
    alpha = (0.0 if numbered else 0.7) if alpha is None else alpha
    overlay = new_ax.imshow(steps, cmap=colors, norm=norm, alpha=alpha, interpolation="nearest")
    outline_left_out(new_ax, mask, selection, example=example)
    outline_players(new_ax, mask, players)
    if numbered:
        _write_steps(new_ax, mask, players)
    if colorbar or (colorbar is None and not numbered):
        ticks = np.arange(1, len(players) + 1, -(-len(players) // MAX_COLORBAR_TICKS))
        add_colorbar(figure, new_ax, overlay, label="step", ticks=ticks)
    if ax is None:
        describe(
            figure,
            title=f"{count_patches(len(players))}, in the order of {_search_name(selection)}",
            reading=("Patches in color were chosen. The number is the step." if numbered else "Bright: chosen first.")
            + minimal_note([selection]),
        )
    return figure, new_ax


def show_path(
    image: Tensor,
    mask: Tensor,
    selection: Selection,
    *,
    steps: Sequence[int] = DEFAULT_STEPS,
    example: int = 0,
    draw: DrawPlayers | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw what the model sees at several steps of the path, side by side, with the step and the confidence below.

    A symmetric selection has a second row of pictures, without the chosen players. There is no confidence if the
    selection has no target.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        selection (Selection): A selection.
        steps (Sequence[int], optional): Steps to draw. Steps beyond the end of the path are skipped, and the last step
            is always drawn.
            Default: 1, 2, 3, 5, 8 and so on
        example (int, optional): Index of the example in the selection.
            Default: 0
        draw (Callable, optional): Draws what the model sees, for example the result of
            :func:`captum_moxi.plot.draw_from_game`.
            Default: None, absent players are gray
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.
    """
    order = _selected(selection, example)
    visible = sorted({step for step in steps if 0 <= step < len(order)} | {len(order)})
    height, width = mask.shape
    gap = max(1, width // 20)
    confidences = selection.by_path("confidences")
    # Space for the captions of a row of pictures that has another row below it.
    row_height = height + height // 2
    figure, new_ax = canvas(ax, size=(1.5 * len(visible), 2.5 * len(confidences)))
    strip = torch.ones(row_height * (len(confidences) - 1) + height, len(visible) * (width + gap) - gap, 3)
    for (row, path), (index, step) in product(enumerate(confidences), enumerate(visible)):
        left, top = index * (width + gap), row * row_height
        picture = draw_group(image, mask, order[:step], keep=path == "insertion", draw=draw)
        strip[top : top + height, left : left + width] = picture
        caption = _step_caption(step, float(confidences[path][example, step]), first=index == 0)
        new_ax.text(left + width / 2, top + height * 1.04, caption, ha="center", va="top", fontsize=9)
    new_ax.imshow(strip.numpy(), interpolation="nearest")
    new_ax.axis("off")
    if ax is None:
        describe(
            figure,
            title=f"What the model sees during {_search_name(selection)}",
            reading=f"Below each picture: {patches_label(selection.mode)}, and the confidence in the target."
            + (" Top: only the chosen patches. Bottom: without them." if len(confidences) > 1 else "")
            + (" Gray patches are absent." if draw is None else ""),
            fontsize=10,
        )
    return figure, new_ax


def plot_path(
    selection: Selection,
    *,
    example: int = 0,
    flip: int | None = None,
    target_name: str | None = None,
    axes: Sequence[Axes] | AxesArray | None = None,
) -> tuple[Figure, AxesArray]:
    """Plot the confidence along the path, and below it the two terms of each step's gain.

    The gain is the rise of the reward in insertion and its fall in deletion. It is the sum of two bars: the Shapley
    value of the selected player (self-context in insertion, full-context in deletion), and its interaction with the
    players selected before it. In a symmetric selection, the gain and its terms are sums over both contexts, and the
    confidence has a second line, without the chosen players. If the screen was audited, a line at each step shows
    ``selection.missed``: with a confidence of 95 %, no skipped player has a larger gain.

    Args:
        selection (Selection): A selection.
        example (int, optional): Index of the example in the selection.
            Default: 0
        flip (int, optional): Step to mark as the flip.
            Default: None
        target_name (str, optional): Name of the target class, for the label of the confidence.
            Default: None
        axes (Sequence[Axes], optional): Two axes: for the confidence and for the terms.
            Default: None, a new figure

    Returns:
        tuple[Figure, ndarray of Axes]: The figure and the two axes.

    Raises:
        ValueError: If ``axes`` does not contain two axes.
    """
    if axes is None:
        figure, panels = plt.subplots(2, 1, sharex=True, figsize=(6, 4.2), layout="constrained")
    else:
        panels = np.asarray(axes, dtype=object)
        if panels.shape != (2,):
            raise ValueError(f"axes has shape {panels.shape}; pass two axes")
        figure = figure_of(panels[0])
    n_steps = int(selection.n_steps[example])
    confidence_ax, gains_ax = panels
    _plot_confidences(confidence_ax, selection, example=example, target_name=target_name)
    if flip is not None:
        _mark_flip(confidence_ax, flip)
    _plot_gains(gains_ax, selection, example=example)
    confidence_ax.tick_params(labelbottom=False)
    for ax in panels:
        ax.set_xlim(-0.5, max(1, n_steps) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    gains_ax.set_xlabel(patches_label(selection.mode), fontsize=9)
    if axes is None:
        describe(
            figure,
            title=f"What each patch {_VERBS[selection.mode]} the prediction",
            reading=f"The two bars of a step sum to the {_change(selection)} in reward." + missed_note([selection]),
        )
    return figure, panels


def _selected(selection: Selection, example: int) -> list[int]:
    """Return the ids of the selected players, first to last."""
    players: list[int] = selection.order[example, : int(selection.n_steps[example])].tolist()
    return players


def _step_map(mask: Tensor, players: Sequence[int]) -> Tensor:
    """Return the step that selected the player of each pixel, counted from 1. Shape ``(H, W)``, NaN if not selected."""
    steps = torch.full(mask.shape, torch.nan)
    for step, player in enumerate(players, 1):
        steps[mask == player] = step
    return steps


def _write_steps(ax: Axes, mask: Tensor, players: Sequence[int]) -> None:
    """Write the step into the upper left corner of each player, in a size that fits a grid of players."""
    per_side = len(mask.unique()) ** 0.5
    border = [patheffects.withStroke(linewidth=1.8, foreground="black")]
    for step, player in enumerate(players, 1):
        x, y = corner_of(mask, player)
        ax.annotate(
            str(step),
            (x - 0.5, y - 0.5),
            xytext=(1.5, -1),
            textcoords="offset points",
            va="top",
            fontsize=min(12.0, max(5.0, 90 / per_side)),
            fontweight="bold",
            color="white",
            path_effects=border,
        )


def _step_caption(step: int, confidence: float, *, first: bool) -> str:
    count = f"{step} patch{'' if step == 1 else 'es'}" if first else f"{step}"
    return count if np.isnan(confidence) else f"{count}\n{confidence:.2f}"


def _search_name(selection: Selection) -> str:
    return "symmetric search" if selection.mode == "symmetric" else selection.mode


def _change(selection: Selection) -> str:
    return {"insertion": "rise", "deletion": "fall", "symmetric": "rise plus fall"}[selection.mode]


def _plot_gains(ax: Axes, selection: Selection, *, example: int) -> None:
    """Plot the two terms of each gain as bars."""
    n_steps = int(selection.n_steps[example])
    steps = np.arange(1, n_steps + 1)
    detailed = n_steps <= MAX_DETAILED_STEPS
    for label, values, offset, color, hatch in (
        (_SHAPLEY_LABELS[selection.mode], selection.shapley, -0.2, SKY, None),
        ("interaction", selection.interactions, 0.2, ORANGE, "////"),
    ):
        ax.bar(
            steps + offset,
            values[example, :n_steps].double().numpy(),
            width=0.4,
            color=color,
            label=label,
            hatch=hatch if detailed else None,
            edgecolor="white" if detailed else None,
            linewidth=0.4 if detailed else None,
        )
    _mark_missed(ax, selection, example=example)
    ax.axhline(0, color="0.3", linewidth=0.6)
    ax.set_ylabel(f"{_change(selection)} in reward", fontsize=9)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.98), ncol=2, frameon=False, fontsize=8, borderaxespad=0)


def _mark_missed(ax: Axes, selection: Selection, *, example: int) -> None:
    """Draw a line at the largest gain that each step may have missed, where it is known."""
    missed = selection.missed[example, : int(selection.n_steps[example])]
    known = missed.isfinite()
    if bool(known.any()):
        steps = known.nonzero().flatten().numpy() + 1
        label = f"upper bound of skipped gains ({100 * CONFIDENCE:.0f} %)"
        ax.hlines(missed[known].double().numpy(), steps - 0.4, steps + 0.4, color="black", linewidth=1, label=label)


def _plot_confidences(ax: Axes, selection: Selection, *, example: int, target_name: str | None) -> None:
    n_steps = int(selection.n_steps[example])
    marker = "o" if n_steps <= MAX_DETAILED_STEPS else None
    paths = selection.by_path("confidences")
    for path, values in paths.items():
        confidences: npt.NDArray[np.float64] = values[example, : n_steps + 1].double().numpy()
        # The path of a search in one mode has one color, whatever the mode.
        without = len(paths) > 1 and path == "deletion"
        color, label = (ORANGE, "without the chosen patches") if without else (BLUE, "only the chosen patches")
        ax.plot(np.arange(n_steps + 1), confidences, color=color, marker=marker, markersize=4, label=label)
    if len(paths) > 1:
        ax.legend(loc="best", framealpha=0.8, edgecolor="none", fontsize=8)
    ax.set_ylim(0, 1.02)
    label = "confidence" if target_name is None else f"confidence in\n{target_name}"
    show_dollar_signs(ax.set_ylabel(wrap_text(label, width=LABEL_WIDTH, fontsize=9), fontsize=9))


def _mark_flip(ax: Axes, flip: int) -> None:
    ax.axvline(flip, color="0.3", linestyle=":", linewidth=1.2)
    ax.text(flip, 1.03, "flip", transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=8)
