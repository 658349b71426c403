"""Fixtures of the plot tests: a small image with four patches, and a comparison."""

import pytest
import torch
from torch import Tensor

from captum_moxi import Comparison, compare, patch_mask
from captum_moxi.methods import Method


@pytest.fixture
def image() -> Tensor:
    """An image ``(4, 4, 3)``."""
    return torch.rand(4, 4, 3)


@pytest.fixture
def mask() -> Tensor:
    """The mask ``(4, 4)`` of four patches of 2 x 2 pixels."""
    return patch_mask(4, 2)[0, 0]


@pytest.fixture(scope="session")
def comparison() -> Comparison:
    """Three orders of the three players of two examples.

    Class 1 is predicted if the present values sum to more than 1.5: two of the values 1, 1, 1, or the 2 of 0, 1, 2.
    """
    x = torch.tensor([[1.0, 1, 1], [0, 1, 2]])

    def model(x: Tensor) -> Tensor:
        return torch.stack([torch.full((len(x),), 1.5), x.sum(1)], 1)

    methods = [
        Method("up", lambda game, mode, *, n_steps, stop: torch.tensor([[0, 1, 2]] * 2)),
        Method("down", lambda game, mode, *, n_steps, stop: torch.tensor([[2, 1, 0]] * 2)),
        Method("mixed", lambda game, mode, *, n_steps, stop: torch.tensor([[0, 1, 2], [0, 2, 1]])),
    ]
    return compare(model, x, target=1, methods=methods, fractions=[0, 1 / 3, 2 / 3])
