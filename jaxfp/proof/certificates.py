"""Proofs that a fixed point exists, that it is the only one nearby, and that there is none.

For a map G(x) = F(x, u) - x and D = I - J, for a flow G = F and D = -J; the fixed points are the zeros of G. With any
matrix C, here the inverse of D at the center c, they are among the fixed points of N(x) = x + C G(x), and N' = I - C D.
In the ball of radius r about c, in the max-norm,

    Y >= |C G(c)|,     Z(r) >= |I - C D(x)| for every x in the ball.

If Y + Z(r) r <= r and Z(r) < 1, N sends the ball into itself and contracts it, and C is invertible: exactly one fixed
point lies in the ball, within Y / (1 - Z(r)) of the center (Newton-Kantorovich; Krawczyk 1969). If Z(r) < 1 there is at
most one. The smallest such r bounds the error of the center, the largest one tried says how far the point is alone.

None lies in a ball if for some row vector l, |l G(c)| > r |l D(x)|_1 for every x in the ball: by the mean value
theorem l G has no zero there. Nor does one if the enclosure of some unit of G over the ball does not hold 0.

All bounds come from interval arithmetic (`interval`, `enclosure`) and hold for the map in real arithmetic, with the
weights as given in float64.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfp import arguments, dynamics
from jaxfp.proof import enclosure, interval
from jaxfp.proof.enclosure import Enclosure
from jaxfp.proof.interval import Interval
from jaxfp.types import Array, Kind, Params, StepFn

_EPS = 2.0**-52
_ELEMENTS = 2**17  # of a Jacobian's entries at once: 1 MiB an array, what a core's cache holds
_MOVED = 1e-4  # relative to 1 + |h|: a center is refined, another point is not looked for
_AROUND = 1e-14  # likewise
_FIRST_RADIUS = 1e-3  # relative to 1 + |h|
_LARGEST_RADIUS = 1e3  # likewise
_SMALLEST = 1e-290
_ROUNDS = 4  # radii tried for uniqueness after the first


class Certificates(NamedTuple):
    """What is proved of each point. Balls are those of the max-norm about `center`.

    Attributes:
      exists: (n_points,) bool; exactly one fixed point lies in each of the two balls. False is no proof of anything.
      error_radius: (n_points,) activation units, how far the fixed point can be from `center`; infinite where exists is
        False.
      unique_radius: (n_points,) activation units, how far around `center` there is no other; 0 where exists is False.
      center: (n_points, n_hidden), the point refined by Newton's method; the point itself where that leads away.
    """

    exists: np.ndarray
    error_radius: np.ndarray
    unique_radius: np.ndarray
    center: np.ndarray


class CertifiedJacobian(NamedTuple):
    """The Jacobian at fixed points that were proved to exist.

    Attributes:
      jacobian: (n_points, n_hidden, n_hidden) dF/dh; NaN where no fixed point was proved.
      error: (n_points,) bound of || dF/dh at the fixed point - jacobian || in the Frobenius norm, and so in the 2-norm;
        infinite where no fixed point was proved.
    """

    jacobian: np.ndarray
    error: np.ndarray


def certify(
    step_fn: StepFn, params: Params, hidden: Array, inputs: Array | None = None, *, kind: Kind = "map"
) -> Certificates:
    """Prove that fixed points exist near given states, and that they are isolated.

    A host function, float64. Compiles nothing: the step's jaxpr is evaluated on intervals.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands; NumPy float64 is kept, narrower floats are widened.
      hidden: (n_points, n_hidden) states near fixed points, or (n_hidden,) for one; activation units.
      inputs: None, (n_inputs,) for all, or (n_points, n_inputs) one each.
      kind: "map" (F(h, u) = h) or "flow" (F(h, u) = 0).

    Returns:
      Certificates; with a leading axis of 1 for one state.

    Raises:
      ValueError: for wrong shapes.
      NotImplementedError: if the step uses an operation without an interval rule; it is named.

    Example:
      >>> import jax.numpy as jnp
      >>> proof = certify(lambda p, h, u: jnp.tanh(p * h), 1.5, np.array([[0.85856], [0.3]]))
      >>> proof.exists.tolist(), bool(proof.error_radius[0] < 1e-14), bool(proof.unique_radius[0] > 0.1)
      ([True, False], True, True)

    Source: Krawczyk (1969), Computing 4:187; Rump (2010), Acta Numerica 19:287, section 13.
    """
    hidden, inputs = _checked("hidden", step_fn, params, hidden, inputs, kind)
    return Certificates(*_prove(step_fn, params, kind, _certify_chunk, hidden, inputs))


def excludes(
    step_fn: StepFn,
    params: Params,
    center: Array,
    radius: Array | float,
    inputs: Array | None = None,
    *,
    kind: Kind = "map",
) -> np.ndarray:
    """Prove that no fixed point lies in a ball, and so tell a ghost from a fixed point without a threshold.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands.
      center: (n_hidden,) or (n_balls, n_hidden), activation units.
      radius: of the max-norm, activation units; a number, or (n_balls,).
      inputs: None, (n_inputs,) for all, or (n_balls, n_inputs) one each.
      kind: "map" or "flow".

    Returns:
      bool array, a scalar for one center: True where it is proved that the ball holds no fixed point. False is no
      proof of anything.

    Raises:
      ValueError: for wrong shapes, or a radius that is negative or not finite.
      NotImplementedError: if the step uses an operation without an interval rule; it is named.

    Example:
      >>> bool(excludes(lambda p, h, u: h + p + h**2, 1e-12, np.zeros(1), 5e-7))  # q = 5e-25, and yet no fixed point
      True
    """
    center = arguments.as_numpy("center", center, "(n_hidden,) or (n_balls, n_hidden)")
    single = center.ndim == 1
    center, inputs = _checked("center", step_fn, params, center, inputs, kind)
    radii = arguments.as_numpy("radius", radius, "a finite number, 0 or more").astype(np.float64)
    if radii.shape not in ((), (len(center),)) or not (np.isfinite(radii) & (radii >= 0)).all():
        wanted = f"a finite number, 0 or more, or ({len(center)},) of them, one a center"
        raise ValueError(f"radius must be {wanted}; got {arguments.came(radius)}.")
    (proved,) = _prove(step_fn, params, kind, _exclude_chunk, center, inputs, np.broadcast_to(radii, len(center)))
    return proved[0] if single else proved


def certified_jacobian(
    step_fn: StepFn, params: Params, proof: Certificates, inputs: Array | None = None
) -> CertifiedJacobian:
    """The Jacobian at the fixed points themselves, not at states near them, with a bound on its error.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands.
      proof: result of `certify`.
      inputs: as given to `certify`.

    Returns:
      CertifiedJacobian. With it `spectrum(result.jacobian, jacobian_error=result.error)` speaks of the fixed points.

    Raises:
      ValueError: for wrong shapes.
      NotImplementedError: if the step uses an operation without an interval rule; it is named.

    Example:
      >>> proof = certify(lambda p, h, u: p * h**2, 0.5, np.array([[2.0]]))
      >>> result = certified_jacobian(lambda p, h, u: p * h**2, 0.5, proof)
      >>> result.jacobian.round(9).tolist(), bool(result.error[0] < 1e-14)
      ([[[2.0]]], True)
    """
    _check_proof(proof)
    center, inputs = _checked("proof", step_fn, params, proof.center, inputs, "map")
    radius = np.where(proof.exists, proof.error_radius, np.nan)
    return CertifiedJacobian(*_prove(step_fn, params, "flow", _jacobian_chunk, center, inputs, radius))


def tell_apart(proof: Certificates, inputs: Array | None = None) -> np.ndarray:
    """Which certified points are the same fixed point, by proof alone.

    Two are the same if the existence ball of one lies inside the uniqueness ball of the other, different if their
    existence balls are disjoint or their inputs differ; anything else is undecided.

    Args:
      proof: result of `certify`.
      inputs: None, or (n_points, n_inputs).

    Returns:
      (n_points, n_points) int: 1 the same, -1 different, 0 undecided. A point that is not certified is only known to
      be itself.

    Raises:
      ValueError: if proof is no result of `certify`, or inputs do not fit it.

    Example:
      >>> proof = certify(lambda p, h, u: p * h**2, 0.5, np.array([[2.0], [2.0 + 1e-6], [0.0]]))
      >>> tell_apart(proof).tolist()
      [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
    """
    _check_proof(proof)
    n_points = len(proof.exists)
    if inputs is not None:
        wanted = f"None or ({n_points}, n_inputs), a row for each point of proof"
        inputs = arguments.as_numpy("inputs", inputs, wanted)
        if inputs.ndim != 2 or len(inputs) != n_points:
            raise ValueError(f"inputs must be {wanted}, got {inputs.shape}.")
    relation = np.zeros((n_points, n_points), int)
    for i in range(n_points):
        apart = np.abs(proof.center - proof.center[i]).max(axis=1, initial=0.0)
        both = proof.exists & proof.exists[i]
        own, other = proof.error_radius[i], proof.error_radius
        inside = interval.up(apart + own) <= interval.down(proof.unique_radius)
        inside |= interval.up(apart + other) <= interval.down(proof.unique_radius[i])
        relation[i] = np.where(
            both & inside, 1, np.where(both & (interval.down(apart) > interval.up(own + other)), -1, 0)
        )
    if inputs is not None:
        relation[(inputs[:, None] != inputs[None]).any(axis=-1)] = -1
    relation[np.diag_indices(n_points)] = 1
    return relation


def _check_proof(proof: Any) -> None:
    if not isinstance(proof, Certificates):
        raise ValueError(f"proof must be the result of certify, got {arguments.came(proof)}.")


def _checked(
    name: str, step_fn: StepFn, params: Params, hidden: Any, inputs: Any, kind: Kind
) -> tuple[np.ndarray, np.ndarray | None]:
    dynamics.check_kind(kind)
    arguments.check_step(step_fn)
    arguments.check_params(params)
    wanted = "(n_hidden,) or (n_points, n_hidden)"
    hidden = arguments.as_numpy(name, hidden, wanted).astype(np.float64)
    hidden = hidden[None] if hidden.ndim == 1 else hidden
    if hidden.ndim != 2 or not hidden.shape[1]:
        raise ValueError(f"{name} must be {wanted}, got {hidden.shape}.")
    if inputs is None:
        return hidden, None
    wanted = f"None, (n_inputs,) or ({len(hidden)}, n_inputs), a row for each of {name}"
    inputs = arguments.as_numpy("inputs", inputs, wanted).astype(np.float64)
    if inputs.ndim not in (1, 2) or (inputs.ndim == 2 and len(inputs) != len(hidden)):
        raise ValueError(f"inputs must be {wanted}, got {inputs.shape}.")
    return hidden, np.broadcast_to(inputs, (len(hidden), inputs.shape[-1]))


def _prove(
    step_fn: StepFn,
    params: Params,
    kind: Kind,
    chunk: Callable[..., tuple[np.ndarray, ...]],
    hidden: np.ndarray,
    inputs: np.ndarray | None,
    *columns: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """`chunk(zero_of, derivative, hidden, *columns)` for as many points at once as a core's cache holds."""
    n_points, n_hidden = hidden.shape
    size = min(max(1, _ELEMENTS // n_hidden**2), max(n_points, 1))
    parts = []
    with jax.enable_x64(True), np.errstate(all="ignore"):
        step, jacobian = enclosure.build_enclosures(
            step_fn, dynamics.widen(params), size, n_hidden, None if inputs is None else inputs.shape[1]
        )
        if not n_points:  # what one point would get, and none of it
            given = (hidden, inputs, *columns)
            hidden, inputs, *columns = (None if x is None else np.zeros((1, *x.shape[1:])) for x in given)  # type: ignore
        for start in range(0, len(hidden), size):
            rows = np.minimum(np.arange(start, start + size), len(hidden) - 1)  # the last chunk is filled up: one shape
            drive = None if inputs is None else inputs[rows]
            part = chunk(
                functools.partial(_zero_of, step, kind, drive),
                functools.partial(_derivative, jacobian, kind, drive),
                *(column[rows] for column in (hidden, *columns)),
            )
            parts.append([column[: n_points - start] for column in part])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _zero_of(step: Enclosure, kind: Kind, inputs: np.ndarray | None, box: Interval) -> Interval:
    """G on the box, NaN where it may jump."""
    return interval.sub(step(box, inputs), box) if kind == "map" else step(box, inputs)


def _derivative(jacobian: Enclosure, kind: Kind, inputs: np.ndarray | None, box: Interval) -> Interval:
    """D on the box."""
    matrices = jacobian(box, inputs)
    if kind == "flow":
        return interval.neg(matrices)
    return interval.sub(interval.thin(np.eye(matrices.lower.shape[-1])), matrices)


_Bound = Callable[[Interval], Interval]


def _certify_chunk(zero_of: _Bound, derivative: _Bound, hidden: np.ndarray) -> tuple[np.ndarray, ...]:
    """exists, error_radius, unique_radius, center."""
    center = _refined(zero_of, derivative, hidden)
    scale = 1 + np.abs(center).max(axis=1)
    slope = interval.middle(derivative(interval.ball(center, _AROUND * scale[:, None])))  # of both sides of a kink
    inverse = _inverse(slope)
    step = interval.matmul(interval.thin(inverse), _column(zero_of(interval.thin(center))))
    newton = interval.magnitude(step)[..., 0].max(axis=1)  # Y
    remainder = interval.matmul(interval.thin(inverse), interval.thin(slope))
    remainder = interval.sub(interval.thin(np.eye(slope.shape[-1])), remainder)
    at_center = _row_sums(interval.magnitude(remainder)).max(axis=1)

    def contraction(radius: np.ndarray) -> np.ndarray:
        """Z, infinite where the map may jump."""
        box = interval.ball(center, radius[:, None])
        spread = _row_sums(interval.distance(derivative(box), slope))
        size = interval.up(np.abs(inverse) @ spread[..., None])[..., 0] * (1 + 2 * slope.shape[-1] * _EPS)
        bound = interval.up(interval.up(size.max(axis=1)) + at_center)
        return np.where(np.isfinite(bound) & _known(zero_of(box)).all(axis=1), bound, np.inf)

    exists = np.zeros(len(center), bool)
    error, unique = np.full(len(center), np.inf), np.zeros(len(center))

    def try_radius(radius: np.ndarray) -> np.ndarray:
        """Z at this radius, after noting what it proves."""
        nonlocal exists, error, unique
        z = contraction(radius)
        within = interval.up(newton / interval.down(1 - z) * (1 + 4 * _EPS))
        proves = (z < 1) & (within <= radius)
        exists, error = exists | proves, np.where(proves, np.minimum(error, within), error)
        unique = np.where(proves, np.maximum(unique, radius), unique)
        return z

    try_radius(2 * newton + _SMALLEST)
    radius = _FIRST_RADIUS * scale
    good, bad = (
        np.zeros(len(center)),
        np.full(len(center), np.inf),
    )  # the largest that proved, the smallest that did not
    for _ in range(_ROUNDS):
        # Z grows about linearly: aim at 9 tenths of where it would reach 1, from a radius where it was finite.
        z = try_radius(radius)
        good, bad = np.where(unique >= radius, radius, good), np.where(unique >= radius, bad, radius)
        aim = 0.9 * (1 - at_center) / np.maximum((z - at_center) / radius, 1e-300)
        aim = np.where(np.isfinite(z), aim, radius / 32)
        # It may grow faster, or level off: stay between what proved and what did not.
        quarter = np.where((good > 0) & np.isfinite(bad), (bad / good) ** 0.25, 1.0)
        aim = np.where(quarter > 1, np.clip(aim, good * quarter, bad / quarter), aim)
        radius = np.clip(aim, _SMALLEST, _LARGEST_RADIUS * scale)
    try_radius(radius)
    return exists, error, unique, center


def _exclude_chunk(
    zero_of: _Bound, derivative: _Bound, center: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, ...]:
    box = interval.ball(center, radius[:, None])
    slopes = derivative(box)
    slope = interval.middle(slopes)
    around = zero_of(box)
    finite = np.isfinite(slope).all(axis=(1, 2)) & _known(around).all(axis=1)
    safe = np.where(finite[:, None, None], slope, np.eye(slope.shape[-1]))
    # Which rows l are tried matters to what is found, not to what is true: those in which D is small, and Newton's.
    rows = np.concatenate([np.linalg.svd(safe)[0].swapaxes(1, 2), _inverse(safe)], axis=1)
    zero = interval.matmul(interval.thin(rows), _column(zero_of(interval.thin(center))))
    left = interval.absolute(zero).lower[..., 0]
    right = _row_sums(interval.magnitude(interval.matmul(interval.thin(rows), slopes)))
    farthest = np.maximum(radius, interval.distance(box, center).max(axis=1))  # the box was rounded outward
    by_slope = finite & (left > interval.up(farthest[:, None] * right)).any(axis=1)
    return (by_slope | (interval.absolute(around).lower > 0).any(axis=1),)


def _jacobian_chunk(
    zero_of: _Bound, derivative: _Bound, center: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, ...]:
    slopes = interval.neg(derivative(interval.ball(center, radius[:, None])))  # D of a flow is -J
    jacobian = np.where(np.isnan(radius)[:, None, None], np.nan, interval.middle(slopes))
    spread = interval.distance(slopes, jacobian).reshape(len(center), -1)
    error = interval.up(np.sqrt(interval.up((spread**2).sum(axis=1) * (1 + 2 * spread.shape[1] * _EPS))))
    return jacobian, np.where(np.isfinite(error), error, np.inf)


def _refined(zero_of: _Bound, derivative: _Bound, hidden: np.ndarray) -> np.ndarray:
    """A few steps of Newton's method with one inverse, where they do not lead away."""
    inverse = _inverse(interval.middle(derivative(interval.thin(hidden))))
    center = hidden
    for _ in range(3):
        center = center + (inverse @ interval.middle(_column(zero_of(interval.thin(center)))))[..., 0]
    near = np.abs(center - hidden).max(axis=1) <= _MOVED * (1 + np.abs(hidden).max(axis=1))
    return np.where(near[:, None], center, hidden)


def _known(x: Interval) -> np.ndarray:
    """Where the interval has two ends, so that what it bounds did not jump."""
    return np.isfinite(x.lower) & np.isfinite(x.upper)


def _column(x: Interval) -> Interval:
    return Interval(x.lower[..., None], x.upper[..., None])


def _row_sums(x: np.ndarray) -> np.ndarray:
    """At least the sum of each row of numbers that are not negative."""
    return interval.up(x.sum(axis=-1) * (1 + 2 * x.shape[-1] * _EPS))


def _inverse(matrices: np.ndarray) -> np.ndarray:
    """The inverse of each matrix, NaN where it has none."""
    try:
        return np.linalg.inv(matrices)
    except np.linalg.LinAlgError:
        if len(matrices) == 1:
            return np.full(matrices.shape, np.nan)
        return np.concatenate([_inverse(matrix[None]) for matrix in matrices])
