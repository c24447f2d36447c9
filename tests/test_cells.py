import doctest
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxfp.models import cells, equations

N, M, ALPHA = 5, 3, 0.3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_step(name, arrays, h, u):
    """The equations, once more: float64 NumPy, unit by unit and gate by gate."""
    d = arrays["w_in"] @ u + arrays["b"]
    blocks = [d[i : i + N] for i in range(0, len(d), N)]
    if name == "low_rank":
        w = np.array([[arrays["m"][i] @ arrays["n"][j] / N for j in range(N)] for i in range(N)])
        return h + ALPHA * (-h + w @ np.tanh(h) + d)
    products = [arrays["w_rec"][i : i + N] @ h[:N] for i in range(0, len(d), N)]
    if name == "tanh":
        return np.tanh(products[0] + d)
    if name == "relu":
        return np.maximum(products[0] + d, 0)
    if name == "rate":
        return h + ALPHA * (-h + np.tanh(products[0] + d))
    if name == "current":
        return h + ALPHA * (-h + arrays["w_rec"] @ np.tanh(h) + d)
    if name == "gru":
        rec = [product + arrays["b_rec"][i * N : (i + 1) * N] for i, product in enumerate(products)]
        r, z = sigmoid(blocks[0] + rec[0]), sigmoid(blocks[1] + rec[1])
        return (1 - z) * np.tanh(blocks[2] + r * rec[2]) + z * h
    if name == "gru_reset_before":
        r, z = (sigmoid(block + product) for block, product in zip(blocks[:2], products[:2], strict=True))
        return (1 - z) * np.tanh(blocks[2] + arrays["w_rec"][2 * N :] @ (r * h)) + z * h
    if name == "lstm":
        i, f, g, o = (block + product for block, product in zip(blocks, products, strict=True))
        c = sigmoid(f) * h[N:] + sigmoid(i) * np.tanh(g)
        return np.concatenate([sigmoid(o) * np.tanh(c), c])
    g, c = sigmoid(blocks[0] + products[0]), np.tanh(blocks[1] + products[1])
    return g * h + (1 - g) * c


EQUATIONS = {
    **equations.EQUATIONS,
    "rate": lambda arrays, h, u: equations.euler(arrays, h, u, ALPHA, "rate"),
    "current": lambda arrays, h, u: equations.euler(arrays, h, u, ALPHA, "current"),
    "low_rank": lambda arrays, h, u: equations.euler(arrays, h, u, ALPHA, "current"),
}
KINDS = {"rate": "euler", "current": "euler"}


def random_arrays(name, rng):
    kind = KINDS.get(name, name)
    rows = equations.N_GATES[kind] * N
    recurrent = {"m": (N, 2), "n": (N, 2)} if kind == "low_rank" else {"w_rec": (rows, N)}
    shapes = {**recurrent, "w_in": (rows, M), "b": (rows,), **({"b_rec": (rows,)} if kind == "gru" else {})}
    return {key: rng.normal(size=shape) for key, shape in shapes.items()}


def assert_close(actual, desired, dtype):
    """Equal up to 32 roundings: sums of ten terms of order one, twice."""
    assert actual.dtype == dtype
    tolerance = 32 * np.finfo(dtype).eps
    np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EQUATIONS)
def test_equation_is_the_formula(name, dtype):
    """Every equation equals its plain NumPy formula to rounding in float32 and float64, in and out of [-1, 1]."""
    rng = np.random.default_rng(1)
    arrays = {key: array.astype(dtype).astype(float) for key, array in random_arrays(name, rng).items()}
    size = 2 * N if name == "lstm" else N
    with jax.enable_x64(dtype == "float64"):
        typed = {key: jnp.asarray(array, dtype) for key, array in arrays.items()}
        for scale in (0.5, 3.0):
            hidden = (scale * rng.normal(size=size)).astype(dtype)
            inputs = rng.normal(size=M).astype(dtype)
            stepped = EQUATIONS[name](typed, jnp.asarray(hidden), jnp.asarray(inputs))
            assert_close(stepped, numpy_step(name, arrays, hidden.astype(float), inputs.astype(float)), dtype)


