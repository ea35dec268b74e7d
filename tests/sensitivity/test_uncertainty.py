"""Standard errors carried through: against drawing, against the formula of a linear answer, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.sensitivity import FrontierPoints, OptimalSchedule, delta_method, draw
from tests.problems import one

NAMES = ("eta", "phi", "volatility", "volume")
SCHEDULE = OptimalSchedule()
ERRORS = np.array([0.005, 0.02, 0.02, 2e5])
CORRELATION = np.array([[1, 0.5, 0, 0], [0.5, 1, 0, 0], [0, 0, 1, -0.3], [0, 0, -0.3, 1]])
COVARIANCE = CORRELATION * np.outer(ERRORS, ERRORS)


@pytest.fixture(scope="module")
def order():
    return one("")


@pytest.fixture(scope="module")
def bands(order):
    return delta_method(order, COVARIANCE, SCHEDULE, parameters=NAMES)


def test_delta_method_agrees_with_drawing(order, bands):
    drawn = draw(order, COVARIANCE, SCHEDULE, parameters=NAMES, key=jax.random.key(1), draws=3000)
    assert bool(drawn.usable.all())
    spread = np.cov(np.asarray(drawn.values).T) / np.outer(ERRORS, ERRORS)
    np.testing.assert_allclose(spread, CORRELATION, atol=0.06)
    for answer in ("objective", "expected_cost", "variance", "trades", "inventory"):
        a, b = (np.atleast_1d(x.std_error(answer) if x is drawn else x.std_errors[answer]) for x in (drawn, bands))
        moved = b > 0  # the ends of the inventory do not
        np.testing.assert_allclose(a[moved], b[moved], rtol=0.1, err_msg=answer)
    low, high = drawn.interval("objective")
    normal = bands.interval("objective")
    width = float(normal[1] - normal[0])
    np.testing.assert_allclose([low, high], normal, atol=0.1 * width)


def test_frontier_bands_agree_with_drawing(order):
    points = FrontierPoints([5e-7, 5e-6])
    names, covariance = NAMES[:2], COVARIANCE[:2, :2]
    exact = delta_method(order, covariance, points, parameters=names)
    drawn = draw(order, covariance, points, parameters=names, key=jax.random.key(2), draws=1500)
    for answer in ("expected_cost", "variance"):
        np.testing.assert_allclose(drawn.std_error(answer), exact.std_errors[answer], rtol=0.1)


def test_a_linear_answer_has_its_own_error(order, bands):
    """The spread costs ψ a share, whatever the schedule; nothing else is uncertain."""
    found = delta_method(order, np.array([[1e-6]]), SCHEDULE, parameters=("psi",))
    np.testing.assert_allclose(found.std_errors["expected_cost"], 1e-3 * order.shares, rtol=1e-9)
    np.testing.assert_allclose(found.std_errors["trades"], 0, atol=1e-6)
    np.testing.assert_allclose(found.interval("objective", 0.9)[1] - found.answers["objective"], 1.6448536 * 200)
    trades = bands.covariance_of("trades")
    np.testing.assert_allclose(jnp.sqrt(jnp.diag(trades)), bands.std_errors["trades"], rtol=1e-12)
    # All shares are sold, surely: what one step takes more others take less.
    np.testing.assert_allclose(trades.sum(0), 0, atol=1e-9 * float(jnp.max(trades)))
    np.testing.assert_allclose(bands.shares_of_variance("objective").sum(), 1)


def test_covariances_of_rank_one_and_zero_can_be_drawn_from(order):
    square = np.outer(ERRORS[:2], ERRORS[:2])
    found = draw(order, square, SCHEDULE, parameters=NAMES[:2], key=jax.random.key(3), draws=8)
    np.testing.assert_allclose((found.values[:, 0] - 0.1) / 0.005, (found.values[:, 1] - 0.6) / 0.02, atol=1e-6)
    still = draw(order, 0 * square, SCHEDULE, parameters=NAMES[:2], key=jax.random.key(3), draws=8)
    np.testing.assert_allclose(still.std_error("trades"), 0, atol=1e-6)


def test_draws_that_no_market_can_have_are_left_out(order):
    found = draw(order, np.array([[1.0]]), SCHEDULE, parameters=("eta",), key=jax.random.key(0), draws=8)
    bad = np.asarray(found.values[:, 0] <= 0)
    assert bad.any() and not bad.all()
    np.testing.assert_array_equal(found.usable, ~bad)
    assert np.isnan(found.answers["trades"][bad]).all()
    assert np.isfinite(found.std_error("objective"))


def test_both_modes_are_differences_and_a_failed_lane_stays_alone(order):
    names, covariance = NAMES[:2], COVARIANCE[:2, :2]

    def errors(problem):
        found = delta_method(problem, covariance, SCHEDULE, parameters=names)
        return found, jnp.append(found.std_errors["trades"][:3], found.std_errors["objective"])

    def of(k):
        return errors(eqx.tree_at(lambda p: p.market.volatility, order, order.market.volatility * k))[1]

    value, forward, reverse = jax.jit(lambda k: (of(k), jax.jacfwd(of)(k), jax.jacrev(of)(k)))(1.0)
    only, h = jax.jit(of), 1e-5
    np.testing.assert_allclose(forward, reverse, rtol=1e-8)
    np.testing.assert_allclose(forward, (only(1 + h) - only(1 - h)) / (2 * h), rtol=1e-5, atol=1e-6 * value.max())

    bad = eqx.tree_at(lambda p: p.cost.eta, order, jnp.asarray(-1.0))
    several = jax.jit(jax.vmap(lambda p: errors(p)[0]))
    good, mixed = (several(jax.tree.map(lambda *x: jnp.stack(x), *b)) for b in ([order] * 3, [order, bad, order]))
    assert mixed.status.tolist() == [0, int(jx.Status.NONCONVEX), 0]
    for name, error in mixed.std_errors.items():
        assert np.isnan(error[1]).all(), name
        np.testing.assert_array_equal(error[::2], good.std_errors[name][::2])


def test_failed_and_narrow(order, bands):
    lost = delta_method(
        eqx.tree_at(lambda p: p.cost.eta, order, jnp.array(-1.0)), COVARIANCE, SCHEDULE, parameters=NAMES
    )
    assert int(lost.status) == jx.Status.NONCONVEX
    assert all(np.isnan(x).all() for x in lost.std_errors.values())
    narrow = jax.tree.map(lambda x: x.astype(jnp.float32), order)
    found = delta_method(narrow, COVARIANCE.astype("f4"), SCHEDULE, parameters=NAMES)
    assert found.std_errors["trades"].dtype == jnp.float32
    np.testing.assert_allclose(found.std_errors["objective"], bands.std_errors["objective"], rtol=1e-3)


def test_a_covariance_that_is_none(order):
    """Concrete: refused. Traced: a status and NaN, never OK."""
    names = NAMES[:2]
    with pytest.raises(ValueError, match="no negative eigenvalue"):
        delta_method(order, np.array([[1.0, 2.0], [2.0, 1.0]]), SCHEDULE, parameters=names)
    traced = jax.jit(lambda c: delta_method(order, c, SCHEDULE, parameters=names))
    for first in (jnp.nan, -1.0):
        found = traced(jnp.diag(jnp.asarray([first, 1e-4])))
        assert int(found.status) == jx.Status.NONFINITE_INPUT
        assert np.isnan(found.std_errors["objective"]) and np.isnan(found.answers["objective"])
    assert int(traced(jnp.diag(jnp.asarray([1e-4, 1e-4]))).status) == jx.Status.OK


def test_shown(bands):
    table = bands.table()
    assert [row[0] for row in table.rows] == ["expected cost", "objective", "variance"]
    assert "%" in table.rows[0][-1] and "eta 0.1 ± 0.005" in table.footer
    assert bands.plot().axes[0].get_ylabel() == "inventory"
    with pytest.raises(ValueError, match="of shape"):
        bands.plot("objective")


@pytest.mark.parametrize(
    ("covariance", "words"),
    [
        (np.eye(3), r"shape \(4, 4\)"),
        (np.diag([1, -1, 1, 1.0]), r"\[1\] must be at least 0"),
        (np.triu(np.ones((4, 4))), "symmetric"),
        (np.full((4, 4), np.nan), "finite"),
    ],
)
def test_covariances_that_are_none(order, covariance, words):
    with pytest.raises(ValueError, match=words):
        delta_method(order, covariance, SCHEDULE, parameters=NAMES)


def test_other_refusals(order, bands):
    with pytest.raises(ValueError, match="draws must be"):
        draw(order, COVARIANCE, parameters=NAMES, key=jax.random.key(0), draws=1)
    with pytest.raises(ValueError, match="level must be"):
        bands.interval("trades", 1.0)
