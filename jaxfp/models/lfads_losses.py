"""The loss of LFADS-JSLDS: two Poisson likelihoods, two divergences, and the two terms that make a linear system.

  L = lam_rnn NLL(log-rates) + lam_jslds NLL(switching log-rates) + kl (KL_start + KL_inputs)
      + lam_e sum |e - G(e, 0)|^2 + lam_a sum |a - g|^2 + l2 |all weights|^2,

each a sum over steps and units, nats a trial, averaged over trials; kl grows from its least value to 1 while training
begins. NLL is the whole negative log-probability, log k! included:

  -log Poisson(k; exp(r)) = exp(r) - k r + log k!.

KL_start = KL(N(m_0, s_0^2) || N(0, start_variance)) is closed. The prior of the inputs is a stationary AR(1) process,

  u_1 ~ N(0, v / (1 - phi^2)),    u_t = phi u_{t-1} + N(0, v),    phi = exp(-1 / tau),

and q(u_t) depends on what was sampled before, so that their divergence is a mean over samples of closed ones,

  KL_inputs = E_q sum_t KL(N(m_t, s_t^2) || N(phi u_{t-1}, v)):

exact given u_{t-1}, one sample of which a trial is drawn; less noisy than log q - log p there, and never negative.

Smith, Linderman & Sussillo (2021), arXiv:2111.01256; Pandarinath et al. (2018), Nature Methods 15:805.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfp.models import jslds_losses
from jaxfp.models.lfads_model import Lfads, LfadsConfig, LfadsParams, LfadsRollout, roll_out


class LfadsTerms(NamedTuple):
    """The terms of the loss, without their strengths; scalars, means over trials.

    Attributes:
      nll: negative log-likelihood of the spikes by the generator, nats a trial.
      switching_nll: by its linear system.
      start_kl: KL(q(g_0) || prior), nats a trial.
      input_kl: KL(q(u) || prior), nats a trial.
      expansion: sum of |e - G(e, 0)|^2 over steps and units, activation^2.
      approximation: sum of |a - g|^2 likewise.
      l2: sum of the squares of all weights.
    """

    nll: Any
    switching_nll: Any
    start_kl: Any
    input_kl: Any
    expansion: Any
    approximation: Any
    l2: Any


def poisson_nll(log_rates: Any, spikes: Any) -> jax.Array:
    """Negative log-probability of each count, log k! included.

    Args:
      log_rates: array of any shape, log of the expected counts.
      spikes: counts, an array of the same shape and dtype.

    Returns:
      Nats, an array of the same shape.

    Example:
      >>> round(float(poisson_nll(jnp.zeros(1), jnp.zeros(1))[0]), 6)
      1.0
    """
    return jnp.exp(log_rates) - spikes * log_rates + jax.scipy.special.gammaln(spikes + 1)


def gaussian_kl(mean: Any, log_variance: Any, prior_mean: Any, prior_variance: Any) -> jax.Array:
    """KL(N(mean, variance) || N(prior mean, prior variance)), each entry a Gaussian of its own.

    Args:
      mean: array of any shape.
      log_variance: array of the same shape.
      prior_mean: scalar, or array of the same shape.
      prior_variance: likewise.

    Returns:
      Nats, an array of the same shape.

    Example:
      >>> gaussian_kl(jnp.array([0.0, 1.0]), jnp.zeros(2), 0.0, 1.0).tolist()
      [0.0, 0.5]
    """
    prior_variance = jnp.broadcast_to(jnp.asarray(prior_variance, mean.dtype), mean.shape)
    away = jnp.square(mean - prior_mean) / prior_variance
    return (jnp.log(prior_variance) - log_variance + jnp.exp(log_variance) / prior_variance + away - 1) / 2


def autoregressive_kl(mean: Any, log_variance: Any, sampled: Any, config: LfadsConfig) -> jax.Array:
    """KL(q(u_t) || p(u_t | u_{t-1})) of each step, u_{t-1} as it was sampled.

    Args:
      mean: (n_time, n_inputs), m_t.
      log_variance: (n_time, n_inputs), log s_t^2.
      sampled: (n_time, n_inputs), u_t.
      config: with the prior.

    Returns:
      (n_time, n_inputs), nats.

    Example:
      >>> config = LfadsConfig(input_variance=1.0)
      >>> autoregressive_kl(jnp.zeros((2, 1)), jnp.zeros((2, 1)), jnp.zeros((2, 1)), config)[1].tolist()
      [0.0]
    """
    phi = jnp.exp(jnp.asarray(-1 / config.input_tau, mean.dtype))
    prior_mean = jnp.concatenate([jnp.zeros_like(sampled[:1]), phi * sampled[:-1]])
    variance = jnp.full_like(mean, config.input_variance).at[0].divide(1 - phi**2)
    return gaussian_kl(mean, log_variance, prior_mean, variance)


def terms_of(params: LfadsParams, both: LfadsRollout, spikes: Any, config: LfadsConfig) -> LfadsTerms:
    """The terms of the loss from what was rolled out.

    Args:
      params: weights.
      both: rollouts of trials, with a leading axis.
      spikes: (n_trials, n_time, n_neurons), counts in the dtype of the weights.
      config: with the priors.

    Returns:
      LfadsTerms.

    Example:
      >>> from jaxfp.models import jslds
      >>> start, path = jnp.zeros((2, 3)), jnp.zeros((2, 5, 3))
      >>> both = LfadsRollout(start, start, start, *[path] * 3, jslds.Rollout(*[path] * 4), *[path] * 4)
      >>> round(float(terms_of((), both, path, LfadsConfig()).nll), 3)  # 15 counts of 0 where 1 was expected
      15.0
    """

    def mean_of_sums(each: jax.Array) -> jax.Array:
        return jnp.sum(each) / len(spikes)

    states = both.states
    input_kl = jax.vmap(lambda m, s, u: autoregressive_kl(m, s, u, config))
    return LfadsTerms(
        nll=mean_of_sums(poisson_nll(both.log_rates, spikes)),
        switching_nll=mean_of_sums(poisson_nll(both.switching_log_rates, spikes)),
        start_kl=mean_of_sums(gaussian_kl(both.start_mean, both.start_log_variance, 0.0, config.start_variance)),
        input_kl=mean_of_sums(input_kl(both.input_mean, both.input_log_variance, both.inputs)),
        expansion=mean_of_sums(jnp.square(states.expansion - states.image)),
        approximation=mean_of_sums(jnp.square(states.switching - states.hidden)),
        l2=sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params)),
    )


def loss_terms(
    model: Lfads, params: LfadsParams, spikes: Any, key: jax.Array | None = None, *, dropout: float = 0.0
) -> LfadsTerms:
    """The terms of the loss on a batch of trials, one sample of everything each.

    Args:
      model: functions.
      params: weights.
      spikes: (n_trials, n_time, n_neurons), counts in the dtype of the weights.
      key: typed PRNG key of what is sampled; None for means in place of samples, and then no bound of the evidence.
      dropout: see `roll_out`.

    Returns:
      LfadsTerms.

    Example:
      >>> from jaxfp.models import lfads_model
      >>> def terms(key):
      ...   return loss_terms(*lfads_model.build_lfads(key, 3), jnp.ones((2, 5, 3)), key)
      >>> jax.eval_shape(terms, jax.random.key(0)).nll.shape
      ()
    """
    keys = None if key is None else jax.random.split(key, len(spikes))
    both = jax.vmap(lambda x, k: roll_out(model, params, x, k, dropout=dropout))(spikes, keys)
    return terms_of(params, both, spikes, model.config)


def total_loss(terms: LfadsTerms, strengths: jslds_losses.Strengths, kl: float | jax.Array = 1.0) -> jax.Array:
    """The loss that is minimised.

    Args:
      terms: of `loss_terms`.
      strengths: of the terms.
      kl: strength of the two divergences, scalar.

    Returns:
      Scalar, nats a trial.

    Example:
      >>> total_loss(LfadsTerms(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0), jslds_losses.Strengths(3, 1, 100, 10, 0.5), 0.5)
      115.5
    """
    likelihood = strengths.lam_rnn * terms.nll + strengths.lam_jslds * terms.switching_nll
    switching = strengths.lam_e * terms.expansion + strengths.lam_a * terms.approximation
    return likelihood + kl * (terms.start_kl + terms.input_kl) + switching + strengths.l2 * terms.l2
