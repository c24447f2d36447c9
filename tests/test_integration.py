"""Integration is exact where it is known: a linear network whose slowest mode, valences and decay are given by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfp import linearize, simulate, spectrum
from jaxfp.analysis import integration, switching

N, M = 6, 3
RATES = np.array([0.999, 0.6, 0.5, -0.4, 0.3, 0.1])


def linear_step(params, hidden, inputs):
    jacobian, input_jacobian = params
    return jacobian @ hidden + input_jacobian @ inputs


@pytest.fixture(scope="module")
def integrator():
    """J = R diag(rates) L with L R = I, far from normal; r_1 unit, and the inputs."""
    rng = np.random.default_rng(0)
    right = rng.normal(size=(N, N))
    right /= np.linalg.norm(right, axis=0)
    left = np.linalg.inv(right)
    return right, left, (right @ np.diag(RATES) @ left, rng.normal(size=(N, M)))


def test_slowest_mode_is_the_one_given_and_points_along_the_readout(integrator):
    right, left, params = integrator
    linear = linearize(linear_step, params, np.zeros((2, N)), np.zeros(M))
    for sign in (1.0, -1.0):
        readout = sign * (right[:, 0] + 0.1 * right[:, 1])
        found = integration.leading_modes(spectrum(linear.jacobian), readout)
        towards = np.sign(readout @ right[:, 0])
        np.testing.assert_allclose(found.right, np.tile(towards * right[:, 0], (2, 1)), atol=1e-12)
        np.testing.assert_allclose(found.left, np.tile(towards * left[0], (2, 1)), atol=1e-11)
        np.testing.assert_allclose(np.sum(found.left * found.right, axis=1), 1, atol=1e-12)
        np.testing.assert_allclose(found.eigenvalue, RATES[0], atol=1e-12)
        assert not found.oscillatory.any()
        np.testing.assert_allclose(found.reading[0], readout @ np.outer(right[:, 0], left[0]), atol=1e-11)


def test_valences_say_where_the_state_ends(integrator):
    """After k steps what is left of an input along r_1 is lambda_1^k times its valence, whatever other modes did."""
    right, left, params = integrator
    words = np.random.default_rng(1).normal(size=(5, M))
    linear = linearize(linear_step, params, np.zeros((1, N)), np.zeros(M))
    valence = integration.valences(left[:1], linear.input_jacobian, words)
    np.testing.assert_allclose(valence[0], left[0] @ params[1] @ words.T, atol=1e-12)
    order = [3, 0, 0, 4]
    drive = np.concatenate([words[order], np.zeros((200, M))])
    end = simulate(linear_step, params, np.zeros(N), drive)[-1]
    steps = len(drive) - 1 - np.arange(len(order))
    kept = np.sum(valence[0, order] * RATES[0] ** steps)
    np.testing.assert_allclose(end, kept * right[:, 0], atol=1e-12)  # 0.6^200 is nothing


def test_modes_that_rotate_are_flagged_and_not_averaged_over():
    turn = 0.9 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    found = integration.leading_modes(spectrum(np.stack([turn, np.diag([0.9, 0.1])])), np.ones(2))
    assert found.oscillatory.tolist() == [True, False]
    assert np.isnan(found.right[0]).all()
    assert np.isnan(found.left[0]).all()
    assert np.isfinite(found.right[1]).all()
    np.testing.assert_allclose(found.reading, [[1, 1], [1, 0]], atol=1e-12)  # of the pair, which is all there is: w
    assert np.isnan(integration.cosines(found.right, np.ones(2))).tolist() == [True, False]


def test_the_mode_that_adds_up_is_found_beside_one_that_grows():
    """An unstable pair ahead of it, and a negative eigenvalue: neither is nearest to 1 among the real ones."""
    turn = 1.1 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    jacobian = np.zeros((1, 4, 4))
    jacobian[0, :2, :2], jacobian[0, 2, 2], jacobian[0, 3, 3] = turn, 0.98, -0.99
    spectra = spectrum(jacobian)
    found = integration.leading_modes(spectra, -np.ones(4), nearest_one=True)
    assert found.eigenvalue.tolist() == pytest.approx([0.98])
    np.testing.assert_allclose(found.right, [[0, 0, -1, 0]], atol=1e-12)
    assert integration.leading_modes(spectra, np.ones(4)).oscillatory.all()


def test_a_pair_oscillates_if_it_turns_before_it_has_decayed():
    """A(k) = exp(-k/tau) cos(2 pi k / T): with T = tau / 2 it swings back to exp(-1/2), with T = 2 tau to exp(-2)."""

    def pair(timescale, period):
        angle = 2 * np.pi / period
        return np.exp(-1 / timescale) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    matrices = [pair(40, 20), pair(40, 80), pair(-40, 4000), np.diag([0.99, 0.5]), np.diag([-0.99, 0.5]), np.eye(2)]
    spectra = spectrum(np.stack(matrices))
    assert integration.oscillates(spectra).tolist() == [True, False, True, False, True, False]
    back = [np.linalg.matrix_power(matrix, period)[0, 0] for matrix, period in zip(matrices, (20, 80), strict=False)]
    np.testing.assert_allclose(back, np.exp([-0.5, -2.0]), rtol=1e-12)
    assert integration.leading_modes(spectra, np.ones(2)).oscillatory.tolist() == [True] * 3 + [False] * 3


def test_participation_ratio_counts_directions():
    """N directions of equal variance are n, whatever the basis; a line is 1; and shares add up to 1."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    for n in (1, 3, 8):
        states = np.concatenate([np.eye(n), -np.eye(n)]) @ basis[:n] + 5.0
        found = integration.principal_components(states)
        assert found.participation_ratio == pytest.approx(n, rel=1e-12)
        assert found.cumulative[n - 1] == pytest.approx(1, rel=1e-12)
        np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(8), atol=1e-12)
    still = integration.principal_components(np.ones((4, 2)))
    assert np.isnan(still.participation_ratio)


