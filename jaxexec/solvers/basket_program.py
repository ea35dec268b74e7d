"""The dimensionless convex programme that every basket becomes, its certificate and its derivatives.

    minimise  Σ b L(ρ) + Σ n_kᵀ Q_k n_k + Σ (½ q_nᵀ W_n q_n − g_nᵀ q_n)    subject to  q_k − q_{k+1} = n_k = b_k ρ_k

Its optimality conditions are the block ladder of `numerics.block_tridiagonal` closed by n = b H'(v), v = y − 2Qn.
Weak duality: for any path n, and y on the rails y_{n−1} − y_n = W q − g, the path costs at most
Σ b [L(ρ) + H(v) − ρv] more than the optimum: Q, convex, is its own tangent at n.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxexec.basket import Basket, coupled_cost, over_assets, permanent_matrix
from jaxexec.costs import CurvePoint, ExecutionCost
from jaxexec.numerics.block_tridiagonal import (
    Rail,
    block_response,
    semidefinite_columns,
    solve_definite_many,
    through_rails,
)
from jaxexec.solvers.program import Certificate


class BasketProgram(eqx.Module):
    """The programme in the basket's own units. Q is None where no cost couples the assets."""

    volume: Float[Array, "steps assets"]
    scale: Float[Array, " interior"]
    matrix: Float[Array, "*interior assets assets"]
    charge: Float[Array, "interior assets"]
    first: Float[Array, " assets"]
    last: Float[Array, " assets"]
    cost: ExecutionCost
    coupling: Float[Array, "steps assets assets"] | None

    @property
    def idle(self):
        """Nothing to sell and nothing to gain: q = 0, y = 0 is the answer."""
        return jnp.all(self.first == 0) & jnp.all(self.last == 0) & jnp.all(self.charge == 0)

    def flows(self, inventory: Float[Array, "interior assets"]) -> Float[Array, "steps assets"]:
        """n, zero where there is no volume."""
        nodes = jnp.concatenate([self.first[None], inventory, self.last[None]])
        return jnp.where(self.volume > 0, nodes[:-1] - nodes[1:], 0)

    def rates(self, inventory: Float[Array, "interior assets"]) -> Float[Array, "steps assets"]:
        """ρ = n/b, zero where there is no volume."""
        return self.flows(inventory) / jnp.where(self.volume > 0, self.volume, 1)

    def across(self, flows: Float[Array, "steps assets"]) -> Float[Array, "steps assets"]:
        """2Qn: what the trades of all assets add to the marginal cost of each."""
        if self.coupling is None:
            return jnp.zeros_like(flows)
        return 2 * jnp.einsum("kij,kj->ki", self.coupling, flows)

    def rail(self) -> Rail:
        """W with the columns of its factor."""
        matrix = lax.stop_gradient(self.matrix)
        tolerance = jnp.finfo(matrix.dtype).eps * 10 * matrix.shape[-1]

        def columns(m: Array) -> Array:
            return semidefinite_columns(m, float(tolerance))[0]

        return Rail(self.scale, self.matrix, jax.vmap(columns)(matrix) if matrix.ndim == 3 else columns(matrix))

    def rungs(self, slope: Float[Array, "steps assets"]) -> Array:
        """A of n = A y + …, for the own tangents n = b(slope · v + …): (B⁻¹ + 2Q)⁻¹ with B = b · slope."""
        rung = self.volume * slope
        if self.coupling is None:
            return rung
        positive = rung > 0
        root = jnp.where(positive, jnp.sqrt(jnp.where(positive, rung, 1)), 0)

        def one(coupling, root):
            within = jnp.eye(root.shape[0], dtype=root.dtype) + 2 * root[:, None] * coupling * root[None, :]
            return root[:, None] * solve_definite_many(within, jnp.diag(root))

        return jax.vmap(one)(self.coupling, root)

    def own_flows(self, rung: Array, flows: Float[Array, "steps assets"]) -> Float[Array, "steps assets"]:
        """(I + 2BQ)⁻¹ f = f − A 2Q f: trades that follow from f when each moves the others' prices."""
        if self.coupling is None:
            return flows
        return flows - jnp.einsum("kij,kj->ki", rung, self.across(flows))


