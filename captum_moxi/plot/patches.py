"""Plots of an image and its patches."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.arguments import Mode
from captum_moxi.game import CoalitionGame
from captum_moxi.plot.style import HEAT_COLORS, add_colorbar, canvas, describe
from captum_moxi.removal.base import GRAY, ToImages

# Draws what the model sees if only some players are present: ids of the present players -> image (H, W, 3) in [0, 1].
DrawPlayers: TypeAlias = Callable[[Sequence[int]], Tensor]


def patches_alone(image: Tensor, mask: Tensor, players: Sequence[int], *, keep: bool = True) -> Tensor:
    """Show only the given players, or all others, and fill the rest of the image with gray.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        players (Sequence[int]): Ids of the players.
        keep (bool, optional): Whether to keep the players (True) or to remove them (False).
            Default: True

    Returns:
        Tensor: Image ``(H, W, 3)``.
    """
    covered = _covered(mask, players)
    return torch.where(covered if keep else ~covered, image, torch.tensor(GRAY))


def draw_from_game(game: CoalitionGame, to_images: ToImages, *, example: int = 0) -> DrawPlayers:
    """Return a function that draws what the model sees if only some players are present.

    Args:
        game (CoalitionGame): Game on one input of images ``(B, C, H, W)``. Its removal decides what absent players look
            like.
        to_images (Callable): Maps pixel values ``(M, C, H, W)`` to images ``(M, H, W, 3)`` in [0, 1], for example
            :meth:`captum_moxi.models.ImageClassifier.to_images`.
        example (int, optional): Index of the example in the game.
            Default: 0

    Returns:
        Callable: Maps the ids of the present players to an image ``(H, W, 3)`` in [0, 1]. Pass it to the plot functions
        as ``draw``.

    Examples::

        >>> game = CoalitionGame(classifier.model, x, target=y, removal="blur", feature_mask=mask)
        >>> draw = draw_from_game(game, classifier.to_images)
        >>> show_patches(classifier.to_images(x)[0], mask[0, 0], selection.order[0].tolist(), draw=draw)
    """

    def draw(players: Sequence[int]) -> Tensor:
        present = torch.isin(game.ids, torch.tensor(list(players), dtype=game.ids.dtype))
        return game.pictures(present[None], torch.tensor([example]), to_images)[0]

    return draw


def draw_group(
    image: Tensor, mask: Tensor, players: Sequence[int], *, keep: bool = True, draw: DrawPlayers | None = None
) -> Tensor:
    """Draw what the model sees if only the given players, or all others, are present.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        players (Sequence[int]): Ids of the players.
        keep (bool, optional): Whether the players are present (True) or absent (False).
            Default: True
        draw (Callable, optional): Draws what the model sees, for example the result of :func:`draw_from_game`.
            Default: None, absent players are gray

    Returns:
        Tensor: Image ``(H, W, 3)``.
    """
    if draw is None:
        return patches_alone(image, mask, players, keep=keep)
    chosen = set(players)
    return draw([player for player in mask.unique().tolist() if (player in chosen) == keep])


def highlight_patches(image: Tensor, mask: Tensor, players: Sequence[int], *, mode: Mode) -> Tensor:
    """Highlight a group of players in an image.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        players (Sequence[int]): Ids of the players.
        mode (str): ``"insertion"`` shows the players in color over a faded image. ``"deletion"`` fills them with gray.

    Returns:
        Tensor: Image ``(H, W, 3)``.
    """
    if mode == "deletion":
        return patches_alone(image, mask, players, keep=False)
    return torch.where(_covered(mask, players), image, faded(image))


def faded(image: Tensor) -> Tensor:
    """Return a pale gray version of an image ``(H, W, 3)``, on which colors stand out."""
    return (0.55 + 0.4 * image.mean(2, keepdim=True)).expand_as(image)


def show_patches(
    image: Tensor,
    mask: Tensor,
    players: Sequence[int],
    *,
    keep: bool = True,
    draw: DrawPlayers | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw what the model sees if only the given players, or all others, are present.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        players (Sequence[int]): Ids of the players.
        keep (bool, optional): Whether to keep the players (True) or to remove them (False).
            Default: True
        draw (Callable, optional): Draws what the model sees, for example the result of :func:`draw_from_game`.
            Default: None, absent players are gray
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.

    Examples::

        >>> attr, selection = MoXIInsertion(model).attribute(x, target=y, stop="flip", return_selection=True)
        >>> show_patches(classifier.to_images(x)[0], patch_mask(224, 16)[0, 0], selection.order[0].tolist())
    """
    figure, new_ax = canvas(ax)
    new_ax.imshow(draw_group(image, mask, players, keep=keep, draw=draw).numpy(), interpolation="nearest")
    new_ax.axis("off")
    if ax is None:
        count = f"{len(players)} of {len(mask.unique())} patches"
        describe(
            figure,
            title=f"{count} alone" if keep else f"Without {count}",
            reading="The input of the model." + (" Gray patches are absent." if draw is None else ""),
        )
    return figure, new_ax


