"""Fast kernels in models: results equal those of PyTorch's kernels, whatever the model does with a layer's output."""

from threading import Barrier, Thread

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from zoo import TOKEN_MODELS, token_model

from captum_moxi.kernels import FastKernels, KernelMemory, fast_kernels, onednn, use_kernels


class TwoLayers(nn.Module):
    """Two linear layers with ``between`` applied to the output of the first."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5)
        self.between = between

    def forward(self, x):
        return self.second(self.between(self.first(x)))


def run(model, *inputs, memory=None, times=3):
    """Run a model several times with the alternative kernels, because it is fused from the second time on."""
    memory = memory or KernelMemory()
    outputs = []
    for _ in range(times):
        with torch.no_grad(), use_kernels("alternative"), fast_kernels(memory):
            outputs.append(model(*inputs))
    return outputs


@torch.jit.script
def doubled(x):
    """A function that torch function modes do not see."""
    return 2 * x


BETWEEN = {
    "gelu": gelu,
    "gelu tanh": lambda h: gelu(h, approximate="tanh"),
    "both variants of gelu": lambda h: gelu(h) + gelu(h, approximate="tanh"),
    "relu": torch.relu,
    "sigmoid gelu": lambda h: h * torch.sigmoid(1.702 * h),
    "gelu and the layer's output": lambda h: gelu(h) + h,
    "the layer's output and gelu": lambda h: h.clamp(min=-1) + gelu(h),
    "gelu of a view": lambda h: gelu(h[:, :]),
    "gelu after metadata": lambda h: gelu(h).view(h.shape).to(h.dtype),
    "gelu of something else": lambda h: h + gelu(torch.ones(8)),
    "stack": lambda h: torch.stack([h, gelu(h)]).sum(0),
    "numpy": lambda h: torch.from_numpy(h.detach().numpy().copy()) + gelu(h),
    "list": lambda h: torch.tensor(h.tolist()) + gelu(h),
    "script after gelu": lambda h: gelu(h) + doubled(h),
    "dlpack after gelu": lambda h: gelu(h) + torch.from_dlpack(h.detach()),
    "in place": lambda h: gelu(h.mul_(2)),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_any_use_of_a_layers_output_is_computed_correctly(name):
    model = TwoLayers(BETWEEN[name])
    x = torch.randn(4, 6)
    expected = model(x).detach()
    for output in run(model, x):
        torch.testing.assert_close(output, expected)


def test_a_layer_that_is_not_always_followed_by_gelu_is_computed_correctly():
    model = TwoLayers(gelu)
    x = torch.randn(4, 6)
    memory = KernelMemory()
    run(model, x, memory=memory)
    for between in (torch.relu, gelu, lambda h: gelu(h, approximate="tanh"), gelu):
        model.between = between
        expected = model(x).detach()
        for output in run(model, x, memory=memory, times=2):
            torch.testing.assert_close(output, expected)


def test_a_layer_at_the_end_of_the_model_is_computed_correctly():
    model = TwoLayers(gelu)
    x = torch.randn(4, 6)
    memory = KernelMemory()
    run(model, x, memory=memory)
    torch.testing.assert_close(run(model.first, x, memory=memory)[0], model.first(x).detach())


def test_hooks_see_the_output_of_a_layer_without_gelu():
    model = TwoLayers(gelu)
    x = torch.randn(4, 6)
    memory = KernelMemory()
    run(model, x, memory=memory)
    seen = []
    model.first.register_forward_hook(lambda _module, _args, output: seen.append(output.clone()))
    run(model, x, memory=memory)
    for output in seen:
        torch.testing.assert_close(output, nn.functional.linear(x, model.first.weight, model.first.bias).detach())


@pytest.mark.parametrize("name", TOKEN_MODELS)
def test_a_vision_transformer_has_the_same_logits(name):
    model = token_model(name)
    config = model.config
    x = torch.randn(3, config.num_channels, config.image_size, config.image_size)
    expected = model(x).logits.detach()
    for output in run(model, x):
        torch.testing.assert_close(output.logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_use_the_kernels_of_pytorch(dtype):
    model = TwoLayers(gelu).to(dtype)
    x = torch.randn(4, 6, dtype=dtype)
    for output in run(model, x):
        assert torch.equal(output, model(x))


def test_gradients_and_autocast_use_the_kernels_of_pytorch():
    model = TwoLayers(gelu)
    x = torch.randn(4, 6)
    with use_kernels("alternative"):
        with fast_kernels(KernelMemory()):
            assert model(x).requires_grad
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            expected = model(x)
            with fast_kernels(KernelMemory()):
                assert torch.equal(model(x), expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": torch.tensor([[True, False, True, True]] * 4)},
        {"attn_mask": torch.randn(4, 4)},
    ],
)
def test_attention_equals_that_of_pytorch(options):
    query, key, value = torch.randn(3, 2, 3, 4, 8)
    expected = scaled_dot_product_attention(query, key, value, **options)
    for output in run(lambda: scaled_dot_product_attention(query, key, value, **options)):
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize(("queries", "keys"), [(1, 5), (5, 1), (1, 1), (80, 3), (0, 3)])
def test_attention_of_any_length_equals_that_of_pytorch(queries, keys):
    query, key, value = torch.randn(2, 3, queries, 8), torch.randn(2, 3, keys, 8), torch.randn(2, 3, keys, 6)
    expected = scaled_dot_product_attention(query, key, value)
    for output in run(lambda: scaled_dot_product_attention(query, key, value)):
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize(
    ("inputs", "weight"),
    [
        (torch.randn(4, 6), torch.randn(6, 5).T),
        (torch.randn(6), torch.randn(5, 6)),
        (torch.randn(0, 6), torch.randn(5, 6)),
        (torch.randn(4, 6), torch.randn(6)),
        (torch.randn(2, 6, 4).transpose(1, 2), torch.randn(5, 12)[:, ::2]),
    ],
)
def test_unusual_linear_layers_equal_those_of_pytorch(inputs, weight):
    expected = nn.functional.linear(inputs, weight)
    for output in run(lambda: nn.functional.linear(inputs, weight)):
        torch.testing.assert_close(output, expected)


def test_other_threads_keep_the_kernels_of_pytorch():
    model = TwoLayers(gelu)
    x = torch.randn(4, 6)
    with torch.no_grad():
        expected = model(x)
    inside, finished = Barrier(2), Barrier(2)
    outputs = []

    def call_directly():
        inside.wait()
        with torch.no_grad():
            outputs.extend(model(x) for _ in range(20))
        finished.wait()

    thread = Thread(target=call_directly)
    thread.start()
    with torch.no_grad(), use_kernels("alternative"), fast_kernels(KernelMemory()):
        inside.wait()
        for _ in range(20):
            model(x)
        finished.wait()
    thread.join()
    assert all(torch.equal(output, expected) for output in outputs)


def test_a_compiled_model_is_computed_correctly():
    model = TwoLayers(gelu)
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(4, 6)
    for output in run(compiled, x):
        torch.testing.assert_close(output, model(x).detach())


def keep_output(h):
    result = gelu(h)
    return result + 0 * h


@pytest.mark.parametrize(("between", "fused"), [(gelu, [0, 1, 1, 1]), (keep_output, [0, 0, 0, 0])])
def test_a_layer_is_fused_from_the_second_pass_on_if_the_model_drops_its_output(between, fused, monkeypatch):
    calls = []
    compute = onednn.linear_gelu
    monkeypatch.setattr(onednn, "linear_gelu", lambda *args: calls.append(1) or compute(*args))
    model, memory = TwoLayers(between), KernelMemory()
    counts = []
    for _ in range(4):
        run(model, torch.randn(4, 6), memory=memory, times=1)
        counts.append(len(calls))
        calls.clear()
    assert counts == fused


def test_a_layer_that_was_fused_wrongly_is_never_fused_again():
    model, memory = TwoLayers(gelu), KernelMemory()
    x = torch.randn(4, 6)
    run(model, x, memory=memory)
    model.between = keep_output
    run(model, x, memory=memory)
    assert memory.followed_by_gelu == {id(model.first.weight): None}


@pytest.mark.parametrize("model", [nn.Conv2d(3, 4, 2), TwoLayers(gelu).bfloat16()])
def test_a_model_without_replaceable_kernels_runs_without_the_mode(model):
    memory = KernelMemory()
    x = torch.randn(2, 3, 4, 4) if isinstance(model, nn.Conv2d) else torch.randn(4, 6, dtype=torch.bfloat16)
    run(model, x, memory=memory, times=1)
    used = KernelMemory()
    run(TwoLayers(gelu), torch.randn(4, 6), memory=used, times=1)
    with torch.no_grad():
        assert not isinstance(fast_kernels(memory), FastKernels)
        assert isinstance(fast_kernels(used), FastKernels)
