"""From where a lane ended to what it is: the last digits in float64, and the measures a verdict needs.

A few Gauss-Newton steps of least length, kept only where they lower q, bring a fixed point to the rounding floor.
Least length matters on a continuum, where plain Newton jumps along the null direction. Then, at the state returned:

    floor     8 eps sqrt(n) max(||h||, || |J_r||h| ||), what rounding alone leaves of ||r||
    slope     ||J_r' r|| / (||J_r|| ||r||), 0 where q is stationary

Where q has a minimum above the floor, its exact Hessian H = J_r'J_r + sum_i r_i d2r_i/dh2 takes Newton there, and
||H^-1 J_r'r|| says how far it still is.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve
from scipy.linalg import lapack

from jaxfp import compiling, dynamics, program
from jaxfp.search.solvers import levenberg_marquardt
from jaxfp.types import Kind, Params, StepFn

_N_POLISH = 8  # at a double zero each halves the distance
_N_MINIMIZE = 4
_N_POWER = 12


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
    """Polish and measure, in float64. Needs x64 in scope.

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
    return in_chunks(functools.partial(_polish, step_fn, kind, params), hidden, inputs, chunk_size)


def look(
    step_fn: StepFn, params: Params, hidden: np.ndarray, inputs: np.ndarray | None, *, kind: Kind, chunk_size: int
) -> Polished:
    """Measure as `polish` does, without polishing and without a Jacobian, for large networks. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened.
      hidden: (n_points, n_hidden) float64.
      inputs: (n_points, n_inputs) float64 or None.
      kind: "map" or "flow".
      chunk_size: states at a time.

    Returns:
      Polished at the hidden given; ||J_r|| by power iterations, || |J_r||h| || as ||J_r|| ||h||.

    Example:
      >>> with jax.enable_x64(True):
      ...     p = look(lambda p, h, u: 0.5 * h, None, np.ones((1, 1)), None, kind="map", chunk_size=1)
      >>> p.speed.tolist(), p.slope.round(6).tolist()
      ([0.5], [1.0])
    """
    return in_chunks(functools.partial(_look, step_fn, kind, params), hidden, inputs, chunk_size)


