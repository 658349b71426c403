"""Every type of image classifier in transformers, compared with the model run by hand.

The types are those of transformers' mapping, so a type that a new version adds fails until it has an entry in
``classifiers.py``.
"""

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import classifiers
import pytest
import reference
import torch
import transformers
import zoo
from classifiers import CLASSIFIERS, N_CLASSES
from outcomes import all_logits, check_batch, check_filled_cells, check_screens, rows_of
from packaging.version import Version
from torch import Tensor, nn
from transformers import Siglip2ImageProcessor, ViTImageProcessor
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.dinat import modeling_dinat

from captum_moxi import (
    AttentionRemoval,
    AttentionRollout,
    CoalitionGame,
    GradCam,
    GradientScreen,
    HalfPrecisionScreen,
    MoXIInsertion,
    TokenRemoval,
    load,
    patch_mask,
)
from captum_moxi.removal import default_removal

ROOT = Path(__file__).parents[1]


# Checks that raise an error for a type, and the message. The documentation lists them, and all other checks pass.
EXCEPTIONS = {
    # Its attention is a product of matrices, whose keys cannot be weighted.
    ("hiera", "GradientScreen"): r"calls neither scaled_dot_product_attention .* pass a screen that needs",
    ("perceiver", "Grad-CAM"): "has no feature maps; pass the module",
    # The error comes from its own code.
    ("levit", "half precision"): "(?i)float",
}


# The types for which each check runs, by the name of the check in the documentation.
CHECKED: dict[str, set[str]] = {}


def of_group(*groups: str) -> pytest.MarkDecorator:
    """All classes of the types in these groups."""
    names = [name for name in classifiers.MAPPING if name in CLASSIFIERS and CLASSIFIERS[name].group in groups]
    classes = [(name, class_name) for name in names for class_name in classifiers.class_names(name)]
    return pytest.mark.parametrize(("name", "class_name"), classes, ids=[class_name for _, class_name in classes])


def check(title: str, *groups: str) -> pytest.MarkDecorator:
    """Run a check of the documentation for all classes of the types in these groups."""
    classes = of_group(*groups)
    CHECKED.setdefault(title, set()).update(name for name, _ in classes.args[1])
    return classes


def images_of(name: str, count: int = 2) -> Tensor:
    side = CLASSIFIERS[name].image_size
    return torch.randn(count, 3, side, side)


def test_every_type_of_transformers_has_an_entry() -> None:
    missing = sorted(set(classifiers.MAPPING) - set(CLASSIFIERS))
    assert not missing, f"add a small configuration of {', '.join(missing)} to CLASSIFIERS in tests/classifiers.py"


