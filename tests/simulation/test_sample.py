"""Paths that are kept obey the definition of the shortfall; samples agree with them and differentiate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

STEPS = 12


def order(permanent=2e-8, convention="continuous", **changes):
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 0.6, 4e6, permanent, 0.02)
    return jx.Liquidation(2e5, market, jx.PowerLawCost(0.1, 0.6, 0.004), 1e-6, convention=convention, **changes)


@pytest.mark.parametrize(
    "process",
    [
        jx.PriceProcess(),
        jx.PriceProcess("geometric", "after", initial_price=20.0, permanent=jx.PowerImpact(1e-5, 0.6)),
        jx.PriceProcess(variance_noise=jx.MeanReverting(0.5, 3.0, 0.4), volume_noise=jx.MeanReverting(0.4, 2.0)),
    ],
    ids=["plain", "geometric", "noisy"],
)
def test_shortfall_is_what_the_order_was_worth_less_what_it_earned(process):
    trades = np.asarray(jx.front_loaded(order())) * 0.9  # a tenth is left and worth its price
    found = jx.price_paths(order(), trades, process, paths=64)
    start, left = 20.0, 2e5 - trades.sum()
    earned = (start + found.execution_price_change) @ trades + left * (start + found.price_change[:, -1])
    np.testing.assert_allclose(found.shortfall, 2e5 * start - earned, rtol=1e-10, atol=1e-5)
    np.testing.assert_array_equal(found.price_change[:, 0], 0)
    assert np.all(found.execution_cost > 0)
    assert found.plot() is not None


def test_the_arithmetic_price_is_its_recursion():
    """S_k − S_{k−1} = ατ + σ√τ ξ_k − κ n_k: shocks recovered from two schedules are the same."""
    problem = order(convention="almgren-chriss", permanent=0.0)
    one, two = (jx.price_paths(problem, n, paths=64, seed=3) for n in (jx.twap(problem), jx.front_loaded(problem)))
    np.testing.assert_array_equal(one.price_change, two.price_change)
    shocks = (np.diff(one.price_change) - 0.02 / STEPS) / (0.6 * np.sqrt(1 / STEPS))
    assert abs(shocks.mean()) < 4 / np.sqrt(64 * STEPS)
    assert abs(shocks.var() - 1) < 4 * np.sqrt(2 / (64 * STEPS))


def test_samples():
    problem, trades = order(), jx.twap(order())
    losses = jx.shortfalls(problem, trades, paths=1001, antithetic=False)
    assert losses.shape == (1001,)
    deviation = float(jnp.sqrt(jx.variance(problem, trades)))
    assert abs(losses.mean() - jx.expected_cost(problem, trades)) < 4 * deviation / 1001**0.5
    mirrored = jx.shortfalls(problem, trades, paths=1000)
    assert mirrored.shape == (1000,)
    np.testing.assert_allclose(mirrored.mean(), jx.expected_cost(problem, trades), rtol=1e-9)
    slope = jax.grad(lambda n: jnp.var(jx.shortfalls(problem, n, paths=1000)))(trades)
    step = 1.0
    direction = jnp.eye(STEPS)[2]
    numeric = [jnp.var(jx.shortfalls(problem, trades + s * step * direction, paths=1000)) for s in (1, -1)]
    np.testing.assert_allclose(slope[2], (numeric[0] - numeric[1]) / (2 * step), rtol=1e-6)
    with pytest.raises(ValueError, match="paths must be a positive integer"):
        jx.shortfalls(problem, trades, paths=0)
