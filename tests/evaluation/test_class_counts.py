import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import ViTConfig

from captum_moxi import CoalitionGame
from captum_moxi.evaluation import class_counts

GREYS = (25 * torch.arange(10)).to(torch.uint8)[:, None, None].expand(10, 28, 28)


def tiny(classes: int) -> ViTConfig:
    size: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return ViTConfig(**size, intermediate_size=16, image_size=56, patch_size=14, num_labels=classes)


def test_the_mapping_of_labels() -> None:
    numbers = class_counts.finest(torch.tensor([[4, 1, 7, 9], [0, 0, 5, 5], [9, 8, 0, 1]]))
    assert numbers.tolist() == [417, 5, 980]
    assert class_counts.coarser(numbers, 1000).tolist() == [417, 5, 980]
    assert class_counts.coarser(numbers, 100).tolist() == [41, 0, 98]
    # 1 is odd, 0 and 8 are even
    assert class_counts.coarser(numbers, 20).tolist() == [9, 0, 18]
    assert class_counts.coarser(numbers, 10).tolist() == [4, 0, 9]


def test_classes_are_named_by_their_digits() -> None:
    names = [
        class_counts.name_of(label, classes) for label, classes in ((9, 20), (18, 20), (4, 10), (5, 100), (5, 1000))
    ]
    assert names == ["4, odd", "9, even", "4", "05", "005"]


def test_each_number_of_classes_divides_the_one_before_evenly() -> None:
    numbers = torch.arange(1000)
    fine = numbers
    for classes in (100, 20, 10):
        coarse = class_counts.coarser(numbers, classes)
        assert torch.bincount(coarse, minlength=classes).tolist() == [1000 // classes] * classes
        assert len(set(zip(fine.tolist(), coarse.tolist(), strict=True))) == len(fine.unique())
        fine = coarse


def test_a_model_begins_with_the_body_given_and_numbers_that_share_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_counts, "config", tiny)
    body = class_counts.start(10, None)
    model = class_counts.start(1000, body)
    for name, values in body.base_model.state_dict().items():
        assert torch.equal(model.base_model.state_dict()[name], values), name
    weight = model.classifier.weight
    torch.testing.assert_close(weight[417] - weight[407], weight[218] - weight[208])
    assert not torch.allclose(weight[417], weight[407])


def test_patches_left_out_while_training_are_removed_as_tokens_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_counts, "config", tiny)
    torch.manual_seed(0)
    model = class_counts.start(10, None).eval()
    torch.nn.init.normal_(model.classifier.weight)
    values = torch.randn(2, 3, 56, 56)
    kept = torch.tensor([[3, 15, 0], [9, 4, 8]])
    with torch.no_grad():
        logits = class_counts.logits_of_some(model, values, kept)
        for example in range(2):
            game = CoalitionGame(model, values[example : example + 1], target=6, reward="logit")
            present = torch.zeros(1, 16, dtype=torch.bool)
            present[0, kept[example]] = True
            torch.testing.assert_close(logits[example, 6], game(present)[0], rtol=0, atol=1e-5)
        # and the hook is gone
        every = torch.arange(16).flip(0).expand(2, -1)
        whole = model(values).logits
        torch.testing.assert_close(class_counts.logits_of_some(model, values, every), whole, rtol=0, atol=1e-5)


def test_patches_are_counted_by_quarter() -> None:
    # rows of the picture: 0 0 1 1, 0 0 1 1, 2 2 3 3, 2 2 3 3
    selection = SimpleNamespace(order=torch.tensor([[5, 2, 0, -1], [10, 13, 3, 7]]))
    assert class_counts.by_quarter(selection).tolist() == [1.0, 1.5, 0.5, 0.5]  # type: ignore[arg-type]


def test_pictures_that_any_model_gets_wrong_are_left_out() -> None:
    class Says(torch.nn.Module):
        """Right, but where the first digit is under a bound."""

        def __init__(self, classes: int, bound: int) -> None:
            super().__init__()
            self.classes, self.bound = classes, bound

        def forward(self, values: torch.Tensor) -> Any:
            grey = torch.stack([values[:, 0, y, x] for y in (10, 40) for x in (10, 40)], 1)
            digits = ((grey + 1) * 127.5 / 25).round().long()
            label = class_counts.coarser(class_counts.finest(digits), self.classes)
            label = torch.where(digits[:, 0] < self.bound, (label + 1) % self.classes, label)
            return SimpleNamespace(logits=torch.nn.functional.one_hot(label, self.classes).float())

    models: Any = {10: Says(10, 0), 20: Says(20, 5), 1000: Says(1000, 3)}
    digits = {"test": GREYS, "test_labels": torch.arange(10)}
    pictures, numbers = class_counts.all_right(models, digits, 8)
    assert len(pictures) == 8
    assert int(numbers.min()) >= 500
    assert (pictures[:, 0, 0] // 25).tolist() == (numbers // 100).tolist()
    models[10] = Says(10, 10)
    with pytest.raises(ValueError, match="get 0 of 32 pictures right"):
        class_counts.all_right(models, digits, 8)


def test_a_second_run_takes_the_models_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = {"train": GREYS, "train_labels": torch.arange(10), "test": GREYS, "test_labels": torch.arange(10)}
    monkeypatch.setattr(class_counts, "mnist", lambda archive: digits)
    monkeypatch.setattr(class_counts, "config", tiny)
    monkeypatch.setattr(class_counts, "STEPS", 1)
    monkeypatch.setattr(class_counts, "MEASURED", 50)
    # untrained models get too few right to choose from
    pictures, labels = class_counts.composites(2, GREYS, torch.arange(10), torch.Generator().manual_seed(0))
    monkeypatch.setattr(class_counts, "all_right", lambda *args: (pictures, class_counts.finest(labels)))
    monkeypatch.setattr(sys, "argv", ["class_counts", "--out", str(tmp_path), "--epochs", "1"])
    class_counts.main()
    models = ["model-10", "model-100", "model-1000", "model-20"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery.png", *models, "table.md"]
    table = tmp_path / "table.md"
    written = [(tmp_path / name / "model.safetensors").stat().st_mtime_ns for name in models]
    first = table.read_text()
    table.unlink()
    class_counts.main()
    assert table.read_text() == first
    assert [(tmp_path / name / "model.safetensors").stat().st_mtime_ns for name in models] == written
