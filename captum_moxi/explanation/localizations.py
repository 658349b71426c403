"""Finds the patches that classes depend on in one image, including classes that are not predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_moxi.arguments import check_positive_int
from captum_moxi.attr import MoXILocalization
from captum_moxi.explanation.images import PreparedImage, check_players, class_name, prepare_image, with_confidence
from captum_moxi.explanation.saving import save_result
from captum_moxi.models import ImageClassifier
from captum_moxi.page import PagePath, follow_path, path_page
from captum_moxi.plot import draw_from_game, localization_figure, minimal_label
from captum_moxi.removal import Removal
from captum_moxi.search import Selection
from captum_moxi.search.screens import AnyScreen, get_screen

# Endings of the file names of the figures.
LOCALIZATION_FIGURES = ("-classes.png",)


@dataclass(frozen=True)
class LocalizeSettings:
    """How to localize classes in an image.

    Args:
        n_steps (int, optional): Maximum number of patches that each of the two deletions removes.
            Default: None, as many as needed
        grid (int, optional): Number of rows and columns of patches: ``N`` divides the image into N x N players.
            Default: None, the model's own patches, or 6 x 6 patches if it has none
        removal (Removal or str, optional): How absent patches are removed: a removal, or its name in
            ``captum_moxi.removal.REMOVALS``.
            Default: None, token removal if the model has patch tokens and baseline fill with 0 otherwise
        screen (Screen or str, optional): Decides which patches each step evaluates: a screen, or its name in
            ``captum_moxi.search.screens.SCREENS``.
            Default: None, all patches (the exact search)
        minimal (bool, optional): Whether each of the two deletions leaves out, after its flip, the patches that the
            flip does not need.
            Default: False
    """

    n_steps: int | None = None
    grid: int | None = None
    removal: Removal | str | None = None
    screen: AnyScreen | str | None = None
    minimal: bool = False

    def check(self, classifier: ImageClassifier) -> None:
        """Check all settings, without a forward pass.

        Args:
            classifier (ImageClassifier): Classifier to explain.

        Raises:
            ValueError: If a name is unknown, if a number is out of range, or if the grid or the removal does not fit
                the classifier.
            TypeError: If a setting has the wrong type.
        """
        for name, value in (("n_steps", self.n_steps), ("grid", self.grid)):
            if value is not None:
                check_positive_int(name, value)
        get_screen(self.screen)
        check_players(classifier, removal=self.removal, grid=self.grid)

    def to_dict(self) -> dict[str, object]:
        """Return the settings as JSON types. Screens and removals become text."""
        screen = get_screen(self.screen)
        return {
            "n_steps": self.n_steps,
            "grid": self.grid,
            "removal": repr(self.removal),
            "screen": "all" if screen is None else repr(screen),
            "minimal": self.minimal,
        }


class LocalizedClass(NamedTuple):
    """The patches on which the prediction of a class depends, once what opposes the class is deleted.

    Args:
        class_index (int): Index of the class.
        label (str): Name of the class.
        attribution (Tensor): Heat map of the patches in ``until_lost``. Shape ``(H, W)``, float32, on the CPU.
        until_predicted (Selection): Patches that were deleted until the class was predicted.
        until_lost (Selection): Patches that were then deleted until the class was no longer predicted.
    """

    class_index: int
    label: str
    attribution: Tensor
    until_predicted: Selection
    until_lost: Selection

    def to_dict(self) -> dict[str, object]:
        """Return the class and the selections as JSON types.

        The key of ``until_predicted`` is "gone", and the key of ``until_lost`` is "held".
        """
        return {
            "index": self.class_index,
            "label": self.label,
            "gone": self.until_predicted.to_dict(),
            "held": self.until_lost.to_dict(),
        }

    def summary(self) -> str:
        """Return one line with the number of patches that each of the two deletions removed."""
        name = class_name(self.label)
        n_first, n_second = int(self.until_predicted.n_steps[0]), int(self.until_lost.n_steps[0])
        if not self.until_predicted.flipped[0]:
            return f"{name} is not predicted without {_count_patches(n_first)} either, so it is not located"
        start = f"without {_count_patches(n_first)}{_note(self.until_predicted)}" if n_first else "on the whole image"
        outcome = "lost" if self.until_lost.flipped[0] else "not lost"
        deleted = f"{_count_patches(n_second, more=n_first > 0)}{_note(self.until_lost)}"
        return f"{name} is predicted {start} and {outcome} after deleting {deleted}"


@dataclass(frozen=True, eq=False)
class Localization:
    """The patches that classes depend on in one image, as returned by :func:`localize`.

    Args:
        image (PreparedImage): The image.
        settings (LocalizeSettings): How the classes were localized.
        classes (tuple[LocalizedClass, ...]): The classes.
    """

    image: PreparedImage
    settings: LocalizeSettings
    classes: tuple[LocalizedClass, ...]

    def to_dict(self) -> dict[str, object]:
        """Return everything except the image and the heat maps as JSON types.

        ``Selection.from_dict`` restores the selections.
        """
        contents = {"classes": [localized.to_dict() for localized in self.classes]}
        return self.image.result_dict(self.settings.to_dict(), contents)

    def figure(self) -> Figure:
        """Draw for each class what the model sees without what opposes it, and the patches that it depends on."""
        image = self.image
        likely = image.target()
        prediction = with_confidence(image.classifier.labels[likely], image.confidence(likely))
        figure, _ = localization_figure(
            image.picture,
            image.mask,
            [
                (
                    class_name(localized.label),
                    localized.attribution,
                    (localized.until_predicted, localized.until_lost),
                )
                for localized in self.classes
            ],
            title=f"{image.title}: what does each class depend on?",
            image_title="\n".join(filter(None, (f"whole image: {prediction}", image.truth))),
            draw=draw_from_game(image.game(likely), image.classifier.to_images),
            note=image.removal.picture_note,
        )
        return figure

    def page(self) -> str:
        """Render an HTML page with a slider along both deletions of each class.

        A menu switches between the classes. The page opens where the class becomes the prediction or, if it is the
        prediction for the whole image, where it is lost.

        Returns:
            str: The HTML source.

        Raises:
            ImportError: If Bokeh is not installed.
        """
        image, labels = self.image, self.image.classifier.labels
        paths = [_follow_deletions(image, localized) for localized in self.classes]
        title = f"{image.title}: what does each class depend on?"
        return path_page(paths, labels=labels, title=title + (f" ({image.truth})" if image.truth else ""))

    def summary(self) -> str:
        """Return one line with the true label if known, and the number of patches deleted for each class."""
        summaries = [localized.summary() for localized in self.classes]
        return "; ".join([self.image.truth, *summaries] if self.image.truth else summaries)

    def save(self, folder: Path, *, stem: str | None = None, html: bool = False) -> Path:
        """Save a figure, a JSON file and, if requested, an HTML page.

        Args:
            folder (Path): Folder to write to. It is created if it does not exist.
            stem (str, optional): File name without suffix, to which ``-classes`` is added.
                Default: None, the stem of the image's name
            html (bool, optional): Whether to save a page as well. Requires Bokeh.
                Default: False

        Returns:
            Path: File of the figure.

        Raises:
            ImportError: If ``html`` is True and Bokeh is not installed.
        """
        path = folder / f"{stem or Path(self.image.name).stem}{LOCALIZATION_FIGURES[0]}"
        return save_result(self, path, html=html)


def localize(
    classifier: ImageClassifier,
    image: Image.Image,
    *,
    name: str = "image",
    targets: Sequence[str | int] = (),
    true_label: str | int | None = None,
    settings: LocalizeSettings | None = None,
    show_progress: bool = False,
) -> Localization:
    """Find the patches that oppose a class in an image, and the patches on which the class then depends.

    The first deletion removes patches until the class is predicted. The second removes patches until the class is no
    longer predicted (the MoXI paper, Appendix F and Figure 5). See :class:`captum_moxi.MoXILocalization`.

    Args:
        classifier (ImageClassifier): Classifier, as returned by :func:`captum_moxi.models.load`.
        image (Image): Image to explain.
        name (str, optional): Name of the image in figures, JSON and file names, for example its path.
            Default: ``"image"``
        targets (Sequence[str or int], optional): Classes to explain: indices, names, or unambiguous parts of names.
            Default: ``()``, the two most likely classes
        true_label (str or int, optional): Class of the image according to the data, as in
            :func:`captum_moxi.explanation.explain`.
            Default: None, unknown
        settings (LocalizeSettings, optional): How to localize the classes.
            Default: None, the model's own patches and the exact search
        show_progress (bool, optional): Whether to show a progress bar that counts the evaluated rows.
            Default: False

    Returns:
        Localization: Selections and heat maps.

    Raises:
        ValueError: If the model does not have a class or has a single logit, or if the settings are not valid or do not
            fit the model.
        TypeError: If a setting has the wrong type.

    Examples::

        >>> from captum_moxi.explanation import LocalizeSettings, localize
        >>> from captum_moxi.search import GradientScreen
        >>> settings = LocalizeSettings(screen=GradientScreen(8))
        >>> localization = localize(load(model), open_image("desk.jpg"), targets=["desk", "mouse"], settings=settings)
        >>> localization.summary()
        'desk is predicted on the whole image and lost after deleting 12 patches; mouse is predicted without 9 ...'
        >>> localization.figure()
    """
    settings = settings or LocalizeSettings()
    settings.check(classifier)
    indices = [classifier.class_index(target) for target in targets]
    prepared = prepare_image(
        classifier, image, name=name, removal=settings.removal, grid=settings.grid, true_label=true_label
    )
    classes = tuple(
        _localize_class(prepared, index, settings=settings, show_progress=show_progress)
        for index in indices or _most_likely(prepared, count=2)
    )
    return Localization(image=prepared, settings=settings, classes=classes)


def _follow_deletions(image: PreparedImage, localized: LocalizedClass) -> PagePath:
    """Follow both deletions of a class, one after the other."""
    selections = (localized.until_predicted, localized.until_lost)
    order = [player for selection in selections for player in selection.order[0].tolist()]
    left_out = [player for selection in selections for player in selection.left_out[0].tolist()]
    return follow_path(
        image.game(localized.class_index),
        order,
        "deletion",
        # The menu needs different names.
        method=f"{class_name(localized.label)} ({localized.class_index})",
        to_images=image.classifier.to_images,
        flip="insertion" if int(localized.until_predicted.n_steps[0]) else "deletion",
        left_out=[player for player in left_out if player not in order],
    )


def _note(selection: Selection) -> str:
    """Return whether a group is minimal, in a form that follows the number of its patches."""
    label = minimal_label(selection)
    return f" [{label}]" if label else ""


def _count_patches(count: int, *, more: bool = False) -> str:
    return f"{count} {'more ' if more else ''}patch{'' if count == 1 else 'es'}"


def _most_likely(image: PreparedImage, *, count: int) -> list[int]:
    indices: list[int] = image.logits[0].topk(min(count, image.logits.shape[1])).indices.tolist()
    return indices


def _localize_class(
    image: PreparedImage, index: int, *, settings: LocalizeSettings, show_progress: bool
) -> LocalizedClass:
    method = MoXILocalization(image.classifier.model, removal=image.removal, screen=settings.screen)
    attribution, (until_predicted, until_lost) = method.attribute(
        image.pixel_values,
        target=index,
        feature_mask=image.feature_mask,
        n_steps=settings.n_steps,
        minimal=settings.minimal,
        show_progress=show_progress,
        return_selection=True,
    )
    return LocalizedClass(
        class_index=index,
        label=image.classifier.labels[index],
        attribution=attribution[0, 0].float().cpu(),
        until_predicted=until_predicted,
        until_lost=until_lost,
    )
