import inspect
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
import systems

import jaxfp
from jaxfp.analysis import modes as modes_module
from jaxfp.tasks import toys

RNG = np.random.default_rng(0)
RANDOM = RNG.normal(size=(6, 5, 5)) / np.sqrt(5)


@pytest.mark.parametrize("kind", ["map", "flow"])
def test_modes_are_biorthonormal_and_rebuild_the_matrix(kind):
    """L R = I and R Lambda L = J, columns of R are unit and J R = R Lambda, eigenvalues sorted by what decides."""
    modes = jaxfp.spectrum(RANDOM, kind=kind)
    # Rounding of an inverse of condition kappa.
    tolerance = 100 * np.finfo(float).eps * modes.condition.max()
    np.testing.assert_allclose(modes.left @ modes.right, np.tile(np.eye(5), (6, 1, 1)), atol=tolerance)
    rebuilt = modes.right @ (modes.eigenvalues[:, :, None] * modes.left)
    np.testing.assert_allclose(rebuilt, RANDOM, atol=tolerance)
    np.testing.assert_allclose(RANDOM @ modes.right, modes.right * modes.eigenvalues[:, None], atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(modes.right, axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(modes.condition, [np.linalg.cond(r) for r in modes.right], rtol=1e-10)
    rate = abs(modes.eigenvalues) if kind == "map" else modes.eigenvalues.real
    assert (np.diff(rate, axis=1) <= 1e-14).all()
    assert (modes.n_unstable == (rate > (1 if kind == "map" else 0)).sum(1)).all()
    assert modes.eigenvalues.dtype == np.complex128


def test_timescales_of_a_map():
    """-dt / ln|lambda|: e^(-1/50) lasts 50 steps, 1 forever, 0 not at all; growth is negative; dt scales them."""
    eigenvalues = np.array([2.0, 1.0, np.exp(-1 / 50), 0.5, 0.0])
    modes = jaxfp.spectrum(np.diag(eigenvalues))
    expected = [-1 / np.log(2), np.inf, 50, 1 / np.log(2), 0]
    np.testing.assert_allclose(modes.timescale, expected, rtol=1e-12)
    np.testing.assert_allclose(jaxfp.spectrum(np.diag(eigenvalues), dt=0.01).timescale, 0.01 * np.array(expected))


def test_timescales_of_a_flow():
    """-1 / Re lambda, whatever dt; sorted by Re, not by size."""
    modes = jaxfp.spectrum(np.diag([-10.0, -0.5, 0.25, 0.0]), kind="flow", dt=0.01)
    np.testing.assert_allclose(modes.eigenvalues.real, [0.25, 0, -0.5, -10])
    np.testing.assert_allclose(modes.timescale, [-4, np.inf, 2, 0.1])
    assert modes.n_unstable == 1


def test_frequency_of_a_complex_pair():
    """A rotation by 36 degrees a step at dt = 0.1 turns once a unit of time; a flow of Im 2 pi, too."""
    angle = np.pi / 5
    rotation = 0.9 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    modes = jaxfp.spectrum(rotation, dt=0.1)
    np.testing.assert_allclose(np.sort(modes.frequency), [-1, 1], rtol=1e-12)
    np.testing.assert_allclose(abs(modes.eigenvalues), 0.9, rtol=1e-12)
    flow = jaxfp.spectrum(np.array([[-0.1, -2 * np.pi], [2 * np.pi, -0.1]]), kind="flow", dt=7.0)
    np.testing.assert_allclose(np.sort(flow.frequency), [-1, 1], rtol=1e-12)
    np.testing.assert_allclose(flow.timescale, 10, rtol=1e-12)
    assert jaxfp.spectrum(np.array([[-0.5]]), dt=0.5).frequency == pytest.approx([1.0])  # a flip: half a turn a step


@pytest.mark.parametrize("kind", ["map", "flow"])
@pytest.mark.parametrize(
    ("excess", "verdict"), [(1e-12, "unstable"), (-1e-12, "stable"), (0.0, "marginal"), (1e-16, "marginal")]
)
def test_marginal_iff_the_bound_covers_the_border(kind, excess, verdict):
    """The verdict is marginal where, and only where, the bound of the leading eigenvalue reaches the border."""
    border = 1.0 if kind == "map" else 0.0
    modes = jaxfp.spectrum(np.diag([border + excess, border - 0.5]), kind=kind)
    margin = (abs(modes.eigenvalues) if kind == "map" else modes.eigenvalues.real)[0] - border
    assert modes.verdict == verdict
    assert (abs(margin) <= modes.bound[0]) == (verdict == "marginal")


def test_a_saddle_is_unstable_even_beside_a_marginal_mode():
    """One mode surely beyond the border settles it, however doubtful another."""
    assert jaxfp.spectrum(np.diag([1.5, 1.0])).verdict == "unstable"
    assert jaxfp.spectrum(np.diag([0.5, 1.0])).verdict == "marginal"


def test_verdicts_know_that_flips_are_unstable():
    """An eigenvalue of -1.5 is unstable for a map and stable for a flow: the kind decides."""
    assert jaxfp.spectrum(np.diag([-1.5, 0.5])).verdict == "unstable"
    assert jaxfp.spectrum(np.diag([-1.5, -0.5]), kind="flow").verdict == "stable"


@pytest.mark.parametrize("seed", range(3))
def test_bound_covers_the_true_eigenvalues(seed):
    """Each known eigenvalue of a non-normal matrix lies within the bound of a computed one; normal ones' is 1e-13."""
    rng = np.random.default_rng(seed)
    true = np.sort(rng.uniform(-1, 1, 6))
    for strength in (0.0, 1.0, 30.0):
        # Integer similarity of triangular form, exact in floating point: T = D + strictly upper.
        matrix = np.diag(true) + strength * np.triu(rng.integers(-1, 2, (6, 6)), 1)
        turn = rng.permutation(6)
        modes = jaxfp.spectrum(matrix[np.ix_(turn, turn)])
        distance = abs(modes.eigenvalues[:, None] - true[None]).min(0)
        reach = np.array([modes.bound[abs(modes.eigenvalues - x).argmin()] for x in true])
        assert (distance <= reach).all()
    assert jaxfp.spectrum(np.diag(true)).bound.max() < 1e-13


def test_defective_matrices_have_no_modes_but_a_verdict():
    """A Jordan block has NaN modes, infinite condition, a finite bound of order eps^(1/n), and its verdict."""
    modes = jaxfp.spectrum(np.array([[0.5, 1.0], [0.0, 0.5]]))
    assert np.isnan(modes.right).all()
    assert np.isnan(modes.left).all()
    assert modes.condition == np.inf
    assert modes.verdict == "stable"
    assert (modes.bound > 1e-9).all()
    assert (modes.bound < 1e-6).all()
    assert (abs(modes.eigenvalues - 0.5) <= modes.bound).all()
    assert np.isfinite(jaxfp.spectrum(np.array([[0.5, 1.0], [0.0, 0.6]])).right).all()


def test_a_nan_matrix_is_data():
    """A matrix that is not finite is marginal with NaN eigenvalues and infinite bound; its neighbors are untouched."""
    matrices = RANDOM.copy()
    matrices[2, 0, 0] = np.nan
    modes, clean = jaxfp.spectrum(matrices), jaxfp.spectrum(RANDOM)
    assert modes.verdict[2] == "marginal"
    assert np.isnan(modes.eigenvalues[2]).all()
    assert np.isinf(modes.bound[2]).all()
    others = [0, 1, 3, 4, 5]
    for column, reference in zip(modes, clean, strict=True):
        np.testing.assert_array_equal(column[others], reference[others])


def test_float32_jacobians_have_float32_bounds():
    """A float32 Jacobian carries float32 rounding: its bound is wider, and what it cannot tell is marginal."""
    close = np.diag([1 + 1e-6, 0.5])
    assert jaxfp.spectrum(close).verdict == "unstable"
    assert jaxfp.spectrum(close.astype(np.float32)).verdict == "marginal"
    assert jaxfp.spectrum(jnp.asarray(close, jnp.float32)).verdict == "marginal"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["map", "flow"])
def test_without_vectors_it_is_traceable(dtype, kind):
    """vectors=False works under jit and vmap, with dt traced, in the dtype given, and equals the host's numbers."""
    host = jaxfp.spectrum(RANDOM, dt=0.1, kind=kind)
    with jax.enable_x64(dtype == "float64"):
        matrices = jnp.asarray(RANDOM, dtype)
        run = jax.vmap(lambda j, dt: jaxfp.spectrum(j, dt=dt, kind=kind, vectors=False), (0, None))
        modes = jax.jit(run)(matrices, jnp.asarray(0.1, dtype))
        assert modes.eigenvalues.dtype == ("complex64" if dtype == "float32" else "complex128")
        tolerance = 100 * np.finfo(dtype).eps * host.condition.max()
        np.testing.assert_allclose(abs(modes.eigenvalues), abs(host.eigenvalues), atol=tolerance)
        np.testing.assert_allclose(modes.eigenvalues.real, host.eigenvalues.real, atol=tolerance)
        # d(1/ln|x|) is 1/ln^2: timescales of modes near the border are that much looser.
        rate, host_rate = 0.1 / modes.timescale, 0.1 / host.timescale
        np.testing.assert_allclose(rate, host_rate, rtol=1e-3 if dtype == "float32" else 1e-9, atol=10 * tolerance)
        np.testing.assert_array_equal(modes.n_unstable, host.n_unstable)
        assert modes.left is modes.right is modes.bound is modes.verdict is None


def test_one_matrix_has_no_leading_axis_and_none_gives_none():
    """(n, n) in gives (n,) out; zero points give zero rows of every column; float and integer matrices alike."""
    one, many = jaxfp.spectrum(RANDOM[0]), jaxfp.spectrum(RANDOM[:1])
    for column, row in zip(one, many, strict=True):
        np.testing.assert_array_equal(column, row[0])
    empty = jaxfp.spectrum(np.zeros((0, 5, 5)))
    assert [np.shape(x) for x in empty] == [(0, *np.shape(x)[1:]) for x in many]
    assert jaxfp.spectrum(2 * np.eye(2, dtype=int)).verdict == "unstable"
    assert jaxfp.spectrum(np.array([[0.25]])).timescale == pytest.approx([1 / np.log(4)])


@pytest.mark.parametrize(
    ("jacobian", "keywords", "wanted"),
    [
        (np.zeros((2, 3)), {}, r"\(n_points, n_hidden, n_hidden\)"),
        (np.zeros(3), {}, r"\(n_points, n_hidden, n_hidden\)"),
        (np.eye(2), {"dt": 0.0}, "dt must be positive"),
        (np.eye(2), {"dt": -1.0}, "dt must be positive"),
        (np.eye(2), {"kind": "ode"}, '"map" or "flow"'),
    ],
)
def test_bad_matrices_are_refused(jacobian, keywords, wanted):
    """Matrices that are not square, a dt that is not positive and an unknown kind raise ValueError."""
    with pytest.raises(ValueError, match=wanted):
        jaxfp.spectrum(jacobian, **keywords)


def leads(n, kind, seed=0):
    """A non-normal matrix with known leading eigenvalues: 1.02, a pair, 0.9, a pair, 0.7, then a bulk well behind.

    Shifted by -1 for a flow, where Re lambda orders the same ones.
    """
    rng = np.random.default_rng(seed)
    pairs = np.array([0.95 * np.exp(0.1j), 0.8 * np.exp(0.3j)] if kind == "map" else [0.95 + 0.2j, 0.8 + 0.3j])
    (a, b), (c, d) = ((z.real, z.imag) for z in pairs)
    matrix = 0.3 * rng.normal(size=(n, n)) / np.sqrt(n)
    matrix[:, :7] = 0  # block triangular: the spectrum is that of the blocks
    matrix[:7, :7] = np.diag([1.02, a, a, 0.9, c, c, 0.7])
    matrix[1, 2], matrix[2, 1], matrix[4, 5], matrix[5, 4] = b, -b, d, -d
    turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
    known = np.array([1.02, pairs[0], pairs[0].conj(), 0.9, pairs[1], pairs[1].conj(), 0.7])
    shift = 0.0 if kind == "map" else 1.0
    return turn @ matrix @ turn.T - shift * np.eye(n), known - shift


@pytest.fixture
def by_arnoldi(monkeypatch):
    """Small matrices are large, and how many of them the whole decomposition was asked for."""
    monkeypatch.setattr(modes_module, "_LARGE", 32)
    monkeypatch.setattr(modes_module, "_FEW", 4)
    whole, asked = modes_module._modes_of_one, []
    monkeypatch.setattr(modes_module, "_modes_of_one", lambda *args: asked.append(1) or whole(*args))
    return asked


def assert_same_modes(few, full, tolerance):
    """The modes of few are the first of full, vectors up to a factor of size 1."""
    k = few.eigenvalues.shape[-1]
    np.testing.assert_allclose(few.eigenvalues, full.eigenvalues[..., :k], rtol=0, atol=tolerance)
    for column in ("timescale", "frequency"):
        np.testing.assert_allclose(getattr(few, column), getattr(full, column)[..., :k], rtol=1e4 * tolerance)
    np.testing.assert_array_equal(few.n_unstable, full.n_unstable)
    np.testing.assert_array_equal(few.verdict, full.verdict)
    # r l is the projection onto a mode, whatever the factor.
    one = few.right[..., :, None, :] * np.swapaxes(few.left, -1, -2)[..., None, :, :]
    other = full.right[..., :, None, :k] * np.swapaxes(full.left[..., :k, :], -1, -2)[..., None, :, :]
    np.testing.assert_allclose(one, other, rtol=0, atol=100 * tolerance)
    np.testing.assert_allclose(np.linalg.norm(few.right, axis=-2), 1, rtol=1e-14)


@pytest.mark.parametrize("kind", ["map", "flow"])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_k_leading_modes_are_those_of_the_whole(by_arnoldi, kind, k):
    """With k the modes are the first k of all, known ones here, biorthonormal, with bounds, without the whole."""
    matrix, known = leads(64, kind)
    full = jaxfp.spectrum(matrix, kind=kind)
    assert len(by_arnoldi) == 1
    few = jaxfp.spectrum(matrix, kind=kind, k=k)
    assert len(by_arnoldi) == 1
    assert [np.shape(x) for x in few] == [(k,), (64, k), (k, 64), (), (k,), (k,), (), (k,), (), (2,)]
    assert_same_modes(few, full, 100 * np.finfo(float).eps * full.condition)
    np.testing.assert_allclose(few.left @ few.right, np.eye(k), atol=1e-10)
    order = np.argsort(-abs(known) if kind == "map" else -known.real, kind="stable")
    assert (abs(few.eigenvalues - known[order][:k]) <= few.bound).all()
    assert few.bound.max() < 1e-6
    assert few.n_unstable == 1
    assert few.verdict == "unstable"
    assert 1 <= few.condition <= full.condition * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["map", "flow"])
