"""What every registered method must do. A method that is registered later is tested without changes here."""

import pytest
import torch
from games import MODES
from specs import example_specs, specs_with_argument
from torch import Tensor, nn

from captum_moxi import CoalitionGame
from captum_moxi.arguments import Mode
from captum_moxi.methods import METHODS, Method
from captum_moxi.metrics import rank_positions
from captum_moxi.search.screens import LastGainsScreen

SPECS = pytest.mark.parametrize("spec", example_specs(METHODS))


def positions_of(method: Method, game: CoalitionGame, mode: Mode, *, n_steps: int | None = None) -> Tensor:
    method.check(game)
    return rank_positions(game, method.attribute(game, mode, n_steps=n_steps, stop=None))


def test_different_methods_have_different_titles() -> None:
    specs = example_specs(METHODS)
    assert len({METHODS.create(spec).title for spec in specs}) == len(specs)


@pytest.mark.parametrize("spec", specs_with_argument(METHODS))
def test_an_argument_appears_in_the_title(spec: str) -> None:
    assert METHODS.create(spec).title.endswith(spec.partition(":")[2])


@SPECS
@MODES
def test_every_player_is_ordered_once(spec: str, mode: Mode, quarters: CoalitionGame) -> None:
    assert positions_of(METHODS.create(spec), quarters, mode).sort().values.tolist() == [[0, 1, 2, 3]] * 2


@SPECS
@MODES
def test_a_limit_on_the_steps_does_not_change_the_first_players(spec: str, mode: Mode, quarters: CoalitionGame) -> None:
    method = METHODS.create(spec)
    full = positions_of(method, quarters, mode)
    assert torch.equal(positions_of(method, quarters, mode, n_steps=2)[:, :2], full[:, :2])


@SPECS
def test_a_method_that_does_not_depend_on_the_mode_has_one_order(spec: str, quarters: CoalitionGame) -> None:
    method = METHODS.create(spec)
    insertion, deletion = (positions_of(method, quarters, mode) for mode in ("insertion", "deletion"))
    if not method.depends_on_mode:
        assert torch.equal(insertion, deletion)


@SPECS
def test_an_order_by_image_names_does_not_depend_on_the_batch(
    spec: str, quarters: CoalitionGame, quarters_alone: list[CoalitionGame]
) -> None:
    method = METHODS.create(spec)
    batch = positions_of(method.for_images(["a.png", "b.png"]), quarters, "deletion")
    for example, name in enumerate(["a.png", "b.png"]):
        single = positions_of(method.for_images([name]), quarters_alone[example], "deletion")
        assert torch.equal(batch[example], single[0])


@SPECS
def test_names_and_screens_keep_the_title(spec: str) -> None:
    method = METHODS.create(spec)
    assert method.for_images(["a.png"]).title == method.title
    assert method.with_screen(LastGainsScreen(2)).title == method.title


@SPECS
def test_model_and_inputs_are_unchanged(spec: str, quarters: CoalitionGame, vit: nn.Module, x: Tensor) -> None:
    state = {name: value.clone() for name, value in vit.state_dict().items()}
    copy, attention = x.clone(), vit.config._attn_implementation
    random_state = torch.get_rng_state()
    METHODS.create(spec).attribute(quarters, "insertion", n_steps=None, stop=None)
    assert torch.equal(x, copy)
    assert all(torch.equal(value, state[name]) for name, value in vit.state_dict().items())
    assert all(parameter.grad is None for parameter in vit.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in vit.modules())
    assert vit.config._attn_implementation == attention
    assert not vit.training
    assert torch.equal(torch.get_rng_state(), random_state)
