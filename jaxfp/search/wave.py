"""One wave: from many candidates to the distinct points they lead to, most of the work shared.

1. Search, in the candidates' dtype and in stages, cheap ones first; the lanes that a stage leaves go on to the next:

       newton_krylov(8)          8 products an iteration: nearly every lane of a network with a few slow modes
       newton_krylov(24)         harder networks, where eight vectors do not hold the Newton step
       truncated_newton(32)      minima of q, where Newton's method on r has nowhere to go

2. After each stage the lanes that landed are shared out: a representative of each cluster is taken to the last digit
   in float64 (`zeros.refine`), and every lane that belongs to it is done. Zeros found earlier come first.
3. What belongs to no zero (slow points, continua, saturated gates) is settled lane by lane, again representatives
   first, and shared where the Hessian of q allows it.

A lane shares a result only where its own next Newton steps would lead there, so what is found does not depend on what
was found before, nor on the order, the chunks or the devices.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfp import checkpoints, dynamics
from jaxfp.search import dedupe, engine, judgment, polish, zeros
from jaxfp.search import known as so_far
from jaxfp.search.solvers.newton_krylov import newton_krylov, truncated_newton
from jaxfp.types import CONVERGED, FIXED, MAX_STEPS, REJECTED, SLOW, Solver

_BLOCK = 4096  # candidates searched before their lanes are shared out, and lanes settled before these are saved
_FACTORS, _ZEROS = 1 << 22, 256  # zeros are shared while their factors fit into 32 MiB, and 256 in any case
_MOST = 64  # representatives refined at a time, before the lanes that belong to them are looked for
_VECTORS = 64  # that a lane of a solver we do not know is taken to hold
_STUCK = 1e-5  # speed, relative to 1 + ||h||, above which a lane that can get no further has not reached a zero
_FLAT = 1e-4  # slope of q under which a stationary point of it is no zero
_COARSE = 1e-3  # size of a cluster that gets one representative, relative to 1 + ||h||


class Wave(NamedTuple):
    """Judged lanes and all points known after them.

    Attributes:
      known: points known before, in their order, then new ones; n_hits are those of this wave.
      label: (n_candidates,) row of `known.points` each lane belongs to, -1 for none.
      status: (n_candidates,) FIXED, SLOW, MAX_STEPS, NONFINITE or REJECTED.
      reason: (n_candidates,) why a lane is no point, "" where it is one.
      n_steps: (n_candidates,) iterations of the search, in all its stages.
      n_products: (n_candidates,) evaluations of r and products with its Jacobian in these; NaN for a solver that
        forms the Jacobian.
    """

    known: so_far.Known
    label: np.ndarray
    status: np.ndarray
    reason: np.ndarray
    n_steps: np.ndarray
    n_products: np.ndarray


class _Lanes(NamedTuple):
    """The wave under way; arrays are filled in place."""

    hidden: np.ndarray  # (n_candidates, n_hidden), in the dtype of the search
    zero: np.ndarray  # (n_candidates,) the zero a lane belongs to, or -1
    n_steps: np.ndarray
    n_products: np.ndarray


def search_wave(
    problem: judgment.Problem,
    candidates: np.ndarray,
    inputs: np.ndarray | None,
    known: so_far.Known | None = None,
    on_progress: Callable[[int], None] | None = None,
    keep: checkpoints.Keep = checkpoints.keep_nothing,
) -> Wave:
    """Search, share, settle and judge one set of candidates. Needs x64 in scope.

    Args:
      problem: see `judgment.Problem`.
      candidates: (n_candidates, n_hidden).
      inputs: (n_candidates, n_inputs) float64 or None.
      known: what earlier waves found.
      on_progress: called with the number of lanes just finished.
      keep: of a checkpoint: takes what is finished from there, or puts it there.

    Returns:
      Wave.

    Example:
      >>> with jax.enable_x64(True):
      ...     problem = judgment.Problem(
      ...         lambda p, h, u: p * h, np.float64(0.5), "map", None, np.float64, 2.2e-16, 50, 0.0, None, None, 16,
      ...         16, None, None,
      ...     )
      ...     search_wave(problem, np.ones((2, 3)), None).known.points.hidden.round(6).tolist()
      [[0.0, 0.0, 0.0]]
    """
    known = so_far.nothing_known(candidates.shape[1], inputs) if known is None else known
    n_candidates = len(candidates)
    lanes = _Lanes(
        candidates.astype(problem.dtype), np.full(n_candidates, -1), np.zeros(n_candidates, int), np.zeros(n_candidates)
    )
    found, rows = known.zeros, _no_rows(candidates.shape[1])
    for start in range(0, n_candidates, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, n_candidates))

        def searched(block: np.ndarray = block, before: zeros.Zeros = found) -> tuple[Any, ...]:
            after, more = _search_block(problem, lanes, block, inputs, before)
            new = slice(len(before.hidden), None)
            u = None if after.inputs is None else after.inputs[new]
            return tuple(x[block] for x in lanes), zeros.Zeros(after.hidden[new], u, after.factors[new]), more

        ended_there, new, more = keep(f"candidates-{start}-{start + len(block)}", searched)
        for column, values in zip(lanes, ended_there, strict=True):
            column[block] = values
        found, rows = zeros.joined(found, new), _stacked(rows, more)
        if on_progress is not None:
            on_progress(int((lanes.zero[block] >= 0).sum()))
    alone = np.flatnonzero(lanes.zero < 0)
    ended, sharing, n_steps = _no_rows(candidates.shape[1]), np.zeros(0, int), np.zeros(0, int)
    for start in range(0, len(alone), _BLOCK):
        part = alone[start : start + _BLOCK]
        at = lanes.hidden[part].astype(np.float64), _rows_of(inputs, part)
        some, its_row, steps = keep(f"alone-{start}-{start + len(part)}", functools.partial(_settle, problem, *at))
        sharing, n_steps = np.concatenate([sharing, len(ended.hidden) + its_row]), np.concatenate([n_steps, steps])
        ended = _stacked(ended, some)
    lanes.n_steps[alone] += n_steps
    if on_progress is not None:
        on_progress(len(alone))

    # What is judged: the zeros new in this wave, then what was settled by itself. Lanes point at the rows.
    n_before, n_zeros = len(known.zeros.hidden), len(found.hidden)
    row = lanes.zero - n_before
    row[alone] = n_zeros - n_before + sharing
    first = np.zeros(len(ended.hidden), int)  # some lane of each settled row, for its input
    first[sharing] = alone
    u = None
    if inputs is not None and found.inputs is not None:
        u = np.concatenate([found.inputs[n_before:], inputs[first]])
    every = judgment.in_the_box(problem, _stacked(rows, ended), u)
    judged = keep("verdicts", lambda: judgment.judge(problem, every, u))
    return _put_together(problem, known, found, lanes, row, judged)


class _Stage(NamedTuple):
    solver: Solver
    max_steps: int
    n_products: float  # in one iteration
    n_vectors: int  # of n_hidden numbers that a lane holds
    for_zeros: bool  # where it ends above the rounding floor, it is stuck


def _stages(problem: judgment.Problem) -> list[_Stage]:
    if problem.solver is not None:
        return [_Stage(problem.solver, problem.max_steps, np.nan, _VECTORS, False)]
    return [
        _Stage(newton_krylov(8), 12, 10, 16, True),
        _Stage(newton_krylov(24), 24, 26, 32, True),
        _Stage(truncated_newton(32), 80, 130, 40, False),
    ]


def n_states(problem: judgment.Problem, n_hidden: int, n_vectors: int = 16) -> int:
    """How many states are worked on at a time.

    Args:
      problem: see `judgment.Problem`.
      n_hidden: units.
      n_vectors: of n_hidden numbers that each holds.

    Returns:
      The chunk size asked for, or what the budget allows.

    Example:
      >>> problem = judgment.Problem(None, None, "map", None, float, 1e-16, 1, 0.0, None, 0.5, 8, 1, None, None)
      >>> n_states(problem, 100)
      8
    """
    itemsize = np.dtype(problem.dtype).itemsize
    return problem.chunk_size or engine.lanes_in_flight(n_vectors * n_hidden, itemsize)


def _search_block(
    problem: judgment.Problem, lanes: _Lanes, block: np.ndarray, inputs: np.ndarray | None, found: zeros.Zeros
) -> tuple[zeros.Zeros, judgment.Ended]:
    """The stages over one block of lanes; zeros known after it, and the new ones as rows to judge."""
    p = problem
    params, drives = dynamics.narrow((p.params, inputs), p.dtype)
    params = jax.device_put(params)
    rows = _no_rows(lanes.hidden.shape[1])
    left = block
    budget = p.max_steps  # what the stages before may have taken, so that no lane's depends on another's
    for stage in _stages(problem):
        if not len(left) or budget <= 0:
            break
        ended = engine.run_wave(
            p.step_fn,
            params,
            lanes.hidden[left],
            None if drives is None else drives[left],
            solver=stage.solver,
            kind=p.kind,
            tolerance=max(p.tolerance, p.slow_tolerance or 0.0),
            max_steps=min(stage.max_steps, budget),
            chunk_size=n_states(problem, lanes.hidden.shape[1], stage.n_vectors),
            sharding=p.sharding,
        )
        lanes.hidden[left] = ended.hidden
        lanes.n_steps[left] += ended.n_steps
        lanes.n_products[left] += stage.n_products * ended.n_steps
        landed = ended.status == CONVERGED
        if p.slow_tolerance is None:
            found, more = _share(problem, lanes, left[landed], ended.q[landed], inputs, found)
            rows = _stacked(rows, more)
        budget -= stage.max_steps
        goes_on = ended.status == MAX_STEPS
        if stage.for_zeros:
            high = np.sqrt(2 * ended.q) > _STUCK * (1 + np.linalg.norm(ended.hidden, axis=1))
            goes_on |= landed & high & (lanes.zero[left] < 0)
        left = left[goes_on]
    return found, rows


def _share(
    problem: judgment.Problem,
    lanes: _Lanes,
    landed: np.ndarray,
    q: np.ndarray,
    inputs: np.ndarray | None,
    found: zeros.Zeros,
) -> tuple[zeros.Zeros, judgment.Ended]:
    """Give every landed lane the zero it belongs to; where there is none yet, take a representative to one."""
    p = problem
    common: dict[str, Any] = {"kind": p.kind, "chunk_size": n_states(problem, lanes.hidden.shape[1])}
    rows = _no_rows(lanes.hidden.shape[1])
    if not len(landed):
        return found, rows
    hidden, u = lanes.hidden[landed].astype(np.float64), None if inputs is None else inputs[landed]
    r, _ = polish.residuals(p.step_fn, p.params, hidden, u, **common)
    near = judgment.tolerances(problem, hidden, np.full(len(landed), FIXED))
    coarse = _COARSE * (1 + np.linalg.norm(hidden, axis=1))
    zero = zeros.belongs_to(found, hidden, u, r, near)
    waits = zero < 0
    while waits.any():
        open_ = np.flatnonzero(waits)
        at = _rows_of(u, open_)
        owner = dedupe.representatives(hidden[open_], at, q[open_], coarse[open_])
        chosen = open_[np.unique(owner)][:_MOST]
        refined = zeros.refine(p.step_fn, p.params, hidden[chosen], _rows_of(u, chosen), n_dense=p.n_dense, **common)
        floor = refined.floor * (p.eps / np.finfo(float).eps)
        good = np.flatnonzero(refined.shareable & (refined.speed <= floor))
        waits[chosen] = False  # what does not come to a zero here is settled by itself
        if not len(good):
            break
        new = zeros.Zeros(refined.hidden[good], _rows_of(u, chosen[good]), [refined.factors[k] for k in good])
        # Two clusters may be one zero seen twice, or one that is known.
        known = zeros.belongs_to(found, new.hidden, new.inputs, np.zeros_like(new.hidden), near[chosen[good]])
        owner = dedupe.representatives(new.hidden, new.inputs, refined.speed[good], near[chosen[good]])
        keep = np.flatnonzero((known < 0) & (owner == np.arange(len(good))))
        room = max(_FACTORS // hidden.shape[1] ** 2, _ZEROS) - len(found.hidden)
        keep = keep[: max(room, 0)]
        if not len(keep) and (known < 0).any():
            break  # the memory for factors is full: what is left is settled by itself
        new = zeros.Zeros(new.hidden[keep], _rows_of(new.inputs, keep), [new.factors[k] for k in keep])
        kept, speed = good[keep], refined.speed[good[keep]]
        ended = judgment.Ended(
            hidden=new.hidden,
            speed=speed,
            status=np.full(len(keep), FIXED),
            reason=np.full(len(keep), "", object),
            rounding=judgment.saturated(problem, hidden.shape[1], refined.gate_margin[kept], speed, floor[kept]),
            regular=np.array([judgment.is_regular(factors, p.eps) for factors in new.factors], bool),
        )
        rows, found = _stacked(rows, ended), zeros.joined(found, new)
        open_ = np.flatnonzero(zero < 0)
        zero[open_] = zeros.belongs_to(found, hidden[open_], _rows_of(u, open_), r[open_], near[open_])
        waits &= zero < 0
    lanes.zero[landed] = zero
    return found, rows


def _settle(
    problem: judgment.Problem, hidden: np.ndarray, inputs: np.ndarray | None
) -> tuple[judgment.Ended, np.ndarray, np.ndarray]:
    """Rows for the lanes that share no zero, the row of each, and the iterations it took.

    First a representative of each cluster; then the lanes that belong to what these came to; then the rest.
    """
    p = problem
    row, n_steps = np.full(len(hidden), -1), np.zeros(len(hidden), int)
    if not len(hidden):
        return _no_rows(hidden.shape[1]), row, n_steps
    chosen = np.arange(len(hidden))
    if p.slow_tolerance is None:
        # Neither the box nor a state that is not finite is left by polishing: their lanes are not worth it.
        lost = judgment.far_outside(problem, hidden, inputs) | ~np.isfinite(hidden).all(1)
        near = np.flatnonzero(~lost)
        coarse = _COARSE * (1 + np.linalg.norm(hidden[near], axis=1))
        speed = np.zeros(len(near))  # clusters are small: any member will do
        owner = dedupe.representatives(hidden[near], _rows_of(inputs, near), speed, coarse)
        chosen = np.concatenate([near[np.unique(owner)], np.flatnonzero(lost)])
    ended, n_steps[chosen] = _minima_or_settled(problem, hidden[chosen], _rows_of(inputs, chosen))
    row[chosen] = np.arange(len(chosen))
    others = np.flatnonzero(row < 0)
    if len(others):
        row[others] = _like(problem, ended, _rows_of(inputs, chosen), hidden[others], _rows_of(inputs, others))
    rest = np.flatnonzero(row < 0)
    if len(rest):
        row[rest] = len(ended.hidden) + np.arange(len(rest))
        more, n_steps[rest] = judgment.settle(problem, hidden[rest], _rows_of(inputs, rest))
        ended = _stacked(ended, more)
    return ended, row, n_steps


def _minima_or_settled(
    problem: judgment.Problem, hidden: np.ndarray, inputs: np.ndarray | None
) -> tuple[judgment.Ended, np.ndarray]:
    """SLOW by a few chord steps where q has a minimum clear of zero right here; the long way where not."""
    p, n_hidden = problem, hidden.shape[1]
    if p.slow_tolerance is not None:
        return judgment.settle(problem, hidden, inputs)
    n_lanes, no = len(hidden), np.zeros(len(hidden), bool)
    blank, n_steps = np.full(n_lanes, "", object), np.zeros(n_lanes, int)
    ended = judgment.Ended(hidden.copy(), np.zeros(n_lanes), np.full(n_lanes, REJECTED), blank, no.copy(), no.copy())
    waits = ~judgment.far_outside(problem, hidden, inputs)  # what is that far outside, `in_the_box` will reject
    rows = np.flatnonzero(waits & np.isfinite(hidden).all(1))
    if len(rows) and n_hidden <= judgment.LARGEST_DENSE:
        near = zeros.refine_minima(
            p.step_fn,
            p.params,
            hidden[rows],
            _rows_of(inputs, rows),
            kind=p.kind,
            chunk_size=n_states(problem, n_hidden),
            n_dense=p.n_dense,
        )
        scale = 1 + np.linalg.norm(near.hidden, axis=1)
        # Near a zero the gradient of q vanishes, too, but only as fast as r: the slope stays.
        floor = 8 * p.eps * n_hidden**0.5 * scale
        minimum = (near.speed > 100 * floor) & (near.distance <= p.eps**0.5 * scale) & (near.slope <= _FLAT)
        ended.hidden[rows[minimum]], ended.speed[rows[minimum]] = near.hidden[minimum], near.speed[minimum]
        ended.status[rows[minimum]] = SLOW
        rounding = judgment.saturated(problem, n_hidden, near.gate_margin, near.speed, floor)
        ended.rounding[rows[minimum]] = rounding[minimum]
        ended.regular[rows[minimum]] = True
        waits[rows[minimum]] = False
    rest = np.flatnonzero(waits)
    if len(rest):
        more, n_steps[rest] = judgment.settle(problem, hidden[rest], _rows_of(inputs, rest))
        for column, column_more in zip(ended, more, strict=True):
            column[rest] = column_more
    return ended, n_steps


def _like(
    problem: judgment.Problem,
    ended: judgment.Ended,
    ended_inputs: np.ndarray | None,
    hidden: np.ndarray,
    inputs: np.ndarray | None,
) -> np.ndarray:
    """The settled row each lane belongs to, or -1: by r where that is FIXED, by the gradient of q where it is SLOW."""
    p, size = problem, n_states(problem, hidden.shape[1])
    row = np.full(len(hidden), -1)
    for code, matrices_at, values_at in (
        (
            FIXED,
            lambda *at, **size: polish.residual_jacobians(*at, **size)[1],
            lambda *at, **size: polish.residuals(*at, **size)[0],
        ),
        (SLOW, polish.hessians, polish.gradients),
    ):
        good, open_ = np.flatnonzero(ended.status == code), np.flatnonzero(row < 0)
        if not len(good) or not len(open_):
            continue
        at = _rows_of(inputs, open_)
        closest = zeros.nearest(ended.hidden[good], _rows_of(ended_inputs, good), hidden[open_], at)
        good = good[np.unique(closest[closest >= 0])]
        values = values_at(p.step_fn, p.params, hidden[open_], at, kind=p.kind, chunk_size=size)
        near = judgment.tolerances(problem, hidden[open_], np.full(len(open_), code))
        for start in range(0, len(good), p.n_dense):  # never more matrices at a time
            part = good[start : start + p.n_dense]
            u = _rows_of(ended_inputs, part)
            matrices = matrices_at(p.step_fn, p.params, ended.hidden[part], u, kind=p.kind, chunk_size=p.n_dense)
            some = zeros.Zeros(ended.hidden[part], u, [zeros.factorize(matrix) for matrix in matrices])
            belongs = zeros.belongs_to(some, hidden[open_], at, values, near)
            row[open_[belongs >= 0]] = part[belongs[belongs >= 0]]
    return row


def _put_together(
    problem: judgment.Problem,
    known: so_far.Known,
    found: zeros.Zeros,
    lanes: _Lanes,
    row: np.ndarray,
    judged: judgment.Judged,
) -> Wave:
    """Labels, verdicts and the points known now, from what was judged; a negative row is a known zero, from the end."""
    n_points, n_before = len(known.points.hidden), len(known.zeros.hidden)
    same = so_far.same_as(problem, known.points, judged.points)
    fresh = np.flatnonzero(same < 0)
    place = same.copy()
    place[fresh] = n_points + np.arange(len(fresh))
    # Rows by position: first the judged ones, then the known zeros, which negative indices reach.
    of_row = np.concatenate(
        [np.where(judged.label >= 0, place[judged.label], -1) if len(place) else judged.label, known.row]
    )
    status = np.concatenate([judged.status, known.points.status[known.row]])
    reason = np.concatenate([judged.reason, np.full(n_before, "", object)])
    label = of_row[row]
    points = so_far.joined_points(known.points, dedupe.take(judged.points, fresh))
    points = points._replace(n_hits=np.bincount(label[label >= 0], minlength=len(points.hidden)))

    new = judged.label[: len(found.hidden) - n_before]
    row_of_new = np.where(new >= 0, place[new] if len(place) else -1, -1)
    rows = np.concatenate([known.row, row_of_new]).astype(int)
    keep = np.flatnonzero((rows >= 0) & (points.isolated & (points.status == FIXED))[rows]) if len(rows) else rows
    shared = zeros.Zeros(found.hidden[keep], _rows_of(found.inputs, keep), [found.factors[k] for k in keep])
    return Wave(
        so_far.Known(points, shared, rows[keep]), label, status[row], reason[row], lanes.n_steps, lanes.n_products
    )


def _no_rows(n_hidden: int) -> judgment.Ended:
    none = np.zeros(0)
    return judgment.Ended(
        np.zeros((0, n_hidden)), none, none.astype(int), none.astype(object), none.astype(bool), none.astype(bool)
    )


def _stacked(first: judgment.Ended, second: judgment.Ended) -> judgment.Ended:
    return judgment.Ended(*(np.concatenate(columns) for columns in zip(first, second, strict=True)))


def _rows_of(inputs: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if inputs is None else inputs[rows]
