"""What until="complete" does: as many of the user's candidates as it takes, then seeded waves.

The candidates take turns in an order drawn with the key; at each input the first 256 are searched, and then more until
those that were the only one to reach their point are under 1 %. So all that is counted (hits, the unseen mass) is
counted over a random sample of the candidates, the searched ones. They are all searched where seeded waves do not
settle the matter soon.

At each input a wave is seeded from the points known there (mixtures of them, steps along the unstable directions of the
saddles) and, since the user's candidates may all lie in one basin, from trajectories that begin anywhere in the box.
Waves end when

    (a)  the index sum is +1 with every sign certain,
    (b)  after that one whole wave added no fixed point, and
    (b') the waves since then found nine tenths of the known saddles again, from starts that are not steps from them.

Without (b') a pair of missing points whose indices cancel slips through: a wave that misses the saddles that are known
proves nothing about others. Without a degree guarantee (a) cannot be asked, and two waves in a row must add none.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfp import checkpoints, compiling, dynamics
from jaxfp.analysis import completeness
from jaxfp.search import candidates as seeding
from jaxfp.search import dedupe, judgment, polish, wave
from jaxfp.search import known as so_far
from jaxfp.types import FIXED, SLOW, FixedPoints, Kind, Params, Report, StepFn

# Of the user's candidates searched at an input at first, and at a time after that: four points seen once are less than
# completeness.SINGLES_LIMIT of 404, while three are more of 256.
_N_OWN, _N_MORE = 256, 148
_PATIENCE = 4  # seeded waves before the user's candidates that had no turn yet are searched, too
_N_SEEDED = 256  # candidates of one seeded wave, per input; a quarter are states of trajectories from anywhere
_N_WAYS = 4  # random vectors that are grown at each point
_N_USUAL = 256  # of the user's candidates, to see where they lie
_N_IN_ALL, _N_LEAST = 1024, 64  # candidates of one seeded wave at many inputs, together and each at least
_N_OTHERS = 32  # of the points known at other inputs, where a wave begins as well
_REFOUND = 0.9  # share of the known saddles that quiet waves must have found again
_MAX_WAVES = 16  # seeded waves before a search that never settles is given up, and says so


def wave_record(new: FixedPoints, n_lanes: int, *, seeded: bool) -> dict[str, Any]:
    """What the report says of one wave.

    Args:
      new: points it found first.
      n_lanes: its candidates.
      seeded: False for the user's own.

    Returns:
      Dict: seeded, n_lanes, n_new_fixed, n_new_slow.

    Example:
      >>> from jaxfp.pipeline import find_fixed_points
      >>> wave_record(find_fixed_points(lambda p, h, u: p * h, 0.5, np.ones((1, 2))), 1, seeded=False)["n_new_fixed"]
      1
    """
    return {
        "seeded": seeded,
        "n_lanes": n_lanes,
        "n_new_fixed": int((new.status == FIXED).sum()),
        "n_new_slow": int((new.status == SLOW).sum()),
    }


def search_own(
    problem: judgment.Problem,
    candidates: np.ndarray,
    inputs: np.ndarray | None,
    key: jax.Array,
    on_progress: Callable[[int], None] | None = None,
    keep: checkpoints.Keep = checkpoints.keep_nothing,
) -> tuple[wave.Wave, np.ndarray]:
    """Search the user's candidates in turn, until few new points are to be expected from them. Needs x64 in scope.

    Args:
      problem: see `judgment.Problem`.
      candidates: (n_candidates, n_hidden), the user's own.
      inputs: (n_candidates, n_inputs) float64 or None.
      key: typed PRNG key; the order of the candidates is a function of it.
      on_progress: called with the number of lanes just finished.
      keep: of a checkpoint: takes what is finished from there, or puts it there.

    Returns:
      Wave of the candidates searched, and which these are (n_searched,), rows of `candidates`.

    Example:
      >>> with jax.enable_x64(True):
      ...     problem = judgment.Problem(
      ...         lambda p, h, u: p * h, np.float64(0.5), "map", None, np.float64, 2.2e-16, 50, 0.0, None, None, 16,
      ...         16, None, None,
      ...     )
      ...     len(search_own(problem, np.ones((300, 3)), None, jax.random.key(0))[1])
      256
    """
    group, distinct = dedupe.input_groups(inputs, len(candidates))
    n_inputs = 1 if distinct is None else len(distinct)
    # NumPy's generator, since a permutation in JAX is a program of its own to compile.
    turn = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel()).permutation(len(candidates))
    place = np.empty(len(turn), int)  # of each candidate among those of its input
    for g in range(n_inputs):
        here = turn[group[turn] == g]
        place[here] = np.arange(len(here))
    done, goal = np.zeros(n_inputs, int), np.full(n_inputs, _N_OWN)
    together, searched = None, turn[:0]
    while True:
        rows = turn[(place[turn] >= done[group[turn]]) & (place[turn] < goal[group[turn]])]
        if not len(rows):
            assert together is not None
            return together, searched
        known = None if together is None else together.known
        drives, part = None if inputs is None else inputs[rows], checkpoints.within(keep, f"own-{len(searched)}")
        new = wave.search_wave(problem, candidates[rows], drives, known, on_progress, keep=part)
        together = new if together is None else wave.together(together, new)
        searched = np.concatenate([searched, rows])
        done = goal.copy()
        points = together.known.points
        of_input = completeness.input_group_of(points.inputs, distinct, len(points.hidden))
        singles = np.bincount(of_input[(points.status == FIXED) & (points.n_hits == 1)], minlength=n_inputs)
        n_searched = np.bincount(group[searched], minlength=n_inputs)
        goal = np.where(singles < completeness.SINGLES_LIMIT * n_searched, done, done + _N_MORE)


def complete(
    problem: judgment.Problem,
    known: so_far.Known,
    report: Report,
    candidates: np.ndarray,
    key: jax.Array,
    search_rest: Callable[[so_far.Known], tuple[so_far.Known, Report]] | None = None,
    keep: checkpoints.Keep = checkpoints.keep_nothing,
) -> FixedPoints:
    """Seeded waves, at each input until its stop rule is met. Needs x64 in scope.

    Args:
      problem: see `judgment.Problem`.
      known: what the user's own wave found.
      report: of that wave.
      candidates: (n_candidates, n_hidden), the user's own.
      key: typed PRNG key; the waves are a function of it.
      search_rest: searches the user's candidates that had no turn yet, and says what is known after that, with the hits
        of them all, and the new report; None where there are none.
      keep: of a checkpoint: takes what is finished from there, or puts it there.

    Returns:
      FixedPoints with those that the waves found appended, n_hits 0; the report's waves and seeded_waves_met.

    Example:
      >>> from jaxfp.pipeline import find_fixed_points
      >>> points = find_fixed_points(lambda p, h, u: p * h, 0.5, np.ones((1, 2)), bounded=True, until="complete")
      >>> points.report.seeded_waves_met.tolist()  # by way of this function
      [True]
    """
    n_inputs, n_hits = len(report.unresolved), known.points.n_hits
    quiet = np.zeros(n_inputs, int)  # waves in a row, begun with (a) met, that added no fixed point
    again = np.zeros(len(n_hits), bool)  # points that these waves found again
    met = np.zeros(n_inputs, bool)
    local = _nothing_local(candidates.shape[1])
    n_seeded = int(np.clip(_N_IN_ALL // n_inputs, _N_LEAST, _N_SEEDED))
    for number in range(_MAX_WAVES):
        points = known.points
        local = _looked_at(problem, known, local, key)
        group = completeness.input_group_of(points.inputs, report.inputs, len(points.hidden))
        fixed = points.status == FIXED
        sums = [completeness.sum_of_signs(local.sign[fixed & (group == g)]) for g in range(n_inputs)]
        sums_met = np.array([s == 1 or not report.bounded for s in sums])
        quiet[~sums_met] = 0
        again &= sums_met[group]
        saddle = fixed & points.isolated & (local.growth > 1)
        met = quiet >= (1 if report.bounded else 2)
        met &= [again[saddle & (group == g)].sum() >= _REFOUND * (saddle & (group == g)).sum() for g in range(n_inputs)]
        waiting = np.flatnonzero(~met)
        if not len(waiting):
            break
        if number == _PATIENCE and search_rest is not None:
            n_before, n_lanes, records = len(points.hidden), report.n_candidates, report.waves
            known, report = search_rest(known)
            new, n_hits = dedupe.take(known.points, slice(n_before, None)), known.points.n_hits
            record = wave_record(new, report.n_candidates - n_lanes, seeded=False)
            report = report._replace(waves=[*records, record])
            quiet, again = _heard(known, n_before, report, quiet, again)
            continue
        counts = fixed & points.isolated
        aimed, steps = zip(
            *(
                _seeds(
                    problem,
                    points.hidden[here],
                    dedupe.take(local, here),
                    candidates,
                    None if report.inputs is None else report.inputs[g],
                    points.hidden[_elsewhere(points, counts & ~here, report.inputs, int(g))],
                    n_seeded,
                    _keys(key, number, g),
                )
                for g in waiting
                for here in [counts & (group == g)]
            ),
            strict=True,
        )
        drives = None
        if report.inputs is not None:
            owner = [np.repeat(waiting, [len(x) for x in part]) for part in (aimed, steps)]
            drives = report.inputs[np.concatenate(owner)]
        starts = np.concatenate([*aimed, *steps]).astype(problem.dtype)
        n_before = len(points.hidden)
        # Steep minima of q are no fixed points: at first nobody waits for them.
        part = checkpoints.within(keep, f"seeded-{number}")
        found = wave.search_wave(problem, starts, drives, known, only_zeros=number < _PATIENCE, keep=part)
        known = found.known
        # A step from a saddle that falls back to it says nothing about what such waves can find.
        reached = found.label[: sum(map(len, aimed))]
        again[reached[(reached >= 0) & (reached < n_before)]] = True
        new = dedupe.take(known.points, slice(n_before, None))
        report.waves.append(wave_record(new, len(starts), seeded=True))
        quiet[waiting] += sums_met[waiting]
        quiet, again = _heard(known, n_before, report, quiet, again)
    # Hits are the user's candidates alone.
    hits = np.concatenate([n_hits, np.zeros(len(known.points.hidden) - len(n_hits), int)])
    return known.points._replace(n_hits=hits, report=report._replace(seeded_waves_met=met))


def _heard(
    known: so_far.Known, n_before: int, report: Report, quiet: np.ndarray, again: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where fixed points are new, what was quiet and found again counts no more; the new are not found again yet."""
    points = known.points
    group = completeness.input_group_of(points.inputs, report.inputs, len(points.hidden))
    fresh = group[n_before:][points.status[n_before:] == FIXED]
    quiet = quiet.copy()
    quiet[fresh] = 0
    again = np.concatenate([again, np.zeros(len(group) - n_before, bool)])
    return quiet, again & ~np.isin(group, fresh)


