"""A small table of results: for the terminal, for HTML, for a spreadsheet."""

import csv
import dataclasses
import html
import io
import math
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jaxexec.presentation.cells import format_column, is_number, scalar, visible

_LONGEST_CELL = 200
_LONGEST_WORD = 20
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "'")


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table.

    Attributes:
        title: Title; may be empty.
        columns: Names of the columns, units included.
        rows: One sequence of cells a row: numbers, text, booleans or None.
        footer: What a careful reader must know: conventions, units, sources.

    Raises:
        ValueError: A row has another number of cells than there are columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    footer: str = ""

    def __post_init__(self):
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "rows", tuple(tuple(row) for row in self.rows))
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"rows[{index}] has {len(row)} cells for {len(self.columns)} columns")

    def text(self, width: int | None = None) -> str:
        """The table for a terminal.

        Args:
            width: Characters a line; that of the terminal where None.
        """
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        width = width or shutil.get_terminal_size((110, 24)).columns
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        formatted = self._formatted()
        least = self._least_widths(formatted, width)
        for name, right, narrowest in zip(self.columns, self._is_numeric(), least, strict=True):
            table.add_column(
                Text(visible(name, _LONGEST_CELL)),
                justify="right" if right else "left",
                overflow="fold",
                min_width=narrowest,
            )
        for row in zip(*formatted, strict=True):
            table.add_row(*(Text(visible(cell, _LONGEST_CELL)) for cell in row))
        console = Console(file=io.StringIO(), width=width, force_terminal=False, color_system=None)
        with console.capture() as captured:
            console.print(table)
        body = [line.rstrip() for line in captured.get().splitlines()]
        return "\n".join([*_wrapped(self.title, width), *body, *_wrapped(self.footer, width)])

    def html(self) -> str:
        """The table as one HTML `<table>` element, every cell escaped; it brings no style of its own."""
        kinds = [' class="number"' if right else "" for right in self._is_numeric()]
        head = "".join(f'<th scope="col"{k}>{_escape(name)}</th>' for k, name in zip(kinds, self.columns, strict=True))
        lines = [f"<thead><tr>{head}</tr></thead>", "<tbody>"]
        for row in zip(*self._formatted(), strict=True):
            cells = "".join(f"<td{k}>{_escape(cell)}</td>" for k, cell in zip(kinds, row, strict=True))
            lines.append(f"<tr>{cells}</tr>")
        lines.append("</tbody>")
        if self.title:
            lines.insert(0, f"<caption>{_escape(self.title)}</caption>")
        if self.footer:
            width = max(len(self.columns), 1)
            lines.append(f'<tfoot><tr><td colspan="{width}">{_escape(self.footer)}</td></tr></tfoot>')
        return "<table>\n" + "\n".join(lines) + "\n</table>"

    def csv(self) -> str:
        """The table as CSV with all digits; cells that a spreadsheet would run as a formula are disarmed.

        A text cell that begins with `= + - @`, a control character or a quote gets a quote in front
        (CWE-1236), which `unprotected` takes away again. Numbers are left as they are; NaN and None are
        empty.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow([protected(name) for name in self.columns])
        writer.writerows([[_csv_cell(cell) for cell in row] for row in self.rows])
        return out.getvalue()

    def records(self) -> list[dict[str, Any]]:
        """The rows as dictionaries of Python objects, for JSON."""
        return [dict(zip(self.columns, map(scalar, row), strict=True)) for row in self.rows]

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()

    def _columns_of_cells(self) -> list[tuple[Any, ...]]:
        return list(zip(*self.rows, strict=True)) if self.rows else [() for _ in self.columns]

    def _formatted(self) -> list[list[str]]:
        return [format_column(column) for column in self._columns_of_cells()]

    def _least_widths(self, formatted: list[list[str]], width: int) -> list[int]:
        """Widths below which a column breaks words, cut down until all columns fit beside each other."""
        columns = [[visible(name), *cells] for name, cells in zip(self.columns, formatted, strict=True)]
        words = [max((len(w) for cell in column for w in cell.split()), default=1) for column in columns]
        room = width - 3 * len(words)
        longest = next((n for n in range(_LONGEST_WORD, 1, -1) if sum(min(n, w) for w in words) <= room), 1)
        return [min(longest, word) for word in words]

    def _is_numeric(self) -> list[bool]:
        """Which columns hold numbers (and nothing but gaps beside them)."""
        columns = [[cell for cell in column if cell is not None] for column in self._columns_of_cells()]
        return [bool(column) and all(map(is_number, column)) for column in columns]


def table_of(records: Sequence[Mapping[str, Any]], title: str = "", footer: str = "") -> Table:
    """A table of records that share their keys, such as a Polars frame's `to_dicts()`."""
    columns = tuple(records[0]) if records else ()
    return Table(title, columns, [[record[name] for name in columns] for record in records], footer)


def protected(text: str) -> str:
    """Text that a spreadsheet takes as text: with a quote in front where it could start a formula."""
    return "'" + text if text.startswith(_DANGEROUS) else text


def unprotected(text: str) -> str:
    """The text that `protected` was given."""
    return text[1:] if text.startswith("'") else text


def _wrapped(text: str, width: int) -> list[str]:
    """A title or footer in lines that fit."""
    return textwrap.wrap(visible(text), min(width, 110))


def _csv_cell(value: Any) -> str:
    value = scalar(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else protected(str(value).replace("\0", "\\x00"))


def _escape(text: str) -> str:
    """Text for an HTML document: markup escaped, control characters spelled out, length bounded."""
    return html.escape(visible(text, _LONGEST_CELL), quote=True)
