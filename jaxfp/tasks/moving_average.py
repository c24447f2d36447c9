"""The moving average: pulses of random size come now and then; say the mean of the last two, and hold it.

Line 1 carries the pulses p ~ U(-1, 1), line 2 is 1 during a pulse, else 0 (a pulse may be small, so silence alone does
not say whether there was one). With s = (last pulse, the one before) and zeros before there were any, a pulse shifts,

  s <- (p, s_1),     y = (s_1 + s_2) / 2,

and nothing else changes s: what a network must hold is a point of a plane, the identity map in silence. With
`n_values` = 1 the last pulse alone is asked for, and a line will do: the control.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class MovingAverageConfig:
    """What fixes the shape of a trial.

    Attributes:
      n_values: pulses averaged over; 2 is the task, 1 its control.
      n_time: number of steps.
      min_gap: least number of steps from one onset to the next.
      max_gap: largest number of them.
      width: steps that a pulse lasts, less than min_gap.

    Raises:
      ValueError: if a number is out of range.
    """

    n_values: int = 2
    n_time: int = 100
    min_gap: int = 5
    max_gap: int = 30
    width: int = 1

    def __post_init__(self) -> None:
        if min(self.n_values, self.n_time, self.width) < 1 or not self.width < self.min_gap <= self.max_gap:
            raise ValueError(
                f"n_values, n_time and width must be at least 1, and width < min_gap <= max_gap, got {self}."
            )


class Batch(NamedTuple):
    """Trials of the moving average.

    Attributes:
      inputs: array of shape (n_trials, n_time, 2), pulses and their indicator.
      targets: array of shape (n_trials, n_time, 1), the mean of the last values.
      values: array of shape (n_trials, n_time, max(n_values, 2)), the pulses so far, last first: s.
      age: int array of shape (n_trials, n_time), steps since the last onset; -1 before the first.
    """

    inputs: jax.Array
    targets: jax.Array
    values: jax.Array
    age: jax.Array


def sample_batch(key: jax.Array, config: MovingAverageConfig, n_trials: int) -> Batch:
    """Draw trials: sizes U(-1, 1), gaps between onsets uniform from min_gap to max_gap, the first onset before min_gap.

    Args:
      key: typed PRNG key.
      config: shape of a trial.
      n_trials: number of trials.

    Returns:
      Batch, floats in the default float type.

    Raises:
      ValueError: if `n_trials` is less than 1.

    Example:
      >>> batch = sample_batch(jax.random.key(0), MovingAverageConfig(n_time=8), 4)
      >>> batch.inputs.shape, batch.targets.shape, batch.values.shape
      ((4, 8, 2), (4, 8, 1), (4, 8, 2))

    Source: Sussillo & Barak (2013), Neural Computation 25:626, example 3. Differs: they do not state the law of sizes,
    widths and gaps.
    """
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, got {n_trials}.")
    key_first, key_gap, key_size = jax.random.split(key, 3)
    n_pulses = -(-config.n_time // config.min_gap)
    n_kept = max(config.n_values, 2)
    first = jax.random.randint(key_first, (n_trials, 1), 0, config.min_gap)
    gaps = jax.random.randint(key_gap, (n_trials, n_pulses - 1), config.min_gap, config.max_gap + 1)
    onsets = jnp.cumsum(jnp.concatenate([first, gaps], axis=1), axis=1)
    sizes = jax.random.uniform(key_size, (n_trials, n_pulses), minval=-1.0)

    time = jnp.arange(config.n_time)
    n_before = jnp.sum(onsets[:, None] <= time[None, :, None], axis=2)  # onsets so far, this one included
    padded = jnp.concatenate([jnp.zeros((n_trials, n_kept)), sizes], axis=1)
    values = jnp.stack([jnp.take_along_axis(padded, n_before + n_kept - 1 - i, axis=1) for i in range(n_kept)], axis=2)
    last = jnp.take_along_axis(onsets, jnp.maximum(n_before - 1, 0), axis=1)
    age = jnp.where(n_before > 0, time[None] - last, -1)
    pulsed = ((age >= 0) & (age < config.width)).astype(values.dtype)
    inputs = jnp.stack([pulsed * values[..., 0], pulsed], axis=2)
    return Batch(inputs, jnp.mean(values[..., : config.n_values], axis=2, keepdims=True), values, age)


def loss(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared error over trials and steps.

    Args:
      outputs: array of shape (..., n_time, 1), what the network says.
      targets: array of the same shape.

    Returns:
      The loss, a scalar; saying 0 throughout scores about 1/6 (two values) or 1/3 (one).

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> float(loss(jnp.zeros((1, 4, 1)), jnp.ones((1, 4, 1))))
      1.0
    """
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs and targets must have one shape, got {outputs.shape} and {targets.shape}.")
    return jnp.mean(jnp.square(outputs - targets))


def shift_register(params: None, hidden: jax.Array, inputs: jax.Array) -> jax.Array:
    """The network that solves the task exactly, for pulses of one step: s <- s + i (S s - s) + e_1 p.

    Its Jacobian is the identity in silence and S, ones below the diagonal, during a pulse; its output is the mean of s.

    Args:
      params: None, it has none.
      hidden: (n_values,), s, the last pulse first.
      inputs: (2,), the pulse p and the indicator i.

    Returns:
      (n_values,), the next s.

    Example:
      >>> shift_register(None, jnp.array([0.5, -1.0]), jnp.array([0.25, 1.0])).tolist()
      [0.25, 0.5]
    """
    pulse, indicator = inputs
    shifted = jnp.concatenate([jnp.zeros(1, hidden.dtype), hidden[:-1]])
    first = jnp.zeros_like(hidden).at[0].set(1)
    return hidden + indicator * (shifted - hidden) + pulse * first
