"""The manifest of a run: a JSON file with its settings and a checksum."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Manifest:
    """The manifest of a run.

    Args:
        settings (Mapping[str, Any]): Settings by name, in JSON types.
        versions (Mapping[str, str]): Versions of the packages when the run started.
        run (str or None): Id of the run. Its parts contain the same id. None for runs of versions without ids.
        images (int or None): Number of images of the finished run. None if it is unknown.
    """

    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    run: str | None = None
    images: int | None = None

    def to_json(self) -> str:
        """Return the manifest as JSON that contains its own checksum."""
        entries = asdict(self)
        return json.dumps({**entries, "checksum": _checksum(entries)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read a manifest. A manifest without a checksum is not verified.

        Args:
            text (str or bytes): The JSON.

        Returns:
            Manifest: The manifest.

        Raises:
            ValueError: If the text is not a manifest, or does not match its checksum.
        """
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not valid JSON: {error}") from None
        if not isinstance(entries, dict):
            raise ValueError(f"it is {_shorten(entries)}, not an object with settings")
        checksum = entries.pop("checksum", None)
        if checksum not in (None, _checksum(entries)):
            raise ValueError(
                "it does not match its checksum; if you edited it, delete its entry 'checksum'; if not, restore it"
            )
        for name, (check, expected) in _ENTRIES.items():
            if not check(entries.get(name)):
                raise ValueError(f"{name} is {_shorten(entries.get(name))}, not {expected}")
        if unknown := [name for name in entries if name not in _ENTRIES]:
            raise ValueError(f"it has the unknown entry {unknown[0]!r}")
        return cls(**{"versions": {}, **entries})


# For each entry, a check of its value and what the value should be.
_ENTRIES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "settings": (lambda value: isinstance(value, dict), "an object"),
    "versions": (lambda value: value is None or isinstance(value, dict), "an object"),
    "run": (lambda value: value is None or isinstance(value, str), "a text"),
    "images": (lambda value: value is None or type(value) is int, "a whole number"),
}


def _checksum(entries: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _shorten(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
