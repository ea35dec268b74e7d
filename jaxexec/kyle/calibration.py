"""What the market thinks there is to know: prior, noise and risk aversion from profiles of impact and volume.

Least squares in relative errors, in the parameters log Σ_0, log s̄ and log(1 + Γ) with Γ = γ√(Σ_0 s̄) ≥ 0, by Levenberg
and Marquardt with the equilibrium's exact derivatives. The level of impact tells Σ_0/s, that of volume s, and how fast
impact falls tells Γ.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxexec.kyle.equilibrium import PREFERENCES, Equilibrium, solve
from jaxexec.kyle.recursion import Preference
from jaxexec.numerics.status import Flag, Status

_STARTS = (0.0, 0.1, 1.0, 10.0)
_FLAT = 1e-7
_MAKER = "market_maker_risk_aversion"


@dataclasses.dataclass(frozen=True)
class EquilibriumFit:
    """An equilibrium fitted to profiles of price impact and volume.

    Attributes:
        prior_variance: Σ_0, currency².
        noise_variance: s̄, shares² a period; that of period t is s̄ times its profile.
        risk_aversion: γ, per currency.
        std_error: of the three, in this order; 0 for a γ that was given, infinite where the data do not tell.
        covariance: (3, 3) of the three.
        residuals: (2, periods) relative errors of impact and of volume, in standard errors where these were given.
        equilibrium: the equilibrium of these parameters.
        null_vector: (3,) the direction in (log Σ_0, log s̄, log(1 + Γ)) that the data do not tell, zeros where they do.
        steps: of the optimisation.
        status: OK; MAX_STEPS; RANK_DEFICIENT where some direction cannot be told; INSUFFICIENT_DATA.
        flags: CLIPPED where the best γ is 0, its least; the standard error is then that of an estimate without bound.
    """

    prior_variance: float
    noise_variance: float
    risk_aversion: float
    std_error: np.ndarray
    covariance: np.ndarray
    residuals: np.ndarray
    equilibrium: Equilibrium
    null_vector: np.ndarray
    steps: int
    status: Status
    flags: Flag


def fit(
    price_impact: ArrayLike,
    volume: ArrayLike,
    *,
    impact_error: ArrayLike | None = None,
    volume_error: ArrayLike | None = None,
    noise_profile: ArrayLike = 1.0,
    preference: Preference = "local",
    risk_aversion: float | None = None,
    market_maker_risk_aversion: float = 0.0,
    insiders: int = 1,
    start: tuple[float, float, float] | None = None,
    max_steps: int = 200,
) -> EquilibriumFit:
    """Prior variance, noise variance and risk aversion from what can be observed. On concrete arrays.

    Computed in float64 whatever JAX's 64-bit flag says.

    Args:
        price_impact: (periods,) estimates of λ_t + δ_t, by which a share moves the price at once, currency per share.
        volume: (periods,) mean absolute net order flow E|y_t| = √(2/π) √(m²β²Σ_{t−1} + s_t), shares.
        impact_error: (periods,) or scalar, standard errors of `price_impact`. Without errors all relative errors are
            taken to be of one size, which is estimated.
        volume_error: (periods,) or scalar, standard errors of `volume`; with `impact_error` or not at all.
        noise_profile: (periods,) or scalar, noise variance relative to s̄.
        preference: "local" or "cara".
        risk_aversion: γ where it is known; None to fit it.
        market_maker_risk_aversion: ρ, known.
        insiders: m, known.
        start: (Σ_0, s̄, γ) to begin with; None to begin with what the levels say, and the best of four γ.
        max_steps: of the optimisation.

    Raises:
        ValueError: a shape is wrong, a value is out of range, one error is given without the other, `preference` is
            unknown, or no equilibrium near these profiles can be held by numbers; the field is named.
    """
    if preference not in PREFERENCES:
        raise ValueError(f"preference must be one of {PREFERENCES}, got {preference!r}")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int | np.integer) or max_steps < 1:
        raise ValueError(f"max_steps must be a positive whole number, got {max_steps!r}")
    data, errors = _data(price_impact, volume, impact_error, volume_error)
    periods = data.shape[1]
    profile = _row("noise_profile", noise_profile, periods)
    known = None if risk_aversion is None else _number("risk_aversion", risk_aversion, 0)
    count = _number("insiders", insiders, 1)
    if count != round(count):
        raise ValueError(f"insiders must be a whole number, got {insiders!r}")
    fixed = known is not None
    inputs = (data, profile, errors, known or 0.0, _number(_MAKER, market_maker_risk_aversion, 0), count)
    begin = None if start is None else _given_start(start)

    def model(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residual, slopes = _residuals_and_slopes(theta, *inputs, preference=preference, fixed=fixed)
        return np.asarray(residual, float), np.asarray(slopes, float)

    with jax.enable_x64(True):
        at = _guessed_start(data, profile, known, lambda x: np.sum(model(x)[0] ** 2)) if begin is None else begin
        found = _minimise(model, at, int(max_steps), fixed)
        return _answer(found, inputs, preference, known, estimated=impact_error is None)


def _number(name: str, value: Any, least: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number, got {value!r}") from error
    if not (np.isfinite(number) and number >= least):
        raise ValueError(f"{name} must be finite and at least {least:g}, got {value!r}")
    return number


def _row(name: str, value: Any, periods: int) -> np.ndarray:
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be concrete real numbers, got {value!r}") from error
    if array.shape not in ((), (periods,)):
        raise ValueError(f"{name} must be a scalar or have shape ({periods},), got {array.shape}")
    row = np.broadcast_to(array, (periods,))
    bad = np.flatnonzero(~(np.isfinite(row) & (row > 0)))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}] must be positive and finite, got {row[bad[0]]}")
    return row


def _data(impact: Any, volume: Any, impact_error: Any, volume_error: Any) -> tuple[np.ndarray, np.ndarray]:
    """Impact and volume (2, periods), and their relative standard errors."""
    shape = np.shape(impact)
    if len(shape) != 1 or not shape[0]:
        raise ValueError(f"price_impact must have shape (periods,) with at least 1 period, got {shape}")
    if np.shape(volume) != shape:
        raise ValueError(f"volume must have shape {shape}, got {np.shape(volume)}")
    data = np.stack([_row("price_impact", impact, *shape), _row("volume", volume, *shape)])
    if (impact_error is None) != (volume_error is None):
        raise ValueError("impact_error and volume_error must be given both or not at all")
    if impact_error is None:
        return data, np.ones_like(data)
    errors = np.stack([_row("impact_error", impact_error, *shape), _row("volume_error", volume_error, *shape)])
    return data, errors / data


@functools.partial(jax.jit, static_argnames=("preference", "fixed"))
def _residuals_and_slopes(theta, data, profile, errors, gamma, rho, insiders, *, preference, fixed):
    """Weighted relative errors (2 · periods,), and their derivatives (2 · periods, 3)."""

    def residuals(theta):
        e = _equilibrium(theta, profile, gamma, rho, insiders, preference, fixed)
        flow = jnp.sqrt(2 / jnp.pi * e.noise_variance / (1 - e.informed_share))
        model = jnp.stack([e.price_impact + e.transitory_impact, flow])
        return jnp.ravel((jnp.log(model) - jnp.log(data)) / errors)

    return residuals(theta), jax.jacfwd(residuals)(theta)


def _equilibrium(theta, profile, gamma, rho, insiders, preference, fixed) -> Equilibrium:
    prior, noise = jnp.exp(theta[0]), jnp.exp(theta[1])
    free = jnp.expm1(theta[2]) / jnp.exp((theta[0] + theta[1]) / 2)
    return solve(prior, noise * profile, profile.shape[0], gamma if fixed else free, preference, rho, insiders)


def _given_start(start: Any) -> np.ndarray:
    """log Σ_0, log s̄, log(1 + Γ)."""
    try:
        prior, noise, gamma = (float(x) for x in start)
    except (TypeError, ValueError) as error:
        raise ValueError(f"start must be three numbers (Σ_0, s̄, γ), got {start!r}") from error
    if not (prior > 0 and noise > 0 and gamma >= 0 and np.isfinite(prior * noise * (1 + gamma))):
        raise ValueError(f"start must be (positive, positive, at least 0), got {start}")
    return np.array([np.log(prior), np.log(noise), np.log1p(gamma * np.sqrt(prior * noise))])


def _guessed_start(data, profile, known, loss) -> np.ndarray:
    """log Σ_0, log s̄, log(1 + Γ), from what the levels say."""
    with np.errstate(over="ignore"):  # what is not finite is refused by its residuals
        noise = np.mean(data[1] ** 2 / profile) * np.pi / 2
        prior = np.mean(data[0]) ** 2 * noise * np.sum(profile)
    starts = [np.array([np.log(prior), np.log(noise), np.log1p(g)]) for g in (_STARTS if known is None else (0.0,))]
    return min(starts, key=loss)


def _minimise(model, at: np.ndarray, max_steps: int, fixed: bool) -> tuple[np.ndarray, ...]:
    """Levenberg and Marquardt with log(1 + Γ) ≥ 0: (parameters, residuals, slopes, steps, whether done)."""
    damping, done, step = 1e-3, False, 0
    residual, slopes = model(at)
    if not (np.all(np.isfinite(residual)) and np.all(np.isfinite(slopes))):
        raise ValueError(
            "price_impact and volume lead to no equilibrium that numbers can hold: check their units, or give start"
        )
    for step in range(1, max_steps + 1):  # noqa: B007
        gradient = slopes.T @ residual
        held = np.array([False, False, fixed or (at[2] <= 0 and gradient[2] > 0)])
        curvature = slopes.T @ slopes
        size = np.maximum(np.diag(curvature), 1e-14 * np.trace(curvature))
        system = curvature + damping * np.diag(size)
        system[held], system[:, held] = 0, 0
        system[held, held] = 1
        move = -np.linalg.solve(system, np.where(held, 0, gradient))
        trial = at + np.clip(move, -2, 2)
        trial[2] = max(trial[2], 0.0)
        moved = np.max(np.abs(trial - at))
        new, new_slopes = model(trial)
        better = np.all(np.isfinite(new)) and np.all(np.isfinite(new_slopes)) and new @ new <= residual @ residual
        if better:
            at, residual, slopes, damping = trial, new, new_slopes, max(damping / 10, 1e-12)
        else:
            damping *= 10
        if moved <= 1e-12 * (1 + np.max(np.abs(at))) or (not better and damping > 1e12):
            done = True
            break
    return at, residual, slopes, np.array(step), np.array(done)


def _answer(found, inputs, preference: Preference, known: float | None, *, estimated: bool) -> EquilibriumFit:
    at, residual, slopes, steps, done = found
    free = 2 if known is not None else 3
    chosen = slopes[:, :free]
    status = Status.OK if done else Status.MAX_STEPS
    null, natural = np.zeros(3), np.full((3, 3), np.inf)
    prior, noise = np.exp(at[:2])
    gamma = known if known is not None else float(np.expm1(at[2]) / np.sqrt(prior * noise))
    _, sizes, turns = np.linalg.svd(chosen, full_matrices=False)
    if residual.size < free or (residual.size == free and estimated):
        status = Status.INSUFFICIENT_DATA
    elif sizes[-1] <= _FLAT * sizes[0]:
        status = Status.RANK_DEFICIENT
        null[:free] = turns[-1]
    else:
        scale = residual @ residual / (residual.size - free) if estimated else 1.0
        covariance = np.zeros((3, 3))
        covariance[:free, :free] = (turns.T / sizes**2) @ turns * scale
        # γ = (e^θ₃ − 1)/√(Σ_0 s̄): the standard errors pass through its derivatives.
        change = np.diag([prior, noise, 0.0])
        if known is None:
            change[2] = [-gamma / 2, -gamma / 2, np.exp(at[2]) / np.sqrt(prior * noise)]
        natural = change @ covariance @ change.T
    data, profile, _, _, rho, insiders = inputs
    e = solve(prior, noise * profile, data.shape[1], gamma, preference, rho, insiders)
    return EquilibriumFit(
        prior_variance=float(prior),
        noise_variance=float(noise),
        risk_aversion=float(gamma),
        std_error=np.sqrt(np.diag(natural)),
        covariance=natural,
        residuals=residual.reshape(data.shape),
        equilibrium=e,
        null_vector=null,
        steps=int(steps),
        status=status,
        flags=Flag.CLIPPED if known is None and at[2] <= 0 else Flag.NONE,
    )
