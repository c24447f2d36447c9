"""A classifier reads the state after the last token of the text, whatever cell it has and however long the padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfp.models import classifier

N_WORDS, N_EMBEDDING, N_UNITS = 40, 4, 16


@pytest.fixture(scope="module", params=classifier.CELLS)
def network(request):
    step_fn, params = classifier.init(jax.random.key(3), request.param, N_WORDS, N_EMBEDDING, N_UNITS)
    pad = jax.random.normal(jax.random.key(4), (N_EMBEDDING,))  # a pad that would be seen if it were read
    assert not np.any(np.asarray(params.embedding[classifier.PAD]))
    return request.param, step_fn, params._replace(embedding=params.embedding.at[classifier.PAD].set(pad))


def loop(step_fn, params, tokens):
    hidden = np.asarray(params.hidden0)
    for token in tokens:
        hidden = np.asarray(step_fn(params.cell, jnp.asarray(hidden), params.embedding[token]))
    return hidden


def test_logit_is_read_after_the_last_token_not_a_pad_later(network):
    _, step_fn, params = network
    text = [4, 7, 2, 9]
    w, b = (np.asarray(a) for a in params.readout)
    true, late = loop(step_fn, params, text) @ w + b, loop(step_fn, params, [*text, classifier.PAD]) @ w + b
    read = jax.jit(classifier.logits, static_argnums=0)
    padded = read(step_fn, params, np.array([*text, 0, 0, 0]), len(text))
    assert float(padded) == pytest.approx(float(true), abs=1e-6)
    assert abs(float(padded) - float(late)) > 1e-3  # reading at index `length` is another answer


@pytest.mark.parametrize("network", ["gru"], indirect=True)
def test_padding_changes_no_gradient(network):
    """Of the loss by any weight; none reaches the pad's row."""
    _, step_fn, params = network

    def loss(params, tokens, lengths):
        logit = jax.vmap(classifier.logits, (None, None, 0, 0))(step_fn, params, tokens, lengths)
        return classifier.cross_entropy(logit, jnp.array([1, 0]))

    texts = jnp.array([[3, 5, 8], [2, 2, 6]])
    lengths = jnp.array([3, 3])
    gradient = jax.jit(jax.grad(loss))
    short = gradient(params, texts, lengths)
    long = gradient(params, jnp.pad(texts, ((0, 0), (0, 4))), lengths)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), short, long)
    assert not np.any(np.asarray(long.embedding[classifier.PAD]))
    assert np.any(np.asarray(long.hidden0))


def test_the_readout_sees_the_whole_state(network):
    kind, step_fn, params = network
    n_hidden = 2 * N_UNITS if kind == "lstm" else N_UNITS
    assert params.readout[0].shape == params.hidden0.shape == (n_hidden,)
    assert classifier.states(step_fn, params, jnp.array([2, 3])).shape == (2, n_hidden)


def test_cells_are_the_equations_of_the_paper(network):
    """One step against its formula in NumPy, float64."""
    kind, step_fn, params = network
    with jax.enable_x64():
        cell = jax.tree.map(lambda a: np.asarray(a, np.float64), params.cell)
        rng = np.random.default_rng(0)
        hidden, word = rng.normal(size=params.hidden0.shape), rng.normal(size=N_EMBEDDING)
        got = np.asarray(step_fn(cell, jnp.asarray(hidden), jnp.asarray(word)))
    np.testing.assert_allclose(got, by_hand(kind, cell, hidden, word), atol=1e-12)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(kind, cell, hidden, word):
    if kind == "ugrnn":
        u, c = np.split(cell["w_rec"] @ hidden + cell["w_in"] @ word + cell["b"], 2)
        return sigmoid(u) * hidden + (1 - sigmoid(u)) * np.tanh(c)
    into = word @ cell["dense_i"]["kernel"] + cell["dense_i"].get("bias", 0)
    if kind == "lstm":
        h, c = np.split(hidden, 2)
        i, f, g, o = np.split(into + h @ cell["dense_h"]["kernel"] + cell["dense_h"]["bias"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return np.concatenate([sigmoid(o) * np.tanh(c), c])
    rec = hidden @ cell["dense_h"]["kernel"] + cell["dense_h"].get("bias", 0)
    if kind == "gru":
        (r_in, z_in, n_in), (r_rec, z_rec, n_rec) = np.split(into, 3), np.split(rec, 3)
        z = sigmoid(z_in + z_rec)
        return (1 - z) * np.tanh(n_in + sigmoid(r_in + r_rec) * n_rec) + z * hidden
    return np.tanh(into + rec) if kind == "vanilla" else into + rec


@pytest.mark.parametrize("network", ["lstm"], indirect=True)
def test_weights_begin_as_the_paper_says(network):
    _, _, params = network
    words = np.asarray(params.embedding)[1:]
    # orthonormal columns, but that the pad's row, which is 0, held one word in 40 of them
    np.testing.assert_allclose(words.T @ words, np.eye(N_EMBEDDING), atol=0.2)
    forget = np.asarray(params.cell["dense_h"]["bias"]).reshape(4, N_UNITS)
    np.testing.assert_array_equal(forget, np.outer([0, 1, 0, 0], np.ones(N_UNITS)))
    # 1,024 normal weights: their standard deviation has one of 2.2 %; of four of these
    assert np.asarray(params.cell["dense_h"]["kernel"]).std() * N_UNITS**0.5 == pytest.approx(1, rel=0.09)
    assert not np.asarray(params.hidden0).any()


@pytest.mark.parametrize("network", ["gru"], indirect=True)
def test_wrong_arguments_are_named(network):
    _, step_fn, params = network
    with pytest.raises(ValueError, match=r"tokens must be integers of shape \(n_time,\)"):
        classifier.states(step_fn, params, jnp.zeros(3))
    with pytest.raises(ValueError, match="kind must be"):
        classifier.init(jax.random.key(0), "rnn", 5, 2, 2)
    with pytest.raises(ValueError, match="n_words must be"):
        classifier.init(jax.random.key(0), "gru", 1, 2, 2)
