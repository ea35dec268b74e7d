"""Regression with robust errors: certified sets, statsmodels, Stata, Gretl, dense formulas, derivatives."""

import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import norm
from statsmodels.stats.stattools import durbin_watson

from jaxexec import impact
from jaxexec.numerics.status import Flag, Status
from tests.conftest import SHARED
from tests.impact import dense_regression as dense

ROWS = 208
STOCKS = [dense.correlated(208, 0), dense.correlated(120, 1), dense.correlated(200, 2, days=3)]


def regress(*arrays, **options):
    """As NumPy arrays, which the tests may mix with integers."""
    return jax.tree.map(np.asarray, impact.regress(*arrays, **options))


def batch(stocks=STOCKS, fill=np.nan):
    """Padded arrays of one shape; days are parted by one empty slot, and padding is not a number."""
    y, x, mask = np.full((len(stocks), ROWS), fill), np.full((len(stocks), ROWS, 2), fill), np.zeros((3, ROWS), bool)
    for i, d in enumerate(stocks):
        at = np.arange(len(d.y)) + d.day
        y[i, at], x[i, at], mask[i, at] = d.y, d.z[:, 1:], True
    return y, x, mask


def reference(d: dense.Data, covariance: str, lags: int = 5, use_correction: bool = False):
    if covariance != "hac":
        return sm.OLS(d.y, d.z).fit(cov_type="nonrobust" if covariance == "ols" else covariance.upper())
    options = {"maxlags": lags, "use_correction": use_correction}
    if d.day[-1] == 0:
        return sm.OLS(d.y, d.z).fit(cov_type="HAC", cov_kwds=options)
    options["groups"] = d.day
    return sm.OLS(d.y, d.z).fit(cov_type="hac-panel", cov_kwds=options)


@pytest.mark.parametrize("covariance", ["ols", "hc0", "hc1", "hc2", "hc3", "hac"])
def test_equals_statsmodels(covariance):
    result = regress(*batch(), covariance=covariance, lags=5)
    for i, d in enumerate(STOCKS):
        fit = reference(d, covariance)
        np.testing.assert_allclose(result.coefficients[i], fit.params, rtol=1e-11)
        np.testing.assert_allclose(result.std_errors[i], fit.bse, rtol=1e-10)
        np.testing.assert_allclose(result.covariance[i], fit.cov_params(), rtol=1e-9)
        np.testing.assert_allclose(result.t[i], fit.tvalues, rtol=1e-9)
        np.testing.assert_allclose(result.p[i], 2 * norm.sf(np.abs(fit.tvalues)), rtol=1e-8)
        np.testing.assert_allclose(result.r2[i], fit.rsquared, rtol=1e-10)
        np.testing.assert_allclose(result.residual_sum[i], fit.ssr, rtol=1e-10)
        centred = d.z[:, 1:] - d.z[:, 1:].mean(0)
        np.testing.assert_allclose(
            result.condition[i], np.linalg.cond(centred / np.linalg.norm(centred, axis=0)), rtol=1e-6
        )
        assert (result.n[i], result.rho[i], result.iterations[i]) == (len(d.y), 0, 0)
    np.testing.assert_allclose(
        result.durbin_watson[0], durbin_watson(STOCKS[0].y - STOCKS[0].z @ dense.ordinary(STOCKS[0]))
    )


def test_newey_west_with_correction_is_stata():
    """statsmodels' `use_correction` is Stata's factor."""
    result = regress(*batch(), lags=5, convention="stata")
    for i, d in enumerate(STOCKS[:2]):
        np.testing.assert_allclose(result.std_errors[i], reference(d, "hac", 5, True).bse, rtol=1e-10)


