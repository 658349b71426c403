"""Minimal and disjoint groups (the paper's Appendix C states the number of steps to the flip)."""

from captum_moxi.arguments import MODES, Mode
from captum_moxi.evaluation.curves import RunCurve, read_run_curves
from captum_moxi.evaluation.experiments.base import Findings, SkippedError
from captum_moxi.evaluation.experiments.commands import evaluate_command, report_command
from captum_moxi.evaluation.experiments.flips import measure_flips, medians_table
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.measurements import Measurement
from captum_moxi.evaluation.reports import write_report
from captum_moxi.evaluation.runs import summarize_run
from captum_moxi.methods import get_methods

# Maximum number of disjoint groups of an image.
ALTERNATIVES = 3


def run(study: Study) -> Findings:
    """Search minimal groups, and up to three disjoint groups in each image."""
    if all(method.minimal_search is None for method in get_methods(study.settings.methods)):
        raise SkippedError("none of the methods searches minimal groups; add moxi to the methods")
    limit = study.limit_of_slow_experiments
    run = study.evaluate("groups", limit=limit, stop="flip", alternatives=ALTERNATIVES)
    write_report([run], resamples=study.resamples)
    curves = read_run_curves(run)
    # The curves of minimal groups end at the flip. Only MoXI's groups are minimal, so methods are not compared.
    sizes = measure_flips(curves, quantity="patches", at_most=study.settings.n_steps, tested=())
    return Findings(
        measurements=[*sizes, *(_count_groups(curves, mode) for mode in MODES)],
        notes=[summarize_run(run)],
        tables=[medians_table(curves)],
        figures={"Images flipped by number of patches": run / "flips.png"},
        commands=[
            evaluate_command(study, run, limit=limit, stop="flip", alternatives=ALTERNATIVES),
            report_command(study, run),
        ],
    )


def _count_groups(curves: list[RunCurve], mode: Mode) -> Measurement:
    """Return the number of disjoint groups of each image, of methods that search them."""
    counts = {
        curve.method: curve.groups.counts.double().numpy()
        for curve in curves
        if curve.mode == mode and curve.groups is not None and curve.groups.counts is not None
    }
    return Measurement(f"disjoint groups of at most {ALTERNATIVES}, {mode}", "higher", counts)
