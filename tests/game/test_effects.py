from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from derivatives import check_derivatives
from torch import Tensor, nn

from captum_moxi import (
    BaselineRemoval,
    CoalitionGame,
    GradientScreen,
    LastGainsScreen,
    MoXIDeletion,
    TokenRemoval,
    patch_mask,
)


def build(name: str) -> nn.Module:
    return zoo.token_model("vit") if name == "vit" else zoo.randomised(zoo.resnet())


def test_the_effect_in_a_linear_model_is_the_change_that_each_player_makes() -> None:
    weights = torch.tensor([3.0, -1.0, 0.5, 2.0, -4.0, 1.0])
    x, baseline = torch.tensor([[1.0, 2.0, 3.0, -1.0, 0.5, 4.0]]), torch.tensor([[0.5, 0.0, 1.0, 1.0, 0.0, 2.0]])
    game = CoalitionGame(lambda x: x @ weights, x, baselines=baseline, reward="output", removal=BaselineRemoval())
    coalitions = torch.tensor([[True] * 6, [False] * 6, [True, False] * 3])
    expected = (x - baseline) * weights
    torch.testing.assert_close(game.effects(coalitions), expected.expand(3, 1, -1))
    assert (game.cost.backward_rows, game.cost.rows) == (3, 4)


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_the_effect_under_a_fill_is_the_derivative_on_the_way_from_the_fill_to_the_input(fill: str) -> None:
    # smooth everywhere, unlike a ReLU or a maximum over a constant patch
    layers = nn.Conv2d(3, 4, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(400, 3)
    model, x, mask = (
        zoo.randomised(nn.Sequential(*layers)).double(),
        torch.randn(1, 3, 32, 32).double(),
        patch_mask(32, 16),
    )
    game = CoalitionGame(model, x, target=1, reward="output", feature_mask=mask, removal=BaselineRemoval(fill))
    received = []
    hook = model.register_forward_pre_hook(lambda _module, args: received.append(args[0]))
    game.outcome(torch.zeros(1, 4))
    hook.remove()
    filled = received[0]
    present = torch.tensor([True, False, True, True])

    def value(gates: Tensor) -> float:
        gate = gates[mask[0, 0]]
        with torch.no_grad():
            return float(model(gate * x + (1 - gate) * filled)[0, 1])

    check_derivatives(game.effects(present[None])[0, 0], value, present.double())


@pytest.mark.parametrize("name", ["vit", "resnet"])
@pytest.mark.parametrize("own_masks", [False, True])
def test_the_effects_of_a_batch_are_those_of_its_examples(name: str, own_masks: bool) -> None:
    model, images = build(name), torch.randn(3, 3, 32, 32)
    flipped = patch_mask(32, 8).flip(3)
    masks = torch.cat([patch_mask(32, 8), flipped, flipped]) if own_masks else patch_mask(32, 8)
    coalitions, examples = torch.rand(7, 16) < 0.5, torch.tensor([2, 0, 0, 1, 2, 0, 0])
    game = CoalitionGame(model, images, target=1, feature_mask=masks, perturbations_per_eval=2)
    effects = game.effects(coalitions, examples)
    for coalition, example, effect in zip(coalitions, examples.tolist(), effects, strict=True):
        mask = masks[example : example + 1] if own_masks else masks
        single = CoalitionGame(model, images[example : example + 1], target=1, feature_mask=mask)
        torch.testing.assert_close(effect, single.effects(coalition[None])[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("present", [0.0, 1.0])
def test_effects_survive_half_precision(dtype: torch.dtype, present: float) -> None:
    model, image, coalition = zoo.token_model("vit"), torch.randn(1, 3, 32, 32), torch.full((1, 16), present)
    expected = CoalitionGame(model, image, target=1).effects(coalition)[0].sum(0)
    effects = CoalitionGame(model.to(dtype), image.to(dtype), target=1).effects(coalition)[0].sum(0)
    assert torch.corrcoef(torch.stack([effects.float(), expected]))[0, 1] > 0.9


def test_effects_are_computed_even_if_the_caller_has_disabled_gradients() -> None:
    model, image = zoo.token_model("vit"), torch.randn(1, 3, 32, 32)
    game = CoalitionGame(model, image, target=1)
    expected = game.effects(torch.ones(2, 16))
    with torch.no_grad():
        torch.testing.assert_close(game.effects(torch.ones(2, 16)), expected)
    with torch.inference_mode():
        method = MoXIDeletion(model, screen=GradientScreen(2))
        assert method.attribute(image, target=1, n_steps=2).shape == (1, 3, 32, 32)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return (x.detach() * self.weight).sum(1)


class NoAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 8, 8)
        self.tokens = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(self.embed(x).flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize(
    ("forward", "inputs", "options", "message"),
    [
        (lambda x: torch.tensor(x.numpy().sum(1)), torch.ones(1, 4), {}, "cannot be differentiated"),
        (Detached(), torch.ones(1, 4), {}, "no gradient"),
        (lambda x: x.detach().sum(1), torch.ones(1, 4), {}, "no gradient"),
        (lambda x: x.float().sum(1), torch.ones(1, 4, dtype=torch.long), {}, "dtype torch.int64"),
        (lambda x: x.sum(), torch.ones(2, 4), {}, "one value for the whole batch"),
        (
            NoAttention(),
            torch.ones(1, 3, 32, 32),
            {"target": 0, "removal": TokenRemoval("tokens", n_prefix=0)},
            "its attention cannot be weighted",
        ),
    ],
)
def test_an_error_about_a_missing_gradient_says_which_screen_to_pass(
    forward: Callable[[Tensor], Tensor], inputs: Tensor, options: dict[str, Any], message: str
) -> None:
    removal = options.get("removal")
    method = MoXIDeletion(forward, reward="output", removal=removal, screen=GradientScreen(2))
    mask = patch_mask(32, 8) if inputs.dim() == 4 else None
    with pytest.raises(ValueError, match=message) as error:
        method.attribute(inputs, target=options.get("target"), feature_mask=mask)
    assert "pass a screen that needs no" in str(error.value)
    # other screens need no gradient
    other = MoXIDeletion(forward, reward="output", removal=removal, screen=LastGainsScreen(2))
    other.attribute(inputs, target=options.get("target"), feature_mask=mask)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_game_created_in_inference_mode_has_effects(name: str) -> None:
    model, coalitions, examples = build(name), torch.rand(4, 16) < 0.5, torch.tensor([0, 1, 1, 0])
    images, masks = torch.randn(2, 3, 32, 32), torch.cat([patch_mask(32, 8), patch_mask(32, 8).flip(3)])
    expected = CoalitionGame(model, images, target=1, feature_mask=masks).effects(coalitions, examples)
    with torch.inference_mode():
        game = CoalitionGame(model, images.clone(), target=1, feature_mask=masks.clone())
        rows = coalitions.clone()
    torch.testing.assert_close(game.effects(rows, examples), expected)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_model_created_in_inference_mode_is_rejected_before_candidates_are_evaluated(name: str) -> None:
    with torch.inference_mode():
        model = build(name)
    images, mask, rows = torch.randn(1, 3, 32, 32), patch_mask(32, 8), []
    model.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    method = MoXIDeletion(model, screen=GradientScreen(2))
    with pytest.raises(ValueError, match=r"create the model .* outside torch.inference_mode\(\), or pass a screen"):
        method.attribute(images, target=1, feature_mask=mask)
    # the unchanged inputs, and at most the row that should be differentiated
    assert sum(rows) <= 2
    # a search without gradients works
    MoXIDeletion(model).attribute(images, target=1, feature_mask=mask, n_steps=1)


def test_a_model_that_changes_intermediate_results_is_rejected_with_advice() -> None:
    def forward(x: Tensor) -> Tensor:
        hidden = (x * 2).exp()
        result = hidden.sum(1)
        hidden.zero_()
        return result

    with pytest.raises(ValueError, match="do not change intermediate results in place, or pass a screen"):
        MoXIDeletion(forward, reward="output", screen=GradientScreen(2)).attribute(torch.ones(1, 4))
