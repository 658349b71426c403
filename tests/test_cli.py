import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from captum_moxi import (
    AttentionRemoval,
    BaselineRemoval,
    MoXIDeletion,
    MoXIInsertion,
    MoXILocalization,
    Selection,
    TokenRemoval,
    patch_mask,
)
from captum_moxi.cli import main
from captum_moxi.demo import FOLDER, demo_classifier, demo_images

MODEL = ["--model", str(FOLDER / "model")]


def run(*args: object) -> Result:
    result = CliRunner().invoke(main, ["explain", *map(str, args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    shutil.copytree(FOLDER / "images", folder)
    (folder / "labels.json").unlink()
    return folder


def test_no_argument_explains_the_embedded_images(tmp_path: Path) -> None:
    result = run("--out", tmp_path)
    assert result.exit_code == 0
    for name, _, label in demo_images():
        report = json.loads((tmp_path / f"{Path(name).stem}.json").read_text())
        assert report["target"]["label"] == label
        assert report["settings"]["grid"] == 2
        assert set(report["versions"]) == {"python", "captum-moxi", "torch", "captum", "transformers"}
        with Image.open(tmp_path / f"{Path(name).stem}.png") as picture:
            assert picture.width > 1000
        # the sum needs each distinct digit once: of the two that are equal, one is left out
        digits = Path(name).stem.split("-")
        chosen = [digits[player] for player in report["insertion"]["order"][0]]
        assert sorted(chosen) == sorted(set(digits))


@pytest.mark.parametrize(
    ("options", "arguments", "call"),
    [
        ([], {}, {"stop": "flip"}),
        (["--stop", "never"], {}, {}),
        (
            ["--grid", 2, "--min-confidence", 0.9],
            {},
            {"stop": "flip", "min_confidence": 0.9, "feature_mask": patch_mask(56, grid=2)},
        ),
        (["--no-interactions", "--n-steps", 5], {"interactions": False}, {"stop": "flip", "n_steps": 5}),
        (["--reward", "probability"], {"reward": "probability"}, {"stop": "flip"}),
    ],
)
def test_options_are_those_of_the_classes(
    tmp_path: Path, digits: Path, options: list, arguments: dict, call: dict
) -> None:
    image = digits / "6-4-6-3.png"
    result = run(image, *MODEL, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "6-4-6-3.json").read_text())
    classifier = demo_classifier("cpu")
    x = classifier.preprocess(Image.open(image))
    for method in (MoXIInsertion, MoXIDeletion):
        _, expected = method(classifier.model, **arguments).attribute(x, target=13, return_selection=True, **call)
        assert Selection.from_dict(report[expected.mode]).order.tolist() == expected.order.tolist()


REMOVALS = {
    "token": TokenRemoval(),
    "attention": AttentionRemoval(0),
    "attention:3": AttentionRemoval(3),
    "zero": BaselineRemoval(),
    "mean": BaselineRemoval("mean"),
    "blur": BaselineRemoval("blur"),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_every_removal_is_the_classes(tmp_path: Path, digits: Path, removal: str) -> None:
    options = ["--removal", removal, "--n-steps", 4, "--stop", "never", "--mode", "insertion", "--out", tmp_path]
    result = run(digits / "1-2-4-4.png", *MODEL, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "1-2-4-4.json").read_text())
    classifier = demo_classifier("cpu")
    x = classifier.preprocess(Image.open(digits / "1-2-4-4.png"))
    _, expected = MoXIInsertion(classifier.model, removal=REMOVALS[removal]).attribute(
        x, target=7, n_steps=4, feature_mask=patch_mask(56, 14), return_selection=True
    )
    got = Selection.from_dict(report["insertion"])
    assert got.order.tolist() == expected.order.tolist()
    assert got.rewards[0].tolist() == pytest.approx(expected.rewards[0].tolist(), abs=1e-4)
    assert "deletion" not in report
    assert len(report["patches"]) == 16
    assert report["patches"]["5"] == [14, 14, 28, 28]


def test_a_contrast_is_the_difference_of_two_logits(tmp_path: Path, digits: Path) -> None:
    result = run(digits / "1-2-4-4.png", *MODEL, "--reward", "contrast:12", "--n-steps", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "1-2-4-4.json").read_text())
    classifier = demo_classifier("cpu")
    logits = classifier.model(classifier.preprocess(Image.open(digits / "1-2-4-4.png"))).logits[0]
    assert report["deletion"]["rewards"][0][0] == pytest.approx((logits[7] - logits[12]).item(), abs=1e-4)


@pytest.mark.parametrize("bias", [-9.0, 9.0])
def test_a_single_logit_is_reported_as_what_it_is(tmp_path: Path, digits: Path, bias: float) -> None:
    classifier = demo_classifier("cpu")
    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=56)
    config.patch_size, config.id2label = 14, {0: "even"}
    model = ViTForImageClassification(config).eval()
    torch.nn.init.constant_(model.classifier.bias, bias)
    model.save_pretrained(tmp_path / "single")
    classifier.processor.save_pretrained(tmp_path / "single")
    image = digits / "1-2-4-4.png"
    result = run(image, "--model", tmp_path / "single", "--n-steps", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "1-2-4-4.json").read_text())
    logit = model(classifier.preprocess(Image.open(image))).logits.item()
    assert report["target"]["confidence"] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
    assert report["predicted"]["label"] == ("even" if bias > 0 else None)
    assert ("the logit is below 0, so that there is nothing to delete" in result.output) == (bias < 0)
    assert "localize" not in result.output


