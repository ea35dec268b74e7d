"""What the price does under a schedule."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.market import TimeGrid
from jaxexec.numerics.arrays import as_float, check
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.transient.kernels import ImpactKernel
from jaxexec.transient.order import Setting, harmless_where, is_valid, setting


class ImpactPath(eqx.Module):
    """How far a schedule has moved the expected price, currency per share; negative in a sale.

    Attributes:
        times: (points,) trading days.
        before: (points,) without the trade at that very time, if there is one.
        after: (points,) with it. A trade pays the mean of the two.
        status: OK; NONFINITE_INPUT where a traced input is not finite, times do not increase or a sign is wrong.
    """

    times: Float[Array, " points"]
    before: Float[Array, " points"]
    after: Float[Array, " points"]
    status: Int[Array, ""]


def impact_path(
    trades: ArrayLike, times: ArrayLike | TimeGrid, kernel: ImpactKernel, at: ArrayLike | None = None
) -> ImpactPath:
    """The expected price less that without the order, −Σ_{t_j < t} G(t − t_j) n_j. Traced.

    Args:
        trades: (nodes,) shares sold at each time.
        times: (nodes,) trading days, or a `TimeGrid`.
        kernel: G.
        at: (points,) where it is wanted, trading days; None for the times of the trades.

    Raises:
        ValueError: a wrong shape or type, times that do not increase, or a concrete value that is not finite or of the
            wrong sign.
    """
    given = setting("trades", trades, times, kernel, one_each=True)
    points = given.times if at is None else as_float("at", at).astype(given.times.dtype)
    if points.ndim != 1:
        raise ValueError(f"at must have shape (points,), got {points.shape}")
    check("at", points, np.isfinite, "finite")
    return _moved(given, points)


@jax.jit
def _moved(given: Setting, points: Array) -> ImpactPath:
    failed = ~(is_valid(given) & jnp.all(jnp.isfinite(points)))
    everywhere = taint((given, points), failed)
    given = harmless_where(failed, given)
    points = replace_where(jnp.broadcast_to(failed, points.shape), points, jnp.zeros_like(points))
    elapsed = points[:, None] - given.times[None, :]
    moved = given.kernel.value(jnp.maximum(elapsed, 0)) * given.amount[None, :]
    before = -jnp.sum(jnp.where(elapsed > 0, moved, 0), axis=1)
    after = -jnp.sum(jnp.where(elapsed >= 0, moved, 0), axis=1)
    return ImpactPath(
        times=poison(points + everywhere, failed),
        before=poison(before + everywhere, failed),
        after=poison(after + everywhere, failed),
        status=jnp.where(failed, Status.NONFINITE_INPUT, Status.OK).astype(jnp.int32),
    )
