"""Reports of runs: curves with bands over images, and tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from captum_moxi.evaluation.records import table
from captum_moxi.evaluation.store import EXPLAINED, FAILED, MANIFEST, UNREADABLE, WRONG, read_rows, read_settings
from captum_moxi.metrics import median_flip
from captum_moxi.visualization import label_curves, line_style, save_figure

# of each run and method, what matplotlib draws its line by
Lines = dict[tuple[str, str], dict[str, Any]]

LEVEL = 0.95
DRAWN_AT_ONCE = 10**7
LEGEND = """

Accuracy: the share of images whose target is predicted with so many of the patches alone (insertion: more is better),
or without them (deletion: less is better). Area: the mean confidence in the target over the fractions that were looked
at, of runs side by side those that all reached, with a bootstrap interval over images of 95 %: low and high. These, and
curves.png, are of runs that went beyond flips (--stop never). To flip: how many patches change the prediction to the
target, or away from it, the median; images that never flip come after all others. Seconds and forwards an image are for
the ordering, the mean over a batch, and a search's steps along its path are among them; a row that also goes back
through the model is three forwards, and methods that look inside it take none of them."""


@dataclass(frozen=True)
class Series:
    """One method in one mode of one run: N images.

    Args:
        run (str): The name of the run's folder.
        method (str): The title of the method.
        mode (str): ``"insertion"`` or ``"deletion"``.
        images (list[str]): Their names.
        players (int): How many an image has, at most.
        fractions (ndarray): ``(P,)``: fractions of the players.
        correct (ndarray): ``(N, P)``: whether the target is predicted; empty of a run that stopped at flips.
        confidences (ndarray): ``(N, P)``: P(target); likewise.
        flips (ndarray): ``(N,)``: how many players flip the prediction; infinity for never.
        most (int): How many players were looked at, at most.
        seconds (float): What the ordering took an image.
        forwards (float): Likewise.
    """

    run: str
    method: str
    mode: str
    images: list[str]
    players: int
    fractions: np.ndarray
    correct: np.ndarray
    confidences: np.ndarray
    flips: np.ndarray
    most: int
    seconds: float
    forwards: float

    def area(self) -> np.ndarray:
        """``(N,)``: the area under each image's confidences, over the width of the fractions."""
        heights = (self.confidences[:, 1:] + self.confidences[:, :-1]) / 2
        widths = np.diff(self.fractions)
        return (heights * widths).sum(1) / widths.sum()


def read_series(folder: Path, images: Sequence[str] | None = None) -> list[Series]:
    """What a run found, by method and mode.

    Args:
        folder (Path): The run's.
        images (Sequence[str], optional): Only of these. Default: all

    Raises:
        ValueError: no run, or none of its images explained.
    """
    stops = read_settings(folder)["stop"] == "flip"
    rows = read_rows(folder).to_pandas()
    rows = rows[rows["status"] == EXPLAINED]
    if images is not None:
        rows = rows[rows["image"].isin(list(images))]
    if rows.empty:
        raise ValueError(
            f"{folder} holds no image that was explained, but {len(read_rows(folder, ['image']))} others; check the "
            "labels (--label-pattern), or pass --keep all to captum-moxi evaluate"
        )
    found = []
    # in the order that the methods were run
    for (method, mode), of in rows.groupby(["method", "mode"], sort=False):
        players, lengths = of["players"].to_numpy(), of["rewards"].map(len).to_numpy()
        fractions = np.arange(players.max() + 1) / players.max()
        fractions = fractions[fractions <= ((lengths - 1) / players).min() + 1e-9]
        at = np.floor(fractions * players[:, None] + 0.5).astype(int)
        correct = [np.asarray(row) == target for row, target in zip(of["predictions"], of["target"], strict=True)]
        flip = [_first(row if mode == "insertion" else ~row) for row in correct]
        if stops:
            fractions, at = fractions[:0], at[:, :0]
        found.append(
            Series(
                run=folder.resolve().name,
                method=method,
                mode=mode,
                images=list(of["image"]),
                players=int(players.max()),
                fractions=fractions,
                correct=_at(correct, at),
                confidences=_at(of["confidences"], at),
                flips=np.array(flip),
                most=int((lengths - 1).max()),
                seconds=float(of["seconds"].mean()),
                forwards=float(of["forwards"].mean()),
            )
        )
    return found


