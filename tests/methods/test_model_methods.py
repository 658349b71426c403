"""Methods that attribute the model's output to the inputs, against Captum's own classes."""

import pytest
import torch
import zoo
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion, Saliency
from torch import Tensor

from captum_moxi import AttentionRollout, BaselineRemoval, CoalitionGame, patch_mask
from captum_moxi.methods import METHODS, on_model
from captum_moxi.metrics import Attributions
from captum_moxi.models import LogitsModel

TARGETS = [1, 3]


@pytest.fixture
def resnet() -> torch.nn.Module:
    return zoo.randomised(zoo.resnet())


@pytest.fixture
def resnet_game(resnet: torch.nn.Module, x: Tensor) -> CoalitionGame:
    return CoalitionGame(resnet, x, target=TARGETS, removal=BaselineRemoval(), feature_mask=patch_mask(32, 8))


def attributions_of(name: str, game: CoalitionGame) -> Attributions:
    return METHODS.create(name).attribute(game, "insertion", n_steps=None, stop=None)


def test_grad_cam(resnet: torch.nn.Module, resnet_game: CoalitionGame, x: Tensor) -> None:
    layer = resnet.base_model.encoder.stages[-1]  # type: ignore[union-attr, index]
    expected = LayerGradCam(LogitsModel(resnet), layer).attribute(x, target=TARGETS)
    torch.testing.assert_close(attributions_of("gradcam", resnet_game), expected)


def test_integrated_gradients(resnet: torch.nn.Module, resnet_game: CoalitionGame, x: Tensor) -> None:
    expected = IntegratedGradients(LogitsModel(resnet)).attribute(x, target=TARGETS, n_steps=7)
    torch.testing.assert_close(attributions_of("integrated-gradients:7", resnet_game), expected)


def test_occlusion(resnet: torch.nn.Module, resnet_game: CoalitionGame, x: Tensor) -> None:
    expected = Occlusion(LogitsModel(resnet)).attribute(x, (3, 12, 12), strides=(3, 6, 6), target=TARGETS)
    torch.testing.assert_close(attributions_of("occlusion:12", resnet_game), expected, rtol=0, atol=1e-4)


def test_rollout(vit: torch.nn.Module, quarters: CoalitionGame, x: Tensor) -> None:
    expected = AttentionRollout(vit).attribute(x)
    torch.testing.assert_close(attributions_of("rollout", quarters), expected)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_any_class_of_captum_on_the_model(resnet: torch.nn.Module, resnet_game: CoalitionGame, x: Tensor) -> None:
    method = on_model("Saliency", lambda model: Saliency(LogitsModel(model)), options=lambda call: {"abs": False})
    attributions = method.attribute(resnet_game, "insertion", n_steps=None, stop=None)
    expected = Saliency(LogitsModel(resnet)).attribute(x, target=TARGETS, abs=False)
    torch.testing.assert_close(attributions, expected)


def test_baselines_arguments_and_targets_are_passed_on() -> None:
    def model(x: Tensor, scale: Tensor, power: int) -> Tensor:
        return ((x * scale) ** power)[:, None, :] * torch.tensor([1.0, -1.0])[:, None]

    x, scale = torch.rand(2, 3) + 1, torch.rand(2, 3)
    target = [(0, 2), (1, 0)]
    game = CoalitionGame(model, x, baselines=0.5, target=target, additional_forward_args=(scale, 2), reward="output")
    expected = IntegratedGradients(model).attribute(x, 0.5, target=target, additional_forward_args=(scale, 2))
    torch.testing.assert_close(attributions_of("integrated-gradients", game), expected)


def test_unsupported_games_are_rejected_before_they_run(resnet_game: CoalitionGame) -> None:
    tabular = CoalitionGame(lambda x: x, torch.ones(2, 4), target=TARGETS)
    with pytest.raises(ValueError, match="takes one input of images"):
        METHODS.create("occlusion").check(tabular)
    with pytest.raises(ValueError, match="windows of 64 x 64 pixels"):
        METHODS.create("occlusion:64").check(resnet_game)
    integers = CoalitionGame(lambda x: x.float(), torch.ones(2, 4, dtype=torch.long), target=TARGETS)
    with pytest.raises(ValueError, match="integrated gradients need floating-point inputs"):
        METHODS.create("integrated-gradients").check(integers)
    with pytest.raises(ValueError, match="patch"):
        METHODS.create("rollout").check(resnet_game)
