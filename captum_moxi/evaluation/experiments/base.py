"""What an experiment is, and what it finds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    # These modules require optional packages, but the command line lists the experiments without them.
    from captum_moxi.evaluation.experiments.study import Study
    from captum_moxi.evaluation.measurements import Measurement

# How an experiment ended.
Status: TypeAlias = Literal["finished", "skipped", "failed", "not run yet"]


class SkippedError(Exception):
    """An experiment does not fit the model or the methods, or its packages are missing. The message says why."""


@dataclass(frozen=True)
class Findings:
    """What an experiment found.

    Args:
        measurements (Sequence[Measurement]): Means and paired comparisons for the page.
        commands (Sequence[str]): Commands that compute the same results.
        notes (Sequence[str], optional): Paragraphs of Markdown before the tables, for example the number of images.
            Default: ``()``
        tables (Sequence[str], optional): Further tables, in Markdown.
            Default: ``()``
        figures (Mapping[str, Path], optional): Files of the figures, by what they show.
            Default: no figures
        condition_title (str, optional): Title of the column with the conditions of the measurements.
            Default: ``"condition"``
        comparison (str, optional): What the paired comparisons compare.
            Default: MoXI and the best other method
    """

    measurements: "Sequence[Measurement]"
    commands: Sequence[str]
    notes: Sequence[str] = ()
    tables: Sequence[str] = ()
    figures: Mapping[str, Path] = field(default_factory=dict)
    condition_title: str = "condition"
    comparison: str = "MoXI and the best other method"


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Args:
        name (str): Name on the command line, and of the folder of its results.
        title (str): Title of its section of the page.
        source (str): Where it is in the paper.
        claim (str): What the paper reports, in our own words.
        measured (str): What is measured here.
        run (Callable): Function that takes a :class:`Study`, runs the experiment or continues it, and returns its
            :class:`Findings`. It raises :class:`SkippedError` if the experiment does not fit the model or the methods,
            or if its packages are missing.
    """

    name: str
    title: str
    source: str
    claim: str
    measured: str
    run: "Callable[[Study], Findings]"
