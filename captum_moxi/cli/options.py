"""All options of the command line, each declared once.

A command applies the options that it takes as decorators, and may change their help or default::

    @click.command(cls=Command)
    @options.images()
    @options.model(required=True)
    @options.screen(default="gradient:8")
    @options.settings(LocalizeSettings)
    def localize(images: tuple[str, ...], model: str, settings: LocalizeSettings) -> None: ...

The last decorator, :func:`settings`, bundles options into one dataclass: the options that have the name of a field.
"""

import functools
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from captum_moxi.arguments import MODES, Mode, Stop
from captum_moxi.benchmarks import BENCHMARKS
from captum_moxi.cli.runner import require_packages
from captum_moxi.cli.types import (
    ClassRewardType,
    DeviceType,
    FractionsType,
    ItemType,
    LabelMapType,
    NameType,
    SpecListType,
    SpecType,
)
from captum_moxi.comparison import DEFAULT_METHODS
from captum_moxi.experiments.corruptions import CORRUPTIONS
from captum_moxi.methods import METHODS
from captum_moxi.metrics import METRICS
from captum_moxi.removal import REMOVALS
from captum_moxi.rewards import REWARDS
from captum_moxi.search.screens import SCREENS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R")

POSITIVE = click.IntRange(1)
FOLDER = click.Path(file_okay=False, path_type=Path)
# Stands for the registered items in the help of an option
CHOICES = "{choices}"


class RegistryOption(click.Option):
    """An option whose help lists the items that are registered when the help is shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None or not isinstance(self.type, SpecType):
            return record
        return record[0], record[1].replace(CHOICES, self.type.describe())


def settings(cls: "type[DataclassInstance]") -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Bundle options into one argument ``settings`` of the command.

    Args:
        cls (type): Dataclass. Each option that has the name of a field is passed to it.
    """
    names = {field.name for field in fields(cls)}

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def bundle(**values: object) -> R:
            bundled = {name: values.pop(name) for name in names & values.keys()}
            return command(settings=cls(**bundled), **values)

        return bundle

    return decorate


def _parse_modes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[Mode, ...]:
    return tuple(mode for mode in MODES if value in (mode, "both"))


def _parse_stop(ctx: click.Context, param: click.Parameter, value: str) -> Stop:
    return "flip" if value == "flip" else None


