import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfp
from jaxfp.search.solvers import levenberg_marquardt as lm
from jaxfp.tasks import toys
from jaxfp.types import NONFINITE

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


# Matrix-free.

KRYLOV = [jaxfp.newton_krylov, jaxfp.gauss_newton_krylov, jaxfp.truncated_newton]
W = 1.5 * np.random.default_rng(0).normal(size=(6, 6)) / np.sqrt(6)
START = np.random.default_rng(1).uniform(-1, 1, 6)


def tanh_residual(h):
    return jnp.tanh(jnp.asarray(W, h.dtype) @ h) - h


def ghost_in_many_dimensions(h):
    """r = (1/5 + h_0^2, h_1 - h_0, ..., h_5 - h_0): q has its minimum, above zero, at 0; everything is coupled."""
    return jnp.concatenate([0.2 + h[:1] ** 2, h[1:] - h[0]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", KRYLOV[:2])
def test_a_whole_krylov_space_gives_the_dense_step(build, dtype):
    """With n_vectors >= n the step is d = -(J'J + mu I)^-1 J'r, mu = damping times the largest diagonal entry of H'H.

    newton_krylov's V = U spans everything, too, so that both are Levenberg-Marquardt's, which has J'J for H'H.
    """
    with jax.enable_x64(dtype == "float64"):
        h, damping = jnp.asarray(START, dtype), 1e-2
        state = build(50, damping).init(tanh_residual, h)
        moved = build(50, damping).step(tanh_residual, state).hidden - h
        jacobian, r = np.asarray(jax.jacfwd(tanh_residual)(h), float), np.asarray(tanh_residual(h), float)
        # The basis in which H is written, for the one number that depends on it.
        if build is jaxfp.newton_krylov:
            krylov = np.stack([np.linalg.matrix_power(jacobian, i) @ r for i in range(6)], 1)
        else:
            normal = jacobian.T @ jacobian
            krylov = np.stack([np.linalg.matrix_power(normal, i) @ jacobian.T @ r for i in range(6)], 1)
        basis = np.linalg.qr(krylov)[0]
        mu = damping * np.square(jacobian @ basis).sum(0).max()
        step = -np.linalg.solve(jacobian.T @ jacobian + mu * np.eye(6), jacobian.T @ r)
        assert np.linalg.norm(step) > 0.1
        # Rounding of the normal equations; Gram-Schmidt once.
        tolerance = 100 * np.finfo(dtype).eps * np.linalg.cond(jacobian) ** 2
        np.testing.assert_allclose(moved, step, rtol=0, atol=tolerance)
        assert tolerance < 0.1 * np.linalg.norm(step)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_whole_krylov_space_gives_the_damped_newton_step_on_q(dtype):
    """With n_vectors >= n truncated_newton's step is -(H + mu I)^-1 J'r with the exact Hessian H of q."""

    def q(h):
        return jnp.vdot(ghost_in_many_dimensions(h), ghost_in_many_dimensions(h)) / 2

    with jax.enable_x64(dtype == "float64"):
        h, damping = jnp.asarray(0.3 * START, dtype), 1e-2
        solver = jaxfp.truncated_newton(50, damping)
        moved = solver.step(ghost_in_many_dimensions, solver.init(ghost_in_many_dimensions, h)).hidden - h
        hessian, slope = np.asarray(jax.hessian(q)(h), float), np.asarray(jax.grad(q)(h), float)
        assert np.linalg.eigvalsh(hessian)[0] > 0
        basis = np.linalg.qr(np.stack([np.linalg.matrix_power(hessian, i) @ slope for i in range(6)], 1))[0]
        # The Krylov space of a Hessian with repeated eigenvalues ends early; it still holds the step.
        mu = damping * np.diag(basis.T @ hessian @ basis)[: np.linalg.matrix_rank(_krylov(hessian, slope))].max()
        step = -np.linalg.solve(hessian + mu * np.eye(6), slope)
        assert np.linalg.norm(step) > 0.05
        tolerance = 100 * np.finfo(dtype).eps * np.linalg.cond(hessian)
        np.testing.assert_allclose(moved, step, rtol=0, atol=tolerance)
        assert tolerance < 0.1 * np.linalg.norm(step)


def _krylov(matrix, start):
    columns = [start / np.linalg.norm(start)]
    for _ in range(len(start) - 1):
        columns.append(matrix @ columns[-1])
        columns[-1] = columns[-1] / np.linalg.norm(columns[-1])
    return np.stack(columns, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", KRYLOV)
def test_krylov_solvers_end_quadratically_at_zeros(build, dtype):
    """Near a zero of a tanh network's r the error is squared by a step, down to the floor of the dtype, and done."""
    with jax.enable_x64(dtype == "float64"):
        n_steps = 12
        at = np.asarray(steps(jaxfp.levenberg_marquardt(), tanh_residual, jnp.asarray(2 * START, dtype), 60).hidden[-1])
        assert np.linalg.norm(at) > 0.5
        near = jnp.asarray(at + 0.05 * np.random.default_rng(2).normal(size=6), dtype)
        states = steps(build(6, 1e-6), tanh_residual, near, n_steps)
        speed = np.sqrt(2 * np.asarray(states.q, float))
        eps = np.finfo(dtype).eps
        assert (np.diff(states.q) <= 0).all()
        assert speed[-1] <= 8 * eps * np.sqrt(6) * np.linalg.norm(at)
        assert states.done[-1]
        first = int(np.argmax(states.done))
        assert first <= (5 if dtype == "float32" else 7)
        before = np.flatnonzero((speed[:-1] < 1e-1) & (speed[1:] > 1e4 * eps))  # above rounding and damping
        assert len(before) or dtype == "float32"
        assert (speed[before + 1] <= 30 * speed[before] ** 2 + 1e-5 * speed[before]).all()


@pytest.mark.parametrize("build", KRYLOV)
def test_no_step_along_a_line_attractor(build):
    """For h' = w (w . h) a lane moves straight to the line, h -> w (w . h): nothing pushes it along w."""
    w = jnp.array([0.48, 0.6, 0.64])
    h = jnp.array([1.0, -1.0, 0.5])
    states = steps(build(8), lambda h: w * (w @ h) - h, h, 25)
    np.testing.assert_allclose(states.hidden[-1], w * (w @ h), rtol=0, atol=1e-6)
    np.testing.assert_allclose(states.hidden @ w, jnp.full(25, w @ h), rtol=0, atol=1e-6)
    with jax.enable_x64(True):
        w, h = (np.asarray(x, float) for x in (w, h))
        w = w / np.linalg.norm(w)
        states = steps(build(8), lambda h: jnp.asarray(w) * (jnp.asarray(w) @ h) - h, jnp.asarray(h), 25)
        np.testing.assert_allclose(states.hidden[-1], w * (w @ h), rtol=0, atol=1e-14)


def test_truncated_newton_ends_at_minima_of_q_to_rounding():
    """At a minimum of q above zero, J'r is at float64 rounding after 15 steps, where Gauss-Newton still creeps."""
    with jax.enable_x64(True):
        start = jnp.asarray(0.3 * START)
        states = steps(jaxfp.truncated_newton(), ghost_in_many_dimensions, start, 15)
        slope = jax.vmap(lambda h: jax.vjp(ghost_in_many_dimensions, h)[1](ghost_in_many_dimensions(h))[0])
        assert states.q[-1] == pytest.approx(0.02, rel=1e-15)
        assert np.linalg.norm(slope(states.hidden)[-1]) < 1e-12
        np.testing.assert_allclose(states.hidden[-1], 0, atol=1e-10)
        assert states.done[-1]
        assert (np.diff(states.q) <= 0).all()
        creeps = steps(jaxfp.gauss_newton_krylov(), ghost_in_many_dimensions, start, 15)
        assert np.linalg.norm(slope(creeps.hidden)[-1]) > 1e-6


@pytest.mark.parametrize("build", KRYLOV)
def test_krylov_solvers_refuse_steps_that_raise_q_or_overflow(build):
    """A step to where r is NaN or larger is not taken, only the damping grows; J = 0 moves nothing and stays finite."""
    barrier = jax.jit(lambda h: jnp.sqrt(h) - 2)  # NaN for h < 0
    states = steps(build(8, 1e-6), barrier, jnp.full(1, 36.0), 20)  # Newton would go to -12
    assert np.isfinite(states.q).all()
    assert (np.diff(states.q) <= 0).all()
    still = steps(build(), lambda h: 0 * h + 1, jnp.ones(2), 5)
    np.testing.assert_array_equal(still.hidden, 1)
    assert np.isfinite(still.damping).all()


@pytest.mark.parametrize("build", KRYLOV)
def test_equal_numbers_are_equal_krylov_solvers(build):
    """Two built alike are one static argument, so that searches trace once; other numbers and kinds are others."""
    assert build(4, 1e-3) == build(4, 1e-3)
    assert hash(build(4, 1e-3)) == hash(build(4, 1e-3))
    assert len({build(4, 1e-3), build(5, 1e-3), build(4, 1e-2), *(other(4, 1e-3) for other in KRYLOV)}) == 5
    calls = []

    def counted(params, hidden, inputs):
        calls.append(1)
        return jnp.tanh(params @ hidden)

    run = jax.jit(
        lambda solver, w, h: jaxfp.build_search(counted, solver)(w, h, None, tolerance=0.0, max_steps=3),
        static_argnums=0,
    )
    w, h = jnp.asarray(W, jnp.float32), jnp.asarray(START, jnp.float32)[None]
    run(build(4), w, h)
    first = len(calls)
    run(build(4), 2 * w, -h)
    assert len(calls) == first > 0
    run(build(3), w, h)
    assert len(calls) > first


@pytest.mark.parametrize("build", KRYLOV)
@pytest.mark.parametrize(
    ("numbers", "wanted"),
    [
        ((0,), "n_vectors must be a positive integer, got 0"),
        ((2.0,), "n_vectors must be a positive integer"),
        ((True,), "n_vectors must be a positive integer"),
        ((4, 0.0), "damping must be positive and finite"),
        ((4, np.nan), "damping must be positive and finite"),
        ((4, np.inf), "damping must be positive and finite"),
    ],
)
def test_krylov_solvers_refuse_bad_numbers(build, numbers, wanted):
    """n_vectors that is no positive integer and damping that is not positive and finite raise ValueError."""
    with pytest.raises(ValueError, match=wanted):
        build(*numbers)


def weighted(params, hidden, inputs):
    """One step: h' = tanh(W h)."""
    return jnp.tanh(params @ hidden)


@pytest.mark.parametrize("build", KRYLOV)
def test_krylov_lanes_never_mix(build):
    """Under jit and a vmap over networks: a NaN lane leaves the others bit-equal, each network equals itself alone."""
    search = jaxfp.build_search(weighted, build(6))
    run = jax.jit(jax.vmap(lambda w, h: search(w, h, None, tolerance=0.0, max_steps=60), (0, None)))
    networks = jnp.asarray(np.stack([0.3 * W, W]), jnp.float32)
    starts = np.random.default_rng(3).uniform(-1, 1, (24, 6)).astype(np.float32)
    lanes = run(networks, jnp.asarray(starts))
    spoiled = starts.copy()
    spoiled[5] = np.nan
    others = np.delete(np.arange(24), 5)
    for column, clean in zip(run(networks, jnp.asarray(spoiled)), lanes, strict=True):
        np.testing.assert_array_equal(np.asarray(column)[:, others], np.asarray(clean)[:, others])
    assert (np.asarray(run(networks, jnp.asarray(spoiled)).status)[:, 5] == NONFINITE).all()
    # ||0.3 W|| < 1: the origin is its only point.
    np.testing.assert_allclose(lanes.hidden[0], 0, atol=1e-5)
    alone = jax.jit(lambda w, h: search(w, h, None, tolerance=0.0, max_steps=60))(networks[1], jnp.asarray(starts))
    apart = np.abs(np.asarray(lanes.hidden[1]) - np.asarray(alone.hidden)).max(1)
    assert np.mean(apart > 1e-5) <= 2 / 24  # lanes between two basins, which rounding decides
