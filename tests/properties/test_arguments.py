"""Each accepted form of an argument means the same as its normalized form, and no other value reaches the model."""

import math
import operator
from typing import Any

import numpy as np
import pytest
import torch
from calls import Call, Polynomial, calls, generator
from hypothesis import assume
from hypothesis import strategies as st
from sizes import for_all
from torch import Tensor

from captum_moxi import MoXIInsertion, Selection

BATCH = 2
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SHAPES = st.lists(st.sampled_from([1, 1, 2, 3, 0]), max_size=4).map(tuple)
# Values that are no tensor.
OTHERS = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.floats(),
    st.just(object()),
    st.just({}),
    st.just(np.zeros((BATCH, 2, 3), int)),
    st.just([[[0, 1, 2], [0, 1, 2]]] * BATCH),
    st.just(1 + 2j),
)


def new_model() -> Polynomial:
    """A model of three classes for inputs ``(BATCH, 2, 3)``, which counts its calls."""
    rng = torch.Generator().manual_seed(0)
    first, linear, square = (torch.randint(-2, 3, shape, generator=rng).double() for shape in ((6, 3), (3, 3), (3, 3)))
    return Polynomial(1, first, linear, square, (3,), torch.float64)


def new_inputs() -> Tensor:
    return torch.randint(-2, 3, (BATCH, 2, 3), generator=torch.Generator().manual_seed(1)).double()


def attribute(arguments: dict[str, Any], model: Polynomial) -> tuple[Any, Selection]:
    call = {"inputs": new_inputs(), "target": 0} | arguments
    attributions, selection = MoXIInsertion(model).attribute(**call, return_selection=True)
    return attributions, selection


def assert_same_selection(first: Selection, second: Selection) -> None:
    """Both selections are the same, bit for bit."""
    for field in ("order", "rewards", "confidences", "predictions", "shapley", "interactions"):
        torch.testing.assert_close(getattr(first, field), getattr(second, field), rtol=0, atol=0, equal_nan=True)


def fits(tensor: Tensor) -> bool:
    """Whether a tensor broadcasts to the inputs."""
    try:
        tensor.expand(BATCH, 2, 3)
    except RuntimeError:
        return False
    return True


def assert_same(arguments: dict[str, Any], normalized: dict[str, Any]) -> None:
    """Both calls give the same attributions and selections."""
    (attributions, selection), (expected, expected_selection) = (
        attribute(call, new_model()) for call in (arguments, normalized)
    )
    assert torch.equal(attributions, expected)
    assert_same_selection(selection, expected_selection)


def assert_rejected(arguments: dict[str, Any], *, calls: int = 0) -> str:
    """The call raises a ValueError or TypeError after this number of forward passes. Returns its message."""
    model = new_model()
    with pytest.raises((ValueError, TypeError)) as error:
        attribute(arguments, model)
    assert model.n_calls == calls
    return str(error.value)


@for_all(calls(), quick=50, large=600)
def test_each_form_of_a_call_means_the_same_as_its_normalized_form(call: Call) -> None:
    n_masks = 1 if call.model.shape is None else None
    dtypes = [x.dtype for x in call.tensors]
    normalized = {
        "inputs": call.tensors,
        "baselines": tuple(baseline.to(dtype) for baseline, dtype in zip(call.baselines, dtypes, strict=True)),
        "feature_mask": tuple(owners[:n_masks] for owners in call.owners),
        "target": call.targets,
        "additional_forward_args": call.extras,
    }
    moxi = MoXIInsertion(call.model, reward=call.reward.argument)
    attributions, selection = moxi.attribute(**call.arguments, return_selection=True)
    expected, expected_selection = moxi.attribute(**normalized, return_selection=True)
    attributions = attributions if isinstance(attributions, tuple) else (attributions,)
    assert all(map(torch.equal, attributions, expected))
    assert_same_selection(selection, expected_selection)


@st.composite
def tensors(draw: st.DrawFn, dtypes: list[torch.dtype], values: list[float]) -> Tensor:
    """A tensor of any shape, with some of these values."""
    shape = draw(st.one_of(SHAPES, st.sampled_from([(BATCH, 2, 3), (1, 2, 3), (3,)])))
    choice = torch.tensor(draw(st.lists(st.sampled_from(values), min_size=1, max_size=4)), dtype=torch.float64)
    entries = choice[torch.randint(len(choice), shape, generator=generator(draw))]
    dtype = draw(st.sampled_from(dtypes))
    assume(not entries.numel() or dtype.is_floating_point or dtype.is_complex or bool(entries.isfinite().all()))
    return entries.to(dtype)


