"""Reads the orders of a run for a replay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_moxi.arguments import Mode
from captum_moxi.evaluation import store
from captum_moxi.evaluation.evaluator import Evaluator


@dataclass(frozen=True)
class ImageOrders:
    """The orders of one image.

    Args:
        name (str): Name of the image.
        index (int): Index of the image in the data.
        target (int): Index of the target class.
        orders (Mapping[str, list[int]]): Ids of the players in order, by title of the method.
    """

    name: str
    index: int
    target: int
    orders: Mapping[str, list[int]]


@dataclass(frozen=True)
class Orders:
    """The orders of a run in one mode, with its model and images.

    Args:
        evaluator (Evaluator): Model and images of the run.
        images (Sequence[ImageOrders]): Orders of each image.
    """

    evaluator: Evaluator
    images: Sequence[ImageOrders]


def read_orders(run: Path, *, mode: Mode, limit: int | None = None, device: str | None = None) -> Orders:
    """Read the orders of a run, and load its model.

    Args:
        run (Path): Folder of the run.
        mode (str): ``"insertion"`` or ``"deletion"``.
        limit (int, optional): Maximum number of images. The first explained ones are used.
            Default: None, all explained images
        device (str, optional): Device of the model.
            Default: None, CUDA if available, otherwise the CPU

    Returns:
        Orders: The orders, with the model and the images of the run.

    Raises:
        ValueError: If the folder holds no run, if the run does not have this mode or stopped at flips, or if its model
            or images no longer exist.
    """
    settings = store.run_settings(run)
    orders, targets = _orders_by_image(run, mode)
    if not orders:
        raise ValueError(f"{run} has no {mode} orders; run captum-moxi evaluate with --mode {mode} first")
    if settings.stop == "flip":
        raise ValueError(
            f"{run} stopped at flips, so its orders have different lengths; run captum-moxi evaluate with --stop never "
            "--n-steps K first"
        )
    evaluator = Evaluator.of_run(run, device=device)
    names = list(orders)[:limit]
    images = [ImageOrders(name, evaluator.images.index_of(name), targets[name], orders[name]) for name in names]
    return Orders(evaluator, images)


def _orders_by_image(run: Path, mode: Mode) -> tuple[dict[str, dict[str, list[int]]], dict[str, int]]:
    """Return the orders by image and method, and the target class by image."""
    orders: dict[str, dict[str, list[int]]] = {}
    targets: dict[str, int] = {}
    for row in store.read_rows(run, ["image", "status", "target", "method", "mode", "order"]).to_pylist():
        if row["status"] == "explained" and row["mode"] == mode:
            orders.setdefault(row["image"], {})[row["method"]] = row["order"]
            targets[row["image"]] = row["target"]
    return orders, targets
