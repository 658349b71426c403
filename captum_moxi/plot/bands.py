"""95 % bands around mean curves, and the sentence about them below a figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from captum_moxi.metrics.bootstrap import MIN_IMAGES, bootstrap_band


def draw_band(
    ax: Axes,
    x: NDArray[np.float64] | NDArray[np.int64],
    values: NDArray[np.float64],
    *,
    color: str,
    resamples: int,
    is_step: bool = False,
    alpha: float = 0.13,
) -> None:
    """Draw the 95 % band of the mean over images. Fewer than 10 images have no band.

    Args:
        ax (Axes): Axes to draw into.
        x (ndarray): Horizontal coordinates of P points. Shape ``(P,)``, float64 or int64.
        values (ndarray): Values of N images at the points. Shape ``(N, P)``, float64.
        color (str): Color of the band.
        resamples (int): Number of bootstrap resamples.
        is_step (bool, optional): Whether the curve has steps instead of lines.
            Default: False
        alpha (float, optional): Opacity of the band, from 0 to 1.
            Default: 0.13
    """
    if len(values) >= MIN_IMAGES:
        low, high = bootstrap_band(values, resamples=resamples)
        ax.fill_between(x, low, high, step="post" if is_step else None, color=color, alpha=alpha, linewidth=0)


def describe_bands(bands: str, counts: Sequence[int]) -> str:
    """Return the sentences on how to read mean curves and their bands.

    Args:
        bands (str): Describes the bands, for example ``"Bands: 95 % intervals"``.
        counts (Sequence[int]): Number of images of each curve that may have a band.

    Returns:
        str: The sentences. They say which curves have no band.
    """
    if min(counts) >= MIN_IMAGES:
        return f"Lines: means over the images. {bands}."
    if max(counts) < MIN_IMAGES:
        return f"Lines: means over the images. They have no 95 % bands, which need {MIN_IMAGES} images."
    return f"Lines: means over the images. {bands}, for lines of at least {MIN_IMAGES} images."
