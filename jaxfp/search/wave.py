"""One wave: from many candidates to the distinct points they lead to, most of the work shared.

1. Search, in the candidates' dtype and in stages, cheap ones first; the lanes that a stage leaves go on to the next,
   to the second from where they began (in the box, where one is known), since cheap steps may have led them astray:

       newton_krylov(8)          8 products an iteration: nearly every lane of a network with a few slow modes
       newton_krylov(24)         harder networks, where eight vectors do not hold the Newton step
       truncated_newton(32)      minima of q, where Newton's method on r has nowhere to go
       levenberg_marquardt()     what is left, with dense matrices: the second and last stage of small networks; in
                                 others once more, from where they began, for lanes that the rest led out of the box

2. Lanes that landed share zeros (`sharing`). Lanes still under way are asked every few steps whether a zero known by
   then is sure to take them, and whether they still get anywhere (not in small networks).
3. What belongs to no zero (slow points, continua, saturated gates) is settled lane by lane, again representatives
   first, and shared where the Hessian of q allows it.

A lane shares a result only where its own next steps would lead there, so what is found does not depend on what was
found before, nor on the order, the chunks or the devices.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfp import checkpoints, dynamics
from jaxfp.search import dedupe, engine, inside, judgment, settling, sharing, zeros
from jaxfp.search import known as so_far
from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
from jaxfp.search.solvers.newton_krylov import newton_krylov, truncated_newton
from jaxfp.types import CONVERGED, FIXED, MAX_STEPS, RUNNING, Solver

_BLOCK = 4096  # candidates in the queue at a time, and lanes settled, before these are saved; bounds the memory
_PATIENCE, _PROGRESS, _FALL = 6, 0.9, 0.5  # steps in which a lane must lower q by a tenth, a seeded one by half
_NEAR, _LANDED = 1, 2
_ASKED = 16  # units from which to ask lanes under way costs less than to let them go on
_WAITING = 64  # lanes that landed at no zero known yet, until it is worth a look at them
_VECTORS = 64  # that a lane of a solver we do not know is taken to hold
_SMALL = 64  # units up to which steps with dense matrices cost no more than others, and one program less


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
    only_zeros: bool = False,
    keep: checkpoints.Keep = checkpoints.keep_nothing,
) -> Wave:
    """Search, share, settle and judge one set of candidates. Needs x64 in scope.

    Args:
      problem: see `judgment.Problem`.
      candidates: (n_candidates, n_hidden).
      inputs: (n_candidates, n_inputs) float64 or None.
      known: what earlier waves found.
      on_progress: called with the number of lanes just finished.
      only_zeros: leave lanes that get stuck clear of any zero as MAX_STEPS, instead of following them to minima of q.
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
    found, rows = known.zeros, settling.no_rows(candidates.shape[1])
    for start in range(0, n_candidates, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, n_candidates))

        def searched(block: np.ndarray = block, before: zeros.Zeros = found) -> tuple[Any, ...]:
            after, more = _search_block(problem, lanes, block, inputs, before, only_zeros)
            new = slice(len(before.hidden), None)
            u = None if after.inputs is None else after.inputs[new]
            return tuple(x[block] for x in lanes), zeros.Zeros(after.hidden[new], u, after.factors[new]), more

        ended_there, new, more = keep(f"candidates-{start}-{start + len(block)}", searched)
        for column, values in zip(lanes, ended_there, strict=True):
            column[block] = values
        found, rows = zeros.joined(found, new), settling.stacked(rows, more)
        if on_progress is not None:
            on_progress(int((lanes.zero[block] >= 0).sum()))
    alone = np.flatnonzero(lanes.zero < 0)
    ended, sharing, n_steps = settling.no_rows(candidates.shape[1]), np.zeros(0, int), np.zeros(0, int)
    for start in range(0, len(alone), _BLOCK):
        part = alone[start : start + _BLOCK]
        at = lanes.hidden[part].astype(np.float64), settling.rows_of(inputs, part)
        settle = functools.partial(settling.settled, problem, *at, only_zeros=only_zeros)
        some, its_row, steps = keep(f"alone-{start}-{start + len(part)}", settle)
        sharing, n_steps = np.concatenate([sharing, len(ended.hidden) + its_row]), np.concatenate([n_steps, steps])
        ended = settling.stacked(ended, some)
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
    every = judgment.in_the_box(problem, settling.stacked(rows, ended), u)
    judged = keep("verdicts", lambda: judgment.judge(problem, every, u))
    return _put_together(problem, known, found, lanes, row, judged)


