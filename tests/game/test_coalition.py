from collections.abc import Callable

import numpy as np
import pytest
import torch
import zoo
from captum.attr import FeatureAblation, KernelShap, Lime, ShapleyValues, ShapleyValueSampling
from torch import Tensor, nn

from captum_moxi import BaselineRemoval, CoalitionGame, interactions, patch_mask
from captum_moxi.game import MAX_PLAYERS, Cost


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 6)


def log_odds_of(model: nn.Module, x: Tensor, coalitions: Tensor, target: int) -> Tensor:
    """The rewards of coalitions of one example, computed one by one in double precision."""
    with torch.no_grad():
        p = torch.stack([model(x[0:1] * row)[0].double().softmax(0)[target] for row in coalitions])
    return (p / (1 - p)).log().float()


def test_the_value_of_a_coalition_is_the_reward_of_the_model_with_its_players(x: Tensor) -> None:
    model, coalitions = zoo.Classes(6), torch.rand(20, 6) < 0.5
    game = CoalitionGame(model, x, target=2)
    expected = log_odds_of(model, x, coalitions, 2)
    torch.testing.assert_close(game(coalitions), expected)
    torch.testing.assert_close(game(coalitions.float()), expected)
    torch.testing.assert_close(torch.from_numpy(game(coalitions.numpy())), expected)
    assert isinstance(game(coalitions.numpy()), np.ndarray)
    assert game(coalitions[0]).shape == (1,)


def test_an_outcome_has_the_reward_confidence_and_prediction_of_each_row() -> None:
    model, x = zoo.Classes(6), torch.randn(2, 6)
    game = CoalitionGame(model, x, target=[2, 0])
    coalitions, examples = torch.rand(10, 6) < 0.5, torch.arange(10) % 2
    outcome = game.outcome(coalitions, examples)
    with torch.no_grad():
        logits = model(x[examples] * coalitions)
    p = logits.softmax(1)
    torch.testing.assert_close(outcome.confidences, p[torch.arange(10), torch.tensor([2, 0])[examples]])
    torch.testing.assert_close(outcome.rewards, torch.logit(outcome.confidences), rtol=1e-4, atol=1e-5)
    assert torch.equal(outcome.predictions, logits.argmax(1))
    torch.testing.assert_close(game.class_probabilities(coalitions, examples), p)


def test_the_full_outcome_is_that_of_the_unchanged_inputs() -> None:
    game = CoalitionGame(zoo.Classes(6), torch.randn(3, 6), target=1)
    outcome = game.outcome(game.exists, torch.arange(3))
    torch.testing.assert_close(game.full.rewards, outcome.rewards)
    torch.testing.assert_close(game.full.confidences, outcome.confidences)
    assert torch.equal(game.full.predictions, outcome.predictions)


def test_captums_perturbation_methods_attribute_a_game(x: Tensor) -> None:
    game = CoalitionGame(zoo.Classes(6), x, target=1)
    exact = interactions.shapley_values(game, 6).float()
    ones = torch.ones(1, 6)
    values = ShapleyValues(game).attribute(ones, perturbations_per_eval=4)[0]
    torch.testing.assert_close(values, exact, atol=1e-4, rtol=0)
    ablation = FeatureAblation(game).attribute(ones)[0]
    torch.testing.assert_close(ablation, interactions.full_context_shapley(game, 6))
    total = game(ones) - game(torch.zeros(1, 6))
    sampled = ShapleyValueSampling(game).attribute(ones, n_samples=5)
    torch.testing.assert_close(sampled.sum(1), total, atol=1e-4, rtol=0)
    assert KernelShap(game).attribute(ones, n_samples=30).shape == (1, 6)
    assert Lime(game).attribute(ones, n_samples=30).shape == (1, 6)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_single_logit_is_that_of_a_sigmoid_classifier(shape: tuple[int, ...], x: Tensor) -> None:
    game = CoalitionGame(lambda x: x.sum(1).reshape(shape), x)
    coalition = torch.tensor([[1, 1, 0, 0, 0, 0]])
    outcome = game.outcome(coalition)
    logit = float(x[0, :2].sum())
    confidence = 1 / (1 + np.exp(-logit))
    assert float(outcome.rewards[0]) == pytest.approx(logit)
    assert float(outcome.confidences[0]) == pytest.approx(confidence)
    assert int(outcome.predictions[0]) == (0 if logit > 0 else -1)
    assert game.class_probabilities(coalition).tolist() == [[pytest.approx(confidence)]]


def test_half_precision_output_has_a_single_precision_reward(x: Tensor) -> None:
    game = CoalitionGame(lambda x: x.to(torch.bfloat16), x, target=0)
    assert game.output_dtype is torch.bfloat16
    assert game(torch.ones(6)).dtype is torch.float32


def test_approximate_rewards_are_those_under_autocast(x: Tensor) -> None:
    model = zoo.Classes(6)
    game = CoalitionGame(model, x, target=1, reward="output")
    coalitions = torch.rand(8, 6) < 0.5
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(x * coalitions)[:, 1].float()
    rewards = game.approximate(coalitions, torch.zeros(8, dtype=torch.long), torch.bfloat16)
    torch.testing.assert_close(rewards, expected)


