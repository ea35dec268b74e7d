"""Almgren and Chriss's discrete model for several assets with symmetric impact matrices, in closed form.

With H̃ = H − ½τΓ and V such that VᵀH̃V = 1 and VᵀλCV = diag(κ̃²), the modes V⁻¹x are single orders:

    x_k = V diag(sinh κ_i(T − t_k)/sinh κ_i T) V⁻¹ X,        2(cosh κ_i τ − 1)/τ² = κ̃_i²

V comes from a dense eigendecomposition, whose own derivative does not exist where eigenvalues meet. The schedule's
does: it is that of the linear system H̃(x_{k−1} − 2x_k + x_{k+1})/τ² = λC x_k, solved with the same modes and with sines
in time.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.arrays import as_float, check, is_concrete, unify
from jaxexec.numerics.status import Status, poison, taint
from jaxexec.schedules.parameters import check_steps

_SYMMETRIC = 1e-10  # in float64; rounding in less is allowed more


class SymmetricBasket(eqx.Module):
    """The optimal schedules of a basket in closed form.

    Attributes:
        times: (nodes,) trading days.
        inventory: (nodes, assets) x_k, shares.
        trades: (steps, assets) n_k, shares.
        expected_cost: E, currency.
        variance: Var, currency².
        objective: E + λ Var, currency.
        kappas: (assets,) κ_i, per day, ascending; of the modes, not of the assets. Where some agree, only their sum
            has a derivative.
        status: OK; OK_INACCURATE where an asset with a spread is both sold and bought, which the spread would have
            made less worth while; NONFINITE_INPUT where a traced parameter is not finite or has the wrong sign;
            NONCONVEX where H̃ is not positive definite, or C not positive semidefinite, or one not symmetric.
    """

    times: Float[Array, " nodes"]
    inventory: Float[Array, "nodes assets"]
    trades: Float[Array, "steps assets"]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    objective: Float[Array, ""]
    kappas: Float[Array, " assets"]
    status: Int[Array, ""]


def symmetric_basket(
    shares: ArrayLike,
    horizon: ArrayLike,
    steps: int,
    *,
    covariance: ArrayLike,
    temporary_impact: ArrayLike,
    variance_weight: ArrayLike,
    permanent_impact: ArrayLike | None = None,
    half_spread: ArrayLike = 0.0,
    target: ArrayLike = 0.0,
) -> SymmetricBasket:
    """Optimal schedules of Almgren and Chriss's discrete model for several assets. Traced; smooth where κ_i meet.

        E = Σ εᵀ|n| + ½(XᵀΓX − x_NᵀΓx_N) + Σ nᵀ(H̃/τ)n,        Var = τ Σ x_kᵀCx_k

    `Basket` with `convention="almgren-chriss"` solves the same problem, with any costs and curves; there H is split
    into the own costs on its diagonal (Guéant's η is H_ii V_i) and `cross_impact` off it. Neither takes matrices with
    an antisymmetric part: with a permanent one round trips would earn money. A spread moves no trade here, which is
    exact while no asset is both sold and bought.

    Args:
        shares: X, (assets,); negative to buy.
        horizon: T > 0, trading days.
        steps: N.
        covariance: C, (assets, assets), currency² per share² per day; symmetric, positive semidefinite.
        temporary_impact: H, (assets, assets), currency per share per (share per day); symmetric.
        variance_weight: λ ≥ 0, per currency: half of `risk_aversion`.
        permanent_impact: Γ, (assets, assets), currency per share per share; symmetric. None for none.
        half_spread: ε ≥ 0, currency per share; scalar or (assets,).
        target: x_N, scalar or (assets,).

    Raises:
        ValueError: a wrong shape, `steps` not a positive integer, or a concrete parameter that is not finite, breaks
            its sign, is not symmetric, or leaves H̃ not positive definite or C not positive semidefinite.

    Source: Almgren and Chriss, Optimal execution of portfolio transactions, J. Risk 3 (2000), appendix A.
    """
    check_steps(steps)
    p = _parameters(
        {
            "shares": shares,
            "horizon": horizon,
            "covariance": covariance,
            "temporary_impact": temporary_impact,
            "variance_weight": variance_weight,
            "half_spread": half_spread,
            "target": target,
        }
        | ({} if permanent_impact is None else {"permanent_impact": permanent_impact})
    )
    _check_definite(p, steps)
    return _answer(p, steps)


@functools.partial(jax.jit, static_argnums=1)
def _answer(p: dict[str, Array], steps: int) -> SymmetricBasket:
    given = (_permanent(p), p["temporary_impact"], p["covariance"])
    convex = _is_definite(_net_impact(p, steps), _even(p["covariance"])) & _are_symmetric(given)
    finite = _are_sound(p)
    failed = ~(finite & convex)
    everywhere = taint(p, failed)

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    fields = _closed_form(_harmless_where(failed, p), steps)
    status = jnp.where(_are_turned(fields["trades"], p["half_spread"]), Status.OK_INACCURATE, Status.OK)
    status = jnp.where(finite, jnp.where(convex, status, Status.NONCONVEX), Status.NONFINITE_INPUT)
    return SymmetricBasket(**jax.tree.map(spoilt, fields), status=status.astype(jnp.int32))


def _are_turned(trades: Float[Array, "steps assets"], half_spread: Array) -> Bool[Array, ""]:
    """Whether the trades of an asset that has a spread change sign by more than rounding."""
    traded = jnp.sum(jnp.abs(trades), 0)
    back = traded - jnp.abs(jnp.sum(trades, 0))
    return jnp.any((back > jnp.finfo(trades.dtype).eps ** 0.5 * jnp.max(traded)) & (half_spread > 0))


def _harmless_where(failed: Array, p: dict[str, Array]) -> dict[str, Array]:
    matrices = ("covariance", "temporary_impact")
    safe = {n: jnp.eye(x.shape[0], dtype=x.dtype) if n in matrices else jnp.zeros_like(x) for n, x in p.items()}
    safe["horizon"] = jnp.ones_like(safe["horizon"])
    return {name: jnp.where(failed, safe[name], x) for name, x in p.items()}


def _closed_form(p: dict[str, Array], steps: int) -> dict[str, Array]:
    """All fields but the status."""
    first, last = p["shares"], p["target"] * jnp.ones_like(p["shares"])
    impact, permanent, risk, tau = _net_impact(p, steps), _permanent(p), _even(p["covariance"]), p["horizon"] / steps
    inventory, kappas = _paths(impact, p["variance_weight"] * risk, first, last, tau, steps)
    trades = inventory[:-1] - inventory[1:]
    spread = jnp.sum(p["half_spread"] * jnp.sum(jnp.abs(trades), 0))
    lasting = (first @ permanent @ first - last @ permanent @ last) / 2
    expected = spread + lasting + jnp.sum(trades * (trades @ impact)) / tau
    variance = tau * jnp.sum(inventory[1:] * (inventory[1:] @ risk))
    return {
        "times": tau * jnp.arange(steps + 1, dtype=tau.dtype),
        "inventory": inventory,
        "trades": trades,
        "expected_cost": expected,
        "variance": variance,
        "objective": expected + p["variance_weight"] * variance,
        "kappas": kappas,
    }


def _net_impact(p: dict[str, Any], steps: int) -> Any:
    """H̃ = H − ½τΓ, exactly symmetric."""
    return _even(p["temporary_impact"] - _permanent(p) * (p["horizon"] / steps / 2))


def _permanent(p: dict[str, Any]) -> Any:
    return p["permanent_impact"] if "permanent_impact" in p else 0 * p["temporary_impact"]


def _paths(
    impact: Array, urgency: Array, first: Array, last: Array, tau: Array, steps: int
) -> tuple[Float[Array, "nodes assets"], Float[Array, " assets"]]:
    """Inventories, and κ_i, from H̃ and λC."""
    modes = _modes(*lax.stop_gradient((impact, urgency)))
    # κ̃_i² = vᵀλCv/vᵀH̃v: at fixed v it has the right derivative.
    own = jnp.sum(modes * (urgency @ modes), 0) / jnp.sum(modes * (impact @ modes), 0)
    moving = own > 0
    kappas = jnp.where(moving, 2 * jnp.arcsinh(tau * jnp.sqrt(jnp.where(moving, own, 1)) / 2), 0) / tau
    fixed = lax.stop_gradient((kappas * tau, modes, impact, first, last))
    closed = _sinh_ratios(*fixed, steps)
    inner = closed[1:-1]
    if steps > 1:
        # The closed form for the value, the linear system for the derivative.
        linear = _linear(impact, urgency, first, last, tau, modes, steps)
        inner = inner + (linear - lax.stop_gradient(linear))
    return jnp.concatenate([first[None], inner, last[None]]), kappas


def _modes(impact: Array, urgency: Array) -> Float[Array, "assets assets"]:
    """V, with VᵀH̃V = 1 and VᵀλCV diagonal: Q of H̃^{-½}λCH̃^{-½}, by a Cholesky factor in place of the root."""
    factor = jnp.linalg.cholesky(impact)
    half = jax.scipy.linalg.solve_triangular(factor, urgency, lower=True)
    within = jax.scipy.linalg.solve_triangular(factor, half.T, lower=True)
    vectors = jnp.linalg.eigh((within + within.T) / 2)[1]
    return jax.scipy.linalg.solve_triangular(factor, vectors, lower=True, trans="T")


def _sinh_ratios(kappas: Array, modes: Array, impact: Array, first: Array, last: Array, steps: int) -> Array:
    """V (down_k V⁻¹X + up_k V⁻¹x_N), with κτ given and down, up the ratios of sinh that run from 1 to 0 and back."""
    along = jnp.arange(steps + 1, dtype=kappas.dtype)[:, None]
    slow = kappas * steps < 1e-4
    k = jnp.where(slow, 1, kappas)[None]
    down = jnp.exp(-k * along) * jnp.expm1(-2 * k * (steps - along)) / jnp.expm1(-2 * k * steps)
    # sinh κ(T − t)/sinh κT = (1 − s)(1 − κ²T² s(2 − s)/6 + …) with s = t/T
    share, square = along / steps, ((kappas * steps) ** 2)[None]
    straight = (1 - share) * (1 - square * share * (2 - share) / 6)
    down = jnp.where(slow[None], straight, down)
    into = modes.T @ impact
    return (down * (into @ first)[None] + down[::-1] * (into @ last)[None]) @ modes.T


def _linear(
    impact: Array, urgency: Array, first: Array, last: Array, tau: Array, modes: Array, steps: int
) -> Float[Array, "interior assets"]:
    """The interior nodes as the solution of H̃(2x_k − x_{k−1} − x_{k+1}) + τ²λC x_k = 0 with both ends given."""
    inner = steps - 1
    along = jnp.arange(1, steps, dtype=tau.dtype)
    sines = jnp.sin(jnp.pi / steps * along[:, None] * along[None]) * (2 / steps) ** 0.5
    stretch = 4 * jnp.sin(jnp.pi / (2 * steps) * along) ** 2
    fixed = lax.stop_gradient((modes, tau**2 * jnp.sum(modes * (urgency @ modes), 0)))
    edge = jnp.zeros((1, first.shape[0]), first.dtype)

    def apply(x: Array) -> Array:
        padded = jnp.concatenate([edge, x, edge])
        return (2 * x - padded[:-2] - padded[2:]) @ impact + tau**2 * (x @ urgency)

    def solve(_, right: Array) -> Array:
        own, curvature = fixed
        waves = sines @ (right @ own) / (stretch[:, None] + curvature[None])
        return (sines @ waves) @ own.T

    ends = jnp.where((along == 1)[:, None], (impact @ first)[None], 0)
    ends = ends + jnp.where((along == inner)[:, None], (impact @ last)[None], 0)
    return lax.custom_linear_solve(apply, ends, solve, symmetric=True)


def _parameters(values: dict[str, ArrayLike]) -> dict[str, Array]:
    arrays = {name: as_float(name, value) for name, value in values.items()}
    if arrays["shares"].ndim != 1 or not arrays["shares"].shape[0]:
        raise ValueError(f"shares must have shape (assets,), got shape {arrays['shares'].shape}")
    assets = arrays["shares"].shape[0]
    for name, array in arrays.items():
        _check_shape(name, array, assets)
        check(name, array, np.isfinite, "finite")
    check("horizon", arrays["horizon"], lambda v: v > 0, "positive")
    for name in ("variance_weight", "half_spread"):
        check(name, arrays[name], lambda v: v >= 0, "at least 0")
    return unify(arrays, final=True)


def _check_shape(name: str, array: Array, assets: int) -> None:
    if name in ("covariance", "temporary_impact", "permanent_impact"):
        if array.shape != (assets, assets):
            raise ValueError(f"{name} must have shape ({assets}, {assets}), got {array.shape}")
        slack = _asymmetry(array)
        check(name, array, lambda v: np.abs(v - v.T) <= slack * np.max(np.abs(v)), "symmetric")
    elif name in ("half_spread", "target"):
        if array.shape not in ((), (assets,)):
            raise ValueError(f"{name} must be a scalar or have shape ({assets},), got {array.shape}")
    elif name != "shares" and array.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {array.shape}; use jax.vmap for a batch")


def _are_symmetric(matrices: tuple[Array, ...]) -> Bool[Array, ""]:
    sound = jnp.asarray(True)
    for matrix in matrices:
        sound = sound & (jnp.max(jnp.abs(matrix - matrix.T)) <= _asymmetry(matrix) * jnp.max(jnp.abs(matrix)))
    return sound


def _asymmetry(matrix: Array) -> float:
    return max(_SYMMETRIC, 10 * float(jnp.finfo(matrix.dtype).eps))


def _is_definite(impact: Array, risk: Array) -> Bool[Array, ""]:
    """H̃ positive definite, C positive semidefinite up to rounding. NaN is neither."""
    impact, risk = lax.stop_gradient((impact, risk))
    least, spread = jnp.linalg.eigvalsh(impact), jnp.linalg.eigvalsh(risk)
    slack = _slack(risk)
    return (least[0] > slack * least[-1]) & (spread[0] >= -slack * jnp.max(jnp.abs(spread)))


def _check_definite(p: dict[str, Array], steps: int) -> None:
    """On the host, where the matrices are known."""
    if is_concrete(p["covariance"]):
        spread = np.linalg.eigvalsh(np.asarray(p["covariance"]))
        if spread[0] < -_slack(p["covariance"]) * np.max(np.abs(spread)):
            raise ValueError("covariance must be positive semidefinite")
    parts = [p[name] for name in ("temporary_impact", "permanent_impact", "horizon") if name in p]
    if all(map(is_concrete, parts)):
        least = np.linalg.eigvalsh(_net_impact({k: np.asarray(v) for k, v in p.items() if is_concrete(v)}, steps))
        if not least[0] > _slack(p["temporary_impact"]) * least[-1]:
            raise ValueError("temporary_impact − ½ permanent_impact · τ must be positive definite")


def _slack(matrix: Array) -> float:
    return max(_SYMMETRIC, 10 * float(jnp.finfo(matrix.dtype).eps) * matrix.shape[0])


def _are_sound(p: dict[str, Array]) -> Bool[Array, ""]:
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in p.values()]))
    return finite & (p["horizon"] > 0) & (p["variance_weight"] >= 0) & jnp.all(p["half_spread"] >= 0)


def _even(matrix: Any) -> Any:
    return (matrix + matrix.T) / 2
