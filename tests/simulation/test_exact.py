"""Closed moments: those of the order, of Bertsimas and Lo, of a geometric price, and of functions of the speed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

STEPS = 8
RNG = np.random.default_rng(3)
VOLATILITY, VOLUME = 0.6 + 0.3 * RNG.random(STEPS), 4e6 * (1 + RNG.random(STEPS))
WEIGHTS = RNG.random(STEPS)
TRADES = 2e5 * WEIGHTS / WEIGHTS.sum()


def order(convention="continuous", permanent=2e-8, **changes):
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), VOLATILITY, VOLUME, permanent, 0.02, 0.01)
    return jx.Liquidation(2e5, market, jx.PowerLawCost(0.1, 0.6, 0.004), 1e-6, convention=convention, **changes)


@pytest.mark.parametrize("convention", ["continuous", "almgren-chriss"])
@pytest.mark.parametrize("kind", ["plain", "benchmark", "soft"])
def test_defaults_are_the_orders_own(convention, kind):
    changes = {"benchmark": np.linspace(2e5, 0, STEPS + 1) ** 2 / 2e5} if kind == "benchmark" else {}
    changes |= {"terminal_penalty": 1e-6} if kind == "soft" else {}
    # A power law is not convex with permanent impact within the step.
    problem = order(convention, 0.0 if convention == "almgren-chriss" else 2e-8, **changes)
    trades = TRADES * (0.7 if kind == "soft" else 1)
    found = jx.shortfall_moments(problem, trades)
    np.testing.assert_allclose(found.expected_cost, jx.expected_cost(problem, trades), rtol=1e-12)
    np.testing.assert_allclose(found.variance, jx.variance(problem, trades), rtol=1e-12)


def test_bertsimas_and_lo():
    """Executed after its own impact a schedule pays ½θ(X² + Σn²), and equal slices are the best of all."""
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 0.6, 4e6, 2e-8)
    problem = jx.Liquidation(2e5, market, jx.QuadraticCost(1e-12), 0.0)
    after = jx.PriceProcess(execution="after")

    def cost(trades):
        return jx.shortfall_moments(problem, trades, after).expected_cost

    np.testing.assert_allclose(cost(TRADES), 1e-8 * (4e10 + np.sum(TRADES**2)), rtol=1e-9)
    slopes = jax.grad(cost)(jnp.full(STEPS, 2e5 / STEPS))
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-9)
    before = jx.PriceProcess(execution="before")
    found = jx.shortfall_moments(problem, TRADES, before)
    np.testing.assert_allclose(found.expected_cost, 1e-8 * (4e10 - np.sum(TRADES**2)), rtol=1e-9)


def test_geometric_price_against_its_own_formula():
    """Without impact E[S_k] = S_0 e^{mk} and Cov(S_j, S_k) = E S_j E S_k (e^{v min(j, k)} − 1)."""
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 6.0, 4e6, 0.0, 1.5)
    problem = jx.Liquidation(2e5, market, jx.QuadraticCost(1e-12), 0.0, convention="almgren-chriss")
    found = jx.shortfall_moments(problem, TRADES, jx.PriceProcess("geometric", initial_price=20.0))
    k = np.arange(STEPS)
    mean = 20 * np.exp(1.5 / 20 * k / STEPS)
    np.testing.assert_allclose(found.expected_cost, 2e5 * 20 - TRADES @ mean, rtol=1e-9)
    covariance = np.outer(mean, mean) * np.expm1((6 / 20) ** 2 / STEPS * np.minimum.outer(k, k))
    np.testing.assert_allclose(found.variance, TRADES @ covariance @ TRADES, rtol=1e-11)


def test_functions_of_the_speed():
    """g = c v^a lowers the price by τ g; h = c v^a is paid a share."""
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 0.6, 4e6)
    problem = jx.Liquidation(2e5, market, jx.QuadraticCost(0.1), 0.0, convention="almgren-chriss")
    process = jx.PriceProcess(permanent=jx.PowerImpact(1e-5, 0.6), temporary=jx.PowerImpact(3e-5, 0.5))
    speed = TRADES * STEPS
    lowered = np.cumsum(1e-5 * speed**0.6 / STEPS)
    exact = TRADES @ np.append(0, lowered[:-1]) + TRADES @ (3e-5 * speed**0.5)
    np.testing.assert_allclose(jx.shortfall_moments(problem, TRADES, process).expected_cost, exact, rtol=1e-12)
    custom = jx.PriceProcess(
        permanent=jx.CustomImpact(lambda v, c: c * jnp.abs(v) ** 0.6 * jnp.sign(v), 1e-5),
        temporary=jx.CustomImpact(lambda v, c: c * jnp.sqrt(jnp.abs(v)) * jnp.sign(v), 3e-5),
    )
    found = jx.shortfall_moments(problem, TRADES, custom)
    np.testing.assert_allclose(found.expected_cost, exact, rtol=1e-12)
    resting = jax.grad(lambda n: jx.shortfall_moments(problem, n, custom).expected_cost)(jnp.zeros(STEPS))
    assert np.all(np.isfinite(resting))


def test_derivatives():
    trades = jnp.asarray(TRADES)

    def moments(x):
        price, coefficient, permanent, sigma = x
        market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), sigma, 4e6, permanent, 0.02)
        problem = jx.Liquidation(2e5, market, jx.PowerLawCost(0.1, 0.6), 0.0)
        process = jx.PriceProcess("geometric", initial_price=price, temporary=jx.PowerImpact(coefficient, 0.5))
        found = jx.shortfall_moments(problem, trades, process)
        return jnp.stack([found.expected_cost, jnp.sqrt(found.variance)])

    point = np.array([20.0, 3e-5, 2e-8, 6.0])
    forward, reverse = jax.jacfwd(moments)(jnp.asarray(point)), jax.jacrev(moments)(jnp.asarray(point))
    np.testing.assert_allclose(forward, reverse, rtol=1e-10, atol=1e-12)
    for i in range(4):
        step = np.eye(4)[i] * point * 1e-5
        numeric = (moments(jnp.asarray(point + step)) - moments(jnp.asarray(point - step))) / (2 * step[i])
        np.testing.assert_allclose(forward[:, i], numeric, rtol=1e-6, atol=1e-6)


def test_refusals():
    problem = order()
    noise = jx.MeanReverting(0.5)
    with pytest.raises(ValueError, match="volume_noise"):
        jx.shortfall_moments(problem, TRADES, jx.PriceProcess(volume_noise=noise))
    with pytest.raises(ValueError, match="variance_noise"):
        jx.shortfall_moments(problem, TRADES, jx.PriceProcess("geometric", initial_price=9.0, variance_noise=noise))
    for changes, message in (
        ({"form": "brownian"}, "form must be"),
        ({"form": "geometric"}, "initial_price is needed"),
        ({"execution": "noon"}, "execution must be"),
        ({"initial_price": -1.0}, "initial_price must be positive"),
        ({"permanent": 1.0}, "permanent must be"),
        ({"volume_noise": 0.5}, "volume_noise must be"),
    ):
        with pytest.raises(ValueError, match=message):
            jx.PriceProcess(**changes)
    with pytest.raises(ValueError, match="a benchmark needs an arithmetic price"):
        tracked = order(benchmark=np.zeros(STEPS + 1))
        jx.shortfall_moments(tracked, TRADES, jx.PriceProcess("geometric", initial_price=9.0))
    with pytest.raises(ValueError, match="correlation must be between"):
        jx.MeanReverting(0.5, correlation=1.5)
    with pytest.raises(ValueError, match="exponent must be positive"):
        jx.PowerImpact(1.0, 0.0)
    with pytest.raises(ValueError, match=r"parameters\['c'\] must be finite"):
        jx.CustomImpact(lambda v, p: p["c"] * v, {"c": np.nan})


def test_a_failed_lane_is_its_own():
    def of(volatility, scale):
        market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), volatility, VOLUME)
        problem = jx.Liquidation(2e5, market, jx.ParticipationCap(jx.QuadraticCost(0.1), 0.5), 1e-6)
        return jx.shortfall_moments(problem, TRADES * scale)

    sigma = jnp.array([0.6, jnp.nan, 0.6, -1.0])
    scale = jnp.array([1.0, 1.0, 50.0, 1.0])
    found = jax.jit(jax.vmap(of))(sigma, scale)
    bad = jx.Status.NONFINITE_INPUT
    assert found.status.tolist() == [jx.Status.OK, bad, jx.Status.INFEASIBLE, bad]
    assert np.isnan(found.variance).tolist() == [False, True, True, True]
    assert found.variance[0] == jax.jit(jax.vmap(of))(sigma[:1].repeat(4), scale[:1].repeat(4)).variance[0]

    def loss(sigma, masked):
        values = jax.vmap(of)(sigma, scale).variance
        return jnp.sum(jnp.where(jnp.arange(4) == 0, values, 0) if masked else values)

    masked, open_ = jax.grad(loss)(sigma, True), jax.grad(loss)(sigma, False)
    assert masked[1:].tolist() == [0, 0, 0]
    assert np.isfinite(masked[0])
    assert np.isnan(open_).tolist() == [False, True, True, True]


def test_what_cannot_go_together_is_refused():
    with pytest.raises(ValueError, match="terminal_penalty: what is settled"):
        jx.shortfall_moments(order(terminal_penalty=1e-6), TRADES, jx.PriceProcess(permanent=jx.PowerImpact(1e-5, 0.6)))
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), VOLATILITY, VOLUME)
    capped = jx.Liquidation(2e5, market, jx.ParticipationCap(jx.QuadraticCost(0.1), 0.5), 1e-6)
    with pytest.raises(ValueError, match="cannot keep a cap when volume is random"):
        jx.simulate(capped, TRADES, jx.PriceProcess(volume_noise=jx.MeanReverting(0.5)))
    with pytest.raises(ValueError, match="cost: a search by gradient cannot keep a cap"):
        jx.minimise(capped, jx.MeanVariance(1e-6))

    @jax.jit
    def traced(exponent):
        return jx.shortfall_moments(order(), TRADES, jx.PriceProcess(permanent=jx.PowerImpact(1e-5, exponent)))

    assert traced(0.6).status == jx.Status.OK
    assert traced(-1.0).status == jx.Status.NONFINITE_INPUT
