from itertools import combinations
from types import MethodType

import pytest
import reference
import torch
import zoo
from torch import Tensor, nn

from captum_moxi import (
    AttentionRemoval,
    BaselineRemoval,
    CoalitionGame,
    MoXIInsertion,
    TokenRemoval,
    models,
    patch_mask,
)
from captum_moxi.models import LogitsModel

MODELS = pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
STAND_INS = {
    "timm, class token": (lambda: zoo.TimmLayout("token"), "norm_pre", "blocks"),
    "timm, mean": (lambda: zoo.TimmLayout("mean"), "norm_pre", "blocks"),
    "torchvision": (zoo.TorchvisionLayout, "encoder.dropout", "encoder.layers"),
}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def rows_of(n: int, count: int = 12) -> Tensor:
    """Coalitions of many sizes, the full and the empty one among them."""
    rng = torch.Generator().manual_seed(n)
    rows = torch.rand(count, n, generator=rng) < torch.linspace(0, 1, count)[:, None]
    rows[0], rows[-1] = False, True
    return rows


def logits(model: nn.Module, images: Tensor, rows: Tensor, examples: Tensor, **kwargs: object) -> Tensor:
    """All logits of coalitions: one game a class, since a game returns one reward."""
    columns = [
        CoalitionGame(model, images, target=target, reward="output", **kwargs).outcome(rows, examples).rewards
        for target in range(5)
    ]
    return torch.stack(columns, 1)


@MODELS
def test_logits_are_those_of_the_kept_tokens(name: str, images: Tensor) -> None:
    model, rows = zoo.token_model(name), rows_of(16)
    examples = torch.arange(len(rows)) % 2
    got = logits(model, images, rows, examples, removal=TokenRemoval())
    with torch.no_grad():
        expected = torch.stack(
            [
                reference.vit_logits(model, images[e : e + 1], row.nonzero().flatten().tolist())
                for row, e in zip(rows, examples.tolist(), strict=True)
            ]
        )
    assert got.isfinite().all()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@MODELS
def test_taking_no_token_gives_the_models_own_logits(name: str, images: Tensor) -> None:
    model = zoo.token_model(name)
    got = logits(model, images, torch.ones(2, 16, dtype=torch.bool), torch.arange(2), removal=TokenRemoval())
    with torch.no_grad():
        torch.testing.assert_close(got, model(images).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", STAND_INS)
def test_a_vit_whose_embedding_module_is_named(name: str, images: Tensor) -> None:
    build, embeddings, _ = STAND_INS[name]
    model = zoo.randomised(build())
    whole = torch.ones(2, 16, dtype=torch.bool)
    with torch.no_grad():
        expected = model(images)
    for removal in (TokenRemoval(embeddings), TokenRemoval(model.get_submodule(embeddings), patch_size=8)):
        got = logits(model, images, whole, torch.arange(2), removal=removal)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    # with patches missing: the model with its tokens cut by hand, where the module hands them on
    rows = rows_of(16)[:-1]
    got = logits(model, images, rows, torch.zeros(len(rows), dtype=torch.long), removal=TokenRemoval(embeddings))
    assert got.isfinite().all()
    for row, line in zip(rows[1:], got[1:], strict=True):
        kept = [0, *(row.nonzero().flatten() + 1).tolist()]
        cut = model.get_submodule(embeddings).register_forward_hook(lambda _m, _a, out, kept=kept: out[:, kept])
        with torch.no_grad():
            torch.testing.assert_close(line, model(images[:1])[0], rtol=1e-5, atol=1e-5)
        cut.remove()


@MODELS
def test_interpolated_positions(name: str) -> None:
    model = zoo.token_model(name)
    larger = torch.randn(1, 3, 48, 40)
    kwargs = {} if "dinov2" in name else {"interpolate_pos_encoding": True}
    got = logits(model, larger, torch.ones(1, 30, dtype=torch.bool), torch.zeros(1, dtype=torch.long))
    with torch.no_grad():
        torch.testing.assert_close(got, model(larger, **kwargs).logits, rtol=0, atol=1e-5)


def test_patches_of_a_grid_that_is_not_square() -> None:
    model, x = zoo.token_model("dinov2"), torch.randn(1, 3, 24, 40)
    rows = rows_of(15)
    got = logits(model, x, rows, torch.zeros(len(rows), dtype=torch.long))
    with torch.no_grad():
        expected = [reference.vit_logits(model, x, row.nonzero().flatten().tolist()) for row in rows]
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-5, atol=1e-5)
    # a mask by hand: the left two columns of patches, and the right three
    mask = torch.zeros(1, 1, 24, 40, dtype=torch.long)
    mask[..., 16:] = 1
    left = CoalitionGame(model, x, target=0, reward="output", feature_mask=mask)(torch.tensor([[1, 0]]))
    kept = [5 * row + column for row in range(3) for column in range(2)]
    with torch.no_grad():
        torch.testing.assert_close(left[0], reference.vit_logits(model, x, kept)[0], rtol=1e-5, atol=1e-5)


