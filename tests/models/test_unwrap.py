from collections.abc import Callable

import pytest
import torch
import zoo
from torch import nn
from transformers import Pipeline, ViTImageProcessor, pipeline

from captum_moxi import (
    AttentionRollout,
    CoalitionGame,
    GradCam,
    MoXIInsertion,
    MoXILocalization,
    compare,
    deletion_curve,
    insertion_curve,
    models,
    patch_mask,
)
from captum_moxi.arguments import Model

SIZE = {"height": 32, "width": 32}
WRAPPERS: dict[str, Callable[[nn.Module], Callable[..., object]]] = {
    "model": lambda model: model,
    "LogitsModel": models.LogitsModel,
    "DataParallel": nn.DataParallel,
    "DataParallel of LogitsModel": lambda model: nn.DataParallel(models.LogitsModel(model)),
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "bound method": lambda model: model.forward,
    "sequence": lambda model: nn.Sequential(nn.Identity(), model),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_transformer_inside_a_wrapper_is_found(wrapper: str) -> None:
    model = zoo.token_model("vit")
    assert models.transformer(WRAPPERS[wrapper](model)) is model


@pytest.mark.parametrize("wrapper", ["model", "DataParallel", "compiled", "bound method"])
def test_the_module_that_a_forward_function_runs_is_found(wrapper: str) -> None:
    model = zoo.Classes(4)
    assert models.module_of(WRAPPERS[wrapper](model)) is model


def test_a_function_runs_no_module_and_is_no_transformer() -> None:
    assert models.module_of(lambda x: x) is None
    assert models.transformer(lambda x: x) is None


def test_two_transformers_in_one_module_are_ambiguous() -> None:
    assert models.transformer(nn.ModuleList([zoo.token_model("vit"), zoo.token_model("deit")])) is None


def test_only_data_parallel_and_compiled_modules_are_unwrapped_for_one_device() -> None:
    model = zoo.Classes(4)
    assert models.on_one_device(nn.DataParallel(model)) is model
    assert models.on_one_device(nn.DataParallel(torch.compile(model, backend="eager"))) is model
    sequence = nn.Sequential(model)
    assert models.on_one_device(sequence) is sequence


def classifier() -> models.ImageClassifier:
    return models.ImageClassifier(zoo.token_model("vit"), ViTImageProcessor(size=SIZE), "test")


def pipe(model: nn.Module) -> Pipeline:
    return pipeline("image-classification", model=model, image_processor=ViTImageProcessor(size=SIZE), device="cpu")


@pytest.mark.parametrize("wrap", [lambda vit: vit, lambda vit: pipe(vit.model)], ids=["load", "pipeline"])
def test_what_holds_a_model_works_like_the_model(wrap: Callable[[models.ImageClassifier], Model]) -> None:
    vit = classifier()
    holder, x = wrap(vit), torch.randn(1, 3, 32, 32)
    assert models.as_forward_func(holder) is models.module_of(holder) is models.transformer(holder) is vit.model
    expected, selection = MoXIInsertion(vit.model).attribute(x, target=1, n_steps=2, return_selection=True)
    assert torch.equal(MoXIInsertion(holder).attribute(x, target=1, n_steps=2), expected)
    assert torch.equal(
        MoXILocalization(holder).attribute(x, target=1), MoXILocalization(vit.model).attribute(x, target=1)
    )
    game, other = (CoalitionGame(model, x, target=1) for model in (holder, vit.model))
    assert torch.equal(game(torch.eye(16)), other(torch.eye(16)))
    assert torch.equal(GradCam(holder).attribute(x, target=1), GradCam(vit.model).attribute(x, target=1))
    assert torch.equal(AttentionRollout(holder).attribute(x), AttentionRollout(vit.model).attribute(x))
    for curve in (insertion_curve, deletion_curve):
        rewards = [curve(model, x, target=1, attributions=selection).rewards for model in (holder, vit.model)]
        assert torch.equal(*rewards)
    methods = ["moxi", "gradcam", "rollout"]
    comparisons = [compare(model, x, target=1, methods=methods, fractions=[0, 0.1]) for model in (holder, vit.model)]
    for result, expected_result in zip(*(comparison.results for comparison in comparisons), strict=True):
        assert torch.equal(result.order, expected_result.order)


def test_a_callable_object_with_a_model_is_a_function_of_its_own() -> None:
    class Doubled:
        def __init__(self) -> None:
            self.model = zoo.Classes(4)

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.model(x)

    doubled = Doubled()
    assert models.as_forward_func(doubled) is doubled
    assert models.module_of(doubled) is None


@pytest.mark.parametrize("make", [list, tuple, nn.ModuleList])
@pytest.mark.parametrize("method", [MoXIInsertion, MoXILocalization, GradCam, AttentionRollout])
def test_an_ensemble_is_rejected_with_the_function_to_pass(method: Callable[..., object], make: type) -> None:
    ensemble = make([zoo.token_model("vit"), zoo.token_model("deit")])
    message = rf"forward_func is a {make.__name__} of 2 models; pass a function that averages their logits"
    with pytest.raises(TypeError, match=message):
        method(ensemble)
    with pytest.raises(TypeError, match=message):
        CoalitionGame(ensemble, torch.randn(1, 3, 32, 32), target=0)
    with pytest.raises(TypeError, match=message):
        compare(ensemble, torch.randn(1, 3, 32, 32), target=0)


def test_the_function_suggested_for_an_ensemble_works() -> None:
    ensemble = [zoo.token_model("vit"), zoo.token_model("deit")]
    x = torch.randn(1, 3, 32, 32)
    average = lambda x: torch.stack([model(x).logits for model in ensemble]).mean(0)  # noqa: E731  # as in the message
    game = CoalitionGame(average, x, target=1, feature_mask=patch_mask(32, 8), reward="logit")
    with torch.no_grad():
        expected = sum(float(model(x).logits[0, 1]) for model in ensemble) / 2
    assert float(game.full.rewards[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("google/vit", r"forward_func is the name 'google/vit'; pass the model, load\('google/vit'\)"),
        (None, "forward_func is a NoneType; pass a model"),
        (torch.zeros(1), "forward_func is a Tensor; pass a model"),
    ],
)
def test_what_is_no_model_is_rejected(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        MoXIInsertion(value)
