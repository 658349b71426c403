from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_moxi.rewards import (
    Contrast,
    Traits,
    Versus,
    contrast,
    get_reward,
    log_odds,
    log_probability,
    predicted_class,
    probability,
    traits,
    traits_of,
)


@pytest.fixture
def logits() -> Tensor:
    return torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])


def test_rewards_agree_with_their_definition_by_probabilities(logits: Tensor) -> None:
    target = torch.tensor([2, 0])
    p = torch.softmax(logits.double(), 1)[[0, 1], [2, 0]].float()
    torch.testing.assert_close(probability(logits, target), p)
    torch.testing.assert_close(log_probability(logits, target), p.log())
    torch.testing.assert_close(log_odds(logits, target), (p / (1 - p)).log())
    for name in ("logit", "output"):
        assert get_reward(name)(logits, target).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("gap", [70.0, -70.0])
def test_log_odds_are_finite_and_exact_within_1e_30_of_certainty(gap: float) -> None:
    # the odds against two equal classes are exp(gap) / 2, about 1e30; in float32 the probability itself is 0 or 1
    logits = torch.tensor([[gap, 0.0, 0.0]])
    expected = torch.tensor([gap]) - torch.tensor(2.0).log()
    torch.testing.assert_close(log_odds(logits, torch.tensor([0])), expected)


def test_log_odds_agree_with_exact_fractions() -> None:
    # P = 3/6, 2/6 and 1/6: odds 1, 1/2 and 1/5
    logits = torch.tensor([3.0, 2.0, 1.0]).log().repeat(3, 1)
    odds = [Fraction(1), Fraction(1, 2), Fraction(1, 5)]
    torch.testing.assert_close(log_odds(logits, torch.arange(3)).exp(), torch.tensor([float(x) for x in odds]))


def test_a_single_logit_belongs_to_a_sigmoid_classifier() -> None:
    logits, target = torch.tensor([[1.5], [-0.5]]), torch.tensor([0, 0])
    p = 1 / (1 + torch.exp(-logits[:, 0]))
    torch.testing.assert_close(probability(logits, target), p)
    torch.testing.assert_close(log_probability(logits, target), p.log())
    torch.testing.assert_close(log_odds(logits, target), (p / (1 - p)).log())
    assert predicted_class(logits).tolist() == [0, -1]


def test_the_predicted_class_has_the_largest_logit(logits: Tensor) -> None:
    assert predicted_class(logits).tolist() == [0, 1]


def test_contrast_is_the_log_ratio_of_two_probabilities(logits: Tensor) -> None:
    p = logits.softmax(1)
    torch.testing.assert_close(contrast(0, 2)(logits, torch.tensor([1, 1])), (p[:, 0] / p[:, 2]).log())
    assert contrast(0, 2) == Contrast(0, 2)


def test_versus_is_the_log_ratio_of_the_targets_probability_and_another(logits: Tensor) -> None:
    p = logits.softmax(1)
    expected = (p[[0, 1], [2, 0]] / p[:, 1]).log()
    for reward in (Versus(1), get_reward("contrast:1")):
        torch.testing.assert_close(reward(logits, torch.tensor([2, 0])), expected)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((1, 1), "first and second are both 1; pass two different classes"),
        ((-1, 0), "first is -1; pass an int of at least 0"),
        ((0, -1), "second is -1"),
    ],
)
def test_contrast_rejects_equal_and_negative_classes(classes: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contrast(*classes)


@pytest.mark.parametrize("index", [1.0, True, "1", None])
def test_contrast_and_versus_reject_classes_that_are_not_ints(index: Any) -> None:
    with pytest.raises(TypeError, match=r"second is .*; pass an int of at least 0"):
        contrast(0, index)
    with pytest.raises(TypeError, match=r"other is .*; pass an int of at least 0"):
        Versus(index)


def test_contrast_and_versus_reject_a_class_that_the_model_does_not_have(logits: Tensor) -> None:
    target = torch.tensor([0, 0])
    with pytest.raises(ValueError, match=r"Contrast\(first=0, second=3\): the model has classes 0 to 2"):
        contrast(0, 3)(logits, target)
    with pytest.raises(ValueError, match=r"Versus\(other=3\): the model has classes 0 to 2"):
        Versus(3)(logits, target)


def test_versus_rejects_the_target_as_the_other_class(logits: Tensor) -> None:
    with pytest.raises(ValueError, match="class 2 is the target; pass another class"):
        Versus(2)(logits, torch.tensor([2, 0]))


def test_a_reward_declares_its_traits_and_may_ignore_the_target_otherwise() -> None:
    @traits(rounds_relatively=True)
    def declared(logits: Tensor, target: Tensor) -> Tensor:
        return logits[:, 0]

    assert traits_of(declared) == Traits(needs_target=True, rounds_relatively=True, accepts_probabilities=False)
    assert traits_of(lambda logits, target: logits[:, 0]) == Traits()
    assert traits_of(Versus(0)).needs_target
    assert not traits_of(contrast(0, 1)).needs_target


def test_an_unknown_reward_raises_an_error_that_lists_the_registered_ones() -> None:
    with pytest.raises(ValueError, match=r"reward 'odds' is unknown; pass one of log_odds, .*contrast:CLASS"):
        get_reward("odds")
    with pytest.raises(ValueError, match=r"reward is 3; pass one of log_odds, .*or a callable"):
        get_reward(3)


def test_a_callable_is_its_own_reward() -> None:
    assert get_reward(log_odds) is log_odds
