"""Saves results of single images: a figure, a JSON file and an HTML page with the same name."""

import json
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure

from captum_moxi.files import write_file
from captum_moxi.plot import save_figure


class Result(Protocol):
    """A result that can be converted to the contents of files."""

    def figure(self) -> Figure:
        """Draw the result."""

    def to_dict(self) -> dict[str, object]:
        """Return the result as JSON types."""

    def page(self) -> str:
        """Render an HTML page."""


def save_result(result: Result, path: Path, *, html: bool) -> Path:
    """Save the figure, the JSON file and, if requested, the HTML page of a result.

    Args:
        result (Result): The result.
        path (Path): File of the figure. Its folder is created if it does not exist. The other files have the same name
            with another suffix.
        html (bool): Whether to save the page. Requires Bokeh.

    Returns:
        Path: File of the figure.

    Raises:
        ImportError: If ``html`` is True and Bokeh is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(result.figure(), path)
    if html:
        save_page(result, path)
    save_json(result, path.with_suffix(".json"))
    return path


def save_json(result: Result, path: Path) -> None:
    """Save a result as a JSON file."""
    write_file(path, json.dumps(result.to_dict(), indent=1) + "\n")


def save_page(result: Result, figure: Path) -> Path:
    """Save the HTML page of a result under the name of its figure, with the suffix ``.html``, and return its file."""
    path = figure.with_suffix(".html")
    write_file(path, result.page())
    return path