class _Local(NamedTuple):
    """What the stop rule and the seeds want to know of each point; zeros where it is not an isolated fixed point."""

    sign: np.ndarray  # (n_points,) index
    growth: np.ndarray  # (n_points,) a step, of the least stable direction
    ways: np.ndarray  # (n_points, n_directions, n_hidden) along the unstable directions


def _nothing_local(n_hidden: int) -> _Local:
    return _Local(np.zeros(0, int), np.zeros(0), np.zeros((0, _N_WAYS, n_hidden)))


def _looked_at(problem: judgment.Problem, known: so_far.Known, local: _Local, key: jax.Array) -> _Local:
    """The same for the points that are new since."""
    p, points, n_before = problem, known.points, len(local.sign)
    new = np.arange(n_before, len(points.hidden))
    local = _Local(*(np.concatenate([x, np.zeros((len(new), *x.shape[1:]), x.dtype)]) for x in local))
    # The factors of J_r are there already: det(I - J) = det(-J_r) of a map, and of a flow det(-J).
    flipped = (-1) ** points.hidden.shape[1]
    for row, factors in zip(known.row, known.zeros.factors, strict=True):
        if row >= n_before and factors.lu.dtype == np.float64:
            local.sign[row] = flipped * completeness.sign_by_factors(factors, points.hidden[row], p.eps)
    new = new[(points.status[new] == FIXED) & points.isolated[new]]
    unclear = new[local.sign[new] == 0]
    for start in range(0, len(unclear), p.n_dense):
        part = unclear[start : start + p.n_dense]
        hidden, u = points.hidden[part], None if points.inputs is None else points.inputs[part]
        _, jacobians = polish.residual_jacobians(p.step_fn, p.params, hidden, u, kind=p.kind, chunk_size=p.n_dense)
        if p.kind == "map":
            jacobians += np.eye(jacobians.shape[-1])
        local.sign[part] = [
            completeness.index_sign(j, h, p.kind, p.eps) for j, h in zip(jacobians, hidden, strict=True)
        ]
    for start in range(0, len(new), p.n_dense):
        part = new[start : start + p.n_dense]
        padded = np.concatenate([part, np.full(p.n_dense - len(part), part[0])])  # one program
        u = None if points.inputs is None else points.inputs[padded]
        params, hidden, u = dynamics.narrow((p.params, points.hidden[padded], u), p.dtype)
        ways, growth = _grow(p.step_fn, p.kind, params, hidden, u, key)
        local.ways[part], local.growth[part] = np.asarray(ways)[: len(part)], np.asarray(growth)[: len(part)]
    return local


