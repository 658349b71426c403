"""Plots of selections, comparisons and localizations, based on :mod:`captum.attr.visualization` and matplotlib.

Functions with an argument ``ax`` or ``axes`` draw into existing axes, or into a new figure if none are passed. All
functions that draw return the figure and its axes. Tensors are on the CPU. Images are ``(H, W, 3)`` float32 in [0, 1],
as returned by :meth:`captum_moxi.models.ImageClassifier.to_images`. Feature masks are ``(H, W)`` int64 and contain the
player id of each pixel.
"""

from captum_moxi.plot.comparisons import show_comparison
from captum_moxi.plot.curves import plot_curves
from captum_moxi.plot.explanations import explanation_figure
from captum_moxi.plot.interactions import plot_interactions, show_links
from captum_moxi.plot.localizations import LocalizedClass, localization_figure
from captum_moxi.plot.patches import highlight_patches, patches_alone, show_heat_map, show_patches
from captum_moxi.plot.selections import flip_step, plot_path, show_path, show_steps
from captum_moxi.plot.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    AxesArray,
    LineStyle,
    canvas,
    figure_of,
    label_curves,
    line_style,
    patches_label,
    save_figure,
)

__all__ = [
    "BLACK",
    "BLUE",
    "GREEN",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILION",
    "AxesArray",
    "LineStyle",
    "LocalizedClass",
    "canvas",
    "explanation_figure",
    "figure_of",
    "flip_step",
    "highlight_patches",
    "label_curves",
    "line_style",
    "localization_figure",
    "patches_alone",
    "patches_label",
    "plot_curves",
    "plot_interactions",
    "plot_path",
    "save_figure",
    "show_comparison",
    "show_heat_map",
    "show_links",
    "show_patches",
    "show_path",
    "show_steps",
]
