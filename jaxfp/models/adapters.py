"""A network as a step function: `from_arrays` returns `(step_fn, params)`, as do those of `flax_adapters`.

`step_fn(params, hidden, inputs) -> hidden` is one step of one flat state `hidden` (n_hidden,) under the drive `inputs`
(n_inputs,), or None for no drive. It is a frozen, hashable dataclass, and equal for equal cells, so a jit that takes it
as a static argument traces once. The result has the dtype of `hidden`; inputs are converted to it; weights are not.

`step_fn.bounded` is True only if the map at constant inputs is known to send a box into itself, and
`step_fn.box(params, inputs)` is that box, which holds every fixed point. Why:

  [-1, 1]^N               tanh: |tanh| < 1. gru (either one), ugrnn, mgu, and euler in rate form with 0 < alpha <= 1: h'
                          is a weighted mean of h and a tanh, both in [-1, 1].
  |x_i - d_i| <= r_i      euler in current form and low_rank, 0 < alpha <= 1, with d = W_in u + b, r_i = sum_j |W_ij|:
                          x' is a weighted mean of x and W tanh(x) + d, and |(W tanh x)_i| <= r_i.
  |h_i| <= 1,             lstm: h = o tanh(c') with 0 < o < 1. Let f_i be the forget gate at its largest preactivation
  |c_i| <= 1 / (1 - f_i)  over |h| <= 1, z_i = d_i + sum_j |W_ij|: |c'| <= f |c| + 1 <= f / (1 - f) + 1 = 1 / (1 - f).
                          For the sigmoid, 1 / (1 - f_i) = 1 + exp(z_i).

A fixed point lies in the box whether or not the search began there: on it h or x equals the tanh or target above, and
c = i g / (1 - f). ReLU, other activations, residual cells and modules of unknown type are not bounded.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments
from jaxfp.models import equations
from jaxfp.models.equations import CellKind, Form
from jaxfp.types import Array, Params

Box = tuple[jax.Array, jax.Array]
BoxRule = Callable[[Params, Any, int], Box]


@dataclasses.dataclass(frozen=True)
class ArraysStep:
    """One step of the network that `from_arrays` describes; `alpha` is 1 for kinds without a leak."""

    kind: CellKind
    alpha: float = 1.0
    form: Form = "rate"

    def __call__(self, params: Params, hidden: Any, inputs: Any) -> jax.Array:
        """The next state (n_hidden,)."""
        n_units = equations.n_units(params)
        hidden = checked_hidden(hidden, 2 * n_units if self.kind == "lstm" else n_units)
        inputs = checked_inputs(inputs, params["w_in"].shape[1], hidden.dtype)
        if self.kind in ("euler", "low_rank"):
            return equations.euler(params, hidden, inputs, self.alpha, self.form).astype(hidden.dtype)
        return equations.EQUATIONS[self.kind](params, hidden, inputs).astype(hidden.dtype)

    @property
    def bounded(self) -> bool:
        """Whether the map at constant inputs is known to send a box into itself."""
        return self.kind != "relu" and self.alpha <= 1

    def box(self, params: Params, inputs: Any) -> Box:
        """(lower, upper), each (n_hidden,), of a box that the map at constant `inputs` sends into itself."""
        if not self.bounded:
            raise ValueError(f"{self} has no known box: it is not bounded.")
        n_units = equations.n_units(params)
        if self.kind != "lstm" and self.form == "rate":
            return unit_box(params, inputs, n_units)
        w_in = jnp.asarray(params["w_in"])
        drive = equations.drive(params, checked_inputs(inputs, w_in.shape[1], w_in.dtype))
        if self.kind == "lstm":
            forget = slice(n_units, 2 * n_units)
            return lstm_box(params["w_rec"][forget], drive[forget])
        w_rec = params["m"] @ params["n"].T / n_units if self.kind == "low_rank" else params["w_rec"]
        radius = jnp.abs(w_rec).sum(axis=1)
        return drive - radius, drive + radius


def from_arrays(
    kind: CellKind, arrays: Mapping[str, Any], *, alpha: float | None = None, form: Form | None = None
) -> tuple[ArraysStep, dict[str, Array]]:
    """A network given by its weight matrices, as a step function and params.

    The equations are in the docstring of `jaxfp.models.equations`. Row i of a matrix holds the weights onto unit i, the
    transpose of flax's and Keras's kernels. The G gates are stacked as in PyTorch: gru reset, update, candidate; lstm
    input, forget, cell, output; and ugrnn update, candidate. `from_torch` and `from_keras` take what those libraries
    keep.

    Args:
      kind: "tanh", "relu", "euler", "gru", "gru_reset_before", "lstm", "ugrnn" or "low_rank".
      arrays: dict of floating arrays of N units, M inputs and G gates (1 if not said above):
        `w_rec` (G*N, N), but for low_rank `m` and `n` (N, R) with W = m n^T / N;
        `w_in` (G*N, M), optional: without it M = 0;
        `b` (G*N,), and for a gru `b_rec` (3*N,), optional: zeros.
      alpha: dt/tau > 0, for "euler" and "low_rank". A constant, not a parameter, since `bounded` depends on it.
      form: "rate" (default) or "current", for "euler".

    Returns:
      step_fn, an `ArraysStep`; n_hidden is N, for an lstm 2*N: the concatenated (h, c).
      params, dict of `arrays` as given (NumPy float64 stays NumPy float64) with what was optional filled in.

    Raises:
      ValueError: on an unknown kind, an `alpha` or `form` that is missing, wrong or not wanted, missing or extra
        arrays, wrong shapes, dtypes that are not real floating, and weights that are not finite.

    Example:
      >>> step_fn, params = from_arrays("tanh", {"w_rec": np.array([[2.0]])})
      >>> step_fn(params, jnp.zeros(1), None).tolist(), step_fn.bounded
      ([0.0], True)
    """
    if not isinstance(kind, str) or kind not in equations.N_GATES:
        raise ValueError(f"kind must be one of {sorted(equations.N_GATES)}, got {arguments.came(kind)}.")
    if form is not None and kind != "euler":
        raise ValueError(f'form goes with kind "euler" and no other, got kind={kind!r}, form={form!r}.')
    if alpha is not None and kind not in ("euler", "low_rank"):
        raise ValueError(f'alpha goes with kind "euler" or "low_rank", got kind={kind!r}, alpha={alpha}.')
    form = "current" if kind == "low_rank" else "rate" if form is None else form
    if kind in ("euler", "low_rank"):
        equations.check_euler(alpha, form)
    params = equations.check_arrays(kind, arrays)
    check_finite(params)
    return ArraysStep(kind, 1.0 if alpha is None else float(alpha), form), params


def unit_box(params: Params, inputs: Any, n_hidden: int) -> Box:
    """The box [-1, 1]^N.

    Args:
      params: not looked at, nor are the inputs: every rule for a box has these arguments.
      inputs: (n_inputs,) or None.
      n_hidden: N.

    Returns:
      (lower, upper), each (n_hidden,).

    Example:
      >>> unit_box(None, None, 1)[1].tolist()
      [1.0]
    """
    return -jnp.ones(n_hidden), jnp.ones(n_hidden)


def lstm_box(w_forget: Any, drive: Any) -> Box:
    """The box of an LSTM's state (h, c); see the docstring of this module.

    Args:
      w_forget: (N, N), the forget gate's recurrent weights.
      drive: (N,), what comes into that gate from outside, W_in u + b.

    Returns:
      (lower, upper), each (2*N,).

    Example:
      >>> lstm_box(jnp.zeros((1, 1)), jnp.zeros(1))[1].tolist()
      [1.0, 2.0]
    """
    cell_limit = 1 + jnp.exp(drive + jnp.abs(w_forget).sum(axis=1))
    upper = jnp.concatenate([jnp.ones_like(cell_limit), cell_limit])
    return -upper, upper


def check_finite(params: Params) -> None:
    """Refuse weights that are not finite.

    Args:
      params: pytree; leaves that are traced or no floating numbers pass.

    Raises:
      ValueError: naming the first leaf that holds NaN or infinity.

    Example:
      >>> check_finite({"w_rec": np.eye(2)})
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        concrete = not isinstance(leaf, jax.core.Tracer) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        if concrete and not np.isfinite(leaf).all():
            what = "NaN" if np.isnan(leaf).any() else "infinite"
            raise ValueError(f"{what} weights: {jax.tree_util.keystr(path)} must be finite.")


