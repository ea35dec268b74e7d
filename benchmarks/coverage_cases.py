"""Data with known parameters for every calibration: what the coverage study and the tests of coverage both fit.

A case draws columns for many lanes at once, with its errors or without, and fits them. Its seed comes of its name, so
that none was chosen.
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from jaxexec import calibration
from jaxexec.calibration import ParameterFit

Columns = dict[str, Any]
Start = Mapping[str, np.ndarray] | None


class Case(NamedTuple):
    """One way to calibrate, on data of one kind.

    Attributes:
        name: What is fitted and how.
        truth: Parameters that the data have, by name, in the fit's order.
        rows: Rows of one replication.
        draw: (random numbers, lanes, size of the errors: 1, or 0 for none) → columns, lanes first.
        fit: (columns, where to search from by name, one a lane, or None) → fits, lanes first.
        honest: Whether intervals are said to cover; else the case shows by how much they do not.
    """

    name: str
    truth: dict[str, float]
    rows: int
    draw: Callable[[np.random.Generator, int, float], Columns]
    fit: Callable[[Columns, Start], ParameterFit]
    honest: bool = True

    @property
    def seed(self) -> int:
        """A number that the name alone decides."""
        return zlib.crc32(self.name.encode())


def from_random_starts(case: Case, count: int = 20, lanes: int = 20) -> float:
    """Largest relative error of the first `count` of so many lanes, on data without errors, each from its own start."""
    rng = np.random.default_rng(case.seed + 1)
    columns = case.draw(rng, lanes, 0.0)
    fits = case.fit(columns, {name: _around(rng, name, value, lanes) for name, value in case.truth.items()})
    truth = np.array(list(case.truth.values()))
    return float(np.max(np.abs(np.asarray(fits.values)[:count] / truth - 1)))


def covered(case: Case, fits: ParameterFit, *, free: bool = True) -> np.ndarray:
    """How many 95 % intervals of the usable fits contain the truth, one number a parameter."""
    ends, truth = fits.intervals(free=free), np.array(list(case.truth.values()))
    inside = (ends[..., 0] < truth) & (truth < ends[..., 1])
    return np.sum(inside & usable(fits)[:, None], axis=0)


def usable(fits: ParameterFit) -> np.ndarray:
    """Fits that found something."""
    return np.isin(np.asarray(fits.status), (jx.Status.OK, jx.Status.OK_INACCURATE))


def _around(rng: np.random.Generator, name: str, value: float, count: int) -> np.ndarray:
    if name in ("psi", "delta", "level"):  # without bounds
        return value + max(abs(value), 0.05) * rng.uniform(-1.5, 1.5, count)
    return value * np.exp(rng.uniform(-1.2, 1.2, count))


# ---- executions

_COST = {"eta": 0.1, "phi": 0.6, "psi": 0.004}
_TAIL = 3  # degrees of freedom of errors with heavy tails


def _executions(rng: np.random.Generator, lanes: int, size: float, *, rows: int, errors: str, state: bool) -> Columns:
    rate = np.exp(rng.uniform(np.log(0.005), np.log(0.5), (lanes, rows)))
    columns = {"participation": rate}
    modelled = _COST["eta"] * rate ** _COST["phi"]
    if state:
        columns["state"] = rng.standard_normal(rate.shape)
        modelled = modelled * np.exp(0.4 * columns["state"])
    noise = rng.standard_t(_TAIL, rate.shape) if errors == "heavy" else rng.standard_normal(rate.shape)
    scale = {"growing": 0.001 + 0.01 * rate, "known": rng.uniform(0.001, 0.006, rate.shape)}.get(errors, 0.003)
    if errors == "known":
        columns["error_std"] = np.asarray(scale)
    columns["slippage"] = modelled + _COST["psi"] + size * scale * noise
    return columns


def _execution_case(kind: str, rows: int = 60, errors: str = "even", honest: bool = True, **options: Any) -> Case:
    state = kind == "a state"

    def fit(columns: Columns, start: Start) -> ParameterFit:
        return calibration.execution_cost(**columns, start=start, **options)

    truth = _COST | ({"delta": 0.4} if state else {})
    truth = {name: value for name, value in truth.items() if name not in options.get("fixed", {})}
    draw = functools.partial(_executions, rows=rows, errors=errors, state=state)
    return Case(f"execution_cost, {kind}", truth, rows, draw, fit, honest)


# ---- meta-orders

_IMPACT = {"gamma": 0.314, "alpha": 0.891, "delta": 0.267, "eta": 0.142, "beta": 0.600}
_QUARTILE = 0.6744897501960817  # of the normal distribution


def meta_orders(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    noise: float,
    spread: float = 0.0,
    *,
    longer: float = 0.3,
    even_tail: bool = False,
) -> Columns:
    """Orders like those of the paper's sample (quartiles and ends from memory), errors `noise` times Brownian.

    Sizes, volatilities and turnovers are log-normal on each side of the median, through the quartiles, and cut off at
    the ends of the sample; the larger order takes longer.

    Args:
        spread: standard deviation of the logarithm by which the size of errors varies from order to order.
        longer: correlation of size and horizon, of the normal scores of their ranks.
        even_tail: let the logarithms of the largest hundredth of the sizes lie evenly instead, from 12 % of the day.
    """
    score, other, third, fourth = rng.standard_normal((4, *shape))
    turnover = _through(score, 0.0025, 0.0038, 0.0062, 0.0136, 0.88)
    volatility = _through(other, 0.007, 0.017, 0.022, 0.030, 0.125)
    inverse_turnover = _through(third, 26.5, 88, 147, 308, 1500)
    later = np.asarray(jax.scipy.special.ndtr(longer * score + np.sqrt(1 - longer**2) * fourth))
    if even_tail:
        ranks = np.asarray(jax.scipy.special.ndtr(score))
        sizes = np.log((0.0025, 0.0038, 0.0062, 0.0136, 0.12, 0.88))
        turnover = np.exp(np.interp(ranks, (0, 0.25, 0.5, 0.75, 0.99, 1), sizes))
    horizon = np.exp(np.interp(later, (0, 0.25, 0.5, 0.75, 1), np.log((0.1, 0.15, 0.32, 0.65, 1.01))))
    settled = horizon + 0.077
    xi, chi = noise * np.exp(spread * rng.standard_normal(shape)) * rng.standard_normal((2, *shape))
    rate = turnover / horizon
    lasting = _IMPACT["gamma"] * horizon * rate ** _IMPACT["alpha"] * inverse_turnover ** _IMPACT["delta"]
    lasting = lasting + np.sqrt(settled) * xi
    passing = _IMPACT["eta"] * rate ** _IMPACT["beta"] - (settled - horizon) / (2 * np.sqrt(settled)) * xi
    passing = passing + np.sqrt(horizon * (4 - 3 * horizon / settled) / 12) * chi
    return {
        "permanent": volatility * lasting,
        "realised": volatility * (lasting / 2 + passing),
        "turnover": turnover,
        "horizon": horizon,
        "settled": settled,
        "volatility": volatility,
        "inverse_turnover": inverse_turnover,
    }


def _through(score: np.ndarray, low: float, first: float, median: float, third: float, high: float) -> np.ndarray:
    """Quantiles of a distribution at normal scores."""
    steep = np.where(score < 0, np.log(median / first), np.log(third / median)) / _QUARTILE
    return np.clip(median * np.exp(steep * score), low, high)


def _meta_case(kind: str, spread: float = 0.0, honest: bool = True, rows: int = 400, **options: Any) -> Case:
    def draw(rng: np.random.Generator, lanes: int, size: float) -> Columns:
        return meta_orders(rng, (lanes, rows), 0.1 * size, spread)

    def fit(columns: Columns, start: Start) -> ParameterFit:
        return calibration.meta_order_impact(**columns, start=start, **options)

    truth = {name: value for name, value in _IMPACT.items() if name not in options.get("fixed", {})}
    return Case(f"meta_order_impact, {kind}", truth, rows, draw, fit, honest)


def _root_case(kind: str, exponent: float | None, rows: int, growing: bool, honest: bool, covariance: Any) -> Case:
    def draw(rng: np.random.Generator, lanes: int, size: float) -> Columns:
        turnover = np.exp(rng.uniform(-7, -2, (lanes, rows)))
        volatility = rng.uniform(0.01, 0.03, turnover.shape)
        scale = 0.02 + turnover if growing else 0.05
        cost = volatility * (0.9 * turnover**0.5 + size * scale * rng.standard_normal(turnover.shape))
        return {"cost": cost, "turnover": turnover, "volatility": volatility}

    def fit(columns: Columns, start: Start) -> ParameterFit:
        return calibration.square_root_law(**columns, start=start, exponent=exponent, covariance=covariance)

    truth = {"prefactor": 0.9} | ({"exponent": 0.5} if exponent is None else {})
    return Case(f"square_root_law, {kind}", truth, rows, draw, fit, honest)


# ---- order flow

_STEP, _LAGS = 1 / 390, 30
_KERNELS: dict[str, tuple[Callable[..., np.ndarray], dict[str, float]]] = {
    "exponential": (lambda t, impact, decay: impact * np.exp(-decay * t), {"impact": 2e-6, "decay": 150.0}),
    "exponential-permanent": (
        lambda t, impact, decay, permanent: impact * np.exp(-decay * t) + permanent,
        {"impact": 2e-6, "decay": 150.0, "permanent": 5e-7},
    ),
    "power-law": (
        lambda t, impact, exponent, scale: impact * (1 + t / scale) ** -exponent,
        {"impact": 2e-6, "exponent": 0.4, "scale": 0.01},
    ),
}


def _filtered(x: np.ndarray, weight: float) -> np.ndarray:
    """A first-order autoregression of unit variance on innovations x, through the last axis."""
    found = np.empty_like(x)
    found[..., 0] = x[..., 0]
    for t in range(1, x.shape[-1]):
        found[..., t] = weight * found[..., t - 1] + np.sqrt(1 - weight**2) * x[..., t]
    return found


def _kernel_case(
    form: Any, kind: str = "", memory: float = 0.0, steps: int = 280, honest: bool = True, **options: Any
) -> Case:
    function, truth = _KERNELS[form]
    kernel = function(_STEP * np.arange(_LAGS + 1), **truth)
    change = np.diff(kernel, prepend=0.0)

    def draw(rng: np.random.Generator, lanes: int, size: float) -> Columns:
        flow = 1000 * _filtered(rng.standard_normal((lanes, steps)), 0.5)
        moved = sum(c * np.pad(flow, ((0, 0), (k, 0)))[:, :steps] for k, c in enumerate(change))
        error = 1e-3 * size * _filtered(rng.standard_normal(flow.shape), memory)
        return {"flow": flow[:, None], "returns": (moved + error)[:, None]}

    def fit(columns: Columns, start: Start) -> ParameterFit:
        # From the package's own starts where none is given: a kernel has more than one valley.
        starts = 1 if form == "exponential" else 4
        return calibration.propagator(
            **columns, step=_STEP, form=form, lags=_LAGS, start=start, starts=starts, **options
        ).parameters

    truth = {name: value for name, value in truth.items() if name not in options.get("fixed", {})}
    return Case(f"propagator, {form}{kind}", truth, steps - _LAGS, draw, fit, honest)


# ---- observed schedules

_WANTED = {"risk_aversion": 1e-5, "eta": 0.1, "phi": 0.75}
_NODES, _SHARES = 10, 2e5


def _order(shares: Any) -> jx.Liquidation:
    curve = 4e6 * (1 + 0.5 * (2 * (np.arange(_NODES) + 0.5) / _NODES - 1) ** 2)
    market = jx.Market(jx.TimeGrid.uniform(1.0, _NODES), 0.6, curve)
    return jx.Liquidation(shares, market, jx.PowerLawCost(_WANTED["eta"], _WANTED["phi"], 0.004), 1e-5)


@jax.jit
def _traded(order: jx.Liquidation) -> jax.Array:
    return jx.solve(order).trades


def _observed_case(
    kind: str,
    parameters: tuple[str, ...],
    errors: str = "independent",
    desk: int = 1,
    honest: bool = True,
    **options: Any,
) -> Case:
    def orders() -> jx.Liquidation:
        return jax.vmap(_order)(np.full(desk, _SHARES)) if desk > 1 else _order(_SHARES)

    def draw(rng: np.random.Generator, lanes: int, size: float) -> Columns:
        noise = rng.standard_normal((lanes * desk, _NODES))
        if errors == "carried on":
            steps = noise - noise.mean(1, keepdims=True)
        else:
            held = _filtered(noise[:, 1:], 0.8) if errors == "persistent" else noise[:, 1:]
            steps = np.diff(np.pad(held, ((0, 0), (1, 1))), axis=1)
        seen = np.asarray(_traded(_order(_SHARES))) - 0.01 * _SHARES * size * steps
        return {"trades": seen.reshape((lanes, desk, _NODES) if desk > 1 else (lanes, _NODES))}

    def one(trades: jax.Array, start: Mapping[str, jax.Array]) -> ParameterFit:
        return calibration.observed_preferences(orders(), trades, parameters, common=True, start=start, **options)

    def fit(columns: Columns, start: Start) -> ParameterFit:
        lanes = len(columns["trades"])
        start = start or {name: np.full(lanes, 1.5 * _WANTED[name]) for name in parameters}
        given = {name: jnp.asarray(start[name]) for name in parameters}
        if desk == 1:
            return calibration.observed_preferences(orders(), columns["trades"], parameters, start=given, **options)
        return jax.vmap(one)(jnp.asarray(columns["trades"]), given)

    truth = {name: _WANTED[name] for name in parameters}
    rows = desk * (_NODES - 1)
    return Case(f"observed_preferences, {kind}", truth, rows, draw, fit, honest)


# ---- a model of one's own

_DECAY = {"a": 2.0, "b": 1.0, "level": 0.3}


def _decay_left(parameters: Any, data: Any) -> jax.Array:
    return data["y"] - parameters["a"] * jnp.exp(-parameters["b"] * data["x"]) - parameters["level"]


def _own_model() -> Case:
    def draw(rng: np.random.Generator, lanes: int, size: float) -> Columns:
        x = np.broadcast_to(np.linspace(0, 4, 40), (lanes, 40))
        y = _DECAY["a"] * np.exp(-_DECAY["b"] * x) + _DECAY["level"]
        return {"x": x, "y": y + 0.1 * size * rng.standard_normal(x.shape)}

    def fit(columns: Columns, start: Start) -> ParameterFit:
        lanes = len(columns["x"])
        first = start or {name: np.full(lanes, value) for name, value in _DECAY.items()}

        def one(first: Mapping[str, jax.Array], data: Columns) -> ParameterFit:
            return calibration.fit(_decay_left, first, data, bounds={"a": (0.0, None), "b": (0.0, None)})

        return jax.vmap(one)(jax.tree.map(jnp.asarray, dict(first)), jax.tree.map(jnp.asarray, columns))

    return Case("fit, a decay", _DECAY, 40, draw, fit)


CASES: tuple[Case, ...] = (
    _execution_case("classical"),
    _execution_case("known error_std", errors="known"),
    _execution_case("a state"),
    _execution_case("phi fixed", fixed={"phi": 0.6}),
    _execution_case("hc3, errors alike", covariance="hc3"),
    _execution_case("hc3, errors grow with size", errors="growing", covariance="hc3"),
    _execution_case("robust, errors grow with size", errors="growing", honest=False, covariance="robust"),
    _execution_case("huber", 200, loss="huber"),
    _execution_case("huber, heavy tails", 200, errors="heavy", loss="huber"),
    _execution_case("huber, heavy tails, few rows", errors="heavy", honest=False, loss="huber"),
    _execution_case("huber and hc3, heavy tails", 200, errors="heavy", loss="huber", covariance="hc3"),
    _meta_case("joint"),
    _meta_case("separate", errors="separate"),
    _meta_case("joint, exponents fixed", fixed={"alpha": 0.891, "delta": 0.267, "beta": 0.6}),
    _meta_case("joint, hc3", covariance="hc3"),
    _meta_case("joint, hc3, errors of unequal size, few orders", 0.5, False, covariance="hc3"),
    _meta_case("separate, hc3, errors of unequal size", 0.5, rows=1_600, errors="separate", covariance="hc3"),
    _meta_case("joint, hc3, errors of unequal size", 0.5, rows=1_600, covariance="hc3"),
    _meta_case("joint, robust, errors of unequal size", 0.5, False, covariance="robust"),
    _root_case("classical", None, 80, False, True, "classical"),
    _root_case("hc3, errors grow with size", None, 80, True, True, "hc3"),
    _root_case("robust, errors grow with size", None, 80, True, False, "robust"),
    _root_case("exponent ½, hc3", 0.5, 80, True, True, "hc3"),
    _kernel_case("exponential"),
    _kernel_case("exponential-permanent"),
    _kernel_case("power-law", ", scale fixed", fixed={"scale": 0.01}),
    _kernel_case("power-law", ", scale free", steps=1_030),
    _kernel_case("exponential", ", hac, correlated errors", 0.3, 1_030, covariance="hac"),
    _kernel_case("exponential", ", hac, correlated errors, few steps", 0.3, honest=False, covariance="hac"),
    _kernel_case("exponential", ", correlated errors", 0.3, 1_030, False),
    _observed_case("risk aversion", ("risk_aversion",)),
    _observed_case("risk aversion and phi", ("risk_aversion", "phi")),
    _observed_case("cost alone", ("eta", "phi")),
    _observed_case("trades deviate", ("risk_aversion",), "carried on", deviations="trades"),
    _observed_case("hc3", ("risk_aversion",), honest=False, covariance="hc3"),
    _observed_case("deviations persist", ("risk_aversion",), "persistent", honest=False),
    _observed_case("a desk, clustered, deviations persist", ("risk_aversion",), "persistent", desk=10),
    _observed_case(
        "a desk, classical, deviations persist", ("risk_aversion",), "persistent", 10, False, covariance="classical"
    ),
    _own_model(),
)
