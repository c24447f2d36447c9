"""Enclosures of a step function and of its Jacobian over boxes, read off its jaxpr.

The step function is traced once. Every equation is then given its interval rule, over arrays of boxes at once:

    F(X)  holds F(h) for every h in the box X,          J(X)  holds dF/dh for every h in X.

What is enclosed is the map in real arithmetic with these weights: a cast to a narrower dtype is no part of it. In the
program that is differentiated, calls are inlined, scans unrolled and conditionals turned into selections; what a user
may declare about a derivative (custom_jvp, custom_vjp, stop_gradient) is ignored, since the mean value theorem asks
for the derivative that the map has. tanh and the logistic function get slopes of their own, enclosed without the
dependency of (1 + t)(1 - t) on t.

Integer and boolean values that do not depend on the state are computed exactly. Where a comparison is not decided in
the whole box, both branches are taken into the hull; in F itself that also means that F may jump inside the box
(`jumps`), and then the mean value theorem says nothing.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import batching

from jaxfp import arguments, program
from jaxfp.proof import interval, rules
from jaxfp.proof.interval import Interval
from jaxfp.proof.rules import Value
from jaxfp.types import Params, StepFn

Enclosure = Callable[[Interval, np.ndarray | None], Interval]
Apply = Callable[[Any, Any, list[Any]], list[Any]]
_EPS = 2.0**-52


@functools.cache
def _slope(name: str) -> Any:
    """A primitive that `rules` knows by its name."""
    from jax.extend.core import Primitive  # takes a moment to import

    slope = Primitive(name)
    slope.def_abstract_eval(lambda x: x)
    batching.defvectorized(slope)
    return slope


@jax.custom_jvp
def _tanh(x: jax.Array) -> jax.Array:
    return jax.lax.tanh(x)


@jax.custom_jvp
def _logistic(x: jax.Array) -> jax.Array:
    return jax.lax.logistic(x)


@jax.custom_jvp
def _maximum(x: jax.Array, y: jax.Array) -> jax.Array:
    return jax.lax.max(x, y)


@_maximum.defjvp
def _maximum_jvp(primals: Any, tangents: Any) -> Any:
    x, y = jnp.broadcast_arrays(*primals)  # JAX asks which operand equals the result, which no interval can tell
    return _maximum(x, y), jax.lax.select_n(x > y, *jnp.broadcast_arrays(*tangents[::-1]))


def _minimum(x: jax.Array, y: jax.Array) -> jax.Array:
    return -_maximum(-x, -y)


_EXTREMES: dict[str, Callable[..., jax.Array]] = {
    "max": _maximum,
    "min": _minimum,
    "clamp": lambda low, x, high: _minimum(_maximum(x, low), high),
}
_FOLDS = {"reduce_max": _maximum, "reduce_min": _minimum, "reduce_prod": jnp.multiply}
_tanh.defjvp(lambda primals, tangents: (_tanh(*primals), tangents[0] * _slope("tanh_slope").bind(*primals)))
_logistic.defjvp(lambda primals, tangents: (_logistic(*primals), tangents[0] * _slope("logistic_slope").bind(*primals)))


def build_enclosures(
    step_fn: StepFn, params: Params, n_boxes: int, n_hidden: int, n_inputs: int | None
) -> tuple[Enclosure, Enclosure]:
    """F(X) and J(X) as functions of an array of boxes. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree of float64 (or integer) arrays.
      n_boxes: how many boxes each call takes.
      n_hidden: the length of the state.
      n_inputs: the length of the drive, or None.

    Returns:
      (step, jacobian), functions of an Interval of shape (n_boxes, n_hidden) and of an array (n_boxes, n_inputs) or
      None: an Interval of shape (n_boxes, n_hidden), NaN where F may jump inside the box, and one of shape
      (n_boxes, n_hidden, n_hidden).

    Raises:
      ValueError: if the step does not return the shape of the state.
      NotImplementedError: when called, if a primitive of the step has no interval rule; it is named.

    Example:
      >>> with jax.enable_x64(True):
      ...     step, _ = build_enclosures(lambda p, h, u: p * h, 2.0, 1, 1, None)
      ...     step(Interval(np.zeros((1, 1)), np.ones((1, 1))), None).lower.round(12).tolist()
      [[-0.0]]
    """
    leaves = jax.tree.leaves(params)
    hidden = jax.ShapeDtypeStruct((n_boxes, n_hidden), np.float64)
    drive = None if n_inputs is None else jax.ShapeDtypeStruct((n_boxes, n_inputs), np.float64)
    plain = faithful(step_fn, params, n_hidden, n_inputs)

    def enclosure(function: Any, may_jump: bool) -> Enclosure:
        program_ = jax.make_jaxpr(jax.vmap(function, (None, 0, 0)))(leaves, hidden, drive)
        constants = on_host(leaves)
        rule = functools.partial(apply, may_jump)

        def enclose(box: Interval, inputs: np.ndarray | None) -> Interval:
            arguments: list[Value] = [*constants, box, *([] if inputs is None else [inputs])]
            with np.errstate(all="ignore"):  # overflow, NaN and 0 / 0 have their meaning here
                return rules.as_interval(evaluate(program_.jaxpr, program_.consts, arguments, rule)[0])

        return enclose

    return enclosure(plain, False), enclosure(jax.jacfwd(plain, argnums=1), True)


def faithful(step_fn: StepFn, params: Params, n_hidden: int, n_inputs: int | None) -> Callable[..., jax.Array]:
    """The same step of plain differentiable primitives alone. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree of float64 (or integer) arrays.
      n_hidden: the length of the state.
      n_inputs: the length of the drive, or None.

    Returns:
      Function of the leaves of params, hidden (n_hidden,) and inputs (n_inputs,) or None.

    Raises:
      ValueError: if the step does not return the shape of the state.

    Example:
      >>> with jax.enable_x64(True):
      ...     plain = faithful(lambda p, h, u: jax.lax.stop_gradient(p * h), 2.0, 1, None)
      ...     jax.jacfwd(plain, argnums=1)([2.0], jnp.ones(1), None).tolist()
      [[2.0]]
    """
    hidden = jax.ShapeDtypeStruct((n_hidden,), np.float64)
    drive = None if n_inputs is None else jax.ShapeDtypeStruct((n_inputs,), np.float64)
    with arguments.calling(hidden, drive):
        traced, new = jax.make_jaxpr(step_fn, return_shape=True)(params, hidden, drive)
    arguments.check_returned(new, hidden)
    return lambda *arguments: _faithful(traced.jaxpr, traced.consts, jax.tree.leaves(arguments))[0]


def on_host(leaves: list[Any]) -> list[Any]:
    """NumPy arrays; keys, which a step that may be judged does not draw from, as they are.

    Args:
      leaves: of params.

    Returns:
      List of as many.

    Example:
      >>> on_host([1.5, jax.random.key(0)])[0].shape
      ()
    """
    keys = [jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key) for leaf in leaves]
    return [leaf if is_key else np.asarray(leaf) for leaf, is_key in zip(leaves, keys, strict=True)]


def evaluate(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any], rule: Apply) -> list[Any]:
    """Evaluate a jaxpr on values of another kind, entering plain calls.

    Args:
      jaxpr: the program.
      consts: its constants, exact.
      arguments: Interval or exact array each, or whatever `rule` understands.
      rule: from (jaxpr, equation, operands) to the values of the equation's outputs, see `apply`.

    Returns:
      A value for each output.

    Raises:
      NotImplementedError: for a primitive without a rule.

    Example:
      >>> x = Interval(-np.ones(1), 2 * np.ones(1))
      >>> (square,) = evaluate(jax.make_jaxpr(jnp.square)(1.0).jaxpr, (), [x], functools.partial(apply, False))
      >>> square.lower.tolist(), square.upper.round(12).tolist()
      ([0.0], [4.0])
    """
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))
    last = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if not program.is_literal(v)}

    def value(atom: Any) -> Any:
        return np.asarray(atom.val) if program.is_literal(atom) else values[atom]

    kept = {v for v in jaxpr.outvars if not program.is_literal(v)}
    for i, eqn in enumerate(jaxpr.eqns):
        operands, body = [value(v) for v in eqn.invars], program.called(eqn)
        outs = evaluate(body.jaxpr, body.consts, operands, rule) if body is not None else rule(jaxpr, eqn, operands)
        values.update(zip(eqn.outvars, outs, strict=True))
        for v in {v for v in eqn.invars if not program.is_literal(v) and last[v] == i} - kept:
            del values[v]  # matrices for every box: what is not needed again is not kept
    return [value(v) for v in jaxpr.outvars]


def apply(may_jump: bool, jaxpr: Any, eqn: Any, operands: list[Value]) -> list[Value]:
    """The outputs of one equation on intervals and exact values.

    Args:
      may_jump: take the hull of both branches where a comparison is undecided; otherwise say NaN, unknown.
      jaxpr: that holds the equation.
      eqn: its primitive has a rule, or its operands are all exact.
      operands: Interval or exact array each.

    Returns:
      Interval or exact array for each output.

    Raises:
      NotImplementedError: for a primitive without a rule.

    Example:
      >>> jaxpr = jax.make_jaxpr(jnp.abs)(1.0).jaxpr
      >>> apply(False, jaxpr, jaxpr.eqns[0], [Interval(-np.ones(1), np.ones(1))])[0].lower.tolist()
      [0.0]
    """
    name = eqn.primitive.name
    rule = rules.RULES.get(name)
    if all(not isinstance(x, Interval) for x in operands) and (
        rule is None or name in rules.EXACT or not any(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.outvars)
    ):
        return [np.asarray(x) for x in program.evaluate_equation(jaxpr, eqn, operands)]
    if name in ("eq", "ne") and eqn.invars[0] is eqn.invars[1]:  # how programs ask for NaN
        return [np.full(eqn.outvars[0].aval.shape, name == "eq")]
    if rule is None and name not in rules.BOTH_ENDS:
        raise NotImplementedError(f"there is no interval rule for the primitive {name!r}, which this step uses.")
    if name != "convert_element_type" and any(jnp.issubdtype(v.aval.dtype, jnp.integer) for v in eqn.outvars):
        raise NotImplementedError(rules.INTEGERS)
    if name in rules.BOTH_ENDS:
        return _at_both_ends(jaxpr, eqn, operands)
    assert rule is not None
    outs = rule(eqn.params, *operands) if name not in rules.JUMPS else rule(may_jump, eqn.params, *operands)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def _at_both_ends(jaxpr: Any, eqn: Any, operands: list[Value]) -> list[Value]:
    """What only moves numbers, or grows with all of them, is done to both ends by JAX."""
    name = eqn.primitive.name
    integers = [x for x, v in zip(operands, eqn.invars, strict=True) if not jnp.issubdtype(v.aval.dtype, jnp.floating)]
    if any(isinstance(x, Interval) for x in integers):
        raise NotImplementedError(f"there is no interval rule for {name!r} at indices that depend on the state.")
    floats = [jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.invars]
    wide = [
        x.astype(np.float64) if f and not isinstance(x, Interval) else x for f, x in zip(floats, operands, strict=True)
    ]
    ends = [
        program.evaluate_equation(jaxpr, eqn, [x[end] if isinstance(x, Interval) else x for x in wide])
        for end in (0, 1)
    ]
    outs: list[Value] = [Interval(np.asarray(a), np.asarray(b)) for a, b in zip(*ends, strict=True)]
    if name == "scatter-add":
        size = [interval.magnitude(rules.as_interval(x)) if i != 1 else x for i, x in enumerate(operands)]
        n = np.size(size[2]) + 1
        (error,) = (np.asarray(x) * (n * _EPS) for x in program.evaluate_equation(jaxpr, eqn, size))
        outs = [Interval(interval.down(a - error), interval.up(b + error)) for a, b in outs]
    return outs


def _faithful(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """The same function, of plain differentiable primitives alone."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

    def value(atom: Any) -> Any:
        return atom.val if program.is_literal(atom) else values[atom]

    for eqn in jaxpr.eqns:
        name, operands = eqn.primitive.name, [value(v) for v in eqn.invars]
        body = program.called(eqn)
        if body is not None:
            outs = _faithful(body.jaxpr, body.consts, operands)
        elif name == "tanh":
            outs = [_tanh(*operands)]
        elif name == "logistic":
            outs = [_logistic(*operands)]
        elif name in _EXTREMES and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
            outs = [_EXTREMES[name](*operands)]
        elif name in _FOLDS and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating) and operands[0].size:
            outs = [_folded(_FOLDS[name], operands[0], eqn.params["axes"])]
        elif name == "stop_gradient":
            outs = operands
        elif name == "scan":
            outs = _unrolled(eqn.params, operands)
        elif name == "cond":
            branches = [_faithful(branch.jaxpr, branch.consts, operands[1:]) for branch in eqn.params["branches"]]
            which = operands[0] != 0 if len(branches) == 2 else operands[0]  # what binds it has clipped it
            outs = [jax.lax.select_n(which, *cases) for cases in zip(*branches, strict=True)]
        else:
            outs = program.evaluate_equation(jaxpr, eqn, operands)
        values.update(zip(eqn.outvars, outs, strict=True))
    return [value(v) for v in jaxpr.outvars]


def _unrolled(params: Any, operands: list[Any]) -> list[Any]:
    body, n_consts, n_carry = params["jaxpr"], params["num_consts"], params["num_carry"]
    consts, carry, xs = operands[:n_consts], operands[n_consts : n_consts + n_carry], operands[n_consts + n_carry :]
    rows = []
    for t in reversed(range(params["length"])) if params["reverse"] else range(params["length"]):
        outs = _faithful(body.jaxpr, body.consts, [*consts, *carry, *(x[t] for x in xs)])
        carry = outs[:n_carry]
        rows.append(outs[n_carry:])
    if not rows:
        return [*carry, *(jnp.zeros((0, *aval.shape), aval.dtype) for aval in body.out_avals[n_carry:])]
    rows = rows[::-1] if params["reverse"] else rows
    return [*carry, *(jnp.stack(ys) for ys in zip(*rows, strict=True))]


def _folded(operation: Any, x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """A reduction by halves, whose derivative divides by no number of ties."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    x = jnp.transpose(x, (*axes, *kept)).reshape(-1, *(x.shape[axis] for axis in kept))
    while len(x) > 1:
        half = len(x) // 2
        x = jnp.concatenate([operation(x[:half], x[half : 2 * half]), x[2 * half :]])
    return x[0]
