"""What a long run measured, kept line by line, so that an interrupted one goes on where it stopped."""

import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Record = dict[str, Any]
# how every line begins
BEGIN = '{"settings": {'


class Records:
    """Measurements in a file of JSON lines, each under the settings that it was made with.

    Args:
        path (Path, optional): The file; what it holds already is not measured again. Default: None, nothing is kept

    Attributes:
        made (int): How many measurements were made.
        reused (int): How many were there already.

    Raises:
        ValueError: a file that holds anything else.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.reused = self.made = 0
        self._found: dict[str, Record] = {}
        if path is None or not path.exists():
            return
        whole, newline, cut = path.read_text().rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                self._found[_key(entry["settings"])] = entry["measured"]
            except (ValueError, KeyError, TypeError):
                raise self._foreign(number) from None
        if cut:
            if not cut.startswith(BEGIN[: len(cut)]):
                raise self._foreign(whole.count("\n") + 1 + bool(newline))
            # a run that was killed while it wrote
            path.write_text(whole + newline)

    def _foreign(self, line: int) -> ValueError:
        return ValueError(
            f"{self.path}, line {line}, is no measurement of a benchmark; pass another file, or one it wrote"
        )

    def get(self, settings: Record, measure: Callable[[], Record]) -> Record:
        """The measurement made with these settings, from the file or made now."""
        key = _key(settings)
        if key in self._found:
            self.reused += 1
        else:
            measured = measure()
            self.made += 1
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps({"settings": settings, "measured": measured}) + "\n")
            self._found[key] = measured
        return self._found[key]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floating-point numbers with three digits that count."""
    lines = [header, ["---"] * len(header), *([_text(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine(device: torch.device) -> str:
    """The machine, in words, with what computes on it."""
    name = platform.processor() or platform.machine()
    try:
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip()
    except (OSError, IndexError):
        pass
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def _key(settings: Record) -> str:
    return json.dumps(settings, sort_keys=True)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