def _check_html(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    if value:
        require_packages("--html", "bokeh", extra="html")
    return value


# The model and what it works on

images = partial(click.argument, "images", nargs=-1, metavar="[IMAGE]...")
image_paths = partial(
    click.option, "--images", "paths", multiple=True, help="Image or folder. Repeatable. Default: the embedded images."
)
model = partial(click.option, "--model", help="Hub name or folder of a Hugging Face image classifier.")
device = partial(
    click.option,
    "--device",
    type=DeviceType(),
    help="Device, for example cpu, cuda or cuda:1. Default: cuda if available.",
)
target = partial(
    click.option, "--target", help="Class to explain: an index, a name or part of one. Default: the predicted class."
)
limit = partial(click.option, "--limit", type=POSITIVE, help="Use at most this many images, the first ones.")

# The search

mode = partial(
    click.option,
    "--mode",
    "modes",
    type=click.Choice([*MODES, "both"]),
    default="both",
    show_default=True,
    callback=_parse_modes,
)
stop = partial(
    click.option,
    "--stop",
    type=click.Choice(["flip", "never"]),
    default="flip",
    show_default=True,
    callback=_parse_stop,
    help="Stop when the prediction flips, or rank every patch.",
)
min_confidence = partial(
    click.option,
    "--min-confidence",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Confidence that an insertion flip must exceed.",
)
n_steps = partial(click.option, "--n-steps", type=POSITIVE, help="Choose at most this many patches. Default: all.")
grid = partial(click.option, "--grid", type=POSITIVE, help="N for N x N players. Default: the model's own patches.")
removal = partial(
    click.option,
    "--removal",
    cls=RegistryOption,
    type=ItemType(REMOVALS),
    help=f"How absent patches are removed: {CHOICES}. LAYER is 0 if left out. Default: token if the model has patch "
    "tokens, zero otherwise.",
)
reward = partial(
    click.option,
    "--reward",
    cls=RegistryOption,
    type=ClassRewardType(REWARDS),
    default="log_odds",
    show_default=True,
    help=f"What the search raises or lowers: {CHOICES}. CLASS is an index or a name.",
)
interactions = partial(
    click.option,
    "--interactions/--no-interactions",
    default=True,
    help="Rank groups of patches, or each patch independently: MoXI(-). Default: groups.",
)
screen = partial(
    click.option,
    "--screen",
    cls=RegistryOption,
    type=ItemType(SCREENS),
    help=f"Which patches a step evaluates: {CHOICES}. M is the number of patches. Default: all, the exact search.",
)
beam_width = partial(
    click.option,
    "--beam-width",
    type=POSITIVE,
    default=1,
    show_default=True,
    help="Number of groups kept at each step. The best one is shown.",
)

# Methods and metrics

methods = partial(
    click.option,
    "--methods",
    cls=RegistryOption,
    type=SpecListType(METHODS),
    default=",".join(DEFAULT_METHODS),
    show_default=True,
    help=f"Methods, separated by commas: {CHOICES}. An argument is optional, as in shapley:100.",
)
metrics = partial(
    click.option,
    "--metrics",
    cls=RegistryOption,
    type=SpecListType(METRICS),
    default="players-to-flip,area",
    show_default=True,
    help=f"Columns of the printed table, separated by commas: {CHOICES}. comparison.csv has them all.",
)

# Many images

data = partial(
    click.option,
    "--data",
    required=True,
    help="Folder of images, or a Hugging Face data set: NAME or NAME:CONFIGURATION.",
)
split = partial(click.option, "--split", help="Split of the data. Default: the only one.")
label_pattern = partial(
    click.option,
    "--label-pattern",
    help=r"Regular expression whose group is the class in a file's name, for example '(\d+)_'. Default: the label is "
    "the folder of the image, the column label of metadata.csv, or the label in the data set.",
)
label_map = partial(
    click.option,
    "--label-map",
    type=LabelMapType(),
    help="JSON file with an object that maps labels of the data to the model's classes, by name or index. Images with "
    "other labels are left out.",
)
keep = partial(
    click.option,
    "--keep",
    type=click.Choice(["right", "all"]),
    default="right",
    show_default=True,
    help="Explain the images that the model classifies correctly, or all. The explained class is the predicted one.",
)
batch_size = partial(
    click.option,
    "--batch-size",
    type=POSITIVE,
    default=8,
    show_default=True,
    help="Number of images that are explained, and saved, together.",
)
engine = partial(
    click.option,
    "--engine",
    default="local",
    show_default=True,
    help="How batches are processed: local, in this process, or ray, on the workers of a Ray cluster.",
)
workers = partial(
    click.option, "--workers", type=POSITIVE, default=1, show_default=True, help="ray: number of workers."
)
cpus = partial(
    click.option,
    "--cpus",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="ray: CPUs of each worker.",
)
gpus = partial(
    click.option,
    "--gpus",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="ray: GPUs of each worker.",
)

# Runs that exist

run_folder = partial(click.argument, "run", metavar="FOLDER", type=click.Path(path_type=Path))
run_folders = partial(
    click.argument, "folders", nargs=-1, required=True, metavar="FOLDER...", type=click.Path(path_type=Path)
)
run_mode = partial(
    click.option,
    "--mode",
    type=click.Choice(MODES),
    default="deletion",
    show_default=True,
    help="Which orders of the run are used.",
)
fractions = partial(
    click.option,
    "--fractions",
    type=FractionsType(),
    default="0.04,0.1",
    show_default=True,
    help="Fractions of the patches at which the table gives the accuracy.",
)
resamples = partial(
    click.option,
    "--resamples",
    type=POSITIVE,
    default=2000,
    show_default=True,
    help="Number of bootstrap samples for the confidence bands.",
)
gallery = partial(
    click.option,
    "--gallery",
    type=POSITIVE,
    help="Draw this many images as well, which loads the model and the data.",
)
corruptions = partial(
    click.option,
    "--corruptions",
    cls=RegistryOption,
    type=SpecListType(CORRUPTIONS, accept_all=True),
    default="all",
    show_default=True,
    help=f"Corruptions, separated by commas: {CHOICES}.",
)
severity = partial(click.option, "--severity", type=click.IntRange(1, 5), default=5, show_default=True)
radius = partial(
    click.option,
    "--radius",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="L2 radius, for images in [0, 1].",
)
step_size = partial(
    click.option, "--step-size", type=click.FloatRange(0, min_open=True), default=0.2, show_default=True
)

# Benchmarks

benchmark_name = partial(click.argument, "name", type=NameType(BENCHMARKS))
repeats = partial(
    click.option,
    "--repeats",
    type=POSITIVE,
    default=5,
    show_default=True,
    help="bare: number of measurements, of which the median is shown.",
)
most_steps = partial(
    click.option, "--most-steps", type=POSITIVE, help="bare, screens: where searches stop. Default: every patch."
)
searches = partial(
    click.option,
    "--search",
    "searches",
    multiple=True,
    help="screens: a search to compare. Repeatable. Default: all.",
)

# Results

out = partial(
    click.option,
    "--out",
    type=FOLDER,
    default=Path("moxi-out"),
    show_default=True,
    help="Folder of the results.",
)
out_file = partial(
    click.option,
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that keeps the measurements. An interrupted benchmark continues from it. A new version of the package "
    "measures again; after changes of your own, pass another file.",
)
html = partial(
    click.option,
    "--html",
    is_flag=True,
    callback=_check_html,
    help="Also write a page for each image, with a slider along the path. Requires the extra html.",
)
