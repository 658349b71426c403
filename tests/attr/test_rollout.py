"""AttentionRollout against transformers' own attention weights, multiplied by hand."""

import pytest
import torch
import zoo
from captum.attr import NoiseTunnel
from torch import Tensor

from captum_moxi import AttentionRollout
from captum_moxi.models import LogitsModel


def by_hand(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Rows of the rollout (B, 4, 4), one image and layer after another, from the weights that transformers returns."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = model(x, output_attentions=True).attentions
    model.set_attn_implementation(before)
    maps = []
    for image in range(len(x)):
        rollout = torch.eye(layers[0].shape[-1])
        for layer in layers:
            mean = sum(layer[image, head] for head in range(layer.shape[1])) / layer.shape[1]
            mixed = mean + torch.eye(len(mean))
            rollout = (mixed / mixed.sum(1, keepdim=True)) @ rollout
        maps.append(rollout[0, -16:].reshape(4, 4))
    return torch.stack(maps)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_by_hand(name: str, attention: str) -> None:
    model = zoo.token_model(name)
    model.set_attn_implementation(attention)
    x = torch.randn(2, 3, 32, 32)
    attr = AttentionRollout(model).attribute(x, target=3)
    assert attr.shape == x.shape
    torch.testing.assert_close(attr[:, 0, ::8, ::8], by_hand(model, x))
    assert torch.equal(attr, attr[:, :1, ::8, ::8].repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(x))
    assert model.config._attn_implementation == attention
    assert torch.equal(AttentionRollout(LogitsModel(model)).attribute(x), attr)


def test_even_attention() -> None:
    """Queries and keys of zero look at all tokens alike: every layer keeps (1 + 1/17) / 2 of the class token."""
    model = zoo.token_model("vit")
    for layer in model.base_model.modules():
        if isinstance(layer, torch.nn.Linear) and layer.out_features == layer.in_features:
            layer.weight.data.zero_()
            layer.bias.data.zero_()
    attr = AttentionRollout(model).attribute(torch.randn(1, 3, 32, 32))
    stays = 1.0
    for _ in range(model.config.num_hidden_layers):
        stays = stays / 2 + 1 / 34
    # rows sum to 1
    torch.testing.assert_close(attr[0, 0, ::8, ::8], torch.full((4, 4), (1 - stays) / 16))


def test_another_size_and_what_is_beyond_the_last_patch() -> None:
    model = zoo.token_model("vit")
    attr = AttentionRollout(model).attribute(torch.randn(1, 3, 40, 34))
    assert attr.shape == (1, 3, 40, 34)
    assert attr[..., :32].gt(0).all()
    assert attr[..., 32:].eq(0).all()


def test_forms_and_dtypes() -> None:
    model = zoo.token_model("vit").double()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    (attr,) = AttentionRollout(model).attribute((x,))
    assert attr.dtype is torch.float64
    torch.testing.assert_close(attr, AttentionRollout(model).attribute(x))


def test_inside_noise_tunnel() -> None:
    model = zoo.token_model("vit")
    x = torch.randn(1, 3, 32, 32)
    smooth = NoiseTunnel(AttentionRollout(model)).attribute(x, nt_samples=2, stdevs=0.0)
    torch.testing.assert_close(smooth, AttentionRollout(model).attribute(x))


@pytest.mark.parametrize("model", [zoo.swin(), zoo.resnet(), lambda x: x.flatten(1)])
def test_models_without_patch_tokens(model: object) -> None:
    with pytest.raises(ValueError, match="needs one token a patch"):
        AttentionRollout(model).attribute(torch.randn(1, 3, 32, 32))


def test_attention_that_cannot_be_read() -> None:
    class WithoutClassToken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = torch.nn.Conv2d(3, 8, 8, 8)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).mT[:, None]
            return torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2))

    with pytest.raises(ValueError, match="over a class token and 4 x 4 patches"):
        AttentionRollout(WithoutClassToken()).attribute(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="ran no scaled_dot_product_attention"):
        AttentionRollout(zoo.TorchvisionLayout()).attribute(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize("x", [torch.randn(3, 32, 32), (torch.randn(1, 3, 32, 32), torch.randn(1))])
def test_inputs_that_are_no_images(x: object) -> None:
    with pytest.raises(ValueError, match="one tensor of images"):
        AttentionRollout(zoo.token_model("vit")).attribute(x)
