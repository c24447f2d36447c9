"""A box that holds every fixed point is proved where there is one, for cells written in any way, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxfp
from jaxfp import dynamics
from jaxfp.proof import boxes, interval

N = 4
KEYS = jax.random.split(jax.random.key(3), 4)
W, W_Z, W_R = (np.asarray(jax.random.normal(k, (N, N)), np.float64) for k in KEYS[:3])
DRIVE = np.asarray(jax.random.normal(KEYS[3], (N,)), np.float64)
sigmoid = jax.nn.sigmoid


def box_of(step_fn, params, n_hidden, inputs=None, kind="map"):
    with jax.enable_x64(True):
        n_inputs = None if inputs is None else len(inputs)
        return boxes.build_box(step_fn, dynamics.widen(params), n_hidden, n_inputs, kind=kind)(
            None if inputs is None else interval.thin(inputs)
        )


def tanh(p, h, u):
    return jnp.tanh(p @ h)


def leaky(p, h, u):
    return 0.9 * h + 0.1 * jnp.tanh(p @ h)


def swinging(p, h, u):
    return -0.5 * h + jnp.tanh(p @ h)


def euler(p, h, u):
    return h + 0.1 * (-h + p @ jnp.tanh(h))


def gru(p, h, u):
    z, r = sigmoid(W_Z @ h), sigmoid(W_R @ h)
    return z * h + (1 - z) * jnp.tanh(p @ (r * h))


def ugrnn(p, h, u):
    gate = sigmoid(W_Z @ h)
    return h + (1 - gate) * (jnp.tanh(p @ h) - h)


def mgu(p, h, u):
    forget = sigmoid(W_Z @ h)
    return (1 - forget) * h + forget * jnp.tanh(p @ (forget * h))


def lstm(p, state, u):
    h, c = jnp.split(state, 2)
    i, f, o = (sigmoid(w[:2, :2] @ h) for w in (W_Z, W_R, W))
    c = f * c + i * jnp.tanh(p[:2, :2] @ h)
    return jnp.concatenate([o * jnp.tanh(c), c])


def scanned(p, h, u):
    return jax.lax.scan(lambda h, _: (0.5 * h + jnp.tanh(p @ h), None), h, None, length=2)[0]


@pytest.mark.parametrize(
    ("step_fn", "bound"),
    [
        (tanh, 1.0),
        (leaky, 1.0),
        (gru, 1.0),
        (ugrnn, 1.0),
        (mgu, 1.0),
        (swinging, 2.0),
        (euler, np.abs(W).sum(1)),
        (lstm, None),
        (scanned, 2.0),
    ],
)
def test_the_box_is_sent_into_itself_and_as_small_as_the_cell_allows(step_fn, bound):
    """The bounds are those known of the cells: 1; |R| / (1 - 0.5); sum_j |W_ij|."""
    lower, upper = box_of(step_fn, W, N)
    states = np.random.default_rng(0).uniform(lower, upper, (2000, N))
    states[:16] = np.where(np.array([[k >> i & 1 for i in range(N)] for k in range(16)]), lower, upper)
    with jax.enable_x64(True):
        after = np.asarray(jax.vmap(lambda h: step_fn(W, h, None))(states))
    rounding = 1e-14 * (1 + np.abs(upper))
    assert (after >= lower - rounding).all()
    assert (after <= upper + rounding).all()
    if bound is not None:
        assert (np.maximum(-lower, upper) <= bound * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    ("step_fn", "why"),
    [
        (lambda p, h, u: 1.1 * h, "it grows"),
        (lambda p, h, u: h, "every state is fixed"),
        (lambda p, h, u: jax.nn.relu(p @ h), "not bounded"),
        (lambda p, h, u: 0.5 * h + jnp.where(h > 0, 1.0, 0.0), "it jumps: Brouwer says nothing of it"),
        (lambda p, h, u: (1 - sigmoid(p @ h)) * h + sigmoid(p @ h)[::-1] * jnp.tanh(h), "no convex combination"),
        (lambda p, h, u: sigmoid(p @ h) * h + (1.1 - sigmoid(p @ h)) * 5 + 0.1 * h, "the weights sum to 1.1"),
        (lambda p, h, u: jnp.roll(h, 1), "each unit takes another's state"),
        (lambda p, h, u: h * (1 - 0.1 * h), "h^2 is not affine"),
        (lambda p, h, u: 0.5 * h + jnp.where(h == jnp.roll(h, 1), 3.0, 0.0), "it jumps where two units are equal"),
    ],
)
def test_no_box_is_proved_where_there_is_none(step_fn, why):
    assert box_of(step_fn, W, N) is None, why


def test_a_flow_that_is_pulled_back_points_inward():
    """X' = -x + W tanh x + u: |x_i - u_i| <= sum_j |W_ij| at every fixed point; just outside, x' points inward."""
    lower, upper = box_of(lambda p, h, u: -h + p @ jnp.tanh(h) + u, W, N, DRIVE, "flow")
    assert (upper <= (DRIVE + np.abs(W).sum(1)) * (1 + 1e-12)).all()
    assert (lower >= DRIVE - np.abs(W).sum(1) - 1e-12).all()
    states = np.random.default_rng(0).uniform(lower, upper, (1000, N))
    for i in range(N):
        for sign, corner in ((-1, upper), (1, lower)):
            states[:, i] = corner[i] + sign * -1e-9  # just outside the face
            assert (sign * (-states + np.tanh(states) @ W.T + DRIVE)[:, i] > 0).all()
        states[:, i] = (lower[i] + upper[i]) / 2
    assert box_of(lambda p, h, u: h - p @ jnp.tanh(h), W, N, kind="flow") is None


@pytest.mark.parametrize("cell", [nnx.SimpleCell, nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell])
def test_the_proof_agrees_with_what_is_known_of_nnx_cells(cell):
    """The adapters' boxes are derived on paper; the proof is of the program, and may find a smaller box."""
    step_fn, params = jaxfp.from_nnx(cell(2, N, rngs=nnx.Rngs(0)))
    check(step_fn, params)


