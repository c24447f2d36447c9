"""First-order search: any optax optimizer on q(h) = 1/2 ||r(h)||^2, each candidate with its own optimizer state.

What the field's tools do (Adam on q); here for comparison and as a first stage. The search hands over what it
reaches to the same float64 polish as every other solver, so a short step budget costs time, never correctness.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxfp import arguments
from jaxfp.types import ResidualFn, Solver


class State(NamedTuple):
    """One candidate on its way.

    Attributes:
      hidden: (n_hidden,), the best state so far.
      q: scalar, at `hidden`.
      done: bool, at a stationary point of q to the rounding of its dtype.
      iterate: (n_hidden,), where the optimizer is; it may be uphill of `hidden`.
      optimizer: optax state of this candidate alone.
    """

    hidden: jax.Array
    q: jax.Array
    done: jax.Array
    iterate: jax.Array
    optimizer: Any


def gradient(optimizer: optax.GradientTransformation) -> Solver:
    """Minimize q with an optax optimizer.

    Args:
      optimizer: any optax gradient transformation, e.g. `optax.adam(1e-2)`. Build it once: each call of optax makes
        a new one, and a new one is a new program to compile.

    Returns:
      Solver.

    Raises:
      ValueError: if optimizer is no gradient transformation.

    Example:
      >>> solver = gradient(optax.sgd(0.1))
      >>> state = solver.init(lambda h: 2 * h, jnp.ones(1))
      >>> for _ in range(3):  # `hidden` is the best of the states whose q is known
      ...     state = solver.step(lambda h: 2 * h, state)
      >>> float(state.hidden[0]) < 1
      True

    Source: Golub & Sussillo (2018), JOSS 3:1003 (FixedPointFinder). Differs: no step couples two candidates.
    """
    if not callable(getattr(optimizer, "init", None)) or not callable(getattr(optimizer, "update", None)):
        raise ValueError(f"optimizer must be an optax gradient transformation, got {arguments.came(optimizer)}.")

    def q_of(residual_fn: ResidualFn, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        r = residual_fn(hidden)
        return jnp.vdot(r, r) / 2, r

    def init(residual_fn: ResidualFn, hidden: jax.Array) -> State:
        q, _ = q_of(residual_fn, hidden)
        return State(hidden, q, jnp.zeros((), bool), hidden, optimizer.init(hidden))

    def step(residual_fn: ResidualFn, state: State) -> State:
        (q, r), slope = jax.value_and_grad(lambda h: q_of(residual_fn, h), has_aux=True)(state.iterate)
        better = q < state.q
        eps = float(jnp.finfo(q.dtype).eps)
        # slope = J'r: relative to ||r||, and to the size of the state where r itself is at the rounding of the state.
        done = jnp.linalg.norm(slope) <= eps ** (2 / 3) * jnp.linalg.norm(r)
        done |= jnp.linalg.norm(r) <= 8 * eps * jnp.linalg.norm(state.iterate)
        updates, optimizer_state = optimizer.update(slope, state.optimizer, state.iterate)
        return State(
            jnp.where(better, state.iterate, state.hidden),
            jnp.where(better, q, state.q),
            done,
            optax.apply_updates(state.iterate, updates),
            optimizer_state,
        )

    return Solver(init, step)
