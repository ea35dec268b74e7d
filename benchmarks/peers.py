"""What a user would otherwise solve a schedule with. Each model is built once, outside the clock.

    minimise   Σ c_k n_k^{1+φ} + ½ Σ w_k x_k²,      x_k = 1 − Σ_{j≤k} n_j,   n ≥ 0,   x_N = 0

in units of the order and of its cost at VWAP. Each peer takes (cost, weight, phi) and gives (inventory, CPU seconds).
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness

ETA = 0.1


class Order(NamedTuple):
    """One power-law order in units of its size and of its cost at VWAP."""

    cost: np.ndarray
    weight: np.ndarray
    phi: float
    shares: float


class Answer(NamedTuple):
    """Inventories in shares, CPU seconds of the whole call, and of the solver alone where it tells."""

    inventory: np.ndarray
    seconds: float
    solver_seconds: float | None = None


def scaled(problem: Any) -> Order:
    """The order of an unbatched host problem."""
    shares, phi = float(problem.shares), float(problem.cost.phi)
    tau = np.diff(problem.market.grid.times)
    volume = problem.market.volume * tau
    cost = ETA * shares ** (1 + phi) * volume**-phi
    unit = float(np.sum(cost * (volume / volume.sum()) ** (1 + phi)))
    weight = float(problem.risk_aversion) * float(problem.market.volatility) ** 2 * tau[:-1] * shares**2
    return Order(cost / unit, weight / unit, phi, shares)


def ipopt(steps: int) -> Callable[[Order], Answer]:
    """CasADi and IPOPT, tolerance 1e-9, sparse: trades and inventories are variables."""
    ca = harness.peer("casadi")
    trades, inner = ca.SX.sym("n", steps), ca.SX.sym("x", steps - 1)
    cost, weight, phi = ca.SX.sym("c", steps), ca.SX.sym("w", steps - 1), ca.SX.sym("phi")
    nodes = ca.vertcat(1, inner, 0)
    value = ca.dot(cost, trades ** (1 + phi)) + ca.dot(weight, inner**2) / 2
    program = {
        "x": ca.vertcat(trades, inner),
        "p": ca.vertcat(cost, weight, phi),
        "f": value,
        "g": nodes[:-1] - nodes[1:] - trades,
    }
    quiet = {"ipopt.print_level": 0, "print_time": False, "ipopt.sb": "yes", "ipopt.tol": 1e-9}
    solver = ca.nlpsol("schedule", "ipopt", program, quiet)

    def run(order: Order) -> Answer:
        share = order.cost ** (-1 / order.phi)
        guess = share / share.sum()  # VWAP: c is a power of the volume
        start = time.process_time()
        found = solver(
            x0=np.concatenate([guess, 1 - np.cumsum(guess)[:-1]]),
            lbx=np.concatenate([np.zeros(steps), np.full(steps - 1, -np.inf)]),
            p=np.concatenate([order.cost, order.weight, [order.phi]]),
            lbg=0,
            ubg=0,
        )
        seconds = time.process_time() - start
        inventory = np.asarray(found["x"])[steps:, 0]
        return Answer(order.shares * np.concatenate([[1.0], inventory, [0.0]]), seconds)

    return run


def clarabel(order: Order) -> Answer:
    """cvxpy and Clarabel; the power cone is native to it. The exponent is not a parameter, so it is modelled anew."""
    cp = harness.peer("cvxpy")
    cost, weight, phi, shares = order
    start = time.process_time()
    trades, power = cp.Variable(len(cost)), cp.Variable(len(cost))
    inventory = 1 - cp.cumsum(trades)[:-1]
    cone = cp.PowCone3D(power, np.ones(len(cost)), trades, np.full(len(cost), 1 / (1 + phi)))
    objective = cost @ power + cp.sum_squares(cp.multiply(np.sqrt(weight / 2), inventory))
    program = cp.Problem(cp.Minimize(objective), [cone, cp.sum(trades) == 1])
    program.solve(solver="CLARABEL")
    seconds = time.process_time() - start
    left = np.concatenate([[1.0], 1 - np.cumsum(trades.value)])
    return Answer(shares * left, seconds, float(program.solver_stats.solve_time))


def lbfgs(order: Order) -> Answer:
    """SciPy's L-BFGS-B on the inventories, with the exact gradient."""
    optimize = harness.peer("scipy.optimize")
    cost, weight, phi, shares = order

    def objective(inner):
        x = np.concatenate([[1.0], inner, [0.0]])
        trades = x[:-1] - x[1:]
        power = np.abs(trades) ** phi
        slope = cost * (1 + phi) * power * np.sign(trades)
        value = np.sum(cost * power * np.abs(trades)) + np.sum(weight * inner**2) / 2
        return value, slope[1:] - slope[:-1] + weight * inner

    share = cost ** (-1 / phi)
    start = time.process_time()
    guess = 1 - np.cumsum(share)[:-1] / share.sum()
    options = {"maxiter": 50_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-9}
    found = optimize.minimize(objective, guess, jac=True, method="L-BFGS-B", options=options)
    return Answer(shares * np.concatenate([[1.0], found.x, [0.0]]), time.process_time() - start)
