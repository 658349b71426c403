"""``captum-moxi corrupt``: corrupt the patches that a run deleted, instead of removing them."""

from pathlib import Path

import click

from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, require_packages


@click.command(cls=Command)
@options.run_folder()
@options.corruptions()
@options.severity()
@options.limit(help="Maximum number of images. The first explained images are used. Default: all.")
@options.resamples()
@options.device()
@options.kernels()
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
    """Replay the deletions of a run with corrupted patches.

    FOLDER is a run that was written by `captum-moxi evaluate --stop never`. The command corrupts the patches in the
    deletion order of each method instead of removing them, and measures how the model's confidence falls (the paper's
    Figure 6). After an interruption, repeat the same command to continue. The built-in corruptions require pip install
    'captum-moxi[corruptions]'.

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