@pytest.mark.parametrize("large", [32, 10**9])
def test_a_pair_is_never_cut(by_arnoldi, monkeypatch, kind, large):
    """Where mode k is half of a pair there are k + 1; points of the same stack that need no more end in NaN."""
    monkeypatch.setattr(modes_module, "_LARGE", large)
    matrix, known = leads(64, kind)
    for k in (2, 5):
        few = jaxfp.spectrum(matrix, kind=kind, k=k)
        assert few.eigenvalues.shape == (k + 1,)
        assert few.eigenvalues[k] == few.eigenvalues[k - 1].conj() != few.eigenvalues[k - 1]
        np.testing.assert_allclose(few.left[k], few.left[k - 1].conj(), atol=1e-12)
        assert few.right.shape == few.left.T.shape == (64, k + 1)
        np.testing.assert_allclose(np.sort(few.eigenvalues), np.sort(known[: k + 1]), atol=1e-10)
    real = 0.5 * (matrix + matrix.T)
    both = jaxfp.spectrum(np.stack([real, matrix]), kind=kind, k=2)
    assert both.eigenvalues.shape == (2, 3)
    assert both.right.shape == (2, 64, 3)
    alone = [jaxfp.spectrum(m, kind=kind, k=2) for m in (real, matrix)]
    assert alone[0].eigenvalues.shape == (2,)
    for name, column, first, second in zip(both._fields, both, *alone, strict=True):
        one_a_mode = np.ndim(first) and name != "n_unstable_range"
        padded = np.moveaxis(column[0], {"right": 1}.get(name, 0), 0) if one_a_mode else column[0]
        mine = np.moveaxis(first, {"right": 1}.get(name, 0), 0) if one_a_mode else first
        np.testing.assert_array_equal(padded[:2] if one_a_mode else padded, mine)
        if one_a_mode:
            assert np.isnan(padded[2]).all()
        np.testing.assert_array_equal(column[1], second)
    assert len(by_arnoldi) == (0 if large == 32 else 6)


