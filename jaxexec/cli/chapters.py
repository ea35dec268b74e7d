"""The chapters of the demonstration: each does one thing, shows it, and leaves its result to the next."""

import time
from typing import Any

import numpy as np

from jaxexec import presentation
from jaxexec.cli import scheduling
from jaxexec.cli.markets import Day, calibrate, day_of
from jaxexec.cli.story import Story
from jaxexec.presentation import Table, table_of

_STEPS = 78
_DECADES = 2.5  # of risk aversion, to either side, that the frontier spans


def tape(story: Story) -> None:
    """Trades and quotes, signed."""
    from jaxexec import tape as tapes

    if story.synthetic:
        day = tapes.synthetic.generate(stocks=story.stocks, trades=800, seed=story.seed)
        story.truth = day.truth
        story.run.write_parquet("synthetic-trades.parquet", day.trades.drop("true_sign"))
        story.run.write_parquet("synthetic-quotes.parquet", day.quotes)
        sources = (day.trades.drop("true_sign"), day.quotes)
        prose = "This day is synthetic: it was drawn at random from a model whose parameters are known."
    else:
        sources = (story.trades, story.quotes)
        prose = "These are your files."
    midpoint: Any = story.midpoint or ("keep" if story.synthetic else None)
    story.signed = tapes.sign(*sources, midpoint=midpoint, session=story.session, quote_exchange=story.exchange)
    ledger = story.signed.ledger
    balance = "Rows read = rows used + rows dropped." if ledger.balanced else "The ledger does not balance."
    footer = " ".join([balance, *(f"{name}: {text}." for name, text in ledger.notes.items())])
    title = "Synthetic trades and quotes" if story.synthetic else "Trades and quotes"
    story.tell("Trades, signed", prose, table_of(ledger.table(), title, footer))
    story.facts["trades signed"] = story.signed.trades.height


def impact(story: Story) -> None:
    """Impact estimates; beside the truth where it is known."""
    from jaxexec import impact as estimates

    story.panel = estimates.glosten_harris(story.signed)
    frame = story.panel.table()
    story.run.write_parquet("impact.parquet", frame)
    if story.truth is None:
        prose = "What a trade does to the price, at once and for good: Glosten and Harris's four coefficients."
        story.tell("Impact", prose, story.panel.presentation(), story.panel.plot())
        return
    joined = _beside_truth(frame, story.truth)
    first = joined[0, "symbol"]
    columns = ("coefficient", "truth", "estimate", "std_error", "deviation")
    one = Table(
        f"Synthetic stock {first}: truth and estimate",
        ("coefficient", "truth", "estimate", "± s.e.", "(estimate − truth) / s.e."),
        joined.filter(joined["symbol"] == first).select(columns).rows(),
        story.panel.convention,
    )
    prose = (
        "The truth is known, so the estimates can be marked. Of all intervals of ± 1.96 standard errors, about "
        "95 % should hold it."
    )
    story.tell("Impact, beside the truth", prose, one, _coverage(joined), *_truth_figures(joined))


def _beside_truth(frame: Any, truth: Any) -> Any:
    """Estimates with the true values, and their distance in standard errors."""
    import polars as pl

    names = frame["coefficient"].unique(maintain_order=True).to_list()
    long = truth.select("symbol", *names).unpivot(
        names, index="symbol", variable_name="coefficient", value_name="truth"
    )
    joined = frame.join(long, on=["symbol", "coefficient"], how="inner", maintain_order="left")
    return joined.with_columns(deviation=(pl.col("estimate") - pl.col("truth")) / pl.col("std_error"))


