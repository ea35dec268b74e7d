"""Reference prices that a book lacks, from quotes and trades of the market."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from jaxexec.post_trade.benchmarks import interval_twap, interval_vwap, prevailing_price
from jaxexec.post_trade.executions import is_price
from jaxexec.post_trade.frames import Book, Clock, columns_of_frame, numbers_of, text_of


class Ticks(NamedTuple):
    """One stock's quotes or trades, in the order of time."""

    times: np.ndarray
    prices: np.ndarray
    sizes: np.ndarray


def marked(book: Book, quotes: Any, trades: Any, clock: Clock | None) -> Book:
    """The book with what the quotes and trades know: mids, TWAP; VWAP and the volume of the interval.

    Nothing that is there is replaced. A fill's mid is that of the last quote strictly before it, since a quote of the
    same moment is often the fill's consequence; the price at decision, arrival and end is that of the last quote at or
    before.

    Raises:
        ValueError: a frame lacks a column, or its times go back within a symbol; the row is named.
    """
    numbers = {name: values.copy() for name, values in book.numbers.items()}
    fills = {name: values.copy() for name, values in book.fills.items()}
    symbols = np.array(book.symbols, object)
    for what, frame in (("quotes", quotes), ("trades", trades)):
        if frame is not None and len(set(book.symbols)) > 1 and "symbol" not in columns_of_frame(frame, what):
            raise ValueError(f"{what} lack the column symbol, and orders are of several")
    if quotes is not None:
        for symbol, path in _paths("quotes", quotes, clock).items():
            mine = _of_symbol(symbols, symbol)
            _mark_instants(numbers, mine, path)
            _mark_fills(fills, mine[book.owner], path)
            _mark_intervals(numbers, mine, path, "twap")
    if trades is not None:
        for symbol, path in _paths("trades", trades, clock).items():
            mine = _of_symbol(symbols, symbol)
            _mark_intervals(numbers, mine, path, "vwap")
            _mark_intervals(numbers, mine, path, "interval_volume")
    return dataclasses.replace(book, numbers=numbers, fills=fills)


def _of_symbol(symbols: np.ndarray, symbol: str | None) -> np.ndarray:
    """Orders of a symbol; all where the tape names none."""
    return np.ones(len(symbols), bool) if symbol is None else symbols == symbol


def _mark_instants(numbers: dict[str, np.ndarray], mine: np.ndarray, path: Ticks) -> None:
    for name in ("decision", "arrival", "end"):
        price, time = numbers[f"{name}_price"], numbers[f"{name}_time"]
        open_ = mine & np.isnan(price) & ~np.isnan(time)
        price[open_] = prevailing_price(path.times, path.prices, time[open_])


def _mark_fills(fills: dict[str, np.ndarray], mine: np.ndarray, path: Ticks) -> None:
    open_ = mine & np.isnan(fills["mid"]) & ~np.isnan(fills["time"])
    before = np.nextafter(fills["time"][open_], -math.inf)
    fills["mid"][open_] = prevailing_price(path.times, path.prices, before)


def _mark_intervals(numbers: dict[str, np.ndarray], mine: np.ndarray, path: Ticks, name: str) -> None:
    start, end, values = numbers["arrival_time"], numbers["end_time"], numbers[name]
    for i in np.flatnonzero(mine & np.isnan(values) & (end > start)).tolist():
        side = "right" if name == "twap" else "left"  # the quote that prevails at the start counts
        first = max(int(np.searchsorted(path.times, start[i], side=side)) - (name == "twap"), 0)
        last = int(np.searchsorted(path.times, end[i], side="right"))
        times, prices, sizes = (x[first:last] for x in path)
        if name == "twap":
            values[i] = interval_twap(times, prices, start[i], end[i])
        elif name == "vwap":
            values[i] = interval_vwap(times, prices, sizes, start[i], end[i])
        elif np.sum(sizes) > 0:
            values[i] = np.sum(sizes)


def _paths(what: str, frame: Any, clock: Clock | None) -> dict[str | None, Ticks]:
    """Paths by symbol; by None where there is no column of symbols."""
    table = columns_of_frame(frame, what)
    prices = _mids(table) if what == "quotes" else _column(what, table, "price", None)
    sizes = _column(what, table, "size", None) if what == "trades" else np.zeros(len(prices))
    times = _column(what, table, "time", clock)
    prices = np.where(is_price(prices), prices, math.nan)
    sizes = np.where(np.isfinite(sizes) & (sizes > 0), sizes, 0)
    if "symbol" not in table:
        groups: dict[str | None, np.ndarray] = {None: np.arange(len(times))}
    else:
        names, place = np.unique(np.array([text_of(cell) for cell in table["symbol"]], str), return_inverse=True)
        groups = {str(name): np.flatnonzero(place == i) for i, name in enumerate(names)}
    paths = {}
    for symbol, rows in groups.items():
        late = np.flatnonzero(~(np.diff(times[rows]) >= 0))
        if late.size or not np.all(np.isfinite(times[rows[:1]])):
            row = rows[late[0] + 1] if late.size else rows[0]
            raise ValueError(
                f"{what} row {row}, time: is missing or goes back within its symbol; sort the frame by time"
            )
        paths[symbol] = Ticks(times[rows], prices[rows], sizes[rows])
    return paths


def _mids(table: dict[str, Any]) -> np.ndarray:
    """Mid prices; NaN where a side is missing or the quote is crossed."""
    if "mid" in table:
        return _column("quotes", table, "mid", None)
    bid, ask = (_column("quotes", table, name, None) for name in ("bid", "ask"))
    sound = is_price(bid) & is_price(ask) & (bid <= ask)
    return np.where(sound, (bid + ask) / 2, math.nan)


def _column(what: str, table: dict[str, Any], name: str, clock: Clock | None) -> np.ndarray:
    if name not in table:
        raise ValueError(f"{what} lack the column {name}; found {', '.join(table) or 'none'}")
    values, reasons = numbers_of(table[name], clock)
    if reasons:
        row, reason = next(iter(reasons.items()))
        raise ValueError(f"{what} row {row}, {name}: {reason}")
    return values
