"""``captum-moxi explain``: explain images."""

import sys
from dataclasses import replace
from pathlib import Path

import click

from captum_moxi import demo, explanation
from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, SourceImage, load_sources, run_over_images
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
    """Explain each IMAGE, or the images in a folder: a figure and a JSON file for each, in the folder --out.

    Without arguments, the command explains the embedded images: digits, whose class is the sum of the distinct ones.
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
            show_progress=sys.stderr.isatty(),
        )
        figure = result.save(out, stem=source.stem, html=html)
        return f"{source.name}: {result.summary()}; see {figure}"

    run_over_images(sources, explain_image, verb="explained")
