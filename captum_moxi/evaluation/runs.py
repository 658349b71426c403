"""Runs over many images: every method on every image, and a row of each."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from captum_moxi import models
from captum_moxi.evaluation import store
from captum_moxi.game import CoalitionGame
from captum_moxi.images import ImageSet, read_images
from captum_moxi.methods import get_methods, of_images
from captum_moxi.metrics import order_players
from captum_moxi.removal import Removal, default_removal, get_removal, grid_mask
from captum_moxi.rewards import get_reward, predicted
from captum_moxi.screens import get_screen
from captum_moxi.search import Mode, Selection, follow


@dataclass(frozen=True)
class Settings:
    """What decides a run's rows. Every one is written to its manifest, and a run goes on with the same ones alone.

    Args:
        model (str): Hub name or folder.
        data (str): Folder of images, or name of a data set.
        split (str or None): Which split of it.
        label_pattern (str or None): Where a name holds the class; see :func:`captum_moxi.images.read_images`.
        label_map (Mapping[str, str] or None): The model's class for labels of the data; likewise.
        keep (str): ``"right"``, images that the model gets right, or ``"all"``. What is explained is the class that it
            predicts.
        methods (Sequence[str]): Names of ``captum_moxi.methods.METHODS``.
        modes (Sequence[str]): ``"insertion"``, ``"deletion"`` or both.
        n_steps (int or None): At most so many players of each image; None: all.
        stop (str or None): ``"flip"``: none after the one that flips the prediction.
        grid (int or None): N x N players; None: the model's own patches.
        removal (str or None): One of ``captum_moxi.removal.REMOVALS``; None: what fits the model.
        reward (str): One of ``captum_moxi.rewards.REWARDS``.
        candidates (str): Which players a step of MoXI's deletion tries, of ``captum_moxi.screens.CANDIDATES``.
    """

    model: str
    data: str
    split: str | None = None
    label_pattern: str | None = None
    label_map: Mapping[str, str] | None = None
    keep: str = "right"
    methods: Sequence[str] = ("moxi",)
    modes: Sequence[Mode] = ("insertion", "deletion")
    n_steps: int | None = None
    stop: str | None = "flip"
    grid: int | None = None
    removal: str | None = None
    reward: str = "log_odds"
    candidates: str = "gradient:8"


class Evaluator:
    """A model and images, and what runs on them: made once in every process that takes part.

    Args:
        settings (Settings): What to run.
        device (str, optional): Where. Default: CUDA if there, else the CPU
        limit (int, optional): At most this many images, the first. Default: all

    Raises:
        ValueError: settings that do not fit the model or the images.
    """

    def __init__(self, settings: Settings, device: str | None = None, limit: int | None = None) -> None:
        self.settings = settings
        self.limit = limit
        self.screen = get_screen(settings.candidates)
        # names are checked before anything is loaded
        get_methods(settings.methods, self.screen)
        get_reward(settings.reward)
        self.removal: Removal | None = None if settings.removal is None else get_removal(settings.removal)
        self.classifier = models.load(settings.model, device)
        self.images: ImageSet = read_images(
            settings.data, self.classifier, settings.split, settings.label_pattern, limit, settings.label_map
        )

    @cached_property
    def versions(self) -> str:
        return json.dumps(store.versions())

    def _check_labels(self) -> None:
        data, labels, given = self.settings.data, self.images.labels, self.images.given
        if labels is None or given is None:
            raise ValueError(
                f"data {data!r} has no labels to tell what the model gets right; pass keep='all', a label_pattern, or "
                "a folder of folders named by classes"
            )
        if None in labels:
            lost, known, of = labels.index(None), self.classifier.labels, self.settings.label_map
            name, label = self.images.names[lost], given[lost]
            none = f"none of the model's {len(known)} classes, such as {known[0]!r}, or several of them"
            if label is None:
                said = f"data {data!r} has no label for {name!r}; pass another split"
            elif of is not None:
                said = f"label_map gives {of[label]!r} for {label!r}, which is {none}; map it to a class or its index"
            else:
                said = f"data {data!r} has the label {label!r} for {name!r}, which is {none}; pass a label_map"
            raise ValueError(f"{said}, or pass keep='all' or another label_pattern")

    def check(self) -> None:
        """Raise a ValueError where labels are missing or a method does not fit the model, before a run begins."""
        if self.settings.keep == "right":
            self._check_labels()
        size = (64, 64)
        x = self.classifier.preprocess(Image.new("RGB", size))
        game = game_of(self, x, torch.zeros(1, dtype=torch.long))
        for method in get_methods(self.settings.methods, self.screen):
            method.check(game)

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of these images: one a method and mode, or one that says why there is none."""
        found: list[dict[str, Any]] = []
        opened: dict[int, Image.Image] = {}
        for index in indices:
            try:
                opened[index] = self.images.open(index)
            except ValueError as error:
                found.append(self.row(index, store.UNREADABLE, error=str(error)))
        try:
            return found + self._explained(list(opened), list(opened.values()))
        except (ValueError, RuntimeError) as error:
            failure = error
        if len(opened) == 1:
            return [*found, self.row(next(iter(opened)), store.FAILED, error=" ".join(str(failure).split()))]
        # whichever of them it was, the others are done; where it was all, it was not the images
        apart = [row for index in opened for row in self.rows([index])]
        if all(row["status"] == store.FAILED for row in apart):
            raise RuntimeError(f"no image of a batch could be explained: {failure}") from failure
        return found + apart

    def row(self, index: int, status: str, **more: Any) -> dict[str, Any]:
        """What every row of an image tells of it."""
        label = None if self.images.labels is None else self.images.labels[index]
        name = self.images.names[index]
        return {"image": name, "label": label, "status": status, "versions": self.versions} | more

    def _explained(self, indices: list[int], images: list[Image.Image]) -> list[dict[str, Any]]:
        if not indices:
            return []
        x = self.classifier.preprocess(images)
        with torch.no_grad():
            classes = predicted(models.call_model(self.classifier.model, x)).cpu()
        kept: list[int] = []
        found: list[dict[str, Any]] = []
        for place, index in enumerate(indices):
            labels = self.images.labels
            if self.settings.keep == "right" and labels is not None and labels[index] != int(classes[place]):
                found.append(self.row(index, store.WRONG, target=int(classes[place])))
            else:
                kept.append(place)
        if not kept:
            return found
        # of a single logit, which may be negative, the one class is explained
        game = game_of(self, x[kept], classes[kept].clamp(min=0))
        of, targets = [indices[place] for place in kept], classes[kept].clamp(min=0).tolist()
        names = [self.images.names[index] for index in of]
        with models.unchanged(self.classifier.model, {x.device}):
            for title, selection, cost in self._played(game, names):
                found += rows_of(self, of, targets, title, selection, game, **cost)
        return found

    def _played(self, game: CoalitionGame, names: Sequence[str]) -> Iterator[tuple[str, Selection, dict[str, float]]]:
        """The title of each method, its selection in each mode, and what the ordering took an image."""
        of = self.settings
        for method in get_methods(of.methods, self.screen):
            playing = of_images(method, names)
            found: Any = None
            for mode in of.modes:
                if playing.of_mode or found is None:
                    before, start = game.n_rows + 2 * game.n_backward_rows, time.perf_counter()
                    found = playing.play(game, mode, of.n_steps, of.stop)
                    order = found if isinstance(found, Selection) else order_players(game, found)
                    seconds = (time.perf_counter() - start) / game.n_games
                    forwards = (game.n_rows + 2 * game.n_backward_rows - before) / game.n_games
                selection = order if isinstance(order, Selection) else follow(game, mode, order, of.n_steps, of.stop)
                yield method.title, selection, {"seconds": seconds, "forwards": forwards}


