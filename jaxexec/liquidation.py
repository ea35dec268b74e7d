"""The question (`Liquidation`), its objective, and the answer (`Schedule`).

On steps k = 1..N of length τ_k with inventory x_0 = shares, x_N = target, trades n_k = x_{k−1} − x_k (a sale is
positive) and participation ρ_k = n_k/(τ_k V_k),

    U = Σ τ_k V_k L(ρ_k)  +  permanent impact  −  drift  +  (γ/2) Σ s_k R_k,       s_k = σ_k² τ_k + gap variance

    convention             R_k                     drift                            permanent impact
    "continuous"           (x²_{k−1} + x²_k)/2     Σ α_k τ_k (x_{k−1} + x_k)/2      ½κ(x_0² − x_N²)
    "almgren-chriss"       x²_k                    Σ α_k τ_k x_k                    ½κ(x_0² − x_N² − Σ n_k²)

x is measured from the benchmark in R and in the drift, where there is one. With a terminal penalty P the end is soft:
what is left over is settled at ½P(x_N − target)², and permanent impact is that of the whole order.

The first is second-order accurate for Guéant's continuous problem (2016, ch. 3), the second is Almgren and Chriss's
discrete model exactly (2000, eqs. 4–8).
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.costs import CustomCost, ExecutionCost
from jaxexec.costs.mixture import MixedCost
from jaxexec.market import Market, cut
from jaxexec.numerics.arrays import as_float, check, is_concrete, namespace, unify
from jaxexec.numerics.status import Status

Convention = Literal["continuous", "almgren-chriss"]
CONVENTIONS = ("continuous", "almgren-chriss")


class Liquidation(eqx.Module):
    """One parent order: sell `shares` down to `target` over the market's grid, at least cost and risk.

    Args:
        shares: x_0, shares held at the start; negative for an order to buy. Scalar.
        market: the market.
        cost: the execution cost L; its parameters are scalars or (steps,) arrays.
        risk_aversion: γ in E + (γ/2) Var, per currency, ≥ 0 and finite. Typically 1e-7 to 1e-5. Almgren and
            Chriss's λ is γ/2.
        target: x_N, shares held at the end.
        convention: "continuous" or "almgren-chriss".
        benchmark: (nodes,) inventories of the schedule that the order is measured against, or None. Risk and drift
            are then those of x − benchmark: track a TWAP or VWAP with its inventories, aim at the close with
            `shares` at all nodes. `against` and `target_close` make such orders.
        terminal_penalty: P, currency per share², > 0: the end is soft, ½P(x_N − target)² is what it costs to settle
            the rest. None: x_N is `target`.

    Raises:
        ValueError: a wrong type or shape, or a concrete value that breaks the above; the field is named. The same
            faults in traced values end in a `Status` of the schedule.
    """

    shares: Float[Array, ""]
    market: Market
    cost: ExecutionCost
    risk_aversion: Float[Array, ""]
    target: Float[Array, ""]
    benchmark: Float[Array, " nodes"] | None
    terminal_penalty: Float[Array, ""] | None
    convention: Convention = eqx.field(static=True)

    def __init__(
        self,
        shares: ArrayLike,
        market: Market,
        cost: ExecutionCost,
        risk_aversion: ArrayLike,
        target: ArrayLike = 0.0,
        convention: Convention = "continuous",
        benchmark: ArrayLike | None = None,
        terminal_penalty: ArrayLike | None = None,
    ):
        _check_types(market, cost, convention)
        given = {"shares": shares, "risk_aversion": risk_aversion, "target": target}
        optional = {"benchmark": benchmark, "terminal_penalty": terminal_penalty}
        given |= {name: value for name, value in optional.items() if value is not None}
        arrays = {name: as_float(name, value) for name, value in given.items()}
        for name, array in arrays.items():
            _check_field(name, array, market.grid.times.shape)
        normal = unify({"market": market, "cost": cost, **arrays}, final=True)
        self.shares = normal["shares"]
        self.market = normal["market"]
        self.cost = normal["cost"]
        self.risk_aversion = normal["risk_aversion"]
        self.target = normal["target"]
        self.benchmark = normal.get("benchmark")
        self.terminal_penalty = normal.get("terminal_penalty")
        self.convention = convention
        _check_discrete_convexity(self)

    @property
    def grid(self):
        """The market's time grid."""
        return self.market.grid

    def resume(self, at: ArrayLike, shares: ArrayLike) -> "Liquidation":
        """The rest of the order, as it stands at time `at` with `shares` still held: same shapes, nothing recompiled.

        Steps that are over have no volume and no risk, the one under way keeps the rest of its share. Both arguments
        may be traced. Solve it with `guess=` the schedule in force.

        Args:
            at: trading days, within the grid.
            shares: held at that time.

        Raises:
            ValueError: a concrete `at` outside the grid, or an argument that is not a finite number.
        """
        times, now = self.grid.times, as_float("at", at)
        _check_field("at", now, times.shape)
        if is_concrete(now) and is_concrete(times) and not float(times[0]) <= float(now) < float(times[-1]):
            raise ValueError(f"at must lie within the grid, [{float(times[0])}, {float(times[-1])}), got {float(now)}")
        held = as_float("shares", shares)
        _check_field("shares", held, times.shape)
        dtype = self.shares.dtype
        return eqx.tree_at(
            lambda p: (p.market.elapsed, p.shares), self, (now.astype(dtype) - times[0], held.astype(dtype))
        )

    def refine(self, parts: int) -> "Liquidation":
        """The same order on a finer grid: every step is cut into `parts` equal ones.

        Costs given per step are repeated (of a user's function, those parameters that have shape (steps,)), a
        benchmark is interpolated.

        Raises:
            ValueError: `parts` is not a positive integer.
        """
        steps, market = self.grid.steps, self.market.refine(parts)
        cost = jax.tree.map(lambda x: jnp.repeat(x, parts) if jnp.shape(x) == (steps,) else x, self.cost)
        benchmark = None if self.benchmark is None else cut(self.benchmark, parts)
        end = self.terminal_penalty
        return Liquidation(self.shares, market, cost, self.risk_aversion, self.target, self.convention, benchmark, end)


