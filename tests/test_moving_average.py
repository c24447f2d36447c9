"""Moving average: trials are what the task says, and the linear network that solves it exactly does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfp
from jaxfp.tasks import moving_average as task

CONFIG = task.MovingAverageConfig()
sample_batch = jax.jit(task.sample_batch, static_argnums=(1, 2))


@pytest.fixture(scope="module")
def batch():
    return jax.tree.map(np.asarray, sample_batch(jax.random.key(0), CONFIG, 500))


def test_targets_are_the_mean_of_the_last_two(batch):
    """One step at a time, from the inputs alone."""
    state = np.zeros((500, 2))
    for time in range(CONFIG.n_time):
        pulse, indicator = batch.inputs[:, time].T
        state = np.where(indicator[:, None] > 0, np.stack([pulse, state[:, 0]], 1), state)
        np.testing.assert_array_equal(batch.values[:, time], state)
        np.testing.assert_allclose(batch.targets[:, time, 0], state.mean(1), atol=1e-7)


def test_pulses_come_as_said(batch):
    """Sizes uniform in [-1, 1], gaps 5 to 30 steps, the first pulse at step 0 to 4; the age counts from an onset."""
    sizes, gaps = [], []
    for pulses, age in zip(batch.inputs, batch.age, strict=True):
        onsets = np.flatnonzero(pulses[:, 1])
        assert onsets[0] < 5
        gaps += np.diff(onsets).tolist()
        sizes += pulses[onsets, 0].tolist()
        since = np.arange(100) - onsets[np.maximum(np.searchsorted(onsets, np.arange(100), side="right") - 1, 0)]
        np.testing.assert_array_equal(age, np.where(np.arange(100) < onsets[0], -1, since))
        assert not pulses[pulses[:, 1] == 0, 0].any()
    assert min(gaps) == 5
    assert max(gaps) <= 30
    error = 5 / np.sqrt(len(sizes))
    assert np.mean(sizes) == pytest.approx(0, abs=error)
    assert np.mean(np.square(sizes)) == pytest.approx(1 / 3, abs=error)
    assert np.std(np.bincount(gaps, minlength=31)[5:20]) < 6 * np.sqrt(len(gaps) / 26)  # short ones are not cut off


def test_a_wide_pulse_lasts():
    config = task.MovingAverageConfig(width=3, min_gap=10)
    inputs = np.asarray(sample_batch(jax.random.key(1), config, 50).inputs)
    for indicator in inputs[:, :, 1]:
        up, down = np.flatnonzero(np.diff(indicator) > 0), np.flatnonzero(np.diff(indicator) < 0)
        down = down[down > up[0]]
        assert set(down - up[: len(down)]) == {3}


@pytest.mark.parametrize("n_values", [1, 2, 3])
def test_the_shift_register_solves_the_task(n_values):
    """Loss 0; the identity in silence and the shift during a pulse, of which the input is the first unit vector."""
    config = task.MovingAverageConfig(n_values=n_values)
    trials = sample_batch(jax.random.key(2), config, 20)
    states = jaxfp.simulate(task.shift_register, None, jnp.zeros(n_values), trials.inputs)
    assert task.loss(jnp.mean(states, axis=2, keepdims=True), trials.targets) < 1e-14
    somewhere = np.linspace(-1.0, 1.0, n_values)
    silent = jaxfp.linearize(task.shift_register, None, somewhere, np.zeros(2))
    pulsed = jaxfp.linearize(task.shift_register, None, somewhere, np.array([0.3, 1.0]))
    np.testing.assert_array_equal(silent.jacobian, np.eye(n_values))
    np.testing.assert_array_equal(pulsed.jacobian, np.eye(n_values, k=-1))
    np.testing.assert_array_equal(pulsed.input_jacobian[:, 0], np.eye(n_values)[0])


def test_every_state_of_the_shift_register_is_a_fixed_point_in_silence():
    """A plane attractor: what is found is fixed, not isolated, and where the search began."""
    starts = np.random.default_rng(0).uniform(-1, 1, (5, 2))
    points = jaxfp.find_fixed_points(task.shift_register, None, starts, np.zeros(2))
    assert (points.status == jaxfp.FIXED).all()
    assert not points.isolated.any()
    np.testing.assert_array_equal(np.sort(points.hidden[:, 0]), np.sort(starts[:, 0]))


def test_loss_is_the_mean_squared_error(batch):
    targets = jnp.asarray(batch.targets)
    assert task.loss(targets, targets) == 0.0
    assert task.loss(targets + 2.0, targets) == pytest.approx(4.0, rel=1e-6)
    with pytest.raises(ValueError, match="one shape"):
        task.loss(targets, targets[0])


@pytest.mark.parametrize("wrong", [{"n_values": 0}, {"n_time": 0}, {"width": 5}, {"min_gap": 40}, {"width": 0}])
def test_a_config_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="got MovingAverageConfig"):
        task.MovingAverageConfig(**wrong)
    with pytest.raises(ValueError, match="n_trials must be at least 1"):
        task.sample_batch(jax.random.key(0), CONFIG, 0)
