"""The same orders under several removals."""

from captum_moxi.evaluation.experiments.base import Findings
from captum_moxi.evaluation.experiments.commands import evaluate_command, replay_command
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.replays.removals import measure_replays, replay_removals, write_removals


def run(study: Study) -> Findings:
    """Insert and delete the orders of the curves under all removals that fit the model."""
    run, out = study.curves, study.out / "replays"
    replayed = replay_removals(run, out, device=study.device, show_progress=study.show_progress)
    write_removals(replayed, out, resamples=study.resamples)
    return Findings(
        measurements=measure_replays(replayed.results),
        notes=replayed.description,
        figures={"Areas by removal": out / "replay.png"},
        commands=[evaluate_command(study, run), replay_command(study, "replay", run, out)],
        condition_title="removal",
    )