def test_a_wrapper_that_resizes_is_refused_with_the_way_out() -> None:
    vit = zoo.token_model("vit")

    class Resizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = vit

        def forward(self, x: Tensor) -> Tensor:
            return self.vit(nn.functional.interpolate(x, size=(32, 32))).logits

    x = torch.randn(1, 3, 16, 16)
    for removal in (None, AttentionRemoval(1)):
        with pytest.raises(ValueError, match="resizes its inputs"):
            MoXIInsertion(Resizes(), removal=removal).attribute(x, target=0)
    assert MoXIInsertion(Resizes(), removal=BaselineRemoval()).attribute(x, target=0).shape == x.shape


def test_of_two_models_in_one_module_neither_loses_tokens_by_default(images: Tensor) -> None:
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = zoo.token_model("vit"), zoo.token_model("deit")

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x).logits + self.second(x).logits

    game = CoalitionGame(Ensemble(), images, target=0, feature_mask=patch_mask(32, 8))
    assert isinstance(game.removal, BaselineRemoval)


@pytest.mark.parametrize("mean", ["x.mean(1)", "torch.mean(input=x, dim=1)", "adaptive_avg_pool1d(x.mT, 1)[..., 0]"])
def test_the_mean_of_no_token_is_zero_however_it_is_taken(mean: str, images: Tensor) -> None:
    class Pools(zoo.TimmLayout):
        def forward(self, x: Tensor) -> Tensor:
            tokens = self.tokens(x)[:, 1:]
            return self.head(eval(mean, {**vars(nn.functional), "torch": torch, "x": tokens}))

    model = zoo.randomised(Pools())
    game = CoalitionGame(model, images[:1], target=0, reward="output", removal=TokenRemoval("norm_pre"))
    torch.testing.assert_close(game(torch.zeros(1, 16))[0], model.head.bias[0].detach())


