"""What every registered method must do, and methods by name."""

import pytest
import torch
from torch import Tensor

from captum_moxi import CoalitionGame
from captum_moxi.methods import METHODS, Method, get_methods, moxi
from captum_moxi.metrics import rank_positions
from captum_moxi.search.screens import GradientScreen


def positions_of(name: str, game: CoalitionGame) -> Tensor:
    return rank_positions(game, METHODS.create(name).attribute(game, "deletion", n_steps=None, stop=None))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_orders_all_players_and_keeps_the_random_state(name: str, quarters: CoalitionGame) -> None:
    state = torch.get_rng_state()
    positions = positions_of(name, quarters)
    assert torch.equal(torch.get_rng_state(), state)
    assert positions.sort().values.tolist() == [[0, 1, 2, 3]] * 2
    assert torch.equal(positions_of(name, quarters), positions)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS.create(name).reseed is None])
def test_an_example_is_ordered_in_a_batch_as_alone(
    name: str, quarters: CoalitionGame, quarters_alone: list[CoalitionGame]
) -> None:
    alone = torch.cat([positions_of(name, game) for game in quarters_alone])
    assert torch.equal(positions_of(name, quarters), alone)


@pytest.mark.parametrize("name", ["integrated-gradients", "shapley", "moxi", "ablation"])
def test_a_single_logit(name: str) -> None:
    game = CoalitionGame(lambda x: x @ torch.tensor([1.0, 3.0, 2.0]), torch.ones(2, 3))
    attributions = METHODS.create(name).attribute(game, "insertion", n_steps=None, stop=None)
    assert rank_positions(game, attributions).tolist() == [[1, 2, 0]] * 2


@pytest.mark.parametrize(
    "name", ["ablation", "shapley", "kernel-shap", "shap-partition", "moxi", "integrated-gradients"]
)
def test_scores_of_players_are_not_mistaken_for_a_map(name: str) -> None:
    """The mask numbers the players in another order than the values of the input."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), x @ torch.tensor([3.0, 2, 1, 0])], 1)

    game = CoalitionGame(model, torch.ones(1, 4), target=1, feature_mask=torch.tensor([[3, 2, 1, 0]]))
    attributions = METHODS.create(name).attribute(game, "insertion", n_steps=None, stop=None)
    assert game.ids[rank_positions(game, attributions)[0]].tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("name", ["grad-cam", "moxi:8", "shapley:", "shapley:x", "shapley:-1", "shapley:0", ""])
def test_invalid_names(name: str) -> None:
    with pytest.raises(ValueError, match=f"method '{name}'.*; pass "):
        get_methods(name)


def test_an_unknown_name_lists_all_methods() -> None:
    with pytest.raises(ValueError, match="is unknown; pass one of moxi, moxi-minus, moxi-symmetric, shapley:") as error:
        get_methods("magic")
    assert all(spec in str(error.value) for spec in METHODS.specs)


def test_a_number_in_the_name_is_the_argument() -> None:
    titles = [method.title for method in get_methods(["shapley", "shapley:7", "lime:20", "kernel-shap:30"])]
    assert titles == ["Shapley, 25", "Shapley, 7", "LIME, 20", "KernelShap, 30"]
    titles = [method.title for method in get_methods(["integrated-gradients:5", "occlusion:4"])]
    assert titles == ["Integrated gradients, 5", "Occlusion, 4"]


def test_the_screen_is_for_named_methods_only(vit: torch.nn.Module, x: Tensor) -> None:
    game = CoalitionGame(vit, x[:1], target=1)
    named = get_methods(["moxi", "random"], GradientScreen(1))
    assert [method.title for method in named] == ["MoXI", "Random"]
    evaluated = {}
    for key, method in {"named": named[0], "own": get_methods(moxi(), GradientScreen(1))[0]}.items():
        before = game.cost
        method.attribute(game, "deletion", n_steps=2, stop=None)
        evaluated[key] = (game.cost - before).rows
    # Without a screen, the first step evaluates 16 candidates and the second 15.
    assert evaluated["own"] == 16 + 15
    assert evaluated["named"] < evaluated["own"]


def test_methods_that_cannot_be_created() -> None:
    with pytest.raises(TypeError, match="methods contains 3; pass names, objects or classes of captum"):
        get_methods([3])  # type: ignore[list-item]
    for methods in ([], ["moxi", moxi()], ["random", "random"]):
        with pytest.raises(ValueError, match="pass one or more methods with different titles"):
            get_methods(methods)


@pytest.mark.parametrize(
    ("name", "module", "package", "extra"),
    [
        ("lime", "surrogate", "scikit-learn", "surrogates"),
        ("kernel-shap:100", "surrogate", "scikit-learn", "surrogates"),
        ("shap-partition:100", "partition", "shap", "shap"),
    ],
)
def test_a_missing_package_is_reported_before_any_game(
    name: str, module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"captum_moxi.methods.{module}.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf"requires {package}; run pip install 'captum-moxi\[{extra}\]'"):
        get_methods(["moxi", name])


def test_a_method_from_outside_is_chosen_by_name() -> None:
    METHODS.register("first", lambda: Method("First", lambda game, mode, *, n_steps, stop: torch.zeros(1, 4)))
    try:
        assert [method.title for method in get_methods("first")] == ["First"]
        with pytest.raises(ValueError, match=r"is unknown; pass one of .*first"):
            get_methods("magic")
    finally:
        METHODS.unregister("first")
