import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from captum_moxi import (
    AttentionRemoval,
    BaselineRemoval,
    MoXIDeletion,
    MoXIInsertion,
    MoXISymmetric,
    Selection,
    TokenRemoval,
    patch_mask,
)
from captum_moxi.cli import runner
from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.registry import Entry
from captum_moxi.removal import REMOVALS
from captum_moxi.rewards import REWARDS
from captum_moxi.search.screens import SCREENS


def test_without_arguments_the_embedded_images_are_explained(invoke, tmp_path: Path) -> None:
    result = invoke("explain", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    for name, _, label in demo_images():
        report = json.loads((tmp_path / f"{Path(name).stem}.json").read_text())
        assert report["model"] == "embedded demo"
        assert report["target"]["label"] == label
        assert report["settings"]["grid"] == 2
        assert set(report["versions"]) == {"python", "captum-moxi", "torch", "captum", "transformers"}
        with Image.open(tmp_path / f"{Path(name).stem}.png") as figure:
            assert figure.width > 1000
        # the sum needs each distinct digit once, so one of the two equal digits is left out
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
def test_options_have_the_same_effect_as_arguments(
    invoke, model, digits: Path, tmp_path: Path, options: list, arguments: dict, call: dict
) -> None:
    image = digits / "6-4-6-3.png"
    result = invoke("explain", image, *model, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "6-4-6-3.json").read_text())
    classifier = demo_classifier("cpu")
    x = classifier.preprocess(Image.open(image))
    for method in (MoXIInsertion, MoXIDeletion):
        _, expected = method(classifier.model, **arguments).attribute(x, target=13, return_selection=True, **call)
        assert Selection.from_dict(report[expected.mode]).order.tolist() == expected.order.tolist()


# every registered removal that needs no argument, and the ones that the paper uses, by their classes
EXPECTED_REMOVALS = {
    "token": TokenRemoval(),
    "attention": AttentionRemoval(0),
    "attention:3": AttentionRemoval(3),
    "zero": BaselineRemoval(),
    "mean": BaselineRemoval("mean"),
    "blur": BaselineRemoval("blur"),
}


@pytest.mark.parametrize("removal", [*REMOVALS, "attention:3"])
def test_every_removal_is_the_one_of_its_class(invoke, model, digits: Path, tmp_path: Path, removal: str) -> None:
    options = ["--removal", removal, "--n-steps", 4, "--stop", "never", "--mode", "insertion", "--out", tmp_path]
    result = invoke("explain", digits / "1-2-4-4.png", *model, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "1-2-4-4.json").read_text())
    classifier = demo_classifier("cpu")
    x = classifier.preprocess(Image.open(digits / "1-2-4-4.png"))
    method = MoXIInsertion(classifier.model, removal=EXPECTED_REMOVALS.get(removal) or REMOVALS.create(removal))
    _, expected = method.attribute(x, target=7, n_steps=4, feature_mask=patch_mask(56, 14), return_selection=True)
    selection = Selection.from_dict(report["insertion"])
    assert selection.order.tolist() == expected.order.tolist()
    assert selection.rewards[0].tolist() == pytest.approx(expected.rewards[0].tolist(), abs=1e-4)
    assert "deletion" not in report
    assert len(report["patches"]) == 16
    assert report["patches"]["5"] == [14, 14, 28, 28]


@pytest.mark.parametrize("entry", REWARDS.entries, ids=lambda entry: entry.name)
def test_every_reward_is_used_and_recorded(invoke, model, digits: Path, tmp_path: Path, entry: Entry) -> None:
    reward = f"{entry.name}:0" if entry.argument == "CLASS" else entry.name
    options = ["--reward", reward, "--n-steps", 1, "--mode", "deletion", "--out", tmp_path]
    result = invoke("explain", digits / "1-2-4-4.png", *model, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "1-2-4-4.json").read_text())
    assert report["settings"]["reward"] == reward
    classifier = demo_classifier("cpu")
    with torch.no_grad():
        logits = classifier.model(classifier.preprocess(Image.open(digits / "1-2-4-4.png"))).logits
    expected = float(REWARDS.create(reward)(logits, torch.tensor([7])))
    assert report["deletion"]["rewards"][0][0] == pytest.approx(expected, abs=1e-4)