def test_all_unstable_modes_are_counted_beyond_k(by_arnoldi):
    """With more unstable modes than k, n_unstable still counts them all, and one mode too many is not reported."""
    matrix, _ = leads(96, "map")
    few = jaxfp.spectrum(1.6 * matrix, k=1)
    assert few.eigenvalues.shape == (1,)
    assert few.n_unstable == 7
    assert few.verdict == "unstable"
    assert not by_arnoldi


def test_modes_that_one_krylov_space_cannot_hold_are_not_missed(by_arnoldi):
    """Two equal subnetworks: every eigenvalue comes twice, in a Krylov space only once; none is lost all the same."""
    half, known = leads(48, "map")
    few = jaxfp.spectrum(np.kron(np.eye(2), half), k=4)
    np.testing.assert_allclose(few.eigenvalues.real, known.real[[0, 0, 1, 1]], atol=1e-10)
    assert few.n_unstable == 2


def test_a_missed_mode_is_noticed(by_arnoldi, monkeypatch):
    """Were the iterations on J and on J' to miss the same leading mode, the third one sends them to the whole."""
    matrix, _ = leads(64, "map")
    ritz = modes_module._ritz

    def misses_the_first(*args, **keywords):
        values, vectors = ritz(*args, **keywords)
        return (values, vectors) if keywords else (values[1:], vectors[:, 1:])

    monkeypatch.setattr(modes_module, "_ritz", misses_the_first)
    few = jaxfp.spectrum(matrix, k=3)
    assert few.eigenvalues[0].real == pytest.approx(1.02)
    assert len(by_arnoldi) == 1


