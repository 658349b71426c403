"""Batches of a run as a job of Ray Data."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.data

from captum_moxi.evaluation.engines.base import Resources
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.settings import Settings
from captum_moxi.kernels import KernelSet, use_kernels

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class RayJob:
    """The batches of a run, and everything that a worker needs to process them.

    Args:
        settings (Settings): Settings of the run.
        limit (int or None): Maximum number of images. None for all.
        names (Sequence[str]): Names of the images on the machine that started the run.
        batches (Sequence[Sequence[int]]): Indices of the images in each batch.
        folder (str): Folder of the run.
        resources (Resources): The resources that the job may use.
        kernels (str): Kernels that the workers use. See :func:`captum_moxi.use_kernels`.
    """

    settings: Settings
    limit: int | None
    names: Sequence[str]
    batches: Sequence[Sequence[int]]
    folder: str
    resources: Resources
    kernels: KernelSet

    def to_json(self) -> str:
        """Return the job as JSON in one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RayJob":
        """Create a job from the text of :meth:`to_json`."""
        values = json.loads(text)
        settings, resources = Settings.from_dict(values.pop("settings")), Resources(**values.pop("resources"))
        return cls(settings=settings, resources=resources, **values)

    def run_in_cluster(self, **options: Any) -> Iterator[int]:
        """Write the rows of all batches on the workers of a cluster.

        Args:
            **options: Arguments of ``ray.init``, which is called if this process is not connected to a cluster yet.

        Yields:
            int: Number of images in each finished batch.

        Raises:
            ValueError: If the cluster does not have the resources.
            RuntimeError: If a worker fails.
            OSError: If the cluster cannot be reached, or rejects this process.
        """
        try:
            with _connection(**options):
                _check_cluster(ray.cluster_resources(), self.resources)
                yield from self._finished_counts()
        except ray.exceptions.RayError as error:
            reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            raise RuntimeError(f"a Ray worker failed: {reason}") from error

    def _finished_counts(self) -> Iterator[int]:
        items = [{"batch": list(batch)} for batch in self.batches]
        finished = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            RayWorker,
            batch_size=1,
            batch_format="pandas",
            compute=ray.data.ActorPoolStrategy(size=self.resources.workers),
            num_cpus=self.resources.cpus,
            num_gpus=self.resources.gpus,
            fn_constructor_kwargs={
                "settings": self.settings,
                "device": self.resources.device,
                "limit": self.limit,
                "names": list(self.names),
                "folder": self.folder,
                "kernels": self.kernels,
            },
        )
        for row in finished.iter_rows():
            yield row["images"]


class RayWorker:
    """A worker of a :class:`RayJob`. It loads the model once and processes the batches that it receives.

    Args:
        settings (Settings): Settings of the run.
        device (str or None): Device of the model.
        limit (int or None): Maximum number of images. None for all.
        names (Sequence[str]): Names of the images on the machine that started the run.
        folder (str): Folder of the run.
        kernels (str): Kernels to use. See :func:`captum_moxi.use_kernels`.

    Raises:
        ValueError: If the images on this machine have different names.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        device: str | None,
        limit: int | None,
        names: Sequence[str],
        folder: str,
        kernels: KernelSet,
    ) -> None:
        self.evaluator = Evaluator.load(settings, device=device, limit=limit)
        self.folder = Path(folder)
        self.kernels = kernels
        if list(self.evaluator.images.names) != list(names):
            raise ValueError(
                f"data {settings.data!r} contains different images on this machine; pass a folder or dataset that is "
                "the same on all machines"
            )

    def __call__(self, batch: "pandas.DataFrame") -> "pandas.DataFrame":
        """Write the rows of a batch of images, and return the number of images."""
        indices = [int(index) for index in batch["batch"].iloc[0]]
        with use_kernels(self.kernels):
            n_images = self.evaluator.write(indices, self.folder)
        return batch.drop(columns="batch").assign(images=[n_images])


@contextmanager
def _connection(**options: Any) -> Iterator[None]:
    """Connect to a cluster, and disconnect afterwards, unless this process was connected before."""
    is_new_connection = not ray.is_initialized()
    if is_new_connection:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            raise ConnectionError(
                f"{str(error).strip().splitlines()[0]}; start the cluster, and if it requires a token, set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        if is_new_connection:
            ray.shutdown()


def _check_cluster(available: dict[str, float], resources: Resources) -> None:
    for argument, name, amount in (("cpus", "CPU", resources.cpus), ("gpus", "GPU", resources.gpus)):
        if resources.workers * amount > available.get(name, 0):
            raise ValueError(
                f"workers is {resources.workers} and {argument} is {amount:g}, but the Ray cluster has only "
                f"{available.get(name, 0):g} {name}s; pass fewer workers or {argument}"
            )
