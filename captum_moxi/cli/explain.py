"""``captum-moxi explain``: find the patches that explain the predictions for images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from captum_moxi import demo, explanation
from captum_moxi.cli import options
from captum_moxi.cli.labels import label_sources
from captum_moxi.cli.runner import (
    Command,
    SourceImage,
    check_outputs,
    figures_of,
    load_sources,
    on_terminal,
    open_output_folder,
    replaced_note,
    run_over_images,
)
from captum_moxi.explanation import EXPLANATION_FIGURES, ExplainSettings
from captum_moxi.removal import REMOVALS
from captum_moxi.rewards import REWARDS
from captum_moxi.search.screens import SCREENS


@click.command(cls=Command, listings=(REMOVALS, REWARDS, SCREENS))
@options.images()
@options.model(help="Hub name or folder of a Hugging Face image classifier. Without images: the embedded demo.")
@options.classes()
@options.template()
@options.target()
@options.image_label_pattern()
@options.image_label_map()
@options.search_mode()
@options.stop()
@options.min_confidence()
@options.n_steps()
@options.grid()
@options.removal()
@options.reward(
    default=None,
    show_default=False,
    help=f"Quantity that insertion increases and deletion decreases: {options.CHOICES}. CLASS is the index or name of "
    "the class with which the target is contrasted. Default: log_odds, or probability with --mode symmetric.",
)
@options.interactions()
@options.screen()
@options.beam_width()
@options.minimal()
@options.alternatives()
@options.html()
@options.device()
@options.kernels()
@options.out()
@options.settings(ExplainSettings)
def explain(
    images: tuple[str, ...],
    model: str | None,
    classes: tuple[str, ...] | None,
    template: str | None,
    device: str | None,
    target: str | None,
    label_pattern: str | None,
    label_map: Mapping[str, str] | None,
    settings: ExplainSettings,
    html: bool,
    out: Path,
) -> None:
    """Find the patches that explain the prediction for an image.

    Insertion finds the patches that together make the model predict the target. Deletion finds the patches without
    which the model no longer predicts it. Symmetric search finds patches that answer both questions. IMAGE is an image
    file or a folder of images. For each image, the command writes a figure and a JSON file to the folder --out, and
    prints one line. Existing files of the same name are replaced.

    Without arguments, the command explains embedded images of four digits. Their class is the sum of the distinct
    digits.
    """
    if not settings.interactions and (settings.screen is not None or settings.beam_width > 1):
        raise click.UsageError("--no-interactions ranks all patches at once; pass it without --screen and --beam-width")
    if settings.searches_minimal and settings.stop != "flip":
        option = "--minimal" if settings.minimal else "--alternatives"
        raise click.UsageError(f"{option} requires a flip, but --stop is never; pass --stop flip")
    classifier, sources = load_sources(images, model=model, device=device, classes=classes, template=template)
    if model is None and settings.grid is None:
        settings = replace(settings, grid=demo.GRID)
    settings.check(classifier)
    sources = label_sources(sources, classifier.labels, pattern=label_pattern, label_map=label_map)
    class_index = None if target is None else classifier.class_index(target)
    check_outputs(sources, figures_of(sources, out, endings=EXPLANATION_FIGURES))
    existing = open_output_folder(out)

    def explain_image(source: SourceImage) -> str:
        result = explanation.explain(
            classifier,
            source.open(),
            name=source.name,
            target=class_index,
            true_label=source.label,
            settings=settings,
            show_progress=on_terminal(),
        )
        figure = result.save(out, stem=source.stem, html=html)
        return f"{source.name}: {result.summary()}; see {figure}{replaced_note(figure, existing)}"

    run_over_images(sources, explain_image, verb="explained")