def together(first: Wave, second: Wave) -> Wave:
    """Two waves as one, the second begun with what the first had found.

    Args:
      first: Wave.
      second: Wave.

    Returns:
      Wave of the lanes of both, in this order; n_hits are of both.

    Example:
      >>> with jax.enable_x64(True):
      ...     problem = judgment.Problem(
      ...         lambda p, h, u: p * h, np.float64(0.5), "map", None, np.float64, 2.2e-16, 50, 0.0, None, None, 16,
      ...         16, None, None,
      ...     )
      ...     first = search_wave(problem, np.ones((2, 3)), None)
      ...     together(first, search_wave(problem, np.ones((2, 3)), None, first.known)).known.points.n_hits.tolist()
      [4]
    """
    label = np.concatenate([first.label, second.label])
    points = second.known.points
    points = points._replace(n_hits=np.bincount(label[label >= 0], minlength=len(points.hidden)))
    rest = (np.concatenate(columns) for columns in zip(first[2:], second[2:], strict=True))
    return Wave(second.known._replace(points=points), label, *rest)


class _Stage(NamedTuple):
    solver: Solver
    max_steps: int
    n_products: float  # in one iteration
    n_vectors: int  # of n_hidden numbers that a lane holds
    block: int  # lanes that take its steps together, on a CPU
    for_zeros: bool  # where it ends above the rounding floor, it is stuck
    afresh: bool = False  # begins at the candidates
    astray: bool = False  # is for the lanes that the stages before led out of the box


def _stages(problem: judgment.Problem, n_hidden: int) -> list[_Stage]:
    if problem.solver is not None:
        return [_Stage(problem.solver, problem.max_steps, np.nan, _VECTORS, 16, False)]
    first = _Stage(newton_krylov(8), 12, 10, 16, 32, True)
    dense = _Stage(levenberg_marquardt(), 40, n_hidden + 2, 3 * n_hidden, 8, True, afresh=True)
    if n_hidden <= _SMALL:
        return [first, dense]
    stages = [
        first,
        _Stage(newton_krylov(24), 24, 26, 32, 8, True, afresh=True),
        _Stage(truncated_newton(32), 80, 130, 40, 8, False),
    ]
    if n_hidden > judgment.LARGEST_DENSE:
        return stages
    rest = dense._replace(solver=levenberg_marquardt(1e-3), max_steps=24, for_zeros=False, afresh=False)
    return [*stages, rest, dense._replace(for_zeros=False, astray=True)]