def test_a_contrast_is_the_difference_of_two_logits(invoke, model, digits: Path, tmp_path: Path) -> None:
    result = invoke(
        "explain", digits / "1-2-4-4.png", *model, "--reward", "contrast:12", "--n-steps", 1, "--out", tmp_path
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "1-2-4-4.json").read_text())
    classifier = demo_classifier("cpu")
    logits = classifier.model(classifier.preprocess(Image.open(digits / "1-2-4-4.png"))).logits[0]
    assert report["deletion"]["rewards"][0][0] == pytest.approx((logits[7] - logits[12]).item(), abs=1e-4)


def test_the_class_of_a_contrast_can_be_a_name(invoke, model, digits: Path, tmp_path: Path) -> None:
    classifier = demo_classifier("cpu")
    classifier.model.config.id2label = {i: f"sum of {i}" for i in range(31)}
    classifier.model.config.label2id = {f"sum of {i}": i for i in range(31)}
    classifier.model.save_pretrained(tmp_path / "named")
    classifier.processor.save_pretrained(tmp_path / "named")
    options = ["--n-steps", 1, "--mode", "deletion", "--out"]
    image = digits / "1-2-4-4.png"
    by_index = invoke("explain", image, *model, "--reward", "contrast:12", *options, tmp_path / "index")
    by_name = invoke(
        "explain", image, "--model", tmp_path / "named", "--reward", "contrast:sum of 12", *options, tmp_path / "name"
    )
    assert by_index.exit_code == by_name.exit_code == 0, by_name.output
    reports = [json.loads((tmp_path / name / "1-2-4-4.json").read_text()) for name in ("index", "name")]
    assert reports[0]["deletion"] == reports[1]["deletion"]


@pytest.mark.parametrize("bias", [-9.0, 9.0])
def test_a_single_logit_is_reported_with_its_sign(invoke, digits: Path, tmp_path: Path, bias: float) -> None:
    classifier = demo_classifier("cpu")
    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=56)
    config.patch_size, config.id2label = 14, {0: "even"}
    single = ViTForImageClassification(config).eval()
    torch.nn.init.constant_(single.classifier.bias, bias)
    single.save_pretrained(tmp_path / "single")
    classifier.processor.save_pretrained(tmp_path / "single")
    image = digits / "1-2-4-4.png"
    result = invoke("explain", image, "--model", tmp_path / "single", "--n-steps", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "1-2-4-4.json").read_text())
    logit = single(classifier.preprocess(Image.open(image))).logits.item()
    assert report["target"]["confidence"] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
    assert report["predicted"]["label"] == ("even" if bias > 0 else None)
    assert ("deletion: nothing to delete, because the logit is below 0" in result.output) == (bias < 0)
    assert "localize" not in result.output


def test_photographs_are_shown_upright(invoke, model, digits: Path, tmp_path: Path) -> None:
    with Image.open(digits / "6-4-6-3.png") as upright:
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees clockwise
        upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    invoke("explain", tmp_path / "turned.png", *model, "--mode", "insertion", "--out", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "turned.json").read_text())
    assert report["target"]["label"] == "13"


def test_a_folder_is_explained_for_a_target(invoke, model, digits: Path, tmp_path: Path) -> None:
    options = ["--target", "7", "--mode", "deletion", "--reward", "contrast:12", "--out", tmp_path / "out"]
    result = invoke("explain", digits, *model, *options)
    assert result.exit_code == 0, result.output
    reports = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*.json"))]
    assert len(reports) == 4
    assert {report["target"]["index"] for report in reports} == {7}
    # one image is a 7; for the others, the printed line says where to look, and no warning does
    assert result.output.count("captum-moxi localize finds the patches that class 7 depends on") == 3
    assert "MoXILocalization" not in result.output


