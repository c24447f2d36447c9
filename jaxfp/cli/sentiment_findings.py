"""Everything that is asked of one network that reads sentiment: corpora, what was found, and which thresholds are met.

The thresholds were fixed before any network was looked at. Nothing is dropped: a threshold that is missed stands there
with its figure, and what could not be measured is not met.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfp.analysis import integration
from jaxfp.cli import sentiment_controls, sentiment_mechanism, sentiment_words
from jaxfp.cli.sentiment_mechanism import N_STARTS, SlowPoints
from jaxfp.cli.sentiment_networks import Network, Recipe, classify, encode
from jaxfp.cli.sentiment_words import MIN_COUNT, Words
from jaxfp.models import bag_of_words
from jaxfp.search import candidates
from jaxfp.tasks import sentiment, synthetic_reviews
from jaxfp.types import FixedPoints

SYNTHETIC = synthetic_reviews.SyntheticReviewsConfig()
N_SYNTHETIC = {"train": 8000, "valid": 1000, "test": 1000}
N_STATES = 400  # texts whose states are looked at
KEPT = 0.95  # correlation: what is kept is known but for rounding, unlike the weights of a bag of words


class Corpus(NamedTuple):
    """Encoded reviews, and what can be said of them without the order of their words.

    Attributes:
      train: Texts.
      valid: Texts.
      test: Texts.
      words: see `Words`; weights of the synthetic words are what they are worth.
      best: accuracy on the test split, by name: "bag_of_words", "majority", and of synthetic reviews "bayes".
    """

    train: sentiment.Texts
    valid: sentiment.Texts
    test: sentiment.Texts
    words: Words
    best: dict[str, float]


class Finding(NamedTuple):
    """What one network does, and how.

    Attributes:
      texts: those whose states were looked at.
      states: (n_texts, n_time, n_hidden).
      untrained: (n_states, n_hidden), states of the network before training in the same texts.
      slow: see `SlowPoints`; None where there are less than 2.
      strict: points of the strict search.
      valences: (n_words,).
      null: (1000,) |cos| of random directions with the line.
      errors: (n_windows, n_steps) of one linear step.
      said: numbers, JSON-like.
    """

    texts: sentiment.Texts
    states: np.ndarray
    untrained: np.ndarray
    slow: SlowPoints | None
    strict: FixedPoints
    valences: np.ndarray
    null: np.ndarray
    errors: np.ndarray
    said: dict[str, Any]


def synthetic_corpus(seed: int, config: synthetic_reviews.SyntheticReviewsConfig = SYNTHETIC) -> Corpus:
    """Reviews whose words have known valences, without modifiers.

    Args:
      seed: of the reviews.
      config: of vocabulary and lengths.

    Returns:
      Corpus.

    Example:
      >>> 0.85 < synthetic_corpus(0).best["bayes"] < 0.9
      True
    """
    parts, best = [], {}
    for key, (name, n_texts) in zip(jax.random.split(jax.random.key(seed), 3), N_SYNTHETIC.items(), strict=True):
        batch = synthetic_reviews.sample_batch(key, config, n_texts)
        parts.append(sentiment.Texts(*(np.asarray(x, np.int32) for x in batch[:3])))
        if name == "test":
            best["bayes"] = float(synthetic_reviews.bayes_accuracy(batch.evidence))
    weights = synthetic_reviews.valences(config)
    return _corpus(parts, config.n_words, weights, best)


@functools.lru_cache(maxsize=2)
def real_corpus(source: Any, vocabulary: tuple[str, ...], n_tokens: int | None, keep: str) -> Corpus:
    """Reviews that people wrote, read as a network reads them; the bag of words is fitted to its training split.

    Args:
      source: see `sentiment.load_reviews`.
      vocabulary: of the network.
      n_tokens: see `Recipe`.
      keep: see `Recipe`.

    Returns:
      Corpus.

    Raises:
      ValueError: as `sentiment.load_reviews`.

    Example:
      >>> reviews = (tuple(f"{word} {i}" for i in range(40) for word in ("fine", "dull")), (1, 0) * 40)
      >>> real_corpus(reviews, ("<pad>", "<unknown>", "fine", "dull"), None, "last").best["bag_of_words"]
      1.0
    """
    splits = sentiment.split_reviews(sentiment.load_reviews(source))
    parts = [encode(Recipe(n_tokens=n_tokens, keep=keep), vocabulary, part) for part in splits]
    return _corpus(parts, len(vocabulary), None, {})


@functools.lru_cache(maxsize=2)
def vocabulary_of(source: Any, n_words: int) -> tuple[str, ...]:
    """The most frequent words of the training split.

    Args:
      source: see `sentiment.load_reviews`.
      n_words: how many, pad and unknown word included.

    Returns:
      Words.

    Example:
      >>> vocabulary_of((("fine", "dull fine", "odd"), (1, 0, 1)), 3)[0]
      '<pad>'
    """
    splits = sentiment.split_reviews(sentiment.load_reviews(source))
    return sentiment.build_vocabulary(splits.train.texts, n_words)


def _corpus(parts: Sequence[sentiment.Texts], n_words: int, weights: Any, best: dict[str, float]) -> Corpus:
    """With weights None: those of the bag of words."""
    train, valid, test = parts
    counts = [bag_of_words.count_words(part.tokens, part.lengths, n_words) for part in parts]
    bag = bag_of_words.select_logistic((counts[0], train.labels), (counts[1], valid.labels))
    positive = float(np.mean(test.labels))
    best = best | {
        "bag_of_words": bag_of_words.accuracy(bag, counts[2], test.labels),
        "majority": max(positive, 1 - positive),
    }
    in_texts = np.asarray((counts[0] > 0).sum(axis=0)).ravel()
    in_texts[:2] = 0  # pad and unknown word are no words
    return Corpus(train, valid, test, Words(bag.weights if weights is None else weights, in_texts), best)


def examine(key: jax.Array, network: Network, untrained: Network, corpus: Corpus, synthetic: bool = False) -> Finding:
    """Ask everything of one network.

    Args:
      key: of states, windows, orders and random directions.
      network: trained.
      untrained: what its training began with.
      corpus: see `Corpus`.
      synthetic: whether the words' weights are known, not fitted.

    Returns:
      Finding.

    Example:
      >>> examine.__name__
      'examine'
    """
    key_starts, key_null, key_words, key_windows, key_order = jax.random.split(key, 5)
    texts = sentiment.Texts(*(part[:N_STATES] for part in corpus.test))
    states = sentiment_mechanism.read(network, texts)
    inside = sentiment_mechanism.inside(texts)
    visited = states[inside]
    before = sentiment_mechanism.read(untrained, texts)[inside]
    starts = candidates.sample_candidates(key_starts, visited, N_STARTS, 0.0)
    length = float(np.median(corpus.test.lengths))
    points, strict = sentiment_mechanism.find_points(network, np.asarray(starts))
    logits = classify(network, corpus.test)
    said: dict[str, Any] = {
        "accuracy": {**corpus.best, "network": float(np.mean((logits > 0) == corpus.test.labels))},
        "n_texts": {name: len(part.labels) for name, part in corpus._asdict().items() if name in N_SYNTHETIC},
        "logits_of_texts": np.quantile(logits, [0.02, 0.25, 0.5, 0.75, 0.98]).tolist(),
        "synthetic": synthetic,
        "dimensions": sentiment_mechanism.dimensions(visited, before),
        "silence": sentiment_controls.silence(network, np.asarray(starts)),
        "shuffled": sentiment_controls.shuffled(key_order, network, corpus.test),
        "points": {"n_starts": N_STARTS, "n_slow_points": len(points.hidden), "counts": points.report.counts},
    }
    if len(points.hidden) < 2:
        nothing = np.full(len(corpus.words.weights), np.nan)
        return Finding(texts, states, before, None, strict, nothing, np.zeros(0), np.zeros((0, 0)), said)
    slow = sentiment_mechanism.describe_points(network, points, visited, length)
    valences, said["words"] = sentiment_words.word_valences(key_words, network, slow, corpus.words)
    said["words"]["kept"] = sentiment_words.kept_effects(
        jax.random.fold_in(key_words, 1), network, slow, corpus.words, int(length) // 2
    )
    said["points"] |= sentiment_mechanism.describe(key_null, network, slow, strict, length)
    said["words"]["lexicon"] = compare_lexicon(network, valences, corpus.words)
    errors, said["linear_steps"] = sentiment_controls.linear_errors(key_windows, network, slow, texts, states)
    said["linear_network"] = sentiment_controls.linear_accuracy(network, slow, corpus.test)
    said["modifiers_follow_up"] = sentiment_words.modifiers(network, slow, corpus.words)
    random = integration.random_directions(key_null, 1000, states.shape[2])
    null = integration.cosines(random, slow.components.directions[0])
    return Finding(texts, states, before, slow, strict, valences, null, errors, said)


def compare_lexicon(network: Network, valences: np.ndarray, words: Words) -> dict[str, Any] | None:
    """Word valences beside what ten people say of the same words (VADER), where that lexicon is installed.

    Args:
      network: with its vocabulary.
      valences: (n_words,).
      words: see `Words`.

    Returns:
      Dict: rank correlations of valences and of bag-of-words weights with the lexicon; None without it, or where fewer
      than 10 words are in both.

    Example:
      >>> compare_lexicon(Network(None, None, ("<pad>",)), np.zeros(1), Words(np.zeros(1), np.zeros(1))) is None
      True
    """
    try:
        people = sentiment.load_lexicon()
    except ValueError:
        return None
    rows = [row for row, word in enumerate(network.vocabulary) if word in people and words.counts[row] >= MIN_COUNT]
    if len(rows) < 10:
        return None
    rated = np.array([people[network.vocabulary[row]] for row in rows])
    return {
        "n_words": len(rows),
        "spearman": sentiment_words.rank_correlation(valences[rows], rated),
        "spearman_of_bag_of_words": sentiment_words.rank_correlation(words.weights[rows], rated),
    }


def judge(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Which thresholds are met.

    Args:
      said: of a `Finding`.

    Returns:
      By name: "measured", "wanted" in words, "met"; None where there is no threshold for such reviews.

    Example:
      >>> judge({"accuracy": {"network": 0.87, "bag_of_words": 0.88, "majority": 0.5}})["S3 accuracy"]["met"]
      True
    """
    found: dict[str, dict[str, Any]] = {}

    def ask(name: str, wanted: str, measure: Callable[[], Any], holds: Callable[[Any], bool]) -> None:
        try:
            value = measure()
            met = value is not None and bool(holds(value))
        except (KeyError, TypeError):  # it, or a part of it, could not be measured
            value, met = None, False
        found[name] = {"measured": value, "wanted": wanted, "met": met}

    def of(path: str) -> Callable[[], Any]:
        return lambda: functools.reduce(lambda part, name: part[name], path.split("."), said)

    bar = 0.95 if said.get("synthetic") else 0.7
    ask(
        "S3 accuracy",
        "bag of words - 0.02, majority + 0.2",
        of("accuracy"),
        lambda a: a["network"] >= a["bag_of_words"] - 0.02 and a["network"] >= a["majority"] + 0.2,
    )
    ask(
        "S4 variance in 3 directions",
        ">= 0.85",
        lambda: said["dimensions"]["cumulative"]["trained"][2],
        lambda share: share >= 0.85,
    )
    ask(
        "S4 participation ratio",
        "falls with training",
        of("dimensions.participation_ratio"),
        lambda r: r["trained"] < r["untrained"],
    )
    ask("S5 slow points", ">= 200", of("points.n_slow_points"), lambda n: n >= 200)
    ask("S5 their first direction", ">= 0.8", of("points.pc1"), lambda share: share >= 0.8)
    ask("S5 their first two", ">= 0.9", of("points.pc12"), lambda share: share >= 0.9)
    ask("S5 |cos| of line and readout", "> 0.8", of("points.cos_line_readout"), lambda cos: cos > 0.8)
    ask(
        "S6 slowest timescale over text",
        "> 1",
        lambda: said["points"]["timescales"]["central_median"][0] / said["points"]["median_length"],
        lambda r: r > 1,
    )
    ask("S6 slowest over second", ">= 3", of("points.gap"), lambda gap: gap >= 3)
    ask("S6 slowest mode on the line", "> 0.8", of("points.right_on_line.central_median"), lambda cos: cos > 0.8)
    ask("S7 correlation with weights", f"> {bar}", of("words.pearson"), lambda r: r > bar)
    ask("S7 neutral words", "< 0.1 of the others", of("words.neutral_share"), lambda share: share < 0.1)
    ask("S7 random left vectors", f"median < {bar}", of("words.controls.random_direction.median"), lambda r: r < bar)
    ask(
        "S7 l_1 over all random ones",
        "> 0",
        lambda: said["words"]["pearson"] - said["words"]["controls"]["random_direction"]["largest"],
        lambda d: d > 0,
    )
    ask("S7 kept of a word half a text later", f"> {KEPT}", of("words.kept.pearson"), lambda r: r > KEPT)
    ask(
        "S7 kept, by random left vectors",
        f"median < {KEPT}",
        of("words.kept.controls.random_direction.median"),
        lambda r: r < KEPT,
    )
    ask("S8 error of a linear step", "<= 0.15", of("linear_steps.one_step.mean"), lambda error: error <= 0.15)
    ask("S8 errors of many steps", "grow", of("linear_steps.running_freely"), lambda e: e[-1] > e[0])
    ask("S9 silence, 10 steps", ">= 10 times slower", of("silence.falls"), lambda falls: falls >= 10)
    ask(
        "S10 shuffled words",
        "within 0.01",
        lambda: said["shuffled"]["shuffled"] - said["shuffled"]["own_order"],
        lambda change: abs(change) <= 0.01,
    )
    if "synthetic" in said and not said["synthetic"]:
        found["S10 shuffled words"] |= {"wanted": "real reviews have modifiers: no threshold", "met": None}
    ask(
        "S11 slowest modes that oscillate",
        "0 within their timescale",
        of("points.flags.n_points_oscillating"),
        lambda n: n == 0,
    )
    return found
