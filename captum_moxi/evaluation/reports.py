"""Reports of runs: a table of all methods, and figures.

To add columns to the table, write a function that computes them from a curve, and add the function to ``COLUMNS``.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas
import torch
from numpy.typing import NDArray

from captum_moxi.arguments import Mode
from captum_moxi.comparison import srg_of
from captum_moxi.evaluation.curves import RunCurve, read_run_curves
from captum_moxi.evaluation.galleries import draw_galleries
from captum_moxi.evaluation.measurements import Better, Measurement, write_pairs
from captum_moxi.evaluation.report_plots import FIGURES, line_styles
from captum_moxi.evaluation.rows import describe_statuses
from captum_moxi.evaluation.store import MANIFEST, read_manifest, read_rows
from captum_moxi.files import write_file
from captum_moxi.metrics import TOLERANCE, median_flip, skips_counts
from captum_moxi.metrics.bootstrap import MIN_IMAGES, mean_with_interval
from captum_moxi.plot import save_figure
from captum_moxi.tables import markdown_table

# What the columns mean, by the beginnings of their titles.
LEGEND: dict[str, str] = {
    "accuracy": """
**Accuracy**: fraction of images for which the target is still predicted when only this fraction of the patches is
present (insertion, higher is better) or absent (deletion, lower is better).""",
    "area": f"""
**Area**: mean confidence in the target over the evaluated fractions, with the low and high ends of a 95 % bootstrap
interval over images, from {MIN_IMAGES} images on. If there are several runs, only the fractions that all of them
reached are used.""",
    "SRG": """
**SRG** (symmetric relevance gain): insertion area minus deletion area of the same order over all patches, with the ends
of its interval; higher is better. Only methods with one order for both modes have it here, and only in runs to the last
patch. captum-moxi replay computes it for all methods.""",
    "to flip": """
**To flip**: median number of patches that flip the prediction to the target (insertion) or away from it (deletion).
Images that never flip count as larger than all others. ≤: the curve skips smaller numbers. With --minimal, patches that
moxi and moxi-minus left out afterwards are counted here.""",
    "flipped": "**Flipped**: number of images whose prediction flips.",
    "minimal to flip": """
**Minimal to flip** (--minimal): median number of patches of the minimal groups, from which no patch can be left out.
flips.png shows these groups.""",
    "left out": "**Left out**: mean number of patches that the search chose before it left them out.",
    "groups": """
**Groups** (--alternatives N): mean number of disjoint groups that the search found, at most N in each image. Each of
them flips the prediction by itself.""",
    "seconds": """