@pytest.mark.parametrize("prewhiten", [False, True])
@pytest.mark.parametrize(
    ("rule", "convention"),
    [
        ("andrews", "statsmodels"),
        ("andrews", "sandwich"),
        ("newey-west-1994", "sandwich"),
        ("newey-west-1994", "stata"),
    ],
)
def test_automatic_bandwidths_equal_their_formulas(rule, convention, prewhiten):
    """A full matrix of weights over all pairs of rows of one day, days being parted."""
    result = regress(*batch(), lags=rule, convention=convention, prewhiten=prewhiten)
    for i, d in enumerate(STOCKS):
        covariance, width = dense.hac(d, rule, prewhiten, convention)
        np.testing.assert_allclose(result.bandwidth[i], max(width, 1), rtol=1e-9)
        np.testing.assert_allclose(result.covariance[i], covariance, rtol=1e-8)
        np.testing.assert_allclose(result.std_errors[i], np.sqrt(np.diag(covariance)), rtol=1e-9)
        assert result.lags[i] == np.ceil(result.bandwidth[i]) - 1


def test_fixed_rule_with_prewhitening():
    result = regress(*batch(), prewhiten=True)
    for i, d in enumerate(STOCKS):
        np.testing.assert_allclose(result.covariance[i], dense.hac(d, "newey-west-fixed", True, "")[0], rtol=1e-8)


def test_cochrane_orcutt_equals_statsmodels():
    """GLSAR iterated to rest."""
    result = regress(*batch(), estimator="cochrane-orcutt", covariance="ols")
    assert (result.status == Status.OK).all()
    for i, d in enumerate(STOCKS[:2]):
        model = sm.GLSAR(d.y, d.z, 1)
        with warnings.catch_warnings():  # of a result type that will change
            warnings.simplefilter("ignore", FutureWarning)
            fit = model.iterative_fit(200, rtol=1e-15)
        np.testing.assert_allclose(result.rho[i], float(np.squeeze(model.rho)), rtol=1e-9)
        np.testing.assert_allclose(result.coefficients[i], fit.params, rtol=1e-9)
        np.testing.assert_allclose(result.std_errors[i], fit.bse, rtol=1e-9)
        np.testing.assert_allclose(result.r2[i], fit.rsquared, rtol=1e-9)
        np.testing.assert_allclose(result.durbin_watson[i], durbin_watson(fit.wresid), rtol=1e-9)
        assert result.n[i] == fit.nobs
        assert 3 < result.iterations[i] < 40


@pytest.mark.parametrize(
    ("kind", "how"),
    [("prais-winsten", "yule-walker"), ("prais-winsten", "regression"), ("cochrane-orcutt", "correlation")],
)
def test_feasible_least_squares_equals_its_dense_twin(kind, how):
    """Days included: the first row of each is one that has no past."""
    result = regress(*batch(), estimator=kind, autocorrelation=how, covariance="ols")
    for i, d in enumerate(STOCKS):
        rho, rows = dense.feasible(d, kind, how)
        fit = sm.OLS(rows.y, rows.z).fit()
        np.testing.assert_allclose(result.rho[i], rho, rtol=1e-10)
        np.testing.assert_allclose(result.coefficients[i], fit.params, rtol=1e-9)
        np.testing.assert_allclose(result.std_errors[i], fit.bse, rtol=1e-9)
        assert result.n[i] == len(rows.y)


