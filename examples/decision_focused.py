"""A network that forecasts the day's volume and volatility, trained on what its schedules cost.

Two trainings of one small network, from the same weights, with the same data and as many steps of Adam:

    two-stage          least squared error of the forecast curves; schedules are made of them afterwards
    decision-focused   first the same; then least cost of the schedules in the market that came, through the solver

Where the network can be right, both are. Where it cannot (here: days whose volume comes in bursts that its features
tell of only through their size, while it is linear in them), squared error spends what the network can do on steps
where a wrong forecast costs nothing, and knows nothing of what a dry hour costs. Costs are in per cent above perfect
foresight, over days that neither has seen; intervals are over seeds, in pairs.

    python examples/decision_focused.py                        # seconds
    python examples/decision_focused.py --full --figures DIR   # more seeds, days and steps, with figures
"""

import argparse
import functools
import math
import pathlib
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

STEPS, FEATURES, SHARES = 13, 4, 3e5
LAYER = jx.ExecutionLayer(jx.TimeGrid.uniform(1.0, STEPS), jx.PowerLawCost(0.3, 0.6, 0.004), risk_aversion=1e-6)
MIDDLE = (jnp.arange(STEPS) + 0.5) / STEPS
USUAL_VOLUME = 4e6 * (0.6 + 1.2 * (2 * MIDDLE - 1) ** 2)
USUAL_VOLATILITY = 0.6 * (1 + 0.3 * (2 * MIDDLE - 1) ** 2)
STUDENT = {12: 2.201, 20: 2.093}  # 97.5 % quantiles with seeds − 1 degrees of freedom


class Days(NamedTuple):
    """What is known in the morning, and what came; a leading axis of days."""

    features: jax.Array
    log_volume: jax.Array
    log_volatility: jax.Array


class Forecaster(eqx.Module):
    """Logarithms of the day's curves over the usual ones, linear in the morning's features."""

    linear: eqx.nn.Linear

    def __init__(self, key):
        self.linear = eqx.nn.Linear(FEATURES, 2 * STEPS, key=key)

    def __call__(self, features):
        return jnp.split(0.3 * self.linear(features), 2)


def draw_days(key, days: int, misspecified) -> Days:
    """Curves that follow the features: linearly (0), or with bursts of volume that their size brings (1)."""
    keys = jax.random.split(key, 3)
    z = jax.random.normal(keys[0], (days, FEATURES))
    tilt = 2 * MIDDLE - 1
    volume = 0.3 * z[:, :1] + 0.4 * z[:, 1:2] * tilt
    volatility = 0.3 * z[:, 2:3] + 0.2 * z[:, 3:] * tilt
    # A burst at midday or a dry afternoon, by the size of a feature, not its sign.
    burst = jnp.exp(-(((MIDDLE - 0.35) / 0.12) ** 2))
    dry = jax.nn.sigmoid((MIDDLE - 0.6) / 0.05)
    large = jnp.maximum(jnp.abs(z) - 0.7, 0)
    volume = volume + misspecified * (1.5 * large[:, 1:2] * burst - 1.2 * large[:, :1] * dry)
    volatility = volatility + misspecified * 0.4 * large[:, 2:3] * burst
    noise = 0.1 + misspecified * 0.3 * dry
    volume = volume + noise * jax.random.normal(keys[1], volume.shape)
    volatility = volatility + 0.1 * jax.random.normal(keys[2], volatility.shape)
    return Days(z, volume, volatility)


def market(log_volume, log_volatility):
    return USUAL_VOLATILITY * jnp.exp(log_volatility), USUAL_VOLUME * jnp.exp(log_volume)


def perfect_foresight(days: Days):
    """What each day would have cost, had it been known."""
    return jax.vmap(lambda d: LAYER(SHARES, *market(d.log_volume, d.log_volatility)).objective)(days)


