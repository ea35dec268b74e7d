"""The engine: the truth from anywhere, SciPy's optimum, errors that transform, and what data cannot tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import statsmodels.api

import jaxexec as jx
from jaxexec.calibration import fit
from jaxexec.numerics.symmetric_eigen import symmetric_eigen

TRUTH = {"eta": 0.1, "phi": 0.6, "psi": 0.004}
START = {"eta": 0.3, "phi": 1.0, "psi": 0.0}
BOUNDS = {"eta": (0.0, None), "phi": (0.0, 2.0)}
DRAWS = np.random.default_rng(5)
RATE = DRAWS.uniform(0.01, 0.5, 40)
NOISE = 0.004 * DRAWS.standard_normal(40)


def model(p, rate):
    return p["eta"] * rate ** p["phi"] + p["psi"]


def left(p, data):
    return data["y"] - model(p, data["rate"])


def data(noise=NOISE, rate=RATE):
    return {"y": jnp.asarray(model(TRUTH, rate) + noise), "rate": jnp.asarray(rate)}


@jax.jit
def fitted(start, data):
    return fit(left, start, data, bounds=BOUNDS)


def test_noiseless_data_return_the_truth_from_anywhere():
    rng = np.random.default_rng(1)
    draws = {"eta": rng.uniform(0.01, 2, 20), "phi": rng.uniform(0.1, 1.8, 20), "psi": rng.uniform(-0.2, 0.2, 20)}
    found = jax.vmap(fitted, in_axes=(0, None))(jax.tree.map(jnp.asarray, draws), data(noise=0.0))
    np.testing.assert_array_equal(found.status, jx.Status.OK)
    np.testing.assert_allclose(found.values, np.tile(list(TRUTH.values()), (20, 1)), rtol=1e-8)
    # Fault 30: a perfect fit has no error, and nothing is divided by it.
    assert np.all(np.asarray(found.std_errors) < 1e-12)
    assert not np.isnan(found.t).any()


def test_scipy_finds_the_same_optimum_and_errors():
    found = fitted(START, data())
    y = np.asarray(data()["y"])
    peer = scipy.optimize.least_squares(
        lambda p: y - (p[0] * RATE ** p[1] + p[2]), [0.1, 0.6, 0.0], jac="3-point", xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    np.testing.assert_allclose(found.values, peer.x, rtol=3e-6)
    covariance = np.linalg.inv(peer.jac.T @ peer.jac) * 2 * peer.cost / (40 - 3)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-4)
    np.testing.assert_allclose(found.residual_std, np.sqrt(2 * peer.cost / 37), rtol=1e-10)


def test_bounds_change_the_search_and_not_the_answer():
    """Relation 40: one optimum in every parametrisation, errors by the Jacobian; twice the data, half the variance."""
    bounded, natural = fitted(START, data()), fit(left, START, data())
    np.testing.assert_allclose(bounded.values, natural.values, rtol=1e-7)
    np.testing.assert_allclose(bounded.covariance, natural.covariance, rtol=1e-6)
    by_free = np.array([bounded["eta"], bounded["phi"] * (2 - bounded["phi"]) / 2, 1.0])
    np.testing.assert_allclose(bounded.std_errors, by_free * np.sqrt(np.diag(bounded.free_covariance)), rtol=1e-12)
    double = fit(left, START, jax.tree.map(lambda x: jnp.concatenate([x, x]), data()))
    np.testing.assert_allclose(double.values, natural.values, rtol=1e-7)
    np.testing.assert_allclose(double.covariance / natural.covariance, np.full((3, 3), 37 / (80 - 3)), rtol=1e-6)


def test_derivatives():
    def answer(y):
        found = fitted(START, data() | {"y": y})
        return jnp.concatenate([found.values, found.std_errors])

    y = data()["y"]
    forward, reverse = jax.jacfwd(answer)(y), jax.jacrev(answer)(y)
    np.testing.assert_allclose(forward, reverse, rtol=1e-8, atol=1e-12)
    for at in (0, 17):
        step = jnp.zeros_like(y).at[at].set(1e-5)
        np.testing.assert_allclose(forward[:, at], (answer(y + step) - answer(y - step)) / 2e-5, rtol=1e-5, atol=1e-8)


def test_derivative_by_what_is_fixed():
    def answer(phi):
        return fit(left, {"eta": 0.3, "psi": 0.0}, data(), fixed={"phi": phi})["eta"]

    at = jnp.asarray(0.6)
    np.testing.assert_allclose(jax.grad(answer)(at), (answer(at + 1e-5) - answer(at - 1e-5)) / 2e-5, rtol=1e-6)


def confounded(p, d):
    return d["y"] - p["first"] * p["second"] * d["x"] - p["level"]


def test_a_flat_direction_is_named_and_its_errors_are_infinite():
    """Fault 29; a parameter outside the flat direction keeps its error."""
    x, noise = DRAWS.standard_normal((2, 30))
    rows = {"x": jnp.asarray(x), "y": jnp.asarray(2 + 3 * x + 0.1 * noise)}
    positive = {"first": (0.0, None), "second": (0.0, None)}
    found = fit(confounded, {"first": 1.0, "second": 1.5, "level": 0.0}, rows, bounds=positive)
    assert int(found.status) == jx.Status.RANK_DEFICIENT
    assert np.isnan(found.values).all()
    assert np.isinf(found.std_error("first"))
    assert np.isinf(found.std_error("second"))
    assert found.null_directions() == ["log first − log second"]
    alone = statsmodels.api.OLS(np.asarray(rows["y"]), statsmodels.api.add_constant(x)).fit()
    # One more parameter is counted, and tells nothing.
    np.testing.assert_allclose(found.std_error("level"), alone.bse[0] * np.sqrt(28 / 27), rtol=1e-7)
    assert "log first − log second" in found.summary()


def test_every_rate_alike_tells_nothing_of_a_power():
    found = fitted(START, data(rate=np.full(40, 0.1)))
    assert int(found.status) == jx.Status.RANK_DEFICIENT
    assert np.isinf(found.std_errors).all()
    assert len(found.null_directions()) == 2


def line(p, d):
    return d["y"] - p["slope"] * d["x"] - p["level"]


def test_sandwich_is_statsmodels():
    x = DRAWS.standard_normal(50)
    y = 1 + 2 * x + (0.2 + np.abs(x)) * DRAWS.standard_normal(50)
    rows = {"x": jnp.asarray(x), "y": jnp.asarray(y)}
    found = fit(line, {"level": 0.0, "slope": 0.0}, rows, covariance="robust")
    peer = statsmodels.api.OLS(y, statsmodels.api.add_constant(x)).fit(cov_type="HC1")
    np.testing.assert_allclose(found.values, peer.params, rtol=1e-10)
    np.testing.assert_allclose(found.std_errors, peer.bse, rtol=1e-9)
    plain = fit(line, {"level": 0.0, "slope": 0.0}, rows)
    np.testing.assert_allclose(
        plain.intervals(), statsmodels.api.OLS(y, statsmodels.api.add_constant(x)).fit().conf_int()
    )


def test_huber_is_scipy_at_its_scale_and_bears_an_outlier():
    y = np.asarray(data()["y"]).copy()
    y[3] += 0.15
    rows = data() | {"y": jnp.asarray(y)}
    found = fit(left, START, rows, bounds=BOUNDS, loss="huber")
    residuals = y - model({n: float(found[n]) for n in found.names}, RATE)
    scale = 1.4826 * np.median(np.abs(residuals))
    peer = scipy.optimize.least_squares(
        lambda p: y - (p[0] * RATE ** p[1] + p[2]),
        [0.1, 0.6, 0.0],
        loss="huber",
        f_scale=1.345 * scale,
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    # The scale of the last round is that of the round before: rounds agree to a few thousandths.
    np.testing.assert_allclose(found.values, peer.x, rtol=0.02)
    clean = fitted(START, data())
    assert np.all(np.abs(found.values - clean.values) < clean.std_errors)
    assert not np.all(np.abs(fitted(START, rows).values - clean.values) < 3 * clean.std_errors)


def test_a_bad_lane_leaves_its_neighbours_alone():
    rows = jax.tree.map(lambda x: jnp.tile(x, (3, 1)), data())
    rows["y"] = rows["y"] * jnp.asarray([[1.0], [1.2], [0.7]])
    many = jax.vmap(fitted, in_axes=(None, 0))
    good, spoilt = many(START, rows), many(START, rows | {"y": rows["y"].at[1, 4].set(jnp.nan)})
    np.testing.assert_array_equal(spoilt.status, [0, jx.Status.NONFINITE_INPUT, 0])
    assert np.isnan(spoilt.values[1]).all()
    for one, other in zip(jax.tree.leaves(good), jax.tree.leaves(spoilt), strict=True):
        np.testing.assert_array_equal(np.asarray(one)[[0, 2]], np.asarray(other)[[0, 2]])

    def kept(y):
        found = many(START, rows | {"y": y})
        return jnp.where(found.status[:, None] == 0, found.values, 0).sum()

    gradient = np.asarray(jax.grad(kept)(rows["y"].at[1, 4].set(jnp.nan)))
    assert np.isfinite(gradient).all()
    assert (gradient[1] == 0).all()


def test_single_precision():
    small = jax.tree.map(lambda x: x.astype(jnp.float32), data())
    found = fit(left, START, small, bounds=BOUNDS)
    assert found.values.dtype == jnp.float32
    assert int(found.status) in (jx.Status.OK, jx.Status.OK_INACCURATE)
    reference = fitted(START, data())
    apart = np.abs(np.asarray(found.values) - np.asarray(reference.values))
    assert np.all(apart < 0.02 * np.asarray(reference.std_errors))


def test_many_starts_find_the_lowest_valley():
    def wave(p, d):
        return d["y"] - jnp.sin(p["frequency"] * d["x"])

    x = np.linspace(0, 6, 50)
    rows = {"x": jnp.asarray(x), "y": jnp.asarray(np.sin(3 * x))}
    single = fit(wave, {"frequency": 0.8}, rows, bounds={"frequency": (0.0, None)})
    many = fit(wave, {"frequency": 0.8}, rows, bounds={"frequency": (0.0, None)}, starts=40)
    assert abs(float(single["frequency"]) - 3) > 0.1
    np.testing.assert_allclose(many["frequency"], 3, rtol=1e-8)
    assert 1 <= int(many.agreeing) < 40


def test_joint_region_and_ellipse():
    found = fitted(START, data())
    assert found.contains(found.values)
    assert not found.contains(found.values + 10 * found.std_errors)
    curve = found.ellipse("eta", "psi")
    at = np.ix_([0, 2], [0, 2])
    apart = curve - np.asarray(found.values)[[0, 2]]
    distance = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(np.asarray(found.covariance)[at]), apart)
    np.testing.assert_allclose(distance, 2 * scipy.stats.f.ppf(0.95, 2, 37), rtol=1e-9)
    assert np.all(found.intervals(0.999, free=True)[0] > 0)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"start\['phi'\]"):
        fit(left, START | {"phi": 3.0}, data(), bounds=BOUNDS)
    with pytest.raises(ValueError, match="none of the parameters"):
        fit(left, START, data(), bounds={"nu": (0.0, 1.0)})
    with pytest.raises(ValueError, match="must increase"):
        fit(left, START, data(), bounds={"phi": (1.0, 0.0)})
    with pytest.raises(ValueError, match="loss"):
        fit(left, START, data(), loss="cauchy")
    with pytest.raises(ValueError, match="shape"):
        fit(lambda p, d: jnp.sum(left(p, d)), START, data())
    with pytest.raises(ValueError, match="both"):
        fit(left, START, data(), fixed={"phi": 0.5})
    with pytest.raises(ValueError, match="level"):
        fitted(START, data()).intervals(1.0)
    few = fitted(START, jax.tree.map(lambda x: x[:3], data()))
    assert int(few.status) == jx.Status.INSUFFICIENT_DATA


def test_small_eigen_solver():
    rng = np.random.default_rng(3)
    a = rng.standard_normal((5, 5, 7))
    a = np.einsum("ikl,jkl->ijl", a, a)
    a[4], a[:, 4] = a[3], a[:, 3]
    a[4, 4] = a[3, 3]
    values, vectors = symmetric_eigen(jnp.asarray(a))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(a.transpose(2, 0, 1)).T, atol=1e-13)
    np.testing.assert_allclose(np.einsum("ijl,jkl->ikl", a, vectors), values[None] * vectors, atol=1e-13)
