"""``captum-moxi corrupt``: replay the deletions of a run with corruptions instead of removal."""

from pathlib import Path

import click

from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, require_packages


@click.command(cls=Command)
@options.run_folder()
@options.corruptions()
@options.severity()
@options.limit(help="Use at most this many images, the first that were explained.")
@options.resamples()
@options.device()
@options.out(required=True, default=None, show_default=False)
def corrupt(
    run: Path,
    corruptions: tuple[str, ...],
    severity: int,
    limit: int | None,
    resamples: int,
    device: str | None,
    out: Path,
) -> None:
    """Corrupt patches in the deletion orders of a run, instead of removing them (the paper's Figure 6).

    If the command is interrupted, the same command continues.

    \b
    In the folder --out:
    CORRUPTION/        one run for each corruption, for captum-moxi report
    corruptions.md     areas under the curves
    corruptions.png    curves, one panel for each corruption
    """
    require_packages("corrupt", "datasets", "pyarrow")
    from captum_moxi.evaluation.replays import run_corruptions

    click.echo(
        run_corruptions(
            run,
            out,
            corruptions=corruptions,
            severity=severity,
            limit=limit,
            resamples=resamples,
            device=device,
            show_progress=True,
        )
    )
