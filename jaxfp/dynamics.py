"""The dynamics of one step function: how fast a state moves, and where it goes.

Residual r(h) = F(h, u) - h of a map, r(h) = F(h, u) of a flow; q(h) = 1/2 ||r||^2; speed ||r|| = sqrt(2 q).
Fixed points are the zeros of q, slow points its other minima (Sussillo & Barak 2013, eq. 1.1-1.4).

These functions are traceable and follow the dtype of `hidden`. Called outside a trace on float64 NumPy they are
evaluated in float64, with params widened, whatever the caller's x64 setting, and return NumPy.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments as given
from jaxfp.types import Array, Kind, Params, StepFn

_Function = TypeVar("_Function", bound=Callable[..., Any])


def float64_on_numpy(function: _Function) -> _Function:
    """Let `function(step_fn, params, hidden, inputs, ...)` compute in float64 when `hidden` is float64 NumPy.

    Args:
      function: traceable function of a step function, params, hidden (..., n_hidden), inputs, and more arrays if it
        likes; keywords choose a program, except for those that are float.

    Returns:
      The same function; outside a trace a float64 NumPy `hidden` gives NumPy results computed in float64.

    Example:
      >>> float64_on_numpy(lambda f, p, h, u: f(p, h, u))(lambda p, h, u: p * h, 0.5, np.ones(1), None).dtype
      dtype('float64')
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        bound = signature.bind(*arguments, **named)
        bound.apply_defaults()  # an omitted default and the same value given are one program
        (step_fn, params, hidden, *others), keywords = bound.args, bound.kwargs
        names = list(signature.parameters)
        inputs = others[names.index("inputs") - 3] if "inputs" in names else None
        _check(names[2], step_fn, params, hidden, inputs, keywords)
        for name, check in _CHECKS.items():
            if name in bound.arguments:
                check(name, bound.arguments[name])
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, others)))
        if traced or not isinstance(hidden, np.ndarray) or hidden.dtype != np.float64:
            return function(step_fn, params, hidden, *others, **keywords)
        static = tuple(name for name, value in keywords.items() if not isinstance(value, float))
        # Inside a user's jit the constants are folded at trace time, not staged into a program of another width.
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            result = _compiled(function, static)(
                step_fn, widen(params), jnp.asarray(hidden), *widen(others), **keywords
            )
            return jax.tree.map(np.asarray, result)

    return wrapped  # type: ignore[return-value]


_WAYS = "(n_directions, n_hidden) or (n_points, n_directions, n_hidden)"
_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "has_aux": given.check_flag,
    **dict.fromkeys(("max_steps", "n_steps"), given.check_count),
    "n_settle": functools.partial(given.check_count, least=0),
    **dict.fromkeys(("dt", "tolerance", "max_radius"), functools.partial(given.check_number, positive=True)),
    **dict.fromkeys(("displacements", "directions"), functools.partial(given.check_array, wanted=_WAYS, n_axes=(2, 3))),
    "left": functools.partial(given.check_vectors, wanted="(n_hidden,) or (n_modes, n_hidden)"),
    "right": functools.partial(given.check_vectors, wanted="(n_hidden,) or (n_hidden, n_modes)"),
}


def _check(name: str, step_fn: Any, params: Any, hidden: Any, inputs: Any, keywords: dict[str, Any]) -> None:
    """What the functions of a step and its states have in common; `name` is that of the states."""
    given.check_step(step_fn, hashable=isinstance(hidden, np.ndarray))
    given.check_params(params)
    over_time = name == "hidden0" and "n_time" in keywords  # of `simulate`; elsewhere inputs are held constant
    given.check_array(name, hidden, f"(n_hidden,) or ({'n_trials' if over_time else 'n_points'}, n_hidden)", (1, 2))
    if inputs is not None:
        wanted = (
            "(n_time, n_inputs) or (n_trials, n_time, n_inputs)" if over_time else "(n_inputs,) or (n_points, n_inputs)"
        )
        given.check_array("inputs", inputs, f"None, {wanted}", (2, 3) if over_time else (1, 2), floating=False)
    if "kind" in keywords:
        check_kind(keywords["kind"])
    if keywords.get("k") is not None:
        given.check_count("k", keywords["k"])
    if keywords.get("n_time") is not None:
        given.check_count("n_time", keywords["n_time"], least=0 if over_time else 1)


@functools.cache
def _compiled(function: Callable[..., Any], static: tuple[str, ...]) -> Callable[..., Any]:
    """One program instead of one for each primitive."""
    return jax.jit(function, static_argnums=0, static_argnames=static)


