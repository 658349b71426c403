"""Fixtures: trained small models, and the real weights and photographs where they are there."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import zoo
from transformers import PreTrainedModel
from transformers.utils import logging

logging.disable_progress_bar()
logging.set_verbosity_error()

THREADS = torch.get_num_threads()
torch.set_num_threads(1)
SHARED = Path(os.environ.get("CAPTUM_MOXI_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real weights (models/) and photographs (imagenet-sample/)."""
    if not (SHARED / "models" / "vit-tiny-patch16-224").is_dir():
        pytest.skip(f"no real weights at {SHARED}; set CAPTUM_MOXI_SHARED to a folder that has them")
    return SHARED


@pytest.fixture(autouse=True)
def threads_for_real_models(request: pytest.FixtureRequest) -> Iterator[None]:
    """Threads that wait for each other cost small models more than they bring, most of all beside other work."""
    if request.node.get_closest_marker("real") is not None:
        torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(1)


def squares(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise images (count, 3, 36, 36) with a bright and a dim square of two colours; the bright one's."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 36, 36, generator=rng) * 0.3
    colours = torch.stack([torch.randperm(3, generator=rng)[:2] for _ in range(count)])
    cells = torch.stack([torch.randperm(9, generator=rng)[:2] for _ in range(count)])
    for image, pair, where in zip(images, colours.tolist(), cells.tolist(), strict=True):
        for colour, cell, brightness in zip(pair, where, (2.0, 1.0), strict=True):
            row, column = 12 * (cell // 3), 12 * (cell % 3)
            image[colour, row + 2 : row + 10, column + 2 : column + 10] += brightness
    return images, colours[:, 0]


@pytest.fixture(scope="session")
def trained_resnet() -> PreTrainedModel:
    """A small ResNet trained to name the colour of the brighter square."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = zoo.resnet(labels=3)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        images, colours = squares(256, seed=1)
        for step in range(48):
            batch = torch.arange(32) + 32 * (step % 8)
            loss = torch.nn.functional.cross_entropy(model(images[batch]).logits, colours[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        assert (model(images).logits.argmax(1) == colours).float().mean() > 0.8
    return model


@pytest.fixture(scope="session")
def square_images() -> tuple[torch.Tensor, torch.Tensor]:
    return squares(4, seed=2)
