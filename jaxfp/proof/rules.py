"""The interval rule of each primitive: from enclosures of its operands to an enclosure of its output.

A rule takes the parameters of its equation and its operands, each an Interval or an exact array. Those in JUMPS take
`may_jump` first: whether the hull of what lies on both sides of an undecided comparison will do, or only NaN, unknown.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp.proof import interval
from jaxfp.proof.interval import Interval

Value = Interval | np.ndarray  # bounded, or exact
Rule = Callable[..., Any]
INTEGERS = "there is no interval rule for integers that depend on the state, which this step uses."


def as_interval(x: Value) -> Interval:
    """An exact value as the interval that holds it alone.

    Args:
      x: Interval or exact array.

    Returns:
      Interval.

    Example:
      >>> as_interval(np.ones(1)).upper.tolist()
      [1.0]
    """
    return x if isinstance(x, Interval) else interval.thin(x)


def _elementwise(function: Callable[..., Interval]) -> Rule:
    return lambda params, *xs: function(*(as_interval(x) for x in xs))


def _increasing(function: Any, lowest: float = -np.inf, highest: float = np.inf) -> Rule:
    return lambda params, x: interval.monotone(function, as_interval(x), lowest, highest)


def _ends(function: Callable[..., Any]) -> Rule:
    """What only moves numbers, or grows with every operand, is done to both ends; indices are exact."""

    def rule(params: Any, *xs: Value) -> Any:
        if all(not isinstance(x, Interval) or interval.is_thin(x) for x in xs):
            out = function(params, *(x.lower if isinstance(x, Interval) else x for x in xs))
            return jax.tree.map(interval.thin, out)
        lower = function(params, *(x.lower if isinstance(x, Interval) else x for x in xs))
        upper = function(params, *(x.upper if isinstance(x, Interval) else x for x in xs))
        if isinstance(lower, list):
            return [Interval(a, b) for a, b in zip(lower, upper, strict=True)]
        return Interval(lower, upper)

    return rule


def _broadcast_in_dim(params: Any, x: np.ndarray, *_: Any) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], np.shape(x), strict=True):
        shape[axis] = size
    return np.broadcast_to(np.reshape(x, shape), params["shape"])


def _slice(params: Any, x: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (None,) * np.ndim(x)
    limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*limit) for limit in limits)]


def _split(params: Any, x: np.ndarray) -> list[np.ndarray]:
    return np.split(x, np.cumsum(params["sizes"])[:-1], axis=params["axis"])


def _reduced(reduce: Any) -> Rule:
    return _ends(lambda params, x: reduce(x, axis=tuple(params["axes"])))


def _reduce_sum(params: Any, x: Value) -> Interval:
    return interval.total(as_interval(x), tuple(params["axes"]))


def _cumsum(params: Any, x: Value) -> Interval:
    x, axis = as_interval(x), params["axis"]
    if params["reverse"]:
        x = Interval(np.flip(x.lower, axis), np.flip(x.upper, axis))
    summed = interval.running_total(x, axis)
    return Interval(*(np.flip(end, axis) for end in summed)) if params["reverse"] else summed


def _dot_general(params: Any, x: Value, y: Value) -> Interval:
    (over_x, over_y), (batch_x, batch_y) = params["dimension_numbers"]

    def arranged(value: Value, batch: Any, over: Any, last: bool) -> tuple[Interval, tuple[int, ...]]:
        """(batch, free, contracted), or (batch, contracted, free) for the second operand; and the free sizes."""
        value = as_interval(value)
        shape = np.shape(value.lower)
        free = [axis for axis in range(len(shape)) if axis not in {*batch, *over}]
        order = [*batch, *free, *over] if last else [*batch, *over, *free]
        n_over, n_free = (int(np.prod([shape[axis] for axis in axes])) for axes in (over, free))
        sizes = [*(shape[axis] for axis in batch), *((n_free, n_over) if last else (n_over, n_free))]
        turned = _ends(lambda _, end: np.transpose(end, order).reshape(sizes))(None, value)
        return turned, tuple(shape[axis] for axis in free)

    (a, free_x), (b, free_y) = arranged(x, batch_x, over_x, True), arranged(y, batch_y, over_y, False)
    product = interval.matmul(a, b)
    shape = (*a.lower.shape[: len(batch_x)], *free_x, *free_y)
    return Interval(product.lower.reshape(shape), product.upper.reshape(shape))


def _compared(
    certain: Callable[[Interval, Interval], np.ndarray], possible: Callable[[Interval, Interval], Any]
) -> Rule:
    def rule(params: Any, x: Value, y: Value) -> Value:
        if not isinstance(x, Interval) and not isinstance(y, Interval):
            x, y = interval.thin(x), interval.thin(y)
        x, y = as_interval(x), as_interval(y)
        lower, upper = np.asarray(certain(x, y)), np.asarray(possible(x, y))
        return lower if (lower == upper).all() else Interval(lower, upper)

    return rule


def _select_n(may_jump: bool, params: Any, which: Value, *cases: Value) -> Value:
    chosen = [as_interval(case) for case in cases]
    if not isinstance(which, Interval):
        picked = np.asarray(which).astype(int)
        pick = [np.choose(picked, list(ends)) for ends in zip(*chosen, strict=True)]
        return Interval(*pick)
    no, yes = chosen
    known = may_jump or no.lower.dtype == bool  # of truth values both are as good as unknown
    both = interval.hull(no, yes) if known else interval.thin(np.full(np.shape(no.lower), np.nan))
    decided = which.lower == which.upper
    return Interval(*(np.where(decided, np.where(which.lower, y, n), b) for n, y, b in zip(no, yes, both, strict=True)))


def _stepwise(function: Any) -> Rule:
    """A function that grows in jumps: sign, floor, the number of a truth value."""

    def rule(may_jump: bool, params: Any, x: Value) -> Interval:
        lower, upper = (function(np.asarray(end)).astype(np.float64) for end in as_interval(x))
        if may_jump:
            return Interval(lower, upper)
        return Interval(*(np.where(lower == upper, end, np.nan) for end in (lower, upper)))

    return rule


def _convert(may_jump: bool, params: Any, x: Value) -> Value:
    if not isinstance(x, Interval):
        return np.asarray(x).astype(np.float64)
    to_float, truth = jnp.issubdtype(params["new_dtype"], jnp.floating), x.lower.dtype == bool
    if to_float and truth:
        return _stepwise(lambda end: end)(may_jump, params, x)
    if to_float or truth:
        return x  # in real arithmetic a cast changes nothing; an integer that was a truth value stays one
    raise NotImplementedError(INTEGERS)


def _is_finite(params: Any, x: Value) -> Value:
    finite = np.logical_and(*(np.isfinite(end) for end in as_interval(x)))
    return finite if finite.all() else Interval(finite, np.ones(np.shape(finite), bool))


def _round(may_jump: bool, params: Any, x: Value) -> Interval:
    def rounded(x: np.ndarray) -> np.ndarray:
        to_even = np.round(x)
        tie = np.abs(x - np.trunc(x)) == 0.5
        away = params["rounding_method"] == jax.lax.RoundingMethod.AWAY_FROM_ZERO
        return np.where(tie & away, np.trunc(x) + np.sign(x), to_even)

    return _stepwise(rounded)(may_jump, params, x)


def _cumulative(accumulate: Any) -> Rule:
    def rule(params: Any, x: np.ndarray) -> np.ndarray:
        axis = params["axis"]
        return np.flip(accumulate(np.flip(x, axis), axis), axis) if params["reverse"] else accumulate(x, axis)

    return _ends(rule)


def _clamp(params: Any, low: Value, x: Value, high: Value) -> Interval:
    ends = zip(as_interval(low), as_interval(x), as_interval(high), strict=True)
    return Interval(*(np.minimum(np.maximum(x, low), high) for low, x, high in ends))


def _sqrt(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, np.nan, np.sqrt(np.abs(x)))


def _logistic(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy import special  # takes a moment to import

    return special.erf(x)


MOVES = {
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice", "dynamic_update_slice",
    "expand_dims", "gather", "pad", "reshape", "rev", "scatter", "select_n", "slice", "split", "squeeze", "stack",
    "transpose",
}  # fmt: skip
EXACT = MOVES | {"eq", "iota"}
BOTH_ENDS = {"pad", "gather", "dynamic_slice", "dynamic_update_slice", "scatter", "scatter-add"}
JUMPS = {"select_n", "sign", "floor", "ceil", "round", "convert_element_type"}

RULES: dict[str, Rule] = {
    "add": _elementwise(interval.add), "add_any": _elementwise(interval.add), "sub": _elementwise(interval.sub),
    "mul": _elementwise(interval.mul), "div": _elementwise(interval.div), "neg": _elementwise(interval.neg),
    "abs": _elementwise(interval.absolute), "square": _elementwise(lambda x: interval.integer_pow(x, 2)),
    "pow": _elementwise(interval.power), "sin": _elementwise(interval.sine), "cos": _elementwise(interval.cosine),
    "integer_pow": lambda params, x: interval.integer_pow(as_interval(x), params["y"]),
    "rsqrt": _elementwise(lambda x: interval.div(interval.thin(1.0), interval.monotone(_sqrt, x, 0.0))),
    "erfc": _elementwise(lambda x: interval.sub(interval.thin(1.0), interval.monotone(_erf, x, -1.0, 1.0))),
    "cosh": _elementwise(lambda x: interval.monotone(np.cosh, interval.absolute(x), 1.0)),
    "tanh_slope": _elementwise(interval.tanh_slope), "logistic_slope": _elementwise(interval.logistic_slope),
    "tanh": _increasing(np.tanh, -1.0, 1.0), "logistic": _increasing(_logistic, 0.0, 1.0),
    "erf": _increasing(_erf, -1.0, 1.0), "exp": _increasing(np.exp, 0.0), "exp2": _increasing(np.exp2, 0.0),
    "expm1": _increasing(np.expm1, -1.0), "log": _increasing(np.log), "log1p": _increasing(np.log1p),
    "sqrt": _increasing(_sqrt, 0.0), "cbrt": _increasing(np.cbrt), "sinh": _increasing(np.sinh),
    "asinh": _increasing(np.arcsinh), "atan": _increasing(np.arctan, -np.pi, np.pi),
    "max": _ends(lambda _, x, y: np.maximum(x, y)), "min": _ends(lambda _, x, y: np.minimum(x, y)),
    "clamp": _clamp, "reduce_sum": _reduce_sum, "cumsum": _cumsum, "dot_general": _dot_general,
    "reduce_max": _reduced(np.max), "reduce_min": _reduced(np.min),
    "lt": _compared(lambda x, y: x.upper < y.lower, lambda x, y: ~(x.lower >= y.upper)),
    "le": _compared(lambda x, y: x.upper <= y.lower, lambda x, y: ~(x.lower > y.upper)),
    "gt": _compared(lambda x, y: x.lower > y.upper, lambda x, y: ~(x.upper <= y.lower)),
    "ge": _compared(lambda x, y: x.lower >= y.upper, lambda x, y: ~(x.upper < y.lower)),
    "eq": _compared(
        lambda x, y: (x.lower == x.upper) & (y.lower == y.upper) & (x.lower == y.lower),
        lambda x, y: ~((x.upper < y.lower) | (x.lower > y.upper)),
    ),
    "ne": _compared(
        lambda x, y: (x.upper < y.lower) | (x.lower > y.upper),
        lambda x, y: ~((x.lower == x.upper) & (y.lower == y.upper) & (x.lower == y.lower)),
    ),
    "and": _ends(lambda _, x, y: np.logical_and(x, y)), "or": _ends(lambda _, x, y: np.logical_or(x, y)),
    "not": lambda _, x: Interval(~x.upper, ~x.lower),
    "select_n": _select_n, "sign": _stepwise(np.sign), "floor": _stepwise(np.floor), "ceil": _stepwise(np.ceil),
    "round": _round, "convert_element_type": _convert, "is_finite": _is_finite,
    "cummax": _cumulative(np.maximum.accumulate), "cummin": _cumulative(np.minimum.accumulate),
    "reduce_and": _reduced(np.all), "reduce_or": _reduced(np.any),
    "reshape": _ends(lambda params, x: np.reshape(x, params["new_sizes"])),
    "transpose": _ends(lambda params, x: np.transpose(x, params["permutation"])),
    "squeeze": _ends(lambda params, x: np.squeeze(x, tuple(params["dimensions"]))),
    "expand_dims": _ends(lambda params, x: np.expand_dims(x, tuple(params["dimensions"]))),
    "rev": _ends(lambda params, x: np.flip(x, tuple(params["dimensions"]))),
    "concatenate": _ends(lambda params, *xs: np.concatenate(xs, axis=params["dimension"])),
    "stack": _ends(lambda params, *xs: np.stack(xs, axis=params["axis"])),
    "copy": _ends(lambda _, x: x), "stop_gradient": _ends(lambda _, x: x),
    "reduce_precision": _ends(lambda _, x: x),
    "optimization_barrier": _ends(lambda _, *xs: list(xs)), "device_put": _ends(lambda _, *xs: list(xs)),
    "broadcast_in_dim": _ends(_broadcast_in_dim), "slice": _ends(_slice), "split": _ends(_split),
}  # fmt: skip
