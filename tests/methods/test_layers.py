"""Attributions of layers as methods, against Captum's own results summed over the channels."""

from collections.abc import Callable

import pytest
import torch
import zoo
from captum.attr import (
    Attribution,
    InternalInfluence,
    LayerActivation,
    LayerConductance,
    LayerDeepLift,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NoiseTunnel,
)
from torch import Tensor, nn

from captum_moxi import CoalitionGame, GradCam, compare, patch_mask
from captum_moxi.comparison import play_method
from captum_moxi.methods import from_attribution, get_methods
from captum_moxi.models import LogitsModel

TARGETS = [1, 3]
CLASSES = pytest.mark.parametrize(
    "cls",
    [
        *(LayerActivation, LayerConductance, LayerDeepLift, LayerGradientXActivation, LayerIntegratedGradients),
        InternalInfluence,
    ],
)
IGNORE = pytest.mark.filterwarnings("ignore:Setting", "ignore:Input Tensor 0 did not already")
Layer = Callable[[nn.Module], nn.Module]


@pytest.fixture
def resnet() -> nn.Module:
    return zoo.randomised(zoo.resnet())


@pytest.fixture
def game(resnet: nn.Module, x: Tensor) -> CoalitionGame:
    return CoalitionGame(resnet, x, target=TARGETS, removal="zero", feature_mask=patch_mask(32, 8))


def stage_of(model: nn.Module) -> nn.Module:
    return model.base_model.encoder.stages[-1]  # type: ignore[union-attr, index]


def map_of(attribution: Attribution, game: CoalitionGame, **options: object) -> Tensor:
    method = from_attribution(attribution, **options)
    method.check(game)
    attributions = method.attribute(game, "insertion", n_steps=None, stop=None)
    assert isinstance(attributions, Tensor)
    return attributions


def captums(attribution: Attribution, x: Tensor) -> Tensor:
    options = {} if isinstance(attribution, LayerActivation) else {"target": TARGETS}
    attributions = attribution.attribute(x.clone().requires_grad_(), **options)
    return attributions[0] if isinstance(attributions, tuple) else attributions


@CLASSES
@IGNORE
def test_a_feature_map_is_summed_over_its_channels(
    cls: type[Attribution], resnet: nn.Module, game: CoalitionGame, x: Tensor
) -> None:
    expected = captums(cls(LogitsModel(resnet), stage_of(resnet)), x).detach().sum(1, keepdim=True)
    torch.testing.assert_close(map_of(cls(resnet, stage_of(resnet)), game), expected, rtol=1e-4, atol=1e-5)
    # The map is resized to the image, as that of LayerGradCam.
    assert play_method(game, from_attribution(cls(resnet, stage_of(resnet))), "insertion").positions.shape == (2, 16)


@pytest.mark.parametrize("cls", [LayerActivation, LayerGradientXActivation])
def test_tokens_are_arranged_as_an_image(cls: type[Attribution], vit: nn.Module, x: Tensor) -> None:
    layer = vit.vit.embeddings  # type: ignore[union-attr]
    values = captums(cls(LogitsModel(vit), layer), x).detach()  # type: ignore[arg-type]
    # The class token comes first, then 4 x 4 patches, row by row.
    expected = torch.stack([values[:, 1 + patch].sum(1) for patch in range(16)], 1)
    actual = map_of(cls(vit, layer), CoalitionGame(vit, x, target=TARGETS))  # type: ignore[arg-type]
    assert actual.shape == (2, 1, 4, 4)
    torch.testing.assert_close(actual.flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_an_embedding_is_summed_over_its_features() -> None:
    """The usual use of LayerIntegratedGradients: one attribution for each token of a text."""

    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.linear = nn.Embedding(10, 4), nn.Linear(4, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.linear(self.embedding(ids).tanh().mean(1))

    model, ids = Text(), torch.tensor([[1, 5, 2], [7, 7, 0]])
    attribution = LayerIntegratedGradients(model, model.embedding)
    expected = attribution.attribute(ids, target=TARGETS[:1] * 2).sum(2)
    game = CoalitionGame(model, ids, target=TARGETS[:1] * 2)
    torch.testing.assert_close(map_of(attribution, game), expected.detach())


@IGNORE
def test_the_input_of_a_layer_and_noise_around_a_layer(resnet: nn.Module, game: CoalitionGame, x: Tensor) -> None:
    stage = stage_of(resnet)
    expected = LayerActivation(LogitsModel(resnet), stage).attribute(x, attribute_to_layer_input=True)
    actual = map_of(LayerActivation(resnet, stage), game, attribute_to_layer_input=True)
    torch.testing.assert_close(actual, expected.sum(1, keepdim=True).detach())
    torch.manual_seed(0)
    expected = NoiseTunnel(LayerGradCam(LogitsModel(resnet), stage)).attribute(x, target=TARGETS)
    torch.testing.assert_close(map_of(NoiseTunnel(LayerGradCam(resnet, stage)), game), expected.detach())


def test_the_users_model_has_no_hooks_after_a_check(resnet: nn.Module, game: CoalitionGame) -> None:
    get_methods(LayerActivation(resnet, stage_of(resnet)))[0].check(game)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in resnet.modules())


def test_layers_that_do_not_fit_are_rejected_before_any_method_runs(
    vit: nn.Module, resnet: nn.Module, x: Tensor
) -> None:
    embeddings: nn.Module = vit.vit.embeddings  # type: ignore[union-attr, assignment]
    head: nn.Module = vit.classifier  # type: ignore[assignment]
    cases = [
        (LayerActivation(vit, head), r"layer Linear of LayerActivation has shape \(2, 5\), which does not correspond"),
        (LayerActivation(vit, vit.vit), r"layer ViTModel of LayerActivation returns BaseModelOutput"),
        (LayerActivation(vit, [embeddings, head]), "LayerActivation has 2 layers; pass an object with one layer"),
        (
            LayerActivation(vit, stage_of(resnet)),
            "is not called in the forward pass of the model; pass a layer of",
        ),
        (LayerActivation(lambda x: vit(x).logits, embeddings), "from the model instead of a function that calls it"),
        (LayerGradCam(vit, embeddings), r"needs a feature map \(B, C, H, W\); pass the method gradcam"),
        (NoiseTunnel(LayerGradCam(vit, embeddings)), r"needs a feature map \(B, C, H, W\)"),
    ]

    def fail(inputs: Tensor, target: Tensor) -> Tensor:
        raise AssertionError("a method ran")

    for attribution, message in cases:
        with pytest.raises(ValueError, match=message):
            compare(vit, x, target=TARGETS, methods=[fail, attribution])


def test_grad_cam_of_this_package_arranges_tokens_itself(vit: nn.Module, x: Tensor) -> None:
    game = CoalitionGame(vit, x, target=TARGETS)
    expected = GradCam(vit).attribute(x, target=TARGETS)
    torch.testing.assert_close(map_of(GradCam(vit), game), expected)
