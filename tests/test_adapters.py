import doctest
import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxfp.models import adapters, cells, equations, flax_adapters

N, M = 5, 3
NNX_CELLS = (nnx.SimpleCell, nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell)
LINEN_CELLS = (nn.SimpleCell, nn.GRUCell, nn.MGUCell, nn.LSTMCell, nn.OptimizedLSTMCell)
LSTMS = (nnx.LSTMCell, nnx.OptimizedLSTMCell, nn.LSTMCell, nn.OptimizedLSTMCell)
KINDS = {
    "tanh": {},
    "gru": {},
    "gru_reset_before": {},
    "lstm": {},
    "ugrnn": {},
    "euler": {"alpha": 0.3, "form": "rate"},
    "euler_current": {"alpha": 0.3, "form": "current"},
    "low_rank": {"alpha": 0.3},
}


def randomized(tree, scale=1.0, seed=0):
    """Like `tree`, arrays or their shapes alone, with every leaf, biases included, drawn anew."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), tree)


def nnx_cell(cell_type, scale=1.0, seed=0, **options):
    graphdef, state = nnx.split(nnx.eval_shape(lambda: cell_type(M, N, rngs=nnx.Rngs(0), **options)))
    return nnx.merge(graphdef, randomized(state, scale, seed))


def linen_cell(cell_type, scale=1.0, seed=0, **options):
    cell = cell_type(features=N, **options)
    carry = jax.eval_shape(lambda: cell.initialize_carry(jax.random.key(0), (M,)))
    shapes = jax.eval_shape(lambda carry: cell.init(jax.random.key(0), carry, jnp.zeros(M)), carry)
    return cell, randomized(shapes, scale, seed)


def from_kind(name, scale=1.0, seed=0):
    kind = "euler" if name == "euler_current" else name
    rank = 2 if kind == "low_rank" else None
    shapes = jax.eval_shape(lambda: equations.init_arrays(jax.random.key(0), kind, N, M, rank=rank))
    if kind == "gru":
        shapes["b_rec"] = shapes["b"]
    return adapters.from_arrays(kind, randomized(shapes, scale, seed), **KINDS[name])


def widened(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def assert_same_orbit(step_fn, params, cell_step, carry_of, is_lstm, dtype):
    """Three steps from states inside and far outside [-1, 1] agree with the cell's own, to float rounding."""
    rng = np.random.default_rng(7)
    tolerance = 32 * np.finfo(dtype).eps
    for scale in (0.5, 4.0):
        hidden = jnp.asarray(scale * rng.normal(size=2 * N if is_lstm else N), dtype)
        carry = carry_of(hidden)
        for inputs in jnp.asarray(rng.normal(size=(3, M)), dtype):
            hidden, carry = step_fn(params, hidden, inputs), cell_step(carry, inputs)
            desired = jnp.concatenate(carry[::-1]) if is_lstm else carry
            assert hidden.dtype == dtype
            np.testing.assert_allclose(hidden, desired, rtol=tolerance, atol=tolerance)


def carry_of(is_lstm):
    return (lambda hidden: (hidden[N:], hidden[:N])) if is_lstm else (lambda hidden: hidden)


@pytest.mark.parametrize("cell_type", NNX_CELLS)
def test_nnx_step_is_the_cell_in_float32(cell_type):
    """from_nnx steps as flax's own cell does; an LSTM's state is (h, c) although flax keeps (c, h)."""
    cell = nnx_cell(cell_type)
    is_lstm = cell_type in LSTMS
    step_fn, params = flax_adapters.from_nnx(cell)
    assert_same_orbit(step_fn, params, lambda c, u: cell(c, u)[0], carry_of(is_lstm), is_lstm, "float32")


@pytest.mark.parametrize("cell_type", NNX_CELLS)
@pytest.mark.parametrize("options", [{}, {"dtype": jnp.float32}])
def test_nnx_step_has_all_digits_in_float64(cell_type, options):
    """In float64 the adapter's copy computes in float64, with SimpleCell's default or an explicit float32, too."""
    cell = nnx_cell(cell_type, **options)
    is_lstm = cell_type in LSTMS
    step_fn, params = flax_adapters.from_nnx(cell)
    with jax.enable_x64(True):
        cell64 = nnx_cell(cell_type, dtype=jnp.float64, param_dtype=jnp.float64)
        nnx.update(cell64, widened(nnx.state(cell)))
        assert_same_orbit(step_fn, widened(params), lambda c, u: cell64(c, u)[0], carry_of(is_lstm), is_lstm, "float64")


@pytest.mark.parametrize("cell_type", LINEN_CELLS)
def test_linen_step_is_the_cell_in_float32(cell_type):
    """from_linen steps as flax's own cell does; an LSTM's state is (h, c) although flax keeps (c, h)."""
    cell, variables = linen_cell(cell_type)
    is_lstm = cell_type in LSTMS
    step_fn, params = flax_adapters.from_linen(cell, variables)
    assert_same_orbit(
        step_fn, params, lambda c, u: cell.apply(variables, c, u)[0], carry_of(is_lstm), is_lstm, "float32"
    )


