"""What the formulas of this room share: times, trades and a kernel, checked and in one dtype; the matrices they make.

Trades n_k at nodes t_0 < … < t_N, a sale positive; x_k is what is held between t_{k−1} and t_k, so that

    n = X e_0 − Σ_k x_k (e_{k−1} − e_k).

A share that is bought for step k alone costs G(0) − G(τ_k), and two such shares save what the kernel bends between
their steps: that is the matrix H of round trips.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxexec.market import TimeGrid
from jaxexec.numerics.arrays import as_float, check, is_concrete, unify
from jaxexec.numerics.status import replace_where
from jaxexec.transient.kernels import ImpactKernel, checked_kernel


class Setting(eqx.Module):
    """Everything a number of this room depends on. `amount` is the shares of an order, or the trades of a schedule."""

    amount: Float[Array, "*amount"]
    times: Float[Array, " nodes"]
    kernel: ImpactKernel
    volatility: Float[Array, "*#steps"]
    risk_aversion: Float[Array, ""]
    temporary_impact: Float[Array, "*#nodes"]


def setting(
    name: str,
    amount: ArrayLike,
    times: ArrayLike | TimeGrid,
    kernel: ImpactKernel,
    volatility: ArrayLike = 0.0,
    risk_aversion: ArrayLike = 0.0,
    temporary_impact: ArrayLike = 0.0,
    *,
    one_each: bool = False,
) -> Setting:
    """Checked inputs of one dtype.

    Args:
        name: what the caller calls `amount`.
        one_each: `amount` has one entry a node.

    Raises:
        ValueError: a wrong shape or type, or a concrete value that is not finite or of the wrong sign.
    """
    nodes = (times if isinstance(times, TimeGrid) else TimeGrid(times)).times
    count = nodes.shape[0]
    given = {
        name: (amount, [(count,)] if one_each else [()]),
        "volatility": (volatility, [(), (count - 1,)]),
        "risk_aversion": (risk_aversion, [()]),
        "temporary_impact": (temporary_impact, [(), (count,)]),
    }
    arrays = {field: as_float(field, value) for field, (value, _) in given.items()}
    for field, array in arrays.items():
        _check(field, array, given[field][1], signed=field == name)
    fields = arrays | {"times": nodes, "kernel": checked_kernel("kernel", kernel)}
    fields = unify(fields, final=True)
    return Setting(amount=fields.pop(name), **fields)


def _check(name: str, array: Array, shapes: Sequence[tuple[int, ...]], *, signed: bool) -> None:
    if array.shape not in shapes:
        wanted = " or ".join(str(shape) if shape else "a scalar" for shape in shapes)
        raise ValueError(f"{name} must be {wanted}, got shape {array.shape}; use jax.vmap for a batch")
    check(name, array, np.isfinite, "finite")
    if not signed:
        check(name, array, lambda v: v >= 0, "at least 0")


def is_valid(given: Setting) -> Bool[Array, ""]:
    """Whether traced inputs are finite, in order and of the signs that concrete ones must have."""
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(given)]
    signs = [jnp.all(x >= 0) for x in (given.volatility, given.risk_aversion, given.temporary_impact)]
    return jnp.all(jnp.stack([*finite, *signs, jnp.all(jnp.diff(given.times) > 0), given.kernel.is_valid()]))


def harmless_where(refused: Bool[Array, ""], given: Setting) -> Setting:
    """Inputs of the same shapes that every formula here can take, in the lanes that were refused."""
    safe = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), given)
    safe = eqx.tree_at(lambda s: s.times, safe, jnp.arange(given.times.shape[0], dtype=given.times.dtype))
    return jax.tree.map(lambda x, s: replace_where(jnp.broadcast_to(refused, x.shape), x, s), given, safe)


def is_equidistant(times: Array) -> bool:
    """Whether the nodes are known to be equally spaced, to rounding."""
    if not is_concrete(times):
        return False
    host = np.asarray(times)
    spread = np.ptp(np.diff(host))
    return bool(spread <= 8 * np.finfo(host.dtype).eps * np.max(np.abs(host)))


class Clock(eqx.Module):
    """Nodes as time since the first and until the last, and the steps between; of equidistant nodes multiples of one.

    Steps are kept apart from the nodes: in float32 a difference of two times has lost the digits that a short step
    needs.
    """

    since: Float[Array, " nodes"]
    until: Float[Array, " nodes"]
    steps: Float[Array, " steps"]
    equidistant: bool = eqx.field(static=True)

    def __init__(self, times: Float[Array, " nodes"], equidistant: bool):
        self.equidistant = equidistant
        if equidistant:
            index = jnp.arange(times.shape[0])
            length = (times[-1] - times[0]) / (times.shape[0] - 1)
            self.since = length * index.astype(times.dtype)
            self.until = self.since[::-1]
            self.steps = jnp.broadcast_to(length, index[1:].shape)
        else:
            self.since, self.until, self.steps = times - times[0], times[-1] - times, jnp.diff(times)

    def impacts(self, kernel: ImpactKernel) -> Float[Array, "nodes nodes"]:
        """G(|t_i − t_j|)."""
        if self.equidistant:
            return _toeplitz(kernel.value(self.since))
        return kernel.value(jnp.abs(self.since[:, None] - self.since[None, :]))

    def round_trips(self, kernel: ImpactKernel, own: Float[Array, " nodes"]) -> Float[Array, "steps steps"]:
        """H: ½ xᵀHx is what it costs to hold x_k shares in step k, dealt for it at its ends.

        On equidistant nodes with a constant `own` it is Toeplitz.

        Args:
            own: 2θ_k, what is paid at each node beside the kernel.
        """
        alone = 2 * kernel.fall(jnp.zeros_like(self.steps), self.steps)
        if self.equidistant:
            across = kernel.bend(self.since[:-2], self.steps[1:], self.steps[1:])
            matrix = _toeplitz(jnp.concatenate([alone[:1], -across]))
        else:
            matrix = -self._bends(kernel)
        index = jnp.arange(alone.shape[0])
        here, before = index, index[1:] - 1
        diagonal = (jnp.zeros_like(alone) if self.equidistant else alone) + own[1:] + own[:-1]
        matrix = matrix.at[here, here].add(diagonal)
        return matrix.at[before, index[1:]].add(-own[1:-1]).at[index[1:], before].add(-own[1:-1])

    def _bends(self, kernel: ImpactKernel) -> Float[Array, "steps steps"]:
        """What the kernel bends from one step to another; zero on the diagonal."""
        begin, end = self.since[:-1], self.since[1:]
        index = jnp.arange(begin.shape[0])
        later, same = index[:, None] > index[None, :], index[:, None] == index[None, :]
        gap = jnp.where(later, begin[:, None] - end[None, :], begin[None, :] - end[:, None])
        return jnp.where(same, 0, kernel.bend(jnp.where(same, 0, gap), self.steps[:, None], self.steps[None, :]))


def _toeplitz(row: Float[Array, " n"]) -> Float[Array, "n n"]:
    """The symmetric matrix of this first row."""
    n = row.shape[0]
    mirrored = jnp.concatenate([row[:0:-1], row])
    # Row by row in a loop: else XLA fuses what made the first row into this, and makes it anew for each entry.
    return lax.map(lambda k: lax.dynamic_slice(mirrored, (n - 1 - k,), (n,)), jnp.arange(n))
