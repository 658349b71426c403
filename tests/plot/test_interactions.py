"""Plots of pairwise interactions."""

from collections.abc import Callable

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.plot import plot_interactions, show_links

MATRIX = torch.tensor([[-1.0, 2.0, -0.5], [2.0, -3.0, 0.0], [-0.5, 0.0, 1.0]])
PLAYERS = [3, 0, 1]


def test_plot_interactions_shows_the_matrix_with_its_numbers() -> None:
    _, ax = plot_interactions(MATRIX, PLAYERS, title="pairs", ax=Figure().add_subplot())
    assert torch.equal(torch.tensor(ax.images[0].get_array()), MATRIX.double())
    assert [text.get_text() for text in ax.texts][:3] == ["-1.0", "+2.0", "-0.5"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["3", "0", "1"]
    assert ax.get_title() == "pairs"


def test_links_are_solid_if_positive_dashed_if_negative_and_absent_if_zero(image: Tensor, mask: Tensor) -> None:
    _, ax = show_links(image, mask, matrix=MATRIX, players=PLAYERS, ax=Figure().add_subplot())
    links = [line for line in ax.lines if len(line.get_xdata()) == 2]
    # Patch 0 to patch 3, then patch 1 to patch 3. Patches 0 and 1 do not interact.
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in links] == [
        ([0.5, 2.5], [0.5, 2.5]),
        ([2.5, 2.5], [0.5, 2.5]),
    ]
    assert [line.is_dashed() for line in links] == [False, True]
    assert links[0].get_linewidth() > links[1].get_linewidth()


@pytest.mark.parametrize(
    "draw",
    [
        lambda image, mask: plot_interactions(MATRIX, [1]),
        lambda image, mask: show_links(image, mask, matrix=MATRIX, players=[1]),
    ],
    ids=["plot_interactions", "show_links"],
)
def test_a_matrix_of_another_size_is_rejected(
    image: Tensor, mask: Tensor, draw: Callable[[Tensor, Tensor], tuple[Figure, Axes]]
) -> None:
    with pytest.raises(ValueError, match=r"matrix has shape \(3, 3\) for 1 players; pass shape \(1, 1\)"):
        draw(image, mask)
