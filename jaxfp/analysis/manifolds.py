"""Line and ring attractors of any network, traced from its slow points.

The curve is defined in `slow_spaces`, followed in `curves`, and described, with its drift and its verdict, in `lines`.
"""

from typing import Any

import jax
import numpy as np

from jaxfp import arguments, dynamics
from jaxfp.analysis import curves, lines, slow_spaces
from jaxfp.analysis.lines import Line
from jaxfp.types import Array, Kind, Params, StepFn

_SLOW = 0.01  # extent of the points over slowest transverse time: the default of max_speed
_N_STARTS = 16  # slow points tried


def trace_line(
    step_fn: StepFn,
    params: Params,
    hidden: Array,
    inputs: Array | None = None,
    *,
    kind: Kind = "map",
    dt: float = 1.0,
    n_points: int = 65,
    step: float | None = None,
    max_speed: float | None = None,
    beyond: float = 0.0,
    toward: Array | None = None,
    max_samples: int = 2000,
) -> Line:
    """Trace the slow line or ring that slow points lie along.

    A host function: NumPy in, NumPy out, float64 whatever the caller's x64 setting. Each step takes dense algebra:
    seconds at 128 units, half a minute at 512.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands, in the precision that the network has: float32 weights can hold a
        continuum to float32 only.
      hidden: (n_given, n_hidden), slow points near the line, e.g. of find_fixed_points(slow_tolerance=). The slowest
        begins the trace, which ends where no more of them lie ahead.
      inputs: (n_inputs,) or None, held constant.
      kind: "map" or "flow".
      dt: duration of one step of a map, in the unit wanted for timescales; unused for a flow.
      n_points: of the line.
      step: longest step of the trace; by default 1/32 of the extent of the points. Two passes of one curve that run
        nearer than a tenth of it beside each other may be taken for one.
      max_speed: ||r|| at which the trace ends; by default twice that of the fastest point given, or 1/100 of their
        extent in the time of the slowest transverse mode, whichever is more.
      beyond: how far the trace goes past the last of the points, activation units.
      toward: (n_hidden,) direction in which theta grows, e.g. of the readout; by default the largest component of the
        way from one end to the other grows. A ring turns so that it does at its first point.
      max_samples: steps of the trace either way, and places where the drift is looked at.

    Returns:
      Line.

    Raises:
      ValueError: if shapes do not fit, a number is out of range, or anything is not finite.

    Example:
      >>> line = trace_line(lambda w, h, u: w @ h, np.array([[1.0, 1.0], [0.0, 0.5]]), np.array([[0.0, 0.0], [2.0, 0]]))
      >>> line.verdict, line.length, line.left[0].round(6).tolist()
      ('continuous', 2.0, [1.0, 2.0])

    Source: Maas & Pope (1992), Combustion and Flame 88:239, where the line passes; Mante et al. (2013), Nature 503:78,
      and Maheswaranathan et al. (2019), NeurIPS, arXiv:1906.10720, line attractors of trained networks.
    """
    points, drive, direction = check_points(step_fn, params, hidden, inputs, toward)
    dynamics.check_kind(kind)
    arguments.check_number("dt", dt, positive=True)
    arguments.check_count("n_points", n_points)
    if n_points < 3:
        raise ValueError(f"n_points must be 3 or more, got {n_points}.")
    arguments.check_count("max_samples", max_samples)
    arguments.check_number("beyond", beyond)
    for name, value in (("step", step), ("max_speed", max_speed)):
        if value is not None:
            arguments.check_number(name, value, positive=True)
    with jax.enable_x64(True):
        field = slow_spaces.field_of(step_fn, params, drive, kind)
        eps = slow_spaces.precision_of(step_fn, params, points[0], drive)
        extent = 2 * float(np.linalg.norm(points - points.mean(0), axis=1).max()) or 2 * beyond
        start = slowest_place(field, points, extent, 1)
        if start is None:
            return lines.nothing(points.shape[1], ("lost", "lost"), drive, kind)
        if max_speed is None:
            rates = np.sort(np.abs(np.linalg.eigvals(start.jacobian)))
            fastest = max(float(np.linalg.norm(field(h)[0])) for h in points)
            max_speed = max(2 * fastest, _SLOW * extent * (rates[1] if len(rates) > 1 else 1.0))
        bounds = curves.Bounds(points, beyond, step or extent / 32, max_speed, max_samples, extent)
        curve = curves.follow(field, start, bounds)
        if not curve.arc_length[-1]:
            return lines.nothing(points.shape[1], curve.ends, drive, kind)
        curve = _oriented(curve, direction)
        return lines.describe(field, curve, n_points, eps, dt, kind, max_samples)._replace(inputs=drive)


