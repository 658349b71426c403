"""What every registered metric must do. A metric that is registered later is tested without changes here."""

import pytest
import torch
from games import MODES
from specs import example_specs
from torch import Tensor

from captum_moxi import CoalitionGame
from captum_moxi.arguments import Mode
from captum_moxi.metrics import METRICS, Curve, play_curve

SPECS = pytest.mark.parametrize("spec", example_specs(METRICS))
WEIGHTS = torch.tensor([3.0, 1.0, -0.5, 2.0, -1.0])


def two_classes(x: Tensor) -> Tensor:
    """A linear model of two classes: the players' effects on class 1 are the weights, against a threshold of 2.5."""
    return torch.stack([torch.full((len(x),), 2.5), x @ WEIGHTS], 1)


def curve_of(order: Tensor, mode: Mode) -> Curve:
    """The curve of a ranking ``(B, 5)``."""
    game = CoalitionGame(two_classes, torch.ones(len(order), 5), target=1)
    return play_curve(game, order, mode)


@pytest.fixture
def best() -> Tensor:
    return WEIGHTS.argsort(descending=True)[None]


def test_different_metrics_have_different_titles() -> None:
    specs = example_specs(METRICS)
    assert len({METRICS.create(spec).title for spec in specs}) == len(specs)


@SPECS
@MODES
def test_the_best_order_is_better_than_its_reverse(spec: str, mode: Mode, best: Tensor) -> None:
    metric = METRICS.create(spec)
    good, bad = (float(metric.of_curve(curve_of(order, mode))[0]) for order in (best, best.flip(1)))
    assert metric.better[mode] in ("higher", "lower")
    assert good > bad if metric.better[mode] == "higher" else good < bad


@SPECS
@MODES
def test_the_value_of_an_example_does_not_depend_on_the_batch(spec: str, mode: Mode) -> None:
    metric = METRICS.create(spec)
    orders = torch.stack([torch.randperm(5) for _ in range(6)])
    batch = metric.of_curve(curve_of(orders, mode))
    assert batch.shape == (6,)
    assert batch.dtype is torch.float64
    singles = [metric.of_curve(curve_of(order[None], mode)) for order in orders]
    torch.testing.assert_close(batch, torch.cat(singles), equal_nan=True)


@SPECS
@MODES
def test_plain_values_are_those_of_the_curve(spec: str, mode: Mode, best: Tensor) -> None:
    metric = METRICS.create(spec)
    curve = curve_of(best, mode)
    value = float(metric.of_curve(curve)[0])
    assert metric.values(curve) == [value]
    assert isinstance(metric.values(curve)[0], int if metric.is_count else float)


@SPECS
@MODES
def test_a_summary_has_named_columns_even_if_no_example_flips(spec: str, mode: Mode) -> None:
    metric = METRICS.create(spec)
    # class 1 is never predicted in insertion, and always predicted in deletion
    bias = -20.0 if mode == "insertion" else 20.0
    game = CoalitionGame(lambda x: two_classes(x) + torch.tensor([0.0, bias]), torch.ones(2, 5), target=1)
    curve = play_curve(game, torch.arange(5).repeat(2, 1), mode)
    assert curve.flip_fraction.isnan().all()
    assert all(isinstance(column, str) and column for column in metric.summarize(curve))
    assert len(metric.values(curve)) == 2
