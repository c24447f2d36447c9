import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import systems

import jaxfp
from jaxfp import FIXED, SLOW
from jaxfp.cli import flip_flop
from jaxfp.models import equations

SUITE = json.loads((pathlib.Path(__file__).parent / "data" / "fpf_suite.json").read_text())
EPS = np.finfo(float).eps
RNG = np.random.default_rng(0)
CLOUD = RNG.uniform(-1, 1, (512, 4))
GATES = {"V": RNG.normal(size=(3, 3)), "W": RNG.normal(size=(3, 3)), "c": np.full(3, 60.0)}
DIRECTION = np.array([0.48, 0.6, 0.64])  # a unit vector
DRIVEN = {"W": 1.5 * np.eye(2), "B": np.array([[1.0], [0.0]])}
DRIVES = np.repeat([[0.0], [2.0]], 64, axis=0)
DRIVEN_STARTS = RNG.uniform(-1, 1, (128, 2))


def same_points(hidden, reference):
    """Largest distance from a point of either set to the nearest of the other."""
    distance = np.linalg.norm(hidden[:, None] - reference[None], axis=2)
    return max(distance.min(0).max(), distance.min(1).max())


def assert_counts_add_up(points):
    """Counts add up to the candidates, hits to the lanes that are points, reasons to the others."""
    report = points.report
    counts = report.counts
    assert sum(counts.values()) == report.n_candidates == report.n_candidates_per_input.sum()
    assert points.n_hits.sum() == counts["FIXED"] + counts["SLOW"]
    assert sum(report.reasons.values()) == report.n_candidates - points.n_hits.sum()
    assert report.unresolved.sum() == counts["MAX_STEPS"] + counts["NONFINITE"]


@pytest.fixture(scope="module")
def suite_of_4():
    return jaxfp.find_fixed_points(systems.tanh_row, systems.suite_weights(4), CLOUD)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_analytic_suite(n):
    """From {-1, 0, 1}^n all reference points and no other, to 1e-12, with certain verdicts and index sum +1.

    The sign is right although, for n = 4, an |eigenvalue| is 1 + 2.5e-5.
    """
    weights, known = systems.suite_weights(n), np.array(SUITE[str(n)]["hidden"])
    grid = np.array(list(itertools.product([-1.0, 0.0, 1.0], repeat=n)))
    points = jaxfp.find_fixed_points(systems.tanh_row, weights, grid)
    np.testing.assert_allclose(np.tanh(points.hidden @ weights), points.hidden, rtol=0, atol=8 * EPS)
    assert len(points.hidden) == len(known) == {2: 3, 3: 3, 4: 9}[n]
    assert same_points(points.hidden, known) < 1e-12
    assert (points.status == FIXED).all()
    assert points.isolated.all()
    assert points.report.counts["FIXED"] == 3**n  # every start of the grid ends at one
    assert_counts_add_up(points)

    linear = jaxfp.linearize(systems.tanh_row, weights, points.hidden)
    modes = jaxfp.spectrum(linear.jacobian)
    row = np.linalg.norm(points.hidden[:, None] - known[None], axis=2).argmin(1)
    np.testing.assert_array_equal(modes.n_unstable, np.array(SUITE[str(n)]["n_unstable"])[row])
    np.testing.assert_array_equal(modes.verdict, np.where(modes.n_unstable > 0, "unstable", "stable"))
    assert jaxfp.audit(points, linear, bounded=True).index_sum == 1
    if n == 4:
        margin = abs(abs(modes.eigenvalues) - 1)
        assert 1e-6 < margin.min() < 2.6e-5
        assert (margin > modes.bound).all()