def check_points(
    step_fn: StepFn, params: Params, hidden: Any, inputs: Any, toward: Any
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """What traces of lines and of sheets are given.

    Args:
      step_fn: what the caller gave, to be a step function.
      params: to be a pytree of finite numbers.
      hidden: to be (n_given, n_hidden).
      inputs: to be (n_inputs,) or None.
      toward: to be (n_hidden,) or None.

    Returns:
      hidden, inputs and toward, float64.

    Raises:
      ValueError: if they are not.

    Example:
      >>> check_points(len, None, np.ones((2, 3)), [0.5], None)[1:]
      (array([0.5]), None)
    """
    arguments.check_host(params, hidden, inputs)
    arguments.check_step(step_fn)
    arguments.check_params(params)
    arguments.check_finite("params", params)
    points = arguments.as_numpy("hidden", hidden, "(n_given, n_hidden)", floating=True).astype(np.float64)
    if points.ndim != 2 or not points.size:
        raise ValueError(f"hidden must be (n_given, n_hidden), at least one, got {points.shape}.")
    arguments.check_finite("hidden", points)
    drive, direction = None, None
    if inputs is not None:
        drive = arguments.as_numpy("inputs", inputs, "(n_inputs,)").astype(np.float64)
        if drive.ndim != 1:
            raise ValueError(f"inputs must be (n_inputs,), one for all points, got {drive.shape}.")
        arguments.check_finite("inputs", drive)
    if toward is not None:
        direction = arguments.as_numpy("toward", toward, "(n_hidden,)").astype(np.float64)
        if direction.shape != points.shape[1:]:
            raise ValueError(f"toward must be ({points.shape[1]},), got {direction.shape}.")
        arguments.check_finite("toward", direction)
    return points, drive, direction


def slowest_place(field: slow_spaces.Field, points: np.ndarray, extent: float, m: int) -> slow_spaces.Place | None:
    """The slowest of given points that a manifold of m slow modes passes by, on the manifold.

    Args:
      field: see `slow_spaces.field_of`.
      points: (n_given, n_hidden).
      extent: how far away it may pass, activation units.
      m: dimensions of the manifold.

    Returns:
      Place, or None.

    Example:
      >>> jacobian = np.diag([0.0, -0.5])
      >>> slowest_place(lambda h: (jacobian @ h, jacobian), np.array([[3.0, 0.1]]), 1.0, 1).hidden
      array([3., 0.])
    """
    speeds = np.array([np.linalg.norm(field(h)[0]) for h in points])
    for row in np.argsort(speeds, kind="stable")[:_N_STARTS]:
        space = slow_spaces.leading(field(points[row])[1], m)
        if not space.found:
            continue
        place = slow_spaces.correct(field, points[row], space.right, space, max(extent, 1e-9), 1e-6 * extent)
        if place.found:
            return place
    return None


def _oriented(curve: curves.Curve, toward: np.ndarray | None) -> curves.Curve:
    way = curve.tangent[0] if curve.closed else curve.hidden[-1] - curve.hidden[0]
    grows = way @ toward if toward is not None else way[np.abs(way).argmax()]
    if grows >= 0:
        return curve
    along = curve.arc_length[-1] - curve.arc_length[::-1]
    return curve._replace(
        hidden=curve.hidden[::-1], tangent=-curve.tangent[::-1], arc_length=along, places=curve.places[::-1],
        ends=curve.ends[::-1],
    )  # fmt: skip
