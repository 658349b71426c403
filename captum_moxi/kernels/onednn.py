"""Linear layers computed by oneDNN, by an operator that PyTorch keeps for its compiler.

This module contains everything of captum_moxi that is not public API of PyTorch. If a PyTorch version lacks the
operator or changes it, :func:`is_available` returns False, and PyTorch's own kernels are used.
"""

import functools

import torch
from torch import Tensor

# Declaration of the operator that this module was written for, without the names that do not matter for a call.
ARGUMENTS = ["Tensor", "Tensor", "Optional[Tensor]", "str", "List[Optional[number]]", "Optional[str]"]


@functools.cache
def is_available() -> bool:
    """Return whether this build of PyTorch contains the operator with the expected arguments."""
    if not torch.backends.mkldnn.is_available():
        return False
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if operator is None or "default" not in operator.overloads():
        return False
    return [str(argument.type) for argument in operator.default._schema.arguments] == ARGUMENTS


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``torch.nn.functional.linear``.

    Args:
        inputs (Tensor): Shape ``(..., in_features)``, float32, on the CPU, with at least one value.
        weight (Tensor): Shape ``(out_features, in_features)``, float32, on the CPU.
        bias (Tensor or None): Shape ``(out_features,)``, float32, on the CPU.

    Returns:
        Tensor: Shape ``(..., out_features)``. It has no gradient.
    """
    return _pointwise(inputs, weight, bias, "none", "")


def linear_gelu(inputs: Tensor, weight: Tensor, bias: Tensor | None, approximate: str) -> Tensor:
    """Compute ``torch.nn.functional.gelu`` of a linear layer in one pass over the memory.

    Args:
        inputs, weight, bias: See :func:`linear`.
        approximate (str): ``"none"`` or ``"tanh"``, as in ``torch.nn.functional.gelu``.

    Returns:
        Tensor: Shape ``(..., out_features)``. It has no gradient.
    """
    return _pointwise(inputs, weight, bias, "gelu", approximate)


def _pointwise(inputs: Tensor, weight: Tensor, bias: Tensor | None, function: str, algorithm: str) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, function, [], algorithm)
    return result
