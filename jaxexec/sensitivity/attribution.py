"""Why the schedule cost what it did: realised less planned cost, split over the forecast error of every input.

The schedule n stays as it was planned, so that only its bill C(n; θ) changes between the forecast θ̂ and the truth θ:

    C(n; θ) − C(n; θ̂)  =  Σ_i (θ_i − θ̂_i) ∂C/∂θ_i  +  residual

with the derivatives at θ̂ (first order, one adjoint pass), or averaged along the way from θ̂ to θ by Gauss–Legendre
nodes, which leaves no residual but that of the quadrature (Aumann and Shapley's value, in the words of game theory).
"""

import functools
from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.liquidation import Liquidation, as_trades, expected_cost, objective
from jaxexec.numerics.arrays import as_float, is_concrete
from jaxexec.numerics.status import Status, poison, taint
from jaxexec.sensitivity.levels import names_of
from jaxexec.solvers import solve
from jaxexec.solvers.plan import ScheduleSolver
from jaxexec.solvers.verdict import harmless_where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxexec.presentation import Table

Measure = Literal["objective", "expected_cost"]
_MEASURES = {"objective": objective, "expected_cost": expected_cost}
_APART = ("elapsed",)


class ForecastAttribution(eqx.Module):
    """Realised less planned cost of a schedule, by input. Currency throughout.

    Attributes:
        planned: C(n; θ̂), what the schedule was thought to cost.
        modelled: C(n; θ), what it costs with the inputs as they turned out.
        realised: what it did cost; `modelled` where that was not given.
        contributions: name to the input's part, of the input's shape: a curve's is step by step.
        residual: realised − planned − all contributions: curvature, and what the model does not know.
        status: a `Status`: NONFINITE_INPUT where a cost is not finite (a cap passed, no volume), or that of the plan.
    """

    planned: Float[Array, ""]
    modelled: Float[Array, ""]
    realised: Float[Array, ""]
    contributions: dict[str, Array]
    residual: Float[Array, ""]
    status: Int[Array, ""]

    @property
    def totals(self) -> dict[str, Float[Array, ""]]:
        """The contributions, curves summed over their steps."""
        return {name: jnp.sum(part) for name, part in self.contributions.items()}

    def table(self) -> "Table":
        """One row an input, then the residual. Concrete and unbatched only."""
        from jaxexec.presentation import Table

        rows = [("planned", *map(float, (self.planned,)))]
        rows += [(name, float(part)) for name, part in self._parts().items()]
        rows.append(("realised", float(self.realised)))
        return Table("Realised and planned cost", ("", "currency"), rows, f"{Status(int(self.status)).name}.")

    def summary(self) -> str:
        """The table as text."""
        return self.table().text()

    def plot(self) -> "Figure":
        """From planned to realised cost, a waterfall."""
        from jaxexec.presentation import figures

        parts = {"planned": float(self.planned)} | {name: float(part) for name, part in self._parts().items()}
        return figures.waterfall(parts, "From the planned to the realised cost", total="realised")

    def _parts(self) -> dict[str, Array]:
        if not is_concrete(self.planned) or jnp.ndim(self.planned):
            raise ValueError("one concrete attribution is needed; pick one of a batch with jax.tree.map")
        moved = {name: part for name, part in self.totals.items() if part != 0}
        return moved | {"residual": self.residual}


