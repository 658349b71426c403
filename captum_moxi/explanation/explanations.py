"""Explains the prediction of one image by groups of patches."""

import json
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_moxi.arguments import MODES, Mode, Stop
from captum_moxi.attr import MoXIDeletion, MoXIInsertion
from captum_moxi.explanation.images import (
    PreparedImage,
    first_synonym,
    package_versions,
    prepare_image,
    with_class_indices,
)
from captum_moxi.game import CoalitionGame
from captum_moxi.models import ImageClassifier
from captum_moxi.page import follow_path, path_page
from captum_moxi.plot import count_patches, draw_from_game, explanation_figure, flip_step, save_figure
from captum_moxi.removal import Removal
from captum_moxi.rewards import Reward
from captum_moxi.search import Selection
from captum_moxi.search.screens import Screen

_SEARCHES = {"insertion": MoXIInsertion, "deletion": MoXIDeletion}


@dataclass(frozen=True)
class ExplainSettings:
    """How to explain an image.

    Args:
        modes (Sequence[str], optional): ``"insertion"``, ``"deletion"`` or both.
            Default: both
        stop (str, optional): ``"flip"`` stops when the prediction flips: the target becomes the predicted class
            (insertion), or stops being it (deletion). None ranks all patches.
            Default: ``"flip"``
        min_confidence (float, optional): Confidence that the target must exceed for insertion to flip, from 0 to 1.
            Default: 0
        n_steps (int, optional): Maximum number of patches to choose.
            Default: None, all patches
        grid (int, optional): Number of rows and columns of patches: ``N`` divides the image into N x N players.
            Default: None, the model's own patches, or 6 x 6 patches if it has none
        removal (Removal, optional): How absent patches are removed.
            Default: None, token removal if the model has patch tokens and baseline fill with 0 otherwise
        reward (str or Callable, optional): Name in ``captum_moxi.rewards.REWARDS``, or a function
            ``(logits, target) -> rewards``. In ``"contrast:CLASS"``, the class is an index or a name.
            Default: ``"log_odds"``
        interactions (bool, optional): Whether each step counts the interaction with the patches chosen before. False
            ranks the patches independently, which the paper calls MoXI(-).
            Default: True
        screen (Screen, optional): Decides which patches each step evaluates.
            Default: None, all patches (the exact search)
        beam_width (int, optional): Number of groups of patches that the search keeps after each step.
            Default: 1
    """

    modes: tuple[Mode, ...] = MODES
    stop: Stop = "flip"
    min_confidence: float = 0.0
    n_steps: int | None = None
    grid: int | None = None
    removal: Removal | None = None
    reward: str | Reward = "log_odds"
    interactions: bool = True
    screen: Screen | None = None
    beam_width: int = 1

    def check(self, classifier: ImageClassifier) -> None:
        """Check that the reward exists, and that the classifier has its class.

        Args:
            classifier (ImageClassifier): Classifier to explain.

        Raises:
            ValueError: If the reward is unknown, or if the classifier does not have the class.
        """
        if isinstance(self.reward, str):
            with_class_indices(self.reward, classifier)

    def to_dict(self) -> dict[str, object]:
        """Return all settings except the modes as JSON types. Screens and removals become text."""
        return {
            "stop": self.stop or "never",
            "min_confidence": self.min_confidence,
            "n_steps": self.n_steps,
            "grid": self.grid,
            "removal": repr(self.removal),
            "reward": self.reward
            if isinstance(self.reward, str)
            else getattr(self.reward, "__name__", repr(self.reward)),
            "interactions": self.interactions,
            "screen": repr(self.screen) if self.screen else "all",
            "beam_width": self.beam_width,
        }


class SearchResult(NamedTuple):
    """Result of one search.

    Args:
        attribution (Tensor): Heat map, in which the first patch has the score 1 and patches that were not chosen 0.
            Shape ``(H, W)``, float32, on the CPU.
        selection (Selection): Selection of one example.
    """

    attribution: Tensor
    selection: Selection


