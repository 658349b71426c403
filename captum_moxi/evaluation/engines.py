"""Engines process the batches of a run, and write the rows of each batch when it is finished.

``ENGINES`` lists the engines by name. To add one, derive a class from :class:`Engine` and register it below.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.settings import Settings
from captum_moxi.evaluation.store import write_part
from captum_moxi.registry import Registry

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Resources:
    """The resources that an engine may use.

    Args:
        device (str, optional): Device of the model.
            Default: None, CUDA if available, otherwise the CPU
        workers (int, optional): Number of workers of a distributed engine.
            Default: 1
        cpus (float, optional): Number of CPU cores reserved for each worker.
            Default: 1
        gpus (float, optional): Number of GPUs reserved for each worker. With 0.5, two workers share a GPU.
            Default: 0
    """

    device: str | None = None
    workers: int = 1
    cpus: float = 1
    gpus: float = 0


class Engine(ABC):
    """Processes the batches of a run."""

    def check(self) -> None:  # noqa: B027 (not abstract, because most engines require no packages)
        """Check that the packages of the engine are installed, before a run starts.

        Raises:
            ValueError: If a package is missing.
        """

    def model_device(self, resources: Resources) -> str | None:
        """Return the device on which the process that starts the run loads its own copy of the model."""
        return resources.device

    @abstractmethod
    def run(
        self, evaluator: Evaluator, folder: Path, batches: Sequence[Sequence[int]], *, resources: Resources
    ) -> Iterator[int]:
        """Write the rows of all batches.

        Args:
            evaluator (Evaluator): Model, images and methods.
            folder (Path): Folder of the run.
            batches (Sequence[Sequence[int]]): Indices of the images in each batch.
            resources (Resources): The resources that the engine may use.

        Yields:
            int: Number of images in each finished batch.

        Raises:
            ValueError: If the resources are not available.
            RuntimeError: If every image of a batch fails.
        """


class LocalEngine(Engine):
    """Processes one batch after the other in this process."""

    def run(
        self, evaluator: Evaluator, folder: Path, batches: Sequence[Sequence[int]], *, resources: Resources
    ) -> Iterator[int]:
        for batch in batches:
            write_part(folder, evaluator.rows(batch))
            yield len(batch)


class RayEngine(Engine):
    """Distributes batches over the workers of a Ray cluster with Ray Data.

    The engine connects to a running cluster, or starts Ray on this machine. The model, the data and the folder of the
    run must have the same paths on all machines. If a worker dies, Ray repeats its batches on another worker. The file
    of a batch has a fixed name and is written atomically, so no rows are lost or duplicated.
    """

    def check(self) -> None:
        if find_spec("ray") is None:
            raise ValueError("engine 'ray' requires Ray; run pip install 'captum-moxi[ray]'")

    def model_device(self, resources: Resources) -> str:
        # The machine that starts the run may not have the devices of the workers.
        return "cpu"

    def run(
        self, evaluator: Evaluator, folder: Path, batches: Sequence[Sequence[int]], *, resources: Resources
    ) -> Iterator[int]:
        self.check()
        import ray

        with _ray_session():
            _check_cluster(ray.cluster_resources(), resources)
            items = [{"batch": list(batch)} for batch in batches]
            finished = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                RayWorker,
                batch_size=1,
                batch_format="pandas",
                compute=ray.data.ActorPoolStrategy(size=resources.workers),
                num_cpus=resources.cpus,
                num_gpus=resources.gpus,
                fn_constructor_kwargs={
                    "settings": evaluator.settings,
                    "device": resources.device,
                    "limit": evaluator.limit,
                    "names": list(evaluator.images.names),
                    "folder": str(folder.resolve()),
                },
            )
            try:
                for row in finished.iter_rows():
                    yield row["images"]
            except ray.exceptions.RayError as error:
                reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
                raise RuntimeError(f"a Ray worker failed: {reason}") from error


class RayWorker:
    """A worker of :class:`RayEngine`. It loads the model once and processes the batches that it receives.

    Args:
        settings (Settings): Settings of the run.
        device (str or None): Device of the model.
        limit (int or None): Maximum number of images. None for all.
        names (Sequence[str]): Names of the images on the machine that started the run.
        folder (str): Folder of the run.

    Raises:
        ValueError: If the images on this machine have different names.
    """

    def __init__(
        self, *, settings: Settings, device: str | None, limit: int | None, names: Sequence[str], folder: str
    ) -> None:
        self.evaluator = Evaluator.load(settings, device=device, limit=limit)
        self.folder = Path(folder)
        if list(self.evaluator.images.names) != list(names):
            raise ValueError(
                f"data {settings.data!r} contains different images on this machine; pass a folder or dataset that is "
                "the same on all machines"
            )

    def __call__(self, batch: "pandas.DataFrame") -> "pandas.DataFrame":
        """Write the rows of a batch of images, and return the number of images."""
        indices = [int(index) for index in batch["batch"].iloc[0]]
        write_part(self.folder, self.evaluator.rows(indices))
        return batch.drop(columns="batch").assign(images=[len(indices)])


@contextmanager
def _ray_session() -> Iterator[None]:
    """Start Ray if it is not running, and stop it afterwards if it was started here."""
    import ray

    is_new_session = not ray.is_initialized()
    if is_new_session:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        if is_new_session:
            ray.shutdown()


def _check_cluster(available: dict[str, float], resources: Resources) -> None:
    for argument, name, amount in (("cpus", "CPU", resources.cpus), ("gpus", "GPU", resources.gpus)):
        if resources.workers * amount > available.get(name, 0):
            raise ValueError(
                f"workers is {resources.workers} and {argument} is {amount:g}, but the Ray cluster has only "
                f"{available.get(name, 0):g} {name}s; pass fewer workers or {argument}"
            )


ENGINES: Registry[Engine] = Registry("engine")
ENGINES.register("local", LocalEngine, help="one batch after another in this process")
ENGINES.register("ray", RayEngine, help="batches on the workers of a Ray cluster")