def test_a_defective_block_goes_to_the_whole(by_arnoldi):
    """A Jordan block among the leading modes gives NaN modes, infinite condition and the bound of the whole."""
    matrix = 0.1 * np.random.default_rng(0).normal(size=(64, 64)) / 8
    matrix[:, :2] = 0
    matrix[0, 0] = matrix[1, 1] = 0.8
    matrix[0, 1] = 1.0
    few, full = jaxfp.spectrum(matrix, k=3), jaxfp.spectrum(matrix)
    assert np.isnan(few.right).all()
    assert few.condition == np.inf
    assert few.verdict == full.verdict == "stable"
    np.testing.assert_array_equal(few.eigenvalues, full.eigenvalues[:4])  # 3 would cut a pair
    np.testing.assert_array_equal(few.bound, full.bound[:4])


def test_iterations_that_do_not_converge_go_to_the_whole(by_arnoldi, monkeypatch):
    """A zero matrix, a random one without gaps at one restart and a NaN one give what the whole decomposition gives."""
    rough = np.random.default_rng(0).normal(size=(200, 200)) / 14
    monkeypatch.setattr(modes_module, "_RESTARTS", 1)
    matrices = np.stack([np.zeros((200, 200)), rough, np.full((200, 200), np.nan)])
    few = jaxfp.spectrum(matrices, k=9)
    assert len(by_arnoldi) == 3
    full = jaxfp.spectrum(matrices)
    k = few.eigenvalues.shape[1]
    width = 9 + (few.eigenvalues[1, 8].imag > 0)
    assert k == width
    np.testing.assert_array_equal(few.eigenvalues[1], full.eigenvalues[1, :k])
    np.testing.assert_array_equal(few.verdict, full.verdict)
    np.testing.assert_array_equal(few.n_unstable, full.n_unstable)
    assert few.verdict[2] == "marginal"


