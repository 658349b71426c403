"""``captum-moxi compare``: compare methods on images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from captum_moxi.cli import options
from captum_moxi.cli.labels import label_sources
from captum_moxi.cli.runner import (
    Command,
    SourceImage,
    check_outputs,
    load_sources,
    on_terminal,
    open_output_folder,
    replaced_note,
    run_over_images,
)
from captum_moxi.explanation import COMPARISON_FIGURES, CompareSettings, ComparisonReport, compare_image
from captum_moxi.methods import DEFAULT_METHODS, METHODS
from captum_moxi.metrics import METRICS
from captum_moxi.removal import REMOVALS
from captum_moxi.rewards import REWARDS
from captum_moxi.search.screens import SCREENS


@click.command(cls=Command, listings=(METHODS, METRICS, REMOVALS, REWARDS, SCREENS))
@options.images()
@options.model(help="Hub name or folder of a Hugging Face image classifier. Without images: the embedded demo.")
@options.classes()
@options.template()
@options.target()
@options.image_label_pattern()
@options.image_label_map()
@options.methods(show_default=f"{','.join(DEFAULT_METHODS)}; those that do not support the model are left out")
@options.metrics()
@options.mode()
@options.n_steps(
    default=30,
    show_default=True,
    help="Maximum number of patches that MoXI chooses, and at which the curves end. All 196 patches of a ViT take "
    "minutes per image. So do 30 of the 36 patches of a ResNet; 6 of them take about a minute on two cores.",
)
@options.grid()
@options.removal()
@options.compare_removals()
@options.reward()
@options.screen(
    default="gradient:8",
    show_default=True,
    help=f"Which patches each step of MoXI evaluates: {options.CHOICES}. M is the number of patches. gradient applies "
    "only to deletion by moxi, and its insertion and moxi-symmetric then evaluate all patches. both-ends applies only "
    "to moxi-symmetric. The others apply to all searches.",
)
@options.html()
@options.device()
@options.kernels()
@options.out()
@options.settings(CompareSettings)
def compare(
    images: tuple[str, ...],
    model: str | None,
    classes: tuple[str, ...] | None,
    template: str | None,
    device: str | None,
    target: str | None,
    label_pattern: str | None,
    label_map: Mapping[str, str] | None,
    settings: CompareSettings,
    html: bool,
    out: Path,
) -> None:
    """Compare MoXI with other attribution methods.

    IMAGE is an image file or a folder of images. Without images, the command uses the embedded images and model. It
    prints a table with a row for each method and mode. Existing files in the folder --out are replaced.

    \b
    In the folder --out:
    insertion.png, deletion.png  patches that flip the prediction, by method, for the first 12 images
    curves.png                   accuracy and confidence as patches are inserted or deleted, averaged over images
    replays.png, replays.csv     with --replay-removals: areas and SRG of each order under each removal
    comparison.csv               one row per image, method and mode
    IMAGE-methods.html           with --html: a slider along the path of each method
    """
    classifier, sources = load_sources(images, model=model, device=device, classes=classes, template=template)
    is_default = click.get_current_context().get_parameter_source("screen") is ParameterSource.DEFAULT
    if is_default and not settings.screened_modes():
        # The default screen may stay unused. A screen that the user chose may not.
        settings = replace(settings, screen=None)
    settings.check(classifier)
    class_index = None if target is None else classifier.class_index(target)
    sources = label_sources(sources, classifier.labels, pattern=label_pattern, label_map=label_map)
    check_outputs(sources, [out / name for name in COMPARISON_FIGURES])
    existing = open_output_folder(out)
    report = ComparisonReport(out, settings)

    def compare_methods(source: SourceImage) -> None:
        result = compare_image(
            classifier,
            source.open(),
            name=source.name,
            target=class_index,
            true_label=source.label,
            settings=settings,
            show_progress=on_terminal(),
        )
        if html:
            result.save_page(out, stem=source.stem)
        report.add(result)
        if not on_terminal():
            # A terminal shows progress bars instead.
            click.echo(f"{source.name}: compared", err=True)

    def write_report() -> str:
        report.save_figures()
        return f"{report.summary()}{replaced_note(out / 'comparison.csv', existing)}"

    run_over_images(sources, compare_methods, verb="compared", finish=write_report)
