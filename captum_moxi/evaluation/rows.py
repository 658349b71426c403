"""The columns of a run's rows.

A row contains the result of one method in one mode on one image, or the reason why an image was not explained. To add a
column, add it to ``Row`` and to ``SCHEMA``, and fill it in ``selection_row`` (if it describes a selection) or in
:meth:`captum_moxi.evaluation.evaluator.Evaluator.rows` (if it describes an image).
"""

from collections.abc import Sequence
from typing import Literal, Required, TypedDict, get_args

import pyarrow as pa
from torch import Tensor

from captum_moxi.arguments import Mode, paths_of
from captum_moxi.search import Selection

Status = Literal["explained", "wrong", "unreadable", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)

# How a summary names a status.
STATUS_TITLES: dict[Status, str] = {"wrong": "misclassified and left out"}


def describe_statuses(statuses: Sequence[str]) -> str:
    """Count the images by status, for example ``"4 explained, 2 misclassified and left out"``.

    Args:
        statuses (Sequence[str]): Status of each image.
    """
    return ", ".join(
        f"{statuses.count(status)} {STATUS_TITLES.get(status, status)}" for status in STATUSES if status in statuses
    )


class Row(TypedDict, total=False):
    """The result of one method in one mode on one image of K steps.

    Args:
        image (str): Name of the image.
        label (int or None): Index of the class that matches the image's label. None if there is none.
        target (int): Index of the target class.
        status (str): ``"explained"``. ``"wrong"`` if the model misclassifies the image. ``"unreadable"`` if the image
            cannot be opened. ``"failed"`` if the model or a method raised an error.
        error (str): Error message of an unreadable or failed image.
        method (str): Title of the method.
        mode (str): ``"insertion"`` or ``"deletion"``.
        players (int): Number of players of the image.
        order (list[int]): Ids of the K players in the order in which they were inserted or deleted.
        rewards (list[float]): Reward before the first step and after each step: K + 1 values.
        confidences (list[float]): P(target) before the first step and after each step: K + 1 values.
        predictions (list[int]): Predicted class before the first step and after each step: K + 1 values.
        shapley (list[float] or None): Shapley value of each player. None if the method does not compute them.
        interactions (list[float] or None): Interaction of each player with the players before it. None if the method
            does not compute them.
        n_steps (int): Number of steps K.
        flipped (bool): Whether the prediction flipped by the last step.
        minimal (bool or None): Whether no player of the group can be left out without losing the flip. None if the run
            or the method does not search minimal groups.
        left_out (list[int] or None): Ids of the players that the search chose first and then left out of the group.
            None as for ``minimal``.
        groups (list[list[int]] or None): Ids of the players of each disjoint group that flips the prediction. The first
            group is the order. It is empty, and the only one, if the prediction is flipped without any player. None
            without ``alternatives``.
        seconds (float): Time in seconds to order the players, without alternatives, as the mean over the batch.
        rows (float): Number of rows evaluated to order the players, as the mean over the batch. A row with a backward
            pass counts as three rows.
        versions (str): Version of each package, as a JSON object.
    """

    image: Required[str]
    label: int | None
    target: int
    status: Required[Status]
    error: str
    method: str
    mode: Mode
    players: int
    order: list[int]
    rewards: list[float]
    confidences: list[float]
    predictions: list[int]
    shapley: list[float] | None
    interactions: list[float] | None
    n_steps: int
    flipped: bool
    minimal: bool | None
    left_out: list[int] | None
    groups: list[list[int]] | None
    seconds: float
    rows: float
    versions: str


SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("label", pa.int32()),
        ("target", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("method", pa.string()),
        ("mode", pa.string()),
        ("players", pa.int32()),
        ("order", pa.list_(pa.int32())),
        ("rewards", pa.list_(pa.float64())),
        ("confidences", pa.list_(pa.float64())),
        ("predictions", pa.list_(pa.int32())),
        ("shapley", pa.list_(pa.float64())),
        ("interactions", pa.list_(pa.float64())),
        ("n_steps", pa.int32()),
        ("flipped", pa.bool_()),
        ("minimal", pa.bool_()),
        ("left_out", pa.list_(pa.int32())),
        ("groups", pa.list_(pa.list_(pa.int32()))),
        ("seconds", pa.float64()),
        ("rows", pa.float64()),
        ("versions", pa.string()),
    ]
)


def selection_row(row: Row, selection: Selection, *, example: int) -> Row:
    """Add one example of a selection to a row.

    Args:
        row (Row): Row of the image.
        selection (Selection): Selections of a batch in insertion or deletion.
        example (int): Index of the example in the batch.

    Returns:
        Row: A new row.
    """
    # A row has one path. Other methods rank the players once, and follow both paths.
    (mode,) = paths_of(selection.mode)
    steps = int(selection.n_steps[example])
    return {
        **row,
        "mode": mode,
        "order": selection.order[example, :steps].tolist(),
        "rewards": selection.rewards[example, : steps + 1].tolist(),
        "confidences": selection.confidences[example, : steps + 1].tolist(),
        "predictions": selection.predictions[example, : steps + 1].tolist(),
        "shapley": _terms(selection.shapley[example, :steps]),
        "interactions": _terms(selection.interactions[example, :steps]),
        "n_steps": steps,
        "flipped": bool(selection.flipped[example]),
    }


def minimal_row(row: Row, selection: Selection, groups: Sequence[Selection] | None, *, example: int) -> Row:
    """Add what is known about the minimal group of one example to a row.

    Args:
        row (Row): Row of the image.
        selection (Selection): Minimal selections of a batch.
        groups (Sequence[Selection] or None): Disjoint groups of the batch. None if they were not searched.
        example (int): Index of the example in the batch.

    Returns:
        Row: A new row.
    """
    left_out = [player for player in selection.left_out[example].tolist() if player >= 0]
    row = {**row, "minimal": bool(selection.minimal[example]), "left_out": left_out}
    if groups is not None:
        flipping = [group for group in groups if bool(group.flipped[example])]
        orders = [group.order[example, : int(group.n_steps[example])].tolist() for group in flipping]
        # If the prediction is flipped without any player, the example has one group, which is empty, no matter how many
        # groups the other examples of the batch have.
        row["groups"] = orders[:1] if [] in orders else orders
    return row


def _terms(values: Tensor) -> list[float] | None:
    # All values are NaN if the order did not come from a search.
    if len(values) and bool(values.isnan().all()):
        return None
    terms: list[float] = values.tolist()
    return terms
