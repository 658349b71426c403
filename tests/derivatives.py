"""Comparison of derivatives with differences."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


def check_derivatives(derivatives: Tensor, value: Callable[[Tensor], float], gates: Tensor) -> None:
    """Checks the derivatives ``(n,)`` of a function of gates ``(n,)`` float64 against central differences."""
    step = 1e-6
    for player in range(len(gates)):
        offset = torch.zeros(len(gates), dtype=torch.float64)
        offset[player] = step
        slope = (value(gates + offset) - value(gates - offset)) / (2 * step)
        assert float(derivatives[player]) == pytest.approx(slope, rel=2e-3, abs=2e-4)
