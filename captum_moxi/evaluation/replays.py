"""Runs replayed: the orders that a run found, on images that change patch by patch otherwise than by removal."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from captum_moxi import models
from captum_moxi.evaluation import store
from captum_moxi.evaluation.adversarial import attack, perturbation_norms
from captum_moxi.evaluation.corruptions import corrupted_inputs
from captum_moxi.evaluation.records import Record, Records, table
from captum_moxi.evaluation.reports import Series, band, read_series
from captum_moxi.evaluation.runs import Evaluator, game_of, open_evaluator, place_of, rows_of
from captum_moxi.metrics import order_players
from captum_moxi.removal import BaselineRemoval
from captum_moxi.rewards import predicted
from captum_moxi.search import Mode, follow
from captum_moxi.visualization import label_curves, line_style


@dataclass(frozen=True)
class Orders:
    """The orders of a run in one mode, and what its images are played with.

    Args:
        evaluator (Evaluator): The run's model and images.
        images (list[tuple[str, int, int, dict[str, list[int]]]]): Of each image its name, place and target, and its
            order by method.
    """

    evaluator: Evaluator
    images: list[tuple[str, int, int, dict[str, list[int]]]]


def read_orders(run: Path, mode: Mode, limit: int | None = None, device: str | None = None) -> Orders:
    """The orders of a run.

    Args:
        run (Path): Its folder.
        mode (str): ``"insertion"`` or ``"deletion"``.
        limit (int, optional): At most so many images that were explained. Default: all
        device (str, optional): Where its model is loaded. Default: CUDA if there, else the CPU

    Raises:
        ValueError: no run, none with this mode, one that stopped at flips, whose orders end wherever they flipped, or
            one whose images are gone.
    """
    settings = store.read_settings(run)
    rows = store.read_rows(run, ["image", "status", "target", "method", "mode", "order"]).to_pylist()
    by_image: dict[str, tuple[int, dict[str, list[int]]]] = {}
    for row in rows:
        if row["status"] == store.EXPLAINED and row["mode"] == mode:
            by_image.setdefault(row["image"], (row["target"], {}))[1][row["method"]] = row["order"]
    if not by_image:
        raise ValueError(f"{run} holds no {mode}; run captum-moxi evaluate with it first")
    if settings["stop"] == "flip":
        raise ValueError(f"{run} stopped at flips; run captum-moxi evaluate with --stop never --n-steps K first")
    evaluator = open_evaluator(run, device)
    chosen = list(by_image.items())[:limit]
    return Orders(evaluator, [(name, place_of(evaluator, name), target, of) for name, (target, of) in chosen])


def corrupt_run(orders: Orders, out: Path, corruption: str, severity: int = 5) -> Iterator[str]:
    """Replay a run's deletion orders with patches corrupted rather than removed (the paper's Figure 6, Appendix G.1).

    Writes a run of its own, an image at a time, and goes on with one that was interrupted. Yields the images' names.

    Args:
        orders (Orders): A run's, of deletion.
        out (Path): Where to write.
        corruption (str): One of ``captum_moxi.evaluation.corruptions.CORRUPTIONS``.
        severity (int, optional): 1 to 5. Default: 5

    Raises:
        ValueError: an unknown corruption or severity, or a folder with another run.
    """
    evaluator = orders.evaluator
    settings = asdict(evaluator.settings) | {"corruption": corruption, "severity": severity, "stop": None}
    store.open_run(out, settings | {"modes": ["deletion"]})
    done = store.finished(out)
    for name, index, target, by_method in orders.images:
        if name in done:
            yield name
            continue
        x = evaluator.classifier.preprocess(evaluator.images.open(index))
        corrupted = corrupted_inputs(evaluator.classifier, x, corruption, severity, seed=index)
        game = game_of(evaluator, x, torch.tensor([target]), BaselineRemoval(), corrupted)
        rows = []
        with models.unchanged(evaluator.classifier.model, {x.device}):
            for method, order in by_method.items():
                ranking = order_players(game, torch.tensor([order]))
                selection = follow(game, "deletion", ranking, n_steps=len(order))
                rows += rows_of(evaluator, [index], [target], method, selection, game)
        store.write_part(out, rows)
        yield name


def attack_run(
    orders: Orders, records: Records, radius: float = 1.0, step_size: float = 0.2, n_steps: int = 10
) -> Iterator[tuple[str, Record]]:
    """Where an adversarial perturbation lies, patch by patch in a run's orders (the paper's Appendix G.2).

    Yields of each image its name and a record: ``fooled``, whether the prediction changed; ``norm``, of the whole
    perturbation; and ``orders``, the norms on the patches of each method's order.

    Args:
        orders (Orders): A run's.
        records (Records): What is measured already.
        radius, step_size, n_steps: As in :func:`captum_moxi.evaluation.adversarial.attack`.

    Raises:
        ValueError: as ``attack``.
    """
    evaluator = orders.evaluator
    of = {"run": asdict(evaluator.settings), "radius": radius, "step_size": step_size, "n_steps": n_steps}
    for name, index, target, by_method in orders.images:

        def measure(index: int = index, target: int = target, by_method: dict[str, Any] = by_method) -> Record:
            classifier = evaluator.classifier
            x = classifier.preprocess(evaluator.images.open(index))
            attacked = attack(classifier, x, target, radius, step_size, n_steps)
            difference = (classifier.to_images(attacked) - classifier.to_images(x)).permute(0, 3, 1, 2)
            game = game_of(evaluator, x, torch.tensor([target]))
            norms = perturbation_norms(difference, game.call.players.columns[0].cpu())[0]
            with torch.no_grad():
                now = int(predicted(models.call_model(classifier.model, attacked)))
            by_order = {
                method: norms[torch.searchsorted(game.ids, torch.tensor(order))].tolist()
                for method, order in by_method.items()
            }
            return {
                "fooled": now != target,
                "norm": float(norms.square().sum().sqrt()),
                "mean": float(norms.mean()),
                "orders": by_order,
            }

        # what was measured of other orders, those of a run made anew, is not taken
        yield name, records.get({"image": name, "target": target, "orders": by_method, **of}, measure)


def corruption_summary(folders: Sequence[Path], resamples: int, images: Sequence[str]) -> tuple[str, Figure]:
    """The areas of all corruptions as a table, and their deletion curves as panels, with the first method's band.

    Folders may hold more than these images, and not all the same.
    """
    runs = [read_series(folder, images) for folder in folders]
    methods = [one.method for one in runs[0]]
    areas = [[_area(one) for one in series] for series in runs]
    rows: list[list[Any]] = [[series[0].run, *of] for series, of in zip(runs, areas, strict=True)]
    rows.append(["mean", *np.mean(areas, axis=0).tolist()])
    first = [sum(of[place] == min(of) for of in areas) for place in range(len(methods))]
    rows.append(["corruptions with the smallest area", *first])
    columns = min(5, len(runs))
    lines = -(-len(runs) // columns)
    figure = Figure(figsize=(2.5 * columns, 2.2 * lines + 0.5), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat)
    for panel in axes:
        panel.axis("off")
    for panel, series in zip(axes, runs, strict=False):
        panel.axis("on")
        for place, one in enumerate(series):
            style = line_style(place)
            panel.plot(one.fractions, one.confidences.mean(0), label=one.method, **style)
            if place == 0:
                # those of all methods on each other would hide the lines
                low, high = band(one.confidences, resamples)
                panel.fill_between(one.fractions, low, high, color=style["color"], alpha=0.15, linewidth=0)
        label_curves(panel, "deletion", "confidence")
        panel.set_xlabel("patches corrupted", fontsize=8)
        panel.set_title(series[0].run.replace("_", " "), fontsize=9)
        panel.set_ylim(-0.02, 1.02)
        panel.label_outer()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    return table(["area under the deletion curve", *methods], rows), figure


def attack_summary(found: Sequence[Record]) -> tuple[str, Figure]:
    """The norms on the first patches of each order as a table, and on all of them as curves.

    Norms are in the image's mean over patches, so that 1 is what a random order has.
    """
    methods = list(found[0]["orders"])
    relative = {
        method: _padded([np.array(record["orders"][method]) / record["mean"] for record in found]) for method in methods
    }
    most = max(values.shape[1] for values in relative.values())
    firsts = [k for k in (1, 5, 10, 20, 50, 100) if k <= most]
    # of an image that ends sooner, all that it has
    running = {
        method: (np.nancumsum(values, axis=1) / np.cumsum(~np.isnan(values), axis=1)).mean(0)
        for method, values in relative.items()
    }
    rows = [[method, *(float(means[k - 1]) for k in firsts if k <= len(means))] for method, means in running.items()]
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    panel = figure.subplots()
    for place, (method, means) in enumerate(running.items()):
        panel.plot(np.arange(1, len(means) + 1), means, label=method, **line_style(place))
    panel.axhline(1, color="0.6", linewidth=0.8)
    panel.set_xlabel("patches, first of the order", fontsize=9)
    panel.set_ylabel("mean norm of the perturbation on them,\nover that of all patches", fontsize=9)
    panel.tick_params(labelsize=8)
    panel.legend(fontsize=8, framealpha=0.8)
    fooled = sum(record["fooled"] for record in found)
    norm = float(np.mean([record["norm"] for record in found]))
    said = f"{len(found)} images, {fooled} no longer predicted; norm of a perturbation {norm:.3g}, the mean."
    return f"{said}\n\n{table(['norm on the first', *map(str, firsts)], rows)}", figure


def _area(one: Series) -> float:
    return float(one.area().mean())


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of unlike length in one array, NaN after the last of each."""
    values = np.full((len(rows), max(map(len, rows))), np.nan)
    for place, row in enumerate(rows):
        values[place, : len(row)] = row
    return values
