"""Images of patches, and heat maps."""

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from captum_moxi.plot import highlight_patches, patches_alone, show_heat_map, show_patches


def test_patches_alone_are_in_color_and_the_rest_is_gray(image: Tensor, mask: Tensor) -> None:
    alone = patches_alone(image, mask, [1])
    assert torch.equal(alone[:2, 2:], image[:2, 2:])
    assert (alone[2:] == 0.5).all()
    assert (alone[:2, :2] == 0.5).all()


def test_removed_patches_are_gray_and_the_rest_is_in_color(image: Tensor, mask: Tensor) -> None:
    without = patches_alone(image, mask, [1], keep=False)
    assert (without[:2, 2:] == 0.5).all()
    assert torch.equal(without[2:], image[2:])


def test_an_empty_group_is_all_gray(image: Tensor, mask: Tensor) -> None:
    assert (patches_alone(image, mask, []) == 0.5).all()


def test_inserted_patches_stand_out_from_a_faded_image(image: Tensor, mask: Tensor) -> None:
    highlighted = highlight_patches(image, mask, [1], mode="insertion")
    assert torch.equal(highlighted[:2, 2:], image[:2, 2:])
    faded = highlighted[2:]
    assert ((faded >= 0.75) & (faded <= 0.9)).all()
    assert torch.equal(faded, faded[..., :1].expand_as(faded))


def test_deleted_patches_are_highlighted_in_gray(image: Tensor, mask: Tensor) -> None:
    highlighted = highlight_patches(image, mask, [1], mode="deletion")
    assert torch.equal(highlighted, patches_alone(image, mask, [1], keep=False))


@pytest.mark.parametrize("keep", [True, False])
def test_show_patches_draws_the_patches_alone(image: Tensor, mask: Tensor, keep: bool) -> None:
    _, ax = show_patches(image, mask, [1, 2], keep=keep, ax=Figure().add_subplot())
    assert torch.equal(torch.tensor(ax.images[0].get_array()), patches_alone(image, mask, [1, 2], keep=keep))


def test_a_heat_map_without_scores_is_the_image(image: Tensor) -> None:
    _, ax = show_heat_map(image, torch.zeros(4, 4), ax=Figure().add_subplot())
    assert len(ax.images) == 1
    assert torch.equal(torch.tensor(ax.images[0].get_array()), image)
