"""Schedules under transient impact against dense solves, closed forms and limits; derivatives; failures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special

import jaxexec as jx

NODES = 9
EQUAL = np.linspace(0.0, 1.0, NODES)
UNEQUAL = np.array([0.0, 0.05, 0.2, 0.3, 0.45, 0.7, 0.75, 0.9, 1.0])
SHARES, SIGMA, GAMMA = 2e5, 0.6, 1e-6
KERNELS = {
    "exponential": jx.ExponentialKernel(2e-7, 3.0),
    "power": jx.PowerLawKernel(2e-7, 0.4, 0.05),
    "singular": jx.SingularPowerLawKernel(1e-7, 0.5, 0.05),
    "sum": jx.ExponentialKernel(1e-7, 0.0) + jx.PowerLawKernel(2e-7, 0.4, 0.05),
}


def matrix(kernel, times, gamma=0.0, own=0.0):
    """The matrix of the objective in trades, G + 2θ + γ min(v_i, v_j) with v the variance so far."""
    so_far = SIGMA**2 * (times - times[0])
    values = np.asarray(jax.jit(lambda k, t: k.value(t))(kernel, np.abs(times[:, None] - times[None, :])))
    return values + gamma * np.minimum(so_far[:, None], so_far[None, :]) + np.diag(np.broadcast_to(2 * own, len(times)))


def dense(kernel, times, gamma=0.0, own=0.0):
    """SHARES · M⁻¹1/(1ᵀM⁻¹1), by another matrix and another factorisation than the package's."""
    weights = scipy.linalg.solve(matrix(kernel, times, gamma, own), np.ones(len(times)), assume_a="sym")
    return SHARES * weights / np.sum(weights)


@pytest.mark.parametrize("name", KERNELS)
def test_against_a_dense_solve(name):
    own, none = 1e-8 * np.linspace(1, 3, NODES), np.zeros(NODES)
    settings = [(EQUAL, 0.0, 0.0), (EQUAL, 0.0, 3e-8), (UNEQUAL, 0.0, none), (UNEQUAL, GAMMA, own)]
    for times, gamma, theta in settings:
        # What is known to be zero takes the other method: on the second grid a risk aversion is always given.
        given = {"temporary_impact": theta} | ({} if times is EQUAL else {"volatility": SIGMA, "risk_aversion": gamma})
        s = jx.transient_schedule(SHARES, times, KERNELS[name], **given)
        n = dense(KERNELS[name], times, gamma, theta)
        left = SHARES - np.cumsum(n)
        assert s.status == jx.Status.OK
        np.testing.assert_allclose(s.trades, n, atol=1e-12 * SHARES)
        np.testing.assert_allclose(s.inventory, left, atol=1e-12 * SHARES)
        np.testing.assert_allclose(s.objective, n @ matrix(KERNELS[name], times, gamma, theta) @ n / 2, rtol=1e-13)
        np.testing.assert_allclose(s.marginal_cost, 2 * s.objective / SHARES, rtol=1e-12)
        if times is UNEQUAL:
            np.testing.assert_allclose(s.variance, SIGMA**2 * np.diff(times) @ left[:-1] ** 2, rtol=1e-12)
        np.testing.assert_allclose(s.objective, s.expected_cost + gamma / 2 * s.variance, rtol=1e-14)


def test_known_equal_steps_with_risk():
    given = {"volatility": SIGMA, "risk_aversion": GAMMA, "temporary_impact": 1e-8 * np.linspace(1, 3, NODES)}
    s = jx.transient_schedule(SHARES, EQUAL, KERNELS["power"], **given)
    n = dense(KERNELS["power"], EQUAL, GAMMA, given["temporary_impact"])
    np.testing.assert_allclose(s.trades, n, atol=1e-12 * SHARES)
    again = jx.transient_cost(n, EQUAL, KERNELS["power"], **given)
    for field in ("inventory", "expected_cost", "variance", "objective", "marginal_cost"):
        np.testing.assert_allclose(getattr(again, field), getattr(s, field), rtol=1e-11, atol=1e-7)


