"""Enclosures of a step and of its Jacobian hold what JAX computes, at points to rounding and over boxes at samples."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxfp.proof import enclosure, interval, rules
from jaxfp.proof.interval import Interval

N = 4
W = np.random.default_rng(0).normal(size=(N, N)) / 2
POINTS = np.array([[0.3, -0.2, 0.55, -0.7], [-0.45, 0.6, -0.15, 0.25]])
RADIUS = 0.02
# Every primitive of the project's list, as it stands in a step or in its Jacobian.
LISTED = set(
    """dot_general add add_any sub neg mul div abs square sqrt pow tanh logistic exp expm1 log1p sin cos max min
    integer_pow select_n gt lt ge le eq ne iota convert_element_type concatenate split stack slice dynamic_slice gather
    scatter scatter-add dynamic_update_slice pad squeeze reshape broadcast_in_dim transpose rev reduce_sum reduce_max
    reduce_min reduce_prod reduce_and reduce_or cumsum cummax stop_gradient scan cond jit checkpoint custom_jvp_call
    custom_vjp_call custom_vmap_call clamp sign floor rsqrt log erf erf_inv sinh cosh asinh atan cbrt exp2 erfc
    is_finite reduce_precision and not""".split()  # noqa: SIM905
)


@jax.custom_jvp
def lying_jvp(x):
    return jnp.tanh(x)


lying_jvp.defjvp(lambda primals, tangents: (lying_jvp(*primals), 0.0 * tangents[0]))


@jax.custom_vjp
def lying_vjp(x):
    return jnp.tanh(x)


lying_vjp.defvjp(lambda x: (jnp.tanh(x), None), lambda _, g: (0.0 * g,))


@jax.custom_batching.custom_vmap
def lying_vmap(x):
    return jnp.tanh(x)


lying_vmap.def_vmap(lambda size, batched, x: (0.0 * x, batched[0]))


def _scan(p, h, u):
    carry, rows = lax.scan(lambda c, row: (jnp.tanh(c + row @ h), c[0]), h, p)
    return carry + rows


def _loop(p, h, u):
    return lax.fori_loop(0, 3, lambda i, x: x.at[i].set(jnp.tanh(p @ x)[i] + 0.1 * i.astype(x.dtype)), h)


def _constants(p, h, u):
    eigenvalues = jnp.sort(p[0])
    order = jnp.argsort(p[0])
    mask = (jnp.arange(N) % 2 == 1) & ~(jnp.arange(N) > 2)
    n = jnp.minimum(jnp.uint32(2), jnp.arange(N, dtype=jnp.uint32)).astype(h.dtype)
    scaled = lax.erf_inv(p[1]) * lax.while_loop(lambda x: x < 3.0, lambda x: x + 1.0, 0.0)
    return jnp.where(mask, eigenvalues * h[order], n + scaled * h**2)


def _batched(p, h, u):
    blocks = p.reshape(2, 2, N)
    return jnp.einsum("bij,bj->bi", blocks[:, :, :2], h.reshape(2, 2)).ravel() + jnp.einsum("i,j,ij->i", h, h, p)


def _moved(p, h, u):
    first, second = jnp.split(h, 2)
    joined = jnp.concatenate([second**2, jnp.flip(first)])
    padded = jnp.pad(joined, 1)[1:-1].reshape(2, 2).T.ravel()
    return padded + jnp.stack([h[0], h[1], h[2], h[3]]) + jnp.outer(h, h).T[0] + h[None].squeeze(0)


def _indexed(p, h, u):
    taken = h[jnp.array([2, 0, 0, 1])] * lax.dynamic_slice(jnp.concatenate([h, h]), (2,), (N,))
    there = h.at[jnp.array([0, 1])].set(taken[:2] * h[:2])
    summed = there.at[jnp.array([0, 0, 3])].add(h[:3])
    return lax.dynamic_update_slice(summed, h[:1] * h[1:2], (2,))


def _narrow(p, h, u):
    zeros = jnp.zeros(N, jnp.float32)
    return zeros.at[:2].set(h[:2].astype(jnp.float32)).astype(h.dtype) * h + lax.reduce_precision(h, 8, 23)


def _reduced(p, h, u):
    return h * (h.sum() + h.prod() + jnp.cumsum(h)[::-1]) + h.mean() + lax.cumsum(h, reverse=True)


def _extremes(p, h, u):
    return h * jnp.max(h) + jnp.min(h**2) * lax.cummax(h) + lax.cummin(h, reverse=True) + lax.clamp(-0.5, h, 0.4)


def _branches(p, h, u):
    nested = jnp.where(jnp.where(h > 0, h > -2, h < -3) & ~(h > 3), h, -2 * h)
    either = jnp.where(jnp.any(h < -0.1) & jnp.all(h < 3), h**2, h)
    by_state = lax.cond(h[0] + h[1] > 0, lambda x: x * x[0], jnp.sin, h)
    by_weight = lax.cond(p[0, 0] > 0, jnp.sin, lambda x: x * x[1], h)
    return nested + either + by_state + by_weight + lax.switch(2, [jnp.sin, jnp.cos, jnp.exp], h)


def _compared(p, h, u):
    chosen = [jnp.where(c, h * k, h) for k, c in enumerate([h < 0, h <= 0.1, h >= 0.1, h != 0.1, h == 0.1], 2)]
    return sum(chosen) + (h > 0) * jnp.tanh(h) + jnp.sign(h) * h + jnp.floor(h + 0.9) * h


def _attention(p, h, u):
    return jax.nn.softmax(p @ h) @ p + jax.nn.logsumexp(p * h[None], axis=1) + jax.nn.log_softmax(h)


STEPS = {
    "affine": lambda p, h, u: p @ h + 0.1,
    "tanh": lambda p, h, u: jnp.tanh(p @ h),
    "gru": lambda p, h, u: (z := jax.nn.sigmoid(p @ h)) * h + (1 - z) * jnp.tanh(p.T @ (h * z)),
    "arithmetic": lambda p, h, u: (p @ h - h) / (2 + jnp.abs(h)) - (-h) * jnp.square(h) + h**3 - h**-2,
    "roots": lambda p, h, u: jnp.sqrt(1 + h**2) + lax.rsqrt(2 + h) + jnp.cbrt(2 + h) + jnp.abs(h) ** 0.7,
    "powers": lambda p, h, u: jnp.exp(h) ** h + h ** jnp.full(N, 2.0) + 2.0**h,
    "exponentials": lambda p, h, u: jnp.exp(h) + jnp.expm1(h) + jnp.log1p(h) + jnp.log(2 + h) + jnp.exp2(h),
    "waves": lambda p, h, u: jnp.sin(3 * h) + jnp.cos(p @ h),
    "hyperbolic": lambda p, h, u: jnp.sinh(h) + jnp.cosh(h) + jnp.arcsinh(h) + jnp.arctan(h),
    "errors": lambda p, h, u: lax.erf(h) + lax.erfc(h) * h + jax.nn.gelu(h, approximate=False),
    "activations": lambda p, h, u: jax.nn.softplus(h) + jax.nn.silu(h) + jax.nn.gelu(h) + jax.nn.soft_sign(h),
    "kinked": lambda p, h, u: jax.nn.relu(p @ h) + jnp.minimum(h, 0.2) + jax.nn.elu(h) + jax.nn.leaky_relu(h),
    "normed": lambda p, h, u: (h - h.mean()) * lax.rsqrt(h.var() + 0.1) + h / jnp.linalg.norm(h),
    "scan": _scan,
    "empty scan": lambda p, h, u: lax.scan(lambda c, x: (c, c * x), h * h, jnp.zeros((0, N)))[0],
    "backward scan": lambda p, h, u: lax.scan(lambda c, r: (c * h[0], c @ r), h, p, reverse=True)[1],
    "loop": _loop,
    "constants": _constants,
    "batched": _batched,
    "moved": _moved,
    "indexed": _indexed,
    "narrow": _narrow,
    "reduced": _reduced,
    "extremes": _extremes,
    "branches": _branches,
    "compared": _compared,
    "attention": _attention,
    "finite": lambda p, h, u: jnp.where(jnp.isfinite(h), h**2, 0.0) + jnp.where(h == h, h, 1.0),
    "nested": lambda p, h, u: jax.jit(jnp.tanh)(p @ h) + jax.checkpoint(lambda x: jnp.sin(p @ jnp.sin(x)))(h),
    "driven": lambda p, h, u: jnp.tanh(p @ h) * u[0] + u[1],
    "constant": lambda p, h, u: p[0] * 2,
}
# Steps that lie about their derivative, and what they are.
LIARS = {
    "custom_jvp": (lambda p, h, u: p @ lying_jvp(h), lambda p, h, u: p @ jnp.tanh(h)),
    "custom_vjp": (lambda p, h, u: p @ lying_vjp(h), lambda p, h, u: p @ jnp.tanh(h)),
    "custom_vmap": (lambda p, h, u: p @ lying_vmap(h), lambda p, h, u: p @ jnp.tanh(h)),
    "stop_gradient": (lambda p, h, u: h * lax.stop_gradient(p @ h), lambda p, h, u: h * (p @ h)),
    "in a scan": (
        lambda p, h, u: lax.scan(lambda c, row: (lying_jvp(c) + row, None), h, p)[0],
        lambda p, h, u: lax.scan(lambda c, row: (jnp.tanh(c) + row, None), h, p)[0],
    ),
}
HONEST = STEPS | {name: honest for name, (_, honest) in LIARS.items()}
ALL = STEPS | {name: liar for name, (liar, _) in LIARS.items()}
DRIVE = np.array([0.7, -0.2])


@pytest.fixture(autouse=True)
def _float64():
    """Steps in this file are written as users write them, with numbers of any type."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def computed():
    """What JAX computes at the points and at samples of the boxes around them: {name: (states, F, J)}."""
    rng = np.random.default_rng(1)
    offsets = np.concatenate(
        [np.zeros((1, N)), rng.uniform(-RADIUS, RADIUS, (16, N)), RADIUS * rng.choice([-1, 1], (8, N))]
    )
    states = POINTS[:, None] + offsets

    def both(step_fn, h):
        return step_fn(W, h, DRIVE), jax.jacfwd(step_fn, argnums=1)(W, h, DRIVE)

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        every = jax.jit(
            jax.vmap(jax.vmap(lambda h: {name: both(step, h) for name, step in HONEST.items()})),
            compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
        )
        return states, jax.tree.map(np.asarray, every(states))


