"""Types of option values.

Types of registered items read their registry each time help is shown or a value is parsed. Items that a plugin
registers are therefore listed and accepted like all others.
"""

import math
import os
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click
from click.shell_completion import CompletionItem

from captum_moxi.evaluation.settings import read_label_map
from captum_moxi.explanation.images import class_argument
from captum_moxi.metrics import parse_fractions
from captum_moxi.models import check_device
from captum_moxi.registry import MAX_INT, Registry
from captum_moxi.rewards import Reward

T = TypeVar("T")

if TYPE_CHECKING:
    ParamType = click.ParamType[object]
else:
    # This class is not generic in click 8.2.
    ParamType = click.ParamType

Param = click.Parameter | None
Context = click.Context | None


class SpecType(ParamType, Generic[T]):
    """A registered item, checked and returned as text: ``NAME`` or ``NAME:ARGUMENT``.

    Args:
        registry (Registry): The registry.
    """

    def __init__(self, registry: Registry[T]) -> None:
        self.registry = registry
        self.name = registry.kind

    def describe(self) -> str:
        """Return the items for help, separated by commas, for example ``all, gradient:M``."""
        return self.registry.describe()

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete names of registered items."""
        return [
            CompletionItem(entry.name, help=entry.help)
            for entry in self.registry.entries
            if entry.name.startswith(incomplete)
        ]

    def convert(self, value: str, param: Param, ctx: Context) -> object:
        self.create(value, param, ctx)
        return value

    def create(self, spec: str, param: Param, ctx: Context) -> T:
        """Create an item, or fail with a message that lists all items."""
        try:
            return self.registry.create(spec)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class ItemType(SpecType[T]):
    """A registered item, created from ``NAME`` or ``NAME:ARGUMENT``."""

    def convert(self, value: str | T, param: Param, ctx: Context) -> object:
        # click also converts defaults, which may already be items.
        return self.create(value, param, ctx) if isinstance(value, str) else value


class NameType(SpecType[T]):
    """A registered item without an argument, checked and returned as text."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"{{{'|'.join(self.registry)}}}"


class SpecListType(SpecType[T]):
    """Registered items, separated by commas, checked and returned as a tuple of text.

    Args:
        registry (Registry): The registry.
        accept_all (bool, optional): Whether ``all`` means every registered item.
            Default: False
    """

    def __init__(self, registry: Registry[T], *, accept_all: bool = False) -> None:
        super().__init__(registry)
        self.name = f"{registry.kind},..."
        self.accept_all = accept_all

    def describe(self) -> str:
        return self.registry.describe() + (", or all" if self.accept_all else "")

    def convert(self, value: str | tuple[str, ...], param: Param, ctx: Context) -> object:
        if not isinstance(value, str):
            return value
        if self.accept_all and value == "all":
            return tuple(self.registry)
        specs = tuple(spec.strip() for spec in value.split(","))
        for spec in specs:
            self.create(spec, param, ctx)
        return specs


class ClassRewardType(SpecType[Reward]):
    """A registered reward as text, in which the argument ``CLASS`` may be the name of a class.

    The name is checked after the model is loaded.
    """

    def create(self, spec: str, param: Param, ctx: Context) -> Reward:
        # The class is not known yet, so index 0 takes its place in this check.
        return super().create(f"{spec.partition(':')[0]}:0" if class_argument(spec) else spec, param, ctx)


class CountType(click.IntRange):
    """An int from 1 to ``MAX_INT``."""

    def __init__(self) -> None:
        super().__init__(1)

    def convert(self, value: Any, param: Param, ctx: Context) -> int:
        number = super().convert(value, param, ctx)
        if number > MAX_INT:
            self.fail(f"{number} is too large; pass an int from 1 to {MAX_INT}.", param, ctx)
        return number


class FiniteRange(click.FloatRange):
    """A float in a range, which infinity and NaN are not."""

    def convert(self, value: Any, param: Param, ctx: Context) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number; pass a number such as 0.5.", param, ctx)
        return number


class TextType(click.types.StringParamType):
    """Text that is not empty."""

    def convert(self, value: Any, param: Param, ctx: Context) -> str:
        text = super().convert(value, param, ctx)
        if not text or "\0" in text:
            self.fail(f"{text!r} is not valid; pass text that is not empty.", param, ctx)
        return text


class PathType(click.Path):
    """A path that the file system accepts. The file or folder may be missing."""

    def convert(self, value: Any, param: Param, ctx: Context) -> "str | bytes | os.PathLike[str]":
        text = os.fspath(value)
        try:
            os.stat(text)
        except FileNotFoundError:
            if not text:
                self.fail("the path is empty; pass the path of a file or folder.", param, ctx)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self.fail(f"{text[:80]!r} is not a valid path ({reason}); pass another path.", param, ctx)
        return super().convert(value, param, ctx)


class DeviceType(ParamType):
    """A device of PyTorch that tensors can be created on."""

    name = "device"

    def convert(self, value: str, param: Param, ctx: Context) -> object:
        try:
            check_device(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        return value


class AddressType(ParamType):
    """An address that a server can listen on."""

    name = "address"

    def convert(self, value: str, param: Param, ctx: Context) -> object:
        try:
            return str(ip_address("127.0.0.1" if value == "localhost" else value))
        except ValueError:
            self.fail(f"{value[:80]!r} is not an address; pass an address such as 127.0.0.1 or 0.0.0.0.", param, ctx)


class FractionsType(ParamType):
    """Numbers from 0 to 1 in ascending order, separated by commas."""

    name = "fraction,..."

    def convert(self, value: str | list[float], param: Param, ctx: Context) -> object:
        if not isinstance(value, str):
            return value
        try:
            fractions: list[float] = parse_fractions([float(part) for part in value.split(",")]).tolist()
        except ValueError:
            self.fail(
                f"{value!r} is not a list of ascending numbers from 0 to 1; pass a list such as 0.04,0.1.", param, ctx
            )
        return fractions


class LabelMapType(ParamType):
    """A JSON file that maps labels of the data to classes of the model."""

    name = "file"

    def convert(self, value: str, param: Param, ctx: Context) -> object:
        path = PathType(dir_okay=False, exists=True).convert(value, param, ctx)
        try:
            return read_label_map(Path(str(path)))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
