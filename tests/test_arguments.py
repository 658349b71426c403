from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature

from captum_moxi.arguments import (
    broadcasts,
    check_baselines,
    check_inputs,
    check_positive_int,
    copy_argument,
    forward_arguments,
    input_devices,
    parse_search_modes,
    parse_target,
)


@pytest.mark.parametrize("value", [1, 7, torch.tensor(3)])
def test_positive_ints_pass(value: Any) -> None:
    check_positive_int("n_steps", value)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (-2, ValueError),
        (1.0, TypeError),
        (True, TypeError),
        ("1", TypeError),
        (float("nan"), TypeError),
        (torch.tensor(1.5), TypeError),
        (torch.tensor([1, 2]), TypeError),
    ],
)
def test_other_values_are_rejected_by_the_name_of_the_argument(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"n_steps is .*; pass an int of at least 1"):
        check_positive_int("n_steps", value)


def test_inputs_become_a_tuple() -> None:
    x, y = torch.zeros(2, 3), torch.zeros(2, 1)
    assert check_inputs(x)[0] is x
    assert check_inputs((x, y))[1] is y
    assert input_devices((x, y)) == input_devices(x) == {torch.device("cpu")}


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([torch.zeros(1, 2)], TypeError, "inputs is list; pass a tensor or a tuple of tensors"),
        ((), TypeError, "inputs is an empty tuple"),
        ((torch.zeros(1, 2), 3), TypeError, "inputs is Tensor, int"),
        (Image.new("RGB", (4, 4)), TypeError, r"inputs is a PIL image; pass .*classifier.preprocess\(image\)"),
        ([Image.new("RGB", (4, 4))] * 2, TypeError, "inputs is a PIL image"),
        (BatchFeature({"pixel_values": 0}), TypeError, r"inputs is a BatchFeature; pass .*inputs\['pixel_values'\]"),
        (torch.tensor(1.0), ValueError, "inputs has no dimensions"),
        ((torch.zeros(1, 2), torch.tensor(1.0)), ValueError, r"inputs\[1\] has no dimensions"),
        (torch.tensor([[torch.nan]]), ValueError, "inputs contains non-finite values"),
        ((torch.zeros(1, 2), torch.tensor([[torch.inf]])), ValueError, r"inputs\[1\] contains non-finite values"),
        (torch.zeros(0, 2), ValueError, "inputs is an empty batch"),
    ],
)
def test_bad_inputs_are_rejected(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_inputs(inputs)


def test_baselines_become_a_tuple_with_one_entry_per_input() -> None:
    x, y = torch.zeros(2, 3), torch.zeros(2, 1)
    assert check_baselines(None, (x,)) is None
    assert check_baselines(0.5, (x,)) == (0.5,)
    row = torch.ones(1, 3)
    values = check_baselines((row, 1), (x, y))
    assert values is not None and values[0] is row and values[1] == 1


@pytest.mark.parametrize(
    ("baselines", "error", "message"),
    [
        ((0, 1), ValueError, "baselines has 2 entries, but inputs has 1 tensors"),
        (float("nan"), ValueError, r"baselines is nan; pass a finite number"),
        ("mean", TypeError, r"baselines is a str; pass a number or a tensor"),
        (torch.tensor([[torch.inf] * 3]), ValueError, r"baselines contains non-finite values"),
        (torch.zeros(4), ValueError, r"baselines has shape \(4,\)"),
        (torch.zeros(1, 2, 3), ValueError, r"baselines has shape \(1, 2, 3\)"),
    ],
)
def test_bad_baselines_are_rejected(baselines: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_baselines(baselines, (torch.zeros(2, 3),))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, None),
        (3, [(3,), (3,)]),
        (torch.tensor(3), [(3,), (3,)]),
        (torch.tensor([3]), [(3,), (3,)]),
        ((2, 0, 1), [(2, 0, 1), (2, 0, 1)]),
        ([3, 4], [(3,), (4,)]),
        (torch.tensor([3, 4]), [(3,), (4,)]),
        ([(2, 0), (1, 1)], [(2, 0), (1, 1)]),
    ],
)
def test_a_target_of_any_form_gives_the_indices_of_each_example(target: Any, expected: Any) -> None:
    assert parse_target(target, 2) == expected


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([1, 2, 3], ValueError, "target has 3 entries for a batch of 2"),
        (torch.zeros(2, 2, dtype=torch.long), ValueError, r"target has shape \(2, 2\)"),
        (torch.tensor([1.0, 2.0]), TypeError, "target has dtype torch.float32"),
        (torch.tensor([True, False]), TypeError, "target has dtype torch.bool"),
        (-1, ValueError, "target is -1; pass class indices of at least 0"),
        ((), ValueError, r"target is \(\)"),
        (1.5, TypeError, "target is 1.5"),
        ("cat", TypeError, r"target is 'cat', the name of a class; pass its index: classifier.class_index\('cat'\)"),
        (["cat", "dog"], TypeError, "target is 'cat', the name of a class"),
    ],
)
def test_bad_targets_are_rejected(target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_target(target, 2)


def test_additional_arguments_become_a_tuple() -> None:
    assert forward_arguments(None) == ()
    assert forward_arguments(2.0) == (2.0,)
    assert forward_arguments((1, "a")) == (1, "a")


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.zeros(3), True),
        (torch.zeros(1, 3), True),
        (torch.zeros(2, 1), True),
        (torch.tensor(0.0), True),
        (torch.zeros(2), False),
        (torch.zeros(4, 3), False),
        (torch.zeros(1, 2, 3), False),
    ],
)
def test_broadcasts_agrees_with_torch(tensor: Tensor, expected: bool) -> None:
    target = torch.zeros(2, 3)
    assert broadcasts(tensor, target) is expected
    try:
        fits = torch.broadcast_shapes(tensor.shape, target.shape) == target.shape
    except RuntimeError:
        fits = False
    assert fits is expected


def test_a_copy_of_an_argument_shares_no_tensor_and_no_array() -> None:
    module = torch.nn.Linear(2, 2)
    original = {"a": [torch.zeros(2, requires_grad=True), np.zeros(2)], "b": (torch.zeros(1, 2).expand(3, 2), module)}
    copied = copy_argument(original)
    copied["a"][0].add_(1)
    copied["a"][1] += 1
    copied["a"].append(3)
    copied["b"][0].add_(1)
    assert original["a"][0].tolist() == original["a"][1].tolist() == [0, 0]
    assert len(original["a"]) == 2
    assert original["b"][0].tolist() == [[0, 0]] * 3
    assert not copied["a"][0].requires_grad
    assert copied["b"][1] is module
    assert copy_argument("text") == "text"
    assert copy_argument(None) is None


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ("symmetric", ("symmetric",)),
        (["symmetric"], ("symmetric",)),
        ("deletion", ("deletion",)),
        (("insertion", "deletion"), ("insertion", "deletion")),
    ],
)
def test_the_modes_of_searches_become_a_tuple(modes: Any, expected: tuple[str, ...]) -> None:
    assert parse_search_modes(modes) == expected


@pytest.mark.parametrize(
    "modes", ["both", (), ("symmetric", "deletion"), ("symmetric", "symmetric"), ("deletion",) * 2]
)
def test_other_modes_of_searches_are_rejected(modes: Any) -> None:
    with pytest.raises(ValueError, match=r"modes is .*; pass 'insertion', 'deletion' or both, or 'symmetric' alone"):
        parse_search_modes(modes)
