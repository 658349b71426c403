"""``captum-moxi report``: report the runs of ``captum-moxi evaluate``."""

from collections.abc import Sequence
from pathlib import Path

import click

from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, require_packages


@click.command(cls=Command)
@options.run_folders()
@options.fractions()
@options.resamples()
@options.gallery()
@options.out(
    default=None, show_default=False, help="Folder of the report. Default: the folder of the run, if only one."
)
def report(
    folders: tuple[Path, ...], fractions: Sequence[float], resamples: int, gallery: int | None, out: Path | None
) -> None:
    """Draw the curves of runs that `captum-moxi evaluate` wrote, side by side, and write their tables.

    \b
    report.md, report.csv  one row per method and mode: accuracy, areas, patches to the flip, seconds
    curves.png             accuracy and confidence with 95 % bands, averaged over images, if runs continue after flips
    flips.png              share of images flipped by each number of patches
    RUN-MODE.png           with --gallery: patches that flip the prediction, by image and method
    """
    require_packages("report", "datasets", "pandas", "pyarrow")
    from captum_moxi.evaluation.reports import write_report

    if out is None and len(folders) > 1:
        raise click.UsageError("--out is missing; pass a folder for the report of several runs")
    click.echo(write_report(folders, out, fractions=fractions, resamples=resamples, gallery=gallery))
