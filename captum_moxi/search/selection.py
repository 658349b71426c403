"""Selection: the players that a search chose, in order, and its JSON format."""

import json
import math
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_moxi.arguments import MODES, SEARCH_MODES, Mode, SearchMode, check_min_confidence, paths_of
from captum_moxi.files import write_file
from captum_moxi.search.missed import CONFIDENCE
from captum_moxi.tables import html_table

# JSON values of a selection. None stands for NaN.
JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | None"

DTYPES = {
    "order": torch.long,
    "predictions": torch.long,
    "n_evaluated": torch.long,
    "n_steps": torch.long,
    "flipped": torch.bool,
    "minimal": torch.bool,
    "left_out": torch.long,
    "predictions_without": torch.long,
}
# What the JSON of a field may contain.
JSON_TYPES: dict[torch.dtype, tuple[type, ...]] = {
    torch.long: (int,),
    torch.bool: (bool,),
    torch.float64: (float, int, type(None)),
}
# Fields with an additional entry before the first step.
WITH_START = ("rewards", "confidences", "predictions")
# Fields of the path without the players, only in symmetric selections.
WITHOUT = tuple(f"{name}_without" for name in WITH_START)
PER_EXAMPLE = ("n_steps", "flipped", "minimal")
PER_STEP = ("order", "shapley", "interactions", "n_evaluated", "skipped", "missed")
# Fields that saved selections may lack.
OPTIONAL = {"flip", "minimal", "left_out", "missed", *WITHOUT}

# Rows of the table that a notebook shows.
MAX_TABLE_ROWS = 20