@pytest.fixture(scope="module")
def macro():
    path = SHARED / "data" / "hac" / "macro_hac_glsar_stata_gretl.json"
    if not path.exists():
        pytest.skip("the published results are not at hand")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("results_hc0", {"covariance": "hc1"}),
        ("results_ivhc0_large", {"covariance": "hc0"}),
        ("results_ivhc0_small", {"covariance": "hc1"}),
        ("results_ivhac4_large", {"lags": 4}),
        ("results_ivhac4_small", {"lags": 4, "convention": "stata"}),
        ("results_newey4", {"lags": 4, "convention": "stata"}),
        (
            "prais_corc_iterated_stata",
            {"estimator": "cochrane-orcutt", "autocorrelation": "correlation", "covariance": "ols"},
        ),
    ],
)
def test_equals_stata(macro, name, options):
    stata = macro["results"][name]
    ours = regress(np.array(macro["y"]), np.array(macro["X"])[:, :2], **options)
    turned = [1, 2, 0]  # Stata puts the constant last
    # Stata iterates until ρ moves by less than 1e-6 and prints what it has then.
    digits = 1e-6 if "estimator" in options else 1e-9
    np.testing.assert_allclose(np.asarray(ours.coefficients)[turned], stata["params"], rtol=digits)
    np.testing.assert_allclose(np.asarray(ours.std_errors)[turned], stata["bse"], rtol=digits)
    covariance = np.array(stata["cov"]).reshape(3, 3)
    if "estimator" not in options:  # there the matrix at hand is not that of the printed errors
        np.testing.assert_allclose(ours.covariance[np.ix_(turned, turned)], covariance, rtol=10 * digits, atol=1e-10)
    if "rho" in stata:
        np.testing.assert_allclose(ours.rho, stata["rho"], rtol=1e-5)
        np.testing.assert_allclose(ours.durbin_watson, stata["dw"], rtol=1e-6)
        np.testing.assert_allclose(ours.r2, stata["r2"], rtol=1e-6)


def test_equals_gretl(macro):
    gretl = macro["results"]["gretl_corc"]
    ours = regress(
        np.array(macro["y"]),
        np.array(macro["X"])[:, :2],
        estimator="cochrane-orcutt",
        autocorrelation="regression",
        covariance="ols",
    )
    # Gretl stops at the second or third ρ and prints six digits.
    np.testing.assert_allclose(ours.rho, gretl["rho"], rtol=1e-4)
    np.testing.assert_allclose(ours.coefficients, gretl["params_const_gdp_rint"], rtol=2e-5)
    np.testing.assert_allclose(ours.std_errors, gretl["bse"], rtol=2e-5)


def test_equals_gretl_hac(macro):
    """Bartlett weights of bandwidth 4, to the six digits that are printed."""
    gretl = macro["results"]["gretl_ols_hac4"]
    ours = regress(np.array(macro["y"]), np.array(macro["X"])[:, :2], lags=4)
    np.testing.assert_allclose(ours.coefficients, gretl["params_const_gdp_rint"], rtol=1e-6)
    np.testing.assert_allclose(ours.std_errors, gretl["bse"], rtol=5e-6)
    np.testing.assert_allclose(ours.t, gretl["t"], rtol=5e-4)
    for name, value in (("r2", "rsquared"), ("residual_sum", "ssr"), ("durbin_watson", "dw")):
        np.testing.assert_allclose(getattr(ours, name), gretl["stats"][value], rtol=1e-6)


DIGITS = {
    "Norris": 12, "Pontius": 12, "NoInt1": 13, "NoInt2": 13, "Longley": 10, "Wampler1": 9, "Wampler2": 9,
    "Wampler3": 9, "Wampler4": 8, "Wampler5": 6, "Filip": 7,
}  # fmt: skip


@pytest.mark.parametrize("name", DIGITS)
def test_certified_values(name):
    """All linear sets of NIST's StRD: Norris 12 digits, Longley 10, Wampler 1 to 3 nine, Filip 7."""
    path = SHARED / "data" / "nist" / "linear.json"
    if not path.exists():
        pytest.skip("the certified sets are not at hand")
    sets = json.loads(path.read_text())
    case = sets.get("datasets", sets)[name]
    x = np.array(case["x"], float).reshape(len(case["y"]), -1)
    if case["kind"] == "polynomial":
        x = x ** np.arange(1, case["degree"] + 1)
    result = regress(np.array(case["y"]), x, intercept=case["kind"] != "no_intercept", covariance="ols")
    certified = case["certified"]
    digits = DIGITS[name] - (jax.default_backend() != "cpu")  # other sums: Wampler 4 and 5 lose a tenth of a digit
    np.testing.assert_allclose(result.coefficients, list(certified["params"].values()), rtol=10.0**-digits)
    scale = certified["residual_sd"] or 1e-4  # Wampler 1 and 2 are perfect fits
    np.testing.assert_allclose(
        result.std_errors / scale, np.array(list(certified["se"].values())) / scale, rtol=1e-7, atol=1e-5
    )
    np.testing.assert_allclose(result.r2, certified["r_squared"], rtol=1e-10)
    assert result.status == (Status.OK_INACCURATE if name == "Filip" else Status.OK)


