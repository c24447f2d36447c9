"""Zeros found once and shared: what is refined is a zero, and what is claimed is what Newton would take there."""

import json
import pathlib

import jax
import numpy as np
import pytest
import systems

from jaxfp.search import minima, polish, zeros

EPS = np.finfo(float).eps
SUITE = json.loads((pathlib.Path(__file__).parent / "data" / "fpf_suite.json").read_text())
WEIGHTS = systems.suite_weights(4)


def refined(step_fn, params, hidden, inputs=None, kind="map"):
    with jax.enable_x64(True):
        return zeros.refine(step_fn, params, hidden, inputs, kind=kind, chunk_size=16, n_dense=16)


def residual(step_fn, params, hidden, inputs=None):
    with jax.enable_x64(True):
        return polish.residuals(step_fn, params, hidden, inputs, kind="map", chunk_size=16)[0]


def as_zeros(near, inputs=None):
    return zeros.Zeros(near.hidden, inputs, near.factors)


def newton(hidden, eps, n_steps=60):
    """Where Newton's method on eps + h^2 ends, and every state on the way."""
    path = [hidden]
    for _ in range(n_steps):
        path.append(path[-1] - (eps + path[-1] ** 2) / (2 * path[-1]))
    return np.array(path)


def test_refined_lanes_are_at_the_floor_of_float64():
    """From 1e-3 away zeros of tanh(h W) - h, and of a flow, are met to the rounding floor; what is given stays."""
    start = np.stack([np.zeros(4), *np.array(SUITE["4"]["hidden"])[:3]])
    near = start + 1e-3 * np.random.default_rng(0).normal(size=start.shape)
    given = near.copy()
    found = refined(systems.tanh_row, WEIGHTS, near)
    np.testing.assert_array_equal(near, given)
    r = np.tanh(found.hidden @ WEIGHTS) - found.hidden
    np.testing.assert_allclose(np.linalg.norm(r, axis=1), found.speed, rtol=0, atol=8 * EPS)
    assert (found.speed <= found.floor).all()
    assert (found.floor < 1e-13).all()
    assert found.shareable.all()
    assert np.linalg.norm(found.hidden - start, axis=1).max() < 1e-2
    assert len(found.factors) == len(near)
    flow = refined(systems.quartic, -0.25, np.array([[0.501, 1e-3]]), kind="flow")
    np.testing.assert_allclose(flow.hidden, [[0.5, 0]], atol=1e-15)
    assert flow.speed <= flow.floor


def towards_ones(rates, hidden, inputs):
    """The map whose residual is -rates (h - 1)."""
    return hidden - rates * (hidden - 1)


@pytest.mark.parametrize(("slowest", "dtype"), [(1e-1, np.float32), (1e-6, np.float64)])
def test_large_networks_share_ill_conditioned_zeros_too(slowest, dtype):
    """Beyond 512 units factors are single, but double where those could not say which lanes belong to the zero.

    Networks trained by FORCE are that ill-conditioned: all eight memories of one of 1,000 units were once called stuck.
    """
    rates = np.geomspace(1, slowest, 520)
    found = refined(towards_ones, rates, 1 + 1e-4 * np.random.default_rng(0).normal(size=(2, 520)))
    assert found.shareable.all()
    assert (found.speed <= found.floor).all()
    assert {factors.lu.dtype for factors in found.factors} == {np.dtype(dtype)}
    assert (np.abs(rates * (found.hidden - 1)) <= found.floor.max()).all()


def test_refining_never_raises_q_and_leaves_what_it_cannot_help():
    """Where J is singular, or r is NaN, or the step goes uphill, the state stays and nothing is shareable."""
    ghost = np.array([[0.0], [np.nan], [1e-9]])  # r = 1e-2 + h^2: no zero; J = 0 at 0, a step of -5e6 from 1e-9
    found = refined(systems.fold, 1e-2, ghost)
    np.testing.assert_array_equal(found.hidden, ghost)
    assert not found.shareable.any()
    assert found.factors[0].rcond == 0
    line = np.array([0.6, 0.8])
    on_line = refined(systems.line, line, np.array([[1.2, 1.6]]))
    assert not on_line.shareable.any()
    double = refined(systems.fold, 0.0, np.array([[1e-3]]))
    assert double.speed < 1e-6
    assert not double.shareable.any()  # chord steps creep to a double zero


@pytest.mark.parametrize("eps", [-1e-6, -1e-2])
def test_a_lane_between_two_zeros_is_claimed_by_newtons_or_by_none(eps):
    """Of r = eps + h^2, zeros +-sqrt(-eps): every lane that is claimed is one that Newton takes to that very zero.

    Claimed are, of all distances, those where r is the linear model's to a quarter: |h - h*| <= h* / 2; none further.
    """
    root = np.sqrt(-eps)
    found = refined(systems.fold, eps, np.array([[root * 1.01], [-root * 1.01]]))
    np.testing.assert_allclose(found.hidden[:, 0], [root, -root], rtol=1e-9)
    known = as_zeros(found)
    lanes = np.concatenate([root * np.linspace(-5, 5, 2001), np.geomspace(1e-12, 1e3, 400)])[:, None]
    r = residual(systems.fold, eps, lanes)
    label = zeros.belongs_to(known, lanes, None, r, np.zeros(len(lanes)))
    claimed = label >= 0
    ends = np.array([newton(h, eps)[-1] for h in lanes[claimed, 0]])
    np.testing.assert_allclose(ends, known.hidden[label[claimed], 0], rtol=1e-6)
    # The factors are those of 2 h at the zero itself: the border is |1 - (2 + d) / 2| <= 1/4.
    distance = (lanes[:, 0] / root - np.sign(lanes[:, 0])) * np.sign(lanes[:, 0])
    left = abs(1 - (2 + distance) / 2)
    clear = (abs(left - 0.25) > 1e-6) & (abs(distance) > 1e-6) & (lanes[:, 0] != 0)
    np.testing.assert_array_equal(claimed[clear], left[clear] < 0.25)
    assert 0.15 < claimed[:2001].mean() < 0.25  # 2 of 10
    # Negative control: the nearest zero, whatever r, would claim lanes on the wrong side for Newton or for ever.
    everything = zeros.belongs_to(known, lanes, None, r, np.full(len(lanes), np.inf))
    assert (everything >= 0).all()


