"""Kernels that compute the same as PyTorch's own, but faster on some processors.

:class:`FastKernels` replaces functions while a model runs, ``choices`` measures which replacement pays, and ``onednn``
contains the kernels of oneDNN.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from captum_moxi.kernels.choices import KERNEL_SETS, KernelSet, kernel_set, measured_choices, use_kernels
from captum_moxi.kernels.mode import FastKernels, KernelMemory

__all__ = [
    "KERNEL_SETS",
    "FastKernels",
    "KernelMemory",
    "KernelSet",
    "fast_kernels",
    "kernel_set",
    "measured_choices",
    "use_kernels",
]


def fast_kernels(memory: KernelMemory) -> AbstractContextManager[object]:
    """Return a context in which a model runs without gradients, with the kernels that this thread selected.

    Args:
        memory (KernelMemory): Pass the same object whenever the same model runs.
    """
    if not memory.is_replaceable or kernel_set() == "torch":
        return nullcontext()
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return nullcontext()
    return FastKernels(memory)
