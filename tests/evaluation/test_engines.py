import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from captum_moxi.evaluation import store
from captum_moxi.evaluation.engines import run_local, run_ray
from captum_moxi.evaluation.runs import Evaluator, Settings, to_do

# what one run and another of the same settings may differ in
OF_THE_RUN = ("seconds",)


def rows_of(folder: Path) -> list[dict[str, object]]:
    table = store.read_rows(folder).drop_columns(list(OF_THE_RUN))
    return sorted(table.to_pylist(), key=lambda row: tuple(str(row[name]) for name in ("image", "method", "mode")))


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    """A run that nothing stopped, with its settings."""
    from captum_moxi.demo import FOLDER

    settings = Settings(model=str(FOLDER / "model"), data=str(pictures), grid=2, methods=["moxi", "random"], stop=None)
    folder = tmp_path_factory.mktemp("whole") / "run"
    evaluator = Evaluator(settings, "cpu")
    store.open_run(folder, asdict(settings))
    assert sum(run_local(evaluator, folder, to_do(evaluator, folder, 2))) == 14
    return settings, folder


@pytest.mark.skipif(os.name != "posix", reason="kills a process as on Unix")
def test_killed_and_started_again_every_row_is_there_once(whole: tuple[Settings, Path], tmp_path: Path) -> None:
    settings, folder = whole
    command = [sys.executable, "-m", "captum_moxi.cli", "evaluate", "--model", settings.model, "--data", settings.data]
    command += ["--methods", "moxi,random", "--grid", "2", "--stop", "never", "--batch-size", "2", "--device", "cpu"]
    command += ["--out", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = tmp_path / "run" / "rows"
    # watched without a pause, so as not to miss the middle
    while first.poll() is None:
        if rows.is_dir() and any(rows.glob("part-*")):
            first.send_signal(signal.SIGKILL)
            first.wait()
    assert first.returncode == -signal.SIGKILL
    assert 0 < len(store.finished(tmp_path / "run")) < 14
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "14 images in" in again.stdout and "12 explained, 1 wrong, 1 unreadable" in again.stdout
    assert rows_of(tmp_path / "run") == rows_of(folder)


def _command(process: Any) -> list[str]:
    import psutil

    try:
        command: list[str] = process.cmdline()
    except psutil.Error:
        # it ended between the list and the question
        command = []
    return command


def test_ray_does_the_images_of_a_killed_worker_again(whole: tuple[Settings, Path], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    settings, folder = whole
    evaluator = Evaluator(settings, "cpu")
    store.open_run(tmp_path, asdict(settings))
    killed = done = 0
    for count in run_ray(evaluator, tmp_path, to_do(evaluator, tmp_path, 2), workers=2, device="cpu"):
        done += count
        children = psutil.Process().children(recursive=True)
        workers = [process for process in children if "_RayWorker" in " ".join(_command(process))]
        if workers and not killed:
            workers[0].kill()
            killed += 1
    assert killed == 1 and done == 14
    # processes round otherwise than threads that share one
    for row, other in zip(rows_of(tmp_path), rows_of(folder), strict=True):
        for name in ("rewards", "confidences", "shapley", "interactions"):
            assert row.pop(name) == pytest.approx(other.pop(name), abs=1e-4)
        assert row == other


def test_ray_workers_see_the_same_images(whole: tuple[Settings, Path], tmp_path: Path) -> None:
    from captum_moxi.evaluation.engines import _RayWorker

    settings, _ = whole
    with pytest.raises(ValueError, match="holds other images on this machine"):
        _RayWorker(replace(settings), "cpu", None, ["another.png"], str(tmp_path))
