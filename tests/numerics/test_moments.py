"""Mergeable moments, least squares on them, Newey–West windows."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxexec.numerics import moments as m

least_squares = jax.jit(m.least_squares)


def data(seed=0, rows=200, columns=4, lanes=3, offset=1e3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns, lanes)) @ np.diag([1.0, 2.0, 3.0][:lanes])
    return offset + x


@jax.jit
def of(x):
    """Moments of (rows, columns, lanes) about their first row."""
    z = [jnp.ones((x.shape[0], x.shape[2])), *(x[:, k] - x[:1, k] for k in range(x.shape[1]))]
    return m.Moments.from_gram(m.gram(z), x[0])


def test_merged_pieces_are_the_whole():
    """Relation 47: any partition, single rows included, in any order."""
    x = data()
    whole = of(x)
    pieces = [of(part) for part in np.split(x, [1, 7, 90, 91])]
    for order in (pieces, pieces[::-1]):
        merged = order[0]
        for piece in order[1:]:
            merged = merged.merge(piece)
        for a, b in zip(jax.tree.leaves(merged), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11)
    np.testing.assert_allclose(whole.comoment[..., 0], np.cov(x[..., 0].T, ddof=0) * 200, rtol=1e-10)
    np.testing.assert_allclose(whole.mean, x.mean(0), rtol=1e-14)


def test_merging_with_nothing_changes_nothing():
    x = of(data())
    nothing = jax.tree.map(jnp.zeros_like, x)
    for merged in (x.merge(nothing), nothing.merge(x)):
        for a, b in zip(jax.tree.leaves(merged), jax.tree.leaves(x), strict=True):
            assert np.array_equal(a, b)


def test_least_squares_equals_lapack():
    x = data(1)
    fit = least_squares(of(x))
    for lane in range(3):
        design = np.column_stack([np.ones(200), x[:, :-1, lane]])
        b = np.linalg.lstsq(design, x[:, -1, lane])[0]
        np.testing.assert_allclose(fit.slopes[:, lane], b[1:], rtol=1e-9)
        np.testing.assert_allclose(fit.intercept[lane], b[0], rtol=1e-9)
        np.testing.assert_allclose(fit.residual_sum[lane], np.sum((x[:, -1, lane] - design @ b) ** 2), rtol=1e-9)
        centred = design[:, 1:] - design[:, 1:].mean(0)
        np.testing.assert_allclose(fit.inverse[..., lane], np.linalg.inv(centred.T @ centred), rtol=1e-8)
        scaled = centred / np.linalg.norm(centred, axis=0)
        np.testing.assert_allclose(fit.condition[lane], np.linalg.cond(scaled), rtol=1e-6)


@pytest.mark.parametrize("name", ["Norris", "Pontius", "Longley", "Wampler1", "Wampler5", "Filip"])
def test_nist_sets_are_right_or_refused(name):
    """Certified to 1e-5 where the condition allows; Filip (a polynomial of degree 10) is refused (fault 43)."""
    path = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "nist" / "linear.json"
    if not path.exists():
        pytest.skip("the NIST sets are not at hand")
    chosen = json.loads(path.read_text())[name]
    x = np.array(chosen["x"], float)
    if chosen["kind"] == "polynomial":
        x = np.stack([x**power for power in range(1, chosen["degree"] + 1)], axis=1)
    fit = least_squares(of(np.column_stack([x, chosen["y"]])[..., None]))
    limit = np.finfo(float).eps ** (-1 / 3)
    if name == "Filip":
        assert fit.deficient[0] or fit.condition[0] > limit
    else:
        assert fit.condition[0] < limit
        np.testing.assert_allclose(fit.slopes[:, 0], list(chosen["certified"]["params"].values())[1:], rtol=1e-5)


def test_deficient_columns_are_seen_and_stay_finite():
    x = data(2, offset=0.0)
    x[:, 1, 0] = 5.0
    x[:, 2, 1] = x[:, 0, 1] - 2 * x[:, 1, 1]
    fit = least_squares(of(x))
    assert fit.deficient.tolist() == [True, True, False]
    assert fit.condition.tolist()[:2] == [np.inf, np.inf]
    assert all(np.isfinite(leaf).all() for leaf in (fit.slopes, fit.inverse, fit.intercept))


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_small_algebra_equals_lapack(k):
    a = np.random.default_rng(k).standard_normal((7, k, k))
    a = a @ a.transpose(0, 2, 1) + 0.1 * np.eye(k)
    last = jnp.asarray(np.moveaxis(a, 0, -1))
    inverse, pivot = m.inverse_definite(last)
    np.testing.assert_allclose(np.moveaxis(inverse, -1, 0), np.linalg.inv(a), rtol=1e-8)
    np.testing.assert_allclose(pivot, (np.diagonal(np.linalg.cholesky(a), axis1=1, axis2=2) ** 2).min(1), rtol=1e-9)
    np.testing.assert_allclose(m.largest_eigenvalue(last), np.linalg.eigvalsh(a)[:, -1], rtol=1e-6)


def test_largest_eigenvalue_of_equal_and_nearly_equal_eigenvalues():
    for small in (1.0, 1 - 1e-7, 1 - 1e-5):
        a = jnp.asarray(np.diag([1.0, small, 0.3])[..., None])
        np.testing.assert_allclose(m.largest_eigenvalue(a), 1.0, rtol=4e-7)


def test_derivative_of_the_inverse():
    a = jnp.asarray(np.array([[2.0, 0.3], [0.3, 1.0]])[..., None])
    direction = jnp.asarray(np.array([[0.2, -0.1], [-0.1, 0.4]])[..., None])

    def inverse(x):
        return m.inverse_definite(x)[0]

    tangent = jax.jvp(inverse, (a,), (direction,))[1]
    step = 1e-6
    np.testing.assert_allclose(
        tangent, (inverse(a + step * direction) - inverse(a - step * direction)) / (2 * step), rtol=1e-8
    )
    weights = jnp.asarray(np.array([[1.0, 2.0], [3.0, 4.0]])[..., None])
    reverse = jax.grad(lambda x: (weights * inverse(x)).sum())(a)
    np.testing.assert_allclose((reverse * direction).sum(), (weights * tangent).sum(), rtol=1e-12)


def test_lag_rule_is_exact():
    def slow(n):
        lags = 0
        while (lags + 1) ** 9 * 10**4 <= 4**9 * n**2:
            lags += 1
        return lags

    lengths = [0, 1, 4, 5, 99, 100, 101, 51_199, 51_200, 51_201, 500_000, 10_000_000]
    expected = [slow(n) for n in lengths]
    assert [m.most_newey_west_lags(n) for n in lengths] == expected
    assert m.newey_west_lags(jnp.asarray(lengths, jnp.int32), 60).tolist() == expected
    assert expected[5] == 4
    assert expected[8] == 16  # where ⌊4 · 512^(2/9)⌋ in floating point may give 15


def test_windows_are_the_bartlett_estimator():
    """Each lane with its own number of lags, against the weighted sum of autocovariances."""
    rng = np.random.default_rng(3)
    lags, longest = np.array([0, 1, 6, 13]), 13
    scores = np.concatenate([rng.standard_normal((50, 4)), np.zeros((longest, 4))])
    windows = m.bartlett_windows(jnp.asarray(scores), jnp.asarray(lags), longest)
    for lane, count in enumerate(lags):
        s = scores[:, lane]
        direct = s @ s + 2 * sum((1 - j / (count + 1)) * (s[j:] @ s[:-j]) for j in range(1, count + 1))
        np.testing.assert_allclose(float((windows[:, lane] ** 2).sum()) / (count + 1), direct, rtol=1e-12)
        plain = np.array([s[max(t - count, 0) : t + 1].sum() for t in range(len(s))])
        np.testing.assert_allclose(windows[:, lane], plain, atol=1e-12)


def test_time_reversal():
    """Relation 46: Bartlett's estimator is the same backwards."""
    s = np.random.default_rng(4).standard_normal((40, 1))
    room = np.zeros((5, 1))
    lags = jnp.asarray([5])
    forth, back = (m.bartlett_windows(jnp.asarray(np.concatenate([x, room])), lags, 5) for x in (s, s[::-1]))
    np.testing.assert_allclose((forth**2).sum(), (back**2).sum(), rtol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 100])
def test_sum_over_time(rows):
    x = np.random.default_rng(rows).standard_normal((rows, 3))
    np.testing.assert_allclose(m.sum_time(jnp.asarray(x)), x.sum(0), atol=1e-12)
