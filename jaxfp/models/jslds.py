"""Jacobian switching linear dynamics: a network and a linear system that switches with its own state, trained together.

The network is h_t = F(h_{t-1}, u_t). Beside it, from the same start a_0 = h_0 and never looking at h, runs

  e_t = E(a_{t-1});    a_t = e_t + dF/dh (a_{t-1} - e_t) + dF/du (u_t - u*_t),    both derivatives at (e_t, u*_t),

the Taylor expansion of F to first order about the point e_t that a second network E proposes, its constant F(e_t, u*_t)
replaced by e_t: exact where e_t is a fixed point. u* is 0, or what of u stays the same through a trial (its static
lines, e.g. a context). One Jacobian-vector product gives F(e, u*) and both linear terms; no Jacobian is formed. Both
branches share the readout W x + b; `jslds_losses` says what is minimised. E is a residual network of two layers,
x <- tanh(x + W x + b), its weights 0 at first: E then is tanh(tanh(a)), not the identity. Its values are in (-1, 1),
where all fixed points of tanh, gru and ugrnn networks are, but not all of an lstm, whose cells c may exceed 1.

Smith, Linderman & Sussillo (2021), NeurIPS, arXiv:2111.01256.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxfp import arguments
from jaxfp.types import Params, StepFn


class ExpansionNetwork(nnx.Module):
    """Two layers x <- tanh(x + W x + b), from n_hidden units to as many, W = 0 and b = 0 at first.

    Args:
      n_hidden: size of the state.
      param_dtype: floating dtype of the weights.

    Example:
      >>> ExpansionNetwork(2)(jnp.zeros(2)).tolist()
      [0.0, 0.0]
    """

    def __init__(self, n_hidden: int, param_dtype: Any = jnp.float32):
        def layer() -> nnx.Linear:
            zeros = nnx.initializers.zeros_init()
            # zeros draw nothing from the random streams that flax asks for
            return nnx.Linear(n_hidden, n_hidden, kernel_init=zeros, param_dtype=param_dtype, rngs=nnx.Rngs(0))

        self.first, self.second = layer(), layer()

    def __call__(self, hidden: Any) -> jax.Array:
        """Expansion points (..., n_hidden) of states (..., n_hidden)."""
        for layer in (self.first, self.second):
            hidden = jnp.tanh(hidden + layer(hidden))
        return hidden


@dataclasses.dataclass(frozen=True)
class NnxFunction:
    """A flax.nnx module that holds nothing but weights, as a function of them: `(params, hidden) -> value`."""

    graphdef: Any

    def __call__(self, params: Params, hidden: Any) -> jax.Array:
        """Its value."""
        return nnx.merge(self.graphdef, params)(hidden)


def build_expansion(n_hidden: int, dtype: Any = jnp.float32) -> tuple[NnxFunction, Params]:
    """The expansion network as a function and its weights at the start.

    Args:
      n_hidden: size of the state.
      dtype: floating dtype of the weights.

    Returns:
      expand_fn `(params, hidden) -> expansion point`, frozen and hashable, equal for equal sizes.
      params, a nested dict.

    Raises:
      ValueError: if n_hidden is less than 1.

    Example:
      >>> expand_fn, params = build_expansion(2)
      >>> expand_fn(params, jnp.ones(2)).tolist() == jnp.tanh(jnp.tanh(jnp.ones(2))).tolist()
      True
    """
    arguments.check_count("n_hidden", n_hidden)
    graphdef, weights = nnx.split(ExpansionNetwork(n_hidden, dtype))
    return NnxFunction(graphdef), nnx.to_pure_dict(weights)


@dataclasses.dataclass(frozen=True)
class Jslds:
    """The functions of a network and its switching linear system; hashable, so a jit takes it as a static argument.

    Attributes:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step of the network.
      expand_fn: `(params, hidden) -> hidden`, from a state to its expansion point.
      static_lines: which inputs make u*; the others are 0 in it.
    """

    step_fn: StepFn
    expand_fn: Callable[[Params, Any], jax.Array]
    static_lines: tuple[int, ...] = ()


class JsldsParams(NamedTuple):
    """All weights.

    Attributes:
      cell: pytree that `step_fn` understands.
      expansion: pytree that `expand_fn` understands.
      readout: (w_out (n_outputs, n_units), b_out (n_outputs,)); reads the first n_units of the state, h of an LSTM's
        (h, c).
      hidden0: (n_hidden,), the state in which both branches begin.
    """

    cell: Params
    expansion: Params
    readout: tuple[Any, Any]
    hidden0: Any


class Rollout(NamedTuple):
    """One trial, or many with a leading axis.

    Attributes:
      hidden: (n_time, n_hidden), h_1 .. h_T of the network.
      switching: (n_time, n_hidden), a_1 .. a_T of the linear system.
      expansion: (n_time, n_hidden), e_1 .. e_T; a_t is expanded about e_t.
      image: (n_time, n_hidden), F(e_t, u*_t).
    """

    hidden: Any
    switching: Any
    expansion: Any
    image: Any


def init_params(key: jax.Array, cell: Params, expansion: Params, n_outputs: int, n_hidden: int,
                n_units: int | None = None) -> JsldsParams:  # fmt: skip
    """Weights to begin training with: readout N(0, 1 / n_units) without bias, first state N(0, 0.1^2).

    Args:
      key: typed PRNG key.
      cell: params of the network's step, see `equations.init_arrays`.
      expansion: of `build_expansion(n_hidden)`.
      n_outputs: lines of the task.
      n_hidden: size of the state.
      n_units: units that the readout sees, the first of the state; None for all.

    Returns:
      JsldsParams in the default float type but for what was given.

    Raises:
      ValueError: if a number is less than 1.

    Example:
      >>> params = init_params(jax.random.key(0), None, None, 1, 4, 2)
      >>> params.readout[0].shape, params.hidden0.shape
      ((1, 2), (4,))
    """
    n_units = n_hidden if n_units is None else n_units
    for name, count in (("n_outputs", n_outputs), ("n_hidden", n_hidden), ("n_units", n_units)):
        arguments.check_count(name, count)
    key_out, key_start = jax.random.split(key)
    w_out = jax.random.normal(key_out, (n_outputs, n_units)) / n_units**0.5
    return JsldsParams(cell, expansion, (w_out, jnp.zeros(n_outputs)), 0.1 * jax.random.normal(key_start, (n_hidden,)))


def read_out(readout: tuple[Any, Any], hidden: Any) -> jax.Array:
    """What is said at given states, W x + b.

    Args:
      readout: (w_out (n_outputs, n_units), b_out (n_outputs,)).
      hidden: (..., n_hidden), n_hidden >= n_units.

    Returns:
      (..., n_outputs).

    Example:
      >>> read_out((jnp.ones((1, 2)), jnp.zeros(1)), jnp.ones((3, 4))).ravel().tolist()
      [2.0, 2.0, 2.0]
    """
    w_out, b_out = readout
    outputs = hidden[..., : w_out.shape[1]] @ w_out.T
    return outputs + jnp.broadcast_to(b_out, outputs.shape)


def static_inputs(model: Jslds, inputs: Any) -> jax.Array:
    """The part u* of the inputs about which the dynamics are expanded: static lines as they are, the others 0.

    Args:
      model: with `static_lines`.
      inputs: (..., n_inputs).

    Returns:
      As inputs.

    Raises:
      ValueError: if there is no such line.

    Example:
      >>> static_inputs(Jslds(len, len, (1,)), jnp.array([3.0, 4.0])).tolist()
      [0.0, 4.0]
    """
    inputs = jnp.asarray(inputs)
    n_inputs = inputs.shape[-1]
    if not all(0 <= line < n_inputs for line in model.static_lines):
        raise ValueError(f"static_lines must be lines of {n_inputs} inputs, got {model.static_lines}.")
    static = jnp.zeros_like(inputs)
    for line in model.static_lines:
        static = static.at[..., line].set(inputs[..., line])
    return static


def expand(
    step_fn: StepFn, cell: Params, point: Any, point_inputs: Any, hidden: Any, inputs: Any
) -> tuple[jax.Array, jax.Array]:
    """Both parts of the first-order Taylor expansion of one step, by one Jacobian-vector product.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step.
      cell: pytree that `step_fn` understands.
      point: (n_hidden,), e, about which F is expanded.
      point_inputs: (n_inputs,), u*, likewise.
      hidden: (n_hidden,), where the expansion is wanted.
      inputs: (n_inputs,), likewise.

    Returns:
      F(e, u*) and dF/dh (hidden - e) + dF/du (inputs - u*), each (n_hidden,). Their sum is the Taylor expansion; e plus
      the second is one step of the switching linear system.

    Example:
      >>> constant, linear = expand(lambda p, h, u: p * h**2 + u, 1.0, *(jnp.full(1, x) for x in (3.0, 0.0, 4.0, 1.0)))
      >>> constant.item(), linear.item()
      (9.0, 7.0)
    """
    return jax.jvp(
        lambda h, u: arguments.step(step_fn, cell, h, u), (point, point_inputs), (hidden - point, inputs - point_inputs)
    )


def roll_out(model: Jslds, params: JsldsParams, inputs: Any, noise: Any = None, expansion: Any = None) -> Rollout:
    """Both branches through one trial, each running freely from the same state: traceable; vmap it over trials.

    Args:
      model: functions of the network.
      params: its weights.
      inputs: (n_time, n_inputs).
      noise: (n_time, n_hidden), added to both branches after each step, the same in both; None for none.
      expansion: (n_time, n_hidden), expansion points to use in place of those that the expansion network proposes.

    Returns:
      Rollout, in the dtype of `params.hidden0`.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> expand_fn, expansion = build_expansion(1)
      >>> model = Jslds(lambda p, h, u: p * h + u, expand_fn)
      >>> params = JsldsParams(0.5, expansion, (jnp.ones((1, 1)), jnp.zeros(1)), jnp.zeros(1))
      >>> both = roll_out(model, params, jnp.ones((2, 1)))
      >>> both.hidden.ravel().tolist(), both.switching[0].tolist(), both.expansion[0].tolist()
      ([1.0, 1.5], [1.0], [0.0])
    """
    start = jnp.asarray(params.hidden0)
    arguments.check_array("inputs", inputs, "(n_time, n_inputs)", (2,), floating=False)
    for name, given in (("noise", noise), ("expansion", expansion)):
        if given is not None and jnp.shape(given) != (len(inputs), *start.shape):
            raise ValueError(f"{name} must be (n_time, n_hidden) = {(len(inputs), *start.shape)}, got {given.shape}.")
    inputs = jnp.asarray(inputs, start.dtype)

    def step(carry: tuple[jax.Array, jax.Array], now: Any) -> tuple[tuple[jax.Array, jax.Array], Rollout]:
        hidden, switching = carry
        u, blur, point = now
        if point is None:
            point = model.expand_fn(params.expansion, switching)
        hidden = arguments.step(model.step_fn, params.cell, hidden, u)
        # u* is made here, not scanned over: without static lines the compiler then sees that W_in u* is 0
        image, linear = expand(model.step_fn, params.cell, point, static_inputs(model, u), switching, u)
        switching = point + linear
        if blur is not None:
            hidden, switching = hidden + blur, switching + blur
        return (hidden, switching), Rollout(hidden, switching, point, image)

    return jax.lax.scan(step, (start, start), (inputs, noise, expansion))[1]
