"""Converts the rows of a run to curves: one :class:`RunCurve` for each method and mode."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from captum_moxi.arguments import Mode
from captum_moxi.comparison import Result
from captum_moxi.evaluation.store import read_rows, run_settings
from captum_moxi.metrics import TOLERANCE, Curve, count_players_to_flip
from captum_moxi.search import has_flipped

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Groups:
    """The minimal groups of N images.

    Args:
        sizes (Tensor): Number of players of each minimal group. Shape ``(N,)``, float64. Infinity for images whose
            prediction does not flip.
        left_out (Tensor): Number of players that the search chose first and then left out. Shape ``(N,)``, int64.
        counts (Tensor or None): Number of disjoint groups of each image. Shape ``(N,)``, int64. None if they were not
            searched.
    """

    sizes: Tensor
    left_out: Tensor
    counts: Tensor | None


@dataclass(frozen=True, eq=False)
class RunCurve:
    """One method in one mode of a run over N images.

    Args:
        run (str): Name of the run's folder.
        images (Sequence[str]): Names of the images.
        targets (Tensor): Target class of each image. Shape ``(N,)``, int64.
        n_players (Tensor): Number of players of each image. Shape ``(N,)``, int64.
        result (Result): Title of the method, mode, orders and cost. Its curve covers all evaluated fractions. Entries
            at fractions that an image did not reach are NaN (floating) or -1 (int64).
        curve (Curve or None): Curve over the fractions that every image reached. None if the run stopped at flips,
            because its images then end at different fractions.
        groups (Groups or None): Minimal groups. None if the run or the method did not search them.
    """

    run: str
    images: Sequence[str]
    targets: Tensor
    n_players: Tensor
    result: Result
    curve: Curve | None
    groups: Groups | None = None

    @property
    def method(self) -> str:
        """Title of the method."""
        return self.result.method

    @property
    def mode(self) -> Mode:
        """``"insertion"`` or ``"deletion"``."""
        return self.result.mode

    @property
    def flip_counts(self) -> Tensor:
        """Number of players that flip each prediction. Shape ``(N,)``, float64, infinity if it never flips."""
        return count_players_to_flip(self.result.curve).nan_to_num(nan=torch.inf)

    def finite_flip_counts(self, *, at_most: int | None = None) -> Tensor:
        """Count the players that flip each prediction. Images that never flip count as one more than the maximum.

        Args:
            at_most (int, optional): Maximum number of players of the run.
                Default: None, all players

        Returns:
            Tensor: Shape ``(N,)``, float64.
        """
        most = self.n_players if at_most is None else self.n_players.clamp(max=at_most)
        return torch.where(self.flip_counts.isfinite(), self.flip_counts, most.double() + 1)

    @property
    def max_steps(self) -> int:
        """Maximum number of players that were inserted or deleted in an image."""
        return self.result.order.shape[1]

    def up_to(self, fraction: float) -> "RunCurve":
        """Return the same run with a curve that ends at a fraction of the players, from 0 to 1."""
        return self if self.curve is None else replace(self, curve=_truncate(self.curve, fraction))


def read_run_curves(folder: Path, *, images: Sequence[str] | None = None) -> list[RunCurve]:
    """Read the curves of a run, in the order in which its methods were run.

    Args:
        folder (Path): Folder of the run.
        images (Sequence[str], optional): Names of the images to read.
            Default: None, all explained images

    Returns:
        list[RunCurve]: One curve for each method and mode.

    Raises:
        ValueError: If the folder holds no run, or none of the images was explained.
    """
    stops_at_flips = run_settings(folder).stop == "flip"
    rows = read_rows(folder).to_pandas()
    explained = rows[rows["status"] == "explained"]
    if images is not None:
        explained = explained[explained["image"].isin(list(images))]
    if explained.empty:
        raise ValueError(
            f"{folder} has no explained images, but {len(rows)} others; check the labels (--label-pattern), or run "
            "captum-moxi evaluate with --keep all and another --out"
        )
    return [
        _run_curve(folder.resolve().name, group, stops_at_flips=stops_at_flips)
        for _, group in explained.groupby(["method", "mode"], sort=False)
    ]


def _run_curve(run: str, rows: "pandas.DataFrame", *, stops_at_flips: bool) -> RunCurve:
    """Convert the rows of one method and mode."""
    mode: Mode = rows["mode"].iloc[0]
    targets, n_players = torch.tensor(rows["target"].to_numpy()).long(), torch.tensor(rows["players"].to_numpy()).long()
    n_steps = torch.tensor([len(order) for order in rows["order"]])
    curve = _curve(rows, mode, targets=targets, n_players=n_players, n_steps=n_steps)
    reached = float((n_steps / n_players.double()).min())
    result = Result(
        method=rows["method"].iloc[0],
        mode=mode,
        order=_pad(rows["order"], -1),
        curve=curve,
        # Seconds and rows are NaN if the orders were read from another run.
        seconds=float(rows["seconds"].mean()),
        rows=math.nan,
        weighted_rows=float(rows["rows"].mean()),
    )
    return RunCurve(
        run=run,
        images=list(rows["image"]),
        targets=targets,
        n_players=n_players,
        result=result,
        curve=None if stops_at_flips else _truncate(curve, reached),
        groups=_groups(rows),
    )


def _groups(rows: "pandas.DataFrame") -> Groups | None:
    """Return the minimal groups of the rows, or None if they have none."""
    if rows["minimal"].isna().any():
        return None
    sizes = [len(order) if minimal else math.inf for order, minimal in zip(rows["order"], rows["minimal"], strict=True)]
    return Groups(
        sizes=torch.tensor(sizes, dtype=torch.float64),
        left_out=torch.tensor([len(players) for players in rows["left_out"]]),
        counts=None if rows["groups"].isna().any() else torch.tensor([len(groups) for groups in rows["groups"]]),
    )


def _curve(rows: "pandas.DataFrame", mode: Mode, *, targets: Tensor, n_players: Tensor, n_steps: Tensor) -> Curve:
    """Return the curve over all fractions that any image reached."""
    max_players = int(n_players.max())
    fractions = torch.arange(max_players + 1, dtype=torch.float64) / max_players
    counts = (fractions * n_players[:, None] + 0.5).floor().long()
    evaluated = counts <= n_steps[:, None]
    n_points = int(evaluated.any(0).sum())
    fractions, counts, evaluated = fractions[:n_points], counts[:, :n_points], evaluated[:, :n_points]
    columns = counts.clamp(max=int(n_steps.max()))

    def at_counts(name: str, missing: float) -> Tensor:
        return _pad(rows[name], missing).gather(1, columns).masked_fill(~evaluated, missing)

    confidences, predictions = at_counts("confidences", torch.nan), at_counts("predictions", -1)
    target = targets[:, None]
    flipped = evaluated & has_flipped(mode, predictions, confidences, target=target, min_confidence=0.0)
    return Curve(
        mode=mode,
        fractions=fractions,
        counts=counts,
        rewards=at_counts("rewards", torch.nan),
        confidences=confidences,
        predictions=predictions,
        correct=evaluated & (predictions == target),
        flip_fraction=fractions[flipped.long().argmax(1)].masked_fill(~flipped.any(1), torch.nan),
    )


def _truncate(curve: Curve, fraction: float) -> Curve:
    n_points = int((curve.fractions <= fraction + TOLERANCE).sum())
    return replace(
        curve,
        fractions=curve.fractions[:n_points],
        counts=curve.counts[:, :n_points],
        rewards=curve.rewards[:, :n_points],
        confidences=curve.confidences[:, :n_points],
        predictions=curve.predictions[:, :n_points],
        correct=curve.correct[:, :n_points],
        flip_fraction=curve.flip_fraction.masked_fill(curve.flip_fraction > fraction + TOLERANCE, torch.nan),
    )


def _pad(rows: "pandas.Series[object]", missing: float) -> Tensor:
    """Return lists of different lengths as one int64 or float64 tensor, padded with ``missing``."""
    values = [torch.tensor(row) for row in rows]
    padded = pad_sequence(values, batch_first=True, padding_value=missing)
    return padded if padded.is_floating_point() else padded.long()
