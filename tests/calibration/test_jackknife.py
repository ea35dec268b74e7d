"""Errors by leaving rows or groups out, errors of correlated steps, and intervals of fractional degrees of freedom."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import statsmodels.api

import jaxexec as jx
from jaxexec.calibration import execution_cost, fit, observed_preferences, propagator
from jaxexec.calibration.general import InLanes, settings_of
from jaxexec.calibration.jackknife import jackknifed
from jaxexec.calibration.newey_west import with_long_run_errors
from jaxexec.calibration.propagator_kernels import Change

DRAWS = np.random.default_rng(3)
X = DRAWS.standard_normal(40)
Y = 1 + 2 * X + (0.2 + np.abs(X)) * DRAWS.standard_normal(40)
ROWS = {"x": jnp.asarray(X), "y": jnp.asarray(Y)}
DESIGN = statsmodels.api.add_constant(X)


def line(p, d):
    return d["y"] - p["slope"] * d["x"] - p["level"]


def straight(**options):
    return fit(line, {"level": 0.0, "slope": 0.0}, ROWS, **options)


def test_single_rows_are_statsmodels_hc3():
    found = straight(covariance="hc3")
    peer = statsmodels.api.OLS(Y, DESIGN).fit(cov_type="HC3")
    np.testing.assert_allclose(found.values, peer.params, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, peer.cov_params(), rtol=1e-9)
    leverage = np.einsum("ni,ij,nj->n", DESIGN, np.linalg.inv(DESIGN.T @ DESIGN), DESIGN)
    moved = np.linalg.inv(DESIGN.T @ DESIGN) @ (DESIGN * (peer.resid / (1 - leverage))[:, None]).T
    degrees = 3 * (moved**2).sum(1) ** 2 / (moved**4).sum(1)
    np.testing.assert_allclose(found.degrees_of_freedom, np.minimum(degrees, 38), rtol=1e-8)


def test_groups_are_those_left_out():
    """Of a linear model the jackknife is exact: five rows at a time, fitted again without them."""
    names = ("level", "slope")
    settings = settings_of(names, {}, None, {}, "squares", 1.0, "classical", 100)
    data = jax.tree.map(lambda x: x[None], ROWS)
    lanes = jax.tree.map(lambda x: x[None], straight())
    found = jackknifed(lanes, InLanes(line), settings, data, {}, jnp.ones((1, 40), bool), 5)
    whole = np.linalg.lstsq(DESIGN, Y)[0]
    apart = []
    for group in range(8):
        kept = np.arange(40) // 5 != group
        apart.append(np.linalg.lstsq(DESIGN[kept], Y[kept])[0] - whole)
    expected = 7 / 8 * np.einsum("gi,gj->ij", apart, apart)
    np.testing.assert_allclose(found.covariance[0], expected, rtol=1e-8)
    assert np.all(np.asarray(found.degrees_of_freedom) <= 7)


def test_a_row_that_alone_tells_a_parameter_has_no_error():
    x = np.zeros(20)
    x[4] = 1.0
    rows = {"x": jnp.asarray(x), "y": jnp.asarray(Y[:20])}
    found = fit(line, {"level": 0.0, "slope": 0.0}, rows, covariance="hc3")
    assert int(found.status) == jx.Status.OK
    assert np.isinf(found.std_errors).all()


def test_intervals_have_their_own_degrees_of_freedom():
    """Many different ones are read off a polynomial: SciPy's quantiles, to nearly all digits."""
    found = straight()
    degrees = np.concatenate([np.linspace(1, 3, 30), np.linspace(3, 2000, 200)])
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (230, *x.shape)), found)
    many = eqx.tree_at(lambda f: f.degrees_of_freedom, many, jnp.tile(jnp.asarray(degrees)[:, None], (1, 2)))
    for level in (0.9, 0.95, 0.999):
        ends = many.intervals(level)
        half = (ends[..., 1] - ends[..., 0]) / 2 / np.asarray(found.std_errors)
        np.testing.assert_allclose(half[:, 0], scipy.stats.t.ppf((1 + level) / 2, degrees), rtol=1e-7)
    endless = eqx.tree_at(lambda f: f.degrees_of_freedom, found, jnp.full(2, jnp.inf))
    half = np.diff(endless.intervals(), axis=-1)[:, 0] / 2
    np.testing.assert_allclose(half / np.asarray(found.std_errors), scipy.stats.norm.ppf(0.975), rtol=1e-6)
    assert np.isfinite(endless.ellipse("level", "slope")).all()


RATE = np.exp(DRAWS.uniform(np.log(0.005), np.log(0.5), (3, 60)))
PAID = 0.1 * RATE**0.6 + 0.004 + (0.001 + 0.01 * RATE) * DRAWS.standard_normal((3, 60))


