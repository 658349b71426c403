from fractions import Fraction

import pytest
import torch
from torch import Tensor

from captum_moxi.rewards import REWARDS, contrast, get_reward, log_odds, log_probability, predicted, probability


@pytest.fixture
def logits() -> Tensor:
    return torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])


def test_rewards_from_probabilities(logits: Tensor) -> None:
    target = torch.tensor([2, 0])
    p = torch.softmax(logits.double(), 1)[[0, 1], [2, 0]].float()
    torch.testing.assert_close(probability(logits, target), p)
    torch.testing.assert_close(log_probability(logits, target), p.log())
    torch.testing.assert_close(log_odds(logits, target), (p / (1 - p)).log())
    for name in ("logit", "output"):
        assert get_reward(name)(logits, target).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("gap", [70.0, -70.0])
def test_log_odds_are_finite_and_exact_within_1e_30_of_certainty(gap: float) -> None:
    # P / (1 - P) of two equal others is exp(gap) / 2, some 1e30, which no float32 probability can tell from 0 or 1
    logits = torch.tensor([[gap, 0.0, 0.0]])
    expected = torch.tensor([gap]) - torch.tensor(2.0).log()
    torch.testing.assert_close(log_odds(logits, torch.tensor([0])), expected)


def test_log_odds_by_exact_fractions() -> None:
    # P = 3/6, 2/6 and 1/6: odds 1, 1/2 and 1/5
    logits = torch.tensor([3.0, 2.0, 1.0]).log().repeat(3, 1)
    odds = [Fraction(1), Fraction(1, 2), Fraction(1, 5)]
    torch.testing.assert_close(log_odds(logits, torch.arange(3)).exp(), torch.tensor([float(x) for x in odds]))


def test_a_single_logit_is_a_sigmoid_classifiers() -> None:
    logits, target = torch.tensor([[1.5], [-0.5]]), torch.tensor([0, 0])
    p = 1 / (1 + torch.exp(-logits[:, 0]))
    torch.testing.assert_close(probability(logits, target), p)
    torch.testing.assert_close(log_probability(logits, target), p.log())
    torch.testing.assert_close(log_odds(logits, target), (p / (1 - p)).log())
    assert predicted(logits).tolist() == [0, -1]


def test_contrast_is_the_log_ratio_of_probabilities(logits: Tensor) -> None:
    p = logits.softmax(1)
    torch.testing.assert_close(contrast(0, 2)(logits, torch.tensor([1, 1])), (p[:, 0] / p[:, 2]).log())


@pytest.mark.parametrize("classes", [(1, 1), (-1, 0)])
def test_contrast_refuses_classes(classes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="contrast"):
        contrast(*classes)


def test_contrast_refuses_a_class_that_the_model_lacks(logits: Tensor) -> None:
    with pytest.raises(ValueError, match="3 classes"):
        contrast(0, 3)(logits, torch.tensor([0, 0]))


def test_an_unknown_reward_is_told_the_known() -> None:
    with pytest.raises(ValueError, match=r"reward is 'odds'.*log_odds"):
        get_reward("odds")


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_has_one_value_a_row_and_takes_integers(name: str) -> None:
    assert REWARDS[name](torch.tensor([[1, 2], [3, 0]]), torch.tensor([0, 1])).shape == (2,)
