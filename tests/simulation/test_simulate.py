"""Monte Carlo against closed moments, normal quantiles and itself; its derivatives against differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxexec as jx

STEPS, PATHS = 12, 2**14
NOISY = jx.PriceProcess(variance_noise=jx.MeanReverting(0.5, 3.0, 0.4), volume_noise=jx.MeanReverting(0.4, 2.0))


def order(volatility=0.6, eta=0.1, permanent=2e-8, convention="continuous", phi=0.6, gamma=1e-6):
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), volatility, 4e6, permanent, 0.02)
    cost = jx.QuadraticCost(eta, 0.004) if phi == 1 else jx.PowerLawCost(eta, phi, 0.004)
    return jx.Liquidation(2e5, market, cost, gamma, convention=convention)


@functools.cache
def trades():
    return jx.solve(order()).trades


def assert_within(found, mean, variance, errors=4):
    assert abs(found.mean - mean) <= errors * found.mean_error + 1e-6
    assert abs(found.variance - variance) <= errors * found.variance_error + 1e-9 * variance


@pytest.mark.parametrize(
    ("convention", "sampling"),
    [("continuous", "pseudo"), ("continuous", "quasi"), ("almgren-chriss", "antithetic")],
)
def test_mean_and_variance_of_a_solved_schedule(convention, sampling):
    problem = order(convention=convention, phi=0.6 if convention == "continuous" else 1)
    best = jx.solve(problem)
    found = jx.simulate(problem, best, paths=PATHS, sampling=sampling)
    assert found.paths == PATHS
    assert_within(found, best.expected_cost, best.variance)
    if sampling == "pseudo":
        np.testing.assert_allclose(found.mean_error, np.sqrt(best.variance / PATHS), rtol=0.5)
        np.testing.assert_allclose(found.variance_error, best.variance * np.sqrt(2 / PATHS), rtol=0.5)


def test_of_every_closed_form():
    """One compiled programme, the schedules of all rules and closed forms as its lanes."""
    problem = order(convention="almgren-chriss", phi=1)
    closed = jx.almgren_chriss(
        2e5, 1.0, STEPS, volatility=0.6, temporary_impact=0.1 / 4e6, permanent_impact=2e-8, variance_weight=5e-7
    )
    path = jx.gueant_quadratic(
        2e5, problem.grid.times, horizon=1.0, volatility=0.6, volume=4e6, eta=0.1, risk_aversion=1e-6
    )
    slow = jx.infinite_horizon(
        2e5, problem.grid.times, volatility=0.6, impact=0.1 / 4e6, exponent=1.0, variance_weight=5e-7
    )
    schedules = jnp.stack(
        [
            jx.twap(problem),
            jx.vwap(problem),
            jx.immediate(problem),
            jx.pov(problem, 0.1),
            jx.front_loaded(problem),
            jx.exponential(problem, 3.0),
            closed.trades,
            -jnp.diff(path.inventory),
            -jnp.diff(slow.inventory),
        ]
    )
    found = jax.vmap(lambda n: jx.simulate(problem, n, paths=PATHS, seed=5))(schedules)
    for i, n in enumerate(schedules):
        lane = jax.tree.map(lambda x, i=i: x[i], found)
        assert_within(lane, jx.expected_cost(problem, n), jx.variance(problem, n))


@pytest.mark.parametrize(
    "process",
    [
        jx.PriceProcess("geometric", initial_price=5.0),
        jx.PriceProcess(execution="after", permanent=jx.PowerImpact(1e-5, 0.6)),
        jx.PriceProcess(variance_noise=jx.MeanReverting(0.6, 2.0, -0.5)),
    ],
    ids=["geometric", "after", "random variance"],
)
def test_other_processes_against_their_moments(process):
    exact = jx.shortfall_moments(order(), trades(), process)
    found = jx.simulate(order(), trades(), process, paths=PATHS, seed=2)
    assert_within(found, exact.expected_cost, exact.variance)


def test_random_volume_costs_what_its_moments_say():
    """With a power law E[f^{−φ}] = e^{½φ(1 + φ)s²} multiplies the temporary cost, whatever the speed."""
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 0.0, 4e6)
    problem = jx.Liquidation(2e5, market, jx.PowerLawCost(0.1, 0.6), 0.0)
    found = jx.simulate(
        problem, jx.twap(problem), jx.PriceProcess(volume_noise=jx.MeanReverting(0.4, 2.0)), paths=PATHS
    )
    exact = jx.expected_cost(problem, jx.twap(problem)) * np.exp(0.5 * 0.6 * 1.6 * 0.16)
    assert abs(found.mean - exact) < 4 * found.mean_error
    assert found.mean_error < 1e-2 * exact
    quasi = jx.simulate(
        problem,
        jx.twap(problem),
        jx.PriceProcess(volume_noise=jx.MeanReverting(0.4, 2.0)),
        paths=PATHS,
        sampling="quasi",
    )
    assert abs(quasi.mean - exact) < 4 * quasi.mean_error
    assert quasi.mean_error < found.mean_error / 5


def test_quantiles_are_normal_ones():
    exact = jx.shortfall_moments(order(), trades())
    mean, deviation = float(exact.expected_cost), float(np.sqrt(exact.variance))
    found = jx.simulate(order(), trades(), paths=PATHS, sampling="quasi", levels=(0.05, 0.5, 0.99))
    at = stats.norm.ppf([0.05, 0.5, 0.99])
    np.testing.assert_allclose(found.value_at_risk, mean + deviation * at, atol=0.01 * deviation)
    beyond = stats.norm.pdf(at) / (1 - np.array([0.05, 0.5, 0.99]))
    np.testing.assert_allclose(found.conditional_value_at_risk, mean + deviation * beyond, atol=0.01 * deviation)
    assert np.sum(found.counts) == PATHS
    # Five times fewer paths at the same error is what quasi-random paths must give: here it is far more.
    drawn = jx.simulate(order(), trades(), paths=PATHS, levels=(0.05, 0.5, 0.99))
    assert np.all(found.value_at_risk_error < drawn.value_at_risk_error / 5**0.5)
    assert found.mean_error < drawn.mean_error / 100


def test_without_risk_everything_is_the_cost():
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 0.0, 4e6, 2e-8)
    problem = jx.Liquidation(2e5, market, jx.PowerLawCost(0.1, 0.6), 1e-6)
    found = jx.simulate(problem, jx.twap(problem), paths=64)
    cost = float(jx.expected_cost(problem, jx.twap(problem)))
    for value in (found.mean, *found.value_at_risk, *found.conditional_value_at_risk, found.least, found.greatest):
        assert float(value) == pytest.approx(cost, rel=1e-12)
    assert found.variance == 0


def test_progress_changes_nothing():
    calls = []
    plain = jx.simulate(order(), trades(), paths=PATHS)
    shown = jx.simulate(order(), trades(), paths=PATHS, progress=lambda done, total: calls.append((done, total)))
    np.testing.assert_allclose(shown.variance, plain.variance, rtol=1e-12)
    np.testing.assert_array_equal(shown.counts, plain.counts)
    assert calls[-1] == (PATHS, PATHS)
    assert len(calls) == 32
    other = jx.simulate(order(), trades(), paths=PATHS, seed=1)
    assert other.mean != plain.mean


def test_derivatives():
    """Of one sample: mean, variance and tail means to the last digit, quantiles as well as a sample lets one."""

    @jax.jit
    def estimates(x):
        found = jx.simulate(order(*x), trades(), NOISY, paths=2**12, levels=(0.95,))
        spread = jnp.sqrt(found.variance)
        return jnp.stack([found.mean, spread, found.conditional_value_at_risk[0], found.value_at_risk[0]])

    point = np.array([0.6, 0.1, 2e-8])
    forward, reverse = (np.asarray(mode(estimates)(jnp.asarray(point))) for mode in (jax.jacfwd, jax.jacrev))
    largest = np.abs(forward).max(0)
    np.testing.assert_allclose(forward / largest, reverse / largest, atol=1e-6)
    for i in range(3):
        step = np.eye(3)[i] * point * 1e-4
        numeric = (estimates(jnp.asarray(point + step)) - estimates(jnp.asarray(point - step))) / (2 * step[i])
        scale = np.abs(numeric).max()
        np.testing.assert_allclose(forward[:2, i], numeric[:2], rtol=1e-5, atol=1e-5 * scale)
        np.testing.assert_allclose(forward[2, i], numeric[2], rtol=0.01, atol=1e-5 * scale)
        np.testing.assert_allclose(forward[3, i], numeric[3], rtol=0.1, atol=1e-5 * scale)


def test_single_precision():
    f32 = np.float32
    market = jx.Market(jx.TimeGrid(np.linspace(0, 1, STEPS + 1, dtype=f32)), f32(0.6), f32(4e6), f32(2e-8), f32(0.02))
    problem = jx.Liquidation(f32(2e5), market, jx.PowerLawCost(f32(0.1), f32(0.6), f32(0.004)), f32(1e-6))
    found = jx.simulate(problem, trades().astype(f32), paths=PATHS)
    double = jx.simulate(order(), trades(), paths=PATHS)
    assert found.mean.dtype == np.float32
    np.testing.assert_allclose(found.mean, double.mean, atol=2e-3 * float(double.mean_error))
    np.testing.assert_allclose(found.variance, double.variance, rtol=2e-5)
    np.testing.assert_allclose(found.value_at_risk, double.value_at_risk, atol=2e-2 * float(double.mean_error))


def test_failed_lanes():
    found = jax.vmap(lambda s: jx.simulate(order(volatility=s), trades(), paths=PATHS))(jnp.array([0.6, jnp.nan]))
    assert found.status.tolist() == [jx.Status.OK, jx.Status.NONFINITE_INPUT]
    assert np.isnan(found.mean).tolist() == [False, True]
    assert np.all(np.isnan(found.conditional_value_at_risk[1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": 10}, "paths must be an integer of at least 64"),
        ({"paths": 1e6}, "paths must be an integer"),
        ({"sampling": "latin"}, "sampling must be one of"),
        ({"levels": (0.5, 1.0)}, r"levels\[1\] must be between 0 and 1"),
        ({"process": 1.0}, "process must be a jaxexec.PriceProcess"),
        ({"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        jx.simulate(order(), trades(), **changes)
    with pytest.raises(ValueError, match=r"trades must have shape \(12,\)"):
        jx.simulate(order(), np.zeros(3))
    with pytest.raises(ValueError, match="progress needs concrete"):
        jax.jit(lambda n: jx.simulate(order(), n, progress=print))(trades())


def test_what_is_shown():
    found = jx.simulate(order(), trades(), paths=PATHS)
    text = found.summary()
    assert "value at risk, 95 %" in text
    assert "16,384 paths" in text
    assert found.to_polars()["level"].to_list() == [0.5, 0.95, 0.99]
    assert "quantile" in "".join(t.get_text() for t in found.plot().findobj(lambda a: hasattr(a, "get_text")))


def test_second_derivatives():
    """Of the variance they are exact; of a tail mean there are none, and that is said."""

    def of(sigma, name):
        return jnp.sum(getattr(jx.simulate(order(volatility=sigma), trades(), paths=2**11, levels=(0.95,)), name))

    second = jax.jacfwd(jax.grad(of))
    np.testing.assert_allclose(second(0.6, "variance"), 2 * of(0.6, "variance") / 0.36, rtol=1e-6)
    assert np.isnan(second(0.6, "conditional_value_at_risk"))


def test_corners_have_their_derivatives_or_none():
    """Without risk every estimate is the cost; where the noise's own derivative is infinite it is NaN, alone."""

    def certain(eta):
        found = jx.simulate(order(volatility=0.0, eta=eta), trades(), paths=2**11, levels=(0.95,))
        return jnp.stack([found.mean, found.value_at_risk[0], found.conditional_value_at_risk[0]])

    exact = jax.grad(lambda eta: jx.expected_cost(order(volatility=0.0, eta=eta), trades()))(0.1)
    np.testing.assert_allclose(jax.jacfwd(certain)(0.1), jnp.full(3, exact), rtol=1e-9)

    def noisy(speed, deviation):
        noise = jx.MeanReverting(deviation, speed)
        return jx.simulate(order(), trades(), jx.PriceProcess(volume_noise=noise), paths=2**11).mean

    slopes = jax.grad(noisy, argnums=(0, 1))(0.0, 0.4)
    assert np.isnan(slopes[0])
    assert np.isfinite(slopes[1])