def test_photographs_are_held_upright(tmp_path: Path, digits: Path) -> None:
    with Image.open(digits / "6-4-6-3.png") as upright:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned a quarter clockwise
        upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    run(tmp_path / "turned.png", *MODEL, "--mode", "insertion", "--out", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "turned.json").read_text())
    assert report["target"]["label"] == "13"


def test_a_folder_and_a_target_by_name(tmp_path: Path, digits: Path) -> None:
    result = run(
        digits, *MODEL, "--target", "7", "--mode", "deletion", "--reward", "contrast:12", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    reports = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*.json"))]
    assert len(reports) == 4
    assert {report["target"]["index"] for report in reports} == {7}
    # one of them is a 7; of the others the printed line says where to look, and no warning does
    assert result.output.count("is predicted; captum-moxi localize shows where it is; ") == 3
    assert "MoXILocalization" not in result.output


def test_images_of_one_name_keep_apart(tmp_path: Path, digits: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(digits, again)
    image = "6-4-6-3.png"
    run(digits / image, again / image, *MODEL, "--out", tmp_path / "out", "--n-steps", 1)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["6-4-6-3-2.png", "6-4-6-3.png"]


def test_images_that_cannot_be_read_are_told_and_the_others_done(tmp_path: Path, digits: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "truncated.jpg")
    whole = (tmp_path / "truncated.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    bad = [tmp_path / name for name in ("missing.png", "text.png", "truncated.jpg", "empty", "bomb.png")]
    result = run(*bad, digits / "6-4-6-3.png", *MODEL, "--out", tmp_path / "out")
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    for path, message in zip(
        bad,
        ("no such file", "no image that Pillow can read", "truncated", "holds no image", "exceeds limit"),
        strict=True,
    ):
        told = [line for line in lines if str(path) in line]
        assert len(told) == 1
        assert message in told[0]
    assert "5 of 6 images were not explained" in lines[-1]
    assert (tmp_path / "out" / "6-4-6-3.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "99"], "31 classes, 0 to 30"),
        (["--target", "cat"], "class 'cat' is not one of the model's 31 classes"),
        (["--reward", "odds"], "--reward 'odds' is unknown; pass log_odds"),
        (
            ["--removal", "noise"],
            "'noise' is not a removal; pass token, attention:LAYER (by default 0), zero, mean or blur",
        ),
        (["--device", "cuda:99"], "--device 'cuda:99' cannot be used"),
        (["--mode", "sideways"], "sideways"),
        (["--model", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(tmp_path: Path, digits: Path, options: list[str], message: str) -> None:
    model = [] if options[0] == "--model" else MODEL
    result = run(digits / "6-4-6-3.png", *model, *options, "--out", tmp_path / "out")
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert message in lines[-1]
    # click shows its usage before what it finds wrong itself
    assert len(lines) == 1 or options[0] in ("--removal", "--mode")
    assert "Traceback" not in result.output


def test_a_mask_that_cuts_patches_is_told_of_the_image(tmp_path: Path, digits: Path) -> None:
    result = run(digits / "6-4-6-3.png", *MODEL, "--grid", 3, "--out", tmp_path)
    assert result.exit_code == 2
    said = "a grid of 3 cuts patches, of which the model has 4 x 4; pass a grid of 1, 2, 4, or the removal zero"
    assert said in result.stderr


@pytest.mark.parametrize("args", [["image.png"], MODEL])
def test_images_and_model_go_together(args: list[str]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert "demo" in result.stderr


def test_an_out_that_is_no_folder(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(digits / "6-4-6-3.png", *MODEL, "--out", tmp_path / "file" / "out")
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_no_model(tmp_path: Path, digits: Path) -> None:
    result = run(digits / "6-4-6-3.png", "--model", tmp_path)
    assert result.exit_code == 2
    assert "holds no config.json" in result.stderr


def test_logits_that_are_not_finite_fail_the_image_alone(tmp_path: Path, digits: Path) -> None:
    classifier = demo_classifier("cpu")
    with torch.no_grad():
        classifier.model.classifier.bias[0] = torch.nan
    classifier.model.save_pretrained(tmp_path / "broken")
    classifier.processor.save_pretrained(tmp_path / "broken")
    result = run(digits / "6-4-6-3.png", "--model", tmp_path / "broken", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "not finite" in result.stderr


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("all", "all"),
        ("gradient", "GradientScreen(8)"),
        ("gradient:2", "GradientScreen(2)"),
        ("last-gains:3", "LastGainsScreen(3)"),
        ("random:2", "RandomScreen(2, seed=0)"),
        ("half-precision", "HalfPrecisionScreen(torch.bfloat16)"),
    ],
)
def test_candidates_and_beam_are_used_and_recorded(tmp_path: Path, given: str, used: str) -> None:
    result = CliRunner().invoke(
        main,
        [
            "explain",
            "--candidates",
            given,
            "--beam-width",
            "2",
            "--mode",
            "deletion",
            "--stop",
            "never",
            "--out",
            str(tmp_path),
        ],
    )
    assert result.exit_code == 0, result.output
    report = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert report["settings"]["candidates"] == used
    assert report["settings"]["beam_width"] == 2
    counts = [json.loads(path.read_text())["deletion"]["n_evaluated"][0] for path in tmp_path.glob("*.json")]
    of_one = {"GradientScreen(2)": 2, "RandomScreen(2, seed=0)": 2}.get(used, 4)
    assert {count[0] for count in counts} == {of_one}
    # a second step looks from two groups, and three of the four players are left to each
    second = {"GradientScreen(2)": 4, "RandomScreen(2, seed=0)": 4}.get(used, 6)
    assert {count[1] for count in counts} == {second}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--candidates", "best"], "is not a choice of candidates; pass all, gradient:M"),
        (["--candidates", "gradient:0"], "is not a choice of candidates"),
        (["--candidates", "gradient", "--no-interactions"], "without --candidates"),
        (["--beam-width", "0"], "beam-width"),
    ],
)
def test_candidates_that_are_none_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["explain", *options, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert message in result.output


def compared(*args: object) -> Result:
    result = CliRunner().invoke(main, ["compare", *map(str, args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_compare_writes_pictures_and_a_row_an_image_method_and_mode(tmp_path: Path, digits: Path) -> None:
    (digits / "broken.png").write_text("no image")
    out = tmp_path / "out"
    result = compared(digits, *MODEL, "--methods", "moxi, ablation,rollout", "--n-steps", 6, "--out", out)
    assert result.exit_code == 2
    assert "broken.png: this is no image that Pillow can read" in result.output
    assert "1 of 5 images were not compared" in result.output
    assert "MoXI's deletion by GradientScreen(8)" in result.output
    assert {path.name for path in out.iterdir()} == {"insertion.png", "deletion.png", "curves.png", "comparison.csv"}
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3 * 2
    images = sorted(digits.glob("*-*.png"))
    classifier = demo_classifier("cpu")
    x = classifier.preprocess([Image.open(image) for image in images])
    with torch.no_grad():
        y = classifier.model(x).logits.argmax(1)
    found = [
        row["players to flip"] for row in rows if row["method"] == "MoXI" and row["mode"] == "insertion"
    ]  # the images are in the order of their names
    for example, flip in enumerate(found):
        _, selection = MoXIInsertion(classifier.model).attribute(
            x[example : example + 1], target=y[example], stop="flip", n_steps=6, return_selection=True
        )
        assert flip == (str(int(selection.n_steps)) if selection.flipped else "")
    assert [Path(row["image"]).name for row in rows[::6]] == [image.name for image in images]


def test_compare_of_one_mode_grid_and_target(tmp_path: Path) -> None:
    result = compared(
        *("--out", tmp_path, "--mode", "deletion", "--grid", 2, "--target", "13", "--candidates", "all"),
        *("--methods", "shapley-exact", "--removal", "zero", "--reward", "logit"),
    )
    assert result.exit_code == 0, result.output
    assert "4 images, 4 players, curves to 4 of them; see" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"deletion.png", "curves.png", "comparison.csv"}
    with (tmp_path / "comparison.csv").open() as file:
        assert {row["target"] for row in csv.DictReader(file)} == {"13"}


def test_compare_draws_a_random_order_by_the_name_of_an_image(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "same"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy(next(digits.glob("*-*.png")), folder / name)
    found = []
    for images in ([folder / "a.png", folder / "b.png", folder / "c.png"], [folder / "b.png"]):
        options = ["--methods", "random", "--mode", "deletion", "--out", str(tmp_path / "out")]
        assert CliRunner().invoke(main, ["compare", *map(str, images), *MODEL, *options]).exit_code == 0
        with (tmp_path / "out" / "comparison.csv").open() as file:
            found += list(csv.DictReader(file))
    areas = [row["area"] for row in found]
    # the same picture by another name is taken apart otherwise, and by its own in the same way
    assert len(set(areas)) == 3 and areas[3] == areas[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--methods", "moxi,magic"], "method 'magic' is unknown; pass one of moxi, "),
        (["--methods", "shapley-exact"], "exact Shapley values take all orders of 16 players"),
        (["--reward", "profit"], "--reward 'profit' is unknown"),
        (["--grid", "3"], "a grid of 3 cuts patches"),
        (["picture.png"], "images were given without --model"),
        (MODEL, "--model was given without an image"),
        ([*MODEL, "nowhere.png"], "none of 1 images could be compared"),
    ],
)
def test_compare_says_what_is_wrong(tmp_path: Path, options: list[str], said: str) -> None:
    result = compared(*options, "--out", tmp_path)
    assert result.exit_code == 2
    assert said in result.output
    assert not list(tmp_path.iterdir())


def test_localize_finds_the_two_most_likely_classes(digits: Path, tmp_path: Path) -> None:
    (digits / "broken.png").write_text("no picture")
    arguments = ["localize", str(digits), *MODEL, "--grid", "4", "--candidates", "all", "--device", "cpu"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "1 of 5 images were not explained" in result.stderr
    assert len(list((tmp_path / "out").glob("*-classes.png"))) == 4
    classifier = demo_classifier("cpu")
    x = classifier.preprocess(demo_images()[0][1])
    with torch.no_grad():
        first, second = classifier.model(x).logits[0].topk(2).indices.tolist()
    _, (gone, held) = MoXILocalization(classifier.model).attribute(
        x, target=second, feature_mask=patch_mask(56, grid=4), return_selection=True
    )
    written = json.loads((tmp_path / "out" / f"{Path(demo_images()[0][0]).stem}-classes.json").read_text())
    assert [one["index"] for one in written["classes"]] == [first, second]
    assert written["settings"] | {"removal": ""} == {
        "n_steps": None,
        "grid": 4,
        "removal": "",
        "candidates": "all",
        "device": "cpu",
    }
    assert written["classes"][1]["gone"] == gone.to_dict() and written["classes"][1]["held"] == held.to_dict()
    (line,) = [line for line in result.output.splitlines() if line.startswith(str(digits / demo_images()[0][0]))]
    assert f"{first} is predicted as the image is, and lost without" in line
    steps = f"{int(gone.n_steps[0])} patches taken away, and lost without {int(held.n_steps[0])} more"
    assert f"{second} is predicted with {steps}" in line or not (gone.flipped[0] and held.flipped[0])


def test_localize_refuses_a_class_that_is_none(digits: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["localize", str(digits), *MODEL, "--target", "tench", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "class 'tench' is not one of the model's 31 classes" in result.stderr
