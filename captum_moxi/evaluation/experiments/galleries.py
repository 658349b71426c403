"""Pictures of the patches up to the flip (the paper's Figures 4, 11 and 12)."""

from captum_moxi.arguments import MODES
from captum_moxi.evaluation.curves import read_run_curves
from captum_moxi.evaluation.experiments.base import Findings
from captum_moxi.evaluation.experiments.commands import report_command
from captum_moxi.evaluation.experiments.flips import measure_flips, medians_table
from captum_moxi.evaluation.experiments.seconds import flips_command
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.reports import write_report
from captum_moxi.evaluation.runs import summarize_run

# Maximum number of images in a gallery.
IMAGES = 6


def run(study: Study) -> Findings:
    """Draw the patches to the flip of the first images, and count those of all images."""
    run, out = study.flips, study.out / "galleries"
    write_report([run], out, resamples=study.resamples, gallery=IMAGES, device=study.device)
    curves = read_run_curves(run)
    return Findings(
        measurements=measure_flips(curves, quantity="patches to the flip"),
        tables=[medians_table(curves)],
        notes=[summarize_run(run)],
        figures={
            "Images flipped by number of patches": out / "flips.png",
            **{f"Patches to the flip, {mode}": out / f"{run.name}-{mode}.png" for mode in MODES},
        },
        commands=[flips_command(study), report_command(study, run, gallery=IMAGES, out=out)],
    )
