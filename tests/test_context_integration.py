"""Context-dependent integration: evidence, context and targets are what the task says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfp.tasks import context_integration

CONFIG = context_integration.ContextIntegrationConfig()
N_TRIALS = 4000


@functools.cache
def draw(dtype="float32"):
    with jax.enable_x64(dtype == "float64"):
        sample = jax.jit(context_integration.sample_batch, static_argnums=(1, 2))
        return jax.tree.map(np.asarray, sample(jax.random.key(0), CONFIG, N_TRIALS))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_target_is_the_sum_of_the_evidence_that_the_context_names(dtype):
    """Sums of 25 numbers below 1: 25 roundings."""
    batch = draw(dtype)
    assert batch.inputs.dtype == batch.targets.dtype == dtype
    chosen = np.where(batch.context[:, None] == 0, batch.inputs[..., 0], batch.inputs[..., 1])
    np.testing.assert_allclose(batch.targets[..., 0], np.cumsum(chosen, 1), atol=25 * np.finfo(dtype).eps)


def test_the_context_is_one_line_all_trial_long_and_either_with_chance_a_half():
    batch = draw()
    lines = batch.inputs[..., context_integration.CONTEXT_LINES]
    np.testing.assert_array_equal(lines, np.broadcast_to(np.eye(2)[batch.context][:, None], lines.shape))
    assert abs(batch.context.mean() - 0.5) < 5 * 0.5 / np.sqrt(N_TRIALS)


def test_evidence_has_the_bias_and_the_noise_asked_for():
    """Trial means have variance 0.02^2 + 0.125^2 / 25, steps within a trial 0.125^2: five standard errors."""
    evidence = draw().inputs[..., :2].astype(float)
    means = evidence.mean(1)
    variance = 0.02**2 + 0.125**2 / 25
    assert np.abs(means.mean(0) + 0.01).max() < 5 * np.sqrt(variance / N_TRIALS)
    assert np.abs(means.var(0) / variance - 1).max() < 5 * np.sqrt(2 / N_TRIALS)
    within = (evidence - means[:, None]).var(1).mean(0) * 25 / 24
    assert np.abs(within / 0.125**2 - 1).max() < 5 * np.sqrt(2 / (24 * N_TRIALS))
    assert abs(np.corrcoef(means.T)[0, 1]) < 5 / np.sqrt(N_TRIALS)  # channels are apart


def test_mean_square_of_the_targets_has_its_closed_form():
    """E y_t^2 = 0.125^2 t + (0.02^2 + 0.01^2) t^2, 0.31 on average; y is correlated in time: 2 % of it."""
    time = np.arange(1, 26)
    wanted = np.mean(0.125**2 * time + (0.02**2 + 0.01**2) * time**2)
    targets = jnp.asarray(draw().targets)
    said = float(context_integration.loss(jnp.zeros_like(targets), targets))
    assert wanted == pytest.approx(0.3136, abs=1e-4)
    assert said == pytest.approx(wanted, rel=5 * np.sqrt(2 / N_TRIALS))


def test_r_squared_is_one_minus_the_error_over_the_variance():
    targets = jnp.asarray(draw().targets)
    assert context_integration.r_squared(targets, targets) == 1.0
    mean = jnp.broadcast_to(targets.mean(), targets.shape)
    np.testing.assert_allclose(context_integration.r_squared(mean, targets), 0.0, atol=1e-6)
    np.testing.assert_allclose(context_integration.r_squared((targets + mean) / 2, targets), 0.75, rtol=1e-5)


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="n_time must be at least 1"):
        context_integration.ContextIntegrationConfig(n_time=0)
    with pytest.raises(ValueError, match="n_trials must be at least 1, got 0"):
        context_integration.sample_batch(jax.random.key(0), CONFIG, 0)
    for name in ("bias_std", "noise_std"):
        with pytest.raises(ValueError, match=f"{name} must be 0 or more, got -1"):
            context_integration.sample_batch(jax.random.key(0), CONFIG, 1, **{name: -1})
    for score in (context_integration.loss, context_integration.r_squared):
        with pytest.raises(ValueError, match=r"one shape, got \(1, 9, 1\) and \(9, 1\)"):
            score(jnp.zeros((1, 9, 1)), jnp.zeros((9, 1)))
