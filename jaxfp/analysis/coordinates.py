"""What slow manifolds are for: coordinates of states on a line, what it reads and is read by, how many dimensions.

theta of a state is that of the nearest place on the line, between samples on the cubic with their tangents.

What an input u + e adds to the state moves it along the line by l . dF/du e, l the left mode along the line: that is
what the line integrates. A readout w sees the position along the line by its angle with the tangent.

Dimension is asked of the Jacobians and of the points. Of a Jacobian: rates sorted by modulus (of a map with 1, that of
a mode that dies at once, last), the largest gap between neighbors that is at least a factor 3 has the slow modes before
it. Of the points: the nearest neighbors of each, their standard deviations along principal directions, the largest gap
of at least a factor 3 again; and the participation ratio (sum of variances)^2 / sum of squares. Points of a search that
stopped early spread around a single fixed point along its slow modes, too: the verdict of a trace tells that apart.
"""

from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from jaxfp import arguments, dynamics
from jaxfp.analysis.linearization import linearize
from jaxfp.analysis.lines import Line
from jaxfp.types import Array, Kind, Params, StepFn

_GAP = 3.0
_AT_REST = 1e-3  # of the fastest rate: slower modes are told apart no more
_THIN = 0.02  # of the largest deviation: what is less is no spread
_N_SEARCH = 20  # steps for the nearest place


class Projection(NamedTuple):
    """The nearest place on a line for each state.

    Attributes:
      theta: (n_states,) see `Line`.
      arc_length: (n_states,) from the beginning of the line, activation units.
      distance: (n_states,) from it, activation units.
      hidden: (n_states, n_hidden) the place.
    """

    theta: np.ndarray
    arc_length: np.ndarray
    distance: np.ndarray
    hidden: np.ndarray


class Alignment(NamedTuple):
    """What a line is read by and what it reads.

    Attributes:
      readout: (n_points, n_outputs) |cosine| of each readout with the tangent; None without readout.
      selection: (n_points, n_probes) l . dF/du e for each probe e, activation along the line per step (map) or unit of
        time (flow); None for a line without inputs.
      selected: (n_points, n_probes) |cosine| of dF/du e with the left mode; None as selection.
    """

    readout: np.ndarray | None
    selection: np.ndarray | None
    selected: np.ndarray | None


class Dimension(NamedTuple):
    """How many dimensions slow points have.

    Attributes:
      spectral: (n_points,) int, slow modes of the Jacobian; 0 where there is no gap.
      gap: (n_points,) rate of the first mode behind the gap over that of the last before it.
      local: (n_points,) int, principal directions of the neighbors; 0 where there is no spread, n_hidden without gap.
      participation: (n_points,) participation ratio of the neighbors, 1 to n_hidden; 0 without spread.
      value: the smaller of the medians of spectral and local.
    """

    spectral: np.ndarray
    gap: np.ndarray
    local: np.ndarray
    participation: np.ndarray
    value: int


