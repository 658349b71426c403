"""All options of the command line, each declared once.

A command applies options as decorators, and may change their help or default::

    @click.command(cls=Command)
    @options.images()
    @options.model(required=True)
    @options.screen(default="gradient:8")
    @options.settings(LocalizeSettings)
    def localize(images: tuple[str, ...], model: str, settings: LocalizeSettings) -> None: ...

The last decorator, :func:`settings`, collects the options that have the name of a dataclass field, and passes them to
the command as one object.
"""

import functools
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from captum_moxi.arguments import MODES, SEARCH_MODES, Stop
from captum_moxi.benchmarks import BENCHMARKS
from captum_moxi.cli.runner import require_packages
from captum_moxi.cli.types import (
    AddressType,
    ClassRewardType,
    CountType,
    DeviceType,
    FiniteRange,
    FractionsType,
    ItemType,
    LabelMapType,
    NameType,
    PathType,
    SpecListType,
    SpecType,
    TextType,
)
from captum_moxi.evaluation.engines import ENGINES
from captum_moxi.evaluation.experiments import EXPERIMENTS
from captum_moxi.kernels import KERNEL_SETS, KernelSet, use_kernels
from captum_moxi.methods import METHODS
from captum_moxi.metrics import METRICS
from captum_moxi.perturbations.corruptions import CORRUPTIONS
from captum_moxi.removal import DEFAULT_GRID, REMOVALS
from captum_moxi.rewards import REWARDS
from captum_moxi.search.screens import SCREENS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R")

POSITIVE = CountType()
TEXT = TextType()
FOLDER = PathType(file_okay=False, path_type=Path)
# Placeholder for the registered items in the help of an option.
CHOICES = "{choices}"


class RegistryOption(click.Option):
    """An option whose help lists the items that are registered when the help is shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None or not isinstance(self.type, SpecType):
            return record
        return record[0], record[1].replace(CHOICES, self.type.describe())


def settings(cls: "type[DataclassInstance]") -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Collect options in one argument ``settings`` of the command.

    Args:
        cls (type): Dataclass of the settings. Each option that has the name of a field becomes the value of the field.

    Returns:
        Callable: Decorator of the command's function.
    """
    names = {field.name for field in fields(cls)}

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def with_settings(**values: object) -> R:
            fields_of_settings = {name: values.pop(name) for name in names & values.keys()}
            return command(settings=cls(**fields_of_settings), **values)

        return with_settings

    return decorate


def _parse_modes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return MODES if value == "both" else (value,)


def _parse_stop(ctx: click.Context, param: click.Parameter, value: str) -> Stop:
    return "flip" if value == "flip" else None


def _use_kernels(ctx: click.Context, param: click.Parameter, value: KernelSet) -> None:
    ctx.with_resource(use_kernels(value))


def _parse_classes(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...] | None:
    return value or None


