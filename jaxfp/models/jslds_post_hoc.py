"""A switching linear system for a network that is there already: only the expansion network is trained.

Given a map F, its states h_0 .. h_T and the inputs u_1 .. u_T that led to them, recorded or simulated, find E such that

  e_t = E(a_{t-1});    a_t = e_t + dF/dh (a_{t-1} - e_t) + dF/du (u_t - u*_t),    a_0 = h_0,

which never looks at h again, stays with the states:

  L = mean |a_t - h_t|^2 + lam_e mean |e_t - F(e_t, u*_t)|^2,

means over trials, steps and units. F and its weights are no part of what is trained. Where F has no fixed point that
serves, no E can make one, and lam_e says what counts more: that the points of expansion are fixed points, or that the
linear system follows.

Not in Smith, Linderman & Sussillo (2021), who always train both networks together; see `jslds`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxfp import arguments
from jaxfp.models import jslds, train
from jaxfp.types import Params


class PostHocTerms(NamedTuple):
    """The terms of the loss, without their strength; scalars.

    Attributes:
      approximation: mean |a - h|^2 a unit, activation^2: does the linear system do what the network did?
      expansion: mean |e - F(e, u*)|^2 a unit, activation^2: are expansion points fixed points?
    """

    approximation: Any
    expansion: Any


def follow(model: jslds.Jslds, cell: Params, expansion: Params, start: Any, inputs: Any) -> jslds.Rollout:
    """The linear system beside the network, both from a given state: traceable; vmap it over trials.

    Args:
      model: functions of the network and of the expansion network.
      cell: pytree that the network's step understands.
      expansion: pytree that the expansion network understands.
      start: (n_hidden,), h_0.
      inputs: (n_time, n_inputs).

    Returns:
      Rollout.

    Example:
      >>> model = jslds.Jslds(lambda p, h, u: p * h + u, lambda p, h: p * h)
      >>> follow(model, 0.5, 0.0, jnp.ones(1), jnp.ones((2, 1))).switching.ravel().tolist()
      [1.5, 1.75]
    """
    return jslds.roll_out(model, jslds.JsldsParams(cell, expansion, (None, None), start), inputs)


def post_hoc_terms(
    model: jslds.Jslds, cell: Params, expansion: Params, hidden: Any, inputs: Any
) -> PostHocTerms:  # fmt: skip
    """How well the linear system follows given states.

    Args:
      model: functions of the network and of the expansion network.
      cell: pytree that the network's step understands.
      expansion: pytree that the expansion network understands.
      hidden: (n_trials, n_time + 1, n_hidden), h_0 .. h_T of the network.
      inputs: (n_trials, n_time, n_inputs), u_1 .. u_T, u_t leading from h_{t-1} to h_t.

    Returns:
      PostHocTerms.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> model = jslds.Jslds(lambda p, h, u: p * h + u, lambda p, h: p * h)
      >>> terms = post_hoc_terms(model, 0.5, 0.0, jnp.array([[[1.0], [1.5], [1.75]]]), jnp.ones((1, 2, 1)))
      >>> terms.approximation.item(), terms.expansion.item()
      (0.0, 0.0)
    """
    _check_states(hidden, inputs)
    both = jax.vmap(lambda start, u: follow(model, cell, expansion, start, u))(hidden[:, 0], inputs)
    return PostHocTerms(
        approximation=jnp.mean(jnp.square(both.switching - hidden[:, 1:])),
        expansion=jnp.mean(jnp.square(both.expansion - both.image)),
    )


def fit_expansion(
    key: jax.Array,
    model: jslds.Jslds,
    cell: Params,
    expansion: Params,
    hidden: Any,
    inputs: Any,
    optimizer: optax.GradientTransformation,
    n_steps: int,
    *,
    lam_e: float = 1.0,
    batch_size: int = 64,
    **fit: Any,
) -> train.FitResult:
    """Train the expansion network of a given network, by `train.fit`.

    Args:
      key: typed PRNG key, of the batches.
      model: functions of the network and of the expansion network.
      cell: pytree that the network's step understands; read, never changed.
      expansion: pytree that the expansion network understands, to begin with; see `jslds.build_expansion`.
      hidden: (n_trials, n_time + 1, n_hidden), h_0 .. h_T of the network, without noise.
      inputs: (n_trials, n_time, n_inputs), u_1 .. u_T, u_t leading from h_{t-1} to h_t.
      optimizer: optax gradient transformation.
      n_steps: updates.
      lam_e: strength of the fixed-point term beside the approximation term's 1.
      batch_size: trials an update, drawn with replacement.
      **fit: passed to `train.fit`: progress, checkpoint.

    Returns:
      FitResult whose `params` are the weights of the expansion network, `terms` the PostHocTerms of each update.

    Raises:
      ValueError: if the shapes do not fit, or a number is out of range.

    Example:
      >>> model = jslds.Jslds(lambda p, h, u: p * h + u, lambda p, h: p + 0 * h)
      >>> hidden, inputs = jnp.array([[[4.0], [2.0], [1.0]]]), jnp.zeros((1, 2, 1))
      >>> found = fit_expansion(
      ...     jax.random.key(0), model, 0.5, jnp.ones(1), hidden, inputs, optax.sgd(0.1), 100, batch_size=1)
      >>> bool(abs(found.params[0]) < 1e-6)
      True
    """
    _check_states(hidden, inputs)
    arguments.check_number("lam_e", lam_e)
    arguments.check_count("batch_size", batch_size)
    hidden, inputs = jnp.asarray(hidden), jnp.asarray(inputs)

    def loss(expansion: Params, key: jax.Array) -> tuple[jax.Array, PostHocTerms]:
        drawn = jax.random.randint(key, (batch_size,), 0, len(hidden))
        terms = post_hoc_terms(model, cell, expansion, hidden[drawn], inputs[drawn])
        return terms.approximation + lam_e * terms.expansion, terms

    return train.fit(key, loss, expansion, optimizer, n_steps, **fit)


def _check_states(hidden: Any, inputs: Any) -> None:
    arguments.check_array("hidden", hidden, "(n_trials, n_time + 1, n_hidden)", (3,))
    arguments.check_array("inputs", inputs, "(n_trials, n_time, n_inputs)", (3,), floating=False)
    if hidden.shape[:2] != (inputs.shape[0], inputs.shape[1] + 1) or not len(hidden):
        raise ValueError(
            "hidden must be (n_trials, n_time + 1, n_hidden), one state more than inputs, got "
            f"{hidden.shape} and {inputs.shape}."
        )