class Prediction(NamedTuple):
    """The most likely class and its probability.

    Args:
        label (str): Name of the class. For a model with a single logit that is not positive, ``"not"`` and the name.
        confidence (float): Probability of the class, from 0 to 1.
    """

    label: str
    confidence: float

    def __str__(self) -> str:
        return f"{first_synonym(self.label)} {self.confidence:.2f}"


class Change(NamedTuple):
    """How one search changes the prediction.

    Args:
        n_steps (int): Number of patches up to the flip, or of all steps if the prediction does not flip.
        flipped (bool): Whether the prediction flips.
        before (Prediction): Prediction before the first step: without any patch (insertion), or with all (deletion).
        after (Prediction): Prediction after ``n_steps``.
    """

    n_steps: int
    flipped: bool
    before: Prediction
    after: Prediction

    def to_dict(self) -> dict[str, object]:
        """Return the change as JSON types."""
        return self._asdict() | {"before": self.before._asdict(), "after": self.after._asdict()}


@dataclass(frozen=True, eq=False)
class Explanation:
    """The groups of patches that explain the prediction of one image, as returned by :func:`explain`.

    Args:
        image (PreparedImage): The image.
        target (int): Index of the target class.
        settings (ExplainSettings): How the image was explained.
        results (dict[str, SearchResult]): Result of the search in each mode.
        true_label (str, optional): Name of the class of the image according to the data.
            Default: None, unknown
    """

    image: PreparedImage
    target: int
    settings: ExplainSettings
    results: dict[Mode, SearchResult]
    true_label: str | None = None

    @property
    def selections(self) -> dict[Mode, Selection]:
        """Selection in each mode."""
        return {mode: result.selection for mode, result in self.results.items()}

    @property
    def label(self) -> str:
        """Name of the target class."""
        return self.image.classifier.labels[self.target]

    @cached_property
    def _game(self) -> CoalitionGame:
        """Game of the image and the target. Creating it costs a forward pass, so it is created once."""
        return self.image.game(self.target)

    @cached_property
    def changes(self) -> dict[Mode, Change]:
        """How the search in each mode changes the prediction. The model evaluates two coalitions for each mode."""
        game = self._game
        changes: dict[Mode, Change] = {}
        for mode, selection in self.selections.items():
            flip = flip_step(selection, self.target, min_confidence=self.settings.min_confidence)
            n_steps = int(selection.n_steps[0]) if flip is None else flip
            chosen = torch.isin(game.ids, selection.order[0, :n_steps])
            coalitions = torch.stack([torch.zeros_like(chosen), chosen])
            before, after = game.class_probabilities(coalitions if mode == "insertion" else ~coalitions)
            changes[mode] = Change(n_steps, flip is not None, self._predict(before), self._predict(after))
        return changes

    def _predict(self, probabilities: Tensor) -> Prediction:
        """Return the most likely class, given the probabilities ``(classes,)``."""
        if len(probabilities) == 1:
            confidence = float(probabilities)
            if confidence <= 0.5:
                return Prediction(f"not {self.label}", 1 - confidence)
            return Prediction(self.label, confidence)
        index = int(probabilities.argmax())
        return Prediction(self.image.classifier.labels[index], float(probabilities[index]))

    def to_dict(self) -> dict[str, object]:
        """Return everything except the image and the heat maps as JSON types.

        ``Selection.from_dict`` restores the selections.
        """
        image = self.image
        settings = self.settings.to_dict() | {"removal": repr(image.removal), "device": str(image.pixel_values.device)}
        return {
            "image": image.name,
            "model": image.classifier.name,
            "target": {"index": self.target, "label": self.label, "confidence": image.confidence(self.target)},
            "predicted": image.predicted_dict(),
            "true_label": self.true_label,
            "settings": settings,
            "patches": image.patches_dict(),
            "changes": {mode: change.to_dict() for mode, change in self.changes.items()},
            **{mode: selection.to_dict() for mode, selection in self.selections.items()},
            "versions": package_versions(),
        }

    def figure(self) -> Figure:
        """Draw the image, and for each mode the chosen patches, what the model sees, and the path of the search."""
        image, search = self.image, self._search_options()
        target = Prediction(self.label, image.confidence(self.target))
        truth = "" if self.true_label is None else f"\ntrue label: {first_synonym(self.true_label)}"
        figure, _ = explanation_figure(
            image.picture,
            image.mask,
            list(self.selections.values()),
            target=self.target,
            title=f"{image.title}: which patches decide for {first_synonym(self.label)}?"
            + (f"\nfound with {search}" if search else ""),
            image_title=f"whole image: {target}{truth}",
            outcomes=[
                str(change.after) if mode == "insertion" else f"{change.before} → {change.after}"
                for mode, change in self.changes.items()
            ],
            min_confidence=self.settings.min_confidence,
            draw=draw_from_game(self._game, image.classifier.to_images),
            note=image.removal.picture_note,
        )
        return figure

    def page(self) -> str:
        """Render an HTML page with a slider along the path of each mode.

        Returns:
            str: The HTML source.

        Raises:
            ImportError: If Bokeh is not installed.
        """
        image = self.image
        paths = [
            follow_path(
                self._game,
                selection.order[0].tolist(),
                mode,
                to_images=image.classifier.to_images,
                min_confidence=self.settings.min_confidence,
            )
            for mode, selection in self.selections.items()
        ]
        return path_page(paths, labels=image.classifier.labels, title=f"{image.title}: {self._prediction()}")

    def summary(self) -> str:
        """Return one line with the target class, and with the patches that flip the prediction and what it becomes."""
        outcomes = "; ".join(_outcome(mode, change) for mode, change in self.changes.items())
        if "deletion" in self.selections and not int(self.selections["deletion"].n_steps[0]):
            outcomes = f"{self._why_nothing_to_delete()}; {outcomes}"
        search = self._search_options()
        return f"{self._prediction()}; {outcomes}" + (f" (with {search})" if search else "")

    def save(self, folder: Path, *, stem: str | None = None, html: bool = False) -> Path:
        """Save a figure, a JSON file and, if requested, an HTML page.

        Args:
            folder (Path): Folder to write to. It is created if it does not exist.
            stem (str, optional): File name without suffix.
                Default: None, the stem of the image's name
            html (bool, optional): Whether to save a page as well. Requires Bokeh.
                Default: False

        Returns:
            Path: File of the figure.

        Raises:
            ImportError: If ``html`` is True and Bokeh is not installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stem or Path(self.image.name).stem}.png"
        save_figure(self.figure(), path)
        if html:
            path.with_suffix(".html").write_text(self.page(), encoding="utf-8")
        path.with_suffix(".json").write_text(json.dumps(self.to_dict(), indent=1) + "\n")
        return path

    def _prediction(self) -> str:
        """Return the target class, its confidence, the true label if known, and the predicted class if it differs."""
        truth = "" if self.true_label is None else f", true label: {first_synonym(self.true_label)}"
        prediction = f"{self.label} (confidence {self.image.confidence(self.target):.2f}{truth})"
        predicted = self.image.predicted
        if predicted in (-1, self.target):
            return prediction
        return f"{prediction}, though {self.image.classifier.labels[predicted]} is predicted"

    def _search_options(self) -> str:
        """Return the screen and the beam, or an empty string for the exact greedy search."""
        screen, beam_width = self.settings.screen, self.settings.beam_width
        return ", ".join(
            ([repr(screen)] if screen else []) + ([f"beam of {beam_width}"] if beam_width > 1 else []),
        )

    def _why_nothing_to_delete(self) -> str:
        if self.image.predicted < 0:
            return "the logit is below 0, so there is nothing to delete"
        return f"captum-moxi localize shows where {self.label} is"


def explain(
    classifier: ImageClassifier,
    image: Image.Image,
    *,
    name: str = "image",
    target: str | int | None = None,
    true_label: str | int | None = None,
    settings: ExplainSettings | None = None,
    show_progress: bool = False,
) -> Explanation:
    """Find the patches that together make the classifier confident, or without which its prediction fails.

    Args:
        classifier (ImageClassifier): Classifier, as returned by :func:`captum_moxi.models.load`.
        image (Image): Image to explain.
        name (str, optional): Name of the image in figures, JSON and file names, for example its path.
            Default: ``"image"``
        target (str or int, optional): Target class: an index, a name, or an unambiguous part of a name.
            Default: None, the predicted class
        true_label (str or int, optional): Class of the image according to the data, which figures, text and pages then
            show: the index of a class, or any name.
            Default: None, unknown
        settings (ExplainSettings, optional): How to explain the image.
            Default: None, both modes up to the flip, with the exact search
        show_progress (bool, optional): Whether to show a progress bar for each search.
            Default: False

    Returns:
        Explanation: Selections and heat maps.

    Raises:
        ValueError: If the model does not have the class, or if the settings do not fit the model.

    Examples::

        >>> from captum_moxi.explanation import ExplainSettings, explain
        >>> from captum_moxi.images import open_image
        >>> from captum_moxi.models import load
        >>> classifier = load("google/vit-base-patch16-224")
        >>> settings = ExplainSettings(modes=("insertion",), min_confidence=0.5)
        >>> explanation = explain(classifier, open_image("cat.jpg"), name="cat.jpg", settings=settings)
        >>> explanation.summary()
        'tabby, tabby cat (confidence 0.83); insertion flips with 7 patches: toilet tissue 0.02 -> tabby 0.53'
        >>> explanation.selections["insertion"].order[0]  # ids of the patches
        >>> explanation.save(Path("explained"))  # cat.png and cat.json
    """
    if true_label is not None and not isinstance(true_label, str):
        true_label = classifier.labels[classifier.class_index(int(true_label))]
    settings = settings or ExplainSettings()
    prepared = prepare_image(classifier, image, name=name, removal=settings.removal, grid=settings.grid)
    index = prepared.target(target)
    results = {
        mode: _search(prepared, mode, target=index, settings=settings, show_progress=show_progress)
        for mode in settings.modes
    }
    return Explanation(
        image=prepared,
        target=index,
        settings=settings,
        results=results,
        true_label=true_label,
    )


def _search(
    image: PreparedImage, mode: Mode, *, target: int, settings: ExplainSettings, show_progress: bool
) -> SearchResult:
    reward = settings.reward
    method = _SEARCHES[mode](
        image.classifier.model,
        reward=with_class_indices(reward, image.classifier) if isinstance(reward, str) else reward,
        removal=image.removal,
        interactions=settings.interactions,
        screen=settings.screen,
        beam_width=settings.beam_width,
    )
    with warnings.catch_warnings():
        # The summary already says that another class is predicted.
        warnings.filterwarnings("ignore", message="the target is not the predicted class")
        attribution, selection = method.attribute(
            image.pixel_values,
            target=target,
            feature_mask=image.feature_mask,
            n_steps=settings.n_steps,
            stop=settings.stop,
            min_confidence=settings.min_confidence,
            show_progress=show_progress,
            return_selection=True,
        )
    return SearchResult(attribution[0, 0].float().cpu(), selection)


def _outcome(mode: Mode, change: Change) -> str:
    if mode == "deletion" and change.flipped and not change.n_steps:
        return "deletion has nothing to delete"
    verb = "flips" if change.flipped else "does not flip"
    patches = f"{'with' if mode == 'insertion' else 'without'} {count_patches(change.n_steps)}"
    return f"{mode} {verb} {patches}: {change.before} -> {change.after}"
