"""Helpers that keep the signature of ``attribute`` for editors and type checkers."""

from collections.abc import Callable
from typing import TypeVar, cast

from captum import log
from torch import Tensor

# ``attribute`` returns a tensor for a tensor and a tuple of tensors for a tuple.
Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])

Function = TypeVar("Function", bound=Callable[..., object])


def log_usage() -> Callable[[Function], Function]:
    """Log the calls of a method as Captum logs those of its own classes.

    Captum's decorator has no type annotations and therefore hides the signature of the method that it decorates.
    """

    def decorate(function: Function) -> Function:
        return cast(Function, log.log_usage()(function))

    return decorate


def match_inputs(tensors: tuple[Tensor, ...], inputs: Inputs) -> Inputs:
    """Return the tensors as a tuple if the inputs are a tuple, otherwise the only tensor."""
    return tensors if isinstance(inputs, tuple) else tensors[0]
