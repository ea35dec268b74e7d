"""`jaxexec simulate`: the distribution of what one order costs."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

from jaxexec.cli import markets
from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.markets import Assumed, MarketFiles
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.run import Run, open_run, plan, progress
from jaxexec.cli.single import Single, the_market
from jaxexec.presentation import Table

if TYPE_CHECKING:
    import polars as pl

    from jaxexec import PriceProcess, Simulation

Sampling = Literal["pseudo", "antithetic", "quasi"]

_LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99)
_MOST_PATHS = 1_000_000_000
_DRAWN = 400
_SHOWN = {
    "schedule": "schedule",
    "mean": "mean cost",
    "mean_error": "± std. error",
    "standard_deviation": "std. dev.",
    "value_at_risk_95": "95 % quantile",
    "mean_beyond_95": "mean beyond it",
    "status": "status",
}


@dataclasses.dataclass(frozen=True)
class _Options:
    """How to draw, checked."""

    risk_aversion: float | None
    paths: int
    seed: int
    sampling: Sampling
    price: float | None
    volatility_noise: float
    volume_noise: float
    reversion: float

    def __post_init__(self):
        gamma = self.risk_aversion
        if gamma is not None and not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"risk_aversion must be finite and at least 0, got {gamma}")
        if not 64 <= self.paths <= _MOST_PATHS:
            raise ValueError(f"paths must be between 64 and {_MOST_PATHS:,}, got {self.paths:,}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be between 0 and {2**32 - 1}, got {self.seed}")
        if self.price is not None and not 0 < self.price < math.inf:
            raise ValueError(f"price must be positive and finite, got {self.price}")
        for name in ("volatility_noise", "volume_noise", "reversion"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {getattr(self, name)}")


def simulate(
    shares: float,
    *,
    market: MarketFiles = (),
    horizon: float = 1.0,
    steps: int = 78,
    risk_aversion: float | None = None,
    paths: int = 262_144,
    seed: int = 0,
    sampling: Sampling = "quasi",
    price: float | None = None,
    volatility_noise: float = 0.0,
    volume_noise: float = 0.0,
    reversion: float = 3.0,
    assumed: Assumed = markets.DEFAULT,
    common: Common = DEFAULT,
) -> int:
    """The distribution of what one order costs, by its best schedule, TWAP and VWAP, on the same price paths.

    Args:
        shares: Shares to sell; negative to buy.
        market: One market file that `jaxexec calibrate` wrote.
        horizon: End of the order, in trading days, at most 1.
        steps: Steps of each schedule.
        risk_aversion: Gamma in cost + gamma/2 variance of the best schedule, per currency; that of the market file, or
            1e-6, where none is given.
        paths: Price paths, rounded up to whole blocks.
        seed: Of the random numbers.
        sampling: pseudo, antithetic or quasi.
        price: Arrival price; given, the price is geometric.
        volatility_noise: Standard deviation of the logarithm of a random volatility; 0 for none.
        volume_noise: Standard deviation of the logarithm of a random volume; 0 for none.
        reversion: How fast both return to their curves, per trading day.
    """
    order = Single(shares, horizon, steps)
    options = _Options(risk_aversion, paths, seed, sampling, price, volatility_noise, volume_noise, reversion)
    if common.dry_run:
        return plan("simulate", common, {"schedules": 3, "paths": paths, "steps": steps})
    settings = {**dataclasses.asdict(order), **dataclasses.asdict(options)}
    settings |= {"assumed": dataclasses.asdict(assumed), "precision": common.precision}
    with open_run("simulate", common, settings, markets.market_files(market)) as run:
        run.start_jax()
        day = the_market(market, assumed)
        problem = order.problem(day, markets.preferred(day, risk_aversion), common.precision)
        return _report(run, *_draw(run, problem, options), options)


def _draw(run: Run, problem: Any, options: _Options) -> tuple[dict[str, "Simulation"], Any]:
    """What each schedule costs, and a few paths of the best one."""
    import jaxexec as jx

    process = _process(options)
    schedules = {"best": jx.solve(problem).trades, "TWAP": jx.twap(problem), "VWAP": jx.vwap(problem)}
    found = {}
    with progress(run.common, "simulating", len(schedules) * options.paths) as advance:
        for name, trades in schedules.items():
            told = 0

            def tell(done: int, _: int) -> None:
                nonlocal told
                advance(done - told)
                told = done

            found[name] = jx.simulate(
                problem,
                trades,
                process,
                paths=options.paths,
                seed=options.seed,
                sampling=options.sampling,
                levels=_LEVELS,
                progress=tell,
            )
    return found, jx.price_paths(problem, schedules["best"], process, paths=_DRAWN, seed=options.seed)


def _process(options: _Options) -> "PriceProcess":
    import jaxexec as jx

    def noise(deviation: float) -> "jx.MeanReverting | None":
        return jx.MeanReverting(deviation, options.reversion) if deviation > 0 else None

    return jx.PriceProcess(
        "arithmetic" if options.price is None else "geometric",
        initial_price=options.price,
        # The variance is the volatility's square, so its logarithm moves twice as far.
        variance_noise=noise(2 * options.volatility_noise),
        volume_noise=noise(options.volume_noise),
    )


def _report(run: Run, found: dict[str, "Simulation"], paths: Any, options: _Options) -> int:
    """Show and write what was found; the exit code."""
    summary = _summary(found)
    footer = (
        f"{int(found['best'].paths):,} {options.sampling} paths, the same for all three. "
        "Implementation shortfall in currency; a positive one is a cost."
    )
    impossible = summary.filter(summary["status"] == "INFEASIBLE")["schedule"].to_list()
    if impossible:
        footer += f" {' and '.join(impossible)} would trade where the market has no volume."
    run.show(Table("What the order costs", list(_SHOWN.values()), summary.select(list(_SHOWN)).rows(), footer))
    run.write_parquet("simulation.parquet", summary)
    run.write_parquet("histogram.parquet", _histograms(found))
    failed = summary["status"][0] != "OK"  # that of the best schedule; the others are there to compare
    if not failed:
        run.write_picture("simulation.svg", found["best"].plot(), "What the best schedule costs, path by path.")
        run.write_picture("paths.svg", paths.plot(), "Price paths under the best schedule.")
    run.result |= {
        "schedules": summary.height,
        "failed": int(failed),
        "infeasible": impossible,
        "paths": int(found["best"].paths),
    }
    return SOME_ROWS_FAILED if failed else OK


def _summary(found: dict[str, "Simulation"]) -> "pl.DataFrame":
    """One row a schedule."""
    import numpy as np
    import polars as pl

    from jaxexec.numerics.status import Status

    rows = []
    for name, one in found.items():
        row: dict[str, Any] = {"schedule": name, "mean": float(one.mean), "mean_error": float(one.mean_error)}
        row |= {"variance": float(one.variance), "variance_error": float(one.variance_error)}
        row["standard_deviation"] = float(np.sqrt(one.variance))
        for i, level in enumerate(_LEVELS):
            row[f"value_at_risk_{100 * level:g}"] = float(one.value_at_risk[i])
            row[f"mean_beyond_{100 * level:g}"] = float(one.conditional_value_at_risk[i])
        rows.append(row | {"paths": int(one.paths), "status": Status(int(one.status)).name})
    return pl.DataFrame(rows)


def _histograms(found: dict[str, "Simulation"]) -> "pl.DataFrame":
    """One row a schedule and bin that holds a path."""
    import numpy as np
    import polars as pl

    frames = []
    for name, one in found.items():
        ends, counts = one.bins(), np.asarray(one.counts)
        held = np.flatnonzero(counts)
        columns = {"from": ends[held], "to": ends[held + 1], "paths": counts[held]}
        frames.append(pl.DataFrame({"schedule": [name] * len(held), **columns}))
    return pl.concat(frames)