class Curves(eqx.Module):
    """The own costs of all assets in the programme's units."""

    cost: ExecutionCost
    rate: Float[Array, ""]
    price: Float[Array, " assets"]

    def curve_point(self, rate: Array, marginal: Array, keep_rate: Array) -> CurvePoint:
        price = self.price[None, :]

        def one(cost, rate, marginal, keep):
            return cost.curve_point(rate, marginal, keep)

        point = jax.vmap(one, in_axes=(0, 1, 1, 1), out_axes=1)(
            self.cost, rate * self.rate, marginal * price, keep_rate
        )
        return CurvePoint(
            point.rate / self.rate,
            point.marginal / price,
            point.slope * (price / self.rate),
            point.intercept / self.rate,
        )


class BasketUnits(eqx.Module):
    """All assets at one participation; shares · price is the same energy for all."""

    shares: Float[Array, " assets"]
    volume: Float[Array, " assets"]
    price: Float[Array, " assets"]


def build(basket: Basket) -> BasketProgram:
    """The programme of a basket. Differentiable."""
    covariance, drift, length = basket.daily_covariance, basket.step_drift, basket.step_length
    continuous = basket.convention == "continuous"
    interior = (drift.shape[0] - 1,)
    if covariance.ndim == 3:
        over = covariance * length[:, None, None]
        matrix = (over[:-1] + over[1:]) / 2 if continuous else over[:-1]
        scale = jnp.broadcast_to(basket.risk_aversion, interior)
    else:
        matrix = covariance
        scale = basket.risk_aversion * ((length[:-1] + length[1:]) / 2 if continuous else length[:-1])
    cost, coupling, _ = coupled_cost(basket)
    charge = (drift[:-1] + drift[1:]) / 2 if continuous else drift[:-1]
    return BasketProgram(basket.step_volume, scale, matrix, charge, basket.shares, basket.target, cost, coupling)


def constant_part(basket: Basket) -> Float[Array, ""]:
    """What U owes to the two ends of the path, which no schedule changes."""
    covariance, drift, length = basket.daily_covariance, basket.step_drift, basket.step_length
    first, last = basket.shares, basket.target
    before, after = (covariance[0], covariance[-1]) if covariance.ndim == 3 else (covariance, covariance)
    gamma, permanent = basket.risk_aversion, permanent_matrix(basket)
    change = (first @ permanent @ first - last @ permanent @ last) / 2
    if basket.convention == "continuous":
        held = (length[0] * (first @ before @ first) + length[-1] * (last @ after @ last)) / 2
        gain = (drift[0] @ first + drift[-1] @ last) / 2
    else:
        held, gain = length[-1] * (last @ after @ last), drift[-1] @ last
    return gamma / 2 * held - gain + change


def scale(program: BasketProgram) -> tuple[BasketProgram, Curves, BasketUnits]:
    """The programme in units of its own size. They carry no derivative."""
    program = jax.tree.map(lax.stop_gradient, program)
    volume = jnp.sum(program.volume, 0)
    volume = jnp.where(volume > 0, volume, 1)
    held = jnp.max(jnp.maximum(jnp.abs(program.first), jnp.abs(program.last)) / volume)
    push = jnp.broadcast_to(jnp.sum(jnp.abs(program.charge), 0)[None], program.volume.shape)
    reach = jnp.max(jnp.abs(over_assets(lambda c, y: c.optimal_rate(y), program.cost, push)))
    rate = jnp.where(held > 0, held, reach)
    rate = jnp.where(rate > 0, rate, 1)
    at = jnp.broadcast_to(rate, program.volume.shape)
    marginal = over_assets(lambda c, r: jnp.abs(c.marginal(r)), program.cost, at)
    energy = jnp.mean(rate * jnp.sum(program.volume * marginal, 0))
    energy = jnp.where((energy > 0) & jnp.isfinite(energy), energy, 1)
    shares = rate * volume
    price = energy / shares
    square = shares[:, None] * shares[None, :] / energy
    scaled = BasketProgram(
        program.volume / volume[None],
        program.scale,
        program.matrix * (square if program.matrix.ndim == 2 else square[None]),
        program.charge / price[None],
        program.first / shares,
        program.last / shares,
        program.cost,
        None if program.coupling is None else program.coupling * square[None],
    )
    return scaled, Curves(program.cost, rate, price), BasketUnits(shares, volume, price)


