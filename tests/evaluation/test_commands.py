import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from captum_moxi.cli import main
from captum_moxi.evaluation import commands, engines, store
from captum_moxi.evaluation.runs import Settings


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def of(settings: Settings) -> list[str]:
    return ["--model", settings.model, "--data", settings.data, "--grid", "2", "--device", "cpu"]


def test_evaluate_then_report(of: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = call("evaluate", *of, "--methods", "moxi, gradcam", "--stop", "never", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "14 images in" in done.stdout and "12 explained, 1 wrong, 1 unreadable" in done.stdout
    assert "broken.png: this is no image that Pillow can read" in done.stdout
    assert store.read_settings(out)["methods"] == ["moxi", "gradcam"]
    told = call("report", str(out), "--fractions", "0.25,0.5")
    assert told.exit_code == 0, told.output
    assert "accuracy, 25 %" in told.stdout and "| insertion | Grad-CAM | 12 |" in told.stdout
    assert {path.name for path in out.iterdir()} >= {"report.md", "report.csv", "curves.png", "flips.png"}


def test_more_images_may_be_asked_of_a_run_but_no_other_settings(of: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    assert "3 images in" in call("evaluate", *of, "--limit", "3", "--out", out).stdout
    assert "5 images in" in call("evaluate", *of, "--limit", "5", "--out", out).stdout
    refused = call("evaluate", *of, "--mode", "insertion", "--out", out)
    assert refused.exit_code == 2
    assert "modes was ['insertion', 'deletion'] and is ['insertion']" in refused.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no space left")])
def test_what_an_interrupted_run_keeps_is_said(
    of: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out = tmp_path / "run"

    def stop(*_: Any) -> Iterator[int]:
        raise error
        yield 0

    def said() -> str:
        done = call("evaluate", *of, "--out", str(out))
        assert done.exit_code == 2 and "the same command goes on" in done.stderr
        return done.stderr

    assert call("evaluate", *of, "--limit", "2", "--out", str(out)).exit_code == 0
    monkeypatch.setattr(engines, "run_local", stop)
    assert f"2 images are done and kept in {out}" in said()
    # what failed is done again; a part that cannot be read is named
    monkeypatch.setattr(engines, "run_local", lambda *_: fail(out, stop))
    assert f"2 images are done and kept in {out}" in said()
    monkeypatch.setattr(engines, "run_local", lambda *_: tear(out, stop))
    assert "part-torn.parquet cannot be read" in said()


def fail(out: Path, stop: Any) -> Iterator[int]:
    store.write_part(out, [{"image": "failed.png", "status": store.FAILED, "error": "none"}])
    yield from stop()


def tear(out: Path, stop: Any) -> Iterator[int]:
    (out / "rows" / "part-torn.parquet").write_bytes(b"PAR1")
    yield from stop()


def test_nothing_is_kept_before_a_run_begins(of: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(store, "open_run", full)
    done = call("evaluate", *of, "--out", str(tmp_path / "run"))
    assert done.exit_code == 2 and f"no space left; nothing is in {tmp_path / 'run'} yet" in done.stderr


def test_what_a_command_needs_is_asked_for(of: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = commands.find_spec
    monkeypatch.setattr(commands, "find_spec", lambda name: None if name == "ray" else there(name))
    done = call("evaluate", *of, "--engine", "ray", "--out", str(tmp_path / "run"))
    assert done.exit_code == 2 and "needs ray; pip install 'captum-moxi[ray]'" in done.stderr


def test_labels_are_mapped_to_the_model_s(of: list[str], settings: Settings, tmp_path: Path) -> None:
    label, path = next((path.parent.name, path) for path in sorted(Path(settings.data).rglob("*.png")))
    data, table = tmp_path / "data", tmp_path / "map.json"
    for name in ("sum", "other"):
        (data / name).mkdir(parents=True)
        shutil.copy(path, data / name / "a.png")
    options = [*of[:2], "--data", str(data), *of[4:], "--label-map", str(table), "--out", str(tmp_path / "run")]
    table.write_text(json.dumps({"sum": int(label)}))
    done = call("evaluate", *options)
    assert done.exit_code == 0 and "1 images in" in done.stdout and "1 explained" in done.stdout
    assert store.read_settings(tmp_path / "run")["label_map"] == {"sum": label}
    for text, said in (
        ('{"sum": "lion"}', "label_map gives 'lion' for 'sum', which is none of the model's"),
        ("{", "is no JSON"),
        ("[1]", "is no object of names"),
        ('{"a": []}', "is no object of names"),
    ):
        table.write_text(text)
        refused = call("evaluate", *options)
        assert refused.exit_code == 2 and said in refused.stderr


def test_what_cannot_be(of: list[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    for arguments, said in (
        ((*of, "--methods", "magic"), "method 'magic' is unknown"),
        ((*of[:2], "--data", str(tmp_path)), "could not be read"),
        ((*of, "--removal", "magic"), "'magic' is not a removal"),
        ((*of, "--methods", "moxi,moxi"), "pass one or more, of different titles"),
    ):
        refused = call("evaluate", *arguments, *out)
        assert refused.exit_code == 2 and said in refused.stderr
    assert not (tmp_path / "run").exists()
    for arguments, said in (
        ((str(tmp_path),), "holds no run"),
        ((str(tmp_path), "--fractions", "2"), "not all numbers from 0 to 1"),
        ((str(tmp_path), "--fractions", "a"), "not all numbers from 0 to 1"),
        ((str(tmp_path), str(tmp_path)), "--out is missing"),
    ):
        refused = call("report", *arguments)
        assert refused.exit_code == 2 and said in refused.stderr
