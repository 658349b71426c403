"""Objects and classes of Captum and functions as methods, compared with Captum on its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from captum.attr import (
    LRP,
    Attribution,
    DeepLift,
    DeepLiftShap,
    FeatureAblation,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    NeuronGradient,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor, nn

from captum_moxi import BaselineRemoval, CoalitionGame, GradCam, MoXIInsertion, compare, patch_mask
from captum_moxi.comparison import play_method
from captum_moxi.methods import AnyMethod, from_attribution, from_function, get_methods
from captum_moxi.metrics import Attributions
from captum_moxi.models import LogitsModel

TARGETS = [1, 3]
Build = Callable[[nn.Module, nn.Module], Attribution]

# Each builds an object of Captum from a model and its last stage.
BUILDERS: dict[str, Build] = {
    "Saliency": lambda net, stage: Saliency(net),
    "InputXGradient": lambda net, stage: InputXGradient(net),
    "IntegratedGradients": lambda net, stage: IntegratedGradients(net),
    "DeepLift": lambda net, stage: DeepLift(net),
    "GuidedGradCam": lambda net, stage: GuidedGradCam(net, stage),
    "LayerGradCam": lambda net, stage: LayerGradCam(net, stage),
    "NoiseTunnel(Saliency)": lambda net, stage: NoiseTunnel(Saliency(net)),
    "NoiseTunnel(DeepLift)": lambda net, stage: NoiseTunnel(DeepLift(net)),
}
EACH = pytest.mark.parametrize("name", BUILDERS)
IGNORE = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already", "ignore:Setting")


@pytest.fixture
def resnet() -> nn.Module:
    return zoo.randomised(zoo.resnet())


@pytest.fixture
def game(resnet: nn.Module, x: Tensor) -> CoalitionGame:
    return CoalitionGame(resnet, x, target=TARGETS, removal=BaselineRemoval(), feature_mask=patch_mask(32, 8))


def stage_of(model: nn.Module) -> nn.Module:
    return model.base_model.encoder.stages[-1]  # type: ignore[union-attr, index]


def attributions_of(method: AnyMethod, game: CoalitionGame) -> Attributions:
    (created,) = get_methods(method)
    created.check(game)
    return created.attribute(game, "insertion", n_steps=None, stop=None)


def cost_of(method: AnyMethod, game: CoalitionGame) -> tuple[float, float]:
    """Rows and weighted rows of all examples."""
    run = play_method(game, get_methods(method)[0], "insertion")
    return run.rows * game.n_examples, run.weighted_rows * game.n_examples


def observed_cost(model: nn.Module, call: Callable[[], object]) -> tuple[int, int]:
    """Rows and weighted rows of a call, as hooks on the model see them."""
    rows, backward_rows = [0], [0]

    def backward(gradient: Tensor) -> None:
        backward_rows.append(len(gradient))

    def forward(module: nn.Module, args: object, output: Any) -> None:
        rows.append(len(output.logits))
        if output.logits.requires_grad:
            output.logits.register_hook(backward)

    handle = model.register_forward_hook(forward)
    call()
    handle.remove()
    return sum(rows), sum(rows) + 2 * sum(backward_rows)


@EACH
@IGNORE
def test_objects_give_captums_result_on_a_transformers_model_as_it_is(
    name: str, resnet: nn.Module, game: CoalitionGame, x: Tensor
) -> None:
    net = LogitsModel(resnet)
    torch.manual_seed(0)
    expected = BUILDERS[name](net, stage_of(resnet)).attribute(x, target=TARGETS)
    for model in (net, resnet):
        (method,) = get_methods(BUILDERS[name](model, stage_of(resnet)))
        assert method.title == name
        torch.testing.assert_close(attributions_of(method, game), expected)


@pytest.mark.parametrize("cls", [Saliency, InputXGradient, IntegratedGradients, DeepLift, GradCam, FeatureAblation])
@IGNORE
def test_classes_are_built_from_the_model(
    cls: type[Attribution], resnet: nn.Module, game: CoalitionGame, x: Tensor
) -> None:
    options = {"feature_mask": patch_mask(32, 8)} if cls is FeatureAblation else {}
    expected = cls(LogitsModel(resnet)).attribute(x, target=TARGETS, **options)
    torch.testing.assert_close(attributions_of(cls, game), expected)


@EACH
@IGNORE
def test_the_cost_is_what_hooks_on_the_model_see(name: str, resnet: nn.Module, game: CoalitionGame, x: Tensor) -> None:
    attribution = BUILDERS[name](LogitsModel(resnet), stage_of(resnet))

    def function(inputs: Tensor, target: Tensor) -> Tensor:
        return attribution.attribute(inputs, target=target)

    expected = observed_cost(resnet, lambda: attribution.attribute(x, target=TARGETS))
    assert cost_of(attribution, game) == expected
    assert cost_of(function, game) == expected


@IGNORE
def test_known_costs_in_the_table(resnet: nn.Module, x: Tensor) -> None:
    methods: list[AnyMethod] = [
        *("gradcam", "integrated-gradients:7", "occlusion:16", Saliency, DeepLift),
        from_attribution(NoiseTunnel(Saliency(resnet)), nt_samples=4),
    ]
    comparison = compare(resnet, x, target=TARGETS, methods=methods, modes="deletion", fractions=[0, 0.1])
    costs = {record["method"]: (record["rows"], record["weighted rows"]) for record in comparison.records()}
    assert costs == {
        "Grad-CAM": (1, 3),
        "Integrated gradients, 7": (7, 21),
        # 3 x 3 windows, and the whole image.
        "Occlusion, 16": (10, 10),
        "Saliency": (1, 3),
        # The inputs and the baselines.
        "DeepLift": (2, 6),
        "NoiseTunnel(Saliency)": (4, 12),
    }
    assert all(record["seconds"] > 0 for record in comparison.records())  # type: ignore[operator]


def test_costs_on_a_vision_transformer(vit: nn.Module, x: Tensor) -> None:
    def moxi(inputs: Tensor, target: Tensor) -> Tensor:
        return MoXIInsertion(vit).attribute(inputs, target=target, n_steps=2)

    game = CoalitionGame(vit, x, target=TARGETS)
    assert cost_of("rollout", game) == (2, 2)
    assert cost_of("gradcam", game) == (2, 6)
    # The images, the empty coalition, and the candidates of two steps.
    assert cost_of(moxi, game) == (2 * (2 + 16 + 15), 2 * (2 + 16 + 15))
    assert cost_of(from_attribution(MoXIInsertion(vit), n_steps=2), game) == (2 * (2 + 16 + 15), 2 * (2 + 16 + 15))


def test_methods_and_functions_of_a_model(resnet: nn.Module, x: Tensor) -> None:
    def forward(images: Tensor) -> Tensor:
        return resnet(images).logits

    expected = Saliency(forward).attribute(x.clone().requires_grad_(), target=TARGETS)
    for forward_func in (forward, resnet.forward):
        game = CoalitionGame(forward_func, x, target=TARGETS, feature_mask=patch_mask(32, 8))
        for method in (Saliency, Saliency(forward), Saliency(resnet.forward)):
            torch.testing.assert_close(attributions_of(method, game), expected)
            assert cost_of(method, game) == (2, 6)
        assert cost_of(lambda inputs, target: forward(inputs)[:, :1].expand(-1, 16), game) == (2, 2)


def test_the_arguments_of_a_function(resnet: nn.Module, game: CoalitionGame, x: Tensor) -> None:
    original = x.clone()

    def brightness(inputs: Tensor, target: Tensor) -> Tensor:
        assert torch.equal(inputs, original)
        assert target.tolist() == TARGETS
        return inputs.abs_()

    assert get_methods(brightness)[0].title == "brightness"
    assert torch.equal(attributions_of(brightness, game), original.abs())
    assert torch.equal(x, original)
    assert get_methods([brightness, from_function(brightness, title="Brightness")])[1].title == "Brightness"

    def pair(inputs: tuple[Tensor, ...], target: Tensor) -> tuple[Tensor, ...]:
        # A single logit.
        assert target.tolist() == [0]
        return inputs

    scalars = CoalitionGame(lambda a, b: a.sum(1) + b.sum(1), (torch.ones(1, 2), torch.ones(1, 3)), reward="output")
    assert len(attributions_of(pair, scalars)) == 2


def test_baselines_and_arguments_reach_captum_as_far_as_it_accepts_them() -> None:
    def model(x: Tensor, scale: Tensor) -> Tensor:
        return (x * scale)[:, None, :].square() * torch.tensor([1.0, -1.0])[:, None]

    x, scale, target = torch.rand(2, 3) + 1, torch.rand(2, 3), [(0, 2), (1, 0)]
    game = CoalitionGame(model, x, baselines=0.5, target=target, additional_forward_args=scale, reward="output")
    expected = IntegratedGradients(model).attribute(x, 0.5, target=target, additional_forward_args=scale)
    torch.testing.assert_close(attributions_of(IntegratedGradients, game), expected)
    expected = Saliency(model).attribute(x.requires_grad_(), target=target, additional_forward_args=scale)
    torch.testing.assert_close(attributions_of(Saliency, game), expected)


@IGNORE
def test_the_users_model_object_and_tensors_are_never_changed(x: Tensor) -> None:
    """The forward pass looks at the user's model, where another thread would see hooks."""
    seen: list[object] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.linear = nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.Linear(64, 5)

        def forward(self, images: Tensor) -> Tensor:
            for part in original.modules():
                seen.extend([*part._forward_hooks, *part._forward_pre_hooks, *part._backward_hooks])
                seen.extend([*part._backward_pre_hooks, *(name for name in ("input", "output") if hasattr(part, name))])
            seen.extend([] if not x.requires_grad else ["requires_grad"])
            return self.linear(self.relu(self.conv(images)).flatten(1))

    original = Watching()
    deep_lift, guided = DeepLift(original), GuidedGradCam(original, original.conv)
    attributes = {attribution: dict(vars(attribution)) for attribution in (deep_lift, guided)}
    methods = [deep_lift, guided, from_attribution(NoiseTunnel(guided), title="tunnel")]
    state = torch.get_rng_state()
    compare(original, x, target=TARGETS, methods=methods, feature_mask=patch_mask(32, 8), fractions=[0, 0.5])
    assert seen == []
    assert torch.equal(torch.get_rng_state(), state)
    assert all(vars(attribution) == before for attribution, before in attributes.items())
    assert deep_lift.forward_handles == []