@functools.partial(compiling.jit, static_argnums=(0, 1))
def _grow(
    step_fn: StepFn, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return dynamics.over_points(
        lambda h, u: seeding.growing_directions(key, step_fn, params, h, u, kind=kind, n_directions=_N_WAYS),
        hidden,
        inputs,
    )


def _seeds(
    problem: judgment.Problem,
    hidden: np.ndarray,
    local: _Local,
    candidates: np.ndarray,
    inputs: np.ndarray | None,
    elsewhere: np.ndarray,
    n_seeded: int,
    keys: jax.Array,
) -> tuple[np.ndarray, np.ndarray]:
    """One seeded wave at one input: aimed at what is missing, or from anywhere; and steps from the known saddles."""
    p, n_anywhere = problem, n_seeded // 4
    key_known, key_anywhere = keys
    is_saddle = local.growth > 1
    usual = candidates[:: -(-len(candidates) // _N_USUAL)].astype(np.float64)
    usual = usual[np.isfinite(usual).all(1)]
    pool = hidden[~is_saddle] if (~is_saddle).sum() > 1 else hidden
    if len(pool) < 2:  # nothing to mix yet: mix with the user's own candidates
        pool = np.concatenate([pool, usual[:8], np.zeros((1, candidates.shape[1]))])
    center = np.median(np.concatenate([usual, pool]), axis=0)
    spread = float(np.median(np.linalg.norm(np.concatenate([usual, pool]) - center, axis=1)))
    mixtures, steps = seeding.seed_candidates(
        key_known, n_seeded - n_anywhere, pool, hidden[is_saddle], local.ways[is_saddle], spread
    )
    # Where no box is known: ten times as far out, unit by unit, as the points and the candidates are.
    reach = 10 * np.abs(np.concatenate([usual, pool]) - center).max(axis=0)
    lower, upper = (center - reach, center + reach) if p.box is None else p.box(inputs)
    lower, upper = np.maximum(lower, center - 1e3 * (1 + reach)), np.minimum(upper, center + 1e3 * (1 + reach))
    params, u, lower, upper = dynamics.narrow((p.params, inputs, lower, upper), p.dtype)
    anywhere = seeding.wander_candidates(
        key_anywhere, p.step_fn, params, u, lower, upper, n_anywhere, n_time=64 if p.kind == "map" else 0
    )
    return np.concatenate([mixtures, np.asarray(anywhere), elsewhere]), steps


def _elsewhere(points: FixedPoints, counts: np.ndarray, inputs: np.ndarray | None, g: int) -> np.ndarray:
    """Points known at other inputs: half of them at the nearest, half from all over; rows of `points`."""
    rows = np.flatnonzero(counts)
    if inputs is None or points.inputs is None or not len(rows):
        return rows[:0]
    rows = rows[np.argsort(np.linalg.norm(points.inputs[rows] - inputs[g], axis=1), kind="stable")]
    near, far = rows[: _N_OTHERS // 2], rows[_N_OTHERS // 2 :]
    return np.concatenate([near, far[:: max(-(-len(far) // (_N_OTHERS // 2)), 1)]])


@jax.jit
def _keys(key: jax.Array, number: int, g: int) -> jax.Array:
    """Two keys for one wave at one input."""
    return jax.random.split(jax.random.fold_in(jax.random.fold_in(key, number), g))
