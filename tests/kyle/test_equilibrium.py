"""The equilibrium against forty-digit references, its defining equations, its scaling and its derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.kyle.recursion import Game
from jaxexec.kyle.terminal import residual_and_slope
from tests.kyle.defining_equations import residuals

FIELDS = {
    "beta": "intensity",
    "lam": "price_impact",
    "delta": "transitory_impact",
    "Sigma": "posterior_variance",
    "A": "value_curvature",
    "B": "value_constant",
    "soc": "second_order",
    "value_ex_ante_A1S0_plus_B1": "value",
    "insider_expected_profit": "expected_profit",
    "mm_expected_profit": "market_maker_profit",
}


def of(reference):
    """The equilibrium of an entry of the references, whose `gam` is half of risk_aversion."""
    p = reference["params"]
    noise = jnp.asarray(p["su2"]) if "su2" in p else jnp.ones(p["T"])
    return jx.kyle.solve(1.0, noise, p["T"], 2.0 * p["gam"], p.get("pref", "local"), float(p.get("rho", 0)), 1)


def test_references(references):
    entries = {k: v for k, v in references.items() if k.startswith("kyle_") and "beta" in v}
    assert len(entries) >= 50
    for name, entry in entries.items():
        found, rows = of(entry), np.asarray(entry["index"]) - 1
        assert found.status == jx.Status.OK, name
        for key, field in FIELDS.items():
            exact, got = np.asarray(entry[key]), np.asarray(getattr(found, field))
            got = got[rows] if got.ndim else got
            np.testing.assert_allclose(got, exact, rtol=1e-12, atol=1e-15, err_msg=f"{name} {field}")
        share = np.asarray(found.informed_share)[rows]
        np.testing.assert_allclose(share / (1 - share), entry["SNR"], rtol=1e-12, err_msg=name)


def test_theorem_2_of_kyle():
    """Risk-neutral: A_t = 1/(4λ_t(1 − A_{t+1}λ_t)), and the signal-to-noise ratios' own recursion from the last, 1."""
    found = jx.kyle.solve(4.0, 2.25, 50)
    lam, a = np.asarray(found.price_impact), np.asarray(found.value_curvature)
    np.testing.assert_allclose(a, 1 / (4 * lam * (1 - np.append(a[1:], 0) * lam)), rtol=1e-13)
    share = np.asarray(found.informed_share)
    ratio = share / (1 - share)
    assert ratio[-1] == pytest.approx(1, rel=1e-13)
    np.testing.assert_allclose(ratio[1:] * (1 - ratio[:-1]) ** 2 * (1 + ratio[:-1]), ratio[:-1], rtol=1e-12)
    np.testing.assert_allclose(found.expected_profit, found.value, rtol=1e-13)
    np.testing.assert_allclose(found.expected_profit, np.sum(lam * 2.25), rtol=1e-13)  # what noise loses


def test_posterior_variance_at_a_prior_of_four():
    """Σ_1 = Σ_0(1 − λβ) = 2. The update Σ_0 − λ, which coincides at a prior of 1, would say 3."""
    found = jx.kyle.solve(4.0, jnp.ones(1), 1)
    assert found.posterior_variance[0] == pytest.approx(2, rel=1e-14)
    assert found.price_impact[0] == pytest.approx(1, rel=1e-14)


@functools.cache
def batch(periods, preference):
    def one(prior, noise, gamma, rho, m):
        return jx.kyle.solve(prior, noise, periods, gamma, preference, rho, m)

    return jax.jit(jax.vmap(one))


def random_sets(count, periods, seed):
    """Parameters over twelve orders of magnitude, in units and without; some zeros, some noise that varies wildly."""
    rng = np.random.default_rng(seed)

    def spread(low, high, *shape):
        return np.exp(rng.uniform(np.log(low), np.log(high), shape))

    prior, level = spread(1e-6, 1e6, count), spread(1e-6, 1e6, count)
    varies = rng.uniform(size=(count, 1)) < 0.5
    noise = level[:, None] * np.where(varies, spread(1e-2, 1e2, count, periods), 1)
    gamma, rho = (spread(1e-6, 1e6, count) / np.sqrt(prior * level) for _ in range(2))
    gamma[rng.uniform(size=count) < 0.1] = 0
    rho[rng.uniform(size=count) < 0.5] = 0
    m = np.where(rng.uniform(size=count) < 0.5, 1.0, rng.integers(1, 9, count))
    return prior, noise, gamma, rho, m


