"""Seeded waves: what until="complete" does after the user's own candidates.

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

_N_SEEDED = 256  # candidates of one seeded wave, per input
_N_ANYWHERE = 64  # of them, states of trajectories from anywhere
_N_WAYS = 4  # random vectors that are grown at each point
_N_USUAL = 1024  # of the user's candidates, to see where they lie
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


def complete(
    problem: judgment.Problem,
    known: so_far.Known,
    report: Report,
    candidates: np.ndarray,
    key: jax.Array,
    keep: checkpoints.Keep = checkpoints.keep_nothing,
) -> FixedPoints:
    """Seeded waves, at each input until its stop rule is met. Needs x64 in scope.

    Args:
      problem: see `judgment.Problem`.
      known: what the user's own wave found.
      report: of that wave.
      candidates: (n_candidates, n_hidden), the user's own.
      key: typed PRNG key; the waves are a function of it.
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
    for number in range(_MAX_WAVES):
        points = known.points
        local = _looked_at(problem, points, local, jax.random.fold_in(key, _MAX_WAVES))
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
        wave_key = jax.random.fold_in(key, number)
        aimed, steps = zip(
            *(
                _seeds(
                    problem,
                    points.hidden[known_here],
                    dedupe.take(local, known_here),
                    candidates,
                    None if report.inputs is None else report.inputs[g],
                    jax.random.fold_in(wave_key, g),
                )
                for g in waiting
                for known_here in [fixed & points.isolated & (group == g)]
            ),
            strict=True,
        )
        drives = None
        if report.inputs is not None:
            owner = [np.repeat(waiting, [len(x) for x in part]) for part in (aimed, steps)]
            drives = report.inputs[np.concatenate(owner)]
        starts = np.concatenate([*aimed, *steps]).astype(problem.dtype)
        n_before = len(points.hidden)

        def keep_here(name: str, compute: Callable[[], Any], number: int = number) -> Any:
            return keep(f"seeded-{number}-{name}", compute)

        found = wave.search_wave(problem, starts, drives, known, keep=keep_here)
        known = found.known
        # A step from a saddle that falls back to it says nothing about what such waves can find.
        reached = found.label[: sum(map(len, aimed))]
        again = np.concatenate([again, np.zeros(len(known.points.hidden) - n_before, bool)])
        again[reached[reached >= 0]] = True
        again[n_before:] = False  # found is not yet found again
        new = dedupe.take(known.points, np.arange(n_before, len(known.points.hidden)))
        report.waves.append(wave_record(new, len(starts), seeded=True))
        quiet[waiting] += sums_met[waiting]
        fresh = completeness.input_group_of(new.inputs, report.inputs, len(new.hidden))[new.status == FIXED]
        quiet[fresh] = 0
        again &= ~np.isin(completeness.input_group_of(known.points.inputs, report.inputs, len(again)), fresh)
    # Hits are the user's candidates alone.
    hits = np.concatenate([n_hits, np.zeros(len(known.points.hidden) - len(n_hits), int)])
    return known.points._replace(n_hits=hits, report=report._replace(seeded_waves_met=met))


class _Local(NamedTuple):
    """What the stop rule and the seeds want to know of each point; zeros where it is not an isolated fixed point."""

    sign: np.ndarray  # (n_points,) index
    growth: np.ndarray  # (n_points,) a step, of the least stable direction
    ways: np.ndarray  # (n_points, n_directions, n_hidden) along the unstable directions


def _nothing_local(n_hidden: int) -> _Local:
    return _Local(np.zeros(0, int), np.zeros(0), np.zeros((0, _N_WAYS, n_hidden)))


def _looked_at(problem: judgment.Problem, points: FixedPoints, local: _Local, key: jax.Array) -> _Local:
    """The same for the points that are new since."""
    p, n_before = problem, len(local.sign)
    new = np.arange(n_before, len(points.hidden))
    local = _Local(*(np.concatenate([x, np.zeros((len(new), *x.shape[1:]), x.dtype)]) for x in local))
    new = new[(points.status[new] == FIXED) & points.isolated[new]]
    for start in range(0, len(new), p.n_dense):
        part = new[start : start + p.n_dense]
        hidden, u = points.hidden[part], None if points.inputs is None else points.inputs[part]
        _, jacobians = polish.residual_jacobians(p.step_fn, p.params, hidden, u, kind=p.kind, chunk_size=p.n_dense)
        if p.kind == "map":
            jacobians += np.eye(jacobians.shape[-1])
        local.sign[part] = [
            completeness.index_sign(j, h, p.kind, p.eps) for j, h in zip(jacobians, hidden, strict=True)
        ]
        padded = np.concatenate([part, np.full(p.n_dense - len(part), part[0])])  # one program
        u = None if points.inputs is None else points.inputs[padded]
        ways, growth = _grow(p.step_fn, p.kind, p.params, points.hidden[padded], u, key)
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
    key: jax.Array,
) -> tuple[np.ndarray, np.ndarray]:
    """One seeded wave at one input: aimed at what is missing, or from anywhere; and steps from the known saddles."""
    p = problem
    key_known, key_anywhere = jax.random.split(key)
    is_saddle = local.growth > 1
    usual = candidates[np.isfinite(candidates).all(1)][:_N_USUAL].astype(np.float64)
    pool = hidden[~is_saddle] if (~is_saddle).sum() > 1 else hidden
    if len(pool) < 2:  # nothing to mix yet: mix with the user's own candidates
        pool = np.concatenate([pool, usual[:8], np.zeros((1, candidates.shape[1]))])
    center = np.median(np.concatenate([usual, pool]), axis=0)
    spread = float(np.median(np.linalg.norm(np.concatenate([usual, pool]) - center, axis=1)))
    mixtures, steps = seeding.seed_candidates(
        key_known, _N_SEEDED - _N_ANYWHERE, pool, hidden[is_saddle], local.ways[is_saddle], spread
    )
    # Where no box is known: ten times as far out, unit by unit, as the points and the candidates are.
    reach = 10 * np.abs(np.concatenate([usual, pool]) - center).max(axis=0)
    lower, upper = (center - reach, center + reach) if p.box is None else p.box(inputs)
    lower, upper = np.maximum(lower, center - 1e3 * (1 + reach)), np.minimum(upper, center + 1e3 * (1 + reach))
    anywhere = seeding.wander_candidates(
        key_anywhere, p.step_fn, p.params, inputs, lower, upper, _N_ANYWHERE, n_time=64 if p.kind == "map" else 0
    )
    return np.concatenate([mixtures, np.asarray(anywhere)]), steps
