"""The L-VaR optimum against a cone programme and SciPy, at its limits, certified; derivatives, batches, refusals.

Two compiled programmes, one with reverse and one with forward derivatives, answer for most tests, in batches.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import jaxexec as jx
from jaxexec.basket import basket_cost, basket_variance
from tests.problems import one

M = 1.65
WEIGHTS = np.array([0.0, 1e-8, 1e-3, 0.1, M, 10.0, 1e3])
STEPS, TAU, SIGMA, NET = 5, 1.0, 0.95, 2.5e-6 - 2.5e-7 / 2


def paper(shares=1e6) -> jx.Liquidation:
    """Almgren and Chriss's example."""
    market = jx.Market(jx.TimeGrid.uniform(STEPS * TAU, STEPS), SIGMA, 5e6, permanent_impact=2.5e-7)
    cost = jx.QuadraticCost(2.5e-6 * 5e6, 0.0625)
    return jx.Liquidation(shares, market, cost, 0.0, convention="almgren-chriss")


def batch(lanes):
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v, float) for v in x]), *lanes)


def numbers(inputs):
    """What derivatives are taken of: the value, γ, a mixture of the trades, and the value unless the lane failed."""
    found = jx.lvar_optimum(*inputs)
    trades = found.schedule.trades
    weights = jnp.asarray(np.random.default_rng(5).normal(size=trades.shape))
    masked = jnp.where(found.status <= jx.Status.LOCAL, found.value, 0)
    return jnp.stack([found.value, found.risk_aversion, jnp.sum(weights * trades), masked]), found


reverse = jax.jit(jax.vmap(jax.jacrev(numbers, has_aux=True)))
forward = jax.jit(jax.vmap(lambda inputs, along: jax.jvp(numbers, (inputs,), (along,), has_aux=True)))


# ---- a power law, by reverse derivatives ----------------------------------------------------------------------------

SPOILT = (
    (eqx.tree_at(lambda p: p.cost.eta, one(""), jnp.asarray(-1.0)), M, jx.Status.NONCONVEX),
    (one(""), np.nan, jx.Status.NONFINITE_INPUT),
    (one(""), -1.0, jx.Status.NONFINITE_INPUT),
)
SIZES = {"times": 1e-2, "drift": 0.05, "target": 1e4}
UNUSED = ("risk_aversion", "elapsed")


def directions():
    """For each leaf (γ of the problem, not used, and elapsed, which has a bound, left out) a random direction."""
    rng, inputs = np.random.default_rng(3), (one(""), jnp.asarray(M))
    leaves, structure = jax.tree.flatten(inputs)
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(inputs)):
        name = getattr(path[-1], "name", "m")
        if name not in UNUSED:
            change = rng.normal(size=leaf.shape) * np.where(leaf == 0, SIZES.get(name, 0.0), np.abs(leaf))
            change *= 1e-3 * (1e-2 if name == "times" else 1)
            parts = [change if j == i else np.zeros(x.shape) for j, x in enumerate(leaves)]
            yield name, jax.tree.unflatten(structure, parts)


@pytest.fixture(scope="module")
def answers():
    """Of all weights, of what is spoilt, and of four places along each direction."""
    lanes = [(one(""), m) for m in WEIGHTS] + [(p, m) for p, m, _ in SPOILT]
    for _, change in directions():
        lanes += [jax.tree.map(lambda x, v, k=k: x + k * v, (one(""), M), change) for k in (-2, -1, 1, 2)]
    slopes, found = reverse(batch(lanes))
    return jax.tree.map(np.asarray, (slopes, found))


def lane(found, i):
    return jax.tree.map(lambda x: x[i], found)


@pytest.fixture(scope="module")
def optimum(answers):
    return lane(answers[1], list(WEIGHTS).index(M))


def value_of(problem, trades, weight=M):
    return jx.expected_cost(problem, trades) + weight * jnp.sqrt(jx.variance(problem, trades))


