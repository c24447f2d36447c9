"""Points close to each other are the same or different by proof, and the report says which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfp
from jaxfp import pipeline


def fold(p, h, u):
    """Fixed points at +-sqrt(p)."""
    return h + h**2 - p


@pytest.mark.parametrize("half", [1e-2, 1e-4, 1e-6, 1e-7])
def test_points_either_side_of_a_fold_are_proved_different(half):
    """They are 2 s apart with slopes +-2 s, so that each is known to eps / 2 s: down to 1e-7 far less than s."""
    points = jaxfp.find_fixed_points(fold, half**2, np.linspace(-3 * half, 3 * half, 64)[:, None])
    np.testing.assert_allclose(np.sort(points.hidden.ravel()), [-half, half], rtol=1e-2)
    near = 2 * half < 1e-3
    assert points.report.near_pairs == ({"same": 0, "different": 1, "undecided": 0} if near else {})


def test_what_the_tolerance_left_double_is_merged_by_proof():
    """A point that stands there three times, a last digit apart, is one by proof, with all hits."""
    found = jaxfp.find_fixed_points(slow_drift, 1e-5, np.random.default_rng(0).normal(size=(16, 3)))
    triple = jaxfp.take(found, [0, 0, 0])
    apart = np.array([[0.0], [1e-11], [-1e-11]])  # eps / 1e-5 is how well the point is known
    triple = triple._replace(hidden=triple.hidden + apart, q=triple.q + np.array([1.0, 0.0, 2.0]))
    with jax.enable_x64(True):
        points = pipeline._told_apart(slow_drift, 1e-5, triple, "map")
    np.testing.assert_array_equal(points.hidden, triple.hidden[1:2])  # the best of them
    assert points.n_hits.tolist() == [48]
    assert points.report.near_pairs == {"same": 3, "different": 0, "undecided": 0}


def slow_drift(p, h, u):
    """Known to eps / p only."""
    return h + p * (MIXING @ jnp.tanh(h) - 1.3 * h + 0.5)


MIXING = np.random.default_rng(1).normal(size=(3, 3))


def test_points_at_two_inputs_are_not_compared():
    points = jaxfp.find_fixed_points(driven, None, np.ones((4, 1)), np.array([[0.0], [0.0], [1e-5], [1e-5]]))
    assert len(points.hidden) == 2
    assert points.report.near_pairs == {}


def driven(p, h, u):
    return 0.5 * h + u


def test_without_a_rule_the_tolerance_decides_and_the_report_says_so():
    points = jaxfp.find_fixed_points(sorted_fold, 1e-10, np.linspace(-3e-5, 3e-5, 64)[:, None])
    assert points.report.near_pairs == {"same": 0, "different": 0, "undecided": 1}


def sorted_fold(p, h, u):
    return jnp.sort(fold(p, h, u))


def test_relation_of_certificates():
    """Same: one's existence ball in the other's uniqueness ball. Different: existence balls apart, or inputs."""
    proof = jaxfp.Certificates(
        np.array([True, True, True, False, True]),
        np.array([1e-3, 1e-3, 1e-3, np.inf, 0.5]),
        np.array([0.1, 0.1, 1e-3, 0.0, 0.5]),
        np.array([[0.0], [0.05], [0.2], [0.0], [0.7005]]),
    )
    assert jaxfp.tell_apart(proof).tolist() == [
        [1, 1, -1, 0, -1],
        [1, 1, -1, 0, -1],
        [-1, -1, 1, 0, 0],  # overlaps the last one's ball, and lies in neither uniqueness ball whole
        [0, 0, 0, 1, 0],
        [-1, -1, 0, 0, 1],
    ]
    apart = jaxfp.tell_apart(proof, np.arange(5.0)[:, None])
    assert (apart == np.where(np.eye(5, dtype=bool), 1, -1)).all()