def test_against_clarabel():
    cp = pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    times, own = UNEQUAL, 2e-8
    s = jx.transient_schedule(
        SHARES, times, KERNELS["power"], volatility=SIGMA, risk_aversion=GAMMA, temporary_impact=own
    )
    # In units of the order: the objective of trades n and of holdings x, written out.
    n, impact = cp.Variable(NODES), matrix(KERNELS["power"], times) / 2e-7
    left = 1 - cp.cumsum(n)
    risk = GAMMA * SIGMA**2 / 2e-7 * cp.sum(cp.multiply(np.diff(times), cp.square(left[:-1])))
    cost = cp.quad_form(n, cp.psd_wrap(impact)) / 2 + own / 2e-7 * cp.sum_squares(n) + risk / 2
    programme = cp.Problem(cp.Minimize(cost), [cp.sum(n) == 1])
    programme.solve(solver="CLARABEL", tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
    assert n.value is not None and programme.value is not None
    np.testing.assert_allclose(s.trades / SHARES, n.value, atol=2e-7)
    np.testing.assert_allclose(s.objective, programme.value * 2e-7 * SHARES**2, rtol=1e-9)


@pytest.mark.parametrize("decay", [1e-200, 1e-12, 1e-3, 3.0, 200.0, 1e4])
@pytest.mark.parametrize("times", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_exponential_kernel_is_obizhaeva_and_wang(times, decay):
    """Two ways to the same numbers, to rounding from next to no decay, half at either end, to equal slices."""
    s = jx.transient_schedule(SHARES, times, jx.ExponentialKernel(2e-7, decay))
    closed = jx.obizhaeva_wang(SHARES, times, impact=2e-7, resilience=decay)
    np.testing.assert_allclose(s.trades, closed.trades, atol=2e-15 * SHARES)
    np.testing.assert_allclose(s.expected_cost, closed.expected_cost, rtol=2e-14)
    if decay == 1e4:
        np.testing.assert_allclose(s.trades, np.full(NODES, SHARES / NODES), rtol=1e-12)


def test_constant_kernel_with_temporary_impact_is_almgren_and_chriss():
    """Trades of step k made at its beginning; their η̃/τ is the temporary impact, their λ is γ/2."""
    steps, eta, permanent = NODES, 2.5e-6, 2.5e-7
    ac = jx.almgren_chriss(
        SHARES,
        1.8,
        steps,
        volatility=SIGMA,
        temporary_impact=eta,
        permanent_impact=permanent,
        variance_weight=GAMMA / 2,
    )
    tau = 1.8 / steps
    s = jx.transient_schedule(
        SHARES,
        tau * np.arange(steps),
        jx.ExponentialKernel(permanent, 0.0),
        volatility=SIGMA,
        risk_aversion=GAMMA,
        temporary_impact=eta / tau - permanent / 2,
    )
    np.testing.assert_allclose(s.trades, ac.trades, atol=1e-12 * SHARES)
    np.testing.assert_allclose(s.expected_cost, ac.expected_cost, rtol=1e-13)
    np.testing.assert_allclose(s.variance, ac.variance, rtol=1e-13)


def test_permanent_impact_alone_prefers_no_schedule():
    """Any trades cost ½κX², so there is no one best."""
    kernel = jx.ExponentialKernel(2e-7, 0.0)
    for trades in (np.eye(NODES)[3], np.full(NODES, 1 / NODES), np.linspace(-1, 1, NODES) + 1 / NODES):
        cost = jx.transient_cost(SHARES * trades, EQUAL, kernel).expected_cost
        np.testing.assert_allclose(cost, 1e-7 * SHARES**2, rtol=1e-13)
    for times in (EQUAL, UNEQUAL):
        s = jx.transient_schedule(SHARES, times, kernel)
        assert s.status == jx.Status.NONCONVEX
        assert np.isnan(s.trades).all() and np.isnan(s.objective)


def test_linear_decay_wants_half_at_either_end():
    """G = κ(1 − t): beyond t = 2 it has taken the price up, and round trips still cost."""
    kernel = jx.CustomKernel(lambda lag, p: p * (1 - lag), 2e-7)
    for end in (0.5, 3.0):
        s = jx.transient_schedule(SHARES, end * EQUAL, kernel)
        wanted = np.zeros(NODES)
        wanted[[0, -1]] = SHARES / 2
        np.testing.assert_allclose(s.trades, wanted, atol=1e-13 * SHARES)
        np.testing.assert_allclose(s.expected_cost, (1 - end / 2) * 1e-7 * SHARES**2, rtol=1e-13)


@pytest.mark.parametrize("exponent", [0.3, 0.6])
def test_singular_power_law_tends_to_its_continuous_optimum(exponent):
    """Gatheral, Schied and Slynko (2012): rates ∝ [t(T − t)]^{(γ−1)/2}, whose potential is constant, known by Γ."""
    half = (1 + exponent) / 2
    potential = 2**exponent * np.pi / np.cos(np.pi * exponent / 2) / scipy.special.beta(0.5, half)
    costs = []
    for steps in (64, 256):
        times = np.arange(steps) / steps
        s = jx.transient_schedule(1.0, times, jx.SingularPowerLawKernel(1.0, exponent, 1 / steps))
        wanted = np.diff(scipy.special.betainc(half, half, np.linspace(0, 1, steps + 1)))
        costs.append(float(s.expected_cost) / (potential / 2) - 1)
        np.testing.assert_allclose(s.trades, s.trades[::-1], rtol=1e-10)
    np.testing.assert_allclose(s.trades[4:-4], wanted[4:-4], rtol=3e-3)
    np.testing.assert_allclose(np.cumsum(s.trades), np.cumsum(wanted), atol=1e-3)
    assert 0 < costs[1] < costs[0] / 3 < 1e-3  # steps only bind, and bind less as they halve


def test_symmetry_size_and_side():
    """Relations of scale: n_k = n_{N−k}, cost c² for c times the shares, both signs, and impact's units."""
    for name, kernel in KERNELS.items():
        s = jx.transient_schedule(SHARES, EQUAL, kernel)
        np.testing.assert_allclose(s.trades, s.trades[::-1], rtol=1e-12, err_msg=name)
        bigger = jx.transient_schedule(-3 * SHARES, EQUAL, kernel)
        np.testing.assert_allclose(bigger.trades, -3 * s.trades, rtol=1e-13)
        np.testing.assert_allclose(bigger.objective, 9 * s.objective, rtol=1e-13)


def test_known_and_traced_times_agree():
    """Known equal steps take Levinson's recursion, traced ones Cholesky's factorisation."""
    known = jx.transient_schedule(SHARES, EQUAL, KERNELS["singular"], temporary_impact=1e-8)
    traced = jax.jit(lambda t: jx.transient_schedule(SHARES, t, KERNELS["singular"], temporary_impact=1e-8))(EQUAL)
    grid = jx.TimeGrid.uniform(1.0, NODES - 1)
    by_grid = jx.transient_schedule(SHARES, grid, KERNELS["singular"], temporary_impact=1e-8)
    np.testing.assert_allclose(traced.trades, known.trades, atol=1e-13 * SHARES)
    np.testing.assert_array_equal(by_grid.trades, known.trades)


def test_nothing_is_better():
    """Round trips on top cost their own, ½δᵀMδ: the objective is a quadratic about the optimum."""
    rng = np.random.default_rng(3)
    whole = matrix(KERNELS["power"], UNEQUAL, GAMMA, 1e-8)
    given = {"volatility": SIGMA, "risk_aversion": GAMMA, "temporary_impact": 1e-8}
    best = jx.transient_schedule(SHARES, UNEQUAL, KERNELS["power"], **given)
    for _ in range(20):
        trip = SHARES * rng.normal(size=NODES)
        trip -= trip.mean()
        other = jx.transient_cost(best.trades + trip, UNEQUAL, KERNELS["power"], **given)
        extra = trip @ whole @ trip / 2
        assert extra > 0
        np.testing.assert_allclose(other.objective - best.objective, extra, rtol=1e-11)
        assert jx.transient_cost(trip, UNEQUAL, KERNELS["power"]).expected_cost >= 0


POINT = {
    "shares": SHARES,
    "times": UNEQUAL,
    "impact": 2e-7,
    "exponent": 0.4,
    "scale": 0.05,
    "lasting": 1e-7,
    "volatility": SIGMA,
    "risk_aversion": GAMMA,
    "temporary_impact": 1e-8,
}


def solved(p):
    kernel = jx.PowerLawKernel(p["impact"], p["exponent"], p["scale"]) + jx.ExponentialKernel(p["lasting"], 0.0)
    names = ("volatility", "risk_aversion", "temporary_impact")
    s = jx.transient_schedule(p["shares"], p["times"], kernel, **{name: p[name] for name in names})
    return jnp.concatenate(
        [s.trades / SHARES, jnp.stack([s.expected_cost / 4e3, s.variance / 1e10, s.objective / 4e3])]
    )


def test_derivatives():
    """Forward, reverse and differences, at γ = 0 and θ = 0 too; ∂U/∂γ = Var/2."""
    values = jax.jit(solved)
    modes = [jax.jit(mode(solved)) for mode in (jax.jacfwd, jax.jacrev)]
    for zero in ((), ("risk_aversion", "temporary_impact")):
        point = {name: np.asarray(0.0 if name in zero else x) for name, x in POINT.items()}
        forward, reverse = (mode(point) for mode in modes)
        base = np.asarray(values(point))
        for name, x in point.items():
            # Powers of ten are no one's scale: all derivatives per relative change of the parameter as it is in POINT.
            scale = POINT[name] if name != "times" else 1.0
            np.testing.assert_allclose(forward[name] * scale, reverse[name] * scale, rtol=1e-8, atol=1e-11)
            for index in np.ndindex(x.shape):
                step = np.zeros_like(x)
                step[index] = 1e-5 * scale
                if name in zero:  # one side of a boundary: a one-sided difference of second order
                    up, upper = (np.asarray(values(point | {name: x + m * step})) for m in (1, 2))
                    numeric = (4 * up - upper - 3 * base) / 2e-5
                else:
                    up, down = (np.asarray(values(point | {name: x + m * step})) for m in (1, -1))
                    numeric = (up - down) / 2e-5
                found = np.asarray(forward[name])[(slice(None), *index)] * scale
                np.testing.assert_allclose(found, numeric, rtol=2e-6, atol=2e-8, err_msg=f"{name}{index}")
        np.testing.assert_allclose(forward["risk_aversion"][-1] * 4e3, base[-2] * 1e10 / 2, rtol=1e-11)


@pytest.mark.parametrize("times", [EQUAL, UNEQUAL], ids=["Levinson", "Cholesky"])
def test_second_derivatives(times):
    """The derivative of a derivative goes through the solve again."""

    def cost(p):
        return jx.transient_schedule(1.0, times, jx.ExponentialKernel(1.0, p[0]), temporary_impact=p[1]).expected_cost

    slope = jax.grad(cost)
    point, way = np.array([3.0, 0.03]), np.array([1.0, 0.02])
    value, bend = jax.jit(lambda p: jax.jvp(slope, (p,), (way,)))(point)
    quick = jax.jit(slope)
    np.testing.assert_allclose(value, quick(point), rtol=1e-13)
    numeric = (quick(point + 1e-5 * way) - quick(point - 1e-5 * way)) / 2e-5
    np.testing.assert_allclose(bend, numeric, rtol=1e-7)


@pytest.mark.parametrize("times", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_lanes_that_fail_leave_the_others_alone(times):
    def lane(rate, shares):
        return jx.transient_schedule(shares, times, jx.CustomKernel(bent, {"rate": rate}))

    def loss(rates, shares, masked):
        s = jax.vmap(lane)(rates, shares)
        usable = (s.status == jx.Status.OK) | ~masked
        return jnp.sum(jnp.where(usable, s.objective, 0)), s

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    shares = np.full(6, SHARES)
    (_, good), _ = both(np.array([4.0, 2.0, 2.0, 2.0, 4.0, 2.0]), shares, True)
    rates = np.array([4.0, 2.0, 0.0, np.nan, 4.0, 30.0])
    (total, mixed), masked = both(rates, shares, True)
    (lost, _), unmasked = both(rates, shares, False)
    wanted = [jx.Status.OK] * 2 + [jx.Status.NONCONVEX, jx.Status.NONFINITE_INPUT, jx.Status.OK, jx.Status.NONCONVEX]
    assert [jx.Status(int(x)) for x in mixed.status] == wanted
    bad, sound = np.array([2, 3, 5]), np.array([0, 1, 4])
    np.testing.assert_array_equal(mixed.trades[sound], good.trades[sound])
    assert np.isnan(mixed.trades[bad]).all() and np.isnan(mixed.objective[bad]).all()
    assert np.isfinite(total) and np.isnan(lost)
    for x, y in zip(masked, unmasked, strict=True):
        assert np.isfinite(x).all() and (x[bad] == 0).all()
        assert np.isnan(y[bad]).all()
        np.testing.assert_array_equal(x[sound], y[sound])


def bent(lag, p):
    """Constant for rate = 0, an exponential up to 20, and then one that grows again: round trips pay."""
    return 2e-7 * (jnp.exp(-p["rate"] * lag) + jnp.where(p["rate"] > 20, 3 * lag**2, 0))


def test_traced_faults_are_a_status():
    good = {
        "shares": SHARES,
        "times": UNEQUAL,
        "decay": 3.0,
        "volatility": SIGMA,
        "risk_aversion": GAMMA,
        "temporary_impact": 1e-8,
    }

    @jax.jit
    def solve(p):
        given = {name: p[name] for name in ("volatility", "risk_aversion", "temporary_impact")}
        kernel = jx.ExponentialKernel(2e-7, p["decay"])
        return jx.transient_schedule(p["shares"], p["times"], kernel, **given)

    assert solve(good).status == jx.Status.OK
    faults = {
        "shares": np.inf,
        "times": UNEQUAL[::-1].copy(),
        "decay": -1.0,
        "volatility": -SIGMA,
        "risk_aversion": np.nan,
        "temporary_impact": -1e-8,
    }
    for name, value in faults.items():
        failed = solve(good | {name: value})
        assert failed.status == jx.Status.NONFINITE_INPUT, name
        assert np.isnan(failed.trades).all() and np.isnan(failed.times).all()
    endless = jx.CustomKernel(lambda lag, p: p / lag, 1e-7)
    assert jx.transient_schedule(SHARES, UNEQUAL, endless).status == jx.Status.NONFINITE_INTERNAL
    assert jx.transient_cost(np.ones(NODES), UNEQUAL, endless).status == jx.Status.NONFINITE_INTERNAL


@pytest.mark.parametrize("name", ["exponential", "power"])
def test_single_precision(name):
    """To 1e-6 of the order on a fine grid too, where differences of the kernel's values would have lost it."""
    times = np.linspace(0, 1, 101)
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), KERNELS[name])
    s = jx.transient_schedule(np.float32(SHARES), times.astype(np.float32), single)
    exact = jx.transient_schedule(SHARES, times, KERNELS[name])
    assert s.trades.dtype == s.objective.dtype == jnp.float32
    assert s.status == jx.Status.OK
    np.testing.assert_allclose(s.inventory, exact.inventory, atol=1e-6 * SHARES)
    np.testing.assert_allclose(s.trades, exact.trades, rtol=1e-4, atol=1e-7 * SHARES)
    np.testing.assert_allclose(s.expected_cost, exact.expected_cost, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": np.ones(2)}, "shares must be a scalar"),
        ({"shares": np.nan}, "shares must be finite"),
        ({"times": [0.0, 1.0, 1.0]}, "times"),
        ({"times": [1.0]}, "times"),
        ({"kernel": 1.0}, "kernel must be a jaxexec.ImpactKernel"),
        ({"volatility": -1.0}, "volatility must be at least 0"),
        ({"volatility": np.ones(NODES)}, r"volatility must be a scalar or \(8,\)"),
        ({"risk_aversion": -1.0}, "risk_aversion must be at least 0"),
        ({"temporary_impact": np.ones(NODES - 1)}, r"temporary_impact must be a scalar or \(9,\)"),
    ],
)
def test_refuses(changes, message):
    given = {"shares": SHARES, "times": EQUAL, "kernel": KERNELS["power"]} | changes
    with pytest.raises(ValueError, match=message):
        jx.transient_schedule(**given)


def test_refuses_trades_of_another_length():
    with pytest.raises(ValueError, match=r"trades must be \(9,\)"):
        jx.transient_cost(np.ones(3), EQUAL, KERNELS["power"])


def test_is_drawn_as_steps():
    s = jx.transient_schedule(SHARES, EQUAL, KERNELS["power"])
    line = s.plot().axes[0].lines[0]
    assert len(line.get_xdata()) == 2 * NODES
    np.testing.assert_allclose(line.get_ydata()[0], SHARES)
    with pytest.raises(ValueError, match="one concrete schedule"):
        jax.vmap(lambda x: jx.transient_schedule(x, EQUAL, KERNELS["power"]))(np.ones(2)).plot()
