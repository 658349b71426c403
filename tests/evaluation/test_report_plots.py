from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from described import assert_described
from handmade_runs import explained, write_full_run, write_run
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_moxi.evaluation.curves import RunCurve, read_run_curves
from captum_moxi.evaluation.report_plots import FIGURES, line_styles


def looks(ax: Axes) -> list[tuple[object, object]]:
    return [(line.get_color(), line.get_linestyle()) for line in ax.get_lines()]


@pytest.mark.parametrize("plot", FIGURES.values(), ids=FIGURES)
def test_a_method_has_the_same_line_in_every_panel(plot: Callable[..., Figure | None], tmp_path: Path) -> None:
    rows = [explained("a", name, "deletion", "xx---", [1.0, 0.5, 0.0, 0.0, 0.0]) for name in ("Random", "MoXI")]
    curves = [
        *read_run_curves(write_full_run(tmp_path / "run")),
        *read_run_curves(write_run(tmp_path / "other", rows)),
    ]
    figure = plot(curves, styles=line_styles(curves), resamples=50)
    assert figure is not None
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["MoXI, run", "Random, other", "MoXI, other"]
    first, second, third = [(line.get_color(), line.get_linestyle()) for line in legend.get_lines()]
    # The color and the marker stand for the method, and the dash for the run.
    assert first[0] == third[0] != second[0] and first[1] != second[1] == third[1]
    markers = [line.get_marker() for line in legend.get_lines()]
    assert markers[0] == markers[2] != markers[1]
    inserted, deleted = figure.axes[:2]
    assert looks(inserted) == [first] and looks(deleted) == [first, second, third]


def test_many_methods_and_runs_have_distinct_lines(tmp_path: Path) -> None:
    curve, *_ = read_run_curves(write_full_run(tmp_path / "run"))

    def renamed(run: str, method: str) -> RunCurve:
        return replace(curve, run=run, result=replace(curve.result, method=method))

    curves = [renamed(run, str(method)) for run in "ab" for method in range(14)]
    for shown in (curves, curves[:14]):
        styles = line_styles(shown).values()
        distinct = {tuple(value for name, value in style.items() if name != "label") for style in styles}
        assert len(distinct) == len(shown)


@pytest.mark.parametrize("modes", [["insertion"], ["insertion", "deletion"]], ids=["one mode", "both modes"])
@pytest.mark.parametrize("plot", FIGURES.values(), ids=FIGURES)
def test_a_figure_says_what_it_shows_and_how_to_read_it(
    plot: Callable[..., Figure | None], modes: list[str], tmp_path: Path
) -> None:
    curves = [curve for curve in read_run_curves(write_full_run(tmp_path / "run")) if curve.mode in modes]
    methods = [replace(curve, result=replace(curve.result, method=f"Method {n}")) for n in range(9) for curve in curves]
    figure = plot(methods, styles=line_styles(methods), resamples=50)
    assert figure is not None
    assert_described(figure)
    assert figure.get_suptitle().replace("\n", " ").endswith(": 2 images")


@pytest.mark.parametrize("copies", [1, 4, 5])
@pytest.mark.parametrize("plot", FIGURES.values(), ids=FIGURES)
def test_bands_need_ten_images(plot: Callable[..., Figure | None], copies: int, tmp_path: Path) -> None:
    curves = read_run_curves(write_full_run(tmp_path / "run", copies=copies))
    figure = plot(curves, styles=line_styles(curves), resamples=50)
    assert figure is not None
    has_bands = copies == 5
    assert all(len(ax.collections) == (len(ax.lines) if has_bands else 0) for ax in figure.axes)
    reading = figure.get_supxlabel().replace("\n", " ")
    assert ("Bands: 95 % intervals." in reading) == has_bands
    assert ("They have no 95 % bands" in reading) == (not has_bands)


def test_the_title_gives_the_numbers_of_images_of_all_runs(tmp_path: Path) -> None:
    rows = [explained("a", "MoXI", "insertion", "-xxxx", [0.0, 0.5, 0.5, 0.5, 1.0])]
    one = read_run_curves(write_run(tmp_path / "one", rows))
    both = one + read_run_curves(write_full_run(tmp_path / "run"))
    for plot in FIGURES.values():
        for curves, numbers in ((one, "1 image"), (both, "1 to 2 images")):
            figure = plot(curves, styles=line_styles(curves), resamples=50)
            assert figure is not None and figure.get_suptitle().replace("\n", " ").endswith(f": {numbers}")
