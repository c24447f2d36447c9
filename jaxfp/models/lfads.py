"""LFADS-JSLDS on spike counts of your own: `fit_lfads` trains, `infer` says what lies behind the spikes.

The equations stand in `lfads_model`, the loss in `lfads_losses`. Training is Adam with cosine decay on trials drawn
with replacement; the divergences count little at first, so that the likelihood shapes the generator before the priors
do: their strength grows from `kl_least` to 1 between the updates of `kl_warm_up`.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfp import arguments, dynamics
from jaxfp.models import jslds_losses, train
from jaxfp.models.lfads_losses import loss_terms, total_loss
from jaxfp.models.lfads_model import Lfads, LfadsConfig, LfadsParams, LfadsRollout, build_lfads, roll_out


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the networks are trained.

    Attributes:
      config: sizes and priors.
      strengths: of the terms of the loss.
      dropout: share of the encoders' input that is left out.
      kl_least: strength of the divergences at first.
      kl_warm_up: updates between which it grows to 1.
      learning_rate: first one of the cosine decay, which ends at a hundredth of it.
      clip: global norm of the gradient, nats a trial.
      batch_size: trials an update.
      n_steps: updates.
    """

    config: LfadsConfig = dataclasses.field(default_factory=LfadsConfig)
    strengths: jslds_losses.Strengths = dataclasses.field(
        default_factory=lambda: jslds_losses.Strengths(lam_rnn=1.0, l2=2e-5)
    )
    dropout: float = 0.02
    kl_least: float = 0.01
    kl_warm_up: tuple[int, int] = (250, 500)
    learning_rate: float = 5e-3
    clip: float = 200.0
    batch_size: int = 64
    n_steps: int = 2000


class Training(NamedTuple):
    """What `train.fit` carries.

    Attributes:
      weights: trained.
      clock: scalar, the number of updates so far, which the warm-up looks at.
    """

    weights: LfadsParams
    clock: jax.Array


class LfadsFit(NamedTuple):
    """Trained networks.

    Attributes:
      model: functions.
      params: weights.
      losses: (n_steps,), nats a trial, see `lfads_losses`.
    """

    model: Lfads
    params: LfadsParams
    losses: Any


class Inferred(NamedTuple):
    """What lies behind spikes, NumPy float64, leading axis n_trials; of the means of q, not of samples.

    Attributes:
      rates, switching_rates: (n_trials, n_time, n_neurons), expected counts a bin, by the generator and by its linear
        system; divide by the width of a bin for spikes a second.
      factors, switching_factors: (n_trials, n_time, n_factors).
      inputs: (n_trials, n_time, n_inputs), inferred; their scale and sign are the model's own.
      hidden, switching: (n_trials, n_time, n_generator), states of generator and linear system.
      expansion: (n_trials, n_time, n_generator), e_t, about which the linear system is expanded.
      image: (n_trials, n_time, n_generator), G(e_t, 0).
      start: (n_trials, n_generator), g_0.
    """

    rates: Any
    switching_rates: Any
    factors: Any
    switching_factors: Any
    inputs: Any
    hidden: Any
    switching: Any
    expansion: Any
    image: Any
    start: Any


def check_spikes(spikes: Any) -> np.ndarray:
    """Spike counts as they must be.

    Args:
      spikes: (n_trials, n_time, n_neurons), integers, 0 or more, of any dtype; lists will do.

    Returns:
      The array, as small unsigned integers.

    Raises:
      ValueError: if trials are of unequal length, there is nothing in one of the axes, or an entry is not finite,
        negative, or not an integer.

    Example:
      >>> check_spikes([[[0.0, 2.0]]]).dtype
      dtype('uint8')
    """
    counts = arguments.as_numpy("spikes", spikes, "counts (n_trials, n_time, n_neurons), trials of one length")
    if counts.ndim != 3 or not counts.size:
        raise ValueError(f"spikes must be (n_trials, n_time, n_neurons), at least one of each, got {counts.shape}.")
    arguments.check_finite("spikes", counts)
    if (counts < 0).any() or (counts != np.round(counts)).any():
        wrong = counts[(counts < 0) | (counts != np.round(counts))].flat[0]
        raise ValueError(f"spikes must be counts, integers, 0 or more, they hold {wrong}.")
    return counts.astype(np.min_scalar_type(int(counts.max())))