def test_without_robustness_and_lags_is_white():
    """Relation 48."""
    none, white = regress(*batch(), lags=0), regress(*batch(), covariance="hc0")
    np.testing.assert_allclose(none.covariance, white.covariance, rtol=1e-12)


def test_relations_of_regression():
    """Relations 41 to 44 and 46 for automatic bandwidths too: units, added multiples, mixtures, time reversed."""
    y, x, mask = batch()
    mix = np.array([[2.0, 0.3], [-1.0, 50.0]])
    one = regress(y, x, mask, lags="andrews")
    dear = regress(-100 * y, x, mask, lags="andrews")
    np.testing.assert_allclose(dear.coefficients, -100 * one.coefficients, rtol=1e-11)
    np.testing.assert_allclose(dear.std_errors, 100 * one.std_errors, rtol=1e-10)
    moved = regress(y + x @ [3.0, -0.5], x, mask, lags="andrews")
    np.testing.assert_allclose(moved.coefficients - one.coefficients, [[0, 3.0, -0.5]] * 3, atol=1e-12)
    np.testing.assert_allclose(moved.std_errors, one.std_errors, rtol=1e-9)
    units = regress(y, x * [7.0, 1e-3], mask, lags="andrews")
    np.testing.assert_allclose(units.std_errors * [1, 7.0, 1e-3], one.std_errors, rtol=1e-10)
    fixed, mixed = regress(y, x, mask, lags=5), regress(y, x @ mix, mask, lags=5)
    whole = np.block([[np.ones((1, 1)), np.zeros((1, 2))], [np.zeros((2, 1)), mix]])
    back = np.linalg.inv(whole)
    np.testing.assert_allclose(mixed.covariance, back @ fixed.covariance @ back.T, rtol=1e-8, atol=1e-16)
    turned = regress(y[:, ::-1], x[:, ::-1], mask[:, ::-1], lags=5)
    np.testing.assert_allclose(turned.covariance, fixed.covariance, rtol=1e-9)


def test_failed_lanes_are_nan_with_a_status_and_leave_their_neighbours_alone():
    good = STOCKS[0]
    y, x, mask = batch([good] * 3)
    y, x, mask = (np.repeat(v[:1], 8, 0) for v in (y, x, mask))
    healthy = regress(y, x, mask, covariance="hc3", estimator="cochrane-orcutt")
    y[1, 7] = np.inf
    mask[2, 3:] = False
    x[3, :, 1] = 5.0
    x[4, :, 1] = 2 * x[4, :, 0] - 1
    x[5, :, 0] = 0.0
    x[5, 9, 0] = 1.0  # a dummy of one row fits it alone: leverage 1
    y[6] = np.cumsum(np.cumsum(y[6]))
    result = regress(y, x, mask, covariance="hc3", estimator="cochrane-orcutt")
    expected = ["OK", "NONFINITE_INPUT", "INSUFFICIENT_DATA", "RANK_DEFICIENT", "RANK_DEFICIENT"]
    assert [Status(int(s)).name for s in result.status[:5]] == expected
    for name in ("coefficients", "std_errors", "covariance", "t", "p", "r2", "rho", "bandwidth"):
        ours = np.asarray(getattr(result, name))
        for i, status in enumerate(result.status):
            assert np.isnan(ours[i]).all() == (status > Status.LOCAL), (name, i)
        for i in (0, 7):
            assert np.array_equal(ours[i], getattr(healthy, name)[i]), name
    assert regress(y[5], x[5], mask[5], covariance="hc3").status == Status.ILL_CONDITIONED
    assert regress(y, x, mask, estimator="cochrane-orcutt", max_iterations=1).status[0] == Status.MAX_STEPS


