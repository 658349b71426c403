"""Compares methods on single images, and reports the comparisons of several images."""

import csv
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

from captum_moxi.arguments import MODES, Mode, check_positive_int, parse_modes
from captum_moxi.comparison import Comparison, Result, compare, join
from captum_moxi.explanation.images import (
    check_players,
    class_name,
    gallery_title,
    prepare_image,
    with_class_indices,
    with_confidence,
)
from captum_moxi.explanation.results import TargetResult
from captum_moxi.explanation.saving import save_page, save_result
from captum_moxi.files import write_file
from captum_moxi.methods import get_methods
from captum_moxi.metrics import (
    REPLAYS_LEGEND,
    SRG_LEGEND,
    check_fit,
    check_removals,
    count_players_to_flip,
    get_metrics,
    median_flip,
    replay_rows,
)
from captum_moxi.models import ImageClassifier
from captum_moxi.page import follow_path, path_page
from captum_moxi.plot import (
    CURVES_READING,
    comparison_figure,
    describe,
    image_comparison_figure,
    plot_curves,
    replays_figure,
    save_figure,
)
from captum_moxi.removal import Removal
from captum_moxi.search.screens import AnyScreen, get_screen, screen_for_mode
from captum_moxi.tables import Record, csv_table, markdown_table

_CURVES_FILE = "curves.png"
_REPLAYS_FILE = "replays.png"
# Ending of the names of the files of one image.
_IMAGE_ENDING = "-methods.png"


def _gallery_file(mode: Mode) -> str:
    return f"{mode}.png"


