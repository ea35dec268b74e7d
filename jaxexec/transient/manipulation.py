"""Whether a kernel lets prices be manipulated, on a given grid.

A round trip held as x costs ½ xᵀHx with the H of `schedule`, whose least eigenvalue decides (Huberman and Stanzl 2004).
A kernel may pass that and still make the best sale buy on the way: transaction-triggered manipulation, which a falling
and convex kernel rules out on every grid (Alfonsi, Schied and Slynko 2012).
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.market import TimeGrid
from jaxexec.numerics.status import Status
from jaxexec.transient.kernels import ImpactKernel
from jaxexec.transient.order import Clock, Setting, harmless_where, is_equidistant, is_valid, setting
from jaxexec.transient.schedule import transient_schedule


class ManipulationTest(eqx.Module):
    """What a kernel allows on a grid. It has no derivatives.

    Attributes:
        round_trips_cost: no round trip has a negative expected cost, to rounding.
        sales_only_sell: the one best sale makes no purchase, to rounding; false where there is no one best sale.
        is_convex: the kernel falls and is convex, at as many equally spaced lags as there are nodes: then both of the
            above hold on every grid.
        smallest_eigenvalue: of H, over the mean of its diagonal: what the cheapest round trip costs compared with one
            of the same Σ x² that is held for a single step. Not above 1; negative for a manipulation.
        round_trip: (nodes,) the cheapest round trip of that kind, as trades of which the largest is 1 share.
        round_trip_cost: its expected cost, currency.
        sale: (nodes,) the best sale of 1 share; NaN where there is no one best.
        status: OK; NONCONVEX where a round trip costs nothing or less, to rounding; NONFINITE_INPUT and
            NONFINITE_INTERNAL as for `transient_schedule`. With these two nothing holds and numbers are NaN.
    """

    round_trips_cost: Bool[Array, ""]
    sales_only_sell: Bool[Array, ""]
    is_convex: Bool[Array, ""]
    smallest_eigenvalue: Float[Array, ""]
    round_trip: Float[Array, " nodes"]
    round_trip_cost: Float[Array, ""]
    sale: Float[Array, " nodes"]
    status: Int[Array, ""]

    @property
    def passed(self) -> Bool[Array, ""]:
        """Neither kind of manipulation."""
        return self.round_trips_cost & self.sales_only_sell


def manipulation_test(kernel: ImpactKernel, times: ArrayLike | TimeGrid) -> ManipulationTest:
    """Look for price manipulation at given times, with a witness of each kind. Traced, without derivatives.

    Args:
        kernel: G.
        times: (nodes,) at which it may be traded, trading days, or a `TimeGrid`.

    Raises:
        ValueError: `kernel` is not a kernel, or times have a wrong shape, do not increase or are not finite.

    Source: Huberman and Stanzl, Price manipulation and quasi-arbitrage, Econometrica 72 (2004); Alfonsi, Schied and
    Slynko, Order book resilience, price manipulation, and the positive portfolio problem, SIAM J. Financial Math. 3
    (2012).
    """
    given = setting("shares", 1.0, times, kernel)
    best = transient_schedule(given.amount, given.times, given.kernel)
    return _judged(given, best.trades, best.status, is_equidistant(given.times))


@functools.partial(jax.jit, static_argnums=3)
def _judged(given: Setting, sale: Array, status: Array, equidistant: bool) -> ManipulationTest:
    given, sale = lax.stop_gradient((given, sale))
    refused = ~is_valid(given)
    given = harmless_where(refused, given)
    nodes, eps = given.times.shape[0], float(jnp.finfo(given.times.dtype).eps)
    matrix = Clock(given.times, equidistant).round_trips(given.kernel, jnp.zeros_like(given.times))
    size = jnp.mean(jnp.diagonal(matrix))
    size = jnp.where(size > 0, size, jnp.max(jnp.abs(matrix)))
    size = jnp.where(size > 0, size, 1)
    values, vectors = jnp.linalg.eigh(matrix / size, symmetrize_input=False)
    held = vectors[:, 0]
    trip = jnp.diff(held, prepend=jnp.zeros_like(held[:1]), append=jnp.zeros_like(held[:1]))
    largest = jnp.max(jnp.abs(trip))
    broken = refused | (status == Status.NONFINITE_INTERNAL)
    buys = -jnp.min(sale) * nodes > eps**0.5

    def number(x: Array) -> Array:
        return jnp.where(broken, jnp.nan, x)

    return ManipulationTest(
        round_trips_cost=~broken & (values[0] >= -4 * nodes * eps * values[-1]),
        sales_only_sell=~broken & ~buys & (status <= Status.LOCAL),
        is_convex=~broken & _falls_convexly(given.kernel, given.times),
        smallest_eigenvalue=number(values[0]),
        round_trip=number(-trip / largest),
        round_trip_cost=number(size * values[0] / 2 / largest**2),
        sale=sale,
        status=status,
    )


def _falls_convexly(kernel: ImpactKernel, times: Array) -> Bool[Array, ""]:
    nodes = times.shape[0]
    step = (times[-1] - times[0]) / (nodes - 1)
    spaced = step * jnp.arange(nodes - 1).astype(times.dtype)
    rounding = 16 * float(jnp.finfo(times.dtype).eps) * jnp.max(jnp.abs(kernel.value(spaced)))
    falls, bends = kernel.fall(spaced, step), kernel.bend(spaced[:-1], step, step)
    return jnp.all(falls >= -rounding) & jnp.all(bends >= -rounding)
