"""A removal, reward, screen, method, metric and corruption from outside the package.

Each is defined here and registered by name. It must then appear in the help and in the error messages of the command
line, and work there like an item of the package.
"""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageOps
from torch import Tensor

from captum_moxi import (
    CoalitionGame,
    Curve,
    Method,
    Metric,
    Removal,
    Screen,
    Selection,
    compare,
    insertion_curve,
    models,
)
from captum_moxi.arguments import Mode, Stop
from captum_moxi.cli.main import main
from captum_moxi.demo import FOLDER, demo_classifier
from captum_moxi.methods import METHODS
from captum_moxi.metrics import METRICS
from captum_moxi.perturbations.corruptions import CORRUPTIONS, corrupt
from captum_moxi.registry import Registry
from captum_moxi.removal import REMOVALS, ForwardCall, MaskedModel
from captum_moxi.rewards import REWARDS
from captum_moxi.search import greedy
from captum_moxi.search.screens import SCREENS, SearchStep

IMAGE, LABEL = "1-2-4-4", 7
MODEL = ["--model", str(FOLDER / "model"), "--device", "cpu"]


class MirrorModel(MaskedModel):
    """A model whose absent pixels come from the mirrored image."""

    def __call__(self, coalitions: Tensor, examples: Tensor) -> Any:
        images = self.call.inputs[0][examples]
        present = self.call.players.spread(coalitions, 0, examples)
        return models.call_model(self.call.forward_func, torch.where(present, images, images.flip(3)))

    def rows_per_pass(self, size: int) -> int:
        return 32


class MirrorRemoval(Removal):
    """Replaces absent pixels with those of the mirrored image."""

    def bind(self, call: ForwardCall) -> MaskedModel:
        return MirrorModel(call)


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """The logit of the target minus the highest other logit."""
    others = logits.scatter(1, target[:, None], -torch.inf)
    return logits.gather(1, target[:, None])[:, 0] - others.amax(1)


class FirstScreen(Screen):
    """Evaluates the first m candidates by position."""

    estimates_gains = False

    def estimate(self, step: SearchStep) -> tuple[Tensor, Tensor]:
        priorities = -torch.arange(step.candidates.shape[1]).double().expand(step.candidates.shape)
        return priorities, priorities


def reading_order() -> Method:
    """Orders the players by their ids."""

    def attribute(game: CoalitionGame, mode: Mode, *, n_steps: int | None, stop: Stop) -> Tensor:
        return game.ids.repeat(game.n_examples, 1)

    return Method("Reading order", attribute)


def lowest_confidence() -> Metric:
    """The lowest confidence on the curve."""
    return Metric(
        "lowest confidence",
        lambda curve: curve.confidences.double().amin(1),
        better={"insertion": "higher", "deletion": "lower"},
    )


def negative(image: Image.Image, severity: int, seed: int) -> Image.Image:
    """Inverts the colors."""
    return ImageOps.invert(image)


@dataclass(frozen=True)
class Extension:
    """An item to register, and where the command line accepts it."""

    registry: Registry[Any]
    name: str
    factory: Any
    option: str
    commands: tuple[str, ...]
    argument: str | None = None

    @property
    def spec(self) -> str:
        return self.name if self.argument is None else f"{self.name}:{self.argument}"


EXTENSIONS = (
    Extension(REMOVALS, "mirror", MirrorRemoval, "--removal", ("explain", "compare", "localize", "evaluate")),
    Extension(REWARDS, "margin", lambda: margin, "--reward", ("explain", "compare", "evaluate")),
    Extension(SCREENS, "first", FirstScreen, "--screen", ("explain", "compare", "localize", "evaluate"), argument="M"),
    Extension(METHODS, "reading", reading_order, "--methods", ("compare", "evaluate")),
    Extension(METRICS, "lowest", lowest_confidence, "--metrics", ("compare",)),
    Extension(CORRUPTIONS, "negative", lambda: negative, "--corruptions", ("corrupt",)),
)
EACH = pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda extension: extension.registry.kind)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for extension in EXTENSIONS:
        options = {} if extension.argument is None else {"argument": extension.argument, "required": True}
        extension.registry.register(extension.name, extension.factory, help="from outside", **options)
    yield
    for extension in EXTENSIONS:
        extension.registry.unregister(extension.name)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def words(text: str) -> list[str]:
    """The words of a text, without punctuation."""
    return [word.rstrip(".") for word in text.replace(",", " ").split()]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """One embedded image as a file in a folder that is named after its class."""
    path = tmp_path / "pictures" / str(LABEL) / f"{IMAGE}.png"
    path.parent.mkdir(parents=True)
    path.write_bytes((FOLDER / "images" / f"{IMAGE}.png").read_bytes())
    return path


