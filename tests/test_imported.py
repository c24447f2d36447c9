"""Weights of PyTorch and Keras make the same map here: their own steps are in tests/data (see make_layers.py there)."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfp

FOLDER = pathlib.Path(__file__).parent / "data"
TORCH = {"tanh": "tanh", "relu": "relu", "gru": "gru", "lstm": "lstm", "gru_no_bias": "gru"}
KERAS = {"tanh": "tanh", "relu": "relu", "gru": "gru", "gru_reset_before": "gru", "lstm": "lstm"}
TOLERANCE = 64 * np.finfo(np.float32).eps  # three steps of sums of five terms of order one, theirs and ours


def layer(library, name):
    """(weights by their names, what is common) of a layer."""
    stored = dict(np.load(FOLDER / f"layers_{library}.npz"))
    weights = {key.removeprefix(f"{name}/"): array for key, array in stored.items() if key.startswith(f"{name}/")}
    return weights, weights.pop("states"), stored


def error(step_fn, params, states, common):
    """Largest difference from the states that the library's own layer goes through."""
    lstm = states.shape[1] > len(common["hidden"])
    hidden = np.concatenate([common["hidden"], common["memory"]]) if lstm else common["hidden"]
    differences = []
    for u, state in zip(common["inputs"], states, strict=True):
        hidden = step_fn(params, jnp.asarray(hidden), jnp.asarray(u))
        differences.append(np.abs(hidden - state).max())
    return max(differences)


@pytest.mark.parametrize("name", TORCH)
def test_torch_layer_is_the_same_map(name):
    weights, states, common = layer("torch", name)
    step_fn, params = jaxfp.from_torch(weights, cell=TORCH[name])
    assert error(step_fn, params, states, common) < TOLERANCE
    assert all(isinstance(array, np.ndarray) for array in params.values())


@pytest.mark.parametrize("name", KERAS)
def test_keras_layer_is_the_same_map(name):
    weights, states, common = layer("keras", name)
    step_fn, params = jaxfp.from_keras(list(weights.values()), cell=KERAS[name])
    assert error(step_fn, params, states, common) < TOLERANCE


def test_a_wrong_layout_is_another_map():
    """The vectors tell: gates in Keras's order, biases of a GRU added, the other GRU."""
    weights, states, common = layer("torch", "gru")
    exchanged = {key: np.concatenate([*np.split(array, 3)[1::-1], array[-3:]]) for key, array in weights.items()}
    assert error(*jaxfp.from_torch(exchanged, cell="gru"), states, common) > 1e-2
    added = {**weights, "bias_ih_l0": weights["bias_ih_l0"] + weights["bias_hh_l0"], "bias_hh_l0": np.zeros(9)}
    assert error(*jaxfp.from_torch(added, cell="gru"), states, common) > 1e-2
    kernel, recurrent, bias = layer("keras", "gru_reset_before")[0].values()
    other = jaxfp.from_keras([kernel, recurrent, np.stack([bias, 0 * bias])], cell="gru")
    assert error(*other, *layer("keras", "gru_reset_before")[1:]) > 1e-2


def test_a_layer_is_found_by_its_prefix_and_number():
    rng = np.random.default_rng(0)
    arrays = {
        f"{prefix}weight_{part}_l{number}": rng.normal(size=(2, 2))
        for prefix in ("encoder.", "rnn.")
        for part in ("ih", "hh")
        for number in (0, 1)
    }
    _, params = jaxfp.from_torch(arrays | {"head.weight": np.ones((1, 2))}, cell="tanh", layer=1, prefix="rnn.")
    np.testing.assert_array_equal(params["w_rec"], arrays["rnn.weight_hh_l1"])
    np.testing.assert_array_equal(params["w_in"], arrays["rnn.weight_ih_l1"])
    with pytest.raises(ValueError, match=r"state_dict must hold one array weight_hh or weight_hh_l0, got \['encoder"):
        jaxfp.from_torch(arrays, cell="tanh")
    with pytest.raises(ValueError, match=r"weight_hh_l2 with prefix 'rnn\.'"):
        jaxfp.from_torch(arrays, cell="tanh", layer=2, prefix="rnn.")
    cell = {"weight_hh": np.eye(2), "weight_ih": np.ones((2, 1)), "bias_ih": np.ones(2), "bias_hh": np.ones(2)}
    np.testing.assert_array_equal(jaxfp.from_torch(cell, cell="relu")[1]["b"], [2, 2])
    with pytest.raises(ValueError, match="projections are not supported"):
        jaxfp.from_torch(cell | {"weight_hr": np.eye(2)}, cell="lstm")


def test_keras_says_what_nothing_tells():
    kernel, recurrent, bias = np.ones((1, 6)), np.ones((2, 6)), np.ones(6)
    with pytest.raises(ValueError, match="reset_after must be given"):
        jaxfp.from_keras([kernel, recurrent], cell="gru")
    for after, kind in ((True, "gru"), (False, "gru_reset_before")):
        assert jaxfp.from_keras([kernel, recurrent], cell="gru", reset_after=after)[0].kind == kind
    with pytest.raises(ValueError, match=r"reset_after=True must be \(2, 6\), got \(6,\)"):
        jaxfp.from_keras([kernel, recurrent, bias], cell="gru", reset_after=True)
    with pytest.raises(ValueError, match=r'reset_after must be True or False, of cell="gru"'):
        jaxfp.from_keras([kernel, recurrent], cell="tanh", reset_after=True)
    with pytest.raises(ValueError, match=r"kernel must be \(n, 4 \* n_hidden\), got \(1, 6\)"):
        jaxfp.from_keras([kernel, recurrent], cell="lstm")