def _coverage(joined: Any) -> Table:
    """How often the intervals hold the truth."""
    rows = []
    for (name,), part in joined.group_by("coefficient", maintain_order=True):
        deviation = part["deviation"].drop_nans().to_numpy()
        rows.append(
            (
                name,
                len(deviation),
                float(np.mean(np.abs(deviation) < 1.96)),
                float(deviation.mean()),
                float(deviation.std()),
            )
        )
    columns = ("coefficient", "stocks", "intervals that hold the truth", "mean deviation", "std. dev. of deviation")
    return Table(
        "All synthetic stocks", columns, rows, "Deviations in standard errors: mean 0 and deviation 1 are ideal."
    )


def _truth_figures(joined: Any) -> list[Any]:
    """One coefficient stock by stock, and the deviations of all."""
    from jaxexec.report import Picture

    part = joined.filter(joined["coefficient"] == "transitory_fixed").head(12)
    bars = presentation.error_bars(
        part["symbol"].to_list(),
        1e4 * part["estimate"].to_numpy(),
        1e4 * part["std_error"].to_numpy(),
        "Estimates find the truth (synthetic)",
        "fixed transitory impact (1e-4 currency per share)",
        truth=1e4 * part["truth"].to_numpy(),
    )
    samples = {name: g["deviation"].to_numpy() for (name,), g in joined.group_by("coefficient", maintain_order=True)}
    violins = presentation.violins(samples, "Deviations from the truth (synthetic)", "standard errors")
    return [
        Picture(bars, "Bars are 95 % intervals, diamonds the truth."),
        Picture(violins, "One value a stock; two thirds should lie between −1 and 1."),
    ]


def market(story: Story) -> None:
    """The market that the estimates make."""
    from jaxexec import impact as estimates
    from jaxexec.storage import safe_name

    activity = estimates.activity(story.signed)
    for symbol in activity.symbols:
        try:
            story.calibrations[symbol] = calibrate(story.panel, activity, symbol)
        except ValueError as error:
            story.run.note(f"no market for {symbol}: {error}")
            continue
        story.days[symbol] = day_of(story.calibrations[symbol])
    if not story.days:
        raise ValueError("trades: no stock trades enough to calibrate a market")
    calibration, day = story.calibrations[story.symbol], story.days[story.symbol]
    story.run.write_text(f"market-{safe_name(story.symbol)}.toml", calibration.to_toml())
    hours = activity.bin_edges / 3.6e12
    volume = presentation.steps_curve(
        hours, {"volume": day.volume}, f"Volume of {story.symbol}", "hour", "shares per day"
    )
    volatility = presentation.steps_curve(
        hours, {"volatility": day.volatility}, f"Volatility of {story.symbol}", "hour", "currency per share per √day"
    )
    prose = "What was estimated, what was derived, and what had to be assumed, for the most active stock."
    story.tell("The market", prose, calibration.table(), volume, volatility)
    story.risk_aversion = _balanced_risk_aversion(story)
    story.facts["risk aversion"] = story.risk_aversion


def _balanced_risk_aversion(story: Story) -> float:
    """γ at which the risk of trading with the volume costs as much as its impact: a scale that suits the stock."""
    import jaxexec as jx

    problem = _one_order(story, 0.0)
    trades = jx.vwap(problem)
    cost = float(jx.expected_cost(problem, trades)) - 0.5 * float(problem.market.permanent_impact * problem.shares**2)
    return float(f"{2 * cost / float(jx.variance(problem, trades)):.1g}")


