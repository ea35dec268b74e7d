"""Tables: readable numbers, and nothing in a cell that acts on a terminal, a page or a spreadsheet."""

import csv
import html.parser
import io

import numpy as np
import pytest

from jaxexec.presentation import Table, format_number, protected, table_of, unprotected, visible

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "=1+1",
    "@SUM(A1)",
    "-2+3",
    "+1",
    "\t=1",
    "'quoted",
    "\x1b[31mred\x1b[0m",
    "line\nbreak",
    "right\u202eto left",
    "[bold]markup[/bold] :smile:",
    "a\0b",
    "x" * 10_000,
    "",
    "NaN",
]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.0, "0"),
        (-0.0, "0"),
        (1234567, "1,234,567"),
        (-1234.5, "−1,234"),
        (0.0123456, "0.01235"),
        (1.23456e-7, "1.235e-07"),
        (12345678.9, "12,345,679"),
        (9.87654e12, "9.877e+12"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (-float("inf"), "−∞"),
        (10**30, "1.000e+30"),
    ],
)
def test_numbers_have_the_digits_that_matter(value, shown):
    assert format_number(value) == shown


def test_columns_of_like_size_share_their_decimals():
    text = Table("", ["x"], [[1.23456], [23.4567], [float("nan")]]).text(40)
    assert "1.23" in text and "23.46" in text and "1.235" not in text and "–" in text


def test_text_shows_title_footer_and_gaps():
    table = Table("Title", ["symbol", "ok", "n"], [["A", True, 3], ["B", np.bool_(False), None]], "Footer")
    text = table.text(60)
    assert text.index("Title") < text.index("symbol") < text.index("yes") < text.index("Footer")
    assert "no" in text and "–" in text
    assert str(table) and table.records()[1] == {"symbol": "B", "ok": False, "n": None}


@pytest.mark.parametrize("cell", HOSTILE)
def test_a_terminal_gets_no_control_characters(cell):
    text = Table(cell, [cell], [[cell]], cell).text(100)
    assert not any(ord(c) < 32 or ord(c) in (127, 0x202E) for c in text if c != "\n")
    if cell.startswith("[bold]"):
        assert "[bold]markup[/bold] :smile:" in text


class Collector(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"class", "scope", "colspan"}

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("cell", HOSTILE)
def test_a_page_gets_only_the_elements_of_a_table(cell):
    collector = Collector()
    collector.feed(Table(cell, [cell, "n"], [[cell, 1]], cell).html())
    assert collector.tags <= {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
    assert visible(cell, 200) in collector.texts or not cell


@pytest.mark.parametrize("cell", HOSTILE)
def test_a_spreadsheet_gets_no_formula_and_the_text_comes_back(cell):
    rows = list(csv.reader(io.StringIO(Table("", [cell], [[cell]]).csv(), newline="")))
    assert len(rows) == 2
    assert not rows[1] or not rows[1][0].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unprotected(protected(cell)) == cell
    assert [unprotected(c) for c in rows[1]] in ([cell.replace("\0", "\\x00")], [])


def test_numbers_in_csv_are_left_alone_with_all_digits():
    row = [-1.5, 0.1 + 0.2, np.float64(-2.0), np.int64(-3), float("nan"), None, True]
    line = Table("", list("abcdefg"), [row]).csv().splitlines()[1]
    assert line == "-1.5,0.30000000000000004,-2.0,-3,,,true"


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match=r"rows\[1\] has 1 cells for 2 columns"):
        Table("", ["a", "b"], [[1, 2], [3]])


def test_an_empty_table_is_still_a_table():
    table = Table("", ["a"], [])
    assert "a" in table.text(20) and "<table>" in table.html() and table.csv() == "a\r\n"
    assert table_of([]).columns == ()


def test_records_become_a_table():
    assert table_of([{"a": 1, "b": "x"}, {"b": "y", "a": 2}]).rows == ((1, "x"), (2, "y"))
