"""The cost from executions: the truth, coverage, states, weights; and many stocks shrunk towards each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxexec as jx
from jaxexec.calibration import execution_cost, shrink
from tests.calibration.coverage import REPLICATIONS, assert_covers

TRUTH = np.array([0.1, 0.6, 0.004])
ROWS = 60


def executions(rng, stocks, noise, truth=TRUTH, rows=ROWS):
    rate = np.exp(rng.uniform(np.log(0.005), np.log(0.5), (stocks, rows)))
    eta, phi, psi = np.broadcast_to(truth, (stocks, 3)).T[..., None]
    return jnp.asarray(rate), jnp.asarray(eta * rate**phi + psi + noise * rng.standard_normal((stocks, rows)))


def test_weights_masks_and_scipy():
    rng = np.random.default_rng(3)
    rate, paid = (np.array(x) for x in executions(rng, 3, 0.0))
    error = rng.uniform(0.001, 0.01, rate.shape)
    paid += error * rng.standard_normal(rate.shape)
    mask = rng.uniform(size=rate.shape) < 0.8
    rate[~mask], paid[~mask] = np.nan, np.nan
    found = execution_cost(rate, paid, mask, error_std=error)
    np.testing.assert_array_equal(found.n, mask.sum(1))
    for i in range(3):
        at = mask[i]

        def left(p, i=i, at=at):
            return (p[0] * rate[i, at] ** p[1] + p[2] - paid[i, at]) / error[i, at]

        peer = scipy.optimize.least_squares(left, TRUTH, jac="3-point", xtol=1e-15, ftol=1e-15, gtol=1e-15)
        np.testing.assert_allclose(found.values[i], peer.x, rtol=3e-5)
        covariance = np.linalg.inv(peer.jac.T @ peer.jac) * 2 * peer.cost / (at.sum() - 3)
        np.testing.assert_allclose(found.std_errors[i], np.sqrt(np.diag(covariance)), rtol=1e-4)


def test_a_lane_does_not_depend_on_the_others():
    """Alone, among few and in another chunk: the same to rounding; a bad neighbour changes no bit."""
    rate, paid = executions(np.random.default_rng(4), 300, 0.003)
    many = execution_cost(rate, paid)
    alone = execution_cost(rate[7], paid[7])
    np.testing.assert_allclose(alone.values, many.values[7], rtol=1e-9)
    spoilt = execution_cost(rate, paid.at[8, 3].set(jnp.inf))
    assert int(spoilt.status[8]) == jx.Status.NONFINITE_INPUT
    others = np.arange(300) != 8
    np.testing.assert_array_equal(np.asarray(many.values)[others], np.asarray(spoilt.values)[others])
    np.testing.assert_array_equal(np.asarray(many.covariance)[others], np.asarray(spoilt.covariance)[others])
    with pytest.raises(ValueError, match=r"participation\[2\] must be positive"):
        execution_cost(rate[0].at[2].set(-1.0), paid[0])


def test_derivatives_by_the_data():
    rate, paid = (x[0] for x in executions(np.random.default_rng(6), 1, 0.003))

    @jax.jit
    def answer(rate, paid):
        found = execution_cost(rate, paid)
        return jnp.concatenate([found.values, found.std_errors])

    for argument in (0, 1):
        forward = jax.jacfwd(answer, argument)(rate, paid)
        np.testing.assert_allclose(forward, jax.jacrev(answer, argument)(rate, paid), rtol=1e-7, atol=1e-10)
        step = 1e-6 * jnp.zeros(ROWS).at[5].set(1.0)
        ends = [(rate + s * step, paid) if argument == 0 else (rate, paid + s * step) for s in (1, -1)]
        np.testing.assert_allclose(forward[:, 5], (answer(*ends[0]) - answer(*ends[1])) / 2e-6, rtol=2e-5, atol=1e-7)


def test_lowers_for_a_gpu_without_custom_calls():
    rate, paid = executions(np.random.default_rng(7), 4, 0.003)
    text = jax.export.export(jax.jit(lambda r, p: execution_cost(r, p).values), platforms=["cuda"])(rate, paid)
    assert "stablehlo.custom_call" not in text.mlir_module()


@pytest.fixture(scope="module")
def population():
    """Estimates of 1,500 stocks whose parameters vary, some with hardly any data."""
    rng = np.random.default_rng(8)
    free = rng.multivariate_normal([np.log(0.1), np.log(0.6), 0.004], np.diag([0.3, 0.15, 0.001]) ** 2, REPLICATIONS)
    truth = np.column_stack([np.exp(free[:, 0]), np.exp(free[:, 1]), free[:, 2]])
    rate, paid = executions(rng, REPLICATIONS, 0.003, truth)
    rows = np.where(np.arange(REPLICATIONS) % 100 == 0, 2, ROWS)
    mask = np.arange(ROWS)[None] < rows[:, None]
    fits = execution_cost(rate, paid, mask)
    return truth, rows, fits, shrink(fits)


def test_shrinkage_finds_the_distribution_over_stocks(population):
    _, _, _, pooled = population
    assert int(pooled.status) == jx.Status.OK
    mean_error = np.sqrt(np.diag(pooled.mean_covariance))
    assert np.all(np.abs(pooled.mean - np.array([np.log(0.1), np.log(0.6), 0.004])) < 4 * mean_error)
    np.testing.assert_allclose(np.sqrt(np.diag(pooled.spread)), [0.3, 0.15, 0.001], rtol=0.15)


def test_shrunk_estimates_are_nearer_and_their_intervals_cover(population):
    truth, rows, fits, pooled = population
    own = rows == ROWS
    assert_covers(np.asarray(pooled.stocks.intervals(free=True))[own], truth[own])
    apart = [np.sqrt(np.mean((np.asarray(x.values)[own] - truth[own]) ** 2, 0)) for x in (pooled.stocks, fits)]
    assert np.all(apart[0] < apart[1])
    assert apart[0][1] < 0.8 * apart[1][1]


def test_a_stock_without_data_takes_the_population(population):
    _, rows, fits, pooled = population
    none = rows == 2
    assert np.all(np.asarray(fits.status)[none] == jx.Status.INSUFFICIENT_DATA)
    assert np.all(np.asarray(pooled.stocks.status) == jx.Status.OK)
    free = np.asarray(pooled.stocks.free_values)[none]
    np.testing.assert_allclose(free, np.tile(pooled.mean, (none.sum(), 1)), rtol=1e-12)
    assert np.all(np.asarray(pooled.own_weight)[none] == 0)
    errors = np.asarray(pooled.stocks.free_covariance)[none]
    np.testing.assert_allclose(errors[0], pooled.spread + pooled.mean_covariance, rtol=1e-10)


def test_shrinkage_with_equal_errors_is_that_of_efron_and_morris():
    """Equal known errors C and m, Ω by likelihood: Ω + C is the estimates' own covariance."""
    rate, paid = executions(np.random.default_rng(9), 200, 0.003)
    fits = execution_cost(rate, paid, fixed={"phi": 0.6, "psi": 0.004}, bounds={"eta": (None, None)})
    values = np.asarray(fits.free_values)[:, 0] + 0.02 * np.random.default_rng(10).standard_normal(200)
    same = jnp.full((200, 1, 1), 1e-4)
    import equinox as eqx

    fits = eqx.tree_at(lambda f: (f.free_values, f.free_covariance), fits, (jnp.asarray(values)[:, None], same))
    pooled = shrink(fits)
    np.testing.assert_allclose(pooled.mean[0], values.mean(), rtol=1e-8)
    np.testing.assert_allclose(pooled.spread[0, 0], values.var() - 1e-4, rtol=1e-6)
    weight = 1 - 1e-4 / values.var()
    np.testing.assert_allclose(pooled.stocks.values[:, 0], values.mean() + weight * (values - values.mean()), rtol=1e-7)


