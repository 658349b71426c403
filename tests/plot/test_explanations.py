"""The figure of one explanation."""

import matplotlib.pyplot as plt
import pytest
import torch
from selections import make_selection
from torch import Tensor

from captum_moxi.plot import explanation_figure


def test_an_explanation_has_the_image_and_three_plots_per_search(image: Tensor, mask: Tensor) -> None:
    results = [
        (torch.rand(4, 4), make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])),
        (torch.zeros(4, 4), make_selection("deletion", [1], [0.2])),
    ]
    open_figures = plt.get_fignums()
    figure, axes = explanation_figure(image, mask, results, target=0, title="a title")
    figure.canvas.draw()
    assert len(axes) == 7
    assert figure.get_suptitle() == "a title"
    assert axes[2].get_title() == "2 of 4 alone: target predicted"
    assert axes[5].get_title() == "0 of 4 deleted: target lost"
    assert axes[3].lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.4, 0.9])
    assert plt.get_fignums() == open_figures


def test_an_explanation_says_that_the_prediction_does_not_flip(image: Tensor, mask: Tensor) -> None:
    selection = make_selection("insertion", [1, 1, 0], [0.1, 0.4, 0.9])
    _, axes = explanation_figure(image, mask, [(torch.rand(4, 4), selection)], target=0, min_confidence=0.95)
    assert axes[2].get_title() == "2 of 4 alone: not flipped"
