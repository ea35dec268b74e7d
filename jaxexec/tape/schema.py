"""Canonical columns of trades and quotes, and the vendor formats that are recognised by their header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxexec.tape.errors import FilePath, InputError

Kind = Literal["trades", "quotes"]

TICKS_PER_UNIT = 10_000
"""Prices are integers of 1e-4 currency units, exact where doubles mis-sign trades at the midpoint."""

REQUIRED: dict[str, tuple[str, ...]] = {
    "trades": ("symbol", "time", "price", "size"),
    "quotes": ("symbol", "time", "bid", "ask"),
}
_SHARED_OPTIONAL = ("date", "suffix", "nanoseconds", "sequence", "exchange")
OPTIONAL: dict[str, tuple[str, ...]] = {
    "trades": (*_SHARED_OPTIONAL, "condition", "correction", "side", "bid", "ask"),
    "quotes": (*_SHARED_OPTIONAL, "bid_size", "ask_size", "nbbo_indicator", "feed"),
}
CANONICAL: dict[str, tuple[str, ...]] = {
    "trades": (
        "symbol", "date", "time", "sequence", "exchange", "price", "ticks", "size", "condition", "correction",
        "fault",
    ),
    "quotes": (
        "symbol", "date", "time", "sequence", "exchange", "bid", "ask", "bid_ticks", "ask_ticks", "bid_size",
        "ask_size", "fault",
    ),
}  # fmt: skip
CARRIED = ("side", "bid", "ask", "bid_ticks", "ask_ticks")
"""Columns that canonical trades have beside these where their source has them: who initiated the trade, and the
quote that prevailed at it."""
NBBO_FLAGS = {
    "wrds-cqm": {"nbbo_indicator": "natbbo_ind", "feed": "qu_source"},
    "taq-quotes": {"nbbo_indicator": "national_bbo_ind", "feed": "source_of_quote"},
}
"""Columns of a quote file that say which quotes are the national best bid and offer by themselves. They are read only
where they are asked for, with the NBBO file that lacks these quotes."""


@dataclass(frozen=True)
class ColumnMapping:
    """Which column of a file plays which part.

    Attributes:
        format: name of the format that was recognised, or "mapping" where the user said it all.
        columns: canonical name -> name in the file.
    """

    format: str
    columns: Mapping[str, str]

    def to_dict(self) -> dict[str, str]:
        """`columns` with the format's name under "format", for printing and manifests."""
        return {"format": self.format, **self.columns}


def _wrds(**columns: str) -> dict[str, str]:
    shared = {"symbol": "sym_root", "suffix": "sym_suffix", "date": "date", "time": "time_m"}
    return shared | {"nanoseconds": "time_m_nano"} | columns


def _highfrequency(**columns: str) -> dict[str, str]:
    return {"symbol": "symbol", "time": "dt", "exchange": "ex"} | columns


def _taq(**columns: str) -> dict[str, str]:
    return {"symbol": "symbol", "time": "time", "sequence": "sequence_number"} | columns


def _databento(kind: str, time: str) -> dict[str, str]:
    # Without the venue's sequence number, which fills of one packet share: equal fills would pass for duplicates.
    shared = {"symbol": "symbol", "time": time, "exchange": "publisher_id", "action": "action"}
    shared |= {"bid": "bid_px_00", "ask": "ask_px_00"}
    if kind == "trades":
        return shared | {"price": "price", "size": "size", "side": "side"}
    return shared | {"bid_size": "bid_sz_00", "ask_size": "ask_sz_00"}


def _canonical(kind: str) -> dict[str, str]:
    known = (*REQUIRED[kind], *OPTIONAL[kind], "fault")
    return {name: name for name in known if name not in ("nbbo_indicator", "feed")}


_FORMATS: dict[str, dict[str, dict[str, str]]] = {
    "trades": {
        "jaxexec": _canonical("trades"),
        "wrds-ctm": _wrds(
            exchange="ex",
            price="price",
            size="size",
            sequence="tr_seqnum",
            condition="tr_scond",
            correction="tr_corr",
        ),
        "highfrequency-trades": _highfrequency(
            price="price", size="size", condition="cond", correction="corr", bid="bid", ask="ofr"
        ),
        "taq-trades": _taq(
            exchange="exchange",
            price="trade_price",
            size="trade_volume",
            condition="sale_condition",
            correction="trade_correction_indicator",
        ),
        "databento": _databento("trades", "ts_event"),
        "databento-received": _databento("trades", "ts_recv"),
    },
    "quotes": {
        "jaxexec": _canonical("quotes"),
        "wrds-cqm": _wrds(
            exchange="ex", bid="bid", ask="ask", bid_size="bidsiz", ask_size="asksiz", sequence="qu_seqnum"
        ),
        "wrds-complete-nbbo": _wrds(
            bid="best_bid",
            ask="best_ask",
            bid_size="best_bidsizeshares",
            ask_size="best_asksizeshares",
            sequence="qu_seqnum",
        ),
        "wrds-nbbom": _wrds(
            bid="best_bid", ask="best_ask", bid_size="best_bidsiz", ask_size="best_asksiz", sequence="qu_seqnum"
        ),
        "highfrequency-quotes": _highfrequency(bid="bid", ask="ofr", bid_size="bidsiz", ask_size="ofrsiz"),
        "taq-quotes": _taq(
            exchange="exchange", bid="bid_price", ask="offer_price", bid_size="bid_size", ask_size="offer_size"
        ),
        "taq-nbbo": _taq(
            bid="best_bid_price", ask="best_offer_price", bid_size="best_bid_size", ask_size="best_offer_size"
        ),
        "databento": _databento("quotes", "ts_event"),
        "databento-received": _databento("quotes", "ts_recv"),
    },
}
_CONTAINS = {"taq-quotes": ("taq-nbbo",), "wrds-cqm": ("wrds-complete-nbbo", "wrds-nbbom")}
"""An NBBO file has all columns of a quote file: those of the quote that changed the best bid and offer."""


