"""Points keep their identity along a path, through folds and past near crossings, and events lie where they must."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems

import jaxfp
from jaxfp.analysis import tracking

ANGLE = 1.0  # of the rotation before its Neimark-Sacker bifurcation


def first_unit(hidden, value):
    """The others are driven by the first and decay: a normal form on a curved center manifold."""
    return (0.3 * hidden + 0.1 * jnp.roll(hidden, 1) ** 2).at[0].set(value)


def turned(form):
    """A normal form h' = form(a, x) of the first unit in rotated coordinates; params: a and the rotation Q."""

    def step_fn(params, hidden, inputs):
        x = params["Q"].T @ hidden
        return params["Q"] @ first_unit(x, form(params["a"], x[0]))

    return step_fn


FORMS = {
    "fold": turned(lambda a, x: x + a + x**2),
    "transcritical": turned(lambda a, x: (1 + a) * x - x**2),
    "pitchfork": turned(lambda a, x: (1 + a) * x - x**3),
    "flip": turned(lambda a, x: -(1 + a) * x + x**3),
}


def hopf_map(params, hidden, inputs):
    """Rotation by ANGLE of the first two, with radius r (1 + a - r^2); Neimark-Sacker at a = 0."""
    x = params["Q"].T @ hidden
    turn = jnp.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]], hidden.dtype)
    two = (1 + params["a"] - x[:2] @ x[:2]) * (turn @ x[:2])
    return params["Q"] @ jnp.concatenate([two, 0.3 * x[2:]])


def hopf_flow(params, hidden, inputs):
    """Flow z' = (a + i) z - |z|^2 z: Hopf at a = 0."""
    x, y = hidden
    grows = params["a"] - hidden @ hidden
    return jnp.stack([grows * x - y, x + grows * y])


def gain(params, hidden, inputs):
    """One step: h' = tanh(g W h)."""
    return jnp.tanh(params["g"] * (params["W"] @ hidden))


def rotation(n):
    return np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))[0] if n > 1 else np.eye(1)


def slaved(x0, n):
    """The fixed point of the other units where the first one is at x0."""
    x = np.zeros(n)
    for _ in range(100):
        x = 0.3 * x + 0.1 * np.roll(x, 1) ** 2
        x[0] = x0
    return x


def along(n, x0s, path):
    """Params at the beginning, points there and the path of a."""
    Q = rotation(n)
    hidden = np.stack([Q @ slaved(x0, n) for x0 in x0s])
    return {"a": path[0], "Q": Q}, (hidden, None), {"a": path, "Q": Q}


def a_of(family, path):
    return np.interp(family.events.s, np.arange(len(path)), path)


# A sample lies on the event, or next to it; the path has two samples or many.
CASES = pytest.mark.parametrize(("n", "samples"), [(7, "at"), (1, "beside"), (7, "ends")])
PATHS = {"at": np.linspace(-0.9, 0.8, 18), "beside": np.linspace(-0.9, 0.87, 8), "ends": np.array([-0.9, 0.87])}


@CASES
def test_fold(n, samples):
    """Two points meet and die at a = 0; each is the other's continuation, and both keep their names."""
    path = PATHS[samples]
    params, points, params_path = along(n, [-np.sqrt(0.9), np.sqrt(0.9)], path)
    family = jaxfp.sweep(FORMS["fold"], params, points, params_path=params_path)
    assert family.events.kind.tolist() == ["fold"]
    assert abs(a_of(family, path)[0]) < 1e-8
    assert family.events.branch.tolist() == [[0, 1]]
    assert family.branch_of_point.tolist() == [0, 1]
    assert family.begins.tolist() == ["path", "path"]
    assert family.ends.tolist() == ["fold", "fold"]
    x = family.at_path @ params["Q"][:, 0]
    with np.errstate(invalid="ignore"):
        wanted = np.where(path < 1e-9, np.sqrt(np.maximum(-path, 0)), np.nan)
    np.testing.assert_allclose(x, [-wanted, wanted], atol=1e-7)
    assert (family.unstable_at_path[:, path < -1e-9] == [[0], [1]]).all()


