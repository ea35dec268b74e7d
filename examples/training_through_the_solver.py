"""Learning a desk's risk aversion and impact from the schedules it traded, by gradient through the solver.

Observed: inventories of orders that were worked optimally for parameters unknown to us. Wanted: the risk aversion γ and
the exponent φ under which `solve` gives those inventories. The gradient goes through the optimality conditions, so the
loss has no idea that there is an optimiser inside.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

SHARES = jnp.array([5e4, 1e5, 2e5, 4e5])
MARKET = jx.Market(jx.TimeGrid.uniform(1.0, 26), volatility=0.6, volume=4e6)


@jax.vmap
def remaining(shares, log_gamma, phi):
    """The share of an order that is left at each node."""
    order = jx.Liquidation(shares, MARKET, jx.PowerLawCost(eta=0.1, phi=phi, psi=0.004), jnp.exp(log_gamma))
    return jx.solve(order).inventory / shares


def predict(parameters):
    same = jnp.ones_like(SHARES)
    return remaining(SHARES, parameters["log_gamma"] * same, parameters["phi"] * same)


truth = {"log_gamma": jnp.log(2e-6), "phi": jnp.asarray(0.55)}
observed = predict(truth)


def loss(parameters):
    return jnp.mean((predict(parameters) - observed) ** 2)


STEPS = 1000
optimiser = optax.adam(optax.exponential_decay(0.1, transition_steps=STEPS, decay_rate=1e-2))


@jax.jit
def train(parameters):
    def step(carry, _):
        p, state = carry
        value, slope = jax.value_and_grad(loss)(p)
        update, state = optimiser.update(slope, state, p)
        return (optax.apply_updates(p, update), state), value

    (found, _), losses = jax.lax.scan(step, (parameters, optimiser.init(parameters)), length=STEPS)
    return found, losses


found, losses = train({"log_gamma": jnp.log(3e-7), "phi": jnp.asarray(0.9)})
print(f"loss {losses[0]:.1e} → {losses[-1]:.1e}; γ = {jnp.exp(found['log_gamma']):.6e}, φ = {found['phi']:.6f}")
assert losses[-1] < 1e-12 * losses[0]
np.testing.assert_allclose(jnp.exp(found["log_gamma"]), 2e-6, rtol=1e-5)
np.testing.assert_allclose(found["phi"], 0.55, rtol=1e-5)
