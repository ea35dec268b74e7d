"""`solve_basket`: one basket in, one certified schedule out. Failure tiers and derivatives are joined here."""

import functools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from jaxexec.basket import (
    Basket,
    BasketSchedule,
    FactorCovariance,
    basket_cost,
    basket_execution_cost,
    basket_variance,
    coupled_cost,
    over_assets,
)
from jaxexec.costs import ExecutionCost
from jaxexec.numerics.block_tridiagonal import semidefinite_columns
from jaxexec.numerics.status import Flag, Status, poison, replace_where, taint
from jaxexec.solvers.basket_program import attach, build, certify, constant_part, envelope, scale
from jaxexec.solvers.block_ladder import BlockLadderNewton
from jaxexec.solvers.verdict import comparable, harmless, raise_on_failure, verdict

# Largest asymmetry, and most negative eigenvalue, that is rounding; relative to the largest entry.
_SYMMETRIC = {"float64": 1e-10, "float32": 1e-5}


def solve_basket(
    basket: Basket,
    solver: BlockLadderNewton | None = None,
    *,
    throw: bool = False,
    on_failure: Literal["nan", "best"] = "nan",
) -> BasketSchedule:
    """The schedules of least E + (γ/2) Var of a basket, with a proof of how close to least they are.

    Works under `jit`, `vmap`, `grad`, `jacfwd` and `jacrev`. Statuses, NaN and derivatives are those of `solve`.

    Args:
        basket: the orders, their market, costs and covariance.
        solver: the method; None means `BlockLadderNewton()`.
        throw: raise on failure instead of returning a status. Concrete baskets only.
        on_failure: "nan", or "best" for the best iterate where the solver did not converge; the status stays.

    Raises:
        ValueError: `throw` with a traced basket, a basket that is none, or another `on_failure`.
        RuntimeError: `throw` and a failed status.
    """
    if not isinstance(basket, Basket):
        raise ValueError(f"basket must be a jaxexec.Basket, got {type(basket).__name__}")
    if on_failure not in ("nan", "best"):
        raise ValueError(f"on_failure must be 'nan' or 'best', got {on_failure!r}")
    schedule = _solve(basket, BlockLadderNewton() if solver is None else solver, on_failure == "best")
    if throw:
        raise_on_failure(schedule)
    return schedule


@functools.partial(jax.jit, static_argnums=(1, 2))
def _solve(basket: Basket, solver: BlockLadderNewton, keep_best: bool) -> BasketSchedule:
    basket = lax.optimization_barrier(basket)  # as in `solve`
    refusal = _refusal(basket)
    refused = refusal != Status.OK
    inputs, basket = basket, _harmless_where(refused, basket)
    program = build(basket)
    scaled, curves, units = scale(program)
    found = solver.iterate(scaled, curves)
    fixed_q, fixed_y = found.inventory * units.shares[None], found.marginal * units.price[None]
    finite = jnp.all(jnp.isfinite(fixed_q)) & jnp.all(jnp.isfinite(fixed_y))
    fixed_q, fixed_y = lax.stop_gradient((jnp.where(finite, fixed_q, 0), jnp.where(finite, fixed_y, 0)))

    inventory, marginal = attach(program, fixed_q, fixed_y)
    nodes = jnp.concatenate([basket.shares[None], inventory, basket.target[None]])
    trades = jnp.where(program.volume > 0, nodes[:-1] - nodes[1:], 0)
    expected, variance = basket_cost(basket, nodes, trades), basket_variance(basket, nodes)
    value = lax.stop_gradient(expected + basket.risk_aversion / 2 * variance)
    best = envelope(value, program, constant_part(basket), inventory, marginal)
    size = basket_execution_cost(basket, trades) + basket.risk_aversion / 2 * variance
    proof = jax.tree.map(lax.stop_gradient, certify(program, inventory, marginal, size))

    status = jnp.where(refused, refusal, verdict(proof, finite))
    failed = (refused | ~finite) if keep_best else status > Status.LOCAL
    single = basket.shares.dtype == jnp.float32
    everywhere = taint(inputs, failed)

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    return BasketSchedule(
        times=spoilt(basket.grid.times),
        inventory=spoilt(nodes),
        trades=spoilt(trades),
        costate=spoilt(-marginal),
        expected_cost=spoilt(expected),
        variance=spoilt(variance),
        objective=spoilt(best),
        duality_gap=comparable(proof.duality_gap),
        relative_gap=comparable(proof.relative_gap),
        residual=comparable(proof.residual),
        status=status.astype(jnp.int32),
        flags=jnp.asarray(Flag.FLOAT32 if single else Flag.NONE, jnp.int32),
        iterations=found.iterations,
    )


