"""JSLDS: one step is the Taylor expansion with its constant replaced, and the four terms train both networks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems

import jaxfp
from jaxfp.models import adapters, equations, jslds, jslds_losses

KEY = jax.random.key(0)
N_HIDDEN, N_INPUTS, N_TIME, N_TRIALS = 6, 4, 7, 3
DTYPES = ["float32", "float64"]
CELLS = ["tanh", "gru", "ugrnn", "lstm"]
BOTH = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture
def _in(dtype):
    """Both dtypes, whatever the default."""
    with jax.enable_x64(dtype == "float64"):
        yield


def random_like(key, tree, dtype):
    """A pytree of the same shapes, with entries N(0, 1/4)."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten(
        jax.random.normal(k, jnp.shape(leaf), dtype) / 2 for k, leaf in zip(keys, leaves, strict=True)
    )


@functools.cache
def network(cell="gru", dtype="float32", static_lines=()):
    """A small network with random weights everywhere, in the expansion network as well."""
    n_units = N_HIDDEN // 2 if cell == "lstm" else N_HIDDEN
    step_fn, weights = adapters.from_arrays(cell, equations.init_arrays(KEY, cell, n_units, N_INPUTS))
    expand_fn, expansion = jslds.build_expansion(N_HIDDEN, dtype)
    params = jslds.init_params(KEY, weights, expansion, 2, N_HIDDEN, n_units)
    return jslds.Jslds(step_fn, expand_fn, static_lines), random_like(jax.random.key(1), params, dtype)


def trials(dtype="float32"):
    """Inputs and targets."""
    key_inputs, key_targets = jax.random.split(jax.random.key(2))
    inputs = jax.random.normal(key_inputs, (N_TRIALS, N_TIME, N_INPUTS), dtype)
    return inputs, jax.random.normal(key_targets, (N_TRIALS, N_TIME, 2), dtype)


roll_out = jax.jit(jslds.roll_out, static_argnums=0)


def mean_square(outputs, targets):
    return jnp.mean(jnp.square(outputs - targets))


def always_there(params, hidden):
    """An expansion network that knows one point."""
    return params


@functools.partial(jax.jit, static_argnums=0)
def with_jacobians(model, cell, before, points, inputs, static):
    """The next state of the linear branch by the formula, with Jacobians formed in reverse mode; rows are steps."""

    def one(state, e, u, u_static):
        by_state, by_input = jax.jacrev(model.step_fn, argnums=(1, 2))(cell, e, u_static)
        return e + by_state @ (state - e) + by_input @ (u - u_static)

    return jax.vmap(one)(before, points, inputs, static)


