import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from captum_moxi import BaselineRemoval, MoXIDeletion, MoXIInsertion, MoXISymmetric, Selection, patch_mask
from captum_moxi.demo import demo_images
from captum_moxi.explanation import ExplainSettings, explain, explanations
from captum_moxi.page import PagePath
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
    assert explanation.summary().endswith("(with GradientScreen(2), beam of 2)")


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
    assert "digits.png: class 7 (confidence" in page


def test_the_summary_counts_the_patches(classifier, image) -> None:
    explanation = explain(classifier, image, settings=ExplainSettings(grid=2))
    inserted, deleted = (int(explanation.selections[mode].n_steps[0]) for mode in ("insertion", "deletion"))
    summary = explanation.summary()
    assert f"; insertion flips with {inserted} patches: class " in summary and "(nothing kept) -> class 7, " in summary
    confidence = explanation.image.confidence(7)
    assert (
        f"; deletion flips without {deleted} patch{'es' if deleted > 1 else ''}: class 7, {confidence:.2f} -> "
        in summary
    )
    stopped = explain(classifier, image, settings=ExplainSettings(modes=("insertion",), grid=2, n_steps=1))
    assert "; insertion does not flip with 1 patch: " in stopped.summary()
    sure = explain(classifier, image, settings=ExplainSettings(grid=2, min_confidence=0.5)).summary()
    assert "; insertion flips (confidence above 0.5) with " in sure and "; deletion flips without " in sure


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
    assert str(explanation.changes["deletion"].before) == f"class 7, {explanation.image.confidence(7):.2f}"
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
    assert figure.axes[0].get_title().endswith("true label: class 12")
    assert "absent patches are blurred" in figure.get_supxlabel().replace("\n", " ")
    assert "true label: class 12" in explanation.summary() and explanation.to_dict()["true_label"] == "12"


