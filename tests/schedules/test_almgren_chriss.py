"""Almgren and Chriss's closed form against a dense solve on both sides of zero risk aversion, and its derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

X, T, SIGMA, ETA, GAMMA, EPS = 1e6, 5.0, 0.95, 2.5e-6, 2.5e-7, 0.0625


@functools.partial(jax.jit, static_argnames="steps")
def closed(weight, drift=0.0, steps=5, volatility=SIGMA, temporary_impact=ETA, permanent_impact=GAMMA, half_spread=EPS):
    given = {"temporary_impact": temporary_impact, "permanent_impact": permanent_impact, "half_spread": half_spread}
    return jx.almgren_chriss(X, T, steps, volatility=volatility, variance_weight=weight, drift=drift, **given)


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


NAMES = ("shares", "horizon", "volatility", "temporary_impact", "permanent_impact", "half_spread", "weight", "drift")
UNITS = np.array([X, T, SIGMA, ETA, GAMMA, EPS, 1e-6, 0.02])


def all_numbers(point):
    """E, Var, U, κ, 1/κ and the half-life, each about 1, of parameters over what the example has."""
    p = dict(zip(NAMES, point * UNITS, strict=True))
    given = {name: p[name] for name in NAMES[2:6]}
    s = jx.almgren_chriss(p["shares"], p["horizon"], 5, **given, variance_weight=p["weight"], drift=p["drift"])
    money = jnp.stack([s.expected_cost / 1e6, s.variance / 1e12, s.objective / 1e6])
    return jnp.concatenate([money, jnp.stack([s.kappa, s.time_constant, s.half_life])])


VALUES = jax.jit(all_numbers)
MODES = [jax.jit(mode(all_numbers)) for mode in (jax.jacfwd, jax.jacrev)]


@pytest.mark.parametrize("steps", [5, 50])
@pytest.mark.parametrize("weight", [-3e-7, -1e-8, -1e-11, 0.0, 1e-12, 1e-9, 2.2e-8, 1e-7, 1e-6, 1e-4, 1e-2])
def test_against_a_dense_solve(weight, steps):
    np.testing.assert_allclose(closed(weight, 0.02, steps).inventory[1:-1], dense(weight, 0.02, steps), atol=1e-7)


def test_a_published_case():
    """Negative λ: 717 958.104273 and 1.58421071e12 in the reference; zero λ is a straight line."""
    np.testing.assert_allclose(closed(-2e-7).expected_cost, 717958.104273, rtol=1e-11)
    np.testing.assert_allclose(closed(-2e-7).variance, 1.58421071e12, rtol=1e-8)
    np.testing.assert_allclose(closed(0.0).inventory, X * (1 - np.arange(6) / 5), rtol=1e-14)
    np.testing.assert_allclose(closed(0.0).expected_cost, 662500, rtol=1e-14)
    assert closed(0.0).time_constant == np.inf


def test_time_constant_elasticities():
    """Elasticities of 1/κ with respect to λ, σ and η at λ = 1e-6 in the paper's case."""
    point = np.ones(8)
    found = MODES[0](point)[4] / VALUES(point)[4]
    np.testing.assert_allclose(found[np.array([6, 2, 3])], [-0.4852, -0.9704, 0.5107], atol=5e-5)


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
    single = jax.jit(lambda x, t, w: jx.almgren_chriss(x, t, 5, variance_weight=w, **f32))(
        jnp.float32(X), jnp.float32(T), jnp.float32(2e-6)
    )
    assert single.inventory.dtype == jnp.float32
    exact = closed(2e-6, permanent_impact=0.0, half_spread=0.0)
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
        closed.__wrapped__(1e-6, **changes)


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


@pytest.mark.parametrize("name", ["ac_A", "ac_u", "ac_A_sigma_exact", "ac_drift_u"])
def test_references(references, name):
    wanted, p = references[name], references[name]["params"]
    sigma = 0.3 * 50 / np.sqrt(250) if isinstance(p["sig"], str) else p["sig"]
    s = jx.almgren_chriss(
        p["X"],
        float(p["T"]),
        p["N"],
        volatility=sigma,
        temporary_impact=p["eta"],
        permanent_impact=p["gam"],
        half_spread=p["eps"],
        variance_weight=p["lam"],
        drift=p.get("alpha", 0.0),
    )
    fields = {"inventory": "x", "trades": "n", "expected_cost": "E", "variance": "V", "objective": "U"}
    # What the references, and the paper, call half-life is 1/κ.
    for field, key in (fields | {"kappa": "kappa_real", "time_constant": "half_life"}).items():
        np.testing.assert_allclose(getattr(s, field), wanted[key], rtol=2e-15, err_msg=field)
    np.testing.assert_allclose(s.half_life, np.log(2) * wanted["half_life"], rtol=1e-15)


def problem(horizon=T, steps=5):
    """The paper's example as an order: η of a quadratic cost is theirs times the volume."""
    market = jx.Market(jx.TimeGrid.uniform(horizon, steps), SIGMA, 5e6, permanent_impact=GAMMA)
    return jx.Liquidation(X, market, jx.QuadraticCost(ETA * 5e6, EPS), 0.0, convention="almgren-chriss")


