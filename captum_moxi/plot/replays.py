"""A figure of replays: the areas and the SRG of each order under each removal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from captum_moxi.metrics.bootstrap import MIN_IMAGES
from captum_moxi.metrics.replays import QUANTITIES
from captum_moxi.plot.style import describe, line_style

# Part of the distance between two removals in the figure that the markers of all orders cover.
MARKER_SPREAD = 0.7
MARKERS = "os^DvPX<>*pHdh"


def replays_figure(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the mean areas and their difference, the SRG, for each order under each removal.

    From 10 images on, bars show the 95 % intervals.

    Args:
        records (Sequence[dict]): Rows of the table, as returned by :func:`captum_moxi.metrics.replay_records`.

    Returns:
        Figure: The figure, which is not registered with pyplot.
    """
    removals = list(dict.fromkeys(record["removal"] for record in records))
    orders = list(dict.fromkeys(record["order"] for record in records))
    quantities = {name: better for name, better in QUANTITIES.items() if name in records[0]}
    figure = Figure(figsize=(3.4 * len(quantities) + 1.8, 4.2), layout="constrained")
    axes = figure.subplots(1, len(quantities))
    for ax, (name, better) in zip(axes, quantities.items(), strict=True):
        for index, order in enumerate(orders):
            shift = MARKER_SPREAD * ((index + 0.5) / len(orders) - 0.5)
            drawn = [record for record in records if record["order"] == order]
            ax.errorbar(
                [removals.index(record["removal"]) + shift for record in drawn],
                np.array([_number(record[name]) for record in drawn]),
                yerr=np.array([_bar_lengths(record, name) for record in drawn]).T,
                label=order,
                color=line_style(index)["color"],
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                linestyle="none",
                elinewidth=1,
            )
        ax.set_xticks(range(len(removals)), removals, fontsize=8)
        ax.set_title(f"{name}: {better} is better", fontsize=9)
        ax.set_xlabel("removal", fontsize=9)
        ax.tick_params(labelsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    n_images = records[0]["images"]
    *_, gain = quantities
    bars = " Bars: 95 % intervals." if n_images >= MIN_IMAGES else ""
    describe(
        figure,
        title=f"Each order under each removal: {n_images} image{'' if n_images == 1 else 's'}",
        reading=f"Markers: means over the images.{bars} {gain[0].upper()}{gain[1:]} is the insertion area minus the "
        f"deletion area. An order that is better than the others under all removals has the highest {gain} for each of "
        "them.",
    )
    return figure


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _bar_lengths(record: Mapping[str, Any], name: str) -> tuple[float, float]:
    """Return the lengths of the interval below and above the mean of a quantity. Both are 0 without an interval."""
    mean, low, high = (record[key] for key in (name, f"{name}, low", f"{name}, high"))
    # Rounding may put an end of the interval on the wrong side of the mean.
    return (0.0, 0.0) if low is None else (max(0.0, mean - low), max(0.0, high - mean))
