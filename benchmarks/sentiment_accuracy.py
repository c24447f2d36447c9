"""Accuracy of sentiment networks beside bag-of-words, on our own splits: every cell, several seeds.

    python -m benchmarks sentiment_accuracy --corpus rotten_tomatoes --weights FOLDER
    python -m benchmarks sentiment_accuracy --corpus imdb --cells gru --weights FOLDER
    python -m benchmarks sentiment_accuracy --corpus imdb --cells vanilla ugrnn lstm --seeds 0 --weights FOLDER
    python -m benchmarks sentiment_accuracy --corpus imdb --cells gru --seeds 0 --whole --weights FOLDER
    python -m benchmarks sentiment_accuracy --corpus imdb --cells gru --seeds 0 --first --weights FOLDER

Each run writes its own JSON under out/corpus, and its trained network under --weights; neither is made again where it
is there, and a training that was stopped goes on from its last epoch. A cell of the table without a run stands in it as
not run. The recipe is jaxfp.cli.sentiment_training.recipe_of, one for each corpus and cell; the test split is looked at
here and nowhere else. How those for IMDB were chosen, on the validation split and with seeds that are in no table, is
told in sentiment_accuracy/README.md; rows of earlier recipes are kept in imdb_earlier/ and imdb_other_recipe/.
Bag-of-words is fitted on the same vocabulary, once on the tokens that the networks read and once on whole reviews, its
penalty chosen on the validation split.
"""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import seed_runs
from jaxfp.cli import report, sentiment_networks, sentiment_training
from jaxfp.models import bag_of_words
from jaxfp.tasks import sentiment

COLUMNS = (
    "accuracy.train",
    "accuracy.valid",
    "accuracy.test",
    "bag_of_words.read.test",
    "bag_of_words.whole.test",
    "untrained_test",
    "majority_test",
    "best_epoch",
    "epochs",
    "train_s",
    "train_cpu_s",
)
STATISTICS: seed_runs.Statistics = {
    "at least bag-of-words on the same tokens": lambda r: r["accuracy.test"] >= r["bag_of_words.read.test"],
    "at least bag-of-words on whole reviews": lambda r: r["accuracy.test"] >= r["bag_of_words.whole.test"],
    "at most 2 points below bag-of-words": lambda r: r["accuracy.test"] >= r["bag_of_words.read.test"] - 0.02,
    "20 points above the majority": lambda r: r["accuracy.test"] >= r["majority_test"] + 0.2,
}
CELLS = ("vanilla", "ugrnn", "gru", "lstm")


def main(argv: Sequence[str] | None = None) -> None:
    """Train, score and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seed_runs.add_arguments(parser, "sentiment_accuracy", n_seeds=3)
    parser.add_argument("--corpus", default="rotten_tomatoes", help='"imdb", "rotten_tomatoes", or a CSV or TSV file')
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=sentiment_training.CELLS)
    parser.add_argument("--n-epochs", type=int, help="instead of the recipe's")
    read_as = parser.add_mutually_exclusive_group()
    read_as.add_argument("--whole", action="store_true", help="read up to 1,000 tokens, not the last 200")
    read_as.add_argument("--first", action="store_true", help="read the first 200 tokens, not the last")
    arguments = parser.parse_args(argv)
    name = pathlib.Path(arguments.corpus).stem
    name += "_whole" if arguments.whole else "_first" if arguments.first else ""
    arguments.out = arguments.out / name
    one = functools.partial(one_run, arguments, name)
    seed_runs.run_all(arguments, one, COLUMNS, STATISTICS, {cell: arguments.seeds for cell in arguments.cells})


@functools.lru_cache(maxsize=1)
def read(corpus: str) -> sentiment.Splits:
    """The splits of a corpus.

    Args:
      corpus: its name, or a path.

    Returns:
      Splits.
    """
    return sentiment.split_reviews(sentiment.load_reviews(corpus))


def one_run(arguments: argparse.Namespace, name: str, cell: str, seed: int) -> dict[str, Any]:
    """One network and its scores.

    Args:
      arguments: of the script.
      name: of the corpus, and how it is read.
      cell: its kind.
      seed: of weights and order.

    Returns:
      What its JSON says.
    """
    splits = read(arguments.corpus)
    recipe = sentiment_training.recipe_of(cell, arguments.corpus)
    if arguments.whole:
        recipe = dataclasses.replace(recipe, n_tokens=1000, n_buckets=5)
    if arguments.first:
        recipe = dataclasses.replace(recipe, keep="first")
    if arguments.n_epochs:
        recipe = dataclasses.replace(recipe, n_epochs=arguments.n_epochs)
    checkpoint = arguments.weights and arguments.weights / "epochs" / f"{name}_{cell}_{seed}"
    arrays, training = seed_runs.kept(
        arguments.weights,
        f"{name}_{cell}_{seed}",
        lambda: sentiment_training.train_network(seed, recipe, splits, checkpoint=checkpoint),
    )
    network = sentiment_networks.as_network(cell, arrays)
    untrained = sentiment_networks.init_network(seed, recipe, network.vocabulary)
    texts = {
        part: sentiment_networks.encode(recipe, network.vocabulary, each) for part, each in splits._asdict().items()
    }
    seconds = report.stopwatch()
    scores = {part: sentiment_networks.accuracy(network, each) for part, each in texts.items()}
    _, baseline = seed_runs.kept(
        arguments.weights, f"{name}_bag_of_words", lambda: fit_baseline(splits, recipe, network.vocabulary)
    )
    return {
        "corpus": name,
        "training": training,
        "accuracy": scores,
        "bag_of_words": baseline,
        "untrained_test": sentiment_networks.accuracy(untrained, texts["test"]),
        "majority_test": float(max(np.mean(splits.test.labels), 1 - np.mean(splits.test.labels))),
        "best_epoch": training["best_epoch"],
        "epochs": training["epochs"],
        "train_s": training["seconds"],
        "train_cpu_s": training["cpu_seconds"],
        "score_s": seconds(),
        "median_length": {part: float(np.median(each.lengths)) for part, each in texts.items()},
    }


def fit_baseline(
    splits: sentiment.Splits, recipe: sentiment_networks.Recipe, vocabulary: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Bag-of-words on the same words.

    Args:
      splits: of the corpus.
      recipe: which tokens the networks read.
      vocabulary: theirs.

    Returns:
      Arrays weights_read, weights_whole (n_words,) and the vocabulary; and accuracies by what was read.
    """
    arrays, scores = {"vocabulary": np.array(vocabulary)}, {}
    for what, way in (("read", recipe), ("whole", dataclasses.replace(recipe, n_tokens=None))):
        texts = [sentiment_networks.encode(way, vocabulary, part) for part in splits]
        counted = [(bag_of_words.count_words(*each[:2], len(vocabulary)), each.labels) for each in texts]
        fitted = bag_of_words.select_logistic(*counted[:2])
        arrays[f"weights_{what}"] = fitted.weights
        said = {part: bag_of_words.accuracy(fitted, *each) for part, each in zip(splits._fields, counted, strict=True)}
        scores[what] = {"l2": fitted.l2, "bias": fitted.bias, **said}
    return arrays, scores


if __name__ == "__main__":
    main()
