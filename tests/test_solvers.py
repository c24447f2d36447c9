import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfp
from jaxfp.search.solvers import levenberg_marquardt as lm
from jaxfp.tasks import toys

SGD = jaxfp.gradient(optax.sgd(0.1))


def root_of_two(h):
    return h**2 - 2


def steps(solver, residual_fn, hidden, n_steps):
    """Every state of n_steps iterations, one program."""

    def step(state, _):
        new = solver.step(residual_fn, state)
        return new, new

    return jax.jit(lambda h: jax.lax.scan(step, solver.init(residual_fn, h), length=n_steps)[1])(hidden)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_levenberg_marquardt_reaches_the_floor_of_its_dtype(dtype):
    """From 1 to sqrt(2): q is that of the state it stands beside, never rises, and done comes at the rounding floor."""
    with jax.enable_x64(dtype == "float64"):
        states = steps(jaxfp.levenberg_marquardt(), root_of_two, jnp.ones(1, dtype), 20)
        h = np.asarray(states.hidden)
        assert states.hidden.dtype == states.q.dtype == dtype
        # h^2 - 2 rounds at 2 eps, here and there.
        np.testing.assert_allclose(np.sqrt(2 * states.q), abs(h**2 - 2)[:, 0], rtol=0, atol=4 * np.finfo(dtype).eps)
        assert (np.diff(states.q) <= 0).all()
        first = int(np.argmax(states.done))
        assert 3 < first < 10
        # r = 2 sqrt(2) d, and r rounds at eps * 2: d is known to eps.
        assert abs(h[first, 0] - np.sqrt(2)) <= 2 * np.finfo(dtype).eps
        assert not np.asarray(states.done[:4]).any()


def test_levenberg_marquardt_finds_minima_of_q_that_are_no_zeros():
    """On the ghost, where Newton on r would be thrown out, it ends at (1/2, 1/2 + a/2) with q = a^2 / 4."""
    a = 0.1
    with jax.enable_x64(True):
        states = steps(jaxfp.levenberg_marquardt(), lambda h: toys.ghost(a, h), jnp.array([-1.0, 2.0]), 100)
        known = toys.known_ghost(a)[0]
        assert states.q[-1] == pytest.approx(known.q, rel=1e-8)
        np.testing.assert_allclose(states.hidden[-1], known.hidden, atol=1e-5)
        assert (np.diff(states.q) <= 0).all()


def test_levenberg_marquardt_survives_singular_jacobians():
    """Where J = 0 or J is of rank one the factorization is damped: finite states, and q falls where it can."""
    states = steps(jaxfp.levenberg_marquardt(), lambda h: 0 * h + 1, jnp.ones(2), 5)
    assert np.isfinite(states.hidden).all()
    np.testing.assert_allclose(states.q, 1.0)
    w = jnp.array([0.6, 0.8])
    states = steps(jaxfp.levenberg_marquardt(), lambda h: w * (w @ h - 1), jnp.zeros(2), 20)
    np.testing.assert_allclose(states.hidden[-1], w, rtol=1e-5)  # the nearest zero: steps of least length


def test_levenberg_marquardt_refuses_steps_that_raise_q_or_overflow():
    """A step to where r is NaN or larger is not taken, only the damping grows."""
    barrier = jax.jit(lambda h: jnp.sqrt(h) - 2)  # NaN for h < 0
    states = steps(jaxfp.levenberg_marquardt(1e-6), barrier, jnp.full(1, 36.0), 12)  # Newton would go to -12
    assert np.isfinite(states.q).all()
    assert (np.diff(states.q) <= 0).all()
    assert states.damping[0] > 1e-6
    np.testing.assert_allclose(states.hidden[-1], 4, rtol=1e-5)


def test_equal_dampings_are_equal_solvers():
    """Two solvers built alike are one static argument, so that searches share a program; others are not."""
    assert jaxfp.levenberg_marquardt(1e-3) == jaxfp.levenberg_marquardt(1e-3)
    assert hash(jaxfp.levenberg_marquardt(1e-3)) == hash(jaxfp.levenberg_marquardt(1e-3))
    assert jaxfp.levenberg_marquardt(1e-3) != jaxfp.levenberg_marquardt(1e-2)


