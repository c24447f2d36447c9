"""What happens along a slow line: where the drift changes its sign, and whether there is any drift to speak of.

The drift d(s) at arc length s has the slope d' = the rate of the slow mode, to first order in d. Between two samples d
is taken for the cubic with their values and slopes, and believed once a third place between them, off the middle,
agrees to 5 % of the largest of the three; else the interval is cut there. So a drift that vanishes at every sample is
seen.

A sample is significant where |d| exceeds what rounding leaves. A change of sign between two significant samples holds a
zero, which is bisected and taken to the last digit by Newton's method on the whole residual; so is the end of an open
line at which the drift vanishes. A zero without a change of sign, where two points are about to be born, is none.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from jaxfp.analysis.slow_spaces import Field

_AGREES = 0.05
_OFF_THE_MIDDLE = 0.38
_FINEST = 1e-5  # of the length: intervals are not cut further
_N_NEWTON = 12


class Drift(NamedTuple):
    """The drift at one arc length; or, with a leading axis, at many.

    Attributes:
      arc_length: scalar.
      value: drift, activation per step or per unit of time.
      slope: of the drift along the line, per step or per unit of time.
      rounding: the least drift that means anything.
      hidden: (n_hidden,).
    """

    arc_length: Any
    value: Any
    slope: Any
    rounding: Any
    hidden: np.ndarray


class Zeros(NamedTuple):
    """Fixed points along a line, in its order.

    Attributes:
      hidden: (n_zeros, n_hidden).
      arc_length: (n_zeros,).
      rate: (n_zeros,) slope of the drift there: negative where the point is stable along the line.
      error: (n_zeros,) how far along the line it may lie from there, for rounding.
    """

    hidden: np.ndarray
    arc_length: np.ndarray
    rate: np.ndarray
    error: np.ndarray


def sample(drift_at: Callable[[float], Drift], known: list[Drift], max_samples: int) -> Drift:
    """Sample the drift until the cubic through two neighbours says what is between them.

    Args:
      drift_at: the drift at an arc length.
      known: samples, in the order of the line.
      max_samples: where to stop.

    Returns:
      Drift at all samples, in the order of the line.

    Example:
      >>> def wave(s):
      ...     return Drift(s, np.sin(9 * s), 9 * np.cos(9 * s), 0.0, np.zeros(1))
      >>> len(sample(wave, [wave(0.0), wave(np.pi)], 999).value) > 18
      True
    """
    length = known[-1].arc_length - known[0].arc_length
    found, waiting = list(known), list(itertools.pairwise(known))
    while waiting and len(found) < max_samples:
        first, last = waiting.pop(0)
        width = last.arc_length - first.arc_length
        if width <= _FINEST * length:
            continue
        here = drift_at(first.arc_length + _OFF_THE_MIDDLE * width)
        found.append(here)
        said, slope = _cubic(first, last, _OFF_THE_MIDDLE)
        size = max(abs(first.value), abs(last.value), abs(here.value))
        noise = 4 * max(first.rounding, last.rounding, here.rounding)
        allowed = max(_AGREES * size, noise)
        if not (abs(here.value - said) <= allowed and abs(here.slope - slope) * width <= 8 * allowed):
            waiting += [(first, here), (here, last)]
    found.sort(key=lambda drift: drift.arc_length)
    return Drift(*(np.stack([np.asarray(x) for x in column]) for column in zip(*found, strict=True)))


def _cubic(first: Drift, last: Drift, part: float) -> tuple[float, float]:
    """Value and slope between two samples."""
    width, t = last.arc_length - first.arc_length, part
    a, b = first.value, last.value
    p, q = first.slope * width, last.slope * width
    value = a * (1 + 2 * t) * (1 - t) ** 2 + p * t * (1 - t) ** 2 + b * t**2 * (3 - 2 * t) - q * t**2 * (1 - t)
    slope = 6 * (b - a) * t * (1 - t) + p * (1 - t) * (1 - 3 * t) + q * t * (3 * t - 2)
    return value, slope / width


def find_zeros(field: Field, drift_at: Callable[[float], Drift], samples: Drift, closed: bool) -> Zeros:
    """Fixed points along a line.

    Args:
      field: residual and its Jacobian, see `slow_spaces.field_of`.
      drift_at: the drift at an arc length.
      samples: see `sample`; of a closed line the last is the first again.
      closed: a ring.

    Returns:
      Zeros.

    Example:
      >>> def linear(s):
      ...     return Drift(s, 0.5 - s, -1.0, 1e-9, np.array([s]))
      >>> both = Drift(*(np.stack(x) for x in zip(linear(0.0), linear(2.0))))
      >>> find_zeros(lambda h: (0.5 - h, -np.eye(1)), linear, both, False).arc_length.tolist()
      [0.5]
    """
    significant = np.flatnonzero(np.abs(samples.value) > samples.rounding)
    brackets = [(int(a), int(b)) for a, b in itertools.pairwise(significant)]
    brackets = [(a, b) for a, b in brackets if samples.value[a] * samples.value[b] < 0]
    if closed and len(significant) > 1 and samples.value[significant[0]] * samples.value[significant[-1]] < 0:
        brackets.append((int(significant[-1]), int(significant[0])))  # through the seam
    found = []
    whole = float(samples.arc_length[-1] - samples.arc_length[0])
    for a, b in brackets:
        if b < a:  # what lies between, through the seam, is not significant
            found.append(_polished(field, _pick(samples, (a + 1) % len(samples.value)), whole))
            continue
        low, high = samples.arc_length[[a, b]]
        if drift_at(low).value * drift_at(high).value > 0:  # no line there: what is found depends on where from
            continue
        root = optimize.brentq(lambda s: drift_at(s).value, low, high, xtol=1e-12 * whole)
        found.append(_polished(field, drift_at(root), high - low))
    if not closed and len(significant):
        for end, inner in ((0, significant[0]), (len(samples.value) - 1, significant[-1])):
            reach = abs(samples.arc_length[inner] - samples.arc_length[end])
            here = _pick(samples, end)
            if reach > 0 and abs(here.slope) * reach > here.rounding:
                zero = _polished(field, here, reach)
                away = np.linalg.norm(zero[0] - here.hidden)
                if away <= 1e-6 * whole:
                    found.append(zero)
    found.sort(key=lambda zero: zero[1])
    n = samples.hidden.shape[1]
    hidden, *rest = zip(*found, strict=True) if found else ((), (), (), ())
    return Zeros(np.array(hidden).reshape(-1, n), *(np.array(column, float) for column in rest))


def _pick(samples: Drift, row: int) -> Drift:
    return Drift(*(column[row] for column in samples))


def _polished(field: Field, here: Drift, reach: float) -> tuple[np.ndarray, float, float, float]:
    """Newton's method from a place on the line, as long as it stays near: (hidden, arc_length, rate, error)."""
    hidden = here.hidden
    residual, jacobian = field(hidden)
    for _ in range(_N_NEWTON):
        try:
            new = hidden - np.linalg.solve(jacobian, residual)
        except np.linalg.LinAlgError:
            break
        if not np.isfinite(new).all() or np.linalg.norm(new - here.hidden) > reach:
            break
        new_residual, new_jacobian = field(new)
        if np.linalg.norm(new_residual) >= np.linalg.norm(residual):
            break
        hidden, residual, jacobian = new, new_residual, new_jacobian
    error = here.rounding / max(abs(here.slope), np.finfo(float).tiny)
    return hidden, float(here.arc_length), float(here.slope), float(error)
