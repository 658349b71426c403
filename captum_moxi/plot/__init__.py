"""Plots of selections, attributions, comparisons and localizations, based on matplotlib.

:func:`show` draws any result in one line. The other functions offer more control.

Functions with an argument ``ax`` or ``axes`` draw into existing axes, or into a new figure if none are passed. All
functions that draw return the figure and its axes. A new figure has a title that says what it shows, and a sentence
below on how to read it. Tensors are on the CPU. Images are ``(H, W, 3)`` float32 in [0, 1], as returned by
:meth:`captum_moxi.models.ImageClassifier.to_images`. Feature masks are ``(H, W)`` int64 and contain the player id of
each pixel.
"""

from captum_moxi.plot.alternatives import alternatives_figure
from captum_moxi.plot.comparisons import (
    UNFLIPPED_NOTE,
    comparison_figure,
    image_comparison_figure,
    show_comparison,
    write_below,
)
from captum_moxi.plot.curves import CURVES_READING, plot_curve, plot_curves
from captum_moxi.plot.explanations import explanation_figure
from captum_moxi.plot.interactions import plot_interactions, show_links
from captum_moxi.plot.localizations import LocalizedClass, localization_figure
from captum_moxi.plot.patches import (
    DrawPlayers,
    draw_from_game,
    faded,
    heat_picture,
    highlight_patches,
    patches_alone,
    show_heat_map,
    show_patches,
)
from captum_moxi.plot.replays import replays_figure
from captum_moxi.plot.selections import flip_step, minimal_label, plot_path, show_path, show_steps
from captum_moxi.plot.show import show
from captum_moxi.plot.style import (
    BLACK,
    BLUE,
    GRAY_NOTE,
    GREEN,
    HEAT_COLORS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    AxesArray,
    LineStyle,
    canvas,
    count_patches,
    describe,
    figure_of,
    label_curves,
    line_style,
    patches_label,
    save_figure,
)

__all__ = [
    "BLACK",
    "BLUE",
    "CURVES_READING",
    "GRAY_NOTE",
    "GREEN",
    "HEAT_COLORS",
    "ORANGE",
    "PURPLE",
    "SKY",
    "UNFLIPPED_NOTE",
    "VERMILION",
    "AxesArray",
    "DrawPlayers",
    "LineStyle",
    "LocalizedClass",
    "alternatives_figure",
    "canvas",
    "comparison_figure",
    "count_patches",
    "describe",
    "draw_from_game",
    "explanation_figure",
    "faded",
    "figure_of",
    "flip_step",
    "heat_picture",
    "highlight_patches",
    "image_comparison_figure",
    "label_curves",
    "line_style",
    "localization_figure",
    "minimal_label",
    "patches_alone",
    "patches_label",
    "plot_curve",
    "plot_curves",
    "plot_interactions",
    "plot_path",
    "replays_figure",
    "save_figure",
    "show",
    "show_comparison",
    "show_heat_map",
    "show_links",
    "show_patches",
    "show_path",
    "show_steps",
    "write_below",
]
