"""Sine generator: inputs, targets and scores are what the task says, and frequencies are read off right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfp.tasks import sine_generator as task

CONFIG = task.SineGeneratorConfig()


def test_the_targets_are_the_sines_of_their_inputs():
    batch = jax.jit(task.sample_batch, static_argnums=(1, 2))(jax.random.key(0), CONFIG, 51)
    inputs, omega = task.conditions(CONFIG)
    np.testing.assert_allclose(inputs[:, 0], 0.25 + np.arange(51) / 51, rtol=1e-6)
    np.testing.assert_allclose(omega, np.linspace(0.1, 0.6, 51), rtol=1e-6)
    np.testing.assert_allclose(np.sort(batch.omega), omega, rtol=1e-6)  # each condition once
    time = 0.5 * np.arange(1, 253)
    wanted = np.sin(np.outer(np.asarray(batch.omega, np.float64), time))
    np.testing.assert_allclose(batch.targets[..., 0], wanted, atol=1e-4)
    where = np.abs(np.asarray(batch.omega)[:, None] - np.asarray(omega)).argmin(1)
    np.testing.assert_allclose(batch.inputs, np.broadcast_to(inputs[where][:, None], (51, 252, 1)), rtol=1e-6)


def test_every_condition_comes_as_often_as_any_other():
    config = task.SineGeneratorConfig(n_conditions=4, n_time=10)
    omega = np.asarray(task.sample_batch(jax.random.key(0), config, 10).omega)
    assert sorted(np.unique(omega, return_counts=True)[1]) == [2, 2, 3, 3]


@pytest.mark.parametrize("omega", [0.1, 0.33, 0.6])
@pytest.mark.parametrize("phase", [0.0, 2.0])
def test_the_frequency_of_a_sine_is_its_own(omega, phase):
    """Two crossings, each off by less than (omega dt)^3 / 30 radians, at least 9 cycles apart."""
    outputs = jnp.sin(omega * 0.5 * jnp.arange(1260.0) + phase)
    assert abs(task.frequency(outputs, 0.5) / omega - 1) < (omega / 2) ** 3 / 15 / (2 * np.pi * 9) + 2e-6


def test_silence_has_no_frequency():
    assert np.isnan(task.frequency(jnp.ones((2, 10)), 0.5)).all()


def test_loss_scores_what_is_after_the_start_and_weighs_slow_conditions():
    config = task.SineGeneratorConfig(n_conditions=2, n_time=20)
    batch = task.sample_batch(jax.random.key(0), config, 2)
    score = lambda outputs, **options: float(task.loss(outputs, batch.targets, batch.omega, config, **options))  # noqa: E731
    early = jnp.arange(20)[None, :, None] < 4  # t = 0.5, ..., 2.0
    assert score(jnp.where(early, 9.0, batch.targets)) == 0.0
    assert score(batch.targets + 1.0) == pytest.approx(1.0)
    slow = (batch.omega < 0.2)[:, None, None]
    share = 0.1**-0.5 / (0.1**-0.5 + 0.6**-0.5)
    assert score(batch.targets + jnp.where(slow, 1.0, 0.0), slow_weight=0.5) == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"n_conditions": 1}, {"n_time": 0}, {"dt": 0.0}, {"settle": 126.0}, {"omega_min": 0.0}]
)
def test_a_config_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="got SineGeneratorConfig"):
        task.SineGeneratorConfig(**wrong)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="n_trials must be at least 1, got 0"):
        task.sample_batch(jax.random.key(0), CONFIG, 0)
    with pytest.raises(ValueError, match="one shape"):
        task.loss(jnp.zeros((1, 4, 1)), jnp.zeros((1, 5, 1)), jnp.ones(1), CONFIG)