OPTIONS = {
    "cochrane-orcutt, hc2": {"estimator": "cochrane-orcutt", "covariance": "hc2"},
    "prais-winsten, andrews": {"estimator": "prais-winsten", "lags": "andrews", "prewhiten": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_derivatives(options):
    """Forward, reverse and central differences agree; padding has none."""
    y, x, mask = batch(fill=0.0)

    def loss(y, x):
        result = impact.regress(y, x, mask, **options)
        return (
            jnp.log(result.std_errors).sum() + jnp.sin(result.coefficients).sum() + result.rho.sum() + result.r2.sum()
        )

    @jax.jit
    def both(y, x, dy, dx):
        value, forward = jax.jvp(loss, (y, x), (dy, dx))
        return value, forward, jax.grad(loss, (0, 1))(y, x)

    rng = np.random.default_rng(5)
    dy, dx = rng.standard_normal(y.shape), rng.standard_normal(x.shape)
    _, forward, (of_y, of_x) = both(y, x, dy, dx)
    np.testing.assert_allclose((of_y * dy).sum() + (of_x * dx).sum(), forward, rtol=1e-9)
    assert (of_y[~mask] == 0).all()
    h = 1e-6
    above, below = (both(y + s * dy, x + s * dx, dy, dx)[0] for s in (h, -h))
    np.testing.assert_allclose((above - below) / (2 * h), forward, rtol=2e-6)


def test_float32():
    y, x, mask = (v.astype(np.float32) if v.dtype == float else v for v in batch())
    options = {"estimator": "prais-winsten", "lags": "andrews"}
    one, two = regress(y, x, mask, **options), regress(*batch(), **options)
    assert one.coefficients.dtype == np.float32
    assert (one.flags == Flag.FLOAT32).all()
    assert (np.abs(one.coefficients - two.coefficients) < 1e-3 * two.std_errors).all()
    np.testing.assert_allclose(one.std_errors, two.std_errors, rtol=1e-3)


def test_lowers_for_cuda_without_custom_calls():
    arrays = [jax.ShapeDtypeStruct((3, ROWS, *shape), kind) for shape, kind in (((), float), ((2,), float), ((), bool))]

    def gradient(y, x, mask):
        def loss(y):
            fit = impact.regress(y, x, mask, estimator="prais-winsten", lags="andrews", prewhiten=True)
            return fit.t.sum()

        return jax.grad(loss)(y)

    exported = jax.export.export(jax.jit(gradient), platforms=["cuda"])(*arrays)
    assert set(re.findall(r"custom_call @(\w+)", exported.mlir_module())) == set()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"estimator": "gls"}, "estimator"),
        ({"covariance": "hc4"}, "covariance"),
        ({"lags": "nw"}, "lags"),
        ({"lags": ROWS}, "lags"),
        ({"lags": True}, "lags"),
        ({"convention": "R"}, "convention"),
        ({"autocorrelation": "burg"}, "autocorrelation"),
        ({"prewhiten": True, "covariance": "hc0"}, "prewhiten"),
        ({"max_iterations": 0}, "max_iterations"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        regress(*batch(), **options)


def test_wrong_shapes_are_named():
    y, x, mask = batch()
    for arguments, named in (((y[:, 1:], x), "regressors"), ((y, x, mask[0]), "mask"), ((x, x), "response")):
        with pytest.raises(ValueError, match=named):
            regress(*arguments)
    with pytest.raises(ValueError, match="intercept"):
        regress(y, x[..., :0], intercept=False)