def test_order_and_columns(suite_of_4):
    """Points come FIXED first and by hits, most first; q and speed are those of the state beside them, in float64."""
    assert (np.diff(suite_of_4.n_hits) <= 0).all()
    r = np.tanh(suite_of_4.hidden @ systems.suite_weights(4)) - suite_of_4.hidden
    # Two programs of the same sum differ in the last roundings of r, whatever is left of it.
    np.testing.assert_allclose(suite_of_4.speed, np.linalg.norm(r, axis=1), rtol=0, atol=8 * EPS)
    np.testing.assert_allclose(suite_of_4.q, suite_of_4.speed**2 / 2, rtol=1e-12)
    assert suite_of_4.hidden.dtype == suite_of_4.q.dtype == np.float64
    assert suite_of_4.inputs is None
    assert_counts_add_up(suite_of_4)


def test_permuting_candidates_changes_nothing(suite_of_4):
    """The set of points and their hits do not depend on the order of the candidates (diff 0)."""
    shuffled = jaxfp.find_fixed_points(
        systems.tanh_row, systems.suite_weights(4), CLOUD[np.random.default_rng(1).permutation(512)]
    )
    np.testing.assert_array_equal(shuffled.hidden, suite_of_4.hidden)
    np.testing.assert_array_equal(shuffled.n_hits, suite_of_4.n_hits)


def test_a_candidate_alone_reaches_its_point_of_the_batch(suite_of_4):
    """Searched alone, a candidate ends at one of the points of the batch of 512, to 1e-12."""
    for row in (0, 200, 511):
        alone = jaxfp.find_fixed_points(systems.tanh_row, systems.suite_weights(4), CLOUD[row : row + 1])
        assert alone.hidden.shape == (1, 4)
        assert np.linalg.norm(suite_of_4.hidden - alone.hidden, axis=1).min() < 1e-12


def test_a_nan_candidate_costs_itself_alone(suite_of_4):
    """One NaN and one infinite candidate are counted NONFINITE; the points are the same bits."""
    spoiled = np.concatenate([CLOUD[:3], np.full((1, 4), np.nan), CLOUD[3:], np.full((1, 4), np.inf)])
    points = jaxfp.find_fixed_points(systems.tanh_row, systems.suite_weights(4), spoiled)
    np.testing.assert_array_equal(points.hidden, suite_of_4.hidden)
    np.testing.assert_array_equal(points.n_hits, suite_of_4.n_hits)
    assert points.report.counts["NONFINITE"] == 2
    assert points.report.reasons["not finite"] == 2
    assert points.report.unresolved.tolist() == [points.report.counts["MAX_STEPS"] + 2]
    assert_counts_add_up(points)


def test_the_callers_x64_setting_does_not_matter(suite_of_4):
    """With x64 on in the caller the points are the same bits, and the setting is left as it was."""
    with jax.enable_x64(True):
        wide = jaxfp.find_fixed_points(systems.tanh_row, systems.suite_weights(4), CLOUD)
        assert jax.config.jax_enable_x64
    assert not jax.config.jax_enable_x64
    np.testing.assert_array_equal(wide.hidden, suite_of_4.hidden)


def test_searching_in_float32_ends_at_the_same_points(suite_of_4):
    """Float32 candidates search in float32 and are polished in float64: the same set, to 1e-12."""
    points = jaxfp.find_fixed_points(systems.tanh_row, systems.suite_weights(4), CLOUD.astype(np.float32))
    assert same_points(points.hidden, suite_of_4.hidden) < 1e-12
    assert points.report.precision == "float64"


def test_adam_ends_at_the_same_points():
    """Searched by Adam first, as the field does, the judged points are the same reference points."""
    with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic mixes dtypes
        points = jaxfp.find_fixed_points(
            systems.tanh_row,
            systems.suite_weights(2),
            RNG.uniform(-1, 1, (64, 2)),
            solver=jaxfp.gradient(optax.adam(0.01)),
        )
    assert same_points(points.hidden, np.array(SUITE["2"]["hidden"])) < 1e-12


def test_chunks_and_progress_change_nothing(suite_of_4, capsys):
    """Chunks of another size give the same set to 1e-12; a progress bar gives the same bits; nothing else prints."""
    small = jaxfp.find_fixed_points(systems.tanh_row, systems.suite_weights(4), CLOUD, chunk_size=16)
    assert same_points(small.hidden, suite_of_4.hidden) < 1e-12
    assert capsys.readouterr() == ("", "")
    shown = jaxfp.find_fixed_points(systems.tanh_row, systems.suite_weights(4), CLOUD, progress=True)
    np.testing.assert_array_equal(shown.hidden, suite_of_4.hidden)


