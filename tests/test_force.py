"""FORCE: recursive least squares is least squares, and a network trained by it holds its memories, in +- pairs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfp
from jaxfp.models import force
from jaxfp.tasks import flip_flop
from jaxfp.types import FIXED

CONFIG = force.ForceConfig(n_hidden=100, n_inputs=2, n_outputs=2)
CODES = np.array(list(itertools.product((-1.0, 1.0), repeat=2)))
train_force = jax.jit(force.train_force, static_argnums=1)
simulate = jax.jit(jaxfp.simulate, static_argnums=0, static_argnames="n_time")


@pytest.fixture(scope="module")
def trained():
    """A 2-bit memory of 100 units: (network, step_fn, params, a state for each code after 1,000 silent steps)."""
    run = flip_flop.sample_stream(jax.random.key(0), 2, 20_000)
    result = train_force(jax.random.key(1), CONFIG, run.inputs, run.targets)
    step_fn, params = force.closed_loop(result.network, CONFIG.alpha)
    narrow = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
    fresh = flip_flop.sample_stream(jax.random.key(2), 2, 5000, gaps=(60, 180))
    states = np.asarray(simulate(step_fn, narrow, result.hidden, fresh.inputs))
    quiet = ~np.asarray(fresh.inputs).any(1)
    stored = [states[quiet & (np.asarray(fresh.targets) == code).all(1)][-1] for code in CODES]
    return result.network, step_fn, params, np.asarray(simulate(step_fn, narrow, jnp.array(stored), n_time=1000))


def test_it_holds_its_memories(trained):
    """Every sign of the outputs, at each of 1,000 silent steps, from each of the four memories."""
    network, _, _, kept = trained
    outputs = np.tanh(kept) @ np.asarray(network.w_out).T
    assert (outputs * CODES[:, None] > 0).all()


def test_memories_are_stable_points_in_pairs(trained):
    """T7: without biases the step is odd, so that -x is a fixed point where x is; as a map and as a flow."""
    network, step_fn, params, kept = trained
    points = jaxfp.find_fixed_points(step_fn, params, kept[:, -1].astype(np.float64))
    assert (points.status == FIXED).all()
    assert len(points.hidden) == 4
    assert np.abs(jaxfp.residual(step_fn, params, -points.hidden)).max() < 1e-8
    said = np.sign(np.tanh(points.hidden) @ np.asarray(network.w_out).T)
    assert {tuple(code) for code in said} == {tuple(code) for code in CODES}
    assert np.abs(jaxfp.residual(force.flow, params, points.hidden, kind="flow")).max() < 1e-12

    as_map = jaxfp.spectrum(jaxfp.linearize(step_fn, params, points.hidden).jacobian)
    as_flow = jaxfp.spectrum(jaxfp.linearize(force.flow, params, points.hidden).jacobian, kind="flow")
    assert set(as_map.verdict) == set(as_flow.verdict) == {"stable"}
    moved = 1 + CONFIG.alpha * as_flow.eigenvalues
    for here, there in zip(moved, as_map.eigenvalues, strict=True):
        np.testing.assert_allclose(np.sort_complex(here.round(9)), np.sort_complex(there.round(9)), atol=1e-8)


def test_the_flow_is_searched(trained):
    """The same memories, searched for as zeros of the vector field; and a box that it points into is proved."""
    _, _, params, kept = trained
    points = jaxfp.find_fixed_points(force.flow, params, kept[:, -1].astype(np.float64), kind="flow")
    assert (points.status == FIXED).all()
    assert len(points.hidden) == 4


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_recursive_least_squares_is_least_squares(alpha):
    """Without feedback the rates do not depend on W, and W is the ridge regression of the targets on them."""
    config = force.ForceConfig(n_hidden=12, n_inputs=1, n_outputs=2, alpha=alpha, update_every=3, ridge=0.5)
    key = jax.random.key(3)
    inputs, targets = jax.random.normal(key, (60, 1)), jax.random.normal(jax.random.key(4), (60, 2))
    with jax.enable_x64(True):
        network = force.init_network(key, config)
        network = network._replace(w_feedback=jnp.zeros_like(network.w_feedback))
        result = train_force(key, config, inputs, targets, network=network)
        step_fn, params = force.closed_loop(network, alpha)
        hidden = jax.random.normal(jax.random.split(key)[1], (12,), jnp.float64) / 2
        rates = np.tanh(jaxfp.simulate(step_fn, params, hidden, jnp.asarray(inputs, jnp.float64)))[2::3]
    wanted = np.asarray(targets, np.float64)[2::3]
    ridge = np.linalg.solve(rates.T @ rates + 0.5 * np.eye(12), rates.T @ wanted).T
    np.testing.assert_allclose(result.network.w_out, ridge, atol=1e-9)
    np.testing.assert_allclose(result.inverse, np.linalg.inv(rates.T @ rates + 0.5 * np.eye(12)), atol=1e-9)


def test_feedback_folds_into_the_recurrent_weights(trained):
    """One step with z = W r fed back is one step of the closed loop."""
    network, step_fn, params, kept = trained
    hidden, pulse = kept[0, -1], jnp.array([1.0, 0.0])
    stepped = force._step(network, jnp.asarray(hidden), pulse, CONFIG.alpha)
    np.testing.assert_allclose(stepped, step_fn(params, hidden, pulse), atol=1e-5)


def test_a_stream_is_what_it_says():
    """One pulse at a time, of the width asked for, gaps within the range, targets the last sign on each line."""
    run = flip_flop.sample_stream(jax.random.key(5), 3, 4000, width=4, gaps=(10, 13))
    inputs, targets = np.asarray(run.inputs), np.asarray(run.targets)
    assert set(np.abs(inputs).sum(1)) == {0.0, 1.0}
    onsets = np.flatnonzero(np.diff(np.abs(inputs).sum(1), prepend=0.0) == 1)
    assert onsets[0] == 0
    assert set(np.diff(onsets)) == {14, 15, 16}
    assert np.abs(inputs).sum() == 4 * len(onsets) - max(0, 4 - (4000 - onsets[-1]))
    memory, remembered = np.zeros(3), []
    for now in inputs:
        memory = np.where(now == 0, memory, now)
        remembered.append(memory)
    np.testing.assert_array_equal(targets, remembered)


@pytest.mark.parametrize("wrong", [{"n_hidden": 0}, {"alpha": 0.0}, {"alpha": 1.5}, {"ridge": 0.0}, {"gain": -1.0}])
def test_a_config_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="got ForceConfig"):
        force.ForceConfig(**wrong)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"inputs must be \(n_time, 2\) with n_time a multiple of 2, got \(3, 2\)"):
        force.train_force(jax.random.key(0), CONFIG, jnp.zeros((3, 2)), jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"targets must be \(n_time, 2\)"):
        force.train_force(jax.random.key(0), CONFIG, jnp.zeros((4, 2)), jnp.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"gaps\[0\] < gaps\[1\]"):
        flip_flop.sample_stream(jax.random.key(0), 3, 10, gaps=(5, 5))
