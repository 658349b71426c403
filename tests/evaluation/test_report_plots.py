from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
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
    # The color stands for the method and the dash for the run.
    assert first[0] == third[0] != second[0] and first[1] != second[1] == third[1]
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
