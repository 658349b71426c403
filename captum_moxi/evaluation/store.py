"""The folder of a run: ``manifest.json`` contains its settings, ``rows/*.parquet`` the rows of each batch of images.

A Parquet file of rows is called a part. A part is written under a temporary name, and renamed when it is complete.
After an interruption, all finished parts can be read, and the run can continue. The name of a part is computed from its
images, so a repeated batch replaces its part. A part that was damaged, truncated or edited is reported, and its images
are processed again when the run continues. A copy of a part adds no rows.
"""

import hashlib
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout

from captum_moxi.arguments import warn_user
from captum_moxi.evaluation.manifest import Manifest
from captum_moxi.evaluation.parts import decode_part, encode_part
from captum_moxi.evaluation.rows import SCHEMA, Row
from captum_moxi.evaluation.settings import Settings
from captum_moxi.files import write_file

ROWS = "rows"
MANIFEST = "manifest.json"
# Subfolder for damaged parts, which are kept but no longer read.
DAMAGED = "damaged"
FAILED_PREFIX = "part-failed-"
# Maximum number of damaged parts that an error lists.
SHOWN_PARTS = 3
# Packages whose versions can change the rows of a run.
PACKAGES = ("captum-moxi", "torch", "captum", "transformers")


def open_run(folder: Path, settings: Mapping[str, Any], *, images: int | None = None) -> None:
    """Start a run in a folder, or check that the run in the folder has the same settings.

    Args:
        folder (Path): Folder of the run. It is created if it does not exist.
        settings (Mapping[str, Any]): Settings of the run, in JSON types.
        images (int, optional): Number of images that the run has when it is finished. An existing run keeps the larger
            number.
            Default: None, unknown

    Raises:
        ValueError: If the folder holds a run with different settings, which the message lists, a damaged manifest, or
            other files.
        OSError: If the manifest cannot be written.
    """
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        check_settings(folder, manifest.settings, settings)
        if images is not None and images > (manifest.images or 0):
            _write_manifest(folder, replace(manifest, images=images))
    else:
        if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"{folder} is not empty and has no {MANIFEST}; pass a new folder or the folder of a run")
        folder.mkdir(parents=True, exist_ok=True)
        _write_manifest(folder, Manifest(dict(settings), package_versions(), run=uuid.uuid4().hex, images=images))
    (folder / ROWS).mkdir(exist_ok=True)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    write_file(folder / MANIFEST, manifest.to_json().encode())


def check_settings(folder: Path, previous: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Check that settings are those of earlier results.

    Args:
        folder (Path): Folder of the results, for the message.
        previous (Mapping[str, Any]): Settings of the earlier results, in JSON types.
        settings (Mapping[str, Any]): Settings, in JSON types.

    Raises:
        ValueError: If they differ. The message lists the differences.
    """
    # A run of an earlier version lacks the settings that were added since. It behaves as with their defaults.
    previous, settings = Settings.add_defaults(previous), Settings.add_defaults(settings)
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
def locked_run(folder: Path) -> Iterator[set[str]]:
    """Lock the folder of a run against other processes, and remove parts whose images are processed again.

    Incomplete and failed parts are deleted. Damaged parts are moved to the subfolder ``damaged``, with a warning. The
    lock is released when the process ends for any reason.

    Args:
        folder (Path): Folder of the run.

    Yields:
        set[str]: Names of the images that have rows.

    Raises:
        ValueError: If another process holds the lock, or the folder holds no run.
        OSError: If a part cannot be read. It may be intact, so it is not moved.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another process is writing to {folder}; wait until it finishes or pass another folder"
        ) from None
    try:
        for part in [*(folder / ROWS).glob(".*"), *(folder / ROWS).glob(f"{FAILED_PREFIX}*")]:
            part.unlink()
        tables, damaged = _read_parts(folder, ["image"])
        _move_damaged_parts(folder, damaged)
        yield set(pa.concat_tables(tables)["image"].to_pylist())
    finally:
        lock.release()


def _move_damaged_parts(folder: Path, damaged: Mapping[Path, str]) -> None:
    for part, reason in damaged.items():
        (folder / DAMAGED).mkdir(exist_ok=True)
        part.rename(_unused_path(folder / DAMAGED / part.name))
        warn_user(
            f"{part} is damaged ({reason}); it was moved to {folder / DAMAGED}, and its images are processed again"
        )


