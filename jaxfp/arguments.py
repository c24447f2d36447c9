"""What the arguments of public functions must be: one sentence for each that is not, what was wanted and what came.

Nothing here looks at the values of an array that is being traced, so that every check stands inside a user's jit, too.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp.types import Solver


def came(value: Any) -> str:
    """How a wrong argument is shown.

    Args:
      value: anything.

    Returns:
      Dtype and shape of an array, the beginning of what others print as.

    Example:
      >>> came(np.ones(2)), came("flow")
      ('float64(2,)', "'flow'")
    """
    if hasattr(value, "dtype") and isinstance(getattr(value, "shape", None), tuple):
        return f"{value.dtype}{value.shape}"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{type(value).__name__} {shown[:60]}..."


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse anything but one of a few words.

    Args:
      name: of the argument.
      value: what the caller gave.
      choices: the words.

    Raises:
      ValueError: if it is none of them.

    Example:
      >>> check_choice("kind", "map", ("map", "flow"))
    """
    if not isinstance(value, str) or value not in choices:
        wanted = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name} must be {wanted}, got {came(value)}.")


def check_flag(name: str, value: Any, *, or_none: bool = False) -> None:
    """Refuse anything but True and False.

    Args:
      name: of the argument.
      value: what the caller gave.
      or_none: None will do, too.

    Raises:
      ValueError: for everything else, 0 and 1 as well.

    Example:
      >>> check_flag("bounded", None, or_none=True)
    """
    if not (isinstance(value, bool | np.bool_) or (or_none and value is None)):
        raise ValueError(f"{name} must be True or False{' or None' if or_none else ''}, got {came(value)}.")


