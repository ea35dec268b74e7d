"""Power-law baskets: a batch by `solve_basket`, one after the other by Clarabel (through cvxpy).

    minimise   Σ_k Σ_i b_ki η_i |ρ_ki|^{1+φ} + (γ/2) Σ_k τ x_kᵀ Σ x_k,      ρ = n/b,      x_0 = X,  x_N = 0

The error is the violation of the optimality conditions, max |L'(ρ_{k+1}) − L'(ρ_k) + γτ Σ x_k| over max |L'|, from the
trades alone and by the same formula on both sides.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from benchmarks import harness
from jaxexec.basket import Basket, BasketSchedule
from jaxexec.solvers.basket import solve_basket
from jaxexec.solvers.block_ladder import BlockLadderNewton

ETA, VOLUME, VOLATILITY, PHI = 0.1, 4e6, 0.6, 0.6
_CHUNK = 32


def problems(baskets: int, assets: int, steps: int, seed: int = 0) -> Basket:
    """Baskets of 0.3 % to 10 % of each asset's volume, one in four to buy; three factors; κT from 1 to 10, rising."""
    rng = np.random.default_rng(seed)
    shape = (baskets, assets)
    volume = VOLUME * 10 ** rng.uniform(-0.5, 0.5, shape)
    shares = volume * 10 ** rng.uniform(-2.5, -1, shape) * np.where(rng.random(shape) < 0.25, -1, 1)
    loadings = rng.standard_normal((*shape, 3)) * 0.4
    correlation = loadings @ np.swapaxes(loadings, 1, 2) + np.eye(assets) * rng.uniform(0.3, 1, (*shape, 1))
    covariance = VOLATILITY**2 * correlation
    eta = ETA * 10 ** rng.uniform(-0.3, 0.3, shape)
    # The quadratic cost that agrees with an asset's own at ρ = X/V gives it κ² = γσ²V/2η'.
    slope = eta * (np.abs(shares) / volume) ** (PHI - 1)
    gamma = 10 ** np.sort(rng.uniform(0, 2, baskets)) * np.median(2 * slope / (VOLATILITY**2 * volume), axis=1)

    def build(x, v, eta, covariance, gamma):
        grid = jx.TimeGrid.uniform(1.0, steps)
        market = jax.vmap(lambda one: jx.Market(grid, VOLATILITY, one))(v)
        cost = jax.vmap(lambda one: jx.PowerLawCost(one, PHI))(eta)
        return Basket(x, market, cost, covariance, risk_aversion=gamma)

    return jax.vmap(build)(*(jnp.asarray(a) for a in (shares, volume, eta, covariance, gamma)))


