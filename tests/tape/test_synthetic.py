"""Synthetic tapes: deterministic, independent by stock, correctly signed, and with recoverable parameters."""

import datetime

import numpy as np
import polars as pl
import pytest
from scipy.special import erf

from jaxexec import tape
from jaxexec.tape import order_flow

PARAMETERS = ["permanent_fixed", "permanent_variable", "transitory_fixed", "transitory_variable"]


@pytest.mark.parametrize("model", ["exact", "realistic"])
def test_same_seed_same_tape_and_stocks_do_not_depend_on_each_other(model):
    three, five = (tape.synthetic.generate(n, 150, seed=3, model=model) for n in (3, 5))
    symbols = [f"S{k:05d}" for k in range(3)]
    for few, many, column in zip(three, five, ("sym_root", "sym_root", "symbol"), strict=True):
        assert many.filter(pl.col(column).is_in(symbols)).equals(few)
    other = tape.synthetic.generate(3, 150, seed=4, model=model)
    assert not other.trades.equals(three.trades)


@pytest.mark.parametrize("model", ["exact", "realistic"])
def test_writing_in_buckets_equals_generating(tmp_path, model):
    made = tape.synthetic.generate(5, 120, seed=8, model=model)
    paths = tape.synthetic.write(tmp_path / "a", 5, 120, seed=8, model=model, bucket=2)
    again = tape.synthetic.write(tmp_path / "b", 5, 120, seed=8, model=model, bucket=2)
    for name, path in paths.items():
        assert pl.read_parquet(path).equals(getattr(made, name)), name
        assert path.read_bytes() == again[name].read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["quotes.parquet", "trades.parquet", "truth.parquet"]
    from_files = tape.sign(paths["trades"], paths["quotes"])
    assert from_files.trades.equals(tape.sign(made.trades, made.quotes).trades)
    assert from_files.mapping["quotes"]["format"] == "wrds-cqm"


def test_signs_are_recovered():
    exact = tape.synthetic.generate(4, 800, seed=1)
    signed = tape.sign(exact.trades, exact.quotes, midpoint="keep")
    assert (signed.trades["sign"] == exact.trades["true_sign"]).all()
    assert signed.trades["midpoint"].sum() == (exact.trades["true_sign"] == 0).sum() > 50
    real = tape.synthetic.generate(4, 800, seed=1, model="realistic", tail=0)
    signed = tape.sign(real.trades, real.quotes, midpoint="keep").trades
    assert (signed["sign"] == real.trades["true_sign"]).filter(~signed["midpoint"]).all()
    assert 50 < signed["midpoint"].sum() < 800 and (real.trades["true_sign"] != 0).all()


def test_a_join_that_is_not_strict_would_take_the_trade_s_own_consequence():
    real = tape.synthetic.generate(4, 800, seed=1, model="realistic", tail=0)
    earlier = real.quotes.with_columns((pl.col("time_m").cast(pl.Int64) - 1).cast(pl.Time))
    lax = tape.sign(real.trades, earlier, midpoint="keep").trades
    strict = tape.sign(real.trades, real.quotes, midpoint="keep").trades
    assert (strict["sign"] * real.trades["true_sign"] < 0).sum() == 0
    assert (lax["sign"] * real.trades["true_sign"] < 0).sum() > 300


def sadka_errors(ticks, size, sign, truth):
    """z of each coefficient: least squares with Newey–West errors, written out apart from the package."""
    price, d = ticks / 1e4, sign.astype(float)
    flow = d * size
    n = len(price)
    lags = np.column_stack([np.ones(n - 5), *(flow[5 - j : n - j] for j in range(1, 6))])
    expected = lags @ np.linalg.lstsq(lags, flow[5:], rcond=None)[0]
    surprise = flow[5:] - expected
    deviation = np.sqrt(surprise @ surprise / (n - 11))
    columns = [
        np.ones(n - 5),
        d[5:] - erf(expected / deviation / np.sqrt(2)),
        surprise,
        np.diff(d)[4:],
        np.diff(flow)[4:],
    ]
    x, y = np.column_stack(columns), np.diff(price)[4:]
    b = np.linalg.lstsq(x, y, rcond=None)[0]
    score = x * (y - x @ b)[:, None]
    bandwidth = int(4 * (len(y) / 100) ** (2 / 9))
    meat = score.T @ score
    for k in range(1, bandwidth + 1):
        lagged = score[k:].T @ score[:-k]
        meat += (1 - k / (bandwidth + 1)) * (lagged + lagged.T)
    bread = np.linalg.inv(x.T @ x)
    return (b[1:] - truth) / np.sqrt(np.diag(bread @ meat @ bread))[1:]


