"""LFADS-JSLDS: spikes explained by a generator and by the linear system that switches beside it, trained together.

One trial is spike counts x_1 .. x_T of N neurons. A bidirectional GRU reads the whole trial and says where the
generator may have begun; a second one gives every step a code, which a controller, a third GRU, turns into what came in
from outside:

  q(g_0) = N(m_0, s_0^2),  [m_0, log s_0^2] from the last states of both directions,
  c_t = C(c_{t-1}, [code_t, f_{t-1}]),    q(u_t) = N(m_t, s_t^2),  [m_t, log s_t^2] linear in c_t.

From ONE sample of g_0 and of each u_t run, from the same start a_0 = g_0, the generator G, a GRU, and its Jacobian
switching linear system (see `jslds`, with u* = 0):

  g_t = G(g_{t-1}, u_t);    e_t = E(a_{t-1}),  a_t = e_t + dG/dg (a_{t-1} - e_t) + dG/du u_t,  derivatives at (e_t, 0).

Both branches share the readouts, factors f = W g and log-rates V f + b, and x ~ Poisson(exp(log-rates)), counts a bin.
The controller sees the factors of the generator, f_0 = W g_0 and on, of steps before; never of the linear system.

Log-variances are those of the priors plus what the networks say. With the means in place of samples the model is a
function of the spikes: that is what `lfads.infer` and all evaluations use.

Smith, Linderman & Sussillo (2021), arXiv:2111.01256; LFADS: Sussillo, Jozefowicz, Abbott & Pandarinath (2016),
arXiv:1608.06315, Pandarinath et al. (2018), Nature Methods 15:805. What differs from these: states of encoders and
controller begin at 0, rows of W are not normalized, priors are fixed, and dropout is of the encoders' input alone.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxfp import arguments
from jaxfp.models import flax_adapters, jslds
from jaxfp.types import Params, StepFn


@dataclasses.dataclass(frozen=True)
class LfadsConfig:
    """Sizes and priors.

    Attributes:
      n_encoder: units of each direction of both encoders.
      n_controller: units of the controller.
      n_generator: units of the generator, and of its linear system.
      n_factors: factors.
      n_inputs: inferred inputs.
      start_variance: of the prior N(0, start_variance) of each unit of g_0.
      input_variance: of the noise of the AR(1) prior of the inferred inputs.
      input_tau: its time constant in steps: u_t = exp(-1 / input_tau) u_{t-1} + noise.

    Raises:
      ValueError: if a number is out of range.
    """

    n_encoder: int = 32
    n_controller: int = 32
    n_generator: int = 32
    n_factors: int = 8
    n_inputs: int = 1
    start_variance: float = 0.1
    input_variance: float = 0.1
    input_tau: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("n_"):
                arguments.check_count(field.name, value)
            else:
                arguments.check_number(field.name, value, positive=True)


class Encoder(nnx.Module):
    """Two bidirectional GRUs over a trial: one for where it began, one for a code of each step.

    Args:
      n_neurons: lines of the spikes.
      config: sizes and the prior of g_0.
      rngs: flax random streams; `params` is drawn from.

    Example:
      >>> def encode(spikes):
      ...   return Encoder(3, LfadsConfig(n_encoder=2, n_generator=4), rngs=nnx.Rngs(0))(spikes)
      >>> [x.shape for x in jax.eval_shape(encode, jnp.zeros((5, 3)))]
      [(4,), (4,), (5, 4)]
    """

    def __init__(self, n_neurons: int, config: LfadsConfig, *, rngs: nnx.Rngs):
        def gru() -> nnx.GRUCell:
            return nnx.GRUCell(n_neurons, config.n_encoder, rngs=rngs)

        self.start_forward, self.start_backward = gru(), gru()
        self.code_forward, self.code_backward = gru(), gru()
        self.start = nnx.Linear(2 * config.n_encoder, 2 * config.n_generator, rngs=rngs)
        self.prior_variance = config.start_variance

    def __call__(self, spikes: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Mean and log-variance (n_generator,) of g_0, codes (n_time, 2 n_encoder), of spikes (n_time, n_neurons)."""
        ends = [_run(self.start_forward, spikes)[-1], _run(self.start_backward, spikes, reverse=True)[0]]
        mean, log_variance = jnp.split(self.start(jnp.concatenate(ends)), 2)
        codes = [_run(self.code_forward, spikes), _run(self.code_backward, spikes, reverse=True)]
        return mean, log_variance + jnp.log(jnp.full_like(mean, self.prior_variance)), jnp.concatenate(codes, axis=1)


