"""Unstable manifolds end where theory says, in data when they end nowhere, and the graph depends on nothing else."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import jaxfp
from jaxfp.analysis import arrivals, topology
from jaxfp.cli import flip_flop
from jaxfp.tasks import toys

THREE = np.array([[0.0, 0.0], [1.0, 0.5], [-1.0, -0.5]])
GRID = np.array([[x, y] for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0)])
PLACES = np.array([[0.0, 0.0], [0.0, 0.5], [0.0, 1.0]])


def double_well(params, hidden, inputs):
    """Flow x' = s (x - x^3), each unit by itself: 3^n points, 2^n stable, and all connections known by symmetry."""
    return params * (hidden - hidden**3)


def flips(params, hidden, inputs):
    """One step: x' = -x (1.5 - 1.2 y), y' = y + y (1 - y)(y - 1/2) + x^2.

    (0, 0) is a flip saddle with multiplier -1.5, (0, 1/2) a saddle with multiplier 1.25 along the line x = 0, which is
    invariant and leads from it to (0, 0) exactly, (0, 1) stable with multipliers -0.3 and 1/2.
    """
    x, y = hidden
    return jnp.stack([-x * (1.5 - 1.2 * y), y + y * (1 - y) * (y - 0.5) + x**2])


def flip_to_cycle(params, hidden, inputs):
    """One step: h' = -1.5 h + h^3: from the flip saddle 0 to the cycle +-sqrt(1/2), which holds itself."""
    return -1.5 * hidden + hidden**3


def spiral(params, hidden, inputs):
    """Flow: an unstable spiral at 0 within a limit cycle of radius 1; the third unit decays."""
    x, y, z = hidden
    grows = 1 - x**2 - y**2
    return jnp.stack([grows * x - 2 * y, 2 * x + grows * y, -z])


def captured(params, hidden, inputs):
    """Flow: a complex pair (0.5 +- 2i) at 0 spirals out while z leaves for a well at z = +-1, where x and y decay."""
    x, y, z = hidden
    grows = 0.5 - 2 * z**2
    return jnp.stack([grows * x - 2 * y, 2 * x + grows * y, 0.5 * (z - z**3)])


def modes_of(step_fn, params, points, kind="map", inputs=None):
    return jaxfp.spectrum(jaxfp.linearize(step_fn, params, points, inputs).jacobian, kind=kind)


def graph_of(step_fn, params, points, kind="map", **more):
    modes = modes_of(step_fn, params, points, kind)
    return jaxfp.connections(step_fn, params, (points, None), modes, kind=kind, **more)


def edges_of(graph, names):
    """{source: {target: fraction}} by what the points are called."""
    table = {}
    for source, target, share in zip(graph.source, graph.target, graph.fraction, strict=True):
        ends = table.setdefault(names[source], {})
        name = names[target] if target >= 0 else None
        ends[name] = ends.get(name, 0) + share
    return table


