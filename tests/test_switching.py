"""Analysis of switching linear systems: clusters, selection and the baseline are what their definitions say."""

import itertools

import numpy as np
import pytest
import systems

import jaxfp
from jaxfp.analysis import switching

RANDOM = np.random.default_rng(0)
CORNERS = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
SQUARE = {
    "A": np.array([[0.5, 0.2], [-0.3, 0.6]]),
    "b": np.array([0.3, -0.2]),
    "B": np.array([[1.0, 2.0], [0.5, -1.0]]),
}


def test_relative_error_is_the_mean_of_ratios_not_the_ratio_of_means():
    hidden = np.array([[[1.0, 0.0]], [[0.0, 100.0]]])
    assert switching.relative_error(hidden * 1.5, hidden) == 0.5
    assert switching.relative_error(hidden + np.array([[[1.0, 0.0]], [[0.0, 0.0]]]), hidden) == 0.5
    with pytest.raises(ValueError, match="one shape"):
        switching.relative_error(hidden[:1], hidden)


def test_clusters_are_those_that_were_put_there():
    """Corners of a cube, 2 apart, with 10, 11, ... points within 0.05 of each, in any order."""
    truth = np.repeat(np.arange(8), 10 + np.arange(8))
    points = CORNERS[truth] + 0.05 * RANDOM.uniform(-1, 1, (len(truth), 3))
    order = RANDOM.permutation(len(truth))
    found = switching.find_clusters(points[order])
    np.testing.assert_array_equal(found.size, 17 - np.arange(8))
    np.testing.assert_array_equal(found.label, 7 - truth[order])
    for i, corner in enumerate(CORNERS[::-1]):
        own = points[truth == 7 - i]
        np.testing.assert_allclose(found.center[i], own.mean(0))
        np.testing.assert_allclose(found.spread[i] ** 2, own.var(0).sum())
        assert np.abs(found.center[i] - corner).max() < 0.05
    assert found.leap[0] < 0.1 < 1.8 < found.leap[1]


def test_single_linkage_follows_a_line():
    """Two rows of points, 1 apart, each much longer than that: a rule by diameters would cut the rows."""
    row = np.linspace(0, 10, 101)
    points = np.concatenate([np.stack([row, 0 * row], 1), np.stack([row, 1 + 0 * row], 1)])
    assert switching.find_clusters(points).size.tolist() == [101, 101]
    with pytest.raises(ValueError, match="at least 3"):
        switching.find_clusters(points[:2])


def test_selection_is_what_unit_left_eigenvectors_take_up():
    """J = R diag(0.5, 1, 0.2) R^-1: rows of R^-1, each of length 1, times dF/du; whatever scale `spectrum` gives."""
    right = RANDOM.normal(size=(3, 3))
    left = np.linalg.inv(right)
    jacobian = right @ np.diag([0.5, 1.0, 0.2]) @ left
    into = RANDOM.normal(size=(3, 4))
    taken_up = switching.selection(jaxfp.spectrum(jacobian[None]).left, into[None], 2)
    unit = left / np.linalg.norm(left, axis=1, keepdims=True)
    np.testing.assert_allclose(taken_up[0], np.abs(unit[[1, 0]] @ into), rtol=1e-10)
    with pytest.raises(ValueError, match="left and input_jacobian must be"):
        switching.selection(left, into)


def test_selection_ratio_compares_the_weakest_wanted_line_with_the_strongest_other():
    taken_up = np.array([[[3.0, 0.0, 0.5, 0.0], [4.0, 6.0, 0.0, 0.25]]])
    assert switching.selection_ratio(taken_up, [[True, True, False, False]]).tolist() == [10.0]
    assert switching.selection_ratio(taken_up, [[True, False, True, False]]).tolist() == [0.5 / 6.0]
    for wanted in (np.ones((1, 4)), np.zeros((1, 4)), np.ones((1, 3))):
        with pytest.raises(ValueError, match="wanted must be some"):
            switching.selection_ratio(taken_up, wanted)


def test_nearest_distance_is_the_least_of_all():
    points, others = RANDOM.normal(size=(40, 5)), RANDOM.normal(size=(7, 5))
    every = np.linalg.norm(points[:, None] - others[None], axis=2)
    distance, which = switching.nearest_distance(points, others)
    np.testing.assert_allclose(distance, every.min(1))
    np.testing.assert_array_equal(which, every.argmin(1))
    distance, which = switching.nearest_distance(points, others[:0])
    assert np.isinf(distance).all()
    assert (which == -1).all()


