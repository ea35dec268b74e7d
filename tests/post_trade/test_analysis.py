"""Frames of orders and fills: each row as if alone, faults named and alone, prices from tapes, groups."""

import functools

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats
import statsmodels.api as sm

import jaxexec as jx
from jaxexec.post_trade.groups import weighted_mean, weighted_quantiles
from tests.post_trade.executed_orders import padded

STEPS = 6
MARKET = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 0.6, 4e6, 1e-7)
COST = jx.PowerLawCost(0.1, 0.6, 0.004)
ORDERS = {
    "order_id": ["a", "b", "c", "d"],
    "symbol": ["X", "X", "Y", "Y"],
    "side": ["SELL", "buy", "2", "Cover"],
    "quantity": [1000, 600, 90, 300],
    "decision_price": [50.0, 50.1, 20.0, 20.0],
    "arrival_price": [49.9, 50.2, 20.1, 20.0],
    "end_price": [49.5, None, None, 20.3],
    "arrival_time": [0.1, 0.2, 0.1, 0.5],
    "vwap": [49.8, 50.3, None, 20.0],
    "limit_price": [49.7, 50.2, None, None],
    "interval_volume": [1e5, 2e5, None, 50.0],
    "trader": ["ann", "bob", "ann", "bob"],
}
FILLS = {
    "order_id": [*"aaabb", *"c" * 9],  # d was never filled
    "price": [49.85, 49.8, 49.6, 50.25, 50.35, *np.linspace(20.1, 19.9, 9)],
    "size": [300, 200, 100, 300, 300, *[10] * 9],
    "time": [0.5, 0.2, 0.9, 0.3, 0.4, *np.linspace(0.2, 0.8, 9)],
    "mid": [49.86, 49.81, 49.62, 50.24, None, *np.linspace(20.11, 19.91, 9)],
    "fee": [1.0, None, 1.0, 0.5, 0.5, *[0.1] * 9],
    "venue": [*"NNQNQ", *"N" * 9],
}


def order(shares: float) -> jx.Liquidation:
    return jx.Liquidation(shares, MARKET, COST, 1e-6)


PROBLEMS = {"a": order(1000.0), "b": order(-600.0)}


@functools.cache
def whole() -> jx.Analysis:
    return jx.analyse(ORDERS, FILLS, problems=PROBLEMS)


def changed(table, column, values):
    return {**table, column: values}


def row(analysis: jx.Analysis, name: str) -> dict:
    return analysis.to_polars().filter(pl.col("order_id") == name).row(0, named=True)


@pytest.mark.parametrize("name", "abcd")
def test_each_order_is_as_if_alone(name):
    got, at = row(whole(), name), "abcd".index(name)
    sign = -1 if name in "bd" else 1
    mine = [i for i, owner in enumerate(FILLS["order_id"]) if owner == name]
    price, size, time, mid, fee = (
        np.array([np.nan if FILLS[c][i] is None else FILLS[c][i] for i in mine], float)
        for c in ("price", "size", "time", "mid", "fee")
    )
    prices = [ORDERS[c][at] for c in ("decision_price", "arrival_price", "end_price")]
    parent = jx.ParentOrder(float(sign * ORDERS["quantity"][at]), *prices)
    fills = padded(price, sign * size, np.nan_to_num(fee), mid, time - ORDERS["arrival_time"][at], length=9)
    alone = jx.implementation_shortfall(parent, fills, PROBLEMS.get(name))
    wanted = {**alone.parts, "total": alone.total, "filled": alone.filled, "average_price": alone.average_price}
    assert got["status"] == "OK" and got["fault"] == "" and got["fills"] == len(mine)
    assert got["side"] == ("buy" if sign < 0 else "sell")
    if alone.attribution is not None:
        wanted |= {c: getattr(alone.attribution, c) for c in ("z_score", "expected_cost", "standard_deviation")}
        bound = jx.regret(PROBLEMS[name], alone.attribution.trades)
        wanted |= {"regret_at_least": bound.at_least, "regret_at_most": bound.at_most}
        assert got["model_status"] == got["regret_status"] == "OK"
    else:
        assert np.isnan(got["z_score"]) and got["model_status"] == ""
    for benchmark in ("arrival", "vwap"):
        level = ORDERS["arrival_price"][at] if benchmark == "arrival" else ORDERS["vwap"][at]
        if level is not None and mine:
            slipped = jx.slippage(fills, level)
            wanted |= {f"{benchmark}_slippage": slipped.cost, f"{benchmark}_slippage_bps": slipped.bps}
    for column, value in wanted.items():
        np.testing.assert_allclose(got[column], value, rtol=1e-9, atol=1e-9, err_msg=column)
    np.testing.assert_allclose(got["total_bps"], alone.in_bps()["total"], rtol=1e-12)