def counted(params, hidden, inputs):
    counted.calls += 1
    return jnp.tanh(params @ hidden)


counted.calls = 0


def test_a_second_search_traces_nothing():
    """Two networks searched, and both again from new arrays: no program is new, and the step is called 0 times.

    Which programs a search needs (stages, wide or narrow) depends on its numbers: the second may need some of its own.
    """
    starts = np.random.default_rng(2).uniform(-1, 1, (40, 2))
    calls = []
    for scale in (2.0, 3.0, 2.0, 3.0):
        points = jaxfp.find_fixed_points(
            counted, scale * np.eye(2), starts.copy(), until="complete", bounded=True, chunk_size=16
        )
        assert len(points.hidden) == 9
        calls.append(counted.calls)
    assert calls[1] == calls[2] == calls[3] > 0


# What is fixed and what only looks it.


@pytest.mark.parametrize("exponent", range(-14, 0))
def test_a_ghost_is_never_fixed(exponent):
    """The map h' = h + eps + h^2 with eps > 0 has no fixed point: one SLOW point, q = eps^2 / 2."""
    eps = 10.0**exponent
    points = jaxfp.find_fixed_points(systems.fold, eps, np.linspace(-1, 1, 21)[:, None])
    assert points.status.tolist() == [SLOW]
    np.testing.assert_allclose(points.q, eps**2 / 2, rtol=1e-10)
    np.testing.assert_allclose(points.hidden, 0, atol=1e-8)
    assert points.report.counts["SLOW"] == 21


def test_two_points_a_millionth_apart_are_two():
    """At eps = -1e-12 the zeros +-1e-6 are two FIXED points; a start at 0, a maximum of q, is neither."""
    points = jaxfp.find_fixed_points(systems.fold, -1e-12, np.linspace(-1, 1, 21)[:, None])
    assert points.status.tolist() == [FIXED, FIXED]
    # r = 2e-6 d near a zero, known to the rounding of h + eps + h^2 at h = 1e-6.
    np.testing.assert_allclose(np.sort(points.hidden.ravel()), [-1e-6, 1e-6], atol=1e-15)
    assert points.n_hits.tolist() == [10, 10]
    assert points.report.counts["MAX_STEPS"] == 1
    assert_counts_add_up(points)


def test_slow_points_are_minima_of_q():
    """Of x' = a + x^2, q has a minimum at 0 for a = 1/4, a SLOW point, and a maximum for a = -1/4, which is none.

    Starts on the plane x = 0, which no step leaves, are counted as stuck, and starts beside it reach the zeros +-1/2.
    """
    on_plane, beside = np.stack([np.zeros(8), np.linspace(-1, 1, 8)], axis=1), np.array([[0.1, 0.0]])
    slow = jaxfp.find_fixed_points(systems.quartic, np.array([0.25]), on_plane, kind="flow", chunk_size=16)
    assert slow.status.tolist() == [SLOW]
    np.testing.assert_allclose(slow.hidden, 0, atol=1e-8)
    np.testing.assert_allclose(slow.q, 0.25**2 / 2, rtol=1e-12)
    starts = np.concatenate([on_plane, on_plane + beside, on_plane - beside])
    points = jaxfp.find_fixed_points(
        systems.quartic, np.array([-0.25]), starts, kind="flow", chunk_size=16, solver=jaxfp.levenberg_marquardt()
    )
    assert points.status.tolist() == [FIXED, FIXED]
    np.testing.assert_allclose(np.sort(points.hidden[:, 0]), [-0.5, 0.5], atol=1e-15)
    assert points.n_hits.tolist() == [8, 8]
    assert points.report.reasons == {"stuck: neither a zero nor a minimum of q to rounding": 8}


