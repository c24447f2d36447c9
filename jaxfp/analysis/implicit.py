"""Fixed points as differentiable functions of parameters and inputs.

Where A = dr/dh, that is J - I of a map and J of a flow, is regular at a zero h* of r(h, p), h*(p) is a function near
there, with derivative (implicit function theorem)

    dh*/dp = -A^-1 dr/dp.

Newton's method, its step halved until ||r|| falls, finds h*; nothing is differentiated through its iterations. The
derivative is one solve with the dense A, transposed for reverse mode, and it is itself a function of (h*, p) that can
be differentiated again (jax.lax.custom_root).

A simple eigenvalue of J at h*(p), with left and right vectors l and r, has the derivative

    dlambda/dp = l (dJ/dp + d2F/dh2 dh*/dp) r / (l r),

which is the derivative of l J(h*(p), p) r / (l r) with l and r held: moving them changes lambda in second order only.

Where two fixed points meet (a fold) A is singular and h* ceases to be a function. A zero is said to be at a FOLD when
A cannot be told from a singular matrix, sigma_min(A) <= sqrt(eps) (1 + ||h||) max(||A||, 1), so that the sign of its
determinant is uncertain; or when a residual as small as rounding could remove the point:
||A^-1||^2 ||r''|| floor >= 1/8, r'' taken along the direction that A shrinks most (Kantorovich's condition: 1/2 at
r = floor; 1/8 leaves room for what is estimated).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfp import dynamics
from jaxfp.search.solvers import levenberg_marquardt
from jaxfp.types import FIXED, FOLD, MAX_STEPS, NONFINITE, REJECTED, Array, Kind, Params, StepFn


class Info(NamedTuple):
    """How a fixed point was found and how sure its derivative is; each without the axis where there is one point.

    Attributes:
      residual: (n_points,) ||r|| at the point, activation per step (map) or per unit of time (flow).
      condition: (n_points,) ||A^-1|| max(||A||, 1) with A = I - J (map) or J (flow): about what an error in J, relative
        to max(||J||, 1), is multiplied by in h* and its derivative. Of norms from above, at most n_hidden times the
        2-norm's; infinite for a singular A. Never below ||A^-1||, so that a scalar near a fold is seen too.
      status: (n_points,) int: FIXED; FOLD, a zero of r where A is nearly or quite singular (a fold, a continuum, a
        saturated gate); REJECTED, ||r|| falls no further and is not zero (a slow point, a ghost); MAX_STEPS; NONFINITE.
      n_steps: (n_points,) int, steps of Newton's method.
    """

    residual: Any
    condition: Any
    status: Any
    n_steps: Any


@dynamics.float64_on_numpy
def fixed_point(
    step_fn: StepFn,
    params: Params,
    hidden0: Array,
    inputs: Array | None = None,
    *,
    kind: Kind = "map",
    max_steps: int = 50,
    has_aux: bool = False,
) -> Any:
    """The fixed point that Newton's method reaches, differentiable in params and inputs in both directions.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden0: (n_hidden,) or (n_points, n_hidden), floating, near the fixed point, e.g. one that `find_fixed_points`
        found. The result does not depend on it smoothly: its derivative is zero.
      inputs: None, (n_inputs,) or (n_points, n_inputs), held constant.
      kind: "map" or "flow".
      max_steps: Newton steps at most; a handful do from nearby.
      has_aux: return (h*, Info).

    Returns:
      h*, same shape as hidden0. Where there is none, or it is no function of params (FOLD with A singular to working
      precision), h* and its derivatives are NaN. With has_aux the status tells, and so that a mask on it is safe in
      reverse mode h* there is the state where Newton's method ended, with derivative zero.

    Raises:
      ValueError: if the shapes do not fit, hidden0 is not floating, kind is unknown or max_steps below 1.

    Example:
      >>> def step(w, hidden, inputs):
      ...     return jnp.tanh(w * hidden)
      >>> fixed_point(step, 1.5, np.ones(1)).round(4).tolist()
      [0.8586]
      >>> slope = jax.jit(jax.grad(lambda w: fixed_point(step, w, jnp.ones(1))[0]))(1.5)
      >>> round(float(slope), 2)  # h (1 - h^2) / (1 - w (1 - h^2))
      0.37

    Source: the implicit function theorem; jax.lax.custom_root.
    """
    hidden0 = jnp.asarray(hidden0)

    def one(h: jax.Array, u: jax.Array | None) -> Any:
        hidden, info = _solve(dynamics.residual_fn(step_fn, params, u, kind), h, max_steps, warn=not has_aux)
        return (hidden, info) if has_aux else hidden

    return dynamics.over_points(one, hidden0, inputs)


@dynamics.float64_on_numpy
def eigenvalue(
    step_fn: StepFn,
    params: Params,
    hidden: Array,
    inputs: Array | None,
    left: Array,
    right: Array,
    *,
    kind: Kind = "map",
) -> Any:
    """Eigenvalues of J at a fixed point, as functions of params and inputs: their first derivative is exact.

    With vectors of `spectrum` at the same params the value is the eigenvalue, and `jacfwd` or, of the real or imaginary
    part, `grad` is how it moves with params and inputs, the fixed point moving along. The vectors are held, so that
    second derivatives are not those of the eigenvalue. An eigenvalue that is not simple has no derivative; near such
    ones l r -> 0 and the derivative grows.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,), at or near the fixed point; polished here.
      inputs: None or (n_inputs,).
      left: (n_hidden,) or (n_modes, n_hidden), rows of `Modes.left`; any factor.
      right: (n_hidden,) or (n_hidden, n_modes), columns of `Modes.right`; any factor.
      kind: "map" or "flow".

    Returns:
      Complex scalar or (n_modes,); NaN where there is no fixed point.

    Raises:
      ValueError: if the shapes do not fit or kind is unknown.

    Example:
      >>> def step(params, hidden, inputs):
      ...     return jnp.tanh(params @ hidden)
      >>> weights, one = jnp.diag(jnp.array([0.5, 0.25])), jnp.array([1.0, 0.0])
      >>> slope = jax.jit(jax.grad(lambda w: eigenvalue(step, w, jnp.zeros(2), None, one, one).real))(weights)
      >>> slope.tolist()
      [[1.0, 0.0], [0.0, 0.0]]

    Source: Lancaster (1964), Numerische Mathematik 6:377. Differs: the total derivative, through the fixed point.
    """
    hidden, left, right = (jnp.asarray(x) for x in (hidden, left, right))
    n = hidden.shape[-1]
    if hidden.ndim != 1 or left.ndim != right.ndim or left.shape[-1:] != (n,) or left.shape[::-1] != right.shape:
        raise ValueError(
            "hidden must be (n_hidden,), left (n_hidden,) and right (n_hidden,), or (n_modes, n_hidden) and (n_hidden, "
            f"n_modes); got {hidden.shape}, {left.shape} and {right.shape}."
        )
    point = fixed_point(step_fn, params, hidden, inputs, kind=kind)

    def field(h: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return step_fn(params, h, inputs).astype(h.dtype)

    def one(row: jax.Array, column: jax.Array) -> jax.Array:
        real, imaginary = (
            jax.jvp(field, (point,), (part.astype(point.dtype),))[1] for part in (column.real, column.imag)
        )
        return (row * jax.lax.complex(real, imaginary)).sum() / (row * column).sum()

    dtype = jnp.dtype("complex128" if point.dtype == "float64" else "complex64")
    rows, columns = (jax.lax.stop_gradient(x).astype(dtype) for x in (left, right.T))
    return one(rows, columns) if rows.ndim == 1 else jax.vmap(one)(rows, columns)


class _Newton(NamedTuple):
    hidden: jax.Array
    residual: jax.Array
    norm: jax.Array
    n_steps: jax.Array
    running: jax.Array


def _solve(
    residual_of: Callable[[jax.Array], jax.Array], hidden0: jax.Array, max_steps: int, *, warn: bool
) -> tuple[jax.Array, Info]:
    """h* and Info from one state; with `warn` NaN where h* is no function of what residual_of closes over."""

    # `regular`, 0 or 1, is an unknown too: where it is 0 the equation is h = h, whose derivative is zero, and r is not
    # asked for slopes where it may have none; or, as a warning, it is one of NaN.
    def equations(unknowns: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden, regular = unknowns
        held = jax.lax.stop_gradient(unknowns)
        residual = residual_of(jnp.where(regular > 0, hidden, 0))
        none = hidden - held[0]
        if warn:
            none += alarm(held[1]) * residual
        return jnp.where(regular > 0, residual, none), regular - held[1]

    def alarm(regular: jax.Array) -> jax.Array:
        return jnp.where(regular > 0, 0, jnp.nan).astype(hidden0.dtype)

    def solve(_: Any, unknowns: tuple[jax.Array, jax.Array]) -> tuple[tuple[jax.Array, jax.Array], Info]:
        found = _newton(residual_of, unknowns[0], max_steps)
        info, regular = _judge(residual_of, found)
        # custom_root wants auxiliary results with tangents of their own dtype, which integers have not.
        return (found.hidden, regular), jax.tree.map(lambda x: x.astype(hidden0.dtype), info)

    def tangent_solve(linear: Any, right_side: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        side, still = right_side
        matrix = jax.jacfwd(lambda d: linear((d, jnp.zeros_like(still)))[0])(jnp.zeros_like(side))
        with jax.default_matmul_precision("highest"):
            return jnp.linalg.solve(matrix, side), still

    start = (jax.lax.stop_gradient(hidden0), jnp.zeros((), hidden0.dtype))
    (hidden, regular), info = jax.lax.custom_root(equations, start, solve, tangent_solve, has_aux=True)
    info = info._replace(status=info.status.astype(jnp.int32), n_steps=info.n_steps.astype(jnp.int32))
    hidden += alarm(jax.lax.stop_gradient(regular)) if warn else 0
    return hidden, jax.lax.stop_gradient(info)


def _newton(residual_of: Callable[[jax.Array], jax.Array], hidden0: jax.Array, max_steps: int) -> _Newton:
    """Newton's method until ||r|| falls no further, however short the step."""
    shortest = jnp.finfo(hidden0.dtype).eps ** 0.5

    def step(state: _Newton) -> _Newton:
        matrix = jax.jacfwd(residual_of)(state.hidden)
        with jax.default_matmul_precision("highest"):
            direction = -jnp.linalg.solve(matrix, state.residual)

        def at(share: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
            trial = state.hidden + share * direction
            residual = residual_of(trial)
            return share, trial, residual, jnp.linalg.norm(residual)

        def falls(share: jax.Array, norm: jax.Array) -> jax.Array:
            return norm < (1 - 1e-4 * share) * state.norm  # Armijo's rule; false for NaN

        # At the floor a whole step may help, a shorter one is noise, as is a long one (along a line of fixed points).
        # Under vmap a lane that is done asks for nothing.
        last = ~state.running | (state.norm <= levenberg_marquardt.floor(matrix, state.hidden))
        near = jnp.linalg.norm(direction) <= _reach(state.hidden)
        share, trial, residual, norm = jax.lax.while_loop(
            lambda s: ~falls(s[0], s[3]) & (s[0] > shortest) & ~last,
            lambda s: at(s[0] / 2),
            at(jnp.ones((), hidden0.dtype)),
        )
        better = falls(share, norm) & (near | ~last)
        hidden, residual, norm = (
            jnp.where(better, new, old)
            for new, old in ((trial, state.hidden), (residual, state.residual), (norm, state.norm))
        )
        return _Newton(hidden, residual, norm, state.n_steps + 1, better & ~last)

    residual = residual_of(hidden0)
    start = _Newton(hidden0, residual, jnp.linalg.norm(residual), jnp.zeros((), jnp.int32), jnp.ones((), bool))
    return jax.lax.while_loop(lambda s: s.running & (s.n_steps < max_steps), step, start)


def _judge(residual_of: Callable[[jax.Array], jax.Array], found: _Newton) -> tuple[Info, jax.Array]:
    """What was found, and 1 where the implicit function theorem holds there, else 0."""
    hidden, eps, n = found.hidden, jnp.finfo(found.hidden.dtype).eps, len(found.hidden)
    matrix = jax.jacfwd(residual_of)(hidden)
    with jax.default_matmul_precision("highest"):
        inverse = jnp.linalg.inv(matrix)
        distance = jnp.linalg.norm(inverse @ found.residual)
    size, amplified = _norm_bound(matrix), _norm_bound(inverse)
    condition = amplified * jnp.maximum(size, 1)
    condition = jnp.where(jnp.isnan(condition), jnp.inf, condition)

    reach = _reach(hidden)
    floor = levenberg_marquardt.floor(matrix, hidden)
    at_zero = (found.norm <= floor) | (~found.running & (distance <= reach))

    weakest = inverse[:, jnp.linalg.norm(inverse, axis=0).argmax()]
    weakest = weakest / jnp.linalg.norm(weakest)
    bend = jnp.linalg.norm(_second(residual_of, hidden, weakest))
    is_fold = ~(condition * reach < 1) | ~(amplified**2 * bend * floor < 1 / 8)
    status = jnp.select(
        [~jnp.isfinite(found.norm), at_zero & is_fold, at_zero, found.running],
        [NONFINITE, FOLD, FIXED, MAX_STEPS],
        REJECTED,
    )
    sure = (status == FIXED) | ((status == FOLD) & (condition * n * eps < 1) & (distance <= reach))
    return Info(found.norm, condition, status, found.n_steps), sure.astype(hidden.dtype)


def _reach(hidden: jax.Array) -> jax.Array:
    """How far from the true one a FIXED point may be, to first order."""
    return jnp.finfo(hidden.dtype).eps ** 0.5 * (1 + jnp.linalg.norm(hidden))


def _norm_bound(matrix: jax.Array) -> jax.Array:
    """||A||_2 from above, at most sqrt(n_hidden) times: (||A||_1 ||A||_inf)^(1/2)."""
    return jnp.sqrt(jnp.abs(matrix).sum(0).max() * jnp.abs(matrix).sum(1).max())


def _second(function: Callable[[jax.Array], jax.Array], hidden: jax.Array, way: jax.Array) -> jax.Array:
    """d2/dt2 function(hidden + t way)."""
    return jax.jvp(lambda h: jax.jvp(function, (h,), (way,))[1], (hidden,), (way,))[1]
