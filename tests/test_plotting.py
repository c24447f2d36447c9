"""Figures draw what the result tuples say, into the axes given, and leave pyplot alone."""

import functools

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3D

from jaxfp import plotting, trace_line
from jaxfp.analysis import completeness, continuation, modes
from jaxfp.types import FIXED, SLOW, FixedPoints, Report

N = 4


def points_at(hidden, status=None, q=None):
    """Points as a search would give them, at the places given."""
    hidden = np.asarray(hidden, float).reshape(-1, N)
    n = len(hidden)
    status = np.full(n, FIXED) if status is None else np.asarray(status)
    q = np.where(status == FIXED, 1e-32, 1e-6) if q is None else np.asarray(q)
    report = Report(
        kind="map", inputs=None, n_candidates=8, counts={}, reasons={}, unresolved=np.zeros(1, int),
        n_candidates_per_input=np.array([8]), bounded=True, bounded_by="a test", until="all", waves=[],
        seeded_waves_met=np.zeros(1, bool), candidate_speed=1.0, precision="float64", precision_floor=2.2e-16,
        n_steps={}, seconds={},
    )  # fmt: skip
    return FixedPoints(hidden, None, q, np.sqrt(2 * q), status, np.ones(n, bool), np.full(n, 2), report)


def modes_with(*n_unstable):
    """Spectra with so many unstable dimensions each, of diagonal Jacobians."""
    diagonals = [np.where(np.arange(N) < n, 1.5 + 0.1 * np.arange(N), 0.3 + 0.1 * np.arange(N)) for n in n_unstable]
    return modes.spectrum(np.reshape([np.diag(d) for d in diagonals], (-1, N, N)))


def axes(**keywords):
    return Figure().add_subplot(**keywords)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drawn(ax):
    """Rows of coordinates of every scatter by its label."""
    return {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections if not c.get_label().startswith("_")}


PROJECTION = (np.zeros(N), np.eye(3, N))
CUBE = np.array([[1, 1, 1, 0], [-1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0.5, 0.5, 0, 0]], float)


def cube(ax=None, trajectories=None):
    points = points_at(CUBE, [FIXED, FIXED, FIXED, FIXED, SLOW])
    return plotting.state_space(points, modes_with(0, 0, 1, 3, 2), PROJECTION, trajectories, ax)


def saddle_node(a, hidden, inputs):
    """One step: x' = x + (a + x^2) / 2, y' = y / 2."""
    return jnp.stack([hidden[0] + (a + hidden[0] ** 2) / 2, hidden[1] / 2])


def test_state_space_counts_points_by_unstable_dimensions():
    ax = axes(projection="3d")
    assert cube(ax) is ax
    assert legend(ax) == ["slow points (1)", "stable (2)", "1 unstable (1)", "3 unstable (1)"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_zlabel()) == ("PC 1", "PC 2", "PC 3")
    places = {c.get_label(): np.stack(c._offsets3d, 1) for c in ax.collections}
    np.testing.assert_array_equal(places["stable (2)"], CUBE[:2, :3])
    np.testing.assert_array_equal(places["slow points (1)"], CUBE[4:, :3])


def test_state_space_draws_one_arm_for_each_unstable_direction_in_view():
    """1 + 3 unstable directions of the saddles, none of the slow point; each goes through its point, along its mode."""
    ax = cube(axes(projection="3d"))
    arms = [np.stack(line.get_data_3d(), 1) for line in ax.lines if isinstance(line, Line3D)]
    assert len(arms) == 4
    middles = np.array([arm.mean(0) for arm in arms])
    np.testing.assert_allclose(middles, CUBE[[2, 3, 3, 3], :3], atol=1e-12)
    ways = np.array([arm[1] - arm[0] for arm in arms])
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(ways), np.eye(3)[[0, 2, 1, 0]], atol=1e-12)  # largest eigenvalue first