def test_no_inputs_is_zero_drive():
    """`inputs` None leaves out the input term: the same as zero inputs."""
    arrays = random_arrays("tanh", np.random.default_rng(1))
    hidden = np.linspace(-1, 1, N)
    np.testing.assert_array_equal(
        equations.vanilla(arrays, hidden, None), equations.vanilla(arrays, hidden, np.zeros(M))
    )


MODULES = {
    "rate": functools.partial(cells.EulerCell, alpha=ALPHA),
    "current": functools.partial(cells.EulerCell, alpha=ALPHA, form="current"),
    "ugrnn": cells.UGRNNCell,
    "low_rank": functools.partial(cells.LowRankCell, rank=2, alpha=ALPHA),
}


def module(name, dtype="float32"):
    """A module with the weights of `random_arrays`, and these weights in float64."""
    arrays = {key: array.astype(dtype) for key, array in random_arrays(name, np.random.default_rng(2)).items()}
    cell = nnx.eval_shape(lambda: MODULES[name](M, N, param_dtype=dtype, rngs=nnx.Rngs(0)))
    graphdef, abstract = nnx.split(cell)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), nnx.to_pure_dict(abstract)) == jax.tree.map(
        lambda array: (array.shape, dtype), arrays
    )
    cell = nnx.merge(graphdef, {key: jnp.asarray(array) for key, array in arrays.items()})
    return cell, {key: array.astype(float) for key, array in arrays.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODULES)
def test_module_is_its_equation(name, dtype):
    """A module steps every state of a batch as its equation steps one, in its arguments' dtype; out is the carry."""
    rng = np.random.default_rng(3)
    hidden, inputs = rng.normal(size=(2, 3, N)).astype(dtype), rng.normal(size=(2, 3, M)).astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        cell, arrays = module(name, dtype)
        carry, out = cell(hidden, inputs)
        np.testing.assert_array_equal(carry, out)
        desired = [
            numpy_step(name, arrays, *pair) for pair in zip(hidden.reshape(6, N), inputs.reshape(6, M), strict=True)
        ]
        assert_close(carry, np.reshape(desired, (2, 3, N)), dtype)


def test_module_runs_in_flax_rnn():
    """nnx.RNN scans our cells, from rest, as it scans flax's."""
    cell, _ = module("ugrnn")
    inputs = np.random.default_rng(4).normal(size=(2, 6, M)).astype(np.float32)
    outputs = nnx.RNN(cell)(inputs)
    hidden = cell.initialize_carry((2, M))
    np.testing.assert_array_equal(hidden, np.zeros((2, N)))
    for time in range(6):
        hidden, _ = cell(hidden, inputs[:, time])
        np.testing.assert_allclose(outputs[:, time], hidden, rtol=1e-5, atol=1e-6)  # scan fuses: other roundings


def test_initial_carry_may_be_drawn():
    """`carry_init` draws the initial state from the `carry` stream, and needs one."""
    cell, _ = module("rate")
    carry = cell.initialize_carry((4, M), nnx.Rngs(0), nnx.initializers.normal(1.0))
    assert carry.shape == (4, N)
    assert jnp.abs(carry).min() > 0
    with pytest.raises(ValueError, match="carry_init needs rngs"):
        cell.initialize_carry((4, M), carry_init=nnx.initializers.normal(1.0))


@pytest.mark.parametrize("kind", equations.N_GATES)
def test_initial_arrays_have_the_layout(kind):
    """`init_arrays` returns complete arrays of its kind, float32 by default, also for networks without inputs."""
    rank = 2 if kind == "low_rank" else None
    for n_inputs in (M, 0):
        shapes = jax.eval_shape(
            lambda key, n_inputs=n_inputs: equations.init_arrays(key, kind, N, n_inputs, rank=rank), jax.random.key(0)
        )
        arrays = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        assert {array.dtype for array in arrays.values()} == {jnp.dtype("float32")}
        checked = equations.check_arrays(kind, arrays)
        assert set(checked) - set(arrays) <= {"b_rec"}
        assert arrays["w_in"].shape == (equations.N_GATES[kind] * N, n_inputs)


