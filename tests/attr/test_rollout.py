"""AttentionRollout compared with a product of the attention weights that transformers returns."""

import pytest
import torch
import zoo
from captum.attr import NoiseTunnel
from torch import Tensor

from captum_moxi import AttentionRollout
from captum_moxi.models import LogitsModel


def rollout_by_hand(model: torch.nn.Module, x: Tensor) -> Tensor:
    """The scores of the patches, ``(B, 4, 4)``, computed image by image and layer by layer."""
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
def test_scores_match_the_attention_weights_of_transformers(name: str, attention: str) -> None:
    model = zoo.token_model(name)
    model.set_attn_implementation(attention)
    x = torch.randn(2, 3, 32, 32)
    attr = AttentionRollout(model).attribute(x, target=3)
    assert attr.shape == x.shape
    torch.testing.assert_close(attr[:, 0, ::8, ::8], rollout_by_hand(model, x))
    assert torch.equal(attr, attr[:, :1, ::8, ::8].repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(x))
    assert model.config._attn_implementation == attention
    assert torch.equal(AttentionRollout(LogitsModel(model)).attribute(x), attr)


def test_uniform_attention_gives_all_patches_the_same_score() -> None:
    """If queries and keys are zero, the class token keeps (1 + 1/17) / 2 of its attention in each layer."""
    model = zoo.token_model("vit")
    for layer in model.base_model.modules():
        if isinstance(layer, torch.nn.Linear) and layer.out_features == layer.in_features:
            layer.weight.data.zero_()
            layer.bias.data.zero_()
    attr = AttentionRollout(model).attribute(torch.randn(1, 3, 32, 32))
    kept = 1.0
    for _ in range(model.config.num_hidden_layers):
        kept = kept / 2 + 1 / 34
    # The rows of the rollout sum to 1.
    torch.testing.assert_close(attr[0, 0, ::8, ::8], torch.full((4, 4), (1 - kept) / 16))


def test_pixels_beyond_the_last_whole_patch_get_zero() -> None:
    attr = AttentionRollout(zoo.token_model("vit")).attribute(torch.randn(1, 3, 40, 34))
    assert attr.shape == (1, 3, 40, 34)
    assert attr[..., :32].gt(0).all()
    assert attr[..., 32:].eq(0).all()


def test_attributions_have_the_form_and_dtype_of_the_inputs() -> None:
    model = zoo.token_model("vit").double()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    (attr,) = AttentionRollout(model).attribute((x,))
    assert attr.dtype is torch.float64
    torch.testing.assert_close(attr, AttentionRollout(model).attribute(x))


def test_it_works_inside_noise_tunnel() -> None:
    model = zoo.token_model("vit")
    x = torch.randn(1, 3, 32, 32)
    smooth = NoiseTunnel(AttentionRollout(model)).attribute(x, nt_samples=2, stdevs=0.0)
    torch.testing.assert_close(smooth, AttentionRollout(model).attribute(x))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (zoo.swin(), "SwinForImageClassification"),
        (zoo.resnet(), "ResNetForImageClassification"),
        (lambda x: x.flatten(1), "function"),
    ],
    ids=["swin", "resnet", "function"],
)
def test_models_without_patch_tokens_are_rejected(model: object, name: str) -> None:
    with pytest.raises(
        ValueError, match=f"one token for each patch, but forward_func is a {name}, which has none; pass a ViT"
    ):
        AttentionRollout(model)


class WithoutClassToken(torch.nn.Module):
    """Attention over a sequence that consists of patch tokens only."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 8, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT[:, None]
        return torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2))


# nn.MultiheadAttention runs a fused kernel in evaluation mode
@pytest.mark.parametrize("model", [WithoutClassToken(), zoo.TorchvisionLayout()], ids=["no class token", "torchvision"])
def test_models_whose_attention_cannot_be_read_are_rejected(model: torch.nn.Module) -> None:
    message = "ran no scaled_dot_product_attention over a class token and 4 x 4 patches; pass a model that does"
    with pytest.raises(ValueError, match=message):
        AttentionRollout(model).attribute(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (zoo.token_model("vit"), torch.zeros(1, 32), r"inputs has shape \(1, 32\), .*expects a batch of images"),
        (zoo.TorchvisionLayout(), torch.zeros(1, 32), "inputs has shapes .*; pass one tensor of images"),
        (zoo.token_model("vit"), (torch.zeros(1, 3, 32, 32), torch.zeros(1)), "pass one tensor of images"),
    ],
)
def test_inputs_that_are_not_one_tensor_of_images_are_rejected(model: torch.nn.Module, x: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionRollout(model).attribute(x)


def test_a_model_may_change_what_it_receives() -> None:
    model, x, shift = zoo.token_model("vit"), torch.randn(2, 3, 32, 32), torch.tensor(1.0)

    class InPlace(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = model

        def forward(self, x: Tensor, shift: Tensor) -> Tensor:
            return self.vit(x.add_(shift.mul_(2))).logits

    before = x.clone()
    actual = AttentionRollout(InPlace()).attribute(x, additional_forward_args=shift)
    assert torch.equal(x, before)
    assert shift == 1
    assert torch.equal(actual, AttentionRollout(model).attribute(x + 2))
