"""flax's cells as step functions: `from_nnx` and `from_linen` return `(step_fn, params)`.

What a step function is, and why its box is one: see `jaxfp.models.adapters`. These adapters stand apart from it since
importing flax takes nearly as long as importing jax.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx, traverse_util

from jaxfp import arguments
from jaxfp.models import adapters, cells
from jaxfp.types import Params


@dataclasses.dataclass(frozen=True)
class _Carry:
    """How a cell's carry, a pytree, lies in the flat state: its leaves, raveled, in this order."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(map(math.prod, self.shapes))

    def unflatten(self, hidden: jax.Array) -> Any:
        ends = np.cumsum([math.prod(self.shapes[leaf]) for leaf in self.order])
        parts = dict(zip(self.order, jnp.split(hidden, ends[:-1]), strict=True))
        return self.treedef.unflatten(parts[leaf].reshape(shape) for leaf, shape in enumerate(self.shapes))

    def flatten(self, carry: Any, dtype: Any) -> jax.Array:
        leaves, treedef = jax.tree.flatten(carry)
        shapes = tuple(jnp.shape(leaf) for leaf in leaves)
        if (treedef, shapes) != (self.treedef, self.shapes):
            raise ValueError(f"the cell must return a carry like {self}, got {treedef} with leaves {shapes}.")
        return jnp.concatenate([jnp.ravel(leaves[leaf]).astype(dtype) for leaf in self.order])


@dataclasses.dataclass(frozen=True)
class _FlaxStep:
    """What steps through flax cells share: the flat state, zero drive, and the box of a known cell."""

    carry: _Carry
    n_inputs: int
    box_rule: adapters.BoxRule | None

    def __call__(self, params: Params, hidden: Any, inputs: Any) -> jax.Array:
        """The next state (n_hidden,)."""
        hidden = adapters.checked_hidden(hidden, self.carry.size)
        inputs = adapters.checked_inputs(inputs, self.n_inputs, hidden.dtype)
        inputs = jnp.zeros(self.n_inputs, hidden.dtype) if inputs is None else inputs
        return self.carry.flatten(self.run(params, self.carry.unflatten(hidden), inputs), hidden.dtype)

    def run(self, params: Params, carry: Any, inputs: jax.Array) -> Any:
        """The cell's own call: carry to carry."""
        raise NotImplementedError

    @property
    def bounded(self) -> bool:
        """Whether the map at constant inputs is known to send a box into itself."""
        return self.box_rule is not None

    def box(self, params: Params, inputs: Any) -> adapters.Box:
        """(lower, upper), each (n_hidden,), of a box that the map at constant `inputs` sends into itself."""
        if self.box_rule is None:
            raise ValueError("this cell has no known box: it is not bounded.")
        return self.box_rule(params, adapters.checked_inputs(inputs, self.n_inputs, _dtype(params)), self.carry.size)


@dataclasses.dataclass(frozen=True)
class NnxStep(_FlaxStep):
    """One step of the flax.nnx cell `graphdef`; `streams` are the paths of random state that the step never reads."""

    graphdef: Any
    streams: tuple[tuple[Any, ...], ...]

    def run(self, params: Params, carry: Any, inputs: jax.Array) -> Any:
        """The cell's own call: carry to carry."""
        # never read, so anything does; a real key would put a random primitive into the program
        streams = traverse_util.unflatten_dict({path: np.uint32(0) for path in self.streams})
        return nnx.merge(self.graphdef, params, streams)(carry, inputs)[0]


@dataclasses.dataclass(frozen=True)
class LinenStep(_FlaxStep):
    """One step of the flax.linen module `cell`."""

    cell: nn.Module

    def run(self, params: Params, carry: Any, inputs: jax.Array) -> Any:
        """The cell's own call: carry to carry."""
        return self.cell.apply(params, carry, inputs)[0]


