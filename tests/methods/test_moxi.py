"""MoXI as a method against the attribution classes and against Shapley values."""

import pytest
import torch
from torch import Tensor

from captum_moxi import CoalitionGame, MoXIDeletion, MoXIInsertion, MoXISymmetric
from captum_moxi.interactions import full_context_shapley, self_context_shapley
from captum_moxi.methods import METHODS, Method, moxi, moxi_symmetric
from captum_moxi.search import Selection
from captum_moxi.search.screens import GradientScreen, RandomScreen, Screen


def order_of(method: Method, game: CoalitionGame, mode: str, n_steps: int | None = None) -> Tensor:
    selection = method.attribute(game, mode, n_steps=n_steps, stop=None)  # type: ignore[arg-type]
    assert isinstance(selection, Selection)
    return selection.order


def test_orders_are_those_of_the_classes(vit: torch.nn.Module, x: Tensor) -> None:
    game = CoalitionGame(vit, x, target=[1, 3])
    for mode, search in (("insertion", MoXIInsertion), ("deletion", MoXIDeletion)):
        _, selection = search(vit).attribute(x, target=[1, 3], n_steps=3, return_selection=True)
        assert torch.equal(order_of(moxi(), game, mode, n_steps=3), selection.order)


@pytest.mark.parametrize(("screen", "screens_insertion"), [(GradientScreen(1), False), (RandomScreen(1), True)])
def test_a_screen_applies_to_the_modes_that_it_is_meant_for(
    screen: Screen, screens_insertion: bool, vit: torch.nn.Module, x: Tensor
) -> None:
    game = CoalitionGame(vit, x, target=[1, 3])
    insertion = MoXIInsertion(vit, screen=screen if screens_insertion else None)
    _, inserted = insertion.attribute(x, target=[1, 3], return_selection=True)
    _, deleted = MoXIDeletion(vit, screen=screen).attribute(x, target=[1, 3], return_selection=True)
    for method in (moxi(screen), moxi().with_screen(screen)):
        assert torch.equal(order_of(method, game, "insertion"), inserted.order)
        assert torch.equal(order_of(method, game, "deletion"), deleted.order)


def test_without_interactions_players_are_ranked_by_shapley_value(
    quarters: CoalitionGame, quarters_alone: list[CoalitionGame]
) -> None:
    for example, game in enumerate(quarters_alone):
        values = {"insertion": self_context_shapley(game, 4), "deletion": full_context_shapley(game, 4)}
        for mode, shapley in values.items():
            order = order_of(METHODS.create("moxi-minus"), quarters, mode)[example]
            assert order.tolist() == shapley.argsort(descending=True).tolist()


@pytest.mark.parametrize(("name", "interactions"), [("moxi", True), ("moxi-minus", False)])
def test_minimal_groups_are_those_of_the_classes(
    name: str, interactions: bool, vit: torch.nn.Module, x: Tensor
) -> None:
    game = CoalitionGame(vit, x, target=[1, 3])
    method = METHODS.create(name).with_minimal_groups()
    for mode, search in (("insertion", MoXIInsertion), ("deletion", MoXIDeletion)):
        _, expected = search(vit, interactions=interactions).attribute(
            x, target=[1, 3], stop="flip", minimal=True, return_selection=True
        )
        selection = method.attribute(game, mode, n_steps=None, stop="flip")  # type: ignore[arg-type]
        assert isinstance(selection, Selection)
        for field in ("order", "minimal", "left_out", "n_steps"):
            assert torch.equal(getattr(selection, field), getattr(expected, field))


def test_methods_that_do_not_search_have_no_minimal_groups() -> None:
    method = METHODS.create("random")
    assert method.minimal_search is None and method.with_minimal_groups() is method


@pytest.mark.parametrize("screen", [None, GradientScreen(1), RandomScreen(1)])
def test_the_symmetric_order_is_that_of_the_class_in_both_modes(
    screen: Screen | None, vit: torch.nn.Module, x: Tensor
) -> None:
    game = CoalitionGame(vit, x, target=[1, 3])
    # GradientScreen is not meant for symmetric search.
    used = None if isinstance(screen, GradientScreen) else screen
    _, selection = MoXISymmetric(vit, screen=used).attribute(x, target=[1, 3], n_steps=3, return_selection=True)
    for method in (moxi_symmetric(screen), METHODS.create("moxi-symmetric").with_screen(screen)):
        assert not method.depends_on_mode
        for mode in ("insertion", "deletion"):
            assert torch.equal(method.attribute(game, mode, n_steps=3, stop=None), selection.order)  # type: ignore[arg-type]


def test_the_symmetric_method_has_its_own_reward(vit: torch.nn.Module, x: Tensor) -> None:
    game = CoalitionGame(vit, x, target=[1, 3], reward="log_odds")
    for reward in ("probability", "log_odds"):
        _, selection = MoXISymmetric(vit, reward=reward).attribute(x, target=[1, 3], return_selection=True)
        order = moxi_symmetric(reward=reward).attribute(game, "insertion", n_steps=None, stop=None)
        assert torch.equal(order, selection.order)


def test_the_symmetric_method_needs_a_target(vit: torch.nn.Module, x: Tensor) -> None:
    game = CoalitionGame(vit, x, reward=lambda logits, target: logits.sum(1))
    with pytest.raises(ValueError, match="target"):
        moxi_symmetric().check(game)


def test_the_order_up_to_the_symmetric_flip_contains_both_flips(vit: torch.nn.Module, x: Tensor) -> None:
    target = vit(x).logits.argmax(1).tolist()
    game = CoalitionGame(vit, x, target=target)
    order = moxi_symmetric().attribute(game, "insertion", n_steps=None, stop="flip")
    for example in range(len(x)):
        chosen = [player for player in order[example].tolist() if player >= 0]
        group = torch.isin(game.ids, torch.tensor(chosen))[None]
        row = torch.tensor([example])
        if len(chosen) < game.n_players:
            assert int(game.outcome(group, row).predictions) == target[example]
            assert int(game.outcome(~group, row).predictions) != target[example]
