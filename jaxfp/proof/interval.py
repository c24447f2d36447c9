"""Interval arithmetic on NumPy float64 arrays, rounded outward.

Every function takes intervals [lower, upper], elementwise, and returns an interval that holds every real value that its
operation takes on them. NaN at an end means that nothing is known. The model of rounding, and what is assumed:
  * + - * / are IEEE 754, rounded to nearest. A result x is widened to x -+ (2^-52 |x| + 1e-300), which is at least its
    neighbor, unless it is seen to be exact: the error of a sum by Knuth's TwoSum, products with 0 and +-1.
  * A dot product of n terms, in any order, with fused operations or without, errs by at most
    gamma_n |x|.|y|, gamma_n = n u / (1 - n u), u = 2^-53 (Higham 2002, section 3.1), and n 1e-300 for underflow.
  * Elementary functions of NumPy and SciPy err by at most ULPS units in the last place, or 1e-300: a test measures it.
    What is known of their range is used: tanh never leaves [-1, 1].
A matrix product is done in midpoint and radius: <A> <B> = A B +- (|A| rad B + rad A (|B| + rad B)) (Rump 1999).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

ULPS = 8  # the largest error measured is below 3
_EPS = 2.0**-52
_TINY = 1e-300
_LARGEST_PHASE = 1e6  # beyond it sine and cosine are only known to lie in [-1, 1]


class Interval(NamedTuple):
    """All real arrays between two float64 arrays.

    Attributes:
      lower: array; of bool where it bounds a truth value, False below True.
      upper: array of the same shape; the same object where the interval is a single number.
    """

    lower: np.ndarray
    upper: np.ndarray


def thin(x: Any) -> Interval:
    """The interval that holds `x` alone."""
    x = np.asarray(x)
    x = x if x.dtype == bool else x.astype(np.float64)
    return Interval(x, x)


def is_thin(x: Interval) -> bool:
    """Was it built from one array?"""
    return x.lower is x.upper


def ball(center: np.ndarray, radius: np.ndarray) -> Interval:
    """Everything within `radius` of `center` in the max-norm."""
    return Interval(down(center - radius), up(center + radius))


def middle(x: Interval) -> np.ndarray:
    """Numbers inside the interval, about the middle; 0 where it has no end."""
    if is_thin(x):
        return x.lower
    center = x.lower / 2 + x.upper / 2
    return np.where(np.isfinite(center), center, 0.0)


def magnitude(x: Interval) -> np.ndarray:
    """The largest |value|."""
    return np.abs(x.lower) if is_thin(x) else np.maximum(np.abs(x.lower), np.abs(x.upper))


def distance(x: Interval, point: np.ndarray) -> np.ndarray:
    """At least the largest |value - point|."""
    return up(np.maximum(np.abs(x.upper - point), np.abs(x.lower - point)))


def hull(*xs: Interval) -> Interval:
    """The smallest interval that holds all of them."""
    return Interval(_reduce(np.minimum, [x.lower for x in xs]), _reduce(np.maximum, [x.upper for x in xs]))


def neg(x: Interval) -> Interval:
    """The opposite, -x."""
    return thin(-x.lower) if is_thin(x) else Interval(-x.upper, -x.lower)


def add(x: Interval, y: Interval) -> Interval:
    """The sum x + y."""
    return Interval(_sum(x.lower, y.lower, down), _sum(x.upper, y.upper, up))


def sub(x: Interval, y: Interval) -> Interval:
    """The difference x - y."""
    return Interval(_sum(x.lower, -y.upper, down), _sum(x.upper, -y.lower, up))


def mul(x: Interval, y: Interval) -> Interval:
    """The product x y; 0 times an infinite end is 0, since that end stands for finite numbers without bound."""
    ends = _corners(_product, x, y)
    exact = _is_unit(x) | _is_unit(y)
    return Interval(_rounded(_reduce(np.minimum, ends), down, exact), _rounded(_reduce(np.maximum, ends), up, exact))


def div(x: Interval, y: Interval) -> Interval:
    """The quotient x / y; unbounded where y may be 0, but unknown where x is unknown."""
    zero = (y.lower <= 0) & (y.upper >= 0)
    ends = _corners(np.divide, x, Interval(np.where(zero, 1.0, y.lower), np.where(zero, 1.0, y.upper)))
    lower, upper = down(_reduce(np.minimum, ends)), up(_reduce(np.maximum, ends))
    zero = zero & ~np.isnan(lower) & ~np.isnan(upper)
    return Interval(np.where(zero, -np.inf, lower), np.where(zero, np.inf, upper))


def absolute(x: Interval) -> Interval:
    """The absolute value."""
    low = np.where((x.lower <= 0) & (x.upper >= 0), 0.0, np.minimum(np.abs(x.lower), np.abs(x.upper)))
    return Interval(low, magnitude(x))


def integer_pow(x: Interval, y: int) -> Interval:
    """x^y for an integer y."""
    if y < 0:
        return div(thin(1.0), integer_pow(x, -y))
    if y == 0:
        return thin(np.ones(np.shape(x.lower)))
    if y == 1:
        return x
    if y % 2 == 0:
        return monotone(lambda a: a**y, absolute(x), 0.0, np.inf)
    return monotone(lambda a: a**y, x)


def power(x: Interval, y: Interval) -> Interval:
    """x^y; unknown where x may be negative, unless y is one integer."""
    first = float(y.lower.flat[0]) if y.lower.size else np.nan
    if first.is_integer() and abs(first) < 2**31 and (y.lower == first).all() and (y.upper == first).all():
        return integer_pow(x, int(first))
    positive = x.lower > 0
    ends = _corners(np.power, Interval(np.where(positive, x.lower, 1.0), np.where(positive, x.upper, 1.0)), y)
    lower, upper = _widened(_reduce(np.minimum, ends), _reduce(np.maximum, ends))
    return Interval(np.where(positive, np.maximum(lower, 0.0), np.nan), np.where(positive, upper, np.nan))


def monotone(
    function: Callable[[np.ndarray], np.ndarray], x: Interval, lowest: float = -np.inf, highest: float = np.inf
) -> Interval:
    """f(x) of an increasing elementary function with values in [lowest, highest]."""
    lower = function(x.lower)
    lower, upper = _widened(lower, lower if is_thin(x) else function(x.upper))
    return Interval(np.clip(lower, lowest, highest), np.clip(upper, lowest, highest))


def unimodal(function: Callable[[np.ndarray], np.ndarray], x: Interval) -> Interval:
    """f(x) of an even function that falls from its largest value at 0 to 0."""
    far, near = magnitude(x), absolute(x).lower
    lower, upper = _widened(function(far), function(near))
    return Interval(np.maximum(lower, 0.0), np.minimum(upper, function(np.zeros(()))))


def tanh_slope(x: Interval) -> Interval:
    """The derivative of tanh, 1 / cosh(x)^2."""
    return unimodal(lambda a: 1 / np.cosh(np.minimum(a, 400.0)) ** 2, x)


def logistic_slope(x: Interval) -> Interval:
    """The derivative of the logistic function, 1 / (4 cosh(x / 2)^2)."""
    return unimodal(lambda a: 0.25 / np.cosh(np.minimum(a, 800.0) / 2) ** 2, x)


def cosine(x: Interval) -> Interval:
    """The cosine."""
    lower, upper = _widened(np.minimum(np.cos(x.lower), np.cos(x.upper)), np.maximum(np.cos(x.lower), np.cos(x.upper)))
    # A multiple of pi may lie inside: judged with room to spare, since to say so falsely only widens.
    room = 1e-9
    first, last = np.ceil(x.lower / np.pi - room), np.floor(x.upper / np.pi + room)
    far = magnitude(x) > _LARGEST_PHASE
    even = 2 * np.ceil(first / 2) <= last
    odd = 2 * np.ceil((first - 1) / 2) + 1 <= last
    return Interval(
        np.where(odd | far, -1.0, np.maximum(lower, -1.0)), np.where(even | far, 1.0, np.minimum(upper, 1.0))
    )


def sine(x: Interval) -> Interval:
    """The sine, cos(x - pi / 2)."""
    half_pi = Interval(np.asarray(np.pi / 2), np.asarray(np.nextafter(np.pi / 2, 2)))  # pi / 2 is between the two
    return cosine(sub(x, half_pi))


def total(x: Interval, axes: tuple[int, ...]) -> Interval:
    """The sum over some axes."""
    n = int(np.prod([x.lower.shape[axis] for axis in axes]))
    error = up(_gamma(n) * up(magnitude(x).sum(axes) * (1 + 2 * n * _EPS)))
    return Interval(down(x.lower.sum(axes) - error), up(x.upper.sum(axes) + error))


def running_total(x: Interval, axis: int) -> Interval:
    """The sums of the first elements along an axis."""
    n = x.lower.shape[axis]
    error = up(_gamma(n) * up(magnitude(x).cumsum(axis) * (1 + 2 * n * _EPS)))
    return Interval(down(x.lower.cumsum(axis) - error), up(x.upper.cumsum(axis) + error))


def matmul(x: Interval, y: Interval) -> Interval:
    """Matrix products over the last two axes, broadcast over those before."""
    (a, wide_a), (b, wide_b) = _mid_rad(x), _mid_rad(y)
    endless_a, endless_b = ~np.isfinite(wide_a), ~np.isfinite(wide_b)
    unknown_a, unknown_b = np.isnan(wide_a), np.isnan(wide_b)
    wide_a, wide_b = np.where(endless_a, 0.0, wide_a), np.where(endless_b, 0.0, wide_b)
    n, size_a, size_b = a.shape[-1], np.abs(a), np.abs(b)
    slack = 1 + (n + 8) * _EPS  # of the rounding of the radius itself
    radius = size_a @ (wide_b + _gamma(n) * slack * size_b)
    if wide_a.any():
        radius = radius + wide_a @ (size_b + wide_b)
    radius = radius * slack + n * _TINY
    if endless_a.any() or endless_b.any():
        some_a, some_b = magnitude(x) != 0, magnitude(y) != 0
        radius = np.where(endless_a @ some_b | some_a @ endless_b, np.inf, radius)
        radius = np.where(unknown_a @ some_b | some_a @ unknown_b, np.nan, radius)
    product = a @ b
    return Interval(down(product - radius), up(product + radius))


def down(x: np.ndarray) -> np.ndarray:
    """A number below every real number that rounds to x."""
    return x - _ulp(x)


def up(x: np.ndarray) -> np.ndarray:
    """A number above every real number that rounds to x."""
    return x + _ulp(x)


def _ulp(x: np.ndarray) -> np.ndarray:
    """At least one unit in the last place of x."""
    size = np.abs(x)
    size *= _EPS
    size += _TINY
    return size


def _gamma(n: int) -> float:
    """Relative error of a sum of n products, rounded up."""
    return n * _EPS / 2 / (1 - n * _EPS / 2) * (1 + 4 * _EPS)


def _reduce(pick: Any, arrays: list[np.ndarray]) -> np.ndarray:
    result = arrays[0]
    for array in arrays[1:]:
        result = pick(result, array)
    return result


def _corners(operation: Any, x: Interval, y: Interval) -> list[np.ndarray]:
    """The operation on every pair of ends."""
    ends_x, ends_y = x[:1] if is_thin(x) else x, y[:1] if is_thin(y) else y
    return [operation(a, b) for a in ends_x for b in ends_y]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product = a * b
    lost = np.isnan(product)
    if lost.any():
        product = np.where(lost & ~np.isnan(a) & ~np.isnan(b), 0.0, product)
    return product


def _sum(a: np.ndarray, b: np.ndarray, outward: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    total = a + b
    part = total - a
    return _rounded(total, outward, (a - (total - part)) + (b - part) == 0)


def _rounded(x: np.ndarray, outward: Callable[[np.ndarray], np.ndarray], exact: np.ndarray) -> np.ndarray:
    return np.where(exact, x, outward(x)) if exact.any() else outward(x)


def _is_unit(x: Interval) -> np.ndarray:
    """Is the interval 0, 1 or -1, so that products with it are exact?"""
    if not is_thin(x):
        return (x.lower == x.upper) & ((x.lower == 0) | (np.abs(x.lower) == 1))
    return (x.lower == 0) | (np.abs(x.lower) == 1)


def _widened(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What functions that err by ULPS may have meant."""
    return lower - (ULPS * _EPS * np.abs(lower) + _TINY), upper + (ULPS * _EPS * np.abs(upper) + _TINY)


def _mid_rad(x: Interval) -> tuple[np.ndarray, np.ndarray]:
    """A midpoint and a radius; infinite where the interval has no end, NaN where it is unknown."""
    if is_thin(x) and np.isfinite(x.lower).all():
        return x.lower, np.zeros(x.lower.shape)
    center = middle(x)
    return center, distance(x, center)
