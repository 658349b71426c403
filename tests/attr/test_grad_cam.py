"""GradCam and GradCamPlusPlus compared with Captum's LayerGradCam and with derivatives taken by hand."""

from typing import Any

import pytest
import torch
import zoo
from captum.attr import LayerGradCam
from torch import Tensor, nn

from captum_moxi import GradCam, GradCamPlusPlus
from captum_moxi.models import LogitsModel

METHODS = pytest.mark.parametrize("method", [GradCam, GradCamPlusPlus])


class LinearHead(nn.Module):
    """A convolution and a score that is linear in its output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)
        self.weights = nn.Parameter(torch.randn(4, 6, 6, 2, generator=torch.Generator().manual_seed(1)) / 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,chwk->bk", self.layer(x), self.weights)


def blocks(model: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a model of the zoo."""
    return model.base_model.layers if hasattr(model.base_model, "layers") else model.base_model.encoder.layer


@pytest.mark.parametrize("options", [{}, {"relu_attributions": True}, {"attr_dim_summation": False}])
def test_convolutional_layers_match_captum(options: dict[str, bool]) -> None:
    model = zoo.randomised(zoo.resnet())
    net, layer = LogitsModel(model), model.base_model.encoder.stages[-1]
    x = torch.randn(3, 3, 32, 32)
    actual = GradCam(model).attribute(x, target=[0, 1, 2], **options)
    torch.testing.assert_close(actual, LayerGradCam(net, layer).attribute(x, target=[0, 1, 2], **options))


def test_the_input_of_a_convolutional_layer_matches_captum() -> None:
    model = zoo.randomised(zoo.resnet())
    net, layer = LogitsModel(model), model.base_model.encoder.stages[-1]
    x = torch.randn(3, 3, 32, 32)
    actual = GradCam(model, layer).attribute(x, target=1, attribute_to_layer_input=True)
    expected = LayerGradCam(net, layer).attribute(x, target=1, attribute_to_layer_input=True)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_tokens_match_the_definition(name: str) -> None:
    """The mean gradient over the patches weights the features of each patch after the first norm of the last block."""
    model = zoo.token_model(name)
    x = torch.randn(2, 3, 32, 32)
    layer_outputs: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        layer_outputs.append(output)

    norm = getattr(blocks(model)[-1], "norm1" if name.startswith("dinov2") else "layernorm_before")
    handle = norm.register_forward_hook(keep)
    score = model(x).logits[:, 2].sum()
    handle.remove()
    score.backward()
    (tokens,) = layer_outputs
    prefix = tokens.shape[1] - 16
    for image in range(2):
        patches, gradients = tokens[image, prefix:].detach(), tokens.grad[image, prefix:]
        weights = sum(gradients) / 16
        expected = torch.stack([patch @ weights for patch in patches]).reshape(1, 4, 4)
        torch.testing.assert_close(GradCam(model).attribute(x, target=2)[image], expected)


def test_plus_plus_matches_the_paper_with_derivatives_by_autograd() -> None:
    """Alpha of Eq. 19 from the second and third derivatives of exp(S), one activation at a time."""
    model = LinearHead()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        activations = model.layer(x)

    def y(flat: Tensor) -> Tensor:
        return torch.einsum("bchw,chwk->bk", flat.reshape(activations.shape), model.weights)[0, 1].exp()

    expected = torch.zeros(1, 1, 6, 6)
    flat = activations.flatten().clone().requires_grad_()
    first = torch.autograd.grad(y(flat), flat, create_graph=True)[0]
    for channel in range(4):
        weight = 0.0
        for pixel in range(36):
            i = channel * 36 + pixel
            second = torch.autograd.grad(first[i], flat, create_graph=True)[0]
            third = torch.autograd.grad(second[i], flat, retain_graph=True)[0]
            denominator = 2 * second[i] + activations[0, channel].sum() * third[i]
            weight += (second[i] / denominator * first[i].relu()).item()
        expected[0, 0] += weight * activations[0, channel]
    scale = y(flat).item()
    actual = GradCamPlusPlus(model, model.layer).attribute(x, target=1)
    torch.testing.assert_close(actual * scale, expected, rtol=1e-4, atol=1e-4)


@METHODS
@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_options_work_for_tokens(method: type, name: str) -> None:
    model = zoo.token_model(name)
    x = torch.randn(2, 3, 32, 32)
    attr = method(model).attribute(x, target=[1, 3])
    assert attr.shape == (2, 1, 4, 4)
    assert torch.equal(method(model).attribute(x, target=[1, 3], relu_attributions=True), attr.relu())
    by_channel = method(model).attribute(x, target=[1, 3], attr_dim_summation=False)
    assert by_channel.shape == (2, 32, 4, 4)
    torch.testing.assert_close(by_channel.sum(1, keepdim=True), attr)
    torch.testing.assert_close(method(model).attribute(x[1:], target=3), attr[1:])
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_the_patch_size_of_a_timm_model_is_found() -> None:
    timm = zoo.TimmLayout()
    assert GradCam(timm, timm.blocks[0]).attribute(torch.randn(1, 3, 32, 32), target=1).shape == (1, 1, 4, 4)


def test_the_map_of_an_image_of_another_size_has_its_patches() -> None:
    assert GradCam(zoo.token_model("vit")).attribute(torch.randn(1, 3, 48, 32), target=1).shape == (1, 1, 6, 4)


@METHODS
def test_models_without_default_layer_need_one(method: type) -> None:
    with pytest.raises(ValueError, match=r"layer is None, .*; pass the module to use"):
        method(LinearHead())


