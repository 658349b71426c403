"""Colors, line styles and figure helpers that all plots share.

The colors are the palette of Okabe and Ito, which people with color vision deficiency can distinguish. Wherever a color
has a meaning, a hatch, a dash or a number has the same meaning, so that figures can be printed in grayscale.
"""

import os
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib import rc_context, rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

from captum_moxi.arguments import Mode, SearchMode
from captum_moxi.files import write_file

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
BLACK = "#000000"

# Colormap of scores. Its brightness rises with the score, so the order remains visible in grayscale.
HEAT_COLORS = "viridis"

DashPattern = tuple[int, tuple[int, ...]]
AxesArray = npt.NDArray[np.object_]

# How a picture shows absent players, if the removal does not fill them.
GRAY_NOTE = "gray patches are absent"

POINTS_PER_INCH = 72

# Space between the title, the axes and the text below, in inches.
LINE_PAD = 0.09

_LINE_COLORS = (VERMILION, BLUE, BLACK, GREEN, ORANGE, PURPLE, SKY)
_DASHES: tuple[str | DashPattern, ...] = (
    *("-", "--", "-.", ":"),
    *((0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1))),
)


class LineStyle(TypedDict):
    """Keyword arguments of :meth:`matplotlib.axes.Axes.plot` that set the style of a line."""

    color: str
    linestyle: str | DashPattern
    linewidth: float


def line_style(index: int, *, dash: int | None = None) -> LineStyle:
    """Return the style of the line with a given index. The first line is the widest.

    The first 14 styles are distinct. This is also true if ``dash`` is fixed, because the eighth and all following lines
    are then thinner.

    Args:
        index (int): Index of the line, counted from 0.
        dash (int, optional): Index of the dash pattern. Use it to encode a second property, for example color for
            the method and dash for the run.
            Default: None, derived from ``index``

    Returns:
        LineStyle: Keyword arguments for :meth:`matplotlib.axes.Axes.plot`.
    """
    cycle, color = divmod(index, len(_LINE_COLORS))
    pattern = index + cycle if dash is None else dash
    thin = dash is not None and cycle > 0
    return {
        "color": _LINE_COLORS[color],
        "linestyle": _DASHES[pattern % len(_DASHES)],
        "linewidth": 2.2 if index == 0 else 0.6 if thin else 1.3,
    }


def label_curves(ax: Axes, mode: Mode, *, ylabel: str) -> None:
    """Label axes that show curves over fractions of players.

    The title states the mode and whether higher or lower is better.

    Args:
        ax (Axes): Axes to label.
        mode (str): ``"insertion"`` or ``"deletion"``.
        ylabel (str): Label of the vertical axis.
    """
    ax.set_xlabel(patches_label(mode), fontsize=9)
    ax.xaxis.set_major_formatter(lambda fraction, _: f"{100 * fraction:.3g}%")
    ax.set_ylabel(ylabel, fontsize=9)
    ax.set_title(f"{mode}: {'higher' if mode == 'insertion' else 'lower'} is better", fontsize=10)
    ax.tick_params(labelsize=8)


def patches_label(mode: SearchMode) -> str:
    """Return the axis label for the number of patches that were inserted, deleted, or chosen by symmetric search."""
    return {"insertion": "patches inserted", "deletion": "patches deleted", "symmetric": "patches chosen"}[mode]


def count_patches(count: int) -> str:
    """Return the number of patches in words, for example ``"1 patch"`` or ``"2 patches"``."""
    return f"{count} patch{'' if count == 1 else 'es'}"


def describe(figure: Figure, *, title: str, reading: str, fontsize: float = 11) -> None:
    """Write what a figure shows above it, and how to read it below it, in small text.

    Long text is broken into lines that fit the width of the figure. Functions that draw a figure call this function
    last, because it also shows the dollar signs in all text of the figure, see :func:`show_dollar_signs`.

    Args:
        figure (Figure): Figure with a constrained layout.
        title (str): What the figure shows.
        reading (str): How to read the figure.
        fontsize (float, optional): Size of the title in points. The other text is smaller by 3 points.
            Default: 11
    """
    layout = figure.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):
        layout.set(h_pad=LINE_PAD)
    width = 0.96 * figure.get_figwidth()
    figure.suptitle(
        wrap_text(title, width=width, fontsize=fontsize, weight="bold"), fontsize=fontsize, fontweight="bold"
    )
    figure.supxlabel(wrap_text(reading, width=width, fontsize=fontsize - 3), fontsize=fontsize - 3, color="0.3")
    show_dollar_signs(figure)


