"""Compares methods on single images, and reports the comparisons of several images."""

import csv
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_moxi.arguments import MODES, Mode, check_positive_int, parse_modes
from captum_moxi.comparison import Comparison, Result, compare, join
from captum_moxi.explanation.images import PreparedImage, class_name, prepare_image, with_class_indices
from captum_moxi.methods import get_methods
from captum_moxi.metrics import get_metrics
from captum_moxi.models import ImageClassifier
from captum_moxi.page import follow_path, path_page
from captum_moxi.plot import (
    CURVES_READING,
    DrawPlayers,
    comparison_figure,
    describe,
    draw_from_game,
    plot_curves,
    save_figure,
)
from captum_moxi.removal import Removal, get_removal
from captum_moxi.search.screens import AnyScreen, get_screen, screen_for_mode
from captum_moxi.tables import Record, markdown_table

_CURVES_FILE = "curves.png"


def _gallery_file(mode: Mode) -> str:
    return f"{mode}.png"


# File names of all figures.
COMPARISON_FIGURES = (*map(_gallery_file, MODES), _CURVES_FILE)


@dataclass(frozen=True)
class CompareSettings:
    """How to compare methods on an image.

    Args:
        methods (Sequence[str], optional): Names in ``captum_moxi.methods.METHODS``, some with an argument, for example
            ``"shapley:200"``.
            Default: None, as in :func:`captum_moxi.compare`
        modes (str or Sequence[str], optional): ``"insertion"``, ``"deletion"`` or both.
            Default: both
        metrics (Sequence[str], optional): Names in ``captum_moxi.metrics.METRICS``. They are the columns of the
            summary.
            Default: players-to-flip, area
        n_steps (int, optional): Maximum number of patches that MoXI chooses, and at which the curves end.
            Default: 30
        grid (int, optional): Number of rows and columns of patches: ``N`` divides the image into N x N players.
            Default: None, the model's own patches, or 6 x 6 patches if it has none
        removal (Removal or str, optional): How absent patches are removed: a removal, or its name in
            ``captum_moxi.removal.REMOVALS``.
            Default: None, token removal if the model has patch tokens and baseline fill with 0 otherwise
        reward (str, optional): Name in ``captum_moxi.rewards.REWARDS``. In ``"contrast:CLASS"``, the class is an index
            or a name.
            Default: ``"log_odds"``
        screen (Screen or str, optional): Decides which patches each step of MoXI evaluates: a screen, or its name in
            ``captum_moxi.search.screens.SCREENS``. ``GradientScreen`` is used only for deletion, the others for both
            modes.
            Default: None, all patches (the exact search)
    """

    methods: tuple[str, ...] | None = None
    modes: Mode | Sequence[Mode] = MODES
    metrics: tuple[str, ...] = ("players-to-flip", "area")
    n_steps: int = 30
    grid: int | None = None
    removal: Removal | str | None = None
    reward: str = "log_odds"
    screen: AnyScreen | str | None = None

    def check(self, classifier: ImageClassifier) -> None:
        """Check all settings, without a forward pass.

        Args:
            classifier (ImageClassifier): Classifier to explain.

        Raises:
            ValueError: If a name is unknown, if a number is out of range, or if the classifier does not have the class
                of the reward.
            TypeError: If a setting has the wrong type.
        """
        parse_modes(self.modes)
        check_positive_int("n_steps", self.n_steps)
        if self.grid is not None:
            check_positive_int("grid", self.grid)
        get_methods(self.methods, get_screen(self.screen))
        get_metrics(self.metrics)
        get_removal(self.removal)
        with_class_indices(self.reward, classifier)


