"""Networks that read sentiment: how one is made, as arrays for a file and back, and what it says of texts."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxfp import arguments
from jaxfp.models import classifier
from jaxfp.tasks import sentiment
from jaxfp.types import StepFn

_CHUNK = 256  # texts that are classified at once


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the same for every seed.

    Attributes:
      cell: "vanilla", "ugrnn", "gru", "lstm" or "linear".
      n_units: of the cell; the state of an LSTM is twice as long.
      n_embedding: length of an embedded word.
      n_words: size of the vocabulary, pad and unknown word included.
      n_tokens: of longer reviews, so many tokens are read; None reads all.
      keep: "last" or "first", which of them.
      n_buckets: shapes that batches come in.
      learning_rate: first one of the cosine decay.
      weight_decay: of AdamW, on all weights, a unit of learning rate.
      word_dropout: chance that a word is hidden in training.
      clip: global norm of the gradient.
      batch_size: reviews a step.
      n_epochs: at most.
      patience: epochs in a row that may be no better.
    """

    cell: str = "gru"
    n_units: int = 64
    n_embedding: int = 64
    n_words: int = 10_000
    n_tokens: int | None = 200
    keep: str = "last"
    n_buckets: int = 3
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    word_dropout: float = 0.0
    clip: float = 1.0
    batch_size: int = 64
    n_epochs: int = 5
    patience: int = 3


class Network(NamedTuple):
    """A classifier and the words that it knows.

    Attributes:
      step_fn: its step.
      params: classifier.ClassifierParams.
      vocabulary: word k is row k of the embedding; the first two are the pad and the unknown word.
    """

    step_fn: StepFn
    params: classifier.ClassifierParams
    vocabulary: tuple[str, ...]


def init_network(seed: int, recipe: Recipe, vocabulary: tuple[str, ...]) -> Network:
    """The network that training with this seed begins with: the untrained control.

    Args:
      seed: of the weights.
      recipe: cell and sizes.
      vocabulary: of the training split.

    Returns:
      Network.

    Example:
      >>> init_network(0, Recipe("lstm", n_units=4), ("<pad>", "<unknown>", "a")).params.hidden0.shape
      (8,)
    """
    key, _ = jax.random.split(jax.random.key(seed))
    return Network(
        *classifier.init(key, recipe.cell, len(vocabulary), recipe.n_embedding, recipe.n_units), tuple(vocabulary)
    )


def as_arrays(network: Network) -> dict[str, np.ndarray]:
    """A network as arrays for a file.

    Args:
      network: of any cell.

    Returns:
      embedding, w_out, b_out, hidden0, vocabulary, and those of the cell as `cell.` and their path.

    Example:
      >>> network = init_network(0, Recipe("vanilla", n_units=4), ("<pad>", "<unknown>", "a"))
      >>> sorted(as_arrays(network))[:2]
      ['b_out', 'cell.dense_h.kernel']
    """
    params = network.params
    cell = traverse_util.flatten_dict({"cell": params.cell}, sep=".")
    others = {"embedding": params.embedding, "w_out": params.readout[0], "b_out": params.readout[1]}
    named = {**cell, **others, "hidden0": params.hidden0, "vocabulary": np.array(network.vocabulary)}
    return {name: np.asarray(array) for name, array in named.items()}


