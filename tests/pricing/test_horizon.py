"""Optimal cost against the horizon: it falls, its slope, and the best horizon where time has a price.

Two compiled programmes answer for most tests: one curve of many horizons, and one batch of best horizons with slopes.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

X, VOLUME, SIGMA, ETA, GAMMA, LONGEST, STEPS = 2e5, 4e6, 0.6, 0.1, 1e-6, 3.0, 96
KAPPA = np.sqrt(GAMMA * SIGMA**2 * VOLUME / (2 * ETA))


def order(phi=0.6, rho_max=1e3, volume=VOLUME) -> jx.Liquidation:
    """With a cap, which is far off unless it is asked for."""
    market = jx.Market(jx.TimeGrid.uniform(LONGEST, STEPS), SIGMA, volume * np.ones(STEPS))
    cost = jx.ParticipationCap(jx.PowerLawCost(ETA, phi, 0.004), rho_max)
    return jx.Liquidation(X, market, cost, GAMMA)


NODES = np.linspace(0, LONGEST, STEPS + 1)[1:]
FINE = np.linspace(0.02, LONGEST, 200)
NEAR = 1 - 1e-6
RENTS = np.array([0.0, 300.0, 3e3, 3e4])


AT = np.concatenate([NODES, NODES * NEAR, FINE, [5.0]])  # nodes, a little to the left of each, 200 more, and too long
traced_curve = jax.jit(jx.horizon_curve)


@pytest.fixture(scope="module")
def curve():
    return traced_curve(order(), AT, 1e3)


def test_more_time_is_not_worse(curve):
    """Relation 22, on an extended grid; with constant curves the cost is convex in T."""
    status, objective = np.asarray(curve.status), np.asarray(curve.objective)[:STEPS]
    assert np.all(status[:-1] == jx.Status.OK) and status[-1] == jx.Status.NONFINITE_INPUT
    assert np.isnan(curve.objective[-1])
    assert np.all(np.diff(objective) < 0)
    assert np.all(np.diff(np.diff(objective)) > 0)
    assert np.all(curve.slope[:-1] < 0)
    np.testing.assert_allclose(curve.total[:-1] - curve.objective[:-1], 1e3 * curve.horizons[:-1], rtol=1e-9)
    assert len(curve.plot().axes) == 1


def test_slope(curve):
    """It is the difference; and relation 17, −V H(p) at the end, up to ½κ²h² of the last step."""
    near = slice(STEPS, 2 * STEPS)
    left = (curve.objective[:STEPS] - curve.objective[near]) / (NODES - NODES * NEAR)
    np.testing.assert_allclose(curve.slope[:STEPS], left, rtol=1e-4, atol=1e-6 * abs(float(curve.slope[0])))
    last = -np.diagonal(curve.schedules.costate[:STEPS])
    np.testing.assert_allclose(curve.slope[:STEPS], -VOLUME * order().cost.hamiltonian(last), rtol=1e-2)


@pytest.mark.parametrize("convention", ["continuous", "almgren-chriss"])
def test_slope_with_everything(convention):
    """Curves, drift, gaps, permanent impact and a target: differences, within a step and at the end of the grid."""
    wave, ramp = 0.1 * np.sin(np.arange(8)), np.linspace(1, 2, 8)
    grid = jx.TimeGrid(LONGEST * np.linspace(0, 1, 9) ** 1.2)
    market = jx.Market(grid, SIGMA * ramp, VOLUME * ramp[::-1], 1e-8, wave, 0.01 * ramp)
    problem = jx.Liquidation(X, market, jx.QuadraticCost(ETA * ramp, 0.01 * ramp), GAMMA, 1e4, convention)
    at, h = np.array([0.77, 1.9, LONGEST - 1e-4]), 1e-4
    c = jx.horizon_curve(problem, np.concatenate([at - h, at, at + h]))
    difference = (c.objective[6:] - c.objective[:3]) / (2 * h)
    np.testing.assert_allclose(c.slope[3:6], difference, rtol=1e-6)


def test_horizon_at_a_node_is_a_shorter_grid():
    """Almgren and Chriss's closed form of fewer steps, in the programme of the test before."""
    flat, grid = np.ones(8), jx.TimeGrid(LONGEST * np.linspace(0, 1, 9))
    market = jx.Market(grid, SIGMA * flat, VOLUME * flat, 1e-8, 0 * flat, 0 * flat)
    cost = jx.QuadraticCost(ETA * flat, 0.01 * flat)
    c = jx.horizon_curve(jx.Liquidation(X, market, cost, GAMMA, 0.0, "almgren-chriss"), LONGEST / 8 * np.r_[1:9, 8])
    impact = {"temporary_impact": ETA / VOLUME, "permanent_impact": 1e-8, "half_spread": 0.01}
    for n in (3, 8):
        closed = jx.almgren_chriss(X, LONGEST * n / 8, n, volatility=SIGMA, variance_weight=GAMMA / 2, **impact)
        np.testing.assert_allclose(c.objective[n - 1], closed.objective, rtol=1e-12)


