import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import ResNetConfig

from captum_moxi.demo.digits import distinct_sum, pixel_values
from captum_moxi.evaluation import set_sum

# pictures of a digit: grey, the lighter the larger, 0 being as black as an absent quarter
GREYS = (25 * torch.arange(10)).to(torch.uint8)[:, None, None].expand(10, 28, 28)
HELD = torch.tensor([[7, 2, 7, 1], [8, 9, 7, 9]])


def picture(digits: Tensor) -> Tensor:
    rows = GREYS[digits].reshape(-1, 2, 2, 28, 28)
    return rows.permute(0, 1, 3, 2, 4).reshape(-1, 56, 56)


def sums(values: Tensor) -> Tensor:
    """Logits of a model that reads each quarter and is all but sure of the sum of the distinct digits."""
    grey = torch.stack([values[:, 0, y, x] for y in (10, 40) for x in (10, 40)], 1)
    digits = ((grey + 1) * 127.5 / 25).round().long()
    total = distinct_sum(digits, torch.ones_like(digits, dtype=torch.bool))
    return -10 * (torch.arange(31.0) - total[:, None]).abs()


def test_absent_quarters_are_black() -> None:
    visible = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 0]]).bool()
    blanked = set_sum.blanked(picture(HELD), visible)
    assert torch.equal(blanked, picture(torch.tensor([[7, 0, 0, 1], [0, 0, 7, 0]])))
    assert pixel_values(torch.zeros(1, 56, 56)).unique().tolist() == [set_sum.BACKGROUND]


def test_the_largest_digit_twice_and_no_more() -> None:
    digits = torch.tensor([[7, 7, 2, 1], [9, 1, 9, 3], [3, 3, 2, 2], [7, 7, 7, 1], [2, 2, 7, 1], [5, 5, 5, 5]])
    assert set_sum.largest_twice(digits).tolist() == [True, True, True, False, False, False]


def test_the_sum_that_is_expected() -> None:
    logits = torch.stack([torch.zeros(31), torch.full((31,), -100.0), torch.full((31,), -100.0)])
    logits[1, 12] = 0.0
    logits[2, [10, 20]] = 0.0
    torch.testing.assert_close(set_sum.expected_sum(logits), torch.tensor([15.0, 12.0, 15.0]))


def test_moxi_takes_one_of_two_equal_digits_and_then_the_others() -> None:
    played = set_sum.play(sums, picture(HELD), HELD)["expected sum"]
    # by hand, of 7, 2, 7, 1 and of 8, 9, 7, 9; the first of equals first
    orders = {
        "MoXI": [[0, 1, 3, 2], [1, 0, 2, 3]],
        "MoXI(-)": [[0, 2, 1, 3], [1, 3, 0, 2]],
        # equals share: 3.5, 2, 3.5, 1 and 8, 4.5, 7, 4.5
        "Shapley, exact": [[0, 2, 1, 3], [0, 2, 1, 3]],
    }
    says = {
        "MoXI": [[0, 7, 9, 10, 10], [0, 9, 17, 24, 24]],
        "MoXI(-)": [[0, 7, 7, 9, 10], [0, 9, 9, 17, 24]],
        "Shapley, exact": [[0, 7, 7, 9, 10], [0, 8, 15, 24, 24]],
    }
    first = {"MoXI": 0.0, "MoXI(-)": 1.0, "Shapley, exact": 0.5}
    for method, order in orders.items():
        result = played.of(method, "insertion")
        assert result.order.tolist() == order
        assert result.curve.predictions.tolist() == says[method]
        assert set_sum.both_first(result.order, HELD) == first[method]
        found = set_sum.measures(result, torch.tensor([10, 24]))
        said = torch.tensor(says[method])
        off = (torch.tensor([[10], [24]]) - said).double()
        assert found["error of the sum"].tolist() == off.mean(0).tolist()
        assert found["accuracy"].tolist() == (off == 0).double().mean(0).tolist()
    assert "| expected sum | MoXI | 0 |" in set_sum.report({"expected sum": played}, HELD)


def test_only_pictures_that_are_right_and_have_the_largest_twice_are_chosen() -> None:
    class Right(torch.nn.Module):
        def forward(self, values: Tensor) -> object:
            logits = sums(values)
            # wrong of every sum that is odd
            logits[logits.argmax(1) % 2 == 1] = torch.nn.functional.one_hot(torch.tensor(0), 31).float()
            return type("Output", (), {"logits": logits})()

    digits = {"test": GREYS, "test_labels": torch.arange(10)}
    pictures, labels = set_sum.chosen(Right(), digits, 5)  # type: ignore[arg-type]
    assert torch.equal(pictures, picture(labels))
    for held in labels.tolist():
        assert held.count(max(held)) == 2
        assert sum(set(held)) % 2 == 0


def test_a_second_run_takes_the_model_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = {"train": GREYS, "train_labels": torch.arange(10), "test": GREYS, "test_labels": torch.arange(10)}
    labels = {"id2label": {i: str(i) for i in range(31)}}
    tiny = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", **labels)
    monkeypatch.setattr(set_sum, "mnist", lambda archive: digits)
    monkeypatch.setattr(set_sum, "config", lambda: tiny)
    monkeypatch.setattr(set_sum, "STEPS", 2)
    monkeypatch.setattr(set_sum, "MEASURED", 50)
    monkeypatch.setattr(sys, "argv", ["set_sum", "--out", str(tmp_path), "--epochs", "1", "--images", "2"])
    # an untrained model gets too few right to choose from
    monkeypatch.setattr(set_sum, "chosen", lambda model, digits, images: (picture(HELD), HELD))
    set_sum.main()
    weights, table = (tmp_path / "model" / "model.safetensors"), (tmp_path / "table.md")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "gallery.png", "model", "table.md"]
    first, written = table.read_text(), weights.stat().st_mtime_ns
    table.unlink()
    set_sum.main()
    assert table.read_text() == first
    assert weights.stat().st_mtime_ns == written
