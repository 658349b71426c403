"""The bound on what a screened step may have missed."""

import math

import pytest
import torch
from torch import Tensor

from captum_moxi.search.missed import CONFIDENCE, extrapolation, largest_missed_gain


@pytest.mark.parametrize(
    ("tail", "count", "factor"),
    [
        # 2/3 * 1 / (2 + d) = 0.05
        (0.05, 2, 40 / 3 - 2),
        # 3/4 * 1 / (2 + d) * 2 / (3 + d) = 0.05, so (2 + d) (3 + d) = 30 = 5 * 6
        (0.05, 3, 3.0),
        # (2 + d) (3 + d) = 90 = 9 * 10
        (0.05 / 3, 3, 7.0),
        # Another draw is the largest of 20 with a probability of 1/20, and of 30 with less.
        (0.05, 19, 0.0),
        (0.05, 29, 0.0),
    ],
)
def test_factors_that_were_computed_by_hand(tail: float, count: int, factor: float) -> None:
    assert extrapolation(tail, count) == pytest.approx(factor, abs=1e-9)


def bound(errors: list[float], expected: list[float]) -> float:
    """The bound for audited candidates with these errors, and skipped candidates of which the screen expected this."""
    n_audited = len(errors)
    priorities = torch.tensor([[0.5] * n_audited + expected], dtype=torch.float64)
    gains = torch.full_like(priorities, torch.nan)
    gains[0, :n_audited] = 0.5 + torch.tensor(errors, dtype=torch.float64)
    audited = torch.arange(priorities.shape[1])[None] < n_audited
    return float(largest_missed_gain(priorities, gains, audited=audited, skipped=~audited))


def test_a_bound_that_was_computed_by_hand() -> None:
    # One skipped candidate: 3 ranges of 4 above the highest error of 4.
    assert bound([0.0, 2.0, 4.0], [1.0]) == pytest.approx(1 + 4 + 3 * 4)
    # Three skipped candidates share the 5%: 7 ranges. The highest estimate counts.
    assert bound([4.0, 0.0, 2.0], [-3.0, 1.0, 0.5]) == pytest.approx(1 + 4 + 7 * 4)


def test_equal_errors_give_the_highest_estimate_plus_the_error() -> None:
    assert bound([0.25] * 4, [1.0, 3.0]) == pytest.approx(3.25)


@pytest.mark.parametrize(
    ("errors", "expected"), [([], [1.0]), ([1.0], [1.0]), ([1.0, 2.0], []), ([1.0, math.inf], [1.0])]
)
def test_there_is_no_bound_without_two_finite_errors_and_a_skipped_candidate(
    errors: list[float], expected: list[float]
) -> None:
    assert math.isnan(bound(errors, expected))


def test_estimates_that_are_not_gains_give_no_bound() -> None:
    assert math.isnan(bound([1.0, 2.0, 3.0], [math.nan]))


def draw(distribution: str, draws: int, count: int) -> Tensor:
    """Independent draws of a distribution whose hazard rate does not decrease: ``(draws, count)``, float64."""
    uniform = torch.rand(draws, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return {
        "exponential": lambda: -7 * uniform.log() - 3,
        "normal": lambda: 5 * torch.special.ndtri(uniform) - 2,
        "uniform": lambda: uniform,
        "logistic": lambda: (uniform / (1 - uniform)).log(),
    }[distribution]()


def coverage(errors: Tensor, n_audited: int, spread: float) -> float:
    """How often all skipped candidates lie below the bound, if the first candidates are audited."""
    generator = torch.Generator().manual_seed(1)
    priorities = spread * torch.randn(errors.shape, generator=generator, dtype=torch.float64)
    gains = priorities + errors
    audited = (torch.arange(errors.shape[1]) < n_audited).expand(errors.shape)
    bounds = largest_missed_gain(priorities, gains.masked_fill(~audited, torch.nan), audited=audited, skipped=~audited)
    return float((gains[:, n_audited:] <= bounds[:, None]).all(1).double().mean())


def tolerance(draws: int) -> float:
    """Four standard deviations of a share of 95%."""
    return 4 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / draws)


@pytest.mark.parametrize("distribution", ["exponential", "normal", "uniform", "logistic"])
@pytest.mark.parametrize(("n_audited", "n_skipped"), [(2, 1), (4, 50), (16, 180), (30, 1)])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_bound_is_exceeded_no_more_often_than_stated(
    distribution: str, n_audited: int, n_skipped: int, spread: float
) -> None:
    errors = draw(distribution, 2000, n_audited + n_skipped)
    assert coverage(errors, n_audited, spread) >= CONFIDENCE - tolerance(2000)


@pytest.mark.parametrize("n_audited", [2, 5, 16])
def test_one_exponential_error_exceeds_the_bound_exactly_as_often_as_stated(n_audited: int) -> None:
    errors = draw("exponential", 10_000, n_audited + 1)
    assert coverage(errors, n_audited, 0.0) == pytest.approx(CONFIDENCE, abs=tolerance(10_000))
