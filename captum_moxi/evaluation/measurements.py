"""Measurements: one quantity of several methods on the same images, their means, and paired comparisons with MoXI."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from captum_moxi.arguments import MODES
from captum_moxi.files import write_file
from captum_moxi.methods.moxi import MOXI, MOXI_MINUS, MOXI_SYMMETRIC
from captum_moxi.metrics import order_title
from captum_moxi.metrics.bootstrap import MIN_IMAGES, mean_with_interval
from captum_moxi.metrics.paired import paired_difference
from captum_moxi.tables import Record, csv_table, format_cell, markdown_table

# Which values are better. None: neither.
Better: TypeAlias = Literal["higher", "lower"] | None

# Methods and orders that are variants of MoXI. MoXI is compared with all others.
VARIANTS = frozenset(
    [
        *(MOXI, MOXI_MINUS, MOXI_SYMMETRIC),
        *(order_title(method, mode, depends_on_mode=True) for method in (MOXI, MOXI_MINUS) for mode in MODES),
    ]
)
# Variants that are compared with the best other method. MoXI(-) is the paper's ablation.
TESTED = (MOXI, MOXI_SYMMETRIC)

PAIRED_TITLE = "MoXI and the best other method"
PAIRED_LEGEND = f"""
**Best other**: the method with the best mean among all that are not variants of MoXI. **Difference**: mean over the
images of MoXI's value minus the value of the other method. If lower values are better, a negative difference favors
MoXI. **Low**, **high**: ends of its 95 % bootstrap interval. **P-value**: two-sided Wilcoxon signed-rank test of the
differences. The intervals and the p-values are not corrected for two things: the best other method is chosen on the
same images, and the table contains several tests. A comparison needs {MIN_IMAGES} images.""".strip()
_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


@dataclass(frozen=True, eq=False)
class Measurement:
    """One quantity of N images, measured for several methods.

    Args:
        quantity (str): Name of the quantity.
        better (str or None): Whether ``"higher"`` or ``"lower"`` values are better. None if neither are. Methods are
            then not compared.
        values (Mapping[str, ndarray]): Values of the same images in the same order, by title of the method. Each has
            shape ``(N,)``, float64.
        tested (Sequence[str], optional): Titles that are compared with the best of the other methods.
            Default: MoXI and symmetric search
        condition (str, optional): The run or the removal of these values.
            Default: ``""``
    """

    quantity: str
    better: Better
    values: Mapping[str, NDArray[np.float64]]
    tested: Sequence[str] = TESTED
    condition: str = ""

    @property
    def best_other(self) -> str | None:
        """Title of the method with the best mean among those that are neither tested nor variants of MoXI, if any."""
        if self.better is None:
            return None
        sign = 1 if self.better == "higher" else -1
        means = {
            title: sign * float(values.mean())
            for title, values in self.values.items()
            if title not in VARIANTS and title not in self.tested and np.isfinite(values).all()
        }
        return max(means, key=means.__getitem__, default=None)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Titles of the tested methods, each with the best other method."""
        other = self.best_other
        return [
            (title, other)
            for title in self.tested
            if other is not None and title in self.values and np.isfinite(self.values[title]).all()
        ]


def means_table(measurements: Sequence[Measurement], *, resamples: int, condition_title: str) -> str:
    """Format the means over the images and their 95 % intervals as a Markdown table.

    Args:
        measurements (Sequence[Measurement]): Measurements. Each quantity is a column, and each method a row.
        resamples (int): Number of bootstrap resamples for the intervals.
        condition_title (str): Title of the column with the conditions. If all are empty, there is no such column.

    Returns:
        str: The table. ↑ and ↓ mean that higher or lower values are better. Intervals need 10 images.
    """
    columns = list(dict.fromkeys((measurement.quantity, measurement.better) for measurement in measurements))
    rows = list(dict.fromkeys((item.condition, title) for item in measurements for title in item.values))
    values = {
        (measurement.quantity, measurement.condition, title): _mean_and_interval(values, resamples=resamples)
        for measurement in measurements
        for title, values in measurement.values.items()
    }
    conditions = [condition_title] if any(name for name, _ in rows) else []
    header = [*conditions, "", *(f"{quantity}{_ARROWS[better]}" for quantity, better in columns)]
    cells = [
        [*([name] if conditions else []), title, *(values.get((quantity, name, title), "") for quantity, _ in columns)]
        for name, title in rows
    ]
    return markdown_table(header, cells)


