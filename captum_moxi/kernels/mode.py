"""A function mode that replaces kernels while a model runs on a CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from captum_moxi.kernels import onednn
from captum_moxi.kernels.choices import is_faster
from captum_moxi.kernels.fusion import GeluFusion

# Rows of a linear layer on which kernels are measured. More rows would take longer, and do not change the choice.
MEASURED_ROWS = 2048
# Examples of an attention on which kernels are measured.
MEASURED_EXAMPLES = 64
# Longest sequence for which attention may be computed by matrix products, which keep all scores in memory.
LONGEST_SEQUENCE = 64


class KernelMemory:
    """What earlier passes of a model showed about its linear layers and attention.

    Attributes:
        followed_by_gelu (dict): See :class:`captum_moxi.kernels.fusion.GeluFusion`.
        is_replaceable (bool): False if a pass showed that no kernel of the model can be replaced.
    """

    def __init__(self) -> None:
        self.followed_by_gelu: dict[int, str | None] = {}
        self.is_replaceable = True


class FastKernels(TorchFunctionMode):
    """Compute linear layers, GELU and attention in float32 by the fastest kernels, in this thread and until exit.

    Args:
        memory (KernelMemory): Pass the same object whenever the same model runs.
    """

    def __init__(self, memory: KernelMemory) -> None:
        super().__init__()
        self._memory = memory
        self._saw_replaceable = False
        self._fusion = GeluFusion(memory.followed_by_gelu)
        self._kernels: dict[Any, Callable[..., Tensor]] = {
            linear: self._linear,
            gelu: self._fusion.gelu,
            scaled_dot_product_attention: self._attention,
        }

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # The compiler records what a model calls, and chooses kernels itself.
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        self._fusion.before(func, (args, kwargs))
        return self._kernels.get(func, func)(*args, **kwargs)

    def __exit__(self, *error: object) -> None:
        self._fusion.finish()
        if error[0] is None and not self._saw_replaceable:
            self._memory.is_replaceable = False
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not _is_replaceable_linear(input, weight, bias):
            return linear(input, weight, bias)
        self._saw_replaceable = True
        if not _linear_is_replaced(input, weight, bias):
            return linear(input, weight, bias)
        return self._fusion.linear(input, weight, bias)

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        options = _AttentionOptions(*args, **kwargs)
        if not options.are_plain or not _is_replaceable_attention(query, key, value):
            return scaled_dot_product_attention(query, key, value, *args, **kwargs)
        self._saw_replaceable = True
        if not _attention_is_replaced(query, key, value, options.scale):
            return scaled_dot_product_attention(query, key, value, scale=options.scale)
        return _attention_by_products(query, key, value, options.scale)


def _is_replaceable_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether oneDNN has a fast kernel for a layer. It has none for weights or inputs with gaps."""
    return (
        _are_plain(inputs, weight, bias)
        and weight.dim() == 2
        and inputs.dim() >= 2
        and weight.is_contiguous()
        and inputs.is_contiguous()
        and onednn.is_available()
    )


def _linear_is_replaced(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    rows = inputs.view(-1, inputs.shape[-1])
    sample = rows[:MEASURED_ROWS]
    return is_faster(
        ("linear", tuple(weight.shape), len(sample).bit_length()),
        lambda: onednn.linear(sample, weight, bias),
        lambda: linear(sample, weight, bias),
    )


@dataclass(frozen=True, eq=False)
class _AttentionOptions:
    """The optional arguments of ``scaled_dot_product_attention``."""

    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    @property
    def are_plain(self) -> bool:
        """Whether attention is softmax(scale q k) v, without a mask."""
        return self.attn_mask is None and not self.dropout_p and not self.is_causal and not self.enable_gqa


def _is_replaceable_attention(query: Tensor, key: Tensor, value: Tensor) -> bool:
    if not _are_plain(query, key, value) or query.dim() != 4 or max(query.shape[2], key.shape[2]) > LONGEST_SEQUENCE:
        return False
    return query.shape[:2] == key.shape[:2] and key.shape[:3] == value.shape[:3]


def _attention_is_replaced(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> bool:
    q, k, v = (x[:MEASURED_EXAMPLES] for x in (query, key, value))
    return is_faster(
        ("attention", tuple(query.shape[1:]), tuple(key.shape[2:]), value.shape[3], len(q).bit_length()),
        lambda: _attention_by_products(q, k, v, scale),
        lambda: scaled_dot_product_attention(q, k, v, scale=scale),
    )


def _attention_by_products(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Compute attention by two matrix products. It takes less time than the fused kernel for short sequences."""
    if scale is None:
        scale = query.shape[-1] ** -0.5
    scores = torch.matmul(query * scale, key.transpose(-2, -1))
    return torch.matmul(scores.softmax(-1), value)


def _are_plain(*tensors: Tensor | None) -> bool:
    """Return whether tensors are dense float32 tensors on the CPU with at least one value."""
    return all(
        x is None
        or (x.dtype is torch.float32 and x.device.type == "cpu" and x.layout is torch.strided and x.numel() > 0)
        for x in tensors
    )