def test_a_target_that_is_not_predicted_has_nothing_to_delete(
    classifier, image, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Filters of warnings belong to the process, so a library must not change them, even for a moment.
    monkeypatch.setattr("warnings.catch_warnings", None)
    monkeypatch.setattr("warnings.filterwarnings", None)
    settings = ExplainSettings(grid=2, n_steps=1, reward="probability")
    explanation = explain(classifier, image, target=12, settings=settings)
    monkeypatch.undo()
    assert not [warning for warning in recwarn if "predicted class" in str(warning.message)]
    _, expected = MoXIDeletion(classifier.model, reward="probability").attribute(
        classifier.preprocess(image), target=12, stop="flip", feature_mask=patch_mask(56, grid=2), return_selection=True
    )
    assert explanation.selections["deletion"].to_dict() == expected.to_dict()
    minimal = explain(classifier, image, target=12, settings=replace(settings, modes="deletion", alternatives=2))
    assert not minimal.selections["deletion"].minimal.any() and "disjoint" not in minimal.summary()
    assert not explanation.results["deletion"].attribution.any()
    sentence = "deletion: nothing to delete, because the model does not predict class 12 even with all patches"
    assert "class 12 (confidence 0.00), though class 7 is predicted; " in explanation.summary()
    assert sentence in explanation.summary()
    figure = explanation.figure()
    assert figure.axes[0].get_title().startswith("whole image: class 7, 0.98\ntarget: class 12, 0.00")
    assert sentence in figure.axes[-1].texts[0].get_text().replace("\n", " ")
    assert not figure.axes[-1].images


def test_unknown_rewards_and_classes_are_rejected(classifier, image) -> None:
    with pytest.raises(ValueError, match="reward 'odds' is unknown"):
        explain(classifier, image, settings=ExplainSettings(reward="odds"))
    with pytest.raises(ValueError, match="reward 'odds' is unknown"):
        ExplainSettings(reward="odds").check(classifier)
    with pytest.raises(ValueError, match="class 'tench'"):
        explain(classifier, image, target="tench")


@pytest.fixture
def unusable(classifier, monkeypatch: pytest.MonkeyPatch):
    """The classifier, whose model must not run."""

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(classifier.model, "forward", fail)
    return classifier


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"modes": "both"}, ValueError, "modes is 'both'; pass 'insertion', 'deletion' or both"),
        ({"modes": ()}, ValueError, "modes is"),
        ({"modes": ("symmetric", "insertion")}, ValueError, "pass 'insertion', .* or 'symmetric' alone"),
        (
            {"modes": "symmetric", "screen": "gradient"},
            ValueError,
            "modes is symmetric; pass another screen, such as 'both-ends', 'last-gains:16' or 'all', or modes='del",
        ),
        ({"stop": "never"}, ValueError, "stop is 'never'"),
        ({"n_steps": 0}, ValueError, "n_steps is 0"),
        ({"grid": 1.5}, TypeError, "grid is 1.5"),
        ({"min_confidence": 1}, ValueError, "min_confidence is 1"),
        ({"beam_width": 0}, ValueError, "beam_width is 0"),
        ({"removal": "fog"}, ValueError, "removal 'fog' is unknown"),
        ({"removal": 3}, TypeError, "removal is 3"),
        ({"screen": "best"}, ValueError, "screen 'best' is unknown"),
        ({"reward": "odds"}, ValueError, "reward 'odds' is unknown"),
        ({"reward": 3}, ValueError, "reward is 3"),
        ({"reward": "contrast:tench"}, ValueError, "class 'tench'"),
        ({"interactions": False, "beam_width": 2}, ValueError, "interactions is False"),
        ({"modes": "insertion", "screen": "gradient"}, ValueError, r"GradientScreen\(8\), which is meant for deletion"),
    ],
)
def test_bad_settings_are_rejected_before_the_model_runs(
    unusable, image, settings: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        explain(unusable, image, settings=ExplainSettings(**settings))


def test_bad_classes_are_rejected_before_the_model_runs(unusable, image) -> None:
    for classes in ({"target": "tench"}, {"target": 99}, {"true_label": 99}):
        with pytest.raises(ValueError, match="class"):
            explain(unusable, image, **classes)


def test_settings_can_be_names(classifier, image) -> None:
    by_name = ExplainSettings(modes="deletion", grid=2, removal="blur", screen="gradient:2")
    by_object = ExplainSettings(modes=("deletion",), grid=2, removal=BaselineRemoval("blur"), screen=GradientScreen(2))
    results = [explain(classifier, image, settings=settings).to_dict() for settings in (by_name, by_object)]
    assert results[0] == results[1]
    assert list(results[0]["changes"]) == ["deletion"]


def test_a_screen_is_used_in_the_modes_that_it_is_meant_for(classifier, image) -> None:
    for screen, evaluated, described in (
        ("gradient:2", {"insertion": 4, "deletion": 2}, "(with GradientScreen(2) for deletion)"),
        ("random:2", {"insertion": 2, "deletion": 2}, "(with RandomScreen(2, seed=0))"),
    ):
        explanation = explain(classifier, image, settings=ExplainSettings(grid=2, screen=screen))
        first = {mode: int(selection.n_evaluated[0, 0]) for mode, selection in explanation.selections.items()}
        assert first == evaluated
        assert explanation.summary().endswith(described)


def test_a_true_label_can_be_any_name(classifier, image) -> None:
    settings = ExplainSettings(modes="insertion", grid=2, n_steps=1)
    assert "true label: class 7)" in explain(classifier, image, true_label=7, settings=settings).summary()
    assert "true label: seven)" in explain(classifier, image, true_label="seven, 7", settings=settings).summary()
    assert "true label" not in explain(classifier, image, settings=settings).summary()


def test_an_empty_image_that_is_already_predicted_needs_no_patch(classifier, image) -> None:
    """Without any digit, the model predicts the sum 0."""
    explanation = explain(classifier, image, target=0, settings=ExplainSettings(modes="insertion", grid=2))
    sentence = "insertion: no patch is needed, because the model predicts class 0, "
    assert sentence in explanation.summary()
    assert sentence in explanation.figure().axes[-1].texts[0].get_text().replace("\n", " ")


def test_minimal_groups_are_those_of_the_attribution_classes(classifier, tmp_path: Path) -> None:
    # Without interactions, the search for this image chooses patches that repeat each other.
    _, image, label = demo_images()[0]
    settings = ExplainSettings(grid=4, interactions=False, minimal=True)
    explanation = explain(classifier, image, settings=settings)
    for mode, method in (("insertion", MoXIInsertion), ("deletion", MoXIDeletion)):
        _, selection = method(classifier.model, interactions=False).attribute(
            classifier.preprocess(image),
            target=classifier.class_index(label),
            stop="flip",
            minimal=True,
            return_selection=True,
        )
        assert explanation.selections[mode].to_dict() == selection.to_dict()
    n_left_out = int((explanation.selections["insertion"].left_out >= 0).sum())
    assert n_left_out and explanation.changes["insertion"].flipped
    assert f"minimal ({n_left_out} left out)" in explanation.figure().axes[1].get_title()
    path = explanation.save(tmp_path)
    report = json.loads(path.with_suffix(".json").read_text())
    assert report["settings"]["minimal"] is True and report["alternatives"] == {}
    assert len(report["insertion"]["left_out"][0]) == n_left_out
    assert [path.name for path in tmp_path.glob("*.png")] == ["image.png"]


def test_the_json_says_that_the_prediction_was_flipped_from_the_start(classifier, image) -> None:
    settings = ExplainSettings(modes="deletion", grid=2, screen=GradientScreen(2), beam_width=2, minimal=True)
    flipped, unflipped = (explain(classifier, image, target=target, settings=settings) for target in (12, 7))
    changes = [explanation.to_dict()["changes"]["deletion"] for explanation in (flipped, unflipped)]
    assert [change["flipped_before_first_step"] for change in changes] == [True, False]
    assert all(change["flipped"] for change in changes)
    assert changes[0]["outcome"].startswith("deletion: nothing to delete") and changes[0]["n_steps"] == 0
    assert changes[1]["outcome"] in unflipped.summary()
    # Without a search, there is no screen and no beam to name.
    assert "(with " not in flipped.summary() and "found with" not in flipped.figure().get_suptitle()
    assert unflipped.summary().endswith("(with GradientScreen(2), beam of 2)")


@pytest.mark.parametrize(
    ("removal", "start"),
    [
        ("blur", "nothing kept: the blurred image"),
        ("mean", "nothing kept: the mean color of the image"),
        ("zero", "nothing kept: the baseline"),
        (None, "nothing kept"),
    ],
)
def test_the_start_of_insertion_is_named_by_the_removal(classifier, image, removal, start: str) -> None:
    settings = ExplainSettings(modes="insertion", grid=2, removal=removal)
    assert f" ({start}) -> class 7, " in explain(classifier, image, settings=settings).summary()


def test_the_summary_says_whether_a_patch_was_left_out(classifier, image) -> None:
    _, redundant, _ = demo_images()[0]
    settings = ExplainSettings(modes="insertion", grid=4, interactions=False, minimal=True)
    explanation = explain(classifier, redundant, settings=settings)
    n_left_out = int((explanation.selections["insertion"].left_out >= 0).sum())
    assert f" patches [minimal ({n_left_out} left out)]: " in explanation.summary()
    # A group of one patch contains no patch that the flip does not need.
    settings = ExplainSettings(modes="insertion", grid=1, minimal=True)
    assert " patch [minimal (no patch can be left out)]: " in explain(classifier, image, settings=settings).summary()


def test_alternatives_are_those_of_the_attribution_classes(classifier, image, tmp_path: Path) -> None:
    explanation = explain(classifier, image, settings=ExplainSettings(grid=4, alternatives=3))
    for mode, method in (("insertion", MoXIInsertion), ("deletion", MoXIDeletion)):
        groups = method(classifier.model).alternatives(classifier.preprocess(image), target=7, at_most=3)
        assert [group.to_dict() for group in explanation.alternatives[mode]] == [group.to_dict() for group in groups]
        assert explanation.selections[mode].to_dict() == groups[0].to_dict()
        at_least = "at least " if len(groups) == 3 else ""
        assert f", {at_least}{len(groups)} disjoint group" in explanation.summary()
    path = explanation.save(tmp_path)
    with Image.open(path.with_name("image-alternatives.png")) as figure:
        assert figure.width > 1000
    report = json.loads(path.with_suffix(".json").read_text())
    assert report["settings"]["alternatives"] == 3 and report["settings"]["minimal"] is True
    for mode, groups in explanation.alternatives.items():
        restored = [Selection.from_dict(group) for group in report["alternatives"][mode]]
        assert [group.order.tolist() for group in restored] == [group.order.tolist() for group in groups]


def test_a_target_that_is_not_predicted_has_no_groups_to_delete(classifier, image) -> None:
    settings = ExplainSettings(modes="deletion", grid=2, alternatives=2)
    explanation = explain(classifier, image, target=12, settings=settings)
    assert explanation.alternatives == {"deletion": []}
    texts = [text.get_text() for ax in explanation.alternatives_figure().axes for text in ax.texts]
    assert "nothing to delete" in " ".join(texts).replace("\n", " ")


@pytest.mark.parametrize("name", ["minimal", "alternatives"])
def test_minimal_groups_need_the_flip(unusable, image, name: str) -> None:
    settings = ExplainSettings(stop=None, **{name: 1})
    with pytest.raises(ValueError, match=f"{name} is 1, but stop is None; pass stop='flip'"):
        explain(unusable, image, settings=settings)


def test_the_number_of_alternatives_is_checked(unusable, image) -> None:
    with pytest.raises(ValueError, match="alternatives is 0"):
        explain(unusable, image, settings=ExplainSettings(alternatives=0))


def test_a_symmetric_explanation_is_that_of_the_class_and_shows_both_paths(classifier, image, tmp_path: Path) -> None:
    settings = ExplainSettings(modes="symmetric", grid=2)
    explanation = explain(classifier, image, settings=settings)
    x, mask = classifier.preprocess(image), patch_mask(56, grid=2)
    attribution, selection = MoXISymmetric(classifier.model).attribute(
        x, target=7, feature_mask=mask, stop="flip", return_selection=True
    )
    assert explanation.selections["symmetric"].to_dict() == selection.to_dict()
    assert torch.equal(explanation.results["symmetric"].attribution, attribution[0, 0])
    change = explanation.changes["symmetric"]
    assert change.flipped and change.after_without is not None and change.before_without is not None
    assert change.before_without.label == change.after.label == "7" != change.after_without.label
    steps = change.n_steps
    assert change.after.confidence == pytest.approx(float(selection.confidences[0, steps]), abs=1e-4)
    # The figure has one picture of the group alone, and one without it.
    figure = explanation.figure()
    titles = [ax.get_title().replace("\n", " ") for ax in figure.axes]
    assert any(str(change.after_without).split()[-1] in title and title.startswith("without") for title in titles)
    assert f"and without them {change.before_without} -> {change.after_without}" in explanation.summary()
    explanation.save(tmp_path)
    values = json.loads((tmp_path / "image.json").read_text())
    assert values["settings"]["reward"] == "probability"
    assert values["changes"]["symmetric"]["after_without"]["label"] == change.after_without.label
    assert Selection.from_dict(values["symmetric"]).to_dict() == selection.to_dict()


def test_the_page_of_a_symmetric_explanation_has_both_paths(classifier, image, monkeypatch) -> None:
    pytest.importorskip("bokeh")
    pages: list[list[PagePath]] = []
    monkeypatch.setattr(explanations, "path_page", lambda paths, **options: pages.append(paths) or "page")
    explanation = explain(classifier, image, settings=ExplainSettings(modes="symmetric", grid=2))
    assert explanation.page() == "page"
    insertion, deletion = pages[0]
    assert [insertion.mode, deletion.mode] == ["insertion", "deletion"]
    selection = explanation.selections["symmetric"]
    # Each path by itself may flip earlier than the search, which requires both.
    both = [
        bool(kept == 7 and without != 7)
        for kept, without in zip(selection.predictions[0], selection.predictions_without[0], strict=True)
    ]
    assert insertion.flip == deletion.flip == both.index(True)
    for path, confidences in ((insertion, selection.confidences), (deletion, selection.confidences_without)):
        torch.testing.assert_close(path.probabilities[:, 7], confidences[0], atol=1e-4, rtol=0, check_dtype=False)


def test_symmetric_alternatives_name_both_predictions(classifier, image) -> None:
    settings = ExplainSettings(modes="symmetric", grid=2, alternatives=2)
    explanation = explain(classifier, image, settings=settings)
    titles = [ax.get_title().replace("\n", " ") for ax in explanation.alternatives_figure().axes]
    assert any(title.startswith("symmetric 1:") and "; without it: " in title for title in titles)
