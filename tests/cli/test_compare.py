import csv
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from captum_moxi import MoXIInsertion
from captum_moxi.demo import demo_classifier
from captum_moxi.methods import METHODS
from captum_moxi.metrics import METRICS


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "comparison.csv").open() as file:
        return list(csv.DictReader(file))


def test_pictures_and_one_row_per_image_method_and_mode(invoke, model, digits: Path, tmp_path: Path) -> None:
    (digits / "broken.png").write_text("not an image")
    out = tmp_path / "out"
    result = invoke("compare", digits, *model, "--methods", "moxi, ablation,rollout", "--n-steps", 6, "--out", out)
    assert result.exit_code == 2
    assert "broken.png: not an image that Pillow can read" in result.output
    assert "1 of 5 images were not compared" in result.output
    assert "MoXI uses GradientScreen(8) for deletion" in result.output
    assert {path.name for path in out.iterdir()} == {"insertion.png", "deletion.png", "curves.png", "comparison.csv"}
    rows = read_rows(out)
    assert len(rows) == 4 * 3 * 2
    images = sorted(digits.glob("*-*.png"))
    assert [Path(row["image"]).name for row in rows[::6]] == [image.name for image in images]
    classifier = demo_classifier("cpu")
    x = classifier.preprocess([Image.open(image) for image in images])
    with torch.no_grad():
        y = classifier.model(x).logits.argmax(1)
    to_flip = [row["players to flip"] for row in rows if row["method"] == "MoXI" and row["mode"] == "insertion"]
    for example, count in enumerate(to_flip):
        _, selection = MoXIInsertion(classifier.model).attribute(
            x[example : example + 1], target=y[example], stop="flip", n_steps=6, return_selection=True
        )
        assert count == (str(int(selection.n_steps)) if selection.flipped else "")


