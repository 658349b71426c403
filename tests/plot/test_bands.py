"""95 % bands around mean curves."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from captum_moxi.plot.bands import describe_bands, draw_band


@pytest.mark.parametrize("n_images", [1, 2, 9])
def test_fewer_than_ten_images_have_no_band(n_images: int) -> None:
    ax = Figure().subplots()
    draw_band(ax, np.arange(3), np.random.default_rng(0).random((n_images, 3)), color="k", resamples=10)
    assert not ax.collections


@pytest.mark.parametrize("is_step", [False, True])
def test_the_band_of_ones_and_zeros_is_that_of_the_binomial_distribution(is_step: bool) -> None:
    # The 2.5 % quantile of the number of ones among ten fair coins is 2, and the 97.5 % quantile is 8.
    values = np.array([[0.0, 1.0], [1.0, 0.0]] * 5)
    ax = Figure().subplots()
    draw_band(ax, np.array([0.0, 1.0]), values, color="k", resamples=4000, is_step=is_step)
    (band,) = ax.collections
    (path,) = band.get_paths()
    assert {round(float(y), 6) for y in path.vertices[:, 1]} == {0.2, 0.8}


def test_the_sentences_say_which_lines_have_bands() -> None:
    assert "95 % intervals of all" in describe_bands("Bands: 95 % intervals of all", [10, 20])
    assert "for lines of at least 10 images" in describe_bands("Bands: 95 % intervals", [9, 10])
    few = describe_bands("Bands: 95 % intervals", [1, 9])
    assert "no 95 % bands" in few and "Bands:" not in few
