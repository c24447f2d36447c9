"""An ensemble is its networks searched apart, in shared programs; one that is not finite leaves no trace."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfp
from jaxfp import from_arrays, side_by_side
from jaxfp.models import equations

N_NETWORKS, N_HIDDEN, N_CANDIDATES = 3, 8, 24
GAINS = (0.5, 1.5, 2.5)  # one point; a few; many
INPUTS = np.array([[0.0], [0.4]])[np.arange(N_CANDIDATES) % 2]
STEP_FN = from_arrays("tanh", equations.init_arrays(jax.random.key(0), "tanh", N_HIDDEN, 1))[0]


def networks():
    """Random tanh networks with a leading axis, float32, and candidates for each."""
    keys = jax.random.split(jax.random.key(1), N_NETWORKS)
    apart = [equations.init_arrays(k, "tanh", N_HIDDEN, 1, gain=g) for k, g in zip(keys, GAINS, strict=True)]
    params = [from_arrays("tanh", arrays)[1] for arrays in apart]
    together = {name: np.stack([p[name] for p in params]) for name in params[0]}
    candidates = np.asarray(jax.random.normal(jax.random.key(2), (N_NETWORKS, N_CANDIDATES, N_HIDDEN)))
    return together, candidates


def search(params, candidates):
    inputs = np.broadcast_to(INPUTS, (N_NETWORKS, *INPUTS.shape))
    return jaxfp.find_fixed_points_ensemble(STEP_FN, params, candidates, inputs)


@functools.cache
def found():
    return search(*networks())


def bits(points):
    return [np.asarray(column).tobytes() for column in points[:-1]]


def test_an_ensemble_is_its_networks_searched_apart():
    """Same points, status, hits and counts; float32 candidates, as those of trained networks are, two inputs each."""
    params, candidates = networks()
    sizes = set()
    for i, points in enumerate(found()):
        alone = jaxfp.find_fixed_points(STEP_FN, {k: p[i] for k, p in params.items()}, candidates[i], INPUTS)
        for name in ("status", "isolated", "n_hits", "inputs"):
            np.testing.assert_array_equal(getattr(points, name), getattr(alone, name))
        # Both are at the rounding floor, and the least singular value of I - J is over 1e-2 at each of these points.
        jacobian = jaxfp.linearize(STEP_FN, {k: p[i] for k, p in params.items()}, alone.hidden, alone.inputs).jacobian
        least = np.linalg.svd(np.eye(N_HIDDEN) - jacobian, compute_uv=False).min()
        floor = 8 * np.finfo(float).eps * N_HIDDEN**0.5 * np.abs(alone.hidden).max(initial=1) * 10
        np.testing.assert_allclose(points.hidden, alone.hidden, atol=2 * floor / least)
        assert points.report.counts == alone.report.counts
        assert points.report.kind == "map"
        sizes.add(len(points.hidden))
    assert len(sizes) > 1  # the networks are no copies of each other


@pytest.mark.parametrize("place", [0, 2])
def test_a_network_that_is_not_finite_changes_no_bit_of_another(place):
    """It has no points, and its lanes are counted as NONFINITE; the audit of nothing is an audit."""
    params, candidates = networks()
    broken = {name: array.copy() for name, array in params.items()}
    broken["w_rec"][place, 1, 2] = np.nan
    together = search(broken, candidates)
    for i, (points, healthy) in enumerate(zip(together, found(), strict=True)):
        if i != place:
            assert bits(points) == bits(healthy)
    lost = together[place]
    assert lost.hidden.shape == (0, N_HIDDEN)
    assert lost.report.counts == {"FIXED": 0, "SLOW": 0, "MAX_STEPS": 0, "NONFINITE": N_CANDIDATES, "REJECTED": 0}
    assert lost.report.unresolved.tolist() == [N_CANDIDATES // 2] * 2
    audit = jaxfp.audit(lost, np.zeros((0, N_HIDDEN, N_HIDDEN)))
    assert not audit.complete
    assert audit.unseen_mass == 1


def test_programs_are_shared(monkeypatch):
    """The lanes of all networks move in the same calls, and a second search repeats the bits of the first."""
    calls = []
    called = side_by_side._called

    def recorded(group, n_places):
        calls.append((group[0].program.function.__name__, len(group)))
        return called(group, n_places)

    monkeypatch.setattr(side_by_side, "_called", recorded)
    again = search(*networks())
    assert calls[0] == ("_round", N_NETWORKS)
    rounds = [n for name, n in calls if name == "_round"]
    assert sum(rounds) > 1.5 * len(rounds)
    assert [bits(points) for points in again] == [bits(points) for points in found()]


def test_integers_and_keys_among_params_are_taken_along():
    """Leaves that are no weights: a count, and a key that nobody draws from."""
    params = {"gain": np.array([0.5, 1.5]), "n": np.array([1, 1]), "key": jax.random.split(jax.random.key(0), 2)}
    candidates = np.tile([[-1.0], [0.1], [1.0]], (2, 1, 1))
    found = jaxfp.find_fixed_points_ensemble(
        lambda p, h, u: jnp.where(p["n"] > 0, jnp.tanh(p["gain"] * h), 0.0), params, candidates
    )
    assert [len(points.hidden) for points in found] == [1, 3]


def test_inside_a_transformation_it_is_refused():
    """Decisions need numbers; a jit in which nothing of it is traced would compile what it calls, too."""
    params, candidates = networks()
    with pytest.raises(ValueError, match="outside jit, vmap and grad"):
        jax.jit(lambda p: jaxfp.find_fixed_points_ensemble(STEP_FN, p, candidates)[0].q)(params)
    with pytest.raises(ValueError, match="outside jit, vmap and grad"):
        jax.vmap(lambda c: jaxfp.find_fixed_points_ensemble(STEP_FN, params, c)[0].q)(candidates[None])
    with pytest.raises(ValueError, match="outside jit, vmap and grad"):
        jax.jit(lambda x: x + search(params, candidates)[0].q.sum())(1.0)


def test_what_does_not_fit_is_refused():
    params, candidates = networks()
    with pytest.raises(ValueError, match=r"candidates must be \(n_networks, n_candidates, n_hidden\)"):
        search(params, candidates[0])
    with pytest.raises(ValueError, match=r"params\['b'\] must have a leading axis of 3 networks"):
        search(params | {"b": params["b"][0]}, candidates)
    with pytest.raises(ValueError, match=r"inputs must be None, \(n_inputs,\) or"):
        jaxfp.find_fixed_points_ensemble(STEP_FN, params, candidates, INPUTS)
    with pytest.raises(ValueError, match="until must be"):
        jaxfp.find_fixed_points_ensemble(STEP_FN, params, candidates, until="tired")
