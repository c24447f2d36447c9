"""A switching linear system for a given network: exact where it can be, and nothing but the expansion network moves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import systems

from jaxfp.models import adapters, equations, jslds, jslds_losses, jslds_post_hoc

KEY = jax.random.key(0)
terms_of = jax.jit(jslds_post_hoc.post_hoc_terms, static_argnums=0)


def always_there(params, hidden):
    """An expansion network that knows one point."""
    return params


def states_of(step_fn, cell, start, inputs):
    """(n_trials, n_time + 1, n_hidden), the first state included."""

    def step(hidden, u):
        hidden = step_fn(cell, hidden, u)
        return hidden, hidden

    after = jax.vmap(lambda h, u: jax.lax.scan(step, h, u)[1])(start, inputs)
    return jnp.concatenate([start[:, None], after], axis=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_fixed_point_of_an_affine_network_is_found_from_its_states(dtype):
    """The loss is quadratic in the one point there is to learn, and 0 at the fixed point alone."""
    with jax.enable_x64(dtype == "float64"):
        A = jnp.asarray([[0.5, 0.2], [-0.3, 0.6]], dtype)
        cell = {"A": A, "b": jnp.asarray([0.3, -0.2], dtype), "B": jnp.asarray([[1.0], [0.5]], dtype)}
        start, inputs = jax.random.normal(KEY, (8, 2), dtype), jax.random.normal(KEY, (8, 10, 1), dtype)
        hidden = states_of(systems.affine, cell, start, inputs)
        model = jslds.Jslds(systems.affine, always_there)
        expansion = jnp.zeros(2, dtype)
        found = jslds_post_hoc.fit_expansion(
            KEY, model, cell, expansion, hidden, inputs, optax.sgd(0.5), 200, batch_size=4
        )
        wanted = np.linalg.solve(np.eye(2) - np.asarray(A, np.float64), np.asarray(cell["b"], np.float64))
        eps = jnp.finfo(dtype).eps
        # States of size 1 are sums of ten steps: their rounding is that of some tens of operations.
        np.testing.assert_allclose(found.params, wanted, atol=100 * eps)
        terms = terms_of(model, cell, found.params, hidden, inputs)
        assert terms.approximation < (100 * eps) ** 2
        assert terms.expansion < (100 * eps) ** 2
        before = terms_of(model, cell, expansion, hidden, inputs)
        assert min(before.approximation, before.expansion) > 1e-2  # the check can fail


@pytest.fixture(scope="module")
def given():
    """A GRU of other people's, its states and inputs: 192 trials to fit to, then 64 others."""
    step_fn, cell = adapters.from_arrays("gru", equations.init_arrays(KEY, "gru", 6, 3, gain=1.5))
    cell = jax.tree.map(jnp.asarray, cell)
    expand_fn, expansion = jslds.build_expansion(6)
    key_start, key_inputs = jax.random.split(KEY)
    start = 0.5 * jax.random.normal(key_start, (256, 6))
    inputs = 0.3 * jax.random.normal(key_inputs, (256, 8, 3))
    return jslds.Jslds(step_fn, expand_fn), cell, expansion, states_of(step_fn, cell, start, inputs), inputs


def test_terms_are_those_of_the_co_trained_loss(given):
    """From one start, on the network's own states."""
    model, cell, expansion, hidden, inputs = given
    inputs = inputs[192:]
    same = states_of(model.step_fn, cell, jnp.broadcast_to(hidden[:1, 0], (64, 6)), inputs)
    params = jslds.JsldsParams(cell, expansion, (jnp.ones((1, 6)), jnp.zeros(1)), hidden[0, 0])
    wanted = jslds_losses.loss_terms(model, params, inputs, jnp.zeros((64, 8, 1)), lambda said, target: jnp.mean(said))
    terms = terms_of(model, cell, expansion, same, inputs)
    np.testing.assert_allclose(terms.approximation, wanted.approximation, rtol=1e-5)
    np.testing.assert_allclose(terms.expansion, wanted.expansion, rtol=1e-5)
    moved = terms_of(model, cell, expansion, same.at[:, 1:].add(1.0), inputs)
    assert moved.approximation > 2 * terms.approximation  # the states that count are those given


def test_only_the_expansion_network_is_trained_and_other_trials_gain(given):
    """No bit of the network changes; the linear system follows trials that it was not fitted to."""
    model, cell, expansion, hidden, inputs = given
    before = jax.tree.map(np.array, cell)
    found = jslds_post_hoc.fit_expansion(
        KEY, model, cell, expansion, hidden[:192], inputs[:192], optax.adam(1e-2), 200, lam_e=0.1, batch_size=32
    )
    for leaf, was in zip(jax.tree.leaves(cell), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(leaf, was)
    assert jax.tree.structure(found.params) == jax.tree.structure(expansion)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found.params))  # all were 0
    at_first, at_last = (
        terms_of(model, cell, weights, hidden[192:], inputs[192:]) for weights in (expansion, found.params)
    )
    assert at_last.approximation < at_first.approximation / 3
    assert at_last.expansion < at_first.expansion


def test_wrong_arguments_are_refused_by_name(given):
    model, cell, expansion, hidden, inputs = given
    with pytest.raises(ValueError, match=r"one state more than inputs, got \(256, 8, 6\) and \(256, 8, 3\)"):
        jslds_post_hoc.post_hoc_terms(model, cell, expansion, hidden[:, 1:], inputs)
    with pytest.raises(ValueError, match="one state more than inputs"):
        jslds_post_hoc.post_hoc_terms(model, cell, expansion, hidden[:0], inputs[:0])
    with pytest.raises(ValueError, match=r"hidden must be floating, \(n_trials, n_time \+ 1, n_hidden\)"):
        jslds_post_hoc.post_hoc_terms(model, cell, expansion, hidden[0], inputs[0])
    for wrong, name in (({"lam_e": -1.0}, "lam_e"), ({"batch_size": 0}, "batch_size")):
        with pytest.raises(ValueError, match=name):
            jslds_post_hoc.fit_expansion(KEY, model, cell, expansion, hidden, inputs, optax.sgd(0.1), 1, **wrong)
