"""The commands that read a run: report, replay, corrupt and attack."""

from pathlib import Path

import pytest

pytest.importorskip("datasets")
pytest.importorskip("pandas")

from captum_moxi.perturbations.corruptions import CORRUPTIONS


@pytest.fixture
def run(invoke, model, data: Path, tmp_path: Path) -> Path:
    """A run of two methods on the embedded images, beyond flips."""
    folder = tmp_path / "run"
    options = ["--grid", 2, "--device", "cpu", "--methods", "moxi,gradcam", "--stop", "never", "--out", folder]
    assert invoke("evaluate", *model, "--data", data, *options).exit_code == 0
    return folder


def test_report_prints_a_table_and_writes_figures(invoke, run: Path) -> None:
    result = invoke("report", run, "--fractions", "0.25,0.5", "--resamples", 50)
    assert result.exit_code == 0, result.output
    assert "accuracy, 25 %" in result.stdout and "| insertion | Grad-CAM | 4 |" in result.stdout
    assert {path.name for path in run.iterdir()} >= {"report.md", "report.csv", "curves.png", "flips.png"}


def test_report_draws_galleries_into_another_folder(invoke, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert invoke("report", run, "--gallery", 2, "--resamples", 50, "--out", out).exit_code == 0
    assert {path.name for path in out.iterdir()} >= {"report.md", "run-insertion.png", "run-deletion.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "run"),
        (["--fractions", "2"], "not a list of ascending numbers from 0 to 1"),
        (["--fractions", "a"], "not a list of ascending numbers from 0 to 1"),
        (["OTHER"], "--out is missing"),
    ],
)
def test_report_explains_what_is_wrong(invoke, tmp_path: Path, options: list[str], message: str) -> None:
    result = invoke("report", tmp_path, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_corruptions_are_replayed(invoke, run: Path, tmp_path: Path) -> None:
    # a corruption without the optional package
    CORRUPTIONS.register("inverted", lambda: lambda image, severity, seed: image.point(lambda value: 255 - value))
    try:
        out = tmp_path / "out"
        options = ["--corruptions", "inverted", "--severity", 2, "--limit", 2, "--resamples", 50, "--device", "cpu"]
        result = invoke("corrupt", run, *options, "--out", out)
        assert result.exit_code == 0, result.output
        assert "inverted" in result.stdout
        assert {path.name for path in out.iterdir()} == {"inverted", "corruptions.md", "corruptions.png"}
    finally:
        CORRUPTIONS.unregister("inverted")


def test_unknown_corruptions_are_rejected(invoke, run: Path, tmp_path: Path) -> None:
    result = invoke("corrupt", run, "--corruptions", "fog,rust", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "corruption 'rust' is unknown; pass one of " in result.stderr


def test_attacks_are_measured_and_reused(invoke, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--mode", "insertion", "--n-steps", 2, "--limit", 2, "--device", "cpu", "--out", out]
    first = invoke("attack", run, *options)
    assert first.exit_code == 0, first.output
    assert "L2 PGD with radius 1 and 2 steps of 0.2, in insertion orders" in first.stdout
    assert {path.name for path in out.iterdir()} == {"attack.jsonl", "attack.md", "attack.png"}
    measured = (out / "attack.jsonl").read_text()
    assert invoke("attack", run, *options).stdout == first.stdout
    assert (out / "attack.jsonl").read_text() == measured


def test_a_folder_without_a_run_is_rejected(invoke, tmp_path: Path) -> None:
    for command in ("replay", "corrupt", "attack"):
        result = invoke(command, tmp_path, "--out", tmp_path / "out")
        assert result.exit_code == 2
        assert str(tmp_path) in result.stderr
        assert "Traceback" not in result.output


def test_orders_are_replayed_under_other_removals(invoke, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--limit", 2, "--resamples", 50, "--device", "cpu"]
    result = invoke("replay", run, "--removal", "zero,mean", *options, "--out", out)
    assert result.exit_code == 0, result.output
    assert "| zero | MoXI, insertion order | 2 |" in result.stdout and "| mean | Grad-CAM | 2 |" in result.stdout
    assert {path.name for path in out.iterdir()} == {
        *("zero", "mean", "replay.md", "replay.csv", "replay.json", "replay.png")
    }
    # A layer that the model does not have.
    result = invoke("replay", run, "--removal", "zero,attention:99", *options, "--out", tmp_path / "other")
    assert result.exit_code == 2 and not (tmp_path / "other").exists()
    assert "--removal attention:99 does not fit the model (from_layer is 99" in result.stderr
