"""Corrupts players in the deletion orders of a run instead of removing them (the paper's Figure 6, Appendix G.1)."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from captum_moxi.evaluation.curves import RunCurve, read_run_curves
from captum_moxi.evaluation.evaluator import Evaluator, Played
from captum_moxi.evaluation.measurements import Measurement
from captum_moxi.evaluation.replays.orders import ImageOrders, Orders, describe_left_out, read_orders
from captum_moxi.evaluation.replays.writing import Replayed, check_other_folder, split_replayed, write_replay
from captum_moxi.evaluation.rows import Row
from captum_moxi.files import write_file
from captum_moxi.metrics import Curve, rank_positions
from captum_moxi.models import preserved_state
from captum_moxi.perturbations.corruptions import CORRUPTIONS, corrupted_inputs
from captum_moxi.plot import describe, label_curves, line_style, save_figure
from captum_moxi.plot.bands import describe_bands, draw_band
from captum_moxi.removal import BaselineRemoval
from captum_moxi.search import follow
from captum_moxi.tables import markdown_table

# Maximum number of panels in a row of the figure.
PANELS_PER_ROW = 5


def run_corruptions(
    run: Path,
    out: Path,
    *,
    corruptions: Sequence[str] | None = None,
    severity: int = 5,
    limit: int | None = None,
    resamples: int = 2000,
    device: str | None = None,
    show_progress: bool = False,
) -> str:
    """Corrupt players in the deletion orders of a run instead of removing them, and summarize the curves.

    Writes a run for each corruption (``out/CORRUPTION``), the areas under the deletion curves (``corruptions.md``) and
    the curves (``corruptions.png``). After an interruption, repeat the same call to continue.

    Args:
        run (Path): Folder of a run with deletion orders that did not stop at flips.
        out (Path): Folder to write to.
        corruptions (Sequence[str], optional): Names in ``captum_moxi.perturbations.corruptions.CORRUPTIONS``.
            Default: None, all registered corruptions
        severity (int, optional): Strength of the corruptions, from 1 to 5.
            Default: 5, as in the paper
        limit (int, optional): Maximum number of images. The first explained ones are used.
            Default: None, all explained images
        resamples (int, optional): Number of bootstrap resamples for the bands.
            Default: 2000
        device (str, optional): Device of the model.
            Default: None, CUDA if available, otherwise the CPU
        show_progress (bool, optional): Whether to show a progress bar over the images if standard error is a terminal.
            Default: False

    Returns:
        str: The Markdown of the summary.

    Raises:
        ValueError: If a corruption is unknown, if ``severity`` is out of range, if ``out`` is ``run`` or holds runs
            with different settings, or for the reasons listed in :func:`read_orders`.
    """
    replayed = replay_corruptions(
        run,
        out,
        corruptions=corruptions,
        severity=severity,
        limit=limit,
        device=device,
        show_progress=show_progress,
    )
    return write_corruptions(replayed, out, resamples=resamples)


def replay_corruptions(
    run: Path,
    out: Path,
    *,
    corruptions: Sequence[str] | None = None,
    severity: int = 5,
    limit: int | None = None,
    device: str | None = None,
    show_progress: bool = False,
) -> Replayed[Sequence[RunCurve]]:
    """Corrupt players in the deletion orders of a run, without a summary. The arguments are those of
    :func:`run_corruptions`.

    Returns:
        Replayed: For each corruption, the curve of each method.
    """
    names = list(CORRUPTIONS if corruptions is None else corruptions)
    for name in names:
        CORRUPTIONS.create(name)
    check_other_folder(run, out)
    orders = read_orders(run, mode="deletion", limit=limit, device=device)
    disable = None if show_progress else True
    with tqdm(total=len(names) * len(orders.images), desc="images", unit="image", disable=disable) as bar:
        for name in names:
            for _ in corrupt_run(orders, out / name, corruption=name, severity=severity):
                bar.update()
    images, left_out = split_replayed(orders, [out / name for name in names])
    curves = [read_run_curves(out / name, images=images) for name in names]
    summary = (
        f"{len(images)} images of {run}, model {orders.evaluator.settings.model}. Players are corrupted in the "
        f"deletion orders with severity {severity}."
    )
    return Replayed([summary, *describe_left_out(left_out)], curves)


def write_corruptions(replayed: Replayed[Sequence[RunCurve]], out: Path, *, resamples: int) -> str:
    """Write the table and the figure of replayed corruptions, and return the Markdown.

    Args:
        replayed (Replayed): For each corruption, the curve of each method.
        out (Path): Folder to write to.
        resamples (int): Number of bootstrap resamples for the bands.
    """
    text = "\n\n".join([*replayed.description, corruption_table(replayed.results)])
    write_file(out / "corruptions.md", text + "\n")
    save_figure(plot_corruptions(replayed.results, resamples=resamples), out / "corruptions.png")
    return text


def corrupt_run(orders: Orders, out: Path, *, corruption: str, severity: int = 5) -> Iterator[str]:
    """Corrupt players in the deletion orders of a run, and write the rows of each image when it is finished.

    Args:
        orders (Orders): Deletion orders of a run.
        out (Path): Folder of the new run. If it holds a run with the same settings, finished images are not repeated.
        corruption (str): Name of a registered corruption.
        severity (int, optional): Strength of the corruption, from 1 to 5.
            Default: 5, as in the paper

    Yields:
        str: Name of each image.

    Raises:
        ValueError: If the corruption is unknown, if ``severity`` is out of range, if the folder holds another run, or
            if another process is writing to it.
    """
    settings = {"modes": ["deletion"], "stop": None, "corruption": corruption, "severity": severity}
    rows_of = partial(_corrupt_image, orders.evaluator, corruption=corruption, severity=severity)
    return write_replay(orders, out, settings, rows_of=rows_of)


def corruption_table(runs: Sequence[Sequence[RunCurve]]) -> str:
    """Format the mean area under the deletion curve of each corruption and method.

    Args:
        runs (Sequence[Sequence[RunCurve]]): For each corruption, the curve of each method.

    Returns:
        str: A Markdown table. Its last two rows contain the mean over the corruptions, and the number of corruptions
        for which the method has the smallest area.
    """
    methods = [run_curve.method for run_curve in runs[0]]
    areas = np.array([[float(_curve(run_curve).area().mean()) for run_curve in run] for run in runs])
    smallest = (areas == areas.min(axis=1, keepdims=True)).sum(axis=0)
    rows: list[list[object]] = [[run[0].run, *row] for run, row in zip(runs, areas.tolist(), strict=True)]
    rows.append(["mean", *areas.mean(axis=0).tolist()])
    rows.append(["corruptions with the smallest area", *smallest.tolist()])
    return markdown_table(["area under the deletion curve", *methods], rows)


def measure_corruptions(runs: Sequence[Sequence[RunCurve]]) -> Measurement:
    """Measure the mean over the corruptions of each image's area under the deletion curve.

    Args:
        runs (Sequence[Sequence[RunCurve]]): For each corruption, the curve of each method.

    Returns:
        Measurement: Values of each method.
    """
    areas = [{run_curve.method: _curve(run_curve).area().numpy() for run_curve in run} for run in runs]
    values = {method: np.mean([by_method[method] for by_method in areas], axis=0) for method in areas[0]}
    return Measurement("deletion area, mean of the corruptions", "lower", values)


def plot_corruptions(runs: Sequence[Sequence[RunCurve]], *, resamples: int) -> Figure:
    """Draw the mean deletion curves, with a panel for each corruption.

    From 10 images on, the first method has a 95 % band.

    Args:
        runs (Sequence[Sequence[RunCurve]]): For each corruption, the curve of each method.
        resamples (int): Number of bootstrap resamples for the bands.

    Returns:
        Figure: The figure.
    """
    columns = min(PANELS_PER_ROW, len(runs))
    rows = -(-len(runs) // columns)
    figure = Figure(figsize=(2.5 * columns + 1.4, 2.2 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax in axes.flat[len(runs) :]:
        ax.axis("off")
    for ax, run in zip(axes.flat, runs, strict=False):
        _draw_panel(ax, run, resamples=resamples)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, handlelength=3)
    bands = describe_bands(f"Band: 95 % interval of {labels[0]}", [len(run[0].images) for run in runs])
    describe(
        figure,
        title="Confidence in the target if patches are corrupted instead of removed",
        reading=f"{bands} The patches are corrupted in the deletion order of each method. A good order lowers the "
        "curve early.",
    )
    return figure


def _corrupt_image(
    evaluator: Evaluator, image: ImageOrders, picture: Image.Image, *, corruption: str, severity: int
) -> list[Row]:
    """Return the rows of one image whose players are corrupted in its orders."""
    classifier = evaluator.classifier
    x = classifier.preprocess(picture)
    baselines = corrupted_inputs(classifier, x, corruption, severity=severity, seed=image.index)
    game = evaluator.game(x, target=torch.tensor([image.target]), removal=BaselineRemoval(), baselines=baselines)
    rows: list[Row] = []
    with preserved_state(classifier.model, {x.device}):
        for method, order in image.orders.items():
            positions = rank_positions(game, torch.tensor([order]))
            selection = follow(game, "deletion", positions, n_steps=len(order))
            played = Played(method, selection)
            rows += evaluator.played_rows(played, indices=[image.index], targets=[image.target], game=game)
    return rows


def _draw_panel(ax: Axes, run: Sequence[RunCurve], *, resamples: int) -> None:
    for index, run_curve in enumerate(run):
        style, curve = line_style(index), _curve(run_curve)
        fractions, confidences = curve.fractions.numpy(), curve.confidences.numpy()
        ax.plot(fractions, confidences.mean(0), label=run_curve.method, **style)
        if index == 0:
            # The bands of all methods would overlap and hide the lines.
            draw_band(ax, fractions, confidences, color=style["color"], resamples=resamples)
    label_curves(ax, "deletion", ylabel="confidence")
    ax.set_xlabel("patches corrupted", fontsize=8)
    ax.set_title(run[0].run.replace("_", " "), fontsize=9)
    ax.set_ylim(-0.02, 1.02)
    ax.label_outer()


def _curve(run_curve: RunCurve) -> Curve:
    if run_curve.curve is None:
        raise ValueError(f"run {run_curve.run!r} stopped at flips; pass a run of captum-moxi corrupt")
    return run_curve.curve
