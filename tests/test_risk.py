"""Risk measures: normal formulas against quadrature, samples against their definitions, derivatives, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import jaxexec as jx

MEASURES = [
    jx.MeanVariance(2e-2),
    jx.ExponentialUtility(2e-2),
    jx.MeanDeviation(1.3),
    jx.ValueAtRisk(0.9),
    jx.ConditionalValueAtRisk(0.9),
]
LOSSES = np.random.default_rng(1).normal(10.0, 15.0, 100_000)


def by_definition(measure):
    law = stats.norm(10.0, 15.0)
    if isinstance(measure, jx.ExponentialUtility):
        gamma = float(measure.risk_aversion)
        whole = integrate.quad(lambda c: np.exp(gamma * c) * law.pdf(c), -200, 250)[0]
        return np.log(whole) / gamma
    if isinstance(measure, jx.ConditionalValueAtRisk):
        at = law.ppf(measure.level)
        return integrate.quad(lambda c: c * law.pdf(c), at, 250)[0] / (1 - measure.level)
    if isinstance(measure, jx.ValueAtRisk):
        return law.ppf(measure.level)
    return 10 + (2e-2 / 2 * 225 if isinstance(measure, jx.MeanVariance) else 1.3 * 15)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: type(m).__name__)
def test_contract(measure):
    exact = by_definition(measure)
    np.testing.assert_allclose(measure.of_normal(jnp.asarray(10.0), jnp.asarray(225.0)), exact, rtol=1e-9)
    np.testing.assert_allclose(measure.of_sample(jnp.asarray(LOSSES)), exact, atol=0.3)
    # Moves with the cost, and is its value where it is certain.
    some = jnp.asarray(LOSSES[:101])
    np.testing.assert_allclose(measure.of_sample(some + 7.0), measure.of_sample(some) + 7.0, rtol=1e-9)
    np.testing.assert_allclose(measure.of_sample(jnp.full(101, 3.0)), 3.0, rtol=1e-9)
    np.testing.assert_allclose(measure.of_normal(jnp.asarray(3.0), jnp.asarray(0.0)), 3.0)
    slope = jax.grad(measure.of_sample)(some)
    np.testing.assert_allclose(jnp.sum(slope), 1.0, rtol=1e-9)
    up, down = (measure.of_sample(some.at[4].add(s)) for s in (1e-4, -1e-4))
    np.testing.assert_allclose(slope[4], (up - down) / 2e-4, rtol=1e-5, atol=1e-9)
    assert measure.of_sample(some.astype(jnp.float32)).dtype == jnp.float32


def test_tail_mean_is_exact_where_the_level_cuts_a_path():
    losses = jnp.array([3.0, 1.0, 4.0, 1.0, 5.0])
    np.testing.assert_allclose(jx.ConditionalValueAtRisk(0.7).of_sample(losses), (5 + 0.5 * 4) / 1.5)
    np.testing.assert_allclose(jx.ConditionalValueAtRisk(0.6).of_sample(losses), 4.5)


def test_exponential_utility_through_zero():
    """At γ = 0 it is the mean, with derivative Var/2; large γ overflows nothing."""
    losses = jnp.asarray(LOSSES[:1000])

    def of(gamma):
        return jx.ExponentialUtility(gamma).of_sample(losses)

    np.testing.assert_allclose(of(0.0), losses.mean())
    np.testing.assert_allclose(jax.grad(of)(0.0), losses.var() / 2, rtol=1e-12)
    edge = 1e-4 / float(jnp.max(jnp.abs(losses - losses.mean())))
    np.testing.assert_allclose(of(edge * 0.999), of(edge * 1.001), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(of)(edge * 0.999), jax.grad(of)(edge * 1.001), rtol=1e-5)
    np.testing.assert_allclose(of(1e4), losses.max(), rtol=1e-3)
    single = losses.astype(jnp.float32)
    reach = float(jnp.max(jnp.abs(losses - losses.mean())))
    for y in (1e-3, 1.9e-2, 2.1e-2, 0.3, 0.99, 1.01, 5.0):
        premium = jx.ExponentialUtility(np.float32(y / reach)).of_sample(single) - single.mean()
        np.testing.assert_allclose(premium, of(y / reach) - losses.mean(), rtol=2e-3, atol=2e-5)


def test_bad_input():
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        jx.ValueAtRisk(95)
    with pytest.raises(ValueError, match="risk_aversion must be finite and at least 0"):
        jx.MeanVariance(-1.0)
    with pytest.raises(ValueError, match="deviation_weight must be a scalar"):
        jx.MeanDeviation([1.0, 2.0])
