"""Argument forms of Captum and of this package: type aliases, and checks that run before any forward pass."""

import inspect
import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_map

# Captum accepts any callable as the model, and any value as an additional argument.
ForwardFunc: TypeAlias = Callable[..., Any]
ForwardArgs: TypeAlias = Any


class ModelHolder(Protocol):
    """An object that stands for its model: the classifier that ``load`` returns, or a transformers pipeline."""

    @property
    def model(self) -> Any: ...


# What users pass as the model.
Model: TypeAlias = ForwardFunc | ModelHolder
# A forward function returns a tensor, a number, or an output object with ``logits``.
ModelOutput: TypeAlias = Any

TensorOrTuple: TypeAlias = Tensor | tuple[Tensor, ...]
Baseline: TypeAlias = Tensor | int | float
Baselines: TypeAlias = Baseline | tuple[Baseline, ...] | None
Target: TypeAlias = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None
# The target of one example: the class first, then the remaining indices of outputs with more than two dimensions.
TargetIndex: TypeAlias = tuple[int, ...]

# The path of an order: its players are inserted one after another, or deleted.
Mode: TypeAlias = Literal["insertion", "deletion"]
MODES: tuple[Mode, ...] = get_args(Mode)
# What a search optimizes: one of the two paths, or both at once.
SearchMode: TypeAlias = Literal["insertion", "deletion", "symmetric"]
SEARCH_MODES: tuple[SearchMode, ...] = get_args(SearchMode)
Stop: TypeAlias = Literal["flip"] | None


def parse_modes(modes: Mode | Sequence[Mode]) -> tuple[Mode, ...]:
    """Convert one or several modes to a tuple.

    Args:
        modes (str or Sequence[str]): ``"insertion"``, ``"deletion"`` or both.

    Raises:
        ValueError: If there is no mode, or if a mode is unknown or repeated.
    """
    names: tuple[Mode, ...] = (modes,) if isinstance(modes, str) else tuple(modes)
    if not _are_modes(names):
        raise ValueError(f"modes is {modes!r}; pass 'insertion', 'deletion' or both")
    return names


def parse_search_modes(modes: SearchMode | Sequence[SearchMode]) -> tuple[SearchMode, ...]:
    """Convert the modes of one or two searches to a tuple.

    Args:
        modes (str or Sequence[str]): ``"insertion"``, ``"deletion"`` or both, or ``"symmetric"`` alone.

    Raises:
        ValueError: If there is no mode, if a mode is unknown or repeated, or if ``"symmetric"`` is not alone.
    """
    names: tuple[SearchMode, ...] = (modes,) if isinstance(modes, str) else tuple(modes)
    if names != ("symmetric",) and not _are_modes(names):
        raise ValueError(f"modes is {modes!r}; pass 'insertion', 'deletion' or both, or 'symmetric' alone")
    return names


def _are_modes(names: Sequence[str]) -> bool:
    """Return whether these are one or two different names in ``MODES``."""
    return len(names) == len(set(names)) > 0 and set(names) <= set(MODES)


def paths_of(mode: SearchMode) -> tuple[Mode, ...]:
    """Return the paths that a search optimizes: insertion and deletion in a symmetric search, otherwise the mode."""
    return MODES if mode == "symmetric" else (mode,)


def check_positive_int(name: str, value: object) -> None:
    """Check that an argument is an int of at least 1.

    Args:
        name (str): Name of the argument, for the message.
        value (object): Value of the argument.

    Raises:
        TypeError: If ``value`` is not an int.
        ValueError: If ``value`` is less than 1.
    """
    _check_int(name, value, minimum=1)


def check_natural(name: str, value: object) -> None:
    """Check that an argument is an int of at least 0.

    Args:
        name (str): Name of the argument, for the message.
        value (object): Value of the argument.

    Raises:
        TypeError: If ``value`` is not an int.
        ValueError: If ``value`` is negative.
    """
    _check_int(name, value, minimum=0)