def test_how_much_how_long_and_within_the_limit():
    frame = whole().to_polars()
    np.testing.assert_allclose(frame["pov"], [600 / 1e5, 600 / 2e5, np.nan, 0.0])
    np.testing.assert_allclose(frame["participation"], [600 / (1e5 - 600), 600 / (2e5 - 600), np.nan, 0.0])
    np.testing.assert_allclose(frame["duration"], [0.8, 0.2, 0.7, np.nan])
    np.testing.assert_allclose(frame["shares_beyond_limit"], [100, 600, np.nan, np.nan])


def test_frames_of_all_kinds_are_one():
    text = {name: [None if cell is None else str(cell) for cell in cells] for name, cells in ORDERS.items()}
    makers = (
        (pl.DataFrame(ORDERS, strict=False), pl.DataFrame(FILLS, strict=False)),
        (pd.DataFrame(ORDERS), pd.DataFrame(FILLS)),
        (text, FILLS),
    )
    for orders, fills in makers:
        got = jx.analyse(orders, fills, problems=PROBLEMS).to_polars()
        for column in ("total", "z_score", "regret_at_most", "vwap_slippage_bps"):
            np.testing.assert_array_equal(got[column], whole().to_polars()[column], err_msg=column)
    numbered = (
        {**ORDERS, "order_id": [1, 2, 3, 4]},
        {**FILLS, "order_id": ["abcd".index(o) + 1.0 for o in FILLS["order_id"]]},
    )
    got = jx.analyse(*numbered, problems={1: PROBLEMS["a"]})
    np.testing.assert_array_equal(got.columns["total"], whole().columns["total"])
    assert got.columns["model_status"] == ["OK", "", "", ""]
    signed = {name: cells for name, cells in ORDERS.items() if name not in ("side", "quantity")}
    signed["shares"] = [1000, -600, 90, -300]
    np.testing.assert_array_equal(jx.analyse(signed, FILLS).columns["total"], whole().columns["total"])


def test_a_batch_of_problems_and_a_value_at_arrival():
    batch = jax.tree.map(lambda *x: np.stack(x), *(order(s) for s in (1000.0, -600.0, 90.0, -300.0)))
    got = jx.analyse(ORDERS, FILLS, problems=batch, reference="arrival").to_polars()
    assert got["model_status"].to_list() == ["OK"] * 4
    np.testing.assert_allclose(got["z_score"][:2], whole().to_polars()["z_score"][:2], rtol=1e-12)
    np.testing.assert_allclose(got["total_bps"], 1e4 * got["total"] / np.array([49900, 30120, 1809, 6000]), rtol=1e-12)
    assert row(jx.analyse(ORDERS, FILLS, problems=batch), "d")["regret_at_most"] == 0


# --- faults


def but(column, at, value):
    """A column of the orders or the fills with another cell."""
    table = ORDERS if column in ORDERS and column not in ("order_id",) else FILLS
    return [*table[column][:at], value, *table[column][at + 1 :]]


