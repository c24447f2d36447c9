"""Sentiment networks taken apart: every corpus, cell and seed whose weights are kept, none dropped.

    python -m benchmarks sentiment_seeds --weights FOLDER
    python -m benchmarks sentiment_seeds --corpora imdb --weights FOLDER --run 0

Weights are those that `python -m benchmarks sentiment_accuracy` trains and keeps. Each run writes its own JSON under
out/corpus; a row that is there already is not made again, and a network whose weights are not there stands in the table
as not run. Beside each row: what a linear RNN that was trained alike does, where there is one.

The paper's accuracies (Maheswaranathan et al. 2019, Table 1) are on other splits (IMDB: 25,000 reviews to train on,
25,000 to test) and networks, and on corpora that a plain install does not reach; they stand beside ours, not against
them. Of Rotten Tomatoes, which the paper does not use, the Stanford Sentiment Treebank is the nearest relative.

`--control` trains a network on synthetic reviews whose label is that of the last word alone (S12): nothing has to be
kept, and the tests of timescale and line must fail. `--synthetic` does all four cells on synthetic reviews.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import seed_runs
from jaxfp import io
from jaxfp.cli import report, sentiment, sentiment_findings, sentiment_networks, sentiment_training
from jaxfp.cli.sentiment_networks import Network, Recipe
from jaxfp.tasks import synthetic_reviews

CELLS = ("vanilla", "ugrnn", "gru", "lstm")
PAPER = {  # accuracy in percent, Table 1
    "Yelp 2015": {"bag_of_words": 93.37, "vanilla": 92.96, "ugrnn": 95.67, "gru": 95.84, "lstm": 95.05},
    "IMDB": {"bag_of_words": 88.53, "vanilla": 87.08, "ugrnn": 87.96, "gru": 86.86, "lstm": 86.93},
    "Stanford Sentiment": {"bag_of_words": 79.74, "vanilla": 78.09, "ugrnn": 77.74, "gru": 80.25, "lstm": 80.09},
}
RELATIVE = {"imdb": "IMDB", "imdb_whole": "IMDB", "imdb_first": "IMDB", "rotten_tomatoes": "Stanford Sentiment"}
COLUMNS = (
    "accuracy",
    "dimensions.participation_ratio",
    "points.n_slow_points",
    "points.logit_range",
    "logits_of_texts",
    "points.pc1",
    "points.cos_line_readout",
    "points.strict.n_fixed",
    "points.strict.n_not_isolated",
    "points.line.summary",
    "points.line.verdict",
    "points.timescales.central_median",
    "points.median_length",
    "points.gap",
    "points.right_on_line.central_median",
    "points.right_on_line.tangent_median",
    "points.real_mode_nearest_one",
    "points.flags.n_points_growing",
    "points.flags.n_points_complex",
    "points.flags.period",
    "points.flags.timescale_of_pairs",
    "points.flags.n_points_oscillating",
    "points.flags.largest_eigenvalue",
    "words.pearson",
    "words.spearman",
    "words.pearson_of_real_mode_nearest_one",
    "words.neutral_share",
    "words.lexicon",
    "words.controls.random_direction",
    "words.kept",
    "linear_steps.one_step.mean",
    "linear_steps.no_change_one_step",
    "linear_network",
    "linear_rnn",
    "silence.falls",
    "shuffled",
    "met",
)
STATISTICS: seed_runs.Statistics = {
    name: functools.partial(lambda name, row: row["met"][name], name) for name in sentiment_findings.judge({})
}


def main(argv: Sequence[str] | None = None) -> None:
    """Take apart and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seed_runs.add_arguments(parser, "benchmarks/sentiment_seeds", n_seeds=3)
    parser.add_argument("--corpora", nargs="*", default=["rotten_tomatoes", "imdb"])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--synthetic", action="store_true", help="synthetic reviews, too, trained here")
    parser.add_argument("--control", action="store_true", help="the label of the last word alone, too, trained here")
    parser.add_argument("--judge", action="store_true", help="judge the rows that are there anew, by their figures")
    parser.add_argument("--n-epochs", type=int, help="of what is trained here, instead of the recipe's")
    arguments = parser.parse_args(argv)
    jobs: dict[str, Callable[[str, int], dict[str, Any]]] = {
        corpus: functools.partial(of_kept, arguments.weights, corpus) for corpus in arguments.corpora
    }
    for name, wanted in (("synthetic", arguments.synthetic), ("last_word", arguments.control)):
        if wanted:
            jobs[name] = functools.partial(of_synthetic, arguments, name == "last_word")
    for corpus, one_run in jobs.items():
        tabulate(arguments, corpus, one_run)


def tabulate(arguments: argparse.Namespace, corpus: str, one_run: Callable[[str, int], dict[str, Any]]) -> None:
    """The rows of one corpus, and their table.

    Args:
      arguments: of the script.
      corpus: name of the folder.
      one_run: from cell and seed to a row; FileNotFoundError where weights are not there.
    """
    folder, rows = arguments.out / corpus, []
    for cell in arguments.cells:
        for seed in arguments.seeds:
            path = folder / f"{cell}_{seed}.json"
            if not path.exists() and (arguments.run is None or seed in arguments.run):
                with contextlib.suppress(FileNotFoundError):  # it stands in the table as not run
                    io.save_json(path, {"cell": cell, "seed": seed, **one_run(cell, seed), **io.environment()})
            said = json.loads(path.read_text()) if path.exists() else {"not_run": True}
            if arguments.judge and path.exists():
                io.save_json(path, said | verdicts(said))
                said = json.loads(path.read_text())
            row = {"cell": cell, "seed": seed}
            rows.append(row | {name: value for name in ("not_run", *COLUMNS) for value in seed_runs.at(said, name)})
            print(json.dumps(rows[-1]), flush=True)
    done = [row for row in rows if "not_run" not in row]
    counts = {cell: seed_runs.met([row for row in rows if row["cell"] == cell], STATISTICS) for cell in arguments.cells}
    table = {"rows": rows, "met": counts, "accuracy_in_percent": accuracies(corpus, done)}
    io.save_json(folder / "table.json", table)