@jax.jit
def of_stocks(rate, paid):
    return execution_cost(rate, paid, covariance="hc3")


def test_derivatives_and_a_bad_lane():
    rate, paid = jnp.asarray(RATE), jnp.asarray(PAID)

    def errors(paid):
        return of_stocks(rate, paid).std_errors[0]

    forward, reverse = jax.jacfwd(errors)(paid)[:, 0], jax.jacrev(errors)(paid)[:, 0]
    np.testing.assert_allclose(forward, reverse, rtol=1e-7, atol=1e-10)
    step = jnp.zeros_like(paid).at[0, 5].set(1e-6)
    np.testing.assert_allclose(forward[:, 5], (errors(paid + step) - errors(paid - step)) / 2e-6, rtol=2e-5, atol=1e-7)
    good, spoilt = of_stocks(rate, paid), of_stocks(rate, paid.at[1, 3].set(jnp.nan))
    np.testing.assert_array_equal(spoilt.status, [0, jx.Status.NONFINITE_INPUT, 0])
    assert np.isnan(spoilt.std_errors[1]).all()
    for one, other in zip(jax.tree.leaves(good), jax.tree.leaves(spoilt), strict=True):
        np.testing.assert_array_equal(np.asarray(one)[[0, 2]], np.asarray(other)[[0, 2]])
    gradient = jax.grad(lambda y: jnp.where(spoilt.status == 0, of_stocks(rate, y).std_errors[:, 0], 0).sum())
    slope = np.asarray(gradient(paid.at[1, 3].set(jnp.nan)))
    assert np.isfinite(slope).all()
    assert (slope[1] == 0).all()


def test_single_precision_and_a_gpu():
    rate, paid = jnp.asarray(RATE), jnp.asarray(PAID)
    found = of_stocks(rate.astype(jnp.float32), paid.astype(jnp.float32))
    assert found.std_errors.dtype == jnp.float32
    np.testing.assert_allclose(found.std_errors, of_stocks(rate, paid).std_errors, rtol=2e-2)
    text = jax.export.export(of_stocks, platforms=["cuda"])(rate, paid).mlir_module()
    assert "stablehlo.custom_call" not in text


FLOW = 1000 * DRAWS.standard_normal((1, 1, 300))


def test_correlated_steps_are_statsmodels():
    """With the decay held the kernel is linear in its impact: Newey and West's errors of a regression."""
    lag = np.arange(11) / 390
    change = np.diff(np.exp(-60 * lag), prepend=0.0)
    moved = np.convolve(FLOW[0, 0], change)[:300]
    error = np.convolve(DRAWS.standard_normal(300), [1, 0.5])[:300]
    returns = 2e-6 * moved + 1e-3 * error
    fixed = {"decay": 60.0}
    found = propagator(FLOW, returns[None, None], step=1 / 390, lags=10, fixed=fixed, starts=1).parameters
    row = jnp.arange(300) >= 10
    by_hand = with_long_run_errors(
        found,
        Change("exponential"),
        {"decay": jnp.asarray([60.0])},
        jnp.asarray(lag),
        jnp.asarray(FLOW),
        jnp.asarray(returns)[None, None],
        row[None, None],
        4,
        False,
    )
    peer = statsmodels.api.OLS(returns[10:], moved[10:]).fit(
        cov_type="HAC", cov_kwds={"maxlags": 4, "use_correction": True}
    )
    np.testing.assert_allclose(by_hand.values[0], peer.params, rtol=1e-8)
    np.testing.assert_allclose(by_hand.std_errors[0], peer.bse, rtol=1e-8)
    chosen = propagator(
        FLOW, returns[None, None], step=1 / 390, lags=10, fixed=fixed, starts=1, covariance="hac"
    ).parameters
    np.testing.assert_allclose(chosen.std_errors, by_hand.std_errors, rtol=0.2)
    np.testing.assert_array_equal(chosen.values, found.values)


def test_what_is_refused():
    with pytest.raises(ValueError, match="covariance must be one of"):
        straight(covariance="hc7")
    with pytest.raises(ValueError, match="covariance"):
        propagator(FLOW, FLOW, step=1 / 390, covariance="hc3")  # pyright: ignore
    order = jx.Liquidation(
        1e5, jx.Market(jx.TimeGrid.uniform(1.0, 4), 0.6, 4e6), jx.QuadraticCost(0.1), risk_aversion=1e-5
    )
    with pytest.raises(ValueError, match="clustered"):
        observed_preferences(order, np.full(4, 2.5e4), covariance="clustered")
    with pytest.raises(ValueError, match="deviations"):
        observed_preferences(order, np.full(4, 2.5e4), deviations="prices")  # pyright: ignore