**Seconds** and **weighted rows** per image: mean cost of ordering the patches, including what a search evaluates along
its path, but not alternatives. A row is one model input. A row with a backward pass counts as three rows.""",
}
NO_CURVES = "Accuracies, areas and curves.png require runs that continue after flips (--stop never)."

Cell: TypeAlias = str | int | float | None
Cells: TypeAlias = dict[str, Cell]


@dataclass(frozen=True)
class TableOptions:
    """Options of the columns of the table.

    Args:
        fractions (Sequence[float]): Fractions of the players, from 0 to 1, at which the accuracy is shown.
        resamples (int): Number of bootstrap resamples for the intervals.
        shared_fraction (float): Largest fraction that all runs reached. Areas end at this fraction.
        curves (Sequence[RunCurve]): All curves of the table, for columns that need both modes of a method.
    """

    fractions: Sequence[float]
    resamples: int
    shared_fraction: float
    curves: Sequence[RunCurve]


def write_report(
    folders: Sequence[Path],
    out: Path | None = None,
    *,
    fractions: Sequence[float] = (0.04, 0.1),
    resamples: int = 2000,
    gallery: int | None = None,
    device: str | None = None,
) -> str:
    """Write the table and the figures of one or several runs.

    The files are ``report.md``, ``report.csv``, ``flips.png``, ``curves.png`` (if a run continued after flips),
    ``paired.csv`` (from 10 such images on) and ``RUN-MODE.png`` (with ``gallery``). ``paired.csv`` compares MoXI with
    the best other method of each run and mode, and ``report.md`` contains the same table.

    Args:
        folders (Sequence[Path]): Folders of the runs.
        out (Path, optional): Folder to write to. It is created if it does not exist. Required for several runs.
            Default: None, the folder of the run
        fractions (Sequence[float], optional): Fractions of the players, from 0 to 1, at which the table shows the
            accuracy.
            Default: 0.04 and 0.1
        resamples (int, optional): Number of bootstrap resamples for the intervals.
            Default: 2000
        gallery (int, optional): Maximum number of images in the galleries, which require the model and the data.
            Default: None, no galleries
        device (str, optional): Device of the model for the galleries.
            Default: None, CUDA if available, otherwise the CPU

    Returns:
        str: The Markdown of the report.

    Raises:
        ValueError: If a folder holds no run or no explained images, two folders have the same name, ``out`` is missing
            for several runs, or a fraction is out of range.

    Examples::

        >>> print(write_report([Path("run")], fractions=[0.1, 0.5]))
    """
    if not all(0 <= fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions is {list(fractions)}; pass numbers from 0 to 1")
    if out is None and len(folders) > 1:
        raise ValueError("out is missing; pass a folder for the report of several runs")
    runs = [read_run_curves(folder) for folder in folders]
    if len({curves[0].run for curves in runs}) < len(runs):
        names = ", ".join(str(folder) for folder in folders)
        raise ValueError(f"two of the folders {names} have the same name; pass folders with different names")
    curves = [curve for run in runs for curve in run]
    destination = out or folders[0]
    galleries = {
        f"{folder.resolve().name}-{mode}.png": figure
        for folder in folders
        if gallery is not None
        for mode, figure in draw_galleries(folder, count=gallery, device=device).items()
    }
    destination.mkdir(parents=True, exist_ok=True)
    text = _write_table(folders, curves, destination, fractions=fractions, resamples=resamples)
    _write_figures(curves, destination, resamples=resamples)
    for name, figure in galleries.items():
        save_figure(figure, destination / name)
    return text


def identity_columns(curve: RunCurve, options: TableOptions) -> Cells:
    """Return the run, the mode, the method and the numbers of images and players."""
    return {
        "run": curve.run,
        "mode": curve.mode,
        "method": curve.method,
        "images": len(curve.images),
        "players": int(curve.n_players.max()),
    }


def accuracy_columns(curve: RunCurve, options: TableOptions) -> Cells:
    """Return the accuracy at each fraction, or NaN at fractions that the run did not reach."""
    return {f"accuracy, {100 * fraction:g} %": _accuracy_at(curve, fraction) for fraction in options.fractions}


def area_columns(curve: RunCurve, options: TableOptions) -> Cells:
    """Return the mean area up to the shared fraction, and its confidence interval."""
    values = _areas_of(curve, options.shared_fraction)
    area = low = high = math.nan
    if values is not None:
        area, low, high = mean_with_interval(values, resamples=options.resamples)
    return {"area": area, "area, low": low, "area, high": high}


def srg_columns(curve: RunCurve, options: TableOptions) -> Cells:
    """Return the mean SRG of the order and its confidence interval, in the rows of both modes.

    They are NaN if the modes have different orders or images, or if the orders do not contain all players.
    """
    values = _srg_of(curve, options.curves)
    srg = low = high = math.nan
    if values is not None:
        srg, low, high = mean_with_interval(values, resamples=options.resamples)
    return {"SRG": srg, "SRG, low": low, "SRG, high": high}


def flip_columns(curve: RunCurve, options: TableOptions) -> Cells:
    """Return the median number of players that flip the prediction, and the number of predictions that flip.

    If the run searched minimal groups, players that were left out count, too.
    """
    counts, are_bounds = curve.flip_counts, skips_counts(curve.result.curve)
    if curve.groups is not None:
        # The curve has only the players of the minimal group, without those that the search chose and then left out.
        counts, are_bounds = curve.groups.sizes + curve.groups.left_out, torch.zeros(len(counts), dtype=torch.bool)
    return {
        "to flip, median": median_flip(counts.tolist(), curve.max_steps, are_bounds=are_bounds.tolist()),
        "flipped": int(curve.flip_counts.isfinite().sum()),
    }


def group_columns(curve: RunCurve, options: TableOptions) -> Cells:
    """Return the sizes of the minimal groups and the number of disjoint groups, if the run searched them."""
    median: Cell = None
    left_out = counts = math.nan
    if curve.groups is not None:
        median = median_flip(curve.groups.sizes.tolist(), curve.max_steps)
        left_out = float(curve.groups.left_out.double().mean())
        if curve.groups.counts is not None:
            counts = float(curve.groups.counts.double().mean())
    return {"minimal to flip, median": median, "left out": left_out, "groups": counts}


def cost_columns(curve: RunCurve, options: TableOptions) -> Cells:
    """Return the mean cost of ordering the players of an image."""
    return {"seconds per image": curve.result.seconds, "weighted rows per image": curve.result.weighted_rows}


# The columns of the table, from left to right.
COLUMNS: tuple[Callable[[RunCurve, TableOptions], Cells], ...] = (
    identity_columns,
    accuracy_columns,
    area_columns,
    srg_columns,
    flip_columns,
    group_columns,
    cost_columns,
)


def measure_accuracy(curves: Sequence[RunCurve], mode: Mode, fraction: float) -> list[Measurement]:
    """Measure whether each image is classified correctly, as in the columns of the accuracy.

    Args:
        curves (Sequence[RunCurve]): All curves of one run.
        mode (str): ``"insertion"`` or ``"deletion"``.
        fraction (float): Fraction of the players that are inserted or deleted, from 0 to 1.

    Returns:
        list[Measurement]: 1 or 0 for each image, without paired comparisons. Empty if the run does not have this mode
        or did not reach the fraction.
    """
    values = _by_method(curves, mode, lambda curve: _correct_at(curve, fraction))
    titles: dict[Mode, tuple[str, Better]] = {"insertion": ("inserted", "higher"), "deletion": ("deleted", "lower")}
    moved, better = titles[mode]
    return [Measurement(f"accuracy, {100 * fraction:g} % {moved}", better, values, tested=())] if values else []


def measure_areas(curves: Sequence[RunCurve]) -> list[Measurement]:
    """Measure the areas of each run and mode, and the SRG of each run, for paired comparisons.

    Args:
        curves (Sequence[RunCurve]): All curves of one or several runs. Areas end at the largest fraction that all runs
            reached.

    Returns:
        list[Measurement]: Areas of each run and mode, then the SRG, with the name of the run as condition if there are
        several. Quantities that a run does not have are left out.
    """
    shared = _shared_fraction(curves)
    several = len({curve.run for curve in curves}) > 1
    measurements = []
    for run in dict.fromkeys(curve.run for curve in curves):
        # Values are paired by image.
        of_run = [curve for curve in curves if curve.run == run]
        of_run = [curve for curve in of_run if list(curve.images) == list(of_run[0].images)]
        quantities: list[tuple[str, Better, dict[str, NDArray[np.float64]]]] = [
            ("insertion area", "higher", _by_method(of_run, "insertion", lambda curve: _areas_of(curve, shared))),
            ("deletion area", "lower", _by_method(of_run, "deletion", lambda curve: _areas_of(curve, shared))),
            ("SRG", "higher", _by_method(of_run, "insertion", lambda curve: _srg_of(curve, curves))),
        ]
        condition = run if several else ""
        measurements += [Measurement(*quantity, condition=condition) for quantity in quantities if quantity[2]]
    return measurements


def _by_method(
    curves: Sequence[RunCurve], mode: Mode, measure: Callable[[RunCurve], NDArray[np.float64] | None]
) -> dict[str, NDArray[np.float64]]:
    """Measure the curves of one mode, by method. Methods without the quantity are left out."""
    measured = {curve.method: measure(curve) for curve in curves if curve.mode == mode}
    return {method: values for method, values in measured.items() if values is not None}


def _areas_of(curve: RunCurve, fraction: float) -> NDArray[np.float64] | None:
    """Return the area of each image up to a fraction. None if the run stopped at flips."""
    shared = curve.up_to(fraction).curve
    if shared is None or len(shared.fractions) < 2:
        return None
    areas: NDArray[np.float64] = shared.area().numpy()
    return areas


def _srg_of(curve: RunCurve, curves: Sequence[RunCurve]) -> NDArray[np.float64] | None:
    """Return the SRG of each image. None if the modes of the method have different orders or images."""
    same_order = [
        replace(other.result, curve=other.curve)
        for other in curves
        if (other.run, other.method) == (curve.run, curve.method)
        and other.curve is not None
        and list(other.images) == list(curve.images)
    ]
    values = srg_of(same_order)
    return None if values is None else values.numpy()


def _write_table(
    folders: Sequence[Path], curves: Sequence[RunCurve], out: Path, *, fractions: Sequence[float], resamples: int
) -> str:
    """Write ``report.csv``, ``paired.csv`` and ``report.md``, and return the Markdown."""
    options = TableOptions(fractions, resamples, _shared_fraction(curves), curves)
    records = [
        {name: cell for columns in COLUMNS for name, cell in columns(curve, options).items()} for curve in curves
    ]
    frame = pandas.DataFrame(records)
    if len(folders) == 1:
        frame = frame.drop(columns="run")
    frame.to_csv(out / "report.csv", index=False)
    pairs = write_pairs(measure_areas(curves), out / "paired.csv", resamples=resamples, condition_title="run")
    frame = frame.dropna(axis="columns", how="all")
    descriptions = [_describe_run(folder) for folder in folders]
    text = "\n\n".join([*descriptions, _format_table(frame), _legend_of(frame), *pairs, *_difference_warnings(curves)])
    write_file(out / "report.md", text + "\n")
    return text


def _write_figures(curves: Sequence[RunCurve], out: Path, *, resamples: int) -> None:
    styles = line_styles(curves)
    for name, plot in FIGURES.items():
        figure = plot(curves, styles=styles, resamples=resamples)
        if figure is not None:
            save_figure(figure, out / name)


def _legend_of(frame: pandas.DataFrame) -> str:
    """Return what the columns of the table mean."""
    sentences = [
        text.strip() for title, text in LEGEND.items() if any(column.startswith(title) for column in frame.columns)
    ]
    if not any(column.startswith("area") for column in frame.columns):
        sentences.append(NO_CURVES)
    return "\n".join(sentences)


def _format_table(frame: pandas.DataFrame) -> str:
    cells = frame.astype(object).where(frame.notna(), "")
    return markdown_table(list(frame.columns), cells.to_numpy(dtype=object).tolist())


def _accuracy_at(curve: RunCurve, fraction: float) -> float:
    """Return the accuracy at the evaluated fraction closest to this one; NaN if the run did not reach it."""
    correct = _correct_at(curve, fraction)
    return math.nan if correct is None else float(correct.mean())


def _correct_at(curve: RunCurve, fraction: float) -> NDArray[np.float64] | None:
    """Return 1 for each image that is classified correctly at the evaluated fraction closest to this one, or else 0.

    None if the run did not reach it.
    """
    if curve.curve is None:
        return None
    fractions = curve.curve.fractions
    # A curve that consists only of its start has no step.
    half_step = float(fractions[1:2].sum()) / 2
    is_close = (fractions - fraction).abs() <= half_step + TOLERANCE
    if fraction > 0:
        # A small fraction must not be rounded to no players at all.
        is_close &= fractions > 0
    if not bool(is_close.any()):
        return None
    correct: NDArray[np.float64] = curve.curve.correct[:, is_close][:, -1].double().numpy()
    return correct


def _shared_fraction(curves: Sequence[RunCurve]) -> float:
    reached = [float(curve.curve.fractions[-1]) for curve in curves if curve.curve is not None]
    return min(reached, default=1.0)


def _describe_run(folder: Path) -> str:
    """Describe a run: the number of images by status, its settings, and the versions of the packages."""
    manifest = read_manifest(folder)
    images = read_rows(folder, ["image", "status", "versions"]).to_pandas().drop_duplicates("image")
    statuses = describe_statuses(images["status"].tolist())
    settings = ", ".join(f"{name} {value!r}" for name, value in manifest.settings.items() if value is not None)
    versions = " and ".join(
        ", ".join(f"{package} {version}" for package, version in json.loads(text).items())
        for text in images["versions"].dropna().drop_duplicates()
    )
    n_missing = (manifest.images or 0) - len(images)
    title = f"**{folder.resolve().name}**: {len(images)} images, {statuses}."
    if n_missing > 0:
        title += f" {n_missing} more have no rows; repeat the command that wrote the run to finish them."
    return f"{title}\n{MANIFEST}: {settings}. {versions}."


def _difference_warnings(curves: Sequence[RunCurve]) -> list[str]:
    """Return a warning if the rows of the table have different images or numbers of players."""
    differences = []
    if len({tuple(curve.images) for curve in curves}) > 1:
        differences.append("images")
    if len({int(curve.n_players.max()) for curve in curves}) > 1:
        differences.append("numbers of players")
    return [f"The rows have different {' and '.join(differences)}."] if differences else []
