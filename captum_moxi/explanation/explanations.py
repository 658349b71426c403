"""Explains the prediction of one image by groups of patches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_moxi.arguments import (
    MODES,
    SearchMode,
    Stop,
    check_min_confidence,
    check_positive_int,
    parse_search_modes,
    paths_of,
)
from captum_moxi.attr import MoXIDeletion, MoXIInsertion, MoXISymmetric
from captum_moxi.attr.moxi import MoXIAttribution
from captum_moxi.explanation.images import (
    PreparedImage,
    check_players,
    class_name,
    prepare_image,
    with_class_indices,
    with_confidence,
)
from captum_moxi.explanation.results import TargetResult
from captum_moxi.explanation.saving import save_result
from captum_moxi.models import ImageClassifier
from captum_moxi.page import follow_path, path_page
from captum_moxi.plot import (
    alternatives_figure,
    count_patches,
    explanation_figure,
    flip_step,
    minimal_label,
    save_figure,
)
from captum_moxi.removal import Removal
from captum_moxi.rewards import Reward
from captum_moxi.search import Selection, follow
from captum_moxi.search.screens import AnyScreen, get_screen, screen_for_mode

# Endings of the file names of the figures: of the explanation, and of the alternative groups.
EXPLANATION_FIGURES = (".png", "-alternatives.png")

_SEARCHES: dict[SearchMode, type[MoXIAttribution]] = {
    "insertion": MoXIInsertion,
    "deletion": MoXIDeletion,
    "symmetric": MoXISymmetric,
}
# The default rewards of these classes.
_REWARDS: dict[SearchMode, str] = {"insertion": "log_odds", "deletion": "log_odds", "symmetric": "probability"}


@dataclass(frozen=True)
class ExplainSettings:
    """How to explain an image.

    Args:
        modes (str or Sequence[str], optional): ``"insertion"``, ``"deletion"`` or both, or ``"symmetric"`` alone: one
            group that answers both questions.
            Default: both
        stop (str, optional): ``"flip"`` stops when the prediction flips: the target becomes the predicted class
            (insertion), or stops being it (deletion), or both (symmetric). None ranks all patches.
            Default: ``"flip"``
        min_confidence (float, optional): Confidence that the target must exceed for insertion and symmetric search to
            flip, from 0 to 1.
            Default: 0
        n_steps (int, optional): Maximum number of patches to choose.
            Default: None, all patches
        grid (int, optional): Number of rows and columns of patches: ``N`` divides the image into N x N players.
            Default: None, the model's own patches, or 6 x 6 patches if it has none
        removal (Removal or str, optional): How absent patches are removed: a removal, or its name in
            ``captum_moxi.removal.REMOVALS``.
            Default: None, token removal if the model has patch tokens and baseline fill with 0 otherwise
        reward (str or Callable, optional): Name in ``captum_moxi.rewards.REWARDS``, or a function
            ``(logits, target) -> rewards``. In ``"contrast:CLASS"``, the class is an index or a name.
            Default: None, ``"log_odds"``, or ``"probability"`` if the search is symmetric
        interactions (bool, optional): Whether each step counts the interaction with the patches chosen before. False
            ranks the patches independently, which the paper calls MoXI(-).
            Default: True
        screen (Screen or str, optional): Decides which patches each step evaluates: a screen, or its name in
            ``captum_moxi.search.screens.SCREENS``. ``GradientScreen`` is used only for deletion, the others for all
            modes.
            Default: None, all patches (the exact search)
        beam_width (int, optional): Number of groups of patches that the search keeps after each step.
            Default: 1
        minimal (bool, optional): Whether to leave out, after the flip, the patches that it does not need.
            Default: False
        alternatives (int, optional): Maximum number of disjoint groups to search, each of which is minimal and flips
            the prediction by itself. The first of them is then the result of the search, as with ``minimal``.
            Default: None, no alternative groups
    """

    modes: SearchMode | Sequence[SearchMode] = MODES
    stop: Stop = "flip"
    min_confidence: float = 0.0
    n_steps: int | None = None
    grid: int | None = None
    removal: Removal | str | None = None
    reward: str | Reward | None = None
    interactions: bool = True
    screen: AnyScreen | str | None = None
    beam_width: int = 1
    minimal: bool = False
    alternatives: int | None = None

    @property
    def searches_minimal(self) -> bool:
        """Whether the groups are minimal."""
        return self.minimal or self.alternatives is not None

    def check(self, classifier: ImageClassifier) -> None:
        """Check all settings, without a forward pass.

        Args:
            classifier (ImageClassifier): Classifier to explain.

        Raises:
            ValueError: If a setting is unknown or out of range, if the classifier does not have the class of the
                reward, if the grid or the removal does not fit the classifier, if the screen is not meant for any of
                the modes, if a screen or a beam is combined with ``interactions=False``, or if ``minimal`` or
                ``alternatives`` is combined with ``stop=None``.
            TypeError: If a setting has the wrong type.
        """
        modes, screen = parse_search_modes(self.modes), get_screen(self.screen)
        for name, value in (("n_steps", self.n_steps), ("grid", self.grid), ("alternatives", self.alternatives)):
            if value is not None:
                check_positive_int(name, value)
        if self.stop not in (None, "flip"):
            raise ValueError(f"stop is {self.stop!r}; pass 'flip' or None")
        if self.searches_minimal and self.stop != "flip":
            name = "minimal" if self.minimal else "alternatives"
            raise ValueError(f"{name} is {getattr(self, name)!r}, but stop is None; pass stop='flip'")
        check_min_confidence(self.min_confidence)
        if screen is not None and not any(screen_for_mode(screen, mode) for mode in modes):
            meant_for = " and ".join(screen.used_in) or "no mode, because its stages share none"
            other_mode = f", or modes='{screen.used_in[0]}'" if screen.used_in else ""
            suitable = "'both-ends', 'last-gains:16'" if "symmetric" in modes else "'last-gains:16'"
            raise ValueError(
                f"screen is {screen!r}, which is meant for {meant_for}, but modes is {' and '.join(modes)}; pass "
                f"another screen, such as {suitable} or 'all'{other_mode}"
            )
        for mode in modes:
            self.method(mode, classifier)
        check_players(classifier, removal=self.removal, grid=self.grid)

    def method(self, mode: SearchMode, classifier: ImageClassifier) -> MoXIAttribution:
        """Return the attribution object that searches in a mode.

        Args:
            mode (str): ``"insertion"``, ``"deletion"`` or ``"symmetric"``.
            classifier (ImageClassifier): Classifier to explain.

        Raises:
            ValueError, TypeError: If a setting of the object is not valid.
        """
        reward = _REWARDS[mode] if self.reward is None else self.reward
        return _SEARCHES[mode](
            classifier.model,
            reward=with_class_indices(reward, classifier) if isinstance(reward, str) else reward,
            removal=self.removal,
            interactions=self.interactions,
            screen=screen_for_mode(get_screen(self.screen), mode),
            beam_width=self.beam_width,
        )

    def describe_search(self, modes: Sequence[SearchMode] | None = None) -> str:
        """Return the screen and the beam in words, or an empty string for the exact greedy search.

        Args:
            modes (Sequence[str], optional): Modes in which a search ran.
                Default: None, the modes of the settings
        """
        screen, modes = get_screen(self.screen), parse_search_modes(self.modes) if modes is None else modes
        if not modes:
            return ""
        screened = [mode for mode in modes if screen_for_mode(screen, mode)]
        parts = [repr(screen) if len(screened) == len(modes) else f"{screen!r} for {screened[0]}"] if screened else []
        return ", ".join(parts + ([f"beam of {self.beam_width}"] if self.beam_width > 1 else []))

    def to_dict(self) -> dict[str, object]:
        """Return all settings except the modes as JSON types. Screens and removals become text."""
        screen = get_screen(self.screen)
        # The modes of one explanation share their default reward.
        reward = _REWARDS[parse_search_modes(self.modes)[0]] if self.reward is None else self.reward
        return {
            "stop": self.stop or "never",
            "min_confidence": self.min_confidence,
            "n_steps": self.n_steps,
            "grid": self.grid,
            "removal": repr(self.removal),
            "reward": reward if isinstance(reward, str) else getattr(reward, "__name__", repr(reward)),
            "interactions": self.interactions,
            "screen": "all" if screen is None else repr(screen),
            "beam_width": self.beam_width,
            "minimal": self.searches_minimal,
            "alternatives": self.alternatives,
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
        return with_confidence(self.label, self.confidence)


class Change(NamedTuple):
    """How one search changes the prediction.

    Args:
        n_steps (int): Number of patches up to the flip, or of all steps if the prediction does not flip.
        flipped (bool): Whether the prediction flips. If it is flipped before the first step, ``n_steps`` is 0.
        before (Prediction): Prediction before the first step: without any patch, or with all in deletion.
        after (Prediction): Prediction after ``n_steps``.
        before_without (Prediction or None): In symmetric search, the prediction with all patches.
        after_without (Prediction or None): In symmetric search, the prediction without the ``n_steps`` patches.
    """

    n_steps: int
    flipped: bool
    before: Prediction
    after: Prediction
    before_without: Prediction | None = None
    after_without: Prediction | None = None

    @property
    def flipped_before_first_step(self) -> bool:
        """Whether the prediction is flipped without any change.

        In insertion, the model predicts the target without any patch. In deletion, it does not predict the target even
        with all patches. In symmetric search, both.
        """
        return self.flipped and not self.n_steps

    def to_dict(self) -> dict[str, object]:
        """Return the change as JSON types."""
        values = {
            name: value._asdict() if isinstance(value, Prediction) else value for name, value in self._asdict().items()
        }
        return values | {"flipped_before_first_step": self.flipped_before_first_step}


@dataclass(frozen=True, eq=False)
class Explanation(TargetResult):
    """The groups of patches that explain the prediction of one image, as returned by :func:`explain`.

    Args:
        image (PreparedImage): The image.
        target (int): Index of the target class.
        settings (ExplainSettings): How the image was explained.
        results (dict[str, SearchResult]): Result of the search in each mode.
        alternatives (dict[str, list[Selection]]): The disjoint groups of each mode. Empty if they were not requested.
    """

    settings: ExplainSettings
    results: dict[SearchMode, SearchResult]
    alternatives: dict[SearchMode, list[Selection]]

    @property
    def selections(self) -> dict[SearchMode, Selection]:
        """Selection in each mode."""
        return {mode: result.selection for mode, result in self.results.items()}

    @cached_property
    def changes(self) -> dict[SearchMode, Change]:
        """How the search in each mode changes the prediction. The model evaluates two coalitions for each path."""
        return {mode: self._change(mode, selection) for mode, selection in self.selections.items()}

    def _change(self, mode: SearchMode, selection: Selection) -> Change:
        """Return how a selection changes the prediction. The model evaluates two coalitions for each path."""
        game = self._game
        flip = flip_step(selection, self.target, min_confidence=self.settings.min_confidence)
        n_steps = int(selection.n_steps[0]) if flip is None else flip
        chosen = torch.isin(game.ids, selection.order[0, :n_steps])
        groups = torch.stack([torch.zeros_like(chosen), chosen])
        coalitions = torch.cat([groups if path == "insertion" else ~groups for path in paths_of(mode)])
        return Change(n_steps, flip is not None, *map(self._predict, game.class_probabilities(coalitions)))

    def _predict(self, probabilities: Tensor) -> Prediction:
        """Return the predicted class, given the probabilities ``(classes,)``."""
        target = torch.tensor([self.target])
        index = int(self.image.head.predictions(probabilities[None], target, threshold=0.5))
        if index < 0:
            return Prediction(f"not {self.label}", 1 - float(probabilities[self.target]))
        return Prediction(self.image.classifier.labels[index], float(probabilities[index]))

    def to_dict(self) -> dict[str, object]:
        """Return everything except the image and the heat maps as JSON types.

        ``Selection.from_dict`` restores the selections.
        """
        contents: dict[str, object] = {
            "changes": {
                mode: change.to_dict() | {"outcome": self._outcome(mode, change)}
                for mode, change in self.changes.items()
            },
            **{mode: selection.to_dict() for mode, selection in self.selections.items()},
            "alternatives": {mode: [group.to_dict() for group in groups] for mode, groups in self.alternatives.items()},
        }
        return self.image.result_dict(self.settings.to_dict(), contents, target=self.target)

    def figure(self) -> Figure:
        """Draw the image, and for each mode the chosen patches, what the model sees, and the path of the search."""
        image, search, name = self.image, self._describe_search(), class_name(self.label)
        figure, _ = explanation_figure(
            image.picture,
            image.mask,
            list(self.selections.values()),
            target=self.target,
            title=f"{image.title}: which patches decide for {name}?" + (f"\nfound with {search}" if search else ""),
            image_title="\n".join(filter(None, (self._whole_image(), image.truth))),
            target_name=name,
            outcomes=[self._figure_outcome(mode, change) for mode, change in self.changes.items()],
            min_confidence=self.settings.min_confidence,
            draw=self.draw,
            note=image.removal.picture_note,
        )
        return figure

    def alternatives_figure(self) -> Figure:
        """Draw one panel for each of the disjoint groups."""
        image, name = self.image, class_name(self.label)
        figure, _ = alternatives_figure(
            image.picture,
            image.mask,
            self.alternatives,
            outcomes={
                mode: [self._group_outcome(self._change(mode, group)) for group in groups]
                for mode, groups in self.alternatives.items()
            },
            reasons={
                mode: self._why_no_steps(mode, change)
                for mode, change in self.changes.items()
                if not int(self.selections[mode].n_steps[0])
            },
            title=f"{image.title}: which groups of patches decide for {name}, each by itself?",
            image_title="\n".join(filter(None, (self._whole_image(), image.truth))),
        )
        return figure

    def page(self) -> str:
        """Render an HTML page with a slider along the path of each mode, or both paths of a symmetric search.

        Returns:
            str: The HTML source.

        Raises:
            ImportError: If Bokeh is not installed.
        """
        image = self.image
        paths = [
            replace(
                follow_path(
                    self._game,
                    selection.order[0].tolist(),
                    path,
                    to_images=image.classifier.to_images,
                    min_confidence=self.settings.min_confidence,
                    left_out=selection.left_out[0].tolist(),
                ),
                # Both paths of a symmetric search flip at the step at which the search does.
                flip=flip_step(selection, self.target, min_confidence=self.settings.min_confidence),
            )
            for mode, selection in self.selections.items()
            for path in paths_of(mode)
        ]
        return path_page(paths, labels=image.classifier.labels, title=f"{image.title}: {self._prediction()}")

    def summary(self) -> str:
        """Return one line with the target class, and with the patches that flip the prediction and what it becomes."""
        outcomes = "; ".join(
            self._outcome(mode, change) + self._count_alternatives(mode) for mode, change in self.changes.items()
        )
        search = self._describe_search()
        return f"{self._prediction()}; {outcomes}" + (f" (with {search})" if search else "")

    def save(self, folder: Path, *, stem: str | None = None, html: bool = False) -> Path:
        """Save a figure, a JSON file and, if requested, an HTML page and a figure of the alternative groups.

        The name of the figure of the alternative groups ends with ``-alternatives``.

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
        stem = stem or Path(self.image.name).stem
        path, alternatives_path = (folder / f"{stem}{ending}" for ending in EXPLANATION_FIGURES)
        save_result(self, path, html=html)
        if self.alternatives:
            save_figure(self.alternatives_figure(), alternatives_path)
        return path

    def _describe_search(self) -> str:
        """Return the screen and the beam of the searches that chose patches, in words."""
        return self.settings.describe_search([mode for mode, choice in self.selections.items() if choice.n_steps[0]])

    def _prediction(self) -> str:
        """Return the target class, its confidence, the true label if known, and the predicted class if it differs."""
        image = self.image
        details = ", ".join(filter(None, (f"confidence {image.confidence(self.target):.2f}", image.truth)))
        prediction = f"{class_name(self.label)} ({details})"
        if image.predicted < 0 or image.predicts(self.target):
            return prediction
        return f"{prediction}, though {class_name(image.classifier.labels[image.predicted])} is predicted"

    def _whole_image(self) -> str:
        """Return the confidence in the target on the whole image, and the predicted class if it differs."""
        image = self.image
        target = Prediction(self.label, image.confidence(self.target))
        if image.predicted < 0 or image.predicts(self.target):
            return f"whole image: {target}"
        predicted = Prediction(image.classifier.labels[image.predicted], image.confidence(image.predicted))
        return f"whole image: {predicted}\ntarget: {target}"

    def _outcome(self, mode: SearchMode, change: Change) -> str:
        """Return the number of patches that flip the prediction, and the prediction before and after, in words."""
        if change.flipped_before_first_step:
            return f"{mode}: {self._why_no_steps(mode, change)}"
        verb = "flips" if change.flipped else "does not flip"
        if self.settings.min_confidence and mode != "deletion":
            verb += f" (confidence above {self.settings.min_confidence:g})"
        patches = f"{'without' if mode == 'deletion' else 'with'} {count_patches(change.n_steps)}"
        label = minimal_label(self.selections[mode])
        start = f"{change.before}{'' if mode == 'deletion' else f' ({self.image.removal.empty_note})'}"
        without = "" if mode != "symmetric" else f", and without them {change.before_without} -> {change.after_without}"
        return f"{mode} {verb} {patches}{f' [{label}]' if label else ''}: {start} -> {change.after}{without}"

    def _count_alternatives(self, mode: SearchMode) -> str:
        """Return the number of disjoint groups in words, or an empty string if they were not requested."""
        if mode not in self.alternatives or not int(self.selections[mode].n_steps[0]):
            return ""
        count = len(self.alternatives[mode])
        at_least = "at least " if count == self.settings.alternatives else ""
        return f", {at_least}{count} disjoint group{'' if count == 1 else 's'}"

    def _figure_outcome(self, mode: SearchMode, change: Change) -> str | list[str]:
        """Return the prediction below each picture of the figure, or the reason why a search has no steps."""
        if not int(self.selections[mode].n_steps[0]):
            return self._why_no_steps(mode, change)
        if mode == "symmetric":
            return [str(change.after), f"{change.before_without} → {change.after_without}"]
        return f"{change.before} → {change.after}" if mode == "deletion" and change.n_steps else str(change.after)

    @staticmethod
    def _group_outcome(change: Change) -> str:
        """Return the prediction that a group leads to, on each path."""
        return str(change.after) + ("" if change.after_without is None else f"; without it: {change.after_without}")

    def _why_no_steps(self, mode: SearchMode, change: Change) -> str:
        if mode == "symmetric":
            return (
                f"no patch is needed, because the model predicts {change.before} with {self.image.removal.empty_note}, "
                f"and {change.before_without} with all patches"
            )
        if mode == "insertion":
            return (
                f"no patch is needed, because the model predicts {change.before} with {self.image.removal.empty_note}"
            )
        if self.image.predicted < 0 and len(self.image.classifier.labels) == 1:
            return "nothing to delete, because the logit is below 0"
        name = class_name(self.label)
        return (
            f"nothing to delete, because the model does not predict {name} even with all patches; insertion or "
            f"captum-moxi localize finds the patches that {name} depends on"
        )


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
        ValueError: If the model does not have the class, or if the settings are not valid or do not fit the model.
        TypeError: If a setting has the wrong type.

    Examples::

        >>> from captum_moxi.explanation import ExplainSettings, explain
        >>> from captum_moxi.images import open_image
        >>> from captum_moxi.models import load
        >>> classifier = load("google/vit-base-patch16-224")
        >>> settings = ExplainSettings(modes="insertion", min_confidence=0.5)
        >>> explanation = explain(classifier, open_image("cat.jpg"), name="cat.jpg", settings=settings)
        >>> explanation.summary()
        'tabby (confidence 0.83); insertion flips (confidence above 0.5) with 7 patches: dam 0.05 (nothing kept) -> ...'
        >>> explanation.selections["insertion"].order[0]  # ids of the patches
        >>> explanation.save(Path("explained"))  # cat.png and cat.json
    """
    settings = settings or ExplainSettings()
    settings.check(classifier)
    index = None if target is None else classifier.class_index(target)
    prepared = prepare_image(
        classifier, image, name=name, removal=settings.removal, grid=settings.grid, true_label=true_label
    )
    index = prepared.target(index)
    results = {
        mode: _search(prepared, mode, target=index, settings=settings, show_progress=show_progress)
        for mode in parse_search_modes(settings.modes)
    }
    alternatives = {
        mode: _search_alternatives(
            prepared, mode, result.selection, target=index, settings=settings, show_progress=show_progress
        )
        for mode, result in results.items()
        if settings.alternatives is not None
    }
    return Explanation(image=prepared, target=index, settings=settings, results=results, alternatives=alternatives)


def _search(
    image: PreparedImage, mode: SearchMode, *, target: int, settings: ExplainSettings, show_progress: bool
) -> SearchResult:
    method = settings.method(mode, image.classifier)
    if mode == "deletion" and settings.stop == "flip" and not image.predicts(target):
        # The prediction is flipped before the first step. The search would only warn about that.
        game = image.game(target).with_reward(method.reward)
        return SearchResult(torch.zeros(image.mask.shape), follow(game, mode, torch.empty(1, 0, dtype=torch.long)))
    attribution, selection = method.attribute(
        image.pixel_values,
        target=target,
        feature_mask=image.feature_mask,
        n_steps=settings.n_steps,
        stop=settings.stop,
        min_confidence=settings.min_confidence,
        minimal=settings.searches_minimal,
        show_progress=show_progress,
        return_selection=True,
    )
    return SearchResult(attribution[0, 0].float().cpu(), selection)


def _search_alternatives(
    image: PreparedImage,
    mode: SearchMode,
    first: Selection,
    *,
    target: int,
    settings: ExplainSettings,
    show_progress: bool,
) -> list[Selection]:
    """Return the disjoint groups of a mode. The first of them is known."""
    if not int(first.n_steps[0]):
        return []
    return settings.method(mode, image.classifier).alternatives(
        image.pixel_values,
        target=target,
        feature_mask=image.feature_mask,
        at_most=settings.alternatives or 1,
        known=[first],
        n_steps=settings.n_steps,
        min_confidence=settings.min_confidence,
        show_progress=show_progress,
    )
