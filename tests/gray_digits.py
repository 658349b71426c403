"""Digits that a test can read without a trained model: gray images, the lighter the larger the digit."""

import torch
from torch import Tensor

from captum_moxi.experiments.digits import Digits, Mnist

STEP = 25
# The 0 is as black as an absent quarter.
DIGITS = Digits((STEP * torch.arange(10)).to(torch.uint8)[:, None, None].expand(10, 28, 28), torch.arange(10))
# Both parts of MNIST with one image per digit.
MNIST = Mnist(train=DIGITS, test=DIGITS)


def compose(digits: Tensor) -> Tensor:
    """Pictures ``(count, 56, 56)`` of digits ``(count, 4)``."""
    tiles = DIGITS.images[digits].reshape(-1, 2, 2, 28, 28)
    return tiles.permute(0, 1, 3, 2, 4).reshape(-1, 56, 56)


def read(pixel_values: Tensor) -> Tensor:
    """The digits ``(count, 4)`` of pixel values ``(count, 3, 56, 56)``."""
    gray = torch.stack([pixel_values[:, 0, y, x] for y in (10, 40) for x in (10, 40)], 1)
    return ((gray + 1) * 127.5 / STEP).round().long()
