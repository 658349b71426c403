import warnings
from collections.abc import Callable
from typing import Any

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
        (nn.Flatten(), torch.zeros(1, 3, 32, 32), r"feature_mask=patch_mask\(\(32, 32\), \(2, 2\)\)"),
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


NAN = float("nan")
# Methods that take rows, with everything that is not a coalition or an example.
ROW_METHODS = {
    "outcome": lambda game, rows, examples: game.outcome(rows, examples),
    "class_probabilities": lambda game, rows, examples: game.class_probabilities(rows, examples),
    "effects": lambda game, rows, examples: game.effects(rows, examples),
    "approximate": lambda game, rows, examples: game.approximate(rows, examples, torch.bfloat16),
    "row_costs": lambda game, rows, examples: game.row_costs(rows, examples),
    "pictures": lambda game, rows, examples: game.pictures(rows, examples, lambda x: x.permute(0, 2, 3, 1)),
}


@pytest.fixture
def image_game() -> CoalitionGame:
    return CoalitionGame(zoo.token_model("vit"), torch.randn(2, 3, 32, 32), target=1)


@pytest.mark.parametrize("method", ROW_METHODS)
@pytest.mark.parametrize(
    ("coalitions", "error", "message"),
    [
        ([[1] * 16] * 2, TypeError, "coalitions is a list; pass a tensor"),
        (np.ones((2, 16)), TypeError, "coalitions is a ndarray"),
        (None, TypeError, "coalitions is a NoneType"),
        (torch.ones(2, 16, dtype=torch.cfloat), TypeError, "coalitions has dtype torch.complex64"),
        (torch.ones(2, 16).to_sparse(), TypeError, "layout torch.sparse_coo"),
        (torch.ones(16), ValueError, r"coalitions has shape \(16,\); pass \(M, 16\)"),
        (torch.ones(2, 1, 16), ValueError, r"coalitions has shape \(2, 1, 16\)"),
        (torch.tensor(1.0), ValueError, r"coalitions has shape \(\)"),
        (torch.full((2, 16), NAN), ValueError, "coalitions contains values other than 0 and 1"),
        (torch.full((2, 16), torch.inf), ValueError, "coalitions contains values other than 0 and 1"),
        (-torch.ones(2, 16, dtype=torch.long), ValueError, "coalitions contains values other than 0 and 1"),
    ],
)
def test_what_is_not_a_coalition_is_rejected_by_name(
    method: str, coalitions: Any, error: type[Exception], message: str, image_game: CoalitionGame
) -> None:
    cost = image_game.cost
    with pytest.raises(error, match=message):
        ROW_METHODS[method](image_game, coalitions, torch.tensor([0, 1]))
    assert image_game.cost == cost


