"""Errors of generated regressors: against a sandwich of numerical derivatives, and against Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

import jaxexec as jx
from jaxexec.sensitivity import delta_method
from tests.impact.simulated_stocks import stock

ORDER = 5


@pytest.fixture(scope="module")
def one_stock():
    return stock(400, seed=3, noise=2e-3)


@pytest.fixture(scope="module")
def estimated(one_stock):
    return jx.impact.glosten_harris_stacked_arrays(one_stock.price, one_stock.size, one_stock.sign, lags=3)


def moments(theta, s):
    """All moment conditions, (rows, parameters), of intercept and weights a, deviation, intercept and impact b."""
    flow = s.sign * s.size
    z = np.column_stack([np.ones(len(flow) - ORDER), *(flow[ORDER - j : len(flow) - j] for j in range(1, ORDER + 1))])
    a, deviation, b = theta[: ORDER + 1], theta[ORDER + 1], theta[ORDER + 2 :]
    expected = z @ a
    e = flow[ORDER:] - expected
    surprise = s.sign[ORDER:] - erf(expected / (deviation * 2**0.5))
    x = np.column_stack([np.ones(len(e)), surprise, e, np.diff(s.sign)[ORDER - 1 :], np.diff(flow)[ORDER - 1 :]])
    u = np.diff(s.price)[ORDER - 1 :] - x @ b
    freedom = (len(e) - ORDER - 1) / len(e)
    return np.column_stack([z * e[:, None], e**2 - deviation**2 * freedom, x * u[:, None]])


def test_joint_covariance_is_the_sandwich_of_all_moments(one_stock, estimated):
    plain = jx.impact.glosten_harris_arrays(one_stock.price, one_stock.size, one_stock.sign, lags=3)
    theta = np.concatenate([estimated.order_flow, plain.intercept[None], estimated.coefficients])
    g = moments(theta, one_stock)
    size = np.sqrt((g**2).sum(0))
    np.testing.assert_allclose(g.sum(0) / size, 0, atol=1e-6)
    slopes = []
    for i, value in enumerate(theta):
        h = 1e-5 * max(abs(value), 1e-7)
        up, down = (moments(theta + d * np.eye(theta.size)[i], one_stock).sum(0) for d in (h, -h))
        slopes.append((up - down) / (2 * h))
    bread = np.linalg.inv(np.stack(slopes, 1))
    meat = g.T @ g
    for lag in range(1, 4):
        late = g[lag:].T @ g[:-lag]
        meat += (1 - lag / 4) * (late + late.T)
    whole = bread @ meat @ bread.T
    kept = [i for i in range(theta.size) if i != ORDER + 2]  # less the intercept of the impact regression
    expected = whole[np.ix_(kept, kept)]
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(estimated.joint_covariance / scale, expected / scale, atol=2e-6)
    np.testing.assert_allclose(estimated.std_errors, np.sqrt(np.diag(expected))[ORDER + 2 :], rtol=1e-5)
    np.testing.assert_allclose(estimated.plain_std_errors, plain.std_errors, rtol=1e-9)
    np.testing.assert_allclose(estimated.coefficients, plain.coefficients, rtol=1e-9)


TRUTH = np.array([3e-3, 1.5e-5, 6e-3, 1e-5])
WEIGHTS = np.array([0.3, 0.15, 0.1, 0.05, 0.05])
STOCKS, TRADES, CHILD, STEPS = 500, 800, 300.0, 4


def many_stocks():
    """Sadka's model exactly, with little noise in prices: then order flow is what errors come from."""
    rng = np.random.default_rng(11)
    shocks = 300 * rng.standard_normal((TRADES + 50, STOCKS))
    flow, expected = np.zeros_like(shocks), np.zeros_like(shocks)
    for t in range(ORDER, len(flow)):
        expected[t] = WEIGHTS @ flow[t - ORDER : t][::-1]
        flow[t] = expected[t] + shocks[t]
    flow, expected = flow[50:], expected[50:]
    sign = np.sign(flow)
    c, lam, zeta, ell = TRUTH
    news = c * (sign - erf(expected / 300 / 2**0.5)) + lam * (flow - expected)
    price = np.cumsum(news + 2e-3 * rng.standard_normal(flow.shape), 0) + zeta * sign + ell * flow
    return price.T, np.abs(flow).T, sign.T


