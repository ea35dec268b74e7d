"""A basket of orders worked together (`Basket`), its objective, and the answer (`BasketSchedule`).

With the notation of `liquidation`, but x_k, n_k and ρ_k vectors over the assets and Σ_k their covariance a day,

    U = Σ_k Σ_i τ_k V_ki L_i(ρ_ki)  +  Σ_k n_kᵀ C n_k / τ_k  +  permanent impact  −  drift  +  (γ/2) Σ τ_k R_k

    convention             R_k                                         permanent impact, with Γ symmetric
    "continuous"           (x_{k−1}ᵀ Σ_k x_{k−1} + x_kᵀ Σ_k x_k)/2     ½(x_0ᵀ Γ x_0 − x_Nᵀ Γ x_N)
    "almgren-chriss"       x_kᵀ Σ_k x_k                                ½(x_0ᵀ Γ x_0 − x_Nᵀ Γ x_N − Σ n_kᵀ Γ n_k)

(Almgren and Chriss 2000, appendix A; Guéant 2016, ch. 6). Assets meet in Σ, and in C and Γ where they are given.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.costs import ExecutionCost
from jaxexec.liquidation import CONVENTIONS, Convention
from jaxexec.market import Market
from jaxexec.numerics.arrays import as_float, check, is_concrete, unify
from jaxexec.numerics.block_tridiagonal import semidefinite_columns
from jaxexec.numerics.status import Status

_SYMMETRIC = 1e-10  # Largest asymmetry, and most negative eigenvalue, that is rounding; relative to the largest entry.
_LENDING = (0.0, 0.5, 0.9, 0.99, 0.999)


class FactorCovariance(eqx.Module):
    """Σ = B Bᵀ + diag(s): a few factors and what is each asset's own. Positive semidefinite by construction.

    Args:
        loadings: B, currency per share per √day, (assets, factors).
        specific: s, currency² per share² per day, (assets,), ≥ 0.
    """

    loadings: Float[Array, "assets factors"]
    specific: Float[Array, " assets"]

    def __init__(self, loadings: ArrayLike, specific: ArrayLike):
        arrays = {"loadings": as_float("loadings", loadings), "specific": as_float("specific", specific)}
        if arrays["loadings"].ndim != 2 or arrays["specific"].shape != arrays["loadings"].shape[:1]:
            shapes = ", ".join(str(a.shape) for a in arrays.values())
            raise ValueError(f"loadings and specific must have shapes (assets, factors) and (assets,), got {shapes}")
        check("loadings", arrays["loadings"], np.isfinite, "finite")
        check("specific", arrays["specific"], lambda v: np.isfinite(v) & (v >= 0), "finite and at least 0")
        normal = unify(arrays)
        self.loadings = normal["loadings"]
        self.specific = normal["specific"]

    def dense(self) -> Float[Array, "assets assets"]:
        """Σ."""
        return self.loadings @ self.loadings.T + jnp.diag(self.specific)


class Basket(eqx.Module):
    """Parent orders in several assets, worked together over one grid at least cost and risk.

    Args:
        shares: x_0, (assets,); negative where the order is to buy, zero for an asset that may only hedge.
        market: one `Market` for all assets, one for each (a sequence, or a batch made by `jax.vmap`, on one grid).
            Volume, drift and permanent impact are used; volatility and gap variance are not: `covariance` says it all.
        cost: one execution cost for all assets, or one for each (likewise, all of one class).
        covariance: Σ, currency² per share² per day, (assets, assets) or (steps, assets, assets); or a
            `FactorCovariance`. Symmetric, positive semidefinite; it may be singular.
        cross_impact: C, (assets, assets), currency · day per share²: temporary impact across assets, which adds
            nᵀCn/τ to the assets' own costs. Symmetric. Positive semidefinite, or, where the assets' own costs are
            quadratic, positive definite together with them (so its diagonal may be zero).
        risk_aversion: γ in E + (γ/2) Var, per currency, ≥ 0.
        target: x_N, scalar or (assets,).
        convention: "continuous" or "almgren-chriss".
        permanent_impact: (assets, assets), currency per share, per share traded; symmetric (else round trips would
            earn money). Added to the market's own, which is the diagonal of Γ.

    Raises:
        ValueError: a wrong type or shape, or a concrete value that breaks the above; a covariance that is not
            symmetric or not positive semidefinite is refused with its least eigenvalue. The same faults in traced
            values end in a `Status`.
    """

    shares: Float[Array, " assets"]
    market: Market
    cost: ExecutionCost
    covariance: Float[Array, "*steps assets assets"] | FactorCovariance
    cross_impact: Float[Array, "assets assets"] | None
    risk_aversion: Float[Array, ""]
    target: Float[Array, " assets"]
    convention: Convention = eqx.field(static=True)
    permanent_impact: Float[Array, "assets assets"] | None

    def __init__(
        self,
        shares: ArrayLike,
        market: Market | Sequence[Market],
        cost: ExecutionCost | Sequence[ExecutionCost],
        covariance: ArrayLike | FactorCovariance,
        cross_impact: ArrayLike | None = None,
        risk_aversion: ArrayLike = 0.0,
        target: ArrayLike = 0.0,
        convention: Convention = "continuous",
        permanent_impact: ArrayLike | None = None,
    ):
        if convention not in CONVENTIONS:
            raise ValueError(f"convention must be one of {CONVENTIONS}, got {convention!r}")
        shares = as_float("shares", shares)
        if shares.ndim != 1 or not shares.shape[0]:
            raise ValueError(f"shares must have shape (assets,), got shape {shares.shape}")
        assets = shares.shape[0]
        market = _market_of_each(market, assets)
        parts: dict[str, Any] = {
            "market": market,
            "cost": _cost_of_each(cost, assets),
            "covariance": _as_covariance(covariance, assets, market.grid.steps),
            "shares": shares,
            "risk_aversion": as_float("risk_aversion", risk_aversion),
            "target": as_float("target", target),
        }
        for name, value in {"cross_impact": cross_impact, "permanent_impact": permanent_impact}.items():
            parts[name] = None if value is None else _as_symmetric(name, value, assets)
        if parts["risk_aversion"].ndim:
            raise ValueError(f"risk_aversion must be a scalar, got shape {parts['risk_aversion'].shape}")
        if parts["target"].shape not in ((), (assets,)):
            raise ValueError(f"target must be a scalar or have shape ({assets},), got {parts['target'].shape}")
        for name in ("shares", "risk_aversion", "target"):
            check(name, parts[name], np.isfinite, "finite")
        check("risk_aversion", parts["risk_aversion"], lambda v: v >= 0, "at least 0")
        normal = unify(parts, final=True)
        self.shares = normal["shares"]
        self.market = normal["market"]
        self.cost = normal["cost"]
        self.covariance = normal["covariance"]
        self.cross_impact = normal["cross_impact"]
        self.risk_aversion = normal["risk_aversion"]
        self.target = jnp.broadcast_to(normal["target"], (assets,))
        self.convention = convention
        self.permanent_impact = normal["permanent_impact"]
        _check_convexity(self)

    @classmethod
    def from_correlation(
        cls,
        shares: ArrayLike,
        market: Market | Sequence[Market],
        cost: ExecutionCost | Sequence[ExecutionCost],
        correlation: ArrayLike,
        **options: Any,
    ) -> "Basket":
        """A basket whose covariance is made of the market's volatilities and gap variances and of a correlation.

        Args:
            correlation: (assets, assets).
            options: the other arguments of `Basket`.
        """
        correlation = _as_symmetric("correlation", correlation, jnp.shape(jnp.asarray(shares))[0])
        market = _market_of_each(market, correlation.shape[0])
        root = jnp.sqrt(_of_each(market, "step_variance") / market.grid.durations[:, None])
        covariance = root[:, :, None] * correlation.astype(root.dtype)[None] * root[:, None, :]
        return cls(shares, market, cost, covariance, **options)

    @property
    def grid(self):
        """The market's time grid."""
        return self.market.grid

    @property
    def step_volume(self) -> Float[Array, "steps assets"]:
        """b = τV: shares that the others trade in each step."""
        return _of_each(self.market, "step_volume")

    @property
    def step_drift(self) -> Float[Array, "steps assets"]:
        """ατ: expected price change over each step, currency per share."""
        return _of_each(self.market, "step_drift")

    @property
    def step_length(self) -> Float[Array, " steps"]:
        """τ, what is left of each step in trading days."""
        return eqx.tree_at(lambda m: m.drift, self.market, jnp.ones_like(self.risk_aversion)).step_drift

    @property
    def daily_covariance(self) -> Float[Array, "*steps assets assets"]:
        """Σ, dense and exactly symmetric."""
        if isinstance(self.covariance, FactorCovariance):
            return self.covariance.dense()
        return (self.covariance + jnp.swapaxes(self.covariance, -1, -2)) / 2


