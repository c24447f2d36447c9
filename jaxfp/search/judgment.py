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
import jax.numpy as jnp
import numpy as np

from jaxfp.search import dedupe, engine, polish
from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
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


class Problem(NamedTuple):
    """Everything a wave needs besides its candidates.

    Attributes:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened to float64.
      kind: "map" or "flow".
      solver: of the search before the polish.
      dtype: of the search before the polish.
      eps: relative resolution of the step function's own arithmetic.
      max_steps: iterations a lane may take, in the search and again in the polish.
      tolerance: q at which the search hands over to the polish.
      slow_tolerance: q at which a lane stops for good, or None.
      unique_tolerance: distance within which two points are one, or None for what the polish resolves.
      chunk_size: lanes in flight.
      box: from one input (n_inputs,) to the (lower, upper) corners of a box the map sends into itself, or None.
    """

    step_fn: StepFn
    params: Params
    kind: Kind
    solver: Solver
    dtype: Any
    eps: float
    max_steps: int
    tolerance: float
    slow_tolerance: float | None
    unique_tolerance: float | None
    chunk_size: int
    box: Callable[[Any], tuple[np.ndarray, np.ndarray]] | None


class Wave(NamedTuple):
    """Judged lanes and the points they reached.

    Attributes:
      points: distinct points; their n_hits are those of this wave, their report is None.
      label: (n_candidates,) row of `points` each lane belongs to, -1 for none.
      status: (n_candidates,) FIXED, SLOW, MAX_STEPS, NONFINITE or REJECTED.
      reason: (n_candidates,) why a lane is no point, "" where it is one.
      n_steps: (n_candidates,) iterations of search and polish.
    """

    points: FixedPoints
    label: np.ndarray
    status: np.ndarray
    reason: np.ndarray
    n_steps: np.ndarray


def search_wave(
    problem: Problem,
    candidates: np.ndarray,
    inputs: np.ndarray | None,
    on_progress: Callable[[int], None] | None = None,
) -> Wave:
    """Search, polish, merge and judge one set of candidates. Needs x64 in scope.

    Args:
      problem: see `Problem`.
      candidates: (n_candidates, n_hidden).
      inputs: (n_candidates, n_inputs) float64 or None.
      on_progress: called with the number of lanes just finished.

    Returns:
      Wave.

    Example:
      >>> with jax.enable_x64(True):
      ...     problem = Problem(
      ...         lambda p, h, u: p * h, jnp.asarray(0.5), "map", levenberg_marquardt(), np.float64, 2.2e-16, 50, 0.0,
      ...         None, None, 16, None,
      ...     )
      ...     search_wave(problem, np.ones((2, 3)), None).points.hidden.round(6).tolist()
      [[0.0, 0.0, 0.0]]
    """
    p = problem
    common: dict[str, Any] = {"kind": p.kind, "max_steps": p.max_steps, "chunk_size": p.chunk_size}
    stop = p.slow_tolerance or 0.0
    hidden, n_steps = candidates.astype(np.float64), np.zeros(len(candidates), int)
    first = levenberg_marquardt()
    if np.dtype(p.dtype) != np.float64 or p.solver != first:
        params, drives = jax.tree.map(lambda x: _cast(x, p.dtype), (p.params, inputs))
        early = max(stop, p.tolerance)
        lanes = engine.run_wave(
            p.step_fn, params, candidates.astype(p.dtype), drives, solver=p.solver, tolerance=early, **common
        )
        hidden, n_steps, first = lanes.hidden.astype(np.float64), lanes.n_steps, levenberg_marquardt(_BOLD)
    # The search may have ended early (its dtype, its tolerance, its budget): float64 goes on from where it was.
    lanes = engine.run_wave(
        p.step_fn, p.params, hidden, inputs, solver=first, tolerance=stop, on_progress=on_progress, **common
    )
    ended = _measure(problem, lanes, inputs)
    return _judge(problem, ended, inputs, n_steps + lanes.n_steps)