def squared_error(network: Forecaster, days: Days, _):
    volume, volatility = jax.vmap(network)(days.features)
    volume, came = (USUAL_VOLUME / 4e6 * jnp.exp(x) for x in (volume, days.log_volume))
    return jnp.mean((volume - came) ** 2) + jnp.mean((volatility - days.log_volatility) ** 2)


def realised_excess(network: Forecaster, days: Days, best):
    """Mean cost of the network's schedules above perfect foresight, over its mean."""

    def day(d: Days):
        trades = LAYER(SHARES, *market(*network(d.features))).trades
        return LAYER.realised(trades, SHARES, *market(d.log_volume, d.log_volatility))

    return jnp.mean(jax.vmap(day)(days) - best) / jnp.mean(best)


def fit(loss, network, days: Days, best, key, steps: int, rate: float) -> Any:
    """Adam on batches of 64 days."""
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry, k):
        network, state = carry
        rows = jax.random.choice(k, best.shape[0], (64,), replace=False)
        slope = jax.grad(loss)(network, jax.tree.map(lambda x: x[rows], days), best[rows])
        update, state = optimiser.update(slope, state, network)
        return (optax.apply_updates(network, update), state), None

    return jax.lax.scan(step, (network, optimiser.init(network)), jax.random.split(key, steps))[0][0]


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
@functools.partial(jax.vmap, in_axes=(0, None, None, None, None))
def trained(key, misspecified, days: int, tested: int, steps: int):
    """Realised cost above perfect foresight, per cent: two-stage and decision-focused."""
    keys = jax.random.split(key, 4)
    drawn = draw_days(keys[0], days + tested, misspecified)
    foreseen = perfect_foresight(drawn)
    (known, best), (unseen, best_unseen) = (
        jax.tree.map(lambda x, part=part: x[part], (drawn, foreseen)) for part in (slice(days), slice(days, None))
    )
    start = fit(squared_error, Forecaster(keys[1]), known, best, keys[2], 10 * steps, 0.03)
    both = [fit(loss, start, known, best, keys[3], steps, 0.01) for loss in (squared_error, realised_excess)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *both)
    return 100 * jax.vmap(lambda network: realised_excess(network, unseen, best_unseen))(together)


def compare(misspecified: float, seeds: int, days: int, tested: int, steps: int):
    """Costs (seeds, 2), the mean saving and half its 95 % interval."""
    costs = np.asarray(trained(jax.random.split(jax.random.key(7), seeds), misspecified, days, tested, steps))
    saved = costs[:, 0] - costs[:, 1]
    return costs, saved.mean(), STUDENT[seeds] * saved.std(ddof=1) / math.sqrt(seeds)


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("--full", action="store_true")
    words.add_argument("--figures", type=pathlib.Path)
    options = words.parse_args()
    size = (20, 1024, 1024, 600) if options.full else (12, 192, 192, 40)
    found = {}
    for name, misspecified in (("misspecified", 1.0), ("well specified", 0.0)):
        costs, saved, half = found[name] = compare(misspecified, *size)
        print(
            f"{name}: two-stage {costs[:, 0].mean():.3f} %, decision-focused {costs[:, 1].mean():.3f} % above perfect"
        )
        print(f"  saved {saved:.3f} ± {half:.3f} (95 %, {size[0]} seeds, in pairs)")
    assert found["misspecified"][1] > found["misspecified"][2]  # the interval excludes zero
    assert found["well specified"][1] > -found["well specified"][2]  # no loss beyond it
    if options.figures:
        saved = [x[1] for x in found.values()]
        errors = [x[2] / 1.96 for x in found.values()]
        title = "What training on decisions saves, per cent of the cost"
        figure = jx.presentation.error_bars(list(found), saved, errors, title, "saved (% of perfect foresight)")
        options.figures.mkdir(parents=True, exist_ok=True)
        (options.figures / "decision_focused.svg").write_bytes(jx.presentation.to_svg(figure))
