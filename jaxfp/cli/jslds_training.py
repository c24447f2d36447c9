"""How a network and its switching linear system are trained together on the 3-bit memory, and the network alone.

Adam with cosine decay, gradient norm clipped to 10; fresh trials in every update, a quarter of them with only 15 % of
their pulses; the same Gaussian noise on the state of both branches after every step. Noise and silence make the network
hold its memories at fixed points. Without them, `PLAIN`, a GRU closes its gates instead: F(h, 0) is nearly h
everywhere, every state is nearly a fixed point, and the fixed-point term is small for nothing. With noise, units that a
memory does not need still close their gates: modes with eigenvalue 1 that take up no pulse, and fast ones are left to
those that do. The fewer units, the more noise and the weaker the fixed-point term, the fewer such modes; hence 28
units, noise 0.15, and lam_e = 5. The noise falls to a tenth: networks that end with half of it select worse
(benchmarks/jslds_seeds/README.md). lam_e and lam_a grow from 0 over the first tenth of the updates. `STANDARD` is the
network alone, without noise: the baseline of Smith et al. (2021). `PAPER` has their own sizes, optimizer and number of
updates, of their released code: for a GPU.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfp import io
from jaxfp.cli import report
from jaxfp.models import adapters, equations, jslds, jslds_losses, train
from jaxfp.tasks import three_bit_memory


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the same for every seed.

    Attributes:
      cell: kind of the network, one of `from_arrays` without options.
      n_units: number of units; the state of an LSTM is twice as long.
      strengths: of the terms of the loss.
      noise: standard deviation of the noise on the state, activation units.
      noise_left: what is left of it at the end, a share; it falls along half a cosine.
      sparse_fraction, sparse_keep: see `three_bit_memory.sample_batch`.
      gain: of the recurrent weights at the start.
      learning_rate: the first one.
      decay: of the learning rate in each update; None for a cosine, which ends at a hundredth of it.
      adam_eps: what Adam adds to the size of the gradient.
      clip: global norm of the gradient.
      ramp: share of the updates over which lam_e and lam_a grow to their full strength; 0 for full strength at once.
      batch_size: trials an update.
      n_steps: updates.
    """

    cell: equations.CellKind = "gru"
    n_units: int = 28
    strengths: jslds_losses.Strengths = dataclasses.field(default_factory=lambda: jslds_losses.Strengths(lam_e=5.0))
    noise: float = 0.15
    noise_left: float = 0.1
    sparse_fraction: float = 0.25
    sparse_keep: float = 0.15
    gain: float = 0.9
    learning_rate: float = 1e-2
    decay: float | None = None
    adam_eps: float = 1e-8
    clip: float = 10.0
    ramp: float = 0.1
    batch_size: int = 64
    n_steps: int = 6000


ALONE = jslds_losses.Strengths(lam_rnn=1.0, lam_jslds=0.0, lam_e=0.0, lam_a=0.0)
PLAIN = Recipe(noise=0.0, sparse_fraction=0.0)
STANDARD = Recipe(strengths=ALONE, noise=0.0, sparse_fraction=0.0)
STANDARD_WITH_NOISE = Recipe(strengths=ALONE)
PAPER = Recipe(
    n_units=100,
    strengths=jslds_losses.Strengths(),
    noise=0.0,
    sparse_fraction=0.0,
    learning_rate=0.02,
    decay=0.9999,
    adam_eps=0.1,
    ramp=0.0,
    batch_size=256,
    n_steps=40_000,
)


class Network(NamedTuple):
    """A trained network with its switching linear system.

    Attributes:
      model: its functions.
      params: its weights.
    """

    model: jslds.Jslds
    params: jslds.JsldsParams


class Training(NamedTuple):
    """What `train.fit` carries.

    Attributes:
      weights: trained.
      clock: scalar, the number of updates so far, which the ramp looks at.
    """

    weights: jslds.JsldsParams
    clock: jax.Array


def as_network(cell: equations.CellKind, arrays: dict[str, Any]) -> Network:
    """Arrays of a file as a network.

    Args:
      cell: kind of the network.
      arrays: those of `from_arrays`; w_out, b_out, hidden0; and of the expansion network first_kernel, first_bias,
        second_kernel, second_bias.

    Returns:
      Network.

    Raises:
      ValueError: if arrays are missing or have the wrong shape.

    Example:
      >>> network = init_network(jax.random.key(0), Recipe(n_units=4))
      >>> as_network("gru", as_arrays(network.params)).params.hidden0.shape
      (4,)
    """
    missing = sorted(_OTHERS - set(arrays))
    if missing:
        raise ValueError(f"a network with its switching linear system needs {missing}, got {sorted(arrays)}.")
    step_fn, weights = adapters.from_arrays(cell, {name: a for name, a in arrays.items() if name not in _OTHERS})
    expand_fn, _ = jslds.build_expansion(len(arrays["hidden0"]))
    expansion = {
        layer: {name: arrays[f"{layer}_{name}"] for name in ("kernel", "bias")} for layer in ("first", "second")
    }
    params = jslds.JsldsParams(weights, expansion, (arrays["w_out"], arrays["b_out"]), arrays["hidden0"])
    return Network(jslds.Jslds(step_fn, expand_fn), params)


