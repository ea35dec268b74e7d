"""One period of the equilibrium without units, and the pass through all of them from the last to the first.

Let g_t = v − p̂_{t−1} be what the market maker does not know, m insiders trade β_t g_t each, y_t = mβ_t g_t + u_t,
p̂_t = p̂_{t−1} + λ_t y_t and p_t = p̂_{t−1} + Λ_t y_t with Λ = λ + δ, δ_t = ½ρΣ_t. An insider with the value function
A_{t+1} g² + B_{t+1} and the risk aversion γ trades so that (with g = γ/2 the weight of the variance, D > 0)

    2Dβ = h − 2Aλk [− 4gAλδs],    D = Λ + gΛ²s − Aλ²,    h = 1 − (m − 1)Λβ,    k = 1 − (m − 1)λβ,

the part in brackets under CARA only, and the market maker filters: mβ = λs/Σ_t, Σ_{t−1} = Σ_t/(1 − mλβ). In units of
U = √(Σ_t/s_t) with a = A/U, μ = λ/U = 1/x, d = δ/U, G = gUs this is the cubic of `depth`, mλβ = μ², and

    A_t/U = (a k² + μ²(μ + d + G(μ + d)² − aμ²)/m²) [/ w],    w = 1 + 4Gaμ² under CARA.

Nothing is subtracted in it but aμ² < μ/2. Only a, Σ, and the ratio of noise between neighbours go on to period t − 1.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxexec.kyle.depth import depth_root

Preference = Literal["local", "cara"]


class Game(NamedTuple):
    """The parameters that the equilibrium without units depends on. s̄ is the mean noise variance.

    Attributes:
        risk: Γ = ½γ√(Σ_0 s̄).
        maker_risk: P = ½ρ√(Σ_0 s̄).
        insiders: m.
        swing: (periods,) √(s_t/s̄).
        step: (periods,) √(s_t/s_{t−1}), the first 1.
    """

    risk: Float[Array, "..."]
    maker_risk: Float[Array, "..."]
    insiders: Float[Array, "..."]
    swing: Float[Array, "..."]
    step: Float[Array, "..."]


class Period(NamedTuple):
    """One period's equilibrium, or an array of them, without units.

    Attributes:
        impact: μ = λ/U.
        premium: d = δ/U.
        curvature: A_t/U.
        concavity: D/U.
        penalty: 4Gaμ² = w − 1.
        share: μ² = mλβ.
    """

    impact: Float[Array, "..."]
    premium: Float[Array, "..."]
    curvature: Float[Array, "..."]
    concavity: Float[Array, "..."]
    penalty: Float[Array, "..."]
    share: Float[Array, "..."]


def period(later: Float[Array, "..."], log_variance: Float[Array, "..."], game: Game, preference: Preference) -> Period:
    """A period's equilibrium, from a = A_{t+1}/U and log(Σ_t/Σ_0). Elementwise."""
    scale = jnp.exp(log_variance / 2) * game.swing
    risk, premium, count = game.risk * scale, game.maker_risk * scale, game.insiders
    square = 2 * later + premium * (1 + 1 / count + 2 / count * risk * premium)
    if preference == "cara":
        square = square + 4 * risk * later * premium
    linear = 1 + 1 / count + 4 / count * risk * premium
    impact = 1 / depth_root(square, linear, 2 / count * risk - 2 * later)
    share = impact * impact
    whole = impact + premium
    concavity = whole + risk * whole * whole - later * share
    others = 1 - (1 - 1 / count) * share
    curvature = later * others * others + share * concavity / (count * count)
    penalty = 4 * risk * later * share
    if preference == "cara":
        curvature = curvature / (1 + penalty)
    return Period(impact, premium, curvature, concavity, penalty, share)


class Front(NamedTuple):
    """What goes from one period to the one before: a = A_{t+1}√(Σ_t/s_t), and log(Σ_t/Σ_0)."""

    later: Float[Array, "..."]
    log_variance: Float[Array, "..."]


def before(front: Front, game: Game, preference: Preference) -> Front:
    """The front of period t − 1 from that of period t. Elementwise."""
    now = period(*front, game, preference)
    kept = 1 - now.share
    return Front(now.curvature * game.step / jnp.sqrt(kept), front.log_variance - jnp.log1p(-now.share))


def backward(log_last: Float[Array, ""], game: Game, preference: Preference) -> tuple[Front, Front]:
    """(the front before period 1, the fronts of all periods) from log(Σ_T/Σ_0) at the end."""

    def step(front: Front, row: tuple[Array, Array]) -> tuple[Front, Front]:
        return before(front, game._replace(swing=row[0], step=row[1]), preference), front

    last = Front(jnp.zeros_like(log_last), log_last)
    return lax.scan(step, last, (game.swing, game.step), reverse=True)
