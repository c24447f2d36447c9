"""What a wave finds does not depend on what is shared, in which pieces, in which order or where it is computed."""

import functools
import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import systems

import jaxfp
from jaxfp import FIXED, io
from jaxfp.cli import flip_flop
from jaxfp.search import engine, inside, wave

WEIGHTS = systems.suite_weights(4)
CLOUD = np.random.default_rng(0).uniform(-1, 1, (256, 4)).astype(np.float32)
LM = jaxfp.levenberg_marquardt()


def assert_same_set(points, reference, n_elsewhere=0):
    """The same points, to 1e-9, of the same kinds; at most n_elsewhere lanes ended at another of them.

    Where the border of two basins lies between two roundings of one candidate, another program may take it either way.
    """
    distance = np.linalg.norm(points.hidden[:, None] - reference.hidden[None], axis=2)
    other_input = 0 if points.inputs is None else (points.inputs[:, None] != reference.inputs[None]).any(2) * np.inf
    distance = np.where(np.isfinite(other_input), distance, np.inf) if points.inputs is not None else distance
    row = distance.argmin(1)
    assert len(points.hidden) == len(reference.hidden)
    assert sorted(row) == list(range(len(row)))
    assert distance[np.arange(len(row)), row].max() < 1e-9
    np.testing.assert_array_equal(points.status, reference.status[row])
    np.testing.assert_array_equal(points.isolated, reference.isolated[row])
    assert points.report.counts == reference.report.counts
    assert np.abs(points.n_hits - reference.n_hits[row]).sum() <= 2 * n_elsewhere
    assert points.n_hits.sum() == points.report.counts["FIXED"] + points.report.counts["SLOW"]


@pytest.fixture(scope="module")
def reference():
    """Nine points of the analytic suite, by the stages of the default search."""
    points = jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD)
    assert len(points.hidden) == 9
    assert points.n_hits.sum() == 256
    return points


def test_another_solver_finds_the_same_points(reference):
    """Plain Levenberg-Marquardt finds the same points, though a lane between two basins may go either way."""
    points = jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD, solver=LM)
    distance = np.linalg.norm(points.hidden[:, None] - reference.hidden[None], axis=2)
    assert sorted(distance.argmin(1)) == list(range(9))
    assert distance.min(1).max() < 1e-9
    assert points.report.counts == reference.report.counts


@pytest.mark.parametrize("solver", [None, LM])
def test_no_lane_needs_a_zero_of_another(solver, monkeypatch):
    """Where no lane may share a zero, each is settled by itself, and ends where it ended before: not one elsewhere."""
    shared = jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD, solver=solver)

    def none_belongs(known, hidden, *others):
        return np.full(len(hidden), -1)

    monkeypatch.setattr(wave.zeros, "belongs_to", none_belongs)
    assert_same_set(jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD, solver=solver), shared)


@pytest.mark.parametrize("chunk_size", [1, 7, 128])
def test_chunks_change_nothing(reference, chunk_size):
    """One lane in flight, seven, or all: the same set, the same counts, hits equal up to basin borders."""
    points = jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD, chunk_size=chunk_size)
    assert_same_set(points, reference, 0 if chunk_size == 128 else 2)


def test_an_accelerators_rounds_and_widths_change_nothing(reference, monkeypatch):
    """Lanes that are asked once in a stage, and all in one program, end where they do otherwise."""
    monkeypatch.setattr(engine, "_on_accelerator", lambda: True)
    assert engine.lanes_together(16 * 4, 4) == 4096
    assert_same_set(jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD), reference)


def test_order_and_blocks_change_nothing(reference, monkeypatch):
    """Candidates in another order, and shared out 64 at a time, lead to the same set and the same hits."""
    turn = np.random.default_rng(1).permutation(256)
    assert_same_set(jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD[turn]), reference, 2)
    monkeypatch.setattr(wave, "_BLOCK", 64)
    assert_same_set(jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD), reference, 2)
    assert_same_set(jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD[turn]), reference, 2)


def test_slow_points_are_shared_as_zeros_are(monkeypatch):
    """Lanes at a minimum of q above zero are one SLOW point, in pieces and in another order, too."""
    starts = np.random.default_rng(2).uniform(-0.4, 0.4, (64, 2))
    search = functools.partial(jaxfp.find_fixed_points, systems.quartic, np.array([0.25]), kind="flow", chunk_size=16)
    points = search(starts)
    assert points.report.counts["SLOW"] == points.n_hits[0] == 64
    np.testing.assert_allclose(points.hidden, np.zeros((1, 2)), atol=1e-8)
    again = search(starts[::-1])
    monkeypatch.setattr(wave, "_BLOCK", 16)
    for other in (again, search(starts)):
        np.testing.assert_allclose(other.hidden, points.hidden, atol=1e-8)
        np.testing.assert_array_equal(other.n_hits, points.n_hits)


