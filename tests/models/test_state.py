from collections.abc import Callable

import pytest
import torch
import zoo
from torch import nn

from captum_moxi import models


@pytest.mark.parametrize(
    ("layer", "name"), [(nn.Dropout(0.5), "Dropout"), (nn.BatchNorm1d(3), "BatchNorm1d"), (nn.Dropout(0.0), None)]
)
def test_layers_that_make_passes_differ_are_found_in_training_mode(layer: nn.Module, name: str | None) -> None:
    model = nn.Sequential(nn.Linear(3, 3), layer)
    assert models.find_random_layer(model) == name
    assert models.find_random_layer(model.eval()) is None
    assert models.find_random_layer(lambda x: x) is None


@pytest.mark.parametrize(
    "build",
    [
        lambda: zoo.ViTForImageClassification(
            zoo.ViTConfig(**zoo.SIZE, hidden_dropout_prob=0, attention_probs_dropout_prob=0.5)
        ),
        lambda: zoo.Dinov2ForImageClassification(zoo.Dinov2Config(**zoo.SIZE, drop_path_rate=0.5)),
    ],
    ids=["attention dropout", "stochastic depth"],
)
def test_functional_dropout_in_layers_of_transformers_is_found(build: Callable[[], nn.Module]) -> None:
    assert models.find_random_layer(build().train())
    assert models.find_random_layer(build().eval()) is None


def test_random_state_and_batch_statistics_are_restored_after_success_and_error() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    with models.preserved_state(model, {torch.device("cpu")}):
        model(torch.randn(8, 3))
        assert model[0].num_batches_tracked == 1
    with pytest.raises(KeyboardInterrupt), models.preserved_state(model, {torch.device("cpu")}):
        model(torch.randn(8, 3))
        raise KeyboardInterrupt
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_attention_implementation_is_sdpa_inside_and_restored_after_success_and_error() -> None:
    model = zoo.token_model("vit")
    model.set_attn_implementation("eager")
    with models.sdpa_attention(model):
        assert model.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == "eager"
    with pytest.raises(KeyboardInterrupt), models.sdpa_attention(model):
        raise KeyboardInterrupt
    assert model.config._attn_implementation == "eager"
    with models.sdpa_attention(lambda x: x):
        pass