def test_state_space_draws_trajectories_faintly():
    paths = np.random.default_rng(0).normal(size=(5, 7, N))
    ax = cube(axes(projection="3d"), paths)
    faint = [line for line in ax.lines if len(line.get_data_3d()[0]) == 7]
    assert len(faint) == 5
    assert all(line.get_alpha() < 0.3 for line in faint)
    np.testing.assert_allclose(np.stack(faint[2].get_data_3d(), 1), paths[2, :, :3])


@pytest.mark.parametrize("n_points", [0, 1])
def test_state_space_of_next_to_nothing(n_points):
    ax = plotting.state_space(
        points_at(CUBE[:n_points]), modes_with(*[1] * n_points), PROJECTION, None, axes(projection="3d")
    )
    assert (ax.get_legend() is not None) == bool(n_points)
    ax.figure.canvas.draw()
    assert all(np.isfinite([*ax.get_xlim(), *ax.get_ylim(), *ax.get_zlim()]))


def test_state_space_of_slow_points_alone():
    points = points_at(CUBE[:2], [SLOW, SLOW])
    ax = plotting.state_space(points, modes_with(0, 1), PROJECTION, None, axes(projection="3d"))
    assert legend(ax) == ["slow points (2)"]
    assert not ax.lines


def test_state_space_refuses():
    points, spectra = points_at(CUBE), modes_with(0, 0, 1, 3, 2)
    with pytest.raises(ValueError, match=r"axes \(3, 4\), got \(2, 4\)"):
        plotting.state_space(points, spectra, (np.zeros(N), np.eye(2, N)), None, axes(projection="3d"))
    with pytest.raises(ValueError, match='projection="3d"'):
        plotting.state_space(points, spectra, PROJECTION, None, axes())


def test_complex_pairs_span_their_plane():
    """A rotation that grows: two arms, at right angles, both in its plane."""
    jacobian = np.eye(N) * 0.5
    jacobian[:2, :2] = [[1.2, -0.6], [0.6, 1.2]]
    ax = plotting.state_space(
        points_at(CUBE[:1]), modes.spectrum(jacobian[None]), PROJECTION, None, axes(projection="3d")
    )
    first, second = (np.ptp(np.stack(line.get_data_3d(), 1), axis=0) for line in ax.lines)
    assert len(ax.lines) == 2
    assert first[2] == second[2] == 0
    ways = [np.diff(np.stack(line.get_data_3d(), 1), axis=0)[0] for line in ax.lines]
    assert abs(ways[0] @ ways[1]) < 1e-12
    assert min(np.linalg.norm(ways, axis=1)) > 0.1


def test_eigenvalues_are_all_drawn():
    spectra, ax = modes_with(0, 0, 2, 4), axes()
    assert plotting.eigenvalues(spectra, ax=ax) is ax
    assert legend(ax) == ["stable (2)", "2 unstable (1)", "4 or more unstable (1)", "border of stability"]
    assert {name: len(rows) for name, rows in drawn(ax).items()} == {
        "stable (2)": 2 * N, "2 unstable (1)": N, "4 or more unstable (1)": N,
    }  # fmt: skip
    np.testing.assert_array_equal(drawn(ax)["2 unstable (1)"][:, 0], spectra.eigenvalues[2].real)
    gray = plotting.eigenvalues(spectra, status=np.array([FIXED, SLOW, SLOW, FIXED]), ax=axes())
    assert legend(gray)[0] == "slow points (2)"


def test_border_of_stability():
    circle = plotting.eigenvalues(modes_with(1), ax=axes())
    border = next(line for line in circle.lines if line.get_label() == "border of stability")
    np.testing.assert_allclose(np.hypot(*border.get_data()), 1)
    axis = plotting.eigenvalues(modes_with(1), kind="flow", ax=axes())
    border = next(line for line in axis.lines if line.get_label() == "border of stability")
    assert list(border.get_xdata()) == [0, 0]
    with pytest.raises(ValueError, match="kind"):
        plotting.eigenvalues(modes_with(1), kind="ode", ax=axes())