def _check_int(name: str, value: object, *, minimum: int) -> None:
    try:
        # Arrays and tensors have the method __index__, too, but only some of them are ints.
        index = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        index = None
    if index is None:
        raise TypeError(f"{name} is {value!r}; pass an int of at least {minimum}")
    if index < minimum:
        raise ValueError(f"{name} is {value}; pass an int of at least {minimum}")


def check_min_confidence(value: object) -> None:
    """Check the confidence that insertion must exceed.

    Args:
        value (object): Value of the argument ``min_confidence``.

    Raises:
        TypeError: If ``value`` is not a number.
        ValueError: If ``value`` is less than 0, not less than 1, or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"min_confidence is {value!r}; pass a number of at least 0 and less than 1")
    if not 0 <= value < 1:
        raise ValueError(f"min_confidence is {value}; pass a number of at least 0 and less than 1")


def check_half_precision(dtype: object) -> None:
    """Check that ``dtype`` is one of the two dtypes of ``torch.autocast``.

    Raises:
        TypeError: If ``dtype`` is not a dtype.
        ValueError: If ``dtype`` is neither torch.bfloat16 nor torch.float16.
    """
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype is {dtype!r}; pass torch.bfloat16 or torch.float16")
    if dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(f"dtype is {dtype}; pass torch.bfloat16 or torch.float16")


def check_inputs(inputs: object) -> tuple[Tensor, ...]:
    """Check ``inputs`` and return them as a tuple of tensors.

    Raises:
        TypeError: If ``inputs`` is neither a tensor nor a tuple of tensors.
        ValueError: If a tensor has no batch dimension or non-finite values, or if the batch is empty.
    """
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    _check_not_images(inputs if isinstance(inputs, list) else tensors)
    if not tensors or not all(isinstance(x, Tensor) for x in tensors):
        types = ", ".join(type(x).__name__ for x in tensors) or "an empty tuple"
        raise TypeError(f"inputs is {types}; pass a tensor or a tuple of tensors")
    for i, x in enumerate(tensors):
        name = "inputs" if len(tensors) == 1 else f"inputs[{i}]"
        if x.dim() == 0:
            raise ValueError(f"{name} has no dimensions; pass a batch, with the examples along dimension 0")
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise ValueError(f"{name} contains non-finite values; pass finite inputs")
    if len(tensors[0]) == 0:
        raise ValueError("inputs is an empty batch; pass at least one example")
    return tensors


def _check_not_images(values: Sequence[object]) -> None:
    """Reject images that were not preprocessed, and the unopened result of preprocessing, with fitting advice."""
    for value in values:
        if isinstance(value, Image.Image):
            raise TypeError(
                "inputs is a PIL image; pass its pixel values: classifier.preprocess(image), where classifier is what "
                "load returns, or processor(image, return_tensors='pt')['pixel_values']"
            )
        if isinstance(value, Mapping) and "pixel_values" in value:
            raise TypeError(f"inputs is a {type(value).__name__}; pass its tensor, inputs['pixel_values']")


def input_devices(inputs: object) -> set[torch.device]:
    """Return the devices of the input tensors."""
    return {x.device for x in (inputs if isinstance(inputs, tuple) else (inputs,)) if isinstance(x, Tensor)}


def forward_arguments(additional_forward_args: ForwardArgs) -> tuple[Any, ...]:
    """Return ``additional_forward_args`` as a tuple."""
    if additional_forward_args is None:
        return ()
    return additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)


def copy_argument(argument: Any) -> Any:
    """Copy the tensors and arrays of an argument, also inside lists, tuples and dicts.

    A forward function may change what it receives. All other values are passed on unchanged.
    """

    def copy_leaf(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.detach().clone()
        return leaf.copy() if isinstance(leaf, np.ndarray) else leaf

    return tree_map(copy_leaf, argument)


def check_baselines(baselines: object, inputs: tuple[Tensor, ...]) -> tuple[Baseline, ...] | None:
    """Check ``baselines`` against the inputs and return one baseline per input tensor, or None if none were passed.

    Raises:
        TypeError: If a baseline is neither a number nor a tensor.
        ValueError: If the number of baselines is not the number of input tensors, or if a baseline is not finite or
            does not broadcast to its input tensor.
    """
    if baselines is None:
        return None
    values = baselines if isinstance(baselines, tuple) else (baselines,)
    if len(values) != len(inputs):
        raise ValueError(
            f"baselines has {len(values)} entries, but inputs has {len(inputs)} tensors; pass one baseline for each "
            "input tensor"
        )
    for i, (baseline, x) in enumerate(zip(values, inputs, strict=True)):
        _check_baseline("baselines" if len(values) == 1 else f"baselines[{i}]", baseline, x)
    return values


def _check_baseline(name: str, baseline: object, x: Tensor) -> None:
    if isinstance(baseline, int | float):
        if not math.isfinite(baseline):
            raise ValueError(f"{name} is {baseline}; pass a finite number")
        return
    if not isinstance(baseline, Tensor):
        raise TypeError(f"{name} is a {type(baseline).__name__}; pass a number or a tensor")
    if baseline.is_floating_point() and not bool(baseline.isfinite().all()):
        raise ValueError(f"{name} contains non-finite values; pass finite baselines")
    if not broadcasts(baseline, x):
        raise ValueError(
            f"{name} has shape {tuple(baseline.shape)}, which does not broadcast to the input's shape "
            f"{tuple(x.shape)}; pass a number or a tensor of the input's shape"
        )


def parse_target(target: object, batch: int) -> list[TargetIndex] | None:
    """Convert a target to one tuple of indices per example.

    Args:
        target (int, tuple, Tensor, list or None): Target in any form that Captum documents.
        batch (int): Batch size.

    Returns:
        list[tuple[int, ...]] or None: Indices of each example, the class first. None if ``target`` is None.

    Raises:
        TypeError: If ``target`` is not of such a form.
        ValueError: If an index is negative, or if the number of targets is not the batch size.
    """
    if target is None:
        return None
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.is_complex() or target.dtype is torch.bool:
            raise TypeError(f"target has dtype {target.dtype}; pass an integer tensor with the class of each example")
        if target.dim() > 1:
            raise ValueError(f"target has shape {tuple(target.shape)}; pass one class, or a tensor of shape ({batch},)")
        target = int(target) if target.numel() == 1 else target.tolist()
    if isinstance(target, Sequence) and not isinstance(target, tuple | str):
        if len(target) != batch:
            raise ValueError(
                f"target has {len(target)} entries for a batch of {batch}; pass one class, or one for each example"
            )
        return [_target_index(entry) for entry in target]
    return [_target_index(target)] * batch


def _target_index(target: object) -> TargetIndex:
    entries = target if isinstance(target, tuple) else (target,)
    if isinstance(target, str):
        raise TypeError(
            f"target is {target!r}, the name of a class; pass its index: classifier.class_index({target!r}), where "
            "classifier is what load returns"
        )
    try:
        indices = tuple(operator.index(entry) for entry in entries)
    except TypeError:
        raise TypeError(f"target is {target!r}; pass an int, a tuple of ints, a list of either, or a tensor") from None
    if not indices or min(indices) < 0:
        raise ValueError(f"target is {target!r}; pass class indices of at least 0")
    return indices


def warn_user(message: str) -> None:
    """Issue a UserWarning that points to the user's code.

    Its location is the innermost line of the call stack that is neither in Captum nor in this package.
    """
    stacklevel, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("captum", "captum_moxi"):
        stacklevel, frame = stacklevel + 1, frame.f_back
    warnings.warn(message, stacklevel=stacklevel)


def broadcasts(tensor: Tensor, to: Tensor) -> bool:
    """Return whether ``tensor`` broadcasts to the shape of ``to``."""
    return tensor.dim() <= to.dim() and all(
        size in (1, wanted) for size, wanted in zip(reversed(tensor.shape), reversed(to.shape), strict=False)
    )