@dataclass(frozen=True, eq=False)
class ImageComparison:
    """Several methods on one image, as returned by :func:`compare_image`.

    Args:
        image (PreparedImage): The image.
        target (int): Index of the target class.
        settings (CompareSettings): How the methods were compared.
        comparison (Comparison): Orders, curves and costs of the methods, for a batch of one image.
    """

    image: PreparedImage
    target: int
    settings: CompareSettings
    comparison: Comparison

    def page(self) -> str:
        """Render an HTML page with a slider along the path of each method.

        Returns:
            str: The HTML source.

        Raises:
            ImportError: If Bokeh is not installed.
        """
        image, labels = self.image, self.image.classifier.labels
        game = image.game(self.target)
        paths = [
            follow_path(
                game,
                result.order[0, : self.settings.n_steps].tolist(),
                result.mode,
                to_images=image.classifier.to_images,
                method=result.method,
            )
            for result in self.comparison.results
        ]
        truth = f" ({image.truth})" if image.truth else ""
        return path_page(paths, labels=labels, title=f"{image.title}: {class_name(labels[self.target])}{truth}")


def compare_image(
    classifier: ImageClassifier,
    image: Image.Image,
    *,
    name: str = "image",
    target: str | int | None = None,
    true_label: str | int | None = None,
    settings: CompareSettings | None = None,
    show_progress: bool = False,
) -> ImageComparison:
    """Order the patches of an image by several methods, and evaluate the classifier along each order.

    Args:
        classifier (ImageClassifier): Classifier, as returned by :func:`captum_moxi.models.load`.
        image (Image): Image to explain.
        name (str, optional): Name of the image, for example its path. The file name is the seed of the random order.
            Default: ``"image"``
        target (str or int, optional): Target class: an index, a name, or an unambiguous part of a name.
            Default: None, the predicted class
        true_label (str or int, optional): Class of the image according to the data, as in
            :func:`captum_moxi.explanation.explain`.
            Default: None, unknown
        settings (CompareSettings, optional): How to compare the methods.
            Default: None, the default methods in both modes
        show_progress (bool, optional): Whether to show a progress bar that counts the evaluated rows.
            Default: False

    Returns:
        ImageComparison: Orders, curves and costs of the methods.

    Raises:
        ValueError, TypeError: If a method does not support the model, or for the reasons given for
            :func:`captum_moxi.explanation.explain`.

    Examples::

        >>> settings = CompareSettings(methods=("moxi", "gradcam"), n_steps=10)
        >>> result = compare_image(load("google/vit-base-patch16-224"), open_image("cat.jpg"), settings=settings)
        >>> result.comparison.table
    """
    settings = settings or CompareSettings()
    settings.check(classifier)
    index = None if target is None else classifier.class_index(target)
    prepared = prepare_image(
        classifier, image, name=name, removal=settings.removal, grid=settings.grid, true_label=true_label
    )
    index = prepared.target(index)
    n_players, screen = prepared.n_players, get_screen(settings.screen)
    comparison = compare(
        classifier.model,
        prepared.pixel_values,
        target=index,
        methods=[method.for_images([prepared.title]) for method in get_methods(settings.methods, screen)],
        modes=settings.modes,
        feature_mask=prepared.feature_mask,
        removal=prepared.removal,
        reward=with_class_indices(settings.reward, classifier),
        fractions=torch.arange(min(n_players, settings.n_steps) + 1) / n_players,
        show_progress=show_progress,
    )
    return ImageComparison(image=prepared, target=index, settings=settings, comparison=comparison)