def game_of(
    evaluator: Evaluator, x: Tensor, target: Tensor, removal: Removal | None = None, baselines: Tensor | None = None
) -> CoalitionGame:
    """The game of images by a run's settings; players are the run's, also where another removal is given."""
    model, of = evaluator.classifier.model, evaluator.settings
    own = evaluator.removal or default_removal(model, (x,), has_baselines=False)
    mask = grid_mask(model, x, own, of.grid)
    return CoalitionGame(model, x, target, baselines, feature_mask=mask, removal=removal or own, reward=of.reward)


def rows_of(
    evaluator: Evaluator,
    indices: Sequence[int],
    targets: Sequence[int],
    title: str,
    selection: Selection,
    game: CoalitionGame,
    **cost: float,
) -> list[dict[str, Any]]:
    """The rows of a selection: one for each of its images, by their places."""
    players = game.exists.sum(1).tolist()
    return [
        evaluator.row(
            index,
            store.EXPLAINED,
            target=target,
            players=players[example],
            method=title,
            **_told(selection, example),
            **cost,
        )
        for example, (index, target) in enumerate(zip(indices, targets, strict=True))
    ]


def _told(selection: Selection, example: int) -> dict[str, Any]:
    """One example's selection, as a row holds it."""
    steps = int(selection.n_steps[example])
    # an order that was followed has none
    by_step = {name: getattr(selection, name)[example, :steps] for name in ("shapley", "interactions")}
    return {
        "mode": selection.mode,
        "order": selection.order[example, :steps].tolist(),
        **{
            name: getattr(selection, name)[example, : steps + 1].tolist()
            for name in ("rewards", "confidences", "predictions")
        },
        **{name: None if steps and terms.isnan().all() else terms.tolist() for name, terms in by_step.items()},
        "n_steps": steps,
        "flipped": bool(selection.flipped[example]),
    }


def to_do(evaluator: Evaluator, folder: Path, batch_size: int) -> list[list[int]]:
    """The images that a run has yet to do, in batches."""
    done = store.finished(folder)
    left = [index for index, name in enumerate(evaluator.images.names) if name not in done]
    return [left[first : first + batch_size] for first in range(0, len(left), batch_size)]


def open_evaluator(folder: Path, device: str | None = None) -> Evaluator:
    """The evaluator of a run that is there.

    Raises:
        ValueError: no run, or its model or images are no longer where they were.
    """
    settings = store.read_settings(folder)
    return Evaluator(
        Settings(**{field.name: settings[field.name] for field in fields(Settings) if field.name in settings}), device
    )


def place_of(evaluator: Evaluator, image: str) -> int:
    """Where an image of a run is among the images that are there now.

    Raises:
        ValueError: it is no longer there.
    """
    try:
        return list(evaluator.images.names).index(image)
    except ValueError:
        raise ValueError(f"{image!r} is no longer in {evaluator.settings.data!r}; put it back") from None