def _refusal(basket: Basket) -> Array:
    """The status of a basket that cannot be solved, found from its inputs alone."""
    finite = functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(basket)])
    market = basket.market
    signs = jnp.all(market.volume >= 0) & jnp.all(market.permanent_impact >= 0)
    ordered = jnp.all(basket.grid.durations > 0)
    convex = coupled_cost(basket)[2] & (basket.risk_aversion >= 0) & _is_covariance(basket)
    reachable = jnp.all(_is_reachable(basket))
    refusal = jnp.where(reachable, Status.OK, Status.INFEASIBLE)
    refusal = jnp.where(convex, refusal, Status.NONCONVEX)
    return jnp.where(finite & ordered & signs, refusal, Status.NONFINITE_INPUT)


def _is_covariance(basket: Basket) -> Bool[Array, ""]:
    """Symmetric and positive semidefinite up to rounding, the couplings symmetric."""
    tolerance = _SYMMETRIC[str(basket.shares.dtype)]
    given = (basket.cross_impact, basket.permanent_impact, basket.covariance)
    sound = jnp.asarray(True)
    for matrix in given:
        if matrix is None or isinstance(matrix, FactorCovariance):
            continue
        skew = jnp.max(jnp.abs(matrix - jnp.swapaxes(matrix, -1, -2)))
        sound = sound & (skew <= tolerance * jnp.max(jnp.abs(matrix)))
    if isinstance(basket.covariance, FactorCovariance):
        return sound & jnp.all(basket.covariance.specific >= 0)
    dense = basket.daily_covariance
    each = dense if dense.ndim == 3 else dense[None]
    return sound & jnp.all(jax.vmap(lambda m: semidefinite_columns(m, tolerance)[1])(each))


def _is_reachable(basket: Basket) -> Bool[Array, " assets"]:
    """Whether caps and volume allow each order at all: Σ b ρ_min ≤ x_0 − x_N ≤ Σ b ρ_max."""
    volume, span = basket.step_volume, basket.shares - basket.target

    def most(side: int) -> Array:
        def bound(cost: ExecutionCost, volume: Array) -> Array:
            return jnp.broadcast_to(jnp.asarray(cost.bounds()[side], volume.dtype), volume.shape)

        return jnp.sum(jnp.where(volume > 0, volume * over_assets(bound, basket.cost, volume), 0), 0)

    slack = 8 * jnp.finfo(span.dtype).eps * jnp.abs(span)
    open_ = jnp.any(volume > 0, 0)
    return (span == 0) | (open_ & (most(0) - slack <= span) & (span <= most(1) + slack))


def _harmless_where(refused: Bool[Array, ""], basket: Basket) -> Basket:
    """A basket of the same shapes that can be solved, in the lanes that were refused."""
    safe = jax.tree.map(jnp.zeros_like, basket)
    cost = jax.tree_util.tree_map_with_path(harmless, basket.cost)
    ones = (jnp.ones_like(basket.shares), jnp.ones_like(basket.market.volume), cost)
    nodes = basket.grid.times.shape[0]
    times = jnp.arange(nodes, dtype=basket.grid.times.dtype)
    safe = eqx.tree_at(lambda b: (b.shares, b.market.volume, b.cost, b.market.grid.times), safe, (*ones, times))
    return jax.tree.map(lambda x, s: replace_where(jnp.broadcast_to(refused, x.shape), x, s), basket, safe)
