"""Levenberg-Marquardt on q(h) = 1/2 ||r(h)||^2, dense.

    (J'J + mu I) d = -J'r,      J = dr/dh,      accepted iff q(h + d) < q(h).

At a fixed point this is Newton's method; at a slow point it descends q itself, where Newton on r would be thrown
out. The damping mu follows the ratio of the decrease achieved to the one predicted (Nielsen 1999, Damping parameter
in Marquardt's method), relative to the largest diagonal entry of J'J.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from jaxfp import arguments
from jaxfp.types import ResidualFn, Solver


class State(NamedTuple):
    """One candidate on its way.

    Attributes:
      hidden: (n_hidden,).
      q: scalar, at `hidden`.
      done: bool, at the rounding floor, at a stationary point of q, or unable to move.
      damping: scalar, mu over the largest diagonal entry of J'J.
      growth: scalar, what the next rejected step multiplies the damping by.
    """

    hidden: jax.Array
    q: jax.Array
    done: jax.Array
    damping: jax.Array
    growth: jax.Array


def levenberg_marquardt(damping: float = 1e-2) -> Solver:
    """Dense Levenberg-Marquardt: forms J and J'J for each candidate, for n_hidden up to a few hundred.

    Args:
      damping: first mu, relative to the largest diagonal entry of J'J. Small: bold Newton-like first steps, which
        find saddles; large: cautious descent.

    Returns:
      Solver. Equal arguments give the equal solver, so that searches share one compiled program.

    Raises:
      ValueError: if damping is not positive and finite.

    Example:
      >>> solver = levenberg_marquardt()
      >>> state = solver.init(lambda h: h**2 - 2, jnp.array([1.0]))
      >>> for _ in range(8):
      ...     state = solver.step(lambda h: h**2 - 2, state)
      >>> round(float(state.hidden[0]), 5)
      1.41421

    Source: Levenberg (1944); Marquardt (1963); used for fixed points since Sussillo & Barak (2013).
    """
    arguments.check_number("damping", damping, positive=True)
    return Solver(_Init(damping), _step)


@dataclasses.dataclass(frozen=True)
class _Init:
    """`init` as a value: two solvers with the same damping are equal and share a trace."""

    damping: float

    def __call__(self, residual_fn: ResidualFn, hidden: jax.Array) -> State:
        r = residual_fn(hidden)
        one = jnp.ones((), hidden.dtype)
        return State(hidden, jnp.vdot(r, r) / 2, jnp.zeros((), bool), self.damping * one, 2 * one)


def _step(residual_fn: ResidualFn, state: State) -> State:
    hidden = state.hidden

    def twice(h: jax.Array) -> tuple[jax.Array, jax.Array]:
        r = residual_fn(h)
        return r, r

    jacobian, r = jax.jacfwd(twice, has_aux=True)(hidden)
    gradient = jacobian.T @ r
    normal = jacobian.T @ jacobian
    mu = state.damping * jnp.maximum(jnp.max(jnp.diag(normal)), jnp.finfo(hidden.dtype).tiny)
    identity = jnp.eye(hidden.size, dtype=hidden.dtype)
    move = -cho_solve(cho_factor(normal + mu * identity), gradient)
    moved = residual_fn(hidden + move)
    q_moved = jnp.vdot(moved, moved) / 2

    predicted = jnp.vdot(move, mu * move - gradient) / 2
    new, accept = moved_by(state, move, q_moved, predicted)
    return new._replace(done=_done(r, jacobian, gradient, normal, hidden, move, accept))


def moved_by(state: State, move: jax.Array, q_moved: jax.Array, predicted: jax.Array) -> tuple[State, jax.Array]:
    """Take a step if it lowers q, and set the damping by the decrease achieved over the one predicted.

    Args:
      state: before the step.
      move: (n_hidden,).
      q_moved: scalar, q at hidden + move.
      predicted: scalar, by how much the quadratic model says that q falls.

    Returns:
      State, `done` as it was; and whether the step was taken.

    Example:
      >>> one = jnp.ones(())
      >>> state, accept = moved_by(State(jnp.ones(1), one, False, one, 2 * one), -jnp.ones(1), 0 * one, one)
      >>> float(state.hidden[0]), float(state.damping), bool(accept)  # a gain of 1: a tenth of the damping
      (0.0, 0.10000000149011612, True)

    Source: Nielsen (1999), Damping parameter in Marquardt's method.
    """
    gain = (state.q - q_moved) / predicted
    accept = q_moved < state.q  # False for NaN: an indefinite factor or an overflow only raises the damping
    damping = state.damping * jnp.where(accept, jnp.clip(1 - (2 * gain - 1) ** 3, 1 / 10, 1), state.growth)
    growth = jnp.where(accept, 2, 2 * state.growth).astype(move.dtype)
    hidden = jnp.where(accept, state.hidden + move, state.hidden)
    return State(hidden, jnp.where(accept, q_moved, state.q), state.done, damping, growth), accept


def _done(
    r: jax.Array,
    jacobian: jax.Array,
    gradient: jax.Array,
    normal: jax.Array,
    hidden: jax.Array,
    move: jax.Array,
    accept: jax.Array,
) -> jax.Array:
    """No further step of this dtype is worth taking."""
    eps = float(jnp.finfo(hidden.dtype).eps)
    speed = jnp.linalg.norm(r)
    at_floor = speed <= floor(jacobian, hidden)
    # ||J'J||_F^(1/2) bounds ||J|| within n^(1/4). eps^(2/3): below judgment's 10 sqrt(eps) in float64, above float32
    # noise.
    stationary = jnp.linalg.norm(gradient) <= eps ** (2 / 3) * jnp.sqrt(jnp.linalg.norm(normal)) * speed
    stuck = jnp.linalg.norm(move) <= eps * (jnp.linalg.norm(hidden) + eps**0.5)
    # At the floor the step that still helped is followed by another: the last digits are the cheapest.
    return (at_floor & ~accept) | stationary | stuck


def floor(jacobian: jax.Array, hidden: jax.Array) -> jax.Array:
    """The residual that rounding alone leaves: 8 eps sqrt(n) max(||h||, || |J||h| ||).

    Args:
      jacobian: (n_hidden, n_hidden), dr/dh.
      hidden: (n_hidden,).

    Returns:
      Scalar, activation per step. Near h = 0, where no unit sets a scale, sqrt(eps) takes the place of ||h||.

    Example:
      >>> float(floor(jnp.eye(1), jnp.ones(1))) == 8 * float(jnp.finfo(jnp.float32).eps)
      True
    """
    eps = float(jnp.finfo(hidden.dtype).eps)
    carried = jnp.linalg.norm(jnp.abs(jacobian) @ jnp.abs(hidden))
    scale = jnp.maximum(jnp.maximum(jnp.linalg.norm(hidden), carried), eps**0.5)
    return 8 * eps * hidden.size**0.5 * scale
