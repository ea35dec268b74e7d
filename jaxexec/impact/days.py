"""Impact estimates over many days of which one at a time is laid out: each day's sums are added up by stock.

    for every day    Σ of order flow             →  autoregression, expected flow, σ_ε of all days
    for every day    products of the columns     →  coefficients of all days
    for every day    residuals, score windows    →  covariance of all days

These are the sums of one tape that holds all days, in another order: estimates differ by rounding alone. A day's first
`order` trades are used up by the autoregression, and no lag or Newey–West product reaches another day.
"""

import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxexec.impact import tape_estimates as passes
from jaxexec.impact.estimates import ImpactEstimates, Model
from jaxexec.impact.lanes import Segments, segments_of

Program = Callable[..., Any]


class DatedSegments(Segments, Protocol):
    """Segments that say their dates."""

    @property
    def dates(self) -> Sequence[datetime.date]: ...


class DatedTape(Protocol):
    """What a day must hand out, as `jaxexec.tape.SignedTape` does."""

    def segments(self) -> DatedSegments: ...


def checked_segments(tape: Any) -> Any:
    """The segments of a tape.

    Raises:
        ValueError: It is no signed tape, or a size is not positive; its place is named.
    """
    segments = segments_of(tape)
    wrong = np.flatnonzero(np.asarray(segments.size) <= 0)
    if wrong.size:
        raise ValueError(f"size[{wrong[0]}] must be positive, got {segments.size[wrong[0]]}")
    return segments


class Pooled(NamedTuple):
    """The segments of several tapes as those of one."""

    symbols: list[str]
    stock: np.ndarray
    dates: list[datetime.date]
    offsets: np.ndarray
    ticks: np.ndarray
    size: np.ndarray
    sign: np.ndarray


class Calendar:
    """Which stock traded on which day, as it comes to be known; stocks are numbered in the order of their coming."""

    def __init__(self):
        self.numbers: dict[str, int] = {}
        self.days: list[tuple[np.ndarray, int]] = []
        self._seen: dict[datetime.date, set[int]] = {}

    def enter(self, segments: DatedSegments) -> np.ndarray:
        """Numbers of a further day's stocks, (stocks of that day,).

        Raises:
            ValueError: The segments do not say their dates, or a stock has had that date before.
        """
        if len(getattr(segments, "dates", ())) != len(segments.stock):
            raise ValueError("tapes in a list must say the dates of their segments, as SignedTape does")
        place = np.array([self.numbers.setdefault(s, len(self.numbers)) for s in segments.symbols], np.int64)
        for date, number in zip(segments.dates, place[segments.stock].tolist(), strict=True):
            known = self._seen.setdefault(date, set())
            if number in known:
                symbol = next(s for s, n in self.numbers.items() if n == number)
                raise ValueError(f"symbol {symbol!r} has trades of {date} in two tapes: a day is estimated once")
            known.add(number)
        self.days.append((place, len(segments.ticks)))
        return place

    def again(self, tapes: Sequence[DatedTape]) -> Iterator[tuple[DatedSegments, np.ndarray]]:
        """The days once more, in the same order, with the numbers of their stocks.

        Raises:
            ValueError: A day is not what it was.
        """
        for number, (place, trades) in enumerate(self.days):
            segments = checked_segments(tapes[number])
            if (len(segments.ticks), len(segments.symbols)) != (trades, len(place)):
                raise ValueError(f"tapes[{number}] changed while it was read: it must give the same trades each time")
            yield segments, place
            del segments

    def sorted(self) -> tuple[list[str], np.ndarray]:
        """The symbols in their order, and their numbers."""
        symbols = sorted(self.numbers)
        return symbols, np.array([self.numbers[s] for s in symbols], np.int64)


def pool_segments(tapes: Sequence[DatedTape]) -> Pooled:
    """All days as one tape, in memory.

    Raises:
        ValueError: As `Calendar.enter`.
    """
    calendar = Calendar()
    parts = [checked_segments(tape) for tape in tapes]
    stocks = [calendar.enter(part)[part.stock] for part in parts]
    symbols, numbers = calendar.sorted()
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return Pooled(
        symbols,
        np.argsort(numbers)[np.concatenate(stocks)],
        [date for part in parts for date in part.dates],
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("ticks", "size", "sign")),
    )


