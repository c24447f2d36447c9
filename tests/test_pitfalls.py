"""What the field's other tools got wrong, one test each; numbers P1, P2, ... are those of the project's list."""

import ast
import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import systems

import jaxfp
from jaxfp import FIXED, SLOW, io
from jaxfp.search import dedupe
from jaxfp.types import MAX_STEPS

CUBE = 1.5 * np.eye(4)  # h' = tanh(1.5 h): 81 points, of which the 16 corners are stable
WEIGHTS = systems.suite_weights(4)
CLOUD = np.random.default_rng(0).uniform(-1, 1, (256, 4))
CRAWL = jaxfp.gradient(optax.sgd(1e-6))


@pytest.fixture(scope="module")
def suite():
    return jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD)


def test_p1_a_lane_that_did_not_converge_is_no_point():
    """P1: with one step allowed, unconverged lanes are counted and none is returned; q of what is, is at rounding."""
    points = jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD, max_steps=1, bounded=False)
    assert points.report.counts["MAX_STEPS"] > 10
    assert points.n_hits.sum() + points.report.counts["MAX_STEPS"] == len(CLOUD)
    r = np.tanh(points.hidden @ WEIGHTS) - points.hidden
    assert abs(r).max() < 1e-14


def test_p2_no_lane_waits_for_what_float32_cannot_reach(tanh_network, tanh_analysis):
    """P2: float32 cannot see q = 1e-20 of 100 units, whatever the steps; its lanes still end, and q is 1e-26 after."""
    points = tanh_analysis[0].points
    hidden = jnp.asarray(points.hidden[points.status == FIXED], jnp.float32)
    floor = jaxfp.q(tanh_network.step_fn, tanh_network.params, hidden)
    assert np.median(floor) > 1e-20
    assert (points.q[points.status == FIXED] < 1e-26).all()
    assert points.report.counts["MAX_STEPS"] == 0
    assert points.report.n_steps["largest"] < 50


def test_p3_a_ghost_under_every_usual_tolerance_is_slow():
    """P3: h' = h + eps + h^2 at eps = 1e-6 has q = 5e-13, under tol_q = 1e-12, and is SLOW, with its speed of 1e-6."""
    points = jaxfp.find_fixed_points(systems.fold, 1e-6, np.linspace(-1, 1, 21)[:, None])
    assert points.q[0] < 1e-12
    assert points.status.tolist() == [SLOW]
    np.testing.assert_allclose(points.speed, 1e-6, rtol=1e-9)
    assert points.report.candidate_speed > 0.1  # what that speed is small against


def test_p4_q_is_half_the_sum_and_says_how_others_convert():
    """P4: q sums over units and is halved; 2 q / n is the mean-square speed of other tools, sqrt(2 q) the speed."""
    hidden = np.array([3.0, 4.0, 0.0, 0.0])
    step = jaxfp.q(systems.affine, {"A": 0 * CUBE, "b": np.zeros(4)}, hidden)
    assert step == 12.5
    assert 2 * step / 4 == np.mean(hidden**2)
    assert jaxfp.speed(systems.affine, {"A": 0 * CUBE, "b": np.zeros(4)}, hidden) == 5
    assert "2 q / n_hidden" in jaxfp.q.__doc__


def test_p5_a_straggler_keeps_nobody():
    """P5: beside a lane that never converges the others end when they end alone, at the same points."""
    search = jax.jit(jaxfp.build_search(systems.tanh_row, jaxfp.levenberg_marquardt()))
    easy = jnp.asarray(CLOUD[:32], jnp.float32)
    weights = jnp.asarray(WEIGHTS, jnp.float32)
    alone = search(weights, easy, None, tolerance=0.0, max_steps=40)
    hard = search(weights, easy.at[7].set(jnp.nan), None, tolerance=0.0, max_steps=40)
    others = np.delete(np.arange(32), 7)
    np.testing.assert_array_equal(np.asarray(alone.n_steps)[others], np.asarray(hard.n_steps)[others])
    np.testing.assert_array_equal(np.asarray(alone.hidden)[others], np.asarray(hard.hidden)[others])
    assert len(set(np.asarray(alone.n_steps).tolist())) > 3


def test_p6_q_belongs_to_the_state_beside_it(suite):
    """P6: q is computed at the state returned, not at the one before the last step."""
    r = np.tanh(suite.hidden @ WEIGHTS) - suite.hidden
    np.testing.assert_allclose(suite.speed, np.linalg.norm(r, axis=1), rtol=0, atol=4e-16)
    lanes = jaxfp.build_search(systems.tanh_row, CRAWL)(
        WEIGHTS.astype(np.float32), jnp.asarray(CLOUD, jnp.float32), None, tolerance=0.0, max_steps=3
    )
    r = np.tanh(np.asarray(lanes.hidden, float) @ WEIGHTS) - np.asarray(lanes.hidden, float)
    np.testing.assert_allclose(lanes.q, (r**2).sum(1) / 2, rtol=1e-5)


