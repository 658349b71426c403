"""Galleries of a comparison."""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from described import assert_described
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi import Comparison
from captum_moxi.arguments import Mode
from captum_moxi.plot import comparison_figure, show_comparison

MASKS = torch.tensor([[[0, 1, 2]]])
# Players that flip the prediction, by example and method. The first order of 0, 1, 2 does not reach the 2 in time.
CAPTIONS = [["2", "2", "2"], ["> 2", "1", "2"]]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 1, 3, 3)


@pytest.mark.parametrize("mode", ["insertion", "deletion"])
def test_a_gallery_counts_the_patches_that_flip_the_prediction(
    images: Tensor, comparison: Comparison, mode: Mode
) -> None:
    _, axes = show_comparison(images, MASKS, comparison, mode=mode, axes=Figure().subplots(2, 4))
    assert [[ax.texts[0].get_text() for ax in row[1:]] for row in axes] == CAPTIONS
    assert [ax.texts[0].get_text() for ax in axes[:, 0]] == ["patches to flip:"] * 2


def test_a_gallery_highlights_the_patches_that_flip_the_prediction(images: Tensor, comparison: Comparison) -> None:
    figure, axes = show_comparison(images, MASKS, comparison)
    plt.close(figure)
    assert axes.shape == (2, 4)
    assert torch.equal(torch.tensor(axes[1, 0].images[0].get_array()), images[1])
    highlighted = torch.tensor(axes[1, 2].images[0].get_array())
    assert torch.equal(highlighted[:, 2], images[1][:, 2])
    assert not torch.equal(highlighted[:, 1], images[1][:, 1])


def test_a_gallery_rejects_axes_of_another_shape(images: Tensor, comparison: Comparison) -> None:
    with pytest.raises(ValueError, match=r"axes has shape \(2, 2\); pass axes of shape \(2, 4\)"):
        show_comparison(images, MASKS, comparison, axes=Figure().subplots(2, 2))


def test_a_gallery_rejects_another_number_of_images_or_masks(images: Tensor, comparison: Comparison) -> None:
    with pytest.raises(ValueError, match=r"images has shape \(1, 1, 3, 3\), but the comparison has 2 examples"):
        show_comparison(images[:1], MASKS, comparison)
    with pytest.raises(ValueError, match=r"masks has shape \(3, 1, 3\), but the comparison has 2 examples"):
        show_comparison(images, MASKS.expand(3, -1, -1), comparison)


@pytest.mark.parametrize(("methods", "explained"), [(["up", "down"], True), (["down", "mixed"], False)])
def test_a_gallery_explains_predictions_that_do_not_flip(
    images: Tensor, comparison: Comparison, methods: list[str], explained: bool
) -> None:
    results = tuple(result for result in comparison.results if result.method in methods)
    figure = comparison_figure(images, MASKS, replace(comparison, results=results))
    assert_described(figure)
    # Only the order "up" has a caption with ">".
    assert ("“>”: the patches in the picture do not flip" in figure.get_supxlabel().replace("\n", " ")) == explained


@pytest.mark.parametrize(("mode", "present"), [("insertion", [2]), ("deletion", [0, 1])])
def test_a_gallery_shows_what_the_model_sees(
    images: Tensor, comparison: Comparison, mode: Mode, present: list[int]
) -> None:
    figure = comparison_figure(
        images,
        MASKS,
        comparison,
        mode=mode,
        draw=[lambda players, example=example: _seen(example, players) for example in (0, 1)],
        note="the rest is blurred",
    )
    # "down" flips example 1 with player 2 alone.
    picture = torch.tensor(figure.axes[4 + 2].images[0].get_array())
    assert torch.equal(picture, _seen(1, present))
    assert mode in figure.get_suptitle()
    assert figure.get_supxlabel().replace("\n", " ").endswith("The rest is blurred.")


def _seen(example: int, players: Sequence[int]) -> Tensor:
    """A picture that differs for each example and coalition."""
    return torch.full((1, 3, 3), 0.1 * example + 0.01 * sum(2**player for player in players))
