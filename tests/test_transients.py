"""Non-normality: closed forms of [[a, b], [0, c]], and 1 and 0 for normal matrices."""

import numpy as np
import pytest
import scipy.linalg

import jaxfp

TRIANGLES = [(0.5, 8.0, 0.4), (-0.9, 1.0, 0.9), (0.3, -2.0, 0.3), (0.5, 4.0, 0.1), (0.2, 7.0, -0.4)]


@pytest.mark.parametrize("kind", ["map", "flow"])
@pytest.mark.parametrize("triangle", TRIANGLES)
def test_closed_forms_of_a_triangle(kind, triangle):
    """Departure |b|; eigenvector condition c + sqrt(c^2 - 1), c^2 = 1 + (b / (a - c))^2; the range's ellipse."""
    a, b, c = triangle if kind == "map" else np.array(triangle) - [1, 0, 1]
    found = jaxfp.non_normality(np.array([[a, b], [0.0, c]]), kind=kind)
    assert found.departure == pytest.approx(abs(b), rel=1e-12)
    if a == c:
        assert found.condition == np.inf
    else:
        t = abs(b / (a - c))
        assert found.condition == pytest.approx(t + np.sqrt(t**2 + 1), rel=1e-10)
    # x' J x fills an ellipse with the eigenvalues as foci and minor axis |b|.
    middle, long = (a + c) / 2, np.hypot(a - c, b) / 2
    if kind == "flow":
        assert found.numerical == pytest.approx(middle + long, rel=1e-12)
    else:
        angle = np.linspace(0, np.pi / 2, 100_001)
        edge = np.hypot(abs(middle) + long * np.cos(angle), abs(b) / 2 * np.sin(angle)).max()
        assert found.numerical == pytest.approx(edge, rel=1e-9)
    # Powers and exponentials: b (a^k - c^k) / (a - c) off the diagonal, k a^(k-1) b where a = c.
    times = np.arange(400) if kind == "map" else np.linspace(0, 40, 40_001)
    x, y = (v**times if kind == "map" else np.exp(v * times) for v in (a, c))
    last = times * (a ** np.maximum(times - 1, 0) if kind == "map" else x)
    corner = b * ((x - y) / (a - c) if a != c else last)
    # ||[[x, z], [0, y]]||_2 from its Frobenius norm and determinant.
    square = (x**2 + y**2 + corner**2) / 2
    norms = np.sqrt(square + np.sqrt(np.maximum(square**2 - (x * y) ** 2, 0)))
    assert found.growth == pytest.approx(norms.max(), rel=1e-12 if kind == "map" else 1e-6)
    assert found.growth_time == pytest.approx(times[norms.argmax()], abs=0 if kind == "map" else 2e-3)
    assert found.settled


@pytest.mark.parametrize("kind", ["map", "flow"])
@pytest.mark.parametrize("n", [2, 6])
def test_kreiss_constant_is_that_of_a_fine_grid(kind, n):
    """The search meets the best of a fine grid to 1e-3, and kreiss <= growth <= e n kreiss, for random matrices."""
    matrix = np.triu(np.random.default_rng(n).normal(size=(n, n)), 1) * 3
    matrix += np.diag(np.linspace(-0.8, 0.9, n)) - (0 if kind == "map" else np.eye(n))
    found = jaxfp.non_normality(matrix, kind=kind)
    excess, aim = np.exp(np.linspace(-8, 4, 150)), np.linspace(0, np.pi if kind == "map" else 5, 120)
    z = np.multiply.outer(1 + excess, np.exp(1j * aim)) if kind == "map" else np.add.outer(excess, 1j * aim)
    nearest = np.linalg.svd(z[..., None, None] * np.eye(n) - matrix, compute_uv=False)[..., -1]
    best = (excess[:, None] / nearest).max()
    assert found.kreiss == pytest.approx(best, rel=1e-3)
    assert 1 <= found.kreiss <= found.growth <= np.e * n * found.kreiss
    assert found.growth > 1.1


@pytest.mark.parametrize("kind", ["map", "flow"])
def test_normal_matrices_have_ones_and_zeros(kind):
    """Symmetric, rotating, repeated and zero matrices: condition, Kreiss constant and growth 1, departure 0."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    shift = 0.0 if kind == "map" else 1.0
    rotation = scipy.linalg.block_diag(
        *[0.9 * np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in (1, 2)]
    )
    blocks = [np.diag([0.9, 0.5, -0.2, -0.9]), rotation, 0.5 * np.eye(4), np.diag([0.5, 0.5, 0.2, 0.2]), np.eye(4)]
    matrices = np.stack([turn @ (block - shift * np.eye(4)) @ turn.T for block in blocks])
    found = jaxfp.non_normality(matrices, kind=kind)
    np.testing.assert_array_equal(found.condition, 1)
    np.testing.assert_allclose(found.departure, 0, atol=1e-14)
    np.testing.assert_array_equal(found.kreiss, 1)
    np.testing.assert_array_equal(found.growth, 1)
    np.testing.assert_array_equal(found.growth_time, 0)
    radius = [0.9, 0.9, 0.5, 0.5, 1] if kind == "map" else [-0.1, 0.9 * np.cos(1) - 1, -0.5, -0.5, 0]
    np.testing.assert_allclose(found.numerical, radius, atol=1e-14)
    assert found.settled.all()
    assert jaxfp.non_normality(np.zeros((2, 2)), kind=kind).growth == 1


def test_unstable_and_broken_matrices_are_data():
    """An unstable J grows without end, a NaN one is NaN, its neighbor is untouched; no points, empty columns."""
    stable = np.array([[0.5, 1.0], [0.0, 0.2]])
    found = jaxfp.non_normality(np.stack([2 * np.eye(2), np.full((2, 2), np.nan), stable]))
    assert found.growth[0] == found.kreiss[0] == np.inf
    assert np.isnan(found.growth[1])
    for column, alone in zip(found, jaxfp.non_normality(stable), strict=True):
        assert column[2] == alone
    assert [x.shape for x in jaxfp.non_normality(np.zeros((0, 2, 2)))] == [(0,)] * 7
    slow = jaxfp.non_normality(np.array([[0.999, 1.0], [0.0, 0.999]]), n_steps=100)
    assert not slow.settled
    assert slow.growth == pytest.approx(100 * 0.999**99, rel=1e-3)


@pytest.mark.parametrize(
    ("jacobian", "keywords", "wanted"),
    [
        (np.zeros((2, 3)), {}, "n_points, n_hidden, n_hidden"),
        (np.eye(2), {"kind": "ode"}, '"map" or "flow"'),
        (np.eye(2), {"n_steps": 0}, "n_steps must be a positive integer"),
    ],
)
def test_bad_arguments_are_refused(jacobian, keywords, wanted):
    with pytest.raises(ValueError, match=wanted):
        jaxfp.non_normality(jacobian, **keywords)
