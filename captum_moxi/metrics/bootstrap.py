"""Confidence intervals over images."""

import math

import numpy as np
from numpy.typing import NDArray

# Confidence level of the intervals.
LEVEL = 0.95
# Minimum number of images of an interval. The resamples of a few images are hardly different from the images, so that
# the interval is too narrow: that of two images is at most their range, which contains the mean in half of all cases.
MIN_IMAGES = 10
# Maximum number of draws that are in memory at the same time.
DRAWS_PER_CHUNK = 10**7


def bootstrap_band(
    values: NDArray[np.float64], *, resamples: int, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the 95 % interval of the mean over images with the percentile bootstrap (Efron, 1979).

    The draws depend only on the number of images and the seed. All methods of a run therefore get the same resamples.

    Args:
        values (ndarray): Values of N images. Shape ``(N, ...)``, float64.
        resamples (int): Number of bootstrap resamples.
        seed (int, optional): Seed of the resamples.
            Default: 0

    Returns:
        tuple[ndarray, ndarray]: Lower and upper bounds. Shape ``(...)``, float64.
    """
    n_images = len(values)
    generator = np.random.default_rng(seed)
    chunk = max(1, DRAWS_PER_CHUNK // n_images)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    # The number of times that each image is drawn follows a multinomial distribution.
    draws = (generator.multinomial(n_images, np.full(n_images, 1 / n_images), size) for size in sizes)
    means = np.concatenate([np.tensordot(counts, values, axes=1) / n_images for counts in draws])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def mean_with_interval(values: NDArray[np.float64], *, resamples: int) -> tuple[float, float, float]:
    """Compute the mean over images and its 95 % interval, as in :func:`bootstrap_band`.

    Args:
        values (ndarray): Values of N images. Shape ``(N,)``, float64.
        resamples (int): Number of bootstrap resamples.

    Returns:
        tuple[float, float, float]: Mean, and lower and upper bound of the interval. The bounds are NaN if there are
        fewer than ``MIN_IMAGES`` images. All three are NaN if a value is.
    """
    mean = float(values.mean())
    if len(values) < MIN_IMAGES or math.isnan(mean):
        return mean, math.nan, math.nan
    low, high = bootstrap_band(values, resamples=resamples)
    return mean, float(low), float(high)
