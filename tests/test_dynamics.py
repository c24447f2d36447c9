import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems

import jaxfp
from jaxfp import dynamics
from jaxfp.tasks import toys

WEIGHTS = systems.suite_weights(4)
RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(5, 4))


@pytest.mark.parametrize("kind", ["map", "flow"])
def test_residual_q_and_speed_are_their_equations(kind):
    """The residual r is F(h) - h of a map and F(h) of a flow, q = ||r||^2 / 2, speed = sqrt(2 q), as NumPy says."""
    r = np.tanh(STATES @ WEIGHTS) - (STATES if kind == "map" else 0)
    # A dozen roundings of numbers of order one.
    close = {"rtol": 0, "atol": 16 * np.finfo(float).eps}
    np.testing.assert_allclose(jaxfp.residual(systems.tanh_row, WEIGHTS, STATES, kind=kind), r, **close)
    np.testing.assert_allclose(jaxfp.speed(systems.tanh_row, WEIGHTS, STATES, kind=kind), np.sqrt((r**2).sum(1)))
    np.testing.assert_allclose(jaxfp.q(systems.tanh_row, WEIGHTS, STATES, kind=kind), (r**2).sum(1) / 2)


@pytest.mark.parametrize("wide", [False, True])
def test_float64_numpy_is_computed_in_float64_whatever_the_caller_has_set(wide):
    """Float64 NumPy gives float64 NumPy, float32 weights widened exactly, and the caller's x64 setting stays."""
    weights = jnp.asarray(WEIGHTS, jnp.float32)
    with jax.enable_x64(wide):
        r = jaxfp.residual(systems.tanh_row, weights, STATES)
        linear = jaxfp.linearize(systems.tanh_row, weights, STATES)
        assert jax.config.jax_enable_x64 == wide
    assert isinstance(r, np.ndarray)
    assert isinstance(linear.jacobian, np.ndarray)
    assert r.dtype == linear.jacobian.dtype == np.float64
    expected = np.tanh(STATES @ np.asarray(weights, np.float64)) - STATES
    np.testing.assert_allclose(r, expected, rtol=0, atol=16 * np.finfo(float).eps)
    in_float32 = np.tanh(STATES.astype(np.float32) @ np.asarray(weights)) - STATES.astype(np.float32)
    assert abs(in_float32 - expected).max() > 1e-9  # what float32 would have given is not what came


def test_jax_arrays_keep_their_dtype():
    """A float32 jax array is computed in float32, eagerly as under jit."""
    hidden, weights = jnp.asarray(STATES, jnp.float32), jnp.asarray(WEIGHTS, jnp.float32)
    eager = jaxfp.q(systems.tanh_row, weights, hidden)
    jitted = jax.jit(lambda w, h: jaxfp.q(systems.tanh_row, w, h))(weights, hidden)
    assert eager.dtype == jitted.dtype == jnp.float32
    np.testing.assert_allclose(eager, jitted, rtol=4e-7)  # the same sum in another order
    assert np.abs(np.asarray(jaxfp.q(systems.tanh_row, WEIGHTS, STATES)) - eager).max() < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stages_compose_under_jit_vmap_and_grad(dtype):
    """All traceable stages work under jit and vmap over weights, in the dtype of hidden, as in a loop; grad, too."""
    with jax.enable_x64(dtype == "float64"):
        hidden = jnp.asarray(STATES[0], dtype)
        ensemble = jnp.stack([jnp.asarray(scale * WEIGHTS, dtype) for scale in (0.5, 1.0, 2.0)])

        def everything(weights):
            return (
                jaxfp.residual(systems.tanh_row, weights, hidden),
                jaxfp.q(systems.tanh_row, weights, hidden),
                jaxfp.speed(systems.tanh_row, weights, hidden),
                jaxfp.simulate(systems.tanh_row, weights, hidden, n_time=3),
                jaxfp.linearize(systems.tanh_row, weights, hidden).jacobian,
                abs(jaxfp.spectrum(jaxfp.linearize(systems.tanh_row, weights, hidden).jacobian, vectors=False)[0]),
            )

        together = jax.jit(jax.vmap(everything))(ensemble)
        for i, weights in enumerate(ensemble):
            for batched, alone in zip(together, jax.jit(everything)(weights), strict=True):
                assert batched.dtype == alone.dtype == dtype
                tolerance = np.finfo(dtype).eps ** 0.5  # the zero eigenvalue is double: it moves by sqrt(eps)
                np.testing.assert_allclose(batched[i], alone, rtol=tolerance, atol=3 * tolerance)

        slope = jax.jit(jax.grad(lambda w: jaxfp.q(systems.tanh_row, w, hidden)))(ensemble[1])
        r, at = jaxfp.residual(systems.tanh_row, ensemble[1], hidden), jnp.tanh(hidden @ ensemble[1])
        assert slope.dtype == dtype
        # dq/dW_ij = h_i (1 - tanh^2)_j r_j
        np.testing.assert_allclose(slope, jnp.outer(hidden, (1 - at**2) * r), rtol=0, atol=64 * np.finfo(dtype).eps)


