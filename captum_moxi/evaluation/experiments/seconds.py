"""Time per image up to the flip (the paper's Table 1)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from captum_moxi.arguments import MODES
from captum_moxi.evaluation import store
from captum_moxi.evaluation.experiments.base import Findings
from captum_moxi.evaluation.experiments.commands import evaluate_command, report_command
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.measurements import Measurement
from captum_moxi.evaluation.reports import write_report
from captum_moxi.evaluation.runs import summarize_run


def run(study: Study) -> Findings:
    """Explain one image at a time, up to the flip."""
    run = study.flips
    write_report([run], resamples=study.resamples)
    seconds = [Measurement(f"seconds, {mode}", "lower", _values(run, mode, "seconds")) for mode in MODES]
    # Rows have no paired comparison: the paper compares seconds.
    rows = [Measurement(f"rows, {mode}", "lower", _values(run, mode, "rows"), tested=()) for mode in MODES]
    return Findings(
        measurements=[*seconds, *rows],
        notes=[summarize_run(run)],
        commands=[flips_command(study), report_command(study, run)],
    )


def flips_command(study: Study) -> str:
    """Return the command of the run."""
    return evaluate_command(study, study.out / "seconds", batch_size=1, stop="flip", n_steps=None)


def _values(run: Path, mode: str, column: str) -> dict[str, NDArray[np.float64]]:
    """Return a column of a run by method, in the order of the images."""
    rows = store.read_rows(run, ["image", "status", "method", "mode", column]).to_pandas()
    rows = rows[(rows["status"] == "explained") & (rows["mode"] == mode)]
    return {method: group[column].to_numpy(np.float64) for method, group in rows.groupby("method", sort=False)}