def test_results_of_images_with_the_same_name_are_kept_apart(invoke, model, digits: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(digits, again)
    image = "6-4-6-3.png"
    invoke("explain", digits / image, again / image, *model, "--out", tmp_path / "out", "--n-steps", 1)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["6-4-6-3-2.png", "6-4-6-3.png"]


def test_unreadable_images_are_reported_and_the_others_explained(invoke, model, digits: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "truncated.jpg")
    complete = (tmp_path / "truncated.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(complete[: len(complete) // 2])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty").mkdir()
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    messages = {
        tmp_path / "missing.png": "no such file",
        tmp_path / "text.png": "not an image that Pillow can read",
        tmp_path / "truncated.jpg": "truncated",
        tmp_path / "empty": "contains no images",
        tmp_path / "bomb.png": "exceeds limit",
    }
    result = invoke("explain", *messages, digits / "6-4-6-3.png", *model, "--out", tmp_path / "out")
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    for path, message in messages.items():
        (line,) = [line for line in lines if str(path) in line]
        assert message in line
    assert "5 of 6 images were not explained" in lines[-1]
    assert (tmp_path / "out" / "6-4-6-3.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "99"], "the model has classes 0 to 30"),
        (["--target", "cat"], "class 'cat' is not one of the model's 31 classes"),
        (["--reward", "odds"], "reward 'odds' is unknown; pass one of log_odds"),
        (["--reward", "contrast"], "reward 'contrast' needs an argument; pass contrast:CLASS"),
        (["--reward", "contrast:cat"], "class 'cat' is not one of the model's 31 classes"),
        (["--removal", "noise"], "removal 'noise' is unknown; pass one of token, "),
        (["--device", "cuda:99"], "device 'cuda:99' is not available"),
        (["--mode", "sideways"], "sideways"),
        (["--model", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_an_invalid_option_is_explained_in_one_line(
    invoke, model, digits: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    selected = [] if options[0] == "--model" else model
    result = invoke("explain", digits / "6-4-6-3.png", *selected, *options, "--out", tmp_path / "out")
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert message in lines[-1]
    assert "Traceback" not in result.output


def test_a_grid_that_cuts_patches_is_reported_with_grids_that_do_not(
    invoke, model, digits: Path, tmp_path: Path
) -> None:
    result = invoke("explain", digits / "6-4-6-3.png", *model, "--grid", 3, "--out", tmp_path)
    assert result.exit_code == 2
    assert "one of 1, 2, 4" in result.stderr


def test_images_need_a_model_and_a_model_needs_images(invoke, model) -> None:
    for arguments in (["image.png"], model):
        result = invoke("explain", *arguments)
        assert result.exit_code == 2
        assert "embedded demo" in result.stderr


def test_out_must_be_a_folder(invoke, model, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("explain", digits / "6-4-6-3.png", *model, "--out", tmp_path / "file" / "out")
    assert result.exit_code == 2
    assert "--out" in result.stderr.splitlines()[-1] or "Not a directory" in result.stderr.splitlines()[-1]


def test_a_folder_without_a_model_is_reported(invoke, digits: Path, tmp_path: Path) -> None:
    result = invoke("explain", digits / "6-4-6-3.png", "--model", tmp_path)
    assert result.exit_code == 2
    assert "config.json" in result.stderr


def test_non_finite_logits_fail_the_image(invoke, digits: Path, tmp_path: Path) -> None:
    classifier = demo_classifier("cpu")
    with torch.no_grad():
        classifier.model.classifier.bias[0] = torch.nan
    classifier.model.save_pretrained(tmp_path / "broken")
    classifier.processor.save_pretrained(tmp_path / "broken")
    result = invoke("explain", digits / "6-4-6-3.png", "--model", tmp_path / "broken", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "finite" in result.stderr
    assert "1 of 1 images were not explained" in result.stderr


@pytest.mark.parametrize(
    ("screen", "recorded"),
    [
        ("all", "all"),
        ("gradient", "GradientScreen(8)"),
        ("gradient:2", "GradientScreen(2)"),
        ("last-gains:3", "LastGainsScreen(3)"),
        ("random:2", "RandomScreen(2, seed=0)"),
        ("half-precision", "HalfPrecisionScreen(torch.bfloat16)"),
    ],
)
def test_screen_and_beam_are_used_and_recorded(
    invoke, model, digits: Path, tmp_path: Path, screen: str, recorded: str
) -> None:
    options = ["--grid", 2, "--beam-width", 2, "--mode", "deletion", "--stop", "never", "--out", tmp_path]
    result = invoke("explain", digits / "1-2-4-4.png", *model, "--screen", screen, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "1-2-4-4.json").read_text())
    assert report["settings"]["screen"] == recorded
    assert report["settings"]["beam_width"] == 2
    assert "beam of 2)" in result.output
    evaluated = report["deletion"]["n_evaluated"][0]
    # the second step extends two groups, each of which leaves three of the four players
    assert evaluated[:2] == ([2, 4] if recorded in ("GradientScreen(2)", "RandomScreen(2, seed=0)") else [4, 6])


@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_explains(invoke, model, digits: Path, tmp_path: Path, screen: str) -> None:
    mode, searched = ("symmetric", ["symmetric"]) if screen == "both-ends" else ("both", ["insertion", "deletion"])
    options = ["--screen", screen, "--mode", mode, "--grid", 2, "--out", tmp_path]
    assert invoke("explain", digits / "1-2-4-4.png", *model, *options).exit_code == 0
    report = json.loads((tmp_path / "1-2-4-4.json").read_text())
    assert [report[name]["flipped"] for name in searched] == [[True]] * len(searched)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--screen", "best"], "screen 'best' is unknown; pass one of all, gradient:M"),
        (["--screen", "gradient:0"], "screen 'gradient:0' is not valid"),
        (["--screen", "gradient", "--no-interactions"], "without --screen"),
        (
            ["--screen", "gradient", "--mode", "insertion"],
            "pass another screen, such as 'last-gains:16' or 'all', or --mode deletion",
        ),
        (["--beam-width", "0"], "beam-width"),
    ],
)
def test_an_invalid_screen_or_beam_is_rejected(invoke, tmp_path: Path, options: list[str], message: str) -> None:
    result = invoke("explain", *options, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_a_page_is_written_for_each_image(invoke, model, digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    images = [digits / "1-2-4-4.png", digits / "6-4-6-3.png"]
    options = ["--html", "--n-steps", 1, "--mode", "deletion", "--out", tmp_path]
    assert invoke("explain", *images, *model, *options).exit_code == 0
    assert {path.stem for path in tmp_path.glob("*.html")} == {image.stem for image in images}


@pytest.mark.parametrize("command", ["explain", "compare"])
def test_a_page_needs_bokeh(invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    result = invoke(command, "--html", "--out", tmp_path)
    assert result.exit_code == 2
    assert "--html requires bokeh; run pip install 'captum-moxi[html]'" in result.output
    assert not list(tmp_path.iterdir())


def test_replaced_files_are_reported(invoke, model, digits: Path, tmp_path: Path) -> None:
    image, options = digits / "1-2-4-4.png", ["--n-steps", 1, "--grid", 2, "--mode", "insertion", "--out", tmp_path]
    assert "(replaced)" not in invoke("explain", image, *model, *options).output
    lines = invoke("explain", image, digits / "6-4-6-3.png", *model, *options).output.splitlines()
    assert [line.endswith(" (replaced)") for line in lines] == [True, False]


def test_help_lists_and_explains_removals_rewards_and_screens(invoke) -> None:
    text = invoke("explain", "--help").output
    for title, registry in (("Removals:", REMOVALS), ("Rewards:", REWARDS), ("Screens:", SCREENS)):
        listed = text.partition(title)[2]
        for entry in registry.entries:
            # Long descriptions are wrapped.
            description = r"\s+".join(map(re.escape, entry.help.split()))
            assert re.search(rf"^  {re.escape(entry.spec)} +{description}$", listed, re.MULTILINE)


def test_advice_for_a_model_without_patch_tokens_names_options(invoke, digits: Path, tmp_path: Path) -> None:
    model = zoo.resnet(labels=3)
    model.save_pretrained(tmp_path / "resnet")
    demo_classifier("cpu").processor.save_pretrained(tmp_path / "resnet")
    options = ["--model", tmp_path / "resnet", "--removal", "token", "--out", tmp_path / "out"]
    result = invoke("explain", digits / "1-2-4-4.png", *options)
    assert result.exit_code == 2
    assert "pass --removal zero" in result.stderr and "BaselineRemoval" not in result.stderr


def test_minimal_groups_and_alternatives_are_found_and_recorded(invoke, model, digits: Path, tmp_path: Path) -> None:
    image = digits / demo_images()[0].name
    options = ["--grid", 4, "--mode", "insertion", "--no-interactions", "--device", "cpu", "--out", tmp_path]
    reports = {}
    for name, added in (("greedy", []), ("minimal", ["--minimal"]), ("alternatives", ["--alternatives", 2])):
        result = invoke("explain", image, *model, *options, *added)
        assert result.exit_code == 0, result.output
        reports[name] = json.loads((tmp_path / f"{image.stem}.json").read_text())
        assert (tmp_path / f"{image.stem}-alternatives.png").exists() == (name == "alternatives")
        assert ("disjoint group" in result.output) == (name == "alternatives")
    assert reports["greedy"]["insertion"]["minimal"] == [False]
    assert reports["minimal"]["insertion"]["minimal"] == [True]
    assert reports["minimal"]["insertion"]["n_steps"] < reports["greedy"]["insertion"]["n_steps"]
    first, *others = reports["alternatives"]["alternatives"]["insertion"]
    assert first == reports["alternatives"]["insertion"] == reports["minimal"]["insertion"]
    assert all(not set(first["order"][0]) & set(other["order"][0]) for other in others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minimal", "--stop", "never"], "--minimal requires a flip, but --stop is never; pass --stop flip"),
        (["--alternatives", "2", "--stop", "never"], "--alternatives requires a flip"),
        (["--alternatives", "0"], "--alternatives"),
    ],
)
def test_minimal_groups_need_the_flip(invoke, tmp_path: Path, options: list[str], message: str) -> None:
    result = invoke("explain", *options, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["explain", "localize", "compare"])
@pytest.mark.parametrize("linked", [False, True])
def test_no_figure_replaces_an_image(invoke, model, digits: Path, tmp_path: Path, command: str, linked: bool) -> None:
    stem = {"explain": "cat", "localize": "cat-classes", "compare": "curves"}[command]
    image = digits / f"{stem}.png"
    (digits / "1-2-4-4.png").rename(image)
    contents = image.read_bytes()
    images, out = [image], digits
    if command == "localize":
        # The figure of the other image has the name of this one.
        other = digits / "cat.png"
        (digits / "6-4-6-3.png").rename(other)
        images = [other, image]
    if linked:
        out = tmp_path / "out"
        out.mkdir()
        (out / image.name).symlink_to(image)
    result = invoke(command, *images, *model, "--out", out)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: the figure '")
    assert f"{image.name}' would replace an image; pass another folder as --out" in result.stderr
    assert image.read_bytes() == contents and not list(out.glob("*.json"))


def test_a_symmetric_search_is_one_search_with_the_probability_as_reward(
    invoke, model, digits: Path, tmp_path: Path
) -> None:
    image = digits / "6-4-6-3.png"
    result = invoke("explain", image, *model, "--mode", "symmetric", "--grid", 2, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "symmetric flips with" in result.output and "and without them" in result.output
    report = json.loads((tmp_path / "out" / "6-4-6-3.json").read_text())
    assert "insertion" not in report and "deletion" not in report
    classifier = demo_classifier("cpu")
    _, selection = MoXISymmetric(classifier.model).attribute(
        classifier.preprocess(Image.open(image)),
        target=report["target"]["index"],
        feature_mask=patch_mask(56, grid=2),
        stop="flip",
        return_selection=True,
    )
    assert Selection.from_dict(report["symmetric"]).order.tolist() == selection.order.tolist()
    assert report["settings"]["reward"] == "probability"
