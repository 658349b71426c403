"""Throughput against the searches that it measures."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from captum_moxi import MoXIDeletion, MoXIInsertion
from captum_moxi.benchmarks import Bench
from captum_moxi.benchmarks.throughput import measure_throughput
from captum_moxi.demo import demo_images
from captum_moxi.players import patch_mask


def test_steps_and_images_are_those_of_the_searches(
    bench: Bench, parse_table: Callable[[str], dict[str, list[str]]]
) -> None:
    images = [(image.name, image.image) for image in demo_images()]
    columns = parse_table(measure_throughput(replace(bench, images=images)))
    steps = dict(zip(columns["search"], columns["steps per image"], strict=True))
    x = bench.classifiers[0].preprocess([image for _, image in images])
    target = [int(image.label) for image in demo_images()]
    mask = patch_mask(56, grid=2)
    for attribution, job in ((MoXIInsertion, "insertion to the flip"), (MoXIDeletion, "deletion to the flip")):
        _, selection = attribution(bench.classifiers[0].model).attribute(
            x, target=target, feature_mask=mask, stop="flip", return_selection=True
        )
        assert float(steps[job]) == pytest.approx(float(selection.n_steps.double().mean()), rel=6e-3)
    # Full rankings of four players are measured on one image.
    assert steps["full insertion"] == steps["full deletion"] == "4"
    assert columns["images"] == ["4", "4", "4", "1", "1"]
