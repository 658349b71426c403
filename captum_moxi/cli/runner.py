"""The loop over images, and how commands report errors: in one line, with exit code 2."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import click
from PIL import Image
from tqdm.auto import tqdm

from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.images import expand_paths, open_image
from captum_moxi.models import ImageClassifier, load
from captum_moxi.registry import Registry

# Errors of unsuitable images, models and options. All other errors are bugs and keep their traceback.
REPORTED_ERRORS = (ValueError, OSError, RuntimeError, Image.DecompressionBombError)


class CommandError(click.ClickException):
    """An error that is reported in one line, with exit code 2."""

    exit_code = 2

    def __init__(self, reason: object) -> None:
        super().__init__(_one_line(with_options(str(reason))))


class Command(click.Command):
    """A command that reports errors of the library in one line, with exit code 2.

    Args:
        listing (Registry, optional): Registry whose items the help describes below the options.
            Default: None
    """

    def __init__(self, *args: object, listing: Registry[object] | None = None, **attributes: object) -> None:
        super().__init__(*args, **attributes)  # type: ignore[arg-type]  # click's own arguments, passed on
        self.listing = listing

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            # click handles these exceptions itself.
            raise
        except REPORTED_ERRORS as error:
            raise CommandError(error) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.listing:
            with formatter.section(f"{self.listing.kind.capitalize()}s"):
                formatter.write_dl([(entry.spec, entry.help) for entry in self.listing.entries])
        super().format_epilog(ctx, formatter)


@dataclass(frozen=True)
class SourceImage:
    """An image that a command processes.

    Args:
        name (str): Path of the image, or the name of an embedded image.
        stem (str): File name of the results, without suffix. It is different for each image.
        open (Callable): Opens the image. Raises a ValueError if the image cannot be read.
    """

    name: str
    stem: str
    open: Callable[[], Image.Image]


def load_sources(
    paths: Sequence[str], *, model: str | None, device: str | None
) -> tuple[ImageClassifier, list[SourceImage]]:
    """Load the classifier and list the images. Without paths and model, use the embedded demo.

    Args:
        paths (Sequence[str]): Image files and folders.
        model (str or None): Hub name or folder of a classifier.
        device (str or None): Device of the classifier. None selects CUDA if available and the CPU otherwise.

    Returns:
        tuple[ImageClassifier, list[SourceImage]]: The classifier and the images.

    Raises:
        UsageError: If only one of ``paths`` and ``model`` is passed.
        ValueError: If the model cannot be loaded.
    """
    if paths and model is None:
        raise click.UsageError(
            "--model is missing; pass a hub name or a folder, or leave out IMAGE to use the embedded demo"
        )
    if model is not None and not paths:
        raise click.UsageError(
            "IMAGE is missing; pass image files or folders, or leave out --model to use the embedded demo"
        )
    if model is None:
        return demo_classifier(device), demo_sources()
    return load(model, device), file_sources(paths)


def file_sources(paths: Sequence[str]) -> list[SourceImage]:
    """List the images in files and folders. Each image is opened when it is processed.

    Args:
        paths (Sequence[str]): Image files and folders.
    """
    names = expand_paths(paths)
    return [
        SourceImage(name, stem, partial(open_image, name))
        for name, stem in zip(names, _unique_stems(names), strict=True)
    ]


def demo_sources() -> list[SourceImage]:
    """List the embedded images."""
    return [SourceImage(demo.name, Path(demo.name).stem, demo.image.copy) for demo in demo_images()]


def on_terminal() -> bool:
    """Return whether progress bars are shown: only if the standard error is a terminal."""
    return sys.stderr.isatty()


def run_over_images(
    images: Sequence[SourceImage],
    work: Callable[[SourceImage], str | None],
    *,
    verb: str,
    finish: Callable[[], str] | None = None,
) -> None:
    """Run a function on each image, with a progress bar.

    If an image fails, its error is reported and the next image is processed.

    Args:
        images (Sequence[SourceImage]): The images.
        work (Callable): Processes an image. Returns a line to print, or None.
        verb (str): Past participle of what ``work`` does, for example ``"explained"``.
        finish (Callable, optional): Called after the last image if at least one succeeded. Returns the text to print.
            Default: None

    Raises:
        CommandError: If at least one image failed. The error is raised after the last image.
    """
    n_failed = 0
    for image in tqdm(images, desc="images", unit="image", disable=None):
        try:
            line = work(image)
        except REPORTED_ERRORS as error:
            tqdm.write(f"{image.name}: {_one_line(with_options(str(error)))}", file=sys.stderr)
            n_failed += 1
            continue
        if line is not None:
            tqdm.write(line)
    if finish is not None and n_failed < len(images):
        click.echo(finish())
    if n_failed:
        raise CommandError(f"{n_failed} of {len(images)} images were not {verb}")


def require_packages(command: str, *packages: str, extra: str = "evaluate") -> None:
    """Check that the optional packages of a command are installed.

    Args:
        command (str): Name of the command or option, for the message.
        *packages (str): Names of the packages.
        extra (str, optional): Extra of captum-moxi that installs the packages.
            Default: ``"evaluate"``

    Raises:
        CommandError: If a package is missing. The message contains the command that installs it.
    """
    if missing := [package for package in packages if find_spec(package) is None]:
        raise CommandError(f"{command} requires {' and '.join(missing)}; run pip install 'captum-moxi[{extra}]'")


def with_options(message: str) -> str:
    """Replace arguments in a message of the library by the options of the current command.

    For example, ``keep='all'`` becomes ``--keep all``, and ``label_map`` becomes ``--label-map``. Names that are also
    words, such as data, are replaced only where a value follows.

    Args:
        message (str): Message of the library, in terms of its arguments.
    """
    context = click.get_current_context(silent=True)
    for param in context.command.params if context else ():
        if isinstance(param, click.Option) and param.name:
            option = param.opts[-1]
            message = re.sub(rf"\b{param.name}='([^' ]*)'", rf"{option} \1", message)
            if "_" in param.name:
                message = re.sub(rf"\b{param.name}\b(?!=)", option, message)
    return message


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())


def _unique_stems(names: Sequence[str]) -> list[str]:
    """Return the stem of each file name, with a number added to stems that occurred before."""
    # A dictionary keeps the order and finds a stem fast.
    stems: dict[str, None] = {}
    for name in names:
        stem, count = Path(name).stem, 1
        while stem in stems:
            count += 1
            stem = f"{Path(name).stem}-{count}"
        stems[stem] = None
    return list(stems)