@CASES
def test_transcritical(n, samples):
    """The branches x = 0 and x = a cross at a = 0 and exchange their stability."""
    path = PATHS[samples]
    params, points, params_path = along(n, [0, -0.9], path)
    family = jaxfp.sweep(FORMS["transcritical"], params, points, params_path=params_path)
    assert family.events.kind.tolist() == ["branch", "branch"]
    assert np.abs(a_of(family, path)).max() < 1e-8
    np.testing.assert_allclose(family.at_path @ params["Q"][:, 0], [0 * path, path], atol=1e-9)
    away = np.abs(path) > 1e-9
    assert (family.unstable_at_path[:, away] == [path[away] > 0, path[away] < 0]).all()


@CASES
def test_pitchfork(n, samples):
    """The outer branches x = +-sqrt(a) turn into each other where they meet x = 0, at a = 0."""
    path = -0.8 * PATHS[samples]
    params, points, params_path = along(n, [-np.sqrt(path[0]), 0, np.sqrt(path[0])], path)
    family = jaxfp.sweep(FORMS["pitchfork"], params, points, params_path=params_path)
    assert family.events.kind.tolist() == ["branch", "branch"]
    assert np.abs(a_of(family, path)).max() < 1e-8
    assert sorted(family.events.branch.tolist()) == [[0, 2], [1, -1]]
    assert family.ends.tolist() == ["branch", "path", "branch"]
    wanted = np.where(path > -1e-9, np.sqrt(np.maximum(path, 0)), np.nan)
    np.testing.assert_allclose(family.at_path @ params["Q"][:, 0], [-wanted, 0 * path, wanted], atol=1e-6)


@CASES
def test_flip(n, samples):
    path = PATHS[samples]
    params, points, params_path = along(n, [0], path)
    family = jaxfp.sweep(FORMS["flip"], params, points, params_path=params_path)
    assert family.events.kind.tolist() == ["flip"]
    assert abs(a_of(family, path)[0]) < 1e-8
    assert abs(family.events.eigenvalue[0] + 1) < 1e-8
    away = np.abs(path) > 1e-9
    assert (family.unstable_at_path[0, away] == (path[away] > 0)).all()


@CASES
def test_neimark_sacker(n, samples):
    path = PATHS[samples]
    params, points, params_path = along(n + 1, [0], path)
    family = jaxfp.sweep(hopf_map, params, points, params_path=params_path)
    assert family.events.kind.tolist() == ["neimark-sacker"]
    assert abs(a_of(family, path)[0]) < 1e-8
    assert abs(family.events.eigenvalue[0] - np.exp(1j * ANGLE)) < 1e-8
    away = np.abs(path) > 1e-9
    assert (family.unstable_at_path[0, away] == 2 * (path[away] > 0)).all()


def test_every_crossing_of_a_large_network():
    """At 0 the Jacobian is g W: each of its eigenvalues crosses at g = 1/|lambda|, in its own way."""
    n, path = 96, np.array([0.85, 1.1])
    W = np.random.default_rng(5).normal(size=(n, n)) / np.sqrt(n)
    family = jaxfp.sweep(gain, {"g": 0.85, "W": W}, (np.zeros((1, n)), None), params_path={"g": path, "W": W})
    values = np.linalg.eigvals(W)
    values = values[(values.imag >= 0) & (np.abs(1 / np.abs(values) - 0.975) < 0.125)]
    values = values[np.argsort(-np.abs(values))]
    assert len(values) > 8
    kinds = np.where(values.imag > 0, "neimark-sacker", np.where(values.real > 0, "branch", "flip"))
    assert set(kinds) == {"neimark-sacker", "branch", "flip"}
    assert family.events.kind.tolist() == kinds.tolist()
    np.testing.assert_allclose(a_of(family, path), 1 / np.abs(values), atol=1e-8)
    np.testing.assert_allclose(family.events.eigenvalue, values / np.abs(values), atol=1e-8)


