"""Context integration with a switching linear system: how both are trained together.

Tanh units; u* is the context, so that each context has expansion points of its own. Adam with cosine decay, gradient
norm clipped to 10, fresh trials in every update; the same Gaussian noise on the state of both branches after every
step, falling to nothing at the end; lam_e and lam_a grow from 0 over the first tenth of the updates.

Noise makes the network forget what is off its line of fixed points, so that one mode is left beside the others; it
costs accuracy, which comes back as it falls. Small recurrent weights at the start and a large learning rate do more for
the same end: with a gain of 0.9 or a rate of 3e-3 second modes of 0.8 and more were left. `STANDARD` is the network
alone, without noise: the baseline of Smith et al. (2021). `PAPER` has their own sizes, optimizer and number of updates.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp.cli import jslds_training
from jaxfp.cli.jslds_training import Network, Recipe, Training
from jaxfp.models import adapters, equations, jslds, jslds_losses, train
from jaxfp.tasks import context_integration
from jaxfp.tasks.context_integration import CONTEXT_LINES, ContextIntegrationConfig

N_INPUTS = 4
RECIPE = Recipe(
    cell="tanh",
    n_units=64,
    strengths=jslds_losses.Strengths(lam_rnn=1.0, lam_jslds=1.0, lam_e=100.0, lam_a=50.0, l2=1e-5),
    noise=0.1,
    noise_left=0.0,
    sparse_fraction=0.0,
    gain=0.5,
    learning_rate=4e-3,
    n_steps=4000,
)
STANDARD = dataclasses.replace(RECIPE, strengths=jslds_training.ALONE, noise=0.0)
_PAPER_STRENGTHS = dataclasses.replace(RECIPE.strengths, lam_a=10.0)
PAPER = dataclasses.replace(
    jslds_training.PAPER,
    cell="tanh",
    n_units=128,
    strengths=_PAPER_STRENGTHS,
    n_steps=50_000,
)


def as_network(arrays: dict[str, Any]) -> Network:
    """Arrays of a file as a network of tanh units that is expanded in its context.

    Args:
      arrays: see `jslds_training.as_network`.

    Returns:
      Network.

    Raises:
      ValueError: if arrays are missing or have the wrong shape.

    Example:
      >>> start = init_network(jax.random.key(0), dataclasses.replace(RECIPE, n_units=4))
      >>> as_network(jslds_training.as_arrays(start.params)).model.static_lines
      (2, 3)
    """
    return _in_context(jslds_training.as_network("tanh", arrays))


def _in_context(network: Network) -> Network:
    return network._replace(model=dataclasses.replace(network.model, static_lines=CONTEXT_LINES))


def init_network(key: jax.Array, recipe: Recipe) -> Network:
    """A network to begin training with, biases 0.

    Args:
      key: typed PRNG key.
      recipe: number of units and gain.

    Returns:
      Network.

    Example:
      >>> init_network(jax.random.key(0), dataclasses.replace(RECIPE, n_units=4)).params.readout[0].shape
      (1, 4)
    """
    key_cell, key_rest = jax.random.split(key)
    arrays = equations.init_arrays(key_cell, "tanh", recipe.n_units, N_INPUTS, gain=recipe.gain)
    step_fn, weights = adapters.from_arrays("tanh", arrays)
    expand_fn, expansion = jslds.build_expansion(recipe.n_units)
    params = jslds.init_params(key_rest, weights, expansion, 1, recipe.n_units)
    return _in_context(Network(jslds.Jslds(step_fn, expand_fn), jax.tree.map(jnp.asarray, params)))


def train_network(seed: int, recipe: Recipe = RECIPE, **fit: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train from scratch.

    Args:
      seed: of weights, data and noise.
      recipe: how, of tanh units.
      **fit: passed to `train.fit`: progress, checkpoint.

    Returns:
      Arrays as of `as_network`, float32; and their provenance.

    Example:
      >>> arrays, provenance = train_network(0, dataclasses.replace(RECIPE, n_units=4, n_steps=2, batch_size=2))
      >>> arrays["w_in"].shape, provenance["seed"]
      ((4, 4), 0)
    """
    return jslds_training.train_seeds(CONTEXT, (seed,), recipe, **fit)[0]


@functools.lru_cache
def loss_of(model: jslds.Jslds, recipe: Recipe) -> train.LossFn:
    """The loss that `train.fit` minimises; one function for each recipe, so that a second seed compiles nothing.

    Args:
      model: functions of the network.
      recipe: how it is trained.

    Returns:
      `(training, key) -> (loss, terms)`, of a `Training`; of a network alone `(training, key) -> loss`.
    """
    config = ContextIntegrationConfig()

    def loss(training: Training, key: jax.Array) -> jax.Array | tuple[jax.Array, jslds_losses.LossTerms]:
        key_trials, key_noise = jax.random.split(key)
        inputs, targets, _ = context_integration.sample_batch(key_trials, config, recipe.batch_size)
        shape = (recipe.batch_size, config.n_time, recipe.n_units)
        noise = jslds_training.sample_noise(key_noise, recipe, training.clock, shape)
        return jslds_training.loss_on(model, recipe, training, (inputs, targets), context_integration.loss, noise)

    return loss


CONTEXT = jslds_training.Problem("context integration", init_network, loss_of)