def test_k_modes_of_float32_and_of_small_matrices(by_arnoldi):
    """A float32 Jacobian keeps its wider bounds with k; where k is no few, or n small, the whole is cut to k."""
    matrix, _ = leads(64, "map")
    narrow = jaxfp.spectrum(matrix.astype(np.float32), k=4)
    wide = jaxfp.spectrum(matrix, k=4)
    assert not by_arnoldi
    assert narrow.eigenvalues.dtype == np.complex128
    assert (narrow.bound > 1e3 * wide.bound).all()
    assert (abs(narrow.eigenvalues - wide.eigenvalues) <= narrow.bound).all()
    for n, k in ((64, 64), (64, 63), (5, 5), (5, 1), (1, 1)):
        few, full = jaxfp.spectrum(matrix[:n, :n], k=k), jaxfp.spectrum(matrix[:n, :n])
        for column in ("eigenvalues", "bound", "timescale"):
            np.testing.assert_array_equal(getattr(few, column), getattr(full, column)[: len(few.bound)])
        assert len(few.bound) in (k, k + 1)
    assert jaxfp.spectrum(np.zeros((0, 64, 64)), k=3).right.shape == (0, 64, 3)


def test_k_modes_are_the_same_each_time(by_arnoldi):
    """Nothing random: a second call gives the same bits, on matrices, too, whose Krylov spaces end."""
    u = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 2)))[0]
    older = "rng" not in inspect.signature(scipy.sparse.linalg.eigs).parameters
    ends = leads(64, "map")[0] if older else 0.5 * np.eye(64)
    for matrix in (leads(64, "map")[0], ends, u @ np.diag([1.2, 0.9]) @ u.T):
        first, second = (jaxfp.spectrum(matrix, k=2) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(first.eigenvalues, [1.2, 0.9], atol=1e-12)


@pytest.mark.parametrize(
    ("keywords", "wanted"),
    [
        ({"k": 0}, "k must be an integer from 1 to n_hidden = 5, got 0"),
        ({"k": 6}, "k must be an integer from 1 to n_hidden = 5, got 6"),
        ({"k": 2.0}, "k must be an integer"),
        ({"k": True}, "k must be an integer"),
        ({"k": 2, "vectors": False}, "k= needs vectors=True"),
        ({"jacobian_error": 0.1, "vectors": False}, "jacobian_error= needs vectors=True"),
        ({"jacobian_error": -0.1}, "jacobian_error must be a number, 0 or more"),
        ({"jacobian_error": np.nan}, "jacobian_error must be a number, 0 or more"),
        ({"jacobian_error": np.zeros(5)}, r"jacobian_error must be a number, 0 or more, or one for each of \(6,\)"),
    ],
)
def test_bad_k_and_bad_errors_are_refused(keywords, wanted):
    """A k that is no integer from 1 to n_hidden, an error below 0, and either without vectors, raise ValueError."""
    with pytest.raises(ValueError, match=wanted):
        jaxfp.spectrum(RANDOM, **keywords)


def brink(k, side, normal, kind, n=6):
    """A real matrix whose leading eigenvalue is 10^-k beyond (side = 1) or short of (-1) the border, the rest inside.

    Non-normal: shears of size 1 between all modes, condition 100. In some orthonormal basis either way.
    """
    rng = np.random.default_rng(k)
    triangle = np.diag(np.concatenate([[1 + side * 10.0**-k], np.linspace(-0.8, 0.7, n - 1)]))
    triangle -= (kind == "flow") * np.eye(n)
    if not normal:
        triangle += np.triu(rng.normal(size=(n, n)), 1)
    turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return turn @ triangle @ turn.T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["map", "flow"])