def test_rows_that_are_not_coalitions_are_rejected(x: Tensor) -> None:
    game = CoalitionGame(zoo.Classes(6), x, target=0)
    with pytest.raises(ValueError, match=r"coalitions has shape \(2, 5\); pass \(M, 6\)"):
        game(torch.ones(2, 5))
    with pytest.raises(ValueError, match="other than 0 and 1"):
        game(torch.full((1, 6), 0.5))
    with pytest.raises(ValueError, match=r"has 2 examples.*outcome\(coalitions, examples\)"):
        CoalitionGame(zoo.Classes(6), x.repeat(2, 1), target=0)(torch.ones(1, 6))


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (None, "examples is None, but the game has 2 examples"),
        (torch.tensor([0]), r"examples has shape \(1,\)"),
        (torch.tensor([0.0, 1.0, 0.0]), "dtype torch.float32; pass one integer index per row"),
        (torch.tensor([True, False, True]), "dtype torch.bool"),
        (torch.tensor([0, 1, 2]), "examples has indices outside 0 to 1"),
        (torch.tensor([0, -1, 0]), "examples has indices outside 0 to 1"),
    ],
)
def test_each_row_needs_an_example_of_the_game(examples: Tensor | None, message: str) -> None:
    game = CoalitionGame(zoo.Classes(6), torch.randn(2, 6), target=0)
    for run in (game.outcome, game.class_probabilities, game.effects):
        with pytest.raises(ValueError, match=message):
            run(torch.ones(3, 6), examples)


def test_players_that_an_example_does_not_have_are_never_present() -> None:
    mask = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 3, 3]])
    game = CoalitionGame(zoo.Classes(6), torch.randn(2, 6), target=1, feature_mask=mask)
    coalitions, examples = torch.ones(2, 6, dtype=torch.bool), torch.arange(2)
    assert torch.equal(game.outcome(coalitions, examples).rewards, game.outcome(game.exists, examples).rewards)
    part = game.restrict(game.exists & (torch.arange(6) < 2))
    assert torch.equal(part.outcome(coalitions, examples).rewards, part.full.rewards)


def test_no_rows_have_no_values(x: Tensor) -> None:
    game = CoalitionGame(zoo.Classes(6), x, target=0)
    rows = torch.ones(0, 6)
    assert game(rows).shape == (0,)
    assert game.outcome(rows).predictions.dtype is torch.long
    assert game.approximate(rows, torch.zeros(0, dtype=torch.long), torch.bfloat16).shape == (0,)
    assert len(game.class_probabilities(rows)) == len(game.effects(rows)) == 0


def test_an_error_about_non_finite_logits_names_the_coalition(x: Tensor) -> None:
    def broken(x: Tensor) -> Tensor:
        return torch.where((x[:, 2:4] == 0).all(1, keepdim=True), torch.nan, x)

    mask = torch.tensor([[4, 8, 15, 16, 23, 42]])
    game = CoalitionGame(broken, x, target=0, feature_mask=mask)
    game(torch.tensor([[1, 1, 0, 1, 1, 1]]))
    with pytest.raises(ValueError, match=r"non-finite logits for example 0 with 2 of 6 players present: \{4, 23\}"):
        game(torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 1, 0]]))


@pytest.mark.parametrize(
    ("forward", "x", "suggestion"),
    [
        (lambda x: x.sum(1), torch.zeros(1, MAX_PLAYERS + 1), "a feature_mask that groups values into players"),
        (lambda x: x.sum((1, 2, 3)), torch.zeros(1, 3, 32, 32), r"feature_mask=patch_mask\(\(32, 32\), \(2, 2\)\)"),
        (zoo.TimmLayout(), torch.zeros(1, 3, 32, 32), r"feature_mask=patch_mask\(\(32, 32\), \(2, 2\)\)"),
    ],
)
def test_too_many_default_players_are_rejected_with_a_suggestion(
    forward: Callable[[Tensor], Tensor], x: Tensor, suggestion: str
) -> None:
    with pytest.raises(ValueError, match=f"a full ranking needs .* rows for each example; pass {suggestion}"):
        CoalitionGame(forward, x, target=None if x.dim() == 2 else 0)


def test_a_function_around_a_model_works_with_a_mask_and_otherwise_the_model_is_suggested() -> None:
    model, x = zoo.token_model("vit"), torch.randn(1, 3, 32, 32)

    def logits(images: Tensor) -> Tensor:
        return model(images).logits

    with pytest.raises(ValueError, match=r"3,072 players.*patch_mask.*pass the model itself"):
        CoalitionGame(logits, x, target=0)
    with pytest.raises(ValueError, match=r"150,528 players.*feature_mask=patch_mask\(\(224, 224\), \(16, 16\)\)"):
        CoalitionGame(logits, torch.zeros(1, 3, 224, 224), target=0)
    mask = patch_mask(32, 16)
    rows = torch.eye(4)
    filled = CoalitionGame(model, x, target=0, feature_mask=mask, removal=BaselineRemoval())
    torch.testing.assert_close(CoalitionGame(logits, x, target=0, feature_mask=mask)(rows), filled(rows))


