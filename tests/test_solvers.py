import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import jaxfp
from jaxfp.search.solvers import levenberg_marquardt as lm
from jaxfp.tasks import toys
from jaxfp.types import CONVERGED, NONFINITE

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


# Matrix-free. All residuals are of one family, so that a solver is compiled once a dtype.

KRYLOV = [jaxfp.newton_krylov, jaxfp.gauss_newton_krylov, jaxfp.truncated_newton]
N = 6
W = 1.5 * np.random.default_rng(0).normal(size=(N, N)) / np.sqrt(N)
START = np.random.default_rng(1).uniform(-1, 1, N)
NONE = {"W": np.zeros((N, N)), "B": np.zeros(N), "A": np.zeros((N, N)), "C": np.zeros(N), "c": np.zeros(N)}


def member(params, h):
    """Residual r = B tanh(W h) + A h + C h^2 + c, elementwise in B and C."""
    return params["B"] * jnp.tanh(params["W"] @ h) + params["A"] @ h + params["C"] * h**2 + params["c"]


TANH = {**NONE, "B": np.ones(N), "W": W, "A": -np.eye(N)}
# r = (1/5 + h_0^2, h_1 - h_0, 2 h_2 - h_0, ...): q has its minimum, above zero, at 0; everything is coupled.
GHOST = {
    **NONE,
    "C": np.eye(N)[0],
    "c": 0.2 * np.eye(N)[0],
    "A": np.diag(np.arange(N)) - np.outer(np.arange(N) > 0, np.eye(N)[0]),
}


@functools.cache
def one_step(build):
    return jax.jit(lambda params, state: build(50).step(functools.partial(member, params), state))


def krylov_states(build, params, hidden, dtype, n_steps, damping=1e-2):
    """Every state of n_steps iterations with n_vectors >= n, in NumPy."""
    with jax.enable_x64(dtype == "float64"):
        params = {name: jnp.asarray(x, dtype) for name, x in params.items()}
        states = [build(50, damping).init(functools.partial(member, params), jnp.asarray(hidden, dtype))]
        for _ in range(n_steps):
            states.append(one_step(build)(params, states[-1]))
        return jax.tree.map(lambda *x: np.stack(x), *states[1:])


def derivatives(params, hidden):
    """Return r, its Jacobian, and the Hessian of q, in float64."""
    with jax.enable_x64(True):
        h = jnp.asarray(hidden, float)
        r = functools.partial(member, params)
        return tuple(np.asarray(x) for x in (r(h), jax.jacfwd(r)(h), jax.hessian(lambda h: r(h) @ r(h) / 2)(h)))


