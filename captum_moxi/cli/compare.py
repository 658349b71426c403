"""``captum-moxi compare``: compare methods on images."""

from pathlib import Path

import click

from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, SourceImage, load_sources, on_terminal, run_over_images
from captum_moxi.explanation import CompareSettings, ComparisonReport, compare_image
from captum_moxi.methods import METHODS


@click.command(cls=Command, listing=METHODS)
@options.images()
@options.model(help="Hub name or folder of a Hugging Face image classifier. Without images: the embedded demo.")
@options.target()
@options.methods()
@options.metrics()
@options.mode()
@options.n_steps(
    default=30,
    show_default=True,
    help="Maximum number of patches that MoXI chooses, and at which the curves end. All 196 patches of a ViT take "
    "minutes per image.",
)
@options.grid()
@options.removal()
@options.reward()
@options.screen(
    default="gradient:8",
    show_default=True,
    help=f"Which patches each deletion step of MoXI evaluates: {options.CHOICES}. M is their number. Insertion "
    "evaluates all.",
)
@options.html()
@options.device()
@options.out()
@options.settings(CompareSettings)
def compare(
    images: tuple[str, ...],
    model: str | None,
    device: str | None,
    target: str | None,
    settings: CompareSettings,
    html: bool,
    out: Path,
) -> None:
    """Compare MoXI with other attribution methods.

    IMAGE is an image file or a folder of images. Without images, the command uses the embedded images and model. It
    prints a table with a row for each method and mode.

    \b
    In the folder --out:
    insertion.png, deletion.png  patches that flip the prediction, by method, for the first 12 images
    curves.png                   accuracy and confidence as patches are inserted or deleted, averaged over images
    comparison.csv               one row per image, method and mode
    IMAGE.html                   with --html: a slider along the path of each method
    """
    classifier, sources = load_sources(images, model=model, device=device)
    settings.check(classifier)
    class_index = None if target is None else classifier.class_index(target)
    out.mkdir(parents=True, exist_ok=True)
    report = ComparisonReport(out, settings)

    def compare_methods(source: SourceImage) -> None:
        result = compare_image(
            classifier,
            source.open(),
            name=source.name,
            target=class_index,
            settings=settings,
            show_progress=on_terminal(),
        )
        if html:
            (out / f"{source.stem}.html").write_text(result.page(), encoding="utf-8")
        report.add(result)

    def write_report() -> str:
        report.save_figures()
        return report.summary()

    run_over_images(sources, compare_methods, verb="compared", finish=write_report)