def test_a_lane_at_another_zero_is_never_claimed():
    """A zero is no other zero, however near: r vanishes there, where the linear model says it should not."""
    root = 1e-6
    found = refined(systems.fold, -(root**2), np.array([[root * 1.01]]))
    other = np.array([[-root], [-root * (1 + 1e-3)], [root * (1 + 1e-3)]])
    r = residual(systems.fold, -(root**2), other)
    assert zeros.belongs_to(as_zeros(found), other, None, r, np.zeros(3)).tolist() == [-1, -1, 0]
    # Only the distance at which two points are one to the search's own word overrules it.
    assert zeros.belongs_to(as_zeros(found), other, None, r, np.full(3, 3e-6)).tolist() == [0, 0, 0]


def test_a_lane_belongs_to_zeros_at_its_own_input_only():
    """The same state at another input is claimed by the zero there or by none, and inputs need not be sorted."""
    params = {"W": 1.5 * np.eye(2), "B": np.array([[1.0], [0.0]])}
    inputs = np.array([[0.1], [0.0], [0.1]])
    found = refined(systems.driven, params, np.array([[0.9, 0.85], [0.86, 0.86], [0.9, -0.85]]), inputs)
    assert found.shareable.all()
    known = as_zeros(found, inputs)
    lanes = np.repeat(found.hidden + 1e-3, 3, axis=0)
    at = np.tile([[0.0], [0.1], [7.0]], (3, 1))
    r = residual(systems.driven, params, lanes, at)
    label = zeros.belongs_to(known, lanes, at, r, np.zeros(9))
    assert label.tolist() == [1, 0, -1, 1, 0, -1, -1, 2, -1]
    none = zeros.Zeros(np.zeros((0, 2)), np.zeros((0, 1)), [])
    assert zeros.belongs_to(none, lanes, at, r, np.zeros(9)).tolist() == [-1] * 9
    both = zeros.joined(none, known)
    assert zeros.belongs_to(both, lanes, at, r, np.zeros(9)).tolist() == label.tolist()


def test_nan_lanes_belong_nowhere():
    """A lane that is NaN, or whose residual is, is claimed by none, and the others all the same."""
    known = zeros.Zeros(np.zeros((1, 2)), None, [zeros.factorize(np.eye(2))])
    lanes = np.array([[0.1, 0.0], [np.nan, 0.0], [0.0, 0.1]])
    r = lanes.copy()
    r[2, 0] = np.nan
    assert zeros.belongs_to(known, lanes, None, r, np.zeros(3)).tolist() == [0, -1, -1]


def test_refined_minima_of_q_are_minima():
    """Near a minimum of q above zero its gradient is brought to rounding; at a maximum the distance is infinite."""
    with jax.enable_x64(True):
        start = np.array([[0.05, 0.02, -0.03]])
        low = minima.refine(systems.quartic, 0.3, start, None, kind="flow", chunk_size=4, n_dense=4)
        np.testing.assert_allclose(low.hidden, 0, atol=1e-9)  # chord steps, six
        assert low.speed[0] == pytest.approx(0.3, rel=1e-15)
        assert low.distance[0] < 1e-9
        assert low.slope[0] < 1e-9
        high = minima.refine(systems.quartic, -0.3, start, None, kind="flow", chunk_size=4, n_dense=4)
        assert np.isinf(high.distance[0])
        # A zero is no minimum above zero: its slope does not vanish.
        zero = np.array([[np.sqrt(0.3) + 1e-3, 1e-3, 1e-3]])
        at_zero = minima.refine(systems.quartic, -0.3, zero, None, kind="flow", chunk_size=4, n_dense=4)
        assert at_zero.speed[0] < 1e-12


def test_factors_of_singular_matrices_never_raise():
    """A singular or NaN matrix has rcond 0 and solutions that are not finite; a regular one solves each row."""
    for matrix in (np.zeros((2, 2)), np.array([[1.0, 2.0], [2.0, 4.0]]), np.full((2, 2), np.nan)):
        factors = zeros.factorize(matrix)
        assert factors.rcond < 1e-15
        if factors.rcond == 0:
            assert np.isnan(zeros.solve(factors, np.ones((3, 2)))).all()
    matrix = np.random.default_rng(0).normal(size=(5, 5))
    rows = np.random.default_rng(1).normal(size=(3, 5))
    factors = zeros.factorize(matrix)
    np.testing.assert_allclose(zeros.solve(factors, rows) @ matrix.T, rows, atol=1e-12)
    assert zeros.least_singular(factors) <= 3 * np.linalg.svd(matrix)[1][-1]
    assert zeros.least_singular(factors) >= np.linalg.svd(matrix)[1][-1] / 15
