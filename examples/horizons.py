"""The concept note's comparison of horizons, in numbers: patient, moderate, urgent, emergency.

Its example: sell 100,000 shares of a stock at 100 with a volatility of 1 % a day; within an hour that costs 10 basis
points of impact. What the note's table says of impact and risk holds. That the total is U-shaped holds for an even
pace; the optimal schedule loses nothing by having more time, and uses what it needs.
Give a folder to save the pictures: python examples/horizons.py docs/assets
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from jaxexec import presentation

jax.config.update("jax_enable_x64", True)

PRICE, SHARES, SIGMA, VOLUME, GAMMA = 100.0, 1e5, 1.0, 4e6, 1e-6
MINUTE, HOUR, PHI, STEPS = 1 / 390, 1 / 6.5, 0.6, 48
ETA = 1e-3 * PRICE / (SHARES / (HOUR * VOLUME)) ** PHI  # 10 basis points for an even hour
BASIS_POINT = 1e-4 * PRICE * SHARES

week = jx.Market(jx.TimeGrid.uniform(5.0, 65), SIGMA, VOLUME)
cost = jx.PowerLawCost(eta=ETA, phi=PHI)


@jax.jit
@jax.vmap
def within(horizon: jax.Array, sigma: jax.Array) -> dict[str, jax.Array]:
    """The order over the first `horizon` days at an even pace and at its best, in basis points."""
    market = jx.Market(week.grid, sigma, VOLUME).window(0.0, horizon, STEPS)
    order = jx.Liquidation(SHARES, market, cost, GAMMA)
    pace = jx.vwap(order)
    best = jx.solve(order)
    found = {
        "impact": jx.expected_cost(order, pace),
        "deviation": jnp.sqrt(jx.variance(order, pace)),
        "total": jx.objective(order, pace),
        "best": best.objective,
    }
    return {name: value / BASIS_POINT for name, value in found.items()} | {"status": best.status}


CASES = {
    "patient, a day": 1.0,
    "moderate, 3 hours": 3 * HOUR,
    "urgent, 15 minutes": 15 * MINUTE,
    "30 seconds": MINUTE / 2,
}
cases = jax.tree.map(np.asarray, within(np.array(list(CASES.values())), np.full(4, SIGMA)))
assert np.all(cases["status"] == jx.Status.OK)
print(f"{'basis points':22}{'impact':>9}{'deviation':>11}{'E + γ/2 Var':>13}{'at its best':>13}{'own/others':>12}")
for i, (name, horizon) in enumerate(CASES.items()):
    row = [cases[column][i] for column in ("impact", "deviation", "total", "best")]
    rate = SHARES / (horizon * VOLUME)
    print(f"{name:22}{row[0]:9.1f}{row[1]:11.1f}{row[2]:13.1f}{row[3]:13.1f}{rate:12.2f}")
# Impact grows and risk shrinks as time gets short; "seconds" needs many times the market's volume: an extrapolation.
assert np.all(np.diff(cases["impact"]) > 0) and np.all(np.diff(cases["deviation"]) < 0)
assert np.all(np.diff(cases["best"]) > 0) and SHARES / (MINUTE / 2 * VOLUME) > 19
np.testing.assert_allclose(within(np.full(4, HOUR), np.full(4, SIGMA))["impact"], 10, rtol=1e-9)

# Over many horizons: a U for the even pace, none for the optimum.
horizons = np.geomspace(MINUTE, 5.0, 60)
curve = jax.tree.map(np.asarray, within(horizons, np.full(60, SIGMA)))
assert np.all(curve["status"] == jx.Status.OK)
inside = int(np.argmin(curve["total"]))
assert 0 < inside < 59
assert np.all(np.diff(curve["best"]) < 1e-3 * curve["best"][1:])
exact = (3 * PHI * ETA * (SHARES / VOLUME) ** PHI / (GAMMA / 2 * SIGMA**2 * SHARES)) ** (1 / (1 + PHI))
print(f"an even pace is cheapest over {exact:.2f} days; with more time the optimum pays {curve['best'][-1]:.1f}")
assert horizons[inside - 1] < exact < horizons[inside + 1]

# "Patient if σ is small, urgent if the stock is hot": an hour beats a day from some volatility on, and this is where.
hour, day = ({k: float(v[0]) for k, v in within(np.full(4, t), np.full(4, SIGMA)).items()} for t in (HOUR, 1.0))
risk = {"hour": hour["total"] - hour["impact"], "day": day["total"] - day["impact"]}  # in proportion to σ²
tie = SIGMA * np.sqrt((hour["impact"] - day["impact"]) / (risk["day"] - risk["hour"]))
ends = within(np.array([HOUR, 1.0, HOUR, 1.0]), tie * np.array([0.95, 0.95, 1.05, 1.05]))["total"]
assert ends[0] > ends[1] and ends[2] < ends[3]
print(f"an hour beats a day where volatility is above {tie:.2f} % a day")

if len(sys.argv) > 1:
    by_volatility = {}
    for sigma in (0.5, 1.0, 2.0, 4.0):
        total = np.asarray(within(horizons, np.full(60, sigma))["total"])
        by_volatility[f"σ = {sigma:g} %"] = np.where(total < 80, total, np.nan)
    minutes = horizons * 390
    long = minutes > 20
    figures = {
        "horizons": presentation.curves(
            minutes[long],
            {
                "even pace, total": curve["total"][long],
                "its impact E": curve["impact"][long],
                "its risk γ/2 Var": (curve["total"] - curve["impact"])[long],
                "optimal schedule, total": curve["best"][long],
            },
            "Haste costs impact, waiting costs risk",
            "horizon (trading minutes)",
            "basis points of the order",
            log_x=True,
        ),
        "horizons_volatility": presentation.curves(
            minutes,
            by_volatility,
            "The more volatile the stock, the shorter the best even pace",
            "horizon (trading minutes)",
            "E + γ/2 Var (basis points of the order)",
            log_x=True,
        ),
    }
    for name, figure in figures.items():
        (Path(sys.argv[1]) / f"{name}.svg").write_bytes(presentation.to_svg(figure))
