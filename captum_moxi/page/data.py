"""Converts paths to plain data that the page embeds as JSON."""

import base64
import html
import io
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

import torch
from PIL import Image
from torch import Tensor

from captum_moxi.arguments import Mode
from captum_moxi.page.paths import PagePath
from captum_moxi.plot.style import BLUE, ORANGE

TOP_CLASSES = 5
MAX_LABEL_LENGTH = 28

# Font size of the numbers: relative to the size of their patch, but at most relative to the width of the image.
FONT_PER_PATCH = 0.78
FONT_PER_IMAGE = 0.07

# Width and height of a digit, and space between a number and the corner of its patch, relative to the font size.
DIGIT_WIDTH = 0.56
DIGIT_HEIGHT = 0.72
NUMBER_MARGIN = 0.12


class NumberData(TypedDict):
    """Where the browser draws the number of a step: start of the baseline, font size and width, in image pixels."""

    x: float
    y: float
    size: float
    width: float


class PathData(TypedDict):
    """A path as lists and strings.

    Each list has one entry for the start of the path and one per step, except ``size`` and ``numbers``, which has one
    entry per step. ``left_out`` is an SVG path around the players that were left out, or empty.
    """

    method: str
    mode: Mode
    photograph: str
    heat_map: str
    size: list[int]
    numbers: list[NumberData]
    left_out: str
    images: list[str]
    confidences: list[float]
    predictions: list[str]
    labels: list[list[str]]
    probabilities: list[list[float]]
    colors: list[list[str]]
    target: str
    players: int
    flip: int | None


def path_data(path: PagePath, *, labels: Sequence[str]) -> PathData:
    """Convert a path for embedding in the page.

    Args:
        path (PagePath): The path.
        labels (Sequence[str]): Names of the classes, in order of their indices.

    Returns:
        PathData: Images as data URIs, their width and height, and the five most likely classes at each step with their
        colors. The predictions and the name of the target are escaped for HTML.
    """
    top = path.probabilities.topk(min(TOP_CLASSES, path.probabilities.shape[1]), dim=1)
    classes: list[list[int]] = top.indices.tolist()
    names = _unique_names([_shorten(label) for label in labels])
    height, width = path.photograph.shape[:2]
    return {
        "method": path.method,
        "mode": path.mode,
        "photograph": _data_uri(path.photograph),
        "heat_map": _data_uri(path.heat_map),
        "size": [width, height],
        "numbers": [_number(step, place, image_width=width) for step, place in enumerate(path.places.tolist(), 1)],
        "left_out": "".join(f"M{x} {y}L{x_end} {y_end}" for (x, y), (x_end, y_end) in path.left_out.long().tolist()),
        "images": [_data_uri(image) for image in path.images],
        "confidences": path.probabilities[:, path.target].double().tolist(),
        "predictions": [
            html.escape(_prediction(index, step, names, target=path.target))
            for index, step in zip(path.predictions.tolist(), path.probabilities.tolist(), strict=True)
        ],
        "labels": [[names[index] for index in step] for step in classes],
        "probabilities": top.values.double().tolist(),
        "colors": [[ORANGE if index == path.target else BLUE for index in step] for step in classes],
        "target": html.escape(_shorten(labels[path.target])),
        "players": path.n_players,
        "flip": path.flip,
    }


def _data_uri(image: Tensor) -> str:
    """Encode an image ``(H, W, 3)`` in [0, 1] as a WebP data URI."""
    pixels = (image * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _number(step: int, place: Sequence[float], *, image_width: int) -> NumberData:
    """Fit the number of a step into its patch."""
    x, y, size = place
    font_size = min(FONT_PER_PATCH * size, FONT_PER_IMAGE * image_width)
    margin = NUMBER_MARGIN * font_size
    return {
        "x": x + margin,
        "y": y + margin + DIGIT_HEIGHT * font_size,
        "size": font_size,
        "width": min(DIGIT_WIDTH * font_size * len(str(step)), size - 2 * margin),
    }


def _prediction(index: int, probabilities: Sequence[float], names: Sequence[str], *, target: int) -> str:
    """Name the predicted class and its probability. If none is predicted, the index is -1, and the target is absent."""
    if index < 0:
        return f"not {names[target]} ({1 - probabilities[target]:.2f})"
    return f"{names[index]} ({probabilities[index]:.2f})"


def _shorten(label: str) -> str:
    return label if len(label) <= MAX_LABEL_LENGTH else label[: MAX_LABEL_LENGTH - 1] + "…"


def _unique_names(names: Sequence[str]) -> list[str]:
    """Append the class index to repeated names. Otherwise classes with the same name would share one bar."""
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({index})" for index, name in enumerate(names)]
