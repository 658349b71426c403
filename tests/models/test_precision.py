"""Models in another precision against Module.to on a deep copy."""

import copy

import pytest
import torch
from torch import nn
from zoo import TOKEN_MODELS, resnet, token_model

from captum_moxi.models.precision import in_precision


class Tied(nn.Module):
    """Two layers with one weight, an integer buffer, and an argument that selects a row."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("order", torch.tensor([2, 0, 1, 3]))
        self.register_buffer("shift", torch.randn(4))

    def forward(self, x, *, scale):
        return self.second(self.first(x)[:, self.order] + self.shift) * scale


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", [*TOKEN_MODELS, "resnet"])
def test_logits_equal_those_of_a_converted_copy(name, dtype):
    model = resnet() if name == "resnet" else token_model(name)
    size = getattr(model.config, "image_size", 32)
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = copy.deepcopy(model).to(dtype)(x.to(dtype)).logits
        logits = in_precision(model, dtype)(x).logits
    assert logits.dtype is dtype
    assert torch.equal(logits, expected)


def test_the_model_keeps_its_weights_and_hooks():
    model = token_model("vit")
    x = torch.randn(2, 3, model.config.image_size, model.config.image_size)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    expected = model(x).logits
    in_precision(model, torch.bfloat16)(x)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert torch.equal(model(x).logits, expected)


def test_shared_weights_integers_and_keyword_arguments_are_kept():
    model = Tied()
    x, scale = torch.randn(3, 4), torch.tensor(2.0)
    converted = in_precision(model, torch.float64)
    assert converted.first.weight is converted.second.weight
    assert converted.order.dtype is torch.int64
    torch.testing.assert_close(
        converted(x, scale=scale), copy.deepcopy(model).double()(x.double(), scale=scale.double())
    )


def test_functions_and_methods_are_not_converted():
    model = Tied()
    assert in_precision(lambda x: model(x, scale=1), torch.bfloat16) is None
    assert in_precision(model.forward, torch.bfloat16) is None


def test_a_model_that_a_library_patched_is_not_converted():
    model = Tied()
    model.forward = lambda x: x
    assert in_precision(model, torch.bfloat16) is None


def test_a_cache_of_tensors_is_not_shared():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias, self.cache = nn.Parameter(torch.randn(4)), {}

        def forward(self, x):
            return x + self.cache.setdefault("bias", self.bias.detach())

    model, x = Cached(), torch.randn(2, 4)
    assert in_precision(model, torch.bfloat16)(x).dtype is torch.bfloat16
    assert torch.equal(model(x), x + model.bias)
    # the model's own cache is filled now
    assert in_precision(model, torch.bfloat16)(x).dtype is torch.bfloat16
    assert model.cache["bias"].dtype is torch.float32
