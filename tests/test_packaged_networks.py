"""The networks that come with jaxfp do the task and have the structure that README claims."""

import jax
import numpy as np
import pytest

from jaxfp import io, pipeline
from jaxfp.analysis import completeness, linearization
from jaxfp.cli import flip_flop, flip_flop_force, flip_flop_mechanism
from jaxfp.models import force
from jaxfp.search import dedupe
from jaxfp.types import FIXED


@pytest.mark.parametrize("cell", sorted(flip_flop.CELLS))
def test_does_the_task_and_holds_all_memories(cell):
    """T4: sign accuracy >= 99.9 % with gaps twice those of training; all 8 memories after 1,000 silent steps."""
    network = flip_flop.as_network(cell, io.load_packaged(f"flip_flop_{cell}")[0])
    does = flip_flop.behaviour(jax.random.key(1), network, flip_flop.recipe_of(cell), n_trials=64)
    assert does["sign_accuracy"] >= 0.999
    assert does["sign_accuracy_in_silence"] >= 0.999
    assert does["memories_held"] == does["memories"] == 8


def test_an_untrained_network_does_not_do_the_task():
    """Negative control of T4: the same test fails on random weights."""
    recipe = flip_flop.Recipe(n_steps=1)
    arrays, _ = flip_flop.train_network(0, "tanh", 16, recipe)
    does = flip_flop.behaviour(jax.random.key(1), flip_flop.as_network("tanh", arrays), recipe, n_trials=64)
    assert does["sign_accuracy"] < 0.9
    assert does["memories_held"] < 8


def test_the_tanh_memory_is_a_cube(tanh_network, tanh_analysis):
    """T5: 8 stable points with the 8 sign codes, q < 1e-26 at every FIXED point, index sum +1, called complete."""
    points, modes, audit = tanh_analysis[0].points, tanh_analysis[0].modes, tanh_analysis[0].audit
    fixed = points.status == FIXED
    stable = fixed & (modes.verdict == "stable")
    codes = flip_flop.sign_codes(tanh_network, points.hidden)
    assert (points.q[fixed] < 1e-26).all()
    assert stable.sum() == 8
    assert len({codes[p] for p in np.flatnonzero(stable)}) == 8
    assert audit.index_sum == 1
    assert audit.complete
    # +1 is the alternating sum over dimensions of instability only where no eigenvalue is real and below -1.
    assert audit.signs[fixed].sum() == 1


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gated_memories_have_eight_stable_points(cell):
    """The same search on the GRU and the LSTM: 8 stable points with the 8 sign codes, index sum +1.

    T5, T6: 12 saddles with one unstable dimension join the 12 pairs of memories one bit apart, the pulses do what the
    task asks, and critical pulses lead to the saddle between two memories, as fast as its eigenvalues say.
    """
    network = flip_flop.as_network(cell, io.load_packaged(f"flip_flop_{cell}")[0])
    analysis, _, _ = flip_flop.explore(0, network, flip_flop.recipe_of(cell), n_candidates=256)
    stable = (analysis.points.status == FIXED) & (analysis.modes.verdict == "stable")
    codes = flip_flop.sign_codes(network, analysis.points.hidden)
    assert len({codes[p] for p in np.flatnonzero(stable)}) == stable.sum() == 8
    assert analysis.audit.index_sum == 1

    mechanism = flip_flop_mechanism.explain(network.step_fn, network.params, analysis, codes, 3)
    said, sweeps = mechanism.summary, mechanism.sweeps
    assert said["edges"]["by_hamming_distance"] == {"1": 12}
    assert said["edges"]["distinct_with_one_bit"] == 12
    assert said["truth_table"] == {"right": 48, "of": 48, "asked": 48}
    pulses = said["critical_pulses"]
    assert [pulses[name] for name in ("bracketed", "to_the_saddle_between", "ends_1_percent_around")] == [24] * 3
    # An amplitude off by e leads as near as e^theta: growth lambda, slowest decay mu (see jaxfp.analysis.responses).
    growth, decay = np.log(np.abs(analysis.modes.eigenvalues[sweeps.saddle, :2])).T
    slopes = []
    for tried, amplitude, distance in zip(sweeps.tried, sweeps.amplitude, sweeps.distance, strict=True):
        offset = np.abs(tried - amplitude)
        rows = (offset > 1e-13) & (offset < 1e-4)
        slopes.append(np.polyfit(np.log(offset[rows]), np.log(distance[rows]), 1)[0])
    # the power holds up to a factor that depends on where within a step the trajectory turns
    assert np.abs(np.median(slopes / (-decay / (growth - decay))) - 1) < 0.1