def run(
    baskets: int = 64, assets: int = 20, steps: int = 96, sample: int = 2, quick: bool = False
) -> list[harness.Row]:
    """Rows: a batch against Clarabel in all, and against its solver alone."""
    if quick:
        baskets, assets, steps, sample = 4, 3, 8, 1
    batch = problems(baskets, assets, steps)
    solver = BlockLadderNewton(rtol=1e-12)  # tight enough for 1e-9 in the largest violated condition
    chunk = min(_CHUNK, baskets)

    def solve_all(batch: Basket) -> BasketSchedule:
        """Alike ones together, so that a chunk ends as soon as its own last one."""
        chunks = jax.tree.map(lambda x: x.reshape(baskets // chunk, chunk, *x.shape[1:]), batch)
        solved = jax.lax.map(jax.vmap(lambda basket: solve_basket(basket, solver)), chunks)
        return jax.tree.map(lambda x: x.reshape(baskets, *x.shape[2:]), solved)

    program = harness.compiled(solve_all, batch)
    (seconds,) = harness.median_seconds(program.run, repeats=2 if quick else 5, clock=harness.clock)
    solved = program.result
    if int(jnp.max(solved.status)) != jx.Status.OK:
        raise RuntimeError("a basket of the batch did not converge")
    host = [_host(jax.tree.map(lambda a, i=i: np.asarray(a[i]), batch)) for i in range(baskets)]
    trades = np.asarray(solved.trades)
    error = max(_violation(h, n) for h, n in zip(host, trades, strict=True))
    common: dict[str, Any] = {
        "size": {"baskets": baskets, "assets": assets, "steps": steps},
        "compile_seconds": program.compile_seconds,
        "run_seconds": seconds / baskets,
        "error": error,
    }
    note = f"{harness.seconds_of('a basket')}; phi = {PHI}; error: violated optimality conditions, relative"
    if not (harness.peer("cvxpy") and harness.peer("clarabel")):
        return [harness.row("baskets", **common, note=note)]
    picked = np.linspace(0, baskets - 1, sample).astype(int)
    found = [_clarabel(host[i]) for i in picked]
    worst = max(_violation(host[i], f[0]) for i, f in zip(picked, found, strict=True))
    one = f"{note}; the peer on a sample of {sample} of the same baskets"
    rows = []
    for name, index in (("cvxpy + Clarabel", 1), ("Clarabel, its solver alone", 2)):
        peer_seconds = float(np.median([[seconds, alone][index - 1] for _, seconds, alone in found]))
        clock = "" if index == 1 else "; its own clock"
        rows.append(
            harness.row("baskets", **common, peer=name, peer_seconds=peer_seconds, peer_error=worst, note=one + clock)
        )
    return rows


def _host(basket: Any) -> dict[str, np.ndarray]:
    """Coefficients in units of each asset's order: Σ c |n|^{1+φ} + ½ Σ x_kᵀ W x_k, over the cost of VWAP."""
    shares, tau = basket.shares, np.diff(basket.market.grid.times)
    volume = basket.market.volume.T * np.ones((len(tau), 1)) * tau[:, None]
    eta = basket.cost.eta[None] if basket.cost.eta.ndim == 1 else basket.cost.eta.T
    cost = eta * np.abs(shares) ** (1 + PHI) * volume**-PHI
    unit = float(np.sum(cost * (volume / volume.sum(0)) ** (1 + PHI)))
    risk = float(basket.risk_aversion) * tau[0] * shares[:, None] * basket.covariance * shares[None, :]
    return {"cost": cost / unit, "risk": risk / unit, "shares": shares}


def _violation(host: dict[str, np.ndarray], trades: np.ndarray) -> float:
    """Largest violated condition, relative; trades in shares."""
    n = trades / host["shares"]
    left = 1 - np.cumsum(n, 0)[:-1]
    marginal = (1 + PHI) * host["cost"] * np.sign(n) * np.abs(n) ** PHI
    return float(np.max(np.abs(np.diff(marginal, axis=0) + left @ host["risk"])) / np.max(np.abs(marginal)))


def _clarabel(host: dict[str, np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Trades, CPU seconds in all, seconds in the solver; the power cone is native to it."""
    cp = harness.peer("cvxpy")
    steps, assets = host["cost"].shape
    values, vectors = np.linalg.eigh(host["risk"])
    root = vectors * np.sqrt(np.maximum(values, 0))
    start = time.process_time()
    trades, power, left = (cp.Variable((steps, assets)), cp.Variable((steps, assets)), cp.Variable((steps + 1, assets)))
    flat = steps * assets
    cone = cp.PowCone3D(
        cp.reshape(power, (flat,), order="C"),
        np.ones(flat),
        cp.reshape(trades, (flat,), order="C"),
        np.full(flat, 1 / (1 + PHI)),
    )
    objective = cp.sum(cp.multiply(host["cost"], power)) + cp.sum_squares(left[1:-1] @ root) / 2
    constraints = [cone, left[0] == 1, left[-1] == 0, left[:-1] - left[1:] == trades]
    program = cp.Problem(cp.Minimize(objective), constraints)
    program.solve(solver="CLARABEL")
    seconds = time.process_time() - start
    return trades.value * host["shares"], seconds, float(program.solver_stats.solve_time)