class Schedule(eqx.Module):
    """The answer: an optimal schedule with its certificate.

    A failed problem has NaN in all fields but `duality_gap`, `relative_gap`, `residual`, `status` and `iterations`,
    and derivatives that are NaN unless masked out.

    Attributes:
        times: (nodes,) trading days.
        inventory: (nodes,) x_k, shares held.
        trades: (steps,) n_k, shares sold in each step; a purchase is negative.
        costate: (steps,) Guéant's p, minus the marginal cost of selling one share more; currency per share.
        expected_cost: E, implementation shortfall in currency.
        variance: Var, currency².
        objective: U = E + (γ/2) Var, currency.
        duality_gap: upper bound of what this schedule costs above the optimum, currency.
        relative_gap: the gap over execution cost + (γ/2) variance.
        residual: relative violation of the optimality conditions q' = V H'(p), in shares.
        status: a `Status`, int32.
        flags: bits of `Flag`, int32.
        iterations: Newton steps taken, int32.
    """

    times: Float[Array, " nodes"]
    inventory: Float[Array, " nodes"]
    trades: Float[Array, " steps"]
    costate: Float[Array, " steps"]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    objective: Float[Array, ""]
    duality_gap: Float[Array, ""]
    relative_gap: Float[Array, ""]
    residual: Float[Array, ""]
    status: Int[Array, ""]
    flags: Int[Array, ""]
    iterations: Int[Array, ""]

    def table(self):
        """The schedule as a `presentation.Table`: one row a step. Concrete, unbatched schedules only."""
        from jaxexec.presentation import Table

        host = self._host("table")
        start = host.inventory[:-1]
        rows = np.column_stack([host.times[:-1], host.times[1:], start, host.trades, host.costate]).tolist()
        footer = (
            f"{_status_name(host.status)}; expected cost {float(host.expected_cost):,.6g}, standard deviation "
            f"{float(np.sqrt(host.variance)):,.6g}, objective {float(host.objective):,.6g}, relative duality gap "
            f"{float(host.relative_gap):.1e}"
        )
        columns = (
            "from (days)",
            "to (days)",
            "inventory (shares)",
            "trade (shares)",
            "costate (currency/share)",
        )
        return Table("Schedule", columns, rows, footer)

    def summary(self) -> str:
        """The schedule as text, with its status and certificate."""
        return self.table().text()

    def plot(self):
        """Inventory against time, a matplotlib Figure."""
        from jaxexec.presentation import figures

        host = self._host("plot")
        return figures.trajectories(host.times, {"inventory": host.inventory}, title="Optimal schedule")

    def to_polars(self):
        """One row a step: time_start, time_end, inventory_start, trade, costate (polars DataFrame)."""
        import polars

        host = self._host("to_polars")
        return polars.DataFrame(
            {
                "time_start": host.times[:-1],
                "time_end": host.times[1:],
                "inventory_start": host.inventory[:-1],
                "trade": host.trades,
                "costate": host.costate,
            }
        )

    def to_pandas(self):
        """`to_polars()` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.to_polars().to_dict(as_series=False))

    def _host(self, what: str) -> Any:
        if not is_concrete(self.trades) or self.trades.ndim != 1:
            raise ValueError(
                f"{what} needs one concrete schedule; pick one of a batch with jax.tree.map(lambda x: x[i], schedule)"
            )
        return jax.tree.map(np.asarray, self)


def expected_cost(problem: Liquidation, trades: Float[Array, " steps"]) -> Float[Array, ""]:
    """E, the expected implementation shortfall of any schedule, in currency.

    Args:
        trades: (steps,) shares sold in each step; a purchase is negative. They need not sum to the order: what is
            left over is held at the end, or settled where there is a terminal penalty.

    Returns:
        Σ τV L(ρ) + permanent impact − drift, as the convention has it. Infinite where a step without market volume
        is traded in, or a cap is passed.
    """
    trades = as_trades(problem, trades)
    inventory = inventory_of(problem, trades)
    return path_cost(problem, inventory, trades)


def variance(problem: Liquidation, trades: Float[Array, " steps"]) -> Float[Array, ""]:
    """Var, the variance of the implementation shortfall of any schedule, in currency²."""
    return variance_of_inventory(problem, inventory_of(problem, as_trades(problem, trades)))


def objective(problem: Liquidation, trades: Float[Array, " steps"]) -> Float[Array, ""]:
    """U = E + (γ/2) Var of any schedule, in currency."""
    return expected_cost(problem, trades) + problem.risk_aversion / 2 * variance(problem, trades)


def execution_cost(problem: Liquidation, trades: Float[Array, " steps"]) -> Float[Array, ""]:
    """Σ τV L(n/(τV)): spread and temporary impact, in currency."""
    return jnp.sum(step_costs(problem, trades, problem.market.step_volume))


def step_costs(
    problem: Liquidation, trades: Float[Array, " steps"], volume: Float[Array, "*#steps"]
) -> Float[Array, " steps"]:
    """τV L(n/(τV)) of each step with τV = `volume` shares traded by the others, in currency."""
    volume = jnp.broadcast_to(volume, trades.shape)
    open_ = volume > 0
    rate = jnp.where(open_, trades / jnp.where(open_, volume, 1), 0)
    impossible = jnp.where(~open_ & (trades != 0), jnp.inf, 0).astype(trades.dtype)
    return jnp.where(open_, volume * problem.cost.value(rate), 0) + impossible


def variance_of_inventory(problem: Liquidation, inventory: Float[Array, " nodes"]) -> Float[Array, ""]:
    """Σ s_k R_k of a path of inventories, in currency²."""
    apart = _from_benchmark(problem, inventory)
    after = apart[1:] ** 2
    held = (apart[:-1] ** 2 + after) / 2 if problem.convention == "continuous" else after
    return jnp.sum(problem.market.step_variance * held)


def path_cost(
    problem: Liquidation, inventory: Float[Array, " nodes"], trades: Float[Array, " steps"]
) -> Float[Array, ""]:
    """E of a path whose inventories are known to full relative accuracy (a sum of trades would lose the tails)."""
    traded = execution_cost(problem, trades) + settlement_cost(problem, inventory)
    return traded + _permanent_cost(problem, inventory, trades) - _gain(problem, inventory)


def settlement_cost(problem: Liquidation, inventory: Float[Array, " nodes"]) -> Float[Array, ""]:
    """½P(x_N − target)², in currency; zero with a hard end."""
    if problem.terminal_penalty is None:
        return jnp.zeros_like(problem.shares)
    return problem.terminal_penalty / 2 * (inventory[-1] - problem.target) ** 2


def _permanent_cost(problem: Liquidation, inventory: Array, trades: Array) -> Array:
    end = inventory[-1] if problem.terminal_penalty is None else problem.target
    squares = inventory[0] ** 2 - end**2
    if problem.convention == "almgren-chriss":
        squares = squares - jnp.sum(trades**2)
    return problem.market.permanent_impact / 2 * squares


def _gain(problem: Liquidation, inventory: Array) -> Array:
    apart = _from_benchmark(problem, inventory)
    held = (apart[:-1] + apart[1:]) / 2 if problem.convention == "continuous" else apart[1:]
    return jnp.sum(problem.market.step_drift * held)


def _from_benchmark(problem: Liquidation, inventory: Array) -> Array:
    return inventory if problem.benchmark is None else inventory - problem.benchmark


def inventory_of(problem: Liquidation, trades: Array) -> Array:
    sold = jnp.concatenate([jnp.zeros((1,), trades.dtype), jnp.cumsum(trades)])
    return problem.shares - sold


def as_trades(problem: Liquidation, trades: ArrayLike) -> Array:
    array = as_float("trades", trades)
    if array.shape != (problem.grid.steps,):
        raise ValueError(f"trades must have shape ({problem.grid.steps},), got {array.shape}")
    return array.astype(problem.shares.dtype)


def _status_name(status: Any) -> str:
    return Status(int(status)).name


def _check_types(market: Any, cost: Any, convention: Any) -> None:
    if not isinstance(market, Market):
        raise ValueError(f"market must be a jaxexec.Market, got {type(market).__name__}")
    if not isinstance(cost, ExecutionCost):
        raise ValueError(f"cost must be a jaxexec.ExecutionCost, got {type(cost).__name__}")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {CONVENTIONS}, got {convention!r}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(
        cost, is_leaf=lambda part: isinstance(part, CustomCost | MixedCost)
    ):
        if isinstance(leaf, MixedCost):
            continue  # made inside, of costs that were checked
        if isinstance(leaf, CustomCost):
            path, leaf = (*path, "psi"), leaf.psi  # what else a user's function takes may have any shape
        if jnp.shape(leaf) not in ((), (market.grid.steps,)):
            name = ".".join(str(part).strip(".") for part in path).replace(".[", "[")
            raise ValueError(
                f"cost.{name} must be a scalar or have shape ({market.grid.steps},), got {jnp.shape(leaf)}"
            )


def _check_field(name: str, array: Array, nodes: tuple[int, ...]) -> None:
    if name == "benchmark":
        if array.shape != nodes:
            raise ValueError(f"benchmark must have shape {nodes}, one inventory a node, got {array.shape}")
    elif array.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {array.shape}; use jax.vmap for a batch of orders")
    check(name, array, np.isfinite, "finite")
    if name == "risk_aversion":
        check(name, array, lambda v: v >= 0, "at least 0")
    if name == "terminal_penalty":
        check(name, array, lambda v: v > 0, "positive")


def _check_discrete_convexity(problem: Liquidation) -> None:
    """Refuse concrete problems whose permanent impact outweighs the temporary one within a step (η̃ ≤ 0)."""
    settled = (problem.market, problem.cost, problem.shares, problem.target)
    known = all(is_concrete(leaf) for leaf in jax.tree.leaves(settled))
    _, convex = discrete_cost(jax.tree.map(np.asarray, problem) if known else problem)
    if is_concrete(convex) and not bool(convex):
        if problem.convention == "continuous":
            raise ValueError(
                "cost must be strictly convex, and least at 0, at all rates the order may take: this "
                f"{type(problem.cost).__name__} is not"
            )
        raise ValueError(
            "permanent_impact is too large for convention='almgren-chriss': L(ρ) − ½ κ τV ρ² must stay strictly convex "
            f"in every step, and does not for permanent_impact = {problem.market.permanent_impact} with this "
            f"{type(problem.cost).__name__}. Use a smaller permanent impact, more steps, a QuadraticCost, or "
            "convention='continuous', where permanent impact does not touch the schedule."
        )


def discrete_cost(problem: Liquidation) -> tuple[ExecutionCost, Bool[Array, ""]]:
    """The cost a step really has, permanent impact within the step taken off, and whether it is strictly convex."""
    cost, volume = problem.cost, problem.market.step_volume
    possible = np.asarray(True)
    if problem.convention == "almgren-chriss":
        permanent = problem.market.permanent_impact * volume
        cost, possible = cost.less_permanent(permanent)
    traded_in, total = volume > 0, volume.sum()
    within = namespace(total).where(total > 0, total, 1)
    rates = 4 * abs(problem.shares - problem.target) / within
    convex = (cost.is_convex(rates) | ~traded_in).all() & namespace(rates).all(problem.cost.is_convex(rates))
    return cost, possible & convex
