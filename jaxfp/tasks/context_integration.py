"""Context-dependent integration: two streams of noisy evidence, and a context that says which of them to add up.

In trial i channel c has a bias b_c = s z and in every step the evidence

  w_c(t) = m + b_c + v x_c(t),     z, x ~ N(0, 1),

lines 0 and 1. Line 2 is 1 throughout the trial in context 0, line 3 in context 1. The target is the sum so far of the
evidence of the channel that the context names: a network that solves the task needs a line of fixed points in each
context, along which one channel moves it and the other does not.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

CONTEXT_LINES = (2, 3)


@dataclasses.dataclass(frozen=True)
class ContextIntegrationConfig:
    """What fixes the shape of a trial.

    Attributes:
      n_time: number of steps.

    Raises:
      ValueError: if it is less than 1.
    """

    n_time: int = 25

    def __post_init__(self) -> None:
        if self.n_time < 1:
            raise ValueError(f"n_time must be at least 1, got {self}.")


class Batch(NamedTuple):
    """Trials of context-dependent integration.

    Attributes:
      inputs: array of shape (n_trials, n_time, 4), evidence of both channels and the context, one line each.
      targets: array of shape (n_trials, n_time, 1), sum of the evidence of the channel asked for.
      context: int array of shape (n_trials,), that channel, 0 or 1.
    """

    inputs: jax.Array
    targets: jax.Array
    context: jax.Array


def sample_batch(
    key: jax.Array,
    config: ContextIntegrationConfig,
    n_trials: int,
    *,
    bias_mean: float | jax.Array = -0.01,
    bias_std: float | jax.Array = 0.02,
    noise_std: float | jax.Array = 0.125,
) -> Batch:
    """Draw trials, either context with chance 1/2.

    Args:
      key: typed PRNG key.
      config: shape of a trial.
      n_trials: number of trials.
      bias_mean: m, a step.
      bias_std: s, standard deviation of the bias a step.
      noise_std: v, standard deviation of the evidence a step about its bias.

    Returns:
      Batch, floats in the default float type.

    Raises:
      ValueError: if `n_trials` is less than 1, or a deviation given as a Python number is negative.

    Example:
      >>> batch = sample_batch(jax.random.key(0), ContextIntegrationConfig(), 8)
      >>> batch.inputs.shape, batch.targets.shape, batch.context.shape
      ((8, 25, 4), (8, 25, 1), (8,))

    Source: Smith, Linderman & Sussillo (2021), arXiv:2111.01256, and their released code: steps of 0.04 s, noise
    0.025 / sqrt(0.04), bias 0.02 (z - 1/2). After Mante, Sussillo, Shenoy & Newsome (2013), Nature 503:78.
    """
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, got {n_trials}.")
    for name, deviation in (("bias_std", bias_std), ("noise_std", noise_std)):
        if isinstance(deviation, int | float) and not deviation >= 0:
            raise ValueError(f"{name} must be 0 or more, got {deviation}.")
    key_bias, key_noise, key_context = jax.random.split(key, 3)
    bias = bias_mean + bias_std * jax.random.normal(key_bias, (n_trials, 1, 2))
    evidence = bias + noise_std * jax.random.normal(key_noise, (n_trials, config.n_time, 2))
    context = jax.random.bernoulli(key_context, 0.5, (n_trials,)).astype(int)
    return as_batch(evidence, context)


def as_batch(evidence: jax.Array, context: jax.Array) -> Batch:
    """Trials with given evidence.

    Args:
      evidence: array of shape (n_trials, n_time, 2).
      context: int array of shape (n_trials,), 0 or 1.

    Returns:
      Batch, floats in the dtype of the evidence.

    Example:
      >>> as_batch(jnp.array([[[1.0, 5.0], [2.0, 5.0]]]), jnp.array([0])).targets.ravel().tolist()
      [1.0, 3.0]
    """
    lines = jax.nn.one_hot(context, 2, dtype=evidence.dtype)[:, None]
    inputs = jnp.concatenate([evidence, jnp.broadcast_to(lines, evidence.shape)], axis=2)
    return Batch(inputs, jnp.cumsum(jnp.sum(evidence * lines, axis=2, keepdims=True), axis=1), context)


def loss(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared error over trials and steps.

    Args:
      outputs: array of shape (..., n_time, 1), what the network says.
      targets: array of the same shape.

    Returns:
      The loss, a scalar; saying 0 throughout scores about 0.31.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> float(loss(jnp.zeros((1, 4, 1)), jnp.ones((1, 4, 1))))
      1.0
    """
    _check_shapes(outputs, targets)
    return jnp.mean(jnp.square(outputs - targets))


def r_squared(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Share of the targets' variance, over all trials and steps, that the outputs explain.

    Args:
      outputs: array of shape (..., n_time, 1), what the network says.
      targets: array of the same shape.

    Returns:
      Scalar, 1 at best; saying the mean of the targets scores 0.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> targets = jnp.array([[1.0], [3.0]])
      >>> float(r_squared(targets, targets)), float(r_squared(jnp.full_like(targets, 2.0), targets))
      (1.0, 0.0)
    """
    _check_shapes(outputs, targets)
    return 1 - jnp.mean(jnp.square(outputs - targets)) / jnp.var(targets)


def _check_shapes(outputs: jax.Array, targets: jax.Array) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs and targets must have one shape, got {outputs.shape} and {targets.shape}.")