def test_p7_a_step_budget_that_reaches_nothing_costs_time_only(suite):
    """P7: with a learning rate of 1e-6 and 20 steps no lane travels 1e-4, and the points are the same."""
    points = jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, CLOUD, solver=CRAWL)
    distance = np.linalg.norm(points.hidden[:, None] - suite.hidden[None], axis=2)
    assert distance.min(1).max() < 1e-12
    assert len(points.hidden) == len(suite.hidden) == 9


def test_p8_points_along_a_line_do_not_chain_into_one():
    """P8: 401 points on a line of length 4 at tolerance 0.05 stay some 4 / 0.05, in any order, each by its best q."""
    line = np.stack([np.linspace(-2, 2, 401), np.zeros(401)], axis=1)
    q, tolerance = np.random.default_rng(0).uniform(size=401), np.full(401, 0.05)
    owner = dedupe.representatives(line, None, q, tolerance)
    kept = np.unique(owner)
    assert 40 <= len(kept) <= 81  # gaps between tolerance and twice that
    assert (np.linalg.norm(line - line[owner], axis=1) <= 0.05 + 1e-12).all()
    assert (q[owner] <= q).all()
    order = np.random.default_rng(1).permutation(401)
    shuffled = dedupe.representatives(line[order], None, q[order], tolerance)
    np.testing.assert_array_equal(np.unique(order[shuffled]), kept)


def test_p9_lonely_points_survive():
    """P9: one candidate beside each corner of a cube finds all 16 corners: nobody is dropped for being far away."""
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T
    points = jaxfp.find_fixed_points(systems.tanh_row, CUBE, corners)
    np.testing.assert_allclose(np.tanh(1.5 * points.hidden), points.hidden, atol=1e-15)
    assert {tuple(c) for c in np.sign(points.hidden)} == {tuple(c) for c in corners}
    assert points.n_hits.tolist() == [1] * 16


