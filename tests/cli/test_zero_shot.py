import csv
import json
from pathlib import Path

import numpy as np
import pytest
import zero_shot_models
from PIL import Image

from captum_moxi import load
from captum_moxi.cli.main import COMMANDS

KEYBOARD, CUP = "a keyboard", "a cup of coffee"
CLASSES = ["--classes", KEYBOARD, "--classes", CUP]
SEARCH = ["--n-steps", "2", "--mode", "insertion", "--device", "cpu"]


@pytest.fixture(autouse=True)
def siglip_tokenizer(request: pytest.FixtureRequest) -> None:
    zero_shot_models.skip_without_tokenizer(request.node.name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("zero-shot")
    return {name: zero_shot_models.save(name, root / name) for name in ("clip", "siglip")}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    path = tmp_path / "desk.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_explain_finds_the_patches_of_a_text(invoke, folders, desk: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    result = invoke("explain", desk, "--model", folders[name], *CLASSES, "--target", "cup", *SEARCH, "--out", out)
    assert result.exit_code == 0, result.stderr
    explained = json.loads((out / "desk.json").read_text())
    assert explained["target"]["label"] == CUP
    assert len(explained["patches"]) == 16
    assert (out / "desk.png").exists()
    # the confidence is that of the model on the image
    classifier = load(folders[name], "cpu", classes=[KEYBOARD, CUP])
    logits = classifier.model(classifier.preprocess(desk)).logits[0]
    confidences = logits.sigmoid() if name == "siglip" else logits.softmax(0)
    assert explained["target"]["confidence"] == pytest.approx(float(confidences[1]), abs=1e-5)


def test_a_single_text_is_enough_for_siglip(invoke, folders, desk: Path, tmp_path: Path) -> None:
    result = invoke("explain", desk, "--model", folders["siglip"], *CLASSES[:2], *SEARCH, "--html", "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert KEYBOARD in result.stdout
    assert KEYBOARD in (tmp_path / "desk.html").read_text()


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_compare_and_localize_accept_texts(invoke, folders, desk: Path, tmp_path: Path, name: str) -> None:
    model = [desk, "--model", folders[name], *CLASSES, "--n-steps", "2", "--device", "cpu", "--out", tmp_path]
    # the rollout starts at a class token, which SigLIP does not have
    methods = ["moxi", "shapley:1", "gradcam", "random", *(["rollout"] if name == "clip" else [])]
    result = invoke("compare", *model, "--methods", ",".join(methods), "--mode", "deletion")
    assert result.exit_code == 0, result.stderr
    rows = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert len({row["method"] for row in rows}) == len(methods)
    result = invoke("localize", *model, "--target", "keyboard")
    assert result.exit_code == 0, result.stderr
    assert KEYBOARD in result.stdout


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("keyboard", "cup_of_coffee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(2):
            image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            image.save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


def test_evaluate_takes_the_names_of_folders_as_classes(invoke, folders, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    store = pytest.importorskip("captum_moxi.evaluation.store")
    out = tmp_path / "run"
    template = ["--template", "a photo of a {}"]
    options = ["--model", folders["clip"], "--data", data, "--device", "cpu", "--n-steps", "2", "--out", out]
    result = invoke("evaluate", *options, *template, "--keep", "right", "--methods", "random")
    assert result.exit_code == 0, result.stderr
    rows = {row["image"]: row for row in store.read_rows(out).to_pylist()}
    assert {name: row["label"] for name, row in rows.items()} == {
        f"{folder}/{index}.png": label for label, folder in enumerate(["cup_of_coffee", "keyboard"]) for index in (0, 1)
    }
    classifier = load(folders["clip"], "cpu", classes=["a photo of a cup of coffee", "a photo of a keyboard"])
    for name, row in rows.items():
        predicted = int(classifier.model(classifier.preprocess(data / name)).logits.argmax())
        assert row["status"] == ("wrong" if predicted != row["label"] else "explained")
    # other texts are other classes, so they are another run
    result = invoke("evaluate", *options, *CLASSES, "--keep", "all", "--methods", "random")
    assert result.exit_code == 2
    assert "holds a run with other settings" in result.stderr
    assert "template was 'a photo of a {}' and is None" in result.stderr


def test_evaluate_without_labels_asks_for_classes(invoke, folders, desk: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    options = ["--model", folders["clip"], "--data", desk.parent, "--template", "a {}", "--out", tmp_path / "run"]
    result = invoke("evaluate", *options, "--label-pattern", "(x)?")
    assert result.exit_code == 2
    assert "has no labels that could be the classes; pass classes" in result.stderr


@pytest.mark.parametrize("command", ["explain", "compare", "localize"])
def test_missing_and_superfluous_classes_are_reported_in_one_line(
    invoke, folders, model: list[str], desk: Path, tmp_path: Path, command: str
) -> None:
    out = ["--device", "cpu", "--out", tmp_path / "out"]
    for arguments, message in [
        (["--model", folders["clip"]], "is a zero-shot classifier, whose classes are texts; pass classes"),
        ([*model, *CLASSES], "with classes of its own; leave out classes"),
        (["--model", folders["clip"], *CLASSES, "--template", "a"], "template is 'a'; pass a text with one {}"),
    ]:
        result = invoke(command, desk, *arguments, *out)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
    assert not (tmp_path / "out").exists()


def test_the_embedded_demo_has_classes_of_its_own(invoke, tmp_path: Path) -> None:
    result = invoke("explain", *CLASSES, "--out", tmp_path)
    assert result.exit_code == 2
    assert "--classes and --template are for zero-shot classifiers; pass one with --model" in result.stderr


def test_the_commands_that_load_a_model_have_these_options() -> None:
    named = {command.name for command in COMMANDS for param in command.params if param.opts[-1] == "--classes"}
    assert named == {"explain", "compare", "localize", "evaluate", "reproduce"}
