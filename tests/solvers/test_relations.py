"""Relations that hold for every order, on batches of random ones: scalings, limits, orders of accuracy.

Each test is named after its relation. λ there is γ/2 here. Relation 8 has nothing to be tested on: no argument is a
price. Identities of the N-step programme hold to 1e-9 of their size; statements about the continuous problem (12, 17,
19, 27) are tested by their order: the defect falls to a quarter when the steps are halved.
"""

import equinox as eqx
import jax
import numpy as np

import jaxexec as jx
from tests.solvers.random_orders import (
    CURVES,
    LANES,
    STEPS,
    assert_related,
    build,
    build_discrete,
    draw,
    factors,
    few,
    filled_up,
    objective_gradient,
    of,
    random_orders,
    repeated,
    size_of,
    solved,
    some,
)

# ---- symmetries -----------------------------------------------------------------------------------------------------


@some
@random_orders
def test_1_sign(seed):
    data = draw(seed, "target", "uneven-spread", "dead")
    s = solved(data)
    other = solved(data | {"shares": -data["shares"], "target": -data["target"]})
    assert_related(data, s, other, -1.0, 1.0)


@some
@random_orders
def test_2_size_of_a_quadratic_order(seed):
    data, c = draw(seed, "target", "dead", phi=1.0), factors(seed)
    s = solved(data)
    other = solved(data | {"shares": c * data["shares"], "target": c * data["target"]})
    assert_related(data, s, other, c, c**2)


@some
@random_orders
def test_3_size(seed):
    """Spread and drift are prices of one share more, and scale as its temporary impact does."""
    data, c = draw(seed, "target", "uneven-spread", "dead", "drift"), factors(seed)
    phi = data["phi"]
    s = solved(data)
    scaled = {name: c * data[name] for name in ("shares", "target")}
    scaled |= {name: of(c**phi) * data[name] for name in ("psi", "drift")}
    other = solved(data | scaled | {"risk_aversion": c ** (phi - 1) * data["risk_aversion"]})
    assert_related(data, s, other, c, c ** (1 + phi))


@some
@random_orders
def test_4_time(seed):
    data, a = draw(seed, "spread", "dead", "drift"), factors(seed, -2, 2)
    phi = data["phi"]
    s = solved(data)
    longer = {name: of(a) * data[name] for name in ("times", "gap_variance")}
    longer |= {"psi": of(a**-phi) * data["psi"], "drift": of(a ** (-1 - phi)) * data["drift"]}
    longer |= {"risk_aversion": a ** (-1 - phi) * data["risk_aversion"]}
    assert_related(data, s, solved(data | longer), 1.0, a**-phi)


@some
@random_orders
def test_5_cost(seed):
    data, c = draw(seed, "uneven-spread", "target", "dead", "drift"), factors(seed, -3, 3)
    s = solved(data)
    dearer = {name: of(c) * data[name] for name in ("eta", "psi", "drift")}
    other = solved(data | dearer | {"risk_aversion": c * data["risk_aversion"]})
    assert_related(data, s, other, 1.0, c)


@some
@random_orders
def test_5_only_urgency_matters(seed):
    """λσ²/η alone decides: what is taken off λ and put on σ² changes nothing."""
    data, c = draw(seed, "target", "dead"), factors(seed)
    s = solved(data)
    other = {"volatility": of(np.sqrt(c)) * data["volatility"], "gap_variance": of(c) * data["gap_variance"]}
    assert_related(data, s, solved(data | other | {"risk_aversion": data["risk_aversion"] / c}))


@some
@random_orders
def test_6_currency(seed):
    data = draw(seed, "uneven-spread", "target", "dead", "drift")
    s = solved(data)
    cents = {name: 100 * data[name] for name in ("eta", "psi", "drift", "volatility", "permanent_impact")}
    cents |= {"gap_variance": 1e4 * data["gap_variance"], "risk_aversion": data["risk_aversion"] / 100}
    assert_related(data, s, solved(data | cents), 1.0, 100.0)


