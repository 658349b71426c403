import errno
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pictures import TOTAL

from captum_moxi.evaluation import store
from captum_moxi.evaluation.runs import describe_finished, run_evaluation, summarize_run
from captum_moxi.evaluation.settings import Settings


def test_a_run_has_rows_of_every_image_and_a_summary(settings: Settings, tmp_path: Path) -> None:
    summary = run_evaluation(settings, tmp_path / "run", device="cpu")
    assert f"{TOTAL} images in {tmp_path / 'run'}: 12 explained, 1 misclassified and left out, 1 unreadable" in summary
    assert re.search(r"broken\.png: .+", summary)
    rows = store.read_rows(tmp_path / "run").to_pylist()
    assert len({(row["image"], row["method"], row["mode"]) for row in rows}) == len(rows) == 12 * 2 + 2


def test_a_run_continues_with_more_images_but_not_with_other_settings(settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert "3 images in" in run_evaluation(settings, run, limit=3, device="cpu")
    parts = set((run / "rows").iterdir())
    assert "5 images in" in run_evaluation(settings, run, limit=5, device="cpu")
    assert parts < set((run / "rows").iterdir())
    with pytest.raises(ValueError, match=r"modes was \['insertion', 'deletion'\] and is \['insertion'\]"):
        run_evaluation(replace(settings, modes=["insertion"]), run, device="cpu")


def test_a_run_is_read_when_it_starts_and_when_it_is_summarized(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_evaluation(settings, tmp_path / "run", limit=2, batch_size=1, device="cpu")
    reads, read = Counter[Path](), Path.read_bytes

    def count(path: Path) -> bytes:
        reads[path] += 1
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", count)
    run_evaluation(settings, tmp_path / "run", limit=2, batch_size=1, device="cpu")
    parts = sorted((tmp_path / "run" / "rows").iterdir())
    assert len(parts) == 2
    assert [reads[part] for part in parts] == [2, 2]


def test_rejected_settings_leave_no_folder(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="engine 'magic' is unknown; pass one of local, ray"):
        run_evaluation(settings, tmp_path / "run", engine="magic")
    with pytest.raises(ValueError, match="method 'magic' is unknown"):
        run_evaluation(replace(settings, methods=["magic"]), tmp_path / "run", device="cpu")
    with pytest.raises(ValueError, match="batch_size is 0; pass an int of at least 1"):
        run_evaluation(settings, tmp_path / "run", batch_size=0)
    assert not (tmp_path / "run").exists()


def test_a_summary_shows_the_first_errors(tmp_path: Path) -> None:
    store.open_run(tmp_path, {})
    store.write_part(tmp_path, [{"image": f"{i:02}", "status": "unreadable", "error": "torn"} for i in range(12)])
    lines = summarize_run(tmp_path).splitlines()
    assert lines[0].endswith("12 unreadable") and lines[1] == "00: torn" and lines[-1] == "and 2 more"
    assert len(lines) == 12


def test_what_an_interrupted_run_has_finished_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert describe_finished(run) == f"{run} does not hold a run yet"
    store.open_run(run, {})
    store.write_part(run, [{"image": "a.png", "status": "wrong"}, {"image": "b.png", "status": "failed"}])
    # Failed images are repeated.
    assert describe_finished(run) == f"1 images are finished and stored in {run}"
    (run / "rows" / "part-torn.parquet").write_bytes(b"PAR1")
    assert "part-torn.parquet (it has no checksum)" in describe_finished(run)

    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.suffix != ".parquet":
            return read(path)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert describe_finished(run) == f"the number of finished images in {run} is unknown"
