"""Pictures of 2 x 2 digits against their definition."""

import io
import tarfile
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoImageProcessor

from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.experiments.digits import (
    Digits,
    composites,
    distinct_sum,
    expected_sum,
    label_maps,
    mnist,
    pixel_values,
    save_processor,
    shifted,
    sum_loss,
)


def idx(values: Tensor) -> bytes:
    """The IDX format of MNIST, for bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.dim()]) + sizes + bytes(values.flatten().tolist())


def test_composites_contain_their_digits_in_reading_order() -> None:
    images = torch.arange(10, dtype=torch.uint8)[:, None, None].expand(10, 28, 28)
    pictures, digits = composites(6, Digits(images, torch.arange(10)), torch.Generator().manual_seed(0))
    for picture, row in zip(pictures, digits, strict=True):
        quarters = [picture[:28, :28], picture[:28, 28:], picture[28:, :28], picture[28:, 28:]]
        assert [int(quarter.float().mean()) for quarter in quarters] == row.tolist()


def test_every_second_composite_repeats_a_digit() -> None:
    images = torch.zeros(10, 28, 28, dtype=torch.uint8)
    _, digits = composites(40, Digits(images, torch.arange(10)), torch.Generator().manual_seed(0))
    assert all(len(set(row)) < 4 for row in digits[::2].tolist())


def test_the_label_is_the_sum_of_the_distinct_visible_digits() -> None:
    digits = torch.tensor([[7, 7, 2, 1], [7, 7, 2, 1], [3, 3, 3, 3], [0, 9, 5, 9]])
    visible = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1]]).bool()
    assert distinct_sum(digits, visible).tolist() == [10, 9, 0, 9]
    assert distinct_sum(digits).tolist() == [10, 10, 3, 14]


def test_expected_sum_by_hand() -> None:
    logits = torch.stack([torch.zeros(31), torch.full((31,), -100.0), torch.full((31,), -100.0)])
    logits[1, 12] = 0.0
    logits[2, [10, 20]] = 0.0
    torch.testing.assert_close(expected_sum(logits), torch.tensor([15.0, 12.0, 15.0]))


def test_sum_loss_by_hand() -> None:
    logits = torch.full((1, 31), -100.0)
    logits[0, [10, 20]] = 0.0
    # The cross-entropy of two equally probable sums is ln 2. The expected sum 15 is 5 too high.
    expected = torch.log(torch.tensor(2.0)) + 0.02 * 25
    torch.testing.assert_close(sum_loss(logits, torch.tensor([10])), expected)


def test_shifted_pictures_are_rolled_by_at_most_two_pixels() -> None:
    pictures = torch.randint(256, (20, 56, 56)).to(torch.uint8)
    moved = shifted(pictures, torch.Generator().manual_seed(0))
    shifts = set()
    for before, after in zip(pictures, moved, strict=True):
        candidates = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
        matches = [shift for shift in candidates if torch.equal(before.roll(shift, (0, 1)), after)]
        assert len(matches) == 1
        shifts.add(matches[0])
    assert len(shifts) > 5


def test_pixel_values_are_those_of_the_processor(tmp_path: Path) -> None:
    image = demo_images()[0].image
    picture = torch.tensor(list(image.convert("L").tobytes()), dtype=torch.uint8).reshape(1, 56, 56)
    values = pixel_values(picture)
    torch.testing.assert_close(values, demo_classifier("cpu").preprocess(image), atol=1e-6, rtol=0)
    save_processor(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    torch.testing.assert_close(values, processor(image, return_tensors="pt")["pixel_values"], atol=1e-6, rtol=0)


def test_class_names_map_both_ways() -> None:
    assert label_maps(["even", "odd"]) == ({0: "even", 1: "odd"}, {"even": 0, "odd": 1})


def test_mnist_is_read_from_the_archive(tmp_path: Path) -> None:
    images = {"train": torch.randint(256, (3, 28, 28)), "t10k": torch.randint(256, (2, 28, 28))}
    labels = {"train": torch.tensor([5, 0, 9]), "t10k": torch.tensor([7, 2])}
    with tarfile.open(tmp_path / "digits.tgz", "w:gz") as package:
        for part in images:
            for kind, values in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
                data = idx(values)
                member = tarfile.TarInfo(f"package/data/{part}-{kind}-ubyte")
                member.size = len(data)
                package.addfile(member, io.BytesIO(data))
    digits = mnist(tmp_path / "digits.tgz")
    for part, read in (("train", digits.train), ("t10k", digits.test)):
        assert torch.equal(read.images, images[part].to(torch.uint8))
        assert read.labels.tolist() == labels[part].tolist()
        assert read.images.dtype is torch.uint8


def test_a_missing_archive_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"digits\.tgz"):
        mnist(tmp_path / "digits.tgz")
