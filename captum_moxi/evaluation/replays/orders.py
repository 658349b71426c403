"""Reads the orders of a run for a replay."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from captum_moxi.arguments import Mode
from captum_moxi.evaluation import store
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.settings import Settings
from captum_moxi.metrics import order_title

# Maximum number of images that a summary names because they could not be replayed.
SHOWN_IMAGES = 10


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
        missing (Mapping[str, str], optional): Why an image of the run cannot be replayed, by its name: it is no longer
            in the data.
            Default: none
    """

    evaluator: Evaluator
    images: Sequence[ImageOrders]
    missing: Mapping[str, str] = field(default_factory=dict)


def read_orders(run: Path, *, mode: Mode, limit: int | None = None, device: str | None = None) -> Orders:
    """Read the orders of a run, and load its model.

    Args:
        run (Path): Folder of the run.
        mode (str): ``"insertion"`` or ``"deletion"``.
        limit (int, optional): Maximum number of images. The first explained ones that are still in the data are used.
            Default: None, all explained images
        device (str, optional): Device of the model.
            Default: None, CUDA if available, otherwise the CPU

    Returns:
        Orders: The orders, with the model and the images of the run.

    Raises:
        ValueError: If the folder holds no run, if the run does not have this mode or stopped at flips, or if its model
            or all of its images no longer exist.
    """
    settings = store.run_settings(run)
    orders, targets = _orders_by_image(run, mode)
    if not orders:
        raise ValueError(f"{run} has no {mode} orders; run captum-moxi evaluate with --mode {mode} first")
    _check_lengths(run, settings)
    evaluator = Evaluator.of_run(run, device=device)
    return _find_images(evaluator, orders, targets, limit=limit)


def read_orders_of_all_modes(run: Path, *, limit: int | None = None, device: str | None = None) -> Orders:
    """Read the orders of a run in all its modes, and load its model.

    A method that searches has one order for each mode, titled for example ``"MoXI, insertion order"``. The other
    methods have one order for both modes, which has the title of the method.

    Args:
        run (Path): Folder of the run.
        limit (int, optional): Maximum number of images. The first explained ones that are still in the data are used.
            Default: None, all explained images
        device (str, optional): Device of the model.
            Default: None, CUDA if available, otherwise the CPU

    Returns:
        Orders: The orders by title, with the model and the images of the run.

    Raises:
        ValueError: If the folder holds no run, if the run explained no images or stopped at flips, or if its model or
            all of its images no longer exist.
    """
    settings = store.run_settings(run)
    read = {mode: _orders_by_image(run, mode) for mode in settings.modes}
    by_mode = {mode: orders for mode, (orders, _) in read.items()}
    by_image, targets = read[settings.modes[0]]
    if not by_image:
        raise ValueError(f"{run} has no explained images; run captum-moxi evaluate with --keep all and another --out")
    _check_lengths(run, settings)
    evaluator = Evaluator.of_run(run, device=device)
    searches = {method.title for method in evaluator.methods if method.depends_on_mode}
    orders = {name: _titled_orders(by_mode, name, searches) for name in by_image}
    return _find_images(evaluator, orders, targets, limit=limit)


def _find_images(
    evaluator: Evaluator,
    orders: Mapping[str, Mapping[str, list[int]]],
    targets: Mapping[str, int],
    *,
    limit: int | None,
) -> Orders:
    """Find the first images of a run in the data. Images that the data no longer contain do not count."""
    images: list[ImageOrders] = []
    missing: dict[str, str] = {}
    for name, orders_of_image in orders.items():
        if len(images) == limit:
            break
        try:
            images.append(ImageOrders(name, evaluator.images.index_of(name), targets[name], orders_of_image))
        except ValueError as error:
            missing[name] = str(error)
    if not images:
        raise ValueError(next(iter(missing.values())))
    return Orders(evaluator, images, missing)


def describe_left_out(left_out: Mapping[str, str]) -> Iterator[str]:
    """Describe the images that could not be replayed, for a summary.

    Args:
        left_out (Mapping[str, str]): The reason for each image, by its name.

    Yields:
        str: Paragraphs: a sentence, and a line for each of the first images. Nothing if no image was left out.
    """
    if left_out:
        lines = [f"{name}: {reason}" for name, reason in list(left_out.items())[:SHOWN_IMAGES]]
        more = [f"and {len(left_out) - SHOWN_IMAGES} more"] if len(left_out) > SHOWN_IMAGES else []
        yield f"{len(left_out)} image{'' if len(left_out) == 1 else 's'} could not be replayed:"
        yield "\n".join([*lines, *more])


def _titled_orders(
    by_mode: Mapping[Mode, Mapping[str, Mapping[str, list[int]]]], image: str, searches: Container[str]
) -> dict[str, list[int]]:
    """Return the orders of one image by title, sorted by method. Methods that search have one for each mode."""
    methods = dict.fromkeys(method for orders in by_mode.values() for method in orders[image])
    return {
        order_title(method, mode, depends_on_mode=method in searches): orders[image][method]
        for method in methods
        for mode, orders in by_mode.items()
    }


def _check_lengths(run: Path, settings: Settings) -> None:
    """Check that the orders of a run have the same length."""
    if settings.stop == "flip":
        raise ValueError(
            f"{run} stopped at flips, so its orders have different lengths; run captum-moxi evaluate with --stop never "
            "--n-steps K first"
        )


def _orders_by_image(run: Path, mode: Mode) -> tuple[dict[str, dict[str, list[int]]], dict[str, int]]:
    """Return the orders by image and method, and the target class by image."""
    orders: dict[str, dict[str, list[int]]] = {}
    targets: dict[str, int] = {}
    for row in store.read_rows(run, ["image", "status", "target", "method", "mode", "order"]).to_pylist():
        if row["status"] == "explained" and row["mode"] == mode:
            orders.setdefault(row["image"], {})[row["method"]] = row["order"]
            targets[row["image"]] = row["target"]
    return orders, targets
