"""Zeros of r, found once and shared by all lanes that lead there.

One lane of many is taken to the last digit in float64, with one Jacobian and one factorization:

    h <- h - J_r(h_0)^-1 r(h)                        chord steps, to the rounding floor

Another lane h belongs to the zero h* found if r(h) is, to a quarter, what the linear model at h* makes of it:

    ||(h - h*) - J_r^-1 r(h)|| <= 1/4 ||h - h*||.

Then a chord step from h ends four times nearer to h*, while for a lane at another zero r(h) would vanish and the left
side be all of ||h - h*||: what belongs to h* is what Newton's method would take there. Minima of q above zero are
shared in the same way, with the gradient of q in place of r and its Hessian in place of J_r.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import lapack

from jaxfp import compiling, dynamics, program
from jaxfp.search import dedupe, polish
from jaxfp.types import Kind, Params, StepFn

_N_CHORD = 6
_GRID = 2.0**-30  # relative to the size of a state: coarse beside rounding, fine beside the reach of its factors
_CONTRACTION = 0.25
SURE = 1 / 8  # of a lane not landed yet: so near, no other zero takes it, and hits do not depend on the order
_STILL = 1e-3  # of what judgment asks for, how far a shared zero may be off
_LARGEST_WIDE = 512  # units up to which factors are float64, and beyond where float32 is too coarse for a zero
_LEAST_RCOND = 1e-12  # beyond it a solve has too few digits left to tell a quarter


class Factors(NamedTuple):
    """LU of one matrix, as LAPACK keeps it.

    Attributes:
      lu: (n, n).
      pivots: (n,).
      rcond: estimated reciprocal of the condition in the 1-norm; 0 for a singular matrix.
      size: 1-norm of the matrix.
    """

    lu: np.ndarray
    pivots: np.ndarray
    rcond: float
    size: float


class Zeros(NamedTuple):
    """Zeros of r, or minima of q, that lanes may belong to.

    Attributes:
      hidden: (n_zeros, n_hidden) float64.
      inputs: (n_zeros, n_inputs) float64 or None.
      factors: of J_r (of the Hessian of q) near each.
    """

    hidden: np.ndarray
    inputs: np.ndarray | None
    factors: list[Factors]


class Refined(NamedTuple):
    """Lanes after chord steps.

    Attributes:
      hidden: (n_lanes, n_hidden) float64.
      speed: (n_lanes,) ||r|| there.
      floor: (n_lanes,) the residual that float64 rounding alone leaves.
      gate_margin: (n_lanes,) see `program.gate_margin`.
      factors: of J_r where the chord steps began.
      shareable: (n_lanes,) bool, J_r is regular enough to say which lanes belong here.
    """

    hidden: np.ndarray
    speed: np.ndarray
    floor: np.ndarray
    gate_margin: np.ndarray
    factors: list[Factors]
    shareable: np.ndarray


def factorize(matrix: np.ndarray) -> Factors:
    """LU with its condition; never raises.

    Args:
      matrix: (n, n) float64 or float32.

    Returns:
      Factors in its dtype; rcond 0 where the matrix is singular or not finite.

    Example:
      >>> factorize(np.diag([1.0, 0.5])).rcond
      0.5
    """
    wide = matrix.dtype == np.float64
    factor, condition = (lapack.dgetrf, lapack.dgecon) if wide else (lapack.sgetrf, lapack.sgecon)
    size = float(np.abs(matrix).sum(0).max(initial=0.0))
    lu, pivots, failed = factor(matrix)
    rcond = 0.0
    if failed == 0 and np.isfinite(size):
        rcond = float(condition(lu, size)[0])
    return Factors(lu, pivots, rcond, size)


def solve(factors: Factors, rows: np.ndarray) -> np.ndarray:
    """Solve for each row.

    Args:
      factors: of an (n, n) matrix A.
      rows: (m, n) right-hand sides.

    Returns:
      (m, n) float64 rows x with A x = row, to the precision of the factors; not finite where A is singular.

    Example:
      >>> solve(factorize(np.diag([1.0, 0.5])), np.ones((1, 2))).tolist()
      [[1.0, 2.0]]
    """
    if factors.rcond == 0:
        return np.full(rows.shape, np.nan)
    # One row that is not finite leaves the others alone: only its own column turns to NaN.
    if factors.lu.dtype == np.float64:
        return lapack.dgetrs(factors.lu, factors.pivots, rows.T)[0].T
    scale = np.abs(rows).max(1, keepdims=True, initial=np.finfo(float).tiny)  # what single precision cannot hold
    return scale * lapack.sgetrs(factors.lu, factors.pivots, (rows / scale).T)[0].T.astype(np.float64)


def least_singular(factors: Factors) -> float:
    """Estimate of the least singular value, on the low side: 1 / (sqrt(n) ||A^-1||_1).

    Args:
      factors: of an (n, n) matrix A.

    Returns:
      Its size; LAPACK's estimate of ||A^-1||_1 is seldom off by more than 3.

    Example:
      >>> round(least_singular(factorize(np.diag([1.0, 0.5]))), 6)  # 0.5 / sqrt(2)
      0.353553
    """
    return factors.rcond * factors.size / len(factors.lu) ** 0.5


def refine(
    step_fn: StepFn,
    params: Params,
    hidden: np.ndarray,
    inputs: np.ndarray | None,
    *,
    kind: Kind,
    chunk_size: int,
    n_dense: int,
) -> Refined:
    """Chord steps to the rounding floor. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened.
      hidden: (n_lanes, n_hidden) float64, near zeros of r.
      inputs: (n_lanes, n_inputs) float64 or None.
      kind: "map" or "flow".
      chunk_size: states at a time.
      n_dense: Jacobians at a time.

    Returns:
      Refined; its hidden has a speed no larger than the hidden given.

    Example:
      >>> import jax
      >>> with jax.enable_x64(True):
      ...     near = refine(
      ...         lambda p, h, u: p * h * h, 1.0, np.full((1, 1), 1 + 1e-6), None, kind="map", chunk_size=1, n_dense=1
      ...     )
      >>> near.hidden.round(12).tolist(), bool(near.speed[0] <= near.floor[0])
      ([[1.0]], True)
    """
    n_lanes, n_hidden = hidden.shape
    wide = n_hidden <= _LARGEST_WIDE
    parts = []
    for start in range(0, max(n_lanes, 1), n_dense):
        rows = slice(start, start + n_dense)
        u = None if inputs is None else inputs[rows]
        parts.append(_refine(step_fn, params, hidden[rows], u, kind, n_dense, wide))
    together = Refined(
        hidden=np.concatenate([part.hidden for part in parts]),
        speed=np.concatenate([part.speed for part in parts]),
        floor=np.concatenate([part.floor for part in parts]),
        gate_margin=np.concatenate([part.gate_margin for part in parts]),
        factors=[factors for part in parts for factors in part.factors],
        shareable=np.concatenate([part.shareable for part in parts]),
    )
    coarse = np.flatnonzero(~together.shareable & (together.speed <= together.floor) & (not wide))
    for row in coarse:  # zeros all the same: with factors in double precision they can be shared
        u = None if inputs is None else inputs[row : row + 1]
        again = _refine(step_fn, params, together.hidden[row : row + 1], u, kind, n_dense, True)
        together.factors[row] = again.factors[0]
        for name in ("hidden", "speed", "floor", "gate_margin", "shareable"):
            getattr(together, name)[row] = getattr(again, name)[0]
    return together


def _refine(
    step_fn: StepFn,
    params: Params,
    hidden: np.ndarray,
    inputs: np.ndarray | None,
    kind: Kind,
    n_dense: int,
    wide: bool,
) -> Refined:
    at: dict[str, Any] = {"inputs": inputs, "kind": kind, "n_dense": n_dense, "wide": wide}
    first = _chord(step_fn, params, hidden, n_more=0, **at)
    # Again from the nearest state on a grid, so that the last bits do not tell which lane it was that came here.
    grid = _GRID * np.exp2(np.ceil(np.log2(1 + np.abs(first.hidden).max(1, initial=0.0))))[:, None]
    again = _chord(step_fn, params, np.round(first.hidden / grid) * grid, n_more=1, **at)
    good = again.shareable & (again.speed <= again.floor)
    if good.all():
        return again
    return Refined(
        hidden=np.where(good[:, None], again.hidden, first.hidden),
        speed=np.where(good, again.speed, first.speed),
        floor=np.where(good, again.floor, first.floor),
        gate_margin=np.where(good, again.gate_margin, first.gate_margin),
        factors=[b if g else a for a, b, g in zip(first.factors, again.factors, good, strict=True)],
        shareable=np.where(good, again.shareable, first.shareable),
    )


def _chord(
    step_fn: StepFn,
    params: Params,
    hidden: np.ndarray,
    inputs: np.ndarray | None,
    kind: Kind,
    n_dense: int,
    wide: bool,
    n_more: int,
) -> Refined:
    """One Jacobian and one factorization a lane, then chord steps; `n_more` of them once it is at the floor."""
    n_lanes, eps = len(hidden), float(np.finfo(float).eps)
    # The residual makes the digits; for its factors half of them are enough, at a third of the time.
    given = (params, hidden, inputs) if wide else dynamics.narrow((params, hidden, inputs), np.float32)
    _, jacobians = polish.residual_jacobians(step_fn, *given, kind=kind, chunk_size=n_dense)
    factors = [factorize(j) for j in jacobians]
    carried = np.linalg.norm((np.abs(jacobians, out=jacobians) @ np.abs(hidden)[:, :, None])[:, :, 0], axis=1)
    del jacobians
    floor = 8 * eps * hidden.shape[1] ** 0.5 * np.maximum(carried, np.linalg.norm(hidden, axis=1))
    lu = np.stack([f.lu for f in factors]) if factors else np.zeros((0, *2 * hidden.shape[1:]))
    order = np.stack([_order(f.pivots) for f in factors]) if factors else np.zeros(hidden.shape, int)
    matrices = lu, order, floor, np.full(n_lanes, n_more)
    function = functools.partial(_chord_steps, step_fn, kind, params)
    hidden, speed, margin, left = polish.in_chunks(function, hidden, (inputs, *matrices), n_dense)
    size = np.linalg.norm(hidden, axis=1)
    floor = 8 * eps * hidden.shape[1] ** 0.5 * np.maximum(np.maximum(size, carried), eps**0.5)
    # Where a further step would still move, as at a double root, every lane must be looked at by itself.
    shareable = left <= _STILL * eps**0.5 * (1 + size)  # False for NaN
    shareable &= np.array([f.rcond > max(_LEAST_RCOND, 100 * np.finfo(f.lu.dtype).eps) for f in factors], bool)
    return Refined(hidden, speed, floor, margin, factors, shareable)


def _order(pivots: np.ndarray) -> np.ndarray:
    """The rows of a matrix, as LAPACK's exchanges leave them."""
    return lapack.dlaswp(np.arange(float(len(pivots)))[:, None], pivots)[:, 0].astype(int)


