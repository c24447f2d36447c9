"""The eigenvalues that decide stability, of many matrices, without all the others where these can be ruled out.

All n eigenvalues of a large matrix cost thirty products with it. How many lie outside the unit circle costs less. Let
the columns of Q be the leading vectors of an orthogonal iteration with J^16, as many as have converged:

    J Q = Q T + R,   ||R|| at rounding,   D = J - Q Q' J,   ||D^16|| < 1/2

Then J - R Q' has the eigenvalues of T, and those of D, all inside the circle, since spectral radius^16 <= ||D^16||. An
eigenvalue that the iteration missed is one of D, and the last line fails: such a matrix gets all its eigenvalues.
So does one of which R might carry an eigenvalue of T over the circle, by Bauer & Fike's bound: where T is defective,
or J so large that its rounding is no small number.
"""

import numpy as np

from jaxfp.types import Kind

_LARGE = 64  # n_hidden from which products are cheaper
_N_LEADING = 8
_N_SQUARINGS = 4
_N_ITERATIONS = 4


def eigenvalues(jacobian: np.ndarray, kind: Kind) -> np.ndarray:
    """All eigenvalues, least stable first.

    Args:
      jacobian: (n_points, n_hidden, n_hidden), finite.
      kind: "map" or "flow".

    Returns:
      (n_points, n_hidden) complex.

    Example:
      >>> eigenvalues(np.diag([0.5, -2.0, 1.0])[None], "map").real.tolist()
      [[-2.0, 1.0, 0.5]]
    """
    return _sorted(np.linalg.eigvals(jacobian).astype(complex), kind)


def deciding(jacobian: np.ndarray, kind: Kind) -> np.ndarray:
    """The eigenvalues beyond the border of stability, least stable first, then others, or 0 where they are inside.

    Args:
      jacobian: (n_points, n_hidden, n_hidden), finite.
      kind: "map" or "flow"; of flows all eigenvalues are computed.

    Returns:
      (n_points, n_hidden) complex.

    Example:
      >>> deciding(np.diag(np.append(1.5, np.linspace(0, 0.5, 99)))[None], "map")[0, :2].real.round(12).tolist()
      [1.5, 0.0]

    Source: Golub & Van Loan (2013), Matrix Computations, 7.3.2 (orthogonal iteration), 7.2.2 (Bauer & Fike).
    """
    n_points, n_hidden = jacobian.shape[:2]
    if kind == "flow" or n_hidden < _LARGE:
        return eigenvalues(jacobian, kind)
    values = np.zeros((n_points, n_hidden), complex)
    high = _power(jacobian)
    left = np.flatnonzero(~_contracts(high))
    if len(left):
        some, basis = jacobian[left], np.cos(np.arange(1.0, n_hidden * _N_LEADING + 1) ** 2)  # in no invariant subspace
        basis, block, rounding = _invariant(some, high[left], basis.reshape(n_hidden, -1))
        leading, vectors = np.linalg.eig(block)
        values[left, :_N_LEADING] = leading
        # The coupling of T and D, of J's size, makes an eigenvalue of J more sensitive than it is in T.
        moved = rounding * np.linalg.cond(vectors) * (1 + np.linalg.norm(some, axis=(1, 2)))
        open_ = (np.abs(beyond(leading, kind)).min(axis=1) <= moved) | ~_contracts(
            _power(some - basis @ (basis.mT @ some))
        )
        values[left[open_]] = np.linalg.eigvals(some[open_])
    return _sorted(values, kind)


def beyond(values: np.ndarray, kind: Kind) -> np.ndarray:
    """How far beyond the border of stability eigenvalues lie.

    Args:
      values: any shape, complex.
      kind: "map" or "flow".

    Returns:
      The same shape, positive where unstable.

    Example:
      >>> beyond(np.array([0.5j, -2.0]), "map").tolist(), beyond(np.array([0.5j, -2.0]), "flow").tolist()
      ([-0.5, 1.0], [0.0, -2.0])
    """
    return np.abs(values) - 1 if kind == "map" else values.real


def _sorted(values: np.ndarray, kind: Kind) -> np.ndarray:
    return np.take_along_axis(values, np.argsort(-beyond(values, kind), axis=1, kind="stable"), axis=1)


def _power(matrix: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_N_SQUARINGS):
            matrix = matrix @ matrix
    return matrix


def _contracts(high: np.ndarray) -> np.ndarray:
    """False for NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.linalg.norm(high, axis=(1, 2)) < 0.5


def _invariant(jacobian: np.ndarray, high: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q and T, and how large R may be; the columns of Q, and of T, that have not converged are 0."""
    high = np.where(np.isfinite(high).all(axis=(1, 2), keepdims=True), high, jacobian)
    for _ in range(_N_ITERATIONS):
        basis = np.linalg.qr(high @ basis)[0]
    image = jacobian @ basis
    block = basis.mT @ image
    outside = ((image - basis @ block) ** 2).sum(axis=1).cumsum(axis=1)
    widths = np.arange(1, _N_LEADING + 1)
    residual = np.stack([outside[:, m - 1] + (block[:, m:, :m] ** 2).sum(axis=(1, 2)) for m in widths], axis=1)
    rounding = 64 * jacobian.shape[1] * np.finfo(float).eps * np.linalg.norm(jacobian, axis=(1, 2))
    width = np.where(residual <= rounding[:, None] ** 2, widths, 0).max(axis=1)
    kept = widths <= width[:, None]
    return basis * kept[:, None], block * kept[:, None] * kept[:, :, None], rounding
