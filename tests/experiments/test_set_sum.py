"""The set-sum experiment with a model that reads gray digits, against orders found by hand."""

import sys
from pathlib import Path
from types import SimpleNamespace

import gray_digits
import pytest
import torch
from described import assert_described
from torch import Tensor
from transformers import ResNetConfig

from captum_moxi.experiments import set_sum
from captum_moxi.experiments.digits import distinct_sum, pixel_values

DIGITS = torch.tensor([[7, 2, 7, 1], [8, 9, 7, 9]])


def sum_logits(values: Tensor) -> Tensor:
    """Logits of a model that reads each quarter and is almost certain of the sum of the distinct digits."""
    total = distinct_sum(gray_digits.read(values))
    return -10 * (torch.arange(31.0) - total[:, None]).abs()


def test_absent_quarters_are_black() -> None:
    visible = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 0]]).bool()
    blanked = set_sum.blanked(gray_digits.compose(DIGITS), visible)
    assert torch.equal(blanked, gray_digits.compose(torch.tensor([[7, 0, 0, 1], [0, 0, 7, 0]])))
    assert pixel_values(torch.zeros(1, 56, 56)).unique().tolist() == [set_sum.BACKGROUND]


def test_the_largest_digit_occurs_exactly_twice() -> None:
    digits = torch.tensor([[7, 7, 2, 1], [9, 1, 9, 3], [3, 3, 2, 2], [7, 7, 7, 1], [2, 2, 7, 1], [5, 5, 5, 5]])
    assert set_sum.has_largest_twice(digits).tolist() == [True, True, True, False, False, False]


def test_moxi_takes_one_of_two_equal_digits_before_the_other_digits() -> None:
    comparison = set_sum.compare_methods(sum_logits, gray_digits.compose(DIGITS), DIGITS)["expected sum"]
    # By hand, for 7, 2, 7, 1 and 8, 9, 7, 9. Ties go to the lower id.
    orders = {
        "MoXI": [[0, 1, 3, 2], [1, 0, 2, 3]],
        "MoXI(-)": [[0, 2, 1, 3], [1, 3, 0, 2]],
        # Equal digits share their value: 3.5, 2, 3.5, 1 and 8, 4.5, 7, 4.5.
        "Shapley, exact": [[0, 2, 1, 3], [0, 2, 1, 3]],
    }
    predicted_sums = {
        "MoXI": [[0, 7, 9, 10, 10], [0, 9, 17, 24, 24]],
        "MoXI(-)": [[0, 7, 7, 9, 10], [0, 9, 9, 17, 24]],
        "Shapley, exact": [[0, 7, 7, 9, 10], [0, 8, 15, 24, 24]],
    }
    both_first = {"MoXI": 0.0, "MoXI(-)": 1.0, "Shapley, exact": 0.5}
    for method, order in orders.items():
        result = comparison.of(method, "insertion")
        assert result.order.tolist() == order
        assert result.curve.predictions.tolist() == predicted_sums[method]
        assert set_sum.both_largest_first(result.order, DIGITS) == both_first[method]
        means = set_sum.curve_means(result, torch.tensor([10, 24]))
        errors = (torch.tensor([[10], [24]]) - torch.tensor(predicted_sums[method])).double()
        assert means["error of the sum"].tolist() == errors.mean(0).tolist()
        assert means["accuracy"].tolist() == (errors == 0).double().mean(0).tolist()
    results = set_sum.Results(1.0, gray_digits.compose(DIGITS), DIGITS, {"expected sum": comparison})
    assert "| expected sum | MoXI | 0 |" in set_sum.report(results)
    for figure in (set_sum.curves_figure(results), set_sum.gallery_figure(results)):
        assert_described(figure)
    captions = [ax.texts[0].get_text() for ax in set_sum.gallery_figure(results).axes]
    assert captions[:3] == ["sum 10", "7 → 9 → 10 → 10", "7 → 7 → 9 → 10"]


def test_only_correct_pictures_with_a_repeated_largest_digit_are_selected() -> None:
    class EvenSums(torch.nn.Module):
        """A model that predicts 0 for every odd sum."""

        def forward(self, values: Tensor) -> SimpleNamespace:
            logits = sum_logits(values)
            logits[logits.argmax(1) % 2 == 1] = torch.nn.functional.one_hot(torch.tensor(0), 31).float()
            return SimpleNamespace(logits=logits)

    pictures, digits = set_sum.select_pictures(EvenSums(), gray_digits.DIGITS, 5)
    assert torch.equal(pictures, gray_digits.compose(digits))
    for row in digits.tolist():
        assert row.count(max(row)) == 2
        assert sum(set(row)) % 2 == 0


def test_a_model_that_is_never_correct_is_rejected() -> None:
    class Wrong(torch.nn.Module):
        def forward(self, values: Tensor) -> SimpleNamespace:
            # No picture with two equal largest digits has the sum 30.
            return SimpleNamespace(logits=torch.nn.functional.one_hot(torch.full((len(values),), 30), 31).float())

    with pytest.raises(ValueError, match="too few pictures correctly to select 2"):
        set_sum.select_pictures(Wrong(), gray_digits.DIGITS, 2)


def test_a_second_run_uses_the_existing_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"id2label": {i: str(i) for i in range(31)}}
    tiny = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", **labels)
    monkeypatch.setattr(set_sum, "mnist", lambda archive: gray_digits.MNIST)
    monkeypatch.setattr(set_sum, "config", lambda: tiny)
    monkeypatch.setattr(set_sum, "STEPS", 2)
    monkeypatch.setattr(set_sum, "MEASURED", 50)
    # A model after two steps classifies too few pictures correctly to select from.
    monkeypatch.setattr(set_sum, "select_pictures", lambda *args: (gray_digits.compose(DIGITS), DIGITS))
    monkeypatch.setattr(sys, "argv", ["set_sum", "--out", str(tmp_path), "--epochs", "1", "--images", "2"])
    set_sum.main()
    weights, table = (tmp_path / "model" / "model.safetensors"), (tmp_path / "table.md")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "gallery.png", "model", "table.md"]
    first, modified = table.read_text(), weights.stat().st_mtime_ns
    table.unlink()
    set_sum.main()
    assert table.read_text() == first
    assert weights.stat().st_mtime_ns == modified
