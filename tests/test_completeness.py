import itertools
from math import comb

import numpy as np
import pytest
import scipy.optimize

import jaxfp
from jaxfp import FIXED, SLOW, FixedPoints, Report
from jaxfp.analysis import completeness

ROOT = scipy.optimize.brentq(lambda h: np.tanh(1.5 * h) - h, 0.5, 1, xtol=1e-15)
THREE = np.array([[-ROOT], [0.0], [ROOT]])
JACOBIANS = 1.5 * (1 - THREE[:, :, None] ** 2)  # of h' = tanh(1.5 h)


def report(n_candidates=(100,), unresolved=(0,), met=(True,), bounded=True, inputs=None, **more):
    fields = {
        "kind": "map",
        "inputs": inputs,
        "n_candidates": sum(n_candidates),
        "counts": {},
        "reasons": {},
        "unresolved": np.array(unresolved),
        "n_candidates_per_input": np.array(n_candidates),
        "bounded": bounded,
        "bounded_by": "the test says so",
        "until": "complete",
        "waves": [],
        "seeded_waves_met": np.array(met),
        "candidate_speed": 1.0,
        "precision": "float64",
        "precision_floor": float(np.finfo(float).eps),
        "n_steps": {},
        "seconds": {},
    }
    return Report(**{**fields, **more})


def points(hidden, hits, status=None, isolated=None, inputs=None, **keywords):
    n = len(hidden)
    return FixedPoints(
        hidden=hidden,
        inputs=inputs,
        q=np.zeros(n),
        speed=np.zeros(n),
        status=np.full(n, FIXED) if status is None else np.array(status),
        isolated=np.ones(n, bool) if isolated is None else np.array(isolated),
        n_hits=np.array(hits),
        report=report(**keywords),
    )


def test_index_is_the_sign_of_the_determinant():
    """Each index is sign det(I - J), here sign(1 - F'), and the three points of h' = tanh(1.5 h) sum to +1."""
    audit = jaxfp.audit((THREE, None), JACOBIANS, bounded=True)
    np.testing.assert_array_equal(audit.signs, np.sign(1 - JACOBIANS[:, 0, 0]))
    np.testing.assert_array_equal(audit.signs, [1, -1, 1])
    assert audit.index_sum == 1
    assert audit.index_sums == (1,)
    assert audit.expected == 1
    assert not audit.complete  # plain arrays come from no search
    assert audit.discovery is None
    assert np.isnan(audit.unseen_mass)


@pytest.mark.parametrize("seed", range(3))
def test_index_in_many_dimensions_counts_real_eigenvalues_beyond_one(seed):
    """The sign is (-1)^(number of real eigenvalues > 1) for maps, > 0 for flows: complex pairs do not count."""
    rng = np.random.default_rng(seed)
    hidden, jacobians = rng.normal(size=(8, 4)), rng.normal(size=(8, 4, 4))
    for kind, border in (("map", 1), ("flow", 0)):
        eigenvalues = np.linalg.eigvals(jacobians)
        n_beyond = ((abs(eigenvalues.imag) < 1e-12) & (eigenvalues.real > border)).sum(1)
        np.testing.assert_array_equal(jaxfp.audit((hidden, None), jacobians, kind=kind).signs, (-1) ** n_beyond)


def test_a_missing_point_is_proved_missing():
    """Dropping any point of a complete set makes the sum wrong, and the summary says points are certainly missing."""
    for missing in range(3):
        keep = np.arange(3) != missing
        audit = jaxfp.audit((THREE[keep], None), JACOBIANS[keep], bounded=True)
        assert audit.index_sum != 1
        assert "Points are certainly missing" in audit.summary()
    nothing = jaxfp.audit((THREE[:0], None), JACOBIANS[:0], bounded=True)
    assert nothing.index_sum == 0
    assert "certainly missing" in nothing.summary()