class BasketSchedule(eqx.Module):
    """The answer for a basket; units and meaning as in `Schedule`, with an axis of assets.

    Attributes:
        times: (nodes,).
        inventory: (nodes, assets) x_k.
        trades: (steps, assets) n_k; a purchase is negative.
        costate: (steps, assets) minus the marginal cost of selling one share more, cross-impact included.
        expected_cost: E, in currency.
        variance: Var, currency².
        objective: U = E + (γ/2) Var, currency.
        duality_gap: upper bound of what this schedule costs above the optimum, currency.
        relative_gap: the gap over execution cost + (γ/2) variance.
        residual: relative violation of the optimality conditions n = b H'(y − 2Qn), in shares.
        status: a `Status`, int32.
        flags: bits of `Flag`, int32.
        iterations: Newton steps taken, int32.
    """

    times: Float[Array, " nodes"]
    inventory: Float[Array, "nodes assets"]
    trades: Float[Array, "steps assets"]
    costate: Float[Array, "steps assets"]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    objective: Float[Array, ""]
    duality_gap: Float[Array, ""]
    relative_gap: Float[Array, ""]
    residual: Float[Array, ""]
    status: Int[Array, ""]
    flags: Int[Array, ""]
    iterations: Int[Array, ""]

    def table(self):
        """The trades as a `presentation.Table`: one row a step, one column an asset. Concrete and unbatched only."""
        from jaxexec.presentation import Table

        if not is_concrete(self.trades) or self.trades.ndim != 2:
            raise ValueError(
                "table needs one concrete schedule; pick one of a batch with jax.tree.map(lambda x: x[i], schedule)"
            )
        host = jax.tree.map(np.asarray, self)
        rows = np.column_stack([host.times[:-1], host.times[1:], host.trades]).tolist()
        names = [f"asset {i} (shares)" for i in range(host.trades.shape[1])]
        footer = (
            f"{Status(int(host.status)).name}; expected cost {float(host.expected_cost):,.6g}, standard deviation "
            f"{float(np.sqrt(host.variance)):,.6g}, objective {float(host.objective):,.6g}, relative duality gap "
            f"{float(host.relative_gap):.1e}"
        )
        return Table("Trades of the basket", ("from (days)", "to (days)", *names), rows, footer)

    def summary(self) -> str:
        """The trades as text, with status and certificate."""
        return self.table().text()


