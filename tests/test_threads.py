"""Threads that share one model: every result equals the result of a single thread, bit for bit."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import zoo
from captum.attr import DeepLift
from torch import Tensor, nn

from captum_moxi import (
    AttentionRemoval,
    AttentionRollout,
    BaselineRemoval,
    GradCam,
    GradientScreen,
    HalfPrecisionScreen,
    LastGainsScreen,
    MoXIDeletion,
    MoXIInsertion,
    MoXILocalization,
    RandomScreen,
    TokenRemoval,
    compare,
    patch_mask,
)
from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.methods import AnyMethod

ROUNDS = 3
# About a minute on two cores.
ROUNDS_UNDER_LOAD = 16
Job = Callable[[], Tensor]


@pytest.fixture(params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    vit = zoo.token_model("vit")
    vit.set_attn_implementation(request.param)
    return vit


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32)


def make_jobs(model: nn.Module, images: Tensor) -> dict[str, Job]:
    """Jobs with every removal and screen, other attributions, and direct calls of the model."""
    target = [1, 2]
    patch_size = model.config.patch_size
    mask = patch_mask(model.config.image_size, patch_size)

    def direct() -> Tensor:
        with torch.no_grad():
            return model(images).logits

    def closure(x: Tensor) -> Tensor:
        return model(x).logits

    def shapley() -> Tensor:
        comparison = compare(model, images, target=target, methods=["shapley:1"], fractions=[0, 0.5], modes="insertion")
        return comparison.results[0].order

    # One object is shared by all threads.
    deep_lift = DeepLift(model)

    def captum(method: AnyMethod) -> Job:
        def order() -> Tensor:
            comparison = compare(model, images, target=target, methods=method, fractions=[0, 0.5], modes="insertion")
            assert comparison.results[0].rows == 2
            return comparison.results[0].order

        return order

    def insertion(**options: object) -> Job:
        return lambda: MoXIInsertion(model, **options).attribute(images, target=target, n_steps=3, score="gain")

    def deletion(**options: object) -> Job:
        return lambda: MoXIDeletion(model, **options).attribute(images, target=target, n_steps=3, score="gain")

    return {
        "direct": direct,
        "token removal": insertion(),
        "attention removal": insertion(removal=AttentionRemoval(1)),
        "baseline fill": insertion(removal=BaselineRemoval("mean")),
        "a function and a module": lambda: MoXIInsertion(
            closure, removal=TokenRemoval(model.vit.embeddings, patch_size=patch_size)
        ).attribute(images, target=target, feature_mask=mask, n_steps=3, score="gain"),
        "gradient screen": deletion(screen=GradientScreen(4)),
        "gradient screen, baseline fill": deletion(screen=GradientScreen(4), removal=BaselineRemoval()),
        "last gains": insertion(screen=LastGainsScreen(4)),
        "random": insertion(screen=RandomScreen(4)),
        "half precision": insertion(screen=HalfPrecisionScreen()),
        "beam": insertion(beam_width=2),
        "localization": lambda: MoXILocalization(model, screen="gradient:3").attribute(
            images, target=[0, 3], n_steps=3
        ),
        "Grad-CAM": lambda: GradCam(model).attribute(images, target=target),
        "rollout": lambda: AttentionRollout(model).attribute(images),
        "Shapley sampling": shapley,
        "DeepLift": captum(deep_lift),
        "a function": captum(lambda inputs, target: inputs * (closure(inputs) + closure(inputs)).sum()),
    }


def snapshot(model: nn.Module) -> tuple[object, ...]:
    """Everything about the model and the process that a call must leave unchanged."""
    hooks = [
        (len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks)) for part in model.modules()
    ]
    return (
        hooks,
        [sorted(vars(part)) for part in model.modules()],
        model.config.to_dict(),
        model.config._attn_implementation,
        model.training,
        [parameter.grad is None for parameter in model.parameters()],
        torch.get_rng_state().tolist(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )


def test_four_threads_that_mix_everything_get_the_results_of_one(model: nn.Module, images: Tensor) -> None:
    jobs = make_jobs(model, images)
    expected = {name: job() for name, job in jobs.items()}
    before = snapshot(model)

    def work(seed: int) -> list[str]:
        names = list(jobs) * ROUNDS
        random.Random(seed).shuffle(names)
        wrong = []
        for name in names:
            # direct calls in between are the most sensitive to hooks of other threads
            if not torch.equal(jobs["direct"](), expected["direct"]):
                wrong.append("direct")
            if not torch.equal(jobs[name](), expected[name]):
                wrong.append(name)
        return wrong

    with ThreadPoolExecutor(4) as pool:
        wrong = [name for names in pool.map(work, range(4)) for name in names]
    assert wrong == []
    assert snapshot(model) == before


@pytest.mark.slow
def test_a_service_under_load_gives_the_results_of_one_thread() -> None:
    """Four threads explain images and call the embedded model, directly and through a service of asyncio."""
    classifier = demo_classifier("cpu")
    model = classifier.model
    images = classifier.preprocess([image for _, image, _ in demo_images()[:2]])
    jobs = make_jobs(model, images)
    expected = {name: job() for name, job in jobs.items()}
    before = snapshot(model)

    def check(name: str) -> list[str]:
        return [] if torch.equal(jobs[name](), expected[name]) else [name]

    def work(seed: int) -> list[str]:
        names = list(jobs) * ROUNDS_UNDER_LOAD
        random.Random(seed).shuffle(names)
        return [wrong for name in names for called in ("direct", name) for wrong in check(called)]

    async def serve(seed: int) -> list[list[str]]:
        names = list(jobs) * ROUNDS_UNDER_LOAD
        random.Random(seed).shuffle(names)
        return [await asyncio.to_thread(check, name) for name in names]

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(work, seed) for seed in range(3)]
        service = pool.submit(asyncio.run, serve(3))
        wrong = [name for thread in threads for name in thread.result()]
        wrong += [name for names in service.result() for name in names]
    assert wrong == []
    assert snapshot(model) == before
    assert torch.equal(jobs["direct"](), expected["direct"])


def test_asyncio_to_thread(model: nn.Module, images: Tensor) -> None:
    jobs = make_jobs(model, images)
    expected = {name: job() for name, job in jobs.items()}

    async def serve() -> list[Tensor]:
        return await asyncio.gather(*(asyncio.to_thread(job) for job in jobs.values()))

    for name, result in zip(jobs, asyncio.run(serve()), strict=True):
        assert torch.equal(result, expected[name]), name


def test_a_service_that_only_calls_the_model_sees_no_difference(model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        expected = model(images).logits
    explain = make_jobs(model, images)["gradient screen"]

    def serve() -> bool:
        with torch.no_grad():
            return all(torch.equal(model(images).logits, expected) for _ in range(30))

    with ThreadPoolExecutor(4) as pool:
        explanations = [pool.submit(explain) for _ in range(6)]
        answers = [pool.submit(serve) for _ in range(6)]
        assert all(answer.result() for answer in answers)
        assert all(torch.equal(other.result(), explanations[0].result()) for other in explanations)
