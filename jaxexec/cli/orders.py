"""Parent orders as desks write them: columns by their usual names, every cell checked, every fault named."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxexec.cli.session import Session
from jaxexec.storage import FileError, read_csv, read_parquet

if TYPE_CHECKING:
    import polars as pl

_ALIASES = {
    "order_id": ("orderid", "clordid", "id", "ordid", "parentorderid"),
    "symbol": ("symbol", "ticker", "sym", "securityid"),
    "side": ("side", "buysell", "direction"),
    "quantity": ("quantity", "orderqty", "qty", "shares", "amount"),
    "start": ("start", "starttime", "effectivetime", "begin"),
    "end": ("end", "endtime", "expiretime", "finish"),
    "arrival_price": ("arrivalprice", "arrival", "arrivalpx", "refprice"),
    "adv": ("adv", "averagedailyvolume", "volume"),
    "sigma": ("sigma", "volatility"),
    "spread": ("spread",),
    "limit_pov": ("limitpov", "pov", "maxpov", "maxparticipation"),
}
_REQUIRED = ("order_id", "symbol", "side", "quantity", "start", "end")
_SALE = {"sell": 1, "s": 1, "2": 1, "sl": 1, "sellshort": 1, "short": 1, "ss": 1, "5": 1, "shrt": 1}
_SIDES = _SALE | {"buy": -1, "b": -1, "1": -1, "by": -1, "cover": -1, "buytocover": -1}
_MAX_ORDERS = 10_000_000


@dataclasses.dataclass(frozen=True)
class Order:
    """A parent order that passed the checks; a field that a file leaves open is NaN.

    `shares` is positive in a sale; `start` and `end` are in trading days after the open; `limit_pov` is own volume over
    that of the whole market, own included.
    """

    shares: float
    start: float
    end: float
    arrival_price: float
    adv: float
    sigma: float
    spread: float
    limit_pov: float


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the file: an order, or the fault that kept it from being one."""

    order_id: str
    symbol: str
    order: Order | None
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Orders:
    """A file of orders and the columns that were recognised (our name to the file's)."""

    rows: list[Row]
    mapping: dict[str, str]


def read_orders(path: Path, session: Session) -> Orders:
    """Read parent orders from CSV (plain or gzip) or Parquet.

    Raises:
        FileError: The file cannot be read, lacks a column or has two for one, or is too long.
    """
    frame = read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else read_csv(path)
    mapping = _mapping(path, frame.columns)
    if frame.height > _MAX_ORDERS:
        raise FileError(path, f"{frame.height:,} orders, more than {_MAX_ORDERS:,}", "Cut the file in parts.")
    cells = {name: _texts(frame[column]) for name, column in mapping.items()}
    seen: set[str] = set()
    rows = []
    for values in zip(*cells.values(), strict=True):
        rows.append(_row(dict(zip(cells, values, strict=True)), session, seen))
        seen.add(rows[-1].order_id)
    return Orders(rows, mapping)


def _mapping(path: Path, columns: Sequence[str]) -> dict[str, str]:
    """Our names to those of the file."""
    mapping = {}
    for name, aliases in _ALIASES.items():
        found = [column for column in columns if _bare(column) in (_bare(name), *aliases)]
        if len(found) > 1:
            raise FileError(path, f"columns {found[0]!r} and {found[1]!r} both mean {name}", "Drop one of them.")
        if found:
            mapping[name] = found[0]
        elif name in _REQUIRED:
            remedy = f"Name the columns {', '.join(_REQUIRED)} (found: {', '.join(columns[:20])})."
            raise FileError(path, f"no column for {name}", remedy)
    return mapping


def _texts(series: "pl.Series") -> list[str]:
    """The cells of a column as text, nothing as an empty one."""
    if series.dtype.is_temporal():
        return [_written(value) for value in series.to_list()]
    return ["" if value is None else str(value).strip() for value in series.to_list()]


def _written(value: Any) -> str:
    """A date and time of a Parquet file as text."""
    return "" if value is None else value.isoformat()


def _bare(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _row(cells: Mapping[str, str], session: Session, seen: set[str]) -> Row:
    """One row, checked."""
    name, symbol = cells["order_id"], cells["symbol"]
    try:
        if not name:
            raise ValueError("order_id is empty")
        if name in seen:
            raise ValueError("order_id repeats an earlier one")
        return Row(name, symbol, _order(cells, session))
    except ValueError as error:
        return Row(name, symbol, None, str(error))


def _order(cells: Mapping[str, str], session: Session) -> Order:
    side = _SIDES.get(_bare(cells["side"]))
    if side is None:
        raise ValueError(f"side {cells['side'][:20]!r} is neither a purchase (BUY, 1) nor a sale (SELL, 2)")
    start, end = (_field(cells, name, session.fraction) for name in ("start", "end"))
    if not start < end:
        raise ValueError("end is not after start")
    quantity = _field(cells, "quantity", _positive)
    optional = {name: _optional(cells, name) for name in ("arrival_price", "adv", "sigma", "spread", "limit_pov")}
    return Order(side * quantity, start, end, **optional)


def _optional(cells: Mapping[str, str], name: str) -> float:
    """A number that may be left out, which makes it NaN."""
    if not cells.get(name):
        return math.nan
    return _field(cells, name, _PARSERS.get(name, _not_negative))


def _field(cells: Mapping[str, str], name: str, parse: Callable[[str], float]) -> float:
    try:
        return parse(cells[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _positive(text: str) -> float:
    value = _not_negative(text)
    if value == 0:
        raise ValueError(f"{text[:30]!r} is not positive")
    return value


def _not_negative(text: str) -> float:
    try:
        value = float(text.replace("_", "x"))
    except ValueError:
        raise ValueError(f"{text[:30]!r} is not a number") from None
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{text[:30]!r} is not a finite number of at least 0")
    return value


def _share(text: str) -> float:
    value = _positive(text)
    if value >= 1:
        raise ValueError(f"{text[:30]!r} is not a share between 0 and 1 (write 10 % as 0.1)")
    return value


_PARSERS = {"arrival_price": _positive, "adv": _positive, "limit_pov": _share}