def test_hopf_and_fold_of_flows():
    path = PATHS["ends"]
    family = jaxfp.sweep(hopf_flow, {"a": -0.9}, (np.zeros((1, 2)), None), params_path={"a": path}, kind="flow")
    assert family.events.kind.tolist() == ["hopf"]
    assert abs(a_of(family, path)[0]) < 1e-8
    assert abs(family.events.eigenvalue[0] - 1j) < 1e-8
    family = jaxfp.sweep(systems.quartic, -1.0, (np.array([[1.0, 0.0]]), None), params_path=path - 0.1, kind="flow")
    assert family.events.kind.tolist() == ["fold"]
    assert abs(a_of(family, path - 0.1)[0]) < 1e-8
    assert family.branch_of_point.tolist() == [0]
    assert len(family.ends) == 2  # the other one was found beyond the fold


@pytest.mark.parametrize(("start", "end", "kind", "w"), [(0.5, 2.0, "branch", 1.0), (-0.4, -1.7, "flip", -1.0)])
def test_scalar_tanh(start, end, kind, w):
    path = np.array([start, end])
    family = jaxfp.sweep(systems.scalar_tanh, start, (np.zeros((1, 1)), None), params_path=path)
    assert family.events.kind.tolist() == [kind]
    assert abs(a_of(family, path)[0] - w) < 1e-8


def pushed(params, hidden, inputs):
    """One step: h' = tanh(w h + u): hysteresis in u for w > 1."""
    return jnp.tanh(params * hidden + inputs)


def test_hysteresis_is_one_curve_of_three_branches():
    """From one stable point, through two folds, to the other: identities change only at the folds."""
    w, path = 1.5, np.linspace(-0.5, 0.5, 11)[:, None]
    lowest = jaxfp.find_fixed_points(pushed, w, np.array([[-1.0]]), path[0])
    family = jaxfp.sweep(pushed, w, lowest, inputs_path=path)
    x = np.sqrt(1 - 1 / w)  # there w (1 - x^2) = 1
    u = w * x - np.arctanh(x)
    np.testing.assert_allclose(np.interp(family.events.s, np.arange(11), path[:, 0]), [-u, u], atol=1e-8)
    np.testing.assert_allclose(family.events.hidden[:, 0], [x, -x], atol=1e-6)
    assert family.events.branch.tolist() == [[1, 2], [0, 1]]
    assert [*zip(family.begins.tolist(), family.ends.tolist(), strict=True)] == [
        ("path", "fold"), ("fold", "fold"), ("fold", "path"),
    ]  # fmt: skip
    there = ~np.isnan(family.at_path[..., 0])
    np.testing.assert_array_equal(there, [path[:, 0] < u, np.abs(path[:, 0]) < u, path[:, 0] > -u])
    for branch, n_unstable in enumerate([0, 1, 0]):
        h = family.at_path[branch, there[branch]]
        np.testing.assert_allclose(np.tanh(w * h + path[there[branch]]), h, atol=1e-14)
        assert (family.unstable_at_path[branch, there[branch]] == n_unstable).all()


def near(params, hidden, inputs):
    """One step: h - (h^2 - a^2 - gap) / 5: the branches +-sqrt(a^2 + gap) pass each other at a = 0."""
    return hidden - (hidden**2 - params["a"] ** 2 - params["gap"]) / 5