def test_eigenvalues_fill_the_axes():
    """Slow dynamics live in a corner of the circle: the limits follow them, and the border next to them is in view."""
    slow = modes.spectrum(np.diag([0.98, 0.96, 0.95, 0.94])[None])
    ax = plotting.eigenvalues(slow, ax=axes())
    ax.figure.canvas.draw()
    assert ax.get_xlim()[0] > 0.8
    assert ax.get_xlim()[1] > 1
    wide = plotting.eigenvalues(modes.spectrum(np.diag([0.9, 0.5, -0.5, 0.1])[None]), ax=axes())
    wide.figure.canvas.draw()
    assert wide.get_xlim()[0] < -1
    assert wide.get_ylim()[0] < -1


def test_no_eigenvalues():
    ax = plotting.eigenvalues(modes_with(), ax=axes())
    assert legend(ax) == ["border of stability"]


def bars(ax):
    """Sum of the bars of each histogram by label."""
    return {c[0].get_label(): sum(bar.get_height() for bar in c) for c in ax.containers}


def test_q_shows_shares_of_candidates_and_points():
    points, ax = points_at(CUBE[:3], [FIXED, FIXED, SLOW], [1e-31, 0.0, 1e-6]), axes()
    assert plotting.q_distribution(points, np.array([1.0, 2.0, np.nan, np.inf]), ax) is ax
    np.testing.assert_allclose(list(bars(ax).values()), 1)
    assert list(bars(ax)) == ["candidates (2)", "slow points (1)", "fixed points (2)"]
    left = ax.containers[2][0]
    assert left.get_height() == 0.5  # q = 0 has no logarithm: it stands at the left end
    assert left.get_x() == pytest.approx(np.log10(plotting.Q_FLOOR))


@pytest.mark.parametrize("candidate_q", [[], [1.0]])
def test_q_without_points(candidate_q):
    ax = plotting.q_distribution(points_at([]), candidate_q, axes())
    assert list(bars(ax)) == ["candidates (1)"] * len(candidate_q)


def test_discovery_ends_at_what_the_candidates_found():
    points = points_at(CUBE[:2])._replace(n_hits=np.array([8, 0]))
    audit, ax = completeness.audit(points, np.stack([0.5 * np.eye(N)] * 2)), axes()
    assert plotting.discovery(audit, ax) is ax
    curve, known = ax.lines
    assert curve.get_xdata()[-1] == 8
    assert curve.get_ydata()[-1] == pytest.approx(1)
    assert set(known.get_ydata()) == {2}
    assert "all fixed points known (2)" in legend(ax)
    with pytest.raises(ValueError, match="find_fixed_points"):
        plotting.discovery(completeness.audit((CUBE[:2], None), np.stack([0.5 * np.eye(N)] * 2)), axes())


