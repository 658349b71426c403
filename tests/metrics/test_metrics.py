"""Metrics by name, and metrics from outside the package."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from captum_moxi import compare, insertion_curve
from captum_moxi.metrics import METRICS, Curve, Metric, get_metrics


def two_classes(x: Tensor) -> Tensor:
    return torch.stack([torch.ones(len(x)), x @ torch.tensor([3.0, 1.0, -2.0, 0.0])], 1)


def last_reward(curve: Curve) -> Tensor:
    return curve.rewards[:, -1].double()


@pytest.fixture
def curve() -> Curve:
    order = torch.tensor([[2, 0, 1, 3], [0, 1, 2, 3], [1, 2, 3, 0]])
    return insertion_curve(two_classes, torch.ones(3, 4), attributions=order, target=1)


@pytest.fixture
def registered() -> Iterator[str]:
    better = {"insertion": "higher", "deletion": "lower"}
    METRICS.register("last-reward", lambda: Metric("last reward", last_reward, better))  # type: ignore[arg-type]
    yield "last-reward"
    METRICS.unregister("last-reward")


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_gives_one_number_per_example(name: str, curve: Curve) -> None:
    metric = METRICS.create(name)
    values = metric.of_curve(curve)
    assert values.shape == (3,)
    assert values.dtype == torch.float64
    assert set(metric.better) == {"insertion", "deletion"}
    assert len(metric.values(curve)) == 3
    assert metric.summarize(curve)


def test_areas_are_those_of_the_curve(curve: Curve) -> None:
    assert torch.equal(METRICS.create("area").of_curve(curve), curve.area("confidences"))
    assert torch.equal(METRICS.create("reward-area").of_curve(curve), curve.area("rewards"))


def test_the_summary_is_the_mean_over_examples_with_a_value(curve: Curve) -> None:
    assert METRICS.create("area").summarize(curve) == {"area": pytest.approx(float(curve.area().mean()))}
    metric = Metric("reward", lambda curve: torch.tensor([1.0, torch.nan, 4.0]).double(), better={})
    assert metric.summarize(curve) == {"reward": 2.5}


def test_all_registered_metrics_by_default(registered: str) -> None:
    titles = [metric.title for metric in get_metrics()]
    assert titles == ["players to flip", "area", "reward area", "last reward"]


def test_a_registered_metric_appears_in_the_table_and_in_messages(registered: str) -> None:
    comparison = compare(two_classes, torch.ones(1, 4), target=1, methods="random", modes="insertion")
    assert comparison.records()[0]["last reward"] == pytest.approx(1)
    with pytest.raises(ValueError, match=r"metric 'magic' is unknown; pass one of players-to-flip, .*last-reward"):
        get_metrics(["magic"])


def test_metrics_that_cannot_be_created() -> None:
    with pytest.raises(TypeError, match="metrics contains 3; pass names or Metric objects"):
        get_metrics([3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="pass metrics with different titles"):
        get_metrics(["area", "area"])