class Controller(nnx.Module):
    """A GRU that says what came in.

    Args:
      config: sizes and the prior of the inputs.
      rngs: flax random streams; `params` is drawn from.

    Example:
      >>> def control(state, read):
      ...   return Controller(LfadsConfig(n_encoder=2, n_controller=3, n_factors=1), rngs=nnx.Rngs(0))((state, read))
      >>> [x.shape for x in jax.eval_shape(control, jnp.zeros(3), jnp.zeros(5))]
      [(3,), (1,), (1,)]
    """

    def __init__(self, config: LfadsConfig, *, rngs: nnx.Rngs):
        self.cell = nnx.GRUCell(2 * config.n_encoder + config.n_factors, config.n_controller, rngs=rngs)
        self.inputs = nnx.Linear(config.n_controller, 2 * config.n_inputs, rngs=rngs)
        self.prior_variance = config.input_variance

    def __call__(self, state_and_seen: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The next state (n_controller,), and mean and log-variance of u_t, from the state and [code, factors]."""
        state, _ = self.cell(*state_and_seen)
        mean, log_variance = jnp.split(self.inputs(state), 2)
        return state, mean, log_variance + jnp.log(jnp.full_like(mean, self.prior_variance))


def _run(cell: nnx.GRUCell, spikes: Any, *, reverse: bool = False) -> jax.Array:
    """States (n_time, n_encoder) of a GRU that begins at 0, at the time of what it read last."""
    start = jnp.zeros(cell.hidden_features, spikes.dtype)
    return jax.lax.scan(cell, start, spikes, reverse=reverse)[1]


@dataclasses.dataclass(frozen=True)
class Lfads:
    """The functions; hashable, so a jit takes it as a static argument.

    Attributes:
      encode_fn: see `Encoder`.
      control_fn: see `Controller`.
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step of the generator; what `find_fixed_points` takes.
      expand_fn: `(params, hidden) -> hidden`, from a state of the linear system to its expansion point.
      config: sizes and priors.
    """

    encode_fn: jslds.NnxFunction
    control_fn: jslds.NnxFunction
    step_fn: StepFn
    expand_fn: jslds.NnxFunction
    config: LfadsConfig


class LfadsParams(NamedTuple):
    """All weights, as nested dicts but for the readouts.

    Attributes:
      encoder: of `encode_fn`.
      controller: of `control_fn`.
      generator: of `step_fn`.
      expansion: of `expand_fn`.
      factors: (n_factors, n_generator), W.
      log_rates: (V (n_neurons, n_factors), b (n_neurons,)).
    """

    encoder: Params
    controller: Params
    generator: Params
    expansion: Params
    factors: Any
    log_rates: tuple[Any, Any]


class LfadsRollout(NamedTuple):
    """One trial, or many with a leading axis.

    Attributes:
      start_mean, start_log_variance: (n_generator,) of q(g_0).
      start: (n_generator,), g_0 as both branches began.
      input_mean, input_log_variance: (n_time, n_inputs) of q(u_t), given what was sampled before.
      inputs: (n_time, n_inputs), u_t as both branches got it.
      states: jslds.Rollout of generator and linear system.
      factors, switching_factors: (n_time, n_factors) of either branch.
      log_rates, switching_log_rates: (n_time, n_neurons), log of expected counts a bin, of either branch.
    """

    start_mean: Any
    start_log_variance: Any
    start: Any
    input_mean: Any
    input_log_variance: Any
    inputs: Any
    states: jslds.Rollout
    factors: Any
    switching_factors: Any
    log_rates: Any
    switching_log_rates: Any


def build_lfads(key: jax.Array, n_neurons: int, config: LfadsConfig | None = None) -> tuple[Lfads, LfadsParams]:
    """The networks as functions, and weights to begin with.

    Args:
      key: typed PRNG key of the weights.
      n_neurons: lines of the spikes.
      config: sizes and priors.

    Returns:
      Lfads, equal for equal sizes and priors.
      LfadsParams: flax's own initial weights; readouts N(0, 1 / fan-in), log-rates 0; the expansion network of
        `build_expansion`.

    Raises:
      ValueError: if n_neurons is less than 1.

    Example:
      >>> params = jax.eval_shape(lambda key: build_lfads(key, 3, LfadsConfig(n_generator=4))[1], jax.random.key(0))
      >>> params.factors.shape, params.log_rates[0].shape
      ((8, 4), (3, 8))
    """
    arguments.check_count("n_neurons", n_neurons)
    config = LfadsConfig() if config is None else config
    keys = jax.random.split(key, 5)
    encode_fn, encoder = _as_function(Encoder(n_neurons, config, rngs=nnx.Rngs(keys[0])))
    control_fn, controller = _as_function(Controller(config, rngs=nnx.Rngs(keys[1])))
    step_fn, generator = flax_adapters.from_nnx(
        nnx.GRUCell(config.n_inputs, config.n_generator, rngs=nnx.Rngs(keys[2]))
    )
    expand_fn, expansion = jslds.build_expansion(config.n_generator)
    factors = jax.random.normal(keys[3], (config.n_factors, config.n_generator)) / config.n_generator**0.5
    weights = jax.random.normal(keys[4], (n_neurons, config.n_factors)) / config.n_factors**0.5
    params = LfadsParams(encoder, controller, generator, expansion, factors, (weights, jnp.zeros(n_neurons)))
    return Lfads(encode_fn, control_fn, step_fn, expand_fn, config), params


def _as_function(module: nnx.Module) -> tuple[jslds.NnxFunction, Params]:
    graphdef, weights = nnx.split(module)
    return jslds.NnxFunction(graphdef), nnx.to_pure_dict(weights)


def roll_out(
    model: Lfads, params: LfadsParams, spikes: Any, key: jax.Array | None = None, *, dropout: float = 0.0,
    expansion: Any = None,
) -> LfadsRollout:  # fmt: skip
    """Both branches through one trial: traceable; vmap it over trials.

    Args:
      model: functions.
      params: weights.
      spikes: (n_time, n_neurons), counts, in the dtype of the weights.
      key: typed PRNG key of what is sampled; None for the means of q in place of samples.
      dropout: share of the encoders' input that is 0 in this trial, the rest larger by 1 / (1 - dropout).
      expansion: (n_time, n_generator), expansion points to use in place of those that the expansion network proposes.

    Returns:
      LfadsRollout.

    Raises:
      ValueError: if the shapes do not fit, or dropout is given without a key.

    Example:
      >>> def both(key):
      ...   return roll_out(*build_lfads(key, 3, LfadsConfig(n_generator=4)), jnp.ones((5, 3)), key)
      >>> jax.eval_shape(both, jax.random.key(0)).log_rates.shape
      (5, 3)
    """
    n_neurons, config = len(params.log_rates[1]), model.config
    arguments.check_array("spikes", spikes, "(n_time, n_neurons)", (2,))
    if spikes.shape[1] != n_neurons:
        raise ValueError(f"spikes must be (n_time, n_neurons = {n_neurons}), got {spikes.shape}.")
    if key is None and dropout:
        raise ValueError(f"dropout needs a key, got {dropout} without one.")
    start_noise = jnp.zeros(config.n_generator, spikes.dtype)
    input_noise = jnp.zeros((len(spikes), config.n_inputs), spikes.dtype)
    seen = spikes
    if key is not None:
        key_start, key_input, key_drop = jax.random.split(key, 3)
        start_noise = jax.random.normal(key_start, start_noise.shape, spikes.dtype)
        input_noise = jax.random.normal(key_input, input_noise.shape, spikes.dtype)
        if dropout:
            kept = jax.random.bernoulli(key_drop, 1 - dropout, spikes.shape)
            seen = jnp.where(kept, spikes / (1 - dropout), 0)
    start_mean, start_log_variance, codes = model.encode_fn(params.encoder, seen)
    start = start_mean + jnp.exp(start_log_variance / 2) * start_noise

    def step(carry: tuple[Any, ...], now: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        control, hidden, switching = carry
        code, noise, point = now
        read = jnp.concatenate([code, params.factors @ hidden])
        control, mean, log_variance = model.control_fn(params.controller, (control, read))
        u = mean + jnp.exp(log_variance / 2) * noise
        if point is None:
            point = model.expand_fn(params.expansion, switching)
        hidden = arguments.step(model.step_fn, params.generator, hidden, u)
        image, linear = jslds.expand(model.step_fn, params.generator, point, jnp.zeros_like(u), switching, u)
        switching = point + linear
        states = jslds.Rollout(hidden, switching, point, image)
        return (control, hidden, switching), (mean, log_variance, u, states)

    carry = (jnp.zeros(config.n_controller, spikes.dtype), start, start)
    mean, log_variance, inputs, states = jax.lax.scan(step, carry, (codes, input_noise, expansion))[1]
    factors, switching_factors = (x @ params.factors.T for x in (states.hidden, states.switching))
    log_rates, switching_log_rates = (jslds.read_out(params.log_rates, f) for f in (factors, switching_factors))
    return LfadsRollout(
        start_mean, start_log_variance, start, mean, log_variance, inputs, states, factors, switching_factors,
        log_rates, switching_log_rates,
    )  # fmt: skip
