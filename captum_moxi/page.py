"""One self-contained page to play with: a slider along the path of an image, by Bokeh (the extra ``html``)."""

import base64
import html
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from captum_moxi.game import CoalitionGame
from captum_moxi.removal import BaselineRemoval
from captum_moxi.search import Mode, flips
from captum_moxi.visualization import BLUE, GREY, ORANGE

TOP = 5
# pixels of the longer side of the picture
SIDE = 320

# what moves when the slider, the mode or the method does; ``paths`` is what ``_plain`` makes of Paths
FOLLOW = """
const shown = paths.filter(p => p.mode === modes.labels[modes.active] && p.method === method.value)[0]
const last = shown.confidences.length - 1
const k = Math.min(slider.value, last)
slider.end = Math.max(last, 1)
slider.title = shown.mode === "insertion" ? "patches inserted" : "patches deleted"
slider.value = k
turn.location = shown.flip
turn.visible = shown.flip !== null
picture.data = {...picture.data, url: [shown.images[k]]}
curve.data = {k: shown.confidences.map((_, i) => i), confidence: shown.confidences}
marker.data = {k: [k], confidence: [shown.confidences[k]]}
steps.end = last + 0.5
classes.factors = shown.labels[k].slice().reverse()
bars.data = {label: shown.labels[k], p: shown.probabilities[k], colour: shown.colours[k]}
const flip = shown.flip === null ? "The prediction does not flip along this path."
  : `The prediction flips at ${shown.flip}, the dotted line.`
said.text = `<b>${k} of ${shown.players} patches ${shown.mode === "insertion" ? "inserted" : "deleted"}</b>: `
  + `confidence in <i>${shown.target}</i> ${shown.confidences[k].toFixed(3)}. ${flip}`
"""


@dataclass(frozen=True)
class Path:
    """What the model sees and says along one path of an image: K + 1 places, from the start to after the last step.

    Args:
        method (str): Who chose the path, such as ``"MoXI"``.
        mode (str): ``"insertion"`` or ``"deletion"``.
        images (Tensor): ``(K + 1, H, W, 3)`` in [0, 1]: the image as the model sees it.
        probabilities (Tensor): ``(K + 1, classes)``.
        target (int): The class explained.
        players (int): How many players the image has.
        flip (int or None): The first place at which the prediction is flipped.
    """

    method: str
    mode: Mode
    images: Tensor
    probabilities: Tensor
    target: int
    players: int
    flip: int | None


def follow_path(
    game: CoalitionGame,
    order: Sequence[int],
    mode: Mode,
    to_images: Callable[[Tensor], Tensor],
    method: str = "MoXI",
    example: int = 0,
    min_confidence: float = 0.0,
) -> Path:
    """What the model sees and says as players come or go in that order.

    Args:
        game (CoalitionGame): Of images, with a target.
        order (Sequence[int]): Ids of players, the first first.
        mode (str): ``"insertion"`` or ``"deletion"``.
        to_images (Callable): Pixel values ``(M, C, H, W)`` to images ``(M, H, W, 3)`` in [0, 1]. Patches that are taken
            out of the sequence are grey.
        method (str, optional): Who chose the path. Default: ``"MoXI"``
        example (int, optional): Which example of the game. Default: 0
        min_confidence (float, optional): What insertion must exceed to flip. Default: 0

    Returns:
        Path

    Raises:
        ValueError: a game without a target, or of other inputs than one batch of images.
    """
    if game.targets is None or len(game.call.inputs) != 1 or game.call.inputs[0].dim() != 4:
        raise ValueError("a page needs a game of one input of images (B, C, H, W), with a target")
    moved = torch.zeros(len(order) + 1, game.n_players, dtype=torch.bool)
    for k, column in enumerate(torch.searchsorted(game.ids, torch.tensor(list(order), dtype=torch.long)).tolist(), 1):
        moved[k:, column] = True
    coalitions = moved if mode == "insertion" else game.exists[example] & ~moved
    owners = torch.full((len(coalitions),), example)
    probabilities = game.class_probabilities(coalitions, owners)
    target = int(game.targets[example])
    if isinstance(game.removal, BaselineRemoval):
        # the fill itself, by a model that returns what it is given
        given = game.removal.bind(replace(game.call, forward_func=lambda x: x, additional_forward_args=()))
        images = to_images(given(coalitions, owners))
    else:
        present = game.call.players.spread(coalitions, 0, owners)[:, 0].cpu()
        image = to_images(game.call.inputs[0][example : example + 1])
        images = torch.where(present[..., None], image, torch.tensor(GREY))
    single = probabilities.shape[1] == 1
    predictions = torch.where(probabilities[:, 0] > 0.5, 0, -1) if single else probabilities.argmax(1)
    flipped = flips(mode, predictions, probabilities[:, target], target, min_confidence).nonzero().flatten().tolist()
    players = int(game.exists[example].sum())
    return Path(method, mode, images, probabilities, target, players, flipped[0] if flipped else None)


