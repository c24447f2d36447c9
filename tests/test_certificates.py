"""What is certified is there, alone, and as near as said; what is excluded is not; what ought to be proved is."""

import json
import pathlib
import sys
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxfp
from jaxfp import FIXED
from jaxfp.proof import certificates
from jaxfp.tasks import toys

ROOT = pathlib.Path(__file__).parent
sys.path.insert(0, str(ROOT.parent))  # benchmarks/ is no part of the installed package

from benchmarks import certificates as bench  # noqa: E402
from benchmarks import soundness  # noqa: E402

SUITE = json.loads((ROOT / "data" / "fpf_suite.json").read_text())
COMMITTED = ROOT.parent / "benchmarks" / "certificates"
CHECKED = settings(max_examples=20, derandomize=True, deadline=None)


def committed(script):
    """What a benchmark wrote."""
    path = COMMITTED / f"{script}.json"
    if not path.exists():
        pytest.skip(f"python -m benchmarks {script} makes {path.name}")
    return json.loads(path.read_text())


def assert_apart(proof, hidden):
    """All certified, near where they were, and no uniqueness ball holds the existence ball of another."""
    assert proof.exists.all()
    assert (np.abs(proof.center - hidden).max(axis=1) < 1e-8).all()
    gaps = np.abs(proof.center[:, None] - proof.center).max(axis=2) + np.where(np.eye(len(hidden)), np.inf, 0)
    assert (proof.unique_radius[:, None] < gaps + proof.error_radius).all()


def test_no_certificate_of_96_random_systems_is_wrong():
    """A few of the 10,000 of `python -m benchmarks soundness`; most that are not next to a fold are certified."""
    total = soundness.run(96)["total"]
    assert total["wrong_existence"] == total["wrong_uniqueness"] == total["wrong_exclusion"] == 0
    assert total["certified_point"] > 0.7 * total["tried_point"]
    assert total["excluded_at_half_the_distance"] > 0.35 * total["balls"]
    assert total["close_pairs"] > 10
    assert 0.1 < total["largest_error_over_radius"] <= 1  # no wider than it must be


def test_no_certificate_of_ten_thousand_random_systems_was_wrong():
    """The committed run."""
    found = committed("soundness")
    total = found["total"]
    assert total["systems"] == 10_000
    assert total["wrong_existence"] == total["wrong_uniqueness"] == total["wrong_exclusion"] == 0
    assert total["certified_point"] > 0.7 * total["tried_point"]
    assert found["digits"] == 50
    assert {"device", "versions", "seed", "date"} <= set(found)


def test_all_points_of_all_cells_and_networks_were_certified():
    """The committed run: every kind of cell, the packaged memories and more; 27 points of 256 units in seconds."""
    found = committed("certificates")
    assert {row["cell"] for row in found["cells"]} == set(bench.CELLS)
    assert {row["network"] for row in found["networks"]} == set(bench.NETWORKS)
    for row in (*found["cells"], *found["networks"]):
        assert row["n_certified"] == row["n_points"] > 0
        assert row["error_radius_largest"] < 1e-8 < row["unique_radius_smallest"]
        assert row["gap_smallest"] is None or row["unique_radius_smallest"] < row["gap_smallest"]
    seconds = {row["network"]: row["certify_s"] for row in found["networks"]}
    assert seconds["tanh100"] < 2
    assert seconds["tanh256"] < 10
    assert {"device", "versions", "date"} <= set(found)


@pytest.mark.parametrize("name", bench.CELLS)
def test_every_kind_of_cell_is_certified(name):
    """Where the iteration of small random weights ends there is a point, to 1e-13, alone within 1e-3."""
    step_fn, params = bench.CELLS[name](4, 0.8, 0)
    n_state = 8 if "lstm" in name.lower() else 4

    @jax.jit
    def iterated(params, hidden):
        return jax.lax.fori_loop(0, 600, lambda _, h: step_fn(params, h, None), hidden)

    with jax.enable_x64(True):
        hidden = np.asarray(iterated(jax.tree.map(lambda x: np.asarray(x, float), params), np.full(n_state, 0.1)))
    proof = jaxfp.certify(step_fn, params, hidden)
    assert proof.exists.tolist() == [True]
    assert np.abs(proof.center - hidden).max() < 1e-12
    assert proof.error_radius < 1e-13
    assert proof.unique_radius > 1e-3


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_analytic_suite_is_certified(n):
    """All reference points, to 1e-10 and better (n = 4 has |eigenvalue| = 1 + 2.5e-5), each alone in its ball."""
    hidden = np.array(SUITE[str(n)]["hidden"])
    proof = jaxfp.certify(systems.tanh_row, systems.suite_weights(n), hidden)
    assert_apart(proof, hidden)
    assert proof.error_radius.max() < 1e-10


