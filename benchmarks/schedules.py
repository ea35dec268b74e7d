"""Power-law schedules: a batch by `jaxexec.solve`, one after the other by Clarabel (through cvxpy) and SciPy.

    minimise   Σ b_k η ρ_k^{1+φ} + (γ/2) Σ s_k R_k(x),      ρ_k = (x_{k−1} − x_k)/b_k,      x_0 = X,  x_N = 0

The error is the largest deviation of the inventory, over X, from the exact optimum of this N-bin problem: a primal
Newton iteration in 80-bit floats on the inventories, which shares neither variables nor arithmetic with the solver.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from benchmarks import harness

ETA, VOLUME, VOLATILITY = 0.1, 4e6, 0.6


def problems(orders: int, steps: int, seed: int = 0) -> jx.Liquidation:
    """A batch of orders: φ from 0.4 to 1, 0.1 % to 10 % of the volume, κT from 0.1 to 32, U-shaped volume."""
    rng = np.random.default_rng(seed)
    phi = rng.uniform(0.4, 1.0, orders)
    shares = VOLUME * 10 ** rng.uniform(-3, -1, orders)
    kappa = 10 ** rng.uniform(-1, 1.5, orders)
    # The quadratic cost that agrees with this one at ρ = X/V gives κ² = γσ²V/2η'.
    slope = ETA * (shares / VOLUME) ** (phi - 1)
    gamma = kappa**2 * 2 * slope / (VOLATILITY**2 * VOLUME)
    middle = (np.arange(steps) + 0.5) / steps
    shape = 1 + rng.uniform(0.5, 3, (orders, 1)) * (2 * middle - 1) ** 2
    volume = VOLUME * shape / shape.mean(1, keepdims=True)

    def build(x, p, g, v):
        market = jx.Market(jx.TimeGrid.uniform(1.0, steps), VOLATILITY, v)
        return jx.Liquidation(x, market, jx.PowerLawCost(ETA, p), g)

    return jax.vmap(build)(*(jnp.asarray(a) for a in (shares, phi, gamma, volume)))


def run(orders: int = 1024, steps: int = 192, sample: int = 8, quick: bool = False) -> list[harness.Row]:
    """Rows: float64 against each peer, and float32."""
    if quick:
        orders, steps, sample = 16, 24, 1
    batch = problems(orders, steps)
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32), batch)
    double, single = harness.compiled(jax.vmap(jx.solve), batch), harness.compiled(jax.vmap(jx.solve), narrow)
    wide, slim = harness.median_seconds(double.run, single.run, repeats=3 if quick else 9)
    solved = double.result
    if int(jnp.max(solved.status)) != jx.Status.OK:
        raise RuntimeError("a schedule of the batch did not converge")
    host = jax.tree.map(np.asarray, batch)
    exact = exact_inventory(host, np.asarray(solved.inventory))
    size = {"orders": orders, "steps": steps}
    note = "wall seconds an order, XLA on all cores; error: largest |x − exact| / X"
    common: dict[str, Any] = {
        "size": size,
        "compile_seconds": double.compile_seconds,
        "run_seconds": wide / orders,
        "error": _error(np.asarray(solved.inventory), exact),
    }
    rows = []
    picked = np.linspace(0, orders - 1, sample).astype(int)
    for found in _peers([jax.tree.map(lambda a, i=i: a[i], host) for i in picked]):
        name, seconds, inventories = found
        error = max(_error(x, exact[i]) for x, i in zip(inventories, picked, strict=True))
        one = f"{note}; the peer on one core, a sample of {sample} of the same orders"
        rows.append(harness.row("schedules", **common, peer=name, peer_seconds=seconds, peer_error=error, note=one))
    rows.append(
        harness.row(
            "schedules",
            size=size,
            dtype="float32",
            compile_seconds=single.compile_seconds,
            run_seconds=slim / orders,
            error=_error(np.asarray(single.result.inventory), exact),
            note=note,
        )
    )
    return rows


def _error(inventory: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(inventory - exact) / exact[..., :1]))


def exact_inventory(host: Any, start: np.ndarray) -> np.ndarray:
    """The optimal inventories, (orders, nodes), by Newton's method on the inventories in 80-bit floats.

    The gradient at an inner node is L'(ρ_{k+1}) − L'(ρ_k) + w_k x_k, its derivative tridiagonal with L''(ρ)/b.
    """
    real = np.longdouble
    x = start.astype(real)
    volume = np.asarray(host.market.volume, real) * np.diff(np.asarray(host.market.grid.times, real))
    phi, gamma = (np.asarray(a, real)[:, None] for a in (host.cost.phi, host.risk_aversion))
    variance = np.asarray(host.market.volatility, real).reshape(len(x), 1) ** 2
    weight = gamma * variance * (np.diff(np.asarray(host.market.grid.times, real))[:, :-1])
    for _ in range(4):
        rate = (x[:, :-1] - x[:, 1:]) / volume
        marginal = ETA * (1 + phi) * rate**phi
        stiffness = phi * marginal / rate / volume
        gradient = marginal[:, 1:] - marginal[:, :-1] + weight * x[:, 1:-1]
        diagonal = stiffness[:, :-1] + stiffness[:, 1:] + weight
        x[:, 1:-1] -= _tridiagonal(-stiffness[:, 1:-1], diagonal, gradient)
    rate = (x[:, :-1] - x[:, 1:]) / volume
    marginal = ETA * (1 + phi) * rate**phi
    left = np.abs(marginal[:, 1:] - marginal[:, :-1] + weight * x[:, 1:-1]).max(1) / marginal.max(1)
    if left.max() > 1e-15:
        raise RuntimeError(f"the reference did not converge: residual {left.max():.1e}")
    return x.astype(float)


def _tridiagonal(off: np.ndarray, diagonal: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve symmetric tridiagonal systems, one a row."""
    pivot, right = diagonal.copy(), right.copy()
    for k in range(1, diagonal.shape[1]):
        factor = off[:, k - 1] / pivot[:, k - 1]
        pivot[:, k] -= factor * off[:, k - 1]
        right[:, k] -= factor * right[:, k - 1]
    right[:, -1] /= pivot[:, -1]
    for k in range(diagonal.shape[1] - 2, -1, -1):
        right[:, k] = (right[:, k] - off[:, k] * right[:, k + 1]) / pivot[:, k]
    return right


