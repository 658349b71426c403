"""Chooses between kernels that compute the same, by measuring them once per process."""

import contextlib
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from threading import Lock
from time import perf_counter
from typing import Literal, TypeAlias

import torch

KernelSet: TypeAlias = Literal["fastest", "torch", "alternative"]
KERNEL_SETS: tuple[KernelSet, ...] = ("fastest", "torch", "alternative")

# An alternative kernel must be faster than PyTorch's own by this factor, so that noise does not decide.
REQUIRED_SPEEDUP = 1.05
REPEATS = 3

_kernel_set: ContextVar[KernelSet] = ContextVar("captum_moxi_kernels", default="fastest")
_lock = Lock()
_is_faster: dict[Hashable, bool] = {}


def kernel_set() -> KernelSet:
    """Return the set of kernels that searches of this thread use."""
    return _kernel_set.get()


@contextlib.contextmanager
def use_kernels(name: KernelSet) -> Iterator[None]:
    """
    Select the kernels with which games evaluate models on a CPU, until exit and in this thread only.

    An asyncio task and ``asyncio.to_thread`` inherit the selection. A thread that is started in another way does not.

    Args:
        name (str): Which kernels compute linear layers and attention in float32, if no gradient is needed:

            - ``"fastest"``: the kernels that were faster when they were measured in this process, on the shapes of the
              model. The default.

            - ``"torch"``: those that the model calls. Rewards are then the same in every process.

            - ``"alternative"``: oneDNN for linear layers and matrix products for attention, without measuring.

    Raises:
        ValueError: If ``name`` is unknown.

    Examples::

        >>> with captum_moxi.use_kernels("torch"):
        >>>     attr = moxi.attribute(x, target=y)
    """
    if name not in KERNEL_SETS:
        raise ValueError(f"name is {name!r}; pass one of {', '.join(map(repr, KERNEL_SETS))}")
    token = _kernel_set.set(name)
    try:
        yield
    finally:
        _kernel_set.reset(token)


def is_faster(shape: Hashable, alternative: Callable[[], object], original: Callable[[], object]) -> bool:
    """Return whether the alternative kernel is used for a shape. The first call for a shape measures both kernels.

    Args:
        shape (Hashable): Identifies the kernels and the shape of their inputs.
        alternative (Callable): Runs the alternative kernel.
        original (Callable): Runs PyTorch's own kernel.
    """
    name = kernel_set()
    if name != "fastest":
        return name == "alternative"
    if shape not in _is_faster:
        # Kernels that are measured by several threads at once would slow one another.
        with _lock:
            if shape not in _is_faster:
                _is_faster[shape] = _measure(alternative, original)
    return _is_faster[shape]


def measured_choices() -> dict[Hashable, bool]:
    """Return whether the alternative kernel is used, for each shape that was measured in this process."""
    return dict(_is_faster)


def _measure(alternative: Callable[[], object], original: Callable[[], object]) -> bool:
    kernels = (original, alternative)
    # Modes of the caller, for example one that counts what a model computes, must not see these calls.
    with torch._C.DisableTorchFunction():
        # The first call of a kernel prepares it.
        for kernel in kernels:
            kernel()
        # Kernels take turns, so that a slow moment of the machine affects both.
        seconds = [[_seconds(kernel) for kernel in kernels] for _ in range(REPEATS)]
    times = torch.tensor(seconds, dtype=torch.float64)
    fastest_original, fastest_alternative = times.amin(0).tolist()
    return bool(fastest_original > REQUIRED_SPEEDUP * fastest_alternative)


def _seconds(kernel: Callable[[], object]) -> float:
    start = perf_counter()
    kernel()
    return perf_counter() - start