@some
@random_orders
def test_7_share_units(seed):
    """At the volume's old units η takes the factor m^(1+φ); with the volume in new units too, only m."""
    data, m = draw(seed, "uneven-spread", "target", "dead", "drift"), factors(seed, -2, 2)
    s = solved(data)
    units = {name: data[name] / m for name in ("shares", "target")}
    units |= {name: of(m) * data[name] for name in ("volatility", "psi", "drift")}
    units |= {"gap_variance": of(m**2) * data["gap_variance"]}
    assert_related(data, s, solved(data | units | {"eta": of(m ** (1 + data["phi"])) * data["eta"]}), 1 / m)
    both = {"eta": of(m) * data["eta"], "volume": data["volume"] / of(m)}
    assert_related(data, s, solved(data | units | both), 1 / m)


@some
@random_orders
def test_9_permanent_impact(seed):
    data = draw(seed, "uneven-spread", "target", "dead", "drift")
    kappa = 1e-7 * factors(seed)
    s, other = solved(data), solved(data | {"permanent_impact": kappa})
    added = kappa / 2 * (data["shares"] ** 2 - data["target"] ** 2)
    np.testing.assert_allclose(other.inventory, s.inventory, atol=1e-9 * np.max(np.abs(data["shares"])))
    error = np.abs(other.objective - s.objective - added) / (size_of(data, s) + np.abs(added))
    assert error.max() <= 1e-9


