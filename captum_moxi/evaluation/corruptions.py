"""Images corrupted, to show in place of what is removed (the paper's Figure 6), by the package imagecorruptions-imaug.

The 19 common corruptions of Hendrycks and Dietterich ('Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations', ICLR 2019); the extra ``corruptions`` brings the package.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_moxi.models import ImageClassifier

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
)

# those that draw from a generator of their own, and not from numpy's global state
SEEDED = ("impulse_noise", "glass_blur")


def corrupt(image: Image.Image, name: str, severity: int = 5, seed: int = 0) -> Image.Image:
    r"""
    Corrupt an image.

    Args:
        image (Image): At least 32 pixels high and wide; read as RGB. The corruptions were made for 224 x 224 pixels.
        name (str): One of ``CORRUPTIONS``.
        severity (int, optional): 1 to 5, as in the source.
            Default: 5, as in the paper
        seed (int, optional): Decides what is random; numpy's global state is left as it was.
            Default: 0

    Returns:
        Image: RGB, of the same size.

    Raises:
        ValueError: an unknown name, another severity, a smaller image, a seed out of range, or no package
            imagecorruptions-imaug.

    Examples::

        >>> corrupt(Image.open("cat.jpg"), "fog", severity=3)
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"corruption {name!r} is not known; pass one of {', '.join(CORRUPTIONS)}")
    if severity not in range(1, 6):
        raise ValueError(f"severity is {severity!r}; pass an int from 1 to 5")
    if min(image.size) < 32:
        raise ValueError(f"image is of {image.width} x {image.height} pixels; pass one of at least 32 x 32")
    try:
        import imagecorruptions
    except ImportError as error:
        raise ValueError(
            f'corruptions need imagecorruptions-imaug ({error}); pip install "captum-moxi[corruptions]"'
        ) from error
    state = np.random.get_state()
    try:
        np.random.seed(seed)
        values = imagecorruptions.corrupt(
            np.asarray(image.convert("RGB")), severity, name, **({"seed": seed} if name in SEEDED else {})
        )
    finally:
        np.random.set_state(state)
    return Image.fromarray(values)


def corrupted_inputs(classifier: ImageClassifier, x: Tensor, name: str, severity: int = 5, seed: int = 0) -> Tensor:
    r"""
    Corrupt images as the model sees them, at its own resolution: the ``baselines`` of a curve.

    Args:
        classifier (ImageClassifier): Tells how pixel values are made of images.
        x (Tensor): ``(B, 3, H, W)`` pixel values, as ``classifier.preprocess`` makes them. They become images of 8
            bits, which are corrupted and normalised again, but not resized or cropped.
        name, severity, seed: As in :func:`corrupt`, and the same for all, so that the batch does not decide.

    Returns:
        Tensor: ``(B, 3, H, W)``, in the model's dtype and on its device.

    Raises:
        ValueError: pixel values of another shape; and as :func:`corrupt`.

    Examples::

        >>> fog = corrupted_inputs(vit, x, "fog")
        >>> deletion_curve(vit.model, x, attr, target=y, baselines=fog, removal=BaselineRemoval())
    """
    if x.dim() != 4 or x.shape[1] != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass pixel values (B, 3, H, W)")
    images = (classifier.to_images(x) * 255).round().byte().numpy()
    corrupted = np.stack([np.asarray(corrupt(Image.fromarray(image), name, severity, seed)) for image in images])
    return classifier.to_pixel_values(torch.from_numpy(corrupted) / 255)