def _peers(sample: list[Any]):
    """Yield (name, median seconds an order, inventories) for each peer that is installed."""
    if harness.peer("cvxpy") and harness.peer("clarabel"):
        found = [_clarabel(p) for p in sample]
        inventories = [f[0] for f in found]
        yield "cvxpy + Clarabel", float(np.median([f[1] for f in found])), inventories
        yield "Clarabel, its solver alone", float(np.median([f[2] for f in found])), inventories
    if harness.peer("scipy"):
        found = [_lbfgs(p) for p in sample]
        yield "SciPy L-BFGS-B, exact gradient", float(np.median([f[1] for f in found])), [f[0] for f in found]


def _scaled(problem: Any) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Coefficients of Σ c_k n_k^{1+φ} + ½ Σ w_k x_k² in units of the order and of its cost at VWAP."""
    shares, phi = float(problem.shares), float(problem.cost.phi)
    tau = np.diff(problem.market.grid.times)
    volume = problem.market.volume * tau
    cost = ETA * shares ** (1 + phi) * volume**-phi
    unit = float(np.sum(cost * (volume / volume.sum()) ** (1 + phi)))
    weight = float(problem.risk_aversion) * float(problem.market.volatility) ** 2 * tau[:-1] * shares**2
    return cost / unit, weight / unit, phi, shares


def _clarabel(problem: Any) -> tuple[np.ndarray, float, float]:
    """Inventory, seconds in all, seconds in the solver; the power cone is native to it."""
    cp = harness.peer("cvxpy")
    cost, weight, phi, shares = _scaled(problem)
    start = time.perf_counter()
    trades, power = cp.Variable(len(cost)), cp.Variable(len(cost))
    inventory = 1 - cp.cumsum(trades)[:-1]
    cone = cp.PowCone3D(power, np.ones(len(cost)), trades, np.full(len(cost), 1 / (1 + phi)))
    objective = cost @ power + cp.sum_squares(cp.multiply(np.sqrt(weight / 2), inventory))
    program = cp.Problem(cp.Minimize(objective), [cone, cp.sum(trades) == 1])
    program.solve(solver="CLARABEL")
    seconds = time.perf_counter() - start
    left = np.concatenate([[1.0], 1 - np.cumsum(trades.value)])
    return shares * left, seconds, float(program.solver_stats.solve_time)


def _lbfgs(problem: Any) -> tuple[np.ndarray, float]:
    optimize = harness.peer("scipy.optimize")
    cost, weight, phi, shares = _scaled(problem)

    def objective(inner):
        x = np.concatenate([[1.0], inner, [0.0]])
        trades = x[:-1] - x[1:]
        power = np.abs(trades) ** phi
        slope = cost * (1 + phi) * power * np.sign(trades)
        value = np.sum(cost * power * np.abs(trades)) + np.sum(weight * inner**2) / 2
        return value, slope[1:] - slope[:-1] + weight * inner

    volume = problem.market.volume
    start = time.perf_counter()
    guess = 1 - np.cumsum(volume)[:-1] / volume.sum()
    options = {"maxiter": 50_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-9}
    found = optimize.minimize(objective, guess, jac=True, method="L-BFGS-B", options=options)
    seconds = time.perf_counter() - start
    return shares * np.concatenate([[1.0], found.x, [0.0]]), seconds
