from dataclasses import replace

import pytest
import torch

from captum_moxi import BaselineRemoval, TokenRemoval
from captum_moxi.explanation import prepare_image
from captum_moxi.explanation.images import check_players, class_name, with_class_indices, with_confidence
from captum_moxi.rewards import REWARDS, Versus


def test_the_image_is_classified_and_divided_into_the_patches_of_the_model(classifier, image) -> None:
    prepared = prepare_image(classifier, image, name="folder/digits.png")
    x = classifier.preprocess(image)
    with torch.no_grad():
        logits = classifier.model(x).logits
    torch.testing.assert_close(prepared.logits, logits)
    assert torch.equal(prepared.pixel_values, x)
    assert prepared.title == "digits.png"
    assert prepared.n_players == 16 and prepared.mask.shape == (56, 56)
    assert isinstance(prepared.removal, TokenRemoval)
    assert prepared.predicted == 7 and prepared.predicted_dict() == {"index": 7, "label": "7"}
    assert prepared.confidence(7) == pytest.approx(float(logits.softmax(1)[0, 7]), abs=1e-6)
    torch.testing.assert_close(prepared.picture, classifier.to_images(x)[0])


def test_a_grid_of_any_size_fits_a_removal_that_fills_pixels(classifier, image) -> None:
    assert prepare_image(classifier, image, removal=BaselineRemoval(), grid=3).n_players == 9
    with pytest.raises(ValueError, match="grid"):
        prepare_image(classifier, image, grid=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"removal": None, "grid": 3}, "cuts through patches"),
        ({"removal": "zero", "grid": 57}, "56 x 56 pixels"),
        ({"removal": "attention:6", "grid": None}, "layers 0 to 5"),
    ],
)
def test_players_are_checked_before_the_model_runs(classifier, image, settings, message: str) -> None:
    def run(*_: object, **__: object) -> None:
        pytest.fail("the model ran")

    classifier.model.register_forward_pre_hook(run)
    with pytest.raises(ValueError, match=message):
        check_players(classifier, **settings)
    with pytest.raises(ValueError, match=message):
        prepare_image(classifier, image, **settings)
    call = check_players(classifier, removal="zero", grid=56)
    assert call is not None and call.inputs[0].shape == (1, 3, 56, 56)


def test_players_of_inputs_of_any_size_are_checked_with_each_image(classifier, image) -> None:
    classifier.processor.do_resize = False
    assert check_players(classifier, removal="zero", grid=57) is None
    with pytest.raises(ValueError, match="57 x 57"):
        prepare_image(classifier, image.resize((56, 56)), removal="zero", grid=57)


def test_the_boxes_of_players_tile_the_image(classifier, image) -> None:
    boxes = prepare_image(classifier, image, grid=2).patches_dict()
    assert boxes == {"0": [0, 0, 28, 28], "1": [0, 28, 28, 56], "2": [28, 0, 56, 28], "3": [28, 28, 56, 56]}


def test_the_target_is_the_predicted_class_or_the_named_one(classifier, image) -> None:
    prepared = prepare_image(classifier, image)
    assert (prepared.target(), prepared.target("12"), prepared.target(3)) == (7, 12, 3)
    with pytest.raises(ValueError, match="class 'tench'"):
        prepared.target("tench")


def test_a_negative_single_logit_predicts_no_class(classifier, image) -> None:
    prepared = prepare_image(classifier, image)
    negative = replace(prepared, logits=torch.tensor([[-2.0]]))
    assert negative.predicted == -1 and negative.predicted_dict() == {"index": -1, "label": None}
    assert negative.target() == 0
    assert negative.confidence(0) == pytest.approx(1 / (1 + 2.718281828**2))


def test_class_names_in_rewards_become_indices(classifier) -> None:
    classifier.model.config.id2label = {i: f"sum of {i}" for i in range(31)}
    assert with_class_indices("contrast:sum of 12", classifier) == "contrast:12"
    assert with_class_indices("contrast:12", classifier) == "contrast:12"
    assert with_class_indices("logit", classifier) == "logit"
    for reward, message in (("contrast", "needs an argument"), ("contrast:cat", "class 'cat'"), ("odds", "is unknown")):
        with pytest.raises(ValueError, match=message):
            with_class_indices(reward, classifier)


def test_a_reward_from_outside_can_name_a_class(classifier) -> None:
    classifier.model.config.id2label = {i: f"sum of {i}" for i in range(31)}
    REWARDS.register("against", Versus, argument="CLASS", parse=int, required=True)
    try:
        assert with_class_indices("against:sum of 3", classifier) == "against:3"
    finally:
        REWARDS.unregister("against")


def test_a_label_is_shortened_to_its_first_synonym() -> None:
    assert class_name("tench, Tinca tinca") == "tench"
    assert class_name("hen") == "hen"
    assert class_name("7") == "class 7"


def test_a_number_is_not_followed_by_another() -> None:
    assert with_confidence("tench, Tinca tinca", 0.414) == "tench 0.41"
    assert with_confidence("7", 0.414) == "class 7, 0.41"
    assert with_confidence("LABEL_7", 0.414) == "LABEL_7, 0.41"
