"""Tables in Markdown and HTML."""

import html
from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format rows as a Markdown table.

    Args:
        header (Sequence[str]): Column titles.
        rows (Sequence[Sequence[object]]): One sequence of cells for each row. Floats are shown with three significant
            digits, or as whole numbers from 1000 on. Thousands are separated by commas.

    Returns:
        str: The table, without a newline at its end.

    Examples::

        >>> print(markdown_table(["method", "seconds"], [["MoXI", 1.2345]]))
        | method | seconds |
        | --- | --- |
        | MoXI | 1.23 |
    """
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
    lines = ["".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) for row in rows]
    return (
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
