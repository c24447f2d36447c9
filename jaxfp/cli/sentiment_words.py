"""What words add to the slowest mode, and what modifiers do to the words after them.

The valence of a word x is l_1 J_in x (`analysis.integration`), here the mean over the central slow points; it is held
against the weights of a bag of words, and against other directions in place of l_1.

Any direction in place of l_1 does nearly as well there, once training has put valence into the embedding: J_in x is
valence whichever way it is looked at. What l_1 says, and they do not, is how much of a word is kept. So a word is given
to the network itself at a slow point, n silent steps follow, n as many as a word stands on average before the end of a
text, and the change of the logit that is left then, measured, is held against

    w r_1 lambda_1^n l_1 J_in x      (of a pair: twice the real part)

and against the same words' projections on other directions.

Modifiers are the follow-up's (Maheswaranathan & Sussillo 2020, arXiv:2004.08013), not the paper's: after a word m the
state is F(h*, m), and the input Jacobian there is another. What m does to the push of words x on the readout is

    w [J_in(F(h*, m)) - J_in(h*)] x   as a share of   w J_in(h*) x,

-1 for a word that takes all effect from the next one, +1 for one that doubles it. Its signs are those of bag-of-words
weights. The control is what words do that weigh nothing.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfp import dynamics
from jaxfp.analysis import integration, linearization
from jaxfp.cli.sentiment_mechanism import SlowPoints
from jaxfp.cli.sentiment_networks import Network

N_POLAR = 100  # words of each kind: positive, negative, neutral
N_KEPT = 1000  # words of which it is measured what is kept
MIN_COUNT = 20  # training texts that a word must stand in to be judged by
NEGATORS = ("not", "never", "no", "n't", "don't", "doesn't", "didn't", "isn't", "wasn't", "can't", "hardly", "without")
INTENSIFIERS = ("very", "extremely", "really", "so", "too", "most", "truly", "quite", "incredibly", "absolutely")


class Words(NamedTuple):
    """What a bag of words knows of each row of the embedding.

    Attributes:
      weights: (n_words,), of logistic regression on counts.
      counts: (n_words,) int, training texts with that word.
    """

    weights: np.ndarray
    counts: np.ndarray


def polar_words(words: Words, min_count: int = MIN_COUNT) -> dict[str, np.ndarray]:
    """The words that a bag of words weights most, least, and not at all.

    Args:
      words: see `Words`.
      min_count: training texts that a word must stand in.

    Returns:
      Rows by "positive", "negative", "neutral": `N_POLAR` each, or as many as are positive or negative; and "all" words
      that stand in so many texts.

    Example:
      >>> found = polar_words(Words(np.array([-3.0, -1, 0, 2, 5, 0.1]), np.full(6, 99)))
      >>> {name: rows.tolist() for name, rows in found.items() if name != "all"}
      {'positive': [3, 4], 'negative': [0, 1], 'neutral': [2, 5]}
    """
    rows = np.flatnonzero(words.counts >= min_count)
    weights = words.weights[rows]
    n = min(N_POLAR, int(np.sum(weights > 0)), int(np.sum(weights < 0)))
    order = rows[np.argsort(weights, kind="stable")]
    flat = rows[np.argsort(np.abs(weights), kind="stable")]
    return {"positive": order[len(order) - n :], "negative": order[:n], "neutral": flat[:n], "all": rows}


def word_valences(
    key: jax.Array, network: Network, slow: SlowPoints, words: Words
) -> tuple[np.ndarray, dict[str, Any]]:
    """S7: what each word adds along the slowest mode, beside what a bag of words makes of it.

    Controls take, in place of l_1, directions at random and the other left eigenvectors. Where at all central
    points the slowest mode is one of a complex pair, it is what the readout gets of that pair, and "of" says so.

    Args:
      key: of the random directions.
      network: of any cell.
      slow: see `SlowPoints`.
      words: see `Words`.

    Returns:
      (n_words,) valences, means over the central points; dict.

    Example:
      >>> word_valences.__name__
      'word_valences'
    """
    embedding = np.asarray(network.params.embedding, np.float64)
    chosen = np.flatnonzero(slow.central & ~np.isnan(slow.leading.left[:, 0]))
    kinds, rows_of, pair = polar_words(words), slow.leading.left, not len(chosen)
    if pair:
        chosen, rows_of = np.flatnonzero(slow.central & ~np.isnan(slow.leading.reading[:, 0])), slow.leading.reading
    if not len(chosen):
        return np.full(len(embedding), np.nan), {"pearson": None, "of": "no mode: all matrices are defective"}
    valence = integration.valences(rows_of[chosen], slow.input_jacobian[chosen], embedding)
    mean = valence.mean(0)
    rows, weights = kinds["all"], words.weights[kinds["all"]]
    means = {name: float(mean[kinds[name]].mean()) for name in ("positive", "negative", "neutral")}
    polar = min(means["positive"], -means["negative"])
    # each control at the central point nearest to undecided
    middle = chosen[np.argmin(np.abs(slow.logits[slow.rows[chosen]]))]
    pushed = slow.input_jacobian[middle] @ embedding[rows].T
    random = integration.random_directions(key, 200, len(pushed))
    adds_up = integration.leading_modes(slow.modes, np.asarray(network.params.readout[0], np.float64), nearest_one=True)
    near = np.flatnonzero(slow.central & ~np.isnan(adds_up.left[:, 0]))
    nearest = integration.valences(adds_up.left[near], slow.input_jacobian[near], embedding)[:, rows]
    return mean, {
        "of": "the slowest pair, as read out" if pair else "the slowest mode",
        "n_words": len(rows),
        "min_count": MIN_COUNT,
        "pearson": _correlation(mean[rows], weights),
        "spearman": rank_correlation(mean[rows], weights),
        "pearson_of_real_mode_nearest_one": _correlation(nearest.mean(0), weights) if len(near) else None,
        "pearson_polar": _correlation(*(x[np.concatenate([kinds["positive"], kinds["negative"], kinds["neutral"]])]
                                        for x in (mean, words.weights))),
        "means": means,
        "n_polar": len(kinds["positive"]),
        "neutral_share": abs(means["neutral"]) / polar if polar > 0 else None,
        "spread_over_points": float(np.median(valence.std(0)[rows]) / max(mean[rows].std(), 1e-300)),
        "controls": {
            name: _spread([abs(_correlation(left @ pushed, weights)) for left in lefts])
            for name, lefts in (
                ("random_direction", random), ("other_left_modes", _parts(slow.modes.left[middle][1:]))
            )
        },
    }  # fmt: skip


def kept_effects(key: jax.Array, network: Network, slow: SlowPoints, words: Words, n_silent: int) -> dict[str, Any]:
    """S7: what is left of each word in the logit when nothing follows, beside what the slowest mode says is kept.

    Args:
      key: of the random directions.
      network: of any cell.
      slow: see `SlowPoints`; the one nearest to undecided is where words are given.
      words: see `Words`; at most `N_KEPT`, evenly taken from those that are frequent.
      n_silent: steps after the word.

    Returns:
      Dict: "pearson" and "explained", the share of the measured sum of squares, of the slowest mode, nothing fitted;
      the same of all modes; "controls", |correlations| of J_in x along random directions, along the other left
      eigenvectors, and along the line of slow points.

    Example:
      >>> kept_effects.__name__
      'kept_effects'
    """
    embedding, weight = (np.asarray(x, np.float64) for x in (network.params.embedding, network.params.readout[0]))
    rows = polar_words(words)["all"]
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(N_KEPT, len(rows))).round().astype(int))]
    middle = int(np.argmin(np.abs(slow.logits[slow.rows])))
    point, modes = slow.points.hidden[slow.rows[middle]], slow.modes
    drive = np.zeros((len(rows) + 1, n_silent + 1, embedding.shape[1]))
    drive[:-1, 0] = embedding[rows]  # the last row is silence throughout: what the slow point does by itself
    after = dynamics.simulate(network.step_fn, network.params.cell, np.tile(point, (len(drive), 1)), drive)[:, -1]
    kept = (after[:-1] - after[-1]) @ weight
    pushed = slow.input_jacobian[middle] @ embedding[rows].T
    power = modes.eigenvalues[middle] ** n_silent * (weight @ modes.right[middle])
    by_mode = power[:, None] * (modes.left[middle] @ pushed)
    slowest = (2 if slow.leading.oscillatory[middle] else 1) * by_mode[0].real
    directions = {
        "random_direction": integration.random_directions(key, 200, len(pushed)),
        "other_left_modes": _parts(modes.left[middle][1:]),
        "along_the_line": slow.components.directions[:1],
    }
    return {
        "n_silent": n_silent,
        "n_words": len(rows),
        "pearson": _correlation(slowest, kept),
        "explained": _explained(slowest, kept),
        "pearson_of_all_modes": _correlation(by_mode.sum(0).real, kept),
        "explained_by_all_modes": _explained(by_mode.sum(0).real, kept),
        "controls": {
            name: _spread([abs(_correlation(left @ pushed, kept)) for left in lefts])
            for name, lefts in directions.items()
        },
    }


def _parts(left: np.ndarray) -> np.ndarray:
    """Real and imaginary parts of complex rows, those that are not 0 or NaN."""
    rows = np.concatenate([left.real, left.imag[np.abs(left.imag).max(1) > 0]])
    return rows[np.isfinite(rows).all(1)]


def _explained(predicted: np.ndarray, measured: np.ndarray) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(1 - np.sum((measured - predicted) ** 2) / np.sum(measured**2))


def _spread(values: list[float]) -> dict[str, float]:
    """Median, ninetieth percentile and largest."""
    return {
        "median": float(np.median(values)),
        "ninetieth_percentile": float(np.quantile(values, 0.9)),
        "largest": float(np.max(values)),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(a, b)[0, 1])


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's.

    Args:
      a: (n,).
      b: (n,).

    Returns:
      From -1 to 1.

    Example:
      >>> round(rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.0, 3.0, 4.0])), 6)
      1.0
    """
    from scipy import stats  # takes a moment to import

    return float(stats.spearmanr(a, b).statistic)