@pytest.mark.parametrize("normal", [True, False])
def test_a_mode_comes_near_the_border_and_no_verdict_is_wrong(normal, kind, dtype):
    """At 10^-k from the border, k = 1 .. 16, verdicts are right, then marginal where the bound says so, never wrong."""
    eps = np.finfo(dtype).eps
    for side, right in ((1, "unstable"), (-1, "stable")):
        decided = []
        for k in range(1, 17):
            matrix = brink(k, side, normal, kind)
            modes = jaxfp.spectrum(matrix.astype(dtype), kind=kind)
            excess = abs(modes.eigenvalues[0]) - 1 if kind == "map" else modes.eigenvalues[0].real
            assert modes.verdict in (right, "marginal")
            assert (modes.verdict == "marginal") == (abs(excess) <= modes.bound[0])
            true = int(side > 0)
            assert modes.n_unstable_range[0] <= true <= modes.n_unstable_range[1]
            if modes.verdict == right:
                assert modes.n_unstable_range.tolist() == [true, true]
            elif normal:  # non-normal ones are in doubt together
                assert modes.n_unstable_range.tolist() == [0, 1]
            assert abs(excess - side * 10.0**-k) <= modes.bound[0] or modes.verdict == right
            decided.append(modes.verdict == right)
        # Decided until its bound, cond(R) 8 n eps ||J|| and the same once more; nothing further out is left open.
        condition = np.linalg.cond(np.linalg.eig(matrix)[1])
        last = -np.log10(2 * condition * 8 * 6 * eps * np.linalg.norm(matrix, 2))
        n_decided = int(np.sum(decided))
        assert decided == [True] * n_decided + [False] * (16 - n_decided)
        assert n_decided >= int(last)
        assert n_decided <= -np.log10(eps)


