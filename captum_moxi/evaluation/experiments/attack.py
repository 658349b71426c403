"""Where an adversarial perturbation is (the paper's Figures 15 and 16)."""

from captum_moxi.evaluation.experiments.base import Findings
from captum_moxi.evaluation.experiments.commands import command, evaluate_command
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.replays.attack import measure_attacks, replay_attack, write_attack


def run(study: Study) -> Findings:
    """Attack the images of the curves, and measure the perturbation along the deletion orders."""
    run, out = study.curves, study.out / "attack"
    replayed = replay_attack(run, out, device=study.device, show_progress=study.show_progress)
    write_attack(replayed, out)
    return Findings(
        measurements=measure_attacks(replayed.results),
        notes=replayed.description,
        figures={"Norms by order": out / "attack.png"},
        commands=[evaluate_command(study, run), command("attack", run, device=study.device, out=out)],
    )
