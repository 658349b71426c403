"""Random numbers of methods: those of PyTorch, NumPy and Captum under the same seed, without side effects."""

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import zoo
from captum.attr import (
    Attribution,
    FeaturePermutation,
    GradientShap,
    KernelShap,
    LayerGradientShap,
    Lime,
    NeuronGradientShap,
    NoiseTunnel,
    Saliency,
    ShapleyValueSampling,
)
from torch import Tensor, nn
from torch.distributions import Beta, Categorical, Dirichlet, Exponential, Gamma, Normal, Poisson

from captum_moxi import CoalitionGame, patch_mask
from captum_moxi.methods import METHODS, from_attribution, from_function, on_model
from captum_moxi.methods.seeded import SeededRandom, seeded_draws
from captum_moxi.models import LogitsModel

TARGETS = [1, 3]
HALF = torch.full((20,), 0.5)
CHANNELS_LAST = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)

DRAWS: dict[str, Callable[[], Tensor]] = {
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(2, 3, dtype=torch.float64),
    "randint": lambda: torch.randint(2, 99, (5,)),
    "randperm": lambda: torch.randperm(20),
    "rand_like": lambda: torch.rand_like(HALF),
    "randn_like": lambda: torch.randn_like(HALF, dtype=torch.float64),
    "randint_like": lambda: torch.randint_like(HALF, 2, 99),
    "randint_like, by name": lambda: torch.randint_like(input=HALF, high=99, dtype=None),
    "rand_like, channels last": lambda: torch.rand_like(CHANNELS_LAST),
    "randn_like, channels last": lambda: torch.randn_like(CHANNELS_LAST),
    "randint_like, channels last": lambda: torch.randint_like(CHANNELS_LAST, 2, high=99),
    "rand_like, other format": lambda: torch.rand_like(CHANNELS_LAST, memory_format=torch.contiguous_format),
    "randn_like, with gradients": lambda: torch.randn_like(HALF, requires_grad=True),
    "normal": lambda: torch.normal(0, HALF),
    "bernoulli": lambda: torch.bernoulli(HALF),
    "multinomial": lambda: HALF.multinomial(10),
    "poisson": lambda: torch.poisson(HALF * 9),
    "binomial": lambda: torch.binomial(HALF * 18, HALF),
    "in place": lambda: torch.empty(3).uniform_().log_normal_().exponential_() + torch.empty(3).cauchy_(),
    "init": lambda: nn.init.normal_(torch.empty(3)),
    "Normal": lambda: Normal(0.0, 1.0).sample((3,)),
    "Categorical": lambda: Categorical(HALF).sample((9,)),
    "Gamma": lambda: Gamma(HALF, HALF).sample(),
    "Beta": lambda: Beta(HALF, HALF).sample(),
    "Dirichlet": lambda: Dirichlet(HALF).sample(),
    "Exponential": lambda: Exponential(HALF).sample(),
    "Poisson": lambda: Poisson(HALF).sample(),
}


@pytest.fixture
def resnet() -> nn.Module:
    return zoo.randomised(zoo.resnet())


@pytest.fixture
def game(resnet: nn.Module, x: Tensor) -> CoalitionGame:
    return CoalitionGame(resnet, x, target=TARGETS, removal="zero", feature_mask=patch_mask(32, 16))


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_those_of_the_global_generator_with_the_same_seed(name: str) -> None:
    torch.manual_seed(5)
    expected = DRAWS[name](), DRAWS[name]()
    torch.manual_seed(6)
    state = torch.get_rng_state()
    with SeededRandom(5):
        first, second = DRAWS[name](), DRAWS[name]()
    assert torch.equal(first, expected[0]) and torch.equal(second, expected[1])
    assert first.stride() == expected[0].stride() and first.requires_grad == expected[0].requires_grad
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_generator_of_the_user_is_used() -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(8))
    with SeededRandom(5):
        assert torch.equal(torch.rand(3, generator=torch.Generator().manual_seed(8)), expected)


def test_tensors_without_values_can_be_created() -> None:
    with SeededRandom(0), torch.device("meta"):
        assert nn.Linear(3, 3).weight.is_meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
def test_draws_on_a_gpu() -> None:
    torch.manual_seed(5)
    expected = torch.randn(3, device="cuda"), torch.rand(3)
    state = torch.cuda.get_rng_state()
    with SeededRandom(5):
        first = torch.randn(3, device="cuda"), torch.rand(3)
        other = torch.randn(3, device="cuda:0")
    assert all(map(torch.equal, first, expected))
    assert not torch.equal(first[0], other)
    assert torch.equal(torch.cuda.get_rng_state(), state)


def stage_of(model: nn.Module) -> nn.Module:
    return model.base_model.encoder.stages[-1]  # type: ignore[union-attr, index]