def _mean_and_interval(values: NDArray[np.float64], *, resamples: int) -> str:
    mean, *interval = mean_with_interval(values, resamples=resamples)
    if math.isnan(mean):
        return ""
    text = format_cell(mean)
    return text if math.isnan(interval[0]) else f"{text} ({format_cell(interval[0])} to {format_cell(interval[1])})"


def paired_records(measurements: Iterable[Measurement], *, resamples: int) -> list[Record]:
    """Compare the tested methods with the best other one on the same images.

    Args:
        measurements (Iterable[Measurement]): Measurements.
        resamples (int): Number of bootstrap resamples for the intervals.

    Returns:
        list[dict]: One row for each measurement and tested method. Measurements of fewer than 10 images have none.
    """
    records: list[Record] = []
    for measurement in measurements:
        for title, other in measurement.pairs:
            values = measurement.values[title]
            if len(values) >= MIN_IMAGES:
                difference = paired_difference(values, measurement.values[other], resamples=resamples)
                records.append(
                    {
                        "condition": measurement.condition,
                        "quantity": measurement.quantity,
                        "method": title,
                        "best other": other,
                        "images": len(values),
                        "difference": difference.mean,
                        "low": difference.low,
                        "high": difference.high,
                        "p-value": difference.p_value,
                    }
                )
    return records


def describe_pairs(
    measurements: Sequence[Measurement], *, resamples: int, condition_title: str, title: str = PAIRED_TITLE
) -> list[str]:
    """Describe the paired comparisons in Markdown.

    Args:
        measurements (Sequence[Measurement]): Measurements.
        resamples (int): Number of bootstrap resamples for the intervals.
        condition_title (str): Title of the column with the conditions. If all are empty, there is no such column.
        title (str, optional): What is compared.
            Default: MoXI and the best other method

    Returns:
        list[str]: A title and a table, or a sentence if there are too few images. Nothing if there is nothing to
        compare.
    """
    return _describe(measurements, paired_records(measurements, resamples=resamples), condition_title, title)


def write_pairs(measurements: Sequence[Measurement], path: Path, *, resamples: int, condition_title: str) -> list[str]:
    """Write paired comparisons as a CSV file, and describe them in Markdown.

    Args:
        measurements (Sequence[Measurement]): Measurements.
        path (Path): The file. It is deleted if there is nothing to compare.
        resamples (int): Number of bootstrap resamples for the intervals.
        condition_title (str): Title of the column with the conditions. If all are empty, there is no such column.

    Returns:
        list[str]: As :func:`describe_pairs`, with the legend of the table.
    """
    records = paired_records(measurements, resamples=resamples)
    if records:
        write_file(path, csv_table(_name_conditions(records, condition_title)))
    else:
        path.unlink(missing_ok=True)
    return [*_describe(measurements, records, condition_title), *([PAIRED_LEGEND] if records else [])]


def _describe(
    measurements: Sequence[Measurement], records: Sequence[Record], condition_title: str, title: str = PAIRED_TITLE
) -> list[str]:
    if records:
        named = _name_conditions(records, condition_title)
        table = markdown_table(list(named[0]), [list(record.values()) for record in named])
        return [f"**{title}, on the same images**", table]
    if any(measurement.pairs for measurement in measurements):
        return [f"The comparison of {title} needs at least {MIN_IMAGES} images."]
    return []


def _name_conditions(records: Sequence[Record], condition_title: str) -> list[Record]:
    """Rename the column with the conditions, or leave it out if all are empty."""
    has_conditions = any(record["condition"] for record in records)
    return [
        {
            condition_title if name == "condition" else name: cell
            for name, cell in record.items()
            if name != "condition" or has_conditions
        }
        for record in records
    ]