def test_random_directions_are_round():
    """Mean square of the cosine with any direction is 1/n, its largest of 1,000 far from 1."""
    found = integration.random_directions(jax.random.key(0), 1000, 50)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-12)
    for direction in (np.eye(50)[0], np.ones(50)):
        squares = np.square(integration.cosines(found, direction))
        # a beta variable of mean 1/n has standard deviation below sqrt(2)/n; four standard errors of 1,000
        assert abs(squares.mean() - 1 / 50) < 4 * 2**0.5 / 50 / 1000**0.5
        assert squares.max() < 0.5


def test_silence_slows_down_at_the_rate_of_the_mode(integrator):
    right, _, params = integrator
    speeds = integration.relative_speeds(linear_step, params, right.T[:3], np.zeros(M), n_steps=4)
    np.testing.assert_allclose(speeds, np.abs(RATES[:3] - 1)[:, None] * np.ones(4), atol=1e-12)


def test_linear_network_of_a_linear_network_is_itself(integrator):
    """And of another one, the same as the baseline about one point that runs freely."""
    right, _, params = integrator
    drive = np.random.default_rng(2).normal(size=(7, M))
    start = right[:, 1]
    made = integration.linear_network(linear_step, params, np.ones(N), np.zeros(M))
    np.testing.assert_allclose(
        simulate(integration.affine_step, made, start, drive), simulate(linear_step, params, start, drive), atol=1e-12
    )
    bent = integration.linear_network(bent_step, params, np.full(N, 0.3), np.zeros(M))
    hidden = np.concatenate([start[None], simulate(integration.affine_step, bent, start, drive[1:])])[None]
    free = switching.predict_by_nearest(bent_step, params, np.full((1, N), 0.3), hidden, drive[None]).free_run
    np.testing.assert_allclose(hidden[0, 1:], free[0], atol=1e-11)


def bent_step(params, hidden, inputs):
    return jnp.tanh(linear_step(params, hidden, inputs))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: integration.principal_components(np.ones(3)), "states must be"),
        (lambda: integration.oscillates(spectrum(np.eye(2))), "modes must be"),
        (lambda: integration.leading_modes(spectrum(np.eye(2)), np.ones(2)), "modes must be"),
        (lambda: integration.leading_modes(spectrum(np.eye(2)[None]), np.ones(3)), r"readout must be \(2,\)"),
        (lambda: integration.valences(np.ones((1, 2)), np.ones((1, 3, 1)), np.ones((1, 1))), "left, input_jacobian"),
        (lambda: integration.cosines(np.ones((1, 2)), np.ones(3)), r"direction must be \(2,\)"),
        (lambda: integration.cosines(np.ones(2), np.ones(2)), "vectors must be"),
        (lambda: integration.relative_speeds(bent_step, None, np.ones(2)), "hidden must be"),
    ],
)
def test_wrong_shapes_are_said(call, said):
    with pytest.raises(ValueError, match=said):
        call()
