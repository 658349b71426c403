"""Plots of pairwise interactions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from captum_moxi.plot import plot_interactions, show_links

MATRIX = torch.tensor([[-1.0, 2.0, -0.5], [2.0, -3.0, 0.0], [-0.5, 0.0, 1.0]])
PLAYERS = [3, 0, 1]


def links_of(ax: Axes) -> list[Line2D]:
    """The lines between two patches. The other lines mark the patches."""
    return [line for line in ax.lines if len(line.get_xdata()) == 2]


def test_plot_interactions_shows_the_pairs_with_their_numbers() -> None:
    _, ax = plot_interactions(MATRIX, PLAYERS, title="pairs", ax=Figure().add_subplot())
    cells = ax.images[0].get_array()
    assert np.array_equal(cells.mask, np.eye(3))
    off_diagonal = ~np.eye(3, dtype=bool)
    assert np.array_equal(cells.data[off_diagonal], MATRIX.numpy()[off_diagonal])
    assert [text.get_text() for text in ax.texts][1:3] == ["+2.0", "-0.5"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["3", "0", "1"]
    assert ax.get_title() == "pairs"


def test_the_diagonal_shows_shapley_values_on_gray_and_does_not_affect_the_colors() -> None:
    _, ax = plot_interactions(MATRIX, PLAYERS, ax=Figure().add_subplot())
    assert [text.get_text() for text in ax.texts][::4] == ["+1.0", "+3.0", "-1.0"]
    assert [(patch.get_x(), patch.get_y()) for patch in ax.patches] == [(-0.5, -0.5), (0.5, 0.5), (1.5, 1.5)]
    assert {len(set(patch.get_facecolor()[:3])) for patch in ax.patches} == {1}
    assert "Shapley value" in ax.get_xlabel()
    # The strongest pair is 2, although a Shapley value is 3.
    assert ax.images[0].get_clim() == (-2, 2)


def test_numbers_below_one_have_two_digits_and_zero_has_no_sign() -> None:
    _, ax = plot_interactions(MATRIX / 10, PLAYERS, ax=Figure().add_subplot())
    assert [text.get_text() for text in ax.texts][:3] == ["+0.10", "+0.20", "-0.05"]
    assert [text.get_text() for text in ax.texts][5] == "0.00"


def test_links_are_solid_if_positive_dashed_if_negative_and_absent_if_zero(image: Tensor, mask: Tensor) -> None:
    _, ax = show_links(image, mask, matrix=MATRIX, players=PLAYERS, title="links", ax=Figure().add_subplot())
    links = links_of(ax)
    # Patch 0 to patch 3, then patch 1 to patch 3. Patches 0 and 1 do not interact.
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in links] == [
        ([0.5, 2.5], [0.5, 2.5]),
        ([2.5, 2.5], [0.5, 2.5]),
    ]
    assert [line.is_dashed() for line in links] == [False, True]
    assert links[0].get_linewidth() > links[1].get_linewidth()
    assert ax.get_title() == "links"


def test_weak_interactions_are_thin_or_omitted_although_no_stronger_one_exists(image: Tensor, mask: Tensor) -> None:
    weak = torch.tensor([[-0.1, 0.004, 0.1], [0.004, -0.1, -0.003], [0.1, -0.003, -0.1]])
    _, weak_ax = show_links(image, mask, matrix=weak, players=PLAYERS, ax=Figure().add_subplot())
    _, strong_ax = show_links(image, mask, matrix=10 * weak, players=PLAYERS, ax=Figure().add_subplot())
    (weak_link,) = links_of(weak_ax)
    assert weak_link.get_linewidth() < 1
    assert max(link.get_linewidth() for link in links_of(strong_ax)) > 4
    _, matrix_ax = plot_interactions(weak, PLAYERS, ax=Figure().add_subplot())
    assert matrix_ax.images[0].get_clim() == (-1, 1)


def test_plots_with_the_same_scale_are_comparable(image: Tensor, mask: Tensor) -> None:
    _, small = show_links(image, mask, matrix=MATRIX, players=PLAYERS, scale=4, ax=Figure().add_subplot())
    _, large = show_links(image, mask, matrix=2 * MATRIX, players=PLAYERS, scale=8, ax=Figure().add_subplot())
    _, capped = show_links(image, mask, matrix=MATRIX, players=PLAYERS, scale=0.5, ax=Figure().add_subplot())
    assert [link.get_linewidth() for link in links_of(small)] == [link.get_linewidth() for link in links_of(large)]
    assert len({link.get_linewidth() for link in links_of(capped)}) == 1
    assert [ax.get_legend().get_title().get_text() for ax in (small, large)] == [
        "interaction; widest line: 4",
        "interaction; widest line: 8",
    ]
    _, ax = plot_interactions(MATRIX, PLAYERS, scale=4, ax=Figure().add_subplot())
    assert ax.images[0].get_clim() == (-4, 4)


Draw = Callable[[Tensor, Tensor, list[int], float | None], tuple[Figure, Axes]]

DRAW: dict[str, Draw] = {
    "plot_interactions": lambda image, mask, players, scale: plot_interactions(MATRIX, players, scale=scale),
    "show_links": lambda image, mask, players, scale: show_links(
        image, mask, matrix=MATRIX, players=players, scale=scale
    ),
}


@pytest.mark.parametrize("name", DRAW)
def test_a_matrix_of_another_size_is_rejected(image: Tensor, mask: Tensor, name: str) -> None:
    with pytest.raises(ValueError, match=r"matrix has shape \(3, 3\) for 1 players; pass shape \(1, 1\)"):
        DRAW[name](image, mask, [1], None)


@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
@pytest.mark.parametrize("name", DRAW)
def test_a_scale_that_is_not_positive_is_rejected(image: Tensor, mask: Tensor, name: str, scale: float) -> None:
    with pytest.raises(ValueError, match=f"scale is {scale}; pass a positive number"):
        DRAW[name](image, mask, PLAYERS, scale)
