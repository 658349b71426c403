"""Numbers of patches to the flip, which two experiments report."""

from collections.abc import Sequence

from captum_moxi.arguments import MODES
from captum_moxi.evaluation.curves import RunCurve
from captum_moxi.evaluation.measurements import TESTED, Measurement
from captum_moxi.metrics import median_flip
from captum_moxi.tables import markdown_table


def measure_flips(
    curves: Sequence[RunCurve], *, quantity: str, at_most: int | None = None, tested: Sequence[str] = TESTED
) -> list[Measurement]:
    """Measure the number of patches to the flip of each image and mode.

    Args:
        curves (Sequence[RunCurve]): All curves of a run that stopped at flips.
        quantity (str): Name of the quantity.
        at_most (int, optional): Maximum number of players of the run.
            Default: None, all players
        tested (Sequence[str], optional): Titles that are compared with the best of the other methods.
            Default: MoXI and symmetric search
    """
    return [
        Measurement(
            f"{quantity}, {mode}",
            "lower",
            {curve.method: curve.finite_flip_counts(at_most=at_most).numpy() for curve in curves if curve.mode == mode},
            tested,
        )
        for mode in MODES
    ]


def medians_table(curves: Sequence[RunCurve]) -> str:
    """Return the median number of patches to the flip and the number of flips as a Markdown table."""
    rows = [
        [
            curve.mode,
            curve.method,
            median_flip(curve.flip_counts.tolist(), curve.max_steps),
            f"{int(curve.flip_counts.isfinite().sum())} of {len(curve.images)}",
        ]
        for curve in curves
    ]
    return markdown_table(["mode", "", "patches to the flip, median", "flipped"], rows)