def _search_block(
    problem: judgment.Problem,
    lanes: _Lanes,
    block: np.ndarray,
    inputs: np.ndarray | None,
    found: zeros.Zeros,
    only_zeros: bool,
) -> tuple[zeros.Zeros, judgment.Ended]:
    """The stages over one block of lanes; zeros known after it, and the new ones as rows to judge."""
    p = problem
    params, drives = dynamics.narrow((p.params, inputs), p.dtype)
    params = jax.device_put(params)
    n_hidden, itemsize = lanes.hidden.shape[1], lanes.hidden.dtype.itemsize
    rows = settling.no_rows(n_hidden)
    looked_at = np.zeros(len(lanes.zero), int)  # is it known whether a lane shares a zero from where it is?
    enough, progress = _WAITING, _FALL if only_zeros else _PROGRESS

    def share(landed: np.ndarray, q: np.ndarray) -> None:
        nonlocal found, rows, enough
        enough *= 2  # the zeros that most lanes lead to are found first
        at = settling.rows_of(inputs, landed)
        lanes.zero[landed], found, more = sharing.share(problem, lanes.hidden[landed], q, at, found)
        rows = settling.stacked(rows, more)

    def taken(asked: np.ndarray, residuals: np.ndarray | None = None) -> np.ndarray:
        """Which lanes under way belong to a zero already; they are given to it."""
        at = settling.rows_of(inputs, asked)
        lanes.zero[asked] = sharing.sure(problem, lanes.hidden[asked], at, found, residuals)
        return lanes.zero[asked] >= 0

    left, candidates = block, lanes.hidden[block]
    if len(found.hidden) and p.solver is None:
        left = block[~taken(block)]
    in_flight = engine.lanes_in_flight if p.sharding is None else engine.lanes_together  # devices step together
    budget = p.max_steps  # less what the stages before may have taken: no lane's depends on another's
    for stage in _stages(problem, n_hidden):
        if stage.astray:
            left = _astray(problem, lanes, block[lanes.zero[block] < 0], inputs)
            looked_at[left] = 0
        if not len(left) or budget <= 0 or (only_zeros and not stage.for_zeros):
            continue
        if stage.afresh:
            begun, at = candidates[left - block[0]], settling.rows_of(inputs, left)
            lanes.hidden[left] = begun if p.box is None else inside.nearest(p.box, begun, at)
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        past = np.zeros(len(left), int), np.full(len(left), np.inf)  # steps and q when a lane's progress was last seen

        def ends(
            asked: np.ndarray,
            at: engine.Lanes,
            r: np.ndarray,
            left: np.ndarray = left,
            waiting: list[Any] = waiting,
            past: tuple[np.ndarray, np.ndarray] = past,
            for_zeros: bool = stage.for_zeros,
        ) -> np.ndarray:
            rows = left[asked]
            look = at.n_steps >= past[0][asked] + _PATIENCE
            stuck = for_zeros & look & (at.status == RUNNING) & (at.q > progress * past[1][asked])
            for kept, now in zip(past, (at.n_steps, at.q), strict=True):
                kept[asked[look]] = now[look]
            lanes.hidden[rows] = at.hidden
            known = taken(rows, r)
            near = np.sqrt(2 * at.q) <= settling.COARSE * (1 + np.linalg.norm(at.hidden, axis=1))
            landed = np.where(at.status == CONVERGED, _LANDED, np.where(near, _NEAR, 0))
            here = ~known & (landed > looked_at[rows])
            looked_at[rows[here]] = landed[here]
            waiting.append((rows[here], at.q[here]))
            if sum(len(r) for r, _ in waiting) >= enough:
                share(*(np.concatenate(column) for column in zip(*waiting, strict=True)))
                waiting.clear()
            return np.where(lanes.zero[rows] >= 0, CONVERGED, np.where(stuck, MAX_STEPS, at.status))

        ended = engine.run_wave(
            p.step_fn,
            params,
            lanes.hidden[left],
            None if drives is None else drives[left],
            solver=stage.solver,
            kind=p.kind,
            tolerance=max(p.tolerance, p.slow_tolerance or 0.0),
            max_steps=min(stage.max_steps, budget),
            chunk_size=p.chunk_size or in_flight(stage.n_vectors * n_hidden, itemsize),
            block=stage.block,
            sharding=p.sharding,
            ends=ends if p.solver is None and p.slow_tolerance is None and n_hidden >= _ASKED else None,
        )
        lanes.hidden[left] = ended.hidden
        lanes.n_steps[left] += ended.n_steps
        lanes.n_products[left] += stage.n_products * ended.n_steps
        landed = ended.status == CONVERGED
        high = np.sqrt(2 * ended.q) > settling.STUCK * (1 + np.linalg.norm(ended.hidden, axis=1))
        looked_at[np.concatenate([r for r, _ in waiting] + [left[:0]])] = 0
        last = landed & (looked_at[left] < _LANDED) & (lanes.zero[left] < 0)
        last &= ~high | stage.for_zeros | (p.solver is not None)  # else at a minimum of q, or as good as that
        if p.slow_tolerance is None:
            share(left[last], ended.q[last])
        budget -= stage.max_steps
        goes_on = (ended.status == MAX_STEPS) | (landed & high & stage.for_zeros)
        left = left[goes_on & (lanes.zero[left] < 0)]
        looked_at[left] = 0
    return found, rows


def _astray(problem: judgment.Problem, lanes: _Lanes, rows: np.ndarray, inputs: np.ndarray | None) -> np.ndarray:
    """Which of these lanes ended outside the box."""
    if problem.box is None:
        return rows[:0]
    hidden = lanes.hidden[rows]
    slack = settling.STUCK * (1 + np.linalg.norm(hidden, axis=1))
    return rows[inside.outside(problem.box, hidden, settling.rows_of(inputs, rows), slack)]


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
    shared = zeros.Zeros(found.hidden[keep], settling.rows_of(found.inputs, keep), [found.factors[k] for k in keep])
    return Wave(
        so_far.Known(points, shared, rows[keep]), label, status[row], reason[row], lanes.n_steps, lanes.n_products
    )