def project(line: Line, states: Array) -> Projection:
    """Coordinates of states on a line or ring.

    Args:
      line: see `trace_line`.
      states: (n_states, n_hidden); beyond an end they belong to the end.

    Returns:
      Projection.

    Raises:
      ValueError: if the states do not fit the line, or the line is empty.

    Example:
      >>> from jaxfp.analysis.manifolds import trace_line
      >>> line = trace_line(lambda p, h, u: p * h, np.array([1.0, 0.5]), np.array([[-1.0, 0.0], [1.0, 0.0]]))
      >>> place = project(line, np.array([[0.5, 3.0]]))
      >>> place.theta.round(9).tolist(), place.distance.round(9).tolist()
      ([0.5], [3.0])
    """
    _check_line(line)
    states = arguments.as_numpy("states", states, "(n_states, n_hidden)").astype(np.float64)
    if states.ndim != 2 or states.shape[1] != line.hidden.shape[1]:
        raise ValueError(f"states must be (n_states, {line.hidden.shape[1]}), as the line is, got {states.shape}.")
    along, hidden, tangent = line.arc_length, line.hidden, line.tangent
    if line.closed:  # once around
        along, hidden, tangent = np.append(along, line.length), np.r_[hidden, hidden[:1]], np.r_[tangent, tangent[:1]]
    course = CubicHermiteSpline(along, hidden, tangent)
    way, bend = course.derivative(), course.derivative(2)
    distance = np.square(hidden).sum(1) - 2 * states @ hidden.T  # up to that of the state, which is the same for all
    s = along[distance.argmin(1)]
    low, high = s - along[1], s + along[1]
    for _ in range(_N_SEARCH):
        at = s % line.length if line.closed else s
        slope, away = way(at), states - course(at)
        square = np.square(slope).sum(1)
        # Newton's method where the distance is convex; steps of Gauss and Newton, made shorter, elsewhere
        s = s + (away * slope).sum(1) / np.maximum(square - (away * bend(at)).sum(1), square / 4)
        s = np.clip(s, low, high) if line.closed else np.clip(s, np.maximum(low, 0), np.minimum(high, line.length))
    s = s % line.length if line.closed else s
    nearest = course(s)
    theta = 2 * np.pi * s / line.length if line.closed else 2 * s / line.length - 1
    return Projection(theta, s, np.linalg.norm(states - nearest, axis=1), nearest)


def alignment(
    step_fn: StepFn, params: Params, line: Line, *, readout: Array | None = None, probes: Array | None = None
) -> Alignment:
    """Readout and inputs along a line.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      line: see `trace_line`; its inputs are those about which is linearized.
      readout: (n_hidden,) or (n_outputs, n_hidden), weights; None for none.
      probes: (n_probes, n_inputs), deviations of the inputs; each input line by itself by default.

    Returns:
      Alignment.

    Raises:
      ValueError: if readout or probes do not fit, or there are probes and a line without inputs.

    Example:
      >>> from jaxfp.analysis.manifolds import trace_line
      >>> def step(params, hidden, inputs):
      ...     return params * hidden + inputs
      >>> scale = np.array([1.0, 0.5])
      >>> line = trace_line(step, scale, np.array([[-1.0, 0.0], [1.0, 0.0]]), np.zeros(2), n_points=3)
      >>> found = alignment(step, scale, line, readout=np.array([3.0, 4.0]))
      >>> found.readout.ravel().round(9).tolist(), found.selection[0].round(9).tolist()
      ([0.6, 0.6, 0.6], [1.0, 0.0])
    """
    _check_line(line)
    arguments.check_step(step_fn)
    arguments.check_params(params)
    n, seen, selection, selected = line.hidden.shape[1], None, None, None
    if readout is not None:
        weights = np.atleast_2d(arguments.as_numpy("readout", readout, "(n_hidden,) or (n_outputs, n_hidden)"))
        if weights.ndim != 2 or weights.shape[1] != n:
            raise ValueError(f"readout must be ({n},) or (n_outputs, {n}), got {np.shape(readout)}.")
        weights = weights.astype(np.float64)
        seen = np.abs(line.tangent @ (weights / np.linalg.norm(weights, axis=1, keepdims=True)).T)
    if line.inputs is None:
        if probes is not None:
            raise ValueError("probes need a line that was traced with inputs, got one without.")
        return Alignment(seen, None, None)
    moved = linearize(step_fn, params, line.hidden, line.inputs).input_jacobian
    if probes is not None:
        ways = arguments.as_numpy("probes", probes, "(n_probes, n_inputs)").astype(np.float64)
        if ways.ndim != 2 or ways.shape[1] != moved.shape[2]:
            raise ValueError(f"probes must be (n_probes, {moved.shape[2]}), got {ways.shape}.")
        moved = moved @ ways.T
    selection = np.einsum("ph,phk->pk", line.left, moved)
    sizes = np.linalg.norm(line.left, axis=1)[:, None] * np.linalg.norm(moved, axis=1)
    selected = np.abs(selection) / np.where(sizes > 0, sizes, 1.0)
    return Alignment(seen, selection, selected)


