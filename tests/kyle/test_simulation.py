"""What the equilibrium promises, drawn: nobody is fooled, market makers break even, and leaving it earns nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

PATHS = 400_000
NOISE = np.array([1.0, 2.0, 0.5, 1.0])


@functools.cache
def equilibrium(preference="local", gamma=1.5, rho=0.0, m=1):
    return jx.kyle.solve(2.0, NOISE, 4, gamma, preference, rho, m)


def within(sample, expected, errors=4.0):
    sample = np.asarray(sample)
    return abs(sample.mean() - expected) <= errors * sample.std() / np.sqrt(len(sample))


@pytest.mark.parametrize(("rho", "m"), [(0.0, 1), (0.0, 3), (0.8, 1)])
def test_paths_keep_what_the_equilibrium_promises(rho, m):
    e = equilibrium(rho=rho, m=m)
    p = jx.kyle.simulate(e, PATHS, 7)
    assert within(p.market_maker_profit, float(e.market_maker_profit))
    assert within(p.insider_profit, float(e.expected_profit))
    total = m * np.asarray(p.insider_profit) + np.asarray(p.market_maker_profit) + np.asarray(p.noise_profit)
    np.testing.assert_allclose(total, 0, atol=1e-10)
    flow, gap = np.asarray(p.order_flow), np.asarray(p.value)[:, None] - np.asarray(p.estimate)
    for t in range(4):
        # The estimate is a martingale that leaves nothing to learn from any order flow so far, and leaves Σ_t unknown.
        for earlier in range(t + 1):
            assert within(gap[:, t] * flow[:, earlier], 0.0)
        assert within(gap[:, t] ** 2, float(e.posterior_variance[t]))
    passing = np.asarray(p.price) - np.asarray(p.estimate)
    np.testing.assert_allclose(passing, np.asarray(e.transitory_impact) * flow, atol=1e-12)


@pytest.mark.parametrize(
    ("preference", "rho", "m"), [("local", 0.0, 1), ("cara", 0.0, 1), ("local", 0.7, 3), ("cara", 0.7, 2)]
)
def test_no_linear_deviation_is_worth_more(preference, rho, m):
    e = equilibrium(preference, rho=rho, m=m)
    worth = jax.jit(lambda b: jx.kyle.deviate(e, b).value)
    here = jx.kyle.deviate(e, e.intensity)
    np.testing.assert_allclose([here.value, here.expected_profit], [e.value, e.expected_profit], rtol=1e-13)
    np.testing.assert_allclose(jax.grad(worth)(e.intensity), 0, atol=1e-13)
    assert np.all(np.linalg.eigvalsh(jax.hessian(worth)(e.intensity)) < 0)
    rng = np.random.default_rng(0)
    others = np.asarray(e.intensity) * np.exp(rng.normal(0, 1, (2000, 4))) * rng.choice([1, 1, 1, -1], (2000, 4))
    assert np.all(np.asarray(jax.vmap(worth)(others)) < float(e.value))


@pytest.mark.parametrize("preference", ["local", "cara"])
def test_no_single_trade_of_any_size_is_worth_more(preference):
    """Bellman's equation by quadrature, on a grid of trades and of what is known: x_t = β_t g is the best there is."""
    e = equilibrium(preference)
    g = 0.75
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    for t in range(4):
        s, lam = NOISE[t], float(e.price_impact[t])
        later = (float(e.value_curvature[t + 1]), float(e.value_constant[t + 1])) if t < 3 else (0.0, 0.0)
        for gap in (-2.0, 0.3, 1.7):
            x = float(e.intensity[t]) * gap + np.linspace(-3, 3, 121)
            u = np.sqrt(s) * nodes
            profit = x[:, None] * (gap - lam * (x[:, None] + u))
            left = later[0] * (gap - lam * (x[:, None] + u)) ** 2 + later[1]
            if preference == "local":
                mean = profit @ weights
                worth = mean - g * ((profit - mean[:, None]) ** 2 @ weights) + left @ weights
            else:
                worth = -np.log(np.exp(-2 * g * (profit + left)) @ weights) / (2 * g)
            assert np.argmax(worth) == 60
            here = float(e.value_curvature[t]) * gap**2 + float(e.value_constant[t])
            assert worth[60] == pytest.approx(here, rel=1e-9)


