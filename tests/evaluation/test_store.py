import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captum_moxi.evaluation import store


def row(image: str, **more: Any) -> dict[str, Any]:
    return {"image": image, "status": store.EXPLAINED, "method": "MoXI", "mode": "insertion"} | more


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    store.open_run(tmp_path / "run", {"n": 1})
    kept = row("b.png", label=3, target=3, order=[2, 0], rewards=[0.5, 1.5, 1e-3], flipped=True, seconds=0.25)
    store.write_part(tmp_path / "run", [kept])
    store.write_part(tmp_path / "run", [row("a.png"), row("a.png", mode="deletion")])
    found = store.read_rows(tmp_path / "run").to_pylist()
    assert [one["image"] for one in found] == ["a.png", "a.png", "b.png"]
    assert {name: found[2][name] for name in kept} == kept
    assert found[0]["order"] is None
    assert store.finished(tmp_path / "run") == {"a.png", "b.png"}


def test_images_done_twice_are_there_once(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    for seconds in (1.0, 2.0):
        store.write_part(tmp_path, [row("a.png", seconds=seconds), row("b.png", seconds=seconds)])
    assert store.read_rows(tmp_path)["seconds"].to_pylist() == [2.0, 2.0]


def test_a_run_goes_on_with_the_same_settings_alone(tmp_path: Path) -> None:
    store.open_run(tmp_path / "run", {"methods": ["moxi"], "n_steps": None})
    store.write_part(tmp_path / "run", [row("a.png")])
    store.open_run(tmp_path / "run", {"methods": ("moxi",), "n_steps": None})
    assert store.finished(tmp_path / "run") == {"a.png"}
    with pytest.raises(ValueError, match="n_steps was None and is 5"):
        store.open_run(tmp_path / "run", {"methods": ["moxi"], "n_steps": 5})


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"is not empty and holds no manifest\.json"):
        store.open_run(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match="holds no run"):
        store.read_rows(tmp_path)


def test_what_was_cut_while_it_was_written_is_not_there(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    store.write_part(tmp_path, [row("a.png")])
    with pytest.raises(Exception, match=r"order|list|int"):
        store.write_part(tmp_path, [row("b.png", order="no list")])
    assert store.finished(tmp_path) == {"a.png"}
    (tmp_path / "rows" / ".part-x.parquet.1").write_bytes(b"PAR1")
    assert store.finished(tmp_path) == {"a.png"}
    store.open_run(tmp_path, {})
    with store.alone(tmp_path):
        assert len(list((tmp_path / "rows").iterdir())) == 1


def test_what_failed_is_done_again(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    store.write_part(tmp_path, [row("a.png"), row("b.png", status=store.FAILED, error="out of memory")])
    assert store.finished(tmp_path) == {"a.png", "b.png"}
    with store.alone(tmp_path):
        assert store.finished(tmp_path) == {"a.png"}


def test_one_process_works_on_a_run_at_a_time(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    code = f"""
from pathlib import Path
from captum_moxi.evaluation import store
try:
    with store.alone(Path({str(tmp_path)!r})):
        print("alone")
except ValueError as error:
    print(error)
"""

    def elsewhere() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    with store.alone(tmp_path):
        assert "another process works on" in elsewhere()
    assert elsewhere() == "alone\n"


def test_a_run_killed_before_it_began_begins(tmp_path: Path) -> None:
    (tmp_path / ".manifest.json.123").write_text("{")
    store.open_run(tmp_path, {"n": 1})
    assert store.read_settings(tmp_path) == {"n": 1}
    (tmp_path / "rows").rmdir()
    store.open_run(tmp_path, {"n": 1})
    assert store.finished(tmp_path) == set()


def test_a_broken_part_is_named(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    (tmp_path / "rows" / "part-1.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"part-1\.parquet cannot be read"):
        store.finished(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are set as on Unix")
def test_a_full_disk_leaves_what_was_finished(tmp_path: Path) -> None:
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
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "full\n"
    assert store.finished(tmp_path) == {"a.png"}
    assert len(list((tmp_path / "rows").iterdir())) == 1
