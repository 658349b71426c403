"""Plots of insertion and deletion curves."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_moxi.arguments import Mode
from captum_moxi.comparison import Comparison
from captum_moxi.metrics.curves import Curve, Quantity
from captum_moxi.plot.style import AxesArray, canvas, describe, figure_of, label_curves, line_style, show_dollar_signs

_YLABELS: dict[Quantity, str] = {
    "confidences": "confidence in the target",
    "correct": "accuracy",
    "rewards": "reward",
}

GOOD_ORDER = "A good order raises the insertion curve early, and lowers the deletion curve early."
CURVES_READING = f"Means over the examples. {GOOD_ORDER}"


def plot_curves(
    comparison: Comparison, *, quantity: Quantity = "confidences", axes: Sequence[Axes] | AxesArray | None = None
) -> tuple[Figure, AxesArray]:
    """Plot the insertion and deletion curves of each method, averaged over examples, as in Figure 3 of the MoXI paper.

    Args:
        comparison (Comparison): Result of :func:`captum_moxi.compare`.
        quantity (str, optional): ``"confidences"``, ``"correct"`` (its mean is the accuracy) or ``"rewards"``.
            Default: ``"confidences"``
        axes (Sequence[Axes], optional): Axes to draw into, one for each mode of the comparison.
            Default: None, a new figure

    Returns:
        tuple[Figure, ndarray of Axes]: The figure, and one axes per mode.

    Raises:
        ValueError: If ``quantity`` is unknown, or if the number of axes differs from the number of modes.

    Examples::

        >>> figure, axes = plot_curves(compare(model, x, target=y, methods=["moxi", "random"]))
        >>> save_figure(figure, "curves.pdf")
    """
    _check_quantity(quantity)
    figure, panels = _panels(axes, n_modes=len(comparison.modes))
    for ax, mode in zip(panels, comparison.modes, strict=True):
        _plot_mode(ax, comparison, mode, quantity)
    # Inside the axes, the legend would hide curves.
    legend = panels[-1].legend(fontsize=8, handlelength=3, loc="center left", bbox_to_anchor=(1.02, 0.5))
    # The axes may be the user's own, in which all other text remains as it is.
    show_dollar_signs(legend)
    if axes is None:
        describe(
            figure, title=f"{_YLABELS[quantity].capitalize()} along the order of each method", reading=CURVES_READING
        )
    return figure, panels


def plot_curve(curve: Curve, *, quantity: Quantity = "confidences", ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Plot one insertion or deletion curve: the mean over the examples, and each example as a thin line.

    Args:
        curve (Curve): Result of :func:`captum_moxi.insertion_curve` or :func:`captum_moxi.deletion_curve`.
        quantity (str, optional): ``"confidences"``, ``"correct"`` (its mean is the accuracy) or ``"rewards"``.
            Default: ``"confidences"``
        ax (Axes, optional): Axes to draw into.
            Default: None, a new figure

    Returns:
        tuple[Figure, Axes]: The figure and its axes.

    Raises:
        ValueError: If ``quantity`` is unknown.
    """
    _check_quantity(quantity)
    figure, new_ax = canvas(ax, size=(5, 3.8))
    fractions, style = curve.fractions.numpy(), line_style(0)
    if len(curve.counts) > 1:
        new_ax.plot(fractions, _values(curve, quantity).T, color="0.8", linewidth=0.6)
    new_ax.plot(fractions, _mean(curve, quantity), **style)
    label_curves(new_ax, curve.mode, ylabel=_YLABELS[quantity])
    if quantity != "rewards":
        new_ax.set_ylim(0, 1.02)
    if ax is None:
        describe(
            figure,
            title=f"{_YLABELS[quantity].capitalize()} during {curve.mode}",
            reading="Bold: mean over the examples. Gray: each example.",
        )
    return figure, new_ax


def _check_quantity(quantity: Quantity) -> None:
    if quantity not in _YLABELS:
        raise ValueError(f"quantity is {quantity!r}; pass one of {', '.join(map(repr, _YLABELS))}")


def _panels(axes: Sequence[Axes] | AxesArray | None, *, n_modes: int) -> tuple[Figure, AxesArray]:
    if axes is None:
        size = (4.6 * n_modes, 3.4)
        figure, grid = plt.subplots(1, n_modes, figsize=size, layout="constrained", squeeze=False)
        return figure, grid[0]
    panels = np.atleast_1d(np.asarray(axes, dtype=object))
    if len(panels) != n_modes:
        raise ValueError(
            f"axes contains {len(panels)} Axes, but the comparison has {n_modes} modes; pass one Axes for each mode"
        )
    return figure_of(panels[0]), panels


def _plot_mode(ax: Axes, comparison: Comparison, mode: Mode, quantity: Quantity) -> None:
    """Plot the curves of all methods in one mode."""
    for index, method in enumerate(comparison.methods):
        curve = comparison.of(method, mode).curve
        ax.plot(curve.fractions.numpy(), _mean(curve, quantity), label=method, **line_style(index))
    label_curves(ax, mode, ylabel=_YLABELS[quantity])
    if quantity != "rewards":
        ax.set_ylim(0, 1.02)


def _values(curve: Curve, quantity: Quantity) -> npt.NDArray[np.float64]:
    """Return the values of each example at each of the P fractions. Shape ``(B, P)``, float64."""
    values = {"confidences": curve.confidences, "correct": curve.correct, "rewards": curve.rewards}
    return values[quantity].double().numpy()


def _mean(curve: Curve, quantity: Quantity) -> npt.NDArray[np.float64]:
    """Return the mean over the examples at each of the P fractions. Shape ``(P,)``, float64."""
    mean: npt.NDArray[np.float64] = _values(curve, quantity).mean(0)
    return mean