def fit_lfads(key: jax.Array, spikes: Any, recipe: Recipe | None = None, **fit: Any) -> LfadsFit:
    """Train LFADS-JSLDS on spike counts.

    The log-rates begin at the mean count of each neuron.

    Args:
      key: typed PRNG key of weights, batches and samples.
      spikes: (n_trials, n_time, n_neurons), counts; held-out trials should not be among them.
      recipe: sizes, priors, strengths and how long; see `Recipe`.
      **fit: passed to `train.fit`: progress, checkpoint.

    Returns:
      LfadsFit, float32.

    Raises:
      ValueError: if spikes are no counts, see `check_spikes`, or a number of the recipe is out of range.

    Example:
      >>> rates = np.full((8, 5, 3), 0.5)
      >>> fit_lfads(jax.random.key(0), rates)  # some minutes, if they were counts
      Traceback (most recent call last):
      ...
      ValueError: spikes must be counts, integers, 0 or more, they hold 0.5.
    """
    recipe = Recipe() if recipe is None else recipe
    _check_recipe(recipe)
    counts = check_spikes(spikes)
    key_start, key_train = jax.random.split(key)
    model, params = build_lfads(key_start, counts.shape[2], recipe.config)
    bias = jnp.log(jnp.asarray(mean_counts(counts), jnp.float32))
    params = params._replace(log_rates=(params.log_rates[0], bias))
    start = Training(params, jnp.zeros(()))
    result = train.fit(key_train, loss_of(model, recipe, counts), start, optimizer_of(recipe), recipe.n_steps,
                       **fit)  # fmt: skip
    return LfadsFit(model, result.params.weights, result.losses)


def mean_counts(counts: np.ndarray) -> np.ndarray:
    """Mean count a bin of each neuron, as if it had fired half a spike more: a silent neuron has a finite log-rate.

    Args:
      counts: (n_trials, n_time, n_neurons), of `check_spikes`.

    Returns:
      (n_neurons,).

    Example:
      >>> mean_counts(np.array([[[0, 1], [0, 3]]])).tolist()
      [0.25, 2.25]
    """
    return (counts.sum((0, 1)) + 0.5) / (counts.shape[0] * counts.shape[1])


def _check_recipe(recipe: Recipe) -> None:
    arguments.check_count("batch_size", recipe.batch_size)
    arguments.check_count("n_steps", recipe.n_steps)
    arguments.check_number("learning_rate", recipe.learning_rate, positive=True)
    arguments.check_number("clip", recipe.clip, positive=True)
    arguments.check_number("kl_least", recipe.kl_least)
    first, last = recipe.kl_warm_up
    if not 0 <= first <= last:
        raise ValueError(f"kl_warm_up must be two updates, the first not after the last, got {recipe.kl_warm_up}.")
    if not 0 <= recipe.dropout < 1:
        raise ValueError(f"dropout must be 0 or more and less than 1, got {recipe.dropout}.")


def loss_of(model: Lfads, recipe: Recipe, counts: np.ndarray) -> train.LossFn:
    """The loss that `train.fit` minimises.

    Args:
      model: functions.
      recipe: how it is trained.
      counts: (n_trials, n_time, n_neurons), of `check_spikes`.

    Returns:
      `(training, key) -> loss`, of a `Training`.

    Example:
      >>> def loss(key):
      ...   model, params = build_lfads(key, 3)
      ...   counts = np.ones((4, 5, 3), np.uint8)
      ...   return loss_of(model, Recipe(batch_size=2), counts)(Training(params, jnp.ones(())), key)
      >>> jax.eval_shape(loss, jax.random.key(0)).shape
      ()
    """
    first, last = recipe.kl_warm_up

    def loss(training: Training, key: jax.Array) -> jax.Array:
        key_batch, key_sample = jax.random.split(key)
        drawn = jax.random.randint(key_batch, (recipe.batch_size,), 0, len(counts))
        spikes = jnp.asarray(counts)[drawn].astype(training.weights.factors.dtype)
        terms = loss_terms(model, training.weights, spikes, key_sample, dropout=recipe.dropout)
        through = (jax.lax.stop_gradient(training.clock) - first) / max(last - first, 1)
        kl = recipe.kl_least + (1 - recipe.kl_least) * jnp.clip(through, 0, 1)
        return total_loss(terms, recipe.strengths, kl)

    return loss