FAULTS = [
    ("orders", "order_id", [*"abca"], "order_id: 2 orders have it", "a"),
    ("orders", "side", but("side", 2, "hold"), "side: 'hold' is neither", "c"),
    ("orders", "quantity", but("quantity", 1, 0), "quantity: must be positive, got 0", "b"),
    ("orders", "quantity", but("quantity", 0, "1_000"), "quantity: '1_000' is not a number", "a"),
    ("orders", "decision_price", but("decision_price", 1, -1), "decision_price: must be positive, got -1", "b"),
    ("orders", "arrival_price", but("arrival_price", 1, None), "arrival_price: is missing", "b"),
    ("orders", "end_price", but("end_price", 3, None), "end_price: is missing, and 300 shares are not filled", "d"),
    ("orders", "end_price", but("end_price", 0, np.inf), "end_price: must be finite, got inf", "a"),
    ("orders", "decision_time", [0.0, 0.3, 0.0, 0.0], "arrival_time: is before decision_time", "b"),
    ("orders", "end_time", [0.0, 1, 1, 1], "end_time: is before arrival_time", "a"),
    ("orders", "arrival_time", but("arrival_time", 0, 0.3), "time: 0.2 is before the order's arrival_time, 0.3", "a"),
    ("fills", "price", but("price", 2, np.nan), "price: must be positive, got nan", "a"),
    ("fills", "price", but("price", 4, "x"), "price: 'x' is not a number", "b"),
    ("fills", "size", but("size", 1, -200), "size: must be positive, got -200", "a"),
    ("fills", "size", but("size", 4, 301), "to 601 shares, more than the 600 ordered", "b"),
    ("fills", "mid", but("mid", 3, 0), "mid: must be positive, got 0", "b"),
    ("fills", "fee", but("fee", 0, "free"), "fee: 'free' is not a number", "a"),
    ("fills", "side", [*["SELL"] * 3, "BUY", "SELL", *["SELL"] * 9], "side: is not that of the order", "b"),
    ("fills", "order_id", [*"aaabz", *"c" * 9], "(order 'z'), order_id: no order has it", "b"),
]


@pytest.mark.parametrize(("frame", "column", "values", "message", "name"), FAULTS)
def test_a_fault_is_named_and_stays_alone(frame, column, values, message, name):
    orders = changed(ORDERS, column, values) if frame == "orders" else ORDERS
    fills = changed(FILLS, column, values) if frame == "fills" else FILLS
    got = jx.analyse(orders, fills, problems=PROBLEMS)
    said = [str(fault) for fault in got.faults]
    assert any(message in words for words in said), said
    refused = {n for n, status in zip(got.columns["order_id"], got.columns["status"], strict=True) if status != "OK"}
    assert refused == {name} and got.failed == got.columns["order_id"].count(name)
    failed = row(got, name)
    assert failed["status"] == "NONFINITE_INPUT" and failed["fault"]
    assert all(np.isnan(failed[c]) for c in ("total", "delay", "arrival_slippage_bps", "total_bps", "executed"))
    before = whole().to_polars().filter(~pl.col("order_id").is_in([name, "d"]))
    after = got.to_polars().filter(~pl.col("order_id").is_in([name, "d"]))
    for same in ("total", "z_score", "regret_at_most", "vwap_slippage", "filled"):
        np.testing.assert_array_equal(before[same], after[same])
    with pytest.raises(ValueError) as raised:
        jx.analyse(orders, fills, throw=True)
    assert str(raised.value) == said[0]


