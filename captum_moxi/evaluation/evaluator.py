"""Explains batches of images by every method, and returns the rows of a run."""

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from captum_moxi.arguments import Mode
from captum_moxi.comparison import MethodRun, play_method
from captum_moxi.evaluation import store
from captum_moxi.evaluation.data import ImageSet, read_class_names, read_images
from captum_moxi.evaluation.rows import Row, Status, minimal_row, selection_row
from captum_moxi.evaluation.settings import Settings
from captum_moxi.explanation.images import BLANK_SIZES
from captum_moxi.game import CoalitionGame
from captum_moxi.heads import head_of
from captum_moxi.methods import Method, get_methods
from captum_moxi.models import ImageClassifier, call_model, load, preserved_state
from captum_moxi.removal import REMOVALS, Removal, default_removal
from captum_moxi.rewards import get_reward
from captum_moxi.search import Selection, disjoint_selections, follow
from captum_moxi.search.screens import SCREENS

# Errors of one image or batch, after which the other images are still processed.
IMAGE_ERRORS = (ValueError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class Played:
    """The selections of a batch by one method in one mode, and the mean cost per image of ordering the players.

    Args:
        method (str): Title of the method.
        selection (Selection): The selections of the batch.
        seconds (float or None): Time per image in seconds. None if the order was read from another run.
        rows (float or None): Evaluated rows per image. None if the order was read from another run.
        is_minimal (bool): Whether the method searched minimal groups.
        groups (Sequence[Selection] or None): Disjoint minimal groups. None if they were not searched.
    """

    method: str
    selection: Selection
    seconds: float | None = None
    rows: float | None = None
    is_minimal: bool = False
    groups: Sequence[Selection] | None = None


@dataclass(frozen=True)
class Evaluator:
    """The model, the images and the methods of a run. Every process of a run loads its own evaluator.

    Args:
        settings (Settings): Settings of the run.
        classifier (ImageClassifier): The model.
        images (ImageSet): The images.
        methods (Sequence[Method]): The methods.
        removal (Removal or None): How absent players are removed. None for the removal that fits the model.
        limit (int or None): Maximum number of images. None for all.
        versions (str): Versions of the packages, as a JSON object.
    """

    settings: Settings
    classifier: ImageClassifier
    images: ImageSet
    methods: Sequence[Method]
    removal: Removal | None = None
    limit: int | None = None
    versions: str = field(default_factory=lambda: json.dumps(store.package_versions()))

    @classmethod
    def load(cls, settings: Settings, *, device: str | None = None, limit: int | None = None) -> Self:
        """Load the model and the data of a run.

        Args:
            settings (Settings): Settings of the run.
            device (str, optional): Device of the model.
                Default: None, CUDA if available, otherwise the CPU
            limit (int, optional): Maximum number of images. The first ones are used.
                Default: None, all images

        Returns:
            Evaluator: The evaluator of the run.

        Raises:
            ValueError: If a name in the settings is unknown, or the model or the data cannot be loaded.
        """
        # Loading the model and the data takes long, so unknown names are reported first.
        methods = get_methods(settings.methods, SCREENS.create(settings.screen))
        get_reward(settings.reward)
        removal = None if settings.removal is None else REMOVALS.create(settings.removal)
        classifier = load(settings.model, device, classes=_classes(settings), template=settings.template)
        images = read_images(
            settings.data,
            classes=classifier.labels,
            split=settings.split,
            label_pattern=settings.label_pattern,
            label_map=settings.label_map,
            limit=limit,
        )
        return cls(settings, classifier, images, methods, removal, limit)

    @classmethod
    def of_run(cls, folder: Path, *, device: str | None = None) -> Self:
        """Load the model and the data of an existing run.

        Args:
            folder (Path): Folder of the run.
            device (str, optional): Device of the model.
                Default: None, CUDA if available, otherwise the CPU

        Returns:
            Evaluator: The evaluator of the run.

        Raises:
            ValueError: If the folder holds no run, or its model or data no longer exist.
        """
        return cls.load(store.run_settings(folder), device=device)

    def check(self) -> None:
        """Check the labels and the methods before a run starts.

        Raises:
            ValueError: If labels are missing or match no class, a method does not support the model, or minimal groups
                are requested and no method searches.
        """
        if self.settings.searches_minimal and all(method.minimal_search is None for method in self.methods):
            raise ValueError(
                f"methods is {list(self.settings.methods)}, but none of them searches minimal groups; add "
                "moxi, or pass minimal=False and alternatives=None"
            )
        if self.settings.keep == "right":
            self._check_labels()
        game = self._blank_game()
        for method in self.methods:
            method.check(game)

    def with_supported_methods(self) -> Self:
        """Return the evaluator with those of its methods that support the model.

        Raises:
            ValueError: If the players or the removal do not fit the model.
        """
        game = self._blank_game()
        supported = {
            name: method
            for name, method in zip(self.settings.methods, self.methods, strict=True)
            if _supports(method, game)
        }
        return replace(
            self,
            settings=replace(self.settings, methods=tuple(supported)),
            methods=list(supported.values()),
        )

    def rows(self, indices: Sequence[int]) -> list[Row]:
        """Explain a batch of images.

        If the batch fails, its images are retried one by one, so that one image does not affect the others.

        Args:
            indices (Sequence[int]): Indices of the images.

        Returns:
            list[Row]: For each image, one row per method and mode, or one row with the reason why it was not explained.

        Raises:
            RuntimeError: If the batch has several images and all of them fail. The images are then not the cause.
        """
        images, rows = self._open(indices)
        try:
            return rows + self._explain(images)
        except IMAGE_ERRORS as error:
            if len(images) == 1:
                return rows + [self.failed_row(index, error) for index in images]
            failure = error
        retried = [row for index, image in images.items() for row in self._explain_alone(index, image)]
        if all(row["status"] == "failed" for row in retried):
            raise RuntimeError(f"every image of a batch failed: {_describe_error(failure)}") from failure
        return rows + retried

    def write(self, indices: Sequence[int], folder: Path) -> int:
        """Explain a batch of images, and write its rows to the folder of a run.

        Args:
            indices (Sequence[int]): Indices of the images.
            folder (Path): Folder of the run.

        Returns:
            int: Number of images.

        Raises:
            RuntimeError: As in :meth:`rows`.
            OSError: If the rows cannot be written.
        """
        store.write_part(folder, self.rows(indices))
        return len(indices)

    def true_label(self, index: int) -> str | None:
        """Return the name of the class of an image according to the data.

        Args:
            index (int): Index of the image.

        Returns:
            str or None: The model's name of the class, the label itself if it matches no class, or None if the image
            has no label.
        """
        if self.images.labels is None or self.images.label_names is None:
            return None
        label = self.images.labels[index]
        return self.images.label_names[index] if label is None else self.classifier.labels[label]

    def game(
        self, x: Tensor, *, target: Tensor, removal: Removal | None = None, baselines: Tensor | None = None
    ) -> CoalitionGame:
        """Create the game of images with the players and the reward of the run.

        Args:
            x (Tensor): Pixel values. Shape ``(B, 3, H, W)``.
            target (Tensor): Target class of each image. Shape ``(B,)``, int64.
            removal (Removal, optional): A removal other than the run's. The players do not depend on it.
                Default: None, the removal of the run
            baselines (Tensor, optional): Pixel values that replace absent players. Shape ``(B, 3, H, W)``.
                Default: None

        Returns:
            CoalitionGame: The game of the images.
        """
        model = self.classifier.model
        run_removal = self.removal or default_removal(model, (x,), has_baselines=False)
        return CoalitionGame(
            model,
            x,
            baselines=baselines,
            target=target,
            feature_mask=run_removal.grid_mask(model, x, self.settings.grid),
            removal=removal or run_removal,
            reward=self.settings.reward,
        )

    def played_rows(
        self, played: Played, *, indices: Sequence[int], targets: Sequence[int], game: CoalitionGame
    ) -> list[Row]:
        """Return the rows of a batch, for one method and mode.

        Args:
            played (Played): Selections of the batch.
            indices (Sequence[int]): Index of each image.
            targets (Sequence[int]): Target class of each image.
            game (CoalitionGame): The game of the batch.

        Returns:
            list[Row]: One row for each image.
        """
        rows = []
        for example, (index, target) in enumerate(zip(indices, targets, strict=True)):
            row = self._row(index, "explained")
            row["target"] = target
            row["players"] = int(game.exists[example].sum())
            row["method"] = played.method
            if played.seconds is not None and played.rows is not None:
                row["seconds"], row["rows"] = played.seconds, played.rows
            row = selection_row(row, played.selection, example=example)
            rows.append(
                minimal_row(row, played.selection, played.groups, example=example) if played.is_minimal else row
            )
        return rows

    def _blank_game(self) -> CoalitionGame:
        """Return the game of a blank image. The model does not run."""
        x = self.classifier.preprocess(Image.new("RGB", BLANK_SIZES[0]))
        return self.game(x, target=torch.zeros(1, dtype=torch.long))

    def _check_labels(self) -> None:
        data, images, label_map = self.settings.data, self.images, self.settings.label_map
        if images.labels is None or images.label_names is None:
            raise ValueError(
                f"data {data!r} has no labels, so it is unknown which predictions are correct; pass keep='all', a "
                "label_pattern, or folders that are named after classes"
            )
        if None not in images.labels:
            return
        index, classes = images.labels.index(None), self.classifier.labels
        name, label = images.names[index], images.label_names[index]
        no_match = f"which matches none or several of the model's {len(classes)} classes, for example {classes[0]!r}"
        if label is None:
            problem = f"data {data!r} has no label for {name!r}; pass another split"
        elif label_map is not None:
            problem = f"label_map has {label_map[label]!r} for {label!r}, {no_match}; pass the name or index of a class"
        else:
            problem = f"data {data!r} has the label {label!r} for {name!r}, {no_match}; pass a label_map"
        raise ValueError(f"{problem}, keep='all' or another label_pattern")

    def _open(self, indices: Sequence[int]) -> tuple[dict[int, Image.Image], list[Row]]:
        """Return the images by index, and the rows of those that cannot be opened."""
        images: dict[int, Image.Image] = {}
        rows = []
        for index in indices:
            try:
                images[index] = self.images.open(index)
            except ValueError as error:
                rows.append(self._row(index, "unreadable", error=str(error)))
            except MemoryError as error:
                rows.append(self.failed_row(index, error))
        return images, rows

    def _explain(self, images: dict[int, Image.Image]) -> list[Row]:
        if not images:
            return []
        x = self.classifier.preprocess(list(images.values()))
        with torch.no_grad():
            logits = call_model(self.classifier.model, x).cpu()
        predictions = head_of(self.classifier.model).predictions(logits)
        kept, rows = self._keep(list(images), predictions.tolist())
        if not kept:
            return rows
        indices = [list(images)[example] for example in kept]
        # The most likely class is the target even if its sigmoid is so small that it is not predicted.
        targets = logits[kept].argmax(1)
        game = self.game(x[kept], target=targets)
        with preserved_state(self.classifier.model, {x.device}):
            for played in self._play(game, [self.images.names[index] for index in indices]):
                rows += self.played_rows(played, indices=indices, targets=targets.tolist(), game=game)
        return rows

    def _keep(self, indices: list[int], predictions: list[int]) -> tuple[list[int], list[Row]]:
        """Return the examples to explain, and the rows of those that the model misclassifies."""
        labels = self.images.labels
        if self.settings.keep == "all" or labels is None:
            return list(range(len(indices))), []
        kept, wrong = [], []
        for example, (index, prediction) in enumerate(zip(indices, predictions, strict=True)):
            if labels[index] == prediction:
                kept.append(example)
            else:
                row = self._row(index, "wrong")
                row["target"] = prediction
                wrong.append(row)
        return kept, wrong

    def _play(self, game: CoalitionGame, names: Sequence[str]) -> Iterator[Played]:
        """Order the players of the game by every method in every mode."""
        n_steps, stop = self.settings.n_steps, self.settings.stop
        for method in self.methods:
            is_minimal = self.settings.searches_minimal and method.minimal_search is not None
            seeded = method.for_images(names)
            seeded = seeded.with_minimal_groups() if is_minimal else seeded
            run: MethodRun | None = None
            for mode in self.settings.modes:
                if run is None or method.depends_on_mode:
                    run = play_method(game, seeded, mode, n_steps=n_steps, stop=stop)
                selection = run.attributions
                if not isinstance(selection, Selection) or selection.mode != mode:
                    selection = follow(game, mode, run.positions, n_steps=n_steps, stop=stop)
                groups = self._alternatives(game, method, mode, selection)
                yield Played(method.title, selection, run.seconds, run.weighted_rows, is_minimal, groups)

    def _alternatives(
        self, game: CoalitionGame, method: Method, mode: Mode, first: Selection
    ) -> list[Selection] | None:
        """Search disjoint minimal groups after the first one, or return None if they are not requested."""
        search, at_most = method.minimal_search, self.settings.alternatives
        if search is None or at_most is None:
            return None

        def search_among(candidates: Tensor | None) -> Selection:
            return search(game, mode, n_steps=self.settings.n_steps, candidates=candidates)

        return disjoint_selections(search_among, game, at_most=at_most, known=[first])

    def _explain_alone(self, index: int, image: Image.Image) -> list[Row]:
        try:
            return self._explain({index: image})
        except IMAGE_ERRORS as error:
            return [self.failed_row(index, error)]

    def failed_row(self, index: int, error: Exception) -> Row:
        """Return the row of an image with which the model or a method failed.

        Args:
            index (int): Index of the image.
            error (Exception): The error.
        """
        return self._row(index, "failed", error=_describe_error(error))

    def _row(self, index: int, status: Status, *, error: str | None = None) -> Row:
        """Return a row with the columns that every row of an image has."""
        label = None if self.images.labels is None else self.images.labels[index]
        row: Row = {"image": self.images.names[index], "label": label, "status": status, "versions": self.versions}
        if error is not None:
            row["error"] = error
        return row


def _supports(method: Method, game: CoalitionGame) -> bool:
    try:
        method.check(game)
    except ValueError:
        return False
    return True


def _classes(settings: Settings) -> Sequence[str] | None:
    """Return the classes of a zero-shot classifier. With a template, they are by default the labels of the data."""
    if settings.classes is not None or settings.template is None:
        return settings.classes
    if settings.label_map is not None:
        return sorted(set(settings.label_map.values()))
    return read_class_names(settings.data, split=settings.split, label_pattern=settings.label_pattern)


def _describe_error(error: Exception) -> str:
    """Return the message of an error in one line. Python's own memory errors have no message."""
    return " ".join(str(error).split()) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)


def remaining_batches(evaluator: Evaluator, finished: Container[str], *, batch_size: int) -> list[list[int]]:
    """Return the images that a run has not finished, in batches.

    Args:
        evaluator (Evaluator): Evaluator with the images of the run.
        finished (Container[str]): Names of the images that the run has finished.
        batch_size (int): Number of images in a batch.

    Returns:
        list[list[int]]: Indices of the images in each batch.
    """
    remaining = [index for index, name in enumerate(evaluator.images.names) if name not in finished]
    return [remaining[start : start + batch_size] for start in range(0, len(remaining), batch_size)]
