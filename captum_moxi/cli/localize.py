"""``captum-moxi localize``: find the patches that classes depend on, including classes that are not predicted."""

from collections.abc import Mapping
from pathlib import Path

import click

from captum_moxi import explanation
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
from captum_moxi.explanation import LOCALIZATION_FIGURES, LocalizeSettings
from captum_moxi.removal import REMOVALS
from captum_moxi.search.screens import SCREENS


@click.command(cls=Command, listings=(REMOVALS, SCREENS))
@options.images(required=True, metavar="IMAGE...")
@options.model(required=True)
@options.classes()
@options.template()
@options.target(
    "targets",
    multiple=True,
    help="Class to explain: an index, a name or part of a name. Repeatable. Default: the two most likely classes.",
)
@options.image_label_pattern()
@options.image_label_map()
@options.n_steps(help="Maximum number of patches that each of the two deletions removes. Default: as many as needed.")
@options.grid()
@options.removal()
@options.screen(
    default="gradient:8",
    show_default=True,
    help=f"Which patches each step evaluates: {options.CHOICES}. M is the number of patches.",
)
@options.minimal()
@options.html()
@options.device()
@options.kernels()
@options.out()
@options.settings(LocalizeSettings)
def localize(
    images: tuple[str, ...],
    model: str,
    classes: tuple[str, ...] | None,
    template: str | None,
    device: str | None,
    targets: tuple[str, ...],
    label_pattern: str | None,
    label_map: Mapping[str, str] | None,
    settings: LocalizeSettings,
    html: bool,
    out: Path,
) -> None:
    """Find the patches that a class depends on, even if the model predicts another.

    The command first deletes the patches that oppose the class of --target, until the model predicts this class. It
    then deletes the patches that support the class, until it is no longer predicted (the paper's Appendix F and
    Figure 5). The prediction of the class depends on these patches. They need not cover the object. IMAGE is an image
    file or a folder of images. For each image, the command writes a figure and a JSON file with the patches of both
    deletions to the folder --out. Existing files of the same name are replaced.
    """
    classifier, sources = load_sources(images, model=model, device=device, classes=classes, template=template)
    class_indices = [classifier.class_index(target) for target in targets]
    settings.check(classifier)
    sources = label_sources(sources, classifier.labels, pattern=label_pattern, label_map=label_map)
    check_outputs(sources, figures_of(sources, out, endings=LOCALIZATION_FIGURES))
    existing = open_output_folder(out)

    def localize_image(source: SourceImage) -> str:
        result = explanation.localize(
            classifier,
            source.open(),
            name=source.name,
            targets=class_indices,
            true_label=source.label,
            settings=settings,
            show_progress=on_terminal(),
        )
        figure = result.save(out, stem=source.stem, html=html)
        return f"{source.name}: {result.summary()}; see {figure}{replaced_note(figure, existing)}"

    run_over_images(sources, localize_image, verb="explained")
