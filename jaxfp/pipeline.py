"""From candidates to fixed and slow points: waves of search, polish, judgment and deduplication.

One wave: search every candidate in its own dtype (engine), go on in float64 and polish (Newton), merge what is the
same (dedupe), then judge each representative once:

    FIXED     at the rounding floor, and ||J_r^-1 r|| <= sqrt(eps) (1 + ||h||): isolated. Or J_r singular, and 1e-3
              along its null vector another zero of r: one of a continuum, isolated False.
    SLOW      a stationary point of q above the floor: ||J_r' r|| <= 10 sqrt(eps) ||J_r|| ||r||.
    REJECTED  at the floor only because a gate is saturated, or so ill-conditioned that the point could be elsewhere,
              or outside a box that the map sends into itself.

The user's candidates are the first wave. With until="complete" further waves are seeded from the points known,
until the stop rule of `find_fixed_points` is met.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import dynamics, program
from jaxfp.analysis import completeness, modes
from jaxfp.search import candidates as seeding
from jaxfp.search import dedupe, engine, polish
from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
from jaxfp.types import (
    FIXED,
    MAX_STEPS,
    NONFINITE,
    REJECTED,
    SLOW,
    STATUS_NAMES,
    Array,
    FixedPoints,
    Kind,
    Params,
    Report,
    Solver,
    StepFn,
)

_Rows = TypeVar("_Rows", bound=tuple)

_N_SEEDED = 128  # candidates of one seeded wave, per input
_MAX_WAVES = 16  # seeded waves before a search that never settles is given up, and says so
_NULL_STEP = 1e-3  # how far along the null vector a continuum is probed, relative to 1 + ||h||


class _Problem(NamedTuple):
    """Everything a wave needs besides its candidates."""

    step_fn: StepFn
    params: Params  # float64
    kind: Kind
    solver: Solver
    dtype: Any  # of the search before the polish
    eps: float  # resolution of the step function
    max_steps: int
    tolerance: float
    slow_tolerance: float | None
    unique_tolerance: float | None
    chunk_size: int
    box: Callable[[Any], tuple[np.ndarray, np.ndarray]] | None


class _Wave(NamedTuple):
    """Judged lanes: `label` is the row in `points` a lane belongs to, -1 where it is none."""

    points: FixedPoints  # report and n_hits empty
    label: np.ndarray
    status: np.ndarray
    reason: np.ndarray
    n_steps: np.ndarray


def find_fixed_points(
    step_fn: StepFn,
    params: Params,
    candidates: Array,
    inputs: Array | None = None,
    *,
    kind: Kind = "map",
    solver: Solver | None = None,
    max_steps: int = 200,
    tolerance: float = 0.0,
    slow_tolerance: float | None = None,
    unique_tolerance: float | None = None,
    until: Literal["all", "complete"] = "all",
    bounded: bool | None = None,
    chunk_size: int = 128,
    progress: bool = False,
    key: jax.Array | None = None,
) -> FixedPoints:
    """All fixed and slow points that the candidates lead to, each judged, none by a hand-set tolerance.

    A host function: NumPy in, NumPy out, float64 whatever the caller's x64 setting.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step of one state; or the vector field of a flow. A
        named function or one of our adapters: a fresh lambda is a new program to compile.
      params: pytree that `step_fn` understands; NumPy float64 is kept, narrower floats are widened.
      candidates: (n_candidates, n_hidden) floating, activation units; the search runs in their dtype.
      inputs: None, (n_inputs,) for all, or (n_candidates, n_inputs) one each; held constant.
      kind: "map" (F(h, u) = h) or "flow" (F(h, u) = 0).
      solver: of the search before the polish; `levenberg_marquardt()` by default.
      max_steps: iterations a lane may take, in the search and again in the polish.
      tolerance: q at which a lane's search ends early and the polish takes over; costs or saves time only.
      slow_tolerance: the papers' other mode. Each lane stops as soon as its q is below this, and what is not at the
        rounding floor is SLOW there, so that points spread over a slow manifold.
      unique_tolerance: distance within which two points are one, activation units; by default what the polish
        resolves: sqrt(eps) (1 + ||h||) for FIXED, eps^(1/3) (1 + ||h||) for SLOW points.
      until: "all": every candidate is searched once. "complete": then waves seeded from the points found follow,
        until for each input (a) the index sum is +1 with every sign certain and (b) after that one whole seeded wave
        added no point; without a degree guarantee, until two seeded waves in a row added none.
      bounded: True if the map is known to send some box into itself (or the flow to point inward on a ball). None:
        ask `step_fn.bounded`; adapters know.
      chunk_size: lanes in flight at once; memory is chunk_size * n_hidden^2 numbers.
      progress: show a progress bar; changes no result.
      key: typed PRNG key of the seeded waves; jax.random.key(0) by default.

    Returns:
      FixedPoints.

    Raises:
      ValueError: for wrong shapes, dtypes or ranges, weights or inputs that are not finite, a step that changes the
        shape of the state or draws random numbers.

    Example:
      >>> points = find_fixed_points(lambda p, h, u: jnp.tanh(p * h), 1.5, np.array([[-1.0], [0.1], [1.0]]))
      >>> np.sort(points.hidden.ravel()).round(6).tolist()
      [-0.858561, 0.0, 0.858561]

    Source: Sussillo & Barak (2013), Neural Computation 25:626. Differs: second order, judged, audited.
    """
    candidates, inputs = _checked(candidates, inputs, max_steps, chunk_size, until)
    for name, value in (("tolerance", tolerance), ("slow_tolerance", slow_tolerance), ("unique_tolerance", unique_tolerance)):
        if value is not None and not 0 <= value < np.inf:
            raise ValueError(f"{name} must be a finite number, 0 or more, got {value}.")
    dynamics.check_kind(kind)
    if key is not None:
        seeding.check_key(key)
    _check_finite("params", params)
    began = time.perf_counter()
    with jax.enable_x64(True):
        wide = dynamics.widen(params)
        read = _read(step_fn, wide, candidates, inputs)
        box, known, known_by = _who_knows_the_box(step_fn, wide, bounded)
        search_dtype = jnp.promote_types(candidates.dtype, jnp.float32)
        problem = _Problem(
            step_fn, wide, kind, solver or levenberg_marquardt(), search_dtype, float(jnp.finfo(read.precision).eps),
            max_steps, tolerance, slow_tolerance, unique_tolerance, chunk_size, box,
        )  # fmt: skip
        group, distinct = dedupe.input_groups(inputs, len(candidates))
        with _bar(progress, len(candidates)) as tick:
            wave = _search_wave(problem, candidates, inputs, tick)
        seconds = {"first wave": time.perf_counter() - began}
        n_inputs = 1 if distinct is None else len(distinct)
        unanswered = np.isin(wave.status, (MAX_STEPS, NONFINITE))
        speeds = np.asarray(_speeds(step_fn, kind, wide, candidates.astype(np.float64), inputs))
        report = Report(
            kind=kind,
            inputs=distinct,
            n_candidates=len(candidates),
            counts={name: int((wave.status == i).sum()) for i, name in enumerate(STATUS_NAMES) if i >= FIXED},
            reasons=dict(Counter(str(r) for r in wave.reason if r)),
            unresolved=np.bincount(group[unanswered], minlength=n_inputs),
            n_candidates_per_input=np.bincount(group, minlength=n_inputs),
            bounded=known,
            bounded_by=known_by,
            until=until,
            waves=[_wave_record(wave, wave.points, seeded=False)],
            seeded_waves_met=np.zeros(n_inputs, bool),
            candidate_speed=float(np.median(speeds[np.isfinite(speeds)])) if np.isfinite(speeds).any() else np.nan,
            precision=read.precision,
            precision_floor=problem.eps,
            n_steps={"median": float(np.median(wave.n_steps)), "largest": float(wave.n_steps.max())},
            seconds=seconds,
        )
        hits = np.bincount(wave.label[wave.label >= 0], minlength=len(wave.points.hidden))
        points = wave.points._replace(n_hits=hits, report=report)
        if until == "complete":
            began = time.perf_counter()
            points = _complete(problem, points, candidates, jax.random.key(0) if key is None else key)
            seconds["seeded waves"] = time.perf_counter() - began
    order = np.lexsort((*points.hidden.T[::-1], -points.n_hits, points.status))
    return take(points, order)


def take(rows: _Rows, keep: Any) -> _Rows:
    """Filter or reorder the rows of a result tuple.

    Args:
      rows: NamedTuple whose arrays share their leading axis, e.g. FixedPoints, Linearization, Modes; its report and
        its None fields are kept as they are.
      keep: boolean mask, index array or slice over the leading axis.

    Returns:
      The same kind of tuple.

    Example:
      >>> points = find_fixed_points(lambda p, h, u: p * h, 0.5, np.ones((1, 2)))
      >>> take(points, points.status == SLOW).hidden.shape
      (0, 2)
    """
    return type(rows)(*(x[keep] if hasattr(x, "shape") else x for x in rows))


def _checked(candidates: Any, inputs: Any, max_steps: int, chunk_size: int, until: str) -> tuple[Any, Any]:
    candidates = np.asarray(candidates)
    if candidates.ndim != 2 or not len(candidates) or not candidates.shape[1]:
        raise ValueError(
            f"candidates must be (n_candidates, n_hidden), at least one of at least one unit, got {candidates.shape}."
        )
    if not jnp.issubdtype(candidates.dtype, jnp.floating):
        raise ValueError(f"candidates must be floating, the search runs in their dtype; got {candidates.dtype}.")
    if inputs is not None:
        inputs = np.asarray(inputs)
        n_candidates = len(candidates)
        if not (inputs.ndim == 1 or (inputs.ndim == 2 and len(inputs) == n_candidates)):
            raise ValueError(
                f"inputs must be None, (n_inputs,) or (n_candidates, n_inputs) with n_candidates = {n_candidates}, "
                f"got {inputs.shape}."
            )
        if not (jnp.issubdtype(inputs.dtype, jnp.number) and not jnp.issubdtype(inputs.dtype, jnp.complexfloating)):
            raise ValueError(f"inputs must be real numbers, got {inputs.dtype}.")
        inputs = np.broadcast_to(inputs, (n_candidates, inputs.shape[-1])).astype(np.float64)
        _check_finite("inputs", inputs)
    for name, value in (("max_steps", max_steps), ("chunk_size", chunk_size)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    if until not in ("all", "complete"):
        raise ValueError(f'until must be "all" or "complete", got {until!r}.')
    return candidates, inputs


def _check_finite(name: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"{name}{jax.tree_util.keystr(path)} must be finite, it holds NaN or infinity.")


def _read(step_fn: StepFn, params: Params, candidates: np.ndarray, inputs: np.ndarray | None) -> program.Program:
    hidden = jax.ShapeDtypeStruct(candidates.shape[1:], np.float64)
    drive = None if inputs is None else jax.ShapeDtypeStruct(inputs.shape[1:], np.float64)
    try:
        read = program.read(step_fn, params, hidden, drive)
    except TypeError as error:
        shape = None if drive is None else drive.shape
        raise ValueError(f"step_fn cannot take hidden {hidden.shape} and inputs {shape}: {error}") from error
    if read.random is not None:
        raise ValueError(
            f"step_fn draws random numbers ({read.random}): a stochastic step has no fixed points. Switch dropout and "
            "noise off."
        )
    if read.out_shape != hidden.shape:
        raise ValueError(f"step_fn must return the shape of hidden, {hidden.shape}, it returned {read.out_shape}.")
    return read


def _who_knows_the_box(step_fn: StepFn, params: Params, bounded: bool | None) -> tuple[Any, bool | None, str]:
    """The box (a function of one input) where there is one to test against, and who vouches for it."""
    knows = bool(getattr(step_fn, "bounded", False))

    def box(inputs: Any) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = step_fn.box(params, inputs)  # type: ignore[attr-defined]
        return np.asarray(lower), np.asarray(upper)

    if bounded:
        return box if knows else None, True, "the caller says that it sends a box into itself"
    if bounded is None and knows:
        return box, True, "the cell is known to send a box into itself"
    return None, None, "it is not known that this step function sends a box into itself"


def _search_wave(
    problem: _Problem, candidates: np.ndarray, inputs: np.ndarray | None, tick: Callable[[int], None] | None
) -> _Wave:
    """Search, polish, merge and judge one set of candidates."""
    p = problem
    stop = p.tolerance if p.slow_tolerance is None else p.slow_tolerance
    common = {"kind": p.kind, "max_steps": p.max_steps, "chunk_size": p.chunk_size}
    n_steps = np.zeros(len(candidates), int)
    hidden = candidates.astype(np.float64)
    narrow = np.dtype(p.dtype) != np.float64
    if narrow or p.solver != levenberg_marquardt():
        cast = jax.tree.map(lambda x: x.astype(p.dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, (p.params, inputs))
        lanes = engine.run_wave(
            p.step_fn, cast[0], candidates.astype(p.dtype), cast[1], solver=p.solver, tolerance=stop, **common
        )
        hidden, n_steps = lanes.hidden.astype(np.float64), n_steps + lanes.n_steps
    # The search may have ended early (its dtype, its tolerance, its budget): float64 goes on from where it was.
    finite = np.isfinite(hidden).all(1)
    lanes = engine.run_wave(
        p.step_fn, p.params, np.where(finite[:, None], hidden, np.nan), inputs, solver=levenberg_marquardt(1e-6 if narrow else 1e-2),
        tolerance=0.0 if p.slow_tolerance is None else p.slow_tolerance, on_progress=tick, **common,
    )  # fmt: skip
    n_steps = n_steps + lanes.n_steps
    polished = polish.polish(p.step_fn, p.params, lanes.hidden, inputs, kind=p.kind, chunk_size=p.chunk_size)
    return _judge(problem, polished, lanes, inputs, n_steps)


def _judge(problem: _Problem, polished: polish.Polished, lanes: engine.Lanes, inputs: Any, n_steps: np.ndarray) -> _Wave:
    p, eps = problem, problem.eps
    hidden, speed = polished.hidden, polished.speed
    if p.slow_tolerance is not None:  # stay where the lane stopped, unless Newton finds the floor right there
        near = np.linalg.norm(hidden - lanes.hidden, axis=1) <= eps**0.25 * (1 + np.linalg.norm(lanes.hidden, axis=1))
        keep = (speed <= polished.floor) & near
        hidden = np.where(keep[:, None], hidden, lanes.hidden)
        speed = np.where(keep, speed, np.sqrt(2 * lanes.q))
    at_floor = speed <= polished.floor * (eps / np.finfo(float).eps)
    slow = polished.slope <= 10 * eps**0.5
    if p.slow_tolerance is not None:
        slow = speed**2 / 2 <= p.slow_tolerance
    status = np.select([~np.isfinite(speed), at_floor, slow], [NONFINITE, FIXED, SLOW], MAX_STEPS)
    reason = np.select(
        [status == NONFINITE, status == MAX_STEPS], ["not finite", f"no minimum of q within {p.max_steps} steps"], ""
    ).astype(object)

    size = 1 + np.linalg.norm(hidden, axis=1)
    tolerance = np.where(status == FIXED, eps**0.5, eps ** (1 / 3)) * size
    if p.unique_tolerance is not None:
        tolerance[:] = p.unique_tolerance
    label = np.full(len(hidden), -1)
    for code in (FIXED, SLOW):
        rows = np.flatnonzero(status == code)
        u = None if inputs is None else inputs[rows]
        label[rows] = rows[dedupe.representatives(hidden[rows], u, speed[rows], tolerance[rows])]

    kept = np.flatnonzero(label == np.arange(len(hidden)))
    isolated = np.ones(len(hidden), bool)
    verdict, isolated[kept], why = _judge_representatives(problem, polished, hidden, speed, status, inputs, kept)
    members = label >= 0
    position = np.full(len(hidden), -1)
    position[kept] = np.arange(len(kept))
    owner = position[label[members]]
    status[members] = verdict[owner]
    reason[members] = why[owner]
    label[members] = np.where(verdict[owner] == REJECTED, -1, owner)
    good = verdict != REJECTED
    renumber = np.cumsum(good) - 1
    label[label >= 0] = renumber[label[label >= 0]]
    rows = kept[good]
    points = FixedPoints(
        hidden[rows], None if inputs is None else inputs[rows], speed[rows] ** 2 / 2, speed[rows], status[rows],
        isolated[rows], np.zeros(len(rows), int), None,  # type: ignore[arg-type]
    )  # fmt: skip
    return _Wave(points, label, status, reason, n_steps)


def _judge_representatives(
    problem: _Problem, polished: polish.Polished, hidden: np.ndarray, speed: np.ndarray, status: np.ndarray, inputs: Any, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Verdict, isolated and reason of each representative."""
    p, n = problem, hidden.shape[1]
    verdict, isolated, why = status[rows].copy(), np.ones(len(rows), bool), np.full(len(rows), "", object)
    probes: list[tuple[int, np.ndarray, bool]] = []
    jacobians = polish.residual_jacobians(
        p.step_fn, p.params, hidden[rows], None if inputs is None else inputs[rows], kind=p.kind, chunk_size=16
    )
    for k, row in enumerate(rows):
        h, u = hidden[row], None if inputs is None else inputs[row]
        if p.box is not None:
            lower, upper = p.box(u)
            slack = p.eps**0.5 * (1 + np.linalg.norm(h))
            if (h < lower - slack).any() or (h > upper + slack).any():
                verdict[k], why[k] = REJECTED, "outside the box that the map sends into itself"
                continue
        if verdict[k] != FIXED:
            continue
        left, singular, right = np.linalg.svd(jacobians[k])
        with np.errstate(divide="ignore", invalid="ignore"):
            residual = _residual(p, h, u)
            distance = np.linalg.norm((left.T @ residual) / singular)
        close = distance <= p.eps**0.5 * (1 + np.linalg.norm(h))
        # J_r carries rounding of this size: below it a singular value is as good as 0.
        if close and singular[-1] > 8 * n * p.eps * max(singular[0], 1.0):
            continue
        probes.append((k, right[-1], bool(close)))
    for k, (stays, close) in _probe_continuum(problem, hidden, inputs, rows, probes).items():
        gate = polished.gate_margin[rows[k]] <= 8 * n * p.eps
        if stays and not gate:
            isolated[k] = False
        elif stays:
            verdict[k], why[k] = REJECTED, "saturated gate: the residual vanishes by rounding only"
        elif not close:
            verdict[k], why[k] = REJECTED, "ill-conditioned: the residual is at the rounding floor far from any point"
    return verdict, isolated, why