def test_parameters_are_recovered():
    made = tape.synthetic.generate(300, 2000, seed=0)
    flat = tape.sign(made.trades, made.quotes, midpoint="keep").segments()
    truth = made.truth.select(PARAMETERS).to_numpy()
    z = np.array(
        [
            sadka_errors(flat.ticks[a:b], flat.size[a:b], flat.sign[a:b], truth[stock])
            for stock, a, b in zip(flat.stock, flat.offsets[:-1], flat.offsets[1:], strict=True)
        ]
    )
    assert z.shape == (300, 4)
    assert np.all(np.abs(z.mean(0)) < 0.2), z.mean(0)
    assert np.all((z.std(0, ddof=1) > 0.9) & (z.std(0, ddof=1) < 1.2)), z.std(0, ddof=1)
    assert np.all(truth.std(0) / truth.mean(0) > 0.2), "parameters differ from stock to stock"


def test_flow_is_the_autoregression_that_the_truth_states():
    made = tape.synthetic.generate(40, 3000, seed=6)
    z = []
    for (_, stock), row in zip(
        made.trades.group_by("sym_root", maintain_order=True), made.truth.iter_rows(named=True), strict=True
    ):
        flow = (stock["true_sign"].cast(pl.Float64) * stock["size"]).to_numpy()
        n = len(flow)
        x = np.column_stack([np.ones(n - 5), *(flow[5 - j : n - j] for j in range(1, 6))])
        b, rss, *_ = np.linalg.lstsq(x, flow[5:], rcond=None)
        errors = np.sqrt(np.diag(np.linalg.inv(x.T @ x)) * rss[0] / (n - 11))
        z.append([(b[j] - row[f"ar_{j}"]) / errors[j] for j in range(1, 6)])
    assert np.all(np.abs(np.mean(z, axis=0)) < 4 / np.sqrt(40)) and np.all(np.std(z, axis=0) < 1.5)


def test_trading_times_are_u_shaped():
    rng = np.random.default_rng(0)
    truth = order_flow.draw_truth(40_000, 0.0, True, rng)
    time = order_flow.trading_times(truth, False, rng)
    assert np.all(np.diff(time) >= 8)
    u = (time - 34_200e9) / 23_400e9
    b = truth.intraday_curvature
    shares = np.histogram(u, bins=10, range=(0, 1))[0] / len(u)
    edges = 2 * np.linspace(0, 1, 11) - 1
    expected = np.diff(edges + b * edges**3 / 3) / (2 * (1 + b / 3))
    assert np.allclose(shares, expected, atol=0.008) and expected.max() > 1.5 * expected.min()


def test_repeated_signs_persist_as_stated():
    rng = np.random.default_rng(1)
    truth = order_flow.draw_truth(100_000, 0.0, False, rng)
    sign = order_flow.repeating_signs(truth, rng).astype(float)
    # A DAR(5) with equal weights ρ/5: Yule–Walker gives one autocorrelation r = (ρ/5)(1 + 4r) at every lag to five.
    weight = truth.sign_persistence / 5
    assert np.mean(sign[1:] * sign[:-1]) == pytest.approx(weight / (1 - 4 * weight), abs=0.02)


def test_realistic_tapes_are_heavy_tailed_on_cents_and_balanced():
    made = tape.synthetic.generate(60, 300, seed=5, model="realistic")
    counts = made.truth["trades"].to_numpy()
    assert counts.min() >= 50 and counts.max() > 4 * np.median(counts)
    assert made.truth["ar_1"].null_count() == 60 and made.truth["sign_persistence"].null_count() == 0
    read = tape.read(made.quotes, "quotes")
    assert (read["bid_ticks"] % 100 == 0).all() and (read["ask_ticks"] > read["bid_ticks"]).all()
    assert tape.sign(made.trades, made.quotes).ledger.balanced


def test_bad_arguments_and_the_smallest_tape():
    for bad in ({"model": "none"}, {"trades": 0}, {"seed": -1}, {"stocks": 0}, {"tail": -1.0}):
        with pytest.raises(tape.InputError):
            tape.synthetic.generate(**bad)
    date = datetime.date(2023, 5, 4)
    tiny = tape.synthetic.generate(1, 2, date=date)
    assert tiny.trades.height == 2 and tiny.quotes["date"].to_list() == [date] * 2


def test_flickers_add_quotes_that_change_nothing():
    """The same trades, more quotes, and the same quotes prevail."""
    few, many = (tape.synthetic.generate(3, 100, seed=4, model="realistic", flickers=k) for k in (0, 4))
    assert many.quotes.height == 3 * few.quotes.height == 6 * few.trades.height
    assert many.trades.drop("ex", "tr_scond").equals(few.trades.drop("ex", "tr_scond"))
    assert many.quotes.select(pl.col("time_m").is_sorted().over("sym_root").all()).item()
    signed = [tape.sign(made.trades, made.quotes).trades["sign"] for made in (few, many)]
    assert signed[0].equals(signed[1])