def as_network(cell: str, arrays: Mapping[str, Any]) -> Network:
    """The other way round.

    Args:
      cell: its kind.
      arrays: those of `as_arrays`; stored in float16 they become float32.

    Returns:
      Network.

    Raises:
      ValueError: if arrays are missing or have the wrong shape.

    Example:
      >>> network = init_network(0, Recipe("vanilla", n_units=4), ("<pad>", "<unknown>", "a"))
      >>> as_network("vanilla", as_arrays(network)).vocabulary
      ('<pad>', '<unknown>', 'a')
    """
    needed = {"embedding", "w_out", "b_out", "hidden0", "vocabulary"}
    if not needed <= set(arrays):
        raise ValueError(f"a sentiment network needs {sorted(needed)}, got {sorted(arrays)}.")
    arguments.check_array("embedding", arrays["embedding"], "(n_words, n_embedding)", (2,))
    arguments.check_array("hidden0", arrays["hidden0"], "(n_hidden,)", (1,))
    (n_words, n_embedding), (n_hidden,) = arrays["embedding"].shape, arrays["hidden0"].shape
    n_units = n_hidden // 2 if cell == "lstm" else n_hidden
    step_fn, start = classifier.build_cell(jax.random.key(0), cell, n_embedding, n_units)
    wanted = {name: array.shape for name, array in traverse_util.flatten_dict({"cell": start}, sep=".").items()}
    wanted |= {"embedding": (n_words, n_embedding), "hidden0": (n_hidden,), "vocabulary": (n_words,)}
    wanted |= {"w_out": (n_hidden,), "b_out": ()}
    got = {name: np.shape(array) for name, array in arrays.items()}
    if wanted != got:
        name = next(name for name in sorted(wanted | got) if wanted.get(name) != got.get(name))
        raise ValueError(f"{name} must have shape {wanted.get(name)}, got {got.get(name)}.")
    weights = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items() if name != "vocabulary"}
    nested = traverse_util.unflatten_dict(weights, sep=".")
    readout = (weights["w_out"], weights["b_out"])
    params = classifier.ClassifierParams(weights["embedding"], nested["cell"], readout, weights["hidden0"])
    return Network(step_fn, params, tuple(map(str, arrays["vocabulary"])))


def encode(recipe: Recipe, vocabulary: tuple[str, ...], reviews: sentiment.Reviews) -> sentiment.Texts:
    """Reviews as a network of this recipe reads them.

    Args:
      recipe: which tokens of long reviews are read.
      vocabulary: of the network.
      reviews: of one split.

    Returns:
      sentiment.Texts.

    Example:
      >>> reviews = sentiment.load_reviews((["b a"], [1]))
      >>> encode(Recipe(n_tokens=1), ("<pad>", "<unknown>", "a"), reviews).tokens.tolist()
      [[2]]
    """
    return sentiment.encode(reviews, vocabulary, recipe.n_tokens, recipe.keep)


def classify(network: Network, texts: sentiment.Texts, n_buckets: int = 3) -> np.ndarray:
    """The network's logit of each text.

    Args:
      network: of any cell.
      texts: encoded with its vocabulary.
      n_buckets: shapes that they are read in.

    Returns:
      (n_texts,), in the order of the texts, positive where it says 1.

    Example:
      >>> network = init_network(0, Recipe("vanilla", n_units=4), ("<pad>", "<unknown>", "a"))
      >>> classify(network, encode(Recipe(), network.vocabulary, sentiment.load_reviews((["a"], [1])))).shape
      (1,)
    """
    numbered = texts._replace(labels=np.arange(len(texts.labels)))
    said = np.zeros(len(texts.labels), np.float32)
    for part in sentiment.bucket(numbered, n_buckets):
        for first in range(0, len(part.labels), _CHUNK):
            rows = np.resize(np.arange(first, min(first + _CHUNK, len(part.labels))), _CHUNK)  # one shape a bucket
            said[part.labels[rows]] = _logits(network.step_fn, network.params, part.tokens[rows], part.lengths[rows])
    return said


def accuracy(network: Network, texts: sentiment.Texts, n_buckets: int = 3) -> float:
    """Share of texts that the network puts into their class.

    Args:
      network: of any cell.
      texts: encoded with its vocabulary.
      n_buckets: shapes that they are read in.

    Returns:
      0 to 1.

    Example:
      >>> network = init_network(0, Recipe("vanilla", n_units=4), ("<pad>", "<unknown>", "a"))
      >>> accuracy(network, encode(Recipe(), network.vocabulary, sentiment.load_reviews((["a"], [1])))) in (0, 1)
      True
    """
    return float(np.mean((classify(network, texts, n_buckets) > 0) == texts.labels))


@functools.partial(jax.jit, static_argnums=0)
def _logits(step_fn: StepFn, params: Any, tokens: Any, lengths: Any) -> jax.Array:
    return jax.vmap(classifier.logits, (None, None, 0, 0))(step_fn, params, tokens, lengths)