def _residual(problem: _Problem, hidden: np.ndarray, inputs: np.ndarray | None) -> np.ndarray:
    return np.asarray(
        dynamics.residual(problem.step_fn, problem.params, jnp.asarray(hidden), inputs, kind=problem.kind)
    )


def _probe_continuum(
    problem: _Problem, hidden: np.ndarray, inputs: Any, rows: np.ndarray, probes: list[tuple[int, np.ndarray, bool]]
) -> dict[int, tuple[bool, bool]]:
    """Does the point's null direction hold other zeros of r? Step along it, polish again, see whether that stays put."""
    if not probes:
        return {}
    p = problem
    which = rows[[k for k, _, _ in probes]]
    h = hidden[which]
    far = _NULL_STEP * (1 + np.linalg.norm(h, axis=1, keepdims=True))
    start = np.concatenate([h + far * np.array([v for _, v, _ in probes]), h - far * np.array([v for _, v, _ in probes])])
    u = None if inputs is None else np.concatenate([inputs[which]] * 2)
    lanes = engine.run_wave(
        p.step_fn, p.params, start, u, solver=levenberg_marquardt(1e-6), kind=p.kind, tolerance=0.0,
        max_steps=p.max_steps, chunk_size=p.chunk_size,
    )  # fmt: skip
    again = polish.polish(p.step_fn, p.params, lanes.hidden, u, kind=p.kind, chunk_size=p.chunk_size)
    at_floor = again.speed <= again.floor * (p.eps / np.finfo(float).eps)
    apart = np.linalg.norm(again.hidden - np.concatenate([h, h]), axis=1) >= far[:, 0].repeat(1)[np.arange(2 * len(h)) % len(h)] / 2
    stays = (at_floor & apart).reshape(2, -1).any(0)
    return {k: (bool(s), close) for (k, _, close), s in zip(probes, stays, strict=True)}


