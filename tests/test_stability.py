"""What decides stability is the same whether or not all eigenvalues are computed, and seldom needs them."""

import numpy as np
import pytest

from jaxfp.analysis import stability

N = 80


def with_eigenvalues(leading, radius, key, spread=0.3):
    """A matrix, not normal, with the eigenvalues given (of pairs one) and others inside the radius."""
    rng = np.random.default_rng(key)
    blocks = [np.array([[z.real, z.imag], [-z.imag, z.real]]) if z.imag else np.array([[z.real]]) for z in leading]
    width = sum(len(b) for b in blocks)
    matrix = np.zeros((N, N))
    rest = rng.normal(size=(N - width, N - width))
    matrix[width:, width:] = radius * rest / np.abs(np.linalg.eigvals(rest)).max()
    start = 0
    for block in blocks:
        matrix[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    turn = np.eye(N) + spread * rng.normal(size=(N, N)) / np.sqrt(N)
    return turn @ matrix @ np.linalg.inv(turn)


LEADING = {
    "stable": [],
    "one": [1.3],
    "flip and pair": [-1.1, 0.9 + 0.7j],
    "at the border": [1 + 1e-7, -1 + 1e-7, (1 - 1e-7) * np.exp(1j)],
    "large": [40.0, -3.0, 1.02],
    "out of range": [1e25, 1.5],
    "more than are sought": [1.1, -1.2, 1.3j, 1.4, 1.5 + 0.1j, -1.6, 1.7, 1.8j],
}


@pytest.mark.parametrize("radius", [0.4, 0.8, 0.97, 1.2])
@pytest.mark.parametrize("name", LEADING)
def test_those_beyond_the_border_are_all_there(name, radius):
    leading = np.array(LEADING[name], complex)
    jacobians = np.stack([with_eigenvalues(leading, radius, key) for key in range(4)])
    every, few = stability.eigenvalues(jacobians, "map"), stability.deciding(jacobians, "map")
    unstable = (stability.beyond(every, "map") > 0).sum(axis=1)
    np.testing.assert_array_equal((stability.beyond(few, "map") > 0).sum(axis=1), unstable)
    scale = max(1.0, np.abs(leading).max(initial=0.0))
    for all_of, some, n in zip(every, few, unstable, strict=True):
        np.testing.assert_allclose(np.sort_complex(some[:n]), np.sort_complex(all_of[:n]), atol=1e-9 * scale)


def test_a_gap_in_the_spectrum_makes_all_eigenvalues_needless(monkeypatch):
    jacobians = np.stack([with_eigenvalues([1.3, 1.1j], 0.5, key) for key in range(3)])
    sizes, whole = [], np.linalg.eigvals
    monkeypatch.setattr(np.linalg, "eigvals", lambda a: sizes.append(a.shape) or whole(a))
    stability.deciding(np.append(jacobians, [0.5 * np.eye(N)], axis=0), "map")
    assert sizes
    assert all(shape[0] == 0 for shape in sizes)


def test_an_eigenvalue_that_the_iteration_misses_is_not_lost():
    """Its vector is at right angles to the first block, which converges at once: to others."""
    start = np.cos(np.arange(1.0, 8 * N + 1) ** 2).reshape(N, 8)
    missed = np.linalg.qr(start, mode="complete")[0][:, 20]
    jacobian = (0.95 * np.eye(N) + 0.07 * np.outer(missed, missed))[None]
    np.testing.assert_allclose(stability.deciding(jacobian, "map")[0, :2], [1.02, 0.95], rtol=1e-12)


@pytest.mark.parametrize("value", [0.999, 1.001])
def test_a_defective_block_is_not_miscounted(value):
    """Eight in one Jordan block: rounding of an invariant subspace moves them by eps^(1/8), over the circle."""
    jacobian = 0.3 * np.eye(N)
    jacobian[:8, :8] = value * np.eye(8) + np.eye(8, k=1)
    few = stability.deciding(jacobian[None], "map")
    assert (stability.beyond(few, "map") > 0).sum() == (8 if value > 1 else 0)


def test_flows_and_small_matrices_get_all():
    jacobian = np.diag(np.linspace(-2, 1, N))[None]
    np.testing.assert_allclose(stability.deciding(jacobian, "flow")[0], np.linspace(1, -2, N), rtol=1e-12)
    np.testing.assert_allclose(stability.deciding(jacobian[:, :5, :5], "map")[0], np.linspace(-2, 1, N)[:5])


def test_nothing_of_nothing():
    assert stability.deciding(np.zeros((0, N, N)), "map").shape == (0, N)
