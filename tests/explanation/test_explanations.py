import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from captum_moxi import BaselineRemoval, MoXIDeletion, MoXIInsertion, Selection, patch_mask
from captum_moxi.explanation import ExplainSettings, explain
from captum_moxi.removal.baseline import blur_fill
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
    summary = explanation.summary()
    assert f"; insertion flips with {inserted} patches: " in summary
    confidence = explanation.image.confidence(7)
    assert f"; deletion flips without {deleted} patch{'es' if deleted > 1 else ''}: 7 {confidence:.2f} -> " in summary
    stopped = explain(classifier, image, settings=ExplainSettings(modes=("insertion",), grid=2, n_steps=1))
    assert "; insertion does not flip with 1 patch: " in stopped.summary()


def test_the_change_of_the_prediction_is_that_of_the_model_on_what_it_sees(classifier, image) -> None:
    """Under baseline fill, the model sees an ordinary image, so that it can be called directly."""
    settings = ExplainSettings(grid=2, removal=BaselineRemoval("mean"), stop=None)
    explanation = explain(classifier, image, settings=settings)
    x = classifier.preprocess(image)
    for mode, change in explanation.changes.items():
        selection = explanation.selections[mode]
        chosen = torch.isin(patch_mask(56, grid=2), selection.order[0, : change.n_steps])
        present = chosen if mode == "insertion" else ~chosen
        with torch.no_grad():
            probabilities = classifier.model(torch.where(present, x, x.mean((2, 3), keepdim=True))).logits.softmax(1)[0]
        assert change.flipped
        assert change.after.label == str(int(probabilities.argmax()))
        assert change.after.confidence == pytest.approx(float(probabilities.max()), abs=1e-5)
        assert str(change.before) in explanation.summary()
        assert explanation.to_dict()["changes"][mode]["after"]["label"] == change.after.label
    assert str(explanation.changes["deletion"].before) == f"7 {explanation.image.confidence(7):.2f}"
    assert explanation.changes["insertion"].after.label == "7"


def test_figures_show_what_the_model_saw_and_the_change(classifier, image) -> None:
    settings = ExplainSettings(modes=("deletion",), grid=2, removal=BaselineRemoval("blur"))
    explanation = explain(classifier, image, settings=settings, true_label=12)
    figure = explanation.figure()
    x, chosen = classifier.preprocess(image), explanation.selections["deletion"].order[0]
    seen = torch.where(torch.isin(patch_mask(56, grid=2), chosen), blur_fill(x), x)
    torch.testing.assert_close(torch.tensor(figure.axes[2].images[0].get_array()), classifier.to_images(seen)[0])
    change = explanation.changes["deletion"]
    assert figure.axes[2].get_title().endswith(f"{change.before} → {change.after}")
    assert figure.axes[0].get_title().endswith("true label: 12")
    assert "left-out patches are blurred" in figure.get_supxlabel().replace("\n", " ")
    assert "true label: 12" in explanation.summary() and explanation.to_dict()["true_label"] == "12"


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
