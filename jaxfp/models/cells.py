"""Cells that flax lacks, as flax.nnx modules around the equations of `jaxfp.models.equations`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxfp.models import equations
from jaxfp.models.equations import Arrays, CellKind, Form, init_arrays


class _ArrayCell(nnx.RNNCellBase):
    """A flax cell around one of the equations; its Params are the arrays of `init_arrays`, by the same names."""

    kind: CellKind

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        gain: float = 1.0,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        rank: int | None = None,
    ):
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.param_dtype = param_dtype
        arrays = init_arrays(
            rngs.params(), self.kind, hidden_features, in_features, gain=gain, rank=rank, dtype=param_dtype
        )
        for name, array in arrays.items():
            setattr(self, name, nnx.Param(array))

    def update(self, arrays: Arrays, hidden: Any, inputs: Any) -> jax.Array:
        """One step of one state."""
        raise NotImplementedError

    def __call__(self, carry: Any, inputs: Any) -> tuple[jax.Array, jax.Array]:
        arrays = nnx.to_pure_dict(nnx.state(self))
        hidden = jnp.vectorize(lambda h, u: self.update(arrays, h, u), signature="(n),(m)->(n)")(carry, inputs)
        return hidden, hidden

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Callable[..., jax.Array] | None = None
    ) -> jax.Array:
        """The state at rest, zeros of shape (..., hidden_features), or `carry_init(key, shape, dtype)`."""
        shape = (*input_shape[:-1], self.hidden_features)
        if carry_init is None:
            return jnp.zeros(shape, self.param_dtype)
        if rngs is None:
            raise ValueError("carry_init needs rngs, got None.")
        return carry_init((rngs.carry if isinstance(rngs, nnx.Rngs) else rngs)(), shape, self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """Number of trailing axes of the inputs that are features, 1."""
        return 1


class EulerCell(_ArrayCell):
    """Vanilla RNN with leak: one Euler step of tau dh/dt = -h + tanh(W h + W_in u + b), or its current form.

    Args:
      in_features: number of inputs M.
      hidden_features: number of units N.
      alpha: dt / tau > 0, the length of a step in time constants.
      form: "rate", h' = (1 - alpha) h + alpha tanh(W h + W_in u + b), or "current",
        x' = (1 - alpha) x + alpha (W tanh(x) + W_in u + b).
      gain: standard deviation of the recurrent weights times sqrt(N).
      param_dtype: floating dtype of the weights; the arithmetic follows the arguments.
      rngs: flax random streams; `params` is drawn from once.

    Raises:
      ValueError: if `alpha` is not positive and finite, or `form` is unknown.

    Example:
      >>> cell = EulerCell(2, 3, alpha=0.1, form="current", rngs=nnx.Rngs(0))
      >>> carry, out = cell(jnp.zeros((5, 3)), jnp.ones((5, 2)))
      >>> carry.shape
      (5, 3)
    """

    kind = "euler"

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        alpha: float,
        form: Form = "rate",
        gain: float = 1.0,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        equations.check_euler(alpha, form)
        super().__init__(in_features, hidden_features, gain=gain, param_dtype=param_dtype, rngs=rngs)
        self.alpha = float(alpha)
        self.form = form

    def update(self, arrays: Arrays, hidden: Any, inputs: Any) -> jax.Array:
        """One step of one state (N,)."""
        return equations.euler(arrays, hidden, inputs, self.alpha, self.form)


class UGRNNCell(_ArrayCell):
    """Update-gate RNN: h' = g h + (1 - g) tanh(W_c h + d_c) with the gate g = sigmoid(W_g h + d_g).

    Args:
      in_features: number of inputs M.
      hidden_features: number of units N.
      gain: standard deviation of the recurrent weights times sqrt(N).
      param_dtype: floating dtype of the weights; the arithmetic follows the arguments.
      rngs: flax random streams; `params` is drawn from once.

    Example:
      >>> carry, out = UGRNNCell(2, 3, rngs=nnx.Rngs(0))(jnp.zeros(3), jnp.ones(2))
      >>> carry.shape
      (3,)

    Source: Collins, Sohl-Dickstein & Sussillo (2017), arXiv:1611.09913.
    """

    kind = "ugrnn"

    def update(self, arrays: Arrays, hidden: Any, inputs: Any) -> jax.Array:
        """One step of one state (N,)."""
        return equations.ugrnn(arrays, hidden, inputs)


class LowRankCell(_ArrayCell):
    """Low-rank RNN: x' = (1 - alpha) x + alpha (m n^T tanh(x) / N + W_in u + b).

    Args:
      in_features: number of inputs M.
      hidden_features: number of units N.
      rank: number R of columns of `m` and `n`.
      alpha: dt / tau > 0, the length of a step in time constants.
      gain: standard deviation of the entries of `m`; those of `n` have 1.
      param_dtype: floating dtype of the weights; the arithmetic follows the arguments.
      rngs: flax random streams; `params` is drawn from once.

    Raises:
      ValueError: if `alpha` is not positive and finite, or `rank` is not between 1 and N.

    Example:
      >>> carry, out = LowRankCell(2, 3, rank=1, alpha=0.1, rngs=nnx.Rngs(0))(jnp.zeros(3), jnp.ones(2))
      >>> carry.shape
      (3,)

    Source: Mastrogiuseppe & Ostojic (2018), Neuron 99:609. Differs: discrete time, and a bias.
    """

    kind = "low_rank"

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        rank: int,
        alpha: float,
        gain: float = 1.0,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        equations.check_euler(alpha, "current")
        super().__init__(in_features, hidden_features, gain=gain, param_dtype=param_dtype, rngs=rngs, rank=rank)
        self.alpha = float(alpha)

    def update(self, arrays: Arrays, hidden: Any, inputs: Any) -> jax.Array:
        """One step of one state (N,)."""
        return equations.euler(arrays, hidden, inputs, self.alpha, "current")
