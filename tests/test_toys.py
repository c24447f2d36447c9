import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfp
from jaxfp import FIXED, SLOW
from jaxfp.tasks import toys

SIDE = np.linspace(-2, 2, 15)
GRID = np.stack(np.meshgrid(SIDE, SIDE), axis=-1).reshape(-1, 2)


def nearest(hidden, known):
    """Row of `known` for each point, and how far."""
    distance = np.linalg.norm(hidden[:, None] - np.array([k.hidden for k in known])[None], axis=2)
    return distance.argmin(1), distance.min(1)


@pytest.fixture(scope="module")
def three():
    return jaxfp.find_fixed_points(toys.three_points, None, GRID, kind="flow")


def test_three_points_are_found_and_nothing_else(three):
    """T1: from a 15 x 15 grid exactly the saddle and the two nodes, errors < 1e-10, every candidate at one of them."""
    np.testing.assert_allclose(toys.three_points(None, three.hidden.T), 0, atol=1e-15)
    row, distance = nearest(three.hidden, toys.known_three_points())
    assert sorted(row) == [0, 1, 2]
    assert distance.max() < 1e-10
    assert (three.status == FIXED).all()
    assert three.isolated.all()
    assert three.n_hits.sum() == len(GRID)
    assert three.report.kind == "flow"
    assert three.report.inputs is three.inputs is None


def test_three_points_have_their_spectra(three):
    """T1: unstable dimensions {1, 0, 0}, eigenvalues (-1 +- sqrt 3) / 2 and the double -1.

    The nodes' matrix [[-1, 0], [1/2, -1]] is defective: no modes, yet a finite bound that covers -1, and a verdict.
    """
    linear = jaxfp.linearize(toys.three_points, None, three.hidden)
    modes = jaxfp.spectrum(linear.jacobian, kind="flow")
    row, _ = nearest(three.hidden, toys.known_three_points())
    expected = np.array([k.eigenvalues for k in toys.known_three_points()])[row]
    assert (abs(modes.eigenvalues - expected) <= modes.bound).all()
    saddle = row == 0
    np.testing.assert_allclose(modes.eigenvalues[saddle], expected[saddle], atol=1e-14)
    np.testing.assert_array_equal(modes.n_unstable, saddle)
    np.testing.assert_array_equal(modes.verdict, np.where(saddle, "unstable", "stable"))
    assert np.isnan(modes.right[~saddle]).all()
    assert np.isinf(modes.condition[~saddle]).all()
    assert (modes.bound[~saddle] < 1e-6).all()  # of order sqrt(eps), as for any double eigenvalue
    np.testing.assert_allclose(linear.jacobian[~saddle], [[[-1, 0], [0.5, -1]]] * 2, atol=1e-14)
    audit = jaxfp.audit(three, linear)
    assert audit.index_sum == 1  # two nodes and a saddle
    assert audit.expected is None  # toy A is no field that points inward on a ball


@pytest.mark.parametrize("a", [1e-3, 1e-2, 1e-1])
def test_ghost_is_slow_and_measured(a):
    """T2: for a > 0 one SLOW point at (1/2, 1/2 + a/2), q = a^2 / 4 to 1e-8, speed a / sqrt 2, eigenvalue 0 to 1e-4."""
    points = jaxfp.find_fixed_points(toys.ghost, a, GRID, kind="flow")
    known = toys.known_ghost(a)[0]
    assert points.status.tolist() == [SLOW]
    assert points.n_hits.tolist() == [len(GRID)]
    field = np.asarray(toys.ghost(a, points.hidden[0]), np.float64)
    np.testing.assert_allclose(np.linalg.norm(field), points.speed[0], rtol=1e-4)  # the field here in float32
    np.testing.assert_allclose(points.q, known.q, rtol=1e-8)
    np.testing.assert_allclose(points.speed, a / np.sqrt(2), rtol=1e-8)
    # q is flat to second order: it is known to eps where its place is known to sqrt(eps).
    np.testing.assert_allclose(points.hidden[0], known.hidden, atol=1e-6)
    linear = jaxfp.linearize(toys.ghost, a, points.hidden)
    modes = jaxfp.spectrum(linear.jacobian, kind="flow")
    np.testing.assert_allclose(modes.eigenvalues[0], known.eigenvalues, atol=1e-4)
    assert points.report.candidate_speed > 5 * points.speed[0]
    audit = jaxfp.audit(points, linear, bounded=False)
    assert audit.index_sum == 0
    assert (audit.n_fixed, audit.n_slow) == (0, 1)


@pytest.mark.parametrize("a", [-1e-2, -1e-10])
def test_before_the_bifurcation_there_are_two(a):
    """For a < 0 a node at 1/2 + sqrt(-a) and a saddle at 1/2 - sqrt(-a), however close, and no slow point."""
    points = jaxfp.find_fixed_points(toys.ghost, a, GRID, kind="flow")
    known = toys.known_ghost(a)
    row, distance = nearest(points.hidden, known)
    assert sorted(row) == [0, 1]
    # r = d^2 + 2 sqrt(-a) d stops at rounding, 1e-15 or so.
    assert distance.max() < 1e-14 / np.sqrt(-a)
    assert (points.status == FIXED).all()
    modes = jaxfp.spectrum(jaxfp.linearize(toys.ghost, a, points.hidden).jacobian, kind="flow")
    np.testing.assert_allclose(modes.eigenvalues, np.array([k.eigenvalues for k in known])[row], atol=1e-7)
    np.testing.assert_array_equal(modes.verdict, np.where(row == 0, "stable", "unstable"))


def test_at_the_bifurcation_there_is_one_whose_sign_nobody_knows():
    """At a = 0 the double point is one FIXED point to sqrt(eps), and its index is left open."""
    points = jaxfp.find_fixed_points(toys.ghost, 0.0, GRID, kind="flow")
    assert points.status.tolist() == [FIXED]
    # r = d^2: rounding of r leaves sqrt(eps) of d.
    np.testing.assert_allclose(points.hidden, 0.5, atol=4 * np.sqrt(np.finfo(float).eps))
    audit = jaxfp.audit(points, jaxfp.linearize(toys.ghost, 0.0, points.hidden))
    assert audit.index_sum is None


@pytest.mark.parametrize(("field", "params", "known"), [
    (toys.three_points, None, toys.known_three_points()),
    *((toys.ghost, a, toys.known_ghost(a)) for a in (-0.04, 0.0, 0.3)),
])  # fmt: skip
def test_what_is_said_to_be_known_is_true(field, params, known):
    """At every known point q and the eigenvalues are those of the field, and q is stationary there."""

    def q_of(x):
        return jnp.sum(field(params, x) ** 2) / 2

    with jax.enable_x64(True):
        for point in known:
            h = jnp.asarray(point.hidden)
            assert q_of(h) == pytest.approx(point.q, abs=1e-15)
            np.testing.assert_allclose(jax.jit(jax.grad(q_of))(h), 0, atol=1e-15)
            eigenvalues = np.linalg.eigvals(jax.jit(jax.jacfwd(lambda x: field(params, x)))(h))
            np.testing.assert_allclose(np.sort(eigenvalues.real)[::-1], point.eigenvalues, atol=1e-7)  # defective ones
