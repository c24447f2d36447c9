"""What a 3-bit memory trained together with its switching linear system does, and how: the numbers of one network.

All trials are fresh and without noise, in float64. Steps before the fifth count in errors of states, but neither as
outputs nor as expansion points.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import dynamics, pipeline
from jaxfp.analysis import linearization, modes, switching
from jaxfp.cli import proofs
from jaxfp.cli.jslds_training import Network
from jaxfp.models import jslds
from jaxfp.search import candidates
from jaxfp.tasks import three_bit_memory
from jaxfp.tasks.three_bit_memory import N_UNSCORED
from jaxfp.types import FIXED, FixedPoints

HOLDS = (50, 100, 200, 500)
N_MODES = 9  # leading ones whose selection is looked at, as in Smith et al. (2021)
N_CLUSTERED = 3000


class Trials(NamedTuple):
    """What both branches do, NumPy float64.

    Attributes:
      inputs: (n_trials, n_time, n_inputs).
      targets: (n_trials, n_time, n_bits).
      both: Rollout with leading axis n_trials.
      outputs: (n_trials, n_time, n_bits) of the network.
      switching_outputs: (n_trials, n_time, n_bits) of the linear system.
    """

    inputs: Any
    targets: Any
    both: jslds.Rollout
    outputs: Any
    switching_outputs: Any


class Points(NamedTuple):
    """Fixed and slow points in silence, and which of them are proved.

    Attributes:
      found: of `find_fixed_points`.
      proved: (n_points,) bool, exactly one fixed point lies at it.
    """

    found: FixedPoints
    proved: np.ndarray


_sample = jax.jit(three_bit_memory.sample_batch, static_argnums=(1, 2))  # op by op, long trials take seconds


@functools.partial(jax.jit, static_argnums=0)
def _run(model: jslds.Jslds, params: jslds.JsldsParams, inputs: jax.Array, expansion: Any) -> tuple[Any, ...]:
    both = jax.vmap(lambda u, e: jslds.roll_out(model, params, u, expansion=e))(inputs, expansion)
    return both, *(jslds.read_out(params.readout, states) for states in (both.hidden, both.switching))


def run_trials(network: Network, batch: three_bit_memory.Batch, expansion: Any = None) -> Trials:
    """Both branches through given trials.

    Args:
      network: see `Network`.
      batch: trials.
      expansion: (n_trials, n_time, n_hidden), points in place of those proposed; None for those.

    Returns:
      Trials.

    Example:
      >>> from jaxfp.cli import jslds_training
      >>> network = jslds_training.init_network(jax.random.key(0), jslds_training.Recipe("tanh", n_units=4, gain=0.5))
      >>> config = three_bit_memory.ThreeBitMemoryConfig(n_time=6)
      >>> run_trials(network, three_bit_memory.sample_batch(jax.random.key(0), config, 4)).outputs.shape
      (4, 6, 3)
    """
    inputs, targets = (np.asarray(x, np.float64) for x in batch)
    with jax.enable_x64(True):
        made = _run(network.model, dynamics.widen(network.params), jnp.asarray(inputs), expansion)
        return Trials(inputs, targets, *jax.tree.map(np.asarray, made))


def behaviour(trials: Trials) -> dict[str, Any]:
    """Does it do the task, in both branches, and do they do the same?

    Args:
      trials: see `Trials`.

    Returns:
      Dict: sign accuracy and mean squared error of either branch; relative error; residual, mean |e - F(e)| / |e|.

    Example:
      >>> one = np.ones((1, 6, 1))
      >>> behaviour(Trials(one, one, jslds.Rollout(one, one, one, one), one, -one))["sign_accuracy"]
      {'rnn': 1.0, 'jslds': 0.0}
    """
    branches = {"rnn": trials.outputs, "jslds": trials.switching_outputs}
    both = trials.both
    return {
        "sign_accuracy": {
            name: float(three_bit_memory.sign_accuracy(said, trials.targets)) for name, said in branches.items()
        },
        "mse": {name: float(three_bit_memory.loss(said, trials.targets)) for name, said in branches.items()},
        "relative_error": switching.relative_error(both.switching, both.hidden),
        "residual": switching.relative_error(both.image, both.expansion),
    }


def shuffled_error(key: jax.Array, network: Network, batch: three_bit_memory.Batch, both: jslds.Rollout) -> float:
    """Control: the relative error with each trial's own expansion points, but in another order.

    Args:
      key: of the orders.
      network: see `Network`.
      batch: the trials.
      both: what the network did in them.

    Returns:
      The relative error.

    Example:
      >>> from jaxfp.cli import jslds_training
      >>> network = jslds_training.init_network(jax.random.key(0), jslds_training.Recipe("tanh", n_units=4, gain=0.5))
      >>> config = three_bit_memory.ThreeBitMemoryConfig(n_time=6)
      >>> batch = three_bit_memory.sample_batch(jax.random.key(0), config, 4)
      >>> shuffled_error(jax.random.key(0), network, batch, run_trials(network, batch).both) > 0
      True
    """
    keys = jax.random.split(key, len(both.expansion))
    order = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, both.expansion.shape[1]))(keys))
    moved = run_trials(network, batch, np.take_along_axis(both.expansion, order[:, :, None], axis=1)).both
    return switching.relative_error(moved.switching, moved.hidden)


def hold_curve(
    key: jax.Array, network: Network, n_trials: int = 256, holds: Sequence[int] = HOLDS
) -> dict[str, list[float]]:
    """Share of trials whose every bit is right after so many silent steps.

    Args:
      key: of the trials, of 25 steps before the silence.
      network: see `Network`.
      n_trials: number of trials.
      holds: numbers of silent steps.

    Returns:
      Dict: of the network and of the linear system, a share for each of `holds`.

    Example:
      >>> from jaxfp.cli import jslds_training
      >>> network = jslds_training.init_network(jax.random.key(0), jslds_training.Recipe("tanh", n_units=4, gain=0.5))
      >>> len(hold_curve(jax.random.key(0), network, 2, (3, 5))["rnn"])
      2
    """
    n_hold = max(holds)
    n_driven = three_bit_memory.ThreeBitMemoryConfig().n_time
    config = three_bit_memory.ThreeBitMemoryConfig(n_time=n_driven + n_hold, n_hold=n_hold)
    trials = run_trials(network, _sample(key, config, n_trials))
    at = n_driven - 1 + np.array(holds)

    def right(outputs: np.ndarray) -> list[float]:
        return (outputs[:, at] * trials.targets[:, at] > 0).all(2).mean(0).tolist()

    return {"rnn": right(trials.outputs), "jslds": right(trials.switching_outputs)}


def find_points(key: jax.Array, network: Network, hidden: np.ndarray, n_candidates: int = 1024) -> Points:
    """Fixed points of the network in silence, searched until complete, each with its proof.

    The search goes on from means of the attractors it found and along the unstable directions of its saddles, so that
    it finds saddles, too, where no trial goes.

    Args:
      key: of candidates and seeded waves.
      network: see `Network`.
      hidden: (..., n_hidden), states to begin at.
      n_candidates: how many of them.

    Returns:
      Points.

    Example:
      >>> from jaxfp.cli import jslds_training
      >>> network = jslds_training.init_network(jax.random.key(0), jslds_training.Recipe("tanh", n_units=4, gain=0.5))
      >>> find_points(jax.random.key(0), network, np.zeros((1, 4)), 32).proved.tolist()
      [True]
    """
    key_starts, key_waves = jax.random.split(key)
    starts = candidates.sample_candidates(key_starts, hidden, n_candidates, 0.5)
    silence = np.zeros(2 * len(network.params.readout[1]))
    step_fn, params = network.model.step_fn, network.params.cell
    points = pipeline.find_fixed_points(step_fn, params, starts, silence, until="complete", key=key_waves)
    proof, _ = proofs.prove(step_fn, params, points, "map")
    return Points(points, np.zeros(len(points.hidden), bool) if proof is None else proof.exists)


def count_by_index(network: Network, points: FixedPoints) -> dict[str, int]:
    """How many fixed points there are with 0, 1, 2 ... unstable directions.

    Args:
      network: see `Network`.
      points: as found.

    Returns:
      Dict from the number of unstable directions, and "slow".

    Example:
      >>> from jaxfp.cli import jslds_training
      >>> network = jslds_training.init_network(jax.random.key(0), jslds_training.Recipe("tanh", n_units=4, gain=0.5))
      >>> at, zero, one = np.zeros((1, 4)), np.zeros(1), np.ones(1)
      >>> origin = FixedPoints(at, np.zeros((1, 6)), zero, zero, np.array([FIXED]), one, one, None)
      >>> count_by_index(network, origin)
      {'0': 1, 'slow': 0}
    """
    fixed = points.status == FIXED
    linear = linearization.linearize(network.model.step_fn, network.params.cell, points.hidden, points.inputs)
    n_unstable = np.asarray(modes.spectrum(linear.jacobian).n_unstable)[fixed]
    which, how_many = np.unique(n_unstable, return_counts=True)
    return {str(k): int(n) for k, n in zip(which, how_many, strict=True)} | {"slow": int((~fixed).sum())}


def baseline_error(network: Network, trials: Trials, points: FixedPoints) -> dict[str, float]:
    """Relative errors of linearization about the nearest fixed point, each trial against its own states.

    Args:
      network: see `Network`.
      trials: what it does.
      points: of it in silence; slow ones are left out.

    Returns:
      Dict: one_step, free_run; NaN where there are no fixed points.

    Example:
      >>> from jaxfp.cli import jslds_training
      >>> network = jslds_training.init_network(jax.random.key(0), jslds_training.Recipe("tanh", n_units=4, gain=0.5))
      >>> config = three_bit_memory.ThreeBitMemoryConfig(n_time=6)
      >>> trials = run_trials(network, three_bit_memory.sample_batch(jax.random.key(0), config, 4))
      >>> at, zero, one = np.zeros((1, 4)), np.zeros(1), np.ones(1)
      >>> origin = FixedPoints(at, None, zero, zero, np.array([FIXED]), one, one, None)
      >>> sorted(baseline_error(network, trials, origin))
      ['free_run', 'one_step']
    """
    fixed = points.hidden[points.status == FIXED]
    if not len(fixed):
        return {"one_step": float("nan"), "free_run": float("nan")}
    hidden = trials.both.hidden
    made = switching.predict_by_nearest(network.model.step_fn, network.params.cell, fixed, hidden, trials.inputs)
    return {
        "one_step": switching.relative_error(made.one_step, hidden[:, 1:]),
        "free_run": switching.relative_error(made.free_run, hidden[:, 1:]),
    }


class States(NamedTuple):
    """Clusters of expansion points and the dynamics at their centers, in silence.

    Attributes:
      points: (n_points, n_hidden), expansion points, some thousands at most, evenly drawn.
      clusters: of these.
      codes: (n_clusters, n_bits), -1 or +1, what the readout says at each center.
      readout: (n_clusters, n_bits), how loud.
      eigenvalues: (n_clusters, n_hidden) complex, leading ones first.
      taken_up: (n_clusters, n_hidden, n_inputs), what each mode takes up from each line, see `selection`.
      driven: (n_clusters, n_bits, n_inputs), what each line does to the outputs within a step.
    """

    points: np.ndarray
    clusters: switching.Clusters
    codes: np.ndarray
    readout: np.ndarray
    eigenvalues: np.ndarray
    taken_up: np.ndarray
    driven: np.ndarray

    @property
    def names(self) -> list[str]:
        """Codes in signs, e.g. "+-+"."""
        return ["".join("+" if bit > 0 else "-" for bit in code) for code in self.codes]

    @property
    def flips(self) -> np.ndarray:
        """(n_clusters, n_inputs) bool, the lines that flip a bit of each code."""
        return np.asarray(three_bit_memory.flips(jnp.asarray(self.codes)))


def find_states(network: Network, trials: Trials) -> States:
    """Where the expansion points are, and the dynamics there.

    Args:
      network: see `Network`.
      trials: at least some hundred.

    Returns:
      States.

    Example:
      >>> from jaxfp.cli import jslds_training
      >>> network = jslds_training.init_network(jax.random.key(0), jslds_training.Recipe("tanh", n_units=4, gain=0.5))
      >>> config = three_bit_memory.ThreeBitMemoryConfig(n_time=6)
      >>> trials = run_trials(network, three_bit_memory.sample_batch(jax.random.key(0), config, 4))
      >>> set(find_states(network, trials).flips.sum(1).tolist())
      {3}
    """
    expansion = trials.both.expansion[:, N_UNSCORED:].reshape(-1, trials.both.expansion.shape[2])
    drawn = expansion[np.linspace(0, len(expansion) - 1, min(N_CLUSTERED, len(expansion))).astype(int)]
    clusters = switching.find_clusters(drawn)
    w_out, b_out = (np.asarray(x, np.float64) for x in network.params.readout)
    said = clusters.center[:, : w_out.shape[1]] @ w_out.T + b_out
    linear = linearization.linearize(
        network.model.step_fn, network.params.cell, clusters.center, np.zeros(trials.inputs.shape[2])
    )
    spectra = modes.spectrum(linear.jacobian)
    return States(
        drawn,
        clusters,
        np.where(said > 0, 1, -1),
        said,
        np.asarray(spectra.eigenvalues),
        switching.selection(spectra.left, linear.input_jacobian),
        w_out @ linear.input_jacobian[:, : w_out.shape[1]],
    )


def explain(states: States, points: Points) -> dict[str, Any]:
    """The numbers of `find_states`, and how far expansion points are from fixed points.

    Args:
      states: of a network, (n_clusters, ...).
      points: of the same network in silence.

    Returns:
      Dict of numbers, by cluster where a list: sizes, sign codes, spread; smallest |readout| at a center; leading
      |eigenvalues| at the centers; the selection ratio, in the N_MODES leading left eigenvectors and in outputs, of the
      lines that flip a bit of the center's own code, and the least of all centers in the leading 1, 2, ... n_hidden;
      and how far expansion points are from the nearest proved fixed point.

    Example:
      >>> from jaxfp.cli import jslds_training
      >>> network = jslds_training.init_network(jax.random.key(0), jslds_training.Recipe("tanh", n_units=4, gain=0.5))
      >>> config = three_bit_memory.ThreeBitMemoryConfig(n_time=6)
      >>> trials = run_trials(network, three_bit_memory.sample_batch(jax.random.key(0), config, 4))
      >>> at, zero, one = np.zeros((1, 4)), np.zeros(1), np.ones(1)
      >>> origin = FixedPoints(at, None, zero, zero, np.array([FIXED]), one, one, None)
      >>> explain(find_states(network, trials), Points(origin, np.array([True])))["distance_to_proved"]["points_used"]
      1
    """
    clusters = states.clusters
    by_modes = switching.selection_ratio(states.taken_up[:, :N_MODES], states.flips)
    n_modes = range(1, states.taken_up.shape[1] + 1)
    proved = points.found.hidden[points.proved]
    distance, which = switching.nearest_distance(states.points, proved)
    relative = distance / np.linalg.norm(states.points, axis=1)
    center_distance, center_which = switching.nearest_distance(clusters.center, proved)
    return {
        "n_clusters": len(clusters.size),
        "cluster_leap": clusters.leap.tolist(),
        "sizes": clusters.size.tolist(),
        "spread": clusters.spread.tolist(),
        "codes": states.names,
        "n_codes": len(np.unique(states.codes, axis=0)),
        "readout_least": float(np.abs(states.readout).min()),
        "eigenvalues": np.abs(states.eigenvalues)[:, :N_MODES].tolist(),
        "selection_least": float(by_modes.min()),
        "selection": by_modes.tolist(),
        "selection_least_by_n_modes": [
            float(switching.selection_ratio(states.taken_up[:, :n], states.flips).min()) for n in n_modes
        ],
        "selection_in_outputs": switching.selection_ratio(states.driven, states.flips).tolist(),
        "n_proved": len(proved),
        "distance_to_proved": {
            "median": float(np.median(distance)),
            "largest": float(distance.max()),
            "median_relative": float(np.median(relative)),
            "of_centers": center_distance.tolist(),
            "points_used": len(np.unique(which[which >= 0])),
            "one_point_a_cluster": len(np.unique(center_which[center_which >= 0])) == len(clusters.size),
        },
    }
