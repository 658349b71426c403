"""``captum-moxi report``: summarize the runs of ``captum-moxi evaluate``."""

from collections.abc import Sequence
from pathlib import Path

import click

from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, one_line, require_packages


@click.command(cls=Command)
@options.run_folders()
@options.fractions()
@options.resamples()
@options.gallery()
@options.out(
    default=None,
    show_default=False,
    help="Folder of the report. Required for several runs. Default: the folder of the run.",
)
def report(
    folders: tuple[Path, ...], fractions: Sequence[float], resamples: int, gallery: int | None, out: Path | None
) -> None:
    """Summarize runs in a table and figures.

    FOLDER is a run that was written by `captum-moxi evaluate`. Several runs are compared in one table.

    \b
    In the folder --out:
    report.md, report.csv  one row per method and mode: accuracy, areas, SRG, patches to the flip, seconds
    paired.csv             MoXI and the best other method on the same images, from 10 images on; also in report.md
    curves.png             accuracy and confidence, averaged over images, if runs continue after flips
    flips.png              fraction of images flipped by each number of patches
    RUN-MODE.png           with --gallery: patches that flip the prediction, by image and method
    """
    require_packages("report", "datasets", "pandas", "pyarrow", "scipy")
    from captum_moxi.evaluation.reports import write_report

    if out is None and len(folders) > 1:
        raise click.UsageError("--out is missing; pass a folder for the report of several runs")
    click.echo(write_report(folders, out, fractions=fractions, resamples=resamples, gallery=gallery))
    click.echo("\n" + one_line(f"The report and its figures are in {out or folders[0]}."))