class ComparisonReport:
    """Writes the comparisons of several images to a folder.

    :meth:`add` writes the rows of an image to ``comparison.csv`` immediately, so that they are kept if a later image
    fails. The rows have a column for each registered metric. :meth:`save_figures` draws the first images and the mean
    curves.

    Args:
        folder (Path): Existing folder to write to.
        settings (CompareSettings): How the methods are compared.
        gallery_size (int, optional): Maximum number of images in the galleries.
            Default: 12

    Examples::

        >>> report = ComparisonReport(Path("compared"), settings)
        >>> for path in expand_paths(["photographs"]):
        ...     report.add(compare_image(classifier, open_image(path), name=path, settings=settings))
        >>> report.save_figures()
        >>> print(report.summary())
    """

    def __init__(self, folder: Path, settings: CompareSettings, *, gallery_size: int = 12) -> None:
        self.folder = folder
        self.settings = settings
        self.gallery_size = gallery_size
        self._comparisons: list[Comparison] = []
        self._pictures: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._draw: list[DrawPlayers] = []
        self._note = ""

    def add(self, result: ImageComparison) -> None:
        """Append the rows of an image to ``comparison.csv``, and keep its curves. The first call replaces the file.

        Args:
            result (ImageComparison): Comparison of the image.
        """
        _append_rows(
            self.folder / "comparison.csv",
            [
                {"image": result.image.name, "true label": result.image.true_label, **record}
                for record in result.comparison.records()
            ],
            first=not self._comparisons,
        )
        self._comparisons.append(result.comparison)
        if len(self._pictures) < self.gallery_size:
            self._pictures.append(result.image.picture)
            self._masks.append(result.image.mask)
            self._draw.append(draw_from_game(result.image.game(result.target), result.image.classifier.to_images))
            self._note = result.image.removal.picture_note

    def save_figures(self) -> None:
        """Save a gallery for each mode as ``insertion.png`` and ``deletion.png``, and the curves as ``curves.png``."""
        gallery = join(self._comparisons[: self.gallery_size])
        pictures, masks = torch.stack(self._pictures), torch.stack(self._masks)
        for mode in _modes(gallery):
            figure = comparison_figure(pictures, masks, gallery, mode=mode, draw=self._draw, note=self._note)
            save_figure(figure, self.folder / _gallery_file(mode))
        save_figure(_curves_figure(join(self._comparisons)), self.folder / _CURVES_FILE)

    def summary(self) -> str:
        """Return a Markdown table with a row for each method and mode, and a line about the images."""
        comparison = join(self._comparisons)
        n_players = int(comparison.n_players[0])
        n_evaluated = min(n_players, self.settings.n_steps)
        return (
            f"{self._table(comparison)}\n\n{len(self._comparisons)} images of {n_players} patches; curves up to "
            f"{n_evaluated} patches{self._screened()}; results in {self.folder}"
        )

    def _table(self, comparison: Comparison) -> str:
        metrics = get_metrics(self.settings.metrics)
        rows = [
            {"": result.mode, "method": result.method}
            | {column: cell for metric in metrics for column, cell in metric.summarize(result.curve).items()}
            | {"seconds per example": result.seconds}
            | {"rows per example": result.rows, "weighted rows per example": result.weighted_rows}
            for result in _insertion_first(comparison.results)
        ]
        return markdown_table([_image_title(column) for column in rows[0]], [list(row.values()) for row in rows])

    def _screened(self) -> str:
        """Name the methods that use the screen, and the modes in which they do."""
        screen = get_screen(self.settings.screen)
        modes = " and ".join(mode for mode in parse_modes(self.settings.modes) if screen_for_mode(screen, mode))
        titles = [method.title for method in get_methods(self.settings.methods) if method.rescreen is not None]
        return "".join(f"; {title} uses {screen!r} for {modes}" for title in titles if modes)


def _append_rows(path: Path, rows: list[Record], *, first: bool) -> None:
    """Append all rows or, if the disk is full, none of them."""
    columns = [column for column in rows[0] if column != "example"]
    size = 0 if first else path.stat().st_size
    try:
        with path.open("w" if first else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            if first:
                writer.writeheader()
            writer.writerows(rows)
    except OSError:
        with suppress(OSError):
            os.truncate(path, size)
        raise


def _curves_figure(comparison: Comparison) -> Figure:
    """Plot the accuracy above the confidence, with one column for each mode."""
    columns = len(_modes(comparison))
    figure = Figure(figsize=(4.6 * columns, 7), layout="constrained")
    accuracy, confidence = figure.subplots(2, columns, squeeze=False)
    plot_curves(comparison, quantity="correct", axes=accuracy)
    plot_curves(comparison, quantity="confidences", axes=confidence)
    describe(figure, title="Accuracy and confidence along the order of each method", reading=CURVES_READING)
    return figure


def _modes(comparison: Comparison) -> list[Mode]:
    return list(dict.fromkeys(result.mode for result in comparison.results))


def _insertion_first(results: tuple[Result, ...]) -> list[Result]:
    return sorted(results, key=lambda result: MODES.index(result.mode))


def _image_title(column: str) -> str:
    """Return the title of a column with "image" instead of "example" and "patches" instead of "players"."""
    return column.replace("players", "patches").replace("example", "image")
