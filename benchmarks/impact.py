"""Impact estimates of a whole tape, against a loop over stocks with statsmodels.

Both fit the fifth-order autoregression of signed size and the Glosten–Harris regression with Newey–West errors, to
the same signed trades. Time is processor time of all threads, so that one more core helps neither.
"""

import math
import time
from typing import Any

import numpy as np

import jaxexec as jx
from benchmarks import harness

ORDER = 5


def run(stocks: int = 1_000, trades: int = 4_000, sample: int = 40, quick: bool = False) -> list[harness.Row]:
    """One row: a synthetic tape with a lognormal number of trades a stock."""
    if quick:
        stocks, trades, sample = 6, 300, 2
    made = jx.tape.synthetic.generate(stocks=stocks, trades=trades, seed=1, tail=1.0)
    tape = jx.tape.sign(made.trades, made.quotes, midpoint="keep")
    count = tape.trades.height

    def work():
        return jx.impact.glosten_harris(tape, form="difference", covariance="hac")

    start = time.perf_counter()
    panel = work()
    first = time.perf_counter() - start
    repeats = 1 if quick else 5
    (wall,) = harness.median_seconds(work, repeats=repeats)
    seconds = harness.median_seconds(work, repeats=repeats, clock=harness.clock)[0] / count
    fields: dict[str, Any] = {
        "size": {"trades": count, "stocks": stocks},
        "compile_seconds": max(first - wall, 0.0),
        "run_seconds": seconds,
    }
    note = (
        f"processor seconds a trade, all threads; {count / wall / 1e6:.3g} million trades a second by the clock; "
        "compiling is the first call less a later one"
    )
    if not harness.peer("statsmodels"):
        return [harness.row("impact estimates", **fields, note=note)]
    _statsmodels(*_arrays(tape, tape.symbols[0]))  # imports are not work
    taken, used, error = 0.0, 0, 0.0
    for symbol in tape.symbols[:: max(1, stocks // sample)]:
        arrays = _arrays(tape, symbol)
        begin = time.process_time()
        theirs, errors = _statsmodels(*arrays)
        taken, used = taken + time.process_time() - begin, used + len(arrays[0])
        at = panel.symbols.index(symbol)
        ours = panel.estimates.coefficients[at], panel.estimates.std_errors[at]
        error = max(error, np.max(np.abs(ours[0] / theirs - 1)), np.max(np.abs(ours[1] / errors - 1)))
    fields |= {"error": float(error), "peer": "statsmodels, stock by stock", "peer_seconds": taken / used}
    note += (
        "; error: largest relative difference of estimates and standard errors from the peer's; the peer with one BLAS "
        "thread, on a sample of the stocks"
    )
    return [harness.row("impact estimates", **fields, note=note)]


def _arrays(tape: Any, symbol: str) -> tuple[np.ndarray, ...]:
    frame = tape.trades.filter(tape.trades["symbol"] == symbol)
    return tuple(frame[name].to_numpy().astype(float) for name in ("ticks", "size", "sign"))


def _statsmodels(ticks: np.ndarray, size: np.ndarray, sign: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    fit = api.OLS(change, api.add_constant(regressors)).fit(
        cov_type="HAC", cov_kwds={"maxlags": maxlags, "use_correction": False}
    )
    return fit.params[1:], fit.bse[1:]