@dataclass(frozen=True, eq=False)
class Selection:
    r"""
    The players that a search chose, in order, and what the model returned at each step.

    B is the number of examples. K is the largest number of steps of any example. Entries after the last step of an
    example are -1 (ids and classes), 0 (counts) or NaN (all others). All tensors are on the CPU.

    A symmetric selection has two paths. ``rewards``, ``confidences`` and ``predictions`` are those of the path of
    insertion, on which only the chosen players are present. The fields that end with ``_without`` are those of the path
    of deletion, on which only the chosen players are absent.

    Args:
        mode (str): ``"insertion"``, ``"deletion"`` or ``"symmetric"``.
        order (Tensor): Id of the player chosen at each step. Shape ``(B, K)``, int64.
        rewards (Tensor): Reward before the first step and after each step. Shape ``(B, K + 1)``, floating.
        confidences (Tensor): P(target) before the first step and after each step. Shape ``(B, K + 1)``, floating. NaN
            if there is no target.
        predictions (Tensor): Predicted class before the first step and after each step. Shape ``(B, K + 1)``, int64.
            For a single logit, 0 if it is positive and -1 otherwise.
        shapley (Tensor): Shapley value of the chosen player. In insertion, it is the self-context value
            :math:`f(b) - f(\emptyset)` (the paper, Eq. 5). In deletion, it is the full-context value
            :math:`f(N) - f(N \setminus b)` (Eq. 10, without the factor 1/n). In symmetric search, it is the sum of
            both. Shape ``(B, K)``, floating.
        interactions (Tensor): Interaction of the chosen player with the players chosen before it. In insertion, it is
            that of Eq. 6. In deletion, it is that of Eq. 11 with the opposite sign and without the factor. In symmetric
            search, it is the sum of both. Shape ``(B, K)``, floating. The Shapley value and the interaction sum to the
            gain of the step (Eqs. 7 and 13).
        n_evaluated (Tensor): Number of candidates that the step evaluated in full precision, in all groups of a beam.
            Each takes one row, or two in symmetric search. Shape ``(B, K)``, int64.
        skipped (Tensor): Highest gain that the screen expected of a candidate that the step did not evaluate. Shape
            ``(B, K)``, floating. NaN if no candidate was skipped, or if the screen does not estimate gains. The value
            is not a bound. If it exceeds ``gains``, the step may have missed a better player.
        missed (Tensor): Upper bound of the gains of all candidates that the step did not evaluate. It holds for each
            step with a confidence of 95 %, under an assumption about the errors of the screen (see
            :func:`captum_moxi.search.missed.largest_missed_gain`). Shape ``(B, K)``, floating. NaN without an audit, or
            if no candidate was skipped. If it is less than ``gains``, the step very likely missed nothing.
        n_steps (Tensor): Number of steps of each example. Shape ``(B,)``, int64.
        flipped (Tensor): Whether the prediction flipped, at the last step or before. In insertion, the target becomes
            the predicted class with a confidence above ``min_confidence``. In deletion, the target stops being the
            predicted class. In symmetric search, both are true after the same step. Shape ``(B,)``, bool.
        minimal (Tensor): Whether the search made sure that the flip needs every player of the group: without any one of
            them, the prediction is not flipped. Shape ``(B,)``, bool. False without ``minimal=True``, and if the
            prediction does not flip.
        left_out (Tensor): Ids of the players that were chosen and then left out of the group, because the flip does not
            need them, in the order in which they were chosen. The other fields do not contain them. Shape ``(B, R)``,
            int64. R is 0 without ``minimal=True``.
        flip (str, optional): Mode that defines the flip, if it is not ``mode``. The first deletion of
            :class:`captum_moxi.MoXILocalization` ends when the target becomes the predicted class, so its ``flip`` is
            ``"insertion"``.
            Default: None
        rewards_without, confidences_without, predictions_without (Tensor, optional): In symmetric search, the outcome
            without the chosen players, before the first step and after each step. Shape ``(B, K + 1)``, in the dtypes
            of ``rewards``, ``confidences`` and ``predictions``.
            Default: None, in insertion and deletion
    """

    mode: SearchMode
    order: Tensor
    rewards: Tensor
    confidences: Tensor
    predictions: Tensor
    shapley: Tensor
    interactions: Tensor
    n_evaluated: Tensor
    skipped: Tensor
    missed: Tensor
    n_steps: Tensor
    flipped: Tensor
    minimal: Tensor
    left_out: Tensor
    flip: Mode | None = None
    rewards_without: Tensor | None = None
    confidences_without: Tensor | None = None
    predictions_without: Tensor | None = None

    @property
    def gains(self) -> Tensor:
        """Gain of each step. Shape ``(B, K)``, floating.

        It is the rise in reward in insertion, and the fall in deletion. In symmetric search, it is the sum of the rise
        with the chosen players and the fall without them.
        """
        change = self.rewards.diff(dim=1)
        if self.rewards_without is not None:
            return change - self.rewards_without.diff(dim=1)
        return change if self.mode == "insertion" else -change

    def by_path(self, name: str) -> dict[Mode, Tensor]:
        """Return the values of a field on each path.

        Args:
            name (str): ``"rewards"``, ``"confidences"`` or ``"predictions"``.

        Returns:
            dict[str, Tensor]: Values ``(B, K + 1)`` of the mode, or of insertion and deletion in symmetric search.
        """
        names = (name, f"{name}_without")
        return {path: getattr(self, names[number]) for number, path in enumerate(paths_of(self.mode))}

    def flips(self, target: Tensor | int, *, min_confidence: float = 0.0) -> Tensor:
        """Return whether the prediction is flipped before the first step and after each step.

        Args:
            target (Tensor or int): Target class, or that of each example, ``(B,)`` int64.
            min_confidence (float, optional): Confidence that the target must exceed for a flip in insertion and
                symmetric search.
                Default: 0.0

        Returns:
            Tensor: Shape ``(B, K + 1)``, bool. False after the last step.

        Raises:
            TypeError: If ``min_confidence`` is not a number.
            ValueError: If ``min_confidence`` is less than 0, not less than 1, or NaN.
        """
        confidences = self.by_path("confidences")
        classes = target[:, None] if isinstance(target, Tensor) and target.dim() else target
        flips = [
            has_flipped(
                self.flip or path, predictions, confidences[path], target=classes, min_confidence=min_confidence
            )
            for path, predictions in self.by_path("predictions").items()
        ]
        is_step = torch.arange(self.predictions.shape[1]) <= self.n_steps[:, None]
        return torch.stack(flips).all(0) & is_step

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
        columns = ["step", "player", "confidence", "gain", "Shapley value", "interaction"]
        if bool(self.missed[0].isfinite().any()):
            columns.append(f"upper bound of skipped gains ({100 * CONFIDENCE:.0f} %)")
            rows = [[*row, float(missed)] for row, missed in zip(rows, self.missed[0], strict=False)]
        return html_table(repr(self), columns, rows)

    def _summary(self) -> list[str]:
        """Return short descriptions of the selection."""
        steps, n_flipped = self.n_steps.tolist(), int(self.flipped.sum())
        if len(steps) != 1:
            counts = f"{min(steps, default=0)} to {max(steps, default=0)} steps"
            return [f"{len(steps)} examples of {counts}", f"{n_flipped} flipped"]
        order = self.order[0, : steps[0]].tolist()
        shown = ", ".join(map(str, order[:8])) + (", ..." if len(order) > 8 else "")
        return [
            f"{steps[0]} steps: players {shown}",
            f"confidence {_start_and_end(self.confidences, steps[0])}",
            *(
                []
                if self.confidences_without is None
                else [f"without them {_start_and_end(self.confidences_without, steps[0])}"]
            ),
            *self._flip_summary(),
        ]

    def _flip_summary(self) -> list[str]:
        """Return whether the prediction of the only example flips, and whether the flip needs all players."""
        n_left_out = int((self.left_out[0] >= 0).sum())
        minimal = f"minimal ({n_left_out} left out)" if n_left_out else "minimal"
        return ["flipped" if self.flipped[0] else "not flipped", *([minimal] if self.minimal[0] else [])]

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
        missing = sorted(set(names) - values.keys() - OPTIONAL)
        if missing:
            raise ValueError(
                f"values is not a selection, because it lacks {', '.join(missing)}; pass a saved selection"
            )
        batch = len(values["order"]) if isinstance(values["order"], list) else 0
        unknown = [[None] * len(row) for row in _to_rows("order", values["order"])]
        complete: dict[str, Any] = {"minimal": [False] * batch, "left_out": [[]] * batch, "missed": unknown} | values
        mode, flip = _parse_mode(values["mode"]), _parse_flip(values.get("flip"), values["mode"])
        absent = _absent_fields(values, mode)
        tensors = _parse_tensors({name: complete[name] for name in names if name not in ("mode", "flip", *absent)})
        return cls(mode=mode, flip=flip, **tensors)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the selection to a JSON file.

        Args:
            path (str or path): File to write. An existing file is replaced.
        """
        write_file(Path(path), json.dumps(self.to_dict()) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Selection":
        """Read a selection from a JSON file that :meth:`save` wrote.

        Args:
            path (str or path): File to read.

        Returns:
            Selection: Floating-point numbers are float64.

        Raises:
            ValueError: If the file does not contain a selection.
            OSError: If the file cannot be read.
        """
        content = Path(path).read_bytes()
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"path is {str(path)!r}, which is not JSON ({error}); pass a saved selection") from error
        return cls.from_dict(values)


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

    Raises:
        TypeError: If ``min_confidence`` is not a number.
        ValueError: If ``min_confidence`` is less than 0, not less than 1, or NaN.
    """
    check_min_confidence(min_confidence)
    is_target = predictions == target
    return is_target & (confidences > min_confidence) if mode == "insertion" else ~is_target


