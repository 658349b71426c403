"""The commands that compute the same results as an experiment, for the page."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from captum_moxi.arguments import MODES
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.settings import Settings

# Options of a command that are settings, in the order of --help, and defaults of these options.
SETTINGS_OPTIONS = ("n_steps", "grid", "removal", "minimal", "alternatives", "screen", "keep")
DEFAULTS = Settings(model="model", data="data")


def command(name: str, *arguments: object, **options: object) -> str:
    """Return a command line.

    Args:
        name (str): Name of the command.
        *arguments (object): Arguments.
        **options (object): Values of options, with underscores instead of hyphens. Options with the value None or False
            are left out. True is a flag. A sequence repeats the option.

    Returns:
        str: The command line, quoted for a POSIX shell.
    """
    words = ["captum-moxi", name, *map(str, arguments)]
    for option, value in options.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is not None and item is not False:
                words.append(f"--{option.replace('_', '-')}")
                words += [] if item is True else [str(item)]
    return shlex.join(words)


def reproduce_command(study: Study, *, only: Sequence[str] | None = None) -> str:
    """Return the command that runs all experiments of a study.

    Args:
        study (Study): The study.
        only (Sequence[str], optional): Names of the experiments.
            Default: None, all experiments
    """
    return command(
        "reproduce",
        **_data_options(study),
        only=None if only is None else ",".join(only),
        limit=study.limit,
        slow_limit=study.slow_limit,
        methods=",".join(study.settings.methods),
        **_settings_options(study.settings),
        **_resamples(study),
        device=study.device,
        out=study.out,
    )


def evaluate_command(
    study: Study, folder: Path, *, batch_size: int | None = None, limit: int | None = None, **changes: Any
) -> str:
    """Return the command of a run, with the arguments of :meth:`Study.evaluate`."""
    settings = replace(study.settings, **changes)
    return command(
        "evaluate",
        **_data_options(study),
        limit=limit or study.limit,
        methods=",".join(settings.methods),
        mode=None if tuple(settings.modes) == MODES else settings.modes[0],
        stop=None if settings.stop == "flip" else "never",
        **_settings_options(settings),
        batch_size=batch_size,
        device=study.device,
        out=folder,
    )


def report_command(study: Study, *folders: Path, **options: object) -> str:
    """Return the command of a report."""
    return command("report", *folders, **options, **_resamples(study))


def replay_command(study: Study, name: str, run: Path, out: Path, **options: object) -> str:
    """Return the command of a replay with intervals: ``"replay"`` or ``"corrupt"``."""
    return command(name, run, **options, **_resamples(study), device=study.device, out=out)


def _data_options(study: Study) -> dict[str, object]:
    settings = study.settings
    return {
        "model": settings.model,
        "classes": settings.classes,
        "template": settings.template,
        "data": settings.data,
        "split": settings.split,
        "label_pattern": settings.label_pattern,
        "label_map": None if settings.label_map is None else study.label_map,
    }


def _settings_options(settings: Settings) -> dict[str, object]:
    """Return the options whose values are not the default."""
    return {
        name: getattr(settings, name) for name in SETTINGS_OPTIONS if getattr(settings, name) != getattr(DEFAULTS, name)
    }


def _resamples(study: Study) -> dict[str, object]:
    return {} if study.resamples == 2000 else {"resamples": study.resamples}
