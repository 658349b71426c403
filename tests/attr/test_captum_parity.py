"""MoXI compared with captum.attr.FeatureAblation, in the argument forms of Captum's own tests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from captum.attr import FeatureAblation
from captum.testing.helpers.basic_models import (
    BasicLinearModel,
    BasicModel,
    BasicModel_ConvNet_One_Conv,
    BasicModel_MultiLayer,
    BasicModel_MultiLayer_MultiInput,
    BasicModelBoolInput,
    BasicModelWithSparseInputs,
)
from torch import Tensor

from captum_moxi import MoXIDeletion, MoXIInsertion

T = torch.tensor


@dataclass
class Case:
    """A call of ``attribute``: the model, the inputs, the other arguments, and the pass sizes to try."""

    model: Callable[[], Callable[..., Any]]
    inputs: Any
    options: dict[str, Any] = field(default_factory=dict)
    per_eval: tuple[int | None, ...] = (1, 2, 3, None)


def with_output(model: Callable[[], Any], convert: Callable[[Any], Any]) -> Callable[[], Callable[..., Any]]:
    """A factory of the model with its output converted."""

    def build() -> Callable[..., Any]:
        net = model()
        return lambda *args: convert(net(*args))

    return build


ONE = T([[20.0, 50.0, 30.0]], requires_grad=True)
TWO = T([[2.0, 10.0, 3.0], [20.0, 50.0, 30.0]], requires_grad=True)
THREE = (
    T([[23.0, 100.0, 0.0], [20.0, 50.0, 30.0]]),
    T([[20.0, 50.0, 30.0], [0.0, 100.0, 0.0]]),
    T([[0.0, 100.0, 10.0], [2.0, 10.0, 3.0]]),
)
THREE_MASKS = (T([[1, 1, 1], [0, 1, 0]]), T([[0, 1, 2]]), T([[0, 1, 2], [0, 0, 0]]))
SHARED_MASKS = (T([[1, 1, 1]]), T([[0, 1, 2]]), T([[0, 1, 2]]))
CONV = (torch.arange(16.0).reshape(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
# conversions to one value for the whole batch
SCALARS = {
    "float": lambda y: y.sum().item(),
    "0d": lambda y: y.sum(),
    "1d": lambda y: y.sum().reshape(1),
    "int": lambda y: int(y.sum().item()),
}
MULTI = BasicModel_MultiLayer
MULTI_INPUT = BasicModel_MultiLayer_MultiInput

CASES = {
    "one example": Case(MULTI, ONE, {"target": 0}),
    "integers": Case(BasicModel, T([[-3, 1, 2]]), {"target": 0}),
    "integers to floats": Case(with_output(BasicModel, lambda y: y.float()), T([[-3, 1, 2]]), {"target": 0}),
    "integers, floating baseline": Case(
        with_output(BasicModel, lambda y: y.float()), T([[-3, 1, 2]]), {"target": 0, "baselines": 0.5}
    ),
    "mask": Case(MULTI, ONE, {"target": 0, "feature_mask": T([[0, 0, 1]])}),
    "mask with gaps": Case(MULTI, ONE, {"target": 0, "feature_mask": T([[7, 2, 7]])}),
    "mask with one dimension": Case(MULTI, TWO, {"target": 0, "feature_mask": T([0, 0, 1])}),
    "mask and baseline": Case(MULTI, ONE, {"target": 0, "feature_mask": T([[0, 0, 1]]), "baselines": 4}),
    "booleans": Case(BasicModelBoolInput, T([[True, False, True]]), {"target": 0, "feature_mask": T([[0, 0, 1]])}),
    "booleans, baseline": Case(
        BasicModelBoolInput, T([[True, False, True]]), {"target": 0, "feature_mask": T([[0, 0, 1]]), "baselines": True}
    ),
    "two examples": Case(MULTI, TWO, {"target": 0}),
    "target tensor with one element": Case(MULTI, TWO, {"target": T(1)}),
    "target tensor": Case(MULTI, TWO, {"target": T([0, 1])}),
    "target list": Case(MULTI, TWO, {"target": [1, 0]}),
    "target tuple": Case(MULTI, TWO, {"target": (0, 1, 1), "additional_forward_args": (None, True)}),
    "target list of tuples": Case(
        MULTI, TWO, {"target": [(1, 0, 0), (0, 1, 1)], "additional_forward_args": (None, True)}
    ),
    "mask for each example": Case(MULTI, TWO, {"target": 0, "feature_mask": T([[0, 0, 1], [1, 1, 0]])}),
    "different numbers of players": Case(MULTI, TWO, {"target": 0, "feature_mask": T([[0, 0, 0], [1, 2, 0]])}),
    "additional tensor": Case(
        MULTI, TWO, {"target": 0, "additional_forward_args": T([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}
    ),
    "baseline tensor": Case(MULTI, TWO, {"target": 0, "baselines": T([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])}),
    "three inputs, masks": Case(
        MULTI_INPUT, THREE, {"target": 0, "additional_forward_args": (1,), "feature_mask": THREE_MASKS}
    ),
    "two inputs, the third an additional argument": Case(
        MULTI_INPUT,
        THREE[:2],
        {"target": 0, "additional_forward_args": (THREE[2], 1), "feature_mask": THREE_MASKS[:2]},
    ),
    "three inputs, number baselines": Case(
        MULTI_INPUT,
        THREE,
        {"target": 0, "additional_forward_args": (1,), "feature_mask": THREE_MASKS, "baselines": (2, 3.0, 4)},
    ),
    "three inputs": Case(MULTI_INPUT, THREE, {"target": 0, "additional_forward_args": (1,)}),
    "three inputs, shared baselines": Case(
        MULTI_INPUT,
        THREE,
        {
            "target": 0,
            "additional_forward_args": (1,),
            "baselines": (T([[3.0, 0.0, 0.0]]), T([[0.0, 1.0, 0.0]]), T([[1.0, 2.0, 3.0]])),
        },
    ),
    "three inputs, baselines for each example": Case(
        MULTI_INPUT,
        THREE,
        {
            "target": 0,
            "additional_forward_args": (1,),
            "baselines": (
                T([[3.0, 0.0, 0.0], [3.0, 0.0, 2.0]]),
                T([[0.0, 1.0, 0.0], [0.0, 1.0, 4.0]]),
                T([[3.0, 2.0, 4.0], [1.0, 2.0, 3.0]]),
            ),
        },
    ),
    "images, masks without dimensions": Case(
        BasicModel_ConvNet_One_Conv, CONV, {"target": 0, "feature_mask": (T(0), T(1))}, (1, 2, 4, None)
    ),
    "images": Case(BasicModel_ConvNet_One_Conv, CONV, {"target": 0}, (1, 3, 14, None)),
    "double precision": Case(with_output(BasicModel, lambda y: y.double()), T([[-3.0, 1.0, 2.0]]), {"target": 0}),
    "sparse inputs": Case(
        BasicModelWithSparseInputs, (T([[1.0, -2.0, 3.0], [2.0, -1.0, 3.0]]), T([1, 7, 2, 4, 5, 3, 6])), {}, (1, None)
    ),
    "empty sparse inputs": Case(
        BasicModelWithSparseInputs, (T([[1.0, -2.0, 3.0], [2.0, -1.0, 3.0]]), T([])), {}, (1, None)
    ),
    **{
        f"one value for a batch of {len(x)}, {name}": Case(
            with_output(MULTI, scalar), x, {"feature_mask": T([[0, 0, 1]])}, (1, None)
        )
        for name, scalar in SCALARS.items()
        for x in (ONE, TWO)
    },
    **{
        f"one value for a batch, three inputs, {name}": Case(
            with_output(MULTI_INPUT, scalar),
            THREE,
            {"feature_mask": SHARED_MASKS, "additional_forward_args": (1,)},
            (1, None),
        )
        for name, scalar in SCALARS.items()
    },
}


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def change(case: Case) -> Tensor:
    """f(x) - f(baseline), from two calls of the model."""
    options = case.options
    inputs = as_tuple(case.inputs)
    fills = as_tuple(options.get("baselines", tuple(False if x.dtype is torch.bool else 0 for x in inputs)))
    baselines = []
    for x, value in zip(inputs, fills, strict=True):
        fill = torch.as_tensor(value)
        baselines.append(fill.expand(x.shape) if fill.is_floating_point() else fill.expand(x.shape).to(x.dtype))
    args = options.get("additional_forward_args")
    model, args = case.model(), () if args is None else as_tuple(args)
    target = options.get("target")
    values = []
    for tensors in (inputs, tuple(baselines)):
        with torch.no_grad():
            out = torch.as_tensor(model(*tensors, *args))
        if target is None:
            values.append(out.reshape(1).double())
            continue
        targets = target.tolist() if isinstance(target, Tensor) else target
        targets = targets if isinstance(targets, list) else [targets] * len(out)
        values.append(torch.stack([row[t] for row, t in zip(out, targets, strict=True)]).double())
    return values[0] - values[1]


def sum_over_players(case: Case, attributions: tuple[Tensor, ...]) -> Tensor:
    """The sum of each example's scores, with each player counted once."""
    inputs = as_tuple(case.inputs)
    masks = case.options.get("feature_mask")
    if masks is None:
        return sum(values.reshape(len(values), -1).double().sum(1) for values in attributions)
    totals = []
    for example in range(len(attributions[0])):
        scores: dict[int, float] = {}
        for values, mask, x in zip(attributions, as_tuple(masks), inputs, strict=True):
            owners = mask.expand(x.shape)[example]
            scores.update(zip(owners.flatten().tolist(), values[example].flatten().tolist(), strict=True))
        totals.append(sum(scores.values()))
    return torch.tensor(totals, dtype=torch.float64)


