"""Slow manifolds are what closed forms say: place, tangent, drift, curvature, dimension; continua and chains apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems
from scipy.integrate import quad

import jaxfp
from jaxfp import io
from jaxfp.cli import average_training

N = 6
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]  # z = Q'h are the coordinates of the closed forms
DTYPES = (np.float32, np.float64)


def rank_one(params, hidden, inputs):
    """One step: h' = r (l . h) + B u with l . r = 1: a line of fixed points along r that l reads out."""
    moved = params["r"] * (params["l"] @ hidden)
    return moved if inputs is None else moved + params["B"] @ inputs


def corridor(params, hidden, inputs):
    """One step: along a straight line by v + c s + e sin(pi s / gap) + b z_1; every other mode decays by a half."""
    z = params["Q"].T @ hidden
    drift = params["v"] + params["c"] * z[0] + params["e"] * jnp.sin(jnp.pi * z[0] / params["gap"])
    return hidden + params["Q"] @ jnp.concatenate([(drift + params["b"] * z[1])[None], -z[1:] / 2])


def wave(params, hidden, inputs):
    """Flow with drift d along y = sin 2x; y - sin 2x decays at rate k, the others at rate 2."""
    z = params["Q"].T @ hidden
    slope = 2 * jnp.cos(2 * z[0])
    length, off = jnp.sqrt(1 + slope**2), z[1] - jnp.sin(2 * z[0])
    plane = jnp.stack([params["d"] / length, params["d"] * slope / length - params["k"] * off])
    return params["Q"] @ jnp.concatenate([plane, -2 * z[2:]])


def ring_flow(params, hidden, inputs):
    """Flow: radius' = radius (1 - radius^2), angle' = d, every other mode decays at rate 3."""
    z = params["Q"].T @ hidden
    x, y, pull = z[0], z[1], 1 - z[0] ** 2 - z[1] ** 2
    plane = jnp.stack([x * pull - params["d"] * y, y * pull + params["d"] * x])
    return params["Q"] @ jnp.concatenate([plane, -3 * z[2:]])


def ring_map(params, hidden, inputs):
    """One step of 0.2."""
    return hidden + ring_flow(params, hidden, inputs) / 5


def helix(params, hidden, inputs):
    """Flow to a helix of radius 1 whose laps are `pitch` apart: at rest everywhere on it."""
    x, y, z = hidden
    pull = 1 - x**2 - y**2
    phase = 2 * jnp.pi * z / params - jnp.arctan2(y, x)
    return jnp.stack([x * pull, y * pull, -params / (2 * jnp.pi) * jnp.sin(phase)])


def bowl(params, hidden, inputs):
    """One step: drift d in x and y on z = c (x^2 + y^2) / 2, to which the state decays by a half."""
    z = params["Q"].T @ hidden
    off, (dx, dy) = z[2] - params["c"] * (z[0] ** 2 + z[1] ** 2) / 2, params["d"]
    plane = jnp.stack([dx, dy, params["c"] * (z[0] * dx + z[1] * dy) - off / 2])
    return hidden + params["Q"] @ jnp.concatenate([plane, -z[3:] / 2])


def in_dtype(params, dtype):
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)


def corridor_params(**given):
    return {"Q": TURN, "v": 0.0, "c": 0.0, "e": 0.0, "gap": 0.01, "b": 3.0} | given


def embedded(z, thickness=0.0, seed=0):
    """States with coordinates z (n, k), scattered about the manifold."""
    full = np.zeros((len(z), N))
    full[:, : z.shape[1]] = z
    return (full + thickness * np.random.default_rng(seed).normal(size=full.shape)) @ TURN.T


def on_ring(thickness=0.01):
    """More points on one side than on the other."""
    angle = np.concatenate([np.linspace(0, np.pi, 60), np.linspace(np.pi, 2 * np.pi, 9)])
    return embedded(np.stack([np.cos(angle), np.sin(angle)], 1), thickness)


def wave_states(thickness=0.0):
    x = np.linspace(-1, 1, 40)
    states = embedded(np.stack([x, np.sin(2 * x)], 1), thickness)
    states[[0, -1]] = embedded(np.stack([x, np.sin(2 * x)], 1))[[0, -1]]
    return states