def test_the_saddle_of_figure_1_leads_to_both_nodes():
    """Toy A: the branches along the eigenvector of (sqrt 3 - 1) / 2 end at the nodes, whose Jacobians are defective."""
    graph = graph_of(toys.three_points, None, THREE, "flow")
    growth = (np.sqrt(3) - 1) / 2
    assert graph.source.tolist() == [0, 0]
    assert (graph.outcome == jaxfp.REACHED).all()
    assert sorted(graph.target.tolist()) == [1, 2]
    assert graph.n_starts.tolist() == [2, 2]
    for way, target in zip(graph.direction, graph.target, strict=True):
        # x2 = growth x1 on the eigenvector of [[0, 1], [1/2, -1]]
        np.testing.assert_allclose(way[1], growth * way[0], atol=1e-15)
        assert np.sign(way[0]) == np.sign(THREE[target, 0])
    np.testing.assert_allclose(np.linalg.norm(graph.direction, axis=1), 1, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_of_two_wells(dtype):
    """Index 2 at the origin: a quarter to each corner. Four saddles: each joins the two corners of its side."""
    graph = graph_of(double_well, dtype(1.0), GRID, "flow")
    table = edges_of(graph, [tuple(point) for point in GRID.tolist()])
    corners = {(x, y) for x in (-1, 1) for y in (-1, 1)}
    assert table.pop((0, 0)) == dict.fromkeys(corners, 0.25)
    for (x, y), ends in table.items():
        assert ends == {(x or s, y or s): 0.5 for s in (-1, 1)}
    assert len(table) == 4
    assert graph.direction.dtype == np.float64

    joined = jaxfp.memory_graph(graph, ["".join("-0+"[round(1 + x)] for x in point) for point in GRID])
    assert joined.distance.tolist() == [1, 1, 1, 1]
    assert len({*zip(joined.first.tolist(), joined.second.tolist(), strict=True)}) == 4
    assert joined.n_left_out == 0


def test_a_product_of_three_wells():
    """Index 3 at the origin: 8 corners, an eighth each within the error of 64 pairs of opposite samples."""
    points = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3), -1).reshape(-1, 3)
    graph = graph_of(double_well, 1.0, points, "flow", n_samples=128)
    rows = graph.n_unstable == 3
    share = graph.fraction[rows]
    assert rows.sum() == 8
    assert share.sum() == 1
    assert (np.abs(share - 1 / 8) < 4 * np.sqrt(1 / 8 * 7 / 8 / 64)).all()
    # the opposite of every start ends at the opposite corner
    by_target = {tuple(points[t]): f for t, f in zip(graph.target[rows], share, strict=True)}
    assert all(by_target[x] == by_target[tuple(-np.array(x))] for x in by_target)
    joined = jaxfp.memory_graph(graph)
    assert len(joined.saddle) == 12
    assert joined.distance is None


def test_the_order_of_the_points_does_not_matter():
    order = np.random.default_rng(0).permutation(len(GRID))
    names = [tuple(point) for point in GRID.tolist()]
    straight = edges_of(graph_of(double_well, 1.0, GRID, "flow"), names)
    shuffled = edges_of(graph_of(double_well, 1.0, GRID[order], "flow"), [names[row] for row in order])
    assert straight == shuffled


def test_a_flip_saddle_reaches_one_point_on_both_sides():
    """Multiplier -1.5: the orbit jumps from side to side and settles at (0, 1), from either branch."""
    graph = graph_of(flips, None, PLACES)
    assert graph.source.tolist() == [0, 0, 1, 1]
    assert graph.target[:2].tolist() == [2, 2]
    # Along the invariant line one branch of (0, 1/2) ends in the saddle at 0: said as what it is, in data.
    assert sorted(graph.target[2:].tolist()) == [0, 2]
    assert {int(t): int(o) for t, o in zip(graph.target, graph.outcome, strict=True)} == {
        0: jaxfp.AT_SADDLE,
        2: jaxfp.REACHED,
    }
    joined = jaxfp.memory_graph(graph)
    assert (joined.saddle.tolist(), joined.first.tolist(), joined.second.tolist()) == ([0], [2], [2])
    assert joined.n_left_out == 1


def test_what_is_no_point_is_no_target():
    """A cycle of a map is ELSEWHERE, a limit cycle still moves; a stable point that is not listed is ELSEWHERE, too."""
    zero = np.zeros((1, 1))
    to_cycle = graph_of(flip_to_cycle, None, zero)
    assert to_cycle.target.tolist() == [-1, -1]
    assert (to_cycle.outcome == jaxfp.ELSEWHERE).all()

    turning = graph_of(spiral, None, np.zeros((1, 3)), "flow", max_steps=1000)
    assert turning.n_unstable.tolist() == [2]
    assert (turning.target.tolist(), turning.fraction.tolist()) == ([-1], [1.0])
    assert turning.outcome.tolist() == [jaxfp.MAX_STEPS]

    missing = graph_of(toys.three_points, None, THREE[:2], "flow")
    assert sorted(missing.target.tolist()) == [-1, 1]
    assert missing.outcome[missing.target == -1].tolist() == [jaxfp.ELSEWHERE]