def test_trial_draws_every_line():
    inputs = np.zeros((10, 2))
    inputs[0], inputs[4, 1] = 1, -1
    targets = np.ones((10, 2))
    targets[4:, 1] = -1
    ax = axes()
    assert plotting.trial(inputs, targets, 0.9 * targets, ax) is ax
    assert legend(ax) == ["target", "output", "input pulse"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bit 1", "bit 2"]
    np.testing.assert_allclose(ax.lines[3].get_ydata(), -3 + 0.9 * targets[:, 1])
    pulses = [path.vertices for collection in ax.collections for path in collection.get_paths()]
    assert [(path[0, 0], path[1, 1] - path[0, 1]) for path in pulses] == [(0, 1), (0, 1), (4, -1)]
    with pytest.raises(ValueError, match=r"\(n_time, n_bits\), got \(10, 2\), \(10, 2\) and \(9, 2\)"):
        plotting.trial(inputs, targets, targets[:9], axes())


def bent_family():
    path = np.linspace(-1.0, 0.8, 10)
    return continuation.sweep(saddle_node, path[0], (np.array([[-1.0, 0.0], [1.0, 0.0]]), None), params_path=path), path


def inside_orbits(ax=None):
    family, path = bent_family()
    ends = 2 + np.arange(len(path))
    return plotting.family_inside_orbits(family, np.array([1.0, 0.0]), path, -ends, ends, ax)


def plane(ax=None):
    points = points_at(CUBE[:2])._replace(hidden=np.array([[0.5, 0.0], [-0.5, 0.0]]))
    x = np.linspace(-1, 1, 5)
    return plotting.phase_plane(x, x, np.stack(np.meshgrid(x, -x), axis=-1), points, modes_with(0, 1), [np.eye(2)], ax)


def node_and_saddle(ax=None):
    family, path = bent_family()
    return plotting.saddle_node(family, path, [0.5], [[0.0, 0.0]], ax)


def cubic(params, hidden, inputs):
    """One step: along the first unit to 0 and away from +-1, the others decay."""
    return jnp.concatenate([hidden[:1] + 0.01 * (hidden[:1] ** 3 - hidden[:1]), hidden[1:] / 2])


@functools.cache
def drifting_line():
    return trace_line(cubic, None, np.linspace(-1.2, 1.2, 9)[:, None] * np.eye(N)[0], n_points=9)


CALLS = {
    "bifurcation_diagram": lambda ax=None: plotting.bifurcation_diagram(bent_family()[0], ax=ax),
    "state_space": cube,
    "eigenvalues": lambda ax=None: plotting.eigenvalues(modes_with(0, 1), ax=ax),
    "q_distribution": lambda ax=None: plotting.q_distribution(points_at(CUBE), np.ones(3), ax),
    "discovery": lambda ax=None: plotting.discovery(completeness.audit(points_at(CUBE[:1]), np.eye(N)[None] / 2), ax),
    "trial": lambda ax=None: plotting.trial(np.ones((3, 2)), np.ones((3, 2)), np.ones((3, 2)), ax),
    "readout_space": lambda ax=None: plotting.readout_space(np.zeros((2, 5, 3)), np.ones((2, 5, 3)), ax),
    "expansion_points": lambda ax=None: plotting.expansion_points(
        CUBE, [0, 1, 1, 1, 1], "+-", CUBE[:3], [0, 0, 1], PROJECTION, ax
    ),
    "branches": lambda ax=None: plotting.branches({"network": np.eye(3), "linear system": 2 * np.eye(3)}, ax),
    "state_eigenvalues": lambda ax=None: plotting.state_eigenvalues([[0.5, 0.1j], [0.9, 0.2]], ["+", "-"], ax),
    "selection_map": lambda ax=None: plotting.selection_map(
        [[1.0, 0.1], [0.2, 2.0]], [[True, False], [False, True]], ["-", "+"], ["1-", "1+"], ax
    ),
    "evidence_plane": lambda ax=None: plotting.evidence_plane(
        np.zeros((2, 4, 2)), np.ones((2, 4, 2)), [-0.1, 0.1], np.eye(2), ("choice", "motion"), ax
    ),
    "selection_vectors": lambda ax=None: plotting.selection_vectors(
        CUBE[:, :3], [0, 0, 1, 1, 1], ["first", "second"], CUBE[:2, :3], np.eye(3)[:2], [0, 1], "xyz", ax
    ),
    "hold_curves": lambda ax=None: plotting.hold_curves([10, 100], {"network": [1, 1], "linear system": [1, 0.5]}, ax),
    "oscillations": lambda ax=None: plotting.oscillations(np.sin(np.arange(50))[None], [0.5], [1.0], 1.0, ax),
    "orbits": lambda ax=None: plotting.orbits(
        [np.eye(N)], np.zeros((1, N)), np.eye(N)[None, :2], [0.1], (np.zeros(N), np.eye(N)[:3]), ax
    ),
    "frequencies": lambda ax=None: plotting.frequencies([0.1, 0.6], [0.1, 0.6], [0.1, np.nan], ax),
    "taylor": lambda ax=None: plotting.taylor({"constant": [0.0], "first": [1.0], "second": [0.1]}, [0.1], ax),
    "family_inside_orbits": lambda ax=None: inside_orbits(ax),
    "multipliers": lambda ax=None: plotting.multipliers([0.1, 0.6], [[1.0, 0.2j, 0.0], [1.0, 0.3, 0.1]], ax),
    "distances": lambda ax=None: plotting.distances([0.1, 0.6], [1.0, 1.2], [[1.0, 0.5], [1.3, 0.7]], ax),
    "average": lambda ax=None: plotting.average(np.ones((3, 2)), np.ones(3), np.ones(3), ax),
    "sheet": lambda ax=None: plotting.sheet(np.eye(2), [0.5, -0.5], "last pulse", [np.eye(2)], ax),
    "decoded": lambda ax=None: plotting.decoded(np.eye(2), np.eye(2), ("last", "second"), ax),
    "tolerances": lambda ax=None: plotting.tolerances({"tolerance": [1e-5, 1e-4], "decoded": [0.9, 0.8]}, 1e-5, ax),
    "unstable_manifolds": lambda ax=None: plotting.unstable_manifolds(
        CUBE[:3], [0, 0, 1], [np.eye(N)], PROJECTION, ["+", "-", "?"], ax
    ),
    "edge_distances": lambda ax=None: plotting.edge_distances([1, 1, 2], ax),
    "truth_table": lambda ax=None: plotting.truth_table([["+", "-"]], [[True, False]], ["+"], ["up", "down"], ax),
    "amplitude_sweep": lambda ax=None: plotting.amplitude_sweep(
        [[-0.5, -1.0], [0.5, 1.0]], [0.5, 0.7], 0.0, 0.6, ("-", "+"), ax
    ),
    "approach": lambda ax=None: plotting.approach([[0.1, 0.01, np.nan]], [[1.0, 0.3, np.nan]], ax),
    "slow_line": lambda ax=None: plotting.slow_line(drifting_line(), (np.zeros(N), np.eye(2, N)), CUBE, ax),
    "line_drift": lambda ax=None: plotting.line_drift(drifting_line(), ax),
    "line_timescales": lambda ax=None: plotting.line_timescales(drifting_line(), ax),
    "cumulative_variance": lambda ax=None: plotting.cumulative_variance({"trained": [0.9, 1.0]}, ax),
    "text_states": lambda ax=None: plotting.text_states(np.eye(2), [0, 1], [1.0, 0.5], np.eye(2), [np.eye(2)], ax),
    "slow_points_on_line": lambda ax=None: plotting.slow_points_on_line(
        np.eye(2), [-1.0, 1.0], (np.eye(2), [-1.0, 1.0]), (np.eye(2), np.eye(2)), ax
    ),
    "theta_eigenvalues": lambda ax=None: plotting.theta_eigenvalues([[0.9, 0.1j]], [0.0], ax),
    "token_timescales": lambda ax=None: plotting.token_timescales(
        [0.0], [[100.0, 5.0, 4.0]], 20.0, ([-1.0, 1.0], [90.0, 110.0]), ax
    ),
    "valence_histograms": lambda ax=None: plotting.valence_histograms({"positive": [1.0], "neutral": [0.0]}, ax),
    "alignment_histogram": lambda ax=None: plotting.alignment_histogram([0.9, np.nan], [0.1], ax),
    "error_histogram": lambda ax=None: plotting.error_histogram([0.1, 0.2], 0.4, ax),
    "error_growth": lambda ax=None: plotting.error_growth([1, 2], {"linear": [0.1, 0.3]}, ax),
    "modifier_shares": lambda ax=None: plotting.modifier_shares({"negators": {"not": -0.5}}, (-0.1, 0.1), ax),
    "spike_rates": lambda ax=None: plotting.spike_rates(np.eye(3), np.ones((3, 3)), np.ones((3, 3)), None, ax),
    "factor_traces": lambda ax=None: plotting.factor_traces(np.eye(3), np.eye(3), ax),
    "true_against_inferred": lambda ax=None: plotting.true_against_inferred(
        np.arange(5.0), -np.arange(5.0), "input", ax
    ),
    "phase_plane": plane,
    "saddle_node": node_and_saddle,
    "timescales": lambda ax=None: plotting.timescales({"gru": [[100.0, 50.0], [90.0, 40.0]]}, ax),
}


DEEP = {"state_space", "orbits", "unstable_manifolds", "readout_space", "expansion_points", "selection_vectors"}


@pytest.mark.parametrize("name", CALLS)
def test_pyplot_is_touched_only_where_no_axes_are_given(name):
    plt.close("all")
    ax = axes(**({"projection": "3d"} if name in DEEP else {}))
    CALLS[name](ax)
    assert plt.get_fignums() == []
    own = CALLS[name]()
    assert plt.get_fignums() == [own.figure.number]
    own.figure.canvas.draw()
    assert own.get_title()
    plt.close("all")


def test_every_public_function_is_called_here():
    public = {name for name in vars(plotting) if not name.startswith("_") and callable(getattr(plotting, name))}
    own = {name for name in public if getattr(plotting, name).__module__.startswith(plotting.__name__)}
    assert own == set(CALLS)


def test_cycles_and_families_show_what_they_are_given():
    """The band is what orbits run through, with the branches in it; multipliers are moduli, their zeros at a floor."""
    ax = inside_orbits(axes())
    assert {"the orbit runs through", "1 unstable"} <= set(legend(ax))
    low, high = ax.collections[0].get_datalim(ax.transData).intervaly
    assert high == -low > 2
    lines = CALLS["multipliers"](axes()).lines
    assert [line.get_ydata().tolist() for line in lines] == [[1, 1], [0.2, 0.3], [1e-18, 0.1]]
    radius, mean, smallest = CALLS["distances"](axes()).lines
    assert (radius.get_ydata().tolist(), mean.get_ydata().tolist()) == ([1.0, 1.2], [1.0, 1.3])
    assert smallest.get_ydata().tolist() == [0.5, 0.7]


def test_connections_are_drawn():
    """Every path, every point by its unstable dimensions, the names of the stable ones; right and wrong cells apart."""
    ax = axes(projection="3d")
    CALLS["unstable_manifolds"](ax)
    assert legend(ax) == ["stable (2)", "1 unstable (1)"]
    assert len(ax.lines) == 1
    assert [text.get_text().strip() for text in ax.texts] == ["+", "-"]
    with pytest.raises(ValueError, match='projection="3d"'):
        CALLS["unstable_manifolds"](axes())

    ax = CALLS["truth_table"](axes())
    assert "1 of 2 right" in ax.get_title()
    assert ax.images[0].get_array().tolist() == [[True, False]]
    ax = CALLS["approach"](axes())
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0.01, 0.1]]  # by distance, and without what is NaN
    below, above = CALLS["amplitude_sweep"](axes()).lines[:2]
    assert below.get_color() != above.get_color()