def resolution(dtype):
    return float(np.finfo(dtype).eps) ** 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_rank_one_line(dtype):
    """Tangent r, left mode l, eigenvalues 1 and 0, no drift and no curvature, with ends where the points end."""
    rng = np.random.default_rng(1)
    r, reads = rng.normal(size=(2, N))
    reads /= reads @ r
    params = in_dtype({"r": r, "l": reads, "B": rng.normal(size=(N, 2))}, dtype)
    unit, size = r / np.linalg.norm(r), np.linalg.norm(r)
    states = (np.array([-1.0, -0.9, -0.85, 0.1, 0.2, 2.0])[:, None] * unit).astype(dtype)
    line = jaxfp.trace_line(rank_one, params, states, np.zeros(2), toward=r)
    near = resolution(dtype)
    assert (line.verdict, line.closed, line.ends) == ("continuous", False, ("points", "points"))
    assert line.length == pytest.approx(3, rel=near)
    np.testing.assert_allclose(line.tangent, np.tile(unit, (65, 1)), atol=near)
    np.testing.assert_allclose(line.left, np.tile(reads * size, (65, 1)), atol=near * size * np.abs(reads).max())
    np.testing.assert_allclose((line.left * line.right).sum(1), 1, atol=1e-10)
    np.testing.assert_allclose(line.alignment, 1, atol=1e-10)
    np.testing.assert_allclose(line.eigenvalue, 1, atol=near)
    np.testing.assert_allclose(line.transverse_eigenvalue, 0, atol=near)
    assert np.abs(line.curvature).max() < 1e-6
    assert (np.abs(line.drift) <= line.rounding).all()
    assert (line.theta[0], line.theta[32], line.theta[-1]) == (-1, pytest.approx(0, abs=1e-9), 1)
    assert jaxfp.dimension(rank_one, params, line.hidden).value == 1

    # What an input adds along the line is what l reads of it; the readout sees the cosine with r.
    found = jaxfp.alignment(rank_one, params, line, readout=np.stack([reads, r]), probes=np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(found.selection, size * (reads @ params["B"] @ [1, 2]), rtol=10 * near)
    np.testing.assert_allclose(found.readout[0], [unit @ reads / np.linalg.norm(reads), 1], rtol=near)
    states = np.outer([-0.5, 1.25], unit) + np.linalg.svd(unit[None])[2][1:3]
    place = jaxfp.project(line, states)
    np.testing.assert_allclose(place.theta, [-2 / 3, 0.5], atol=near)
    np.testing.assert_allclose(place.distance, 1, atol=near)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_points", [5, 65])
def test_five_fixed_points_are_no_continuum(dtype, n_points):
    """Drift 1e-4 sin(pi s / 0.01), also where every sample is a fixed point; without the drift it is one."""
    params = in_dtype(corridor_params(e=1e-4, gap=0.01), dtype)
    gap = float(params["gap"])
    states = embedded(np.arange(-2, 3)[:, None] * gap)
    chain = jaxfp.trace_line(corridor, params, states, n_points=n_points, toward=TURN[:, 0])
    assert chain.verdict == "chain"
    assert "5 fixed points with spacing 0.01, 2 of them stable" in chain.summary()
    near = 10 * np.finfo(dtype).eps
    np.testing.assert_allclose(chain.zeros.arc_length, np.arange(5) * gap, atol=near)
    np.testing.assert_allclose(chain.zeros.hidden, states, atol=near)
    rate = np.pi * float(params["e"]) / gap
    np.testing.assert_allclose(chain.zeros.rate, rate * np.array([1, -1, 1, -1, 1]), rtol=1e-3)
    assert (np.linalg.norm(jaxfp.residual(corridor, params, chain.zeros.hidden), axis=1) < chain.rounding[0]).all()
    assert chain.crossing_time == pytest.approx(4 * gap / float(params["e"]), rel=0.02)  # the peak between samples

    none = jaxfp.trace_line(corridor, in_dtype(corridor_params(), dtype), states, n_points=n_points)
    assert (none.verdict, len(none.zeros.rate), none.crossing_time) == ("continuous", 0, np.inf)


def test_a_chain_is_seen_down_to_rounding():
    """Float64 resolves a drift of 1e-12; in float32 weights the same is a continuum, and the drift is said."""
    states = embedded(np.linspace(-0.025, 0.025, 30)[:, None], 1e-3)
    params = corridor_params(e=1e-12)
    assert jaxfp.trace_line(corridor, in_dtype(params, np.float64), states, n_points=9).verdict == "chain"
    blurred = jaxfp.trace_line(corridor, in_dtype(params, np.float32), states, n_points=9)
    assert blurred.verdict == "continuous"
    assert blurred.rounding.max() < 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_known_drift_along_a_line(dtype):
    """A constant drift is recovered beside a coupling of 3 from a mode that decays: the minimum of q would be off."""
    params = in_dtype(corridor_params(v=1e-3), dtype)
    states = embedded(np.linspace(-1, 1, 9)[:, None], 0.01)
    line = jaxfp.trace_line(corridor, params, states, toward=TURN[:, 0], n_points=9)
    np.testing.assert_allclose(line.drift, float(params["v"]), rtol=resolution(dtype))
    assert line.across.max() < 1e-3 * resolution(dtype)
    assert (line.verdict, len(line.zeros.rate)) == ("slow", 0)
    assert line.crossing_time == pytest.approx(line.length / 1e-3, rel=1e-3)
    aside = line.hidden - float(params["v"]) * 3 / (9 + 0.25) * TURN[:, 1]  # (b, -1/2) z_1 = -(v, 0) by least squares
    assert jaxfp.q(corridor, params, aside).max() < 0.03 * jaxfp.q(corridor, params, line.hidden).min()
    back = jaxfp.trace_line(corridor, params, states, toward=-TURN[:, 0], n_points=9)
    np.testing.assert_allclose(back.drift, -float(params["v"]), rtol=resolution(dtype))


def test_clumps_and_gaps():
    """Points in two clumps, and one point alone with a length to go: the line is the same."""
    params = in_dtype({"Q": TURN, "d": 0.0, "k": 2.0}, np.float64)
    x = np.array([-1, -0.99, -0.98, -0.97, -0.5, 1.0])
    line = jaxfp.trace_line(wave, params, embedded(np.stack([x, np.sin(2 * x)], 1)), kind="flow", n_points=5)
    assert np.sort((line.hidden @ TURN)[[0, -1], 0]) == pytest.approx([-1, 1], abs=1e-2)
    alone = jaxfp.trace_line(wave, params, np.zeros((1, N)), kind="flow", n_points=5, beyond=1.0)
    assert alone.length == pytest.approx(2, rel=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone.hidden[2]), 0, atol=1e-4)


