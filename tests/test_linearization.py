import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import systems

import jaxfp
from jaxfp import dynamics
from jaxfp.tasks import toys

RNG = np.random.default_rng(0)
PARAMS = {"W": RNG.normal(size=(3, 3)), "B": RNG.normal(size=(3, 2))}
STATES, DRIVES = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))


def test_jacobians_are_their_closed_form():
    """Of tanh(W h + B u), J = diag(1 - h'^2) W and J_in = diag(1 - h'^2) B; nothing is subtracted from J."""
    linear = jaxfp.linearize(systems.driven, PARAMS, STATES, DRIVES)
    slope = 1 - np.tanh(STATES @ PARAMS["W"].T + DRIVES @ PARAMS["B"].T) ** 2
    close = {"rtol": 0, "atol": 32 * np.finfo(float).eps}
    np.testing.assert_allclose(linear.jacobian, slope[:, :, None] * PARAMS["W"], **close)
    np.testing.assert_allclose(linear.input_jacobian, slope[:, :, None] * PARAMS["B"], **close)
    fixed = scipy.optimize.brentq(lambda h: np.tanh(1.5 * h) - h, 0.5, 1, xtol=1e-15)
    scalar = jaxfp.linearize(systems.scalar_tanh, 1.5, np.array([[fixed]]))
    assert scalar.jacobian.item() == pytest.approx(1.5 * (1 - fixed**2), rel=1e-14)  # tanh(1.5 h) = h there


def test_jacobians_are_finite_differences():
    """Central differences of the step itself agree to their own error, h^2 + eps / h at h = 1e-5."""
    linear = jaxfp.linearize(systems.driven, PARAMS, STATES[0], DRIVES[0])

    def step(h, u):
        return np.tanh(PARAMS["W"] @ h + PARAMS["B"] @ u)

    for row in range(3):
        d = 1e-5 * np.eye(3)[row]
        numeric = (step(STATES[0] + d, DRIVES[0]) - step(STATES[0] - d, DRIVES[0])) / 2e-5
        np.testing.assert_allclose(linear.jacobian[:, row], numeric, atol=1e-9)
    for row in range(2):
        d = 1e-5 * np.eye(2)[row]
        numeric = (step(STATES[0], DRIVES[0] + d) - step(STATES[0], DRIVES[0] - d)) / 2e-5
        np.testing.assert_allclose(linear.input_jacobian[:, row], numeric, atol=1e-9)


def test_of_an_affine_map_the_linearization_is_the_map():
    """J = A, J_in = B everywhere, and F(h + d, u + e) - F(h, u) = J d + J_in e exactly."""
    params = {"A": RNG.normal(size=(3, 3)), "b": RNG.normal(size=3), "B": RNG.normal(size=(3, 2))}
    linear = jaxfp.linearize(systems.affine, params, STATES, DRIVES[0])
    np.testing.assert_array_equal(linear.jacobian, np.tile(params["A"], (4, 1, 1)))
    np.testing.assert_array_equal(linear.input_jacobian, np.tile(params["B"], (4, 1, 1)))


def test_no_inputs_no_input_jacobian():
    """No inputs in, no input Jacobian out; one state in, no leading axis out."""
    linear = jaxfp.linearize(systems.tanh_row, np.eye(3), STATES)
    assert linear.input_jacobian is None
    assert linear.jacobian.shape == (4, 3, 3)
    assert jaxfp.linearize(systems.tanh_row, np.eye(3), STATES[0]).jacobian.shape == (3, 3)
    one = jaxfp.linearize(systems.driven, PARAMS, STATES[0], DRIVES[0])
    assert one.input_jacobian.shape == (3, 2)
    with pytest.raises(ValueError, match="one row for each of 4 states"):
        jaxfp.linearize(systems.driven, PARAMS, STATES, DRIVES[:3])