def krylov_basis(matrix, start):
    columns = [start / np.linalg.norm(start)]
    for _ in range(N - 1):
        columns.append(matrix @ columns[-1] / np.linalg.norm(matrix @ columns[-1]))
    return np.linalg.qr(np.stack(columns, 1))[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", KRYLOV)
def test_a_whole_krylov_space_gives_the_dense_step(build, dtype):
    """With n_vectors >= n the step is -(J'J + mu I)^-1 J'r, Levenberg-Marquardt's, or -(H + mu I)^-1 J'r, Newton's.

    H is the exact Hessian of q; mu is the damping times the largest diagonal entry in the solver's own basis.
    """
    newton = build is jaxfp.truncated_newton
    params, start = (GHOST, 0.3 * START) if newton else (TANH, START)
    r, jacobian, hessian = derivatives(params, np.asarray(start, dtype))
    matrix = hessian if newton else jacobian.T @ jacobian
    assert np.linalg.eigvalsh(matrix)[0] > 0
    basis = krylov_basis(jacobian, r) if build is jaxfp.newton_krylov else krylov_basis(matrix, jacobian.T @ r)
    mu = 1e-2 * np.diag(basis.T @ matrix @ basis).max()
    step = -np.linalg.solve(matrix + mu * np.eye(N), jacobian.T @ r)
    moved = krylov_states(build, params, start, dtype, 1).hidden[0] - np.asarray(start, dtype)
    tolerance = 100 * np.finfo(dtype).eps * np.linalg.cond(matrix)  # of the normal equations
    np.testing.assert_allclose(moved, step, rtol=0, atol=tolerance)
    assert tolerance < 0.1 * np.linalg.norm(step)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", KRYLOV)
def test_krylov_solvers_end_quadratically_at_zeros(build, dtype):
    """Near a zero of tanh(W h) - h a step squares the error, down to the floor of the dtype, and there it is done."""
    params = {**TANH, "W": 1.5 * np.eye(N) + 0.2 * W}
    zero = scipy.optimize.root(lambda h: np.tanh(params["W"] @ h) - h, np.sign(START), tol=1e-15).x
    assert np.linalg.norm(zero) > 1
    states = krylov_states(build, params, zero + 0.02 * START, dtype, 12, 1e-9)
    error = np.linalg.norm(states.hidden - zero, axis=1)
    eps = np.finfo(dtype).eps
    assert (np.diff(states.q) <= 0).all()
    assert states.done[-1] or states.q[-1] == 0  # which the engine ends by its tolerance
    jacobian = derivatives(params, zero)[1]
    assert error[-1] <= 8 * eps * np.sqrt(N) * np.linalg.norm(zero) * np.linalg.norm(np.linalg.inv(jacobian), 2)
    assert np.argmax(states.done | (states.q == 0)) <= 5
    if dtype == "float64":  # float32 is at its floor before a power can be read
        far = np.flatnonzero(error[1:] > 1e-13)
        assert len(far) >= 1
        assert (error[far + 1] < 10 * error[far] ** 2 + 1e-8 * error[far]).all()  # the damping is linear


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", KRYLOV)
def test_no_step_along_a_line_attractor(build, dtype):
    """For h' = w (w . h) a lane moves straight to the line, to w (w . h): nothing pushes it along w."""
    w = np.arange(1.0, N + 1) / np.linalg.norm(np.arange(1.0, N + 1))
    states = krylov_states(build, {**NONE, "A": np.outer(w, w) - np.eye(N)}, START, dtype, 20)
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(states.hidden @ w, np.full(20, w @ START), rtol=0, atol=tolerance)
    np.testing.assert_allclose(states.hidden[-1], w * (w @ START), rtol=0, atol=tolerance)


def test_truncated_newton_ends_at_minima_of_q_to_rounding():
    """At a minimum of q above zero it is where q alone rounds after 6 steps, while Gauss-Newton creeps on after 12."""
    creeps = krylov_states(jaxfp.gauss_newton_krylov, GHOST, 0.3 * START, "float64", 12, 1e-6)
    states = krylov_states(jaxfp.truncated_newton, GHOST, 0.3 * START, "float64", 12, 1e-6)

    def slope(hidden):
        r, jacobian, _ = derivatives(GHOST, hidden)
        return np.linalg.norm(jacobian.T @ r)

    # A step that changes q by less than eps q cannot be told from none: eps q = h' H h / 2.
    least = np.linalg.eigvalsh(derivatives(GHOST, np.zeros(N))[2])[0]
    assert np.linalg.norm(states.hidden[5]) <= np.sqrt(4 * np.finfo(float).eps * 0.02 / least)
    assert states.q[5] == pytest.approx(0.02, rel=1e-15)
    assert (np.diff(states.q) <= 0).all()
    assert slope(creeps.hidden[-1]) > 1e3 * slope(states.hidden[5])
    assert creeps.q[-1] == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("build", KRYLOV)
def test_krylov_solvers_refuse_steps_that_raise_q(build):
    """A bold step past a zero, or to where r is infinite, is not taken: the damping grows, and q ends at 0 or stays."""
    far = {**NONE, "B": np.ones(N), "W": np.eye(N)}  # tanh h from 2: Newton would go to -11.6, where r^2 is larger
    states = krylov_states(build, far, np.full(N, 2.0), "float32", 25, 1e-6)
    assert states.damping[0] > 1e-6
    np.testing.assert_array_equal(states.hidden[0], 2)
    assert (np.diff(states.q) <= 0).all()
    assert states.q[-1] < (1e-12 if build is not jaxfp.truncated_newton else 6 / 2)  # tanh^2 is not convex at 2
    flat = krylov_states(build, {**NONE, "c": np.ones(N)}, START, "float32", 5)  # J = 0
    np.testing.assert_array_equal(flat.hidden, np.tile(START.astype(np.float32), (5, 1)))
    assert np.isfinite(flat.damping).all()


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

    @functools.partial(jax.jit, static_argnums=0)
    def search(solver, w, h):
        return jaxfp.build_search(counted, solver)(w, h, None, tolerance=0.0, max_steps=3)

    w, h = jnp.asarray(W, jnp.float32), jnp.asarray(START, jnp.float32)[None]
    search.eval_shape(build(4), w, h)
    first = len(calls)
    search.eval_shape(build(4), 2 * w, -h)
    assert len(calls) == first > 0
    search.eval_shape(build(3), w, h)
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
    """Under jit and a vmap over networks a NaN lane leaves the others bit-equal, and so does another network."""
    search = jaxfp.build_search(weighted, build(4))
    run = jax.jit(jax.vmap(lambda w, h: search(w, h, None, tolerance=0.0, max_steps=60), (0, None)))
    networks = jnp.asarray(np.stack([0.3 * W, W]), jnp.float32)
    starts = np.random.default_rng(3).uniform(-1, 1, (24, N)).astype(np.float32)
    spoiled = starts.copy()
    spoiled[5] = np.nan
    others = np.delete(np.arange(24), 5)
    lanes, with_nan, twice = run(networks, starts), run(networks, spoiled), run(networks[jnp.array([1, 1])], starts)
    for column, nan_column, twice_column in zip(lanes, with_nan, twice, strict=True):
        np.testing.assert_array_equal(np.asarray(nan_column)[:, others], np.asarray(column)[:, others])
        np.testing.assert_array_equal(np.asarray(twice_column)[1], np.asarray(column)[1])
    assert (np.asarray(with_nan.status)[:, 5] == NONFINITE).all()
    assert len(np.unique(lanes.n_steps)) > 2
    assert (lanes.status[0] == CONVERGED).all()
    np.testing.assert_allclose(lanes.hidden[0], 0, atol=1e-5)  # ||0.3 W|| < 1: the origin is its only point
