"""`jaxexec impact`: signed trades to impact estimates."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.run import Run, open_run, plan
from jaxexec.cli.tapes import SignedDays, signed_files, signed_parts

if TYPE_CHECKING:
    import polars as pl


def impact(
    signed: Annotated[tuple[Path, ...], Parameter(required=True)],
    /,
    *,
    form: Literal["difference", "level"] = "difference",
    estimator: Literal["ols", "cochrane-orcutt", "prais-winsten"] = "ols",
    covariance: Literal["hac", "ols", "hc0", "hc1", "hc2", "hc3"] = "hac",
    lags: str = "newey-west-fixed",
    winsorise: float = 0.01,
    common: Common = DEFAULT,
) -> int:
    """Signed trades to impact estimates for each stock.

    Args:
        signed: Folders that `jaxexec clean` wrote, or Parquet files of signed trades; several are days of one tape,
            read one after the other and pooled.
        form: Glosten and Harris's equation in price changes or in prices.
        estimator: Least squares, or feasible generalised least squares for errors that follow an AR(1).
        covariance: Kind of standard errors.
        lags: Lags of the HAC covariance: a number, newey-west-fixed, newey-west-1994 or andrews.
        winsorise: Share cut at each end in the cross-section.
    """
    if not 0 <= winsorise < 0.5:
        raise ValueError(f"winsorise must be at least 0 and below 0.5, got {winsorise}")
    inputs = signed_files(signed)
    if common.dry_run:
        return plan("impact", common, {"files to read": len(inputs)})
    settings = {"form": form, "estimator": estimator, "covariance": covariance, "lags": lags, "winsorise": winsorise}
    with open_run("impact", common, {**settings, "precision": common.precision}, inputs) as run:
        run.start_jax()
        from jaxexec import impact as estimates

        count = int(lags) if lags.isdigit() else lags
        options = {"form": form, "estimator": estimator, "covariance": covariance, "lags": count}
        tape = signed_parts(signed[0]) if len(signed) == 1 else SignedDays(signed)
        panel = estimates.glosten_harris(tape, **options)  # pyright: ignore
        return report_panel(run, panel, winsorise)


def report_panel(run: Run, panel: Any, winsorise: float) -> int:
    """Write a panel of estimates, show it or its cross-section; the exit code."""
    frame = panel.table()
    run.write_parquet("impact.parquet", frame)
    run.show(panel.presentation((winsorise, 1 - winsorise) if winsorise else None))
    cut = (winsorise, 1 - winsorise) if winsorise else None
    run.write_picture("impact.svg", panel.plot(cut), "Impact estimates across stocks.")
    if panel.usable.sum() > 2:
        run.write_picture("pairs.svg", panel.plot(cut, kind="pairs"), "Every coefficient against every other.")
    failed = failed_symbols(frame)
    stocks = frame["symbol"].n_unique()
    run.result |= {"stocks": stocks, "failed": len(failed)}
    if failed:
        run.note(f"{len(failed):,} of {stocks:,} stocks have no estimate (see status in impact.parquet)")
    return SOME_ROWS_FAILED if failed else OK


def failed_symbols(frame: "pl.DataFrame") -> list[str]:
    """Symbols without an estimate."""
    return sorted(frame.filter(frame["estimate"].is_nan() | frame["estimate"].is_null())["symbol"].unique())