@pytest.mark.parametrize("cell", [linen.GRUCell, linen.MGUCell, linen.LSTMCell])
def test_the_proof_agrees_with_what_is_known_of_linen_cells(cell):
    module, x = cell(N), jnp.ones(2)
    carry = module.initialize_carry(jax.random.key(0), (2,))
    check(*jaxfp.from_linen(module, module.init(jax.random.key(0), carry, x)))


def check(step_fn, params):
    known = step_fn.box(params, np.ones(2))
    lower, upper = box_of(step_fn, params, len(known[0]), np.ones(2))
    # Both bound the same states: neither box may lie outside the other, and the LSTM's c is bounded more tightly.
    assert (lower >= np.asarray(known[0]) * (1 + 1e-6)).all()
    assert (upper <= np.asarray(known[1]) * (1 + 1e-6)).all()
    assert (lower < upper).all()


def test_a_search_proves_the_box_that_nobody_vouches_for():
    """One proof for all inputs; the audit then knows that the indices sum to +1, for a flow as well."""
    candidates = np.random.default_rng(0).normal(size=(64, N))
    drives = np.repeat([[0.5], [-0.5]], 32, axis=0) * DRIVE
    for kind, step_fn in (("map", driven), ("flow", driven_flow)):
        points = jaxfp.find_fixed_points(step_fn, W, candidates, drives, kind=kind)
        audit = jaxfp.audit(points, jaxfp.linearize(step_fn, W, points.hidden, points.inputs))
        assert points.report.bounded
        assert "proved" in points.report.bounded_by
        assert audit.index_sums == (1, 1)
    unknown = jaxfp.find_fixed_points(sorting, W, candidates)
    assert unknown.report.bounded is None
    assert "'sort'" in unknown.report.bounded_by


def driven(p, h, u):
    return 0.5 * h + 0.5 * jnp.tanh(p @ h + u)


def driven_flow(p, h, u):
    return -h + jnp.tanh(p @ h + u)


def sorting(p, h, u):
    return jnp.tanh(p @ jnp.sort(h))
