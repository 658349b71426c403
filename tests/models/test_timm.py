"""Small random models of the real package timm, compared with the models run by hand."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import reference
import torch
import transformers
import zoo
from derivatives import check_derivatives
from outcomes import all_logits, check_batch, check_filled_cells, check_screens
from torch import Tensor, nn

from captum_moxi import (
    AttentionRemoval,
    BaselineRemoval,
    CoalitionGame,
    GradCam,
    GradientScreen,
    HalfPrecisionScreen,
    MoXIInsertion,
    TokenRemoval,
    patch_mask,
)
from captum_moxi.models import token_layout

timm = pytest.importorskip("timm", reason="timm is not installed; .ci/run tests with it in an environment of its own")

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}


@dataclass(frozen=True)
class Transformer:
    """A vision transformer of timm.

    Args:
        architecture (str): Its name in timm.
        options (dict): Arguments that differ from ``SIZES``. None leaves out a size.
    """

    architecture: str
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        options = {name: value for name, value in (SIZES | self.options).items() if value is not None}
        model = timm.create_model(self.architecture, **options)
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                # The initial scale of layers would hide what they do.
                nn.init.ones_(parameter)
        return zoo.randomised(model)


# One of each kind: how it is trained does not matter, but its tokens, positions, layers and pooling do.
TRANSFORMERS = {
    "ViT": Transformer("vit_tiny_patch16_224"),
    "ViT, mean": Transformer("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "ViT, images of any size": Transformer("vit_tiny_patch16_224", {"dynamic_img_size": True}),
    "ViT, attention beside perceptron": Transformer("vit_large_patch14_xp_224"),
    "ViT, layers side by side": Transformer("vit_small_patch16_18x2_224"),
    "ViT, both with differential attention": Transformer("vit_dpwee_patch16_reg1_gap_256"),
    "ViT, norms after layers": Transformer("vit_base_patch16_rpn_224"),
    "ViT, differential attention": Transformer("vit_dlittle_patch16_reg1_gap_256"),
    "ViT, registers, pooled by attention": Transformer("vit_so150m_patch16_reg4_map_256"),
    "DeiT": Transformer("deit_tiny_patch16_224"),
    "DeiT, distilled": Transformer("deit_tiny_distilled_patch16_224"),
    "DeiT III": Transformer("deit3_small_patch16_224"),
    "CLIP": Transformer("vit_base_patch32_clip_224"),
    "SigLIP": Transformer("vit_base_patch16_siglip_224"),
    "SigLIP, mean": Transformer("vit_base_patch16_siglip_gap_224"),
    "DINOv2": Transformer("vit_small_patch14_dinov2"),
    "DINOv2, registers": Transformer("vit_small_patch14_reg4_dinov2"),
    "DINOv3": Transformer("vit_small_patch16_dinov3"),
    "DINOv3, class token": Transformer("vit_small_patch16_dinov3", {"global_pool": "token"}),
    "EVA": Transformer("eva_large_patch14_196"),
    "EVA-02": Transformer("eva02_tiny_patch14_224"),
    "EVA-02, norms in layers": Transformer("eva02_base_patch14_224"),
    "EVA-02, norms after layers": Transformer("eva02_enormous_patch14_clip_224"),
    "RoPE-ViT": Transformer("vit_small_patch16_rope_224"),
    "RoPE-ViT, other positions in each layer": Transformer("vit_small_patch16_rope_mixed_224"),
    "Perception Encoder": Transformer("vit_pe_core_tiny_patch16_384"),
    "Sapiens2, shared keys": Transformer("vit_base_patch16_sapiens2", {"num_kv_heads": 1}),
    "BEiT": Transformer("beit_base_patch16_224"),
    "BEiT, class token": Transformer("beit_base_patch16_224", {"global_pool": "token"}),
    "BEiT v2": Transformer("beitv2_base_patch16_224"),
    "BEiT, shared positions": Transformer(
        "beit_base_patch16_224", {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
    ),
    "BEiT, shared and own positions": Transformer("beit_base_patch16_224", {"use_shared_rel_pos_bias": True}),
    "relative positions": Transformer("vit_relpos_small_patch16_224"),
    "relative positions, norms after layers": Transformer("vit_relpos_small_patch16_rpn_224"),
    "relative positions, shared": Transformer("vit_srelpos_small_patch16_224"),
    "relative positions, class token": Transformer("vit_relpos_base_patch16_cls_224"),
    "NaFlexViT": Transformer("naflexvit_base_patch16_gap", {"img_size": None}),
    "NaFlexViT, rotary positions": Transformer(
        "naflexvit_base_patch16_gap", {"img_size": None, "rope_type": "axial", "attn_type": "rope"}
    ),
}
# The attention of their last layer has no norm of its own, or there are several.
WITHOUT_NORM = (
    "ViT, attention beside perceptron",
    "ViT, layers side by side",
    "ViT, both with differential attention",
)
EVERY = pytest.mark.parametrize("name", TRANSFORMERS)
# Attention receives values of positions in each of these ways.
WITH_POSITIONS = pytest.mark.parametrize(
    "name",
    [
        "EVA-02",
        "RoPE-ViT, other positions in each layer",
        "DINOv3",
        "BEiT",
        "BEiT, shared and own positions",
        "relative positions",
        "relative positions, shared",
        "NaFlexViT, rotary positions",
    ],
)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32)


Weights = Callable[[int, int], Tensor]


def run_with_weights(model: Any, image: Tensor, weights: Weights, mean_of: list[int]) -> Tensor:
    """Logits of one image, with attention and the mean of patches computed here.

    Args:
        weights (Callable): Maps the index of an attention and its number of keys to the weight of each key: its share
            of the attention is proportional to the weight times exp(score).
        mean_of (list[int]): The patches that a classifier averages.
    """
    calls = 0

    def attend(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None, **_: Any
    ) -> Tensor:
        nonlocal calls
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        scores = scores if attn_mask is None else scores + attn_mask
        shares = weights(calls, key.shape[-2]).to(query.dtype) * scores.exp()
        calls += 1
        # No key at all contributes nothing.
        return (shares / shares.sum(-1, keepdim=True)).nan_to_num(0.0) @ value

    def average(_module: nn.Module, _args: object, tokens: Tensor) -> Tensor:
        """All patches become the mean of some of them, which is then the mean."""
        n_prefix = model.num_prefix_tokens
        means = tokens.clone()
        means[:, n_prefix:] = tokens[:, n_prefix:][:, mean_of].mean(1, keepdim=True) if mean_of else 0.0
        return means

    with ExitStack() as undo, torch.no_grad():
        patched = undo.enter_context(pytest.MonkeyPatch.context())
        patched.setattr(nn.functional, "scaled_dot_product_attention", attend)
        if model.global_pool == "avg":
            undo.callback(model.norm.register_forward_hook(average).remove)
        return model(image)[0]


def masked_logits(
    model: Any, image: Tensor, present: list[int], from_attention: int = 0, n_patches: int = 16
) -> Tensor:
    """Logits of one image if no token attends to an absent patch, and absent patches are not averaged."""

    def weights(index: int, n_keys: int) -> Tensor:
        shares = torch.ones(n_keys)
        if index >= from_attention:
            shares[-n_patches:] = 0
            shares[[n_keys - n_patches + patch for patch in present]] = 1
        return shares

    return run_with_weights(model, image, weights, present)


@pytest.mark.parametrize(
    "module",
    [
        *("vision_transformer", "vision_transformer_hybrid", "vision_transformer_relpos"),
        *("deit", "eva", "beit", "naflexvit"),
    ],
)
def test_the_tokens_of_every_registered_model_are_found(module: str) -> None:
    names = timm.list_models(module=module)
    assert names
    for name in names:
        # One layer without memory for its weights. Some models have a number of heads for each layer.
        options = {"num_kv_heads": 1} if "sapiens2" in name else {}
        with torch.device("meta"):
            model = timm.create_model(name, depth=1, **options)
        layout = token_layout(model)
        assert layout is not None, name
        assert len(layout.layers) == 1
        if module != "vision_transformer_hybrid":
            # The patches of these models are not those of a convolutional stem.
            embed = model.embeds if module == "naflexvit" else model.patch_embed
            assert layout.patch_size == tuple(embed.patch_size), name


@EVERY
def test_the_default_players_are_the_patches_and_their_tokens_are_removed(name: str, images: Tensor) -> None:
    for model in (TRANSFORMERS[name].build(), nn.Sequential(nn.Identity(), TRANSFORMERS[name].build())):
        game = CoalitionGame(model, images, target=0)
        assert isinstance(game.removal, TokenRemoval)
        assert torch.equal(game.call.players.positions[0][0, 0], patch_mask(32, 8)[0, 0])


@EVERY
def test_removed_tokens_equal_masked_attention(name: str, images: Tensor) -> None:
    model, images = TRANSFORMERS[name].build().double(), images.double()
    coalitions, examples, logits = all_logits(model, images)
    for coalition, example, row in zip(coalitions, examples.tolist(), logits, strict=True):
        expected = masked_logits(model, images[example][None], coalition.nonzero().flatten().tolist())
        torch.testing.assert_close(row, expected, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(logits[-2:], model(images), rtol=1e-9, atol=1e-9)


@WITH_POSITIONS
def test_attention_is_masked_from_a_layer_on(name: str, images: Tensor) -> None:
    model, images = TRANSFORMERS[name].build().double(), images.double()
    coalitions, examples, logits = all_logits(model, images, removal=AttentionRemoval(1))
    # The first attention is that of layer 0. Without a prefix token, no token is left in layer 1.
    present = coalitions.any(1)
    for coalition, example, row in zip(coalitions[present], examples[present].tolist(), logits[present], strict=True):
        kept = coalition.nonzero().flatten().tolist()
        expected = masked_logits(model, images[example][None], kept, from_attention=1)
        torch.testing.assert_close(row, expected, rtol=1e-9, atol=1e-9)


@WITH_POSITIONS
def test_attention_need_not_be_fused(name: str, images: Tensor) -> None:
    model = TRANSFORMERS[name].build().double()
    coalitions, examples, fused = all_logits(model, images.double())
    for part in model.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    game = CoalitionGame(model, images.double(), target=0, reward="output")
    rewards = game.outcome(coalitions, examples).rewards
    torch.testing.assert_close(rewards, fused[:, 0], rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="calls neither scaled_dot_product_attention"):
        MoXIInsertion(model, screen=GradientScreen(4)).attribute(images.double(), target=0, n_steps=1)


@EVERY
def test_the_search_chooses_the_patches_of_the_paper(name: str, images: Tensor) -> None:
    model, image = TRANSFORMERS[name].build().double(), images[:1].double()
    target = int(model(image).argmax())

    def value(present: frozenset[int]) -> float:
        return reference.log_odds(masked_logits(model, image, sorted(present)), target)

    attributions, selection = MoXIInsertion(model).attribute(image, target=target, n_steps=2, return_selection=True)
    order, values = reference.insertion(value, 16, 2)
    assert selection.order[0].tolist() == order
    assert selection.rewards[0].tolist() == pytest.approx(values)
    assert attributions.shape == image.shape


@EVERY
def test_a_batch_gives_what_each_example_gives_alone(name: str, images: Tensor) -> None:
    model = TRANSFORMERS[name].build()
    check_batch(model, images)


@EVERY
def test_the_screens_choose_among_existing_players(name: str, images: Tensor) -> None:
    model = TRANSFORMERS[name].build()
    check_screens(model, images, (GradientScreen(4), HalfPrecisionScreen()))


@pytest.mark.parametrize("name", ["ViT, registers, pooled by attention", "SigLIP", "BEiT", "DINOv3, class token"])
def test_effects_are_derivatives_in_the_share_of_attention(name: str, images: Tensor) -> None:
    model, image = TRANSFORMERS[name].build().double(), images[:1].double()
    if name == "BEiT":
        # Gates do not weight the mean of patches.
        model.global_pool = "token"
    effects = CoalitionGame(model, image, target=1, reward="output").effects(torch.ones(1, 16))[0]

    def value(gates: Tensor) -> float:
        def weights(_index: int, n_keys: int) -> Tensor:
            return torch.cat([torch.ones(n_keys - 16), gates])

        return float(run_with_weights(model, image, weights, list(range(16)))[1])

    check_derivatives(effects.sum(0), value, torch.ones(16, dtype=torch.float64))


@EVERY
def test_grad_cam_finds_a_layer_or_says_that_there_is_none(name: str, images: Tensor) -> None:
    model = TRANSFORMERS[name].build()
    if name in WITHOUT_NORM:
        with pytest.raises(ValueError, match="layer is None, but"):
            GradCam(model)
        return
    attributions = GradCam(model).attribute(images, target=0)
    assert attributions.shape == (2, 1, 4, 4)
    assert attributions.isfinite().all()


@pytest.mark.parametrize("patched", [False, True], ids=["as it is", "with a replaced forward"])
@pytest.mark.parametrize("name", ["DINOv3", "BEiT", "relative positions, shared"])
def test_other_threads_see_no_change(name: str, patched: bool, images: Tensor) -> None:
    model = TRANSFORMERS[name].build()
    if patched:
        # Hooks are then on the model itself, because a copy would run the original layer.
        model.blocks[1].forward = model.blocks[1].forward

    def direct() -> Tensor:
        with torch.no_grad():
            return model(images)

    def explain() -> Tensor:
        return MoXIInsertion(model).attribute(images, target=[0, 1], n_steps=2, score="gain")

    jobs = [direct, explain]
    expected = [job() for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda index: jobs[index % 2](), range(24)))
    assert all(torch.equal(result, expected[index % 2]) for index, result in enumerate(results))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize("name", ["ViT", "DINOv3", "EVA-02", "NaFlexViT"])
def test_images_need_not_be_square(name: str) -> None:
    architecture, options = TRANSFORMERS[name].architecture, TRANSFORMERS[name].options
    model = Transformer(architecture, options or {"dynamic_img_size": True}).build().double()
    image = torch.randn(1, 3, 24, 40).double()
    coalitions = torch.rand(4, 15) < 0.5
    coalitions[0] = True
    rewards = CoalitionGame(model, image, target=0, reward="output")(coalitions)
    for coalition, reward in zip(coalitions, rewards, strict=True):
        expected = masked_logits(model, image, coalition.nonzero().flatten().tolist(), n_patches=15)[0]
        torch.testing.assert_close(reward, expected, rtol=1e-9, atol=1e-9)


def test_the_patches_of_a_convolutional_stem_are_those_of_its_map() -> None:
    sizes = {"img_size": 64, "patch_size": None, "num_heads": 2, "embed_dim": 32}
    model, images = Transformer("vit_tiny_r_s16_p8_224", sizes).build(), torch.randn(2, 3, 64, 64)
    game = CoalitionGame(model, images, target=0, reward="output")
    assert isinstance(game.removal, TokenRemoval)
    assert game.n_players == model.patch_embed.num_patches == 4
    with torch.no_grad():
        torch.testing.assert_close(game.full.rewards, model(images)[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "beit_base_patch16_224"])
def test_the_wrapper_of_transformers_is_explained_as_its_model(name: str, images: Tensor) -> None:
    sizes = {key: value for key, value in SIZES.items() if key != "num_classes"}
    config = transformers.TimmWrapperConfig(architecture=name, num_labels=5, model_args=sizes)
    wrapper = zoo.randomised(transformers.TimmWrapperForImageClassification(config))
    attributions = MoXIInsertion(wrapper).attribute(images, target=[0, 1], n_steps=2)
    inner = MoXIInsertion(wrapper.timm_model).attribute(images, target=[0, 1], n_steps=2)
    assert torch.equal(attributions, inner)
    assert isinstance(CoalitionGame(wrapper, images, target=0).removal, TokenRemoval)


# --- networks that need the whole image ---

OTHERS = {
    "ResNet": ("resnet18", {}),
    "ConvNeXt": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}),
    "RegNet": ("regnetx_002", {}),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 64, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4},
    ),
    "Swin v2": (
        "swinv2_tiny_window8_256",
        {"img_size": 64, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4},
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_have_a_grid_whose_absent_cells_are_filled(name: str) -> None:
    architecture, options = OTHERS[name]
    model = zoo.randomised(timm.create_model(architecture, num_classes=5, **options))
    images = torch.randn(2, 3, 64, 64)
    assert isinstance(CoalitionGame(model, images, target=0).removal, BaselineRemoval)
    check_filled_cells(model, images, model, n_classes=2)
    attributions = MoXIInsertion(model, screen=GradientScreen(4)).attribute(images, target=[0, 1], n_steps=2)
    assert attributions.shape == images.shape
    with pytest.raises(ValueError, match=r"layer is None, but .*pass the module"):
        GradCam(model)
