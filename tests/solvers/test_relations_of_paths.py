"""Relations that hold for every order: monotone and convex answers, Bellman, time reversal, caps, duality, drift."""

import functools

import equinox as eqx
import jax
import numpy as np

import jaxexec as jx
from tests.solvers.random_orders import (
    CURVES,
    LANES,
    STEPS,
    assert_related,
    build,
    build_capped,
    draw,
    factors,
    few,
    objective_gradient,
    objectives,
    of,
    random_orders,
    size_of,
    solved,
    some,
)

# ---- order and convexity --------------------------------------------------------------------------------------------


@some
@random_orders
def test_13_monotone(seed):
    for words in (("spread", "dead"), ("spread", "dead", "buy")):
        data = draw(seed, *words)
        s, sign = solved(data), of(np.sign(data["shares"]))
        assert np.all(s.trades * sign >= 0)
        assert np.all((s.inventory * sign >= 0) & (s.inventory * sign <= of(np.abs(data["shares"]))))


@some
@random_orders
def test_14_frontier(seed):
    data = draw(seed, "uneven-spread", "dead", "target")
    one = {name: np.broadcast_to(x[:1], x.shape) for name, x in data.items()}
    gammas = one["risk_aversion"] * np.geomspace(1e-3, 1e3, LANES)
    s = solved(one | {"risk_aversion": gammas})
    cost, variance = s.expected_cost, s.variance
    assert np.all(np.diff(cost) >= -1e-9 * cost[1:])
    assert np.all(np.diff(variance) <= 1e-9 * variance[:-1])
    moved = np.abs(np.diff(variance)) > 1e-7 * variance[:-1]
    slopes = (np.diff(cost) / np.where(moved, np.diff(variance), 1))[moved]
    # Between two points of a convex curve the slope lies between those at its ends, −γ/2.
    assert np.all(slopes <= -gammas[:-1][moved] / 2 * (1 - 1e-4))
    assert np.all(slopes >= -gammas[1:][moved] / 2 * (1 + 1e-4))


@some
@random_orders
def test_15_concave_in_eta_and_lambda(seed):
    data, other = draw(seed, "target", "dead", "drift"), draw(seed + 1)
    a = {name: data[name] for name in ("eta", "risk_aversion")}
    b = {"eta": other["eta"] * of(factors(seed)), "risk_aversion": data["risk_aversion"] * factors(seed + 1)}
    middle = {name: (a[name] + b[name]) / 2 for name in a}
    ends, mid = [solved(data | x) for x in (a, b)], solved(data | middle)
    assert np.all(mid.objective >= (ends[0].objective + ends[1].objective) / 2 - 1e-9 * size_of(data, mid))


@some
@random_orders
def test_18_convex_in_shares(seed):
    data, c = draw(seed, "uneven-spread", "dead", "drift"), factors(seed) * np.sign(factors(seed + 2) - 1)
    ends = [data["shares"], c * data["shares"]]
    one, two, mid = (solved(data | {"shares": x}) for x in (*ends, (ends[0] + ends[1]) / 2))
    unit = np.maximum(size_of(data, one), size_of(data, two))
    assert np.all(mid.objective <= (one.objective + two.objective) / 2 + 1e-9 * unit)


@some
@random_orders
def test_22_more_time_is_not_worse_and_dearer_is(seed):
    data, c = draw(seed, "uneven-spread", "dead"), factors(seed, 0, 1)
    s = solved(data)
    shut = np.arange(STEPS) >= 36
    shorter = {name: np.where(shut, 0, data[name]) for name in ("volume", "volatility", "gap_variance")}
    assert np.all(solved(data | shorter).objective >= s.objective * (1 - 1e-9))
    for name in ("eta", "volatility", "risk_aversion"):
        more = data[name] * (c if data[name].ndim == 1 else of(c))
        assert np.all(solved(data | {name: more}).objective >= s.objective * (1 - 1e-9))


@some
@random_orders
def test_23_perturbation(seed):
    """Nothing is cheaper than the optimum, and what is near costs the square of its distance more."""
    for phi in (None, 1.0):
        data = draw(seed, "spread", "dead", phi=phi)
        problem = build(data)
        s = solved(problem)
        noise = np.random.default_rng(seed).uniform(-1, 1, (LANES, STEPS))
        turn = s.trades * (noise - of(np.sum(s.trades * noise, 1) / np.sum(s.trades, 1)))
        near, far = (np.asarray(objectives(problem, s.trades + e * turn)) - s.objective for e in (0.1, 0.2))
        assert np.all(near >= -1e-12 * s.objective) and np.all(far >= -1e-12 * s.objective)
        seen = near > 1e-7 * s.objective
        ratio = (far / near)[seen]
        if phi:
            np.testing.assert_allclose(ratio, 4, rtol=1e-6)
        else:
            assert np.all((ratio > 3.5) & (ratio < 4.6)), ratio
    data = draw(seed, "uneven-spread", "drift", "target", "dead")
    problem = build(data)
    s, open_ = solved(problem), data["volume"] > 0
    noise = np.random.default_rng(seed).normal(size=(LANES, STEPS)) * open_
    noise = (noise - of(np.sum(noise, 1) / np.sum(open_, 1))) * open_
    for size in (1e-4, 1e-2, 1.0):
        other = np.asarray(objectives(problem, s.trades + size * of(np.abs(data["shares"])) * noise))
        assert np.all(other >= s.objective - 1e-10 * size_of(data, s))


