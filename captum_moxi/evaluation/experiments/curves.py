"""Insertion and deletion curves (the paper's Figures 3, 8 and 9)."""

from captum_moxi.evaluation.curves import read_run_curves
from captum_moxi.evaluation.experiments.base import Findings
from captum_moxi.evaluation.experiments.commands import evaluate_command, report_command
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.reports import measure_accuracy, measure_areas, write_report
from captum_moxi.evaluation.runs import summarize_run

# Fractions of the patches at which the paper's text states the accuracy.
INSERTED, DELETED = 0.04, 0.1


def run(study: Study) -> Findings:
    """Evaluate all methods beyond the flips."""
    run = study.curves
    write_report([run], resamples=study.resamples)
    curves = read_run_curves(run)
    return Findings(
        measurements=[
            *measure_accuracy(curves, "insertion", INSERTED),
            *measure_accuracy(curves, "deletion", DELETED),
            *measure_areas(curves),
        ],
        notes=[summarize_run(run)],
        figures={"Curves": run / "curves.png"},
        commands=[evaluate_command(study, run), report_command(study, run)],
    )
