"""Logistic regression on word counts: what can be said of a text without the order of its words.

With n_w the count of word w in a text, the logit of class 1 is sum_w v_w n_w + b, and v and b minimise

  mean over texts of cross-entropy  +  (l2 / 2) |v|^2,

a convex function, strictly for l2 > 0, minimised by L-BFGS. v_w is the word's valence in this model: the baseline of
Maheswaranathan et al. (2019), arXiv:1906.10720, and what they order words by.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, sparse, special

from jaxfp import arguments
from jaxfp.types import Array


class BagOfWords(NamedTuple):
    """A fitted baseline.

    Attributes:
      weights: array of shape (n_words,), float64, logit a word; 0 for words that never stood in a text.
      bias: logit of an empty text.
      l2: the penalty it was fitted with.
    """

    weights: np.ndarray
    bias: float
    l2: float


def count_words(tokens: Array, lengths: Array, n_words: int) -> sparse.csr_array:
    """How often each word stands in each text.

    Args:
      tokens: int array of shape (n_texts, n_time), padded behind the end.
      lengths: int array of shape (n_texts,).
      n_words: size of the vocabulary.

    Returns:
      Sparse (n_texts, n_words), float64; the pads are not counted.

    Raises:
      ValueError: if a token is not below `n_words`.

    Example:
      >>> count_words(np.array([[2, 2, 1], [1, 0, 0]]), np.array([3, 1]), 4).toarray().tolist()
      [[0.0, 1.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    """
    tokens, lengths = np.asarray(tokens), np.asarray(lengths)
    inside = np.arange(tokens.shape[1]) < lengths[:, None]
    rows, words = np.nonzero(inside)[0], tokens[inside]
    if words.size and not 0 <= words.min() <= words.max() < n_words:
        raise ValueError(f"tokens must be from 0 to {n_words - 1}, got {words.min()} to {words.max()}.")
    counts = sparse.coo_array((np.ones(len(rows)), (rows, words)), shape=(len(tokens), n_words)).tocsr()
    counts.sum_duplicates()
    return counts


def fit_logistic(counts: sparse.csr_array, labels: Array, l2: float) -> BagOfWords:
    """Fit the baseline.

    Args:
      counts: (n_texts, n_words).
      labels: (n_texts,), 0 or 1.
      l2: penalty on the weights, positive; the bias is free.

    Returns:
      BagOfWords.

    Raises:
      ValueError: if `l2` is not positive.

    Example:
      >>> counts = sparse.csr_array(np.array([[1.0, 1.0], [1.0, 0.0]]))
      >>> fitted = fit_logistic(counts, np.array([1, 0]), 1e-3)
      >>> bool(fitted.weights[1] > 0)
      True
    """
    arguments.check_number("l2", l2, positive=True)
    sign = 2.0 * np.asarray(labels) - 1.0

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights = point[:-1]
        margin = sign * (counts @ weights + point[-1])
        pull = -sign * special.expit(-margin) / len(sign)
        value = np.mean(np.logaddexp(0, -margin)) + l2 / 2 * weights @ weights
        return value, np.append(counts.T @ pull + l2 * weights, pull.sum())

    found = optimize.minimize(
        loss, np.zeros(counts.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 2000}
    )
    return BagOfWords(found.x[:-1], float(found.x[-1]), float(l2))


def accuracy(fitted: BagOfWords, counts: sparse.csr_array, labels: Array) -> float:
    """Share of texts that the baseline puts into their class.

    Args:
      fitted: of `fit_logistic`.
      counts: (n_texts, n_words).
      labels: (n_texts,), 0 or 1.

    Returns:
      0 to 1.

    Example:
      >>> counts = sparse.csr_array(np.eye(2))
      >>> accuracy(BagOfWords(np.array([1.0, -1.0]), 0.0, 1.0), counts, np.array([1, 1]))
      0.5
    """
    return float(np.mean((counts @ fitted.weights + fitted.bias > 0) == np.asarray(labels)))


def select_logistic(
    train: tuple[sparse.csr_array, Array],
    valid: tuple[sparse.csr_array, Array],
    penalties: Sequence[float] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
) -> BagOfWords:
    """Fit with several penalties and keep the one that is best on validation texts.

    Args:
      train: (counts, labels) to fit.
      valid: (counts, labels) to choose by; of equals, the larger penalty.
      penalties: to try.

    Returns:
      BagOfWords.

    Example:
      >>> both = sparse.csr_array(np.eye(2)), np.array([1, 0])
      >>> select_logistic(both, both, (1e-2, 1e-1)).l2
      0.1
    """
    fitted = [fit_logistic(*train, l2) for l2 in sorted(penalties, reverse=True)]
    return max(fitted, key=lambda each: accuracy(each, *valid))
