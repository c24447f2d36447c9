"""A slow curve followed both ways from one of its states: predict along the tangent, correct across it.

From h with tangent t and curvature c a step of length a predicts h + a t + a^2/2 c, and `slow_spaces.correct` puts it
back on the manifold in the plane across the predicted tangent. Where the state drifts the slow mode is not quite the
tangent: by how much the last chord was off the mean of its two modes is added to the next. A step is believed if what
was corrected is no more than a tenth of it and the tangent turns by less than 26 degrees; else it is halved. The curve
ends

    "points"    where none of the given points lies ahead, within 60 degrees of the tangent, any more
    "speed"     where ||r|| exceeds a bound
    "lost"      where no step, however short, is believed: the slow mode meets another one, the curve folds
    "samples"   after as many steps as are allowed
    "closed"    where it meets its beginning, to 1e-6 of the extent of the given points

The length of an arc between two states is that of the circle through them, chord (x / sin x) with x half the turn.
"""

from typing import NamedTuple

import numpy as np

from jaxfp.analysis import slow_spaces
from jaxfp.analysis.slow_spaces import Field, Place

_BELIEVED = 0.1  # correction over the length of a step
_EASY = 0.01  # ... after which the next is twice as long
_MIN_COSINE = 0.9
_SHORTEST = 1e-3  # of the longest step
_SAME = 1e-6  # of the extent: a curve that comes back this near is closed


class Bounds(NamedTuple):
    """How far, and how, a curve is followed.

    Attributes:
      points: (n_given, n_hidden) the curve ends where none of them lies ahead.
      beyond: how much further it goes, activation units.
      step: longest step, activation units.
      max_speed: largest ||r||.
      max_samples: steps either way.
      extent: of the points, activation units.
    """

    points: np.ndarray
    beyond: float
    step: float
    max_speed: float
    max_samples: int
    extent: float


class Curve(NamedTuple):
    """States along a slow curve, as unevenly as they were found.

    Attributes:
      hidden: (n_samples, n_hidden); of a closed curve the last is the first again.
      tangent: (n_samples, n_hidden) unit, the slow right mode.
      arc_length: (n_samples,) from 0.
      places: n_samples of them; see `slow_spaces.Place`.
      closed: whether it meets its beginning.
      ends: why it ends, at its first and at its last sample.
    """

    hidden: np.ndarray
    tangent: np.ndarray
    arc_length: np.ndarray
    places: list[Place]
    closed: bool
    ends: tuple[str, str]


