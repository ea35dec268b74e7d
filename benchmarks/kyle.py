"""Kyle's equilibrium with a risk-averse insider, against a loop over the same recursion with SciPy's `brentq`.

The peer solves each period's cubic and the outer equation for Σ_T by `brentq`, one equilibrium after the other. The
error of both is the largest relative residual of the equations of the first and the last period and of Σ_0.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from benchmarks import harness


def run(quick: bool = False) -> list[harness.Row]:
    """Batches under both preferences, one equilibrium alone, value with all derivatives, growth with the periods."""
    count, periods, sample = (20, 10, 2) if quick else (10_000, 100, 24)
    rows = [_batch(preference, count, periods, sample, quick) for preference in ("local", "cara")]
    rows += [_single(preference, 50 if quick else 1000, quick) for preference in ("local", "cara")]
    rows.append(_gradient(*((8, 10) if quick else (1024, 100)), quick))
    if jax.default_backend() == "cpu":  # one recurrence is no work for another device
        rows.append(_growth((10, 20) if quick else (1_000, 10_000, 100_000, 1_000_000), quick))
    return rows


def _risk_aversions(count: int) -> np.ndarray:
    """Γ = γ√(Σ_0 s) over two decades around what one period has: shuffled, so that any part is a sample of them."""
    return np.random.default_rng(0).permutation(np.geomspace(0.1, 10.0, count))


def _batch(preference: str, count: int, periods: int, sample: int, quick: bool) -> harness.Row:
    gammas = _risk_aversions(count)

    def solved(gamma):
        return jx.kyle.solve(1.0, 1.0, periods, gamma, preference)  # pyright: ignore[reportArgumentType]

    ours = harness.compiled(jax.vmap(solved), jnp.asarray(gammas))
    found = ours.result
    if np.any(found.status != jx.Status.OK):
        raise RuntimeError(f"{np.sum(found.status != jx.Status.OK)} equilibria failed")
    few = gammas[:sample]

    def peer():
        return [_by_brentq(periods, gamma / 2, preference == "cara") for gamma in few]

    theirs = np.array(peer())  # (sample, periods): λ
    seconds = harness.median_seconds(ours.run, peer, repeats=1 if quick else 3, clock=harness.clock)
    impact = np.asarray(found.price_impact)[:sample]
    return harness.row(
        f"equilibrium of a risk-averse insider, {preference}",
        size={"equilibria": count, "periods": periods},
        compile_seconds=ours.compile_seconds,
        run_seconds=seconds[0] / count,
        error=float(np.max(np.asarray(found.residual))),
        peer="SciPy brentq, one after the other",
        peer_seconds=seconds[1] / sample,
        peer_error=float(np.max(np.abs(theirs / impact - 1))),
        note=f"{harness.seconds_of('an equilibrium')}; error: residual of the defining equations; the peer's: of λ, "
        f"against ours, {sample} of the batch",
    )


def _by_brentq(periods: int, weight: float, cara: bool) -> list[float]:
    """λ_1..λ_T at Σ_0 = s = 1."""
    from scipy.optimize import brentq

    def back(log_last: float) -> tuple[float, list[float]]:
        curvature, variance, impacts = 0.0, math.exp(log_last), []
        for _ in range(periods):
            a, sigma = curvature, variance

            def cubic(impact: float, a=a, sigma=sigma) -> float:
                return 2 * impact * impact * (1 - a * impact + weight * impact) - sigma * (1 - 2 * a * impact)

            most = min(math.sqrt(sigma / 2) * (1 + 1e-12), 1 / (2 * a) if a > 0 else math.inf)
            impact: float = brentq(cubic, 0.0, most, xtol=1e-300, rtol=1e-14)  # pyright: ignore
            bend = impact * (1 - a * impact + weight * impact)
            curvature = a + (1 - 2 * a * impact) ** 2 / (4 * bend)
            if cara:
                curvature /= 1 + 4 * weight * a * impact * impact
            variance = sigma / (1 - impact * (1 - 2 * a * impact) / (2 * bend))
            impacts.append(impact)
        return math.log(variance), impacts[::-1]

    digits: Any = 1e-14
    root = brentq(lambda z: back(z)[0], -periods * math.log(2), 0.0, xtol=digits, rtol=digits)
    return back(root)[1]  # pyright: ignore


def _single(preference: str, periods: int, quick: bool) -> harness.Row:
    def solved(gamma):
        return jx.kyle.solve(1.0, 1.0, periods, gamma, preference)  # pyright: ignore[reportArgumentType]

    ours = harness.compiled(solved, jnp.asarray(2.0))
    (seconds,) = harness.median_seconds(ours.run, repeats=3 if quick else 25, clock=harness.clock)
    return harness.row(
        f"one equilibrium alone, {preference}",
        size={"periods": periods},
        compile_seconds=ours.compile_seconds,
        run_seconds=seconds,
        error=float(ours.result.residual),
        note=f"{harness.seconds_of('an equilibrium')}, {int(ours.result.passes)} passes and a first and a last",
    )


def _gradient(count: int, periods: int, quick: bool) -> harness.Row:
    gammas = _risk_aversions(count)
    inputs = {
        "prior": np.ones(count),
        "noise": np.ones((count, periods)),
        "gamma": gammas,
        "rho": np.full(count, 0.1),
    }

    def value(x):
        return jx.kyle.solve(x["prior"], x["noise"], periods, x["gamma"], "local", x["rho"], 1.0).expected_profit

    plain = harness.compiled(jax.vmap(value), inputs)
    both = harness.compiled(jax.vmap(jax.value_and_grad(value)), inputs)
    alone, together = harness.median_seconds(plain.run, both.run, repeats=2 if quick else 9)
    step = 1e-4
    up, down = (jax.vmap(value)(inputs | {"gamma": gammas * (1 + s)}) for s in (step, -step))
    difference = np.asarray(up - down) / (2 * step * gammas)
    error = np.max(np.abs(np.asarray(both.result[1]["gamma"]) / difference - 1))
    return harness.row(
        "value and gradient, equilibrium",
        size={"equilibria": count, "periods": periods, "inputs": periods + 3},
        compile_seconds=both.compile_seconds,
        run_seconds=together / count,
        error=float(error),
        peer="the value alone",
        peer_seconds=alone / count,
        note="wall seconds an equilibrium; error: relative, of γ's derivative against central differences",
    )


def _growth(sizes: tuple[int, ...], quick: bool) -> harness.Row:
    seconds = []
    for periods in sizes:
        ours = harness.compiled(lambda gamma, n=periods: jx.kyle.solve(1.0, 1.0, n, gamma), jnp.asarray(1.0))
        if ours.result.status != jx.Status.OK:
            raise RuntimeError(f"{periods} periods failed")
        seconds.append(harness.median_seconds(ours.run, repeats=1 if quick else 3, clock=harness.clock)[0])
    slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    points = ", ".join(f"{n:,}: {1e3 * s:.3g} ms" for n, s in zip(sizes, seconds, strict=True))
    return harness.row(
        "growth with the number of periods",
        size={"periods": sizes[-1]},
        run_seconds=seconds[-1] / sizes[-1],
        note=f"slope in log–log {slope:.3f}; {harness.seconds_of('an equilibrium')}: {points}",
    )
