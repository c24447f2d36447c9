"""Which points are the same.

Points are visited from the best q to the worst. Each joins the nearest-visited representative within its tolerance,
or becomes a representative itself. Membership is measured to the representative, never to another member, so points
along a line attractor cannot chain into one; the order is a property of the set of points, so permuting them changes
nothing; and nobody is dropped for being alone.
"""

import functools
from typing import Any, TypeVar

import jax
import numpy as np

from jaxfp import arguments

_Rows = TypeVar("_Rows", bound=tuple)


def representatives(hidden: np.ndarray, inputs: np.ndarray | None, q: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """The representative of each point.

    Args:
      hidden: (n_points, n_hidden).
      inputs: (n_points, n_inputs) or None; points at different inputs are never the same.
      q: (n_points,), the best of a group represents it.
      tolerance: (n_points,) distance within which a point is the same as a representative, activation units.

    Returns:
      (n_points,) index of the representative; a representative is its own.

    Example:
      >>> representatives(np.array([[0.0], [1e-9], [1.0]]), None, np.array([2.0, 1.0, 3.0]), np.full(3, 1e-6)).tolist()
      [1, 1, 2]
    """
    n_points = len(hidden)
    group, _ = input_groups(inputs, n_points)
    owner = np.full(n_points, -1)
    if n_points == 0:
        return owner
    # Points within a distance of each other are so along any direction, too: only those are compared.
    along = hidden @ _direction(hidden.shape[1])
    by_place = np.argsort(along)
    # Ties of q (zero is common) are broken by the coordinates, so that the order of the points plays no role.
    ties = len(np.unique(q)) < n_points
    order = np.lexsort((*hidden.T[::-1], q, group) if ties else (q, group))
    slack = tolerance + 8 * np.finfo(float).eps * hidden.shape[1] * np.abs(hidden).max(initial=0.0)
    first = np.searchsorted(along[by_place], along - slack)
    last = np.searchsorted(along[by_place], along + slack, side="right")
    lonely = last - first == 1  # most points, where tolerances are small
    owner[lonely] = np.flatnonzero(lonely)
    for i in order[~lonely[order]]:
        if owner[i] < 0:
            near = by_place[first[i] : last[i]]
            near = near[(owner[near] < 0) & (group[near] == group[i])]
            owner[near[np.linalg.norm(hidden[near] - hidden[i], axis=1) <= tolerance[i]]] = i
            owner[i] = i
    return owner


@functools.lru_cache(16)
def _direction(n_hidden: int) -> np.ndarray:
    direction = np.random.default_rng(0).normal(size=n_hidden)
    return direction / np.linalg.norm(direction)


def input_groups(inputs: np.ndarray | None, n_points: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Number the distinct inputs.

    Args:
      inputs: (n_points, n_inputs) or None.
      n_points: number of points.

    Returns:
      Group of each point (n_points,), and the distinct inputs (n_distinct_inputs, n_inputs), sorted; None for None,
      where all points are one group.

    Example:
      >>> input_groups(np.array([[1.0], [0.0], [1.0]]), 3)[0].tolist()
      [1, 0, 1]
    """
    if inputs is None:
        return np.zeros(n_points, int), None
    distinct, group = np.unique(inputs, axis=0, return_inverse=True)
    return group.reshape(-1), distinct


def take(rows: _Rows, keep: Any) -> _Rows:
    """Filter or reorder the rows of a result tuple.

    Args:
      rows: NamedTuple whose arrays share their leading axis, e.g. FixedPoints, Linearization, Modes; its report and
        its None fields are kept as they are.
      keep: boolean mask, index array or slice over the leading axis.

    Returns:
      The same kind of tuple.

    Raises:
      ValueError: if rows are no such tuple, or keep does not fit them.

    Example:
      >>> from jaxfp import SLOW, find_fixed_points
      >>> points = find_fixed_points(lambda p, h, u: p * h, 0.5, np.ones((1, 2)))
      >>> take(points, points.status == SLOW).hidden.shape
      (0, 2)
    """
    columns = {x.shape[:1] for x in rows if hasattr(x, "shape")} if isinstance(rows, tuple) else set()
    if not hasattr(rows, "_fields") or len(columns) > 1 or () in columns:
        raise ValueError(f"rows must be a NamedTuple of arrays with one leading axis, got {arguments.came(rows)}.")
    if not isinstance(keep, slice | jax.core.Tracer):
        keep = _checked_keep(keep, next(iter(columns), (0,))[0])
    return type(rows)(*(x[keep] if hasattr(x, "shape") else x for x in rows))


def _checked_keep(keep: Any, n_rows: int) -> np.ndarray:
    wanted = f"a mask ({n_rows},), integers from {-n_rows} to {n_rows - 1}, or a slice"
    array = arguments.as_numpy("keep", keep, wanted)
    array = array.astype(int) if array.shape == (0,) and isinstance(keep, list | tuple) else array
    mask = array.dtype == bool and array.shape == (n_rows,)
    integers = array.dtype.kind in "iu" and array.ndim == 1 and bool(((-n_rows <= array) & (array < n_rows)).all())
    if not mask and not integers:
        raise ValueError(f"keep must be {wanted}, got {arguments.came(keep)}.")
    return array