def test_the_packaged_memory_is_certified(tanh_network, tanh_analysis):
    """27 points of 100 units, each alone in its ball."""
    points = jaxfp.take(found := tanh_analysis[0].points, found.status == FIXED)
    proof = jaxfp.certify(tanh_network.step_fn, tanh_network.params, points.hidden)
    assert len(points.hidden) == 27
    assert_apart(proof, points.hidden)
    assert proof.error_radius.max() < 1e-11
    assert proof.unique_radius.min() > 1e-4


def test_the_points_of_toys_are_certified_as_flows():
    """Sussillo & Barak's two: three points, and two for a < 0 down to a = -1e-10, closer than 1e-4."""
    first = np.array([point.hidden for point in toys.known_three_points()])
    assert_apart(jaxfp.certify(toys.three_points, None, first, kind="flow"), first)
    for a in (-1e-1, -1e-5, -1e-10):
        second = np.array([point.hidden for point in toys.known_ghost(a)])
        proof = jaxfp.certify(toys.ghost, a, second, kind="flow")
        assert_apart(proof, second)
        assert (proof.unique_radius > 0.1 * (-a) ** 0.5).all()


def test_ghosts_are_excluded_where_a_tolerance_takes_them_for_points():
    """Within 0.5 sqrt(a) and more for a = 1e-12 ... 1e-1, half of which pass q < 1e-12; none is certified."""
    rows = bench.ghost_rows(range(-12, 0))
    assert len(rows) == 24
    assert min(row["excluded_radius_over_sqrt_a"] for row in rows) >= 0.5
    assert sum(row["q_below_1e-12"] for row in rows) == 14
    assert not any(row["certified"] for row in rows)
    # Centered off the slow point, as a search would leave it.
    assert jaxfp.excludes(systems.fold, 1e-8, np.array([3e-5]), 5e-5)
    assert not jaxfp.excludes(systems.fold, -1e-8, np.array([3e-5]), 2e-4)


@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_two_close_points_are_told_apart(k):
    """The step h - 10^-2k + h^2: points at +-10^-k, each certified, no ball reaching the other; none around both."""
    hidden = np.array([[-(10.0**-k)], [10.0**-k], [0.0]])
    proof = jaxfp.certify(systems.fold, -(10.0 ** (-2 * k)), hidden)
    assert proof.exists.tolist() == [True, True, False]
    assert (proof.unique_radius[:2] < 2 * 10.0**-k).all()
    assert (proof.unique_radius[:2] > 0.5 * 10.0**-k).all()
    assert not jaxfp.excludes(systems.fold, -(10.0 ** (-2 * k)), np.zeros(1), 1.001 * 10.0**-k)


def test_what_is_not_isolated_is_not_certified():
    """A double point, a line of points, and a map that moves nothing."""
    direction = np.array([0.6, 0.8])
    assert not jaxfp.certify(systems.fold, 0.0, np.zeros((1, 1))).exists.any()
    assert not jaxfp.certify(systems.line, direction, np.outer([0.0, 1.0], direction)).exists.any()
    assert not jaxfp.certify(systems.identity, None, np.eye(3)).exists.any()
    assert not jaxfp.excludes(systems.identity, None, np.zeros(3), 1.0)


def test_saturated_states_are_never_certified():
    """|h| > 1 of a GRU whose gates have rounded to 1: q is 0 and there is no point."""
    row = bench.saturated_row(8, 64)
    assert row["n_states"] == 64
    assert row["q_largest"] < 1e-24
    assert row["n_certified"] == 0


@jax.custom_jvp
def flat_jvp(x):
    return jnp.tanh(2 * x)


@jax.custom_vjp
def flat_vjp(x):
    return jnp.tanh(2 * x)


flat_jvp.defjvp(lambda primals, tangents: (flat_jvp(*primals), 0.0 * tangents[0]))
flat_vjp.defvjp(lambda x: (jnp.tanh(2 * x), None), lambda _, g: (0.0 * g,))


@pytest.mark.parametrize("flat", [flat_jvp, flat_vjp, lambda x: jax.lax.stop_gradient(jnp.tanh(2 * x))])
def test_a_lie_about_the_derivative_fools_nobody(flat):
    """tanh(2 h) has points at 0 and +-0.9575, and no ball holds two of them, whatever its derivative is said to be."""
    hidden = np.array([[0.0], [0.95750402]])
    proof = jaxfp.certify(lambda p, h, u: flat(h), None, hidden)
    honest = jaxfp.certify(lambda p, h, u: jnp.tanh(2 * h), None, hidden)
    assert_apart(proof, hidden)
    np.testing.assert_array_equal(proof.unique_radius, honest.unique_radius)