def modifiers(network: Network, slow: SlowPoints, words: Words, n_after: int = 20) -> dict[str, Any]:
    """The follow-up: what words do to the push of the words after them.

    Args:
      network: of any cell.
      slow: see `SlowPoints`.
      words: see `Words`.
      n_after: silent steps after the word for which its effect is followed.

    Returns:
      Dict by kind and word: "share", of the push of valenced words, the change just after the word; "half_life", silent
      steps until half of that change is left, None where it does not fall that far; and shares of neutral words.

    Example:
      >>> modifiers.__name__
      'modifiers'
    """
    embedding, weight = (np.asarray(x, np.float64) for x in (network.params.embedding, network.params.readout[0]))
    kinds = polar_words(words)
    names = list(network.vocabulary)
    probe = np.concatenate([kinds["positive"], kinds["negative"]])
    sign = np.repeat([1.0, -1.0], [len(kinds["positive"]), len(kinds["negative"])])
    heard = {
        kind: [names.index(word) for word in given if word in names and words.counts[names.index(word)] >= MIN_COUNT]
        for kind, given in (("negators", NEGATORS), ("intensifiers", INTENSIFIERS))
    }
    asked = np.array([*heard["negators"], *heard["intensifiers"], *kinds["neutral"]])
    point = slow.points.hidden[np.argmin(np.abs(slow.logits))]
    drive = np.zeros((len(asked) + 1, n_after + 1, embedding.shape[1]))
    drive[:-1, 0] = embedding[asked]  # the last row is silence throughout: what the slow point does by itself
    after = dynamics.simulate(network.step_fn, network.params.cell, np.tile(point, (len(drive), 1)), drive)

    def push(hidden: np.ndarray) -> np.ndarray:
        linear = linearization.linearize(network.step_fn, network.params.cell, hidden, np.zeros(embedding.shape[1]))
        return np.einsum("i,pij,kj,k->p", weight, linear.input_jacobian, embedding[probe], sign, optimize=True)

    pushes = np.stack([push(after[:, step]) for step in range(n_after + 1)], axis=1)
    share = (pushes[:-1] - pushes[-1:]) / pushes[-1:, :1]
    n_heard = len(asked) - len(kinds["neutral"])
    null = share[n_heard:, 0]
    said: dict[str, Any] = {"neutral": {"n": len(null), **_quantiles(null)}}
    start = 0
    for kind, rows in heard.items():
        said[kind] = {
            names[row]: {"share": float(share[start + i, 0]), "half_life": _half_life(share[start + i])}
            for i, row in enumerate(rows)
        }
        start += len(rows)
    return said


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {name: float(np.quantile(values, at)) for name, at in (("p05", 0.05), ("median", 0.5), ("p95", 0.95))}


def _half_life(share: np.ndarray) -> int | None:
    fallen = np.flatnonzero(np.abs(share) <= abs(share[0]) / 2)
    return int(fallen[0]) if len(fallen) else None