@few
@random_orders
def test_9_permanent_impact_within_a_step(seed):
    """Almgren and Chriss's η̃ = η − ½κτV; its difference from η is of the order of the step."""
    data = draw(seed, "target", "dead", phi=1.0)
    volume = np.diff(data["times"]) * data["volume"]
    kappa = 0.5 * np.min(2 * data["eta"] / np.max(volume, 1, keepdims=True), 1)
    with_impact = data | {"permanent_impact": kappa}
    added = kappa / 2 * (data["shares"] ** 2 - data["target"] ** 2)
    s = solved(build_discrete(with_impact))
    other = solved(build_discrete(data | {"eta": data["eta"] - of(kappa) / 2 * volume}))
    assert_related(data, other, _less(s, added))
    defects = []
    for parts in (2, 4):
        coarse = repeated(with_impact, parts, STEPS // 4)
        kept, without = (solved(build_discrete(d)) for d in (coarse, coarse | {"permanent_impact": 0 * kappa}))
        defects.append(np.abs(kept.objective - added - without.objective))
    ratio = defects[0] / defects[1]
    assert np.all((ratio > 1.6) & (ratio < 2.4)), ratio


def _less(s, amount):
    return eqx.tree_at(lambda x: x.objective, s, s.objective - amount)


@some
@random_orders
def test_10_proportional_spread(seed):
    data = draw(seed, "dead")
    spread = 0.01 * factors(seed, -2, 2)
    s, other = solved(data), solved(data | {"psi": of(spread) * np.ones((1, STEPS))})
    np.testing.assert_allclose(other.inventory / of(data["shares"]), s.inventory / of(data["shares"]), atol=1e-9)
    np.testing.assert_allclose(other.objective, s.objective + spread * np.abs(data["shares"]), rtol=1e-9)


@some
@random_orders
def test_11_without_risk_aversion(seed):
    """n_k ∝ τ_k V_k η_k^(−1/φ), TWAP in volume time where η is constant."""
    data = draw(seed, "dead")
    flat = data | {"eta": np.broadcast_to(data["eta"][:, :1], data["eta"].shape)}
    for d in (data, flat):
        d = d | {"risk_aversion": np.zeros(LANES)}
        s, room = solved(d), np.diff(d["times"]) * d["volume"]
        weights = room * d["eta"] ** of(-1 / d["phi"])
        whole = np.sum(weights, 1)
        np.testing.assert_allclose(s.trades / of(d["shares"]), weights / of(whole), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(s.objective, d["shares"] ** (1 + d["phi"]) * whole ** -d["phi"], rtol=1e-9)
    problem = jax.tree.map(lambda x: x[0], build(flat))
    np.testing.assert_allclose(s.trades[0], jx.vwap(problem), rtol=1e-9, atol=1e-11 * flat["shares"][0])


# ---- the continuous problem -----------------------------------------------------------------------------------------


def orders_of_accuracy(defect):
    """Ratios of the defects on 12, 24 and 48 steps, whose limit is 4."""
    coarse, middle, fine = (np.abs(defect(n)) for n in (12, 24, 48))
    return coarse / middle, middle / fine


def constant(seed, steps, *words):
    """Orders with constant coefficients on `steps` equal steps."""
    data = draw(seed, "constant", *words)
    first = {name: data[name][:, :1] * np.ones((1, steps)) for name in CURVES}
    horizon = data["times"][:, -1:]
    return filled_up(data | first | {"times": horizon * np.arange(steps + 1) / steps}, steps)


@few
@random_orders
def test_12_all_the_time_in_the_world(seed):
    """On a grid that is fine where the order trades the value without a horizon is reached, at second order."""
    rng = np.random.default_rng(seed)
    phi = rng.uniform(1.0, 1.4, LANES)

    def defect(steps):
        d = constant(seed, steps)
        p, x, variance = 1 + phi, np.abs(d["shares"]), d["volatility"][:, 0] ** 2
        weight = d["risk_aversion"] / 2 * variance
        eta = d["eta"][:, 0] * d["volume"][:, 0] ** -phi
        pace = (weight / (phi * eta)) ** (1 / p) * x ** (2 / p - 1)  # −ẋ/x at the start
        end = 14 / pace
        times = of(end) * (np.arange(steps + 1) / steps) ** 2
        d = filled_up(d | {"phi": phi, "times": times} | {n: d[n][:, :steps] for n in CURVES}, steps)
        q = 1 + 2 * phi / p
        limit = p / q * eta * (weight / (phi * eta)) ** (phi / p) * x**q
        return solved(d).objective / limit - 1

    _, ratio = orders_of_accuracy(defect)
    assert np.all((ratio > 3.6) & (ratio < 4.4)), ratio
    assert np.all(np.abs(defect(48)) < 0.02)


@few
@random_orders
def test_17_the_price_of_more_shares_and_of_less_time(seed):
    """dU*/dX = −p(0) and dU*/dT = −V H(p(T)) ≤ 0, at the ends and not in the middle of a step."""

    def slopes(steps):
        d = constant(seed, steps, "calm")
        problem = build(d)
        s, slope = solved(problem), objective_gradient(problem)
        return d, s, jax.tree.map(np.asarray, slope)

    def of_time(steps):
        d, s, slope = slopes(steps)
        horizon = d["times"][:, steps]
        stretched = np.sum(slope.market.grid.times[:, : steps + 1] * d["times"][:, : steps + 1], 1) / horizon
        last = s.trades[:, steps - 1] / (np.diff(d["times"])[:, steps - 1] * d["volume"][:, steps - 1])
        assert np.all(stretched <= 0)
        return stretched + d["volume"][:, 0] * d["phi"] * d["eta"][:, 0] * last ** (1 + d["phi"])

    def of_shares(steps):
        # p at the first node: half a step further than where the schedule has it.
        _, s, slope = slopes(steps)
        return slope.shares + (3 * s.costate[:, 0] - s.costate[:, 1]) / 2

    for defect in (of_time, of_shares):
        _, ratio = orders_of_accuracy(defect)
        assert np.median(ratio) > 3.5 and np.all((ratio > 3) & (ratio < 5)), ratio


@few
@random_orders
def test_19_hamiltonian_is_constant(seed):
    """(p−1)η|v|^p − λσ²x², in the middle of each step."""

    def spread(steps):
        d = constant(seed, steps)
        s, rate = solved(d), None
        tau = np.diff(d["times"])[:, :steps]
        rate = np.maximum(s.trades[:, :steps], 0) / (tau * d["volume"][:, :steps])
        middle = (s.inventory[:, :steps] + s.inventory[:, 1 : steps + 1]) / 2
        kinetic = of(d["phi"]) * d["volume"][:, :steps] * d["eta"][:, :steps] * rate ** of(1 + d["phi"])
        held = of(d["risk_aversion"] / 2) * d["volatility"][:, :steps] ** 2 * middle**2
        energy = kinetic - held
        return np.abs(energy[:, steps // 4] - energy[:, 3 * steps // 4]) / np.max(kinetic, 1)

    _, ratio = orders_of_accuracy(spread)
    assert np.median(ratio) > 3.5, ratio


@few
@random_orders
def test_26_grid(seed):
    """Holds as it stands: the trapezoid overrates x² between nodes, and less so on a nested grid. Second order."""
    data = draw(seed, "uneven-spread", "drift", "target")
    values = [solved(repeated(data, parts, 12)).objective for parts in (1, 2, 4)]
    unit = size_of(repeated(data, 4, 12), solved(repeated(data, 4, 12)))
    assert np.all(values[0] >= values[1] - 1e-12 * unit)
    assert np.all(values[1] >= values[2] - 1e-12 * unit)
    plain = draw(seed, "calm")
    a, b, c = (solved(repeated(plain, parts, 12)).objective for parts in (1, 2, 4))
    ratio = (a - b) / (b - c)
    assert np.median(ratio) > 3.6 and np.all((ratio > 3) & (ratio < 5)), ratio
    coarse, fine = (4 * b - a) / 3, (4 * c - b) / 3
    assert np.all(np.abs(coarse - fine) <= 0.3 * np.abs(b - c))


@some
@random_orders
def test_27_volume_clock(seed):
    """On a grid only τV and σ²τ matter: a clock that runs with the volume gives the same programme."""
    data = draw(seed, "uneven-spread", "drift", "target")
    room = np.diff(data["times"]) * data["volume"]
    clock = np.concatenate([np.zeros((LANES, 1)), np.cumsum(room, 1)], 1) / 4e6
    slower = np.diff(data["times"]) / np.diff(clock)
    other = {
        "times": clock,
        "volume": np.full_like(room, 4e6),
        "volatility": data["volatility"] * np.sqrt(slower),
        "drift": data["drift"] * slower,
    }
    assert_related(data, solved(data), solved(data | other))


@few
@random_orders
def test_27_volume_clock_of_a_smooth_day(seed):
    """Sampled in the middle of equal steps of either clock, the two problems approach each other at second order."""

    def defect(steps):
        d = constant(seed, steps, "calm")
        fractions = np.arange(steps + 1) / steps
        middle = np.broadcast_to((fractions[1:] + fractions[:-1]) / 2, (LANES, steps))
        # v(t) = 1 + a cos πt, so that the clock is s(t) = t + a sin(πt)/π.
        a = 0.6
        t = middle
        for _ in range(50):
            t = t - (t + a * np.sin(np.pi * t) / np.pi - middle) / (1 + a * np.cos(np.pi * t))
        horizon = d["times"][:, steps][:, None]
        rows = {name: d[name][:, :steps] for name in CURVES}
        by_day = rows | {"volume": 4e6 * (1 + a * np.cos(np.pi * middle)), "times": horizon * fractions}
        by_clock = rows | {
            "times": horizon * fractions,
            "volatility": rows["volatility"] / np.sqrt(1 + a * np.cos(np.pi * t)),
        }
        one, two = (solved(filled_up(d | x, steps)).objective for x in (by_day, by_clock))
        return one / two - 1

    _, ratio = orders_of_accuracy(defect)
    assert np.median(ratio) > 3.6 and np.all((ratio > 3) & (ratio < 5)), ratio
