"""Attacks against gradients worked by hand and against projected gradient descent written out, image by image."""

import copy
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, ViTImageProcessor

from captum_moxi import patch_mask
from captum_moxi.evaluation.adversarial import attack, perturbation_norms
from captum_moxi.models import ImageClassifier

MEAN, STD = [0.3, 0.4, 0.35], [0.2, 0.15, 0.18]


@pytest.fixture
def classifier(trained_resnet: PreTrainedModel) -> ImageClassifier:
    return ImageClassifier(trained_resnet, ViTImageProcessor(image_mean=MEAN, image_std=STD), "test")


@pytest.fixture
def inputs(classifier: ImageClassifier, square_images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Pixel values of images in [0, 1], and the colour of the brighter square."""
    return classifier.to_pixel_values(classifier.to_images(square_images[0])), square_images[1]


class Linear(nn.Module):
    """Two logits: the sum of the values times the weights, and 0."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        logits = (x * self.weights).flatten(1).sum(1)
        return torch.stack([logits, torch.zeros_like(logits)], 1)


def linear(weights: Tensor) -> ImageClassifier:
    return ImageClassifier(Linear(weights), ViTImageProcessor(do_normalize=False), "test")


def loss(classifier: ImageClassifier, x: Tensor, target: Any) -> Tensor:
    with torch.no_grad():
        return functional.cross_entropy(classifier.model(x).logits, target, reduction="none")


def test_the_images_stay_near_and_the_target_is_doubted(
    classifier: ImageClassifier, inputs: tuple[Tensor, Tensor]
) -> None:
    x, y = inputs
    attacked = attack(classifier, x, y, radius=2.0, step_size=0.4)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    images, perturbed = x * std + mean, attacked * std + mean
    norms = (perturbed - images).flatten(1).norm(dim=1)
    assert (norms <= 2.0 + 1e-4).all()
    assert perturbed.min() >= -1e-6
    assert perturbed.max() <= 1 + 1e-6
    assert (loss(classifier, attacked, y) > loss(classifier, x, y)).all()
    right = classifier.model(x).logits.argmax(1) == y
    assert right.any()
    assert (classifier.model(attacked).logits.argmax(1) != y)[right].all()


@pytest.mark.parametrize(("radius", "step_size", "n_steps"), [(1.0, 0.2, 10), (0.5, 0.3, 4), (1.0, 0.2, 2)])
def test_against_the_attack_written_out(
    classifier: ImageClassifier, inputs: tuple[Tensor, Tensor], radius: float, step_size: float, n_steps: int
) -> None:
    x, y = inputs
    attacked = attack(classifier, x, y, radius, step_size, n_steps)
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


def test_by_hand_on_a_linear_model() -> None:
    """The gradient is along the weights wherever the image is, so that all of it is on their two patches."""
    weights = torch.zeros(1, 3, 8, 8)
    weights[0, 1, 0, 5], weights[0, 2, 7, 1] = 3.0, -4.0
    x = torch.full((2, 3, 8, 8), 0.5)
    # two steps of a tenth; five that end at the edge
    for n_steps, length in ((2, 0.2), (5, 0.3)):
        difference = attack(linear(weights), x, 0, radius=0.3, step_size=0.1, n_steps=n_steps) - x
        torch.testing.assert_close(difference, (-length / 5 * weights).expand_as(x))
        norms = perturbation_norms(difference, patch_mask(8, 4))
        torch.testing.assert_close(norms, torch.tensor([[0, 0.6, 0.8, 0]]).double().expand(2, 4) * length)


def test_a_value_at_its_bound_stays() -> None:
    weights = torch.tensor([3.0, -4.0]).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)
    x = torch.tensor([0.0, 0.5]).expand(1, 3, 1, 2)
    attacked = attack(linear(weights), x, 0, radius=0.5, step_size=0.5, n_steps=1)
    assert torch.equal(attacked[..., 0], torch.zeros(1, 3, 1))
    torch.testing.assert_close(attacked[..., 1], torch.full((1, 3, 1), 0.5 + 0.5 * 0.8 / 3**0.5))


def test_targets_in_every_form(classifier: ImageClassifier, inputs: tuple[Tensor, Tensor]) -> None:
    x, _ = inputs
    wanted = attack(classifier, x, torch.tensor([1, 1, 1, 1]), n_steps=2)
    for target in (1, [1, 1, 1, 1], torch.tensor(1)):
        assert torch.equal(attack(classifier, x, target, n_steps=2), wanted)


@pytest.mark.parametrize("training", [False, True])
def test_all_is_as_it_was(classifier: ImageClassifier, inputs: tuple[Tensor, Tensor], training: bool) -> None:
    x, y = inputs
    model = copy.deepcopy(classifier.model).train(training)
    frozen, counted = list(model.parameters())[:2]
    frozen.requires_grad_(False)
    counted.grad = torch.ones_like(counted)
    before, kept = x.clone(), copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    with torch.no_grad():
        attacked = attack(ImageClassifier(model, classifier.processor, "test"), x, y, n_steps=2)
        assert not torch.is_grad_enabled()
    assert not attacked.requires_grad
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert model.training is training
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()][:2] == [False, True]
    assert torch.equal(counted.grad, torch.ones_like(counted))
    assert all(parameter.grad is None for parameter in list(model.parameters())[2:])
    assert torch.equal(torch.get_rng_state(), random)


def test_nothing_is_said(
    classifier: ImageClassifier, inputs: tuple[Tensor, Tensor], recwarn: pytest.WarningsRecorder
) -> None:
    attack(classifier, *inputs, n_steps=2)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"target": 3}, ValueError, "of which the model has 3"),
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
def test_what_cannot_be(
    change: dict[str, Any],
    error: type[Exception],
    said: str,
    classifier: ImageClassifier,
    inputs: tuple[Tensor, Tensor],
) -> None:
    with pytest.raises(error, match=said):
        attack(**({"classifier": classifier, "x": inputs[0], "target": 0} | change))


def test_norms_of_players_by_hand() -> None:
    difference = torch.zeros(2, 3, 2, 2)
    difference[0, 0, 0, 0], difference[0, 2, 0, 1], difference[0, 1, 1, 1] = 3.0, -4.0, 2.0
    difference[1] = 1.0
    # ids with a gap: the upper row, then the lower two
    mask = torch.tensor([[2, 2], [5, 9]])[None, None]
    three = 3**0.5
    wanted = torch.tensor([[5, 0, 2], [6**0.5, three, three]]).double()
    torch.testing.assert_close(perturbation_norms(difference, mask), wanted)
    # players of their own: the second image has no 5
    own = torch.cat([mask, torch.tensor([[2, 9], [9, 9]])[None, None]])
    wanted[1] = torch.tensor([three, 0, 3])
    torch.testing.assert_close(perturbation_norms(difference, own), wanted)


def test_squares_sum_to_the_whole() -> None:
    difference = torch.randn(3, 3, 32, 32)
    norms = perturbation_norms(difference, patch_mask(32, grid=5))
    torch.testing.assert_close(norms.square().sum(1), difference.double().square().flatten(1).sum(1))
    with pytest.raises(ValueError, match="does not broadcast"):
        perturbation_norms(difference, patch_mask(24, 8))


def test_a_single_logit() -> None:
    """Of a sigmoid classifier whose logit is the sum, doubt of the positive class is along -1."""
    model = zoo.resnet(labels=1).eval()
    x = torch.full((1, 3, 32, 32), 0.5)
    classifier = ImageClassifier(model, ViTImageProcessor(do_normalize=False), "test")
    with torch.no_grad():
        assert model(attack(classifier, x, 0)).logits < model(x).logits
