"""Numbers worked out by hand: logits log(3) and -log(4) have the sigmoids 3/4 and 1/5."""

import math

import pytest
import torch
import zoo
from PIL import Image
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

from captum_moxi import CoalitionGame, LogitsModel, MoXIDeletion, MoXIInsertion, MoXILocalization, contrast
from captum_moxi.demo import demo_classifier
from captum_moxi.explanation import explain, prepare_image
from captum_moxi.heads import HEADS, Softmax, head_of
from captum_moxi.metrics import deletion_curve
from captum_moxi.models import ImageClassifier

LOGITS = torch.tensor([[math.log(3), -math.log(4)]])
MULTI_LABEL, REGRESSION = "multi_label_classification", "regression"


def vit(problem_type: str | None, labels: int = 2) -> ViTForImageClassification:
    """A ViT with 16 patches. All its logits are ``LOGITS`` if every weight of its classifier is 0."""
    config = ViTConfig(**(zoo.SIZE | {"num_labels": labels}), problem_type=problem_type)
    return zoo.randomised(ViTForImageClassification(config))


def constant(problem_type: str | None, logits: Tensor = LOGITS) -> ViTForImageClassification:
    model = vit(problem_type, logits.shape[1])
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(logits[0])
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("reward", "target", "expected"),
    [
        ("probability", 0, 3 / 4),
        ("probability", 1, 1 / 5),
        ("log_probability", 1, -math.log(5)),
        ("log_odds", 0, math.log(3)),
        ("log_odds", 1, -math.log(4)),
        ("logit", 1, -math.log(4)),
        (contrast(0, 1), 0, math.log(12)),
        (lambda logits, target: logits.sum(1), 0, math.log(3 / 4)),
    ],
)
def test_rewards_of_a_multi_label_model_use_the_sigmoid_of_the_target(
    x: Tensor, reward: object, target: int, expected: float
) -> None:
    game = CoalitionGame(constant(MULTI_LABEL), x, target=target, reward=reward)
    assert float(game.full.rewards) == pytest.approx(expected, abs=1e-6)
    assert float(CoalitionGame(game.call.forward_func, x, target=target).with_reward(reward).full.rewards) == (
        pytest.approx(expected, abs=1e-6)
    )


@pytest.mark.parametrize(("target", "confidence", "prediction"), [(0, 3 / 4, 0), (1, 1 / 5, -1)])
def test_a_class_of_a_multi_label_model_is_predicted_above_one_half(
    x: Tensor, target: int, confidence: float, prediction: int
) -> None:
    game = CoalitionGame(constant(MULTI_LABEL), x, target=target)
    assert float(game.full.confidences) == pytest.approx(confidence)
    assert game.full.predictions.tolist() == [prediction]
    torch.testing.assert_close(
        game.class_probabilities(torch.ones(1, 16, dtype=torch.bool)), torch.tensor([[3 / 4, 1 / 5]])
    )


def test_both_classes_of_a_multi_label_model_may_be_predicted(x: Tensor) -> None:
    model = constant(MULTI_LABEL, torch.tensor([[1.0, 2.0]]))
    for target in (0, 1):
        assert CoalitionGame(model, x, target=target).full.predictions.tolist() == [target]
    # softmax: only the larger logit is predicted
    assert CoalitionGame(constant(None, torch.tensor([[1.0, 2.0]])), x, target=0).full.predictions.tolist() == [1]


def test_a_multi_label_model_is_explained_like_one_logit_of_it(x: Tensor) -> None:
    model = vit(MULTI_LABEL, 3)
    one = vit(None, 1)
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(one.classifier, name).copy_(getattr(model.classifier, name)[1:2])
    for method in (MoXIInsertion, MoXIDeletion):
        _, expected = method(one).attribute(x, target=0, return_selection=True)
        _, selection = method(model).attribute(x, target=1, return_selection=True)
        assert torch.equal(selection.order, expected.order)
        torch.testing.assert_close(selection.rewards, expected.rewards)
        torch.testing.assert_close(selection.confidences, expected.confidences)
        assert torch.equal(selection.predictions >= 0, expected.predictions >= 0)
        assert torch.equal(selection.predictions[selection.predictions >= 0].unique(), torch.tensor([1])) or (
            (selection.predictions < 0).all()
        )
    curve = deletion_curve(model, x, attributions=selection, target=1)
    torch.testing.assert_close(curve.confidences[0], expected.confidences[0].to(curve.confidences.dtype))


def test_the_flip_of_a_multi_label_model_is_that_of_the_target_alone(x: Tensor) -> None:
    # class 1 is always more likely than class 0, which is predicted only as long as its own sigmoid is above 0.5
    model = vit(MULTI_LABEL)
    with torch.no_grad():
        bias = -(model(x).logits[0, 0] + model.vit(x * 0).last_hidden_state[0, 0] @ model.classifier.weight[0]) / 2
        model.classifier.bias[:] = torch.stack([bias, torch.tensor(100.0)])
    present = bool(model(x).logits[0, 0] > 0)
    method = MoXIDeletion if present else MoXIInsertion
    _, selection = method(model).attribute(x, target=0, stop="flip", return_selection=True)
    flipped = selection.confidences[0] > 0.5
    flipped = ~flipped if present else flipped
    steps = int(selection.n_steps[0])
    assert steps > 0
    assert flipped[: steps + 1].tolist() == [False] * steps + [bool(selection.flipped[0])]