def schedule(inputs):
    """The order of a desk that trades one child a step: ψ, κ and η are all of the estimates (see `calibrate`)."""
    c, lam, zeta, ell = inputs["impact"]
    grid = jx.TimeGrid.uniform(1.0, STEPS)
    market = jx.Market(grid, 0.3, 4e5, permanent_impact=lam + c / CHILD)
    cost = jx.QuadraticCost(ell * (4e5 / STEPS), zeta + ell * CHILD)
    s = jx.solve(jx.Liquidation(2e4, market, cost, 2e-5))
    return {"objective": s.objective, "first_trade": s.trades[0], "status": s.status}


def test_carried_to_the_schedule_they_are_those_of_monte_carlo():
    """Errors of the regression alone understate what the schedule owes to sampling; the stacked ones do not."""
    found = jx.impact.glosten_harris_stacked_arrays(*many_stocks())
    assert not np.any(found.status)
    spread = np.std(np.asarray(found.coefficients), axis=0)
    plain, stacked = (np.asarray(x).mean(0) / spread for x in (found.plain_std_errors, found.std_errors))
    assert np.all(np.abs(stacked - 1) < 0.1) and np.all(plain[[1, 3]] < 0.6)
    z = (np.asarray(found.coefficients) - TRUTH) / np.asarray(found.std_errors)
    # Autoregressions are biased by 1/n, and what hangs on them with them: 0.4 of an error here.
    assert np.all(np.abs(z.mean(0)) < 0.5) and np.all(np.mean(np.abs(z) < 1.96, 0) > 0.9)

    @jax.jit
    @jax.vmap
    def errors(coefficients, covariance, own):
        bands = [
            delta_method({"impact": coefficients}, sigma, schedule, parameters=("impact",), by_step=("impact",))
            for sigma in (covariance, own)
        ]
        return bands[0].answers, bands[0].std_errors, bands[1].std_errors

    answers, stacked, plain = errors(found.coefficients, found.covariance, found.plain_covariance)
    for name in ("objective", "first_trade"):
        spread = float(jnp.std(answers[name]))
        assert float(jnp.mean(stacked[name])) == pytest.approx(spread, rel=0.1), name
        assert float(jnp.mean(plain[name])) < 0.75 * spread, name


def test_derivative_with_respect_to_a_price(one_stock, estimated):
    arrays = jnp.asarray(one_stock.price), jnp.asarray(one_stock.size), jnp.asarray(one_stock.sign)

    @jax.jit
    def of(price):
        found = jx.impact.glosten_harris_stacked_arrays(price, *arrays[1:], lags=3)
        return jnp.append(found.coefficients, found.std_errors)

    slope = jax.jit(jax.jacrev(of))(arrays[0])[:, 200]
    h = 1e-5
    numeric = (of(arrays[0].at[200].add(h)) - of(arrays[0].at[200].add(-h))) / (2 * h)
    np.testing.assert_allclose(slope, numeric, rtol=1e-5)
    assert np.all(slope != 0)


def test_lanes_failures_and_float32(one_stock, estimated):
    short = [np.stack([x, x, x]) for x in one_stock]
    price, size, sign = (x.copy() for x in short)
    price[1, 7] = np.nan
    mask = np.ones(price.shape, bool)
    mask[2, 4:] = False
    found = jx.impact.glosten_harris_stacked_arrays(price, size, sign, mask, lags=3)
    assert found.status.tolist() == [0, int(jx.Status.NONFINITE_INPUT), int(jx.Status.INSUFFICIENT_DATA)]
    assert np.isnan(found.joint_covariance[1:]).all() and np.isnan(found.std_errors[1:]).all()
    np.testing.assert_allclose(found.std_errors[0], estimated.std_errors, rtol=1e-9)
    narrow = [jnp.asarray(x, jnp.float32) for x in (one_stock.price - 50, one_stock.size, one_stock.sign)]
    single = jx.impact.glosten_harris_stacked_arrays(*narrow, lags=3)
    assert single.std_errors.dtype == jnp.float32
    np.testing.assert_allclose(single.std_errors, estimated.std_errors, rtol=0.02)


def test_transitory_terms_alone_owe_nothing_to_order_flow(one_stock):
    terms = ("transitory_fixed", "transitory_variable")
    found = jx.impact.glosten_harris_stacked_arrays(one_stock.price, one_stock.size, one_stock.sign, terms=terms)
    np.testing.assert_allclose(found.std_errors, found.plain_std_errors, rtol=1e-12)
    with pytest.raises(ValueError, match="terms must be"):
        jx.impact.glosten_harris_stacked_arrays(one_stock.price, one_stock.size, one_stock.sign, terms=("psi",))
