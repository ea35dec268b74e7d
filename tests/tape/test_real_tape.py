"""One real stock over two days, raw: the ledger balances and the signs agree with an independent count."""

import numpy as np
import polars as pl
import pytest

from jaxexec import tape


@pytest.fixture(scope="module")
def signed(taq_sample):
    return tape.sign(
        taq_sample / "ctm_XXX.parquet",
        taq_sample / "cqm_XXX.parquet",
        session="auto",
        quote_exchange="N",
        midpoint="keep",
    )


def test_ledger_balances_and_the_session_is_found(signed):
    assert signed.ledger.balanced
    assert signed.ledger.read == {"trades": 77_263, "quotes": 131_401}
    assert signed.ledger.rows("quotes", "exchange_not_selected") > 30_000
    assert signed.ledger.notes["session"].startswith("14:30:00–21:00:00")
    assert signed.trades.height > 76_000 and signed.symbols == ["XXX"]


def test_signs_agree_with_a_loop_over_the_raw_files(signed, taq_sample):
    quotes = pl.read_parquet(taq_sample / "cqm_XXX.parquet").filter(
        (pl.col("ex") == "N") & (pl.col("bid") > 0) & (pl.col("ask") > 0)
    )
    for (date,), day in signed.trades.group_by("date", maintain_order=True):
        book = quotes.filter(pl.col("date") == date)
        times = book["time_m"].cast(pl.Int64).to_numpy()
        place = np.searchsorted(times, day["time"].to_numpy(), side="left") - 1
        bid, ask = (np.rint(book[name].to_numpy() * 1e4).astype(np.int64)[place] for name in ("bid", "ask"))
        assert (np.sign(2 * day["ticks"].to_numpy() - bid - ask) == day["sign"].to_numpy()).all()
    doubles = 0.5 * (signed.trades["bid_ticks"] / 1e4 + signed.trades["ask_ticks"] / 1e4)
    missed = signed.trades.filter(pl.col("midpoint") & (doubles != pl.col("price"))).height
    assert missed > 0.1 * signed.trades["midpoint"].sum(), "doubles would miss many of the true midpoints"


def test_the_clock_can_also_be_named(signed, taq_sample):
    local = tape.sign(
        taq_sample / "ctm_XXX.parquet",
        taq_sample / "cqm_XXX.parquet",
        naive_timezone="UTC",
        timezone="America/New_York",
        quote_exchange="N",
        midpoint="keep",
    )
    shift = signed.trades["time"] - local.trades["time"]
    assert shift.n_unique() == 1 and shift[0] == 5 * 3600 * 10**9
    assert local.trades.drop("time").equals(signed.trades.drop("time"))


def test_a_trap_is_said_aloud(taq_sample):
    """The wrong hours, and quotes of all venues as if they were one book."""
    files = taq_sample / "ctm_XXX.parquet", taq_sample / "cqm_XXX.parquet"
    with pytest.warns(tape.TapeWarning, match="lie in the session"):
        tape.sign(*files, quote_exchange="N")
    with pytest.warns(tape.TapeWarning, match=r"of \d+ venues.*quote_exchange"):
        tape.sign(*files, session="auto")
