"""Modes of the linearized dynamics: eigenvalues, left and right vectors, timescales, stability with a margin.

J = R diag(lambda) L with L R = I: columns of R are where a mode points, rows of L are what it listens to. A computed
eigenvalue is that of a matrix within E = 8 n eps ||J|| of J, so that the true one lies within

    n kappa E,  kappa = ||l|| ||r|| with l r = 1     (Bauer & Fike 1960, mode by mode; union of discs)
    (2 ||J|| + E)^(1-1/n) E^(1/n)                    (Elsner 1985; any matrix, defective ones too)

of it, and does not cross the border of stability if sigma_min(zI - J) > E for every z on the border: then no matrix
within E of J has an eigenvalue there. The bound stated is the least of the three; a verdict is marginal iff the bound
of a mode that decides it reaches the border.
"""

from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import dynamics
from jaxfp.types import Array, Kind

_MAX_ARCS = 256  # of the border, before a verdict is left marginal


class Modes(NamedTuple):
    """Modes of each Jacobian, slowest or most unstable first: by |lambda| (map) or Re lambda (flow).

    Attributes:
      eigenvalues: (n_points, n_hidden) complex.
      right: (n_points, n_hidden, n_hidden) complex, unit columns; None without vectors.
      left: (n_points, n_hidden, n_hidden) complex, rows; left @ right = I. NaN, as right, where the matrix cannot be
        told from a defective one; None without vectors.
      condition: (n_points,) 2-norm condition of `right`, infinite for a defective matrix; None without vectors.
      timescale: (n_points, n_hidden) -dt / ln|lambda| of a map, -1 / Re lambda of a flow; units of dt (map) or of
        time (flow); negative for growing modes, infinite at the border.
      frequency: (n_points, n_hidden) cycles per unit of time: arg(lambda) / (2 pi dt) of a map, Im / (2 pi) of a flow.
      n_unstable: (n_points,) modes computed beyond the border, whatever their bound.
      bound: (n_points, n_hidden) how much nearer to the border than computed the true eigenvalue may be; None without
        vectors.
      verdict: (n_points,) "stable", "unstable" or "marginal" (marginal iff the bound of the deciding modes covers the
        border); None without vectors.
    """

    eigenvalues: Any
    right: Any
    left: Any
    condition: Any
    timescale: Any
    frequency: Any
    n_unstable: Any
    bound: Any
    verdict: Any


@overload
def spectrum(jacobian: Array, *, dt: float = ..., kind: Kind = ..., vectors: Literal[True] = ...) -> Modes: ...
@overload
def spectrum(jacobian: Array, *, dt: float = ..., kind: Kind = ..., vectors: bool) -> Modes: ...
def spectrum(jacobian: Array, *, dt: float = 1.0, kind: Kind = "map", vectors: bool = True) -> Modes:
    """Eigenvalues, biorthonormal modes and stability of Jacobians.

    Args:
      jacobian: (n_hidden, n_hidden) or (n_points, n_hidden, n_hidden), dF/dh.
      dt: duration of one step of a map, in the unit wanted for timescales; unused for a flow.
      kind: "map" (border |lambda| = 1) or "flow" (border Re lambda = 0).
      vectors: True: on the host, in float64, with vectors, bounds and verdicts. False: traceable, eigenvalues,
        timescales, frequencies and n_unstable only.

    Returns:
      Modes; without the leading axis where jacobian is (n_hidden, n_hidden).

    Raises:
      ValueError: if jacobian is not square, dt not positive or kind unknown.

    Example:
      >>> modes = spectrum(np.diag([0.5, 1.25]))
      >>> modes.eigenvalues.real.tolist(), int(modes.n_unstable), str(modes.verdict)
      ([1.25, 0.5], 1, 'unstable')

    Source: Bauer & Fike (1960), Numerische Mathematik 2:137; Elsner (1985), Linear Algebra Appl. 71:77.
    """
    dynamics.check_kind(kind)
    if jacobian.ndim not in (2, 3) or jacobian.shape[-1] != jacobian.shape[-2]:
        raise ValueError(f"jacobian must be (n_points, n_hidden, n_hidden), got {jacobian.shape}.")
    if not isinstance(dt, jax.core.Tracer) and not dt > 0:
        raise ValueError(f"dt must be positive, got {dt}.")
    if not vectors:
        eigenvalues = _sorted(jnp.linalg.eigvals(jacobian), kind)
        return Modes(eigenvalues, None, None, None, *_rates(jnp, eigenvalues, dt, kind), None, None)
    matrices = np.asarray(jacobian)
    matrices = matrices.astype(np.float64, copy=False) if matrices.dtype != np.float32 else matrices
    if matrices.ndim == 2:
        return Modes(*_modes_of_one(matrices, dt, kind))
    each = [_modes_of_one(matrix, dt, kind) for matrix in matrices]
    n = matrices.shape[-1]
    empty = _modes_of_one(np.eye(n), dt, kind)
    return Modes(*(np.stack([m[i] for m in each]) if each else np.asarray(empty[i])[None][:0] for i in range(9)))


