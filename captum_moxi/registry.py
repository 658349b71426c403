"""Registries: the removals, rewards, screens, methods, metrics and corruptions that can be chosen by name.

A registered item appears in the command line's help, in error messages, in the documentation and in the tests that all
items of its kind must pass. An item may take one argument after a colon, as in ``gradient:8``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Maximum of ints in text. It fits into 32 bits.
MAX_INT = 10**9 - 1


def parse_positive_int(text: str) -> int:
    """Parse an int from 1 to ``MAX_INT``.

    Raises:
        ValueError: If ``text`` is anything else. The message is a phrase that :meth:`Registry.create` completes.
    """
    return _parse_int(text, minimum=1)


def parse_natural(text: str) -> int:
    """Parse an int from 0 to ``MAX_INT``.

    Raises:
        ValueError: If ``text`` is anything else. The message is a phrase that :meth:`Registry.create` completes.
    """
    return _parse_int(text, minimum=0)


def _parse_int(text: str, *, minimum: int) -> int:
    # int() also accepts underscores, signs and digits of other scripts, and rejects thousands of digits.
    is_int = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_INT))
    if not is_int or int(text) < minimum:
        raise ValueError(f"an int from {minimum} to {MAX_INT}")
    return int(text)


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One item of a registry.

    Args:
        name (str): Name of the item.
        factory (Callable): Creates the item. It is called with the parsed argument, or without arguments if none was
            passed.
        help (str): Description in a few words.
        argument (str or None): Name of the argument in help and messages, for example ``M``. None if the item takes
            no argument.
        parse (Callable): Converts the text of the argument. For invalid text, it raises a ValueError whose message is a
            phrase that describes valid text, for example ``an int from 1 to 9``.
        required (bool): Whether the argument must be passed.
    """

    name: str
    factory: Callable[..., T]
    help: str
    argument: str | None
    parse: Callable[[str], Any]
    required: bool

    @property
    def spec(self) -> str:
        """Name of the item followed by the name of its argument, for example ``gradient:M``."""
        return self.name if self.argument is None else f"{self.name}:{self.argument}"


class Registry(Generic[T]):
    """Items of one kind that can be created by name.

    Args:
        kind (str): Kind of the items, for messages, for example ``"removal"``.

    Examples::

        >>> SCREENS.register("gradient", GradientScreen, argument="M", help="a backward pass picks M candidates")
        >>> SCREENS.create("gradient:8")
        GradientScreen(8)
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def register(
        self,
        name: str,
        factory: Callable[..., T],
        *,
        help: str = "",
        argument: str | None = None,
        parse: Callable[[str], Any] = parse_positive_int,
        required: bool = False,
    ) -> None:
        """Add an item.

        Args:
            name (str): Name of the item, without colons, commas or whitespace.
            factory (Callable): Creates the item. It is called with the parsed argument, or without arguments if none
                was passed.
            help (str, optional): Description in a few words.
                Default: ``""``
            argument (str, optional): Name of the argument in help and messages.
                Default: None, no argument
            parse (Callable, optional): Converts the text of the argument, as in :class:`Entry`.
                Default: :func:`parse_positive_int`
            required (bool, optional): Whether the argument must be passed.
                Default: False

        Raises:
            ValueError: If the name is already registered, is empty, or contains a colon, a comma or whitespace.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is already registered; pass another name")
        if not name or set(name) & {":", ",", *" \t\n"}:
            raise ValueError(
                f"{self.kind} {name!r} is not a valid name; pass a name without colons, commas or whitespace"
            )
        self._entries[name] = Entry(name, factory, help, argument, parse, required)

    def register_value(self, name: str, value: T, *, help: str = "") -> None:
        """Add an item that needs no factory, for example a function.

        Args:
            name (str): Name of the item.
            value (object): The item.
            help (str, optional): Description in a few words.
                Default: ``""``

        Raises:
            ValueError: As in :meth:`register`.
        """
        self.register(name, lambda: value, help=help)

    def unregister(self, name: str) -> None:
        """Remove an item.

        Args:
            name (str): Name of the item.

        Raises:
            ValueError: If no item has this name.
        """
        if name not in self._entries:
            raise ValueError(f"{self.kind} {name!r} is unknown; pass one of {', '.join(self._entries)}")
        del self._entries[name]

    def create(self, spec: str) -> T:
        """Create an item.

        Args:
            spec (str): ``NAME`` or ``NAME:ARGUMENT``.

        Returns:
            The item.

        Raises:
            ValueError: If the name is unknown, or if the argument is missing, invalid or not accepted. For an unknown
                name, the message lists the registered items.
        """
        name, colon, text = spec.partition(":")
        entry = self._entries.get(name)
        if entry is None:
            raise ValueError(f"{self.kind} {spec!r} is unknown; pass one of {self.describe()}")
        if not colon:
            if entry.required:
                raise ValueError(f"{self.kind} {spec!r} needs an argument; pass {entry.spec}")
            return entry.factory()
        if entry.argument is None:
            raise ValueError(f"{self.kind} {spec!r} has an argument, but {name} takes none; pass {name}")
        try:
            value = entry.parse(text)
        except ValueError as error:
            raise ValueError(
                f"{self.kind} {spec!r} is not valid; pass {entry.spec}, where {entry.argument} is {error}"
            ) from None
        return entry.factory(value)

    @property
    def entries(self) -> list[Entry[T]]:
        """The items, in the order of registration."""
        return list(self._entries.values())

    @property
    def specs(self) -> list[str]:
        """Spec of each item, for example ``gradient:M``, in the order of registration."""
        return [entry.spec for entry in self._entries.values()]

    def describe(self) -> str:
        """Return all specs, separated by commas."""
        return ", ".join(self.specs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {self.describe()})"
