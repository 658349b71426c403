"""How a game uses rewards: named ones, functions, and those that depend on the example."""

import warnings

import pytest
import torch
import zoo
from torch import Tensor, nn

from captum_moxi import CoalitionGame
from captum_moxi.rewards import ExampleReward, contrast, log_odds, probability


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 6)


def test_a_reward_may_be_any_function_and_need_no_target(x: Tensor) -> None:
    model, coalitions = zoo.Classes(6), torch.rand(5, 6) < 0.5
    with torch.no_grad():
        logits = model(x * coalitions)

    def entropy(logits: Tensor, target: Tensor | None) -> Tensor:
        assert target is None
        return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)

    game = CoalitionGame(model, x, reward=entropy)
    outcome = game.outcome(coalitions)
    torch.testing.assert_close(outcome.rewards, entropy(logits, None))
    assert game.targets is None
    assert game.captum_target is None
    assert outcome.confidences.isnan().all()
    contrasts = CoalitionGame(model, x, reward=contrast(0, 2))(coalitions)
    torch.testing.assert_close(contrasts, logits[:, 0] - logits[:, 2])


def test_rewards_that_are_not_finite_or_not_one_per_row_are_rejected(x: Tensor) -> None:
    model = zoo.Classes(6)
    with pytest.raises(ValueError, match="reward returned a non-finite value for example 0 with 6 of 6 players"):
        CoalitionGame(model, x, reward=lambda logits, target: logits[:, 0] * torch.inf)
    with pytest.raises(ValueError, match=r"reward returned \(1, 3\) for logits of shape \(1, 3\); return one value"):
        CoalitionGame(model, x, target=0, reward=lambda logits, target: logits)
    with pytest.raises(ValueError, match="reward returned float"):
        CoalitionGame(model, x, target=0, reward=lambda logits, target: 1.0)


def test_with_reward_returns_the_game_with_another_reward() -> None:
    model, x = zoo.Classes(6), torch.randn(3, 6)
    game = CoalitionGame(model, x, target=[0, 1, 2])
    other = game.with_reward("probability")
    assert other is not game
    coalitions, examples = torch.rand(12, 6) < 0.5, torch.arange(12) % 3
    expected = CoalitionGame(model, x, target=[0, 1, 2], reward="probability")
    torch.testing.assert_close(
        other.outcome(coalitions, examples).rewards, expected.outcome(coalitions, examples).rewards
    )
    torch.testing.assert_close(other.full.rewards, expected.full.rewards)
    assert other.rounds_relatively and not game.rounds_relatively
    # the first game still has its reward
    torch.testing.assert_close(game.full.rewards, torch.logit(other.full.rewards), rtol=1e-4, atol=1e-5)


def test_a_reward_can_depend_on_the_example() -> None:
    class PerExample(ExampleReward):
        """Log-odds of the first example, and the probability of the others."""

        def __call__(self, logits: Tensor, target: Tensor, examples: Tensor) -> Tensor:
            is_first = (examples == 0).to(logits.device)
            return torch.where(is_first, log_odds(logits, target), probability(logits, target))

    model, x = zoo.Classes(6), torch.randn(3, 6)
    game = CoalitionGame(model, x, target=1)
    mixed = game.with_reward(PerExample())
    coalitions, examples = torch.rand(12, 6) < 0.5, torch.tensor([0, 2, 1, 0] * 3)
    rewards = mixed.outcome(coalitions, examples).rewards
    logits = game.outcome(coalitions, examples).rewards
    probabilities = game.with_reward("probability").outcome(coalitions, examples).rewards
    torch.testing.assert_close(rewards, torch.where(examples == 0, logits, probabilities))
    assert mixed.full.rewards[0] == game.full.rewards[0]


def test_with_reward_rejects_a_named_reward_if_the_game_has_no_target(x: Tensor) -> None:
    game = CoalitionGame(zoo.Classes(6), x, reward=contrast(0, 1))
    with pytest.raises(ValueError, match="target is None, but the model returns 3 classes"):
        game.with_reward("log_odds")
    with pytest.raises(ValueError, match="reward 'odds' is unknown"):
        CoalitionGame(zoo.Classes(6), x, target=0).with_reward("odds")


def test_a_model_that_returns_probabilities_raises_a_warning(x: Tensor) -> None:
    softmax = nn.Sequential(zoo.Classes(6), nn.Softmax(-1))
    with pytest.warns(UserWarning, match="seems to return probabilities"):
        CoalitionGame(softmax, x, target=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CoalitionGame(softmax, x, target=0, reward="output")
        CoalitionGame(softmax, x, target=0, reward="logit")
        CoalitionGame(zoo.Classes(6), x, target=0)
