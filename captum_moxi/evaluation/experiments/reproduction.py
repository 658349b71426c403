"""Runs the experiments, and writes the page after each of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from captum_moxi.errors import REPORTED_ERRORS, describe_error
from captum_moxi.evaluation.experiments import EXPERIMENTS
from captum_moxi.evaluation.experiments.base import Experiment, SkippedError
from captum_moxi.evaluation.experiments.page import (
    PAGE,
    Outcome,
    Section,
    read_sections,
    results_page,
    section_of,
    write_sections,
)
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.files import write_file


def reproduce_experiments(
    study: Study, *, only: Sequence[str] | None = None, raise_errors: bool = False
) -> Iterator[Outcome]:
    """Run experiments one after the other, and write the page ``results.md`` after each of them.

    The page also contains the sections of earlier calls. If an experiment fails, the others still run. After an
    interruption, repeat the same call to continue.

    Args:
        study (Study): Model, images and options.
        only (Sequence[str], optional): Names of the experiments.
            Default: None, all registered experiments
        raise_errors (bool, optional): Whether an experiment that fails ends the call with its error.
            Default: False

    Yields:
        Outcome: How each experiment ended.

    Raises:
        ValueError: If a name is unknown, or if the folder contains results of other settings or other files.
        OSError: If the page cannot be written.
    """
    experiments = {name: EXPERIMENTS.create(name) for name in (EXPERIMENTS if only is None else only)}
    study.open_folder()
    planned = {name: section_of(study, Outcome(experiment, "not run yet")) for name, experiment in experiments.items()}
    sections = planned | read_sections(study.out)
    _write_page(study, sections, only)
    for name, experiment in experiments.items():
        outcome = run_experiment(experiment, study, raise_errors=raise_errors)
        sections[name] = section_of(study, outcome)
        write_sections(study.out, sections)
        _write_page(study, sections, only)
        yield outcome


def _write_page(study: Study, sections: Mapping[str, Section], only: Sequence[str] | None) -> None:
    """Write the page, with the sections in the order in which the experiments are registered."""
    in_order = {name: sections[name] for name in EXPERIMENTS if name in sections}
    write_file(page_of(study), results_page(study, in_order, only=only))


def run_experiment(experiment: Experiment, study: Study, *, raise_errors: bool = False) -> Outcome:
    """Run one experiment.

    Args:
        experiment (Experiment): The experiment.
        study (Study): Model, images and options.
        raise_errors (bool, optional): Whether to raise the error of an experiment that fails.
            Default: False
    """
    try:
        return Outcome(experiment, "finished", experiment.run(study))
    except SkippedError as error:
        return Outcome(experiment, "skipped", reason=str(error))
    except REPORTED_ERRORS as error:
        if raise_errors:
            raise
        return Outcome(experiment, "failed", reason=describe_error(error))


def page_of(study: Study) -> Path:
    """Return the file of the page."""
    return study.out / PAGE