@pytest.mark.parametrize("max_steps", [1, 2, 4])
def test_a_short_budget_makes_no_slow_points_of_fixed_ones(max_steps):
    """However few steps a lane may take, the suite, which has no slow points, gets reference points and MAX_STEPS."""
    points = jaxfp.find_fixed_points(
        systems.tanh_row, systems.suite_weights(4), CLOUD, max_steps=max_steps, bounded=False
    )
    assert (points.status == FIXED).all()
    distance = np.linalg.norm(points.hidden[:, None] - np.array(SUITE["4"]["hidden"])[None], axis=2).min(1)
    assert distance.max() < 1e-12
    short = points.report.counts["MAX_STEPS"]
    assert points.report.reasons == ({f"no minimum of q within {max_steps} steps": short} if short else {})
    assert short > 0 or max_steps > 2
    assert points.report.n_steps["largest"] <= 2 * max_steps  # in the search and again in the polish


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_saturated_gates_are_rejected(scale):
    """With update gates at 1 - e^-60 everything has h' = h in floating point, and nothing is fixed: all REJECTED."""
    starts = scale * np.random.default_rng(1).normal(size=(64, 3))
    gate = 1 / (1 + np.exp(-GATES["c"] - starts @ GATES["V"].T)) if scale == 1 else np.zeros(1)
    assert (gate == 1).all() or scale > 1  # the trap is set: z = 1 in float64
    points = jaxfp.find_fixed_points(systems.gated, GATES, starts, chunk_size=16, bounded=False)
    away = np.linalg.norm(points.hidden, axis=1) > 10
    assert not away.any()  # a point, if any, is one of tanh(W h) = h, in the cube
    for h in points.hidden:
        np.testing.assert_allclose(np.tanh(GATES["W"] @ h), h, atol=1e-12)
    assert points.report.counts["REJECTED"] > 50
    assert "saturated gate: the residual vanishes by rounding only" in points.report.reasons
    assert_counts_add_up(points)


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_a_gru_is_searched_in_its_box(scale):
    """The GRU knows its box: zeros of candidate - state inside [-1, 1]^n, sum +1, and what lies beyond is rejected."""
    arrays = jax.tree.map(np.asarray, equations.init_arrays(jax.random.key(1), "gru", 4, 0, gain=2.5))
    step_fn, params = jaxfp.from_arrays("gru", arrays)
    points = jaxfp.find_fixed_points(step_fn, params, scale * RNG.normal(size=(64, 4)), until="complete", chunk_size=16)
    fixed = points.hidden[points.status == FIXED]
    assert abs(points.hidden).max() <= 1
    w_reset, _, w_candidate = np.split(arrays["w_rec"].astype(float), 3)
    reset = 1 / (1 + np.exp(-fixed @ w_reset.T))
    np.testing.assert_allclose(np.tanh(reset * (fixed @ w_candidate.T)), fixed, atol=1e-12)
    audit = jaxfp.audit(points, jaxfp.linearize(step_fn, params, points.hidden))
    assert audit.expected == audit.index_sum == 1
    assert len(fixed) >= 3
    if scale > 100:
        assert points.report.reasons["outside the box that the map sends into itself"] > 15
    assert_counts_add_up(points)


def test_the_box_of_a_map_is_no_box_of_a_flow():
    """The flow x' = tanh(x + 2) has its zero at -2, outside the box of the map h' = tanh(h + 2), and it is found."""
    step_fn, params = jaxfp.from_arrays("tanh", {"w_rec": np.array([[1.0]]), "b": np.array([2.0])})
    points = jaxfp.find_fixed_points(step_fn, params, np.zeros((4, 1)), kind="flow", chunk_size=16)
    np.testing.assert_allclose(points.hidden, [[-2]], atol=1e-14)
    assert points.report.bounded is None
    assert jaxfp.find_fixed_points(step_fn, params, np.zeros((4, 1)), chunk_size=16).report.bounded