def test_constants_inside_a_users_jit_are_folded_in_float64():
    """A float64 NumPy constant inside a float32 jit is evaluated in float64 while tracing, and breaks nothing."""

    @jax.jit
    def outer(x):
        return x * np.float32(jaxfp.q(systems.tanh_row, WEIGHTS, STATES[0]))

    assert outer(jnp.float32(2)) == np.float32(2) * np.float32(jaxfp.q(systems.tanh_row, WEIGHTS, STATES[0]))


FIELDS = [
    (toys.three_points, None, "flow", [0.3, -0.7], [1.0, 0.5]),
    (toys.ghost, -0.01, "flow", [0.3, 0.8], [0.6, 0.6]),
    (systems.tanh_row, systems.suite_weights(2), "map", [0.4, -0.2], [0.0, 0.0]),
]


@pytest.mark.parametrize(("step_fn", "params", "kind", "start", "zero"), FIELDS)
def test_gradient_of_q_is_jacobian_transposed_times_residual(step_fn, params, kind, start, zero):
    """T3: grad q = J_r' r everywhere, and at a zero of r the Hessian of q is Gauss-Newton's J_r' J_r; not elsewhere."""
    with jax.enable_x64(True):
        params = dynamics.widen(params)

        def q_of(h):
            return jaxfp.q(step_fn, params, h, kind=kind)

        def residual_jacobian(h):
            jacobian = jaxfp.linearize(step_fn, params, np.asarray(h)).jacobian
            return jacobian - np.eye(2) if kind == "map" else jacobian

        h = jnp.array(start)
        expected = residual_jacobian(h).T @ jaxfp.residual(step_fn, params, np.asarray(h), kind=kind)
        np.testing.assert_allclose(jax.jit(jax.grad(q_of))(h), expected, rtol=1e-10)
        gauss_newton = residual_jacobian(jnp.array(zero)).T @ residual_jacobian(jnp.array(zero))
        hessian = jax.jit(jax.hessian(q_of))
        error = np.linalg.norm(hessian(jnp.array(zero)) - gauss_newton) / np.linalg.norm(gauss_newton)
        assert error < 1e-10
        away = np.asarray(hessian(h)) - residual_jacobian(h).T @ residual_jacobian(h)
        assert np.linalg.norm(away) > 1e-2 * np.linalg.norm(gauss_newton)


def test_q_does_not_depend_on_the_frame():
    """With h -> Q h and W -> Q W Q', q of the affine map stays and its residual turns with Q."""
    rotation = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    params = {"A": WEIGHTS, "b": RNG.normal(size=4)}
    turned = {"A": rotation @ WEIGHTS @ rotation.T, "b": rotation @ params["b"]}
    before, after = (jaxfp.residual(systems.affine, p, h) for p, h in ((params, STATES), (turned, STATES @ rotation.T)))
    np.testing.assert_allclose(after, before @ rotation.T, rtol=0, atol=2e-14)  # some 50 roundings of order one
    assert abs(after - before).max() > 0.1


def test_inputs_are_none_one_for_all_or_one_each():
    """Inputs (n_inputs,) drive all states, (n_points, n_inputs) each its own; both equal one state at a time."""
    params = {"W": WEIGHTS, "B": RNG.normal(size=(4, 2))}
    drives = RNG.normal(size=(5, 2))
    each = jaxfp.q(systems.driven, params, STATES, drives)
    alone = [jaxfp.q(systems.driven, params, h, u) for h, u in zip(STATES, drives, strict=True)]
    np.testing.assert_allclose(each, alone, rtol=1e-14)
    shared = jaxfp.q(systems.driven, params, STATES, drives[0])
    np.testing.assert_allclose(shared, jaxfp.q(systems.driven, params, STATES, np.tile(drives[0], (5, 1))), rtol=1e-14)
    assert shared.shape == (5,)
    assert each[0] == pytest.approx(shared[0], rel=1e-14)
    assert abs(each[1:] - shared[1:]).min() > 1e-3


