"""Kernels that compute the same as PyTorch's own, but faster on some processors.

:class:`FastKernels` replaces functions while a model runs, ``choices`` measures which replacement pays, and ``onednn``
contains the kernels of oneDNN.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from captum_moxi.kernels.choices import KERNEL_SETS, KernelSet, kernel_set, measured_choices, use_kernels
from captum_moxi.kernels.mode import FastKernels

__all__ = ["KERNEL_SETS", "FastKernels", "KernelSet", "fast_kernels", "kernel_set", "measured_choices", "use_kernels"]


def fast_kernels(followed_by_gelu: dict[int, str]) -> AbstractContextManager[object]:
    """Return a context in which a model runs without gradients, with the kernels that this thread selected.

    Args:
        followed_by_gelu (dict): See :class:`FastKernels`.
    """
    if kernel_set() == "torch" or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return nullcontext()
    return FastKernels(followed_by_gelu)
