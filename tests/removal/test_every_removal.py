"""What every registered removal must do. A removal that is registered later is tested without changes here."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from specs import example_specs, specs_with_argument
from torch import Tensor, nn

from captum_moxi import CoalitionGame, patch_mask
from captum_moxi.removal import REMOVALS, Removal

SPECS = pytest.mark.parametrize("spec", sorted({*example_specs(REMOVALS), *specs_with_argument(REMOVALS)}))


@pytest.fixture
def model() -> nn.Module:
    return zoo.token_model("vit")


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32)


def random_rows(count: int) -> tuple[Tensor, Tensor]:
    """Coalitions of 16 players of all sizes, the empty and the full one among them, of two examples."""
    coalitions = torch.rand(count, 16) < torch.linspace(0, 1, count)[:, None]
    coalitions[0], coalitions[1, 0], coalitions[-1] = False, True, True
    return coalitions, torch.arange(count) % 2


def to_images(pixel_values: Tensor) -> Tensor:
    return pixel_values.permute(0, 2, 3, 1).clamp(0, 1)


@SPECS
def test_a_new_removal_is_created_each_time_and_its_repr_names_its_class(spec: str) -> None:
    removal = REMOVALS.create(spec)
    assert isinstance(removal, Removal)
    assert REMOVALS.create(spec) is not removal
    assert repr(removal).startswith(type(removal).__name__)
    assert repr(REMOVALS.create(spec)) == repr(removal)


def test_different_specs_have_different_reprs() -> None:
    specs = example_specs(REMOVALS)
    assert len({repr(REMOVALS.create(spec)) for spec in specs}) == len(specs)


@SPECS
def test_the_full_coalition_gives_the_models_own_output(spec: str, model: nn.Module, images: Tensor) -> None:
    everyone = torch.ones(2, 16, dtype=torch.bool)
    with torch.no_grad():
        expected = model(images).logits
    for target in range(5):
        game = CoalitionGame(model, images, target=target, reward="output", removal=REMOVALS.create(spec))
        logits = game.outcome(everyone, torch.arange(2)).rewards
        torch.testing.assert_close(logits, expected[:, target], rtol=1e-5, atol=1e-5)


@SPECS
def test_every_coalition_has_a_finite_outcome_that_depends_on_it(spec: str, model: nn.Module, images: Tensor) -> None:
    game = CoalitionGame(model, images, target=1, removal=REMOVALS.create(spec))
    coalitions, examples = random_rows(12)
    outcome = game.outcome(coalitions, examples)
    assert outcome.rewards.isfinite().all()
    assert ((outcome.confidences >= 0) & (outcome.confidences <= 1)).all()
    assert len(outcome.rewards.unique()) == 12


@SPECS
@pytest.mark.parametrize("per_eval", [None, 1, 3])
def test_a_row_does_not_depend_on_the_other_rows(
    spec: str, per_eval: int | None, model: nn.Module, images: Tensor
) -> None:
    coalitions, examples = random_rows(9)
    game = CoalitionGame(model, images, target=1, removal=REMOVALS.create(spec), perturbations_per_eval=per_eval)
    rewards = game.outcome(coalitions, examples).rewards
    singles = [
        CoalitionGame(model, images[example : example + 1], target=1, removal=REMOVALS.create(spec))
        for example in range(2)
    ]
    expected = torch.cat([singles[e](row[None]) for row, e in zip(coalitions, examples.tolist(), strict=True)])
    torch.testing.assert_close(rewards, expected, rtol=1e-4, atol=1e-4)


@SPECS
def test_model_and_inputs_are_unchanged_even_after_an_exception(spec: str, model: nn.Module, images: Tensor) -> None:
    coalitions, examples = random_rows(6)
    failures: list[type[BaseException]] = []

    def fail(*_args: object) -> None:
        for failure in failures:
            raise failure

    hook = model.vit.layernorm.register_forward_hook(fail)
    game = CoalitionGame(model, images, target=1, removal=REMOVALS.create(spec))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    copy, attention = images.clone(), model.config._attn_implementation
    random_state = torch.get_rng_state()
    game.outcome(coalitions, examples)
    game.effects(coalitions, examples)
    failures.append(KeyboardInterrupt)
    for run in (game.outcome, game.effects):
        with pytest.raises(KeyboardInterrupt):
            run(coalitions, examples)
    hook.remove()
    assert torch.equal(images, copy)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.config._attn_implementation == attention
    assert not model.training
    assert torch.equal(torch.get_rng_state(), random_state)


@SPECS
def test_effects_are_finite_for_every_player_or_rejected_with_advice(
    spec: str, model: nn.Module, images: Tensor
) -> None:
    game = CoalitionGame(model, images, target=1, removal=REMOVALS.create(spec))
    coalitions, examples = random_rows(5)
    try:
        effects = game.effects(coalitions, examples)
    except ValueError as error:
        assert "pass a screen that needs no" in str(error)
    else:
        assert effects.dim() == 3
        assert effects.shape[::2] == (5, 16)
        assert effects.isfinite().all()


@SPECS
def test_pictures_are_images_and_that_of_the_full_coalition_is_the_input(
    spec: str, model: nn.Module, images: Tensor
) -> None:
    game = CoalitionGame(model, images, target=1, removal=REMOVALS.create(spec))
    coalitions, examples = random_rows(5)
    pictures = game.pictures(coalitions, examples, to_images)
    assert pictures.shape == (5, 32, 32, 3)
    assert ((pictures >= 0) & (pictures <= 1)).all()
    torch.testing.assert_close(pictures[-1], to_images(images[examples[-1:]])[0])
    assert not torch.equal(pictures[0], to_images(images[:1])[0])


@SPECS
def test_the_default_players_are_patches_and_a_grid_divides_the_image(
    spec: str, model: nn.Module, images: Tensor
) -> None:
    removal = REMOVALS.create(spec)
    mask = removal.default_mask(model, (images,))
    assert mask is not None and mask.unique().tolist() == list(range(16))
    assert torch.equal(removal.grid_mask(model, images, None), mask)
    grid = removal.grid_mask(model, images, 2)
    assert grid.unique().tolist() == [0, 1, 2, 3]
    game = CoalitionGame(model, images, target=1, removal=removal, feature_mask=grid)
    assert game.outcome(torch.eye(4), torch.zeros(4).long()).rewards.isfinite().all()


@SPECS
def test_a_grid_that_does_not_fit_is_used_as_it_is_or_rejected_with_the_grids_that_fit(
    spec: str, model: nn.Module, images: Tensor
) -> None:
    removal = REMOVALS.create(spec)
    try:
        mask = removal.grid_mask(model, images, 3)
    except ValueError as error:
        assert "pass one of 1, 2, 4" in str(error)
    else:
        assert mask.unique().tolist() == list(range(9))
        assert CoalitionGame(model, images, target=1, removal=removal, feature_mask=mask).n_players == 9


@SPECS
def test_a_picture_note_mentions_gray_only_if_left_out_patches_are_gray(
    spec: str, model: nn.Module, images: Tensor
) -> None:
    game = CoalitionGame(model, images[:1], target=1, removal=REMOVALS.create(spec))
    # The conversion adds 9 to all pixel values, so that no fill is gray by chance.
    nobody = torch.zeros(1, game.n_players, dtype=torch.bool)
    picture = game.pictures(nobody, None, lambda values: values.permute(0, 2, 3, 1) + 9)
    assert ("gray" in game.removal.picture_note) == bool((picture == 0.5).all())


class InPlace(nn.Module):
    """Changes every tensor and array that it receives, and computes the same as without these changes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.vit = model

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor, nested: dict[str, Any]) -> Tensor:
        logits = self.vit(x.add_(1)).logits * scale.mul_(2) + shift.add_(1)
        return logits + nested["list"][0].add_(1) + torch.from_numpy(np.add(nested["array"], 1, out=nested["array"]))