@pytest.mark.parametrize(
    ("orders", "fills", "options", "message"),
    [
        ({"order_id": ["a"]}, FILLS, {}, "orders lack the column side"),
        (ORDERS, {"order_id": ["a"], "price": [1.0]}, {}, "fills lack the column size"),
        ({**ORDERS, "side": ["SELL"]}, FILLS, {}, "columns differ in length"),
        ([1, 2], FILLS, {}, "orders must be a frame"),
        (
            {n: c for n, c in ORDERS.items() if not n.startswith(("decision", "arrival"))},
            FILLS,
            {},
            "lack decision_price and arrival_price",
        ),
        (changed(ORDERS, "status", [1] * 4), FILLS, {}, "'status' has the name of a result"),
        (ORDERS, changed(FILLS, "value", [1] * 14), {}, "'value' has the name of a result"),
        (ORDERS, FILLS, {"reference": "close"}, "reference must be"),
        (ORDERS, FILLS, {"problems": {"z": PROBLEMS["a"]}}, "no order has this order_id"),
        (ORDERS, FILLS, {"problems": {"a": 1.0}}, r"problems\['a'\] must be a jaxexec.Liquidation"),
        (ORDERS, FILLS, {"problems": PROBLEMS["a"]}, "one leading axis of 4 orders"),
        (ORDERS, FILLS, {"problems": [1]}, "a batch of them or a mapping"),
        (
            {n: c for n, c in ORDERS.items() if n != "arrival_time"},
            FILLS,
            {"problems": PROBLEMS},
            "problems need the column arrival_time",
        ),
        (
            changed(ORDERS, "arrival_time", np.full(4, "2024-01-02T10:00", "datetime64[s]")),
            FILLS,
            {},
            "column arrival_time: times must be numbers of trading days",
        ),
        (ORDERS, FILLS, {"quotes": {"time": [0.0], "mid": [1.0]}}, "quotes lack the column symbol"),
        (ORDERS, FILLS, {"quotes": {"symbol": ["X"], "time": [0.0], "bid": [1.0]}}, "quotes lack the column ask"),
        (
            ORDERS,
            FILLS,
            {"quotes": {"symbol": ["X"] * 2, "time": [0.5, 0.4], "mid": [1.0, 1.0]}},
            "quotes row 1, time: is missing or goes",
        ),
        (
            ORDERS,
            FILLS,
            {"trades": {"symbol": ["X"], "time": ["x"], "price": [1.0], "size": [1]}},
            "trades row 0, time: 'x' is not",
        ),
    ],
)
def test_frames_that_cannot_be_read(orders, fills, options, message):
    with pytest.raises(ValueError, match=message):
        jx.analyse(orders, fills, **options)


def test_no_orders_and_no_fills():
    empty = {name: [] for name in ORDERS}
    got = jx.analyse(empty, {name: [] for name in FILLS})
    assert got.to_polars().height == 0 and got.failed == 0 and got.aggregate().height == 0
    with pytest.raises(ValueError, match="no order could be analysed"):
        got.plot()
    idle = jx.analyse({**ORDERS, "end_price": [49.0] * 4}, {name: [] for name in FILLS})
    assert idle.to_polars()["filled"].to_list() == [0.0] * 4


# --- prices from tapes