def default_players(name: str) -> int:
    """Number of players of an image of the size in the default configuration, by hand."""
    entry = CLASSIFIERS[name]
    if entry.group == "fill":
        return 6 * 6
    config = getattr(transformers, classifiers.class_names(name)[0]).config_class()
    config = getattr(config, "vision_config", config)
    if name == "siglip2":
        return config.num_patches
    if name == "hiera":
        return (config.image_size[0] // (config.patch_stride[0] * config.masked_unit_size[0])) ** 2
    return (config.image_size // config.patch_size) ** 2


def test_the_documentation_lists_every_type_with_its_players() -> None:
    rows = [line.split("|") for line in (ROOT / "docs" / "supported-models.md").read_text("utf-8").splitlines()]
    listed = {name.strip(" `"): row for row in rows if len(row) > 3 for name in row[1].split(",")}
    assert set(CLASSIFIERS) <= set(listed), f"add {set(CLASSIFIERS) - set(listed)} to docs/supported-models.md"
    words = {"tokens": "tokens", "positions": "tokens and their positions", "fill": "fill", "unsupported": "none"}
    for name, entry in CLASSIFIERS.items():
        if name != "timm_wrapper":
            assert listed[name][2].strip() == words[entry.group], name
        if entry.group != "unsupported":
            assert listed[name][3].strip() == str(default_players(name)), name
            exceptions = [title for exception, title in EXCEPTIONS if exception == name]
            assert listed[name][4].strip() == (f"all but {', '.join(exceptions)}" if exceptions else "all"), name


def test_the_documentation_lists_the_checks_and_all_run_for_every_type() -> None:
    page = (ROOT / "docs" / "supported-models.md").read_text("utf-8")
    checks = page.partition("The column *tests*")[2].partition("\n\nThe versions")[0]
    assert set(re.findall(r"\*\*(.+?)\*\*", checks)) == set(CHECKED)
    supported = {name for name in classifiers.MAPPING if CLASSIFIERS[name].group != "unsupported"}
    assert {title: supported - names for title, names in CHECKED.items() if names != supported} == {}
    assert {title for _, title in EXCEPTIONS} <= set(CHECKED)


# --- tokens: the classifier after masked attention, by hand ---


def mean_of(tokens: Tensor, present: list[int]) -> Tensor:
    """The mean of the present patches, or zeros if there are none."""
    patches = tokens[0, -16:][present]
    return patches.mean(0) if present else torch.zeros_like(tokens[0, 0])


# The logits, from the tokens that a module of the model returned.
HEADS: dict[str, tuple[str, Callable[[Any, Tensor, list[int]], Tensor]]] = {
    "clip": ("vision_model.encoder.layers.2", lambda model, t, present: model.classifier(mean_of(t, present))),
    "siglip": ("vision_model.post_layernorm", lambda model, t, present: model.classifier(mean_of(t, present))),
    "ijepa": ("ijepa.layernorm", lambda model, t, present: model.classifier(mean_of(t, present))),
    "dinov2": (
        "dinov2.layernorm",
        lambda model, t, present: model.classifier(torch.cat([t[0, 0], mean_of(t, present)])),
    ),
    "dinov2_with_registers": (
        "dinov2_with_registers.layernorm",
        lambda model, t, present: model.classifier(torch.cat([t[0, 0], mean_of(t, present)])),
    ),
}
HEADS["metaclip_2"] = HEADS["clip"]


def hiera_logits(model: Any, image: Tensor, present: list[int]) -> Tensor:
    """Logits of one image with attention to absent mask units masked. Most layers attend only within a unit."""
    if not present:
        return model.classifier(model.hiera.pooler.layernorm(image.new_zeros(32)))
    model, seen = copy.deepcopy(model), []
    attentions = [part for name, part in model.named_modules() if name.endswith("attn") and not part.use_mask_unit_attn]
    assert len(attentions) == 1

    def attend(tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
        (attention,) = attentions
        qkv = attention.qkv(tokens).unflatten(2, (3, attention.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = query @ key.mT * attention.scale
        scores[..., [unit for unit in range(16) if unit not in present]] = -torch.inf
        return attention.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2)), None

    attentions[0].forward = attend
    model.hiera.encoder.register_forward_hook(lambda _module, _args, output: seen.append(output.last_hidden_state))
    model(image)
    return model.classifier(model.hiera.pooler.layernorm(mean_of(seen[0], present)))


def masked_logits(model: Any, name: str, image: Tensor, present: list[int]) -> Tensor:
    """Logits of one image if no token attends to an absent patch in any layer, and absent patches are not averaged."""
    absent = [patch for patch in range(16) if patch not in present]
    if name == "siglip2":
        # It has a mask of its own. Its patches are rows of pixels, each with its colors.
        patches = image.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).reshape(1, 16, -1)
        mask = torch.ones(1, 16, dtype=torch.long)
        mask[0, absent] = 0
        output = model(patches, pixel_attention_mask=mask, spatial_shapes=torch.tensor([[4, 4]]))
        return output.logits[0] if present else model.classifier.bias
    if name == "hiera":
        return hiera_logits(model, image, present)
    if name not in HEADS:
        return reference.masked_logits(model, image, absent, from_layer=0)
    if not present and name in ("siglip", "ijepa"):
        return model.classifier.bias  # There is no token.
    module, head = HEADS[name]
    seen: list[Any] = []
    hook = model.get_submodule(module).register_forward_hook(lambda _module, _args, output: seen.append(output))
    reference.masked_logits(model, image, absent, from_layer=0)
    hook.remove()
    tokens = seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]
    return head(model, tokens, present)


@check("coalitions", "tokens")
def test_removed_tokens_equal_masked_attention(name: str, class_name: str) -> None:
    model, images = classifiers.build(name, class_name), images_of(name)
    assert isinstance(default_removal(model, (images,), has_baselines=False), TokenRemoval)
    coalitions, examples, logits = all_logits(model, images)
    assert coalitions.shape[1] == CLASSIFIERS[name].n_players
    for coalition, example, row in zip(coalitions, examples.tolist(), logits, strict=True):
        with torch.no_grad():
            expected = masked_logits(model, name, images[example][None], coalition.nonzero().flatten().tolist())
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)


