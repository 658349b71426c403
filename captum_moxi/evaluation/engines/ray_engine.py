"""The engine that distributes batches over the workers of a Ray cluster.

Without a cluster, Ray runs on this machine, in a process of its own that :mod:`~.ray_session` starts.
"""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from captum_moxi.evaluation.engines.base import Engine, Resources
from captum_moxi.evaluation.engines.ray_session import run_in_private_session
from captum_moxi.kernels import kernel_set

if TYPE_CHECKING:
    from captum_moxi.evaluation.evaluator import Evaluator


class RayEngine(Engine):
    """Distributes batches over the workers of a Ray cluster with Ray Data.

    The engine uses the cluster that this process is connected to, or connects to the one at the environment variable
    ``RAY_ADDRESS``. The model, the data and the folder of the run must have the same paths on all machines. Without a
    cluster, the workers run on this machine. They listen only on its loopback interface, and accept only processes that
    know a random token, which is new in each run.

    If a worker dies, Ray repeats its batches on another worker. The file of a batch has a fixed name and is written
    atomically, so no rows are lost or duplicated.
    """

    def check(self) -> None:
        if find_spec("ray") is None:
            raise ValueError("engine 'ray' requires Ray; run pip install 'captum-moxi[ray]'")

    def model_device(self, resources: Resources) -> str:
        # The machine that starts the run may not have the devices of the workers.
        return "cpu"

    def run(
        self, evaluator: "Evaluator", folder: Path, batches: Sequence[Sequence[int]], *, resources: Resources
    ) -> Iterator[int]:
        self.check()
        import ray

        from captum_moxi.evaluation.engines.ray_job import RayJob

        job = RayJob(
            settings=evaluator.settings,
            limit=evaluator.limit,
            names=evaluator.images.names,
            batches=batches,
            folder=str(folder.resolve()),
            resources=resources,
            kernels=kernel_set(),
        )
        # "local" is Ray's own name for a new cluster on this machine. An empty variable counts as unset.
        has_cluster = ray.is_initialized() or (os.environ.get("RAY_ADDRESS") or "local") != "local"
        yield from job.run_in_cluster() if has_cluster else run_in_private_session(job.to_json())
