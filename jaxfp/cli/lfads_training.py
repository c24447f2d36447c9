"""LFADS-JSLDS on the spiking integrator: how it is trained, and what is said of it on held-out trials.

Every number but those called sampled is of the means of q in place of samples, both branches by one protocol, float64.
A held-out trial is new to the weights, but the encoders do read it: the likelihood is of spikes that were seen, as
usual for LFADS, and may be higher than that of the true rates. R2 against the true rates is not flattered so: nothing
was trained on them.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import dynamics, io
from jaxfp.analysis import linearization, switching
from jaxfp.cli import report
from jaxfp.models import jslds, jslds_losses, lfads, lfads_losses
from jaxfp.models.lfads import Inferred, Recipe
from jaxfp.models.lfads_model import Lfads, LfadsConfig, LfadsParams
from jaxfp.tasks import spiking_integrator

N_TRAIN, N_TEST = 4000, 400

# The sizes, strengths, dropout, warm-up and updates of Smith et al. (2021). Not their optimizer: they took Adam with
# eps 0.1 at 0.05 * 0.9999^n, where `lfads.optimizer_of` has eps 1e-8 and a cosine.
PAPER = Recipe(
    LfadsConfig(n_encoder=128, n_controller=128, n_generator=128, n_factors=32),
    clip=10.0, batch_size=128, n_steps=20_000, kl_warm_up=(500, 1000),
)  # fmt: skip
PAPER_TRIALS = (18432, 2048)
ALONE = jslds_losses.Strengths(lam_rnn=1.0, lam_jslds=0.0, lam_e=0.0, lam_a=0.0, l2=2e-5)


class Spikes(NamedTuple):
    """Trials and, where it is known, what made them.

    Attributes:
      spikes: (n_trials, n_time, n_neurons), counts.
      rates: (n_trials, n_time, n_neurons), expected counts a bin, or None.
      inputs: (n_trials, n_time, 1), true inputs, or None.
    """

    spikes: np.ndarray
    rates: np.ndarray | None = None
    inputs: np.ndarray | None = None


class Network(NamedTuple):
    """Trained networks.

    Attributes:
      model: functions.
      params: weights.
    """

    model: Lfads
    params: LfadsParams


def draw_spikes(seed: int, n_train: int = N_TRAIN, n_test: int = N_TEST) -> tuple[Spikes, Spikes]:
    """Trials of one spiking integrator: to train on, and others to judge by.

    Args:
      seed: of the integrator and its trials.
      n_train: trials to train on.
      n_test: held-out trials.

    Returns:
      Spikes to train on, held-out Spikes.

    Example:
      >>> draw_spikes(0, 0)
      Traceback (most recent call last):
      ...
      ValueError: n_trials must be at least 1, got 0.
    """
    config = spiking_integrator.SpikingIntegratorConfig()
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), 3)
    network = spiking_integrator.build_integrator(keys[0], config)
    batches = [
        spiking_integrator.sample_batch(key, config, network, n)
        for key, n in zip(keys[1:], (n_train, n_test), strict=True)
    ]
    train, test = (Spikes(*(np.asarray(x) for x in (b.spikes, b.rates, b.inputs))) for b in batches)
    return train, test


def split_spikes(key: jax.Array, spikes: np.ndarray, share: float = 0.1) -> tuple[Spikes, Spikes]:
    """Trials of a user's in two: a tenth is held out.

    Args:
      key: typed PRNG key of who is held out.
      spikes: (n_trials, n_time, n_neurons), counts.
      share: held out.

    Returns:
      Spikes to train on, held-out Spikes.

    Raises:
      ValueError: if there are no counts, or fewer than 2 trials.

    Example:
      >>> [len(part.spikes) for part in split_spikes(jax.random.key(0), np.ones((20, 5, 3), int))]
      [18, 2]
    """
    counts = lfads.check_spikes(spikes)
    if len(counts) < 2:
        raise ValueError(f"spikes must hold at least 2 trials, one to train on and one to judge by, got {len(counts)}.")
    order = np.asarray(jax.random.permutation(key, len(counts)))
    n_test = max(1, round(share * len(counts)))
    return Spikes(counts[order[n_test:]]), Spikes(counts[order[:n_test]])


def shuffle_neurons(key: jax.Array, given: Spikes) -> Spikes:
    """Control: each neuron's trials in an order of its own, so that nothing is left that neurons share within a trial.

    Args:
      key: typed PRNG key of the orders.
      given: Spikes, with or without rates.

    Returns:
      Spikes with rates that were shuffled alike, without inputs.

    Example:
      >>> spikes = np.arange(6).reshape(3, 1, 2)
      >>> np.sort(shuffle_neurons(jax.random.key(0), Spikes(spikes)).spikes, axis=0).tolist() == spikes.tolist()
      True
    """
    n_trials, _, n_neurons = given.spikes.shape
    order = np.stack([jax.random.permutation(k, n_trials) for k in jax.random.split(key, n_neurons)], axis=1)[:, None]
    rates = None if given.rates is None else np.take_along_axis(given.rates, order, axis=0)
    return Spikes(np.take_along_axis(given.spikes, order, axis=0), rates)


def train_network(
    seed: int, given: Spikes, recipe: Recipe | None = None, **fit: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train from scratch.

    Args:
      seed: of weights, batches and samples.
      given: to train on.
      recipe: how.
      **fit: passed to `train.fit`: progress, checkpoint.

    Returns:
      Arrays as of `lfads.as_arrays`, and mean_counts (n_neurons,) of the training trials; and their provenance.

    Example:
      >>> train_network(0, Spikes(np.full((4, 5, 3), -1)))
      Traceback (most recent call last):
      ...
      ValueError: spikes must be counts, integers, 0 or more, they hold -1.
    """
    recipe = Recipe() if recipe is None else recipe
    seconds = report.stopwatch()
    found = lfads.fit_lfads(jax.random.fold_in(jax.random.key(seed), 2), given.spikes, recipe, **fit)
    provenance = {
        "task": "spiking integrator" if given.rates is not None else "spikes of a user",
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "n_trials": len(given.spikes),
        "final_loss": float(np.mean(found.losses[-50:])),
        "seconds": seconds(),
        **io.environment(),
    }
    return {**lfads.as_arrays(found.params), "mean_counts": lfads.mean_counts(given.spikes)}, provenance


