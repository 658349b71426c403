"""Selection: the players that a search chose, in order, and its JSON format."""

import json
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from captum_moxi.arguments import MODES, Mode

# Nested lists of numbers, with None instead of NaN.
JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | None"

DTYPES = {
    "order": torch.long,
    "predictions": torch.long,
    "n_evaluated": torch.long,
    "n_steps": torch.long,
    "flipped": torch.bool,
}
# the fields that have an entry before the first step
WITH_START = ("rewards", "confidences", "predictions")
PER_EXAMPLE = ("n_steps", "flipped")


@dataclass(frozen=True, eq=False)
class Selection:
    r"""
    The players that a search chose, in order, and what the model returned at each step.

    B is the number of examples. K is the largest number of steps of any example. Entries after an example stopped are
    -1 (ids and classes) or NaN.

    Args:
        mode (str): ``"insertion"`` or ``"deletion"``.
        order (Tensor): Id of the player chosen at each step. Shape ``(B, K)``, int64.
        rewards (Tensor): Reward before the first step and after each step. Shape ``(B, K + 1)``, floating.
        confidences (Tensor): P(target) at the same places. Shape ``(B, K + 1)``, floating. NaN if there is no target.
        predictions (Tensor): Predicted class at the same places. Shape ``(B, K + 1)``, int64. For a single logit, 0 if
            positive and -1 otherwise.
        shapley (Tensor): Shapley value of the chosen player. In insertion the self-context value
            :math:`f(b) - f(\emptyset)` (the paper, Eq. 5). In deletion the full-context value
            :math:`f(N) - f(N \setminus b)` (Eq. 10, without the factor 1/n). Shape ``(B, K)``, floating.
        interactions (Tensor): Interaction of the chosen player with the players chosen before it (Eq. 6; Eq. 11 with
            the opposite sign and without its factor). Shape ``(B, K)``, floating. The Shapley value and the interaction
            sum to the step's change in reward (Eqs. 7 and 13): its rise in insertion and its fall in deletion.
        n_evaluated (Tensor): Number of candidates that the step evaluated in full precision, in all groups of a beam.
            Shape ``(B, K)``, int64. 0 after an example stopped.
        skipped (Tensor): Highest gain that the screen expected of a candidate that the step did not evaluate. Shape
            ``(B, K)``, floating. NaN if no candidate was skipped, or if the screen does not estimate gains. It is not a
            bound. Compared with ``gains``, it shows where a step may have missed a better player.
        n_steps (Tensor): Number of steps of each example. Shape ``(B,)``, int64.
        flipped (Tensor): Whether the prediction flipped by the last step. In insertion the target becomes the predicted
            class with a confidence above ``min_confidence``. In deletion the target is no longer predicted. Shape
            ``(B,)``, bool.
        flip (str, optional): The mode whose flip counts, if it is not ``mode``. The first deletion of
            :class:`captum_moxi.MoXILocalization` ends when the target is predicted, so its ``flip`` is
            ``"insertion"``.
            Default: None
    """

    mode: Mode
    order: Tensor
    rewards: Tensor
    confidences: Tensor
    predictions: Tensor
    shapley: Tensor
    interactions: Tensor
    n_evaluated: Tensor
    skipped: Tensor
    n_steps: Tensor
    flipped: Tensor
    flip: Mode | None = None

    @property
    def gains(self) -> Tensor:
        """Gain of each step: the rise in reward in insertion, and the fall in deletion. Shape ``(B, K)``, floating."""
        change = self.rewards.diff(dim=1)
        return change if self.mode == "insertion" else -change

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the selection as lists and numbers for JSON, with None instead of NaN."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: _nan_to_none(value.tolist()) if isinstance(value, Tensor) else value for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: object) -> "Selection":
        """Create a selection from the result of :meth:`to_dict`.

        Args:
            values (dict): Fields of the selection by name.

        Returns:
            Selection: Floating-point numbers are float64.

        Raises:
            ValueError: If the names, values or shapes are not those of a selection.
        """
        if not isinstance(values, dict):
            raise ValueError(f"values is a {type(values).__name__}; pass the dict of a selection")
        names = [field.name for field in fields(cls)]
        missing = sorted(set(names) - values.keys() - {"flip"})
        if missing:
            raise ValueError(
                f"values is not a selection, because it lacks {', '.join(missing)}; pass a saved selection"
            )
        mode, flip = _parse_mode("mode", values["mode"]), values.get("flip")
        tensors = {name: _to_tensor(name, values[name]) for name in names if name not in ("mode", "flip")}
        batch, steps = len(tensors["order"]), tensors["order"].shape[-1]
        for name, tensor in tensors.items():
            expected = (batch,) if name in PER_EXAMPLE else (batch, steps + (name in WITH_START))
            if tensor.shape != expected:
                raise ValueError(
                    f"values is not a selection, because {name} has shape {tuple(tensor.shape)} instead of {expected}; "
                    "pass a saved selection"
                )
        return cls(mode=mode, flip=None if flip is None else _parse_mode("flip", flip), **tensors)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the selection to a JSON file."""
        Path(path).write_text(json.dumps(self.to_dict()) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Selection":
        """Read a selection that :meth:`save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text()))


def has_flipped(
    mode: Mode, predictions: Tensor, confidences: Tensor, *, target: Tensor | int, min_confidence: float = 0.0
) -> Tensor:
    """Return where the prediction is flipped.

    Args:
        mode (str): ``"insertion"``: the target is predicted with a confidence above ``min_confidence``.
            ``"deletion"``: the target is not predicted.
        predictions (Tensor): Predicted classes, int64.
        confidences (Tensor): P(target), floating. The shape of ``predictions``.
        target (Tensor or int): Target classes, broadcastable to ``predictions``.
        min_confidence (float, optional): Confidence that insertion must exceed.
            Default: 0.0

    Returns:
        Tensor: The shape of ``predictions``, bool.
    """
    is_target = predictions == target
    return is_target & (confidences > min_confidence) if mode == "insertion" else ~is_target


def _parse_mode(name: str, value: object) -> Mode:
    if value not in MODES:
        raise ValueError(f"{name} is {value!r}; a selection has {' or '.join(map(repr, MODES))}")
    return value


def _to_tensor(name: str, value: JsonValue) -> Tensor:
    return torch.tensor(_none_to_nan(value), dtype=DTYPES.get(name, torch.float64))


def _nan_to_none(value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        return [_nan_to_none(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _none_to_nan(value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        return [_none_to_nan(entry) for entry in value]
    return math.nan if value is None else value
