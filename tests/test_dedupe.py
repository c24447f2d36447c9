import itertools

import numpy as np
import pytest

from jaxfp.search import dedupe


def greedy(hidden, inputs, q, tolerance):
    """The definition, without a tree: from the best q down, each joins the first representative that reaches it."""
    order = sorted(range(len(q)), key=lambda i: (q[i], tuple(hidden[i])))
    owner = np.full(len(q), -1)
    for i in order:
        if owner[i] < 0:
            for j in range(len(q)):
                same = inputs is None or (inputs[i] == inputs[j]).all()
                if owner[j] < 0 and same and np.linalg.norm(hidden[i] - hidden[j]) <= tolerance[i]:
                    owner[j] = i
    return owner


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_inputs", [False, True])
def test_representatives_are_the_greedy_definition(seed, with_inputs):
    """On random points the tree gives what the quadratic definition gives, and doing it twice changes nothing."""
    rng = np.random.default_rng(seed)
    hidden, q = rng.normal(size=(60, 2)), rng.integers(0, 5, 60).astype(float)  # many ties of q
    inputs = rng.integers(0, 2, (60, 1)).astype(float) if with_inputs else None
    tolerance = np.full(60, 0.5)
    owner = dedupe.representatives(hidden, inputs, q, tolerance)
    np.testing.assert_array_equal(owner, greedy(hidden, inputs, q, tolerance))
    kept = np.unique(owner)
    assert 5 < len(kept) < 60
    kept_inputs = None if inputs is None else inputs[kept]
    again = dedupe.representatives(hidden[kept], kept_inputs, q[kept], tolerance[kept])
    np.testing.assert_array_equal(again, np.arange(len(kept)))


def test_permuting_points_permutes_the_representatives():
    """The kept set is a property of the set of points: any order gives the same, ties of q included (diff 0)."""
    rng = np.random.default_rng(0)
    hidden, q = np.repeat(rng.normal(size=(40, 3)), 2, axis=0), np.zeros(80)
    hidden[1::2] += 1e-3 * rng.normal(size=(40, 3))
    tolerance = np.full(80, 0.01)
    owner = dedupe.representatives(hidden, None, q, tolerance)
    kept = {tuple(hidden[i]) for i in owner}
    assert len(kept) == 40
    for seed in range(5):
        p = np.random.default_rng(seed).permutation(80)
        shuffled = dedupe.representatives(hidden[p], None, q[p], tolerance)
        assert {tuple(hidden[p][i]) for i in shuffled} == kept


def test_the_best_q_represents():
    """Of points within tolerance the one of least q is kept, not the first."""
    owner = dedupe.representatives(np.array([[0.0], [1e-9], [2e-9]]), None, np.array([3.0, 2.0, 1.0]), np.full(3, 1e-6))
    np.testing.assert_array_equal(owner, [2, 2, 2])


def test_points_at_other_inputs_are_other_points():
    """The same state at two inputs is two points."""
    hidden, drives = np.zeros((4, 2)), np.array([[0.0], [1.0], [0.0], [1.0]])
    np.testing.assert_array_equal(dedupe.representatives(hidden, drives, np.zeros(4), np.ones(4)), [0, 1, 0, 1])
    np.testing.assert_array_equal(dedupe.representatives(hidden, None, np.zeros(4), np.ones(4)), [0, 0, 0, 0])


def test_zero_tolerance_merges_only_what_is_equal():
    """With tolerance 0 two equal rows are one, and rows one rounding apart are two."""
    hidden = np.array([[1.0], [1.0], [np.nextafter(1.0, 2)]])
    np.testing.assert_array_equal(dedupe.representatives(hidden, None, np.zeros(3), np.zeros(3)), [0, 0, 2])


def test_no_points():
    """Nothing in, nothing out."""
    assert dedupe.representatives(np.zeros((0, 2)), None, np.zeros(0), np.zeros(0)).shape == (0,)


def test_input_groups_number_the_distinct_rows():
    """Distinct inputs come sorted, each point with the row of its own; None is one group."""
    inputs = np.array(list(itertools.product([1.0, -1.0], repeat=2)))[[0, 1, 2, 3, 0, 2]]
    group, distinct = dedupe.input_groups(inputs, 6)
    np.testing.assert_array_equal(distinct[group], inputs)
    assert len(distinct) == 4
    group, distinct = dedupe.input_groups(None, 3)
    assert distinct is None
    np.testing.assert_array_equal(group, [0, 0, 0])
