"""Risk measures of a cost C: one number to minimise, of a normal distribution or of a sample.

    MeanVariance               E[C] + (γ/2) Var[C]
    ExponentialUtility         (1/γ) log E[e^{γC}]: the certain cost that a CARA trader takes for C
    MeanDeviation              E[C] + m √Var[C]                                    (L-VaR: Almgren and Chriss 2000, §4)
    ValueAtRisk                the level-quantile of C
    ConditionalValueAtRisk     E[C | C above that quantile]                        (Rockafellar and Uryasev 2000)

The first two agree for a normal C; the last three then differ only in their m.
"""

import abc
import statistics

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.numerics.arrays import as_float, check, safe_power

_NORMAL = statistics.NormalDist()
# Of γ times the reach of a sample: below it the logarithm of a mean is told by its cumulants.
_SMALL, _SMALL_SINGLE = 1e-4, 2e-2


class RiskMeasure(eqx.Module):
    """Contract of a risk measure: moves with C, and is its value where C is certain. All values in currency."""

    @abc.abstractmethod
    def of_normal(self, mean: Float[Array, "..."], variance: Float[Array, "..."]) -> Float[Array, "..."]:
        """Of a normal cost."""

    @abc.abstractmethod
    def of_sample(self, losses: Float[Array, " paths"]) -> Float[Array, ""]:
        """Of a sample of costs, all alike likely."""


class MeanVariance(RiskMeasure):
    """E + (γ/2) Var.

    Args:
        risk_aversion: γ ≥ 0, per currency; twice Almgren and Chriss's λ.
    """

    risk_aversion: Float[Array, ""]

    def __init__(self, risk_aversion: ArrayLike):
        self.risk_aversion = _parameter("risk_aversion", risk_aversion)

    def of_normal(self, mean, variance):
        return mean + self.risk_aversion / 2 * variance

    def of_sample(self, losses):
        return jnp.mean(losses) + self.risk_aversion / 2 * jnp.var(losses, ddof=1)


class ExponentialUtility(RiskMeasure):
    """(1/γ) log E e^{γC}, the certainty equivalent under constant absolute risk aversion.

    Args:
        risk_aversion: γ ≥ 0, per currency; at 0 the mean.
    """

    risk_aversion: Float[Array, ""]

    def __init__(self, risk_aversion: ArrayLike):
        self.risk_aversion = _parameter("risk_aversion", risk_aversion)

    def of_normal(self, mean, variance):
        return mean + self.risk_aversion / 2 * variance

    def of_sample(self, losses):
        mean = jnp.mean(losses)
        apart = losses - mean
        reach = jnp.max(jnp.abs(apart))
        small = self.risk_aversion * reach < (_SMALL if losses.dtype == jnp.float64 else _SMALL_SINGLE)
        gamma = jnp.where(small, 1 / jnp.where(reach > 0, reach, 1), self.risk_aversion)
        near = gamma * reach < 1
        inside = jnp.where(near, gamma * apart, 0)
        top = jnp.max(apart)
        far = top + jnp.log(jnp.mean(jnp.exp(gamma * (apart - top)))) / gamma
        whole = jnp.where(near, jnp.log1p(jnp.mean(jnp.expm1(inside))) / gamma, far)
        second, third = jnp.mean(apart**2), jnp.mean(apart**3)
        cumulants = self.risk_aversion / 2 * second + self.risk_aversion**2 / 6 * third
        return mean + jnp.where(small, cumulants, whole)


class MeanDeviation(RiskMeasure):
    """E + m √Var.

    Args:
        deviation_weight: m ≥ 0; 1.645 makes it the 95 % value at risk of a normal cost.
    """

    deviation_weight: Float[Array, ""]

    def __init__(self, deviation_weight: ArrayLike):
        self.deviation_weight = _parameter("deviation_weight", deviation_weight)

    def of_normal(self, mean, variance):
        return mean + self.deviation_weight * safe_power(variance, jnp.full_like(variance, 0.5))

    def of_sample(self, losses):
        return self.of_normal(jnp.mean(losses), jnp.var(losses, ddof=1))


class ValueAtRisk(RiskMeasure):
    """The quantile of C at a level.

    Of a sample it is a weighted mean of the order statistics near the quantile (Sheather and Marron 1990), which has
    derivatives that settle down as the sample grows; one order statistic has not.

    Args:
        level: between 0 and 1, such as 0.95; fixed when compiled.
    """

    level: float = eqx.field(static=True)

    def __init__(self, level: float):
        self.level = _level(level)

    def of_normal(self, mean, variance):
        return mean + _NORMAL.inv_cdf(self.level) * safe_power(variance, jnp.full_like(variance, 0.5))

    def of_sample(self, losses):
        paths = losses.shape[0]
        width = (self.level * (1 - self.level)) ** 0.5 * paths ** (-1 / 3)
        ranks = (np.arange(paths) + 0.5) / paths
        weights = np.exp(-0.5 * ((ranks - self.level) / width) ** 2)
        # A line through the weights keeps the estimate where it is for values that are linear in their rank.
        apart = ranks - self.level
        moments = [np.sum(weights * apart**k) for k in range(3)]
        weights = weights * (moments[2] - moments[1] * apart) / (moments[0] * moments[2] - moments[1] ** 2)
        return jnp.sum(jnp.sort(losses) * jnp.asarray(weights, losses.dtype))


class ConditionalValueAtRisk(RiskMeasure):
    """The mean of C beyond its quantile at a level; convex, unlike the quantile.

    Args:
        level: between 0 and 1, such as 0.95; fixed when compiled.
    """

    level: float = eqx.field(static=True)

    def __init__(self, level: float):
        self.level = _level(level)

    def of_normal(self, mean, variance):
        weight = _NORMAL.pdf(_NORMAL.inv_cdf(self.level)) / (1 - self.level)
        return mean + weight * safe_power(variance, jnp.full_like(variance, 0.5))

    def of_sample(self, losses):
        paths = losses.shape[0]
        # The order statistic at the quantile counts with the part of it that lies beyond.
        share = np.clip(np.arange(1, paths + 1) - self.level * paths, 0, 1)
        return jnp.sum(jnp.sort(losses) * jnp.asarray(share / np.sum(share), losses.dtype))


def _parameter(name: str, value: ArrayLike) -> Array:
    array = as_float(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {array.shape}")
    check(name, array, lambda v: np.isfinite(v) & (v >= 0), "finite and at least 0")
    return array


def _level(level: float) -> float:
    if not 0 < float(level) < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return float(level)


__all__ = [
    "ConditionalValueAtRisk",
    "ExponentialUtility",
    "MeanDeviation",
    "MeanVariance",
    "RiskMeasure",
    "ValueAtRisk",
]