def test_candidates_times_inputs_in_one_call(monkeypatch):
    """Sixteen candidates at each of four inputs in one call equal four calls, input by input."""
    params = {"W": 1.5 * np.eye(2), "B": np.array([[1.0], [0.0]])}
    starts = np.random.default_rng(3).uniform(-1, 1, (16, 2)).astype(np.float32)
    drives = np.array([[0.0], [0.05], [0.1], [0.6]])
    shuffle = np.random.default_rng(4).permutation(64)
    together = jaxfp.find_fixed_points(
        systems.driven, params, np.tile(starts, (4, 1))[shuffle], np.repeat(drives, 16, axis=0)[shuffle]
    )
    n_points = []
    for drive in drives:
        apart = jaxfp.find_fixed_points(systems.driven, params, starts, drive)
        here = jaxfp.take(together, (together.inputs == drive).all(1))
        distance = np.linalg.norm(here.hidden[:, None] - apart.hidden[None], axis=2)
        row = distance.argmin(1)
        assert sorted(row) == list(range(len(apart.hidden)))
        assert distance[np.arange(len(row)), row].max() < 1e-9
        np.testing.assert_array_equal(here.n_hits, apart.n_hits[row])
        np.testing.assert_array_equal(here.status, apart.status[row])
        n_points.append(int((apart.status == FIXED).sum()))
    assert n_points[0] > n_points[3]  # the inputs differ in what they hold
    assert together.n_hits.sum() == 64


# The packaged networks.


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_no_lane_is_lost_that_plain_levenberg_marquardt_resolves(cell):
    """Of 256 candidates no more are unresolved than by dense LM, and what LM finds more than now and then is there.

    Rarer points are a matter of which way a lane between two basins goes.
    """
    network = flip_flop.as_network(cell, io.load_packaged(f"flip_flop_{cell}")[0])
    inputs = jax.random.bernoulli(jax.random.key(0), 0.1, (32, 64, 3)).astype(np.float32)
    states = flip_flop._states(network, inputs)
    starts = np.asarray(jaxfp.sample_candidates(jax.random.key(7), states, 256, 0.5))
    staged, plain = (jaxfp.find_fixed_points(network.step_fn, network.params, starts, solver=s) for s in (None, LM))
    resolved = [p.report.counts["FIXED"] + p.report.counts["SLOW"] for p in (staged, plain)]
    assert resolved[0] >= resolved[1] > 128
    assert staged.report.counts["FIXED"] >= plain.report.counts["FIXED"]
    distance = np.linalg.norm(plain.hidden[:, None] - staged.hidden[None], axis=2).min(1)
    often = (plain.status == FIXED) & (plain.n_hits > 4)
    assert often.sum() >= 5
    assert distance[often].max() < 1e-9


DEVICES = """
import json, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import jaxfp
from jaxfp import io
from jaxfp.cli import flip_flop
assert len(jax.devices()) == 8
network = flip_flop.as_network("tanh", io.load_packaged("flip_flop_tanh")[0])
lanes = NamedSharding(Mesh(np.array(jax.devices()), ("lanes",)), PartitionSpec("lanes"))
p = jaxfp.find_fixed_points(network.step_fn, network.params, np.load(sys.argv[1]), sharding=lanes)
found = {"hidden": p.hidden.tolist(), "n_hits": p.n_hits.tolist(), "status": p.status.tolist()}
print(json.dumps({**found, "counts": p.report.counts}))
"""


def test_the_number_of_devices_changes_nothing(tmp_path, tanh_network, tanh_analysis):
    """On 8 devices the packaged network has the points, statuses and counts it has on 1; hits differ by border lanes.

    Each device multiplies an eighth of the lanes, by a program of another shape: where rounding decides between two
    basins a lane may go to the other. No more than 1 in 100 do.
    """
    starts = np.asarray(jaxfp.sample_candidates(jax.random.key(5), tanh_analysis[2], 256, 0.5))
    np.save(tmp_path / "starts.npy", starts)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, "-c", DEVICES, str(tmp_path / "starts.npy")]
    said = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    eight = json.loads(said.stdout)
    one = jaxfp.find_fixed_points(tanh_network.step_fn, tanh_network.params, starts)
    distance = np.linalg.norm(one.hidden[:, None] - np.array(eight["hidden"])[None], axis=2)
    row = distance.argmin(1)
    assert sorted(row) == list(range(len(eight["hidden"])))
    assert distance[np.arange(len(row)), row].max() < 1e-9
    assert len(row) >= 8
    np.testing.assert_array_equal(one.status, np.array(eight["status"])[row])
    assert one.report.counts == eight["counts"]
    assert np.abs(one.n_hits - np.array(eight["n_hits"])[row]).sum() <= 2 * 0.01 * 256