@BOTH
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.usefixtures("_in")
def test_a_step_is_the_formula_with_explicit_jacobians(cell, dtype):
    """J1: to 1e-6 in float32 and 1e-12 in float64, sums of 6 products of numbers of size 1; E gets the state before."""
    model, params = network(cell, dtype, static_lines=(3,))
    inputs = trials(dtype)[0][0]
    static = jnp.where(jnp.arange(N_INPUTS)[None] == 3, inputs, 0)
    both = roll_out(model, params, inputs)
    assert {leaf.dtype for leaf in both} == {jnp.dtype(dtype)}
    tolerance = {"float32": 1e-6, "float64": 1e-12}[dtype]
    before = jnp.concatenate([params.hidden0[None], both.switching[:-1]])
    wanted = with_jacobians(model, params.cell, before, both.expansion, inputs, static)
    np.testing.assert_allclose(both.switching, wanted, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(both.expansion, model.expand_fn(params.expansion, before), atol=tolerance)
    images = jax.vmap(model.step_fn, (None, 0, 0))(params.cell, both.expansion, static)
    np.testing.assert_allclose(both.image, images, rtol=tolerance, atol=tolerance)
    # Without the static line in u* the same states are no solution: the check can fail.
    other = with_jacobians(model, params.cell, before, both.expansion, inputs, 0 * static)
    assert np.abs(other - both.switching).max() > 1e-3


@BOTH
@pytest.mark.usefixtures("_in")
def test_the_network_branch_is_the_network(dtype):
    model, params = network("gru", dtype)
    inputs = trials(dtype)[0][0]
    states = jaxfp.simulate(model.step_fn, params.cell, params.hidden0, inputs)
    np.testing.assert_allclose(roll_out(model, params, inputs).hidden, states, atol=10 * jnp.finfo(dtype).eps)


def affine_network(dtype, error=0.0):
    """A contracting affine map with its fixed point e*, and an expansion network that says e* + error."""
    A = jnp.asarray([[0.5, 0.2], [-0.3, 0.6]], dtype)
    cell = {"A": A, "b": jnp.asarray([0.3, -0.2], dtype), "B": jnp.asarray([[1.0], [0.5]], dtype)}
    point = jnp.linalg.solve(jnp.eye(2, dtype=dtype) - A, cell["b"])
    params = jslds.JsldsParams(cell, point + error, (jnp.ones((1, 2), dtype), jnp.zeros(1, dtype)), jnp.ones(2, dtype))
    return jslds.Jslds(systems.affine, always_there), params


@BOTH
@pytest.mark.usefixtures("_in")
def test_an_affine_network_about_its_fixed_point_is_followed_exactly(dtype):
    """J2, with noise as well, since it is the same in both branches; every state is of size 1."""
    model, params = affine_network(dtype)
    key_inputs, key_noise = jax.random.split(KEY)
    inputs, noise = jax.random.normal(key_inputs, (20, 1), dtype), jax.random.normal(key_noise, (20, 2), dtype)
    for blur in (None, noise):
        both = roll_out(model, params, inputs, blur)
        np.testing.assert_allclose(both.switching, both.hidden, atol=100 * jnp.finfo(dtype).eps)
        np.testing.assert_allclose(both.image, both.expansion, atol=10 * jnp.finfo(dtype).eps)


def test_about_another_point_an_affine_network_is_missed_by_what_the_point_moves():
    """The constant F(e) is replaced by e, so a - h obeys d' = A d + (e - F(e)), and ends at e - e*."""
    model, params = affine_network("float32", error=0.25)
    both = roll_out(model, params, jnp.ones((60, 1)))
    np.testing.assert_allclose(both.switching[-1] - both.hidden[-1], 0.25, rtol=1e-5)
    A = np.asarray(params.cell["A"])
    moved = np.full(2, 0.25) - A @ np.full(2, 0.25)
    np.testing.assert_allclose(both.switching[1] - both.hidden[1], moved + A @ moved, rtol=1e-5)


def test_expansion_network_begins_as_a_double_tanh():
    """Not as the identity."""
    expand_fn, params = jslds.build_expansion(5)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(params))
    states = jnp.linspace(-2, 2, 15).reshape(3, 5)
    np.testing.assert_array_equal(expand_fn(params, states), jnp.tanh(jnp.tanh(states)))
    assert expand_fn == jslds.build_expansion(5)[0]
    assert hash(expand_fn) == hash(jslds.build_expansion(5)[0])
    random = random_like(KEY, params, "float32")
    first, second = ({name: np.asarray(a, np.float64) for name, a in random[k].items()} for k in ("first", "second"))
    x = np.asarray(states, np.float64)
    for layer in (first, second):
        x = np.tanh(x + x @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(expand_fn(random, states), x, atol=1e-5)


def test_static_lines_are_kept_and_the_others_are_zero():
    model, params = network("tanh", static_lines=(1, 3))
    inputs = trials()[0]
    static = jslds.static_inputs(model, inputs)
    np.testing.assert_array_equal(static[..., [1, 3]], inputs[..., [1, 3]])
    assert not np.any(static[..., [0, 2]])
    assert not np.any(jslds.static_inputs(dataclasses.replace(model, static_lines=()), inputs))
    # Where the inputs are their static part, their derivative has nothing to act on: only A is left.
    both = roll_out(model, params, static[0])
    linear = jaxfp.linearize(model.step_fn, params.cell, both.expansion, static[0])
    before = jnp.concatenate([params.hidden0[None], both.switching[:-1]])
    wanted = both.expansion + jnp.einsum("tij,tj->ti", linear.jacobian, before - both.expansion)
    np.testing.assert_allclose(both.switching, wanted, atol=1e-5)


def test_given_expansion_points_take_the_place_of_those_proposed():
    """Its own points back again change nothing; in another order they do."""
    model, params = network()
    inputs = trials()[0][0]
    own = roll_out(model, params, inputs)
    again = roll_out(model, params, inputs, expansion=own.expansion)
    np.testing.assert_allclose(again.switching, own.switching, atol=1e-6)
    other = roll_out(model, params, inputs, expansion=own.expansion[::-1])
    assert np.abs(other.switching - own.switching).max() > 1e-2
    np.testing.assert_array_equal(other.hidden, own.hidden)


def directional(term, params, part, dtype):
    """Derivative of a term along a random direction in `part` of the weights: by autodiff, by central differences."""
    direction = jax.tree.map(jnp.zeros_like, params)
    direction = direction._replace(**{part: random_like(jax.random.key(3), getattr(params, part), dtype)})
    exact = jax.jvp(term, (params,), (direction,))[1]
    step = 1e-5

    def at(sign):
        return term(jax.tree.map(lambda x, d: x + sign * step * d, params, direction))

    reverse = sum(
        jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(jax.grad(term)(params)), jax.tree.leaves(direction), strict=True)
    )
    return exact, reverse, (at(1) - at(-1)) / (2 * step)


