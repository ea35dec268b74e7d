"""Pictures of fitted parameters: the data with the curve that they make, and what is left over."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxexec import presentation
from jaxexec.cli.markets import Day
from jaxexec.cli.parameter_files import Source
from jaxexec.cli.row_fits import Fitted
from jaxexec.cli.schedule_files import Observed, optimal_shares
from jaxexec.storage import safe_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxexec.calibration import ParameterFit

_POINTS = 60
_STEP = 1e-4  # of a parameter, for the derivatives of its curve
_MOST_LAGS = 50


class Drawn(NamedTuple):
    """A figure with the name of its file and its caption."""

    name: str
    figure: "Figure"
    caption: str


def pictures(source: Source, one: Fitted, step: float) -> list[Drawn]:
    """What can be seen of one fit to rows; nothing where it failed."""
    if not one.usable:
        return []
    return _DRAWN[source](one, step)


def band(
    function: Callable[[Mapping[str, Any]], np.ndarray], fit: "ParameterFit"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A curve of the parameters with its pointwise 95 % band by the delta method: centre, low, high."""
    values = np.asarray(fit.values, float)
    slopes = []
    for i in range(len(fit.names)):
        h = _STEP * abs(values[i]) or _STEP
        moved = values + h * np.eye(len(values))[i], values - h * np.eye(len(values))[i]
        up, down = (function(dict(zip(fit.names, v, strict=True))) for v in moved)
        slopes.append((up - down) / (2 * h))
    slope = np.stack(slopes)
    square = np.einsum("ik,ij,jk->k", slope, np.asarray(fit.covariance, float), slope)
    centre = function(dict(zip(fit.names, values, strict=True)))
    half = 1.96 * np.sqrt(np.maximum(square, 0))
    return centre, centre - half, centre + half


def _executions(one: Fitted, _: float) -> list[Drawn]:
    assert one.lane is not None
    rows = {name: x[one.lane.mask] for name, x in one.lane.columns.items()}
    rate, paid, state = rows["participation"], rows["slippage"], rows.get("state", np.zeros(1))
    weight = rows.get("error_std", np.ones(1))
    along = np.geomspace(rate.min(), rate.max(), _POINTS)

    def cost(p: Mapping[str, Any], at: np.ndarray, z: Any = 0.0) -> np.ndarray:
        return p["eta"] * at ** p["phi"] * np.exp(p.get("delta", 0.0) * z) + p["psi"]

    found = dict(zip(one.fit.names, np.asarray(one.fit.values, float), strict=True))
    said = cost(found, rate, state)
    left = (paid - said) / (weight * float(one.fit.residual_std))
    edges = band(lambda p: cost(p, along), one.fit)
    labels = f"What executions paid: {one.name}", "participation", "slippage (currency per share)"
    curve = presentation.fitted_curve(rate, paid, along, *edges, *labels, log_x=True)
    seen = "Executions, their means in groups of equal number, and the cost per share that was fitted."
    if "delta" in one.fit.names:
        seen += " The curve is that of state zero."
    return [
        Drawn("fit", curve, seen),
        _residuals(said, left, one, "fitted slippage (currency per share)"),
    ]


