"""Flip-flop: pulses, targets and scores are what the task says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfp.tasks import flip_flop

CONFIG = flip_flop.FlipFlopConfig(n_bits=3, n_time=40)
N_TRIALS = 1000
sample_batch = jax.jit(flip_flop.sample_batch, static_argnums=(1, 2))


def draw(seed, config=CONFIG, pulse_probability=0.1, sparse_fraction=0.0, sparse_keep=0.15):
    """N_TRIALS trials, with every keyword given: one compilation for each config."""
    chances = {"pulse_probability": pulse_probability, "sparse_fraction": sparse_fraction, "sparse_keep": sparse_keep}
    return sample_batch(jax.random.key(seed), config, N_TRIALS, **chances)


def remember(inputs):
    """The last pulse on each line, one step at a time."""
    targets = np.zeros_like(inputs)
    memory = np.zeros_like(inputs[:, 0])
    for time in range(inputs.shape[1]):
        memory = np.where(inputs[:, time] == 0, memory, inputs[:, time])
        targets[:, time] = memory
    return targets


@pytest.mark.parametrize("seed", range(3))
def test_targets_are_the_sign_of_the_last_pulse(seed):
    batch = draw(seed, pulse_probability=0.2, sparse_fraction=0.5)
    assert batch.inputs.shape == batch.targets.shape == (N_TRIALS, 40, 3)
    np.testing.assert_array_equal(batch.targets, remember(np.asarray(batch.inputs)))


def test_every_line_is_pulsed_first_so_that_every_target_is_a_sign():
    batch = draw(0, pulse_probability=0.0)
    assert set(np.unique(batch.inputs[:, 0])) == {-1.0, 1.0}
    assert not np.any(batch.inputs[:, 1:])
    np.testing.assert_array_equal(batch.targets, np.broadcast_to(batch.inputs[:, :1], batch.targets.shape))


def test_pulses_come_as_often_as_asked_with_either_sign_and_lines_apart():
    inputs = np.asarray(draw(1, pulse_probability=0.1).inputs[:, 1:])
    n_draws = inputs[..., 0].size
    error = 5 / np.sqrt(n_draws)  # five standard errors of a mean of numbers in [-1, 1] are below this
    np.testing.assert_allclose(np.abs(inputs).mean((0, 1)), 0.1, atol=error)
    np.testing.assert_allclose(inputs.mean((0, 1)), 0.0, atol=error)
    pulsed = np.abs(inputs).reshape(-1, 3)
    np.testing.assert_allclose(pulsed.T @ pulsed / n_draws - 0.1**2, 0.09 * np.eye(3), atol=error)


def test_a_sparse_trial_keeps_the_asked_share_of_its_pulses():
    inputs = draw(2, pulse_probability=0.5, sparse_fraction=0.25, sparse_keep=0.1).inputs
    share = np.abs(np.asarray(inputs[:, 1:])).mean((1, 2))  # 117 draws a trial: 0.5 or 0.05, five deviations apart
    sparse = share < 0.2
    assert abs(sparse.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / N_TRIALS)
    assert abs(share[sparse].mean() - 0.05) < 5 * np.sqrt(0.05 * 0.95 / (117 * sparse.sum()))
    assert abs(share[~sparse].mean() - 0.5) < 5 * np.sqrt(0.5 * 0.5 / (117 * (~sparse).sum()))


def test_twice_the_spacing_makes_every_gap_even_and_a_hold_is_silent():
    config = flip_flop.FlipFlopConfig(n_time=100, spacing=2, n_hold=30)
    inputs = np.asarray(draw(3, config, pulse_probability=0.3).inputs)
    assert not np.any(inputs[:, 1::2])
    assert not np.any(inputs[:, 70:])
    # Even steps 2 to 68: as many pulses as ever, at twice the distance.
    assert abs(np.abs(inputs[:, 2:70:2]).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / (N_TRIALS * 34 * 3))


def test_new_chances_compile_nothing_new():
    traces = []

    def counted(key, config, chance):
        traces.append(config)
        return flip_flop.sample_batch(key, config, 4, pulse_probability=chance, sparse_fraction=chance)

    counted_draw = jax.jit(counted, static_argnums=1)
    for chance in (0.1, 0.2, 0.3):
        counted_draw(jax.random.key(0), flip_flop.FlipFlopConfig(n_time=10), chance)
    assert len(traces) == 1


def test_the_same_key_draws_the_same_trials_and_another_key_draws_others():
    first, again, other = [draw(seed).inputs for seed in (0, 0, 1)]
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_batches_are_of_the_default_float_type():
    with jax.enable_x64(True):
        batch = draw(5, flip_flop.FlipFlopConfig(n_time=10))
    assert batch.inputs.dtype == batch.targets.dtype == np.float64
    np.testing.assert_array_equal(batch.targets, remember(np.asarray(batch.inputs)))


def test_loss_is_the_mean_squared_error():
    targets = draw(4).targets
    assert flip_flop.loss(targets, targets) == 0.0
    assert flip_flop.loss(jnp.zeros_like(targets), targets) == 1.0
    assert flip_flop.loss(-targets, targets) == 4.0


def test_sign_accuracy_counts_wrong_signs_but_not_lines_that_store_nothing_yet():
    targets = jnp.array([[0.0, 1.0], [0.0, -1.0], [1.0, -1.0]])
    assert flip_flop.sign_accuracy(0.1 * targets, targets) == 1.0
    assert flip_flop.sign_accuracy(jnp.array([[-5.0, 1.0], [5.0, 1.0], [1.0, -1.0]]), targets) == 0.75
    assert flip_flop.sign_accuracy(jnp.zeros_like(targets), targets) == 0.0
    assert flip_flop.sign_accuracy(jnp.full_like(targets, jnp.nan), targets) == 0.0


@pytest.mark.parametrize("n_warm", [0, 10])
def test_scored_steps_are_silent_and_come_after_a_pulse_on_every_line(n_warm):
    """One step at a time; pulses before `n_warm` do not count."""
    inputs = np.asarray(
        jax.vmap(lambda key: flip_flop.sample_stream(key, 3, 1000).inputs)(jax.random.split(jax.random.key(6), 4))
    )
    pulsed, wanted = np.zeros((4, 3), bool), np.zeros((4, 1000), bool)
    for time in range(1000):
        pulsed |= (inputs[:, time] != 0) & (time >= n_warm)
        wanted[:, time] = pulsed.all(1) & (inputs[:, time] == 0).all(1)
    assert 0.1 < wanted.mean() < 0.9
    np.testing.assert_array_equal(flip_flop.scored_steps(jnp.asarray(inputs), n_warm), wanted)


@pytest.mark.parametrize("wrong", [{"n_bits": 0}, {"n_time": 0}, {"spacing": 0}, {"n_hold": -1}, {"n_hold": 50}])
def test_a_config_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must be at least .* got FlipFlopConfig"):
        flip_flop.FlipFlopConfig(**wrong)


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="n_trials must be at least 1, got 0"):
        flip_flop.sample_batch(jax.random.key(0), CONFIG, 0)
    for name in ("pulse_probability", "sparse_fraction", "sparse_keep"):
        with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], got 10"):
            flip_flop.sample_batch(jax.random.key(0), CONFIG, 1, **{name: 10})
    for score in (flip_flop.loss, flip_flop.sign_accuracy):
        with pytest.raises(ValueError, match=r"one shape, got \(1, 4, 3\) and \(4, 3\)"):
            score(jnp.zeros((1, 4, 3)), jnp.zeros((4, 3)))
