"""Almgren and Chriss's closed form for many orders, against NumPy order by order and NumPy on whole arrays.

The error is the largest of the inventories' relative errors against 40 digits (mpmath), on a sample of orders.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from benchmarks import harness

TEMPORARY, PERMANENT, SPREAD = 2.5e-6, 2.5e-7, 0.0625


def run(orders: int = 100_000, steps: int = 78, sample: int = 2_000, quick: bool = False) -> list[harness.Row]:
    """One row a peer."""
    if quick:
        orders, steps, sample = 200, 20, 50
    rng = np.random.default_rng(0)
    given = {
        "shares": 10 ** rng.uniform(4, 6, orders),
        "horizon": rng.uniform(0.5, 5, orders),
        "volatility": rng.uniform(0.3, 2, orders),
        "variance_weight": 10 ** rng.uniform(-7, -5, orders),
    }

    def one(x, horizon, sigma, weight):
        found = jx.almgren_chriss(
            x,
            horizon,
            steps,
            volatility=sigma,
            temporary_impact=TEMPORARY,
            permanent_impact=PERMANENT,
            half_spread=SPREAD,
            variance_weight=weight,
        )
        return found.inventory, found.trades, found.expected_cost, found.variance

    program = harness.compiled(jax.vmap(one), *map(jnp.asarray, given.values()))
    columns = np.stack(list(given.values()))
    exact = np.array([_exact(column, steps) for column in columns[:, :5].T]) if harness.peer("mpmath") else None
    rows = []
    for name, work, count in (
        ("NumPy, order by order", lambda: [_numpy(c, steps) for c in columns[:, :sample].T], sample),
        ("NumPy, all orders at once", lambda: _numpy(columns[:, :, None], steps), orders),
        *_package(columns[:, :sample], steps),
    ):
        ours, seconds = harness.median_seconds(program.run, work, repeats=3 if quick else 5, clock=harness.clock)
        rows.append(
            harness.row(
                "Almgren–Chriss closed form",
                size={"orders": orders, "steps": steps},
                compile_seconds=program.compile_seconds,
                run_seconds=ours / orders,
                error=_error(program.result[0][:5], exact),
                peer=name,
                peer_seconds=seconds / count,
                peer_error=_error(np.stack([_numpy(c, steps)[0] for c in columns[:, :5].T]), exact),
                note=f"{harness.seconds_of('an order')}; inventory, trades, E and Var of each order",
            )
        )
    return rows


def _package(columns: np.ndarray, steps: int) -> list[tuple[str, Any, int]]:
    """The package of that name, order by order, where it is installed: inventory, trades, E and Var, as it has them."""
    package = harness.peer("almgren_chriss")
    if package is None:
        return []

    def one(x: float, horizon: float, sigma: float, weight: float) -> tuple[Any, ...]:
        tau = horizon / steps
        shared = (weight, tau, sigma, PERMANENT, TEMPORARY)
        return (
            package.trade_trajectory(*shared, x, horizon),
            package.trade_list(*shared, x, horizon),
            package.cost_expectation(weight, tau, sigma, PERMANENT, TEMPORARY, SPREAD, x, horizon),
            package.cost_variance(*shared, x, horizon),
        )

    return [("almgren-chriss, order by order", lambda: [one(*c) for c in columns.T.tolist()], columns.shape[1])]


def _numpy(given: np.ndarray, steps: int) -> tuple[Any, ...]:
    """The formulas as one writes them in NumPy, for four scalars or four columns (orders, 1)."""
    x, horizon, sigma, weight = given
    tau = horizon / steps
    impact = TEMPORARY - PERMANENT * tau / 2
    kappa = np.arccosh(1 + weight * sigma**2 * tau**2 / impact / 2) / tau
    left = horizon - tau * np.arange(steps + 1)
    inventory = x * np.sinh(kappa * left) / np.sinh(kappa * horizon)
    trades = inventory[..., :-1] - inventory[..., 1:]
    square = np.sum(trades**2, axis=-1)
    x, tau, impact, sigma = (np.squeeze(v) for v in (x, tau, impact, sigma))
    expected = PERMANENT / 2 * x**2 + SPREAD * np.abs(x) + impact / tau * square
    return inventory, trades, expected, sigma**2 * tau * np.sum(inventory[..., 1:] ** 2, axis=-1)


def _exact(given: np.ndarray, steps: int) -> list[float]:
    """Inventories at all nodes but the last, in 40 digits."""
    mp = harness.peer("mpmath")
    with mp.workdps(40):
        x, horizon, sigma, weight, eta, gamma = map(mp.mpf, (*given, TEMPORARY, PERMANENT))
        tau = horizon / steps
        kappa = mp.acosh(1 + weight * sigma**2 * tau**2 / (eta - gamma * tau / 2) / 2) / tau
        return [float(x * mp.sinh(kappa * tau * (steps - j)) / mp.sinh(kappa * horizon)) for j in range(steps)]


def _error(inventory: Any, exact: np.ndarray | None) -> float | None:
    if exact is None:
        return None
    return float(np.max(np.abs(np.asarray(inventory)[:, :-1] / exact - 1)))