def as_network(arrays: dict[str, Any], provenance: dict[str, Any]) -> Network:
    """Arrays of a file as networks.

    Args:
      arrays: of `train_network`.
      provenance: with the recipe.

    Returns:
      Network.

    Raises:
      ValueError: if arrays are missing or do not fit the sizes of the recipe.

    Example:
      >>> as_network({}, {"recipe": {"config": {}}})
      Traceback (most recent call last):
      ...
      ValueError: weights of LFADS hold log_rates.1, got [].
    """
    return Network(*lfads.as_params(arrays, LfadsConfig(**provenance["recipe"]["config"])))


def evaluate(
    key: jax.Array, network: Network, given: Spikes, mean_counts: np.ndarray
) -> tuple[Inferred, dict[str, Any]]:
    """Both branches on held-out trials.

    Args:
      key: typed PRNG key of the sampled terms and of the shuffled expansion points.
      network: see `Network`.
      given: held-out trials.
      mean_counts: (n_neurons,), of the trials of training, see `lfads.mean_counts`: the model to beat.

    Returns:
      What was inferred, and what is said of it, JSON-like: likelihoods in nats a bin and neuron, log k! included.

    Example:
      >>> network = Network(None, LfadsParams(*[None] * 5, (None, np.zeros(3))))
      >>> evaluate(jax.random.key(0), network, Spikes(np.ones((2, 5, 4), int)), np.ones(4))
      Traceback (most recent call last):
      ...
      ValueError: spikes must be of 3 neurons, as in training, got (2, 5, 4).
    """
    key_sample, key_order = jax.random.split(key)
    found = lfads.infer(*network, given.spikes)
    rates = {"rnn": found.rates, "jslds": found.switching_rates}
    rates["mean_counts"] = np.broadcast_to(mean_counts, found.rates.shape)
    if given.rates is not None:
        rates["true_rates"] = np.asarray(given.rates, np.float64)
    nll = {name: _mean_nll(rate, given.spikes) for name, rate in rates.items()}
    nats_per_bit = np.log(2) * given.spikes.mean()
    shuffled, shuffled_rates = _about_other_points(key_order, network, found)
    magnitudes = _magnitudes(network, found.expansion)
    said: dict[str, Any] = {
        "nll": nll,
        "nll_excess": nll["jslds"] / nll["rnn"] - 1,
        "bits_per_spike": {name: (nll["mean_counts"] - nll[name]) / nats_per_bit for name in ("rnn", "jslds")},
        **_sampled(key_sample, network, given.spikes),
        "expansion_term": float(np.mean(np.square(found.expansion - found.image))),
        "approximation_term": float(np.mean(np.square(found.switching - found.hidden))),
        "relative_error": switching.relative_error(found.switching, found.hidden),
        "residual": switching.relative_error(found.image, found.expansion),
        "eigenvalues": np.median(magnitudes, axis=0)[:4].tolist(),
        "leading_range": np.quantile(magnitudes[:, 0], [0.05, 0.95]).tolist(),
        "shuffled_points": {
            "relative_error": switching.relative_error(shuffled, found.hidden),
            "nll": _mean_nll(shuffled_rates, given.spikes),
        },
    }
    if given.rates is not None:
        said["r2"] = {name: r_squared(rates[name], rates["true_rates"]) for name in ("rnn", "jslds")}
        said["shuffled_points"]["r2"] = r_squared(shuffled_rates, rates["true_rates"])
    if given.inputs is not None and found.inputs.shape[2] == 1:
        said["input_correlation"] = float(abs(np.corrcoef(found.inputs.ravel(), given.inputs.ravel())[0, 1]))
    return found, said