_OTHERS = {"w_out", "b_out", "hidden0", "first_kernel", "first_bias", "second_kernel", "second_bias"}


def as_arrays(params: jslds.JsldsParams) -> dict[str, np.ndarray]:
    """The other way round.

    Args:
      params: with the expansion network of `build_expansion` and a cell of `from_arrays`.

    Returns:
      Arrays by the names that `as_network` knows.

    Example:
      >>> network = init_network(jax.random.key(0), Recipe(n_units=4))
      >>> as_arrays(network.params)["first_kernel"].shape
      (4, 4)
    """
    expansion = {f"{layer}_{name}": a for layer, named in params.expansion.items() for name, a in named.items()}
    w_out, b_out = params.readout
    named = {**params.cell, **expansion, "w_out": w_out, "b_out": b_out, "hidden0": params.hidden0}
    return {name: np.asarray(array) for name, array in named.items()}


def init_network(key: jax.Array, recipe: Recipe) -> Network:
    """A network to begin training with: biases 0, those of the gates, too.

    Args:
      key: typed PRNG key.
      recipe: sizes and gain.

    Returns:
      Network.

    Example:
      >>> init_network(jax.random.key(0), Recipe(cell="lstm", n_units=4)).params.hidden0.shape
      (8,)
    """
    config = three_bit_memory.ThreeBitMemoryConfig()
    key_cell, key_rest = jax.random.split(key)
    arrays = equations.init_arrays(key_cell, recipe.cell, recipe.n_units, 2 * config.n_bits, gain=recipe.gain)
    step_fn, weights = adapters.from_arrays(recipe.cell, {**arrays, "b": jnp.zeros_like(arrays["b"])})
    n_hidden = 2 * recipe.n_units if recipe.cell == "lstm" else recipe.n_units
    expand_fn, expansion = jslds.build_expansion(n_hidden)
    params = jslds.init_params(key_rest, weights, expansion, config.n_bits, n_hidden, recipe.n_units)
    return Network(jslds.Jslds(step_fn, expand_fn), jax.tree.map(jnp.asarray, params))


