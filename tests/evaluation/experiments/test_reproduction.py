"""The experiments on the embedded model, interruptions and failures."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from zoo import resnet

from captum_moxi.cli.main import main
from captum_moxi.evaluation import store
from captum_moxi.evaluation.curves import RunCurve
from captum_moxi.evaluation.experiments import EXPERIMENTS, Experiment, Findings, SkippedError, layers
from captum_moxi.evaluation.experiments.reproduction import page_of, reproduce_experiments, run_experiment
from captum_moxi.evaluation.experiments.study import Study

pytest.importorskip("imagecorruptions")


def parts(folder: Path) -> dict[Path, int]:
    """The files with results below a folder, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".parquet", ".jsonl")}


def test_all_experiments_run_and_their_commands_compute_the_same(study: Study) -> None:
    outcomes = list(reproduce_experiments(study))
    assert [(outcome.experiment.name, outcome.status, outcome.reason) for outcome in outcomes] == [
        (entry.name, "finished", "") for entry in EXPERIMENTS.entries
    ]
    page = page_of(study).read_text("utf-8")
    for outcome in outcomes:
        assert f"## {outcome.experiment.title}\n" in page and outcome.experiment.claim in page
    figures = [study.out / name for name in re.findall(r"!\[.+?\]\(<(.+?)>\)", page)]
    assert figures and all(figure.stat().st_size for figure in figures)

    # Each command accepts the folder only with the settings of the experiment, and then has nothing left to compute.
    before = parts(study.out)
    lines = [line.strip() for line in page.splitlines() if line.startswith("    captum-moxi ")]
    assert len(set(lines)) > len(outcomes)
    for line in dict.fromkeys(lines):
        _, *arguments = shlex.split(line)
        device = [] if arguments[0] == "report" else ["--device", "cpu"]
        result = CliRunner().invoke(main, [*arguments, *device])
        assert result.exit_code == 0, (line, result.output)
    assert parts(study.out) == before
    assert page_of(study).read_text("utf-8") == page


@pytest.fixture
def interruption() -> Iterator[list[bool]]:
    """An experiment that is interrupted while the list contains True."""
    interrupted = [True]

    def run(study: Study) -> Findings:
        if interrupted[0]:
            raise KeyboardInterrupt
        return Findings([], commands=["captum-moxi --version"])

    EXPERIMENTS.register_value("late", Experiment("late", "Late", "nowhere", "Nothing.", "Nothing.", run))
    yield interrupted
    EXPERIMENTS.unregister("late")


def test_an_interrupted_study_continues(study: Study, interruption: list[bool]) -> None:
    names = ["seconds", "late"]
    with pytest.raises(KeyboardInterrupt):
        list(reproduce_experiments(study, only=names))
    assert "| Late | nowhere |  | not run yet |" in page_of(study).read_text("utf-8")
    before = parts(study.out)
    assert before
    interruption[0] = False
    again = replace(study)
    assert [outcome.status for outcome in reproduce_experiments(again, only=names)] == ["finished", "finished"]
    assert parts(study.out) == before
    assert "| Late | nowhere |  | finished |" in page_of(study).read_text("utf-8")


@pytest.mark.parametrize(
    ("error", "status"), [(SkippedError("there is <no> layer"), "skipped"), (OSError("the disk is full"), "failed")]
)
def test_the_page_says_why_an_experiment_has_no_results(study: Study, error: Exception, status: str) -> None:
    def run(study: Study) -> Findings:
        raise error

    EXPERIMENTS.register_value("broken", Experiment("broken", "Broken", "nowhere", "Nothing.", "Nothing.", run))
    try:
        outcomes = list(reproduce_experiments(study, only=["broken", "seconds"]))
        if status == "failed":
            with pytest.raises(OSError, match="the disk is full"):
                run_experiment(EXPERIMENTS.create("broken"), study, raise_errors=True)
    finally:
        EXPERIMENTS.unregister("broken")
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [(status, str(error)), ("finished", "")]
    reason = str(error).replace("<", r"\<")
    assert f"**{status.capitalize()}**: {reason}." in page_of(study).read_text("utf-8")


def test_experiments_that_do_not_fit_are_skipped(study: Study, tmp_path: Path) -> None:
    without_search = replace(study, settings=replace(study.settings, methods=("random",)))
    outcome = run_experiment(EXPERIMENTS.create("groups"), without_search)
    assert (outcome.status, outcome.reason) == (
        "skipped",
        "none of the methods searches minimal groups; add moxi to the methods",
    )
    outcome = run_experiment(EXPERIMENTS.create("layers"), without_search)
    assert (outcome.status, outcome.reason) == (
        "skipped",
        "the experiment is about the searches of MoXI; add moxi to the methods",
    )
    resnet().save_pretrained(tmp_path / "resnet")
    processor = Path(study.settings.model) / "preprocessor_config.json"
    (tmp_path / "resnet" / processor.name).write_bytes(processor.read_bytes())
    convolutional = replace(study, settings=replace(study.settings, model=str(tmp_path / "resnet")))
    outcome = run_experiment(EXPERIMENTS.create("layers"), convolutional)
    assert outcome.status == "skipped" and "no attention between tokens" in outcome.reason


def test_a_call_with_other_experiments_keeps_the_sections(study: Study) -> None:
    list(reproduce_experiments(study, only=["seconds"]))
    list(reproduce_experiments(study, only=["attack"]))
    page = page_of(study).read_text("utf-8")
    titles = [EXPERIMENTS.create(name).title for name in ("seconds", "attack")]
    assert re.findall("^## (.*)$", page, re.M)[:2] == titles
    # The norm of a perturbation does not rate a method.
    assert "| norm on the first patch |" in page


def test_layers_are_compared_on_the_images_that_all_of_them_have(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    read = layers.read_run_curves

    def without_an_image(folder: Path, images: Sequence[str] | None = None) -> list[RunCurve]:
        """The replay of the first layer has failed on one image."""
        curves = read(folder)
        names = [name for name in curves[0].images if "attention-0" not in str(folder) or name != curves[0].images[0]]
        return read(folder, images=[name for name in names if images is None or name in images])

    monkeypatch.setattr(layers, "read_run_curves", without_an_image)
    (outcome,) = reproduce_experiments(study, only=["layers"])
    assert outcome.findings is not None, outcome.reason
    (areas,) = outcome.findings.measurements
    assert {len(values) for values in areas.values.values()} == {1}
    assert areas.tested == ["layer 0"]


def test_an_unknown_experiment_is_rejected_before_anything_is_written(study: Study) -> None:
    with pytest.raises(ValueError, match="experiment 'cruves' is unknown; pass one of curves, "):
        next(reproduce_experiments(study, only=["cruves"]))
    assert not study.out.exists()


def test_the_seconds_and_rows_are_those_of_the_run(study: Study) -> None:
    (outcome,) = reproduce_experiments(study, only=["seconds"])
    assert outcome.findings is not None
    measured = {item.quantity: item for item in outcome.findings.measurements}
    rows = store.read_rows(study.out / "seconds").to_pandas()
    for column, mode in (("seconds", "insertion"), ("rows", "deletion")):
        expected = [row[column] for _, row in rows.iterrows() if (row["method"], row["mode"]) == ("MoXI", mode)]
        assert measured[f"{column}, {mode}"].values["MoXI"].tolist() == expected and len(expected) == 2
    # A machine is measured, so methods are not compared by the rows that they evaluate.
    assert measured["rows, insertion"].pairs == []