def explain(picture: Path, out: Path, *options: object, mode: Mode = "deletion") -> dict[str, Any]:
    """The JSON file of an explanation with four players."""
    arguments = ("--grid", 2, "--stop", "never", "--mode", mode, "--out", out)
    result = run("explain", picture, *MODEL, *arguments, *options)
    assert result.exit_code == 0, result.output
    return json.loads((out / f"{IMAGE}.json").read_text())


@EACH
def test_help_lists_it(extension: Extension) -> None:
    for command in extension.commands:
        assert extension.spec in words(run(command, "--help").output)


@EACH
def test_the_error_about_an_unknown_name_lists_it(extension: Extension, tmp_path: Path) -> None:
    kind = extension.registry.kind
    with pytest.raises(ValueError, match=f"{kind} 'unknown' is unknown; pass one of .*{extension.spec}"):
        extension.registry.create("unknown")
    for command in extension.commands:
        result = run(command, extension.option, "unknown")
        assert result.exit_code == 2
        assert extension.spec in words(result.stderr)
        assert "Traceback" not in result.output


def test_an_explanation_uses_the_removal(picture: Path, tmp_path: Path) -> None:
    selection = Selection.from_dict(explain(picture, tmp_path / "out", "--removal", "mirror")["deletion"])
    classifier = demo_classifier("cpu")
    x = classifier.preprocess(Image.open(picture))
    quarters = [(row, column) for row in (0, 28) for column in (0, 28)]
    deleted = x.clone()
    for player, reward in zip(selection.order[0].tolist(), selection.rewards[0, 1:].tolist(), strict=True):
        row, column = quarters[player]
        part = (..., slice(row, row + 28), slice(column, column + 28))
        deleted[part] = x.flip(3)[part]
        with torch.no_grad():
            p = float(classifier.model(deleted).logits.double().softmax(1)[0, LABEL])
        assert reward == pytest.approx(np.log(p / (1 - p)), abs=1e-4)


def test_an_explanation_uses_the_reward(picture: Path, tmp_path: Path) -> None:
    values = explain(picture, tmp_path / "out", "--reward", "margin")
    assert values["settings"]["reward"] == "margin"
    classifier = demo_classifier("cpu")
    with torch.no_grad():
        logits = classifier.model(classifier.preprocess(Image.open(picture))).logits[0]
    others = torch.cat([logits[:LABEL], logits[LABEL + 1 :]])
    assert values["deletion"]["rewards"][0][0] == pytest.approx(float(logits[LABEL] - others.max()), abs=1e-4)


def test_an_explanation_uses_the_screen(picture: Path, tmp_path: Path) -> None:
    values = explain(picture, tmp_path / "out", "--screen", "first:1")
    assert values["settings"]["screen"] == "FirstScreen(1)"
    assert values["deletion"]["order"] == [[0, 1, 2, 3]]
    assert values["deletion"]["n_evaluated"] == [[1, 1, 1, 1]]