def merge(first: Selection, second: Selection, from_second: Tensor) -> Selection:
    """Return a selection with some examples of the first and the others of the second.

    Args:
        first, second (Selection): Selections of the same batch and mode.
        from_second (Tensor): Which examples are those of the second. Shape ``(B,)``, bool.

    Returns:
        Selection: The merged selection.
    """
    n_steps = torch.where(from_second, second.n_steps, first.n_steps)
    changes: dict[str, Any] = {}
    for name in (*PER_EXAMPLE, *PER_STEP, *_with_start(first), "left_out"):
        values, others = getattr(first, name), getattr(second, name)
        if name in PER_EXAMPLE:
            changes[name] = torch.where(from_second, others, values)
            continue
        width = max(values.shape[1], others.shape[1])
        changes[name] = torch.where(from_second[:, None], _pad(name, others, width), _pad(name, values, width))
    return shorten(replace(first, **changes), n_steps)


def shorten(selection: Selection, n_steps: Tensor) -> Selection:
    """Return a selection without the steps after the first ``n_steps``, ``(B,)`` int64. ``flipped`` does not change."""
    changes: dict[str, Any] = {"n_steps": n_steps}
    longest = int(n_steps.max()) if len(n_steps) else 0
    with_start = _with_start(selection)
    for name in (*PER_STEP, *with_start):
        n_entries = n_steps + (name in with_start)
        width = longest + (name in with_start)
        values = getattr(selection, name)[:, :width]
        changes[name] = torch.where(torch.arange(width) < n_entries[:, None], values, _fill(name, values))
    return replace(selection, **changes)


def _with_start(selection: Selection) -> tuple[str, ...]:
    """Return the fields of a selection with an additional entry before the first step."""
    return (*WITH_START, *WITHOUT) if selection.mode == "symmetric" else WITH_START


def _start_and_end(confidences: Tensor, n_steps: int) -> str:
    """Return the confidences of the first example before the first and after the last step, in words."""
    return f"{float(confidences[0, 0]):.2f} -> {float(confidences[0, n_steps]):.2f}"


def _pad(name: str, values: Tensor, width: int) -> Tensor:
    """Pad the values of a field, ``(B, K)``, to a larger number of columns."""
    padding = torch.full((len(values), width - values.shape[1]), _fill(name, values), dtype=values.dtype)
    return torch.cat([values, padding], 1)


def _fill(name: str, values: Tensor) -> float:
    """Return the entry of a field after the last step."""
    if values.is_floating_point():
        return math.nan
    return 0 if name == "n_evaluated" else -1


def _parse_mode(value: object) -> SearchMode:
    if value not in SEARCH_MODES:
        raise ValueError(f"mode is {reprlib.repr(value)}; pass {' or '.join(map(repr, SEARCH_MODES))}")
    return value