def estimate_days(tapes: Sequence[DatedTape], model: Model) -> tuple[list[str], ImpactEstimates]:
    """Symbols and estimates of all stocks of several days, in float64 whatever JAX's 64-bit flag says.

    Each tape is asked for its segments three times, and let go before the next is asked. For methods that add up
    (`tape_estimates.adds_up`).

    Returns:
        The symbols, sorted, and `ImpactEstimates` with leading axis (stocks,), as NumPy arrays.

    Raises:
        ValueError: As `Calendar.enter` and `Calendar.again`.
    """
    with jax.enable_x64(True):
        calendar, flow = _order_flow(tapes, model.order)
        symbols, numbers = calendar.sorted()
        rows = flow.rows[numbers]
        used = passes.lags_of(rows, model.method)
        means = passes.padded((flow.mean[numbers], flow.sign_mean[numbers]))
        flow_fit = passes.fit_flow(passes.padded(flow.products[..., numbers]), *means)
        place = np.argsort(numbers)

        def total(program: Program, coefficients: Any, lags: np.ndarray, trailing: bool) -> Any:
            host, sums = jax.tree.map(np.asarray, coefficients), None
            for segments, known in calendar.again(tapes):
                local = place[known]
                tape = passes.lay_out(segments, lags[local], model.order, trailing)
                here = passes.padded(jax.tree.map(lambda x, local=local: x[..., local], host))
                sums = _added(sums, program(tape, *here, model), local, len(symbols))
                del segments, tape
            return passes.padded(sums)

        moments, fit = passes.fit_impact(total(passes.impact_products, (flow_fit,), np.zeros_like(used), False))
        # A stock that is refused for having no more rows than lags must not size the halo of the others.
        lags = np.where(rows > used, used, 0)
        serial = model.method.covariance == "hac"
        sums = total(passes.impact_scores, (flow_fit, moments, fit), lags, serial)
        result = passes.finish(flow_fit, moments, fit, sums, passes.padded(used.astype(np.int32)), model)
        return symbols, jax.tree.map(lambda x: np.asarray(x)[: len(symbols)], result)


class _Flow(NamedTuple):
    """Sums of order flow over all days, stocks in the order of their coming.

    `mean` and `sign_mean` are those of a stock's first day: any centre will do that is one and the same for all days.
    """

    rows: np.ndarray
    mean: np.ndarray
    sign_mean: np.ndarray
    products: np.ndarray


def _order_flow(tapes: Sequence[DatedTape], order: int) -> tuple[Calendar, _Flow]:
    calendar, sums = Calendar(), None
    mean = sign_mean = np.zeros(0)
    for number in range(len(tapes)):
        segments = checked_segments(tapes[number])
        before = len(calendar.numbers)
        place, stocks = calendar.enter(segments), len(segments.symbols)
        tape = passes.lay_out(segments, np.zeros(stocks, np.int64), order, False)
        new = len(calendar.numbers) - before
        mean, sign_mean = (np.concatenate([x, np.zeros(new)]) for x in (mean, sign_mean))
        fresh = place >= before
        mean[place[fresh]], sign_mean[place[fresh]] = tape.edges.mean[fresh], tape.edges.sign_mean[fresh]
        gram = passes.flow_products(tape, passes.padded(tape.edges.mean), order)
        sums = _added(sums, (tape.rows, _moved(gram, tape.edges.mean - mean[place])), place, len(calendar.numbers))
        # Before the next day is loaded, which a loop over the tapes themselves would do first.
        del segments, tape
    assert sums is not None
    return calendar, _Flow(sums[0], mean, sign_mean, sums[1])


def _moved(gram: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Gram matrix of (1, x_1 + shift, …, x_k + shift) from that of (1, x_1, …, x_k); stocks are the last axis."""
    k = len(gram)
    change = np.zeros((k, k, len(shift)))
    change[range(k), range(k)] = 1
    change[1:, 0] = shift
    return np.einsum("ias,abs,jbs->ijs", change, gram, change)


def _added(total: Any, part: Any, place: np.ndarray, stocks: int) -> Any:
    """`total` with `part` added at `place` of the last axis, which grows to `stocks`; each stock is in `part` once."""

    def add(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        grown = np.zeros((*y.shape[:-1], stocks), y.dtype)
        grown[..., : x.shape[-1]] = x
        grown[..., place] += y
        return grown

    part = jax.tree.map(np.asarray, part)
    return jax.tree.map(add, jax.tree.map(lambda y: y[..., :0], part) if total is None else total, part)
