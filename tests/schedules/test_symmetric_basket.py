"""The closed form of baskets: references, dense solves, single orders, derivatives where eigenvalues meet, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

X, TARGET = np.array([1e6, -5e5, 2e5]), np.array([1e5, 0.0, 3e5])
COVARIANCE = np.array([[0.9, 0.5, 0.1], [0.5, 2.0, -0.3], [0.1, -0.3, 1.1]])
IMPACT = 1e-6 * np.array([[2.5, 0.3, 0.1], [0.3, 4.0, -0.2], [0.1, -0.2, 3.0]])
LASTING = 1e-7 * np.array([[2.5, 0.3, 0.0], [0.3, 4.0, 0.1], [0.0, 0.1, 2.0]])
SPREAD = np.array([0.06, 0.1, 0.02])


def closed(weight=1e-6, **changes):
    arguments = {
        "covariance": COVARIANCE,
        "temporary_impact": IMPACT,
        "permanent_impact": LASTING,
        "half_spread": SPREAD,
        "target": TARGET,
        "variance_weight": weight,
    }
    return jx.symmetric_basket(X, 4.0, 8, **arguments | changes)


def test_reference(references):
    wanted = references["ac_multi_sym"]
    p = {k: np.asarray(v, float) for k, v in wanted["params"].items()}
    found = jx.symmetric_basket(
        p["X"],
        p["T"],
        int(p["N"]),
        covariance=p["C"],
        temporary_impact=p["H"],
        permanent_impact=p["Gamma"],
        half_spread=p["eps"],
        variance_weight=p["lam"],
    )
    np.testing.assert_allclose(found.inventory, wanted["x"], rtol=1e-12, atol=1e-8)
    np.testing.assert_allclose(found.expected_cost, wanted["E"], rtol=1e-13)
    np.testing.assert_allclose(found.variance, wanted["V"], rtol=1e-13)
    np.testing.assert_allclose(found.kappas, np.sort(wanted["kappas"]), rtol=1e-13)


@pytest.mark.parametrize("weight", [0.0, 1e-12, 1e-6, 1e-4, 1.0])
@pytest.mark.parametrize("covariance", [COVARIANCE, np.outer([1.0, 0.5, -1.0], [1.0, 0.5, -1.0]), np.zeros((3, 3))])
def test_against_a_dense_solve(weight, covariance):
    """The first-order conditions, for a full, a singular and no covariance; the costs by their definitions."""
    found, tau, n = closed(weight, covariance=covariance), 0.5, 7
    net = IMPACT - tau / 2 * LASTING
    second = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    system = np.kron(second, net) + np.kron(np.eye(n), tau**2 * weight * covariance)
    right = np.zeros((n, 3))
    right[0] += net @ X
    right[-1] += net @ TARGET
    inner = np.linalg.solve(system, right.ravel()).reshape(n, 3)
    np.testing.assert_allclose(found.inventory[1:-1], inner, rtol=1e-9, atol=1e-6)
    nodes = np.concatenate([X[None], inner, TARGET[None]])
    trades = nodes[:-1] - nodes[1:]
    # A trade lowers the price by Γn of all that is held after it.
    lasting = sum(nodes[k + 1] @ LASTING @ trades[k] for k in range(8))
    cost = np.sum(SPREAD * np.abs(trades).sum(0)) + np.einsum("ki,ij,kj", trades, IMPACT / tau, trades) + lasting
    np.testing.assert_allclose(found.expected_cost, cost, rtol=1e-9)
    np.testing.assert_allclose(found.variance, tau * np.einsum("ki,ij,kj", nodes[1:], covariance, nodes[1:]), rtol=1e-9)


def test_one_asset_is_a_single_order():
    scalars = {"variance_weight": 1e-6, "half_spread": 0.0625}
    single = jx.almgren_chriss(
        1e6, 5.0, 5, volatility=0.95, temporary_impact=2.5e-6, permanent_impact=2.5e-7, **scalars
    )
    matrices = {"covariance": [[0.95**2]], "temporary_impact": [[2.5e-6]], "permanent_impact": [[2.5e-7]]}
    basket = jx.symmetric_basket(np.array([1e6]), 5.0, 5, **{k: np.array(v) for k, v in matrices.items()}, **scalars)
    np.testing.assert_allclose(basket.inventory[:, 0], single.inventory, rtol=1e-12)
    for name in ("expected_cost", "variance", "objective"):
        np.testing.assert_allclose(getattr(basket, name), getattr(single, name), rtol=1e-13)
    np.testing.assert_allclose(basket.kappas[0], single.kappa, rtol=1e-13)
    once = jx.symmetric_basket(np.array([1e6]), 5.0, 1, **{k: np.array(v) for k, v in matrices.items()}, **scalars)
    np.testing.assert_allclose(once.trades, [[1e6]])


@jax.jit
def mixed(inputs):
    covariance, impact, lasting, weight, horizon, shares, target = inputs
    found = jx.symmetric_basket(
        shares,
        horizon,
        8,
        covariance=(covariance + covariance.T) / 2,
        temporary_impact=(impact + impact.T) / 2,
        permanent_impact=(lasting + lasting.T) / 2,
        half_spread=SPREAD,
        variance_weight=weight,
        target=target,
    )
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(9, 3)))
    numbers = [found.objective, found.variance, jnp.sum(weights * found.inventory), jnp.sum(found.kappas)]
    return jnp.stack(numbers)


POINTS = {
    "apart": (COVARIANCE, IMPACT, LASTING, 1e-6, 4.0, X, TARGET),
    "equal": (np.eye(3) * 0.9, np.eye(3) * 2.5e-6, np.zeros((3, 3)), 1e-6, 4.0, X, TARGET),
}


@pytest.mark.parametrize("name", POINTS)
def test_derivatives(name):
    """Reverse = forward = difference in a random direction of all inputs; three equal κ are nothing special."""
    point, rng = tuple(map(jnp.asarray, POINTS[name])), np.random.default_rng(2)
    scales = (1.0, 1e-6, 1e-7, 1e-6, 1.0, 1e5, 1e5)
    along = tuple(jnp.asarray(0.1 * s * rng.normal(size=v.shape)) for s, v in zip(scales, point, strict=True))
    rows = jax.jit(jax.jacrev(mixed))(point)
    reverse = sum(jnp.sum(g * v[None], tuple(range(1, g.ndim))) for g, v in zip(rows, along, strict=True))
    value, forward = jax.jit(lambda p, v: jax.jvp(mixed, (p,), (v,)))(point, along)
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)

    def at(k):
        return np.asarray(mixed(tuple(x + k * 1e-3 * v for x, v in zip(point, along, strict=True))))

    numeric = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / 12e-3
    np.testing.assert_allclose(forward / value, numeric / value, rtol=1e-7)


def test_a_hedge_with_a_spread_is_said_to_be_inexact():
    """An asset that is not ordered is sold and bought back, and would be traded less if the spread were seen."""
    for spread, status in ((0.0, jx.Status.OK), (0.01, jx.Status.OK_INACCURATE)):
        found = jx.symmetric_basket(
            np.array([1e6, 0.0]),
            4.0,
            8,
            covariance=np.array([[1.0, 0.8], [0.8, 1.0]]),
            temporary_impact=np.eye(2) * 2e-6,
            variance_weight=1e-6,
            half_spread=spread,
        )
        assert found.status == status
        assert np.min(found.inventory[:, 1]) < -1e4


def test_float32():
    single = {k: np.asarray(v, np.float32) for k, v in {"covariance": COVARIANCE, "temporary_impact": IMPACT}.items()}
    single |= {"permanent_impact": np.float32(LASTING), "half_spread": np.float32(SPREAD), "target": np.float32(TARGET)}
    found = jx.symmetric_basket(np.float32(X), np.float32(4), 8, variance_weight=np.float32(1e-6), **single)
    assert found.inventory.dtype == jnp.float32
    np.testing.assert_allclose(found.inventory, closed().inventory, atol=1e-5 * 1e6)
    np.testing.assert_allclose(found.objective, closed().objective, rtol=1e-5)


def test_refuses():
    skew = np.array([[0, 1.0, 0], [-1.0, 0, 0], [0, 0, 0]])
    for name, value, message in (
        ("covariance", COVARIANCE + skew, "covariance.*must be symmetric"),
        ("permanent_impact", LASTING + 1e-8 * skew, "permanent_impact.*must be symmetric"),
        ("permanent_impact", 20 * IMPACT, "must be positive definite"),
        ("covariance", -COVARIANCE, "positive semidefinite"),
        ("temporary_impact", np.eye(2), r"shape \(3, 3\)"),
        ("half_spread", np.array([0.1, -0.1, 0.1]), r"half_spread\[1\]"),
        ("target", np.ones(2), "target"),
    ):
        with pytest.raises(ValueError, match=message):
            closed(**{name: value})
    with pytest.raises(ValueError, match="shares"):
        jx.symmetric_basket(1.0, 1.0, 1, covariance=1.0, temporary_impact=1.0, variance_weight=0.0)
    slopes = jax.jit(jax.grad(lambda inputs: mixed(inputs)[0]))
    for place, bad in ((0, -COVARIANCE), (1, -IMPACT), (4, -1.0), (5, X * np.nan)):
        point = [jnp.asarray(v) for v in POINTS["apart"]]
        point[place] = jnp.asarray(bad)
        assert np.all(np.isnan(mixed(tuple(point))))
        assert all(np.all(np.isnan(g)) for g in slopes(tuple(point)))
