"""The figures of a report.

To add a figure, write a function that draws it from the curves, and add the function to ``FIGURES``.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from captum_moxi.evaluation.curves import RunCurve
from captum_moxi.plot.bands import describe_bands, draw_band
from captum_moxi.plot.curves import GOOD_ORDER
from captum_moxi.plot.style import LineStyle, describe, label_curves, line_style

# Size of a panel and of the legend, and height of the title and the sentence on how to read the figure, in inches.
PANEL_WIDTH = 4.6
PANEL_HEIGHT = 2.9
LEGEND_WIDTH = 1.4
TEXT_HEIGHT = 1.0

# Entries of the legend in each of its columns.
ENTRIES_PER_COLUMN = 16

# Markers of the methods, and their distance relative to the diagonal of a panel.
MARKERS = "os^DvPX<>*pHdh"
MARKER_DISTANCE = 0.12


class LabeledStyle(LineStyle):
    """Keyword arguments of :meth:`matplotlib.axes.Axes.plot` that set the style and the label of a line."""

    label: str
    marker: str
    markersize: float
    markevery: float


# Style of each line, by run and method.
Styles: TypeAlias = dict[tuple[str, str], LabeledStyle]


def line_styles(curves: Sequence[RunCurve]) -> Styles:
    """Choose a line style for each run and method.

    If there are several runs, the color and the marker stand for the method, and the dash for the run.

    Args:
        curves (Sequence[RunCurve]): All curves of a report.

    Returns:
        dict[tuple[str, str], LabeledStyle]: Style by run and method.
    """
    runs = list(dict.fromkeys(curve.run for curve in curves))
    methods = list(dict.fromkeys(curve.method for curve in curves))
    styles: Styles = {}
    for curve in curves:
        run, method = runs.index(curve.run), methods.index(curve.method)
        if len(runs) == 1:
            label, style = curve.method, line_style(method)
        elif len(methods) == 1:
            label, style = curve.run, line_style(run)
        else:
            label, style = f"{curve.method}, {curve.run}", line_style(method, dash=run)
        marker = MARKERS[method % len(MARKERS)] if len(runs) > 1 and len(methods) > 1 else ""
        styles[curve.run, curve.method] = {
            "label": label,
            "marker": marker,
            "markersize": 5,
            "markevery": MARKER_DISTANCE,
            **style,
        }
    return styles


def plot_mean_curves(curves: Sequence[RunCurve], *, styles: Styles, resamples: int) -> Figure | None:
    """Draw accuracy and confidence over the fraction of players: means over images, from 10 images on with 95 % bands.

    Args:
        curves (Sequence[RunCurve]): Methods and modes. Each mode gets a column.
        styles (dict): Style by run and method.
        resamples (int): Number of bootstrap resamples for the bands.

    Returns:
        Figure or None: The figure, or None if all runs stopped at flips.
    """
    drawn = [curve for curve in curves if curve.curve is not None and len(curve.curve.fractions) > 1]
    if not drawn:
        return None
    modes = list(dict.fromkeys(curve.mode for curve in drawn))
    figure = _figure(rows=2, columns=len(modes))
    axes = figure.subplots(2, len(modes), squeeze=False, sharey="row")
    for column, mode in enumerate(modes):
        accuracy_ax, confidence_ax = axes[:, column]
        for run_curve in drawn:
            if run_curve.mode == mode and run_curve.curve is not None:
                style, fractions = styles[run_curve.run, run_curve.method], run_curve.curve.fractions.numpy()
                correct, confidences = run_curve.curve.correct.double(), run_curve.curve.confidences
                plot_band(accuracy_ax, fractions, correct.numpy(), style=style, resamples=resamples)
                plot_band(confidence_ax, fractions, confidences.numpy(), style=style, resamples=resamples)
        label_curves(accuracy_ax, mode, ylabel="accuracy")
        label_curves(confidence_ax, mode, ylabel="confidence in the target")
        confidence_ax.set_title("")
    for ax in axes.flat:
        ax.set_ylim(-0.02, 1.02)
    _add_legend(figure, drawn, styles=styles)
    describe(
        figure,
        title=f"Accuracy and confidence along the order of each method: {_count_images(drawn)}",
        reading=f"{_describe_lines(drawn)} {GOOD_ORDER}",
    )
    return figure


def plot_flips(curves: Sequence[RunCurve], *, styles: Styles, resamples: int) -> Figure:
    """Draw the fraction of images whose prediction flipped over the number of players.

    From 10 images on, the lines have 95 % bands.

    Args:
        curves (Sequence[RunCurve]): Methods and modes. Each mode gets a column.
        styles (dict): Style by run and method.
        resamples (int): Number of bootstrap resamples for the bands.

    Returns:
        Figure: The figure.
    """
    modes = list(dict.fromkeys(curve.mode for curve in curves))
    figure = _figure(rows=1, columns=len(modes))
    axes = figure.subplots(1, len(modes), squeeze=False, sharey=True)[0]
    for ax, mode in zip(axes, modes, strict=True):
        for curve in curves:
            if curve.mode == mode:
                counts = np.arange(curve.max_steps + 1)
                flipped = (curve.flip_counts.numpy()[:, None] <= counts).astype(np.float64)
                style = styles[curve.run, curve.method]
                plot_band(ax, counts, flipped, style=style, resamples=resamples, is_step=True)
        label_curves(ax, mode, ylabel="fraction of images flipped")
        ax.set_title(f"{mode}: higher is better", fontsize=10)
        ax.xaxis.set_major_formatter("{x:.0f}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylim(-0.02, 1.02)
    _add_legend(figure, curves, styles=styles)
    describe(
        figure,
        title=f"Predictions that flip along the order of each method: {_count_images(curves)}",
        reading=f"{_describe_lines(curves)} Flipped: the target is predicted (insertion), or no longer predicted "
        "(deletion). A good order flips predictions with few patches, so its line rises early.",
    )
    return figure


# Functions that draw the figures, by file name. Each is a function (curves, *, styles, resamples) -> Figure or None. It
# returns None if the curves do not contain the data of the figure.
FIGURES: dict[str, Callable[..., Figure | None]] = {"curves.png": plot_mean_curves, "flips.png": plot_flips}


def plot_band(
    ax: Axes,
    x: NDArray[np.float64] | NDArray[np.int64],
    values: NDArray[np.float64],
    *,
    style: LabeledStyle,
    resamples: int,
    is_step: bool = False,
) -> None:
    """Draw the mean over images, and its 95 % band from 10 images on.

    Args:
        ax (Axes): Axes to draw into.
        x (ndarray): Horizontal coordinates of P points. Shape ``(P,)``, float64 or int64.
        values (ndarray): Values of N images at the points. Shape ``(N, P)``, float64.
        style (LabeledStyle): Style of the line. The band has its color.
        resamples (int): Number of bootstrap resamples for the band.
        is_step (bool, optional): Whether to draw steps instead of a line.
            Default: False
    """
    ax.plot(x, values.mean(0), drawstyle="steps-post" if is_step else "default", **style)
    draw_band(ax, x, values, color=style["color"], resamples=resamples, is_step=is_step)


def _figure(*, rows: int, columns: int) -> Figure:
    size = (PANEL_WIDTH * columns + LEGEND_WIDTH, PANEL_HEIGHT * rows + TEXT_HEIGHT)
    return Figure(figsize=size, layout="constrained")


def _add_legend(figure: Figure, curves: Sequence[RunCurve], *, styles: Styles) -> None:
    """Add one legend for all panels to the right of them."""
    handles = {
        label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    labels = list(dict.fromkeys(styles[curve.run, curve.method]["label"] for curve in curves))
    figure.legend(
        handles=[handles[label] for label in labels],
        labels=labels,
        loc="outside right center",
        ncols=-(-len(labels) // ENTRIES_PER_COLUMN),
        fontsize=8,
        handlelength=3,
    )


def _describe_lines(curves: Sequence[RunCurve]) -> str:
    return describe_bands("Bands: 95 % intervals", [len(curve.images) for curve in curves])


def _count_images(curves: Sequence[RunCurve]) -> str:
    """Return the number of images in words, for example ``"1 image"``, or ``"4 to 6 images"`` for several runs."""
    counts = [len(curve.images) for curve in curves]
    fewest, most = min(counts), max(counts)
    numbers = str(most) if fewest == most else f"{fewest} to {most}"
    return f"{numbers} image{'' if most == 1 else 's'}"