def _modes_of_one(matrix: np.ndarray, dt: float, kind: Kind) -> tuple[Any, ...]:
    n, eps = len(matrix), np.finfo(matrix.dtype).eps  # float32 Jacobians carry float32 rounding
    matrix = matrix.astype(np.float64)
    if not np.isfinite(matrix).all():  # one bad point is data, not a crash
        nan = np.full((n, n), np.nan + 0j)
        rates = np.full((2, n), np.nan)
        return nan[0], nan, nan, np.inf, *rates, 0, np.full(n, np.inf), np.asarray("marginal", "<U8")
    values, right = np.linalg.eig(matrix)
    order = np.argsort(-(np.abs(values) if kind == "map" else values.real), kind="stable")
    values, right = values[order], right[:, order]

    size = np.linalg.norm(matrix, 2)
    error = 8 * n * eps * max(size, np.finfo(float).tiny)
    condition = np.linalg.cond(right)
    # Within E of a matrix with eigenvector condition kappa lies a defective one once kappa >= (||J|| / E)^(1/2).
    if condition**2 * error < max(size, error):
        left = np.linalg.inv(right)
        kappa = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=0)
        bound = n * kappa * error
    else:
        left, right, condition = np.full((n, n), np.nan + 0j), np.full((n, n), np.nan + 0j), np.inf
        bound = np.full(n, np.inf)
    bound = np.minimum(bound, (2 * size + error) ** (1 - 1 / n) * error ** (1 / n))

    timescale, frequency, n_unstable = _rates(np, values, dt, kind)
    excess = np.abs(values) - 1 if kind == "map" else values.real
    verdict = _verdict(excess, bound)
    if verdict == "marginal" and np.abs(excess).min() > error and _border_is_clear(matrix, error, kind):
        bound = np.minimum(bound, np.nextafter(np.abs(excess), 0))
        verdict = _verdict(excess, bound)
    return values, right, left, condition, timescale, frequency, n_unstable, bound, np.asarray(verdict, "<U8")


def _verdict(excess: np.ndarray, bound: np.ndarray) -> str:
    if np.any(excess > bound):
        return "unstable"
    return "stable" if np.all(excess < -bound) else "marginal"


def _border_is_clear(matrix: np.ndarray, error: float, kind: Kind) -> bool:
    """Is sigma_min(zI - J) > E all along the border?

    It changes by no more than z does, so its value in the middle of an arc settles the arc if it exceeds E by half the
    arc's length; an arc that is not settled is halved. The matrix is real: the upper half of the border will do.
    """
    size = float(np.linalg.norm(matrix, 2))
    identity = np.eye(len(matrix))
    # On the imaginary axis beyond ||J|| + E no matrix within E of J has an eigenvalue.
    arcs = [(0.0, np.pi if kind == "map" else size + 2 * error)]
    for _ in range(_MAX_ARCS):
        if not arcs:
            return True
        start, end = arcs.pop()
        middle = (start + end) / 2
        z = np.exp(1j * middle) if kind == "map" else 1j * middle
        # sigma_min = 1 / ||(zI - J)^-1||, and ||A||^2 <= ||A||_1 ||A||_inf: an LU is ten times cheaper than an SVD.
        resolvent = np.linalg.inv(z * identity - matrix)
        nearest = 1 / np.sqrt(np.linalg.norm(resolvent, 1) * np.linalg.norm(resolvent, np.inf))
        if nearest <= 2 * error:  # twice: the inverse, too, is rounded
            return False
        if nearest - 2 * error <= (end - start) / 2:
            arcs += [(start, middle), (middle, end)]
    return False


def _sorted(eigenvalues: jax.Array, kind: Kind) -> jax.Array:
    order = jnp.argsort(-(jnp.abs(eigenvalues) if kind == "map" else eigenvalues.real), axis=-1)
    return jnp.take_along_axis(eigenvalues, order, axis=-1)


def _rates(xp: Any, eigenvalues: Any, dt: Any, kind: Kind) -> tuple[Any, Any, Any]:
    """Timescale, frequency and number of unstable modes, with NumPy or jax.numpy."""
    with np.errstate(divide="ignore"):  # ln 0 and 1/0 are meant: a mode that dies at once, one that never does
        growth = xp.log(xp.abs(eigenvalues)) / dt if kind == "map" else eigenvalues.real
        timescale = xp.where(growth == 0, xp.inf, -1 / growth)
    turns = xp.angle(eigenvalues) / dt if kind == "map" else eigenvalues.imag
    return timescale, turns / (2 * np.pi), (growth > 0).sum(-1)
