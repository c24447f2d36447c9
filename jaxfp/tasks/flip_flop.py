"""The n-bit flip-flop: remember, on each line, the sign of the last pulse.

With pulses u_k(t) in {-1, 0, +1} on lines k = 1..n_bits, the target is

  y_k(t) = u_k(t) if u_k(t) != 0, else y_k(t - 1),

so a network that solves the task needs 2^n_bits memories that hold themselves while the input is silent. Every line
is pulsed in the first step: from there on every target is -1 or +1, and every output can be scored.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class FlipFlopConfig:
    """What fixes the shape of a trial.

    Attributes:
      n_bits: number of lines.
      n_time: number of steps in a trial, `n_hold` included.
      spacing: pulses come only at multiples of this many steps. Twice the `spacing` in twice the `n_time`, at the same
        `pulse_probability`, makes every gap between pulses exactly twice as long.
      n_hold: the last `n_hold` steps are silent.

    Raises:
      ValueError: if a number is out of range, or no step is left for the first pulses.
    """

    n_bits: int = 3
    n_time: int = 50
    spacing: int = 1
    n_hold: int = 0

    def __post_init__(self) -> None:
        if min(self.n_bits, self.n_time, self.spacing) < 1:
            raise ValueError(f"n_bits, n_time and spacing must be at least 1, got {self}.")
        if not 0 <= self.n_hold < self.n_time:
            raise ValueError(f"n_hold must be at least 0 and less than n_time, got {self}.")


class Batch(NamedTuple):
    """Trials of the flip-flop.

    Attributes:
      inputs: array of shape (n_trials, n_time, n_bits), float, the pulses: -1, 0 or +1.
      targets: array of the same shape, the sign of the last pulse on each line.
    """

    inputs: jax.Array
    targets: jax.Array


def sample_batch(
    key: jax.Array,
    config: FlipFlopConfig,
    n_trials: int,
    *,
    pulse_probability: float | jax.Array = 0.1,
    sparse_fraction: float | jax.Array = 0.0,
    sparse_keep: float | jax.Array = 0.15,
) -> Batch:
    """Draw trials: after the first step, lines are pulsed at random, independently of each other.

    A pulse is -1 or +1 with equal chance. In a sparse trial each pulse after the first step is kept with chance
    `sparse_keep`, so that most of the trial is silence: what turns slow memories into fixed points.

    Args:
      key: typed PRNG key.
      config: shape of a trial.
      n_trials: number of trials.
      pulse_probability: scalar in [0, 1], the chance of a pulse per line and admissible step.
      sparse_fraction: scalar in [0, 1], the chance that a trial is sparse.
      sparse_keep: scalar in [0, 1], the chance that a pulse of a sparse trial is kept.

    Returns:
      Batch of inputs and targets, each (n_trials, n_time, n_bits), in the default float type.

    Raises:
      ValueError: if `n_trials` is less than 1, or a chance given as a Python number is not in [0, 1].

    Example:
      >>> batch = sample_batch(jax.random.key(0), FlipFlopConfig(n_time=4), 8, pulse_probability=0.2)
      >>> batch.inputs.shape, sorted({float(target) for target in batch.targets.ravel()})
      ((8, 4, 3), [-1.0, 1.0])

    Source: Sussillo & Barak (2013), Neural Computation 25:626, example 1. Differs: a pulse lasts one step and the law
    of the gaps is geometric; theirs is not stated.
    """
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, got {n_trials}.")
    _check_chance("pulse_probability", pulse_probability)
    _check_chance("sparse_fraction", sparse_fraction)
    _check_chance("sparse_keep", sparse_keep)
    shape = (n_trials, config.n_time, config.n_bits)
    key_when, key_sign, key_sparse, key_keep = jax.random.split(key, 4)

    time = jnp.arange(config.n_time)
    admissible = (time % config.spacing == 0) & (time < config.n_time - config.n_hold)
    sparse = jax.random.bernoulli(key_sparse, sparse_fraction, (n_trials, 1, 1))
    kept = ~sparse | jax.random.bernoulli(key_keep, sparse_keep, shape)
    pulsed = jax.random.bernoulli(key_when, pulse_probability, shape) & kept & admissible[None, :, None]
    pulsed |= (time == 0)[None, :, None]

    inputs = jnp.where(pulsed, jax.random.rademacher(key_sign, shape, dtype=float), 0.0)
    targets = jax.lax.associative_scan(_latest, inputs, axis=1)
    return Batch(inputs, targets)


def sample_stream(
    key: jax.Array,
    n_bits: int,
    n_time: int,
    *,
    width: int = 10,
    gaps: tuple[int, int] = (30, 90),
) -> Batch:
    """Draw one long run of single pulses, a random line and sign each, for a network that learns while it runs.

    Args:
      key: typed PRNG key.
      n_bits: number of lines.
      n_time: number of steps.
      width: steps that a pulse lasts.
      gaps: least number of silent steps between two pulses, and one more than the largest; the run begins with a pulse.

    Returns:
      Batch of inputs and targets, each (n_time, n_bits); targets are 0 until a line has had its first pulse.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> run = sample_stream(jax.random.key(0), 3, 1000)
      >>> int(jnp.abs(run.inputs[:10]).sum()), int(jnp.abs(run.inputs[10:40]).sum())
      (10, 0)
    """
    if min(n_bits, n_time, width) < 1 or not 0 <= gaps[0] < gaps[1]:
        raise ValueError(
            f"n_bits, n_time and width must be at least 1, and 0 <= gaps[0] < gaps[1], got {n_bits}, {n_time}, {width} "
            f"and {gaps}."
        )
    key_gap, key_line, key_sign = jax.random.split(key, 3)
    n_pulses = -(-n_time // (width + gaps[0]))
    onsets = jnp.cumsum(width + jax.random.randint(key_gap, (n_pulses,), *gaps))
    onsets = jnp.concatenate([jnp.zeros(1, onsets.dtype), onsets[:-1]])
    lines = jax.random.randint(key_line, (n_pulses,), 0, n_bits)
    pulses = jax.random.rademacher(key_sign, (n_pulses, 1), dtype=float) * jax.nn.one_hot(lines, n_bits, dtype=float)
    time = jnp.arange(n_time)
    last = jnp.searchsorted(onsets, time, side="right") - 1
    inputs = jnp.where((time - onsets[last] < width)[:, None], pulses[last], 0.0)
    return Batch(inputs, jax.lax.associative_scan(_latest, inputs))


def scored_steps(inputs: jax.Array, n_warm: int = 0) -> jax.Array:
    """Steps at which a network that was not trained from its first state on can be held to all its outputs.

    They are silent, and come after every line has been pulsed since step `n_warm`. A pulse that finds the network still
    on its way from a random state to its memories may be lost; no network that learned on one long run learned that.

    Args:
      inputs: array of shape (..., n_time, n_bits), the pulses.
      n_warm: steps whose pulses do not count yet; 0 where the network begins in a state that it was trained in.

    Returns:
      (..., n_time), bool.

    Example:
      >>> pulses = jnp.array([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
      >>> scored_steps(pulses).tolist(), scored_steps(pulses, 1).tolist()
      ([False, False, True, False, True], [False, False, False, False, True])
    """
    pulsed = inputs != 0
    axis = inputs.ndim - 2
    counts = pulsed & (jax.lax.broadcasted_iota(jnp.int32, inputs.shape, axis) >= n_warm)
    return jnp.cumsum(counts, axis).all(-1) & ~pulsed.any(-1)


def loss(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared error over trials, steps and lines.

    Args:
      outputs: array of shape (..., n_time, n_bits), what the network says.
      targets: array of the same shape.

    Returns:
      The loss, a scalar, in squared units of the output; saying 0 throughout scores 1.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> float(loss(jnp.zeros((1, 4, 3)), jnp.ones((1, 4, 3))))
      1.0
    """
    _check_shapes(outputs, targets)
    return jnp.mean(jnp.square(outputs - targets))


def sign_accuracy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Share of outputs that have the sign of their target; steps before a line's first pulse (target 0) do not count.

    Args:
      outputs: array of shape (..., n_time, n_bits), what the network says.
      targets: array of the same shape: -1, +1, or 0 where nothing was stored yet.

    Returns:
      The share, a scalar in [0, 1]; NaN if nothing is scored. An output of 0 or NaN is wrong.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> float(sign_accuracy(jnp.array([[0.3], [0.9], [-0.2], [1.1]]), jnp.array([[0.0], [1.0], [-1.0], [-1.0]])))
      0.6666666865348816
    """
    _check_shapes(outputs, targets)
    return jnp.mean(outputs * targets > 0, where=targets != 0)


def _latest(before: jax.Array, now: jax.Array) -> jax.Array:
    return jnp.where(now == 0, before, now)


def _check_shapes(outputs: jax.Array, targets: jax.Array) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs and targets must have one shape, got {outputs.shape} and {targets.shape}.")


def _check_chance(name: str, chance: float | jax.Array) -> None:
    if isinstance(chance, int | float) and not 0 <= chance <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {chance}.")