def arc(first: np.ndarray, last: np.ndarray, tangent: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Length of the circular arcs between states with given tangents.

    Args:
      first: (..., n_hidden).
      last: (..., n_hidden).
      tangent: (..., n_hidden) unit, at the first.
      other: (..., n_hidden) unit, at the last.

    Returns:
      (...,), activation units.

    Example:
      >>> bool(np.isclose(arc(np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.eye(2)[1], -np.eye(2)[0]), np.pi / 2))
      True
    """
    chord = np.linalg.norm(last - first, axis=-1)
    half = np.arctan2(np.linalg.norm(other - tangent, axis=-1), np.linalg.norm(other + tangent, axis=-1))
    return chord / np.sinc(half / np.pi)


def follow(field: Field, start: Place, bounds: Bounds) -> Curve:
    """Follow the curve through a state both ways.

    Args:
      field: see `slow_spaces.field_of`.
      start: on the curve, of one slow mode.
      bounds: see `Bounds`.

    Returns:
      Curve, begun at its end against the tangent of start; at start, if it is closed.

    Example:
      >>> jacobian = np.diag([0.0, -0.5])
      >>> field = lambda h: (jacobian @ h, jacobian)
      >>> start = Place(np.zeros(2), np.zeros(2), jacobian, slow_spaces.leading(jacobian, 1), 0.0, True)
      >>> given = np.array([[-1.0, 0.0], [2.0, 0.0]])
      >>> curve = follow(field, start, Bounds(given, 0.0, 0.5, 1.0, 99, 3.0))
      >>> float(curve.arc_length[-1]), curve.ends
      (3.0, ('points', 'points'))
    """
    onward, closed, last = _one_way(field, start, 1.0, bounds)
    back, first = [(start, start.space.right[:, 0])], "closed"
    if not closed:
        back, _, first = _one_way(field, start, -1.0, bounds)
    samples = [(place, -tangent) for place, tangent in back[:0:-1]] + onward
    hidden, tangent = np.stack([p.hidden for p, _ in samples]), np.stack([t for _, t in samples])
    pieces = arc(hidden[:-1], hidden[1:], tangent[:-1], tangent[1:])
    along = np.concatenate([[0.0], np.cumsum(pieces)])
    return Curve(hidden, tangent, along, [p for p, _ in samples], closed, (first, last))


def _one_way(
    field: Field, start: Place, way: float, bounds: Bounds
) -> tuple[list[tuple[Place, np.ndarray]], bool, str]:
    """Samples with their tangents, from start on; whether they come back to it; and why they end."""
    place, tangent, bend = start, way * start.space.right[:, 0], np.zeros_like(start.hidden)
    lag = np.zeros_like(bend)
    samples = [(place, tangent)]
    gone, limit, step, why = 0.0, bounds.beyond, bounds.step / 8, "lost"  # the bend is not known yet
    for _ in range(bounds.max_samples):
        ahead = _ahead(bounds, place.hidden, tangent)
        limit = gone + ahead + bounds.beyond if ahead else limit
        if limit - gone <= 1e-9 * bounds.extent:
            return samples, False, "points"
        closing = _closing(field, start, samples, step, bend, bounds) if way > 0 and len(samples) > 8 else None
        if closing is not None:
            return [*samples, closing], True, "closed"
        step = min(step, limit - gone)
        new = None
        while step >= _SHORTEST * min(bounds.step, limit - gone):
            new, why = _stepped(field, place, tangent + lag, bend, step, bounds)
            if new is not None:
                break
            step /= 2
        if new is None:
            return samples, False, why
        turned = _towards(new.space.right[:, 0], tangent)
        length = float(arc(place.hidden, new.hidden, tangent, turned))
        step = min(2 * step, bounds.step) if new.correction <= _EASY * step else step
        lag = _unit(new.hidden - place.hidden) - _unit(tangent + turned)
        place, tangent, bend, gone = new, turned, (turned - tangent) / length, gone + length
        samples.append((place, tangent))
    return samples, False, "samples"


def _stepped(
    field: Field, place: Place, tangent: np.ndarray, bend: np.ndarray, step: float, bounds: Bounds
) -> tuple[Place | None, str]:
    """The next state if it is believed, else None and why not."""
    across = _unit(tangent + step * bend)[:, None]
    predicted = place.hidden + step * tangent + step**2 / 2 * bend
    new = slow_spaces.correct(field, predicted, across, place.space, _BELIEVED * step, 1e-4 * step)
    if not new.found or abs(new.space.right[:, 0] @ tangent) < _MIN_COSINE:
        return None, "lost"
    if np.linalg.norm(new.residual) > bounds.max_speed:
        return None, "speed"
    return new, ""


def _ahead(bounds: Bounds, hidden: np.ndarray, tangent: np.ndarray) -> float:
    """How far ahead the last of the given points lies, within 60 degrees of the tangent; 0 if none does."""
    away = bounds.points - hidden
    along = away @ tangent
    inside = (along > 1e-9 * bounds.extent) & (np.square(away).sum(1) <= 4 * along**2)
    return float(along[inside].max(initial=0.0))


def _closing(
    field: Field, start: Place, samples: list[tuple[Place, np.ndarray]], step: float, bend: np.ndarray, bounds: Bounds
) -> tuple[Place, np.ndarray] | None:
    """The first sample again, if the next step ends there."""
    place, tangent = samples[-1]
    begin = samples[0][1]
    away = start.hidden - place.hidden
    along = float(away @ tangent)
    if not (0 < along <= 1.5 * step and np.linalg.norm(away) <= 1.2 * along and begin @ tangent >= _MIN_COSINE):
        return None
    predicted = place.hidden + along * tangent + along**2 / 2 * bend
    predicted = predicted + begin * (begin @ (start.hidden - predicted))
    there = slow_spaces.correct(field, predicted, begin[:, None], place.space, 0.2 * along, 1e-4 * along)
    if not there.found or np.linalg.norm(there.hidden - start.hidden) > _SAME * bounds.extent:
        return None
    return start, begin


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _towards(vector: np.ndarray, other: np.ndarray) -> np.ndarray:
    return vector if vector @ other >= 0 else -vector