def test_what_blows_up_is_nonfinite():
    """A map h' = 2 h overflows, a flow x' = x^2 + x does within a finite time on one side."""
    assert (graph_of(lambda p, h, u: 2 * h, None, np.zeros((1, 1))).outcome == jaxfp.NONFINITE).all()
    graph = graph_of(lambda p, h, u: h**2 + h, None, np.array([[0.0], [-1.0]]), "flow")
    assert sorted(zip(graph.outcome.tolist(), graph.target.tolist(), strict=True)) == [
        (jaxfp.NONFINITE, -1),
        (jaxfp.REACHED, 1),
    ]


def test_a_complex_pair_with_a_third_direction():
    """(0.5 +- 2i) and 0.5 at the origin: half of the sphere has z > 0 and ends at z = 1, whatever x and y do."""
    points = np.array([[0.0, 0, 0], [0, 0, 1], [0, 0, -1]])
    graph = graph_of(captured, None, points, "flow")
    assert edges_of(graph, [0, 1, -1]) == {0: {1: 0.5, -1: 0.5}}
    assert graph.n_unstable.tolist() == [3, 3]


def test_points_at_other_inputs_are_no_targets():
    """A unit h' = tanh(1.5 h + u) at two inputs: each saddle joins the two stable points at its own."""
    step_fn, params = jaxfp.from_arrays("tanh", {"w_rec": np.array([[1.5]]), "w_in": np.array([[1.0]])})
    u = np.repeat([[0.0], [0.05]], 40, axis=0)
    points = jaxfp.find_fixed_points(step_fn, params, np.tile(np.linspace(-1, 1, 40), 2)[:, None], u)
    modes = modes_of(step_fn, params, points.hidden, inputs=points.inputs)
    graph = jaxfp.connections(step_fn, params, points, modes)
    assert len(graph.source) == 4
    assert (graph.outcome == jaxfp.REACHED).all()
    assert (points.inputs[graph.source] == points.inputs[graph.target]).all()


def test_starts_lie_on_the_unstable_manifold():
    """One step x' = 1.5 x, y' = y / 2 + x^2: the unstable manifold is y = x^2 / 1.75, and branches lie on it."""

    def bent(params, hidden, inputs):
        x, y = hidden
        return jnp.stack([x * 1.5, 0.5 * y + x**2])

    graph = graph_of(bent, None, np.zeros((1, 2)), max_steps=30)
    path = jaxfp.simulate(bent, None, graph.start, n_time=30)
    x, y = path[..., 0], path[..., 1]
    # y = c x^2 on it: 2.25 c = c / 2 + 1. Off by d^2 at a start d away, which has shrunk to (1/2)^30 of that.
    np.testing.assert_allclose(y[:, -1], x[:, -1] ** 2 / 1.75, rtol=1e-9)
    assert (np.abs(graph.start[:, 0]) < 1e-6).all()


def test_exported_to_networkx():
    graph = graph_of(double_well, 1.0, GRID, "flow")
    codes = ["".join("-0+"[round(1 + x)] for x in point) for point in GRID]
    made = jaxfp.to_networkx(graph, codes)
    assert made.number_of_nodes() == 9
    assert made.number_of_edges() == 4 + 8
    assert made.nodes[4] == {"n_unstable": 2, "code": "00"}
    assert made.nodes[0] == {"code": "--"}
    assert {data["outcome"] for _, _, data in made.edges(data=True)} == {"REACHED"}
    assert sum(data["fraction"] for _, _, data in made.out_edges(4, data=True)) == 1


def test_without_networkx_the_error_says_what_to_install(monkeypatch):
    graph = graph_of(toys.three_points, None, THREE, "flow")
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match="pip install networkx"):
        jaxfp.to_networkx(graph)


def test_points_known_to_a_few_digits_will_do():
    """Other tools stop at 1e-6 or so: further away from a saddle than its branches begin, from a node than arrival."""
    rough = THREE + 1e-5 * np.array([[1, 0], [0, 1], [1, 1]])
    graph = graph_of(toys.three_points, None, rough, "flow")
    assert sorted(graph.target.tolist()) == [1, 2]


