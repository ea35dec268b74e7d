"""The continuous problem at equal error: a batch by Gauss collocation, one after the other by SciPy's `solve_bvp`.

    minimise   ∫ V L(ρ) + ½ γσ² q² dt,      q' = −Vρ,      q(0) = X,  q(T) = 0,      L = ηρ^{1+φ}

V is a smooth U, φ from 0.4 to 1, κT from 0.1 to 32. Both sides get smooth curves and choose their own points: ours are
cells that grow with time at the rate of each order's first decay. The error is the largest deviation of the inventory
at the ends of cells, over X, from collocation on eight times as many cells; `solve_bvp` at 1e-12 checks that reference
on the sample. The peer's tolerance is the loosest decade that meets the error on its sample, its own error is measured
at the same times.
"""

import time
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

import jaxexec as jx
from benchmarks import harness
from jaxexec.market import gauss_times
from jaxexec.solvers.accuracy import graded_ends
from jaxexec.solvers.collocation import Collocation

ETA = 0.1


class Level(NamedTuple):
    """An error to reach, the cells and the tolerance of Newton's method that reach it, and orders to a chunk."""

    error: float
    cells: int
    rtol: float
    chunk: int


LEVELS = (Level(5e-4, 9, 1e-4, 1024), Level(6e-7, 47, 1e-7, 512), Level(2.5e-9, 184, 1e-9, 128))


class Orders(NamedTuple):
    """What sets the orders of a batch apart, (orders,) each; X = T = σ = 1, mean volume 1."""

    phi: Array
    risk_aversion: Array
    bend: Array


def orders(number: int, seed: int = 0) -> Orders:
    """Fresh random orders."""
    rng = np.random.default_rng(seed)
    kappa = 10 ** rng.uniform(-1, 1.5, number)
    # The quadratic cost that agrees with this one at ρ = X/V has κ² = γ/2η.
    parts = rng.uniform(0.4, 1.0, number), kappa**2 * 2 * ETA, rng.uniform(0.5, 3, number)
    return Orders(*(jnp.asarray(p) for p in parts))


def volume(t: Any, bend: Any) -> Any:
    return (1 + bend * (2 * t - 1) ** 2) / (1 + bend / 3)


def problem(order: Orders, cells: int) -> jx.Liquidation:
    """One order on its own graded cells."""
    phi, gamma, bend = order
    # The first decay on an infinite horizon, λ_0 = V_0 ρ_0 / X with V_0 φηρ_0^{1+φ} = ½ γσ²X².
    first = volume(0.0, bend)
    rate = first * (gamma / (2 * first * phi * ETA)) ** (1 / (1 + phi))
    times, at = gauss_times(graded_ends(1.0, cells, rate))
    market = jx.Market(jx.TimeGrid(times), 1.0, volume(at, bend))
    return jx.Liquidation(1.0, market, jx.PowerLawCost(ETA, phi), gamma)


def run(number: int = 2048, sample: int = 12, quick: bool = False) -> list[harness.Row]:
    """One row an error: CPU seconds an order on both sides."""
    levels = LEVELS
    if quick:
        number, sample, levels = 32, 1, LEVELS[:1]
    batch = orders(number)
    picked = np.linspace(0, number - 1, sample).astype(int)
    tight = _peer_solutions(batch, picked, 1e-12)
    rows = []
    for level in levels:
        chunk = min(level.chunk, number)
        ours = harness.compiled(_solver(level.cells, level.rtol, number, chunk), batch)
        reference = harness.compiled(_solver(8 * level.cells, 1e-11, number, min(chunk, 128)), batch).result
        truth = np.asarray(reference.inventory)[:, ::16]
        error = float(np.max(np.abs(np.asarray(ours.result.inventory)[:, ::2] - truth)))
        if int(jnp.max(ours.result.status)) > jx.Status.OK_INACCURATE:
            raise RuntimeError("a schedule of the batch did not converge")
        if error > level.error:
            raise RuntimeError(f"{level.cells} cells leave an error of {error:.1e}, above {level.error:.1e}")
        (seconds,) = harness.median_seconds(ours.run, repeats=3 if quick else 9, clock=harness.clock)
        times = np.asarray(ours.result.times)[:, ::2]
        found = _peer(batch, picked, times[picked], truth[picked], level.error) if tight else None
        note = (
            f"{harness.seconds_of('an order')}; error: largest |x − exact| / X, at most {level.error:.1e}; "
            f"{level.cells} graded cells of two steps, {number} orders in chunks of {chunk}"
        )
        peer: dict[str, Any] = {}
        if tight and found:
            check = _largest_error(tight, times[picked], truth[picked])
            peer = {"peer": "SciPy solve_bvp", "peer_seconds": found.seconds, "peer_error": found.error}
            note += f"; the peer at tol = {found.tolerance:g} on a sample of {sample}, with exact Jacobians"
            note += f"; it and the reference agree to {check:.0e} at its tol = 1e-12"
        rows.append(
            harness.row(
                f"continuous problem to {level.error:.1e}",
                size={"orders": number, "cells": level.cells},
                compile_seconds=ours.compile_seconds,
                run_seconds=seconds / number,
                error=error,
                note=note,
                **peer,
            )
        )
    return rows


