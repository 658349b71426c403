import importlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from pictures import TOTAL

from captum_moxi import use_kernels
from captum_moxi.demo import FOLDER
from captum_moxi.evaluation import store
from captum_moxi.evaluation.engines import ENGINES, LocalEngine, RayEngine, Resources, ray_engine
from captum_moxi.evaluation.evaluator import Evaluator, remaining_batches
from captum_moxi.evaluation.runs import run_evaluation
from captum_moxi.evaluation.settings import Settings
from captum_moxi.kernels import kernel_set

if TYPE_CHECKING:
    import pandas

CPU = Resources(device="cpu")
# Engines that take several seconds to start.
SLOW = {"ray": pytest.mark.slow}

# Kills the process while it writes its third part.
KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from captum_moxi import use_kernels
from captum_moxi.evaluation.runs import run_evaluation
from captum_moxi.evaluation.settings import Settings

replace = os.replace
parts = []

def replace_or_die(source, target):
    if str(target).endswith(".parquet"):
        parts.append(target)
    if len(parts) == 3:
        os.truncate(source, 100)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = replace_or_die
model, data, folder = sys.argv[1:]
settings = Settings(model, data, grid=2, methods=["moxi", "random"], stop=None)
with use_kernels("torch"):
    run_evaluation(settings, Path(folder), batch_size=2, device="cpu")
"""


def comparable_rows(folder: Path) -> list[dict[str, Any]]:
    """Rows without the columns that differ between two runs with the same settings."""
    rows: list[dict[str, Any]] = store.read_rows(folder).drop_columns(["seconds"]).to_pylist()
    return sorted(rows, key=lambda row: (row["image"], str(row["method"]), str(row["mode"])))


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    """Settings, and the folder of an uninterrupted run with them."""
    settings = Settings(model=str(FOLDER / "model"), data=str(pictures), grid=2, methods=["moxi", "random"], stop=None)
    folder = tmp_path_factory.mktemp("whole") / "run"
    evaluator = Evaluator.load(settings, device="cpu")
    store.open_run(folder, settings.to_dict())
    batches = remaining_batches(evaluator, (), batch_size=2)
    # The fastest kernels may differ between processes, and with them the last digits of the rows.
    with use_kernels("torch"):
        assert sum(LocalEngine().run(evaluator, folder, batches, resources=CPU)) == TOTAL
    return settings, folder


@pytest.mark.skipif(os.name != "posix", reason="uses SIGKILL")
def test_a_run_that_was_killed_continues_and_has_every_row_once(whole: tuple[Settings, Path], tmp_path: Path) -> None:
    settings, folder = whole
    command = [sys.executable, "-c", KILLED_RUN, settings.model, settings.data, str(tmp_path / "run")]
    killed = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert len(store.finished_images(tmp_path / "run")) == 2 * 2
    with use_kernels("torch"):
        summary = run_evaluation(settings, tmp_path / "run", batch_size=2, device="cpu")
    assert f"{TOTAL} images in" in summary and "12 explained, 1 misclassified and left out, 1 unreadable" in summary
    assert comparable_rows(tmp_path / "run") == comparable_rows(folder)


@pytest.fixture
def ray_job() -> ModuleType:
    """The module of Ray jobs, which requires Ray."""
    pytest.importorskip("ray")
    return importlib.import_module("captum_moxi.evaluation.engines.ray_job")


@pytest.fixture
def ray_cluster(ray_job: ModuleType) -> Iterator[ModuleType]:
    """Ray, connected to a cluster of two cores."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="uses SIGKILL")
def test_ray_repeats_the_batch_of_a_worker_that_was_killed(
    whole: tuple[Settings, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ray_job: ModuleType,
    ray_cluster: ModuleType,
) -> None:
    # Ray pickles a local class by value, so its workers need not import this module.
    class MortalWorker(ray_job.RayWorker):  # type: ignore[misc, name-defined]
        def __call__(self, batch: "pandas.DataFrame") -> "pandas.DataFrame":
            try:
                (self.folder / ".killed").touch(exist_ok=False)
            except FileExistsError:
                return super().__call__(batch)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("the process is dead")

    monkeypatch.setattr(ray_job, "RayWorker", MortalWorker)
    settings, folder = whole
    evaluator = Evaluator.load(settings, device="cpu")
    store.open_run(tmp_path, settings.to_dict())
    batches = remaining_batches(evaluator, (), batch_size=2)
    resources = Resources(device="cpu", workers=2)
    assert sum(RayEngine().run(evaluator, tmp_path, batches, resources=resources)) == TOTAL
    assert (tmp_path / ".killed").exists()
    # The connection to a cluster that the engine has not opened remains open.
    assert ray_cluster.is_initialized()
    # Processes with several threads round differently from this one.
    for row, other in zip(comparable_rows(tmp_path), comparable_rows(folder), strict=True):
        for name in ("rewards", "confidences", "shapley", "interactions"):
            assert row.pop(name) == pytest.approx(other.pop(name), abs=1e-4)
        assert row == other


def test_a_ray_worker_with_other_images_is_rejected(
    whole: tuple[Settings, Path], tmp_path: Path, ray_job: ModuleType
) -> None:
    settings, _ = whole
    with pytest.raises(ValueError, match="contains different images on this machine"):
        ray_job.RayWorker(
            settings=settings,
            device="cpu",
            limit=None,
            names=["another.png"],
            folder=str(tmp_path),
            kernels=kernel_set(),
        )


def test_ray_needs_a_cluster_that_is_large_enough(
    whole: tuple[Settings, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    evaluator = Evaluator.load(whole[0], device="cpu", limit=1)
    for resources, message in (
        (Resources(workers=5), "workers is 5 and cpus is 1, but the Ray cluster has only 4 CPUs"),
        (Resources(workers=2, gpus=0.5), r"workers is 2 and gpus is 0\.5, but the Ray cluster has only 0 GPUs"),
    ):
        with pytest.raises(ValueError, match=message):
            next(RayEngine().run(evaluator, tmp_path, [[0]], resources=resources))


def test_an_engine_whose_package_is_missing_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"requires Ray; run pip install 'captum-moxi\[ray\]'"):
        RayEngine().check()


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in ENGINES])
def test_every_registered_engine_writes_the_rows_of_a_batch(
    name: str, whole: tuple[Settings, Path], tmp_path: Path
) -> None:
    engine = ENGINES.create(name)
    if name == "ray":
        pytest.importorskip("ray")
    engine.check()
    settings = replace(whole[0], methods=["random"])
    evaluator = Evaluator.load(settings, device=engine.model_device(CPU))
    store.open_run(tmp_path, settings.to_dict())
    assert list(engine.run(evaluator, tmp_path, [[0, 1]], resources=CPU)) == [2]
    assert store.finished_images(tmp_path) == set(evaluator.images.names[:2])
