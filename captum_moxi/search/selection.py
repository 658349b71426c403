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
from captum_moxi.tables import html_table

# JSON values of a selection. None stands for NaN.
JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | None"

DTYPES = {
    "order": torch.long,
    "predictions": torch.long,
    "n_evaluated": torch.long,
    "n_steps": torch.long,
    "flipped": torch.bool,
}
# Fields with an additional entry before the first step.
WITH_START = ("rewards", "confidences", "predictions")
PER_EXAMPLE = ("n_steps", "flipped")

# Rows of the table that a notebook shows.
MAX_TABLE_ROWS = 20


@dataclass(frozen=True, eq=False)
class Selection:
    r"""
    The players that a search chose, in order, and what the model returned at each step.

    B is the number of examples. K is the largest number of steps of any example. Entries after the last step of an
    example are -1 (ids and classes), 0 (counts) or NaN (all others). All tensors are on the CPU.

    Args:
        mode (str): ``"insertion"`` or ``"deletion"``.
        order (Tensor): Id of the player chosen at each step. Shape ``(B, K)``, int64.
        rewards (Tensor): Reward before the first step and after each step. Shape ``(B, K + 1)``, floating.
        confidences (Tensor): P(target) before the first step and after each step. Shape ``(B, K + 1)``, floating. NaN
            if there is no target.
        predictions (Tensor): Predicted class before the first step and after each step. Shape ``(B, K + 1)``, int64.
            For a single logit, 0 if it is positive and -1 otherwise.
        shapley (Tensor): Shapley value of the chosen player. In insertion, it is the self-context value
            :math:`f(b) - f(\emptyset)` (the paper, Eq. 5). In deletion, it is the full-context value
            :math:`f(N) - f(N \setminus b)` (Eq. 10, without the factor 1/n). Shape ``(B, K)``, floating.
        interactions (Tensor): Interaction of the chosen player with the players chosen before it. In insertion, it is
            that of Eq. 6. In deletion, it is that of Eq. 11 with the opposite sign and without the factor. Shape
            ``(B, K)``, floating. The Shapley value and the interaction sum to the gain of the step (Eqs. 7 and 13).
        n_evaluated (Tensor): Number of candidates that the step evaluated in full precision, in all groups of a beam.
            Shape ``(B, K)``, int64.
        skipped (Tensor): Highest gain that the screen expected of a candidate that the step did not evaluate. Shape
            ``(B, K)``, floating. NaN if no candidate was skipped, or if the screen does not estimate gains. The value
            is not a bound. If it exceeds ``gains``, the step may have missed a better player.
        n_steps (Tensor): Number of steps of each example. Shape ``(B,)``, int64.
        flipped (Tensor): Whether the prediction flipped, at the last step or before. In insertion, the target becomes
            the predicted class with a confidence above ``min_confidence``. In deletion, the target stops being the
            predicted class. Shape ``(B,)``, bool.
        flip (str, optional): Mode that defines the flip, if it is not ``mode``. The first deletion of
            :class:`captum_moxi.MoXILocalization` ends when the target becomes the predicted class, so its ``flip`` is
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

    def __repr__(self) -> str:
        return f"Selection({self.mode}, {'; '.join(self._summary())})"

    def _repr_html_(self) -> str:
        """Return a table of the first steps of the first example, which a notebook shows."""
        if not len(self.n_steps):
            return html_table(repr(self), [], [])
        rows = [
            [
                step + 1,
                *(
                    float(values[0, step]) if values.is_floating_point() else int(values[0, step])
                    for values in (self.order, self.confidences[:, 1:], self.gains, self.shapley, self.interactions)
                ),
            ]
            for step in range(min(int(self.n_steps[0]), MAX_TABLE_ROWS))
        ]
        return html_table(repr(self), ["step", "player", "confidence", "gain", "Shapley value", "interaction"], rows)

    def _summary(self) -> list[str]:
        """Return short descriptions of the selection."""
        steps, n_flipped = self.n_steps.tolist(), int(self.flipped.sum())
        if len(steps) != 1:
            counts = f"{min(steps, default=0)} to {max(steps, default=0)} steps"
            return [f"{len(steps)} examples of {counts}", f"{n_flipped} flipped"]
        order = self.order[0, : steps[0]].tolist()
        shown = ", ".join(map(str, order[:8])) + (", ..." if len(order) > 8 else "")
        start, end = self.confidences[0, 0], self.confidences[0, steps[0]]
        return [
            f"{steps[0]} steps: players {shown}",
            f"confidence {start:.2f} -> {end:.2f}",
            "flipped" if n_flipped else "not flipped",
        ]

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the selection as a dict of lists, numbers and strings for JSON. None stands for NaN."""
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
            ValueError: If a field is missing, or has a value or shape that a selection cannot have.
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
        """Write the selection to a JSON file.

        Args:
            path (str or path): File to write. An existing file is replaced.
        """
        Path(path).write_text(json.dumps(self.to_dict()) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Selection":
        """Read a selection from a JSON file that :meth:`save` wrote.

        Args:
            path (str or path): File to read.

        Returns:
            Selection: Floating-point numbers are float64.

        Raises:
            ValueError: If the file does not contain a selection.
        """
        return cls.from_dict(json.loads(Path(path).read_text()))


def has_flipped(
    mode: Mode, predictions: Tensor, confidences: Tensor, *, target: Tensor | int, min_confidence: float = 0.0
) -> Tensor:
    """Return which predictions are flipped.

    Args:
        mode (str): ``"insertion"``: a prediction is flipped if it is the target, with a confidence above
            ``min_confidence``. ``"deletion"``: a prediction is flipped if it is not the target.
        predictions (Tensor): Predicted classes, of any shape, int64.
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
        raise ValueError(f"{name} is {value!r}; pass {' or '.join(map(repr, MODES))}")
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