def _meta_orders(one: Fitted, _: float) -> list[Drawn]:
    assert one.lane is not None
    rows = {name: x[one.lane.mask] for name, x in one.lane.columns.items()}
    p = dict(zip(one.fit.names, np.asarray(one.fit.values, float), strict=True))
    rate = rows["turnover"] / rows["horizon"]
    scale = rows["horizon"] * rows["inverse_turnover"] ** p["delta"]
    lasting, passing = rows["permanent"] / rows["volatility"], rows["realised"] / rows["volatility"]
    passing = passing - lasting / 2
    along = np.geomspace(rate.min(), rate.max(), _POINTS)
    title, xlabel = f"Temporary impact: {one.name}", "order over market volume in the same time, X/VT"
    temporary = band(lambda q: q["eta"] * along ** q["beta"], one.fit)
    permanent = band(lambda q: q["gamma"] * along ** q["alpha"], one.fit)
    said = p["eta"] * rate ** p["beta"]
    root = np.sqrt(np.maximum(rows["settled"] / 4 - rows["horizon"] / 6, 1e-12))
    left = (passing - said) / root
    return [
        Drawn(
            "temporary",
            presentation.fitted_curve(
                rate, passing, along, *temporary, title, xlabel, "J/σ − I/2σ (daily volatilities)", log_x=True
            ),
            "The part of the cost that passes, order by order, its means in groups, and η(X/VT)^β.",
        ),
        Drawn(
            "permanent",
            presentation.fitted_curve(
                rate,
                lasting / scale,
                along,
                *permanent,
                f"Permanent impact: {one.name}",
                xlabel,
                "I/σT over (Θ/V)^δ",
                log_x=True,
            ),
            "The move that stays, freed of what the order's time and the stock's turnover do, and γ(X/VT)^α.",
        ),
        _residuals(said, left / np.std(left), one, "fitted temporary impact (daily volatilities)"),
    ]


def _flow(one: Fitted, step: float) -> list[Drawn]:
    assert one.lane is not None and one.kernel is not None
    flow, returns, mask = (*(one.lane.columns[name] for name in ("flow", "returns")), one.lane.mask)
    flow, returns = np.where(mask, flow, 0.0), np.where(mask, returns, 0.0)
    lags = min(_MOST_LAGS, flow.shape[1] - 1)
    at = np.arange(lags + 1) * step

    def kernel(p: Mapping[str, Any]) -> np.ndarray:
        if "exponent" in p:
            return p["impact"] * (1 + at / p["scale"]) ** -p["exponent"]
        return p["impact"] * np.exp(-p["decay"] * at) + p.get("permanent", 0.0)

    def predicted(p: Mapping[str, Any]) -> np.ndarray:
        change = np.diff(kernel(p), prepend=0.0)
        return np.stack([np.convolve(q, change)[: len(q)] for q in flow])

    found = dict(zip(one.fit.names, np.asarray(one.fit.values, float), strict=True))
    observed, moved = _response(flow, returns, lags), band(lambda p: _response(flow, predicted(p), lags), one.fit)
    said = predicted(found)
    # The past of a session's first steps is not known.
    known = mask[:, lags:] if flow.shape[1] > 2 * lags else mask
    left = (returns - said)[:, -known.shape[1] :]
    left = np.where(known, left - left[known].mean(), 0.0)
    each = np.array([(left[:, lag:] * left[:, :-lag]).sum() for lag in range(1, min(lags, 30) + 1)])
    along, steps = np.arange(lags + 1), "steps since a trade"
    size = float(np.sqrt(np.mean(flow[mask] ** 2)))
    centre, low, high = (size * x for x in moved)
    curve = presentation.fitted_curve(
        along,
        size * observed,
        along,
        centre,
        low,
        high,
        f"Response to a trade: {one.name}",
        steps,
        "currency per share, after flow of one std. dev.",
        means=False,
    )
    alone, least, most = (size * x for x in band(kernel, one.fit))
    title, unit = f"Decay kernel: {one.name}", "currency per share, one std. dev. of flow"
    impulse = presentation.band(along, alone, least, most, title, steps, unit)
    bars = presentation.correlogram(
        each / (left**2).sum(), 1.96 / float(known.sum()) ** 0.5, f"Residuals: {one.name}", "steps apart"
    )
    return [
        Drawn(
            "fit", curve, "How far prices moved after a trade, and how far the fitted kernel moves them on that flow."
        ),
        Drawn("kernel", impulse, "What one trade alone does to the price, and how it fades."),
        Drawn("residuals", bars, "Bars beyond the shade are impact that the kernel does not have the shape for."),
    ]


_DRAWN: dict[str, Callable[[Fitted, float], list[Drawn]]] = {
    "executions": _executions,
    "meta-orders": _meta_orders,
    "flow": _flow,
}


