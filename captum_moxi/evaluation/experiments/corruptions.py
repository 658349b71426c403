"""Corrupted instead of removed patches (the paper's Figures 6, 13 and 14)."""

from importlib.util import find_spec

from captum_moxi.evaluation.experiments.base import Findings, SkippedError
from captum_moxi.evaluation.experiments.commands import evaluate_command, replay_command
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.replays.corruption import (
    corruption_table,
    measure_corruptions,
    replay_corruptions,
    write_corruptions,
)


def run(study: Study) -> Findings:
    """Corrupt the patches in the deletion orders of the curves, with all registered corruptions."""
    if find_spec("imagecorruptions") is None:
        raise SkippedError("it requires imagecorruptions-imaug; run pip install 'captum-moxi[corruptions]'")
    run, out, limit = study.curves, study.out / "corruptions", study.limit_of_slow_experiments
    replayed = replay_corruptions(run, out, limit=limit, device=study.device, show_progress=study.show_progress)
    write_corruptions(replayed, out, resamples=study.resamples)
    return Findings(
        measurements=[measure_corruptions(replayed.results)],
        notes=replayed.description,
        tables=[corruption_table(replayed.results)],
        figures={"Curves by corruption": out / "corruptions.png"},
        commands=[evaluate_command(study, run), replay_command(study, "corrupt", run, out, limit=limit)],
    )
