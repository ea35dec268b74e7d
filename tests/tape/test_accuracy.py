"""The accuracy report: counts by hand, sums over places, and a tape whose rules are right by construction."""

import numpy as np
import polars as pl
import pytest

from jaxexec import tape


def cleaned(trades, quotes, side="taker"):
    return tape.clean(tape.read(trades, columns={"side": side}), tape.read(quotes, "quotes"))


def test_counts_by_hand(make_trades, make_quotes):
    rows = [(1, 10.10), (2, 10.00), (3, 10.05), (4, 10.08), (5, 10.20), (6, 10.10), (7, 10.10)]
    #        touch, +    touch, −    middle, +   inside, +  outside, −   touch, −    unknown
    sides = [1, -1, 1, -1, -1, -1, 0]
    found = cleaned(make_trades(rows, taker=sides), make_quotes([(0, 10.00, 10.10)]))
    report = tape.compare_rules(found.trades, found.quotes)
    assert report.unknown == 1

    def counts(rule, place):
        row = report.row(rule, place)
        return row.trades, row.signed, row.right

    # signs: lee-ready + − + + + +; tick (none) − + + + −; emo + − + + + +; clnv + − + + + +
    assert counts("lee-ready", "all") == (6, 6, 3) and counts("lee-ready", "at a quote") == (3, 3, 2)
    assert counts("tick", "all") == (6, 5, 3) and counts("tick", "at a quote") == (3, 2, 2)
    assert counts("quote", "all") == (6, 5, 2) and counts("quote", "midpoint") == (1, 0, 0)
    assert counts("emo", "outside") == (1, 1, 0) and counts("clnv", "inside") == (1, 1, 0)
    assert counts("emo", "no quote") == (0, 0, 0) and np.isnan(report.row("emo", "no quote").right_share)
    assert report.row("lee-ready").right_share == 0.5 and report.row("tick").signed_share == 5 / 6
    table = report.table()
    assert table.columns[:3] == ("rule", "trades", "signed %") and "right %, no quote" not in table.columns
    assert [row[0] for row in table.rows] == ["lee-ready", "quote", "tick", "emo", "clnv"]
    assert "1 trades of unknown side" in str(report)
    with pytest.raises(KeyError):
        report.row("depth")


def test_places_add_up_and_the_quote_is_right_by_construction():
    made = tape.synthetic.generate(stocks=4, trades=500, seed=2, model="realistic")
    found = cleaned(made.trades, made.quotes, "true_sign")
    report = tape.compare_rules(found.trades, found.quotes)
    for rule in ("lee-ready", "quote", "tick", "emo", "clnv"):
        parts = [row for row in report.rows if row.rule == rule and row.place != "all"]
        whole = report.row(rule)
        assert [sum(getattr(row, name) for row in parts) for name in ("trades", "signed", "right")] == [
            whole.trades, whole.signed, whole.right
        ]  # fmt: skip
        signed = tape.sign(made.trades, made.quotes, rule=rule)
        assert whole.signed == signed.trades.height
        if rule != "tick":
            assert report.row(rule, "at a quote").right_share == 1.0
    assert report.row("quote").right_share == 1.0 and report.row("lee-ready", "inside").right_share == 1.0
    shuffled = found.trades.sample(fraction=1.0, shuffle=True, seed=1)
    assert tape.compare_rules(shuffled, found.quotes) == report, "the order of the rows does not matter"


def test_what_it_needs(make_trades, make_quotes):
    trades = make_trades([(1, 10.0), (2, 10.1)])
    with pytest.raises(tape.InputError, match="who initiated"):
        tape.compare_rules(tape.read(trades))
    with pytest.raises(tape.InputError, match="tick rule"):
        tape.compare_rules(tape.read(trades.with_columns(side=pl.lit(1))))
    alone = tape.compare_rules(tape.read(trades.with_columns(side=pl.lit(1))), rules=("tick",))
    assert alone.row("tick").signed == alone.row("tick").right == 1
    with pytest.raises(tape.InputError, match="'x' is not one of"):
        tape.compare_rules(
            tape.read(trades.with_columns(side=pl.lit(1))),
            tape.read(make_quotes([(0, 1.0, 1.1)]), "quotes"),
            rules=("x",),
        )
