"""Relations 41 to 55: what regressions and estimates owe to units, order, copies and names, on random data.

Each test is named after its relation. Of the others, 47 (pieces of a tape) is in `test_panel.py` and
`tests/numerics/test_moments.py`; 50, the rest of 52, and 53 (books and quotes) are in `tests/tape/test_signing.py`. Of
48 and 49, clusters, fixed effects and weights have nothing to be tested on: they are not offered, and a row of weight
zero is a masked one.
"""

import jax
import numpy as np
import pytest
import statsmodels.api as sm

from jaxexec import impact
from jaxexec.numerics.status import Status
from tests.impact import simulated_stocks as simulate

LANES, ROWS, K = 6, 96, 3
METHODS = {
    "ols": {"covariance": "ols"},
    "hc0": {"covariance": "hc0"},
    "hc3": {"covariance": "hc3"},
    "hac": {"lags": 5},
    "andrews": {"lags": "andrews", "prewhiten": True},
    "cochrane-orcutt": {"estimator": "cochrane-orcutt", "covariance": "hc0"},
    "prais-winsten": {"estimator": "prais-winsten", "covariance": "ols"},
}
RTOL = {"andrews": 1e-8}
"""Of standard errors where it is not 1e-9: a bandwidth rests on differences of small numbers."""


def regress(y, x, mask=None, **options):
    return jax.tree.map(np.asarray, impact.regress(y, x, mask, **options))


