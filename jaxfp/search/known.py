"""What earlier waves found: points, the zeros among them that lanes may share, and how two sets of points join."""

from typing import Any, NamedTuple

import numpy as np

from jaxfp.search import dedupe, judgment, zeros
from jaxfp.types import FixedPoints


class Known(NamedTuple):
    """What earlier waves found.

    Attributes:
      points: distinct points.
      zeros: those of them that lanes may share.
      row: (n_zeros,) row of `points` of each zero.
    """

    points: FixedPoints
    zeros: zeros.Zeros
    row: np.ndarray


def nothing_known(n_hidden: int, inputs: np.ndarray | None) -> Known:
    """No points yet.

    Args:
      n_hidden: units.
      inputs: whatever the search has for inputs.

    Returns:
      Known without rows.

    Example:
      >>> nothing_known(3, None).points.hidden.shape
      (0, 3)
    """
    none, hidden = np.zeros(0), np.zeros((0, n_hidden))
    u = None if inputs is None else np.zeros((0, inputs.shape[1]))
    points = FixedPoints(hidden, u, none, none, none.astype(int), none.astype(bool), none.astype(int), None)  # type: ignore[arg-type]
    return Known(points, zeros.Zeros(hidden, u, []), none.astype(int))


def same_as(problem: judgment.Problem, known: FixedPoints, new: FixedPoints) -> np.ndarray:
    """The known point that each new one is.

    Args:
      problem: see `judgment.Problem`.
      known: points.
      new: points.

    Returns:
      (n_new,) row of known, -1 for none.

    Example:
      >>> problem = judgment.Problem(None, None, "map", None, None, 1e-16, 1, 0.0, None, 0.5, 1, 1, None, None)
      >>> none = nothing_known(2, None).points
      >>> same_as(problem, none, none).tolist()
      []
    """
    both = joined_points(known, new)
    rank = np.arange(len(both.hidden), dtype=float)  # the known come first, so they represent
    # A slow and a fixed point are never the same: the status tells them apart as inputs do.
    apart = both.status[:, None].astype(float)
    apart = apart if both.inputs is None else np.concatenate([both.inputs, apart], 1)
    tolerance = judgment.tolerances(problem, both.hidden, both.status)
    owner = dedupe.representatives(both.hidden, apart, rank, tolerance)[len(known.hidden) :]
    return np.where(owner < len(known.hidden), owner, -1)


def joined_points(known: FixedPoints, new: FixedPoints) -> FixedPoints:
    """Rows of both, with the report of the first.

    Args:
      known: points.
      new: points.

    Returns:
      FixedPoints.

    Example:
      >>> none = nothing_known(2, None).points
      >>> joined_points(none, none).hidden.shape
      (0, 2)
    """
    columns: dict[str, Any] = {
        name: None if a is None else np.concatenate([a, b])
        for name, a, b in zip(FixedPoints._fields[:-1], known[:-1], new[:-1], strict=True)
    }
    return known._replace(**columns)