def test_every_state_of_the_identity_is_fixed_and_none_is_isolated():
    """With h' = h each candidate is its own FIXED point with isolated False, and no two are merged."""
    starts = RNG.normal(size=(40, 3))
    points = jaxfp.find_fixed_points(systems.identity, None, starts, chunk_size=16)
    assert (points.status == FIXED).all()
    assert not points.isolated.any()
    assert {tuple(h) for h in points.hidden} == {tuple(h) for h in starts}
    audit = jaxfp.audit(points, jaxfp.linearize(systems.identity, None, points.hidden), bounded=True)
    assert audit.index_sum is None
    assert audit.n_continuum == 40


def test_a_line_attractor_stays_a_line():
    """With h' = w (w . h) every candidate goes to its foot on the line, FIXED, not isolated, spread as before."""
    starts = np.random.default_rng(2).normal(size=(32, 3))
    points = jaxfp.find_fixed_points(systems.line, DIRECTION, starts, chunk_size=16)
    along = points.hidden @ DIRECTION
    np.testing.assert_allclose(points.hidden, np.outer(along, DIRECTION), atol=1e-14)
    np.testing.assert_allclose(np.sort(along), np.sort(starts @ DIRECTION), atol=1e-12)  # steps of least length
    assert (points.status == FIXED).all()
    assert not points.isolated.any()
    modes = jaxfp.spectrum(jaxfp.linearize(systems.line, DIRECTION, points.hidden).jacobian)
    assert (modes.verdict == "marginal").all()


def test_slow_tolerance_leaves_points_spread_over_the_slow_manifold():
    """With h' = 0.999 w (w . h) only 0 is fixed; with slow_tolerance lanes stop along the line, SLOW, q below it."""
    starts, params = 3 * np.random.default_rng(2).normal(size=(32, 3)), np.sqrt(0.999) * DIRECTION
    to_the_end = jaxfp.find_fixed_points(systems.line, params, starts, chunk_size=16)
    assert to_the_end.status.tolist() == [FIXED]
    points = jaxfp.find_fixed_points(systems.line, params, starts, slow_tolerance=1e-4, chunk_size=16)
    slow = points.status == SLOW
    assert slow.sum() > 25
    assert (points.q[slow] <= 1e-4).all()
    r = 0.999 * np.outer(points.hidden @ DIRECTION, DIRECTION) - points.hidden
    np.testing.assert_allclose(points.q, (r**2).sum(1) / 2, atol=1e-18)
    assert np.std(points.hidden @ DIRECTION) > 1
    # Off the line r is the distance to it; on the line it is 0.001 of the length.
    assert np.linalg.norm(points.hidden - np.outer(points.hidden @ DIRECTION, DIRECTION), axis=1).max() <= np.sqrt(2e-4)


def test_unique_tolerance_is_the_users_word():
    """With unique_tolerance = 0.5 the points at +-0.858 and 0 stay three, with 1 they become one or two."""
    starts = np.linspace(-1, 1, 15)[:, None]
    root = scipy.optimize.brentq(lambda h: np.tanh(1.5 * h) - h, 0.5, 1, xtol=1e-15)
    three = jaxfp.find_fixed_points(systems.scalar_tanh, 1.5, starts, unique_tolerance=0.5, chunk_size=16)
    np.testing.assert_allclose(np.sort(three.hidden.ravel()), [-root, 0, root], atol=1e-15)
    fewer = jaxfp.find_fixed_points(systems.scalar_tanh, 1.5, starts, unique_tolerance=1.0, chunk_size=16)
    assert len(fewer.hidden) < 3
    assert fewer.n_hits.sum() == 15


