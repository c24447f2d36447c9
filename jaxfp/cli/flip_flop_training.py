"""How a memory is trained: squared error at every step, Adam with cosine decay, noise on the state.

One recipe for all packaged networks, seed 0 each: trials of 40 steps, pulse probability 0.1 per line and step, a
quarter of the trials with only 15 % of their pulses; Gaussian noise on the state after every step, which turns slow
memories into attractors; squared error on every step; Adam with cosine decay, global norm clipped to 1. The learning
rate begins at 1e-2, for a GRU at 3e-3, where its memories are learned as faster modes.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfp import io
from jaxfp.cli import report
from jaxfp.models import adapters, equations, train
from jaxfp.tasks import flip_flop
from jaxfp.types import Params, StepFn

CELLS: dict[equations.CellKind, int] = {"tanh": 100, "gru": 64, "lstm": 32}  # and their default number of units


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the same for every seed.

    Attributes:
      n_bits: lines of the task.
      n_time: steps of a training trial.
      pulse_probability, sparse_fraction, sparse_keep: see `flip_flop.sample_batch`.
      noise: standard deviation of the noise on the state, activation units.
      gain: of the recurrent weights at the start.
      learning_rate: first one of the cosine decay, which ends at a hundredth of it.
      clip: global norm of the gradient.
      batch_size: trials a step.
      n_steps: training steps.
    """

    n_bits: int = 3
    n_time: int = 40
    pulse_probability: float = 0.1
    sparse_fraction: float = 0.25
    sparse_keep: float = 0.15
    noise: float = 0.1
    gain: float = 0.8
    learning_rate: float = 1e-2
    clip: float = 1.0
    batch_size: int = 64
    n_steps: int = 1000


def recipe_of(cell: equations.CellKind) -> Recipe:
    """The recipe of the packaged network of a cell.

    Args:
      cell: "tanh", "gru" or "lstm".

    Returns:
      Recipe.

    Raises:
      ValueError: for an unknown cell.

    Example:
      >>> recipe_of("gru").learning_rate
      0.003
    """
    if cell not in CELLS:
        raise ValueError(f"cell must be one of {sorted(CELLS)}, got {cell!r}.")
    return Recipe(learning_rate=3e-3 if cell == "gru" else 1e-2)


class Network(NamedTuple):
    """A trained memory.

    Attributes:
      step_fn: its step.
      params: of the step.
      readout: (w_out (n_bits, n_units), b_out (n_bits,)); reads the first n_units of the state, h of an LSTM's (h, c).
    """

    step_fn: StepFn
    params: Params
    readout: tuple[Any, Any]


def read_out(readout: tuple[Any, Any], hidden: Any) -> Any:
    """Outputs of the network at given states.

    Args:
      readout: (w_out (n_bits, n_units), b_out (n_bits,)).
      hidden: (..., n_hidden), n_hidden >= n_units.

    Returns:
      (..., n_bits).

    Example:
      >>> read_out((jnp.ones((1, 2)), jnp.zeros(1)), jnp.ones(4)).tolist()
      [2.0]
    """
    w_out, b_out = readout
    return jnp.einsum("bn,...n->...b", w_out, hidden[..., : w_out.shape[1]]) + jnp.broadcast_to(
        b_out, (*hidden.shape[:-1], len(b_out))
    )


def as_network(cell: equations.CellKind, arrays: dict[str, Any]) -> Network:
    """Arrays of a file as a network.

    Args:
      cell: "tanh", "gru" or "lstm".
      arrays: those of `from_arrays`, and w_out (n_bits, n_units), b_out (n_bits,).

    Returns:
      Network.

    Raises:
      ValueError: if arrays are missing or have the wrong shape.

    Example:
      >>> arrays, _ = io.load_packaged("flip_flop_tanh")
      >>> as_network("tanh", arrays).params["w_rec"].shape
      (100, 100)
    """
    if not {"w_out", "b_out"} <= set(arrays):
        raise ValueError(f"a flip-flop network needs w_out and b_out, got {sorted(arrays)}.")
    step_fn, params = adapters.from_arrays(
        cell, {name: a for name, a in arrays.items() if name not in ("w_out", "b_out")}
    )
    return Network(step_fn, params, (arrays["w_out"], arrays["b_out"]))


