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


class PathData(TypedDict):
    """A path as lists and strings. Each list has one entry for the start of the path and one per step."""

    method: str
    mode: Mode
    photograph: str
    heat_map: str
    images: list[str]
    confidences: list[float]
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
        PathData: Images as data URIs, and the five most likely classes at each step with their colors. The name of the
        target is escaped for HTML.
    """
    top = path.probabilities.topk(min(TOP_CLASSES, path.probabilities.shape[1]), dim=1)
    classes: list[list[int]] = top.indices.tolist()
    names = _unique_names([_shorten(label) for label in labels])
    return {
        "method": path.method,
        "mode": path.mode,
        "photograph": _data_uri(path.photograph),
        "heat_map": _data_uri(path.heat_map),
        "images": [_data_uri(image) for image in path.images],
        "confidences": path.probabilities[:, path.target].double().tolist(),
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


def _shorten(label: str) -> str:
    return label if len(label) <= MAX_LABEL_LENGTH else label[: MAX_LABEL_LENGTH - 1] + "…"


def _unique_names(names: Sequence[str]) -> list[str]:
    """Append the class index to repeated names. Otherwise classes with the same name would share one bar."""
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({index})" for index, name in enumerate(names)]
