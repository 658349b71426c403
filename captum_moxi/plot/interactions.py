"""Plots of pairwise interactions: as a matrix, and as links between patches."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from captum_moxi.plot.patches import highlight_patches
from captum_moxi.plot.style import BLUE, VERMILION, DashPattern, canvas

# Larger matrices are drawn without the number in each cell.
MAX_NUMBERED_PLAYERS = 12

# Links weaker than this share of the strongest one are omitted.
MIN_LINK_STRENGTH = 0.01

NEGATIVE_DASH: DashPattern = (0, (3, 2))


def plot_interactions(
    matrix: Tensor, players: Sequence[int], *, title: str = "", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Plot pairwise interactions as a matrix with one number per cell.

    Args:
        matrix (Tensor): Interactions ``(m, m)``, for example from
            :func:`captum_moxi.interactions.self_context_pairs` or
            :func:`captum_moxi.interactions.full_context_pairs`.
        players (Sequence[int]): Ids of the m players.
        title (str, optional): Title of the plot.
            Default: no title
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]

    Raises:
        ValueError: If the shape of ``matrix`` does not match the number of players.
    """
    _check_matrix(matrix, players)
    size = len(players)
    figure, ax = canvas(ax, size=(0.55 * size + 1.8, 0.55 * size + 1))
    values = matrix.double().numpy()
    limit = float(np.abs(values).max()) or 1.0
    cells = ax.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    if size <= MAX_NUMBERED_PLAYERS:
        _write_numbers(ax, values, limit=limit)
    names = [str(player) for player in players]
    ax.set_xticks(range(size), names, fontsize=8)
    ax.set_yticks(range(size), names, fontsize=8)
    ax.set_xlabel("patch", fontsize=9)
    ax.set_ylabel("patch", fontsize=9)
    bar = figure.colorbar(cells, ax=ax, fraction=0.046, pad=0.04)
    bar.set_label("interaction", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    ax.set_title(title, fontsize=10)
    return figure, ax


def show_links(
    image: Tensor, mask: Tensor, *, matrix: Tensor, players: Sequence[int], ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw pairwise interactions as lines between patches. Positive lines are solid, negative ones are dashed.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        matrix (Tensor): Interactions ``(m, m)``. Wider lines are stronger interactions. Those weaker than 1% of the
            strongest are omitted.
        players (Sequence[int]): Ids of the m players.
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]

    Raises:
        ValueError: If the shape of ``matrix`` does not match the number of players.
    """
    _check_matrix(matrix, players)
    figure, ax = canvas(ax)
    ax.imshow(highlight_patches(image, mask, players, mode="insertion").numpy(), interpolation="nearest")
    ax.axis("off")
    centers = [_center(mask, player) for player in players]
    _draw_links(ax, matrix, centers)
    for (x, y), player in zip(centers, players, strict=True):
        ax.plot(x, y, marker="o", markersize=11, color="white", markeredgecolor="black", markeredgewidth=0.8)
        ax.text(x, y, str(player), ha="center", va="center", fontsize=6)
    _add_link_legend(ax)
    return figure, ax


def _check_matrix(matrix: Tensor, players: Sequence[int]) -> None:
    size = len(players)
    if tuple(matrix.shape) != (size, size):
        raise ValueError(f"matrix has shape {tuple(matrix.shape)} for {size} players; pass shape ({size}, {size})")


def _write_numbers(ax: Axes, values: npt.NDArray[np.float64], *, limit: float) -> None:
    """Write the value of each cell in a color that contrasts with the cell."""
    digits = 1 if limit >= 1 else 2
    for (row, column), value in np.ndenumerate(values):
        color = "white" if abs(value) > 0.6 * limit else "black"
        ax.text(column, row, f"{value:+.{digits}f}", ha="center", va="center", fontsize=7, color=color)


def _center(mask: Tensor, player: int) -> tuple[float, float]:
    """The mean ``(x, y)`` of the pixels of a player."""
    y, x = (mask == player).nonzero().double().mean(0).tolist()
    return x, y


def _draw_links(ax: Axes, matrix: Tensor, centers: Sequence[tuple[float, float]]) -> None:
    pairs = [(i, j) for i in range(len(centers)) for j in range(i)]
    strongest = max((abs(float(matrix[i, j])) for i, j in pairs), default=0.0) or 1.0
    for i, j in pairs:
        strength = float(matrix[i, j]) / strongest
        if abs(strength) < MIN_LINK_STRENGTH:
            continue
        xs, ys = zip(centers[i], centers[j], strict=True)
        ax.plot(
            xs,
            ys,
            color=BLUE if strength > 0 else VERMILION,
            linestyle="-" if strength > 0 else NEGATIVE_DASH,
            linewidth=0.5 + 4 * abs(strength),
            alpha=0.85,
        )


def _add_link_legend(ax: Axes) -> None:
    handles = [
        Line2D([], [], color=BLUE, linewidth=3, label="positive"),
        Line2D([], [], color=VERMILION, linewidth=3, linestyle=NEGATIVE_DASH, label="negative"),
    ]
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncol=2,
        frameon=False,
        fontsize=8,
        handlelength=3,
    )