def basket_execution_cost(basket: Basket, trades: Float[Array, "steps assets"]) -> Float[Array, ""]:
    """Spreads and temporary impact, that across assets included, in currency."""
    volume = basket.step_volume
    open_ = volume > 0
    rate = jnp.where(open_, trades / jnp.where(open_, volume, 1), 0)
    own = over_assets(lambda cost, rate: cost.value(rate), basket.cost, rate)
    impossible = jnp.where(~open_ & (trades != 0), jnp.inf, 0).astype(trades.dtype)
    cost = jnp.sum(jnp.where(open_, volume * own, 0) + impossible)
    if basket.cross_impact is None:
        return cost
    length = basket.step_length
    # A step that is over has no length, and nothing is traded in it.
    paid = jnp.sum(trades * (trades @ basket.cross_impact), 1)
    return cost + jnp.sum(jnp.where(length > 0, paid / jnp.where(length > 0, length, 1), 0))


def basket_cost(
    basket: Basket, inventory: Float[Array, "nodes assets"], trades: Float[Array, "steps assets"]
) -> Float[Array, ""]:
    """E of any path, the expected implementation shortfall, in currency."""
    squares = _quadratic(permanent_matrix(basket), jnp.stack([inventory[0], inventory[-1]]))
    permanent = squares[0] - squares[1]
    if basket.convention == "almgren-chriss":
        permanent = permanent - jnp.sum(_quadratic(permanent_matrix(basket), trades))
    held = (inventory[:-1] + inventory[1:]) / 2 if basket.convention == "continuous" else inventory[1:]
    return basket_execution_cost(basket, trades) + permanent / 2 - jnp.sum(basket.step_drift * held)


