"""Function modes that change attention and means while a model runs, in this thread only."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import multi_head_attention_forward, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class GatedAttention(TorchFunctionMode):
    """Multiply the weight of each key in every attention by a gate from 0 (absent) to 1 (present).

    The logarithm of a gate is added to the attention scores. Any attention implementation that accepts a mask can
    therefore apply it.

    Args:
        gates (Callable): Maps the query of the next attention and its number of keys to its gates ``(rows, keys)``, or
            to None, which leaves the attention unchanged.
    """

    # Added to each gate, because the logarithm and its derivative are infinite at 0.
    EPSILON = 1e-6

    def __init__(self, gates: Callable[[Tensor, int], Tensor | None]) -> None:
        super().__init__()
        self.gates = gates

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        gated = {
            scaled_dot_product_attention: self._scaled_dot_product,
            multi_head_attention_forward: self._multi_head,
        }
        return gated.get(func, func)(*args, **(kwargs or {}))

    def _scaled_dot_product(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        bias = self._bias(query, key.shape[-2])
        if bias is None:
            return scaled_dot_product_attention(query, key, value, attn_mask, *args, **kwargs)
        # In half precision, the contribution of a gate near 0 would be lost.
        query_, key_, value_ = (part.to(bias.dtype) for part in (query, key, value))
        mask = _add_mask(bias, attn_mask)
        return scaled_dot_product_attention(query_, key_, value_, mask, *args, **kwargs).to(query.dtype)

    def _multi_head(self, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        # Sequences have shape (length, rows, width).
        bias = self._bias(query, len(key))
        if bias is not None:
            # The function expects one mask for each row and head. Its fifth argument is the number of heads.
            n_heads = args[2]
            bias = bias.expand(-1, n_heads, len(query), -1).flatten(0, 1).to(query.dtype)
            kwargs["attn_mask"] = _add_mask(bias, kwargs.get("attn_mask"))
        return multi_head_attention_forward(query, key, *args, **kwargs)

    def _bias(self, query: Tensor, n_keys: int) -> Tensor | None:
        """Return what is added to the attention scores, ``(rows, 1, 1, keys)``, or None if nothing is."""
        gates = self.gates(query, n_keys)
        return None if gates is None else (gates + self.EPSILON).log()[:, None, None, :]


class ChangedScores(TorchFunctionMode):
    """Change the tensors that attention adds to its scores: in additions, and in the mask of fused attention.

    Args:
        change (Callable): Maps each tensor to the tensor to use. It must return all other tensors unchanged.
    """

    ADDITIONS = (Tensor.add, torch.add, scaled_dot_product_attention)

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.ADDITIONS:
            args = tuple(self._changed(value) for value in args)
            kwargs = {name: self._changed(value) for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _changed(self, value: Any) -> Any:
        return self.change(value) if isinstance(value, Tensor) else value


class EmptyMeanIsZero(TorchFunctionMode):
    """Replace NaN with zero in the results of functions of empty tensors, such as the mean over no tokens."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operands = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if isinstance(result, Tensor) and result.is_floating_point() and any(x.numel() == 0 for x in operands):
            return result.nan_to_num(nan=0.0)
        return result


def _add_mask(bias: Tensor, mask: Tensor | None) -> Tensor:
    """Combine the bias with an attention mask, which is either boolean or additive."""
    if mask is None:
        return bias
    return bias.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else bias + mask
