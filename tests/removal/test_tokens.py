from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import reference
import torch
import zoo
from torch import Tensor, nn

from captum_moxi import AttentionRemoval, BaselineRemoval, CoalitionGame, MoXIInsertion, TokenRemoval, patch_mask

MODELS = pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
STAND_INS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "timm, class token": (lambda: zoo.TimmLayout("token"), "norm_pre"),
    "timm, mean": (lambda: zoo.TimmLayout("mean"), "norm_pre"),
    "torchvision": (zoo.TorchvisionLayout, "encoder.dropout"),
}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32)


def coalitions_of_all_sizes(n: int, count: int = 12) -> Tensor:
    """Random coalitions, the empty one first and the full one last."""
    coalitions = torch.rand(count, n) < torch.linspace(0, 1, count)[:, None]
    coalitions[0], coalitions[-1] = False, True
    return coalitions


def all_logits(model: nn.Module, images: Tensor, coalitions: Tensor, examples: Tensor, **kwargs: Any) -> Tensor:
    """All logits of coalitions: one game per class, because a game returns one reward."""
    columns = [
        CoalitionGame(model, images, target=target, reward="output", **kwargs).outcome(coalitions, examples).rewards
        for target in range(5)
    ]
    return torch.stack(columns, 1)


@MODELS
def test_logits_equal_those_of_the_kept_tokens(name: str, images: Tensor) -> None:
    model, coalitions = zoo.token_model(name), coalitions_of_all_sizes(16)
    examples = torch.arange(len(coalitions)) % 2
    logits = all_logits(model, images, coalitions, examples, removal=TokenRemoval())
    with torch.no_grad():
        expected = torch.stack(
            [
                reference.vit_logits(model, images[example : example + 1], coalition.nonzero().flatten().tolist())
                for coalition, example in zip(coalitions, examples.tolist(), strict=True)
            ]
        )
    assert logits.isfinite().all()
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@MODELS
def test_the_full_coalition_has_the_models_own_logits(name: str, images: Tensor) -> None:
    model = zoo.token_model(name)
    logits = all_logits(model, images, torch.ones(2, 16, dtype=torch.bool), torch.arange(2), removal=TokenRemoval())
    with torch.no_grad():
        torch.testing.assert_close(logits, model(images).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", STAND_INS)
def test_the_user_can_name_or_pass_the_embedding_module(name: str, images: Tensor) -> None:
    build, embeddings = STAND_INS[name]
    model = zoo.randomised(build())
    full = torch.ones(2, 16, dtype=torch.bool)
    with torch.no_grad():
        expected = model(images)
    for removal in (TokenRemoval(embeddings), TokenRemoval(model.get_submodule(embeddings), patch_size=8)):
        logits = all_logits(model, images, full, torch.arange(2), removal=removal)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", STAND_INS)
def test_a_named_embedding_module_returns_only_the_kept_tokens(name: str, images: Tensor) -> None:
    build, embeddings = STAND_INS[name]
    model = zoo.randomised(build())
    coalitions = coalitions_of_all_sizes(16)[:-1]
    examples = torch.zeros(len(coalitions), dtype=torch.long)
    logits = all_logits(model, images, coalitions, examples, removal=TokenRemoval(embeddings))
    assert logits.isfinite().all()
    for coalition, row in zip(coalitions[1:], logits[1:], strict=True):
        kept = [0, *(coalition.nonzero().flatten() + 1).tolist()]
        hook = model.get_submodule(embeddings).register_forward_hook(lambda _m, _a, out, kept=kept: out[:, kept])
        with torch.no_grad():
            torch.testing.assert_close(row, model(images[:1])[0], rtol=1e-5, atol=1e-5)
        hook.remove()


def test_a_function_around_a_model_can_name_the_models_embeddings() -> None:
    model, x = zoo.token_model("vit"), torch.randn(1, 3, 32, 32)

    def twice(x: Tensor) -> Tensor:
        return 2 * model(x).logits

    removal, coalitions = TokenRemoval(model.vit.embeddings, patch_size=8), torch.rand(5, 16) < 0.5
    game = CoalitionGame(twice, x, target=0, reward="output", removal=removal)
    plain = CoalitionGame(model, x, target=0, reward="output")
    torch.testing.assert_close(game(coalitions), 2 * plain(coalitions))


@pytest.mark.filterwarnings("ignore:inputs has images of")
@MODELS
def test_position_embeddings_are_interpolated_for_images_of_another_size(name: str) -> None:
    model = zoo.token_model(name)
    larger = torch.randn(1, 3, 48, 40)
    kwargs = {} if "dinov2" in name else {"interpolate_pos_encoding": True}
    logits = all_logits(model, larger, torch.ones(1, 30, dtype=torch.bool), torch.zeros(1, dtype=torch.long))
    with torch.no_grad():
        torch.testing.assert_close(logits, model(larger, **kwargs).logits, rtol=0, atol=1e-5)


def test_the_grid_of_patches_need_not_be_square() -> None:
    model, x = zoo.token_model("dinov2"), torch.randn(1, 3, 24, 40)
    coalitions = coalitions_of_all_sizes(15)
    logits = all_logits(model, x, coalitions, torch.zeros(len(coalitions), dtype=torch.long))
    with torch.no_grad():
        expected = [reference.vit_logits(model, x, row.nonzero().flatten().tolist()) for row in coalitions]
    torch.testing.assert_close(logits, torch.stack(expected), rtol=1e-5, atol=1e-5)
    # a custom mask: the left two columns of patches, and the right three
    mask = torch.zeros(1, 1, 24, 40, dtype=torch.long)
    mask[..., 16:] = 1
    left = CoalitionGame(model, x, target=0, reward="output", feature_mask=mask)(torch.tensor([[1, 0]]))
    kept = [5 * row + column for row in range(3) for column in range(2)]
    with torch.no_grad():
        torch.testing.assert_close(left[0], reference.vit_logits(model, x, kept)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "mask",
    [
        patch_mask(32, grid=2),
        torch.tensor([[0, 0, 1, 1], [0, 2, 2, 1], [0, 2, 9, 1], [0, 0, 0, 0]])
        .repeat_interleave(8, 0)
        .repeat_interleave(8, 1),
        torch.stack([patch_mask(32, grid=2)[0], patch_mask(32, grid=4)[0]]),
    ],
    ids=["2 x 2", "L-shapes", "one per example"],
)
def test_a_player_may_consist_of_several_patches(mask: Tensor, images: Tensor) -> None:
    model = zoo.token_model("vit")
    game = CoalitionGame(model, images, target=0, reward="output", feature_mask=mask)
    owners = mask.expand(2, 3, 32, 32)[:, 0, ::8, ::8].flatten(1)
    for example in range(2):
        for size in (0, 1, 2):
            for present in combinations(game.ids[game.exists[example]].tolist()[:4], size):
                ids = torch.tensor(present, dtype=torch.long)
                coalition = torch.isin(game.ids, ids)[None]
                kept = torch.isin(owners[example], ids).nonzero().flatten().tolist()
                with torch.no_grad():
                    expected = reference.vit_logits(model, images[example : example + 1], kept)[0]
                reward = game.outcome(coalition, torch.tensor([example])).rewards[0]
                torch.testing.assert_close(reward, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mean", ["x.mean(1)", "torch.mean(input=x, dim=1)", "adaptive_avg_pool1d(x.mT, 1)[..., 0]"])
def test_the_mean_of_no_tokens_is_zero_however_it_is_computed(mean: str, images: Tensor) -> None:
    class Pools(zoo.TimmLayout):
        def forward(self, x: Tensor) -> Tensor:
            tokens = self.tokens(x)[:, 1:]
            return self.head(eval(mean, {**vars(nn.functional), "torch": torch, "x": tokens}))

    model = zoo.randomised(Pools())
    game = CoalitionGame(model, images[:1], target=0, reward="output", removal=TokenRemoval("norm_pre"))
    torch.testing.assert_close(game(torch.zeros(1, 16))[0], model.head.bias[0].detach())


def test_additional_arguments_with_a_batch_dimension_follow_their_example(images: Tensor) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = zoo.token_model("vit")

        def forward(self, x: Tensor, shift: Tensor, scale: float) -> Tensor:
            return self.vit(x).logits * scale + shift

    model, shift = Shifted(), torch.randn(2, 5)
    coalitions, examples = coalitions_of_all_sizes(16), torch.arange(12) % 2
    logits = all_logits(model, images, coalitions, examples, additional_forward_args=(shift, 2.0))
    plain = all_logits(model.vit, images, coalitions, examples)
    torch.testing.assert_close(logits, 2 * plain + shift[examples], rtol=1e-5, atol=1e-5)


def test_pictures_show_absent_patches_in_gray(images: Tensor) -> None:
    game = CoalitionGame(zoo.token_model("vit"), images, target=0)
    coalitions, examples = torch.rand(4, 16) < 0.5, torch.tensor([1, 0, 1, 1])

    def to_images(pixel_values: Tensor) -> Tensor:
        return pixel_values.permute(0, 2, 3, 1).clamp(0, 1)

    pictures = game.pictures(coalitions, examples, to_images)
    assert pictures.shape == (4, 32, 32, 3)
    for picture, coalition, example in zip(pictures, coalitions, examples.tolist(), strict=True):
        image = to_images(images[example : example + 1])[0]
        for player in range(16):
            rows, columns = (
                slice(8 * (player // 4), 8 * (player // 4) + 8),
                slice(8 * (player % 4), 8 * (player % 4) + 8),
            )
            expected = image[rows, columns] if coalition[player] else torch.full((8, 8, 3), 0.5)
            torch.testing.assert_close(picture[rows, columns], expected)


def test_token_removal_is_the_default_for_one_classifier_with_patch_tokens(images: Tensor) -> None:
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = zoo.token_model("vit"), zoo.token_model("deit")

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x).logits + self.second(x).logits

    vit = zoo.token_model("vit")
    assert isinstance(CoalitionGame(vit, images, target=0).removal, TokenRemoval)
    assert isinstance(CoalitionGame(vit, images, target=0, baselines=0).removal, BaselineRemoval)
    assert isinstance(CoalitionGame(zoo.resnet().eval(), images, target=0).removal, BaselineRemoval)
    # it would not be clear which of two models loses tokens
    game = CoalitionGame(Ensemble(), images, target=0, feature_mask=patch_mask(32, 8))
    assert isinstance(game.removal, BaselineRemoval)


def test_a_model_that_resizes_its_inputs_is_rejected() -> None:
    vit = zoo.token_model("vit")

    class Resizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = vit

        def forward(self, x: Tensor) -> Tensor:
            return self.vit(nn.functional.interpolate(x, size=(32, 32))).logits

    x = torch.randn(1, 3, 16, 16)
    for removal in (None, AttentionRemoval(1)):
        with pytest.raises(ValueError, match=r"resizes its inputs, pass inputs of that size.*BaselineRemoval\(\)"):
            MoXIInsertion(Resizes(), removal=removal).attribute(x, target=0)
    assert MoXIInsertion(Resizes(), removal=BaselineRemoval()).attribute(x, target=0).shape == x.shape


@pytest.mark.parametrize("build", [zoo.swin, zoo.resnet])
@pytest.mark.parametrize("removal", [TokenRemoval(), AttentionRemoval(1)], ids=repr)
def test_models_that_need_the_whole_grid_are_rejected(
    build: Callable[[], nn.Module], removal: TokenRemoval | AttentionRemoval, images: Tensor
) -> None:
    with pytest.raises(ValueError, match=r"whole grid of patches; pass removal=BaselineRemoval\(\)"):
        MoXIInsertion(build().eval(), removal=removal).attribute(images, target=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"feature_mask": patch_mask(32, 12)}, r"feature_mask cuts \d+ patches: the 8 x 8 patch at row 0, column 1"),
        ({"feature_mask": torch.arange(3)[:, None, None]}, "feature_mask cuts"),
        ({"baselines": 0}, "baselines"),
    ],
)
def test_bad_arguments_are_rejected_before_the_model_runs(kwargs: dict[str, Any], message: str, images: Tensor) -> None:
    model = zoo.token_model("vit")
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match=message):
        MoXIInsertion(model, removal=TokenRemoval()).attribute(images, target=0, **kwargs)
    assert not calls


