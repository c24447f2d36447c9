"""From candidates to fixed and slow points: waves of search, polish, deduplication and judgment, then the audit.

The user's candidates are the first wave. With until="complete" further waves follow at each input, seeded from the
points known there (mixtures of the attractors, steps along the unstable directions of the saddles) and, since the
user's candidates may all lie in one basin, from trajectories that begin anywhere in the box. They end when
(a) the index sum is +1 with every sign certain, (b) after that one whole wave added no fixed point, and (b') the waves
since then found nine tenths of the known saddles again, from starts that are not steps from them. Without (b') a pair
of missing points whose indices cancel slips through: a wave that misses the saddles that are known proves nothing
about others. Without a degree guarantee (a) cannot be asked, and two waves in a row must add none.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

from jaxfp import dynamics, program
from jaxfp.analysis import completeness, modes
from jaxfp.search import candidates as seeding
from jaxfp.search import dedupe, judgment, polish
from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
from jaxfp.types import (
    FIXED,
    MAX_STEPS,
    NONFINITE,
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

_N_SEEDED = 256  # candidates of one seeded wave, per input
_N_ANYWHERE = 64  # of them, states of trajectories from anywhere
_REFOUND = 0.9  # share of the known saddles that quiet waves must have found again
_MAX_WAVES = 16  # seeded waves before a search that never settles is given up, and says so


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
        resolves: 2 sqrt(eps) (1 + ||h||) for FIXED, 2 eps^(1/3) (1 + ||h||) for SLOW points.
      until: "all": every candidate is searched once. "complete": then waves seeded from the points found follow,
        until for each input (a) the index sum is +1 with every sign certain, (b) after that one whole seeded wave
        added no point, and (b') such waves found nine tenths of the known saddles again; without a degree guarantee,
        until two seeded waves in a row added none, and (b').
      bounded: True if the map is known to send some box into itself (or the flow to point inward on a ball). None:
        ask `step_fn.bounded`, for a map; adapters know.
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
      [-0.85856, 0.0, 0.85856]

    Source: Sussillo & Barak (2013), Neural Computation 25:626. Differs: second order, judged, audited.
    """
    candidates, inputs = _checked(candidates, inputs)
    _check_numbers(max_steps, chunk_size, until, tolerance, slow_tolerance, unique_tolerance)
    dynamics.check_kind(kind)
    key = jax.random.key(0) if key is None else key
    seeding.check_key(key)
    _check_finite("params", params)
    began = time.perf_counter()
    with jax.enable_x64(True):
        wide = dynamics.widen(params)
        read = _read(step_fn, wide, candidates, inputs)
        box, known, known_by = _who_knows_the_box(step_fn, wide, kind, bounded)
        problem = judgment.Problem(
            step_fn=step_fn,
            params=wide,
            kind=kind,
            solver=levenberg_marquardt() if solver is None else solver,
            dtype=candidates.dtype if jnp.finfo(candidates.dtype).bits >= 32 else np.dtype(np.float32),
            eps=float(jnp.finfo(read.precision).eps),
            max_steps=max_steps,
            tolerance=tolerance,
            slow_tolerance=slow_tolerance,
            unique_tolerance=unique_tolerance,
            chunk_size=chunk_size,
            box=box,
        )
        with _bar(progress, len(candidates)) as tick:
            wave = judgment.search_wave(problem, candidates, inputs, tick)
        report = _first_report(problem, wave, candidates, inputs)
        report = report._replace(bounded=known, bounded_by=known_by, until=until, precision=read.precision)
        report.seconds["first wave"] = time.perf_counter() - began
        points = wave.points._replace(report=report)
        if until == "complete":
            began = time.perf_counter()
            points = _complete(problem, points, candidates, key)
            report.seconds["seeded waves"] = time.perf_counter() - began
    return take(points, np.lexsort((*points.hidden.T[::-1], -points.n_hits, points.status)))


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


