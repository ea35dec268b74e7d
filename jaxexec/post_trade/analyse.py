"""`analyse`: frames of orders and fills to what each order cost, why, and beside which prices."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxexec.liquidation import Liquidation
from jaxexec.numerics.status import Status
from jaxexec.post_trade.analysis import OF_MODEL, Analysis, Reference
from jaxexec.post_trade.batches import SLIPPAGES, Group, groups_of, measure, regrets
from jaxexec.post_trade.failure import slack_of
from jaxexec.post_trade.frames import Book, Clock, Fault, Faults, check_fills, read_book
from jaxexec.post_trade.marking import marked
from jaxexec.solvers.plan import ScheduleSolver

_REGRETS = {"at_least": "regret_at_least", "at_most": "regret_at_most"}
_MODEL = (*OF_MODEL, "expected_spread", "expected_cost", "standard_deviation", "z_score", *_REGRETS.values())
_AMOUNTS = ("delay", "spread", "price_move", *OF_MODEL, "opportunity", "fees", "total")
_IN_BPS = (*_AMOUNTS, "expected_cost", "standard_deviation", *_REGRETS.values())
_NAMES = {int(status): status.name for status in Status} | {-1: ""}


def analyse(
    orders: Any,
    fills: Any,
    *,
    quotes: Any = None,
    trades: Any = None,
    problems: Mapping[str, Liquidation] | Liquidation | None = None,
    solver: ScheduleSolver | None = None,
    reference: Reference = "decision",
    clock: Clock | None = None,
    throw: bool = False,
) -> Analysis:
    """What orders cost, from frames (polars, pandas, or mappings of columns).

    Args:
        orders: one row an order: `order_id`; `side` (SELL, BUY, FIX's 1 and 2) and `quantity` > 0, or `shares`, which
            are negative in a purchase; `decision_price`, `arrival_price` or both: without the one column an order is
            decided as it arrives. May have `symbol`; `end_price` (needed where shares are left); `limit_price`;
            `decision_time`, `arrival_time`, `end_time` (trading days); `vwap`, `twap`, `close`, `prior_close`
            (benchmarks); `interval_volume` (shares that the whole market traded from arrival to end, own included).
            All other columns are carried along.
        fills: one row a fill: `order_id`, `price`, `size` > 0 whichever the side. May have `side` (then it is checked),
            `time` (trading days, same clock), `fee` (currency, an empty cell is 0), `mid` (before the fill). Other
            columns are carried along.
        quotes: the market's quotes, sorted by time: `time`, and `bid` and `ask` or `mid`; `symbol` where there are
            several. They fill in prices that are missing.
        trades: the market's trades, sorted by time: `time`, `price`, `size`, perhaps `symbol`: for `vwap` and
            `interval_volume` where they are missing.
        problems: the orders as planned, by `order_id`, or one batch of problems with a row an order: own impact, what
            was to be expected, and regret come from them. A problem's grid begins at the order's `arrival_time`, and
            ends where `end_price` is taken. Orders without one go without.
        solver: the method for the regret; None means `LadderNewton()`.
        reference: whose value the parts in basis points are of.
        clock: what turns a cell of a column of times into trading days, raising `ValueError` where it cannot; None:
            they are numbers.
        throw: raise on the first fault instead of refusing the order.

    Returns:
        The analysis. An order with a fault has a status, NaN in all that is computed, and the fault in words; the
        others are as they would be without it.

    Raises:
        ValueError: a frame lacks a column; quotes or trades that are not sorted; a problem of no order, or `problems`
            without times; with `throw` any fault: the message names frame, row, order and field.
    """
    if reference not in ("decision", "arrival"):
        raise ValueError(f"reference must be 'decision' or 'arrival', got {reference!r}")
    faults = Faults()
    book = read_book(orders, fills, clock, faults)
    groups = groups_of(problems, book.ids)
    if groups and not np.any(np.isfinite(book.numbers["arrival_time"])):
        raise ValueError("problems need the column arrival_time of orders: their grids begin there")
    book = marked(book, quotes, trades, clock)
    _settle(book, faults)
    check_fills(book, faults)
    if throw and faults.found:
        raise ValueError(str(faults.found[0]))
    first: dict[str, Fault] = {}
    for fault in faults.found:
        first.setdefault(fault.order_id, fault)
    shares = book.numbers["shares"].copy()
    book.numbers["shares"][[name in first for name in book.ids]] = math.nan  # what fails from here on fails alone
    numbers, traded = measure(book, groups)
    for group, done in zip(groups, traded, strict=True):
        _add_regrets(numbers, group, done, solver)
    book.numbers["shares"] = shares
    columns = _columns(book, numbers, reference)
    columns["fault"] = [str(first[name]) if name in first else "" for name in book.ids]
    carried = (*book.groups, *(name for name in book.fill_groups if name not in book.groups))
    per_fill = _fill_columns(book, numbers["status"] == Status.OK)
    return Analysis(_joined("orders", columns, book.groups), per_fill, carried, faults.found, reference)


def _settle(book: Book, faults: Faults) -> None:
    """The prices that follow from others; a fault where one that is needed is not known."""
    numbers, ids = book.numbers, book.ids
    for name, other, given in (
        ("arrival_price", "decision_price", book.has_arrival),
        ("decision_price", "arrival_price", book.has_decision),
    ):
        if not given:
            numbers[name] = numbers[other].copy()
        faults.add("orders", ids, np.isnan(numbers[name]), name, lambda i: "is missing, and no quote tells it")
    size = np.where(book.fills["size"] > 0, book.fills["size"], 0)
    left = np.abs(numbers["shares"]) - np.bincount(book.owner, size, len(ids))
    open_ = np.isnan(numbers["end_price"]) & (left > slack_of(np.float64) * np.abs(numbers["shares"]))
    faults.add("orders", ids, open_, "end_price", lambda i: f"is missing, and {left[i]:,.10g} shares are not filled")


def _add_regrets(numbers: dict[str, np.ndarray], group: Group, trades: np.ndarray, solver: Any) -> None:
    """The regrets of a group, in the columns of all orders."""
    found = regrets(group, trades, solver)
    count = len(numbers["status"])
    for name, column in _REGRETS.items():
        numbers.setdefault(column, np.full(count, math.nan))[group.rows] = found[name]
    numbers.setdefault("regret_status", np.full(count, -1, np.int32))[group.rows] = found["status"]


def _columns(book: Book, numbers: dict[str, np.ndarray], reference: Reference) -> dict[str, Any]:
    """The columns of an `Analysis`, one row an order."""
    given, owner, done = book.numbers, book.owner, book.fills
    value = numbers[f"{reference}_value"]
    executed, volume = np.abs(numbers["executed"]), given["interval_volume"]
    last = np.full(len(book.ids), -math.inf)
    np.maximum.at(last, owner, np.where(np.isnan(done["time"]), math.inf, done["time"]))
    known = np.isfinite(last) & (numbers["status"] == Status.OK)
    columns: dict[str, Any] = {
        "order_id": book.ids,
        **({"symbol": book.symbols} if any(book.symbols) else {}),
        "side": ["" if math.isnan(x) else "sell" if x > 0 else "buy" for x in given["shares"]],
        "shares": given["shares"],
        "executed": numbers["executed"],
        "filled": numbers["filled"],
        "fills": np.diff(book.offsets),
        "average_price": numbers["average_price"],
        **{name: given[name] for name in ("decision_price", "arrival_price", "end_price")},
        "value": value,
        **{name: numbers[name] for name in _AMOUNTS if name in numbers},
        "measured_spread": numbers["measured_spread"],
        **{name: numbers[name] for name in _MODEL if name in numbers and name not in _AMOUNTS},
        **{f"{name}_bps": 1e4 * numbers[name] / value for name in _IN_BPS if name in numbers},
    }
    for name in SLIPPAGES:
        columns |= {end: numbers[end] for end in (f"{name}_slippage", f"{name}_slippage_bps")}
    columns["pov"] = executed / volume
    others = volume - executed
    columns["participation"] = np.where(others > 0, executed / np.where(others > 0, others, 1), math.nan)
    columns["duration"] = np.where(known, last - given["arrival_time"], math.nan)
    columns["shares_beyond_limit"] = np.where(numbers["status"] == Status.OK, _beyond_limit(book), math.nan)
    for name in ("model_status", "regret_status", "status"):
        if name in numbers:
            columns[name] = [_NAMES[int(code)] for code in numbers[name]]
    return columns


def _beyond_limit(book: Book) -> np.ndarray:
    """Shares filled at worse than the limit; NaN where there is none."""
    limit, side = (book.numbers[name][book.owner] for name in ("limit_price", "shares"))
    worse = np.sign(side) * (limit - book.fills["price"]) > 0
    beyond = np.bincount(book.owner, np.where(worse, book.fills["size"], 0), len(book.ids))
    return np.where(np.isnan(book.numbers["limit_price"]), math.nan, beyond)


def _fill_columns(book: Book, usable: np.ndarray) -> dict[str, Any]:
    """What each fill of the usable orders cost; with the columns of its order, for groups."""
    rows = np.flatnonzero(usable[book.owner])
    owner = book.owner[rows]
    price, size, fee, mid, time = (book.fills[name][rows] for name in ("price", "size", "fee", "mid", "time"))
    side, arrival = np.sign(book.numbers["shares"][owner]), book.numbers["arrival_price"][owner]
    spread, slipped = side * (mid - price), side * (arrival - price)
    value = size * price
    own = {
        "order_id": [book.ids[i] for i in owner],
        "row": book.rows[rows],
        "side": ["sell" if s > 0 else "buy" for s in side],
        "time": time,
        "price": price,
        "size": size,
        "value": value,
        "spread": size * spread,
        "spread_bps": 1e4 * spread / mid,
        "arrival_slippage": size * slipped,
        "arrival_slippage_bps": 1e4 * slipped / arrival,
        "fee": fee,
        "fee_bps": 1e4 * fee / value,
    }
    of_order = {"symbol": book.symbols, **book.groups} if any(book.symbols) else book.groups
    carried = {name: [cells[i] for i in owner] for name, cells in of_order.items() if name not in own}
    carried |= {name: [cells[i] for i in rows] for name, cells in book.fill_groups.items()}
    return _joined("fills", own, carried)


def _joined(what: str, own: dict[str, Any], carried: dict[str, list]) -> dict[str, Any]:
    clash = next((name for name in carried if name in own), None)
    if clash is not None:
        raise ValueError(f"{what}: the column {clash!r} has the name of a result; rename it")
    return own | carried
