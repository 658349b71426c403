"""``captum-moxi reproduce``: run the paper's experiments on your own model and images."""

from pathlib import Path

import click

from captum_moxi.cli import options
from captum_moxi.cli.runner import DEBUG, Command, CommandError, one_line, require_packages, with_options, write_line
from captum_moxi.evaluation.experiments import EXPERIMENTS
from captum_moxi.evaluation.settings import Settings
from captum_moxi.methods import DEFAULT_METHODS, METHODS
from captum_moxi.search.screens import SCREENS


@click.command(cls=Command, listings=(EXPERIMENTS, METHODS, SCREENS))
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
@options.experiments()
@options.limit(
    help="Maximum number of images. The first images are used. A later call may increase the limit. Default: all."
)
@options.slow_limit()
@options.methods(
    "methods_or_default",
    show_default=f"{','.join(DEFAULT_METHODS)}; those that do not support the model are left out",
)
@options.n_steps(
    help="Maximum number of patches to choose, except in seconds and galleries, which end at the flip. Default: all, "
    "which takes minutes per image on a CPU.",
)
@options.grid()
@options.run_screen()
@options.resamples()
@options.device()
@options.kernels()
@options.out(
    required=True, default=None, show_default=False, help="Folder of the results. It is created if it does not exist."
)
@options.settings(Settings)
def reproduce(
    settings: Settings,
    only: tuple[str, ...] | None,
    limit: int | None,
    slow_limit: int | None,
    methods_or_default: tuple[str, ...] | None,
    resamples: int,
    device: str | None,
    out: Path,
) -> None:
    """Run the paper's experiments on your own model and images.

    The list at the end describes the experiments. Their results are in folders of --out. results.md contains what the
    paper reports, the means over the images with 95 % intervals, a paired comparison of MoXI with the best other
    method, the figures, and the commands that compute the same results one by one. It is written after each experiment.
    An experiment that does not fit the model or the methods is skipped, and the page says why. If one fails, the others
    still run, and the exit code is 2. After an interruption, repeat the same command to continue.
    """
    require_packages("reproduce", "datasets", "pandas", "pyarrow", "scipy")
    import datasets

    from captum_moxi.evaluation.experiments.reproduction import page_of, reproduce_experiments
    from captum_moxi.evaluation.experiments.study import Study

    datasets.disable_progress_bars()
    study = Study.prepare(
        settings,
        out,
        methods=methods_or_default,
        limit=limit,
        slow_limit=slow_limit,
        resamples=resamples,
        device=device,
        show_progress=True,
    )
    failed = []
    try:
        for outcome in reproduce_experiments(study, only=only, raise_errors=click.get_current_context().meta[DEBUG]):
            name, reason = outcome.experiment.name, f": {with_options(outcome.reason)}" if outcome.reason else ""
            write_line(one_line(f"{name}: {outcome.status}{reason}"), err=outcome.status == "failed")
            failed += [name] if outcome.status == "failed" else []
    except KeyboardInterrupt:
        if click.get_current_context().meta[DEBUG]:
            raise
        raise CommandError(
            f"interrupted; finished experiments are in {page_of(study)}; repeat the same command to continue"
        ) from None
    click.echo(page_of(study))
    if failed:
        raise CommandError(f"{len(failed)} of the experiments failed: {', '.join(failed)}")