def test_quotes_and_trades_fill_in_what_is_missing():
    bare = {name: ORDERS[name] for name in ("order_id", "symbol", "side", "quantity", "arrival_time")}
    bare |= {"decision_time": [0.05, 0.2, 0.0, 0.0], "end_time": [1.0, 0.8, 1.0, 1.0]}
    bare["decision_price"] = [50.0, None, None, None]
    fills = {name: cells for name, cells in FILLS.items() if name != "mid"}
    rng = np.random.default_rng(0)
    times = np.sort(np.append([0.0, 0.0], rng.uniform(0, 1, 60).round(2)))
    names = np.where(np.arange(62) % 2 == 0, "X", "Y")
    mids = np.where(names == "X", 50, 20) + 0.1 * rng.normal(size=62)
    quotes = pl.DataFrame({"symbol": names, "time": times, "bid": mids - 0.01, "ask": mids + 0.01})
    quotes[20, "ask"] = quotes[20, "bid"] - 1  # crossed: X has no mid until its next quote
    trades = {"symbol": names, "time": times, "price": mids, "size": np.arange(62)}
    got = jx.analyse(bare, fills, quotes=quotes, trades=trades).to_polars()
    sound = np.where(np.arange(62) == 20, np.nan, mids)
    assert got["status"].to_list() == ["OK"] * 4, got["fault"].to_list()
    for i in range(4):
        mine = names == bare["symbol"][i]
        t, m, n = times[mine], sound[mine], np.arange(62)[mine]
        at = {f"{what}_price": m[t <= bare[f"{what}_time"][i]][-1] for what in ("decision", "arrival", "end")}
        if i == 0:
            at["decision_price"] = 50.0
        for column, value in at.items():
            np.testing.assert_allclose(got[column][i], value, rtol=1e-15, err_msg=column)
        start, end = bare["arrival_time"][i], bare["end_time"][i]
        fine = start + (end - start) * (np.arange(100_000) + 0.5) / 100_000
        path = jx.post_trade.prevailing_price(t, m, fine)
        inside = (t >= start) & (t <= end)
        if got["fills"][i]:
            average, side = got["average_price"][i], np.sign(got["shares"][i])
            for name, level, slack in (
                ("twap", np.nanmean(path), 1e-5),
                ("vwap", np.average(mids[mine][inside], weights=n[inside]), 1e-12),
            ):
                slipped = 1e4 * side * (level - average) / level
                np.testing.assert_allclose(got[f"{name}_slippage_bps"][i], slipped, atol=1e4 * slack, err_msg=name)
        np.testing.assert_allclose(got["pov"][i], abs(got["executed"][i]) / np.sum(n[inside]), rtol=1e-12)
        filled = [k for k, owner in enumerate(FILLS["order_id"]) if owner == "abcd"[i]]
        before = [m[t < FILLS["time"][k]][-1] for k in filled]  # strictly: a quote of the same moment may be the fill's
        spreads = [got["shares"][i] / abs(got["shares"][i]) * FILLS["size"][k] for k in filled]
        gaps = [s * (b - FILLS["price"][k]) for s, b, k in zip(spreads, before, filled, strict=True)]
        np.testing.assert_allclose(got["spread"][i], np.nansum(gaps) if gaps else 0, rtol=1e-9, atol=1e-9)


def test_orders_that_arrive_as_they_are_decided():
    for kept, left_out in (("decision", "arrival"), ("arrival", "decision")):
        orders = {name: cells for name, cells in ORDERS.items() if not name.startswith(left_out)}
        got = jx.analyse(orders, FILLS).to_polars()
        assert got["delay"].to_list() == [0.0] * 4
        assert got["decision_price"].to_list() == got["arrival_price"].to_list() == ORDERS[f"{kept}_price"]


def test_a_clock_reads_the_times():
    hours = [f"{9.5 + 6.5 * t:.9f}h" for t in ORDERS["arrival_time"]]
    done = [f"{9.5 + 6.5 * t:.9f}h" for t in FILLS["time"]]

    def clock(cell: str) -> float:
        if not cell.endswith("h"):
            raise ValueError(f"{cell!r} is not an hour")
        return (float(cell[:-1]) - 9.5) / 6.5

    got = jx.analyse(
        changed(ORDERS, "arrival_time", hours), changed(FILLS, "time", done), problems=PROBLEMS, clock=clock
    )
    np.testing.assert_allclose(got.columns["z_score"], whole().columns["z_score"], rtol=1e-7)
    hours[1] = "noon"
    got = jx.analyse(changed(ORDERS, "arrival_time", hours), changed(FILLS, "time", done), clock=clock)
    assert [str(f) for f in got.faults] == ["orders row 1 (order 'b'), arrival_time: 'noon' is not an hour"]


# --- groups


def test_weighted_means_and_their_errors():
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=40), rng.uniform(0.1, 5, 40)
    fit = sm.WLS(x, np.ones(40), weights=w).fit(cov_type="HC1")
    np.testing.assert_allclose(weighted_mean(x, w), (fit.params[0], fit.bse[0]), rtol=1e-12)
    np.testing.assert_allclose(weighted_mean(x, np.ones(40)), (x.mean(), scipy.stats.sem(x)), rtol=1e-12)
    whole_numbers = np.round(w).astype(int) + 1
    replicated = np.repeat(x, whole_numbers)
    wanted = np.quantile(replicated, [0.1, 0.5, 0.9], method="inverted_cdf")
    np.testing.assert_array_equal(weighted_quantiles(x, whole_numbers.astype(float), [0.1, 0.5, 0.9]), wanted)
    np.testing.assert_allclose(weighted_quantiles(x, None, [0.25]), scipy.stats.scoreatpercentile(x, 25))
    assert np.isnan(weighted_mean(x[:0], w[:0])).all() and np.isnan(weighted_mean(x[:1], w[:1])[1])


