"""What no lane of a wave could share with a zero: slow points, continua, saturated gates.

Representatives of clusters are settled first; what they came to is shared with the other lanes where the linear model
there, of r at a zero or of the gradient of q at a minimum, says that they lead there, too.
"""

import numpy as np

from jaxfp.search import dedupe, engine, judgment, minima, polish, zeros
from jaxfp.types import FIXED, MAX_STEPS, REJECTED, SLOW

STUCK = 1e-5  # speed, relative to 1 + ||h||, above which a lane that can get no further has not reached a zero
_FLAT = 1e-4  # slope of q under which a stationary point of it is no zero
COARSE = 1e-3  # size of a cluster that gets one representative, and speed that may be near a zero; to 1 + ||h||


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
    return problem.chunk_size or engine.lanes_together(n_vectors * n_hidden, itemsize)


def n_residuals(problem: judgment.Problem, n_hidden: int) -> int:
    """How many states have their residuals taken at a time, in float64: fewer, since there are few zeros in most waves.

    Args:
      problem: see `judgment.Problem`.
      n_hidden: units.

    Returns:
      Half of `n_states`.

    Example:
      >>> problem = judgment.Problem(None, None, "map", None, float, 1e-16, 1, 0.0, None, 0.5, 8, 1, None, None)
      >>> n_residuals(problem, 100)
      4
    """
    return max(n_states(problem, n_hidden) // 2, 1)


def settled(
    problem: judgment.Problem, hidden: np.ndarray, inputs: np.ndarray | None, *, only_zeros: bool
) -> tuple[judgment.Ended, np.ndarray, np.ndarray]:
    """Rows for the lanes that share no zero, the row of each, and the iterations it took. Needs x64 in scope.

    First a representative of each cluster; then the lanes that belong to what these came to; then the rest.

    Args:
      problem: see `judgment.Problem`.
      hidden: (n_lanes, n_hidden) float64, where the search left them.
      inputs: (n_lanes, n_inputs) float64 or None.
      only_zeros: leave lanes that are clear of any zero as MAX_STEPS.

    Returns:
      Ended with fewer rows than there are lanes, the row of each lane (n_lanes,), and its iterations (n_lanes,).

    Example:
      >>> import jax
      >>> problem = judgment.Problem(
      ...     lambda p, h, u: p * h, np.float64(0.5), "map", None, np.float64, 2.2e-16, 50, 0.0, None, None, 16, 16,
      ...     None, None,
      ... )
      >>> with jax.enable_x64(True):
      ...     settled(problem, np.ones((2, 3)), None, only_zeros=False)[1].tolist()
      [0, 0]
    """
    p = problem
    row, n_steps = np.full(len(hidden), -1), np.zeros(len(hidden), int)
    if not len(hidden):
        return no_rows(hidden.shape[1]), row, n_steps
    if only_zeros:
        size = n_residuals(problem, hidden.shape[1])
        r, _ = polish.residuals(p.step_fn, p.params, hidden, inputs, kind=p.kind, chunk_size=size)
        speed, blank = np.linalg.norm(r, axis=1), np.zeros(len(hidden), bool)
        above = ~(speed <= STUCK * (1 + np.linalg.norm(hidden, axis=1)))  # or not finite
        status, reason = np.full(len(hidden), MAX_STEPS), np.full(len(hidden), "above zero, not followed", object)
        left = judgment.Ended(hidden, speed, status, reason, blank, blank)
        ended, row[~above], n_steps[~above] = settled(
            problem, hidden[~above], rows_of(inputs, ~above), only_zeros=False
        )
        row[above] = len(ended.hidden) + np.arange(above.sum())
        return stacked(ended, judgment.Ended(*(column[above] for column in left))), row, n_steps
    chosen = np.arange(len(hidden))
    if p.slow_tolerance is None:
        # Neither the box nor a state that is not finite is left by polishing: their lanes are not worth it.
        lost = judgment.far_outside(problem, hidden, inputs) | ~np.isfinite(hidden).all(1)
        near = np.flatnonzero(~lost)
        coarse = COARSE * (1 + np.linalg.norm(hidden[near], axis=1))
        speed = np.zeros(len(near))  # clusters are small: any member will do
        owner = dedupe.representatives(hidden[near], rows_of(inputs, near), speed, coarse)
        chosen = np.concatenate([near[np.unique(owner)], np.flatnonzero(lost)])
    ended, n_steps[chosen] = _minima_or_settled(problem, hidden[chosen], rows_of(inputs, chosen))
    row[chosen] = np.arange(len(chosen))
    others = np.flatnonzero(row < 0)
    if len(others):
        row[others] = _like(problem, ended, rows_of(inputs, chosen), hidden[others], rows_of(inputs, others))
    rest = np.flatnonzero(row < 0)
    if len(rest):
        row[rest] = len(ended.hidden) + np.arange(len(rest))
        more, n_steps[rest] = judgment.settle(problem, hidden[rest], rows_of(inputs, rest))
        ended = stacked(ended, more)
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
        near = minima.refine(
            p.step_fn,
            p.params,
            hidden[rows],
            rows_of(inputs, rows),
            kind=p.kind,
            chunk_size=n_residuals(problem, n_hidden),
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
        more, n_steps[rest] = judgment.settle(problem, hidden[rest], rows_of(inputs, rest))
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
    p, size = problem, n_residuals(problem, hidden.shape[1])
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
        at = rows_of(inputs, open_)
        closest = zeros.nearest(ended.hidden[good], rows_of(ended_inputs, good), hidden[open_], at)
        good = good[np.unique(closest[closest >= 0])]
        values = values_at(p.step_fn, p.params, hidden[open_], at, kind=p.kind, chunk_size=size)
        near = judgment.tolerances(problem, hidden[open_], np.full(len(open_), code))
        for start in range(0, len(good), p.n_dense):  # never more matrices at a time
            part = good[start : start + p.n_dense]
            u = rows_of(ended_inputs, part)
            matrices = matrices_at(p.step_fn, p.params, ended.hidden[part], u, kind=p.kind, chunk_size=p.n_dense)
            some = zeros.Zeros(ended.hidden[part], u, [zeros.factorize(matrix) for matrix in matrices])
            belongs = zeros.belongs_to(some, hidden[open_], at, values, near)
            row[open_[belongs >= 0]] = part[belongs[belongs >= 0]]
    return row


def no_rows(n_hidden: int) -> judgment.Ended:
    """Ended of no lanes.

    Args:
      n_hidden: units.

    Returns:
      Ended without rows.

    Example:
      >>> no_rows(3).hidden.shape
      (0, 3)
    """
    none = np.zeros(0)
    return judgment.Ended(
        np.zeros((0, n_hidden)), none, none.astype(int), none.astype(object), none.astype(bool), none.astype(bool)
    )


def stacked(first: judgment.Ended, second: judgment.Ended) -> judgment.Ended:
    """Rows of both.

    Args:
      first: Ended.
      second: Ended.

    Returns:
      Ended.

    Example:
      >>> stacked(no_rows(3), no_rows(3)).hidden.shape
      (0, 3)
    """
    return judgment.Ended(*(np.concatenate(columns) for columns in zip(first, second, strict=True)))


def rows_of(inputs: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Some rows of the inputs, where there are any.

    Args:
      inputs: (n_lanes, n_inputs) or None.
      rows: indices or a mask.

    Returns:
      (n_rows, n_inputs) or None.

    Example:
      >>> rows_of(None, np.arange(2)) is None
      True
    """
    return None if inputs is None else inputs[rows]
