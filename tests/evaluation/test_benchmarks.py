import json
from itertools import permutations
from pathlib import Path

import pytest
import torch
import zoo
from click.testing import CliRunner

from captum_moxi import CoalitionGame
from captum_moxi.cli import main
from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.evaluation import benchmarks
from captum_moxi.evaluation.records import Records


@pytest.fixture
def bench() -> benchmarks.Bench:
    images = [(name, image) for name, image, _ in demo_images()][:1]
    return benchmarks.Bench([demo_classifier("cpu")], images, 2, 1, None, [], Records(), "a machine")


def columns(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {name: [line[i] for line in lines[2:]] for i, name in enumerate(lines[0])}


def test_bare_counts_the_rows_of_both_searches(bench: benchmarks.Bench) -> None:
    got = columns(benchmarks.bare(bench))
    # four players: the image, nobody (insertion alone), and 4 + 3 + 2 + 1
    full = {
        m: rows for m, e, rows in zip(got["search"], got["extent"], got["forwards"], strict=True) if e == "all steps"
    }
    assert full == {"insertion": "12", "deletion": "11"}


@pytest.mark.parametrize("name", zoo.TOKEN_MODELS)
def test_the_bare_encoder_is_the_model_after_its_embeddings(name: str) -> None:
    model, x = zoo.token_model(name), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(benchmarks._encoder(model)(model.base_model.embeddings(x)), model(x).logits)


def test_methods_has_the_areas_under_both_curves(bench: benchmarks.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    got = columns(benchmarks.methods(bench))
    game = bench.game(bench.classifiers[0], [bench.images[0][1]])

    def area(order: tuple[int, ...], present_first: bool) -> float:
        groups = [set(order[:k]) for k in range(5)]
        rows = torch.tensor([[(i in group) == present_first for i in range(4)] for group in groups])
        return float(game.outcome(rows).confidences.mean())

    by_method = {
        method: (float(inserted), float(deleted))
        for method, inserted, deleted in zip(
            got["method"],
            got["area under insertion (more is better)"],
            got["area under deletion (less is better)"],
            strict=True,
        )
    }
    orders = list(permutations(range(4)))
    assert all(
        any(
            a == pytest.approx(area(order, True), rel=6e-3) and b == pytest.approx(area(order, False), rel=6e-3)
            for order in orders
        )
        for a, b in by_method.values()
    )
    assert float(by_method["MoXI insertion"][0]) >= 0.5 * max(area(order, True) for order in orders)
    # the sampled permutations take a row a player, and the first of each
    counts = dict(zip(got["method"], got["forwards"], strict=True))
    assert counts["FeatureAblation"] == "5"
    assert counts["MoXI insertion"] == "11"


def test_screens_compares_with_the_exact_search(bench: benchmarks.Bench) -> None:
    got = columns(benchmarks.screens(bench))
    exact = [i for i, name in enumerate(got["candidates"]) if name == "exact"]
    assert [got["search"][i] for i in exact] == ["deletion", "insertion"]
    assert all(got["against exact"][i] == "+0.0%" and float(got["times fewer"][i]) == 1 for i in exact)
    # of four players, screens of four and more skip none
    alike = [i for i, name in enumerate(got["candidates"]) if "beam" not in name]
    assert all(got["against exact"][i] == "+0.0%" for i in alike)


def test_images_of_one_name_are_measured_each(bench: benchmarks.Bench, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, (_, image, _) in zip(folders, demo_images(), strict=False):
        folder.mkdir()
        image.save(folder / "same.png")
    options = ["benchmark", "screens", "--grid", "2", "--device", "cpu", "--out", str(tmp_path / "new" / "kept.jsonl")]
    for folder in folders:
        options += ["--images", str(folder)]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    assert set(columns(result.stdout)["flipped"]) == {"2 of 2"}
    kept = [
        json.loads(line)["settings"]["image"] for line in (tmp_path / "new" / "kept.jsonl").read_text().splitlines()
    ]
    assert {Path(name).parent for name in kept} == set(folders)


def test_screens_can_be_compared_where_no_step_was_needed(bench: benchmarks.Bench) -> None:
    model = bench.classifiers[0].model
    with torch.no_grad():
        # one class whatever it sees: nobody is enough
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.arange(len(model.classifier.bias)))
    got = columns(benchmarks.screens(bench))
    assert {steps for steps, search in zip(got["mean"], got["search"], strict=True) if search == "insertion"} == {"0"}
    assert "-" in got["against exact"]


def test_a_search_can_be_compared_alone() -> None:
    options = ["benchmark", "screens", "--grid", "2", "--limit", "1", "--device", "cpu", "--search", "beam of 2"]
    got = columns(CliRunner().invoke(main, options).stdout)
    assert list(zip(got["search"], got["candidates"], strict=True)) == [
        ("deletion", "exact"),
        ("insertion", "exact"),
        ("insertion", "beam of 2"),
    ]


def test_growth_measures_time_rows_and_memory() -> None:
    found = benchmarks._grown(48, 3, 32, 2, "deletion", 1, "cpu")
    # four patches, each taken from both images
    assert found["rows"] == 8
    assert found["seconds"] > 0
    assert found["bytes"] > 2**24


def test_the_area_of_a_path_that_ended_sooner_holds_its_last_value() -> None:
    assert benchmarks._area([1.0, 0.0], 4) == pytest.approx(0.25)
    assert benchmarks._area([1.0, 0.5, 0.0], 2) == pytest.approx(0.75)


def test_forwards_count_a_backward_pass_as_two_more() -> None:
    game = CoalitionGame(lambda x: x.sum(1), torch.ones(1, 3), reward="output")
    game.effects(torch.ones(2, 3))
    assert benchmarks._forwards(game) == 1 + 2 * 3


def test_the_command_prints_a_table_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "kept.jsonl"
    options = ["benchmark", "throughput", "--limit", "2", "--grid", "2", "--device", "cpu", "--out", str(out)]
    first = CliRunner().invoke(main, options)
    assert first.exit_code == 0, first.output
    got = columns(first.output)
    assert set(got["search"]) >= {"insertion to the flip", "full deletion"}
    kept = out.read_text()
    again = CliRunner().invoke(main, options)
    # nothing was measured again
    assert "0 measurements made, 5 there already" in again.stderr
    assert out.read_text() == kept
    assert again.stdout == first.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nonsense"], "is not one of"),
        (["bare", "--model", "./nowhere"], "is no folder"),
        (["bare", "--images", "nowhere.jpg"], "no such file"),
        (["bare", "--device", "cuda:99"], "cannot be used"),
        (["screens", "--search", "best"], "search best is unknown; pass of GradientScreen(16)"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(options: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["benchmark", *options])
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
