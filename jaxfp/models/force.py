"""FORCE: a random network learns by its readout alone, which it hears back (Sussillo & Abbott 2009).

With rates r = tanh(x), outputs z = W r, and random J, B and F that stay as they are drawn,

  x' = (1 - a) x + a (J r + B u + F z),        a = dt / tau;  a = 1 is the network in discrete time.

While it runs, every few steps recursive least squares corrects W for the target y, with P the inverse correlation of
the rates:

  k = P r;   c = 1 / (1 + r.k);   W <- W - c (W r - y) k';   P <- P - c k k';   at first W = 0, P = I / ridge,

which leaves W at the minimum of the squared errors so far, each as the network met it, plus ridge |W|^2. What is left
then is a network without feedback and with the recurrent weights J + F W: the Euler cell in current form, and without
biases an odd map, whose points come in pairs x, -x.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp.models import adapters, equations
from jaxfp.types import Array


@dataclasses.dataclass(frozen=True)
class ForceConfig:
    """The network, and how it is trained.

    Attributes:
      n_hidden: number of units.
      n_inputs: number of inputs.
      n_outputs: number of outputs, each fed back.
      gain: J is N(0, gain^2 / n_hidden); above 1 the network is chaotic before it is trained.
      alpha: dt / tau, 0 < alpha <= 1.
      update_every: steps from one correction of W to the next.
      ridge: P begins at I / ridge.

    Raises:
      ValueError: if a number is out of range.
    """

    n_hidden: int = 1000
    n_inputs: int = 3
    n_outputs: int = 3
    gain: float = 1.1
    alpha: float = 0.1
    update_every: int = 2
    ridge: float = 1.0

    def __post_init__(self) -> None:
        if min(self.n_hidden, self.n_inputs, self.n_outputs, self.update_every) < 1:
            raise ValueError(f"n_hidden, n_inputs, n_outputs and update_every must be at least 1, got {self}.")
        if not (0 < self.alpha <= 1 and self.ridge > 0 and self.gain >= 0):
            raise ValueError(f"0 < alpha <= 1, ridge > 0 and gain >= 0 are wanted, got {self}.")


class ForceNetwork(NamedTuple):
    """Weights.

    Attributes:
      w_rec: (n_hidden, n_hidden), J.
      w_in: (n_hidden, n_inputs), B.
      w_feedback: (n_hidden, n_outputs), F.
      w_out: (n_outputs, n_hidden), W.
    """

    w_rec: Any
    w_in: Any
    w_feedback: Any
    w_out: Any


class ForceResult(NamedTuple):
    """What training leaves behind.

    Attributes:
      network: with the W learned.
      hidden: (n_hidden,), the state it ended in.
      inverse: (n_hidden, n_hidden), P.
      errors: (n_time // update_every, n_outputs), W r - y before each correction.
    """

    network: ForceNetwork
    hidden: Any
    inverse: Any
    errors: Any


def init_network(key: jax.Array, config: ForceConfig) -> ForceNetwork:
    """Random weights: J as `gain` says, B ~ N(0, 1), F ~ U(-1, 1), W = 0.

    Args:
      key: typed PRNG key.
      config: sizes and gain.

    Returns:
      ForceNetwork in the default float type.

    Example:
      >>> init_network(jax.random.key(0), ForceConfig(n_hidden=5)).w_feedback.shape
      (5, 3)
    """
    key_rec, key_in, key_feedback = jax.random.split(key, 3)
    n = config.n_hidden
    return ForceNetwork(
        w_rec=config.gain / n**0.5 * jax.random.normal(key_rec, (n, n)),
        w_in=jax.random.normal(key_in, (n, config.n_inputs)),
        w_feedback=jax.random.uniform(key_feedback, (n, config.n_outputs), minval=-1.0),
        w_out=jnp.zeros((config.n_outputs, n)),
    )


def train_force(
    key: jax.Array, config: ForceConfig, inputs: Array, targets: Array, *, network: ForceNetwork | None = None
) -> ForceResult:
    """Draw a network and train it on one long run: one scan, traceable, so a `vmap` over keys trains an ensemble.

    Args:
      key: typed PRNG key, of the weights and of the first state, N(0, 1/4).
      config: the network, and how it is trained.
      inputs: (n_time, n_inputs), n_time a multiple of `update_every`.
      targets: (n_time, n_outputs); those at the steps of corrections are looked at.
      network: to begin with; `init_network` by default.

    Returns:
      ForceResult.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> config = ForceConfig(n_hidden=20, n_inputs=1, n_outputs=1)
      >>> ones = jnp.ones((200, 1))
      >>> result = train_force(jax.random.key(0), config, 0 * ones, ones)
      >>> bool(jnp.abs(result.errors[-1, 0]) < 0.1)
      True

    Source: Sussillo & Abbott (2009), Neuron 63:544, eq. 1-5. Differs: all units hear the output, and learning does not
    go on in a network inside the network.
    """
    n_time = inputs.shape[0]
    for name, array, width in (("inputs", inputs, config.n_inputs), ("targets", targets, config.n_outputs)):
        if array.shape != (n_time, width) or n_time % config.update_every:
            raise ValueError(
                f"{name} must be (n_time, {width}) with n_time a multiple of {config.update_every}, got {array.shape} "
                f"beside {n_time} steps of inputs."
            )
    key_weights, key_state = jax.random.split(key)
    network = init_network(key_weights, config) if network is None else network
    hidden = jax.random.normal(key_state, (config.n_hidden,), network.w_rec.dtype) / 2
    inverse = jnp.eye(config.n_hidden, dtype=hidden.dtype) / config.ridge

    def correct(carry: tuple[Any, ...], now: tuple[Any, Any]) -> tuple[tuple[Any, ...], jax.Array]:
        hidden, w_out, inverse = carry
        pulses, target = now
        for u in pulses:
            hidden = _step(network._replace(w_out=w_out), hidden, u, config.alpha)
        rates = jnp.tanh(hidden)
        error = w_out @ rates - target
        gain = inverse @ rates
        scaled = gain / (1 + rates @ gain)
        return (hidden, w_out - jnp.outer(error, scaled), inverse - jnp.outer(scaled, gain)), error

    pulses = jnp.asarray(inputs, hidden.dtype).reshape(-1, config.update_every, config.n_inputs)
    wanted = jnp.asarray(targets, hidden.dtype)[config.update_every - 1 :: config.update_every]
    (hidden, w_out, inverse), errors = jax.lax.scan(correct, (hidden, network.w_out, inverse), (pulses, wanted))
    return ForceResult(network._replace(w_out=w_out), hidden, inverse, errors)


def closed_loop(network: ForceNetwork, alpha: float) -> tuple[adapters.ArraysStep, dict[str, Array]]:
    """The network with its feedback, as a map for simulation and search: the Euler cell of J + F W.

    Args:
      network: trained.
      alpha: dt / tau.

    Returns:
      step_fn and params as of `from_arrays`, in float64; the map is bounded, and its box is known.

    Raises:
      ValueError: if alpha or a weight is not finite.

    Example:
      >>> network = init_network(jax.random.key(0), ForceConfig(n_hidden=5))
      >>> step_fn, params = closed_loop(network, 0.1)
      >>> step_fn.bounded, params["w_rec"].shape
      (True, (5, 5))
    """
    w_rec, w_in, w_feedback, w_out = (np.asarray(w, np.float64) for w in network)
    return adapters.from_arrays(
        "euler", {"w_rec": w_rec + w_feedback @ w_out, "w_in": w_in}, alpha=alpha, form="current"
    )


def flow(params: Any, hidden: Any, inputs: Any) -> jax.Array:
    """The vector field of the closed loop, dx/dt = -x + (J + F W) tanh(x) + B u in units of 1 / tau, for kind="flow".

    Its points are those of the map, and an eigenvalue lambda here is 1 + a lambda there.

    Args:
      params: of `closed_loop`.
      hidden: (n_hidden,), the state x.
      inputs: (n_inputs,) or None.

    Returns:
      (n_hidden,), dx/dt.

    Example:
      >>> params = {"w_rec": np.eye(2), "w_in": np.ones((2, 1)), "b": np.zeros(2)}
      >>> flow(params, jnp.zeros(2), jnp.ones(1)).tolist()
      [1.0, 1.0]
    """
    return params["w_rec"] @ jnp.tanh(hidden) + equations.drive(params, inputs) - hidden


def _step(network: ForceNetwork, hidden: jax.Array, inputs: jax.Array, alpha: float) -> jax.Array:
    """One step with feedback, in the two small products that F W is."""
    rates = jnp.tanh(hidden)
    arrives = network.w_rec @ rates + network.w_in @ inputs + network.w_feedback @ (network.w_out @ rates)
    return (1 - alpha) * hidden + alpha * arrives
