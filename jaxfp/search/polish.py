"""From where a lane ended to what it is: float64 Newton, and the measures a verdict needs.

Newton on r, kept only where it lowers q, brings a fixed point to the rounding floor. Then, at the state returned:

    at floor      ||r|| <= 8 eps sqrt(n) max(||h||, || |J_r||h| ||)
    stationary    ||J_r' r|| <= 10 sqrt(eps) ||J_r|| ||r||
    distance      ||J_r^-1 r||, to first order how far the true fixed point is
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import dynamics, program
from jaxfp.search.solvers import levenberg_marquardt
from jaxfp.types import Kind, Params, StepFn

_N_NEWTON = 4


class Polished(NamedTuple):
    """One state after polishing, with what was measured there.

    Attributes:
      hidden: (n_points, n_hidden) float64.
      speed: (n_points,) ||r||.
      floor: (n_points,) the residual that float64 rounding alone leaves.
      slope: (n_points,) ||J_r' r|| / (||J_r|| ||r||): 0 at a stationary point of q.
      gate_margin: (n_points,) see `program.gate_margin`.
    """

    hidden: Any
    speed: Any
    floor: Any
    slope: Any
    gate_margin: Any


def polish(
    step_fn: StepFn, params: Params, hidden: np.ndarray, inputs: np.ndarray | None, *, kind: Kind, chunk_size: int
) -> Polished:
    """Newton and measure, in float64. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened.
      hidden: (n_points, n_hidden) float64.
      inputs: (n_points, n_inputs) float64 or None.
      kind: "map" or "flow".
      chunk_size: states at a time.

    Returns:
      Polished of NumPy arrays; its hidden has a q no larger than the hidden given.

    Example:
      >>> with jax.enable_x64(True):
      ...     p = polish(lambda p, h, u: jnp.tanh(p * h), 1.5, np.full((1, 1), 0.8), None, kind="map", chunk_size=1)
      >>> bool(p.speed[0] <= p.floor[0])
      True
    """
    return _in_chunks(functools.partial(_polish, step_fn, kind, params), hidden, inputs, chunk_size)


def residual_jacobians(
    step_fn: StepFn, params: Params, hidden: np.ndarray, inputs: np.ndarray | None, *, kind: Kind, chunk_size: int
) -> np.ndarray:
    """dr/dh at each point, exact. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened.
      hidden: (n_points, n_hidden) float64.
      inputs: (n_points, n_inputs) float64 or None.
      kind: "map" (J_r = J - I) or "flow" (J_r = J).
      chunk_size: states at a time.

    Returns:
      (n_points, n_hidden, n_hidden) float64.

    Example:
      >>> with jax.enable_x64(True):
      ...     residual_jacobians(lambda p, h, u: p * h, 0.5, np.ones((1, 1)), None, kind="map", chunk_size=1).item()
      -0.5
    """
    return _in_chunks(functools.partial(_jacobian, step_fn, kind, params), hidden, inputs, chunk_size)


def _in_chunks(function: Any, hidden: np.ndarray, inputs: np.ndarray | None, chunk_size: int) -> Any:
    """Apply in chunks of one fixed width (one program), padded with the first row."""
    results = []
    for start in range(0, max(len(hidden), 1), chunk_size):
        rows = np.arange(start, min(start + chunk_size, len(hidden)))
        if not len(rows):
            return jax.tree.map(lambda x: np.zeros((0, *x.shape[1:]), x.dtype), _shape_of(function, hidden, inputs))
        padded = np.concatenate([rows, np.full(chunk_size - len(rows), rows[0])])
        result = function(hidden[padded], None if inputs is None else inputs[padded])
        results.append(jax.tree.map(lambda x, n=len(rows): np.asarray(x)[:n], result))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def _shape_of(function: Any, hidden: np.ndarray, inputs: np.ndarray | None) -> Any:
    row = jax.ShapeDtypeStruct((1, hidden.shape[1]), np.float64)
    drive = None if inputs is None else jax.ShapeDtypeStruct((1, inputs.shape[1]), np.float64)
    return jax.eval_shape(function, row, drive)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _polish(step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None) -> Polished:
    def one(h: jax.Array, u: jax.Array | None) -> Polished:
        residual_fn = dynamics.residual_fn(step_fn, params, u, kind)

        def newton(h: jax.Array, _: None) -> tuple[jax.Array, None]:
            r = residual_fn(h)
            moved = h - jnp.linalg.solve(jax.jacfwd(residual_fn)(h), r)
            better = jnp.linalg.norm(residual_fn(moved)) < jnp.linalg.norm(r)  # False for NaN
            return jnp.where(better, moved, h), None

        with jax.default_matmul_precision("highest"):
            h, _ = jax.lax.scan(newton, h, length=_N_NEWTON)
            r, jacobian = residual_fn(h), jax.jacfwd(residual_fn)(h)
            speed = jnp.linalg.norm(r)
            # ||J'J||_F^(1/2) is within n^(1/4) of ||J||, and cheap.
            size = jnp.sqrt(jnp.linalg.norm(jacobian.T @ jacobian))
            slope = jnp.linalg.norm(jacobian.T @ r)
            slope = jnp.where(slope > 0, slope / (size * speed), 0)
        floor = levenberg_marquardt.floor(jacobian, h)
        return Polished(h, speed, floor, slope, program.gate_margin(step_fn, params, h, u))

    return dynamics.over_points(one, hidden, inputs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _jacobian(step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None) -> jax.Array:
    def one(h: jax.Array, u: jax.Array | None) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return jax.jacfwd(dynamics.residual_fn(step_fn, params, u, kind))(h)

    return dynamics.over_points(one, hidden, inputs)
