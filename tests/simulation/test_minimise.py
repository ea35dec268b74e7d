"""By gradient: agrees with `solve` where that has a proof, with SciPy where it has not; derivatives; failures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import jaxexec as jx

STEPS = 8


def order(eta=0.1, gamma=1e-6, volatility=0.6, permanent=2e-8, phi=0.6):
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), volatility, 4e6, permanent)
    return jx.Liquidation(2e5, market, jx.PowerLawCost(eta, phi, 0.004), gamma)


@functools.partial(jax.jit, static_argnums=1)
def local(x, one_sided=True):
    return jx.descend(order(*x), jx.objective, one_sided=one_sided)


@pytest.mark.parametrize("gamma", [0.0, 1e-6, 1e-5])
def test_agrees_with_the_certified_solver(gamma):
    best = jx.solve(order(gamma=gamma))
    found = local(jnp.array([0.1, gamma, 0.6]))
    assert found.status == jx.Status.LOCAL
    np.testing.assert_allclose(found.objective, best.objective, rtol=1e-12)
    np.testing.assert_allclose(found.inventory, best.inventory, atol=1e-2)


def test_derivatives_are_those_of_the_optimum():
    x = jnp.array([0.1, 1e-6, 0.6])
    forward, reverse = (np.asarray(mode(lambda x: local(x).inventory)(x)) for mode in (jax.jacfwd, jax.jacrev))
    exact = np.asarray(jax.jacrev(lambda x: jx.solve(order(*x)).inventory)(x))
    scale = np.abs(exact).max(0)
    np.testing.assert_allclose(forward / scale, reverse / scale, atol=1e-10)
    np.testing.assert_allclose(forward / scale, exact / scale, atol=1e-5)
    np.testing.assert_allclose(
        jax.grad(lambda x: local(x).objective)(x), jax.grad(lambda x: jx.solve(order(*x)).objective)(x), rtol=1e-7
    )


def test_nonlinear_permanent_impact_against_scipy():
    """g = c v^0.6 makes fast trading pay for what is left: not convex, so no proof; SLSQP ends in the same place."""
    process = jx.PriceProcess(permanent=jx.PowerImpact(1.5e-5, 0.6))
    problem = order(permanent=0.0)
    found = jx.minimise(problem, jx.MeanVariance(1e-6), process)
    assert found.status == jx.Status.LOCAL

    @jax.jit
    @jax.value_and_grad
    def value(shares):
        moments = jx.shortfall_moments(problem, shares * 2e5, process)
        return (moments.expected_cost + 5e-7 * moments.variance) / 6000

    other = optimize.minimize(
        lambda n: tuple(np.asarray(v) for v in value(n)),
        np.full(STEPS, 1 / STEPS),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * STEPS,
        constraints={"type": "eq", "fun": lambda n: n.sum() - 1, "jac": lambda n: np.ones(STEPS)},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    np.testing.assert_allclose(found.objective / 6000, other.fun, rtol=1e-9)
    np.testing.assert_allclose(found.trades / 2e5, other.x, atol=2e-4)

    def of(c):
        process = jx.PriceProcess(permanent=jx.PowerImpact(c, 0.6))
        return jx.minimise(problem, jx.MeanVariance(1e-6), process).objective

    slope = jax.grad(of)(1.5e-5)
    np.testing.assert_allclose(slope, (of(1.51e-5) - of(1.49e-5)) / 2e-7, rtol=1e-4)


def test_tail_mean_on_a_sample():
    """Of a normal shortfall it is that of the moments, to the sample's error; the sample's own optimum is no worse."""
    problem, measure = order(), jx.ConditionalValueAtRisk(0.95)
    exact = jx.minimise(problem, measure)
    drawn = jx.minimise(problem, measure, paths=4096, start=jx.exponential(problem, 8.0))
    assert drawn.status == jx.Status.LOCAL
    np.testing.assert_allclose(drawn.objective, exact.objective, rtol=0.05)
    best = measure.of_sample(jx.shortfalls(problem, exact.trades, paths=4096, seed=jax.random.key(0)))
    assert drawn.objective <= best * (1 + 1e-3)
    # The optimum of E + m sd lies on the frontier, at γ = m/sd.
    m = float(measure.of_normal(jnp.asarray(0.0), jnp.asarray(1.0)))
    gamma = m / float(jnp.sqrt(jx.variance(problem, exact.trades)))
    np.testing.assert_allclose(jx.solve(order(gamma=gamma)).inventory, exact.inventory, atol=1.0)


def test_purchases_where_they_are_allowed():
    """A price expected to rise late makes a sale buy first, unless it may not."""
    drift = np.where(np.arange(STEPS) < STEPS // 2, 0.0, 2.0)
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 0.6, 4e6, 0.0, drift)
    problem = jx.Liquidation(2e5, market, jx.QuadraticCost(0.1), 1e-6)
    free = jx.descend(problem, jx.objective, one_sided=False)
    np.testing.assert_allclose(free.inventory, jx.solve(problem).inventory, atol=1.0)
    assert free.trades.min() < 0
    bound = jx.descend(problem, jx.objective)
    assert bound.trades.min() >= 0
    assert bound.objective > free.objective


def test_failures_and_refusals():
    found = jax.vmap(lambda e: jx.descend(order(eta=e), jx.objective))(jnp.array([0.1, jnp.nan]))
    assert found.status.tolist() == [jx.Status.LOCAL, jx.Status.NONFINITE_INPUT]
    assert np.all(np.isnan(found.trades[1]))
    assert np.all(np.isfinite(found.trades[0]))
    dead = jx.Liquidation(2e5, jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 0.6, 0.0), order().cost, 1e-6)
    assert jx.descend(dead, jx.objective, one_sided=False).status == jx.Status.INFEASIBLE

    def masked(etas):
        found = jax.vmap(lambda e: jx.descend(order(eta=e), jx.objective).objective)(etas)
        return jnp.where(jnp.array([True, False]), found, 0).sum()

    slopes = jax.grad(masked)(jnp.array([0.1, jnp.nan]))
    assert np.isfinite(slopes[0])
    assert slopes[1] == 0
    short = jx.descend(order(gamma=1e-5), jx.objective, max_steps=2)
    assert short.status == jx.Status.MAX_STEPS
    with pytest.raises(RuntimeError, match="MAX_STEPS"):
        jx.descend(order(gamma=1e-5), jx.objective, max_steps=2, throw=True)
    with pytest.raises(ValueError, match="measure must be"):
        jx.minimise(order(), 0.95)
    with pytest.raises(ValueError, match="paths: the shortfall of this process is not normal"):
        jx.minimise(order(), jx.MeanVariance(1.0), jx.PriceProcess("geometric", initial_price=9.0))
    with pytest.raises(ValueError, match="terminal_penalty"):
        soft = jx.Liquidation(2e5, order().market, order().cost, 1e-6, terminal_penalty=1.0)
        jx.descend(soft, jx.objective)