def enclosures(step_fn, box, params=W, inputs=DRIVE):
    """F and J on boxes (n_boxes, n_hidden)."""
    n_inputs = None if inputs is None else len(inputs)
    drive = None if inputs is None else np.tile(inputs, (len(box.lower), 1))
    pair = enclosure.build_enclosures(step_fn, params, *box.lower.shape, n_inputs)
    return [enclose(box, drive) for enclose in pair]


@pytest.mark.parametrize("name", ALL)
def test_enclosed_at_a_point_to_rounding_and_over_a_box_at_samples(name, computed):
    """F and dF/dh: within 1e-13 of JAX's at a point, at most 3e-13 wide, and around all 25 samples of the box."""
    _, expected = computed
    thin = enclosures(ALL[name], interval.thin(POINTS))
    wide = enclosures(ALL[name], Interval(POINTS - RADIUS, POINTS + RADIUS))
    for at_point, over_box, values in zip(thin, wide, expected[name], strict=True):
        # All arithmetic is real, whatever it is cast to.
        slack = (1e-6 if name == "narrow" else 1e-13) * (1 + np.abs(values))
        assert at_point.lower.shape == values[:, 0].shape
        assert (at_point.upper - at_point.lower <= 3e-13 * (1 + np.abs(values[:, 0]))).all()
        assert (np.abs(interval.middle(at_point) - values[:, 0]) <= slack[:, 0]).all()
        assert (over_box.lower[:, None] <= values + slack).all()
        assert (values - slack <= over_box.upper[:, None]).all()