@contextmanager
def masked_positions(model: Any, from_layer: int = 0) -> Iterator[list[int]]:
    """Mask the attention to absent patches in the relative position biases, and average the present patches.

    Yields:
        list[int]: The present patches. The caller changes it.
    """
    present: list[int] = []

    def mask(_module: nn.Module, _args: object, bias: Tensor) -> Tensor:
        bias = bias.clone()
        bias[..., [patch + 1 for patch in range(16) if patch not in present]] = -torch.inf
        return bias

    def average(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        """All patches become the mean of the present ones, which is then the mean."""
        tokens = args[0].clone()
        tokens[0, 1:] = mean_of(tokens, present)
        return (tokens,)

    biases = [part for name, part in model.named_modules() if name.endswith("position_bias")]
    hooks = [bias.register_forward_hook(mask) for bias in biases[from_layer:]]
    hooks.append(model.base_model.pooler.register_forward_pre_hook(average))
    yield present
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("shared", [False, True], ids=["a table per layer", "a shared table"])
@pytest.mark.parametrize("mean", [False, True], ids=["class token", "mean"])
@check("coalitions", "positions")
def test_relative_positions_follow_the_tokens(name: str, class_name: str, mean: bool, shared: bool) -> None:
    tables = {"use_relative_position_bias": not shared, "use_shared_relative_position_bias": shared}
    model = classifiers.build(name, class_name, use_mean_pooling=mean, **tables)
    images = images_of(name)
    coalitions, examples, logits = all_logits(model, images)
    with torch.no_grad(), masked_positions(model) as present:
        for coalition, example, row in zip(coalitions, examples.tolist(), logits, strict=True):
            present[:] = coalition.nonzero().flatten().tolist()
            torch.testing.assert_close(row, model(images[example][None]).logits[0], rtol=1e-4, atol=1e-4)


@of_group("positions")
def test_attention_is_masked_from_a_layer_on_only_if_its_positions_are_its_own(name: str, class_name: str) -> None:
    model, image = classifiers.build(name, class_name, use_shared_relative_position_bias=False), images_of(name, 1)
    coalitions = torch.rand(4, 16) < 0.5
    rewards = CoalitionGame(model, image, target=0, reward="output", removal=AttentionRemoval(1))(coalitions)
    with torch.no_grad(), masked_positions(model, from_layer=1) as present:
        for coalition, reward in zip(coalitions, rewards, strict=True):
            present[:] = coalition.nonzero().flatten().tolist()
            torch.testing.assert_close(reward, model(image).logits[0, 0], rtol=1e-4, atol=1e-4)
    shared = classifiers.build(name, class_name)
    with pytest.raises(
        ValueError, match=r"all of them use the same values of positions; pass removal=TokenRemoval\(\)"
    ):
        CoalitionGame(shared, image, target=0, removal=AttentionRemoval(1))


@pytest.mark.filterwarnings("ignore:inputs has images of")
@of_group("positions")
def test_relative_positions_are_interpolated_for_images_of_another_size(name: str, class_name: str) -> None:
    model, image = classifiers.build(name, class_name), torch.randn(1, 3, 48, 48)
    game = CoalitionGame(model, image, target=0, reward="output")
    coalitions = torch.ones(2, 36)
    coalitions[1, 5:] = 0
    with torch.no_grad():
        expected = model(image, interpolate_pos_encoding=True).logits[0, 0]
    rewards = game(coalitions)
    torch.testing.assert_close(rewards[0], expected, rtol=1e-4, atol=1e-4)
    assert rewards.isfinite().all()


@check("half precision", "tokens")
def test_half_precision_removes_tokens(name: str, class_name: str) -> None:
    model, images = classifiers.build(name, class_name).bfloat16(), images_of(name, 1).bfloat16()
    coalitions = torch.rand(4, 16) < torch.tensor([[0.0], [0.4], [0.8], [1.1]])
    logits = CoalitionGame(model, images, target=1, reward="output")(coalitions)
    with torch.no_grad():
        expected = [masked_logits(model, name, images, row.nonzero().flatten().tolist())[1] for row in coalitions]
    check_rounded(logits, torch.stack(expected))


def check_rounded(logits: Tensor, expected: Tensor) -> None:
    """Check that logits in half precision differ only by rounding, which accumulates over the layers.

    Other tokens would change the logits by about their standard deviation.
    """
    expected = expected.detach().float()
    torch.testing.assert_close(logits.float(), expected, rtol=0, atol=0.2 * float(expected.std()))


@check("half precision", "positions")
def test_half_precision_removes_tokens_with_their_positions(name: str, class_name: str) -> None:
    model, images = classifiers.build(name, class_name).bfloat16(), images_of(name, 1).bfloat16()
    coalitions = torch.rand(4, 16) < torch.tensor([[0.0], [0.4], [0.8], [1.1]])
    logits = CoalitionGame(model, images, target=1, reward="output")(coalitions)
    with torch.no_grad(), masked_positions(model) as present:
        expected = []
        for coalition in coalitions:
            present[:] = coalition.nonzero().flatten().tolist()
            expected.append(model(images).logits[0, 1])
    check_rounded(logits, torch.stack(expected))


class LinearHead(nn.Module):
    """A DINOv3 backbone with a linear head on the class token and the mean of the patches."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
        config = transformers.DINOv3ViTConfig(
            **sizes, image_size=32, patch_size=8, num_register_tokens=2, layerscale_value=1.0
        )
        self.config = config
        self.backbone = transformers.DINOv3ViTModel(config)
        self.head = nn.Linear(64, N_CLASSES)

    def forward(self, x: Tensor) -> ImageClassifierOutput:
        tokens = self.backbone(x).last_hidden_state
        return ImageClassifierOutput(logits=self.head(torch.cat([tokens[:, 0], tokens[:, 3:].mean(1)], 1)))


def test_rotary_positions_follow_the_tokens() -> None:
    model, images = zoo.randomised(LinearHead()), torch.randn(2, 3, 32, 32)
    games = [
        CoalitionGame(model, images, target=target, reward="output", removal="token") for target in range(N_CLASSES)
    ]
    coalitions, examples = rows_of(games[0])
    logits = torch.stack([game.outcome(coalitions, examples).rewards for game in games], 1)
    seen: list[Tensor] = []
    model.backbone.norm.register_forward_hook(lambda _module, _args, output: seen.append(output))
    for coalition, example, row in zip(coalitions, examples.tolist(), logits, strict=True):
        present = coalition.nonzero().flatten().tolist()
        absent = [patch for patch in range(16) if patch not in present]
        with torch.no_grad():
            reference.masked_logits(model, images[example][None], absent, from_layer=0)
            expected = model.head(torch.cat([seen[-1][0, 0], mean_of(seen[-1], present)]))
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)


# --- baseline fill ---


def own_logits(output: Any) -> Tensor:
    """The logits in the output of a model. PP-LCNet names them differently."""
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


@check("coalitions", "fill")
def test_filled_pixels_are_those_of_the_absent_cells(name: str, class_name: str) -> None:
    model, images = classifiers.build(name, class_name), images_of(name)
    assert CLASSIFIERS[name].n_players == 36
    check_filled_cells(model, images, lambda filled: own_logits(model(filled)))


@check("half precision", "fill")
def test_half_precision_fills_pixels_exactly(name: str, class_name: str) -> None:
    model, image = classifiers.build(name, class_name).bfloat16(), images_of(name, 1).bfloat16()
    if message := EXCEPTIONS.get((name, "half precision")):
        with pytest.raises(RuntimeError, match=message):
            model(image)
        return
    # Small differences of kernels grow in some of these networks. What the model reads and returns is therefore
    # compared, and not the result of another pass.
    read: dict[bytes, Tensor] = {}

    def record(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        (pixels,) = (*args, *(value for value in kwargs.values() if isinstance(value, Tensor)))
        read.update(zip(map(bytes_of, pixels), own_logits(output), strict=True))

    model.register_forward_hook(record, with_kwargs=True)
    coalitions = torch.rand(4, 36) < torch.tensor([[0.0], [0.4], [0.8], [1.1]])
    rewards = CoalitionGame(model, image, target=1, reward="output")(coalitions)
    cells = patch_mask(image.shape[-1], grid=6)[0, 0]
    for coalition, reward in zip(coalitions, rewards, strict=True):
        filled = torch.where(coalition[cells], image[0], torch.zeros_like(image[0]))
        assert reward == read[bytes_of(filled)][1]


def bytes_of(image: Tensor) -> bytes:
    return image.contiguous().view(torch.int16).numpy().tobytes()


def test_swinv2_without_any_player_is_reported_in_float16() -> None:
    model, image = classifiers.build("swinv2").half(), images_of("swinv2", 1).half()
    game = CoalitionGame(model, image, target=1)
    assert game(torch.ones(1, 36)).isfinite().all()
    with pytest.raises(ValueError, match="non-finite logits"):
        game(torch.zeros(1, 36))


@pytest.mark.parametrize("name", [name for name in ("efficientnet", "textnet") if name in classifiers.MAPPING])
def test_large_images_have_a_coarse_grid_too(name: str) -> None:
    side = {"efficientnet": 600, "textnet": 640}[name]
    game = CoalitionGame(classifiers.build(name), torch.zeros(1, 3, side, side), target=0)
    assert game.n_players == 36


# --- every supported type ---

EVERY = ("tokens", "positions", "fill")


@check("batch", *EVERY)
def test_a_batch_gives_what_each_example_gives_alone(name: str, class_name: str) -> None:
    model, images = classifiers.build(name, class_name), images_of(name)
    check_batch(model, images)


@check("HalfPrecisionScreen", *EVERY)
def test_the_half_precision_screen_chooses_among_existing_players(name: str, class_name: str) -> None:
    check_screens(classifiers.build(name, class_name), images_of(name, 1), [HalfPrecisionScreen()])


@check("GradientScreen", *EVERY)
def test_the_gradient_screen_chooses_among_existing_players(name: str, class_name: str) -> None:
    model, images = classifiers.build(name, class_name), images_of(name, 1)
    if message := EXCEPTIONS.get((name, "GradientScreen")):
        with pytest.raises(ValueError, match=message):
            MoXIInsertion(model, screen=GradientScreen(4)).attribute(images, target=0, n_steps=1)
        return
    check_screens(model, images, [GradientScreen(4)])


@check("Grad-CAM", *EVERY)
def test_grad_cam_finds_a_layer_or_says_that_there_is_none(name: str, class_name: str) -> None:
    model, images = classifiers.build(name, class_name), images_of(name)
    if message := EXCEPTIONS.get((name, "Grad-CAM")):
        with pytest.raises(ValueError, match=message):
            GradCam(model)
        return
    attributions = GradCam(model).attribute(images, target=0)
    assert attributions.shape[:2] == (2, 1)
    assert attributions.isfinite().all()
    if attributions[0].numel() > 1:
        assert attributions.abs().sum() > 0


HAVE_CLASS_TOKEN = (
    *("vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers"),
    *("clip", "metaclip_2", "beit", "data2vec-vision"),
)


@of_group(*EVERY)
def test_rollout_reads_the_attention_of_a_class_token_or_says_that_there_is_none(name: str, class_name: str) -> None:
    model, images = classifiers.build(name, class_name), images_of(name)
    if name in HAVE_CLASS_TOKEN:
        scores = AttentionRollout(model).attribute(images)
        assert scores.shape == images.shape
        assert ((scores > 0) & (scores < 1)).all()
        return
    message = "ran no scaled_dot_product_attention over a class token|needs one token for each patch"
    with pytest.raises(ValueError, match=message):
        AttentionRollout(model).attribute(images)


@check("folder", *EVERY)
def test_a_saved_model_gives_the_same_explanation(name: str, class_name: str, tmp_path: Path) -> None:
    model, side = classifiers.build(name, class_name), CLASSIFIERS[name].image_size
    if name == "pvt" and Version(transformers.__version__) < Version("5.1"):
        pytest.skip("transformers 5.0 cannot load the PVT models that it saves")
    model.save_pretrained(tmp_path)
    if name == "siglip2":
        Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(tmp_path)
    else:
        ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert type(loaded.model) is type(model)
    images = images_of(name, 1)
    expected = MoXIInsertion(model).attribute(images, target=0, n_steps=2)
    assert torch.equal(MoXIInsertion(loaded).attribute(images, target=0, n_steps=2), expected)


# --- types that are not supported ---


@pytest.mark.parametrize("name", ["imagegpt", "shieldgemma2"])
def test_models_that_read_ids_say_so(name: str) -> None:
    with pytest.raises(ValueError, match=r"the first input of .* is input_ids; pass a function"):
        MoXIInsertion(classifiers.build(name)).attribute(torch.randn(1, 3, 32, 32), target=0)


def test_a_function_explains_imagegpt() -> None:
    model = classifiers.build("imagegpt")
    clusters = torch.linspace(-1, 1, 16)

    def logits(images: Tensor) -> Tensor:
        pixels = nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 4).flatten(1)
        return model((pixels[..., None] - clusters).abs().argmin(-1)).logits

    mask = patch_mask(32, grid=4)
    attributions = MoXIInsertion(logits).attribute(torch.randn(1, 3, 32, 32), target=0, feature_mask=mask)
    assert len(attributions.unique()) == 16


def test_dinat_does_not_run_in_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attention orders the axes of its values in one way and reads its result in another, or reads too few axes.

    This test fails with a version of transformers that corrects this. DiNAT is then one more type to fill.
    """
    monkeypatch.setattr(modeling_dinat, "requires_backends", lambda *_args: None)
    # Functions that return what natten's functions return for queries, keys and values of any shape.
    monkeypatch.setattr(modeling_dinat, "natten2dqkrpb", lambda query, *_args: query.new_zeros(*query.shape[:-1], 9))
    monkeypatch.setattr(modeling_dinat, "natten2dav", lambda _weights, value, *_args: value)
    config = transformers.DinatConfig(embed_dim=8, depths=[1, 1], num_heads=[2, 2], kernel_size=3, dilations=[[1], [1]])
    model = transformers.DinatForImageClassification(config)
    with pytest.raises((RuntimeError, ValueError), match=r"shape .* is invalid|too many values to unpack"):
        model(torch.randn(1, 3, 32, 32))
