"""Any smooth objective of the trades, by gradient: what is not convex, or has no Hamiltonian, is minimised here.

The search is limited-memory BFGS with a line search (optax), in units of the order. One-sided, trades are the squares
of a point, n_k = (x_0 − x_N) w_k²/Σ w²: none changes sign, so the corner of a spread at n = 0 is never met, and a step
that had better not trade ends at w_k = 0. Otherwise they move in the plane Σ n = x_0 − x_N. What is found is a
stationary point, and says so: its status is LOCAL. Its derivatives are those of the stationarity condition, whatever
the search did.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.liquidation import Liquidation, as_trades, inventory_of
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.solvers.verdict import harmless_where, raise_on_failure

Objective = Callable[[Liquidation, Float[Array, " steps"]], Float[Array, ""]]

_MEMORY = 20
_TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


class LocalSchedule(eqx.Module):
    """A stationary point of an objective.

    Attributes:
        times: (nodes,) trading days.
        inventory: (nodes,) shares held.
        trades: (steps,) shares sold in each step.
        objective: currency.
        residual: greatest derivative of the objective, over its size, with respect to the point that is searched.
        status: LOCAL, MAX_STEPS, INFEASIBLE without volume, NONFINITE_INPUT, or NONFINITE_INTERNAL where the objective
            is not finite.
        iterations: steps of the search, int32.
    """

    times: Float[Array, " nodes"]
    inventory: Float[Array, " nodes"]
    trades: Float[Array, " steps"]
    objective: Float[Array, ""]
    residual: Float[Array, ""]
    status: Int[Array, ""]
    iterations: Int[Array, ""]


class _Search(NamedTuple):
    point: Array
    value: Array
    gradient: Array
    memory: Any
    iterations: Array


def descend(
    problem: Liquidation,
    objective: Objective,
    *,
    start: ArrayLike | None = None,
    one_sided: bool = True,
    rtol: float | None = None,
    max_steps: int = 1000,
    throw: bool = False,
) -> LocalSchedule:
    """Minimise any differentiable objective of the trades. Traced; derivatives by the implicit function theorem.

    Args:
        problem: the order; its cost and convention matter only where the objective uses them.
        objective: (problem, trades) → currency, made of jax.numpy operations. What it needs derivatives with respect
            to must come through `problem` or be closed over.
        start: (steps,) trades to start from; None is VWAP. Different starts may end in different places; one-sided, a
            step that starts without a trade stays without.
        one_sided: a sale has no purchases on the way. False allows both, for objectives without a corner at n = 0.
        rtol: on `residual`; None is 1e-9 in float64, 1e-4 in float32.
        max_steps: of the search.
        throw: raise on failure; concrete problems only.

    Raises:
        ValueError: a wrong shape, a problem with a terminal penalty, or `throw` with a traced problem.
        RuntimeError: `throw` and a failed status.

    Source: Nocedal and Wright, Numerical Optimization (2006), ch. 7.
    """
    if problem.terminal_penalty is not None:
        raise ValueError("terminal_penalty: descend needs a hard end; add the settlement to the objective")
    given = _vwap(problem) if start is None else as_trades(problem, start)
    limit = _TOLERANCE.get(str(problem.shares.dtype), 1e-4) if rtol is None else rtol
    found = _descend(problem, given, eqx.Partial(_called, objective), one_sided, limit, max_steps)
    if throw:
        raise_on_failure(found)
    return found


def _called(objective: Objective, problem: Liquidation, trades: Array) -> Array:
    return objective(problem, trades)


@eqx.filter_jit
def _descend(
    problem: Liquidation, start: Array, objective: Objective, one_sided: bool, limit: float, max_steps: int
) -> LocalSchedule:
    inputs = (problem, start, eqx.filter(objective, eqx.is_inexact_array))
    sound = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(inputs)]))
    problem, start = (
        harmless_where(~sound, problem),
        replace_where(jnp.broadcast_to(~sound, start.shape), start, start * 0),
    )
    objective = jax.tree.map(
        lambda x: replace_where(~sound, x, jnp.ones_like(x)) if eqx.is_inexact_array(x) else x, objective
    )
    map_ = _OneSided if one_sided else _Free
    trades_at = map_(problem.shares - problem.target, start, problem.market.step_volume > 0)
    first = lax.stop_gradient(objective(problem, trades_at(trades_at.origin)))
    unit = jnp.where(jnp.isfinite(first) & (first != 0), jnp.abs(first), 1)

    def value(point: Array) -> Array:
        return objective(problem, trades_at(point)) / unit

    point, iterations = _stationary(value, trades_at, limit, max_steps)
    trades = trades_at(point)
    found = objective(problem, trades)
    residual = jnp.max(jnp.abs(jax.grad(value)(lax.stop_gradient(point))))
    finite = jnp.isfinite(found) & jnp.isfinite(residual)
    status = jnp.where(residual <= limit, Status.LOCAL, Status.MAX_STEPS)
    status = jnp.where(finite, status, Status.NONFINITE_INTERNAL)
    reachable = jnp.any(problem.market.step_volume > 0) | (problem.shares == problem.target)
    status = jnp.where(reachable, status, Status.INFEASIBLE)
    status = jnp.where(sound, status, Status.NONFINITE_INPUT).astype(jnp.int32)
    failed = status > Status.LOCAL
    everywhere = taint(inputs, failed)

    def spoilt(x: Array) -> Array:
        return poison(jnp.where(failed, 0, x) + everywhere, failed)

    inventory = inventory_of(problem, trades).at[-1].set(problem.target)
    return LocalSchedule(
        times=spoilt(problem.grid.times),
        inventory=spoilt(inventory),
        trades=spoilt(trades),
        objective=spoilt(found),
        residual=jnp.where(jnp.isfinite(residual), residual, jnp.finfo(residual.dtype).max),
        status=status,
        iterations=iterations.astype(jnp.int32),
    )


class _Free(eqx.Module):
    """Trades on the plane Σ n = span, those of steps without volume zero."""

    span: Array
    origin: Array
    open: Array

    def __init__(self, span: Array, start: Array, open_: Array):
        self.span, self.open = span, jnp.broadcast_to(open_, start.shape)
        size = lax.stop_gradient(span)
        self.origin = lax.stop_gradient(start) / jnp.where(size == 0, 1, size)

    def __call__(self, point: Array) -> Array:
        inside = jnp.where(self.open, point, 0)
        return self.span * (inside + self._even * (1 - jnp.sum(inside)))

    def idle(self, point: Array) -> Array:
        """What of a point its trades do not depend on."""
        inside = jnp.where(self.open, point, 0)
        return point - inside + self._even * jnp.sum(inside)

    @property
    def _even(self) -> Array:
        return _even(self.open, self.span.dtype)


class _OneSided(eqx.Module):
    """Trades that are the order's share of squares."""

    span: Array
    origin: Array
    open: Array

    def __init__(self, span: Array, start: Array, open_: Array):
        self.span, self.open = span, jnp.broadcast_to(open_, start.shape)
        first = lax.stop_gradient(jnp.where(self.open, jnp.maximum(start * jnp.sign(span), 0), 0))
        total = jnp.sum(first)
        even = _even(self.open, start.dtype)
        self.origin = jnp.sqrt(jnp.where(total > 0, first / jnp.where(total > 0, total, 1), even))

    def __call__(self, point: Array) -> Array:
        squares = jnp.where(self.open, point**2, 0)
        total = jnp.sum(squares)
        return self.span * squares / jnp.where(total > 0, total, 1)

    def idle(self, point: Array) -> Array:
        """What of a point its trades do not depend on: its length, and steps without volume."""
        inside = jnp.where(self.open, point, 0)
        return point - inside + inside * (jnp.sum(inside**2) - 1)