def test_equal_slices_and_all_at_once(references):
    """E and Var in closed form, the references, and `twap` and `immediate` of the same order: one number each."""
    order, tau = problem(), T / 5
    net = ETA - GAMMA * tau / 2
    slices, at_once = jx.twap(order), jx.immediate(order)
    even = GAMMA / 2 * X**2 + EPS * X + net * X**2 / T, SIGMA**2 * T * X**2 * 4 * 9 / (6 * 5**2)
    now = EPS * X + ETA * X**2 / tau, 0.0
    for trades, wanted, name in ((slices, even, "ac_twap"), (at_once, now, "ac_instant")):
        found = jx.expected_cost(order, trades), jx.variance(order, trades)
        np.testing.assert_allclose(found, wanted, rtol=1e-14)
        np.testing.assert_allclose(found, [references[name]["E"], references[name]["V"]], rtol=1e-14)
    np.testing.assert_allclose([closed(0.0).expected_cost, closed(0.0).variance], even, rtol=1e-14)
    alone = closed(1e-6, steps=1)
    np.testing.assert_allclose([alone.expected_cost, alone.variance], [EPS * X + ETA * X**2 / T, 0], rtol=1e-14)


@pytest.mark.parametrize("steps", [2, 5, 50])
def test_up_to_the_limit_of_negative_weights(steps):
    """A minimum exists while θT < π, cos θτ = 1 + κ̃²τ²/2: the least eigenvalue of the dense system decides too."""
    tau = T / steps
    limit = 2 * (np.cos(np.pi / steps) - 1) / tau**2 * (ETA - GAMMA * tau / 2) / SIGMA**2
    for part, rtol in ((0.5, 1e-12), (0.99, 1e-11), (0.999999, 2e-7)):
        s = closed(part * limit, 0.02, steps)
        assert s.status == jx.Status.OK
        wanted = dense(part * limit, 0.02, steps)
        np.testing.assert_allclose(s.inventory[1:-1], wanted, atol=rtol * np.abs(wanted).max())
        assert s.kappa == 0 and s.half_life == np.inf
    for part in (1.000001, 1.5, 100.0):
        s = closed(part * limit, 0.02, steps)
        assert s.status == jx.Status.NONCONVEX
        assert np.isnan(s.inventory).all() and np.isnan(s.objective) and np.isnan(s.half_life)


@pytest.mark.parametrize("weight", [-0.2, -1e-5, 0.0, 0.02, 1.0, 1e7])
def test_derivatives_with_respect_to_everything(weight):
    """Forward, reverse and differences, on both sides of λ = 0, at it, and where κT is a hundred."""
    point = np.ones(8)
    point[6] = weight
    forward, reverse = (np.asarray(mode(point)) for mode in MODES)
    sizes = np.maximum(np.abs(np.where(np.isfinite(VALUES(point)), VALUES(point), 1)), 1)[:, None]
    np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-11)
    assert np.isfinite(forward).all()
    # The envelope theorem: dU/dλ = Var, at λ = 0 too.
    # At λ = 1e7 the sum dE + λ dVar that should vanish is of terms a million times Var.
    np.testing.assert_allclose(forward[2, 6] * 1e12, VALUES(point)[1] * 1e12, rtol=1e-9 if weight > 1e6 else 1e-10)
    for i in range(8):
        step = 1e-5 * max(abs(point[i]), 1e-2) * (np.arange(8) == i)
        rows = slice(0, 3) if weight <= 0 else slice(0, 6)  # κ is a root: below and at λ = 0 it is 0
        numeric = (VALUES(point + step)[rows] - VALUES(point - step)[rows]) / (2 * step[i])
        assert np.all(np.abs(forward[rows, i] - numeric) < 2e-8 * sizes[rows, 0] / max(abs(point[i]), 1e-2)), NAMES[i]


def test_failed_lanes_are_zero_where_masked():
    """The derivative of a masked lane is 0 for the parameters that lanes share as well, in float32 too."""
    weights, horizons = [1e-6, -1e-5, -1e-3, np.nan, 1e-6, 1e-6], [T, T, T, T, -T, np.nan]
    for dtype in (np.float64, np.float32):

        def loss(weights, horizons, sigma, masked, dtype=dtype):
            def one(w, t):
                given = {"temporary_impact": dtype(ETA), "permanent_impact": dtype(GAMMA), "variance_weight": w}
                return jx.almgren_chriss(dtype(X), t, 5, volatility=sigma, **given)

            s = jax.vmap(one)(weights, horizons)
            return jnp.sum(jnp.where((s.status == jx.Status.OK) | ~masked, s.objective, 0)), s.status

        both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
        point = np.asarray(weights, dtype), np.asarray(horizons, dtype), dtype(SIGMA)
        (_, status), masked = both(*point, True)
        np.testing.assert_array_equal(status, [0, *[jx.Status.NONCONVEX] * 2, *[jx.Status.NONFINITE_INPUT] * 3])
        unmasked = both(*point, False)[1]
        for x, y in zip(masked[:2], unmasked[:2], strict=True):
            np.testing.assert_array_equal(x[1:], 0)
            assert np.isfinite(x[0]) and np.isnan(y[1:]).all()
        assert np.isfinite(masked[2]) and np.isnan(unmasked[2])