@pytest.mark.parametrize(
    "mask",
    [
        patch_mask(32, grid=2),
        torch.tensor([[0, 0, 1, 1], [0, 2, 2, 1], [0, 2, 9, 1], [0, 0, 0, 0]])
        .repeat_interleave(8, 0)
        .repeat_interleave(8, 1),
        torch.stack([patch_mask(32, grid=2)[0], patch_mask(32, grid=4)[0]]),
    ],
    ids=["2 x 2", "L-shapes", "one an example"],
)
def test_masks_that_respect_patches(mask: Tensor, images: Tensor) -> None:
    model = zoo.token_model("vit")
    game = CoalitionGame(model, images, target=0, reward="output", feature_mask=mask)
    owners = mask.expand(2, 3, 32, 32)[:, 0, ::8, ::8].flatten(1)
    for example in range(2):
        for size in (0, 1, 2):
            for held in combinations(game.ids[game.exists[example]].tolist()[:4], size):
                row = torch.isin(game.ids, torch.tensor(held, dtype=torch.long))[None]
                kept = torch.isin(owners[example], torch.tensor(held, dtype=torch.long)).nonzero().flatten().tolist()
                with torch.no_grad():
                    expected = reference.vit_logits(model, images[example : example + 1], kept)[0]
                got = game.outcome(row, torch.tensor([example])).rewards[0]
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_arguments_that_follow_the_batch_follow_their_example(images: Tensor) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = zoo.token_model("vit")

        def forward(self, x: Tensor, shift: Tensor, scale: float) -> Tensor:
            return self.vit(x).logits * scale + shift

    model, shift = Shifted(), torch.randn(2, 5)
    rows, examples = rows_of(16), torch.arange(12) % 2
    got = logits(model, images, rows, examples, additional_forward_args=(shift, 2.0))
    plain = logits(model.vit, images, rows, examples)
    torch.testing.assert_close(got, 2 * plain + shift[examples], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        LogitsModel,
        nn.DataParallel,
        lambda model: nn.DataParallel(LogitsModel(model)),
        lambda model: torch.compile(model, backend="eager"),
        lambda model: (model.compile(backend="eager"), model)[1],
        lambda model: model.forward,
        lambda model: LogitsModel(nn.DataParallel(model)),
        lambda model: LogitsModel(torch.compile(model, backend="eager")),
        lambda model: (model.vit.compile(backend="eager"), model)[1],
    ],
    ids=[
        "wrapper",
        "DataParallel",
        "DataParallel of wrapper",
        "compiled",
        "compiled in place",
        "forward",
        "wrapper of DataParallel",
        "wrapper of compiled",
        "base compiled in place",
    ],
)
def test_the_model_may_be_wrapped(wrap: object, images: Tensor) -> None:
    expected = MoXIInsertion(zoo.token_model("vit")).attribute(images, target=[1, 2], n_steps=3)
    model = wrap(zoo.token_model("vit"))
    with torch.no_grad():
        model(images)  # what is compiled has compiled code before the hooks come
    got = MoXIInsertion(model).attribute(images, target=[1, 2], n_steps=3)
    assert torch.equal(got, expected)


def test_hooks_are_gone_after_a_run_and_after_an_error(images: Tensor) -> None:
    model = zoo.token_model("vit")
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]

    MoXIInsertion(model).attribute(images, target=0, n_steps=1)
    norm, forward = model.vit.layernorm, model.vit.layernorm.forward

    def broken(tokens: Tensor) -> Tensor:
        if len(tokens) > 2:
            raise RuntimeError("a later layer broke")
        return forward(tokens)

    norm.forward = broken
    for removal in (TokenRemoval(), AttentionRemoval(1)):
        with pytest.raises(RuntimeError, match="a later layer broke"):
            MoXIInsertion(model, removal=removal).attribute(images, target=0, n_steps=1)
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()] == hooks


@pytest.mark.parametrize("build", [zoo.swin, zoo.beit, zoo.resnet])
@pytest.mark.parametrize("removal", [TokenRemoval(), AttentionRemoval(1)], ids=repr)
def test_models_that_need_the_whole_grid_are_refused(build: object, removal: TokenRemoval, images: Tensor) -> None:
    model = build().eval()
    with pytest.raises(ValueError, match=r"whole grid; pass removal=BaselineRemoval\(\)"):
        MoXIInsertion(model, removal=removal).attribute(images, target=0)
    # and by default they get the removal that fits
    assert isinstance(CoalitionGame(model, images, target=0).removal, BaselineRemoval)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"feature_mask": patch_mask(32, 12)}, r"feature_mask cuts \d+ patches: the 8 x 8 patch at row 0, column 1"),
        ({"feature_mask": torch.arange(3)[:, None, None]}, "feature_mask cuts"),
        ({"baselines": 0}, "baselines"),
    ],
)
def test_bad_input_is_refused_before_any_forward(kwargs: dict, message: str, images: Tensor) -> None:
    model = zoo.token_model("vit")
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match=message):
        MoXIInsertion(model, removal=TokenRemoval()).attribute(images, target=0, **kwargs)
    assert not calls


