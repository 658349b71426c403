"""The bound on what a screened step may have missed."""

import math

import pytest
import torch
from torch import Tensor

from captum_moxi.search.missed import CONFIDENCE, largest_missed_gain, student_t_quantile


@pytest.mark.parametrize(
    ("confidence", "degrees", "quantile"),
    # From printed tables of Student's t distribution, one-sided.
    [
        (0.95, 1, 6.314),
        (0.95, 2, 2.920),
        (0.95, 7, 1.895),
        (0.975, 10, 2.228),
        (0.99, 5, 3.365),
        (0.999, 7, 4.785),
        (0.9995, 30, 3.646),
    ],
)
def test_quantiles_are_those_of_printed_tables(confidence: float, degrees: int, quantile: float) -> None:
    assert student_t_quantile(1 - confidence, degrees) == pytest.approx(quantile, abs=6e-4)


@pytest.mark.parametrize("tail", [0.5, 0.2, 1e-3, 1e-7])
def test_one_and_two_degrees_of_freedom_have_closed_forms(tail: float) -> None:
    # Cauchy distribution, and t = (1 - 2 tail) sqrt(2 / (4 tail (1 - tail)))
    assert student_t_quantile(tail, 1) == pytest.approx(1 / math.tan(math.pi * tail), rel=1e-6, abs=1e-12)
    expected = (1 - 2 * tail) * math.sqrt(2 / (4 * tail * (1 - tail)))
    assert student_t_quantile(tail, 2) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def bound(errors: list[float], expected: list[float]) -> float:
    """The bound for audited candidates with these errors, and skipped candidates of which the screen expected this."""
    n_audited = len(errors)
    priorities = torch.tensor([[0.5] * n_audited + expected], dtype=torch.float64)
    gains = torch.full_like(priorities, torch.nan)
    gains[0, :n_audited] = 0.5 + torch.tensor(errors, dtype=torch.float64)
    audited = torch.arange(priorities.shape[1])[None] < n_audited
    return float(largest_missed_gain(priorities, gains, audited=audited, skipped=~audited))


def test_a_bound_that_was_computed_by_hand() -> None:
    # Mean 2, variance (4 + 0 + 4) / 2 = 4. One skipped candidate: t with 2 degrees of freedom at 5% is 2.920.
    assert bound([0.0, 2.0, 4.0], [1.0]) == pytest.approx(1 + 2 + 2 * math.sqrt(4 / 3) * 2.920, abs=2e-3)
    # Five skipped candidates share the 5%: t with 2 degrees of freedom at 1% is 6.965. The highest estimate counts.
    assert bound([0.0, 2.0, 4.0], [1.0, -3.0, 0.0, 0.5, 1.0]) == pytest.approx(
        1 + 2 + 2 * math.sqrt(4 / 3) * 6.965, abs=2e-3
    )


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


def simulate(errors: Tensor, n_audited: int) -> float:
    """How often all skipped candidates lie below the bound, if the first candidates are audited."""
    generator = torch.Generator().manual_seed(1)
    priorities = 3 * torch.randn(errors.shape, generator=generator, dtype=torch.float64)
    gains = priorities + errors
    audited = (torch.arange(errors.shape[1]) < n_audited).expand(errors.shape)
    bounds = largest_missed_gain(priorities, gains.masked_fill(~audited, torch.nan), audited=audited, skipped=~audited)
    return float((gains[:, n_audited:] <= bounds[:, None]).all(1).double().mean())


@pytest.mark.parametrize(("n_audited", "n_skipped"), [(2, 1), (2, 20), (4, 50), (8, 180), (16, 33)])
def test_normal_errors_exceed_the_bound_no_more_often_than_stated(n_audited: int, n_skipped: int) -> None:
    """The coverage is at least 95% by the theory. Four standard deviations of 4,000 draws are 1.4%."""
    draws = 4000
    generator = torch.Generator().manual_seed(0)
    errors = 5 * torch.randn(draws, n_audited + n_skipped, generator=generator, dtype=torch.float64) - 2
    tolerance = 4 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / draws)
    assert simulate(errors, n_audited) >= CONFIDENCE - tolerance


def test_one_skipped_candidate_with_equal_estimates_exceeds_the_bound_exactly_as_often_as_stated() -> None:
    """For one further draw, the prediction bound is exact, so a looser bound would fail here."""
    draws = 20_000
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(draws, 6, generator=generator, dtype=torch.float64)
    assert simulate(errors, 5) == pytest.approx(CONFIDENCE, abs=4 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / draws))
