"""Plots of a selection: its steps, the image along its path, and the model's output at each step."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from captum_moxi.plot.patches import patches_alone
from captum_moxi.plot.style import BLACK, BLUE, ORANGE, SKY, canvas, patches_label
from captum_moxi.search import Selection, has_flipped

# Steps that show_path draws by default. Fibonacci numbers are dense at the beginning, where a path changes most.
DEFAULT_STEPS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)

# Paths with more steps are drawn without markers, hatches and bar edges, which would overlap.
MAX_DETAILED_STEPS = 40

MAX_COLORBAR_TICKS = 8


def flip_step(selection: Selection, target: int, *, min_confidence: float = 0.0, example: int = 0) -> int | None:
    """Return the first step after which the prediction is flipped.

    Args:
        selection (Selection): A selection.
        target (int): Index of the target class.
        min_confidence (float, optional): Confidence that the target must exceed for insertion to flip.
            Default: 0
        example (int, optional): Index of the example in the selection.
            Default: 0

    Returns:
        int or None: Number of the step, counted from 1. 0 if the prediction is flipped before the first step, and None
        if it never flips.
    """
    stop = int(selection.n_steps[example]) + 1
    flipped = has_flipped(
        selection.flip or selection.mode,
        selection.predictions[example, :stop],
        selection.confidences[example, :stop],
        target=target,
        min_confidence=min_confidence,
    )
    return int(flipped.nonzero()[0]) if flipped.any() else None


def show_steps(
    image: Tensor, mask: Tensor, selection: Selection, *, example: int = 0, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw the image in grayscale, and color each selected player by its step.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        selection (Selection): A selection.
        example (int, optional): Index of the example in the selection.
            Default: 0
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.
    """
    figure, ax = canvas(ax, size=(4.6, 4))
    ax.axis("off")
    ax.imshow(image.mean(2).numpy(), cmap="gray", vmin=0, vmax=1)
    n_steps = int(selection.n_steps[example])
    if not n_steps:
        return figure, ax
    # The reversed map makes the first step the brightest, also if the figure is printed in grayscale.
    colors = colormaps["viridis_r"]
    norm = BoundaryNorm(np.arange(0.5, n_steps + 1.5), colors.N) if n_steps > 1 else None
    step_map = _step_map(mask, selection.order[example, :n_steps].tolist()).numpy()
    overlay = ax.imshow(step_map, cmap=colors, norm=norm, alpha=0.85, interpolation="nearest")
    ticks = np.arange(1, n_steps + 1, -(-n_steps // MAX_COLORBAR_TICKS))
    bar = figure.colorbar(overlay, ax=ax, ticks=ticks, fraction=0.046, pad=0.03)
    bar.ax.minorticks_off()
    bar.set_label("step", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure, ax


def show_path(
    image: Tensor,
    mask: Tensor,
    selection: Selection,
    *,
    steps: Sequence[int] = DEFAULT_STEPS,
    example: int = 0,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw the image at several steps of the path, side by side, with the step and the confidence below each.

    Absent players are gray. There is no confidence if the selection has no target.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        selection (Selection): A selection.
        steps (Sequence[int], optional): Steps to draw. Steps beyond the end of the path are skipped, and the last step
            is always drawn.
            Default: 1, 2, 3, 5, 8 and so on
        example (int, optional): Index of the example in the selection.
            Default: 0
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.
    """
    last = int(selection.n_steps[example])
    visible = sorted({step for step in steps if 0 <= step < last} | {last})
    height, width = mask.shape
    gap = max(1, width // 20)
    figure, ax = canvas(ax, size=(1.5 * len(visible), 1.9))
    strip = torch.ones(height, len(visible) * (width + gap) - gap, 3)
    for index, step in enumerate(visible):
        players = selection.order[example, :step].tolist()
        left = index * (width + gap)
        strip[:, left : left + width] = patches_alone(image, mask, players, keep=selection.mode == "insertion")
        caption = _step_caption(step, float(selection.confidences[example, step]))
        ax.text(left + width / 2, height * 1.04, caption, ha="center", va="top", fontsize=9)
    ax.imshow(strip.numpy(), interpolation="nearest")
    ax.axis("off")
    return figure, ax


def plot_path(
    selection: Selection, *, example: int = 0, flip: int | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Plot confidence and reward along the path, and the two terms of each step's gain.

    The gain is the rise of the reward in insertion and its fall in deletion. It is the sum of two bars: the Shapley
    value of the selected player, and its interaction with the players selected before it.

    Args:
        selection (Selection): A selection.
        example (int, optional): Index of the example in the selection.
            Default: 0
        flip (int, optional): Step to mark as the flip.
            Default: None
        ax (Axes, optional): Axes for the confidence. Reward and gains are drawn on twin axes with a scale on the right.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure, and the axes of the confidence.
    """
    figure, ax = canvas(ax, size=(6, 3.2))
    n_steps = int(selection.n_steps[example])
    twin = ax.twinx()
    _plot_gains(twin, selection, example=example)
    # Confidence is drawn above the bars, through transparent axes.
    ax.set_zorder(twin.get_zorder() + 1)
    ax.patch.set_visible(False)
    _plot_confidences(ax, selection, example=example)
    if flip is not None:
        _mark_flip(ax, flip, n_steps=n_steps)
    _add_path_legend(ax, twin)
    ax.set_ylim(0, 1.02)
    ax.set_xlim(-0.5, max(1, n_steps) + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(patches_label(selection.mode), fontsize=9)
    ax.set_ylabel("confidence in the target", color=BLUE, fontsize=9)
    ax.tick_params(labelsize=8)
    return figure, ax


def _step_map(mask: Tensor, players: Sequence[int]) -> Tensor:
    """Return the step that selected the player of each pixel, counted from 1. Shape ``(H, W)``, NaN if not selected."""
    steps = torch.full(mask.shape, torch.nan)
    for step, player in enumerate(players, 1):
        steps[mask == player] = step
    return steps


def _step_caption(step: int, confidence: float) -> str:
    return f"{step}" if np.isnan(confidence) else f"{step}\n{confidence:.2f}"


def _plot_gains(ax: Axes, selection: Selection, *, example: int) -> None:
    """Plot the reward as a line and the two terms of each gain as bars."""
    n_steps = int(selection.n_steps[example])
    steps = np.arange(n_steps + 1)
    rewards = selection.rewards[example, : n_steps + 1].double().numpy()
    detailed = n_steps <= MAX_DETAILED_STEPS
    for label, values, offset, color, hatch in (
        ("Shapley value", selection.shapley, -0.2, SKY, None),
        ("interaction", selection.interactions, 0.2, ORANGE, "////"),
    ):
        ax.bar(
            steps[1:] + offset,
            values[example, :n_steps].double().numpy(),
            width=0.4,
            color=color,
            label=label,
            hatch=hatch if detailed else None,
            edgecolor="white" if detailed else None,
            linewidth=0.4 if detailed else None,
        )
    ax.plot(steps, rewards, color=BLACK, linewidth=1, linestyle="--", label="reward")
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.set_ylabel("reward, and what each step adds", fontsize=9)
    ax.tick_params(labelsize=8)


def _plot_confidences(ax: Axes, selection: Selection, *, example: int) -> None:
    n_steps = int(selection.n_steps[example])
    confidences = selection.confidences[example, : n_steps + 1].double().numpy()
    marker = "o" if n_steps <= MAX_DETAILED_STEPS else None
    ax.plot(np.arange(n_steps + 1), confidences, color=BLUE, marker=marker, markersize=4, label="confidence")


def _mark_flip(ax: Axes, flip: int, *, n_steps: int) -> None:
    ax.axvline(flip, color="0.3", linestyle=":", linewidth=1.2)
    # The label goes to the side that has more space.
    left_side = flip > n_steps / 2
    ax.annotate(
        "flip",
        (flip, 0),
        xycoords=("data", "axes fraction"),
        xytext=(-2 if left_side else 2, 3),
        textcoords="offset points",
        ha="right" if left_side else "left",
        fontsize=8,
    )


def _add_path_legend(ax: Axes, twin: Axes) -> None:
    """Add one legend for both axes above the plot."""
    handles = [*ax.get_lines()[:1], *twin.get_legend_handles_labels()[0]]
    ax.legend(
        handles,
        [str(handle.get_label()) for handle in handles],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncol=4,
        frameon=False,
        fontsize=7,
        columnspacing=1,
    )
