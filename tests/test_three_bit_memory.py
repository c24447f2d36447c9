"""3-bit memory in the encoding of Smith et al.: draws, lines, targets and scores are what the task says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfp.tasks import three_bit_memory

CONFIG = three_bit_memory.ThreeBitMemoryConfig()
N_TRIALS = 2000
sample_batch = jax.jit(three_bit_memory.sample_batch, static_argnames=("config", "n_trials"))


def draw(seed, config=CONFIG, sparse_fraction=0.0, sparse_keep=0.15):
    """N_TRIALS trials, with every keyword given: one compilation for each config."""
    batch = sample_batch(
        jax.random.key(seed), config, N_TRIALS, sparse_fraction=sparse_fraction, sparse_keep=sparse_keep
    )
    return jax.tree.map(np.asarray, batch)


def pulses_of(inputs):
    """-1, 0 or +1 of each channel."""
    return inputs[..., 1::2] - inputs[..., ::2]


def test_each_channel_has_two_lines_of_which_one_at_most_is_up():
    inputs = draw(0).inputs
    assert inputs.shape == (N_TRIALS, 25, 6)
    assert set(np.unique(inputs)) == {0.0, 1.0}
    assert (inputs[..., ::2] + inputs[..., 1::2]).max() == 1
    assert three_bit_memory.encode(jnp.array([[-1, 1]])).tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_pulses_are_uniform_in_every_step_the_first_included():
    """Chance 1/3 each; channels and steps independent: five standard errors of a mean."""
    pulses = pulses_of(draw(1).inputs)
    for value in (-1, 0, 1):
        share = (pulses == value).mean(0)
        assert np.abs(share - 1 / 3).max() < 5 * np.sqrt(2 / 9 / N_TRIALS)
    rows = pulses.reshape(-1, 3)
    assert np.abs(rows.T @ rows / len(rows) - 2 / 3 * np.eye(3)).max() < 5 / np.sqrt(len(rows))
    assert abs((pulses[:, 1:] * pulses[:, :-1]).mean()) < 5 * 2 / 3 / np.sqrt(pulses[:, 1:].size)


@pytest.mark.parametrize("sparse_fraction", [0.0, 0.5])
def test_targets_are_the_last_pulse_at_once_and_minus_one_before_the_first(sparse_fraction):
    batch = draw(2, sparse_fraction=sparse_fraction)
    memory = -np.ones((N_TRIALS, 3))
    for time in range(25):
        now = pulses_of(batch.inputs)[:, time]
        memory = np.where(now == 0, memory, now)
        np.testing.assert_array_equal(batch.targets[:, time], memory)


def test_a_sparse_trial_keeps_the_asked_share_of_its_pulses():
    """75 draws a trial, of which 2/3 or 1/15 are pulses: ten deviations apart."""
    share = np.abs(pulses_of(draw(3, sparse_fraction=0.25, sparse_keep=0.1).inputs)).mean((1, 2))
    sparse = share < 0.35
    assert abs(sparse.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / N_TRIALS)
    assert abs(share[sparse].mean() - 1 / 15) < 5 * np.sqrt(1 / 15 / (75 * sparse.sum()))
    assert abs(share[~sparse].mean() - 2 / 3) < 5 * np.sqrt(2 / 9 / (75 * (~sparse).sum()))


def test_a_hold_is_silent_and_keeps_the_targets():
    batch = draw(4, three_bit_memory.ThreeBitMemoryConfig(n_bits=2, n_time=12, n_hold=5))
    assert batch.inputs.shape == (N_TRIALS, 12, 4)
    assert not batch.inputs[:, 7:].any()
    assert batch.inputs[:, 6].any()
    np.testing.assert_array_equal(batch.targets[:, 7:], np.repeat(batch.targets[:, 6:7], 5, axis=1))


def test_batches_are_of_the_default_float_type():
    with jax.enable_x64(True):
        batch = draw(5, three_bit_memory.ThreeBitMemoryConfig(n_time=6))
    assert batch.inputs.dtype == batch.targets.dtype == np.float64


def test_flips_are_the_lines_of_the_other_sign():
    assert three_bit_memory.flips(jnp.array([1.0, -1.0, 1.0])).tolist() == [True, False, False, True, True, False]


def test_scores_begin_at_the_fifth_step():
    targets = jnp.asarray(draw(6).targets)
    wrong_at_first = targets.at[:, :5].multiply(-1)
    assert three_bit_memory.loss(wrong_at_first, targets) == 0.0
    assert three_bit_memory.sign_accuracy(wrong_at_first, targets) == 1.0
    assert three_bit_memory.loss(targets.at[:, 5].multiply(-1), targets) == np.float32(4 / 20)
    assert three_bit_memory.sign_accuracy(targets.at[:, 5].set(0.0), targets) == np.float32(19 / 20)
    assert three_bit_memory.loss(wrong_at_first, targets, n_unscored=0) == np.float32(4 * 5 / 25)


@pytest.mark.parametrize("wrong", [{"n_bits": 0}, {"n_time": 0}, {"n_hold": -1}, {"n_hold": 25}])
def test_a_config_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must be at least .* got ThreeBitMemoryConfig"):
        three_bit_memory.ThreeBitMemoryConfig(**wrong)


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="n_trials must be at least 1, got 0"):
        three_bit_memory.sample_batch(jax.random.key(0), CONFIG, 0)
    for name in ("sparse_fraction", "sparse_keep"):
        with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], got 10"):
            three_bit_memory.sample_batch(jax.random.key(0), CONFIG, 1, **{name: 10})
    for score in (three_bit_memory.loss, three_bit_memory.sign_accuracy):
        with pytest.raises(ValueError, match=r"one shape, got \(1, 9, 3\) and \(9, 3\)"):
            score(jnp.zeros((1, 9, 3)), jnp.zeros((9, 3)))
        with pytest.raises(ValueError, match="n_unscored must leave some of 4 steps, got 5"):
            score(jnp.zeros((4, 3)), jnp.zeros((4, 3)))
