"""What all registered benchmarks have in common."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from captum_moxi.benchmarks import BENCHMARKS, Bench
from captum_moxi.benchmarks.machine import describe_machine, peak_memory
from captum_moxi.demo import demo_images
from captum_moxi.evaluation.records import Records


@pytest.fixture
def image_counter() -> Iterator[str]:
    """A benchmark registered from outside the package."""

    def count_images(bench: Bench) -> str:
        return f"{bench.measure({'benchmark': 'count'}, lambda: {'images': len(bench.images)})['images']} images"

    BENCHMARKS.register("count", lambda: count_images, help="number of images")
    yield "count"
    BENCHMARKS.unregister("count")


# growth measures large models and is tested by its parts
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "methods" else [])
        for name in BENCHMARKS
        if name != "growth"
    ],
)
def test_a_second_run_reuses_all_measurements(
    name: str, bench: Bench, tmp_path: Path, parse_table: Callable[[str], dict[str, list[str]]]
) -> None:
    path = tmp_path / "measured.jsonl"
    first = BENCHMARKS.create(name)(replace(bench, records=Records(path)))
    measured = path.read_text()
    again = Records(path)
    assert BENCHMARKS.create(name)(replace(bench, records=again)) == first
    assert again.measured == 0
    assert again.reused == len(measured.splitlines()) > 0
    assert path.read_text() == measured
    columns = parse_table(first)
    assert {len(cells) for cells in columns.values()} == {again.reused}


def test_measurements_depend_on_grid_machine_and_versions(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "measured.jsonl"
    records = Records(path)
    for grid in (2, None, 2):
        replace(bench, grid=grid, records=records).measure({"benchmark": "test"}, lambda: {"seconds": 1.0})
    assert (records.measured, records.reused) == (2, 1)
    settings = json.loads(path.read_text().splitlines()[0])["settings"]
    assert settings["machine"] == describe_machine(bench.device)
    assert {"captum-moxi", "transformers", "grid", "benchmark"} < settings.keys()


def test_a_registered_benchmark_can_be_run(image_counter: str, bench: Bench) -> None:
    images = [(image.name, image.image) for image in demo_images()[:3]]
    assert BENCHMARKS.create(image_counter)(replace(bench, images=images)) == "3 images"
    with pytest.raises(ValueError, match="count"):
        BENCHMARKS.create("nonsense")


def test_the_game_has_the_predicted_class_as_target_and_a_grid_of_players(bench: Bench) -> None:
    images = [image.image for image in demo_images()]
    game = bench.game(bench.classifiers[0], images)
    assert game.n_players == 4
    assert game.targets is not None
    assert game.targets.tolist() == [int(image.label) for image in demo_images()]
    own_patches = replace(bench, grid=None)
    assert own_patches.game(bench.classifiers[0], images).n_players == 16


def test_the_machine_is_described(bench: Bench) -> None:
    assert "threads, torch" in bench.machine
    # A process with torch needs more than 16 MiB.
    assert peak_memory(bench.device) > 2**24
