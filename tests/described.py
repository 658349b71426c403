"""A check that every figure for readers must pass."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def assert_described(figure: Figure) -> None:
    """A figure has a title and a sentence on how to read it, and no text or legend covers another or a plot."""
    assert figure.get_suptitle() and figure.get_supxlabel().endswith(".")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    parts = {text.get_text(): text.get_window_extent(renderer) for text in figure.texts}
    parts |= {f"legend {index}": legend.get_window_extent(renderer) for index, legend in enumerate(figure.legends)}
    for index, ax in enumerate(figure.axes):
        box = ax.get_tightbbox(renderer)
        if box is not None and (ax.axison or ax.images or ax.texts):
            parts[f"axes {index}"] = box
    for (name, box), (other_name, other) in combinations(parts.items(), 2):
        # Boxes may touch.
        assert not box.padded(-1).overlaps(other.padded(-1)), f"{name!r} covers {other_name!r}"
    for name, box in parts.items():
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width, f"{name!r} is cut off"