MEMORY = """
import jax.numpy as jnp, numpy as np
import jaxfp

def peak():  # not ru_maxrss, which begins with what the parent process held
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

def alone(params, hidden, inputs):
    return jnp.tanh(params * hidden)  # 3^n zeros for params > 1: no two candidates share one

starts = np.random.default_rng(0).uniform(-1, 1, (20_000, 128)).astype(np.float32)
jaxfp.find_fixed_points(alone, 0.5, starts[:150])  # programs and arenas
for n_candidates, slope in ((20_000, 0.5), (1_000, 1.5)):
    before = peak()
    points = jaxfp.find_fixed_points(alone, slope, starts[:n_candidates])
    print(n_candidates, len(points.hidden), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak memory")
def test_nothing_holds_a_jacobian_for_each_candidate():
    """Whether K candidates end in one point or in K, what is held grows with K n_hidden, not with K n_hidden^2."""
    said = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    measured = [[int(word) for word in line.split()] for line in said.splitlines()]
    assert [m[:2] for m in measured] == [[20_000, 1], [1_000, 1_000]]
    for n_candidates, _, kib in measured:
        state, jacobian = 128 / 128, 128**2 / 128  # KiB in float64
        limit = 6 * n_candidates * state + 48 * 1024  # a handful of copies, and 48 MiB for the allocator
        assert kib < limit < n_candidates * jacobian / 2


def test_no_lane_left_at_any_input_lies_outside_no_box():
    """Where known zeros take every lane of a wave, nothing is asked about a box that depends on the inputs."""
    nothing = inside.outside(lambda u: (-u, u), np.zeros((0, 6)), np.zeros((0, 1)), np.zeros(0))
    assert nothing.shape == (0,)


def test_what_the_first_stage_leads_astray_begins_again(monkeypatch):
    """A first stage that throws all lanes far out changes nothing: the second begins at the candidates, in the box."""
    newton = wave.newton_krylov(24)
    second = wave._Stage(newton, 24, 26, 32, 8, for_zeros=True, afresh=True)
    thrown = wave.Solver(newton.init, lambda residual_fn, state: state._replace(hidden=state.hidden + 30.0))
    first = second._replace(solver=thrown, max_steps=1, afresh=False)

    def search(*stages):
        monkeypatch.setattr(wave, "_stages", lambda problem, n_hidden: list(stages))
        return jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, 3 * CLOUD)

    alone = search(second)
    assert_same_set(search(first, second), alone)
    led_astray = search(first, second._replace(afresh=False))
    assert len(led_astray.hidden) < len(alone.hidden)


def test_what_all_stages_lead_out_of_the_box_begins_once_more(monkeypatch):
    """Lanes that stop far outside, as if at minima of q, are given up where no box is known, and found where one is."""
    newton = wave.newton_krylov(24)
    second = wave._Stage(newton, 24, 26, 32, 8, for_zeros=True, afresh=True)

    def throw(residual_fn, state):
        return state._replace(hidden=state.hidden + 30.0, q=state.q + 1.0, done=np.bool_(True))

    lost = second._replace(solver=wave.Solver(newton.init, throw), max_steps=1, for_zeros=False, afresh=False)

    def search(*stages):
        monkeypatch.setattr(wave, "_stages", lambda problem, n_hidden: list(stages))
        return jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, 3 * CLOUD)

    assert search(lost).report.counts["REJECTED"] == len(CLOUD)
    assert search(lost, second).report.counts["REJECTED"] == len(CLOUD)  # they stopped: no later stage is for them
    assert_same_set(search(lost, second._replace(astray=True)), search(second))


def test_dense_matrices_are_for_small_networks():
    """A stage that forms Jacobians is the last resort, and none where one would not fit beside the others."""
    problem = types.SimpleNamespace(solver=None)

    def dense(n_hidden):
        return [stage.solver.step is wave.levenberg_marquardt().step for stage in wave._stages(problem, n_hidden)]

    assert dense(64) == [False, True]
    assert dense(512) == [False, False, False, True, True]
    assert not any(dense(513))
