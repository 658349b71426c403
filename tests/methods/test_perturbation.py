"""Captum's perturbation methods on the game, against exact Shapley values."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from captum.attr import FeatureAblation
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, patch_mask
from captum_moxi.interactions import full_context_shapley, shapley_values
from captum_moxi.methods import METHODS, Method, on_game
from captum_moxi.models import LogitsModel

ScoresOf = Callable[[Method, CoalitionGame], Tensor]


@pytest.mark.parametrize(
    ("name", "tolerance"), [("shapley-exact", 1e-4), ("shapley:300", 0.3), ("kernel-shap:4000", 0.3)]
)
def test_shapley_values_of_the_game(
    name: str,
    tolerance: float,
    quarters: CoalitionGame,
    quarters_alone: list[CoalitionGame],
    scores_of: ScoresOf,
) -> None:
    scores = scores_of(METHODS.create(name), quarters)
    exact = torch.stack([shapley_values(game, 4) for game in quarters_alone])
    torch.testing.assert_close(scores, exact, rtol=0, atol=tolerance)


def test_lime_agrees_with_large_shapley_values_in_sign(
    quarters: CoalitionGame, quarters_alone: list[CoalitionGame], scores_of: ScoresOf
) -> None:
    scores = scores_of(METHODS.create("lime:4000"), quarters)
    exact = torch.stack([shapley_values(game, 4) for game in quarters_alone])
    large = exact.abs() > 1
    assert large.any()
    assert torch.equal(scores.sign()[large], exact.sign()[large])


def test_ablation_is_the_shapley_value_in_full_context(
    quarters: CoalitionGame, quarters_alone: list[CoalitionGame], scores_of: ScoresOf
) -> None:
    scores = scores_of(METHODS.create("ablation"), quarters)
    full = torch.stack([full_context_shapley(game, 4) for game in quarters_alone]).double()
    torch.testing.assert_close(scores, full, rtol=0, atol=1e-4)


def test_ablation_of_logits_is_captums_on_the_model(x: Tensor, scores_of: ScoresOf) -> None:
    model, mask = zoo.randomised(zoo.resnet()), patch_mask(32, 8)
    game = CoalitionGame(model, x, target=[1, 3], removal=BaselineRemoval(), feature_mask=mask, reward="logit")
    captum = FeatureAblation(LogitsModel(model)).attribute(x, target=[1, 3], feature_mask=mask)
    expected = captum[:, 0, ::8, ::8].flatten(1).double()
    torch.testing.assert_close(scores_of(METHODS.create("ablation"), game), expected, rtol=1e-3, atol=1e-3)


def test_exact_shapley_values_need_few_players(vit: torch.nn.Module, x: Tensor) -> None:
    game = CoalitionGame(vit, x, target=[1, 3])
    with pytest.raises(ValueError, match="exact Shapley values evaluate all orders of the 16 players"):
        METHODS.create("shapley-exact").check(game)


def test_any_class_with_captums_attribute_runs_on_the_game(scores_of: ScoresOf) -> None:
    """A method from outside Captum: the reward of each player alone, scaled."""

    class Alone:
        def __init__(self, forward_func: Callable[..., Any]) -> None:
            self.forward_func = forward_func

        def attribute(self, inputs: Tensor, scale: float) -> Tensor:
            assert inputs.tolist() == [[1, 1, 1]]
            return scale * self.forward_func(torch.eye(3))[None]

    game = CoalitionGame(lambda x: x @ torch.tensor([1.0, 3.0, 2.0]), torch.tensor([[1.0, 1, 1], [2, 2, 2]]))
    scores = scores_of(on_game("Alone", Alone, scale=10.0), game)
    torch.testing.assert_close(scores, torch.tensor([[10.0, 30, 20], [20, 60, 40]]).double())