def r_squared(rates: Any, true_rates: Any) -> float:
    """Share of the variance of the true rates, each neuron's about its own mean, that inferred rates explain.

    Args:
      rates: (n_trials, n_time, n_neurons).
      true_rates: (n_trials, n_time, n_neurons).

    Returns:
      1 at best; the mean rate of each neuron scores 0.

    Example:
      >>> true = np.array([[[1.0, 5.0], [3.0, 5.0]]])
      >>> r_squared(true, true), r_squared(np.broadcast_to(true.mean((0, 1)), true.shape), true)
      (1.0, 0.0)
    """
    about = true_rates - true_rates.mean((0, 1))
    return float(1 - np.sum(np.square(rates - true_rates)) / np.sum(np.square(about)))


def _about_other_points(key: jax.Array, network: Network, found: Inferred) -> tuple[np.ndarray, np.ndarray]:
    """Control: states and rates of the linear system about the same expansion points in a random order."""
    model, params = network
    order = np.asarray(jax.random.permutation(key, found.expansion[..., 0].size))
    points = found.expansion.reshape(-1, found.expansion.shape[-1])[order].reshape(found.expansion.shape)
    with jax.enable_x64(True):
        states = np.asarray(_follow(model, dynamics.widen(params.generator), found.start, found.inputs, points))
    weights, bias = params.log_rates
    return states, np.exp(
        states @ np.asarray(params.factors, np.float64).T @ np.asarray(weights, np.float64).T + np.asarray(bias)
    )


@functools.partial(jax.jit, static_argnums=0)
def _follow(model: Lfads, generator: Any, starts: Any, inputs: Any, points: Any) -> jax.Array:
    pair = jslds.Jslds(model.step_fn, model.expand_fn)

    def one(start: Any, u: Any, e: Any) -> jax.Array:
        params = jslds.JsldsParams(generator, None, (None, None), start)
        return jslds.roll_out(pair, params, u, expansion=e).switching

    return jax.vmap(one)(starts, inputs, points)


def _mean_nll(rates: np.ndarray, spikes: np.ndarray) -> float:
    with jax.enable_x64(True):
        return float(jnp.mean(lfads_losses.poisson_nll(jnp.log(jnp.asarray(rates)), jnp.asarray(spikes, jnp.float64))))


def _sampled(key: jax.Array, network: Network, spikes: np.ndarray) -> dict[str, Any]:
    """Likelihoods with one sample of q a trial, and both divergences, nats a trial."""
    with jax.enable_x64(True):
        params = dynamics.widen(network.params)
        terms = _terms(network.model, params, jnp.asarray(spikes, jnp.float64), key)
    n_bins = spikes.shape[1] * spikes.shape[2]
    return {
        "sampled_nll": {"rnn": float(terms.nll) / n_bins, "jslds": float(terms.switching_nll) / n_bins},
        "kl": {"start": float(terms.start_kl), "inputs": float(terms.input_kl)},
    }


_terms = jax.jit(lfads_losses.loss_terms, static_argnums=0)


def _magnitudes(network: Network, points: np.ndarray) -> np.ndarray:
    """|eigenvalues| (n_points, n_generator), largest first, of the generator at 2,000 points and input 0."""
    flat = points.reshape(-1, points.shape[-1])
    some = flat[:: max(1, len(flat) // 2000)]
    nothing = np.zeros(network.model.config.n_inputs)
    jacobian = linearization.linearize(network.model.step_fn, network.params.generator, some, nothing).jacobian
    return -np.sort(-np.abs(np.linalg.eigvals(np.asarray(jacobian))), axis=1)
