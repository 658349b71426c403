"""Captum's forms of inputs, baselines and targets, read and checked before anything runs."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def check_positive_int(name: str, value: Any) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; pass an int of at least 1")
    if operator.index(value) < 1:
        raise ValueError(f"{name} is {value}; pass an int of at least 1")


def check_inputs(inputs: Any) -> tuple[Tensor, ...]:
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    if not tensors or not all(isinstance(x, Tensor) for x in tensors):
        kinds = ", ".join(type(x).__name__ for x in tensors) or "nothing"
        raise TypeError(f"inputs is {kinds}; pass a tensor or a tuple of tensors")
    for i, x in enumerate(tensors):
        name = "inputs" if len(tensors) == 1 else f"inputs[{i}]"
        if x.dim() == 0:
            raise ValueError(f"{name} has no dimension; pass a batch, dimension 0 being the examples")
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite; pass finite inputs")
    if len(tensors[0]) == 0:
        raise ValueError("inputs is an empty batch; pass at least one example")
    return tensors


def devices(inputs: Any) -> set[torch.device]:
    """Where the input tensors are."""
    return {x.device for x in (inputs if isinstance(inputs, tuple) else (inputs,)) if isinstance(x, Tensor)}


def check_baselines(baselines: Any, inputs: tuple[Tensor, ...]) -> tuple[Any, ...] | None:
    if baselines is None:
        return None
    values = baselines if isinstance(baselines, tuple) else (baselines,)
    if len(values) != len(inputs):
        raise ValueError(
            f"baselines has {len(values)} entries where inputs has {len(inputs)} tensors; pass one for each"
        )
    for i, (baseline, x) in enumerate(zip(values, inputs, strict=True)):
        if isinstance(baseline, int | float):
            if not math.isfinite(baseline):
                raise ValueError(f"baselines[{i}] is {baseline}; pass a finite number")
            continue
        if not isinstance(baseline, Tensor):
            raise TypeError(f"baselines[{i}] is a {type(baseline).__name__}; pass a number or a tensor")
        if baseline.is_floating_point() and not bool(baseline.isfinite().all()):
            raise ValueError(f"baselines[{i}] holds values that are not finite; pass finite baselines")
        if not broadcasts(baseline, x):
            raise ValueError(
                f"baselines[{i}] has shape {tuple(baseline.shape)}, which does not broadcast to the input's "
                f"{tuple(x.shape)}"
            )
    return values


def read_target(target: Any, batch: int) -> list[tuple[int, ...]] | None:
    """The target of every example as a tuple of indices, the class first."""
    if target is None:
        return None
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.is_complex() or target.dtype is torch.bool:
            raise TypeError(f"target has dtype {target.dtype}; pass whole numbers, the class of each example")
        if target.dim() > 1:
            raise ValueError(f"target has shape {tuple(target.shape)}; pass one class, or one an example")
        target = int(target) if target.numel() == 1 else target.tolist()
    if isinstance(target, Sequence) and not isinstance(target, tuple | str):
        if len(target) != batch:
            raise ValueError(
                f"target has {len(target)} entries for a batch of {batch}; pass one class, or one an example"
            )
        return [_indices(entry) for entry in target]
    return [_indices(target)] * batch


def _indices(target: Any) -> tuple[int, ...]:
    entries = target if isinstance(target, tuple) else (target,)
    try:
        indices = tuple(operator.index(entry) for entry in entries)
    except TypeError:
        raise TypeError(f"target is {target!r}; pass an int, a tuple of ints, a list of either, or a tensor") from None
    if not indices or min(indices) < 0:
        raise ValueError(f"target is {target!r}; pass classes counted from 0")
    return indices


def broadcasts(tensor: Tensor, to: Tensor) -> bool:
    """Whether a tensor broadcasts to another without changing its shape."""
    return tensor.dim() <= to.dim() and all(
        size in (1, wanted) for size, wanted in zip(reversed(tensor.shape), reversed(to.shape), strict=False)
    )
