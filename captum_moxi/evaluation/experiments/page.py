"""The page with the results of the experiments."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_moxi.evaluation import store
from captum_moxi.evaluation.experiments.base import Experiment, Findings, Status
from captum_moxi.evaluation.experiments.commands import reproduce_command
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.measurements import PAIRED_LEGEND, describe_pairs, means_table
from captum_moxi.metrics.bootstrap import MIN_IMAGES
from captum_moxi.tables import markdown_table

# Name of the page.
PAGE = "results.md"

LEGEND = f"""
Tables contain means over the images, from {MIN_IMAGES} images on with the 95 % bootstrap interval over images in
parentheses. ↑: higher is better, ↓: lower is better. **Area**: mean confidence in the target over the evaluated
fractions of the patches. **SRG** (symmetric relevance gain): insertion area minus deletion area of one order over all
patches; **area difference**, if the orders end before the last patch. The folder of each experiment contains further
tables, with their own legends.""".strip()

OTHERS = """
The paper has three more experiments. Two of them train their own models on digits: `python -m
captum_moxi.experiments.set_sum` (Figure 2, Appendix A) and `python -m captum_moxi.experiments.class_counts` (Section
5.4, Figures 7 and 17). `captum-moxi localize IMAGE --model MODEL --target CLASS` locates a class that is not predicted
(Appendix F, Figure 5).""".strip()


@dataclass(frozen=True)
class Outcome:
    """How an experiment ended.

    Args:
        experiment (Experiment): The experiment.
        status (str): ``"finished"``, ``"skipped"``, ``"failed"`` or ``"not run yet"``.
        findings (Findings, optional): What it found, if it finished.
            Default: None
        reason (str, optional): Why it was skipped or failed.
            Default: ``""``
    """

    experiment: Experiment
    status: Status
    findings: Findings | None = None
    reason: str = ""


def results_page(study: Study, outcomes: Sequence[Outcome], *, only: Sequence[str] | None = None) -> str:
    """Return the page in Markdown. Paths of figures are relative to the folder of the study.

    Args:
        study (Study): The study.
        outcomes (Sequence[Outcome]): How each experiment ended.
        only (Sequence[str], optional): Names of the experiments, if the user chose some.
            Default: None, all experiments
    """
    sections = [paragraph for outcome in outcomes for paragraph in _section(study, outcome)]
    paragraphs = [
        f"# The paper's experiments on {_escaped(study.settings.model)}",
        "Sumiyasu, Kawamoto, Kera, *Identifying Important Group of Pixels using Interactions*, CVPR 2024, [arXiv "
        "2401.03785](https://arxiv.org/abs/2401.03785). Paragraphs that begin with *The paper* state its results, with "
        "its models and images. Everything else was measured by the following command, which also continues after an "
        "interruption.",
        _code([reproduce_command(study, only=only)]),
        _overview(outcomes),
        _versions(store.package_versions()),
        *sections,
        "## How to read the tables",
        LEGEND,
        PAIRED_LEGEND,
        "## Other experiments",
        OTHERS,
    ]
    return "\n\n".join(paragraphs) + "\n"


def _section(study: Study, outcome: Outcome) -> Iterator[str]:
    experiment, findings = outcome.experiment, outcome.findings
    yield f"## {experiment.title}"
    yield f"*The paper* ({experiment.source}): {experiment.claim}"
    yield f"*Here*: {experiment.measured}"
    if findings is None:
        yield f"**{outcome.status.capitalize()}**{f': {_escaped(outcome.reason)}' if outcome.reason else ''}."
        return
    yield from map(_escaped, findings.notes)
    yield means_table(findings.measurements, resamples=study.resamples, group=findings.group)
    yield from describe_pairs(findings.measurements, resamples=study.resamples, group=findings.group)
    yield from findings.tables
    for title, path in findings.figures.items():
        yield f"![{title}](<{Path(os.path.relpath(path, study.out)).as_posix()}>)"
    yield "The same results, one command at a time:"
    yield _code(findings.commands)


def _overview(outcomes: Sequence[Outcome]) -> str:
    """Return a table of the experiments with the number of images."""
    return markdown_table(
        ["experiment", "in the paper", "images", ""],
        [[o.experiment.title, o.experiment.source, _count_images(o.findings), o.status] for o in outcomes],
    )


def _count_images(findings: Findings | None) -> int | str:
    counts = [len(values) for item in findings.measurements for values in item.values.values()] if findings else []
    return max(counts, default="")


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items()) + "."


def _code(lines: Sequence[str]) -> str:
    """Return an indented block of code: no text can end it."""
    return "\n".join(f"    {' '.join(line.split())}" for line in lines)


def _escaped(text: str) -> str:
    """Escape what would be HTML or an image in Markdown."""
    return re.sub(r"([<&\[\]*`])", r"\\\1", text)