def test_a_step_that_casts_down_is_judged_at_its_own_floor():
    """A product in float32: the report says so, and the points are the float64 ones to sqrt(eps) of float32."""
    weights = np.array([[1.5, 0.2], [0.1, 1.4]]).astype(np.float32).astype(float)
    starts = np.random.default_rng(3).uniform(-1, 1, (32, 2))
    points = jaxfp.find_fixed_points(systems.narrow, weights, starts, chunk_size=16)
    assert points.report.precision == "float32"
    assert points.report.precision_floor == np.finfo(np.float32).eps
    exact = jaxfp.find_fixed_points(systems.tanh_row, weights.T, RNG.uniform(-1, 1, (64, 2)))
    assert exact.report.precision_floor == EPS
    assert (points.status == FIXED).all()
    assert same_points(points.hidden, exact.hidden) < 1e-6
    assert 1e-12 < points.speed.max() < 16 * np.finfo(np.float32).eps


@pytest.mark.parametrize("gain", [0.8, 1.5])
def test_an_untrained_network_has_no_eight_memories(gain):
    """T10: the finder that finds eight stable points in the trained network finds none such in a random one."""
    step_fn, params = jaxfp.from_arrays("tanh", equations.init_arrays(jax.random.key(0), "tanh", 100, 3, gain=gain))
    starts = np.asarray(jax.random.normal(jax.random.key(1), (128, 100)))
    points = jaxfp.find_fixed_points(step_fn, params, starts)
    modes = jaxfp.spectrum(jaxfp.linearize(step_fn, params, points.hidden).jacobian)
    assert ((modes.verdict == "stable") & (points.status == FIXED)).sum() < 8
    assert (points.q[points.status == FIXED] < 1e-26).all()
    if gain < 1:  # a contraction: the origin alone
        np.testing.assert_allclose(points.hidden, np.zeros((1, 100)), atol=1e-15)
        assert modes.verdict.tolist() == ["stable"]


# Several inputs, and completeness.


@pytest.fixture(scope="module")
def driven():
    return jaxfp.find_fixed_points(
        systems.driven,
        DRIVEN,
        DRIVEN_STARTS,
        DRIVES,
        until="complete",
        bounded=True,
        key=jax.random.key(1),
        chunk_size=16,
    )


def test_each_candidate_is_searched_at_its_own_input(driven):
    """Of h_i = tanh(1.5 h_i + u_i), 9 points at u = 0 and 3 at u = 2, each beside its input, audited per input."""
    r = np.tanh(1.5 * driven.hidden + driven.inputs @ [[1.0, 0.0]]) - driven.hidden
    fixed = driven.status == FIXED
    np.testing.assert_allclose(r[fixed], 0, atol=8 * EPS)
    np.testing.assert_allclose(np.linalg.norm(r, axis=1), driven.speed, atol=8 * EPS)
    assert (driven.inputs[fixed] == 0).sum() == 9
    assert (driven.inputs[fixed] == 2).sum() == 3
    assert (driven.inputs[~fixed] == 2).all()  # where the other six of u = 0 were, q keeps minima
    assert driven.inputs.dtype == np.float64
    np.testing.assert_array_equal(driven.report.inputs, [[0.0], [2.0]])
    np.testing.assert_array_equal(driven.report.n_candidates_per_input, [64, 64])
    audit = jaxfp.audit(driven, jaxfp.linearize(systems.driven, DRIVEN, driven.hidden, driven.inputs))
    assert audit.index_sums == (1, 1)
    assert audit.index_sum is None  # one number for two inputs would mean nothing
    assert audit.waves_met.tolist() == [True, True]
    seeded = [wave for wave in driven.report.waves if wave["seeded"]]
    assert seeded[-1]["n_new_fixed"] == 0
    assert driven.n_hits.sum() == driven.report.counts["FIXED"] + driven.report.counts["SLOW"]


def test_one_input_for_all_is_that_input_for_each(driven):
    """One input for all gives the points of the same row for every candidate."""
    shared = jaxfp.find_fixed_points(systems.driven, DRIVEN, DRIVEN_STARTS, np.array([2.0]), chunk_size=16)
    assert (shared.inputs == 2).all()
    assert shared.inputs.shape == (len(shared.hidden), 1)
    here = (driven.inputs[:, 0] == 2) & (driven.status == FIXED)
    assert same_points(shared.hidden[shared.status == FIXED], driven.hidden[here]) < 1e-12


