"""The best answer to correlated price changes, against the exact optimum over all linear strategies and simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

HORIZON, SIGMA, ETA, PERMANENT = 1.2, 0.95, 2.5e-6, 2.5e-7


def closed(correlation, steps, **changes):
    given = {"volatility": SIGMA, "temporary_impact": ETA, "permanent_impact": PERMANENT} | changes
    return jx.serial_correlation(HORIZON, steps, correlation=correlation, **given)


def exact(correlation, steps):
    """Best n_k = X/N + Σ_{i<k} L_ki D_i of all strictly lower L whose columns sum to 0: gain, and L.

    A quadratic in L: temporary cost η̃/τ E Σ n², less what waiting brings, E Σ n_k (D_1 + … + D_{k−1}); the changes D
    have covariance σ²τ ρ^{|i−j|}. Solved as one dense system with multipliers.
    """
    tau = HORIZON / steps
    net = ETA - PERMANENT * tau / 2
    lags = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
    covariance = SIGMA**2 * tau * correlation**lags
    free = [(k, i) for k in range(steps) for i in range(k)]
    bend, pull = np.zeros((len(free), len(free))), np.zeros(len(free))
    for a, (k, i) in enumerate(free):
        pull[a] = covariance[i, :k].sum()
        for b, (other, j) in enumerate(free):
            bend[a, b] = 2 * net / tau * covariance[i, j] * (k == other)
    sums = np.array([[float(i == column) for _, i in free] for column in range(steps - 1)])
    zero = np.zeros((steps - 1, steps - 1))
    solution = np.linalg.solve(np.block([[bend, sums.T], [sums, zero]]), np.append(pull, np.zeros(steps - 1)))
    best = solution[: len(free)]
    loadings = np.zeros((steps, steps))
    for x, (k, i) in zip(best, free, strict=True):
        loadings[k, i] = x
    return pull @ best - best @ bend @ best / 2, loadings


def loadings_of(response):
    """What each trade becomes, by past price changes, when x_k/(N − k) − response · D_k is followed."""
    steps = len(response)
    held, loadings = np.zeros(steps), np.zeros((steps, steps))
    for k in range(steps):
        loadings[k] = held / (steps - k)
        if k:
            loadings[k, k - 1] -= response[k]
        held = held - loadings[k]
    return loadings


@pytest.mark.parametrize("steps", [3, 4, 8])
@pytest.mark.parametrize("correlation", [-0.6, 0.05, 0.4, 0.9])
def test_against_the_exact_optimum(correlation, steps):
    found, (gain, loadings) = closed(correlation, steps), exact(correlation, steps)
    np.testing.assert_allclose(found.gain, gain, rtol=1e-11)
    np.testing.assert_allclose(loadings_of(np.asarray(found.response)), loadings, atol=1e-10 * np.abs(loadings).max())
    assert found.status == jx.Status.OK and found.gain > 0


def test_short_orders_and_no_correlation_gain_nothing():
    for steps in (1, 2):
        assert closed(0.5, steps).gain == 0
        np.testing.assert_array_equal(closed(0.5, steps).response, np.zeros(steps))
    assert closed(0.0, 8).gain == 0 and closed(0.0, 8).gain_per_step == 0


def test_long_orders_and_small_correlations():
    """A step more of a long order gains ρ²σ²τ²/4η̃(1 − ρ)²; for small ρ an order of N gains (N − 1 − Σ1/k) of them."""
    tau = 1e-3
    by_steps = [
        jx.serial_correlation(n * tau, n, volatility=SIGMA, temporary_impact=ETA, correlation=0.3) for n in (1600, 1601)
    ]
    step = 0.3**2 * SIGMA**2 * tau**2 / (4 * ETA * 0.7**2)
    np.testing.assert_allclose(by_steps[1].gain_per_step, step, rtol=1e-13)
    np.testing.assert_allclose(by_steps[1].gain - by_steps[0].gain, step, rtol=2e-3)
    small = jx.serial_correlation(HORIZON, 12, volatility=SIGMA, temporary_impact=ETA, correlation=1e-6)
    harmonic = np.sum(1 / np.arange(1, 12))
    np.testing.assert_allclose(small.gain / small.gain_per_step, 11 - harmonic, rtol=1e-5)
    # Shifts from one step to the next alone, c D_k shares, cost 2(η/τ)c²σ²τ(1 − ρ) and bring ρσ²τc: half as much.
    neighbours = 1e-6**2 * SIGMA**2 * (HORIZON / 12) ** 2 / (8 * ETA * (1 - 1e-6))
    np.testing.assert_allclose(neighbours / small.gain_per_step, 0.5, rtol=1e-5)


def test_simulated_saving():
    """Mean saving of 40 000 simulated orders over equal slices within 4 standard errors."""
    steps, rho, orders = 8, 0.5, 40_000
    tau = HORIZON / steps
    found = closed(rho, steps)
    rng = np.random.default_rng(11)
    shocks = np.empty((orders, steps))
    shocks[:, 0] = rng.normal(size=orders)
    for k in range(1, steps):
        shocks[:, k] = rho * shocks[:, k - 1] + np.sqrt(1 - rho**2) * rng.normal(size=orders)
    changes = SIGMA * np.sqrt(tau) * shocks
    prices = np.concatenate([np.zeros((orders, 1)), np.cumsum(changes, axis=1)[:, :-1]], axis=1)

    def shortfall(trades):
        """Temporary impact η n²/τ, permanent impact on later trades, and the price as it went."""
        sold = np.cumsum(trades, axis=1) - trades
        return np.sum(ETA / tau * trades**2 + PERMANENT * trades * sold - trades * prices, axis=1)

    shares, held = 1e5, np.full(orders, 1e5)
    trades = np.empty((orders, steps))
    for k in range(steps):
        trades[:, k] = held / (steps - k) - (float(found.response[k]) * changes[:, k - 1] if k else 0)
        held = held - trades[:, k]
    np.testing.assert_allclose(held, 0, atol=1e-6)
    saving = shortfall(np.full((orders, steps), shares / steps)) - shortfall(trades)
    assert abs(saving.mean() - float(found.gain)) < 4 * saving.std() / np.sqrt(orders)
    assert saving.std() / np.sqrt(orders) < 0.03 * float(found.gain)


def test_derivatives():
    point = np.array([HORIZON, SIGMA, ETA * 1e6, PERMANENT * 1e6, 0.3])

    def of(p):
        given = {"volatility": p[1], "temporary_impact": p[2] / 1e6, "permanent_impact": p[3] / 1e6}
        s = jx.serial_correlation(p[0], 6, correlation=p[4], **given)
        return jnp.append(s.response / 1e5, jnp.stack([s.gain, s.gain_per_step]) / 1e4)

    values = jax.jit(of)
    modes = [jax.jit(mode(of)) for mode in (jax.jacfwd, jax.jacrev)]
    for rho in (0.3, 0.0):
        at = np.append(point[:4], rho)
        forward, reverse = (mode(at) for mode in modes)
        np.testing.assert_allclose(forward, reverse, rtol=1e-12, atol=1e-14)
        for i in range(5):
            step = 1e-5 * (np.arange(5) == i)
            numeric = (values(at + step) - values(at - step)) / 2e-5
            np.testing.assert_allclose(forward[:, i], numeric, rtol=1e-7, atol=1e-9)


def test_single_precision_and_faults():
    single = jx.serial_correlation(
        np.float32(1.2), 8, volatility=np.float32(SIGMA), temporary_impact=np.float32(ETA), correlation=np.float32(0.5)
    )
    assert single.response.dtype == single.gain.dtype == jnp.float32
    np.testing.assert_allclose(single.gain, closed(0.5, 8, permanent_impact=0.0).gain, rtol=2e-6)
    for changes, message in (
        ({"correlation": 1.0}, "correlation must be between"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"temporary_impact": 0.0}, "temporary_impact must be positive"),
        ({"permanent_impact": 1.0}, "temporary_impact − ½ permanent_impact"),
    ):
        with pytest.raises(ValueError, match=message):
            closed(**({"correlation": 0.5, "steps": 8} | changes))

    def loss(rho, eta, masked):
        s = jax.vmap(lambda r, e: closed(r, 4, temporary_impact=e))(rho, eta)
        return jnp.sum(jnp.where((s.status == jx.Status.OK) | ~masked, s.gain, 0)), s

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    rho, eta = np.array([0.5, 1.0, 0.5, np.nan]), np.array([ETA, ETA, 1e-9, ETA])
    (_, s), masked = both(rho, eta, True)
    wanted = [jx.Status.OK, jx.Status.NONFINITE_INPUT, jx.Status.NONCONVEX, jx.Status.NONFINITE_INPUT]
    np.testing.assert_array_equal(s.status, wanted)
    assert np.isnan(s.gain[1:]).all() and np.isnan(s.response[1:]).all()
    _, unmasked = both(rho, eta, False)
    for x, y in zip(masked, unmasked, strict=True):
        np.testing.assert_array_equal(x[1:], 0)
        assert np.isfinite(x[0]) and np.isnan(y[1:]).all()