def test_against_scipy(optimum):
    problem = one("")
    size, unit = 2e5, float(optimum.value)

    @jax.jit
    @jax.value_and_grad
    def total(inner):
        path = jnp.concatenate([jnp.ones(1), inner, jnp.zeros(1)]) * size
        return value_of(problem, path[:-1] - path[1:]) / unit

    start = 1 - np.asarray(problem.grid.times[1:-1])
    options = {"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-9, "maxcor": 30}
    found = scipy.optimize.minimize(
        lambda x: tuple(np.asarray(v) for v in total(x)), start, jac=True, method="L-BFGS-B", options=options
    )
    np.testing.assert_allclose(found.fun, 1, rtol=1e-10)
    assert found.fun >= 1 - 1e-12
    np.testing.assert_allclose(optimum.schedule.inventory[1:-1] / size, found.x, atol=1e-4)


def test_is_the_best_point_of_the_frontier(optimum):
    """γ √Var = m there, and E + m √Var is no lower at any other γ, nor anywhere below its certified bound."""
    problem, deviation = one(""), np.sqrt(optimum.variance)
    np.testing.assert_allclose(optimum.risk_aversion * deviation, M, rtol=1e-9)
    np.testing.assert_allclose(optimum.expected_cost + M * deviation, optimum.value, rtol=1e-14)
    assert optimum.status == jx.Status.OK
    assert 0 <= optimum.relative_gap < 1e-9
    assert "sd" in optimum.summary()
    f = jx.efficient_frontier(problem, float(optimum.risk_aversion) * np.geomspace(1e-3, 1e3, 25))
    assert len(f.plot({"optimum": optimum}).axes) == 1
    values = f.expected_cost + M * jnp.sqrt(f.variance)
    assert np.all(values >= optimum.value * (1 - 1e-12))
    assert int(np.argmin(values)) == 12
    rng, trades = np.random.default_rng(0), optimum.schedule.trades
    for scale in (1e-4, 1e-2, 1.0):
        noise = rng.normal(size=12) * scale * trades
        assert value_of(problem, trades + noise - np.mean(noise)) >= optimum.value - optimum.duality_gap


def test_more_weight_is_less_risk(answers):
    found = lane(answers[1], slice(len(WEIGHTS)))
    assert np.all(found.status == jx.Status.OK)
    assert np.all(np.diff(found.variance) < 0) and np.all(np.diff(found.risk_aversion) > 0)
    # The value is concave in m: an infimum of linear functions.
    chords, deviation = np.diff(found.value) / np.diff(WEIGHTS), np.sqrt(found.variance)
    slack = 1e-9 + 1e-15 * found.value[1:] / np.diff(WEIGHTS) / deviation[1:]
    assert np.all((chords <= deviation[:-1] * (1 + slack)) & (chords >= deviation[1:] * (1 - slack)))
    assert found.risk_aversion[0] == 0
    np.testing.assert_allclose(found.schedule.trades[0], jx.vwap(one("")), rtol=1e-9)


def test_derivatives(answers):
    """Differences along every direction; the value's by m is √Var, also at m = 0, where γ rises like m/√Var."""
    slopes, found = answers
    at = len(WEIGHTS) + len(SPOILT)
    here = list(WEIGHTS).index(M)
    trades = np.random.default_rng(5).normal(size=12)
    each = np.stack([found.value, found.risk_aversion, found.schedule.trades @ trades], 1)
    size = np.abs(each[here])
    for name, change in directions():
        low2, low, high, high2 = each[at : at + 4] / size
        numeric = (8 * (high - low) - (high2 - low2)) / 12
        rows = jax.tree.map(lambda g, v: np.sum(g[here, :3] * v, axis=tuple(range(1, g.ndim - 1))), slopes, change)
        np.testing.assert_allclose(sum(jax.tree.leaves(rows)) / size, numeric, rtol=1e-6, atol=1e-10, err_msg=name)
        at += 4
    deviation = np.sqrt(found.variance[: len(WEIGHTS)])
    np.testing.assert_allclose(slopes[1][: len(WEIGHTS), 0], deviation, rtol=1e-9)
    np.testing.assert_allclose(slopes[1][0, 1], 1 / deviation[0], rtol=1e-9)


def test_bad_lanes_fail_alone(answers):
    """A bad order, a weight that is negative or no number: a status, NaN, and gradients that can be masked."""
    slopes, found = answers
    bad = slice(len(WEIGHTS), len(WEIGHTS) + len(SPOILT))
    assert list(found.status[bad]) == [status for *_, status in SPOILT]
    for x in (found.value, found.expected_cost, found.variance, found.risk_aversion, found.schedule.trades):
        assert np.all(np.isnan(x[bad]))
    assert np.all(np.isfinite(found.relative_gap[bad]))
    for x in jax.tree.leaves(slopes):
        assert np.all(x[bad, 3] == 0)
        assert np.all(np.isnan(x[bad, :2]))
    again, _ = reverse(batch([(one(""), M)] * len(found.value)))
    for x, alone in zip(jax.tree.leaves(slopes), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(x[list(WEIGHTS).index(M)], alone[0])


# ---- Almgren and Chriss's example, by forward derivatives -----------------------------------------------------------

MOST = 2 * NET * 1e6 / (SIGMA * TAU**1.5)  # what γ √Var tends to as γ grows
CASES = {"usual": M, "none": 0.0, "below": 0.9999 * MOST, "above": 1.2 * MOST, "far": 50.0}


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(7)
    along = jax.tree.map(lambda x: 1e-3 * np.asarray(x) * rng.normal(size=np.shape(x)), (paper(), M))
    lanes = [(paper(), m) for m in CASES.values()]
    lanes += [jax.tree.map(lambda x, v, k=k: x + k * v, (paper(), M), along) for k in (-2, -1, 1, 2)]
    by_m = jax.tree.map(np.zeros_like, (paper(), M))
    ways = [along] + [(by_m[0], 1.0)] * (len(CASES) - 1) + [along] * 4
    values, slopes, found = forward(batch(lanes), batch(ways))
    return dict(zip(CASES, (lane(found, i) for i in range(len(CASES))), strict=True)), values, slopes


def test_forward_derivatives(cases):
    found, values, slopes = cases
    low2, low, high, high2 = values[len(CASES) :]
    np.testing.assert_allclose(slopes[0], (8 * (high - low) - (high2 - low2)) / 12, rtol=1e-6)
    np.testing.assert_allclose(
        slopes[1][:2], [found["none"].variance ** 0.5, found["none"].variance ** -0.5], rtol=1e-9
    )
    # Where no risk is left m no longer counts.
    np.testing.assert_allclose(slopes[4], 0, atol=1e-3)


def test_immediate_sale_is_the_limit(cases):
    """γ √Var stays below 2η̃X/στ^{3/2}. Beyond, all is sold in the first step, at no risk."""
    found, *_ = cases
    assert all(f.status == jx.Status.OK for f in found.values())
    below = found["below"]
    np.testing.assert_allclose(below.risk_aversion * below.variance**0.5, 0.9999 * MOST, rtol=1e-7)
    for name in ("above", "far"):
        assert found[name].risk_aversion == np.inf
        np.testing.assert_allclose(found[name].value, 2_562_500, rtol=1e-12)
        np.testing.assert_allclose(found[name].schedule.trades, [1e6, 0, 0, 0, 0], atol=1e-2)
    assert found["below"].value < found["above"].value


def test_against_a_cone_programme(cases):
    """Least quadratic cost + m‖σ√τ x‖, by Clarabel."""
    cp = pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    left = cp.Variable(STEPS)  # millions of shares after each trade
    trades = cp.hstack([1 - left[0], left[:-1] - left[1:]])
    cost = NET / TAU * 1e6 * cp.sum_squares(trades) + 2.5e-7 / 2 * 1e6 + 0.0625
    program = cp.Problem(cp.Minimize(cost + M * SIGMA * TAU**0.5 * cp.norm(left, 2)), [left[-1] == 0])
    program.solve(solver="CLARABEL")
    found = cases[0]["usual"]
    np.testing.assert_allclose(found.value, program.value * 1e6, rtol=1e-8)
    np.testing.assert_allclose(found.schedule.inventory[1:], 1e6 * left.value, atol=200)


def test_float32(cases):
    single = jax.tree.map(lambda x: x.astype(jnp.float32), paper())
    for name in ("usual", "far"):
        found, exact = jx.lvar_optimum(single, jnp.float32(CASES[name])), cases[0][name]
        assert found.value.dtype == jnp.float32
        assert found.status <= jx.Status.OK_INACCURATE
        np.testing.assert_allclose(found.value, exact.value, rtol=1e-5)
        np.testing.assert_allclose(found.risk_aversion, exact.risk_aversion, rtol=1e-4)
    assert jx.lvar_optimum(eqx.tree_at(lambda p: p.shares, single, jnp.float32(0)), np.float32(M)).value == 0


# ---- other questions ------------------------------------------------------------------------------------------------


def test_tracking_has_a_limit_too():
    """Against its VWAP an order bears no risk at all, whatever m; against its TWAP it comes to follow it."""
    problem = one("")
    vwap = jx.lvar_optimum(jx.against(problem, jx.vwap(problem)), confidence=0.95)
    np.testing.assert_allclose(vwap.deviation_weight, scipy.stats.norm.ppf(0.95), rtol=1e-14)
    assert vwap.risk_aversion == np.inf
    np.testing.assert_allclose(vwap.value, jx.expected_cost(problem, jx.vwap(problem)), rtol=1e-12)
    loose, tight = (jx.lvar_optimum(jx.against(problem, jx.twap(problem)), m) for m in (1e-2, 1.0))
    assert loose.status == tight.status == jx.Status.OK
    assert np.isfinite(float(loose.risk_aversion)) and tight.risk_aversion == np.inf
    np.testing.assert_allclose(tight.value, jx.expected_cost(problem, jx.twap(problem)), rtol=1e-9)


def test_basket():
    """The first-order condition; no random change is better; a perfect hedge bears no risk at any γ."""
    market = jx.Market(jx.TimeGrid.uniform(1.0, 6), 0.0, 4e6)
    covariance = jnp.asarray([[0.36, 0.2], [0.2, 0.5]])
    basket = jx.Basket([2e5, -1e5], market, jx.PowerLawCost(0.1, 0.6, 0.002), covariance)
    found = jx.lvar_optimum(basket, M)
    assert found.status == jx.Status.OK
    np.testing.assert_allclose(found.risk_aversion * np.sqrt(found.variance), M, rtol=1e-9)

    @jax.jit
    def value(inventory):
        cost = basket_cost(basket, inventory, inventory[:-1] - inventory[1:])
        return cost + M * jnp.sqrt(basket_variance(basket, inventory))

    path, rng = found.schedule.inventory, np.random.default_rng(0)
    np.testing.assert_allclose(value(path), found.value, rtol=1e-14)
    for scale in (1e-3, 1e-1, 10.0):
        moved = path.at[1:-1].multiply(1 + scale * rng.normal(size=(5, 2)))
        assert value(moved) > found.value
    hedged = eqx.tree_at(lambda b: (b.shares, b.covariance), basket, (jnp.asarray([1e5, -1e5]), jnp.full((2, 2), 0.4)))
    riskless = jx.lvar_optimum(hedged, M)
    assert riskless.risk_aversion == np.inf
    np.testing.assert_allclose(riskless.schedule.trades, np.array([[1e5, -1e5]]) / 6 * np.ones((6, 1)), rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of deviation_weight"),
        ({"deviation_weight": 1.0, "confidence": 0.9}, "one of deviation_weight"),
        ({"deviation_weight": -1.0}, "deviation_weight must be"),
        ({"confidence": 0.4}, "confidence must be"),
        ({"confidence": 1.0}, "confidence must be"),
        ({"deviation_weight": [1.0]}, "scalar"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        jx.lvar_optimum(one(""), **arguments)
