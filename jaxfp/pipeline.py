"""From candidates to fixed and slow points: waves of search, polish, deduplication and judgment, then the audit.

The user's candidates are the first wave. With until="complete" seeded waves follow (`completion`).
"""

import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments, checkpoints, completion, dynamics, program
from jaxfp.proof import boxes, certificates
from jaxfp.proof.interval import Interval
from jaxfp.search import candidates as seeding
from jaxfp.search import dedupe, engine, judgment, polish, settling, zeros
from jaxfp.search import known as so_far
from jaxfp.search import wave as waves
from jaxfp.types import (
    FIXED,
    MAX_STEPS,
    NONFINITE,
    REJECTED,
    STATUS_NAMES,
    Array,
    FixedPoints,
    Kind,
    Params,
    Report,
    Solver,
    StepFn,
)

_MATRICES = 2  # of n_hidden^2 numbers that a state with its Jacobian takes
_NEAR = 1e-3  # relative to 1 + ||h||: closer points are told apart by proof
_RELATIONS = {"same": 1, "different": -1, "undecided": 0}
_N_SPEEDS = 128  # candidates whose speed is taken: their median is a scale
_KINDS = (zeros.Zeros, zeros.Factors, judgment.Ended, judgment.Judged, FixedPoints)  # that a checkpoint holds


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
    chunk_size: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    sharding: jax.sharding.Sharding | None = None,
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
      solver: of the search before the polish. By default stages, each for the lanes the one before it leaves:
        `newton_krylov(8)`, `newton_krylov(24)`, `truncated_newton(32)`, `levenberg_marquardt()`; up to 64 units the
        first and the last, beyond 512 the first three.
      max_steps: iterations a lane may take, in the search and again in the polish.
      tolerance: q at which a lane's search ends early and the polish takes over; costs or saves time only.
      slow_tolerance: the papers' other mode. Each lane stops as soon as its q is below this, and what is not at the
        rounding floor is SLOW there, so that points spread over a slow manifold.
      unique_tolerance: distance within which two points are one, activation units; by default what the polish
        resolves: 4 sqrt(eps) (1 + ||h||) for FIXED, 2 eps^(1/3) (1 + ||h||) for SLOW points. FIXED points within
        1e-3 (1 + ||h||) of each other are then the same or different by proof, where there is one; the report says.
      until: "all": every candidate is searched once. "complete": as many candidates as it takes, drawn with the key,
        256 at each input and more until those that alone reached their point are under 1 %; the report says how many
        had no turn, and hits and unseen mass are of those that had. Then waves seeded from the points found follow,
        until for each input (a) the index sum is +1 with every sign certain, (b) after that one whole seeded wave
        added no point, and (b') such waves found nine tenths of the known saddles again; without a degree guarantee,
        until two seeded waves in a row added none, and (b'). Where four waves do not get there, the candidates that
        had no turn are searched, too.
      bounded: True if the map is known to send some box into itself (or the flow to point inward on a ball). None:
        ask `step_fn.bounded`, for a map; adapters know. Else it is proved, where it can be (`proof.boxes`). False: do
        not ask.
      chunk_size: lanes in flight at once; by default four times as many as fit into 2 MiB, up to 512, on a CPU, where
        they step in blocks, and as many as fit into 1 GiB on an accelerator. Changes no result.
      checkpoint: folder of its own for what is finished (each 4,096 candidates; each seeded wave), made if it is not
        there. A search that was killed, at any moment, goes on from there when it is called again with the same
        arguments, and on the same device ends in the same bits as one that was not; only `report.seconds` are those of
        the last call. `until` may change from "all" to "complete". Takes n_hidden^2 numbers for each point that lanes
        share, and the states. None saves nothing.
      sharding: of the lanes' leading axis over devices, e.g. `NamedSharding(mesh, P("lanes"))`, whose number divides
        chunk_size; by default one device. Changes no result.
      progress: show a progress bar; changes no result.
      key: typed PRNG key of until="complete"; jax.random.key(0) by default.

    Returns:
      FixedPoints.

    Raises:
      ValueError: for wrong shapes, dtypes or ranges, weights or inputs that are not finite, a step that changes the
        shape of the state or draws random numbers; a checkpoint of another search, damaged, or that cannot be written.

    Example:
      >>> points = find_fixed_points(lambda p, h, u: jnp.tanh(p * h), 1.5, np.array([[-1.0], [0.1], [1.0]]))
      >>> np.sort(points.hidden.ravel()).round(6).tolist()
      [-0.85856, 0.0, 0.85856]

    Source: Sussillo & Barak (2013), Neural Computation 25:626. Differs: second order, judged, audited.
    """
    arguments.check_host(params, candidates, inputs)
    candidates, inputs = arguments.candidates_with_inputs(candidates, inputs)
    _check_settings(max_steps, chunk_size, sharding, tolerance, slow_tolerance, unique_tolerance)
    dynamics.check_kind(kind)
    arguments.check_choice("until", until, ("all", "complete"))
    arguments.check_flag("bounded", bounded, or_none=True)
    arguments.check_flag("progress", progress)
    if solver is not None:
        arguments.check_solver(solver)
    if key is not None:
        seeding.check_key(key)

    def drawn_with() -> jax.Array:  # not made before it is wanted: a key is a program to compile
        return jax.random.key(0) if key is None else key

    if checkpoint is not None:
        arguments.check_path("checkpoint", checkpoint)
    arguments.check_step(step_fn)
    arguments.check_params(params)
    arguments.check_finite("params", params)
    began = time.perf_counter()
    with jax.enable_x64(True):
        wide = dynamics.widen(params)
        read = _read(step_fn, wide, candidates, inputs)
        box, known, known_by = _who_knows_the_box(step_fn, wide, kind, bounded, candidates.shape[1], inputs)
        dtype = candidates.dtype if jnp.finfo(candidates.dtype).bits >= 32 else np.dtype(np.float32)
        n_hidden = candidates.shape[1]
        problem = judgment.Problem(
            step_fn=step_fn,
            params=wide,
            kind=kind,
            solver=solver,
            dtype=dtype,
            eps=float(jnp.finfo(read.precision).eps),
            max_steps=max_steps,
            tolerance=tolerance,
            slow_tolerance=slow_tolerance,
            unique_tolerance=unique_tolerance,
            chunk_size=chunk_size,
            n_dense=min(chunk_size or 16, engine.lanes_together(_MATRICES * n_hidden**2, 8, 2), 16),
            sharding=sharding,
            box=box,
        )
        keep: checkpoints.Keep = checkpoints.keep_nothing
        if checkpoint is not None:
            search = _fingerprint(problem, candidates, inputs, known_by, drawn_with())
            keep = checkpoints.keep_in(checkpoint, search, _KINDS)
        with _bar(progress, len(candidates)) as tick:
            if until == "complete":
                wave, searched = completion.search_own(problem, candidates, inputs, drawn_with(), tick, keep)
            else:
                wave = waves.search_wave(problem, candidates, inputs, None, tick, keep=keep)
                searched = np.arange(len(candidates))

        def report_of(wave: waves.Wave, searched: np.ndarray) -> Report:
            report = _first_report(problem, wave, candidates, inputs, searched)
            return report._replace(
                bounded=known, bounded_by=known_by, until=until, precision=read.precision, seconds=seconds
            )

        seconds = {"first wave": time.perf_counter() - began}
        report = report_of(wave, searched)
        points = wave.known.points._replace(report=report)
        if until == "complete":
            began = time.perf_counter()

            def search_rest(known: so_far.Known) -> tuple[so_far.Known, Report]:
                rest = np.setdiff1d(np.arange(len(candidates)), searched)
                u, part = settling.rows_of(inputs, rest), checkpoints.within(keep, "rest")
                all_ = waves.together(wave, waves.search_wave(problem, candidates[rest], u, known, keep=part))
                return all_.known, report_of(all_, np.concatenate([searched, rest]))

            more = search_rest if len(searched) < len(candidates) else None
            points = completion.complete(problem, wave.known, report, candidates, drawn_with(), more, keep)
            seconds["seeded waves"] = time.perf_counter() - began
        points = _told_apart(step_fn, wide, points, kind)
    return dedupe.take(points, np.lexsort((*points.hidden.T[::-1], -points.n_hits, points.status)))


def _told_apart(step_fn: StepFn, params: Params, points: FixedPoints, kind: Kind) -> FixedPoints:
    """Points that are close to each other, the same or different by proof where there is one."""
    fixed = np.flatnonzero((points.status == FIXED) & points.isolated)
    hidden, inputs = points.hidden[fixed], None if points.inputs is None else points.inputs[fixed]
    near = _NEAR * (1 + np.linalg.norm(hidden, axis=1))
    owner = dedupe.representatives(hidden, inputs, points.q[fixed], near)
    close = np.isin(owner, owner[owner != np.arange(len(owner))])
    rows, owner = fixed[close], owner[close]
    if not len(rows):
        return points
    inputs = None if points.inputs is None else points.inputs[rows]
    pair = np.triu(owner[:, None] == owner[None], 1)
    try:
        relation = certificates.tell_apart(
            certificates.certify(step_fn, params, points.hidden[rows], inputs, kind=kind)
        )
    except NotImplementedError:  # an operation that has no interval rule
        relation = np.zeros(pair.shape, int)
    counts = {name: int((relation[pair] == code).sum()) for name, code in _RELATIONS.items()}
    n_hits, keep = points.n_hits.copy(), np.ones(len(points.hidden), bool)
    for i, j in zip(*np.nonzero(pair & (relation == 1)), strict=True):
        if keep[rows[i]] and keep[rows[j]]:
            best, other = sorted((rows[i], rows[j]), key=lambda row: points.q[row])
            n_hits[best] += n_hits[other]
            keep[other] = False
    report = points.report._replace(near_pairs=counts)
    return dedupe.take(points._replace(n_hits=n_hits, report=report), keep)


def _check_settings(max_steps: Any, chunk_size: Any, sharding: Any, *tolerances: Any) -> None:
    arguments.check_count("max_steps", max_steps)
    if chunk_size is not None:
        arguments.check_count("chunk_size", chunk_size)
    for name, value in zip(("tolerance", "slow_tolerance", "unique_tolerance"), tolerances, strict=True):
        if value is not None or name == "tolerance":
            arguments.check_number(name, value)
    if sharding is not None:
        if not isinstance(sharding, jax.sharding.Sharding):
            raise ValueError(f"sharding must be a jax.sharding.Sharding or None, got {arguments.came(sharding)}.")
        n_devices = len(sharding.device_set)
        if chunk_size is not None and chunk_size % n_devices:
            raise ValueError(f"sharding: its {n_devices} devices must divide chunk_size, got {chunk_size}.")


def _read(step_fn: StepFn, params: Params, candidates: np.ndarray, inputs: np.ndarray | None) -> program.Program:
    leaves, tree = jax.tree.flatten(params)
    shapes = tuple(jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)) for x in leaves)
    read = _read_shapes(step_fn, tree, shapes, candidates.shape[1], None if inputs is None else inputs.shape[1])
    if read.random is not None:
        raise ValueError(
            f"step_fn draws random numbers ({read.random}): a stochastic step has no fixed points. Switch dropout and "
            "noise off."
        )
    return read


@functools.lru_cache(256)
def _read_shapes(
    step_fn: StepFn, tree: Any, shapes: tuple[Any, ...], n_hidden: int, n_inputs: int | None
) -> program.Program:
    """`program.read`, which traces the step, once for all searches that it would say the same of."""
    hidden = jax.ShapeDtypeStruct((n_hidden,), np.float64)
    drive = None if n_inputs is None else jax.ShapeDtypeStruct((n_inputs,), np.float64)
    return program.read(step_fn, jax.tree.unflatten(tree, shapes), hidden, drive)


def _who_knows_the_box(
    step_fn: StepFn, params: Params, kind: Kind, bounded: bool | None, n_hidden: int, inputs: np.ndarray | None
) -> tuple[Any, bool | None, str]:
    """The box (a function of one input) where there is one to test against, and who vouches for it."""
    knows = kind == "map" and bool(getattr(step_fn, "bounded", False))  # adapters speak of the map F, not of x' = F

    boxes_at: dict[bytes, boxes.Box] = {}

    def box(inputs: Any) -> boxes.Box:
        at = b"" if inputs is None else np.asarray(inputs).tobytes()
        if at not in boxes_at:
            lower, upper = _box(step_fn, params, inputs)
            boxes_at[at] = np.asarray(lower), np.asarray(upper)
        return boxes_at[at]

    if bounded:
        return box if knows else None, True, "the caller says that it sends a box into itself"
    if bounded is None and knows:
        return box, True, "the cell is known to send a box into itself"
    nobody = (None, None, "it is not known that this step function sends a box into itself")
    if bounded is not None:
        return nobody
    try:
        prove = boxes.build_box(step_fn, params, n_hidden, None if inputs is None else inputs.shape[1], kind=kind)
        proved = prove(None if inputs is None else Interval(inputs.min(axis=0), inputs.max(axis=0)))
    except NotImplementedError as error:  # an operation that has no interval rule
        return None, None, f"{nobody[2]}: {error}"
    if proved is None:
        return nobody
    inward = "sends a box into itself" if kind == "map" else "points inward on a box"
    return lambda _: proved, True, f"it is proved that it {inward}"


def _fingerprint(
    problem: judgment.Problem, candidates: np.ndarray, inputs: np.ndarray | None, known_by: str, key: jax.Array
) -> dict[str, Any]:
    """All that the pieces of a search depend on, as a checkpoint is to know it."""
    p = problem
    hidden = jax.ShapeDtypeStruct(candidates.shape[1:], np.float64)
    drive = None if inputs is None else jax.ShapeDtypeStruct(inputs.shape[1:], np.float64)

    def iteration(params: Params, hidden: Any, drive: Any) -> Any:
        residual_fn = dynamics.residual_fn(p.step_fn, params, drive, p.kind)
        return p.solver and p.solver.step(residual_fn, p.solver.init(residual_fn, hidden))

    return {
        "jaxfp": metadata.version("jaxfp"),
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "step_fn": getattr(p.step_fn, "__qualname__", type(p.step_fn).__name__),
        "program of step_fn": program.fingerprint(p.step_fn, p.params, hidden, drive),
        **checkpoints.hashed("params", p.params),
        **checkpoints.hashed("candidates", candidates),
        **checkpoints.hashed("inputs", inputs),
        "kind": p.kind,
        "solver": p.solver and program.fingerprint(iteration, p.params, hidden, drive),
        "max_steps": p.max_steps,
        "tolerance": p.tolerance,
        "slow_tolerance": p.slow_tolerance,
        "unique_tolerance": p.unique_tolerance,
        "bounded": known_by,
        "chunk_size": p.chunk_size,
        "sharding": p.sharding and str(p.sharding),
        **checkpoints.hashed("key", key),
    }


@functools.partial(jax.jit, static_argnums=0)
def _box(step_fn: Any, params: Params, inputs: Any) -> tuple[jax.Array, jax.Array]:
    """One program instead of one for each primitive."""
    return step_fn.box(params, inputs)


def _first_report(
    problem: judgment.Problem,
    wave: waves.Wave,
    candidates: np.ndarray,
    inputs: np.ndarray | None,
    searched: np.ndarray,
) -> Report:
    """What happened to the user's candidates; what is known of the map is filled in by the caller."""
    group, distinct = dedupe.input_groups(inputs, len(candidates))
    n_inputs = 1 if distinct is None else len(distinct)
    p = problem
    some = np.arange(0, len(candidates), -(-len(candidates) // _N_SPEEDS))
    residuals, _ = polish.residuals(
        p.step_fn,
        p.params,
        candidates[some].astype(np.float64),
        None if inputs is None else inputs[some],
        kind=p.kind,
        chunk_size=settling.n_residuals(p, candidates.shape[1]),
    )
    speed = np.linalg.norm(residuals, axis=1)
    speed = speed[np.isfinite(speed)]
    return Report(
        kind=p.kind,
        inputs=distinct,
        n_candidates=len(searched),
        counts={
            name: int((wave.status == code).sum())
            for code, name in enumerate(STATUS_NAMES)
            if FIXED <= code <= REJECTED
        },
        reasons=dict(Counter(str(reason) for reason in wave.reason if reason)),
        unresolved=np.bincount(group[searched[np.isin(wave.status, (MAX_STEPS, NONFINITE))]], minlength=n_inputs),
        n_candidates_per_input=np.bincount(group[searched], minlength=n_inputs),
        bounded=None,
        bounded_by="",
        until="all",
        waves=[completion.wave_record(wave.known.points, len(searched), seeded=False)],
        seeded_waves_met=np.zeros(n_inputs, bool),
        candidate_speed=float(np.median(speed)) if len(speed) else np.nan,
        precision="",
        precision_floor=p.eps,
        n_steps={"median": float(np.median(wave.n_steps)), "largest": float(wave.n_steps.max())},
        n_products=float(wave.n_products.mean()),
        n_unsearched=len(candidates) - len(searched),
        seconds={},
    )


@contextmanager
def _bar(progress: bool, total: int) -> Iterator[Callable[[int], None] | None]:
    if not progress:
        yield None
        return
    from rich.progress import Progress  # only who asks for a bar pays for its import

    with Progress(transient=True) as bar:
        task = bar.add_task("searching", total=total)
        yield lambda n: bar.advance(task, n)
