"""What single costs do not have: caps that bind, venues against references, users' functions, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.costs import CustomCost

INNER = jx.PowerLawCost(0.1, 0.6, 0.02)


def test_beyond_a_cap():
    cap = jx.ParticipationCap(INNER, 0.5, -0.2)
    p = jnp.asarray([-3.0, 4.0])
    ends = jnp.asarray([-0.2, 0.5])
    np.testing.assert_array_equal(cap.optimal_rate(p), ends)
    np.testing.assert_allclose(cap.hamiltonian(p), p * ends - INNER.value(ends), rtol=1e-14)
    np.testing.assert_array_equal(cap.rate_slope(p), 0)
    np.testing.assert_array_equal(cap.value(jnp.asarray([-0.21, 0.51])), np.inf)
    np.testing.assert_allclose(cap.value(ends * (1 + 1e-12)), INNER.value(ends), rtol=1e-11)
    assert np.all(np.asarray(jax.vmap(jax.grad(cap.value))(jnp.asarray([-0.3, 0.7]))) == 0)
    assert cap.bounds() == (-0.2, 0.5)
    free = cap.curve_point(ends, p, jnp.asarray(False))
    np.testing.assert_array_equal((free.rate, free.marginal, free.slope, free.intercept), (ends, p, 0 * p, ends))
    kept = cap.curve_point(2 * ends, p, jnp.asarray(True))
    np.testing.assert_array_equal((kept.rate, kept.slope, kept.intercept), (ends, 0 * p, ends))
    np.testing.assert_allclose(kept.marginal, INNER.marginal(ends), rtol=1e-14)


def test_a_cap_of_zero_forbids():
    cap = jx.ParticipationCap(INNER, 0.0)
    p = jnp.asarray([-1.0, 0.01, 1.0])
    np.testing.assert_array_equal(cap.optimal_rate(p), 0)
    np.testing.assert_allclose(cap.hamiltonian(p), 0, atol=1e-200)
    # The first share that is let through earns what p is above the spread.
    slope = jax.grad(lambda c: c.hamiltonian(jnp.asarray(1.0)))(cap).rho_max
    np.testing.assert_allclose(slope, 1 - 0.02, rtol=1e-12)


def test_permanent_impact_comes_off_where_it_can():
    rates = jnp.asarray([-0.3, 0.01, 0.4])
    less, possible = jx.QuadraticCost(0.1, 0.02).less_permanent(jnp.asarray(0.06))
    assert bool(possible)
    np.testing.assert_allclose(less.value(rates), 0.07 * rates**2 + 0.02 * jnp.abs(rates))
    assert not bool(INNER.less_permanent(jnp.asarray(0.06))[1])
    capped = jx.ParticipationCap(INNER, 0.5)
    less, possible = capped.less_permanent(jnp.asarray(0.06))
    assert bool(possible)
    assert bool(less.is_convex(jnp.asarray(10.0)))
    np.testing.assert_allclose(less.value(rates), INNER.value(rates) - 0.03 * rates**2, rtol=1e-12)
    # L'' is least at the cap: ηφ(1+φ)0.5^{φ−1} = 0.1267.
    assert bool(capped.less_permanent(jnp.asarray(0.126))[0].is_convex(jnp.asarray(10.0)))
    assert not bool(capped.less_permanent(jnp.asarray(0.127))[0].is_convex(jnp.asarray(10.0)))
    assert not bool((INNER + INNER).less_permanent(jnp.asarray(0.06))[1])


def test_power_law_at_one_is_quadratic():
    rates = jnp.asarray([-0.3, 0.01, 0.4])
    power, quadratic = jx.PowerLawCost(0.1, 1.0, 0.02), jx.QuadraticCost(0.1, 0.02)
    np.testing.assert_allclose(power.value(rates), quadratic.value(rates), rtol=1e-14)
    np.testing.assert_allclose(power.hamiltonian(rates), quadratic.hamiltonian(rates), rtol=1e-12)


def test_custom_power_is_the_power_law():
    custom = CustomCost(lambda rate, eta: eta * jnp.abs(rate) ** 1.6, 0.1, 0.02)
    rates = jnp.asarray([-0.3, 1e-4, 0.4])
    p = INNER.marginal(rates)
    for method, x in (("value", rates), ("marginal", rates), ("hamiltonian", p), ("optimal_rate", p)):
        np.testing.assert_allclose(getattr(custom, method)(x), getattr(INNER, method)(x), rtol=1e-11, err_msg=method)


@pytest.mark.parametrize("name", ["venue_linear", "venue_mixed"])
def test_venues_against_references(references, name):
    """min Σ η_i n_i^{1+φ_i} + c_i n_i with Σ n_i = n: the market's volume, and its split, drop out."""
    reference, given = references[name], references[name]["params"]
    volume, fractions = 8e4, np.asarray([0.5, 0.2, 0.3])
    costs = [
        jx.PowerLawCost(eta * (f * volume) ** phi, float(phi), float(c))
        for eta, phi, c, f in zip(given["eta"], given["phi"], given["c"], fractions, strict=True)
    ]
    venues = jx.VenueSplit(costs, fractions)
    rate = jnp.asarray(given["n"] / volume)
    np.testing.assert_allclose(venues.split(rate) * volume, reference["n_i"], rtol=1e-10, atol=1e-8)
    np.testing.assert_allclose(venues.marginal(rate), reference["mu"], rtol=1e-10)
    paid = sum(
        eta * n ** (1 + phi) + c * n for eta, phi, c, n in zip(*list(given.values())[1:], reference["n_i"], strict=True)
    )
    np.testing.assert_allclose(venues.value(rate) * volume, paid, rtol=1e-10)


