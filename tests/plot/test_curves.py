"""Plots of insertion and deletion curves."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from captum_moxi import Comparison
from captum_moxi.plot import plot_curves


def test_curves_are_means_over_examples(comparison: Comparison) -> None:
    figure, (insertion, deletion) = plot_curves(comparison, quantity="correct")
    plt.close(figure)
    assert [text.get_text() for text in deletion.get_legend().get_texts()] == ["up", "down", "mixed"]
    assert [line.get_ydata().tolist() for line in insertion.lines] == [[0, 0, 0.5], [0, 0.5, 1], [0, 0, 1]]
    # One player of 1, 1, 1 can be deleted. Of 0, 1, 2, the 2 must stay.
    assert [line.get_ydata().tolist() for line in deletion.lines] == [[1, 1, 0.5], [1, 0.5, 0], [1, 1, 0]]
    assert len({(line.get_color(), str(line.get_linestyle())) for line in insertion.lines}) == 3


def test_curves_draw_into_given_axes(comparison: Comparison) -> None:
    axes = Figure().subplots(1, 2)
    figure, panels = plot_curves(comparison, axes=axes)
    assert panels.tolist() == axes.tolist()
    assert figure is axes[0].figure


def test_curves_reject_an_unknown_quantity(comparison: Comparison) -> None:
    with pytest.raises(ValueError, match="quantity is 'areas'; pass one of 'confidences', 'correct', 'rewards'"):
        plot_curves(comparison, quantity="areas")


def test_curves_reject_a_wrong_number_of_axes(comparison: Comparison) -> None:
    with pytest.raises(ValueError, match="axes contains 1 Axes, but the comparison has 2 modes"):
        plot_curves(comparison, axes=[Figure().add_subplot()])
