"""Plane attractors as objects: a grid on a slow sheet, its area, its drift and its modes.

The sheet is that of `slow_spaces` with two slow modes. Its tangent plane is taken for their space V: exact where
nothing drifts, off by O(drift x curvature / transverse rate) elsewhere. From the slowest of the points given a spine is
traced along the direction in which they spread most, and from each of its states a rib across it. Both go straight on:
their direction is carried from tangent plane to tangent plane by projection, and every state is put back onto the sheet
in the plane across V. Where ribs have gone apart or together, as meridians do, the area element, the area of a cell
over that of a flat one, is not 1. A rib or the spine ends where the nearest point given is too far.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxfp import arguments, dynamics
from jaxfp.analysis import lines, slow_spaces
from jaxfp.analysis.manifolds import check_points, slowest_place
from jaxfp.analysis.slow_spaces import Field, Place
from jaxfp.types import Array, Kind, Params, StepFn

_BELIEVED = 0.25  # correction over the length of a step, or the sheet is lost


class Plane(NamedTuple):
    """A grid on a slow sheet; leading axes n_spine and n_rib, NaN where there is no sheet or no point near.

    Attributes:
      hidden: (n_spine, n_rib, n_hidden).
      inside: (n_spine, n_rib) bool, where there is a state.
      frame: (n_spine, n_rib, 2, n_hidden) orthonormal, the directions of spine and rib in the tangent plane.
      drift: (n_spine, n_rib, 2) residual along the frame, activation per step (map) or per unit of time (flow).
      across: (n_spine, n_rib) norm of the residual across the tangent plane.
      rounding: (n_spine, n_rib) the least drift that means anything.
      eigenvalues: (n_spine, n_rib, 2) complex, of dF/dh, of the two slow modes.
      transverse_timescale: (n_spine, n_rib) of the slowest or most unstable other mode; NaN without one.
      area_element: (n_spine - 1, n_rib - 1) area of each cell over step^2.
      area: of all whole cells, activation units squared.
      step: between neighbors along the spine and along ribs, activation units.
      dimension: 2, or 0 where there is no sheet.
      kind: "map" or "flow".
    """

    hidden: np.ndarray
    inside: np.ndarray
    frame: np.ndarray
    drift: np.ndarray
    across: np.ndarray
    rounding: np.ndarray
    eigenvalues: np.ndarray
    transverse_timescale: np.ndarray
    area_element: np.ndarray
    area: float
    step: float
    dimension: int
    kind: Kind


def trace_plane(
    step_fn: StepFn,
    params: Params,
    hidden: Array,
    inputs: Array | None = None,
    *,
    kind: Kind = "map",
    dt: float = 1.0,
    n_points: int = 21,
    step: float | None = None,
    reach: float | None = None,
) -> Plane:
    """Trace the slow sheet that slow points lie on, as a grid.

    A host function: NumPy in, NumPy out, float64 whatever the caller's x64 setting.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_given, n_hidden), slow points near the sheet. The slowest but those at the rim begins the trace.
      inputs: (n_inputs,) or None, held constant.
      kind: "map" or "flow".
      dt: duration of one step of a map, in the unit wanted for timescales; unused for a flow.
      n_points: of the grid each way, odd: as many to either side of the first.
      step: between neighbors, activation units; by default the extent of the points over n_points.
      reach: how far from the nearest of the points given a state may be; by default the farthest that one of them is
        from its nearest neighbor, or a step, whichever is more.

    Returns:
      Plane.

    Raises:
      ValueError: if shapes do not fit, a number is out of range, or anything is not finite.

    Example:
      >>> points = np.random.default_rng(0).uniform(-1, 1, (60, 3)) * [1, 1, 0]
      >>> plane = trace_plane(lambda p, h, u: p * h, np.array([1.0, 1.0, 0.5]), points, n_points=5)
      >>> plane.dimension, bool(np.nanmax(np.abs(plane.area_element - 1)) < 1e-9)
      (2, True)

    Source: Sussillo & Barak (2013), Neural Computation 25:626, fig. 7; Maas & Pope (1992), Combustion and Flame 88:239.
    """
    points, drive, _ = check_points(step_fn, params, hidden, inputs, None)
    dynamics.check_kind(kind)
    arguments.check_number("dt", dt, positive=True)
    arguments.check_count("n_points", n_points)
    for name, value in (("step", step), ("reach", reach)):
        if value is not None:
            arguments.check_number(name, value, positive=True)
    half, n = n_points // 2, points.shape[1]
    away = points - points.mean(0)
    extent = 2 * float(np.linalg.norm(away, axis=1).max())
    step = extent / n_points if step is None else step
    grid = np.full((2 * half + 1, 2 * half + 1), None, object)
    with jax.enable_x64(True):
        field = slow_spaces.field_of(step_fn, params, drive, kind)
        eps = slow_spaces.precision_of(step_fn, params, points[0], drive)
        central = points[np.linalg.norm(away, axis=1) <= max(np.median(np.linalg.norm(away, axis=1)), 0.0)]
        start = slowest_place(field, central, extent, 2) if n > 1 and extent else None
        if start is not None:
            reach = max(_loneliest(points), 1.5 * step) if reach is None else reach
            spread = np.linalg.svd(away @ start.space.right, full_matrices=False)[2]
            spine = start.space.right @ spread[0]
            for place, way, i in _walk(field, start, spine, points, step, reach, half):
                rib = _other(place, way)
                for there, along, j in _walk(field, place, rib, points, step, reach, half):
                    grid[i, j] = (there, -_other(there, along), along)
    return _described(grid, n, eps, dt, kind, step)


def _walk(
    field: Field, start: Place, way: np.ndarray, points: np.ndarray, step: float, reach: float, half: int
) -> list[tuple[Place, np.ndarray, int]]:
    """States a step apart both ways from a start, with their direction and their number on the grid."""
    found = [(start, way, half)]
    for sign in (1, -1):
        place, along = start, way
        for number in range(1, half + 1):
            predicted = place.hidden + sign * step * along
            new = slow_spaces.correct(field, predicted, place.space.right, place.space, _BELIEVED * step, 1e-4 * step)
            if not new.found or np.linalg.norm(points - new.hidden, axis=1).min() > reach:
                break
            place, along = new, _carried(new, along)
            found.append((place, along, half + sign * number))
    return found


def _carried(place: Place, way: np.ndarray) -> np.ndarray:
    within = place.space.right @ (place.space.right.T @ way)
    return within / np.linalg.norm(within)


def _other(place: Place, way: np.ndarray) -> np.ndarray:
    """The direction in the tangent plane a quarter turn on, as the slow space is oriented."""
    a, b = place.space.right.T @ way
    other = place.space.right @ np.array([-b, a])
    return other / np.linalg.norm(other)


def _loneliest(points: np.ndarray) -> float:
    """The farthest that a point is from its nearest neighbor."""
    squared = np.square(points).sum(1)
    apart = squared[:, None] + squared - 2 * points @ points.T
    np.fill_diagonal(apart, np.inf)
    return float(np.sqrt(max(apart.min(1).max(), 0.0))) if len(points) > 1 else 0.0


def _described(grid: np.ndarray, n: int, eps: float, dt: float, kind: Kind, step: float) -> Plane:
    size = len(grid)
    hidden, frame = np.full((size, size, n), np.nan), np.full((size, size, 2, n), np.nan)
    drift, across, floors, times = (np.full(shape, np.nan) for shape in ((size, size, 2), *[(size, size)] * 3))
    eigenvalues = np.full((size, size, 2), np.nan + 0j)
    inside = np.array([[cell is not None for cell in row] for row in grid])
    for i, j in np.argwhere(inside):
        place, *ways = grid[i, j]
        hidden[i, j], frame[i, j] = place.hidden, ways
        drift[i, j] = frame[i, j] @ place.residual
        across[i, j] = np.linalg.norm(place.residual - drift[i, j] @ frame[i, j])
        floors[i, j] = slow_spaces.rounding(place, eps)
        eigenvalues[i, j] = np.linalg.eigvals(place.space.rates) + (kind == "map")
        times[i, j] = lines.timescale(np.array(lines.slowest_other(place, kind)), dt, kind)
    first, second = hidden[1:, 1:] - hidden[:-1, :-1], hidden[1:, :-1] - hidden[:-1, 1:]  # the diagonals of a cell
    gram = np.square(first).sum(-1) * np.square(second).sum(-1) - np.square((first * second).sum(-1))
    area = np.sqrt(np.maximum(gram, 0)) / 2
    whole = float(area[np.isfinite(area)].sum())
    return Plane(
        hidden, inside, frame, drift, across, floors, eigenvalues, times, area / step**2, whole, step,
        2 if inside.any() else 0, kind,
    )  # fmt: skip
