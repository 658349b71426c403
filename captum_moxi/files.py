"""Writes files that are either complete or absent, even if the disk is full or the process ends."""

import os
import uuid
from pathlib import Path


def write_file(path: Path, contents: bytes | str) -> None:
    """Write a file under a temporary name next to it, and rename it when it is complete and on disk.

    Args:
        path (Path): File to write. An existing file is replaced. If an error occurs, it stays as it is.
        contents (bytes or str): Contents of the file. Text is encoded as UTF-8.

    Raises:
        OSError: If the file cannot be written. The error contains the path.
    """
    # Workers on several machines may have the same process id. The name of the file may have the greatest length.
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(contents.encode() if isinstance(contents, str) else contents)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # The error of a full disk does not contain the name of the file.
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
