"""Impact estimates on arrays: against statsmodels, exact cases, failures, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import simulated_stocks as simulate
from jaxexec.impact import estimates, expected_sign, glosten_harris_arrays
from jaxexec.numerics.status import Status
from statsmodels.stats.stattools import durbin_watson

LENGTHS = (60, 333, 1500)
VALUES = ("coefficients", "std_errors", "covariance", "t", "intercept", "r2", "order_flow", "order_flow_std")


@pytest.fixture(scope="module")
def stocks():
    return [simulate.stock(n, seed) for seed, n in enumerate(LENGTHS)]


@pytest.mark.parametrize("covariance", ["hac", "hc0", "ols"])
@pytest.mark.parametrize("form", ["difference", "level"])
def test_equals_statsmodels_for_every_stock_of_a_batch(stocks, form, covariance):
    result = glosten_harris_arrays(*simulate.batch(stocks), form=form, covariance=covariance)
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


@pytest.mark.parametrize("maxlags", [1, 40])
def test_lags_of_ones_own(stocks, maxlags):
    s = stocks[1]
    result = glosten_harris_arrays(*s, lags=maxlags)
    fit = simulate.reference(s, maxlags=maxlags).fit
    np.testing.assert_allclose(result.std_errors, fit.bse[1:], rtol=1e-9)


def test_no_lags_is_white(stocks):
    """Relation 48."""
    white = glosten_harris_arrays(*stocks[1], covariance="hc0")
    none = glosten_harris_arrays(*stocks[1], lags=0)
    np.testing.assert_allclose(none.covariance, white.covariance, rtol=1e-12)


def test_expected_sign_uses_the_distribution_function():
    """Erratum 7: the thesis prints the density."""
    np.testing.assert_allclose(expected_sign(jnp.asarray(150.0), jnp.asarray(300.0)), 0.382924922548, atol=5e-13)


def test_noise_free_data_return_the_truth():
    """Relation 54: prices made from the fitted order flow itself, without noise."""
    s = simulate.stock(333, 3)
    x, _, _ = simulate.columns(s)
    change = np.concatenate([np.zeros(5), x[:, 1:] @ simulate.TRUTH + 1e-4])
    result = glosten_harris_arrays(np.cumsum(change), s.size, s.sign)
    np.testing.assert_allclose(result.coefficients, simulate.TRUTH, rtol=1e-10)
    np.testing.assert_allclose(result.intercept, 1e-4, rtol=1e-9)
    np.testing.assert_allclose(result.r2, 1, rtol=1e-12)
    assert result.status == Status.OK
    assert (result.std_errors < 1e-12).all()


def test_difference_form_recovers_the_truth_and_level_form_does_not():
    """Erratum 7."""
    s = simulate.stock(40_000, 4)
    sadka = glosten_harris_arrays(*s)
    thesis = glosten_harris_arrays(*s, form="level")
    assert (np.abs((sadka.coefficients - simulate.TRUTH) / sadka.std_errors) < 4).all()
    assert (np.abs(thesis.coefficients - simulate.TRUTH) > 10 * np.abs(simulate.TRUTH)).all()
    assert thesis.condition > 10 * sadka.condition


def test_currency_and_share_units(stocks):
    """Relations 41 and 42."""
    s = stocks[1]
    one = glosten_harris_arrays(*s)
    dear = glosten_harris_arrays(100 * s.price, s.size, s.sign)
    split = glosten_harris_arrays(s.price, 2 * s.size, s.sign)
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
    one, mirrored = glosten_harris_arrays(*s), glosten_harris_arrays(-s.price, s.size, -s.sign)
    np.testing.assert_allclose(mirrored.coefficients, one.coefficients, rtol=1e-12)
    np.testing.assert_allclose(mirrored.std_errors, one.std_errors, rtol=1e-12)


def test_permutation_of_stocks_and_other_stocks_change_nothing(stocks):
    """Relation 45."""
    together = glosten_harris_arrays(*simulate.batch(stocks))
    turned = glosten_harris_arrays(*simulate.batch(stocks[::-1]))
    alone = glosten_harris_arrays(*stocks[1])
    for name in VALUES:
        ours = np.asarray(getattr(together, name))
        np.testing.assert_allclose(ours[1], getattr(alone, name), rtol=1e-10, err_msg=name)
        np.testing.assert_allclose(ours, np.asarray(getattr(turned, name))[::-1], rtol=1e-12, err_msg=name)


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
    lanes = [good, *(s for s, _, _ in cases), good]
    masks = np.stack([np.ones(400, bool), *(m for _, m, _ in cases), np.ones(400, bool)])
    arrays = [np.stack(x) for x in zip(*lanes, strict=True)]
    result = glosten_harris_arrays(*arrays, masks)
    healthy = glosten_harris_arrays(*(np.stack([x[0]] * len(lanes)) for x in arrays))
    assert [Status(int(s)) for s in result.status] == [Status.OK, *(c for _, _, c in cases), Status.OK]
    for name in VALUES:
        assert np.isnan(np.asarray(getattr(result, name))[1:-1]).all(), name
        for lane in (0, -1):
            assert np.array_equal(getattr(result, name)[lane], getattr(healthy, name)[lane]), name
    assert result.condition[6] == np.inf


def test_shortest_stock_that_can_be_estimated():
    """Relation 58 (refusal is monotone): twelve trades are enough, and more always are."""
    s = simulate.stock(14, 21)
    masks = np.arange(14) < np.arange(15)[:, None]
    status = glosten_harris_arrays(*(np.tile(x, (15, 1)) for x in s), masks).status
    assert status.tolist() == [Status.INSUFFICIENT_DATA] * 12 + [Status.OK] * 3


def test_a_gap_in_the_mask_separates_days():
    days = [simulate.stock(200, 5), simulate.stock(150, 6)]
    gap = np.full(12, np.nan)
    arrays = [np.concatenate([a, gap, b]) for a, b in zip(*days, strict=True)]
    result = glosten_harris_arrays(*arrays, np.isfinite(arrays[0]), lags=6)
    fit = pooled(days, 6)
    np.testing.assert_allclose(result.coefficients, fit.params[1:], rtol=1e-9)
    np.testing.assert_allclose(result.std_errors, fit.bse[1:], rtol=1e-9)


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
    """Forward, reverse and central differences agree, and padding has none."""
    s = simulate.stock(120, 7)
    mask = np.arange(120) < 110
    rng = np.random.default_rng(0)

    @jax.jit
    def loss(price, size):
        result = glosten_harris_arrays(price, size, s.sign, mask)
        return jnp.log(result.coefficients**2).sum() + jnp.log(result.std_errors).sum() + result.r2

    inputs = (jnp.asarray(s.price), jnp.asarray(s.size))
    reverse = jax.jit(jax.grad(loss, (0, 1)))(*inputs)
    forward = jax.jit(lambda *tangents: jax.jvp(loss, inputs, tangents)[1])
    for k, step in enumerate((1e-6, 1e-3)):
        assert np.isfinite(reverse[k]).all()
        assert (reverse[k][110:] == 0).all()
        tangents = [jnp.zeros(120), jnp.zeros(120)]
        tangents[k] = jnp.asarray(rng.standard_normal(120))
        slope = forward(*tangents)
        above, below = (loss(*(x + h * t for x, t in zip(inputs, tangents, strict=True))) for h in (step, -step))
        np.testing.assert_allclose(reverse[k] @ tangents[k], slope, rtol=1e-9)
        np.testing.assert_allclose((above - below) / (2 * step), slope, rtol=1e-5)


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


def test_float32():
    """The documented tolerance of float32, prices taken less their first value."""
    s = simulate.stock(1500, 2)
    single = [np.asarray(x, np.float32) for x in (s.price - s.price[0], s.size, s.sign)]
    one, two = glosten_harris_arrays(*single), glosten_harris_arrays(*s)
    assert one.coefficients.dtype == np.float32
    assert one.status == Status.OK
    np.testing.assert_allclose(one.coefficients, two.coefficients, rtol=1e-3)
    np.testing.assert_allclose(one.std_errors, two.std_errors, rtol=1e-3)


def test_an_outlier_of_1e12_is_survived():
    """Fault 45."""
    s = simulate.stock(333, 1)
    price, size = s.price.copy(), s.size.copy()
    price[200] *= 1e12
    size[300] *= 1e12
    result = glosten_harris_arrays(price, size, s.sign)
    assert result.status in (Status.OK, Status.OK_INACCURATE, Status.ILL_CONDITIONED, Status.RANK_DEFICIENT)
    usable = result.status <= Status.LOCAL
    assert np.isfinite(result.std_errors).all() == usable


def test_compiles_once_for_a_shape(stocks):
    for arrays in (simulate.batch(stocks), simulate.batch(stocks[::-1])):
        glosten_harris_arrays(*arrays)
        glosten_harris_arrays(*map(jnp.asarray, arrays), lags="newey-west-fixed")
    before = estimates._estimate._cache_size()
    glosten_harris_arrays(*simulate.batch(stocks[::-1]))
    assert estimates._estimate._cache_size() == before


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
