"""Image corruptions that are applied to patches instead of removing them (the paper's Figure 6 and Appendix G.1).

The registered corruptions are the 19 common corruptions of Hendrycks and Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations" (ICLR 2019), as implemented by the package imagecorruptions-imaug.
``pip install 'captum-moxi[corruptions]'`` installs this package.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_moxi.images import to_rgb
from captum_moxi.models import ImageClassifier
from captum_moxi.registry import Registry

# Corrupts an RGB image: (image, severity, seed) -> RGB image of the same size. The severity is an int from 1 to 5.
Corruption: TypeAlias = Callable[[Image.Image, int, int], Image.Image]

CORRUPTIONS: Registry[Corruption] = Registry("corruption")

# Minimum height and width in pixels that the package imagecorruptions accepts.
MIN_SIZE = 32
# These corruptions use a random generator of their own instead of NumPy's global state.
OWN_GENERATOR = ("impulse_noise", "glass_blur")


def corrupt(image: Image.Image, name: str, *, severity: int = 5, seed: int = 0) -> Image.Image:
    r"""
    Corrupt an image.

    Args:
        image (Image): Image to corrupt. It is converted to RGB. The registered corruptions need at least 32 pixels in
            each direction and were designed for 224 x 224 pixels.
        name (str): Name of a registered corruption. ``list(CORRUPTIONS)`` returns all names.
        severity (int, optional): Strength of the corruption, from 1 to 5.
            Default: 5, as in the paper
        seed (int, optional): Seed of the random corruptions, from 0 to 2**32 - 1. NumPy's global random state is
            unchanged afterwards.
            Default: 0

    Returns:
        Image: Corrupted RGB image of the same size.

    Raises:
        ValueError: If ``name`` is unknown, ``severity`` or ``seed`` is out of range, ``image`` is too small, or the
            package imagecorruptions-imaug is not installed.

    Examples::

        >>> corrupt(Image.open("cat.jpg"), "fog", severity=3)
    """
    corruption = CORRUPTIONS.create(name)
    if severity not in range(1, 6):
        raise ValueError(f"severity is {severity!r}; pass an int from 1 to 5")
    return corruption(to_rgb(image), severity, seed)


def corrupted_inputs(classifier: ImageClassifier, x: Tensor, name: str, *, severity: int = 5, seed: int = 0) -> Tensor:
    r"""
    Corrupt images at the model's own resolution, for use as the ``baselines`` of a curve.

    The pixel values are converted to 8-bit images, corrupted and normalized again. They are not resized or cropped.

    Args:
        classifier (ImageClassifier): Classifier that converts between pixel values and images.
        x (Tensor): Pixel values of shape ``(B, 3, H, W)``, as returned by ``classifier.preprocess``.
        name (str): Name of a registered corruption, as in :func:`corrupt`.
        severity (int, optional): Strength of the corruption, from 1 to 5.
            Default: 5, as in the paper
        seed (int, optional): Seed for every image, so that the result for an image does not depend on its batch.
            Default: 0

    Returns:
        Tensor: Pixel values of shape ``(B, 3, H, W)``, in the model's dtype and on its device.

    Raises:
        ValueError: If ``x`` has another shape, or :func:`corrupt` raises it.

    Examples::

        >>> fog = corrupted_inputs(vit, x, "fog")
        >>> deletion_curve(vit.model, x, attributions=attr, target=y, baselines=fog, removal=BaselineRemoval())
    """
    if x.dim() != 4 or x.shape[1] != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass pixel values of shape (B, 3, H, W)")
    images = (classifier.to_images(x) * 255).round().byte().numpy()
    corrupted = [np.asarray(corrupt(Image.fromarray(image), name, severity=severity, seed=seed)) for image in images]
    return classifier.to_pixel_values(torch.from_numpy(np.stack(corrupted)) / 255)


def _common_corruption(image: Image.Image, severity: int, seed: int, *, name: str) -> Image.Image:
    """Apply a corruption of the package imagecorruptions."""
    if min(image.size) < MIN_SIZE:
        raise ValueError(
            f"image has {image.width} x {image.height} pixels; pass an image of at least {MIN_SIZE} x {MIN_SIZE} pixels"
        )
    try:
        import imagecorruptions
    except ImportError as error:
        raise ValueError(
            f"corruption {name!r} requires imagecorruptions-imaug ({error}); run pip install 'captum-moxi[corruptions]'"
        ) from error
    state = np.random.get_state()
    try:
        np.random.seed(seed)
        options = {"seed": seed} if name in OWN_GENERATOR else {}
        values = imagecorruptions.corrupt(np.asarray(image), severity, name, **options)
    finally:
        np.random.set_state(state)
    return Image.fromarray(values)


def _register_common_corruption(name: str, help: str) -> None:
    CORRUPTIONS.register(name, lambda: partial(_common_corruption, name=name), help=help)


_register_common_corruption("gaussian_noise", "additive normal noise, as in low light")
_register_common_corruption("shot_noise", "Poisson noise, caused by the discrete nature of light")
_register_common_corruption("impulse_noise", "black and white pixels, as from bit errors")
_register_common_corruption("defocus_blur", "blur of an image out of focus")
_register_common_corruption("glass_blur", "pixels shuffled locally, as behind frosted glass")
_register_common_corruption("motion_blur", "blur of a moving camera")
_register_common_corruption("zoom_blur", "blur of a camera moving toward the object")
_register_common_corruption("snow", "falling snow")
_register_common_corruption("frost", "ice crystals on the lens")
_register_common_corruption("fog", "fog from a fractal height map")
_register_common_corruption("brightness", "brighter pixels")
_register_common_corruption("contrast", "lower contrast")
_register_common_corruption("elastic_transform", "small regions stretched or contracted")
_register_common_corruption("pixelate", "lower resolution")
_register_common_corruption("jpeg_compression", "artifacts of strong JPEG compression")
_register_common_corruption("speckle_noise", "noise proportional to the pixel's value")
_register_common_corruption("gaussian_blur", "Gaussian blur")
_register_common_corruption("spatter", "drops of water or mud on the lens")
_register_common_corruption("saturate", "more saturated colors")
