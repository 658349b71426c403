"""``captum-moxi explain``: find the patches that explain the predictions for images."""

from dataclasses import replace
from pathlib import Path

import click

from captum_moxi import demo, explanation
from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, SourceImage, load_sources, on_terminal, run_over_images
from captum_moxi.explanation import ExplainSettings


@click.command(cls=Command)
@options.images()
@options.model(help="Hub name or folder of a Hugging Face image classifier. Without images: the embedded demo.")
@options.target()
@options.mode()
@options.stop()
@options.min_confidence()
@options.n_steps()
@options.grid()
@options.removal()
@options.reward()
@options.interactions()
@options.screen()
@options.beam_width()
@options.html()
@options.device()
@options.out()
@options.settings(ExplainSettings)
def explain(
    images: tuple[str, ...],
    model: str | None,
    device: str | None,
    target: str | None,
    settings: ExplainSettings,
    html: bool,
    out: Path,
) -> None:
    """Find the patches that explain the prediction for an image.

    Insertion finds the patches that together make the model predict the target. Deletion finds the patches without
    which the model no longer predicts it. IMAGE is an image file or a folder of images. For each image, the command
    writes a figure and a JSON file to the folder --out, and prints one line.

    Without arguments, the command explains embedded images of four digits. Their class is the sum of the distinct
    digits.
    """
    if not settings.interactions and (settings.screen is not None or settings.beam_width > 1):
        raise click.UsageError("--no-interactions ranks all patches at once; pass it without --screen and --beam-width")
    classifier, sources = load_sources(images, model=model, device=device)
    if model is None and settings.grid is None:
        settings = replace(settings, grid=demo.GRID)
    settings.check(classifier)
    class_index = None if target is None else classifier.class_index(target)
    out.mkdir(parents=True, exist_ok=True)

    def explain_image(source: SourceImage) -> str:
        result = explanation.explain(
            classifier,
            source.open(),
            name=source.name,
            target=class_index,
            settings=settings,
            show_progress=on_terminal(),
        )
        figure = result.save(out, stem=source.stem, html=html)
        return f"{source.name}: {result.summary()}; see {figure}"

    run_over_images(sources, explain_image, verb="explained")