def show_dollar_signs(artist: Artist) -> None:
    """Show the dollar signs in the text of a figure, of axes or of a part of them, instead of reading formulas.

    Names of files and classes may contain dollar signs. Text without them does not change, so that formulas can still
    be added to the figure.

    Args:
        artist (Artist): Figure, axes or part of them.
    """
    # matplotlib's setting text.parse_math would change the figures of other threads.
    for text in artist.findobj(Text):
        if isinstance(text, Text) and "$" in text.get_text():
            text.set_parse_math(False)


def wrap_text(text: str, *, width: float, fontsize: float, weight: str = "normal") -> str:
    """Break text into lines that fit a width in the default font.

    Args:
        text (str): Text. Its own line breaks are kept.
        width (float): Width in inches. A word may be broken if it is wider.
        fontsize (float): Size of the text in points.
        weight (str, optional): Weight of the font.
            Default: ``"normal"``

    Returns:
        str: Text with line breaks.
    """
    font = FontProperties(size=fontsize, weight=weight)
    return "\n".join(_wrap_line(line, width=width * POINTS_PER_INCH, font=font) for line in text.splitlines())


def _wrap_line(line: str, *, width: float, font: FontProperties) -> str:
    """Break a line after the largest number of characters with which all parts fit the width in points."""
    line_width = _text_width(line, font)
    if line_width <= width:
        return line
    # Some characters are narrower than the average, so the first guess is generous.
    characters = int(1.3 * len(line) * width / line_width)
    while characters > 1 and max(_text_width(part, font) for part in wrap(line, characters)) > width:
        characters -= 1
    return "\n".join(wrap(line, max(1, characters)))


def _text_width(text: str, font: FontProperties) -> float:
    """Return the width of a line of text in points."""
    # The extents of a TextPath take much longer, because they solve an equation for each curve of the letters.
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width)


def add_colorbar(
    figure: Figure, ax: Axes, mappable: ScalarMappable, *, label: str, ticks: npt.NDArray[np.int64] | None = None
) -> None:
    """Add a thin colorbar to the right of axes that show an image.

    Args:
        figure (Figure): The figure.
        ax (Axes): Axes of the image.
        mappable (ScalarMappable): What the colorbar describes.
        label (str): Label of the colorbar.
        ticks (ndarray, optional): Values to label.
            Default: None, chosen by matplotlib
    """
    bar = figure.colorbar(mappable, ax=ax, ticks=ticks, fraction=0.046, pad=0.03)
    bar.ax.minorticks_off()
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Save a figure in print quality: 300 dpi, tight bounding box, text stored as text in PDF, PS and SVG.

    Args:
        figure (Figure): The figure.
        path (str or PathLike): Output file. The suffix selects the format. An existing file is replaced when the new
            one is complete.
    """
    path, contents = Path(path), BytesIO()
    file_format = path.suffix[1:] or rcParams["savefig.format"]
    with rc_context({"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"}):
        figure.savefig(contents, format=file_format, dpi=300, bbox_inches="tight")
    write_file(path if path.suffix else path.with_suffix(f".{file_format}"), contents.getvalue())


def canvas(ax: Axes | None, *, size: tuple[float, float] = (4, 4)) -> tuple[Figure, Axes]:
    """Return the axes to draw into together with their figure. Create both if ``ax`` is None.

    Args:
        ax (Axes or None): Existing axes.
        size (tuple[float, float], optional): Size of a new figure in inches.
            Default: (4, 4)

    Returns:
        tuple[Figure, Axes]: The figure and its axes.
    """
    return plt.subplots(figsize=size, layout="constrained") if ax is None else (figure_of(ax), ax)


def figure_of(ax: Axes) -> Figure:
    """Return the figure that contains the axes.

    Raises:
        ValueError: If the axes were removed from their figure.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("ax belongs to no figure; pass axes of a figure")
    return figure
