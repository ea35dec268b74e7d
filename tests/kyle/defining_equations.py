"""The equations that define the equilibrium, in NumPy and in units, as the model states them."""

import numpy as np


def residuals(equilibrium, preference="local"):
    """Largest relative residual of each equation, over the periods; lanes first, (lanes, periods)."""
    e = {k: np.asarray(v, float) for k, v in vars(equilibrium).items() if k not in ("preference", "passes", "status")}
    beta, lam, delta, sigma = (e[k] for k in ("intensity", "price_impact", "transitory_impact", "posterior_variance"))
    a, b, s = e["value_curvature"], e["value_constant"], e["noise_variance"]
    g, rho, m = (e[k][..., None] for k in ("risk_aversion", "market_maker_risk_aversion", "insiders"))
    g = g / 2
    prior = np.concatenate([e["prior_variance"][..., None], sigma[..., :-1]], -1)
    nothing = np.zeros_like(a[..., :1])
    a_next, b_next = (np.concatenate([x[..., 1:], nothing], -1) for x in (a, b))
    whole, flow = lam + delta, m**2 * beta**2 * prior + s
    h, k = 1 - (m - 1) * whole * beta, 1 - (m - 1) * lam * beta
    left = k - lam * beta
    if preference == "local":
        penalty, marginal = g * whole**2 * beta**2 * s, g * whole**2 * beta * s
        bonus, scale = a_next * lam**2 * s, 1.0
    else:
        scale = 1 + 4 * g * a_next * lam**2 * s
        bent = whole * beta + 2 * a_next * lam * left
        penalty, marginal = g * s * bent**2 / scale, g * s * bent * (whole - 2 * a_next * lam**2) / scale
        safe = np.where(g > 0, 4 * g, 1.0)
        bonus = np.where(g > 0, np.log1p(4 * g * a_next * lam**2 * s) / safe, a_next * lam**2 * s)
    value = beta * h - whole * beta**2 - penalty + a_next * left**2
    of_trade = h - 2 * whole * beta - 2 * marginal - 2 * a_next * lam * left
    found = {
        "filter": lam * flow / (m * beta * prior) - 1,
        "learning": sigma * flow / (prior * s) - 1,
        "premium": (delta - rho * sigma / 2) / np.where(rho > 0, rho * sigma / 2, 1.0),
        "first_order": of_trade,
        "second_order": np.where(whole + g * whole**2 * s - a_next * lam**2 > 0, 0.0, 1.0),
        "curvature": a / value - 1,
        "constant": (b - b_next - bonus) / (b + a * prior),
    }
    return {name: np.max(np.abs(x), -1) for name, x in found.items()}