def test_who_knows_the_box_is_said():
    """The keyword, the adapter and a proof make 1 expected, nobody makes it None; each names who says so."""
    step_fn, params = jaxfp.from_arrays("tanh", {"w_rec": np.array([[1.5]])})
    starts = np.linspace(-1, 1, 15)[:, None]
    cases = [
        (systems.scalar_tanh, 1.5, None, 1, "it is proved"),
        (systems.scalar_tanh, 1.5, False, None, "not known"),
        (systems.scalar_tanh, 1.5, True, 1, "the caller says"),
        (step_fn, params, None, 1, "the cell is known"),
    ]
    for f, p, bounded, expected, reason in cases:
        points = jaxfp.find_fixed_points(f, p, starts, bounded=bounded, chunk_size=16)
        audit = jaxfp.audit(points, jaxfp.linearize(f, p, points.hidden))
        assert audit.expected == expected
        assert reason in audit.reason
        assert audit.index_sum == 1


def test_without_a_degree_two_quiet_waves_are_asked_and_nothing_is_complete():
    """A ReLU network has no guarantee: until="complete" runs two seeded waves that add nothing; complete is False."""
    weights = np.array([[0.5, 0.2], [-0.3, 0.4]])
    step_fn, params = jaxfp.from_arrays("relu", {"w_rec": weights, "b": np.ones(2)})
    points = jaxfp.find_fixed_points(step_fn, params, RNG.normal(size=(32, 2)), until="complete", chunk_size=16)
    np.testing.assert_allclose(points.hidden, [np.linalg.solve(np.eye(2) - weights, np.ones(2))], atol=1e-14)
    assert [wave["seeded"] for wave in points.report.waves] == [False, True, True]
    audit = jaxfp.audit(points, jaxfp.linearize(step_fn, params, points.hidden))
    assert audit.index_sum == 1
    assert audit.expected is None
    assert not audit.complete
    assert "No degree guarantee" in audit.summary()


# The packaged network of 100 units.


