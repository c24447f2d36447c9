"""Reviews made of words with known valences, so that the best possible accuracy and every word's worth are known.

A review is L words, L uniform between two lengths, each drawn alike from the vocabulary. Word w has the valence v_w,
of four words in five 0, of the others 2, 1, -1 or -2, as many of each. The evidence of a review and its label are

  s = sum_t v_t prod_{j=1..reach} m_{t-j},      P(label = 1) = sigmoid(beta s),

where m is -1 for the negator, 2 for the intensifier, and 1 for all other words: "not" flips, "very" doubles the next
`reach` words, and both together do both. With `modifiers` = 0 neither occurs, s is the sum of the valences, and the
order of the words says nothing. Who knows s is right with chance sigmoid(beta |s|), and nobody more often.

The control is the same with s = v_L, the valence of the last word alone, which never is 0: nothing has to be kept.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

NEGATOR, INTENSIFIER = 2, 3  # the first words; 0 is the pad, 1 the unknown word, which does not occur
_FIRST = 4
_LEVELS = (2.0, 1.0, -1.0, -2.0)


@dataclasses.dataclass(frozen=True)
class SyntheticReviewsConfig:
    """What fixes the shapes.

    Attributes:
      n_words: size of the vocabulary, with the pad, the unknown word and the two modifiers.
      shortest: fewest words of a review.
      longest: most words of a review.
      reach: words that a modifier acts on.
      last_word: True is the control, whose labels come from the last word alone.

    Raises:
      ValueError: if there are less than 24 words, not 1 <= shortest <= longest, or reach is below 1.
    """

    n_words: int = 204
    shortest: int = 20
    longest: int = 60
    reach: int = 3
    last_word: bool = False

    def __post_init__(self) -> None:
        if self.n_words < 24 or not 1 <= self.shortest <= self.longest or self.reach < 1:
            raise ValueError(
                f"n_words must be at least 24, 1 <= shortest <= longest, and reach at least 1, got {self}."
            )


class Batch(NamedTuple):
    """Synthetic reviews.

    Attributes:
      tokens: int array of shape (n_trials, longest), numbers of words; 0 behind the end.
      lengths: int array of shape (n_trials,).
      labels: int array of shape (n_trials,), 0 or 1.
      evidence: array of shape (n_trials,), s, what the label was drawn by.
    """

    tokens: jax.Array
    lengths: jax.Array
    labels: jax.Array
    evidence: jax.Array


def valences(config: SyntheticReviewsConfig) -> np.ndarray:
    """What each word is worth.

    Args:
      config: of the vocabulary.

    Returns:
      (n_words,), the valenced words directly behind the modifiers.

    Example:
      >>> valences(SyntheticReviewsConfig(n_words=24)).tolist()[:9]
      [0.0, 0.0, 0.0, 0.0, 2.0, 1.0, -1.0, -2.0, 0.0]
    """
    worth = np.zeros(config.n_words)
    n_valenced = _n_valenced(config)
    worth[_FIRST : _FIRST + n_valenced] = np.resize(_LEVELS, n_valenced)
    return worth


def vocabulary(config: SyntheticReviewsConfig) -> tuple[str, ...]:
    """Names of the words: their valence and number.

    Args:
      config: of the vocabulary.

    Returns:
      n_words strings.

    Example:
      >>> vocabulary(SyntheticReviewsConfig(n_words=24))[:9]
      ('<pad>', '<unknown>', 'not', 'very', '+2/4', '+1/5', '-1/6', '-2/7', '0/8')
    """
    named = (f"{worth:+.0f}/{number}" if worth else f"0/{number}" for number, worth in enumerate(valences(config)))
    return ("<pad>", "<unknown>", "not", "very", *list(named)[_FIRST:])


def sample_batch(
    key: jax.Array,
    config: SyntheticReviewsConfig,
    n_trials: int,
    *,
    beta: float | jax.Array = 1.0,
    modifiers: float | jax.Array = 0.0,
) -> Batch:
    """Draw reviews.

    Args:
      key: typed PRNG key.
      config: vocabulary and lengths.
      n_trials: number of reviews.
      beta: log-odds of the label a unit of evidence.
      modifiers: chance that a word is a modifier, either kind with half of it.

    Returns:
      Batch.

    Raises:
      ValueError: if `n_trials` is less than 1, or `modifiers`, given as a Python number, no chance.

    Example:
      >>> batch = sample_batch(jax.random.key(0), SyntheticReviewsConfig(), 8)
      >>> batch.tokens.shape, bool(jnp.all(batch.lengths >= 20))
      ((8, 60), True)
    """
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, got {n_trials}.")
    if isinstance(modifiers, int | float) and not 0 <= modifiers <= 1:
        raise ValueError(f"modifiers must be from 0 to 1, got {modifiers}.")
    key_length, key_word, key_modifier, key_kind, key_last, key_label = jax.random.split(key, 6)
    shape = (n_trials, config.longest)
    lengths = jax.random.randint(key_length, (n_trials,), config.shortest, config.longest + 1)
    words = jax.random.randint(key_word, shape, _FIRST, config.n_words)
    kind = jnp.where(jax.random.bernoulli(key_kind, 0.5, shape), NEGATOR, INTENSIFIER)
    words = jnp.where(jax.random.bernoulli(key_modifier, modifiers, shape), kind, words)
    place = jnp.arange(config.longest)[None, :]
    if config.last_word:
        last = jax.random.randint(key_last, (n_trials, 1), _FIRST, _FIRST + _n_valenced(config))
        words = jnp.where(place == lengths[:, None] - 1, last, words)
    tokens = jnp.where(place < lengths[:, None], words, 0)
    s = evidence(config, tokens, lengths)
    labels = jax.random.bernoulli(key_label, jax.nn.sigmoid(beta * s)).astype(int)
    return Batch(tokens, lengths, labels, s)


def evidence(config: SyntheticReviewsConfig, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """What given reviews say: s.

    Args:
      config: of the vocabulary.
      tokens: int array of shape (n_trials, n_time), 0 behind the end.
      lengths: int array of shape (n_trials,).

    Returns:
      (n_trials,).

    Example:
      >>> config = SyntheticReviewsConfig(n_words=24)
      >>> texts = jnp.array([[4, 4, 7, 0, 0, 0], [NEGATOR, INTENSIFIER, 4, 8, 5, 5]])  # "not very good ..."
      >>> evidence(config, texts, jnp.array([3, 6])).tolist()
      [2.0, -1.0]
    """
    worth = jnp.asarray(valences(config), jnp.float32)[tokens]
    if config.last_word:
        return jnp.take_along_axis(worth, lengths[:, None] - 1, axis=1)[:, 0]
    m = jnp.where(tokens == NEGATOR, -1.0, jnp.where(tokens == INTENSIFIER, 2.0, 1.0)).astype(worth.dtype)
    n_time = tokens.shape[1]
    padded = jnp.pad(m, ((0, 0), (config.reach, 0)), constant_values=1)  # column t + reach - j is m_{t-j}
    for j in range(1, config.reach + 1):
        worth = worth * padded[:, config.reach - j : config.reach - j + n_time]
    return worth.sum(axis=1)


def bayes_accuracy(s: jax.Array, beta: float | jax.Array = 1.0) -> jax.Array:
    """How often whoever knows the evidence of these reviews is right, labels drawn anew.

    Args:
      s: (n_trials,), their evidence.
      beta: log-odds of the label a unit of evidence.

    Returns:
      Scalar, mean of sigmoid(beta |s|): what no classifier exceeds but by luck.

    Example:
      >>> float(bayes_accuracy(jnp.zeros(3)))
      0.5
    """
    return jnp.mean(jax.nn.sigmoid(beta * jnp.abs(s)))


def _n_valenced(config: SyntheticReviewsConfig) -> int:
    """A fifth of the plain words, as many of each level."""
    return (config.n_words - _FIRST) // (5 * len(_LEVELS)) * len(_LEVELS)
