"""Frames of orders and fills as a desk has them: every cell checked, every fault named by order, row and field."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxexec.post_trade.executions import is_price
from jaxexec.post_trade.failure import slack_of

Clock = Callable[[Any], float]
"""What turns a cell of a column of times into trading days, or raises `ValueError`."""

BENCHMARKS = ("vwap", "twap", "close", "prior_close")
_REFERENCES = ("decision_price", "arrival_price", "end_price", "limit_price", *BENCHMARKS)
_TIMES = ("decision_time", "arrival_time", "end_time")
_ORDER_COLUMNS = ("order_id", "symbol", "side", "quantity", "shares", "interval_volume", *_REFERENCES, *_TIMES)
_FILL_COLUMNS = ("order_id", "side", "price", "size", "fee", "mid", "time")
_EMPTY = ("", "nan", "nat", "<na>", "none", "null")
_SALES = {"sell", "s", "2", "sl", "sellshort", "short", "ss", "5", "shrt"}
_PURCHASES = {"buy", "b", "1", "by", "cover", "buytocover"}


@dataclasses.dataclass(frozen=True)
class Fault:
    """Why an order was refused.

    Attributes:
        frame: "orders" or "fills".
        row: row of that frame, counted from 0.
        order_id: the order.
        field: the column at fault.
        reason: what is wrong.
    """

    frame: str
    row: int
    order_id: str
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.frame} row {self.row} (order {self.order_id[:40]!r}), {self.field}: {self.reason}"


class Faults:
    """Faults in the order in which they are found, one for each cell."""

    def __init__(self):
        self._found: dict[tuple[str, int, str], Fault] = {}

    @property
    def found(self) -> tuple[Fault, ...]:
        return tuple(self._found.values())

    def add(self, frame: str, ids: Sequence[str], bad: np.ndarray, field: str, reason: Callable[[int], str]) -> None:
        """One fault for each row that is `bad`; the first that is found of a cell is kept."""
        for i in np.flatnonzero(bad).tolist():
            self.put(Fault(frame, i, ids[i], field, reason(i)))

    def put(self, fault: Fault) -> None:
        """One fault."""
        self._found.setdefault((fault.frame, fault.row, fault.field), fault)


@dataclasses.dataclass(frozen=True)
class Book:
    """Orders and their fills as arrays; fills lie in the order of their orders, then of time.

    Attributes:
        ids: (orders,) names.
        symbols: (orders,) names; empty where there is no column.
        numbers: (orders,) arrays by column, NaN where a cell is not known; `shares` is negative in a purchase.
        groups: (orders,) other columns, verbatim.
        owner: (fills,) index of the order.
        rows: (fills,) rows of the frame that the fills stood in.
        fills: (fills,) arrays by column; `size` is positive.
        fill_groups: (fills,) other columns, verbatim.
        has_arrival: whether orders have a column of arrival prices or times; where not they arrive as decided.
        has_decision: likewise of decisions; where not they are decided as they arrive.
    """

    ids: list[str]
    symbols: list[str]
    numbers: dict[str, np.ndarray]
    groups: dict[str, list]
    owner: np.ndarray
    rows: np.ndarray
    fills: dict[str, np.ndarray]
    fill_groups: dict[str, list]
    has_arrival: bool
    has_decision: bool

    @property
    def offsets(self) -> np.ndarray:
        """(orders + 1,) where the fills of each order begin and end."""
        return np.searchsorted(self.owner, np.arange(len(self.ids) + 1))


def read_book(orders: Any, fills: Any, clock: Clock | None, faults: Faults) -> Book:
    """Orders and fills of two frames (polars, pandas, or mappings of columns); what is wrong goes to `faults`.

    Raises:
        ValueError: a frame lacks a column, has columns of different lengths, or is no frame.
    """
    table, log = columns_of_frame(orders, "orders"), columns_of_frame(fills, "fills")
    _require("orders", table, ("order_id",))
    _require("fills", log, ("order_id", "price", "size"))
    if "shares" not in table:
        _require("orders", table, ("side", "quantity"))
    has_decision, has_arrival = (
        f"{name}_price" in table or f"{name}_time" in table for name in ("decision", "arrival")
    )
    if not (has_decision or has_arrival):
        raise ValueError(f"orders lack decision_price and arrival_price: one is needed; found {', '.join(table)}")
    ids = [id_of(cell) for cell in table["order_id"]]
    numbers = _order_numbers(table, ids, clock, faults)
    owner, rows, done = _fill_numbers(log, ids, numbers["shares"], clock, faults)
    return Book(
        ids,
        [text_of(cell) for cell in table.get("symbol", [""] * len(ids))],
        numbers,
        {name: list(cells) for name, cells in table.items() if name not in _ORDER_COLUMNS},
        owner,
        rows,
        done,
        {name: _taken(cells, rows) for name, cells in log.items() if name not in _FILL_COLUMNS},
        has_arrival,
        has_decision,
    )


def columns_of_frame(frame: Any, what: str) -> dict[str, Any]:
    """The columns of a frame by name.

    Raises:
        ValueError: it is no frame, or its columns differ in length.
    """
    if hasattr(frame, "to_dict") and hasattr(frame, "get_column"):  # polars
        return {name: frame.get_column(name) for name in frame.columns}
    if hasattr(frame, "to_dict") and hasattr(frame, "iloc"):  # pandas
        return {str(name): cells for name, cells in frame.to_dict("list").items()}
    if not isinstance(frame, Mapping):
        kinds = "a frame (polars, pandas, or a mapping of columns)"
        raise ValueError(f"{what} must be {kinds}, got {type(frame).__name__}")
    lengths = {name: len(cells) for name, cells in frame.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{what}: columns differ in length: {lengths}")
    return dict(frame)


def _taken(cells: Any, rows: np.ndarray) -> list:
    verbatim = list(cells)
    return [verbatim[i] for i in rows]


def id_of(cell: Any) -> str:
    """A name as text; a whole number without its decimals, since a column with gaps turns 7 into 7.0."""
    return str(int(cell)) if isinstance(cell, float | np.floating) and float(cell).is_integer() else text_of(cell)


def text_of(cell: Any) -> str:
    """A cell as text; nothing where there is nothing."""
    return "" if cell is None else str(cell).strip()


def numbers_of(cells: Any, clock: Clock | None = None) -> tuple[np.ndarray, dict[int, str]]:
    """Cells as numbers, NaN where a cell is empty or cannot be one; and why not, by row."""
    array = np.asarray(cells) if clock is None else None
    if array is not None and array.dtype.kind in "iuf":
        return array.astype(float), {}
    if array is not None and array.dtype.kind in "mM":
        raise ValueError("times must be numbers of trading days, not dates and times; give a clock that converts them")
    values, reasons = np.full(len(cells), math.nan), {}
    for row, cell in enumerate(cells):
        if text_of(cell).lower() in _EMPTY:
            continue
        try:
            values[row] = _number(cell) if clock is None else clock(cell)
        except (ValueError, TypeError) as error:
            reasons[row] = str(error)
    return values, reasons


def _number(cell: Any) -> float:
    text = text_of(cell)
    try:
        return float("x" if "_" in text or isinstance(cell, bool) else text)
    except ValueError:
        raise ValueError(f"{text[:30]!r} is not a number") from None


def _require(what: str, table: Mapping[str, Any], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"{what} lack the column {missing[0]}; found {', '.join(table) or 'none'}")


def _read(
    what: str, table: Mapping[str, Any], name: str, ids: list[str], clock: Clock | None, faults: Faults
) -> np.ndarray:
    """One column as numbers; all NaN where it is missing."""
    if name not in table:
        return np.full(len(ids), math.nan)
    try:
        values, reasons = numbers_of(table[name], clock)
    except ValueError as error:
        raise ValueError(f"{what}, column {name}: {error}") from error
    bad = np.zeros(len(ids), bool)
    bad[list(reasons)] = True
    faults.add(what, ids, bad, name, lambda i: reasons[i])
    infinite = np.isinf(values)
    faults.add(what, ids, infinite, name, lambda i: f"must be finite, got {values[i]}")
    return values


def _order_numbers(
    table: Mapping[str, Any], ids: list[str], clock: Clock | None, faults: Faults
) -> dict[str, np.ndarray]:
    seen: dict[str, int] = {}
    for name in ids:
        seen[name] = seen.get(name, 0) + 1
    repeated = np.array([seen[name] > 1 for name in ids], bool)
    faults.add("orders", ids, repeated, "order_id", lambda i: f"{seen[ids[i]]} orders have it")
    faults.add("orders", ids, np.array([not name for name in ids], bool), "order_id", lambda i: "is empty")
    numbers = {"shares": _shares(table, ids, faults)}
    for name in (*_REFERENCES, "interval_volume"):
        values = numbers[name] = _read("orders", table, name, ids, None, faults)
        faults.add("orders", ids, values <= 0, name, lambda i, v=values: f"must be positive, got {v[i]:g}")
    for name in _TIMES:
        numbers[name] = _read("orders", table, name, ids, clock, faults)
    for first, second in itertools.combinations(_TIMES, 2):
        late = numbers[second] < numbers[first]
        faults.add("orders", ids, late, second, lambda i, first=first: f"is before {first}")
    return numbers


def _shares(table: Mapping[str, Any], ids: list[str], faults: Faults) -> np.ndarray:
    """Shares to sell; negative in a purchase."""
    if "shares" in table:
        shares = _read("orders", table, "shares", ids, None, faults)
        faults.add("orders", ids, np.isnan(shares) | (shares == 0), "shares", lambda i: "is missing or zero")
        return shares
    sign = _signs("orders", table, ids, faults)
    quantity = _read("orders", table, "quantity", ids, None, faults)
    faults.add("orders", ids, ~(quantity > 0), "quantity", lambda i: f"must be positive, got {quantity[i]:g}")
    return sign * quantity


def _signs(what: str, table: Mapping[str, Any], ids: list[str], faults: Faults) -> np.ndarray:
    """1 for a sale, −1 for a purchase."""
    words = ["".join(c for c in text_of(cell).lower() if c.isalnum()) for cell in table["side"]]
    sign = np.array([1.0 if word in _SALES else -1.0 if word in _PURCHASES else math.nan for word in words])
    reason = "is neither a purchase (BUY, 1) nor a sale (SELL, 2)"
    faults.add(what, ids, np.isnan(sign), "side", lambda i: f"{text_of(table['side'][i])[:20]!r} {reason}")
    return sign


def _fill_numbers(
    log: Mapping[str, Any], ids: list[str], shares: np.ndarray, clock: Clock | None, faults: Faults
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The order and the row of each fill, and its numbers, in the order of orders and of time."""
    place = {name: i for i, name in reversed(list(enumerate(ids)))}
    names = [id_of(cell) for cell in log["order_id"]]
    owner = np.array([place.get(name, -1) for name in names], int)
    faults.add("fills", names, owner < 0, "order_id", lambda i: "no order has it")
    if "side" in log and len(ids):
        against = (owner >= 0) & (_signs("fills", log, names, faults) * shares[owner] < 0)
        faults.add("fills", names, against, "side", lambda i: "is not that of the order")
    done = {name: _read("fills", log, name, names, None, faults) for name in ("price", "size", "fee", "mid")}
    done["time"] = _read("fills", log, "time", names, clock, faults)
    done["fee"] = np.where(np.isnan(done["fee"]), 0.0, done["fee"])
    for name in ("price", "size"):
        values = done[name]
        wrong = ~is_price(values) & ~np.isinf(values)
        faults.add("fills", names, wrong, name, lambda i, v=values: f"must be positive, got {v[i]:g}")
    faults.add("fills", names, done["mid"] <= 0, "mid", lambda i: f"must be positive, got {done['mid'][i]:g}")
    order = np.lexsort((np.arange(len(names)), done["time"], owner))
    order = order[owner[order] >= 0]
    return owner[order], order, {name: values[order] for name, values in done.items()}


def check_fills(book: Book, faults: Faults) -> None:
    """Fills before their order, and fills beyond what was ordered."""
    numbers, owner, time = book.numbers, book.owner, book.fills["time"]

    def put(i: int, field: str, reason: str) -> None:
        faults.put(Fault("fills", int(book.rows[i]), book.ids[owner[i]], field, reason))

    for name in ("decision_time", "arrival_time"):
        first = numbers[name][owner]
        for i in np.flatnonzero(time < first).tolist():
            put(i, "time", f"{time[i]:g} is before the order's {name}, {first[i]:g}")
    size = np.where(book.fills["size"] > 0, book.fills["size"], 0)
    ordered = np.abs(numbers["shares"])
    filled, offsets = np.bincount(owner, size, len(book.ids)), book.offsets
    for order in np.flatnonzero(filled > ordered * (1 + slack_of(np.float64))).tolist():
        first, last = offsets[order : order + 2]
        sums = np.cumsum(size[first:last])
        i = int(np.argmax(sums > ordered[order] * (1 + slack_of(np.float64))))
        reason = f"brings what is filled to {sums[i]:,.10g} shares, more than the {ordered[order]:,.10g} ordered"
        put(first + i, "size", reason)
