"""Engines: who does the batches of a run. Each writes every batch's rows as it is done, and yields their number."""

import logging
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from captum_moxi.evaluation.runs import Evaluator
from captum_moxi.evaluation.store import write_part


def run_local(evaluator: Evaluator, folder: Path, batches: Sequence[Sequence[int]]) -> Iterator[int]:
    """One batch after another, in this process."""
    for batch in batches:
        write_part(folder, evaluator.rows(batch))
        yield len(batch)


def run_ray(
    evaluator: Evaluator,
    folder: Path,
    batches: Sequence[Sequence[int]],
    workers: int,
    cpus: float = 1,
    gpus: float = 0,
    device: str | None = None,
) -> Iterator[int]:
    """Batches over the workers of a Ray cluster, through Ray Data: the one that is running, or one made here.

    Ray does the batches of a worker that dies again on another. A batch is of a fixed set of images and is written
    whole under a name of theirs, so that none is lost and none is there twice. All machines see the model, the data and
    the folder by the same names.

    Args:
        evaluator (Evaluator): Whose settings each worker takes.
        folder (Path): The run's.
        batches (Sequence[Sequence[int]]): The images, by their places.
        workers (int): How many.
        cpus, gpus (float): What each of them takes for itself.
        device (str, optional): Where workers put the model. Default: CUDA if they have it, else the CPU

    Raises:
        ValueError: Ray is not installed.
    """
    if find_spec("ray") is None:
        raise ValueError("the engine ray needs Ray; pip install 'captum-moxi[ray]'")
    import ray

    begun = not ray.is_initialized()
    if begun:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    of = evaluator.settings, device, evaluator.limit, list(evaluator.images.names), str(folder.resolve())
    there = ray.cluster_resources()
    for name, each in (("CPU", cpus), ("GPU", gpus)):
        if workers * each > there.get(name, 0):
            raise ValueError(
                f"{workers} workers of {each:g} {name} each are more than the {there.get(name, 0):g} that Ray has; "
                "pass fewer"
            )
    batched = ray.data.from_items([{"batch": list(batch)} for batch in batches], override_num_blocks=len(batches))
    done = batched.map_batches(
        _RayWorker,
        batch_size=1,
        batch_format="pandas",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cpus,
        num_gpus=gpus,
        fn_constructor_args=of,
    )
    try:
        for row in done.iter_rows():
            yield row["images"]
    except ray.exceptions.RayError as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
        raise RuntimeError(f"a worker of Ray failed: {reason}") from error
    finally:
        if begun:
            ray.shutdown()


class _RayWorker:
    """A worker of :func:`run_ray`: it loads the model once and does the batches that it is given."""

    def __init__(self, settings: Any, device: str | None, limit: int | None, names: list[str], folder: str) -> None:
        self.evaluator = Evaluator(settings, device, limit)
        self.folder = Path(folder)
        if list(self.evaluator.images.names) != names:
            raise ValueError(f"data {settings.data!r} holds other images on this machine; pass what all of them share")

    def __call__(self, batch: Any) -> Any:
        indices = [int(index) for index in batch["batch"].iloc[0]]
        write_part(self.folder, self.evaluator.rows(indices))
        batch = batch.drop(columns="batch")
        batch["images"] = [len(indices)]
        return batch
