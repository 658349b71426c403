from pathlib import Path

import pytest
import torch
import zoo
from torch import Tensor
from transformers import PreTrainedModel

from captum_moxi.evaluation.training import LossOf, fit


def make() -> PreTrainedModel:
    return zoo.resnet(labels=3)


def loss_of(model: PreTrainedModel, epoch: int, rng: torch.Generator) -> Tensor:
    images = torch.randn(4, 3, 32, 32, generator=rng)
    return torch.nn.functional.cross_entropy(model(images).logits, torch.randint(3, (4,), generator=rng))


def stopping_at(last: int) -> LossOf:
    def stopping(model: PreTrainedModel, epoch: int, rng: torch.Generator) -> Tensor:
        if epoch == last:
            raise KeyboardInterrupt
        return loss_of(model, epoch, rng)

    return stopping


@pytest.mark.parametrize("interrupted", [0, 1, 2])
def test_a_run_that_was_interrupted_ends_like_one_that_was_not(tmp_path: Path, interrupted: int) -> None:
    whole = fit(tmp_path / "whole", make, loss_of, epochs=3, steps=2)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "model", make, stopping_at(interrupted), epochs=3, steps=2)
    assert not (tmp_path / "model").exists()
    # what a run that was killed while it saved leaves behind
    (tmp_path / "model.part").mkdir()
    torch.manual_seed(99)
    resumed = fit(tmp_path / "model", make, loss_of, epochs=3, steps=2)
    assert not resumed.training
    for name, values in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], values), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "whole"]


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])

    def one_batch(model: PreTrainedModel, epoch: int, rng: torch.Generator) -> Tensor:
        return torch.nn.functional.cross_entropy(model(images).logits, labels)

    model = fit(tmp_path / "model", make, one_batch, epochs=2, steps=20, rate=1e-2)
    # chance is ln 3
    assert one_batch(model.train(), 0, torch.Generator()).item() < 0.5


def test_a_model_that_is_there_is_not_trained_again(tmp_path: Path) -> None:
    trained = fit(tmp_path / "model", make, loss_of, epochs=1, steps=1)
    found = fit(tmp_path / "model", make, stopping_at(0), epochs=1, steps=1)
    for name, values in trained.state_dict().items():
        assert torch.equal(found.state_dict()[name], values), name


def test_a_checkpoint_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "model", make, stopping_at(1), epochs=3, steps=2)
    with pytest.raises(ValueError, match="3 epochs of 2 steps"):
        fit(tmp_path / "model", make, loss_of, epochs=4, steps=2)