def check_count(name: str, value: Any, *, least: int = 1) -> None:
    """Refuse anything but an integer that is large enough.

    Args:
      name: of the argument.
      value: what the caller gave.
      least: 1, or 0.

    Raises:
      ValueError: for everything else, True as well.

    Example:
      >>> check_count("max_steps", 200)
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        wanted = "a positive integer" if least else "an integer, not negative"
        raise ValueError(f"{name} must be {wanted}, got {came(value)}.")


def check_number(name: str, value: Any, *, positive: bool = False) -> None:
    """Refuse anything but a finite number, 0 or more; one that is being traced passes.

    Args:
      name: of the argument.
      value: what the caller gave.
      positive: it must not be 0 either.

    Raises:
      ValueError: for everything else, True as well.

    Example:
      >>> check_number("tolerance", 0.0)
    """
    if isinstance(value, jax.core.Tracer):
        return
    number = isinstance(value, int | float | np.number | np.ndarray | jax.Array) and not isinstance(value, bool)
    number = number and np.shape(value) == () and jnp.issubdtype(jnp.result_type(value), jnp.number)
    number = number and not jnp.issubdtype(jnp.result_type(value), jnp.complexfloating)
    if not (number and 0 <= value < np.inf) or (positive and value == 0):
        wanted = "positive and finite" if positive else "a finite number, 0 or more"
        raise ValueError(f"{name} must be {wanted}, got {came(value)}.")


def check_array(name: str, value: Any, wanted: str, n_axes: tuple[int, ...], *, floating: bool = True) -> None:
    """Refuse anything but an array of numbers with as many axes as wanted.

    Args:
      name: of the argument.
      value: what the caller gave.
      wanted: its shape in words, e.g. "(n_hidden,) or (n_points, n_hidden)".
      n_axes: how many axes it may have.
      floating: integers and booleans will not do.

    Raises:
      ValueError: for lists, keys, complex numbers, text, and other shapes.

    Example:
      >>> check_array("hidden", np.ones(2), "(n_hidden,)", (1,))
    """
    dtype: Any = getattr(value, "dtype", None)
    shape = getattr(value, "shape", None)
    fits = dtype is not None and isinstance(shape, tuple) and len(shape) in n_axes
    kinds = (jnp.floating,) if floating else (jnp.floating, jnp.integer, jnp.bool_)
    if not fits or not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        raise ValueError(f"{name} must be {'floating' if floating else 'real numbers'}, {wanted}, got {came(value)}.")


def check_vectors(name: str, value: Any, wanted: str) -> None:
    """Refuse anything but one vector or an array of them, real or complex.

    Args:
      name: of the argument.
      value: what the caller gave.
      wanted: its shape in words.

    Raises:
      ValueError: for everything else.

    Example:
      >>> check_vectors("left", np.ones(2, complex), "(n_hidden,) or (n_modes, n_hidden)")
    """
    dtype: Any = getattr(value, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact) or getattr(value, "ndim", 0) not in (1, 2):
        raise ValueError(f"{name} must be floating or complex, {wanted}, got {came(value)}.")


def as_numpy(name: str, value: Any, wanted: str, *, floating: bool = False) -> np.ndarray:
    """An argument of a host function as NumPy; lists will do.

    Args:
      name: of the argument.
      value: what the caller gave.
      wanted: what it must be, in words.
      floating: integers and booleans will not do.

    Returns:
      The array, of any shape, of real numbers.

    Raises:
      ValueError: for lists of unequal lists, keys, complex numbers, text.

    Example:
      >>> as_numpy("candidates", [[0.0, 1.0]], "(n_candidates, n_hidden)").shape
      (1, 2)
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be {wanted}, got {came(value)}.") from error
    kinds = (jnp.floating,) if floating else (jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
        what = "floating" if floating else "real numbers"
        raise ValueError(f"{name} must be {what}, {wanted}, got {came(array if array.ndim else value)}.")
    return array


def check_step(step_fn: Any, *, hashable: bool = True) -> None:
    """Refuse what cannot be a step function.

    Args:
      step_fn: what the caller gave.
      hashable: it must be, to be known again by jit.

    Raises:
      ValueError: if it cannot be called, or hashed.

    Example:
      >>> check_step(len)
    """
    if not callable(step_fn):
        raise ValueError(f"step_fn must be a function (params, hidden, inputs) -> hidden, got {came(step_fn)}.")
    if hashable:
        try:
            hash(step_fn)
        except TypeError as error:
            raise ValueError(
                f"step_fn must be hashable, a function or one of our adapters; got {type(step_fn)}."
            ) from error


def check_solver(solver: Any) -> None:
    """Refuse what is no solver.

    Args:
      solver: what the caller gave.

    Raises:
      ValueError: if it is no `Solver` of two hashable functions.

    Example:
      >>> check_solver(Solver(len, len))
    """
    try:
        known = (
            isinstance(solver, Solver) and callable(solver.init) and callable(solver.step) and hash(solver) is not None
        )
    except TypeError:
        known = False
    if not known:
        raise ValueError(
            f"solver must be a Solver of two hashable functions, e.g. newton_krylov(), got {came(solver)}."
        )


def check_params(params: Any, name: str = "params") -> None:
    """Refuse params with leaves that are no numbers.

    Args:
      params: pytree.
      name: of the argument.

    Raises:
      ValueError: naming the first leaf that is text, a function, an object.

    Example:
      >>> check_params({"w": np.ones(2), "n": 3})
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        try:
            known = not isinstance(leaf, str | type | np.dtype) and jnp.result_type(leaf) is not None
        except TypeError:
            known = False
        if not known:
            raise ValueError(f"{name}{jax.tree_util.keystr(path)} must be numbers, got {came(leaf)}.")


def check_host(*trees: Any) -> None:
    """Refuse to run inside a transformation: a host function decides by numbers, which a trace does not have.

    Args:
      *trees: arguments of the caller.

    Raises:
      ValueError: inside jax.jit, and if an array is being traced, as by vmap or grad.

    Example:
      >>> check_host(np.ones(2))
    """
    here = jax.device_put(0.0)  # a trace inside jit; elsewhere a number, and nothing to compile
    if any(isinstance(x, jax.core.Tracer) for x in (*jax.tree.leaves(trees), here)):
        raise ValueError("this function runs on the host: it must be called outside jit, vmap and grad, on numbers.")


def check_finite(name: str, tree: Any) -> None:
    """Refuse NaN and infinity.

    Args:
      name: of the argument.
      tree: pytree of numbers.

    Raises:
      ValueError: naming the first leaf that holds any.

    Example:
      >>> check_finite("params", {"w": np.ones(2), "n": 3})
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"{name}{jax.tree_util.keystr(path)} must be finite, it holds NaN or infinity.")


