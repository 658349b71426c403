"""Galleries of a comparison: the patches that flip the prediction, for each image and method."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.arguments import Mode
from captum_moxi.comparison import Comparison
from captum_moxi.metrics import count_players_to_flip, skips_counts
from captum_moxi.plot.patches import DrawPlayers, draw_group, highlight_patches
from captum_moxi.plot.style import GRAY_NOTE, AxesArray, describe, figure_of, show_dollar_signs, wrap_text

# Explains the numbers of a gallery that start with ">".
UNFLIPPED_NOTE = "“>”: the patches in the picture do not flip the prediction"
# Explains the numbers of a gallery that start with "≤".
BOUND_NOTE = "“≤”: fewer patches may be enough, because smaller numbers were not evaluated"


def comparison_figure(
    images: Tensor,
    masks: Tensor,
    comparison: Comparison,
    *,
    mode: Mode = "insertion",
    draw: Sequence[DrawPlayers] | None = None,
    note: str = GRAY_NOTE,
    image_titles: Sequence[str] | None = None,
) -> Figure:
    """Draw the patches that flip the prediction into a figure with a title and a sentence on how to read it.

    Args:
        images (Tensor): Images, as in :func:`show_comparison`.
        masks (Tensor): Feature masks, as in :func:`show_comparison`.
        comparison (Comparison): Comparison, as in :func:`show_comparison`.
        mode (str, optional): ``"insertion"`` or ``"deletion"``.
            Default: ``"insertion"``
        draw (Sequence[Callable], optional): Draws what the model sees, as in :func:`show_comparison`.
            Default: None
        note (str, optional): How ``draw`` shows absent players.
            Default: ``"gray patches are absent"``
        image_titles (Sequence[str], optional): Titles of the images, as in :func:`show_comparison`.
            Default: None

    Returns:
        Figure: The figure, which is not registered with pyplot.
    """
    shape = _shape(comparison)
    figure = Figure(figsize=_figure_size(shape), layout="constrained")
    axes = figure.subplots(*shape, squeeze=False)
    show_comparison(images, masks, comparison, mode=mode, draw=draw, image_titles=image_titles, axes=axes)
    _describe(figure, comparison, [mode], note=note if draw or mode == "deletion" else None)
    return figure


def image_comparison_figure(
    image: Tensor,
    mask: Tensor,
    comparison: Comparison,
    *,
    draw: DrawPlayers,
    note: str,
    title: str,
    image_title: str = "image",
) -> Figure:
    """Draw the patches that flip the prediction for one image: one row for each mode, one column for each method.

    Args:
        image (Tensor): Image ``(H, W, 3)`` in [0, 1].
        mask (Tensor): Feature mask ``(H, W)`` int64: the player id of each pixel.
        comparison (Comparison): Result of :func:`captum_moxi.compare` on this image.
        draw (Callable): Draws what the model sees, for example the result of :func:`captum_moxi.plot.draw_from_game`.
        note (str): How ``draw`` shows absent players.
        title (str): Title of the figure.
        image_title (str, optional): Title of the image, for example its class.
            Default: ``"image"``

    Returns:
        Figure: The figure, which is not registered with pyplot.
    """
    modes = comparison.modes
    shape = (len(modes), 1 + len(comparison.methods))
    figure = Figure(figsize=_figure_size(shape), layout="constrained")
    for row, (mode, axes) in enumerate(zip(modes, figure.subplots(*shape, squeeze=False), strict=True)):
        titles = [mode if row else f"{mode}\n{image_title}"]
        show_comparison(
            image[None], mask[None], comparison, mode=mode, draw=[draw], image_titles=titles, axes=axes[None]
        )
    _describe(figure, comparison, modes, note=note, title=title)
    return figure


def show_comparison(
    images: Tensor,
    masks: Tensor,
    comparison: Comparison,
    *,
    mode: Mode = "insertion",
    draw: Sequence[DrawPlayers] | None = None,
    image_titles: Sequence[str] | None = None,
    axes: AxesArray | None = None,
) -> tuple[Figure, AxesArray]:
    """Draw the patches that flip the prediction, one row per image and one column per method.

    The layout is that of Figure 4 of the MoXI paper. The number below each picture is the number of patches. If the
    prediction does not flip, all patches of the curve are drawn, and their number is marked with ``>``. If fewer
    patches may flip the prediction, because the curve skips smaller numbers, the number is marked with ``≤``.

    Args:
        images (Tensor): Images ``(B, H, W, 3)`` in [0, 1].
        masks (Tensor): Feature masks ``(B or 1, H, W)`` int64, which contain the player id of each pixel.
        comparison (Comparison): Result of :func:`captum_moxi.compare` on these images.
        mode (str, optional): ``"insertion"`` shows the patches in color over a pale image. ``"deletion"`` fills them
            with gray.
            Default: ``"insertion"``
        draw (Sequence[Callable], optional): For each image, a function that draws what the model sees, for example the
            result of :func:`captum_moxi.plot.draw_from_game`. The gallery then shows the inputs of the model at the
            flip.
            Default: None
        image_titles (Sequence[str], optional): Title of each image, for example its true label. Long titles are broken
            into lines.
            Default: None, ``"image"`` above the first one
        axes (ndarray of Axes, optional): Axes ``(B, 1 + methods)`` to draw into. The first column shows the images.
            Default: None, a new figure

    Returns:
        tuple[Figure, ndarray of Axes]: The figure, and axes ``(B, 1 + methods)``.

    Raises:
        ValueError: If the number of images, masks or titles does not match the comparison, or if ``axes`` has a
            different shape.

    Examples::

        >>> comparison = compare(model, x, target=y, methods=["moxi", "random"])
        >>> show_comparison(classifier.to_images(x), patch_mask(224, 16)[0], comparison, mode="deletion")
    """
    _check_images(images, masks, comparison)
    if image_titles is not None and len(image_titles) != len(images):
        raise ValueError(
            f"image_titles has {len(image_titles)} titles for {len(images)} images; pass one for each image, or None"
        )
    methods = comparison.methods
    figure, grid = _grid(axes, shape=_shape(comparison))
    for example, image in enumerate(images):
        mask = masks[example if len(masks) > 1 else 0]
        grid[example, 0].imshow(image.numpy())
        write_below(grid[example, 0], "patches to flip:")
        for ax, method in zip(grid[example, 1:], methods, strict=True):
            players, caption = _flip_group(comparison, method, mode, example=example)
            if draw is None:
                picture = highlight_patches(image, mask, players, mode=mode)
            else:
                picture = draw_group(image, mask, players, keep=mode == "insertion", draw=draw[example])
            ax.imshow(picture.numpy(), interpolation="nearest")
            write_below(ax, caption)
    titles = ["image"] if image_titles is None else [wrap_text(title, width=1.3, fontsize=9) for title in image_titles]
    named_axes = [*zip(grid[:, 0], titles, strict=False), *zip(grid[0, 1:], methods, strict=True)]
    for ax, title in named_axes:
        # The axes may be the user's own, in which all other text remains as it is.
        show_dollar_signs(ax.set_title(title, fontsize=9))
    for ax in grid.ravel():
        ax.axis("off")
    if axes is None:
        _describe(figure, comparison, [mode], note=GRAY_NOTE if draw is None and mode == "deletion" else None)
    return figure, grid


def _shape(comparison: Comparison) -> tuple[int, int]:
    """Return the number of rows and columns of the gallery."""
    return len(comparison.n_players), 1 + len(comparison.methods)


def _check_images(images: Tensor, masks: Tensor, comparison: Comparison) -> None:
    n_examples = len(comparison.n_players)
    if len(images) != n_examples:
        raise ValueError(
            f"images has shape {tuple(images.shape)}, but the comparison has {n_examples} examples; pass one image for "
            "each example"
        )
    if len(masks) not in (1, n_examples):
        raise ValueError(
            f"masks has shape {tuple(masks.shape)}, but the comparison has {n_examples} examples; pass one mask for "
            "all examples, or one for each"
        )


def _figure_size(shape: tuple[int, int]) -> tuple[float, float]:
    """Return width and height of the figure in inches, with space for the title and the sentence below."""
    return 1.45 * shape[1], 1.75 * shape[0] + 1


_EVENTS: dict[Mode, str] = {
    "insertion": "inserted until the target is predicted",
    "deletion": "deleted until the target is lost",
}


def _describe(
    figure: Figure, comparison: Comparison, modes: Sequence[Mode], *, note: str | None, title: str | None = None
) -> None:
    events = ", or ".join(_EVENTS[mode] for mode in modes)
    counts = comparison.n_players.unique().tolist()
    patches = f"of the {counts[0]} patches" if len(counts) == 1 else "patches"
    sentences = [f"Below each picture: how many {patches} are {events}", "Fewer is better"]
    results = [result for result in comparison.results if result.mode in modes]
    if any(count_players_to_flip(result.curve).isnan().any() for result in results):
        sentences.append(UNFLIPPED_NOTE)
    if any(skips_counts(result.curve).any() for result in results):
        sentences.append(BOUND_NOTE)
    if note:
        sentences.append(f"{note[0].upper()}{note[1:]}")
    title = title or f"Patches up to the flip: {' and '.join(modes)}"
    describe(figure, title=title, reading=". ".join(sentences) + ".")


def _grid(axes: AxesArray | None, *, shape: tuple[int, int]) -> tuple[Figure, AxesArray]:
    if axes is None:
        figure, grid = plt.subplots(*shape, figsize=_figure_size(shape), layout="constrained", squeeze=False)
        # A caption belongs to the picture above it, so the next title is farther away. In inches.
        figure.set_layout_engine("constrained", h_pad=0.17)
        return figure, grid
    grid = np.asarray(axes, dtype=object)
    if grid.shape != shape:
        raise ValueError(f"axes has shape {grid.shape}; pass axes of shape {shape}, one row per image")
    return figure_of(grid[0, 0]), grid


def _flip_group(comparison: Comparison, method: str, mode: Mode, *, example: int) -> tuple[list[int], str]:
    """Return the players that flip the prediction, or all players of the curve, and a caption with their number."""
    result = comparison.of(method, mode)
    to_flip = comparison.players_to_flip(method, mode)[example]
    flips = not torch.isnan(to_flip)
    count = int(to_flip) if flips else int(result.curve.counts[example, -1])
    sign = ("≤ " if skips_counts(result.curve)[example] else "") if flips else "> "
    return result.order[example, :count].tolist(), f"{sign}{count}"


def write_below(ax: Axes, caption: str) -> None:
    """Write a caption below axes that show a picture.

    Args:
        ax (Axes): The axes.
        caption (str): The caption.
    """
    ax.text(0.5, -0.03, caption, transform=ax.transAxes, ha="center", va="top", fontsize=9)