@pytest.mark.parametrize("cell_type", LINEN_CELLS)
@pytest.mark.parametrize("options", [{}, {"dtype": jnp.float32}])
def test_linen_step_has_all_digits_in_float64(cell_type, options):
    """In float64 the adapter's copy computes in float64, whether the compute dtype was None or float32."""
    cell, variables = linen_cell(cell_type, **options)
    is_lstm = cell_type in LSTMS
    step_fn, params = flax_adapters.from_linen(cell, variables)
    with jax.enable_x64(True):
        cell64, params64 = cell_type(features=N, dtype=jnp.float64), widened(variables)
        assert_same_orbit(
            step_fn,
            widened(params),
            lambda c, u: cell64.apply(params64, c, u)[0],
            carry_of(is_lstm),
            is_lstm,
            "float64",
        )


OWN_CELLS = {
    "ugrnn": cells.UGRNNCell,
    "euler": functools.partial(cells.EulerCell, alpha=0.3),
    "euler_current": functools.partial(cells.EulerCell, alpha=0.3, form="current"),
    "low_rank": functools.partial(cells.LowRankCell, rank=2, alpha=0.3),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OWN_CELLS)
def test_own_cells_step_as_modules(name, dtype):
    """from_nnx steps our cells as they step themselves, in float32 and float64."""
    with jax.enable_x64(dtype == "float64"):
        cell = nnx_cell(OWN_CELLS[name], param_dtype=dtype)
        step_fn, params = flax_adapters.from_nnx(cell)
        assert_same_orbit(step_fn, params, lambda c, u: cell(c, u)[0], carry_of(False), False, dtype)
        assert step_fn == from_kind(name)[0]


def test_low_precision_compute_is_kept():
    """A compute dtype below float32 is the user's choice: the step equals that cell, and returns hidden's dtype."""
    cell = nnx_cell(nnx.SimpleCell, dtype=jnp.bfloat16)
    variables = linen_cell(nn.SimpleCell)[1]
    coarse = nn.SimpleCell(features=N, dtype=jnp.bfloat16)
    hidden, inputs = jnp.linspace(-1, 1, N), jnp.linspace(-1, 1, M)
    for (step_fn, params), desired in (
        (flax_adapters.from_nnx(cell), cell(hidden, inputs)[0]),
        (flax_adapters.from_linen(coarse, variables), coarse.apply(variables, hidden, inputs)[0]),
    ):
        assert desired.dtype == jnp.bfloat16
        stepped = step_fn(params, hidden, inputs)
        assert stepped.dtype == jnp.float32
        np.testing.assert_array_equal(stepped, desired.astype(jnp.float32))


def gates_of(kernel):
    return [kernel[:, i : i + N].T for i in range(0, kernel.shape[1], N)]


def gru_arrays(params, order=(0, 1, 2)):
    """Flax's fused GRU kernels (in, 3 N) as rows of gates r, z, n, in `order`."""
    w_rec, w_in = gates_of(params["dense_h"]["kernel"]), gates_of(params["dense_i"]["kernel"])
    b = np.split(np.asarray(params["dense_i"]["bias"]), 3)
    return {
        name: np.concatenate([gates[i] for i in order]) for name, gates in (("w_rec", w_rec), ("w_in", w_in), ("b", b))
    }


def lstm_arrays(params, order=(0, 1, 2, 3)):
    """Flax's fused LSTM kernels (in, 4 N) as rows of gates i, f, g, o, in `order`."""
    w_rec, w_in = gates_of(params["dense_h"]["kernel"]), gates_of(params["dense_i"]["kernel"])
    b = np.split(np.asarray(params["dense_h"]["bias"]), 4)
    return {
        name: np.concatenate([gates[i] for i in order]) for name, gates in (("w_rec", w_rec), ("w_in", w_in), ("b", b))
    }


@pytest.mark.parametrize(
    ("kind", "cell_type", "arrays_of"),
    [("gru", nnx.GRUCell, gru_arrays), ("lstm", nnx.OptimizedLSTMCell, lstm_arrays)],
)
def test_arrays_have_the_stated_layout(kind, cell_type, arrays_of):
    """Flax's weights, carried over gate by gate, give flax's map; with any two gates swapped they do not."""
    cell = nnx_cell(cell_type)
    reference, params = flax_adapters.from_nnx(cell)
    size = 2 * N if kind == "lstm" else N
    hidden, inputs = jnp.linspace(-1, 1, size), jnp.linspace(-1, 2, M)
    desired = reference(params, hidden, inputs)
    n_gates = equations.N_GATES[kind]
    for order in itertools.permutations(range(n_gates)):
        step_fn, arrays = adapters.from_arrays(kind, arrays_of(params, order))
        error = jnp.abs(step_fn(arrays, hidden, inputs) - desired).max()
        assert (error < 1e-5) == (order == tuple(range(n_gates)))


