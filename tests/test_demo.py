import re

from captum_moxi.demo import FOLDER, demo_classifier, demo_images


def test_the_model_is_small_and_its_card_states_its_accuracy() -> None:
    assert (FOLDER / "model" / "model.safetensors").stat().st_size <= 2 * 2**20
    accuracy = re.search(r"Accuracy on 10,000 composites .*: (0\.\d+)", (FOLDER / "model" / "README.md").read_text())
    assert accuracy
    assert float(accuracy[1]) >= 0.9


def test_the_embedded_images_are_classified_as_the_sum_of_their_distinct_digits() -> None:
    classifier = demo_classifier()
    assert len(demo_images()) == 4
    for name, image, label in demo_images():
        digits = [int(digit) for digit in name.removesuffix(".png").split("-")]
        assert int(label) == sum(set(digits))
        assert len(set(digits)) < len(digits)
        assert int(classifier.model(classifier.preprocess(image)).logits.argmax()) == int(label)
