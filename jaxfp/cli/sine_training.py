"""How a sine generator is trained: longer and longer runs, by backpropagation through time.

The network is x' = (1 - dt) x + dt (W tanh(x) + W_in u + b), z = w_out tanh(x) + b_out, with a trained first state that
all inputs share, everything in units of the time constant. What is minimized is the squared error plus a penalty on the
squared rates, under which the orbits stay where the linearization at their middle says something. There is one recipe
and one retry rule, both fixed before any seed was run: if then some input oscillates more than 1 % off its target, or
the frequencies of the leading modes correlate with the targets by less than 0.99, `retry` more updates are taken, once.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfp import dynamics, io
from jaxfp.cli import report
from jaxfp.models import adapters, train
from jaxfp.tasks import sine_generator
from jaxfp.types import Params, StepFn


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training, Adam from a fresh start with its rate decaying to a tenth.

    Attributes:
      duration: of a trial, time constants.
      learning_rate: first one of the cosine decay.
      n_steps: updates.
    """

    duration: float
    learning_rate: float
    n_steps: int


STAGES = (Stage(15, 5e-3, 600), Stage(30, 4e-3, 600), Stage(63, 3e-3, 1000), Stage(126, 2e-3, 2500))
RETRY = Stage(126, 2e-3, 1500)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the same for every seed.

    Attributes:
      n_conditions: inputs, all in every update.
      dt: duration of a step, time constants.
      gain: of the recurrent weights at the start.
      input_scale: standard deviation of the input weights at the start.
      bias_scale: of the biases.
      state_scale: of the first state.
      penalty: factor of the mean squared rate.
      slow_weight: see `sine_generator.loss`.
      noise: standard deviation of the noise on the state per square root of a time constant.
      clip: global norm of the gradient.
      stages: one after another.
      retry: once more, if the retry rule says so; None for never.
    """

    n_conditions: int = 51
    dt: float = 0.5
    gain: float = 0.8
    input_scale: float = 0.3
    bias_scale: float = 0.1
    state_scale: float = 0.5
    penalty: float = 0.3
    slow_weight: float = 0.5
    noise: float = 0.02
    clip: float = 0.5
    stages: tuple[Stage, ...] = STAGES
    retry: Stage | None = RETRY


class Network(NamedTuple):
    """A trained sine generator.

    Attributes:
      step_fn: its step, of dt time constants.
      params: of the step.
      readout: (w_out (n_units,), b_out ()), of the rates tanh(x).
      hidden0: (n_units,), the first state.
    """

    step_fn: StepFn
    params: Params
    readout: tuple[Any, Any]
    hidden0: Any


def as_network(arrays: dict[str, Any], dt: float) -> Network:
    """Arrays of a file as a network.

    Args:
      arrays: w_rec, w_in, b as of `from_arrays`, and w_out (n_units,), b_out (), hidden0 (n_units,).
      dt: duration of a step, time constants.

    Returns:
      Network.

    Raises:
      ValueError: if arrays are missing or have the wrong shape.

    Example:
      >>> eye = np.eye(2)
      >>> arrays = dict.fromkeys(("b", "w_out", "hidden0"), eye[0])
      >>> arrays |= {"w_rec": eye, "w_in": eye[:, :1], "b_out": eye[0, 0]}
      >>> as_network(arrays, 0.5).step_fn.alpha
      0.5
    """
    if not {"w_out", "b_out", "hidden0"} <= set(arrays):
        raise ValueError(f"a sine generator needs w_out, b_out and hidden0, got {sorted(arrays)}.")
    weights = {name: arrays[name] for name in ("w_rec", "w_in", "b")}
    step_fn, params = adapters.from_arrays("euler", weights, alpha=dt, form="current")
    return Network(step_fn, params, (arrays["w_out"], arrays["b_out"]), arrays["hidden0"])


def read_out(readout: tuple[Any, Any], hidden: Any) -> Any:
    """Outputs of the network at given states.

    Args:
      readout: (w_out (n_units,), b_out ()).
      hidden: (..., n_units), the states x.

    Returns:
      (...,).

    Example:
      >>> float(read_out((jnp.ones(2), jnp.ones(())), jnp.zeros(2)))
      1.0
    """
    return jnp.tanh(hidden) @ readout[0] + readout[1]


def train_network(
    seed: int, n_units: int = 100, recipe: Recipe | None = None, **fit: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train a sine generator from scratch, all stages, without the retry.

    Args:
      seed: of weights and noise.
      n_units: number of units.
      recipe: how.
      **fit: passed to `train.fit`: progress.

    Returns:
      Arrays as of `as_network`, float32; and their provenance.

    Example:
      >>> recipe = Recipe(n_conditions=3, stages=(Stage(3, 1e-3, 2),))
      >>> arrays, provenance = train_network(0, 4, recipe)
      >>> arrays["hidden0"].shape, len(provenance["losses"])
      ((4,), 1)
    """
    recipe = recipe or Recipe()
    seconds = report.stopwatch()
    keys = jax.random.split(jax.random.key(seed), 5)
    arrays = {
        "w_rec": recipe.gain / n_units**0.5 * jax.random.normal(keys[0], (n_units, n_units)),
        "w_in": recipe.input_scale * jax.random.normal(keys[1], (n_units, 1)),
        "b": recipe.bias_scale * jax.random.normal(keys[2], (n_units,)),
        "w_out": jax.random.normal(keys[4], (n_units,)) / n_units**0.5,
        "b_out": jnp.zeros(()),
        "hidden0": recipe.state_scale * jax.random.normal(keys[3], (n_units,)),
    }
    losses = []
    for number, stage in enumerate(recipe.stages):
        arrays, loss = _run_stage(seed, number, arrays, stage, recipe, fit)
        losses.append(loss)
    provenance = {
        "task": "sine-generator",
        "n_units": n_units,
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "losses": losses,
        "retried": False,
        "seconds": seconds(),
        "made_by": f"python -m jaxfp sine-generator --train --n-hidden {n_units} --seed {seed}",
        **io.environment(),
    }
    return {name: np.asarray(array) for name, array in arrays.items()}, provenance