@METHODS
def test_the_default_layer_of_swin_is_its_last_norm(method: type) -> None:
    model, x = zoo.swin(), torch.randn(2, 3, 32, 32)
    assert method(model).layer is model.swin.layernorm
    # two stages, of which the second merges 2 x 2 patches of 4 pixels
    assert method(model).attribute(x, target=0).shape == (2, 1, 4, 4)


@METHODS
def test_a_function_of_a_model_needs_the_patch_size(method: type) -> None:
    model, x = zoo.token_model("vit"), torch.randn(1, 3, 32, 32)

    def forward_func(images: Tensor) -> Tensor:
        return model(images).logits

    layer = blocks(model)[-1].layernorm_before
    with pytest.raises(ValueError, match="size of their patches is unknown; pass patch_size"):
        method(forward_func, layer).attribute(x, target=1)
    for patch_size in (8, (8, 8)):
        attr = method(forward_func, layer, patch_size=patch_size).attribute(x, target=1)
        assert torch.equal(attr, method(model).attribute(x, target=1))


@METHODS
def test_a_patch_size_that_does_not_fit_the_tokens_is_reported(method: type) -> None:
    model = zoo.token_model("vit")
    with pytest.raises(
        ValueError, match=r"the inputs have 2 x 2 patches .*; pass a layer with one token for each patch"
    ):
        method(model, blocks(model)[1], patch_size=16).attribute(torch.randn(1, 3, 32, 32), target=1)


@METHODS
def test_unsuitable_arguments_are_reported(method: type) -> None:
    with pytest.raises(ValueError, match="target has 3 entries for a batch of 2"):
        method(zoo.resnet()).attribute(torch.randn(2, 3, 32, 32), target=[0, 1, 2])
    with pytest.raises(TypeError, match="inputs is str"):
        method(zoo.token_model("vit")).attribute("image", target=1)


class Overflow(nn.Module):
    """A convolution whose output, or its gradient, is not finite for bright images."""

    def __init__(self, bad: float, in_gradient: bool) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)
        self.bad, self.in_gradient = bad, in_gradient

    def forward(self, x: Tensor) -> Tensor:
        bad = torch.where(x.amax((1, 2, 3)) > 100, self.bad, 1.0)[:, None, None, None]
        if self.in_gradient:
            return (self.layer(x) * bad).sum((2, 3))
        return self.layer(x * bad).sum((2, 3))


@METHODS
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("in_gradient", "name"), [(False, "activations"), (True, "gradients")])
def test_values_that_are_not_finite_are_reported(method: type, bad: float, in_gradient: bool, name: str) -> None:
    model, x = Overflow(bad, in_gradient), torch.rand(3, 3, 8, 8)
    assert method(model, model.layer).attribute(x, target=1).isfinite().all()
    x[2] += 100
    with pytest.raises(ValueError, match=f"the {name} of layer Conv2d are not finite for example 2"):
        method(model, model.layer).attribute(x, target=1)


def test_an_overflow_of_the_sum_over_channels_is_reported() -> None:
    model, x = LinearHead(), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        model.layer.weight.mul_(1e20)
        model.weights.mul_(1e25)
    with pytest.raises(ValueError, match="the attributions of layer Conv2d are not finite for example 0"):
        GradCam(model, model.layer).attribute(x, target=1)


@METHODS
def test_a_model_may_change_what_it_receives(method: type) -> None:
    class InPlace(LinearHead):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return super().forward(x.mul_(2).add_(1)) * scale.add_(1)

    class Plain(LinearHead):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return super().forward(x * 2 + 1) * (scale + 1)

    in_place, plain = InPlace(), Plain()
    plain.load_state_dict(in_place.state_dict())
    x, scale = torch.randn(2, 3, 8, 8, requires_grad=True), torch.tensor([[2.0], [3.0]])
    before, scale_before = x.detach().clone(), scale.clone()
    expected = method(plain, plain.layer).attribute(x, target=1, additional_forward_args=scale)
    actual = method(in_place, in_place.layer).attribute(x, target=1, additional_forward_args=scale)
    assert torch.equal(actual, expected)
    assert torch.equal(x, before)
    assert torch.equal(scale, scale_before)
    assert x.grad is None and not actual.requires_grad


@METHODS
def test_inference_mode_of_the_caller_changes_nothing_and_that_of_the_model_is_reported(method: type) -> None:
    model, x = zoo.token_model("vit"), torch.randn(2, 3, 32, 32)
    expected = method(model).attribute(x, target=1)
    with torch.inference_mode():
        assert torch.equal(method(model).attribute(x.clone(), target=1), expected)
        other = zoo.token_model("vit")
    with pytest.raises(ValueError, match=r"create the model outside torch.inference_mode\(\)"):
        method(other).attribute(x, target=1)


@METHODS
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer": "layer4"}, TypeError, "layer is 'layer4'; pass the module"),
        ({"patch_size": [1]}, TypeError, r"patch_size is \[1\]; pass an int or a pair of ints"),
        ({"patch_size": float("nan")}, TypeError, "patch_size is nan"),
        ({"patch_size": 0}, ValueError, "patch_size is 0"),
        ({"patch_size": (8, -1)}, ValueError, r"patch_size is \(8, -1\)"),
    ],
)
def test_bad_arguments_of_the_constructor_are_rejected_by_name(
    method: type, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        method(zoo.token_model("vit"), **arguments)
