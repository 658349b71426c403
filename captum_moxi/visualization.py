"""Pictures of selections and comparisons, on captum.attr.visualization and matplotlib.

Every picture is a function that draws into ``ax``, or into a figure of its own where there is none, and returns the
figure and its axes. Images are ``(H, W, 3)`` in [0, 1], as ``ImageClassifier.to_images`` makes them; masks ``(H, W)``
have the player of every pixel. The colours are Okabe and Ito's, which the colour-blind tell apart; signs also differ by
hatch, dash or number, so that they survive a print in grey.
"""

import os
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from captum.attr import visualization as captum_visualization
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from captum_moxi.comparison import Comparison
from captum_moxi.search import Selection, flips

GREY = 0.5
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000"),
)
# the steps of a path that a strip shows
STRIP = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure fit for print: 300 dots an inch, cut to what is drawn, text kept as text in PDF and SVG."""
    with rc_context({"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"}):
        figure.savefig(path, dpi=300, bbox_inches="tight")


def flip_step(selection: Selection, target: int, min_confidence: float = 0.0, example: int = 0) -> int | None:
    """The first step after which the prediction is flipped, 0 for before any; None if it never is."""
    steps = int(selection.n_steps[example]) + 1
    path = selection.predictions[example, :steps], selection.confidences[example, :steps]
    flipped = flips(selection.flip or selection.mode, *path, target, min_confidence)
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


def show_heat_map(image: Tensor, attribution: Tensor, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """A heat map blended over the image, by ``captum.attr.visualization``.

    Args:
        image (Tensor): ``(H, W, 3)`` in [0, 1].
        attribution (Tensor): ``(H, W)`` of scores, none negative; brighter is higher.
        ax (Axes, optional): Where to draw. Default: a new figure

    Returns:
        tuple[Figure, Axes]
    """
    figure, ax = _canvas(ax)
    if not attribution.any():
        ax.imshow(image.numpy())
        ax.axis("off")
        return figure, ax
    captum_visualization.visualize_image_attr(
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


def show_steps(
    image: Tensor, mask: Tensor, selection: Selection, example: int = 0, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """The chosen players coloured by the step that chose them, over the image in grey, with a colour bar of steps.

    Args:
        image (Tensor): ``(H, W, 3)`` in [0, 1].
        mask (Tensor): ``(H, W)`` int64: the player of every pixel.
        selection (Selection): What a search chose.
        example (int, optional): Which example of the selection. Default: 0
        ax (Axes, optional): Where to draw. Default: a new figure

    Returns:
        tuple[Figure, Axes]
    """
    figure, ax = _canvas(ax, (4.6, 4))
    ax.axis("off")
    ax.imshow(image.mean(2).numpy(), cmap="gray", vmin=0, vmax=1)
    steps = int(selection.n_steps[example])
    if not steps:
        return figure, ax
    step_of = torch.full(mask.shape, torch.nan)
    for step, player in enumerate(selection.order[example, :steps].tolist(), 1):
        step_of[mask == player] = step
    # the first step, which matters most, is the brightest, in print too
    colours = plt.get_cmap("viridis_r")
    norm = BoundaryNorm(np.arange(0.5, steps + 1.5), colours.N) if steps > 1 else None
    drawn = ax.imshow(step_of.numpy(), cmap=colours, norm=norm, alpha=0.85, interpolation="nearest")
    ticks = np.arange(1, steps + 1, -(-steps // 8))
    bar = figure.colorbar(drawn, ax=ax, ticks=ticks, fraction=0.046, pad=0.03)
    bar.ax.minorticks_off()
    bar.set_label("step", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure, ax


def show_patches(
    image: Tensor, mask: Tensor, players: Sequence[int], keep: bool = True, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """These players alone (or, with ``keep=False``, the image without them), the rest grey.

    Args:
        image (Tensor): ``(H, W, 3)`` in [0, 1].
        mask (Tensor): ``(H, W)`` int64: the player of every pixel.
        players (Sequence[int]): Ids of players.
        keep (bool, optional): Whether these are kept or taken away. Default: True
        ax (Axes, optional): Where to draw. Default: a new figure

    Returns:
        tuple[Figure, Axes]
    """
    figure, ax = _canvas(ax)
    ax.imshow(patches_alone(image, mask, players, keep).numpy(), interpolation="nearest")
    ax.axis("off")
    return figure, ax


def show_path(
    image: Tensor,
    mask: Tensor,
    selection: Selection,
    steps: Sequence[int] = STRIP,
    example: int = 0,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """A strip of the image along the path, absent players grey, with number of players and confidence under each.

    Args:
        image (Tensor): ``(H, W, 3)`` in [0, 1].
        mask (Tensor): ``(H, W)`` int64: the player of every pixel.
        selection (Selection): What a search chose.
        steps (Sequence[int], optional): Which steps to show, those that the search took; the last is always there.
            Default: 1, 2, 3, 5, 8 and so on
        example (int, optional): Which example of the selection. Default: 0
        ax (Axes, optional): Where to draw. Default: a new figure

    Returns:
        tuple[Figure, Axes]
    """
    last = int(selection.n_steps[example])
    shown = sorted({step for step in steps if 0 <= step < last} | {last})
    height, width = mask.shape
    gap = max(1, width // 20)
    figure, ax = _canvas(ax, (1.5 * len(shown), 1.9))
    strip = torch.ones(height, len(shown) * (width + gap) - gap, 3)
    for place, step in enumerate(shown):
        group = selection.order[example, :step].tolist()
        start = place * (width + gap)
        strip[:, start : start + width] = patches_alone(image, mask, group, keep=selection.mode == "insertion")
        confidence = float(selection.confidences[example, step])
        said = f"{step}" if np.isnan(confidence) else f"{step}\n{confidence:.2f}"
        ax.text(start + width / 2, height * 1.04, said, ha="center", va="top", fontsize=9)
    ax.imshow(strip.numpy(), interpolation="nearest")
    ax.axis("off")
    return figure, ax


def plot_path(
    selection: Selection, ax: Axes | None = None, example: int = 0, flip: int | None = None
) -> tuple[Figure, Axes]:
    """Confidence and reward before the first step and after each, and what each step's gain is made of.

    The gain of a step, the rise of the reward in insertion and its fall in deletion, is the sum of two bars: the chosen
    player's Shapley value, and its interaction with those chosen before it.

    Args:
        selection (Selection): What a search chose.
        ax (Axes, optional): Where to draw; the reward has an axis of its own to the right. Default: a new figure
        example (int, optional): Which example. Default: 0
        flip (int, optional): A step to mark as the flip. Default: None

    Returns:
        tuple[Figure, Axes]
    """
    figure, ax = _canvas(ax, (6, 3.2))
    steps = int(selection.n_steps[example])
    at, before = np.arange(1, steps + 1), np.arange(steps + 1)
    confidences, rewards = (
        of[example, : steps + 1].double().numpy() for of in (selection.confidences, selection.rewards)
    )
    alone, together = (of[example, :steps].double().numpy() for of in (selection.shapley, selection.interactions))
    right = ax.twinx()
    edge: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.4} if steps <= 40 else {}
    right.bar(at - 0.2, alone, width=0.4, color=SKY, label="Shapley value", **edge)
    right.bar(
        at + 0.2, together, width=0.4, color=ORANGE, hatch="////" if steps <= 40 else None, label="interaction", **edge
    )
    right.plot(before, rewards, color=BLACK, linewidth=1, linestyle="--", label="reward")
    right.axhline(0, color="0.6", linewidth=0.6)
    right.set_ylabel("reward, and what each step adds", fontsize=9)
    right.tick_params(labelsize=8)
    ax.set_zorder(right.get_zorder() + 1)
    ax.patch.set_visible(False)
    ax.plot(before, confidences, color=BLUE, marker="o" if steps <= 40 else None, markersize=4, label="confidence")
    if flip is not None:
        ax.axvline(flip, color="0.3", linestyle=":", linewidth=1.2)
        # on the side where there is room
        side, offset = ("right", -2) if flip > steps / 2 else ("left", 2)
        place: dict[str, Any] = {"xytext": (offset, 3), "textcoords": "offset points", "ha": side}
        ax.annotate("flip", (flip, 0), xycoords=("data", "axes fraction"), fontsize=8, **place)
    keys = [*ax.get_lines()[:1], *right.get_legend_handles_labels()[0]]
    above: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncol": 4, "frameon": False}
    ax.legend(keys, [str(key.get_label()) for key in keys], fontsize=7, columnspacing=1, **above)
    ax.set_ylim(0, 1.02)
    ax.set_xlim(-0.5, max(1, steps) + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("patches inserted" if selection.mode == "insertion" else "patches deleted", fontsize=9)
    ax.set_ylabel("confidence in the target", color=BLUE, fontsize=9)
    ax.tick_params(labelsize=8)
    return figure, ax


def plot_interactions(
    matrix: Tensor, players: Sequence[int], ax: Axes | None = None, title: str = ""
) -> tuple[Figure, Axes]:
    """The interactions of pairs as a matrix, with their numbers.

    Args:
        matrix (Tensor): ``(m, m)``, by ``self_context_pairs`` or ``full_context_pairs`` of ``interactions``.
        players (Sequence[int]): The m players' ids.
        ax (Axes, optional): Where to draw. Default: a new figure
        title (str, optional): Above it. Default: none

    Returns:
        tuple[Figure, Axes]
    """
    m = _check_pairs(matrix, players)
    figure, ax = _canvas(ax, (0.55 * m + 1.8, 0.55 * m + 1))
    values = matrix.double().numpy()
    reach = float(np.abs(values).max()) or 1.0
    drawn = ax.imshow(values, cmap="PuOr", vmin=-reach, vmax=reach, interpolation="nearest")
    if m <= 12:
        for i in range(m):
            for j in range(m):
                ink = "white" if abs(values[i, j]) > 0.6 * reach else "black"
                ax.text(
                    j, i, f"{values[i, j]:+.{1 if reach >= 1 else 2}f}", ha="center", va="center", fontsize=7, color=ink
                )
    ax.set_xticks(range(m), [str(player) for player in players], fontsize=8)
    ax.set_yticks(range(m), [str(player) for player in players], fontsize=8)
    ax.set_xlabel("patch", fontsize=9)
    ax.set_ylabel("patch", fontsize=9)
    bar = figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.04)
    bar.set_label("interaction", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    ax.set_title(title, fontsize=10)
    return figure, ax


def show_links(
    image: Tensor, mask: Tensor, matrix: Tensor, players: Sequence[int], ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """The interactions of pairs as lines between their patches: solid where positive, dashed where negative.

    Args:
        image (Tensor): ``(H, W, 3)`` in [0, 1].
        mask (Tensor): ``(H, W)`` int64: the player of every pixel.
        matrix (Tensor): ``(m, m)``: the interactions; wider lines are stronger ones, and those under a hundredth of the
            strongest are left out.
        players (Sequence[int]): The m players' ids.
        ax (Axes, optional): Where to draw. Default: a new figure

    Returns:
        tuple[Figure, Axes]
    """
    m = _check_pairs(matrix, players)
    figure, ax = _canvas(ax)
    ax.imshow(_highlighted(image, mask, players, "insertion").numpy(), interpolation="nearest")
    ax.axis("off")
    centres = [(mask == player).nonzero().double().mean(0).flip(0).tolist() for player in players]
    pairs = [(i, j) for i in range(m) for j in range(i)]
    reach = max((abs(float(matrix[i, j])) for i, j in pairs), default=0.0) or 1.0
    for i, j in pairs:
        strength = float(matrix[i, j]) / reach
        if abs(strength) < 0.01:
            continue
        across, down = zip(centres[i], centres[j], strict=True)
        colour, dash = (BLUE, "-") if strength > 0 else (VERMILION, (0, (3, 2)))
        ax.plot(across, down, color=colour, linestyle=dash, linewidth=0.5 + 4 * abs(strength), alpha=0.85)
    for (x, y), player in zip(centres, players, strict=True):
        ax.plot(x, y, marker="o", markersize=11, color="white", markeredgecolor="black", markeredgewidth=0.8)
        ax.text(x, y, str(player), ha="center", va="center", fontsize=6)
    keys = [
        Line2D([], [], color=BLUE, linewidth=3, label="positive"),
        Line2D([], [], color=VERMILION, linewidth=3, linestyle=(0, (3, 2)), label="negative"),
    ]
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncol": 2, "frameon": False}
    ax.legend(handles=keys, fontsize=8, handlelength=3, **below)
    return figure, ax


def plot_curves(
    comparison: Comparison, of: str = "confidences", ax: Sequence[Axes] | None = None
) -> tuple[Figure, Any]:
    """The insertion and deletion curves of every method, the mean over examples, as in the MoXI paper's Figure 3.

    Args:
        comparison (Comparison): What ``compare`` found.
        of (str, optional): ``"confidences"``, ``"correct"``, whose mean is the accuracy, or ``"rewards"``.
            Default: ``"confidences"``
        ax (Sequence[Axes], optional): One for each mode that was compared. Default: a new figure

    Returns:
        tuple[Figure, ndarray of Axes]

    Raises:
        ValueError: another name, or other than one axis a mode.
    """
    named = {"confidences": "confidence in the target", "correct": "accuracy", "rewards": "reward"}
    if of not in named:
        raise ValueError(f"of is {of!r}; pass 'confidences', 'correct' or 'rewards'")
    modes = list(dict.fromkeys(result.mode for result in comparison.results))
    if ax is None:
        figure, given = plt.subplots(
            1, len(modes), figsize=(4.6 * len(modes), 3.4), layout="constrained", squeeze=False
        )
        axes = given[0]
    else:
        axes = np.atleast_1d(np.asarray(ax, dtype=object))
        if len(axes) != len(modes):
            raise ValueError(f"ax has {len(axes)} axes for {len(modes)} modes; pass one for each")
        figure = axes[0].figure
    for panel, mode in zip(axes, modes, strict=True):
        for place, method in enumerate(comparison.methods):
            curve = comparison.of(method, mode).curve
            heights = getattr(curve, of).double().mean(0)
            panel.plot(curve.fractions, heights, label=method, **line_style(place))
        label_curves(panel, mode, named[of])
        if of != "rewards":
            panel.set_ylim(0, 1.02)
    axes[-1].legend(fontsize=8, framealpha=0.8)
    return figure, axes


def line_style(place: int, dash: int | None = None) -> dict[str, Any]:
    """Colour, dash and width of the line at a place, the first the broadest; ``dash`` gives it that place's dash.

    Those of 14 places differ, with a dash given too: from the eighth on they are thin then.
    """
    colours = (VERMILION, BLUE, BLACK, GREEN, ORANGE, PURPLE, SKY)
    return {
        "color": colours[place % 7],
        "linestyle": DASHES[(place + place // 7 if dash is None else dash) % 7],
        "linewidth": 2.2 if place == 0 else 1.3 if dash is None or place < 7 else 0.6,
    }


def label_curves(panel: Axes, mode: str, height: str) -> None:
    """Label an axis of curves over fractions of the players: which mode, and what their height is."""
    panel.set_xlabel("patches inserted" if mode == "insertion" else "patches deleted", fontsize=9)
    panel.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    panel.set_ylabel(height, fontsize=9)
    panel.set_title(f"{mode}: {'higher' if mode == 'insertion' else 'lower'} is better", fontsize=10)
    panel.tick_params(labelsize=8)


def show_comparison(
    images: Tensor, masks: Tensor, comparison: Comparison, mode: str = "insertion", ax: Any = None
) -> tuple[Figure, Any]:
    """The patches that flip the prediction, by method, as in the MoXI paper's Figure 4, their number under each.

    Args:
        images (Tensor): ``(B, H, W, 3)`` in [0, 1].
        masks (Tensor): ``(B or 1, H, W)`` int64: the player of every pixel.
        comparison (Comparison): What ``compare`` found.
        mode (str, optional): ``"insertion"``: these patches alone are shown in full colour; or ``"deletion"``: these
            patches are grey. Default: ``"insertion"``
        ax (ndarray of Axes, optional): ``(B, 1 + methods)``, the first column for the images. Default: a new figure

    Returns:
        tuple[Figure, ndarray of Axes]

    Raises:
        ValueError: axes of another shape.
    """
    methods = comparison.methods
    shape = (len(images), 1 + len(methods))
    if ax is None:
        size = (1.45 * shape[1], 1.75 * shape[0] + 0.2)
        figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    else:
        axes = np.asarray(ax, dtype=object)
        if axes.shape != shape:
            raise ValueError(f"ax has shape {axes.shape}; pass axes of shape {shape}, a row an image")
        figure = axes.flat[0].figure
    for example, image in enumerate(images):
        mask = masks[example if len(masks) > 1 else 0]
        axes[example, 0].imshow(image.numpy())
        for place, method in enumerate(methods, 1):
            result, panel = comparison.of(method, mode), axes[example, place]
            flip = float(comparison.players_to_flip(method, mode)[example])
            count = int(result.curve.players[example, -1]) if np.isnan(flip) else int(flip)
            group = result.order[example, :count].tolist()
            panel.imshow(_highlighted(image, mask, group, mode).numpy(), interpolation="nearest")
            said = f"> {count}" if np.isnan(flip) else str(count)
            panel.text(0.5, -0.03, said, transform=panel.transAxes, ha="center", va="top", fontsize=9)
    for panel, title in zip(axes[0], ["image", *methods], strict=True):
        panel.set_title(title, fontsize=9)
    for panel in axes.flat:
        panel.axis("off")
    return figure, axes


def _highlighted(image: Tensor, mask: Tensor, players: Sequence[int], mode: str) -> Tensor:
    """Chosen players in full over a faint image (insertion), or taken out of it (deletion)."""
    if mode == "deletion":
        return patches_alone(image, mask, players, keep=False)
    chosen = torch.isin(mask, torch.tensor(list(players), dtype=mask.dtype))
    return torch.where(chosen[:, :, None], image, 0.75 + 0.15 * image.mean(2, keepdim=True))


def _canvas(ax: Axes | None, size: tuple[float, float] = (4, 4)) -> tuple[Figure, Axes]:
    """The figure of an axis, or a new one of that size in inches."""
    if ax is not None:
        return ax.figure, ax  # type: ignore[return-value]
    return plt.subplots(figsize=size, layout="constrained")


def _check_pairs(matrix: Tensor, players: Sequence[int]) -> int:
    m = len(players)
    if tuple(matrix.shape) != (m, m):
        raise ValueError(f"matrix has shape {tuple(matrix.shape)} for {m} players; pass ({m}, {m})")
    return m


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


def localization_figure(
    image: Tensor,
    mask: Tensor,
    results: Sequence[tuple[str, Tensor, tuple[Selection, Selection]]],
    title: str = "",
) -> tuple[Figure, Any]:
    """The image, and for each class what had to go before it was predicted, and where it then is, as in Figure 5.

    Args:
        image (Tensor): ``(H, W, 3)`` in [0, 1].
        mask (Tensor): ``(H, W)`` int64: the player of every pixel.
        results (Sequence[tuple[str, Tensor, tuple[Selection, Selection]]]): Of each class its name, the heat map
            ``(H, W)`` and the two selections of one example, as ``MoXILocalization`` returns them.
        title (str, optional): Above all. Default: none

    Returns:
        tuple[Figure, ndarray of Axes]: the figure, not shown, and its axes: the image's, then two a class.
    """
    figure = Figure(figsize=(8.4, 0.4 + 2.9 * len(results)), layout="constrained")
    grid = figure.add_gridspec(len(results), 3)
    whole = figure.add_subplot(grid[0, 0])
    whole.imshow(image.numpy())
    whole.set_title("image", fontsize=10)
    axes = [whole]
    for row, (name, attribution, (first, second)) in enumerate(results):
        gone, held = (one.order[0, : int(one.n_steps[0])].tolist() for one in (first, second))
        without, heat = (figure.add_subplot(grid[row, column]) for column in (1, 2))
        without.imshow(patches_alone(image, mask, gone, keep=False).numpy())
        # of a class that is never predicted all went, also what speaks for it
        against = f"\nthat speak{'s' if len(gone) == 1 else ''} against {name}" if first.flipped[0] else ""
        without.set_title(f"without {_patches(gone)}{against}" if gone else "the image as it is", fontsize=10)
        show_heat_map(image, attribution, heat)
        lost = "" if second.flipped[0] else ", not lost"
        found = f"{_patches(held)}{lost}" if first.flipped[0] else "never predicted"
        heat.set_title(f"{name}: {found}", fontsize=10)
        axes += [without, heat]
    for panel in axes:
        panel.axis("off")
    figure.suptitle(title, fontsize=11)
    return figure, np.array(axes)


def _patches(players: Sequence[int]) -> str:
    return f"{len(players)} patch{'' if len(players) == 1 else 'es'}"