def retry(
    arrays: dict[str, Any], provenance: dict[str, Any], recipe: Recipe, **fit: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The one retry.

    Args:
      arrays: as of `train_network`.
      provenance: as of `train_network`.
      recipe: with a `retry`.
      **fit: passed to `train.fit`.

    Returns:
      Arrays and provenance after it.

    Raises:
      ValueError: if the recipe has no retry, or it was taken.

    Example:
      >>> recipe = Recipe(n_conditions=3, stages=(Stage(3, 1e-3, 2),), retry=Stage(3, 1e-3, 2))
      >>> retry(*train_network(0, 4, recipe), recipe)[1]["retried"]
      True
    """
    if recipe.retry is None or provenance["retried"]:
        raise ValueError("there is one retry, if the recipe has one, and it was taken.")
    seconds = report.stopwatch()
    arrays, loss = _run_stage(provenance["seed"], len(recipe.stages), arrays, recipe.retry, recipe, fit)
    said = {"losses": [*provenance["losses"], loss], "retried": True, "seconds": provenance["seconds"] + seconds()}
    return {name: np.asarray(array) for name, array in arrays.items()}, provenance | said


def free_runs(network: Network, dt: float, duration: float, n_conditions: int = 51) -> np.ndarray:
    """States of the network without noise, at every input, from its first state.

    Args:
      network: see `Network`.
      dt: duration of a step, time constants.
      duration: of the run, time constants.
      n_conditions: number of inputs.

    Returns:
      (n_conditions, n_time, n_units) float32.

    Example:
      >>> arrays, _ = train_network(0, 4, Recipe(n_conditions=3, stages=(Stage(3, 1e-3, 2),)))
      >>> free_runs(as_network(arrays, 0.5), 0.5, 4.0, 3).shape
      (3, 8, 4)
    """
    inputs, _ = sine_generator.conditions(sine_generator.SineGeneratorConfig(n_conditions))
    n_time = round(duration / dt)
    drives = jnp.broadcast_to(inputs[:, None], (n_conditions, n_time, 1))
    return np.asarray(_simulate(network.step_fn, network.params, jnp.asarray(network.hidden0), drives))


_simulate = jax.jit(dynamics.simulate, static_argnums=0)


def _run_stage(
    seed: int, number: int, arrays: dict[str, Any], stage: Stage, recipe: Recipe, fit: dict[str, Any]
) -> tuple[dict[str, Any], float]:
    schedule = optax.cosine_decay_schedule(stage.learning_rate, stage.n_steps, alpha=0.1)
    optimizer = optax.chain(optax.clip_by_global_norm(recipe.clip), optax.adam(schedule))
    loss = _loss_fn(stage.duration, len(arrays["w_out"]), recipe)
    key = jax.random.fold_in(jax.random.key(seed), number)
    result = train.fit(key, loss, arrays, optimizer, stage.n_steps, chunk_size=50, **fit)
    return result.params, float(np.mean(result.losses[-50:]))


@functools.lru_cache
def _loss_fn(duration: float, n_units: int, recipe: Recipe) -> train.LossFn:
    """One function for each recipe, so that training a second seed compiles nothing."""
    n, dt = recipe.n_conditions, recipe.dt
    config = sine_generator.SineGeneratorConfig(n, round(duration / dt), dt)

    def loss(arrays: dict[str, Any], key: jax.Array) -> jax.Array:
        network = as_network(arrays, dt)
        key_trials, key_noise = jax.random.split(key)
        batch = sine_generator.sample_batch(key_trials, config, n)
        blur = recipe.noise * dt**0.5 * jax.random.normal(key_noise, (config.n_time, n, n_units))

        def step(hidden: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            drive, noise = now
            hidden = jax.vmap(network.step_fn, (None, 0, 0))(network.params, hidden, drive) + noise
            return hidden, jnp.tanh(hidden)

        start = jnp.broadcast_to(network.hidden0, (n, n_units))
        rates = jax.lax.scan(step, start, (batch.inputs.swapaxes(0, 1), blur))[1]
        outputs = (rates @ network.readout[0] + network.readout[1]).T[..., None]
        error = sine_generator.loss(outputs, batch.targets, batch.omega, config, slow_weight=recipe.slow_weight)
        return error + recipe.penalty * jnp.mean(jnp.square(rates))

    return loss