def write_report(folders: Sequence[Path], out: Path, fractions: Sequence[float], resamples: int) -> str:
    """Write report.md, report.csv, flips.png and, of runs that went beyond flips, curves.png; return the Markdown.

    Args:
        folders (Sequence[Path]): The runs.
        out (Path): Where to write.
        fractions (Sequence[float]): Of the players, at which the table has the accuracy.
        resamples (int): How often images are drawn anew for the bands.

    Raises:
        ValueError: a folder without a run, or with none of its images explained.
    """
    runs = [read_series(folder) for folder in folders]
    if len({series[0].run for series in runs}) < len(runs):
        raise ValueError(f"folders {', '.join(map(str, folders))} share a name; pass ones of different names")
    whole = [one for series in runs for one in series]
    every = _of_one_width(whole)
    records = [
        _accuracies(reached, fractions) | _record(one, resamples) for reached, one in zip(whole, every, strict=True)
    ]
    frame = pandas.DataFrame(records)
    if len(runs) == 1:
        frame = frame.drop(columns="run")
    frame.to_csv(out / "report.csv", index=False)
    frame = frame.dropna(axis="columns", how="all")
    rows = [["" if _missing(value) else value for value in row] for row in frame.to_numpy(dtype=object).tolist()]
    text = "\n\n".join(
        [*(_heading(folder) for folder in folders), table(list(frame.columns), rows) + LEGEND, *_unlike(every)]
    )
    (out / "report.md").write_text(text + "\n")
    lines = line_styles(whole)
    save_figure(plot_flips(whole, lines, resamples), out / "flips.png")
    drawn = [one for one in whole if len(one.fractions) > 1]
    if drawn:
        save_figure(plot_series(drawn, lines, resamples), out / "curves.png")
    return text


def line_styles(every: Sequence[Series]) -> Lines:
    """How the line of each run and method is labelled and drawn; of several runs a colour a method and a dash a run."""
    runs, methods = (list(dict.fromkeys(getattr(one, name) for one in every)) for name in ("run", "method"))
    lines: Lines = {}
    for one in every:
        run, method = runs.index(one.run), methods.index(one.method)
        if len(runs) == 1:
            label, style = one.method, line_style(method)
        elif len(methods) == 1:
            label, style = one.run, line_style(run)
        else:
            label, style = f"{one.method}, {one.run}", line_style(method, run)
        lines[one.run, one.method] = {"label": label, **style}
    return lines


def plot_series(every: Sequence[Series], lines: Lines, resamples: int) -> Figure:
    """Accuracy and confidence over the fraction of patches, the mean over images with 95 % bands: a column a mode."""
    modes = list(dict.fromkeys(one.mode for one in every))
    figure = Figure(figsize=(4.8 * len(modes), 6.6), layout="constrained")
    axes = figure.subplots(2, len(modes), squeeze=False, sharey="row")
    for row, (name, height) in enumerate((("correct", "accuracy"), ("confidences", "confidence in the target"))):
        for column, mode in enumerate(modes):
            panel = axes[row, column]
            for one in (one for one in every if one.mode == mode):
                values = getattr(one, name).astype(float)
                style = lines[one.run, one.method]
                panel.plot(one.fractions, values.mean(0), **style)
                low, high = band(values, resamples)
                panel.fill_between(one.fractions, low, high, color=style["color"], alpha=0.13, linewidth=0)
            label_curves(panel, mode, height)
            panel.set_ylim(-0.02, 1.02)
            if row:
                panel.set_title("")
    _legend(figure, lines, every)
    return figure


def plot_flips(every: Sequence[Series], lines: Lines, resamples: int) -> Figure:
    """The share of images whose prediction so many patches flip, with 95 % bands over images: a column a mode."""
    modes = list(dict.fromkeys(one.mode for one in every))
    figure = Figure(figsize=(4.8 * len(modes), 3.9), layout="constrained")
    axes = figure.subplots(1, len(modes), squeeze=False, sharey=True)[0]
    for panel, mode in zip(axes, modes, strict=True):
        for one in (one for one in every if one.mode == mode):
            count = np.arange(one.most + 1)
            flipped, style = one.flips[:, None] <= count, lines[one.run, one.method]
            panel.step(count, flipped.mean(0), where="post", **style)
            low, high = band(flipped, resamples)
            panel.fill_between(count, low, high, step="post", color=style["color"], alpha=0.13, linewidth=0)
        label_curves(panel, mode, "share of images flipped")
        panel.set_title(f"{mode}: higher is better", fontsize=10)
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylim(-0.02, 1.02)
    _legend(figure, lines, every)
    return figure


