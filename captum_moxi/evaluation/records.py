"""Measurements in a file of JSON lines, so that an interrupted series of measurements can continue.

Each line contains a checksum, so that damaged and edited lines are reported.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

# A JSON object. Each series of measurements has its own keys.
Record: TypeAlias = dict[str, Any]
# Every line starts with this text, also the incomplete last line of a process that was killed.
LINE_START = '{"settings": {'


class Records:
    """Measurements in a file of JSON lines, each stored with its settings.

    Args:
        path (Path, optional): The file. Measurements that it already contains are not repeated.
            Default: None, nothing is stored

    Attributes:
        measured (int): Number of new measurements.
        reused (int): Number of measurements that were found in the file.

    Raises:
        ValueError: If the file contains anything other than measurements, or if a line is damaged.

    Examples::

        >>> records = Records(Path("benchmark.jsonl"))
        >>> records.get({"players": 196}, lambda: {"seconds": time_search(players=196)})
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.measured = 0
        self.reused = 0
        self._records: dict[str, Record] = {}
        if path is not None and path.exists():
            self._read(path)

    def get(self, settings: Record, measure: Callable[[], Record]) -> Record:
        """Return the measurement with these settings. If the file does not contain it, measure and store it.

        Args:
            settings (dict): Settings of the measurement, in JSON types.
            measure (Callable): Makes the measurement and returns it in JSON types.

        Returns:
            dict: The measurement.
        """
        key = _key(settings)
        if key in self._records:
            self.reused += 1
            return self._records[key]
        record = measure()
        self.measured += 1
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(_with_checksum(_to_json(settings, record)) + "\n")
        self._records[key] = record
        return record

    def _read(self, path: Path) -> None:
        # A damaged byte becomes a character that does not match the checksum.
        contents = path.read_bytes()
        text = contents.decode(errors="replace")
        complete, newline, partial = text.rpartition("\n")
        for number, line in enumerate(complete.splitlines(), 1):
            try:
                entry = json.loads(line)
                settings, record = entry["settings"], entry["measured"]
            except (ValueError, KeyError, TypeError):
                raise _foreign_file(path, number) from None
            text = _to_json(settings, record)
            # Lines of earlier versions have no checksum.
            if line not in (text, _with_checksum(text)):
                raise ValueError(f"line {number} of {path} is damaged or was edited; delete it to measure it again")
            self._records[_key(settings)] = record
        if partial:
            if not partial.startswith(LINE_START[: len(partial)]):
                raise _foreign_file(path, complete.count("\n") + 1 + bool(newline))
            # The process was killed while it wrote the last line. The other lines must survive a full disk, so they are
            # not written again.
            os.truncate(path, contents.rfind(b"\n") + 1)


def _foreign_file(path: Path, line: int) -> ValueError:
    return ValueError(f"line {line} of {path} is not a measurement; pass a new file, or a file with measurements only")


def _to_json(settings: Record, record: Record) -> str:
    return json.dumps({"settings": settings, "measured": record})


def _with_checksum(text: str) -> str:
    """Add the checksum of a JSON object to it."""
    return f'{text[:-1]}, "checksum": "{hashlib.sha256(text.encode()).hexdigest()}"}}'


def _key(settings: Record) -> str:
    return json.dumps(settings, sort_keys=True)