def basket_variance(basket: Basket, inventory: Float[Array, "nodes assets"]) -> Float[Array, ""]:
    """Var of any path of inventories, currency²."""
    covariance = basket.daily_covariance
    held = _quadratic(covariance, inventory[1:])
    if basket.convention == "continuous":
        held = (held + _quadratic(covariance, inventory[:-1])) / 2
    return jnp.sum(basket.step_length * held)


def permanent_matrix(basket: Basket) -> Float[Array, "assets assets"]:
    """Γ."""
    own = jnp.diag(basket.market.permanent_impact)
    return own if basket.permanent_impact is None else own + basket.permanent_impact


def coupled_cost(
    basket: Basket,
) -> tuple[ExecutionCost, Float[Array, "steps assets assets"] | None, Bool[Array, ""]]:
    """The separable cost L of a step, the quadratic part nᵀQn that is not (or None), and whether both are convex.

    Q is what C/τ, less ½Γ under the discrete convention, has off its diagonal or given as C. Where Q alone is not
    positive semidefinite, the own costs lend it a part of their curvature, D = θ L''/2b: the sum is unchanged.
    """
    cost, volume, possible = basket.cost, basket.step_volume, jnp.asarray(True)
    discrete = basket.convention == "almgren-chriss"
    permanent = permanent_matrix(basket)
    if discrete:
        cost, possible = _less(cost, jnp.diagonal(permanent)[None, :] * volume)
    coupling = None
    if basket.cross_impact is not None:
        length = basket.step_length
        going = length > 0
        coupling = basket.cross_impact[None] * jnp.where(going, 1 / jnp.where(going, length, 1), 0)[:, None, None]
    if discrete and basket.permanent_impact is not None:
        across = (permanent - jnp.diag(jnp.diagonal(permanent)))[None] / 2
        coupling = (jnp.zeros_like(volume[:, :1, None]) if coupling is None else coupling) - across
    if coupling is not None:
        open_ = (volume > 0).astype(volume.dtype)
        coupling = (coupling + jnp.swapaxes(coupling, 1, 2)) / 2 * open_[:, :, None] * open_[:, None, :]
        cost, coupling, lent = _lend(cost, coupling, volume)
        possible = possible & lent
    reach = 4 * jnp.sum(jnp.abs(basket.shares - basket.target)) * jnp.ones_like(volume)
    total = jnp.sum(volume, 0)
    reach = reach / jnp.where(total > 0, total, 1)[None]
    convex = over_assets(lambda cost, rate: cost.is_convex(rate), cost, reach) | (volume == 0)
    first = over_assets(lambda cost, rate: cost.is_convex(rate), basket.cost, reach)
    return cost, coupling, possible & jnp.all(convex) & jnp.all(first)


def over_assets(function, cost: ExecutionCost, *arrays: Array) -> Array:
    """function(cost, *arrays) for each asset, its cost and its (steps,) columns."""

    def one(cost, *columns):
        return jnp.broadcast_to(function(cost, *columns), arrays[0].shape[:1])

    return jax.vmap(one, in_axes=(0, *(1 for _ in arrays)), out_axes=1)(cost, *arrays)


