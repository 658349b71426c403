"""Small random models of the real package torchvision, compared with the models run by hand."""

from typing import Any

import pytest
import reference
import torch
import zoo
from derivatives import check_derivatives
from outcomes import all_logits, check_batch, check_filled_cells, check_screens
from torch import Tensor, nn

from captum_moxi import (
    AttentionRemoval,
    AttentionRollout,
    BaselineRemoval,
    CoalitionGame,
    GradCam,
    GradientScreen,
    HalfPrecisionScreen,
    MoXIInsertion,
    TokenRemoval,
    patch_mask,
)

torchvision = pytest.importorskip(
    "torchvision", reason="torchvision is not installed; .ci/run tests with it in an environment of its own"
)


@pytest.fixture
def model() -> nn.Module:
    return zoo.randomised(torchvision.models.VisionTransformer(32, 8, 3, 2, 32, 64, num_classes=5))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32)


def masked_logits(model: Any, image: Tensor, present: list[int], from_layer: int = 0) -> Tensor:
    """Logits of one image, layer by layer, if no token attends to an absent patch from a layer on."""
    absent = torch.tensor([[False, *(patch not in present for patch in range(16))]])
    nothing = torch.zeros_like(absent)
    with torch.no_grad():
        tokens = torch.cat([model.class_token, model.conv_proj(image).flatten(2).mT], 1) + model.encoder.pos_embedding
        for index, layer in enumerate(model.encoder.layers):
            x, mask = layer.ln_1(tokens), absent if index >= from_layer else nothing
            tokens = tokens + layer.self_attention(x, x, x, key_padding_mask=mask, need_weights=False)[0]
            tokens = tokens + layer.mlp(layer.ln_2(tokens))
        return model.heads(model.encoder.ln(tokens)[:, 0])[0]


def test_the_default_players_are_the_patches_and_their_tokens_are_removed(model: nn.Module, images: Tensor) -> None:
    for module in (model, nn.Sequential(nn.Identity(), model)):
        game = CoalitionGame(module, images, target=0)
        assert isinstance(game.removal, TokenRemoval)
        assert torch.equal(game.call.players.positions[0][0, 0], patch_mask(32, 8)[0, 0])


@pytest.mark.parametrize("name", ["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"])
def test_every_registered_vit_has_this_structure(name: str) -> None:
    with torch.device("meta"):
        vit = torchvision.models.get_model(name)
    game_mask = TokenRemoval().default_mask(vit, (torch.empty(1, 3, vit.image_size, vit.image_size),))
    assert torch.equal(game_mask, patch_mask(vit.image_size, int(name.split("_")[-1])))


@pytest.mark.parametrize("from_layer", [0, 2])
def test_removed_tokens_equal_masked_attention(model: nn.Module, images: Tensor, from_layer: int) -> None:
    model, images = model.double(), images.double()
    for removal in (AttentionRemoval(from_layer), *([None] if from_layer == 0 else [])):
        coalitions, examples, logits = all_logits(model, images, removal=removal)
        for coalition, example, row in zip(coalitions, examples.tolist(), logits, strict=True):
            present = coalition.nonzero().flatten().tolist()
            expected = masked_logits(model, images[example][None], present, from_layer)
            torch.testing.assert_close(row, expected, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            torch.testing.assert_close(logits[-2:], model(images), rtol=1e-9, atol=1e-9)


def test_the_search_chooses_the_patches_of_the_paper(model: nn.Module, images: Tensor) -> None:
    model, image = model.double(), images[:1].double()

    def value(present: frozenset[int]) -> float:
        return reference.log_odds(masked_logits(model, image, sorted(present)), 2)

    attributions, selection = MoXIInsertion(model).attribute(image, target=2, n_steps=2, return_selection=True)
    order, values = reference.insertion(value, 16, 2)
    assert selection.order[0].tolist() == order
    assert selection.rewards[0].tolist() == pytest.approx(values)
    assert attributions.shape == image.shape


def test_a_batch_gives_what_each_example_gives_alone(model: nn.Module, images: Tensor) -> None:
    check_batch(model, images)


def test_the_screens_choose_among_existing_players(model: nn.Module, images: Tensor) -> None:
    check_screens(model, images, (GradientScreen(4), HalfPrecisionScreen()))


def test_effects_are_derivatives_in_the_share_of_attention(model: nn.Module, images: Tensor) -> None:
    model, image = model.double(), images[:1].double()
    effects = CoalitionGame(model, image, target=1, reward="output").effects(torch.ones(1, 16))[0]

    def value(gates: Tensor) -> float:
        mask = torch.cat([torch.ones(1), gates]).double().log()
        hooks = [
            layer.self_attention.register_forward_pre_hook(
                lambda _module, args, kwargs: (args, kwargs | {"attn_mask": mask.expand(17, 17)}), with_kwargs=True
            )
            for layer in model.encoder.layers
        ]
        with torch.no_grad():
            output = float(model(image)[0, 1])
        for hook in hooks:
            hook.remove()
        return output

    check_derivatives(effects.sum(0), value, torch.ones(16, dtype=torch.float64))


def test_grad_cam_and_rollout(model: nn.Module, images: Tensor) -> None:
    attributions = GradCam(model).attribute(images, target=0)
    assert attributions.shape == (2, 1, 4, 4)
    assert attributions.isfinite().all()
    assert attributions.abs().sum() > 0
    # The weights of nn.MultiheadAttention cannot be read.
    with pytest.raises(ValueError, match="ran no scaled_dot_product_attention over a class token"):
        AttentionRollout(model).attribute(images)


def swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4], num_classes=5)


OTHERS = {
    "ResNet": lambda: torchvision.models.resnet18(num_classes=5),
    "MobileNet": lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
    "ConvNeXt": lambda: torchvision.models.ConvNeXt(
        [torchvision.models.convnext.CNBlockConfig(8, 16, 1), torchvision.models.convnext.CNBlockConfig(16, None, 1)],
        num_classes=5,
    ),
    "Swin": swin,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_have_a_grid_whose_absent_cells_are_filled(name: str) -> None:
    model = OTHERS[name]().eval()
    images = torch.randn(2, 3, 64, 64)
    assert isinstance(CoalitionGame(model, images, target=0).removal, BaselineRemoval)
    check_filled_cells(model, images, model, n_classes=2)
    attributions = MoXIInsertion(model, screen=GradientScreen(4)).attribute(images, target=[0, 1], n_steps=2)
    assert attributions.shape == images.shape
    with pytest.raises(ValueError, match=r"layer is None, but .*pass the module"):
        GradCam(model)
