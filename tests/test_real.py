"""Real weights and photographs."""

import json
from pathlib import Path
from statistics import median

import pytest
import reference
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from captum_moxi import AttentionRemoval, CoalitionGame, MoXIDeletion, MoXIInsertion, TokenRemoval
from captum_moxi.cli.main import main
from captum_moxi.models import ImageClassifier, load

pytestmark = [pytest.mark.real, pytest.mark.slow]

N_PATCHES = 196


@pytest.fixture(scope="module", params=["vit-tiny-patch16-224", "deit-tiny-patch16-224"])
def classifier(request: pytest.FixtureRequest, shared: Path) -> ImageClassifier:
    return load(shared / "models" / request.param, "cpu")


@pytest.fixture(scope="module")
def photographs(shared: Path) -> list[Path]:
    return sorted((shared / "imagenet-sample").glob("*.jpg"))


def classify(classifier: ImageClassifier, paths: list[Path]) -> tuple[Tensor, Tensor]:
    """The pixel values and the predicted classes of photographs."""
    x = classifier.preprocess([Image.open(path) for path in paths])
    with torch.no_grad():
        return x, classifier.model(x).logits.argmax(1)


@pytest.mark.parametrize(("method", "steps"), [(MoXIInsertion, 5), (MoXIDeletion, 1)])
def test_selections_are_those_of_the_papers_algorithm(
    classifier: ImageClassifier,
    photographs: list[Path],
    method: type[MoXIInsertion | MoXIDeletion],
    steps: int,
) -> None:
    x, y = classify(classifier, photographs[::250])
    _, selection = method(classifier.model).attribute(x, target=y, n_steps=steps, return_selection=True)
    for example, target in enumerate(y.tolist()):
        image = x[example : example + 1]

        @torch.no_grad()
        def value(players: frozenset[int], image: Tensor = image, target: int = target) -> float:
            return reference.log_odds(reference.vit_logits(classifier.model, image, list(players)), target)

        order, rewards = getattr(reference, selection.mode)(value, N_PATCHES, steps)
        assert selection.order[example].tolist() == order
        assert selection.rewards[example].tolist() == pytest.approx(rewards, abs=1e-3)


def test_selections_do_not_depend_on_the_batch_or_the_size_of_a_pass(
    classifier: ImageClassifier, photographs: list[Path]
) -> None:
    x, y = classify(classifier, photographs[50:300:50])
    attribute = MoXIInsertion(classifier.model).attribute
    _, batch = attribute(x, target=y, n_steps=3, return_selection=True)
    for per_eval in (1, 7, 64):
        _, other = attribute(x, target=y, n_steps=3, perturbations_per_eval=per_eval, return_selection=True)
        assert torch.equal(other.order, batch.order)
    for example in range(5):
        row = slice(example, example + 1)
        _, single = attribute(x[row], target=y[row], n_steps=3, return_selection=True)
        assert torch.equal(single.order, batch.order[row])


def test_attention_removal_masks_attention_and_equals_token_removal_from_layer_0(
    classifier: ImageClassifier, photographs: list[Path]
) -> None:
    x, y = classify(classifier, photographs[:1])
    coalitions = torch.rand(12, N_PATCHES) < torch.linspace(0, 1, 12)[:, None]
    absent = (~coalitions[6]).nonzero().flatten().tolist()
    for layer in (0, 6):
        logits = reference.masked_logits(classifier.model, x, absent, layer, N_PATCHES)
        game = CoalitionGame(classifier.model, x, target=y, removal=AttentionRemoval(layer))
        assert float(game(coalitions[6])) == pytest.approx(reference.log_odds(logits, int(y)), abs=1e-4)
    masked, removed = (
        CoalitionGame(classifier.model, x, target=y, removal=removal)
        for removal in (AttentionRemoval(0), TokenRemoval())
    )
    torch.testing.assert_close(masked(coalitions), removed(coalitions), rtol=0, atol=1e-4)
    with torch.no_grad():
        expected = reference.log_odds(classifier.model(x).logits[0], int(y))
    assert float(removed(torch.ones(N_PATCHES))) == pytest.approx(expected, abs=1e-4)


def test_a_handful_of_patches_flips_vit_tiny(shared: Path, photographs: list[Path], tmp_path: Path) -> None:
    model = shared / "models" / "vit-tiny-patch16-224"
    _, y = classify(load(model, "cpu"), photographs[:30])
    # the first four characters of a file's name are its class
    is_correct = [int(path.name[:4]) == label for path, label in zip(photographs, y.tolist(), strict=False)]
    correct = [path for path, flag in zip(photographs, is_correct, strict=False) if flag][:12]
    options = ["--model", str(model), "--mode", "insertion", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, ["explain", *map(str, correct), *options])
    assert result.exit_code == 0, result.output
    explanations = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(explanations) == 12
    assert median(explanation["insertion"]["n_steps"][0] for explanation in explanations) <= 5