@pytest.mark.parametrize("a", [-0.01, 0.1])
def test_flow_jacobian_is_the_generator(a):
    """Of a vector field J is dF/dx: [[-2 x, 1], [1, -1]] for the ghost, [[-2 x y, 1 - x^2], [1/2, -1]] for toy A."""
    x = STATES[:, :2]
    expected = np.stack([np.array([[-2 * h[0], 1], [1, -1]]) for h in x])
    np.testing.assert_allclose(jaxfp.linearize(toys.ghost, a, x).jacobian, expected, rtol=0, atol=1e-15)
    expected = np.stack([np.array([[-2 * h[0] * h[1], 1 - h[0] ** 2], [0.5, -1]]) for h in x])
    np.testing.assert_allclose(jaxfp.linearize(toys.three_points, None, x).jacobian, expected, rtol=0, atol=1e-15)


def test_a_change_of_frame_conjugates_the_jacobian():
    """With h -> Q h and A -> Q A Q', J becomes Q J Q'."""
    rotation = np.linalg.qr(RNG.normal(size=(3, 3)))[0]

    def turned(params, hidden, inputs):
        return params["Q"] @ systems.driven(params, params["Q"].T @ hidden, inputs)

    before = jaxfp.linearize(systems.driven, PARAMS, STATES, DRIVES)
    after = jaxfp.linearize(turned, {**PARAMS, "Q": rotation}, STATES @ rotation.T, DRIVES)
    np.testing.assert_allclose(after.jacobian, rotation @ before.jacobian @ rotation.T, rtol=0, atol=1e-14)
    np.testing.assert_allclose(after.input_jacobian, rotation @ before.input_jacobian, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linearize_composes(dtype):
    """Under jit, and vmap over weights, J follows hidden's dtype; grad of an eigenvalue's real part goes through it."""
    with jax.enable_x64(dtype == "float64"):
        params = jax.tree.map(lambda x: jnp.asarray(x, dtype), PARAMS)
        hidden, drive = jnp.asarray(STATES[0], dtype), jnp.asarray(DRIVES[0], dtype)
        ensemble = {**params, "W": jnp.stack([params["W"], params["W"] / 2])}
        run = jax.vmap(lambda p: jaxfp.linearize(systems.driven, p, hidden, drive), ({"W": 0, "B": None},))
        jacobian = jax.jit(run)(ensemble).jacobian
        assert jacobian.dtype == dtype
        slope = 1 - jnp.tanh(params["W"] @ hidden + params["B"] @ drive) ** 2
        np.testing.assert_allclose(jacobian[0], slope[:, None] * params["W"], atol=16 * np.finfo(dtype).eps)

        def trace(b):
            return jnp.trace(jaxfp.linearize(systems.driven, {**params, "B": b}, hidden, drive).jacobian)

        # d tr(J) / dB_ij = -2 t_i (1 - t_i^2) W_ii u_j with t the new state.
        t = jnp.tanh(params["W"] @ hidden + params["B"] @ drive)
        expected = jnp.outer(-2 * t * (1 - t**2) * jnp.diag(params["W"]), drive)
        np.testing.assert_allclose(jax.jit(jax.grad(trace))(params["B"]), expected, atol=32 * np.finfo(dtype).eps)


def test_float64_numpy_beats_float32():
    """With x64 off float64 NumPy is linearized in float64: float32 weights widened, J right to 1e-15."""
    narrow = jax.tree.map(lambda x: x.astype(np.float32), PARAMS)
    linear = jaxfp.linearize(systems.driven, narrow, STATES, DRIVES)
    assert not jax.config.jax_enable_x64
    with jax.enable_x64(True):
        wide = dynamics.widen(narrow)
        t = np.tanh(STATES @ np.asarray(wide["W"]).T + DRIVES @ np.asarray(wide["B"]).T)
        np.testing.assert_allclose(linear.jacobian, (1 - t**2)[:, :, None] * np.asarray(wide["W"]), atol=1e-14, rtol=0)
    rough = jaxfp.linearize(systems.driven, narrow, jnp.asarray(STATES, jnp.float32), jnp.asarray(DRIVES, jnp.float32))
    assert rough.jacobian.dtype == jnp.float32
    assert abs(np.asarray(rough.jacobian) - linear.jacobian).max() > 1e-9
