"""Confidence intervals over images."""

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
# Number of draws that are held in memory together.
DRAWS_PER_CHUNK = 10**7


def bootstrap_band(
    values: NDArray[np.float64], *, resamples: int, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the 95 % interval of the mean over images with the percentile bootstrap (Efron, 1979).

    The resampled images depend only on their number and the seed, so all methods get the same resamples.

    Args:
        values (ndarray): ``(N, ...)``: values of N images.
        resamples (int): Number of resamples.
        seed (int, optional): Seed of the resamples.
            Default: 0

    Returns:
        tuple[ndarray, ndarray]: Lower and upper bounds ``(...)``.
    """
    n = len(values)
    generator = np.random.default_rng(seed)
    chunk = max(1, DRAWS_PER_CHUNK // n)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    # The number of times that each image is drawn follows a multinomial distribution.
    draws = (generator.multinomial(n, np.full(n, 1 / n), size) for size in sizes)
    means = np.concatenate([np.tensordot(counts, values, axes=1) / n for counts in draws])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high
