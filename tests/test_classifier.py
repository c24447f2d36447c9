"""A classifier reads the state after the last token of the text, whatever cell it has and however long the padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfp.models import classifier

N_WORDS, N_EMBEDDING, N_UNITS = 12, 3, 5


@pytest.fixture(scope="module", params=classifier.CELLS)
def network(request):
    step_fn, params = classifier.init(jax.random.key(3), request.param, N_WORDS, N_EMBEDDING, N_UNITS)
    pad = jax.random.normal(jax.random.key(4), (N_EMBEDDING,))  # a pad that would be seen if it were read
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
    padded = classifier.logits(step_fn, params, jnp.array([*text, 0, 0, 0]), len(text))
    assert float(padded) == pytest.approx(float(true), abs=1e-6)
    assert abs(float(padded) - float(late)) > 1e-3  # reading at index `length` is another answer


def test_padding_changes_no_gradient(network):
    """Of the loss by any weight; none reaches the pad's row."""
    _, step_fn, params = network

    def loss(params, tokens, lengths):
        logit = jax.vmap(classifier.logits, (None, None, 0, 0))(step_fn, params, tokens, lengths)
        return classifier.cross_entropy(logit, jnp.array([1, 0]))

    texts = jnp.array([[3, 5, 8], [2, 2, 6]])
    lengths = jnp.array([3, 3])
    short = jax.grad(loss)(params, texts, lengths)
    long = jax.grad(loss)(params, jnp.pad(texts, ((0, 0), (0, 4))), lengths)
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


def test_weights_begin_as_the_paper_says():
    _, params = classifier.init(jax.random.key(0), "lstm", 500, 16, 64)
    embedding = np.asarray(params.embedding)
    np.testing.assert_allclose(embedding.T @ embedding, np.eye(16), atol=0.1)  # but for the pad's row, which is 0
    assert not embedding[classifier.PAD].any()
    forget = np.asarray(params.cell["dense_h"]["bias"]).reshape(4, 64)
    np.testing.assert_array_equal(forget, [[0] * 64, [1] * 64, [0] * 64, [0] * 64])
    # 16384 normal weights: the standard deviation of their standard deviation is 0.6 %
    assert np.asarray(params.cell["dense_h"]["kernel"]).std() * 64**0.5 == pytest.approx(1, rel=0.03)
    assert not np.asarray(params.hidden0).any()


def test_wrong_arguments_are_named():
    step_fn, params = classifier.init(jax.random.key(0), "gru", 5, 2, 2)
    with pytest.raises(ValueError, match=r"tokens must be integers of shape \(n_time,\)"):
        classifier.states(step_fn, params, jnp.zeros(3))
    with pytest.raises(ValueError, match="kind must be"):
        classifier.init(jax.random.key(0), "rnn", 5, 2, 2)