def test_unsuitable_objects_are_rejected_before_the_model_runs(resnet: nn.Module, x: Tensor) -> None:
    net = LogitsModel(resnet)
    cases: list[tuple[Any, type[Exception], str]] = [
        (GuidedGradCam, ValueError, "class GuidedGradCam requires layer; pass an object that you create from your"),
        (NoiseTunnel, ValueError, "class NoiseTunnel requires attribution_method"),
        (Occlusion(net), ValueError, r"Occlusion.attribute requires sliding_window_shapes; pass from_attribution\("),
        (NeuronGradient(net, stage_of(resnet)), ValueError, "requires neuron_selector"),
        (LRP(net), ValueError, "LRP changes the weights of the model"),
        (NoiseTunnel(LRP(net)), ValueError, "changes the weights of the model"),
        (Attribution, TypeError, "pass an object or a class of captum.attr.Attribution"),
        (nn.Module, TypeError, "pass names, objects or classes of captum.attr.Attribution, functions"),
        ([Saliency, Saliency(net)], ValueError, r"different titles, for example from_attribution\("),
    ]
    for method, error, message in cases:
        with pytest.raises(error, match=message):
            compare(lambda images: pytest.fail("the model ran"), x, target=TARGETS, methods=method)
    tabular = CoalitionGame(lambda x: x, torch.ones(2, 4), target=TARGETS)
    with pytest.raises(ValueError, match="DeepLift needs a module, but forward_func is a function"):
        get_methods(DeepLift)[0].check(tabular)
    for baselines, message in (
        ({}, "DeepLiftShap requires a distribution of baselines, but baselines is None; pass from_attribution"),
        ({"baselines": 0}, "DeepLiftShap requires a distribution of baselines, but baselines is 0"),
        ({"baselines": torch.zeros(1, 3, 32, 32)}, "DeepLiftShap requires at least two baselines"),
    ):
        with pytest.raises(ValueError, match=message):
            from_attribution(DeepLiftShap(net), **baselines).check(tabular)
    with pytest.raises(ValueError, match="layer is None"):
        get_methods(GradCam)[0].check(tabular)


def test_options_of_an_object(resnet: nn.Module, game: CoalitionGame, x: Tensor) -> None:
    options = {"sliding_window_shapes": (3, 12, 12), "strides": (3, 6, 6)}
    expected = Occlusion(LogitsModel(resnet)).attribute(x, target=TARGETS, **options)
    method = from_attribution(Occlusion, title="windows", **options)
    assert method.title == "windows"
    torch.testing.assert_close(attributions_of(method, game), expected, rtol=0, atol=1e-4)
