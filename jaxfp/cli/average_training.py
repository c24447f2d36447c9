"""How a moving average is trained: a GRU or tanh network, squared error at every step, Adam, warm-up and cosine decay.

One recipe for every seed, and for the control that is asked for the last pulse alone, with half of the updates.
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
from jaxfp.tasks import moving_average
from jaxfp.types import Params, StepFn


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the same for every seed.

    Attributes:
      n_values: pulses averaged over: 2, for the control 1.
      n_time: steps of a training trial.
      gain: of the recurrent weights at the start.
      learning_rate: the largest, after the warm-up; the decay ends at a hundredth of it.
      warm_up: updates until then.
      clip: global norm of the gradient.
      batch_size: trials an update.
      n_steps: updates.
    """

    n_values: int = 2
    n_time: int = 100
    gain: float = 1.0
    learning_rate: float = 3e-3
    warm_up: int = 200
    clip: float = 1.0
    batch_size: int = 64
    n_steps: int = 4000


CONTROL = Recipe(n_values=1, n_steps=2000)


class Network(NamedTuple):
    """A trained moving average.

    Attributes:
      step_fn: its step.
      params: of the step.
      readout: (w_out (1, n_units), b_out (1,)).
    """

    step_fn: StepFn
    params: Params
    readout: tuple[Any, Any]


def as_network(cell: equations.CellKind, arrays: dict[str, Any]) -> Network:
    """Arrays of a file as a network.

    Args:
      cell: "gru" or "tanh".
      arrays: those of `from_arrays`, and w_out (1, n_units), b_out (1,).

    Returns:
      Network.

    Raises:
      ValueError: if arrays are missing or have the wrong shape.

    Example:
      >>> eye = np.eye(2)
      >>> as_network("tanh", {"w_rec": eye, "w_in": eye, "w_out": eye[:1], "b_out": eye[0, :1]}).step_fn.kind
      'tanh'
    """
    if not {"w_out", "b_out"} <= set(arrays):
        raise ValueError(f"a moving average needs w_out and b_out, got {sorted(arrays)}.")
    weights = {name: array for name, array in arrays.items() if name not in ("w_out", "b_out")}
    step_fn, params = adapters.from_arrays(cell, weights)
    return Network(step_fn, params, (arrays["w_out"], arrays["b_out"]))


def read_out(readout: tuple[Any, Any], hidden: Any) -> Any:
    """Outputs of the network at given states.

    Args:
      readout: (w_out (1, n_units), b_out (1,)).
      hidden: (..., n_units).

    Returns:
      (..., 1).

    Example:
      >>> read_out((jnp.ones((1, 2)), jnp.zeros(1)), jnp.ones((3, 2))).ravel().tolist()
      [2.0, 2.0, 2.0]
    """
    w_out, b_out = readout
    return hidden @ w_out.T + jnp.broadcast_to(b_out, (*hidden.shape[:-1], 1))


def train_network(
    seed: int, cell: equations.CellKind = "gru", n_units: int = 64, recipe: Recipe | None = None, **fit: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train a moving average from scratch.

    Args:
      seed: of weights and data.
      cell: "gru" or "tanh".
      n_units: number of units.
      recipe: how.
      **fit: passed to `train.fit`: progress, checkpoint.

    Returns:
      Arrays as of `as_network`, float32; and their provenance.

    Example:
      >>> arrays, provenance = train_network(0, "gru", 4, Recipe(n_time=10, warm_up=1, n_steps=2, batch_size=2))
      >>> arrays["w_rec"].shape, provenance["seed"]
      ((12, 4), 0)
    """
    recipe = recipe or Recipe()
    seconds = report.stopwatch()
    key_cell, key_readout, key_train = jax.random.split(jax.random.key(seed), 3)
    arrays = equations.init_arrays(key_cell, cell, n_units, 2, gain=recipe.gain)
    step_fn, params = adapters.from_arrays(cell, arrays)
    w_out = jax.random.normal(key_readout, (1, n_units)) / n_units**0.5
    start = {"cell": params, "readout": (w_out, jnp.zeros(1))}
    result = train.fit(key_train, _loss_fn(step_fn, n_units, recipe), start, _optimizer(recipe), recipe.n_steps, **fit)
    w_out, b_out = result.params["readout"]
    provenance = {
        "task": "moving-average",
        "cell": cell,
        "n_units": n_units,
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "final_loss": float(np.mean(result.losses[-50:])),
        "seconds": seconds(),
        "made_by": f"python -m jaxfp moving-average --train --cell {cell} --n-hidden {n_units} --seed {seed}",
        **io.environment(),
    }
    trained = {**result.params["cell"], "w_out": w_out, "b_out": b_out}
    return {name: np.asarray(array) for name, array in trained.items()}, provenance


@functools.lru_cache
def _loss_fn(step_fn: StepFn, n_units: int, recipe: Recipe) -> train.LossFn:
    """One function for each recipe, so that training a second seed compiles nothing."""
    config = moving_average.MovingAverageConfig(recipe.n_values, recipe.n_time)

    def loss(trained: dict[str, Any], key: jax.Array) -> jax.Array:
        batch = moving_average.sample_batch(key, config, recipe.batch_size)

        def step(hidden: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
            hidden = jax.vmap(step_fn, (None, 0, 0))(trained["cell"], hidden, now)
            return hidden, hidden

        start = jnp.zeros((recipe.batch_size, n_units))
        states = jax.lax.scan(step, start, batch.inputs.swapaxes(0, 1))[1]
        return moving_average.loss(read_out(trained["readout"], states), batch.targets.swapaxes(0, 1))

    return loss


@functools.lru_cache
def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    peak = recipe.learning_rate
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, recipe.warm_up, recipe.n_steps, end_value=peak / 100)
    return optax.chain(optax.clip_by_global_norm(recipe.clip), optax.adam(schedule))
