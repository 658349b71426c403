import json
from pathlib import Path

import pytest

from captum_moxi.benchmarks import BENCHMARKS
from captum_moxi.demo import demo_images


def columns(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {name: [row[column] for row in rows[2:]] for column, name in enumerate(rows[0])}


def test_images_of_several_folders_are_measured(invoke, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, (_, image, _) in zip(folders, demo_images(), strict=False):
        folder.mkdir()
        image.save(folder / "same.png")
    out = tmp_path / "new" / "measured.jsonl"
    images = [argument for folder in folders for argument in ("--images", folder)]
    result = invoke("benchmark", "screens", "--grid", 2, "--device", "cpu", "--out", out, *images)
    assert result.exit_code == 0, result.output
    assert set(columns(result.stdout)["flipped"]) == {"2 of 2"}
    measured = [json.loads(line)["settings"]["image"] for line in out.read_text().splitlines()]
    assert {Path(name).parent for name in measured} == set(folders)


def test_a_search_can_be_compared_alone(invoke) -> None:
    options = ["--grid", 2, "--limit", 1, "--device", "cpu", "--search", "beam of 2"]
    result = invoke("benchmark", "screens", *options)
    table = columns(result.stdout)
    assert list(zip(table["mode"], table["search"], strict=True)) == [
        ("deletion", "exact"),
        ("insertion", "exact"),
        ("insertion", "beam of 2"),
    ]
    assert "not stored; pass --out FILE to store them" in result.stderr


def test_a_second_run_reuses_the_measurements(invoke, tmp_path: Path) -> None:
    out = tmp_path / "measured.jsonl"
    options = ["--limit", 2, "--grid", 2, "--device", "cpu", "--out", out]
    first = invoke("benchmark", "throughput", *options)
    assert first.exit_code == 0, first.output
    assert set(columns(first.stdout)["search"]) >= {"insertion to the flip", "full deletion"}
    stored = out.read_text()
    second = invoke("benchmark", "throughput", *options)
    assert "0 new measurements, 5 reused" in second.stderr
    assert out.read_text() == stored
    assert second.stdout == first.stdout


def test_help_lists_the_benchmarks(invoke) -> None:
    text = invoke("benchmark", "--help").output
    for name in BENCHMARKS:
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "benchmark 'nonsense' is unknown; pass one of bare"),
        (["bare", "--model", "./nowhere"], "./nowhere"),
        (["bare", "--images", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (["bare", "--device", "cuda:99"], "is not available"),
        (["screens", "--search", "best"], "search best is unknown; pass one of"),
    ],
)
def test_invalid_arguments_are_explained(invoke, arguments: list[str], message: str) -> None:
    result = invoke("benchmark", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