JUMPS = {
    "where": lambda p, h, u: jnp.where(h > 0, 0.5 * h + 0.5, 0.5 * h - 0.5),
    "sign": lambda p, h, u: 0.5 * h + 0.5 * jnp.sign(h),
    "floor": lambda p, h, u: 0.5 * h + jnp.floor(h / 4) + 0.5,
    "sign over 0": lambda p, h, u: 0.5 * h + 0.5 * jnp.tanh(jnp.sign(h) / 0.0),
}


@pytest.mark.parametrize("name", JUMPS)
def test_a_jump_is_not_certified_across_and_is_beside(name):
    """Points at +-1 and no point at the jump at 0, where the derivative alone would promise one."""
    proof = jaxfp.certify(JUMPS[name], None, np.array([[0.0], [1.0], [-1.0]]))
    assert proof.exists.tolist() == [False, *[name != "sign over 0"] * 2]
    assert (proof.unique_radius[1:] <= 1).all()
    assert not jaxfp.excludes(JUMPS[name], None, np.zeros(1), 1.5)


def test_nothing_is_excluded_behind_a_jump():
    """The step is -10 left of 0.5 and 1 right of it: seen from 0, the slope alone would exclude the point at 1."""
    step = lambda p, h, u: jnp.where(h > 0.5, 1.0, -10.0) * jnp.ones_like(h)  # noqa: E731
    assert not jaxfp.excludes(step, None, np.zeros(1), 2.0)
    assert jaxfp.excludes(step, None, np.zeros(1), 0.4)


@pytest.mark.parametrize(("factor", "proves"), [(0.0, False), (0.7, True), (1.3, True), (2.5, False)])
def test_a_bad_inverse_costs_certificates_and_never_truth(monkeypatch, factor, proves):
    """Whatever matrix stands for the inverse of I - J: without one that is near nothing is proved."""
    inverse = certificates._inverse
    monkeypatch.setattr(certificates, "_inverse", lambda matrices: factor * inverse(matrices))
    proof = jaxfp.certify(systems.scalar_tanh, 1.5, np.array([[0.8585597]]))
    assert proof.exists.tolist() == [proves]
    assert abs(proof.center[0, 0] - 0.8585596366401104) <= proof.error_radius[0] + 2e-16
    assert proof.unique_radius[0] < 0.85856


def test_a_kink_is_certified_across():
    """The step 0.5 |h| has one point, at its kink; relu(h) / 2 - 0.1 has one beside it."""
    assert jaxfp.certify(lambda p, h, u: 0.5 * jnp.abs(h), None, np.zeros((1, 2))).exists.all()
    proof = jaxfp.certify(lambda p, h, u: 0.5 * jax.nn.relu(h) - 0.1, None, np.full((1, 2), -0.1))
    assert proof.exists.all()
    assert proof.unique_radius > 10  # the slope is 0 or 0.5 everywhere


def test_one_softmax_is_certified():
    """A step of attention: the largest logit, subtracted for safety, cancels."""
    W = np.random.default_rng(0).normal(size=(4, 4))
    hidden = np.full(4, 0.25)
    for _ in range(300):
        weights = np.exp(W @ hidden)
        hidden = weights / weights.sum()
    proof = jaxfp.certify(lambda p, h, u: jax.nn.softmax(p @ h), W, hidden)
    assert proof.exists.all()
    assert proof.error_radius < 1e-13


@CHECKED
@given(entries=st.lists(st.floats(-3, 3), min_size=6, max_size=6), away=st.floats(-1e-6, 1e-6))
def test_affine_points_lie_in_their_balls(entries, away):
    """Against the rational solution of (I - A) h = b; a certified ball is never excluded, one beside it may be."""
    a, b, c, d, e, f = (Fraction(x) for x in entries)
    determinant = (1 - a) * (1 - d) - b * c
    if not determinant:
        return
    exact = [((1 - d) * e + b * f) / determinant, (c * e + (1 - a) * f) / determinant]
    if max(map(abs, exact)) > 1e6:
        return
    params = {"A": np.reshape(entries[:4], (2, 2)), "b": np.array(entries[4:])}
    states = np.array([[float(x) + away for x in exact]])
    proof = jaxfp.certify(systems.affine, params, states)
    error = max(abs(Fraction(float(x)) - y) for x, y in zip(proof.center[0], exact, strict=True))
    assert not proof.exists[0] or error <= Fraction(float(proof.error_radius[0]))
    assert proof.exists[0] or abs(determinant) < 1e-6
    reach = float(max(abs(Fraction(float(x)) - y) for x, y in zip(states[0], exact, strict=True)))
    assert not jaxfp.excludes(systems.affine, params, states[0], np.nextafter(reach, np.inf))


