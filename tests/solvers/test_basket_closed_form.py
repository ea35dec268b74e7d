"""`solve` of baskets against the closed form of symmetric impact, and the relations of baskets (28 to 31)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

STEPS, HORIZON, WEIGHT = 6, 3.0, 1e-6
X, TARGET = np.array([1e6, -5e5, 2e5]), np.array([1e5, -2e5, 3e5])
COVARIANCE = np.array([[0.9, 0.5, 0.1], [0.5, 2.0, -0.3], [0.1, -0.3, 1.1]])
IMPACT = 1e-6 * np.array([[2.5, 0.3, 0.1], [0.3, 4.0, -0.2], [0.1, -0.2, 3.0]])
LASTING = 1e-7 * np.array([[2.5, 0.3, 0.0], [0.3, 4.0, 0.1], [0.0, 0.1, 2.0]])


def both(shares=X, target=0.0, covariance=COVARIANCE, impact=IMPACT, lasting=LASTING, weight=WEIGHT, spread=0.0):
    """The same question to the solver and to the closed form. All baskets are of one form, for one programme."""
    target = np.broadcast_to(np.asarray(target, float), shares.shape)
    own = np.diag(impact)
    market = jx.Market(jx.TimeGrid.uniform(HORIZON, STEPS), 0.0, 1.0)
    basket = jx.Basket(
        shares,
        market,
        [jx.QuadraticCost(h, np.float64(spread)) for h in own],
        covariance,
        cross_impact=impact - np.diag(own),
        risk_aversion=2 * weight,
        target=target,
        convention="almgren-chriss",
        permanent_impact=lasting,
    )
    closed = jx.symmetric_basket(
        shares,
        HORIZON,
        STEPS,
        covariance=covariance,
        temporary_impact=impact,
        permanent_impact=lasting,
        half_spread=spread,
        variance_weight=weight,
        target=target,
    )
    return basket, closed


def assert_same(basket, closed, atol=1e-6):
    found = jx.solve(basket, throw=True)
    assert closed.status == jx.Status.OK
    np.testing.assert_allclose(found.inventory, closed.inventory, rtol=1e-9, atol=atol)
    for name in ("expected_cost", "variance", "objective"):
        np.testing.assert_allclose(getattr(found, name), getattr(closed, name), rtol=1e-10, atol=1e-4, err_msg=name)
    return found


def random_matrix(rng, size, rank=3):
    root = rng.normal(size=(3, rank))
    return size * (root @ root.T) / np.max(np.abs(root @ root.T))


@pytest.mark.parametrize("seed", range(6))
def test_closed_form(seed):
    """Random impact, permanent impact and covariance of any rank; targets other than zero; from patient to urgent."""
    rng = np.random.default_rng(seed)
    impact = random_matrix(rng, 2e-6) + 1e-6 * np.eye(3)
    covariance = random_matrix(rng, 1.0, rank=(3, 3, 2, 2, 1, 1)[seed]) * (seed < 5)
    asked = both(
        1e6 * rng.normal(size=3),
        2e5 * rng.normal(size=3),
        covariance,
        impact,
        random_matrix(rng, 1e-7),
        10 ** rng.uniform(-8, -5),
    )
    assert_same(*asked)


def test_spread_of_one_sided_orders():
    together = both(np.array([1e6, 8e5, 8e5]), 0.0, COVARIANCE / 3 + np.eye(3), spread=0.05)
    assert_same(*together)


def test_marginal_prices_are_those_of_the_closed_form():
    basket, _ = both(target=TARGET)

    def objective(shares):
        matrices = {"covariance": COVARIANCE, "temporary_impact": IMPACT, "permanent_impact": LASTING}
        return jx.symmetric_basket(shares, HORIZON, STEPS, variance_weight=WEIGHT, target=TARGET, **matrices).objective

    priced = jx.liquidation_premium(basket)
    slope = jax.jit(jax.grad(objective))(X)
    np.testing.assert_allclose(priced.marginal + LASTING @ X, slope, rtol=1e-9)
    np.testing.assert_allclose(priced.discount - priced.premium, (X @ LASTING @ X - TARGET @ LASTING @ TARGET) / 2)


def test_perfect_hedge_of_two():
    """Relation 31: two equal assets of correlation 1, X = (a, −a): no risk at any weight, equal slices in both."""
    shares = np.array([3e5, -3e5, 0.0])
    covariance = np.array([[0.8, 0.8, 0.0], [0.8, 0.8, 0.0], [0.0, 0.0, 0.5]])
    impact = 1e-6 * np.array([[2.0, 0.4, 0.0], [0.4, 2.0, 0.0], [0.0, 0.0, 3.0]])
    for weight in (1e-7, 1e-4):
        basket, closed = both(shares, 0.0, covariance, impact, 0 * LASTING, weight)
        found = assert_same(basket, closed)
        np.testing.assert_allclose(found.trades, np.ones((STEPS, 1)) * shares / STEPS, rtol=1e-9, atol=1e-9)
        assert found.variance < 1e-6
    # Not so where one of the two is dearer to trade.
    dearer = impact + np.diag([0.0, 2e-6, 0.0])
    uneven = jx.solve(both(shares, 0.0, covariance, dearer, 0 * LASTING, 1e-4)[0])
    np.testing.assert_allclose(uneven.trades[:, :2], np.ones((STEPS, 1)) * shares[:2] / STEPS, rtol=1e-9)
    assert_same(*both(shares * [1, 2, 1], 0.0, covariance, dearer, 0 * LASTING, 1e-4))


@pytest.mark.parametrize("asked", ["no covariance", "no weight"])
def test_without_risk_all_trade_evenly(asked):
    nothing = {"covariance": 0 * COVARIANCE} if asked == "no covariance" else {"weight": 0.0}
    found = assert_same(*both(target=TARGET, **nothing))
    np.testing.assert_allclose(found.trades, np.ones((STEPS, 1)) * (X - TARGET) / STEPS, rtol=1e-9)


def test_congruence():
    """Relation 30 for any change of assets A: X → AX, H → A⁻ᵀHA⁻¹, Γ and C likewise, gives x → Ax at the same cost."""
    a = np.array([[1.0, 0.3, 0.0], [-0.2, 0.8, 0.5], [0.1, 0.0, 1.5]])
    back = np.linalg.inv(a)
    turned = both(a @ X, a @ TARGET, back.T @ COVARIANCE @ back, back.T @ IMPACT @ back, back.T @ LASTING @ back)
    found, plain = assert_same(*turned), jx.solve(both(target=TARGET)[0])
    np.testing.assert_allclose(found.inventory, plain.inventory @ a.T, rtol=1e-8, atol=1e-5)
    np.testing.assert_allclose(found.objective, plain.objective, rtol=1e-10)


def test_permutation_with_all_couplings():
    """Relation 29, with cross-impact, temporary and permanent, and targets."""
    order = np.array([2, 0, 1])
    swapped = [m[np.ix_(order, order)] for m in (COVARIANCE, IMPACT, LASTING)]
    found, plain = jx.solve(both(X[order], TARGET[order], *swapped)[0]), jx.solve(both(target=TARGET)[0])
    np.testing.assert_allclose(found.inventory, plain.inventory[:, order], rtol=1e-10, atol=1e-6)
    np.testing.assert_allclose(found.objective, plain.objective, rtol=1e-12)


def test_an_asset_that_is_not_there():
    """Relation 29: an independent one without an order, a target or a coupling stays out, whatever its own impact."""
    apart = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    shares, target = X * [1, 1, 0], TARGET * [1, 1, 0]
    found = assert_same(*both(shares, target, COVARIANCE * apart, IMPACT * apart, LASTING * apart))
    assert np.max(np.abs(found.inventory[:, 2])) == 0
    more = assert_same(*both(shares, target, COVARIANCE * apart * 7, IMPACT * apart, LASTING * apart, WEIGHT / 7))
    np.testing.assert_allclose(more.inventory, found.inventory, rtol=1e-9, atol=1e-6)
    pair = jx.symmetric_basket(
        shares[:2],
        HORIZON,
        STEPS,
        covariance=COVARIANCE[:2, :2],
        temporary_impact=IMPACT[:2, :2],
        permanent_impact=LASTING[:2, :2],
        variance_weight=WEIGHT,
        target=target[:2],
    )
    np.testing.assert_allclose(found.inventory[:, :2], pair.inventory, rtol=1e-9, atol=1e-6)


def test_uncoupled_assets_are_single_orders():
    """Relation 28, against Almgren and Chriss's closed form of each."""
    apart = np.eye(3)
    found = assert_same(*both(X, 0.0, COVARIANCE * apart, IMPACT * apart, LASTING * apart))
    total = 0.0
    for i in range(3):
        single = jx.almgren_chriss(
            X[i],
            HORIZON,
            STEPS,
            volatility=np.sqrt(COVARIANCE[i, i]),
            temporary_impact=IMPACT[i, i],
            permanent_impact=LASTING[i, i],
            variance_weight=WEIGHT,
        )
        np.testing.assert_allclose(found.inventory[:, i], single.inventory, rtol=1e-9, atol=1e-6)
        total += float(single.objective)
    np.testing.assert_allclose(found.objective, total, rtol=1e-11)


def test_an_antisymmetric_part_is_refused():
    """Of either impact: concrete by a ValueError, traced by a status."""
    skew = np.array([[0, 1.0, 0], [-1.0, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="permanent_impact must be symmetric"):
        both(lasting=LASTING + 1e-8 * skew)
    with pytest.raises(ValueError, match="cross_impact must be symmetric"):
        both(impact=IMPACT + 1e-7 * skew)
    basket, _ = both()
    for where in (lambda b: b.permanent_impact, lambda b: b.cross_impact):
        twisted = eqx.tree_at(where, basket, where(basket) + jnp.asarray(1e-8 * skew))
        assert jx.solve(twisted).status == jx.Status.NONCONVEX
