"""``captum-moxi evaluate``: run methods on every image of a folder or a dataset."""

from pathlib import Path

import click

from captum_moxi.cli import options
from captum_moxi.cli.runner import DEBUG, Command, CommandError, require_packages
from captum_moxi.cli.types import SpecType
from captum_moxi.errors import describe_error
from captum_moxi.evaluation.engines import ENGINES
from captum_moxi.evaluation.settings import Settings
from captum_moxi.methods import METHODS
from captum_moxi.removal import REMOVALS
from captum_moxi.rewards import REWARDS
from captum_moxi.search.screens import SCREENS


@click.command(cls=Command, listings=(METHODS, REMOVALS, REWARDS, SCREENS, ENGINES))
@options.model(required=True)
@options.classes(
    help="Name of a class, for zero-shot classifiers such as CLIP or SigLIP. Repeat the option for each class. Default "
    "with --template: the labels of the data, for example the names of the folders."
)
@options.template()
@options.data()
@options.split()
@options.label_pattern()
@options.label_map()
@options.keep()
@options.limit(
    help="Maximum number of images. The first images are used. A later call may increase the limit. Default: all."
)
@options.methods(default="moxi")
@options.mode()
@options.stop(
    help="flip: stop when the target becomes the predicted class (insertion) or is no longer predicted (deletion). "
    "never: continue after the flip, which the curves of a report require."
)
@options.n_steps()
@options.grid()
@options.removal(type=SpecType(REMOVALS))
@options.minimal(
    help="After the flip, moxi and moxi-minus leave out the patches that the flip does not need. Requires --stop flip.",
)
@options.alternatives(
    help="moxi and moxi-minus find up to N minimal groups in each image that share no patch. The report contains their "
    "number. Implies --minimal. The search for a group that does not exist takes long. --n-steps limits it.",
)
@options.reward(
    type=SpecType(REWARDS),
    help=f"Quantity that insertion increases and deletion decreases: {options.CHOICES}. CLASS is the index of the "
    "class with which the target is contrasted.",
)
@options.run_screen()
@options.batch_size()
@options.device(type=options.TEXT)
@options.kernels()
@options.engine()
@options.workers()
@options.cpus()
@options.gpus()
@options.out(
    required=True, default=None, show_default=False, help="Folder of the run. It is created if it does not exist."
)
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
    """Run methods on every image of a folder or dataset.

    The command writes a run to the folder --out: the settings in manifest.json, and one row for each image, method and
    mode in rows/*.parquet. The columns include image, label, target, method, mode, order, rewards, confidences,
    predictions, seconds and versions. After an interruption, repeat the same command to continue. An image that cannot
    be read is recorded and skipped. `captum-moxi report FOLDER` summarizes the run.
    """
    require_packages("evaluate", "datasets", "pyarrow")
    import datasets

    from captum_moxi.evaluation.runs import describe_finished, run_evaluation

    datasets.disable_progress_bars()
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
    except (KeyboardInterrupt, OSError, RuntimeError, MemoryError) as error:
        if click.get_current_context().meta.get(DEBUG):
            raise
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else describe_error(error)
        raise CommandError(f"{reason}; {describe_finished(out)}; repeat the same command to continue") from None
    click.echo(summary)
