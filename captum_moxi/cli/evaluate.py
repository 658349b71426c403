"""``captum-moxi evaluate``: run methods on a folder or a data set."""

from pathlib import Path

import click

from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, CommandError, require_packages
from captum_moxi.cli.types import SpecType, check_device
from captum_moxi.evaluation.settings import Settings
from captum_moxi.removal import REMOVALS
from captum_moxi.rewards import REWARDS
from captum_moxi.search.screens import SCREENS


@click.command(cls=Command)
@options.model(required=True)
@options.data()
@options.split()
@options.label_pattern()
@options.label_map()
@options.keep()
@options.limit(help="Use at most this many images, the first ones. A later call may raise the limit.")
@options.methods(default="moxi")
@options.mode()
@options.stop(help="Stop when the prediction flips, or never. The curves of a report need never.")
@options.n_steps()
@options.grid()
@options.removal(type=SpecType(REMOVALS))
@options.reward(type=SpecType(REWARDS), help=f"What the search raises or lowers: {options.CHOICES}.")
@options.screen(
    type=SpecType(SCREENS),
    default="gradient:8",
    show_default=True,
    help=f"Which patches a deletion step of MoXI evaluates: {options.CHOICES}. Insertion evaluates all.",
)
@options.batch_size()
@options.device(type=str)
@options.engine()
@options.workers()
@options.cpus()
@options.gpus()
@options.out(required=True, default=None, show_default=False, help="Folder of the run.")
@options.settings(Settings)
def evaluate(
    settings: Settings,
    out: Path,
    limit: int | None,
    batch_size: int,
    device: str | None,
    engine: str,
    workers: int,
    cpus: float,
    gpus: float,
) -> None:
    """Run methods on every image of a folder or data set, and save the results in Parquet.

    The folder --out holds the settings in manifest.json and rows/*.parquet: image, label, target, method, mode, order,
    rewards, confidences, predictions, seconds, versions. If the command is interrupted, the same command continues. An
    image that cannot be read is recorded and skipped. Then run `captum-moxi report FOLDER`.
    """
    require_packages("evaluate", "datasets", "pyarrow")
    import datasets

    from captum_moxi.evaluation.runs import describe_finished, run_evaluation

    datasets.disable_progress_bars()
    if engine == "local" and device is not None:
        # other engines use the devices of their workers
        check_device(device)
    try:
        summary = run_evaluation(
            settings,
            out,
            batch_size=batch_size,
            engine=engine,
            workers=workers,
            cpus=cpus,
            gpus=gpus,
            device=device,
            limit=limit,
            show_progress=True,
        )
    except (KeyboardInterrupt, OSError) as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else error
        raise CommandError(f"{reason}; {describe_finished(out)}; the same command continues") from None
    click.echo(summary)