def _complete(problem: _Problem, points: FixedPoints, candidates: np.ndarray, key: jax.Array) -> FixedPoints:
    """Seeded waves per input until the stop rule is met."""
    report = points.report
    n_inputs = len(report.unresolved)
    quiet = np.zeros(n_inputs, int)  # seeded waves in a row that added no point, counted once (a) holds
    met = np.zeros(n_inputs, bool)
    scale = float(np.median(np.linalg.norm(candidates - np.median(candidates, axis=0), axis=1)))
    scale = scale if np.isfinite(scale) else 1.0
    for wave_number in range(_MAX_WAVES):
        jacobians = _jacobians(problem, points)
        audit = completeness.audit(points, jacobians)
        sums_met = np.array([s == audit.expected or audit.expected is None for s in audit.index_sums])
        quiet[~sums_met] = 0
        met = sums_met & (quiet >= (1 if audit.expected else 2))
        if met.all():
            break
        starts, drives = [], []
        group = _groups(points, report)
        for g in np.flatnonzero(~met):
            here = take(points, group == g)
            wave_key = jax.random.fold_in(jax.random.fold_in(key, wave_number), g)
            starts.append(_seeds(problem, here, jacobians[group == g], candidates, scale, wave_key))
            drives.append(None if report.inputs is None else np.repeat(report.inputs[g][None], _N_SEEDED, axis=0))
        u = None if report.inputs is None else np.concatenate(drives)
        wave = _search_wave(problem, np.concatenate(starts).astype(problem.dtype), u, None)
        fresh = _not_known(problem, points, wave.points)
        report.waves.append(_wave_record(wave, take(wave.points, fresh), seeded=True))
        new_groups = _groups(take(wave.points, fresh & (wave.points.status == FIXED)), report)
        found = np.bincount(new_groups, minlength=n_inputs) > 0
        quiet = np.where(found, 0, quiet + (sums_met & ~met))
        points = FixedPoints(
            *(None if a is None else np.concatenate([a, b[fresh]]) for a, b in zip(points[:7], wave.points[:7], strict=True)), report
        )
    return points._replace(report=report._replace(seeded_waves_met=met))