def certify(program: BasketProgram, inventory: Array, marginal: Array, size: Array) -> Certificate:
    """Bound the suboptimality of a pair that satisfies the rails; `size` is what the gap is divided by."""
    flows, rates = program.flows(inventory), program.rates(inventory)
    own = marginal - program.across(flows)
    volume, cost = program.volume, program.cost
    slack = over_assets(lambda c, r, v: c.value(r) + c.hamiltonian(v) - r * v, cost, rates, own)
    gap = jnp.sum(jnp.where(volume > 0, volume * jnp.maximum(slack, 0), 0))
    # In units of each asset's own volume, so that assets of different size count alike.
    weight = volume / jnp.maximum(jnp.sum(volume, 0), jnp.finfo(volume.dtype).tiny)[None]
    miss = jnp.sum(weight * jnp.abs(rates - over_assets(lambda c, v: c.optimal_rate(v), cost, own)))
    moved = jnp.sum(weight * jnp.abs(rates))
    return Certificate(
        gap,
        jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), 0),
        jnp.where(miss > 0, miss / jnp.where(moved > 0, moved, 1), 0),
    )


@jax.custom_jvp
def attach(program: BasketProgram, inventory: Array, marginal: Array) -> tuple[Array, Array]:
    """The solution (q, y), unchanged, with its derivative with respect to the programme attached.

    The differential of the conditions is a block ladder: dn = A dy + (I − 2AQ) ∂F, with F = b H'(y − 2Qn) at fixed
    (y, n), and y_{n−1} − y_n = W dq − (dg − dW q).
    """
    return inventory, marginal


@attach.defjvp
def _attach_jvp(primals, tangents):
    program, inventory, marginal = primals
    moved = tangents[0]
    q, y = attach(program, inventory, marginal)
    flows = program.flows(q)

    def trades(p: BasketProgram) -> Array:
        return p.volume * over_assets(lambda c, v: c.optimal_rate(v), p.cost, y - p.across(flows))

    def withheld(p: BasketProgram) -> Array:
        return through_rails(Rail(p.scale, p.matrix, p.matrix), q) - p.charge

    _, change = jax.jvp(trades, (program,), (moved,))
    _, rise = jax.jvp(withheld, (program,), (moved,))
    slope = over_assets(lambda c, v: c.rate_slope(v), program.cost, y - program.across(flows))
    rung = program.rungs(slope)
    change = program.own_flows(rung, change)
    change = change.at[0].add(-moved.first).at[-1].add(moved.last)
    return (q, y), block_response(rung, program.rail(), change, -rise)


@jax.custom_jvp
def envelope(
    value: Float[Array, ""], program: BasketProgram, constant: Float[Array, ""], inventory: Array, marginal: Array
) -> Float[Array, ""]:
    """The optimal objective `value`, with the derivative of the Lagrangian at fixed (q, n, y), without a solve.

    Of the trades, min over n of bL(n/b) + nᵀQn − yn = −b H(y − 2Qn) − nᵀQn there: caps need no case of their own.
    """
    return value


@envelope.defjvp
def _envelope_jvp(primals, tangents):
    value, program, constant, inventory, marginal = primals
    flows = program.flows(inventory)

    def lagrangian(p: BasketProgram) -> Array:
        nodes = jnp.concatenate([p.first[None], inventory, p.last[None]])
        best = over_assets(lambda c, v: c.hamiltonian(v), p.cost, marginal - p.across(flows))
        traded = -jnp.sum(p.volume * best) - jnp.sum(flows * p.across(flows)) / 2
        held = through_rails(Rail(p.scale, p.matrix, p.matrix), inventory) / 2 - p.charge
        return traded + jnp.sum(inventory * held) + jnp.sum(marginal * (nodes[:-1] - nodes[1:]))

    _, change = jax.jvp(lagrangian, (program,), (tangents[1],))
    return envelope(value, program, constant, inventory, marginal), change + tangents[2]