def test_every_listed_primitive_is_tried():
    """The steps above use all of them, in themselves or in their derivatives."""
    used = set()

    def walk(jaxpr):
        for eqn in jaxpr.eqns:
            used.add(eqn.primitive.name.replace("remat2", "checkpoint"))
            for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                if hasattr(inner, "eqns"):
                    walk(inner.jaxpr if hasattr(inner, "jaxpr") else inner)

    for step in ALL.values():
        walk(jax.make_jaxpr(step)(W, POINTS[0], DRIVE).jaxpr)
    for step in HONEST.values():
        walk(jax.make_jaxpr(jax.jacfwd(step, argnums=1))(W, POINTS[0], DRIVE).jaxpr)
    assert LISTED - used == set()


def test_rules_and_tests_name_the_same_primitives():
    """No rule without a step that tries it, but for those of integers that JAX evaluates and of few uses."""
    assert set(rules.RULES) - LISTED == {
        "tanh_slope",
        "logistic_slope",
        "copy",
        "expand_dims",
        "device_put",
        "or",
        "cummin",
        "ceil",
        "round",
        "optimization_barrier",
    }


# Derivatives, also of functions whose rule in JAX holds a rounded constant (ln 2, 2 / sqrt(pi), 1 / 3).
SLOPES = {
    "exp2": (jnp.exp2, lambda x: mpmath.mpf(2) ** x * mpmath.log(2)),
    "erf": (lax.erf, lambda x: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-(x**2))),
    "erfc": (lax.erfc, lambda x: -2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-(x**2))),
    "cbrt": (jnp.cbrt, lambda x: mpmath.power(abs(x), mpmath.mpf(-2) / 3) / 3),
    "tanh": (jnp.tanh, lambda x: mpmath.sech(x) ** 2),
    "logistic": (jax.nn.sigmoid, lambda x: mpmath.sech(x / 2) ** 2 / 4),
    "log1p": (jnp.log1p, lambda x: 1 / (1 + x)),
    "expm1": (jnp.expm1, mpmath.exp),
    "sin": (jnp.sin, mpmath.cos),
    "atan": (jnp.arctan, lambda x: 1 / (1 + x**2)),
    "asinh": (jnp.arcsinh, lambda x: 1 / mpmath.sqrt(1 + x**2)),
}


