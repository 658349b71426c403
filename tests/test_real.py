"""Real weights and photographs."""

import json
from pathlib import Path
from statistics import median

import pytest
import reference
import torch
from click.testing import CliRunner
from PIL import Image

from captum_moxi import AttentionRemoval, CoalitionGame, MoXIDeletion, MoXIInsertion, TokenRemoval
from captum_moxi.cli import main
from captum_moxi.models import ImageClassifier, load

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=["vit-tiny-patch16-224", "deit-tiny-patch16-224"])
def classifier(request: pytest.FixtureRequest, shared: Path) -> ImageClassifier:
    return load(shared / "models" / request.param, "cpu")


@pytest.fixture(scope="module")
def photographs(shared: Path) -> list[Path]:
    return sorted((shared / "imagenet-sample").glob("*.jpg"))


def pixels(classifier: ImageClassifier, paths: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
    x = classifier.preprocess([Image.open(path) for path in paths])
    with torch.no_grad():
        return x, classifier.model(x).logits.argmax(1)


@pytest.mark.parametrize(("method", "steps"), [(MoXIInsertion, 5), (MoXIDeletion, 1)])
def test_by_the_plain_algorithm(classifier: ImageClassifier, photographs: list[Path], method: type, steps: int) -> None:
    x, y = pixels(classifier, photographs[::250])
    _, selection = method(classifier.model).attribute(x, target=y, n_steps=steps, return_selection=True)
    for example, target in enumerate(y.tolist()):
        image = x[example : example + 1]

        @torch.no_grad()
        def value(players: frozenset[int], image: torch.Tensor = image, target: int = target) -> float:
            return reference.log_odds(reference.vit_logits(classifier.model, image, list(players)), target)

        order, rewards = getattr(reference, selection.mode)(value, 196, steps)
        assert selection.order[example].tolist() == order
        assert selection.rewards[example].tolist() == pytest.approx(rewards, abs=1e-3)


def test_batches_and_chunks_do_not_decide(classifier: ImageClassifier, photographs: list[Path]) -> None:
    x, y = pixels(classifier, photographs[50:300:50])
    attribute = MoXIInsertion(classifier.model).attribute
    _, together = attribute(x, target=y, n_steps=3, return_selection=True)
    for per_eval in (1, 7, 64):
        _, other = attribute(x, target=y, n_steps=3, perturbations_per_eval=per_eval, return_selection=True)
        assert torch.equal(other.order, together.order)
    for example in range(5):
        row = slice(example, example + 1)
        _, alone = attribute(x[row], target=y[row], n_steps=3, return_selection=True)
        assert torch.equal(alone.order, together.order[row])


def test_masking_is_masked_attention_and_from_layer_0_removal(
    classifier: ImageClassifier, photographs: list[Path]
) -> None:
    x, y = pixels(classifier, photographs[:1])
    rows = torch.rand(12, 196, generator=torch.Generator().manual_seed(0)) < torch.linspace(0, 1, 12)[:, None]
    absent = (~rows[6]).nonzero().flatten().tolist()
    for layer in (0, 6):
        masked = reference.log_odds(reference.masked_logits(classifier.model, x, absent, layer, 196), int(y))
        game = CoalitionGame(classifier.model, x, y, removal=AttentionRemoval(layer))
        assert float(game(rows[6])) == pytest.approx(masked, abs=1e-4)
    games = [
        CoalitionGame(classifier.model, x, y, removal=removal) for removal in (AttentionRemoval(0), TokenRemoval())
    ]
    torch.testing.assert_close(games[0](rows), games[1](rows), rtol=0, atol=1e-4)
    with torch.no_grad():
        whole = reference.log_odds(classifier.model(x).logits[0], int(y))
    assert float(games[1](torch.ones(196))) == pytest.approx(whole, abs=1e-4)


def test_a_handful_of_patches_flips_vit_tiny(shared: Path, photographs: list[Path], tmp_path: Path) -> None:
    model = shared / "models" / "vit-tiny-patch16-224"
    _, y = pixels(load(model, "cpu"), photographs[:30])
    right = [path for path, label in zip(photographs, y.tolist(), strict=False) if int(path.name[:4]) == label][:12]
    options = ["--model", str(model), "--mode", "insertion", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, ["explain", *map(str, right), *options])
    assert result.exit_code == 0, result.output
    reports = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(reports) == 12
    assert median(report["insertion"]["n_steps"][0] for report in reports) <= 5