def _seeds(
    problem: _Problem, here: FixedPoints, jacobians: np.ndarray, candidates: np.ndarray, scale: float, key: jax.Array
) -> np.ndarray:
    """One seeded wave at one input."""
    finite = np.isfinite(candidates).all(1)
    fixed = (here.status == FIXED) & here.isolated
    hidden, saddles, projectors = here.hidden[fixed], [], []
    stable = []
    for h, jacobian in zip(hidden, jacobians[fixed], strict=True):
        m = modes.spectrum(jacobian, kind=problem.kind)
        (saddles if m.n_unstable else stable).append(h)
        if m.n_unstable:
            unstable = m.right[:, : m.n_unstable]
            basis = np.linalg.qr(np.concatenate([unstable.real, unstable.imag], 1))[0] if np.isfinite(unstable).all() else np.eye(len(h))
            projectors.append(basis[:, : m.n_unstable] @ basis[:, : m.n_unstable].T)
    pool = stable if len(stable) > 1 else list(hidden)
    if len(pool) < 2:  # nothing to mix yet: mix with the user's own candidates
        pool = [*pool, *candidates[finite][:8].astype(np.float64)] or [np.zeros(here.hidden.shape[1])]
    n = here.hidden.shape[1]
    return seeding.seed_candidates(
        key, _N_SEEDED, np.array(pool), np.reshape(saddles, (-1, n)), np.reshape(projectors, (-1, n, n)), scale
    )