def candidates_with_inputs(candidates: Any, inputs: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Candidates as they are, and the inputs of each.

    Args:
      candidates: what the caller gave, to be (n_candidates, n_hidden).
      inputs: what the caller gave, to be None, (n_inputs,) or (n_candidates, n_inputs).

    Returns:
      candidates (n_candidates, n_hidden), and inputs (n_candidates, n_inputs) float64 or None.

    Raises:
      ValueError: if they are no such arrays of numbers, or do not fit.

    Example:
      >>> candidates_with_inputs(np.ones((2, 3)), [0.5])[1].tolist()
      [[0.5], [0.5]]
    """
    candidates = as_numpy("candidates", candidates, "(n_candidates, n_hidden)", floating=True)
    if candidates.ndim != 2 or not candidates.size:
        raise ValueError(
            f"candidates must be (n_candidates, n_hidden), at least one of at least one unit, got {candidates.shape}."
        )
    if inputs is None:
        return candidates, None
    n_candidates = len(candidates)
    wanted = f"None, (n_inputs,) or (n_candidates, n_inputs) with n_candidates = {n_candidates}"
    inputs = as_numpy("inputs", inputs, wanted)
    if inputs.ndim not in (1, 2) or (inputs.ndim == 2 and len(inputs) != n_candidates):
        raise ValueError(f"inputs must be {wanted}, got {inputs.shape}.")
    check_finite("inputs", inputs)
    return candidates, np.broadcast_to(inputs, (n_candidates, inputs.shape[-1])).astype(np.float64)


def check_path(name: str, path: Any) -> None:
    """Refuse what is no path.

    Args:
      name: of the argument.
      path: what the caller gave.

    Raises:
      ValueError: if it is neither text nor a path.

    Example:
      >>> check_path("checkpoint", "out")
    """
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise ValueError(f"{name} must be the path of a folder, got {came(path)}.")


def step(step_fn: Callable[..., Any], params: Any, hidden: Any, inputs: Any) -> Any:
    """One call of a step function, whose failure says what it was called with.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,).
      inputs: (n_inputs,) or None.

    Returns:
      (n_hidden,), what it returned.

    Raises:
      ValueError: if it cannot take these, or returns anything but an array of the shape of hidden.

    Example:
      >>> step(lambda p, h, u: p * h, 2.0, jnp.ones(2), None).tolist()
      [2.0, 2.0]
    """
    with calling(hidden, inputs):
        new = step_fn(params, hidden, inputs)
    check_returned(new, hidden)
    return new


@contextlib.contextmanager
def calling(hidden: Any, inputs: Any) -> Iterator[None]:
    """While a step function is called: its failure says what it was called with.

    Args:
      hidden: (n_hidden,).
      inputs: (n_inputs,) or None.

    Returns:
      A context to call it in.

    Raises:
      ValueError: where Python or JAX found something wrong inside; what else the user's own code raises is the user's.

    Example:
      >>> with calling(jnp.ones(2), None):
      ...     pass
    """
    try:
        yield
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        drive = None if inputs is None else inputs.shape
        said = str(error) if not isinstance(error, KeyError) else f"there is no {error}"
        what = f"hidden {hidden.shape} and inputs {drive} with these params"
        raise ValueError(f"step_fn cannot take {what}: {said}") from error


def check_returned(new: Any, hidden: Any) -> None:
    """Refuse a new state that is none.

    Args:
      new: what a step function returned, or its shape and dtype.
      hidden: (n_hidden,), what it was given.

    Raises:
      ValueError: if it is no array of that shape.

    Example:
      >>> check_returned(jnp.zeros(2), jnp.ones(2))
    """
    if getattr(new, "shape", None) != hidden.shape or not hasattr(new, "dtype"):
        raise ValueError(f"step_fn must return the shape of hidden, {hidden.shape}, it returned {_returned(new)}.")


def _returned(value: Any) -> str:
    return str(value.shape) if hasattr(value, "shape") else type(value).__name__
