import json
import re
from pathlib import Path

import torch

from captum_moxi import MoXILocalization, patch_mask
from captum_moxi.demo import demo_classifier, demo_images


def test_the_two_most_likely_classes_are_localized(invoke, model, digits: Path, tmp_path: Path) -> None:
    (digits / "broken.png").write_text("not an image")
    options = ["--grid", 4, "--screen", "all", "--device", "cpu", "--out", tmp_path / "out"]
    result = invoke("localize", digits, *model, *options)
    assert result.exit_code == 2 and "1 of 5 images were not explained" in result.stderr
    assert len(list((tmp_path / "out").glob("*-classes.png"))) == 4
    name, image, _ = demo_images()[0]
    classifier = demo_classifier("cpu")
    x = classifier.preprocess(image)
    with torch.no_grad():
        first, second = classifier.model(x).logits[0].topk(2).indices.tolist()
    _, (until_predicted, until_lost) = MoXILocalization(classifier.model).attribute(
        x, target=second, feature_mask=patch_mask(56, grid=4), return_selection=True
    )
    report = json.loads((tmp_path / "out" / f"{Path(name).stem}-classes.json").read_text())
    assert [entry["index"] for entry in report["classes"]] == [first, second]
    assert report["predicted"] == {"index": first, "label": classifier.labels[first]}
    settings = {
        "n_steps": None,
        "grid": 4,
        "removal": "TokenRemoval()",
        "screen": "all",
        "minimal": False,
        "device": "cpu",
    }
    assert report["settings"] == settings
    assert report["classes"][1]["gone"] == until_predicted.to_dict()
    assert report["classes"][1]["held"] == until_lost.to_dict()
    (line,) = [line for line in result.output.splitlines() if line.startswith(str(digits / name))]
    assert f"{first} is predicted on the whole image and lost after deleting" in line
    deleted, held = int(until_predicted.n_steps[0]), int(until_lost.n_steps[0])
    expected = f"{second} is predicted without {deleted} patch(es)? and lost after deleting {held} more patch"
    assert re.search(expected, line) or not (until_predicted.flipped[0] and until_lost.flipped[0])


def test_unknown_classes_are_rejected(invoke, model, digits: Path, tmp_path: Path) -> None:
    result = invoke("localize", digits, *model, "--target", "tench", "--out", tmp_path)
    assert result.exit_code == 2 and "class 'tench' is not one of the model's 31 classes" in result.stderr


def test_both_deletions_are_minimal_if_requested(invoke, model, digits: Path, tmp_path: Path) -> None:
    image = digits / demo_images()[0].name
    result = invoke("localize", image, *model, "--grid", 4, "--minimal", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert report["settings"]["minimal"] is True
    for entry in report["classes"]:
        for deletion in (entry["gone"], entry["held"]):
            assert deletion["minimal"] == deletion["flipped"]
