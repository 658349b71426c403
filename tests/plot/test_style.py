"""Line styles, and figures in memory and on disk."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from selections import make_selection
from torch import Tensor

from captum_moxi import Comparison, Selection
from captum_moxi.plot import (
    AxesArray,
    DrawPlayers,
    explanation_figure,
    figure_of,
    line_style,
    plot_curves,
    plot_interactions,
    plot_path,
    save_figure,
    show_heat_map,
    show_links,
    show_patches,
    show_path,
    show_steps,
)
from captum_moxi.plot.style import wrap_text

Draw = Callable[[Tensor, Tensor, Selection], tuple[Figure, Axes | AxesArray]]

PLOTS: dict[str, Draw] = {
    "show_heat_map": lambda image, mask, selection: show_heat_map(image, torch.rand(4, 4)),
    "show_steps": lambda image, mask, selection: show_steps(image, mask, selection),
    "show_patches": lambda image, mask, selection: show_patches(image, mask, [0]),
    "show_path": lambda image, mask, selection: show_path(image, mask, selection),
    "plot_path": lambda image, mask, selection: plot_path(selection),
    "plot_interactions": lambda image, mask, selection: plot_interactions(torch.eye(2), [0, 1]),
    "show_links": lambda image, mask, selection: show_links(image, mask, matrix=torch.ones(2, 2), players=[0, 1]),
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_creates_a_figure_that_saves_in_print_quality(
    name: str, image: Tensor, mask: Tensor, tmp_path: Path
) -> None:
    figure, ax = PLOTS[name](image, mask, make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9]))
    plt.close(figure)
    assert set(np.ravel(ax)) <= set(figure.axes)
    assert figure.get_suptitle() and figure.get_supxlabel()
    for suffix in ("png", "pdf"):
        save_figure(figure, tmp_path / f"plot.{suffix}")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.info["dpi"][0] == pytest.approx(300, abs=1)
    # Type 3 fonts store glyphs as drawings instead of text.
    assert b"/Type3" not in (tmp_path / "plot.pdf").read_bytes()


@pytest.mark.parametrize("dash", [None, 0, 3])
def test_the_first_fourteen_line_styles_are_distinct(dash: int | None) -> None:
    styles = [line_style(index, dash=dash) for index in range(14)]
    assert len({tuple(style.values()) for style in styles}) == 14
    assert max(style["linewidth"] for style in styles[1:]) < styles[0]["linewidth"]


def test_axes_without_a_figure_are_rejected() -> None:
    figure = Figure()
    ax = figure.add_subplot()
    ax.remove()
    with pytest.raises(ValueError, match="ax belongs to no figure"):
        figure_of(ax)


@pytest.mark.parametrize("weight", ["normal", "bold"])
@pytest.mark.parametrize("text", ["WWWW MMMM " * 8, "illi " * 40, "ein Wort", "Donaudampfschifffahrtsgesellschaft" * 3])
def test_wrapped_text_fits_the_width(text: str, weight: str) -> None:
    figure = Figure(figsize=(8, 2), dpi=300)
    wrapped = wrap_text(text, width=1.5, fontsize=10, weight=weight)
    drawn = figure.text(0, 0, wrapped, fontsize=10, fontweight=weight)
    FigureCanvasAgg(figure).draw()
    # Rendered glyphs are aligned to pixels.
    assert drawn.get_window_extent().width <= 1.5 * 300 * 1.02
    assert wrapped.replace("\n", "").replace(" ", "") == text.replace(" ", "")


def test_wrapping_keeps_line_breaks_and_short_lines() -> None:
    assert wrap_text("a b\nc d", width=2, fontsize=10) == "a b\nc d"
    assert wrap_text("", width=2, fontsize=10) == ""


# Invalid as a formula.
DOLLARS = r"$x^{$ \$"


def test_names_with_dollar_signs_are_text_in_new_figures_and_in_those_of_the_user(
    image: Tensor, mask: Tensor, comparison: Comparison
) -> None:
    selection = make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    result = replace(comparison.results[0], method=DOLLARS)
    named = replace(comparison, results=(result,))
    own, axes = plt.subplots(1, 3)
    plot_path(selection, target_name=DOLLARS, axes=axes[:2])
    plot_curves(named, axes=axes[2:])
    axes[0].set_title("$x^2$")
    figures = [
        own,
        explanation_figure(image, mask, [selection], target=0, title=DOLLARS, target_name=DOLLARS)[0],
        plot_curves(named)[0],
        plot_interactions(torch.eye(2), [0, 1], title=DOLLARS)[0],
        show_links(image, mask, matrix=torch.ones(2, 2), players=[0, 1], title=DOLLARS)[0],
    ]
    for figure in figures:
        FigureCanvasAgg(figure).draw()
        plt.close(figure)
    # Formulas of the user are still read.
    assert axes[0].title.get_parse_math()


def test_figures_of_several_threads_do_not_change_settings_of_matplotlib(image: Tensor, mask: Tensor) -> None:
    # The name of the backend is not known before it is used.
    matplotlib.get_backend()
    settings = matplotlib.rcParams.copy()
    selection = make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    second_started, first_ended = Event(), Event()

    def draw_first(players: Sequence[int]) -> Tensor:
        assert second_started.wait(60)
        return image

    def draw_second(players: Sequence[int]) -> Tensor:
        second_started.set()
        assert first_ended.wait(60)
        return image

    def plot(draw: DrawPlayers) -> Figure:
        return explanation_figure(image, mask, [selection], target=0, title=DOLLARS, draw=draw)[0]

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(plot, draw_first)
        first.add_done_callback(lambda _: first_ended.set())
        second = threads.submit(plot, draw_second)
        for future in (first, second):
            FigureCanvasAgg(future.result()).draw()
    assert matplotlib.rcParams == settings
