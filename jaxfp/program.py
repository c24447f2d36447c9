"""What the program of a step function says about it: its precision, its randomness, its saturated gates.

A step function is traced once to a jaxpr and the equations are read, inside nested calls too:
  * precision: an operation whose floating output is narrower than its widest floating input casts down, and no
    residual is known better than that dtype resolves;
  * randomness: a step that draws numbers has no fixed points;
  * saturation: where a gate sigma(x) rounds to 0 or 1, z h + (1 - z) n(h) rounds to h for every h nearby, so that
    a vanishing residual is no evidence of a fixed point.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments
from jaxfp.types import Params, StepFn

_RANDOM = {"random_bits", "random_seed", "random_split", "random_fold_in", "random_gamma"}
_RANDOM |= {"threefry2x32", "rng_uniform", "rng_bit_generator"}
_CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"}
_CALLS |= {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call"}


class Program(NamedTuple):
    """What a step function's jaxpr says.

    Attributes:
      precision: name of the narrowest floating dtype the state passes through, e.g. "float64".
      random: name of the first random primitive, or None.
    """

    precision: str
    random: str | None


def read(step_fn: StepFn, params: Params, hidden: Any, inputs: Any) -> Program:
    """Trace one step and read its equations.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree that `step_fn` understands.
      hidden: array or ShapeDtypeStruct of shape (n_hidden,).
      inputs: array or ShapeDtypeStruct of shape (n_inputs,), or None.

    Returns:
      Program.

    Raises:
      ValueError: if the step function cannot take these, or does not return the shape of hidden.

    Example:
      >>> read(lambda p, h, u: h.astype(jnp.float16), None, jnp.ones(2), None).precision
      'float16'
    """
    with arguments.calling(hidden, inputs):
        closed, new = jax.make_jaxpr(step_fn, return_shape=True)(params, hidden, inputs)
    arguments.check_returned(new, hidden)
    narrowest, random = jnp.dtype(hidden.dtype), None
    for eqn in _equations(closed.jaxpr):
        if random is None and eqn.primitive.name in _RANDOM:
            random = eqn.primitive.name
        floats_in = [v.aval.dtype for v in eqn.invars if _is_float(v.aval)]
        floats_out = [v.aval.dtype for v in eqn.outvars if _is_float(v.aval)]
        if eqn.primitive.name == "reduce_precision":
            floats_out.append(_dtype_of_mantissa(eqn.params["mantissa_bits"]))
        for dtype in floats_out if floats_in else ():
            widest_in = max(floats_in, key=_digits)
            if _digits(dtype) < min(_digits(widest_in), _digits(narrowest)):
                narrowest = dtype
    return Program(str(narrowest), random)


def gate_margin(step_fn: StepFn, params: Params, hidden: jax.Array, inputs: jax.Array | None) -> jax.Array:
    """How far the most saturated gate of one step is from 0 or 1.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree that `step_fn` understands.
      hidden: array of shape (n_hidden,).
      inputs: array of shape (n_inputs,), or None.

    Returns:
      Scalar: the least of g and 1 - g over every gate g, at any depth outside loops; infinite for a step without gates.
      A gate is an output of `logistic`; what exp(x) makes of 1 / (1 + exp(x)); or a tanh, times a number or not, that
      a number is added to, as in (1 + tanh(x)) / 2. A tanh by itself is an activation.

    Example:
      >>> float(gate_margin(lambda p, h, u: jax.nn.sigmoid(h), None, jnp.array([100.0, 0.0]), None))
      0.0
    """
    closed = jax.make_jaxpr(step_fn)(params, hidden, inputs)
    margins = [jnp.full((), jnp.inf, hidden.dtype)]

    squashed: dict[Any, jax.Array] = {}  # tanh outputs, also after multiplication by a number

    def add_gate(gate: jax.Array, complement: jax.Array) -> None:
        margins.append(jnp.min(jnp.minimum(gate, complement)).astype(hidden.dtype))

    def visit(eqn: Any, out: Any) -> None:
        name = eqn.primitive.name
        if name == "logistic":
            add_gate(out, 1 - out)
        elif name == "exp":
            add_gate(1 / (1 + out), 1 / (1 + 1 / out))
        elif name == "tanh":
            squashed[eqn.outvars[0]] = out
        elif name in ("mul", "div", "add", "sub") and any(is_literal(v) for v in eqn.invars):
            for tanh in [squashed[v] for v in eqn.invars if not is_literal(v) and v in squashed]:
                if name in ("mul", "div"):
                    squashed[eqn.outvars[0]] = tanh
                else:
                    add_gate((1 + tanh) / 2, (1 - tanh) / 2)

    _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves((params, hidden, inputs)), visit)
    return jnp.min(jnp.stack(margins))


def fingerprint(function: Callable[..., Any], *arguments: Any) -> str:
    """What a function computes, as one word: equal for equal programs, in another process, too.

    Args:
      function: traceable.
      *arguments: arrays or ShapeDtypeStructs to trace it with.

    Returns:
      Hexadecimal digits of a hash over its equations and the constants that it closes over.

    Example:
      >>> shape = jax.ShapeDtypeStruct((2,), jnp.float32)
      >>> fingerprint(lambda h: 2 * h, shape) == fingerprint(lambda x: 2 * x, shape)
      True
      >>> fingerprint(lambda h: 2 * h, shape) == fingerprint(lambda h: 3 * h, shape)
      False
    """
    closed = jax.make_jaxpr(function)(*arguments)
    # Some equations print functions with their place in memory.
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", str(closed)).encode())
    for const in (*closed.consts, *(c for inner in _closed(closed.jaxpr) for c in inner.consts)):
        digest.update(f"{jnp.shape(const)} {jnp.result_type(const)}".encode())
        digest.update(np.asarray(const).tobytes() if not _is_key(const) else b"key")
    return digest.hexdigest()[:16]


def _is_key(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jax.dtypes.prng_key)


def _closed(jaxpr: Any) -> Iterator[Any]:
    """Every jaxpr inside that brings constants of its own."""
    for eqn in _equations(jaxpr):
        yield from (inner for inner in _inner(eqn) if _is_closed(inner))


class Called(NamedTuple):
    """A program that another calls.

    Attributes:
      jaxpr: its equations.
      consts: its constants.
    """

    jaxpr: Any
    consts: Any


def is_literal(atom: Any) -> bool:
    """Is what an equation reads a number, not a variable? Asked for by its value: jax.extend takes long to import.

    Args:
      atom: of `eqn.invars` or `jaxpr.outvars`.

    Returns:
      True for a number.

    Example:
      >>> [is_literal(atom) for atom in jax.make_jaxpr(lambda x: x + 1.0)(0.0).eqns[0].invars]
      [False, True]
    """
    return hasattr(atom, "val")


def called(eqn: Any) -> Called | None:
    """The program that an equation calls as it stands: a nested jit, a checkpoint, a function with rules of its own.

    Args:
      eqn: equation of a jaxpr.

    Returns:
      Called, or None for an operation, a loop or a branch.

    Example:
      >>> called(jax.make_jaxpr(jax.jit(jnp.sin))(1.0).eqns[0]).jaxpr.eqns[0].primitive.name
      'sin'
    """
    if eqn.primitive.name not in _CALLS:
        return None
    body = _inner(eqn)[0]
    return Called(body.jaxpr, body.consts) if _is_closed(body) else Called(body, ())


def evaluate_equation(jaxpr: Any, eqn: Any, operands: list[Any]) -> list[Any]:
    """The outputs of one equation.

    Args:
      jaxpr: that holds it.
      eqn: equation.
      operands: array for each of its inputs.

    Returns:
      List of arrays.

    Example:
      >>> jaxpr = jax.make_jaxpr(jnp.sin)(0.0).jaxpr
      >>> float(evaluate_equation(jaxpr, jaxpr.eqns[0], [0.0])[0])
      0.0
    """
    # A jaxpr of this one equation: evaluating a jaxpr is public, binding a primitive is not.
    taken = [(v, x) for v, x in zip(eqn.invars, operands, strict=True) if not is_literal(v)]
    taken = list({id(v): (v, x) for v, x in taken}.values())
    names = jaxpr.debug_info._replace(arg_names=None, result_paths=None)
    one = type(jaxpr)((), [v for v, _ in taken], eqn.outvars, [eqn], debug_info=names)
    return jax.core.eval_jaxpr(one, (), *[x for _, x in taken])


def _is_float(aval: Any) -> bool:
    return hasattr(aval, "dtype") and jnp.issubdtype(aval.dtype, jnp.floating)


def _digits(dtype: Any) -> int:
    return jnp.finfo(dtype).nmant


def _dtype_of_mantissa(bits: int) -> Any:
    floats = (jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64)
    return jnp.dtype(next(d for d in floats if jnp.finfo(d).nmant >= bits))


def _is_closed(inner: Any) -> bool:
    return hasattr(inner, "consts")


def _inner(eqn: Any) -> list[Any]:
    """The jaxprs inside one equation (calls, branches, loop bodies)."""
    values = [v for param in eqn.params.values() for v in (param if isinstance(param, tuple | list) else (param,))]
    return [v for v in values if hasattr(v, "eqns")]


def _equations(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in _inner(eqn):
            yield from _equations(inner.jaxpr if _is_closed(inner) else inner)


def _evaluate(jaxpr: Any, consts: Any, arguments: Any, visit: Callable[[Any, Any], None]) -> list[Any]:
    """Evaluate a jaxpr, entering plain calls, and show every equation with its first output to `visit`."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

    def value(atom: Any) -> Any:
        return atom.val if is_literal(atom) else values[atom]

    for eqn in jaxpr.eqns:
        operands = [value(v) for v in eqn.invars]
        body = called(eqn)
        if body is None:
            outs = evaluate_equation(jaxpr, eqn, operands)
        else:
            outs = _evaluate(body.jaxpr, body.consts, operands, visit)
        visit(eqn, outs[0] if outs else None)
        values.update(zip(eqn.outvars, outs, strict=True))
    return [value(v) for v in jaxpr.outvars]