def test_suite_of_four_is_decided_in_both_dtypes():
    """FixedPointFinder's four units, | |lambda| - 1 | = 2.45e-5: verdicts and counts are right in both dtypes."""
    suite = json.loads((pathlib.Path(__file__).parent / "data" / "fpf_suite.json").read_text())["4"]
    hidden = np.array(suite["hidden"])
    jacobian = (1 - hidden**2)[:, :, None] * systems.suite_weights(4).T
    for dtype in (np.float32, np.float64):
        modes = jaxfp.spectrum(jacobian.astype(dtype))
        assert abs(abs(modes.eigenvalues) - 1).min() == pytest.approx(2.45e-5, rel=0.01)
        np.testing.assert_array_equal(modes.n_unstable, suite["n_unstable"])
        np.testing.assert_array_equal(modes.n_unstable_range, np.stack([suite["n_unstable"]] * 2, axis=1))
        np.testing.assert_array_equal(modes.verdict, np.where(np.array(suite["n_unstable"]) > 0, "unstable", "stable"))


@pytest.mark.parametrize("kind", ["map", "flow"])
@pytest.mark.parametrize("n", [3, 8])
def test_no_matrix_within_the_error_has_another_count(kind, n):
    """Of 200 random J with an error of 0.05, 20 dJ of that norm each, none leaves the range or the verdict."""
    rng = np.random.default_rng(n)
    matrices = rng.normal(size=(200, n, n)) / np.sqrt(n) + 0.3 * np.triu(rng.normal(size=(200, n, n)), 1)
    error = np.full(200, 0.05)
    modes = jaxfp.spectrum(matrices, kind=kind, jacobian_error=error)
    for _ in range(20):
        step = rng.normal(size=(200, n, n)) if rng.integers(2) else rng.normal(size=(200, n, 1)) * np.eye(n)[0]
        values = np.linalg.eigvals(matrices + 0.05 * step / np.linalg.norm(step, 2, axis=(1, 2))[:, None, None])
        count = ((abs(values) - 1 if kind == "map" else values.real) > 0).sum(1)
        assert (modes.n_unstable_range[:, 0] <= count).all()
        assert (count <= modes.n_unstable_range[:, 1]).all()
        assert not ((modes.verdict == "stable") & (count > 0)).any()
        assert not ((modes.verdict == "unstable") & (count == 0)).any()
    exact = modes.n_unstable_range[:, 0] == modes.n_unstable_range[:, 1]
    assert 20 < exact.sum() < 200  # both happen
    np.testing.assert_array_equal(modes.n_unstable[exact], modes.n_unstable_range[exact, 0])
    sharp = jaxfp.spectrum(matrices, kind=kind)
    assert (sharp.n_unstable_range == sharp.n_unstable[:, None]).all()
    np.testing.assert_array_equal(sharp.eigenvalues, modes.eigenvalues)


