"""The parameters of a model by name, as one vector of numbers that can be moved.

A scalar is one parameter. A curve, (steps,), is one too: its *level*, by which it moves as a whole,

    curve(v) = curve + (v − mean) · shape,      shape = curve/mean, or 1 where the curve has no one sign

so that one per cent more of the level is one per cent more of every step. Curves that are named in `by_step` are
taken step by step instead, `volume[0]`, `volume[1]`, …. The nodes of a grid are one parameter, its `horizon`.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxexec.solvers.response import Move

_NODES, _HORIZON = "times", "horizon"
_NEVER = ("elapsed",)  # a matter of the clock, not of the market
_UNITS = {
    "shares": "shares",
    "target": "shares",
    "risk_aversion": "1/currency",
    "horizon": "days",
    "volatility": "currency/share/√day",
    "volume": "shares/day",
    "permanent_impact": "currency/share²",
    "drift": "currency/share/day",
    "gap_variance": "currency²/share²",
    "benchmark": "shares",
    "terminal_penalty": "currency/share²",
    "eta": "currency/share",
    "phi": "1",
    "psi": "currency/share",
    "rho_max": "1",
    "prior_variance": "currency²",
    "noise_variance": "shares²",
    "market_maker_risk_aversion": "1/currency",
    "insiders": "1",
}


class Levels(NamedTuple):
    """Chosen parameters of a pytree of inputs.

    Attributes:
        names: one a parameter.
        values: (parameters,) where they stand.
        at: from (parameters,) values to the inputs that have them.
        moves: which leaf each parameter moves, and how; in the order of the names.
    """

    names: tuple[str, ...]
    values: Float[Array, " parameters"]
    at: Callable[[Float[Array, " parameters"]], Any]
    moves: tuple[Move, ...]


class _Part(NamedTuple):
    """One leaf: its place among the leaves, its parameters, and how the leaf moves with each."""

    place: int
    names: tuple[str, ...]
    values: Float[Array, " parameters"]
    directions: Float[Array, "parameters ..."]


def levels(inputs: Any, parameters: Sequence[str] | None = None, by_step: Sequence[str] = ()) -> Levels:
    """The chosen parameters of `inputs`; all that are floating numbers where `parameters` is None.

    Raises:
        ValueError: a name that is no parameter, or that is given twice, or a scalar in `by_step`.
    """
    leaves, structure = jax.tree.flatten(inputs)
    every = {name: place for place, name in enumerate(names_of(inputs)) if _is_parameter(name, leaves[place])}
    chosen = list(every) if parameters is None else [parameters] if isinstance(parameters, str) else list(parameters)
    _check_names("parameters", chosen, every)
    _check_names("by_step", [by_step] if isinstance(by_step, str) else by_step, every)
    if not chosen:
        raise ValueError("there is no parameter: inputs hold no floating number")
    parts = [_part(name, every[name], leaves[every[name]], name in by_step) for name in chosen]
    values = jnp.concatenate([part.values for part in parts])

    def at(moved: Float[Array, " parameters"]) -> Any:
        new, first = list(leaves), 0
        for part in parts:
            change = moved[first : first + len(part.names)] - part.values
            first += len(part.names)
            new[part.place] = leaves[part.place] + jnp.tensordot(change, part.directions, axes=1)
        return jax.tree.unflatten(structure, new)

    moves = tuple(Move(part.place, part.directions) for part in parts)
    return Levels(tuple(name for part in parts for name in part.names), values, at, moves)


def as_traced(inputs: Any) -> Any:
    """The inputs with Python's floats as arrays, so that another value is no other programme."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, inputs)


def names_of(inputs: Any) -> list[str]:
    """A name for every leaf: the end of its path, as long as it takes to be the only one of that name."""
    paths = [_words(path) for path, _ in jax.tree_util.tree_leaves_with_path(inputs)]
    ends = collections.Counter(".".join(words[-k:]) for words in paths for k in range(1, len(words) + 1))
    return [
        next((end for k in range(1, len(words) + 1) if ends[end := ".".join(words[-k:])] == 1), ".".join(words))
        for words in paths
    ]


def unit_of(name: str) -> str:
    """The unit of a parameter of this house; empty for one that it does not know."""
    return _UNITS.get(name.rsplit(".", 1)[-1].split("[", 1)[0], "")


def _words(path: Sequence[Any]) -> list[str]:
    """`.market.grid.times` → market, grid, horizon; an index goes with the word before it."""
    words: list[str] = []
    for key in path:
        if isinstance(key, jax.tree_util.SequenceKey):
            place = f"[{key.idx}]"
            words[-1:] = [words[-1] + place] if words else [place]
        else:
            word = getattr(key, "name", getattr(key, "key", None))
            words.append(str(word))
    if words and words[-1] == _NODES:
        words[-1] = _HORIZON
    return words or ["value"]


def _is_parameter(name: str, leaf: Any) -> bool:
    return name.rsplit(".", 1)[-1] not in _NEVER and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _check_names(field: str, names: Sequence[str], every: dict[str, int]) -> None:
    for index, name in enumerate(names):
        if name not in every:
            raise ValueError(f"{field}[{index}] must be one of {', '.join(every)}, got {name!r}")
        if name in list(names)[:index]:
            raise ValueError(f"{field}[{index}]: {name!r} is there twice")


def _part(name: str, place: int, leaf: Any, by_step: bool) -> _Part:
    leaf = jnp.asarray(leaf)
    if by_step:
        if leaf.ndim != 1:
            raise ValueError(
                f"by_step: {name!r} has shape {leaf.shape}; give a curve, (steps,), to move it step by step"
            )
        names = tuple(f"{name}[{k}]" for k in range(leaf.shape[0]))
        return _Part(place, names, leaf, jnp.eye(leaf.shape[0], dtype=leaf.dtype))
    if leaf.ndim == 0:
        return _Part(place, (name,), leaf[None], jnp.ones((1,), leaf.dtype))
    if name.rsplit(".", 1)[-1] == _HORIZON:
        span = leaf[-1] - leaf[0]
        return _Part(place, (name,), span[None], ((leaf - leaf[0]) / span)[None])
    mean = jnp.mean(leaf)
    one_sided = (jnp.all(leaf >= 0) | jnp.all(leaf <= 0)) & (mean != 0)
    shape = jnp.where(one_sided, leaf / jnp.where(one_sided, mean, 1), 1)
    return _Part(place, (name,), mean[None], shape[None])