def test_without_a_box_nothing_is_expected_and_nothing_is_complete():
    """If nobody knows a box, expected is None, the reason is told, and a sum of +1 is not called complete."""
    audit = jaxfp.audit(points(THREE, [40, 20, 40], bounded=None), JACOBIANS)
    assert audit.expected is None
    assert audit.reason == "the test says so"
    assert audit.index_sum == 1
    assert not audit.complete
    assert "No degree guarantee (the test says so)" in audit.summary()
    assert jaxfp.audit(points(THREE, [40, 20, 40]), JACOBIANS).complete  # all the same, but for the box


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"met": (False,)}, "no seeded wave has confirmed it"),
        ({"hits": [50, 48, 1]}, "over 1 % of the candidates"),
        ({"isolated": [True, False, True]}, "a continuum cannot be counted"),
        ({"hidden": THREE[:2], "hits": [50, 50]}, "the index sum is not met"),
    ],
)
def test_complete_needs_every_sign(change, why):
    """Any one of index sum, seeded wave, singles under 1 %, no continuum, missing makes complete False, and is told."""
    full = {"hidden": THREE, "hits": [40, 20, 40], "n_candidates": (99,), **change}
    audit = jaxfp.audit(points(**full), JACOBIANS[: len(full["hidden"])])
    assert not audit.complete
    assert why in audit.summary()


def test_an_uncertain_sign_makes_that_inputs_sum_none():
    """At a fold I - J is singular: that input's sum is None, the other's stays; nothing is claimed missing."""
    hidden, drives = np.array([[0.0], [0.0], [1.0]]), np.array([[1.0], [2.0], [2.0]])
    jacobians = np.array([1 + 1e-9, 0.5, 2.0])[:, None, None]
    audit = jaxfp.audit((hidden, drives), jacobians, bounded=True)
    assert audit.index_sums == (None, 0)
    assert audit.index_sum is None
    np.testing.assert_array_equal(audit.inputs, [[1.0], [2.0]])
    assert "undecided at 1 of 2 inputs" in audit.summary()
    assert "certainly missing at 1 of 2 inputs" in audit.summary()
    certain = jaxfp.audit((hidden, drives), np.where(jacobians > 1.5, 0.5, jacobians + 1e-3), bounded=True)
    assert certain.index_sums == (-1, 2)


def test_a_continuum_has_no_index():
    """Points on a line attractor carry an index nobody has counted: the sum is None, never a proof of absence."""
    line = points(np.linspace(-1, 1, 5)[:, None], [20] * 5, isolated=[False] * 5)
    audit = jaxfp.audit(line, np.ones((5, 1, 1)))
    assert audit.index_sums == (None,)
    assert audit.n_continuum == 5
    assert "certainly missing" not in audit.summary()
    assert not audit.complete


def test_only_fixed_points_count():
    """SLOW points have no index, no hits in the unseen mass and no place in the discovery curve."""
    with_slow = points(
        np.concatenate([THREE, [[3.0]]]), [40, 20, 39, 1], [FIXED] * 3 + [SLOW], n_candidates=(100,), unresolved=(0,)
    )
    audit = jaxfp.audit(with_slow, np.concatenate([JACOBIANS, [[[7.0]]]]))
    assert audit.signs[3] == 0
    assert audit.index_sum == 1
    assert audit.unseen_mass == 0
    assert audit.discovery[-1, 1] == pytest.approx(3)
    assert (audit.n_fixed, audit.n_slow) == (3, 1)
    assert audit.complete


def test_a_step_of_float32_has_coarser_signs():
    """Where the step computes in float32, a point is known to sqrt(eps) of that: a sign in doubt is no sign."""
    jacobians = np.array([[[1 + 1e-5]]])
    assert jaxfp.audit(points(np.zeros((1, 1)), [9]), jacobians).signs.tolist() == [-1]
    rough = points(np.zeros((1, 1)), [9], precision="float32", precision_floor=float(np.finfo(np.float32).eps))
    assert jaxfp.audit(rough, jacobians).signs.tolist() == [0]


def test_jacobians_that_are_not_finite_have_no_sign():
    """A NaN Jacobian is uncertain, not an error."""
    assert jaxfp.audit((THREE[:1], None), np.full((1, 1, 1), np.nan), bounded=True).index_sum is None


