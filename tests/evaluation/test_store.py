import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from captum_moxi.evaluation import store
from captum_moxi.evaluation.rows import SCHEMA, Row


def row(image: str, **columns: Any) -> Row:
    return cast(Row, {"image": image, "status": "explained", "method": "MoXI", "mode": "insertion"} | columns)


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_schema_has_a_type_for_every_column() -> None:
    assert SCHEMA.names == list(Row.__annotations__)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    store.open_run(tmp_path / "run", {"n": 1})
    written = row("b.png", label=3, target=3, order=[2, 0], rewards=[0.5, 1.5, 1e-3], flipped=True, seconds=0.25)
    store.write_part(tmp_path / "run", [written])
    store.write_part(tmp_path / "run", [row("a.png"), row("a.png", mode="deletion")])
    rows = store.read_rows(tmp_path / "run").to_pylist()
    assert [read["image"] for read in rows] == ["a.png", "a.png", "b.png"]
    assert {name: rows[2][name] for name in written} == written
    assert rows[0]["order"] is None
    assert store.finished_images(tmp_path / "run") == {"a.png", "b.png"}


def test_a_repeated_batch_replaces_its_rows(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    for seconds in (1.0, 2.0):
        store.write_part(tmp_path, [row("a.png", seconds=seconds), row("b.png", seconds=seconds)])
    assert store.read_rows(tmp_path)["seconds"].to_pylist() == [2.0, 2.0]


def test_a_run_continues_only_with_the_same_settings(tmp_path: Path) -> None:
    store.open_run(tmp_path / "run", {"methods": ["moxi"], "n_steps": None})
    store.write_part(tmp_path / "run", [row("a.png")])
    store.open_run(tmp_path / "run", {"methods": ["moxi"], "n_steps": None})
    assert store.finished_images(tmp_path / "run") == {"a.png"}
    with pytest.raises(ValueError, match="n_steps was None and is 5"):
        store.open_run(tmp_path / "run", {"methods": ["moxi"], "n_steps": 5})


def test_a_folder_with_other_files_is_rejected_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"is not empty and has no manifest\.json"):
        store.open_run(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match="holds no run"):
        store.read_rows(tmp_path)


def test_incomplete_parts_are_ignored_and_deleted(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    store.write_part(tmp_path, [row("a.png")])
    with pytest.raises(Exception, match=r"order|list|int"):
        store.write_part(tmp_path, [row("b.png", order="not a list")])
    assert store.finished_images(tmp_path) == {"a.png"}
    (tmp_path / "rows" / ".part-x.parquet.1").write_bytes(b"PAR1")
    assert store.finished_images(tmp_path) == {"a.png"}
    with store.locked_run(tmp_path):
        assert len(list((tmp_path / "rows").iterdir())) == 1


def test_failed_images_are_repeated(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    store.write_part(tmp_path, [row("a.png"), row("b.png", status="failed", error="out of memory")])
    assert store.finished_images(tmp_path) == {"a.png", "b.png"}
    with store.locked_run(tmp_path):
        assert store.finished_images(tmp_path) == {"a.png"}


def test_only_one_process_writes_to_a_run(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    code = f"""
from pathlib import Path
from captum_moxi.evaluation import store
try:
    with store.locked_run(Path({str(tmp_path)!r})):
        print("locked")
except ValueError as error:
    print(error)
"""
    with store.locked_run(tmp_path):
        assert "another process is writing to" in python(code)
    assert python(code) == "locked\n"


def test_a_run_starts_after_a_kill_before_its_manifest_was_complete(tmp_path: Path) -> None:
    (tmp_path / ".manifest.json.123").write_text("{")
    store.open_run(tmp_path, {"n": 1})
    assert store.read_settings(tmp_path) == {"n": 1}
    (tmp_path / "rows").rmdir()
    store.open_run(tmp_path, {"n": 1})
    assert store.finished_images(tmp_path) == set()


def test_the_error_names_a_part_that_cannot_be_read(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    (tmp_path / "rows" / "part-1.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"part-1\.parquet cannot be read"):
        store.finished_images(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="uses the file size limit of POSIX")
def test_finished_rows_survive_a_full_disk(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    store.write_part(tmp_path, [row("a.png")])
    code = f"""
import resource
from pathlib import Path
from captum_moxi.evaluation import store
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    rewards = [i / 7 for i in range(10000)]
    store.write_part(Path({str(tmp_path)!r}), [{{"image": "b.png", "status": "wrong", "rewards": rewards}}])
except OSError:
    print("full")
"""
    assert python(code) == "full\n"
    assert store.finished_images(tmp_path) == {"a.png"}
    assert len(list((tmp_path / "rows").iterdir())) == 1
