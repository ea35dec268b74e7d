"""Relations that closed forms obey to rounding, where the solvers' own tests see them only to the order of the grid;
those of round trips and of curvature; and the references of the two-session order and of the curve of horizons.

Numbers are those of the other tests of relations: 5 is the cost, 12 all the time in the world, 17 the slopes in shares
and time, 19 the Hamiltonian, and so on. λ there is γ/2 here.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.basket import Basket
from tests.solvers.random_orders import draw, solved

LANES = 16
FRACTIONS = np.linspace(0, 1, 9)


def orders(seed=0):
    """Sales in constant markets, from next to no risk aversion to a great deal of it."""
    rng = np.random.default_rng(seed)
    shares, horizon = 10 ** rng.uniform(4, 6, LANES), 10 ** rng.uniform(-1, 1, LANES)
    volume, eta, volatility = 4e6 * np.ones(LANES), 0.1 * 10 ** rng.uniform(-1, 1, LANES), 0.6 * np.ones(LANES)
    urgency = np.geomspace(1e-2, 20, LANES) / horizon  # κ, so that series and exponentials are both seen
    return {
        "shares": shares,
        "horizon": horizon,
        "volatility": volatility,
        "volume": volume,
        "eta": eta,
        "psi": 0.01 * rng.uniform(size=LANES),
        "risk_aversion": urgency**2 * 2 * eta / (volatility**2 * volume),
        "permanent_impact": 1e-7 * rng.uniform(size=LANES),
    }


def of(p):
    fractions = jnp.asarray(FRACTIONS)
    return jx.gueant_quadratic(p["shares"], fractions * p["horizon"], **{k: v for k, v in p.items() if k != "shares"})


closed = jax.jit(jax.vmap(of))
slopes = jax.jit(jax.vmap(jax.grad(lambda p: of(p).objective)))


def less_constants(p, s):
    """U without spread and permanent impact."""
    return s.objective - p["psi"] * np.abs(p["shares"]) - p["permanent_impact"] / 2 * p["shares"] ** 2


# name: what is multiplied, by which power of c; then the powers that inventories and objective take.
SCALINGS = {
    "1 sign": ({"shares": -1.0}, -1.0, 1.0),
    "2 size": ({"shares": 3.0, "psi": 3.0}, 3.0, 9.0),
    "4 time": ({"horizon": 3.0, "risk_aversion": 1 / 9, "psi": 1 / 3, "permanent_impact": 1 / 3}, 1.0, 1 / 3),
    "5 cost": ({"eta": 3.0, "risk_aversion": 3.0, "psi": 3.0, "permanent_impact": 3.0}, 1.0, 3.0),
    "5 urgency": ({"volatility": 3.0, "risk_aversion": 1 / 9}, 1.0, 1.0),
    "6 currency": (
        {"eta": 100.0, "psi": 100.0, "volatility": 100.0, "permanent_impact": 100.0, "risk_aversion": 0.01},
        1.0,
        100.0,
    ),
    "7 share units": (
        {"shares": 0.1, "volume": 0.1, "eta": 10.0, "psi": 10.0, "volatility": 10.0, "permanent_impact": 100.0},
        0.1,
        1.0,
    ),
}


@pytest.mark.parametrize("name", SCALINGS)
def test_scalings_of_the_closed_form(name):
    factors, inventory, objective = SCALINGS[name]
    p = orders()
    s, other = closed(p), closed({key: value * factors.get(key, 1.0) for key, value in p.items()})
    size = p["shares"][:, None]
    np.testing.assert_allclose(other.inventory / size, inventory * s.inventory / size, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(other.objective, objective * s.objective, rtol=1e-12)


def test_9_10_what_adds_a_constant():
    p = orders()
    s, bare = closed(p), closed(p | {"psi": np.zeros(LANES), "permanent_impact": np.zeros(LANES)})
    np.testing.assert_array_equal(s.inventory, bare.inventory)
    np.testing.assert_allclose(less_constants(p, s), bare.objective, rtol=1e-11)


def test_12_all_the_time_in_the_world():
    """At κT = 40 the order knows no deadline: X²√(ηλσ²), and the form without a horizon, both for k = 1."""
    p = orders()
    kappa = np.asarray(closed(p).kappa)
    p = p | {"horizon": 40 / kappa}
    s = closed(p)
    impact, weight = p["eta"] / p["volume"], p["risk_aversion"] / 2
    limit = p["shares"] ** 2 * np.sqrt(impact * weight) * p["volatility"]
    np.testing.assert_allclose(less_constants(p, s), limit, rtol=1e-10)
    for i in (0, LANES - 1):
        free = jx.infinite_horizon(
            p["shares"][i],
            s.times[i],
            volatility=p["volatility"][i],
            impact=impact[i],
            exponent=1.0,
            variance_weight=weight[i],
        )
        np.testing.assert_allclose(free.objective, limit[i], rtol=1e-12)
        np.testing.assert_allclose(free.inventory[:-1], s.inventory[i, :-1], rtol=1e-3)
        block = jx.block_price(
            p["shares"][i],
            jx.QuadraticCost(p["eta"][i]),
            volatility=p["volatility"][i],
            volume=p["volume"][i],
            risk_aversion=p["risk_aversion"][i],
        )
        np.testing.assert_allclose(block.premium, limit[i], rtol=1e-12)


def test_14_frontier_is_convex_with_slope_half_gamma():
    one = {name: np.full(LANES, value[4]) for name, value in orders().items()}
    gammas = one["risk_aversion"] * np.geomspace(1e-3, 1e3, LANES)
    s = closed(one | {"risk_aversion": gammas})
    assert np.all(np.diff(s.expected_cost) > 0) and np.all(np.diff(s.variance) < 0)
    chord = np.diff(s.expected_cost) / np.diff(s.variance)
    # The chord's slope is that of a mean γ, which lies between those of its ends.
    assert np.all((-gammas[1:] / 2 <= chord) & (chord <= -gammas[:-1] / 2))


def test_15_18_concave_in_prices_convex_in_shares():
    p, q = orders(0), orders(1)
    priced = {name: q[name] for name in ("eta", "risk_aversion")}
    mid = {name: (p[name] + q[name]) / 2 for name in priced}
    one, two, middle = (closed(p | x).objective for x in ({}, priced, mid))
    assert np.all(middle >= (one + two) / 2 * (1 - 1e-12))
    one, two, middle = (closed(p | {"shares": p["shares"] * c}).objective for c in (1.0, 0.3, 0.65))
    assert np.all(middle <= (one + two) / 2 * (1 + 1e-12))


def test_16_17_envelope_and_slopes_at_the_ends():
    """dU/dγ = Var/2, dU/dψ = |X|, dU/dη = ∫V ρ², dU/dX = −p(0) + κX, dU/dT = −V H(p(T) less the spread)."""
    p = orders()
    s, slope = closed(p), slopes(p)
    np.testing.assert_allclose(slope["risk_aversion"], s.variance / 2, rtol=1e-10)
    np.testing.assert_allclose(slope["psi"], p["shares"], rtol=1e-12)
    np.testing.assert_allclose(slope["permanent_impact"], p["shares"] ** 2 / 2, rtol=1e-12)
    impact = s.expected_cost - p["psi"] * p["shares"] - p["permanent_impact"] / 2 * p["shares"] ** 2
    np.testing.assert_allclose(slope["eta"] * p["eta"], impact, rtol=1e-9)
    first = -s.costate[:, 0] + p["permanent_impact"] * p["shares"]
    np.testing.assert_allclose(slope["shares"], first, rtol=1e-11)
    last = np.asarray(s.costate)[:, -1] + p["psi"]
    rate = np.asarray(s.rate)[:, -1]
    np.testing.assert_allclose(last, -2 * p["eta"] * rate / p["volume"], rtol=1e-9, atol=1e-15)
    # κT = 20 leaves nothing at the end: what is compared is small against the whole.
    size = less_constants(p, s) / p["horizon"]
    np.testing.assert_allclose(slope["horizon"] / size, -p["eta"] * rate**2 / p["volume"] / size, rtol=1e-8, atol=1e-12)
    assert np.all(slope["horizon"] <= 1e-12 * size)


def test_19_20_hamiltonian_and_bellman():
    p = orders()
    s = closed(p)
    q, rate = np.asarray(s.inventory), np.asarray(s.rate)
    kinetic = (p["eta"] / p["volume"])[:, None] * rate**2
    energy = kinetic - (p["risk_aversion"] * p["volatility"] ** 2 / 2)[:, None] * q**2
    np.testing.assert_allclose((energy - energy[:, :1]) / kinetic[:, :1], 0, atol=1e-13)
    cut = 4  # half of the time
    tail = closed(p | {"shares": q[:, cut], "horizon": p["horizon"] / 2})
    np.testing.assert_allclose(tail.inventory[:, ::2] / q[:, :1], q[:, cut:] / q[:, :1], atol=1e-13)
    np.testing.assert_allclose(tail.costate[:, 0], s.costate[:, cut], rtol=1e-10)


def test_22_more_time_is_not_worse():
    p = orders()
    costs = [less_constants(p, closed(p | {"horizon": c * p["horizon"]})) for c in (1.0, 1.5, 4.0)]
    assert np.all(costs[1] <= costs[0] * (1 + 1e-12)) and np.all(costs[2] <= costs[1] * (1 + 1e-12))
    for name in ("eta", "volatility", "risk_aversion"):
        assert np.all(less_constants(p, closed(p | {name: 1.5 * p[name]})) > costs[0])


# ---- Almgren and Chriss's discrete model ----------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="steps")
@functools.partial(jax.vmap, in_axes=(0, None))
def discrete(p, steps):
    return jx.almgren_chriss(steps=steps, **p)


def paper(**changes):
    base = {
        "shares": 1e6,
        "horizon": 5.0,
        "volatility": 0.95,
        "temporary_impact": 2.5e-6,
        "permanent_impact": 2.5e-7,
        "half_spread": 0.0625,
        "variance_weight": 1e-6,
        "drift": 0.0,
    }
    return {name: jnp.broadcast_to(jnp.asarray(value, float), (3,)) for name, value in (base | changes).items()}


def test_9_permanent_impact_within_a_step():
    """x* and U depend on η and γ through η̃ = η − ½γτ, and ½γX² besides."""
    permanent = np.array([0.0, 2.5e-7, 1e-6])
    s = discrete(paper(permanent_impact=permanent), 5)
    net = discrete(paper(permanent_impact=0.0, temporary_impact=2.5e-6 - permanent / 2), 5)
    np.testing.assert_allclose(s.inventory, net.inventory, rtol=1e-12)
    np.testing.assert_allclose(s.objective, net.objective + permanent / 2 * 1e12, rtol=1e-12)


def test_34_drift_superposes():
    """x* = the path without drift + α · the path for no shares and α = 1, and U* is concave in α."""
    drifts = np.array([0.0, 0.02, 0.04])
    s = discrete(paper(drift=drifts), 5)
    bump = discrete(paper(shares=0.0, drift=np.array([1.0, 0.5, 2.0])), 5)
    np.testing.assert_allclose(bump.inventory[1:], bump.inventory[:1] * np.array([[0.5], [2.0]]), rtol=1e-12)
    plain = np.asarray(s.inventory[0])
    np.testing.assert_allclose(s.inventory, plain + drifts[:, None] * np.asarray(bump.inventory[0]), rtol=1e-11)
    assert s.objective[1] > (s.objective[0] + s.objective[2]) / 2


# ---- round trips and curvature --------------------------------------------------------------------------------------


def test_32_nothing_to_do_costs_nothing():
    data = draw(0, "uneven-spread", "dead")
    s = solved(data | {"shares": np.zeros_like(data["shares"])})
    assert np.all(s.inventory == 0) and np.all(s.objective == 0) and np.all(s.relative_gap <= 1e-12)


@pytest.mark.parametrize("convention", ["continuous", "almgren-chriss"])
def test_32_no_round_trip_pays(convention):
    """Permanent impact gives nothing back: in discrete time a round trip costs (η̃/τ)Σn², in continuous time more."""
    steps, eta, permanent, volume = 12, 0.1, 1e-7, 4e6
    market = jx.Market(jx.TimeGrid.uniform(1.0, steps), 0.6, volume, permanent_impact=permanent)
    problem = jx.Liquidation(0.0, market, jx.QuadraticCost(eta), 0.0, convention=convention)
    trips = np.random.default_rng(0).normal(size=(200, steps)) * 1e4
    trips -= trips.mean(1, keepdims=True)
    cost = jax.vmap(lambda n: jx.expected_cost(problem, n))(jnp.asarray(trips))
    tau = 1 / steps
    net = eta / volume - (permanent * tau / 2 if convention == "almgren-chriss" else 0)
    np.testing.assert_allclose(cost, net / tau * np.sum(trips**2, 1), rtol=1e-10)
    assert net > 0 and np.all(cost > 0)


def test_18_a_basket_is_convex_in_its_shares():
    """Its Hessian in the shares is symmetric and positive definite."""
    covariance = np.array([[0.36, 0.2], [0.2, 0.5]])
    market = jx.Market(jx.TimeGrid.uniform(1.0, 6), 0.0, 4e6)
    basket = Basket(
        np.array([2e5, -1e5]),
        market,
        [jx.PowerLawCost(eta, 0.6) for eta in (0.1, 0.2)],
        covariance,
        risk_aversion=3e-6,
    )

    @jax.jit
    @jax.vmap
    @jax.grad
    def prices(shares):
        return jx.solve(eqx.tree_at(lambda b: b.shares, basket, shares)).objective

    h = 100.0
    moves = h * np.concatenate([np.eye(2), -np.eye(2)])
    found = np.asarray(prices(jnp.asarray(np.array([2e5, -1e5]) + moves)))
    hessian = (found[:2] - found[2:]) / (2 * h)
    np.testing.assert_allclose(hessian[0, 1], hessian[1, 0], rtol=1e-5)
    assert abs(hessian[0, 1]) > 0.01 * hessian[0, 0]
    assert np.all(np.linalg.eigvalsh((hessian + hessian.T) / 2) > 0)


# ---- references -----------------------------------------------------------------------------------------------------

VOLUME = 4e6  # of cases whose own coefficient is eta/V: any volume will do
NODES = 82  # of every grid, so that two programmes serve all
CLOSED = 2.0**-20  # days that a closed step takes on the clock; none of them count


def two_sessions(p, steps, convention, night=True):
    """Two sessions of `steps` steps, and steps without volume between them."""
    day, shut = np.arange(steps + 1) / steps, NODES - 1 - 2 * steps
    evening = p["T1"] * day
    market_shut = np.repeat([False, True, False], [steps, shut, steps])
    times = np.r_[evening, p["T1"] + CLOSED * np.arange(1, shut), p["T1"] + CLOSED * shut + p["T2"] * day]
    market = jx.Market(
        jx.TimeGrid(times),
        volatility=np.where(market_shut, 0.0, p["sigma"]),
        volume=np.where(market_shut, 0.0, VOLUME),
        gap_variance=np.where(market_shut & night, p["sigma_on2"] / shut, 0.0),
    )
    problem = jx.Liquidation(p["X"], market, jx.QuadraticCost(p["eta"] * VOLUME), 2 * p["lam"], convention=convention)
    return jx.solve(problem, throw=True)


def test_reference_gap_two_sessions(references):
    """The discrete order to rounding; the continuous one by Richardson's extrapolation, and by its formula."""
    r = references["gap_two_sessions"]
    p, n = r["params"], 10
    s = two_sessions(p, n, "almgren-chriss")
    assert np.all(np.asarray(s.trades)[n:-n] == 0)
    open_nodes = np.r_[np.arange(1, n), np.arange(NODES - 1 - n, NODES - 1)]
    np.testing.assert_allclose(s.inventory[open_nodes], r["x_discrete_n10"], rtol=1e-12)
    np.testing.assert_allclose(s.inventory[n], r["x_gap_discrete_n10"], rtol=1e-12)
    kappa = np.sqrt(p["lam"] / p["eta"]) * p["sigma"]
    for night, name in ((True, "x_gap_continuous"), (False, "x_gap_no_overnight")):
        a, b, c = (float(two_sessions(p, k, "continuous", night).inventory[k]) for k in (10, 20, 40))
        first, second = (4 * b - a) / 3, (4 * c - b) / 3
        np.testing.assert_allclose((16 * second - first) / 15, r[name], rtol=1e-10)
        halves = kappa / np.tanh(kappa * p["T1"]) + kappa / np.tanh(kappa * p["T2"])
        kink = p["lam"] * p["sigma_on2"] / p["eta"] * night
        np.testing.assert_allclose(p["X"] * kappa / np.sinh(kappa * p["T1"]) / (halves + kink), r[name], rtol=1e-12)


def test_reference_cost_curve(references):
    """J(T) of an even pace, ½γX² + εX + ηX²/T + λσ²X²T/3, is least at √(3η/λσ²): found by its own gradient."""
    r = references["cost_curve_T"]
    p = r["params"]

    @jax.jit
    @jax.value_and_grad
    def even_pace(log_horizon):
        s = jx.gueant_quadratic(
            p["X"],
            jnp.zeros(1),
            horizon=jnp.exp(log_horizon),
            volatility=p["sigma"],
            volume=VOLUME,
            eta=p["eta"] * VOLUME,
            psi=p["eps"],
            permanent_impact=p["gamma"],
        )
        return s.expected_cost + p["lam"] * s.variance

    best = np.log(r["T_star"])
    value, slope = even_pace(best)
    np.testing.assert_allclose(value, r["J_star"], rtol=1e-13)
    np.testing.assert_allclose(r["T_star"], np.sqrt(3 * p["eta"] / p["lam"]) / p["sigma"], rtol=1e-13)
    assert abs(slope) < 1e-10 * value
    for away in (-0.5, 0.5):
        there, tilt = even_pace(best + away)
        assert there > value and np.sign(tilt) == np.sign(away)