class _Answer(NamedTuple):
    inventory: Array
    times: Array
    status: Array


def _solver(cells: int, rtol: float, number: int, chunk: int):
    """Chunks that stay in cache, one after the other."""
    solver = Collocation(rtol=rtol)

    def one(order: Orders) -> _Answer:
        s = jx.solve(problem(order, cells), solver, on_failure="best")
        return _Answer(s.inventory, s.times, s.status)

    def all_of_them(batch: Orders) -> _Answer:
        chunks = jax.tree.map(lambda x: x.reshape(number // chunk, chunk), batch)
        return jax.tree.map(lambda x: x.reshape(number, *x.shape[2:]), lax.map(jax.vmap(one), chunks))

    return all_of_them


class _Peer(NamedTuple):
    seconds: float
    error: float
    tolerance: float


def _peer(batch: Orders, picked: np.ndarray, times: np.ndarray, truth: np.ndarray, wanted: float) -> _Peer:
    """SciPy at the loosest tolerance of a decade that meets the error on every order of the sample."""
    for tolerance in 10.0 ** -np.arange(1, 13):
        solved = _peer_solutions(batch, picked, tolerance) or []
        error = _largest_error(solved, times, truth)
        if error <= wanted:
            return _Peer(float(np.median([seconds for seconds, _ in solved])), error, float(tolerance))
    raise RuntimeError(f"solve_bvp does not reach {wanted:.1e}")


def _peer_solutions(batch: Orders, picked: np.ndarray, tolerance: float) -> list[tuple[float, Any]] | None:
    """CPU seconds and interpolant of each order, or None where SciPy is not installed."""
    integrate = harness.peer("scipy.integrate") if harness.peer("scipy") else None
    if integrate is None:
        return None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return [_solve_bvp(integrate, tuple(float(x[i]) for x in batch), tolerance) for i in picked]


def _largest_error(solved: list[tuple[float, Any]], times: np.ndarray, truth: np.ndarray) -> float:
    return max(float(np.max(np.abs(s(t)[0] - x))) for (_, s), t, x in zip(solved, times, truth, strict=True))


def _solve_bvp(integrate: Any, order: tuple[float, ...], tolerance: float) -> tuple[float, Any]:
    """CPU seconds and the interpolant, from the VWAP schedule on eleven points."""
    phi, gamma, bend = order
    scale = ETA * (1 + phi)

    def rate(y):
        return np.sign(y) * (np.abs(y) / scale) ** (1 / phi)

    def slope(t, state):
        q, y = state
        return np.vstack([-volume(t, bend) * rate(y), -gamma * q])

    def jacobian(t, state):
        y = state[1]
        size = np.maximum(np.abs(y), 1e-300)
        steep = volume(t, bend) * (size / scale) ** (1 / phi) / (phi * size)
        zero = np.zeros_like(t)
        return np.array([[zero, -steep], [zero - gamma, zero]])

    def ends(first, last):
        return np.array([first[0] - 1, last[0]])

    def ends_jacobian(first, last):
        return np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])

    start = time.process_time()
    t = np.linspace(0, 1, 11)
    sold = (t + bend * ((2 * t - 1) ** 3 + 1) / 6) / (1 + bend / 3)
    guess = np.vstack([1 - sold, np.full_like(t, scale)])
    found = integrate.solve_bvp(
        slope, ends, t, guess, fun_jac=jacobian, bc_jac=ends_jacobian, tol=tolerance, max_nodes=200_000
    )
    seconds = time.process_time() - start
    return seconds, found.sol