def schedules(story: Story) -> None:
    """Parent orders in bulk."""
    from jaxexec.numerics.status import Status
    from jaxexec.report import Picture

    batch = _random_orders(story)
    scheduling.schedule(batch, story.run.common.precision)
    started = time.perf_counter()
    solution = scheduling.schedule(batch, story.run.common.precision)
    seconds = time.perf_counter() - started
    usable = np.isin(solution["status"], (Status.OK, Status.OK_INACCURATE))
    worst = float(np.max(solution["relative_gap"][usable], initial=0.0))
    rows = [
        ("parent orders", story.orders),
        ("steps an order", _STEPS),
        ("scheduled", int(usable.sum())),
        ("risk aversion (1/currency)", story.risk_aversion),
        ("orders a second, once compiled", story.orders / seconds),
        ("worst relative duality gap", worst),
    ]
    footer = "The duality gap bounds what a schedule costs above the least possible: it is the proof."
    story.facts |= {"orders a second": round(story.orders / seconds), "worst relative gap": worst}
    lines, title = _some_trajectories(solution, batch), "Six of the schedules"
    figure = presentation.curves(
        np.linspace(0, 1, _STEPS + 1), lines, title, "share of the horizon", "share left to trade"
    )
    prose = "Orders of random stock, side, size and hours, solved at once, each with its certificate."
    caption = "The dearer the risk, the sooner; the bends follow the volume of the day."
    story.tell("Schedules", prose, Table("Schedules", ("", "value"), rows, footer), Picture(figure, caption))


def _random_orders(story: Story) -> scheduling.Arrays:
    """Orders of half to ten percent of a day's volume."""
    rng = np.random.default_rng(story.seed)
    symbols = sorted(story.days)
    rows = []
    for _ in range(story.orders):
        day = story.days[symbols[rng.integers(len(symbols))]]
        start = rng.uniform(0, 0.6)
        end = rng.uniform(start + 0.1, 1)
        shares = rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(0.005), np.log(0.1))) * day.volume.mean()
        rows.append(_arrays(day, shares, start, end, story.risk_aversion))
    return scheduling.stack(rows)


def _arrays(day: Day, shares: float, start: float, end: float, risk_aversion: float) -> scheduling.Arrays:
    scalars = (day.permanent_impact, day.eta, day.phi, day.psi, risk_aversion, np.inf)
    curves = day.window(start, end, _STEPS)
    return scheduling.Arrays(np.asarray(end - start), np.asarray(shares), *curves, *map(np.asarray, scalars))


def _some_trajectories(solution: dict[str, np.ndarray], batch: scheduling.Arrays) -> dict[str, np.ndarray]:
    """What is left of a few orders, from the most urgent to the most patient."""
    left = solution["inventory"] / batch.shares[:, None]
    ranked = np.argsort(left.mean(axis=1))
    chosen = ranked[np.linspace(0, len(ranked) - 1, min(6, len(ranked))).astype(int)]
    return {f"{'sell' if batch.shares[i] > 0 else 'buy'} {abs(batch.shares[i]):,.0f}": left[i] for i in chosen}


def frontier(story: Story) -> None:
    """Cost against risk for one order of five percent of a day."""
    import jaxexec as jx
    from jaxexec.report import Picture

    problem = _one_order(story, story.risk_aversion)
    gammas = story.risk_aversion * np.logspace(-_DECADES, _DECADES, 21)
    found = jx.efficient_frontier(problem, gammas.astype(story.run.common.precision))
    shares = problem.shares
    points = {
        name: (float(jx.variance(problem, trades)) ** 0.5, float(jx.expected_cost(problem, trades)))
        for name, trades in {"TWAP": jx.twap(problem), "VWAP": jx.vwap(problem)}.items()
    }
    risk, cost = np.sqrt(np.asarray(found.variance)), np.asarray(found.expected_cost)
    figure = presentation.frontier(risk, cost, f"Sale of {float(shares):,.0f} shares of {story.symbol}", points=points)
    table = found.table()
    every_other = Table(table.title, table.columns, table.rows[::2], table.footer)
    story.tell("Cost against risk", "Every point is optimal for its risk aversion.", every_other, Picture(figure))


def _one_order(story: Story, risk_aversion: float) -> Any:
    """A sale of five percent of the day's volume of the most active stock, over the day."""
    import jaxexec as jx

    day, cast = story.days[story.symbol], np.dtype(story.run.common.precision).type
    volatility, volume = (curve.astype(cast) for curve in day.window(0, 1, _STEPS))
    grid = jx.TimeGrid.uniform(cast(1.0), _STEPS)
    curves = jx.Market(grid, volatility, volume, cast(day.permanent_impact))
    cost = jx.PowerLawCost(cast(day.eta), cast(day.phi), cast(day.psi))
    return jx.Liquidation(cast(0.05 * day.volume.mean()), curves, cost, cast(risk_aversion))