def band(values: np.ndarray, resamples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of the mean over images ``(N, ...)``, by the percentile bootstrap.

    The images drawn depend on their number and the seed alone, so that all methods are drawn the same ones.
    """
    n, values = len(values), values.astype(float)
    random = np.random.default_rng(seed)
    # so many at once that the draws of a large data set fit into memory
    chunk = max(1, DRAWN_AT_ONCE // n)
    sizes = [min(chunk, resamples - first) for first in range(0, resamples, chunk)]
    means = [np.tensordot(random.multinomial(n, np.full(n, 1 / n), size), values, axes=1) / n for size in sizes]
    edges = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), [edges, 1 - edges], axis=0)
    return low, high


def _accuracies(one: Series, fractions: Sequence[float]) -> dict[str, Any]:
    """What a series is of, and its accuracy at fractions of the players, as far as it went."""
    record: dict[str, Any] = {
        "run": one.run,
        "mode": one.mode,
        "method": one.method,
        "images": len(one.images),
        "players": one.players,
    }
    for fraction in fractions:
        near = np.flatnonzero(np.abs(one.fractions - fraction) <= one.fractions[1:2].sum() / 2 + 1e-9)
        # no player is no fraction of them
        near = near[(one.fractions[near] > 0) | (fraction == 0)]
        record[f"accuracy, {100 * fraction:g} %"] = one.correct[:, near[-1]].mean() if len(near) else np.nan
    return record


def _record(one: Series, resamples: int) -> dict[str, Any]:
    """A series' area, flips and cost."""
    area: Any = np.nan
    low: Any = np.nan
    high: Any = np.nan
    if len(one.fractions) > 1:
        area = one.area().mean()
        if len(one.images) > 1:
            low, high = band(one.area(), resamples)
    return {
        "area": area,
        "area, low": low,
        "area, high": high,
        "to flip, median": median_flip(one.flips.tolist(), one.most),
        "flipped": int(np.isfinite(one.flips).sum()),
        "seconds an image": one.seconds,
        "forwards an image": one.forwards,
    }


def _of_one_width(every: Sequence[Series]) -> list[Series]:
    """The series over the fractions that all of those which went beyond flips have; areas compare over these alone."""
    widths = [one.fractions[-1] for one in every if len(one.fractions)]
    if not widths:
        return list(every)
    kept = [int((one.fractions <= min(widths) + 1e-9).sum()) for one in every]
    return [
        replace(one, fractions=one.fractions[:k], correct=one.correct[:, :k], confidences=one.confidences[:, :k])
        for one, k in zip(every, kept, strict=True)
    ]


def _heading(folder: Path) -> str:
    """What a run is of: its model, data, settings, and what came of its images."""
    settings = read_settings(folder)
    status = read_rows(folder, ["image", "status", "versions"]).to_pandas().drop_duplicates("image")
    counts = status["status"].value_counts()
    said = ", ".join(f"{counts[name]} {name}" for name in (EXPLAINED, WRONG, UNREADABLE, FAILED) if name in counts)
    how = ", ".join(f"{name} {value!r}" for name, value in settings.items() if value is not None)
    versions = " and ".join(
        ", ".join(f"{name} {number}" for name, number in json.loads(text).items())
        for text in status["versions"].drop_duplicates()
    )
    return f"**{folder.resolve().name}**: {len(status)} images, {said}.\n{MANIFEST}: {how}. {versions}."


def _unlike(every: Sequence[Series]) -> list[str]:
    """A warning where series differ in what says little about the methods."""
    ways = {"images": lambda one: tuple(one.images), "players": lambda one: one.players}
    unlike = [name for name, of in ways.items() if len({of(one) for one in every}) > 1]
    return [f"The rows are not all of the same {' and '.join(unlike)}."] if unlike else []


def _legend(figure: Figure, lines: Lines, every: Sequence[Series]) -> None:
    """One legend for all panels, below them, and the number of images above."""
    keys = dict.fromkeys((one.run, one.method) for one in every)
    drawn = [Line2D([], [], **lines[key]) for key in keys]
    figure.legend(handles=drawn, loc="outside lower center", ncols=min(4, len(drawn)), fontsize=8, handlelength=3)
    counts = sorted({len(one.images) for one in every})
    figure.suptitle(f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} images", fontsize=9)


def _at(rows: Any, at: np.ndarray) -> np.ndarray:
    """The values of each image at its places ``(N, P)``."""
    return np.stack([np.asarray(row)[places] for row, places in zip(rows, at, strict=True)])


def _first(row: np.ndarray) -> float:
    return float(row.argmax()) if row.any() else np.inf


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))