@functools.partial(compiling.jit, static_argnums=(0, 1))
def _chord_steps(step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, given: Any) -> tuple[jax.Array, ...]:
    """hidden, speed, gate margin, and the length of the next step."""

    def one(
        hidden: jax.Array,
        u: jax.Array | None,
        lu: jax.Array,
        order: jax.Array,
        floor: jax.Array,
        n_more: jax.Array,
    ) -> tuple[jax.Array, ...]:
        residual_fn = dynamics.residual_fn(step_fn, params, u, kind)

        def solved(r: jax.Array) -> jax.Array:
            scale = jnp.maximum(jnp.abs(r).max(), jnp.finfo(r.dtype).tiny)  # what single precision cannot hold
            rest = (r / scale).astype(lu.dtype)[order][:, None]
            for lower in (True, False):
                rest = jax.lax.linalg.triangular_solve(lu, rest, left_side=True, lower=lower, unit_diagonal=lower)
            return scale * rest[:, 0].astype(r.dtype)

        def step(carry: Any) -> Any:
            hidden, r, n_left, _ = carry
            moved = hidden - solved(r)
            r_moved = residual_fn(moved)
            better = jnp.linalg.norm(r_moved) < jnp.linalg.norm(r)  # False for NaN
            hidden, r = jnp.where(better, moved, hidden), jnp.where(better, r_moved, r)
            n_left = jnp.where(jnp.linalg.norm(r) <= floor, jnp.minimum(n_left - 1, n_more), n_left - 1)
            return hidden, r, n_left, better

        carry = (hidden, residual_fn(hidden), jnp.full_like(n_more, _N_CHORD), jnp.ones((), bool))
        hidden, r, *_ = jax.lax.while_loop(lambda carry: carry[3] & (carry[2] > 0), step, carry)
        margin = program.gate_margin(step_fn, params, hidden, u)
        return hidden, jnp.linalg.norm(r), margin, jnp.linalg.norm(solved(r))

    return jax.vmap(one)(hidden, *given)