def minimize(
    step_fn: StepFn, params: Params, hidden: np.ndarray, inputs: np.ndarray | None, *, kind: Kind, chunk_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Newton on the gradient of q, for minima above the floor. Needs x64 in scope.

    Steps are kept where they shorten the gradient, not where they lower q: near a minimum q stops telling at half
    the digits.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened.
      hidden: (n_points, n_hidden) float64, near minima of q.
      inputs: (n_points, n_inputs) float64 or None.
      kind: "map" or "flow".
      chunk_size: states at a time.

    Returns:
      hidden (n_points, n_hidden); speed (n_points,); distance (n_points,), the length of the next step, infinite
      where the Hessian is not positive definite, so that q has no minimum nearby.

    Example:
      >>> start = np.full((1, 1), 1e-3)
      >>> with jax.enable_x64(True):
      ...     h, v, _ = minimize(lambda p, h, u: h + 1 + h**2, None, start, None, kind="map", chunk_size=1)
      >>> float(abs(h[0, 0])) < 1e-12, float(v[0])
      (True, 1.0)
    """
    return in_chunks(functools.partial(_minimize, step_fn, kind, params), hidden, inputs, chunk_size)


def residuals(
    step_fn: StepFn, params: Params, hidden: np.ndarray, inputs: np.ndarray | None, *, kind: Kind, chunk_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """R and the gate margin at each state. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened.
      hidden: (n_states, n_hidden) float64.
      inputs: (n_states, n_inputs) float64 or None.
      kind: "map" or "flow".
      chunk_size: states at a time.

    Returns:
      r (n_states, n_hidden) and gate_margin (n_states,), see `program.gate_margin`.

    Example:
      >>> with jax.enable_x64(True):
      ...     residuals(lambda p, h, u: p * h, 0.5, np.ones((1, 1)), None, kind="map", chunk_size=1)[0].item()
      -0.5
    """
    return in_chunks(functools.partial(_residual, step_fn, kind, params), hidden, inputs, chunk_size)


def gradients(
    step_fn: StepFn, params: Params, hidden: np.ndarray, inputs: np.ndarray | None, *, kind: Kind, chunk_size: int
) -> np.ndarray:
    """Gradient of q at each state, J_r'r. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened.
      hidden: (n_states, n_hidden) float64.
      inputs: (n_states, n_inputs) float64 or None.
      kind: "map" or "flow".
      chunk_size: states at a time.

    Returns:
      (n_states, n_hidden).

    Example:
      >>> with jax.enable_x64(True):
      ...     gradients(lambda p, h, u: p * h, 0.5, np.ones((1, 1)), None, kind="map", chunk_size=1).item()
      0.25
    """
    return in_chunks(functools.partial(_gradient, step_fn, kind, params), hidden, inputs, chunk_size)


def hessians(
    step_fn: StepFn, params: Params, hidden: np.ndarray, inputs: np.ndarray | None, *, kind: Kind, chunk_size: int
) -> np.ndarray:
    """Hessian of q at each state, exact. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened.
      hidden: (n_points, n_hidden) float64.
      inputs: (n_points, n_inputs) float64 or None.
      kind: "map" or "flow".
      chunk_size: states at a time.

    Returns:
      (n_points, n_hidden, n_hidden), symmetric.

    Example:
      >>> with jax.enable_x64(True):
      ...     hessians(lambda p, h, u: p * h, 0.5, np.ones((1, 1)), None, kind="map", chunk_size=1).item()
      0.25
    """
    return in_chunks(functools.partial(_hessian, step_fn, kind, params), hidden, inputs, chunk_size)


def falls_away(hessians: np.ndarray, eps: float) -> np.ndarray:
    """Is q, stationary at a state, without a minimum there: an eigenvalue under -sqrt(eps) times the largest in size?

    Args:
      hessians: (n_points, n_hidden, n_hidden) of q.
      eps: relative resolution of the step function.

    Returns:
      (n_points,) bool.

    Example:
      >>> falls_away(np.array([np.eye(2), np.diag([1.0, -0.1])]), 2.2e-16).tolist()
      [False, True]
    """
    falls = np.zeros(len(hessians), bool)
    for k, hessian in enumerate(hessians):
        slack = eps**0.5 * np.abs(hessian).max()  # the largest entry is no larger than the largest eigenvalue
        if lapack.dpotrf(hessian + slack * np.eye(len(hessian)))[1]:
            bends = np.linalg.eigvalsh(hessian)
            falls[k] = bends[0] < -(eps**0.5) * max(np.abs(bends).max(), np.finfo(float).tiny)
    return falls


def residual_jacobians(
    step_fn: StepFn, params: Params, hidden: np.ndarray, inputs: np.ndarray | None, *, kind: Kind, chunk_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """R and dr/dh at each point, exact. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened.
      hidden: (n_points, n_hidden) float64.
      inputs: (n_points, n_inputs) float64 or None.
      kind: "map" (J_r = J - I) or "flow" (J_r = J).
      chunk_size: states at a time.

    Returns:
      r (n_points, n_hidden) and J_r (n_points, n_hidden, n_hidden), float64.

    Example:
      >>> with jax.enable_x64(True):
      ...     r, j = residual_jacobians(lambda p, h, u: p * h, 0.5, np.ones((1, 1)), None, kind="map", chunk_size=1)
      >>> r.item(), j.item()
      (-0.5, -0.5)
    """
    return in_chunks(functools.partial(_jacobian, step_fn, kind, params), hidden, inputs, chunk_size)


def in_chunks(function: Any, hidden: np.ndarray, given: Any, chunk_size: int) -> Any:
    """Apply in chunks of one fixed width (one program), the last one padded with zeros.

    Args:
      function: of states (chunk_size, n_hidden) and what belongs to them, to a pytree of arrays with that leading axis.
      hidden: (n_states, n_hidden).
      given: pytree of arrays with that leading axis, e.g. the inputs, or None.
      chunk_size: states at a time.

    Returns:
      The pytree, NumPy, with the leading axis n_states.

    Example:
      >>> in_chunks(lambda h, u: h.sum(1), np.ones((3, 2)), None, 2).tolist()
      [2.0, 2.0, 2.0]
    """

    def chunk(x: np.ndarray, start: int) -> np.ndarray:
        part = x[start : start + chunk_size]
        if len(part) == chunk_size:
            return part
        padded = np.zeros((chunk_size, *x.shape[1:]), x.dtype)
        padded[: len(part)] = part
        return padded

    results = []
    for start in range(0, max(len(hidden), 1), chunk_size):
        at = jax.tree.map(lambda x, start=start: chunk(x, start), given)
        leaves, tree = jax.tree.flatten(function(chunk(hidden, start), at))
        results.append([np.asarray(x) for x in leaves])
    return jax.tree.unflatten(tree, [np.concatenate(parts)[: len(hidden)] for parts in zip(*results, strict=True)])


def _while_better(step: Callable[[jax.Array], tuple[jax.Array, jax.Array]], h: jax.Array, most: int) -> jax.Array:
    """Up to `most` steps; from a state that a step does not better, the next one would be the same."""

    def goes_on(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return carry[1] & (carry[2] < most)

    def next_one(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        return *step(carry[0]), carry[2] + 1

    return jax.lax.while_loop(goes_on, next_one, (h, jnp.ones((), bool), jnp.zeros((), jnp.int32)))[0]


@functools.partial(compiling.jit, static_argnums=(0, 1))
def _polish(step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None) -> Polished:
    def one(h: jax.Array, u: jax.Array | None) -> Polished:
        residual_fn = dynamics.residual_fn(step_fn, params, u, kind)

        def shorten(h: jax.Array) -> tuple[jax.Array, jax.Array]:
            r, jacobian = residual_fn(h), jax.jacfwd(residual_fn)(h)
            normal = jacobian.T @ jacobian
            # Singular values under sqrt(eps) ||J_r|| count as 0: along them r says nothing.
            mu = jnp.finfo(h.dtype).eps * jnp.trace(normal)
            move = cho_solve(cho_factor(normal + mu * jnp.eye(h.size, dtype=h.dtype)), jacobian.T @ r)
            better = jnp.linalg.norm(residual_fn(h - move)) < jnp.linalg.norm(r)  # False for NaN
            return jnp.where(better, h - move, h), better

        with jax.default_matmul_precision("highest"):
            h = _while_better(shorten, h, _N_POLISH)
            r, jacobian = residual_fn(h), jax.jacfwd(residual_fn)(h)
            speed = jnp.linalg.norm(r)
            # ||J'J||_F^(1/2) is within n^(1/4) of ||J||, and cheap.
            size = jnp.sqrt(jnp.linalg.norm(jacobian.T @ jacobian))
            slope = jnp.linalg.norm(jacobian.T @ r)
            slope = jnp.where(slope > 0, slope / (size * speed), 0)
        floor = levenberg_marquardt.floor(jacobian, h)
        return Polished(h, speed, floor, slope, program.gate_margin(step_fn, params, h, u))

    return dynamics.over_points(one, hidden, inputs)


@functools.partial(compiling.jit, static_argnums=(0, 1))
def _look(step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None) -> Polished:
    def one(h: jax.Array, u: jax.Array | None) -> Polished:
        r, product = jax.linearize(dynamics.residual_fn(step_fn, params, u, kind), h)
        transposed = jax.linear_transpose(product, h)
        tiny = jnp.finfo(h.dtype).tiny

        def power(v: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            image = transposed(product(v))[0]
            length = jnp.linalg.norm(image)
            return image / jnp.maximum(length, tiny), jnp.sqrt(length)

        with jax.default_matmul_precision("highest"):
            gradient = transposed(r)[0]
            _, sizes = jax.lax.scan(power, jnp.ones_like(h) / h.size**0.5, length=_N_POWER)
        size, speed = sizes[-1], jnp.linalg.norm(r)
        steep = jnp.linalg.norm(gradient)
        slope = jnp.where(steep > 0, steep / jnp.maximum(size * speed, tiny), 0)
        eps = float(jnp.finfo(h.dtype).eps)
        scale = jnp.maximum(jnp.linalg.norm(h) * jnp.maximum(size, 1), eps**0.5)
        return Polished(h, speed, 8 * eps * h.size**0.5 * scale, slope, program.gate_margin(step_fn, params, h, u))

    return dynamics.over_points(one, hidden, inputs)


@functools.partial(compiling.jit, static_argnums=(0, 1))
def _minimize(
    step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def one(h: jax.Array, u: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        residual_fn = dynamics.residual_fn(step_fn, params, u, kind)
        slope_of = jax.grad(lambda h: jnp.vdot(residual_fn(h), residual_fn(h)) / 2)

        def step_from(h: jax.Array) -> jax.Array:
            return cho_solve(cho_factor(jax.jacfwd(slope_of)(h)), slope_of(h))  # NaN unless positive definite

        def newton(h: jax.Array) -> tuple[jax.Array, jax.Array]:
            moved = h - step_from(h)
            better = jnp.linalg.norm(slope_of(moved)) < jnp.linalg.norm(slope_of(h))  # False for NaN
            return jnp.where(better, moved, h), better

        with jax.default_matmul_precision("highest"):
            h = _while_better(newton, h, _N_MINIMIZE)
            distance = jnp.linalg.norm(step_from(h))
        return h, jnp.linalg.norm(residual_fn(h)), jnp.where(jnp.isnan(distance), jnp.inf, distance)

    return dynamics.over_points(one, hidden, inputs)


@functools.partial(compiling.jit, static_argnums=(0, 1))
def _residual(
    step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    def one(h: jax.Array, u: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        return dynamics.residual_fn(step_fn, params, u, kind)(h), program.gate_margin(step_fn, params, h, u)

    return dynamics.over_points(one, hidden, inputs)


@functools.partial(compiling.jit, static_argnums=(0, 1))
def _gradient(step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None) -> jax.Array:
    def one(h: jax.Array, u: jax.Array | None) -> jax.Array:
        residual_fn = dynamics.residual_fn(step_fn, params, u, kind)
        with jax.default_matmul_precision("highest"):
            return jax.grad(lambda h: jnp.vdot(residual_fn(h), residual_fn(h)) / 2)(h)

    return dynamics.over_points(one, hidden, inputs)


@functools.partial(compiling.jit, static_argnums=(0, 1))
def _hessian(step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None) -> jax.Array:
    def one(h: jax.Array, u: jax.Array | None) -> jax.Array:
        residual_fn = dynamics.residual_fn(step_fn, params, u, kind)
        with jax.default_matmul_precision("highest"):
            hessian = jax.jacfwd(jax.grad(lambda h: jnp.vdot(residual_fn(h), residual_fn(h)) / 2))(h)
        return (hessian + hessian.T) / 2

    return dynamics.over_points(one, hidden, inputs)


@functools.partial(compiling.jit, static_argnums=(0, 1))
def _jacobian(step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None) -> Any:
    def one(h: jax.Array, u: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        residual_fn = dynamics.residual_fn(step_fn, params, u, kind)
        with jax.default_matmul_precision("highest"):
            return residual_fn(h), jax.jacfwd(residual_fn)(h)

    return dynamics.over_points(one, hidden, inputs)