def _even(open_: Array, dtype: jnp.dtype) -> Array:
    """Equal shares of one on the steps with volume."""
    return open_.astype(dtype) / jnp.maximum(jnp.sum(open_.astype(dtype)), 1)


def _stationary(
    value: Callable[[Array], Array], trades_at: _Free | _OneSided, limit: float, max_steps: int
) -> tuple[Array, Array]:
    """Where the search stops, with the derivatives of ∇f = 0, and how many steps it took."""

    def condition(point: Array) -> Array:
        # What the trades do not depend on is held where it is, so that the condition has one solution.
        return jax.grad(value)(point) + trades_at.idle(point)

    def solve(_: Callable, first: Array) -> tuple[Array, Array]:
        with jax.numpy_dtype_promotion("standard"):  # optax adds integers of two widths
            point, iterations = _search(value, first, limit, max_steps)
        if isinstance(trades_at, _OneSided):
            point = point / jnp.sqrt(jnp.sum(point**2))
        return point, iterations

    def tangent(linear: Callable[[Array], Array], right: Array) -> Array:
        return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(right)), right)

    return lax.custom_root(condition, trades_at.origin, solve, tangent, has_aux=True)


def _search(value: Callable[[Array], Array], start: Array, limit: float, max_steps: int) -> tuple[Array, Array]:
    """Limited-memory BFGS from `start`."""
    import optax

    method = optax.lbfgs(memory_size=_MEMORY)
    slope = optax.value_and_grad_from_state(value)

    def going(state: _Search) -> Array:
        steep = jnp.max(jnp.abs(state.gradient)) > 0.5 * limit
        return steep & (state.iterations < max_steps) & jnp.isfinite(state.value)

    def step(state: _Search) -> _Search:
        now, gradient = slope(state.point, state=state.memory)
        move, memory = method.update(gradient, state.memory, state.point, value=now, grad=gradient, value_fn=value)
        point = jnp.asarray(optax.apply_updates(state.point, move))
        known = optax.tree.get(memory, "value"), optax.tree.get(memory, "grad")
        return _Search(point, *known, memory, state.iterations + 1)

    first = _Search(start, *jax.value_and_grad(value)(start), method.init(start), jnp.int32(0))
    end = lax.while_loop(going, step, first)
    return end.point, end.iterations.astype(start.dtype)  # custom_root wants a tangent of what it carries


def _vwap(problem: Liquidation) -> Array:
    volume = jnp.broadcast_to(problem.market.step_volume, (problem.grid.steps,))
    total = jnp.sum(volume)
    return (problem.shares - problem.target) * volume / jnp.where(total > 0, total, 1)


__all__ = ["LocalSchedule", "Objective", "descend"]
