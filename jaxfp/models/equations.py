"""The update equations of the cells that are given by arrays, their layout, and random weights.

Each equation is written once, for one state h and one input u. With a = dt/tau and d = W_in u + b:

  tanh, relu  h' = phi(W h + d)
  euler       rate form     h' = (1 - a) h + a tanh(W h + d)       h is a firing rate
              current form  x' = (1 - a) x + a (W tanh(x) + d)     x is a synaptic current, tanh(x) its rate
  low_rank    current form with W = m n^T / N
  gru         r, z = sigmoid(W_r h + e_r + d_r), sigmoid(W_z h + e_z + d_z);  c = tanh(d_c + r * (W_c h + e_c));
              h' = (1 - z) c + z h
  gru_reset_before  the same but for c = tanh(d_c + W_c (r * h))
  lstm        i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of W h + d;  c' = f c + i g;  h' = o tanh(c');  state (h, c)
  ugrnn       g, c = sigmoid(W_g h + d_g), tanh(W_c h + d_c);  h' = g h + (1 - g) c

N units, M inputs and G gates have the arrays `w_rec` (G*N, N), `w_in` (G*N, M), `b` (G*N,), and a gru `b_rec` (3*N,),
the e above. Row i holds the weights onto unit i; the gates are stacked in the order above. A low-rank cell has `m` and
`n` (N, R) in place of `w_rec`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments
from jaxfp.types import Array

Arrays = Mapping[str, Array]
CellKind = Literal["tanh", "relu", "euler", "gru", "gru_reset_before", "lstm", "ugrnn", "low_rank"]
Form = Literal["rate", "current"]

N_GATES = {
    "tanh": 1, "relu": 1, "euler": 1, "low_rank": 1, "gru": 3, "gru_reset_before": 3, "lstm": 4, "ugrnn": 2
}  # fmt: skip


def drive(arrays: Arrays, inputs: Any) -> jax.Array:
    """What comes from outside: W_in u + b of all gates.

    Args:
      arrays: with `b` (G*N,) and `w_in` (G*N, M).
      inputs: (M,), or None for no input term.

    Returns:
      (G*N,).

    Example:
      >>> drive({"w_in": jnp.ones((2, 1)), "b": jnp.ones(2)}, jnp.ones(1)).tolist()
      [2.0, 2.0]
    """
    b = jnp.asarray(arrays["b"])
    return b if inputs is None else arrays["w_in"] @ inputs + b


def vanilla(
    arrays: Arrays, hidden: Any, inputs: Any, activation: Callable[[jax.Array], jax.Array] = jnp.tanh
) -> jax.Array:
    """One step of h' = phi(W h + d).

    Args:
      arrays: of one network, floating; shapes as in the docstring of this module.
      hidden: (N,), the state.
      inputs: (M,), or None for no input term.
      activation: phi, unit by unit.

    Returns:
      (N,), the next state.

    Example:
      >>> vanilla({"w_rec": jnp.eye(2), "b": jnp.ones(2)}, jnp.ones(2), None, jax.nn.relu).tolist()
      [2.0, 2.0]
    """
    return activation(arrays["w_rec"] @ hidden + drive(arrays, inputs))


def euler(arrays: Arrays, hidden: Any, inputs: Any, alpha: float, form: Form) -> jax.Array:
    """One Euler step, in rate or current form; `arrays` has `w_rec`, or `m` and `n`.

    Args:
      arrays: of one network, floating; shapes as in the docstring of this module.
      hidden: (N,), the state.
      inputs: (M,), or None for no input term.
      alpha: dt / tau, the length of the step.
      form: "rate" or "current".

    Returns:
      (N,), the next state.

    Example:
      >>> euler({"w_rec": jnp.eye(1), "b": jnp.ones(1)}, jnp.zeros(1), None, 0.5, "current").tolist()
      [0.5]
    """
    # (1 - a) x + a t, not x + a (t - x): the same map, but in floating point, too, a mixture of x and t
    rate = hidden if form == "rate" else jnp.tanh(hidden)
    low_rank = "m" in arrays
    recurrent = arrays["m"] @ (arrays["n"].T @ rate) / hidden.shape[0] if low_rank else arrays["w_rec"] @ rate
    target = recurrent + drive(arrays, inputs)
    return (1 - alpha) * hidden + alpha * (jnp.tanh(target) if form == "rate" else target)


def gru(arrays: Arrays, hidden: Any, inputs: Any) -> jax.Array:
    """One step of the GRU whose reset gate acts after the recurrent product (PyTorch; Keras with reset_after).

    Args:
      arrays: of one network, floating; shapes as in the docstring of this module.
      hidden: (N,), the state.
      inputs: (M,), or None for no input term.

    Returns:
      (N,), the next state.

    Example:
      >>> arrays = {"w_rec": jnp.zeros((3, 1)), "b": jnp.zeros(3), "b_rec": jnp.zeros(3)}
      >>> gru(arrays, jnp.ones(1), None).tolist()
      [0.5]
    """
    reset_in, update_in, candidate_in = jnp.split(drive(arrays, inputs), 3)
    reset_rec, update_rec, candidate_rec = jnp.split(arrays["w_rec"] @ hidden + arrays["b_rec"], 3)
    update = jax.nn.sigmoid(update_in + update_rec)
    candidate = jnp.tanh(candidate_in + jax.nn.sigmoid(reset_in + reset_rec) * candidate_rec)
    return (1 - update) * candidate + update * hidden


def gru_reset_before(arrays: Arrays, hidden: Any, inputs: Any) -> jax.Array:
    """One step of the GRU whose reset gate acts before the recurrent product (Keras without reset_after).

    Args:
      arrays: of one network, floating; shapes as in the docstring of this module.
      hidden: (N,), the state.
      inputs: (M,), or None for no input term.

    Returns:
      (N,), the next state.

    Example:
      >>> gru_reset_before({"w_rec": jnp.zeros((3, 1)), "b": jnp.zeros(3)}, jnp.ones(1), None).tolist()
      [0.5]

    Source: Cho et al. (2014), arXiv:1406.1078.
    """
    reset_in, update_in, candidate_in = jnp.split(drive(arrays, inputs), 3)
    reset_rec, update_rec, candidate_rec = jnp.split(arrays["w_rec"], 3)
    update = jax.nn.sigmoid(update_in + update_rec @ hidden)
    candidate = jnp.tanh(candidate_in + candidate_rec @ (jax.nn.sigmoid(reset_in + reset_rec @ hidden) * hidden))
    return (1 - update) * candidate + update * hidden


def lstm(arrays: Arrays, hidden: Any, inputs: Any) -> jax.Array:
    """One step of the LSTM on its concatenated state (h, c).

    Args:
      arrays: of one network, floating; shapes as in the docstring of this module.
      hidden: (2*N,), the state (h, c).
      inputs: (M,), or None for no input term.

    Returns:
      (2*N,), the next state.

    Example:
      >>> state = lstm({"w_rec": jnp.zeros((4, 1)), "b": jnp.zeros(4)}, jnp.array([0.0, 2.0]), None)
      >>> [round(x, 4) for x in state.tolist()]
      [0.3808, 1.0]
    """
    h, c = jnp.split(hidden, 2)
    into, forget, cell, out = jnp.split(arrays["w_rec"] @ h + drive(arrays, inputs), 4)
    c = jax.nn.sigmoid(forget) * c + jax.nn.sigmoid(into) * jnp.tanh(cell)
    return jnp.concatenate([jax.nn.sigmoid(out) * jnp.tanh(c), c])


def ugrnn(arrays: Arrays, hidden: Any, inputs: Any) -> jax.Array:
    """One step of the update-gate RNN.

    Args:
      arrays: of one network, floating; shapes as in the docstring of this module.
      hidden: (N,), the state.
      inputs: (M,), or None for no input term.

    Returns:
      (N,), the next state.

    Example:
      >>> ugrnn({"w_rec": jnp.zeros((2, 1)), "b": jnp.zeros(2)}, jnp.ones(1), None).tolist()
      [0.5]

    Source: Collins, Sohl-Dickstein & Sussillo (2017), arXiv:1611.09913.
    """
    update, candidate = jnp.split(arrays["w_rec"] @ hidden + drive(arrays, inputs), 2)
    gate = jax.nn.sigmoid(update)
    return gate * hidden + (1 - gate) * jnp.tanh(candidate)


EQUATIONS: dict[str, Callable[[Arrays, Any, Any], jax.Array]] = {
    "tanh": vanilla,
    "relu": functools.partial(vanilla, activation=jax.nn.relu),
    "gru": gru,
    "gru_reset_before": gru_reset_before,
    "lstm": lstm,
    "ugrnn": ugrnn,
}


def n_units(arrays: Arrays) -> int:
    """Number of units N of a network with these arrays.

    Args:
      arrays: with `w_rec` (G*N, N), or `m` (N, R).

    Returns:
      N.

    Example:
      >>> n_units({"w_rec": np.zeros((3, 1))})
      1
    """
    return arrays["m"].shape[0] if "m" in arrays else arrays["w_rec"].shape[1]


def init_arrays(
    key: jax.Array,
    kind: CellKind,
    n_hidden: int,
    n_inputs: int,
    *,
    gain: float = 1.0,
    rank: int | None = None,
    dtype: Any = jnp.float32,
) -> dict[str, jax.Array]:
    """Random weights of one network, in the layout of `from_arrays`, to start training from.

    Recurrent weights are N(0, gain^2 / n_hidden), so that the spectral radius of each gate's matrix tends to `gain`
    (circular law); input weights are N(0, 1 / n_inputs), so that unit-variance inputs drive each unit with unit
    variance. Low rank: n is N(0, 1) and m is N(0, gain^2), entry by entry. Biases are 0, except 1 for the gate that
    keeps the state (update of gru and ugrnn, forget of lstm), so that memory does not decay before training begins.

    Args:
      key: a jax.random.key.
      kind: "tanh", "relu", "euler", "gru", "gru_reset_before", "lstm", "ugrnn" or "low_rank".
      n_hidden: number of units N. The state is (N,), of an lstm (2*N,).
      n_inputs: number of inputs M; 0 for an autonomous network.
      gain: scale of the recurrent weights.
      rank: R, for "low_rank" only.
      dtype: floating dtype of the weights.

    Returns:
      dict of arrays: `w_rec` (G*N, N) with G gates, or `m` and `n` (N, R); `w_in` (G*N, M); `b` (G*N,).

    Raises:
      ValueError: on an unknown kind, sizes below 1 (`n_inputs` below 0), or a `rank` that is missing or not wanted.

    Example:
      >>> {name: array.shape for name, array in init_arrays(jax.random.key(0), "tanh", 3, 2).items()}
      {'w_rec': (3, 3), 'w_in': (3, 2), 'b': (3,)}
    """
    if kind not in N_GATES:
        raise ValueError(f"kind must be one of {sorted(N_GATES)}, got {kind!r}.")
    if n_hidden < 1 or n_inputs < 0:
        raise ValueError(f"n_hidden must be >= 1 and n_inputs >= 0, got {n_hidden} and {n_inputs}.")
    if (kind == "low_rank") != (rank is not None):
        raise ValueError(f'rank goes with kind="low_rank" and no other, got kind={kind!r}, rank={rank}.')
    if rank is not None and not 1 <= rank <= n_hidden:
        raise ValueError(f"rank must be between 1 and n_hidden = {n_hidden}, got {rank}.")

    n_rows = N_GATES[kind] * n_hidden
    key_rec, key_in = jax.random.split(key)
    arrays = {}
    if rank is not None:
        key_m, key_n = jax.random.split(key_rec)
        arrays["m"] = gain * jax.random.normal(key_m, (n_hidden, rank), dtype)
        arrays["n"] = jax.random.normal(key_n, (n_hidden, rank), dtype)
    else:
        arrays["w_rec"] = gain / n_hidden**0.5 * jax.random.normal(key_rec, (n_rows, n_hidden), dtype)
    arrays["w_in"] = max(n_inputs, 1) ** -0.5 * jax.random.normal(key_in, (n_rows, n_inputs), dtype)
    arrays["b"] = jnp.zeros(n_rows, dtype)
    keeps_state = {"gru": 1, "gru_reset_before": 1, "lstm": 1, "ugrnn": 0}
    if kind in keeps_state:
        start = keeps_state[kind] * n_hidden
        arrays["b"] = arrays["b"].at[start : start + n_hidden].set(1)
    return arrays


def check_arrays(kind: CellKind, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of a network as given, with those that are optional filled in; ValueError if they are not of its kind.

    Args:
      kind: "tanh", "relu", "euler", "gru", "gru_reset_before", "lstm", "ugrnn" or "low_rank".
      arrays: dict of floating arrays, shapes as in the docstring of this module. `w_in` may be missing (M = 0), and `b`
        and `b_rec` (zeros).

    Returns:
      dict of all arrays of that kind. NumPy arrays stay NumPy arrays, and no dtype changes.

    Raises:
      ValueError: on missing or extra arrays, wrong shapes, and dtypes that are not real floating.

    Example:
      >>> check_arrays("relu", {"w_rec": np.eye(2)})["b"]
      array([0., 0.])
    """
    if not isinstance(arrays, Mapping):
        raise ValueError(f"arrays must be a mapping of names to arrays, got {arguments.came(arrays)}.")
    required = {"m", "n"} if kind == "low_rank" else {"w_rec"}
    optional = {"w_in", "b", "b_rec"} if kind == "gru" else {"w_in", "b"}
    if not required <= set(arrays) <= required | optional:
        wanted = f"{sorted(required)} and optionally {sorted(optional)}"
        raise ValueError(f'arrays of kind "{kind}" must be {wanted}, got {sorted(map(str, arrays))}.')
    checked: dict[str, Array] = {
        name: array if isinstance(array, jax.Array) else _as_array(name, array) for name, array in arrays.items()
    }
    for name, array in checked.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must have a real floating dtype, got {array.dtype}.")

    n_gates = N_GATES[kind]
    gates = f"{n_gates} * " if n_gates > 1 else ""
    if kind == "low_rank":
        shapes = checked["m"].shape, checked["n"].shape
        if len(shapes[0]) != 2 or shapes[0] != shapes[1] or shapes[0][0] < shapes[0][1]:
            raise ValueError(
                f"m and n must both be (n_hidden, rank), rank <= n_hidden, got {shapes[0]} and {shapes[1]}."
            )
    else:
        shape = checked["w_rec"].shape
        if len(shape) != 2 or shape[0] != n_gates * shape[1]:
            hint = _hint(len(shape) == 2 and shape[1] == n_gates * shape[0])
            raise ValueError(f"w_rec must be ({gates}n_hidden, n_hidden), got {shape}{hint}.")
    n_rows = n_gates * n_units(checked)
    dtype = checked[min(required)].dtype
    for name in sorted(optional):
        array = checked.setdefault(name, np.zeros((n_rows, 0) if name == "w_in" else n_rows, dtype))
        if name != "w_in" and array.shape != (n_rows,):
            raise ValueError(f"{name} must be ({gates}n_hidden,) = ({n_rows},), got {array.shape}.")
        if name == "w_in" and (array.ndim != 2 or array.shape[0] != n_rows):
            hint = _hint(array.ndim == 2 and array.shape[1] == n_rows)
            wanted = f"({gates}n_hidden, n_inputs) = ({n_rows}, n_inputs)"
            raise ValueError(f"w_in must be {wanted}, got {array.shape}{hint}.")
    return checked


def check_euler(alpha: float | None, form: str | None) -> None:
    """Refuse options that no Euler step has.

    Args:
      alpha: dt / tau.
      form: "rate" or "current".

    Raises:
      ValueError: unless alpha is a positive finite number and `form` one of the two.

    Example:
      >>> check_euler(0.1, "rate")
    """
    if alpha is None:
        raise ValueError("alpha = dt/tau must be a positive finite number, got None.")
    arguments.check_number("alpha = dt/tau", alpha, positive=True)
    arguments.check_choice("form", form, ("rate", "current"))


def _as_array(name: str, array: Any) -> np.ndarray:
    try:
        return np.asarray(array)
    except ValueError as error:  # rows of unequal lengths
        raise ValueError(f"{name} must be an array, got {arguments.came(array)}.") from error


def _hint(transposed: bool) -> str:
    return " (is it transposed?)" if transposed else ""
