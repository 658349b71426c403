"""Fixtures shared by all tests: seeds, a trained ResNet, and real weights and photographs if available."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from hypothesis import HealthCheck, Phase, settings
from transformers import PreTrainedModel
from transformers.utils import logging

logging.disable_progress_bar()
logging.set_verbosity_error()

# The workers of pytest-xdist share the cores. If each of them used all cores, they would mostly wait for each other.
# Commands that a test starts inherit the number of threads of its worker.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
THREADS = max(1, torch.get_num_threads() // WORKERS)
if WORKERS > 1:
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
torch.set_num_threads(1)
# A property that fails prints how to reproduce it. Quick runs always use the same examples, and large runs new ones.
COMMON = {
    "deadline": None,
    "print_blob": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate, Phase.shrink],
}
settings.register_profile("quick", derandomize=True, **COMMON)
settings.register_profile("large", derandomize=False, **COMMON)
SHARED = Path(os.environ.get("CAPTUM_MOXI_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seeds every global generator, so that a test gives the same result alone, in a group and in any order.

    Fixtures of a wider scope run before this one. They must use generators of their own.
    """
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real weights (models/) and photographs (imagenet-sample/)."""
    if not (SHARED / "models" / "vit-tiny-patch16-224").is_dir():
        pytest.skip(f"no real weights at {SHARED}; set CAPTUM_MOXI_SHARED to a folder that has them")
    return SHARED


@pytest.fixture(autouse=True)
def threads_for_real_models(request: pytest.FixtureRequest) -> Iterator[None]:
    """Gives real models their share of the cores. Small models run faster on one thread, especially beside others."""
    if request.node.get_closest_marker("real") is not None:
        torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(1)


def squares(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise images ``(count, 3, 36, 36)``, each with a bright and a dim square, and the bright square's channel."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 36, 36, generator=rng) * 0.3
    channels = torch.stack([torch.randperm(3, generator=rng)[:2] for _ in range(count)])
    cells = torch.stack([torch.randperm(9, generator=rng)[:2] for _ in range(count)])
    for image, channel_pair, cell_pair in zip(images, channels.tolist(), cells.tolist(), strict=True):
        for channel, cell, brightness in zip(channel_pair, cell_pair, (2.0, 1.0), strict=True):
            row, column = 12 * (cell // 3), 12 * (cell % 3)
            image[channel, row + 2 : row + 10, column + 2 : column + 10] += brightness
    return images, channels[:, 0]


@pytest.fixture(scope="session")
def trained_resnet() -> PreTrainedModel:
    """A small ResNet trained to classify images by the channel of their brighter square."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = zoo.resnet(labels=3)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        images, channels = squares(256, seed=1)
        for step in range(48):
            batch = torch.arange(32) + 32 * (step % 8)
            loss = torch.nn.functional.cross_entropy(model(images[batch]).logits, channels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        assert (model(images).logits.argmax(1) == channels).float().mean() > 0.8
    return model


@pytest.fixture(scope="session")
def square_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Four images that the ResNet was not trained on, and their classes."""
    return squares(4, seed=2)