def test_unseen_mass_is_good_turing():
    """(points with one hit + unresolved lanes) / candidates, per input and over all; seeded points count in neither."""
    hidden = np.arange(6.0)[:, None]
    drives = np.array([[0.0]] * 4 + [[1.0]] * 2)
    some = points(
        hidden,
        [30, 1, 1, 0, 1, 60],  # the fourth came from a seeded wave
        inputs=drives,
        n_candidates=(40, 62),
        unresolved=(8, 1),
        met=(True, True),
    )
    some = some._replace(report=some.report._replace(inputs=np.array([[0.0], [1.0]])))
    audit = jaxfp.audit(some, np.zeros((6, 1, 1)))
    np.testing.assert_allclose(audit.singles, [2 / 40, 1 / 62])
    np.testing.assert_allclose(audit.unseen_masses, [(2 + 8) / 40, (1 + 1) / 62])
    assert audit.unseen_mass == pytest.approx((3 + 9) / 102)


def test_discovery_is_the_mean_over_all_orders():
    """The closed form equals drawing every subset of six candidates, and sum_i 1 - C(K-k_i, m)/C(K, m)."""
    owner = [0, 0, 0, 1, 1, 2]  # which point each of six candidates reached
    curve = jaxfp.audit(points(THREE, [3, 2, 1], n_candidates=(6,)), JACOBIANS).discovery
    assert curve[:, 0].tolist() == list(range(7))
    for m, found in curve:
        subsets = list(itertools.combinations(owner, int(m)))
        assert found == pytest.approx(np.mean([len(set(s)) for s in subsets]), abs=1e-12)
        assert found == pytest.approx(sum(1 - comb(6 - k, int(m)) / comb(6, int(m)) for k in (3, 2, 1)), abs=1e-12)


def test_discovery_of_many_candidates_against_random_orders():
    """With 1,000 candidates, of which some found nothing, it is the average over 2,000 random orders."""
    hits = [700, 100, 5, 1, 0]
    curve = jaxfp.audit(points(np.arange(5.0)[:, None], hits, n_candidates=(1000,)), np.zeros((5, 1, 1))).discovery
    assert len(curve) <= 65
    np.testing.assert_allclose(curve[[0, -1]], [[0, 0], [1000, 4]], atol=1e-9)
    assert (np.diff(curve[:, 1]) > -1e-12).all()
    owner = np.repeat([0, 1, 2, 3, -1], [700, 100, 5, 1, 194])
    rng = np.random.default_rng(0)
    row = curve[np.searchsorted(curve[:, 0], 200)]
    counts = [len(set(rng.choice(owner, int(row[0]), replace=False)) - {-1}) for _ in range(2000)]
    assert row[1] == pytest.approx(np.mean(counts), abs=5 * np.std(counts) / np.sqrt(2000))


def test_audit_refuses_what_does_not_fit():
    """Jacobians of another shape, a kind that contradicts the search and an unknown kind raise ValueError."""
    with pytest.raises(ValueError, match=r"jacobians must be \(3, 1, 1\), got \(2, 1, 1\)"):
        jaxfp.audit((THREE, None), JACOBIANS[:2])
    with pytest.raises(ValueError, match='kind is "flow", but'):
        jaxfp.audit(points(THREE, [1, 1, 1]), JACOBIANS, kind="flow")
    with pytest.raises(ValueError, match='"map" or "flow"'):
        jaxfp.audit((THREE, None), JACOBIANS, kind="ode")


def test_points_find_their_input():
    """input_group_of numbers points by the distinct inputs given, None is one group."""
    inputs = np.array([[2.0, 0.0], [1.0, 5.0], [2.0, 0.0]])
    group = completeness.input_group_of(inputs, np.array([[1.0, 5.0], [2.0, 0.0], [3.0, 0.0]]), 3)
    np.testing.assert_array_equal(group, [1, 0, 1])
    np.testing.assert_array_equal(completeness.input_group_of(None, None, 2), [0, 0])
