"""The rows of a run as curves: one :class:`RunCurve` for each method and mode."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from captum_moxi.arguments import Mode
from captum_moxi.comparison import Result
from captum_moxi.evaluation.store import read_rows, read_settings
from captum_moxi.metrics import Curve, count_players_to_flip
from captum_moxi.search import has_flipped

if TYPE_CHECKING:
    import pandas

# Fractions of the players are compared up to this difference.
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class RunCurve:
    """One method in one mode of a run: N images.

    Args:
        run (str): Name of the run's folder.
        images (Sequence[str]): Names of the images.
        targets (Tensor): ``(N,)`` int64: explained classes.
        n_players (Tensor): ``(N,)`` int64: number of players of each image.
        result (Result): Title of the method, mode, orders and cost. Its curve covers all evaluated fractions. It has
            NaN and -1 at fractions that an image did not reach.
        curve (Curve or None): The fractions that every image reached; None if the run stopped at flips, where each
            image ends at another fraction.
    """

    run: str
    images: Sequence[str]
    targets: Tensor
    n_players: Tensor
    result: Result
    curve: Curve | None

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
        """``(N,)`` float64: number of players that flip the prediction; infinity if it never flips."""
        return count_players_to_flip(self.result.curve).nan_to_num(nan=torch.inf)

    @property
    def max_steps(self) -> int:
        """Largest number of players that were inserted or deleted."""
        return self.result.order.shape[1]

    def up_to(self, fraction: float) -> "RunCurve":
        """Return the run with its curve cut off after a fraction of the players."""
        return self if self.curve is None else replace(self, curve=_truncate(self.curve, fraction))


def read_run_curves(folder: Path, *, images: Sequence[str] | None = None) -> list[RunCurve]:
    """Read the curves of a run, in the order in which its methods were run.

    Args:
        folder (Path): Folder of the run.
        images (Sequence[str], optional): Names of the images to read.
            Default: None, all explained images

    Returns:
        list[RunCurve]: One for each method and mode.

    Raises:
        ValueError: If the folder holds no run, or none of the images was explained.
    """
    stops_at_flips = read_settings(folder)["stop"] == "flip"
    rows = read_rows(folder).to_pandas()
    explained = rows[rows["status"] == "explained"]
    if images is not None:
        explained = explained[explained["image"].isin(list(images))]
    if explained.empty:
        raise ValueError(
            f"{folder} has no explained images, but {len(rows)} others; check the labels (--label-pattern), or pass "
            "--keep all to captum-moxi evaluate"
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
        # Both are NaN if the orders were read from another run.
        seconds=float(rows["seconds"].mean()),
        rows=float(rows["rows"].mean()),
    )
    return RunCurve(
        run=run,
        images=list(rows["image"]),
        targets=targets,
        n_players=n_players,
        result=result,
        curve=None if stops_at_flips else _truncate(curve, reached),
    )


def _curve(rows: "pandas.DataFrame", mode: Mode, *, targets: Tensor, n_players: Tensor, n_steps: Tensor) -> Curve:
    """Return the curve over all fractions that any image reached."""
    largest = int(n_players.max())
    fractions = torch.arange(largest + 1, dtype=torch.float64) / largest
    counts = (fractions * n_players[:, None] + 0.5).floor().long()
    evaluated = counts <= n_steps[:, None]
    width = int(evaluated.any(0).sum())
    fractions, counts, evaluated = fractions[:width], counts[:, :width], evaluated[:, :width]
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
    width = int((curve.fractions <= fraction + TOLERANCE).sum())
    return replace(
        curve,
        fractions=curve.fractions[:width],
        counts=curve.counts[:, :width],
        rewards=curve.rewards[:, :width],
        confidences=curve.confidences[:, :width],
        predictions=curve.predictions[:, :width],
        correct=curve.correct[:, :width],
        flip_fraction=curve.flip_fraction.masked_fill(curve.flip_fraction > fraction + TOLERANCE, torch.nan),
    )


def _pad(rows: "pandas.Series[object]", missing: float) -> Tensor:
    """Return lists of different lengths as one tensor, int64 or float64."""
    values = [torch.tensor(row) for row in rows]
    padded = pad_sequence(values, batch_first=True, padding_value=missing)
    return padded if padded.is_floating_point() else padded.long()
