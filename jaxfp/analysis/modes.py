"""Modes of the linearized dynamics: eigenvalues, left and right vectors, timescales, stability with a margin.

J = R diag(lambda) L with L R = I: columns of R are where a mode points, rows of L are what it listens to. The computed
eigenvalues are those of a matrix within 8 n eps ||J|| of J, which is within `jacobian_error` of the true Jacobian: of
one within E, the sum. The true eigenvalues therefore lie in the union of discs about the computed ones of radius

    n kappa E,  kappa = ||l|| ||r|| with l r = 1     (Bauer & Fike 1960, mode by mode)
    cond(R) E                                        (Bauer & Fike 1960)
    (2 ||J|| + E)^(1-1/n) E^(1/n)                    (Elsner 1985; any matrix, defective ones too)

for each line, and, as eigenvalues are continuous in E, each group of discs that overlap holds as many true ones as
computed ones. A mode's bound is how much nearer to the border of stability than itself its group reaches, the least of
the lines. And nothing crosses the border if sigma_min(zI - J) > E for every z on it: then no matrix within E of J has
an eigenvalue there. Modes whose bound does not reach the border stay on their side for sure, so that they count; a
verdict is marginal iff no mode is surely unstable and some mode is not surely stable.

With k the leading modes of a large J come from Arnoldi iterations on J and on J' (ARPACK), E grown by the residuals
||J r - lambda r|| and ||l J - lambda l|| / ||l||. What they cannot know, whether a mode ahead of those was missed, a
third iteration asks, on J without the modes found and from another start. Where anything is in doubt the whole
decomposition decides.
"""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments, dynamics
from jaxfp.types import Array, Kind

_MAX_ARCS = 256  # of the border, before a verdict is left marginal
_LARGE = 448  # units from which a few modes by Arnoldi are faster than all: not at 384, twice at 512, 4 times at 1,024
_FEW = 16  # n_hidden over the number of modes from which they are few
_RESTARTS = 40  # of an Arnoldi iteration; one that needs more takes longer than the whole decomposition


