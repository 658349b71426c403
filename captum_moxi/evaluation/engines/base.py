"""The interface of an engine, and the resources that it may use."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The evaluator requires optional packages, but the command line lists the engines without them.
    from captum_moxi.evaluation.evaluator import Evaluator


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
        self, evaluator: "Evaluator", folder: Path, batches: Sequence[Sequence[int]], *, resources: Resources
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
