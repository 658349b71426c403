"""Replays the orders of a run under several removals, and measures areas and SRG (Bluecher et al., TMLR 2024)."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from tqdm.auto import tqdm

from captum_moxi.arguments import MODES
from captum_moxi.evaluation import store
from captum_moxi.evaluation.curves import RunCurve, read_run_curves
from captum_moxi.evaluation.evaluator import Evaluator, Played
from captum_moxi.evaluation.measurements import Measurement, write_pairs
from captum_moxi.evaluation.replays.orders import ImageOrders, Orders, describe_left_out, read_orders_of_all_modes
from captum_moxi.evaluation.replays.writing import (
    Replayed,
    check_other_folder,
    nothing_replayed,
    split_replayed,
    write_replay,
)
from captum_moxi.evaluation.rows import Row
from captum_moxi.explanation.images import check_players
from captum_moxi.files import write_file
from captum_moxi.methods.moxi import MOXI, MOXI_SYMMETRIC
from captum_moxi.metrics import (
    DEFAULT_REMOVALS,
    REPLAYS_LEGEND,
    Replay,
    check_fit,
    check_removals,
    gain_title,
    order_title,
    rank_positions,
    replay_records,
    replay_rows,
)
from captum_moxi.models import preserved_state
from captum_moxi.plot import replays_figure, save_figure
from captum_moxi.removal import REMOVALS, ForwardCall
from captum_moxi.search import follow
from captum_moxi.tables import csv_table, markdown_table

# Orders of MoXI in each mode, and all orders that are compared with the best other one.
INSERTION_ORDER, DELETION_ORDER = (order_title(MOXI, mode, depends_on_mode=True) for mode in MODES)
TESTED_ORDERS = (INSERTION_ORDER, DELETION_ORDER, MOXI_SYMMETRIC)


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
    figure (``replay.png``). From 10 images on, ``paired.csv`` and ``replay.md`` also compare the orders of MoXI with
    the best other order under each removal. After an interruption, repeat the same call to continue. The summary names
    images that cannot be read, and the table contains only images that were replayed under all removals.

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
            of another run, if no image can be replayed, or for the reasons listed in
            :func:`read_orders_of_all_modes`.
    """
    replayed = replay_removals(run, out, removals=removals, limit=limit, device=device, show_progress=show_progress)
    return write_removals(replayed, out, resamples=resamples)


def replay_removals(
    run: Path,
    out: Path,
    *,
    removals: Sequence[str] | None = None,
    limit: int | None = None,
    device: str | None = None,
    show_progress: bool = False,
) -> Replayed[Replay]:
    """Replay every order of a run under several removals, without a summary. The arguments are those of
    :func:`run_removals`.

    Returns:
        Replayed: Areas of each order under each removal.
    """
    if removals is not None:
        check_removals(removals, argument="removals")
    check_other_folder(run, out)
    orders = read_orders_of_all_modes(run, limit=limit, device=device)
    names = fitting_removals(orders, removals)
    folders = {name: out / folder_name(name) for name in names}
    run_id, disable = store.read_manifest(run).run, None if show_progress else True
    with tqdm(total=len(names) * len(orders.images), desc="images", unit="image", disable=disable) as bar:
        for name in names:
            for _ in replay_run(orders, folders[name], removal=name, run_id=run_id):
                bar.update()
    images, left_out = split_replayed(orders, list(folders.values()))
    replays = [
        replay
        for name, folder in folders.items()
        for replay in read_replays(read_run_curves(folder, images=images), removal=name)
    ]
    covered = (
        "" if replays[0].fraction == 1 else f" The areas cover the first {replays[0].fraction:.0%} of the patches."
    )
    summary = (
        f"{len(images)} images of {run}, model {orders.evaluator.settings.model}. Each order is replayed under each "
        f"removal.{covered}"
    )
    return Replayed([summary, *describe_left_out(left_out)], replays)