# File names of all figures.
COMPARISON_FIGURES = (*map(_gallery_file, MODES), _CURVES_FILE, _REPLAYS_FILE)


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
        replay_removals (Sequence[str], optional): Names of removals under which each order is inserted and deleted as
            well, as in :func:`captum_moxi.compare`.
            Default: None, no other removals
    """

    methods: tuple[str, ...] | None = None
    modes: Mode | Sequence[Mode] = MODES
    metrics: tuple[str, ...] = ("players-to-flip", "area")
    n_steps: int = 30
    grid: int | None = None
    removal: Removal | str | None = None
    reward: str = "log_odds"
    screen: AnyScreen | str | None = None
    replay_removals: Sequence[str] | None = None

    def check(self, classifier: ImageClassifier) -> None:
        """Check all settings, without a forward pass.

        Args:
            classifier (ImageClassifier): Classifier to explain.

        Raises:
            ValueError: If a name is unknown, if a number is out of range, if the classifier does not have the class
                of the reward, if no method uses the screen, or if the grid, the removal or one of the
                ``replay_removals`` does not fit the classifier.
            TypeError: If a setting has the wrong type.
        """
        parse_modes(self.modes)
        check_positive_int("n_steps", self.n_steps)
        if self.grid is not None:
            check_positive_int("grid", self.grid)
        self._check_screen()
        get_metrics(self.metrics)
        with_class_indices(self.reward, classifier)
        call = check_players(classifier, removal=self.removal, grid=self.grid)
        if self.replay_removals is not None:
            check_removals(self.replay_removals, argument="replay_removals")
            if call is not None:
                check_fit(call, self.replay_removals, argument="replay_removals")

    def screened_modes(self) -> dict[str, list[Mode]]:
        """Return the modes in which each method uses the screen.

        Returns:
            dict[str, list[str]]: Modes by the title of the method. Methods that do not use the screen are left out.
        """
        screen = get_screen(self.screen)
        modes = {
            method.title: [
                mode
                for mode in parse_modes(self.modes)
                # A search with one order for both modes is symmetric.
                if screen_for_mode(screen, mode if method.depends_on_mode else "symmetric")
            ]
            for method in get_methods(self.methods, screen)
            if method.rescreen is not None
        }
        return {title: screened for title, screened in modes.items() if screened}

    def _check_screen(self) -> None:
        """Check that a method uses the screen. The methods are checked as well."""
        modes, screen = parse_modes(self.modes), get_screen(self.screen)
        methods = get_methods(self.methods, screen)
        if screen is None or self.screened_modes():
            return
        if any(mode in screen.used_in for mode in modes):
            remedy = "add moxi, or pass "
        elif "symmetric" in screen.used_in:
            remedy = "add moxi-symmetric, or pass "
        elif not screen.used_in:
            remedy = "pass "
        elif any(method.rescreen is not None and method.depends_on_mode for method in methods):
            remedy = f"pass modes='{screen.used_in[0]}', "
        else:
            remedy = f"add moxi and pass modes='{screen.used_in[0]}', or pass "
        raise ValueError(
            f"screen is {screen!r}, which none of the methods ({', '.join(method.title for method in methods)}) uses "
            f"in {' and '.join(modes)}; {remedy}another screen, or screen='all'"
        )

    def to_dict(self) -> dict[str, object]:
        """Return the settings except the methods, modes and metrics as JSON types. Screens and removals become text."""
        screen = get_screen(self.screen)
        return {
            "n_steps": self.n_steps,
            "grid": self.grid,
            "removal": repr(self.removal),
            "reward": self.reward,
            "screen": "all" if screen is None else repr(screen),
            "replay_removals": None if self.replay_removals is None else list(self.replay_removals),
        }


@dataclass(frozen=True, eq=False)
class ImageComparison(TargetResult):
    """Several methods on one image, as returned by :func:`compare_image`.

    Args:
        image (PreparedImage): The image.
        target (int): Index of the target class.
        settings (CompareSettings): How the methods were compared.
        comparison (Comparison): Orders, curves and costs of the methods, for a batch of one image.
    """

    settings: CompareSettings
    comparison: Comparison

    @property
    def gallery_title(self) -> str:
        """The target class and, if it is known, the true label, for the title of the image in galleries."""
        return gallery_title(self.label, self.image.true_label)

    def to_dict(self) -> dict[str, object]:
        """Return everything except the image as JSON types.

        The results contain a dict for each method and mode: its order, its curve, its cost and all metrics. The replays
        contain a dict for each removal and order: the areas and the SRG.
        """
        results = zip(self.comparison.results, self.comparison.records(), strict=True)
        contents: dict[str, object] = {"results": [_to_json(result, record) for result, record in results]}
        if self.comparison.replays:
            contents["replays"] = list(self.comparison.replay_records())
        return self.image.result_dict(self.settings.to_dict(), contents, target=self.target)

    def figure(self) -> Figure:
        """Draw the patches that flip the prediction, with one row for each mode and one column for each method."""
        image = self.image
        target = with_confidence(self.label, image.confidence(self.target))
        return image_comparison_figure(
            image.picture,
            image.mask,
            self.comparison,
            draw=self.draw,
            note=image.removal.picture_note,
            title=f"{image.title}: which patches flip the prediction of {class_name(self.label)}?",
            image_title="\n".join(filter(None, (target, image.truth))),
        )

    def summary(self) -> str:
        """Return one line with the target and, for each method, the number of patches that flip the prediction."""
        image = self.image
        details = ", ".join(filter(None, (f"confidence {image.confidence(self.target):.2f}", image.truth)))
        counts = "; ".join(
            f"{mode}: "
            + ", ".join(f"{result.method} {_flip(result)}" for result in self.comparison.results if result.mode == mode)
            for mode in self.comparison.modes
        )
        return f"{class_name(self.label)} ({details}); patches to flip, of {image.n_players}: {counts}"

    def save(self, folder: Path, *, stem: str | None = None, html: bool = False) -> Path:
        """Save a figure, a JSON file and, if requested, an HTML page.

        Args:
            folder (Path): Folder to write to. It is created if it does not exist.
            stem (str, optional): File name without suffix, to which ``-methods`` is added.
                Default: None, the stem of the image's name
            html (bool, optional): Whether to save a page as well. Requires Bokeh.
                Default: False

        Returns:
            Path: File of the figure.

        Raises:
            ImportError: If ``html`` is True and Bokeh is not installed.
        """
        return save_result(self, self._figure_path(folder, stem), html=html)

    def save_page(self, folder: Path, *, stem: str | None = None) -> Path:
        """Save only the HTML page, under the name that :meth:`save` gives it.

        Args:
            folder (Path): Existing folder to write to.
            stem (str, optional): As in :meth:`save`.
                Default: None

        Returns:
            Path: File of the page.

        Raises:
            ImportError: If Bokeh is not installed.
        """
        return save_page(self, self._figure_path(folder, stem))

    def _figure_path(self, folder: Path, stem: str | None) -> Path:
        return folder / f"{stem or Path(self.image.name).stem}{_IMAGE_ENDING}"

    def page(self) -> str:
        """Render an HTML page with a slider along the path of each method.

        Returns:
            str: The HTML source.

        Raises:
            ImportError: If Bokeh is not installed.
        """
        image, labels = self.image, self.image.classifier.labels
        paths = [
            follow_path(
                self._game,
                result.order[0, : self.settings.n_steps].tolist(),
                result.mode,
                to_images=image.classifier.to_images,
                method=result.method,
            )
            for result in self.comparison.results
        ]
        truth = f" ({image.truth})" if image.truth else ""
        title = f"{image.title}: {class_name(self.label)}{truth}"
        return path_page(paths, labels=labels, title=title, table=self.comparison.replay_html())


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
        replay_removals=settings.replay_removals,
        show_progress=show_progress,
    )
    return ImageComparison(image=prepared, target=index, settings=settings, comparison=comparison)


class ComparisonReport:
    """Writes the comparisons of several images to a folder.

    :meth:`add` writes the rows of an image to ``comparison.csv`` immediately, so that they are kept if a later image
    fails. The rows have a column for each registered metric. :meth:`save_figures` draws the first images, the mean
    curves, and the replays if there are any.

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
        self._shown: list[ImageComparison] = []

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
        if len(self._shown) < self.gallery_size:
            self._shown.append(result)

    def save_figures(self) -> None:
        """Save a gallery for each mode as ``insertion.png`` and ``deletion.png``, and the curves as ``curves.png``.

        With ``replay_removals``, also save the replays as ``replays.png`` and ``replays.csv``.
        """
        gallery = join([result.comparison for result in self._shown])
        images = [result.image for result in self._shown]
        for mode in gallery.modes:
            figure = comparison_figure(
                torch.stack([image.picture for image in images]),
                torch.stack([image.mask for image in images]),
                gallery,
                mode=mode,
                draw=[result.draw for result in self._shown],
                note=images[0].removal.picture_note,
                image_titles=[result.gallery_title for result in self._shown],
            )
            save_figure(figure, self.folder / _gallery_file(mode))
        comparison = join(self._comparisons)
        save_figure(_curves_figure(comparison), self.folder / _CURVES_FILE)
        if comparison.replays:
            records = comparison.replay_records()
            save_figure(replays_figure(records), self.folder / _REPLAYS_FILE)
            write_file(self.folder / "replays.csv", csv_table(records))

    def summary(self) -> str:
        """Return a Markdown table with a row for each method and mode, and a line about the images.

        With ``replay_removals``, a second table has a row for each removal and order.
        """
        comparison = join(self._comparisons)
        n_players, count = int(comparison.n_players[0]), len(self._comparisons)
        n_evaluated = min(n_players, self.settings.n_steps)
        images = f"{count} image{'' if count == 1 else 's'}"
        reached = f"curves up to {n_evaluated} of {n_players} patches ({n_evaluated / n_players:.0%})"
        results = f"{images}; {reached}{self._screened()}; results in {self.folder}"
        tables = [self._table(comparison), self._legend(comparison)]
        if comparison.replays:
            tables += [markdown_table(*replay_rows(comparison.replay_records())), REPLAYS_LEGEND]
        return "\n\n".join([*tables, results])

    def _table(self, comparison: Comparison) -> str:
        metrics = get_metrics(self.settings.metrics)
        rows = [
            {"": result.mode, "method": result.method}
            | comparison.summary_columns(result, metrics)
            | {"seconds per example": result.seconds}
            | {"rows per example": result.rows, "weighted rows per example": result.weighted_rows}
            for result in _insertion_first(comparison.results)
        ]
        # Numbers of patches mean little without the number of all patches, which differs between models.
        n_players = int(comparison.n_players[0])
        titles = [_image_title(column, patches=f"patches (of {n_players})") for column in rows[0]]
        return markdown_table(titles, [list(row.values()) for row in rows])

    def _legend(self, comparison: Comparison) -> str:
        """Define the columns of the table in one line."""
        definitions = {metric.title: metric.legend for metric in get_metrics(self.settings.metrics) if metric.legend}
        if "SRG" in comparison.summary_columns(comparison.results[0], ()):
            definitions["SRG"] = SRG_LEGEND
        definitions["rows"] = "model inputs evaluated to order the players"
        definitions["weighted rows"] = "the same, with a backward pass counted as two more rows"
        entries = [(_image_title(title), _image_title(text)) for title, text in definitions.items()]
        return " ".join(f"{title[0].upper()}{title[1:]}: {text}." for title, text in entries)

    def _screened(self) -> str:
        """Name the methods that use the screen, and the modes in which they do."""
        screen = get_screen(self.settings.screen)
        return "".join(
            f"; {title} uses {screen!r} for {' and '.join(modes)}"
            for title, modes in self.settings.screened_modes().items()
        )