def widen(tree: Any) -> Any:
    """Floating leaves as float64, exactly; integer, boolean and key leaves as they are. Needs x64 in scope.

    Numbers are cast on the host, since a cast in JAX must be compiled for every shape.

    Args:
      tree: pytree of arrays.

    Returns:
      The same pytree of jax arrays.

    Example:
      >>> with jax.enable_x64(True):
      ...     widen({"w": np.ones(2, np.float32), "n": np.int32(3)})["w"].dtype
      dtype('float64')
    """

    def leaf(x: Any) -> Any:
        if isinstance(x, float | np.floating | np.ndarray | jax.Array) and jnp.issubdtype(
            jnp.result_type(x), jnp.floating
        ):
            return jnp.asarray(x if isinstance(x, jax.core.Tracer) else np.asarray(x, np.float64), jnp.float64)
        return x

    return jax.tree.map(leaf, tree)


def narrow(tree: Any, dtype: Any) -> Any:
    """Floating leaves in another dtype, the others as they are; on the host, since a cast in JAX must be compiled.

    Args:
      tree: pytree of arrays.
      dtype: floating.

    Returns:
      The same pytree, NumPy where cast.

    Example:
      >>> narrow({"w": np.ones(2), "n": np.int32(3)}, np.float32)["w"].dtype
      dtype('float32')
    """
    return jax.tree.map(
        lambda x: np.asarray(x).astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, tree
    )


def over_points(one: Callable[[Any, Any], Any], hidden: Any, inputs: Any) -> Any:
    """Apply a function of one state to one state or to many.

    Args:
      one: function `(hidden (n_hidden,), inputs (n_inputs,) or None)`.
      hidden: (n_hidden,) or (n_points, n_hidden).
      inputs: None, (n_inputs,) for all, or (n_points, n_inputs) one each.

    Returns:
      The result of `one`, with a leading axis n_points where `hidden` has one.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> over_points(lambda h, u: h.sum(), jnp.ones((3, 2)), None).shape
      (3,)
    """
    given.check_array("hidden", hidden, "(n_hidden,) or (n_points, n_hidden)", (1, 2))
    if inputs is not None:
        given.check_array("inputs", inputs, "None, (n_inputs,) or (n_points, n_inputs)", (1, 2), floating=False)
    if hidden.ndim == 1 and (inputs is None or inputs.ndim == 1):
        return one(hidden, inputs)
    if hidden.ndim != 2 or (inputs is not None and inputs.ndim not in (1, 2)):
        shape = None if inputs is None else inputs.shape
        raise ValueError(
            "hidden must be (n_hidden,) or (n_points, n_hidden) with inputs None, (n_inputs,) or (n_points, n_inputs), "
            f"got hidden {hidden.shape} and inputs {shape}."
        )
    if inputs is not None and inputs.ndim == 2 and inputs.shape[0] != hidden.shape[0]:
        wanted = f"one row for each of {hidden.shape[0]} states, as hidden has"
        raise ValueError(f"inputs must have {wanted}, got {inputs.shape}.")
    return jax.vmap(one, in_axes=(0, 0 if inputs is not None and inputs.ndim == 2 else None))(hidden, inputs)


def check_kind(kind: str) -> None:
    """Refuse anything but "map" and "flow".

    Args:
      kind: what the caller gave.

    Raises:
      ValueError: if it is neither.

    Example:
      >>> check_kind("map")
    """
    if not isinstance(kind, str) or kind not in ("map", "flow"):
        raise ValueError(f'kind must be "map" or "flow", got {given.came(kind)}.')


def residual_fn(step_fn: StepFn, params: Params, inputs: Any, kind: Kind) -> Callable[[jax.Array], jax.Array]:
    """The residual as a function of one state, products in full precision.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands.
      inputs: (n_inputs,) or None, held constant.
      kind: "map" or "flow".

    Returns:
      Function from hidden (n_hidden,) to r (n_hidden,).

    Example:
      >>> float(residual_fn(lambda p, h, u: p * h, 0.5, None, "map")(jnp.ones(1))[0])
      -0.5
    """
    check_kind(kind)

    def residual_of(hidden: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):  # accelerators default to fewer digits
            moved = given.step(step_fn, params, hidden, inputs).astype(hidden.dtype)
        return moved - hidden if kind == "map" else moved

    return residual_of