@pytest.mark.parametrize("method", ROW_METHODS)
@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        ([0, 1], TypeError, "examples is a list; pass a tensor"),
        (1, TypeError, "examples is a int; pass a tensor"),
        (torch.tensor([0, 1], dtype=torch.cfloat), TypeError, "examples has dtype torch.complex64"),
        (torch.tensor([NAN, 1.0]), ValueError, "examples has shape .* and dtype torch.float32"),
        (torch.tensor([0, 2**62]), ValueError, "examples has indices outside 0 to 1"),
        (torch.tensor(0), ValueError, r"examples has shape \(\)"),
    ],
)
def test_what_is_not_an_example_is_rejected_by_name(
    method: str, examples: Any, error: type[Exception], message: str, image_game: CoalitionGame
) -> None:
    with pytest.raises(error, match=message):
        ROW_METHODS[method](image_game, torch.ones(2, 16), examples)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda game: game.restrict([[True] * 16] * 2), TypeError, "exists is a list; pass a tensor"),
        (lambda game: game.restrict(torch.ones(2, 16)), ValueError, "exists has shape .* pass a bool tensor"),
        (lambda game: game.positions_of([0]), TypeError, "ids is a list; pass a tensor of integers"),
        (lambda game: game.positions_of(torch.tensor([NAN])), TypeError, "ids has dtype torch.float32"),
        (lambda game: game.positions_of(torch.tensor([16])), ValueError, "player 16 does not exist"),
        (lambda game: game.positions_of(torch.tensor([-2])), ValueError, "player -2 does not exist"),
        (lambda game: game.pictures(torch.ones(1, 16), torch.tensor([0]), None), TypeError, "to_images is None"),
        (
            lambda game: game.pictures(torch.ones(1, 16), torch.tensor([0]), lambda x: x),
            ValueError,
            r"to_images returned \(1, 3, 32, 32\); return a tensor of shape \(1, 32, 32, 3\)",
        ),
        (
            lambda game: game.pictures(torch.ones(1, 16), torch.tensor([0]), lambda x: [x]),
            ValueError,
            "to_images returned list",
        ),
        (
            lambda game: game.approximate(torch.ones(1, 16), torch.tensor([0]), "half"),
            TypeError,
            "dtype is 'half'; pass torch.bfloat16 or torch.float16",
        ),
        (
            lambda game: game.approximate(torch.ones(1, 16), torch.tensor([0]), torch.float64),
            ValueError,
            "dtype is torch.float64; pass torch.bfloat16 or torch.float16",
        ),
    ],
)
def test_other_arguments_of_a_game_are_rejected_by_name(
    run: Callable[[CoalitionGame], object], error: type[Exception], message: str, image_game: CoalitionGame
) -> None:
    with pytest.raises(error, match=message):
        run(image_game)


@pytest.mark.parametrize("coalitions", [[1.0] * 6, "111111", None, np.array([["1"] * 6]), np.array([[None] * 6])])
def test_a_call_accepts_only_tensors_and_arrays_of_numbers(coalitions: Any, x: Tensor) -> None:
    with pytest.raises(TypeError, match="coalitions"):
        CoalitionGame(zoo.Classes(6), x, target=0)(coalitions)


def test_class_probabilities_name_the_coalition_with_non_finite_logits(x: Tensor) -> None:
    game = CoalitionGame(lambda x: torch.where(x[:, :1] == 0, torch.nan, x), x, target=0)
    with pytest.raises(ValueError, match=r"non-finite logits for example 0 with 1 of 6 players present: \{3\}"):
        game.class_probabilities(torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]))


def test_the_number_of_coalitions_in_a_pass_may_be_any_int(x: Tensor) -> None:
    model, coalitions = zoo.Classes(6), torch.rand(5, 6) < 0.5
    expected = CoalitionGame(model, x, target=0)(coalitions)
    for per_eval in (10**400, torch.tensor(3), np.int64(2)):
        game = CoalitionGame(model, x, target=0, perturbations_per_eval=per_eval)
        torch.testing.assert_close(game(coalitions), expected)
    for per_eval in (torch.tensor([1, 2]), torch.tensor(1.5), NAN):
        with pytest.raises(TypeError, match=r"perturbations_per_eval is .*; pass an int of at least 1"):
            CoalitionGame(model, x, target=0, perturbations_per_eval=per_eval)


def test_a_model_may_overwrite_its_output_in_the_next_pass() -> None:
    model, x, buffer = zoo.Classes(6), torch.randn(3, 6), torch.empty(64, 3)

    def into_buffer(x: Tensor) -> Tensor:
        return buffer[: len(x)].copy_(model(x))

    def plain(x: Tensor) -> Tensor:
        return model(x)

    def second_logit(logits: Tensor, target: Tensor) -> Tensor:
        return logits[:, 1]  # a view

    coalitions, examples = torch.rand(20, 6) < 0.5, torch.arange(20) % 3
    players = torch.ones(3, 6, dtype=torch.bool).tril(4)
    rewards = []
    with torch.no_grad():
        for forward in (into_buffer, plain):
            game = CoalitionGame(forward, x, target=0, reward=second_logit, perturbations_per_eval=2)
            outcome = game.outcome(coalitions, examples)
            part, other = game.restrict(players), game.with_reward("probability")
            rewards.append((outcome.rewards, outcome.confidences, part.full.rewards, other.full.rewards))
    for actual, expected in zip(*rewards, strict=True):
        assert torch.equal(actual, expected)


