import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from captum_moxi import MoXILocalization, patch_mask
from captum_moxi.explanation import LocalizeSettings, localize
from captum_moxi.page import PagePath, path_page


def test_the_results_are_those_of_the_attribution_class(classifier, image) -> None:
    localization = localize(classifier, image, targets=["12", 7], settings=LocalizeSettings(grid=2))
    x = classifier.preprocess(image)
    for localized, target in zip(localization.classes, (12, 7), strict=True):
        attribution, (until_predicted, until_lost) = MoXILocalization(classifier.model).attribute(
            x, target=target, feature_mask=patch_mask(56, grid=2), return_selection=True
        )
        assert (localized.class_index, localized.label) == (target, str(target))
        assert torch.equal(localized.attribution, attribution[0, 0])
        assert localized.until_predicted.to_dict() == until_predicted.to_dict()
        assert localized.until_lost.to_dict() == until_lost.to_dict()


def test_without_targets_the_two_most_likely_classes_are_localized(classifier, image) -> None:
    localization = localize(classifier, image, settings=LocalizeSettings(grid=2))
    with torch.no_grad():
        expected = classifier.model(classifier.preprocess(image)).logits[0].argsort(descending=True)[:2]
    assert [localized.class_index for localized in localization.classes] == expected.tolist()


def test_the_summary_tells_what_was_deleted(classifier, image) -> None:
    localization = localize(classifier, image, targets=[7, 30], settings=LocalizeSettings(grid=2, n_steps=2))
    held = int(localization.classes[0].until_lost.n_steps[0])
    assert localization.summary() == (
        f"class 7 is predicted on the whole image and lost after deleting {held} patch{'es' if held > 1 else ''}; "
        "class 30 is not predicted without 2 patches either, so it is not located"
    )


def test_a_figure_and_a_json_file_are_saved(classifier, image, tmp_path: Path) -> None:
    localization = localize(classifier, image, name="a/digits.png", targets=[7], settings=LocalizeSettings(grid=2))
    path = localization.save(tmp_path / "new")
    assert path == tmp_path / "new" / "digits-classes.png"
    with Image.open(path) as figure:
        assert figure.width > 1000
    assert json.loads(path.with_suffix(".json").read_text()) == localization.to_dict()
    assert localization.save(tmp_path, stem="other").name == "other-classes.png"


def test_the_page_follows_both_deletions_and_opens_where_the_class_is_predicted(
    classifier, image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bokeh")
    paths: list[PagePath] = []
    render = path_page
    monkeypatch.setattr(
        "captum_moxi.explanation.localizations.path_page",
        lambda drawn, **options: render(paths.extend(drawn) or drawn, **options),
    )
    with torch.no_grad():
        second = int(classifier.model(classifier.preprocess(image)).logits[0].argsort()[-2])
    localization = localize(classifier, image, targets=[7, second], settings=LocalizeSettings(grid=4))
    page = localization.save(tmp_path, html=True).with_suffix(".html").read_text()
    assert "image: what does each class depend on?" in page
    for path, localized in zip(paths, localization.classes, strict=True):
        n_first, n_second = int(localized.until_predicted.n_steps[0]), int(localized.until_lost.n_steps[0])
        assert len(path.images) == 1 + n_first + n_second
        assert localized.until_predicted.flipped and localized.until_lost.flipped
        assert path.flip == (n_first or n_second)
        assert path.predictions[n_first] == localized.class_index != path.predictions[-1]
        confidences = path.probabilities[n_first:, localized.class_index].double()
        torch.testing.assert_close(confidences, localized.until_lost.confidences[0].double(), rtol=0, atol=1e-4)


def test_bad_settings_are_rejected_before_the_model_runs(classifier, image, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(classifier.model, "forward", fail)
    for settings, message in (({"n_steps": 0}, "n_steps"), ({"removal": "fog"}, "fog"), ({"screen": "best"}, "best")):
        with pytest.raises(ValueError, match=message):
            localize(classifier, image, settings=LocalizeSettings(**settings))
    with pytest.raises(ValueError, match="class 'tench'"):
        localize(classifier, image, targets=["tench"])


def test_the_true_label_is_shown(classifier, image) -> None:
    settings = LocalizeSettings(grid=2, n_steps=1)
    localization = localize(classifier, image, targets=[7], true_label=12, settings=settings)
    assert localization.summary().startswith("true label: class 12; class 7 is predicted on the whole image")
    assert localization.figure().axes[0].get_title().endswith("\ntrue label: class 12")
    assert localization.to_dict()["true_label"] == "12"