@pytest.fixture(scope="module")
def by_force():
    """The network trained by FORCE, and its recipe."""
    recipe = flip_flop_force.Recipe()
    return flip_flop_force.as_network(io.load_packaged("flip_flop_force")[0], recipe), recipe


@pytest.fixture(scope="module")
def found_by_force(by_force):
    """Its points, as the command finds them."""
    return flip_flop_force.explore(0, *by_force)[0]


def test_the_network_trained_by_force_holds_all_memories(by_force):
    """T4, in continuous time: gaps twice those of training, then 1,000 silent steps; 64 trials of each of four keys.

    Control: what `scored_steps` leaves out is where bits are lost, on the way from a random state to the memories.
    """
    does = [flip_flop_force.behaviour(jax.random.key(seed), *by_force) for seed in range(4)]
    assert min(d["sign_accuracy"] for d in does) >= 0.999
    assert min(d["sign_accuracy_in_silence"] for d in does) == 1
    assert all(d["memories_held"] == d["memories"] == 8 for d in does)
    assert 0.99 < min(d["sign_accuracy_from_the_first_step"] for d in does) < 0.9995


def test_the_network_trained_by_force_has_31_points_in_pairs(by_force, found_by_force):
    """Index sum +1 and closed under x -> -x; 8 memories with the 8 codes."""
    points, modes, audit = found_by_force.points, found_by_force.modes, found_by_force.audit
    fixed = points.status == FIXED
    numbers, counts = np.unique(modes.n_unstable[fixed], return_counts=True)
    assert dict(zip(numbers.tolist(), counts.tolist(), strict=True)) == {0: 8, 1: 12, 2: 8, 3: 2, 11: 1}
    assert audit.index_sum == 1
    codes = flip_flop.sign_codes(by_force[0], np.tanh(points.hidden))
    assert len({codes[p] for p in np.flatnonzero(fixed & (modes.n_unstable == 0))}) == 8
    assert flip_flop_force.oddness(by_force[0], points)["mirror_images_not_found"] == 0


def test_the_network_trained_by_force_is_odd(by_force, found_by_force):
    """T7: -x is fixed to 1e-8 where x is; with a bias it is not. Control: a point whose image was not found."""
    network, points = by_force[0], found_by_force.points
    memories = dedupe.take(points, np.flatnonzero(found_by_force.modes.n_unstable == 0))
    rates = np.linalg.eigvals(linearization.linearize(force.flow, network.params, memories.hidden).jacobian).real
    assert rates.max() < 0
    assert flip_flop_force.oddness(network, points)["speed_of_mirror_images"] < 1e-8

    other = network._replace(params=network.params | {"b": np.full_like(network.params["b"], 0.1)})
    assert flip_flop_force.oddness(other, memories)["speed_of_mirror_images"] == pytest.approx(0.1)
    assert flip_flop_force.oddness(network, dedupe.take(memories, [0]))["mirror_images_not_found"] == 1


def test_searches_of_the_network_trained_by_force_begin_in_pairs(by_force):
    """From one memory of each pair: all 8, their 28 means of two, 6 of four on a face, 1 of all; and the origin."""
    network, _ = by_force
    half = np.linalg.pinv(network.readout[0]).T  # outputs of sign +-1 one line at a time
    kept = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]], np.float32) @ half
    starts = flip_flop_force.symmetric(network, kept[:2] + 1, kept)
    assert len(starts) == 2 * (2 + 8 + 28 + 6 + 1) + 1
    away = np.abs(starts[:, None] + starts[None]).max(-1)
    assert (away.min(1) == 0).all()
    assert not starts[-1].any()


def test_a_right_sum_does_not_end_a_search_that_misses_a_cancelling_pair(tanh_network, tanh_analysis):
    """Candidates at 25 of the 27 points, without a saddle of index 1 and one of 2: the sum is +1, yet all 27 come.

    Seed 4 of the tanh recipe was once called complete at such a set.
    """
    points, modes = tanh_analysis[0].points, tanh_analysis[0].modes
    left_out = [np.flatnonzero(modes.n_unstable == index)[0] for index in (1, 2)]
    known = np.delete(points.hidden, left_out, axis=0).astype(np.float32)
    step_fn, params, _ = tanh_network
    once = pipeline.find_fixed_points(step_fn, params, known)
    assert len(once.hidden) == 25
    assert completeness.audit(once, linearization.linearize(step_fn, params, once.hidden)).index_sum == 1

    found = pipeline.find_fixed_points(step_fn, params, known, until="complete")
    nearest = np.abs(found.hidden[None] - points.hidden[:, None]).max(-1).min(1)
    assert len(found.hidden) == 27
    assert nearest.max() < 1e-12