def _jacobians(problem: _Problem, points: FixedPoints) -> np.ndarray:
    """dF/dh at the points."""
    r = polish.residual_jacobians(
        problem.step_fn, problem.params, points.hidden, points.inputs, kind=problem.kind, chunk_size=16
    )
    return r + np.eye(r.shape[-1]) if problem.kind == "map" else r


def _groups(points: FixedPoints, report: Report) -> np.ndarray:
    if report.inputs is None or points.inputs is None:
        return np.zeros(len(points.hidden), int)
    return np.array([np.flatnonzero((report.inputs == row).all(1))[0] for row in points.inputs], int)


def _not_known(problem: _Problem, known: FixedPoints, new: FixedPoints) -> np.ndarray:
    """Which new points are the same as none of the known ones."""
    both = [None if a is None else np.concatenate([a, b]) for a, b in zip(known[:7], new[:7], strict=True)]
    hidden, inputs, status = both[0], both[1], both[4]
    power = np.where(status == FIXED, 1 / 2, 1 / 3)
    tolerance = problem.eps**power * (1 + np.linalg.norm(hidden, axis=1))
    if problem.unique_tolerance is not None:
        tolerance[:] = problem.unique_tolerance
    rank = np.arange(len(hidden), dtype=float)  # the known come first, so they represent
    # A slow and a fixed point are never the same: told apart as inputs are.
    apart = status[:, None] if inputs is None else np.concatenate([inputs, status[:, None]], 1)
    owner = dedupe.representatives(hidden, apart.astype(float), rank, tolerance)
    return (owner == np.arange(len(hidden)))[len(known.hidden) :]


def _wave_record(wave: _Wave, new: FixedPoints, *, seeded: bool) -> dict[str, Any]:
    fixed = int((new.status == FIXED).sum())
    return {"seeded": seeded, "n_lanes": len(wave.label), "n_new": len(new.hidden), "n_new_fixed": fixed}


def _speeds(step_fn: StepFn, kind: Kind, params: Params, hidden: np.ndarray, inputs: Any) -> Any:
    return jax.jit(dynamics.speed, static_argnames=("step_fn", "kind"))(step_fn, params, jnp.asarray(hidden), inputs, kind=kind)


@contextmanager
def _bar(progress: bool, total: int) -> Iterator[Callable[[int], None] | None]:
    if not progress:
        yield None
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task("searching", total=total)
        yield lambda n: bar.advance(task, n)