def affine_trials(n_trials=3, n_time=6, static=None):
    """States of the affine network under random drive, and where it rests at the static inputs."""
    drive = RANDOM.normal(size=(n_trials, n_time, 2))
    if static is not None:
        drive[..., 1] = static[:, None]
    start = RANDOM.normal(size=(n_trials, 2))
    return jaxfp.simulate(systems.affine, SQUARE, start, drive), drive


def rest_of(inputs):
    return np.linalg.solve(np.eye(2) - SQUARE["A"], SQUARE["b"] + SQUARE["B"] @ inputs)


def test_an_affine_network_is_predicted_exactly_from_any_point():
    """The whole Taylor expansion is the map itself, about its fixed point and about a state that is none."""
    hidden, drive = affine_trials()
    for points in (rest_of(np.zeros(2))[None], RANDOM.normal(size=(4, 2))):
        made = switching.predict_by_nearest(systems.affine, SQUARE, points, hidden, drive)
        np.testing.assert_allclose(made.one_step, hidden[:, 1:], atol=1e-13)
        np.testing.assert_allclose(made.free_run, hidden[:, 1:], atol=1e-13)


def test_each_trial_is_held_to_its_own_states_and_the_point_nearest_to_them():
    """A scalar tanh with three fixed points, by a loop; and other trials change nothing."""
    w, drive = 1.5, 0.3 * RANDOM.normal(size=(5, 8, 1))
    params = {"W": np.array([[w]]), "B": np.ones((1, 1))}
    hidden = jaxfp.simulate(systems.driven, params, RANDOM.normal(size=(5, 1)), drive)
    points = np.array([[-0.858561], [0.0], [0.858561]])
    made = switching.predict_by_nearest(systems.driven, params, points, hidden, drive)

    def step(h, u):
        near = points[np.abs(points[:, 0] - h).argmin(), 0]
        slope = 1 - np.tanh(w * near) ** 2
        return np.tanh(w * near) + slope * (w * (h - near) + u)

    for trial in range(5):
        free = hidden[trial, 0, 0]
        for t in range(1, 8):
            ahead = step(hidden[trial, t - 1, 0], drive[trial, t, 0])
            assert made.one_step[trial, t - 1, 0] == pytest.approx(ahead, abs=1e-12)
            free = step(free, drive[trial, t, 0])
            assert made.free_run[trial, t - 1, 0] == pytest.approx(free, abs=1e-12)
    assert len(np.unique(made.nearest)) == 3
    alone = switching.predict_by_nearest(systems.driven, params, points, hidden[2:3], drive[2:3])
    np.testing.assert_array_equal(alone.one_step[0], made.one_step[2])
    # Against another trial's states the error is another one: that the pairing is right can be seen.
    own = switching.relative_error(made.one_step, hidden[:, 1:])
    assert switching.relative_error(made.one_step[::-1], hidden[:, 1:]) > 3 * own


def test_only_points_at_the_inputs_of_the_trial_are_looked_at():
    """Two contexts: a point on top of the states, but of the other context, is not taken."""
    static = np.array([0.0, 1.0, 1.0])
    hidden, drive = affine_trials(static=static)
    at = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    points = np.stack([rest_of(at[0]), rest_of(at[1]), hidden[1, 0]])
    trial_inputs = np.stack([0 * static, static], axis=1)
    made = switching.predict_by_nearest(
        systems.affine, SQUARE, points, hidden, drive, point_inputs=at, static_inputs=trial_inputs
    )
    np.testing.assert_allclose(made.free_run, hidden[:, 1:], atol=1e-13)
    assert (made.nearest[1:] == 1).all()
    assert (made.nearest[0] != 1).all()
    with pytest.raises(ValueError, match="static_inputs must be inputs of some point"):
        switching.predict_by_nearest(systems.affine, SQUARE, points, hidden, drive, static_inputs=trial_inputs)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"points": np.zeros((0, 2))}, r"points must be at least one, \(n_points, 2\)"),
        ({"points": np.zeros((1, 3))}, r"points must be at least one, \(n_points, 2\)"),
        ({"hidden": np.zeros((6, 2))}, r"hidden and inputs must be \(n_trials, n_time, ...\)"),
        ({"inputs": np.zeros((3, 5, 2))}, r"hidden and inputs must be"),
        ({"point_inputs": np.zeros(2)}, r"point_inputs must be \(1, 2\), got \(2,\)"),
    ],
)
def test_wrong_arguments_are_refused_by_name(changed, said):
    given = {"points": np.zeros((1, 2)), "hidden": np.zeros((3, 6, 2)), "inputs": np.zeros((3, 6, 2))}
    with pytest.raises(ValueError, match=said):
        switching.predict_by_nearest(systems.affine, SQUARE, **given | changed)
