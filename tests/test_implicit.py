"""Fixed points as functions: their derivatives, forward, reverse and second, are those of the implicit function."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import systems

import jaxfp
from jaxfp.models import equations
from jaxfp.tasks import toys

CELLS = {"tanh": (equations.vanilla, 6, 34), "gru": (equations.gru, 5, 33), "lstm": (equations.lstm, 3, 33)}


def networks(cell, n_units, n_networks):
    """Random networks of one kind, stacked, a drive each, and a state after 100 steps each, in float64."""
    rng = np.random.default_rng(n_units)
    gates = equations.N_GATES[cell]
    params = {
        "w_rec": 1.2 * rng.normal(size=(n_networks, gates * n_units, n_units)) / np.sqrt(n_units),
        "w_in": rng.normal(size=(n_networks, gates * n_units, 2)),
        "b": rng.normal(size=(n_networks, gates * n_units)),
    }
    if cell == "gru":
        params["b_rec"] = rng.normal(size=(n_networks, 3 * n_units))
    n_hidden = 2 * n_units if cell == "lstm" else n_units
    drives, hidden, weighting = (rng.normal(size=(n_networks, n)) for n in (2, n_hidden, n_hidden))
    return params, drives, hidden, weighting


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_central_differences_over_a_hundred_networks(cell):
    """In 100 random tanh, GRU and LSTM networks reverse = forward = central differences to 1e-6, params and inputs."""
    step_fn, n_units, n_networks = CELLS[cell]
    params, drives, hidden, weighting = networks(cell, n_units, n_networks)

    ways = jax.tree.map(lambda x: np.random.default_rng(1).normal(size=x.shape), (params, drives))

    def one(params, drive, hidden, weighting, way):
        settled = jaxfp.simulate(step_fn, params, hidden, jnp.tile(drive, (100, 1)))[-1]

        def loss(params, drive, hidden0):
            h, info = jaxfp.fixed_point(step_fn, params, hidden0, drive, has_aux=True)
            return weighting @ h, info

        at = (params, drive, settled)
        value, forward, info = jax.linearize(loss, *at, has_aux=True)
        *slopes, start = jax.linear_transpose(forward, *at)(jnp.ones(()))
        back = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(list(way)), strict=True))
        return value, forward(*way, jnp.ones_like(settled)), back, start, info

    with jax.enable_x64(True):
        run = jax.jit(jax.vmap(one))

        def at(shift):
            moved = jax.tree.map(lambda x, way: x + shift * way, (params, drives), ways)
            return jax.tree.map(np.asarray, run(*moved, hidden, weighting, ways))

        _, ahead, back, start, info = at(0.0)
        # Of fourth order in e: what is left is e^4 = 1e-16 times the fifth derivative, and rounding, 1e-16 / e times
        # the condition.
        e = 1e-4
        numeric = (8 * (at(e)[0] - at(-e)[0]) - (at(2 * e)[0] - at(-2 * e)[0])) / (12 * e)
    assert (info.status == jaxfp.FIXED).all()
    assert (info.residual < 1e-13).all()
    size = np.abs(numeric) + 1e-2 * np.abs(numeric).mean()  # a sum of many signs may happen to be nearly zero
    np.testing.assert_array_less(np.abs(ahead - back) / size, 1e-12 * info.condition)
    np.testing.assert_array_less(np.abs(back - numeric) / size, 1e-6)
    assert (start == 0).all()


def leaky(params, hidden, inputs):
    """Flow: x' = -x + tanh(W x + W_in u + b), with the fixed points of the map."""
    return equations.vanilla(params, hidden, inputs) - hidden