def checked_hidden(hidden: Any, n_hidden: int) -> jax.Array:
    """The state as an array of JAX, of the shape and the kind of numbers that a state has.

    Args:
      hidden: (n_hidden,), floating.
      n_hidden: the size it must have.

    Returns:
      (n_hidden,).

    Raises:
      ValueError: for another shape or dtype.

    Example:
      >>> checked_hidden(np.zeros(2, np.float32), 2).shape
      (2,)
    """
    hidden = jnp.asarray(hidden)
    if hidden.shape != (n_hidden,) or not jnp.issubdtype(hidden.dtype, jnp.floating):
        wanted = f"a floating array of shape (n_hidden,) = ({n_hidden},)"
        raise ValueError(f"hidden must be {wanted}, got {hidden.dtype}{hidden.shape}.")
    return hidden


def checked_inputs(inputs: Any, n_inputs: int, dtype: Any) -> jax.Array | None:
    """The drive in the dtype of the state, or None for no drive.

    Args:
      inputs: (n_inputs,) or None.
      n_inputs: the size it must have.
      dtype: of the state.

    Returns:
      (n_inputs,) or None.

    Raises:
      ValueError: for another shape.

    Example:
      >>> checked_inputs(np.eye(2)[0], 2, jnp.float32).tolist()
      [1.0, 0.0]
    """
    if inputs is None:
        return None
    if jnp.shape(inputs) != (n_inputs,):
        raise ValueError(f"inputs must be None or of shape (n_inputs,) = ({n_inputs},), got {jnp.shape(inputs)}.")
    return jnp.asarray(inputs, dtype)