@pytest.fixture(scope="module")
def starts(tanh_network, tanh_analysis):
    """256 states of its trials, blurred by 0.5."""
    return np.asarray(jaxfp.sample_candidates(jax.random.key(5), tanh_analysis[2], 256, 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_until_complete_ends_at_one_set_whatever_the_key(tanh_network, tanh_analysis, starts, seed):
    """From half the candidates and any key: index sum +1 and the same points, to 1e-10, that the main job finds."""
    step_fn, params, _ = tanh_network
    points = jaxfp.find_fixed_points(step_fn, params, starts, until="complete", key=jax.random.key(seed))
    fixed = jaxfp.take(points, points.status == FIXED)
    reference = tanh_analysis[0].points
    assert same_points(fixed.hidden, reference.hidden[reference.status == FIXED]) < 1e-10
    assert len(fixed.hidden) == (reference.status == FIXED).sum()
    audit = jaxfp.audit(points, jaxfp.linearize(step_fn, params, points.hidden))
    assert audit.index_sum == audit.expected == 1
    assert audit.waves_met.all()
    assert not points.report.waves[0]["seeded"]
    found_by_seeds = sum(wave["n_new_fixed"] for wave in points.report.waves[1:])
    assert (fixed.n_hits == 0).sum() == found_by_seeds > 0  # what seeds found counts no hits


def test_the_packaged_network_has_eight_memories(tanh_network, tanh_analysis):
    """T5: 8 stable points with the 8 distinct sign codes; every FIXED point has q < 1e-26 in NumPy, too."""
    analysis = tanh_analysis[0]
    points = analysis.points
    fixed = points.status == FIXED
    w = {name: np.asarray(x, float) for name, x in tanh_network.params.items()}
    q = ((np.tanh(points.hidden @ w["w_rec"].T + w["b"]) - points.hidden) ** 2).sum(1) / 2
    assert (q[fixed] < 1e-26).all()
    assert (points.q[fixed] < 1e-26).all()
    stable = fixed & (analysis.modes.verdict == "stable")
    codes = [flip_flop.sign_codes(tanh_network, points.hidden)[i] for i in np.flatnonzero(stable)]
    assert len(codes) == len(set(codes)) == 8
    assert analysis.audit.index_sum == 1


def test_one_basin_is_never_called_complete_unless_asked(tanh_network, tanh_analysis, starts):
    """One basin gives one point and the right sum: until="all" is not complete, until="complete" finds the rest."""
    step_fn, params, _ = tanh_network
    memory = tanh_analysis[0].points.hidden[0]
    basin = (memory + 0.01 * np.random.default_rng(0).normal(size=(64, 100))).astype(np.float32)
    points = jaxfp.find_fixed_points(step_fn, params, basin)
    audit = jaxfp.audit(points, jaxfp.linearize(step_fn, params, points.hidden))
    assert points.n_hits.tolist() == [64]
    assert audit.index_sum == audit.expected == 1
    assert audit.unseen_mass == 0  # blind to what its candidates cannot see
    assert not audit.complete
    assert "no seeded wave has confirmed it" in audit.summary()
    more = jaxfp.find_fixed_points(step_fn, params, basin, until="complete")
    assert same_points(more.hidden, tanh_analysis[0].points.hidden) < 1e-10


# What is refused.


class Unhashable:
    __hash__ = None

    def __call__(self, params, hidden, inputs):
        return hidden


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"candidates": np.zeros(2)}, r"candidates must be \(n_candidates, n_hidden\)"),
        ({"candidates": np.zeros((0, 2))}, "at least one of at least one unit"),
        ({"candidates": np.zeros((3, 0))}, "at least one of at least one unit"),
        ({"candidates": np.zeros((3, 2), int)}, "candidates must be floating"),
        ({"candidates": np.zeros((3, 2), complex)}, "candidates must be floating"),
        ({"candidates": np.zeros((3, 3))}, "step_fn cannot take hidden"),
        ({"inputs": np.zeros((2, 1))}, "n_candidates = 3"),
        ({"inputs": np.zeros((3, 1, 1))}, r"\(n_candidates, n_inputs\)"),
        ({"inputs": np.full(1, np.nan)}, "inputs must be finite"),
        ({"inputs": np.full(1, 1j)}, "inputs must be real numbers"),
        ({"params": np.full((2, 2), np.nan)}, "params must be finite"),
        ({"params": {"w": np.array([np.inf])}}, r"params\['w'\] must be finite"),
        ({"step_fn": systems.loses_a_unit}, r"must return the shape of hidden, \(2,\), it returned \(1,\)"),
        ({"step_fn": systems.noisy, "params": 0.5}, "draws random numbers"),
        ({"step_fn": Unhashable()}, "step_fn must be hashable"),
        ({"key": 0}, r"jax\.random\.key"),
        ({"kind": "ode"}, '"map" or "flow"'),
        ({"until": "done"}, '"all" or "complete"'),
        ({"tolerance": -1.0}, "tolerance must be a finite number, 0 or more"),
        ({"slow_tolerance": -1e-9}, "slow_tolerance must be a finite number, 0 or more"),
        ({"unique_tolerance": np.nan}, "unique_tolerance must be a finite number, 0 or more"),
        ({"max_steps": 0}, "max_steps must be a positive integer"),
        ({"chunk_size": 1.5}, "chunk_size must be a positive integer"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_words(change, wanted):
    """Wrong shapes, dtypes, ranges, NaN weights and steps that are no maps raise ValueError naming what was wanted."""
    arguments = {"step_fn": systems.tanh_row, "params": np.eye(2), "candidates": np.zeros((3, 2)), **change}
    with pytest.raises(ValueError, match=wanted):
        jaxfp.find_fixed_points(**arguments)


def test_legacy_keys_are_refused():
    """A uint32 key raises ValueError before anything is searched."""
    with pytest.raises(ValueError, match="one typed key"):
        jaxfp.find_fixed_points(systems.breaks, None, np.zeros((1, 1)), key=jax.random.PRNGKey(0))