def _to_json(result: Result, record: Record) -> dict[str, object]:
    """Return the result of a method for one image as JSON types. None stands for NaN."""
    values = {name: None if value != value else value for name, value in record.items() if name != "example"}
    curve = result.curve
    return values | {
        "order": [player for player in result.order[0].tolist() if player >= 0],
        "counts": curve.counts[0].tolist(),
        "confidences": curve.confidences[0].tolist(),
        "predictions": curve.predictions[0].tolist(),
    }


def _flip(result: Result) -> str:
    """Return the number of patches that flip the prediction of the only image, or ``"> N"``."""
    counts = count_players_to_flip(result.curve).nan_to_num(nan=math.inf)
    return median_flip(counts.tolist(), int(result.curve.counts[0, -1]))


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
    columns = len(comparison.modes)
    figure = Figure(figsize=(4.6 * columns, 7), layout="constrained")
    accuracy, confidence = figure.subplots(2, columns, squeeze=False)
    plot_curves(comparison, quantity="correct", axes=accuracy)
    plot_curves(comparison, quantity="confidences", axes=confidence)
    describe(figure, title="Accuracy and confidence along the order of each method", reading=CURVES_READING)
    return figure


def _insertion_first(results: tuple[Result, ...]) -> list[Result]:
    return sorted(results, key=lambda result: MODES.index(result.mode))


def _image_title(column: str, *, patches: str = "patches") -> str:
    """Return the title of a column with "image" instead of "example" and ``patches`` instead of "players"."""
    return column.replace("players", patches).replace("example", "image")
