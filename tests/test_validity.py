"""Where the linear model holds: Taylor terms, predictions and radii against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import systems

import jaxfp
from jaxfp.tasks import toys

RNG = np.random.default_rng(0)
A, B, Q = RNG.normal(size=(3, 3)) / 2, RNG.normal(size=(3, 2)), RNG.normal(size=(3, 3, 3))
PARAMS = {"A": A, "Q": (Q + Q.transpose(0, 2, 1)) / 2, "B": B}


def quadratic(params, hidden, inputs):
    """One step: h' = A h + h' Q h + B u, or the same as a vector field."""
    return params["A"] @ hidden + jnp.einsum("ijk,j,k->i", params["Q"], hidden, hidden) + params["B"] @ inputs


@pytest.mark.parametrize("kind", ["map", "flow"])
def test_taylor_terms_of_a_quadratic_are_exact(kind):
    """Of A h + h'Qh + B u: r' = A + 2 Q h (- I for a map), r''/2 = Q; and the three terms sum to r(h + d)."""
    hidden, drives, ways = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2)), RNG.normal(size=(4, 5, 3))
    terms = jaxfp.taylor_terms(quadratic, PARAMS, hidden, drives, ways, kind=kind)
    slope = A + 2 * np.einsum("ijk,pj->pik", PARAMS["Q"], hidden) - (np.eye(3) if kind == "map" else 0)
    close = {"rtol": 64 * np.finfo(float).eps}
    np.testing.assert_allclose(terms.constant, jaxfp.speed(quadratic, PARAMS, hidden, drives, kind=kind), **close)
    np.testing.assert_allclose(terms.first, np.linalg.norm(np.einsum("pik,pdk->pdi", slope, ways), axis=2), **close)
    second = np.einsum("ijk,pdj,pdk->pdi", PARAMS["Q"], ways, ways)
    np.testing.assert_allclose(terms.second, np.linalg.norm(second, axis=2), **close)
    usable = (terms.first > terms.constant[:, None]) & (terms.first > terms.second)
    np.testing.assert_array_equal(terms.usable, usable)
    alone = jaxfp.taylor_terms(quadratic, PARAMS, hidden[1], drives[1], ways[1], kind=kind)
    for column, one in zip(terms, alone, strict=True):
        np.testing.assert_allclose(column[1], one, **close)


def test_second_term_of_tanh_is_the_papers():
    """Of x' = -x + J tanh(x) the second term is 1/2 sum_k J_ik (-2 r_k (1 - r_k^2)) d_k^2; no third tensor."""
    x, d = RNG.normal(size=3), RNG.normal(size=(2, 3))
    r = np.tanh(x)
    terms = jaxfp.taylor_terms(current, A, x, None, d, kind="flow")
    expected = np.linalg.norm((-r * (1 - r**2) * d**2) @ A.T, axis=1)
    np.testing.assert_allclose(terms.second, expected, rtol=1e-13)


def current(params, hidden, inputs):
    """Flow: x' = -x + J tanh(x)."""
    return -hidden + params @ jnp.tanh(hidden)


def test_prediction_of_a_map_is_the_linear_one_beside_the_true_one():
    """From h* + d the states are the map's, the prediction h* + J^t d, at a slow point with its drift added."""
    start, ways = np.zeros(3), 0.1 * RNG.normal(size=(4, 3))
    for drive in (np.zeros(2), np.array([0.01, -0.02])):  # with a drive 0 is no fixed point
        result = jaxfp.linear_prediction(quadratic, PARAMS, start, drive, ways, n_steps=5)
        y, z, largest = ways, ways, np.linalg.norm(ways, axis=1)
        for t in range(5):
            y = y @ A.T + np.einsum("ijk,dj,dk->di", PARAMS["Q"], y, y) + B @ drive
            z = z @ A.T + B @ drive
            largest = np.maximum(largest, np.linalg.norm(y, axis=1))
            np.testing.assert_allclose(result.hidden[:, t], y, atol=1e-15)
            np.testing.assert_allclose(result.predicted[:, t], z, atol=1e-15)
            np.testing.assert_allclose(result.error[:, t], np.linalg.norm(y - z, axis=1) / largest, atol=1e-14)


def test_prediction_of_a_flow_is_the_exponential():
    """The linear model of a flow is exp(J t) d to the order of its integrator, dt^4."""
    ways = np.array([[1e-3, 0.0], [0.0, 1e-3]])
    node = np.array([1.0, 0.5])
    result = jaxfp.linear_prediction(toys.three_points, None, node, None, ways, n_steps=100, kind="flow", dt=0.01)
    exact = node + ways @ scipy.linalg.expm(np.array([[-1.0, 0.0], [0.5, -1.0]])).T
    np.testing.assert_allclose(result.predicted[:, -1], exact, rtol=0, atol=1e-3 * 1e-9)
    assert (result.error < 2e-3).all()  # of second order: some |d|
    assert result.error.max() > 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_linear_map_is_valid_everywhere(dtype):
    """Nothing but rounding is wrong: the radius is infinite, in both dtypes, stable or not."""
    with jax.enable_x64(dtype == "float64"):
        params = {"A": jnp.asarray(1.2 * A, dtype), "b": jnp.ones(3, dtype)}
        point = jnp.linalg.solve(jnp.eye(3, dtype=dtype) - params["A"], params["b"])
        found = jaxfp.validity_radius(systems.affine, params, point, None, jnp.eye(3, dtype=dtype), n_steps=7)
        assert found.radius.dtype == dtype
        found = jax.tree.map(np.asarray, found)
    assert np.isinf(found.radius).all()
    assert (found.error < 0.1).all()


