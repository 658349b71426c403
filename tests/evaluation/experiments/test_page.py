"""The page of handmade findings."""

import numpy as np
from numpy.typing import NDArray

from captum_moxi.evaluation.experiments import Experiment, Findings
from captum_moxi.evaluation.experiments.page import Outcome, results_page
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.measurements import Measurement


def run(study: Study) -> Findings:
    raise NotImplementedError


EXPERIMENT = Experiment("areas", "Areas", "Figure 3", "MoXI leads.", "The area.", run)


def values(mean: float) -> NDArray[np.float64]:
    """Ten values with this mean."""
    return mean + np.linspace(-0.1, 0.1, 10)


def test_a_section_has_the_claim_the_means_the_comparison_the_figure_and_the_commands(study: Study) -> None:
    findings = Findings(
        [Measurement("area", "higher", {"MoXI": values(0.75), "Grad-CAM": values(0.5), "Random": values(0.25)})],
        commands=["captum-moxi report 'a\n run'"],
        notes=["10 images of <data>"],
        tables=["| a table |"],
        figures={"Curves": study.out / "areas" / "curves.png"},
    )
    page = results_page(study, [Outcome(EXPERIMENT, "finished", findings)])
    section = page.partition("## Areas")[2].partition("## How to read")[0]
    pieces = [
        "*The paper* (Figure 3): MoXI leads.",
        "*Here*: The area.",
        r"10 images of \<data>",
        "|  | area ↑ |",
        "| MoXI | 0.75 (",
        "| Grad-CAM | 0.5 (",
        "| area | MoXI | Grad-CAM | 10 | 0.25 |",
        "| a table |",
        "![Curves](<areas/curves.png>)",
        # A line break would end the block of code.
        "    captum-moxi report 'a run'",
    ]
    positions = [section.index(piece) for piece in pieces]
    assert positions == sorted(positions)
    assert "| Areas | Figure 3 | 10 | finished |" in page


def test_an_experiment_that_has_not_run_has_no_table(study: Study) -> None:
    page = results_page(study, [Outcome(EXPERIMENT, "not run yet")])
    section = page.partition("## Areas")[2].partition("## How to read")[0]
    assert section.rstrip().endswith("**Not run yet**.") and "|" not in section