def test_a_reward_may_change_the_logits_that_it_receives(x: Tensor) -> None:
    def centered(logits: Tensor, target: Tensor) -> Tensor:
        logits.mul_(0).add_(target[:, None])
        return logits[:, 0]

    model, coalitions = zoo.Classes(6), torch.rand(9, 6) < 0.5
    game = CoalitionGame(model, x, target=2, reward=centered)
    expected = CoalitionGame(model, x, target=2).outcome(coalitions)
    outcome = game.outcome(coalitions)
    assert outcome.rewards.tolist() == [2.0] * 9
    assert torch.equal(outcome.confidences, expected.confidences)
    assert torch.equal(outcome.predictions, expected.predictions)
    assert torch.equal(game.with_reward("log_odds").full.rewards, CoalitionGame(model, x, target=2).full.rewards)


def test_tensors_that_require_gradients_cause_neither_warnings_nor_gradients() -> None:
    model, x = zoo.randomised(zoo.resnet()), torch.randn(2, 3, 32, 32, requires_grad=True)
    baselines, rows = torch.zeros(1, 3, 1, 1, requires_grad=True), torch.ones(2, 4, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({"baselines": baselines}, {"removal": "blur"}, {"removal": "mean"}):
            game = CoalitionGame(model, x, target=1, feature_mask=patch_mask(32, 16), **options)
            outcome = game.outcome(rows, torch.arange(2))
            tensors = [outcome.rewards, game.class_probabilities(rows, torch.arange(2)), game.full.rewards]
            tensors += [game.effects(rows, torch.arange(2)) for _ in range(2)]
            tensors.append(game.pictures(rows, torch.arange(2), lambda x: x.permute(0, 2, 3, 1)))
            assert not any(tensor.requires_grad for tensor in tensors)
    assert x.grad is None and baselines.grad is None and rows.grad is None


@pytest.mark.parametrize("removal", ["token", "zero", "blur", BaselineRemoval("mean")])
def test_a_game_under_another_removal_is_the_game_created_with_it(removal: BaselineRemoval | str) -> None:
    model, x = zoo.token_model("vit"), torch.randn(2, 3, 32, 32)
    game = CoalitionGame(model, x, target=[1, 3], reward="logit", removal="attention")
    other = game.with_removal(removal)
    expected = CoalitionGame(model, x, target=[1, 3], reward="logit", removal=removal)
    coalitions, examples = torch.rand(10, 16) < 0.5, torch.tensor([0, 1] * 5)
    before = game.cost.rows
    outcome, wanted = other.outcome(coalitions, examples), expected.outcome(coalitions, examples)
    torch.testing.assert_close(outcome.rewards, wanted.rewards)
    assert torch.equal(outcome.predictions, wanted.predictions)
    assert game.cost.rows == before + 10
    # Without a player, the output for all players depends on the removal.
    exists = torch.arange(16).expand(2, -1) > 0
    restricted, wanted_full = game.restrict(exists).with_removal(removal), expected.restrict(exists).full
    torch.testing.assert_close(restricted.full.rewards, wanted_full.rewards)
    torch.testing.assert_close(
        restricted.outcome(coalitions, examples).rewards,
        expected.restrict(exists).outcome(coalitions, examples).rewards,
    )


def test_baselines_belong_to_the_removal_of_their_game() -> None:
    model, x = zoo.token_model("vit"), torch.randn(1, 3, 32, 32)
    game = CoalitionGame(model, x, target=1, baselines=0.5)
    expected = CoalitionGame(model, x, target=1, removal="zero")
    coalitions = torch.rand(5, 16) < 0.5
    torch.testing.assert_close(game.with_removal("zero")(coalitions), expected(coalitions))
    with pytest.raises(TypeError, match="removal is None; pass"):
        game.with_removal(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'hail' is unknown"):
        game.with_removal("hail")
