"""Kyle's equilibrium over many periods: an informed trader, noise, and a market maker who learns."""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.kyle.implicit import Fronts, fronts
from jaxexec.kyle.recursion import Front, Game, Period, Preference, period
from jaxexec.numerics.arrays import as_float, check, unify
from jaxexec.numerics.status import Status, poison, replace_where, taint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxexec.presentation import Table

PREFERENCES = ("local", "cara")
_POSITIVE = ("prior_variance", "noise_variance")
_ENOUGH, _LOOSE, _ACCURATE = {64: 1e-10, 32: 3e-5}, {64: 1e-4, 32: 5e-3}, 1e-4
_ROUNDINGS = 0.5  # of each period, should they all point one way: float32 ends at some 1,700 periods


class Equilibrium(eqx.Module):
    """The linear equilibrium, a period each from the first to the last.

    With v the value and p̂_t its expectation given the order flows y_1..y_t: each insider buys
    x_t = β_t (v − p̂_{t−1}), the price is p_t = p̂_{t−1} + (λ_t + δ_t) y_t and p̂_t = p̂_{t−1} + λ_t y_t.

    Attributes:
        intensity: (periods,) β_t of each insider, shares per currency.
        price_impact: (periods,) λ_t, currency per share: what stays of a trade's impact.
        transitory_impact: (periods,) δ_t, currency per share: what a risk-averse market maker asks beside it; 0 for one
            who is risk-neutral.
        posterior_variance: (periods,) Σ_t = Var(v | y_1..y_t), currency², falls.
        value_curvature: (periods,) A_t, shares per currency: an insider's value before period t is A_t g² + B_t at
            g = v − p̂_{t−1}.
        value_constant: (periods,) B_t, currency.
        informed_share: (periods,) share of the insiders in the variance of order flow, mλ_tβ_t; as large a part of what
            is left unknown is learnt in the period.
        second_order: (periods,) D_t = Λ + ½γΛ²s − Aλ² with Λ = λ + δ, currency per share; positive, or the insider's
            trade were not optimal.
        expected_profit: of each insider over all periods, before v is drawn, currency.
        market_maker_profit: expected, of all market makers, currency; 0 for risk-neutral ones.
        value: A_1 Σ_0 + B_1, currency: the insider's ex-ante value. The expected profit at risk_aversion = 0, less
            ½γ Σ Var_t under "local", the mean certainty equivalent under "cara".
        prior_variance: Σ_0, as given.
        noise_variance: (periods,) s_t, as given.
        risk_aversion: γ, as given.
        market_maker_risk_aversion: ρ, as given.
        insiders: m, as given.
        preference: as given.
        residual: how far the defining equations are from holding: the larger of |log Σ_0| the recursion leads to, less
            what it should be, and the cubics' relative residuals. Finite in failed lanes too.
        passes: through the periods, that were needed.
        status: OK; OK_INACCURATE where float32 cannot give 1e-4 (over some 1,700 periods, under CARA some hundred), the
            error being about the residual; MAX_STEPS or NONFINITE_INTERNAL where no equilibrium was found;
            NONFINITE_INPUT where a traced parameter is out of range.
    """

    intensity: Float[Array, " periods"]
    price_impact: Float[Array, " periods"]
    transitory_impact: Float[Array, " periods"]
    posterior_variance: Float[Array, " periods"]
    value_curvature: Float[Array, " periods"]
    value_constant: Float[Array, " periods"]
    informed_share: Float[Array, " periods"]
    second_order: Float[Array, " periods"]
    expected_profit: Float[Array, ""]
    market_maker_profit: Float[Array, ""]
    value: Float[Array, ""]
    prior_variance: Float[Array, ""]
    noise_variance: Float[Array, " periods"]
    risk_aversion: Float[Array, ""]
    market_maker_risk_aversion: Float[Array, ""]
    insiders: Float[Array, ""]
    preference: Preference = eqx.field(static=True)
    residual: Float[Array, ""]
    passes: Int[Array, ""]
    status: Int[Array, ""]

    @property
    def periods(self) -> int:
        """T."""
        return self.price_impact.shape[-1]

    @property
    def variance_before(self) -> Float[Array, " periods"]:
        """(periods,) Σ_{t−1}, currency²: what the market maker does not know as period t begins."""
        return jnp.concatenate([self.prior_variance[..., None], self.posterior_variance[..., :-1]], axis=-1)

    def table(self) -> "Table":
        """Some periods, evenly spaced, as a table for a terminal or a page."""
        from jaxexec.kyle.showing import table

        return table(self)

    def plot(self) -> "Figure":
        """Impact, intensity and what is still unknown, over the periods and each relative to its first."""
        from jaxexec.kyle.showing import plot

        return plot(self)


