"""The page with the results of the experiments."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from captum_moxi.evaluation import store
from captum_moxi.evaluation.experiments import EXPERIMENTS
from captum_moxi.evaluation.experiments.base import Experiment, Findings, Status
from captum_moxi.evaluation.experiments.commands import reproduce_command
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.measurements import PAIRED_LEGEND, describe_pairs, means_table
from captum_moxi.files import write_file
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
The paper has further experiments. Two of them train models: `python -m captum_moxi.experiments.set_sum` (Figure 2,
Appendix A) and `python -m captum_moxi.experiments.class_counts` (Section 5.4, Figures 7 and 17; the paper uses
ImageNet, and this command uses digits). `captum-moxi localize IMAGE --model MODEL --target CLASS` locates a class that
is not predicted (Appendix F, Figure 5). The deletion curves under attack (Figures 15(a) and 16(a)) have no command.
""".strip()

# File with the sections of the page, so that a later call with other experiments keeps them.
SECTIONS = "sections.json"


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


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Args:
        status (str): How the experiment ended.
        images (int or None): Number of images, if it finished.
        text (str): The section in Markdown.
    """

    status: Status
    images: int | None
    text: str


def results_page(study: Study, sections: Mapping[str, Section], *, only: Sequence[str] | None = None) -> str:
    """Return the page in Markdown. Paths of figures are relative to the folder of the study.

    Args:
        study (Study): The study.
        sections (Mapping[str, Section]): Sections of experiments that ran or were chosen, by name.
        only (Sequence[str], optional): Names of the experiments, if the user chose some.
            Default: None, all experiments
    """
    paragraphs = [
        f"# The paper's experiments on {_escaped(study.settings.model)}",
        "Sumiyasu, Kawamoto, Kera, *Identifying Important Group of Pixels using Interactions*, CVPR 2024, [arXiv "
        "2401.03785](https://arxiv.org/abs/2401.03785). Paragraphs that begin with *The paper* state the results of "
        "the paper, for its models and images. The following command measured all other results. To continue after "
        "an interruption, repeat it.",
        _code([reproduce_command(study, only=only)]),
        _overview(sections),
        _versions(store.package_versions()),
        *(section.text for section in sections.values()),
        "## How to read the tables",
        LEGEND,
        PAIRED_LEGEND,
        "## Other experiments",
        OTHERS,
    ]
    return "\n\n".join(paragraphs) + "\n"


def section_of(study: Study, outcome: Outcome) -> Section:
    """Return the section of an experiment."""
    return Section(outcome.status, _count_images(outcome.findings), "\n\n".join(_paragraphs(study, outcome)))


def read_sections(folder: Path) -> dict[str, Section]:
    """Read the sections of earlier calls, by name of the experiment.

    Args:
        folder (Path): Folder of the results.

    Raises:
        ValueError: If the file is damaged.
    """
    path = folder / SECTIONS
    if not path.exists():
        return {}
    try:
        return {name: Section(**section) for name, section in dict(json.loads(path.read_bytes())).items()}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and repeat the command") from None


def write_sections(folder: Path, sections: Mapping[str, Section]) -> None:
    """Write the sections, so that a later call with other experiments keeps them."""
    texts = {name: asdict(section) for name, section in sections.items()}
    write_file(folder / SECTIONS, json.dumps(texts, indent=1) + "\n")


def _paragraphs(study: Study, outcome: Outcome) -> Iterator[str]:
    experiment, findings = outcome.experiment, outcome.findings
    yield f"## {experiment.title}"
    yield f"*The paper* ({experiment.source}): {experiment.claim}"
    yield f"*Here*: {experiment.measured}"
    if findings is None:
        yield f"**{outcome.status.capitalize()}**{f': {_escaped(outcome.reason)}' if outcome.reason else ''}."
        return
    measurements, resamples, condition_title = findings.measurements, study.resamples, findings.condition_title
    yield from map(_escaped, findings.notes)
    yield means_table(measurements, resamples=resamples, condition_title=condition_title)
    yield from describe_pairs(
        measurements, resamples=resamples, condition_title=condition_title, title=findings.comparison
    )
    yield from findings.tables
    for title, path in findings.figures.items():
        yield f"![{title}](<{Path(os.path.relpath(path, study.out)).as_posix()}>)"
    yield "The same results, one command at a time:"
    yield _code(findings.commands)


def _overview(sections: Mapping[str, Section]) -> str:
    """Return a table of all experiments with the number of images."""
    rows: list[list[object]] = []
    for name in EXPERIMENTS:
        experiment, section = EXPERIMENTS.create(name), sections.get(name)
        images = "" if section is None or section.images is None else section.images
        rows.append([experiment.title, experiment.source, images, "not run yet" if section is None else section.status])
    return markdown_table(["experiment", "in the paper", "images", ""], rows)


def _count_images(findings: Findings | None) -> int | None:
    counts = [len(values) for item in findings.measurements for values in item.values.values()] if findings else []
    return max(counts, default=None)


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items()) + "."


def _code(lines: Sequence[str]) -> str:
    """Return an indented block of code: no text can end it."""
    return "\n".join(f"    {' '.join(line.split())}" for line in lines)


def _escaped(text: str) -> str:
    """Escape what would be HTML or an image in Markdown."""
    return re.sub(r"([<&\[\]*`])", r"\\\1", text)
