"""The thesis's fourth figure: how hard an informed trader trades, and how far a market maker moves the price.

50 periods, with constant noise and with noise that is U-shaped as volume is, at three risk aversions. What the thesis
says of it, and what holds:

    trading intensity β_t rises to the end                       holds, for every risk aversion, with constant noise
    impact λ_t rises with time                                   holds for none with constant noise: it falls
    impact and intensity have spikes                             only where the noise has them
    noise slows learning down                                    not for the risk-neutral: β rises with noise, Σ_t stays
    an uninformed seller may be right to trade fast              risk, a rival or a CARA insider's impatience: yes

Give a folder to save the pictures: python examples/equilibrium.py docs/assets
"""

import sys
from pathlib import Path
from typing import Literal

import jax
import numpy as np

import jaxexec as jx
from jaxexec import presentation

jax.config.update("jax_enable_x64", True)

PERIODS = 50
constant = np.ones(PERIODS)
u_shaped = 1 + 3 * np.linspace(-1, 1, PERIODS) ** 2
u_shaped /= u_shaped.mean()
cases: dict[str, tuple[float, Literal["local", "cara"]]] = {
    "γ = 0": (0.0, "local"),
    "γ = 4, local": (4.0, "local"),
    "γ = 4, CARA": (4.0, "cara"),
}

found = {
    (name, shape): jx.kyle.solve(1.0, noise, PERIODS, gamma, preference)
    for name, (gamma, preference) in cases.items()
    for shape, noise in (("constant noise", constant), ("U-shaped noise", u_shaped))
}
assert all(e.status == jx.Status.OK for e in found.values())

for name in cases:
    steady = found[name, "constant noise"]
    assert np.all(np.diff(np.asarray(steady.price_impact)) < 0)
    assert np.all(np.diff(np.asarray(steady.intensity)) > 0)
    assert np.all(np.diff(np.asarray(steady.posterior_variance)) < 0)

# Noise that varies fourfold: a risk-neutral insider moves with it, and impact rises by 4 % only to where it is quiet.
u = found["γ = 0", "U-shaped noise"]
impact, intensity = np.asarray(u.price_impact), np.asarray(u.intensity)
assert 20 < np.argmax(impact) < 30 and 1.03 < impact.max() / impact[0] < 1.05
assert 20 < np.argmin(intensity) < 30

# Four times the noise: a risk-neutral insider trades twice as hard, and as much is learnt; not so one who minds risk.
for gamma, same in ((0.0, True), (4.0, False)):
    quiet, loud = (jx.kyle.solve(1.0, s * constant, PERIODS, gamma) for s in (1.0, 4.0))
    assert np.allclose(quiet.posterior_variance, loud.posterior_variance, rtol=1e-10) is same

# Is a seller without information right to hurry? Not for its own sake: at no risk the best reply to being taken for an
# informed trader is to trade as one does on average.
calm = found["γ = 0", "constant noise"]
best = jx.intention.mistaken(calm, 5.0)
assert np.allclose(best.trades, jx.intention.informed(calm, 5.0).trades)
assert jx.intention.mistaken(calm, 5.0, 0.1).inventory[10] < 0.5 * best.inventory[10]  # with risk it is

# Taken for a CARA insider one pays for haste: impact is highest at first. Who minds risk less than that insider could
# even move the price while impact is high and trade while it is low, without end.
impatient = jx.kyle.solve(1.0, constant, PERIODS, 0.5, "cara")
comparison = jx.intention.compare(impatient, 5.0, 0.5)
assert comparison.mistaken.status == jx.Status.OK
assert jx.intention.mistaken(impatient, 5.0, 0.3).status == jx.Status.UNBOUNDED

at = np.arange(1, PERIODS + 1)
shapes = ("constant noise", "U-shaped noise")
shown = [(name, shape) for name in ("γ = 0", "γ = 4, CARA") for shape in shapes]  # "local" is close to γ = 0
intensities = {", ".join(case): np.asarray(found[case].intensity) for case in shown}
impacts = {", ".join(case): np.asarray(found[case].price_impact) for case in shown}
figures = {
    "kyle_intensity": presentation.curves(
        at, intensities, "Intensity rises to the end, and with noise", "period", "β (shares per currency)", log_y=True
    ),
    "kyle_impact": presentation.curves(
        at, impacts, "Impact falls, save into quiet hours", "period", "λ (currency per share)"
    ),
    "kyle_leakage": comparison.plot_leakage(),
    "kyle_liquidations": comparison.plot(),
}
for name, figure in figures.items():
    if len(sys.argv) > 1:
        (Path(sys.argv[1]) / f"{name}.svg").write_bytes(presentation.to_svg(figure))

print(comparison.table().text(100))