def solve(
    prior_variance: ArrayLike,
    noise_variance: ArrayLike,
    periods: int,
    risk_aversion: ArrayLike = 0.0,
    preference: Preference = "local",
    market_maker_risk_aversion: ArrayLike = 0.0,
    insiders: ArrayLike = 1,
) -> Equilibrium:
    """The linear equilibrium of informed traders, noise, and a market maker who learns. Traced and differentiable.

    v ~ N(p_0, Σ_0) is known to the insiders, noise traders buy u_t ~ N(0, s_t), and who makes the market sees only the
    sum. A backward pass solves one cubic a period; the passes are repeated until Σ_0 is what was asked (once where
    nobody minds risk). Derivatives are those of the equations (implicit function theorem), in both modes.

    Args:
        prior_variance: Σ_0 > 0, currency². 1 currency of standard deviation is 1.
        noise_variance: s > 0, shares² in each period; a scalar, or (periods,) where noise varies.
        periods: T ≥ 1.
        risk_aversion: γ ≥ 0 of each insider in E − (γ/2) Var, per currency: twice the weight of the variance.
        preference: "local", each period's expected profit less (γ/2) its conditional variance, summed; or "cara",
            −E exp(−γ · profit). They agree in all but the values up to two periods, and differ from three on.
        market_maker_risk_aversion: ρ ≥ 0, per currency. In each period new market makers, CARA, bid for the order flow
            and hold it until v is known: δ_t = ½ρΣ_t.
        insiders: m ≥ 1, who all know v; a whole number. The derivative takes it as a real one.

    Returns:
        The equilibrium; NaN and a status where there is none that numbers can hold. Σ_t underflows to 0, which it is to
        all digits, after some hundreds of periods of several insiders.

    Raises:
        ValueError: `periods` is not a positive integer, `preference` unknown, a shape wrong, or a concrete value out of
            range; the field is named, and the period.

    Source: Kyle, Continuous auctions and insider trading, Econometrica 53 (1985), Theorem 2 (risk-neutral);
    Subrahmanyam, Risk aversion, market liquidity, and price efficiency, RFS 4 (1991) (one period); Holden and
    Subrahmanyam, Long-lived private information and imperfect competition, J. Finance 47 (1992) (several insiders), and
    Risk aversion, imperfect competition, and long-lived information, Economics Letters 44 (1994) (CARA).
    The risk-averse market maker and both preferences in one recursion are derived here.
    """
    _check_periods(periods)
    if preference not in PREFERENCES:
        raise ValueError(f"preference must be one of {PREFERENCES}, got {preference!r}")
    inputs = _inputs(
        {
            "prior_variance": prior_variance,
            "noise_variance": noise_variance,
            "risk_aversion": risk_aversion,
            "market_maker_risk_aversion": market_maker_risk_aversion,
            "insiders": insiders,
        },
        int(periods),
    )
    return _solve(inputs, preference)


class _Inputs(NamedTuple):
    prior_variance: Float[Array, ""]
    noise_variance: Float[Array, " periods"]
    risk_aversion: Float[Array, ""]
    market_maker_risk_aversion: Float[Array, ""]
    insiders: Float[Array, ""]


def _check_periods(periods: Any) -> None:
    if isinstance(periods, bool) or not isinstance(periods, int | np.integer) or periods < 1:
        raise ValueError(f"periods must be a positive integer, got {periods!r}")


def _inputs(values: dict[str, ArrayLike], periods: int) -> _Inputs:
    """Checked inputs of one dtype, the noise of every period."""
    # Whole numbers decide no dtype: the count of insiders is one.
    loose = {name: float(value) if type(value) is int else value for name, value in values.items()}
    arrays = {name: as_float(name, value) for name, value in loose.items()}
    for name, array in arrays.items():
        allowed = ((), (periods,)) if name == "noise_variance" else ((),)
        if array.shape not in allowed:
            wanted = f"a scalar or have shape ({periods},)" if len(allowed) > 1 else "a scalar"
            raise ValueError(f"{name} must be {wanted}, got shape {array.shape}; use jax.vmap for a batch")
        check(name, array, np.isfinite, "finite")
        if name in _POSITIVE:
            check(name, array, lambda v: v > 0, "positive")
        else:
            check(name, array, lambda v: v >= 0, "at least 0")
    check("insiders", arrays["insiders"], lambda v: (v >= 1) & (v == np.round(v)), "a whole number of at least 1")
    made = _Inputs(**unify(arrays, final=True))
    return made._replace(noise_variance=jnp.broadcast_to(made.noise_variance, (periods,)))


@functools.partial(jax.jit, static_argnums=1)
def _solve(inputs: _Inputs, preference: Preference) -> Equilibrium:
    refused = ~_are_valid(inputs)
    safe = _Inputs(*(replace_where(jnp.broadcast_to(refused, x.shape), x, jnp.ones_like(x)) for x in inputs))
    game = _without_units(safe)
    found = fronts(game, preference)
    answers, now = _with_units(safe, found.periods, game, preference)
    residual = lax.stop_gradient(_worst_residual(found, now, game, preference))
    status = _status(refused, residual, found, now)
    failed = status > Status.LOCAL
    everywhere = taint(inputs, failed)

    def spoilt(x: Array) -> Array:
        # What is poisoned must be finite in failed lanes, if gradients beside them are to stay finite.
        return poison(jnp.where(failed, 0, x) + everywhere, jnp.broadcast_to(failed, x.shape))

    return Equilibrium(
        **{name: spoilt(x) for name, x in answers.items()},
        **inputs._asdict(),
        preference=preference,
        residual=jnp.where(jnp.isfinite(residual), residual, jnp.finfo(residual.dtype).max),
        passes=found.passes,
        status=status.astype(jnp.int32),
    )


