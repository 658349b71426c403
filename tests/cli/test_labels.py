"""True labels of images on the command line."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from captum_moxi.cli.labels import label_sources
from captum_moxi.cli.runner import SourceImage, demo_sources, file_sources

CLASSES = ["tiger cat", "tabby, tabby cat", "lynx, catamount"]


def sources(names: Sequence[str], labels: Sequence[str | None] | None = None) -> list[SourceImage]:
    return [
        SourceImage(f"folder/{name}", name, lambda: None, name, label)
        for name, label in zip(names, labels or [None] * len(names), strict=True)
    ]


def labels(sources: Sequence[SourceImage]) -> list[str | None]:
    return [source.label for source in sources]


def test_a_pattern_finds_the_class_by_name_synonym_or_index_and_keeps_other_labels() -> None:
    images = sources(["tabby cat-1.png", "2-b.png", "tiger_cat-x.png", "puma-3.png"])
    labelled = label_sources(images, CLASSES, pattern="^(.*)-", label_map=None)
    assert labels(labelled) == ["tabby, tabby cat", "lynx, catamount", "tiger cat", "puma"]


def test_the_names_of_class_folders_are_labels_only_if_they_are_classes(tmp_path: Path) -> None:
    for name in ("lynx/a.png", "tabby_cat/b.png", "train/c.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    images = file_sources([str(tmp_path), str(tmp_path / "lynx"), str(tmp_path / "lynx" / "a.png")])
    assert [source.path_in_folder for source in images] == ["lynx/a.png", "tabby_cat/b.png", "train/c.png"] + [
        "a.png"
    ] * 2
    labelled = label_sources(images, CLASSES, pattern=None, label_map=None)
    assert labels(labelled) == ["lynx, catamount", "tabby, tabby cat", None, None, None]
    assert [source.stem for source in labelled] == [source.stem for source in images]


def test_a_map_replaces_labels_and_leaves_out_others() -> None:
    images = sources(["a.png", "b.png", "c.png"], ["wild", "tame", None])
    assert labels(label_sources(images, CLASSES, pattern=None, label_map={"wild": "2"})) == [
        "lynx, catamount",
        None,
        None,
    ]
    by_letter = label_sources(images, CLASSES, pattern="^(.)", label_map={"a": "tabby", "c": "lynx"})
    assert labels(by_letter) == ["tabby, tabby cat", None, "lynx, catamount"]


@pytest.mark.parametrize(
    ("names", "given", "label_map", "message"),
    [
        (["a.png"], [None], {"a": "lynx"}, "the images have no labels for label_map"),
        (["a.png"], ["x"], {"a": "lynx"}, "label_map has none of the images' labels, for example 'x'"),
        (["a.png"], ["x"], {"x": "dog"}, "label_map maps no label to a class of the model, such as 'tiger cat'"),
    ],
)
def test_a_map_that_fits_no_image_is_rejected(
    names: list[str], given: list[str | None], label_map: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        label_sources(sources(names, given), CLASSES, pattern=None, label_map=label_map)


@pytest.mark.parametrize("pattern", ["(", "no-group", "^(z)"])
def test_a_pattern_that_finds_no_label_is_rejected(pattern: str) -> None:
    with pytest.raises(ValueError, match="label_pattern"):
        label_sources(sources(["a.png"]), CLASSES, pattern=pattern, label_map=None)


def test_embedded_images_have_labels() -> None:
    assert labels(demo_sources()) == ["13", "16", "7", "12"]


def test_the_true_label_is_printed_and_saved(invoke, model, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps({"1": "7", "6": "13"}))
    options = [*model, "--grid", 2, "--n-steps", 1, "--label-pattern", r"^(\d)", "--label-map", tmp_path / "map.json"]
    result = invoke("explain", digits, *options, "--mode", "insertion", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert ["true label: class 7" in line for line in lines] == [True, False, False, False]
    assert ["true label: class 13" in line for line in lines] == [False, False, True, False]
    assert json.loads((tmp_path / "1-2-4-4.json").read_text())["true_label"] == "7"
    result = invoke("localize", digits / "1-2-4-4.png", *options, "--target", 7, "--out", tmp_path)
    assert "true label: class 7; class 7 is predicted" in result.output
    result = invoke("compare", digits, *options, "--methods", "random", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    with (tmp_path / "comparison.csv").open() as file:
        assert [row["true label"] for row in csv.DictReader(file)][::2] == ["7", "", "13", ""]


def test_class_folders_are_explained(invoke, model, digits: Path, tmp_path: Path) -> None:
    for label, name in (("7", "1-2-4-4.png"), ("13", "6-4-6-3.png")):
        (tmp_path / "classes" / label).mkdir(parents=True)
        shutil.copy(digits / name, tmp_path / "classes" / label)
    result = invoke("explain", tmp_path / "classes", *model, "--grid", 2, "--n-steps", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert ["true label: class 7" in line for line in result.output.splitlines()] == [False, True]