def train_network(seed: int, recipe: Recipe | None = None, **fit: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train from scratch.

    Args:
      seed: of weights, data and noise.
      recipe: how.
      **fit: passed to `train.fit`: progress, checkpoint.

    Returns:
      Arrays as of `as_network`, float32; and their provenance.

    Example:
      >>> arrays, provenance = train_network(0, Recipe("tanh", n_units=4, n_steps=1, batch_size=2, noise=0.0))
      >>> arrays["w_rec"].shape, provenance["seed"]
      ((4, 4), 0)
    """
    return train_seeds(THREE_BIT, (seed,), recipe or Recipe(), **fit)[0]


class Problem(NamedTuple):
    """What is trained.

    Attributes:
      name: of the task.
      init_network: `(key, recipe) -> Network` to begin with.
      loss_of: `(model, recipe) -> loss_fn` of a `Training`.
    """

    name: str
    init_network: Callable[[jax.Array, Recipe], Network]
    loss_of: Callable[[jslds.Jslds, Recipe], train.LossFn]


def train_seeds(
    problem: Problem, seeds: Sequence[int], recipe: Recipe, **fit: Any
) -> list[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Train a network for each seed, several of them together in one program.

    Args:
      problem: what.
      seeds: of weights, data and noise.
      recipe: how.
      **fit: passed to `train.fit`: progress, checkpoint.

    Returns:
      For each seed, arrays as of `as_network`, float32; and their provenance, with the time of all together.

    Example:
      >>> recipe = Recipe("tanh", n_units=4, n_steps=1, batch_size=2, noise=0.0)
      >>> [provenance["seed"] for arrays, provenance in train_seeds(THREE_BIT, (0, 1), recipe)]
      [0, 1]
    """
    seconds = report.stopwatch()
    keys = [jax.random.split(jax.random.key(seed)) for seed in seeds]
    networks = [problem.init_network(key_start, recipe) for key_start, _ in keys]
    starts = [Training(network.params, jnp.zeros(())) for network in networks]
    key, start = keys[0][1], starts[0]
    if len(seeds) > 1:
        key = jnp.stack([key_train for _, key_train in keys])
        start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    loss = problem.loss_of(networks[0].model, recipe)
    result = train.fit(key, loss, start, optimizer_of(recipe), recipe.n_steps, **fit)
    took, trained = seconds(), []
    for row, seed in enumerate(seeds):
        one = jax.tree.map(operator.itemgetter(row), result) if len(seeds) > 1 else result
        terms = {} if one.terms is None else one.terms._asdict()
        provenance = {
            "task": problem.name,
            "cell": recipe.cell,
            "seed": seed,
            "trained_together": list(seeds),
            "recipe": dataclasses.asdict(recipe),
            "final_loss": float(np.mean(one.losses[-50:])),
            "final_terms": {name: float(np.mean(term[-50:])) for name, term in terms.items()},
            "seconds": took,
            **io.environment(),
        }
        trained.append((as_arrays(one.params.weights), provenance))
    return trained


@functools.lru_cache
def loss_of(model: jslds.Jslds, recipe: Recipe) -> train.LossFn:
    """The loss that `train.fit` minimises; one function for each recipe, so that a second seed compiles nothing.

    Args:
      model: functions of the network.
      recipe: how it is trained.

    Returns:
      `(training, key) -> (loss, terms)`, of a `Training`; of a network alone `(training, key) -> loss`.
    """
    config = three_bit_memory.ThreeBitMemoryConfig()

    def loss(training: Training, key: jax.Array) -> jax.Array | tuple[jax.Array, jslds_losses.LossTerms]:
        key_trials, key_noise = jax.random.split(key)
        batch = three_bit_memory.sample_batch(
            key_trials,
            config,
            recipe.batch_size,
            sparse_fraction=recipe.sparse_fraction,
            sparse_keep=recipe.sparse_keep,
        )
        shape = (recipe.batch_size, config.n_time, len(training.weights.hidden0))
        noise = sample_noise(key_noise, recipe, training.clock, shape)
        return loss_on(model, recipe, training, batch, three_bit_memory.loss, noise)

    return loss


THREE_BIT = Problem("3-bit memory", init_network, loss_of)


def sample_noise(key: jax.Array, recipe: Recipe, clock: jax.Array, shape: tuple[int, ...]) -> jax.Array | None:
    """Noise on the state, as strong as it is by now.

    Args:
      key: of the noise.
      recipe: how strong it is.
      clock: scalar, the number of updates so far.
      shape: (n_trials, n_time, n_hidden).

    Returns:
      Noise of this shape, activation units; None for none.

    Example:
      >>> recipe = Recipe(noise=0.1, noise_left=0.5, n_steps=10)
      >>> first, last = (sample_noise(jax.random.key(0), recipe, jnp.full((), n), (1, 1, 1)) for n in (0.0, 10.0))
      >>> round(float(last[0, 0, 0] / first[0, 0, 0]), 6)
      0.5
    """
    if not recipe.noise:
        return None
    fallen = (1 - jnp.cos(jnp.pi * jax.lax.stop_gradient(clock) / recipe.n_steps)) / 2
    return recipe.noise * (1 - (1 - recipe.noise_left) * fallen) * jax.random.normal(key, shape)


def loss_on(
    model: jslds.Jslds, recipe: Recipe, training: Training, batch: Any, task_loss: jslds_losses.TaskLoss, noise: Any
) -> jax.Array | tuple[jax.Array, jslds_losses.LossTerms]:
    """The loss on a batch, at the strength that its terms have by now.

    Args:
      model: functions of the network.
      recipe: how it is trained.
      training: weights and clock.
      batch: (inputs, targets) with leading axis n_trials.
      task_loss: `(outputs, targets) -> scalar`.
      noise: (n_trials, n_time, n_hidden), added to the states; None for none.

    Returns:
      `(loss, terms)`; of a network alone, the loss.

    Example:
      >>> network = init_network(jax.random.key(0), Recipe("tanh", n_units=4))
      >>> start = Training(network.params, jnp.zeros(()))
      >>> batch = three_bit_memory.sample_batch(jax.random.key(0), three_bit_memory.ThreeBitMemoryConfig(n_time=6), 2)
      >>> loss, terms = loss_on(network.model, PLAIN, start, batch, three_bit_memory.loss, None)
      >>> bool(abs(loss - 3 * terms.rnn - terms.jslds) < 1e-4)
      True
    """
    (inputs, targets), strengths = batch, recipe.strengths
    if strengths.network_alone:
        return strengths.lam_rnn * jslds_losses.network_loss(model, training.weights, inputs, targets, task_loss, noise)
    n_ramp = recipe.ramp * recipe.n_steps
    ramp = jnp.minimum(jax.lax.stop_gradient(training.clock) / max(n_ramp, 1), 1.0) if n_ramp else 1.0
    terms = jslds_losses.loss_terms(model, training.weights, inputs, targets, task_loss, noise)
    return jslds_losses.total_loss(terms, strengths, ramp), terms


@functools.lru_cache
def optimizer_of(recipe: Recipe) -> optax.GradientTransformation:
    """Adam on the weights of a `Training`, whose clock goes on by one an update.

    Args:
      recipe: learning rate, its decay, clip and number of updates.

    Returns:
      Optax gradient transformation.
    """
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.n_steps, alpha=0.01)
    if recipe.decay is not None:
        schedule = optax.exponential_decay(recipe.learning_rate, 1, recipe.decay)
    adam = optax.chain(optax.clip_by_global_norm(recipe.clip), optax.adam(schedule, eps=recipe.adam_eps))

    def update(gradient: Training, state: Any, training: Training) -> tuple[Training, Any]:
        updates, state = adam.update(gradient.weights, state, training.weights)
        return Training(updates, jnp.ones_like(training.clock)), state

    return optax.GradientTransformation(lambda training: adam.init(training.weights), update)
