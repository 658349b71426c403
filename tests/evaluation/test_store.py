import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captum_moxi.evaluation import store
from captum_moxi.evaluation.rows import SCHEMA, Row
from captum_moxi.evaluation.settings import Settings


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
    with store.locked_run(tmp_path) as finished:
        assert finished == store.finished_images(tmp_path) == {"a.png"}


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


def write_two_parts(folder: Path) -> list[Path]:
    """A run of two parts with the images a.png and b.png, and c.png."""
    store.open_run(folder, {})
    store.write_part(folder, [row("a.png", seconds=1.0), row("b.png", seconds=2.0)])
    first = list((folder / "rows").iterdir())
    store.write_part(folder, [row("c.png", seconds=3.0)])
    return sorted((folder / "rows").iterdir(), key=lambda part: part not in first)


def flip_bit(path: Path, bit: int) -> None:
    contents = bytearray(path.read_bytes())
    contents[bit // 8] ^= 1 << bit % 8
    path.write_bytes(contents)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def edit(path: Path) -> None:
    pandas.read_parquet(path).assign(seconds=7.0).to_parquet(path)


def clear(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [lambda path: flip_bit(path, 500), truncate, edit, clear])
def test_a_damaged_part_is_named_and_its_images_are_processed_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damaged, intact = write_two_parts(tmp_path)
    damage(damaged)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"{damaged.name} \(it .*repeat the command that wrote the run") as error:
            store.read_rows(tmp_path)
        assert intact.name not in str(error.value)
    with (
        pytest.warns(UserWarning, match=rf"{damaged.name} is damaged .* its images are processed again"),
        store.locked_run(tmp_path) as finished,
    ):
        assert finished == store.finished_images(tmp_path) == {"c.png"}
    assert (tmp_path / "damaged" / damaged.name).exists()
    store.write_part(tmp_path, [row("a.png", seconds=1.0), row("b.png", seconds=2.0)])
    assert store.read_rows(tmp_path)["seconds"].to_pylist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_a_part_that_cannot_be_read_is_not_damaged(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    part, _ = write_two_parts(tmp_path)
    rows, read = store.read_rows(tmp_path), Path.read_bytes

    def fail(path: Path) -> bytes:
        if path == part:
            raise OSError(code, os.strerror(code), str(path))
        return read(path)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", fail)
        with pytest.raises(OSError, match=part.name), store.locked_run(tmp_path):
            pytest.fail("the run continues")
        with pytest.raises(OSError, match=part.name):
            store.read_rows(tmp_path)
        with pytest.raises(OSError, match=part.name):
            store.write_part(tmp_path, [row("a.png"), row("b.png")])
    assert store.read_rows(tmp_path).equals(rows)


def test_parts_that_are_damaged_again_are_all_kept(tmp_path: Path) -> None:
    contents = [b"first", b"second", b"third"]
    for content in contents:
        part, _ = write_two_parts(tmp_path)
        part.write_bytes(content)
        with pytest.warns(UserWarning, match="is damaged"), store.locked_run(tmp_path):
            pass
    assert sorted(path.read_bytes() for path in (tmp_path / "damaged").iterdir()) == contents


def test_two_workers_may_write_the_same_part_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.open_run(tmp_path, {})
    fsync, batch = os.fsync, [row("a.png"), row("b.png")]

    def write_in_between(file: int) -> None:
        # The other worker has the same process id, as on another machine.
        monkeypatch.setattr(os, "fsync", fsync)
        store.write_part(tmp_path, batch)
        fsync(file)

    monkeypatch.setattr(os, "fsync", write_in_between)
    store.write_part(tmp_path, batch)
    assert store.read_rows(tmp_path)["image"].to_pylist() == ["a.png", "b.png"]
    assert len(list((tmp_path / "rows").iterdir())) == 1


def test_many_damaged_parts_are_counted(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    for number in range(5):
        (tmp_path / "rows" / f"part-{number}.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"part-2\.parquet \(it has no checksum\) and 2 more; repeat"):
        store.read_rows(tmp_path)


@pytest.mark.parametrize("n_flips", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_flipped_bit_in_a_run_is_misread(tmp_path: Path, n_flips: int) -> None:
    parts = write_two_parts(tmp_path)
    rows, settings = store.read_rows(tmp_path), store.read_settings(tmp_path)
    generator = random.Random(0)
    for _ in range(n_flips):
        path = generator.choice([*parts, tmp_path / "manifest.json"])
        contents = path.read_bytes()
        flip_bit(path, generator.randrange(8 * len(contents)))
        with suppress(ValueError):
            # Only flips that change no value are accepted, for example in the case of a hexadecimal digit.
            assert store.read_rows(tmp_path).equals(rows) and store.read_settings(tmp_path) == settings
            assert path.name == "manifest.json"
        path.write_bytes(contents)


def test_a_copied_or_renamed_part_adds_no_rows(tmp_path: Path) -> None:
    first, second = write_two_parts(tmp_path)
    shutil.copy(first, first.with_name("part-0.parquet"))
    shutil.copy(first, first.with_name(f"{first.stem} (copy).parquet"))
    second.rename(second.with_name("part-renamed.parquet"))
    assert store.read_rows(tmp_path)["seconds"].to_pylist() == [1.0, 2.0, 3.0]


def test_a_part_with_the_name_of_another_part_is_not_overwritten(tmp_path: Path) -> None:
    first, second = write_two_parts(tmp_path)
    rows = store.read_rows(tmp_path)
    lost = [cast(Row, read) for read in rows.to_pylist() if read["image"] != "c.png"]
    second.replace(first)
    assert store.finished_images(tmp_path) == {"c.png"}
    store.write_part(tmp_path, lost)
    assert store.read_rows(tmp_path).equals(rows)


def test_images_of_two_parts_are_read_once(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    store.write_part(tmp_path, [row("a.png"), row("a.png", mode="deletion"), row("b.png", status="failed")])
    store.write_part(tmp_path, [row("b.png"), row("a.png")])
    rows = store.read_rows(tmp_path, ["image", "status"])
    assert {read["image"]: read["status"] for read in rows.to_pylist()} == {"a.png": "explained", "b.png": "explained"}
    assert rows["image"].to_pylist().count("b.png") == 1


def test_a_part_of_another_run_is_not_read(tmp_path: Path) -> None:
    part, _ = write_two_parts(tmp_path / "run")
    store.open_run(tmp_path / "other", {})
    shutil.copy(part, tmp_path / "other" / "rows" / part.name)
    with pytest.raises(ValueError, match="it belongs to another run"):
        store.read_rows(tmp_path / "other")


def test_a_deleted_part_is_missed(tmp_path: Path) -> None:
    part, _ = write_two_parts(tmp_path)
    part.unlink()
    assert store.finished_images(tmp_path) == {"c.png"}


def test_the_number_of_images_of_a_run_only_grows(tmp_path: Path) -> None:
    for images, expected in ((None, None), (5, 5), (3, 5), (None, 5), (8, 8)):
        store.open_run(tmp_path, {"n": 1}, images=images)
        assert store.read_manifest(tmp_path).images == expected
        assert store.read_settings(tmp_path) == {"n": 1}


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    write_two_parts(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    for read in (
        store.read_settings,
        store.run_settings,
        store.read_rows,
        lambda folder: store.write_part(folder, [row("d.png")]),
        lambda folder: store.open_run(folder, {}),
    ):
        with pytest.raises(ValueError, match=r"manifest\.json is damaged or was edited \(it is \[\], not an object"):
            read(tmp_path)


def test_invalid_settings_are_named(tmp_path: Path) -> None:
    store.open_run(tmp_path, {"model": "m", "data": "d", "reward": None})
    with pytest.raises(ValueError, match=r"manifest\.json is damaged or was edited \(reward is None; pass the name"):
        store.run_settings(tmp_path)


def test_a_run_of_a_version_without_checksums_is_read_and_continued(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "manifest.json").write_text('{"settings": {"n": 1}, "versions": {}}')
    # This version had fewer columns.
    table = pa.Table.from_pylist([{"image": "a.png", "status": "explained", "seconds": 1.0}])
    pq.write_table(table, tmp_path / "rows" / "part-0.parquet")
    store.open_run(tmp_path, {"n": 1}, images=2)
    store.write_part(tmp_path, [row("b.png", seconds=2.0)])
    rows = store.read_rows(tmp_path).to_pydict()
    assert rows["image"] == ["a.png", "b.png"] and rows["seconds"] == [1.0, 2.0] and rows["method"] == [None, "MoXI"]


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
except OSError as error:
    print(error.filename)
"""
    (name,) = python(code).splitlines()
    assert Path(name).parent == tmp_path / "rows" and name.endswith(".parquet")
    assert store.finished_images(tmp_path) == {"a.png"}
    assert len(list((tmp_path / "rows").iterdir())) == 1


def test_a_run_without_settings_that_were_added_later_continues_with_their_defaults(tmp_path: Path) -> None:
    settings = Settings("m", "d").to_dict()
    earlier = {name: value for name, value in settings.items() if name not in ("minimal", "alternatives")}
    store.open_run(tmp_path, earlier)
    store.open_run(tmp_path, settings)
    for changes, message in (
        ({"minimal": True}, "minimal was False and is True"),
        ({"alternatives": 2}, "alternatives"),
    ):
        with pytest.raises(ValueError, match=message):
            store.open_run(tmp_path, settings | changes)
