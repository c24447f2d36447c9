"""How sentiment networks are trained: cross-entropy at the last word, AdamW, the best epoch on validation kept.

An epoch goes once through all training reviews, in batches of reviews of about one length, in an order drawn from the
seed. The learning rate falls to zero along a cosine. After each epoch the validation reviews are classified, and the
weights of the epoch with most of them right are what training returns; it ends early once `patience` epochs in a row
were no better. In training, not in validation, words are replaced by the unknown word with chance `word_dropout`.
"""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.progress

from jaxfp import arguments, checkpoints, io
from jaxfp.cli import report, sentiment_networks
from jaxfp.cli.sentiment_networks import Network, Recipe
from jaxfp.models import classifier
from jaxfp.tasks import sentiment
from jaxfp.types import StepFn

CELLS = classifier.CELLS


def recipe_of(cell: str, corpus: str = "rotten_tomatoes", *, small: bool = False) -> Recipe:
    """How the networks that are reported were trained; chosen on validation splits, with other seeds for IMDB.

    Args:
      cell: its kind.
      corpus: "rotten_tomatoes"; anything else is trained on as "imdb" is.
      small: of the packaged networks, with half the vocabulary and the embedding.

    Returns:
      Recipe.

    Raises:
      ValueError: for an unknown cell.

    Example:
      >>> recipe_of("gru").word_dropout, recipe_of("gru", small=True).n_words
      (0.3, 5000)
    """
    arguments.check_choice("cell", cell, CELLS)
    recipe = Recipe(cell, n_units=96, word_dropout=0.3, n_epochs=4)
    if cell in ("vanilla", "ugrnn", "linear"):
        recipe = Recipe(cell, word_dropout=0.4, n_epochs=5)
    if corpus == "rotten_tomatoes":
        recipe = Recipe(cell, learning_rate=1e-3, word_dropout=0.3, n_epochs=8)
    return dataclasses.replace(recipe, n_embedding=32, n_words=5000) if small else recipe