def draw(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Regressors in odd units and with a memory, heteroskedastic errors with one; six stocks."""
    rng = np.random.default_rng(seed)
    x, u = rng.standard_normal((LANES, ROWS, K)), rng.standard_normal((LANES, ROWS))
    for t in range(1, ROWS):
        x[:, t] += 0.5 * x[:, t - 1]
        u[:, t] = (0.3 + np.abs(x[:, t, 0])) * u[:, t] + 0.4 * u[:, t - 1]
    x = x * [1.0, 300.0, 1e-3] + [0.0, 50.0, 0.0]
    return x @ [2.0, 1e-2, -300.0] + u + 1.0, x


@pytest.fixture(scope="module", params=METHODS)
def plain(request):
    """A method, its options, and the regressions of untouched data."""
    return request.param, METHODS[request.param], regress(*draw(), **METHODS[request.param])


def assert_close(ours, theirs, rtol=1e-9, **options):
    np.testing.assert_allclose(ours, theirs, rtol=rtol, **options)


# ---- units and combinations -----------------------------------------------------------------------------------------


def test_41_response_in_other_units(plain):
    name, options, one = plain
    y, x = draw()
    for c in (-100.0, 1e-4):
        other = regress(c * y, x, **options)
        assert_close(other.coefficients, c * one.coefficients)
        assert_close(other.std_errors, abs(c) * one.std_errors, RTOL.get(name, 1e-9))
        assert_close(other.t, np.sign(c) * one.t, RTOL.get(name, 1e-9))
        assert_close(other.r2, one.r2)


def test_42_regressor_in_other_units(plain):
    name, options, one = plain
    y, x = draw()
    units = np.array([7.0, -1e-3, 1e4])
    other = regress(y, x * units, **options)
    assert_close(other.coefficients[:, 1:] * units, one.coefficients[:, 1:])
    assert_close(other.std_errors[:, 1:] * np.abs(units), one.std_errors[:, 1:], RTOL.get(name, 1e-9))
    assert_close(other.residual_sum, one.residual_sum)


def test_43_response_plus_regressors(plain):
    name, options, one = plain
    y, x = draw()
    added = np.array([3.0, -0.5, 100.0])
    other = regress(y + x @ added, x, **options)
    assert_close(other.coefficients[:, 1:], one.coefficients[:, 1:] + added)
    assert_close(other.residual_sum, one.residual_sum)
    assert_close(other.std_errors, one.std_errors, RTOL.get(name, 1e-9))


def test_44_mixed_regressors(plain):
    """b → A⁻¹ b and Cov → A⁻¹ Cov A⁻ᵀ; an automatic bandwidth looks at single scores and is not asked."""
    name, options, one = plain
    if name == "andrews":
        return
    y, x = draw()
    mix = np.array([[2.0, 0.3, 0.0], [-1e-3, 5e-3, 1e-3], [0.0, 1.0, 1e3]])
    back = np.eye(K + 1)
    back[1:, 1:] = np.linalg.inv(mix)
    other = regress(y, x @ mix, **options)
    assert_close(other.coefficients, one.coefficients @ back.T, 1e-8)
    expected = back @ one.covariance @ back.T
    scale = np.sqrt(np.einsum("lii,ljj->lij", expected, expected))
    assert_close(other.covariance / scale, expected / scale, 0, atol=1e-8)


# ---- order and company ----------------------------------------------------------------------------------------------


def test_45_other_stocks(plain):
    """To the bit: a lane knows nothing of its neighbours."""
    _, options, one = plain
    y, x = draw()
    turn = [3, 5, 0, 1, 4, 2]
    other, fewer = regress(y[turn], x[turn], **options), regress(y[2:], x[2:], **options)
    for name in ("coefficients", "covariance", "r2", "rho", "durbin_watson"):
        assert_close(getattr(other, name), getattr(one, name)[turn], 1e-12)
        assert_close(getattr(fewer, name), getattr(one, name)[2:], 1e-10)


def test_45_other_stocks_of_a_tape():
    days = [(i, simulate.stock(n, i)) for i, n in enumerate((90, 400, 150, 71))]
    one = impact.glosten_harris(simulate.tape(days)).estimates
    turn = [2, 0, 3, 1]
    other = impact.glosten_harris(simulate.tape([(i, days[k][1]) for i, k in enumerate(turn)])).estimates
    fewer = impact.glosten_harris(simulate.tape(days[:2])).estimates
    for name in ("coefficients", "std_errors", "order_flow", "r2"):
        assert_close(getattr(other, name), getattr(one, name)[turn], 1e-12)
        assert_close(getattr(fewer, name), getattr(one, name)[:2], 1e-12)


def test_46_order_of_rows(plain):
    """Nothing serial: any order. Bartlett's weights: backwards too, but not any order."""
    name, options, one = plain
    y, x = draw()
    shuffled = np.random.default_rng(1).permutation(ROWS)
    other = regress(y[:, shuffled], x[:, shuffled], **options)
    if name in ("ols", "hc0", "hc3"):
        assert_close(other.coefficients, one.coefficients, 1e-10)
        assert_close(other.std_errors, one.std_errors, 1e-10)
        return
    assert (np.abs(other.std_errors / one.std_errors - 1) > 1e-3).all(1).all()
    if name == "hac":
        back = regress(y[:, ::-1], x[:, ::-1], **options)
        assert_close(back.std_errors, one.std_errors, 1e-10)


# ---- special cases --------------------------------------------------------------------------------------------------


def test_48_no_lags_is_white():
    y, x = draw()
    assert_close(regress(y, x, lags=0).covariance, regress(y, x, covariance="hc0").covariance, 1e-12)


@pytest.mark.parametrize("lags", [1, ROWS - 1])
def test_48_newey_west_is_positive_semidefinite(lags):
    """With Bartlett's weights, whatever the lags; the sum with equal weights is not, on the same data."""
    rng = np.random.default_rng(3)
    y, x = rng.standard_normal((LANES, ROWS)), rng.standard_normal((LANES, ROWS, K))
    y, x = np.diff(y, prepend=0), np.diff(x, axis=1, prepend=0)  # over-differenced: autocovariances are negative
    covariance = regress(y, x, lags=lags).covariance
    assert (np.linalg.eigvalsh(covariance) > -1e-12 * np.abs(covariance).max()).all()


def test_48_errors_without_memory_are_least_squares():
    """Of two vectors orthogonal to the regressors one mixture has Σ u_t u_{t−1} = 0: then ρ = 0 and GLS is OLS."""
    _, x = draw()
    rng = np.random.default_rng(4)
    y = np.empty((LANES, ROWS))
    for lane in range(LANES):
        design = sm.add_constant(x[lane])
        u, v = (w - design @ np.linalg.lstsq(design, w)[0] for w in rng.standard_normal((2, ROWS)))
        products = [v[1:] @ v[:-1], u[1:] @ v[:-1] + v[1:] @ u[:-1], u[1:] @ u[:-1]]
        (root, *_) = [r.real for r in np.roots(products) if abs(r.imag) < 1e-12] or [np.nan]
        y[lane] = design @ [1.0, 2.0, 0.1, -300.0] + u + root * v
    real = np.isfinite(y).all(1)
    assert real.sum() > 2
    y, x = y[real], x[real]
    options = {"autocorrelation": "regression", "covariance": "ols"}
    plain, gls = regress(y, x, covariance="ols"), regress(y, x, estimator="prais-winsten", **options)
    assert (np.abs(gls.rho) < 1e-12).all()
    assert_close(gls.coefficients, plain.coefficients)
    assert_close(gls.std_errors, plain.std_errors)


def test_49_masked_and_repeated_rows():
    y, x = draw()
    kept = np.random.default_rng(5).random(ROWS) < 0.8
    mask = np.broadcast_to(kept, y.shape)
    for name in ("ols", "hc0", "hc3"):
        options = METHODS[name]
        spoilt, removed = np.where(mask, y, np.nan), regress(y[:, kept], x[:, kept], **options)
        masked = regress(spoilt, x, mask, **options)
        assert_close(masked.coefficients, removed.coefficients, 1e-11)
        assert_close(masked.covariance, removed.covariance, 1e-9, atol=1e-16)
    one, many = (regress(*(np.repeat(v, m, 1) for v in (y, x)), covariance="hc0") for m in (1, 3))
    assert_close(many.coefficients, one.coefficients, 1e-10)
    assert_close(many.covariance, one.covariance / 3, 1e-9, atol=1e-16)
    # A row of weight two is a row that stands there twice.
    twice = np.concatenate([np.arange(ROWS), np.arange(0, ROWS, 7)])
    weights = np.where(np.arange(ROWS) % 7 == 0, 2.0, 1.0)
    ours = regress(y[:, twice], x[:, twice], covariance="ols").coefficients
    for lane in range(LANES):
        assert_close(ours[lane], sm.WLS(y[lane], sm.add_constant(x[lane]), weights).fit().params, 1e-8)


# ---- markets --------------------------------------------------------------------------------------------------------

SIGNED = {
    "glosten-harris": lambda s: impact.glosten_harris_arrays(*s),
    "glosten-harris, level": lambda s: impact.glosten_harris_arrays(*s, form="level"),
    "madhavan-richardson-roomans": lambda s: impact.madhavan_richardson_roomans_arrays(s.price, s.sign),
    "huang-stoll": lambda s: impact.huang_stoll_arrays(s.price, s.sign, components="three"),
    "kyle": lambda s: impact.kyle_lambda_arrays(np.diff(s.price), (s.size * s.sign)[1:]),
    "hasbrouck": lambda s: impact.hasbrouck_arrays(np.diff(s.price), s.sign[1:]).measured,
}


def values(result) -> tuple[np.ndarray, np.ndarray]:
    estimates = result.coefficients if isinstance(result, impact.ImpactEstimates) else result.values
    return np.asarray(estimates), np.asarray(result.std_errors)


@pytest.mark.parametrize("name", SIGNED)
def test_51_buyers_and_sellers(name):
    """Prices and sides turned over: nothing changes but a drift, whose sign turns."""
    s = simulate.stock(300, 2)
    one, other = (values(SIGNED[name](t)) for t in (s, s._replace(price=100 - s.price, sign=-s.sign)))
    turned = np.array([1.0, -1.0, 1.0]) if name == "kyle" else 1.0
    assert_close(other[0], turned * one[0], 1e-8)
    assert_close(other[1], one[1], 1e-8)


@pytest.mark.parametrize("form", ["difference", "level"])
def test_52_split_of_two_for_one(form):
    """Half the price and twice the shares: C and ζ by a half, λ and ℓ by a quarter; in parts of the price C stays."""
    s = simulate.stock(300, 6)
    split = s._replace(price=s.price / 2, size=2 * s.size)
    one, two = (values(impact.glosten_harris_arrays(*t, form=form)) for t in (s, split))
    for before, after in zip(one, two, strict=True):
        assert_close(after, before / [2.0, 4.0, 2.0, 4.0])
    kyle = [SIGNED["kyle"](t) for t in (s, split)]
    assert_close(kyle[1].values[0], kyle[0].values[0] / 4)
    assert_close(kyle[1].std_errors[0], kyle[0].std_errors[0] / 4)


@pytest.mark.parametrize(
    ("form", "terms"),
    [("difference", ("permanent_variable", "transitory_fixed")), ("level", impact.COEFFICIENTS)],
    ids=["difference, two", "level, all"],
)
def test_54_data_without_noise(form, terms):
    """The generating parameters come back to 1e-10; Huang–Stoll and Madhavan–Richardson–Roomans in their own file."""
    s = simulate.stock(300, 3)
    x, _, _ = simulate.columns(s, form)
    truth = np.where([term in terms for term in impact.COEFFICIENTS], simulate.TRUTH, 0)
    price = np.cumsum(np.concatenate([np.zeros(5), x[:, 1:] @ truth + 1e-4]))
    result = impact.glosten_harris_arrays(price, s.size, s.sign, form=form, terms=terms)
    assert_close(result.coefficients, truth[truth != 0], 1e-10)
    assert_close(result.r2, 1, 1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_55_more_rows_are_never_too_few(name):
    """Row by row: INSUFFICIENT_DATA until there are enough, and never again."""
    y, x = (v[0] for v in draw())
    counts = np.arange(1, 25)
    mask = np.arange(ROWS) < counts[:, None]
    lanes = [np.broadcast_to(v, (len(counts), *v.shape)) for v in (y, x)]
    few = regress(*lanes, mask, **METHODS[name]).status == Status.INSUFFICIENT_DATA
    assert few[0]
    assert not few[-1]
    assert (np.diff(few.astype(int)) <= 0).all()