def accuracies(corpus: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Ours, and the paper's of the nearest corpus.

    Args:
      corpus: ours.
      rows: those run.

    Returns:
      Percent of the test split, by cell, one a seed; and of the bag of words.
    """
    ours: dict[str, Any] = {}
    for row in rows:
        ours.setdefault(row["cell"], []).append(round(100 * row["accuracy"]["network"], 2))
        for name in row["accuracy"].keys() - {"network"}:
            ours[name] = round(100 * row["accuracy"][name], 2)
    paper = RELATIVE.get(corpus)
    return {"ours": ours, "paper": None if paper is None else {"corpus": paper, **PAPER[paper]}}


def of_kept(folder: pathlib.Path | None, corpus: str, cell: str, seed: int) -> dict[str, Any]:
    """A network that was trained before.

    Args:
      folder: of its weights.
      corpus: and how it was read: "rotten_tomatoes", "imdb", "imdb_whole", "imdb_first".
      cell: its kind.
      seed: of its weights.

    Returns:
      The row.

    Raises:
      FileNotFoundError: if the weights are not there.
    """
    path = None if folder is None else folder / f"{corpus}_{cell}_{seed}.npz"
    if path is None or not path.exists():
        raise FileNotFoundError(path)
    network, provenance = _loaded(path, cell)
    recipe = Recipe(**provenance["recipe"])
    source = corpus.removesuffix("_whole").removesuffix("_first")
    texts = sentiment_findings.real_corpus(source, network.vocabulary, recipe.n_tokens, recipe.keep)
    said = row_of(seed, network, recipe, texts, provenance, synthetic=False)
    linear = path.with_name(f"{corpus}_linear_{seed}.npz")
    if linear.exists():
        said["linear_rnn"] = sentiment_networks.accuracy(_loaded(linear, "linear")[0], texts.test)
    return said


def _loaded(path: pathlib.Path, cell: str) -> tuple[Network, dict[str, Any]]:
    arrays, provenance = io.load(path)
    return sentiment_networks.as_network(cell, arrays), provenance


def of_synthetic(arguments: argparse.Namespace, last_word: bool, cell: str, seed: int) -> dict[str, Any]:
    """A network on synthetic reviews, trained here.

    Args:
      arguments: of the script.
      last_word: whether the label is that of the last word alone, the control.
      cell: its kind.
      seed: of its weights and the reviews.

    Returns:
      The row.
    """
    config = dataclasses.replace(sentiment_findings.SYNTHETIC, last_word=last_word)
    corpus = sentiment_findings.synthetic_corpus(seed, config)
    recipe = dataclasses.replace(sentiment.SYNTHETIC, cell=cell)
    if arguments.n_epochs:
        recipe = dataclasses.replace(recipe, n_epochs=arguments.n_epochs)

    def train() -> seed_runs.Trained:
        vocabulary = synthetic_reviews.vocabulary(config)
        network, provenance = sentiment_training.train_on(seed, recipe, vocabulary, corpus.train, corpus.valid)
        return sentiment_networks.as_arrays(network), provenance

    name = f"{'last_word' if last_word else 'synthetic'}_{cell}_{seed}"
    arrays, provenance = seed_runs.kept(arguments.weights, name, train)
    return row_of(seed, sentiment_networks.as_network(cell, arrays), recipe, corpus, provenance, synthetic=True)


def row_of(
    seed: int, network: Network, recipe: Recipe, corpus: sentiment_findings.Corpus, provenance: dict[str, Any],
    synthetic: bool,
) -> dict[str, Any]:  # fmt: skip
    """Everything that is asked of one network.

    Args:
      seed: of states, windows and random directions.
      network: trained.
      recipe: of its training.
      corpus: that it was trained on.
      provenance: of the weights.
      synthetic: whether the words' weights are known.

    Returns:
      The row, JSON-like.
    """
    seconds = report.stopwatch()
    untrained = sentiment_networks.init_network(provenance["seed"], recipe, network.vocabulary)
    key = jax.random.fold_in(jax.random.key(seed), 1)  # key(seed) itself drew the weights
    finding = sentiment_findings.examine(key, network, untrained, corpus, synthetic)
    slow = finding.slow
    along = {} if slow is None or not len(slow.line.hidden) else {
        "theta": slow.line.theta, "timescale": slow.line.timescale, "drift": slow.line.drift,
        "transverse_timescale": slow.line.transverse_timescale,
    }  # fmt: skip
    return {
        **finding.said,
        **verdicts(finding.said),
        "along_the_line": {name: np.asarray(values)[::4] for name, values in along.items()},
        "analysis_s": seconds(),
        "training": provenance,
    }


def verdicts(said: dict[str, Any]) -> dict[str, Any]:
    """Which thresholds a row meets.

    Args:
      said: the row.

    Returns:
      "judged", see `sentiment_findings.judge`; "met", by name, of those that have a threshold.
    """
    judged = sentiment_findings.judge(said)
    return {"judged": judged, "met": {name: row["met"] for name, row in judged.items() if row["met"] is not None}}


if __name__ == "__main__":
    main()
