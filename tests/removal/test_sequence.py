"""How the sequence changes while a model runs: hooks, wrapped models, and tokens that the classifier does not read."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor, nn

from captum_moxi import AttentionRemoval, CoalitionGame, MoXIInsertion, TokenRemoval, models
from captum_moxi.models import LogitsModel


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32)


def count_hooks(model: nn.Module) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


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
        "LogitsModel",
        "DataParallel",
        "DataParallel of LogitsModel",
        "compiled",
        "compiled in place",
        "forward",
        "LogitsModel of DataParallel",
        "LogitsModel of compiled",
        "base compiled in place",
    ],
)
def test_the_model_may_be_wrapped_or_compiled(wrap: Callable[[nn.Module], Any], images: Tensor) -> None:
    expected = MoXIInsertion(zoo.token_model("vit")).attribute(images, target=[1, 2], n_steps=3)
    model = wrap(zoo.token_model("vit"))
    with torch.no_grad():
        model(images)  # compiles the model before hooks are added
    assert torch.equal(MoXIInsertion(model).attribute(images, target=[1, 2], n_steps=3), expected)


def test_no_hooks_remain_after_a_run_or_an_error(images: Tensor) -> None:
    model = zoo.token_model("vit")
    hooks = count_hooks(model)
    MoXIInsertion(model).attribute(images, target=0, n_steps=1)
    assert count_hooks(model) == hooks
    norm, forward = model.vit.layernorm, model.vit.layernorm.forward

    def broken(tokens: Tensor) -> Tensor:
        if len(tokens) > 2:
            raise RuntimeError("a later layer broke")
        return forward(tokens)

    norm.forward = broken
    for removal in (TokenRemoval(), AttentionRemoval(1)):
        with pytest.raises(RuntimeError, match="a later layer broke"):
            MoXIInsertion(model, removal=removal).attribute(images, target=0, n_steps=1)
    assert count_hooks(model) == hooks


@pytest.mark.parametrize(
    ("name", "n_read"), [("vit", 1), ("deit", 1), ("vit_msn", 1), ("deit_with_teacher", 4), ("dinov2", 3)]
)
def test_the_last_layer_processes_only_the_tokens_that_the_classifier_reads(
    name: str, n_read: int, images: Tensor
) -> None:
    model, shapes = zoo.token_model(name), []
    game = CoalitionGame(model, images[:1], target=1)
    linear = nn.functional.linear

    def record(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        shapes.append((weight.shape, input.shape[1]))
        return linear(input, weight, bias)

    two_patches = torch.zeros(1, 16, dtype=torch.bool)
    two_patches[0, :2] = True
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(nn.functional, "linear", record)
        game.outcome(two_patches)
    # the first linear layer of each of the three MLPs has a weight of (64, 32)
    n_tokens = [tokens for shape, tokens in shapes if shape == (64, 32)]
    prefix = models.token_layout(model).n_prefix
    assert n_tokens == [2 + prefix, 2 + prefix, n_read]


def hidden_states_of_two_patches(model: nn.Module, image: Tensor) -> Tensor:
    """The output of the last layer for the class token and the patches 3 and 9."""
    tokens = model.vit.embeddings(image)[:, [0, 4, 10]]
    for layer in models.token_layout(model).layers:
        tokens = layer(tokens)
    return tokens


def test_a_hook_on_the_last_layer_sees_all_tokens(images: Tensor) -> None:
    model, outputs = zoo.token_model("vit"), []
    models.token_layout(model).layers[-1].register_forward_hook(lambda module, args, output: outputs.append(output))
    game = CoalitionGame(model, images[:1], target=1)
    coalition = torch.zeros(1, 16, dtype=torch.bool)
    coalition[0, [3, 9]] = True
    outputs.clear()
    game.outcome(coalition)
    torch.testing.assert_close(outputs[0], hidden_states_of_two_patches(model, images[:1]))


def test_a_bound_method_that_reads_other_tokens_receives_them(images: Tensor) -> None:
    model = zoo.token_model("vit")

    def mean(self: nn.Module, x: Tensor) -> Tensor:
        return self.classifier(self.vit(x).last_hidden_state[:, 1:].mean(1))

    method = MethodType(mean, model)
    coalition = torch.zeros(1, 16, dtype=torch.bool)
    coalition[0, [3, 9]] = True
    tokens = hidden_states_of_two_patches(model, images[:1])
    expected = model.classifier(model.vit.layernorm(tokens)[:, 1:].mean(1))[0]
    for target in range(5):
        game = CoalitionGame(method, images[:1], target=target, reward="output", removal=TokenRemoval())
        torch.testing.assert_close(game(coalition)[0], expected[target].detach())


def test_a_module_that_runs_twice_is_rejected(images: Tensor) -> None:
    class Twice(zoo.TimmLayout):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(x.flip(3))

    with pytest.raises(ValueError, match=r"Identity, where tokens are removed, ran 2 times in one forward pass"):
        CoalitionGame(Twice().eval(), images[:1], target=0, removal=TokenRemoval("norm_pre"))(torch.zeros(1, 16))


NAN = float("nan")


@pytest.mark.parametrize("removal", [TokenRemoval, AttentionRemoval])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patch_size": [1]}, TypeError, r"patch_size is \[1\]; pass an int or a pair of ints"),
        ({"patch_size": (8, 8, 8)}, TypeError, "pass an int or a pair of ints"),
        ({"patch_size": ()}, TypeError, "pass an int or a pair of ints"),
        ({"patch_size": 8.0}, TypeError, "patch_size is 8.0"),
        ({"patch_size": (8, NAN)}, TypeError, r"patch_size is \(8, nan\)"),
        ({"patch_size": True}, TypeError, "patch_size is True"),
        ({"patch_size": "88"}, TypeError, "patch_size is '88'"),
        ({"patch_size": torch.tensor([8, 8])}, TypeError, "patch_size is tensor"),
        ({"patch_size": 0}, ValueError, "patch_size is 0; pass sizes of at least 1"),
        ({"patch_size": (8, -8)}, ValueError, r"patch_size is \(8, -8\)"),
        ({"patch_size": 10**30}, ValueError, "patch_size is 1000"),
        ({"n_prefix": 1.0}, TypeError, "n_prefix is 1.0"),
        ({"n_prefix": NAN}, TypeError, "n_prefix is nan"),
        ({"n_prefix": [1]}, TypeError, r"n_prefix is \[1\]"),
        ({"n_prefix": -1}, ValueError, "n_prefix is -1"),
    ],
)
def test_constructors_reject_bad_sizes_by_name(
    removal: Callable[..., object], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        removal(**arguments)


@pytest.mark.parametrize("patch_size", [8, (8, 8), [8, 8], np.int64(8), torch.tensor(8)])
def test_sizes_may_be_any_kind_of_int(patch_size: Any, images: Tensor) -> None:
    model, coalitions = zoo.randomised(zoo.TimmLayout()), torch.rand(4, 16) < 0.5
    expected = CoalitionGame(model, images[:1], target=0, removal=TokenRemoval("norm_pre"))(coalitions)
    removal = TokenRemoval("norm_pre", patch_size=patch_size, n_prefix=np.int64(1))
    assert repr(removal) == "TokenRemoval(embeddings='norm_pre', patch_size=8, n_prefix=1)"
    assert torch.equal(CoalitionGame(model, images[:1], target=0, removal=removal)(coalitions), expected)


@pytest.mark.parametrize(
    ("create", "error", "message"),
    [
        (lambda: TokenRemoval(3), TypeError, "embeddings is 3; pass a module, or its dotted name"),
        (lambda: TokenRemoval(["norm_pre"]), TypeError, "embeddings is .*; pass a module"),
        (lambda: AttentionRemoval(0, layers=3), TypeError, "layers is 3; pass a list of modules"),
        (lambda: AttentionRemoval(0, layers=["blocks.0"]), TypeError, "layers is .*; pass a list of modules"),
        (lambda: AttentionRemoval(0, layers=nn.Linear(2, 2)), TypeError, "layers is Linear.*; pass a list of modules"),
        (lambda: AttentionRemoval(0, layers=[]), ValueError, "layers is empty"),
        (lambda: AttentionRemoval(torch.tensor([1, 2])), TypeError, "from_layer is tensor"),
        (lambda: AttentionRemoval(NAN), TypeError, "from_layer is nan"),
    ],
)
def test_constructors_reject_bad_modules_by_name(
    create: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        create()


def test_a_named_module_without_layers_is_rejected(images: Tensor) -> None:
    with pytest.raises(ValueError, match="layers is 'norm_pre', a module that contains no other modules"):
        CoalitionGame(zoo.TimmLayout(), images, target=0, removal=AttentionRemoval(0, "norm_pre"))