def test_a_function_of_one_image_without_a_batch_dimension_gets_advice() -> None:
    with pytest.raises(ValueError, match=r"If inputs is one image \(C, H, W\) = \(3, 32, 32\), pass x\[None\]"):
        CoalitionGame(lambda x: x.flatten(1), torch.zeros(3, 32, 32), target=0)


def test_rows_are_reported_while_the_game_is_watched() -> None:
    game = CoalitionGame(zoo.Classes(6), torch.randn(1, 6), target=0)
    rows: list[int] = []
    with game.report_rows(rows.append):
        game(torch.ones(5, 6))
        game.with_reward("logit").effects(torch.ones(2, 6))
        game.add_cost(Cost(rows=3, passes=1))
    game(torch.ones(4, 6))
    assert rows == [5, 2, 3]


def test_the_cost_of_a_row_is_its_number_of_tokens() -> None:
    x, mask = torch.randn(1, 3, 32, 32), patch_mask(32, 16)
    rows = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]])
    # Each player has four patches.
    assert CoalitionGame(zoo.token_model("vit"), x, target=0, feature_mask=mask).row_costs(rows).tolist() == [5, 13, 1]
    assert CoalitionGame(zoo.resnet().eval(), x, target=0, feature_mask=mask).row_costs(rows).tolist() == [1, 1, 1]


def test_players_given_by_a_mask_may_be_many() -> None:
    mask = torch.arange(MAX_PLAYERS + 1)[None]
    assert CoalitionGame(lambda x: x.sum(1), torch.zeros(1, MAX_PLAYERS + 1), feature_mask=mask).n_players == 601


def test_pictures_need_one_batch_of_images(x: Tensor) -> None:
    game = CoalitionGame(zoo.Classes(6), x, target=0)
    with pytest.raises(ValueError, match=r"pictures need one input of images.*\(1, 6\)"):
        game.pictures(torch.ones(1, 6), None, lambda values: values)


def test_restrict_removes_players_from_every_coalition() -> None:
    model, x = zoo.Classes(6), torch.randn(2, 6)
    game = CoalitionGame(model, x, target=[1, 2])
    exists = torch.tensor([[True, True, False, True, True, True], [True, False, True, True, False, True]])
    part = game.restrict(exists)
    assert part is not game
    assert torch.equal(part.exists, exists)
    assert game.exists.all()
    assert part.n_players == 6
    assert torch.equal(part.ids, game.ids)
    expected = game.outcome(exists, torch.arange(2))
    torch.testing.assert_close(part.full.rewards, expected.rewards)
    torch.testing.assert_close(part.full.confidences, expected.confidences)
    assert torch.equal(part.full.predictions, expected.predictions)
    assert not torch.allclose(game.full.rewards, expected.rewards)
    coalitions = exists & (torch.rand(2, 6) < 0.5)
    assert torch.equal(
        part.outcome(coalitions, torch.arange(2)).rewards, game.outcome(coalitions, torch.arange(2)).rewards
    )


@pytest.mark.parametrize(
    ("exists", "message"),
    [
        (torch.ones(1, 6, dtype=torch.bool), r"pass a bool tensor of shape \(2, 6\)"),
        (torch.ones(2, 6), "pass a bool tensor"),
        (torch.ones(2, 6, dtype=torch.bool), "players that an example of this game does not have"),
    ],
)
def test_restrict_rejects_players_that_are_not_in_the_game(exists: Tensor, message: str) -> None:
    mask = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 4]])
    game = CoalitionGame(zoo.Classes(6), torch.randn(2, 6), target=1, feature_mask=mask)
    with pytest.raises(ValueError, match=message):
        game.restrict(exists)


def test_derived_games_share_the_model_and_the_count_of_its_rows() -> None:
    model, x, n_rows = zoo.Classes(6), torch.randn(2, 6), 0

    def forward(x: Tensor) -> Tensor:
        nonlocal n_rows
        n_rows += len(x)
        return model(x)

    game = CoalitionGame(forward, x, target=1)
    part = game.restrict(torch.ones(2, 6, dtype=torch.bool).tril(4))
    before = n_rows
    part.with_reward("probability")
    assert n_rows == before
    part.with_reward("output").outcome(torch.ones(3, 6), torch.tensor([1, 0, 1]))
    assert game.cost.rows == part.cost.rows == n_rows


def test_a_grid_of_players_for_images_of_a_transformer() -> None:
    game = CoalitionGame(
        zoo.token_model("vit"), torch.randn(2, 3, 32, 32), target=0, feature_mask=patch_mask(32, grid=2)
    )
    assert (game.n_players, game.n_examples) == (4, 2)
    assert game.ids.tolist() == [0, 1, 2, 3]
