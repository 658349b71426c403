"""The Bokeh document of a page. Import this module only where Bokeh is needed."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.layouts import column, row
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJS,
    Div,
    FactorRange,
    Model,
    RadioButtonGroup,
    Range1d,
    Select,
    Slider,
    Span,
)
from bokeh.plotting import figure
from bokeh.resources import INLINE

from captum_moxi.page.data import PathData
from captum_moxi.plot.style import BLUE, ORANGE

# Longer side of the picture in pixels.
PICTURE_SIZE = 320

# Runs in the browser when the page is loaded and whenever the slider, mode or method changes. `paths` holds PathData.
UPDATE = """
const path = paths.filter(p => p.mode === modes.labels[modes.active] && p.method === method.value)[0]
const last = path.confidences.length - 1
const step = Math.min(slider.value, last)
slider.end = Math.max(last, 1)
slider.title = path.mode === "insertion" ? "patches inserted" : "patches deleted"
slider.value = step
flip_line.location = path.flip
flip_line.visible = path.flip !== null
picture.data = {...picture.data, url: [path.images[step]]}
curve.data = {step: path.confidences.map((_, i) => i), confidence: path.confidences}
marker.data = {step: [step], confidence: [path.confidences[step]]}
steps.end = last + 0.5
classes.factors = path.labels[step].slice().reverse()
bars.data = {label: path.labels[step], probability: path.probabilities[step], color: path.colors[step]}
const flip = path.flip === null ? "The prediction does not flip along this path."
  : `The prediction flips at step ${path.flip} (dotted line).`
summary.text = `<b>${step} of ${path.players} patches ${path.mode === "insertion" ? "inserted" : "deleted"}</b>: `
  + `confidence in <i>${path.target}</i> ${path.confidences[step].toFixed(3)}. ${flip}`
"""


@dataclass(frozen=True)
class Panel:
    """A plot, and the Bokeh models that :data:`UPDATE` changes, by their names in that script."""

    plot: Model
    models: dict[str, Model]


def render_page(paths: Sequence[PathData], *, size: tuple[int, int], title: str) -> str:
    """Render the page. When it is opened, it shows the start of the first path.

    Args:
        paths (Sequence[PathData]): Data of one or more paths.
        size (tuple[int, int]): Height and width of the images in pixels.
        title (str): Title of the page.

    Returns:
        str: The HTML source, with Bokeh's scripts inlined.
    """
    panels = [_picture_panel(paths[0], size=size), _confidence_panel(paths[0]), _classes_panel(paths[0])]
    controls = _controls(paths)
    summary = Div(text="", name="summary", width=1200)
    models = {name: model for panel in panels for name, model in panel.models.items()}
    update = CustomJS(code=UPDATE, args={"paths": list(paths), "summary": summary, **controls, **models})
    for name, changed in (("modes", "active"), ("method", "value"), ("slider", "value")):
        controls[name].js_on_change(changed, update)
    heading = Div(text=f"<h2>{html.escape(title)}</h2>", width=1200)
    document = Document()
    document.add_root(
        column(
            heading,
            row(controls["modes"], controls["method"]),
            controls["slider"],
            summary,
            row(*(panel.plot for panel in panels)),
        )
    )
    document.js_on_event("document_ready", update)
    return str(file_html(document, INLINE, title))


def _controls(paths: Sequence[PathData]) -> dict[str, Model]:
    """Create the mode buttons, the method menu (hidden for a single method) and the step slider."""
    modes = list(dict.fromkeys(path["mode"] for path in paths))
    methods = list(dict.fromkeys(path["method"] for path in paths))
    last = len(paths[0]["confidences"]) - 1
    return {
        "modes": RadioButtonGroup(labels=modes, active=0, name="modes"),
        "method": Select(title="method", value=methods[0], options=methods, visible=len(methods) > 1, name="method"),
        "slider": Slider(start=0, end=max(last, 1), value=0, step=1, title="patches", width=700, name="slider"),
    }


def _picture_panel(path: PathData, *, size: tuple[int, int]) -> Panel:
    """Draw the image as the model sees it."""
    height, width = size
    picture = ColumnDataSource({"url": path["images"][:1], "x": [0], "y": [1]}, name="picture")
    plot = figure(
        frame_width=PICTURE_SIZE * width // max(size),
        frame_height=PICTURE_SIZE * height // max(size),
        x_range=(0, 1),
        y_range=(0, 1),
        toolbar_location=None,
        title="what the model sees",
    )
    plot.image_url("url", "x", "y", 1, 1, source=picture)
    plot.axis.visible = False
    plot.grid.visible = False
    return Panel(plot, {"picture": picture})


def _confidence_panel(path: PathData) -> Panel:
    """Draw the confidence in the target along the path, with a marker at the current step and a line at the flip."""
    confidences = path["confidences"]
    n_points = len(confidences)
    curve = ColumnDataSource({"step": list(range(n_points)), "confidence": confidences})
    marker = ColumnDataSource({"step": [0], "confidence": confidences[:1]}, name="marker")
    # Margins keep the marker fully visible at both ends.
    steps = Range1d(-0.5, n_points - 0.5)
    plot = figure(
        width=420,
        height=360,
        x_range=steps,
        y_range=(-0.03, 1.03),
        toolbar_location=None,
        title="confidence in the target",
    )
    flip_line = Span(dimension="height", line_dash="dotted", line_color="black", visible=False, name="flip_line")
    plot.add_layout(flip_line)
    plot.line("step", "confidence", source=curve, line_width=2, color=BLUE)
    plot.scatter("step", "confidence", source=marker, size=12, color=ORANGE, line_color="black")
    plot.xaxis.axis_label = "patches"
    plot.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
    return Panel(plot, {"curve": curve, "marker": marker, "steps": steps, "flip_line": flip_line})


def _classes_panel(path: PathData) -> Panel:
    """Draw the probabilities of the most likely classes as bars."""
    labels = path["labels"][0]
    bars = ColumnDataSource(
        {"label": labels, "probability": path["probabilities"][0], "color": path["colors"][0]}, name="bars"
    )
    # A categorical axis starts at the bottom, but the most likely class should be at the top.
    classes = FactorRange(factors=labels[::-1])
    plot = figure(
        width=460,
        height=360,
        x_range=(0, 1.02),
        y_range=classes,
        toolbar_location=None,
        title="most likely classes",
    )
    plot.hbar("label", right="probability", height=0.7, color="color", source=bars)
    plot.xaxis.axis_label = "probability"
    return Panel(plot, {"bars": bars, "classes": classes})