def test_the_mean_by_value_is_the_money_over_the_money():
    frame = whole().to_polars()
    mean = dict(whole().aggregate().select("measure", "mean").iter_rows())
    for part in ("delay", "spread", "price_move", "opportunity", "fees", "total"):
        np.testing.assert_allclose(mean[f"{part}_bps"], 1e4 * frame[part].sum() / frame["value"].sum(), rtol=1e-12)
    parts = sum(mean[f"{part}_bps"] for part in ("delay", "spread", "price_move", "opportunity", "fees"))
    np.testing.assert_allclose(parts, mean["total_bps"], rtol=1e-12)
    counts = dict(whole().aggregate().select("measure", "orders").iter_rows())
    assert counts["total_bps"] == 4 and counts["z_score"] == 2 and counts["vwap_slippage_bps"] == 2


def test_groups_of_orders_and_of_fills():
    by = whole().aggregate(("symbol", "trader"), weights="equal", measures=["total_bps"], quantiles=[0.5])
    assert by.columns == ["symbol", "trader", "measure", "orders", "mean", "std_error", "q50"]
    assert by.select("symbol", "trader").rows() == [("X", "ann"), ("X", "bob"), ("Y", "ann"), ("Y", "bob")]
    np.testing.assert_allclose(by["mean"], whole().to_polars()["total_bps"])
    venues = whole().aggregate("venue", measures=["arrival_slippage_bps", "spread_bps"])
    assert venues["fills"].to_list() == [12, 12, 2, 1]  # one fill on Q has no mid
    slipped = 1e4 * np.array([49.9 - 49.6, 50.35 - 50.2]) / np.array([49.9, 50.2])
    wanted = np.average(slipped, weights=[100 * 49.6, 300 * 50.35])
    np.testing.assert_allclose(venues.filter(pl.col("venue") == "Q")["mean"][0], wanted, rtol=1e-12)
    refused = jx.analyse(changed(ORDERS, "side", but("side", 2, "hold")), FILLS).aggregate(
        "order_id", measures=["shares"]
    )
    assert refused["order_id"].to_list() == ["a", "b", "d"]
    both = whole().aggregate(("venue", "trader"), measures=["fee_bps"])
    assert both["fills"].sum() == 14
    for options, message in (
        ({"by": "desk"}, "by: no column 'desk'"),
        ({"measures": ["status"]}, "measures: no numeric column 'status'"),
        ({"weights": "size"}, "weights must be"),
        ({"quantiles": [2.0]}, "quantiles must be between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            whole().aggregate(**options)


def test_outputs():
    assert "total bps" in whole().summary() and "4 orders, 0 failed" in whole().summary()
    assert whole().table("venue").columns[:3] == ("venue", "measure", "fills")
    bars = whole().plot().axes[0].patches
    assert len(bars) == 6  # c and d have no model: own impact is not told apart
    frame = whole().to_polars()
    np.testing.assert_allclose(bars[-1].get_height(), 1e4 * frame["total"].sum() / frame["value"].sum(), rtol=1e-9)
    assert len(whole().plot("a").axes[0].patches) == 8
    with pytest.raises(ValueError, match="no analysis of order 'z'"):
        whole().plot("z")
    assert whole().to_pandas().shape == frame.shape
    odd = jx.analyse(changed(ORDERS, "mixed", [1, "x", None, 2.5]), FILLS).to_polars()
    assert odd["mixed"].to_list() == ["1", "x", None, "2.5"]
    assert whole().groups == ("trader", "venue")
