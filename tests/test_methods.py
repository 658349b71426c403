"""Every named method on small models, against Captum's own classes and exact values."""

import pytest
import torch
import zoo
from captum.attr import FeatureAblation, IntegratedGradients, LayerGradCam, Occlusion
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, GradientScreen, MoXIDeletion, MoXIInsertion, patch_mask
from captum_moxi.interactions import full_context_shapley, self_context_shapley, shapley_values
from captum_moxi.methods import METHODS, get_method, moxi
from captum_moxi.metrics import order_players
from captum_moxi.models import LogitsModel

Y = [1, 3]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def quarters(model: torch.nn.Module, x: Tensor) -> CoalitionGame:
    return CoalitionGame(model, x, Y, feature_mask=patch_mask(32, grid=2))


@pytest.mark.parametrize("name", METHODS)
def test_orders_every_player_of_every_example(name: str, x: Tensor) -> None:
    model = zoo.token_model("vit")
    game = quarters(model, x)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    both = order_players(game, get_method(name).play(game, "deletion"))
    assert torch.equal(torch.get_rng_state(), state)
    assert both.sort().values.tolist() == [[0, 1, 2, 3]] * 2
    again = order_players(game, get_method(name).play(game, "deletion"))
    assert torch.equal(both, again)
    if name == "random":
        return
    for example in range(2):
        alone = CoalitionGame(model, x[example : example + 1], Y[example], feature_mask=patch_mask(32, grid=2))
        assert torch.equal(order_players(alone, get_method(name).play(alone, "deletion"))[0], both[example])


@pytest.mark.parametrize("name", ["shapley-exact", "shapley:300", "kernel-shap:4000", "lime:4000"])
def test_shapley_values_of_the_game(name: str, x: Tensor) -> None:
    model = zoo.token_model("vit")
    scores = get_method(name).play(quarters(model, x), "insertion")
    for example in range(2):
        alone = CoalitionGame(model, x[example : example + 1], Y[example], feature_mask=patch_mask(32, grid=2))
        exact = shapley_values(alone, 4)
        if name == "lime:4000":  # a local linear model is not the Shapley value, but close enough to agree in sign
            assert torch.equal(scores[example].sign()[exact.abs() > 1], exact.sign()[exact.abs() > 1])
        else:
            tolerance = {"shapley-exact": 1e-4, "shapley:300": 0.3, "kernel-shap:4000": 0.3}[name]
            torch.testing.assert_close(scores[example], exact, rtol=0, atol=tolerance)


def test_players_by_themselves(x: Tensor) -> None:
    model = zoo.token_model("vit")
    game = quarters(model, x)
    for example in range(2):
        alone = CoalitionGame(model, x[example : example + 1], Y[example], feature_mask=patch_mask(32, grid=2))
        full = full_context_shapley(alone, 4)
        torch.testing.assert_close(
            get_method("ablation").play(game, "insertion")[example], full.double(), rtol=0, atol=1e-4
        )
        for mode, values in (("insertion", self_context_shapley(alone, 4)), ("deletion", full)):
            order = get_method("moxi-minus").play(game, mode).order[example]
            assert order.tolist() == values.argsort(descending=True).tolist()


def test_moxi_is_the_class(x: Tensor) -> None:
    model = zoo.token_model("vit")
    game = CoalitionGame(model, x, Y)
    for mode, method in (("insertion", MoXIInsertion), ("deletion", MoXIDeletion)):
        _, selection = method(model).attribute(x, target=Y, n_steps=3, return_selection=True)
        assert torch.equal(moxi(n_steps=3).play(game, mode).order, selection.order)
    _, exact = MoXIInsertion(model).attribute(x, target=Y, return_selection=True)
    assert torch.equal(moxi(GradientScreen(1)).play(game, "insertion").order, exact.order)
    _, screened = MoXIDeletion(model, candidates=GradientScreen(1)).attribute(x, target=Y, return_selection=True)
    assert torch.equal(moxi(GradientScreen(1)).play(game, "deletion").order, screened.order)


def test_captum_on_the_model(x: Tensor) -> None:
    model = zoo.randomised(zoo.resnet())
    game = CoalitionGame(model, x, Y, removal=BaselineRemoval(), feature_mask=patch_mask(32, 8))
    net = LogitsModel(model)
    wanted = LayerGradCam(net, model.base_model.encoder.stages[-1]).attribute(x, target=Y)
    torch.testing.assert_close(get_method("gradcam").play(game, "insertion"), wanted)
    wanted = IntegratedGradients(net).attribute(x, target=Y, n_steps=7)
    torch.testing.assert_close(get_method("integrated-gradients:7").play(game, "insertion"), wanted)
    wanted = Occlusion(net).attribute(x, (3, 12, 12), strides=(3, 6, 6), target=Y)
    torch.testing.assert_close(get_method("occlusion:12").play(game, "insertion"), wanted, rtol=0, atol=1e-4)
    scores = CoalitionGame(model, x, Y, removal=BaselineRemoval(), feature_mask=patch_mask(32, 8), reward="logit")
    wanted = FeatureAblation(net).attribute(x, target=Y, feature_mask=patch_mask(32, 8))
    torch.testing.assert_close(
        get_method("ablation").play(scores, "insertion"),
        wanted[:, 0, ::8, ::8].flatten(1).double(),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_single_logit() -> None:
    def model(x: Tensor) -> Tensor:
        return x @ torch.tensor([1.0, 3.0, 2.0])

    game = CoalitionGame(model, torch.ones(2, 3))
    for name in ("integrated-gradients", "shapley", "moxi", "ablation"):
        assert order_players(game, get_method(name).play(game, "insertion")).tolist() == [[1, 2, 0]] * 2


@pytest.mark.parametrize("name", ["grad-cam", "moxi:8", "shapley:", "shapley:x", "shapley:-1", ""])
def test_names_that_are_unknown(name: str) -> None:
    with pytest.raises(ValueError, match="is unknown; pass one of moxi, "):
        get_method(name)


def test_what_cannot_be(x: Tensor) -> None:
    with pytest.raises(TypeError, match="method is 3"):
        get_method(3)
    with pytest.raises(ValueError, match="number of shapley is 0"):
        get_method("shapley:0")
    game = CoalitionGame(zoo.token_model("vit"), x, Y)
    with pytest.raises(ValueError, match="exact Shapley values take all orders of 16 players"):
        get_method("shapley-exact").check(game)
    tabular = CoalitionGame(lambda x: x, torch.ones(2, 4), Y)
    with pytest.raises(ValueError, match="takes one input of images"):
        get_method("occlusion").check(tabular)