def _parse_flip(value: object, mode: SearchMode) -> Mode | None:
    if value is None:
        return None
    if value not in MODES or mode == "symmetric":
        expected = "None" if mode == "symmetric" else " or ".join(map(repr, MODES))
        raise ValueError(f"flip is {reprlib.repr(value)}; pass {expected}")
    return value


def _absent_fields(values: Mapping[str, object], mode: SearchMode) -> tuple[str, ...]:
    """Return the fields that selections of a mode do not have.

    Raises:
        ValueError: If such a field has a value, or if one that the mode requires has none.
    """
    absent = () if mode == "symmetric" else WITHOUT
    for name in WITHOUT:
        if (values.get(name) is None) != (name in absent):
            expected = "null" if name in absent else "a list of lists"
            raise _not_a_selection(f"mode is {mode!r}, but {name} is not {expected}")
    return absent


def _parse_tensors(values: dict[str, JsonValue]) -> dict[str, Tensor]:
    """Create the tensors of a selection, and check that they fit each other.

    Raises:
        ValueError: If a value is not an array of the right dtype and shape, or if the steps do not end at ``n_steps``.
    """
    tensors = {name: _to_tensor(name, value) for name, value in values.items()}
    batch, steps = tensors["order"].shape
    widths = dict.fromkeys(PER_STEP, steps) | dict.fromkeys((*WITH_START, *WITHOUT), steps + 1)
    for name, tensor in tensors.items():
        expected = (batch,) if name in PER_EXAMPLE else (batch, widths.get(name, tensor.shape[-1]))
        if tensor.shape != expected:
            raise _not_a_selection(f"{name} has shape {tuple(tensor.shape)} instead of {expected}")
    took_step = torch.arange(steps) < tensors["n_steps"][:, None]
    if bool(((tensors["n_steps"] < 0) | (tensors["n_steps"] > steps)).any()):
        raise _not_a_selection(f"n_steps is outside 0 to {steps}")
    if not torch.equal(tensors["order"] >= 0, took_step) or bool((tensors["order"] < -1).any()):
        raise _not_a_selection("order does not have one player for each step of n_steps, and then -1")
    is_player = tensors["left_out"] >= 0
    if bool((tensors["left_out"] < -1).any() or (is_player[:, 1:] & ~is_player[:, :-1]).any()):
        raise _not_a_selection("left_out does not have players, and then -1")
    _check_values(tensors)
    return tensors


def _check_values(tensors: Mapping[str, Tensor]) -> None:
    """Check that players are unique, that counts are not negative, and that confidences are probabilities.

    Raises:
        ValueError: If a value is impossible.
    """
    players = torch.cat([tensors["order"], tensors["left_out"]], dim=1).sort(dim=1).values
    if bool(((players[:, 1:] == players[:, :-1]) & (players[:, 1:] >= 0)).any()):
        raise _not_a_selection("order and left_out contain a player more than once")
    if bool((tensors["n_evaluated"] < 0).any()):
        raise _not_a_selection("n_evaluated contains a number below 0")
    for name in {"confidences", "confidences_without"} & tensors.keys():
        if bool(((tensors[name] < 0) | (tensors[name] > 1)).any()):
            raise _not_a_selection(f"{name} contains a number outside 0 to 1")


def _to_tensor(name: str, value: JsonValue) -> Tensor:
    """Create a tensor of one dimension for fields in ``PER_EXAMPLE``, and of two for the others."""
    dtype = DTYPES.get(name, torch.float64)
    rows = _to_rows(name, value)
    for entry in chain.from_iterable(rows):
        if type(entry) not in JSON_TYPES[dtype]:
            raise _not_a_selection(f"{name} contains {reprlib.repr(entry)}, which is not {dtype}")
    if len({len(row) for row in rows}) > 1:
        raise _not_a_selection(f"{name} has rows of different lengths")
    entries = [[math.nan if entry is None else entry for entry in row] for row in rows]
    try:
        tensor = torch.tensor(entries, dtype=dtype)
    except (OverflowError, RuntimeError, ValueError) as error:
        raise _not_a_selection(f"{name} contains a number that is too large ({error})") from error
    return tensor[0] if name in PER_EXAMPLE else tensor.reshape(len(rows), len(rows[0]) if rows else 0)


def _to_rows(name: str, value: JsonValue) -> list[list[JsonValue]]:
    """Return the lists inside a list. The values of fields in ``PER_EXAMPLE`` are one list."""
    rows = [value] if name in PER_EXAMPLE else value
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise _not_a_selection(f"{name} is not a list of {'values' if name in PER_EXAMPLE else 'lists'}")
    return [row for row in rows if isinstance(row, list)]


def _not_a_selection(reason: str) -> ValueError:
    return ValueError(f"values is not a selection, because {reason}; pass a saved selection")


def _nan_to_none(value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        return [_nan_to_none(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