def _lend(cost: ExecutionCost, coupling: Array, volume: Array) -> tuple[ExecutionCost, Array, Bool[Array, ""]]:
    """Both parts convex, the smallest share of `_LENDING` lent; and whether one of them is enough."""
    one = jnp.ones_like(volume)
    slope = over_assets(lambda c, r: c.curve_point(r, r, jnp.ones(r.shape, bool)).slope, cost, one)
    open_ = (volume > 0) & (slope > 0)
    own = lax.stop_gradient(jnp.where(open_, 1 / jnp.where(open_, 2 * slope * volume, 1), 0))
    tolerance = 1e-10 if coupling.dtype == jnp.float64 else 1e-5

    def sound(share: Array) -> Bool[Array, ""]:
        with_own = lax.stop_gradient(coupling) + jax.vmap(jnp.diag)(share * own)
        return jnp.all(jax.vmap(lambda m: semidefinite_columns(m, tolerance)[1])(with_own))

    shares = jnp.asarray(_LENDING, coupling.dtype)
    enough = jax.vmap(sound)(shares)
    lent = shares[jnp.argmax(enough)] * own
    cost, possible = _less(cost, 2 * lent * volume)
    return cost, coupling + jax.vmap(jnp.diag)(lent), possible & jnp.any(enough)


def _less(cost: ExecutionCost, permanent: Array) -> tuple[ExecutionCost, Bool[Array, ""]]:
    cost, possible = jax.vmap(lambda c, p: c.less_permanent(p), in_axes=(0, 1))(cost, permanent)
    return cost, jnp.all(possible)


def _quadratic(matrix: Array, vectors: Float[Array, "points assets"]) -> Float[Array, " points"]:
    product = jnp.einsum("kij,kj->ki", matrix, vectors) if matrix.ndim == 3 else vectors @ matrix
    return jnp.sum(vectors * product, 1)


def _of_each(market: Market, name: str) -> Float[Array, "steps assets"]:
    """A property of the market of every asset."""
    axes = eqx.tree_at(lambda m: _common(m), jax.tree.map(lambda _: 0, market), [None for _ in _common(market)])
    steps = (market.grid.steps,)
    return jax.vmap(lambda m: jnp.broadcast_to(getattr(m, name), steps), in_axes=(axes,), out_axes=1)(market)


def _common(market: Market) -> list[Array]:
    """What the markets of a basket share: all that is about time."""
    return [market.grid.times, market.elapsed]


def _market_of_each(market: Any, assets: int) -> Market:
    """One market whose curves, but not its grid, have a leading axis of assets."""
    if isinstance(market, Sequence):
        if len(market) != assets or not all(isinstance(m, Market) for m in market):
            raise ValueError(f"market must be a jaxexec.Market or {assets} of them, one an asset")
        times = [m.grid.times for m in market]
        same = all(t.shape == times[0].shape for t in times)
        if not same or (all(map(is_concrete, times)) and any(np.any(np.asarray(t != times[0])) for t in times)):
            raise ValueError("the markets of a basket must share one grid")
        batch = jax.tree.map(lambda *x: jnp.stack(jnp.broadcast_arrays(*x)), *unify(list(market)))
        return _full(eqx.tree_at(_common, batch, _common(market[0])))
    if not isinstance(market, Market):
        raise ValueError(f"market must be a jaxexec.Market or a sequence of them, got {type(market).__name__}")
    if market.permanent_impact.ndim == 1:  # a batch
        if market.permanent_impact.shape[0] != assets:
            raise ValueError(f"market has {market.permanent_impact.shape[0]} assets, shares has {assets}")
        common = [x[0] if x.ndim > n else x for x, n in zip(_common(market), (1, 0), strict=True)]
        return _full(eqx.tree_at(_common, market, common))
    batch = jax.tree.map(lambda x: jnp.broadcast_to(x, (assets, *x.shape)), market)
    return _full(eqx.tree_at(_common, batch, _common(market)))


def _full(market: Market) -> Market:
    """Every curve as (assets, steps): one compiled programme, whatever was given."""

    def curves(m: Market) -> list[Array]:
        return [m.volatility, m.volume, m.drift, m.gap_variance]

    assets, steps = market.permanent_impact.shape[0], market.grid.steps
    wide = [jnp.broadcast_to(x[:, None] if x.ndim == 1 else x, (assets, steps)) for x in curves(market)]
    return eqx.tree_at(curves, market, wide)