@for_all(
    st.one_of(
        tensors(INTEGERS, [0, 1, 2, 5, 100]),
        tensors([*INTEGERS, *FLOATS, torch.bool, torch.complex64], [0, 1, 3, -1, 0.5, math.nan, math.inf]),
        OTHERS.filter(lambda value: value is not None),
    ),
    quick=60,
    large=800,
)
def test_a_mask_is_an_integer_tensor_that_broadcasts_or_is_rejected(mask: Any) -> None:
    is_valid = (
        isinstance(mask, Tensor)
        and not mask.is_complex()
        and mask.dtype is not torch.bool
        and fits(mask)
        and all(value >= 0 and value == value // 1 for value in mask.flatten().tolist())
    )
    if is_valid:
        assert_same({"feature_mask": mask}, {"feature_mask": mask.long().expand(BATCH, 2, 3)})
    else:
        assert "feature_mask" in assert_rejected({"feature_mask": mask})


@for_all(
    st.one_of(
        tensors([*INTEGERS, *FLOATS, torch.bool], [0, 1, -2, 3]),
        tensors(FLOATS, [0, 1.5, math.nan, -math.inf]),
        st.integers(-3, 3),
        st.floats(-3, 3),
        st.sampled_from([math.nan, math.inf, -math.inf]),
        OTHERS.filter(lambda value: value is not None and not isinstance(value, float)),
    ),
    quick=60,
    large=800,
)
def test_a_baseline_is_a_finite_number_or_tensor_that_broadcasts_or_is_rejected(baseline: Any) -> None:
    if isinstance(baseline, Tensor):
        is_valid = fits(baseline) and bool(baseline.double().isfinite().all())
    else:
        is_valid = isinstance(baseline, int | float) and math.isfinite(baseline)
    if is_valid:
        full = torch.as_tensor(baseline, dtype=torch.float64).expand(BATCH, 2, 3)
        assert_same({"baselines": baseline}, {"baselines": (full,)})
    else:
        assert "baselines" in assert_rejected({"baselines": baseline})


INDICES = st.one_of(
    st.integers(-1, 4),
    st.just(10**30),
    st.builds(np.int64, st.integers(0, 2)),
    st.builds(torch.tensor, st.integers(0, 2)),
    st.floats(0, 2),
    st.text(max_size=1),
    st.none(),
)


@for_all(
    st.one_of(
        INDICES,
        st.lists(INDICES, max_size=BATCH + 1),
        st.lists(INDICES, max_size=3).map(tuple),
        st.lists(st.lists(INDICES, min_size=1, max_size=2).map(tuple), min_size=BATCH, max_size=BATCH),
        tensors([*INTEGERS, torch.float32, torch.bool], [0, 1, 2, 3, -1]),
        st.sampled_from([range(BATCH), np.array([0, 1]), {0: 1}, {0, 1}]),
    ),
    quick=80,
    large=1500,
)
def test_a_target_is_an_index_or_one_for_each_example_or_is_rejected(target: Any) -> None:
    if isinstance(target, Tensor):
        is_class = target.dtype in INTEGERS and target.dim() <= 1
        entries = target.flatten().tolist() if is_class else []
        entries = entries * BATCH if len(entries) == 1 else entries
    else:
        entries = list(target) if isinstance(target, list | range) else [target] * BATCH
    indices = [entry if isinstance(entry, tuple) else (entry,) for entry in entries]
    whole = [hasattr(index, "__index__") and _is_whole(index) for entry in indices for index in entry]
    has_form = len(indices) == BATCH and all(indices) and all(whole)
    if not has_form or any(operator.index(index) < 0 for entry in indices for index in entry):
        # A missing target is only known to be needed once the model has returned several classes.
        assert "target" in assert_rejected({"target": target}, calls=1 if target is None else 0)
    elif any(len(entry) > 1 or operator.index(entry[0]) > 2 for entry in indices):
        assert "target" in assert_rejected({"target": target}, calls=1)
    else:
        assert_same({"target": target}, {"target": [operator.index(entry[0]) for entry in indices]})


def _is_whole(index: Any) -> bool:
    """Whether a value is an integer. Tensors and arrays have ``__index__`` even if they hold other values."""
    try:
        operator.index(index)
    except TypeError:
        return False
    return True


COUNTS = st.one_of(
    st.integers(-3, 8),
    st.sampled_from([10**30, 2**63, np.int64(2), True, 1.0, 2.5, math.nan, "2", (1,), torch.tensor(3)]),
)


@for_all(st.tuples(st.sampled_from(["n_steps", "perturbations_per_eval", "beam_width"]), COUNTS), quick=40, large=300)
def test_a_count_is_a_positive_int_or_is_rejected(drawn: tuple[str, Any]) -> None:
    name, count = drawn
    model = new_model()
    options, arguments = ({name: count}, {}) if name == "beam_width" else ({}, {name: count})

    def search() -> Selection:
        moxi = MoXIInsertion(model, **options)
        return moxi.attribute(new_inputs(), target=0, return_selection=True, **arguments)[1]

    if isinstance(count, bool) or not _is_whole(count) or count < 1:
        with pytest.raises((ValueError, TypeError), match=name):
            search()
        assert model.n_calls == 0
    elif name == "n_steps":
        assert search().n_steps.tolist() == [min(6, int(count))] * BATCH
    else:
        assert search().n_steps.tolist() == [6] * BATCH


@for_all(
    st.tuples(
        st.one_of(st.floats(), st.integers(-1, 1), st.text(max_size=2), st.none(), st.just(10**400)),
        st.sampled_from(["flip", None]) | st.text(max_size=4) | st.integers(0, 1),
        st.sampled_from(["rank", "gain"]) | st.text(max_size=4) | st.none(),
    ),
    quick=60,
    large=800,
)
def test_other_options_have_a_listed_value_or_are_rejected(drawn: tuple[Any, Any, Any]) -> None:
    min_confidence, stop, score = drawn
    is_confidence = isinstance(min_confidence, int | float) and 0 <= min_confidence < 1
    arguments = {"min_confidence": min_confidence, "stop": stop, "score": score}
    if is_confidence and stop in ("flip", None) and score in ("rank", "gain"):
        attribute(arguments, new_model())
    else:
        assert_rejected(arguments)
