"""File names and class names that are not plain words: dollar signs, bytes that are not UTF-8, HTML and tables."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import matplotlib
import pytest

from captum_moxi.demo import FOLDER

# Invalid mathtext between dollar signs, a cell border of Markdown, and a tag.
LABEL = r"$\frac{$ | <b>sum</b>"
NAMES = [b"$x^{$.png", b"not-utf-8-\xff.png", b"plain.png"]


@pytest.fixture
def named_model(tmp_path: Path) -> list[str]:
    """Options that select a copy of the embedded model, in which all classes have unusual names."""
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {index: f"{LABEL} {index}" for index in config["id2label"]}
    config["label2id"] = {label: int(index) for index, label in config["id2label"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    return ["--model", str(folder), "--grid", "2", "--device", "cpu"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with three images with unusual names, and one that cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir()
    source = next((FOLDER / "images").glob("*.png"))
    for name in NAMES:
        try:
            shutil.copy(source, os.fsencode(folder) + b"/" + name)
        except OSError:
            pytest.skip("the file system accepts only UTF-8")
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="all file names of Windows are Unicode")
@pytest.mark.parametrize("command", ["explain", "localize", "compare"])
def test_unusual_names_are_plain_text_in_all_results(
    invoke, named_model, images: Path, tmp_path: Path, command
) -> None:
    out = tmp_path / "out"
    options = {"explain": ["--html"], "localize": [], "compare": ["--html", "--methods", "moxi,random"]}[command]
    result = invoke(command, images, *named_model, *options, "--out", out)
    assert result.exit_code == 0, result.output
    assert "�" in result.output + result.stderr
    pages, figures, data = (list(out.glob(f"*.{suffix}")) for suffix in ("html", "png", "json"))
    assert figures and (pages or command == "localize") and (data or command == "compare")
    for page in pages:
        assert "<b>sum" not in page.read_text(encoding="utf-8").replace("\\u003cb", "")
    names = {json.loads(file.read_text(encoding="utf-8"))["image"] for file in data}
    if command == "compare":
        with (out / "comparison.csv").open(encoding="utf-8", newline="") as file:
            names = {row["image"] for row in csv.DictReader(file)}
    assert {Path(name).name for name in names} == {"$x^{$.png", "not-utf-8-�.png", "plain.png"}
    # Figures of users are not affected.
    assert matplotlib.rcParams["text.parse_math"]


@pytest.mark.skipif(sys.platform == "win32", reason="all file names of Windows are Unicode")
def test_a_run_leaves_out_images_whose_names_are_not_utf_8(invoke, named_model, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    pytest.importorskip("pandas")
    run, report = tmp_path / "$run^{$", tmp_path / "report"
    options = ["--data", images, "--keep", "all", "--methods", "random", "--stop", "never", "--out", run]
    result = invoke("evaluate", *named_model, *options)
    assert result.exit_code == 0, result.output
    assert "2 images in" in result.stdout and "2 explained" in result.stdout
    assert "1 of 3 images" in result.stderr and "rename them, for example" in result.stderr
    result = invoke("report", run, "--gallery", 3, "--resamples", 10, "--out", report)
    assert result.exit_code == 0, result.output
    assert (report / "curves.png").exists()
