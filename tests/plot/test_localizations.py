"""The figure of a localization."""

from dataclasses import replace

import torch
from selections import make_selection
from torch import Tensor

from captum_moxi.plot import localization_figure


def test_a_localization_counts_the_patches_that_hide_and_support_each_class(image: Tensor, mask: Tensor) -> None:
    empty = make_selection("deletion", [0], [0.4])
    single = make_selection("deletion", [0, 1], [0.4, 0.1])
    unflipped = replace(make_selection("deletion", [0, 0, 0], [0.4, 0.1, 0.1]), flipped=torch.tensor([False]))
    heat = torch.rand(4, 4)
    results = [
        ("cat", heat, (empty, single)),
        ("dog", heat, (single, unflipped)),
        ("cow", 0 * heat, (unflipped, empty)),
    ]
    _, axes = localization_figure(image, mask, results)
    assert [ax.get_title() for ax in axes] == [
        "image",
        *("the image as it is", "cat: 1 patch"),
        *("without 1 patch\nthat opposes dog", "dog: 2 patches, not lost"),
        *("without 2 patches", "cow: never predicted"),
    ]
    without = torch.tensor(axes[3].images[0].get_array())
    assert torch.equal(without[mask != 0], image[mask != 0])
    assert (without[mask == 0] == 0.5).all()