def _cost_of_each(cost: Any, assets: int) -> ExecutionCost:
    """One cost whose parameters have a leading axis of assets."""
    if isinstance(cost, Sequence):
        if len(cost) != assets or not all(isinstance(c, ExecutionCost) for c in cost):
            raise ValueError(f"cost must be a jaxexec.ExecutionCost or {assets} of them, one an asset")
        if len({jax.tree.structure(c) for c in cost}) > 1:
            raise ValueError("the costs of a basket must be of one class: a QuadraticCost is a PowerLawCost with phi=1")
        return jax.tree.map(lambda *x: jnp.stack(jnp.broadcast_arrays(*x)), *unify(list(cost)))
    if not isinstance(cost, ExecutionCost):
        raise ValueError(f"cost must be a jaxexec.ExecutionCost or a sequence of them, got {type(cost).__name__}")
    if all(x.ndim and x.shape[0] == assets for x in jax.tree.leaves(cost)):
        return cost
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (assets, *x.shape)), cost)


def _as_covariance(covariance: Any, assets: int, steps: int) -> Array | FactorCovariance:
    if isinstance(covariance, FactorCovariance):
        if covariance.specific.shape != (assets,):
            raise ValueError(f"covariance has {covariance.specific.shape[0]} assets, shares has {assets}")
        return covariance
    array = as_float("covariance", covariance)
    if array.shape not in ((assets, assets), (steps, assets, assets)):
        allowed = f"({assets}, {assets}) or ({steps}, {assets}, {assets})"
        raise ValueError(f"covariance must have shape {allowed}, got {array.shape}")
    check("covariance", array, np.isfinite, "finite")
    if is_concrete(array):
        _check_semidefinite(np.asarray(array, np.float64), array.dtype)
    return array


def _check_semidefinite(covariance: np.ndarray, dtype: Any) -> None:
    size = np.max(np.abs(covariance), initial=0.0)
    slack = max(_SYMMETRIC, 10 * float(jnp.finfo(dtype).eps) * covariance.shape[-1]) * size
    flipped = np.swapaxes(covariance, -1, -2)
    least = float(np.min(np.linalg.eigvalsh((covariance + flipped) / 2)))
    asymmetry = float(np.max(np.abs(covariance - flipped)))
    if asymmetry > slack:
        raise ValueError(f"covariance must be symmetric, differs by {asymmetry:g} (least eigenvalue {least:g})")
    if least < -slack:
        raise ValueError(f"covariance must be positive semidefinite, its least eigenvalue is {least:g}")


def _as_symmetric(name: str, value: ArrayLike, assets: int) -> Array:
    array = as_float(name, value)
    if array.shape != (assets, assets):
        raise ValueError(f"{name} must have shape ({assets}, {assets}), got {array.shape}")
    check(name, array, np.isfinite, "finite")
    if is_concrete(array):
        host = np.asarray(array, np.float64)
        slack = max(_SYMMETRIC, 10 * float(jnp.finfo(array.dtype).eps)) * np.max(np.abs(host), initial=0.0)
        if np.max(np.abs(host - host.T), initial=0.0) > slack:
            raise ValueError(
                f"{name} must be symmetric, differs from its transpose by {np.max(np.abs(host - host.T)):g}"
            )
    return array


def _check_convexity(basket: Basket) -> None:
    """Refuse concrete baskets whose costs and couplings are not convex together."""
    if basket.cross_impact is None and basket.convention == "continuous":
        return  # the costs have checked themselves
    convex = coupled_cost(basket)[2]
    if is_concrete(convex) and not bool(convex):
        raise ValueError(
            "cross_impact and permanent_impact are too large for the assets' own costs: in every step "
            "Σ τV L(n/τV) + nᵀ(C/τ − ½Γ)n must be convex (Γ under convention='almgren-chriss' only). With costs that "
            "are not quadratic cross_impact must be positive semidefinite by itself."
        )