def tolerances(problem: Problem, hidden: np.ndarray, status: np.ndarray) -> np.ndarray:
    """Distance within which a point is the same as another.

    Args:
      problem: see `Problem`.
      hidden: (n_points, n_hidden).
      status: (n_points,).

    Returns:
      (n_points,) activation units. By default twice what judgment vouches for, since both may be off: 2 sqrt(eps)
      (1 + ||h||) for FIXED points, and 2 eps^(1/3) (1 + ||h||) for SLOW ones, whose q is flatter.

    Example:
      >>> problem = Problem(None, None, "map", None, None, 1e-16, 1, 0.0, None, 0.5, 1, None)
      >>> tolerances(problem, np.ones((2, 1)), np.array([FIXED, SLOW])).tolist()
      [0.5, 0.5]
    """
    if problem.unique_tolerance is not None:
        return np.full(len(hidden), problem.unique_tolerance)
    return 2 * problem.eps ** np.where(status == FIXED, 1 / 2, 1 / 3) * (1 + np.linalg.norm(hidden, axis=1))


class _Ended(NamedTuple):
    """Lanes after the last digit, with a first status."""

    hidden: np.ndarray
    speed: np.ndarray
    status: np.ndarray
    reason: np.ndarray
    rounding: np.ndarray  # bool: the residual is so small that a saturated gate may be all there is to it


