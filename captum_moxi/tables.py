"""Tables in Markdown."""

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


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
