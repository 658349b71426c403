"""A bench with the embedded model, and a reader of its tables."""

from collections.abc import Callable
from typing import TypeAlias

import pytest

from captum_moxi.benchmarks import Bench
from captum_moxi.demo import demo_classifier, demo_images

ParseTable: TypeAlias = Callable[[str], dict[str, list[str]]]


@pytest.fixture
def bench() -> Bench:
    """The embedded model and its first image, with 2 x 2 players."""
    images = [(image.name, image.image) for image in demo_images()[:1]]
    return Bench(classifiers=[demo_classifier("cpu")], images=images, grid=2, repeats=1)


@pytest.fixture
def parse_table() -> ParseTable:
    """Returns a function that converts a Markdown table to columns by title."""

    def parse(text: str) -> dict[str, list[str]]:
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
        return {title: [line[i] for line in lines[2:]] for i, title in enumerate(lines[0])}

    return parse