@pytest.mark.parametrize("gap", [1e-2, 1e-5, 1e-8])
def test_branches_that_pass_close_are_not_confused(gap):
    path = np.linspace(-1, 1.1, 12)
    x = np.sqrt(path**2 + gap)
    points = (np.array([x[:1], -x[:1]]), None)
    params_path = {"a": path, "gap": gap}
    family = jaxfp.sweep(near, {"a": -1.0, "gap": gap}, points, params_path=params_path)
    np.testing.assert_allclose(family.at_path[..., 0], [x, -x], rtol=1e-9)
    assert len(family.events.kind) == 0


def test_without_the_event_search_they_would_be(monkeypatch):
    """The sign of det M betrays a jump that no other test sees."""
    from jaxfp.analysis import following

    monkeypatch.setattr(following, "_find_events", lambda *given: {})
    path, gap = np.linspace(-1, 1.1, 12), 1e-8
    points = (np.array([[np.sqrt(1 + gap)]]), None)
    family = jaxfp.sweep(near, {"a": -1.0, "gap": gap}, points, params_path={"a": path, "gap": gap})
    assert family.at_path[0, -1, 0] < 0


def ladder(params, hidden, inputs):
    """Points every pi d, all carried along by sin(3 a)."""
    d = params["d"]
    return hidden - 0.2 * d * jnp.sin((hidden - jnp.sin(3 * params["a"])) / d)


def test_parallel_branches_are_not_confused():
    path, d = np.linspace(0, 2, 5), 0.01
    hidden = np.arange(-3, 4)[:, None] * np.pi * d
    family = jaxfp.sweep(ladder, {"a": 0.0, "d": d}, (hidden, None), params_path={"a": path, "d": d})
    np.testing.assert_allclose(family.at_path[..., 0], hidden + np.sin(3 * path), atol=1e-12)


def test_points_of_separate_searches_are_one_family():
    """51 points, one at each input, lie on one branch."""
    path = np.linspace(-1, 1, 51)[:, None]
    points = jaxfp.find_fixed_points(pushed, 0.7, np.zeros((51, 1)), path)
    family = jaxfp.sweep(pushed, 0.7, points, inputs_path=path)
    assert family.branch_of_point.tolist() == [0] * 51
    order = np.argsort(points.inputs[:, 0])
    np.testing.assert_allclose(family.at_path[0], points.hidden[order], atol=1e-12)


def test_a_path_for_each_point_and_networks_of_an_ensemble():
    """All in one program give what each alone gives."""
    rng = np.random.default_rng(0)
    weights = {"W": 0.4 * rng.normal(size=(3, 4, 4)), "B": rng.normal(size=(3, 4, 2))}
    paths = np.concatenate([np.zeros((6, 1, 2)), np.cumsum(rng.normal(size=(6, 4, 2)), axis=1)], axis=1)
    network = np.array([0, 1, 2, 2, 1, 0])
    hidden = np.zeros((6, 4))
    together = jaxfp.sweep(systems.driven, weights, (hidden, None), inputs_path=paths, network=network)
    assert together.branch_of_point.tolist() == list(range(6))
    for i, number in enumerate(network):
        own = {name: w[number] for name, w in weights.items()}
        alone = jaxfp.sweep(systems.driven, own, (hidden[:1], None), inputs_path=paths[i])
        np.testing.assert_allclose(together.at_path[i], alone.at_path[0], atol=1e-12)
        moved = np.tanh(alone.at_path[0] @ own["W"].T + paths[i] @ own["B"].T)
        np.testing.assert_allclose(moved, alone.at_path[0], atol=1e-12)


def test_events_do_not_depend_on_companions():
    params, points, params_path = along(7, [np.sqrt(0.9), -np.sqrt(0.9)], PATHS["ends"])
    both = jaxfp.sweep(FORMS["fold"], params, points, params_path=params_path)
    alone = jaxfp.sweep(FORMS["fold"], params, (points[0][1:], None), params_path=params_path)
    np.testing.assert_allclose(alone.events.s, both.events.s, atol=1e-10)
    np.testing.assert_allclose(alone.hidden[0][alone.exists[0]], both.hidden[1][both.exists[1]], atol=1e-10)