def test_full_venues():
    """All capped: the last share goes where the last room is, and there is no next one."""
    venues = jx.VenueSplit(
        [jx.ParticipationCap(jx.QuadraticCost(0.1), 0.1), jx.ParticipationCap(jx.QuadraticCost(0.2, 0.01), 0.3, 0.0)],
        [0.25, 0.75],
    )
    low, high = venues.bounds()
    np.testing.assert_allclose((low, high), (-0.025, 0.25), rtol=1e-15)
    rates = jnp.asarray([-0.025, 0.25])
    np.testing.assert_allclose(venues.split(rates), [[-0.025, 0.025], [0, 0.225]], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(venues.value(rates), [0.25 * 1e-3, 0.25 * 1e-3 + 0.75 * 0.021], rtol=1e-12)
    np.testing.assert_allclose(venues.marginal(rates), [-0.02, 0.13], rtol=1e-12)
    beyond = jnp.asarray([-0.03, 0.26])
    np.testing.assert_array_equal(venues.value(beyond), np.inf)
    assert np.all(np.isnan(venues.split(beyond)))


def test_not_convex():
    reach = jnp.asarray(0.5)
    assert not bool(CustomCost(lambda r, _: r**2 - 5 * r**4).is_convex(reach))
    assert bool(CustomCost(lambda r, _: r**2 - 0.1 * r**4).is_convex(reach))
    assert not bool(CustomCost(lambda r, _: r**2 + 0.1 * r).is_convex(reach)), "least elsewhere"
    assert not bool(CustomCost(lambda r, _: jnp.abs(r)).is_convex(reach)), "not strictly"
    for cost in (jx.VenueSplit([INNER, INNER], [0.5, 0.5]), jx.ParticipationCap(INNER, 0.5), INNER + INNER):
        assert bool(cost.is_convex(reach))
        assert not bool(jax.tree.map(lambda x: -x, cost).is_convex(reach))


def test_not_a_number_stays_one():
    cost = CustomCost(lambda r, a: jnp.where(jnp.abs(r) < 0.1, r**2, jnp.sqrt(a) * r**2), 1.0)
    lost = jax.tree.map(lambda x: -jnp.abs(x), cost)
    assert np.isnan(lost.optimal_rate(jnp.asarray(0.0 + 1e9)))
    assert np.isnan(lost.hamiltonian(jnp.asarray(jnp.nan)))
    assert np.isinf(CustomCost(lambda r, _: jnp.sqrt(1 + r**2) - 1).hamiltonian(jnp.asarray(2.0)))


def test_what_a_function_raises_comes_through():
    def broken(rate, _):
        raise KeyError("eta")

    with pytest.raises(KeyError, match="eta"):
        CustomCost(broken)
    late = CustomCost(lambda r, a: a * r**2, np.ones(6))
    with pytest.raises((TypeError, ValueError), match="shape"):
        late.value(jnp.ones(4))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jx.QuadraticCost(0.0), "eta must be positive"),
        (lambda: jx.QuadraticCost(float("nan")), "eta must be finite"),
        (lambda: jx.QuadraticCost([0.1, -0.1]), r"eta\[1\] must be positive"),
        (lambda: jx.QuadraticCost(0.1, -0.01), "psi must be at least 0"),
        (lambda: jx.PowerLawCost(0.1, 0.0), "phi must be positive"),
        (lambda: jx.PowerLawCost(0.1, np.inf), "phi must be finite"),
        (lambda: jx.PowerLawCost([[0.1]], 0.5), "scalar or have shape"),
        (lambda: jx.PowerLawCost("0.1", 0.5), "eta must be a real number"),
        (lambda: jx.PowerLawCost(1j, 0.5), "eta must be real"),
        (lambda: jx.ParticipationCap(INNER, -0.1), "rho_max must be at least 0"),
        (lambda: jx.ParticipationCap(INNER, 0.1, 0.05), "rho_min must be at most 0"),
        (lambda: jx.ParticipationCap(INNER, [0.1, 0.2], [-0.1, 0.3]), r"rho_min\[1\] must be at most rho_max"),
        (lambda: jx.ParticipationCap(INNER, [0.1, np.nan]), r"rho_max\[1\] must be finite"),
        (lambda: jx.ParticipationCap(0.1, 0.1), "cost must be a jaxexec.ExecutionCost"),
        (lambda: jx.SumCost([]), "costs must name at least one"),
        (lambda: jx.SumCost([INNER, 1.0]), r"costs\[1\] must be a jaxexec.ExecutionCost"),
        (lambda: jx.SumCost(INNER), "costs must be a sequence"),
        (lambda: jx.TwoSidedCost(INNER, None), "buy must be a jaxexec.ExecutionCost"),
        (lambda: jx.TwoSidedCost(CustomCost(lambda r, _: r**2 - 0.1 * r), INNER), "sell's marginal cost at rest"),
        (lambda: jx.VenueSplit([INNER, INNER], [0.5, 0.6]), "fractions must sum to 1"),
        (lambda: jx.VenueSplit([INNER, INNER], [1.5, -0.5]), r"fractions\[1\] must be positive"),
        (lambda: jx.VenueSplit([INNER, INNER], [1.0]), "fractions must be as many as costs, 2, got 1"),
        (lambda: jx.VenueSplit([INNER, INNER], 0.5), "fractions must be a sequence of 2"),
        (lambda: CustomCost(lambda r, _: jnp.sum(r**2)), r"of the shape of the rates it is given, \(2,\); it returned"),
        (lambda: CustomCost(lambda r, _: r > 0), "real numbers"),
        (lambda: CustomCost(lambda r, _: r**2 + 1), r"function\(0, parameters\)\[0\] must be 0"),
        (lambda: CustomCost(lambda r, a: a["b"] * r**2, {"b": jnp.nan}), r"parameters\['b'\] must be finite"),
        (lambda: CustomCost(lambda r, _: r**2, psi=-1.0), "psi must be at least 0"),
        (lambda: CustomCost(0.1), "function must be callable"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_costs_add_only_to_costs():
    with pytest.raises(TypeError):
        _ = INNER + 1.0
    assert len((INNER + INNER + INNER).costs) == 3
