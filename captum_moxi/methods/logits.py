"""Adapts models to Captum's classes."""

from typing import Any

from torch import Tensor

from captum_moxi.arguments import ForwardFunc
from captum_moxi.models import call_model


def two_dimensional_logits(forward_func: ForwardFunc) -> ForwardFunc:
    """Wrap a model so that it returns logits ``(B, classes)``, which Captum indexes with the target.

    Args:
        forward_func (Callable): A transformers model, or any function that returns logits ``(B, classes)``, or ``(B,)``
            for a single logit.

    Returns:
        Callable: Function that returns ``(B, classes)``, or ``(B, 1)`` for a single logit.
    """

    def forward(*args: Any) -> Tensor:
        output: Tensor = call_model(forward_func, *args)
        return output[:, None] if output.dim() == 1 else output

    return forward
