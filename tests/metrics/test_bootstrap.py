import numpy as np
import pytest

from captum_moxi.metrics import bootstrap
from captum_moxi.metrics.bootstrap import bootstrap_band, mean_with_interval


def test_the_band_contains_the_true_mean_as_often_as_its_level_says() -> None:
    generator = np.random.default_rng(1)
    contained = 0
    for seed in range(200):
        low, high = bootstrap_band(generator.normal(3, 2, (60, 1)), resamples=400, seed=seed)
        contained += int(low[0] <= 3 <= high[0])
    # A binomial variable with n = 200 and p = 0.95 lies in this range with a probability of 99.99 %.
    assert 175 <= contained <= 200


def test_the_band_of_equal_values_has_no_width() -> None:
    low, high = bootstrap_band(np.full((5, 2), 0.25), resamples=100)
    assert low.tolist() == pytest.approx([0.25, 0.25]) and high.tolist() == pytest.approx([0.25, 0.25])


def test_the_band_does_not_depend_on_the_number_of_draws_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(7, 3))
    band = bootstrap_band(values, resamples=50)
    monkeypatch.setattr(bootstrap, "DRAWS_PER_CHUNK", 30)
    np.testing.assert_allclose(bootstrap_band(values, resamples=50), band)


def test_the_mean_of_fewer_than_ten_images_has_no_interval() -> None:
    for n_images in (1, 2, 9):
        mean, low, high = mean_with_interval(np.full(n_images, 0.5), resamples=10)
        assert mean == 0.5 and np.isnan(low) and np.isnan(high)
    for n_images in (2, 10):
        assert np.isnan(mean_with_interval(np.array([np.nan] + [0.5] * (n_images - 1)), resamples=10)).all()


def test_the_interval_of_ones_and_zeros_is_that_of_the_binomial_distribution() -> None:
    # The number of ones in a resample is binomial with n = 10 and p = 1/2. It is at most 1 with a probability of 1.1 %,
    # and at most 2 with 5.5 %, so the quantile at 2.5 % is 2. The other one is 8.
    values = np.array([0.0, 1.0] * 5)
    assert mean_with_interval(values, resamples=4000) == pytest.approx((0.5, 0.2, 0.8))
