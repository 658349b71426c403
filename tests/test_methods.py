"""Every named method on small models, against Captum's own classes and exact values."""

import pytest
import torch
import zoo
from captum.attr import FeatureAblation, IntegratedGradients, LayerGradCam, Occlusion
from torch import Tensor

from captum_moxi import BaselineRemoval, CoalitionGame, GradientScreen, MoXIDeletion, MoXIInsertion, patch_mask
from captum_moxi.interactions import full_context_shapley, self_context_shapley, shapley_values
from captum_moxi.methods import METHODS, Method, get_method, moxi, of_images, random_order
from captum_moxi.metrics import order_players
from captum_moxi.models import LogitsModel
from captum_moxi.players import collect_scores

Y = [1, 3]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def scores_of(method: Method, game: CoalitionGame) -> Tensor:
    return collect_scores(method.play(game, "insertion", None, None), game.call.players, game.call.inputs)


def quarters(model: torch.nn.Module, x: Tensor) -> CoalitionGame:
    return CoalitionGame(model, x, Y, feature_mask=patch_mask(32, grid=2))


@pytest.mark.parametrize("name", METHODS)
def test_orders_every_player_of_every_example(name: str, x: Tensor) -> None:
    model = zoo.token_model("vit")
    game = quarters(model, x)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    both = order_players(game, get_method(name).play(game, "deletion", None, None))
    assert torch.equal(torch.get_rng_state(), state)
    assert both.sort().values.tolist() == [[0, 1, 2, 3]] * 2
    again = order_players(game, get_method(name).play(game, "deletion", None, None))
    assert torch.equal(both, again)
    if name == "random":
        return
    for example in range(2):
        alone = CoalitionGame(model, x[example : example + 1], Y[example], feature_mask=patch_mask(32, grid=2))
        assert torch.equal(order_players(alone, get_method(name).play(alone, "deletion", None, None))[0], both[example])


@pytest.mark.parametrize("name", ["shapley-exact", "shapley:300", "kernel-shap:4000", "lime:4000"])
def test_shapley_values_of_the_game(name: str, x: Tensor) -> None:
    model = zoo.token_model("vit")
    scores = scores_of(get_method(name), quarters(model, x))
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
        torch.testing.assert_close(scores_of(get_method("ablation"), game)[example], full.double(), rtol=0, atol=1e-4)
        for mode, values in (("insertion", self_context_shapley(alone, 4)), ("deletion", full)):
            order = get_method("moxi-minus").play(game, mode, None, None).order[example]
            assert order.tolist() == values.argsort(descending=True).tolist()


def test_moxi_is_the_class(x: Tensor) -> None:
    model = zoo.token_model("vit")
    game = CoalitionGame(model, x, Y)
    for mode, method in (("insertion", MoXIInsertion), ("deletion", MoXIDeletion)):
        _, selection = method(model).attribute(x, target=Y, n_steps=3, return_selection=True)
        assert torch.equal(moxi().play(game, mode, 3, None).order, selection.order)
    _, exact = MoXIInsertion(model).attribute(x, target=Y, return_selection=True)
    assert torch.equal(moxi(GradientScreen(1)).play(game, "insertion", None, None).order, exact.order)
    _, screened = MoXIDeletion(model, candidates=GradientScreen(1)).attribute(x, target=Y, return_selection=True)
    assert torch.equal(moxi(GradientScreen(1)).play(game, "deletion", None, None).order, screened.order)


def test_captum_on_the_model(x: Tensor) -> None:
    model = zoo.randomised(zoo.resnet())
    game = CoalitionGame(model, x, Y, removal=BaselineRemoval(), feature_mask=patch_mask(32, 8))
    net = LogitsModel(model)
    wanted = LayerGradCam(net, model.base_model.encoder.stages[-1]).attribute(x, target=Y)
    torch.testing.assert_close(get_method("gradcam").play(game, "insertion", None, None), wanted)
    wanted = IntegratedGradients(net).attribute(x, target=Y, n_steps=7)
    torch.testing.assert_close(get_method("integrated-gradients:7").play(game, "insertion", None, None)[0], wanted)
    wanted = Occlusion(net).attribute(x, (3, 12, 12), strides=(3, 6, 6), target=Y)
    found = get_method("occlusion:12").play(game, "insertion", None, None)
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-4)
    scores = CoalitionGame(model, x, Y, removal=BaselineRemoval(), feature_mask=patch_mask(32, 8), reward="logit")
    wanted = FeatureAblation(net).attribute(x, target=Y, feature_mask=patch_mask(32, 8))
    torch.testing.assert_close(
        scores_of(get_method("ablation"), scores),
        wanted[:, 0, ::8, ::8].flatten(1).double(),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_single_logit() -> None:
    def model(x: Tensor) -> Tensor:
        return x @ torch.tensor([1.0, 3.0, 2.0])

    game = CoalitionGame(model, torch.ones(2, 3))
    for name in ("integrated-gradients", "shapley", "moxi", "ablation"):
        assert order_players(game, get_method(name).play(game, "insertion", None, None)).tolist() == [[1, 2, 0]] * 2


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


def test_players_in_another_order_than_their_values() -> None:
    """Scores of n players must not be taken for a map of n values."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), x @ torch.tensor([3.0, 2, 1, 0])], 1)

    game = CoalitionGame(model, torch.ones(1, 4), 1, feature_mask=torch.tensor([[3, 2, 1, 0]]))
    for name in ("ablation", "shapley", "kernel-shap", "moxi", "integrated-gradients"):
        order = order_players(game, get_method(name).play(game, "insertion", None, None))
        assert game.ids[order[0]].tolist() == [3, 2, 1, 0]


def test_arguments_baselines_and_targets_reach_captum() -> None:
    def model(x: Tensor, scale: Tensor, power: int) -> Tensor:
        return ((x * scale) ** power)[:, None, :] * torch.tensor([1.0, -1.0])[:, None]

    x, scale = torch.rand(2, 3) + 1, torch.rand(2, 3)
    target = [(0, 2), (1, 0)]
    game = CoalitionGame(model, x, target, baselines=0.5, additional_forward_args=(scale, 2), reward="output")
    wanted = IntegratedGradients(model).attribute(x, 0.5, target=target, additional_forward_args=(scale, 2))
    torch.testing.assert_close(get_method("integrated-gradients").play(game, "insertion", None, None)[0], wanted)


def test_random_orders_differ_by_example_and_seed() -> None:
    game = CoalitionGame(lambda x: torch.stack([x.sum(1), -x.sum(1)], 1), torch.ones(2, 50), 0)
    orders = [order_players(game, random_order(seed).play(game, "insertion", None, None)) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0][0], orders[0][1])


def test_an_images_name_decides_its_random_order(x: Tensor) -> None:
    model = zoo.resnet()
    both, one = (CoalitionGame(model, of, 0, feature_mask=patch_mask(32, grid=4)) for of in (x, x[1:]))
    together = order_players(both, of_images(get_method("random"), ["a", "b"]).play(both, "deletion", None, None))
    alone = order_players(one, of_images(get_method("random"), ["b"]).play(one, "deletion", None, None))
    assert torch.equal(together[1:], alone) and not torch.equal(together[:1], alone)
    rollout = get_method("rollout")
    assert of_images(rollout, ["a", "b"]) is rollout
