"""The national best bid and offer of TAQ, in two files: what several venues make, and what one makes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxexec.tape.errors import InputError
from jaxexec.tape.reading import detected_mapping, read
from jaxexec.tape.schema import NBBO_FLAGS

if TYPE_CHECKING:
    import polars as pl

    from jaxexec.tape.reading import Source


def complete_nbbo(
    nbbo: Source,
    quotes: Source,
    *,
    nbbo_columns: Mapping[str, str] | None = None,
    quote_columns: Mapping[str, str] | None = None,
    **reading: Any,
) -> pl.DataFrame:
    """Every national best bid and offer, out of the NBBO file and the quote file of the same days.

    The NBBO file (WRDS `nbbom`, raw TAQ `EQY_US_ALL_NBBO`) leaves out the moments at which one venue alone makes the
    best bid and the best offer: its quote is in the quote file (`cqm`, `SPLITS_US_ALL_BBO`), flagged as being the
    NBBO by itself. Both together are what WRDS sells as `complete_nbbo`. Quotes without the flag come out too, with the
    fault `not_the_nbbo`, so that `clean` drops and counts them. Source: Holden and Jacobsen (2014, Liquidity
    measurement problems in fast, competitive markets, Journal of Finance 69), who take the quotes with indicator 1 of
    source C (CQS) and with indicator 4 of source N (UQDF).

    `sign(trades, quotes, nbbo=nbbo)` does this by itself; so does `stream`.

    Args:
        nbbo: the NBBO file, a folder of them, or a table.
        quotes: the quotes of all venues; of any format, if `quote_columns` names `nbbo_indicator` and `feed`.
        nbbo_columns, quote_columns: mappings of columns; see `read`.
        reading: options of `read`, for both.

    Returns:
        Canonical quotes in the order of the two sources; `clean` sorts them by symbol, date, time and sequence number,
        which the two files share.

    Raises:
        InputError: as `read`; `nbbo` is a file of quotes, or the quotes do not say which are the NBBO.
    """
    import polars as pl

    form = detected_mapping(nbbo, "quotes", nbbo_columns).format
    if form in NBBO_FLAGS:
        raise InputError("nbbo", f"is of format {form!r}: the quotes of single venues, which belong to `quotes`")
    columns = flagged_columns(quotes, quote_columns)
    best = read(nbbo, "quotes", columns=nbbo_columns, **reading).with_columns(exchange=pl.lit(""))
    return pl.concat([best, read(quotes, "quotes", columns=columns, **reading)])


def flagged_columns(quotes: Source, columns: Mapping[str, str] | None) -> dict[str, str]:
    """`columns` with those that say which quotes are the national best.

    Raises:
        InputError: the format has none that is known, and `columns` names none.
    """
    given = dict(columns or {})
    form = detected_mapping(quotes, "quotes", columns).format
    merged = {**NBBO_FLAGS.get(form, {}), **given}
    if not {"nbbo_indicator", "feed"} <= merged.keys():
        reason = f"quotes of format {form!r} do not say which are the NBBO: name the columns of nbbo_indicator and feed"
        raise InputError("nbbo_indicator", reason)
    return merged