@pytest.mark.parametrize("preference", ["local", "cara"])
@pytest.mark.parametrize(("periods", "count"), [(3, 2000), (60, 3000)])
def test_random_sets_over_twelve_orders_of_magnitude(periods, count, preference):
    found = batch(periods, preference)(*random_sets(count, periods, periods))
    status = np.asarray(found.status)
    usable = status <= jx.Status.OK_INACCURATE
    for name, worst in residuals(found, preference).items():
        assert np.all(worst[usable] < 1e-10), name
    assert np.all(np.isnan(np.asarray(found.value)[~usable]))
    assert np.mean(usable) > 0.999
    assert np.all(np.diff(np.asarray(found.posterior_variance), axis=1)[usable] <= 0)
    assert np.all(np.asarray(found.informed_share)[usable] > 0)
    assert np.all(np.asarray(found.second_order)[usable] > 0)


def test_newton_alone_runs_in_a_cycle():
    """CARA, ½γ = 1, 50 periods: log Σ_0 is a sigmoid of log Σ_T, on which bracketed Newton goes in circles."""
    one, ones = jnp.ones(()), jnp.ones(50)
    game = Game(one, jnp.zeros(()), one, ones, ones)
    evaluate = jax.jit(functools.partial(residual_and_slope, preference="cara"))
    z, low, high, seen = jnp.log(0.026685784438), -50 * np.log(2), 0.0, []
    for _ in range(60):
        r, slope = evaluate(z, game)
        low, high = (z, high) if r < 0 else (low, z)
        newton = z - r / slope
        z = newton if -50 * np.log(2) < newton < 0 else (low + high) / 2
        seen.append(float(r))
    assert abs(seen[-1]) > 0.1, "bare Newton converges here: the guard is not tested"
    found = jx.kyle.solve(1.0, ones, 50, 2.0, "cara", 0.0, 1)
    assert found.status == jx.Status.OK
    assert found.passes < 15
    assert found.price_impact[0] == pytest.approx(0.407081574759, rel=1e-11)


def test_what_is_left_unknown_rises_with_what_was():
    """So that the root is the only one: scanned where no theorem says so, several insiders or ρ > 0, not both."""
    rng, lanes, points, periods = np.random.default_rng(3), 24, 100, 60

    def scan(gamma, rho, m, swing, step):
        z = -periods * jnp.log1p(m) * jnp.linspace(0, 1, points)
        return jax.vmap(lambda at: residual_and_slope(at, Game(gamma, rho, m, swing, step), "local")[1])(z)

    gamma, rho = np.exp(rng.uniform(-7, 7, (2, lanes)))
    alone = np.arange(lanes) % 2 == 0
    m = np.where(alone, 1.0, rng.integers(2, 7, lanes))
    swing = np.exp(rng.uniform(-1, 1, (lanes, periods)))
    step = swing / np.concatenate([swing[:, :1], swing[:, :-1]], axis=1)
    slopes = jax.jit(jax.vmap(scan))(gamma, np.where(alone, rho, 0), m, swing, step)
    assert np.all(np.asarray(slopes) > 0)


def test_preferences_agree_up_to_two_periods_only():
    for periods in (1, 2, 3):
        local, cara = (jx.kyle.solve(1.0, jnp.ones(periods), periods, 2.0, p, 0.0, 1) for p in ("local", "cara"))
        for field in ("intensity", "price_impact", "posterior_variance"):
            near = np.allclose(getattr(local, field), getattr(cara, field), rtol=1e-13)
            assert near == (periods < 3)