def test_chunks_order_and_company_change_nothing(monkeypatch):
    """The same points alone, in another order, in chunks of two, and with a point that is no number between them."""
    hidden = np.array([*SUITE["4"]["hidden"], [np.nan] * 4, [np.inf] * 4, [1e308] * 4])
    weights = systems.suite_weights(4)
    together = jaxfp.certify(systems.tanh_row, weights, hidden)
    assert together.exists.tolist() == [True] * 9 + [False] * 3
    order = np.random.default_rng(0).permutation(len(hidden))
    turned = jaxfp.certify(systems.tanh_row, weights, hidden[order])
    monkeypatch.setattr(certificates, "_ELEMENTS", 2 * 16)
    chunked = jaxfp.certify(systems.tanh_row, weights, hidden)
    for one, other, part in zip(together, turned, chunked, strict=True):
        np.testing.assert_array_equal(one[order], other)
        np.testing.assert_array_equal(one, part)


def test_each_point_has_its_own_drive():
    params = {"W": 1.5 * np.eye(2), "B": np.eye(2)}
    drives = np.array([[0.0, 0.0], [2.0, -2.0]])
    proof = jaxfp.certify(systems.driven, params, np.array([[0.0, 0.0], [0.3, -0.3]]), drives)
    assert proof.exists.tolist() == [True, False]  # 0.3 is too far from 0.998
    proof = jaxfp.certify(systems.driven, params, np.array([[0.0, 0.0], [0.99817, -0.99817]]), drives)
    assert proof.exists.all()
    assert jaxfp.excludes(systems.driven, params, np.zeros((2, 2)), np.array([0.1, 0.5]), drives).tolist() == [
        False,
        True,
    ]


def test_a_far_ball_is_excluded_by_the_range_of_the_step():
    """A tanh never leaves [-1, 1], whatever its slope: a ball of radius 3 around 5 has no point, nor over a jump."""
    assert jaxfp.excludes(systems.scalar_tanh, 1.5, np.array([5.0]), 3.0)
    assert not jaxfp.excludes(systems.scalar_tanh, 1.5, np.array([5.0]), 4.2)
    assert jaxfp.excludes(lambda p, h, u: jnp.tanh(h) + 0 * h[::-1] * jnp.sign(h - 5), None, np.array([9.0, 7.0]), 1.0)


def test_what_is_not_near_is_not_called_refined():
    """A state from which Newton leads away is its own center."""
    proof = jaxfp.certify(systems.scalar_tanh, 1.5, np.array([[0.3], [0.85856]]))
    assert proof.center[0] == 0.3
    assert 0 < abs(proof.center[1, 0] - 0.85856) < 1e-5
    assert proof.error_radius.tolist()[0] == np.inf
    assert proof.unique_radius[0] == 0


def test_shapes_and_mistakes():
    """One state or many, none at all; what is wrong is said."""
    one = jaxfp.certify(systems.scalar_tanh, 0.5, np.zeros(3))
    assert (one.exists.shape, one.center.shape) == ((1,), (1, 3))
    none = jaxfp.certify(systems.driven, {"W": np.eye(2), "B": np.eye(2)}, np.zeros((0, 2)), np.zeros(2))
    assert (none.exists.shape, none.center.shape) == ((0,), (0, 2))
    assert jaxfp.excludes(systems.scalar_tanh, 0.5, np.zeros((0, 2)), 1.0).shape == (0,)
    assert jaxfp.excludes(systems.scalar_tanh, 0.5, np.full(2, 0.7), 0.0).shape == ()
    with pytest.raises(ValueError, match=r"hidden must be .* got \(1, 2, 3\)"):
        jaxfp.certify(systems.scalar_tanh, 0.5, np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match=r"inputs must be None, \(n_inputs,\) or \(2, n_inputs\), .*got \(3, 1\)"):
        jaxfp.certify(systems.driven, None, np.zeros((2, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="radius must be a finite number, 0 or more"):
        jaxfp.excludes(systems.scalar_tanh, 0.5, np.zeros((2, 2)), -1.0)
    with pytest.raises(ValueError, match='kind must be "map" or "flow"'):
        jaxfp.certify(systems.scalar_tanh, 0.5, np.zeros(2), kind="cycle")
    with pytest.raises(ValueError, match="must return the shape of hidden"):
        jaxfp.certify(systems.loses_a_unit, None, np.zeros(2))
    with pytest.raises(NotImplementedError, match="'sort'"):
        jaxfp.certify(lambda p, h, u: jnp.sort(h), None, np.zeros(2))
    with pytest.raises(RuntimeError, match="a mistake in the user's step"):
        jaxfp.certify(systems.breaks, None, np.zeros(2))
