from captum_moxi.tables import markdown_table


def test_a_table_is_markdown_with_three_significant_digits() -> None:
    table = markdown_table(["name", "seconds", "rows"], [["a", 0.12345, 1234567], ["b", 1234.5, 3]])
    assert table.splitlines() == [
        "| name | seconds | rows |",
        "| --- | --- | --- |",
        "| a | 0.123 | 1,234,567 |",
        "| b | 1,234 | 3 |",
    ]


def test_a_table_without_rows_has_its_header() -> None:
    assert markdown_table(["a", "b"], []).splitlines() == ["| a | b |", "| --- | --- |"]
