"""Benchmark ``throughput``: seconds per image up to the flip and for a full ranking, with images in batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image
from tqdm.auto import tqdm

from captum_moxi.arguments import Mode, Stop
from captum_moxi.benchmarks.bench import Bench, short_name
from captum_moxi.benchmarks.machine import time_call
from captum_moxi.evaluation.records import Record
from captum_moxi.models import ImageClassifier
from captum_moxi.search import greedy
from captum_moxi.search.screens import SCREENS
from captum_moxi.tables import markdown_table

# Number of images in a batch, by type of device.
BATCH_SIZES = {"cuda": 16}
DEFAULT_BATCH_SIZE = 1


@dataclass(frozen=True)
class Job:
    """A search on many images.

    Args:
        title (str): Title in the table.
        mode (str): ``"insertion"`` or ``"deletion"``.
        stop (str or None): ``"flip"`` to stop when the prediction flips. None for a full ranking, which is measured on
            a single batch.
        screen (str, optional): Name in ``captum_moxi.search.screens.SCREENS`` with its argument.
            Default: ``"all"``, the exact search
    """

    title: str
    mode: Mode
    stop: Stop
    screen: str = "all"


JOBS = (
    Job("insertion to the flip", "insertion", "flip"),
    Job("deletion to the flip", "deletion", "flip"),
    Job("deletion to the flip, gradient:8", "deletion", "flip", "gradient:8"),
    Job("full insertion", "insertion", None),
    Job("full deletion", "deletion", None),
)


def measure_throughput(bench: Bench) -> str:
    """Measure all jobs with all models, and return the table."""
    batch = BATCH_SIZES.get(bench.device.type, DEFAULT_BATCH_SIZE)
    table: list[list[object]] = []
    for classifier in bench.classifiers:
        for job in JOBS:
            images = bench.images if job.stop else bench.images[:batch]
            names = [name for name, _ in images]
            record = bench.measure(
                {"benchmark": "throughput", "model": classifier.name, "job": job.title, "images": names},
                partial(_measure, bench, classifier, [image for _, image in images], job=job, batch=batch),
            )
            seconds = record["seconds"] / len(images)
            row = [short_name(classifier.name), job.title, len(images), batch, record["steps"] / len(images)]
            table.append([*row, seconds, 60 / seconds])
    header = ["model", "search", "images", "batch", "steps per image", "seconds per image", "images per minute"]
    return markdown_table(header, table)


def _measure(
    bench: Bench, classifier: ImageClassifier, images: Sequence[Image.Image], *, job: Job, batch: int
) -> Record:
    steps = 0

    def search_all() -> None:
        nonlocal steps
        for first in tqdm(range(0, len(images), batch), desc=job.title, unit="batch", disable=None):
            game = bench.game(classifier, images[first : first + batch])
            selection = greedy(game, job.mode, stop=job.stop, screen=SCREENS.create(job.screen))
            steps += int(selection.n_steps.sum())

    seconds = time_call(search_all, classifier.model.device)
    return {"seconds": seconds, "steps": steps}
