"""Many moves at once are what forward mode gives one at a time, for every kind of order, in pieces and in any order."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.numerics.status import Status
from jaxexec.sensitivity.levels import levels
from jaxexec.solvers.response import response
from tests.problems import one

STEPS = 8
POWER = ("", "buy", "drift", "target", "uneven-spread", "closed")


def stacked(orders):
    return jax.tree.map(lambda *x: jnp.stack(x), *orders)


def several():
    power = [one(kind, STEPS) for kind in POWER]
    discrete = [one(kind, STEPS) for kind in ("quadratic discrete", "quadratic discrete drift")]
    capped = []
    for kind, most in (("", 0.06), ("quadratic", 0.055), ("drift quadratic", 0.2)):
        order = one(kind, STEPS)
        cost = jx.ParticipationCap(jx.PowerLawCost(0.1, 0.6, 0.004), most)
        capped.append(eqx.tree_at(lambda p: p.cost, order, cost))
    soft = []
    for penalty in (1e-7, 1e-5):
        order = one("quadratic", STEPS)
        aim = jnp.linspace(2e5, 0, STEPS + 1)
        soft.append(jx.Liquidation(2e5, order.market, order.cost, 3e-6, 1e4, benchmark=aim, terminal_penalty=penalty))
    return {"power": power, "discrete": discrete, "capped": capped, "soft": soft}


def direct(problem, names=None):
    found = jx.solve(problem)
    return response(problem, found, levels(problem, names).moves)._asdict(), found.status


def forward(problem):
    chosen = levels(problem)

    def of(values):
        s = jx.solve(chosen.at(values))
        return {name: getattr(s, name) for name in ("inventory", "trades", "expected_cost", "variance", "objective")}

    return jax.jacfwd(of)(chosen.values), chosen.values


@pytest.mark.parametrize("kind", ["power", "discrete", "capped", "soft"])
def test_it_is_forward_mode(kind):
    batch = stacked(several()[kind])
    found, status = jax.jit(jax.vmap(direct))(batch)
    slopes, values = jax.jit(jax.vmap(forward))(batch)
    assert int(jnp.max(status)) == Status.OK
    sizes = np.maximum(np.abs(np.asarray(values)), 1e-3)
    for name, exact in slopes.items():
        moved = np.asarray(exact) * sizes.reshape(sizes.shape[0], *(1,) * (exact.ndim - 2), -1)
        ours = np.asarray(found[name]) * sizes.reshape(sizes.shape[0], *(1,) * (exact.ndim - 2), -1)
        scale = np.max(np.abs(moved), axis=tuple(range(1, moved.ndim)), keepdims=True)
        np.testing.assert_allclose(ours, moved, rtol=1e-8, atol=1e-9 * float(np.max(scale)), err_msg=name)


def test_pieces_derivatives_and_failed_lanes():
    orders = [one("", STEPS, seed=k) for k in range(5)]
    bad = eqx.tree_at(lambda p: p.cost.phi, orders[1], jnp.asarray(-0.5))
    many = stacked([*orders, bad] * 7)

    def of(batch):
        return jax.vmap(lambda p: direct(p, ("volume", "eta")))(batch)

    found, status = jax.jit(of)(many)
    few, _ = jax.jit(of)(stacked(orders))
    assert set(np.asarray(status[5::6]).tolist()) == {int(Status.NONCONVEX)}
    for name, slopes in found.items():
        assert np.isfinite(slopes).all(), name
        np.testing.assert_allclose(slopes[36:41], few[name], rtol=1e-9, atol=1e-12 * float(jnp.max(jnp.abs(few[name]))))

    def steepness(eta):
        batch = eqx.tree_at(lambda p: p.cost.eta, many, many.cost.eta * eta)
        slopes, status = of(batch)
        return jnp.sum(jnp.where(status[:, None, None] == 0, slopes["trades"], 0)[:, 0, 0])

    # Reverse over the pieces, against differences; forward is what second derivatives are made by.
    value = jax.jit(steepness)
    numeric = (value(1 + 1e-5) - value(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(steepness))(1.0), numeric, rtol=1e-6)