def test_nothing_to_trace():
    """No saddle, no point: an empty graph of the right shapes."""
    step = lambda p, h, u: 0.5 * h  # noqa: E731
    for points in (np.zeros((1, 2)), np.zeros((0, 2))):
        jacobian = np.broadcast_to(0.5 * np.eye(2), (len(points), 2, 2))
        graph = jaxfp.connections(step, None, (points, None), jaxfp.spectrum(jacobian))
        assert graph.direction.shape == (0, 2)
        assert len(jaxfp.memory_graph(graph, ["+"] * len(points)).saddle) == 0


def test_an_arrival_is_sure():
    """From all around the border of its ball, a stable point of a sheared map takes the state; from far away not."""

    def sheared(params, hidden, inputs):
        x, y = hidden
        return jnp.stack([0.9 * x + 20 * y + 3 * x**2, 0.8 * y + x**2])

    modes = modes_of(sheared, None, np.zeros((1, 2)))
    land = arrivals.read(sheared, None, (np.zeros((1, 2)), None), modes, None)
    angles = np.linspace(0, 2 * np.pi, 64)
    ring = land.radius[0] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert 0 < land.radius[0] < 1e-8
    ends = jaxfp.simulate(sheared, None, ring, n_time=400)[:, -1]
    assert (np.linalg.norm(ends, axis=1) < 1e-12 * land.radius[0]).all()
    lost = np.asarray(sheared(None, jnp.array([1.0, 1.0]), None))
    assert np.linalg.norm(lost) > 1


def radius_of(step_fn, params, n_hidden=1):
    """Of the ball of arrival around the point 0."""
    points = np.zeros((1, n_hidden))
    return arrivals.read(step_fn, params, (points, None), modes_of(step_fn, params, points), None).radius[0]


@pytest.mark.parametrize("size", [1e3, 1e8, 1e10])
def test_one_curved_unit_of_a_hundred_is_seen(size):
    """Of h' = 0.9 h, in unit 37 + size h^2: states beyond 0.1 / size diverge; the ball ends before."""

    def bent(params, hidden, inputs):
        return (0.9 * hidden).at[37].add(params * hidden[37] ** 2)

    assert 0 < radius_of(bent, size, 100) < 0.1 / size


@pytest.mark.parametrize(("loss", "size"), [(1e-2, 1.0), (1e-8, 1e8), (1e-12, 1e4), (1e-14, 1e4)])
def test_a_third_derivative_is_seen(loss, size):
    """Of h' = (1 - loss) h + size h^3, all even derivatives 0; the basin of 0 ends at (loss / size)^(1/2)."""

    def cubic(params, hidden, inputs):
        return (1 - params[0]) * hidden + params[1] * hidden**3

    assert 0 < radius_of(cubic, np.array([loss, size])) < (loss / size) ** 0.5


@pytest.mark.parametrize("kink", [1e-6, 1e-9, 1e-10])
def test_a_kink_beside_a_point_is_seen(kink):
    """Of h' = h / 2 up to the kink, slope 3 beyond it: states beyond 5/4 of it leave for good, and reach nothing."""

    def bent(params, hidden, inputs):
        return 0.5 * hidden + 2.5 * jnp.maximum(hidden - params, 0.0)

    assert 0 < radius_of(bent, kink) < 1.25 * kink
    zero = np.zeros((1, 1))
    starts = kink * np.array([[1.2], [1.3]])
    shares = jaxfp.basins(bent, kink, (zero, None), modes_of(bent, kink, zero), starts)
    assert shares.target.tolist() == [0, -1]


def test_points_closer_than_a_branch_would_begin():
    """Of h' - 1 = x - x (x - d/2) (x - d) / (2 d^2), x = h - 1: stable at 1 and 1 + d, a saddle between."""

    def three(params, hidden, inputs):
        x = hidden - 1
        return 1 + x - 0.5 * x * (x - params / 2) * (x - params) / params**2

    for apart in (1e-5, 1e-8):
        points = 1 + apart * np.array([[0.0], [0.5], [1.0]])
        assert sorted(graph_of(three, apart, points).target.tolist()) == [0, 2]