def test_a_comparison_uses_the_method_and_the_metric(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--grid", 2, "--methods", "reading,random", "--metrics", "lowest", "--out", out)
    result = run("compare", picture, *MODEL, *options)
    assert result.exit_code == 0, result.output
    assert "| Reading order |" in result.output
    assert "lowest confidence" in result.output
    with (out / "comparison.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "Reading order"]
    assert [row["mode"] for row in rows] == ["insertion", "deletion"]
    classifier = demo_classifier("cpu")
    x = classifier.preprocess(Image.open(picture))
    for row in rows:
        # the players by their ids, one more in each coalition
        coalitions = torch.ones(5, 4, dtype=torch.bool).tril(-1)
        coalitions = coalitions if row["mode"] == "insertion" else ~coalitions
        mask = REMOVALS.create("token").grid_mask(classifier.model, x, 2)
        game = CoalitionGame(classifier.model, x, target=LABEL, feature_mask=mask)
        lowest = float(game.outcome(coalitions).confidences.min())
        assert float(row["lowest confidence"]) == pytest.approx(lowest, abs=1e-5)


@pytest.mark.skipif(
    find_spec("datasets") is None or find_spec("pyarrow") is None, reason="needs the packages of the extra evaluate"
)
def test_a_run_and_its_replay_use_method_and_corruption(picture: Path, tmp_path: Path) -> None:
    options = ("--grid", 2, "--methods", "reading", "--mode", "deletion", "--stop", "never")
    result = run("evaluate", "--data", picture.parents[1], *MODEL, *options, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    result = run("corrupt", tmp_path / "run", "--corruptions", "negative", "--device", "cpu", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    classifier = demo_classifier("cpu")
    image = Image.open(picture).convert("RGB")
    confidences = []
    for n_deleted in range(5):
        composed = image.copy()
        for box in [(0, 0, 28, 28), (28, 0, 56, 28), (0, 28, 28, 56), (28, 28, 56, 56)][:n_deleted]:
            composed.paste(ImageOps.invert(image.crop(box)), box)
        with torch.no_grad():
            p = classifier.model(classifier.preprocess(composed)).logits.softmax(1)[0, LABEL]
        confidences.append(float(p))
    area = float(torch.trapezoid(torch.tensor(confidences), dx=0.25))
    (row,) = [line for line in (tmp_path / "out" / "corruptions.md").read_text().splitlines() if "negative" in line]
    assert float(row.split("|")[2]) == pytest.approx(area, rel=5e-3)


def test_python_functions_use_them_by_name() -> None:
    classifier = demo_classifier("cpu")
    image = Image.open(FOLDER / "images" / f"{IMAGE}.png").convert("RGB")
    x = classifier.preprocess(image)
    mask = REMOVALS.create("mirror").grid_mask(classifier.model, x, 2)
    options = {"target": LABEL, "feature_mask": mask, "removal": REMOVALS.create("mirror"), "reward": "margin"}
    comparison = compare(classifier.model, x, methods=["reading"], metrics=["lowest"], **options)
    assert comparison.methods == ["Reading order"]
    assert "lowest confidence" in comparison.table
    game = CoalitionGame(classifier.model, x, **options)
    assert greedy(game, "deletion", screen=SCREENS.create("first:2")).n_evaluated.tolist() == [[2, 2, 2, 1]]
    order = METHODS.create("reading").attribute(game, "insertion", n_steps=None, stop=None)
    curve: Curve = insertion_curve(classifier.model, x, attributions=order, **options)
    assert METRICS.create("lowest").of_curve(curve).tolist() == [pytest.approx(float(curve.confidences.min()))]
    assert corrupt(image, "negative").tobytes() == ImageOps.invert(image).tobytes()


def test_an_installed_plugin_registers_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution lists a module in the group of entry points that the command line imports."""
    (tmp_path / "negative_reward_plugin.py").write_text(
        "from captum_moxi.rewards import REWARDS\n"
        "REWARDS.register('negative_logit', lambda: lambda logits, target: -logits.gather(1, target[:, None])[:, 0])\n"
    )
    metadata = tmp_path / "negative_reward_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: negative-reward-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[captum_moxi.plugins]\nnegative = negative_reward_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert "negative_logit" in words(run("explain", "--help").output)
        assert float(REWARDS.create("negative_logit")(torch.tensor([[1.0, 3.0]]), torch.tensor([1]))[0]) == -3
    finally:
        REWARDS.unregister("negative_logit")
        sys.modules.pop("negative_reward_plugin")
