import pytest

from captum_moxi.evaluation.labels import DataLabels, match_classes


def test_classes_match_by_name_synonym_and_index() -> None:
    classes = ["tench, Tinca tinca", "crane (n1)", "crane (n2)", "hen"]
    assert match_classes(["Tinca Tinca", " hen ", "tench, tinca tinca", "2"], classes) == [0, 3, 0, 2]


def test_a_name_that_two_classes_share_matches_neither() -> None:
    classes = ["crane (n1)", "crane (n2)", "hen"]
    assert match_classes(["crane", "crane (n2)"], classes) == [None, 1]


def test_indices_beyond_the_last_class_and_unknown_names_match_nothing() -> None:
    assert match_classes(["3", "-1", "cow"], ["cat", "dog", "hen"]) == [None, None, None]


@pytest.mark.parametrize(
    ("names", "ordered", "expected"),
    [
        (["n01", "n02", "n03"], True, [0, 1, 2]),
        (["n01", "n02", "n03"], False, [None, None, None]),
        (["n01", "n02"], True, [None, None]),
        # One known name shows that the names have a meaning.
        (["n01", "dog", "n03"], True, [None, 1, None]),
    ],
)
def test_as_many_unknown_ordered_names_as_classes_match_in_order(
    names: list[str], ordered: bool, expected: list[int | None]
) -> None:
    assert match_classes(names, ["cat", "dog", "hen"], ordered=ordered) == expected


def test_images_without_a_label_have_no_class() -> None:
    assert DataLabels(["dog", None, "cat"]).match(["cat", "dog"]) == [1, None, 0]


def test_a_map_translates_labels_to_classes() -> None:
    labels = DataLabels(["tabby", "beagle"])
    assert labels.match(["cat", "dog, hound"], label_map={"tabby": "cat", "beagle": "1"}) == [0, 1]
