"""Boxes that hold every fixed point of a map, and that it sends into itself, proved from its jaxpr.

The new state of a unit is bounded as a function of its own old state and of gates (outputs of the logistic function),
one value of each gate a unit, that it depends on linearly. With every gate at either end of its range,

    h_i' = sum_v w_v (A_v h_i + R_v),     w_v >= 0,  sum_v w_v = 1,

where the intervals A_v and R_v hold for every state of a box D. Ends v where A_v = 1 and R_v = 0 leave the state where
it is, as z h + (1 - z) n does at z = 1, and their weight is below 1, for no gate is ever 0 or 1. If 0 <= A_v < 1 at all
others, a fixed point is a mean of the R_v / (1 - A_v), and a box that holds these is sent into itself. If only
|A_v| < 1, the same is true of |h_i| <= max |R_v| / (1 - |A_v|).

Begin with D = R^N and go on with the box just found, until it has an end in every direction: a vanilla RNN and a GRU
need one pass, an LSTM two. Slightly
enlarged, the box has no fixed point on its border, nor has any map between F and a constant: so the indices of the
fixed points sum to +1. For a flow, 1 - A_v is -A_v, and the field points inward.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp.proof import enclosure, interval, rules
from jaxfp.proof.interval import Interval
from jaxfp.types import Kind, Params, StepFn

Box = tuple[np.ndarray, np.ndarray]
_N_GATES = 4  # at most: 2^4 runs a pass
_N_PASSES = 4


class _Affine(NamedTuple):
    """slope[k] * h[unit[k]] + rest[k], with the gates that it is linear in at one of their ends.

    `whole` holds every value, with those gates anywhere in their range; gates[g][k] is the element of gate g on which
    element k depends. No unit, and no element, is -1.
    """

    slope: Interval
    rest: Interval
    unit: np.ndarray
    whole: Interval
    gates: Mapping[int, np.ndarray]


def build_box(
    step_fn: StepFn, params: Params, n_hidden: int, n_inputs: int | None, *, kind: Kind = "map"
) -> Callable[[Interval | None], Box | None]:
    """What proves that all fixed points lie in a box that the map sends into itself, at any constant input in a range.

    Needs x64 in scope, also when the result is called.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree of float64 (or integer) arrays.
      n_hidden: the length of the state.
      n_inputs: the length of the drive, or None.
      kind: "map" or "flow".

    Returns:
      Function of the range of the inputs, an Interval (n_inputs,), or None; it gives (lower, upper), each (n_hidden,),
      or None where nothing is proved.

    Raises:
      NotImplementedError: when called, if the step uses an operation without an interval rule.

    Example:
      >>> with jax.enable_x64(True):
      ...     lower, upper = build_box(lambda p, h, u: 0.5 * h + jnp.tanh(p * h), 3.0, 1, None)(None)
      >>> upper.round(9).tolist()
      [2.0]

    Source: ours.
    """
    plain = enclosure.faithful(step_fn, params, n_hidden, n_inputs)
    leaves = jax.tree.leaves(params)
    hidden = jax.ShapeDtypeStruct((n_hidden,), np.float64)
    drive = None if n_inputs is None else jax.ShapeDtypeStruct((n_inputs,), np.float64)
    closed = jax.make_jaxpr(plain)(leaves, hidden, drive)
    constants = enclosure.on_host(leaves)

    def run(domain: Interval, inputs: Interval | None, at_upper: Mapping[int, bool]) -> _Affine:
        """The new state, with some gates at the upper and all others at the lower end of their range."""
        met = itertools.count()

        def rule(jaxpr: Any, eqn: Any, operands: list[Any]) -> list[Any]:
            outs = _apply(jaxpr, eqn, operands)
            if eqn.primitive.name != "logistic":
                return outs
            gate = next(met)
            return [_at_an_end(gate, rules.as_interval(outs[0]), at_upper.get(gate, False))]

        state = _constant(domain)._replace(
            slope=_filled(domain, 1.0), rest=_filled(domain, 0.0), unit=np.arange(n_hidden)
        )
        arguments = [*constants, state, *([] if inputs is None else [inputs])]
        return _constant(enclosure.evaluate(closed.jaxpr, closed.consts, arguments, rule)[0])

    def improved(domain: Interval, inputs: Interval | None) -> Interval:
        """A box around every fixed point that lies in `domain`."""
        gates = sorted(run(domain, inputs, {}).gates)
        if len(gates) > _N_GATES:
            return domain
        means = [
            _means(run(domain, inputs, dict(zip(gates, ends, strict=True))), kind)
            for ends in itertools.product((False, True), repeat=len(gates))
        ]
        lower, upper = np.min([low for low, _ in means], axis=0), np.max([high for _, high in means], axis=0)
        bounded = np.isfinite(lower) & np.isfinite(upper)
        lower = np.where(bounded, np.maximum(lower, domain.lower), domain.lower)
        return Interval(lower, np.where(bounded, np.minimum(upper, domain.upper), domain.upper))

    def box_at(inputs: Interval | None) -> Box | None:
        domain = Interval(np.full(n_hidden, -np.inf), np.full(n_hidden, np.inf))
        with np.errstate(all="ignore"):  # infinite ends have their meaning here
            for _ in range(_N_PASSES):
                domain = improved(domain, inputs)
                if np.isfinite(domain).all():  # a smaller box would say no more, and leave out what is only passed
                    return domain.lower, domain.upper
        return None

    return box_at


def _filled(x: Interval, value: float) -> Interval:
    return interval.thin(np.full(np.shape(x.lower), value))


def _constant(x: Any) -> _Affine:
    """Anything as affine; what does not depend on one unit has none."""
    if isinstance(x, _Affine):
        return x
    x = rules.as_interval(x)
    return _Affine(_filled(x, 0.0), x, np.full(np.shape(x.lower), -1), x, {})


def _at_an_end(gate: int, x: Interval, upper: bool) -> _Affine:
    elements = np.arange(np.size(x.lower)).reshape(np.shape(x.lower))
    return _constant(x)._replace(rest=interval.thin(x.upper if upper else x.lower), gates={gate: elements})


def _apply(jaxpr: Any, eqn: Any, operands: list[Any]) -> list[Any]:
    """The outputs of an equation, affine where they are."""
    name = eqn.primitive.name
    plain = functools.partial(enclosure.apply, False, jaxpr, eqn)
    if not any(isinstance(x, _Affine) for x in operands):
        return plain(operands)
    wholes = [rules.as_interval(x) for x in plain([x.whole if isinstance(x, _Affine) else x for x in operands])]
    if name in ("add", "add_any", "sub"):
        x, y = (_constant(x) for x in operands)
        return [_sum(x, y, interval.sub if name == "sub" else interval.add, wholes[0])]
    if name == "neg":
        x = operands[0]
        return [x._replace(slope=interval.neg(x.slope), rest=interval.neg(x.rest), whole=wholes[0])]
    if name == "mul":
        x, y = (_constant(x) for x in operands)
        return [_product(x, y, wholes[0])]
    if name in rules.MOVES:
        return _moved(plain, eqn, operands, wholes)
    return wholes


def _sum(x: _Affine, y: _Affine, add: Any, whole: Interval) -> Any:
    """The sum or difference; affine where both depend on the same unit and element of each gate, or one on none."""
    if _apart(x.unit, y.unit) or any(_apart(x.gates[g], y.gates[g]) for g in x.gates.keys() & y.gates.keys()):
        return whole
    return _Affine(add(x.slope, y.slope), add(x.rest, y.rest), np.maximum(x.unit, y.unit), whole, _all_gates(x, y))


def _product(x: _Affine, y: _Affine, whole: Interval) -> _Affine:
    """The product; affine in the state of one factor, linear in the gates that only one of them depends on."""
    x, y = (x, y) if (x.unit >= 0).any() else (y, x)
    if (y.unit >= 0).any() or x.gates.keys() & y.gates.keys():
        y = _constant(y.whole)
    unit = np.broadcast_to(x.unit, np.shape(whole.lower))
    return _Affine(interval.mul(x.slope, y.rest), interval.mul(x.rest, y.rest), unit, whole, _all_gates(x, y))


def _apart(x: np.ndarray, y: np.ndarray) -> bool:
    return bool(((x != y) & (x >= 0) & (y >= 0)).any())


def _all_gates(x: _Affine, y: _Affine) -> dict[int, np.ndarray]:
    shape = np.broadcast_shapes(x.unit.shape, y.unit.shape)
    none = np.full(shape, -1)
    return {g: np.maximum(x.gates.get(g, none), y.gates.get(g, none)) for g in x.gates.keys() | y.gates.keys()}


def _moved(plain: Any, eqn: Any, operands: list[Any], wholes: list[Interval]) -> list[Any]:
    """What only moves numbers moves slopes, rests and units alike; indices stay as they are."""
    floats = [jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.invars]
    given = [_constant(x) if f else x for x, f in zip(operands, floats, strict=True)]
    gates = sorted({g for x in given if isinstance(x, _Affine) for g in x.gates})

    def moved(part: Callable[[_Affine], Any]) -> list[Interval]:
        return [rules.as_interval(x) for x in plain([part(x) if isinstance(x, _Affine) else x for x in given])]

    def indices(part: Callable[[_Affine], np.ndarray]) -> list[np.ndarray]:
        return [x.lower.astype(int) for x in moved(part)]

    elements = {g: indices(lambda x, g=g: x.gates.get(g, np.full(x.unit.shape, -1))) for g in gates}  # type: ignore[misc]
    columns = zip(moved(lambda x: x.slope), moved(lambda x: x.rest), indices(lambda x: x.unit), strict=True)
    return [
        _Affine(slope, rest, unit, whole, {g: elements[g][k] for g in gates})
        for k, ((slope, rest, unit), whole) in enumerate(zip(columns, wholes, strict=True))
    ]


def _means(x: _Affine, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of R / (1 - A), or of what takes its place; none where the state stays where it is."""
    other = (x.unit >= 0) & (x.unit != np.arange(len(x.unit)))  # depends on another unit: as good as not affine
    slope = Interval(*(np.where(other, 0.0, end) for end in x.slope))
    rest = Interval(*(np.where(other, all_, end) for all_, end in zip(x.whole, x.rest, strict=True)))
    still = 1.0 if kind == "map" else 0.0
    stays = (slope.lower == still) & (slope.upper == still) & (rest.lower == 0) & (rest.upper == 0)
    gain = interval.sub(_filled(slope, still), slope)
    mean = interval.div(rest, gain)
    steady = interval.sub(interval.thin(1.0), interval.thin(interval.magnitude(slope)))
    most = interval.div(interval.thin(interval.magnitude(rest)), steady).upper
    pulled = (gain.lower > 0) & ((slope.lower >= 0) | (kind == "flow"))
    swings = (steady.lower > 0) & (kind == "map")
    lower = np.where(pulled, mean.lower, np.where(swings, -most, -np.inf))
    upper = np.where(pulled, mean.upper, np.where(swings, most, np.inf))
    lower, upper = np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper)
    return np.where(stays, np.inf, lower), np.where(stays, -np.inf, upper)
