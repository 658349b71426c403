"""Paired comparison of two methods that were measured on the same images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from captum_moxi.metrics.bootstrap import MIN_IMAGES, mean_with_interval

# Two values of an image are equal if they differ by at most this value: float32 confidences are not more precise.
ROUNDING = 1e-6
# Maximum number of assignments of signs for which the p-value is computed by enumeration.
ENUMERATED = 2**13


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference between two methods over the same images.

    Args:
        mean (float): Mean over the images of the first value minus the second.
        low (float): Lower end of the 95 % bootstrap interval of the mean.
        high (float): Upper end of this interval.
        p_value (float): Two-sided p-value of the Wilcoxon signed-rank test.
    """

    mean: float
    low: float
    high: float
    p_value: float


def paired_difference(
    values: NDArray[np.float64], other_values: NDArray[np.float64], *, resamples: int = 2000
) -> PairedDifference:
    """Compare two methods on the same images.

    The interval is the percentile bootstrap of the mean difference over images. The p-value is that of the Wilcoxon
    signed-rank test (Wilcoxon, 1945), as computed by ``scipy.stats.wilcoxon``: it tests whether the differences are
    symmetric around 0. Images with equal values are left out of the test. For up to 13 other images, the p-value is
    exact. If the values of all images are equal, it is 1.

    Args:
        values (ndarray): Values of N images. Shape ``(N,)``, float64.
        other_values (ndarray): Values of the other method on the same images. Shape ``(N,)``, float64.
        resamples (int, optional): Number of bootstrap resamples for the interval.
            Default: 2000

    Returns:
        PairedDifference: Mean difference, its interval, and the p-value.

    Raises:
        ValueError: If the shapes differ, if there are fewer than 10 images, or if a value is NaN or infinite.

    Examples::

        >>> paired_difference(moxi.area().numpy(), shapley.area().numpy())
    """
    if values.shape != other_values.shape or values.ndim != 1:
        raise ValueError(
            f"values and other_values have shapes {values.shape} and {other_values.shape}; pass one value for each "
            "image, in the same order"
        )
    if len(values) < MIN_IMAGES:
        raise ValueError(f"values has {len(values)} images; pass at least {MIN_IMAGES}")
    differences = values - other_values
    if not np.isfinite(differences).all():
        raise ValueError("values and other_values contain NaN or infinity; pass finite values")
    differences[np.abs(differences) <= ROUNDING] = 0
    return PairedDifference(
        *mean_with_interval(differences, resamples=resamples), p_value=_wilcoxon_p_value(differences)
    )


def _wilcoxon_p_value(differences: NDArray[np.float64]) -> float:
    # The import takes long, and only reports need it.
    from scipy.stats import PermutationMethod, wilcoxon

    changed = differences[differences != 0]
    if not len(changed):
        return 1.0
    # All assignments of signs to up to 13 differences are enumerated. This is exact, even if differences are equal.
    is_small = 2 ** len(changed) <= ENUMERATED
    return float(wilcoxon(changed, method=PermutationMethod(n_resamples=ENUMERATED) if is_small else "auto").pvalue)
