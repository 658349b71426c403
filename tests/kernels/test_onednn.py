"""The operator of oneDNN: it exists in this version of PyTorch, and computes what PyTorch's own functions compute."""

import pytest
import torch
from torch.nn.functional import gelu, linear

from captum_moxi.kernels import onednn

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")


@needs_onednn
def test_this_version_of_pytorch_contains_the_operator():
    # A failure means that a new version of PyTorch changed it: searches are still correct, but slower on some CPUs.
    assert onednn.is_available()


@needs_onednn
@pytest.mark.parametrize("shape", [(1, 3), (5, 3), (2, 7, 3), (2, 3, 4, 3)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_layer_equals_that_of_pytorch(shape, has_bias):
    inputs, weight = torch.randn(shape), torch.randn(4, 3)
    bias = torch.randn(4) if has_bias else None
    torch.testing.assert_close(onednn.linear(inputs, weight, bias), linear(inputs, weight, bias))


@needs_onednn
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_a_linear_layer_with_gelu_equals_those_of_pytorch(approximate):
    inputs, weight, bias = torch.randn(2, 7, 3), torch.randn(4, 3), torch.randn(4)
    expected = gelu(linear(inputs, weight, bias), approximate=approximate)
    torch.testing.assert_close(onednn.linear_gelu(inputs, weight, bias, approximate), expected)


@needs_onednn
def test_inputs_with_gaps_are_computed_correctly():
    inputs = torch.randn(5, 2, 8)[:, 1, 2:5]
    weight = torch.randn(4, 3)
    torch.testing.assert_close(onednn.linear(inputs, weight, None), linear(inputs, weight))
