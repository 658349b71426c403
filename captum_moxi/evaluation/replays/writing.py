"""Writes the rows of a replay as a run."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from captum_moxi.evaluation import store
from captum_moxi.evaluation.replays.orders import ImageOrders, Orders
from captum_moxi.evaluation.rows import Row


def write_replay(
    orders: Orders, out: Path, settings: Mapping[str, object], *, rows_of: Callable[[ImageOrders], list[Row]]
) -> Iterator[str]:
    """Replay the orders of each image, and write its rows when it is finished.

    Args:
        orders (Orders): Orders of a run.
        out (Path): Folder of the new run. If it holds a run with the same settings, finished images are not repeated.
        settings (Mapping[str, object]): Settings of the new run that differ from those of the run.
        rows_of (Callable): Replays the orders of an image, and returns its rows.

    Yields:
        str: Name of each image.

    Raises:
        ValueError: If the folder holds another run, or if another process is writing to it.
    """
    store.open_run(out, {**orders.evaluator.settings.to_dict(), **settings}, images=len(orders.images))
    with store.locked_run(out) as finished:
        for image in orders.images:
            if image.name not in finished:
                store.write_part(out, rows_of(image))
            yield image.name


def check_other_folder(run: Path, out: Path) -> None:
    """Check that a replay is not written into the run itself."""
    if out.resolve() == run.resolve():
        raise ValueError(f"out is {str(out)!r}, the run itself; pass another folder")
