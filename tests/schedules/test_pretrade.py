"""The pre-trade cost of 2005 against references and the rounded published example; the order that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

IBM = {"volume": 6.561e6, "shares_outstanding": 1.728e9, "volatility": 0.0157}
DRI = {"volume": 1.929e6, "shares_outstanding": 1.68e8, "volatility": 0.0226}


def test_references(references):
    names = [name for name in references if name.startswith("almgren05")]
    assert len(names) == 3
    for name in names:
        wanted, p = references[name], references[name]["params"]
        given = {"volatility": p["sigma"], "volume": p["V"], "shares_outstanding": p["Theta"]}
        found = jx.almgren_2005(p["X_over_V"] * p["V"], p["T"], gamma=p["gamma"], eta=p["eta"], **given)
        np.testing.assert_allclose(found.permanent_impact, wanted["I"], rtol=1e-12)
        np.testing.assert_allclose(found.temporary_impact, wanted["K"], rtol=1e-12)
        np.testing.assert_allclose(found.realised_cost, wanted["J"], rtol=1e-12)
        assert found.status == jx.Status.OK


@pytest.mark.parametrize(("stock", "permanent", "realised"), [(IBM, 20, (32, 25, 18)), (DRI, 22, (43, 32, 23))])
def test_the_papers_example(stock, permanent, realised):
    """A tenth of the daily volume of two stocks in 0.1, 0.2 and 0.5 days, whole basis points; quoted from memory."""
    for days, wanted in zip((0.1, 0.2, 0.5), realised, strict=True):
        found = jx.almgren_2005(0.1 * stock["volume"], days, **stock)
        assert round(1e4 * float(found.permanent_impact)) == permanent
        assert round(1e4 * float(found.realised_cost)) == wanted


def test_sides_currency_and_exponents():
    order = (2e5, 0.2)
    sale, purchase = (jx.almgren_2005(side * order[0], order[1], **IBM) for side in (1, -1))
    for field in ("permanent_impact", "temporary_impact", "realised_cost"):
        assert getattr(sale, field) > 0
        np.testing.assert_array_equal(getattr(purchase, field), -getattr(sale, field))
    np.testing.assert_array_equal(purchase.expected_cost, sale.expected_cost)
    # In currency the volatility is the price's times as large, and so is the cost; fractions stay.
    priced = jx.almgren_2005(*order, **(IBM | {"volatility": 80 * 0.0157}), price=80.0)
    np.testing.assert_allclose(priced.realised_cost, sale.realised_cost, rtol=1e-14)
    np.testing.assert_allclose(priced.expected_cost, 80 * 2e5 * sale.realised_cost, rtol=1e-14)
    rate = 2e5 / (6.561e6 * 0.2)
    curved = jx.almgren_2005(*order, **IBM, permanent_exponent=0.9, turnover_exponent=0.3, temporary_exponent=0.5)
    moved = 0.314 * 0.0157 * 0.2 * rate**0.9 * (1.728e9 / 6.561e6) ** 0.3
    np.testing.assert_allclose(curved.permanent_impact, moved, rtol=1e-14)
    np.testing.assert_allclose(curved.temporary_impact, 0.142 * 0.0157 * rate**0.5, rtol=1e-14)


def test_the_order_that_it_stands_for_costs_as_much():
    """A constant rate in a market of constant volume; and what the solver, which may vary it, finds best at γ = 0."""
    stock = IBM | {"volatility": 80 * 0.0157}
    cost, permanent = jx.almgren_2005_model(**stock)
    grid = jx.TimeGrid.uniform(0.2, 12)
    market = jx.Market(grid, stock["volatility"], stock["volume"], permanent_impact=permanent)
    order = jx.Liquidation(6e5, market, cost, 0.0)
    wanted = jx.almgren_2005(6e5, 0.2, **stock, price=80.0).expected_cost
    np.testing.assert_allclose(jx.expected_cost(order, jx.twap(order)), wanted, rtol=1e-13)
    np.testing.assert_allclose(jx.solve(order, throw=True).expected_cost, wanted, rtol=1e-9)
    wide, _ = jx.almgren_2005_model(**stock, half_spread=0.01)
    spread = jx.Liquidation(6e5, market, wide, 0.0)
    np.testing.assert_allclose(jx.expected_cost(spread, jx.twap(spread)) - wanted, 0.01 * 6e5, rtol=1e-11)


NAMES = ("volatility", "volume", "shares_outstanding", "price", "gamma", "eta")
EXPONENTS = ("permanent_exponent", "turnover_exponent", "temporary_exponent")


def test_derivatives():
    point = np.array([2e5, 0.2, 1.2, 6.561e6, 1.728e9, 80.0, 0.314, 0.142, 1.0, 0.25, 0.6])

    def of(logs):
        shares, horizon, *rest = jnp.exp(logs) * point
        given = dict(zip((*NAMES, *EXPONENTS), rest, strict=True))
        found = jx.almgren_2005(-shares, horizon, **given)
        model = {name: given[name] for name in ("volatility", "volume", "shares_outstanding", "gamma", "eta")}
        cost, permanent = jx.almgren_2005_model(**model, turnover_exponent=rest[-2], temporary_exponent=rest[-1])
        fractions = jnp.stack([found.permanent_impact, found.temporary_impact, found.realised_cost]) * 1e3
        return jnp.append(fractions, jnp.stack([found.expected_cost / 1e4, cost.eta, cost.phi, 1e7 * permanent]))

    at, values = np.zeros(11), jax.jit(of)
    forward, reverse = (jax.jit(mode(of))(at) for mode in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, reverse, rtol=1e-12, atol=1e-14)
    for i in range(11):
        step = 1e-5 * (np.arange(11) == i)
        numeric = (values(step) - values(-step)) / 2e-5
        np.testing.assert_allclose(forward[:, i], numeric, rtol=1e-7, atol=1e-9)


def test_at_rest():
    """No shares: linear permanent impact has its slope there, the power of the rest none that is a number: 0."""
    slopes = jax.jit(jax.jacfwd(lambda x: jx.almgren_2005(x, 0.2, **IBM)))(0.0)
    wanted = 0.314 * 0.0157 / 6.561e6 * (1.728e9 / 6.561e6) ** 0.25
    np.testing.assert_allclose(slopes.permanent_impact, wanted, rtol=1e-14)
    assert slopes.temporary_impact == 0 and slopes.expected_cost == 0


def test_single_precision_and_faults():
    single = jx.almgren_2005(np.float32(2e5), np.float32(0.2), **IBM)
    assert single.realised_cost.dtype == jnp.float32
    np.testing.assert_allclose(single.realised_cost, jx.almgren_2005(2e5, 0.2, **IBM).realised_cost, rtol=1e-6)
    for changes, message in (
        ({"volume": 0.0}, "volume must be positive"),
        ({"temporary_exponent": 0.0}, "temporary_exponent must be positive"),
        ({"volatility": np.ones(3)}, "volatility must be a scalar"),
        ({"eta": -1.0}, "eta must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            jx.almgren_2005(1.0, 1.0, **(IBM | changes))
    with pytest.raises(ValueError, match="eta must be positive"):
        jx.almgren_2005_model(**IBM, eta=0.0)

    def loss(horizons, masked):
        found = jax.vmap(lambda days: jx.almgren_2005(2e5, days, **IBM))(horizons)
        return jnp.sum(jnp.where((found.status == jx.Status.OK) | ~masked, found.expected_cost, 0)), found

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, found), masked = both(np.array([0.2, -1.0]), True)
    np.testing.assert_array_equal(found.status, [jx.Status.OK, jx.Status.NONFINITE_INPUT])
    assert np.isnan(found.realised_cost[1]) and masked[0] < 0 and masked[1] == 0
    assert np.isnan(both(np.array([0.2, -1.0]), False)[1][1])
