import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfp

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
