"""Where a slow manifold of a given dimension passes: states whose residual lies within the slow modes.

With r the residual (F(h) - h of a map, F(h) of a flow) and V(h) the space of the m slowest right modes of dr/dh, the
manifold is the set

    r(h) in V(h),    or    (I - V V') r(h) = 0                                (Maas & Pope 1992)

Fixed points lie on it, and so does every continuum of them. An invariant manifold along which the state drifts with
velocity d lies within O((d / a)^2) of it, a the slowest transverse rate. The minimum of ||r|| across the manifold,
which is another way to say where it passes, lies O(d) off wherever the modes are not orthogonal.

V follows by inverse iteration, V <- orth((dr/dh - shift)^-1 V), the shift being the rate at the place before. The
corrector iterates h <- h + x within the plane P'(h - prediction) = 0:

    [dr/dh  V] [x]   [-r]
    [  P'   0] [y] = [ 0]

which is Newton's method for the line above, V held fixed in each step. Once the curve or sheet is known its tangent T
takes the place of V: r(h) in T is what makes a manifold invariant, and what is left is of higher order in d / a.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import lapack

from jaxfp import compiling, dynamics, program
from jaxfp.types import Kind, Params, StepFn

_N_CORRECTIONS = 16
_N_ITERATIONS = 60
_ASIDE = 1e-4  # of ||dr/dh||: a shift that is one of several rates would leave nothing of the others

Field = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class SlowSpace(NamedTuple):
    """The m slow modes of a Jacobian dr/dh as one space.

    Attributes:
      right: (n_hidden, m) orthonormal columns.
      left: (m, n_hidden), left @ right = I: rows of the left space.
      rates: (m, m) left @ (dr/dh) @ right; its eigenvalues are those of the m modes.
      found: whether the iteration settled.
    """

    right: np.ndarray
    left: np.ndarray
    rates: np.ndarray
    found: bool


class Place(NamedTuple):
    """One state on a slow manifold.

    Attributes:
      hidden: (n_hidden,).
      residual: (n_hidden,) r there.
      jacobian: (n_hidden, n_hidden) dr/dh there.
      space: the slow modes there.
      correction: distance from the prediction.
      found: whether the corrections settled, and no further away than they were allowed to.
    """

    hidden: np.ndarray
    residual: np.ndarray
    jacobian: np.ndarray
    space: SlowSpace
    correction: float
    found: bool


def field_of(step_fn: StepFn, params: Params, inputs: np.ndarray | None, kind: Kind) -> Field:
    """The residual and its Jacobian at one state, in float64. Needs x64 in scope, here and when called.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands.
      inputs: (n_inputs,) or None, held constant.
      kind: "map" or "flow".

    Returns:
      Function from hidden (n_hidden,) to r (n_hidden,) and dr/dh (n_hidden, n_hidden).

    Example:
      >>> with jax.enable_x64(True):
      ...     [x.tolist() for x in field_of(lambda p, h, u: p * h, 0.5, None, "map")(np.ones(1))]
      [[-0.5], [[-0.5]]]
    """
    wide = dynamics.widen(params)
    drive = None if inputs is None else jnp.asarray(inputs)

    def field(hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residual, jacobian = _program()(step_fn, kind, wide, jnp.asarray(hidden), drive)
        return np.asarray(residual), np.asarray(jacobian)

    return field


@functools.cache
def _program() -> Any:
    def both(step_fn: StepFn, kind: Kind, params: Params, hidden: Any, inputs: Any) -> Any:
        residual_of = dynamics.residual_fn(step_fn, params, inputs, kind)
        return residual_of(hidden), jax.jacfwd(residual_of)(hidden)

    return compiling.jit(both, static_argnums=(0, 1))


def precision_of(step_fn: StepFn, params: Params, hidden: np.ndarray, inputs: np.ndarray | None) -> float:
    """The relative precision that the dynamics are given to: eps of the narrowest dtype of params and step.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, as the user gave it.
      hidden: (n_hidden,).
      inputs: (n_inputs,) or None.

    Returns:
      eps.

    Raises:
      ValueError: if step_fn draws random numbers.

    Example:
      >>> with jax.enable_x64(True):
      ...     float(precision_of(lambda p, h, u: p * h, np.float32(0.5), np.ones(1), None)) == 2.0**-23
      True
    """
    read = program.read(step_fn, dynamics.widen(params), jnp.asarray(hidden), inputs)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(params) if hasattr(leaf, "dtype")]
    dtypes = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return max(float(jnp.finfo(dtype).eps) for dtype in (*dtypes, jnp.dtype(read.precision)))


def rounding(place: Place, eps: float) -> float:
    """What rounding alone leaves of the residual along the left modes: the least drift that means anything.

    Args:
      place: see `Place`.
      eps: relative precision.

    Returns:
      8 eps sqrt(n) max(||h||, || |dr/dh| |h| ||) max ||l||, activation per step or per unit of time.

    Example:
      >>> space = SlowSpace(np.ones((1, 1)), np.ones((1, 1)), np.zeros((1, 1)), True)
      >>> rounding(Place(np.ones(1), np.zeros(1), np.ones((1, 1)), space, 0.0, True), 0.125)
      1.0
    """
    size = max(np.linalg.norm(place.hidden), np.linalg.norm(np.abs(place.jacobian) @ np.abs(place.hidden)), eps**0.5)
    listens = np.linalg.norm(place.space.left, axis=1).max()
    return float(8 * eps * place.hidden.size**0.5 * size * listens)


def leading(jacobian: np.ndarray, m: int) -> SlowSpace:
    """The m modes of dr/dh with the smallest |rate|, from all of them.

    Args:
      jacobian: (n_hidden, n_hidden) dr/dh.
      m: how many, at least 1 and no more than n_hidden.

    Returns:
      SlowSpace; not found where m would cut a complex pair.

    Example:
      >>> leading(np.diag([-0.5, -0.01]), 1).rates.round(6).tolist()
      [[-0.01]]
    """
    rates, vectors = np.linalg.eig(jacobian)
    order = np.argsort(np.abs(rates), kind="stable")
    cut = m < len(rates) and bool(rates[order[m - 1]].imag and rates[order[m]] == rates[order[m - 1]].conj())
    chosen = vectors[:, order[:m]]
    spread = np.linalg.svd(np.hstack([chosen.real, chosen.imag]))[0][:, :m]  # the real space of pairs, too
    space = slow_space(jacobian, spread, float(rates[order[:m]].real.mean()))
    return space._replace(found=space.found and not cut)


def slow_space(jacobian: np.ndarray, start: np.ndarray, shift: float) -> SlowSpace:
    """The invariant space of dr/dh next to a given one, by inverse iteration.

    Args:
      jacobian: (n_hidden, n_hidden) dr/dh.
      start: (n_hidden, m) orthonormal columns.
      shift: a rate near those of the modes wanted.

    Returns:
      SlowSpace, its right columns turned to be as near to those of start as they can.

    Example:
      >>> slow_space(np.diag([-0.5, -0.01]), np.array([[0.6], [0.8]]), 0.0).right.round(6).tolist()
      [[0.0], [1.0]]
    """
    n, m = start.shape
    size = max(float(np.linalg.norm(jacobian)), np.finfo(float).tiny)
    shift += _ASIDE * size if m > 1 else 0.0
    lu, pivots, _ = lapack.dgetrf(jacobian - shift * np.eye(n))
    diagonal = np.diagonal(lu)  # a pivot of 0: the shift is a rate, and inverse iteration at its best
    small = np.abs(diagonal) < np.finfo(float).eps * size
    lu[np.flatnonzero(small), np.flatnonzero(small)] = np.finfo(float).eps * size
    right, settled_right = _iterated(lu, pivots, start, 0)
    rows, settled_left = _iterated(lu, pivots, start, 1)
    overlap = rows.T @ right
    if not np.isfinite(overlap).all() or np.linalg.cond(overlap) > 1e12:
        return SlowSpace(right, np.full((m, n), np.nan), np.full((m, m), np.nan), False)
    turn, _, other = np.linalg.svd(right.T @ start)  # the rotation within the space that is next to start
    right = right @ (turn @ other)
    left = np.linalg.solve(rows.T @ right, rows.T)
    return SlowSpace(right, left, left @ jacobian @ right, settled_right and settled_left)


def _iterated(lu: np.ndarray, pivots: np.ndarray, start: np.ndarray, transposed: int) -> tuple[np.ndarray, bool]:
    """Orthonormal columns and whether they settled: at 1e-12, or where rounding ends the gain below 1e-6."""
    space, before = start, np.inf
    for _ in range(_N_ITERATIONS):
        moved, _ = lapack.dgetrs(lu, pivots, space, trans=transposed)
        if not np.isfinite(moved).all():
            return space, False
        new = np.linalg.qr(moved)[0]
        change = float(np.linalg.norm(new - space @ (space.T @ new)))
        space = new
        if change <= 1e-12 or 0.5 * before < change < 1e-6:
            return space, True
        before = change
    return space, False


def correct(
    field: Field,
    predicted: np.ndarray,
    across: np.ndarray,
    space: SlowSpace,
    allowed: float,
    resolution: float,
    *,
    tangent: bool = False,
) -> Place:
    """The state of the manifold nearest to a prediction, in the plane across given directions.

    Args:
      field: see `field_of`.
      predicted: (n_hidden,).
      across: (n_hidden, m) directions in which the state may not move, orthonormal.
      space: slow modes near by, from which those at the state follow.
      allowed: largest distance from the prediction, activation units.
      resolution: correction that counts as none, activation units.
      tangent: whether the directions across are known to be those of the manifold: then the residual is to lie within
        them instead of V.

    Returns:
      Place.

    Example:
      >>> jacobian = np.diag([0.0, -0.5])
      >>> start = leading(jacobian, 1)
      >>> correct(lambda h: (jacobian @ h, jacobian), np.array([3.0, 0.1]), start.right, start, 1.0, 1e-9).hidden
      array([3., 0.])
    """
    n, m = across.shape
    hidden, before = predicted, np.inf
    zeros = np.zeros((m, m))
    for number in range(_N_CORRECTIONS):
        residual, jacobian = field(hidden)
        if not (np.isfinite(residual).all() and np.isfinite(jacobian).all()):
            break
        space = slow_space(jacobian, space.right, float(np.trace(space.rates)) / m)
        if not space.found:
            break
        matrix = np.block([[jacobian, across if tangent else space.right], [across.T, zeros]])
        _, _, change, failed = lapack.dgesv(matrix, np.append(-residual, np.zeros(m)))
        change = change[:n]
        size = float(np.linalg.norm(change))
        if failed or not np.isfinite(size) or np.linalg.norm(hidden + change - predicted) > allowed:
            break
        # Newton has done what it can where a correction is nothing, or no smaller than the one before. Where V turns
        # fast it converges linearly, and is not asked for the last digits.
        nothing = (1e-13 if number < 4 else 1e-10) * (1 + np.linalg.norm(hidden))
        if size <= nothing or (number and size > 0.5 * before and size <= resolution):
            correction = float(np.linalg.norm(hidden - predicted))
            return Place(hidden, residual, jacobian, space, correction, True)
        hidden, before = hidden + change, size
    return Place(hidden, np.full(n, np.nan), np.full((n, n), np.nan), space, np.inf, False)
