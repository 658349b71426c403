"""``captum-moxi benchmark``: measure the cost and the results of searches on this machine."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from PIL import Image

from captum_moxi.benchmarks import BENCHMARKS, Bench
from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, SourceImage, demo_sources, file_sources, one_line, open_output_folder
from captum_moxi.demo import demo_classifier
from captum_moxi.evaluation.records import Records
from captum_moxi.models import ImageClassifier, load


@click.command(cls=Command, listings=(BENCHMARKS,))
@options.benchmark_name()
@options.model(
    "models",
    multiple=True,
    help="Hub name or folder of a Hugging Face image classifier. Repeatable. Default: the embedded model.",
)
@options.image_paths()
@options.limit()
@options.grid()
@options.repeats()
@options.most_steps()
@options.searches()
@options.device()
@options.kernels()
@options.out_file()
def benchmark(
    name: str,
    models: tuple[str, ...],
    paths: tuple[str, ...],
    limit: int | None,
    grid: int | None,
    repeats: int,
    most_steps: int | None,
    searches: tuple[str, ...],
    device: str | None,
    out: Path | None,
) -> None:
    """Measure the cost and the results of searches on this machine.

    The command prints the machine and a Markdown table. The list at the end describes the benchmarks.
    """
    records = Records(out)
    sources = file_sources(paths) if paths else demo_sources()
    if out is not None:
        open_output_folder(out.parent)
    try:
        bench = Bench(
            classifiers=_load_classifiers(models, device=device),
            images=[(source.name, _open(source)) for source in sources[:limit]],
            grid=grid,
            repeats=repeats,
            most_steps=most_steps,
            searches=searches,
            records=records,
        )
        click.echo(f"{bench.machine}\n\n{BENCHMARKS.create(name)(bench)}")
    finally:
        stored = one_line(f"stored in {out}") if out else "not stored; pass --out FILE to store them"
        click.echo(f"{records.measured} new measurements, {records.reused} reused; {stored}", err=True)


def _load_classifiers(models: Sequence[str], *, device: str | None) -> list[ImageClassifier]:
    if not models:
        return [replace(demo_classifier(device), name="demo")]
    return [load(model, device) for model in models]


def _open(source: SourceImage) -> Image.Image:
    try:
        return source.open()
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from None