@pytest.mark.parametrize("damping", [0.0, -1e-3, np.nan, np.inf])
def test_damping_must_be_positive(damping):
    """A damping that is not positive and finite raises ValueError."""
    with pytest.raises(ValueError, match="damping must be positive and finite"):
        jaxfp.levenberg_marquardt(damping)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floor_is_its_formula(dtype):
    """The floor is 8 eps sqrt(n) max(||h||, || |J||h| ||), and never 0, so that the origin can be reached."""
    with jax.enable_x64(dtype == "float64"):
        eps = np.finfo(dtype).eps
        jacobian, h = jnp.array([[3.0, -4.0], [0.0, 1.0]], dtype), jnp.array([1.0, -1.0], dtype)
        assert lm.floor(jacobian, h) == pytest.approx(8 * eps * np.sqrt(2) * np.sqrt(7**2 + 1), rel=1e-6)
        assert lm.floor(jacobian / 100, h) == pytest.approx(8 * eps * np.sqrt(2) * np.sqrt(2), rel=1e-6)
        assert lm.floor(jacobian, 0 * h) == pytest.approx(8 * eps**1.5 * np.sqrt(2), rel=1e-6)


def test_gradient_descent_on_a_linear_residual_is_its_closed_form():
    """With r = 2 h and step 0.1, h shrinks by 1 - 0.1 * 4 a step; hidden is the best state seen, q its q."""
    states = steps(SGD, lambda h: 2 * h, jnp.ones(1), 8)
    # The state handed out lags the iterate by one: its q has been computed.
    np.testing.assert_allclose(states.hidden[1:, 0], 0.6 ** np.arange(1, 8), rtol=1e-5)
    np.testing.assert_allclose(states.iterate[:, 0], 0.6 ** np.arange(1, 9), rtol=1e-5)
    np.testing.assert_allclose(states.q, 2 * states.hidden[:, 0] ** 2, rtol=1e-5)


def test_gradient_keeps_the_best_state_when_the_optimizer_diverges():
    """With a step so long that the iterate runs off, hidden and q stay at the best that was seen."""
    wild = jaxfp.gradient(optax.sgd(1.0))
    states = steps(wild, lambda h: 2 * h, jnp.ones(1), 8)
    assert abs(states.iterate[-1, 0]) > 100
    np.testing.assert_array_equal(states.hidden, 1)
    np.testing.assert_array_equal(states.q, 2)


def test_gradient_is_done_at_a_stationary_point_not_where_it_is_slow():
    """It is done where J'r = 0 and at the floor, not where a tiny learning rate alone makes the steps small."""
    at_minimum = steps(SGD, lambda h: h**2 + 1, jnp.zeros(1), 2)
    assert at_minimum.done.all()
    crawling = steps(jaxfp.gradient(optax.sgd(1e-12)), lambda h: 2 * h, jnp.ones(1), 5)
    assert not crawling.done.any()
    assert (crawling.q == 2).all()


def test_gradient_clips_each_lane_by_itself():
    """A global-norm clip inside the optimizer acts on one candidate alone: a lane equals itself beside a steep one."""
    clipped = jaxfp.gradient(optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)))

    def last(h):
        state = clipped.init(root_of_two, h)
        for _ in range(4):
            state = clipped.step(root_of_two, state)
        return state.iterate

    alone = last(jnp.array([1.5]))
    together = jax.vmap(last)(jnp.array([[1.5], [100.0]]))
    np.testing.assert_allclose(together[0], alone, rtol=2e-7)
    np.testing.assert_allclose(together[1], 100 - 4 * 0.1, rtol=1e-6)  # every step of the steep lane is clipped


def test_adam_reaches_the_zero_of_an_affine_residual():
    """Adam on q from 0 reaches A^-1 b of r = A h - b."""
    matrix, b = jnp.array([[2.0, 0.5], [-0.3, 1.0]]), jnp.array([1.0, -1.0])
    adam = jaxfp.gradient(optax.adam(optax.exponential_decay(0.1, 100, 0.5)))
    with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic mixes dtypes
        states = steps(adam, lambda h: matrix @ h - b, jnp.zeros(2), 600)
    r = np.asarray(matrix @ states.hidden[-1] - b)
    assert np.linalg.norm(r) < 1e-4
    np.testing.assert_allclose(states.hidden[-1], np.linalg.solve(matrix, b), atol=1e-4)
    assert (np.diff(states.q) <= 0).all()