def belongs_to(
    zeros: Zeros,
    hidden: np.ndarray,
    inputs: np.ndarray | None,
    residuals: np.ndarray | None,
    tolerance: np.ndarray,
    contraction: float = _CONTRACTION,
) -> np.ndarray:
    """The zero each lane belongs to.

    Args:
      zeros: known ones.
      hidden: (n_lanes, n_hidden) float64.
      inputs: (n_lanes, n_inputs) or None; a lane belongs to a zero at its own input only.
      residuals: (n_lanes, n_hidden), r (or the gradient of q) at hidden; None where these are zeros themselves.
      tolerance: (n_lanes,) distance within which a lane is at a zero whatever its residual, activation units.
      contraction: share of ||h - h*|| that the linear model may leave unexplained.

    Returns:
      (n_lanes,) row of zeros, -1 for none.

    Example:
      >>> zeros = Zeros(np.zeros((1, 1)), None, [factorize(np.eye(1))])  # r = h + h^2
      >>> lanes = np.array([[0.1], [-0.9]])
      >>> belongs_to(zeros, lanes, None, lanes + lanes**2, np.zeros(2)).tolist()
      [0, -1]
    """
    closest = nearest(zeros.hidden, zeros.inputs, hidden, inputs)
    lanes = np.flatnonzero(closest >= 0)
    lanes = lanes[np.argsort(closest[lanes], kind="stable")]
    away = hidden[lanes] - zeros.hidden[closest[lanes]]
    far = np.linalg.norm(away, axis=1)
    label = np.full(len(hidden), -1)
    if residuals is None:
        at = far <= tolerance[lanes]
        label[lanes[at]] = closest[lanes[at]]
        return label
    bounds = np.searchsorted(closest[lanes], np.arange(len(zeros.hidden) + 1))
    step = np.empty_like(away)
    for k in np.flatnonzero(np.diff(bounds)):  # the lanes of one zero lie together
        here = slice(bounds[k], bounds[k + 1])
        step[here] = solve(zeros.factors[k], residuals[lanes[here]])
    left = np.linalg.norm(away - step, axis=1)
    belongs = (left <= contraction * far) | (far <= tolerance[lanes])
    label[lanes[belongs]] = closest[lanes[belongs]]
    return label


