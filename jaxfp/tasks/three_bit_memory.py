"""The 3-bit memory of Smith, Linderman & Sussillo (2021): remember the last pulse of each channel, often pulsed.

In every step each channel draws p in {-1, 0, +1} with equal chance. A pulse comes on one of two lines a channel,

  (1, 0) for -1,   (0, 1) for +1,   (0, 0) for none,

lines 2k and 2k + 1 for channel k, and is to be said in the same step: the target is the last p that was not 0, -1
before there was any. Steps before `n_unscored` do not count.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

N_UNSCORED = 5


@dataclasses.dataclass(frozen=True)
class ThreeBitMemoryConfig:
    """What fixes the shape of a trial.

    Attributes:
      n_bits: number of channels, each with two lines; 3 gives the task its name.
      n_time: number of steps, `n_hold` included.
      n_hold: the last `n_hold` steps are silent.

    Raises:
      ValueError: if a number is out of range.
    """

    n_bits: int = 3
    n_time: int = 25
    n_hold: int = 0

    def __post_init__(self) -> None:
        if min(self.n_bits, self.n_time) < 1 or not 0 <= self.n_hold < self.n_time:
            raise ValueError(f"n_bits and n_time must be at least 1, and 0 <= n_hold < n_time, got {self}.")


class Batch(NamedTuple):
    """Trials of the memory.

    Attributes:
      inputs: array of shape (n_trials, n_time, 2 n_bits), 0 or 1.
      targets: array of shape (n_trials, n_time, n_bits), -1 or +1.
    """

    inputs: jax.Array
    targets: jax.Array


def sample_batch(
    key: jax.Array,
    config: ThreeBitMemoryConfig,
    n_trials: int,
    *,
    sparse_fraction: float | jax.Array = 0.0,
    sparse_keep: float | jax.Array = 0.15,
) -> Batch:
    """Draw trials: -1, 0 and +1 with equal chance, in every step and channel.

    Args:
      key: typed PRNG key.
      config: shape of a trial.
      n_trials: number of trials.
      sparse_fraction: scalar in [0, 1], the chance that a trial is sparse.
      sparse_keep: scalar in [0, 1], the chance that a pulse of a sparse trial is kept.

    Returns:
      Batch in the default float type.

    Raises:
      ValueError: if `n_trials` is less than 1, or a chance given as a Python number is not in [0, 1].

    Example:
      >>> batch = sample_batch(jax.random.key(0), ThreeBitMemoryConfig(), 8)
      >>> batch.inputs.shape, batch.targets.shape
      ((8, 25, 6), (8, 25, 3))

    Source: Smith, Linderman & Sussillo (2021), arXiv:2111.01256, and their released code, whose pulse probability of
    0.3 is not used: pulses come with chance 2/3. Differs: sparse trials, which they do not have.
    """
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, got {n_trials}.")
    _check_chance("sparse_fraction", sparse_fraction)
    _check_chance("sparse_keep", sparse_keep)
    shape = (n_trials, config.n_time, config.n_bits)
    key_pulse, key_sparse, key_keep = jax.random.split(key, 3)
    drawn = jax.random.randint(key_pulse, shape, -1, 2)
    sparse = jax.random.bernoulli(key_sparse, sparse_fraction, (n_trials, 1, 1))
    kept = ~sparse | jax.random.bernoulli(key_keep, sparse_keep, shape)
    kept &= (jnp.arange(config.n_time) < config.n_time - config.n_hold)[None, :, None]
    pulses = jnp.where(kept, drawn, 0)
    last = jax.lax.associative_scan(_latest, pulses, axis=1)
    return Batch(encode(pulses), jnp.where(last == 0, -1.0, last.astype(float)))


def encode(pulses: jax.Array) -> jax.Array:
    """Two lines a channel.

    Args:
      pulses: array of shape (..., n_bits): -1, 0 or +1.

    Returns:
      Array of shape (..., 2 n_bits), 0 or 1, in the default float type.

    Example:
      >>> encode(jnp.array([-1, 0, 1])).tolist()
      [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    lines = jnp.stack([pulses < 0, pulses > 0], axis=-1)
    return lines.astype(float).reshape(*pulses.shape[:-1], 2 * pulses.shape[-1])


def flips(codes: jax.Array) -> jax.Array:
    """Which lines change a memory: of each bit the line of the other sign.

    Args:
      codes: array of shape (..., n_bits), -1 or +1.

    Returns:
      bool array of shape (..., 2 n_bits).

    Example:
      >>> flips(jnp.array([-1.0, 1.0])).tolist()
      [False, True, True, False]
    """
    return encode(-codes) > 0


def loss(outputs: jax.Array, targets: jax.Array, n_unscored: int = N_UNSCORED) -> jax.Array:
    """Mean squared error over trials, scored steps and channels.

    Args:
      outputs: array of shape (..., n_time, n_bits), what the network says.
      targets: array of the same shape.
      n_unscored: steps at the beginning that do not count.

    Returns:
      The loss, a scalar; saying 0 throughout scores 1.

    Raises:
      ValueError: if the shapes differ or no step is scored.

    Example:
      >>> float(loss(jnp.zeros((1, 25, 3)), jnp.ones((1, 25, 3))))
      1.0
    """
    _check_scored(outputs, targets, n_unscored)
    return jnp.mean(jnp.square(outputs - targets)[..., n_unscored:, :])


def sign_accuracy(outputs: jax.Array, targets: jax.Array, n_unscored: int = N_UNSCORED) -> jax.Array:
    """Share of scored outputs that have the sign of their target.

    Args:
      outputs: array of shape (..., n_time, n_bits), what the network says.
      targets: array of the same shape, -1 or +1.
      n_unscored: steps at the beginning that do not count.

    Returns:
      The share, a scalar in [0, 1]. An output of 0 or NaN is wrong.

    Raises:
      ValueError: if the shapes differ or no step is scored.

    Example:
      >>> float(sign_accuracy(jnp.array([[0.5], [-0.5]]), jnp.ones((2, 1)), n_unscored=0))
      0.5
    """
    _check_scored(outputs, targets, n_unscored)
    return jnp.mean((outputs * targets > 0)[..., n_unscored:, :])


def _latest(before: jax.Array, now: jax.Array) -> jax.Array:
    return jnp.where(now == 0, before, now)


def _check_scored(outputs: jax.Array, targets: jax.Array, n_unscored: int) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs and targets must have one shape, got {outputs.shape} and {targets.shape}.")
    if not 0 <= n_unscored < outputs.shape[-2]:
        raise ValueError(f"n_unscored must leave some of {outputs.shape[-2]} steps, got {n_unscored}.")


def _check_chance(name: str, chance: float | jax.Array) -> None:
    if isinstance(chance, int | float) and not 0 <= chance <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {chance}.")