@pytest.mark.parametrize("tolerance", [0.01, 0.1])
def test_radius_of_a_scalar_tanh_is_a_root(tolerance):
    """At 0 of h' = tanh(w h): |w d - tanh(w d)| = tolerance max(d, tanh(w d)) in one step; odd, so both signs alike."""
    for w in (0.5, 1.5):
        found = jaxfp.validity_radius(
            systems.scalar_tanh, w, np.zeros(1), None, np.array([[1.0], [-3.0]]), tolerance=tolerance, n_steps=1
        )
        exact = scipy.optimize.brentq(
            lambda d, w=w: w * d - np.tanh(w * d) - tolerance * max(d, np.tanh(w * d)), 1e-3, 10
        )
        np.testing.assert_allclose(found.radius, exact, rtol=2.0**-23)  # 24 bisections of a doubling
        np.testing.assert_allclose(found.error, tolerance, rtol=1e-6)
        assert (found.error <= tolerance).all()


def test_radius_is_that_of_the_worse_side_and_of_all_steps():
    """Of h' = 2 h + h^2 from +-d one step errs by d^2 / (2 d +- d^2): the lesser side decides; more steps, less."""
    ways = np.ones((1, 1))
    one = jaxfp.validity_radius(lopsided, None, np.zeros(1), None, ways, n_steps=1)
    # At -d: d^2 = 0.1 max(d, 2 d - d^2), so d = 0.2 / 1.1; at +d: d = 0.2 / 0.9.
    assert one.radius[0] == pytest.approx(0.2 / 1.1, rel=2.0**-23)
    more = jaxfp.validity_radius(lopsided, None, np.zeros(1), None, ways, n_steps=3)
    inside, outside = (
        jaxfp.linear_prediction(
            lopsided, None, np.zeros(1), None, s * more.radius[0] * np.array([[1.0], [-1.0]]), n_steps=3
        )
        for s in (1, 1.001)
    )
    assert more.radius[0] < one.radius[0]
    assert inside.error.max() <= 0.1 < outside.error.max()
    assert (
        jaxfp.validity_radius(lopsided, None, np.zeros(1), None, ways, n_steps=1, max_radius=1e-3).radius[0] == np.inf
    )


def lopsided(params, hidden, inputs):
    """One step: h' = 2 h + h^2."""
    return 2 * hidden + hidden**2


def kinked(params, hidden, inputs):
    """One step: h' = |h|, whose slope at 0 is nobody's."""
    return jnp.abs(hidden)


def test_where_there_is_no_linear_model_the_radius_is_zero():
    """At a kink the prediction is wrong however near; a state that overflows is outside; points come in rows."""
    assert jaxfp.validity_radius(kinked, None, np.zeros(1), None, np.ones((1, 1))).radius[0] == 0
    points = np.zeros((2, 3))
    found = jaxfp.validity_radius(quadratic, PARAMS, points, np.zeros(2), np.eye(3), n_steps=40)
    assert found.radius.shape == (2, 3)
    np.testing.assert_array_equal(found.radius[0], found.radius[1])
    assert ((found.radius > 1e-3) & (found.radius < 10)).all()


@pytest.mark.parametrize(
    ("hidden", "ways", "keywords", "wanted"),
    [
        (np.zeros(1), np.ones(1), {}, r"\(n_directions, n_hidden\)"),
        (np.zeros(1), np.ones((2, 2)), {}, r"\(n_directions, 1\)"),
        (np.zeros((2, 1)), np.ones((3, 2, 1)), {}, "one stack a point"),
        (np.zeros(1), np.ones((1, 1)), {"n_steps": 0}, "n_steps must be a positive integer"),
        (np.zeros(1), np.ones((1, 1)), {"tolerance": 0.0}, "tolerance must be positive"),
        (np.zeros(1), np.ones((1, 1)), {"kind": "ode"}, '"map" or "flow"'),
    ],
)
def test_bad_arguments_are_refused(hidden, ways, keywords, wanted):
    hidden, ways = jnp.asarray(hidden, jnp.float32), jnp.asarray(ways, jnp.float32)
    with pytest.raises(ValueError, match=wanted):
        jaxfp.validity_radius(lopsided, None, hidden, None, ways, **keywords)