def test_a_line_into_a_stable_point():
    """Drift -1e-3 s: one fixed point, stable along it, at theta 0; decay times are those of the eigenvalues."""
    params = in_dtype(corridor_params(c=-1e-3), np.float64)
    states = embedded(np.array([[-1.0], [-0.999], [0.0], [1e-9], [1.0]]))
    line = jaxfp.trace_line(corridor, params, states, dt=0.5, n_points=5)
    assert (line.verdict, line.zeros.rate.tolist()) == ("slow", [pytest.approx(-1e-3)])
    np.testing.assert_allclose(line.zeros.hidden, np.zeros((1, N)), atol=1e-12)
    np.testing.assert_allclose(line.timescale, -0.5 / np.log(0.999), rtol=1e-6)
    np.testing.assert_allclose(line.transverse_timescale, 0.5 / np.log(2), rtol=1e-6)
    longer = jaxfp.trace_line(corridor, params, states, beyond=0.5, n_points=5)
    assert longer.length == pytest.approx(3, rel=1e-6)
    slower = jaxfp.trace_line(corridor, params, states, max_speed=5e-4, n_points=5)
    assert slower.ends == ("speed", "speed")
    assert slower.length == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize(("d", "k"), [(0.0, 2.0), (1e-3, 2.0), (-0.02, 1000.0)])
def test_curved_line_has_its_own_tangent(d, k):
    """The line y = sin 2x, points scattered by 0.01: place, tangent, curvature, length, drift; the chord is wrong."""
    params = in_dtype({"Q": TURN, "d": d, "k": k}, np.float64)
    line = jaxfp.trace_line(wave, params, wave_states(0.01), kind="flow", toward=TURN[:, 0])
    z = line.hidden @ TURN
    slope = 2 * np.cos(2 * z[:, 0])
    tangent = np.stack([np.ones_like(slope), slope], 1) / np.sqrt(1 + slope**2)[:, None]
    # What is left is of second order in drift times curvature over the transverse rate.
    order = (4 * d / k) ** 2
    np.testing.assert_allclose(z[:, 1], np.sin(2 * z[:, 0]), atol=1e-10 + order)
    assert ((line.tangent @ TURN)[:, :2] * tangent).sum(1).min() > 1 - 1e-12 - order
    np.testing.assert_allclose(line.drift, d, atol=1e-9 + 1e-6 * abs(d) + order)  # the tangent is a spline
    bent = 4 * np.abs(np.sin(2 * z[:, 0])) / (1 + slope**2) ** 1.5
    np.testing.assert_allclose(line.curvature, bent, atol=0.02 * bent.max())  # a cubic through 65 samples
    length = quad(lambda x: np.sqrt(1 + 4 * np.cos(2 * x) ** 2), *z[[0, -1], 0])[0]
    assert line.length == pytest.approx(length, rel=1e-5 + 10 * order)  # arcs of circles at the default step
    np.testing.assert_allclose(np.diff(line.arc_length), line.length / 64, rtol=1e-3)
    assert (line.verdict == "continuous") == (d == 0)

    chord = line.hidden[-1] - line.hidden[0]
    off = np.degrees(np.arccos(line.tangent @ chord / np.linalg.norm(chord)))
    assert off.max() > 20
    on_chord = line.hidden[:1] + chord * np.linspace(0, 1, 9)[:, None]
    assert jaxfp.speed(wave, params, on_chord, kind="flow").max() > 0.5
    assert jaxfp.speed(wave, params, line.hidden, kind="flow").max() < abs(d) * (1 + 1e-3) + 1e-9


