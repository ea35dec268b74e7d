"""Power-law schedules: a batch by `jaxexec.solve`, one after the other by IPOPT, Clarabel and SciPy, and in plain C.

    minimise   Σ b_k η ρ_k^{1+φ} + (γ/2) Σ s_k R_k(x),      ρ_k = (x_{k−1} − x_k)/b_k,      x_0 = X,  x_N = 0

The error is the largest deviation of the inventory, over X, from the exact optimum of this N-bin problem: a primal
Newton iteration in 80-bit floats on the inventories, which shares neither variables nor arithmetic with the solver.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxexec as jx
from benchmarks import harness, kernel, peers

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


def run(orders: int = 8192, steps: int = 192, sample: int = 8, quick: bool = False) -> list[harness.Row]:
    """Rows: float64 and float32, against each peer."""
    if quick:
        orders, steps, sample = 16, 24, 1
    batch = problems(orders, steps)
    host = jax.tree.map(np.asarray, batch)
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32), batch)
    picked = np.linspace(0, orders - 1, sample).astype(int)
    found = list(_peers([jax.tree.map(lambda a, i=i: a[i], host) for i in picked], steps))
    rows = []
    exact = None
    at_a_time = 1024 if jax.default_backend() == "cpu" else orders
    for dtype, problem in (("float64", batch), ("float32", narrow)):
        solved = harness.compiled(functools.partial(lax.map, jx.solve, batch_size=at_a_time), problem)
        if int(jnp.max(solved.result.status)) > jx.Status.OK:
            raise RuntimeError("a schedule of the batch did not converge")
        (seconds,) = harness.median_seconds(solved.run, repeats=3 if quick else 7, clock=harness.clock)
        if exact is None:
            exact = exact_inventory(host, np.asarray(solved.result.inventory))
        common: dict[str, Any] = {
            "size": {"orders": orders, "steps": steps},
            "dtype": dtype,
            "compile_seconds": solved.compile_seconds,
            "run_seconds": seconds / orders,
            "error": _error(np.asarray(solved.result.inventory), exact),
        }
        note = f"{harness.seconds_of('an order')}; one call, {at_a_time:,} at a time; error: largest |x − exact| / X"
        for name, taken, inventories in found:
            error = max(_error(x, exact[i]) for x, i in zip(inventories, picked, strict=True))
            one = f"{note}; the peer one after the other, a sample of {sample} of the same orders"
            rows.append(harness.row("schedules", **common, peer=name, peer_seconds=taken, peer_error=error, note=one))
        rows += _against_c(host, exact, common, note, quick)
    return rows


def _against_c(host: Any, exact: np.ndarray, common: dict[str, Any], note: str, quick: bool) -> list[harness.Row]:
    """The same method in C, on one core, all orders."""
    if not kernel.available():
        return []
    volume = host.market.volume * np.diff(host.market.grid.times)
    total = volume.sum(1, keepdims=True)
    price = ETA * (1 + host.cost.phi) * (host.shares / total[:, 0]) ** host.cost.phi
    variance = host.market.volatility**2 * np.diff(host.market.grid.times)[:, 0]
    weight = np.repeat((host.risk_aversion * variance * host.shares / price)[:, None], volume.shape[1] - 1, axis=1)
    built = kernel.Kernel(np.float64 if common["dtype"] == "float64" else np.float32)
    volume, weight, phi, order = built.pack(volume / total, weight, host.cost.phi)
    tolerance = 1e-20 if common["dtype"] == "float64" else 1e-11
    (seconds,) = harness.median_seconds(
        lambda: built.run(volume, weight, phi, tolerance), repeats=2 if quick else 5, clock=harness.clock
    )
    inventory = built.unpack(built.run(volume, weight, phi, tolerance)[0], order) * host.shares[:, None]
    return [
        harness.row(
            "schedules",
            **common,
            peer="the same method in C",
            peer_seconds=seconds / len(order),
            peer_error=_error(inventory, exact),
            note=f"{note}; gcc {' '.join(kernel.FLAGS[:2])}, eight orders side by side",
        )
    ]


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


def _peers(sample: list[Any], steps: int) -> Iterator[tuple[str, float, list[np.ndarray]]]:
    """Yield (name, median seconds an order, inventories) for each peer that is installed."""
    orders = [peers.scaled(problem) for problem in sample]
    if harness.peer("casadi"):
        solver = peers.ipopt(steps)
        solver(orders[0])
        answers = [solver(order) for order in orders]
        yield "CasADi + IPOPT", _median(answers), [a.inventory for a in answers]
    if harness.peer("cvxpy") and harness.peer("clarabel"):
        answers = [peers.clarabel(order) for order in orders]
        inventories = [a.inventory for a in answers]
        yield "cvxpy + Clarabel", _median(answers), inventories
        yield "Clarabel, its solver alone", float(np.median([a.solver_seconds or np.nan for a in answers])), inventories
    if harness.peer("scipy"):
        answers = [peers.lbfgs(order) for order in orders]
        yield "SciPy L-BFGS-B, exact gradient", _median(answers), [a.inventory for a in answers]


def _median(answers: list[peers.Answer]) -> float:
    return float(np.median([a.seconds for a in answers]))