@pytest.mark.parametrize(
    ("removal", "message"),
    [
        (TokenRemoval("nowhere"), "embeddings is 'nowhere', but the model has no such module"),
        (TokenRemoval("norm_pre", n_prefix=2), "16 patches and 2 prefix tokens"),
        (TokenRemoval("patch_embed"), r"Name the module whose output is \(B, tokens, width\)"),
        (AttentionRemoval(3, "blocks"), "the model has layers 0 to 2; pass one of them"),
    ],
)
def test_a_module_without_the_token_sequence_is_rejected(
    removal: TokenRemoval | AttentionRemoval, message: str, images: Tensor
) -> None:
    model = zoo.randomised(zoo.TimmLayout())
    with pytest.raises(ValueError, match=message):
        MoXIInsertion(model, removal=removal).attribute(images, target=0)


@pytest.mark.parametrize(("removal", "argument"), [(TokenRemoval(), "embeddings"), (AttentionRemoval(1), "layers")])
def test_an_unknown_model_is_rejected(removal: TokenRemoval | AttentionRemoval, argument: str, images: Tensor) -> None:
    message = rf"does not know where the patch tokens of UnknownLayout are.*{type(removal).__name__}\({argument}=...\)"
    with pytest.raises(ValueError, match=message):
        MoXIInsertion(zoo.UnknownLayout(), removal=removal).attribute(images, target=0)


def test_a_module_inside_a_block_fails_because_the_residual_has_another_length(images: Tensor) -> None:
    model = zoo.randomised(zoo.TimmLayout())
    with pytest.raises(RuntimeError):
        MoXIInsertion(model, removal=TokenRemoval("blocks.0.norm1")).attribute(images, target=0)


def test_a_name_is_rejected_if_the_forward_function_is_not_a_module(images: Tensor) -> None:
    with pytest.raises(ValueError, match="embeddings is the name 'norm_pre', but forward_func is not a module"):
        CoalitionGame(lambda x: x.sum((2, 3)), images, target=0, removal=TokenRemoval("norm_pre", patch_size=8))