def test_slow_lines_show_their_drift_and_their_fixed_points():
    ax = CALLS["slow_line"](axes())
    assert legend(ax) == ["slow points (5)", "stable along it (1)", "unstable along it (2)"]
    np.testing.assert_allclose(np.abs(drawn(ax)["unstable along it (2)"][:, 0]), 1, atol=1e-9)
    pieces = ax.collections[1]
    line = drifting_line()
    np.testing.assert_allclose(pieces.get_array(), (line.drift[1:] + line.drift[:-1]) / 2)
    ax = CALLS["line_drift"](axes())
    np.testing.assert_allclose(drawn(ax)["stable along it"], [[1.2, 0]], atol=1e-6)
    along, grows, other = CALLS["line_timescales"](axes()).lines
    np.testing.assert_allclose(other.get_ydata(), 1 / np.log(2))
    np.testing.assert_allclose(along.get_ydata(), np.abs(line.timescale))
    np.testing.assert_array_equal(grows.get_xdata(), line.theta[line.timescale < 0])
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        plotting.slow_line(line, PROJECTION)


def test_expansion_points_and_fixed_points_are_told_apart():
    """Each cluster has its color and name, stable points and saddles their marks; flat axes are refused."""
    ax = axes(projection="3d")
    CALLS["expansion_points"](ax)
    assert legend(ax) == ["expansion points (5)", "fixed point, stable (2)", "fixed point, saddle (1)"]
    assert [text.get_text().strip() for text in ax.texts] == ["+", "-"]
    assert [len(c._offsets3d[0]) for c in ax.collections] == [1, 4, 2, 1]
    for name in ("expansion_points", "readout_space"):
        with pytest.raises(ValueError, match='projection="3d"'):
            CALLS[name](axes())
    with pytest.raises(ValueError, match=r"\(3, 4\), got \(2, 4\)"):
        plotting.expansion_points(CUBE, [0] * 5, "+", CUBE, [0] * 5, (np.zeros(N), np.eye(2, N)))
    with pytest.raises(ValueError, match=r"\(n_trials, n_time, 3\), got \(2, 5, 2\)"):
        plotting.readout_space(np.zeros((2, 5, 2)), np.zeros((2, 5, 2)))


