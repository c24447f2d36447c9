"""Lanes that lead to a zero of r share it: found once, to the last digit, and given to every lane that belongs to it.

    1. a representative of each cluster of landed lanes is taken to the zero                        `zeros.refine`
    2. a lane belongs to a zero where its own next Newton steps would lead there                    `zeros.belongs_to`
    3. what is left is clustered closer, and so on

so that what is found does not depend on what was found before, nor on the order of the lanes.
"""

from typing import Any

import numpy as np

from jaxfp.search import dedupe, judgment, polish, settling, zeros
from jaxfp.types import FIXED

_FACTORS, _ZEROS = 1 << 22, 256  # zeros are shared while their factors fit into 32 MiB, and 256 in any case
_MOST = 64  # representatives refined at a time, before the lanes that belong to them are looked for
_WIDE = 0.1  # size of a cluster at first, when its other lanes may well belong to what the representative comes to


def sure(
    problem: judgment.Problem,
    hidden: np.ndarray,
    inputs: np.ndarray | None,
    found: zeros.Zeros,
    residuals: np.ndarray | None = None,
) -> np.ndarray:
    """Which zero is sure to take each of some lanes under way. Needs x64 in scope.

    Args:
      problem: see `judgment.Problem`.
      hidden: (n_lanes, n_hidden), in any dtype.
      inputs: (n_lanes, n_inputs) float64 or None.
      found: zeros known by now.
      residuals: (n_lanes, n_hidden), r there; taken where not given.

    Returns:
      (n_lanes,) row of `found`, -1 for none.

    Example:
      >>> import jax
      >>> problem = judgment.Problem(
      ...     lambda p, h, u: p * h, np.float64(0.5), "map", None, np.float64, 2.2e-16, 50, 0.0, None, None, 16, 16,
      ...     None, None,
      ... )
      >>> found = zeros.Zeros(np.zeros((1, 3)), None, [zeros.factorize(-0.5 * np.eye(3))])
      >>> with jax.enable_x64(True):
      ...     sure(problem, np.ones((2, 3)), None, found).tolist()
      [0, 0]
    """
    if not len(found.hidden):
        return np.full(len(hidden), -1)
    p, hidden = problem, hidden.astype(np.float64)
    if residuals is None:
        size = settling.n_residuals(problem, hidden.shape[1])
        residuals, _ = polish.residuals(p.step_fn, p.params, hidden, inputs, kind=p.kind, chunk_size=size)
    at = np.zeros(len(hidden))
    return zeros.belongs_to(found, hidden, inputs, residuals.astype(np.float64), at, zeros.SURE)


def share(
    problem: judgment.Problem, hidden: np.ndarray, q: np.ndarray, inputs: np.ndarray | None, found: zeros.Zeros
) -> tuple[np.ndarray, zeros.Zeros, judgment.Ended]:
    """Give every landed lane the zero it belongs to; where there is none yet, take a representative to one.

    Needs x64 in scope.

    Args:
      problem: see `judgment.Problem`.
      hidden: (n_lanes, n_hidden) where they landed, in any dtype.
      q: (n_lanes,) there.
      inputs: (n_lanes, n_inputs) float64 or None.
      found: zeros known by now.

    Returns:
      The zero of each lane (n_lanes,), -1 for none; the zeros known now; and the new ones as rows to judge.

    Example:
      >>> import jax
      >>> problem = judgment.Problem(
      ...     lambda p, h, u: p * h, np.float64(0.5), "map", None, np.float64, 2.2e-16, 50, 0.0, None, None, 16, 16,
      ...     None, None,
      ... )
      >>> none = zeros.Zeros(np.zeros((0, 3)), None, [])
      >>> with jax.enable_x64(True):
      ...     zero, found, rows = share(problem, 1e-9 * np.ones((2, 3)), np.zeros(2), None, none)
      >>> zero.tolist(), found.hidden.tolist(), len(rows.hidden)
      ([0, 0], [[0.0, 0.0, 0.0]], 1)
    """
    p, n_hidden = problem, hidden.shape[1]
    common: dict[str, Any] = {"kind": p.kind, "chunk_size": settling.n_residuals(problem, n_hidden)}
    rows = settling.no_rows(n_hidden)
    if not len(hidden):
        return np.full(0, -1), found, rows
    hidden = hidden.astype(np.float64)
    r, _ = polish.residuals(p.step_fn, p.params, hidden, inputs, **common)
    near = judgment.tolerances(problem, hidden, np.full(len(hidden), FIXED))
    size, wide = 1 + np.linalg.norm(hidden, axis=1), _WIDE
    zero = zeros.belongs_to(found, hidden, inputs, r, near)
    waits = zero < 0
    while waits.any():
        open_ = np.flatnonzero(waits)
        at = settling.rows_of(inputs, open_)
        owner = dedupe.representatives(hidden[open_], at, q[open_], wide * size[open_])
        wide = settling.COARSE
        chosen = open_[np.unique(owner)][:_MOST]
        at = settling.rows_of(inputs, chosen)
        refined = zeros.refine(p.step_fn, p.params, hidden[chosen], at, n_dense=p.n_dense, **common)
        floor = refined.floor * (p.eps / np.finfo(float).eps)
        good = np.flatnonzero(refined.shareable & (refined.speed <= floor))
        waits[chosen] = False  # what does not come to a zero here is settled by itself
        if not len(good):
            continue
        at = settling.rows_of(inputs, chosen[good])
        new = zeros.Zeros(refined.hidden[good], at, [refined.factors[k] for k in good])
        # Two clusters may be one zero seen twice, or one that is known.
        known = zeros.belongs_to(found, new.hidden, at, None, near[chosen[good]])
        owner = dedupe.representatives(new.hidden, at, refined.speed[good], near[chosen[good]])
        keep = np.flatnonzero((known < 0) & (owner == np.arange(len(good))))
        room = max(_FACTORS // n_hidden**2, _ZEROS) - len(found.hidden)
        keep = keep[: max(room, 0)]
        if not len(keep) and (known < 0).any():
            break  # the memory for factors is full: what is left is settled by itself
        new = zeros.Zeros(new.hidden[keep], settling.rows_of(new.inputs, keep), [new.factors[k] for k in keep])
        kept, speed = good[keep], refined.speed[good[keep]]
        ended = judgment.Ended(
            hidden=new.hidden,
            speed=speed,
            status=np.full(len(keep), FIXED),
            reason=np.full(len(keep), "", object),
            rounding=judgment.saturated(problem, n_hidden, refined.gate_margin[kept], speed, floor[kept]),
            regular=np.array([judgment.is_regular(factors, p.eps) for factors in new.factors], bool),
        )
        rows, found = settling.stacked(rows, ended), zeros.joined(found, new)
        # A representative is where its chord steps went, though from far away they may not have gone straight.
        zero[chosen[good]] = zeros.belongs_to(found, refined.hidden[good], at, None, near[chosen[good]])
        open_ = np.flatnonzero(zero < 0)
        at = settling.rows_of(inputs, open_)
        zero[open_] = zeros.belongs_to(found, hidden[open_], at, r[open_], near[open_])
        waits &= zero < 0
    return zero, found, rows