def _checked(candidates: Any, inputs: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Candidates as they are, inputs as (n_candidates, n_inputs) float64 or None."""
    candidates = np.asarray(candidates)
    if candidates.ndim != 2 or not candidates.size:
        raise ValueError(
            f"candidates must be (n_candidates, n_hidden), at least one of at least one unit, got {candidates.shape}."
        )
    if not jnp.issubdtype(candidates.dtype, jnp.floating):
        raise ValueError(f"candidates must be floating, the search runs in their dtype; got {candidates.dtype}.")
    if inputs is None:
        return candidates, None
    inputs, n_candidates = np.asarray(inputs), len(candidates)
    if inputs.ndim not in (1, 2) or (inputs.ndim == 2 and len(inputs) != n_candidates):
        raise ValueError(
            f"inputs must be None, (n_inputs,) or (n_candidates, n_inputs) with n_candidates = {n_candidates}, "
            f"got {inputs.shape}."
        )
    if inputs.dtype.kind not in "fiub":
        raise ValueError(f"inputs must be real numbers, got {inputs.dtype}.")
    _check_finite("inputs", inputs)
    return candidates, np.broadcast_to(inputs, (n_candidates, inputs.shape[-1])).astype(np.float64)


def _check_numbers(max_steps: Any, chunk_size: Any, until: Any, *tolerances: Any) -> None:
    for name, value in (("max_steps", max_steps), ("chunk_size", chunk_size)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    if until not in ("all", "complete"):
        raise ValueError(f'until must be "all" or "complete", got {until!r}.')
    for name, value in zip(("tolerance", "slow_tolerance", "unique_tolerance"), tolerances, strict=True):
        if value is not None and not 0 <= value < np.inf:
            raise ValueError(f"{name} must be a finite number, 0 or more, got {value!r}.")


def _check_finite(name: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"{name}{jax.tree_util.keystr(path)} must be finite, it holds NaN or infinity.")


def _read(step_fn: StepFn, params: Params, candidates: np.ndarray, inputs: np.ndarray | None) -> program.Program:
    try:
        hash(step_fn)
    except TypeError as error:
        raise ValueError(
            f"step_fn must be hashable, a function or one of our adapters; got {type(step_fn)}."
        ) from error
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


def _who_knows_the_box(
    step_fn: StepFn, params: Params, kind: Kind, bounded: bool | None
) -> tuple[Any, bool | None, str]:
    """The box (a function of one input) where there is one to test against, and who vouches for it."""
    knows = kind == "map" and bool(getattr(step_fn, "bounded", False))  # adapters speak of the map F, not of x' = F

    def box(inputs: Any) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = step_fn.box(params, inputs)  # type: ignore[attr-defined]
        return np.asarray(lower), np.asarray(upper)

    if bounded:
        return box if knows else None, True, "the caller says that it sends a box into itself"
    if bounded is None and knows:
        return box, True, "the cell is known to send a box into itself"
    return None, None, "it is not known that this step function sends a box into itself"


def _first_report(
    problem: judgment.Problem, wave: judgment.Wave, candidates: np.ndarray, inputs: np.ndarray | None
) -> Report:
    """What happened to the user's candidates; what is known of the map is filled in by the caller."""
    group, distinct = dedupe.input_groups(inputs, len(candidates))
    n_inputs = 1 if distinct is None else len(distinct)
    p = problem
    speed = np.asarray(_speed(p.step_fn, p.params, jnp.asarray(candidates, jnp.float64), inputs, kind=p.kind))
    speed = speed[np.isfinite(speed)]
    return Report(
        kind=p.kind,
        inputs=distinct,
        n_candidates=len(candidates),
        counts={name: int((wave.status == code).sum()) for code, name in enumerate(STATUS_NAMES) if code >= FIXED},
        reasons=dict(Counter(str(reason) for reason in wave.reason if reason)),
        unresolved=np.bincount(group[np.isin(wave.status, (MAX_STEPS, NONFINITE))], minlength=n_inputs),
        n_candidates_per_input=np.bincount(group, minlength=n_inputs),
        bounded=None,
        bounded_by="",
        until="all",
        waves=[_wave_record(wave.points, len(candidates), seeded=False)],
        seeded_waves_met=np.zeros(n_inputs, bool),
        candidate_speed=float(np.median(speed)) if len(speed) else np.nan,
        precision="",
        precision_floor=p.eps,
        n_steps={"median": float(np.median(wave.n_steps)), "largest": float(wave.n_steps.max())},
        seconds={},
    )


_speed = jax.jit(dynamics.speed, static_argnames=("step_fn", "kind"))


def _wave_record(new: FixedPoints, n_lanes: int, *, seeded: bool) -> dict[str, Any]:
    return {
        "seeded": seeded,
        "n_lanes": n_lanes,
        "n_new_fixed": int((new.status == FIXED).sum()),
        "n_new_slow": int((new.status == SLOW).sum()),
    }


def _complete(problem: judgment.Problem, points: FixedPoints, candidates: np.ndarray, key: jax.Array) -> FixedPoints:
    """Seeded waves, at each input until its stop rule is met."""
    report = points.report
    n_inputs = len(report.unresolved)
    quiet = np.zeros(n_inputs, int)  # waves in a row, begun with (a) met, that added no fixed point
    again = np.zeros(len(points.hidden), bool)  # points that these waves found again
    met = np.zeros(n_inputs, bool)
    for number in range(_MAX_WAVES):
        jacobians = _jacobians(problem, points)
        sums = completeness.audit(points, jacobians).index_sums
        sums_met = np.array([s == 1 or not report.bounded for s in sums])
        group = completeness.input_group_of(points.inputs, report.inputs, len(points.hidden))
        quiet[~sums_met] = 0
        again &= sums_met[group]
        linear = modes.spectrum(jacobians, kind=problem.kind)
        saddle = (points.status == FIXED) & points.isolated & (linear.n_unstable > 0)
        met = quiet >= (1 if report.bounded else 2)
        met &= [again[saddle & (group == g)].sum() >= _REFOUND * (saddle & (group == g)).sum() for g in range(n_inputs)]
        waiting = np.flatnonzero(~met)
        if not len(waiting):
            break
        wave_key = jax.random.fold_in(key, number)
        aimed, steps = zip(
            *(
                _seeds(
                    problem,
                    take(points, group == g),
                    take(linear, group == g),
                    candidates,
                    None if report.inputs is None else report.inputs[g],
                    jax.random.fold_in(wave_key, g),
                )
                for g in waiting
            ),
            strict=True,
        )
        drives = None
        if report.inputs is not None:
            owner = [np.repeat(waiting, [len(x) for x in part]) for part in (aimed, steps)]
            drives = report.inputs[np.concatenate(owner)]
        starts = np.concatenate([*aimed, *steps]).astype(problem.dtype)
        wave = judgment.search_wave(problem, starts, drives)
        same = _known_as(problem, points, wave.points)
        # A step from a saddle that falls back to it says nothing about what such waves can find.
        reached = wave.label[: sum(map(len, aimed))]
        reached = same[reached[reached >= 0]]
        again[reached[reached >= 0]] = True

        new = take(wave.points, same < 0)
        new = new._replace(n_hits=np.zeros_like(new.n_hits))  # hits are the user's candidates alone
        report.waves.append(_wave_record(new, len(starts), seeded=True))
        points, again = _joined(points, new), np.concatenate([again, np.zeros(len(new.hidden), bool)])
        quiet[waiting] += sums_met[waiting]
        fixed = take(new, new.status == FIXED)
        fresh = completeness.input_group_of(fixed.inputs, report.inputs, len(fixed.hidden))
        quiet[fresh] = 0
        again &= ~np.isin(completeness.input_group_of(points.inputs, report.inputs, len(points.hidden)), fresh)
    return points._replace(report=report._replace(seeded_waves_met=met))


def _seeds(
    problem: judgment.Problem,
    here: FixedPoints,
    linear: modes.Modes,
    candidates: np.ndarray,
    inputs: np.ndarray | None,
    key: jax.Array,
) -> tuple[np.ndarray, np.ndarray]:
    """One seeded wave at one input: aimed at what is missing, or from anywhere; and steps from the known saddles."""
    p = problem
    key_known, key_anywhere = jax.random.split(key)
    isolated = (here.status == FIXED) & here.isolated
    hidden, linear = here.hidden[isolated], take(linear, isolated)
    is_saddle = linear.n_unstable > 0
    usual = candidates[np.isfinite(candidates).all(1)].astype(np.float64)
    n = here.hidden.shape[1]
    pool = hidden[~is_saddle] if (~is_saddle).sum() > 1 else hidden
    if len(pool) < 2:  # nothing to mix yet: mix with the user's own candidates
        pool = np.concatenate([pool, usual[:8], np.zeros((1, n))])
    projectors = [
        _onto_unstable(right, n_unstable)
        for right, n_unstable in zip(linear.right[is_saddle], linear.n_unstable[is_saddle], strict=True)
    ]
    center = np.median(np.concatenate([usual, pool]), axis=0)
    spread = float(np.median(np.linalg.norm(np.concatenate([usual, pool]) - center, axis=1)))
    mixtures, steps = seeding.seed_candidates(
        key_known, _N_SEEDED - _N_ANYWHERE, pool, hidden[is_saddle], np.reshape(projectors, (-1, n, n)), spread
    )
    # Where no box is known: ten times as far out, unit by unit, as the points and the candidates are.
    reach = 10 * np.abs(np.concatenate([usual, pool]) - center).max(axis=0)
    lower, upper = (center - reach, center + reach) if p.box is None else p.box(inputs)
    lower, upper = np.maximum(lower, center - 1e3 * (1 + reach)), np.minimum(upper, center + 1e3 * (1 + reach))
    anywhere = seeding.wander_candidates(
        key_anywhere, p.step_fn, p.params, inputs, lower, upper, _N_ANYWHERE, n_time=64 if p.kind == "map" else 0
    )
    return np.concatenate([mixtures, np.asarray(anywhere)]), steps


def _onto_unstable(right: np.ndarray, n_unstable: int) -> np.ndarray:
    """Orthogonal projector on the span of the unstable modes; on everything where the matrix is defective."""
    if not np.isfinite(right).all():
        return np.eye(len(right))
    unstable = right[:, :n_unstable]
    basis = np.linalg.svd(np.concatenate([unstable.real, unstable.imag], axis=1))[0][:, :n_unstable]
    return basis @ basis.T


def _jacobians(problem: judgment.Problem, points: FixedPoints) -> np.ndarray:
    """dF/dh at the points."""
    p = problem
    _, jacobians = polish.residual_jacobians(
        p.step_fn, p.params, points.hidden, points.inputs, kind=p.kind, chunk_size=16
    )
    return jacobians + np.eye(jacobians.shape[-1]) if p.kind == "map" else jacobians


def _known_as(problem: judgment.Problem, known: FixedPoints, new: FixedPoints) -> np.ndarray:
    """The known point that each new one is the same as, or -1."""
    both = _joined(known, new)
    rank = np.arange(len(both.hidden), dtype=float)  # the known come first, so they represent
    # A slow and a fixed point are never the same: the status tells them apart as inputs do.
    apart = both.status[:, None].astype(float)
    apart = apart if both.inputs is None else np.concatenate([both.inputs, apart], 1)
    tolerance = judgment.tolerances(problem, both.hidden, both.status)
    owner = dedupe.representatives(both.hidden, apart, rank, tolerance)[len(known.hidden) :]
    return np.where(owner < len(known.hidden), owner, -1)


def _joined(known: FixedPoints, new: FixedPoints) -> FixedPoints:
    """Rows of both, with the report of the first."""
    columns: dict[str, Any] = {
        name: None if a is None else np.concatenate([a, b])
        for name, a, b in zip(FixedPoints._fields[:-1], known[:-1], new[:-1], strict=True)
    }
    return known._replace(**columns)


@contextmanager
def _bar(progress: bool, total: int) -> Iterator[Callable[[int], None] | None]:
    if not progress:
        yield None
        return
    with Progress(transient=True) as bar:
        task = bar.add_task("searching", total=total)
        yield lambda n: bar.advance(task, n)