BASELINES = torch.linspace(-1, 1, 4 * 3 * 32 * 32).reshape(4, 3, 32, 32)
# Each builds an object from a model and its last stage. The options are those of attribute.
OBJECTS: dict[str, tuple[Callable[[nn.Module, nn.Module], Attribution], dict[str, object]]] = {
    "NoiseTunnel": (lambda net, stage: NoiseTunnel(Saliency(net)), {"nt_samples": 3}),
    "GradientShap": (lambda net, stage: GradientShap(net), {"baselines": BASELINES}),
    "NoiseTunnel(GradientShap)": (
        lambda net, stage: NoiseTunnel(GradientShap(net)),
        {"baselines": BASELINES, "draw_baseline_from_distrib": True},
    ),
    "LayerGradientShap": (lambda net, stage: LayerGradientShap(net, stage), {"baselines": BASELINES}),
    "NeuronGradientShap": (
        lambda net, stage: NeuronGradientShap(net, stage),
        {"baselines": BASELINES, "neuron_selector": (3, 1, 1)},
    ),
    "FeaturePermutation": (lambda net, stage: FeaturePermutation(net), {}),
    "ShapleyValueSampling": (lambda net, stage: ShapleyValueSampling(net), {"n_samples": 3}),
    "KernelShap": (lambda net, stage: KernelShap(net), {"n_samples": 20}),
    "Lime": (lambda net, stage: Lime(net), {"n_samples": 20}),
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.filterwarnings(
    "ignore:Input Tensor 0 did not already", "ignore:You are providing multiple inputs for Lime"
)
def test_captums_classes_give_captums_result_under_seed_0(
    name: str, resnet: nn.Module, game: CoalitionGame, x: Tensor
) -> None:
    build, options = OBJECTS[name]
    captum = build(LogitsModel(resnet), stage_of(resnet))
    given = {"target": TARGETS, "feature_mask": patch_mask(32, 16)}
    # NoiseTunnel passes its arguments on.
    parameters = inspect.signature(getattr(captum, "attribution_method", captum).attribute).parameters
    accepted = {key: value for key, value in given.items() if key in parameters}
    torch.manual_seed(0)
    np.random.seed(0)
    expected = captum.attribute(x, **accepted, **options)
    torch.manual_seed(1)
    np.random.seed(1)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    method = from_attribution(build(resnet, stage_of(resnet)), **options)
    actual = method.attribute(game, "insertion", n_steps=None, stop=None)
    assert isinstance(actual, Tensor)
    if "Layer" in name:
        expected = expected.sum(1, keepdim=True)
    torch.testing.assert_close(actual, expected)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state


def test_functions_and_methods_on_the_model_are_seeded(game: CoalitionGame, x: Tensor) -> None:
    torch.manual_seed(0)
    expected = torch.randn_like(x)

    class Noise:
        def __init__(self, forward_func: object) -> None:
            pass

        def attribute(self, inputs: Tensor, **options: object) -> Tensor:
            return torch.randn_like(inputs)

    for method in (from_function(lambda inputs, target: torch.randn_like(inputs)), on_model("noise", Noise)):
        assert torch.equal(method.attribute(game, "insertion", n_steps=None, stop=None), expected)  # type: ignore[arg-type]


def test_numpys_state_is_restored_after_an_error() -> None:
    np.random.seed(3)
    expected = np.random.rand(2).tolist()
    np.random.seed(3)
    with pytest.raises(RuntimeError, match="stop"), seeded_draws(GradientShap(torch.sum), 0):
        np.random.rand()
        raise RuntimeError("stop")
    assert np.random.rand(2).tolist() == expected


def test_the_named_methods_do_not_touch_numpys_state(vit: nn.Module, x: Tensor) -> None:
    states: list[list[int]] = []

    def reward(logits: Tensor, target: Tensor) -> Tensor:
        states.append(np.random.get_state()[1].tolist())
        return logits[:, 0]

    game = CoalitionGame(vit, x[:1], target=1, reward=reward, feature_mask=patch_mask(32, 16))
    np.random.seed(3)
    state = np.random.get_state()[1].tolist()
    for name in ("lime:20", "kernel-shap:20", "shap-partition:20"):
        METHODS.create(name).attribute(game, "insertion", n_steps=None, stop=None)
    assert np.random.get_state()[1].tolist() == state
    assert all(seen == state for seen in states[1:])


def test_numpys_state_is_not_touched_for_classes_that_do_not_need_it() -> None:
    np.random.seed(3)
    state = np.random.get_state()[1].tolist()
    with seeded_draws(NoiseTunnel(Saliency(torch.sum)), 0):
        assert np.random.get_state()[1].tolist() == state


def test_threads_get_the_result_of_one(resnet: nn.Module, x: Tensor) -> None:
    shared = [OBJECTS[name] for name in ("NoiseTunnel", "GradientShap", "LayerGradientShap", "Lime")]
    methods = [from_attribution(build(resnet, stage_of(resnet)), **options) for build, options in shared]

    def run(number: int) -> Tensor:
        game = CoalitionGame(resnet, x, target=TARGETS, removal="zero", feature_mask=patch_mask(32, 16))
        attributions = methods[number % 4].attribute(game, "insertion", n_steps=None, stop=None)
        assert isinstance(attributions, Tensor)
        return attributions

    expected = [run(number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for number, actual in enumerate(pool.map(run, range(16))):
            assert torch.equal(actual, expected[number % 4])
