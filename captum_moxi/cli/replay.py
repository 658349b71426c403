"""``captum-moxi replay``: evaluate the orders of a run under other removals."""

from pathlib import Path

import click

from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, require_packages


@click.command(cls=Command)
@options.run_folder()
@options.replay_removals()
@options.limit(help="Maximum number of images. The first explained images are used. Default: all.")
@options.resamples()
@options.device()
@options.kernels()
@options.out(required=True, default=None, show_default=False)
def replay(
    run: Path, removals: tuple[str, ...] | None, limit: int | None, resamples: int, device: str | None, out: Path
) -> None:
    """Replay the orders of a run under other removals.

    FOLDER is a run that was written by `captum-moxi evaluate --stop never`. A method finds its order under one removal.
    The command inserts and deletes the patches in each order under every removal, and compares the areas. SRG
    (symmetric relevance gain) is the insertion area minus the deletion area. If the run has --n-steps, the areas end at
    this number of patches. After an interruption, repeat the same command to continue.

    \b
    In the folder --out:
    REMOVAL/                           one run for each removal, for captum-moxi report
    replay.md, replay.csv, replay.json areas and SRG with 95 % intervals
    replay.png                         the same as a figure
    paired.csv                         MoXI and the best other order on the same images, from 10 images on
    """
    require_packages("replay", "datasets", "pandas", "pyarrow", "scipy")
    from captum_moxi.evaluation.replays import run_removals

    click.echo(
        run_removals(run, out, removals=removals, limit=limit, resamples=resamples, device=device, show_progress=True)
    )