@pytest.mark.parametrize(
    ("hidden", "inputs", "wanted"),
    [
        (np.zeros((2, 3, 4)), None, r"\(n_points, n_hidden\)"),
        (np.zeros(4), np.zeros((1, 2)), r"\(n_points, n_inputs\)"),
        (np.zeros((3, 4)), np.zeros((2, 2)), "one row for each of 3 states"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(hidden, inputs, wanted):
    """States and inputs of the wrong rank or number raise ValueError that names what was wanted."""
    with pytest.raises(ValueError, match=wanted):
        jaxfp.q(systems.driven, {"W": WEIGHTS, "B": np.zeros((4, 2))}, hidden, inputs)


def test_unknown_kind_is_refused():
    """Only "map" and "flow" are kinds."""
    with pytest.raises(ValueError, match='"map" or "flow", got \'ode\''):
        jaxfp.q(systems.tanh_row, WEIGHTS, STATES, kind="ode")


def test_simulate_is_the_python_loop():
    """The states are h_t = F(h_{t-1}, u_t) step by step, for one trial, for many, and without inputs."""
    params = {"W": WEIGHTS, "B": RNG.normal(size=(4, 2))}
    drives = RNG.normal(size=(3, 7, 2))
    expected = np.zeros((3, 7, 4))
    for trial in range(3):
        h = STATES[trial]
        for t in range(7):
            h = expected[trial, t] = np.tanh(WEIGHTS @ h + params["B"] @ drives[trial, t])
    close = {"rtol": 0, "atol": 1e-13}  # seven steps, each doubling the rounding at most
    np.testing.assert_allclose(jaxfp.simulate(systems.driven, params, STATES[:3], drives), expected, **close)
    np.testing.assert_allclose(jaxfp.simulate(systems.driven, params, STATES[0], drives[0]), expected[0], **close)
    shared = jaxfp.simulate(systems.driven, params, STATES[0], drives)
    np.testing.assert_allclose(shared[0], expected[0], **close)
    assert shared.shape == (3, 7, 4)
    free = jaxfp.simulate(systems.scalar_tanh, 1.5, hidden0=np.ones(1), n_time=2)
    np.testing.assert_allclose(free.ravel(), [np.tanh(1.5), np.tanh(1.5 * np.tanh(1.5))], rtol=1e-15)


@pytest.mark.parametrize(
    ("hidden0", "inputs", "n_time", "wanted"),
    [
        (np.zeros(4), None, None, "inputs or n_time, one of them"),
        (np.zeros(4), np.zeros((3, 2)), 3, "inputs or n_time, one of them"),
        (np.zeros(4), np.zeros(2), None, r"\(n_time, n_inputs\)"),
        (np.zeros((1, 1, 4)), None, 3, r"\(n_trials, n_hidden\)"),
    ],
)
def test_simulate_refuses_what_does_not_fit(hidden0, inputs, n_time, wanted):
    """Neither or both of inputs and n_time, and wrong ranks, raise ValueError."""
    with pytest.raises(ValueError, match=wanted):
        jaxfp.simulate(systems.driven, {"W": WEIGHTS, "B": np.zeros((4, 2))}, hidden0, inputs, n_time=n_time)


def test_widen_keeps_every_number_and_every_integer():
    """Floats become float64 exactly; integers, booleans, keys and None stay what they were."""
    tree = {"w": np.float32(0.1), "n": np.arange(3), "on": True, "none": None, "x": 0.1, "key": jax.random.key(0)}
    with jax.enable_x64(True):
        wide = dynamics.widen(tree)
        assert wide["w"].dtype == wide["x"].dtype == np.float64
        assert float(wide["w"]) == float(np.float32(0.1))
    assert wide["n"] is tree["n"]
    assert wide["key"] is tree["key"]
    assert wide["on"] is True
    assert wide["none"] is None
