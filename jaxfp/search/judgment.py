"""What each lane of a wave ended in: FIXED, SLOW, or why it is neither.

With r the residual, J_r its Jacobian, eps the resolution of the step function and n the number of units:

    FIXED     at the floor, ||r|| <= 8 eps sqrt(n) max(||h||, || |J_r||h| ||), and near, ||J_r^-1 r|| <= sqrt(eps) (1 +
              ||h||): isolated. Or J_r is singular and, 1e-3 along its null vector, polishing ends at another zero:
              one of a continuum, isolated False.
    SLOW      q is at a minimum above the floor: ||J_r' r|| <= 10 sqrt(eps) ||J_r|| ||r||, or Newton on the gradient
              of q with its exact, positive definite Hessian would move less than sqrt(eps) (1 + ||h||). The second
              sees what the first cannot, a minimum where J_r vanishes as a whole.
    REJECTED  at the floor only because a gate rounds to 0 or 1, or too ill-conditioned to be near anything, or
              outside a box that the map sends into itself, where there is nothing to find.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfp.search import dedupe, engine, inside, polish, zeros
from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
from jaxfp.search.solvers.newton_krylov import gauss_newton_krylov
from jaxfp.types import (
    CONVERGED,
    FIXED,
    MAX_STEPS,
    NONFINITE,
    REJECTED,
    SLOW,
    FixedPoints,
    Kind,
    Params,
    Solver,
    StepFn,
)

_NULL_STEP = 1e-3  # how far along the null vector a continuum is probed, relative to 1 + ||h||
_STUCK = "stuck: neither a zero nor a minimum of q to rounding"
_BOLD = 1e-6  # damping of a search that goes on from where another one ended
_CLEAR = 100.0  # how far beyond its error an estimated singular value settles the matter without an SVD
_FAR = 1e-2  # beyond the box, relative to 1 + ||h||
LARGEST_DENSE = 512  # units up to which a lane by itself is settled with dense matrices


class Problem(NamedTuple):
    """Everything a wave needs besides its candidates.

    Attributes:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened to float64.
      kind: "map" or "flow".
      solver: of the search before the polish, or None for the stages of `wave`.
      dtype: of the search before the polish.
      eps: relative resolution of the step function's own arithmetic.
      max_steps: iterations a lane may take, in the search and again in the polish.
      tolerance: q at which the search hands over to the polish.
      slow_tolerance: q at which a lane stops for good, or None.
      unique_tolerance: distance within which two points are one, or None for what the polish resolves.
      chunk_size: lanes in flight, or None for what the budget allows.
      n_dense: states whose Jacobians are held at a time.
      sharding: of the lanes over devices, or None.
      box: from one input (n_inputs,) to the (lower, upper) corners of a box the map sends into itself, or None.
    """

    step_fn: StepFn
    params: Params
    kind: Kind
    solver: Solver | None
    dtype: Any
    eps: float
    max_steps: int
    tolerance: float
    slow_tolerance: float | None
    unique_tolerance: float | None
    chunk_size: int | None
    n_dense: int
    sharding: jax.sharding.Sharding | None
    box: Callable[[Any], tuple[np.ndarray, np.ndarray]] | None


def tolerances(problem: Problem, hidden: np.ndarray, status: np.ndarray) -> np.ndarray:
    """Distance within which a point is the same as another.

    Args:
      problem: see `Problem`.
      hidden: (n_points, n_hidden).
      status: (n_points,).

    Returns:
      (n_points,) activation units. By default 4 sqrt(eps) (1 + ||h||) for FIXED points: judgment vouches for sqrt(eps),
      both may be off, and at a double zero, where Newton's step is half the distance, by twice as much. For SLOW ones,
      whose q is flatter, 2 eps^(1/3) (1 + ||h||).

    Example:
      >>> problem = Problem(None, None, "map", None, None, 1e-16, 1, 0.0, None, 0.5, 1, 1, None, None)
      >>> tolerances(problem, np.ones((2, 1)), np.array([FIXED, SLOW])).tolist()
      [0.5, 0.5]
    """
    if problem.unique_tolerance is not None:
        return np.full(len(hidden), problem.unique_tolerance)
    near = np.where(status == FIXED, 4 * problem.eps**0.5, 2 * problem.eps ** (1 / 3))
    return near * (1 + np.linalg.norm(hidden, axis=1))


class Ended(NamedTuple):
    """Where lanes ended in float64, with a first status.

    Attributes:
      hidden: (n_lanes, n_hidden) float64.
      speed: (n_lanes,) ||r||.
      status: (n_lanes,) FIXED, SLOW, MAX_STEPS, NONFINITE or REJECTED.
      reason: (n_lanes,) why a lane is no point, "" where it may be one.
      rounding: (n_lanes,) bool, the residual is so small that a saturated gate may be all there is to it.
      regular: (n_lanes,) bool, at a zero: J_r is known to be far from singular; above: the Hessian of q to be positive
        definite. Nothing is left to judge.
    """

    hidden: np.ndarray
    speed: np.ndarray
    status: np.ndarray
    reason: np.ndarray
    rounding: np.ndarray
    regular: np.ndarray


class Judged(NamedTuple):
    """Points among lanes.

    Attributes:
      points: distinct points; n_hits are of these lanes, the report is None.
      label: (n_lanes,) row of `points`, -1 for none.
      status: (n_lanes,) FIXED, SLOW, MAX_STEPS, NONFINITE or REJECTED.
      reason: (n_lanes,) why a lane is no point, "" where it is one.
    """

    points: FixedPoints
    label: np.ndarray
    status: np.ndarray
    reason: np.ndarray


def settle(problem: Problem, hidden: np.ndarray, inputs: np.ndarray | None) -> tuple[Ended, np.ndarray]:
    """The last digits and a first status, for each lane by itself: what no lane can share. Needs x64 in scope.

    Args:
      problem: see `Problem`.
      hidden: (n_lanes, n_hidden) float64, where the search left them.
      inputs: (n_lanes, n_inputs) float64 or None.

    Returns:
      Ended, and the iterations it took (n_lanes,).

    Example:
      >>> problem = Problem(
      ...     lambda p, h, u: p * h, 0.5, "map", None, np.float64, 2.2e-16, 50, 0.0, None, None, 16, 16,
      ...     None, None,
      ... )
      >>> with jax.enable_x64(True):
      ...     settle(problem, np.ones((2, 3)), None)[0].status.tolist() == [FIXED, FIXED]
      True
    """
    p, n_lanes = problem, len(hidden)
    n_steps = np.zeros(n_lanes, int)
    if p.slow_tolerance is None:
        ended = _measure(problem, hidden, np.zeros(n_lanes), np.full(n_lanes, CONVERGED), inputs)
        waits = ended.status == MAX_STEPS
    else:  # a lane that stops early must not be polished before it has stopped
        waits, none = np.ones(n_lanes, bool), np.zeros(n_lanes)
        ended = Ended(hidden.copy(), none, none.astype(int), none.astype(object), ~waits, ~waits)
    dense = hidden.shape[1] <= LARGEST_DENSE
    again = np.flatnonzero(waits)
    if len(again) and (dense or p.slow_tolerance is not None):
        u = None if inputs is None else inputs[again]
        lanes = engine.run_wave(
            p.step_fn,
            p.params,
            hidden[again],
            u,
            solver=levenberg_marquardt(_BOLD) if dense else gauss_newton_krylov(48),
            kind=p.kind,
            tolerance=p.slow_tolerance or 0.0,
            max_steps=p.max_steps,
            chunk_size=p.n_dense,
        )
        n_steps[again] = lanes.n_steps
        more = _measure(problem, lanes.hidden, lanes.q, lanes.status, u)
        for column, column_again in zip(ended, more, strict=True):
            column[again] = column_again
    return ended, n_steps


def _measure(
    problem: Problem, hidden: np.ndarray, q: np.ndarray, came_as: np.ndarray, inputs: np.ndarray | None
) -> Ended:
    """Polish lanes and say what they look like; `q` is that of `hidden` and wanted with a slow tolerance only."""
    p, eps, at = problem, problem.eps, hidden
    common: dict[str, Any] = {"kind": p.kind, "chunk_size": p.n_dense}
    dense = hidden.shape[1] <= LARGEST_DENSE
    polished = (polish.polish if dense else polish.look)(p.step_fn, p.params, at, inputs, **common)
    hidden, speed = polished.hidden, polished.speed
    floor = polished.floor * (eps / np.finfo(float).eps)
    at_floor = speed <= floor
    slow = polished.slope <= 10 * eps**0.5
    least = floor
    if p.slow_tolerance is not None:
        # Lanes stay where they stopped, except where the floor is a polish away.
        near = np.linalg.norm(hidden - at, axis=1) <= eps**0.25 * (1 + np.linalg.norm(hidden, axis=1))
        at_floor &= near
        hidden = np.where(at_floor[:, None], hidden, at)
        speed = np.where(at_floor, speed, np.sqrt(2 * q))
        slow = q <= p.slow_tolerance
    elif dense:
        # The slope is small as well where gates close and r, though not at the floor, can get no smaller.
        least = np.where(slow, np.maximum(floor, eps**0.75 * (1 + np.linalg.norm(hidden, axis=1))), floor)
        open_ = np.flatnonzero(np.isfinite(speed) & ~at_floor & ~slow)
        if len(open_):
            u = None if inputs is None else inputs[open_]
            moved, moved_speed, distance = polish.minimize(p.step_fn, p.params, hidden[open_], u, **common)
            again = polish.polish(p.step_fn, p.params, moved, u, **common)
            # The minimum of q was a zero of r after all?
            zero = again.speed <= again.floor * (eps / np.finfo(float).eps)
            found = distance <= eps**0.5 * (1 + np.linalg.norm(moved, axis=1))
            hidden[open_[found]], speed[open_[found]] = moved[found], moved_speed[found]
            hidden[open_[zero]], speed[open_[zero]] = again.hidden[zero], again.speed[zero]
            at_floor[open_[zero]] = slow[open_[found]] = True
    status = np.select([~np.isfinite(speed), at_floor, slow], [NONFINITE, FIXED, SLOW], MAX_STEPS)
    reason = np.full(len(hidden), "", object)
    reason[status == NONFINITE] = "not finite"
    reason[status == MAX_STEPS] = _STUCK
    reason[(status == MAX_STEPS) & (came_as != CONVERGED)] = f"no minimum of q within {p.max_steps} steps"
    rounding = saturated(problem, hidden.shape[1], polished.gate_margin, speed, least)
    ended = Ended(hidden, speed, status, reason, rounding, np.zeros(len(hidden), bool))
    return in_the_box(problem, ended, inputs)


def saturated(problem: Problem, n_hidden: int, gate_margin: Any, speed: Any, floor: Any) -> np.ndarray:
    """May a small residual be the work of a gate that rounds to 0 or 1?

    Args:
      problem: see `Problem`.
      n_hidden: units.
      gate_margin: (n_lanes,) see `program.gate_margin`.
      speed: (n_lanes,) ||r||.
      floor: (n_lanes,) what rounding leaves of it.

    Returns:
      (n_lanes,) bool.

    Example:
      >>> problem = Problem(None, None, "map", None, None, 1e-16, 1, 0.0, None, 0.5, 1, 1, None, None)
      >>> bool(saturated(problem, 4, 0.0, 0.0, 1e-15))
      True
    """
    return (gate_margin <= 8 * n_hidden * problem.eps) & (speed <= floor * problem.eps**-0.25)


def in_the_box(problem: Problem, ended: Ended, inputs: np.ndarray | None) -> Ended:
    """REJECTED where a lane ended outside the box that the map sends into itself.

    Args:
      problem: see `Problem`.
      ended: lanes.
      inputs: (n_lanes, n_inputs) float64 or None.

    Returns:
      Ended; the same where no box is known.

    Example:
      >>> problem = Problem(None, None, "map", None, None, 1e-16, 1, 0.0, None, 0.5, 1, 1, None, None)
      >>> in_the_box(problem, "as it is", None)
      'as it is'
    """
    if problem.box is None:
        return ended
    slack = problem.eps**0.5 * (1 + np.linalg.norm(ended.hidden, axis=1))
    outside = inside.outside(problem.box, ended.hidden, inputs, slack)
    status, reason = ended.status.copy(), ended.reason.copy()
    status[outside], reason[outside] = REJECTED, "outside the box that the map sends into itself"
    return ended._replace(status=status, reason=reason)


def far_outside(problem: Problem, hidden: np.ndarray, inputs: np.ndarray | None) -> np.ndarray:
    """Is a lane so far outside the box that no last digit brings it back?

    Args:
      problem: see `Problem`.
      hidden: (n_lanes, n_hidden).
      inputs: (n_lanes, n_inputs) float64 or None.

    Returns:
      (n_lanes,) bool; False where no box is known.

    Example:
      >>> problem = Problem(None, None, "map", None, None, 1e-16, 1, 0.0, None, 0.5, 1, 1, None, None)
      >>> far_outside(problem, np.full((1, 2), 1e9), None).tolist()
      [False]
    """
    if problem.box is None:
        return np.zeros(len(hidden), bool)
    return inside.outside(problem.box, hidden, inputs, _FAR * (1 + np.linalg.norm(hidden, axis=1)))


def judge(problem: Problem, ended: Ended, inputs: np.ndarray | None) -> Judged:
    """Merge what is the same, judge each representative, and let its lanes share the verdict. Needs x64 in scope.

    Args:
      problem: see `Problem`.
      ended: lanes.
      inputs: (n_lanes, n_inputs) float64 or None.

    Returns:
      Judged.

    Example:
      >>> problem = Problem(
      ...     lambda p, h, u: p * h, 0.5, "map", None, np.float64, 2.2e-16, 50, 0.0, None, None, 16, 16,
      ...     None, None,
      ... )
      >>> with jax.enable_x64(True):
      ...     judged = judge(problem, settle(problem, np.ones((2, 3)), None)[0], None)
      >>> judged.points.hidden.round(6).tolist(), judged.label.tolist()
      ([[0.0, 0.0, 0.0]], [0, 0])
    """
    hidden, speed, status, reason = ended[:4]
    owner = np.full(len(hidden), -1)
    tolerance = tolerances(problem, hidden, status)
    for code in (FIXED, SLOW):
        rows = np.flatnonzero(status == code)
        u = None if inputs is None else inputs[rows]
        owner[rows] = rows[dedupe.representatives(hidden[rows], u, speed[rows], tolerance[rows])]
    kept = np.flatnonzero(owner == np.arange(len(hidden)))
    verdict, isolated, why = _judge_representatives(problem, ended, inputs, kept)

    place = np.full(len(hidden), -1)  # of a representative among the kept
    place[kept] = np.arange(len(kept))
    members = np.flatnonzero(owner >= 0)
    of = place[owner[members]]
    status, reason = status.copy(), reason.copy()
    status[members], reason[members] = verdict[of], why[of]
    good = np.isin(verdict, (FIXED, SLOW))
    label = np.full(len(hidden), -1)
    label[members] = np.where(good[of], (np.cumsum(good) - 1)[of], -1)
    rows = kept[good]
    points = FixedPoints(
        hidden=hidden[rows],
        inputs=None if inputs is None else inputs[rows],
        q=speed[rows] ** 2 / 2,
        speed=speed[rows],
        status=verdict[good],
        isolated=isolated[good],
        n_hits=np.bincount(label[label >= 0], minlength=len(rows)),
        report=None,  # type: ignore[arg-type]  # the pipeline writes it
    )
    return Judged(points, label, status, reason)


def is_regular(factors: zeros.Factors, eps: float) -> bool:
    """Is a Jacobian so far from singular that its factors settle the matter, without its singular values?

    Args:
      factors: of J_r.
      eps: relative resolution of the step function.

    Returns:
      True if the least singular value, estimated on the low side, is 100 times what rounding makes of zero.

    Example:
      >>> is_regular(zeros.factorize(np.eye(2)), 2.2e-16), is_regular(zeros.factorize(np.diag([1.0, 1e-15])), 2.2e-16)
      (True, False)
    """
    n = len(factors.lu)
    if factors.lu.dtype == np.float32:  # the residual was still brought to its floor with them
        return bool(factors.rcond > _CLEAR * np.finfo(np.float32).eps)
    return bool(zeros.least_singular(factors) > _CLEAR * 8 * n * eps * max(factors.size * n**0.5, 1.0))


def _judge_representatives(
    problem: Problem, ended: Ended, inputs: np.ndarray | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Verdict, isolated and reason of each representative."""
    p = problem
    u = None if inputs is None else inputs[rows]
    common: dict[str, Any] = {"kind": p.kind, "chunk_size": p.n_dense}
    hidden, verdict = ended.hidden[rows], ended.status[rows].copy()
    isolated, why = np.ones(len(rows), bool), np.full(len(rows), "", object)
    size = 1 + np.linalg.norm(hidden, axis=1)
    verdict[(verdict == SLOW) & ended.rounding[rows]] = REJECTED
    why[verdict == REJECTED] = "saturated gate: the residual vanishes by rounding only"
    slow = np.flatnonzero((verdict == SLOW) & ~ended.regular[rows])
    if p.slow_tolerance is None and len(slow):
        # A lane that began on a symmetry plane of q may end where q is stationary but falls away on either side.
        at = None if u is None else u[slow]
        falls = slow[polish.falls_away(polish.hessians(p.step_fn, p.params, hidden[slow], at, **common), p.eps)]
        verdict[falls], why[falls] = MAX_STEPS, _STUCK
    null, close, probed = np.zeros_like(hidden), np.zeros(len(rows), bool), []
    fixed = np.flatnonzero((verdict == FIXED) & ~ended.regular[rows])
    for start in range(0, len(fixed), p.n_dense):  # never more Jacobians at a time
        part = fixed[start : start + p.n_dense]
        at = None if u is None else u[part]
        residuals, jacobians = polish.residual_jacobians(p.step_fn, p.params, hidden[part], at, **common)
        for k, r, jacobian in zip(part, residuals, jacobians, strict=True):
            if not np.isfinite(jacobian).all():
                verdict[k], why[k] = REJECTED, "the Jacobian is not finite"
                continue
            factors = zeros.factorize(jacobian)
            if is_regular(factors, p.eps):
                close[k] = np.linalg.norm(zeros.solve(factors, r[None])) <= p.eps**0.5 * size[k]
                if close[k]:
                    continue
            # J_r carries rounding of this size: below it a singular value is as good as 0.
            error = 8 * len(r) * p.eps
            left, singular, right = np.linalg.svd(jacobian)
            with np.errstate(divide="ignore", invalid="ignore"):
                distance = np.linalg.norm((left.T @ r) / singular)
            close[k] = distance <= p.eps**0.5 * size[k]
            if not close[k] or singular[-1] <= error * max(singular[0], 1.0):
                null[k] = right[-1]
                probed.append(k)
    if probed:
        at = np.array(probed)
        stays = _stays_along(problem, hidden[at], None if u is None else u[at], null[at])
        saturated = ended.rounding[rows[at]]
        isolated[at[stays & ~saturated]] = False
        lost = at[stays & saturated]
        verdict[lost], why[lost] = REJECTED, "saturated gate: the residual vanishes by rounding only"
        lost = at[~stays & ~close[at]]
        verdict[lost], why[lost] = REJECTED, "ill-conditioned: at the floor, yet far from any zero"
    return verdict, isolated, why


def _stays_along(problem: Problem, hidden: np.ndarray, inputs: np.ndarray | None, direction: np.ndarray) -> np.ndarray:
    """Do zeros of r continue along a null direction? Step along it, polish again, see whether that stays put."""
    p = problem
    far = _NULL_STEP * (1 + np.linalg.norm(hidden, axis=1, keepdims=True))
    start = np.concatenate([hidden + far * direction, hidden - far * direction])
    u = None if inputs is None else np.concatenate([inputs, inputs])
    common: dict[str, Any] = {"kind": p.kind, "chunk_size": p.n_dense}
    lanes = engine.run_wave(
        p.step_fn, p.params, start, u, solver=levenberg_marquardt(_BOLD), tolerance=0.0, max_steps=p.max_steps, **common
    )
    again = polish.polish(p.step_fn, p.params, lanes.hidden, u, **common)
    at_floor = again.speed <= again.floor * (p.eps / np.finfo(float).eps)
    apart = np.linalg.norm(again.hidden - np.concatenate([hidden, hidden]), axis=1) >= np.tile(far[:, 0], 2) / 2
    return (at_floor & apart).reshape(2, -1).any(0)