# ---- the best horizon -----------------------------------------------------------------------------------------------


@jax.jit
@jax.vmap
def answer(inputs):
    """Best horizons, and the derivatives of T*, of the total, and of the total unless the lane failed."""

    def numbers(inputs):
        best = jx.best_horizon(*inputs)
        masked = jnp.where(best.status <= jx.Status.LOCAL, best.total, 0)
        return jnp.stack([best.horizon, best.total, masked]), best

    return jax.jacrev(numbers, has_aux=True)(inputs)


PLACES = {
    "shares": lambda p: p.shares,
    "risk_aversion": lambda p: p.risk_aversion,
    "eta": lambda p: p.cost.cost.eta,
    "phi": lambda p: p.cost.cost.phi,
    "psi": lambda p: p.cost.cost.psi,
    "volatility": lambda p: p.market.volatility,
    "volume": lambda p: p.market.volume,
}
STEP, CAP = 1e-5, 0.05
LATE = VOLUME * np.where(np.arange(STEPS) < 64, 0.3, 3.0)


def scaled(name, factor):
    return eqx.tree_at(PLACES[name], order(), PLACES[name](order()) * factor)


def lanes():
    """Name to order, cost of a day, and shortest horizon."""
    least = 1e-3
    named = {f"rent {c:g}": (order(), c, least) for c in RENTS}
    named |= {f"quadratic {c:g}": (order(phi=1.0), c, least) for c in (300.0, 3e3)}
    named |= {"capped": (order(rho_max=CAP), 1e6, least), "late": (order(volume=LATE), 3e3, 0.5)}
    named |= {"hurried": (order(volume=LATE), 1e9, 0.5)}
    named |= {"negative": (order(), -1.0, least), "spoilt": (scaled("shares", jnp.nan), 3e3, least)}
    for s in (-STEP, STEP):
        named |= {f"{name} {s}": (scaled(name, 1 + s), 3e3, least) for name in PLACES}
        named |= {f"rent {s}": (order(), 3e3 * (1 + s), least)}
    return named


@pytest.fixture(scope="module")
def answers():
    named = lanes()
    batch = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v, float) for v in x]), *named.values())
    answered = jax.tree.map(np.asarray, answer(batch))
    return {name: jax.tree.map(lambda x, i=i: x[i], answered) for i, name in enumerate(named)}


def test_is_the_least_point(answers, curve):
    """No other horizon is cheaper; without a price of time the whole grid is taken; dearer time is less time."""
    best = [answers[f"rent {c:g}"][1] for c in RENTS]
    assert all(b.status == jx.Status.OK for b in best)
    assert [int(b.binding) for b in best] == [1, 0, 0, 0]
    assert best[0].horizon == LONGEST
    assert np.all(np.diff([b.horizon for b in best]) < 0)
    for b, rent in zip(best, RENTS, strict=True):
        total = curve.objective[:-1] + rent * curve.horizons[:-1]
        assert np.all(total >= b.total * (1 - 1e-12))
        np.testing.assert_allclose(b.total, np.min(total), rtol=1e-3)
        np.testing.assert_allclose(b.total - b.objective, rent * b.horizon, rtol=1e-9, atol=1e-9)


