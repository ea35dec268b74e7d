"""How the price, the volatility and the volume move while an order works.

    S_k = S_{k−1} + α_k τ_k + σ_k √τ_k ξ_k − τ_k g(n_k/τ_k)        arithmetic (Almgren and Chriss 2000, eq. 1)
    S_k = S_{k−1} exp(m_k − ½ s_k² + s_k ξ_k) − τ_k g(n_k/τ_k)     geometric, m_k = α_k τ_k/S_0, s_k = σ_k √τ_k/S_0

The trade of a step is done at one price, less h(n_k/τ_k) = L(ρ_k)/ρ_k; where in the step it is done decides which
discrete model the simulation is of:

    execution    at which price                               its expected cost and variance are those of
    "before"     S_{k−1}                                      convention="almgren-chriss"
    "middle"     half-way, half of its own impact in it       convention="continuous"
    "after"      S_k, all of its own impact in it             Bertsimas and Lo (1998)
"""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.liquidation import Liquidation, Schedule, as_trades
from jaxexec.numerics.arrays import as_float, check, unify
from jaxexec.simulation.impact_functions import ImpactFunction

Execution = Literal["before", "middle", "after"]
_EXECUTIONS = ("before", "middle", "after")
_BY_CONVENTION: dict[str, Execution] = {"almgren-chriss": "before", "continuous": "middle"}


class MeanReverting(eqx.Module):
    """A random factor of mean one: the exponential of a stationary Ornstein–Uhlenbeck process, less half its variance.

        f_k = exp(y_k − ½s²),    y_1 ~ N(0, s²),    y_k = a_k y_{k−1} + s √(1 − a_k²) ε_k,    a_k = e^{−κτ_k}

    Args:
        deviation: s ≥ 0, standard deviation of log f. For volume within the day 0.3 to 0.6 is usual.
        speed: κ ≥ 0, per day; 0 is one random level for the whole day, where its derivative is NaN.
        correlation: of ε_k with the price's shock in the step before, between −1 and 1; at the ends its derivative is
            NaN.

    Raises:
        ValueError: a concrete parameter is not a finite scalar, or out of its range.
    """

    deviation: Float[Array, ""]
    speed: Float[Array, ""]
    correlation: Float[Array, ""]

    def __init__(self, deviation: ArrayLike, speed: ArrayLike = 0.0, correlation: ArrayLike = 0.0):
        given = {
            "deviation": as_float("deviation", deviation),
            "speed": as_float("speed", speed),
            "correlation": as_float("correlation", correlation),
        }
        for name, array in given.items():
            if array.ndim:
                raise ValueError(f"{name} must be a scalar, got shape {array.shape}")
            check(name, array, np.isfinite, "finite")
        check("deviation", given["deviation"], lambda v: v >= 0, "at least 0")
        check("speed", given["speed"], lambda v: v >= 0, "at least 0")
        check("correlation", given["correlation"], lambda v: np.abs(v) <= 1, "between −1 and 1")
        normal = unify(given)
        self.deviation, self.speed, self.correlation = (normal[name] for name in given)


class PriceProcess(eqx.Module):
    """What a simulation assumes beyond the order itself; all defaults together are the order's own model.

    Args:
        form: "arithmetic" or "geometric".
        execution: "before", "middle" or "after", see above; None takes the one of the order's convention.
        initial_price: S_0, currency per share, > 0; needed where the form is geometric.
        permanent: g; None is the market's linear κv.
        temporary: h; None is the order's cost, h = L(ρ)/ρ.
        variance_noise: factor of σ², or None.
        volume_noise: factor of V, or None. Its correlation is with the price.

    Raises:
        ValueError: an unknown form or execution, a wrong type, or a geometric price without an initial one.
    """

    initial_price: Float[Array, ""] | None
    permanent: ImpactFunction | None
    temporary: ImpactFunction | None
    variance_noise: MeanReverting | None
    volume_noise: MeanReverting | None
    form: Literal["arithmetic", "geometric"] = eqx.field(static=True)
    execution: Execution | None = eqx.field(static=True)

    def __init__(
        self,
        form: Literal["arithmetic", "geometric"] = "arithmetic",
        execution: Execution | None = None,
        *,
        initial_price: ArrayLike | None = None,
        permanent: ImpactFunction | None = None,
        temporary: ImpactFunction | None = None,
        variance_noise: MeanReverting | None = None,
        volume_noise: MeanReverting | None = None,
    ):
        if form not in ("arithmetic", "geometric"):
            raise ValueError(f"form must be 'arithmetic' or 'geometric', got {form!r}")
        if execution not in (*_EXECUTIONS, None):
            raise ValueError(f"execution must be one of {_EXECUTIONS} or None, got {execution!r}")
        if form == "geometric" and initial_price is None:
            raise ValueError("initial_price is needed for a geometric price: volatility is in currency, not relative")
        price = None if initial_price is None else as_float("initial_price", initial_price)
        if price is not None:
            if price.ndim:
                raise ValueError(f"initial_price must be a scalar, got shape {price.shape}")
            check("initial_price", price, lambda v: np.isfinite(v) & (v > 0), "positive and finite")
        for name, part in (("permanent", permanent), ("temporary", temporary)):
            if not isinstance(part, ImpactFunction | None):
                raise ValueError(f"{name} must be a PowerImpact or CustomImpact, got {type(part).__name__}")
        for name, part in (("variance_noise", variance_noise), ("volume_noise", volume_noise)):
            if not isinstance(part, MeanReverting | None):
                raise ValueError(f"{name} must be a MeanReverting, got {type(part).__name__}")
        self.initial_price = price
        self.permanent, self.temporary = permanent, temporary
        self.variance_noise, self.volume_noise = variance_noise, volume_noise
        self.form, self.execution = form, execution

    def execution_of(self, problem: Liquidation) -> Execution:
        """Where in its step a trade of this order is done."""
        return self.execution or _BY_CONVENTION[problem.convention]


def settled(problem: Liquidation, process: PriceProcess | None) -> PriceProcess:
    """The process in the order's dtype.

    Raises:
        ValueError: it is not a `PriceProcess`, or cannot go with the order.
    """
    process = PriceProcess() if process is None else process
    if not isinstance(process, PriceProcess):
        raise ValueError(f"process must be a jaxexec.PriceProcess, got {type(process).__name__}")
    if process.form == "geometric" and problem.benchmark is not None:
        raise ValueError("a benchmark needs an arithmetic price: a geometric one carries impact into what it earns")
    if process.temporary is not None and process.volume_noise is not None:
        raise ValueError("temporary is a function of the speed alone: volume_noise would change nothing. Drop one")
    if process.permanent is not None and problem.terminal_penalty is not None:
        raise ValueError("terminal_penalty: what is settled has the market's linear impact; leave permanent out")
    if process.volume_noise is not None and is_capped(problem):
        raise ValueError("volume_noise: a fixed schedule cannot keep a cap when volume is random; drop one of them")
    return jax.tree.map(lambda x: jnp.asarray(x, problem.shares.dtype), process)


def is_capped(problem: Liquidation) -> bool:
    """Whether the order's cost has a cap; bounds that are Python infinities are none."""
    return not all(isinstance(bound, float) and math.isinf(bound) for bound in problem.cost.bounds())


def trades_of(problem: Liquidation, trades: Schedule | ArrayLike) -> Float[Array, " steps"]:
    """The trades of a schedule, or trades as they are given, in the order's dtype.

    Raises:
        ValueError: they do not have shape (steps,).
    """
    return as_trades(problem, trades.trades if isinstance(trades, Schedule) else trades)