class Modes(NamedTuple):
    """Modes of each Jacobian, slowest or most unstable first: by |lambda| (map) or Re lambda (flow).

    Attributes:
      eigenvalues: (n_points, n_hidden) complex; with k here and below n_modes, k or k + 1, in place of n_hidden.
      right: (n_points, n_hidden, n_hidden) complex, unit columns; None without vectors.
      left: (n_points, n_hidden, n_hidden) complex, rows; left @ right = I. NaN, as right, where the matrix cannot be
        told from a defective one; None without vectors. With k right is (n_points, n_hidden, n_modes) and left
        (n_points, n_modes, n_hidden).
      condition: (n_points,) 2-norm condition of `right`, infinite for a defective matrix; None without vectors. With k
        that of all modes where they were computed, else the larger of the condition of those in `right` and of the
        largest ||l|| ||r||, both of which are no more than that of all.
      timescale: (n_points, n_hidden) -dt / ln|lambda| of a map, -1 / Re lambda of a flow; units of dt (map) or of
        time (flow); negative for growing modes, infinite at the border.
      frequency: (n_points, n_hidden) cycles per unit of time: arg(lambda) / (2 pi dt) of a map, Im / (2 pi) of a flow.
      n_unstable: (n_points,) modes computed beyond the border, whatever their bound; all of them, with k, too.
      bound: (n_points, n_hidden) how much nearer to the border than computed the true eigenvalue may be; None without
        vectors. It covers the rounding in J and jacobian_error, and with k the error of the iteration, of the modes
        there are; not that a mode was missed.
      verdict: (n_points,) "stable", "unstable" or "marginal" (marginal iff the bound of the deciding modes covers the
        border); None without vectors. With k the deciding modes are those computed: leading ones, at least one of
        them stable, or all.
      n_unstable_range: (n_points, 2) int, least and largest number of unstable modes that the bounds allow; equal where
        all is decided. None without vectors. With k modes behind those computed count as no less stable.
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
    n_unstable_range: Any


def spectrum(
    jacobian: Array,
    *,
    dt: float = 1.0,
    kind: Kind = "map",
    vectors: bool = True,
    k: int | None = None,
    jacobian_error: Any = None,
) -> Modes:
    """Eigenvalues, biorthonormal modes and stability of Jacobians.

    Args:
      jacobian: (n_hidden, n_hidden) or (n_points, n_hidden, n_hidden), dF/dh.
      dt: duration of one step of a map, in the unit wanted for timescales; unused for a flow.
      kind: "map" (border |lambda| = 1) or "flow" (border Re lambda = 0).
      vectors: True: on the host, in float64, with vectors, bounds and verdicts. False: traceable, eigenvalues,
        timescales, frequencies and n_unstable only.
      k: how many leading modes to compute, by Arnoldi iterations where n_hidden is large and k small beside it; None
        for all. A complex pair is never cut: where mode k is the first of one, its partner follows, and there are
        k + 1 modes; other points of the same stack then have NaN in the last place.
      jacobian_error: scalar or (n_points,), no less than ||J - J_true||_2, where J is off by more than rounding: of a
        point whose position is off by e, about ||d2F/dh2|| e. None for 0.

    Returns:
      Modes; without the leading axis where jacobian is (n_hidden, n_hidden).

    Raises:
      ValueError: if jacobian is not square, dt not positive, kind unknown, k not an integer from 1 to n_hidden, k or
        jacobian_error given with vectors=False, or jacobian_error negative, NaN or not one a point.

    Example:
      >>> modes = spectrum(np.diag([0.5, 1.25]))
      >>> modes.eigenvalues.real.tolist(), int(modes.n_unstable), str(modes.verdict)
      ([1.25, 0.5], 1, 'unstable')
      >>> doubtful = spectrum(np.diag([0.99, 1.25]), jacobian_error=0.1)
      >>> str(doubtful.verdict), doubtful.n_unstable_range.tolist()
      ('unstable', [1, 2])
      >>> spectrum(np.diag(np.linspace(0, 0.9, 512)), k=2).timescale.round(1).tolist()  # steps
      [9.5, 9.3]

    Source: Bauer & Fike (1960), Numerische Mathematik 2:137; Elsner (1985), Linear Algebra Appl. 71:77; Lehoucq,
      Sorensen & Yang (1998), ARPACK Users' Guide.
    """
    dynamics.check_kind(kind)
    arguments.check_flag("vectors", vectors)
    wanted = "(n_hidden, n_hidden) or (n_points, n_hidden, n_hidden)"
    arguments.check_array("jacobian", jacobian, wanted, (2, 3), floating=False)
    if jacobian.shape[-1] == 0 or jacobian.shape[-1] != jacobian.shape[-2]:
        raise ValueError(f"jacobian must be (n_points, n_hidden, n_hidden), got {jacobian.shape}.")
    arguments.check_number("dt", dt, positive=True)
    n = jacobian.shape[-1]
    if k is not None:
        if not vectors:
            raise ValueError("k= needs vectors=True: eigenvalues alone are computed all at once.")
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= n:
            raise ValueError(f"k must be an integer from 1 to n_hidden = {n}, got {k!r}.")
    if jacobian_error is not None and not vectors:
        raise ValueError("jacobian_error= needs vectors=True: eigenvalues alone have no bounds.")
    if not vectors:
        eigenvalues = _sorted(jnp.linalg.eigvals(jacobian), kind)
        return Modes(eigenvalues, None, None, None, *_rates(jnp, eigenvalues, dt, kind), None, None, None)
    matrices = np.asarray(jacobian)
    matrices = matrices.astype(np.float64, copy=False) if matrices.dtype != np.float32 else matrices
    wanted = f"a number, 0 or more, or one for each of {matrices.shape[:-2]}"
    errors = arguments.as_numpy("jacobian_error", 0.0 if jacobian_error is None else jacobian_error, wanted)
    errors = errors.astype(np.float64)
    if (
        isinstance(jacobian_error, bool)
        or (errors.ndim and errors.shape != matrices.shape[:-2])
        or not (errors >= 0).all()
    ):
        raise ValueError(f"jacobian_error must be {wanted}, got {errors}.")
    one = _modes_of_one if k is None else functools.partial(_leading, k=int(k))
    if matrices.ndim == 2:
        return Modes(*one(matrices, dt, kind, float(errors)))
    if not len(matrices):
        return Modes(*(np.asarray(column)[None][:0] for column in one(np.eye(n), dt, kind, 0.0)))
    errors = np.broadcast_to(errors, len(matrices))
    each = [one(matrix, dt, kind, float(e)) for matrix, e in zip(matrices, errors, strict=True)]
    n_modes = max(len(m[0]) for m in each)
    return Modes(*(np.stack(column) for column in zip(*(_padded(m, n_modes) for m in each), strict=True)))


def _modes_of_one(matrix: np.ndarray, dt: float, kind: Kind, given_error: float) -> tuple[Any, ...]:
    n, eps = len(matrix), np.finfo(matrix.dtype).eps  # float32 Jacobians carry float32 rounding
    matrix = matrix.astype(np.float64)
    if not np.isfinite(matrix).all():  # one bad point is data, not a crash
        nan = np.full((n, n), np.nan + 0j)
        nowhere = np.full(n, np.nan)
        surely = np.array([0, n])
        return nan[0], nan, nan, np.inf, nowhere, nowhere, 0, np.full(n, np.inf), _verdict(surely), surely
    values, right = np.linalg.eig(matrix)
    order = np.argsort(-(np.abs(values) if kind == "map" else values.real), kind="stable")
    values, right = values[order], right[:, order]

    size = np.linalg.norm(matrix, 2)
    rounding = 8 * n * eps * max(size, np.finfo(float).tiny)
    error = rounding + given_error
    condition = np.linalg.cond(right)
    excess = _excess(values, kind)
    # Within E of a matrix with eigenvector condition kappa lies a defective one once kappa >= (||J|| / E)^(1/2). Modes
    # are those of J as given: rounding alone makes them NaN.
    if condition < (max(size, rounding) / rounding) ** 0.5:
        left = np.linalg.inv(right)
        kappa = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=0)
        discs = [n * kappa * error, np.full(n, condition * error)]
    else:
        left, right, condition = np.full((n, n), np.nan + 0j), np.full((n, n), np.nan + 0j), np.inf
        discs = []
    bound = _bound(values, excess, [*discs, np.full(n, _elsner(size, error, n))])

    surely = _surely(excess, bound, n)
    if (
        surely[0] != surely[1]
        and np.abs(excess).min() > error
        and _border_is_clear(matrix, rounding, given_error, kind)
    ):
        bound = np.minimum(bound, np.nextafter(np.abs(excess), 0))
        surely = _surely(excess, bound, n)
    rates = _rates(np, values, dt, kind)
    return values, right, left, condition, *rates, bound, _verdict(surely), surely


def _leading(matrix: np.ndarray, dt: float, kind: Kind, given_error: float, *, k: int) -> tuple[Any, ...]:
    """The k leading modes, k + 1 where a pair would be cut: by Arnoldi if that pays and is sure, or of all."""
    n, n_modes = len(matrix), k + 2  # two more than asked for: the last ones are the least certain
    while n >= _LARGE and _FEW * n_modes <= n and np.isfinite(matrix).all():
        found = _arnoldi(matrix, dt, kind, given_error, k, n_modes)
        if found is None:
            break
        if found[6] < len(found[0]):  # a stable one: no unstable ones follow
            if _misses_one(matrix.astype(np.float64), found, kind, k):
                break
            return _cut(found, k)
        n_modes *= 2
    return _cut(_modes_of_one(matrix, dt, kind, given_error), k)


def _arnoldi(
    matrix: np.ndarray, dt: float, kind: Kind, given_error: float, k: int, n_modes: int
) -> tuple[Any, ...] | None:
    """At least k leading modes, as _modes_of_one has all of them; None where anything is in doubt."""
    n, eps = len(matrix), np.finfo(matrix.dtype).eps
    matrix = matrix.astype(np.float64)
    # Starts that are no eigenvectors, and not random: a search is the same each time.
    start, other = (np.cos(c * np.arange(1, n + 1) ** 2) for c in (1.0, 2.0))
    size = np.linalg.norm(matrix)
    on_right = _ritz(matrix, kind, n_modes, start)
    on_left = _ritz(np.ascontiguousarray(matrix.T), kind, n_modes, other)
    if on_right is None or on_left is None:
        return None
    n_both = min(len(on_right[0]), len(on_left[0]))
    apart = np.abs(on_right[0][:n_both] - on_left[0][:n_both]) > eps**0.5 * size
    n_both = int(apart.argmax()) if apart.any() else n_both
    n_both -= int(n_both > 0 and _cuts_a_pair(on_right[0], n_both))
    if n_both < k + _cuts_a_pair(on_right[0], k):
        return None
    values, right, rows = on_right[0][:n_both], on_right[1][:, :n_both], on_left[1][:, :n_both].T
    overlap = rows @ right
    if np.linalg.cond(overlap) >= eps**-0.5:
        return None
    left = np.linalg.solve(overlap, rows)

    # LAPACK's ||J||_2 costs an SVD; no more than sqrt(n) larger, and near it where a few modes stand out, is ||J||_F.
    rounding = 8 * n * eps * max(size, np.finfo(float).tiny)
    kappa = np.linalg.norm(left, axis=1)
    each = rounding + np.linalg.norm(matrix @ right - right * values, axis=0)
    each += np.linalg.norm(left @ matrix - values[:, None] * left, axis=1) / kappa
    condition = max(np.linalg.cond(right), kappa.max())
    if condition**2 * each.max() >= size:
        return None
    each += given_error
    excess = _excess(values, kind)
    bound = _bound(values, excess, [n * kappa * each, _elsner(size, each, n)])

    surely = _surely(excess, bound, n)
    if _verdict(surely) == "marginal" and np.abs(excess).min() > rounding + given_error:
        return None  # the whole decomposition may look along the border
    return values, right, left, condition, *_rates(np, values, dt, kind), bound, _verdict(surely), surely


def _misses_one(matrix: np.ndarray, modes: tuple[Any, ...], kind: Kind, k: int) -> bool:
    """Is there, without the modes found, one that leads the last of k, or that is unstable?"""
    values, right, left = modes[:3]
    start = np.cos(3.0 * np.arange(1, len(matrix) + 1) ** 2)
    gone = 0.0 if kind == "map" else -np.linalg.norm(matrix)  # where those found are moved to
    other = _ritz(matrix - ((right * (values - gone)) @ left).real, kind, 1, start, tolerance=1e-3)
    if other is None:
        return True
    if kind == "map":
        return bool(np.abs(other[0][0]) > min(np.abs(values[k - 1]), 1.0) + modes[7].min())
    return bool(other[0][0].real > min(values[k - 1].real, 0.0) + modes[7].min())


def _ritz(
    matrix: np.ndarray, kind: Kind, n_modes: int, start: np.ndarray, tolerance: float = 0.0
) -> tuple[np.ndarray, np.ndarray] | None:
    """About n_modes leading eigenvalues, sorted, each pair whole and together, and unit vectors; None: no convergence.

    ARPACK may return one of a pair: those on or above the real axis are enough.
    """
    from scipy.sparse.linalg import ArpackError, eigs

    # Where a Krylov space ends, ARPACK goes on from a random vector; before SciPy 1.16 nobody could say which, so that
    # the vectors of an eigenvalue with many may differ from call to call there.
    rng = {"rng": np.random.default_rng(0)} if "rng" in inspect.signature(eigs).parameters else {}
    space = min(80 + 2 * n_modes, len(matrix) - 1)
    which = "LM" if kind == "map" else "LR"
    try:
        values, vectors = eigs(
            matrix, n_modes, which=which, v0=start, ncv=space, maxiter=_RESTARTS, tol=tolerance, **rng
        )
    except ArpackError:
        return None
    lower = values.imag < 0
    values, vectors = np.where(lower, values.conj(), values), np.where(lower, vectors.conj(), vectors)
    order = np.argsort(-(np.abs(values) if kind == "map" else values.real), kind="stable")
    seen, kept, turned = set(), [], []
    for i in order:
        if values[i].imag > 0 and values[i] in seen:  # both of a pair came, exact conjugates
            continue
        seen.add(values[i])
        kept += [i, i] if values[i].imag > 0 else [i]
        turned += [False, True] if values[i].imag > 0 else [False]
    values, vectors = values[kept], vectors[:, kept]
    values, vectors = np.where(turned, values.conj(), values), np.where(turned, vectors.conj(), vectors)
    return values, vectors / np.linalg.norm(vectors, axis=0)


def _cuts_a_pair(values: np.ndarray, k: int) -> bool:
    """Do the first k end between a complex eigenvalue and its conjugate? Pairs stand together."""
    return bool(np.count_nonzero(values[:k].imag > 0) != np.count_nonzero(values[:k].imag < 0))


def _cut(modes: tuple[Any, ...], k: int) -> tuple[Any, ...]:
    values, right, left, condition, timescale, frequency, n_unstable, bound, *judged = modes
    k += _cuts_a_pair(values, k)
    few = (values[:k], right[:, :k], left[:k], condition, timescale[:k], frequency[:k])
    return *few, n_unstable, bound[:k], *judged


def _padded(modes: tuple[Any, ...], n_modes: int) -> tuple[Any, ...]:
    values, right, left, condition, timescale, frequency, n_unstable, bound, *judged = modes
    end, none = (0, n_modes - len(values)), (0, 0)
    values, timescale, frequency, bound, right, left = (
        np.pad(x, ends, constant_values=np.nan)
        for x, ends in (
            (values, (end,)), (timescale, (end,)), (frequency, (end,)), (bound, (end,)), (right, (none, end)),
            (left, (end, none)),
        )
    )  # fmt: skip
    return values, right, left, condition, timescale, frequency, n_unstable, bound, *judged


def _excess(values: np.ndarray, kind: Kind) -> np.ndarray:
    return np.abs(values) - 1 if kind == "map" else values.real


def _elsner(size: Any, error: Any, n: int) -> Any:
    return (2 * size + error) ** (1 - 1 / n) * error ** (1 / n)


def _bound(values: np.ndarray, excess: np.ndarray, discs: list[np.ndarray]) -> np.ndarray:
    """How much nearer to the border each true eigenvalue may be: the least over several unions of discs."""
    from scipy.sparse.csgraph import connected_components

    bounds, distance = [], np.abs(values[:, None] - values)
    for radius in discs:
        _, group = connected_components(distance <= radius[:, None] + radius, directed=False)
        low, high = np.full(len(values), np.inf), np.full(len(values), -np.inf)
        np.minimum.at(low, group, excess - radius)
        np.maximum.at(high, group, excess + radius)
        bounds.append(np.maximum(radius, np.where(excess > 0, excess - low[group], high[group] - excess)))
    return np.minimum.reduce(bounds)


def _surely(excess: np.ndarray, bound: np.ndarray, n: int) -> np.ndarray:
    """(least, largest) number of unstable modes among n, of which the leading ones are given."""
    n_stable = np.count_nonzero(excess < -bound)
    return np.array([np.count_nonzero(excess > bound), len(excess) - n_stable if n_stable else n])


def _verdict(surely: np.ndarray) -> np.ndarray:
    """From (least, largest) number of unstable modes."""
    return np.asarray("unstable" if surely[0] else "marginal" if surely[1] else "stable", "<U8")


def _border_is_clear(matrix: np.ndarray, rounding: float, given_error: float, kind: Kind) -> bool:
    """Is sigma_min(zI - J) > E all along the border?

    It changes by no more than z does, so its value in the middle of an arc settles the arc if it exceeds E by half the
    arc's length; an arc that is not settled is halved. The matrix is real: the upper half of the border will do.
    """
    size, error = float(np.linalg.norm(matrix, 2)), rounding + given_error
    identity, needed = np.eye(len(matrix)), error + rounding  # once more: the inverse, too, is rounded
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
        if nearest <= needed:
            return False
        if nearest - needed <= (end - start) / 2:
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
