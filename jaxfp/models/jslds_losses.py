"""What is minimised when a network and its switching linear system are trained together.

The loss has four terms, each a mean over trials, steps and units, and weight decay: with states h of the network, a of
the linear system, expansion points e (see `jslds`) and the task's loss L,

  lam_rnn L(W h + b) + lam_jslds L(W a + b) + ramp (lam_e |e - F(e, u*)|^2 + lam_a |a - h|^2) + l2 |all weights|^2.

Its gradient reaches every weight through both branches: the expansion points become fixed points of F because both F
and E move.

Smith, Linderman & Sussillo (2021), NeurIPS, arXiv:2111.01256.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfp import arguments
from jaxfp.models.jslds import Jslds, JsldsParams, read_out, roll_out

TaskLoss = Callable[[jax.Array, jax.Array], jax.Array]


class LossTerms(NamedTuple):
    """The terms of the loss, without their strengths; scalars.

    Attributes:
      rnn: the task's loss of the network.
      jslds: the task's loss of the linear system.
      expansion: mean |e - F(e, u*)|^2 a unit, activation^2: are expansion points fixed points?
      approximation: mean |a - h|^2 a unit, activation^2: does the linear system do what the network does?
      l2: sum of the squares of all weights.
    """

    rnn: Any
    jslds: Any
    expansion: Any
    approximation: Any
    l2: Any


@dataclasses.dataclass(frozen=True)
class Strengths:
    """What each term counts; with all but the first 0 the network is trained alone, see `network_loss`.

    Attributes:
      lam_rnn: of the network's loss.
      lam_jslds: of the linear system's.
      lam_e: of the fixed-point term.
      lam_a: of the approximation term.
      l2: of the squares of all weights.

    Raises:
      ValueError: if one is negative or not finite.
    """

    lam_rnn: float = 3.0
    lam_jslds: float = 1.0
    lam_e: float = 100.0
    lam_a: float = 10.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            arguments.check_number(field.name, getattr(self, field.name))

    @property
    def network_alone(self) -> bool:
        """Whether nothing but the network's own loss counts."""
        return self.lam_jslds == self.lam_e == self.lam_a == self.l2 == 0


def loss_terms(
    model: Jslds, params: JsldsParams, inputs: Any, targets: Any, task_loss: TaskLoss, noise: Any = None
) -> LossTerms:
    """The terms of the loss on a batch of trials.

    Args:
      model: functions of the network.
      params: its weights.
      inputs: (n_trials, n_time, n_inputs).
      targets: (n_trials, n_time, n_outputs).
      task_loss: `(outputs, targets) -> scalar`, outputs as targets.
      noise: (n_trials, n_time, n_hidden), added to the states of both branches; None for none.

    Returns:
      LossTerms.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> from jaxfp.models.jslds import build_expansion
      >>> expand_fn, expansion = build_expansion(1)
      >>> model = Jslds(lambda p, h, u: p * h + u, expand_fn)
      >>> params = JsldsParams(0.5, expansion, (jnp.ones((1, 1)), jnp.zeros(1)), jnp.zeros(1))
      >>> ones = jnp.ones((4, 1, 1))
      >>> loss_terms(model, params, ones, ones, lambda outputs, targets: jnp.mean((outputs - targets) ** 2)).rnn.item()
      0.0
    """
    both = jax.vmap(lambda u, blur: roll_out(model, params, u, blur))(inputs, noise)
    return LossTerms(
        rnn=task_loss(read_out(params.readout, both.hidden), targets),
        jslds=task_loss(read_out(params.readout, both.switching), targets),
        expansion=jnp.mean(jnp.square(both.expansion - both.image)),
        approximation=jnp.mean(jnp.square(both.switching - both.hidden)),
        l2=sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params)),
    )


def network_loss(
    model: Jslds, params: JsldsParams, inputs: Any, targets: Any, task_loss: TaskLoss, noise: Any = None
) -> jax.Array:
    """The task's loss of the network alone: `loss_terms(...).rnn` without the work for the linear system.

    Args:
      model: functions of the network.
      params: its weights.
      inputs: (n_trials, n_time, n_inputs).
      targets: (n_trials, n_time, n_outputs).
      task_loss: `(outputs, targets) -> scalar`, outputs as targets.
      noise: (n_trials, n_time, n_hidden), added to the states; None for none.

    Returns:
      Scalar.

    Example:
      >>> model = Jslds(lambda p, h, u: p * h + u, len)
      >>> params = JsldsParams(0.5, None, (jnp.ones((1, 1)), jnp.zeros(1)), jnp.zeros(1))
      >>> ones = jnp.ones((4, 2, 1))
      >>> network_loss(model, params, ones, ones, lambda outputs, targets: jnp.mean((outputs - targets) ** 2)).item()
      0.125
    """
    start = jnp.asarray(params.hidden0)

    def step(hidden: jax.Array, now: Any) -> tuple[jax.Array, jax.Array]:
        u, blur = now
        hidden = arguments.step(model.step_fn, params.cell, hidden, u)
        hidden = hidden if blur is None else hidden + blur
        return hidden, hidden

    states = jax.vmap(lambda u, blur: jax.lax.scan(step, start, (u, blur))[1])(inputs, noise)
    return task_loss(read_out(params.readout, states), targets)


def total_loss(terms: LossTerms, strengths: Strengths, ramp: float | jax.Array = 1.0) -> jax.Array:
    """The loss that is minimised.

    Args:
      terms: of `loss_terms`.
      strengths: of the terms.
      ramp: scalar in [0, 1], by which lam_e and lam_a count: 0 at the start of training, if it should begin with the
        task, 1 later.

    Returns:
      Scalar.

    Example:
      >>> total_loss(LossTerms(1.0, 1.0, 1.0, 1.0, 1.0), Strengths(3, 1, 100, 10, 0.5), ramp=0.5)
      59.5
    """
    task = strengths.lam_rnn * terms.rnn + strengths.lam_jslds * terms.jslds
    switching = strengths.lam_e * terms.expansion + strengths.lam_a * terms.approximation
    return task + ramp * switching + strengths.l2 * terms.l2
