"""`jaxexec equilibrium`: how a market maker who learns prices, and what it costs to be taken for informed."""

import math
from typing import Any, Literal

from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.run import Run, open_run, plan

_MOST_PERIODS = 1_000_000
_UNBOUNDED = "The rule can be manipulated without end: raise --liquidator-risk-aversion."


def equilibrium(
    *,
    prior_variance: float = 1.0,
    noise_variance: float = 1.0,
    periods: int = 50,
    risk_aversion: float = 0.0,
    preference: Literal["local", "cara"] = "local",
    market_maker_risk_aversion: float = 0.0,
    insiders: int = 1,
    noise_curve: float = 0.0,
    shares: float | None = None,
    liquidator_risk_aversion: float = 0.0,
    common: Common = DEFAULT,
) -> int:
    """Impact, intensity and learning, period by period, where an informed trader hides in noise.

    Args:
        prior_variance: Variance of what the insider knows, currency².
        noise_variance: Mean variance of noise traders' net orders in a period, shares².
        periods: Number of periods.
        risk_aversion: Of each insider, per currency.
        preference: Insiders weigh each period's risk, or their utility is exponential.
        market_maker_risk_aversion: Of those who make the market, per currency.
        insiders: Number of insiders who all know the value.
        noise_curve: How much larger noise variance is at both ends than in the middle, relative to the middle: 0 for
            constant noise, 3 for a marked U.
        shares: Shares of an order to compare: at exogenous impact, informed, and taken for informed.
        liquidator_risk_aversion: Of the one who trades these shares, per currency.
    """
    settings: dict[str, Any] = {
        "prior_variance": prior_variance,
        "noise_variance": noise_variance,
        "periods": periods,
        "risk_aversion": risk_aversion,
        "preference": preference,
        "market_maker_risk_aversion": market_maker_risk_aversion,
        "insiders": insiders,
    }
    extra = {"noise_curve": noise_curve, "shares": shares, "liquidator_risk_aversion": liquidator_risk_aversion}
    _check(periods, noise_curve, shares, insiders, liquidator_risk_aversion)
    if common.dry_run:
        return plan("equilibrium", common, {"periods": periods, "insiders": insiders})
    with open_run("equilibrium", common, settings | extra | {"precision": common.precision}) as run:
        run.start_jax()
        import numpy as np

        import jaxexec as jx

        cast = np.dtype(common.precision).type
        curve = 1 + noise_curve * np.linspace(-1, 1, periods) ** 2 if periods > 1 else np.ones(1)
        noise = (noise_variance * curve / curve.mean()).astype(common.precision)
        numbers: dict[str, Any] = {k: cast(v) if isinstance(v, float) else v for k, v in settings.items()}
        found = jx.kyle.solve(**(numbers | {"noise_variance": noise}))
        code = _report(run, found)
        if shares is not None and code == OK:
            code = _compare(run, jx.intention.compare(found, cast(shares), cast(liquidator_risk_aversion)))
        return code


def _check(periods: int, noise_curve: float, shares: float | None, insiders: int, liquidators: float) -> None:
    if not 1 <= periods <= _MOST_PERIODS:
        raise ValueError(f"periods must be between 1 and {_MOST_PERIODS:,}, got {periods:,}")
    if not (math.isfinite(noise_curve) and noise_curve > -1):
        raise ValueError(f"noise_curve must be finite and above -1, got {noise_curve}")
    if shares is not None and not (math.isfinite(shares) and shares != 0):
        raise ValueError(f"shares must be finite and not 0, got {shares}")
    if not (math.isfinite(liquidators) and liquidators >= 0):
        raise ValueError(f"liquidator_risk_aversion must be finite and at least 0, got {liquidators}")
    if shares is not None and insiders != 1:
        raise ValueError("shares can be compared where there is one insider")


def _report(run: Run, found: Any) -> int:
    """Show and write the equilibrium; the exit code."""
    import numpy as np
    import polars as pl

    from jaxexec import Status

    status = Status(int(found.status))
    run.result |= {
        "status": status.name,
        "expected_profit": float(found.expected_profit),
        "market_maker_profit": float(found.market_maker_profit),
        "value": float(found.value),
        "passes": int(found.passes),
    }
    columns = (
        "noise_variance",
        "price_impact",
        "transitory_impact",
        "intensity",
        "posterior_variance",
        "informed_share",
        "value_curvature",
        "value_constant",
        "second_order",
    )
    frame = {"period": np.arange(1, found.periods + 1)} | {name: np.asarray(getattr(found, name)) for name in columns}
    run.write_parquet("equilibrium.parquet", pl.DataFrame(frame))
    if status > Status.LOCAL:
        run.note(f"no equilibrium: {status.name}. {status.remedy}")
        return SOME_ROWS_FAILED
    run.show(found.table())
    run.write_picture("equilibrium.svg", found.plot(), "Impact, intensity and what is left unknown.")
    return OK


def _compare(run: Run, found: Any) -> int:
    """Show and write one liquidation for three reasons; the exit code."""
    from jaxexec import Status

    run.show(found.table())
    run.write_picture("liquidations.svg", found.plot(), "Shares left to trade, by the reason to trade.")
    run.write_picture("leakage.svg", found.plot_leakage(), "What the market maker is led to believe.")
    run.result["expected_costs"] = {
        name: float(getattr(found, name).expected_cost) for name in ("exogenous", "informed", "mistaken", "naive")
    }
    if found.mistaken.status > Status.LOCAL:
        status = Status(int(found.mistaken.status))
        run.note(f"taken for informed: {status.name}. {_UNBOUNDED if status == Status.UNBOUNDED else status.remedy}")
        return SOME_ROWS_FAILED
    return OK