@pytest.mark.parametrize(
    ("step_fn", "kind", "unit", "d", "dtype"),
    [
        (ring_map, "map", 0.2, 0.0, np.float32),
        (ring_map, "map", 0.2, 0.01, np.float64),
        (ring_flow, "flow", 1.0, 0.0, np.float64),
    ],
)
def test_ring(step_fn, kind, unit, d, dtype):
    """Length 2 pi, curvature 1, theta the angle, one slow mode; a drift around it is no fixed point."""
    params = in_dtype({"Q": TURN, "d": d}, dtype)
    line = jaxfp.trace_line(step_fn, params, on_ring(), kind=kind)
    near = max(resolution(dtype), (d / 2) ** 2)
    assert (line.closed, line.ends) == (True, ("closed", "closed"))
    assert line.length == pytest.approx(2 * np.pi, rel=near)
    np.testing.assert_allclose(line.curvature, 1, atol=2e-6 + near)
    z = line.hidden @ TURN
    angle = np.unwrap(np.arctan2(z[:, 1], z[:, 0]))
    way = np.sign(angle[1] - angle[0])
    np.testing.assert_allclose(way * (angle - angle[0]), line.theta, atol=10 * near)
    np.testing.assert_allclose(way * line.drift, d * unit, atol=line.rounding.max() + near)
    assert line.verdict == ("slow" if d else "continuous")
    middle = jaxfp.project(line, 1.5 * (line.hidden[-1:] + line.hidden[:1]) / 2)  # between the last and the first
    assert middle.theta[0] == pytest.approx(2 * np.pi * (1 - 0.5 / 65), abs=1e-5)
    radius = 1.5 * np.cos(np.pi / 65)
    assert middle.distance[0] == pytest.approx(radius - 1, abs=1e-5)
    if not d:
        assert jaxfp.dimension(step_fn, params, line.hidden, kind=kind).value == 1


@pytest.mark.parametrize("pitch", [0.1, 1e-3])
def test_a_helix_is_not_closed(pitch):
    """Laps a thousandth apart are told apart from a ring."""
    angle = np.linspace(-9, 9, 150)
    states = np.stack([np.cos(angle), np.sin(angle), pitch * angle / (2 * np.pi)], 1)
    line = jaxfp.trace_line(helix, np.float64(pitch), states, kind="flow", step=0.1, max_samples=80, n_points=5)
    assert not line.closed
    lap = np.hypot(1, pitch / (2 * np.pi))
    z = line.hidden[[0, -1], 2] * 2 * np.pi / pitch
    assert abs(z[1] - z[0]) * lap == pytest.approx(line.length, rel=1e-5)
    assert line.length > 2 * np.pi
    np.testing.assert_allclose(np.linalg.norm(line.hidden[:, :2], axis=1), 1, atol=1e-9)