def test_no_nonlinear_strategy_earns_more():
    """Risk-neutral, on the same draws: bluffing, waiting, bounded and convex strategies all earn less."""
    e = equilibrium(gamma=0.0)
    beta = e.intensity

    def earns(strategy):
        return np.asarray(jx.kyle.simulate(e, PATHS, 3, strategy).insider_profit)

    base = earns(None)
    for strategy in (
        lambda t, gap, price: beta[t] * gap * jnp.where(t == 0, -1.0, 1.0),  # a bluff
        lambda t, gap, price: beta[t] * gap * jnp.where(t < 2, 0.0, 1.0),  # wait
        lambda t, gap, price: beta[t] * jnp.clip(gap, -1.0, 1.0),
        lambda t, gap, price: beta[t] * gap * jnp.abs(gap),
        lambda t, gap, price: beta[t] * (gap - 0.3 * price),
    ):
        less = base - earns(strategy)
        assert less.mean() > 4 * less.std() / np.sqrt(PATHS)


def test_derivatives_pass_through_paths():
    def mean(gamma):
        e = jx.kyle.solve(2.0, NOISE, 4, gamma, "local", 0.0, 1.0)
        return jnp.mean(jx.kyle.simulate(e, 1000, 1).insider_profit)

    slope = jax.jit(jax.grad(mean))(1.0)
    assert slope == pytest.approx(float(mean(1 + 1e-4) - mean(1 - 1e-4)) / 2e-4, rel=1e-6)


def test_a_failed_equilibrium_leaves_a_masked_sum_its_derivatives():
    def loss(prior, gamma, mask):
        def worth(p):
            e = jx.kyle.solve(p, NOISE, 4, gamma, "local", 0.0, 1.0)
            drawn = jnp.mean(jx.kyle.simulate(e, 8).insider_profit)
            return drawn + jx.kyle.deviate(e, jnp.full(4, 0.3)).value

        return jnp.sum(jnp.where(mask, jax.vmap(worth)(prior), 0.0))

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1)))
    prior = jnp.array([1.0, jnp.nan])
    by_prior, by_gamma = slopes(prior, 0.5, jnp.array([True, False]))
    assert np.isfinite(by_gamma) and np.isfinite(by_prior[0]) and by_prior[1] == 0
    by_prior, _ = slopes(prior, 0.5, jnp.array([True, True]))
    assert np.isfinite(by_prior[0]) and np.isnan(by_prior[1])


def test_numbers_stay_in_the_precision_of_the_equilibrium():
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == float else x, equilibrium())
    assert jx.kyle.deviate(single, np.ones(4)).value.dtype == jnp.float32
    assert jx.kyle.simulate(single, 4, 0, lambda t, gap, price: 1.0).trades.shape == (4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: jx.kyle.simulate(e, 0), "paths must be a positive integer"),
        (lambda e: jx.kyle.simulate(e, 5, 1.5), "seed must be an integer or a JAX key"),
        (lambda e: jx.kyle.simulate(e, 5, 2**70), "seed must be an integer of 64 bits"),
        (lambda e: jx.kyle.simulate(e, 5, 0, lambda t, g, p: g[:2]), r"strategy must return shares of shape \(5,\)"),
        (lambda e: jx.kyle.deviate(e, np.ones(3)), r"intensity must have shape \(4,\)"),
        (lambda e: jx.kyle.deviate(e, np.array([1.0, 1.0, np.nan, 1.0])), r"intensity\[2\] must be finite"),
        (lambda e: jx.kyle.deviate(jax.tree.map(lambda x: x[None], e), np.ones((1, 4))), "must be one, got a batch"),
        (lambda e: jx.kyle.simulate(jax.tree.map(lambda x: x[None], e), 5), "must be one, got a batch"),
        (lambda e: jax.tree.map(lambda x: x[None], e).table(), r"must be one, got a batch \(1,\); pick one"),
        (lambda e: jax.tree.map(lambda x: x[None], e).plot(), r"must be one, got a batch \(1,\); pick one"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(equilibrium())
