"""Requests of users, answered without a browser."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_moxi import MoXIInsertion, MoXISymmetric, patch_mask
from captum_moxi.app import requests
from captum_moxi.app.models import AppModels
from captum_moxi.app.requests import QUESTIONS, ExplainRequest, answer
from captum_moxi.demo import NAME as DEMO
from captum_moxi.demo import demo_classifier, demo_images


@pytest.fixture
def request_for_demo(tmp_path: Path) -> ExplainRequest:
    image = demo_images()[0]
    path = tmp_path / image.name
    image.image.save(path)
    return ExplainRequest(photograph=str(path), model=DEMO, question=next(iter(QUESTIONS)))


@pytest.fixture(scope="module")
def models() -> AppModels:
    return AppModels(device="cpu")


def test_the_answer_is_the_minimal_group_of_the_search(request_for_demo: ExplainRequest, models: AppModels) -> None:
    explanation = answer(request_for_demo, models)
    classifier = demo_classifier("cpu")
    x = classifier.preprocess(demo_images()[0].image)
    target = int(classifier.model(x).logits.argmax())
    _, selection = MoXIInsertion(classifier.model).attribute(
        x,
        target=target,
        feature_mask=patch_mask(56, grid=2),
        stop="flip",
        min_confidence=0.5,
        minimal=True,
        return_selection=True,
    )
    assert explanation.target == target
    assert explanation.selections["insertion"].order.tolist() == selection.order.tolist()


def test_sufficient_and_necessary_at_once_is_one_symmetric_search(
    request_for_demo: ExplainRequest, models: AppModels
) -> None:
    [question] = [question for question, modes in QUESTIONS.items() if modes == ("symmetric",)]
    explanation = answer(replace(request_for_demo, question=question), models)
    classifier = demo_classifier("cpu")
    x = classifier.preprocess(demo_images()[0].image)
    _, selection = MoXISymmetric(classifier.model).attribute(
        x,
        target=explanation.target,
        feature_mask=patch_mask(56, grid=2),
        stop="flip",
        min_confidence=0.5,
        minimal=True,
        return_selection=True,
    )
    assert explanation.selections["symmetric"].order.tolist() == selection.order.tolist()
    # The group alone is classified as the target, and the image without the group is not.
    change = explanation.changes["symmetric"]
    assert change.after.label == classifier.labels[explanation.target] != change.after_without.label


def test_both_questions_are_not_the_symmetric_search(request_for_demo: ExplainRequest, models: AppModels) -> None:
    assert sorted(QUESTIONS.values()) == [("deletion",), ("insertion",), ("insertion", "deletion"), ("symmetric",)]
    [question] = [question for question, modes in QUESTIONS.items() if len(modes) == 2]
    both = answer(replace(request_for_demo, question=question), models)
    for name in ("insertion", "deletion"):
        [alone] = [question for question, modes in QUESTIONS.items() if modes == (name,)]
        order = answer(replace(request_for_demo, question=alone), models).selections[name].order
        assert both.selections[name].order.tolist() == order.tolist()


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_runs_its_searches(request_for_demo: ExplainRequest, models: AppModels, question: str) -> None:
    explanation = answer(replace(request_for_demo, question=question), models)
    assert tuple(explanation.selections) == QUESTIONS[question]


def test_a_class_can_be_chosen(request_for_demo: ExplainRequest, models: AppModels) -> None:
    assert answer(replace(request_for_demo, target=" 7 "), models).target == 7


def test_progress_is_reported_before_the_search(request_for_demo: ExplainRequest, models: AppModels) -> None:
    steps: list[str] = []
    answer(request_for_demo, models, prepare=steps.append)
    assert steps == ["loading the model"]


def test_a_photograph_of_16_bits_is_not_clipped(
    request_for_demo: ExplainRequest, models: AppModels, tmp_path: Path
) -> None:
    gray = np.asarray(demo_images()[0].image.convert("L"))
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(gray).save(tmp_path / "gray.png")
    deep, shallow = (
        answer(replace(request_for_demo, photograph=str(tmp_path / name)), models) for name in ("deep.png", "gray.png")
    )
    assert deep.to_dict()["target"] == shallow.to_dict()["target"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photograph": None}, "there is no photograph; upload one"),
        ({"question": "why"}, "question is 'why'; choose one of "),
        ({"model": "other"}, "model 'other' is not offered"),
        ({"target": "x" * 201}, "the class has 201 characters; enter at most 200"),
        ({"target": "no such digit"}, "class 'no such digit' is not one of the model's 31 classes"),
        ({"min_confidence": 1.5}, "min_confidence"),
    ],
)
def test_a_wrong_request_is_reported(
    request_for_demo: ExplainRequest, models: AppModels, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        answer(replace(request_for_demo, **change), models)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n truncated"])
def test_a_broken_file_is_reported(
    request_for_demo: ExplainRequest, models: AppModels, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ValueError, match="image"):
        answer(replace(request_for_demo, photograph=str(tmp_path / "broken.png")), models)


def test_a_search_ends_after_the_largest_number_of_patches(
    request_for_demo: ExplainRequest, models: AppModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(request_for_demo, min_confidence=0.9, minimal=False)
    unlimited = answer(request, models).selections["insertion"].order
    assert unlimited.shape[1] > 1
    monkeypatch.setattr(requests, "MOST_STEPS", 1)
    limited = answer(request, models).selections["insertion"].order
    assert limited.tolist() == unlimited[:, :1].tolist()


def test_an_image_with_too_many_pixels_is_not_decoded(
    request_for_demo: ExplainRequest, models: AppModels, tmp_path: Path
) -> None:
    # Only the header of this file is complete.
    Image.new("1", (10_000, 5_001)).save(tmp_path / "large.png")
    (tmp_path / "large.png").write_bytes((tmp_path / "large.png").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"too many pixels \(10000 x 5001, at most 50000000 are accepted\)"):
        answer(replace(request_for_demo, photograph=str(tmp_path / "large.png")), models)