def test_p14_nothing_of_the_callers_changes():
    """P14: candidates, inputs, weights, NumPy's random state, warning filters, JAX's flags: all as before."""
    params = {"W": 0.5 * np.eye(2), "B": np.ones((2, 1))}
    starts, drive = CLOUD[:16, :2].copy(), np.ones(1)
    before = jax.tree.map(np.copy, (params, starts, drive))
    flags = [jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision, jax.config.jax_numpy_rank_promotion]
    state, filters = np.random.get_state()[1].copy(), list(warnings.filters)  # noqa: NPY002  # the global one is meant
    points = jaxfp.find_fixed_points(systems.driven, params, starts, drive, until="complete", chunk_size=16)
    jaxfp.audit(points, jaxfp.linearize(systems.driven, params, points.hidden, points.inputs))
    for now, then in zip(jax.tree.leaves((params, starts, drive)), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(now, then)
    assert flags == [
        jax.config.jax_enable_x64,
        jax.config.jax_default_matmul_precision,
        jax.config.jax_numpy_rank_promotion,
    ]
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert list(warnings.filters) == filters


def test_p15_a_mistake_in_the_step_is_heard():
    """P15: an exception of the user's step reaches the user; it is never "no fixed points"."""
    with pytest.raises(RuntimeError, match="a mistake in the user's step"):
        jaxfp.find_fixed_points(systems.breaks, None, np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"step_fn cannot take hidden \(3,\) and inputs None"):
        jaxfp.find_fixed_points(systems.tanh_row, WEIGHTS, np.zeros((1, 3)))


def test_p19_float64_is_float64_without_the_switch(suite):
    """P19: with x64 off, float64 candidates are searched and returned in float64, and the switch stays off."""
    assert not jax.config.jax_enable_x64
    assert suite.hidden.dtype == suite.q.dtype == np.float64
    assert suite.report.precision == "float64"
    rounded = suite.hidden.astype(np.float32).astype(float)
    assert abs(rounded - suite.hidden).max() > 1e-9  # digits that float32 has not
    assert suite.speed.max() < 1e-15


def test_p22_containers_keep_every_field(tmp_path):
    """P22: take keeps every column and the report; a file gives back equal columns, report and None, without pickle."""
    params = {"W": 1.5 * np.eye(2), "B": np.ones((2, 1))}
    drives = np.repeat([[0.0], [1.0]], 8, axis=0)
    points = jaxfp.find_fixed_points(systems.driven, params, CLOUD[:16, :2], drives, chunk_size=16)
    order = np.arange(len(points.hidden))[::-1]
    turned = jaxfp.take(points, order)
    for column, original in zip(turned[:-1], points[:-1], strict=True):
        np.testing.assert_array_equal(column, original[order])
    assert turned.report is points.report
    linear = jaxfp.linearize(systems.driven, params, points.hidden, points.inputs)
    some = jaxfp.take(jaxfp.spectrum(linear.jacobian), points.status == FIXED)
    assert {len(column) for column in some} == {(points.status == FIXED).sum()}
    assert jaxfp.take(jaxfp.linearize(systems.tanh_row, CUBE, CLOUD[:3]), [0]).input_jacobian is None

    io.save_points(tmp_path / "points.npz", points)
    again = io.load_points(tmp_path / "points.npz")
    for column, original in zip(again[:-1], points[:-1], strict=True):
        np.testing.assert_array_equal(column, original)
    for name, value in points.report._asdict().items():
        np.testing.assert_equal(getattr(again.report, name), value)
    with np.load(tmp_path / "points.npz", allow_pickle=False) as file:
        assert all(not file[name].dtype.hasobject for name in file.files)


def test_p23_every_test_can_fail():
    """P23: every test function here asserts, expects an exception, or calls a helper that asserts."""
    checks = {"raises", "warns"}
    for path in sorted(pathlib.Path(__file__).parent.glob("test_*.py")):
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        asserting = set(checks)
        for _ in range(3):  # helpers that call helpers
            asserting |= {f.name for f in functions if _checks_something(f, asserting)}
        idle = [f.name for f in functions if f.name.startswith("test_") and f.name not in asserting]
        assert not idle, f"{path.name}: {idle}"
    assert not _checks_something(ast.parse("def test_it():\n    x = f(1)").body[0], checks)


def _checks_something(function, asserting):
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    names = {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in calls}
    asserted = any(isinstance(node, ast.Assert) for node in ast.walk(function))
    return asserted or bool(names & asserting) or any(n.startswith("assert_") for n in names)


def test_p25_verdicts_at_the_margin_carry_their_bound(suite):
    """P25: |eigenvalue| = 1 + 2.5e-5 of the suite is told apart from 1 with room to spare; 1 itself is marginal."""
    modes = jaxfp.spectrum(jaxfp.linearize(systems.tanh_row, WEIGHTS, suite.hidden).jacobian)
    margin = abs(abs(modes.eigenvalues) - 1)
    assert margin.min() < 2.6e-5
    assert (margin > 1e6 * modes.bound).all()
    assert "marginal" not in modes.verdict
    w = np.array([0.6, 0.8])
    line = jaxfp.spectrum(jaxfp.linearize(systems.line, w, np.outer([1.0, 2.0], w)).jacobian)
    assert line.verdict.tolist() == ["marginal", "marginal"]


def test_p27_a_saturated_gate_is_no_fixed_point():
    """P27: where z rounds to 1 every state has h' = h and q = 0; none is returned, all are counted with the reason."""
    params = {"V": np.eye(3), "W": 2 * np.eye(3), "c": np.full(3, 60.0)}
    starts = np.random.default_rng(0).uniform(-5, 5, (16, 3))
    np.testing.assert_array_equal(jaxfp.q(systems.gated, params, starts), 0)
    points = jaxfp.find_fixed_points(systems.gated, params, starts, chunk_size=16, bounded=False)
    assert len(points.hidden) == 0
    assert points.report.reasons == {"saturated gate: the residual vanishes by rounding only": 16}
    # An open gate with the same candidate state: the points of h = tanh(2 h) are found.
    opened = jaxfp.find_fixed_points(systems.gated, {**params, "c": np.full(3, -5.0)}, starts, chunk_size=16)
    assert (opened.status == FIXED).any()
    fixed = opened.hidden[opened.status == FIXED]
    np.testing.assert_allclose(np.tanh(2 * fixed), fixed, atol=1e-13)


def test_p28_what_the_starts_did_not_see_is_said(tanh_network, tanh_analysis):
    """P28: starts on the trajectories miss most saddles; the audit is not complete, and more starts find more."""
    step_fn, params, _ = tanh_network
    states = np.asarray(tanh_analysis[2]).reshape(-1, 100)[::64]
    few = jaxfp.find_fixed_points(step_fn, params, states)
    assert len(few.hidden) < len(tanh_analysis[0].points.hidden)
    audit = jaxfp.audit(few, jaxfp.linearize(step_fn, params, few.hidden))
    assert not audit.complete
    assert audit.index_sum != 1
    assert "certainly missing" in audit.summary()


def test_p29_standing_still_is_not_converging():
    """P29: an optimizer whose steps vanish in float32 changes nothing, at q = 0.1: MAX_STEPS, never CONVERGED."""
    frozen = jaxfp.gradient(optax.sgd(0.0))
    starts = jnp.asarray(CLOUD[:32], jnp.float32)
    lanes = jaxfp.build_search(systems.tanh_row, frozen)(
        jnp.asarray(WEIGHTS, jnp.float32), starts, None, tolerance=0.0, max_steps=10
    )
    np.testing.assert_array_equal(lanes.hidden, starts)
    assert np.median(lanes.q) > 0.05
    assert (lanes.status == MAX_STEPS).all()
