from captum_moxi.tables import Table, html_table, markdown_table, text_table


def test_a_table_is_markdown_with_three_significant_digits() -> None:
    table = markdown_table(["name", "seconds", "rows"], [["a", 0.12345, 1234567], ["b", 1234.5, 3]])
    assert table.splitlines() == [
        "| name | seconds | rows |",
        "| --- | --- | --- |",
        "| a | 0.123 | 1,234,567 |",
        "| b | 1,234 | 3 |",
    ]


def test_text_cannot_break_a_markdown_table() -> None:
    assert markdown_table(["a"], [["x | y\nz"]]).splitlines()[2] == r"| x \| y z |"


def test_text_cannot_add_html_to_a_markdown_table() -> None:
    assert markdown_table(["a"], [["<b>x</b> & &lt;"]]).splitlines()[2] == "| &lt;b>x&lt;/b> &amp; &amp;lt; |"


def test_a_table_without_rows_has_its_header() -> None:
    assert markdown_table(["a", "b"], []).splitlines() == ["| a | b |", "| --- | --- |"]


def test_an_html_table_escapes_its_text() -> None:
    table = html_table("a < b", ["<name>"], [["x & y"], [0.12345]])
    assert table == (
        "<table><caption>a &lt; b</caption><thead><tr><th>&lt;name&gt;</th></tr></thead>"
        "<tbody><tr><td>x &amp; y</td></tr><tr><td>0.123</td></tr></tbody></table>"
    )


def test_a_text_table_aligns_text_left_and_numbers_right() -> None:
    rows: list[list[object]] = [["MoXI", 3, 0.12345, "a"], ["Grad-CAM", 1234, None, "bc"]]
    assert text_table(["method", "rows", "area", "x"], rows).splitlines() == [
        "method     rows   area  x",
        "MoXI          3  0.123  a",
        "Grad-CAM  1,234   None  bc",
    ]
    assert text_table(["a", "b"], []) == "a  b"


def test_records_are_a_list_that_prints_as_a_table() -> None:
    records = [{"method": "MoXI", "rows": 3}, {"method": "Random", "rows": 0}]
    table = Table(records)
    assert table == records
    assert table[1]["rows"] == 0
    assert repr(table) == text_table(["method", "rows"], [["MoXI", 3], ["Random", 0]])
    assert table._repr_html_() == html_table("", ["method", "rows"], [["MoXI", 3], ["Random", 0]])
    assert repr(Table()) == ""