@float64_on_numpy
def residual(step_fn: StepFn, params: Params, hidden: Array, inputs: Array | None = None, *, kind: Kind = "map") -> Any:
    """What is left at a state: r = F(h, u) - h of a map, r = F(h, u) of a flow.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,) or (n_points, n_hidden), activation units.
      inputs: None, (n_inputs,) or (n_points, n_inputs), held constant.
      kind: "map" or "flow".

    Returns:
      Same shape as hidden; activation per step (map) or per unit of time (flow).

    Raises:
      ValueError: if the shapes do not fit or kind is unknown.

    Example:
      >>> residual(lambda p, h, u: p * h, 0.5, np.ones(2)).tolist()
      [-0.5, -0.5]

    Source: Sussillo & Barak (2013), Neural Computation 25:626, eq. 1.1. Differs: theirs is a flow.
    """
    return over_points(lambda h, u: residual_fn(step_fn, params, u, kind)(h), hidden, inputs)


@float64_on_numpy
def q(step_fn: StepFn, params: Params, hidden: Array, inputs: Array | None = None, *, kind: Kind = "map") -> Any:
    """Half the squared speed of a state, q = 1/2 ||r||^2, summed over units.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,) or (n_points, n_hidden), activation units.
      inputs: None, (n_inputs,) or (n_points, n_inputs), held constant.
      kind: "map" or "flow".

    Returns:
      Scalar or (n_points,), activation^2 per step^2. Tools that average over units report 2 q / n_hidden.

    Raises:
      ValueError: if the shapes do not fit or kind is unknown.

    Example:
      >>> float(q(lambda p, h, u: p * h, 0.5, np.ones(2)))
      0.25

    Source: Sussillo & Barak (2013), Neural Computation 25:626, eq. 1.2. Differs: theirs is a flow.
    """

    def one(h: jax.Array, u: jax.Array | None) -> jax.Array:
        r = residual_fn(step_fn, params, u, kind)(h)
        return jnp.vdot(r, r) / 2

    return over_points(one, hidden, inputs)


@float64_on_numpy
def speed(step_fn: StepFn, params: Params, hidden: Array, inputs: Array | None = None, *, kind: Kind = "map") -> Any:
    """How far one step takes a state: ||r|| = sqrt(2 q).

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,) or (n_points, n_hidden), activation units.
      inputs: None, (n_inputs,) or (n_points, n_inputs), held constant.
      kind: "map" or "flow".

    Returns:
      Scalar or (n_points,), activation per step (map) or per unit of time (flow).

    Raises:
      ValueError: if the shapes do not fit or kind is unknown.

    Example:
      >>> float(speed(lambda p, h, u: p * h, 0.5, np.array([3.0, 4.0])))
      2.5
    """
    return over_points(lambda h, u: jnp.linalg.norm(residual_fn(step_fn, params, u, kind)(h)), hidden, inputs)


@float64_on_numpy
def simulate(
    step_fn: StepFn, params: Params, hidden0: Array, inputs: Array | None = None, *, n_time: int | None = None
) -> Any:
    """Run a map from hidden0: h_t = F(h_{t-1}, u_t).

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step.
      params: pytree that `step_fn` understands.
      hidden0: (n_hidden,) for all trials, or (n_trials, n_hidden).
      inputs: (n_time, n_inputs), (n_trials, n_time, n_inputs), or None.
      n_time: number of steps; wanted only where inputs is None.

    Returns:
      States h_1 .. h_T, (n_time, n_hidden) or (n_trials, n_time, n_hidden).

    Raises:
      ValueError: if the shapes do not fit, or both or neither of inputs and n_time are given.

    Example:
      >>> simulate(lambda p, h, u: p * h, 0.5, np.ones(1), n_time=3).ravel().tolist()
      [0.5, 0.25, 0.125]
    """
    if (inputs is None) == (n_time is None):
        came = None if inputs is None else inputs.shape
        raise ValueError(f"simulate needs inputs or n_time, one of them, got n_time={n_time} and inputs {came}.")
    if inputs is not None and hidden0.ndim == 2 and inputs.ndim == 3 and len(inputs) != len(hidden0):
        raise ValueError(f"inputs must be those of {len(hidden0)} trials, as many as hidden0 has, got {inputs.shape}.")

    def one(hidden: Array, drive: Array | None) -> jax.Array:
        def step(state: Any, u: Any) -> tuple[Any, Any]:
            new = given.step(step_fn, params, state, u)
            if new.dtype != state.dtype:
                raise ValueError(f"step_fn must return the dtype of hidden0, {state.dtype}, it returned {new.dtype}.")
            return new, new

        return jax.lax.scan(step, hidden, drive, length=n_time)[1]

    axes = (0 if hidden0.ndim == 2 else None, 0 if inputs is not None and inputs.ndim == 3 else None)
    return one(hidden0, inputs) if axes == (None, None) else jax.vmap(one, in_axes=axes)(hidden0, inputs)