def resolve_mapping(
    header: Sequence[str],
    kind: Kind,
    columns: Mapping[str, str] | None = None,
    path: FilePath = None,
) -> ColumnMapping:
    """Match a header with the formats that are known; what the user says wins.

    Case and surrounding blanks of the header do not matter, and a blank within a name is an underscore. The
    formats are WRDS `ctm`, `cqm`, `nbbom` and `complete_nbbo`, raw NYSE Daily TAQ trades, quotes and NBBO, Databento
    trades, tbbo and mbp-1, trades and quotes of R's highfrequency (`DT SYMBOL PRICE SIZE`, `DT SYMBOL BID OFR`),
    and the canonical names. (LOBSTER files, which have no header, are known by their names.)

    Args:
        header: column names as they stand in the file.
        kind: "trades" or "quotes".
        columns: canonical name -> name in the file, for files of another form or to overrule one column.
        path: named in errors.

    Raises:
        InputError: a required column is missing, a mapping names an unknown column, or a name occurs twice.
    """
    if kind not in REQUIRED:
        raise InputError("kind", f"{kind!r} is not 'trades' or 'quotes'", path=path)
    by_key = _unique_names(header, path)
    chosen = {key: _source_name(key, name, kind, by_key, path) for key, name in (columns or {}).items()}
    best = max(_FORMATS[kind], key=lambda name: _score(_FORMATS[kind][name], chosen, by_key, kind))
    wider = [form for form in _CONTAINS.get(best, ()) if form in _FORMATS[kind]]
    wider = [form for form in wider if all(_FORMATS[kind][form][key] in by_key for key in REQUIRED[kind])]
    if wider:
        best = max(wider, key=lambda name: _score(_FORMATS[kind][name], chosen, by_key, kind))
    found = {key: by_key[name] for key, name in _FORMATS[kind][best].items() if name in by_key}
    if "suffix" not in chosen and "symbol" in chosen:
        found.pop("suffix", None)  # a suffix belongs to the format's own root symbol
    merged = {**found, **chosen}
    missing = [key for key in REQUIRED[kind] if key not in merged]
    if missing:
        raise InputError(
            missing[0],
            f"no column for {', '.join(missing)}, and the header is of no known format of {kind} "
            f"({', '.join(_FORMATS[kind])}); columns found: {', '.join(header) or 'none'}; "
            f"say which is which with columns={{{missing[0]!r}: '<name in the file>', ...}} "
            f"(in sign: {kind[:-1]}_columns)",
            path=path,
        )
    return ColumnMapping(best if found.keys() - chosen.keys() else "mapping", merged)


def _score(format_columns: Mapping[str, str], chosen: Mapping[str, str], by_key: Mapping[str, str], kind: str):
    """Required columns found, then optional ones: the format that explains most of the header wins."""
    present = {key for key, name in format_columns.items() if name in by_key} | chosen.keys()
    return sum(key in present for key in REQUIRED[kind]), len(present)


def _unique_names(header: Sequence[str], path: FilePath) -> dict[str, str]:
    by_key: dict[str, str] = {}
    for name in header:
        key = _key(name)
        if key in by_key:
            raise InputError(name, "the header names this column twice (case, blanks and underscores aside)", path=path)
        by_key[key] = name
    return by_key


def _source_name(key: str, name: str, kind: str, by_key: Mapping[str, str], path: FilePath) -> str:
    known = (*REQUIRED[kind], *OPTIONAL[kind])
    if key not in known:
        raise InputError(key, f"is no canonical column of {kind}; these are: {', '.join(known)}")
    if _key(name) not in by_key:
        raise InputError(
            name,
            f"columns maps {key!r} to it, but the file has only: {', '.join(by_key.values()) or 'none'}",
            path=path,
        )
    return by_key[_key(name)]


def _key(name: str) -> str:
    return "_".join(name.lower().split())