@pytest.mark.parametrize("name", SLOPES)
def test_derivatives_are_held_to_sixty_digits(name):
    """Also where the function is flat, or JAX multiplies by a rounded constant; and tight, except in flat tails."""
    function, slope = SLOPES[name]
    x = np.concatenate([np.linspace(-0.9, 0.9, 60), np.linspace(-30, 30, 61) if name not in ("log1p", "exp2") else []])
    x = x[x != 0][:, None]
    derivative = enclosures(lambda p, h, u: function(h), interval.thin(x), None, None)[1]
    with mpmath.workdps(60):
        for low, high, t in zip(derivative.lower.ravel(), derivative.upper.ravel(), x.ravel().tolist(), strict=True):
            assert low <= slope(mpmath.mpf(t)) <= high
            assert high - low <= 1e-13 * (1 + abs(high))


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    center=st.lists(st.floats(-3, 3), min_size=2, max_size=2),
    widths=st.lists(st.floats(0, 2), min_size=2, max_size=2),
    weights=st.lists(st.floats(-2, 2), min_size=8, max_size=8),
)
def test_boxes_of_any_size_hold_their_samples(center, widths, weights):
    """A gated step and its Jacobian, in NumPy, on a grid over the box."""
    V, U = np.reshape(weights, (2, 2, 2))

    def gated(p, h, u):
        z = jax.nn.sigmoid(p[0] @ h)
        return z * h + (1 - z) * jnp.tanh(p[1] @ h)

    center, widths = np.array(center), np.array(widths)
    step, jacobian = enclosures(
        gated, Interval((center - widths)[None], (center + widths)[None]), np.stack([V, U]), None
    )
    for h in center + widths * np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * 2), -1).reshape(-1, 2):
        z, n = 1 / (1 + np.exp(-V @ h)), np.tanh(U @ h)
        slope = np.diag(z) + ((h - n) * z * (1 - z))[:, None] * V + ((1 - z) * (1 - n**2))[:, None] * U
        for box, value in ((step, z * h + (1 - z) * n), (jacobian, slope)):
            assert (box.lower[0] <= value + 1e-14).all()
            assert (value - 1e-14 <= box.upper[0]).all()


