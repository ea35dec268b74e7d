"""What equal trades cost against time and against their number: references, both conventions, optima, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxexec as jx

X = 1e5
PAPER = {"volatility": 1.0, "temporary_impact": 2.5e-6, "variance_weight": 1e-6}
FIXED = {"permanent_impact": 2.5e-7, "half_spread": 0.005}
BAR = 1 / 26  # a quarter of an hour, in days


def test_reference_of_the_best_horizon(references):
    wanted = references["cost_curve_T"]
    p = wanted["params"]
    found = jx.twap_horizons(
        p["X"],
        [1.0],
        volatility=p["sigma"],
        temporary_impact=p["eta"],
        variance_weight=p["lam"],
        permanent_impact=p["gamma"],
        half_spread=p["eps"],
    )
    np.testing.assert_allclose(found.best_horizon, wanted["T_star"], rtol=1e-12)
    np.testing.assert_allclose(found.best_objective, wanted["J_star"], rtol=1e-12)


@pytest.mark.parametrize(("phi", "rent"), [(1.0, 0.0), (0.6, 0.0), (0.6, 2e3), (1.7, 50.0)])
def test_best_horizon_is_the_least_point(phi, rent):
    impact = PAPER | FIXED | {"temporary_impact": 2.5e-6 * 1e5 ** (1 - phi), "exponent": phi, "cost_per_day": rent}
    found = jx.twap_horizons(X, np.geomspace(0.1, 30, 9), **impact)
    at = scipy.optimize.minimize_scalar(
        lambda t: float(jx.twap_horizons(X, [np.exp(t)], **impact).objective[0]), (-2, 3), options={"xtol": 1e-10}
    )
    np.testing.assert_allclose(found.best_horizon, np.exp(at.x), rtol=1e-6)
    assert found.best_objective <= np.min(found.objective)
    closed = (3 * phi * impact["temporary_impact"] * X ** (phi - 1) / 1e-6) ** (1 / (1 + phi))
    assert rent or abs(float(found.best_horizon) / closed - 1) < 1e-14
    assert f"{float(found.best_horizon):.4g} days" in found.plot().axes[0].get_title(loc="left")


def test_curve_is_what_a_fine_twap_costs():
    """With the number of trades, at second order: the closed form is the limit of `expected_cost` and `variance`."""
    found = jx.twap_horizons(X, [2.0], exponent=0.6, **PAPER | FIXED)
    for steps in (8, 64):
        market = jx.Market(jx.TimeGrid.uniform(2.0, steps), 1.0, 1e5, permanent_impact=2.5e-7)
        order = jx.Liquidation(X, market, jx.PowerLawCost(2.5e-6 * 1e5**0.6, 0.6, 0.005), 2e-6)
        np.testing.assert_allclose(jx.expected_cost(order, jx.twap(order)), found.expected_cost[0], rtol=1e-13)
        excess = jx.variance(order, jx.twap(order)) / found.variance[0] - 1
        np.testing.assert_allclose(excess, 1 / (2 * steps**2), rtol=1e-9)


@pytest.mark.parametrize("convention", ["almgren-chriss", "continuous"])
@pytest.mark.parametrize("time", [{"spacing": BAR}, {"horizon": 2.0}])
def test_slices_are_orders_of_so_many_steps(convention, time):
    found = jx.slices_curve(X, [1, 2, 7], convention=convention, fee=3.0, **time, **PAPER | FIXED)
    for i, n in enumerate((1, 2, 7)):
        horizon = time.get("horizon", n * BAR)
        market = jx.Market(jx.TimeGrid.uniform(horizon, n), 1.0, 1e6, permanent_impact=2.5e-7)
        order = jx.Liquidation(X, market, jx.QuadraticCost(2.5, 0.005), 2e-6, convention=convention)
        np.testing.assert_allclose(found.expected_cost[i], jx.expected_cost(order, jx.twap(order)) + 3 * n, rtol=1e-13)
        np.testing.assert_allclose(found.variance[i], jx.variance(order, jx.twap(order)), rtol=1e-13, atol=1e-3)


def test_best_number_at_a_fixed_spacing():
    """N* = √(3η̃/λσ²Δt² + ½) = 71.14 → 71 of quarter hours; a fee makes it fewer."""
    counts = np.arange(1.0, 200.0)
    found = jx.slices_curve(X, counts, spacing=BAR, **PAPER | FIXED)
    net = 2.5e-6 - 2.5e-7 * BAR / 2
    np.testing.assert_allclose(found.optimum, np.sqrt(3 * net / (1e-6 * BAR**2) + 0.5), rtol=1e-14)
    np.testing.assert_allclose(found.optimum, 71.14, atol=0.005)
    assert found.best == 71 == counts[np.argmin(found.objective)]
    assert "71 trades" in found.plot().axes[0].get_title(loc="left")
    for convention in ("almgren-chriss", "continuous"):
        dear = jx.slices_curve(X, counts, spacing=BAR, fee=20.0, convention=convention, **PAPER | FIXED)
        assert dear.best == counts[np.argmin(dear.objective)] < 71


def test_no_best_number_at_a_fixed_horizon():
    """Without a fee the cost rises throughout in the discrete convention and falls throughout in the continuous one."""
    counts = np.arange(1.0, 1001.0)
    discrete = jx.slices_curve(X, counts, horizon=2.0, **PAPER | FIXED)
    assert np.all(np.diff(discrete.objective) > 0)
    assert discrete.best == discrete.optimum == 1
    smooth = jx.slices_curve(X, counts, horizon=2.0, convention="continuous", **PAPER | FIXED)
    assert np.all(np.diff(smooth.objective) < 0)
    assert smooth.best == smooth.optimum == np.inf
    paid = jx.slices_curve(X, counts, horizon=2.0, convention="continuous", fee=0.05, **PAPER | FIXED)
    np.testing.assert_allclose(paid.optimum, np.cbrt(1e-6 * X**2 * 2 / 0.15), rtol=1e-14)
    assert paid.best == counts[np.argmin(paid.objective)]
    np.testing.assert_allclose(paid.objective - smooth.objective, 0.05 * counts, rtol=1e-9)
    assert jx.slices_curve(X, counts, horizon=2.0, convention="continuous", **PAPER | {"volatility": 0.0}).best == 1


def test_derivatives():
    names = ("volatility", "temporary_impact", "variance_weight", "permanent_impact", "half_spread")

    def of(shares, fee, *rest):
        market = dict(zip(names, rest, strict=True))
        t = jx.twap_horizons(shares, [2.0], cost_per_day=fee, exponent=0.7, **market)
        n = jx.slices_curve(shares, [3.0], spacing=BAR, fee=fee, **market)
        h = jx.slices_curve(shares, [3.0], horizon=BAR, fee=fee, convention="continuous", **market)
        each = (t.objective[0], t.best_horizon, t.best_objective, n.objective[0], n.optimum, h.objective[0], h.optimum)
        return jnp.log(jnp.stack(each))

    point = (X, 2.0, 1.0, 2.5e-6, 1e-6, 2.5e-7, 0.005)
    every, value = tuple(range(7)), jax.jit(of)
    slopes, forward = jax.jit(jax.jacrev(of, every))(*point), jax.jit(jax.jacfwd(of, every))(*point)
    for i, x in enumerate(point):
        up, down = (tuple(v * (1 + s * 1e-5 * (j == i)) for j, v in enumerate(point)) for s in (1, -1))
        np.testing.assert_allclose(slopes[i] * x, (value(*up) - value(*down)) / 2e-5, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(slopes[i], forward[i], rtol=1e-12, atol=1e-15)


def test_float32():
    single = {k: np.float32(v) for k, v in (PAPER | FIXED).items()}
    found = jx.twap_horizons(np.float32(X), np.array([1.0], np.float32), exponent=np.float32(0.6), **single)
    exact = jx.twap_horizons(X, [1.0], exponent=0.6, **PAPER | FIXED)
    assert found.best_objective.dtype == jnp.float32
    np.testing.assert_allclose(found.best_objective, exact.best_objective, rtol=1e-5)
    np.testing.assert_allclose(found.best_horizon, exact.best_horizon, rtol=1e-5)


def test_refuses():
    with pytest.raises(ValueError, match="one of spacing and horizon"):
        jx.slices_curve(X, [1.0], **PAPER)
    with pytest.raises(ValueError, match=r"slices\[1\] must be at least 1"):
        jx.slices_curve(X, [1.0, 0.5], horizon=1.0, **PAPER)
    with pytest.raises(ValueError, match="horizons must have shape"):
        jx.twap_horizons(X, 1.0, **PAPER)
    with pytest.raises(ValueError, match="shares must be other than 0"):
        jx.twap_horizons(0.0, [1.0], **PAPER)
    endless = jx.twap_horizons(X, [1.0], **PAPER | {"variance_weight": 0.0})
    assert endless.status == jx.Status.UNBOUNDED
    assert np.isnan(endless.best_horizon) and np.isfinite(endless.objective[0])
    bad = jax.jit(jax.value_and_grad(lambda x: jx.slices_curve(x, [1.0], horizon=1.0, **PAPER).objective[0]))
    assert np.all(np.isnan(bad(0.0))) and np.all(np.isfinite(bad(X)))
