"""What eigenvalues do not say: how far a linear system leads away before it decays.

J is normal (J J' = J' J) if and only if its eigenvectors are orthogonal; only then do the eigenvalues alone say how
||J^k|| or ||exp(J t)|| goes. Measures of what else there is:

    condition     kappa(R) of the unit eigenvectors; ||J^k|| <= kappa max|lambda|^k, and the like for exp(J t)
    departure     ||U||_F with Q' J Q = Lambda + U the Schur form: (||J||_F^2 - sum |lambda|^2)^(1/2) (Henrici 1962)
    numerical     of a map the radius max |x' J x| over unit x; of a flow the abscissa, the largest eigenvalue of
                  (J + J') / 2, which is the growth rate of ||exp(J t)|| at t = 0
    kreiss        sup (|z| - 1) ||(zI - J)^-1|| over |z| > 1; of a flow sup Re z ||(zI - J)^-1|| over Re z > 0
    growth        sup_k ||J^k||, sup_t ||exp(J t)||; kreiss <= growth <= e n kreiss (Kreiss 1962, Spijker 1991)

All 2-norms; a normal J that is stable has condition, kreiss and growth 1 and departure 0. What is a supremum is
searched for, so that kreiss and growth are lower bounds, met to the digits of a local search unless `settled` is False.
Once ||J^m|| <= 1 no later power is larger than the largest so far, so that growth of a map is then exact.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxfp import arguments as given
from jaxfp import dynamics
from jaxfp.analysis import modes
from jaxfp.types import Array, Kind

_ITERATIONS = 6  # of inverse iteration for one ||(zI - J)^-1||
_STEPS_A_RATE = 8  # of a flow, in the time 1 / ||J||: between two samples ||exp(J t)|| changes by a factor e^(1/8)


class NonNormality(NamedTuple):
    """How non-normal each Jacobian is, and what that does.

    Attributes:
      condition: (n_points,) 2-norm condition of the eigenvectors: 1 if J is normal, infinite if defective.
      departure: (n_points,) Henrici's departure from normality in the Frobenius norm; in the unit of J.
      numerical: (n_points,) numerical radius of a map, abscissa of a flow. Above the border (1 or 0) some displacements
        grow at first, whatever the eigenvalues.
      kreiss: (n_points,) Kreiss constant, from below; infinite for an unstable J.
      growth: (n_points,) how many times longer a displacement becomes at most, on its way to 0; infinite for an
        unstable J.
      growth_time: (n_points,) when: steps (map) or units of time (flow); NaN where growth is infinite.
      settled: (n_points,) bool; False where ||J^k|| was still above 1 after n_steps, so that growth may be larger.
    """

    condition: Any
    departure: Any
    numerical: Any
    kreiss: Any
    growth: Any
    growth_time: Any
    settled: Any


def non_normality(jacobian: Array, *, kind: Kind = "map", n_steps: int = 1000) -> NonNormality:
    """Condition, departure, numerical range, Kreiss constant and transient growth of Jacobians; on the host, float64.

    Args:
      jacobian: (n_hidden, n_hidden) or (n_points, n_hidden, n_hidden), dF/dh.
      kind: "map" or "flow".
      n_steps: powers of J looked at, at most; of a flow, of exp(J / (8 ||J||)).

    Returns:
      NonNormality; without the leading axis where jacobian is (n_hidden, n_hidden). NaN for a J that is not finite.

    Raises:
      ValueError: if jacobian is not square, kind unknown or n_steps below 1.

    Example:
      >>> shear = non_normality(np.array([[0.5, 8.0], [0.0, 0.5]]))
      >>> round(float(shear.departure), 3), round(float(shear.numerical), 3), int(shear.growth_time)
      (8.0, 4.5, 1)

    Source: Trefethen & Embree (2005), Spectra and Pseudospectra, ch. 14-18; Henrici (1962), Numerische Mathematik 4:24.
    """
    dynamics.check_kind(kind)
    wanted = "(n_points, n_hidden, n_hidden)"
    given.check_array("jacobian", jacobian, wanted, (2, 3), floating=False)
    given.check_count("n_steps", n_steps)
    matrices = np.asarray(jacobian, np.float64)
    if matrices.shape[-1] != matrices.shape[-2] or not matrices.shape[-1]:
        raise ValueError(f"jacobian must be {wanted}, got {matrices.shape}.")
    if matrices.ndim == 2:
        return NonNormality(*(np.asarray(x) for x in _of_one(matrices, kind, n_steps)))
    each = [_of_one(matrix, kind, n_steps) for matrix in matrices]
    columns = zip(*each, strict=True) if each else [()] * 6 + [np.zeros(0, bool)]
    return NonNormality(*(np.asarray(column) for column in columns))


def _of_one(matrix: np.ndarray, kind: Kind, n_steps: int) -> tuple[Any, ...]:
    from scipy.linalg import schur

    if not np.isfinite(matrix).all():
        return (*[np.nan] * 6, False)
    spectrum = modes.spectrum(matrix, kind=kind)
    size = float(np.linalg.norm(matrix, 2))
    triangle = schur(matrix, output="complex")[0]
    departure = np.linalg.norm(np.triu(triangle, 1))
    normal = departure <= 8 * len(matrix) * np.finfo(float).eps * size
    # Of an eigenvalue that is repeated LAPACK's vectors need not be orthogonal, though they could be.
    condition = 1.0 if normal else max(float(spectrum.condition), 1.0)
    numerical = _numerical(matrix, kind)
    if spectrum.verdict == "unstable":
        return condition, departure, numerical, np.inf, np.inf, np.nan, True
    if normal:  # of a stable one no power is longer than the zeroth
        return condition, departure, numerical, 1.0, 1.0, 0.0, True
    growth, when, settled = _growth(matrix, kind, n_steps, size)
    return condition, departure, numerical, _kreiss(triangle, kind, size), growth, when, settled


def _numerical(matrix: np.ndarray, kind: Kind) -> float:
    """Largest |x' J x| (map), or its largest real part (flow): that of exp(i angle) J is an eigenvalue's."""

    def reach(angle: float) -> float:
        turned = np.exp(1j * angle) * matrix
        return float(np.linalg.eigvalsh((turned + turned.conj().T) / 2)[-1])

    if kind == "flow":
        return reach(0.0)
    # The matrix is real: its numerical range is symmetric about the real axis.
    angles = np.linspace(0, np.pi, 33)
    return _largest(reach, angles)[1]


def _kreiss(triangle: np.ndarray, kind: Kind, size: float) -> float:
    """Supremum of excess(z) ||(zI - J)^-1||, from below; 1 is its limit at infinity."""
    from scipy.linalg import solve_triangular

    identity, values = np.eye(len(triangle)), np.diag(triangle)
    start = np.cos(np.arange(1, len(triangle) + 1) ** 2) + 0j  # no eigenvector, and not random

    def log_ratio(log_excess: float, aim: float) -> float:
        excess = np.exp(log_excess)
        z = (1 + excess) * np.exp(1j * aim) if kind == "map" else excess + 1j * aim
        shifted = z * identity - triangle
        if not np.diag(shifted).all():
            return -np.inf
        # Inverse iteration: sqrt||(A*A)^-1 v|| never exceeds ||A^-1||.
        v, stretch = start, 1.0
        for _ in range(_ITERATIONS):
            v = v / np.linalg.norm(v)
            v = solve_triangular(shifted, v, trans="C", check_finite=False)
            v = solve_triangular(shifted, v, check_finite=False)
            stretch = float(np.linalg.norm(v))
        return float(log_excess + np.log(stretch) / 2)

    leading = values[np.argsort(-(np.abs(values) if kind == "map" else values.real))[:8]]
    aims = np.abs(np.angle(leading) if kind == "map" else leading.imag)  # the matrix is real: upper half of the border
    aims = np.concatenate([aims, np.linspace(0, np.pi if kind == "map" else size, 5)])
    scale = 0.0 if kind == "map" else np.log(size)
    tried = [_largest(functools.partial(log_ratio, aim=aim), scale + np.linspace(-12, 3, 16))[1] for aim in set(aims)]
    return max(1.0, float(np.exp(max(tried))))


def _growth(matrix: np.ndarray, kind: Kind, n_steps: int, size: float) -> tuple[float, float, bool]:
    """(sup ||J^k||, its k, is it certain), or the same of exp(J t)."""
    from scipy.linalg import expm

    step = 1.0 if kind == "map" else 1 / (_STEPS_A_RATE * size)
    once = matrix if kind == "map" else expm(step * matrix)
    power, best, when, settled = once, 1.0, 0, False
    for k in range(1, n_steps + 1):
        norm = float(np.linalg.norm(power))  # no less than the 2-norm, whose SVD costs ten times as much
        if norm > best or k & (k - 1) == 0:
            norm = float(np.linalg.norm(power, 2))
            best, when = (norm, k) if norm > best else (best, when)
        settled = norm <= 1
        if settled:
            break
        power = power @ once
    if kind == "map" or when == 0:
        return best, when * step, settled

    def norm_at(t: float) -> float:
        return float(np.linalg.norm(expm(t * matrix), 2))

    t, best = _largest(norm_at, step * np.linspace(when - 1, when + 1, 3))
    return best, t, settled


def _largest(function: Callable[[float], float], places: np.ndarray) -> tuple[float, float]:
    """(where, value) of the largest of a function, near the best of some places."""
    from scipy.optimize import minimize_scalar

    values = [function(x) for x in places]
    i = int(np.argmax(values))
    around = places[max(i - 1, 0)], places[min(i + 1, len(places) - 1)]
    found = minimize_scalar(lambda x: -function(x), bounds=around, method="bounded", options={"xatol": 1e-10})
    return (float(found.x), float(-found.fun)) if -found.fun > values[i] else (float(places[i]), float(values[i]))