def test_stability_may_be_left_out():
    params, points, params_path = along(7, [-np.sqrt(0.9), np.sqrt(0.9)], PATHS["ends"])
    family = jaxfp.sweep(FORMS["fold"], params, points, params_path=params_path, stability=False)
    assert family.events.kind.tolist() == ["fold"]
    assert (family.n_unstable == -1).all()


def test_what_is_no_fixed_point_is_lost():
    family = jaxfp.sweep(systems.scalar_tanh, 1.5, (np.array([[0.5], [0.0]]), None), params_path=np.array([1.5, 1.6]))
    assert family.ends.tolist() == ["lost", "path"]
    assert family.events.kind.size == 0


def test_a_jump_is_not_believed():
    """Whatever the step: one that ends on another branch is not believed, or the sign of its det gives it away."""
    d, steps = 0.02, np.geomspace(1e-4, 1, 200)
    path = tracking.Path({"a": np.array([0.0, 1.0]), "d": d}, None, (True, False), False, 2)
    tangent = np.tile(np.array([3.0, 1.0]) / np.sqrt(10), (200, 1))
    lanes = tracking.Lane(np.zeros((200, 2)), tangent, steps, np.ones(200, bool), *np.zeros((4, 200), int))
    with jax.enable_x64(True):
        found = tracking.propose(ladder, "map", path, lanes)
    jumped = found.converged & (np.abs(found.place[:, 0] - np.sin(3 * found.place[:, 1])) > d)
    same_sign = found.sign == found.sign[0]
    assert (jumped & same_sign).any()
    assert not (jumped & same_sign & found.believed).any()
    assert found.believed[:50].all()


def test_second_call_traces_nothing():
    calls = []

    def counted(params, hidden, inputs):
        calls.append(1)
        return jnp.tanh(params * hidden)

    jaxfp.sweep(counted, 0.5, (np.zeros((1, 1)), None), params_path=np.array([0.5, 2.0]))
    n_calls = len(calls)
    jaxfp.sweep(counted, 0.4, (np.zeros((1, 1)), None), params_path=np.array([0.4, 1.9]))
    assert len(calls) == n_calls


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one number of samples"),
        ({"params_path": np.array([1.0])}, "one number of samples"),
        ({"params_path": np.ones((2, 2))}, "a leaf of params_path"),
        ({"params_path": {"w": np.ones(2)}}, "a pytree like params"),
        ({"inputs_path": np.ones(3)}, "inputs_path must be"),
        ({"params_path": np.ones(2), "inputs_path": np.ones((3, 1))}, "one number of samples"),
        ({"params_path": np.ones(2), "start": 2}, "start must be"),
        ({"params_path": np.ones(2), "max_step": 0.0}, "max_step must be positive"),
        ({"params_path": np.ones(2), "kind": "flaw"}, "kind must be"),
        ({"params_path": np.ones(2), "network": [1]}, "leading axis n_networks"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        jaxfp.sweep(systems.scalar_tanh, 0.5, (np.zeros((1, 1)), None), **given)


def test_an_input_off_the_path_is_named():
    with pytest.raises(ValueError, match="must be a sample"):
        jaxfp.sweep(pushed, 0.5, (np.zeros((1, 1)), np.array([0.3])), inputs_path=np.array([[0.0], [1.0]]))
    with pytest.raises(ValueError, match="FixedPoints or a pair"):
        jaxfp.sweep(pushed, 0.5, np.zeros((1, 1)), inputs_path=np.array([[0.0], [1.0]]))


def test_no_points_is_a_family_of_none():
    family = jaxfp.sweep(systems.scalar_tanh, 0.5, (np.zeros((0, 1)), None), params_path=np.array([0.5, 2.0]))
    assert family.at_path.shape == (0, 2, 1)
    assert len(family.events.s) == 0
