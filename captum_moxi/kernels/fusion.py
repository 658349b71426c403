"""Computes a linear layer and the GELU that follows it in one step, in models that call them one after the other."""

import weakref
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import gelu
from torch.utils._pytree import tree_leaves

from captum_moxi.kernels import onednn

# Functions of a tensor that do not read its values.
METADATA = {
    Tensor.dim,
    Tensor.size,
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad")),
}


@dataclass(frozen=True, eq=False)
class _LinearCall:
    """The arguments of a linear layer."""

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None

    def compute(self, approximate: str | None) -> Tensor:
        """Run the layer, followed by this variant of GELU unless it is None."""
        if approximate is None:
            return onednn.linear(self.inputs, self.weight, self.bias)
        return onednn.linear_gelu(self.inputs, self.weight, self.bias, approximate)


@dataclass(frozen=True, eq=False)
class _Pending:
    """A linear layer that has just run. ``approximate`` is the variant of GELU that its output contains, or None."""

    call: _LinearCall
    output: Tensor
    approximate: str | None


@dataclass(frozen=True, eq=False)
class _Fused:
    """A linear layer whose output, which contains GELU, went into GELU. The model may still hold that output."""

    call: _LinearCall
    output: "weakref.ref[Tensor]"


class GeluFusion:
    """Replaces linear layers and GELU in one forward pass.

    If the output of a layer contains GELU, and anything but that GELU reads it or could read it later, it is computed
    again without GELU. The results are therefore correct for any model.

    Args:
        followed_by_gelu (dict): For each linear layer whose output went into GELU before, by the id of its weight: the
            argument ``approximate`` of GELU. Layers are added and removed.
    """

    def __init__(self, followed_by_gelu: dict[int, str]) -> None:
        self._followed_by_gelu = followed_by_gelu
        self._pending: _Pending | None = None
        self._fused: _Fused | None = None

    def linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute ``torch.nn.functional.linear``, and GELU as well if it followed before."""
        call = _LinearCall(inputs, weight, bias)
        approximate = self._followed_by_gelu.get(id(weight))
        output = call.compute(approximate)
        self._pending = _Pending(call, output, approximate)
        return output

    def gelu(self, input: Tensor, *, approximate: str = "none") -> Tensor:
        """Compute ``torch.nn.functional.gelu``, unless the linear layer before has already done it."""
        pending, self._pending = self._pending, None
        if pending is None or pending.output is not input:
            return gelu(input, approximate=approximate)
        if pending.approximate == approximate:
            self._fused = _Fused(pending.call, weakref.ref(input))
            return input.detach()
        if pending.approximate is not None:
            input.copy_(pending.call.compute(None))
        self._followed_by_gelu[id(pending.call.weight)] = approximate
        return gelu(input, approximate=approximate)

    def before(self, func: Any, arguments: object) -> None:
        """Call this before any function of tensors runs.

        Args:
            func (Callable): Function.
            arguments (Any): All of its arguments, in any structure of lists, tuples and dicts.
        """
        if func in METADATA:
            return
        self._check_fused()
        pending = self._pending
        if pending is None or func is gelu:
            return
        if pending.approximate is None:
            self._pending = None
        elif any(leaf is pending.output for leaf in tree_leaves(arguments)):
            self._remove_gelu(pending)

    def finish(self) -> None:
        """Call this at the end of the pass."""
        self._check_fused()
        if self._pending is not None and self._pending.approximate is not None:
            self._remove_gelu(self._pending)

    def _check_fused(self) -> None:
        """If the model still holds the output of a layer after GELU, replace its values by those without GELU."""
        fused, self._fused = self._fused, None
        output = None if fused is None else fused.output()
        if fused is not None and output is not None:
            # The result of GELU shares the old values.
            output.data = fused.call.compute(None)
            self._followed_by_gelu.pop(id(fused.call.weight), None)

    def _remove_gelu(self, pending: _Pending) -> None:
        self._pending = None
        pending.output.copy_(pending.call.compute(None))
        self._followed_by_gelu.pop(id(pending.call.weight), None)
