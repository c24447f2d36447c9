"""Weights that were trained elsewhere as `(step_fn, params)` of `from_arrays`: PyTorch's and Keras's, as plain arrays.

Neither library is needed. What they call a cell is one of our equations (`equations`), and only the layout differs:

  PyTorch  weight_hh (G*N, N), weight_ih (G*N, M), bias_hh, bias_ih (G*N,); gates as ours: r, z, n of a GRU, i, f, g, o
           of an LSTM. A GRU's bias_hh stands inside its reset gate, so it is b_rec; else the biases are added.
  Keras    kernel (M, G*N), recurrent_kernel (N, G*N), transposed against ours, and bias (G*N,); gates z, r, h of a GRU,
           i, f, c, o of an LSTM. A GRU with reset_after, the default since version 2, has a bias (2, 3*N), of inputs
           and state; without it, it is our gru_reset_before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxfp import arguments
from jaxfp.models import adapters, equations
from jaxfp.types import Array

_CELLS = ("tanh", "relu", "gru", "lstm")
_TORCH_NAMES = {"weight_hh": "w_rec", "weight_ih": "w_in", "bias_ih": "b", "bias_hh": "b_rec"}


def from_torch(
    state_dict: Mapping[str, Any], *, cell: equations.CellKind, layer: int = 0, prefix: str | None = None
) -> tuple[adapters.ArraysStep, dict[str, Array]]:
    """One layer of a PyTorch RNN, GRU, LSTM, or of their cells.

    Args:
      state_dict: `module.state_dict()`: tensors or arrays by name; what else the module holds is left aside.
      cell: "tanh" or "relu" for an RNN by its nonlinearity, "gru" or "lstm".
      layer: which one of a stack; it is driven by the states of the one below. A cell (GRUCell) has no layers.
      prefix: what stands before "weight_hh", e.g. "rnn."; None if there is one such array alone.

    Returns:
      step_fn and params as of `from_arrays`, params in NumPy; an LSTM's state is (h, c).

    Raises:
      ValueError: for an unknown cell, a layer or prefix that is not there or not the only one, a projection
        (weight_hr), and shapes that do not fit the cell.

    Example:
      >>> step_fn, params = from_torch({"weight_hh_l0": np.eye(2), "weight_ih_l0": np.ones((2, 1))}, cell="tanh")
      >>> step_fn(params, np.zeros(2), np.zeros(1)).tolist()
      [0.0, 0.0]
    """
    arguments.check_choice("cell", cell, _CELLS)
    arguments.check_count("layer", layer, least=0)
    if prefix is not None and not isinstance(prefix, str):
        raise ValueError(f"prefix must be text or None, got {arguments.came(prefix)}.")
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"state_dict must be a mapping of names to arrays, got {arguments.came(state_dict)}.")
    before, after = _find_layer(list(map(str, state_dict)), layer, prefix)
    if f"{before}weight_hr{after}" in state_dict:
        raise ValueError(f"state_dict has {before}weight_hr{after}: LSTMs with projections are not supported.")
    arrays = {
        ours: _as_numpy(theirs, state_dict[f"{before}{theirs}{after}"])
        for theirs, ours in _TORCH_NAMES.items()
        if f"{before}{theirs}{after}" in state_dict
    }
    if cell != "gru" and "b_rec" in arrays:
        recurrent = arrays.pop("b_rec")
        b = arrays.get("b", np.zeros_like(recurrent))
        if b.shape != recurrent.shape:
            raise ValueError(f"bias_ih and bias_hh must have one shape, got {b.shape} and {recurrent.shape}.")
        arrays["b"] = b + recurrent
    return adapters.from_arrays(cell, arrays)


def _find_layer(names: list[str], layer: int, prefix: str | None) -> tuple[str, str]:
    """What stands before and after the names of a layer's arrays."""
    ends = {f"weight_hh_l{layer}": f"_l{layer}"} | ({"weight_hh": ""} if layer == 0 else {})
    found = [
        (name.removesuffix(end), after)
        for name in names
        for end, after in ends.items()
        if (name.endswith(end) if prefix is None else name == prefix + end)
    ]
    if len(found) != 1:
        wanted = " or ".join(sorted(ends)) + ("" if prefix is None else f" with prefix {prefix!r}")
        raise ValueError(f"layer {layer}: state_dict must hold one array {wanted}, got {sorted(names)}.")
    return found[0]


