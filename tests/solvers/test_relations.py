"""Relations that hold for every order, on batches of random ones: symmetries, bounds, limits, derivatives.

Each test is named after its relation. λ there is γ/2 here. Relation 8 has nothing to be tested on: no argument is a
price. Identities of the N-step programme hold to 1e-9 of their size; statements about the continuous problem (12, 17,
19, 27) are tested by their order: the defect falls to a quarter when the steps are halved. All batches have one shape:
a coarser grid is filled up with steps in which nothing happens.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxexec as jx
from jaxexec.scale import solve_many

LANES, STEPS = 16, 48
CURVES = ("volatility", "volume", "drift", "gap_variance", "eta", "psi")

solve_batch = jax.jit(jax.vmap(jx.solve))
objectives = jax.jit(jax.vmap(jx.objective))
random_orders = given(seed=st.integers(0, 2**31 - 1))
some = settings(max_examples=5, deadline=None, derandomize=True)
few = settings(max_examples=2, deadline=None, derandomize=True)


def draw(seed, *words, phi=None):
    """Random orders as arrays. `words`: drift, target, spread, uneven-spread, dead, buy, constant, calm."""
    rng = np.random.default_rng(seed)
    column, full = (LANES, 1), (LANES, STEPS)
    ragged = np.cumsum(np.concatenate([np.zeros(column), rng.uniform(0.5, 1.5, full)], 1), 1)
    plain = "constant" in words
    times = np.broadcast_to(np.arange(STEPS + 1.0), ragged.shape) if plain else ragged
    horizon = 10 ** rng.uniform(-0.5, 0.5, column)
    times = times / times[:, -1:] * horizon
    t = ((times[:, 1:] + times[:, :-1]) / 2) / horizon
    bumpy = 0.0 if plain else 1.0
    volume = 4e6 * (1 + bumpy * rng.uniform(0, 2, column) * (2 * t - 1) ** 2)
    volume = volume * np.exp(bumpy * 0.2 * rng.standard_normal(full))
    if "dead" in words:
        start = rng.uniform(0.1, 0.7, column)
        volume = np.where((t > start) & (t < start + 0.1), 0, volume)
    volatility = 0.6 * (1 + bumpy * 0.2 * rng.uniform(size=full))
    eta = 0.1 * (1 + bumpy * rng.uniform(size=full))
    phi = np.where(rng.random(LANES) < 0.2, 1, rng.uniform(0.3, 1.5, LANES)) if phi is None else np.full(LANES, phi)
    shares = 10 ** rng.uniform(4, 6, LANES) * (-1 if "buy" in words else 1)
    rate = np.abs(shares) / (4e6 * horizon[:, 0])
    # γσ²TX against the marginal cost η(1 + φ)ρ^φ: how hard risk pushes.
    marginal = 0.1 * (1 + phi) * rate**phi
    push = 10 ** rng.uniform(-1, 0.7 if "calm" in words else 2.5, LANES)
    gamma = push * marginal / (0.36 * horizon[:, 0] * np.abs(shares))
    psi = marginal[:, None] * rng.uniform(0, 0.5, column) * (1 + rng.uniform(size=full) * ("uneven-spread" in words))
    wave = np.sin(2 * np.pi * t * rng.integers(1, 4, column) + rng.uniform(0, 6, column))
    drift = wave * (marginal * rng.uniform(0.3, 3, LANES))[:, None] / horizon
    return {
        "shares": shares,
        "times": times,
        "volatility": volatility,
        "volume": volume,
        "permanent_impact": np.zeros(LANES),
        "drift": drift * ("drift" in words),
        "gap_variance": bumpy * 0.02 * rng.uniform(size=full),
        "eta": eta,
        "phi": phi,
        "psi": psi * bool({"spread", "uneven-spread"} & set(words)),
        "risk_aversion": gamma,
        "target": shares * rng.uniform(-0.5, 0.8, LANES) * ("target" in words),
    }


def of(data):
    """Coefficients that multiply whole rows, as a column."""
    return np.asarray(data)[:, None]


def _market(d):
    grid = jx.TimeGrid(d["times"])
    return jx.Market(grid, d["volatility"], d["volume"], d["permanent_impact"], d["drift"], d["gap_variance"])


@jax.jit
@jax.vmap
def build(d):
    cost = jx.PowerLawCost(d["eta"], d["phi"], d["psi"])
    return jx.Liquidation(d["shares"], _market(d), cost, d["risk_aversion"], d["target"])


@jax.jit
@jax.vmap
def build_discrete(d):
    cost = jx.QuadraticCost(d["eta"], d["psi"])
    return jx.Liquidation(d["shares"], _market(d), cost, d["risk_aversion"], d["target"], "almgren-chriss")


@jax.jit
@jax.vmap
def build_capped(d):
    cost = jx.ParticipationCap(jx.PowerLawCost(d["eta"], d["phi"], d["psi"]), d["rho_max"])
    return jx.Liquidation(d["shares"], _market(d), cost, d["risk_aversion"], d["target"])


def solved(data):
    """The schedules of `data`, all of them OK."""
    s = solve_batch(data if isinstance(data, jx.Liquidation) else build(data))
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    return jax.tree.map(np.asarray, s)


def size_of(data, s):
    """What the objective is a sum of, in magnitude: it may itself be near 0 where the price drifts."""
    gain = np.sum(np.abs(data["drift"]) * np.diff(data["times"]), 1) * np.abs(data["shares"])
    return np.abs(s.objective) + data["risk_aversion"] / 2 * s.variance + gain


def assert_related(data, s, other, scale=1.0, cost_scale=1.0, rtol=1e-9):
    """`other` is the schedule `s` times `scale`, its objective that of `s` times `cost_scale`."""
    unit = np.max(np.abs(s.inventory), 1) * np.abs(scale)
    error = np.abs(other.inventory - s.inventory * of(scale * np.ones(LANES))) / of(unit)
    assert error.max() <= rtol, f"inventories differ by {error.max():.1e} of the order"
    error = np.abs(other.objective - cost_scale * s.objective) / np.abs(cost_scale * size_of(data, s))
    assert error.max() <= rtol, f"objectives differ by {error.max():.1e}"


def factors(seed, low=-1, high=1):
    return 10 ** np.random.default_rng(seed + 1).uniform(low, high, LANES)


def filled_up(data, steps):
    """Rows of `steps` values made (STEPS,) by steps at the end in which nothing happens."""
    more = STEPS - steps
    times = data["times"]
    later = times[:, -1:] * (1 + np.arange(1, more + 1) / STEPS)
    longer = {name: np.concatenate([data[name], np.zeros((LANES, more))], 1) for name in CURVES[:4]}
    repeated = {name: np.concatenate([data[name], np.ones((LANES, more))], 1) for name in CURVES[4:]}
    return data | longer | repeated | {"times": np.concatenate([times, later], 1)}


def repeated(data, parts, steps):
    """The first `steps` steps, each cut into `parts` equal ones with the same curves."""
    edges = data["times"][:, : steps + 1]
    inner = edges[:, :-1, None] + np.diff(edges)[:, :, None] * np.arange(parts) / parts
    finer = {name: np.repeat(data[name][:, :steps], parts, 1) for name in CURVES}
    finer["gap_variance"] = finer["gap_variance"] / parts
    times = np.concatenate([inner.reshape(LANES, -1), edges[:, -1:]], 1)
    return filled_up(data | finer | {"times": times}, steps * parts)


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


# ---- order and convexity --------------------------------------------------------------------------------------------


@some
@random_orders
def test_13_monotone(seed):
    for words in (("spread", "dead"), ("spread", "dead", "buy")):
        data = draw(seed, *words)
        s, sign = solved(data), of(np.sign(data["shares"]))
        assert np.all(s.trades * sign >= 0)
        assert np.all((s.inventory * sign >= 0) & (s.inventory * sign <= of(np.abs(data["shares"]))))


@some
@random_orders
def test_14_frontier(seed):
    data = draw(seed, "uneven-spread", "dead", "target")
    one = {name: np.broadcast_to(x[:1], x.shape) for name, x in data.items()}
    gammas = one["risk_aversion"] * np.geomspace(1e-3, 1e3, LANES)
    s = solved(one | {"risk_aversion": gammas})
    cost, variance = s.expected_cost, s.variance
    assert np.all(np.diff(cost) >= -1e-9 * cost[1:])
    assert np.all(np.diff(variance) <= 1e-9 * variance[:-1])
    moved = np.abs(np.diff(variance)) > 1e-7 * variance[:-1]
    slopes = (np.diff(cost) / np.where(moved, np.diff(variance), 1))[moved]
    # Between two points of a convex curve the slope lies between those at its ends, −γ/2.
    assert np.all(slopes <= -gammas[:-1][moved] / 2 * (1 - 1e-4))
    assert np.all(slopes >= -gammas[1:][moved] / 2 * (1 + 1e-4))


@some
@random_orders
def test_15_concave_in_eta_and_lambda(seed):
    data, other = draw(seed, "target", "dead", "drift"), draw(seed + 1)
    a = {name: data[name] for name in ("eta", "risk_aversion")}
    b = {"eta": other["eta"] * of(factors(seed)), "risk_aversion": data["risk_aversion"] * factors(seed + 1)}
    middle = {name: (a[name] + b[name]) / 2 for name in a}
    ends, mid = [solved(data | x) for x in (a, b)], solved(data | middle)
    assert np.all(mid.objective >= (ends[0].objective + ends[1].objective) / 2 - 1e-9 * size_of(data, mid))


@some
@random_orders
def test_18_convex_in_shares(seed):
    data, c = draw(seed, "uneven-spread", "dead", "drift"), factors(seed) * np.sign(factors(seed + 2) - 1)
    ends = [data["shares"], c * data["shares"]]
    one, two, mid = (solved(data | {"shares": x}) for x in (*ends, (ends[0] + ends[1]) / 2))
    unit = np.maximum(size_of(data, one), size_of(data, two))
    assert np.all(mid.objective <= (one.objective + two.objective) / 2 + 1e-9 * unit)


@some
@random_orders
def test_22_more_time_is_not_worse_and_dearer_is(seed):
    data, c = draw(seed, "uneven-spread", "dead"), factors(seed, 0, 1)
    s = solved(data)
    shut = np.arange(STEPS) >= 36
    shorter = {name: np.where(shut, 0, data[name]) for name in ("volume", "volatility", "gap_variance")}
    assert np.all(solved(data | shorter).objective >= s.objective * (1 - 1e-9))
    for name in ("eta", "volatility", "risk_aversion"):
        more = data[name] * (c if data[name].ndim == 1 else of(c))
        assert np.all(solved(data | {name: more}).objective >= s.objective * (1 - 1e-9))


@some
@random_orders
def test_23_perturbation(seed):
    """Nothing is cheaper than the optimum, and what is near costs the square of its distance more."""
    for phi in (None, 1.0):
        data = draw(seed, "spread", "dead", phi=phi)
        problem = build(data)
        s = solved(problem)
        noise = np.random.default_rng(seed).uniform(-1, 1, (LANES, STEPS))
        turn = s.trades * (noise - of(np.sum(s.trades * noise, 1) / np.sum(s.trades, 1)))
        near, far = (np.asarray(objectives(problem, s.trades + e * turn)) - s.objective for e in (0.1, 0.2))
        assert np.all(near >= -1e-12 * s.objective) and np.all(far >= -1e-12 * s.objective)
        seen = near > 1e-7 * s.objective
        ratio = (far / near)[seen]
        if phi:
            np.testing.assert_allclose(ratio, 4, rtol=1e-6)
        else:
            assert np.all((ratio > 3.5) & (ratio < 4.6)), ratio
    data = draw(seed, "uneven-spread", "drift", "target", "dead")
    problem = build(data)
    s, open_ = solved(problem), data["volume"] > 0
    noise = np.random.default_rng(seed).normal(size=(LANES, STEPS)) * open_
    noise = (noise - of(np.sum(noise, 1) / np.sum(open_, 1))) * open_
    for size in (1e-4, 1e-2, 1.0):
        other = np.asarray(objectives(problem, s.trades + size * of(np.abs(data["shares"])) * noise))
        assert np.all(other >= s.objective - 1e-10 * size_of(data, s))


# ---- pieces, ends and constraints -----------------------------------------------------------------------------------


@some
@random_orders
def test_20_bellman(seed):
    data = draw(seed, "uneven-spread", "drift", "target", "dead")
    cut = 17
    s = solved(data)
    over = np.arange(STEPS) < cut
    rest = {name: np.where(over, 0, data[name]) for name in ("volume", "volatility", "gap_variance", "drift")}
    tail = solved(data | rest | {"shares": s.inventory[:, cut]})
    unit = np.max(np.abs(s.inventory), 1)
    assert np.max(np.abs(tail.inventory[:, cut:] - s.inventory[:, cut:]) / of(unit)) <= 1e-8
    head = {name: np.where(over, data[name], 0) for name in ("volatility", "gap_variance", "drift")}
    first = objectives(build(data | head), np.where(over, s.trades, 0))
    assert np.max(np.abs(first + tail.objective - s.objective) / size_of(data, s)) <= 1e-9


@some
@random_orders
def test_21_time_reversal(seed):
    data = draw(seed, "uneven-spread", "drift", "target", "dead")
    turned = {name: data[name][:, ::-1] for name in CURVES}
    turned |= {"times": data["times"][:, -1:] - data["times"][:, ::-1]}
    s, other = solved(data), solved(data | turned | {"shares": data["target"], "target": data["shares"]})
    back = eqx.tree_at(lambda x: x.inventory, other, other.inventory[:, ::-1])
    assert_related(data, s, back)


def with_cap(data, most):
    return build_capped(data | {"rho_max": most})


@few
@random_orders
def test_24_caps(seed):
    data = draw(seed, "spread", "dead")
    room = np.diff(data["times"]) * data["volume"]
    free = solved(data)
    slack = solved(with_cap(data, np.full((LANES, STEPS), 1e3)))
    assert_related(data, free, slack, rtol=1e-8)
    even = data["shares"] / np.sum(room, 1)
    tightness = np.random.default_rng(seed).uniform(1.1, 3, LANES)
    caps = of(even * tightness) * np.ones((1, STEPS))
    problem = with_cap(data, caps)
    capped = solved(problem)
    assert np.all(capped.objective >= free.objective * (1 - 1e-9))
    rates = capped.trades / np.where(room > 0, room, 1)
    assert np.all(rates <= caps * (1 + 1e-9))


@few
@random_orders
def test_24_multipliers_of_caps(seed):
    """−dU*/dc = τV(p − L'(c))⁺: positive where a cap binds, zero where it does not."""
    data = draw(seed, "spread", "dead")
    room = np.diff(data["times"]) * data["volume"]
    tightness = np.random.default_rng(seed).uniform(1.1, 3, LANES)
    caps = of(data["shares"] / np.sum(room, 1) * tightness) * np.ones((1, STEPS))
    problem = with_cap(data, caps)
    capped = solved(problem)
    rates = capped.trades / np.where(room > 0, room, 1)
    gradient = -np.asarray(objective_gradient(problem).cost.rho_max)
    d = {name: of(x) if np.ndim(x) == 1 else x for name, x in data.items()}
    price = d["eta"] * (1 + d["phi"]) * caps ** d["phi"] + d["psi"]
    multiplier = room * np.maximum(-capped.costate - price, 0)
    unit = np.max(room * np.abs(capped.costate), 1, keepdims=True)
    assert np.max(np.abs(gradient - multiplier) / unit) <= 1e-7
    assert np.all(gradient >= -1e-9 * unit)
    inside = rates < caps * (1 - 1e-6)
    assert np.all(np.abs(gradient)[inside] <= (1e-9 * unit * np.ones_like(gradient))[inside])


@few
@random_orders
def test_25_duality(seed):
    """Stopped at any iterate, dual value ≤ U* ≤ U."""
    loose = jax.jit(jax.vmap(functools.partial(jx.solve, solver=LOOSE, on_failure="best")))
    data = draw(seed, "spread", "drift", "target", "dead")
    best, early = solved(data), loose(build(data))
    above = np.asarray(early.objective) - best.objective
    unit = size_of(data, best)
    assert np.all(above >= -1e-12 * unit)
    assert np.all(above <= np.asarray(early.duality_gap) + 1e-12 * unit)
    assert np.sum(above > 1e-6 * unit) > LANES // 4  # early enough to be seen


LOOSE = jx.LadderNewton(rtol=1.0, max_steps=1)


@some
@random_orders
def test_34_drift_in_a_quadratic_order(seed):
    """x* is affine in the drift, U* concave in it."""
    data, c = draw(seed, "drift", "target", "dead", phi=1.0), factors(seed)
    none, one, more, middle = (solved(data | {"drift": of(k * c) * data["drift"]}) for k in (0, 1, 2, 1.5))
    unit = of(np.max(np.abs(more.inventory), 1))
    assert np.max(np.abs(more.inventory - 2 * one.inventory + none.inventory) / unit) <= 1e-9
    size = size_of(data | {"drift": of(2 * c) * data["drift"]}, more)
    assert np.all(middle.objective >= (one.objective + more.objective) / 2 - 1e-9 * size)


# ---- derivatives ----------------------------------------------------------------------------------------------------


@jax.jit
@jax.grad
def objective_gradient(batch):
    return jnp.sum(jax.vmap(jx.solve)(batch).objective)


@jax.jit
@functools.partial(jax.grad, argnums=0)
def fixed_path_gradient(batch, trades):
    return jnp.sum(jax.vmap(jx.objective)(batch, trades))


@few
@random_orders
def test_16_envelope(seed):
    data = draw(seed, "spread") | {"permanent_impact": 1e-8 * factors(seed)}
    problem = build(data)
    s = solved(problem)
    moved, fixed = objective_gradient(problem), fixed_path_gradient(problem, s.trades)
    np.testing.assert_allclose(moved.risk_aversion, s.variance / 2, rtol=1e-9)
    ends = eqx.tree_at(lambda p: (p.shares, p.target), moved, (fixed.shares, fixed.target))
    for leaf, a, b in zip(*(jax.tree.leaves(tree) for tree in (problem, ends, fixed)), strict=True):
        weight = np.asarray(leaf)
        error = np.abs(np.asarray(a - b) * weight).reshape(LANES, -1).max(1)
        assert np.max(error / size_of(data, s)) <= 1e-9


def _directions(problem, seed):
    """Random relative changes of every leaf; times keep their order."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x * (0.1 * rng.uniform(-1, 1, x.shape)), problem)


def all_trades(batch):
    return jax.vmap(jx.solve)(batch).trades / jnp.abs(batch.shares)[:, None]


@jax.jit
def transposed(batch, change, weights):
    forward = jax.jvp(all_trades, (batch,), (change,))[1]
    (reverse,) = jax.vjp(all_trades, batch)[1](weights)
    return forward, reverse


@few
@random_orders
def test_37_transpose_and_differences(seed):
    data = draw(seed, "spread", "target") | {"permanent_impact": 1e-8 * factors(seed)}
    problem = build(data)
    change = _directions(problem, seed)
    weights = jnp.asarray(np.random.default_rng(seed).normal(size=(LANES, STEPS)))
    forward, reverse = transposed(problem, change, weights)
    ahead = np.sum(np.asarray(weights * forward), 1)
    back = sum(
        np.sum(np.asarray(x * y).reshape(LANES, -1), 1)
        for x, y in zip(jax.tree.leaves(reverse), jax.tree.leaves(change), strict=True)
    )
    unit = np.sum(np.abs(np.asarray(weights * forward)), 1)
    assert np.max(np.abs(ahead - back) / unit) <= 1e-9
    errors = []
    for h in (4e-2, 2e-2, 1e-2):
        ends = [solve_batch(jax.tree.map(lambda x, d, e=e: x + e * d, problem, change)) for e in (h, -h)]
        slope = (ends[0].trades - ends[1].trades) / (2 * h) / np.abs(of(data["shares"]))
        if not np.all(data["target"] * data["shares"] <= 0):
            break
        errors.append(np.max(np.abs(np.asarray(slope) - np.asarray(forward)), 1) / np.max(np.abs(forward), 1))
    if errors:
        assert np.median(errors[1] / errors[2]) > 3.5
        assert np.median(errors[2]) < 1e-4


@few
@random_orders
def test_37_gradient_of_a_batch(seed):
    problem = build(draw(seed, "uneven-spread", "target", "dead", "drift"))
    together = objective_gradient(problem)
    apart = gradient_of_each(problem)
    for leaf, a, b in zip(*(jax.tree.leaves(tree) for tree in (problem, together, apart)), strict=True):
        scale = np.asarray(jnp.max(jnp.abs(b.reshape(LANES, -1)), 1)).reshape((LANES,) + (1,) * (leaf.ndim - 1))
        assert np.all(np.abs(np.asarray(a - b)) <= 1e-12 * scale)


@jax.jit
@jax.vmap
@jax.grad
def gradient_of_each(problem):
    return jx.solve(problem).objective


@jax.jit
def curvature(batch, change, other):
    """<other, H change> for every lane's objective over its shares."""
    scale = jax.lax.stop_gradient(jax.vmap(jx.solve)(batch).objective)

    def total(b):
        return jnp.sum(jax.vmap(jx.solve)(b).objective / scale)

    bent = jax.jvp(jax.grad(total), (batch,), (change,))[1]
    parts = jax.tree.map(lambda h, o: jnp.sum((h * o).reshape(LANES, -1), 1), bent, other)
    return functools.reduce(jnp.add, jax.tree.leaves(parts))


@few
@random_orders
def test_37_hessian_is_symmetric(seed):
    problem = build(draw(seed, "spread", "target"))
    one, two = _directions(problem, seed), _directions(problem, seed + 1)
    a, b = curvature(problem, one, two), curvature(problem, two, one)
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * float(jnp.max(jnp.abs(a))))