def test_a_slow_saddle_of_a_stiff_flow_is_left():
    """Of x' = 1e-4 (x - x^3), y' = -1e4 y: the first steps, 1e-5 long, must move x by more than rounding."""

    def stiff(params, hidden, inputs):
        x, y = hidden
        return jnp.stack([1e-4 * (x - x**3), -1e4 * y])

    graph = graph_of(stiff, None, np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), "flow", max_steps=20_000)
    assert sorted(graph.target.tolist()) == [0, 2]


def test_modes_of_other_points_make_no_saddle_of_a_stable_point():
    """Where the modes say unstable and the Jacobian has nothing unstable there is no manifold, and no NaN."""
    points = np.array([[-1.0], [0.0], [1.0]])
    modes = modes_of(double_well, 1.0, points[[1, 0, 2]], "flow")
    graph = jaxfp.connections(double_well, 1.0, (points, None), modes, kind="flow")
    assert len(graph.source) == 0


def test_two_samples_that_end_alike_are_one_row():
    """Two unstable dimensions and n_samples=2: samples, no branches."""
    graph = graph_of(lambda p, h, u: 2 * h, None, np.zeros((1, 2)), n_samples=2)
    assert (graph.source.tolist(), graph.fraction.tolist(), graph.n_starts.tolist()) == ([0], [1.0], [2])


def test_marginal_eigenvalues_beside_an_unstable_one(monkeypatch):
    """Then LAPACK may refuse to sort, as one went over the border on the way: only what is surely beyond it counts."""
    # Seen about once in a thousand rotated matrices with 2 and a Jordan block of 1.
    whole, calls = scipy.linalg.schur, []

    def refusing(*arguments, **named):
        calls.append(named)
        if len(calls) == 1:
            raise np.linalg.LinAlgError("Leading eigenvalues do not satisfy sort condition.")
        return whole(*arguments, **named)

    monkeypatch.setattr(scipy.linalg, "schur", refusing)
    ways = topology._directions(np.diag([0.5, 1 + 1e-15, 2.0]), "map", 8, jax.random.key(0))
    assert len(calls) == 2
    np.testing.assert_allclose(np.abs(ways), [[0, 0, 1], [0, 0, 1]], atol=1e-15)


def test_the_cube_of_a_trained_memory(tanh_network, tanh_analysis):
    """Its 12 saddles with one unstable dimension join the 12 pairs of memories that differ in one bit."""
    points, modes = tanh_analysis[0].points, tanh_analysis[0].modes
    codes = flip_flop.sign_codes(tanh_network, points.hidden)
    graph = jaxfp.connections(*tanh_network[:2], points, modes)
    assert (graph.outcome == jaxfp.REACHED).all()
    assert (modes.n_unstable[graph.target] == 0).all()
    joined = jaxfp.memory_graph(graph, codes)
    edges = {frozenset((codes[a], codes[b])) for a, b in zip(joined.first, joined.second, strict=True)}
    assert joined.distance.tolist() == [1] * 12
    assert len(edges) == 12

    # Control: points whose units are shuffled are no points of this network, and nothing is connected to them.
    units = np.random.default_rng(0).permutation(points.hidden.shape[1])
    shuffled = jaxfp.connections(*tanh_network[:2], (points.hidden[:, units], None), modes, n_samples=2)
    assert (shuffled.target == -1).all()
    assert not (shuffled.outcome == jaxfp.REACHED).any()


def test_an_untrained_network_has_no_cube():
    """Control: random weights of the same kind have no eight memories to join."""
    step_fn, params = jaxfp.from_arrays("tanh", {"w_rec": 1.5 / 4 * jax.random.normal(jax.random.key(3), (16, 16))})
    starts = jax.random.normal(jax.random.key(1), (64, 16))
    points = jaxfp.find_fixed_points(step_fn, params, starts)
    graph = jaxfp.connections(step_fn, params, points, modes_of(step_fn, params, points.hidden), max_steps=2000)
    joined = jaxfp.memory_graph(graph)
    assert len({*zip(joined.first.tolist(), joined.second.tolist(), strict=True)}) < 12
