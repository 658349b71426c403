"""Damaged runs, edited settings, full disks and images with transparency, as users of the command line see them."""

import csv
import errno
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("datasets")
pytest.importorskip("pandas")


@pytest.fixture
def evaluate(invoke, model, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Starts or continues the run ``run`` on the four embedded images."""
    monkeypatch.chdir(tmp_path)
    options = ["--keep", "all", "--grid", 2, "--device", "cpu", "--stop", "never", "--batch-size", 2]
    return lambda: invoke("evaluate", *model, "--data", digits, *options, "--out", "run")


def parts() -> list[Path]:
    return sorted(Path("run/rows").glob("*.parquet"))


def results(invoke) -> str:
    """The report without the seconds."""
    result = invoke("report", "run", "--resamples", 50)
    assert result.exit_code == 0, result.output
    return re.sub(r"\| [\d.e-]+ \| [\d,]+ \|$", "", result.stdout, flags=re.MULTILINE)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_reported_and_repaired(invoke, evaluate, damage: str) -> None:
    assert evaluate().exit_code == 0
    expected, (part, intact) = results(invoke), parts()
    contents = part.read_bytes()
    if damage == "delete":
        part.unlink()
        assert "2 images, 2 explained. 2 more have no rows; repeat the command" in results(invoke)
    else:
        half = len(contents) // 2
        changed = bytes([contents[half] ^ 4]) + contents[half + 1 :] if damage == "flip" else b""
        part.write_bytes(contents[:half] + changed)
        result = invoke("report", "run")
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert part.name in line and intact.name not in line and "repeat the command that wrote the run" in line
    result = evaluate()
    assert result.exit_code == 0 and "4 explained" in result.stdout
    assert (f"warning: {part} is damaged" in result.stderr) == (damage != "delete")
    assert results(invoke) == expected


def test_a_copied_part_changes_no_result(invoke, evaluate) -> None:
    assert evaluate().exit_code == 0
    expected = results(invoke)
    for number, part in enumerate(parts()):
        part.with_name(f"part-{number}.parquet").write_bytes(part.read_bytes())
    assert results(invoke) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "it is [], not an object with settings"),
        ("null", "it is null, not an object"),
        ("{}", "settings is null"),
        ('{"settings": {}}', "the setting model is missing"),
        ('{"settings": {"model": "m", "data": "d", "reward": null}}', "reward is None"),
        ('{"settings": {"model": "m", "data": "d", "n_steps": NaN}}', "n_steps is nan"),
        ('{"settings": {"model": "m", "data": "d", "methods": 3}}', "methods is 3"),
    ],
)
def test_edited_settings_are_reported_in_one_line(
    invoke, evaluate, model, digits: Path, text: str, message: str
) -> None:
    Path("run/rows").mkdir(parents=True)
    Path("run/manifest.json").write_text(text)
    for command, *options in (["report"], ["corrupt", "--out", "out"], ["attack", "--out", "out"]):
        result = invoke(command, "run", *options)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert "run/manifest.json is damaged or was edited" in line and message in line.replace("--n-steps", "n_steps")
    result = evaluate()
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "run/manifest.json is damaged" in line or "holds a run with other settings" in line


def test_an_edited_setting_is_noticed(invoke, evaluate) -> None:
    assert evaluate().exit_code == 0
    manifest = json.loads(Path("run/manifest.json").read_text())
    manifest["settings"]["stop"] = "flip"
    Path("run/manifest.json").write_text(json.dumps(manifest))
    for result in (invoke("report", "run"), evaluate()):
        assert result.exit_code == 2
        assert "manifest.json is damaged or was edited (it does not match its checksum" in result.stderr


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_stops_evaluate_and_keeps_finished_parts(evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def fill_after_the_first_part(source: str | Path, target: str | Path) -> None:
        if str(target).endswith(".parquet") and parts():
            disk_full()
        replace(source, target)

    with monkeypatch.context() as small_disk:
        small_disk.setattr(os, "replace", fill_after_the_first_part)
        result = evaluate()
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "No space left on device: 'run/rows/part-" in line
    assert "2 images are finished and stored in run; repeat the same command to continue" in line
    assert len(parts()) == 1
    assert "4 images in run: 4 explained" in evaluate().stdout


def test_a_full_disk_stops_compare_and_keeps_complete_rows(
    invoke, model, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows, calls = csv.DictWriter.writerows, []

    def fill_in_the_second_image(writer, rows) -> None:
        calls.append(rows)
        write_rows(writer, rows[:1] if len(calls) == 2 else rows)
        if len(calls) == 2:
            disk_full()

    monkeypatch.setattr(csv.DictWriter, "writerows", fill_in_the_second_image)
    options = ["--methods", "random", "--grid", 2, "--device", "cpu", "--out", tmp_path / "out"]
    result = invoke("compare", digits, *model, *options)
    assert result.exit_code == 2 and len(calls) == 2
    errors = [line for line in result.stderr.splitlines() if "compared" not in line]
    assert len(errors) == 1 and "No space left on device; free disk space and repeat the command" in errors[0]
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mode"] for row in rows] == ["insertion", "deletion"]


def test_transparency_is_reported_once_for_each_image(invoke, model, digits: Path, tmp_path: Path) -> None:
    paths = sorted(digits.glob("*.png"))
    for path in paths[:2]:
        image = Image.open(path).convert("RGBA")
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save(path)
    result = invoke("explain", digits, *model, "--grid", 2, "--device", "cpu", "--out", tmp_path / "out")
    assert result.exit_code == 0
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    advice = "has transparent pixels, which are put on white; pass an opaque image for another background"
    assert warnings == [f"warning: {path} {advice}" for path in paths[:2]]