def _check_html(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    if value:
        require_packages("--html", "bokeh", extra="html")
    return value


# The model and its inputs

images = partial(click.argument, "images", nargs=-1, type=TEXT, metavar="[IMAGE]...")
image_paths = partial(
    click.option,
    "--images",
    "paths",
    multiple=True,
    type=TEXT,
    help="Image or folder. Repeatable. Default: the embedded images.",
)
model = partial(click.option, "--model", type=TEXT, help="Hub name or folder of a Hugging Face image classifier.")
classes = partial(
    click.option,
    "--classes",
    multiple=True,
    type=TEXT,
    callback=_parse_classes,
    help="Name of a class, for zero-shot classifiers such as CLIP or SigLIP. Repeat the option for each class.",
)
template = partial(
    click.option,
    "--template",
    type=TEXT,
    help="Text for each class, for zero-shot classifiers. {} stands for the name of the class, for example "
    "'a photo of a {}'. Default: the name of the class.",
)
device = partial(
    click.option,
    "--device",
    type=DeviceType(),
    help="Device of the model, for example cpu, cuda or cuda:1. Default: cuda if available, otherwise cpu.",
)
kernels = partial(
    click.option,
    "--kernels",
    type=click.Choice(KERNEL_SETS),
    default="fastest",
    show_default=True,
    expose_value=False,
    callback=_use_kernels,
    help="How linear layers and attention are computed on a CPU. torch: with PyTorch's own kernels. alternative: with "
    "oneDNN and matrix products. fastest: measure both on this machine, and use the faster one.",
)
target = partial(
    click.option,
    "--target",
    type=TEXT,
    help="Class to explain: an index, a name or part of a name. Whole words are matched before other parts. Default: "
    "the predicted class of each image.",
)
limit = partial(
    click.option, "--limit", type=POSITIVE, help="Maximum number of images. The first images are used. Default: all."
)

# The search

_MODES_HELP = (
    "insertion: start without patches, and add one at a time. deletion: start with all patches, and remove one at a "
    "time."
)
_modes = partial(click.option, "--mode", "modes", default="both", show_default=True, callback=_parse_modes)
mode = partial(_modes, type=click.Choice([*MODES, "both"]), help=_MODES_HELP)
search_mode = partial(
    _modes,
    type=click.Choice([*SEARCH_MODES, "both"]),
    help=f"{_MODES_HELP} both: run these two searches. symmetric: one search for patches that suffice for the target, "
    "and without which it is not predicted.",
)
stop = partial(
    click.option,
    "--stop",
    type=click.Choice(["flip", "never"]),
    default="flip",
    show_default=True,
    callback=_parse_stop,
    help="flip: stop when the target becomes the predicted class (insertion) or is no longer predicted (deletion), or "
    "when both hold for the same patches (symmetric). never: rank all patches.",
)
min_confidence = partial(
    click.option,
    "--min-confidence",
    type=FiniteRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Confidence that the target must exceed for insertion and symmetric search to flip.",
)
n_steps = partial(
    click.option, "--n-steps", type=POSITIVE, help="Maximum number of patches to choose. Default: all patches."
)
grid = partial(
    click.option,
    "--grid",
    type=POSITIVE,
    help="N divides the image into N x N patches. Default: the model's own patches, or "
    f"{DEFAULT_GRID} x {DEFAULT_GRID} patches if it has none (the paper uses 14 x 14).",
)
removal = partial(
    click.option,
    "--removal",
    cls=RegistryOption,
    type=ItemType(REMOVALS),
    help=f"How absent patches are removed: {CHOICES}. token removes their tokens. attention masks the attention to "
    "them from LAYER on (default 0). zero, mean and blur fill their pixels. Default: token if the model has patch "
    "tokens, otherwise zero.",
)
reward = partial(
    click.option,
    "--reward",
    cls=RegistryOption,
    type=ClassRewardType(REWARDS),
    default="log_odds",
    show_default=True,
    help=f"Quantity that insertion increases and deletion decreases: {CHOICES}. CLASS is the index or name of the "
    "class with which the target is contrasted.",
)
interactions = partial(
    click.option,
    "--interactions/--no-interactions",
    default=True,
    help="Whether each step counts the interaction with the patches chosen before. --no-interactions ranks each patch "
    "independently. The paper calls this MoXI(-). Default: --interactions.",
)
screen = partial(
    click.option,
    "--screen",
    cls=RegistryOption,
    type=ItemType(SCREENS),
    help=f"Which patches each step evaluates: {CHOICES}. M is the number of patches. gradient applies only to "
    "deletion, and insertion then evaluates all patches. both-ends applies only to --mode symmetric. The others apply "
    "to all modes. Join names with + to apply screens one after the other, for example gradient:32+half-precision. "
    "Append +audit:N to evaluate N random skipped patches as well, which bound what each step may have missed. "
    "Default: all, the exact search.",
)
run_screen = partial(
    screen,
    type=SpecType(SCREENS),
    default="gradient:8",
    show_default=True,
    help=f"Which patches each step of MoXI evaluates: {CHOICES}. M is the number of patches. gradient applies only to "
    "deletion by moxi, and its insertion and moxi-symmetric then evaluate all patches. both-ends applies only to "
    "moxi-symmetric. The others apply to all searches.",
)
beam_width = partial(
    click.option,
    "--beam-width",
    type=POSITIVE,
    default=1,
    show_default=True,
    help="Number of groups of patches that the search keeps after each step. The cost grows in proportion. The result "
    "is the best group.",
)

minimal = partial(
    click.option,
    "--minimal",
    is_flag=True,
    help="After the flip, leave out the patches that the flip does not need. The group is then minimal: no single "
    "patch can be left out without losing the flip.",
)
alternatives = partial(
    click.option,
    "--alternatives",
    type=POSITIVE,
    metavar="N",
    help="Search for up to N minimal groups that share no patch. Each group flips the prediction by itself. One more "
    "figure shows them. Implies --minimal. The search for a group that does not exist takes long. --n-steps limits it.",
)

# Methods and metrics

methods = partial(
    click.option,
    "--methods",
    cls=RegistryOption,
    type=SpecListType(METHODS),
    show_default=True,
    help=f"Methods, separated by commas: {CHOICES}. The argument after a colon is optional, for example shapley or "
    "shapley:100.",
)
metrics = partial(
    click.option,
    "--metrics",
    cls=RegistryOption,
    type=SpecListType(METRICS),
    default="players-to-flip,area",
    show_default=True,
    help=f"Columns of the printed table, separated by commas: {CHOICES}. comparison.csv contains all metrics.",
)

# Many images

data = partial(
    click.option,
    "--data",
    required=True,
    type=TEXT,
    help="Folder of images, or a dataset on the Hugging Face hub: NAME or NAME:CONFIGURATION.",
)
split = partial(click.option, "--split", type=TEXT, help="Split of the dataset. Required if there are several.")
label_pattern = partial(
    click.option,
    "--label-pattern",
    type=TEXT,
    help=r"Regular expression that finds the label in an image's name, for example '(\d+)_'. Its first group is the "
    "label. Default: the label is the name of the image's folder, the column label of metadata.csv, or the label in "
    "the dataset.",
)
image_label_pattern = partial(
    label_pattern,
    help=r"Regular expression that finds the true label in an image's name, for example '(\d+)_'. Its first group is "
    "the label: the name or index of a class, or other text. Default: the name of the image's folder, if IMAGE is a "
    "folder with a subfolder for each class. Otherwise the true label is unknown.",
)
label_map = partial(
    click.option,
    "--label-map",
    type=LabelMapType(),
    help="JSON file with an object that maps each label to a class of the model, by name or index. Images with other "
    "labels are left out.",
)
image_label_map = partial(
    label_map,
    help="JSON file with an object that maps each label to a class of the model, by name or index. Images with other "
    "labels have no true label.",
)
keep = partial(
    click.option,
    "--keep",
    type=click.Choice(["right", "all"]),
    default="right",
    show_default=True,
    help="right: explain only images that the model classifies correctly. all: explain all images. The target is "
    "always the predicted class.",
)
batch_size = partial(
    click.option,
    "--batch-size",
    type=POSITIVE,
    default=8,
    show_default=True,
    help="Number of images that are explained and saved together.",
)
engine = partial(
    click.option,
    "--engine",
    cls=RegistryOption,
    type=SpecType(ENGINES),
    default="local",
    show_default=True,
    help=f"How batches are processed: {CHOICES}.",
)
workers = partial(
    click.option, "--workers", type=POSITIVE, default=1, show_default=True, help="With --engine ray: number of workers."
)
cpus = partial(
    click.option,
    "--cpus",
    type=FiniteRange(0),
    default=1.0,
    show_default=True,
    help="With --engine ray: number of CPU cores reserved for each worker.",
)
gpus = partial(
    click.option,
    "--gpus",
    type=FiniteRange(0),
    default=0.0,
    show_default=True,
    help="With --engine ray: number of GPUs reserved for each worker. With 0.5, two workers share a GPU.",
)

# Existing runs

run_folder = partial(click.argument, "run", metavar="FOLDER", type=PathType(path_type=Path))
run_folders = partial(
    click.argument, "folders", nargs=-1, required=True, metavar="FOLDER...", type=PathType(path_type=Path)
)
run_mode = partial(
    click.option,
    "--mode",
    type=click.Choice(MODES),
    default="deletion",
    show_default=True,
    help="Mode of the orders to use.",
)
fractions = partial(
    click.option,
    "--fractions",
    type=FractionsType(),
    default="0.04,0.1",
    show_default=True,
    help="Fractions of the patches at which the table shows the accuracy: numbers from 0 to 1, separated by commas.",
)
resamples = partial(
    click.option,
    "--resamples",
    type=POSITIVE,
    default=2000,
    show_default=True,
    help="Number of bootstrap resamples for the confidence intervals.",
)
gallery = partial(
    click.option,
    "--gallery",
    type=POSITIVE,
    help="Also draw galleries of at most this many images. Requires the model and the data of the run.",
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
replay_removals = partial(
    click.option,
    "--removal",
    "removals",
    cls=RegistryOption,
    type=SpecListType(REMOVALS),
    help=f"Removals, separated by commas: {CHOICES}. Default: those of token, zero, mean and blur that fit the model.",
)
compare_removals = partial(
    click.option,
    "--replay-removals",
    cls=RegistryOption,
    type=SpecListType(REMOVALS),
    help=f"Also insert and delete every order under each of these removals, separated by commas: {CHOICES}. A second "
    "table and a figure contain the areas, and the SRG if the curves extend over all patches.",
)
severity = partial(
    click.option,
    "--severity",
    type=click.IntRange(1, 5),
    default=5,
    show_default=True,
    help="Strength of the corruptions.",
)
radius = partial(
    click.option,
    "--radius",
    type=FiniteRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Maximum L2 norm of the perturbation of an image in [0, 1].",
)
step_size = partial(
    click.option,
    "--step-size",
    type=FiniteRange(0, min_open=True),
    default=0.2,
    show_default=True,
    help="L2 norm of each gradient step.",
)

experiments = partial(
    click.option,
    "--only",
    cls=RegistryOption,
    type=SpecListType(EXPERIMENTS),
    help=f"Experiments to run, separated by commas: {CHOICES}. Default: all.",
)
slow_limit = partial(
    click.option,
    "--slow-limit",
    type=POSITIVE,
    help="Maximum number of images in layers, corruptions and groups, which evaluate many rows. Default: that of "
    "--limit.",
)

# Benchmarks

benchmark_name = partial(click.argument, "name", type=NameType(BENCHMARKS))
repeats = partial(
    click.option,
    "--repeats",
    type=POSITIVE,
    default=5,
    show_default=True,
    help="For bare: number of measurements. The table shows their median.",
)
most_steps = partial(
    click.option,
    "--most-steps",
    type=POSITIVE,
    help="For bare, screens, groups and alternatives: maximum number of steps of a search. Default: no limit.",
)
searches = partial(
    click.option,
    "--search",
    "searches",
    multiple=True,
    type=TEXT,
    help="Search that the benchmarks screens and groups compare, by its title in the table, for example gradient:8 "
    "(screens) or 'beam of 4' (groups). Repeatable. Default: all.",
)

# The app

any_model = partial(
    click.option,
    "--any-model",
    is_flag=True,
    help="Let users also enter hub names and folders. Use it only if no one else can reach the app, because the server "
    "then reads folders and downloads models for its users.",
)
host = partial(
    click.option,
    "--host",
    type=AddressType(),
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. 0.0.0.0 lets other machines reach the app.",
)
port = partial(
    click.option,
    "--port",
    type=click.IntRange(1, 65535),
    help="Port to listen on. Default: the first free one from 7860.",
)

# Results

out = partial(
    click.option,
    "--out",
    type=FOLDER,
    default=Path("moxi-out"),
    show_default=True,
    help="Folder to write to. It is created if it does not exist.",
)
out_file = partial(
    click.option,
    "--out",
    type=PathType(dir_okay=False, path_type=Path),
    help="File that stores the measurements, so that an interrupted benchmark continues. A new version of the package "
    "measures again. If you change the code yourself, pass another file.",
)
html = partial(
    click.option,
    "--html",
    is_flag=True,
    callback=_check_html,
    help="Also write an HTML page for each image, with a slider along the path. Requires pip install "
    "'captum-moxi[html]'.",
)