def heat_picture(
    image: Tensor, attribution: Tensor, *, cmap: str | Colormap = HEAT_COLORS, alpha: float = 0.6
) -> Tensor:
    """Mix the colors of scores into an image, as in :func:`show_heat_map`.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        attribution (Tensor): Scores ``(H, W)``. Negative scores count as 0.
        cmap (str or Colormap, optional): Colormap of the scores.
            Default: :data:`captum_moxi.plot.HEAT_COLORS`
        alpha (float, optional): Opacity of the highest score, from 0 to 1. The opacity is proportional to the score.
            Default: 0.6

    Returns:
        Tensor: Image ``(H, W, 3)`` in [0, 1], float32.
    """
    scores = attribution.detach().float().cpu().clamp(min=0)
    if not scores.any():
        return image
    scores = scores / scores.max()
    colors = torch.from_numpy(plt.get_cmap(cmap)(scores.numpy())[:, :, :3]).float()
    opacity = alpha * scores[:, :, None]
    return torch.where(scores[:, :, None] > 0, (1 - opacity) * image + opacity * colors, faded(image))


def show_heat_map(
    image: Tensor,
    attribution: Tensor,
    *,
    cmap: str | Colormap = HEAT_COLORS,
    alpha: float = 0.6,
    colorbar: bool = False,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw scores over an image that stays visible.

    Pixels with a score of 0 are pale. All others keep their color, and the higher their score, the more of the colormap
    is mixed in. If all scores are 0, only the image is drawn.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        attribution (Tensor): Scores ``(H, W)``. Negative scores are drawn as 0.
        cmap (str or Colormap, optional): Colormap of the scores.
            Default: :data:`captum_moxi.plot.HEAT_COLORS`
        alpha (float, optional): Opacity of the highest score, from 0 to 1. The opacity is proportional to the score.
            Default: 0.6
        colorbar (bool, optional): Whether to draw a colorbar.
            Default: False
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.
    """
    figure, new_ax = canvas(ax)
    new_ax.axis("off")
    new_ax.imshow(heat_picture(image, attribution, cmap=cmap, alpha=alpha).numpy(), interpolation="nearest")
    highest = float(attribution.max())
    if colorbar and highest > 0:
        add_colorbar(figure, new_ax, ScalarMappable(Normalize(0, highest), cmap), label="score")
    if ax is None:
        describe(
            figure,
            title="Attribution of each patch",
            reading="The stronger the tint, the higher the score. Pale: score 0.",
        )
    return figure, new_ax


def outline_players(
    ax: Axes,
    mask: Tensor,
    players: Sequence[int],
    *,
    color: str = "black",
    width: float = 0.8,
    dashed: bool = False,
) -> None:
    """Draw a line around each of the players.

    Args:
        ax (Axes): Axes that show the image.
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        players (Sequence[int]): Ids of the players.
        color (str, optional): Color of the lines.
            Default: ``"black"``
        width (float, optional): Width of the lines in points.
            Default: 0.8
        dashed (bool, optional): Whether the lines are dashed.
            Default: False
    """
    lines = LineCollection(
        list(outline(mask, players)),
        colors=color,
        linewidths=width,
        linestyles="dashed" if dashed else "solid",
        capstyle="butt" if dashed else "projecting",
    )
    ax.add_collection(lines, autolim=False)


def outline(mask: Tensor, players: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the straight lines that surround each of the players.

    Args:
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        players (Sequence[int]): Ids of the players.

    Returns:
        ndarray: ``x`` and ``y`` of both ends of each line. The center of the first pixel is (0, 0). Shape ``(L, 2,
        2)``, float64.
    """
    # The number of each pixel's player, or 0 outside of all players and of the image. Lines separate different numbers.
    numbers = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), dtype=np.int64)
    for number, player in enumerate(players, 1):
        numbers[1:-1, 1:-1][(mask == player).numpy()] = number
    upright = _runs(numbers[1:-1, 1:].T != numbers[1:-1, :-1].T)
    level = _runs(numbers[1:, 1:-1] != numbers[:-1, 1:-1])
    return np.concatenate([upright, level[:, :, ::-1]]) - 0.5


def _runs(is_edge: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the runs of edges in each row: row and column of the first edge, row and column after the last edge.

    Args:
        is_edge (ndarray): Shape ``(rows, columns)``, bool.

    Returns:
        ndarray: Shape ``(runs, 2, 2)``, float64.
    """
    changes = np.diff(np.pad(is_edge, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    # Both lists are sorted by row and column, so the n-th start belongs to the n-th end.
    return np.stack([np.argwhere(changes == 1), np.argwhere(changes == -1)], axis=1).astype(np.float64)


def center_of(mask: Tensor, player: int) -> tuple[float, float]:
    """Return the mean ``(x, y)`` of the pixels of a player."""
    y, x = (mask == player).nonzero().double().mean(0).tolist()
    return x, y


def corner_of(mask: Tensor, player: int) -> tuple[int, int]:
    """Return the ``(x, y)`` of the pixel of a player that is closest to the upper left corner of the image."""
    pixels = (mask == player).nonzero()
    y, x = pixels[pixels.sum(1).argmin()].tolist()
    return x, y


def _covered(mask: Tensor, players: Sequence[int]) -> Tensor:
    """Return whether each pixel belongs to one of the players. Shape ``(H, W, 1)``, bool."""
    return torch.isin(mask, torch.tensor(list(players), dtype=mask.dtype))[:, :, None]
