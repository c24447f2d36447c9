import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems

from jaxfp import pipeline, program


def in_jit(params, hidden, inputs):
    return jax.jit(systems.narrow, static_argnums=2)(params, hidden, inputs)


def in_scan(params, hidden, inputs):
    return jax.lax.scan(lambda h, _: (systems.narrow(params, h, None), None), hidden, length=2)[0]


def in_branch(params, hidden, inputs):
    return jax.lax.cond(hidden[0] > 0, lambda h: systems.narrow(params, h, None), lambda h: h, hidden)


def brain_float(params, hidden, inputs):
    return jnp.tanh(params.astype(jnp.bfloat16) @ hidden.astype(jnp.bfloat16)).astype(hidden.dtype)


def reduces(params, hidden, inputs):
    return jax.lax.reduce_precision(params @ hidden, exponent_bits=8, mantissa_bits=23)


def with_narrow_constant(params, hidden, inputs):
    return hidden * jnp.ones(3, jnp.float32).astype(hidden.dtype) + jnp.arange(3).astype(hidden.dtype)


@pytest.mark.parametrize(
    ("step_fn", "precision"),
    [
        (systems.tanh_row, "float64"),
        (systems.narrow, "float32"),
        (in_jit, "float32"),
        (in_scan, "float32"),
        (in_branch, "float32"),
        (brain_float, "bfloat16"),
        (reduces, "float32"),
        (with_narrow_constant, "float64"),
    ],
)
def test_precision_is_the_narrowest_cast_at_any_depth(step_fn, precision):
    """A cast down is found in calls, loops and branches; widening a narrow constant or an integer is none."""
    with jax.enable_x64(True):
        read = program.read(step_fn, jnp.eye(3), jnp.zeros(3), None)
    assert read.precision == precision
    assert read.random is None


def noisy_in_scan(params, hidden, inputs):
    return jax.lax.scan(lambda h, _: (systems.noisy(params, h, None), None), hidden, length=2)[0]


def dropout(params, hidden, inputs):
    return hidden * jax.random.bernoulli(params["key"], 0.5, hidden.shape).astype(hidden.dtype)


@pytest.mark.parametrize(
    ("step_fn", "params"), [(systems.noisy, 0.5), (noisy_in_scan, 0.5), (dropout, {"key": jax.random.key(0)})]
)
def test_random_numbers_are_seen_wherever_they_are_drawn(step_fn, params):
    """A step that draws, with its own key or a given one, inside a loop too, names its random primitive."""
    assert program.read(step_fn, params, jnp.zeros(3), None).random is not None
    assert program.read(systems.identity, params, jnp.zeros(3), None).random is None


def test_a_step_that_changes_its_state_is_refused():
    """A new state of another shape, or one that is no array, is said."""
    with pytest.raises(ValueError, match=r"must return the shape of hidden, \(3,\), it returned \(2,\)"):
        program.read(systems.loses_a_unit, None, jnp.zeros(3), None)
    with pytest.raises(ValueError, match=r"must return the shape of hidden, \(3,\), it returned tuple"):
        program.read(lambda p, h, u: (h, h), None, jnp.zeros(3), None)


def test_fingerprints_are_of_what_is_computed():
    """Constants inside, a changed number, another shape: other words; another name: the same."""
    shape, table = jax.ShapeDtypeStruct((2,), jnp.float32), np.arange(2, dtype=np.float32)
    steps = [lambda h: h + 1, lambda h: h + 2, lambda h: h + table, lambda h: h + 2 * table, jax.nn.relu, jax.nn.silu]
    words = [program.fingerprint(step, shape) for step in steps]
    assert len(set(words)) == len(words)
    assert [program.fingerprint(step, shape) for step in steps] == words
    assert program.fingerprint(lambda x: x + 1, shape) == words[0]
    assert program.fingerprint(jax.jit(lambda x: jax.nn.relu(x)), shape) != words[0]
    assert program.fingerprint(steps[0], jax.ShapeDtypeStruct((3,), jnp.float32)) != words[0]


def nested_gate(params, hidden, inputs):
    return jax.jit(lambda h: jax.nn.silu(h) + jax.nn.relu(h))(hidden)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gate_margin_is_the_distance_of_the_most_saturated_gate(dtype):
    """gate_margin = min(g, 1 - g) over all sigmoids, the closed form 1 / (1 + e^|x|), under jit, vmap and in calls."""
    with jax.enable_x64(dtype == "float64"):
        eye = jnp.eye(2, dtype=dtype)
        hidden = jnp.array([[0.0, 1.0], [-3.0, 2.0]], dtype)
        params = {"V": eye, "W": eye, "c": jnp.zeros(2, dtype)}
        expected = 1 / (1 + np.exp(np.abs(hidden).max(1)))
        margin = jax.jit(jax.vmap(lambda h: program.gate_margin(systems.gated, params, h, None)))(hidden)
        np.testing.assert_allclose(margin, expected, rtol=8 * np.finfo(dtype).eps)  # cancellation of 1 - g at g = 0.95
        nested = program.gate_margin(nested_gate, None, hidden[1], None)
        np.testing.assert_allclose(nested, expected[1], rtol=64 * np.finfo(dtype).eps)
        assert margin.dtype == nested.dtype == dtype


def test_gate_margin_without_gates_is_infinite():
    """A step without sigmoids has no gate to saturate, however large its state."""
    assert program.gate_margin(systems.tanh_row, 1e3 * jnp.eye(2), jnp.ones(2), None) == np.inf


def exp_gate(params, hidden, inputs):
    """One step with the gate written out: z = 1 / (1 + exp(-x))."""
    z = 1 / (1 + jnp.exp(-(hidden + params)))
    return z * hidden + (1 - z) * jnp.tanh(hidden)


def tanh_gate(params, hidden, inputs):
    """One step with the gate as z = 1/2 + 1/2 tanh(x / 2)."""
    z = 0.5 + 0.5 * jnp.tanh((hidden + params) / 2)
    return z * hidden + (1 - z) * jnp.tanh(hidden)


@pytest.mark.parametrize("step", [exp_gate, tanh_gate])
def test_a_gate_is_known_however_it_is_written(step):
    """Gates by exp and by tanh have the margin 1 / (1 + e^|x|), too, and saturated ones give no fixed points."""
    with jax.enable_x64(True):
        for x in (-3.0, 0.5, 8.0):
            margin = program.gate_margin(step, x, jnp.zeros(2), None)
            np.testing.assert_allclose(margin, 1 / (1 + np.exp(abs(x))), rtol=1e-10)  # 1 - tanh cancels 4 digits at 8
    starts = np.random.default_rng(0).uniform(-1, 1, (16, 2))
    points = pipeline.find_fixed_points(step, 60.0, starts, chunk_size=16)
    assert len(points.hidden) == 0
    assert points.report.counts["REJECTED"] == 16
