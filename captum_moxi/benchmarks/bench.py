"""The models, images and settings that all benchmarks share."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TypeAlias, TypedDict, TypeVar

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from captum_moxi.benchmarks.machine import describe_machine
from captum_moxi.evaluation.records import Record, Records
from captum_moxi.game import CoalitionGame
from captum_moxi.models import ImageClassifier, call_model
from captum_moxi.players import patch_mask
from captum_moxi.search import greedy

V = TypeVar("V")


class GameArguments(TypedDict):
    """Arguments of :class:`captum_moxi.CoalitionGame` for images and their predicted classes."""

    forward_func: PreTrainedModel
    inputs: Tensor
    target: Tensor
    feature_mask: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Models, images and settings of a benchmark.

    Args:
        classifiers (Sequence[ImageClassifier]): Models, all on one device.
        images (Sequence[tuple[str, Image]]): Names and images.
        grid (int, optional): Number of rows and columns of players.
            Default: None, the model's own patches
        repeats (int, optional): Number of times that the benchmark ``bare`` measures a duration. The table contains the
            median.
            Default: 5
        most_steps (int, optional): Maximum number of steps of a search in the benchmarks ``bare``, ``screens``,
            ``groups`` and ``alternatives``.
            Default: None, no limit
        searches (Sequence[str], optional): Titles of the searches that the benchmarks ``screens`` and ``groups``
            compare.
            Default: ``()``, all
        records (Records, optional): Stored measurements, which are reused and extended.
            Default: an empty record in memory
    """

    classifiers: Sequence[ImageClassifier]
    images: Sequence[tuple[str, Image.Image]]
    grid: int | None = None
    repeats: int = 5
    most_steps: int | None = None
    searches: Sequence[str] = ()
    records: Records = field(default_factory=Records)

    @property
    def device(self) -> torch.device:
        """The device of the models."""
        return self.classifiers[0].model.device

    @property
    def machine(self) -> str:
        """Description of the machine, with the versions of torch and Python."""
        return describe_machine(self.device)

    def selected_searches(self, titles: Collection[str]) -> set[str]:
        """Return the titles of the searches to compare.

        Args:
            titles (Collection[str]): Titles of all searches of the benchmark.

        Raises:
            ValueError: If ``searches`` contains another title.
        """
        unknown = sorted(set(self.searches) - set(titles))
        if unknown:
            raise ValueError(f"search {'; '.join(unknown)} is unknown; pass one of {'; '.join(sorted(titles))}")
        return set(self.searches or titles)

    def measure(self, settings: Record, measurement: Callable[[], Record]) -> Record:
        """Return the recorded measurement with these settings, or measure now and record the result.

        A measurement is reused on the same machine, with the same grid and the same versions of captum-moxi, torch and
        transformers.

        Args:
            settings (dict): Settings of the measurement, in JSON types.
            measurement (Callable): Function without arguments that measures and returns the results, in JSON types.

        Returns:
            dict: Results of the measurement.
        """
        versions = {package: version(package) for package in ("captum-moxi", "transformers")}
        return self.records.get({"machine": self.machine, **versions, "grid": self.grid, **settings}, measurement)

    def each_image(self, title: str) -> Iterator[tuple[ImageClassifier, str, Image.Image]]:
        """Iterate over all pairs of models and images with a progress bar, after a warm-up of each model.

        Args:
            title (str): Title of the progress bar.

        Yields:
            tuple[ImageClassifier, str, Image]: Classifier, name of the image and image.
        """
        for classifier in self.classifiers:
            greedy(self.game(classifier, [image for _, image in self.images[:1]]), "insertion", n_steps=1)
        pairs = [(classifier, *image) for classifier in self.classifiers for image in self.images]
        yield from tqdm(pairs, desc=title, unit="image", disable=None)

    def measure_variants(
        self,
        benchmark: str,
        variants: Sequence[V],
        *,
        settings: Callable[[V], Record],
        measurement: Callable[[ImageClassifier, Image.Image, V], Record],
    ) -> dict[tuple[str, V], list[Record]]:
        """Measure every variant on every pair of models and images, with a progress bar.

        Args:
            benchmark (str): Name of the benchmark.
            variants (Sequence): What the benchmark compares. Hashable.
            settings (Callable): Returns the settings of a variant, in JSON types. They identify a measurement together
                with the benchmark, the model and the image.
            measurement (Callable): Measures a variant with a model and an image, and returns the results, in JSON
                types.

        Returns:
            dict[tuple[str, V], list[dict]]: Results of all images, by the name of the model and the variant. Each
            contains the name of its image.
        """
        records: dict[tuple[str, V], list[Record]] = {}
        for classifier, name, image in self.each_image(benchmark):
            for variant in variants:
                record = self.measure(
                    {"benchmark": benchmark, "model": classifier.name, "image": name, **settings(variant)},
                    partial(measurement, classifier, image, variant),
                )
                records.setdefault((classifier.name, variant), []).append({"image": name, **record})
        return records

    def game_arguments(self, classifier: ImageClassifier, images: Sequence[Image.Image]) -> GameArguments:
        """Preprocess images, predict their classes, and return the arguments of their game.

        Args:
            classifier (ImageClassifier): The model.
            images (Sequence[Image]): Images of the batch.
        """
        x = classifier.preprocess(images)
        with torch.no_grad():
            logits: Tensor = call_model(classifier.model, x)
        height, width = x.shape[2:]
        return {
            "forward_func": classifier.model,
            "inputs": x,
            "target": logits.argmax(1),
            "feature_mask": None if self.grid is None else patch_mask((height, width), grid=self.grid),
        }

    def game(self, classifier: ImageClassifier, images: Sequence[Image.Image]) -> CoalitionGame:
        """Create the game of images, for their predicted classes."""
        return CoalitionGame(**self.game_arguments(classifier, images))


Benchmark: TypeAlias = Callable[[Bench], str]


def short_name(name: str) -> str:
    """Return the last part of a model's path or hub name."""
    return name.rstrip("/").rpartition("/")[2]