def test_localization_of_a_multi_label_model_deletes_what_opposes_the_target(x: Tensor) -> None:
    model = vit(MULTI_LABEL)
    with torch.no_grad():
        model.classifier.bias[0] = -model(x).logits[0, 0] - 0.01
    _, (opposing, supporting) = MoXILocalization(model).attribute(x, target=0, return_selection=True)
    rows = ~torch.eye(16, dtype=torch.bool)
    logits = CoalitionGame(model, x, target=0, reward="logit")(rows)
    assert int(opposing.order[0, 0]) == int(logits.argmax())
    assert supporting.mode == "deletion"


@pytest.mark.parametrize(("logits", "predicted"), [([[2.0, 1.0]], 0), ([[-2.0, -1.0]], -1)])
def test_explanations_name_the_most_likely_class(logits: list[list[float]], predicted: int) -> None:
    model = constant(MULTI_LABEL, torch.tensor(logits))
    model.config.id2label = {0: "cat", 1: "dog"}
    classifier = ImageClassifier(model, demo_classifier("cpu").processor, "model")
    classifier.processor.size = {"height": 32, "width": 32}
    picture = classifier.to_images(torch.randn(1, 3, 32, 32)).mul(255).byte()[0].numpy()
    image = prepare_image(classifier, Image.fromarray(picture))
    assert image.predicted == predicted
    assert image.target() == int(torch.tensor(logits).argmax())
    explained = explain(classifier, Image.fromarray(picture), target="dog")
    confidence = torch.tensor(logits).sigmoid()[0, 1]
    assert explained.to_dict()["target"]["confidence"] == pytest.approx(float(confidence))
    assert "though" not in explained.summary()
    assert explained.changes["insertion"].after.label == ("dog" if confidence > 0.5 else "not dog")


def test_a_single_logit_is_a_sigmoid(x: Tensor) -> None:
    game = CoalitionGame(constant(None, LOGITS[:, :1]), x)
    assert float(game.full.confidences) == pytest.approx(3 / 4)
    assert game.full.predictions.tolist() == [0]


@pytest.mark.parametrize("reward", ["log_odds", "output", "logit"])
def test_the_reward_of_a_regression_is_its_output(x: Tensor, reward: str) -> None:
    model = vit(REGRESSION, 2)
    game = CoalitionGame(model, x, target=1, reward=reward)
    torch.testing.assert_close(game.full.rewards, model(x).logits[:, 1].detach())
    assert game.full.confidences.isnan().all()
    assert game.targets is None
    single = vit(REGRESSION, 1)
    attr = MoXIInsertion(single).attribute(x, score="gain")
    empty = CoalitionGame(single, x)(torch.zeros(1, 16))
    torch.testing.assert_close(attr[0, 0, ::8, ::8].sum()[None], single(x).logits[:, 0].detach() - empty)


@pytest.mark.parametrize("reward", ["probability", "log_probability"])
def test_a_regression_has_no_probabilities(x: Tensor, reward: str) -> None:
    with pytest.raises(ValueError, match=f"reward is '{reward}', but the model is a regression .* reward='output'"):
        CoalitionGame(vit(REGRESSION, 1), x, reward=reward)
    with pytest.raises(ValueError, match=r"the model is a regression .* which has no probabilities"):
        CoalitionGame(vit(REGRESSION, 1), x).class_probabilities(torch.ones(1, 16))
    with pytest.raises(ValueError, match="stop is 'flip', but the model is a regression"):
        MoXIDeletion(vit(REGRESSION, 2)).attribute(x, target=0, stop="flip")


def test_a_regression_is_not_explained_as_a_classifier() -> None:
    classifier = ImageClassifier(vit(REGRESSION, 1), demo_classifier("cpu").processor, "model")
    with pytest.raises(ValueError, match=r"model 'model' is a regression .* which has no classes; pass a classifier"):
        explain(classifier, Image.new("RGB", (32, 32)))


def test_the_head_follows_the_configuration() -> None:
    for problem_type, head in HEADS.items():
        assert head_of(vit(problem_type)) is head
        assert head_of(LogitsModel(vit(problem_type))) is head
        assert (
            head_of(
                BertForSequenceClassification(
                    BertConfig(
                        vocab_size=10,
                        hidden_size=8,
                        num_hidden_layers=1,
                        num_attention_heads=1,
                        intermediate_size=8,
                        problem_type=problem_type,
                    )
                )
            )
            is head
        )
        model = vit(problem_type)
        # a function may change the logits
        assert isinstance(head_of(lambda images: model(images).logits), Softmax)  # noqa: B023
    assert isinstance(head_of(vit(None)), Softmax)
    assert isinstance(head_of(vit("single_label_classification")), Softmax)
