"""Aliases and status codes that every other module shares.

A step function `step_fn(params, hidden, inputs) -> hidden` is one time step of one state: `hidden` (n_hidden,),
`inputs` (n_inputs,) or None. With `kind="map"` its fixed points solve F(h, u) = h; with `kind="flow"` it is the
vector field and they solve F(h, u) = 0.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray
Params = Any
StepFn = Callable[[Params, Any, Any], Any]
ResidualFn = Callable[[jax.Array], jax.Array]
Kind = Literal["map", "flow"]

ACTIVE, FIXED, SLOW, MAX_STEPS, NONFINITE, REJECTED = range(6)
STATUS_NAMES = ("ACTIVE", "FIXED", "SLOW", "MAX_STEPS", "NONFINITE", "REJECTED")


class Solver(NamedTuple):
    """A search for one candidate, as two pure functions.

    Attributes:
      init: `(residual_fn, hidden) -> state`; hidden (n_hidden,).
      step: `(residual_fn, state) -> state`, one iteration; never leaves the best q it has seen.
      Every state is a NamedTuple with at least `hidden` (n_hidden,), `q` scalar, and `done` bool: True where the
      solver itself can get no further in the dtype of `hidden`.
    """

    init: Callable[[ResidualFn, jax.Array], Any]
    step: Callable[[ResidualFn, Any], Any]