def from_nnx(cell: Any, *, n_inputs: int | None = None) -> tuple[adapters.ArraysStep | NnxStep, Params]:
    """A flax.nnx cell `(carry, inputs) -> (carry, out)` as a step function and params.

    The cell is copied, never changed. flax's layers cast to float32 where they are built with that compute dtype, as by
    default in nnx.SimpleCell; in the copy they follow their arguments instead: the same weights, more digits. A lower
    compute dtype was somebody's choice and stays.

    Args:
      cell: one of flax's or our cells, or any module with `initialize_carry(input_shape, rngs)`. The state is the
        carry, its leaves raveled and concatenated in the order of jax.tree.leaves; but (h, c) for flax's LSTMs, which
        keep (c, h).
      n_inputs: number of inputs; default `cell.in_features`.

    Returns:
      step_fn, an `NnxStep`; for our own cells the `ArraysStep` with their equation.
      params, nested dict of all arrays of the cell but its random state, as `nnx.to_pure_dict` names them.

    Raises:
      ValueError: if the cell draws random numbers (dropout), changes its own state (batch statistics), has weights that
        are not finite, or its carry or number of inputs cannot be known.

    Example:
      >>> step_fn, params = from_nnx(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)))
      >>> step_fn(params, jnp.zeros(3), jnp.ones(2)).shape, step_fn.bounded
      ((3,), True)
    """
    if not isinstance(cell, nnx.Module):
        raise ValueError(f"cell must be a flax.nnx module, got {type(cell).__name__} (see from_linen, from_arrays).")
    copy: Any = nnx.clone(cell)
    if type(copy) in (cells.EulerCell, cells.UGRNNCell, cells.LowRankCell):
        options = {name: getattr(copy, name) for name in ("alpha", "form") if hasattr(copy, name)}
        return adapters.from_arrays(copy.kind, nnx.to_pure_dict(nnx.state(copy)), **options)

    parts: list[Any] = [part for _, part in nnx.iter_graph(copy) if isinstance(part, nnx.Module)]
    for part in parts:
        if type(part).__module__.startswith("flax.") and _is_float32(part):
            part.dtype = None
    n_inputs = _checked_n_inputs(cell, getattr(cell, "in_features", None) if n_inputs is None else n_inputs)
    graphdef, *states = nnx.split(copy, nnx.RngState, ...)
    streams, state = states
    flat_streams = traverse_util.flatten_dict(nnx.to_pure_dict(streams))
    params = nnx.to_pure_dict(state)
    adapters.check_finite(params)

    def initialize() -> Any:
        return nnx.merge(graphdef, streams, state).initialize_carry((n_inputs,), nnx.Rngs(0))

    carry = _carry(cell, initialize, flip=type(cell) in (nnx.LSTMCell, nnx.OptimizedLSTMCell))
    # a layer that the user put in place of flax's own may do anything
    plain = all(type(part) is nnx.Linear for part in parts if part is not copy)
    step_fn = NnxStep(carry, n_inputs, _box_rule(_NNX_BOXES, copy) if plain else None, graphdef, tuple(flat_streams))
    _check_nnx(step_fn, params, flat_streams)
    return step_fn, params


def _check_nnx(step_fn: NnxStep, params: Params, streams: dict[tuple[Any, ...], Any]) -> None:
    """Raises ValueError if the step draws from `streams` or writes to `params`, as taking one step shows."""
    state = {**streams, **traverse_util.flatten_dict(params)}
    if any(isinstance(value, jax.core.Tracer) for value in state.values()):
        return  # within a user's trace no value is known
    cell = nnx.merge(step_fn.graphdef, traverse_util.unflatten_dict(state))
    # values without symmetry, so that no write leaves a value as it was by chance
    hidden, inputs = (
        jnp.linspace(-0.7, 0.9, size, dtype=_dtype(params)) for size in (step_fn.carry.size, step_fn.n_inputs)
    )
    try:
        carry, _ = cell(step_fn.carry.unflatten(hidden), inputs)
    except TypeError as error:
        raise ValueError(f"the cell cannot take n_inputs = {step_fn.n_inputs} inputs: {error}") from error
    step_fn.carry.flatten(carry, hidden.dtype)
    after = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(cell)))
    changed = [path for path in state if not _same(state[path], after.get(path))]
    if drawn := [path for path in changed if path in streams]:
        raise ValueError(f"the cell is stochastic: its step draws from {_dotted(drawn)}; see its `eval()`.")
    if changed:
        raise ValueError(f"the cell's step changes its own state {_dotted(changed)}; see its `eval()`.")


