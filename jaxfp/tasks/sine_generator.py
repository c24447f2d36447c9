"""The sine generator: a constant input says at which frequency to oscillate.

Condition j of n has the input u_j and the target y_j(t), t > 0 in units of the time constant:

  u_j = 1/4 + j / n,     omega_j = omega_min + (omega_max - omega_min) j / (n - 1),     y_j(t) = sin(omega_j t).

One initial state must serve all conditions, so the first cycles are the network's to find its orbit: steps before
`settle` are not scored.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class SineGeneratorConfig:
    """What fixes the shape of a trial.

    Attributes:
      n_conditions: number of inputs, at least 2.
      n_time: number of steps.
      dt: duration of a step, time constants.
      settle: time before which nothing is scored, time constants.
      omega_min: angular frequency of the smallest input, radians per time constant.
      omega_max: of the largest.

    Raises:
      ValueError: if a number is out of range.
    """

    n_conditions: int = 51
    n_time: int = 252
    dt: float = 0.5
    settle: float = 2.0
    omega_min: float = 0.1
    omega_max: float = 0.6

    def __post_init__(self) -> None:
        if self.n_conditions < 2 or self.n_time < 1 or self.dt <= 0:
            raise ValueError(f"n_conditions >= 2, n_time >= 1 and dt > 0 are wanted, got {self}.")
        if not 0 <= self.settle < self.dt * self.n_time or not 0 < self.omega_min < self.omega_max:
            raise ValueError(
                f"settle must be shorter than a trial and 0 < omega_min < omega_max, both finite, got {self}."
            )


class Batch(NamedTuple):
    """Trials of the sine generator.

    Attributes:
      inputs: array of shape (n_trials, n_time, 1), constant in time.
      targets: array of the same shape, sin(omega t) at t = dt, 2 dt, ...
      omega: array of shape (n_trials,), radians per time constant.
    """

    inputs: jax.Array
    targets: jax.Array
    omega: jax.Array


def conditions(config: SineGeneratorConfig) -> tuple[jax.Array, jax.Array]:
    """All inputs and their frequencies, slowest first.

    Args:
      config: shape of a trial.

    Returns:
      Inputs (n_conditions, 1) and angular frequencies (n_conditions,), radians per time constant.

    Example:
      >>> inputs, omega = conditions(SineGeneratorConfig())
      >>> inputs.shape, float(inputs[0, 0]), round(float(omega[-1]), 6)
      ((51, 1), 0.25, 0.6)

    Source: Sussillo & Barak (2013), Neural Computation 25:626, example 2, as far as their figures say.
    """
    which = jnp.arange(config.n_conditions, dtype=float)
    step = (config.omega_max - config.omega_min) / (config.n_conditions - 1)
    return (0.25 + which / config.n_conditions)[:, None], config.omega_min + step * which


def sample_batch(key: jax.Array, config: SineGeneratorConfig, n_trials: int) -> Batch:
    """Draw conditions at random, each as often as any other, up to one; n_trials = n_conditions has each once.

    Args:
      key: typed PRNG key.
      config: shape of a trial.
      n_trials: number of trials.

    Returns:
      Batch.

    Raises:
      ValueError: if `n_trials` is less than 1.

    Example:
      >>> batch = sample_batch(jax.random.key(0), SineGeneratorConfig(n_conditions=3, n_time=8), 3)
      >>> batch.targets.shape, sorted(round(omega, 2) for omega in batch.omega.tolist())
      ((3, 8, 1), [0.1, 0.35, 0.6])
    """
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, got {n_trials}.")
    inputs, omega = conditions(config)
    n_rounds = -(-n_trials // config.n_conditions)
    which = jax.vmap(lambda key: jax.random.permutation(key, config.n_conditions))(jax.random.split(key, n_rounds))
    which = which.ravel()[:n_trials]
    time = config.dt * jnp.arange(1, config.n_time + 1, dtype=float)
    drive = jnp.broadcast_to(inputs[which, None], (n_trials, config.n_time, 1))
    return Batch(drive, jnp.sin(omega[which][:, None] * time[None])[..., None], omega[which])


def loss(
    outputs: jax.Array, targets: jax.Array, omega: jax.Array, config: SineGeneratorConfig, *, slow_weight: float = 0.0
) -> jax.Array:
    """Weighted mean squared error over the trials and the steps after `settle`.

    Args:
      outputs: array of shape (n_trials, n_time, 1), what the network says.
      targets: array of the same shape.
      omega: array of shape (n_trials,).
      config: shape of a trial.
      slow_weight: w; a trial counts in proportion to omega^-w, so that with w > 0 slow conditions, which are the hard
        ones, count for more.

    Returns:
      The loss, a scalar; silence scores about 1/2.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> config = SineGeneratorConfig(n_conditions=2, n_time=8)
      >>> batch = sample_batch(jax.random.key(0), config, 2)
      >>> float(loss(batch.targets, batch.targets, batch.omega, config))
      0.0
    """
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs and targets must have one shape, got {outputs.shape} and {targets.shape}.")
    scored = config.dt * jnp.arange(1, targets.shape[1] + 1, dtype=float) > config.settle
    weight = omega**-slow_weight
    error = jnp.mean(jnp.square(outputs - targets), axis=(1, 2), where=scored[None, :, None])
    return jnp.sum(weight * error) / jnp.sum(weight)


def frequency(outputs: jax.Array, dt: float) -> jax.Array:
    """Angular frequency of an oscillation about zero, from its first to its last upward crossing.

    A crossing is placed on the line through the two samples around it: for a sine of frequency omega this errs by less
    than (omega dt)^3 / 30 radians.

    Args:
      outputs: array of shape (..., n_time).
      dt: duration of a step.

    Returns:
      Array of shape (...,), radians per unit of dt; NaN with fewer than two crossings.

    Example:
      >>> time = 0.5 * jnp.arange(400.0)
      >>> round(float(frequency(jnp.sin(0.3 * time + 1), 0.5)), 4)
      0.3
    """
    before, after = outputs[..., :-1], outputs[..., 1:]
    up = (before < 0) & (after >= 0)
    number = jnp.broadcast_to(jnp.arange(before.shape[-1], dtype=outputs.dtype), before.shape)
    when = number + before / jnp.where(up, before - after, 1)
    first = jnp.min(jnp.where(up, when, jnp.inf), axis=-1)
    last = jnp.max(jnp.where(up, when, -jnp.inf), axis=-1)
    n_cycles = jnp.sum(up, axis=-1, dtype=outputs.dtype) - 1
    span = jnp.where(n_cycles > 0, dt * (last - first), 1)
    return jnp.where(n_cycles > 0, 2 * jnp.pi * n_cycles / span, jnp.nan)
