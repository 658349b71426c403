"""Rows of models that methods use directly, against a model that counts its own rows."""

import copy
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from captum_moxi import CoalitionGame, compare
from captum_moxi.comparison import play_method
from captum_moxi.game import Cost
from captum_moxi.methods import from_function
from captum_moxi.methods.counting import ParameterUses, counted_view


class Counting(nn.Module):
    """A model that counts its forward and backward rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(4, 3)
        self.counts = {"forward": 0, "backward": 0}

    def forward(self, x: Tensor) -> Tensor:
        counts = self.counts
        counts["forward"] += len(x)
        output: Tensor = self.second(self.first(x).relu())
        if output.requires_grad:
            output.register_hook(lambda gradient: counts.update(backward=counts["backward"] + len(gradient)))
        return output


@pytest.fixture
def model() -> Counting:
    return Counting()


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(2, 6)


def forward_only(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)[:, :1] * x


def several_passes(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return sum(model(torch.cat([x] * n))[:2, :1] * x for n in (1, 3, 2))  # type: ignore[return-value]


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    return torch.autograd.grad(model(x.requires_grad_())[:, 0].sum(), x)[0]


def two_backward_passes(model: nn.Module, x: Tensor) -> Tensor:
    output = model(x.requires_grad_())
    first, second = (torch.autograd.grad(output[:, i].sum(), x, retain_graph=True)[0] for i in (0, 1))
    return first + second


def weights_only_besides(model: nn.Module, x: Tensor) -> Tensor:
    """Operations on a parameter alone are not a pass."""
    scale = model.first.weight.abs().sum() + model.second.weight.t()[0].detach().norm()  # type: ignore[union-attr, operator]
    return forward_only(model, x) * scale.detach()


FUNCTIONS = pytest.mark.parametrize(
    "function", [forward_only, several_passes, gradient, two_backward_passes, weights_only_besides]
)
Function = Callable[[nn.Module, Tensor], Tensor]


def measured(model: Counting, function: Function, x: Tensor) -> Cost:
    """What the model counts itself."""
    model.counts.update(forward=0, backward=0)
    function(model, x)
    return Cost(rows=model.counts["forward"], backward_rows=model.counts["backward"])


@FUNCTIONS
def test_operations_on_parameters_show_the_rows(function: Function, model: Counting, inputs: Tensor) -> None:
    expected = measured(model, function, inputs.clone())
    with ParameterUses(model) as uses:
        function(model, inputs.clone())
    assert (uses.cost.rows, uses.cost.backward_rows, uses.cost.uncounted) == (expected.rows, expected.backward_rows, 0)
    assert expected.rows > 0


@FUNCTIONS
@pytest.mark.parametrize("form", ["module", "method", "function"])
def test_a_counted_view_records_the_rows(function: Function, form: str, model: Counting, inputs: Tensor) -> None:
    forms = {"module": model, "method": model.forward, "function": lambda x: model(x)}
    expected = measured(model, forward_only if function is weights_only_besides else function, inputs.clone())
    costs: list[Cost] = []
    view = counted_view(forms[form], costs.append)
    if function is weights_only_besides:
        function = forward_only
    function(view.forward_func, inputs.clone())  # type: ignore[arg-type]
    total = sum(costs, Cost())
    assert (total.rows, total.backward_rows) == (expected.rows, expected.backward_rows)


def test_the_parameters_of_another_model_do_not_count(model: Counting, inputs: Tensor) -> None:
    other = nn.Linear(6, 6)
    with ParameterUses(model) as uses:
        forward_only(model, other(inputs))
    assert uses.cost.rows == 2


def test_an_embedding_that_shares_the_weights_of_the_classifier_is_no_pass() -> None:
    embedding, classifier = nn.Embedding(10, 4), nn.Linear(4, 10)
    classifier.weight = embedding.weight
    model = nn.Sequential(embedding, classifier)
    with ParameterUses(model) as uses:
        model(torch.tensor([[1, 2, 3]]))
        model(torch.tensor([[1, 2, 3], [3, 4, 5]]))
    assert uses.cost.rows == 3


# Ways to run a model in which its rows cannot be observed, and a function without a model.
UNKNOWN: dict[str, Function] = {
    "a copy": lambda model, x: copy.deepcopy(model)(x)[:, :1] * x,
    "functional_call": lambda model, x: (
        torch.func.functional_call(model, {name: p.detach() for name, p in model.named_parameters()}, (x,))[:, :1] * x
    ),
    "another thread": lambda model, x: ThreadPoolExecutor(1).submit(forward_only, model, x).result(),
    "no model": lambda model, x: x.abs(),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_rows_that_cannot_be_observed_are_unknown(name: str, model: Counting, inputs: Tensor) -> None:
    game = CoalitionGame(model, inputs, target=0)
    unknown = from_function(lambda x, target: UNKNOWN[name](model, x), title="unknown")
    known = from_function(lambda x, target: gradient(model, x), title="known")
    run = play_method(game, unknown, "insertion")
    assert math.isnan(run.rows) and math.isnan(run.weighted_rows)
    # Later methods on the same game are counted.
    assert (play_method(game, known, "insertion").rows, play_method(game, known, "insertion").weighted_rows) == (1, 3)
    comparison = compare(model, inputs, target=0, methods=[unknown, known, "ablation"], modes="deletion")
    rows = {record["method"]: record["rows"] for record in comparison.records()}
    assert math.isnan(rows.pop("unknown"))  # type: ignore[arg-type]
    assert rows == {"known": 1, "FeatureAblation": 7}


def test_functional_call_with_the_models_own_parameters_counts(model: Counting, inputs: Tensor) -> None:
    with ParameterUses(model) as uses:
        torch.func.functional_call(model, dict(model.named_parameters()), (inputs,))
    assert uses.cost.rows == 2