@pytest.mark.parametrize(("c", "dtype"), [(0.0, np.float32), (0.0, np.float64), (1.0, np.float64)])
def test_sheet(c, dtype):
    """A flat and a curved one: place, tangent plane, area, drift in it, two unit eigenvalues, dimension 2."""
    d = np.zeros(2) if c else np.array([1e-3, -2e-3])
    params = in_dtype({"Q": TURN, "c": c, "d": d}, dtype)
    z = np.random.default_rng(2).uniform(-1, 1, (200, 2))
    states = embedded(np.c_[z, c * (z**2).sum(1) / 2], 0.01)
    plane = jaxfp.trace_plane(bowl, params, states, n_points=9)
    near = resolution(dtype)
    x, y, height = np.moveaxis((plane.hidden @ TURN)[..., :3], -1, 0)
    inside = plane.inside
    assert (plane.dimension, inside.sum() > 30) == (2, True)
    np.testing.assert_allclose(height[inside], c * (x**2 + y**2)[inside] / 2, atol=near)
    np.testing.assert_allclose(plane.eigenvalues[inside], 1, atol=near)
    np.testing.assert_allclose(plane.transverse_timescale[inside], 1 / np.log(2), rtol=near)
    normal = np.stack([-c * x, -c * y, np.ones_like(x)], -1)
    tilt = np.einsum("ijkn,ijn->ijk", (plane.frame @ TURN)[..., :3], normal)
    np.testing.assert_allclose(tilt[inside], 0, atol=near)
    drift = np.einsum("ijk,ijkn->ijn", plane.drift, plane.frame) @ TURN
    np.testing.assert_allclose(drift[inside][:, :2], np.tile(d, (inside.sum(), 1)), atol=1e-3 * near)

    corners = [np.s_[1:, 1:], np.s_[:-1, :-1], np.s_[1:, :-1], np.s_[:-1, 1:]]
    a, b, e, f = (np.stack([x[at], y[at]]) for at in corners)
    flat = np.abs((a - b)[0] * (e - f)[1] - (a - b)[1] * (e - f)[0]) / 2
    mx, my = (a + b + e + f) / 4
    exact = flat * np.sqrt(1 + c**2 * (mx**2 + my**2))
    whole = np.isfinite(exact)
    np.testing.assert_allclose(plane.area_element[whole] * plane.step**2, exact[whole], rtol=0.02 * c + near)
    assert jaxfp.dimension(bowl, params, plane.hidden[inside]).value == 2


def test_what_is_no_line():
    """An isolated point, points around one, an untrained network, a slow rotation: each says so."""
    decay = in_dtype(corridor_params(c=-0.4), np.float64)
    alone = jaxfp.trace_line(corridor, decay, np.zeros((1, N)))
    assert (alone.verdict, len(alone.theta), alone.summary()) == ("none", 0, "no line")
    around = np.random.default_rng(3).normal(size=(30, N))
    for cloud in (np.zeros((5, N)), 1e-5 * around, around):
        assert jaxfp.trace_line(corridor, decay, cloud, n_points=5).verdict == "none"
    assert jaxfp.dimension(corridor, decay, np.zeros((5, N))).value == 0
    weights = 0.7 * np.random.default_rng(4).normal(size=(N, N)) / np.sqrt(N)
    untrained = weights
    assert jaxfp.trace_line(systems.tanh_row, untrained, 1e-4 * around, n_points=5).verdict == "none"
    assert jaxfp.dimension(systems.tanh_row, untrained, 1e-4 * around).value == 0
    assert jaxfp.trace_line(systems.tanh_row, rotation(0.999, 0.01), 1e-3 * around).ends[0] == "lost"
    slow = {"A": rotation(0.999, 1.0), "b": np.zeros(N)}
    slow["A"][2, 2] = 1.0  # a line beside a rotation that decays in 1,000 steps: the pair is no slow mode of a line
    line = jaxfp.trace_line(systems.affine, slow, np.linspace(-1, 1, 5)[:, None] * np.eye(N)[2])
    assert (line.verdict, round(line.transverse_timescale[0])) == ("continuous", 999)
    assert not jaxfp.trace_plane(systems.tanh_row, untrained, np.zeros((4, N))).inside.any()


def rotation(modulus, angle):
    """One pair of modulus and angle, the others at 0.2."""
    matrix = 0.2 * np.eye(N)
    matrix[:2, :2] = modulus * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return matrix


def test_a_trained_network_keeps_two_numbers_on_a_sheet():
    """The packaged moving average: dimension 2 at its slow points, a grid that covers them, and no line."""
    network = average_training.as_network("gru", io.load_packaged("moving_average_gru")[0])
    inputs = np.zeros((36, 40, 2))
    inputs[:, [0, 10], 0] = np.stack(np.meshgrid(*[np.linspace(-1, 1, 6)] * 2), -1).reshape(-1, 2)
    inputs[:, [0, 10], 1] = 1.0
    states = jaxfp.simulate(network.step_fn, network.params, np.zeros(64), inputs)[:, -1]
    silence = np.zeros(2)
    assert jaxfp.dimension(network.step_fn, network.params, states, silence).value == 2
    plane = jaxfp.trace_plane(network.step_fn, network.params, states, silence, n_points=5)
    assert plane.inside.sum() > 12
    assert np.median(np.abs(plane.eigenvalues[plane.inside] - 1)) < 0.05
    assert np.nanmedian(plane.transverse_timescale) < 30
    nearest = np.linalg.norm(states[:, None] - plane.hidden[plane.inside], axis=2).min(1)
    assert np.median(nearest) < plane.step
