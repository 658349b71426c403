"""The training loop: interrupted runs end like uninterrupted ones, and patches are removed as token removal does."""

from pathlib import Path

import pytest
import torch
import zoo
from torch import Tensor
from transformers import PreTrainedModel

from captum_moxi import CoalitionGame
from captum_moxi.experiments.training import LossFunction, TrainingStep, fit, logits_of_patches


def make() -> PreTrainedModel:
    return zoo.resnet(labels=3)


def random_batch_loss(model: PreTrainedModel, step: TrainingStep) -> Tensor:
    images = torch.randn(4, 3, 32, 32, generator=step.generator)
    labels = torch.randint(3, (4,), generator=step.generator)
    return torch.nn.functional.cross_entropy(model(images).logits, labels)


def interrupted_in(epoch: int) -> LossFunction:
    """A loss that interrupts the training at the beginning of an epoch."""

    def loss(model: PreTrainedModel, step: TrainingStep) -> Tensor:
        if step.epoch == epoch:
            raise KeyboardInterrupt
        return random_batch_loss(model, step)

    return loss


def assert_same_weights(first: PreTrainedModel, second: PreTrainedModel) -> None:
    for name, values in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], values), name


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path: Path, epoch: int) -> None:
    uninterrupted = fit(tmp_path / "uninterrupted", make=make, loss=random_batch_loss, epochs=3, steps=2)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "model", make=make, loss=interrupted_in(epoch), epochs=3, steps=2)
    assert not (tmp_path / "model").exists()
    # A run that is killed while it saves leaves this folder behind.
    (tmp_path / "model.part").mkdir()
    torch.manual_seed(99)
    resumed = fit(tmp_path / "model", make=make, loss=random_batch_loss, epochs=3, steps=2)
    assert not resumed.training
    assert_same_weights(uninterrupted, resumed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "uninterrupted"]


def test_steps_are_counted_and_each_epoch_has_its_own_batches(tmp_path: Path) -> None:
    positions: list[tuple[int, int]] = []
    numbers: list[float] = []

    def loss(model: PreTrainedModel, step: TrainingStep) -> Tensor:
        positions.append((step.epoch, step.index))
        numbers.append(float(torch.rand((), generator=step.generator)))
        return random_batch_loss(model, step)

    fit(tmp_path / "model", make=make, loss=loss, epochs=2, steps=3)
    assert positions == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert len(set(numbers)) == 6


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])

    def single_batch_loss(model: PreTrainedModel, step: TrainingStep) -> Tensor:
        return torch.nn.functional.cross_entropy(model(images).logits, labels)

    model = fit(tmp_path / "model", make=make, loss=single_batch_loss, epochs=2, steps=20, rate=1e-2)
    # The loss of a uniform prediction is ln 3.
    assert torch.nn.functional.cross_entropy(model.train()(images).logits, labels).item() < 0.5


def test_an_existing_model_is_not_trained_again(tmp_path: Path) -> None:
    trained = fit(tmp_path / "model", make=make, loss=random_batch_loss, epochs=1, steps=1)
    loaded = fit(tmp_path / "model", make=make, loss=interrupted_in(0), epochs=1, steps=1)
    assert_same_weights(trained, loaded)


def test_a_checkpoint_of_another_length_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "model", make=make, loss=interrupted_in(1), epochs=3, steps=2)
    with pytest.raises(ValueError, match="3 epochs of 2 steps"):
        fit(tmp_path / "model", make=make, loss=random_batch_loss, epochs=4, steps=2)


def test_patches_are_removed_as_token_removal_does() -> None:
    model = zoo.randomised(zoo.token_model("vit"))
    pixel_values = torch.randn(2, 3, 32, 32)
    patches = torch.tensor([[3, 15, 0], [9, 4, 8]])
    with torch.no_grad():
        logits = logits_of_patches(model, pixel_values, patches)
        for example in range(2):
            game = CoalitionGame(model, pixel_values[example : example + 1], target=4, reward="logit")
            present = torch.zeros(1, 16, dtype=torch.bool)
            present[0, patches[example]] = True
            torch.testing.assert_close(logits[example, 4], game(present)[0], rtol=0, atol=1e-4)


def test_all_patches_in_any_order_give_the_logits_of_the_model() -> None:
    model = zoo.token_model("vit")
    pixel_values = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits = model(pixel_values).logits
        reversed_patches = torch.arange(16).flip(0).expand(2, -1)
        torch.testing.assert_close(logits_of_patches(model, pixel_values, reversed_patches), logits)
        # The hook is removed.
        assert torch.equal(model(pixel_values).logits, logits)
