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

from typing import Any

import jax
import numpy as np

from jaxfp.analysis import completeness, modes
from jaxfp.search import candidates as seeding
from jaxfp.search import dedupe, judgment, polish
from jaxfp.types import FIXED, SLOW, FixedPoints

_N_SEEDED = 256  # candidates of one seeded wave, per input
_N_ANYWHERE = 64  # of them, states of trajectories from anywhere
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


def complete(problem: judgment.Problem, points: FixedPoints, candidates: np.ndarray, key: jax.Array) -> FixedPoints:
    """Seeded waves, at each input until its stop rule is met. Needs x64 in scope.

    Args:
      problem: see `judgment.Problem`.
      points: of the user's own wave, with their report.
      candidates: (n_candidates, n_hidden), the user's own.
      key: typed PRNG key; the waves are a function of it.

    Returns:
      FixedPoints with those that the waves found appended, n_hits 0; the report's waves and seeded_waves_met.

    Example:
      >>> from jaxfp.pipeline import find_fixed_points
      >>> points = find_fixed_points(lambda p, h, u: p * h, 0.5, np.ones((1, 2)), bounded=True, until="complete")
      >>> points.report.seeded_waves_met.tolist()  # by way of this function
      [True]
    """
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
                    dedupe.take(points, group == g),
                    dedupe.take(linear, group == g),
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

        new = dedupe.take(wave.points, same < 0)
        new = new._replace(n_hits=np.zeros_like(new.n_hits))  # hits are the user's candidates alone
        report.waves.append(wave_record(new, len(starts), seeded=True))
        points, again = _joined(points, new), np.concatenate([again, np.zeros(len(new.hidden), bool)])
        quiet[waiting] += sums_met[waiting]
        fixed = dedupe.take(new, new.status == FIXED)
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
    hidden, linear = here.hidden[isolated], dedupe.take(linear, isolated)
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
