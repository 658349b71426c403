"""The figure of one explanation."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pytest
import torch
from selections import make_selection
from torch import Tensor

from captum_moxi.plot import explanation_figure


def test_an_explanation_has_the_image_and_four_plots_per_search(image: Tensor, mask: Tensor) -> None:
    selections = [
        make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9]),
        make_selection("deletion", [1], [0.2]),
    ]
    open_figures = plt.get_fignums()
    figure, axes = explanation_figure(image, mask, selections, target=0, title="a title", image_title="cat 0.9")
    figure.canvas.draw()
    assert len(axes) == 9
    assert figure.get_suptitle() == "a title"
    assert "gray patches are left out" in figure.get_supxlabel().replace("\n", " ")
    assert axes[0].get_title() == "cat 0.9"
    assert [axes[index].get_title() for index in (1, 2)] == [
        "insertion: 2 of 4 patches",
        "2 patches alone:\ntarget predicted",
    ]
    assert axes[6].get_title() == "without 0 patches:\ntarget lost"
    assert axes[3].lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.4, 0.9])
    assert plt.get_fignums() == open_figures


def test_an_explanation_shows_what_the_model_sees_at_the_flip(image: Tensor, mask: Tensor) -> None:
    selection = make_selection("deletion", [0, 1, 1], [0.9, 0.4, 0.1])
    present: list[list[int]] = []

    def draw(players: Sequence[int]) -> Tensor:
        present.append(list(players))
        return 1 - image

    figure, axes = explanation_figure(
        image, mask, [selection], target=0, outcomes=["cat 0.90 → dog 0.50"], draw=draw, note="the rest is inverted"
    )
    # The prediction flips after player 0 is deleted, although the search goes on.
    assert present == [[1, 2, 3]]
    assert torch.equal(torch.tensor(axes[2].images[0].get_array()), 1 - image)
    assert axes[2].get_title() == "without 1 patch:\ncat 0.90 → dog 0.50"
    assert "the rest is inverted" in figure.get_supxlabel().replace("\n", " ")


def test_an_explanation_says_that_the_prediction_does_not_flip(image: Tensor, mask: Tensor) -> None:
    selection = make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    _, axes = explanation_figure(image, mask, [selection], target=0, min_confidence=0.95)
    assert axes[2].get_title() == "2 patches alone:\nnot flipped"
