"""The folder of a run: ``manifest.json`` contains its settings, ``rows/*.parquet`` the rows of each batch of images.

A Parquet file of rows is called a part. A part is written under a temporary name, and renamed when it is complete.
After an interruption, all finished parts can be read, and the run can continue. The name of a part is computed from its
images, so a repeated batch replaces its part.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from captum_moxi.evaluation.rows import SCHEMA, Row

ROWS = "rows"
MANIFEST = "manifest.json"
# Packages whose versions can change the rows of a run.
PACKAGES = ("captum-moxi", "torch", "captum", "transformers")


def open_run(folder: Path, settings: Mapping[str, Any]) -> None:
    """Start a run in a folder, or check that the run in the folder has the same settings.

    Args:
        folder (Path): Folder of the run. It is created if it does not exist.
        settings (Mapping[str, Any]): Settings of the run, in JSON types.

    Raises:
        ValueError: If the folder holds a run with different settings, which the message lists, or other files.
    """
    if (folder / MANIFEST).exists():
        _check_settings(folder, settings)
    else:
        if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"{folder} is not empty and has no {MANIFEST}; pass a new folder or the folder of a run")
        folder.mkdir(parents=True, exist_ok=True)
        manifest = {"settings": dict(settings), "versions": package_versions()}
        with _atomic_write(folder / MANIFEST) as path:
            path.write_text(json.dumps(manifest, indent=1) + "\n")
    (folder / ROWS).mkdir(exist_ok=True)


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    previous = read_settings(folder)
    changes = "; ".join(
        f"{name} was {previous.get(name)!r} and is {settings.get(name)!r}"
        for name in {**previous, **settings}
        if previous.get(name) != settings.get(name)
    )
    if changes:
        raise ValueError(
            f"{folder} holds a run with other settings ({changes}); pass the same settings or another folder"
        )


@contextmanager
def locked_run(folder: Path) -> Iterator[None]:
    """Lock the folder of a run against other processes, and delete incomplete and failed parts.

    The lock is released when the process ends for any reason.

    Args:
        folder (Path): Folder of the run.

    Raises:
        ValueError: If another process holds the lock.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another process is writing to {folder}; wait until it finishes or pass another folder"
        ) from None
    try:
        for part in [*(folder / ROWS).glob(".*"), *(folder / ROWS).glob("part-failed-*")]:
            part.unlink()
        yield
    finally:
        lock.release()


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of a run.

    Args:
        folder (Path): Folder of the run.

    Returns:
        dict[str, Any]: Settings by name, in JSON types.

    Raises:
        ValueError: If the folder holds no run.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / MANIFEST).read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} holds no run ({error}); pass a folder that was written by captum-moxi evaluate"
        ) from None
    return settings


def write_part(folder: Path, rows: Sequence[Row]) -> None:
    """Write all rows of a batch of images.

    Failed images go into a separate part, because they are repeated when the run continues.

    Args:
        folder (Path): Folder of the run.
        rows (Sequence[Row]): All rows of the images.

    Raises:
        OSError: If the part cannot be written.
    """
    for prefix, failed in (("part", False), ("part-failed", True)):
        part = [row for row in rows if (row["status"] == "failed") is failed]
        if part:
            images = dict.fromkeys(row["image"] for row in part)
            digest = hashlib.sha256("\n".join(images).encode()).hexdigest()[:24]
            with _atomic_write(folder / ROWS / f"{prefix}-{digest}.parquet") as path:
                pq.write_table(pa.Table.from_pylist(part, schema=SCHEMA), path)


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a run, sorted by image.

    Args:
        folder (Path): Folder of the run.
        columns (Sequence[str], optional): Names of the columns to read.
            Default: None, all columns

    Returns:
        pyarrow.Table: The rows. Without the column ``image``, they are not sorted.

    Raises:
        ValueError: If the folder holds no run, or a part that cannot be read.
    """
    read_settings(folder)
    names = list(columns or SCHEMA.names)
    tables = [SCHEMA.empty_table().select(names)]
    for part in sorted((folder / ROWS).glob("part-*.parquet")):
        try:
            tables.append(pq.ParquetFile(part).read(names))
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{part} cannot be read ({error}); delete it to process its images again") from None
    table = pa.concat_tables(tables)
    return table.sort_by("image") if "image" in names else table


def finished_images(folder: Path) -> set[str]:
    """Return the names of the images that have rows.

    Args:
        folder (Path): Folder of the run.

    Raises:
        ValueError: If the folder holds no run, or a part that cannot be read.
    """
    return set(read_rows(folder, ["image"])["image"].to_pylist())


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that can change the rows of a run."""
    return {package: version(package) for package in PACKAGES}


@contextmanager
def _atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path, and rename it to ``path`` when the file is complete and on disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