def _same(before: Any, after: Any) -> bool:
    # a key never changes, the count beside it does
    is_key = jnp.issubdtype(jnp.result_type(before), jax.dtypes.prng_key)
    return before is after or is_key or np.array_equal(before, after)


def from_linen(cell: nn.Module, variables: Any, *, n_inputs: int | None = None) -> tuple[LinenStep, dict[str, Any]]:
    """A flax.linen cell `(carry, inputs) -> (carry, out)` as a step function and params.

    Args:
      cell: one of flax's cells, or any module with `initialize_carry(key, input_shape)`. The state and the compute
        dtype are treated as by `from_nnx`; a module that is not flax's keeps its compute dtypes.
      variables: what `cell.init` returned or training made of it, {"params": ...}.
      n_inputs: number of inputs; needed only for modules that are not flax's.

    Returns:
      step_fn, a `LinenStep`.
      params, `variables` as plain dicts.

    Raises:
      ValueError: if the cell draws random numbers (dropout), changes its own state (batch statistics), does not fit
        `variables`, has weights that are not finite, or its carry or number of inputs cannot be known.

    Example:
      >>> cell = nn.GRUCell(features=3)
      >>> variables = cell.init(jax.random.key(0), jnp.zeros(3), jnp.zeros(2))
      >>> step_fn, params = from_linen(cell, variables)
      >>> step_fn(params, jnp.zeros(3), jnp.ones(2)).shape, step_fn.bounded
      ((3,), True)
    """
    if not isinstance(cell, nn.Module):
        raise ValueError(f"cell must be a flax.linen module, got {type(cell).__name__} (see from_nnx, from_arrays).")
    if not isinstance(variables, Mapping) or "params" not in variables:
        got = sorted(map(str, variables)) if isinstance(variables, Mapping) else arguments.came(variables)
        raise ValueError(f'variables must be a mapping with "params", got {got}.')
    params = flax.core.unfreeze(dict(variables))
    adapters.check_finite(params)
    known = type(cell) in _LINEN_BOXES
    if known and n_inputs is None:
        input_layer = next((name for name in ("i", "ir", "if", "ii") if name in params["params"]), None)
        n_inputs = None if input_layer is None else params["params"][input_layer]["kernel"].shape[0]
    n_inputs = _checked_n_inputs(cell, n_inputs)
    copy: Any = cell.clone(parent=None)
    if known and _is_float32(cell):
        copy = copy.clone(dtype=None)

    def initialize() -> Any:
        return copy.initialize_carry(jax.random.key(0), (n_inputs,))

    carry = _carry(cell, initialize, flip=type(cell) in (nn.LSTMCell, nn.OptimizedLSTMCell))
    step_fn = LinenStep(carry, n_inputs, _box_rule(_LINEN_BOXES, cell), copy)
    try:
        jax.eval_shape(step_fn, params, jnp.zeros(carry.size, _dtype(params)), None)
    except flax.errors.InvalidRngError as error:
        raise ValueError(f"the cell is stochastic: {error}") from error
    except flax.errors.ModifyScopeVariableError as error:
        raise ValueError(f"the cell's step changes its own state: {error}") from error
    except (flax.errors.FlaxError, TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise ValueError(f"the cell does not fit its variables and n_inputs = {n_inputs}: {error}") from error
    return step_fn, params


def _carry(cell: Any, initialize: Callable[[], Any], flip: bool) -> _Carry:
    """The layout of the carry that `initialize` returns, from shapes alone; `flip` puts the last leaf first."""
    if not hasattr(cell, "initialize_carry"):
        raise ValueError(f"cell must know the shape of its carry: {type(cell).__name__} has no initialize_carry.")
    leaves, treedef = jax.tree.flatten(jax.eval_shape(initialize))
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise ValueError(f"the carry must be floating arrays, got {treedef} of {leaves}.")
    return _Carry(treedef, tuple(leaf.shape for leaf in leaves), tuple(range(len(leaves)))[:: -1 if flip else 1])


def _box_rule(rules: Mapping[type, adapters.BoxRule], cell: Any) -> adapters.BoxRule | None:
    """The rule for the cell's exact type, if it has the activations on which the rule rests."""
    if type(cell) not in rules:
        return None
    tanh = cell.activation_fn in (jnp.tanh, jax.lax.tanh)
    sigmoid = getattr(cell, "gate_fn", jax.nn.sigmoid) in (jax.nn.sigmoid, jax.lax.logistic)
    return rules[type(cell)] if tanh and sigmoid and not getattr(cell, "residual", False) else None


def _flax_lstm_box(recurrent: Mapping[str, Any], into: Mapping[str, Any], inputs: Any) -> adapters.Box:
    drive = jnp.asarray(recurrent["bias"])
    return adapters.lstm_box(recurrent["kernel"].T, drive if inputs is None else inputs @ into["kernel"] + drive)


def _nnx_lstm_box(params: Params, inputs: Any, n_hidden: int) -> adapters.Box:
    return _flax_lstm_box(params["hf"], params["if_"], inputs)


def _nnx_optimized_lstm_box(params: Params, inputs: Any, n_hidden: int) -> adapters.Box:
    forget = slice(n_hidden // 2, n_hidden)  # gates i, f, g, o stacked along the last axis
    recurrent, into = (jax.tree.map(lambda w: w[..., forget], params[name]) for name in ("dense_h", "dense_i"))
    return _flax_lstm_box(recurrent, into, inputs)


def _linen_lstm_box(params: Params, inputs: Any, n_hidden: int) -> adapters.Box:
    return _flax_lstm_box(params["params"]["hf"], params["params"]["if"], inputs)


_NNX_BOXES: dict[type, adapters.BoxRule] = {
    nnx.SimpleCell: adapters.unit_box,
    nnx.GRUCell: adapters.unit_box,
    nnx.LSTMCell: _nnx_lstm_box,
    nnx.OptimizedLSTMCell: _nnx_optimized_lstm_box,
}
_LINEN_BOXES: dict[type, adapters.BoxRule] = {
    nn.SimpleCell: adapters.unit_box,
    nn.GRUCell: adapters.unit_box,
    nn.MGUCell: adapters.unit_box,
    nn.LSTMCell: _linen_lstm_box,
    nn.OptimizedLSTMCell: _linen_lstm_box,
}


def _is_float32(cell: Any) -> bool:
    dtype = getattr(cell, "dtype", None)
    return dtype is not None and jnp.dtype(dtype) == jnp.float32


def _dtype(params: Params) -> Any:
    """The dtype of the first floating leaf, as jax would hold it."""
    dtypes = (jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(params))
    return next((dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)), jnp.float32)


def _dotted(paths: list[tuple[Any, ...]]) -> str:
    return ", ".join(".".join(map(str, path)) for path in paths)


def _checked_n_inputs(cell: Any, n_inputs: Any) -> int:
    if isinstance(n_inputs, bool) or not isinstance(n_inputs, int | np.integer) or n_inputs < 0:
        raise ValueError(f"n_inputs of {type(cell).__name__} is not known: pass n_inputs >= 0, got {n_inputs!r}.")
    return int(n_inputs)