def test_stocks_that_do_not_differ_are_drawn_together():
    fits = execution_cost(*executions(np.random.default_rng(11), 12, 0.003))
    pooled = shrink(fits)
    assert int(pooled.status) in (jx.Status.OK, jx.Status.OK_INACCURATE)
    apart = [np.std(x.values, axis=0) for x in (pooled.stocks, fits)]
    assert np.all(apart[0] < 0.7 * apart[1])


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5)])
def test_no_rows_are_too_few_rows(shape):
    found = execution_cost(np.zeros(shape), np.zeros(shape))
    assert found.values.shape == (*shape[:-1], 3)
    assert np.all(np.asarray(found.status) == jx.Status.INSUFFICIENT_DATA) and np.isnan(found.values).all()


def test_one_row_in_other_units_does_not_spoil_a_robust_fit():
    """Whatever the size of one outlier, Huber's estimate is the one that a merely large outlier has."""
    rng = np.random.default_rng(0)
    rate = rng.uniform(0.01, 0.3, 60)
    paid = 0.1 * rate**0.6 + 0.004 + 0.002 * rng.standard_normal(60)
    batch = np.tile(paid, (4, 1))
    batch[:, 4] = 0.5, 1e2, 1e4, 1e6
    found = execution_cost(np.tile(rate, (4, 1)), batch, loss="huber")
    np.testing.assert_array_equal(found.status, jx.Status.OK)
    for name in ("values", "std_errors"):
        np.testing.assert_allclose(getattr(found, name), np.tile(getattr(found, name)[:1], (4, 1)), rtol=1e-3)
    assert np.all(np.abs(found.values[3] - TRUTH) < 3 * np.asarray(found.std_errors[3]))