@pytest.mark.parametrize("preference", ["local", "cara"])
def test_scaling(preference):
    """Σ_0 → c²Σ_0, s → k²s, γ and ρ → /(ck): λ → cλ/k, β → kβ/c, A → kA/c, B → ckB, Σ_t/Σ_0 as before."""
    prior, noise, gamma, rho, m = random_sets(50, 3, 8)
    c, k = np.exp(np.random.default_rng(1).uniform(-5, 5, (2, 50)))
    base = batch(3, preference)(prior, noise, gamma, rho, m)
    moved = batch(3, preference)(prior * c**2, noise * (k**2)[:, None], gamma / (c * k), rho / (c * k), m)
    c, k = c[:, None], k[:, None]
    for field, factor in {
        "price_impact": c / k,
        "transitory_impact": c / k,
        "intensity": k / c,
        "value_curvature": k / c,
        "value_constant": c * k,
        "posterior_variance": c**2,
        "informed_share": 1,
    }.items():
        np.testing.assert_allclose(getattr(moved, field), getattr(base, field) * factor, rtol=1e-11)


def test_impact_falls_and_intensity_rises_with_constant_noise():
    """What the thesis says of λ_t, that it rises, holds for no γ ≥ 0; what it says of β_t holds for all."""
    for preference in ("local", "cara"):
        count = 400
        gamma = np.append(np.geomspace(1e-4, 1e4, count - 1), 0)
        ones = np.ones(count)
        found = batch(60, preference)(ones, np.ones((count, 60)), gamma, 0 * ones, ones)
        assert np.all(np.diff(np.asarray(found.price_impact), axis=1) < 0)
        assert np.all(np.diff(np.asarray(found.intensity), axis=1) > 0)


def test_impact_rises_where_noise_leaves():
    """A fourth of the noise: the insider hides, trading a fourth as hard, and impact still rises a little."""
    noise = np.concatenate([np.full(20, 4.0), np.full(20, 1.0), np.full(20, 4.0)])
    found = jx.kyle.solve(1.0, noise, 60, 0.0, "local", 0.0, 1)
    impact, intensity = np.asarray(found.price_impact), np.asarray(found.intensity)
    assert impact[20] > 1.02 * impact[19]
    assert np.all(np.delete(np.diff(impact), 19) < 0)
    assert intensity[20] < 0.3 * intensity[19]


def test_several_insiders():
    """Holden and Subrahmanyam: β(m + 1 − 2mAλ)λ = 1 − 2Aλ; one period reveals m/(m + 1); competition reveals all."""
    found = jx.kyle.solve(1.0, jnp.ones(50), 50, 0.0, "local", 0.0, 4)
    lam, beta = np.asarray(found.price_impact), np.asarray(found.intensity)
    a = np.append(np.asarray(found.value_curvature)[1:], 0)
    np.testing.assert_allclose(beta * lam * (5 - 8 * a * lam), 1 - 2 * a * lam, rtol=1e-11)
    alone = jx.kyle.solve(1.0, jnp.ones(50), 50, 0.0, "local", 0.0, 1)
    assert found.posterior_variance[9] < 1e-3 < 0.5 < alone.posterior_variance[9]
    assert 4 * found.expected_profit < alone.expected_profit
    single = jx.kyle.solve(1.0, jnp.ones(1), 1, 0.0, "local", 0.0, 4)
    assert single.posterior_variance[0] == pytest.approx(1 / 5, rel=1e-14)
    assert single.price_impact[0] == pytest.approx(2 / 5, rel=1e-14)


GRADIENTS = {"lam": -0.013401465407, "beta": -0.279905425030, "sigma": 0.079183225078, "value": -0.158699891422}


def summary(parameters, preference="local"):
    """λ_1, β_T, Σ_T and the value; parameters are Σ_0, γ, ρ, m, s_1..s_T."""
    prior, gamma, rho, m = parameters[:4]
    noise = parameters[4:]
    e = jx.kyle.solve(prior, noise, noise.shape[0], gamma, preference, rho, m)
    return jnp.stack([e.price_impact[0], e.intensity[-1], e.posterior_variance[-1], e.value])


