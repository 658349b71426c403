"""The loop over images, and how commands report errors: in one line, with exit code 2."""

import errno
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from PIL import Image
from tqdm.auto import tqdm

from captum_moxi.attr.progress import logger as search_logger
from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.errors import REPORTED_ERRORS, describe_error
from captum_moxi.explanation import EXPLANATION_FIGURES
from captum_moxi.images import as_text, expand_paths, open_image
from captum_moxi.models import ImageClassifier, load
from captum_moxi.registry import Registry

# Errors of a disk on which the results of the other images cannot be written either.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# Key of the option --debug in the data of click's context.
DEBUG = "captum_moxi.debug"
# Arguments of Python in messages of the library, and what to write if a command has an option of this name.
OPTIONS_FOR_ARGUMENTS = {
    "grid": (r"a feature_mask with fewer than \d+ players", "a smaller --grid"),
    "removal": (r"removal=BaselineRemoval\(\)", "--removal zero"),
}


# Text of the user in a message: in quotation marks, but not after an apostrophe, or a path.
USER_TEXT = r"""(?<!\w)'[^']*'|(?<!\w)"[^"]*"|[^\s'"]*[/\\][^\s'"]*"""
# End of the name of an argument, if no quoted value follows: not before another value, and not in the name of a file.
END_OF_NAME = r"\b(?![=/\\-]|\.\w)"


class CommandError(click.ClickException):
    """An error that is reported in one line, with exit code 2."""

    exit_code = 2

    def __init__(self, reason: object) -> None:
        super().__init__(one_line(with_options(str(reason))))


class Command(click.Command):
    """A command that reports errors of the library in one line, with exit code 2.

    With the option ``--debug``, errors keep their traceback.

    Args:
        listings (Sequence[Registry], optional): Registries whose items the help describes below the options.
            Default: ()
    """

    def __init__(self, *args: object, listings: Sequence[Registry[Any]] = (), **attributes: object) -> None:
        super().__init__(*args, **attributes)  # type: ignore[arg-type]  # click's own arguments, passed on
        self.listings = listings
        help_text = "Show the traceback of an error, and stop at the first image that fails."
        self.params.append(click.Option(["--debug"], is_flag=True, help=help_text))

    def invoke(self, ctx: click.Context) -> object:
        ctx.meta[DEBUG] = ctx.params.pop("debug")
        try:
            with long_search_reported(), warnings_reported():
                return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            # click handles these exceptions itself.
            raise
        except REPORTED_ERRORS as error:
            if ctx.meta[DEBUG]:
                raise
            raise CommandError(describe_error(error)) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for listing in self.listings:
            with formatter.section(f"{listing.kind.capitalize()}s"):
                formatter.write_dl([(entry.spec, entry.help) for entry in listing.entries])
        super().format_epilog(ctx, formatter)


class LongSearchHandler(logging.Handler):
    """Prints the first report of a long search to the standard error, with options instead of arguments."""

    def emit(self, record: logging.LogRecord) -> None:
        # Later reports are ignored.
        self.setLevel(logging.CRITICAL)
        message = with_options(record.getMessage().replace(" show_progress=True shows a progress bar.", ""))
        context = click.get_current_context(silent=True)
        if context and len(context.params.get("modes", ())) > 1:
            message += " --mode insertion or --mode deletion runs only one of the two searches."
        write_line(message, err=True)


def write_line(line: str, *, err: bool = False) -> None:
    """Print a line above the progress bars.

    Args:
        line (str): The line.
        err (bool, optional): Whether to print it to the standard error.
            Default: False
    """
    with tqdm.external_write_mode(sys.stderr if err else sys.stdout):
        click.echo(line, err=err)


@contextmanager
def long_search_reported() -> Iterator[None]:
    """Print one line if a search without a progress bar takes long."""
    handler = LongSearchHandler()
    search_logger.addHandler(handler)
    try:
        yield
    finally:
        search_logger.removeHandler(handler)


@contextmanager
def warnings_reported() -> Iterator[None]:
    """Print each warning in one line, without the place in the code that caused it."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        write_line(f"warning: {one_line(with_options(str(message)))}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@dataclass(frozen=True)
class SourceImage:
    """An image that a command processes.

    Args:
        name (str): Path of the image, or the name of an embedded image.
        stem (str): File name of the results, without suffix. It is different for each image.
        open (Callable): Opens the image. Raises a ValueError if the image cannot be read.
        path_in_folder (str): Path of the image in the folder that the user passed, or the name of its file.
        label (str, optional): Label of the image according to the data.
            Default: None, unknown
        file (Path, optional): File of the image.
            Default: None, an embedded image
    """

    name: str
    stem: str
    open: Callable[[], Image.Image]
    path_in_folder: str
    label: str | None = None
    file: Path | None = None


def load_sources(
    paths: Sequence[str],
    *,
    model: str | None,
    device: str | None,
    classes: Sequence[str] | None = None,
    template: str | None = None,
) -> tuple[ImageClassifier, list[SourceImage]]:
    """Load the classifier and list the images. Without paths and model, use the embedded demo.

    Args:
        paths (Sequence[str]): Image files and folders.
        model (str or None): Hub name or folder of a classifier.
        device (str or None): Device of the classifier. None selects CUDA if available and the CPU otherwise.
        classes (Sequence[str], optional): Classes of a zero-shot classifier.
            Default: None
        template (str, optional): Text for each class of a zero-shot classifier.
            Default: None

    Returns:
        tuple[ImageClassifier, list[SourceImage]]: The classifier and the images.

    Raises:
        UsageError: If only one of ``paths`` and ``model`` is passed, or classes without a model.
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
        if classes is not None or template is not None:
            raise click.UsageError("--classes and --template are for zero-shot classifiers; pass one with --model")
        return demo_classifier(device), demo_sources()
    return load(model, device, classes=classes, template=template), file_sources(paths)