def test_initial_weights_have_the_stated_scale():
    """Recurrent weights are N(0, gain^2 / N), so the spectral radius is near `gain`; input weights N(0, 1 / M)."""
    n_hidden, n_inputs = 200, 50
    arrays = equations.init_arrays(jax.random.key(3), "tanh", n_hidden, n_inputs, gain=1.5)
    # relative standard error of a standard deviation from k samples is 1 / sqrt(2 k): 0.4 % and 0.7 %, allow four
    np.testing.assert_allclose(np.std(arrays["w_rec"]), 1.5 / np.sqrt(n_hidden), rtol=0.014)
    np.testing.assert_allclose(np.std(arrays["w_in"]), 1 / np.sqrt(n_inputs), rtol=0.028)
    radius = np.abs(np.linalg.eigvals(arrays["w_rec"])).max()
    np.testing.assert_allclose(radius, 1.5, rtol=0.1)  # the circular law's edge at N = 200
    low_rank = equations.init_arrays(jax.random.key(3), "low_rank", 2000, 1, gain=1.5, rank=2)
    np.testing.assert_allclose(np.std(low_rank["m"]) / np.std(low_rank["n"]), 1.5, rtol=0.05)


@pytest.mark.parametrize(
    ("kind", "gate"), [("gru", 1), ("gru_reset_before", 1), ("lstm", 1), ("ugrnn", 0), ("tanh", None)]
)
def test_initial_bias_is_one_on_the_gate_that_keeps(kind, gate):
    """Biases are 0, but 1 where a larger value keeps more of the old state."""
    b = np.asarray(jax.jit(lambda key: equations.init_arrays(key, kind, N, 0)["b"])(jax.random.key(0)))
    biases = b.reshape(-1, N)
    np.testing.assert_array_equal(biases, np.broadcast_to(np.arange(len(biases))[:, None] == gate, biases.shape))
    if gate is None:
        return
    hidden = jnp.full(2 * N if kind == "lstm" else N, 0.9)
    still = {"w_rec": np.zeros((b.size, N), np.float32), "b_rec": np.zeros_like(b)}
    kept, lost = (equations.EQUATIONS[kind](still | {"b": bias}, hidden, None)[-1] for bias in (b, -b))
    assert kept > lost


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("kind must be one of .*'gru'.* got 'GRU'", ("GRU", N, M)),
        ("n_hidden must be >= 1", ("tanh", 0, M)),
        ("n_inputs >= 0, got 5 and -1", ("tanh", N, -1)),
        ("rank goes with", ("low_rank", N, M)),
    ],
)
def test_initial_arrays_refuse(message, arguments):
    """Unknown kinds, impossible sizes and a missing rank are ValueErrors that say so."""
    with pytest.raises(ValueError, match=message):
        equations.init_arrays(jax.random.key(0), *arguments)


def test_rank_is_checked():
    """`rank` is refused where it has no meaning or exceeds the number of units."""
    with pytest.raises(ValueError, match="rank goes with"):
        equations.init_arrays(jax.random.key(0), "tanh", N, M, rank=1)
    with pytest.raises(ValueError, match="rank must be between 1 and n_hidden = 5, got 6"):
        equations.init_arrays(jax.random.key(0), "low_rank", N, M, rank=6)


@pytest.mark.parametrize("alpha", [0.0, -0.1, np.inf, np.nan])
def test_cells_refuse_alpha(alpha):
    """A time step that is not positive and finite is a ValueError."""
    with pytest.raises(ValueError, match="alpha = dt/tau must be"):
        cells.EulerCell(M, N, alpha=alpha, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="alpha = dt/tau must be"):
        cells.LowRankCell(M, N, rank=1, alpha=alpha, rngs=nnx.Rngs(0))


def test_cells_refuse_form():
    """A form other than rate and current is a ValueError."""
    with pytest.raises(ValueError, match='form must be "rate" or "current", got \'activity\''):
        cells.EulerCell(M, N, alpha=0.1, form="activity", rngs=nnx.Rngs(0))


def test_examples_run():
    """The examples in the docstrings call what they show."""
    assert [doctest.testmod(module).failed for module in (cells, equations)] == [0, 0]
