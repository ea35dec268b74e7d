"""Recurrences along time, shaped to the device that runs them."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

# A turn of a loop costs a GPU some microseconds of starting kernels, whatever they do: eight steps a turn take a fifth
# of the time of one (sixteen a seventh, but twice the compiling). A CPU gains nothing and compiles longer, and so does
# a GPU where a step is a programme of its own: this is for a few multiplications and divisions.
_STEPS_A_TURN_ON_GPU = 8


def along(step: Callable[[Any, Any], tuple[Any, Any]], start: Any, rows: Any, *, reverse: bool = False) -> Any:
    """`lax.scan` of a short `step` over the leading axis of `rows`, several steps a turn where a turn is dear."""
    turn = 1 if jax.default_backend() == "cpu" else _STEPS_A_TURN_ON_GPU
    return lax.scan(step, start, rows, reverse=reverse, unroll=turn)


__all__ = ["along"]
