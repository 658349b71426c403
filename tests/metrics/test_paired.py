import itertools

import numpy as np
import pytest

from captum_moxi.metrics.paired import paired_difference

pytest.importorskip("scipy")


def exact_p_value(differences: list[float]) -> float:
    """The two-sided p-value of the signed-rank test, by enumeration of all signs. The magnitudes are different."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    observed = min(ranks[np.array(differences) > 0].sum(), ranks[np.array(differences) < 0].sum())
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return min(1.0, 2 * float(np.mean(np.array(sums) <= observed)))


def test_ten_images_on_which_one_method_is_better() -> None:
    """Only 2 of the 2**10 assignments of signs are as extreme: all positive or all negative."""
    moxi, other = np.linspace(0.5, 0.95, 10), np.full(10, 0.25)
    result = paired_difference(moxi, other)
    assert result.mean == pytest.approx(0.475) and result.p_value == pytest.approx(2 / 2**10)
    assert 0.25 < result.low < 0.475 < result.high < 0.7
    swapped = paired_difference(other, moxi)
    assert (swapped.mean, swapped.p_value) == (pytest.approx(-0.475), pytest.approx(2 / 2**10))
    assert (swapped.low, swapped.high) == (pytest.approx(-result.high), pytest.approx(-result.low))


def test_the_p_value_is_that_of_all_assignments_of_signs() -> None:
    generator = np.random.default_rng(0)
    for shift in (0.0, 0.5, 1.0):
        differences = generator.normal(shift, 1, 11)
        result = paired_difference(differences, np.zeros(11), resamples=10)
        assert result.p_value == pytest.approx(exact_p_value(differences.tolist()))


def test_equal_differences_of_a_few_images_have_the_exact_p_value() -> None:
    """Five images differ by 1, and five do not differ. Of 2**5 assignments of signs, 2 are as extreme."""
    assert paired_difference(np.repeat([1.0, 0.0], 5), np.zeros(10), resamples=10).p_value == pytest.approx(2 / 2**5)


def test_the_interval_of_ones_and_zeros_is_that_of_the_binomial_distribution() -> None:
    # As for the mean in test_bootstrap.py: a resample has 2 to 8 images with difference 1 with a probability of 95 %.
    result = paired_difference(np.array([0.75, 0.25] * 5), np.array([-0.25, 0.25] * 5), resamples=4000)
    assert (result.mean, result.low, result.high) == (pytest.approx(0.5), pytest.approx(0.2), pytest.approx(0.8))


def test_a_method_does_not_differ_from_itself() -> None:
    values = np.random.default_rng(0).random(12)
    for same in (values, values + np.float32(1e-8), values.astype(np.float32).astype(np.float64)):
        result = paired_difference(values, same, resamples=50)
        assert (result.mean, result.low, result.high, result.p_value) == (0, 0, 0, 1)


def test_the_arguments_do_not_change() -> None:
    values, other = np.full(10, 0.5), np.full(10, 0.5 + 1e-9)
    paired_difference(values, other, resamples=10)
    assert values.tolist() == [0.5] * 10 and other.tolist() == [0.5 + 1e-9] * 10


@pytest.mark.parametrize(
    ("values", "other", "message"),
    [
        (np.zeros(10), np.zeros(11), "shapes"),
        (np.zeros((10, 1)), np.zeros((10, 1)), "shapes"),
        (np.zeros(9), np.zeros(9), "at least 10"),
        (np.full(10, np.nan), np.zeros(10), "finite"),
        (np.zeros(10), np.full(10, np.inf), "finite"),
    ],
)
def test_values_without_a_test_are_rejected(values: np.ndarray, other: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(values, other)