@functools.lru_cache
def optimizer_of(recipe: Recipe) -> optax.GradientTransformation:
    """Adam on the weights of a `Training`, whose clock goes on by one an update.

    Args:
      recipe: learning rate, clip and number of updates.

    Returns:
      Optax gradient transformation.

    Example:
      >>> optimizer_of(Recipe()) is optimizer_of(Recipe())
      True
    """
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.n_steps, alpha=0.01)
    adam = optax.chain(optax.clip_by_global_norm(recipe.clip), optax.adam(schedule))

    def update(gradient: Training, state: Any, training: Training) -> tuple[Training, Any]:
        updates, state = adam.update(gradient.weights, state, training.weights)
        return Training(updates, jnp.ones_like(training.clock)), state

    return optax.GradientTransformation(lambda training: adam.init(training.weights), update)


def infer(model: Lfads, params: LfadsParams, spikes: Any) -> Inferred:
    """What lies behind spike counts: both branches with the means of q in place of samples, in float64.

    Args:
      model: functions.
      params: weights.
      spikes: (n_trials, n_time, n_neurons), counts; n_time may differ from that of training.

    Returns:
      Inferred.

    Raises:
      ValueError: if spikes are no counts, see `check_spikes`, or of another number of neurons.

    Example:
      >>> model, params = None, LfadsParams(*[None] * 5, (None, np.zeros(3)))
      >>> infer(model, params, np.ones((2, 5, 4), int))
      Traceback (most recent call last):
      ...
      ValueError: spikes must be of 3 neurons, as in training, got (2, 5, 4).
    """
    counts = check_spikes(spikes)
    if counts.shape[2] != len(params.log_rates[1]):
        raise ValueError(f"spikes must be of {len(params.log_rates[1])} neurons, as in training, got {counts.shape}.")
    with jax.enable_x64(True):
        both = _infer(model, dynamics.widen(params), jnp.asarray(counts, jnp.float64))
        both = jax.tree.map(np.asarray, both)
    states = both.states
    return Inferred(
        np.exp(both.log_rates), np.exp(both.switching_log_rates), both.factors, both.switching_factors, both.inputs,
        states.hidden, states.switching, states.expansion, states.image, both.start,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def _infer(model: Lfads, params: LfadsParams, spikes: jax.Array) -> LfadsRollout:
    return jax.vmap(lambda x: roll_out(model, params, x))(spikes)


def as_arrays(params: LfadsParams) -> dict[str, np.ndarray]:
    """Weights by names, for a file.

    Args:
      params: weights.

    Returns:
      Arrays by names such as "encoder.start.kernel".

    Example:
      >>> one = np.ones(1)
      >>> sorted(as_arrays(LfadsParams({"start": one}, {}, {}, {}, one, (one, one))))
      ['encoder.start', 'factors', 'log_rates.0', 'log_rates.1']
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def as_params(arrays: dict[str, Any], config: LfadsConfig) -> tuple[Lfads, LfadsParams]:
    """The other way round.

    Args:
      arrays: of `as_arrays`.
      config: sizes and priors with which they were made.

    Returns:
      Lfads and LfadsParams.

    Raises:
      ValueError: if an array is missing or has another shape than the sizes say.

    Example:
      >>> as_params({"factors": np.ones((8, 32))}, LfadsConfig())
      Traceback (most recent call last):
      ...
      ValueError: weights of LFADS hold log_rates.1, got ['factors'].
    """
    if "log_rates.1" not in arrays:
        raise ValueError(f"weights of LFADS hold log_rates.1, got {sorted(arrays)}.")
    built: list[Lfads] = []

    def build(key: jax.Array) -> LfadsParams:
        model, params = build_lfads(key, len(arrays["log_rates.1"]), config)
        built.append(model)  # nothing in it depends on the key
        return params

    shapes = jax.eval_shape(build, jax.random.key(0))  # drawing weights would take longer than all else here

    def take(path: Any, leaf: Any) -> np.ndarray:
        name = _name(path)
        if name not in arrays or np.shape(arrays[name]) != leaf.shape:
            came = np.shape(arrays[name]) if name in arrays else "none"
            raise ValueError(f"weights of LFADS of these sizes hold {name} {leaf.shape}, got {came}.")
        return np.asarray(arrays[name])

    return built[0], jax.tree_util.tree_map_with_path(take, shapes)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
