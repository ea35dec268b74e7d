"""Almgren and Chriss's closed form against a dense solve on both sides of zero risk aversion, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

X, T, SIGMA, ETA, GAMMA, EPS = 1e6, 5.0, 0.95, 2.5e-6, 2.5e-7, 0.0625


def closed(variance_weight, drift=0.0, steps=5, **changes):
    arguments = {
        "volatility": SIGMA,
        "temporary_impact": ETA,
        "permanent_impact": GAMMA,
        "half_spread": EPS,
        "variance_weight": variance_weight,
        "drift": drift,
    }
    return jx.almgren_chriss(X, T, steps, **(arguments | changes))


def dense(variance_weight, drift, steps):
    """The first-order conditions λσ²τ x − (η̃/τ) δ²x = ατ/2 as a dense system."""
    tau = T / steps
    net = ETA - GAMMA * tau / 2
    n = steps - 1
    matrix = 2 * net / tau * (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))
    matrix += 2 * variance_weight * SIGMA**2 * tau * np.eye(n)
    right = np.full(n, drift * tau)
    right[0] += 2 * net / tau * X
    return np.linalg.solve(matrix, right)


@pytest.mark.parametrize("steps", [5, 50])
@pytest.mark.parametrize("weight", [-3e-7, -1e-8, -1e-11, 0.0, 1e-12, 1e-9, 2.2e-8, 1e-7, 1e-6, 1e-4, 1e-2])
def test_against_a_dense_solve(weight, steps):
    np.testing.assert_allclose(closed(weight, 0.02, steps).inventory[1:-1], dense(weight, 0.02, steps), atol=1e-7)


@pytest.mark.parametrize("weight", [-1e-7, 0.0, 2e-8, 1e-6])
def test_derivatives(weight):
    def of(w, sigma, alpha):
        return closed(w, alpha, 5, volatility=sigma).objective

    point = (weight, SIGMA, 0.02)
    slopes = jax.grad(of, argnums=(0, 1, 2))(*point)
    forward = jax.jacfwd(of, argnums=(0, 1, 2))(*point)
    for i, step in enumerate((1e-10, 1e-5, 1e-6)):
        up, down = list(point), list(point)
        up[i] += step
        down[i] -= step
        numeric = (of(*up) - of(*down)) / (2 * step)
        np.testing.assert_allclose(slopes[i], numeric, rtol=2e-6, atol=1e-9 * abs(float(of(*point))))
        np.testing.assert_allclose(slopes[i], forward[i], rtol=1e-10)
    # The envelope theorem: dU/dλ = Var, at λ = 0 too.
    np.testing.assert_allclose(slopes[0], closed(weight, 0.02).variance, rtol=1e-10)


def test_a_published_case():
    """Negative λ: 717 958.104273 and 1.58421071e12 in the reference; zero λ is a straight line."""
    np.testing.assert_allclose(closed(-2e-7).expected_cost, 717958.104273, rtol=1e-11)
    np.testing.assert_allclose(closed(-2e-7).variance, 1.58421071e12, rtol=1e-8)
    np.testing.assert_allclose(closed(0.0).inventory, X * (1 - np.arange(6) / 5), rtol=1e-14)
    np.testing.assert_allclose(closed(0.0).expected_cost, 662500, rtol=1e-14)
    assert closed(0.0).time_constant == np.inf


def test_time_constant_elasticities():
    """Elasticities of 1/κ with respect to λ, σ and η at λ = 1e-6 in the paper's case."""

    def log_time(w, sigma, eta):
        return jnp.log(closed(w, volatility=sigma, temporary_impact=eta).time_constant)

    point = (1e-6, SIGMA, ETA)
    slopes = jax.grad(log_time, argnums=(0, 1, 2))(*point)
    elasticities = [float(g) * v for g, v in zip(slopes, point, strict=True)]
    np.testing.assert_allclose(elasticities, [-0.4852, -0.9704, 0.5107], atol=5e-5)


def test_large_urgency_does_not_overflow():
    schedule = closed(10.0, 0.02, 50)
    assert np.all(np.isfinite(np.asarray(schedule.inventory)))
    assert float(schedule.inventory[1]) < 0.01 * X
    tail = np.asarray(closed(10.0, 0.0, 50).inventory)
    kappa = float(closed(10.0, 0.0, 50).kappa)
    np.testing.assert_allclose(tail[1:-2] / tail[:-3], np.exp(-kappa * T / 50), rtol=1e-9)
    assert 0 < tail[-2] < 1e-60


def test_too_negative_is_not_convex():
    failed = closed(-1e-5)
    assert failed.status == jx.Status.NONCONVEX
    assert np.all(np.isnan(np.asarray(failed.inventory)))


def test_under_vmap_and_float32():
    weights = jnp.asarray([0.0, 1e-6, 2e-6])
    together = jax.vmap(closed)(weights)
    np.testing.assert_allclose(together.inventory[2], closed(2e-6).inventory, rtol=1e-13)
    f32 = {k: np.float32(v) for k, v in {"volatility": SIGMA, "temporary_impact": ETA}.items()}
    single = jx.almgren_chriss(jnp.float32(X), jnp.float32(T), 5, variance_weight=jnp.float32(2e-6), **f32)
    assert single.inventory.dtype == jnp.float32
    exact = jx.almgren_chriss(X, T, 5, variance_weight=2e-6, volatility=SIGMA, temporary_impact=ETA)
    np.testing.assert_allclose(single.inventory, exact.inventory, rtol=2e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporary_impact": 0.0}, "temporary_impact must be positive"),
        ({"temporary_impact": 1e-7}, "temporary_impact − ½ permanent_impact"),
        ({"volatility": -1.0}, "volatility must be at least 0"),
        ({"half_spread": np.nan}, "half_spread must be finite"),
        ({"drift": [1.0]}, "drift must be a scalar"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        closed(1e-6, **changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shares", np.nan),
        ("shares", np.inf),
        ("horizon", -5.0),
        ("horizon", np.nan),
        ("volatility", -0.95),
        ("variance_weight", np.nan),
    ],
)
def test_traced_faults_are_a_status(name, value):
    @jax.jit
    def solve(shares, horizon, volatility, variance_weight):
        return jx.almgren_chriss(
            shares, horizon, 5, volatility=volatility, temporary_impact=ETA, variance_weight=variance_weight
        )

    good = {"shares": X, "horizon": T, "volatility": SIGMA, "variance_weight": 1e-6}
    assert solve(**good).status == jx.Status.OK
    failed = solve(**(good | {name: value}))
    assert failed.status == jx.Status.NONFINITE_INPUT
    assert np.all(np.isnan(np.asarray(failed.inventory)))
    assert np.isnan(float(failed.objective))