# ---- batches and starts ---------------------------------------------------------------------------------------------


def lane(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def assert_same_lanes(s, other, rtol=1e-12):
    unit = np.max(np.abs(np.asarray(s.inventory)), -1, keepdims=True)
    assert np.max(np.abs(np.asarray(other.trades) - np.asarray(s.trades)) / unit) <= rtol
    np.testing.assert_allclose(other.objective, s.objective, rtol=rtol, atol=rtol * float(np.max(np.abs(s.objective))))
    np.testing.assert_array_equal(other.status, s.status)


@few
@random_orders
def test_36_batch_equals_each(seed):
    problem = build(draw(seed, "uneven-spread", "target", "dead", "drift"))
    s = solved(problem)
    for i in (0, 7, 15):
        assert_same_lanes(lane(s, i), jx.solve(lane(problem, i)))


@few
@random_orders
def test_36_permutation(seed):
    problem = build(draw(seed, "uneven-spread", "target", "dead", "drift"))
    order = np.random.default_rng(seed).permutation(LANES)
    s, mixed = solved(problem), solved(lane(problem, order))
    for a, b in zip(jax.tree.leaves(s), jax.tree.leaves(mixed), strict=True):
        np.testing.assert_array_equal(a[order], b)


@few
@random_orders
def test_36_chunk_size(seed):
    problem = build(draw(seed, "uneven-spread", "target", "dead", "drift"))
    s = solved(problem)
    assert_same_lanes(s, in_fives(problem))


in_fives = jax.jit(jax.vmap(functools.partial(jx.solve, solver=jx.LadderNewton(chunk=5))))


def test_36_padding():
    """Orders of three lengths share two calls, and come out as they would alone."""
    data = draw(11, "uneven-spread", "dead", "drift")
    orders = []
    for i, steps in enumerate((48, 33, 41, 48, 40)):
        cut = {name: x[i][:steps] if name in CURVES else x[i] for name, x in data.items()}
        cut["times"] = cut["times"][: steps + 1]
        cost = jx.PowerLawCost(cut["eta"], cut["phi"], cut["psi"])
        orders.append(jx.Liquidation(cut["shares"], _market(cut), cost, cut["risk_aversion"]))
    answers = solve_many(orders)
    for order, s in zip(orders[:2], answers[:2], strict=True):
        assert_same_lanes(jx.solve(order, throw=True), s)


def test_36_without_jit():
    grid = jx.TimeGrid.uniform(1.0, 3)
    problem = jx.Liquidation(1e5, jx.Market(grid, 0.6, 4e6), jx.QuadraticCost(0.1, 0.002), 3e-6)
    s = jx.solve(problem, throw=True)
    with jax.disable_jit():
        slow = jx.solve(problem)
    assert_same_lanes(s, slow)


POISON = [lambda p: p.shares, lambda p: p.market.volume, lambda p: p.grid.times, lambda p: p.cost.phi]


@pytest.mark.parametrize("many", [1, 38], ids=["16 lanes", "608 lanes"])
def test_36_poison_stays_in_its_lane(many):
    """In a batch of one chunk and in one of several; the bad lane changes the order in which lanes are worked on."""
    batches = [build(draw(seed, "uneven-spread", "target", "dead", "drift")) for seed in range(many)]
    problem = jax.tree.map(lambda *xs: jnp.concatenate(xs), *batches)
    clean = solve_batch(problem)
    assert np.all(np.asarray(clean.status) == jx.Status.OK)
    for where, bad in zip(POISON, (3, 8, 15, 0), strict=True):
        bad = bad * many
        s = solve_batch(eqx.tree_at(where, problem, where(problem).at[bad].set(jnp.nan)))
        assert s.status[bad] == jx.Status.NONFINITE_INPUT
        others = np.arange(LANES * many) != bad
        for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(s), strict=True):
            np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])


@jax.jit
@jax.vmap
def solve_from(problem, guess):
    return jx.solve(problem, guess=guess)


@few
@random_orders
def test_38_start_invariance(seed):
    data = draw(seed, "uneven-spread", "target", "dead", "drift")
    problem = build(data)
    s = solved(problem)
    rng = np.random.default_rng(seed)
    unit = of(np.max(np.abs(s.costate), 1))
    for guess in (
        s.costate,
        s.costate * (1 + 0.1 * rng.normal(size=s.costate.shape)),
        0 * s.costate,
        -s.costate,
        unit * rng.normal(size=s.costate.shape) * 10,
    ):
        other = solve_from(problem, guess)
        assert np.all(np.asarray(other.status) == jx.Status.OK)
        assert np.all(np.asarray(other.flags) == 0)
        assert_related(data, s, jax.tree.map(np.asarray, other))
