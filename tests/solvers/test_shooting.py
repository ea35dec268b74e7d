"""Shooting on the same programme: the default's answers where digits are left, and never a wrong answer called OK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.solvers.multiple_shooting import MultipleShooting
from jaxexec.solvers.shooting import Shooting
from tests.problems import one, random_batch

SOLVERS = {"single": Shooting(), "multiple": MultipleShooting(5)}  # 12 steps: the last segment is padded
GENTLE = ("", "buy", "quadratic discrete drift", "target", "uneven-spread", "closed")


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", GENTLE)
def test_agrees_with_the_default(kind, name):
    problem = one(kind)
    expected, found = jx.solve(problem), jx.solve(problem, SOLVERS[name], throw=True)
    np.testing.assert_allclose(found.inventory, expected.inventory, atol=1e-9 * 2e5)
    np.testing.assert_allclose(found.costate, expected.costate, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-12)


@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_are_those_of_the_default_under_vmap_too(name):
    batch = jax.tree.map(lambda *x: jnp.stack(x), one("target"), one("drift"))

    def mix(problem, solver):
        s = jx.solve(problem, solver)
        return s.objective + jnp.sum(jnp.arange(12) / 12 * s.trades)

    def gradient(solver):
        return jax.jit(jax.vmap(jax.grad(lambda p: mix(p, solver))))(batch)

    for leaf, a, b in zip(*map(jax.tree.leaves, (batch, gradient(None), gradient(SOLVERS[name]))), strict=True):
        np.testing.assert_allclose(a * leaf, b * leaf, rtol=1e-7, atol=1e-4)


def test_single_shooting_says_that_it_lost_every_digit():
    """κT = 100 with two signs: nothing is left of y_0 at the end, and the gap knows."""
    problem = jax.tree.map(lambda x: x[0], random_batch(0, 1, steps=48, decades=(2.0, 2.0), drift=True, target=True))
    lost = jx.solve(problem, Shooting())
    assert lost.status in (jx.Status.MAX_STEPS, jx.Status.NONFINITE_INTERNAL)
    for field in ("times", "inventory", "trades", "costate", "objective"):
        assert np.all(np.isnan(np.asarray(getattr(lost, field)))), field
    assert jx.solve(problem, MultipleShooting(16)).status == jx.Status.OK


def test_never_ok_with_a_wrong_answer():
    """The certificate bounds what the schedule costs above the optimum; multiple shooting reaches further."""
    mixed, plain = random_batch(3, 100, steps=48, drift=True, target=True), random_batch(4, 100, steps=48)
    problems = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), mixed, plain)
    best = jax.jit(jax.vmap(jx.solve))(problems)
    answered = {}
    for name, solver in {"single": Shooting(), "multiple": MultipleShooting(16)}.items():
        found = jax.jit(jax.vmap(lambda p, solver=solver: jx.solve(p, solver)))(problems)
        usable = np.asarray(found.status) <= jx.Status.LOCAL
        excess = np.asarray(found.objective - best.objective)[usable]
        bound = np.asarray(found.duality_gap)[usable] + 1e-9 * np.abs(np.asarray(best.objective))[usable]
        assert np.all(excess <= bound)
        answered[name] = int(np.sum(usable))
    assert answered["multiple"] >= max(190, answered["single"] + 5)


def test_too_few_steps_is_a_status():
    s = jx.solve(one("drift target"), Shooting(max_steps=2))
    assert s.status == jx.Status.MAX_STEPS


def test_float32():
    single = jax.tree.map(lambda x: x.astype(jnp.float32), one(""))
    for solver in SOLVERS.values():
        s = jx.solve(single, solver, throw=True)
        assert s.trades.dtype == jnp.float32
        np.testing.assert_allclose(s.objective, jx.solve(one("")).objective, rtol=1e-5)


def test_refuses_no_segments():
    with pytest.raises(ValueError, match="segments"):
        MultipleShooting(0)
