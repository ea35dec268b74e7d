"""The pictures of the README and the documentation: `python -m benchmarks figures` draws them from solved problems."""

import subprocess
import sys
from pathlib import Path

import numpy as np

import jaxexec as jx
from jaxexec import presentation

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "docs" / "assets"
# Examples that draw their own figures into a folder.
EXAMPLES = (
    "thesis_naive_and_instant",
    "thesis_trajectories",
    "cost_curve",
    "note_challenges",
    "horizons",
    "equilibrium",
)


def main() -> int:
    """Draw every picture."""
    ASSETS.mkdir(parents=True, exist_ok=True)
    impact = impact_panel()
    drawn = {
        "schedules": schedules(),
        "frontier": frontier(),
        "impact_distributions": impact.plot(),
        "impact_pairs": impact.plot(kind="pairs"),
    }
    for name, figure in drawn.items():
        path = ASSETS / f"{name}.svg"
        path.write_bytes(presentation.to_svg(figure))
        print(f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    cost = ROOT / "examples" / "what_it_may_cost.py"
    subprocess.run([sys.executable, str(cost), str(ASSETS / "what_it_may_cost.svg")], check=True)
    for name in EXAMPLES:
        subprocess.run([sys.executable, str(ROOT / "examples" / f"{name}.py"), str(ASSETS)], check=True)
    return 0


def problem(risk_aversion: float = 1e-6) -> jx.Liquidation:
    """200,000 shares, 5 % of the day's volume, in 78 steps of five minutes; volume and volatility are U-shaped."""
    middle = 2 * (np.arange(78) + 0.5) / 78 - 1
    market = jx.Market(
        jx.TimeGrid.uniform(1.0, 78),
        volatility=0.6 * (1 + 0.6 * middle**2) / 1.2,
        volume=4e6 * (1 + 1.5 * middle**2) / 1.5,
    )
    return jx.Liquidation(2e5, market, jx.PowerLawCost(eta=0.1, phi=0.6, psi=0.004), risk_aversion)


def schedules():
    """Optimal inventories at several risk aversions."""
    gammas = np.array([0.0, 5e-7, 2e-6, 1e-5])
    found = jx.efficient_frontier(problem(), gammas).schedules
    hours = 9.5 + 6.5 * np.asarray(found.times[0])
    lines = {_name(g): np.asarray(x) / 1e3 for g, x in zip(gammas, found.inventory, strict=True)}
    if np.any(np.asarray(found.status) != jx.Status.OK):
        raise RuntimeError("a schedule of the picture did not converge")
    title = "The more risk weighs, the sooner the shares are sold"
    return presentation.curves(hours, lines, title, "hour of the day", "inventory (thousand shares)")


def impact_panel() -> jx.impact.Panel:
    """Estimates of a synthetic day with the habits of real ones."""
    made = jx.tape.synthetic.generate(stocks=400, trades=1500, seed=3, model="realistic")
    return jx.impact.glosten_harris(jx.tape.sign(made.trades, made.quotes, midpoint="keep"))


def frontier():
    """Expected cost against risk over many risk aversions."""
    found = jx.efficient_frontier(problem(), np.geomspace(1e-8, 1e-4, 41))
    deviation, cost = np.sqrt(np.asarray(found.variance)) / 1e3, np.asarray(found.expected_cost) / 1e3
    return presentation.curves(
        deviation,
        {"optimal schedules": cost},
        "The efficient frontier of 200,000 shares",
        "standard deviation of the shortfall (thousand)",
        "expected shortfall (thousand)",
    )


def _name(gamma: float) -> str:
    return "γ = 0 (VWAP)" if gamma == 0 else f"γ = {gamma:.0e}"