def test_infeasible_lanes_leave_the_others_their_derivatives():
    def of(sigma, scale):
        capped = jx.Liquidation(2e5, order(sigma).market, jx.ParticipationCap(jx.QuadraticCost(0.1), 0.5), 1e-6)
        return jx.simulate(capped, trades() * scale, paths=2**11)

    scale, sigma = jnp.array([1.0, 50.0]), jnp.array([0.6, 0.6])

    def loss(sigma, weight):
        found = jax.vmap(of)(sigma, scale)
        return jnp.sum(jnp.where(weight > 0, found.variance, 0)), found.status

    slopes = jax.jit(jax.grad(loss, has_aux=True))
    masked, status = slopes(sigma, jnp.array([1.0, 0.0]))
    assert status.tolist() == [jx.Status.OK, jx.Status.INFEASIBLE]
    assert np.isfinite(masked[0])
    assert masked[1] == 0
    assert np.isnan(slopes(sigma, jnp.ones(2))[0][1])


def test_errors_that_replicates_cannot_tell_are_nan():
    found = jx.simulate(order(), trades(), paths=2**11, levels=(0.5, 0.99))
    assert np.isnan(found.value_at_risk_error).tolist() == [False, True]
    assert np.all(np.isfinite(found.conditional_value_at_risk))