def test_discs_that_overlap_share_their_modes():
    """A disc beyond the border that overlaps one across it is sure of nothing: both true modes may be in the other."""
    values, radius = np.array([1.1, 1.0, 0.5]), np.array([0.06, 0.05, 0.1])
    bound = modes_module._bound(values, values - 1, [radius])
    assert modes_module._surely(values - 1, bound, 3).tolist() == [0, 2]
    assert bound == pytest.approx([0.15, 0.16, 0.1])  # down to 0.95, up to 1.16, alone
    apart = modes_module._bound(values, values - 1, [radius, np.array([0.04, 0.04, 0.9])])
    assert modes_module._surely(values - 1, apart, 3).tolist() == [0, 2]  # the wide disc takes in the others
    apart = modes_module._bound(values, values - 1, [radius, np.array([0.04, 0.04, 0.2])])
    assert modes_module._surely(values - 1, apart, 3).tolist() == [1, 2]


def test_a_nearly_defective_pair_is_in_doubt_together():
    """Moved by 1e-4, a pair at 1.001 and 0.998 of a shear may be 0.9995 +- 0.01: 0 to 2 modes, 1 if J is exact."""
    matrix = np.array([[1.001, 1.0], [0.0, 0.998]])
    modes = jaxfp.spectrum(matrix, jacobian_error=1e-4)
    assert modes.verdict == "marginal"
    assert modes.n_unstable_range.tolist() == [0, 2]
    assert jaxfp.spectrum(matrix).n_unstable_range.tolist() == [1, 1]


def test_a_position_error_makes_a_fold_marginal():
    """The ghost at a = 0, found 5e-9 beside its double point, is unstable by its J alone, marginal with J's error."""
    beside = 0.5 - 5e-9
    jacobian = jaxfp.linearize(toys.ghost, 0.0, np.array([beside, beside])).jacobian
    assert jaxfp.spectrum(jacobian, kind="flow").verdict == "unstable"
    # dJ/dx1 = -2 in one entry; what FIXED says of the position is sqrt(eps) (1 + ||h||).
    error = 2 * np.finfo(float).eps ** 0.5 * (1 + np.hypot(beside, beside))
    modes = jaxfp.spectrum(jacobian, kind="flow", jacobian_error=error)
    assert modes.verdict == "marginal"
    assert modes.n_unstable_range.tolist() == [0, 1]


def test_k_modes_carry_their_errors(by_arnoldi):
    """With k, jacobian_error enters bounds and range; where a leading mode is in doubt both say so."""
    matrix, _ = leads(64, "map")
    few = jaxfp.spectrum(matrix, k=3, jacobian_error=1e-5)
    assert not by_arnoldi
    assert few.n_unstable_range.tolist() == [1, 1]
    assert (few.bound >= 1e-5).all()
    doubtful = jaxfp.spectrum(matrix, k=3, jacobian_error=0.05)
    assert doubtful.verdict == "marginal"
    assert doubtful.n_unstable_range.tolist() == [0, 64]  # none is surely stable, nor are those behind
    assert not by_arnoldi
