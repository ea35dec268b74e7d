"""Random orders as arrays, and what the tests of relations do with them.

All batches have one shape: a coarser grid is filled up with steps in which nothing happens.
"""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxexec as jx

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


def market_of(d):
    grid = jx.TimeGrid(d["times"])
    return jx.Market(grid, d["volatility"], d["volume"], d["permanent_impact"], d["drift"], d["gap_variance"])


@jax.jit
@jax.vmap
def build(d):
    cost = jx.PowerLawCost(d["eta"], d["phi"], d["psi"])
    return jx.Liquidation(d["shares"], market_of(d), cost, d["risk_aversion"], d["target"])


@jax.jit
@jax.vmap
def build_discrete(d):
    cost = jx.QuadraticCost(d["eta"], d["psi"])
    return jx.Liquidation(d["shares"], market_of(d), cost, d["risk_aversion"], d["target"], "almgren-chriss")


@jax.jit
@jax.vmap
def build_capped(d):
    cost = jx.ParticipationCap(jx.PowerLawCost(d["eta"], d["phi"], d["psi"]), d["rho_max"])
    return jx.Liquidation(d["shares"], market_of(d), cost, d["risk_aversion"], d["target"])


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


@jax.jit
@jax.grad
def objective_gradient(batch):
    return jnp.sum(jax.vmap(jx.solve)(batch).objective)