def test_gru_has_both_biases():
    """Linen's GRU, whose candidate has a recurrent bias inside the reset gate, is `b` and `b_rec`."""
    cell, variables = linen_cell(nn.GRUCell)
    layers = variables["params"]
    stack = {
        "w_rec": jnp.concatenate([layers[name]["kernel"].T for name in ("hr", "hz", "hn")]),
        "w_in": jnp.concatenate([layers[name]["kernel"].T for name in ("ir", "iz", "in")]),
        "b": jnp.concatenate([layers[name]["bias"] for name in ("ir", "iz", "in")]),
        "b_rec": jnp.concatenate([jnp.zeros(2 * N), layers["hn"]["bias"]]),
    }
    step_fn, params = adapters.from_arrays("gru", stack)
    assert_same_orbit(step_fn, params, lambda c, u: cell.apply(variables, c, u)[0], carry_of(False), False, "float32")
    moved = stack | {"b": stack["b"] + stack["b_rec"], "b_rec": jnp.zeros(3 * N)}  # out of the reset gate's reach
    hidden = jnp.linspace(-1, 1, N)
    assert jnp.abs(step_fn(moved, hidden, None) - step_fn(params, hidden, None)).max() > 1e-2


def test_arrays_keep_their_dtype():
    """NumPy float64 stays NumPy float64 with x64 off; what is filled in has the dtype of the recurrent weights."""
    step_fn, params = adapters.from_arrays("gru", {"w_rec": np.eye(3 * N, N), "w_in": np.ones((3 * N, M))})
    for array in params.values():
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.float64
    assert step_fn(params, np.zeros(N), np.ones(M)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert step_fn(params, np.zeros(N), np.ones(M)).dtype == jnp.float64


def test_arrays_may_lack_inputs_and_biases():
    """Without `w_in` and `b` a network has no inputs and zero biases."""
    w_rec = np.array([[0.0, 2.0], [-1.0, 0.5]])
    step_fn, params = adapters.from_arrays("tanh", {"w_rec": w_rec})
    hidden = np.array([0.3, -0.7])
    np.testing.assert_allclose(step_fn(params, hidden, None), np.tanh(w_rec @ hidden), rtol=1e-6)
    with pytest.raises(ValueError, match=r"inputs must be None or of shape \(n_inputs,\) = \(0,\), got \(1,\)"):
        step_fn(params, hidden, jnp.ones(1))


def all_adapted():
    for name in KINDS:
        yield name, from_kind(name, scale=3.0)
    for cell_type in NNX_CELLS:
        yield f"nnx.{cell_type.__name__}", flax_adapters.from_nnx(nnx_cell(cell_type, scale=3.0))
    for cell_type in LINEN_CELLS:
        yield f"linen.{cell_type.__name__}", flax_adapters.from_linen(*linen_cell(cell_type, scale=3.0))


ADAPTED = [pytest.param(*pair, id=name) for name, pair in all_adapted()]


@pytest.mark.parametrize(("step_fn", "params"), ADAPTED)
def test_box_maps_into_itself(step_fn, params):
    """States in the box, its corners above all, step into the box, at strong weights and inputs."""
    assert step_fn.bounded
    rng = np.random.default_rng(5)
    inputs = np.array([1.5, -2.0, 0.5])
    lower, upper = map(np.asarray, jax.jit(step_fn.box)(params, inputs))
    places = np.concatenate([rng.integers(2, size=(500, lower.size)), rng.uniform(size=(500, lower.size))])
    step = jax.jit(jax.vmap(step_fn, in_axes=(None, 0, None)))
    stepped = np.asarray(step(params, np.float32(lower + places * (upper - lower)), inputs))
    room = 1e-6 * (1 + np.abs(upper) + np.abs(lower))  # float32 rounding of the step and of the box
    assert (stepped >= lower - room).all()
    assert (stepped <= upper + room).all()


@pytest.mark.parametrize("name", ["euler", "euler_current"])
def test_overlong_time_step_leaves_the_box(name):
    """With alpha > 1 the box of alpha <= 1 is left, and the step says that it is not bounded."""
    options = KINDS[name]
    _, params = from_kind(name, scale=3.0)
    lower, upper = map(np.asarray, adapters.from_arrays("euler", params, **options)[0].box(params, None))
    step_fn, _ = adapters.from_arrays("euler", params, **(options | {"alpha": 1.5}))
    assert not step_fn.bounded
    places = np.array(list(itertools.product((0, 1), repeat=N)), np.float32)
    corners = lower + places * (upper - lower)
    stepped = np.asarray(jax.vmap(step_fn, in_axes=(None, 0, None))(params, corners, None))
    assert ((stepped < lower) | (stepped > upper)).any()
    assert adapters.from_arrays("euler", params, **(options | {"alpha": 1.0}))[0].bounded


def test_lstm_box_is_reached():
    """Gates that stay open take c to the box's limit 1 / (1 - f): a box a thousandth smaller would be wrong."""
    bias = np.repeat([30.0, 2.0, 30.0, 0.0], N)
    step_fn, params = adapters.from_arrays("lstm", {"w_rec": np.zeros((4 * N, N)), "b": bias})
    limit = 1 / (1 - 1 / (1 + np.exp(-2.0)))
    lower, upper = step_fn.box(params, None)
    np.testing.assert_allclose(upper, np.repeat([1.0, limit], N), rtol=1e-6)
    np.testing.assert_array_equal(lower, -upper)
    hidden = jnp.zeros(2 * N)
    for _ in range(100):
        hidden = step_fn(params, hidden, None)
    assert (hidden[N:] > 0.999 * upper[N:]).all()
    assert (hidden[N:] <= upper[N:] * (1 + 1e-6)).all()


def test_current_box_is_reached():
    """A saturated network comes to the end of the current form's box, d + sum |W|: no smaller box would do."""
    w_rec = np.full((2, 2), 5.0)
    step_fn, params = adapters.from_arrays(
        "euler", {"w_rec": w_rec, "w_in": np.eye(2), "b": np.ones(2)}, alpha=0.5, form="current"
    )
    lower, upper = step_fn.box(params, jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(lower, [-9.0, -8.0])
    np.testing.assert_allclose(upper, [11.0, 12.0])
    hidden = jnp.zeros(2)
    for _ in range(60):
        hidden = step_fn(params, hidden, jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(hidden, upper, rtol=1e-6)


def test_lstm_boxes_agree():
    """One LSTM, given as flax's two nnx cells, as linen's and as arrays, has one box."""
    fused = nnx_cell(nnx.OptimizedLSTMCell)
    step_fn, params = flax_adapters.from_nnx(fused)
    kernels = {gate: gates_of(params["dense_i"]["kernel"])[i].T for i, gate in enumerate("ifgo")}
    recurrent = {gate: gates_of(params["dense_h"]["kernel"])[i].T for i, gate in enumerate("ifgo")}
    biases = dict(zip("ifgo", jnp.split(params["dense_h"]["bias"], 4), strict=True))
    layers = {f"i{gate}": {"kernel": kernels[gate]} for gate in "ifgo"}
    layers |= {f"h{gate}": {"kernel": recurrent[gate], "bias": biases[gate]} for gate in "ifgo"}
    inputs = jnp.array([0.5, -1.0, 2.0])
    desired = step_fn.box(params, inputs)[1]
    split = flax_adapters.from_nnx(nnx_cell(nnx.LSTMCell))[0]
    linen = flax_adapters.from_linen(nn.LSTMCell(features=N), {"params": layers})[0]
    nnx_layers = {("if_" if name == "if" else name): layer for name, layer in layers.items()}
    arrays_step, arrays = adapters.from_arrays("lstm", lstm_arrays(params))
    for actual in (
        split.box(nnx_layers, inputs)[1],
        linen.box({"params": layers}, inputs)[1],
        arrays_step.box(arrays, inputs)[1],
    ):
        np.testing.assert_allclose(actual, desired, rtol=1e-5)  # exp() of sums taken in another order


class LoRALinear(nnx.Linear):
    """A user's layer."""


def with_foreign_layer():
    cell = nnx_cell(nnx.LSTMCell)
    cell.hf = LoRALinear(N, N, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
    return flax_adapters.from_nnx(cell)


@pytest.mark.parametrize(
    "adapt",
    [
        lambda: adapters.from_arrays("relu", {"w_rec": np.eye(N)}),
        lambda: flax_adapters.from_nnx(nnx_cell(nnx.SimpleCell, activation_fn=nnx.relu)),
        lambda: flax_adapters.from_nnx(nnx_cell(nnx.SimpleCell, residual=True)),
        lambda: flax_adapters.from_nnx(nnx_cell(nnx.GRUCell, gate_fn=nnx.relu)),
        lambda: flax_adapters.from_nnx(nnx_cell(nnx.GRUCell, activation_fn=nnx.identity)),
        with_foreign_layer,
        lambda: flax_adapters.from_linen(*linen_cell(nn.SimpleCell, activation_fn=nn.relu)),
        lambda: flax_adapters.from_linen(*linen_cell(nn.SimpleCell, residual=True)),
        lambda: flax_adapters.from_linen(*linen_cell(nn.LSTMCell, gate_fn=nn.softplus)),
        lambda: flax_adapters.from_nnx(Stacked()),
    ],
)
def test_unknown_maps_are_not_bounded(adapt):
    """ReLU, other activations and gates, residual cells, changed layers and unknown modules claim no box."""
    step_fn, params = adapt()
    assert not step_fn.bounded
    with pytest.raises(ValueError, match="no known box"):
        step_fn.box(params, None)


class Stacked(nnx.Module):
    """Two cells, one on the other; the carry is a dict of a matrix and a vector."""

    in_features = M

    def __init__(self):
        self.first = nnx_cell(nnx.GRUCell)
        self.second = nnx_cell(nnx.SimpleCell, seed=1)

    def initialize_carry(self, input_shape, rngs):
        return {"upper": jnp.zeros((1, N)), "lower": jnp.zeros(N)}

    def __call__(self, carry, inputs):
        lower, out = self.first(carry["lower"], inputs)
        upper, out = self.second(carry["upper"].ravel(), out[:M])
        return {"upper": upper.reshape(1, N), "lower": lower}, out


def test_pytree_carry_is_flattened_in_tree_order():
    """A module of unknown type works; its state is the carry's leaves in the order of jax.tree.leaves."""
    cell = Stacked()
    step_fn, params = flax_adapters.from_nnx(cell)
    hidden, inputs = jnp.linspace(-1, 1, 2 * N), jnp.ones(M)
    carry, _ = cell({"lower": hidden[:N], "upper": hidden[N:].reshape(1, N)}, inputs)
    desired = jnp.concatenate([carry["lower"], carry["upper"].ravel()])
    np.testing.assert_allclose(step_fn(params, hidden, inputs), desired, rtol=1e-6)


@pytest.mark.parametrize(
    "adapt",
    [
        lambda seed: flax_adapters.from_nnx(nnx_cell(nnx.LSTMCell, seed=seed)),
        lambda seed: flax_adapters.from_nnx(nnx_cell(nnx.SimpleCell, seed=seed)),
        lambda seed: flax_adapters.from_nnx(nnx_cell(OWN_CELLS["euler"], seed=seed)),
        lambda seed: flax_adapters.from_linen(*linen_cell(nn.OptimizedLSTMCell, seed=seed)),
        lambda seed: from_kind("low_rank", seed=seed),
    ],
)
def test_equal_cells_are_traced_once(adapt):
    """Two cells built alike, with other weights, are equal step functions: a jit traces once; another kind again."""
    n_traces = 0

    @functools.partial(jax.jit, static_argnums=0)
    def run(step_fn, params, hidden):
        nonlocal n_traces
        n_traces += 1
        return step_fn(params, hidden, None)

    outputs = []
    for seed in (0, 1):
        step_fn, params = adapt(seed)
        hidden = jnp.full(step_fn.box(params, None)[0].size, 0.5)
        outputs.append(run(step_fn, params, hidden))
    assert n_traces == 1
    assert jnp.abs(outputs[0] - outputs[1]).max() > 1e-3
    run(*from_kind("ugrnn"), jnp.zeros(N))
    assert n_traces == 2


def test_unequal_cells_differ():
    """Step functions of different equations, time steps or activations are not equal, also in one and the same box."""
    arrays = {"w_rec": np.eye(2)}
    steps = {
        adapters.from_arrays("tanh", arrays)[0],
        adapters.from_arrays("relu", arrays)[0],
        adapters.from_arrays("euler", arrays, alpha=0.1)[0],
        adapters.from_arrays("euler", arrays, alpha=0.2)[0],
        adapters.from_arrays("euler", arrays, alpha=0.2, form="current")[0],
        flax_adapters.from_nnx(nnx_cell(nnx.SimpleCell))[0],
        flax_adapters.from_nnx(nnx_cell(nnx.GRUCell))[0],
        flax_adapters.from_nnx(nnx_cell(nnx.SimpleCell, activation_fn=nnx.relu))[0],
        flax_adapters.from_linen(*linen_cell(nn.SimpleCell))[0],
        flax_adapters.from_linen(*linen_cell(nn.MGUCell))[0],
        flax_adapters.from_linen(*linen_cell(nn.SimpleCell, activation_fn=nn.relu))[0],
    }
    assert len(steps) == 11


@pytest.mark.parametrize(("step_fn", "params"), ADAPTED)
def test_no_inputs_is_zero_drive(step_fn, params):
    """`inputs` None steps as zero inputs of the cell's width do."""
    hidden = jnp.linspace(-0.9, 0.9, step_fn.box(params, None)[0].size)
    zero_drive = step_fn(params, hidden, jnp.zeros(M))
    np.testing.assert_allclose(step_fn(params, hidden, None), zero_drive, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("step_fn", "params"), ADAPTED)
def test_wrong_widths_are_refused(step_fn, params):
    """States and inputs of a wrong width, batches and integer states are ValueErrors while tracing."""
    n_hidden = step_fn.box(params, None)[0].size
    trace = functools.partial(jax.eval_shape, step_fn, params)
    with pytest.raises(ValueError, match=r"inputs must be None or .* = \(3,\), got \(4,\)"):
        trace(jnp.zeros(n_hidden), jnp.zeros(4))
    with pytest.raises(ValueError, match=rf"\(n_hidden,\) = \({n_hidden},\), got float32\({n_hidden + 1},\)"):
        trace(jnp.zeros(n_hidden + 1), None)
    with pytest.raises(ValueError, match="hidden must be"):
        trace(jnp.zeros((2, n_hidden)), None)
    with pytest.raises(ValueError, match="got int32"):
        trace(jnp.zeros(n_hidden, int), None)
    with pytest.raises(ValueError, match="inputs must be None or"):
        step_fn.box(params, jnp.zeros(4)) if "w_in" not in params else trace(jnp.zeros(n_hidden), jnp.zeros((2, M)))


@pytest.mark.parametrize(
    ("message", "kind", "arrays", "options"),
    [
        ("kind must be one of .* got 'GRU'", "GRU", {"w_rec": np.eye(2)}, {}),
        (r"must be \['w_rec'\] and optionally \['b', 'w_in'\], got \['b'\]", "tanh", {"b": np.zeros(2)}, {}),
        (r"got \['b_rec', 'w_rec'\]", "tanh", {"w_rec": np.eye(2), "b_rec": np.zeros(2)}, {}),
        (r"w_rec must be \(n_hidden, n_hidden\), got \(2, 3\)\.", "tanh", {"w_rec": np.ones((2, 3))}, {}),
        (
            r"w_rec must be \(3 \* n_hidden, n_hidden\), got \(2, 6\) \(is it transposed",
            "gru",
            {"w_rec": np.ones((2, 6))},
            {},
        ),
        (
            r"w_in must be \(n_hidden, n_inputs\) = \(2, n_inputs\), got \(3, 2\) \(is it transposed\?\)",
            "tanh",
            {"w_rec": np.eye(2), "w_in": np.ones((3, 2))},
            {},
        ),
        (r"w_in must be .* got \(3, 4\)\.", "tanh", {"w_rec": np.eye(2), "w_in": np.ones((3, 4))}, {}),
        (r"b must be \(4 \* n_hidden,\) = \(8,\), got \(2,\)", "lstm", {"w_rec": np.ones((8, 2)), "b": np.ones(2)}, {}),
        (r"b_rec must be .* got \(2,\)", "gru", {"w_rec": np.ones((6, 2)), "b_rec": np.ones(2)}, {}),
        (
            r"m and n must both be .* got \(4, 1\) and \(4, 2\)",
            "low_rank",
            {"m": np.ones((4, 1)), "n": np.ones((4, 2))},
            {"alpha": 1},
        ),
        (r"rank <= n_hidden", "low_rank", {"m": np.ones((1, 4)), "n": np.ones((1, 4))}, {"alpha": 1}),
        ("w_rec must have a real floating dtype, got int64", "tanh", {"w_rec": np.eye(2, dtype=np.int64)}, {}),
        (
            "b must have a real floating dtype, got complex128",
            "tanh",
            {"w_rec": np.eye(2), "b": np.zeros(2, complex)},
            {},
        ),
        ("floating dtype, got <U1", "tanh", {"w_rec": np.array([["a"]])}, {}),
        ("NaN weights: .*w_rec.* must be finite", "tanh", {"w_rec": np.full((2, 2), np.nan)}, {}),
        ("infinite weights: .*'b'", "tanh", {"w_rec": np.eye(2), "b": np.array([0, np.inf])}, {}),
        ("alpha = dt/tau must be .* got None", "euler", {"w_rec": np.eye(2)}, {}),
        ("alpha = dt/tau must be .* got -1", "euler", {"w_rec": np.eye(2)}, {"alpha": -1}),
        ("alpha = dt/tau must be .* got None", "low_rank", {"m": np.ones((2, 1)), "n": np.ones((2, 1))}, {}),
        ("alpha goes with", "tanh", {"w_rec": np.eye(2)}, {"alpha": 0.1}),
        ("form must be .* got 'activity'", "euler", {"w_rec": np.eye(2)}, {"alpha": 0.1, "form": "activity"}),
        ("form goes with", "tanh", {"w_rec": np.eye(2)}, {"form": "rate"}),
    ],
)
def test_arrays_are_checked(message, kind, arrays, options):
    """What does not describe a network of its kind is a ValueError that names what was wanted and what came."""
    with pytest.raises(ValueError, match=message):
        adapters.from_arrays(kind, arrays, **options)


def test_arrays_may_be_traced():
    """from_arrays works on traced weights, so an ensemble is a vmap over weights."""

    def step(w_rec):
        step_fn, params = adapters.from_arrays("tanh", {"w_rec": w_rec})
        return step_fn(params, jnp.ones(2), None)

    w_rec = np.arange(12, dtype=np.float32).reshape(3, 2, 2) / 10
    np.testing.assert_allclose(jax.vmap(step)(w_rec), np.tanh(w_rec.sum(axis=2)), rtol=1e-6)


@pytest.mark.parametrize("cell_type", NNX_CELLS)
def test_nnx_cell_is_left_as_it_was(cell_type):
    """from_nnx neither changes the user's cell, its compute dtype included, nor shares variables with it."""
    cell = nnx_cell(cell_type, dtype=jnp.float32)
    before, values = nnx.split(cell)
    flax_adapters.from_nnx(cell)
    after, _ = nnx.split(cell)
    assert after == before
    assert cell.dtype == jnp.float32
    for old, new in zip(jax.tree.leaves(values), jax.tree.leaves(nnx.state(cell)), strict=True):
        np.testing.assert_array_equal(old, new)


def test_unused_random_state_is_left_out():
    """A cell that keeps random streams but never draws is not refused, and params holds floats only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flax deprecates keep_rngs, and old cells have it
        cell = nnx.GRUCell(M, N, recurrent_kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0), keep_rngs=True)
    step_fn, params = flax_adapters.from_nnx(cell)
    assert step_fn.streams
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert "random" not in str(jax.make_jaxpr(step_fn)(params, jnp.zeros(N), None))
    np.testing.assert_array_equal(step_fn(params, jnp.ones(N), jnp.ones(M)), cell(jnp.ones(N), jnp.ones(M))[0])


class Wrapped(nnx.Module):
    """A GRU whose input goes through one more layer."""

    def __init__(self, layer):
        self.in_features = M
        self.gru = nnx_cell(nnx.GRUCell)
        self.layer = layer

    def initialize_carry(self, input_shape, rngs):
        return self.gru.initialize_carry(input_shape, rngs)

    def __call__(self, carry, inputs):
        return self.gru(carry, self.layer(inputs))


class Jitted(Wrapped):
    """The same, with its own jit, out of which all state comes as new arrays."""

    @nnx.jit
    def __call__(self, carry, inputs):
        return super().__call__(carry, inputs)


def test_nnx_jit_inside_a_cell_is_no_change():
    """A cell that jits its own call is neither stochastic nor changing, unless it is."""
    dropout = nnx.Dropout(0.5, deterministic=True, rngs=nnx.Rngs(0))
    step_fn, params = flax_adapters.from_nnx(Jitted(dropout))
    plain, weights = flax_adapters.from_nnx(Wrapped(dropout))
    hidden, inputs = jnp.zeros(N), jnp.ones(M)
    np.testing.assert_allclose(step_fn(params, hidden, inputs), plain(weights, hidden, inputs), rtol=1e-6)
    with pytest.raises(ValueError, match="stochastic"):
        flax_adapters.from_nnx(Jitted(nnx.Dropout(0.5, rngs=nnx.Rngs(0))))
    with pytest.raises(ValueError, match="changes its own state"):
        flax_adapters.from_nnx(Jitted(nnx.BatchNorm(M, rngs=nnx.Rngs(0))))


@pytest.mark.parametrize("wrapper", [Wrapped, Jitted])
def test_nnx_cells_may_be_traced(wrapper):
    """from_nnx works on a cell with traced weights, as within a loss function."""
    cell = wrapper(nnx.Dropout(0.5, deterministic=True))
    graphdef, state = nnx.split(cell)

    def step(state):
        step_fn, params = flax_adapters.from_nnx(nnx.merge(graphdef, state))
        return step_fn(params, jnp.ones(N), None)

    step_fn, params = flax_adapters.from_nnx(nnx.merge(graphdef, state))
    np.testing.assert_allclose(jax.jit(step)(state), step_fn(params, jnp.ones(N), None), rtol=1e-6)


def test_nnx_dropout_is_refused_while_it_drops():
    """Dropout is a ValueError that names its random stream; in evaluation mode it is the identity."""
    cell = Wrapped(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"stochastic: its step draws from layer\.rngs"):
        flax_adapters.from_nnx(cell)
    cell.eval()
    step_fn, params = flax_adapters.from_nnx(cell)
    assert list(params) == ["gru"]
    plain, weights = flax_adapters.from_nnx(cell.gru)
    hidden, inputs = jnp.zeros(N), jnp.ones(M)
    np.testing.assert_array_equal(step_fn(params, hidden, inputs), plain(weights, hidden, inputs))


def test_nnx_batch_statistics_are_refused_while_they_change():
    """A step that writes batch statistics is a ValueError; in evaluation mode they are parameters."""
    cell = Wrapped(nnx.BatchNorm(M, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"changes its own state layer\.mean, layer\.var"):
        flax_adapters.from_nnx(cell)
    cell.eval()
    step_fn, params = flax_adapters.from_nnx(cell)
    shifted = params | {"layer": params["layer"] | {"mean": jnp.full(M, 2.0)}}
    hidden, inputs = jnp.zeros(N), jnp.ones(M)
    assert jnp.abs(step_fn(shifted, hidden, inputs) - step_fn(params, hidden, inputs)).max() > 1e-2


class LinenWrapped(nn.Module):
    """A linen GRU whose input goes through one more layer."""

    layer: nn.Module

    @nn.nowrap
    def initialize_carry(self, key, input_shape):
        return jnp.zeros(N)

    @nn.compact
    def __call__(self, carry, inputs):
        return nn.GRUCell(features=N, recurrent_kernel_init=nn.initializers.ones, name="gru")(carry, self.layer(inputs))


def linen_wrapped(layer):
    cell = LinenWrapped(layer)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return cell, cell.init(keys, jnp.zeros(N), jnp.zeros(M))


def test_linen_dropout_is_refused_while_it_drops():
    """A linen cell that needs a random key is a ValueError, and works once deterministic."""
    with pytest.raises(ValueError, match=r"stochastic: .*dropout"):
        flax_adapters.from_linen(*linen_wrapped(nn.Dropout(0.5, deterministic=False)), n_inputs=M)
    step_fn, params = flax_adapters.from_linen(*linen_wrapped(nn.Dropout(0.5, deterministic=True)), n_inputs=M)
    assert not step_fn.bounded
    assert step_fn(params, jnp.zeros(N), None).shape == (N,)


def test_linen_batch_statistics_are_refused_while_they_change():
    """A linen step that writes batch statistics is a ValueError, and works with running averages."""
    with pytest.raises(ValueError, match="changes its own state"):
        flax_adapters.from_linen(*linen_wrapped(nn.BatchNorm(use_running_average=False)), n_inputs=M)
    step_fn, params = flax_adapters.from_linen(*linen_wrapped(nn.BatchNorm(use_running_average=True)), n_inputs=M)
    assert set(params) == {"params", "batch_stats"}
    assert step_fn(params, jnp.zeros(N), None).shape == (N,)


class WithoutCarry(nnx.Module):
    in_features = M


class Counting(WithoutCarry):
    def initialize_carry(self, input_shape, rngs):
        return jnp.zeros(N), jnp.zeros((), jnp.int32)


class Growing(WithoutCarry):
    def initialize_carry(self, input_shape, rngs):
        return jnp.zeros(N)

    def __call__(self, carry, inputs):
        return jnp.concatenate([carry, inputs]), inputs


class Widthless(Growing):
    in_features = None


def diverged():
    cell = nnx_cell(nnx.GRUCell)
    cell.dense_i.bias[...] = jnp.full(3 * N, jnp.nan)
    return cell


@pytest.mark.parametrize(
    ("message", "cell"),
    [
        ("cell must be a flax.nnx module, got GRUCell", lambda: nn.GRUCell(features=N)),
        ("n_inputs of Widthless is not known", Widthless),
        ("WithoutCarry has no initialize_carry", WithoutCarry),
        ("carry must be floating arrays.*int32", Counting),
        (r"the cell must return a carry like .* leaves \(\(8,\),\)", Growing),
        ("NaN weights: .*dense_i.*bias", diverged),
    ],
)
def test_nnx_cells_are_checked(message, cell):
    """What is not a deterministic cell with a floating carry of fixed shape is a ValueError that says why."""
    with pytest.raises(ValueError, match=message):
        flax_adapters.from_nnx(cell())


def test_linen_cells_are_checked():
    """Wrong modules, missing, misfitting and diverged variables are ValueErrors that say why."""
    cell, variables = linen_cell(nn.GRUCell)
    with pytest.raises(ValueError, match=r"cell must be a flax\.linen module, got GRUCell"):
        flax_adapters.from_linen(nnx_cell(nnx.GRUCell), variables)
    with pytest.raises(ValueError, match='variables must be a mapping with "params"'):
        flax_adapters.from_linen(cell, variables["params"])
    with pytest.raises(ValueError, match="does not fit its variables"):
        flax_adapters.from_linen(nn.GRUCell(features=N + 1), variables)
    with pytest.raises(ValueError, match="does not fit its variables"):
        flax_adapters.from_linen(nn.LSTMCell(features=N), variables, n_inputs=M)
    with pytest.raises(ValueError, match="NaN weights"):
        flax_adapters.from_linen(cell, jax.tree.map(lambda leaf: leaf * jnp.nan, variables))
    with pytest.raises(ValueError, match="n_inputs of LinenWrapped is not known"):
        flax_adapters.from_linen(*linen_wrapped(nn.Dense(M)))


def test_linen_variables_may_be_frozen_and_modules_bound():
    """Frozen variables and a bound module give the step function of plain and unbound ones."""
    cell, variables = linen_cell(nn.LSTMCell)
    step_fn, params = flax_adapters.from_linen(cell, variables)
    frozen_step, thawed = flax_adapters.from_linen(cell.bind(variables), nn.FrozenDict(variables))
    assert frozen_step == step_fn
    assert hash(frozen_step) == hash(step_fn)
    assert jax.tree.structure(thawed) == jax.tree.structure(params)


def test_examples_run():
    """The examples in the docstrings call what they show."""
    assert doctest.testmod(adapters).failed == 0
