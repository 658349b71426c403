"""GradCam and GradCamPlusPlus against Captum's LayerGradCam and derivatives taken by hand."""

import pytest
import torch
import zoo
from captum.attr import LayerGradCam
from torch import Tensor, nn

from captum_moxi import GradCam, GradCamPlusPlus
from captum_moxi.models import LogitsModel

METHODS = [GradCam, GradCamPlusPlus]


class Pooled(nn.Module):
    """A layer, and a score that is linear in what it returns: a mean and classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)
        self.weights = nn.Parameter(torch.randn(4, 6, 6, 2, generator=torch.Generator().manual_seed(1)) / 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,chwk->bk", self.layer(x), self.weights)


@pytest.mark.parametrize("options", [{}, {"relu_attributions": True}, {"attr_dim_summation": False}])
def test_convolutional_layers_as_captum(options: dict[str, bool]) -> None:
    model = zoo.randomised(zoo.resnet())
    net, layer = LogitsModel(model), model.base_model.encoder.stages[-1]
    x = torch.randn(3, 3, 32, 32)
    ours = GradCam(model).attribute(x, target=[0, 1, 2], **options)
    torch.testing.assert_close(ours, LayerGradCam(net, layer).attribute(x, target=[0, 1, 2], **options))
    ours = GradCam(model, layer).attribute(x, target=1, attribute_to_layer_input=True)
    torch.testing.assert_close(ours, LayerGradCam(net, layer).attribute(x, target=1, attribute_to_layer_input=True))


@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_tokens_by_hand(name: str) -> None:
    """The last block and the head run by hand on the tokens that come before them, patch by patch."""
    model = zoo.token_model(name)
    x = torch.randn(2, 3, 32, 32)
    seen: list[Tensor] = []
    layers = model.base_model.layers if hasattr(model.base_model, "layers") else model.base_model.encoder.layer
    handle = layers[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]) or args[0].retain_grad())
    score = model(x).logits[:, 2].sum()
    handle.remove()
    score.backward()
    prefix = seen[0].shape[1] - 16
    for image in range(2):
        patches, gradients = seen[0][image, prefix:].detach(), seen[0].grad[image, prefix:]
        weights = sum(gradients) / 16
        wanted = torch.stack([patch @ weights for patch in patches]).reshape(1, 4, 4)
        torch.testing.assert_close(GradCam(model).attribute(x, target=2)[image], wanted)


def test_plus_plus_is_the_paper_with_its_derivatives() -> None:
    """Alpha of Eq. 19 from autograd's second and third derivatives of exp(S), one activation at a time."""
    model = Pooled()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        activations = model.layer(x)

    def y(flat: Tensor) -> Tensor:
        return torch.einsum("bchw,chwk->bk", flat.reshape(activations.shape), model.weights)[0, 1].exp()

    wanted = torch.zeros(1, 1, 6, 6)
    flat = activations.flatten().clone().requires_grad_()
    first = torch.autograd.grad(y(flat), flat, create_graph=True)[0]
    for channel in range(4):
        weight = 0.0
        for place in range(36):
            i = channel * 36 + place
            second = torch.autograd.grad(first[i], flat, create_graph=True)[0]
            third = torch.autograd.grad(second[i], flat, retain_graph=True)[0]
            below = 2 * second[i] + activations[0, channel].sum() * third[i]
            weight += (second[i] / below * first[i].relu()).item()
        wanted[0, 0] += weight * activations[0, channel]
    scale = y(flat).item()
    ours = GradCamPlusPlus(model, model.layer).attribute(x, target=1)
    torch.testing.assert_close(ours * scale, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_options_on_tokens(method: type, name: str) -> None:
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


def test_other_layouts_and_sizes() -> None:
    timm = zoo.TimmLayout()
    blocks = next(module for module in timm.modules() if isinstance(module, nn.Sequential | nn.ModuleList))
    assert GradCam(timm, blocks[0]).attribute(torch.randn(1, 3, 32, 32), target=1).shape == (1, 1, 4, 4)
    assert GradCam(zoo.token_model("vit")).attribute(torch.randn(1, 3, 48, 32), target=1).shape == (1, 1, 6, 4)


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be(method: type) -> None:
    with pytest.raises(ValueError, match="layer is None"):
        method(Pooled())
    with pytest.raises(ValueError, match="layer is None"):
        method(zoo.swin())
    with pytest.raises(ValueError, match="target has 3 entries for a batch of 2"):
        method(zoo.resnet()).attribute(torch.randn(2, 3, 32, 32), target=[0, 1, 2])
    model = zoo.token_model("vit")
    layers = model.base_model.layers if hasattr(model.base_model, "layers") else model.base_model.encoder.layer
    hidden = method(lambda x: model(x).logits, layers[1])
    with pytest.raises(ValueError, match="what patches its tokens stand for is unknown; pass patch_size"):
        hidden.attribute(torch.randn(1, 3, 32, 32), target=1)
    told = method(lambda x: model(x).logits, layers[1], patch_size=8)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(told.attribute(x, target=1), method(model).attribute(x, target=1))
    with pytest.raises(TypeError, match="inputs is str"):
        method(model).attribute("image", target=1)