@pytest.mark.parametrize("method", [MoXIInsertion, MoXIDeletion])
@pytest.mark.parametrize("name", CASES)
def test_attributions_have_the_form_of_feature_ablation_and_sum_to_the_change(name: str, method: type) -> None:
    case = CASES[name]
    ablation = FeatureAblation(case.model()).attribute(case.inputs, **case.options)
    results = [
        method(case.model(), reward="output").attribute(
            case.inputs, **case.options, score="gain", perturbations_per_eval=per_eval
        )
        for per_eval in case.per_eval
    ]
    for result in results:
        assert type(result) is type(ablation)
        for actual, expected in zip(as_tuple(result), as_tuple(ablation), strict=True):
            assert actual.shape == expected.shape
            assert actual.dtype == expected.dtype
            assert actual.device == expected.device
            assert not actual.requires_grad
    for other in results[1:]:
        for actual, expected in zip(as_tuple(other), as_tuple(results[0]), strict=True):
            torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(sum_over_players(case, as_tuple(results[0])), change(case), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("method", [MoXIInsertion, MoXIDeletion])
@pytest.mark.parametrize("interactions", [True, False])
@pytest.mark.parametrize("baselines", [None, 2.0, T([[1.0, -1.0, 0.0, 3.0]])])
@pytest.mark.parametrize("mask", [None, T([[0, 1, 1, 5]]), T([[0, 1, 1, 2], [3, 3, 0, 0]])])
def test_gains_equal_feature_ablation_on_additive_models(
    method: type, interactions: bool, baselines: object, mask: Tensor | None
) -> None:
    weights = torch.randn(4, 3)

    def additive(x: Tensor) -> Tensor:
        return x**3 @ weights

    x = torch.randn(2, 4)
    options = {"target": [2, 0], "baselines": baselines, "feature_mask": mask}
    gains = method(additive, reward="output", interactions=interactions).attribute(x, **options, score="gain")
    torch.testing.assert_close(gains, FeatureAblation(additive).attribute(x, **options), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [MoXIInsertion, MoXIDeletion])
def test_gains_equal_feature_ablation_on_captums_linear_model(method: type) -> None:
    inputs, model = (torch.randn(2, 3), torch.randn(2, 4)), BasicLinearModel()
    gains = method(model, reward="output").attribute(inputs, target=0, score="gain")
    for actual, expected in zip(gains, FeatureAblation(model).attribute(inputs, target=0), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_function_that_aggregates_the_batch_rejects_larger_passes_as_in_captum() -> None:
    def total(x: Tensor) -> Tensor:
        return x.sum()

    with pytest.raises(AssertionError):
        FeatureAblation(total).attribute(torch.ones(2, 3), perturbations_per_eval=2)
    with pytest.raises(ValueError, match=r"one value for the whole batch, .*; pass 1"):
        MoXIInsertion(total).attribute(torch.ones(2, 3), perturbations_per_eval=2)