@functools.cache
def derivatives(preference):
    of_this = functools.partial(summary, preference=preference)
    return jax.jit(of_this), jax.jit(jax.jacfwd(of_this)), jax.jit(jax.jacrev(of_this))


def test_derivatives_of_the_document():
    at = jnp.asarray([1.0, 2.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    jacobian = derivatives("local")[2](at)
    np.testing.assert_allclose(2 * jacobian[:, 1], list(GRADIENTS.values()), rtol=1e-8)


@pytest.mark.parametrize("preference", ["local", "cara"])
def test_forward_is_reverse_is_difference(preference):
    function, forward, reverse = derivatives(preference)
    for at in (
        [2.0, 1.5, 0.0, 1.0, 1, 2, 0.5, 1.5],
        [0.5, 0.0, 0.7, 3.0, 1, 1, 4, 1],
        [1.0, 3.0, 0.4, 2.0, 1, 1, 1, 1],
    ):
        at = jnp.asarray(at, jnp.float64)
        ahead, back = forward(at), reverse(at)
        np.testing.assert_allclose(ahead, back, rtol=1e-11, atol=1e-13)
        step = 1e-4
        for i in range(at.size):
            # One-sided and of second order, so that parameters at their bound may be checked too.
            values = [function(at.at[i].add(n * step)) for n in range(4)]
            slope = (-11 * values[0] + 18 * values[1] - 9 * values[2] + 2 * values[3]) / (6 * step)
            np.testing.assert_allclose(ahead[:, i], slope, rtol=2e-7, atol=2e-8)


def test_second_derivatives():
    def curve(gamma):
        return jx.kyle.solve(1.0, jnp.ones(4), 4, gamma, "local", 0.0, 1.0).value

    first, second = jax.jit(jax.grad(curve)), jax.jit(jax.jacfwd(jax.grad(curve)))
    slope = (first(2.0 + 1e-4) - first(2.0 - 1e-4)) / 2e-4
    assert second(2.0) == pytest.approx(float(slope), rel=1e-7)


def test_value_at_risk_neutral_start_has_derivatives():
    """One period at γ = 0, where the root starts exactly."""
    gradient = jax.jit(jax.grad(lambda g: jx.kyle.solve(1.0, jnp.ones(1), 1, g, "local", 0.0, 1.0).value))(0.0)
    # b⁴ + Γb³ = 1 with Γ = γ: b' = −1/4 and value b/2 at Γ = 0.
    assert gradient == pytest.approx(-1 / 8, rel=1e-12)


def test_batches_are_singles_and_a_bad_lane_leaves_its_neighbours():
    prior, noise, gamma, rho, m = random_sets(6, 3, 5)
    good = batch(3, "local")(prior, noise, gamma, rho, m)
    for i in range(6):
        one = jx.kyle.solve(prior[i], noise[i], 3, gamma[i], "local", rho[i], m[i])
        np.testing.assert_allclose(one.price_impact, good.price_impact[i], rtol=1e-12)
    broken = noise.copy()
    broken[2, 1] = -1
    mixed = batch(3, "local")(prior, broken, gamma, rho, m)
    assert mixed.status[2] == jx.Status.NONFINITE_INPUT
    assert np.all(np.isnan(mixed.price_impact[2])) and np.isfinite(mixed.residual[2])
    rest = np.arange(6) != 2
    for field in FIELDS.values():
        np.testing.assert_array_equal(np.asarray(getattr(mixed, field))[rest], np.asarray(getattr(good, field))[rest])


def test_derivatives_of_a_failed_lane():
    def loss(prior, mask):
        e = jax.vmap(lambda p: jx.kyle.solve(p, jnp.ones(3), 3, 0.5, "local", 0.0, 1.0))(prior)
        return jnp.sum(jnp.where(mask, e.value, 0.0))

    at = jnp.asarray([1.0, -1.0])
    gradient = jax.jit(jax.grad(loss))
    assert np.isfinite(gradient(at, jnp.asarray([True, False]))).all()
    assert np.isnan(gradient(at, jnp.asarray([True, True]))[1])


def test_float32():
    gamma = np.geomspace(1e-3, 1e3, 40)
    ones = np.ones(40)
    for preference in ("local", "cara"):
        exact = batch(60, preference)(ones, np.ones((40, 60)), gamma, 0 * ones, ones)
        inputs = [jnp.asarray(x, jnp.float32) for x in (ones, np.ones((40, 60)), gamma, 0 * ones, ones)]
        single = batch(60, preference)(*inputs)
        assert single.price_impact.dtype == jnp.float32
        assert np.all(np.asarray(single.status) == jx.Status.OK)
        for field in ("intensity", "price_impact", "posterior_variance", "value_curvature", "expected_profit", "value"):
            np.testing.assert_allclose(getattr(single, field), getattr(exact, field), rtol=1e-4, err_msg=field)


def test_float32_says_where_it_cannot():
    many = jx.kyle.solve(jnp.float32(1), jnp.ones(2000, jnp.float32), 2000, jnp.float32(1))
    assert many.price_impact.dtype == jnp.float32
    assert many.status == jx.Status.OK_INACCURATE


def test_float32_of_a_thousand_periods():
    """To 1e-4 with a local insider; before a CARA one Σ_0 is so sensitive to Σ_T that it is not, and says so."""
    for preference, status, most in (("local", jx.Status.OK, 1e-4), ("cara", jx.Status.OK_INACCURATE, 5e-3)):
        exact = jx.kyle.solve(1.0, jnp.ones(1000), 1000, 1.0, preference, 0.0, 1)
        one = jnp.float32(1)
        single = jx.kyle.solve(one, jnp.ones(1000, jnp.float32), 1000, one, preference, 0.0, 1)
        assert single.status == status
        for field in ("intensity", "price_impact", "posterior_variance", "value_curvature", "expected_profit"):
            np.testing.assert_allclose(getattr(single, field), getattr(exact, field), rtol=most, err_msg=field)


def test_lowers_for_a_gpu_without_custom_calls():
    def gradient(gamma):
        return jax.grad(lambda g: jx.kyle.solve(1.0, jnp.ones(4), 4, g, "local", 0.0, 1.0).value)(gamma)

    exported = jax.export.export(jax.jit(jax.vmap(gradient)), platforms=["cuda"])(jnp.ones(3))
    assert "stablehlo.custom_call" not in exported.mlir_module()


def test_a_million_periods():
    """λ_1√T → 1 and TΣ_T → 1.45837: in time linear in the periods, the second-order condition holding in each."""
    periods = 1_000_000
    found = jx.kyle.solve(1.0, 1.0, periods)
    assert found.status == jx.Status.OK
    assert found.price_impact[0] * periods**0.5 == pytest.approx(1, abs=1e-5)
    assert found.posterior_variance[-1] * periods == pytest.approx(1.45837, rel=1e-4)
    assert np.all(np.asarray(found.second_order) > 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior_variance": 0.0}, "prior_variance must be positive"),
        ({"prior_variance": np.nan}, "prior_variance must be finite"),
        ({"noise_variance": np.array([1.0, -1.0, 1.0])}, r"noise_variance\[1\] must be positive"),
        ({"noise_variance": np.ones(2)}, "noise_variance must be a scalar or have shape"),
        ({"periods": 0}, "periods must be a positive integer"),
        ({"periods": 2.0}, "periods must be a positive integer"),
        ({"risk_aversion": -1.0}, "risk_aversion must be at least 0"),
        ({"market_maker_risk_aversion": -1.0}, "market_maker_risk_aversion must be at least 0"),
        ({"insiders": 0}, "insiders must be a whole number"),
        ({"insiders": 1.5}, "insiders must be a whole number"),
        ({"preference": "global"}, "preference must be one of"),
        ({"prior_variance": np.ones(2)}, "use jax.vmap"),
    ],
)
def test_refusals(change, message):
    given = {"prior_variance": 1.0, "noise_variance": 1.0, "periods": 3} | change
    with pytest.raises(ValueError, match=message):
        jx.kyle.solve(**given)