def file_sources(paths: Sequence[str]) -> list[SourceImage]:
    """List the images in files and folders. Each image is opened when it is processed.

    Images in subfolders have the name of their subfolder as label.

    Args:
        paths (Sequence[str]): Image files and folders.
    """
    files = [(name, _path_in_folder(name, path)) for path in paths for name in expand_paths([path])]
    stems = _unique_stems([as_text(name) for name, _ in files])
    return [
        SourceImage(
            as_text(name),
            stem,
            partial(open_image, name),
            as_text(path_in_folder),
            as_text(Path(path_in_folder).parent.name) or None,
            Path(name),
        )
        for (name, path_in_folder), stem in zip(files, stems, strict=True)
    ]


def demo_sources() -> list[SourceImage]:
    """List the embedded images."""
    return [
        SourceImage(demo.name, Path(demo.name).stem, demo.image.copy, demo.name, label=demo.label)
        for demo in demo_images()
    ]


def check_outputs(sources: Sequence[SourceImage], figures: Iterable[Path]) -> None:
    """Check that no figure replaces one of the images.

    Args:
        sources (Sequence[SourceImage]): Images of the command.
        figures (Iterable[Path]): Files that the command writes.

    Raises:
        CommandError: If a figure has the path of an image, or if a link to an image has the path of a figure.
    """
    files = {_file_id(source.file) for source in sources if source.file is not None and source.file.exists()}
    for figure in figures:
        if figure.exists() and _file_id(figure) in files:
            raise CommandError(
                f"the figure {as_text(str(figure))!r} would replace an image; pass another folder as --out"
            )


def figures_of(sources: Sequence[SourceImage], out: Path, *, endings: Sequence[str]) -> Iterator[Path]:
    """Return the files of figures.

    Args:
        sources (Sequence[SourceImage]): Images of the command.
        out (Path): Folder of the figures.
        endings (Sequence[str]): What the name of each figure adds to the stem of its image.
    """
    return (out / f"{source.stem}{ending}" for source in sources for ending in endings)


def _file_id(path: Path) -> tuple[int, int]:
    """Return what two paths of the same file have in common, also if one is a link."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def open_output_folder(folder: Path) -> set[Path]:
    """Create the folder of a command's results. If the command writes nothing to it, it is removed at the end.

    Call this after all arguments are checked, and before the command computes results, so that a folder that cannot be
    created is reported at once.

    Args:
        folder (Path): The folder. Its parents are created, and removed, in the same way.

    Returns:
        set[Path]: Files that the folder already contained.
    """
    click.get_current_context().with_resource(_kept_if_filled(folder))
    return set(folder.iterdir())


@contextmanager
def _kept_if_filled(folder: Path) -> Iterator[None]:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        # Only an empty folder can be removed.
        with suppress(OSError):
            for path in missing:
                path.rmdir()


def replaced_note(path: Path, existing: Container[Path]) -> str:
    """Return a note that a file was replaced, if it existed before the command ran.

    Args:
        path (Path): File that was written.
        existing (Container[Path]): Files that existed before.
    """
    return " (replaced)" if path in existing else ""


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
        CommandError: If at least one image failed. The error is raised after the last image, or at once if the disk is
            full.
    """
    n_failed = 0
    for image in tqdm(images, desc="images", unit="image", disable=None):
        try:
            line = work(image)
        except REPORTED_ERRORS as error:
            if click.get_current_context().meta.get(DEBUG):
                raise
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                raise CommandError(f"{image.name}: {error}; free disk space and repeat the command") from None
            write_line(f"{image.name}: {one_line(with_options(describe_error(error)))}", err=True)
            n_failed += 1
            continue
        if line is not None:
            write_line(line)
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
    words, such as data, are replaced only where a value follows. Paths and other values of the user do not change.

    Args:
        message (str): Message of the library, in terms of its arguments.
    """
    context = click.get_current_context(silent=True)
    for param in context.command.params if context else ():
        if isinstance(param, click.Option) and param.name:
            if param.name in OPTIONS_FOR_ARGUMENTS:
                message = re.sub(*OPTIONS_FOR_ARGUMENTS[param.name], message)
            message = _replace_argument(message, name=param.name, option=param.opts[-1])
    return message


def _replace_argument(message: str, *, name: str, option: str) -> str:
    """Replace an argument by an option, except in quotation marks and in paths."""
    # Names without an underscore may be words.
    no_value = f"|{END_OF_NAME}" if "_" in name else ""
    argument = rf"(?<![\w.-]){name}(?:='(?P<value>[^' ]*)'{no_value})"

    def replace(match: re.Match[str]) -> str:
        if match["user"] is not None:
            return match["user"]
        return option if match["value"] is None else f"{option} {match['value']}"

    return re.sub(f"{argument}|(?P<user>{USER_TEXT})", replace, message)


def _path_in_folder(name: str, path: str) -> str:
    """Return the path of an image in the folder ``path``, or its file name if ``path`` is the image itself."""
    return Path(name).name if Path(name) == Path(path) else Path(name).relative_to(path).as_posix()


def one_line(reason: object) -> str:
    """Return a text without line breaks, so that a path or message of the user cannot look like another line."""
    return " ".join(str(reason).split())


def _unique_stems(names: Sequence[str]) -> list[str]:
    """Return the stem of each file name, with a number added if a figure of an earlier image has the same name."""
    stems: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem, count = Path(name).stem, 1
        while not taken.isdisjoint(figures := {f"{stem}{ending}" for ending in EXPLANATION_FIGURES}):
            count += 1
            stem = f"{Path(name).stem}-{count}"
        stems.append(stem)
        taken |= figures
    return stems
