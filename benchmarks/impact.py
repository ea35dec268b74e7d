"""Impact estimates of a whole tape, against a loop over stocks with statsmodels and against C.

All fit the fifth-order autoregression of signed size and the Glosten–Harris regression, with Newey–West errors and
without, to the same signed trades. Time is processor time of all threads, so that one more core helps neither.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import jaxexec as jx
from benchmarks import harness, impact_kernel
from jaxexec.impact.estimates import COEFFICIENTS, Model, checked_method, checked_model
from jaxexec.impact.tape_estimates import estimate_layout, lags_of, lay_out_tape

ORDER = 5


def run(stocks: int = 1_000, trades: int = 9_000, sample: int = 40, quick: bool = False) -> list[harness.Row]:
    """Rows of one synthetic tape with a lognormal number of trades a stock."""
    if quick:
        stocks, trades, sample = 6, 300, 2
    made = jx.tape.synthetic.generate(stocks=stocks, trades=trades, seed=1, tail=1.0)
    tape = jx.tape.sign(made.trades, made.quotes, midpoint="keep")
    repeats = 1 if quick else 5
    with jax.enable_x64(True):
        if jax.default_backend() != "cpu":  # elsewhere tapes go through padded batches, which have no such layout
            return [_whole(tape, repeats)]
        rows = [*_estimates(tape, "hac", sample, repeats), *_estimates(tape, "ols", sample, repeats)]
        return [*rows, _whole(tape, repeats)]


def _estimates(tape: Any, covariance: str, sample: int, repeats: int) -> Iterator[harness.Row]:
    """Estimation alone, of a tape that is laid out, against each peer."""
    hac = covariance == "hac"
    case = "impact estimates, Newey–West errors" if hac else "impact estimates, classical errors"
    count, segments, model = tape.trades.height, tape.segments(), _model(covariance)
    layout = lay_out_tape(segments, model)

    def work():
        return estimate_layout(layout, model)

    start = time.perf_counter()
    found = work()
    first = time.perf_counter() - start
    (wall,) = harness.median_seconds(work, repeats=repeats)
    base: dict[str, Any] = {
        "size": {"trades": count, "stocks": len(tape.symbols)},
        "compile_seconds": max(first - wall, 0.0),
    }
    note = "seconds a trade; the tape laid out as vector lanes beforehand; R², Durbin–Watson and condition included"
    ours = found.coefficients, found.std_errors
    if harness.peer("statsmodels"):
        seconds, theirs, error = _loop(tape, hac, ours, work, sample, repeats)
        fields = base | {"run_seconds": seconds / count, "peer_seconds": theirs, "error": error}
        words = note + "; the peer with one BLAS thread, on a sample of the stocks; error: largest relative difference"
        yield harness.row(case, **fields, peer="statsmodels, stock by stock", note=words)
    if impact_kernel.available():
        seconds, theirs, error = _kernel(segments, lags_of(layout.rows, model.method), hac, ours, work, repeats)
        fields = base | {"run_seconds": seconds / count, "peer_seconds": theirs / count, "error": error}
        words = note + "; in C the same passes, without R² and, with classical errors, without residuals and errors"
        yield harness.row(case, **fields, peer="C, gcc -O3 -march=native", note=words)


def _whole(tape: Any, repeats: int) -> harness.Row:
    """From a signed tape in memory to its panel, and of that the layout."""
    segments, model, count = tape.segments(), _model("hac"), tape.trades.height

    def work():
        return jx.impact.glosten_harris(tape, form="difference", covariance="hac")

    work()
    whole, layout = harness.median_seconds(
        work, lambda: lay_out_tape(segments, model), repeats=repeats, clock=harness.clock
    )
    (wall,) = harness.median_seconds(work, repeats=repeats)
    note = (
        f"seconds a trade from a signed tape in memory, {layout / count * 1e9:.2g} ns of them to lay it out; "
        f"{count / wall / 1e6:.3g} million trades a second by the clock"
    )
    size = {"trades": count, "stocks": len(tape.symbols)}
    return harness.row("impact estimates, layout included", size=size, run_seconds=whole / count, note=note)


def _model(covariance: str) -> Model:
    method = checked_method("ols", covariance, None, False, "statsmodels", "yule-walker", 1)
    return checked_model("difference", COEFFICIENTS, ORDER, method)


def _loop(tape: Any, hac: bool, ours: tuple, work: Callable, sample: int, repeats: int) -> tuple[float, float, float]:
    """Seconds of ours, seconds a trade of statsmodels, and the largest relative difference."""
    chosen = tape.symbols[:: max(1, len(tape.symbols) // sample)]
    arrays = [_arrays(tape, symbol) for symbol in chosen]
    _statsmodels(*arrays[0], hac)  # imports are not work
    results: list[Any] = []

    def loop():
        results[:] = [_statsmodels(*a, hac) for a in arrays]

    seconds, theirs = harness.median_seconds(work, loop, repeats=repeats, clock=harness.clock)
    at = [tape.symbols.index(symbol) for symbol in chosen]
    error = max(
        float(np.max(np.abs(mine[at] / np.array(other) - 1)))
        for mine, other in zip(ours, zip(*results, strict=True), strict=True)
    )
    return seconds, theirs / sum(len(a[0]) for a in arrays), error


def _kernel(segments: Any, lags: np.ndarray, hac: bool, ours: tuple, work: Callable, repeats: int):
    """Seconds of ours and of C, and the largest relative difference."""
    flow = (segments.size * segments.sign).astype(np.int32)
    change = np.diff(segments.ticks, prepend=segments.ticks[:1]) * 1e-4
    offsets = np.asarray(segments.offsets, np.int64)
    tape = impact_kernel.Tape(flow, change, offsets, lags.astype(np.int32))
    kernel = impact_kernel.Kernel()
    slopes, errors = kernel.estimate(tape, hac)
    seconds, theirs = harness.median_seconds(
        work, lambda: kernel.estimate(tape, hac), repeats=repeats, clock=harness.clock
    )
    error = np.max(np.abs(ours[0] / slopes - 1))
    if errors is not None:
        error = max(error, np.max(np.abs(ours[1] / errors - 1)))
    return seconds, theirs, float(error)


def _arrays(tape: Any, symbol: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frame = tape.trades.filter(tape.trades["symbol"] == symbol)
    ticks, size, sign = (frame[name].to_numpy().astype(float) for name in ("ticks", "size", "sign"))
    return ticks, size, sign


def _statsmodels(ticks: np.ndarray, size: np.ndarray, sign: np.ndarray, hac: bool) -> tuple[np.ndarray, np.ndarray]:
    """Estimates and standard errors of one stock, as its user would write it."""
    api, special = harness.peer("statsmodels.api"), harness.peer("scipy.special")
    flow, change = sign * size, np.diff(ticks * 1e-4)[ORDER - 1 :]
    lags = np.column_stack([flow[ORDER - j : -j] for j in range(1, ORDER + 1)])
    first = api.OLS(flow[ORDER:], api.add_constant(lags)).fit()
    expected = first.fittedvalues
    expected_sign = special.erf(expected / (math.sqrt(first.mse_resid) * math.sqrt(2)))
    regressors = np.column_stack(
        [
            sign[ORDER:] - expected_sign,
            flow[ORDER:] - expected,
            np.diff(sign)[ORDER - 1 :],
            np.diff(flow)[ORDER - 1 :],
        ]
    )
    maxlags = int(4 * (len(change) / 100) ** (2 / 9))
    errors: dict[str, Any] = {"cov_type": "HAC", "cov_kwds": {"maxlags": maxlags, "use_correction": False}}
    fit = api.OLS(change, api.add_constant(regressors)).fit(**errors if hac else {})
    return fit.params[1:], fit.bse[1:]