def nearest(
    points: np.ndarray, point_inputs: np.ndarray | None, hidden: np.ndarray, inputs: np.ndarray | None
) -> np.ndarray:
    """The nearest point at the same input.

    Args:
      points: (n_points, n_hidden).
      point_inputs: (n_points, n_inputs) or None.
      hidden: (n_lanes, n_hidden).
      inputs: (n_lanes, n_inputs) or None.

    Returns:
      (n_lanes,) row of points; -1 where there is none, or hidden is not finite.

    Example:
      >>> nearest(np.array([[0.0], [1.0]]), None, np.array([[0.9], [np.nan]]), None).tolist()
      [1, -1]
    """
    if not len(points) or not len(hidden):
        return np.full(len(hidden), -1)
    lost = ~np.isfinite(hidden).all(1)
    hidden = np.where(lost[:, None], 0.0, hidden)
    squared = (hidden**2).sum(1)[:, None] + (points**2).sum(1) - 2 * hidden @ points.T
    if inputs is not None and point_inputs is not None:
        group, _ = dedupe.input_groups(np.concatenate([point_inputs, inputs]), len(points) + len(inputs))
        squared[group[len(points) :, None] != group[: len(points)]] = np.inf
    squared[lost] = np.inf
    closest = squared.argmin(1)
    return np.where(np.isfinite(squared[np.arange(len(hidden)), closest]), closest, -1)


def joined(zeros: Zeros, more: Any) -> Zeros:
    """Zeros of both.

    Args:
      zeros: the first.
      more: Zeros to append.

    Returns:
      Zeros.

    Example:
      >>> one = Zeros(np.zeros((1, 1)), None, [factorize(np.eye(1))])
      >>> joined(one, one).hidden.shape
      (2, 1)
    """
    inputs = None if zeros.inputs is None else np.concatenate([zeros.inputs, more.inputs])
    return Zeros(np.concatenate([zeros.hidden, more.hidden]), inputs, zeros.factors + more.factors)