@functools.lru_cache
def loss_of(step_fn: StepFn, n_hidden: int, recipe: Recipe) -> train.LossFn:
    """The loss that `train.fit` minimises; one function for each recipe, so that a second seed compiles nothing.

    Args:
      step_fn: of the network.
      n_hidden: size of the state.
      recipe: how it is trained.

    Returns:
      `(trained, key) -> loss`, of a dict of cell and readout.
    """
    config = flip_flop.FlipFlopConfig(n_bits=recipe.n_bits, n_time=recipe.n_time)

    def loss(trained: dict[str, Any], key: jax.Array) -> jax.Array:
        key_trials, key_noise = jax.random.split(key)
        batch = flip_flop.sample_batch(
            key_trials,
            config,
            recipe.batch_size,
            pulse_probability=recipe.pulse_probability,
            sparse_fraction=recipe.sparse_fraction,
            sparse_keep=recipe.sparse_keep,
        )
        noise = recipe.noise * jax.random.normal(key_noise, (recipe.n_time, recipe.batch_size, n_hidden))

        def step(hidden: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            pulses, blur = now
            hidden = jax.vmap(step_fn, (None, 0, 0))(trained["cell"], hidden, pulses) + blur
            return hidden, hidden

        start = jnp.zeros((recipe.batch_size, n_hidden))
        states = jax.lax.scan(step, start, (batch.inputs.swapaxes(0, 1), noise))[1]
        return flip_flop.loss(read_out(trained["readout"], states), batch.targets.swapaxes(0, 1))

    return loss


@functools.lru_cache
def optimizer_of(recipe: Recipe) -> optax.GradientTransformation:
    """Adam with cosine decay.

    Args:
      recipe: learning rate, clip and number of steps.

    Returns:
      Optax gradient transformation.
    """
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.n_steps, alpha=0.01)
    return optax.chain(optax.clip_by_global_norm(recipe.clip), optax.adam(schedule))


def train_network(
    seed: int, cell: equations.CellKind = "tanh", n_units: int | None = None, recipe: Recipe | None = None, **fit: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train a memory from scratch.

    Args:
      seed: of weights, data and noise.
      cell: "tanh", "gru" or "lstm".
      n_units: number of units; 100, 64 or 32 by default. An LSTM's state is twice as long.
      recipe: how; `recipe_of(cell)` by default.
      **fit: passed to `train.fit`: progress, checkpoint.

    Returns:
      Arrays in the layout of `from_arrays` with w_out and b_out, float32; and their provenance.

    Raises:
      ValueError: for an unknown cell.

    Example:
      >>> arrays, provenance = train_network(0, "tanh", 4, Recipe(n_steps=2, batch_size=2))
      >>> arrays["w_rec"].shape, provenance["seed"]
      ((4, 4), 0)
    """
    recipe = recipe or recipe_of(cell)
    n_units = CELLS[cell] if n_units is None else n_units
    seconds = report.stopwatch()
    key_cell, key_readout, key_train = jax.random.split(jax.random.key(seed), 3)
    arrays = equations.init_arrays(key_cell, cell, n_units, recipe.n_bits, gain=recipe.gain)
    step_fn, params = adapters.from_arrays(cell, arrays)
    w_out = jax.random.normal(key_readout, (recipe.n_bits, n_units)) / n_units**0.5
    start = {"cell": params, "readout": (w_out, jnp.zeros(recipe.n_bits))}
    n_hidden = 2 * n_units if cell == "lstm" else n_units
    result = train.fit(
        key_train, loss_of(step_fn, n_hidden, recipe), start, optimizer_of(recipe), recipe.n_steps, **fit
    )
    w_out, b_out = result.params["readout"]
    provenance = {
        "task": "flip-flop",
        "cell": cell,
        "n_units": n_units,
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "final_loss": float(np.mean(result.losses[-50:])),
        "seconds": seconds(),
        "made_by": f"python -m jaxfp flip-flop --train --cell {cell} --n-hidden {n_units} --seed {seed}"
        + (f" --n-bits {recipe.n_bits}" if recipe.n_bits != 3 else ""),
        **io.environment(),
    }
    trained = {**result.params["cell"], "w_out": w_out, "b_out": b_out}
    return {name: np.asarray(array) for name, array in trained.items()}, provenance