def path_page(paths: Sequence[Path], labels: Sequence[str], title: str) -> str:
    """A page with a slider along the paths of one image, as HTML that needs no network and no server.

    It shows the image as the model sees it, the confidence in the target along the path with a marker that follows,
    and the five most likely classes; it switches between insertion and deletion, and between methods.

    Args:
        paths (Sequence[Path]): One a method and mode; every method has the same modes.
        labels (Sequence[str]): The class names, by index.
        title (str): Above all.

    Returns:
        str: the page.

    Raises:
        ImportError: Bokeh is not installed; the message says how to install it.
        ValueError: no path.
    """
    try:
        from bokeh.document import Document
        from bokeh.embed import file_html
        from bokeh.layouts import column, row
        from bokeh.models import (
            BasicTicker,
            ColumnDataSource,
            CustomJS,
            Div,
            FactorRange,
            RadioButtonGroup,
            Range1d,
            Select,
            Slider,
            Span,
        )
        from bokeh.plotting import figure
        from bokeh.resources import INLINE
    except ImportError as error:
        raise ImportError("a page needs Bokeh; pip install 'captum-moxi[html]'") from error
    if not paths:
        raise ValueError("paths is empty; pass one path or more")
    plain = [_plain(path, labels) for path in paths]
    first = plain[0]
    last = len(first["confidences"]) - 1

    picture = ColumnDataSource({"url": [first["images"][0]], "x": [0], "y": [1]}, name="picture")
    curve = ColumnDataSource({"k": list(range(last + 1)), "confidence": first["confidences"]})
    marker = ColumnDataSource({"k": [0], "confidence": first["confidences"][:1]}, name="marker")
    bars = ColumnDataSource(
        {"label": first["labels"][0], "p": first["probabilities"][0], "colour": first["colours"][0]}, name="bars"
    )
    height, width = paths[0].images.shape[1:3]
    seen = figure(
        frame_width=SIDE * width // max(height, width),
        frame_height=SIDE * height // max(height, width),
        x_range=(0, 1),
        y_range=(0, 1),
        toolbar_location=None,
        title="what the model sees",
    )
    seen.image_url("url", "x", "y", 1, 1, source=picture)
    seen.axis.visible = False
    seen.grid.visible = False

    # the marker is whole at either end
    steps = Range1d(-0.5, last + 0.5)
    confidence = figure(
        width=420,
        height=360,
        x_range=steps,
        y_range=(-0.03, 1.03),
        toolbar_location=None,
        title="confidence in the target",
    )
    turn = Span(dimension="height", line_dash="dotted", line_color="black", visible=False, name="turn")
    confidence.add_layout(turn)
    confidence.line("k", "confidence", source=curve, line_width=2, color=BLUE)
    confidence.scatter("k", "confidence", source=marker, size=12, color=ORANGE, line_color="black")
    confidence.xaxis.axis_label = "patches"
    confidence.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)

    classes = FactorRange(factors=first["labels"][0][::-1])
    likely = figure(
        width=460, height=360, x_range=(0, 1.02), y_range=classes, toolbar_location=None, title="most likely classes"
    )
    likely.hbar("label", right="p", height=0.7, color="colour", source=bars)
    likely.xaxis.axis_label = "probability"

    modes = RadioButtonGroup(labels=list(dict.fromkeys(path["mode"] for path in plain)), active=0, name="modes")
    methods = list(dict.fromkeys(path["method"] for path in plain))
    method = Select(title="chosen by", value=methods[0], options=methods, visible=len(methods) > 1, name="method")
    slider = Slider(start=0, end=max(last, 1), value=0, step=1, title="patches", width=700, name="slider")
    said = Div(text="", name="said", width=1200)
    follow = CustomJS(
        code=FOLLOW,
        args={
            "paths": plain, "modes": modes, "method": method, "slider": slider, "picture": picture, "curve": curve,
            "marker": marker, "steps": steps, "classes": classes, "bars": bars, "said": said, "turn": turn,
        },
    )  # fmt: skip
    modes.js_on_change("active", follow)
    method.js_on_change("value", follow)
    slider.js_on_change("value", follow)
    heading = Div(text=f"<h2>{html.escape(title)}</h2>", width=1200)
    layout = column(heading, row(modes, method), slider, said, row(seen, confidence, likely))
    document = Document()
    document.add_root(layout)
    # what the page says before anything is moved
    document.js_on_event("document_ready", follow)
    return file_html(document, INLINE, title)


def _plain(path: Path, labels: Sequence[str]) -> dict[str, Any]:
    """A path as lists and text, for the page."""
    top = path.probabilities.topk(min(TOP, path.probabilities.shape[1]), dim=1)
    names = [_short(label) for label in labels]
    times = Counter(names)
    # classes of one name would be one bar
    shown = [[names[i] if times[names[i]] == 1 else f"{names[i]} ({i})" for i in row] for row in top.indices.tolist()]
    colours = [[ORANGE if i == path.target else BLUE for i in row] for row in top.indices.tolist()]
    return {
        "method": path.method,
        "mode": path.mode,
        "images": [_data_uri(image) for image in path.images],
        "confidences": path.probabilities[:, path.target].double().tolist(),
        "labels": shown,
        "probabilities": top.values.double().tolist(),
        "colours": colours,
        "target": html.escape(names[path.target]),
        "players": path.players,
        "flip": path.flip,
    }


def _data_uri(image: Tensor) -> str:
    pixels = (image * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _short(label: str) -> str:
    return label if len(label) <= 40 else label[:39] + "…"
