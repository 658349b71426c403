"""The page of handmade findings."""

import numpy as np
import pytest
from numpy.typing import NDArray

from captum_moxi.evaluation.experiments import EXPERIMENTS, Experiment, Findings
from captum_moxi.evaluation.experiments.page import Outcome, read_sections, results_page, section_of, write_sections
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
    page = results_page(study, {"areas": section_of(study, Outcome(EXPERIMENT, "finished", findings))})
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


def test_the_overview_lists_all_experiments(study: Study) -> None:
    measurement = Measurement("area", "higher", {"MoXI": values(0.75)})
    finished = Outcome(EXPERIMENTS.create("curves"), "finished", Findings([measurement], commands=[]))
    skipped = Outcome(EXPERIMENTS.create("layers"), "skipped", reason="no attention")
    page = results_page(study, {"curves": section_of(study, finished), "layers": section_of(study, skipped)})
    table = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")][2:10]
    assert [(row[2].strip(), row[3].strip()) for row in table] == [
        ("10", "finished"),
        ("", "not run yet"),
        ("", "skipped"),
        *[("", "not run yet")] * 5,
    ]


def test_sections_are_stored(study: Study) -> None:
    study.open_folder()
    assert read_sections(study.out) == {}
    sections = {"areas": section_of(study, Outcome(EXPERIMENT, "failed", reason="the disk is full"))}
    write_sections(study.out, sections)
    assert read_sections(study.out) == sections
    (study.out / "sections.json").write_text('{"areas": {}}')
    with pytest.raises(ValueError, match=r"sections\.json is damaged .*; delete it, and repeat the command"):
        read_sections(study.out)


def test_an_experiment_that_has_not_run_has_no_table(study: Study) -> None:
    page = results_page(study, {"areas": section_of(study, Outcome(EXPERIMENT, "not run yet"))})
    section = page.partition("## Areas")[2].partition("## How to read")[0]
    assert section.rstrip().endswith("**Not run yet**.") and "|" not in section
