"""The class-count experiment with models that read gray digits."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gray_digits
import pytest
import torch
from described import assert_described
from selections import make_selection
from torch import Tensor
from transformers import ViTConfig

from captum_moxi.experiments import class_counts
from captum_moxi.experiments.digits import composites


def tiny(classes: int) -> ViTConfig:
    size: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return ViTConfig(**size, intermediate_size=16, image_size=56, patch_size=14, num_labels=classes)


class Reader(torch.nn.Module):
    """A model that reads gray digits. It is wrong if the first digit is less than a bound."""

    def __init__(self, classes: int, *, bound: int) -> None:
        super().__init__()
        self.classes, self.bound = classes, bound

    def forward(self, values: Tensor) -> SimpleNamespace:
        digits = gray_digits.read(values)
        label = class_counts.coarsen(class_counts.number_of(digits), self.classes)
        label = torch.where(digits[:, 0] < self.bound, (label + 1) % self.classes, label)
        return SimpleNamespace(logits=torch.nn.functional.one_hot(label, self.classes).float())


def test_numbers_are_mapped_to_labels() -> None:
    numbers = class_counts.number_of(torch.tensor([[4, 1, 7, 9], [0, 0, 5, 5], [9, 8, 0, 1]]))
    assert numbers.tolist() == [417, 5, 980]
    assert class_counts.coarsen(numbers, 1000).tolist() == [417, 5, 980]
    assert class_counts.coarsen(numbers, 100).tolist() == [41, 0, 98]
    # The second digits are 1, which is odd, and 0 and 8, which are even.
    assert class_counts.coarsen(numbers, 20).tolist() == [9, 0, 18]
    assert class_counts.coarsen(numbers, 10).tolist() == [4, 0, 9]


@pytest.mark.parametrize(
    ("label", "classes", "name"),
    [(9, 20, "4, odd"), (18, 20, "9, even"), (4, 10, "4"), (5, 100, "05"), (5, 1000, "005")],
)
def test_classes_are_named_by_their_digits(label: int, classes: int, name: str) -> None:
    assert class_counts.class_name(label, classes) == name
    model_names: dict[int, str] = class_counts.config(classes).id2label
    assert model_names[label] == name


def test_each_labeling_divides_the_next_finer_one_evenly() -> None:
    numbers = torch.arange(1000)
    fine = numbers
    for classes in (100, 20, 10):
        coarse = class_counts.coarsen(numbers, classes)
        assert torch.bincount(coarse, minlength=classes).tolist() == [1000 // classes] * classes
        assert len(set(zip(fine.tolist(), coarse.tolist(), strict=True))) == len(fine.unique())
        fine = coarse


def test_a_model_starts_from_a_body_and_shares_weights_between_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_counts, "config", tiny)
    body = class_counts.initial_model(10)
    model = class_counts.initial_model(1000, body)
    for name, values in body.base_model.state_dict().items():
        assert torch.equal(model.base_model.state_dict()[name], values), name
    weight = model.get_submodule("classifier").weight
    torch.testing.assert_close(weight[417] - weight[407], weight[218] - weight[208])
    assert not torch.allclose(weight[417], weight[407])


def test_kept_patches_are_distinct_and_complete_in_half_of_the_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = []
    for _ in range(200):
        patches = class_counts.draw_patches(generator)
        assert all(len(set(row)) == patches.shape[1] for row in patches.tolist())
        counts.append(patches.shape[1])
    assert min(counts) == 1
    # A fair coin keeps all 16 patches. Otherwise, the number is uniform between 1 and 16.
    assert sum(count == 16 for count in counts) / len(counts) == pytest.approx(0.5 + 0.5 / 16, abs=0.1)


def test_patches_are_counted_by_quarter() -> None:
    # The patches of a picture belong to the quarters 0 0 1 1, 0 0 1 1, 2 2 3 3, 2 2 3 3.
    order = torch.tensor([[5, 2, 0, -1], [10, 13, 3, 7]])
    assert class_counts.patches_per_quarter(order).tolist() == [1.0, 1.5, 0.5, 0.5]


def test_only_pictures_that_all_models_classify_correctly_are_selected() -> None:
    models: Any = {10: Reader(10, bound=0), 20: Reader(20, bound=5), 1000: Reader(1000, bound=3)}
    pictures, numbers = class_counts.select_pictures(models, gray_digits.DIGITS, 8)
    assert len(pictures) == 8
    assert int(numbers.min()) >= 500
    assert (pictures[:, 0, 0] // gray_digits.STEP).tolist() == (numbers // 100).tolist()
    models[10] = Reader(10, bound=10)
    with pytest.raises(ValueError, match="only 0 of 32 pictures correctly"):
        class_counts.select_pictures(models, gray_digits.DIGITS, 8)


@pytest.mark.parametrize("flipped", [True, False])
def test_the_gallery_counts_the_patches_that_flip_the_prediction(flipped: bool) -> None:
    insertion = make_selection("insertion", [0, 0, 4], [0.1, 0.2, 0.9])
    deletion = replace(make_selection("deletion", [41, 41], [0.9, 0.8]), flipped=torch.tensor([flipped]))
    results = class_counts.Results(
        accuracies={10: 1.0, 100: 1.0},
        pictures=gray_digits.compose(torch.tensor([[4, 1, 7, 9]])),
        numbers=torch.tensor([417]),
        selections={("insertion", 10): insertion, ("deletion", 100): deletion},
    )
    figure = class_counts.gallery_figure(results)
    captions = [ax.texts[0].get_text() for ax in figure.axes]
    assert captions == ["class: patches to flip", "4: 2", "41: 1" if flipped else "41: > 1"]
    assert_described(figure)
    assert ("“>”" in figure.get_supxlabel()) != flipped


@pytest.mark.filterwarnings("ignore:the target is not the predicted class")
def test_a_second_run_uses_the_existing_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_counts, "mnist", lambda archive: gray_digits.MNIST)
    monkeypatch.setattr(class_counts, "config", tiny)
    monkeypatch.setattr(class_counts, "STEPS", 1)
    monkeypatch.setattr(class_counts, "MEASURED", 50)
    # Models after a single step classify too few pictures correctly to select from.
    pictures, digits = composites(2, gray_digits.DIGITS, torch.Generator().manual_seed(0))
    monkeypatch.setattr(class_counts, "select_pictures", lambda *args: (pictures, class_counts.number_of(digits)))
    monkeypatch.setattr(sys, "argv", ["class_counts", "--out", str(tmp_path), "--epochs", "1"])
    class_counts.main()
    models = ["model-10", "model-100", "model-1000", "model-20"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery.png", *models, "table.md"]
    table = tmp_path / "table.md"
    modified = [(tmp_path / name / "model.safetensors").stat().st_mtime_ns for name in models]
    first = table.read_text()
    table.unlink()
    class_counts.main()
    assert table.read_text() == first
    assert [(tmp_path / name / "model.safetensors").stat().st_mtime_ns for name in models] == modified