def write_removals(replayed: Replayed[Replay], out: Path, *, resamples: int) -> str:
    """Write the tables and the figure of replays, and return the Markdown.

    Args:
        replayed (Replayed): Areas of each order under each removal.
        out (Path): Folder to write to.
        resamples (int): Number of bootstrap resamples for the intervals.
    """
    records = replay_records(replayed.results, resamples=resamples)
    pairs = write_pairs(
        measure_replays(replayed.results), out / "paired.csv", resamples=resamples, condition_title="removal"
    )
    table = markdown_table(*replay_rows(records))
    text = "\n\n".join([*replayed.description, table, REPLAYS_LEGEND, *pairs])
    write_file(out / "replay.md", text + "\n")
    write_file(out / "replay.csv", csv_table(records))
    write_file(out / "replay.json", json.dumps(records, indent=1, allow_nan=False) + "\n")
    save_figure(replays_figure(records), out / "replay.png")
    return text


def fitting_removals(orders: Orders, removals: Sequence[str] | None) -> list[str]:
    """Check that removals fit the model and the players of a run. The model does not run.

    If the size of the model's input depends on the image, names that the user passed are checked with each image.

    Args:
        orders (Orders): Orders of the run, with its model and images.
        removals (Sequence[str] or None): Names of removals. None means those of :data:`DEFAULT_REMOVALS` that fit.

    Returns:
        list[str]: Names of removals that fit.

    Raises:
        ValueError: If one of the names that the user passed does not fit, or if no image can be read and the size of
            the model's input depends on it.
    """
    evaluator = orders.evaluator
    call = check_players(evaluator.classifier, removal=evaluator.removal, grid=evaluator.settings.grid)
    if removals is None:
        call = call or _call_of_first_image(orders)
        return [name for name in DEFAULT_REMOVALS if _fits(call, name)]
    if call is not None:
        check_fit(call, removals, argument="removals")
    return list(removals)


def _call_of_first_image(orders: Orders) -> ForwardCall:
    """Return the call of the model with the first image that can be read. The model has not run."""
    evaluator = orders.evaluator
    unreadable = dict(orders.missing)
    for image in orders.images:
        try:
            picture = evaluator.images.open(image.index)
        except ValueError as error:
            unreadable[image.name] = str(error)
            continue
        return evaluator.game(evaluator.classifier.preprocess(picture), target=torch.tensor([image.target])).call
    raise nothing_replayed(unreadable)


def _fits(call: ForwardCall, removal: str) -> bool:
    try:
        check_fit(call, [removal], argument="removals")
    except ValueError:
        return False
    return True


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
        replays.append(Replay.of_curves(insertion, deletion, removal=removal, order=order))
    return replays


def measure_replays(replays: Sequence[Replay]) -> list[Measurement]:
    """Measure the areas of each order and their difference under each removal, for paired comparisons.

    Args:
        replays (Sequence[Replay]): Areas of each order under each removal, for the same images.

    Returns:
        list[Measurement]: Insertion area, deletion area, and SRG or area difference, with the removal as condition. In
        the areas, only the orders of MoXI that were found for this mode are compared with the best other order.
    """
    gain = gain_title(replays)
    measurements = []
    for removal in dict.fromkeys(replay.removal for replay in replays):
        by_order = {replay.order: replay for replay in replays if replay.removal == removal}
        insertion = {order: replay.insertion for order, replay in by_order.items()}
        deletion = {order: replay.deletion for order, replay in by_order.items()}
        gains = {order: replay.gain for order, replay in by_order.items()}
        measurements += [
            Measurement("insertion area", "higher", insertion, (INSERTION_ORDER, MOXI_SYMMETRIC), removal),
            Measurement("deletion area", "lower", deletion, (DELETION_ORDER, MOXI_SYMMETRIC), removal),
            Measurement(gain, "higher", gains, TESTED_ORDERS, removal),
        ]
    return measurements


def _replay_image(evaluator: Evaluator, image: ImageOrders, picture: Image.Image, *, removal: str) -> list[Row]:
    """Return the rows of one image: both curves of each of its orders."""
    x = evaluator.classifier.preprocess(picture)
    game = evaluator.game(x, target=torch.tensor([image.target]), removal=REMOVALS.create(removal))
    rows: list[Row] = []
    with preserved_state(evaluator.classifier.model, {x.device}):
        for title, order in image.orders.items():
            positions = rank_positions(game, torch.tensor([order]))
            for mode in MODES:
                played = Played(title, follow(game, mode, positions, n_steps=len(order)))
                rows += evaluator.played_rows(played, indices=[image.index], targets=[image.target], game=game)
    return rows
