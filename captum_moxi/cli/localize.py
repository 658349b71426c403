"""``captum-moxi localize``: show where classes are in images, including classes that are not predicted."""

from pathlib import Path

import click

from captum_moxi import explanation
from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, SourceImage, load_sources, on_terminal, run_over_images
from captum_moxi.explanation import LocalizeSettings


@click.command(cls=Command)
@options.images(required=True, metavar="IMAGE...")
@options.model(required=True)
@options.target(
    "targets",
    multiple=True,
    help="Class to locate: an index, a name or part of a name. Repeatable. Default: the two most likely classes.",
)
@options.n_steps(help="Maximum number of patches that each of the two deletions removes. Default: as many as needed.")
@options.grid()
@options.removal()
@options.screen(
    default="gradient:8",
    show_default=True,
    help=f"Which patches each step evaluates: {options.CHOICES}. M is their number.",
)
@options.device()
@options.out()
@options.settings(LocalizeSettings)
def localize(
    images: tuple[str, ...],
    model: str,
    device: str | None,
    targets: tuple[str, ...],
    settings: LocalizeSettings,
    out: Path,
) -> None:
    """Show where a class is, even if the model predicts another.

    The command first deletes patches that support the predicted class, until the class of --target is predicted. It
    then deletes patches that support this class, until it is no longer predicted (the paper's Appendix F and Figure 5).
    IMAGE is an image file or a folder of images. For each image, the command writes a figure and a JSON file with the
    patches of both deletions to the folder --out.
    """
    classifier, sources = load_sources(images, model=model, device=device)
    class_indices = [classifier.class_index(target) for target in targets]
    out.mkdir(parents=True, exist_ok=True)

    def localize_image(source: SourceImage) -> str:
        result = explanation.localize(
            classifier,
            source.open(),
            name=source.name,
            targets=class_indices,
            settings=settings,
            show_progress=on_terminal(),
        )
        return f"{source.name}: {result.summary()}; see {result.save(out, stem=source.stem)}"

    run_over_images(sources, localize_image, verb="explained")
