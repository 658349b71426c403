"""Replays the orders of a run under several removals, and measures areas and SRG (Bluecher et al., TMLR 2024)."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from captum_moxi.arguments import MODES
from captum_moxi.evaluation import store
from captum_moxi.evaluation.bootstrap import bootstrap_band
from captum_moxi.evaluation.curves import RunCurve, read_run_curves
from captum_moxi.evaluation.evaluator import BLANK_SIZE, Evaluator, Played
from captum_moxi.evaluation.replays.orders import ImageOrders, Orders, read_orders_of_all_modes
from captum_moxi.evaluation.replays.writing import check_other_folder, write_replay
from captum_moxi.evaluation.rows import Row
from captum_moxi.files import write_file
from captum_moxi.metrics import rank_positions
from captum_moxi.models import as_forward_func, preserved_state
from captum_moxi.players import players_from_mask
from captum_moxi.plot import describe, line_style, save_figure
from captum_moxi.removal import REMOVALS, ForwardCall, default_removal
from captum_moxi.search import follow
from captum_moxi.tables import Record, markdown_table

# Removals of a replay if the user passes none. Those that do not fit the model are left out.
DEFAULT_REMOVALS = ("token", "zero", "mean", "blur")
# Quantities of the table, and whether higher or lower values are better.
QUANTITIES = {"insertion area": "higher", "deletion area": "lower", "SRG": "higher"}
# Part of the distance between two removals in the figure that the markers of all orders cover.
MARKER_SPREAD = 0.7
MARKERS = "os^DvPX<>*pHdh"

LEGEND = """
**Insertion area**, **deletion area**: mean confidence in the target as patches are inserted or deleted in this order.
**SRG** (symmetric relevance gain): insertion area minus deletion area; higher is better. **Low**, **high**: ends of the
95 % bootstrap interval over images. Methods that search have one order for each mode. Both curves of an order use the
same patches.""".strip()


@dataclass(frozen=True, eq=False)
class Replay:
    """The areas of one order under one removal, for N images.

    Args:
        removal (str): Name of the removal.
        order (str): Title of the order.
        insertion (ndarray): Area under the insertion curve of each image. Shape ``(N,)``, float64.
        deletion (ndarray): Area under the deletion curve of each image. Shape ``(N,)``, float64.
        fraction (float): Fraction of the players at which both curves end.
    """

    removal: str
    order: str
    insertion: NDArray[np.float64]
    deletion: NDArray[np.float64]
    fraction: float

    @property
    def quantities(self) -> dict[str, NDArray[np.float64]]:
        """Values of each image, by the name of the quantity. Each has the shape ``(N,)``, float64."""
        values = (self.insertion, self.deletion, self.insertion - self.deletion)
        return dict(zip(QUANTITIES, values, strict=True))


def run_removals(
    run: Path,
    out: Path,
    *,
    removals: Sequence[str] | None = None,
    limit: int | None = None,
    resamples: int = 2000,
    device: str | None = None,
    show_progress: bool = False,
) -> str:
    """Replay every order of a run under several removals, and summarize insertion areas, deletion areas and SRG.

    Writes a run for each removal (``out/REMOVAL``), the table (``replay.md``, ``replay.csv``, ``replay.json``) and a
    figure (``replay.png``). After an interruption, repeat the same call to continue.

    Args:
        run (Path): Folder of a run that did not stop at flips. If its orders contain only the first players, the areas
            end there, and the table contains this fraction.
        out (Path): Folder to write to.
        removals (Sequence[str], optional): Names in ``captum_moxi.removal.REMOVALS``.
            Default: None, those of token, zero, mean and blur that fit the model
        limit (int, optional): Maximum number of images. The first explained ones are used.
            Default: None, all explained images
        resamples (int, optional): Number of bootstrap resamples for the intervals.
            Default: 2000
        device (str, optional): Device of the model.
            Default: None, CUDA if available, otherwise the CPU
        show_progress (bool, optional): Whether to show a progress bar over the images if standard error is a terminal.
            Default: False

    Returns:
        str: The Markdown of the summary.

    Raises:
        ValueError: If a removal is unknown, repeated or does not fit the model, if ``out`` is ``run`` or holds replays
            of another run, or for the reasons listed in :func:`read_orders_of_all_modes`.
    """
    _check_names(removals)
    check_other_folder(run, out)
    orders = read_orders_of_all_modes(run, limit=limit, device=device)
    names = fitting_removals(orders.evaluator, removals)
    images = [image.name for image in orders.images]
    run_id, disable = store.read_manifest(run).run, None if show_progress else True
    with tqdm(total=len(names) * len(images), desc="images", unit="image", disable=disable) as bar:
        for name in names:
            for _ in replay_run(orders, out / folder_name(name), removal=name, run_id=run_id):
                bar.update()
    replays = [
        replay
        for name in names
        for replay in read_replays(read_run_curves(out / folder_name(name), images=images), removal=name)
    ]
    records = replay_records(replays, resamples=resamples)
    covered = (
        "" if replays[0].fraction == 1 else f" The areas cover the first {replays[0].fraction:.0%} of the patches."
    )
    text = (
        f"{len(images)} images of {run}, model {orders.evaluator.settings.model}. Each order is replayed under each "
        f"removal.{covered}\n\n{markdown_table(list(records[0]), [list(row.values()) for row in records])}\n\n{LEGEND}"
    )
    write_file(out / "replay.md", text + "\n")
    write_file(out / "replay.csv", _to_csv(records))
    write_file(out / "replay.json", json.dumps(records, indent=1) + "\n")
    save_figure(plot_replays(records), out / "replay.png")
    return text


def fitting_removals(evaluator: Evaluator, removals: Sequence[str] | None) -> list[str]:
    """Check that removals fit the model and the players of a run. The model does not run.

    Args:
        evaluator (Evaluator): Model and settings of the run.
        removals (Sequence[str] or None): Names of removals. None means those of :data:`DEFAULT_REMOVALS` that fit.

    Returns:
        list[str]: Names of removals that fit.

    Raises:
        ValueError: If one of the names that the user passed does not fit.
    """
    model = as_forward_func(evaluator.classifier.model)
    x = evaluator.classifier.preprocess(Image.new("RGB", BLANK_SIZE))
    run_removal = evaluator.removal or default_removal(model, (x,), has_baselines=False)
    players = players_from_mask(run_removal.grid_mask(model, x, evaluator.settings.grid), (x,))
    fitting = []
    for name in removals or DEFAULT_REMOVALS:
        try:
            REMOVALS.create(name).bind(ForwardCall(model, (x,), None, (), players))
        except ValueError as error:
            if removals is None:
                continue
            reason = str(error).partition(";")[0]
            raise ValueError(f"removals='{name}' does not fit the model ({reason}); pass other removals") from None
        fitting.append(name)
    return fitting


def folder_name(removal: str) -> str:
    """Return the name of the folder for a removal. A colon before an argument becomes a hyphen."""
    return removal.replace(":", "-")


def replay_run(orders: Orders, out: Path, *, removal: str, run_id: str | None = None) -> Iterator[str]:
    """Replay the orders of a run under one removal, and write the rows of each image when it is finished.

    Args:
        orders (Orders): Orders of a run.
        out (Path): Folder of the new run. If it holds a run with the same settings, finished images are not repeated.
        removal (str): Name of the removal.
        run_id (str, optional): Id of the run, so that replays of another run in the same folder are rejected.
            Default: None, unknown

    Yields:
        str: Name of each image.

    Raises:
        ValueError: If the removal does not fit the model, if the folder holds another run, or if another process is
            writing to it.
    """
    settings = {"modes": list(MODES), "stop": None, "removal": removal, "replay_of": run_id}
    return write_replay(orders, out, settings, rows_of=partial(_replay_image, orders.evaluator, removal=removal))


def read_replays(curves: Sequence[RunCurve], *, removal: str) -> list[Replay]:
    """Compute the areas of each order from the curves of a replayed run.

    Args:
        curves (Sequence[RunCurve]): Insertion and deletion curve of each order.
        removal (str): Name of the removal.

    Returns:
        list[Replay]: Areas of each order.
    """
    by_order: dict[str, dict[str, RunCurve]] = {}
    for curve in curves:
        by_order.setdefault(curve.method, {})[curve.mode] = curve
    replays = []
    for order, by_mode in by_order.items():
        insertion, deletion = by_mode["insertion"].curve, by_mode["deletion"].curve
        if insertion is None or deletion is None:
            raise ValueError(f"run {curves[0].run!r} stopped at flips; pass a run of captum-moxi replay")
        areas = (insertion.area().numpy(), deletion.area().numpy())
        replays.append(Replay(removal, order, *areas, fraction=float(insertion.fractions[-1])))
    return replays


def replay_records(replays: Sequence[Replay], *, resamples: int) -> list[Record]:
    """Return the rows of the table: means over the images with 95 % bootstrap intervals.

    Args:
        replays (Sequence[Replay]): Areas of each order under each removal.
        resamples (int): Number of bootstrap resamples for the intervals.

    Returns:
        list[dict]: One row for each order and removal. The ends of an interval are None if there is only one image.
    """
    records: list[Record] = []
    for replay in replays:
        record: Record = {
            "removal": replay.removal,
            "order": replay.order,
            "images": len(replay.insertion),
            "fraction of patches": replay.fraction,
        }
        for name, values in replay.quantities.items():
            low, high = _interval(values, resamples=resamples)
            record |= {name: float(values.mean()), f"{name}, low": low, f"{name}, high": high}
        records.append(record)
    return records


def plot_replays(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the mean areas and the SRG of each order under each removal, with 95 % intervals.

    Args:
        records (Sequence[dict]): Rows of the table, as returned by :func:`replay_records`.

    Returns:
        Figure: The figure.
    """
    removals = list(dict.fromkeys(record["removal"] for record in records))
    orders = list(dict.fromkeys(record["order"] for record in records))
    figure = Figure(figsize=(3.4 * len(QUANTITIES) + 1.8, 4.2), layout="constrained")
    axes = figure.subplots(1, len(QUANTITIES))
    for ax, (name, better) in zip(axes, QUANTITIES.items(), strict=True):
        for index, order in enumerate(orders):
            shift = MARKER_SPREAD * ((index + 0.5) / len(orders) - 0.5)
            drawn = [record for record in records if record["order"] == order]
            ax.errorbar(
                [removals.index(record["removal"]) + shift for record in drawn],
                np.array([record[name] for record in drawn]),
                yerr=np.array([_bar_lengths(record, name) for record in drawn]).T,
                label=order,
                color=line_style(index)["color"],
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                linestyle="none",
                elinewidth=1,
            )
        ax.set_xticks(range(len(removals)), removals, fontsize=8)
        ax.set_title(f"{name}: {better} is better", fontsize=9)
        ax.set_xlabel("removal", fontsize=9)
        ax.tick_params(labelsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    n_images = records[0]["images"]
    describe(
        figure,
        title=f"Each order under each removal: {n_images} image{'' if n_images == 1 else 's'}",
        reading="Markers: means over the images. Bars: 95 % intervals. SRG is the insertion area minus the deletion "
        "area. An order that is good under all removals has the highest SRG in every column.",
    )
    return figure


def _bar_lengths(record: Mapping[str, Any], name: str) -> tuple[float, float]:
    """Return the lengths of the interval below and above the mean of a quantity. Both are 0 without an interval."""
    mean, low, high = (record[key] for key in (name, f"{name}, low", f"{name}, high"))
    # Rounding may put an end of the interval on the wrong side of the mean.
    return (0.0, 0.0) if low is None else (max(0.0, mean - low), max(0.0, high - mean))


def _check_names(removals: Sequence[str] | None) -> None:
    if removals is None:
        return
    if not removals or len(set(removals)) < len(removals):
        raise ValueError(f"removals is {list(removals)}; pass one or more different names")
    for name in removals:
        REMOVALS.create(name)


def _replay_image(evaluator: Evaluator, image: ImageOrders, *, removal: str) -> list[Row]:
    """Return the rows of one image: both curves of each of its orders."""
    x = evaluator.classifier.preprocess(evaluator.images.open(image.index))
    game = evaluator.game(x, target=torch.tensor([image.target]), removal=REMOVALS.create(removal))
    rows: list[Row] = []
    with preserved_state(evaluator.classifier.model, {x.device}):
        for title, order in image.orders.items():
            positions = rank_positions(game, torch.tensor([order]))
            for mode in MODES:
                played = Played(title, follow(game, mode, positions, n_steps=len(order)))
                rows += evaluator.played_rows(played, indices=[image.index], targets=[image.target], game=game)
    return rows


def _interval(values: NDArray[np.float64], *, resamples: int) -> tuple[float | None, float | None]:
    """Return the ends of the 95 % interval of the mean, or None if there is only one image or no confidence."""
    if len(values) < 2 or math.isnan(values.mean()):
        return None, None
    low, high = bootstrap_band(values, resamples=resamples)
    return float(low), float(high)


def _to_csv(records: Sequence[Record]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()