@pytest.mark.parametrize("name", ["expansion", "approximation"])
@pytest.mark.parametrize("dtype", ["float64"])
@pytest.mark.usefixtures("_in")
def test_gradients_of_both_regularisers_reach_both_networks(name, dtype):
    """J3. Central differences of step 1e-5 err by 1e-10 and by rounding, 1e-11; the derivatives are above 1e-3."""
    model, params = network("gru", dtype)
    inputs, targets = trials(dtype)

    @jax.jit
    def term(params):
        return getattr(jslds_losses.loss_terms(model, params, inputs, targets, mean_square), name)

    for part in ("cell", "expansion", "hidden0"):
        exact, reverse, differences = directional(term, params, part, dtype)
        assert abs(exact) > 1e-3
        np.testing.assert_allclose(reverse, exact, rtol=1e-9)
        np.testing.assert_allclose(differences, exact, rtol=1e-6)


@BOTH
@pytest.mark.usefixtures("_in")
def test_the_network_alone_is_trained_when_nothing_else_counts(dtype):
    """J4: the loss is that of the plain network, its gradient, too, and the expansion network gets none."""
    model, params = network("gru", dtype)
    inputs, targets = trials(dtype)
    alone = jslds_losses.Strengths(1.0, 0.0, 0.0, 0.0)

    def loss(params):
        return jslds_losses.total_loss(jslds_losses.loss_terms(model, params, inputs, targets, mean_square), alone)

    def plain(params):
        states = jaxfp.simulate(model.step_fn, params.cell, params.hidden0, inputs)
        return mean_square(states @ params.readout[0].T + params.readout[1][None, None], targets)

    def of_the_library(params):
        return jslds_losses.network_loss(model, params, inputs, targets, mean_square)

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    wanted, wanted_gradient = jax.jit(jax.value_and_grad(plain))(params)
    tolerance = 100 * jnp.finfo(dtype).eps
    np.testing.assert_allclose(value, wanted, rtol=tolerance)
    np.testing.assert_allclose(jax.jit(of_the_library)(params), wanted, rtol=tolerance)
    assert alone.network_alone
    assert not jslds_losses.Strengths().network_alone
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient.expansion))
    for leaf, other in zip(jax.tree.leaves(gradient.cell), jax.tree.leaves(wanted_gradient.cell), strict=True):
        np.testing.assert_allclose(leaf, other, atol=tolerance)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient.cell))


def test_each_strength_counts_its_own_term():
    """Ramp and all; the terms are means, but for the squares of the weights."""
    model, params = network()
    inputs, targets = trials()
    terms = jslds_losses.loss_terms(model, params, inputs, targets, mean_square)
    both = jax.vmap(functools.partial(jslds.roll_out, model, params))(inputs)
    np.testing.assert_allclose(terms.expansion, np.mean((both.expansion - both.image) ** 2), rtol=1e-6)
    np.testing.assert_allclose(terms.approximation, np.mean((both.switching - both.hidden) ** 2), rtol=1e-6)
    said = both.switching @ params.readout[0].T + params.readout[1][None, None]
    np.testing.assert_allclose(terms.jslds, np.mean((said - targets) ** 2), rtol=1e-6)
    np.testing.assert_allclose(terms.l2, sum(np.sum(np.square(x)) for x in jax.tree.leaves(params)), rtol=1e-6)
    fives = jslds_losses.LossTerms(1.0, 10.0, 100.0, 1000.0, 10000.0)
    assert jslds_losses.total_loss(fives, jslds_losses.Strengths(1, 2, 3, 4, 5)) == 1 + 20 + 300 + 4000 + 50000
    assert jslds_losses.total_loss(fives, jslds_losses.Strengths(1, 2, 3, 4, 5), ramp=0.0) == 1 + 20 + 50000


def test_an_lstm_is_read_from_its_h_alone():
    model, params = network("lstm")
    assert params.readout[0].shape == (2, N_HIDDEN // 2)
    states = roll_out(model, params, trials()[0][0]).hidden
    outputs = jslds.read_out(params.readout, states)
    np.testing.assert_array_equal(outputs, jslds.read_out(params.readout, states.at[:, N_HIDDEN // 2 :].set(7.0)))


def test_wrong_arguments_are_refused_by_name():
    model, params = network()
    inputs = trials()[0][0]
    with pytest.raises(ValueError, match=r"noise must be \(n_time, n_hidden\) = \(7, 6\), got \(7, 5\)"):
        roll_out(model, params, inputs, jnp.zeros((7, 5)))
    with pytest.raises(ValueError, match="expansion must be"):
        roll_out(model, params, inputs, expansion=jnp.zeros((6, 6)))
    with pytest.raises(ValueError, match=r"inputs must be .*\(n_time, n_inputs\)"):
        roll_out(model, params, inputs[None])
    with pytest.raises(ValueError, match="static_lines must be lines of 4 inputs"):
        jslds.static_inputs(dataclasses.replace(model, static_lines=(4,)), inputs)
    with pytest.raises(ValueError, match="lam_e must be a finite number"):
        jslds_losses.Strengths(lam_e=-1.0)
    with pytest.raises(ValueError, match="n_hidden must be a positive integer"):
        jslds.build_expansion(0)
    with pytest.raises(ValueError, match="n_units must be a positive integer"):
        jslds.init_params(KEY, None, None, 1, 2, 0)