def dimension(
    step_fn: StepFn,
    params: Params,
    hidden: Array,
    inputs: Array | None = None,
    *,
    kind: Kind = "map",
    n_neighbors: int = 10,
) -> Dimension:
    """How many dimensions slow points have, by their Jacobians and by where they lie.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_points, n_hidden), slow points; on the manifold, since what scatters off it counts as spread.
      inputs: None, (n_inputs,) or (n_points, n_inputs).
      kind: "map" or "flow".
      n_neighbors: of each point, that are compared with it.

    Returns:
      Dimension.

    Raises:
      ValueError: if the shapes do not fit, kind is unknown, or n_neighbors is no positive integer.

    Example:
      >>> sheet = np.random.default_rng(0).uniform(-1, 1, (40, 3)) * [1, 1, 0]
      >>> dimension(lambda p, h, u: p * h, np.array([1.0, 1.0, 0.5]), sheet).value
      2
    """
    arguments.check_host(params, hidden, inputs)
    dynamics.check_kind(kind)
    arguments.check_count("n_neighbors", n_neighbors)
    points = arguments.as_numpy("hidden", hidden, "(n_points, n_hidden)", floating=True)
    if points.ndim != 2 or not points.size:
        raise ValueError(f"hidden must be (n_points, n_hidden), at least one, got {points.shape}.")
    arguments.check_finite("hidden", points)
    eps, points = float(np.finfo(points.dtype).eps), points.astype(np.float64)
    jacobians = linearize(step_fn, params, points, inputs).jacobian
    by_modes = np.array([_slow_modes(jacobian, eps, kind) for jacobian in jacobians])
    by_place = np.array([_spread(points, row, n_neighbors, eps) for row in range(len(points))])
    spectral, local = by_modes[:, 0].astype(int), by_place[:, 0].astype(int)
    value = min(int(np.median(spectral)), int(np.median(local)))
    return Dimension(spectral, by_modes[:, 1], local, by_place[:, 1], value)


def _check_line(line: Line) -> None:
    if not isinstance(line, Line) or not len(line.hidden):
        raise ValueError(f"line must be a Line of trace_line, with points, got {arguments.came(line)}.")


def _slow_modes(jacobian: np.ndarray, eps: float, kind: Kind) -> tuple[int, float]:
    """How many, and the gap behind them."""
    n = len(jacobian)
    rates = np.sort(np.abs(np.linalg.eigvals(jacobian) - (kind == "map")))
    rates = np.append(rates, 1.0) if kind == "map" else rates
    least = 8 * n * eps * max(float(np.linalg.norm(jacobian, 2)), float(kind == "map"))
    if rates[n - 1] <= least:  # nothing to be told from rest
        return n, np.inf
    floored = np.maximum(rates, max(least, _AT_REST * rates[-1]))
    gaps = floored[1:] / floored[:-1]
    if not len(gaps) or gaps.max() < _GAP:
        return 0, float(gaps.max(initial=1.0))
    return int(gaps.argmax()) + 1, float(gaps.max())


def _spread(points: np.ndarray, row: int, n_neighbors: int, eps: float) -> tuple[int, float]:
    """Principal directions of the neighbors of a point, and their participation ratio."""
    away = points - points[row]
    near = points[np.argsort(np.square(away).sum(1), kind="stable")[: n_neighbors + 1]]
    deviations = np.linalg.svd(near - near.mean(0), compute_uv=False) / len(near) ** 0.5
    least = 8 * eps * points.shape[1] ** 0.5 * (np.linalg.norm(points[row]) + eps**0.5)
    if deviations[0] <= least:
        return 0, 0.0
    variances = np.square(deviations)
    participation = float(variances.sum() ** 2 / np.square(variances).sum())
    floored = np.maximum(deviations, _THIN * deviations[0])
    gaps = floored[:-1] / floored[1:]
    if not len(gaps) or gaps.max() < _GAP:
        return int((deviations > least).sum()), participation
    return int(gaps.argmax()) + 1, participation