def scalar(params, hidden, inputs):
    """One step: h' = tanh(w h + u)."""
    return jnp.tanh(params * hidden + inputs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_first_and_second_derivatives_of_a_scalar_are_closed_forms(dtype):
    """Of h = tanh(w h + u): with s = 1 - h^2, c = s / (1 - w s), dh = c (h, 1) and the hessian by hand; all modes."""

    def squeezed(x):
        return np.asarray(x).squeeze()

    with jax.enable_x64(dtype == "float64"):
        w, u = np.array([0.5, 1.5, -2.0], dtype), np.array([[0.3], [-0.1], [1.0]], dtype)

        def point(w, u, hidden0=1.0):
            return jaxfp.fixed_point(scalar, w, jnp.full(1, hidden0, dtype), u)[0]

        def derivatives(w, u):
            h, grad = jax.value_and_grad(point, argnums=(0, 1, 2))(w, u, jnp.ones((), dtype))
            return h, grad, jax.jacfwd(point, argnums=(0, 1))(w, u), jax.hessian(point, argnums=(0, 1))(w, u)

        h, reverse, forward, hessian = jax.tree.map(squeezed, jax.jit(jax.vmap(derivatives))(w, u))
    w, u = w.astype(float), u[:, 0].astype(float)
    exact = h.astype(float)
    for _ in range(3):  # Newton in float64
        exact -= (np.tanh(w * exact + u) - exact) / (w * (1 - exact**2) - 1)
    s = 1 - exact**2
    c = s / (1 - w * s)
    # dc = (ds (1 - w s) + s (dw s + w ds)) / (1 - w s)^2 with ds = -2 h dh.
    ds = [-2 * exact * c * exact, -2 * exact * c]
    dc = [(ds[0] + s**2) / (1 - w * s) ** 2, ds[1] / (1 - w * s) ** 2]
    expected = [[dc[0] * exact + c * c * exact, dc[1] * exact + c * c], [dc[0], dc[1]]]
    close = {"rtol": 1e3 * np.finfo(dtype).eps}  # 1 / (1 - w s) <= 3, to the third power, and the sums
    np.testing.assert_allclose(h, exact, **close)
    for found in (reverse, forward):
        np.testing.assert_allclose(found[0], c * exact, **close)
        np.testing.assert_allclose(found[1], c, **close)
    assert h.dtype == reverse[0].dtype == forward[0].dtype == hessian[0][0].dtype == dtype
    assert (reverse[2] == 0).all()
    for i in range(2):
        for j in range(2):
            np.testing.assert_allclose(hessian[i][j], expected[i][j], **close)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_near_a_fold_the_status_says_so(dtype):
    """Of h' = h + a + h^2: condition 1 / (2 sqrt(-a)) before the fold, FOLD at it, nothing after it."""
    with jax.enable_x64(dtype == "float64"):
        a, hidden0 = np.array([-0.25, -1e-2, -1e-4, 0.0, 1e-4, 1e-2], dtype), np.full(1, 0.3, dtype)

        def alone(a):
            return jaxfp.fixed_point(systems.fold, a, hidden0)[0]

        def told(a):
            h, info = jaxfp.fixed_point(systems.fold, a, hidden0, has_aux=True)
            return h[0], info

        run = jax.jit(jax.vmap(lambda a: (jax.value_and_grad(alone)(a), jax.value_and_grad(told, has_aux=True)(a))))
        (root, slope), ((h, info), shown) = jax.tree.map(np.asarray, run(a))
    assert info.status.tolist()[:4] == [jaxfp.FIXED] * 3 + [jaxfp.FOLD]
    assert set(info.status.tolist()[4:]) <= {jaxfp.REJECTED, jaxfp.MAX_STEPS}
    assert info.condition[3] > 1 / np.finfo(dtype).eps ** 0.5
    close = {"rtol": 1e4 * np.finfo(dtype).eps}  # 1 / (2 h) at h = 0.01: errors grow a hundredfold
    before = np.sqrt(-a[:3].astype(float))
    np.testing.assert_allclose(root[:3], before, **close)
    np.testing.assert_allclose(info.condition[:3], np.maximum(1 / (2 * before), 1), **close)
    np.testing.assert_allclose(slope[:3], -1 / (2 * before), **close)
    np.testing.assert_allclose(shown[:3], slope[:3], **close)
    assert np.isnan(root[4:]).all()
    assert np.isnan(slope[4:]).all()
    assert (shown[4:] == 0).all()
    assert np.isfinite(h).all()


def test_one_lane_never_touches_another():
    """Beside a NaN start, a ghost and a saturated lane, the others have the gradient that they have alone."""
    params = np.array([-0.25, -0.25, 0.01, -0.09], np.float32)
    starts = np.array([[0.3], [np.nan], [0.3], [0.2]], np.float32)

    @jax.jit
    def loss(params):
        h, info = jax.vmap(lambda p, h: jaxfp.fixed_point(systems.fold, p, h, has_aux=True))(params, starts)
        return jnp.where(info.status == jaxfp.FIXED, h[:, 0], 0).sum(), info.status

    slopes, status = jax.grad(loss, has_aux=True)(params)
    assert status.tolist()[:2] == [jaxfp.FIXED, jaxfp.NONFINITE]
    assert status[3] == jaxfp.FIXED
    assert status[2] in (jaxfp.REJECTED, jaxfp.MAX_STEPS)
    np.testing.assert_allclose(slopes, [-1, 0, 0, -1 / 0.6], rtol=1e-5)  # float32 eps times 1 / (2 h)


def test_a_lane_that_is_masked_leaves_shared_weights_alone():
    """The gradient in a weight that all lanes share is that of the good lanes, though another is NaN."""
    starts = np.array([[1.0], [np.nan], [-1.0]], np.float32)

    @jax.jit
    def slope(w):
        def loss(w):
            h, info = jaxfp.fixed_point(systems.scalar_tanh, w, starts, has_aux=True)
            return jnp.where(info.status == jaxfp.FIXED, jnp.abs(h[:, 0]), 0).sum(), h

        return jax.grad(loss, has_aux=True)(w)

    found, hidden = slope(jnp.asarray(1.5))
    h = float(hidden[0, 0])
    assert np.isnan(hidden[1])
    np.testing.assert_allclose(found, 2 * h * (1 - h**2) / (1 - 1.5 * (1 - h**2)), rtol=1e-5)  # float32


def test_float64_numpy_is_float64_and_points_come_in_rows():
    """With x64 off float64 NumPy gives float64 NumPy, rows as well as one state; a flow's points are its zeros."""
    hidden, info = jaxfp.fixed_point(
        systems.scalar_tanh, np.float32(1.5), np.array([[1.0], [-2.0], [0.1]]), has_aux=True
    )
    assert not jax.config.jax_enable_x64
    assert hidden.dtype == info.residual.dtype == np.float64
    assert isinstance(hidden, np.ndarray)
    np.testing.assert_allclose(np.tanh(1.5 * hidden), hidden, rtol=0, atol=2e-16)
    assert info.status.tolist() == [jaxfp.FIXED] * 3
    assert (abs(hidden[:2]) > 0.85).all()
    # Of the ghost before its fold: x1 = x2 = 1/2 + sqrt(-a), J = [[-2 x1, 1], [1, -1]].
    x, flow = jaxfp.fixed_point(toys.ghost, -0.01, np.array([0.7, 0.6]), kind="flow", has_aux=True)
    np.testing.assert_allclose(x, 0.6, rtol=1e-14)
    norm = {
        p: np.linalg.norm([[-1.2, 1], [1, -1]], p) * np.linalg.norm([[-1, -1], [-1, -1.2]], p) / 0.2 for p in (1, 2)
    }
    assert norm[2] <= flow.condition <= norm[1] * (1 + 1e-9)


def test_a_continuum_is_no_function_of_params():
    """Of a line attractor r = 0 and I - J is singular: FOLD, NaN, and with aux the point itself, unmoved."""
    way = np.array([0.6, 0.8])
    start = 0.7 * way
    assert np.isnan(jaxfp.fixed_point(systems.line, way, start)).all()
    hidden, info = jaxfp.fixed_point(systems.line, way, start, has_aux=True)
    assert info.status == jaxfp.FOLD
    assert info.condition > 1e14
    np.testing.assert_allclose(hidden, start, rtol=1e-15)


def beside(params, hidden, inputs):
    """One step: h' = h + a + (h - 1)^2, with a fold at a = 0, h = 1, where rounding is that of numbers near 1."""
    return hidden + params + (hidden - 1) ** 2


def test_a_fold_that_rounding_could_undo_is_a_fold():
    """Points 1 -+ sqrt(-a): apart by 2e-4 they are FIXED; by 6e-8, with residuals of 1e-15 for rounding, at a FOLD."""
    for a, status in ((-1e-8, jaxfp.FIXED), (-1e-15, jaxfp.FOLD), (0.0, jaxfp.FOLD)):
        hidden, info = jaxfp.fixed_point(beside, a, np.array([0.5]), has_aux=True)
        assert info.status == status
        np.testing.assert_allclose(hidden, 1 - np.sqrt(-a), rtol=0, atol=5e-8)


def test_a_few_steps_are_not_enough_and_said_so():
    """With max_steps=1 from afar the status is MAX_STEPS and, without aux, the answer NaN."""
    start = np.array([0.7])
    assert jaxfp.fixed_point(systems.fold, -0.01, start, has_aux=True, max_steps=2)[1].status == jaxfp.MAX_STEPS
    assert np.isnan(jaxfp.fixed_point(systems.fold, -0.01, start, max_steps=2)).all()


def closed_over(weights):
    def step(params, hidden, inputs):
        return jnp.tanh(weights * hidden + params["b"][params["row"]])

    return step


def test_integers_among_params_and_weights_closed_over():
    """Integer leaves do no harm; params that the step function closes over are differentiated."""
    params = {"b": jnp.array([0.0, 0.1]), "row": jnp.asarray(1)}

    @jax.jit
    def slopes(w, b):
        def point(w, b):
            return jaxfp.fixed_point(closed_over(w), {**params, "b": b}, jnp.ones(1))[0]

        return point(w, b), jax.grad(point, argnums=(0, 1))(w, b)

    h, (dw, db) = slopes(jnp.asarray(1.5), params["b"])
    c = (1 - h**2) / (1 - 1.5 * (1 - h**2))
    np.testing.assert_allclose([dw, *db], [c * h, 0, c], rtol=1e-5)  # float32


def test_a_memory_is_moved_to_a_chosen_place():
    """Gradients through two fixed points, jitted and vmapped, train a network to have its memories elsewhere."""
    params = {"w_rec": 1.5 * jnp.eye(4) + 0.1 * jax.random.normal(jax.random.key(0), (4, 4)), "b": jnp.zeros(4)}
    start = jnp.array([[0.8, 0.8, 0.8, 0.8], [-0.8, 0.8, -0.8, 0.8]])
    chosen = jnp.array([[0.9, 0.75, 0.85, 0.8], [-0.75, 0.9, -0.8, 0.85]])
    optimizer = optax.adam(0.003)

    def loss(params, hidden):
        hidden = jax.vmap(lambda h: jaxfp.fixed_point(equations.vanilla, params, h))(hidden)
        return ((hidden - chosen) ** 2).sum(), hidden

    @jax.jit
    def train(params, hidden):
        def step(carry, _):
            params, hidden, state = carry
            (value, hidden), slopes = jax.value_and_grad(loss, has_aux=True)(params, hidden)
            updates, state = optimizer.update(slopes, state)
            return (optax.apply_updates(params, updates), hidden, state), value

        return jax.lax.scan(step, (params, hidden, optimizer.init(params)), length=300)

    with jax.numpy_dtype_promotion("standard"):  # optax.adam needs it
        (params, *_), values = train(params, start)
    assert values[0] > 0.01
    assert values[-1] < 1e-6
    # The network itself, started near the places chosen, goes there and stays.
    ended = jaxfp.simulate(equations.vanilla, params, np.asarray(chosen, float) * 0.95, n_time=300)[:, -1]
    np.testing.assert_allclose(ended, chosen, atol=2e-3)  # the root of the last loss
    assert (jaxfp.spectrum(jaxfp.linearize(equations.vanilla, params, ended).jacobian).verdict == "stable").all()


@pytest.mark.parametrize("kind", ["map", "flow"])
def test_eigenvalues_move_as_finite_differences_of_numpys(kind):
    """In 8 tanh networks each d lambda, real or complex, is the central difference of NumPy's, the point moving."""
    params, drives, hidden, _ = networks("tanh", 5, 8)
    ways = jax.tree.map(lambda x: np.random.default_rng(1).normal(size=x.shape), (params, drives))
    step_fn = equations.vanilla if kind == "map" else leaky
    for _ in range(200):  # where Newton's method starts
        hidden = np.tanh(
            np.einsum("pij,pj->pi", params["w_rec"], hidden)
            + np.einsum("pij,pj->pi", params["w_in"], drives)
            + params["b"]
        )

    def at(params, drive, hidden0):
        h, info = jaxfp.fixed_point(step_fn, params, hidden0, drive, kind=kind, has_aux=True)
        return h, jaxfp.linearize(step_fn, params, h, drive).jacobian, info.status

    def slope(params, drive, way, h, left, right):
        def modes(params, drive):
            return jaxfp.eigenvalue(step_fn, params, h, drive, left, right, kind=kind)

        return jax.jvp(modes, (params, drive), way)

    with jax.enable_x64(True):
        run = jax.jit(jax.vmap(at))

        def spectra(shift, hidden0):
            moved = jax.tree.map(lambda x, way: x + shift * way, (params, drives), ways)
            h, jacobian, status = run(*moved, hidden0)
            return np.asarray(h), jaxfp.spectrum(np.asarray(jacobian), kind=kind), np.asarray(status)

        h, modes, status = spectra(0.0, hidden)
        value, moves = jax.tree.map(
            np.asarray, jax.jit(jax.vmap(slope))(params, drives, ways, h, modes.left, modes.right)
        )
        e = 1e-5
        (_, up, _), (_, down, _) = spectra(e, h), spectra(-e, h)
    assert (status == jaxfp.FIXED).all()
    np.testing.assert_allclose(value, modes.eigenvalues, rtol=0, atol=1e-14 * modes.condition.max())
    nearest = [
        np.take_along_axis(m.eigenvalues, abs(m.eigenvalues[:, None] - modes.eigenvalues[..., None]).argmin(2), 1)
        for m in (up, down)
    ]
    numeric = (nearest[0] - nearest[1]) / (2 * e)
    assert (abs(modes.eigenvalues.imag) > 0.1).any(axis=1).sum() >= 4  # complex ones are among them
    # Of second order, e^2 = 1e-10 times the third derivative, which grows as eigenvalues come near each other.
    np.testing.assert_allclose(moves, numeric, rtol=1e-6, atol=1e-6 * abs(numeric).mean())
