"""LOBSTER files: no header, symbol and date in the name, messages and order books in two files, row by row."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxexec.tape.errors import FilePath, InputError
from jaxexec.tape.files import read_headless
from jaxexec.tape.schema import ColumnMapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from jaxexec.tape.schema import Kind

_NAME = re.compile(r"(.+)_(\d{4}-\d{2}-\d{2})_(\d+)_(\d+)_(message|orderbook)_(\d+)(\.csv(?:\.gz)?)")
_MESSAGE = ("Time", "Type", "Order ID", "Size", "Price", "Direction")
_BOOK = ("Ask Price 1", "Ask Size 1", "Bid Price 1", "Bid Size 1")
_IN_NAME = "(file name)"
_TABLE = {"trades": "message", "quotes": "orderbook"}
_MAPPINGS: dict[str, ColumnMapping] = {
    "trades": ColumnMapping(
        "lobster-messages",
        {"symbol": f"symbol {_IN_NAME}", "date": f"date {_IN_NAME}", "time": "Time", "price": "Price"}
        | {"size": "Size", "side": "Direction", "action": "Type"},
    ),
    "quotes": ColumnMapping(
        "lobster-book",
        {"symbol": f"symbol {_IN_NAME}", "date": f"date {_IN_NAME}", "time": "Time"}
        | {"bid": "Bid Price 1", "ask": "Ask Price 1", "bid_size": "Bid Size 1", "ask_size": "Ask Size 1"},
    ),
}


class LobsterName(NamedTuple):
    """What the name of a LOBSTER file says, "AAPL_2012-06-21_34200000_57600000_message_5.csv"."""

    symbol: str
    date: datetime.date
    table: str


def lobster_name(path: FilePath) -> LobsterName | None:
    """The parts of the name, or None where it is not LOBSTER's."""
    found = None if path is None else _NAME.fullmatch(Path(path).name)
    if found is None:
        return None
    try:
        date = datetime.date.fromisoformat(found[2])
    except ValueError:
        return None
    return LobsterName(found[1], date, found[5])


def lobster_files(files: Sequence[Path], kind: Kind) -> list[Path]:
    """Of LOBSTER files those that hold `kind`, from whichever of two twins is named; other files as they are."""
    out = [path if (name := lobster_name(path)) is None else _twin(path, name, _TABLE[kind]) for path in files]
    return list(dict.fromkeys(out))


def lobster_mapping(kind: Kind) -> ColumnMapping:
    """Canonical name -> LOBSTER's name of the column."""
    return _MAPPINGS[kind]


def read_lobster(path: Path, kind: Kind, max_bytes: int) -> pl.DataFrame:
    """The columns of `lobster_mapping`, as text; all messages, or the best bid and ask after each.

    Raises:
        InputError: as `read_headless`; the two files differ in length.
    """
    import polars as pl

    name = lobster_name(path)
    assert name is not None
    frame = _columns(_twin(path, name, "message"), _MESSAGE, max_bytes)
    if kind == "quotes":
        book = _columns(_twin(path, name, "orderbook"), _BOOK, max_bytes)
        if book.height != frame.height:
            reason = f"has {book.height:,} rows, its message file {frame.height:,}: they belong together row by row"
            raise InputError("source", reason, path=_twin(path, name, "orderbook"))
        frame = book.with_columns(frame["Time"])
    return frame.with_columns(
        pl.lit(name.symbol).alias(f"symbol {_IN_NAME}"), pl.lit(name.date).alias(f"date {_IN_NAME}")
    )


def _columns(path: Path, names: Sequence[str], max_bytes: int) -> pl.DataFrame:
    import polars as pl

    frame = pl.from_arrow(read_headless(path, len(names), max_bytes))
    assert isinstance(frame, pl.DataFrame)
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


def _twin(path: Path, name: LobsterName, table: str) -> Path:
    head, _, tail = path.name.rpartition(f"_{name.table}_")
    return path if name.table == table else path.with_name(f"{head}_{table}_{tail}")
