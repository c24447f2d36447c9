"""A recurrent network that reads a sequence of tokens and says one of two classes.

Token t of a text is row k_t of the embedding E; the cell steps through the rows from a learned first state, and a
linear readout of the state after the last token is the logit of class 1:

  h_0 = hidden0;    h_t = F(h_{t-1}, E[k_t]);    logit = w . h_T + b,    T the true length of the text.

Texts are padded behind their end. F is causal, so what stands there changes no state before it, and the state is read
at T, index length - 1; one step later it would have seen a pad. The readout sees all of the state, of an LSTM (h, c).

Row 0 of the embedding, the pad, begins as 0 and stays 0, as no loss depends on it: it is the input x* = 0 at which such
networks are linearized. Row 1 stands for all words that are not in the vocabulary and is learned like any other.

Weights begin as in Maheswaranathan et al. (2019), NeurIPS, arXiv:1906.10720: every matrix of a cell N(0, 1 / fan-in),
biases 0 but for 1 at the forget gate of an LSTM, orthonormal columns in the embedding, h_0 = 0. Their GRU resets the
state before the recurrent product, flax's after it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxfp import arguments
from jaxfp.models import cells, flax_adapters
from jaxfp.types import Params, StepFn

CELLS = ("vanilla", "ugrnn", "gru", "lstm", "linear")
PAD, UNKNOWN = 0, 1  # rows of the embedding that are no words


class ClassifierParams(NamedTuple):
    """All weights.

    Attributes:
      embedding: (n_words, n_embedding), one row a word; the first two are the pad and the unknown word.
      cell: pytree that the step function understands.
      readout: (w (n_hidden,), b ()).
      hidden0: (n_hidden,), the state before the first token.
    """

    embedding: Any
    cell: Params
    readout: tuple[Any, Any]
    hidden0: Any


def build_cell(key: jax.Array, kind: str, n_embedding: int, n_units: int) -> tuple[StepFn, Params]:
    """A flax.nnx cell as step function and first weights.

    Args:
      key: typed PRNG key.
      kind: "vanilla", "ugrnn", "gru", "lstm", or "linear", h' = A h + B x + b, the control without a nonlinearity.
      n_embedding: length of an embedded word.
      n_units: number of units; the state of an LSTM, (h, c), is twice as long.

    Returns:
      step_fn `(params, hidden, inputs) -> hidden`, equal for equal kinds and sizes, and its params.

    Raises:
      ValueError: for an unknown kind or sizes below 1.

    Example:
      >>> step_fn, params = build_cell(jax.random.key(0), "lstm", 2, 3)
      >>> step_fn(params, jnp.zeros(6), jnp.ones(2)).shape
      (6,)
    """
    arguments.check_choice("kind", kind, CELLS)
    arguments.check_count("n_embedding", n_embedding)
    arguments.check_count("n_units", n_units)
    rngs = nnx.Rngs(key)
    if kind == "ugrnn":
        update: Any = cells.UGRNNCell(n_embedding, n_units, rngs=rngs)
        update.b[...] = jnp.zeros_like(update.b[...])
        return flax_adapters.from_nnx(update)
    fan_in = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
    begin: Any = {"kernel_init": fan_in, "recurrent_kernel_init": fan_in, "rngs": rngs}
    if kind == "gru":
        return flax_adapters.from_nnx(nnx.GRUCell(n_embedding, n_units, **begin))
    if kind == "lstm":
        step_fn, params = flax_adapters.from_nnx(nnx.OptimizedLSTMCell(n_embedding, n_units, **begin))
        bias = params["dense_h"]["bias"].at[n_units : 2 * n_units].set(1)  # gates i, f, g, o
        return step_fn, {**params, "dense_h": {**params["dense_h"], "bias": bias}}
    activation = jnp.tanh if kind == "vanilla" else _identity
    return flax_adapters.from_nnx(nnx.SimpleCell(n_embedding, n_units, activation_fn=activation, **begin))


def _identity(x: jax.Array) -> jax.Array:
    return x


def init(key: jax.Array, kind: str, n_words: int, n_embedding: int, n_units: int) -> tuple[StepFn, ClassifierParams]:
    """A classifier to begin training with.

    Args:
      key: typed PRNG key.
      kind: of the cell, as for `build_cell`.
      n_words: rows of the embedding, pad and unknown word included, at least 2.
      n_embedding: length of an embedded word.
      n_units: number of units.

    Returns:
      step_fn and ClassifierParams, float32.

    Raises:
      ValueError: as `build_cell`, or if there are less than 2 words.

    Example:
      >>> step_fn, params = init(jax.random.key(0), "gru", 10, 4, 8)
      >>> params.embedding.shape, params.hidden0.shape
      ((10, 4), (8,))
    """
    arguments.check_count("n_words", n_words, least=2)
    key_cell, key_embedding, key_readout = jax.random.split(key, 3)
    step_fn, cell = build_cell(key_cell, kind, n_embedding, n_units)
    n_hidden = 2 * n_units if kind == "lstm" else n_units
    embedding = nnx.initializers.orthogonal()(key_embedding, (n_words, n_embedding), jnp.float32)
    readout = jax.random.normal(key_readout, (n_hidden,), jnp.float32) / n_hidden**0.5
    return step_fn, ClassifierParams(
        embedding.at[PAD].set(0), cell, (readout, jnp.zeros((), jnp.float32)), jnp.zeros(n_hidden, jnp.float32)
    )


def states(step_fn: StepFn, params: ClassifierParams, tokens: Any) -> jax.Array:
    """The state after each token of one text.

    Args:
      step_fn: of the cell.
      params: of the classifier.
      tokens: int array of shape (n_time,), rows of the embedding.

    Returns:
      (n_time, n_hidden), h_1 .. h_T. Those behind the end of a padded text have seen pads.

    Raises:
      ValueError: if `tokens` are not integers, (n_time,).

    Example:
      >>> step_fn, params = init(jax.random.key(0), "gru", 10, 4, 8)
      >>> states(step_fn, params, jnp.array([2, 5, 3])).shape
      (3, 8)
    """
    tokens = jnp.asarray(tokens)
    if tokens.ndim != 1 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(f"tokens must be integers of shape (n_time,), got {arguments.came(tokens)}.")

    def step(hidden: jax.Array, word: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = step_fn(params.cell, hidden, word)
        return hidden, hidden

    # all rows at once, before the scan: its gradient adds to the embedding once, not in every step
    return jax.lax.scan(step, jnp.asarray(params.hidden0), jnp.asarray(params.embedding)[tokens])[1]


def read_out(params: ClassifierParams, hidden: Any) -> jax.Array:
    """The logit that the readout sees in given states.

    Args:
      params: of the classifier.
      hidden: (..., n_hidden).

    Returns:
      (...,), positive where class 1 is the likelier.

    Example:
      >>> params = ClassifierParams(None, None, (jnp.ones(2), jnp.zeros(())), None)
      >>> read_out(params, jnp.ones((3, 2))).tolist()
      [2.0, 2.0, 2.0]
    """
    w, b = params.readout
    return jnp.asarray(hidden) @ w + b


def logits(step_fn: StepFn, params: ClassifierParams, tokens: Any, length: Any) -> jax.Array:
    """The logit of one text, read after its last token; `jax.vmap(logits, (None, None, 0, 0))` for many.

    Args:
      step_fn: of the cell.
      params: of the classifier.
      tokens: int array of shape (n_time,), the text and pads behind it.
      length: int scalar, how many of them are the text, 1 to n_time; of an empty text, 1 and a pad.

    Returns:
      Scalar, positive where class 1 is the likelier.

    Raises:
      ValueError: as `states`.

    Example:
      >>> step_fn, params = init(jax.random.key(0), "gru", 10, 4, 8)
      >>> padded = logits(step_fn, params, jnp.array([2, 5, 0, 0]), 2)
      >>> bool(padded == logits(step_fn, params, jnp.array([2, 5]), 2))
      True
    """
    hidden = states(step_fn, params, tokens)
    return read_out(params, hidden[jnp.asarray(length) - 1])


def cross_entropy(logit: Any, labels: Any) -> jax.Array:
    """Binary cross-entropy, mean over the texts.

    Args:
      logit: (n_texts,).
      labels: (n_texts,), 0 or 1.

    Returns:
      Scalar, nats a text: ln 2 for one that cannot tell.

    Example:
      >>> round(float(cross_entropy(jnp.zeros(2), jnp.array([0, 1]))), 4)
      0.6931
    """
    logit = jnp.asarray(logit)
    return jnp.mean(jax.nn.softplus(logit) - jnp.asarray(labels, logit.dtype) * logit)