def from_keras(
    weights: Sequence[Any], *, cell: equations.CellKind, reset_after: bool | None = None
) -> tuple[adapters.ArraysStep, dict[str, Array]]:
    """A Keras SimpleRNN, GRU, LSTM, or one of their cells.

    Args:
      weights: `layer.get_weights()`: kernel, recurrent_kernel and, if the layer has one, bias.
      cell: "tanh" or "relu" for a SimpleRNN by its activation, "gru" or "lstm" with their default activations.
      reset_after: of a GRU; None tells it from the shape of the bias, so a GRU without a bias must say it.

    Returns:
      step_fn and params as of `from_arrays`, params in NumPy; an LSTM's state is (h, c).

    Raises:
      ValueError: for an unknown cell, another number of arrays, shapes that do not fit the cell, a GRU without bias
        that does not say reset_after, and a cell that says it and is none.

    Example:
      >>> step_fn, params = from_keras([np.ones((1, 2)), np.eye(2), np.zeros(2)], cell="tanh")
      >>> step_fn(params, np.zeros(2), np.zeros(1)).tolist()
      [0.0, 0.0]
    """
    arguments.check_choice("cell", cell, _CELLS)
    if reset_after is not None and (cell != "gru" or not isinstance(reset_after, bool)):
        raise ValueError(
            f'reset_after must be True or False, of cell="gru" only, got {arguments.came(reset_after)}, {cell=}.'
        )
    if not isinstance(weights, list | tuple) or len(weights) not in (2, 3):
        raise ValueError(f"weights must be kernel, recurrent_kernel and maybe bias, got {arguments.came(weights)}.")
    named = dict(zip(("kernel", "recurrent_kernel", "bias"), weights, strict=False))
    arrays = {name: _as_numpy(name, array) for name, array in named.items()}
    n_gates, n_units = equations.N_GATES[cell], len(np.atleast_1d(arrays["recurrent_kernel"]))
    for name in ("kernel", "recurrent_kernel"):
        if arrays[name].ndim != 2 or arrays[name].shape[1] != n_gates * n_units:
            raise ValueError(f"{name} must be (n, {n_gates} * n_hidden), got {arrays[name].shape}.")
    ours = {"w_in": arrays["kernel"].T, "w_rec": arrays["recurrent_kernel"].T}
    bias = arrays.get("bias")
    if cell != "gru":
        return adapters.from_arrays(cell, ours if bias is None else ours | {"b": bias})
    if reset_after is None and bias is None:
        raise ValueError("reset_after must be given for a GRU without bias: nothing else tells.")
    after = bias.ndim == 2 if reset_after is None and bias is not None else reset_after
    if bias is not None:
        shape = (2, 3 * n_units) if after else (3 * n_units,)
        if bias.shape != shape:
            raise ValueError(f"bias of a GRU with reset_after={after} must be {shape}, got {bias.shape}.")
        ours |= {"b": bias[0], "b_rec": bias[1]} if after else {"b": bias}
    gates = {name: np.split(array, 3) for name, array in ours.items()}
    ordered = {name: np.concatenate([reset, update, new]) for name, (update, reset, new) in gates.items()}
    return adapters.from_arrays("gru" if after else "gru_reset_before", ordered)


def _as_numpy(name: str, array: Any) -> np.ndarray:
    """A tensor, wherever it lies and whether or not it needs a gradient, or an array."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
    return arguments.as_numpy(name, array, "an array")
