import json
from pathlib import Path

import torch
from PIL import Image

from captum_moxi import MoXILocalization, patch_mask
from captum_moxi.explanation import LocalizeSettings, localize


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
        f"7 is predicted on the whole image and lost after deleting {held} patch{'es' if held > 1 else ''}; "
        "30 is never predicted"
    )


def test_a_figure_and_a_json_file_are_saved(classifier, image, tmp_path: Path) -> None:
    localization = localize(classifier, image, name="a/digits.png", targets=[7], settings=LocalizeSettings(grid=2))
    path = localization.save(tmp_path / "new")
    assert path == tmp_path / "new" / "digits-classes.png"
    with Image.open(path) as figure:
        assert figure.width > 1000
    assert json.loads(path.with_suffix(".json").read_text()) == localization.to_dict()
    assert localization.save(tmp_path, stem="other").name == "other-classes.png"
