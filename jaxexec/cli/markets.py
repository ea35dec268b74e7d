"""The market that each order meets: a file of its symbol, columns of its own row, options for all."""

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter

from jaxexec.cli.session import Session
from jaxexec.storage import FileError, read_text

if TYPE_CHECKING:
    from jaxexec.calibration import Calibration
    from jaxexec.cli.orders import Order

_MAX_MARKET_BYTES = 4 << 20


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Assumed:
    """Market parameters for orders whose symbol has no market file; columns of the orders win over them.

    Attributes:
        volatility: Currency per share per square root of a trading day.
        volume: Shares a trading day traded by the others.
        permanent_impact: Currency per share for each share traded.
        eta: Temporary impact, currency per share at the rate of the whole market.
        phi: Exponent of the temporary impact.
        psi: Half-spread, currency per share.
    """

    volatility: float | None = None
    volume: float | None = None
    permanent_impact: float = 0.0
    eta: float | None = None
    phi: float = 0.6
    psi: float = 0.0


DEFAULT = Assumed()
"""Nothing assumed."""

MarketFiles = Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative=())]


@dataclasses.dataclass(frozen=True)
class Day:
    """A symbol's market over a trading day, and its execution cost.

    `edges` has shape (bins + 1,) and runs from 0 to 1; `volatility` and `volume` have shape (bins,). `risk_aversion` is
    that of the market file, NaN where it has none.
    """

    edges: np.ndarray
    volatility: np.ndarray
    volume: np.ndarray
    permanent_impact: float
    eta: float
    phi: float
    psi: float
    risk_aversion: float = math.nan

    def window(self, start: float, end: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Volatility and volume on equal steps between two times, variance and shares preserved; (steps,) each."""
        return self.between(np.linspace(start, end, steps + 1))

    def between(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same on steps between any increasing times, (steps + 1,)."""
        return np.sqrt(_means(self.edges, self.volatility**2, times)), _means(self.edges, self.volume, times)


def _means(edges: np.ndarray, values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Means of a piecewise-constant curve between consecutive times."""
    integral = np.concatenate([[0.0], np.cumsum(values * np.diff(edges))])
    return np.maximum(np.diff(np.interp(times, edges, integral)) / np.diff(times), 0.0)


def read_markets(paths: Sequence[Path]) -> dict[str, Day]:
    """Market files by their symbol; a folder stands for its files that end in .toml.

    Raises:
        FileError: A file cannot be read or is no market, or two are of one symbol.
    """
    return {symbol: day_of(calibration) for symbol, calibration in read_calibrations(paths).items()}


def read_calibrations(paths: Sequence[Path]) -> "dict[str, Calibration]":
    """Market files by their symbol, whole; as `read_markets`.

    Raises:
        FileError: A file cannot be read or is no market, or two are of one symbol.
    """
    found: dict[str, Calibration] = {}
    for path in market_files(paths):
        calibration = _read_market(path)
        if calibration.symbol in found:
            raise FileError(path, f"a second market for {calibration.symbol!r}", "Name one file for each symbol.")
        found[calibration.symbol] = calibration
    return found


def session_of(files: Sequence[Path], asked: str | None) -> str:
    """The hours of the trading day: as asked, or as the market files say.

    Raises:
        FileError: A file's hours are not those that were asked for, or not those of another file.
    """
    session = asked
    for path in files:
        try:
            written = tomllib.loads(read_text(path, _MAX_MARKET_BYTES)).get("session")
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise FileError(path, f"not TOML ({error})", "Write it again with `jaxexec calibrate`.") from error
        if not isinstance(written, str) or not written:
            continue
        if session is None:
            session = written
        if Session.parse(written, None) != Session.parse(session, None):
            raise FileError(path, f"its day is {written[:40]}, not {session[:40]}", "Use markets of one session.")
    return session or "09:30-16:00"


def market_files(paths: Sequence[Path]) -> list[Path]:
    """The files that paths stand for, in the order of their names within a folder."""
    found = []
    for path in paths:
        inside = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not inside:
            raise FileError(path, "no file here ends in .toml", "Name the folder that `jaxexec calibrate` wrote.")
        found += inside
    return found


def _read_market(path: Path) -> "Calibration":
    """The market of one file."""
    import jax

    from jaxexec.calibration import Calibration

    text = read_text(path, _MAX_MARKET_BYTES)
    try:
        with jax.enable_x64(True):  # a file holds numbers of 64 bits, whatever the precision of the run
            calibration = Calibration.from_toml(text)
            day = day_of(calibration)  # a cost that is no power law, or a curve where a number is due, is refused here
            if day.edges[0] != 0 or day.edges[-1] != 1:
                raise ValueError(
                    f"grid.times must run from 0 to 1, a trading day, got {day.edges[0]} to {day.edges[-1]}"
                )
            return calibration
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(path, f"not a market ({error})", "Write it again with `jaxexec calibrate`.") from error


def calibrate(panel: Any, activity: Any, symbol: str, **options: Any) -> Any:
    """A `Calibration` in 64 bits, whatever the precision of the run: it is a handful of numbers."""
    import jax

    import jaxexec as jx

    with jax.enable_x64(True):
        return jx.calibrate(panel, activity, symbol, **options)


def day_of(calibration: Any) -> Day:
    """A calibrated market as arrays on the host."""
    market, cost = calibration.market, calibration.cost
    edges = np.asarray(market.grid.times, dtype=float)
    volatility, volume = (
        np.broadcast_to(np.asarray(curve, dtype=float), len(edges) - 1) for curve in (market.volatility, market.volume)
    )
    phi = float(getattr(cost, "phi", 1.0))  # the quadratic cost has no exponent of its own
    scalars = float(market.permanent_impact), float(cost.eta), phi, float(cost.psi)
    gamma = math.nan if calibration.risk_aversion is None else calibration.risk_aversion
    return Day(edges, volatility, volume, *scalars, gamma)


def preferred(day: Day, asked: float | None) -> float:
    """The risk aversion that was asked for; else that of the market file; else 1e-6."""
    if asked is not None:
        return asked
    return 1e-6 if math.isnan(day.risk_aversion) else day.risk_aversion


def market_for(symbol: str, order: "Order", markets: Mapping[str, Day], assumed: Assumed) -> Day:
    """The market of one order: the file of its symbol or the options, then what its own row says.

    A row's `adv` scales the volume curve to that many shares a day, `sigma` the volatility curve to that many
    currency units per share a day, and half its `spread` is ψ.

    Raises:
        ValueError: Something is known from nowhere; the message says what and how to give it.
    """
    day = markets.get(symbol) or _flat(assumed)
    if not math.isnan(order.adv):
        day = dataclasses.replace(day, volume=_scaled(day.edges, day.volume, order.adv))
    if not math.isnan(order.sigma):
        variance = _scaled(day.edges, day.volatility**2, order.sigma**2)
        day = dataclasses.replace(day, volatility=np.sqrt(variance))
    if not math.isnan(order.spread):
        day = dataclasses.replace(day, psi=order.spread / 2)
    for name, column in (("volatility", "column sigma"), ("volume", "column adv"), ("eta", "")):
        if np.any(np.isnan(getattr(day, name))):
            ways = ", ".join(filter(None, (f"--{name}", column)))
            raise ValueError(f"no {name}: give {ways} or a market file for {symbol[:40]!r} (--market)")
    return day


def check_assumed(assumed: Assumed) -> None:
    """Refuse options that no market can have.

    Raises:
        ValueError: A number is not finite or has the wrong sign; the option is named.
    """
    for name, value in vars(assumed).items():
        if value is None:
            continue
        lowest = value > 0 if name in ("volume", "eta", "phi") else value >= 0
        if not (math.isfinite(value) and lowest):
            raise ValueError(f"--{name.replace('_', '-')} must be finite and positive (or 0 where it may), got {value}")


def _flat(assumed: Assumed) -> Day:
    """A market that is the same all day; NaN where nothing is assumed."""
    known = {name: math.nan if value is None else float(value) for name, value in vars(assumed).items()}
    volatility, volume = (np.array([known.pop(name)]) for name in ("volatility", "volume"))
    return Day(np.array([0.0, 1.0]), volatility, volume, **known)


def _scaled(edges: np.ndarray, values: np.ndarray, total: float) -> np.ndarray:
    """The curve with another integral over the day; flat where it has none."""
    now = float(np.sum(values * np.diff(edges)))
    return values * (total / now) if now > 0 else np.full_like(values, total)
