"""Computes a linear layer and the GELU that follows it in one step, in models that call them one after the other."""

import weakref
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
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
class _Finished:
    """A linear layer whose output went into GELU, while the model may still hold that output.

    ``has_gelu`` is whether the output contains GELU, which was then computed in the layer.
    """

    call: _LinearCall
    output: "weakref.ref[Tensor]"
    approximate: str
    has_gelu: bool


class GeluFusion:
    """Replaces linear layers and GELU in one forward pass.

    A layer is fused with GELU from its second pass on, if the model dropped its output right after GELU in the first
    pass. If anything but GELU reads the output in a later pass, it is computed again without GELU first, and the layer
    is never fused again.

    Args:
        followed_by_gelu (dict): For each linear layer whose output went into GELU before, by the id of its weight: the
            argument ``approximate`` of GELU, or None if the layer must not be fused. Layers are added and changed.
    """

    def __init__(self, followed_by_gelu: dict[int, str | None]) -> None:
        self._followed_by_gelu = followed_by_gelu
        self._pending: _Pending | None = None
        self._finished: _Finished | None = None

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
        has_gelu = pending.approximate == approximate
        if pending.approximate is not None and not has_gelu:
            self._remove_gelu(pending)
        else:
            self._finished = _Finished(pending.call, weakref.ref(input), approximate, has_gelu)
        return input.detach() if has_gelu else gelu(input, approximate=approximate)

    def before(self, func: Any, arguments: object) -> None:
        """Call this before any function of tensors runs.

        Args:
            func (Callable): Function.
            arguments (Any): All of its arguments, in any structure of lists, tuples and dicts.
        """
        if func in METADATA:
            return
        self._check_finished()
        pending = self._pending
        if pending is None or func is gelu:
            return
        if pending.approximate is None:
            self._pending = None
        elif any(leaf is pending.output for leaf in tree_leaves(arguments)):
            self._remove_gelu(pending)

    def finish(self) -> None:
        """Call this at the end of the pass."""
        self._check_finished()
        if self._pending is not None and self._pending.approximate is not None:
            self._remove_gelu(self._pending)

    def _check_finished(self) -> None:
        """Find out whether the model still holds the output of a layer after GELU."""
        finished, self._finished = self._finished, None
        if finished is None:
            return
        output, weight = finished.output(), finished.call.weight
        if output is None:
            # Other weights may be created anew in each pass.
            if isinstance(weight, nn.Parameter):
                self._followed_by_gelu.setdefault(id(weight), finished.approximate)
            return
        self._followed_by_gelu[id(weight)] = None
        if finished.has_gelu:
            # The result of GELU shares the old values.
            output.data = finished.call.compute(None)

    def _remove_gelu(self, pending: _Pending) -> None:
        self._pending = None
        self._followed_by_gelu[id(pending.call.weight)] = None
        pending.output.copy_(pending.call.compute(None))