def test_the_table_has_the_means_of_the_rows(invoke, tmp_path: Path) -> None:
    result = invoke("compare", "--methods", "ablation", "--mode", "insertion", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    header, _, row = [line[1:-1].split("|") for line in result.output.splitlines() if line.startswith("|")]
    assert [title.strip() for title in header] == [
        "",
        "method",
        "patches (of 16) to flip, median",
        "images flipped",
        "area",
        "seconds per image",
        "rows per image",
        "weighted rows per image",
    ]
    # The whole image, and the image without each of the 16 patches.
    assert [float(cell) for cell in row[-2:]] == [17, 17]
    areas = [float(row["area"]) for row in read_rows(tmp_path)]
    assert float(row[4]) == pytest.approx(sum(areas) / 4, rel=5e-3)


def test_help_lists_and_explains_all_methods(invoke) -> None:
    listed = invoke("compare", "--help").output.rpartition("Methods:")[2]
    for entry in METHODS.entries:
        assert re.search(rf"^  {re.escape(entry.spec)} +{re.escape(entry.help)}", listed, re.MULTILINE)


def test_a_missing_package_is_reported_once(invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captum_moxi.methods.surrogate.find_spec", lambda package: None)
    result = invoke("compare", "--methods", "lime,kernel-shap", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.output.count("pip install 'captum-moxi[surrogates]'") == 1
    assert not (tmp_path / "out").exists()


def test_a_median_that_is_not_reached(invoke, tmp_path: Path, model) -> None:
    """Of two images, one flips within the two patches that are looked at."""
    result = invoke("compare", "--methods", "moxi", "--mode", "deletion", "--n-steps", 2, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    flips = [row["players to flip"] for row in read_rows(tmp_path)]
    row = next(line[1:-1].split("|") for line in result.output.splitlines() if line.startswith("| deletion"))
    reached = sum(flip != "" for flip in flips)
    assert int(row[3]) == reached
    assert (row[2].strip() == "> 2") == (reached <= len(flips) / 2)


@pytest.mark.parametrize("metric", list(METRICS))
def test_every_metric_can_be_a_column(invoke, tmp_path: Path, metric: str) -> None:
    options = ["--methods", "random", "--n-steps", 2, "--mode", "deletion", "--out", tmp_path]
    result = invoke("compare", "--metrics", metric, *options)
    assert result.exit_code == 0, result.output
    assert METRICS.create(metric).title in read_rows(tmp_path)[0]


def test_one_mode_a_grid_and_a_target(invoke, tmp_path: Path) -> None:
    result = invoke(
        *("compare", "--out", tmp_path, "--mode", "deletion", "--grid", 2, "--target", "13", "--screen", "all"),
        *("--methods", "shapley-exact", "--removal", "zero", "--reward", "logit"),
    )
    assert result.exit_code == 0, result.output
    assert "4 images; curves up to 4 of 4 patches (100%); results in" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"deletion.png", "curves.png", "comparison.csv"}
    assert {row["target"] for row in read_rows(tmp_path)} == {"13"}


def test_the_default_screen_may_be_unused(invoke, tmp_path: Path) -> None:
    for options in (["--methods", "random"], ["--methods", "moxi", "--mode", "insertion"]):
        result = invoke("compare", *options, "--n-steps", 2, "--out", tmp_path)
        assert result.exit_code == 0, result.output
        assert "GradientScreen" not in result.output


def test_a_random_order_depends_on_the_name_of_the_image(invoke, model, digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "same"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy(digits / "1-2-4-4.png", folder / name)
    areas: list[str] = []
    for images in ([folder / "a.png", folder / "b.png", folder / "c.png"], [folder / "b.png"]):
        options = ["--methods", "random", "--mode", "deletion", "--out", tmp_path / "out"]
        assert invoke("compare", *images, *model, *options).exit_code == 0
        areas += [row["area"] for row in read_rows(tmp_path / "out")]
    # the orders of one picture under three names differ, and the same name gives the same order
    assert len(set(areas)) == 3 and areas[3] == areas[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "moxi,magic"], "method 'magic' is unknown; pass one of moxi, "),
        (["--methods", "moxi,moxi"], "methods with different titles"),
        (["--methods", "shapley-exact"], "16 players"),
        (["--metrics", "beauty"], "metric 'beauty' is unknown; pass one of "),
        (["--reward", "profit"], "reward 'profit' is unknown"),
        (["--grid", "3"], "one of 1, 2, 4"),
        (["--methods", "gradcam", "--screen", "gradient:8"], "add moxi, or pass another screen, or --screen all"),
        (["--mode", "insertion", "--screen", "gradient:8"], "pass --mode deletion, another screen, or --screen all"),
        (["picture.png"], "--model is missing"),
    ],
)
def test_an_invalid_option_is_explained(invoke, tmp_path: Path, options: list[str], message: str) -> None:
    result = invoke("compare", *options, "--out", tmp_path)
    assert result.exit_code == 2
    assert message in result.output
    assert not list(tmp_path.iterdir())


def test_a_model_needs_images_that_can_be_read(invoke, model, tmp_path: Path) -> None:
    result = invoke("compare", *model, "--out", tmp_path)
    assert result.exit_code == 2 and "IMAGE is missing" in result.output
    result = invoke("compare", *model, "nowhere.png", "--out", tmp_path)
    assert result.exit_code == 2 and "1 of 1 images were not compared" in result.output
    assert not list(tmp_path.iterdir())


def test_a_page_is_written_for_each_image(invoke, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    assert invoke("compare", "--html", "--methods", "random", "--n-steps", 2, "--out", tmp_path).exit_code == 0
    assert len(list(tmp_path.glob("*.html"))) == 4


def test_replays_have_a_table_and_a_figure(invoke, tmp_path: Path) -> None:
    options = ["--methods", "random", "--n-steps", 2, "--replay-removals", "zero,blur"]
    result = invoke("compare", *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if line.startswith(("| zero", "| blur"))]
    # Two of 16 patches give no SRG.
    assert len(rows) == 2 and "area difference" in result.output and "| SRG" not in result.output
    assert {"replays.png", "replays.csv"} <= {path.name for path in tmp_path.iterdir()}