def test_selection_frames_what_is_wanted_and_branches_stand_apart():
    ax = CALLS["selection_map"](axes())
    assert ax.images[0].get_array().tolist() == [[1.0, 0.1], [0.2, 2.0]]
    assert [(round(p.get_x() + 0.47), round(p.get_y() + 0.45)) for p in ax.patches] == [(0, 0), (1, 1)]
    ax = CALLS["branches"](axes())
    assert legend(ax) == ["network", "linear system"]
    network, system = (np.stack([line.get_ydata() for line in ax.lines[i : i + 3]], 1) for i in (0, 3))
    np.testing.assert_allclose(system - network, np.eye(3), atol=1e-12)  # the same base under both
    assert [line.get_ydata().tolist() for line in CALLS["hold_curves"](axes()).lines] == [[1, 1], [1, 0.5]]


def test_contexts_have_their_own_points_arrows_and_shades():
    ax = CALLS["selection_vectors"](axes(projection="3d"))
    assert legend(ax) == [
        "first: expansion points (2), selection vectors",
        "second: expansion points (3), selection vectors",
    ]
    shafts = [np.array(c._segments3d)[0] for c in ax.collections if hasattr(c, "_segments3d")]
    starts = CUBE[:2, :3]
    np.testing.assert_allclose(np.sort(shafts, axis=1), np.stack([starts, starts + np.eye(3)[:2]], axis=1))
    ax = CALLS["evidence_plane"](axes())
    assert legend(ax) == ["network", "linear system", "expansion points (2)"]
    negative, positive = (ax.lines[row].get_color() for row in (1, 3))
    assert negative[2] > negative[0]  # blue
    assert positive[0] > positive[2]  # red


def test_bifurcation_diagram_draws_each_branch_and_event():
    family, path = bent_family()
    ax = plotting.bifurcation_diagram(family, np.array([1.0, 0.0]), path, "a", axes())
    assert legend(ax) == ["stable", "1 unstable", "fold (1)"]
    assert ax.get_xlabel() == "a"
    np.testing.assert_allclose(drawn(ax)["fold (1)"], [[0, 0]], atol=1e-6)
    x = np.concatenate([line.get_xdata() for line in ax.lines])
    y = np.concatenate([line.get_ydata() for line in ax.lines])
    np.testing.assert_allclose(x, -(y**2), atol=0.2)  # the parameter between samples is interpolated
    with pytest.raises(ValueError, match="direction must be"):
        plotting.bifurcation_diagram(family, np.ones(3))
    plain = plotting.bifurcation_diagram(family._replace(n_unstable=-np.ones_like(family.n_unstable)), ax=axes())
    assert legend(plain)[0] == "not counted"
