"""A slow line as an object: laid out evenly by arc length, with its modes, its drift, and what it is.

With v(s) the slow right mode of rate mu and d(s) = t . r the drift, the tangent t follows from dr/dh t = d' t + d t',

    (dr/dh - mu) (t - v) = d v'    to first order in the drift

so that tangent and mode agree where nothing drifts, and how much they differ elsewhere is known. Curvature is ||t'||.

Verdicts. "continuous": the drift is nowhere more than rounding leaves of it, in the precision that the network is given
in. "none": no line: at the largest drift a state crosses it in less than ten times the time of the slowest other mode.
"chain": two fixed points or more along the line. "slow": anything else.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import CubicHermiteSpline, CubicSpline

from jaxfp.analysis import curves, slow_spaces
from jaxfp.analysis.drift import Drift, Zeros, find_zeros, sample
from jaxfp.analysis.slow_spaces import Field, Place
from jaxfp.types import Kind

_SEPARATION = 10.0


class Line(NamedTuple):
    """A slow line or ring; leading axis n_points, evenly spaced by arc length. Empty where there is none to trace.

    Attributes:
      hidden: (n_points, n_hidden).
      arc_length: (n_points,) from 0, activation units.
      length: of the whole, once around for a ring.
      theta: (n_points,) -1 to 1 along a line, an angle from 0 to below 2 pi along a ring.
      closed: whether it is a ring.
      ends: (2,) why the trace ends there, see `curves`.
      tangent: (n_points, n_hidden) unit, towards larger theta.
      curvature: (n_points,) 1 / activation units.
      drift: (n_points,) residual along the tangent, activation per step (map) or per unit of time (flow).
      across: (n_points,) norm of the residual across the tangent.
      rounding: (n_points,) the least drift that means anything, for the precision the network is given in.
      eigenvalue: (n_points,) of dF/dh, of the mode along the line; real.
      timescale: (n_points,) -dt / ln|lambda| of a map, -1 / lambda of a flow; negative where it grows.
      transverse_eigenvalue: (n_points,) complex, of the slowest or most unstable other mode; NaN if there is none.
      transverse_timescale: (n_points,) of that one.
      right: (n_points, n_hidden) right mode along the line, unit, in the direction of the tangent.
      left: (n_points, n_hidden) its left mode, left . right = 1.
      alignment: (n_points,) cosine of tangent and right mode.
      zeros: fixed points along the line, of which a continuum has none.
      crossing_time: length / largest drift, the time no crossing can go below; infinite without drift.
      separation: crossing_time over the largest transverse time (of a map: at least one step).
      verdict: "continuous", "chain", "slow" or "none".
      inputs: (n_inputs,) or None, as given.
      kind: "map" or "flow".
    """

    hidden: np.ndarray
    arc_length: np.ndarray
    length: float
    theta: np.ndarray
    closed: bool
    ends: tuple[str, str]
    tangent: np.ndarray
    curvature: np.ndarray
    drift: np.ndarray
    across: np.ndarray
    rounding: np.ndarray
    eigenvalue: np.ndarray
    timescale: np.ndarray
    transverse_eigenvalue: np.ndarray
    transverse_timescale: np.ndarray
    right: np.ndarray
    left: np.ndarray
    alignment: np.ndarray
    zeros: Zeros
    crossing_time: float
    separation: float
    verdict: str
    inputs: np.ndarray | None
    kind: Kind

    def summary(self) -> str:
        """One sentence.

        Returns:
          What the verdict says, with its numbers.

        Example:
          >>> from jaxfp import trace_line
          >>> line = trace_line(lambda p, h, u: p * h, np.array([1.0, 0.5]), np.array([[-1.0, 0.0], [1.0, 0.0]]))
          >>> line.summary()
          'line of length 2: continuous within resolution'
        """
        what = f"{'ring' if self.closed else 'line'} of length {self.length:.3g}"
        n_zeros, at = len(self.zeros.arc_length), self.zeros.arc_length
        if self.verdict == "continuous":
            return f"{what}: continuous within resolution"
        if self.verdict == "none":
            return "no line"
        if self.verdict == "chain":
            stable = int((self.zeros.rate < 0).sum())
            gaps = np.diff(np.append(at, at[0] + self.length) if self.closed else at)
            spacing = f"spacing {np.median(gaps):.3g}" + ("" if np.ptp(gaps) < 0.01 * gaps.max() else " (median)")
            return f"{what}: chain of {n_zeros} fixed points with {spacing}, {stable} of them stable along it"
        time = f"no crossing in less than {self.crossing_time:.3g}"
        return f"{what}: slow, with {n_zeros} fixed point{'' if n_zeros == 1 else 's'}, {time}"


class _Course:
    """A curve between its samples: the state at an arc length is that of the spline, corrected across its tangent."""

    def __init__(self, field: Field, places: list[Place], along: np.ndarray, closed: bool) -> None:
        self.field, self.places, self.along = field, places, along
        self.hidden = np.stack([place.hidden for place in places])
        periodic: Any = "periodic" if closed else "not-a-knot"
        right = np.stack([place.space.right[:, 0] for place in places])
        self.slope = CubicSpline(along, right, bc_type=periodic).derivative()
        self.tangent = np.stack([_tangent(p, v) for p, v in zip(places, self.slope(along), strict=True)])
        self.way = CubicSpline(along, self.tangent, bc_type=periodic)
        self.bend = self.way.derivative()
        self.curve = CubicHermiteSpline(along, self.hidden, self.tangent)

    def at(self, arc_length: float) -> Place:
        """The place there, its slow mode in the direction of the line."""
        way = self.way(arc_length)
        way, length = way / np.linalg.norm(way), float(self.along[-1])
        near = self.places[min(int(np.searchsorted(self.along, arc_length)), len(self.places) - 1)]
        place = slow_spaces.correct(
            self.field, self.curve(arc_length), way[:, None], near.space, 0.1 * length, 1e-6 * length, tangent=True
        )
        return _directed(place if place.found else near, way)

    def drift_at(self, arc_length: float, eps: float) -> Drift:
        return _drift(arc_length, self.at(arc_length), eps)


def _fastest(samples: Drift) -> float:
    """The largest drift, between samples that of the cubic."""
    cubic = CubicHermiteSpline(samples.arc_length, samples.value, samples.slope)
    between = samples.arc_length[:-1, None] + np.diff(samples.arc_length)[:, None] * np.linspace(0, 1, 9)
    return float(np.abs(cubic(between)).max())


def _directed(place: Place, way: np.ndarray) -> Place:
    """The place, with its slow mode towards a direction."""
    sign = 1.0 if place.space.right[:, 0] @ way >= 0 else -1.0
    return place._replace(space=place.space._replace(right=sign * place.space.right, left=sign * place.space.left))


def _drift(arc_length: float, place: Place, eps: float) -> Drift:
    value = float(place.space.left[0] @ place.residual)
    slope = float(place.space.rates[0, 0])
    return Drift(float(arc_length), value, slope, slow_spaces.rounding(place, eps), place.hidden)


def describe(
    field: Field, curve: curves.Curve, n_points: int, eps: float, dt: float, kind: Kind, max_samples: int
) -> Line:
    """Everything there is to say of a curve.

    Args:
      field: see `slow_spaces.field_of`.
      curve: see `curves.follow`.
      n_points: of the line.
      eps: relative precision of the network.
      dt: duration of one step of a map.
      kind: "map" or "flow".
      max_samples: places where the drift is looked at.

    Returns:
      Line, without inputs.

    Example:
      >>> jacobian = np.diag([0.0, -0.5])
      >>> ends = np.array([[0.0, 0.0], [2.0, 0.0]])
      >>> space = slow_spaces.leading(jacobian, 1)
      >>> places = [Place(h, jacobian @ h, jacobian, space, 0.0, True) for h in ends]
      >>> curve = curves.Curve(ends, np.eye(2)[[0, 0]], np.array([0.0, 2.0]), places, False, ("points", "points"))
      >>> describe(lambda h: (jacobian @ h, jacobian), curve, 5, 1e-16, 1.0, "map", 99).theta.tolist()
      [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    turned = [_directed(place, way) for place, way in zip(curve.places, curve.tangent, strict=True)]
    traced = _Course(field, turned, curve.arc_length, curve.closed)
    again = [traced.at(s) for s in curve.arc_length]
    if curve.closed:  # once around: the last is the first, to the last digit
        again[-1] = again[0]
    states = np.stack([place.hidden for place in again])
    along = np.append(0.0, np.cumsum(curves.arc(states[:-1], states[1:], traced.tangent[:-1], traced.tangent[1:])))
    course = _Course(field, again, along, curve.closed)

    even = np.linspace(0, along[-1], n_points + curve.closed)
    places = [course.at(s) for s in even]
    if curve.closed:
        places[-1] = places[0]
    hidden, residual = np.stack([p.hidden for p in places]), np.stack([p.residual for p in places])
    right, left = np.stack([p.space.right[:, 0] for p in places]), np.stack([p.space.left[0] for p in places])
    rates = np.array([p.space.rates[0, 0] for p in places])
    tangent = np.stack([_tangent(p, v) for p, v in zip(places, course.slope(even), strict=True)])
    # What rounding, or a tangent that is not quite that of the line, leaves of fast modes is not heard by the left one.
    values = (left * residual).sum(1) / (left * tangent).sum(1)
    known = [_drift(s, p, eps) for s, p in zip(even, places, strict=True)]
    samples = sample(lambda s: course.drift_at(s, eps), known, max_samples)
    zeros = find_zeros(field, lambda s: course.drift_at(s, eps), samples, curve.closed)

    transverse = np.array([slowest_other(p, kind) for p in places])
    times = timescale(transverse, dt, kind)
    length, fastest = float(even[-1]), _fastest(samples)
    still = bool((np.abs(samples.value) <= samples.rounding).all())
    crossing = np.inf if still else length / fastest * (dt if kind == "map" else 1.0)
    least = dt if kind == "map" else np.finfo(float).tiny
    separation = crossing / max(float(np.abs(times[np.isfinite(transverse)]).max(initial=0.0)), least)
    verdict = "none" if separation < _SEPARATION else "chain" if len(zeros.arc_length) > 1 else "slow"
    if still:
        verdict = "continuous"
    eigenvalue = rates + (kind == "map")
    own = slice(n_points)  # a ring's last is its first
    return Line(
        hidden=hidden[own],
        arc_length=even[own],
        length=length,
        theta=(2 * np.pi * even / length if curve.closed else 2 * even / length - 1)[own],
        closed=curve.closed,
        ends=curve.ends,
        tangent=tangent[own],
        curvature=np.linalg.norm(course.bend(even), axis=1)[own],
        drift=values[own],
        across=np.linalg.norm(residual - values[:, None] * tangent, axis=1)[own],
        rounding=np.array([drift.rounding for drift in known])[own],
        eigenvalue=eigenvalue[own],
        timescale=timescale(eigenvalue, dt, kind)[own],
        transverse_eigenvalue=transverse[own],
        transverse_timescale=times[own],
        right=right[own],
        left=left[own],
        alignment=(right * tangent).sum(1)[own],
        zeros=zeros,
        crossing_time=crossing,
        separation=separation,
        verdict=verdict,
        inputs=None,
        kind=kind,
    )


def nothing(n_hidden: int, ends: tuple[str, str], inputs: np.ndarray | None, kind: Kind) -> Line:
    """The line that is none.

    Args:
      n_hidden: units.
      ends: why there is none.
      inputs: (n_inputs,) or None.
      kind: "map" or "flow".

    Returns:
      Line without points, its verdict "none".

    Example:
      >>> nothing(2, ("lost", "lost"), None, "map").summary()
      'no line'
    """
    states, numbers = np.zeros((0, n_hidden)), np.zeros(0)
    zeros = Zeros(states, numbers, numbers, numbers)
    return Line(
        states, numbers, 0.0, numbers, False, ends, states, numbers, numbers, numbers, numbers, numbers, numbers,
        numbers.astype(complex), numbers, states, states, numbers, zeros, 0.0, 0.0, "none", inputs, kind,
    )  # fmt: skip


def timescale(eigenvalues: np.ndarray, dt: float, kind: Kind) -> np.ndarray:
    """-dt / ln|lambda| of a map, -1 / Re lambda of a flow.

    Args:
      eigenvalues: of dF/dh, of any shape.
      dt: duration of one step of a map.
      kind: "map" or "flow".

    Returns:
      The same shape; infinite at the border of stability, negative beyond.

    Example:
      >>> timescale(np.exp([-1 / 50, 0.0]), 1.0, "map").round(6).tolist()
      [50.0, inf]
    """
    with np.errstate(divide="ignore"):  # ln 0 and 1/0 are meant: a mode that dies at once, one that never does
        growth = np.log(np.abs(eigenvalues)) / dt if kind == "map" else np.real(eigenvalues)
        return np.where(growth == 0, np.inf, -1 / growth)


def slowest_other(place: Place, kind: Kind) -> complex:
    """The slowest or most unstable eigenvalue of dF/dh but those of the slow modes.

    Args:
      place: see `slow_spaces.Place`.
      kind: "map" or "flow".

    Returns:
      The eigenvalue; NaN if there is none.

    Example:
      >>> jacobian = np.diag([0.0, -0.5, -0.75])
      >>> space = slow_spaces.leading(jacobian, 1)
      >>> slowest_other(Place(np.zeros(3), np.zeros(3), jacobian, space, 0.0, True), "map")
      (0.5+0j)
    """
    rates = np.linalg.eigvals(place.jacobian)
    for rate in np.linalg.eigvals(place.space.rates):
        rates = np.delete(rates, np.abs(rates - rate).argmin())
    if not len(rates):
        return complex(np.nan)
    values = rates + (kind == "map")
    return complex(values[(np.abs(values) if kind == "map" else values.real).argmax()])


def _tangent(place: Place, slope: np.ndarray) -> np.ndarray:
    """Of the curve, from its slow right mode and the derivative of that by arc length."""
    v, n = place.space.right[:, 0], len(slope)
    drifts = float(place.space.left[0] @ place.residual)
    shifted = place.jacobian - place.space.rates[0, 0] * np.eye(n)
    matrix = np.block([[shifted, v[:, None]], [v[None], np.zeros((1, 1))]])
    tangent = v + np.linalg.solve(matrix, np.append(drifts * slope, 0.0))[:n]
    return tangent / np.linalg.norm(tangent)
