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

Better: TypeAlias = Literal["higher", "lower"]

# Methods and orders that are variants of MoXI. MoXI is compared with all others.
VARIANTS = frozenset(
    [
        *(MOXI, MOXI_MINUS, MOXI_SYMMETRIC),
        *(order_title(method, mode, depends_on_mode=True) for method in (MOXI, MOXI_MINUS) for mode in MODES),
    ]
)
# Variants that are compared with the best other method. MoXI(-) is the paper's ablation.
TESTED = (MOXI, MOXI_SYMMETRIC)

PAIRED_TITLE = "**MoXI and the best other method, on the same images**"
PAIRED_LEGEND = f"""
**Best other**: the method with the best mean among all that are not variants of MoXI. **Difference**: MoXI minus this
method, as a mean over images; in a deletion area, negative is better for MoXI. **Low**, **high**: ends of its 95 %
bootstrap interval. **P-value**: Wilcoxon signed-rank test of the differences of the images, two-sided. The best other
method is chosen by the same images, and each row is a test of its own. Neither intervals nor p-values are corrected for
this. Both need {MIN_IMAGES} images.""".strip()


@dataclass(frozen=True, eq=False)
class Measurement:
    """One quantity of N images, measured for several methods.

    Args:
        quantity (str): Name of the quantity.
        better (str): Whether ``"higher"`` or ``"lower"`` values are better.
        values (Mapping[str, ndarray]): Values of the same images in the same order, by title of the method. Each has
            shape ``(N,)``, float64.
        tested (Sequence[str], optional): Titles that are compared with the best of the other methods.
            Default: MoXI and symmetric search
        group (str, optional): What else the methods have in common: the name of a run or a removal.
            Default: ``""``
    """

    quantity: str
    better: Better
    values: Mapping[str, NDArray[np.float64]]
    tested: Sequence[str] = TESTED
    group: str = ""

    @property
    def best_other(self) -> str | None:
        """Title of the method with the best mean among those that are not tested and no variants of MoXI, if any."""
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


def means_table(measurements: Sequence[Measurement], *, resamples: int, group: str) -> str:
    """Format the means over the images and their 95 % intervals as a Markdown table.

    Args:
        measurements (Sequence[Measurement]): Measurements. Each quantity is a column, and each method a row.
        resamples (int): Number of bootstrap resamples for the intervals.
        group (str): Title of the column with the groups. If all groups are empty, there is no such column.

    Returns:
        str: The table. ↑ and ↓ mean that higher or lower values are better. Intervals need 10 images.
    """
    columns = list(dict.fromkeys((measurement.quantity, measurement.better) for measurement in measurements))
    rows = list(dict.fromkeys((item.group, title) for item in measurements for title in item.values))
    values = {
        (measurement.quantity, measurement.group, title): _mean_and_interval(values, resamples=resamples)
        for measurement in measurements
        for title, values in measurement.values.items()
    }
    groups = [group] if any(name for name, _ in rows) else []
    header = [*groups, "", *(f"{quantity} {'↑' if better == 'higher' else '↓'}" for quantity, better in columns)]
    cells = [
        [*([name] if groups else []), title, *(values.get((quantity, name, title), "") for quantity, _ in columns)]
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
                        "group": measurement.group,
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


def describe_pairs(measurements: Sequence[Measurement], *, resamples: int, group: str) -> list[str]:
    """Describe the paired comparisons in Markdown.

    Args:
        measurements (Sequence[Measurement]): Measurements.
        resamples (int): Number of bootstrap resamples for the intervals.
        group (str): Title of the column with the groups. If all groups are empty, there is no such column.

    Returns:
        list[str]: A title and a table, or a sentence if there are too few images. Nothing if there is nothing to
        compare.
    """
    return _describe(measurements, paired_records(measurements, resamples=resamples), group)


def write_pairs(measurements: Sequence[Measurement], path: Path, *, resamples: int, group: str) -> list[str]:
    """Write paired comparisons as a CSV file, and describe them in Markdown.

    Args:
        measurements (Sequence[Measurement]): Measurements.
        path (Path): The file. It is deleted if there is nothing to compare.
        resamples (int): Number of bootstrap resamples for the intervals.
        group (str): Title of the column with the groups. If all groups are empty, there is no such column.

    Returns:
        list[str]: As :func:`describe_pairs`, with the legend of the table.
    """
    records = paired_records(measurements, resamples=resamples)
    if records:
        write_file(path, csv_table(_name_groups(records, group)))
    else:
        path.unlink(missing_ok=True)
    return [*_describe(measurements, records, group), *([PAIRED_LEGEND] if records else [])]


def _describe(measurements: Sequence[Measurement], records: Sequence[Record], group: str) -> list[str]:
    if records:
        renamed = _name_groups(records, group)
        return [PAIRED_TITLE, markdown_table(list(renamed[0]), [list(record.values()) for record in renamed])]
    if any(measurement.pairs for measurement in measurements):
        return [f"MoXI is compared with the best other method from {MIN_IMAGES} images on."]
    return []


def _name_groups(records: Sequence[Record], group: str) -> list[Record]:
    """Rename the column with the groups, or leave it out if all groups are empty."""
    has_groups = any(record["group"] for record in records)
    return [
        {group if name == "group" else name: cell for name, cell in record.items() if name != "group" or has_groups}
        for record in records
    ]
