"""Spikes of a network that integrates: 100 tanh units hold the running sum of a scalar input, and each fires as it is.

The network is hand-built, of rank one: with gains m_i and thresholds b_i drawn at random and n solved for,

  h_t = tanh(m (n . h_{t-1} + x_t) + b),    h_0 with n . h_0 = 0,

where n is the least-squares solution of n . tanh(m k + b) = k for k on a grid of [-reach, reach], so that
k_t = n . h_{t-1} + x_t is the sum of the inputs so far: a line attractor, up to the error of that fit. The input is
white noise, x_t ~ N(0, input_std^2), fresh in each trial. Rates and counts a bin are

  r_t = (h_t + 1) / 2 * max_rate,    spikes ~ Poisson(r_t dt).

Signs of m are random and thresholds symmetric about 0: the mean rate is near max_rate / 2, 40 spikes a second, 1.6
counts a bin. Smith, Linderman & Sussillo (2021) train their integrator; sizes, rates and bins are theirs
(arXiv:2111.01256, released code).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class SpikingIntegratorConfig:
    """What fixes the shape of a trial, and its units.

    Attributes:
      n_time: number of bins.
      n_neurons: number of units, each with its spikes.
      dt: seconds a bin.
      max_rate: spikes a second of a unit at 1.
      input_std: standard deviation of the input in a bin.
      reach: largest sum that is held.

    Raises:
      ValueError: if a number is out of range.
    """

    n_time: int = 25
    n_neurons: int = 100
    dt: float = 0.04
    max_rate: float = 80.0
    input_std: float = 0.2
    reach: float = 4.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0 or (field.name.startswith("n_") and value != int(value)):
                wanted = "a positive integer" if field.name.startswith("n_") else "positive"
                raise ValueError(f"{field.name} must be {wanted}, got {value}.")


class Integrator(NamedTuple):
    """The network, all arrays (n_neurons,), float32.

    Attributes:
      gain: m.
      threshold: b.
      sum_weights: n.
    """

    gain: np.ndarray
    threshold: np.ndarray
    sum_weights: np.ndarray


class Batch(NamedTuple):
    """Trials of the spiking integrator.

    Attributes:
      spikes: int array of shape (n_trials, n_time, n_neurons), counts.
      rates: array of shape (n_trials, n_time, n_neurons), expected counts a bin.
      inputs: array of shape (n_trials, n_time, 1), x_t.
      targets: array of shape (n_trials, n_time, 1), sum of the inputs so far.
    """

    spikes: jax.Array
    rates: jax.Array
    inputs: jax.Array
    targets: jax.Array


def build_integrator(key: jax.Array, config: SpikingIntegratorConfig) -> Integrator:
    """Draw gains and thresholds, and solve for the weights that hold a sum: a host function.

    Gains have size 0.5 to 1.5, thresholds lie between -1.5 and 1.5.

    Args:
      key: typed PRNG key.
      config: sizes and reach.

    Returns:
      Integrator.

    Example:
      >>> network = build_integrator(jax.random.key(0), SpikingIntegratorConfig())
      >>> hidden = np.tanh(0.7 * network.gain + network.threshold)  # where it is when the sum is 0.7
      >>> bool(abs(network.sum_weights @ hidden - 0.7) < 0.03)
      True
    """
    key_size, key_sign, key_threshold = jax.random.split(key, 3)
    shape = (config.n_neurons,)
    sign = jax.random.rademacher(key_sign, shape, jnp.float32)
    gain = np.asarray(sign * jax.random.uniform(key_size, shape, jnp.float32, 0.5, 1.5))
    threshold = np.asarray(jax.random.uniform(key_threshold, shape, jnp.float32, -1.5, 1.5))
    sums = np.linspace(-config.reach, config.reach, 401)
    states = np.tanh(np.outer(sums, gain.astype(np.float64)) + threshold)
    # singular values below 1e-4 of the largest are left out: large weights would amplify rounding in every bin
    sum_weights = np.linalg.lstsq(states, sums, rcond=1e-4)[0]
    return Integrator(gain, threshold, sum_weights.astype(np.float32))


def sample_batch(key: jax.Array, config: SpikingIntegratorConfig, network: Integrator, n_trials: int) -> Batch:
    """Draw trials.

    Args:
      key: typed PRNG key.
      config: shape of a trial.
      network: of `build_integrator`.
      n_trials: number of trials.

    Returns:
      Batch, float32 and int32.

    Raises:
      ValueError: if `n_trials` is less than 1.

    Example:
      >>> config = SpikingIntegratorConfig()
      >>> network = build_integrator(jax.random.key(0), config)
      >>> jax.eval_shape(lambda key: sample_batch(key, config, network, 8), jax.random.key(1)).spikes.shape
      (8, 25, 100)
    """
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, got {n_trials}.")
    key_input, key_spikes = jax.random.split(key)
    inputs = config.input_std * jax.random.normal(key_input, (n_trials, config.n_time), jnp.float32)
    gain, threshold, sum_weights = (jnp.asarray(x) for x in network)

    def step(held: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = jnp.tanh(gain * (held + x) + threshold)
        return sum_weights @ hidden, hidden

    hidden = jax.vmap(lambda x: jax.lax.scan(step, jnp.zeros((), x.dtype), x)[1])(inputs)
    rates = (hidden + 1) / 2 * config.max_rate * config.dt
    spikes = jax.random.poisson(key_spikes, rates, dtype=jnp.int32)
    return Batch(spikes, rates, inputs[..., None], jnp.cumsum(inputs, axis=1)[..., None])
