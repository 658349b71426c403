"""Tables in plain text, Markdown, HTML and CSV."""

import csv
import html
import io
from collections.abc import Sequence
from typing import TypeAlias

# One row of a table: values by column.
Record: TypeAlias = dict[str, int | float | str | None]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format rows as a Markdown table.

    Args:
        header (Sequence[str]): Column titles.
        rows (Sequence[Sequence[object]]): One sequence of cells for each row. Floats are shown with three significant
            digits, or as whole numbers from 1000 on. Thousands are separated by commas.

    Returns:
        str: The table, without a newline at its end. Line breaks in cells become spaces. Borders and HTML are escaped.

    Examples::

        >>> print(markdown_table(["method", "seconds"], [["MoXI", 1.2345]]))
        | method | seconds |
        | --- | --- |
        | MoXI | 1.23 |
    """
    lines = [header, ["---"] * len(header), *([format_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(map(_markdown_cell, line)) + " |" for line in lines)


def html_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format rows as an HTML table for notebooks.

    Args:
        caption (str): Text above the table.
        header (Sequence[str]): Column titles.
        rows (Sequence[Sequence[object]]): One sequence of cells for each row, formatted as in :func:`markdown_table`.

    Returns:
        str: The table. All text is escaped.
    """
    head = "".join(f"<th>{html.escape(title)}</th>" for title in header)
    lines = ["".join(f"<td>{html.escape(format_cell(value))}</td>" for value in row) for row in rows]
    return (
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
    )


def csv_table(records: Sequence[Record]) -> str:
    """Return records as the text of a CSV file. Values that are None are empty.

    Args:
        records (Sequence[dict]): One or more records with the same columns.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


class Table(list[Record]):
    """Records with the same columns: a list of dicts that Python and notebooks show as a table."""

    def __repr__(self) -> str:
        return text_table(self._header(), self._rows())

    def _repr_html_(self) -> str:
        return html_table("", self._header(), self._rows())

    def _header(self) -> list[str]:
        return list(self[0]) if self else []

    def _rows(self) -> list[list[object]]:
        return [list(record.values()) for record in self]


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format rows as plain text with aligned columns. Numbers are aligned to the right.

    Args:
        header (Sequence[str]): Column titles.
        rows (Sequence[Sequence[object]]): One sequence of cells for each row, formatted as in :func:`markdown_table`.

    Returns:
        str: The table, without a newline at its end.
    """
    columns = list(zip(header, *([format_cell(value) for value in row] for row in rows), strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_text = [any(isinstance(row[i], str) for row in rows) for i in range(len(header))]
    lines = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(line, widths, is_text, strict=True)
        ).rstrip()
        for line in lines
    )


def format_cell(value: object) -> str:
    """Return the text of a cell. Floats have three significant digits. Thousands are separated by commas."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _markdown_cell(text: str) -> str:
    # Markdown may contain HTML. The sign ">" starts none, and is part of many cells.
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return " ".join(text.replace("|", "\\|").split())
