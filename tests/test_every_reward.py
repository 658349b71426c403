"""What every registered reward must do. A reward that is registered later is tested without changes here."""

import pytest
import torch
import zoo
from specs import example_specs
from torch import Tensor

from captum_moxi import CoalitionGame
from captum_moxi.rewards import REWARDS, get_reward

SPECS = pytest.mark.parametrize("spec", example_specs(REWARDS))
# class 1 is the argument of rewards that need a class, so it is not a target
TARGETS = torch.tensor([0, 2, 2, 0])


@SPECS
def test_a_reward_has_one_value_per_row(spec: str) -> None:
    logits = torch.randn(4, 3)
    rewards = get_reward(spec)(logits, TARGETS)
    assert rewards.shape == (4,)
    for row in range(4):
        single = get_reward(spec)(logits[row : row + 1], TARGETS[row : row + 1])
        torch.testing.assert_close(single[0], rewards[row])


@SPECS
def test_a_reward_accepts_integer_logits(spec: str) -> None:
    logits = torch.tensor([[1, 2, 4], [3, 0, 1], [2, 2, 2], [0, 5, 1]])
    torch.testing.assert_close(
        get_reward(spec)(logits, TARGETS).float(), get_reward(spec)(logits.float(), TARGETS), rtol=1e-6, atol=1e-6
    )


@SPECS
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_reward_rises_with_the_logit_of_the_target_and_stays_finite(spec: str, scale: float) -> None:
    logits = torch.randn(4, 3) * scale
    raised = logits.scatter_add(1, TARGETS[:, None], torch.full((4, 1), scale))
    before, after = get_reward(spec)(logits, TARGETS), get_reward(spec)(raised, TARGETS)
    assert before.isfinite().all()
    assert after.isfinite().all()
    assert (after >= before).all()
    if scale == 1:
        assert (after > before).all()


@SPECS
def test_a_reward_of_a_single_logit_rises_with_it_or_is_rejected(spec: str) -> None:
    logits = torch.tensor([[-2.0], [0.5], [3.0]])
    try:
        rewards = get_reward(spec)(logits, torch.zeros(3, dtype=torch.long))
    except ValueError as error:
        assert "the model has classes 0 to 0" in str(error)
    else:
        assert (rewards.diff() > 0).all()


@SPECS
def test_a_reward_has_a_finite_gradient(spec: str) -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(get_reward(spec)(logits, TARGETS).sum(), logits)
    assert gradient.isfinite().all()
    assert (gradient.gather(1, TARGETS[:, None]) > 0).all()


@SPECS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_game_is_played_for_the_reward(spec: str, dtype: torch.dtype) -> None:
    model, x = zoo.Classes(6), torch.randn(2, 6)

    def forward(x: Tensor) -> Tensor:
        return model(x).to(dtype)

    game = CoalitionGame(forward, x, target=[0, 2], reward=spec)
    coalitions, examples = torch.rand(8, 6) < 0.5, torch.arange(8) % 2
    rewards = game.outcome(coalitions, examples).rewards
    with torch.no_grad():
        logits = model(x[examples] * coalitions).to(dtype)
    logits = logits.float() if dtype is torch.bfloat16 else logits
    torch.testing.assert_close(rewards, get_reward(spec)(logits, torch.tensor([0, 2])[examples]))
    # half precision is rewarded in single precision
    assert rewards.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
