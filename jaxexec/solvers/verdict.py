"""What orders and baskets share of failing: harmless inputs, statuses from certificates, errors from statuses."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.arrays import is_concrete
from jaxexec.numerics.status import Status, replace_where
from jaxexec.solvers.program import Certificate

Problem = TypeVar("Problem")

# Largest relative duality gap that is called OK, and the one that is still called OK_INACCURATE.
_GAP_OK = {"float64": 1e-8, "float32": 1e-5}
_GAP_INACCURATE = {"float64": 1e-5, "float32": 1e-3}

# Fields that are zero, not one, in a problem that any solver can solve.
_HARMLESS_AT_ZERO = {"permanent_impact", "drift", "gap_variance", "elapsed", "target", "risk_aversion", "benchmark"}


def verdict(proof: Certificate, finite: Bool[Array, ""]) -> Int[Array, ""]:
    """The status that a relative gap earns, NONFINITE_INTERNAL where it or the answer is not finite."""
    dtype, gap = str(proof.relative_gap.dtype), proof.relative_gap
    status = jnp.where(gap <= _GAP_INACCURATE.get(dtype, 1e-3), Status.OK_INACCURATE, Status.MAX_STEPS)
    status = jnp.where(gap <= _GAP_OK.get(dtype, 1e-5), Status.OK, status)
    return jnp.where(finite & jnp.isfinite(gap), status, Status.NONFINITE_INTERNAL)


def harmless(path: Any, leaf: Array) -> Array:
    """The leaf, by its field's name, of a problem that any solver can solve: put where a problem was refused."""
    name = getattr(path[-1], "name", "")
    if name == "times":
        return jnp.arange(leaf.shape[0], dtype=leaf.dtype)
    if name in _HARMLESS_AT_ZERO:
        return jnp.zeros_like(leaf)
    return -jnp.ones_like(leaf) if name == "rho_min" else jnp.ones_like(leaf)


def harmless_where(refused: Bool[Array, ""], problem: Problem) -> Problem:
    """A problem of the same shapes that any solver can solve, in the lanes that were refused."""
    safe = jax.tree_util.tree_map_with_path(harmless, problem)
    return jax.tree.map(lambda x, s: replace_where(jnp.broadcast_to(refused, x.shape), x, s), problem, safe)


def comparable(bound: Float[Array, ""]) -> Float[Array, ""]:
    """A bound that is not a number, or infinite, as the largest number: finite in a failed lane too."""
    return jnp.where(jnp.isfinite(bound), bound, jnp.finfo(bound.dtype).max)


def raise_on_failure(schedule: Any) -> None:
    """Raise on the first failed order of a concrete answer, or batch of answers.

    Raises:
        ValueError: the answer is traced.
        RuntimeError: a status that is not usable; the message names cause and remedy.
    """
    if not is_concrete(schedule.status):
        raise ValueError("throw=True needs concrete values: read `status` inside jit, vmap or grad instead")
    for index, code in np.ndenumerate(np.asarray(schedule.status)):
        status = Status(int(code))
        if status > Status.LOCAL:
            where = f" (problem {index})" if index else ""
            raise RuntimeError(f"solve ended with {status.name}{where}. {status.remedy}")
