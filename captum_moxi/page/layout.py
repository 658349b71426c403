"""The Bokeh document of a page. Import this module only where Bokeh is needed."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.layouts import column, row
from bokeh.models import (
    BasicTicker,
    Button,
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

# Images with a longer side below this number of pixels are enlarged with sharp pixels.
SMALL_IMAGE = 112

# Without the viewport, a phone would shrink a page that is as wide as a desktop's.
TEMPLATE = """
{% block preamble %}<meta name="viewport" content="width=device-width, initial-scale=1">{% endblock %}
"""

# All pictures have the same size. Phones show two side by side, and the third below. Bokeh puts the text of a Div into
# an element of the class bk-clearfix, which is only as wide as its content.
PICTURES_STYLE = """
.bk-clearfix { display: block !important; }
.pictures { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 10px; max-width: 900px; }
figure { margin: 0; }
.picture { position: relative; }
img { display: block; width: 100%; }
svg { position: absolute; inset: 0; width: 100%; height: 100%; font-family: Arial, Helvetica, sans-serif; }
.left_out { fill: none; stroke: black; stroke-width: 1.5px; stroke-dasharray: 4 3; vector-effect: non-scaling-stroke; }
text { font-weight: bold; fill: white; stroke: black; paint-order: stroke; }
figcaption { font-size: 13px; padding-top: 3px; }
@media (max-width: 640px) { .pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""

HINT = (
    "Keys: ← and → move by one patch, space plays. The chosen patches are the evidence that the model uses, which may "
    "be in the background instead of the object."
)

# Runs in the browser when the page is loaded and whenever the slider, mode or method changes. `paths` holds PathData.
# A page opens at the flip, and so does another mode. Another method is shown at the same step.
UPDATE = """
const path = paths.filter(p => p.mode === modes.labels[modes.active] && p.method === method.value)[0]
const last = path.confidences.length - 1
slider.end = Math.max(last, 1)
if (cb_obj !== slider && cb_obj !== method) slider.value = path.flip ?? last
const step = Math.min(slider.value, last)
slider.title = path.mode === "insertion" ? "patches inserted" : "patches deleted"
slider.value = step
flip_line.location = path.flip
flip_line.visible = path.flip !== null
curve.data = {step: path.confidences.map((_, i) => i), confidence: path.confidences}
marker.data = {step: [step], confidence: [path.confidences[step]]}
steps.end = last + 0.5
classes.factors = path.labels[step].slice().reverse()
bars.data = {label: path.labels[step], probability: path.probabilities[step], color: path.colors[step]}
const number = (n, i) => `<text x="${n.x}" y="${n.y}" font-size="${n.size}" stroke-width="${n.size / 5}" `
  + `textLength="${n.width}" lengthAdjust="spacingAndGlyphs">${i + 1}</text>`
const numbers = `<svg viewBox="0 0 ${path.size[0]} ${path.size[1]}" aria-hidden="true">`
  + `<path class="left_out" d="${path.left_out}"/>` + path.numbers.slice(0, step).map(number).join("") + "</svg>"
const numbered = "the chosen patches, brightest first, numbered up to this step"
  + (path.left_out === "" ? "" : "; dashed: chosen, and then left out, because the flip does not need them")
const picture = (url, caption, style, marks = "") => `<figure class="${style}"><div class="picture">`
  + `<img src="${url}" alt="${caption}">${marks}</div><figcaption>${caption}</figcaption></figure>`
pictures.text = `<div class="pictures">`
  + picture(path.photograph, "the whole image", "photograph")
  + picture(path.heat_map, numbered, "heat_map", numbers)
  + picture(path.images[step], "what the model sees", "seen") + "</div>"
const flip = path.flip === null ? "The prediction does not flip along this path."
  : `The prediction flips at step ${path.flip}: ${path.predictions[0]} → ${path.predictions[path.flip]}.`
summary.text = `<b>${step} of ${path.players} patches ${path.mode === "insertion" ? "inserted" : "deleted"}</b>: `
  + `the model predicts <b>${path.predictions[step]}</b>. Confidence in <i>${path.target}</i>: `
  + `${path.confidences[step].toFixed(2)}. ${flip}`
"""

# Runs in the browser once, when the page is loaded.
CONTROL = """
let timer = null
const move = change => {
  const before = slider.value
  slider.value = Math.min(Math.max(before + change, 0), slider.end)
  return slider.value !== before
}
const pause = () => { clearInterval(timer); timer = null; play.label = "▶ Play" }
window.toggle_play = () => {
  if (timer !== null) return pause()
  if (slider.value >= slider.end) slider.value = 0
  play.label = "❚❚ Pause"
  timer = setInterval(() => { if (!move(1)) pause() }, 600)
}
document.addEventListener("keydown", event => {
  // Sliders, menus and buttons with the focus react to keys themselves.
  const tag = event.composedPath()[0].tagName
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || tag === "SELECT") return
  if (event.key === "ArrowLeft") { pause(); move(-1) }
  else if (event.key === "ArrowRight") { pause(); move(1) }
  else if (event.key === " " && tag !== "BUTTON") window.toggle_play()
  else return
  event.preventDefault()
})
"""


@dataclass(frozen=True)
class Panel:
    """A plot, and the Bokeh models that :data:`UPDATE` changes, by their names in that script."""

    plot: Model
    models: dict[str, Model]


def render_page(paths: Sequence[PathData], *, size: tuple[int, int], title: str, table: str = "") -> str:
    """Render the page. When it is opened, it shows the flip of the first path, or its end if there is no flip.

    Args:
        paths (Sequence[PathData]): Data of one or more paths.
        size (tuple[int, int]): Height and width of the images in pixels.
        title (str): Title of the page.
        table (str, optional): HTML of a table below the plots.
            Default: ``""``, no table

    Returns:
        str: The HTML source, with Bokeh's scripts inlined.
    """
    panels = [_confidence_panel(paths[0]), _classes_panel(paths[0])]
    controls = _controls(paths)
    style = PICTURES_STYLE + ("img { image-rendering: pixelated; }" if max(size) < SMALL_IMAGE else "")
    texts = {
        "summary": Div(text="", name="summary", sizing_mode="stretch_width"),
        "pictures": Div(text="", name="pictures", stylesheets=[style], sizing_mode="stretch_width"),
    }
    models = {name: model for panel in panels for name, model in panel.models.items()}
    update = CustomJS(code=UPDATE, args={"paths": list(paths), **texts, **controls, **models})
    for name, changed in (("modes", "active"), ("method", "value"), ("slider", "value")):
        controls[name].js_on_change(changed, update)
    controls["play"].js_on_click(CustomJS(code="window.toggle_play()"))
    heading = Div(text=f"<h2 style='margin: 0'>{html.escape(title)}</h2>", sizing_mode="stretch_width")
    hint = Div(text=HINT, styles={"color": "#595959"}, sizing_mode="stretch_width")
    # A phone scrolls a wide table inside its own box.
    tables = [Div(text=table, styles={"overflow-x": "auto"}, sizing_mode="stretch_width")] if table else []
    document = Document()
    document.add_root(
        column(
            heading,
            texts["summary"],
            row(controls["modes"], controls["play"], controls["method"], styles={"flex-wrap": "wrap"}),
            controls["slider"],
            hint,
            texts["pictures"],
            row(*(panel.plot for panel in panels), styles={"flex-wrap": "wrap"}, sizing_mode="stretch_width"),
            *tables,
            sizing_mode="stretch_width",
            styles={"max-width": "1100px", "margin": "0 auto"},
        )
    )
    document.js_on_event("document_ready", CustomJS(code=CONTROL, args=controls), update)
    return str(file_html(document, INLINE, title, template=TEMPLATE))


def _controls(paths: Sequence[PathData]) -> dict[str, Model]:
    """Create the mode buttons, the play button, the method menu (hidden for a single method) and the step slider."""
    modes = list(dict.fromkeys(path["mode"] for path in paths))
    methods = list(dict.fromkeys(path["method"] for path in paths))
    last = len(paths[0]["confidences"]) - 1
    return {
        "modes": RadioButtonGroup(labels=modes, active=0, name="modes"),
        "play": Button(label="▶ Play", name="play", width=100),
        "method": Select(
            value=methods[0], options=methods, visible=len(methods) > 1, name="method", width=200, margin=(5, 5, 5, 5)
        ),
        "slider": Slider(
            start=0,
            end=max(last, 1),
            value=0,
            step=1,
            title="patches",
            sizing_mode="stretch_width",
            name="slider",
            # At both ends, half of the handle is outside of the slider.
            margin=(5, 10, 5, 10),
        ),
    }


def _confidence_panel(path: PathData) -> Panel:
    """Draw the confidence in the target along the path, with a marker at the current step and a line at the flip."""
    confidences = path["confidences"]
    n_points = len(confidences)
    curve = ColumnDataSource({"step": list(range(n_points)), "confidence": confidences})
    marker = ColumnDataSource({"step": [0], "confidence": confidences[:1]}, name="marker")
    # Margins keep the marker fully visible at both ends.
    steps = Range1d(-0.5, n_points - 0.5)
    plot = _plot("confidence in the target (dotted line: flip)", x_range=steps, y_range=(-0.03, 1.03))
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
    plot = _plot("most likely classes (orange: the target)", x_range=(0, 1.02), y_range=classes)
    plot.hbar("label", right="probability", height=0.7, color="color", line_color="black", source=bars)
    plot.xaxis.axis_label = "probability"
    return Panel(plot, {"bars": bars, "classes": classes})


def _plot(title: str, *, x_range: object, y_range: object) -> figure:
    """Create a plot that takes half of a wide page, or the full width of a phone."""
    return figure(
        height=280,
        x_range=x_range,
        y_range=y_range,
        toolbar_location=None,
        title=title,
        sizing_mode="stretch_width",
        styles={"flex": "1 1 360px", "min-width": "0"},
    )
