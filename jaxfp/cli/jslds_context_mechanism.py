"""What a context integrator trained with its switching linear system does, and how: the numbers of one network.

All trials are fresh and without noise, in float64. Expansion points count after the first two steps, in which a trial
comes from its first state to the line of its context; errors of outputs and states count from the first step on.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfp import pipeline
from jaxfp.analysis import linearization, modes, switching
from jaxfp.cli import jslds_mechanism, proofs
from jaxfp.cli.jslds_training import Network
from jaxfp.search import candidates
from jaxfp.tasks import context_integration, three_bit_memory
from jaxfp.tasks.context_integration import CONTEXT_LINES
from jaxfp.types import FIXED, FixedPoints

N_SKIPPED = 2
N_DRAWN = 1000  # expansion points of a context that are looked at
KEPT = (0.95, 1.05)  # where the |eigenvalue| of the one mode that integrates should be
FORGOTTEN = (0.0, 0.8)  # where the others should be
SELECTED = (10.0, np.inf)  # how many times more of the evidence asked for it should take up
EVIDENCE_LINES = (0, 1)
CONTEXTS = (0, 1)
SLOW_SPEED = 1e-7  # mean square of F(h) - h a unit, below which Smith et al. (2021) take a point of this task


class ContextTrials(NamedTuple):
    """Trials and what both branches do in them, NumPy float64.

    Attributes:
      does: see `jslds_mechanism.Trials`.
      context: (n_trials,) int.
    """

    does: jslds_mechanism.Trials
    context: np.ndarray


class LinePoints(NamedTuple):
    """Points of both contexts, in `inputs` told apart.

    Attributes:
      found: of `find_fixed_points`, fixed and slow.
      proved: (n_points,) bool, exactly one fixed point lies at it.
    """

    found: FixedPoints
    proved: np.ndarray


def run_context_trials(network: Network, batch: context_integration.Batch) -> ContextTrials:
    """Both branches through given trials.

    Args:
      network: see `Network`.
      batch: trials.

    Returns:
      ContextTrials.

    Example:
      >>> from jaxfp.cli import jslds_context
      >>> network = jslds_context.init_network(jax.random.key(0), jslds_context.Recipe("tanh", n_units=4))
      >>> config = context_integration.ContextIntegrationConfig(n_time=6)
      >>> trials = run_context_trials(network, context_integration.sample_batch(jax.random.key(0), config, 2))
      >>> trials.does.outputs.shape
      (2, 6, 1)
    """
    return ContextTrials(jslds_mechanism.run_trials(network, _inputs_and_targets(batch)), np.asarray(batch.context))


def _inputs_and_targets(batch: context_integration.Batch) -> three_bit_memory.Batch:
    """Those of the other task are inputs and targets, no more."""
    return three_bit_memory.Batch(batch.inputs, batch.targets)


def context_behaviour(key: jax.Array, network: Network, batch: context_integration.Batch) -> dict[str, Any]:
    """Does it do the task, in both branches, and do they do the same?

    Args:
      key: of the orders of the control.
      network: see `Network`.
      batch: trials.

    Returns:
      Dict: R2 and mean squared error of either branch; relative error; residual, mean |e - F(e, u*)| / |e|; the
      relative error with each trial's expansion points in another order, and that over its own.

    Example:
      >>> from jaxfp.cli import jslds_context
      >>> network = jslds_context.init_network(jax.random.key(0), jslds_context.Recipe("tanh", n_units=4))
      >>> config = context_integration.ContextIntegrationConfig(n_time=6)
      >>> batch = context_integration.sample_batch(jax.random.key(0), config, 2)
      >>> sorted(context_behaviour(jax.random.key(0), network, batch)["r_squared"])
      ['jslds', 'rnn']
    """
    does = run_context_trials(network, batch).does
    branches = {"rnn": does.outputs, "jslds": does.switching_outputs}
    own = switching.relative_error(does.both.switching, does.both.hidden)
    shuffled = jslds_mechanism.shuffled_error(key, network, _inputs_and_targets(batch), does.both)
    return {
        "r_squared": {
            name: float(context_integration.r_squared(said, does.targets)) for name, said in branches.items()
        },
        "mse": {name: float(context_integration.loss(said, does.targets)) for name, said in branches.items()},
        "relative_error": own,
        "residual": switching.relative_error(does.both.image, does.both.expansion),
        "shuffled_relative_error": shuffled,
        "shuffled_over_own": shuffled / own,
    }


def explain_context(network: Network, trials: ContextTrials) -> dict[str, Any]:
    """Which mode each expansion point keeps, and what evidence that mode takes up.

    Args:
      network: see `Network`.
      trials: at least some of either context.

    Returns:
      Dict of the contexts, "0" and "1". For each, over expansion points: `leading` and `second` |eigenvalue|, and
      `selection`, how much more the leading left eigenvector takes up of the evidence that the context asks for than of
      the other's: least, median, largest, and the share of points where it is as it should be; `taken_up`, medians of
      both; `line`, share of the points' variance along their first principal component.

    Example:
      >>> from jaxfp.cli import jslds_context
      >>> network = jslds_context.init_network(jax.random.key(0), jslds_context.Recipe("tanh", n_units=4))
      >>> config = context_integration.ContextIntegrationConfig(n_time=6)
      >>> trials = run_context_trials(network, context_integration.sample_batch(jax.random.key(0), config, 8))
      >>> sorted(explain_context(network, trials))
      ['0', '1']
    """
    said = {}
    for context in CONTEXTS:
        expansion = trials.does.both.expansion[trials.context == context, N_SKIPPED:]
        expansion = expansion.reshape(-1, expansion.shape[-1])
        drawn = expansion[np.linspace(0, len(expansion) - 1, min(N_DRAWN, len(expansion))).astype(int)]
        linear = linearization.linearize(
            network.model.step_fn, network.params.cell, drawn, _static(context, trials.does.inputs.shape[2])
        )
        spectra = modes.spectrum(linear.jacobian)
        size = np.abs(np.asarray(spectra.eigenvalues))[:, :2]
        taken_up = switching.selection(spectra.left, linear.input_jacobian, 1)[:, :, EVIDENCE_LINES]
        asked = np.tile(np.array(EVIDENCE_LINES) == context, (len(drawn), 1))
        ratio = switching.selection_ratio(taken_up, asked)
        variance = np.linalg.svd(drawn - drawn.mean(0), compute_uv=False) ** 2
        said[str(context)] = {
            "n_points": len(drawn),
            "leading": _spread(size[:, 0], KEPT),
            "second": _spread(size[:, 1], FORGOTTEN),
            "selection": _spread(ratio, SELECTED),
            "taken_up": {
                "asked": float(np.median(taken_up[:, 0, context])),
                "other": float(np.median(taken_up[:, 0, 1 - context])),
            },
            "line": float(variance[0] / variance.sum()),
        }
    return said


def _spread(values: np.ndarray, wanted: tuple[float, float]) -> dict[str, float]:
    return {
        "least": float(values.min()),
        "median": float(np.median(values)),
        "largest": float(values.max()),
        "share": float(np.mean((values >= wanted[0]) & (values <= wanted[1]))),
    }


def _static(context: int, n_inputs: int) -> np.ndarray:
    return np.eye(n_inputs)[CONTEXT_LINES[context]]


def find_line_points(
    key: jax.Array, network: Network, trials: ContextTrials, n_candidates: int, slow_speed: float | None = None
) -> LinePoints:
    """Points of the network in each context without evidence.

    Args:
      key: of candidates.
      network: see `Network`.
      trials: from whose states, in the same context, the search begins.
      n_candidates: of each context.
      slow_speed: mean |F(h, u*) - h|^2 a unit at which a search ends, so that points spread over a line that is only
        nearly fixed; None to search for fixed points and minima.

    Returns:
      LinePoints; with `slow_speed` nothing is proved.

    Example:
      >>> from jaxfp.cli import jslds_context
      >>> network = jslds_context.init_network(jax.random.key(0), jslds_context.Recipe("tanh", n_units=4, gain=0.5))
      >>> config = context_integration.ContextIntegrationConfig(n_time=6)
      >>> trials = run_context_trials(network, context_integration.sample_batch(jax.random.key(0), config, 8))
      >>> find_line_points(jax.random.key(0), network, trials, 16).proved.tolist()
      [True, True]
    """
    step_fn, params = network.model.step_fn, network.params.cell
    starts, inputs = sample_starts(key, trials, n_candidates)
    find = functools.partial(pipeline.find_fixed_points, step_fn, params, starts, inputs)
    if slow_speed is not None:
        points = find(slow_tolerance=starts.shape[1] * slow_speed / 2)  # q is half the sum of squares
        return LinePoints(points, np.zeros(len(points.hidden), bool))
    points = find()
    proof, _ = proofs.prove(step_fn, params, points, "map")
    return LinePoints(points, np.zeros(len(points.hidden), bool) if proof is None else proof.exists)


def sample_starts(key: jax.Array, trials: ContextTrials, n_candidates: int) -> tuple[np.ndarray, np.ndarray]:
    """States of trials with a little noise, to search from in the context that they are of.

    Args:
      key: of the draws.
      trials: what a network does.
      n_candidates: of each context.

    Returns:
      States (2 n_candidates, n_hidden) and inputs (2 n_candidates, n_inputs), the context without evidence.

    Example:
      >>> from jaxfp.cli import jslds_context
      >>> network = jslds_context.init_network(jax.random.key(0), jslds_context.Recipe("tanh", n_units=4))
      >>> config = context_integration.ContextIntegrationConfig(n_time=6)
      >>> trials = run_context_trials(network, context_integration.sample_batch(jax.random.key(0), config, 8))
      >>> sample_starts(jax.random.key(0), trials, 1)[1].tolist()
      [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    hidden, n_inputs = trials.does.both.hidden, trials.does.inputs.shape[2]
    starts = [candidates.sample_candidates(jax.random.fold_in(key, context), hidden[trials.context == context],
                                           n_candidates, 0.1)
              for context in CONTEXTS]  # fmt: skip
    inputs = np.repeat([_static(context, n_inputs) for context in CONTEXTS], n_candidates, axis=0)
    return np.concatenate(starts), inputs


def nearest_point_error(
    network: Network, trials: ContextTrials, points: FixedPoints, used: np.ndarray
) -> dict[str, float]:
    """Relative errors of linearization about the nearest point of the same context, each trial by its own states.

    Args:
      network: see `Network`.
      trials: what it does.
      points: of both contexts.
      used: (n_points,) bool, those to predict from.

    Returns:
      Dict: one_step, free_run; NaN where a context has no point.

    Example:
      >>> from jaxfp.cli import jslds_context
      >>> network = jslds_context.init_network(jax.random.key(0), jslds_context.Recipe("tanh", n_units=4, gain=0.5))
      >>> config = context_integration.ContextIntegrationConfig(n_time=6)
      >>> trials = run_context_trials(network, context_integration.sample_batch(jax.random.key(0), config, 8))
      >>> points = FixedPoints(*[None] * len(FixedPoints._fields))
      >>> points = points._replace(hidden=np.zeros((2, 4)), inputs=np.eye(4)[[2, 3]])
      >>> sorted(nearest_point_error(network, trials, points, np.ones(2, bool)))
      ['free_run', 'one_step']
    """
    does = trials.does
    at = np.asarray(points.inputs)[used]
    if any(not at[:, CONTEXT_LINES[context]].any() for context in CONTEXTS):
        return {"one_step": float("nan"), "free_run": float("nan")}
    static = np.where(np.isin(np.arange(does.inputs.shape[2]), CONTEXT_LINES), does.inputs[:, 0], 0.0)
    made = switching.predict_by_nearest(
        network.model.step_fn, network.params.cell, points.hidden[used], does.both.hidden, does.inputs,
        point_inputs=at, static_inputs=static,
    )  # fmt: skip
    wanted = does.both.hidden[:, 1:]
    return {
        "one_step": switching.relative_error(made.one_step, wanted),
        "free_run": switching.relative_error(made.free_run, wanted),
    }


def point_counts(points: LinePoints) -> dict[str, list[int]]:
    """How many points each context has.

    Args:
      points: of both contexts.

    Returns:
      Dict of fixed, proved and slow, a number for either context.

    Example:
      >>> inputs = np.eye(4)[[2, 2, 3]]
      >>> found = FixedPoints(*[None] * len(FixedPoints._fields))._replace(inputs=inputs, status=np.full(3, FIXED))
      >>> point_counts(LinePoints(found, np.array([True, False, True])))["proved"]
      [1, 1]
    """
    of = np.asarray(points.found.inputs)[:, CONTEXT_LINES] > 0
    fixed = points.found.status == FIXED
    kinds = {"fixed": fixed, "proved": points.proved, "slow": ~fixed}
    return {name: [int((of[:, context] & kind).sum()) for context in CONTEXTS] for name, kind in kinds.items()}
