"""``captum-moxi attack``: measure which patches adversarial perturbations change most."""

from pathlib import Path

import click

from captum_moxi.arguments import Mode
from captum_moxi.cli import options
from captum_moxi.cli.runner import Command, require_packages


@click.command(cls=Command)
@options.run_folder()
@options.run_mode()
@options.radius()
@options.step_size()
@options.n_steps(default=10, show_default=True, help="Number of gradient steps.")
@options.limit(help="Maximum number of images. The first explained images are used. Default: all.")
@options.device()
@options.kernels()
@options.out(required=True, default=None, show_default=False)
def attack(
    run: Path,
    mode: Mode,
    radius: float,
    step_size: float,
    n_steps: int,
    limit: int | None,
    device: str | None,
    out: Path,
) -> None:
    """Measure which patches an adversarial attack perturbs most.

    The command attacks the images of a run (FOLDER, written by `captum-moxi evaluate --stop never`) with projected
    gradient descent (PGD) in an L2 ball. It then measures how much of the perturbation is on the patches that each
    method ranks first (the paper's Appendix G.2). After an interruption, repeat the same command to continue.

    \b
    In the folder --out:
    attack.jsonl   norms of the perturbation, one line for each image
    attack.md      mean norms on the first patches of each order
    attack.png     mean norms by number of patches
    """
    require_packages("attack", "datasets", "pyarrow")
    from captum_moxi.evaluation.replays import run_attack

    click.echo(
        run_attack(
            run,
            out,
            mode=mode,
            radius=radius,
            step_size=step_size,
            n_steps=n_steps,
            limit=limit,
            device=device,
            show_progress=True,
        )
    )