def train_network(
    seed: int,
    recipe: Recipe,
    splits: sentiment.Splits,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train on reviews from scratch. The test split is not looked at.

    Args:
      seed: of weights and order.
      recipe: how.
      splits: of one corpus.
      checkpoint: folder for the epochs that are finished, from which a rerun goes on; None keeps nothing.
      progress: show a bar.

    Returns:
      Arrays as of `sentiment_networks.as_arrays`, float32; and their provenance.

    Example:
      >>> reviews = sentiment.load_reviews(([f"{w} {i}" for i in range(30) for w in ("fine", "dull")], [1, 0] * 30))
      >>> recipe = Recipe("vanilla", n_units=2, n_embedding=2, batch_size=8, n_epochs=1)
      >>> arrays, provenance = train_network(0, recipe, sentiment.split_reviews(reviews))
      >>> arrays["hidden0"].shape, provenance["epochs"]
      ((2,), 1)
    """
    vocabulary = sentiment.build_vocabulary(splits.train.texts, recipe.n_words)
    train, valid = (sentiment_networks.encode(recipe, vocabulary, part) for part in splits[:2])
    network, provenance = train_on(seed, recipe, vocabulary, train, valid, checkpoint=checkpoint, progress=progress)
    provenance["n_reviews"] = {name: len(part.labels) for name, part in splits._asdict().items()}
    return sentiment_networks.as_arrays(network), provenance


def train_on(
    seed: int,
    recipe: Recipe,
    vocabulary: tuple[str, ...],
    train: sentiment.Texts,
    valid: sentiment.Texts,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> tuple[Network, dict[str, Any]]:
    """Train on encoded texts, wherever they are from.

    Args:
      seed: of weights and order.
      recipe: how.
      vocabulary: of the texts.
      train: to train on.
      valid: to choose the epoch by.
      checkpoint: folder for the epochs that are finished, from which a rerun goes on; None keeps nothing.
      progress: show a bar.

    Returns:
      The network of the best epoch, and its provenance: accuracies, losses, seconds, and those of the processor.

    Example:
      >>> texts = sentiment.Texts(np.ones((4, 3), np.int32), np.full(4, 3, np.int32), np.array([0, 1, 1, 1], np.int32))
      >>> recipe = Recipe("vanilla", n_units=2, n_embedding=2, batch_size=2, n_epochs=2)
      >>> network, provenance = train_on(0, recipe, ("<pad>", "<unknown>"), texts, texts)
      >>> len(provenance["valid_accuracies"])
      2
    """
    network = sentiment_networks.init_network(seed, recipe, vocabulary)
    _, key = jax.random.split(jax.random.key(seed))
    parts = [jax.tree.map(jnp.asarray, part) for part in sentiment.bucket(train, recipe.n_buckets)]
    sizes = [len(part.labels) for part in parts]
    n_updates = recipe.n_epochs * sum(-(-size // recipe.batch_size) for size in sizes)
    optimizer = _optimizer(recipe.learning_rate, n_updates, recipe.weight_decay, recipe.clip)
    start, tree = jax.tree.flatten((network.params, optimizer.init(network.params)))
    leaves: list[Any] = [np.asarray(leaf) for leaf in start]
    keep: checkpoints.Keep = checkpoints.keep_nothing
    if checkpoint is not None:
        data = {**checkpoints.hashed("train", train._asdict()), **checkpoints.hashed("valid", valid._asdict())}
        keep = checkpoints.keep_in(checkpoint, {"seed": seed, "recipe": dataclasses.asdict(recipe), **data})

    def epoch(number: int, leaves: list[Any]) -> tuple[list[np.ndarray], np.ndarray, float, float, float]:
        spent, cpu = report.stopwatch(), time.process_time()
        params, state = jax.tree.unflatten(tree, leaves)
        losses = []
        for step, (part, rows) in enumerate(_batches(jax.random.fold_in(key, number), sizes, recipe.batch_size)):
            hide = jax.random.fold_in(jax.random.fold_in(key, number), step)
            params, state, loss = _update(
                network.step_fn, optimizer, params, state, parts[part], rows, hide, recipe.word_dropout
            )
            losses.append(loss)
        right = sentiment_networks.accuracy(network._replace(params=params), valid, recipe.n_buckets)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((params, state))]
        return leaves, np.asarray(losses), right, spent(), time.process_time() - cpu

    best, done = network, []
    with _bar(recipe.n_epochs, progress) as show:
        for number in range(recipe.n_epochs):
            leaves, losses, right, spent, cpu = keep(f"epoch-{number}", functools.partial(epoch, number, leaves))
            done.append({"loss": float(losses.mean()), "valid": right, "seconds": spent, "cpu_seconds": cpu})
            if right > max((each["valid"] for each in done[:-1]), default=-1.0):
                params, _ = jax.tree.unflatten(tree, map(jnp.asarray, leaves))
                best, best_epoch = network._replace(params=params), number
            show(number + 1, done[-1])
            if number - best_epoch >= recipe.patience:
                break
    return best, {
        "task": "sentiment",
        "cell": recipe.cell,
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "n_words": len(vocabulary),
        "best_epoch": best_epoch + 1,
        "epochs": len(done),
        "losses": [each["loss"] for each in done],
        "valid_accuracies": [each["valid"] for each in done],
        **{name: sum(each[name] for each in done) for name in ("seconds", "cpu_seconds")},
        **io.environment(),
    }


def _batches(key: jax.Array, sizes: list[int], batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(part, rows) of one epoch: every text once, the last batch of a part filled with its first again."""
    batches = []
    for part, size in enumerate(sizes):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, part), size))
        whole = np.resize(order, (-(-size // batch_size), batch_size))
        batches += [(part, rows) for rows in whole]
    for number in np.asarray(jax.random.permutation(key, len(batches))):
        yield batches[number]


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def _update(
    step_fn: StepFn, optimizer: Any, params: Any, state: Any, texts: sentiment.Texts, rows: Any, key: Any, hide: Any
) -> tuple[Any, Any, jax.Array]:
    tokens = texts.tokens[rows]
    tokens = jnp.where(jax.random.bernoulli(key, hide, tokens.shape), classifier.UNKNOWN, tokens)

    def loss_of(params: classifier.ClassifierParams) -> jax.Array:
        said = jax.vmap(classifier.logits, (None, None, 0, 0))(step_fn, params, tokens, texts.lengths[rows])
        return classifier.cross_entropy(said, texts.labels[rows])

    loss, gradient = jax.value_and_grad(loss_of)(params)
    # optax multiplies its integer counters with floats, which a caller's strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, loss


@contextlib.contextmanager
def _bar(n_epochs: int, progress: bool) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A function that is told the epochs done and how the newest went."""
    if not progress:
        yield lambda done, newest: None
        return
    said = rich.progress.TextColumn("loss {task.fields[loss]:.3f}, validation {task.fields[valid]:.1%}")
    with rich.progress.Progress(*rich.progress.Progress.get_default_columns(), said) as bar:
        task = bar.add_task("training", total=n_epochs, loss=float("nan"), valid=float("nan"))
        yield lambda done, newest: bar.update(task, completed=done, loss=newest["loss"], valid=newest["valid"])


@functools.lru_cache
def _optimizer(learning_rate: float, n_updates: int, weight_decay: float, clip: float) -> optax.GradientTransformation:
    """One for the same numbers, so that a second seed compiles nothing."""
    schedule = optax.cosine_decay_schedule(learning_rate, n_updates)
    return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(schedule, weight_decay=weight_decay))
