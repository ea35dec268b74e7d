"""Impact estimates on arrays: against statsmodels, exact cases, failures, derivatives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf
from scipy.stats import norm
from statsmodels.stats.stattools import durbin_watson

from jaxexec.impact import COEFFICIENTS, estimates, expected_sign, glosten_harris_arrays
from jaxexec.numerics.status import Flag, Status
from tests.impact import simulated_stocks as simulate

LENGTHS = (60, 333, 512)
VALUES = ("coefficients", "std_errors", "covariance", "t", "intercept", "r2", "order_flow", "order_flow_std")


def estimate(*stocks: simulate.Stock, **options):
    return glosten_harris_arrays(*simulate.batch(list(stocks)), **options)


def first(*stocks, **options):
    """Estimates of the first stock."""
    return jax.tree.map(lambda x: x[0], estimate(*stocks, **options))


@pytest.fixture(scope="module")
def stocks():
    return [simulate.stock(n, seed) for seed, n in enumerate(LENGTHS)]


@pytest.mark.parametrize(
    ("form", "covariance"), [("difference", "hac"), ("difference", "hc0"), ("difference", "ols"), ("level", "hac")]
)
def test_equals_statsmodels_for_every_stock_of_a_batch(stocks, form, covariance):
    result = estimate(*stocks, form=form, covariance=covariance)
    for i, s in enumerate(stocks):
        order_flow, fit = simulate.reference(s, form, covariance)
        np.testing.assert_allclose(result.order_flow[i], order_flow.params, rtol=1e-9)
        np.testing.assert_allclose(result.order_flow_std[i], order_flow.scale**0.5, rtol=1e-9)
        np.testing.assert_allclose(result.coefficients[i], fit.params[1:], rtol=1e-9)
        np.testing.assert_allclose(result.intercept[i], fit.params[0], rtol=1e-9)
        np.testing.assert_allclose(result.std_errors[i], fit.bse[1:], rtol=1e-9)
        np.testing.assert_allclose(result.covariance[i], fit.cov_params()[1:, 1:], rtol=1e-8)
        np.testing.assert_allclose(result.t[i], fit.tvalues[1:], rtol=1e-9)
        np.testing.assert_allclose(result.r2[i], fit.rsquared, rtol=1e-9)
        np.testing.assert_allclose(result.durbin_watson[i], durbin_watson(fit.resid), rtol=1e-9)
        assert int(result.n[i]) == fit.nobs
        z = fit.model.exog[:, 1:] - fit.model.exog[:, 1:].mean(0)
        np.testing.assert_allclose(result.condition[i], np.linalg.cond(z / np.linalg.norm(z, axis=0)), rtol=1e-6)


def test_lags_of_ones_own(stocks):
    result = first(stocks[1], lags=40)
    np.testing.assert_allclose(result.std_errors, simulate.reference(stocks[1], maxlags=40).fit.bse[1:], rtol=1e-9)
    assert first(stocks[0], lags=40).status == Status.OK
    assert first(simulate.stock(45, 3), lags=40).status == Status.INSUFFICIENT_DATA


def test_no_lags_is_white(stocks):
    """Relation 48."""
    white, none = first(stocks[1], covariance="hc0"), first(stocks[1], lags=0)
    np.testing.assert_allclose(none.covariance, white.covariance, rtol=1e-12)


def test_expected_sign_uses_the_distribution_function():
    """Erratum 7: the thesis prints the density."""
    np.testing.assert_allclose(expected_sign(jnp.asarray(150.0), jnp.asarray(300.0)), 0.382924922548, atol=5e-13)
    flow = jnp.asarray(np.concatenate([[0.0], np.linspace(-3000, 3000, 4001)]))
    np.testing.assert_allclose(expected_sign(flow, jnp.asarray(300.0)), erf(flow / 300 / 2**0.5), atol=2e-14)
    slope = jax.vmap(jax.grad(expected_sign), (0, None))(flow, jnp.asarray(300.0))
    np.testing.assert_allclose(slope, 2 * norm.pdf(flow / 300) / 300, rtol=1e-12)


def test_noise_free_data_return_the_truth():
    """Relation 54: prices made from the fitted order flow itself, without noise."""
    s = simulate.stock(333, 3)
    x, _, _ = simulate.columns(s)
    change = np.concatenate([np.zeros(5), x[:, 1:] @ simulate.TRUTH + 1e-4])
    result = first(s._replace(price=np.cumsum(change)))
    np.testing.assert_allclose(result.coefficients, simulate.TRUTH, rtol=1e-10)
    np.testing.assert_allclose(result.intercept, 1e-4, rtol=1e-9)
    np.testing.assert_allclose(result.r2, 1, rtol=1e-12)
    assert result.status == Status.OK
    assert (result.std_errors < 1e-12).all()


def test_currency_and_share_units(stocks):
    """Relations 41 and 42."""
    s = stocks[1]
    one, dear, split = first(s), first(s._replace(price=100 * s.price)), first(s._replace(size=2 * s.size))
    per_share = np.array([1.0, 2.0, 1.0, 2.0])
    np.testing.assert_allclose(dear.coefficients, 100 * one.coefficients, rtol=1e-10)
    np.testing.assert_allclose(dear.std_errors, 100 * one.std_errors, rtol=1e-10)
    np.testing.assert_allclose(dear.t, one.t, rtol=1e-9)
    np.testing.assert_allclose(dear.r2, one.r2, rtol=1e-10)
    np.testing.assert_allclose(split.coefficients, one.coefficients / per_share, rtol=1e-9)
    np.testing.assert_allclose(split.std_errors, one.std_errors / per_share, rtol=1e-9)


def test_buyers_and_sellers_relabelled(stocks):
    """Relation 51."""
    s = stocks[1]
    one, mirrored = first(s), first(s._replace(price=-s.price, sign=-s.sign))
    np.testing.assert_allclose(mirrored.coefficients, one.coefficients, rtol=1e-12)
    np.testing.assert_allclose(mirrored.std_errors, one.std_errors, rtol=1e-12)


def test_permutation_of_stocks_and_other_stocks_change_nothing(stocks):
    """Relation 45."""
    together, turned = estimate(*stocks), estimate(*stocks[::-1])
    alone = glosten_harris_arrays(*stocks[1])
    for name in VALUES:
        ours = np.asarray(getattr(together, name))[:3]
        np.testing.assert_allclose(ours[1], getattr(alone, name), rtol=1e-10, err_msg=name)
        np.testing.assert_allclose(ours, np.asarray(getattr(turned, name))[2::-1], rtol=1e-12, err_msg=name)


def failing():
    """One stock of 400 trades for each way to fail, and its status."""
    s = simulate.stock(400, 9)
    nan = s.price.copy()
    nan[77] = np.nan
    mask = np.ones(400, bool)
    short = np.arange(400) < 11
    half = np.where(np.arange(400) % 2 == 0, 1.0, -1.0)
    return [
        (s._replace(price=nan), mask, Status.NONFINITE_INPUT),
        (s._replace(size=-s.size), mask, Status.NONFINITE_INPUT),
        (s._replace(sign=s.sign / 2), mask, Status.NONFINITE_INPUT),
        (s, short, Status.INSUFFICIENT_DATA),
        (s, ~mask, Status.INSUFFICIENT_DATA),
        (s._replace(sign=np.ones(400)), mask, Status.RANK_DEFICIENT),
        (s._replace(size=np.full(400, 100.0)), mask, Status.RANK_DEFICIENT),
        (s._replace(size=np.full(400, 100.0), sign=half), mask, Status.RANK_DEFICIENT),
        (s._replace(size=np.zeros(400)), mask, Status.RANK_DEFICIENT),
        (s._replace(size=100 + 1e-7 * s.size), mask, Status.ILL_CONDITIONED),
    ]


def test_failed_lanes_are_nan_with_a_status_and_leave_their_neighbours_alone():
    """Faults 40, 41."""
    good = simulate.stock(400, 1)
    cases = failing()
    price, size, sign, mask = simulate.batch([good, *(s for s, _, _ in cases), good])
    mask[1:-1, :400] = [m for _, m, _ in cases]
    result, healthy = glosten_harris_arrays(price, size, sign, mask), estimate(*[good] * 12)
    assert [Status(int(s)) for s in result.status] == [Status.OK, *(c for _, _, c in cases), Status.OK]
    for name in VALUES:
        assert np.isnan(np.asarray(getattr(result, name))[1:-1]).all(), name
        for lane in (0, -1):
            assert np.array_equal(getattr(result, name)[lane], getattr(healthy, name)[lane]), name
    assert result.condition[6] == np.inf


def test_shortest_stock_that_can_be_estimated():
    """Relation 55 (refusal is monotone): twelve trades are enough, and more always are."""
    s = simulate.stock(17, 21)
    status = estimate(*(simulate.Stock(*(x[:n] for x in s)) for n in range(6, 18))).status
    assert status.tolist() == [Status.INSUFFICIENT_DATA] * 6 + [Status.OK] * 6


def test_a_gap_in_the_mask_separates_days():
    days = [simulate.stock(200, 5), simulate.stock(150, 6)]
    gap = np.full(45, np.nan)
    joined = simulate.Stock(*(np.concatenate([a, gap, b]) for a, b in zip(*days, strict=True)))
    price, size, sign, mask = simulate.batch([joined])
    result = glosten_harris_arrays(price, size, sign, mask & np.isfinite(price), lags=40)
    fit = pooled(days, 40)
    np.testing.assert_allclose(result.coefficients[0], fit.params[1:], rtol=1e-9)
    np.testing.assert_allclose(result.std_errors[0], fit.bse[1:], rtol=1e-9)


def pooled(days, maxlags):
    """statsmodels over several days: pooled regressions, lags within a day (cov_type "hac-panel")."""
    import statsmodels.api as sm

    flows = [s.sign * s.size for s in days]
    order_flow = sm.OLS(
        np.concatenate([f[5:] for f in flows]), sm.add_constant(np.concatenate([simulate.lags(f) for f in flows]))
    ).fit()
    parts = [simulate.design(s, order_flow.params, order_flow.scale**0.5) for s in days]
    groups = np.repeat(np.arange(len(days)), [len(y) for _, y in parts])
    options = {"groups": groups, "maxlags": maxlags, "use_correction": False}
    model = sm.OLS(np.concatenate([y for _, y in parts]), np.concatenate([x for x, _ in parts]))
    return model.fit(cov_type="hac-panel", cov_kwds=options)


def test_derivatives():
    """By prices and sizes: forward, reverse and central differences agree, and padding has none."""
    s = simulate.stock(120, 7)
    mask = np.arange(120) < 110

    def loss(inputs):
        result = glosten_harris_arrays(*inputs, s.sign, mask, estimator="prais-winsten")
        return result.rho + jnp.log(result.coefficients**2).sum() + jnp.log(result.std_errors).sum() + result.r2

    @jax.jit
    def both(inputs, tangents):
        value, forward = jax.jvp(loss, (inputs,), (tangents,))
        return value, forward, jax.grad(loss)(inputs)

    inputs = (jnp.asarray(s.price), jnp.asarray(s.size))
    for k, step in enumerate((1e-6, 1e-3)):
        tangents = [jnp.zeros(120), jnp.zeros(120)]
        tangents[k] = jnp.asarray(np.random.default_rng(k).standard_normal(120))
        _, forward, reverse = both(inputs, tuple(tangents))
        assert np.isfinite(reverse[k]).all()
        assert (reverse[k][110:] == 0).all()
        np.testing.assert_allclose(reverse[k] @ tangents[k], forward, rtol=1e-9)
        moved = [tuple(x + h * t for x, t in zip(inputs, tangents, strict=True)) for h in (step, -step)]
        above, below = (both(x, tuple(tangents))[0] for x in moved)
        np.testing.assert_allclose((above - below) / (2 * step), forward, rtol=1e-5)


def test_masked_loss_trains_past_a_failed_stock():
    s = simulate.stock(120, 8)
    arrays = [jnp.stack([jnp.asarray(x)] * 2) for x in s]
    arrays[0] = arrays[0].at[1, 50].set(jnp.nan)

    def total(price, keep):
        result = glosten_harris_arrays(price, *arrays[1:], covariance="ols")
        return jnp.where(keep[:, None], result.coefficients, 0).sum()

    gradient = jax.jit(jax.grad(total))
    kept = gradient(arrays[0], jnp.array([True, False]))
    assert np.isfinite(kept).all()
    assert (kept[1] == 0).all()
    careless = gradient(arrays[0], jnp.array([True, True]))
    assert np.isfinite(careless[0]).all()
    assert np.isnan(careless[1]).any()


@pytest.mark.parametrize("options", [{}, {"estimator": "prais-winsten", "lags": "andrews"}], ids=["ols", "gls"])
def test_float32(options):
    """Within a thousandth of a standard error, prices taken less their first value; and the result says what it is."""
    stocks = [simulate.stock(n, seed) for seed, n in enumerate((512, 480, 400, 300, 200, 100, 60) * 4)]
    arrays = simulate.batch([s._replace(price=s.price - s.price[0]) for s in stocks], 512, len(stocks))
    two = glosten_harris_arrays(*arrays, **options)
    one = glosten_harris_arrays(*(x.astype(np.float32) for x in arrays[:3]), arrays[3], **options)
    assert one.coefficients.dtype == np.float32
    assert (np.asarray(one.status) == Status.OK).all()
    assert (np.abs(np.asarray(one.coefficients) - np.asarray(two.coefficients)) < 1e-3 * two.std_errors).all()
    np.testing.assert_allclose(one.std_errors, two.std_errors, rtol=1e-3)
    assert (np.asarray(one.flags) == Flag.FLOAT32).all()
    assert (np.asarray(two.flags) == Flag.NONE).all()
    # What 32 bits cannot tell apart is refused, not guessed.
    level = glosten_harris_arrays(*(x.astype(np.float32) for x in arrays[:3]), arrays[3], form="level")
    assert Status.ILL_CONDITIONED in np.asarray(level.status)


def test_an_outlier_of_1e12_is_survived():
    """Fault 45."""
    s = simulate.stock(333, 1)
    price, size = s.price.copy(), s.size.copy()
    price[200] *= 1e12
    size[300] *= 1e12
    result = first(simulate.Stock(price, size, s.sign))
    assert result.status in (Status.OK, Status.OK_INACCURATE, Status.ILL_CONDITIONED, Status.RANK_DEFICIENT)
    usable = result.status <= Status.LOCAL
    assert np.isfinite(result.std_errors).all() == usable


def test_compiles_once_for_a_shape(stocks):
    estimate(*stocks)
    glosten_harris_arrays(*map(jnp.asarray, simulate.batch(stocks)), lags="newey-west-fixed")
    before = estimates.estimate_lanes._cache_size()
    estimate(*stocks[::-1])
    assert estimates.estimate_lanes._cache_size() == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"form": "levels"}, "form"),
        ({"covariance": "white"}, "covariance"),
        ({"lags": -1}, "lags"),
        ({"lags": 2.5}, "lags"),
        ({"lags": True}, "lags"),
        ({"lags": 60}, "lags"),
        ({"order": 0}, "order"),
        ({"terms": "permanent_fixed"}, "terms"),
        ({"terms": ("permanent_fixed", "spread")}, "terms"),
        ({"estimator": "gls"}, "estimator"),
    ],
)
def test_wrong_options_are_named(stocks, options, named):
    with pytest.raises(ValueError, match=named):
        glosten_harris_arrays(*stocks[0], **options)


def test_wrong_shapes_are_named(stocks):
    s = stocks[0]
    with pytest.raises(ValueError, match="size"):
        glosten_harris_arrays(s.price, s.size[:-1], s.sign)
    with pytest.raises(ValueError, match="price"):
        glosten_harris_arrays(s.price[None, None], s.size, s.sign)
    assert glosten_harris_arrays(*(np.zeros((0, 40)) for _ in range(3))).coefficients.shape == (0, 4)


def regression_of(s, form, terms, gls=None):
    """statsmodels on the columns of some terms; the constant first."""
    import warnings

    import statsmodels.api as sm

    x, y, _ = simulate.columns(s, form)
    x = x[:, [0, *(1 + COEFFICIENTS.index(t) for t in terms)]]
    if gls is None:
        return sm.OLS(y, x)
    with warnings.catch_warnings():  # of a result type that will change
        warnings.simplefilter("ignore", FutureWarning)
        model = sm.GLSAR(y, x, 1)
        return model, model.iterative_fit(300, rtol=1e-15)


@pytest.mark.parametrize(
    ("form", "terms"),
    [
        ("difference", ("transitory_fixed", "permanent_variable")),
        ("level", ("transitory_variable",)),
        ("difference", ("permanent_fixed",)),
    ],
)
def test_any_terms_equal_statsmodels(stocks, form, terms):
    result = estimate(*stocks, form=form, terms=terms, covariance="hc3")
    assert result.terms == tuple(t for t in COEFFICIENTS if t in terms)
    for i, s in enumerate(stocks):
        fit = regression_of(s, form, result.terms).fit(cov_type="HC3")
        np.testing.assert_allclose(result.coefficients[i], fit.params[1:], rtol=1e-9)
        np.testing.assert_allclose(result.intercept[i], fit.params[0], rtol=1e-8)
        np.testing.assert_allclose(result.std_errors[i], fit.bse[1:], rtol=1e-9)
        np.testing.assert_allclose(result.p[i], fit.pvalues[1:], rtol=1e-7)


def test_autoregressive_errors_equal_statsmodels(stocks):
    """Cochrane and Orcutt, iterated to rest."""
    result = estimate(*stocks, estimator="cochrane-orcutt", covariance="ols")
    for i, s in enumerate(stocks):
        model, fit = regression_of(s, "difference", COEFFICIENTS, gls=1)
        np.testing.assert_allclose(result.rho[i], float(np.squeeze(model.rho)), rtol=1e-9)
        np.testing.assert_allclose(result.coefficients[i], fit.params[1:], rtol=1e-9)
        np.testing.assert_allclose(result.intercept[i], fit.params[0], rtol=1e-9)
        np.testing.assert_allclose(result.std_errors[i], fit.bse[1:], rtol=1e-9)
        assert int(result.n[i]) == fit.nobs
        assert 0 < int(result.iterations[i]) < 50


def test_constant_size_can_be_estimated_by_what_it_identifies():
    """With one size everywhere D and DV are the same thing: half of the terms are enough, and are to be had."""
    s = simulate.stock(333, 1)
    one = s._replace(size=np.full(333, 100.0))
    assert first(one).status == Status.RANK_DEFICIENT
    fixed = first(one, terms=("permanent_fixed", "transitory_fixed"))
    assert fixed.status == Status.OK
    # Strictly alternating sides leave no innovation of order flow; a transitory term alone does not ask for one.
    turns = one._replace(sign=np.where(np.arange(333) % 2 == 0, 1.0, -1.0))
    spread = first(turns, terms=("transitory_fixed",))
    assert spread.status == Status.OK
    assert np.isnan(spread.order_flow).all()
    y, x = np.diff(turns.price)[4:], np.diff(turns.sign)[4:]
    np.testing.assert_allclose(spread.coefficients[0], np.cov(x, y)[0, 1] / np.var(x, ddof=1), rtol=1e-10)
    assert first(turns, terms=("permanent_fixed",)).status == Status.RANK_DEFICIENT


def test_lowers_for_cuda_without_custom_calls():
    shapes = [jax.ShapeDtypeStruct((3, 64), float)] * 3

    def gradient(price, size, sign):
        def loss(price, size):
            return glosten_harris_arrays(price, size, sign, estimator="prais-winsten", lags="andrews").t.sum()

        return jax.grad(loss, (0, 1))(price, size)

    exported = jax.export.export(jax.jit(gradient), platforms=["cuda"])(*shapes)
    assert set(re.findall(r"custom_call @(\w+)", exported.mlir_module())) == set()