def _response(flow: np.ndarray, moves: np.ndarray, lags: int) -> np.ndarray:
    """Mean of q_t (p_{t+l} − p_{t−1}) over the mean of q², l = 0..lags."""
    each = [(flow[:, : flow.shape[1] - lag] * moves[:, lag:]).sum() for lag in range(lags + 1)]
    return np.cumsum(each) / max(float((flow**2).sum()), 1e-300)


def _residuals(said: np.ndarray, left: np.ndarray, one: Fitted, unit: str) -> Drawn:
    figure = presentation.residual_panels(said, left, f"Residuals: {one.name}", unit, log_x=bool(np.all(said > 0)))
    caption = (
        "Left: means away from zero say that the curve has the wrong shape. Right: ends off the line are outliers."
    )
    return Drawn("residuals", figure, caption)


def schedule_pictures(one: Fitted, orders: Sequence[Observed], days: Mapping[str, Day], most: int) -> list[Drawn]:
    """The schedules that a fit was made from, beside those that are optimal for it, and their differences."""
    if not one.usable:
        return []
    shown = orders[:most]
    optimal = optimal_shares(shown, days)
    centre, low, high = (x.reshape(len(shown), -1) for x in band(lambda p: optimal(p).reshape(-1), one.fit))
    drawn = []
    for at, order in enumerate(shown):
        title = f"Traded and optimal: {', '.join(filter(None, (order.symbol, order.order_id))) or 'the order'}"
        edges = centre[at], low[at], high[at]
        labels = title, "trading days", "share of the order left"
        figure = presentation.fitted_curve(order.times, order.left, order.times, *edges, *labels, means=False)
        caption = "What was held, and what is optimal for the fitted preferences; the band is that of their errors."
        drawn.append(Drawn(f"schedule-{at + 1}", figure, caption))
    apart = {order.order_id or f"order {i + 1}": order.left - centre[i] for i, order in enumerate(shown)}
    share = np.linspace(0, 1, centre.shape[1])
    figure = presentation.curves(
        share, apart, "Traded less optimal", "share of the steps gone by", "share of the order"
    )
    caption = "Differences that keep their sign through the day are a taste that the model does not have."
    return [*drawn, Drawn("residuals", figure, caption)]


def part_pictures(found: Sequence[Fitted], units: Mapping[str, str]) -> list[Drawn]:
    """The parameters of the first symbol's parts beside each other, a figure a parameter."""
    first = [one for one in found if one.symbol == found[0].symbol and one.usable]
    if len(first) < 2:
        return []
    drawn = []
    for name in first[0].fit.names:
        figure = presentation.error_bars(
            [one.part for one in first],
            [float(one.fit[name]) for one in first],
            [float(one.fit.std_error(name)) for one in first],
            f"{name} in each part{': ' + first[0].symbol if first[0].symbol else ''}",
            f"{name} ({units[name]})" if units[name] != "1" else name,
        )
        drawn.append(Drawn(f"parts-{name}", figure, "Estimates with 95 % intervals."))
    return drawn


def day_pictures(activity: Any, symbols: Sequence[str]) -> list[Drawn]:
    """Volume and volatility through the day of a few stocks, with the intervals of each part of it."""
    hours = activity.bin_edges / 3.6e12
    words = (("volume_rate", "Volume", "shares per day"), ("volatility", "Volatility", "currency per share per √day"))
    drawn = []
    for symbol in symbols:
        i = activity.symbols.index(symbol)
        for name, word, unit in words:
            values, errors = getattr(activity, name)[i], getattr(activity.errors, name)[i]
            curve = word.lower()
            figure = presentation.steps_curve(
                hours, {curve: values}, f"{word} of {symbol}", "hour", unit, errors={curve: errors}
            )
            caption = f"{word} by time of day, days averaged: {int(activity.days[i])}; shaded the 95 % interval."
            drawn.append(Drawn(f"{curve}-{safe_name(symbol)}", figure, caption))
    return drawn
