"""Plots of pairwise interactions: as a matrix, and as links between patches.

By default, the strongest color and the widest line represent the strongest interaction of the matrix, or
:data:`MIN_SCALE` if all interactions are weaker. Without this minimum, interactions close to 0 would look strong.
"""

from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from captum_moxi.plot.patches import center_of, highlight_patches
from captum_moxi.plot.style import BLUE, VERMILION, DashPattern, canvas, describe, show_dollar_signs

# Smallest default scale, in the unit of the reward. An interaction of 1 in log-odds multiplies the odds by e. An
# interaction in probabilities is never stronger than 2.
MIN_SCALE = 1.0

# Larger matrices are drawn without the number in each cell.
MAX_NUMBERED_PLAYERS = 12

# Links weaker than this share of the scale are omitted.
MIN_LINK_STRENGTH = 0.01

NEGATIVE_DASH: DashPattern = (0, (3, 2))

DIAGONAL_GRAY = "0.88"


def plot_interactions(
    matrix: Tensor, players: Sequence[int], *, title: str = "", scale: float | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Plot pairwise interactions as a matrix.

    Each cell off the diagonal shows the interaction of two players. The diagonal of ``matrix`` contains the negated
    Shapley value of each player, which is not an interaction. The plot shows the Shapley value itself on the diagonal,
    on gray and outside of the color scale. Cells contain numbers if there are at most 12 players.

    Args:
        matrix (Tensor): Interactions ``(m, m)``, for example from
            :func:`captum_moxi.interactions.self_context_pairs` or
            :func:`captum_moxi.interactions.full_context_pairs`. The diagonal contains the negated Shapley values.
        players (Sequence[int]): Ids of the m players.
        title (str, optional): Title of the plot.
            Default: no title
        scale (float, optional): Interaction with the strongest color, in the unit of the reward. Pass the same scale
            to several plots to compare them.
            Default: None, the strongest interaction of two different players, but at least 1
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.

    Raises:
        ValueError: If the shape of ``matrix`` does not match the number of players, or ``scale`` is not positive.
    """
    limit = _check_scale(matrix, players, scale)
    size = len(players)
    is_new = ax is None
    figure, ax = canvas(ax, size=(0.55 * size + 1.8, 0.55 * size + 1.6))
    values = matrix.double().numpy()
    pairs = np.ma.masked_array(values, mask=np.eye(size, dtype=bool))
    cells = ax.imshow(pairs, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    _draw_diagonal(ax, size)
    if size <= MAX_NUMBERED_PLAYERS:
        _write_numbers(ax, values, limit=limit)
    names = [str(player) for player in players]
    ax.set_xticks(range(size), names, fontsize=8)
    ax.set_yticks(range(size), names, fontsize=8)
    ax.set_xlabel("patch\n(gray: Shapley value of the patch)", fontsize=9)
    ax.set_ylabel("patch", fontsize=9)
    bar = figure.colorbar(cells, ax=ax, fraction=0.046, pad=0.04)
    bar.set_label("interaction of two patches", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if is_new:
        describe(
            figure,
            title=title or "Interactions of pairs of patches",
            reading="Positive: two patches add more together than separately. Negative: they repeat each other.",
            fontsize=10,
        )
    else:
        show_dollar_signs(ax.set_title(title, fontsize=10))
    return figure, ax


def show_links(
    image: Tensor,
    mask: Tensor,
    *,
    matrix: Tensor,
    players: Sequence[int],
    title: str = "",
    scale: float | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw pairwise interactions as lines between patches. Positive lines are solid, negative ones are dashed.

    The width of a line is proportional to the strength of the interaction. The legend gives the scale. The diagonal of
    ``matrix`` is not used.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        matrix (Tensor): Interactions ``(m, m)``, as in :func:`plot_interactions`.
        players (Sequence[int]): Ids of the m players.
        title (str, optional): Title of the plot.
            Default: no title
        scale (float, optional): Interaction with the widest line, in the unit of the reward. Stronger interactions
            have the same width. Interactions weaker than 1 % of the scale are omitted. Pass the same scale to several
            plots to compare them.
            Default: None, the strongest interaction of two different players, but at least 1
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.

    Raises:
        ValueError: If the shape of ``matrix`` does not match the number of players, or ``scale`` is not positive.
    """
    limit = _check_scale(matrix, players, scale)
    is_new = ax is None
    figure, ax = canvas(ax, size=(4, 4.8))
    ax.imshow(highlight_patches(image, mask, players, mode="insertion").numpy(), interpolation="nearest")
    ax.axis("off")
    if is_new:
        describe(
            figure,
            title=title or "Interactions of pairs of patches",
            reading="Circles: patch ids. The wider the line, the stronger the interaction.",
            fontsize=10,
        )
    else:
        show_dollar_signs(ax.set_title(title, fontsize=10))
    centers = [center_of(mask, player) for player in players]
    _draw_links(ax, matrix, centers, scale=limit)
    for (x, y), player in zip(centers, players, strict=True):
        ax.plot(x, y, marker="o", markersize=11, color="white", markeredgecolor="black", markeredgewidth=0.8)
        ax.text(x, y, str(player), ha="center", va="center", fontsize=6)
    _add_link_legend(ax, scale=limit)
    return figure, ax


def _check_scale(matrix: Tensor, players: Sequence[int], scale: float | None) -> float:
    """Check the arguments, and return the passed scale, or the default scale of the matrix."""
    size = len(players)
    if tuple(matrix.shape) != (size, size):
        raise ValueError(f"matrix has shape {tuple(matrix.shape)} for {size} players; pass shape ({size}, {size})")
    if scale is None:
        pairs = [abs(float(matrix[i, j])) for i, j in permutations(range(size), 2)]
        return max([MIN_SCALE, *pairs])
    if not scale > 0:
        raise ValueError(f"scale is {scale}; pass a positive number, or None for a scale that fits the matrix")
    return scale


def _draw_diagonal(ax: Axes, size: int) -> None:
    for index in range(size):
        ax.add_patch(Rectangle((index - 0.5, index - 0.5), 1, 1, facecolor=DIAGONAL_GRAY, edgecolor="white"))


def _write_numbers(ax: Axes, values: npt.NDArray[np.float64], *, limit: float) -> None:
    """Write the interaction or the Shapley value into each cell, in a color that contrasts with the cell."""
    digits = 1 if float(np.abs(values).max(initial=0)) >= 1 else 2
    for (row, column), value in np.ndenumerate(values):
        is_diagonal = row == column
        number = -value if is_diagonal else value
        ax.text(
            column,
            row,
            _format_number(number, digits=digits),
            ha="center",
            va="center",
            fontsize=7,
            style="italic" if is_diagonal else "normal",
            color="white" if abs(value) > 0.6 * limit and not is_diagonal else "black",
        )


def _format_number(number: float, *, digits: int) -> str:
    """Format a number with its sign, unless it rounds to 0."""
    text = f"{number:+.{digits}f}"
    return text if float(text) else text[1:]


def _draw_links(ax: Axes, matrix: Tensor, centers: Sequence[tuple[float, float]], *, scale: float) -> None:
    for j, i in combinations(range(len(centers)), 2):
        strength = float(matrix[i, j]) / scale
        if abs(strength) < MIN_LINK_STRENGTH:
            continue
        xs, ys = zip(centers[i], centers[j], strict=True)
        ax.plot(
            xs,
            ys,
            color=BLUE if strength > 0 else VERMILION,
            linestyle="-" if strength > 0 else NEGATIVE_DASH,
            linewidth=0.5 + 4 * min(1.0, abs(strength)),
            alpha=0.85,
        )


def _add_link_legend(ax: Axes, *, scale: float) -> None:
    handles = [
        Line2D([], [], color=BLUE, linewidth=3, label="positive"),
        Line2D([], [], color=VERMILION, linewidth=3, linestyle=NEGATIVE_DASH, label="negative"),
    ]
    ax.legend(
        handles=handles,
        title=f"interaction; widest line: {scale:.2g}",
        title_fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncol=2,
        frameon=False,
        fontsize=8,
        handlelength=3,
    )