def _are_valid(inputs: _Inputs) -> Bool[Array, ""]:
    signs = [inputs.prior_variance > 0, inputs.risk_aversion >= 0, inputs.market_maker_risk_aversion >= 0]
    signs += [inputs.insiders >= 1, jnp.all(inputs.noise_variance > 0)]
    finite = [jnp.all(jnp.isfinite(x)) for x in inputs]
    return functools.reduce(jnp.logical_and, signs + finite)


def _without_units(inputs: _Inputs) -> Game:
    size = jnp.sqrt(inputs.noise_variance)
    # Half the noise of the largest period at least: its scale, without squares that overflow.
    typical = jnp.sqrt(jnp.mean((size / jnp.max(size)) ** 2)) * jnp.max(size)
    value = jnp.sqrt(inputs.prior_variance) * typical
    return Game(
        risk=inputs.risk_aversion / 2 * value,
        maker_risk=inputs.market_maker_risk_aversion / 2 * value,
        insiders=inputs.insiders,
        swing=size / typical,
        step=size / jnp.concatenate([size[:1], size[:-1]]),
    )


def _with_units(inputs: _Inputs, front: Front, game: Game, preference: Preference) -> tuple[dict[str, Array], Period]:
    """The fields of the answer, and the periods they are made of."""
    now = period(*front, game, preference)
    spread = jnp.sqrt(inputs.prior_variance) * jnp.exp(front.log_variance / 2)  # √Σ_t
    noise = jnp.sqrt(inputs.noise_variance)
    unit, gain = spread / noise, spread * noise
    variance = inputs.prior_variance * jnp.exp(front.log_variance)
    kept = 1 - now.share
    curvature = unit_inverse(now.curvature, spread, noise)
    lost = front.later * now.share * gain
    if preference == "cara":
        lost = lost * _log1p_ratio(now.penalty)
    constant = lax.cumsum(lost, reverse=True)
    profit = now.impact / inputs.insiders * gain * (kept - now.premium * now.impact) / kept
    answers = {
        "intensity": unit_inverse(now.impact / inputs.insiders, spread, noise),
        "price_impact": unit * now.impact,
        "transitory_impact": unit * now.premium,
        "posterior_variance": variance,
        "value_curvature": curvature,
        "value_constant": constant,
        "informed_share": now.share,
        "second_order": unit * now.concavity,
        "expected_profit": jnp.sum(profit),
        "market_maker_profit": jnp.sum(now.premium * gain / kept),
        "value": curvature[0] * inputs.prior_variance + constant[0],
    }
    return answers, now


def unit_inverse(x: Array, spread: Array, noise: Array) -> Array:
    """x/U: quantities in shares per currency from those without units."""
    return x * (noise / spread)


def _log1p_ratio(z: Array) -> Array:
    """log(1 + z)/z for z ≥ 0, smooth at 0."""
    small = z < 1e-3
    inside = jnp.where(small, 1, z)
    return jnp.where(
        small, 1 - z * (1 / 2 - z * (1 / 3 - z * (1 / 4 - z * (1 / 5 - z / 6)))), jnp.log1p(inside) / inside
    )


def _worst_residual(found: Fronts, now: Period, game: Game, preference: Preference) -> Array:
    """The larger of |log Σ_0| and the first-order conditions' residuals; the marginal profit of no trade is 1."""
    count, later, mu = game.insiders, found.periods.later, now.impact
    others = 1 - 1 / count
    marginal = 1 - others * mu * (mu + now.premium) - 2 * later * mu * (1 - others * now.share)
    if preference == "cara":
        scale = jnp.exp(found.periods.log_variance / 2) * game.swing
        marginal = marginal - 4 * game.risk * scale * later * mu * now.premium
    return jnp.maximum(jnp.abs(found.residual), jnp.max(jnp.abs(marginal - 2 / count * mu * now.concavity)))


def _status(refused: Array, residual: Array, found: Fronts, now: Period) -> Array:
    finfo = jnp.finfo(residual.dtype)
    enough = _ENOUGH[finfo.bits]
    coarse = _ROUNDINGS * float(finfo.eps) * now.impact.shape[0] > _ACCURATE
    sound = jnp.all((now.share > 0) & (now.share < 1) & (now.concavity > 0)) & jnp.isfinite(residual)
    good = jnp.where(residual <= enough, Status.OK_INACCURATE if coarse else Status.OK, Status.OK_INACCURATE)
    converged = jnp.where(residual <= _LOOSE[finfo.bits], good, Status.MAX_STEPS)
    return jnp.where(refused, Status.NONFINITE_INPUT, jnp.where(sound, converged, Status.NONFINITE_INTERNAL))
