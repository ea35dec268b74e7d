"""Prices with a deadline: references, marginal prices, benchmarks against dense programmes and exact facts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from tests.problems import one


def premium_of(horizon, wanted, ends=None, permanent_impact=0.0):
    """By the fourth-order method on 600 steps."""
    p, share = wanted["params"], np.linspace(0, 1, 301) if ends is None else ends
    market = jx.Market(jx.TimeGrid(horizon * share), p["sigma"], p["V"], permanent_impact)
    order = jx.Liquidation(p["q0"], market, jx.PowerLawCost(p["eta"], p["phi"]), p["gamma"]).refine(2)
    priced = jx.liquidation_premium(order, jx.Collocation())
    assert priced.status == jx.Status.OK
    return priced


def block_of(p):
    cost = jx.PowerLawCost(p["eta"], p["phi"])
    return jx.block_price(p["q0"], cost, volatility=p["sigma"], volume=p["V"], risk_aversion=p["gamma"]).premium


@pytest.mark.parametrize("name", ["phi1", "phi0.5", "phi2"])
def test_references_come_down_to_the_block_price(references, name):
    """U*(T) at T = 1, 3, 10, 30, on a grid that is fine where the order trades."""
    wanted = references[f"gueant_block_{name}"]
    early = np.sinh(np.linspace(0, 1, 301) * 5) / np.sinh(5)
    premiums = np.array([float(premium_of(t, wanted, early).premium) for t in (1.0, 3.0, 10.0, 30.0)])
    np.testing.assert_allclose(premiums, list(wanted["J_T"].values()), rtol=2e-6)
    block = float(block_of(wanted["params"]))
    np.testing.assert_allclose(block, wanted["ell_inf"], rtol=1e-12)
    assert np.all(premiums >= block * (1 - 1e-9))


def test_reference_of_a_realistic_block(references):
    wanted = references["gueant_realistic_T1"]
    priced = premium_of(1.0, wanted, permanent_impact=1e-7)
    np.testing.assert_allclose(priced.premium, wanted["J"], rtol=1e-9)
    np.testing.assert_allclose(priced.discount - priced.premium, 1e-7 / 2 * wanted["params"]["q0"] ** 2, rtol=1e-12)
    block = block_of(wanted["params"])
    assert block < priced.premium < 1.05 * block


@jax.jit
@jax.vmap
def prices(order):
    """Premium and marginal, and both where the order did not fail; and all derivatives."""

    def of(order):
        priced = jx.liquidation_premium(order)
        masked = jnp.where(priced.status <= jx.Status.LOCAL, priced.premium + priced.marginal, 0)
        values = jnp.stack([priced.premium, priced.marginal, masked])
        return values, (values, priced.status)

    return jax.jacrev(of, has_aux=True)(order)


KINDS = ("", "buy", "drift target", "closed")
BAD = {"shares": (lambda p: p.shares, jnp.nan), "volume": (lambda p: p.market.volume, -np.ones(12))}


def lanes():
    """Orders of all kinds, what is spoilt, and orders moved along random directions."""
    rng, sound = np.random.default_rng(0), [one(kind) for kind in KINDS]
    spoilt = [eqx.tree_at(where, one(""), jnp.asarray(bad)) for where, bad in BAD.values()]
    ways, moved = [], []
    for kind, order in enumerate(sound):
        paths = jax.tree_util.tree_leaves_with_path(order)
        for i, (path, leaf) in enumerate(paths):
            if path[-1].name not in ("target", "elapsed"):
                change = np.asarray(leaf) * rng.normal(size=leaf.shape) * (1e-4 if path[-1].name != "times" else 1e-5)
                parts = [change if j == i else np.zeros(x.shape) for j, (_, x) in enumerate(paths)]
                way = jax.tree.unflatten(jax.tree.structure(order), parts)
                ways.append((path[-1].name, kind, way))
                moved += [jax.tree.map(lambda x, v, s=s: x + s * v, order, way) for s in (-1, 1)]
    return sound + spoilt + moved, ways


def test_derivatives_are_differences():
    """In every parameter of four kinds of orders; that in q is the marginal price. Failures are masked."""
    orders, ways = lanes()
    batch = jax.tree.map(lambda *x: jnp.stack(x), *orders)
    slopes, (values, status) = jax.tree.map(np.asarray, prices(batch))
    sound, bad = len(KINDS), slice(len(KINDS), len(KINDS) + len(BAD))
    assert np.all(np.delete(status, bad) == jx.Status.OK)
    np.testing.assert_allclose(values[:sound, 1], slopes.shares[:sound, 0], rtol=1e-9)
    assert values[KINDS.index("buy"), 1] < 0
    for i, (name, kind, way) in enumerate(ways):
        low, high = values[sound + len(BAD) + 2 * i : sound + len(BAD) + 2 * i + 2, :2]
        change = jax.tree.map(lambda g, v, k=kind: np.sum(g[k, :2] * v, axis=tuple(range(1, g.ndim - 1))), slopes, way)
        size = np.abs(values[kind, :2])
        here = sum(jax.tree.leaves(change)) / size
        np.testing.assert_allclose(here, (high - low) / 2 / size, rtol=1e-5, atol=1e-11, err_msg=f"{name} {kind}")
    assert np.all(np.isnan(values[bad, :2]))
    for slope in jax.tree.leaves(slopes):
        assert np.all(slope[bad, 2] == 0)
        assert np.all(np.isnan(slope[bad, 0]))


def test_basket():
    """The marginal prices of all assets, and what Γ takes apart."""
    market = jx.Market(jx.TimeGrid(np.array([0.0, 0.2, 0.5, 0.7, 1.0])), 0.0, 4e6, drift=0.01)
    impact, covariance = np.array([[3e-9, 1e-9], [1e-9, 2e-9]]), np.array([[0.36, 0.2], [0.2, 0.5]])

    def premium(shares):
        options = {"risk_aversion": 1e-6, "permanent_impact": impact}
        priced = jx.liquidation_premium(jx.Basket(shares, market, jx.QuadraticCost(0.1), covariance, **options))
        return priced.premium, priced

    shares, at = np.array([2e5, -1e5]), jax.jit(jax.grad(premium, has_aux=True))
    slope, priced = at(shares)
    np.testing.assert_allclose(priced.marginal, slope, rtol=1e-9)
    np.testing.assert_allclose(priced.discount - priced.premium, shares @ impact @ shares / 2, rtol=1e-10)
    for i in range(2):
        up, down = (at(shares + s * np.eye(2)[i])[1].premium for s in (1, -1))
        np.testing.assert_allclose(slope[i], (up - down) / 2, rtol=1e-6)


# ---- benchmarks; all orders are of one form, for one compiled programme ---------------------------------------------


def order_of(gamma=3e-6, phi=0.6, psi=0.004, flat=False):
    """The order of the bank with another cost, or with flat curves on an even grid."""
    order = one("")
    order = eqx.tree_at(lambda p: p.cost, order, jx.PowerLawCost(np.float64(0.1), np.float64(phi), np.full(12, psi)))
    order = eqx.tree_at(lambda p: p.risk_aversion, order, jnp.asarray(gamma))
    if flat:
        market = order.market
        curves = (np.linspace(0, 1, 13), np.full(12, 0.6), np.full(12, 4e6), np.zeros(12))
        where = (lambda m: (m.grid.times, m.volatility, m.volume, m.gap_variance), market)
        order = eqx.tree_at(lambda p: p.market, order, eqx.tree_at(*where, tuple(map(jnp.asarray, curves))))
    return order


def test_target_close_is_the_arrival_price_backwards():
    """Relation 21: flat curves, one price at both ends of the day."""
    order = order_of(flat=True)
    arrival, close = jx.liquidation_premium(order), jx.liquidation_premium(jx.target_close(order))
    np.testing.assert_allclose(close.schedule.trades, arrival.schedule.trades[::-1], rtol=1e-7)
    np.testing.assert_allclose(close.premium, arrival.premium, rtol=1e-12)
    assert close.schedule.trades[-1] > 3 * close.schedule.trades[0]


def tracking(benchmark, gamma, psi, phi=1.0):
    order = order_of(gamma, phi, psi)
    return jx.against(order, benchmark(order))


def late(order):
    return jx.front_loaded(order)[::-1]


@pytest.mark.parametrize("benchmark", [jx.twap, late])
def test_tracking_against_a_dense_solve(benchmark):
    """Without a spread the first-order conditions are linear: (K + γW)(x − b) = −Kb − …, solved densely."""
    order = tracking(benchmark, 2e-5, 0.0)
    priced = jx.liquidation_premium(order)
    steps = 12
    volume, variance = np.asarray(order.market.step_volume), np.asarray(order.market.step_variance)
    down = np.eye(steps, steps + 1) - np.eye(steps, steps + 1, 1)
    impact = down.T @ np.diag(0.1 / volume) @ down
    risk = np.diag(2e-5 / 2 * (np.append(variance, 0) + np.append(0, variance)) / 2)
    aim, held = np.asarray(order.benchmark), np.zeros(steps + 1)
    held[0] = 2e5
    inner = slice(1, -1)
    system = (impact + risk)[inner, inner]
    held[inner] = np.linalg.solve(system, (risk @ aim - impact @ held)[inner])
    cost = held @ impact @ held + (held - aim) @ risk @ (held - aim)
    np.testing.assert_allclose(priced.schedule.inventory, held, atol=1e-6)
    np.testing.assert_allclose(priced.premium, cost, rtol=1e-12)


def test_tracking_with_a_spread_against_clarabel():
    cp = pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    order = tracking(late, 2e-5, 0.05)
    priced = jx.liquidation_premium(order)
    assert priced.status == jx.Status.OK
    volume, variance = np.asarray(order.market.step_volume), np.asarray(order.market.step_variance)
    weight = 2e-5 / 2 * (np.append(variance, 0) + np.append(0, variance)) / 2
    left, size, unit = cp.Variable(13), 2e5, float(priced.premium)
    trades = left[:-1] - left[1:]
    paid = cp.sum_squares(cp.multiply(np.sqrt(0.1 / volume / unit) * size, trades)) + 0.05 * size / unit * cp.norm1(
        trades
    )
    risk = cp.sum_squares(cp.multiply(np.sqrt(weight / unit) * size, left - np.asarray(order.benchmark) / size))
    program = cp.Problem(cp.Minimize(paid + risk), [left[0] == 1, left[-1] == 0])
    program.solve(solver="CLARABEL")
    np.testing.assert_allclose(program.value, 1, rtol=1e-8)
    np.testing.assert_allclose(left.value, priced.schedule.inventory / size, atol=1e-5)


def test_vwap_is_guaranteed_at_its_own_cost():
    """To trade VWAP tracks VWAP at no risk, at every γ; against TWAP the order comes to follow TWAP as γ grows."""
    for gamma in (1e-8, 1e-5, 1e-2):
        order = tracking(jx.vwap, gamma, 0.004, 0.6)
        priced = jx.liquidation_premium(order)
        np.testing.assert_allclose(priced.schedule.trades, jx.vwap(order), rtol=1e-7)
        permanent = 1e-7 / 2 * 2e5**2
        np.testing.assert_allclose(priced.premium, jx.expected_cost(order, jx.vwap(order)) - permanent, rtol=1e-12)
        assert priced.schedule.variance < 1e-12
    followed = jx.liquidation_premium(tracking(jx.twap, 1e2, 0.004, 0.6))
    np.testing.assert_allclose(followed.schedule.trades, jx.twap(one("")), rtol=1e-4)


def test_against_takes_trades_inventories_and_schedules():
    order = one("")
    schedule = jx.solve(order)
    for given in (schedule, schedule.trades, schedule.inventory):
        np.testing.assert_allclose(jx.against(order, given).benchmark, schedule.inventory, atol=1e-9)
    with pytest.raises(ValueError, match=r"\(12,\) or \(13,\)"):
        jx.against(order, np.ones(5))
