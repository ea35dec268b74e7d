"""Monte Carlo of the shortfall, against the best that NumPy does with whole arrays, block by block.

Both draw the same model step by step from the same number of paths and find mean, variance and the 99 % quantile.
NumPy keeps the shortfalls, one number a path; jaxexec keeps a histogram. The error is that of the mean and of the
variance, in standard errors, against the closed moments; where there are none, against each other.
"""

from typing import Any

import jax
import numpy as np

import jaxexec as jx
from benchmarks import harness

SHARES, VOLATILITY, VOLUME, DRIFT, PERMANENT = 2e5, 0.6, 4e6, 0.02, 1.5e-5
NOISE, SPEED, BLOCK = 0.4, 3.0, 4096
SAMPLINGS = ("pseudo", "antithetic", "quasi")


def run(paths: int = 1 << 20, steps: int = 78, quick: bool = False) -> list[harness.Row]:
    """Fixed volume, random volume, how many paths quasi-random ones are worth, and 10⁸ path-steps in one call."""
    if quick:
        paths, steps = 1 << 12, 12
    market = jx.Market(jx.TimeGrid.uniform(1.0, steps), VOLATILITY, VOLUME, 0.0, DRIFT)
    problem = jx.Liquidation(SHARES, market, jx.PowerLawCost(0.1, 0.6, 0.004), 1e-6, convention="almgren-chriss")
    trades = jx.solve(problem).trades
    permanent = jx.PowerImpact(PERMANENT, 0.6)
    plain = jx.PriceProcess(permanent=permanent)
    random = jx.PriceProcess(permanent=permanent, volume_noise=jx.MeanReverting(NOISE, SPEED))
    rows = [_against_numpy("", problem, trades, plain, paths, quick)]
    rows.append(_against_numpy(", random volume", problem, trades, random, paths // 4, quick))
    for name, process in (("", plain), (", random volume", random)):
        rows.append(_worth(name, problem, trades, process, paths // 16))
    rows.append(_large(problem, trades, plain, (1 << 14 if quick else 100_000_000) // steps, paths))
    return rows


def _against_numpy(name, problem, trades, process, paths: int, quick: bool) -> harness.Row:
    program = harness.compiled(
        lambda p, n, g: jx.simulate(p, n, g, paths=paths, levels=(0.99,)), problem, trades, process
    )
    found = program.result
    random = process.volume_noise is not None

    def theirs():
        return _numpy(problem, np.asarray(trades), paths, random)

    ours, seconds = harness.median_seconds(program.run, theirs, repeats=2 if quick else 5, clock=harness.clock)
    mean, variance, _ = theirs()
    exact = (mean, variance) if random else _exact(problem, trades, process)
    steps = problem.grid.steps
    return harness.row(
        f"Monte Carlo of the shortfall{name}",
        size={"paths": paths, "steps": steps},
        compile_seconds=program.compile_seconds,
        run_seconds=ours / paths / steps,
        error=_apart(found.mean, found.variance, exact, found) / (np.sqrt(2) if random else 1),
        peer="NumPy on whole arrays, in blocks",
        peer_seconds=seconds / paths / steps,
        peer_error=None if random else _apart(mean, variance, exact, found),
        note=f"{harness.seconds_of('a path and step')}; nonlinear g and h; error in standard errors",
    )


def _worth(name, problem, trades, process, paths: int) -> harness.Row:
    """How many pseudo-random paths one quasi-random path replaces: the square of the ratio of standard errors."""
    errors = {}
    for sampling in SAMPLINGS:
        found = jx.simulate(problem, trades, process, paths=paths, sampling=sampling, levels=(0.99,))
        errors[sampling] = np.array([found.mean_error, found.variance_error, found.value_at_risk_error[0]])
    quasi, mirrored = ((errors["pseudo"] / np.maximum(errors[k], 1e-300)) ** 2 for k in ("quasi", "antithetic"))

    def said(worth: np.ndarray) -> str:
        return " / ".join(f"{min(w, 1e6):,.2g}" for w in worth)

    return harness.row(
        f"quasi-random paths{name}",
        size={"paths": paths, "steps": problem.grid.steps},
        note=f"pseudo-random paths that one replaces, for mean / variance / 99 % quantile: {said(quasi)}; "
        f"antithetic: {said(mirrored)} (1e6: at least)",
    )


def _large(problem, trades, process, paths: int, few: int) -> harness.Row:
    """Many path-steps in one call, and what memory the programme asks for, beside that for few paths."""

    def compiled(count: int):
        def of(p, n, g):
            return jx.simulate(p, n, g, paths=count, levels=(0.99,))

        return jax.jit(of).lower(problem, trades, process).compile()

    many, some = compiled(paths), compiled(few)
    start = harness.clock()
    found = jax.block_until_ready(many(problem, trades, process))
    seconds = harness.clock() - start
    memory = [_megabytes(program) for program in (many, some)]
    steps = problem.grid.steps
    error = _apart(found.mean, found.variance, _exact(problem, trades, process), found)
    return harness.row(
        "Monte Carlo in one call",
        size={"paths": int(found.paths), "steps": steps},
        run_seconds=seconds,
        error=error,
        note=f"{harness.seconds_of(f'{int(found.paths) * steps:,} path-steps')}; working memory {memory[0]:.1f} MB, "
        f"for {few:,} paths {memory[1]:.1f} MB; error in standard errors",
    )


def _megabytes(program: Any) -> float:
    """Working memory that a compiled programme asks for."""
    return program.memory_analysis().temp_size_in_bytes / 1e6


def _exact(problem, trades, process) -> tuple[float, float]:
    moments = jx.shortfall_moments(problem, trades, process)
    return float(moments.expected_cost), float(moments.variance)


def _apart(mean, variance, exact: tuple[float, float], found: jx.Simulation) -> float:
    """The larger of the two deviations, in standard errors."""
    return float(max(abs(mean - exact[0]) / found.mean_error, abs(variance - exact[1]) / found.variance_error))


def _numpy(problem, trades: np.ndarray, paths: int, random: bool) -> tuple[float, float, float]:
    """Step by step on columns of a block's paths, in place, everything that is the same on all paths formed once."""
    rng = np.random.default_rng(1)
    steps = trades.shape[0]
    tau, volume = 1.0 / steps, VOLUME / steps
    speed = trades / tau
    lowered = tau * PERMANENT * np.sign(speed) * np.abs(speed) ** 0.6
    eta, phi, psi = (float(x) for x in (problem.cost.eta, problem.cost.phi, problem.cost.psi))
    cost = volume * eta * (np.abs(trades) / volume) ** (1 + phi) + psi * np.abs(trades)
    deviation, drift = VOLATILITY * np.sqrt(tau), DRIFT * tau
    kept = np.exp(-SPEED * tau)
    fresh = np.sqrt(1 - kept**2)
    losses = np.empty(paths)
    for first in range(0, paths, BLOCK):
        width = min(BLOCK, paths - first)
        shocks = rng.standard_normal((steps, width))
        noises = rng.standard_normal((steps, width)) if random else None
        move, loss = np.zeros(width), np.zeros(width)
        level = noises[0].copy() if noises is not None else None
        for k in range(steps):
            loss -= trades[k] * move
            if noises is None:
                loss += cost[k]
            else:
                if k:
                    level *= kept
                    level += fresh * noises[k]
                held = volume * np.exp(NOISE * level - NOISE**2 / 2)
                loss += held * eta * (abs(trades[k]) / held) ** (1 + phi) + psi * abs(trades[k])
            move += drift - lowered[k]
            shocks[k] *= deviation
            move += shocks[k]
        losses[first : first + width] = loss
    return float(losses.mean()), float(losses.var(ddof=1)), float(np.quantile(losses, 0.99))
