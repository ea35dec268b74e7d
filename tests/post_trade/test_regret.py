"""Regret encloses the truth: the objective of the execution less that of the best schedule of the same shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from tests.problems import one

STEPS = 6
BEST = jax.jit(lambda p, shares: jx.solve(_order_of(p, shares)))


def _order_of(problem: jx.Liquidation, shares) -> jx.Liquidation:
    return jx.Liquidation(shares, problem.market, problem.cost, problem.risk_aversion)


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("side", ["", "buy"])
def test_it_encloses_the_truth(side, share):
    """The best is that of the shares that were filled, whatever was ordered."""
    p = one(side, steps=STEPS)
    trades = share * jx.twap(p)
    r = jx.regret(p, trades)
    filled = _order_of(p, jnp.sum(trades))
    truth = float(jx.objective(filled, trades) - BEST(p, jnp.sum(trades)).objective)
    assert r.status == jx.Status.OK and truth > 1
    assert float(r.at_least) <= truth * (1 + 1e-7) and truth <= float(r.at_most) * (1 + 1e-7)
    np.testing.assert_allclose(r.at_most, r.at_least, rtol=1e-6)
    np.testing.assert_allclose(r.objective - r.best, truth, rtol=1e-7)
    np.testing.assert_allclose(r.relative, r.at_most / (r.objective - 0.5e-7 * jnp.sum(trades) ** 2), rtol=1e-9)
    least, most = r.in_bps(1e6)
    assert (least, most) == (r.at_least / 100, r.at_most / 100)


def test_nothing_is_left_on_the_table_at_the_optimum_and_by_an_order_never_begun():
    p = one("", steps=STEPS)
    best = BEST(p, p.shares)
    r = jx.regret(p, best.trades)
    assert 0 <= r.at_least <= r.at_most <= 1e-10 * r.objective
    idle = jx.regret(p, jnp.zeros(STEPS))
    assert idle.status == jx.Status.OK and idle.at_most == 0 and idle.at_least == 0


def test_derivatives():
    p, trades = one("", steps=STEPS), jx.twap(one("", steps=STEPS))
    direction = 1e-4 * np.asarray(trades) * np.array([1.0, -1, 2, -1, 0, -1])

    @jax.jit
    def both_modes(trades):
        forward = jax.jvp(lambda t: jx.regret(p, t).at_most, (trades,), (direction,))[1]
        return forward, jax.grad(lambda t: jx.regret(p, t).at_least)(trades)

    forward, slope = both_modes(trades)
    np.testing.assert_allclose(slope @ direction, forward, rtol=1e-9)
    up, down = (jx.regret(p, trades + s * direction).at_most for s in (1, -1))
    np.testing.assert_allclose(forward, (up - down) / 2, rtol=1e-6)


def test_failures():
    p = one("", steps=STEPS)
    bad = jx.regret(p, jnp.full(STEPS, np.nan))
    assert bad.status == jx.Status.NONFINITE_INPUT
    assert all(np.isnan(x) for x in (bad.at_least, bad.at_most, bad.relative, bad.objective, bad.best))
    with pytest.raises(ValueError, match=r"trades must have shape \(6,\)"):
        jx.regret(p, jnp.ones(3))
