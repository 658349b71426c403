import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("datasets")
pytest.importorskip("pyarrow")

from captum_moxi.cli import runner
from captum_moxi.demo import demo_images
from captum_moxi.evaluation import store
from captum_moxi.evaluation.engines import ENGINES, Engine


class FailingEngine(Engine):
    """Leaves a folder in a given state, and then raises an error."""

    def __init__(self, error: BaseException, part: dict[str, str] | bytes | None = None) -> None:
        self.error, self.part = error, part

    def run(self, evaluator, folder: Path, batches, *, resources) -> Iterator[int]:
        if isinstance(self.part, bytes):
            (folder / "rows" / "part-torn.parquet").write_bytes(self.part)
        elif self.part is not None:
            store.write_part(folder, [self.part])
        raise self.error
        yield 0


@pytest.fixture
def options(model, data: Path) -> list[str]:
    return [*model, "--data", str(data), "--grid", "2", "--device", "cpu"]


def test_images_are_explained_and_counted(invoke, options, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = invoke("evaluate", *options, "--methods", "moxi, gradcam", "--stop", "never", "--out", out)
    assert result.exit_code == 0, result.output
    assert "6 images in" in result.stdout and "4 explained, 1 misclassified and left out, 1 unreadable" in result.stdout
    assert "broken.png: not an image that Pillow can read" in result.stdout
    settings = store.read_settings(out)
    assert settings["methods"] == ["moxi", "gradcam"]
    assert settings["stop"] is None and settings["screen"] == "gradient:8"


def test_a_run_continues_with_more_images_but_not_with_other_settings(invoke, options, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "2 images in" in invoke("evaluate", *options, "--limit", 2, "--out", out).stdout
    assert "3 images in" in invoke("evaluate", *options, "--limit", 3, "--out", out).stdout
    result = invoke("evaluate", *options, "--mode", "insertion", "--out", out)
    assert result.exit_code == 2
    assert "modes" in result.stderr and "['insertion']" in result.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no space left")])
def test_an_interrupted_run_tells_what_is_finished(invoke, options, tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "run"
    assert invoke("evaluate", *options, "--limit", 2, "--out", out).exit_code == 0
    # failed images are repeated, so they are not finished; a part that cannot be read is named
    for part, message in (
        (None, f"2 images are finished and stored in {out}"),
        ({"image": "failed.png", "status": "failed", "error": "none"}, "2 images are finished"),
        (b"PAR1", "part-torn.parquet"),
    ):
        ENGINES.register("failing", lambda part=part: FailingEngine(error, part))
        try:
            result = invoke("evaluate", *options, "--engine", "failing", "--out", out)
        finally:
            ENGINES.unregister("failing")
        assert result.exit_code == 2
        assert message in result.stderr and "repeat the same command to continue" in result.stderr
        assert ("Error: interrupted; " in result.stderr) == isinstance(error, KeyboardInterrupt)


def test_a_run_that_cannot_start_is_reported(invoke, options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(store, "open_run", fail)
    result = invoke("evaluate", *options, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert f"no space left; {tmp_path / 'run'} does not hold a run yet" in result.stderr


@pytest.mark.parametrize(
    ("missing", "command", "extra"), [("pyarrow", ["evaluate"], "evaluate"), ("pandas", ["report"], "evaluate")]
)
def test_missing_packages_are_named(
    invoke, options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, command: list[str], extra: str
) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda name: None if name == missing else find_spec(name))
    arguments = [*options, "--out", tmp_path / "run"] if command == ["evaluate"] else [tmp_path]
    result = invoke(*command, *arguments)
    assert result.exit_code == 2
    assert f"requires {missing}; run pip install 'captum-moxi[{extra}]'" in result.stderr


def test_labels_are_mapped_to_classes(invoke, model, tmp_path: Path) -> None:
    _, image, label = demo_images()[0]
    data, label_map = tmp_path / "data", tmp_path / "map.json"
    for name in ("sum", "other"):
        (data / name).mkdir(parents=True)
        image.save(data / name / "a.png")
    options = [*model, "--data", data, "--grid", 2, "--device", "cpu", "--label-map", label_map, "--out"]
    label_map.write_text(json.dumps({"sum": int(label)}))
    result = invoke("evaluate", *options, tmp_path / "run")
    assert result.exit_code == 0 and "1 images in" in result.stdout and "1 explained" in result.stdout
    assert store.read_settings(tmp_path / "run")["label_map"] == {"sum": label}
    for text, message in (
        ('{"sum": "lion"}', "'lion'"),
        ("{", "is not valid JSON"),
        ("[1]", "is not an object of class names"),
        ('{"a": []}', "is not an object of class names"),
    ):
        label_map.write_text(text)
        result = invoke("evaluate", *options, tmp_path / "other")
        assert result.exit_code == 2 and message in result.stderr
        shutil.rmtree(tmp_path / "other", ignore_errors=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--methods", "magic"], "method 'magic' is unknown"),
        (["--methods", "moxi,moxi"], "different titles"),
        (["--removal", "magic"], "removal 'magic' is unknown"),
        (["--reward", "profit"], "reward 'profit' is unknown"),
        (["--screen", "best"], "screen 'best' is unknown"),
        (["--engine", "steam"], "engine 'steam' is unknown; pass one of local, ray"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available"),
        (["--data", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_an_invalid_option_is_explained(invoke, options, tmp_path: Path, changes: list[str], message: str) -> None:
    result = invoke("evaluate", *options, *changes, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


def test_advice_on_unlabelled_images_is_in_the_syntax_of_the_command_line(
    invoke, model, digits: Path, tmp_path: Path
) -> None:
    arguments = ["evaluate", *model, "--data", digits, "--device", "cpu", "--grid", 2, "--out", tmp_path / "run"]
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "has no labels" in result.stderr and "pass --keep all, a --label-pattern, or folders" in result.stderr
    assert "keep=" not in result.stderr and "label_pattern" not in result.stderr
    # The first piece of advice works.
    assert invoke(*arguments, "--keep", "all").exit_code == 0


def test_minimal_and_disjoint_groups_are_stored_and_continue(invoke, options, tmp_path: Path) -> None:
    out = tmp_path / "run"
    groups = ["--alternatives", 2, "--minimal", "--methods", "moxi,random", "--out", out]
    assert invoke("evaluate", *options, *groups, "--limit", 3).exit_code == 0
    assert invoke("evaluate", *options, *groups).exit_code == 0
    rows = [row for row in store.read_rows(out).to_pylist() if row["status"] == "explained"]
    assert len(rows) == 4 * 4
    for row in rows:
        assert (row["groups"] is None) == (row["method"] == "Random")
        assert all(row["groups"] or [])
    result = invoke("report", out, "--resamples", 20)
    assert result.exit_code == 0 and "| minimal to flip, median | left out | groups |" in result.output


def test_minimal_groups_need_the_flip(invoke, options, tmp_path: Path) -> None:
    result = invoke("evaluate", *options, "--minimal", "--stop", "never", "--out", tmp_path / "run")
    assert result.exit_code == 2 and "minimal is True, but stop is None" in result.stderr
