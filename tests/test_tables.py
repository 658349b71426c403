from captum_moxi.tables import html_table, markdown_table


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


def test_an_html_table_escapes_its_text() -> None:
    table = html_table("a < b", ["<name>"], [["x & y"], [0.12345]])
    assert table == (
        "<table><caption>a &lt; b</caption><thead><tr><th>&lt;name&gt;</th></tr></thead>"
        "<tbody><tr><td>x &amp; y</td></tr><tr><td>0.123</td></tr></tbody></table>"
    )
