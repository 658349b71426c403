"""The interface of a metric."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from captum_moxi.arguments import Mode
from captum_moxi.metrics.curves import Curve

Better: TypeAlias = Literal["higher", "lower"]
Cell: TypeAlias = str | int | float


@dataclass(frozen=True)
class Metric:
    """A number for each example, computed from an insertion or deletion curve.

    Args:
        title (str): Name of the metric's column in tables.
        of_curve (Callable): Maps a :class:`captum_moxi.Curve` of B examples to a tensor of shape ``(B,)``, float64. NaN
            marks examples without a value.
        better (Mapping[str, str]): For each mode, whether ``"higher"`` or ``"lower"`` values are better.
        is_count (bool, optional): Whether the values are whole numbers, which tables show as integers.
            Default: False
        summary (Callable, optional): Maps a curve to the columns of a summary over its examples, a dict of values by
            title.
            Default: None, one column with the mean over the examples that have a value
        legend (str, optional): What the metric measures, for the text below tables.
            Default: ``""``, nothing

    Examples::

        >>> def accuracy_area() -> Metric:
        ...     better = {"insertion": "higher", "deletion": "lower"}
        ...     return Metric("accuracy area", lambda curve: curve.area("correct"), better)
        >>> METRICS.register("accuracy-area", accuracy_area)
        >>> compare(model, x, target=y, metrics=["accuracy-area"]).table
    """

    title: str
    of_curve: Callable[[Curve], Tensor]
    better: Mapping[Mode, Better]
    is_count: bool = False
    summary: Callable[[Curve], dict[str, Cell]] | None = None
    legend: str = ""

    def values(self, curve: Curve) -> list[int | float | None]:
        """Compute the metric of each example as a Python number.

        A count without a value is None, because integers have no NaN.

        Args:
            curve (Curve): Curve of B examples.

        Returns:
            list[int, float or None]: One value for each example.
        """
        values: list[float] = self.of_curve(curve).tolist()
        if self.is_count:
            return [None if value != value else int(value) for value in values]
        return list(values)

    def summarize(self, curve: Curve) -> dict[str, Cell]:
        """Summarize the metric over the examples of a curve.

        Args:
            curve (Curve): Curve of B examples.

        Returns:
            dict[str, str or int or float]: Value of each column of the summary, by title.
        """
        if self.summary is not None:
            return self.summary(curve)
        return {self.title: float(self.of_curve(curve).nanmean())}
