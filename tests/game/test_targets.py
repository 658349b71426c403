from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from captum_moxi import CoalitionGame


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 6)


@pytest.mark.parametrize("target", [1, [1, 1], torch.tensor(1), torch.tensor([1, 1]), (1,), [(1,), (1,)]])
def test_every_form_of_a_target_gives_the_same_game(target: Any, x: Tensor) -> None:
    game = CoalitionGame(zoo.Classes(6), x, target=target)
    assert game.targets is not None and game.targets.tolist() == [1, 1]
    assert game.captum_target == [1, 1]
    assert torch.equal(game.full.rewards, CoalitionGame(zoo.Classes(6), x, target=1).full.rewards)


def test_classes_are_the_second_dimension_of_larger_outputs(x: Tensor) -> None:
    weights = torch.randn(6, 3, 2, 2)

    def maps(x: Tensor) -> Tensor:
        return torch.einsum("bi,icyx->bcyx", x, weights)

    game = CoalitionGame(maps, x, target=[(2, 0, 1), (0, 1, 1)])
    logits = maps(x)
    p = torch.stack([logits[0, :, 0, 1].softmax(0)[2], logits[1, :, 1, 1].softmax(0)[0]])
    torch.testing.assert_close(game.full.rewards, (p / (1 - p)).log(), rtol=1e-5, atol=1e-6)
    assert game.captum_target == [(2, 0, 1), (0, 1, 1)]
    with pytest.raises(ValueError, match=r"target is \(2,\), but .*pass a tuple of 3 indices, the class first"):
        CoalitionGame(maps, x, target=2)
    with pytest.raises(ValueError, match=r"target is \(2, 0, 2\), but"):
        CoalitionGame(maps, x, target=(2, 0, 2))
    with pytest.raises(ValueError, match="target is None, but"):
        CoalitionGame(maps, x)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "target is None, but the model returns 3 classes and the reward needs one; pass the class to explain"),
        (3, "target is 3, but the model has classes 0 to 2; pass one of them"),
        ([0, 5], "target is 5, but the model has classes 0 to 2"),
        ((1, 0), r"target is \(1, 0\), but the model's output has no dimensions after the classes"),
    ],
)
def test_targets_that_do_not_fit_the_output_are_rejected(target: Any, message: str, x: Tensor) -> None:
    with pytest.raises(ValueError, match=message):
        CoalitionGame(zoo.Classes(6), x, target=target)


def test_the_only_class_of_a_single_logit_is_0(x: Tensor) -> None:
    game = CoalitionGame(lambda x: x.sum(1), x, target=0)
    assert torch.equal(game.full.rewards, x.sum(1))
    with pytest.raises(ValueError, match=r"classes 0 to 0; pass one of them; to explain the negative class .* negate"):
        CoalitionGame(lambda x: x.sum(1), x, target=1)


def test_a_target_that_a_transformers_model_does_not_have_is_rejected_before_it_runs() -> None:
    model, calls = zoo.token_model("vit"), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match="classes 0 to 4"):
        CoalitionGame(model, torch.randn(1, 3, 32, 32), target=5)
    with pytest.raises(ValueError, match="returns 5 classes"):
        CoalitionGame(model, torch.randn(1, 3, 32, 32))
    assert not calls