def attribute(
    planned: Liquidation,
    realised: Liquidation,
    trades: ArrayLike | None = None,
    *,
    measure: Measure = "objective",
    nodes: int | None = None,
    realised_cost: ArrayLike | None = None,
    solver: ScheduleSolver | None = None,
) -> ForecastAttribution:
    """Split realised less planned cost over the forecast errors of σ_t, V_t, η, …. Traced and differentiable.

    Args:
        planned: the order with its inputs as they were forecast, θ̂.
        realised: the same order with its inputs as they turned out, θ.
        trades: (steps,) the schedule that was traded; None for the best one of `planned`.
        measure: C: "objective", E + (γ/2) Var, to which volatility matters, or "expected_cost", E.
        nodes: None for derivatives at θ̂; a number of Gauss–Legendre nodes for their mean from θ̂ to θ: 1 leaves a
            residual of third order, 8 next to none.
        realised_cost: what the order did cost, currency; the residual then holds what the model does not know.
        solver: the method that plans; None means the default.

    Raises:
        ValueError: the two orders differ in kind, shape or shares, or an option is none of the above.
    """
    if measure not in _MEASURES:
        raise ValueError(f"measure must be one of {tuple(_MEASURES)}, got {measure!r}")
    if nodes is not None and (isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1):
        raise ValueError(f"nodes must be None or a positive whole number, got {nodes!r}")
    planned, realised = alike(planned, realised)
    given = None if trades is None else as_trades(planned, trades)
    bill = None if realised_cost is None else as_float("realised_cost", realised_cost).astype(planned.shares.dtype)
    if bill is not None and bill.ndim:
        raise ValueError(f"realised_cost must be a scalar, got shape {bill.shape}; use jax.vmap for many orders")
    return _attribute(planned, realised, given, bill, measure, nodes, solver)


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _attribute(planned, realised, trades: Any, bill, measure: Measure, nodes, solver) -> ForecastAttribution:
    plan = solve(planned, solver) if trades is None else None
    done: Any = trades if plan is None else plan.trades
    given = (planned, realised, trades, bill)
    numbers = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((planned, realised, trades))]
    lost = ~functools.reduce(jnp.logical_and, numbers)
    lost = lost if plan is None else lost | (plan.status > Status.LOCAL)
    # Harmless numbers there: gradients that mask a failed lane stay finite.
    planned, realised = harmless_where(lost, planned), harmless_where(lost, realised)
    done = jnp.where(lost, 0, done)
    before, after = jax.tree.leaves(planned), jax.tree.leaves(realised)
    structure = jax.tree.structure(planned)

    def cost(leaves: list[Array]) -> Array:
        return _MEASURES[measure](jax.tree.unflatten(structure, leaves), done)

    def slopes(place: Array) -> list[Array]:
        return jax.grad(cost)([a + place * (b - a) for a, b in zip(before, after, strict=True)])

    places, weights = (jnp.asarray(x, planned.shares.dtype) for x in _gauss_legendre(nodes))
    along = jax.vmap(slopes)(places)
    mean = [jnp.tensordot(weights, g, axes=1) for g in along]
    parts = [g * (b - a) for g, a, b in zip(mean, before, after, strict=True)]
    names = names_of(planned)
    low, high = cost(before), cost(after)
    paid = high if bill is None else bill
    residual = paid - low - sum(jnp.sum(p) for p in parts)
    finite = jnp.isfinite(low) & jnp.isfinite(high) & jnp.isfinite(residual) & ~lost
    status = jnp.where(finite, Status.OK, Status.NONFINITE_INPUT)
    status = status if plan is None else jnp.where(plan.status > Status.LOCAL, plan.status, status)
    failed = status > Status.LOCAL
    everywhere = taint(given, failed)

    def safe(x: Array) -> Array:
        return poison(jnp.where(failed, 0, x) + everywhere, failed)

    kept = {name: safe(p) for name, p in zip(names, parts, strict=True) if name.rsplit(".", 1)[-1] not in _APART}
    return ForecastAttribution(safe(low), safe(high), safe(paid), kept, safe(residual), status.astype(jnp.int32))


def _gauss_legendre(nodes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]; the forecast itself for None."""
    if nodes is None:
        return np.zeros(1), np.ones(1)
    x, w = np.polynomial.legendre.leggauss(nodes)
    return (x + 1) / 2, w / 2


def alike(first: Liquidation, second: Liquidation) -> tuple[Liquidation, Liquidation]:
    """Two views of one order, with their leaves of one shape: a number in one meets a curve in the other.

    Raises:
        ValueError: they differ in kind, shape or, where that can be seen, in shares or target.
    """
    for name, problem in (("planned", first), ("realised", second)):
        if not isinstance(problem, Liquidation):
            raise ValueError(f"{name} must be a jaxexec.Liquidation, got {type(problem).__name__}")
    if jax.tree.structure(first) != jax.tree.structure(second):
        raise ValueError("the two orders must be of one kind: the same cost, convention and optional fields")
    for field in ("shares", "target"):
        a, b = getattr(first, field), getattr(second, field)
        if is_concrete(a) and is_concrete(b) and not np.array_equal(np.asarray(a), np.asarray(b)):
            raise ValueError(f"the two orders must have the same {field}, got {a} and {b}")
    pairs, structure = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True), jax.tree.structure(first)
    joined = []
    for name, (a, b) in zip(names_of(first), pairs, strict=True):
        if a.dtype != b.dtype or (a.ndim and b.ndim and a.shape != b.shape):
            raise ValueError(f"{name} must have one shape and dtype, got {a.shape} {a.dtype} and {b.shape} {b.dtype}")
        shape = jnp.broadcast_shapes(a.shape, b.shape)
        joined.append((jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape)))
    return jax.tree.unflatten(structure, [a for a, _ in joined]), jax.tree.unflatten(structure, [b for _, b in joined])
