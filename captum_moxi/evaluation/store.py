"""The folder of a run: rows in Parquet, as each batch of images is done, and the settings that they were made with.

A part is written aside and then named, so that one which is there is whole: whatever stops a run, what it finished can
be read, and the next goes on from it. A part is named after its images, so that one done twice is there once.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

ROWS = "rows"
MANIFEST = "manifest.json"
# what an image's rows say of it
EXPLAINED, WRONG, UNREADABLE, FAILED = "explained", "wrong", "unreadable", "failed"

SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("label", pa.int32()),
        ("target", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("method", pa.string()),
        ("mode", pa.string()),
        ("players", pa.int32()),
        ("order", pa.list_(pa.int32())),
        ("rewards", pa.list_(pa.float64())),
        ("confidences", pa.list_(pa.float64())),
        ("predictions", pa.list_(pa.int32())),
        ("shapley", pa.list_(pa.float64())),
        ("interactions", pa.list_(pa.float64())),
        ("n_steps", pa.int32()),
        ("flipped", pa.bool_()),
        ("seconds", pa.float64()),
        ("forwards", pa.float64()),
        ("versions", pa.string()),
    ]
)


def open_run(folder: Path, settings: dict[str, Any]) -> None:
    """Begin a run in a folder, or go on with the one that is there.

    Raises:
        ValueError: the folder holds a run with other settings; the message says which.
    """
    path = folder / MANIFEST
    # as they come back: tuples are lists
    settings = json.loads(json.dumps(settings))
    if path.exists():
        before = read_settings(folder)
        other = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
        if other:
            told = "; ".join(f"{name} was {before.get(name)!r} and is {settings.get(name)!r}" for name in other)
            raise ValueError(f"{folder} holds a run with other settings ({told}); pass these, or another folder")
        (folder / ROWS).mkdir(exist_ok=True)
        return
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no {MANIFEST}; pass another folder, or one of a run")
    folder.mkdir(parents=True, exist_ok=True)
    with _whole(path) as aside:
        aside.write_text(json.dumps({"settings": settings, "versions": versions()}, indent=1) + "\n")
    (folder / ROWS).mkdir(exist_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that no other process works on it; let go of when the process ends, however it does.

    What an earlier one left half written, or could not do, is cleared away, to be done again.

    Raises:
        ValueError: another process holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process works on {folder}; wait for it, or pass another folder") from None
    try:
        for left in [*(folder / ROWS).glob(".*"), *(folder / ROWS).glob("part-failed-*")]:
            left.unlink()
        yield
    finally:
        lock.release()


def read_settings(folder: Path) -> dict[str, Any]:
    """What a run was made with.

    Raises:
        ValueError: the folder holds no run.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / MANIFEST).read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no run ({error}); pass a folder that captum-moxi evaluate wrote") from None
    return settings


def write_part(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Keep the rows of some images, all that there are of them; images that failed apart from the others."""
    for failed in (False, True):
        part = [row for row in rows if (row["status"] == FAILED) is failed]
        if part:
            images = dict.fromkeys(row["image"] for row in part)
            name = hashlib.sha256("\n".join(images).encode()).hexdigest()[:24]
            name = f"part-failed-{name}" if failed else f"part-{name}"
            with _whole(folder / ROWS / f"{name}.parquet") as aside:
                pq.write_table(pa.Table.from_pylist(part, schema=SCHEMA), aside)


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a run, in the order of their images' names.

    Args:
        folder (Path): The run's.
        columns (Sequence[str], optional): Which columns. Default: all

    Raises:
        ValueError: the folder holds no run, or a part that cannot be read.
    """
    read_settings(folder)
    tables = [SCHEMA.empty_table().select(columns or SCHEMA.names)]
    for part in sorted((folder / ROWS).glob("part-*.parquet")):
        try:
            tables.append(pq.ParquetFile(part).read(list(columns or SCHEMA.names)))
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{part} cannot be read ({error}); delete it to have its images done again") from None
    table = pa.concat_tables(tables)
    return table.sort_by("image") if "image" in table.column_names else table


def finished(folder: Path) -> set[str]:
    """The names of the images that a run is done with."""
    return set(read_rows(folder, ["image"])["image"].to_pylist())


def versions() -> dict[str, str]:
    """The versions that decide what a run finds."""
    return {name: version(name) for name in ("captum-moxi", "torch", "captum", "transformers")}


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write, which takes its name when it is whole."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
