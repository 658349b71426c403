"""Attacks against gradients computed by hand, and against projected gradient descent written out for each image."""

import copy
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, ViTImageProcessor

from captum_moxi import patch_mask
from captum_moxi.models import ImageClassifier
from captum_moxi.perturbations.adversarial import attack, perturbation_norms

MEAN, STD = [0.3, 0.4, 0.35], [0.2, 0.15, 0.18]


@pytest.fixture
def classifier(trained_resnet: PreTrainedModel) -> ImageClassifier:
    return ImageClassifier(trained_resnet, ViTImageProcessor(image_mean=MEAN, image_std=STD), "test")


@pytest.fixture
def inputs(classifier: ImageClassifier, square_images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Pixel values of images in [0, 1], and the channel of the brighter square."""
    return classifier.to_pixel_values(classifier.to_images(square_images[0])), square_images[1]


class Linear(nn.Module):
    """Two logits: the weighted sum of the values, and 0."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        logits = (x * self.weights).flatten(1).sum(1)
        return torch.stack([logits, torch.zeros_like(logits)], 1)


def linear_classifier(weights: Tensor) -> ImageClassifier:
    return ImageClassifier(Linear(weights), ViTImageProcessor(do_normalize=False), "test")


def cross_entropy(classifier: ImageClassifier, x: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        return functional.cross_entropy(classifier.model(x).logits, target, reduction="none")


def test_images_stay_near_and_the_target_loses_confidence(
    classifier: ImageClassifier, inputs: tuple[Tensor, Tensor]
) -> None:
    x, y = inputs
    attacked = attack(classifier, x, target=y, radius=2.0, step_size=0.4)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    images, perturbed = x * std + mean, attacked * std + mean
    norms = (perturbed - images).flatten(1).norm(dim=1)
    assert (norms <= 2.0 + 1e-4).all()
    assert perturbed.min() >= -1e-6
    assert perturbed.max() <= 1 + 1e-6
    assert (cross_entropy(classifier, attacked, y) > cross_entropy(classifier, x, y)).all()
    correct = classifier.model(x).logits.argmax(1) == y
    assert correct.any()
    assert (classifier.model(attacked).logits.argmax(1) != y)[correct].all()


@pytest.mark.parametrize(("radius", "step_size", "n_steps"), [(1.0, 0.2, 10), (0.5, 0.3, 4), (1.0, 0.2, 2)])
def test_matches_the_attack_written_out(
    classifier: ImageClassifier, inputs: tuple[Tensor, Tensor], radius: float, step_size: float, n_steps: int
) -> None:
    x, y = inputs
    attacked = attack(classifier, x, target=y, radius=radius, step_size=step_size, n_steps=n_steps)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    for example in range(len(x)):
        start = image = x[example] * std + mean
        for _ in range(n_steps):
            image = image.detach().requires_grad_()
            logits = classifier.model(((image - mean) / std)[None]).logits[0]
            (gradient,) = torch.autograd.grad(logits.logsumexp(0) - logits[y[example]], image)
            moved = image.detach() + step_size * gradient / gradient.norm() - start
            image = (start + moved * min(1.0, radius / float(moved.norm()))).clamp(0, 1)
        torch.testing.assert_close(attacked[example], (image - mean) / std, rtol=0, atol=1e-3)


# The first attack ends inside the ball, the second at its edge.
@pytest.mark.parametrize(("n_steps", "length"), [(2, 0.2), (5, 0.3)])
def test_linear_model_by_hand(n_steps: int, length: float) -> None:
    """The gradient points along the weights everywhere, so the perturbation is on their two patches only."""
    weights = torch.zeros(1, 3, 8, 8)
    weights[0, 1, 0, 5], weights[0, 2, 7, 1] = 3.0, -4.0
    x = torch.full((2, 3, 8, 8), 0.5)
    attacked = attack(linear_classifier(weights), x, target=0, radius=0.3, step_size=0.1, n_steps=n_steps)
    torch.testing.assert_close(attacked - x, (-length / 5 * weights).expand_as(x))
    norms = perturbation_norms(attacked - x, patch_mask(8, 4))
    torch.testing.assert_close(norms, torch.tensor([[0, 0.6, 0.8, 0]]).double().expand(2, 4) * length)


def test_a_value_at_its_bound_stays() -> None:
    weights = torch.tensor([3.0, -4.0]).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)
    x = torch.tensor([0.0, 0.5]).expand(1, 3, 1, 2)
    attacked = attack(linear_classifier(weights), x, target=0, radius=0.5, step_size=0.5, n_steps=1)
    assert torch.equal(attacked[..., 0], torch.zeros(1, 3, 1))
    torch.testing.assert_close(attacked[..., 1], torch.full((1, 3, 1), 0.5 + 0.5 * 0.8 / 3**0.5))


@pytest.mark.parametrize("target", [1, [1, 1, 1, 1], torch.tensor(1)])
def test_all_target_forms_are_equivalent(
    target: Any, classifier: ImageClassifier, inputs: tuple[Tensor, Tensor]
) -> None:
    x, _ = inputs
    expected = attack(classifier, x, target=torch.tensor([1, 1, 1, 1]), n_steps=2)
    assert torch.equal(attack(classifier, x, target=target, n_steps=2), expected)


@pytest.mark.parametrize("training", [False, True])
def test_model_inputs_and_random_state_are_unchanged(
    classifier: ImageClassifier, inputs: tuple[Tensor, Tensor], training: bool
) -> None:
    x, y = inputs
    model = copy.deepcopy(classifier.model).train(training)
    frozen, with_gradient = list(model.parameters())[:2]
    frozen.requires_grad_(False)
    with_gradient.grad = torch.ones_like(with_gradient)
    x_before, state_before = x.clone(), copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    with torch.no_grad():
        attacked = attack(ImageClassifier(model, classifier.processor, "test"), x, target=y, n_steps=2)
        assert not torch.is_grad_enabled()
    assert not attacked.requires_grad
    assert torch.equal(x, x_before)
    assert not x.requires_grad
    assert model.training is training
    assert all(torch.equal(value, state_before[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()][:2] == [False, True]
    assert torch.equal(with_gradient.grad, torch.ones_like(with_gradient))
    assert all(parameter.grad is None for parameter in list(model.parameters())[2:])
    assert torch.equal(torch.get_rng_state(), random_state)


def test_no_warning_is_emitted(
    classifier: ImageClassifier, inputs: tuple[Tensor, Tensor], recwarn: pytest.WarningsRecorder
) -> None:
    attack(classifier, inputs[0], target=inputs[1], n_steps=2)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": 3}, ValueError, "of the model's 3 classes"),
        ({"target": [0, 1]}, ValueError, "2 entries for a batch of 4"),
        ({"target": None}, ValueError, "target is None"),
        ({"target": (0, 1)}, ValueError, "pass one class"),
        ({"target": 0.5}, TypeError, r"target is 0\.5"),
        ({"radius": 0.0}, ValueError, r"radius is 0\.0"),
        ({"step_size": -0.1}, ValueError, r"step_size is -0\.1"),
        ({"n_steps": 0}, ValueError, "n_steps is 0"),
        ({"n_steps": 2.0}, TypeError, r"n_steps is 2\.0"),
        ({"x": torch.zeros(3, 36, 36)}, ValueError, "x has shape"),
    ],
)
def test_invalid_arguments_are_rejected(
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
    classifier: ImageClassifier,
    inputs: tuple[Tensor, Tensor],
) -> None:
    with pytest.raises(error, match=message):
        attack(**({"classifier": classifier, "x": inputs[0], "target": 0} | arguments))


def test_norms_by_hand() -> None:
    difference = torch.zeros(2, 3, 2, 2)
    difference[0, 0, 0, 0], difference[0, 2, 0, 1], difference[0, 1, 1, 1] = 3.0, -4.0, 2.0
    difference[1] = 1.0
    # The ids have gaps. Player 2 is the upper row, 5 and 9 are the lower values.
    mask = torch.tensor([[2, 2], [5, 9]])[None, None]
    three_values = 3**0.5
    expected = torch.tensor([[5, 0, 2], [6**0.5, three_values, three_values]]).double()
    torch.testing.assert_close(perturbation_norms(difference, mask), expected)
    # The second example has players of its own, without player 5.
    own_mask = torch.cat([mask, torch.tensor([[2, 9], [9, 9]])[None, None]])
    expected[1] = torch.tensor([three_values, 0, 3])
    torch.testing.assert_close(perturbation_norms(difference, own_mask), expected)


def test_squared_norms_sum_to_the_squared_norm_of_the_perturbation() -> None:
    difference = torch.randn(3, 3, 32, 32)
    norms = perturbation_norms(difference, patch_mask(32, grid=5))
    torch.testing.assert_close(norms.square().sum(1), difference.double().square().flatten(1).sum(1))
    with pytest.raises(ValueError, match="does not broadcast"):
        perturbation_norms(difference, patch_mask(24, 8))


def test_the_logit_of_a_sigmoid_classifier_falls() -> None:
    model = zoo.resnet(labels=1).eval()
    x = torch.full((1, 3, 32, 32), 0.5)
    classifier = ImageClassifier(model, ViTImageProcessor(do_normalize=False), "test")
    with torch.no_grad():
        assert model(attack(classifier, x, target=0)).logits < model(x).logits
