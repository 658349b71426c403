import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from captum_moxi import MoXIDeletion, MoXIInsertion, Selection, patch_mask
from captum_moxi.explanation import ExplainSettings, explain
from captum_moxi.search.screens import GradientScreen


def test_the_results_are_those_of_the_attribution_classes(classifier, image) -> None:
    explanation = explain(classifier, image)
    x = classifier.preprocess(image)
    for mode, method in (("insertion", MoXIInsertion), ("deletion", MoXIDeletion)):
        attribution, selection = method(classifier.model).attribute(x, target=7, stop="flip", return_selection=True)
        assert explanation.selections[mode].to_dict() == selection.to_dict()
        assert torch.equal(explanation.results[mode].attribution, attribution[0, 0])
    assert explanation.target == 7 and explanation.label == "7"


def test_settings_are_passed_to_the_search(classifier, image) -> None:
    settings = ExplainSettings(
        modes=("deletion",),
        stop=None,
        n_steps=3,
        grid=2,
        reward="contrast:12",
        screen=GradientScreen(2),
        beam_width=2,
    )
    explanation = explain(classifier, image, target=7, settings=settings)
    _, selection = MoXIDeletion(
        classifier.model, reward="contrast:12", screen=GradientScreen(2), beam_width=2
    ).attribute(
        classifier.preprocess(image), target=7, feature_mask=patch_mask(56, grid=2), n_steps=3, return_selection=True
    )
    assert list(explanation.selections) == ["deletion"]
    assert explanation.selections["deletion"].to_dict() == selection.to_dict()
    assert "with GradientScreen(2), beam of 2" in explanation.summary()


def test_a_reward_can_be_a_function(classifier, image) -> None:
    def squared(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return logits.gather(1, target[:, None])[:, 0].square()

    settings = ExplainSettings(modes=("insertion",), n_steps=1, grid=2, reward=squared)
    explanation = explain(classifier, image, settings=settings)
    with torch.no_grad():
        logits = classifier.model(classifier.preprocess(image)).logits
    full = explain(classifier, image, settings=ExplainSettings(modes=("deletion",), n_steps=1, grid=2, reward=squared))
    assert float(full.selections["deletion"].rewards[0, 0]) == pytest.approx(float(logits[0, 7]) ** 2, rel=1e-4)
    assert "squared" in json.dumps(explanation.to_dict())


def test_saved_selections_can_be_read(classifier, image, tmp_path: Path) -> None:
    explanation = explain(classifier, image, name="a/digits.png", settings=ExplainSettings(grid=2))
    path = explanation.save(tmp_path / "new")
    assert path == tmp_path / "new" / "digits.png"
    with Image.open(path) as figure:
        assert figure.width > 1000
    report = json.loads(path.with_suffix(".json").read_text())
    assert report == explanation.to_dict()
    assert Selection.from_dict(report["insertion"]).order.tolist() == explanation.selections["insertion"].order.tolist()
    assert report["image"] == "a/digits.png" and report["model"] == "embedded demo"
    assert not path.with_suffix(".html").exists()


def test_a_page_is_saved_if_requested(classifier, image, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    settings = ExplainSettings(modes=("insertion",), grid=2)
    explanation = explain(classifier, image, name="digits.png", settings=settings)
    path = explanation.save(tmp_path, stem="other", html=True)
    assert path.name == "other.png"
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    assert "digits.png: 7 (confidence" in page


def test_the_summary_counts_the_patches(classifier, image) -> None:
    explanation = explain(classifier, image, settings=ExplainSettings(grid=2))
    inserted, deleted = (int(explanation.selections[mode].n_steps[0]) for mode in ("insertion", "deletion"))
    assert explanation.summary().endswith(
        f"insertion flips with {inserted} patches; deletion flips without {deleted} patch{'es' if deleted > 1 else ''}"
    )
    stopped = explain(classifier, image, settings=ExplainSettings(modes=("insertion",), grid=2, n_steps=1))
    assert stopped.summary().endswith("insertion does not flip with 1 patch")


def test_a_target_that_is_not_predicted_is_pointed_out(classifier, image, recwarn: pytest.WarningsRecorder) -> None:
    explanation = explain(classifier, image, target=12, settings=ExplainSettings(grid=2, n_steps=1))
    assert (
        "12 (confidence 0.00), though 7 is predicted; captum-moxi localize shows where 12 is" in explanation.summary()
    )
    assert not [warning for warning in recwarn if "predicted class" in str(warning.message)]


def test_unknown_rewards_and_classes_are_rejected(classifier, image) -> None:
    with pytest.raises(ValueError, match="reward 'odds' is unknown"):
        explain(classifier, image, settings=ExplainSettings(reward="odds"))
    with pytest.raises(ValueError, match="reward 'odds' is unknown"):
        ExplainSettings(reward="odds").check(classifier)
    with pytest.raises(ValueError, match="class 'tench'"):
        explain(classifier, image, target="tench")