@pytest.mark.parametrize(
    ("removal", "message"),
    [
        (TokenRemoval(), r"does not know where TimmLayout.*TokenRemoval\(embeddings=...\)"),
        (TokenRemoval("nowhere"), "embeddings is 'nowhere'"),
        (TokenRemoval("norm_pre", n_prefix=2), "16 patches and 2 prefix tokens"),
        (TokenRemoval("patch_embed"), r"Name the module whose output is \(B, tokens, width\)"),
        (TokenRemoval("blocks.0.norm1"), None),
        (AttentionRemoval(3, "blocks"), "pass one of the model's, 0 to 2"),
    ],
)
def test_modules_that_do_not_serve_are_told(removal: TokenRemoval, message: str | None, images: Tensor) -> None:
    model = zoo.randomised(zoo.TimmLayout())
    attribute = MoXIInsertion(model, removal=removal).attribute
    if message is None:  # a module within a block gathers what the residual does not: shapes disagree
        with pytest.raises(RuntimeError):
            attribute(images, target=0)
    else:
        with pytest.raises(ValueError, match=message):
            attribute(images, target=0)


@pytest.mark.parametrize(
    ("name", "read"), [("vit", 1), ("deit", 1), ("vit_msn", 1), ("deit_with_teacher", 4), ("dinov2", 3)]
)
def test_the_last_layer_ends_with_the_tokens_that_are_read(name: str, read: int, images: Tensor) -> None:
    model, seen = zoo.token_model(name), []
    norm = "norm2" if name == "dinov2" else "layernorm_after"
    # of the last layer alone a hook would be seen, and let be
    layers = models.encoder_layers(model)
    game = CoalitionGame(model, images[:1], target=1)
    mlp = nn.functional.linear

    def count(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        seen.append((weight.shape, input.shape[1]))
        return mlp(input, weight, bias)

    last = next(part for part in getattr(layers[-1], "mlp", layers[-1]).modules() if isinstance(part, nn.Linear))
    assert hasattr(layers[-1], norm)
    row = torch.zeros(1, 16, dtype=torch.bool)
    row[0, :2] = True
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(nn.functional, "linear", count)
        game.outcome(row)
    wide = [tokens for shape, tokens in seen if shape[0] == 64]
    assert last.weight.shape[1] == 32
    # two patches, and the prefix: all of them but in the last layer
    prefix = models.prefix_tokens(model)
    assert wide == [2 + prefix, 2 + prefix, read]


def test_a_watched_last_layer_is_seen_whole(images: Tensor) -> None:
    model, seen = zoo.token_model("vit"), []
    models.encoder_layers(model)[-1].register_forward_hook(lambda module, args, output: seen.append(output))
    game = CoalitionGame(model, images[:1], target=1)
    seen.clear()
    row = torch.zeros(1, 16, dtype=torch.bool)
    row[0, [3, 9]] = True
    game.outcome(row)
    tokens = model.vit.embeddings(images[:1])[:, [0, 4, 10]]
    for layer in models.encoder_layers(model):
        tokens = layer(tokens)
    torch.testing.assert_close(seen[0], tokens)


def test_a_method_that_reads_other_tokens_gets_them(images: Tensor) -> None:
    model = zoo.token_model("vit")

    def mean(self: nn.Module, x: Tensor) -> Tensor:
        return self.classifier(self.vit(x).last_hidden_state[:, 1:].mean(1))

    row = torch.zeros(1, 16, dtype=torch.bool)
    row[0, [3, 9]] = True
    method = MethodType(mean, model)
    got = logits(method, images[:1], row, torch.zeros(1, dtype=torch.long), removal=TokenRemoval())
    tokens = model.vit.embeddings(images[:1])[:, [0, 4, 10]]
    for layer in models.encoder_layers(model):
        tokens = layer(tokens)
    expected = model.classifier(model.vit.layernorm(tokens)[:, 1:].mean(1))
    torch.testing.assert_close(got, expected.detach())