REFUSED = {
    "while": lambda p, h, u: lax.while_loop(lambda x: x[0] < 1, lambda x: x + 1, h),
    "sort": lambda p, h, u: jnp.sort(h),
    "argmax": lambda p, h, u: h * h[jnp.argmax(h)],
    "atan2": lambda p, h, u: jnp.arctan2(h, 1 + h),
    "rem": lambda p, h, u: h % 1.0,
    "custom_linear_solve": lambda p, h, u: lax.custom_linear_solve(lambda x: 2 * x, h, lambda _, b: b / 3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_primitive_without_a_rule_is_named(name):
    with pytest.raises(NotImplementedError, match=f"no interval rule for the primitive '{name}', which this step uses"):
        enclosures(REFUSED[name], interval.thin(POINTS))


@pytest.mark.parametrize(
    "step",
    [
        lambda p, h, u: h * h.astype(int),
        lambda p, h, u: h * lax.div(jnp.where(h > 0, 3, 1), 2),
        lambda p, h, u: h * (h > 0).sum(),
        lambda p, h, u: p[(h[0] > 0).astype(int)],
    ],
)
def test_integers_that_depend_on_the_state_are_refused(step):
    """Not computed as if they were real: 3 // 2 is not 1.5."""
    with pytest.raises(NotImplementedError, match="depend on the state"):
        enclosures(step, Interval(POINTS - 1, POINTS + 1))


def test_a_step_that_changes_the_shape_is_refused():
    with pytest.raises(ValueError, match=r"must return the shape of hidden, \(4,\), it returned \(3,\)"):
        enclosures(lambda p, h, u: h[1:], interval.thin(POINTS))


@pytest.mark.parametrize(
    "step",
    [
        lambda p, h, u: jnp.where(h > 0.1, 1.0, 2.0),
        lambda p, h, u: (h > 0.1).astype(h.dtype),
        lambda p, h, u: jnp.sign(h - 0.1),
        lambda p, h, u: jnp.round(h + 0.4),
        lambda p, h, u: -jnp.floor(h - 0.1),
        lambda p, h, u: lax.cond(h[0] > 0.1, jnp.sin, jnp.cos, h),
        lambda p, h, u: jnp.tanh(jnp.sign(h - 0.1) / 0.0),
        lambda p, h, u: -jnp.log(h - 0.1),
    ],
)
def test_a_jump_is_unknown_in_the_step_itself(step):
    """Over a box across h = 0.1 nothing is known of the first unit; on either side of it both ends are numbers."""
    across = enclosures(step, Interval(np.full((1, N), -0.1), np.full((1, N), 0.3)))[0]
    assert np.isnan(across.lower[0, 0]) or np.isnan(across.upper[0, 0])
    if "0.0" in str(step.__code__.co_consts):
        return  # divided by 0 it is infinite everywhere
    beside = enclosures(step, Interval(np.full((1, N), 0.2), np.full((1, N), 0.3)))[0]
    assert np.isfinite(beside).all()
