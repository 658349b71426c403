"""Damage to the folder of a run is repaired or reported, whatever it is. It never changes what is read."""

import functools
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from pictures import write_pictures
from sizes import for_all

pytest.importorskip("datasets")

from captum_moxi.demo import FOLDER
from captum_moxi.evaluation import store
from captum_moxi.evaluation.runs import run_evaluation
from captum_moxi.evaluation.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:.* is damaged")

# Measured again if an image is repeated.
MEASURED = {"seconds"}


@dataclass(frozen=True)
class Damage:
    """A change of a file.

    Args:
        kind (str): Name of the change.
        file (int): Index of the file among those of the folder.
        place (float): Position in the file, from 0 to 1.
        number (int): Bit to flip, byte to write, or index of another file.
    """

    kind: str
    file: int
    place: float
    number: int

    def apply(self, folder: Path) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        path = files[self.file % len(files)]
        content = bytearray(path.read_bytes())
        at = min(int(self.place * len(content)), len(content) - 1)
        if self.kind == "truncate":
            path.write_bytes(content[:at])
        elif self.kind == "delete":
            path.unlink()
        elif self.kind == "copy":
            path.with_name(f"part-{self.number:024x}.parquet").write_bytes(content)
        elif self.kind == "replace":
            path.write_bytes(files[self.number % len(files)].read_bytes())
        elif self.kind == "append":
            path.write_bytes(content + bytes([self.number] * (1 + at)))
        elif self.kind == "rename":
            path.rename(path.with_name(f"part-{self.number:024x}.parquet"))
        else:
            content[at] = content[at] ^ (1 << self.number % 8) if self.kind == "flip" else self.number
            path.write_bytes(content)


KINDS = ["flip", "flip", "edit", "truncate", "delete", "copy", "replace", "append", "rename"]
DAMAGES = st.builds(
    Damage,
    st.sampled_from(KINDS),
    st.integers(0, 100),
    st.floats(0, 1),
    st.integers(0, 255),
)


@functools.cache
def original() -> tuple[tempfile.TemporaryDirectory[str], Settings]:
    """A folder with a finished run in "run", and the settings of the run."""
    folder = tempfile.TemporaryDirectory()
    data = Path(folder.name) / "data"
    data.mkdir()
    write_pictures(data)
    settings = Settings(model=str(FOLDER / "model"), data=str(data), grid=2, screen="all", keep="all")
    evaluate(settings, Path(folder.name) / "run")
    return folder, settings


def evaluate(settings: Settings, run: Path) -> None:
    """Start or continue a run. Each image has a part of its own, so a repeated image is computed in the same batch."""
    run_evaluation(settings, run, batch_size=1, device="cpu", limit=5)


def read(run: Path) -> Counter[str]:
    """The rows of a run without measurements, and how often each occurs."""
    rows: list[dict[str, Any]] = store.read_rows(run).to_pylist()
    return Counter(repr({name: value for name, value in row.items() if name not in MEASURED}) for row in rows)


@for_all(st.lists(DAMAGES, min_size=1, max_size=2), quick=10, large=150)
def test_a_damaged_run_is_repaired_or_reported(damages: list[Damage]) -> None:
    folder, settings = original()
    expected = read(Path(folder.name) / "run")
    with tempfile.TemporaryDirectory() as copy:
        run = Path(copy) / "run"
        shutil.copytree(Path(folder.name) / "run", run)
        for damage in damages:
            damage.apply(run)
        try:
            assert read(run) <= expected
        except ValueError as error:
            assert str(run) in str(error)
        try:
            evaluate(settings, run)
        except ValueError as error:
            assert str(run) in str(error)
        else:
            assert read(run) == expected