def _cast(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x


def _measure(problem: Problem, lanes: engine.Lanes, inputs: np.ndarray | None) -> _Ended:
    p, eps = problem, problem.eps
    common: dict[str, Any] = {"kind": p.kind, "chunk_size": p.chunk_size}
    polished = polish.polish(p.step_fn, p.params, lanes.hidden, inputs, **common)
    hidden, speed = polished.hidden, polished.speed
    floor = polished.floor * (eps / np.finfo(float).eps)
    at_floor = speed <= floor
    slow = polished.slope <= 10 * eps**0.5
    if p.slow_tolerance is not None:
        # Lanes stay where they stopped, except where the floor is a polish away.
        near = np.linalg.norm(hidden - lanes.hidden, axis=1) <= eps**0.25 * (1 + np.linalg.norm(hidden, axis=1))
        at_floor &= near
        hidden = np.where(at_floor[:, None], hidden, lanes.hidden)
        speed = np.where(at_floor, speed, np.sqrt(2 * lanes.q))
        slow = lanes.q <= p.slow_tolerance
    else:
        open_ = np.flatnonzero(np.isfinite(speed) & ~at_floor & ~slow)
        if len(open_):
            u = None if inputs is None else inputs[open_]
            moved, moved_speed, distance = polish.minimize(p.step_fn, p.params, hidden[open_], u, **common)
            again = polish.polish(p.step_fn, p.params, moved, u, **common)
            zero = again.speed <= again.floor * (
                eps / np.finfo(float).eps
            )  # the minimum of q was a zero of r after all
            found = distance <= eps**0.5 * (1 + np.linalg.norm(moved, axis=1))
            hidden[open_[found]], speed[open_[found]] = moved[found], moved_speed[found]
            hidden[open_[zero]], speed[open_[zero]] = again.hidden[zero], again.speed[zero]
            at_floor[open_[zero]] = slow[open_[found]] = True
    status = np.select([~np.isfinite(speed), at_floor, slow], [NONFINITE, FIXED, SLOW], MAX_STEPS)
    out_of_steps = (status == MAX_STEPS) & (lanes.status != CONVERGED)
    reason = np.full(len(hidden), "", object)
    reason[status == NONFINITE] = "not finite"
    reason[status == MAX_STEPS] = _STUCK
    reason[out_of_steps] = f"no minimum of q within {p.max_steps} steps"
    if p.box is not None:
        outside = _outside(p.box, hidden, inputs, eps**0.5 * (1 + np.linalg.norm(hidden, axis=1)))
        status[outside], reason[outside] = REJECTED, "outside the box that the map sends into itself"
    rounding = (polished.gate_margin <= 8 * hidden.shape[1] * eps) & (speed <= floor * eps**-0.25)
    return _Ended(hidden, speed, status, reason, rounding)


def _judge(problem: Problem, ended: _Ended, inputs: np.ndarray | None, n_steps: np.ndarray) -> Wave:
    """Merge what is the same, judge each representative, and let its lanes share the verdict."""
    hidden, speed, status, reason, _ = ended
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
    return Wave(points, label, status, reason, n_steps)


def _judge_representatives(
    problem: Problem, ended: _Ended, inputs: np.ndarray | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Verdict, isolated and reason of each representative."""
    p = problem
    u = None if inputs is None else inputs[rows]
    hidden, verdict = ended.hidden[rows], ended.status[rows].copy()
    isolated, why = np.ones(len(rows), bool), np.full(len(rows), "", object)
    size = 1 + np.linalg.norm(hidden, axis=1)
    verdict[(verdict == SLOW) & ended.rounding[rows]] = REJECTED
    why[verdict == REJECTED] = "saturated gate: the residual vanishes by rounding only"
    slow = np.flatnonzero(verdict == SLOW)
    if p.slow_tolerance is None and len(slow):
        # A lane that began on a symmetry plane of q may end where q is stationary but falls away on either side.
        at = None if u is None else u[slow]
        bend = polish.curvature(p.step_fn, p.params, hidden[slow], at, kind=p.kind, chunk_size=16)
        falls = slow[bend < -(p.eps**0.5)]
        verdict[falls], why[falls] = MAX_STEPS, _STUCK
    residuals, jacobians = polish.residual_jacobians(p.step_fn, p.params, hidden, u, kind=p.kind, chunk_size=16)
    null, close, probed = np.zeros_like(hidden), np.zeros(len(rows), bool), []
    for k in np.flatnonzero(verdict == FIXED):
        if not np.isfinite(jacobians[k]).all():
            verdict[k], why[k] = REJECTED, "the Jacobian is not finite"
            continue
        left, singular, right = np.linalg.svd(jacobians[k])
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.linalg.norm((left.T @ residuals[k]) / singular)
        close[k] = distance <= p.eps**0.5 * size[k]
        # J_r carries rounding of this size: below it a singular value is as good as 0.
        if not close[k] or singular[-1] <= 8 * hidden.shape[1] * p.eps * max(singular[0], 1.0):
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


def _outside(box: Any, hidden: np.ndarray, inputs: np.ndarray | None, slack: np.ndarray) -> np.ndarray:
    group, distinct = dedupe.input_groups(inputs, len(hidden))
    boxes = [box(None)] if distinct is None else [box(u) for u in distinct]
    lower, upper = (np.array([b[i] for b in boxes])[group] for i in (0, 1))
    beyond = (hidden < lower - slack[:, None]) | (hidden > upper + slack[:, None])  # False for NaN
    return beyond.any(1)


def _stays_along(problem: Problem, hidden: np.ndarray, inputs: np.ndarray | None, direction: np.ndarray) -> np.ndarray:
    """Do zeros of r continue along a null direction? Step along it, polish again, see whether that stays put."""
    p = problem
    far = _NULL_STEP * (1 + np.linalg.norm(hidden, axis=1, keepdims=True))
    start = np.concatenate([hidden + far * direction, hidden - far * direction])
    u = None if inputs is None else np.concatenate([inputs, inputs])
    common: dict[str, Any] = {"kind": p.kind, "chunk_size": p.chunk_size}
    lanes = engine.run_wave(
        p.step_fn, p.params, start, u, solver=levenberg_marquardt(_BOLD), tolerance=0.0, max_steps=p.max_steps, **common
    )
    again = polish.polish(p.step_fn, p.params, lanes.hidden, u, **common)
    at_floor = again.speed <= again.floor * (p.eps / np.finfo(float).eps)
    apart = np.linalg.norm(again.hidden - np.concatenate([hidden, hidden]), axis=1) >= np.tile(far[:, 0], 2) / 2
    return (at_floor & apart).reshape(2, -1).any(0)
