"""Writes the rows of a replay as a run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from PIL import Image

from captum_moxi.evaluation import store
from captum_moxi.evaluation.replays.orders import ImageOrders, Orders
from captum_moxi.evaluation.rows import Row

T = TypeVar("T")

# Replays the orders of an opened image, and returns its rows.
RowsOfImage: TypeAlias = Callable[[ImageOrders, Image.Image], list[Row]]


@dataclass(frozen=True)
class Replayed(Generic[T]):
    """The results of a finished replay.

    Args:
        description (Sequence[str]): Paragraphs of Markdown: the number of images, the model and the settings, and the
            images that could not be replayed.
        results (Sequence): The results.
    """

    description: Sequence[str]
    results: Sequence[T]


def write_replay(orders: Orders, out: Path, settings: Mapping[str, object], *, rows_of: RowsOfImage) -> Iterator[str]:
    """Replay the orders of each image, and write its rows when it is finished.

    An image that cannot be read is recorded as failed, and the others are replayed. Repeat the replay to try it again.

    Args:
        orders (Orders): Orders of a run.
        out (Path): Folder of the new run. If it holds a run with the same settings, finished images are not repeated.
        settings (Mapping[str, object]): Settings of the new run that differ from those of the run.
        rows_of (Callable): Function ``(image, picture) -> rows`` that replays the orders of an image.

    Yields:
        str: Name of each image.

    Raises:
        ValueError: If the folder holds another run, or if another process is writing to it.
    """
    store.open_run(out, {**orders.evaluator.settings.to_dict(), **settings}, images=len(orders.images))
    with store.locked_run(out) as finished:
        for image in orders.images:
            if image.name not in finished:
                store.write_part(out, _rows_or_error(orders, image, rows_of))
            yield image.name


def _rows_or_error(orders: Orders, image: ImageOrders, rows_of: RowsOfImage) -> list[Row]:
    """Return the rows of an image, or one row with the reason why it cannot be read."""
    try:
        picture = orders.evaluator.images.open(image.index)
    except ValueError as error:
        return [orders.evaluator.failed_row(image.index, error)]
    return rows_of(image, picture)


def split_replayed(orders: Orders, folders: Sequence[Path]) -> tuple[list[str], dict[str, str]]:
    """Return the images that were replayed in all folders, and why the others were not.

    Args:
        orders (Orders): Orders of a run.
        folders (Sequence[Path]): Folders of its replays.

    Returns:
        tuple[list[str], dict[str, str]]: Names of the images, and the reason for each other image by its name.

    Raises:
        ValueError: If no image was replayed in all folders.
    """
    left_out = dict(orders.missing)
    for folder in folders:
        for row in store.read_rows(folder, ["image", "status", "error"]).to_pylist():
            if row["status"] == "failed":
                left_out.setdefault(row["image"], row["error"])
    replayed = [image.name for image in orders.images if image.name not in left_out]
    if not replayed:
        raise nothing_replayed(left_out)
    return replayed, left_out


def nothing_replayed(left_out: Mapping[str, str]) -> ValueError:
    """Return the error if no image could be replayed, with the reason for the first one."""
    name, reason = next(iter(left_out.items()))
    return ValueError(f"no image could be replayed; the first one is {name}: {reason}")


def check_other_folder(run: Path, out: Path) -> None:
    """Check that a replay is not written into the run itself."""
    if out.resolve() == run.resolve():
        raise ValueError(f"out is {str(out)!r}, the run itself; pass another folder")
