"""The shortfall against rational arithmetic, its parts against the model, both sides, derivatives, faults."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxexec as jx
from tests.post_trade.executed_orders import FILLS, as_expected, exact_total, padded
from tests.problems import one

PRICES = st.floats(0.01, 1e4)
FILL = st.tuples(PRICES, st.floats(1e-3, 1e6), st.floats(-1e3, 1e3), PRICES | st.just(np.nan))
shortfall = jx.implementation_shortfall
STEPS = 6


@functools.cache
def problem(kind: str = "") -> jx.Liquidation:
    return one(kind, steps=STEPS)


@settings(max_examples=150, deadline=None)
@given(
    sign=st.sampled_from([1.0, -1.0]),
    prices=st.tuples(PRICES, PRICES, PRICES),
    fills=st.lists(FILL, max_size=FILLS),
    left=st.just(0.0) | st.floats(1e-3, 1e7),
)
def test_parts_sum_to_the_total_which_is_paper_less_real(sign, prices, fills, left):
    """For sales and purchases; filled, partly filled and not filled at all; mids known or not."""
    columns = np.array(fills, float).reshape(-1, 4).T
    sizes = sign * columns[1]
    shares = float(np.sum(sizes)) + sign * left
    if shares == 0:
        shares = sign
    decision, arrival, end = prices
    order = jx.ParentOrder(shares, decision, arrival, end)
    s = shortfall(order, padded(columns[0], sizes, columns[2], columns[3]))
    assert s.status == jx.Status.OK
    parts = {name: float(part) for name, part in s.parts.items()}
    # What sums of this size can be right to: each product once, rounded.
    moves = [abs(shares * (decision - arrival)), abs(shares * (arrival - end)), *np.abs(columns[2])]
    moves += [*np.abs(sizes * (arrival - columns[0])), *np.abs(np.nan_to_num(sizes * (columns[3] - arrival)))]
    size = 1e-12 * (sum(moves) + 1e-6 * abs(shares) * arrival)
    total = exact_total(shares, decision, end, columns[0], sizes, columns[2])
    assert abs(float(s.total) - total) <= size
    assert abs(sum(parts.values()) - float(s.total)) <= size
    known = np.isfinite(columns[3])
    spread = np.sum(np.where(known, sizes * (np.where(known, columns[3], 0) - columns[0]), 0))
    assert abs(parts["spread"] - spread) <= size
    assert abs(parts["delay"] - shares * (decision - arrival)) <= size
    assert abs(parts["opportunity"] - (shares - np.sum(sizes)) * (arrival - end)) <= size
    np.testing.assert_allclose(s.filled, np.sum(sizes) / shares, rtol=1e-12)
    assert np.isnan(s.average_price) == (not fills)
    if fills:
        average = np.average(columns[0], weights=columns[1])
        np.testing.assert_allclose(s.average_price, average, rtol=1e-12, atol=1e-15 * arrival)
        np.testing.assert_allclose(s.measured_spread, np.sum(sizes[known]) / np.sum(sizes), rtol=1e-12)


@pytest.mark.parametrize("kind", ["", "buy", "quadratic discrete", "target"])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_day_as_the_model_has_it_leaves_nothing_to_timing(kind, share):
    p = problem(kind)
    trades = share * jx.vwap(p)
    order, fills = as_expected(p, trades)
    s = shortfall(order, fills, p)
    model = s.attribution
    assert s.status == jx.Status.OK and model.status == jx.Status.OK
    size = float(s.execution)
    np.testing.assert_allclose(model.timing, 0, atol=1e-8 * size)
    np.testing.assert_allclose(model.z_score, 0, atol=1e-9)
    np.testing.assert_allclose(model.trades, trades, rtol=1e-14)
    np.testing.assert_allclose(model.expected_cost, jx.expected_cost(p, trades), rtol=1e-14)
    np.testing.assert_allclose(model.standard_deviation, np.sqrt(jx.variance(p, trades)), rtol=1e-14)
    # Without mids the spread is the model's, with them it is measured: here the same.
    np.testing.assert_allclose(s.spread, 0.004 * np.sum(np.abs(trades)), rtol=1e-9)
    assert s.measured_spread == 0
    mids = fills.prices + 0.004 * jnp.sign(order.shares)
    seen = shortfall(order, jx.Fills(fills.prices, fills.sizes, mids=mids, times=fills.times), p)
    assert seen.measured_spread == 1
    np.testing.assert_allclose(seen.spread, s.spread, rtol=1e-9)
    np.testing.assert_allclose(sum(seen.parts.values()), seen.total, rtol=1e-12)
    np.testing.assert_allclose(seen.total, s.total, rtol=1e-12)
    # What the model expects is the sum of what it names, and what own impact takes from the shares that are left.
    left = float(order.shares - jnp.sum(trades)) + float(p.target)
    held = p.market.permanent_impact * jnp.sum(trades) * left
    named = model.expected_spread + model.temporary_impact + model.permanent_impact + held
    np.testing.assert_allclose(named, model.expected_cost, rtol=1e-10)


def test_what_the_model_does_not_explain_is_timing_and_the_score():
    p = problem()
    order, fills = as_expected(p, 0.5 * jx.twap(p))
    rng = np.random.default_rng(0)
    moved = np.cumsum(rng.normal(size=STEPS)) * 0.1
    noisy = jx.Fills(fills.prices + moved, fills.sizes, 2.0, times=fills.times)
    s = shortfall(order, noisy, p)
    np.testing.assert_allclose(s.attribution.timing, -np.sum(fills.sizes * moved), rtol=1e-9)
    z = -np.sum(fills.sizes * moved) / np.sqrt(jx.variance(p, 0.5 * jx.twap(p)))
    np.testing.assert_allclose(s.attribution.z_score, z, rtol=1e-9)
    np.testing.assert_allclose(s.fees, 2.0 * STEPS)
    bps = s.in_bps("arrival")
    np.testing.assert_allclose(sum(v for k, v in bps.items() if k != "total"), bps["total"], rtol=1e-12)
    np.testing.assert_allclose(bps["total"], 1e4 * s.total / (2e5 * 50.0), rtol=1e-12)


def test_a_purchase_is_a_sale_with_all_signs_turned():
    rng = np.random.default_rng(1)
    prices, sizes = 50 + rng.normal(size=FILLS), rng.uniform(1, 9, FILLS)
    sale = shortfall(jx.ParentOrder(100.0, 50.0, 50.3, 49.0), padded(prices, sizes, 0.1, prices + 0.01))
    bought = jx.ParentOrder(-100.0, -50.0 + 100, 100 - 50.3, 100 - 49.0)
    purchase = shortfall(bought, padded(100 - prices, -sizes, 0.1, 100 - prices - 0.01))
    for name, part in sale.parts.items():
        np.testing.assert_allclose(purchase.parts[name], part, rtol=1e-12, atol=1e-12, err_msg=name)


def test_prices_follow_from_each_other_where_they_can():
    fills = padded([10.0], [5.0])
    s = shortfall(jx.ParentOrder(5.0, 10.5), fills)  # arrives as decided, nothing is left to value
    assert s.delay == 0 and s.opportunity == 0 and s.total == 2.5


def test_fills_are_put_in_the_steps_of_a_grid():
    grid = jx.TimeGrid([0.0, 0.25, 0.5, 1.0])
    fills = padded([50.0] * 5, [1.0, 2.0, 4.0, 8.0, 16.0], times=np.array([0.0, 0.25, 0.3, 0.5, 1.0]))
    np.testing.assert_array_equal(fills.trades_on(grid), [1, 6, 24])  # one on a node is in the step that begins there
    late = padded([50.0], [1.0], times=np.array([1.5]))
    assert np.isnan(jax.jit(lambda f: f.trades_on(grid))(late)).all()


# --- derivatives


def _outputs(arrival, prices, sizes, eta, volatility):
    p = problem()
    market = jx.Market(p.grid, volatility, p.market.volume, 1e-7)
    asked = jx.Liquidation(p.shares, market, jx.PowerLawCost(eta, 0.6, 0.004), 1e-6)
    order = jx.ParentOrder(p.shares, 50.2, arrival, 49.0)
    times = (p.grid.times[1:] + p.grid.times[:-1]) / 2
    s = shortfall(order, jx.Fills(prices, sizes, 1.0, times=times), asked)
    model = s.attribution
    parts = jnp.stack([*s.parts.values(), s.total, model.expected_cost, model.standard_deviation])
    # To one size, so that differences mean something for all of them.
    return jnp.append(parts / 1e4, jnp.stack([model.z_score, s.filled, s.average_price]))


def test_derivatives():
    p = problem()
    sizes = 0.7 * jx.twap(p)
    point = (50.0, jnp.linspace(50.0, 49.5, STEPS), sizes, 0.1, 0.6)
    outputs = jax.jit(_outputs)
    argnums = tuple(range(len(point)))
    forward = jax.jit(jax.jacfwd(_outputs, argnums))(*point)
    reverse = jax.jit(jax.jacrev(_outputs, argnums))(*point)
    for i, (f, r) in enumerate(zip(forward, reverse, strict=True)):
        np.testing.assert_allclose(f, r, rtol=1e-10, atol=1e-10)
        direction = 1e-5 * np.asarray(point[i]) * np.cos(np.arange(np.size(point[i])))
        direction = direction.reshape(np.shape(point[i]))
        up, down = (outputs(*(x + s * direction if j == i else x for j, x in enumerate(point))) for s in (1, -1))
        along = np.tensordot(np.asarray(f), direction, axes=np.ndim(direction)) if np.ndim(direction) else f * direction
        np.testing.assert_allclose(along, (np.asarray(up) - np.asarray(down)) / 2, rtol=1e-5, atol=1e-8)


def test_derivatives_where_there_is_no_risk_and_no_trade():
    def z_and_cost(volatility, size):
        p = problem()
        market = jx.Market(p.grid, volatility, 4e6)
        asked = jx.Liquidation(2e5, market, jx.PowerLawCost(0.1, 0.6, 0.004), 0.0)
        fills = jx.Fills(50.0 + jnp.zeros(FILLS), jnp.where(jnp.arange(FILLS) < 1, size, 1.0), times=jnp.zeros(FILLS))
        masked = jx.Fills(fills.prices, fills.sizes, times=fills.times, mask=jnp.arange(FILLS) < 1)
        s = shortfall(jx.ParentOrder(2e5, 50.0, 50.0, 50.0), masked, asked)
        return s.attribution.standard_deviation + s.total

    slopes = jax.jit(jax.grad(z_and_cost, (0, 1)))(0.0, 2e5)
    assert np.all(np.isfinite(slopes))


def test_a_batch_over_any_one_thing():
    """Order, prices or model alone may vary: the others are shared."""
    p = problem()
    order, fills = as_expected(p, jx.twap(p))
    batches = {
        "order": lambda x: (jx.ParentOrder(p.shares, 50.0 + x), fills, p),
        "fills": lambda x: (order, jx.Fills(fills.prices + x, fills.sizes, times=fills.times), p),
        "problem": lambda x: (order, fills, jx.Liquidation(p.shares, p.market, jx.PowerLawCost(x, 0.6, x), 1e-6)),
    }
    steps = jnp.array([0.1, 0.2])
    for name, make in batches.items():
        many = jax.jit(jax.vmap(lambda x, make=make: shortfall(*make(x))))(steps)
        for i, x in enumerate(steps):
            alone = shortfall(*make(x))
            for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(alone), strict=True):
                np.testing.assert_allclose(a[i], b, rtol=1e-9, atol=1e-7, err_msg=name)


# --- faults


def _lane(shares=100.0, decision=50.0, end=49.0, price=50.0, size=10.0, fee=0.0, mid=50.0, time=0.1, sigma=0.6):
    """One order of eight fills, of which the fourth is as given."""
    index = jnp.arange(FILLS) == 3
    order = jx.ParentOrder(shares, decision, 50.0, end)
    columns = [jnp.where(index, x, base) for x, base in ((price, 50.0), (size, 10.0), (fee, 0.0), (mid, 50.0))]
    fills = jx.Fills(*columns, times=jnp.where(index, time, 0.1))
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), sigma, 4e6)
    asked = jx.Liquidation(shares, market, jx.PowerLawCost(0.1, 0.6, 0.004), 1e-6)
    return shortfall(order, fills, asked)


GOOD = {
    "shares": 100.0,
    "decision": 50.0,
    "end": 49.0,
    "price": 50.0,
    "size": 10.0,
    "fee": 0.0,
    "mid": 50.0,
    "time": 0.1,
}
GOOD["sigma"] = 0.6
BAD = jx.Status.NONFINITE_INPUT
SPOILED = [
    ("shares", np.nan, BAD),
    ("shares", 0.0, BAD),
    ("shares", -100.0, BAD),  # fills on the other side
    ("shares", 79.0, BAD),  # more is filled
    ("decision", np.inf, BAD),
    ("decision", -1.0, BAD),
    ("end", -1.0, BAD),
    ("end", np.nan, jx.Status.INSUFFICIENT_DATA),
    ("price", np.nan, BAD),
    ("price", 0.0, BAD),
    ("size", 0.0, BAD),
    ("size", -10.0, BAD),
    ("size", np.inf, BAD),
    ("fee", np.nan, BAD),
    ("mid", -1.0, BAD),
]


@functools.cache
def _batch():
    def loss(lanes, weights):
        s = jax.vmap(lambda lane: _lane(**lane))(lanes)
        model = s.attribution
        total = jnp.where(weights, s.total + s.spread, 0) + jnp.where(weights, model.expected_cost + model.z_score, 0)
        return jnp.sum(total), s

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def _lanes(**second):
    return {name: jnp.array([value, second.get(name, value), value]) for name, value in GOOD.items()}


@pytest.mark.parametrize(("field", "value", "status"), SPOILED)
def test_a_spoiled_order_is_nan_and_alone(field, value, status):
    everything, nothing_of_it = jnp.array([True, True, True]), jnp.array([True, False, True])
    (_, good), good_slopes = _batch()(_lanes(), everything)
    (_, s), slopes = _batch()(_lanes(**{field: value}), everything)
    assert good.status.tolist() == [0, 0, 0] and s.status.tolist() == [0, status, 0]
    assert s.attribution.status.tolist() == [0, status, 0]
    for clean, spoiled in zip(jax.tree.leaves(good), jax.tree.leaves(s), strict=True):
        np.testing.assert_array_equal(np.asarray(clean)[[0, 2]], np.asarray(spoiled)[[0, 2]])
        if spoiled.dtype == np.float64:
            assert np.isnan(np.asarray(spoiled)[1]).all()
    for name, slope in slopes.items():
        assert np.isnan(slope[1]), name
        np.testing.assert_array_equal(slope[jnp.array([0, 2])], good_slopes[name][jnp.array([0, 2])])
    _, masked = _batch()(_lanes(**{field: value}), nothing_of_it)
    assert all(slope[1] == 0 for slope in masked.values())


@pytest.mark.parametrize(("field", "value"), [("time", 1.5), ("time", np.nan), ("sigma", np.nan)])
def test_a_model_that_fails_leaves_what_is_measured(field, value):
    everything, nothing_of_it = jnp.array([True, True, True]), jnp.array([True, False, True])
    (_, good), _ = _batch()(_lanes(), everything)
    (_, s), _ = _batch()(_lanes(**{field: value}), nothing_of_it)
    assert s.status.tolist() == [0, 0, 0] and s.attribution.status.tolist() == [0, BAD, 0]
    np.testing.assert_array_equal(s.total, good.total)
    assert np.isnan(s.attribution.timing[1]) and np.isfinite(s.price_move[1])
    np.testing.assert_array_equal(s.attribution.z_score[jnp.array([0, 2])], good.attribution.z_score[jnp.array([0, 2])])


def test_fills_where_nothing_can_be_traded():
    closed = problem("closed")
    order, fills = as_expected(problem(), jx.twap(problem()))
    s = shortfall(order, fills, closed)
    assert s.status == jx.Status.OK and s.attribution.status == jx.Status.INFEASIBLE
    assert np.isnan(s.attribution.expected_cost) and np.isfinite(s.total)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jx.ParentOrder(0.0, 50.0), "shares must be finite and not 0"),
        (lambda: jx.ParentOrder(1.0, -50.0), "decision_price must be positive"),
        (lambda: jx.ParentOrder(1.0, 50.0, np.nan), "arrival_price must be positive"),
        (lambda: jx.ParentOrder(1.0, 50.0, 50.0, 0.0), "end_price must be positive and finite, or NaN"),
        (lambda: jx.ParentOrder([1.0], 50.0), "shares must be a scalar"),
        (lambda: jx.Fills(50.0, 1.0), r"prices must have shape \(fills,\)"),
        (lambda: jx.Fills([50.0, 49.0], [1.0]), "sizes must have the shape of prices"),
        (lambda: jx.Fills([50.0, np.nan], [1.0, 1.0]), r"prices\[1\] must be positive and finite"),
        (lambda: jx.Fills([50.0, 49.0], [1.0, 0.0]), r"sizes\[1\] must be finite and not 0"),
        (lambda: jx.Fills([50.0], [1.0], np.inf), r"fees\[0\] must be finite"),
        (lambda: jx.Fills([50.0], [1.0], mids=[-1.0]), r"mids\[0\]"),
        (lambda: jx.Fills([50.0], [1.0], times=[np.nan]), r"times\[0\]"),
        (lambda: jx.Fills([50.0], [1.0], mask=[1.0]), "mask must be boolean"),
        (lambda: jx.Fills([50.0], [1.0]).trades_on(problem().grid), r"times\[0\] must be known"),
        (lambda: shortfall(jx.ParentOrder(1.0, 50.0), padded([50.0], [-1.0])), r"sizes\[0\] must have the sign"),
        (lambda: shortfall(jx.ParentOrder(1.0, 50.0), padded([50.0], [2.0])), "more than the 1 ordered"),
        (lambda: shortfall(jx.ParentOrder(3.0, 50.0), padded([50.0], [2.0])), "end_price is needed: 1 shares"),
        (lambda: shortfall(1.0, padded([50.0], [2.0])), "order must be a jaxexec.ParentOrder"),  # pyright: ignore
        (lambda: jx.ParentOrder(1.0, 50.0) and shortfall(jx.ParentOrder(1.0, 50.0), 2.0), "fills must be"),  # pyright: ignore
    ],
)
def test_concrete_faults_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_problem_of_another_kind_is_refused():
    p = problem()
    order, fills = as_expected(p, jx.twap(p))
    tracking = jx.Liquidation(p.shares, p.market, p.cost, 1e-6, benchmark=np.zeros(STEPS + 1))
    with pytest.raises(ValueError, match="no benchmark"):
        shortfall(order, fills, tracking)
    other = jx.Liquidation(1.0, p.market, p.cost, p.risk_aversion)
    assert shortfall(order, fills, other).attribution.status == BAD


# --- precision and records


def test_float32_is_kept_and_right():
    rng = np.random.default_rng(2)
    prices = (50 + 0.1 * rng.normal(size=FILLS)).astype(np.float32)
    sizes = rng.integers(1, 1000, FILLS).astype(np.float32)
    mids = (prices + np.float32(0.01)).astype(np.float32)
    p = problem()
    narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), p)
    shares, times = np.float32(p.shares), np.linspace(0.01, 0.99, FILLS).astype(np.float32)
    values = [np.float32(x) for x in (50.2, 50.1, 50.05)]
    got = shortfall(jx.ParentOrder(shares, *values), jx.Fills(prices, sizes, mids=mids, times=times), narrow)
    wide = [np.asarray(x, np.float64) for x in (prices, sizes, mids, times)]
    order = jx.ParentOrder(float(shares), *map(float, values))
    wanted = shortfall(order, jx.Fills(wide[0], wide[1], mids=wide[2], times=wide[3]), p)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == (np.int32 if b.dtype == np.int32 else np.float32)
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-4)
    assert got.status == jx.Status.OK


def test_records():
    p = problem()
    s = shortfall(*as_expected(p, jx.twap(p)), p)
    assert "temporary impact" in s.summary() and "z = " in s.summary()
    assert [row[0] for row in s.table().rows][-1] == "total"
    axes = s.plot().axes[0]
    assert len(axes.patches) == len(s.parts) + 1
    np.testing.assert_allclose(axes.patches[-1].get_height(), s.total, rtol=1e-12)
    frame = s.to_polars()
    assert frame.height == 1 and frame["model_status"][0] == 0 and "z_score" in frame.columns
    np.testing.assert_allclose(s.to_pandas()["total"][0], s.total)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), s)
    assert both.to_polars().height == 2
    with pytest.raises(ValueError, match="pick one of a batch"):
        both.plot()
    with pytest.raises(ValueError, match="'decision' or 'arrival'"):
        s.in_bps("close")
    alone = shortfall(jx.ParentOrder(5.0, 10.5), padded([10.0], [5.0]))
    assert list(alone.parts) == ["delay", "spread", "price_move", "opportunity", "fees"]
    assert "model" not in alone.summary()