@SPECS
@pytest.mark.parametrize("per_eval", [None, 1, 2])
def test_a_model_may_change_what_it_receives(spec: str, per_eval: int | None, model: nn.Module, images: Tensor) -> None:
    arguments = (
        torch.rand(2, 5),
        torch.tensor(0.5, requires_grad=True),
        {"list": [torch.rand(5)], "array": np.random.rand(5).astype(np.float32)},
    )
    inputs = images.clone().requires_grad_()
    copies = copy.deepcopy(arguments)
    game = CoalitionGame(
        InPlace(model),
        inputs,
        target=1,
        reward="output",
        additional_forward_args=arguments,
        removal=REMOVALS.create(spec),
        feature_mask=patch_mask(32, 8),
        perturbations_per_eval=per_eval,
    )
    coalitions, examples = random_rows(6)
    rewards = game.outcome(coalitions, examples).rewards
    game.effects(coalitions, examples)
    game.pictures(coalitions, examples, lambda pixels: to_images(pixels.add_(1)))
    assert torch.equal(game.outcome(coalitions, examples).rewards, rewards)
    assert torch.equal(inputs, images)
    assert torch.equal(arguments[0], copies[0])
    assert torch.equal(arguments[1], copies[1])
    assert torch.equal(arguments[2]["list"][0], copies[2]["list"][0])
    assert (arguments[2]["array"] == copies[2]["array"]).all()
    # the same computation, without changes in place
    shift, scale, nested = copies
    with torch.no_grad():
        offset = shift + 1 + nested["list"][0] + 1 + torch.from_numpy(nested["array"]) + 1
        full = (model(images + 1).logits * 2 * scale + offset)[:, 1]
    torch.testing.assert_close(game.full.rewards, full, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rewards[-1], full[int(examples[-1])], rtol=1e-4, atol=1e-4)