# ---- pieces, ends and constraints -----------------------------------------------------------------------------------


@some
@random_orders
def test_20_bellman(seed):
    data = draw(seed, "uneven-spread", "drift", "target", "dead")
    cut = 17
    s = solved(data)
    over = np.arange(STEPS) < cut
    rest = {name: np.where(over, 0, data[name]) for name in ("volume", "volatility", "gap_variance", "drift")}
    tail = solved(data | rest | {"shares": s.inventory[:, cut]})
    unit = np.max(np.abs(s.inventory), 1)
    assert np.max(np.abs(tail.inventory[:, cut:] - s.inventory[:, cut:]) / of(unit)) <= 1e-8
    head = {name: np.where(over, data[name], 0) for name in ("volatility", "gap_variance", "drift")}
    first = objectives(build(data | head), np.where(over, s.trades, 0))
    assert np.max(np.abs(first + tail.objective - s.objective) / size_of(data, s)) <= 1e-9


@some
@random_orders
def test_21_time_reversal(seed):
    data = draw(seed, "uneven-spread", "drift", "target", "dead")
    turned = {name: data[name][:, ::-1] for name in CURVES}
    turned |= {"times": data["times"][:, -1:] - data["times"][:, ::-1]}
    s, other = solved(data), solved(data | turned | {"shares": data["target"], "target": data["shares"]})
    back = eqx.tree_at(lambda x: x.inventory, other, other.inventory[:, ::-1])
    assert_related(data, s, back)


def with_cap(data, most):
    return build_capped(data | {"rho_max": most})


@few
@random_orders
def test_24_caps(seed):
    data = draw(seed, "spread", "dead")
    room = np.diff(data["times"]) * data["volume"]
    free = solved(data)
    slack = solved(with_cap(data, np.full((LANES, STEPS), 1e3)))
    assert_related(data, free, slack, rtol=1e-8)
    even = data["shares"] / np.sum(room, 1)
    tightness = np.random.default_rng(seed).uniform(1.1, 3, LANES)
    caps = of(even * tightness) * np.ones((1, STEPS))
    problem = with_cap(data, caps)
    capped = solved(problem)
    assert np.all(capped.objective >= free.objective * (1 - 1e-9))
    rates = capped.trades / np.where(room > 0, room, 1)
    assert np.all(rates <= caps * (1 + 1e-9))


@few
@random_orders
def test_24_multipliers_of_caps(seed):
    """−dU*/dc = τV(p − L'(c))⁺: positive where a cap binds, zero where it does not."""
    data = draw(seed, "spread", "dead")
    room = np.diff(data["times"]) * data["volume"]
    tightness = np.random.default_rng(seed).uniform(1.1, 3, LANES)
    caps = of(data["shares"] / np.sum(room, 1) * tightness) * np.ones((1, STEPS))
    problem = with_cap(data, caps)
    capped = solved(problem)
    rates = capped.trades / np.where(room > 0, room, 1)
    gradient = -np.asarray(objective_gradient(problem).cost.rho_max)
    d = {name: of(x) if np.ndim(x) == 1 else x for name, x in data.items()}
    price = d["eta"] * (1 + d["phi"]) * caps ** d["phi"] + d["psi"]
    multiplier = room * np.maximum(-capped.costate - price, 0)
    unit = np.max(room * np.abs(capped.costate), 1, keepdims=True)
    assert np.max(np.abs(gradient - multiplier) / unit) <= 1e-7
    assert np.all(gradient >= -1e-9 * unit)
    inside = rates < caps * (1 - 1e-6)
    assert np.all(np.abs(gradient)[inside] <= (1e-9 * unit * np.ones_like(gradient))[inside])


@few
@random_orders
def test_25_duality(seed):
    """Stopped at any iterate, dual value ≤ U* ≤ U."""
    loose = jax.jit(jax.vmap(functools.partial(jx.solve, solver=LOOSE, on_failure="best")))
    data = draw(seed, "spread", "drift", "target", "dead")
    best, early = solved(data), loose(build(data))
    above = np.asarray(early.objective) - best.objective
    unit = size_of(data, best)
    assert np.all(above >= -1e-12 * unit)
    assert np.all(above <= np.asarray(early.duality_gap) + 1e-12 * unit)
    assert np.sum(above > 1e-6 * unit) > LANES // 4  # early enough to be seen


LOOSE = jx.LadderNewton(rtol=1.0, max_steps=1)


@some
@random_orders
def test_34_drift_in_a_quadratic_order(seed):
    """x* is affine in the drift, U* concave in it."""
    data, c = draw(seed, "drift", "target", "dead", phi=1.0), factors(seed)
    none, one, more, middle = (solved(data | {"drift": of(k * c) * data["drift"]}) for k in (0, 1, 2, 1.5))
    unit = of(np.max(np.abs(more.inventory), 1))
    assert np.max(np.abs(more.inventory - 2 * one.inventory + none.inventory) / unit) <= 1e-9
    size = size_of(data | {"drift": of(2 * c) * data["drift"]}, more)
    assert np.all(middle.objective >= (one.objective + more.objective) / 2 - 1e-9 * size)
