from pathlib import Path

import pytest

pytest.importorskip("datasets")
pytest.importorskip("pandas")

from captum_moxi.evaluation.experiments import EXPERIMENTS, Experiment, Findings
from captum_moxi.evaluation.experiments.study import Study


@pytest.fixture
def options(model: list[str], data: Path, tmp_path: Path) -> list[object]:
    options = [*model, "--data", data, "--grid", 2, "--device", "cpu", "--methods", "moxi,random", "--limit", 2]
    return [*options, "--out", tmp_path / "out"]


def test_the_chosen_experiments_run_and_the_page_is_written(invoke, options: list[object], tmp_path: Path) -> None:
    result = invoke("reproduce", *options, "--only", "curves,replays", "--resamples", 20)
    assert result.exit_code == 0, result.output
    page = tmp_path / "out" / "results.md"
    assert result.stdout.splitlines() == ["curves: finished", "replays: finished", str(page)]
    text = page.read_text("utf-8")
    assert "--only curves,replays --limit 2 --methods moxi,random --grid 2 --resamples 20 --device cpu --out" in text
    # With all patches, the difference of the areas is the SRG.
    assert "| removal |  | insertion area ↑ | deletion area ↓ | SRG ↑ |" in text
    assert {path.name for path in page.parent.iterdir()} == {
        *("settings.json", "sections.json", "results.md"),
        *("curves", "replays"),
    }


def test_after_a_failure_the_others_run_and_the_exit_code_is_2(invoke, options: list[object]) -> None:
    def run(study: Study) -> Findings:
        raise ValueError("label_map is too\nlarge")

    EXPERIMENTS.register_value("broken", Experiment("broken", "Broken", "nowhere", "Nothing.", "Nothing.", run))
    try:
        result = invoke("reproduce", *options, "--only", "broken,seconds")
    finally:
        EXPERIMENTS.unregister("broken")
    assert result.exit_code == 2
    assert "seconds: finished" in result.stdout
    assert "broken: failed: --label-map is too large" in result.stderr
    assert "1 of the experiments failed: broken" in result.stderr


def test_an_interruption_names_the_page(invoke, options: list[object], tmp_path: Path) -> None:
    def run(study: Study) -> Findings:
        raise KeyboardInterrupt

    EXPERIMENTS.register_value("endless", Experiment("endless", "Endless", "nowhere", "Nothing.", "Nothing.", run))
    try:
        result = invoke("reproduce", *options, "--only", "seconds,endless")
    finally:
        EXPERIMENTS.unregister("endless")
    assert result.exit_code != 0
    assert "results.md; repeat the same command to continue" in result.stderr.replace("\n", " ")
    assert "endless | " not in result.stdout
    assert "| Endless | nowhere |  | not run yet |" in (tmp_path / "out" / "results.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--only", "cruves"], "experiment 'cruves' is unknown; pass one of curves, "),
        (["--methods", "moksi"], "method 'moksi' is unknown"),
        (["--grid", 3], "one of 1, 2, 4"),
    ],
)
def test_bad_options_leave_no_folder(
    invoke, options: list[object], changes: list[object], message: str, tmp_path: Path
) -> None:
    result = invoke("reproduce", *options, *changes)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()