def sensitivity(story: Story) -> None:
    """Exact derivatives of the optimal objective, beside difference quotients."""
    import jax
    import jax.numpy as jnp

    import jaxexec as jx

    problem = _one_order(story, story.risk_aversion)
    names = ("volatility", "volume", "permanent impact", "η", "φ", "ψ", "risk aversion", "shares")

    def objective(log_factors: Any) -> Any:
        f = jnp.exp(log_factors)
        m, c = problem.market, problem.cost
        changed = jx.Market(m.grid, m.volatility * f[0], m.volume * f[1], m.permanent_impact * f[2])
        cost = jx.PowerLawCost(c.eta * f[3], c.phi * f[4], c.psi * f[5])
        return jx.solve(jx.Liquidation(problem.shares * f[7], changed, cost, problem.risk_aversion * f[6])).objective

    h, eye = 1e-3, jnp.eye(len(names), dtype=story.run.common.precision)
    points = jnp.concatenate([0 * eye[:1], h * eye, -h * eye])
    values, gradients = map(np.asarray, jax.jit(jax.vmap(jax.value_and_grad(objective)))(points))
    value, up, down = values[0], values[1 : len(names) + 1], values[len(names) + 1 :]
    exact, quotients = gradients[0].tolist(), ((up - down) / (2 * h)).tolist()
    rows = [(name, 0.01 * a, 0.01 * b) for name, a, b in zip(names, exact, quotients, strict=True)]
    footer = (
        f"Objective {value:,.6g} currency. The derivative is exact (implicit function theorem), in one backward pass."
    )
    columns = ("one percent more of", "changes the objective by", "difference quotient")
    story.tell(
        "Sensitivities", "What moves the optimal cost of that order.", Table("Sensitivities", columns, rows, footer)
    )


def almgren_chriss(story: Story) -> None:
    """The example of the paper, three ways."""
    import jaxexec as jx

    cast = np.dtype(story.run.common.precision).type
    volume = 5e6
    exact = jx.almgren_chriss(
        cast(1e6),
        cast(5.0),
        5,
        volatility=cast(0.95),
        temporary_impact=cast(2.5e-6),
        permanent_impact=cast(2.5e-7),
        half_spread=cast(0.0625),
        variance_weight=cast(1e-6),
    )
    days = jx.Market(jx.TimeGrid.uniform(cast(5.0), 5), cast(0.95), cast(volume), cast(2.5e-7))
    cost = jx.QuadraticCost(cast(2.5e-6 * volume), cast(0.0625))
    solved = jx.solve(jx.Liquidation(cast(1e6), days, cost, cast(2e-6), convention="almgren-chriss"))
    numbers = [
        ("κ (per day)", "0.61", float(exact.kappa), None),
        ("1/κ (days), the paper's half-life", "1.6", float(exact.time_constant), None),
        ("expected cost", "", float(exact.expected_cost), float(solved.expected_cost)),
        ("standard deviation", "", float(exact.variance) ** 0.5, float(solved.variance) ** 0.5),
    ]
    inventory = zip(exact.inventory.tolist(), solved.inventory.tolist(), strict=True)
    numbers += [(f"shares left after day {day}", "", a, b) for day, (a, b) in enumerate(inventory)]
    columns = ("", "published", "closed form", "solver")
    footer = "Almgren and Chriss (2000): 1,000,000 shares in 5 days, λ = 1e-6; the paper rounds to two digits."
    prose = "The closed form and the solver share no code: each checks the other."
    story.tell("Almgren and Chriss's example", prose, Table("Almgren and Chriss (2000)", columns, numbers, footer))