def test_closed_form(answers):
    """Quadratic cost: sinh κT* = Xκ√(η/(Vc)), at second order in the step."""
    for rent in (300.0, 3e3):
        exact = np.arcsinh(X * KAPPA * np.sqrt(ETA / (VOLUME * rent))) / KAPPA
        np.testing.assert_allclose(answers[f"quadratic {rent:g}"][1].horizon, exact, rtol=1e-3)


def test_derivatives(answers):
    """Of T* by the implicit function theorem, of the total by the envelope theorem: both are differences."""
    (slopes, rents, _), best = answers["rent 3000"]
    low, high = ({n: answers[f"{n} {s}"][1] for n in (*PLACES, "rent")} for s in (-STEP, STEP))
    for name in (*PLACES, "rent"):
        slope, size = (rents, 3e3) if name == "rent" else (PLACES[name](slopes), PLACES[name](order()))
        for j, field in enumerate(("horizon", "total")):
            value = getattr(best, field)
            numeric = (getattr(high[name], field) - getattr(low[name], field)) / (2 * STEP * value)
            here = np.sum(slope[j] * np.asarray(size)) / value
            np.testing.assert_allclose(here, numeric, rtol=1e-5, atol=1e-8, err_msg=f"{name} {field}")
    np.testing.assert_allclose(rents[1], best.horizon, rtol=1e-9)


def test_limits_of_the_horizon(answers):
    """T* is the grid's end, the shortest allowed, or X/(Vρ_max) where the cap allows no less; and moves with them."""
    (slopes, rents, _), _ = answers["rent 0"]
    assert slopes.market.grid.times[0, -1] == 1 and rents[0] == 0
    (slopes, _, shortest), best = answers["hurried"]
    assert best.binding == -1 and best.horizon == 0.5 and shortest[0] == 1
    (slopes, _, _), best = answers["capped"]
    assert best.binding == -2 and best.status == jx.Status.OK
    np.testing.assert_allclose(best.horizon, X / (VOLUME * CAP), rtol=1e-6)
    moved = slopes.shares[0], slopes.cost.rho_max[0]
    np.testing.assert_allclose(moved, [1 / (VOLUME * CAP), -X / (VOLUME * CAP**2)], rtol=1e-5)


def test_bad_lanes_fail_alone(answers):
    for name in ("negative", "spoilt"):
        slopes, best = answers[name]
        assert best.status == jx.Status.NONFINITE_INPUT
        assert np.isnan(best.horizon) and np.isnan(best.total)
        for slope in jax.tree.leaves(slopes):
            assert np.all(slope[2] == 0)
            assert np.all(np.isnan(slope[:2]))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(answers["rent 3000"][0]))


def test_curves_that_vary_may_have_local_optima(answers):
    """Volume comes late, and the order does or does not wait for it."""
    best = answers["late"][1]
    assert best.status == jx.Status.LOCAL
    c = traced_curve(order(volume=LATE), AT, 3e3)
    assert best.total <= np.min(c.total[:-1][AT[:-1] > 0.5]) * (1 + 1e-12)


def test_refuses():
    with pytest.raises(ValueError, match="at most the grid's horizon, 3 days"):
        jx.horizon_curve(order(), [1.0, 3.5])
    with pytest.raises(ValueError, match=r"horizons\[0\] must be positive"):
        jx.horizon_curve(order(), [0.0])
    with pytest.raises(ValueError, match="benchmark"):
        jx.best_horizon(jx.target_close(order()), 1.0)
    with pytest.raises(ValueError, match="cost_per_day"):
        jx.best_horizon(order(), -1.0)
    with pytest.raises(ValueError, match="shortest"):
        jx.best_horizon(order(), 1.0, shortest=4.0)
    with pytest.raises(ValueError, match="Liquidation"):
        jx.best_horizon(3.0, 1.0)  # pyright: ignore