def _unused_path(path: Path) -> Path:
    """Return a path, with a number after its name if the path exists."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(unused for unused in itertools.chain([path], numbered) if not unused.exists())


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a run.

    Args:
        folder (Path): Folder of the run.

    Raises:
        ValueError: If the folder holds no run, or if its manifest is damaged or was edited.
    """
    path = folder / MANIFEST
    try:
        return Manifest.from_json(path.read_bytes())
    except OSError as error:
        raise ValueError(
            f"{folder} holds no run ({error}); pass a folder that was written by captum-moxi evaluate"
        ) from None
    except ValueError as error:
        raise _damaged_manifest(path, error) from None


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of a run as a dictionary, with additional settings such as those of a corruption.

    Args:
        folder (Path): Folder of the run.

    Returns:
        dict[str, Any]: Settings by name, in JSON types.

    Raises:
        ValueError: If the folder holds no run, or if its manifest is damaged or was edited.
    """
    return dict(read_manifest(folder).settings)


def run_settings(folder: Path) -> Settings:
    """Read and check the settings of a run.

    Args:
        folder (Path): Folder of the run.

    Raises:
        ValueError: If the folder holds no run, or if its manifest is damaged or has invalid settings.
    """
    settings = read_settings(folder)
    try:
        return Settings.from_dict(settings)
    except ValueError as error:
        raise _damaged_manifest(folder / MANIFEST, error) from None


def _damaged_manifest(path: Path, reason: ValueError) -> ValueError:
    return ValueError(f"{path} is damaged or was edited ({reason}); restore it, or start a new run in another folder")


def write_part(folder: Path, rows: Sequence[Row]) -> None:
    """Write all rows of a batch of images.

    Failed images go into a separate part, because they are repeated when the run continues.

    Args:
        folder (Path): Folder of the run.
        rows (Sequence[Row]): All rows of the images.

    Raises:
        ValueError: If the folder holds no run, or if its manifest is damaged or was edited.
        OSError: If the part cannot be written, or an earlier part of the same name cannot be read.
    """
    run = read_manifest(folder).run
    for prefix, failed in (("part-", False), (FAILED_PREFIX, True)):
        part = [row for row in rows if (row["status"] == "failed") is failed]
        if part:
            path = folder / ROWS / _part_name(prefix, [row["image"] for row in part])
            _rename_part_of_other_images(path, prefix, run=run)
            write_file(path, encode_part(part, run=run))


def _part_name(prefix: str, images: Sequence[str]) -> str:
    """Return the name of the part with the rows of these images."""
    digest = hashlib.sha256("\n".join(dict.fromkeys(images)).encode()).hexdigest()[:24]
    return f"{prefix}{digest}.parquet"


def _rename_part_of_other_images(path: Path, prefix: str, *, run: str | None) -> None:
    """Give a part that somebody renamed the name of its own images, before the part of other images replaces it."""
    try:
        images: list[str] = decode_part(path.read_bytes(), run=run, columns=["image"])["image"].to_pylist()
    except (FileNotFoundError, ValueError):
        return
    path.replace(path.with_name(_part_name(prefix, images)))


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a run, sorted by image.

    Args:
        folder (Path): Folder of the run.
        columns (Sequence[str], optional): Names of the columns to read.
            Default: None, all columns

    Returns:
        pyarrow.Table: The rows. Columns that the version of captum-moxi that wrote the run did not have are null.

    Raises:
        ValueError: If the folder holds no run, or if its manifest or parts are damaged. The message lists the parts.
        OSError: If a part cannot be read.
    """
    tables, damaged = _read_parts(folder, list(columns or SCHEMA.names))
    if damaged:
        parts = [f"{part} ({reason})" for part, reason in list(damaged.items())[:SHOWN_PARTS]]
        more = f" and {len(damaged) - SHOWN_PARTS} more" if len(damaged) > SHOWN_PARTS else ""
        raise ValueError(
            f"parts of the run are damaged: {', '.join(parts)}{more}; repeat the command that wrote the run to process "
            "their images again"
        )
    return pa.concat_tables(tables).sort_by("image").select(list(columns or SCHEMA.names))


def _read_parts(folder: Path, columns: Sequence[str]) -> tuple[list[pa.Table], dict[Path, str]]:
    """Return the rows of each part with the column ``image``, and what is wrong with each damaged part."""
    run = read_manifest(folder).run
    names = list(dict.fromkeys(["image", *columns]))
    tables, damaged = [SCHEMA.empty_table().select(names)], {}
    seen: set[str] = set()
    for part in sorted((folder / ROWS).glob("part-*.parquet"), key=_reading_order):
        # An intact part cannot be read either if too many files are open, or if access to it is denied.
        contents = part.read_bytes()
        try:
            table = decode_part(contents, run=run, columns=names)
        except ValueError as error:
            damaged[part] = str(error)
            continue
        images = set(table["image"].unique().to_pylist())
        if images & seen:
            # A copy of a part, or a batch that two workers of a cluster processed.
            table = table.filter(pc.invert(pc.is_in(table["image"], pa.array(images & seen))))
        seen |= images
        tables.append(table)
    return tables, damaged


def _reading_order(part: Path) -> tuple[bool, str]:
    """Read failed parts last, so that an image that another worker has finished does not count as failed."""
    return part.name.startswith(FAILED_PREFIX), part.name


def finished_images(folder: Path) -> set[str]:
    """Return the names of the images that have rows.

    Args:
        folder (Path): Folder of the run.

    Raises:
        ValueError: If the folder holds no run, or if its manifest or parts are damaged.
        OSError: If a part cannot be read.
    """
    return set(read_rows(folder, ["image"])["image"].to_pylist())


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that can change the rows of a run."""
    return {package: version(package) for package in PACKAGES}
